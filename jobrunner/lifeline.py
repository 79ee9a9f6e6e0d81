"""The lifeline: a socket pair between the guard and the engine. When one of them is gone, the other one sees it.

    guard ── guard's end ═══ engine's end ── engine
          ◀── the journal's path, a duplicate of every lock

The guard sends nothing, so the engine's end can be read from when the guard has ended, and only then. What the engine sends
waits in the socket until the guard looks, which it does when the engine has ended. Locks that wait there are held.

`_socket` is used without the module `socket` around it: the guard forks before anything large is imported.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:  # as in system.py
    from collections.abc import Sequence

_LONGEST_PATH = 4096
_MOST_LOCKS = 64


class Lifeline:
    """The engine's end. `fd` can be read from as soon as the guard has ended, and only then.

    Where that guard has a guard of its own, `outer` is the lifeline to it, for which the same holds.
    """

    __slots__ = ("_guard_pid", "_socket", "fd", "outer")

    def __init__(self, end: _socket.socket, guard_pid: int, outer: Lifeline | None = None) -> None:
        self._socket, self.fd, self._guard_pid, self.outer = end, end.fileno(), guard_pid, outer

    @property
    def fds(self) -> tuple[int, ...]:
        """One for each guard."""
        return (self.fd, *(self.outer.fds if self.outer else ()))

    @property
    def guard_pid(self) -> int:
        """The outermost guard: the process that was started."""
        return self.outer.guard_pid if self.outer else self._guard_pid

    def announce(self, journal_path: str, lock_fds: Sequence[int]) -> None:
        """Tell every guard where the run is recorded, and hand over its locks: they are held until all of them have ended.

        From now on the end of this process without a `run.finished` on record is taken for a crash. Raises JobrunnerError
        (exit code 70) where the guard has ended already.
        """
        if self.outer is not None:
            self.outer.announce(journal_path, lock_fds)
        locks = struct.pack(f"{len(lock_fds)}i", *lock_fds)
        try:
            self._socket.sendmsg([os.fsencode(journal_path)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, locks)] if locks else [])
        except ConnectionError:
            from jobrunner.errors import JobrunnerError

            raise JobrunnerError("the guard of this run was killed before anything had started: run it again") from None


_current: Lifeline | None = None
_engine_pid = 0


def current() -> Lifeline | None:
    """The lifeline of this process; None where it is no engine with a guard: in a run from Python, in a host."""
    return _current if os.getpid() == _engine_pid else None


def pair() -> tuple[_socket.socket, _socket.socket]:
    """The guard's end and the engine's, which no program inherits that either of them starts."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def inherited() -> Lifeline | None:
    """In what a process with a lifeline has just forked: that lifeline. Else None."""
    return _current if _engine_pid == os.getppid() else None


def hold(line: Lifeline) -> None:
    """This process is the engine at that lifeline from now on."""
    global _current, _engine_pid
    _current, _engine_pid = line, os.getpid()  # what it forks holds the variable, but has closed the descriptor


def has_announced(guard_end: _socket.socket) -> bool:
    """The engine has said where it records."""
    try:
        return bool(guard_end.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT))
    except (BlockingIOError, ConnectionError):
        return False


def announced(guard_end: _socket.socket) -> str:
    """The journal's path, empty where none was announced. The locks that came with it are this process's until it ends."""
    journal = b""
    flags = _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC
    with contextlib.suppress(BlockingIOError, ConnectionError):
        while message := guard_end.recvmsg(_LONGEST_PATH, _socket.CMSG_SPACE(_MOST_LOCKS * struct.calcsize("i")), flags)[0]:
            journal = message
    return os.fsdecode(journal)
