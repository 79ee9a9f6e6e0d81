"""A sync of the disk beside which the engine goes on: fdatasync(2) as the kernel does it by itself, without a thread of ours.

begin ──▶ the kernel syncs what the file held by then
   └─ bind, encode, … ─▶ wait ─▶ it is on disk

The kernel's asynchronous I/O (io_submit, not io_uring, which many containers forbid) has known it since Linux 4.18.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import sys
from array import array

from jobrunner.system import numbered_call

_SETUP, _DESTROY, _SUBMIT, _GET = 0, 1, 2, 3
_CALLS = {"x86_64": (206, 207, 209, 208), "aarch64": (0, 1, 2, 4)}
"""The numbers of these calls, of which the C library has no functions."""
_FULL = 1 << 32
"""Python is for 64 bits where its sizes are larger."""
_ORDER = "<QIIHhIQQqQII"
"""struct iocb: data, key, flags, operation, priority, descriptor, and five fields that a sync does not have."""
_FDSYNC = 3
_ANSWER = "<QQqq"
"""struct io_event: data, the order, its result (below zero: the number of an error), nothing."""


class Syncing:
    """Syncs one file, one sync at a time. Raises OSError where the system has no such call, or no room for one more."""

    def __init__(self, fd: int) -> None:
        call, numbers = numbered_call(), _CALLS.get(os.uname().machine)
        if sys.platform != "linux" or call is None or numbers is None or sys.maxsize < _FULL:
            raise OSError(errno.ENOSYS, "not known here")
        self._call, self._numbers = call, numbers
        self._order = array("B", struct.pack(_ORDER, 0, 0, 0, _FDSYNC, 0, fd, 0, 0, 0, 0, 0, 0))
        self._orders = array("Q", [_address(self._order)])
        self._answer = array("B", bytes(struct.calcsize(_ANSWER)))
        context = array("Q", [0])
        self._context = 0
        self._ask(_SETUP, 1, _address(context))
        self._context = context[0]

    def begin(self) -> None:
        """What was written to the file by now is to be on disk when `wait` returns."""
        self._ask(_SUBMIT, self._context, 1, _address(self._orders))

    def wait(self) -> None:
        """Until it is on disk. Raises OSError where it could not be made so, as fdatasync does."""
        while True:
            with contextlib.suppress(InterruptedError):
                self._ask(_GET, self._context, 1, 1, _address(self._answer))
                break
        result = struct.unpack(_ANSWER, self._answer)[2]
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    def close(self) -> None:
        """Waits for what has begun."""
        with contextlib.suppress(OSError):
            self._ask(_DESTROY, self._context)

    def _ask(self, which: int, *arguments: int) -> None:
        if self._call(self._numbers[which], *arguments, *[0] * (5 - len(arguments))) < 0:
            code = _errno()
            raise OSError(code, os.strerror(code))


def _address(memory: array[int]) -> int:
    return memory.buffer_info()[0]


def _errno() -> int:
    import _ctypes

    return _ctypes.get_errno()
