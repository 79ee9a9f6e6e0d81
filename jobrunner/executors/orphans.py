"""Processes that are not ours by name: what /proc tells of them, and how they are held, signalled and reaped for certain."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator

from jobrunner.structs import struct

_MOST_HELD = 256
_THREADS = 17  # proc_pid_stat(5): field 20, counted from the third
_LONGEST_ID = 20
"""Digits: a task may have set the variable to anything."""


@struct
class Stat:
    """Where a live process stands."""

    parent: int
    group: int
    session: int


def stat(pid: int) -> Stat | None:
    """None for one that has ended, reaped or not."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()  # the command may hold anything, even ")"
    if not fields or (fields[0] in (b"Z", b"X") and int(fields[_THREADS]) <= 1):  # its other threads may live on
        return None
    return Stat(parent=int(fields[1]), group=int(fields[2]), session=int(fields[3]))


def descendants(pid: int) -> Iterator[int]:
    """Live processes below `pid`, parents before their children."""
    rest = list(_children(pid))
    while rest:
        child = rest.pop()
        if stat(child) is not None:
            yield child
            rest += _children(child)


def _children(pid: int) -> Iterator[int]:
    threads: list[str] = []
    with contextlib.suppress(OSError):
        threads = os.listdir(f"/proc/{pid}/task")
    for thread in threads:
        yield from map(int, _read(pid, f"task/{thread}/children").split())


def owner_of(pid: int, run_id: str) -> int | None:
    """The attempt of the run whose command started it, by the environment that it was started with."""
    variables = dict(each.partition(b"=")[::2] for each in _read(pid, "environ").split(b"\0"))
    if run_id and variables.get(b"JOBRUNNER_RUN_ID") != os.fsencode(run_id):
        return None
    name = os.path.basename(variables.get(b"JOBRUNNER_OUTPUT", b""))
    return int(name) if name.isdigit() and len(name) < _LONGEST_ID else None


def owned_by(attempt_id: int, run_id: str) -> Iterator[int]:
    """All live processes that a command's attempt of the run started: a search, which takes milliseconds."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and owner_of(int(name), run_id) == attempt_id:
            yield int(name)


def hold(pids: Collection[int], again: Callable[[], Iterable[int]]) -> dict[int, int]:
    """Descriptors for these processes, as many as there is room for, at most 256; the caller closes them.

    A number may become somebody else's before it is held. So `again` looks once more, and who is not in it is let go.
    """
    held = {}
    with contextlib.suppress(OSError):  # no descriptor is free: what is held is a beginning
        for pid in list(pids)[:_MOST_HELD]:
            with contextlib.suppress(ProcessLookupError):
                held[pid] = os.pidfd_open(pid)
    confirmed = set(again())
    for pid in held.keys() - confirmed:
        os.close(held.pop(pid))
    return held


def send(pidfd: int, number: int) -> bool:
    """False where the process may not be signalled: it has become another user's."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def reap(pid: int) -> bool:
    """Take a child's end, without waiting for it. True where there is nothing more to take."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def wait_for(pids: Iterable[int], deadline: float) -> None:
    """Until these children have ended, or the monotonic clock has come to `deadline`."""
    for pid in pids:
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            try:
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            finally:
                os.close(pidfd)


def _read(pid: int, name: str) -> bytes:
    """A file of /proc/PID; empty where the process has gone or may not be looked into."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        return file.readall()
    return b""
