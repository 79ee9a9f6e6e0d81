"""The functions of jobs/*.py alone, without an engine: trees with odd names, archives that lie, pages that must not run code."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from html.parser import HTMLParser
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

JOBS = Path(__file__).parents[1] / "jobs"
sys.path.insert(0, str(JOBS))  # as a host does: a target is looked up beside the job file

import io_vs_cpu  # noqa: E402  after the line above
import nightly  # noqa: E402
import nightly_report  # noqa: E402
import primitives  # noqa: E402

ODD_NAMES = (
    "with space",
    "two\nlines",
    "--help",
    "-",
    "back\\slash",
    "ü",
    "<script>alert(1)</script>.py",
    "'\"",
    "*",
    "a\u202eb",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "package").mkdir(parents=True)
    (root / "package" / "module.py").write_text('"""Caption."""\ndef f(a):\n    return 1 if a else 2\n')
    (root / "package" / "copy.txt").write_text("same")
    (root / "data.txt").write_text("same")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def make_odd_files(root: Path) -> None:
    for name in ODD_NAMES:
        (root / name.replace("/", "∕")).write_text(f"# {name!r}\n")


def measure(root: Path, source: str | bytes, top: int = 15) -> nightly.Metrics:
    (root / "measured.py").write_bytes(source.encode() if isinstance(source, str) else source)
    return nightly.code_metrics(str(root), "measured.py", top)


def checksums(listing: nightly.Listing) -> list[nightly.Checksum]:
    return [nightly.sha256(listing["root"], path) for path in listing["files"]]


def archive_of(listing: nightly.Listing, out: Path) -> Path:
    """What the archive task of nightly.yaml does."""
    fresh = out / "tree.tar.gz.new"
    where = (f"--file={fresh}", f"--directory={listing['root']}", "--null", f"--files-from={out / 'files.list'}")
    subprocess.run(["tar", "--create", "--use-compress-program=gzip -1n", *where], check=True)
    return fresh


def whole(root: Path, out: Path) -> tuple[nightly.Verified, Path, str]:
    """What nightly.yaml does, from the list to the page: the archive's figures, the database, the page's text."""
    listing = nightly.list_files(str(root), str(out))
    sums = checksums(listing)
    verified = nightly.verify(str(archive_of(listing, out)), str(out / "tree.tar.gz"), sums)
    metrics = [nightly.code_metrics(listing["root"], path, 15) for path in listing["python_files"]]
    facts: dict[str, str | int] = {"root": listing["root"], "archive_bytes": verified["archive_bytes"]}
    database = nightly.write_database(str(out / "nightly.db"), sums, metrics, facts, listing["skipped"])
    page = nightly_report.write_report(database, str(out / "report.html"), 15)
    return verified, Path(database), Path(page).read_text(encoding="utf-8")


# ── list ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_listing_holds_every_regular_file_in_byte_order_and_marks_the_python_files(tree: Path, out: Path) -> None:
    listing = nightly.list_files(str(tree), str(out))
    assert listing == {
        "root": os.path.realpath(tree),
        "files": ["data.txt", "package/copy.txt", "package/module.py"],
        "python_files": ["package/module.py"],
        "skipped": {},
    }


def test_the_list_for_tar_ends_every_path_with_a_nul_byte(tree: Path, out: Path) -> None:
    nightly.list_files(str(tree), str(out))
    assert (out / "files.list").read_bytes() == b"./data.txt\0./package/copy.txt\0./package/module.py\0"


def test_what_is_not_source_is_skipped_and_counted(tree: Path, out: Path) -> None:
    for folder in ("__pycache__", "site-packages", "package/dist-packages"):
        (tree / folder).mkdir()
        (tree / folder / "inside.py").write_text("")
    (tree / "old.pyc").write_bytes(b"")
    (tree / "link.py").symlink_to("data.txt")
    (tree / "loop").symlink_to(".")
    os.mkfifo(tree / "pipe")
    listing = nightly.list_files(str(tree), str(out))
    assert listing["files"] == ["data.txt", "package/copy.txt", "package/module.py"]
    assert listing["skipped"] == {
        "compiled Python": 1,
        "folder __pycache__": 1,
        "folder dist-packages": 1,
        "folder site-packages": 1,
        "neither file nor folder": 1,
        "symbolic link": 2,
    }


def test_a_name_that_is_not_utf8_is_skipped_and_counted(tree: Path, out: Path) -> None:
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff.py")).write_text("")
    listing = nightly.list_files(str(tree), str(out))
    assert len(listing["files"]) == 3
    assert listing["skipped"] == {"name that is not UTF-8": 1}


def _listing_without_privileges(root: Path, out: Path) -> nightly.Listing:
    """`list_files` in a child that is nobody: root reads every file. An ordinary user stays who it is."""

    def work(answer: Connection) -> None:
        if os.geteuid() == 0:
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        answer.send(nightly.list_files(str(root), str(out)))

    receive, send = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=work, args=(send,))
    child.start()
    send.close()
    listing: nightly.Listing = receive.recv()
    child.join()
    return listing


def test_files_and_folders_that_cannot_be_read_are_skipped_and_counted() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own temporary folders are closed to others
        root, out = Path(folder, "tree"), Path(folder, "out")
        for each in (Path(folder), root, root / "package", out):
            each.mkdir(exist_ok=True)
            each.chmod(0o777)
        for name in ("data.txt", "package/module.py"):
            (root / name).write_text("")
        (root / "data.txt").chmod(0)
        (root / "package").chmod(0)
        listing = _listing_without_privileges(root, out)
        (root / "package").chmod(0o700)
    assert listing["files"] == []
    assert listing["skipped"] == {"file that cannot be read": 1, "folder that cannot be read": 1}


def test_results_inside_the_tree_are_not_part_of_it(tree: Path) -> None:
    inside = tree / "out"
    whole(tree, inside)
    listing = nightly.list_files(str(tree), str(inside))
    assert len(listing["files"]) == 3
    assert listing["skipped"] == {"folder of the results": 1}


@pytest.mark.parametrize("root", [None, ""])
def test_without_a_root_the_standard_library_is_listed(root: str | None, out: Path) -> None:
    listing = nightly.list_files(root, str(out))
    assert Path(listing["root"]) == Path(os.__file__).resolve().parent
    assert "json/decoder.py" in listing["python_files"]


def test_a_root_that_is_no_folder_is_refused_with_what_to_write(tree: Path, out: Path) -> None:
    with pytest.raises(NotADirectoryError, match=r"data\.txt is not a folder; .* --set root=FOLDER"):
        nightly.list_files(str(tree / "data.txt"), str(out))


def test_results_in_the_root_itself_are_refused_with_what_to_write(tree: Path) -> None:
    with pytest.raises(ValueError, match=r"--set out=FOLDER"):
        nightly.list_files(str(tree), str(tree))


# ── checksum and metrics ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_checksum_is_that_of_the_bytes(tree: Path) -> None:
    digest = "0967115f2813a3541eaef77de9d9d5773f1c0c04314b0bbfe4ff3b3b1c55b5d5"
    assert nightly.sha256(str(tree), "data.txt") == {"path": "data.txt", "size": 4, "sha256": digest}


@pytest.mark.parametrize(
    ("body", "complexity"),
    [
        ("pass", 1),
        ("if a: pass", 2),
        ("if a: pass\n elif b: pass\n else: pass", 3),
        ("while a: pass", 2),
        ("for a in b: pass", 2),
        ("return a and b and c", 3),
        ("return a if b else c", 2),
        ("return [x for x in a if b if c]", 4),
        ("try: pass\n except A: pass\n except B: pass", 3),
        ("match a:\n  case 1: pass\n  case _: pass", 3),
        ("def g():\n  if a: pass", 1),
    ],
)
def test_complexity_is_one_and_one_for_each_decision(tmp_path: Path, body: str, complexity: int) -> None:
    found = measure(tmp_path, f"def f(a, b, c):\n {body}\n")
    assert {one["name"]: one["complexity"] for one in found["top_functions"]}["f"] == complexity


def test_metrics_count_what_is_in_a_file(tmp_path: Path) -> None:
    source = '"""M."""\nclass C:\n    """C."""\n    async def m(self):\n        def inner(): return 1\n        if inner(): pass\n'
    found = measure(tmp_path, source)
    assert {key: found[key] for key in ("lines", "functions", "classes", "branches", "documented", "documentable")} == {
        "lines": 6,
        "functions": 2,
        "classes": 1,
        "branches": 1,
        "documented": 2,
        "documentable": 4,
    }
    assert found["top_functions"] == [
        {"name": "C.m", "line": 4, "lines": 3, "complexity": 2},
        {"name": "C.m.inner", "line": 5, "lines": 1, "complexity": 1},
    ]


def test_the_most_complex_and_the_longest_functions_are_kept_each_once(tmp_path: Path) -> None:
    found = measure(tmp_path, "def a(): pass\ndef b(x):\n    return 1 if x else 2\ndef c():\n\n\n    pass\n", top=1)
    assert [one["name"] for one in found["top_functions"]] == ["b", "c"]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (b"print 'two'\nx\n", "Missing parentheses"),
        (b"# coding: nonsense\n", "unknown encoding"),
        (b"x = '\xff'\n", "utf-8"),
        (b"x\0y\n", "null bytes"),
        (b"(" * 5000, "too many nested parentheses"),
        (b"x = " + b"-" * 20_000 + b"1\n", ""),
    ],
)
def test_a_file_that_does_not_parse_is_a_result_with_its_reason(tmp_path: Path, source: bytes, error: str) -> None:
    found = measure(tmp_path, source)
    assert found["error"] is not None
    assert error in found["error"]
    assert found["lines"] == len(source.splitlines())
    assert (found["functions"], found["documentable"], found["top_functions"]) == (0, 0, [])


def test_code_that_earns_a_syntax_warning_is_measured_in_silence(tmp_path: Path) -> None:
    assert measure(tmp_path, "x = '\\d'\ny = 1 is 1\n")["error"] is None


# ── archive and verify ────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_archive_of_odd_names_is_verified(tree: Path, out: Path) -> None:
    make_odd_files(tree)
    (tree / ("n" * 200)).write_text("a name longer than a tar header")
    os.link(tree / "data.txt", tree / "hard link")
    verified, _, _ = whole(tree, out)
    assert verified["files"] == 3 + len(ODD_NAMES) + 2


def test_equal_trees_give_equal_archives(tree: Path, out: Path) -> None:
    listing = nightly.list_files(str(tree), str(out))
    first = archive_of(listing, out).read_bytes()
    assert archive_of(listing, out).read_bytes() == first


def test_a_verified_archive_takes_its_place_and_can_be_verified_again(tree: Path, out: Path) -> None:
    verified, _, _ = whole(tree, out)
    assert not (out / "tree.tar.gz.new").exists()
    sums = checksums(nightly.list_files(str(tree), str(out)))
    assert nightly.verify(str(out / "tree.tar.gz.new"), str(out / "tree.tar.gz"), sums) == verified


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: (tree / "data.txt").write_text("else"), r"1 different \(the first is 'data\.txt'\)"),
        (lambda tree: (tree / "data.txt").unlink(), r"1 missing \(the first is 'data\.txt'\)"),
        (lambda tree: (tree / "new").write_text(""), r"1 not expected \(the first is 'new'\)"),
        (lambda tree: ((tree / "data.txt").unlink(), (tree / "data.txt").mkdir()), r"1 different"),
        (lambda tree: ((tree / "data.txt").unlink(), (tree / "data.txt").symlink_to("package/copy.txt")), r"1 different"),
    ],
    ids=["content", "missing", "added", "folder", "symlink"],
)
def test_an_archive_of_something_else_is_refused_and_the_old_one_stays(tree: Path, out: Path, change: object, said: str) -> None:
    assert callable(change)
    whole(tree, out)
    before = (out / "tree.tar.gz").read_bytes()
    sums = checksums(nightly.list_files(str(tree), str(out)))
    change(tree)
    subprocess.run(["tar", "-czf", out / "tree.tar.gz.new", "-C", tree, "--no-recursion", *sorted_names(tree)], check=True)
    with pytest.raises(nightly.ArchiveMismatch, match=said):
        nightly.verify(str(out / "tree.tar.gz.new"), str(out / "tree.tar.gz"), sums)
    assert (out / "tree.tar.gz").read_bytes() == before


def sorted_names(tree: Path) -> list[str]:
    """Everything below the tree but the folder `package` itself."""
    return sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.name != "package")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone"])
def test_a_damaged_archive_is_refused(tree: Path, out: Path, damage: str) -> None:
    listing = nightly.list_files(str(tree), str(out))
    fresh = archive_of(listing, out)
    data = fresh.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
    fresh.write_bytes({"cut": data[:middle], "flipped": flipped}.get(damage, b""))
    if damage == "gone":
        fresh.unlink()
    with pytest.raises(nightly.ArchiveMismatch):
        nightly.verify(str(fresh), str(out / "tree.tar.gz"), checksums(listing))


# ── database and page ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_database_holds_every_file_and_module(tree: Path, out: Path) -> None:
    _, database, _ = whole(tree, out)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT path, suffix, size FROM files ORDER BY path").fetchall() == [
            ("data.txt", ".txt", 4),
            ("package/copy.txt", ".txt", 4),
            ("package/module.py", ".py", 50),
        ]
        assert connection.execute("SELECT path, functions, error FROM modules").fetchall() == [("package/module.py", 1, None)]
        assert connection.execute("SELECT name, complexity FROM top_functions").fetchall() == [("f", 2)]


def test_a_database_that_cannot_be_written_leaves_the_old_one_and_no_other_file(tree: Path, out: Path) -> None:
    _, database, _ = whole(tree, out)
    before = database.read_bytes()
    twice = checksums(nightly.list_files(str(tree), str(out))) * 2
    with pytest.raises(sqlite3.IntegrityError):
        nightly.write_database(str(database), twice, [], {}, {})
    assert database.read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["files.list", "nightly.db", "report.html", "tree.tar.gz"]


class Tags(HTMLParser):
    """The names of all elements, and the text outside of the style sheet."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_of_the_tree_are_text_on_the_page_and_never_markup(tree: Path, out: Path) -> None:
    make_odd_files(tree)
    (tree / "<img src=x onerror=alert(1)>.py").write_text("def broken(:")
    _, _, page = whole(tree, out)
    tags = Tags()
    tags.feed(page)
    assert not tags.names & {"script", "img", "a", "iframe", "link"}
    assert not {name for name in tags.attributes if name.startswith("on") or name in ("style", "src", "href")}
    assert "<img src=x onerror=alert(1)>.py" in tags.text
    assert "two\\nlines" in tags.text
    assert "a\\u202eb" in tags.text


def test_the_page_allows_nothing_but_its_own_style(tree: Path, out: Path) -> None:
    _, _, page = whole(tree, out)
    assert "default-src 'none'; style-src 'sha256-" in page
    assert "unsafe" not in page


def test_the_page_names_duplicates_once_a_group(tree: Path, out: Path) -> None:
    _, _, page = whole(tree, out)
    assert "<td><code>data.txt</code><br><code>package/copy.txt</code><td" in page


def test_an_empty_tree_gives_an_empty_archive_database_and_page(tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    verified, database, page = whole(tmp_path / "empty", out)
    assert (verified["files"], verified["bytes"]) == (0, 0)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (0,)
    assert "The tree has no files." in page


@pytest.mark.parametrize(
    ("size", "said"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB"), (10**16, "10000.0 TB")]
)
def test_a_size_is_said_in_the_unit_that_people_would_say(size: int, said: str) -> None:
    assert nightly_report.octets(size) == said


# ── primitives, threads and processes compared ────────────────────────────────────────────────────────────────────────


def test_workers_say_that_they_start_and_finish(capsys: pytest.CaptureFixture[str]) -> None:
    primitives.thread_worker(0, 0)
    primitives.process_worker(1, 0)
    primitives.show([primitives.task(n) for n in range(2)])
    assert capsys.readouterr().out.splitlines() == [
        "Thread 0 started",
        "Thread 0 finished",
        "Process 1 started",
        "Process 1 finished",
        "['Task 0 completed', 'Task 1 completed']",
    ]


def span(start: float, end: float, pid: int = 1, memory: int = 10_000_000, progress: float = 1.0) -> io_vs_cpu.Span:
    return io_vs_cpu.Span(start=start, end=end, progress=progress, pid=pid, memory=memory)


def test_a_group_takes_from_its_first_start_to_its_last_end_and_the_memory_of_its_processes() -> None:
    spans = [span(5, 8, 1, 10), span(4, 6, 2, 20), span(5, 6, 1, 15)]
    assert io_vs_cpu.measured(spans) == io_vs_cpu.Measured(seconds=4, at_once=0.75, processes=2, memory=35)


@pytest.mark.parametrize("work", [lambda: io_vs_cpu.wait_for_answer(0.01), lambda: io_vs_cpu.compute(1000)], ids=["io", "cpu"])
def test_a_span_covers_the_work(work: Callable[[], io_vs_cpu.Span]) -> None:
    took = work()
    assert 0 < took["progress"] <= took["end"] - took["start"]
    assert took["pid"] == os.getpid()
    assert took["memory"] > 0


def way(seconds: float, at_once: float, memory: int) -> io_vs_cpu.Measured:
    return io_vs_cpu.Measured(seconds=seconds, at_once=at_once, processes=1, memory=memory)


@pytest.mark.parametrize(
    ("mine", "other", "mark"),
    [
        (way(1.0, 8.0, 10), way(1.0, 8.0, 80), "✅"),
        (way(1.0, 8.0, 80), way(1.0, 8.0, 10), "❌ 8x the memory"),
        (way(1.0, 2.0, 80), way(4.0, 1.0, 10), "✅"),
        (way(4.0, 1.0, 10), way(1.0, 2.0, 80), "❌ one at a time"),
        (way(0.5, 1.0, 10), way(1.0, 2.0, 80), "❌ one at a time"),
    ],
)
def test_a_mark_follows_from_the_figures(mine: io_vs_cpu.Measured, other: io_vs_cpu.Measured, mark: str) -> None:
    assert io_vs_cpu.verdict(mine, other) == mark


def test_the_table_has_the_rows_and_columns_of_the_question(capsys: pytest.CaptureFixture[str]) -> None:
    io = [[span(0, 2, progress=2)], [span(0, 0.25)], [span(0, 0.25, pid) for pid in range(8)]]
    cpu = [[span(0, 2, progress=2)], [span(0, 2, progress=2)], [span(0, 1, pid, progress=0.25) for pid in range(8)]]
    assert io_vs_cpu.print_table(io, cpu) == [
        ["Feature", "Threads (threading)", "Processes (multiprocessing)"],
        ["Memory usage", "Shared: 1 process, 10 MB", "Separate: 8 processes, 80 MB"],
        ["CPU-bound tasks (one worker 2.00 s)", "2.00 s ❌ one at a time", "1.00 s ✅"],
        ["I/O-bound tasks (one worker 2.00 s)", "0.25 s ✅", "0.25 s ❌ 8x the memory"],
        ["GIL limitation", "Affected: 1.0 CPUs compute at once", "Not affected: 2.0 CPUs compute at once"],
    ]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Feature                             | Threads (threading)                | Processes (multiprocessing)"
