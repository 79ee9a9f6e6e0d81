"""Calls of the system that Python has no name for. Where the system has no such call, they do nothing.

`_ctypes` is used without the package `ctypes` around it: that costs 2 ms more, and every run pays for it at its start.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing would be a third of what the guard has in memory when it forks
    from collections.abc import Callable, Iterator
    from typing import Any

_SET_DEATH_SIGNAL = 1  # prctl(2): PR_SET_PDEATHSIG
_SET_SUBREAPER, _GET_SUBREAPER = 36, 37  # PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER
_KEEP_SIZE = 1  # fallocate(2): FALLOC_FL_KEEP_SIZE
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.ENOSYS)
_START_OF_ENVIRONMENT, _END_OF_ENVIRONMENT = 47, 48  # proc_pid_stat(5): fields 50 and 51, counted from the third


def is_main_thread() -> bool:
    """Whether this is the main thread; where nobody has loaded `threading`, which takes its time, there is no other."""
    threading = sys.modules.get("threading")
    return threading is None or threading.current_thread() is threading.main_thread()


def become_subreaper() -> bool:
    """From now on orphans among this process's descendants become its children, instead of those of process 1."""
    return _prctl(_SET_SUBREAPER, 1)


@contextlib.contextmanager
def subreaping() -> Iterator[None]:
    """Inside, this process is a subreaper; afterwards it is what it was before."""
    from array import array

    was = array("i", [0])
    _prctl(_GET_SUBREAPER, was.buffer_info()[0])
    become_subreaper()
    try:
        yield
    finally:
        _prctl(_SET_SUBREAPER, was[0])


def die_with(parent_pid: int) -> None:
    """From now on this process is killed when the thread of `parent_pid` that started it ends; at once if it has gone already.

    To be called by the child, after it was forked; an exec of an ordinary program keeps it.
    """
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def reserve(fd: int, offset: int, length: int) -> None:
    """Set `length` bytes of disk from `offset` on aside for `fd`, whose size does not change.

    Raises OSError where the disk has no room, or is broken. File systems that cannot set space aside are taken as they are.
    """
    while code := _fallocate(fd, offset, length):
        if code in _CANNOT_RESERVE:
            return
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


def scrub(name: str) -> None:
    """Remove the variable `name` from the environment, also from what others can read of it in /proc/PID/environ."""
    os.environ.pop(name, None)
    wanted = os.fsencode(name)
    _overwrite_values(lambda each: each == wanted)


def scrub_all(*, keep: str) -> None:
    """Hide every value of the environment that this process was started with, but those of variables whose name begins so.

    `os.environ` and what children are given stay as they are.
    """
    kept = os.fsencode(keep)
    _overwrite_values(lambda each: not each.startswith(kept))


def _prctl(option: int, value: int) -> bool:
    call = _function("prctl", "illll")
    return call is not None and call(option, value, 0, 0, 0) == 0


def _fallocate(fd: int, offset: int, length: int) -> int:
    """0, or the number of the error."""
    call = _function("fallocate", "iill")
    if call is None:
        return errno.ENOSYS
    import _ctypes

    return _ctypes.get_errno() if call(fd, _KEEP_SIZE, offset, length) else 0


def numbered_call() -> Callable[..., int] | None:
    """syscall(2) with a number and five arguments, for calls of which the C library has no function."""
    return _function("syscall", "llllll")


@cache
def _function(name: str, arguments: str) -> Callable[..., int] | None:
    """The function of the C library, of which every argument is an int (`i`) or a long (`l`); it returns an int."""
    try:
        import _ctypes

        program: Any = None  # a library by no name is the program itself with all that it has loaded
        address = _ctypes.dlsym(_ctypes.dlopen(program, 0), name)
    except (ImportError, OSError):
        return None

    class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # at run time it takes none
        _type_ = "i"

    class Long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # as above
        _type_ = "l"

    class Function(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = Int

    function = Function(address)
    function.argtypes = [{"i": Int, "l": Long}[each] for each in arguments]
    return function


def _overwrite_values(chosen: Callable[[bytes], bool]) -> None:
    """Write zeros over the values of the chosen names, where the system keeps the environment that this process began with."""
    with contextlib.suppress(OSError), open("/proc/self/mem", "r+b", buffering=0) as memory:
        start, end = _environment_block()
        memory.seek(start)
        block = memory.read(end - start) or b""
        for variable in block.split(b"\0"):
            name, found, value = variable.partition(b"=")
            if found and chosen(name):
                memory.seek(start + len(name) + 1)
                memory.write(bytes(len(value)))
            start += len(variable) + 1


def _environment_block() -> tuple[int, int]:
    """Addresses of the first byte of the environment that this process began with, and of the one after its last."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[_START_OF_ENVIRONMENT]), int(fields[_END_OF_ENVIRONMENT])
