"""Five more examples of jobs/examples on real input, and the scripts that they stand in for: both keep the same promises."""

from __future__ import annotations

import csv
import gzip
import http.server
import importlib.util
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobrunner import jobfile
from jobrunner.cli.main import cli

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "jobs" / "examples"
SCRIPTS = {
    "dependency_audit": "dependency_audit_script.py",
    "web_scrape": "web_scrape_script.py",
    "db_dump": "db_dump_script.py",
    "python_matrix": "python_matrix.sh",
    "csv_fanout": "csv_fanout_script.py",
}
WAYS = pytest.mark.parametrize("way", ["job", "script"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What came of a run; a script has no events."""

    code: int
    text: str
    events: Sequence[dict[str, object]] = ()

    def of(self, event: str, task: str) -> list[dict[str, object]]:
        return [each for each in self.events if each["event"] == event and each.get("task") == task]

    def outcome(self, task: str) -> object:
        """The outcome of the last attempt of a task without instances, or the reason why it was skipped."""
        (last,) = [*self.of("task.finished", task), *self.of("task.skipped", task)]
        return last.get("outcome", last.get("reason"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A copy of the examples whose retries hardly wait, and two ways to run one of them."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    @property
    def examples(self) -> Path:
        return self.folder / "jobs" / "examples"

    def job(self, name: str, *options: str, **params: object) -> Ran:
        log = self.folder / "log.jsonl"
        log.unlink(missing_ok=True)
        code = cli([*self.words(name, **params), "--log-file", str(log), *options])
        printed, told = self.capture.readouterr()
        return Ran(code=code, text=printed + told, events=events(log))

    def words(self, name: str, **params: object) -> list[str]:
        pairs = [f"{key}={value if isinstance(value, str | Path) else json.dumps(value)}" for key, value in params.items()]
        return [str(self.examples / f"{name}.yaml"), *(word for pair in pairs for word in ("--set", pair))]

    def script(self, name: str, *arguments: object) -> Ran:
        file = self.examples / "replaced" / SCRIPTS[name]
        command = ["bash" if file.suffix == ".sh" else sys.executable, str(file), *map(str, arguments)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        return Ran(code=ended.returncode, text=ended.stdout + ended.stderr)


def events(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    made = Bench(folder=tmp_path, capture=capsys)
    shutil.copytree(EXAMPLES, made.examples, ignore=shutil.ignore_patterns("__pycache__"))
    for file in made.examples.glob("*.yaml"):
        file.write_text(re.sub(r"(?<=[ {]delay: )\w+", "1ms", file.read_text()))
    return made


def code_lines(files: Iterator[Path]) -> int:
    return sum(bool(re.match(r"\s*[^\s#]", line)) for file in files for line in file.read_text().splitlines())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_job_is_valid_and_shorter_than_the_script_that_it_replaces(name: str) -> None:
    job = EXAMPLES / f"{name}.yaml"
    assert job.read_text().startswith("# yaml-language-server: $schema=../../schemas/job.schema.json\n")
    assert jobfile.load(job).tasks
    assert code_lines(EXAMPLES.glob(f"{name}.[yp]*")) < code_lines(iter([EXAMPLES / "replaced" / SCRIPTS[name]]))


# web_scrape


@dataclass(slots=True, kw_only=True)
class Site:
    """Pages on loopback: one is busy twice, one is gone, two answer only when both were asked for."""

    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    busy: dict[str, int] = field(default_factory=lambda: {"/busy": 2})
    inside: int = 0
    peak: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    both: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=20))

    LINKS = ("/busy", "/gone#part", "/plain", "/slow/1", "/slow/2", "http://elsewhere.invalid/", "mailto:ada@example.org")

    def answer(self, path: str) -> tuple[int, str]:
        with self.lock:
            self.asked[path] += 1
            self.inside += 1
            self.peak = max(self.peak, self.inside)
            often = self.asked[path]
        if path.startswith("/slow"):
            self.both.wait()
        status = 503 if often <= self.busy.get(path, 0) else 404 if path == "/gone" else 200
        links = "".join(f'<a href="{link}">to</a>' for link in self.LINKS) if path == "/" else ""
        with self.lock:
            self.inside -= 1
        return status, f"<html><title>Page {path}</title><script>not words</script><p>three <b>more</b> words</p>{links}</html>"


@pytest.fixture
def site() -> Iterator[Site]:
    pages = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = pages.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        pages.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield pages
        server.shutdown()
        thread.join()


def scrape(bench: Bench, way: str, site: Site) -> tuple[Ran, Path]:
    out = bench.folder / "found" / "pages.json"
    if way == "job":
        return bench.job("web_scrape", start=f"{site.url}/", out=out), out
    return bench.script("web_scrape", f"{site.url}/", out, "--delay", "0.001"), out


@WAYS
def test_every_page_is_read_a_busy_server_is_asked_again_and_never_more_than_two_at_a_time(
    way: str, bench: Bench, site: Site
) -> None:
    ran, out = scrape(bench, way, site)
    assert ran.code == 0, ran.text
    found = {page["url"].removeprefix(site.url): page for page in json.loads(out.read_text())}
    assert {path: page["status"] for path, page in found.items()} == {
        "/busy": 200, "/gone": 404, "/plain": 200, "/slow/1": 200, "/slow/2": 200,
    }  # fmt: skip
    assert (found["/plain"]["title"], found["/plain"]["words"]) == ("Page /plain", 5)
    assert site.asked == {"/": 1, "/busy": 3, "/gone": 1, "/plain": 1, "/slow/1": 1, "/slow/2": 1}
    assert site.peak == 2


@WAYS
def test_what_was_read_within_the_hour_is_not_asked_for_again(way: str, bench: Bench, site: Site) -> None:
    _, out = scrape(bench, way, site)
    before = out.read_text()
    out.unlink()
    site.asked.clear()
    ran, _ = scrape(bench, way, site)
    assert ran.code == 0, ran.text
    assert site.asked == {"/": 1}
    assert out.read_text() == before


@WAYS
def test_a_page_that_stays_busy_fails_the_run_the_others_are_saved_and_only_it_is_asked_again(
    way: str, bench: Bench, site: Site
) -> None:
    site.busy = {"/busy": 6}
    ran, out = scrape(bench, way, site)
    assert ran.code == 1, ran.text
    assert len(json.loads(out.read_text())) == 4
    assert site.asked["/busy"] == 5
    site.asked.subtract(dict(site.asked) | {"/busy": 0})
    ran, out = scrape(bench, way, site)
    assert ran.code == 0, ran.text
    assert +site.asked == {"/": 1, "/busy": 7}
    assert len(json.loads(out.read_text())) == 5


@WAYS
def test_where_the_first_page_fails_the_old_file_stays(way: str, bench: Bench, site: Site) -> None:
    _, out = scrape(bench, way, site)
    before = out.read_text()
    site.busy = {"/": 100}
    ran, _ = scrape(bench, way, site)
    assert ran.code == 1
    assert out.read_text() == before


# dependency_audit


def audit(bench: Bench, way: str, **files: str) -> tuple[Ran, str]:
    """Audit requirements files; click is installed, nowhere-to-be-found is not."""
    root, out = bench.folder / "tree", bench.folder / "audit.md"
    (root / "part").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / f"part/{name}-requirements.txt").write_text(text)
    known = [
        {"package": "Click", "affected": "<2", "id": "X-1", "summary": "long ago"},
        {"package": "nowhere.to_be_found", "affected": ">=1,<1.5", "id": "X-2", "summary": "it leaks"},
    ]
    advisories = bench.folder / "known.json"
    advisories.write_text(json.dumps(known))
    if way == "job":
        ran = bench.job("dependency_audit", root=root, advisories=advisories, out=out)
    else:
        ran = bench.script("dependency_audit", root, advisories, out)
    return ran, out.read_text()


@WAYS
def test_what_is_vulnerable_fails_the_run_and_the_report_is_written_all_the_same(way: str, bench: Bench) -> None:
    bad = "nowhere-to-be-found==1.2 \\\n  --hash=sha256:00\nnever==1 ; python_version < '3'\n"
    ran, text = audit(bench, way, a="click  # any\nclick>=999\n-r other.txt\n", b=bad)
    assert ran.code == 1
    assert "vulnerable: nowhere-to-be-found 1.2" in ran.text
    assert "# Dependencies: 3 in 2 files" in text
    rows = {tuple(cell.strip() for cell in line.split("|")[2:-1:3]) for line in text.splitlines() if "requirements.txt" in line}
    assert rows == {("click", "outdated"), ("nowhere-to-be-found", "vulnerable; X-2: it leaks")}


@WAYS
def test_what_is_only_missing_fails_nothing(way: str, bench: Bench) -> None:
    ran, text = audit(bench, way, a="nowhere-to-be-found==1.5\n")
    assert ran.code == 0, ran.text
    assert "| missing |" in text


@WAYS
def test_a_file_that_cannot_be_read_fails_the_run_and_the_report_has_the_others(way: str, bench: Bench) -> None:
    ran, text = audit(bench, way, a="click>=999\n", b="this is no requirement\n")
    assert ran.code == 1
    assert "The audit failed. {'outdated': 1}" in text
    if way == "job":
        assert ran.outcome("verdict") == "needs"


def test_without_requirements_files_there_is_nothing_to_judge(bench: Bench) -> None:
    ran, text = audit(bench, "job")
    assert ran.code == 0
    assert ran.outcome("verdict") == "condition"
    assert "0 in 0 files" in text


def test_the_audit_says_what_to_install_where_packaging_is_missing(bench: Bench) -> None:
    (bench.examples / "packaging.py").write_text("raise ImportError('not here')\n")
    ran = bench.job("dependency_audit", root=bench.examples, out=bench.folder / "audit.md")
    assert ran.code == 1
    assert "dependency_audit needs packaging: pip install packaging" in ran.text


# db_dump


def make_database(path: Path, *texts: str) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "PRAGMA journal_mode = WAL;"
            "CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, weight REAL);"
            'CREATE TABLE "odd "" name" (data BLOB); CREATE INDEX by_text ON notes (text);'
        )
        db.executemany("INSERT INTO notes (text, weight) VALUES (?, ?)", [(text, 1 / (len(text) + 3)) for text in texts])
        db.execute('INSERT INTO "odd "" name" VALUES (?)', (bytes(range(256)),))
        db.commit()
    return path


def dump(bench: Bench, way: str, database: Path, *options: str, keep: int = 7) -> tuple[Ran, list[Path]]:
    """A run, and the dumps that are there after it, the oldest first."""
    to = bench.folder / "dumps"
    if way == "job":
        ran = bench.job("db_dump", *options, database=database, to=to, keep=keep)
    else:
        ran = bench.script("db_dump", database, to, "--keep", keep)
    assert not (to / "scratch").exists(), "the scratch files go whatever happens"
    return ran, sorted(to.glob("*.gz"))


@WAYS
def test_a_dump_holds_what_was_committed_while_somebody_else_writes(way: str, bench: Bench) -> None:
    database = make_database(bench.folder / "it's.db", "it's", "ünï\ncode", "")
    with closing(sqlite3.connect(database)) as writer:
        writer.execute("INSERT INTO notes (text) VALUES ('not committed')")
        ran, (file,) = dump(bench, way, database)
        writer.rollback()
    assert ran.code == 0, ran.text
    assert "3 tables, 5 rows" in ran.text  # one of both is that of sqlite_sequence
    with closing(sqlite3.connect(":memory:")) as restored, closing(sqlite3.connect(database)) as source:
        restored.executescript(gzip.decompress(file.read_bytes()).decode())
        for table in ("notes", '"odd "" name"'):
            assert restored.execute(f"SELECT * FROM {table}").fetchall() == source.execute(f"SELECT * FROM {table}").fetchall()


@WAYS
def test_only_the_newest_dumps_are_kept(way: str, bench: Bench) -> None:
    database = make_database(bench.folder / "some.db", "a")
    names = [dump(bench, way, database, keep=2)[1] for _ in range(3)]
    assert len(names[2]) == 2
    assert names[2][0] == names[1][1]


@WAYS
def test_a_dump_that_does_not_give_the_same_database_is_not_kept_and_no_old_one_goes(way: str, bench: Bench) -> None:
    database = make_database(bench.folder / "some.db", "a")
    _, before = dump(bench, way, database, keep=1)
    with closing(sqlite3.connect(database)) as db:
        db.execute("INSERT INTO notes (text) VALUES ('cut' || char(0) || 'off')")  # SQL text ends at NUL: the dump loses the rest
        db.commit()
    ran, after = dump(bench, way, database, keep=1)
    assert ran.code == 1
    assert "restored differently from the dump: notes" in ran.text
    assert after == before


def test_a_file_that_is_no_database_is_not_tried_again(bench: Bench) -> None:
    broken = bench.folder / "broken.db"
    broken.write_bytes(b"no database at all " * 100)
    ran, dumps = dump(bench, "job", broken)
    assert (ran.code, dumps, len(ran.of("task.finished", "snapshot"))) == (1, [], 1)
    assert ran.outcome("tidy") == "succeeded"


def test_no_empty_dump_is_made_where_the_snapshot_is_missing(bench: Bench) -> None:
    database = make_database(bench.folder / "some.db", "a")
    _, before = dump(bench, "job", database, keep=1)
    ran, after = dump(bench, "job", database, "--from", "dump", keep=1)
    assert ran.code == 1
    assert "No such file or directory" in ran.text
    assert after == before


def test_a_run_that_is_stopped_leaves_no_scratch_files_either(bench: Bench) -> None:
    database, to = make_database(bench.folder / "some.db", "a"), bench.folder / "dumps"
    with closing(sqlite3.connect(database)) as owner:
        owner.execute("PRAGMA journal_mode = DELETE")
        owner.execute("BEGIN EXCLUSIVE")  # the snapshot waits for that
        (to / "scratch").mkdir(parents=True)
        ran = signalled(bench.words("db_dump", database=database, to=to), "task.started", 1, signal.SIGTERM)
    assert ran.code == 143, ran.text
    assert ran.outcome("tidy") == "succeeded"
    assert not any(to.iterdir())


def signalled(words: list[str], event: str, times: int, number: signal.Signals) -> Ran:
    """A run of a process of its own, which gets a signal as soon as it has logged an event so many times."""
    command = [sys.executable, "-m", "jobrunner", *words, "--log-format", "json"]
    told: list[dict[str, object]] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            told += [json.loads(line)] if line.startswith("{") else []
            if [each["event"] for each in told[-1:]] == [event] and sum(each["event"] == event for each in told) == times:
                run.send_signal(number)
    return Ran(code=run.returncode, text="", events=told)


# python_matrix

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def matrix(bench: Bench, way: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Ran, dict[str, list[str]]]:
    """The tests of the sample with this Python and with one that is nowhere; the rows of the report."""
    (bench.folder / "bin").mkdir()
    (bench.folder / "bin" / f"python{HERE}").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{bench.folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    out = bench.folder / "report.md"
    if way == "job":
        ran = bench.job("python_matrix", pythons=[HERE, "3.99"], out=out)
    else:
        ran = bench.script("python_matrix", bench.examples / "python_matrix_sample", out, f"{HERE} 3.99")
    rows = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in out.read_text().splitlines()]
    return ran, {name: cells for name, *cells in rows[2:]}


@WAYS
def test_the_pythons_that_are_here_are_tested_and_the_others_skipped(
    way: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, rows = matrix(bench, way, monkeypatch)
    assert ran.code == 0, ran.text
    assert rows == {sys.version.split()[0]: ["passed", "passed"], "3.99 is not here": ["–", "–"]}
    if way == "job":
        skipped = {each["item"]: each["reason"] for each in ran.of("task.skipped", "test")}
        assert skipped == {"3.99,none": "condition", "3.99,translit": "condition"}


@WAYS
def test_a_combination_whose_tests_fail_fails_the_run_and_stands_in_the_report(
    way: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = bench.examples / "python_matrix_sample" / "extras" / "translit" / "translit.py"
    extra.write_text(extra.read_text().replace('"ue"', '"u"'))
    ran, rows = matrix(bench, way, monkeypatch)
    assert ran.code == 1
    assert rows[sys.version.split()[0]] == ["passed", "FAILED"]
    if way == "job":
        assert "step 3 of 4 (" in ran.text
        (run,) = {Path(str(each["run_dir"])) for each in ran.events if each["event"] == "run.started"}
        assert not (run / "venv").exists()


def test_after_a_fix_only_what_failed_runs_again_and_the_report_is_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = bench.examples / "python_matrix_sample" / "extras" / "translit" / "translit.py"
    right = extra.read_text()
    extra.write_text(right.replace('"ue"', '"u"'))
    matrix(bench, "job", monkeypatch)
    extra.write_text(right)
    log = bench.folder / "resumed.jsonl"
    assert cli(["resume", str(bench.examples / "python_matrix.yaml"), "--retry-failed", "--log-file", str(log)]) == 0
    resumed = Ran(code=0, text="", events=events(log))
    assert [each["item"] for each in resumed.of("task.started", "test")] == [f"{HERE},translit"]
    assert "FAILED" not in (bench.folder / "report.md").read_text()


def test_a_python_that_does_not_run_is_not_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = bench.folder / "python3.98"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bench.folder}{os.pathsep}{os.environ['PATH']}")
    spec = importlib.util.spec_from_file_location("python_matrix_example", EXAMPLES / "python_matrix.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.find(["3.98"]) == {}


# csv_fanout


def results(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as text:
        return list(csv.DictReader(text))


def loans() -> list[str]:
    return [row["loan"] for row in results(EXAMPLES / "csv_fanout.csv")]


def test_job_and_script_write_the_same_table_in_the_order_of_the_rows(bench: Bench) -> None:
    by_job, by_script = bench.folder / "a" / "job.csv", bench.folder / "b" / "script.csv"
    ran = bench.job("csv_fanout", out=by_job, paths=50)
    assert ran.code == 0, ran.text
    assert bench.script("csv_fanout", EXAMPLES / "csv_fanout.csv", by_script, "--paths", 50).code == 0
    assert [row["loan"] for row in results(by_job)] == loans()
    assert by_job.read_bytes() == by_script.read_bytes()
    assert sorted(str(each["item"]) for each in ran.of("task.started", "simulate")) == loans()


@WAYS
def test_a_row_that_is_wrong_is_not_tried_again_and_keeps_no_other_back(way: str, bench: Bench) -> None:
    table, out = bench.folder / "table.csv", bench.folder / "out.csv"
    table.write_text((EXAMPLES / "csv_fanout.csv").read_text() + "odd,1000,much,0.1,5\n")
    if way == "job":
        ran = bench.job("csv_fanout", table=table, out=out, paths=10)
        outcomes = Counter(each["outcome"] for each in ran.of("task.finished", "simulate"))
        assert outcomes == {"succeeded": len(loans()), "failed": 1}
    else:
        ran = bench.script("csv_fanout", table, out, "--paths", 10)
    assert ran.code == 1
    assert "could not convert string to float: 'much'" in ran.text
    assert not out.exists()


def test_after_a_kill_half_way_the_run_goes_on_and_no_row_is_done_twice(bench: Bench) -> None:
    out = bench.folder / "out.csv"
    words = bench.words("csv_fanout", out=out, paths=4000)
    killed = signalled(words, "task.finished", 1 + len(loans()) // 3, signal.SIGKILL)
    assert killed.code == -signal.SIGKILL
    done = {each["item"] for each in killed.of("task.finished", "simulate") if each["outcome"] == "succeeded"}
    assert not out.exists()
    log = bench.folder / "resumed.jsonl"
    assert cli(["resume", str(bench.examples / "csv_fanout.yaml"), "--log-file", str(log)]) == 0
    resumed = Ran(code=0, text="", events=events(log))
    again = {each["item"] for each in resumed.of("task.started", "simulate")}
    assert again
    assert not again & done
    assert again | {each["item"] for each in resumed.of("task.skipped", "simulate")} == {*loans()}
    assert [row["loan"] for row in results(out)] == loans()
