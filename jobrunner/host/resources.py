"""What an attempt may use of the machine: memory and niceness, taken on by the host of one attempt."""

from __future__ import annotations

import contextlib
import os
import resource
import sys

from jobrunner.structs import replace
from jobrunner.typed import Any
from jobrunner.work import Call, Error, Outcome, Resources, Result, describe, resolve, run

MAX_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage(2): kilobytes on Linux, bytes on macOS


def take_on(resources: Resources) -> None:
    """Limit this process; on its CPUs it is already. Raises OSError, which says what cannot be had."""
    if resources.nice is not None:
        _be_nice(resources.nice)
    if resources.memory is not None:
        _take_memory(resources.memory)


def _be_nice(nice: int) -> None:
    try:
        os.nice(nice)
    except OSError as error:
        raise type(error)(f"resources: nice {nice}: {error.strerror}") from None
    # Where the system weighs whole sessions (sched(7), autogroup), niceness counts only within one: so this one gets it too.
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "wb", buffering=0) as file:
        file.write(b"%d" % nice)


def _take_memory(limit: int) -> None:
    """The limit that can be lifted again: else a process that is out of memory could not tell so."""
    taken = _data_size()
    if limit <= taken:
        raise OSError(f"resources: memory {_mebibytes(limit)} is less than the {_mebibytes(taken)} that Python itself has taken")
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _data_size() -> int:
    """Bytes that count for RLIMIT_DATA, and the stack; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.readall().split()[5]) * resource.getpagesize()
    except OSError:
        return 0


_shortages: list[Error] = []
_ALL_BUT = 1 << 20
"""Bytes below the limit of which Python, which takes them in such pieces, may have found nothing left."""


def run_limited(call: Call, limit: int) -> Result:
    """`work.run`; where memory was out, that is the error."""
    target = f"{__name__}:{within_limit.__name__}"
    try:
        result = run(replace(call, target=target, args=[call.target, *call.args]))
    except MemoryError as error:  # nothing was left for its report
        result = Result(id=call.id, outcome=Outcome.FAILED, error=describe(error))
    _lift_memory_limit()
    shortage = _shortages.pop() if _shortages else _as_libraries_say(result.error)
    if result.error is None or shortage is None:
        return result
    message = out_of_memory(limit, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAX_RSS_UNIT)
    return replace(result, error=replace(shortage, type="OutOfMemory", message=message))


def _as_libraries_say(error: Error | None) -> Error | None:
    """The error, if by its name it is a want of memory."""
    return error if error is not None and error.type.endswith("MemoryError") else None


def within_limit(target: str, *args: Any, **kwargs: Any) -> Any:
    """Call the target; a want of memory is described before it goes on, and without the limit: that takes memory."""
    try:
        return resolve(target)(*args, **kwargs)
    except (MemoryError, SystemError) as error:  # the second where Python (3.12) has no room for the first
        limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
        _lift_memory_limit()
        if isinstance(error, MemoryError) or _data_size() > limit - _ALL_BUT:
            _shortages.append(describe(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)))
        raise


def _lift_memory_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def out_of_memory(limit: int | None, peak: int | None) -> str:
    """`out of memory (limit 512 MiB, peak 498 MiB)`, of which what is not known is left out.

    A peak far below the limit was no want of memory: one large allocation was, and had no part in the peak.
    """
    if limit and peak and 2 * peak < limit:
        return f"out of memory (limit {_mebibytes(limit)}; an allocation was refused)"
    figures = ", ".join(f"{name} {_mebibytes(size)}" for name, size in (("limit", limit), ("peak", peak)) if size)
    return f"out of memory ({figures})" if figures else "out of memory"


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
