"""What the fault table runs: targets that end their worker, hold it, flood it, or lie to the engine."""

# ruff: noqa: T201 — what a task prints is its output

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from tests.targets.contract import TwoArguments

_LONG = 30.0
"""Seconds: longer than any test waits. Nothing that runs so long is waited for."""


def innocent(mark: str = "", seconds: float = 0.01) -> int:
    """Does no harm; leaves a mark, so that others can see that it runs."""
    if mark:
        Path(mark).touch()
    time.sleep(seconds)
    return os.getpid()


def beside(mark: str, deed: str) -> object:
    """Wait until the innocent one runs, then do the deed: a function of this module, with its arguments in words."""
    until = time.monotonic() + _LONG
    while mark and not Path(mark).exists() and time.monotonic() < until:
        time.sleep(0.002)
    name, *words = deed.split()
    return globals()[name](*map(int, words))


def exit_1() -> None:
    sys.exit(1)


def exit_0() -> None:
    sys.exit(0)


def raises() -> None:
    raise ValueError("no")


def raises_two_arguments() -> None:
    raise TwoArguments("one", "two")


def returns_unpicklable() -> object:
    return lambda: None


def vanishes() -> None:
    os._exit(0)


def kills_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(_LONG)  # another thread may be the one that takes the signal


def is_killed_by_another() -> None:
    """Busy while somebody else sends the signal."""
    subprocess.Popen(["/bin/sh", "-c", f"kill -KILL {os.getpid()}"])
    while True:
        sum(range(1000))


def segfaults() -> None:
    ctypes.string_at(0)


def aborts() -> None:
    os.abort()


def interrupts() -> None:
    raise KeyboardInterrupt


def sleeps(seconds: float = _LONG) -> None:
    time.sleep(seconds)


def ignores_term() -> None:
    """A thread cannot even ask not to be told: it simply goes on."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(_LONG)


def stops_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(_LONG)  # another thread may be the one that takes the signal


def holds_the_interpreter(seconds: int = 30) -> None:
    """Busy in C without letting go of the GIL: `PyDLL` keeps it while it calls."""
    ctypes.PyDLL(None).sleep(seconds)


def floods(mebibytes: int) -> None:
    line = b"x" * 1023 + b"\n"
    with open(1, "wb", closefd=False) as out:
        for _ in range(mebibytes << 10):
            out.write(line)


def prints_much(mebibytes: int) -> None:
    line = "x" * 1023
    for _ in range(mebibytes << 10):
        print(line)


def leaves_a_child() -> None:
    """A child that holds standard output and outlives the task."""
    subprocess.Popen(["sleep", "30"])


def talks_nonsense() -> None:
    """Writes to the connection of its worker what is no frame."""
    os.write(_connection(), b"nonsense\n")
    time.sleep(_LONG)


def lies() -> None:
    """A well-formed frame for an attempt that its worker does not hold."""
    os.write(_connection(), b'["result",999999,"succeeded",0,0,0,null,"",null,false]\n')
    time.sleep(_LONG)


def hangs_up() -> None:
    os.close(_connection())


def _connection() -> int:
    """The socket of this worker's process, by descriptor."""
    return next(int(fd.name) for fd in Path("/proc/self/fd").iterdir() if fd.is_socket())


def leaves_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(_LONG,)).start()


def pid() -> int:
    return os.getpid()


def broken_factory(max_workers: int) -> Executor:
    raise OSError("no such cluster")


def odd_factory(max_workers: int) -> Any:
    return object()


def kill_idle(pid: int) -> None:
    """Kill a process that does nothing, and wait until it has ended."""
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + _LONG
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z":
                return
        except (FileNotFoundError, ProcessLookupError):  # the second while it is being reaped
            return
        time.sleep(0.002)


def fails_until(folder: str, number: int) -> int:
    """Kills its worker until it was called `number` times."""
    marks = Path(folder)
    (marks / f"try-{len(list(marks.glob('try-*')))}").touch()
    if len(list(marks.glob("try-*"))) < number:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
