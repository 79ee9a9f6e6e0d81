"""What tasks print is kept, up to a size; what cannot be kept is counted, and never stops a task."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner import captured as module
from jobrunner.captured import KEPT_OUTPUT, Captured, output_file
from jobrunner.errors import StateError

ROOT = Path(__file__).parent.parent
Told = list[tuple[str, str, int]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "output").mkdir(mode=0o700)
    return tmp_path / "output"


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def captured(folder: Path, told: Told) -> Iterator[Captured]:
    made = Captured(folder, lambda *call: told.append(call))
    yield made
    made.close()


# --- where it is kept --------------------------------------------------------------------------------------------------------

ODD = ["..", ".", "/", "a/b", "../../etc/passwd", "a\\b", "x" * 5000, "x" * 5001, "%2F", "a%2Fb", "ü" * 100, " ", "-rf"]
ODD += ["\ud800", "a\x00b", "~", "con", "a.log", "a", "A", "a.log.1"]


def test_every_item_has_a_file_of_its_own_below_its_task(folder: Path, captured: Captured) -> None:
    for item in ODD:
        captured.keep("task", item, item.encode("utf-8", "surrogatepass"))
    files = [output_file(folder, "task", item) for item in ODD]
    assert len(set(files)) == len(ODD)
    for item, file in zip(ODD, files, strict=True):
        assert file.parent == folder / "task"
        assert len(os.fsencode(file.name)) <= 200 + len(".log")
        assert file.read_bytes() == item.encode("utf-8", "surrogatepass")
    assert len(list((folder / "task").iterdir())) == len(ODD)
    assert [path for path in folder.iterdir() if path.name != "task"] == []


def test_a_long_item_never_shares_a_file_with_one_that_is_called_like_its_file(folder: Path) -> None:
    long = output_file(folder, "task", "x" * 500)
    assert output_file(folder, "task", long.stem) != long


def test_a_task_and_its_items_do_not_share_a_file(folder: Path) -> None:
    assert output_file(folder, "a", None) == folder / "a.log"
    assert output_file(folder, "a", "b") == folder / "a" / "b.log"


def test_output_is_added_to_what_is_there(folder: Path, captured: Captured, told: Told) -> None:
    for piece in (b"one\n", b"", b"\xff\x00", b"two\n"):
        captured.keep("a", None, piece)
    assert (folder / "a.log").read_bytes() == b"one\n\xff\x00two\n"
    assert (captured.lost("a", None), told) == (0, [])


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_read_it_whatever_the_umask(umask: int, folder: Path, captured: Captured) -> None:
    before = os.umask(umask)
    try:
        captured.keep("a", None, b"x")
        captured.keep("b", "item", b"x")
    finally:
        os.umask(before)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert found == {"a.log": 0o600, "b": 0o700, "item.log": 0o600}


def test_a_short_write_is_finished(folder: Path, captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    captured.keep("a", None, b"0123456789")
    assert (folder / "a.log").read_bytes() == b"0123456789"


def test_without_its_folder_the_run_cannot_begin(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "missing", tmp_path / "link"):
        with pytest.raises(StateError, match="cannot keep what tasks print"):
            Captured(path, lambda *call: None)


# --- how much is kept --------------------------------------------------------------------------------------------------------


def test_no_more_than_32_mib_are_kept_the_last_16_at_least_and_the_rest_is_counted(
    folder: Path, captured: Captured, told: Told
) -> None:
    line, count = b"%07d" + b"x" * 992 + b"\n", 80_000
    for first in range(0, count, 50):
        captured.keep("a", None, b"".join(line % number for number in range(first, first + 50)))
    older, newer = (folder / "a.log.1").read_bytes(), (folder / "a.log").read_bytes()
    kept = older + newer
    assert KEPT_OUTPUT // 2 <= len(kept) <= KEPT_OUTPUT
    assert max(len(older), len(newer)) <= KEPT_OUTPUT // 2
    assert captured.lost("a", None) == 1000 * count - len(kept)
    assert [int(each[:7]) for each in kept.splitlines()] == list(range(count - len(kept) // 1000, count)), "lines are whole"
    assert (captured.dropped, told) == (0, []), "what made way is no fault"
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("size", [1, 100, 1000, 1001, 5000])
def test_one_piece_of_any_size_keeps_its_end(
    size: int, folder: Path, captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_IN_FILE", 1000)
    monkeypatch.setattr(module, "_LEAST_ROOM", 100)
    data = bytes(number % 251 for number in range(size)).replace(b"\n", b"_")
    captured.keep("a", "b", data)
    kept = b"".join(path.read_bytes() for path in sorted((folder / "a").iterdir(), reverse=True))
    assert data.endswith(kept)
    assert captured.lost("a", "b") == len(data) - len(kept)
    assert len(kept) >= min(size, 1000)


def test_losses_are_remembered_for_no_more_than_10_000_files(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", failing(errno.ENOSPC))
    for number in range(10_050):
        captured.keep("a", str(number), b"123")
    assert (captured.lost("a", "0"), captured.lost("a", "10049")) == (0, 3)
    assert captured.dropped == 3 * 10_050
    assert len(captured._lost) == 10_000
    monkeypatch.undo()


# --- what goes wrong ---------------------------------------------------------------------------------------------------------


def failing(number: int) -> object:
    def fail(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def test_losses_are_told_again_only_when_they_have_doubled_and_at_the_end(
    captured: Captured, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(errno.EDQUOT))
        for _ in range(1000):
            captured.keep("a", None, b"0123456789")
    captured.close()
    reason = os.strerror(errno.EDQUOT)
    assert told == [("output", reason, 10 << number) for number in range(10)] + [("output", reason, 10_000)]


def test_a_descriptor_is_left_open_by_none_of_it(captured: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for call in ("fstat", "write"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing(errno.EIO))
            captured.keep("a", None, b"x")
            captured.keep("a", "b", b"x")
    assert len(os.listdir("/proc/self/fd")) == before
    assert captured.dropped == 4


def test_a_folder_that_is_removed_costs_the_output_never_the_run(folder: Path, captured: Captured, told: Told) -> None:
    captured.keep("a", "b", b"x")
    (folder / "a" / "b.log").unlink()
    (folder / "a").rmdir()
    captured.keep("a", "b", b"made again")
    assert (folder / "a" / "b.log").read_bytes() == b"made again"
    (folder / "a" / "b.log").unlink()
    (folder / "a").rmdir()
    folder.rmdir()
    captured.keep("a", "b", b"123")
    captured.keep("a", None, b"456")
    assert (captured.lost("a", "b"), captured.lost("a", None)) == (3, 3)
    assert told == [("output", "No such file or directory", 3), ("output", "No such file or directory", 6)]


def test_nothing_is_written_through_what_a_task_puts_in_the_place_of_a_file(
    tmp_path: Path, folder: Path, captured: Captured
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_bytes(b"untouched")
    (folder / "a.log").symlink_to(elsewhere / "file")
    (folder / "b").symlink_to(elsewhere)
    os.mkfifo(folder / "c.log")
    for task, item in (("a", None), ("b", "item"), ("c", None)):
        captured.keep(task, item, b"123")
        assert captured.lost(task, item) == 3
    assert [(path.name, path.read_bytes()) for path in elsewhere.iterdir()] == [("file", b"untouched")]


def test_the_folder_is_the_one_that_was_there_at_the_start(tmp_path: Path, folder: Path, captured: Captured) -> None:
    folder.rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    captured.keep("a", None, b"x")
    assert (tmp_path / "moved" / "a.log").read_bytes() == b"x"
    assert list((tmp_path / "elsewhere").iterdir()) == []


FULL = """
import os, sys
from pathlib import Path
from jobrunner.captured import Captured
folder, told = Path(sys.argv[1]), []
captured = Captured(folder, lambda *call: told.append(call))
for _ in range(100):
    captured.keep("a", None, b"x" * 999 + b"\\n")
assert told[0][:2] == ("output", "No space left on device")
captured.keep("b", "item", b"1234")
kept = (folder / "a.log").stat().st_size
assert kept + captured.lost("a", None) == 100_000, (kept, captured.lost("a", None))
os.truncate(folder / "a.log", 0)
captured.keep("a", None, b"later\\n")
captured.keep("b", "item", b"later\\n")
captured.close()
print(kept, captured.dropped, (folder / "a.log").read_bytes(), (folder / "b" / "item.log").read_bytes(), told[-1][2])
"""


def test_a_full_disk_drops_and_counts_and_when_there_is_room_again_later_output_is_kept(tmp_path: Path) -> None:
    kept, dropped, one, other, told = in_small_disk(FULL, tmp_path, "64k").split()
    assert int(kept) + int(dropped) == 100_004
    assert (one, other) == (r"b'later\n'", r"b'later\n'")
    assert int(told) == int(dropped)


def in_small_disk(code: str, folder: Path, size: str) -> str:
    """What `code` prints, that finds in argv[1] a disk of so many bytes."""
    mount = f'mount -t tmpfs -o size={size} none {folder} && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", textwrap.dedent(code), str(folder)]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
