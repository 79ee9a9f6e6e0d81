"""One process, measured from its start to its end: wall clock, CPU and peak memory; what it leaves behind is ended.

This process stays small and imports nothing heavy: on Linux a child's peak memory starts at what its parent had when it forked,
so that no figure can be under this process's own 16 MiB or so.
"""

from __future__ import annotations

import compileall
import functools
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from resource import struct_rusage

from benchmarks import leftovers

ROOT = Path(__file__).resolve().parent.parent
COMPILED = ("jobrunner", "benchmarks", "click", "orjson", "pydantic", "pydantic_core", "simpleeval", "structlog", "yaml")
UNSET = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPROFILEIMPORTTIME", "PYTHONDEVMODE")


class WorkNotDone(Exception):
    """A process ended without having done what it is measured for: its figure would mean nothing."""


Check = Callable[[str], str | None]
"""Gets what a process printed; gives what is wrong with it, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One process: seconds of wall clock, seconds of CPU of it and all it waited for, peak MiB of the largest of them."""

    wall: float
    cpu: float
    rss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a command line finds: its folder, its environment. It is killed when it takes more than `patience` seconds.

    `told` reads figures from what it printed: `wall` and `cpu` (seconds) and `rss` (MiB) stand in place of those of the whole
    process; 0 where there is no such figure.
    """

    folder: Path = ROOT
    env: Mapping[str, str] = field(default_factory=dict)
    patience: float = 900.0
    told: Callable[[str], Mapping[str, float]] | None = None


def environment() -> dict[str, str]:
    """The environment of measured processes: ours without what makes Python slower than users have it; they find this tree."""
    return {name: value for name, value in os.environ.items() if name not in UNSET} | {"PYTHONPATH": str(ROOT)}


def compile_all() -> None:
    """Compiles what measured processes import: a source that is compiled on import costs two to three times more."""
    for name in COMPILED:
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations or []) if spec else []:
            compileall.compile_dir(place, quiet=2)


def measure(argv: Sequence[str], *, scratch: Path, check: Check, at: Surroundings) -> Sample:
    """Runs one command line to its end, and ends whatever it leaves. Raises WorkNotDone where `check` finds something wrong,
    and where what it leaves cannot be ended."""
    out, err = scratch / "out", scratch / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:  # files: a pipe would make it wait for us
        try:
            wall, code, usage = _ended(argv, stdout.fileno(), stderr.fileno(), at)
        except TimeoutError as error:
            raise WorkNotDone(f"{' '.join(argv)}: {error}") from error
    printed = out.read_text(errors="replace")
    if wrong := f"exit code {code}" if code else _wrong(check, printed):
        raise WorkNotDone(f"{' '.join(argv)}: {wrong}\n{err.read_text(errors='replace')[-2000:]}".rstrip())
    told = at.told(printed) if at.told else {}
    return Sample(
        wall=told.get("wall", wall),
        cpu=told.get("cpu", usage.ru_utime + usage.ru_stime),
        rss=told.get("rss", usage.ru_maxrss / _MAXRSS_PER_MIB),
    )


def _wrong(check: Check, printed: str) -> str | None:
    """What is wrong with it: also that there is not what the check looks for, a file or a line."""
    try:
        return check(printed)
    except (OSError, ValueError, LookupError) as error:
        return f"nothing to check: {type(error).__name__}"


def _ended(argv: Sequence[str], out: int, err: int, at: Surroundings) -> tuple[float, int, struct_rusage]:
    """Seconds, exit code and use of resources. Nothing of it lives afterwards, also when this process is interrupted."""
    env = environment() | dict(at.env) | {leftovers.NAME: _mark()}
    with nothing_left():
        started = time.perf_counter()
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, cwd=at.folder, start_new_session=True
        )
        with _ended_after(at.patience, child.pid) as too_long:
            _wait_for(child.pid)
            wall = time.perf_counter() - started
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if too_long.is_set():
        raise WorkNotDone(f"{' '.join(argv)}: not done after {wall:.0f} s")
    return wall, child.returncode, usage


@contextmanager
def nothing_left() -> Iterator[None]:
    """Ends, after the block and however it ends, every process that a measured one has started, in whichever session it is."""
    try:
        yield
    finally:
        if Path("/proc/self/environ").exists():
            leftovers.end(_mark())


@contextmanager
def interruptible() -> Iterator[None]:
    """Signals that end this process raise SystemExit in the block, so that what it started is ended as well."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    heard = [each for each in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, stop) for each in heard}  # what nohup has set to be ignored stays so
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@functools.cache
def _mark() -> str:
    """What every process that is measured from here, and whatever comes of it, has in its environment."""
    return os.environ.get(leftovers.NAME) or f"benchmarks-{os.getpid()}-{time.time_ns()}"


def _wait_for(pid: int) -> None:
    """Until the process has ended. It is not reaped: its number is its own until nobody would kill it any more."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@contextmanager
def _ended_after(seconds: float, session: int) -> Iterator[threading.Event]:
    """Kills all of a session when it lives longer than that, and says so; also when the block is left by an exception.

    Its leader is to be reaped only after this block.
    """
    killed = threading.Event()

    def kill() -> None:
        killed.set()
        with suppress(ProcessLookupError):
            os.killpg(session, signal.SIGKILL)

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield killed
    except BaseException:
        kill()
        raise
    finally:
        timer.cancel()
        timer.join()


_MAXRSS_PER_MIB = 1024 * 1024 if sys.platform == "darwin" else 1024
