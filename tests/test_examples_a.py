"""Five examples of jobs/examples on real input, and the scripts that they stand in for: both keep the same promises."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from jobrunner import spec
from jobrunner.cli.main import cli

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "jobs" / "examples"
NAMES = ("backup", "log_shipping", "etl_sqlite", "thumbnails", "pdf_text")
SCRIPTS = {"backup": "backup.sh", "log_shipping": "log_shipping.sh"}
WAYS = pytest.mark.parametrize("way", ["job", "script"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What came of a run; a script has no events."""

    code: int
    text: str
    events: Sequence[dict[str, object]] = ()

    def of(self, event: str, task: str) -> list[dict[str, object]]:
        return [each for each in self.events if each["event"] == event and each.get("task") == task]

    def started(self, task: str) -> list[object]:
        """The items whose attempts started, in order; again for each further attempt."""
        return [each.get("item") for each in self.of("task.started", task)]

    def cached(self, task: str) -> int:
        return sum(each["reason"] == "cached" for each in self.of("task.skipped", task))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A copy of the examples that waits no seconds between retries, with a state of its own."""

    folder: Path
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    @property
    def examples(self) -> Path:
        return self.folder / "jobs" / "examples"

    def job(self, name: str, **params: object) -> Ran:
        log = self.folder / "log.jsonl"
        log.unlink(missing_ok=True)
        pairs = [f"{key}={value if isinstance(value, str | Path) else json.dumps(value)}" for key, value in params.items()]
        settings = [word for pair in pairs for word in ("--set", pair)]
        code = cli([str(self.examples / f"{name}.yaml"), "--log-file", str(log), *settings])
        printed, told = self.capture.readouterr()
        lines = log.read_text().splitlines() if log.exists() else []
        return Ran(code=code, text=printed + told, events=[json.loads(line) for line in lines])

    def script(self, name: str, *arguments: object) -> Ran:
        file = self.examples / "replaced" / SCRIPTS.get(name, f"{name}_script.py")
        program = "bash" if file.suffix == ".sh" else sys.executable
        command = [program, str(file), *map(str, arguments)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        return Ran(code=ended.returncode, text=ended.stdout + ended.stderr)

    def script_settings(self, **settings: object) -> None:
        for name, value in settings.items():
            self.patch.setenv(name, str(value))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    made = Bench(folder=tmp_path, patch=monkeypatch, capture=capsys)
    shutil.copytree(EXAMPLES, made.examples)
    for job in made.examples.glob("*.yaml"):
        job.write_text(job.read_text().replace("delay: 30s", "delay: 10ms").replace("delay: 5s", "delay: 10ms"))
    etl = made.examples / "etl_sqlite.yaml"
    etl.write_text(etl.read_text().replace("{max: 5, exceptions", "{max: 5, delay: 10ms, exceptions"))
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    made.script_settings(STATE=tmp_path / "script", DISK=tmp_path / "disk", UPLINK=tmp_path / "uplink", DELAY=0)
    return made


# What is true of all of them


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_valid_and_names_the_schema_that_lies_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = EXAMPLES / f"{name}.yaml"
    schema = file.read_text().splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (file.parent / schema).resolve() == ROOT / "schemas" / "job.schema.json"
    assert cli(["validate", str(file)]) == 0, capsys.readouterr()


@pytest.mark.parametrize("name", NAMES)
def test_a_job_is_shorter_than_the_script_that_it_replaces(name: str) -> None:
    own = [EXAMPLES / f"{name}.yaml", EXAMPLES / f"{name}.py"]
    script = EXAMPLES / "replaced" / SCRIPTS.get(name, f"{name}_script.py")
    assert sum(code_lines(file) for file in own if file.exists()) < code_lines(script)


def code_lines(file: Path) -> int:
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in file.read_text().splitlines())


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("backup", "backup/daily/*.tar.gz"),
        ("etl_sqlite", "etl/report.csv"),
        ("thumbnails", "thumbnails/thumbnails.png.webp"),
        ("pdf_text", "pdf_text/pdf_text.pdf.txt"),
    ],
)
def test_an_example_runs_without_parameters(name: str, made: str, bench: Bench) -> None:
    ran = bench.job(name)
    assert ran.code == 0, ran.text
    assert len(list((bench.folder / "out").glob(made))) == 1


@pytest.mark.parametrize(
    ("name", "package", "told"),
    [
        ("thumbnails", "PIL", "thumbnails need Pillow: pip install Pillow"),
        ("pdf_text", "pypdf", "reading PDFs needs pypdf: pip install pypdf"),
    ],
)
def test_a_package_that_is_missing_is_named_with_how_to_get_it(name: str, package: str, told: str, bench: Bench) -> None:
    (bench.examples / f"{package}.py").write_text("raise ImportError\n")  # found before the real one
    ran = bench.job(name)
    assert ran.code == 1
    assert told in ran.text


# backup


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "a tree"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "it's; a file").write_text("content")
    (root / "cache").mkdir()
    (root / "cache" / ".nobackup").touch()
    (root / "cache" / "big").write_text("left out")
    return root


def back_up(bench: Bench, way: str, root: Path, *, daily: int = 7) -> Ran:
    told = bench.folder / "told"
    tell = bench.folder / "tell"
    tell.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" >> "{told}"\n')
    tell.chmod(0o755)
    if way == "job":
        return bench.job("backup", root=root, to=bench.folder / "copies", daily=daily, notify=[str(tell)])
    bench.script_settings(DAILY=daily, NOTIFY=tell)
    return bench.script("backup", root, bench.folder / "copies")


def make_old_copies(bench: Bench, number: int) -> Path:
    folder = bench.folder / "copies" / "daily"
    folder.mkdir(parents=True)
    for day in range(1, number + 1):
        name, content = f"2020-01-{day:02}.tar.gz", gzip.compress(b"%d" % day)
        (folder / name).write_bytes(content)
        (folder / f"{name}.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    return folder


@WAYS
def test_a_backup_holds_the_folder_and_its_weekly_copy_is_the_same_file(way: str, bench: Bench, tree: Path) -> None:
    ran = back_up(bench, way, tree)
    assert ran.code == 0, ran.text
    (archive,) = (bench.folder / "copies" / "daily").glob("*.gz")
    (weekly,) = (bench.folder / "copies" / "weekly").glob("*.gz")
    with tarfile.open(archive) as tar:
        assert sorted(tar.getnames()) == [".", "./sub", "./sub/it's; a file"]
    assert archive.samefile(weekly)
    assert not (bench.folder / "told").exists()


@WAYS
def test_a_second_backup_of_a_day_replaces_the_first_and_a_week_keeps_its_own(way: str, bench: Bench, tree: Path) -> None:
    back_up(bench, way, tree)
    (tree / "new").touch()
    ran = back_up(bench, way, tree)
    assert ran.code == 0, ran.text
    (archive,) = (bench.folder / "copies" / "daily").glob("*.gz")
    (weekly,) = (bench.folder / "copies" / "weekly").glob("*.gz")
    with tarfile.open(archive) as now, tarfile.open(weekly) as then:
        assert set(now.getnames()) - set(then.getnames()) == {"./new"}


@WAYS
def test_the_oldest_copies_go_with_their_checksums(way: str, bench: Bench, tree: Path) -> None:
    folder = make_old_copies(bench, 5)
    ran = back_up(bench, way, tree, daily=3)
    assert ran.code == 0, ran.text
    kept = sorted(path.name for path in folder.iterdir())
    assert len(kept) == 6
    assert kept[:4] == [f"2020-01-{day}.tar.gz{end}" for day in ("04", "05") for end in ("", ".sha256")]


@WAYS
def test_no_copy_goes_while_one_of_them_is_rotten_and_somebody_is_told(way: str, bench: Bench, tree: Path) -> None:
    folder = make_old_copies(bench, 5)
    (folder / "2020-01-04.tar.gz").write_bytes(b"rotten")
    ran = back_up(bench, way, tree, daily=3)
    assert ran.code != 0
    assert len(list(folder.glob("*.gz"))) == 6
    assert f"backup of {tree} failed" in (bench.folder / "told").read_text()


def test_a_backup_that_failed_goes_on_without_a_second_archive(bench: Bench, tree: Path) -> None:
    folder = make_old_copies(bench, 5)
    rotten = (folder / "2020-01-04.tar.gz").read_bytes()
    (folder / "2020-01-04.tar.gz").write_bytes(b"rotten")
    assert back_up(bench, "job", tree, daily=3).code == 1
    (folder / "2020-01-04.tar.gz").write_bytes(rotten)
    log = bench.folder / "resumed.jsonl"
    code = cli(["resume", str(bench.examples / "backup.yaml"), "--retry-failed", "--log-file", str(log)])
    ran = Ran(code=code, text="", events=[json.loads(line) for line in log.read_text().splitlines()])
    assert (code, ran.started("archive"), len(ran.started("check")), len(list(folder.glob("*.gz")))) == (0, [], 1, 3)


@WAYS
@pytest.mark.parametrize(
    ("codes", "attempts", "is_whole"), [([1, 0], 2, True), ([2, 0], 1, False), ([1, 1, 1, 0], 3, False)], ids=str
)
def test_only_an_archive_of_files_that_changed_is_made_again(
    codes: list[int], attempts: int, is_whole: bool, way: str, bench: Bench, tree: Path
) -> None:
    count = put_before(bench, "tar", codes)
    ran = back_up(bench, way, tree)
    assert (ran.code == 0) is is_whole, ran.text
    assert len(count.read_text().splitlines()) == attempts
    assert len(ran.started("archive")) == (attempts if way == "job" else 0)
    assert (bench.folder / "told").exists() is not is_whole


def put_before(bench: Bench, program: str, codes: list[int]) -> Path:
    """A program that exits with each of `codes` in turn, after the real one, when that is not 0; the file counts its calls."""
    folder, calls = bench.folder / "bin", bench.folder / "calls"
    folder.mkdir()
    real = shutil.which(program)
    choose = f"echo >> '{calls}'\nset -- {' '.join(map(str, codes))} -- \"$@\"\nshift $(($(wc -l < '{calls}') - 1))\ncode=$1\n"
    rest = f'while test "$1" != --; do shift; done\nshift\n"{real}" "$@" || exit\nexit "$code"\n'
    (folder / program).write_text(f"#!/bin/sh\n{choose}{rest}")
    (folder / program).chmod(0o755)
    bench.patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return calls


def test_one_copy_at_a_time_is_read(bench: Bench, tree: Path) -> None:
    make_old_copies(bench, 5)
    ran = back_up(bench, "job", tree)
    assert ran.code == 0, ran.text
    turns = [each["event"] for each in ran.events if each.get("task") == "check"]
    assert turns == ["task.started", "task.finished"] * 7


HOLDER = """
limits: {{disk: {{slots: 1, scope: host}}}}
tasks: {{hold: {{limits: [disk], run: "cat {fifo}"}}}}
"""


def test_a_backup_waits_while_another_job_of_the_machine_uses_the_disk(bench: Bench, tree: Path) -> None:
    fifo, holder = bench.folder / "fifo", bench.folder / "holder.yaml"
    os.mkfifo(fifo)
    holder.write_text(HOLDER.format(fifo=fifo))
    own = bench.examples / "backup.yaml"
    own.write_text(own.read_text() + "timeout: 500ms\n")
    command = [sys.executable, "-m", "jobrunner", "--log-level", "error", str(holder)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL) as other:
        with fifo.open("w"):  # open for writing means that the task of the other job reads, so that it has the disk
            kept_waiting = back_up(bench, "job", tree)
        assert other.wait() == 0
    assert (kept_waiting.code, kept_waiting.started("archive")) == (124, []), kept_waiting.text
    own.write_text(own.read_text().replace("timeout: 500ms\n", ""))
    assert back_up(bench, "job", tree).code == 0


# log_shipping


@dataclass(slots=True)
class Store:
    """An HTTP server that keeps what is PUT. `answers` are given first, one a request: a status, or None to hang up."""

    answers: list[int | None] = field(default_factory=list)
    kept: dict[str, bytes] = field(default_factory=dict)
    requests: int = 0
    url: str = ""


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # so that it tells curl to go on, which else waits a second

        def do_PUT(self) -> None:
            made.requests += 1
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = made.answers.pop(0) if made.answers else 201
            self.close_connection = True
            if answer is None:
                return
            if answer < 300:
                made.kept[self.path] = body
            self.send_response(answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}/web1/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    (folder / "nginx").mkdir(parents=True)
    (folder / "app.log").write_text("still written")
    (folder / "app.log-20260101").write_text("first\n")
    (folder / "nginx" / "access log-20260102").write_text("second\n")
    return folder


def ship(bench: Bench, way: str, logs: Path, to: str) -> Ran:
    return bench.job("log_shipping", logs=logs, to=to) if way == "job" else bench.script("log_shipping", logs, to)


@WAYS
def test_rotated_logs_are_shipped_once_and_again_when_they_changed(way: str, bench: Bench, logs: Path, store: Store) -> None:
    ran = ship(bench, way, logs, store.url)
    assert ran.code == 0, ran.text
    assert sorted(map(gzip.decompress, store.kept.values())) == [b"first\n", b"second\n"]
    again = ship(bench, way, logs, store.url)
    assert (again.code, store.requests) == (0, 2), again.text
    assert again.cached("ship") == (2 if way == "job" else 0)
    (logs / "app.log-20260101").write_text("first and more\n")
    assert ship(bench, way, logs, store.url).code == 0
    assert (store.requests, gzip.decompress(store.kept["/web1/app.log-20260101.gz"])) == (3, b"first and more\n")


@WAYS
def test_a_server_that_hangs_up_is_asked_again_and_one_that_says_no_is_not(
    way: str, bench: Bench, logs: Path, store: Store
) -> None:
    shutil.rmtree(logs / "nginx")
    store.answers = [None, None, 403]
    refused = ship(bench, way, logs, store.url)
    assert (refused.code != 0, store.requests, store.kept) == (True, 3, {}), refused.text
    granted = ship(bench, way, logs, store.url)  # what was not shipped is not marked as if it were
    assert (granted.code, store.requests, len(store.kept)) == (0, 4, 1), granted.text


@WAYS
def test_logs_are_shipped_to_a_folder_as_well(way: str, bench: Bench, logs: Path) -> None:
    folder = bench.folder / "dest"
    folder.mkdir()
    ran = ship(bench, way, logs, f"file://{folder}/")
    assert ran.code == 0, ran.text
    assert len(list(folder.iterdir())) == 2
    assert gzip.decompress((folder / "app.log-20260101.gz").read_bytes()) == b"first\n"


def test_no_more_logs_are_on_their_way_than_the_uplink_takes(bench: Bench, logs: Path, store: Store) -> None:
    for number in range(8):
        (logs / f"{number}.log-20260103").write_text(f"{number}")
    ran = ship(bench, "job", logs, store.url)
    assert (ran.code, store.requests) == (0, 10), ran.text
    assert most_at_once(ran, "ship") <= 2


def most_at_once(ran: Ran, task: str) -> int:
    steps = [
        {"task.started": 1, "task.finished": -1}.get(str(each["event"]), 0) for each in ran.events if each.get("task") == task
    ]
    return max(sum(steps[: end + 1]) for end in range(len(steps)))


# etl_sqlite

HEAD = "day,shop,article,pieces,price\n"
GOOD = HEAD + "2026-01-30,north,tea,3,2.50\n2026-02-01,north,cups,2,12.00\n"
MIXED = HEAD + "2026-01-31,south,tea,1,2.50\n" * 20 + "2026-13-01,south,tea,1,2.50\n"
BROKEN = HEAD + "2026-13-01,south,tea,1,2.50\n2026-01-01,,tea,1,2.50\n"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    (folder / "north.csv").write_text(GOOD)
    (folder / "south.csv").write_text(MIXED)
    return folder


def load(bench: Bench, way: str, inbox: Path) -> Ran:
    out = bench.folder / "etl"
    return bench.job("etl_sqlite", files=inbox / "*.csv", out=out) if way == "job" else bench.script("etl_sqlite", inbox, out)


def query(bench: Bench, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(bench.folder / "etl" / "sales.db")) as db:
        return db.execute(sql).fetchall()


@WAYS
def test_csv_files_become_rows_and_a_report_also_when_they_come_again(way: str, bench: Bench, inbox: Path) -> None:
    for _ in range(2):
        ran = load(bench, way, inbox)
        assert ran.code == 0, ran.text
        assert query(bench, "SELECT shop, count(*), sum(cents) FROM sales GROUP BY shop") == [
            ("north", 2, 1450),
            ("south", 20, 5000),
        ]
    assert (bench.folder / "etl" / "report.csv").read_text().splitlines() == [
        "month,shop,pieces,revenue", "2026-01,north,3,7.5", "2026-01,south,20,50.0", "2026-02,north,2,24.0",
    ]  # fmt: skip


@WAYS
def test_a_wrong_row_is_kept_with_its_line_and_the_reason(way: str, bench: Bench, inbox: Path) -> None:
    load(bench, way, inbox)
    assert query(bench, "SELECT * FROM rejected") == [("south.csv", 22, "ValueError: month must be in 1..12")]


@WAYS
def test_a_file_that_is_mostly_wrong_stops_the_load_before_it_begins(way: str, bench: Bench, inbox: Path) -> None:
    (inbox / "broken.csv").write_text(BROKEN)
    ran = load(bench, way, inbox)
    assert ran.code == 1
    assert "broken.csv: 2 of 2 rows are wrong; the first: line 2: ValueError: month must be in 1..12" in ran.text
    assert not (bench.folder / "etl" / "sales.db").exists()
    assert [each["reason"] for each in (*ran.of("task.skipped", "load"), *ran.of("task.skipped", "report"))] in (
        ["needs"] * 2,
        [],
    )


@WAYS
def test_no_files_are_an_empty_report(way: str, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = load(bench, way, tmp_path / "empty")
    assert ran.code == 0, ran.text
    assert (bench.folder / "etl" / "report.csv").read_text().splitlines() == ["month,shop,pieces,revenue"]


@pytest.mark.parametrize(("content", "attempts"), [(None, 6), (b"no database, but long enough to be taken for one" * 20, 1)])
def test_a_load_is_retried_only_where_trying_again_can_help(
    content: bytes | None, attempts: int, bench: Bench, inbox: Path
) -> None:
    (inbox / "south.csv").unlink()
    database = bench.folder / "etl" / "sales.db"
    database.mkdir(parents=True)  # a folder cannot be opened: sqlite3.OperationalError, as of a locked database
    if content is not None:
        database.rmdir()
        database.write_bytes(content)  # sqlite3.DatabaseError, of which the other one is a kind
    ran = load(bench, "job", inbox)
    assert (ran.code, len(ran.started("load"))) == (1, attempts), ran.text


def test_one_file_at_a_time_is_loaded(bench: Bench, inbox: Path) -> None:
    for number in range(4):
        (inbox / f"{number}.csv").write_text(GOOD)
    ran = load(bench, "job", inbox)
    assert most_at_once(ran, "load") == 1, ran.text


# thumbnails


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub dir").mkdir(parents=True)
    Image.new("RGB", (800, 600), "red").save(folder / "wide.jpg")
    Image.new("RGBA", (30, 90), "blue").save(folder / "sub dir" / "small.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def shrink(bench: Bench, way: str, images: Path, *, size: int = 64) -> Ran:
    out = bench.folder / "thumbs"
    if way == "job":
        return bench.job("thumbnails", root=images, out=out, size=size)
    return bench.script("thumbnails", images, out, "--size", size)


def versions(folder: Path) -> dict[str, int]:
    """When each file was made, by name."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.*") if not path.name.startswith(".")}


@WAYS
def test_thumbnails_are_small_and_keep_their_proportions(way: str, bench: Bench, images: Path) -> None:
    ran = shrink(bench, way, images)
    assert ran.code == 0, ran.text
    with Image.open(bench.folder / "thumbs" / "wide.jpg.webp") as wide:
        assert (wide.size, wide.format) == ((64, 48), "WEBP")
    with Image.open(bench.folder / "thumbs" / "sub dir" / "small.png.webp") as small:
        assert small.size == (21, 64)
    assert len(versions(bench.folder / "thumbs")) == 2


@WAYS
def test_a_second_run_makes_only_what_changed_or_is_gone(way: str, bench: Bench, images: Path) -> None:
    shrink(bench, way, images)
    before = versions(bench.folder / "thumbs")
    nothing = shrink(bench, way, images)
    assert (nothing.code, versions(bench.folder / "thumbs"), nothing.started("shrink")) == (0, before, []), nothing.text
    assert nothing.cached("shrink") == (2 if way == "job" else 0)
    Image.new("RGB", (80, 80), "green").save(images / "wide.jpg")
    one = shrink(bench, way, images)
    changed = {name for name, when in versions(bench.folder / "thumbs").items() if when != before[name]}
    assert (one.code, changed) == (0, {"wide.jpg.webp"}), one.text
    (bench.folder / "thumbs" / "sub dir" / "small.png.webp").unlink()
    assert shrink(bench, way, images).code == 0
    assert set(versions(bench.folder / "thumbs")) == set(before)


def test_the_log_says_why_an_image_is_made_again(bench: Bench, images: Path) -> None:
    shrink(bench, "job", images)
    ran = shrink(bench, "job", images, size=32)
    assert [each["because"] for each in ran.of("task.started", "shrink")] == [["the arguments changed"]] * 2


@WAYS
def test_an_image_that_is_none_fails_alone(way: str, bench: Bench, images: Path) -> None:
    (images / "broken.png").write_text("no image")
    ran = shrink(bench, way, images)
    assert (ran.code, "cannot identify image file" in ran.text) == (1, True), ran.text
    assert len(versions(bench.folder / "thumbs")) == 2


# pdf_text


@pytest.fixture
def pdfs(tmp_path: Path) -> Path:
    folder = tmp_path / "pdfs"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "one.pdf").write_bytes(pdf("first page"))
    (folder / "sub dir" / "TWO.PDF").write_bytes(pdf("page one", "page two"))
    (folder / "broken.pdf").write_bytes(pdf("never read")[:200])
    return folder


def pdf(*texts: str) -> bytes:
    """A PDF with a page for each text."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(texts)))
    bodies = ["<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Kids[{kids}]/Count {len(texts)}>>"]
    bodies.append("<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>")
    for number, text in enumerate(texts):
        about = f"/MediaBox[0 0 300 200]/Contents {5 + 2 * number} 0 R/Resources<</Font<</F1 3 0 R>>>>"
        content = f"BT /F1 18 Tf 20 100 Td ({text}) Tj ET"
        bodies += [f"<</Type/Page/Parent 2 0 R{about}>>", f"<</Length {len(content)}>>stream\n{content}\nendstream"]
    return assembled(bodies)


def assembled(bodies: list[str]) -> bytes:
    """The objects of a PDF with the table that says where each begins."""
    text, table = "%PDF-1.4\n", f"xref\n0 {len(bodies) + 1}\n0000000000 65535 f \n"
    for number, body in enumerate(bodies, 1):
        table += f"{len(text):010} 00000 n \n"
        text += f"{number} 0 obj\n{body}\nendobj\n"
    return f"{text}{table}trailer<</Size {len(bodies) + 1}/Root 1 0 R>>\nstartxref\n{len(text)}\n%%EOF\n".encode()


def extract(bench: Bench, way: str, pdfs: Path) -> Ran:
    out = bench.folder / "texts"
    return bench.job("pdf_text", root=pdfs, out=out) if way == "job" else bench.script("pdf_text", pdfs, out)


REPORT = ["pdf,pages,characters", "broken.pdf,broken,", "one.pdf,1,10", "sub dir/TWO.PDF,2,16"]


@WAYS
def test_a_broken_pdf_is_a_line_of_the_report_and_the_others_are_read(way: str, bench: Bench, pdfs: Path) -> None:
    ran = extract(bench, way, pdfs)
    assert ran.code == 0, ran.text
    texts = bench.folder / "texts"
    assert (texts / "sub dir" / "TWO.PDF.txt").read_text() == "page one\fpage two"
    assert (texts / "report.csv").read_text().splitlines() == REPORT
    assert not (texts / "broken.pdf.txt").exists()


@WAYS
def test_a_second_run_reads_only_what_it_could_not_read_or_what_changed(way: str, bench: Bench, pdfs: Path) -> None:
    extract(bench, way, pdfs)
    before = versions(bench.folder / "texts")
    ran = extract(bench, way, pdfs)
    assert (ran.code, ran.started("extract")) == (0, ["broken.pdf"] if way == "job" else []), ran.text
    after = versions(bench.folder / "texts")
    assert {name for name in before if after[name] != before[name]} == {"report.csv"}
    assert (bench.folder / "texts" / "report.csv").read_text().splitlines() == REPORT
    (pdfs / "broken.pdf").write_bytes(pdf("mended"))
    assert extract(bench, way, pdfs).code == 0
    assert (bench.folder / "texts" / "broken.pdf.txt").read_text() == "mended"


def test_the_five_examples_use_what_the_language_has() -> None:
    text = "".join((EXAMPLES / f"{name}.yaml").read_text() for name in NAMES)
    shown = {key for key in spec.keys(spec.Task) if f"{key}:" in text}
    assert {"if", "cache", "limits", "retry", "continue_on_error", "foreach", "pool", "cwd", "env", "timeout"} <= shown
