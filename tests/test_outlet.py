"""Outlets: whoever reads, or does not, the run is never held up, and every line is delivered whole or counted as lost."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import pty
import select
import socket
import subprocess
import sys
import textwrap
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner import outlet as module
from jobrunner.loop import Loop
from jobrunner.outlet import MOST_QUEUED, Outlet

ROOT = Path(__file__).parent.parent
KINDS = ("pipe", "pipe of another", "socket", "raw terminal", "raw terminal of another")


@dataclass(slots=True)
class Far:
    """Both ends of something that a reader may leave unread: `file` is handed to an outlet, `fd` is the reader's."""

    file: BinaryIO
    fd: int
    got: bytearray = field(default_factory=bytearray)

    def read(self, most: int = 1 << 20) -> int:
        """Take what is there now, at most so many bytes."""
        before = len(self.got)
        while most and select.select((self.fd,), (), (), 0)[0]:
            data = os.read(self.fd, most)
            if not data:
                break
            self.got += data
            most -= len(data)
        return len(self.got) - before

    def lines(self) -> list[bytes]:
        return bytes(self.got).splitlines(keepends=True)


def ends(kind: str) -> tuple[int, int]:
    match kind.removeprefix("raw ").split(" ")[0]:
        case "pipe":
            return os.pipe()
        case "socket":
            return tuple(each.detach() for each in socket.socketpair())  # type: ignore[return-value]  # two of them
        case _:
            near, far = pty.openpty()
            if "raw" in kind:
                tty.setraw(far)
            return near, far


@contextlib.contextmanager
def far_end(kind: str) -> Iterator[Far]:
    near, far = ends(kind)
    with os.fdopen(far, "wb", buffering=0) as file:
        yield Far(file, near)
    os.close(near)


def made(kind: str, file: BinaryIO, patch: pytest.MonkeyPatch) -> Outlet:
    """An outlet; `of another`: of somebody whose files we may not open."""
    with patch.context() as here:
        if "another" in kind:
            here.setattr(os, "open", refused)
        return Outlet(file, name="log")


def refused(*_: object, **__: object) -> int:
    raise PermissionError(errno.EACCES, "Permission denied")


@dataclass(slots=True)
class Told:
    """What was told of lost lines."""

    calls: list[tuple[str, str, int]] = field(default_factory=list)

    def __call__(self, name: str, reason: str, dropped: int) -> None:
        self.calls.append((name, reason, dropped))


@contextlib.contextmanager
def looping() -> Iterator[Loop]:
    with contextlib.closing(Loop()) as loop:
        yield loop


def numbered(count: int, size: int = 300) -> list[bytes]:
    return [b"%d " % number + b"x" * (size - 10) + b"\n" for number in range(count)]


# --- every kind of file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_lines_come_through(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with far_end(kind) as far:
        outlet = made(kind, far.file, monkeypatch)
        for line in (b"one\n", b"two\nthree\n", b"\xff\x00\n"):
            outlet.write(line)
        far.read()
        assert bytes(far.got) == b"one\ntwo\nthree\n\xff\x00\n"
        assert outlet.isatty() is ("terminal" in kind)


@pytest.mark.parametrize("kind", KINDS)
def test_those_who_share_the_file_do_not_become_non_blocking(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with far_end(kind) as far:
        outlet = made(kind, far.file, monkeypatch)
        for line in numbered(2000):
            outlet.write(line)
        assert os.get_blocking(far.file.fileno())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_that_stalls_costs_lines_never_time_and_each_is_delivered_whole_or_counted(
    kind: str, blocking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_QUEUED", 1 << 20)
    total, told = 10_000, Told()
    with far_end(kind) as far, looping() as loop:
        os.set_blocking(far.file.fileno(), blocking)
        outlet = made(kind, far.file, monkeypatch)
        outlet.attach(loop, told)
        for line in numbered(total):
            outlet.write(line)
            outlet.flush()
        assert outlet._queued <= 1 << 20
        ((name, reason, first),) = told.calls
        assert (name, reason) == ("log", "its reader stalled")
        assert 0 < first <= outlet.dropped
        while far.read():
            loop.turn(loop.clock())
        outlet.finish(0)
        assert len(far.lines()) + outlet.dropped == total
        assert told.calls[1:] == [("log", "its reader stalled", outlet.dropped)]
        assert far.lines() == numbered(len(far.lines())), "the oldest were kept, in order"


@pytest.mark.parametrize("kind", KINDS)
def test_when_the_reader_reads_again_later_lines_go_out_and_a_new_stall_is_told_anew(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_QUEUED", 1 << 16)
    told = Told()
    with far_end(kind) as far, looping() as loop:
        outlet = made(kind, far.file, monkeypatch)
        outlet.attach(loop, told)
        for episode in (1, 2):
            for line in numbered(3000):
                outlet.write(line)
            outlet.flush()
            assert len(told.calls) == episode
            while far.read():
                loop.turn(loop.clock())
            outlet.write(b"later %d\n" % episode)
            outlet.flush()
            far.read()
            assert far.lines()[-1] == b"later %d\n" % episode


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_that_has_gone_ends_the_output_quietly(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    near, far = ends(kind)
    with os.fdopen(far, "wb", buffering=0) as file, looping() as loop:
        outlet = made(kind, file, monkeypatch)
        outlet.attach(loop, told)
        outlet.write(b"x" * (1 << 20) + b"\n")
        outlet.flush()
        os.close(near)
        loop.turn(loop.clock() + 5)  # whoever watches a file whose reader has gone is told
        outlet.write(b"more\n")
        outlet.flush()
        outlet.finish(5)
    assert (told.calls, outlet.dropped, len(outlet._queue)) == ([], 0, 0)


@given(
    steps=st.lists(
        st.tuples(st.just("write"), st.integers(1, 20_000))
        | st.tuples(st.just("read"), st.integers(1, 100_000))
        | st.tuples(st.just("turn"), st.just(0)),
        max_size=60,
    ),
    kind=st.sampled_from(["pipe", "pipe of another", "socket"]),
)
def test_however_reader_and_writer_take_turns_no_line_is_torn_swapped_or_uncounted(
    steps: list[tuple[str, int]], kind: str
) -> None:
    with pytest.MonkeyPatch.context() as patch, far_end(kind) as far, looping() as loop:
        patch.setattr(module, "MOST_QUEUED", 1 << 17)
        outlet, total = made(kind, far.file, patch), 0
        outlet.attach(loop, Told())
        for step, size in steps:
            match step:
                case "write":
                    outlet.write(b"%06d " % total + b"x" * size + b"\n")
                    total += 1
                case "read":
                    far.read(size)
                case _:
                    loop.turn(loop.clock())
                    outlet.flush()
        outlet.flush()
        while far.read():
            loop.turn(loop.clock())
        outlet.finish(0)
        numbers = [int(line[:6]) for line in far.lines() if line.endswith(b"\n")]
        assert numbers == sorted(set(numbers))
        assert len(numbers) + outlet.dropped == total
        assert bytes(far.got).count(b" x") == len(numbers), "no line begins within another"


# --- attached to a run -------------------------------------------------------------------------------------------------------


def test_attached_it_writes_only_when_flushed_so_that_the_journal_can_come_first() -> None:
    with far_end("pipe") as far, looping() as loop:
        outlet = Outlet(far.file, name="log")
        outlet.attach(loop, Told())
        outlet.write(b"one\n")
        assert far.read() == 0
        outlet.flush()
        assert far.read() == 4
        outlet.finish(0)
        outlet.write(b"run.finished\n")
        assert far.read() == 0
        outlet.finish(0)
        assert far.read() == 13


def test_the_loop_sleeps_while_the_reader_does_and_wakes_with_it() -> None:
    with far_end("pipe") as far, looping() as loop:
        outlet = Outlet(far.file, name="log")
        outlet.attach(loop, Told())
        outlet.write(b"x" * (1 << 17) + b"\n")
        outlet.flush()
        (watched,) = loop.watched
        assert watched != far.file.fileno()
        assert not select.select([], [watched], [], 0)[1]
        far.read()
        loop.turn(loop.clock() + 30)
        while far.read():
            loop.turn(loop.clock())
        assert not loop.watched
        assert len(far.got) == (1 << 17) + 1


def test_a_burst_beyond_the_queue_loses_nothing_where_the_file_takes_it(tmp_path: Path) -> None:
    told = Told()
    with open(tmp_path / "log", "wb", buffering=0) as file, looping() as loop:
        outlet = Outlet(file, name="log")
        outlet.attach(loop, told)
        for _ in range(3):
            outlet.write(b"x" * MOST_QUEUED + b"\n")
        outlet.flush()
        assert not loop.watched, "a file is never watched"
    assert (tmp_path / "log").stat().st_size == 3 * (MOST_QUEUED + 1)
    assert told.calls == []


def test_nothing_is_told_within_a_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_QUEUED", 1 << 12)
    told = Told()
    with far_end("pipe") as far, looping() as loop:
        outlet = Outlet(far.file, name="log")
        outlet.attach(loop, told)
        for line in numbered(1000):
            outlet.write(line)
        assert outlet.dropped > 0
        assert told.calls == []
        outlet.flush()
        assert len(told.calls) == 1


def test_telling_may_write_to_the_outlet_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_QUEUED", 1 << 12)
    with far_end("pipe") as far, looping() as loop:
        outlet = Outlet(far.file, name="log")
        outlet.attach(loop, lambda name, reason, dropped: outlet.write(b"log.degraded\n"))
        for line in numbered(1000):
            outlet.write(line)
        outlet.flush()
        outlet.finish(0)
        outlet.finish(0)


# --- the end -----------------------------------------------------------------------------------------------------------------


def test_the_end_waits_for_a_reader_that_reads() -> None:
    near, far = os.pipe()
    with subprocess.Popen(["wc", "-l"], stdin=near, stdout=subprocess.PIPE) as reader:
        os.close(near)
        with os.fdopen(far, "wb", buffering=0) as file:
            outlet = Outlet(file, name="log")
            for line in numbered(20_000):
                outlet.write(line)
            outlet.finish(30)
        del outlet  # and with it its own descriptor: the reader sees the end
        assert int(reader.communicate()[0]) == 20_000


def test_the_end_waits_no_longer_than_it_was_told_and_only_once() -> None:
    waits: list[float] = []
    with far_end("pipe") as far, pytest.MonkeyPatch.context() as patch:
        outlet = Outlet(far.file, name="log")
        for line in numbered(1000):
            outlet.write(line)
        writable = module._is_writable

        def waiting(fd: int, patience: float) -> bool:
            waits.append(patience)
            return writable(fd, 0)

        patch.setattr(module, "_is_writable", waiting)
        patch.setattr(time, "monotonic", lambda: 100.0 * len(waits))
        outlet.finish(1.5)
        outlet.write(b"summary\n")
        outlet.finish(1.5)
        assert waits == [1.5]
        far.read()
        assert len(far.lines()) + outlet.dropped == 1001


def test_a_line_that_the_end_tore_is_completed_before_the_next() -> None:
    with far_end("pipe") as far:
        outlet = Outlet(far.file, name="log")
        outlet.write(b"x" * (1 << 18) + b"\n")
        outlet.finish(0)
        far.read()
        outlet.write(b"next\n")
        far.read()
        assert far.lines()[-1] == b"next\n"
        assert (len(far.lines()), outlet.dropped) == (2, 1)


def test_a_file_that_ends_within_a_line_is_gone_on_with_on_a_new_one() -> None:
    file = io.BytesIO()
    outlet = Outlet(file, name="log", torn=True)
    outlet.write(b"one\n")
    outlet.write(b"two\n")
    assert file.getvalue() == b"\none\ntwo\n"


# --- files that are full -----------------------------------------------------------------------------------------------------


def test_a_full_device_is_told_with_its_reason_and_the_count() -> None:
    told = Told()
    with open("/dev/full", "wb", buffering=0) as file, looping() as loop:
        outlet = Outlet(file, name="log")
        outlet.attach(loop, told)
        for line in numbered(100):
            outlet.write(line)
            outlet.flush()
        outlet.finish(5)
    assert told.calls == [("log", "No space left on device", 0), ("log", "No space left on device", 100)]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_file_that_failed_is_tried_again_after_a_second_and_no_line_is_torn(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, room, write = [1000.0], [450], os.write

    def full(fd: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(error, os.strerror(error))
        taken = write(fd, data[: room[0]])
        room[0] -= taken
        return taken

    told = Told()
    with open(tmp_path / "log", "ab", buffering=0) as file, looping() as loop:
        outlet = Outlet(file, name="log")
        outlet.attach(loop, told)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            patch.setattr(time, "monotonic", lambda: now[0])
            for line in numbered(4):
                outlet.write(line)
            outlet.flush()
            room[0] = 1 << 20
            outlet.flush()
            assert (tmp_path / "log").stat().st_size == 450
            now[0] += 1.01
            outlet.flush()
    assert (tmp_path / "log").read_bytes() == b"".join(numbered(4))
    assert told.calls == [("log", os.strerror(error), 0)]


def test_a_file_is_appended_to_behind_whoever_shares_it(tmp_path: Path) -> None:
    for mode in ("ab", "wb"):
        with open(tmp_path / mode, mode, buffering=0) as file:
            outlet = Outlet(file, name="log")
            for number in range(3):
                outlet.write(b"ours %d\n" % number)
                file.write(b"theirs %d\n" % number)
        assert (tmp_path / mode).read_bytes() == b"ours 0\ntheirs 0\nours 1\ntheirs 1\nours 2\ntheirs 2\n"


FULL = """
import os, sys
from jobrunner.loop import Loop
from jobrunner.outlet import Outlet
told, folder = [], sys.argv[1]
with open(f"{folder}/log", "ab", buffering=0) as file:
    outlet = Outlet(file, name="log")
    outlet.attach(Loop(), lambda *call: told.append(call))
    with open(f"{folder}/ballast", "wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, 40_000)
    for number in range(200):
        outlet.write(b"%03d " % number + b"x" * 300 + b"\\n")
    outlet.flush()
    assert told[0][1:] == ("No space left on device", 0), told
    os.unlink(f"{folder}/ballast") if sys.argv[2] == "room" else None
    outlet.finish(1)
    outlet.write(b"last words\\n") if sys.argv[2] == "room" else None
    outlet.finish(1)
whole = [line for line in open(f"{folder}/log", "rb") if line.endswith(b"\\n")]
print(len(whole), outlet.dropped)
"""


@pytest.mark.parametrize("then", ["room", "full"])
def test_a_disk_that_fills_up_costs_what_it_cannot_hold(then: str, tmp_path: Path) -> None:
    delivered, dropped = in_small_disk(FULL, tmp_path, "64k", then).split()
    if then == "room":
        assert (int(delivered), int(dropped)) == (201, 0)
    else:
        assert int(dropped) > 0
        assert int(delivered) + int(dropped) == 200


def in_small_disk(code: str, folder: Path, size: str, *more: str) -> str:
    """What `code` prints, that finds in argv[1] a disk of so many bytes."""
    mount = f'mount -t tmpfs -o size={size} none {folder} && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", textwrap.dedent(code), str(folder), *more]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


# --- odd files ---------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_closed_is_no_output() -> None:
    closed = io.BytesIO()
    closed.close()
    near, far = os.pipe()
    gone = os.fdopen(far, "wb", buffering=0)
    os.close(far)
    for file in (closed, gone):
        outlet = Outlet(file, name="log")
        outlet.write(b"x\n")
        outlet.flush()
        outlet.finish(1)
        assert outlet.dropped == 0
    with contextlib.suppress(OSError):
        gone.close()
    os.close(near)


def test_a_file_that_is_closed_later_ends_there() -> None:
    file = io.BytesIO()
    outlet = Outlet(file, name="log")
    outlet.write(b"x\n")
    file.close()
    outlet.write(b"y\n")


def test_what_was_buffered_before_comes_first(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        file.write(b"before\n")
        Outlet(file, name="stdout").write(b"after\n")
    assert (tmp_path / "out").read_bytes() == b"before\nafter\n"


def test_a_line_that_no_datagram_holds_is_dropped_and_the_others_go_out() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far, os.fdopen(os.dup(far.fileno()), "wb", buffering=0) as file:
        outlet = Outlet(file, name="log")
        for line in (b"one\n", b"x" * (1 << 20) + b"\n", b"three\n"):
            outlet.write(line)
        outlet.flush()
        assert (near.recv(100), near.recv(100), outlet.dropped) == (b"one\n", b"three\n", 1)


def test_lines_that_a_pipe_takes_whole_are_written_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    write: Callable[[int, memoryview], int] = os.write

    def counted(fd: int, data: memoryview) -> int:
        sizes.append(len(data))
        return write(fd, data)

    monkeypatch.setattr(os, "write", counted)
    for kind in ("pipe", "pipe of another"):
        with far_end(kind) as far:
            outlet = made(kind, far.file, monkeypatch)
            outlet.write(b"a" * 99 + b"\n")
            outlet.write(b"".join(b"%d" % digit * 1499 + b"\n" for digit in range(4)))
    assert sizes == [100, 3000, 3000] * 2


@pytest.mark.parametrize("line", [b"x" * 300 + b"\n", b"x\ty\r\n", b"\n\b\t\r" * 50 + b"\n", "ü🎉".encode() * 200 + b"\n"])
@pytest.mark.parametrize("kind", ["terminal", "terminal of another", "raw terminal of another"])
def test_no_terminal_holds_the_run_up_whatever_it_makes_of_the_characters(
    kind: str, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filled to its last byte and emptied by a little, so that every amount of room comes up."""
    with far_end(kind) as far:
        outlet = made(kind, far.file, monkeypatch)
        for _ in range((1 << 17) // len(line)):
            outlet.write(line)
        for taken in (1, 100, 255, 256, 257, 1000, 4095, 4096, 5000):
            far.read(taken)
            outlet.flush()
        assert outlet._queue


def test_a_session_leader_does_not_get_a_terminal_by_writing_to_it() -> None:
    """Else a ^C on it would reach the engine, which is none of its session."""
    near, far = pty.openpty()
    code = """
        import os, sys
        from jobrunner.outlet import Outlet
        os.setsid()
        Outlet(sys.stdout.buffer, name="stdout").write(b"shown\\n")
        try:
            os.open("/dev/tty", os.O_RDWR)
        except OSError as error:
            sys.exit(7)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=far, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.wait(30) == 7
    assert os.read(near, 100) == b"shown\r\n"
    os.close(near)
    os.close(far)


def test_its_descriptors_go_with_it() -> None:
    def opened() -> set[int]:
        found = {int(name) for name in os.listdir("/proc/self/fd")}
        return {fd for fd in found if os.path.lexists(f"/proc/self/fd/{fd}")}

    for kind in KINDS:
        with far_end(kind) as far:
            before = opened()
            outlet = Outlet(far.file, name="log")
            (own,) = opened() - before
            assert not os.get_inheritable(own)
            del outlet
            assert opened() == before


# --- through the command line --------------------------------------------------------------------------------------------------

TARGETS = """
import os

def nothing(item): return None

def odd():
    os.write(1, b"\\x00\\x1b[2J\\x1b]0;t\\x07\\xff\\xfe\\n" + b"L" * (1 << 20) + b"\\nno end")

def loud(megabytes):
    for _ in range(megabytes * 16):
        os.write(1, b"x" * 65535 + b"\\n")

def fail(): raise ValueError("no")
"""
ODD_OUTPUT = b"\x00\x1b[2J\x1b]0;t\x07\xff\xfe\n" + b"L" * (1 << 20) + b"\nno end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job file and its state directory."""

    file: Path
    state: Path

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "jobrunner", str(self.file), "--durability", "process", *options]

    def environ(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "JOBRUNNER_STATE": str(self.state)}

    def start(self, *options: str, out: int, err: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command(*options), stdout=out, stderr=err, env=self.environ())

    def sh(self, script: str) -> subprocess.CompletedProcess[bytes]:
        """Run a line of shell in which "$@" is the command."""
        command = ["sh", "-c", script, "sh", *self.command()]
        return subprocess.run(command, env=self.environ(), capture_output=True, timeout=50, check=False)

    def directory(self) -> Path:
        (found,) = (path.parent for path in self.state.glob("*/*/events.jsonl"))
        return found

    def journal(self) -> list[dict[str, Any]]:
        lines = (self.directory() / "events.jsonl").read_bytes().splitlines()
        return [json.loads(line) for line in lines]

    def lost(self) -> list[dict[str, Any]]:
        return [record for record in self.journal() if record["event"] == "log.degraded"]


@pytest.fixture
def job_of(tmp_path: Path) -> Callable[..., Job]:
    def made(tasks: dict[str, Any]) -> Job:
        (tmp_path / "outlet_targets.py").write_text(TARGETS)
        (tmp_path / "job.yaml").write_text(json.dumps({"name": "j", "mode": "serial", "tasks": tasks}))
        return Job(file=tmp_path / "job.yaml", state=tmp_path / "state")

    return made


def call(name: str, *args: object) -> dict[str, Any]:
    return {"target": f"outlet_targets:{name}", "args": list(args)}


QUICK = {"a": call("nothing", 1), "b": {"run": "echo said"}}


def test_a_log_that_nobody_reads_costs_20_000_events_nothing_but_lines_of_the_log(job_of: Callable[..., Job]) -> None:
    job = job_of({"e" * 60: {"foreach": [f"{number:05d}{'x' * 115}" for number in range(10_000)], **call("nothing", 1)}})
    near, far = os.pipe()
    with job.start(out=subprocess.PIPE, err=far) as process:
        os.close(far)
        assert process.stdout is not None
        summary = process.stdout.read().decode()
        assert process.wait() == 0
    with os.fdopen(near, "rb") as reader:
        delivered = [json.loads(line)["seq"] for line in reader if line.endswith(b"\n")]
    journal, lost = job.journal(), job.lost()
    assert len(journal) > 20_000
    assert [record["seq"] for record in journal] == list(range(1, len(journal) + 1))
    assert (journal[-1]["event"], journal[-1]["exit_code"]) == ("run.finished", 0)
    assert {(record["output"], record["reason"]) for record in lost} == {("log", "its reader stalled")}
    assert 0 < lost[0]["dropped"] < lost[-1]["dropped"]
    assert len(lost) == 2, "once when it began, once with the final count"
    delivered = [seq for seq in delivered if seq < lost[-1]["seq"]]  # later and shorter lines may still have found room
    assert len(delivered) + lost[-1]["dropped"] == lost[-1]["seq"] - 1
    assert delivered == list(range(1, len(delivered) + 1))
    assert f"{lost[-1]['dropped']} lines of the log were lost: its reader stalled" in summary


def test_a_display_that_nobody_reads_costs_a_task_that_prints_much_nothing(job_of: Callable[..., Job]) -> None:
    job = job_of({"a": call("loud", 20)})
    near, far = os.pipe()
    with job.start(out=far, err=subprocess.DEVNULL) as process:
        os.close(far)
        assert process.wait() == 0
    os.close(near)
    assert (job.directory() / "output" / "a.log").stat().st_size + (
        job.directory() / "output" / "a.log.1"
    ).stat().st_size == 20 << 20
    first, last = job.lost()
    assert first["output"] == last["output"] == "stdout"
    assert 0 < first["dropped"] < last["dropped"] <= 320


@pytest.mark.parametrize("tasks", [QUICK, {"a": call("fail")}], ids=["succeeds", "fails"])
@pytest.mark.parametrize(
    "script",
    [
        '"$@" >&- 2>&-',
        '"$@" <&- >&- 2>&-',
        '"$@" >/dev/full 2>/dev/full',
        '"$@" --log-file /dev/full >/dev/full',
        '{ "$@" 2>&1; echo $? >&3; } 3>&1 >/dev/null | { read code; exit $code; }',
        '{ { "$@"; echo $? >&4; } 2>&1 >&3 3>&- | true; } 3>/dev/null 4>code; exit $(cat code)',
        '{ { "$@"; echo $? >&4; } | true; } 4>code; exit $(cat code)',
    ],
    ids=["closed", "all closed", "full", "full log file", "one file", "reader of the log gone", "reader of the output gone"],
)
def test_whatever_the_outputs_are_the_exit_code_is_about_the_tasks(
    script: str, tasks: dict[str, Any], job_of: Callable[..., Job], tmp_path: Path
) -> None:
    job = job_of(tasks)
    ended = job.sh(f"cd {tmp_path}; {script}")
    code = 0 if tasks is QUICK else 1
    assert ended.returncode == code, ended.stderr
    assert (job.journal()[-1]["event"], job.journal()[-1]["exit_code"]) == ("run.finished", code)
    if "full" in script:
        final = {record["output"]: record for record in job.lost()}
        assert all(record["reason"] == "No space left on device" for record in final.values())
        assert sum(record["dropped"] for record in final.values()) > 0
    else:
        assert job.lost() == [], "that nobody reads is no fault"


@pytest.mark.parametrize("blocking", [True, False])
def test_log_and_output_in_one_pipe_keep_their_lines_whole_and_their_order(blocking: bool, job_of: Callable[..., Job]) -> None:
    job = job_of({"a": call("loud", 4)})
    near, far = os.pipe()
    os.set_blocking(far, blocking)
    with job.start(out=far, err=far) as process:
        assert os.get_blocking(far) is blocking
        os.close(far)
        with os.fdopen(near, "rb") as reader:
            lines = reader.read().splitlines()
        assert process.wait() == 0
    output = [at for at, line in enumerate(lines) if line == b"a | " + b"x" * 65535]
    log = {json.loads(line)["event"]: at for at, line in enumerate(lines) if line.startswith(b"{")}
    assert len(output) == 64
    assert log["task.started"] < output[0] < output[-1] < log["task.finished"] < log["run.finished"]
    assert job.lost() == []


def test_what_tasks_print_is_kept_as_it_is_and_shown_so_that_it_can_do_no_harm(job_of: Callable[..., Job]) -> None:
    job = job_of({"a": call("odd")})
    near, far = pty.openpty()
    shown = bytearray()
    with job.start("--log-format", "json", out=far, err=subprocess.PIPE) as process:
        os.close(far)
        with contextlib.suppress(OSError):  # EIO: the last who wrote has gone
            while data := os.read(near, 1 << 16):
                shown += data
        os.close(near)
        assert process.stderr is not None
        log = [json.loads(line) for line in process.stderr]
        assert process.wait() == 0
    assert log[-1]["event"] == "run.finished"
    assert (job.directory() / "output" / "a.log").read_bytes() == ODD_OUTPUT
    assert b"a | \\x00\\x1b[2J\\x1b]0;t\\x07\xef\xbf\xbd\xef\xbf\xbd\r\n" in shown
    assert shown.count(b"L") == 1 << 20
    assert not set(shown) & {0, 7, 0x1B}


def test_a_disk_that_output_fills_costs_output_and_neither_the_journal_nor_the_exit_code(
    job_of: Callable[..., Job],
) -> None:
    job = job_of({"a": call("loud", 8), "b": {"needs": ["a"], **call("nothing", 1)}})
    job.state.mkdir(mode=0o700)
    keep = job.file.parent / "kept"
    copied = f'{{ "$@" >/dev/null; code=$?; cp -r {job.state} {keep}; exit $code; }}'
    mount = f"mount -t tmpfs -o size=4m,mode=700 none {job.state} && {copied}"
    command = ["unshare", "-m", "sh", "-c", mount, "sh", *job.command()]
    ended = subprocess.run(command, env=job.environ(), capture_output=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stderr
    kept = Job(file=job.file, state=keep)
    last = kept.lost()[-1]
    assert (last["output"], last["reason"]) == ("output", "No space left on device")
    assert (kept.directory() / "output" / "a.log").stat().st_size + last["dropped"] == 8 << 20
    assert kept.journal()[-1]["exit_code"] == 0
