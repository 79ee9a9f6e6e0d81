"""The far side, spoken to over its socket: what a host answers to calls, pings and a connection that ends."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from jobrunner import host
from jobrunner.executors.children import Child, greeting, start_host
from jobrunner.work import Call

TARGETS = "tests.targets.contract"


class Line:
    """One host at the other end of its socket: calls go out, frames come in."""

    def __init__(self, child: Child) -> None:
        self.child = child
        child.connection.setblocking(True)
        child.connection.settimeout(20)
        self._frames = child.connection.makefile("rb")
        self._code: int | None = None

    def call(self, call_id: int, function: str, *args: object, **more: Any) -> None:
        self.send(orjson.dumps(Call(id=call_id, target=f"{TARGETS}:{function}", args=list(args), **more)) + b"\n")

    def give_rings(self, workers: int) -> None:
        fd = os.memfd_create("rings")
        os.ftruncate(fd, workers * host.RING * 8)
        socket.send_fds(self.child.connection, [host.RINGS + b"\n"], [fd])
        os.close(fd)

    def close(self) -> int:
        """Go away, as an engine does that dies; the return code of the host."""
        self._frames.close()
        self.child.connection.close()
        return self.ended()

    def ended(self) -> int:
        if self._code is None:
            self._code = self.child.reap().code
        return self._code

    def send(self, data: bytes) -> None:
        self.child.connection.sendall(data)

    def frame(self) -> list[Any]:
        frame: list[Any] = json.loads(self._frames.readline())
        if frame[0] == "ran" or (frame[0] == "result" and frame[-1]):
            frame.append(json.loads(self._frames.readline()))
        return frame

    def frames(self, names: str) -> list[list[Any]]:
        """Frames in the order of their names."""
        found = [self.frame() for _ in names.split()]
        assert [frame[0] for frame in found] == names.split()
        return found


@contextmanager
def started(lane: str, method: str = "fork", executor: str = "", workers: int = 2) -> Iterator[Line]:
    settings = host.Settings(
        pool="p", worker="p-1", lane=lane, workers=workers, executor=executor, path=[os.getcwd()], env={"WIDE": "yes"}
    )
    child = start_host(settings, method=method, folder=os.getcwd())
    child.connection.sendall(greeting(settings, method))
    line = Line(child)
    try:
        yield line
    finally:
        line.close()
        os.close(child.pidfd)
        os.close(child.output)
        os.close(child.stack)


ALL = [lane for lane in host.MODES if lane != "executor"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("lane", ALL)
def test_a_call_is_acknowledged_before_it_runs_and_answered_once(lane: str, method: str) -> None:
    with started(lane, method) as line:
        line.call(1, "echo", 5)
        began, result = line.frames("began result")
        assert began[1] == 1
        assert result[1:3] == [1, "succeeded"]
        assert result[-1] == {"args": [5], "kwargs": {}}


@pytest.mark.parametrize("lane", ALL)
def test_a_ping_is_answered_also_while_a_thread_is_busy(lane: str) -> None:
    with started(lane) as line:
        line.send(b"\n")
        line.frames("alive")


def test_a_thread_is_joined_after_its_call() -> None:
    with started("thread") as line:
        line.call(1, "echo")
        began, _, joined = line.frames("began result joined")
        assert joined[1:4] == [began[2], began[3], 1]


def test_threads_of_a_pool_are_joined_at_the_end_with_what_they_ran() -> None:
    with started("thread_pool", workers=1) as line:
        for number in (1, 2):
            line.call(number, "echo")
        line.frames("began result began result")
        line.child.connection.shutdown(1)
        (joined,) = line.frames("joined")
        assert joined[3] == 2


@pytest.mark.parametrize("lane", ALL)
def test_a_host_ends_by_itself_when_the_engine_closes_its_side(lane: str) -> None:
    with started(lane) as line:
        line.call(1, "echo")
        line.frames("began result")
        line.child.connection.shutdown(1)
        assert line.ended() == 0


@pytest.mark.parametrize("lane", ALL)
def test_a_host_ends_when_the_engine_is_gone(lane: str) -> None:
    with started(lane) as line:
        line.call(1, "echo", "x" * (1 << 22))  # more than the socket holds: it must notice while it answers
        line.frames("began")
        assert line.close() == 70


@pytest.mark.parametrize("lane", ["serial", "process", "process_pool"])
def test_a_folder_that_cannot_be_entered_is_a_failure_of_the_call_alone(lane: str) -> None:
    with started(lane) as line:
        line.call(1, "folder", cwd="/no/such/folder")
        line.call(2, "folder", env={"A": "a\0b"})
        line.call(3, "folder")
        _, bad_folder, _, bad_env, _, good = line.frames("began result began result began result")
        assert bad_folder[8][:2] == ["FileNotFoundError", "could not start: No such file or directory: /no/such/folder"]
        assert bad_env[8][:2] == ["ValueError", "could not start: env or cwd: embedded null byte"]
        assert good[-1] == os.getcwd()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_host_has_no_descriptors_but_its_own(method: str) -> None:
    with open(__file__, "rb") as file:
        os.set_inheritable(file.fileno(), True)
        with started("process", method) as line:
            found = {number: os.readlink(f"/proc/{line.child.pid}/fd/{number}") for number in open_after_start(line)}
    kinds = sorted(re.sub(r"\W.*", "", target.removeprefix("/dev/")) for target in found.values())
    assert kinds == ["null", "pipe", "pipe", "pipe", "pipe", "socket"]


def open_after_start(line: Line) -> list[str]:
    line.call(1, "echo")
    line.frames("began result")
    return os.listdir(f"/proc/{line.child.pid}/fd")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_host_leads_a_session_of_its_own(method: str) -> None:
    with started("process", method) as line:
        open_after_start(line)
        assert os.getsid(line.child.pid) == os.getpgid(line.child.pid) == line.child.pid


def test_a_new_mode_is_a_row_of_modes_with_a_lane() -> None:
    assert {name: (mode.hosts.name, mode.threads) for name, mode in host.MODES.items()} == {
        "serial": ("ONE", False),
        "thread": ("ONE", True),
        "thread_pool": ("ONE", True),
        "process": ("ATTEMPT", False),
        "process_pool": ("WORKER", False),
        "executor": ("ONE", True),
    }


_A, _B = {"A": "1"}, {"A": "2"}


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        ([("os:environ.__setitem__", ["A", "x"], _A)], {"A": "1", "B": None}),
        ([("os:environ.pop", ["A"], _A)], {"A": "1", "B": None}),
        ([("os:getpid", [], {**_B, "B": "2"})], {"A": "1", "B": None}),
        ([("os:getpid", [], _A), ("os:getpid", [], {**_B, "B": "nul\0"})], {"A": "1", "B": None}),
        ([("os:getpid", [], _B), ("os:getpid", [], {"B": "nul\0", **_A})], {"A": "1", "B": None}),
    ],
    ids=[
        "changed by the task",
        "removed by it",
        "of another call",
        "of one that could not start",
        "of one that could not, first",
    ],
)
@pytest.mark.parametrize("lane", ["serial", "process_pool"])
def test_an_attempt_finds_its_environment_whatever_came_before(lane: str, calls: list[Any], found: dict[str, str | None]) -> None:
    with started(lane) as line:
        for call_id, (target, args, env) in enumerate([*calls, *(("os:getenv", [name], _A) for name in found)], 1):
            line.send(orjson.dumps(Call(id=call_id, target=target, args=args, env=env)) + b"\n")
        frames = line.frames("began result " * (len(calls) + len(found)))
        assert [each[-1] for each in frames[-1 : -2 * len(found) - 1 : -2]] == list(found.values())[::-1]


@pytest.mark.parametrize("lane", ["thread", "thread_pool"])
def test_calls_of_which_the_engine_can_see_the_begin_are_told_in_one_frame_each(lane: str) -> None:
    """Unless the begin was sent already; one that fails, or runs for long, is told of as ever."""
    count = 300
    with started(lane) as line:
        line.give_rings(2)
        line.send(b"".join(orjson.dumps(Call(id=number, target="os:getpid")) + b"\n" for number in range(1, count + 1)))
        line.call(count + 1, "no_such")
        begun, over, in_one = set[int](), set[int](), set[int]()
        while len(over) <= count:
            kind, *frame = line.frame()
            if kind == "began":
                begun.add(frame[0])
            elif kind == "result":
                assert frame[0] in begun - over
                over.add(frame[0])
                assert (frame[1] == "failed") is (frame[0] == count + 1)
            elif kind == "ran":
                call_id, worker, thread, duration, cpu, value = frame
                assert call_id not in begun | over
                assert (worker.partition("-")[0], value) == ("p", line.child.pid)
                assert 0 <= cpu <= duration + 0.001
                assert thread > 0
                over.add(call_id)
                in_one.add(call_id)
        assert over == set(range(1, count + 2))
        assert len(in_one) > count / 2


@pytest.mark.parametrize("lane", ["thread", "thread_pool"])
def test_a_begin_is_not_kept_back_until_the_end(lane: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with started(lane) as line:
        line.give_rings(2)
        line.send(orjson.dumps(Call(id=1, target="os:open", args=[str(gate), os.O_RDONLY])) + b"\n")
        line.frames("began")
        os.close(os.open(gate, os.O_WRONLY))
        line.frames("result")


def test_a_new_thread_for_each_call_of_many_that_wait_is_told_of_in_order() -> None:
    """Each began, ended and was joined, and never were there more of them than workers."""
    count = 300
    with started("thread") as line:
        line.send(b"".join(orjson.dumps(Call(id=number, target="os:getpid")) + b"\n" for number in range(1, count + 1)))
        alive: set[str] = set()
        told = {"began": 0, "result": 0, "joined": 0}
        while told["joined"] < count:
            frame = line.frame()
            told[frame[0]] += 1
            if frame[0] == "began":
                alive.add(frame[2])
            elif frame[0] == "joined":
                alive.remove(frame[1])
            assert len(alive) <= 2
        assert told == {"began": count, "result": count, "joined": count}
