"""The stream of events: each gets its number, its time and its form as JSON once, and goes to every sink in order.

add, add_all ─▶ noted ─record─▶ Stamped, one an event            ─▶ the first sinks ─tell─▶ the others
                                Row, many short attempts at once    to sinks that take no rows as events
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import floor
from operator import attrgetter

from jobrunner.encoding import dumps, exact_dumps
from jobrunner.events import Event, TaskFinished, TaskOutput, TaskStarted, WorkerJoined, WorkerStarted
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


@struct(frozen=False, kw_only=False)  # there are as many as attempts
class Ran:
    """An attempt that began and succeeded within one step of the engine, as most short ones do: both its events in one."""

    task: str
    item: str | None
    attempt: int
    mode: str
    worker: str
    pid: int
    thread: int | None
    duration: float
    cpu: float | None
    max_rss: int | None
    digest: str | None

    def events(self) -> tuple[TaskStarted, TaskFinished]:
        """The same as two events."""
        who = self.task, self.item, self.attempt, self.mode, self.worker, self.pid
        finished = TaskFinished(*who, _SUCCEEDED, self.duration, None, self.thread, self.cpu, self.max_rss)
        finished.digest = self.digest
        return TaskStarted(*who, self.thread), finished

    def logged(self) -> dict[str, Any]:
        """The fields of its end that say something, in their order; those of its begin are the first of them."""
        found = _of_attempt(self)
        found["outcome"], found["duration"] = _SUCCEEDED, self.duration
        if self.thread is not None:
            found["thread"] = self.thread
        if self.cpu is not None:
            found["cpu"] = self.cpu
        if self.max_rss is not None:
            found["max_rss"] = self.max_rss
        if self.digest is not None:
            found["digest"] = self.digest
        return found


def _fields_of(runs: list[Ran]) -> list[tuple[bytes, bytes]]:
    """The fields of both events of each as JSON: as `Stamped.fields` of each. All are encoded as one, if JSON can hold them."""
    logged = [ran.logged() for ran in runs]
    try:
        ends = exact_dumps(logged)[len(_FIRST) : -len(b"}]")].split(_NEXT)
    except (TypeError, ValueError):
        ends = [dumps(each)[len(_FIRST) - 1 : -1] for each in logged]
    found = []
    for ran, rest in zip(runs, ends, strict=True):
        end = _TASK + rest
        begin = end[: end.find(_OUTCOME)]
        found.append((begin if ran.thread is None else b'%b,"thread":%d' % (begin, ran.thread), end))
    return found


_SUCCEEDED = "succeeded"
_OUTCOME = b',"outcome":"succeeded","duration":'
"""Stands once in the fields of an end: within a text each of these quotes would have a backslash before it."""
_TASK = b'"task":'
_FIRST, _NEXT = b"[{" + _TASK, b"},{" + _TASK
"""What the fields of one end, of many in a list, stand behind; for the same reason it stands nowhere else."""


@struct(frozen=False, kw_only=False)
class Row:
    """Attempts that were told one after the other, as `Ran`: their events have the numbers from `seq` on, two each."""

    seq: int
    ts: str
    run_id: str
    job: str
    runs: list[Ran]
    fields: list[tuple[bytes, bytes]]
    """Of both events of each, as `Stamped.fields`."""

    def stamped(self) -> Iterator[Stamped]:
        """The same, one by one."""
        seq, ts, run_id, job = self.seq, self.ts, self.run_id, self.job
        for ran, (begin, end) in zip(self.runs, self.fields, strict=True):
            started, finished = ran.events()
            yield Stamped(seq, ts, run_id, job, started, begin)
            yield Stamped(seq + 1, ts, run_id, job, finished, end)
            seq += 2


@lru_cache(maxsize=2)
def place(run_id: str, job: str) -> bytes:
    """What all events of a run share, as JSON without the braces around it."""
    return dumps({"run_id": run_id, "job": job})[1:-1]


Sink: TypeAlias = Callable[[Stamped], None]
"""Takes one event after the other. One that has a `take` gets there all that is told at once; with `takes_rows`, as `Rows`."""
Batch: TypeAlias = Sequence[Stamped]
"""What is told at once, in the order in which it happened."""
Rows: TypeAlias = Sequence[Stamped | Row]
"""The same, with attempts in rows where there are any."""


@struct(kw_only=False, eq=False)
class Together:
    """A sink that takes what is told at once in one call."""

    take: Callable[[Any], None]
    takes_rows: bool = False

    def __call__(self, stamped: Stamped) -> None:
        self.take((stamped,))


class Stream:
    """Numbers the events of one run, from `seq` on, and gives each to every sink, in order.

    `add` only notes what has happened. `tell` hands over all that was noted since the last time, with one time for all of it;
    what a sink adds meanwhile is told next time. `record` hands it to `first` alone, and `tell` to the others, later.
    """

    def __init__(
        self,
        *,
        run_id: str,
        job: str,
        sinks: Sequence[Sink],
        now: Callable[[], float],
        first: Sequence[Sink] = (),
        seq: int = 0,
    ) -> None:
        self._run_id, self._job, self._now = run_id, job, now
        self._first, self._others = _takers(first), _takers(sinks)
        self._seq = seq
        self._noted: list[Event | Ran] = []
        self._recorded: list[Rows] = []
        """What only those that are first have got."""

    def add(self, event: Event) -> None:
        self._noted.append(event)

    def add_all(self, events: Sequence[Event | Ran]) -> None:
        self._noted.extend(events)

    def record(self) -> None:
        if self._noted:
            noted, self._noted = self._noted, []
            rows = self._stamped(noted)
            _give(rows, self._first)
            self._recorded.append(rows)

    def tell(self) -> None:
        self.record()
        recorded, self._recorded = self._recorded, []
        for rows in recorded:
            _give(rows, self._others)

    def emit(self, event: Event) -> None:
        """Add it, and tell."""
        self._noted.append(event)
        self.tell()

    def _stamped(self, noted: list[Event | Ran]) -> list[Stamped | Row]:
        seq, ts, run_id, job = self._seq, timestamp(self._now()), self._run_id, self._job
        batch: list[Stamped | Row] = []
        row: Row | None = None
        for event in noted:
            if isinstance(event, Ran):
                if row is None:
                    row = Row(seq + 1, ts, run_id, job, [], [])
                    batch.append(row)
                row.runs.append(event)
                seq += 2
                continue
            row = None
            if type(event) is TaskOutput:
                batch.append(Stamped(seq, ts, run_id, job, event))
            else:
                seq += 1
                batch.append(Stamped(seq, ts, run_id, job, event, _fields(event)))
        self._seq = seq
        for each in batch:
            if isinstance(each, Row):
                each.fields = _fields_of(each.runs)
        return batch


def in_turn(*sinks: Sink) -> Sink:
    """Sinks that write to one place, as one: where there is output, each gets an event before any of them gets the next."""
    takers = _takers(sinks)

    def take(rows: Rows) -> None:
        has_output = any(isinstance(each, Stamped) and type(each.event) is TaskOutput for each in rows)
        for some in [[each] for each in rows] if has_output else [rows]:
            _give(some, takers)

    return Together(take, takes_rows=True)


def unfolded(rows: Rows) -> Iterator[Stamped]:
    """One event after the other."""
    for each in rows:
        if isinstance(each, Row):
            yield from each.stamped()
        else:
            yield each


def _give(rows: Rows, takers: Sequence[tuple[Callable[[Any], None], bool]]) -> None:
    one_by_one: Batch | None = None
    for take, takes_rows in takers:
        if takes_rows:
            take(rows)
        else:
            one_by_one = list(unfolded(rows)) if one_by_one is None else one_by_one
            take(one_by_one)


def _takers(sinks: Sequence[Sink]) -> list[tuple[Callable[[Any], None], bool]]:
    return [(_taker(sink), getattr(sink, "takes_rows", False)) for sink in sinks]


def _taker(sink: Any) -> Callable[[Any], None]:
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


# Events of which there are as many as attempts are written out: this takes half of the time.


def _fields(event: Event) -> bytes:
    """The event's own fields as JSON, without the braces around them."""
    return _WRITERS.get(type(event), _in_general)(event)


def _in_general(event: Event) -> bytes:
    return dumps(payload(event))[1:-1]


def _of_attempt(event: TaskStarted | TaskFinished | Ran) -> dict[str, Any]:
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


def _of_worker(event: WorkerStarted | WorkerJoined) -> bytes:
    found: dict[str, Any] = {"worker": event.worker, "pool": event.pool, "mode": event.mode, "pid": event.pid}
    if isinstance(event, WorkerJoined):
        found["tasks"], found["lived"] = event.tasks, event.lived
    if event.thread is not None:
        found["thread"] = event.thread
    if isinstance(event, WorkerStarted):
        if event.preloaded:
            found["preloaded"] = True
        return dumps(found)[1:-1]
    if event.exit_code is not None:
        found["exit_code"] = event.exit_code
    if event.signal is not None:
        found["signal"] = event.signal
    return dumps(found)[1:-1]


_WRITERS: dict[type, Callable[[Any], bytes]] = {
    TaskStarted: _of_started,
    TaskFinished: _of_finished,
    WorkerStarted: _of_worker,
    WorkerJoined: _of_worker,
}
