"""The steps of a command: which one is next, what they used together, and how the one that failed is named."""

from __future__ import annotations

import os
import resource

from jobrunner.processes import Exit, signal_name
from jobrunner.structs import replace, struct
from jobrunner.work import Command

_LONGEST_TITLE = 60
_SHELL = ("/bin/sh", "-ec")


class Steps:
    """A Command's own words, then those of `then`. `current` is the Command that runs now, or is about to."""

    __slots__ = ("_count", "_number", "_then", "current", "is_last")

    def __init__(self, command: Command) -> None:
        self.current = command
        self._then = command.then
        self._number, self._count = 1, 1 + len(command.then)
        self.is_last = not command.then

    def advance(self) -> None:
        """The next one is the current one."""
        self.current = replace(self.current, argv=self._then[self._number - 1], then=())
        self._number += 1
        self.is_last = self._number == self._count

    def ended(self, exit: Exit) -> str:
        """`exit 3`; with steps `step 2 of 3 (make test) exited with 3`."""
        if self._count == 1:
            return str(exit)
        return self._told(f"was killed by {signal_name(exit.signal)}" if exit.signal else f"exited with {exit.code}")

    def could_not_start(self, why: str) -> str:
        return self._told(f"could not start: {why}")

    def failed(self, why: str) -> str:
        """Of what is told in words of its own, which step it was."""
        return f"{self._place()}: {why}" if self._count > 1 else why

    def was_stopped(self) -> str:
        return f"stopped after step {self._number} of {self._count} ({title(self.current.argv)})"

    def _told(self, what: str) -> str:
        return f"{self._place()} {what}" if self._count > 1 else what

    def _place(self) -> str:
        return f"step {self._number} of {self._count} ({title(self.current.argv)})"


def title(argv: tuple[str, ...]) -> str:
    """What a person calls a command: its first line, at most 60 characters of it."""
    import shlex  # only what has several commands, or has failed, is told so

    text = argv[2] if argv[:2] == _SHELL and len(argv) == 3 else shlex.join(argv)
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= _LONGEST_TITLE else f"{line[: _LONGEST_TITLE - 1]}…"


_SUCCESS = Exit(code=0)


@struct(kw_only=False, frozen=False)
class Spent:
    """What processes that were reaped have used: CPU seconds in all, and the highest peak of memory, in bytes."""

    cpu: float | None = None
    max_rss: int | None = None

    def reap(self, pid: int) -> tuple[Exit, int | None]:
        """Take the end of a process that has ended; with its own peak. ChildProcessError: somebody else has taken it."""
        _, status, usage = os.wait4(pid, 0)
        self.cpu = round((self.cpu or 0.0) + usage.ru_utime + usage.ru_stime, 6)
        if (peak := _own_peak(usage.ru_maxrss)) is not None:
            self.max_rss = max(self.max_rss or 0, peak)
        return Exit.of(os.waitstatus_to_exitcode(status)) if status else _SUCCESS, peak


def has_succeeded(pid: int) -> bool:
    """Whether a process that has ended did so with exit code 0; it is still to be reaped. False where that is not known."""
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return False
    return ended is not None and (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)


class _Ours:
    """Our own peak of memory, in kilobytes, as far as we have looked. It never falls."""

    kilobytes = 0


def _own_peak(kilobytes: int) -> int | None:
    """Peak memory in bytes. A spawned process starts with its parent's peak (Linux, exec_mmap), so less than that is unknown."""
    if kilobytes > _Ours.kilobytes:
        _Ours.kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * 1024 if kilobytes > _Ours.kilobytes else None
