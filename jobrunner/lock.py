"""Who may run: one run of a job at a time, and one of its group.

STATE/JOB/lock, and STATE/GROUP/lock where the group has another name: a job alone is its own group. The lock is flock(2), which
goes with the last process that holds it, however that ends, so a killed run leaves nothing to clean up. The file is never
removed. What is written in it tells who holds it, and is believed only as far as that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import signal
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from jobrunner import trust
from jobrunner.errors import JobrunnerError, StateError, UnsafeError
from jobrunner.stream import timestamp
from jobrunner.structs import defaults, replace, struct, values
from jobrunner.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from jobrunner.spec import Concurrency

REPLACED_WITHIN = 60.0
"""Seconds that a run which is to be replaced has for its end, where the job does not say."""

_PATIENCE = 2.0  # with a holder that has not said yet who it is: it does so within milliseconds of taking the lock
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_LONGEST_TEXT = 1 << 16
_START_TIME = 19  # of /proc/PID/stat, counted after the command's ")": field 22 of proc(5)


@struct
class Holder:
    """Who holds a lock, as it said itself: `since` is RFC 3339 in UTC, `file` the absolute path of its job file.

    `run_id` is empty until it has one. `started`, clock ticks after the boot, tells its process from a later one of that number.
    """

    pid: int
    run_id: str
    since: str
    file: str
    job: str
    started: int = 0

    def __str__(self) -> str:
        if not self.pid:
            return "who it is, is not known"
        run = f"run {self.run_id}" if self.run_id else "not started yet"
        return f"pid {self.pid}, {run}, since {self.since}, job file {self.file}"

    @property
    def is_alive(self) -> bool:
        """Whether that very process is there, in the sight of this one."""
        return self.started > 0 and _start_time(self.pid) == self.started


UNKNOWN = Holder(pid=0, run_id="", since="", file="", job="")


class BusyError(JobrunnerError):
    """Another run of the job or of its group is under way; nothing ran."""

    exit_code = 75

    def __init__(self, message: str, holder: Holder) -> None:
        super().__init__(message)
        self.holder = holder


class Claim:
    """The right to run, until it is closed and every process that shares `fds` has closed them too."""

    def __init__(self, locks: Sequence[_Lock]) -> None:
        self._locks = locks

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def fds(self) -> tuple[int, ...]:
        """The open lock files. A duplicate of each, in whatever process, holds the locks as well."""
        return tuple(lock.fd for lock in self._locks)

    def tell(self, holder: Holder) -> None:
        """Write who holds the locks, for whoever finds them busy. Never raises: a full disk makes it unknown."""
        for lock in self._locks:
            lock.tell(holder)

    def close(self) -> None:
        """Give the locks back. Closing twice changes nothing."""
        for lock in self._locks:
            lock.clear()
            lock.close()


def claim(
    state: Path,
    job: str,
    rule: Concurrency,
    *,
    on_busy: Callable[[Holder, str], None],
    file: str | os.PathLike[str] = "",
    pause: Callable[[float], None] = time.sleep,
) -> Claim | None:
    """Take the locks of a job and of its group. None: `on_conflict` is skip, and another run is under way.

    `on_busy(holder, name of the job or group)` is called before a wait begins or None is returned. `file` is the job file,
    by which a second one with the same name is told. `pause` lets so many seconds pass while it waits; what it raises ends the
    wait. Raises BusyError, StateError, UnsafeError. What ends a wait early is the
    default action of a signal: call this while none is handled.
    """
    trust.make_directory(state)
    trust.refuse_network(state)
    us = Holder(pid=os.getpid(), run_id="", since=timestamp(time.time()), file=os.path.abspath(file) if file else "", job=job)
    request = _Request(us=us, rule=rule, until=_until(rule), on_busy=on_busy, pause=pause)
    locks = [_Lock(state / name) for name in sorted({job, rule.group or job})]  # in one order for all: no two wait for each other
    with contextlib.ExitStack() as undo:
        for lock in locks:
            undo.callback(lock.close)
            if not _take(lock, request):
                return None
        undo.pop_all()
    return Claim(locks)


# --- one lock -----------------------------------------------------------------------------------------------------------------


class _Lock:
    """One lock file; it is ours from when `take` says so."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.fd = -1
        self._folder = folder

    def take(self, us: Holder) -> bool:
        """Whether it is ours now. Never waits. Raises StateError, UnsafeError."""
        while True:
            if self.fd < 0:
                self.fd = _opened(self._folder)
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            except OSError as error:
                raise StateError(f"cannot lock {self._folder / 'lock'}: {error.strerror}; set JOBRUNNER_STATE") from None
            if self._is_in_place():
                self.tell(us)  # at once: what stands there is of a run that was killed
                return True
            self.close()  # somebody has removed it meanwhile: what others find at this path is another file

    def holder(self) -> Holder:
        """Who says that it holds the lock; UNKNOWN where nothing, or nothing legible, is written."""
        try:
            return _holder(json.loads(os.pread(self.fd, _LONGEST_TEXT, 0)))
        except (OSError, ValueError, RecursionError):
            return UNKNOWN

    def tell(self, holder: Holder) -> None:
        told = replace(holder, file=_shown(holder.file), started=holder.started or _start_time(holder.pid))
        self.clear()
        with contextlib.suppress(OSError):
            os.pwrite(self.fd, json.dumps(values(told)).encode() + b"\n", 0)

    def clear(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, 0)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self.fd), os.lstat(self._folder / "lock"))
        except FileNotFoundError:
            return False


def _holder(told: object) -> Holder:
    """Who a lock file says it is. Raises ValueError where that is nobody."""
    known = {name: told[name] for name in defaults(Holder) if name in told} if isinstance(told, dict) else {}
    if {name: type(value) for name, value in {"started": 0, **known}.items()} != _KINDS:
        raise ValueError("no holder")
    return Holder(**known)


_KINDS = {name: type(value) for name, value in values(UNKNOWN).items()}


def _opened(folder: Path) -> int:
    """The lock file of a job or group, made if need be, for its owner alone: who can open a file can lock it."""
    trust.make_directory(folder)
    path = folder / "lock"
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # or a FIFO there would stop us
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafeError(f"{path} is a symlink: remove it") from None
        raise StateError(f"cannot lock {path}: {error.strerror}; set JOBRUNNER_STATE") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnsafeError(f"{path} is not a regular file: remove it")
    with contextlib.suppress(OSError):
        os.fchmod(fd, 0o600)
    return fd


# --- what is done when it is busy ---------------------------------------------------------------------------------------------


@struct
class _Request:
    """What one claim asks for; `until` is a reading of time.monotonic, for all its waiting together."""

    us: Holder
    rule: Concurrency
    until: float
    on_busy: Callable[[Holder, str], None]
    pause: Callable[[float], None]


def _until(rule: Concurrency) -> float:
    unsaid = REPLACED_WITHIN if rule.on_conflict == "replace" else math.inf
    return time.monotonic() + (unsaid if rule.wait is None else rule.wait)


def _take(lock: _Lock, request: _Request) -> bool:
    """Take a lock as the rule has it; False: it is to be skipped."""
    if lock.take(request.us) or (holder := _named(lock, request)) is None:
        return True
    if request.rule.on_conflict == "fail":
        raise BusyError(_told(lock, holder, request), holder)
    if request.rule.on_conflict != "skip" and _waits_for_us(holder, request.rule):
        raise BusyError(f"{lock.name} is held by the run that started this one, which would wait for itself ({holder})", holder)
    request.on_busy(holder, lock.name)
    if request.rule.on_conflict == "skip":
        return False
    _wait(lock, request)
    return True


def _named(lock: _Lock, request: _Request) -> Holder | None:
    """Who has the lock, once it has said so; None: it has just become ours."""
    until = time.monotonic() + _PATIENCE
    while True:
        holder = lock.holder()
        if (holder.is_alive and holder.run_id) or time.monotonic() >= until:
            return holder
        request.pause(_FIRST_PAUSE)
        if lock.take(request.us):
            return None


def _waits_for_us(holder: Holder, rule: Concurrency) -> bool:
    """A task that starts its own job would wait for ever; a thread that replaces another would stop its own process."""
    runs = os.environ.get("JOBRUNNER_RUNS", "").split(":")
    return (holder.run_id in runs and holder.run_id != "") or (rule.on_conflict == "replace" and holder.pid == os.getpid())


def _wait(lock: _Lock, request: _Request) -> None:
    """Until the lock is ours. Whoever holds it is asked to stop, each once, where the rule is to replace it."""
    pause = _FIRST_PAUSE
    asked: set[tuple[int, int]] = set()
    while True:
        holder = lock.holder()
        if request.rule.on_conflict == "replace" and (holder.pid, holder.started) not in asked and _ask_to_stop(lock, holder):
            asked.add((holder.pid, holder.started))
        left = request.until - time.monotonic()
        if left <= 0:
            raise BusyError(_told(lock, holder, request), holder)
        request.pause(min(pause, left))
        if lock.take(request.us):
            return
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _ask_to_stop(lock: _Lock, holder: Holder) -> bool:
    """TERM to the process that holds the lock, and to no other that has got its number meanwhile. False: it is not there."""
    try:
        process = os.pidfd_open(holder.pid)
    except (OSError, OverflowError, AttributeError):  # gone, never a number, no Linux
        return False
    try:
        if not holder.is_alive or lock.holder().pid != holder.pid:
            return False
        signal.pidfd_send_signal(process, signal.SIGTERM)
    except OSError:
        return False
    finally:
        os.close(process)
    return True


def _told(lock: _Lock, holder: Holder, request: _Request) -> str:
    """What a person reads: who is in the way, and what to do about it."""
    us, rule = request.us, request.rule
    if lock.name == us.job:
        head = f"{us.job} is already running ({holder})"
    else:
        head = f"{us.job} may not run now: group {lock.name} is held by {holder.job or 'a run'} ({holder})"
    if holder.job == us.job and holder.file and us.file and _real(holder.file) != _real(us.file):
        return f"{head}. That is another job file: two of them share the name {us.job}; give one of them another `name`"
    if rule.on_conflict == "fail":
        return f"{head}. To wait for its end instead: `concurrency: {{on_conflict: wait}}`"
    waited = REPLACED_WITHIN if rule.wait is None else rule.wait
    return f"{head}. It has not ended within {waited:g} s; a longer `wait` in `concurrency` gives it more time"


def _start_time(pid: int) -> int:
    """When a process started, in clock ticks after the boot; 0 where there is none, or no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the command may hold anything, even ")"
        return 0 if fields[0] in (b"Z", b"X") else int(fields[_START_TIME])
    except (OSError, IndexError):
        return 0


def _real(path: str) -> str:
    return _shown(os.path.realpath(path))


def _shown(path: str) -> str:
    """A path as JSON can hold it: bytes that are no UTF-8 are written as escapes."""
    return path.encode("utf-8", "backslashreplace").decode()
