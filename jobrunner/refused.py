"""What the system refuses where a limit is too low: which one it is, and what to write so that it is not."""

from __future__ import annotations

import errno
import os

EXIT = 74
"""The exit code of a run that its surroundings do not serve."""

_LIMITS = {
    errno.EMFILE: ("RLIMIT_NOFILE", 1, "raise `ulimit -n` (1024 will do); in a unit of systemd write LimitNOFILE=1024"),
    errno.ENFILE: ("", 1, "the machine has no more of them: close some, or raise the sysctl fs.file-max"),
    errno.EAGAIN: ("RLIMIT_NPROC", 1, "raise `ulimit -u`; in a unit of systemd write LimitNPROC= and TasksMax="),
    errno.ENOMEM: ("RLIMIT_AS", 1024, "raise `ulimit -v`, in KiB; in a unit of systemd write LimitAS= and MemoryMax="),
}
"""The limit, its unit as `ulimit` shows it, and the cure."""
_OF_THE_LOADER = {
    "failed to map segment": errno.ENOMEM,
    os.strerror(errno.ENOMEM): errno.ENOMEM,
    os.strerror(errno.EMFILE): errno.EMFILE,
    os.strerror(errno.ENFILE): errno.ENFILE,
}
"""What the dynamic loader says of a module that it cannot load: the number of the error is lost."""


def words(error: BaseException | None) -> str:
    """What was refused, by which limit, and what to write instead; empty where `error` is about something else."""
    number = _number(error)
    return process_words(number) if number not in (0, errno.EAGAIN) else ""  # EAGAIN may come from a pipe as well


def process_words(number: int) -> str:
    """The same for the number of an error, that of a process that could not be started: EAGAIN is about processes then."""
    if number not in _LIMITS:
        return ""
    name, unit, cure = _LIMITS[number]
    what = "no more processes" if number == errno.EAGAIN else os.strerror(number).lower()
    return f"the system refuses what the run itself needs: {what}{_allowed(name, unit)}: {cure}"


def _number(error: BaseException | None) -> int:
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, ImportError):
        text = str(error)
        return next((number for part, number in _OF_THE_LOADER.items() if part in text), 0)
    number = error.errno if isinstance(error, OSError) else None
    return number if number in _LIMITS else 0


def _allowed(name: str, unit: int) -> str:
    """The limit where there is one. Nothing is said of it where that cannot be asked: few things can be loaded now."""
    try:
        import resource

        soft = resource.getrlimit(getattr(resource, name))[0] if name else resource.RLIM_INFINITY
    except (ImportError, AttributeError, OSError, MemoryError):
        return ""
    return "" if soft == resource.RLIM_INFINITY else f" (the limit is {soft // unit})"
