"""A fork whose child belongs to our parent: that one waits for it, and is what it dies with, as if it had forked itself.

os.fork has no flag for it (CLONE_PARENT), so the system is called directly, with the steps of Python around it, and with what
the C library's own fork does for the one thing that is of interest in a process with one thread: where its id is kept.
"""

from __future__ import annotations

import _ctypes
import importlib
import os
import signal
import sys
from array import array
from collections.abc import Callable

from jobrunner.typed import Any

_CLONE_PARENT, _PARENT_SETTID, _CHILD_CLEARTID, _CHILD_SETTID = 0x00008000, 0x00100000, 0x00200000, 0x01000000
_FLAGS = _CLONE_PARENT | _PARENT_SETTID | _CHILD_CLEARTID | _CHILD_SETTID | signal.SIGCHLD
_CALLS = {"x86_64": (56, 1, 157), "aarch64": (220, 2, 167)}
"""For each machine that this was tried on or written for the number of clone(2), and where among its last three arguments, of
which the first is the address for the parent, that for the child stands; and the number of prctl(2)."""
_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36  # prctl(2): PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER
_GET_TID_ADDRESS = 40  # prctl(2): PR_GET_TID_ADDRESS
_FULL = 1 << 32


_cloning: list[bool] = []
"""Not empty while `forker` forks, in both processes."""


def import_threading() -> None:
    """Before anybody else does, so that what it does in a forked child is not done where `forker` has forked it.

    It looks for threads that are gone, of which there are none there, and makes new locks for those that they may have held: a
    hundred pages that the child would copy. Where somebody has imported it already it is done.
    """
    register = os.register_at_fork

    def registered(*, after_in_child: Callable[[], None]) -> None:
        register(after_in_child=lambda: None if _cloning else after_in_child())

    os.register_at_fork = registered  # type: ignore[assignment]  # of what threading asks for
    try:
        importlib.import_module("threading")
    finally:
        os.register_at_fork = register


class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # at run time it takes none
    _type_ = "i"


class Long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # as above
    _type_ = "l"


def forker(slot: Any, parent: int) -> Callable[[], int]:
    """What forks so: it returns 0 in the child and the child's pid elsewhere, as os.fork does, and raises OSError as that does.

    The child is killed when `parent`, which is ours, ends, and inherits what is orphaned below it.

    `slot` is writable memory, 4 bytes at least. The system writes the child's pid there before the child does anything, also
    where this process is killed before it can tell. Raises OSError where it cannot be done here; a process with more than one
    thread must not do it.
    """
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in _CALLS or sys.maxsize < _FULL:
        raise OSError(f"not known for {machine}")
    number, place, prctl = _CALLS[machine]
    addresses = [_ctypes.addressof(Int.from_buffer(slot)), 0, 0]
    addresses[place] = _thread_id_address()
    arguments = (number, _FLAGS, 0, *addresses)
    before, after, in_child = (_function(f"PyOS_{name}") for name in ("BeforeFork", "AfterFork_Parent", "AfterFork_Child"))
    system = _function("syscall", Long, len(arguments))

    def fork() -> int:
        before()
        _cloning.append(True)
        pid: int = system(*arguments)
        if pid == 0:
            in_child()
            system(prctl, _SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
            system(prctl, _SET_SUBREAPER, 1, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            _cloning.clear()
            return 0
        code = _ctypes.get_errno() if pid < 0 else 0
        after()
        _cloning.clear()
        if code:
            raise OSError(code, os.strerror(code))
        return pid

    return fork


def _thread_id_address() -> int:
    """Where the C library keeps the id of this thread, which is another one in a child. Raises OSError where it is not told."""
    address = array("l", [0])
    if _function("prctl", Int, 5)(_GET_TID_ADDRESS, address.buffer_info()[0], 0, 0, 0):
        raise OSError("the system does not tell where the thread's id is")
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        memory.seek(address[0])
        if int.from_bytes(memory.read(4), sys.byteorder) != os.getpid():  # another C library: it is something else there
            raise OSError("the thread's id is elsewhere")
    return address[0]


def _function(name: str, result: Any = None, arguments: int = 0) -> Callable[..., Any]:
    """A function of the program itself, called as Python's own are: nobody else runs meanwhile."""
    program: Any = None

    class Function(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = result

    made: Any = Function
    function = made(_ctypes.dlsym(_ctypes.dlopen(program, 0), name))
    function.argtypes = [Long] * arguments
    return function  # type: ignore[no-any-return]
