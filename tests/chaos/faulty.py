"""jobrunner, with one operation on its journal that goes wrong: `python -m tests.chaos.faulty KIND N FLAG ARGUMENT…`.

The N-th write or sync of a process to an `events.jsonl` is hit, once: FLAG is made then. Everything else is the real thing. The
fault is set where Python calls the system, so that N means the same operation in each run, whichever run directory is drawn.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

KINDS = ("kill_before", "kill_halfway", "kill_after", "eio", "enospc", "short")
ERRORS = {"eio": errno.EIO, "enospc": errno.ENOSPC}


class Fault:
    """Counts the operations on a journal of this process, and is due once in all processes."""

    def __init__(self, kind: str, number: int, flag: Path) -> None:
        self._kind, self._number, self._flag = kind, number, flag
        self._count = 0

    def on_write(self, write: Callable[[int, bytes | memoryview], int], fd: int, data: bytes | memoryview) -> int:
        if not self._is_due(fd):
            return write(fd, data)
        self._before()
        half = bytes(data)[: max(1, memoryview(data).nbytes // 2)]
        written = write(fd, half if self._kind in ("kill_halfway", "short") else data)
        self._after()
        return written

    def on_sync(self, sync: Callable[[int], None], fd: int) -> None:
        if not self._is_due(fd):
            return sync(fd)
        self._before()
        sync(fd)
        return self._after()

    def _is_due(self, fd: int) -> bool:
        if not os.readlink(f"/proc/self/fd/{fd}").endswith("/events.jsonl"):
            return False
        self._count += 1
        if self._count != self._number or self._flag.exists():
            return False
        self._flag.touch()
        return True

    def _before(self) -> None:
        if self._kind == "kill_before":
            os.kill(os.getpid(), signal.SIGKILL)
        if code := ERRORS.get(self._kind):
            raise OSError(code, os.strerror(code))

    def _after(self) -> None:
        if self._kind in ("kill_halfway", "kill_after"):
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    kind, number, flag, *arguments = sys.argv[1:]
    fault = Fault(kind, int(number), Path(flag))
    os.write = partial(fault.on_write, os.write)
    os.fdatasync = partial(fault.on_sync, os.fdatasync)
    sys.argv = ["jobrunner", *arguments]
    from jobrunner.__main__ import main as jobrunner

    jobrunner()


if __name__ == "__main__":
    main()
