"""Processes that carry a mark in their environment: whatever a runner started, and all that came of it. Linux only.

A child inherits the environment whoever its parent is by now and whichever session or group it made for itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass

NAME = "BENCHMARK_MARK"
_EXEC_PATIENCE = 0.2
"""Seconds for a process to come to the end of an exec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process, told from a later one of the same number by when it was started (clock ticks since boot)."""

    pid: int
    started: int


def alive(mark: str) -> set[Process]:
    """Every live process whose environment has `mark` under NAME, this process left out. A zombie is not alive."""
    wanted = f"{NAME}={mark}".encode()
    found = {each for name in os.listdir("/proc") if name.isdecimal() and (each := _marked(int(name), wanted))}
    return {each for each in found if each.pid != os.getpid()}


def still_alive(processes: set[Process]) -> set[Process]:
    """Those of `processes` that live."""
    return {each for each in processes if _started(each.pid) == each.started}


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number that has not ended. It may be another one than was meant."""
    return _started(pid) is not None


def has(pid: int, name: str) -> bool:
    """Whether a process has a variable of that name in its environment."""
    return any(each.startswith(name.encode() + b"=") for each in _environment(pid))


def end(mark: str, *, patience: float = 5.0) -> None:
    """Kill all that carry the mark. Raises TimeoutError where some are left after `patience` seconds."""
    deadline = time.monotonic() + patience
    while left := alive(mark):
        for each in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes that cannot be killed: {sorted(each.pid for each in left)}")
        time.sleep(0.002)


def children(pid: int) -> list[int]:
    """The children of a process, by its main thread; none where it has gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]
    return []


def family(pid: int) -> list[int]:
    """The processes of a runner of jobrunner that are there: the guard that was started, its guard, the engine."""
    found = [pid]
    while len(found) < 3 and (below := children(found[-1])):
        found.append(below[0])
    return found


def _marked(pid: int, wanted: bytes) -> Process | None:
    if wanted in _environment(pid) and (started := _started(pid)) is not None:
        return Process(pid=pid, started=started)
    return None


def _environment(pid: int) -> list[bytes]:
    """A process in the middle of an exec has none for a moment, a long one on a busy machine: it is looked at again."""
    deadline = time.monotonic() + _EXEC_PATIENCE
    with contextlib.suppress(OSError):
        while True:
            with open(f"/proc/{pid}/environ", "rb") as file:
                found = file.read()
            os.readlink(f"/proc/{pid}/exe")  # a kernel thread or a zombie has none
            if found or time.monotonic() > deadline:
                return found.split(b"\0")
            time.sleep(0.001)
    return []


def _started(pid: int) -> int | None:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()  # the command may hold anything, even ")"
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    return None
