"""Limits of the whole machine: slots that all jobs of a state directory share, as locked files.

Slot 3 of the limit `api` is DIRECTORY/api.3, and whoever has locked it (flock) holds it: a lock goes with its process, however
that ends, so a killed run leaves nothing to clean up. No file is ever removed. Two jobs that give a limit different numbers
of slots share those with the lower numbers.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from jobrunner import trust
from jobrunner.errors import JobrunnerError, StateError, UnsafeError

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # or a FIFO there would stop us
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOLCK, errno.ENOMEM)
_LONGEST_TEXT = 200
_NAMED = re.compile(rb"pid ([1-9]\d{0,8})\b")


class Slots:
    """What one process holds of the machine's limits. `job` is what others are told about it.

    Nobody waits here, so nothing can be deadlocked: `take` gives all or nothing at once. Whoever got nothing asks again every
    so often, best after a pause of random length, since two that want more than half may both come away with nothing. Between
    processes there is no queue: who asks first after a slot was given back has it, and one that wants many slots may wait as
    long as others, who want few, keep taking them.

    A forked child shares a lock until it closes its copy. `give` unlocks for all of them; if this process is killed, its slots
    are free when its children have closed theirs or have ended too. Hosts close them before anything else and die with the
    engine, commands never get them: so only what a program that calls `jobrunner.run()` has forked itself can hold them longer.

    Raises StateError where the directory cannot be used, UnsafeError where others may write to it.
    """

    def __init__(self, directory: Path, *, job: str = "") -> None:
        trust.make_directory(directory)
        self._directory = directory
        self._told = f"pid {os.getpid()}{f' ({job})' if job else ''}".encode("utf-8", "backslashreplace")[:_LONGEST_TEXT]
        self._held: dict[str, dict[int, int]] = {}

    def take(self, name: str, slots: int, count: int) -> bool:
        """Take `count` of the limit's `slots`, besides those held already: all of them, or none and False. Never waits.

        Raises ValueError where there are not so many; StateError, UnsafeError.
        """
        if count > slots:
            raise ValueError(f"{count} of {slots} slots of {name}")
        held = self._held.setdefault(name, {})
        taken: dict[int, int] = {}
        with contextlib.ExitStack() as undo:
            undo.callback(_give_back, taken)
            for number in range(slots):
                if len(taken) < count and number not in held and (fd := self._locked(self._path(name, number))) is not None:
                    taken[number] = fd
            if len(taken) < count:
                return False
            undo.pop_all()
        for fd in taken.values():
            self._tell(fd)
        held.update(taken)
        return True

    def give(self, name: str, count: int) -> None:
        """Give `count` of the slots that are held back; the highest first, which are of use to the fewest."""
        held = self._held.get(name, {})
        _give_back({number: held.pop(number) for number in sorted(held, reverse=True)[:count]})

    def close(self) -> None:
        """Give all back. Closing twice changes nothing."""
        for name, held in self._held.items():
            self.give(name, len(held))

    def holders(self, name: str) -> list[str]:
        """Who holds slots of a limit, as they said themselves, one text a slot: for messages, and believed only that far."""
        found = []
        for path in sorted(self._directory.glob(f"{name}.*"), key=_number):
            with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
                if _is_alive(text := file.read(_LONGEST_TEXT) or b""):
                    found.append(text.decode("utf-8", "replace"))
        return found

    def _path(self, name: str, number: int) -> Path:
        return self._directory / f"{name}.{number}"

    def _locked(self, path: Path) -> int | None:
        """A descriptor of this slot, locked; None where somebody else has it, or there is no room for one more."""
        try:
            fd = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            if error.errno in _NO_ROOM:
                return None
            raise _refusal(path, error) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.lstat(path)):
                return fd
        except (BlockingIOError, FileNotFoundError):  # somebody else's; or somebody has removed it: at this path is another one
            pass
        except OSError as error:
            os.close(fd)
            raise _refusal(path, error) from None
        os.close(fd)
        return None

    def _tell(self, fd: int) -> None:
        """Whoever held it last was killed, or has left nothing here. On a full disk it stays unknown."""
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, self._told, 0)


def _give_back(held: dict[int, int]) -> None:
    """Unlocked, not only closed: a child that was forked just now may not have closed its copies yet."""
    for fd in held.values():
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def _refusal(path: Path, error: OSError) -> JobrunnerError:
    if error.errno == errno.ELOOP:
        return UnsafeError(f"{path} is a symlink: remove it")
    return StateError(f"cannot lock {path}: {error.strerror}; set JOBRUNNER_STATE")


def _number(path: Path) -> int:
    return int(number) if (number := path.suffix[1:]).isdecimal() else -1


def _is_alive(text: bytes) -> bool:
    """Whether the process is there that a slot's holder has named."""
    if not (named := _NAMED.match(text)):
        return False
    try:
        os.kill(int(named[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class HostLimits:
    """The limits of a job that it shares with all jobs of the machine, as the plan asks for their slots.

    `counts` gives the slots of each by name. `tell(names, holders)` is called once for each wait that has lasted `PATIENCE`.
    """

    PATIENCE: ClassVar[float] = 5.0
    """Seconds."""

    def __init__(
        self,
        slots: Slots,
        counts: Mapping[str, int],
        *,
        tell: Callable[[list[str], list[str]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots, self._counts, self._tell, self._clock = slots, counts, tell, clock
        self._waiting_since: dict[str, float] = {}

    def take(self, wanted: Mapping[str, int]) -> bool:
        taken: dict[str, int] = {}
        for name, count in wanted.items():
            if not self._slots.take(name, self._counts[name], count):
                self.give(taken)
                self._wait_for(name)
                return False
            taken[name] = count
        for name in wanted:
            self._waiting_since.pop(name, None)
        return True

    def give(self, taken: Mapping[str, int]) -> None:
        for name, count in taken.items():
            self._slots.give(name, count)

    def _wait_for(self, name: str) -> None:
        now = self._clock()
        if now - self._waiting_since.setdefault(name, now) >= self.PATIENCE:
            self._waiting_since[name] = math.inf  # told
            self._tell([name], self._slots.holders(name))
