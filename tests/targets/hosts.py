"""What the tests of hosts run: targets that hold on to something, leave something behind, or use too much."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

_LONG = 60.0
"""Seconds: longer than any test waits."""


def quick(value: object = None) -> object:
    return value


def sleeps(mark: str = "") -> None:
    _sleep_inside(mark)


def _sleep_inside(mark: str) -> None:
    if mark:
        Path(mark).touch()
    time.sleep(_LONG)


def holds_the_interpreter(mark: str) -> None:
    """In C code that does not let go of the interpreter, and goes on after a signal."""
    library = ctypes.PyDLL(None)
    sleep, create = library.sleep, library.creat
    sys.setswitchinterval(_LONG)  # from the mark on nobody else gets it, not between two calls either
    create(os.fsencode(mark), 0o600)
    while True:
        sleep(int(_LONG))


def stops_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def drops_all_handlers(mark: str) -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):  # those that the C library keeps for itself
            signal.signal(number, signal.SIG_DFL)
    Path(mark).touch()
    time.sleep(_LONG)


def waits_deep(levels: int, mark: str) -> None:
    if levels:
        waits_deep(levels - 1, mark)
    else:
        sleeps(mark)


def segfaults() -> None:
    ctypes.string_at(0)


def exits(code: int) -> None:
    os._exit(code)


def fails() -> None:
    raise ValueError("no")


def kills_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(_LONG)  # in a thread: another one may be the one that takes the signal


def fails_beside_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(_LONG,)).start()
    raise ValueError("no")


def succeeds_beside_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(_LONG,)).start()


def leaves_a_daemon(mark: str, ending: str) -> None:
    """A process of another session, without a parent here, that never executes another program; then the ending."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.environ.clear()
            part = Path(f"{mark}.part")
            part.write_text(str(os.getpid()))
            part.rename(mark)
            time.sleep(_LONG)
        os._exit(0)
    os.wait()
    while not Path(mark).exists():
        time.sleep(0.002)
    globals()[ending]()


def takes(mebibytes: int) -> int:
    return len(bytearray(mebibytes << 20))


def is_wrong_inside() -> None:
    raise SystemError("error return without exception set")


def takes_little_by_little(mebibytes: int) -> int:
    """In pieces so small that nothing is left for anybody when it ends."""
    kept: list[bytes] = []
    while len(kept) < mebibytes << 12:
        kept.append(b"x" * 200 + str(len(kept)).encode())
    return len(kept)


def limits() -> dict[str, int]:
    return {
        "memory": resource.getrlimit(resource.RLIMIT_DATA)[0],
        "nice": os.nice(0),
        "cpus": len(os.sched_getaffinity(0)),
    }


def cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def notes(path: str, number: int, gate: str = "") -> int:
    """That it has begun; then it waits until `gate` is there."""
    with open(path, "ab", buffering=0) as file:
        file.write(b"%d\n" % number)
    while gate and not os.path.exists(gate):
        time.sleep(0.005)
    return number


def notes_and_dies(path: str, number: int, gate: str) -> None:
    notes(path, number, gate)
    os.kill(os.getpid(), signal.SIGKILL)


def writes(number: int) -> None:
    """In every third call, by Python and past it."""
    if number % 3 == 0:
        sys.stdout.write(f"<{number}>\n")
        os.write(1, b"<%d>\n" % number)


def does_not_wait() -> None:
    """Leaves its output so that it fails where there is no room, as some programs do."""
    os.set_blocking(1, False)


def prints(count: int) -> None:
    sys.stdout.write("x" * count + "\n")


def takes_all_descriptors() -> None:
    """Nothing can be opened in this process from now on."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
