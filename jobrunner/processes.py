"""Child processes as the engine holds them: found by pidfd, signalled as a group, described in words."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass

_PIECE = 1 << 16
PIPE_READS = 17
"""A pipe holds 64 KiB unless enlarged, at most 1 MiB for a user: so many reads empty one that nobody fills meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended: exactly one of `code` and `signal` is set."""

    code: int | None = None
    signal: int | None = None

    @classmethod
    def of(cls, returncode: int) -> Exit:
        """From a return code in the way of `subprocess`: minus the signal's number for a death by signal."""
        return cls(signal=-returncode) if returncode < 0 else cls(code=returncode)

    def __str__(self) -> str:
        return f"killed by {signal_name(self.signal)}" if self.signal else f"exit {self.code}"


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11; `signal 34` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def signal_group(pid: int, number: int) -> None:
    """Signal the process group that `pid` leads. Only for a child that was not reaped yet: its number cannot be reused."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:  # it was forked a moment ago and does not lead a group yet
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    except PermissionError:  # every member that is left has changed its user: not ours to end
        pass


def read_available(fd: int) -> bytes | None:
    """What `fd` holds at this moment, at most 64 KiB; b"" where it holds nothing; None at its end."""
    try:
        return os.read(fd, _PIECE) or None
    except BlockingIOError:
        return b""


def group_members(pid: int) -> tuple[int, ...]:
    """Live processes in the process group of `pid`, the leader left out (Linux: from /proc; elsewhere none are found)."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listdir("/proc")
    others = (int(name) for name in names if name.isdecimal() and int(name) != pid)
    return tuple(sorted(other for other in others if _lives_in_group(other, pid)))


def _lives_in_group(pid: int, group: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the command may hold anything, even ")"
    except OSError:
        return False
    return fields[0] not in (b"Z", b"X") and int(fields[2]) == group
