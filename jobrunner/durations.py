"""How long tasks took in earlier runs, so that the next one can begin with what takes longest: STATE/JOB/durations.json.

    task.finished ─▶ Durations (a sink) ─▶ at the end of the run: merged with what is known, and put in place at once
                                              the next run: read, once, where there is a choice of what to start ─▶ plan.ranks

Derived from what happened, and never needed: a file that is gone, damaged, too large or not ours is as good as none, and one that
cannot be written is left out. A run without it takes ready work in declared order.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from jobrunner.encoding import exact_dumps, loads
from jobrunner.events import TaskFinished
from jobrunner.stream import Ran, Row, Rows, Stamped
from jobrunner.structs import field, struct
from jobrunner.typed import Any

NAME = "durations.json"
MOST_ITEMS = 2_000
"""Of a fan-out with more items no item is known by itself: where there are many, none of them matters much."""
MOST_TASKS = 100_000
LARGEST = 16 << 20
"""Bytes of the file."""
WORTH = 1.0
"""Seconds that a run, and its tasks together, must last for their durations to be kept: below that no order saves anything."""
_VERSION = 1
_BEYOND = 1 << 63
"""No time and no peak is that: with larger numbers there would be no reckoning."""
_RUNS = 3
"""Each run counts for a third at least, so that a task that has become slower is known as such after few runs."""


@struct
class Known:
    """What is known of a task: seconds, the mean of its instances over `runs`; the peak of its memory in bytes; seconds by item.

    Empty `items` say nothing: it has none, or too many.
    """

    seconds: float
    runs: int = 1
    peak: int | None = None
    items: Mapping[str, float] = field(default_factory=dict)


@struct(frozen=False, eq=False)
class _Sum:
    count: int = 0
    seconds: float = 0.0
    peak: int | None = None
    items: dict[str, float] | None = None


class Durations:
    """A sink that adds up what succeeded: sums by task, whatever the number of items."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sum] = {}

    takes_rows = True

    def __call__(self, stamped: Stamped) -> None:
        self.take((stamped,))

    def take(self, batch: Rows) -> None:
        for stamped in batch:
            if isinstance(stamped, Row):
                for ran in stamped.runs:
                    self._add(ran)
            elif type(event := stamped.event) is TaskFinished and event.outcome == "succeeded":
                self._add(event)

    def _add(self, event: TaskFinished | Ran) -> None:
        found = self._sums.get(event.task)
        if found is None:
            found = self._sums[event.task] = _Sum()
        found.count += 1
        found.seconds += event.duration
        if event.max_rss is not None and event.max_rss > (found.peak or 0):
            found.peak = event.max_rss
        if found.count <= MOST_ITEMS:
            _add_item(found, event)
        else:
            found.items = None

    def merged(self, before: Mapping[str, Known], tasks: Collection[str]) -> dict[str, Known]:
        """What is known after this run, of `tasks` alone: others have left the job."""
        found = {name: known for name, known in before.items() if name in tasks}
        for name, each in self._sums.items():
            found[name] = _merged(found.get(name), each)
        return found


def _add_item(found: _Sum, event: TaskFinished | Ran) -> None:
    if event.item is None:
        found.items = None
    elif found.items is None:
        found.items = {event.item: event.duration}
    else:
        found.items[event.item] = event.duration


def _merged(before: Known | None, now: _Sum) -> Known:
    """A moving mean. Of a fan-out the items of this run, and those of the one before that did not run now."""
    seconds = now.seconds / now.count
    if before is None:
        return Known(seconds=seconds, peak=now.peak, items=now.items or {})
    share = 1 / min(before.runs + 1, _RUNS)
    items = {key: _moved(before.items.get(key, each), each, share) for key, each in (now.items or {}).items()}
    rest = {key: each for key, each in before.items.items() if key not in items} if items else {}
    return Known(
        seconds=_moved(before.seconds, seconds, share),
        runs=min(before.runs + 1, _RUNS),
        peak=_peak(before.peak, now.peak, share),
        items=items if len(items) + len(rest) > MOST_ITEMS else items | rest,
    )


def _peak(before: int | None, now: int | None, share: float) -> int | None:
    """It rises at once, since too little is worse than too much, and falls as a mean does."""
    if before is None or now is None:
        return before if now is None else now
    return max(now, round(_moved(before, now, share)))


def _moved(before: float, now: float, share: float) -> float:
    return before + (now - before) * share


# --- the file -------------------------------------------------------------------------------------------------------------------


def read(folder: Path) -> dict[str, Known]:
    """What is known in the directory of a job; nothing where that cannot be read or believed. Never raises."""
    try:
        document = loads(_content(folder / NAME))
        tasks = document["tasks"] if document["version"] == _VERSION else {}
        return {name: known for name, each in tasks.items() if (known := _known(each)) is not None}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _content(path: Path) -> bytes:
    """Of a file that only we can have written. Raises OSError, ValueError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)  # or a FIFO there would stop us
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise ValueError("not a file of our own")
        if found.st_size > LARGEST:
            raise ValueError("too large")
        return os.read(fd, LARGEST)
    finally:
        os.close(fd)


def _known(entry: Any) -> Known | None:
    """One entry; None where it is not as we write them."""
    seconds, runs, peak, items = entry.get("seconds"), entry.get("runs"), entry.get("peak"), entry.get("items", {})
    is_whole = type(runs) is int and runs > 0 and (peak is None or (type(peak) is int and 0 <= peak < _BEYOND))
    if not (_is_time(seconds) and is_whole and type(items) is dict and all(map(_is_time, items.values()))):
        return None
    return Known(seconds=float(seconds), runs=runs, peak=peak, items=items)


def _is_time(value: object) -> bool:
    return type(value) in (float, int) and 0 <= value < _BEYOND  # type: ignore[operator]  # NaN is not, either


def write(folder: Path, known: Mapping[str, Known], *, by_way_of: Path) -> None:
    """Put it in place at once: a reader finds the old or the new. `by_way_of` is a directory beside it of this run alone.

    Not synced: after a loss of power it may be damaged, and then counts for nothing. What is too much, or cannot be written, is
    left out. Raises nothing for it.
    """
    if len(known) > MOST_TASKS:
        return
    new = by_way_of / NAME
    try:
        data = exact_dumps({"version": _VERSION, "tasks": {name: _entry(each) for name, each in known.items()}})
        if len(data) <= LARGEST:
            with open(new, "wb", opener=_private) as file:
                file.write(data)
            os.rename(new, folder / NAME)
    except (OSError, TypeError):  # no room; or an item's key that is no Unicode
        with contextlib.suppress(OSError):
            new.unlink()


def _entry(each: Known) -> dict[str, Any]:
    entry: dict[str, Any] = {"seconds": round(each.seconds, 4), "runs": each.runs}
    if each.peak is not None:
        entry["peak"] = each.peak
    if each.items:
        entry["items"] = {key: round(seconds, 4) for key, seconds in each.items.items()}
    return entry


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
