"""The stream of events: each gets its number, its time and its form as JSON once, and goes to every sink in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import floor
from operator import attrgetter

from jobrunner.encoding import dumps
from jobrunner.events import Event, TaskFinished, TaskOutput, TaskStarted
from jobrunner.structs import defaults, struct
from jobrunner.typed import Any, TypeAlias


@struct(frozen=False, kw_only=False)
class Stamped:
    """An event with its place in the run: `seq` counts from 1 (0: before there is a run), `ts` is UTC in RFC 3339.

    Output is not part of the log and has no number of its own: it carries that of the event before it.
    """

    seq: int
    ts: str
    run_id: str
    job: str
    event: Event
    encoded: bytes | None = None

    def fields(self) -> bytes:
        """The event's own fields as JSON, without the braces around them: encoded once, whoever asks."""
        if self.encoded is None:
            self.encoded = _fields(self.event)
        return self.encoded


@lru_cache(maxsize=2)
def place(run_id: str, job: str) -> bytes:
    """What all events of a run share, as JSON without the braces around it."""
    return dumps({"run_id": run_id, "job": job})[1:-1]


Sink: TypeAlias = Callable[[Stamped], None]
"""Takes one event after the other. One that has a `take` gets there all that is told at once."""
Batch: TypeAlias = Sequence[Stamped]
"""What is told at once, in the order in which it happened."""


@struct(kw_only=False, eq=False)
class Together:
    """A sink that takes what is told at once in one call."""

    take: Callable[[Batch], None]

    def __call__(self, stamped: Stamped) -> None:
        self.take((stamped,))


class Stream:
    """Numbers the events of one run, from `seq` on, and gives each to every sink, in order.

    `add` only notes what has happened. `tell` hands over all that was noted since the last time, with one time for all of it;
    what a sink adds meanwhile is told next time.
    """

    def __init__(self, *, run_id: str, job: str, sinks: Sequence[Sink], now: Callable[[], float], seq: int = 0) -> None:
        self._run_id, self._job, self._now = run_id, job, now
        self._takers = [_taker(sink) for sink in sinks]
        self._seq = seq
        self._noted: list[Event] = []

    def add(self, event: Event) -> None:
        self._noted.append(event)

    def tell(self) -> None:
        if not self._noted:
            return
        noted, self._noted = self._noted, []
        batch = self._stamped(noted)
        for take in self._takers:
            take(batch)

    def emit(self, event: Event) -> None:
        """Add it, and tell."""
        self._noted.append(event)
        self.tell()

    def _stamped(self, noted: list[Event]) -> list[Stamped]:
        seq, ts, run_id, job = self._seq, timestamp(self._now()), self._run_id, self._job
        batch, writers = [], _WRITERS
        for event in noted:
            kind = type(event)
            if kind is TaskOutput:
                batch.append(Stamped(seq, ts, run_id, job, event))
            else:
                seq += 1
                batch.append(Stamped(seq, ts, run_id, job, event, writers.get(kind, _in_general)(event)))
        self._seq = seq
        return batch


def _taker(sink: Sink) -> Callable[[Batch], None]:
    def one_by_one(batch: Batch) -> None:
        for stamped in batch:
            sink(stamped)

    return getattr(sink, "take", one_by_one)


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with microseconds, for seconds since the epoch."""
    whole = floor(seconds)
    return "%s.%06dZ" % (_second(whole), (seconds - whole) * 1_000_000)  # noqa: UP031  # in half of the time of an f-string


@lru_cache(maxsize=1)
def _second(whole: int) -> str:
    """The part of a timestamp that thousands of events share."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))


def payload(event: Event) -> dict[str, Any]:
    """The event's own fields, without those that say nothing."""
    kind = type(event)
    return (_PAYLOADS.get(kind) or _payload_of(kind))(event)


_NOT_IN_THE_LOG = ("data",)
_PAYLOADS: dict[type, Callable[[Any], dict[str, Any]]] = {}


def logged(kind: type) -> dict[str, object]:
    """The fields that are written, with their defaults."""
    return {name: default for name, default in defaults(kind).items() if name not in _NOT_IN_THE_LOG}


def _payload_of(kind: type) -> Callable[[Any], dict[str, Any]]:
    """Made when the first event of its kind is written: most runs have a handful of kinds."""
    fields = logged(kind)
    names, standard = tuple(fields), tuple(fields.values())
    values_of: Callable[[Any], Any] = attrgetter(*names)

    def found(event: Any) -> dict[str, Any]:
        values = values_of(event) if len(names) > 1 else (values_of(event),)
        rows = zip(names, values, standard, strict=True)
        return {name: value for name, value, default in rows if value is not None and value is not default}

    _PAYLOADS[kind] = found
    return found


# Both events of an attempt are written out: there are as many of them as attempts, and this takes half of the time.


def _fields(event: Event) -> bytes:
    """The event's own fields as JSON, without the braces around them."""
    return _WRITERS.get(type(event), _in_general)(event)


def _in_general(event: Event) -> bytes:
    return dumps(payload(event))[1:-1]


def _of_attempt(event: TaskStarted | TaskFinished) -> dict[str, Any]:
    found: dict[str, Any] = {"task": event.task}
    if event.item is not None:
        found["item"] = event.item
    found["attempt"], found["mode"], found["worker"], found["pid"] = event.attempt, event.mode, event.worker, event.pid
    return found


def _of_started(event: TaskStarted) -> bytes:
    found = _of_attempt(event)
    if event.thread is not None:
        found["thread"] = event.thread
    if event.because is not None:
        found["because"] = event.because
    return dumps(found)[1:-1]


def _of_finished(event: TaskFinished) -> bytes:
    found = _of_attempt(event)
    found["outcome"], found["duration"] = event.outcome, event.duration
    if event.reason is not None:
        found["reason"] = event.reason
    if event.thread is not None:
        found["thread"] = event.thread
    if event.cpu is not None:
        found["cpu"] = event.cpu
    if event.max_rss is not None:
        found["max_rss"] = event.max_rss
    if event.exit_code is not None:
        found["exit_code"] = event.exit_code
    if event.signal is not None:
        found["signal"] = event.signal
    if event.error is not None:
        found["error"] = event.error
    if event.note is not None:
        found["note"] = event.note
    if event.output is not None:
        found["output"] = event.output
    if event.abandoned:
        found["abandoned"] = True
    if event.retried:
        found["retried"] = True
    if event.forgiven:
        found["forgiven"] = True
    if event.truncated:
        found["truncated"] = True
    if event.digest is not None:
        found["digest"] = event.digest
    return dumps(found)[1:-1]


_WRITERS: dict[type, Callable[[Any], bytes]] = {TaskStarted: _of_started, TaskFinished: _of_finished}
