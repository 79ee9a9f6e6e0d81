"""Limits of commands: memory, niceness and CPUs, taken on before the program runs; and how an end for want of memory is told.

memory  RLIMIT_DATA, set by a program that becomes the command (prlimit, else sh), so that there is no moment without it
nice    nice(1) becomes the command; its session, which Linux weighs as a whole (sched(7), autogroup), gets the same
cpus    this process goes on the least used CPUs while it starts the command, which inherits them

What `memory` bounds, for each process of the command by itself: its private writable memory, as heap, anonymous mappings and
stacks of threads. Not bounded are the stack of the main thread, shared memory, mapped files and what the system caches. It
counts what was asked for, touched or not. An allocation beyond it fails in the process: nothing is killed.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from jobrunner.processes import Exit
from jobrunner.work import Error, Resources

KEPT_TAIL = 4096
"""Bytes at the end of the output in which the want of memory is looked for."""

_NAMED = (
    rb"(?i)memoryerror|bad_alloc|(can ?not|couldn't|could not|unable to|failed to) allocate|out ?of ?memory|memory exhausted"
    rb"|failed to map segment"
)
_NEAR = 0.9
_FAR = 0.5
_KILLED_IN_A_SHELL = 128 + signal.SIGKILL
_LIMITED_BY_SHELL = 'ulimit -d "$0" && exec "$@"'

_PAGE = resource.getpagesize()

_running: Counter[int] = Counter()
"""How many commands were put on each CPU. Of the whole process: CPUs are the machine's, whichever pool or run uses them."""


# --- how a command gets them ----------------------------------------------------------------------------------------------------


def limited(words: tuple[str, ...], resources: Resources | None) -> tuple[str, ...]:
    """What to start in place of `words`, whose first is the path of an executable file. Environment and folder stay as they are.

    Without prlimit(1) a shell sets the limit, and leaves out variables whose names it cannot take.
    """
    if resources is None:
        return words
    if resources.memory is not None:
        words = (*_limiter(_lowered(resources.memory)), *words)
    if resources.nice is not None:
        words = (_program("nice") or "nice", "-n", str(resources.nice), *words)
    return words


def are_set(resources: Resources | None) -> bool:
    """Whether `limited` changes anything: another program starts the command then."""
    return resources is not None and (resources.memory is not None or resources.nice is not None)


def _limiter(size: int) -> tuple[str, ...]:
    if prlimit := _program("prlimit"):
        return (prlimit, f"--data={size}:{size}", "--")
    return ("/bin/sh", "-c", _LIMITED_BY_SHELL, str(-(-size >> 10)))


def _lowered(size: int) -> int:
    """A limit that we are under ourselves cannot be raised."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    return size if hard == resource.RLIM_INFINITY else min(size, hard)


@cache
def _program(name: str) -> str | None:
    import shutil

    return shutil.which(name, path=os.defpath)


def weigh_session(pid: int, nice: int) -> None:
    """Niceness counts only within a session where the system weighs whole sessions: so the one that `pid` leads gets it too."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/autogroup", "wb", buffering=0) as file:
        file.write(b"%d" % nice)


def take_cpus(count: int | None) -> frozenset[int]:
    """So many of our CPUs, those with the fewest commands put on them; all that there are, at most. None: no choice is made."""
    if count is None:
        return frozenset()
    chosen = frozenset(sorted(os.sched_getaffinity(0), key=lambda cpu: (_running[cpu], cpu))[:count])
    _running.update(chosen)
    return chosen


def give_cpus_back(cpus: Iterable[int]) -> None:
    _running.subtract(cpus)


@contextlib.contextmanager
def on_cpus(cpus: frozenset[int]) -> Iterator[None]:
    """This thread is on `cpus`, and what it starts inherits them; afterwards it is where it was."""
    if not cpus:
        yield
        return
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def put_on(pid: int, cpus: frozenset[int]) -> None:
    """A child that was not reaped yet, which somebody else than this thread has started."""
    if cpus:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(pid, cpus)


# --- how its end is told --------------------------------------------------------------------------------------------------------


def out_of_memory(exit: Exit, limit: int | None, peak: int | None, tail: bytes, *, by_kernel: bool) -> Error | None:
    """Why a command failed, if it was for want of memory. `limit` and `peak` in bytes, `tail` is the end of what it wrote."""
    if exit.code == 0:
        return None
    reached = f", peak {_mebibytes(peak)}" if peak is not None else ""
    if by_kernel:
        told = f"killed by the kernel{reached}"
    elif limit is not None and (re.search(_NAMED, tail) or (peak is not None and peak >= _NEAR * limit)):
        # A peak far below it was no want of memory: one large allocation was, and had no part in the peak.
        is_far = peak is not None and peak < _FAR * limit
        told = f"limit {_mebibytes(limit)}{'; an allocation was refused' if is_far else reached}"
    else:
        return None
    return Error(type="OutOfMemory", message=f"out of memory ({told})")


def may_be_kernels(exit: Exit) -> bool:
    """Whether it ended as the kernel ends a process when memory has run out: SIGKILL, also as a shell tells it of its child."""
    return exit.signal == signal.SIGKILL or exit.code == _KILLED_IN_A_SHELL


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.{0 if size >= 10 << 20 else 1}f} MiB"


class KernelKills:
    """Processes that the kernel has killed for want of memory since this was made: where we are, by our cgroup's own count."""

    def __init__(self, files: Iterable[Path] | None = None) -> None:
        self._files = tuple(_counters() if files is None else files)
        self._seen = self._count()

    def take_one(self) -> bool:
        """Whether there is one that nobody was told of yet. Each explains one end, so that a later SIGKILL is not laid on it."""
        if self._count() <= self._seen:
            return False
        self._seen += 1
        return True

    def _count(self) -> int:
        """From the first file that tells: `oom_kill 3` is a line of it. 0 where none does."""
        for file in self._files:
            with contextlib.suppress(OSError):
                _, found, rest = f"\n{file.read_text()}".partition("\noom_kill ")
                if found:
                    return int(rest.partition("\n")[0])
        return 0


def _counters() -> Iterator[Path]:
    """Where the count may be: our cgroup in version 2 or 1, as seen from outside or inside of a container, else the machine's."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _in_and_out("/sys/fs/cgroup", path, "memory.events")
            elif "memory" in controllers.split(","):
                yield from _in_and_out("/sys/fs/cgroup/memory", path, "memory.oom_control")
    yield Path("/proc/vmstat")


def _in_and_out(mount: str, path: str, name: str) -> Iterator[Path]:
    yield Path(mount + path) / name
    yield Path(mount) / name


def resident() -> int:
    """Bytes that this process has in memory; 0 where the system does not say."""
    with contextlib.suppress(OSError), open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.readall().split()[1]) * _PAGE
    return 0
