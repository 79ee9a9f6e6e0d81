"""What happened, in the past tense: the frozen events that every sink gets, and the stream that numbers them.

Fields that are None, or as their default has them, are left out of the log. `docs/events.md` explains each;
`schemas/event.schema.json` is made from these classes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from math import floor
from operator import attrgetter

from jobrunner.encoding import dumps
from jobrunner.structs import defaults, field, struct
from jobrunner.typed import Any, ClassVar, Literal, TypeAlias

Level: TypeAlias = Literal["info", "warning", "error"]


@struct
class RunStarted:
    """A run begins. `tasks` counts the tasks that were selected; `file` is the job file."""

    NAME: ClassVar[str] = "run.started"
    file: str
    run_dir: str
    pid: int
    tasks: int
    params: dict[str, Any]
    options: dict[str, Any]
    """What the caller asked for besides parameters: workers, mode, only, fail_fast."""


@struct
class RunResumed:
    """A run goes on: `attempt` counts from 2. `recorded` instances have ended for good, `in_flight` ran when the run was lost."""

    NAME: ClassVar[str] = "run.resumed"
    file: str
    run_dir: str
    pid: int
    tasks: int
    attempt: int
    recorded: int
    in_flight: int


@struct
class RunInterrupted:
    """The run is being stopped, by a signal or because its time is over: nothing new starts."""

    NAME: ClassVar[str] = "run.interrupted"
    reason: str
    signal: str | None = None


@struct
class RunStacks:
    """Somebody sent USR1: where one process of the run stands, the engine or a worker process.

    That of the engine says what is `running`: the attempts in flight, with their seconds.
    """

    NAME: ClassVar[str] = "run.stacks"
    process: str
    pid: int
    stack: str
    running: dict[str, float] | None = None


@struct
class RunFinished:
    """The run has ended. `outcomes` counts tasks; `duration` and `task_time` in seconds (wall, sum over attempts)."""

    NAME: ClassVar[str] = "run.finished"
    outcome: str
    exit_code: int
    duration: float
    task_time: float
    outcomes: dict[str, int]


@struct
class PoolOpened:
    """A pool is ready; its workers start when there is work for them."""

    NAME: ClassVar[str] = "pool.opened"
    pool: str
    mode: str
    workers: int
    executor: str | None = None


@struct
class PoolReduced:
    """The system had no room for one more process: the pool goes on with fewer at once until something has ended."""

    NAME: ClassVar[str] = "pool.reduced"
    pool: str
    workers: int
    reason: str


@struct
class PoolClosed:
    """Every worker of the pool was joined."""

    NAME: ClassVar[str] = "pool.closed"
    pool: str


@struct
class WorkerStarted:
    """A thread or process that executes attempts exists. `thread` is the native thread id; its name is `worker`."""

    NAME: ClassVar[str] = "worker.started"
    worker: str
    pool: str
    mode: str
    pid: int
    thread: int | None = None


@struct
class WorkerDied:
    """A worker ended unasked, or was killed because it would not stop."""

    NAME: ClassVar[str] = "worker.died"
    worker: str
    pool: str
    mode: str
    pid: int
    reason: str
    thread: int | None = None


@struct
class WorkerJoined:
    """A worker is gone and was waited for: it took up `tasks` attempts in `lived` seconds."""

    NAME: ClassVar[str] = "worker.joined"
    worker: str
    pool: str
    mode: str
    pid: int
    tasks: int
    lived: float
    thread: int | None = None
    exit_code: int | None = None
    signal: str | None = None


@struct
class TaskSubmitted:
    """An attempt of an `at_most_once` task is about to start: recorded before it may begin."""

    NAME: ClassVar[str] = "task.submitted"
    task: str
    item: str | None
    attempt: int
    digest: str


@struct(frozen=False, kw_only=False)  # there are as many as attempts: made like this, in a third of the time
class TaskStarted:
    """A worker has taken an attempt up. `because` says why one with a `cache` runs, one line a cause."""

    NAME: ClassVar[str] = "task.started"
    task: str
    item: str | None
    attempt: int
    mode: str
    worker: str
    pid: int
    thread: int | None = None
    because: tuple[str, ...] | None = None


@struct
class Data:
    """What a task gave to others: `value` as JSON, the end of its standard output, its `key=value` lines."""

    value: bytes | None = None
    value_file: str = ""
    """Where a large value is, below the run's directory."""
    stdout: bytes = b""
    outputs: dict[str, str] = field(default_factory=dict)
    withheld: bool = False
    """It held a secret, or no disk took it: it is not kept."""


@struct(frozen=False, kw_only=False)  # there are as many as attempts: made like this, in a third of the time
class TaskFinished:
    """An attempt has ended. `duration` and `cpu` in seconds, `max_rss` in bytes; `output` are its last lines if it failed.

    `reason` says in one line why it did not succeed. `digest` names what it was: its resolved definition and its inputs.
    """

    NAME: ClassVar[str] = "task.finished"
    task: str
    item: str | None
    attempt: int
    mode: str
    worker: str
    pid: int
    outcome: str
    duration: float
    reason: str | None = None
    thread: int | None = None
    cpu: float | None = None
    max_rss: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    error: dict[str, str] | None = None
    note: str | None = None
    output: str | None = None
    abandoned: bool = False
    retried: bool = False
    forgiven: bool = False
    truncated: bool = False
    """It printed more than is kept."""
    digest: str | None = None
    data: Data | None = None
    """What expressions may ask for when the run is resumed. Only in the journal."""


@struct
class TaskRetrying:
    """An attempt failed and will be tried again: `attempt` is the number of the next try, `delay` seconds from now."""

    NAME: ClassVar[str] = "task.retrying"
    task: str
    item: str | None
    attempt: int
    delay: float


@struct
class TaskSkipped:
    """A task or item that does not run. `reason`: needs (see `cause`), condition (its own), empty (no items), cancelled (the run
    was stopped first), recorded (it has ended for good in this run before: `outcome` says how), cached (nothing has changed)."""

    NAME: ClassVar[str] = "task.skipped"
    task: str
    reason: str
    item: str | None = None
    outcome: str | None = None
    cause: str | None = None
    cause_outcome: str | None = None


@struct
class TaskLateResult:
    """An abandoned attempt ended after all. It changes nothing."""

    NAME: ClassVar[str] = "task.late_result"
    task: str
    item: str | None
    attempt: int
    outcome: str


@struct
class TaskLeftover:
    """An attempt ended and left processes behind; `task` is empty where nobody knows whose they were."""

    NAME: ClassVar[str] = "task.leftover"
    task: str
    item: str | None
    attempt: int
    pids: list[int]
    killed: bool


@struct
class OrphanKilled:
    """A process of a run whose runner had been killed was found and ended, before anything of it is run again."""

    NAME: ClassVar[str] = "orphan.killed"
    pid: int
    run: str
    command: str


@struct
class LockBusy:
    """Another run holds what this one needs: `wait` or `replace` says what is done about it."""

    NAME: ClassVar[str] = "lock.busy"
    group: str
    holder: str
    pid: int
    on_conflict: str


@struct
class LimitBusy:
    """A task waits for slots of limits that jobs share, or for memory (`resources.memory`); `holders` have them, if known."""

    NAME: ClassVar[str] = "limit.busy"
    limits: list[str]
    holders: list[str]


@struct
class JournalRepaired:
    """The last record of the journal was torn when its runner was killed: `dropped` bytes after `offset` were cut off."""

    NAME: ClassVar[str] = "journal.repaired"
    offset: int
    dropped: int


@struct
class LogDegraded:
    """An output does not take what is written to it: `dropped` counts lines (log, stdout) or bytes (a file of output) so far."""

    NAME: ClassVar[str] = "log.degraded"
    output: str
    reason: str
    dropped: int


@struct
class TaskOutput:
    """What an attempt printed. Not in the log: it goes to its file and to the terminal. `task` is empty if nobody knows whose
    it is; then it is the pool's."""

    NAME: ClassVar[str] = "task.output"
    task: str
    item: str | None
    attempt: int
    pool: str
    data: bytes


Event: TypeAlias = (
    RunStarted
    | RunResumed
    | RunInterrupted
    | RunStacks
    | RunFinished
    | PoolOpened
    | PoolReduced
    | PoolClosed
    | WorkerStarted
    | WorkerDied
    | WorkerJoined
    | TaskSubmitted
    | TaskStarted
    | TaskFinished
    | TaskRetrying
    | TaskSkipped
    | TaskLateResult
    | TaskLeftover
    | OrphanKilled
    | LockBusy
    | LimitBusy
    | JournalRepaired
    | LogDegraded
    | TaskOutput
)


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

    def body(self) -> bytes:
        """`run_id`, `job` and the event's own fields as JSON, without the braces around them: encoded once, whoever asks."""
        if self.encoded is None:
            self.encoded = b"%b,%b" % (_place(self.run_id, self.job), _fields(self.event))
        return self.encoded


@lru_cache(maxsize=2)
def _place(run_id: str, job: str) -> bytes:
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
        batch, place = [], _place(run_id, job)
        for event in noted:
            if type(event) is TaskOutput:
                batch.append(Stamped(seq, ts, run_id, job, event))
            else:
                seq += 1
                batch.append(Stamped(seq, ts, run_id, job, event, b"%b,%b" % (place, _fields(event))))
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


def _logged(kind: type) -> dict[str, object]:
    """The fields that are written, with their defaults."""
    return {name: default for name, default in defaults(kind).items() if name not in _NOT_IN_THE_LOG}


def _payload_of(kind: type) -> Callable[[Any], dict[str, Any]]:
    """Made when the first event of its kind is written: most runs have a handful of kinds."""
    fields = _logged(kind)
    names, standard = tuple(fields), tuple(fields.values())
    values_of: Callable[[Any], Any] = attrgetter(*names)

    def found(event: Any) -> dict[str, Any]:
        values = values_of(event) if len(names) > 1 else (values_of(event),)
        rows = zip(names, values, standard, strict=True)
        return {name: value for name, value, default in rows if value is not None and value is not default}

    _PAYLOADS[kind] = found
    return found


# Both events of an attempt are written out: there are as many of them as attempts, and this takes half of the time.

_quoted = json.encoder.encode_basestring  # as orjson writes it, in a third of the time


def _fields(event: Event) -> bytes:
    """The event's own fields as JSON, without the braces around them."""
    write = _WRITERS.get(type(event))
    if write is not None:
        with suppress(UnicodeEncodeError):  # a lone surrogate
            return write(event)
    return dumps(payload(event))[1:-1]


def _of_attempt(event: TaskStarted | TaskFinished) -> str:
    item = "" if event.item is None else f',"item":{_quoted(event.item)}'
    who = f'"mode":{_quoted(event.mode)},"worker":{_quoted(event.worker)},"pid":{event.pid}'
    return f'"task":{_quoted(event.task)}{item},"attempt":{event.attempt},{who}'


def _of_started(event: TaskStarted) -> bytes:
    thread = "" if event.thread is None else f',"thread":{event.thread}'
    because = b"" if event.because is None else b',"because":' + dumps(event.because)
    return (_of_attempt(event) + thread).encode() + because


def _of_finished(event: TaskFinished) -> bytes:
    found: dict[str, Any] = {"outcome": event.outcome, "duration": event.duration}
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
    return b"%b,%b" % (_of_attempt(event).encode(), dumps(found)[1:-1])


_WRITERS: dict[type, Callable[[Any], bytes]] = {TaskStarted: _of_started, TaskFinished: _of_finished}


def level(event: Event) -> Level:
    """How much a person should care."""
    kind = type(event)
    if kind is TaskStarted:
        return "info"
    if isinstance(event, TaskFinished):
        return "info" if event.outcome == "succeeded" else "warning" if event.forgiven or event.retried else "error"
    if isinstance(event, RunFinished):
        return "error" if event.exit_code else "info"
    return "warning" if kind in _WARNINGS else "info"


_WARNINGS = {
    WorkerDied,
    RunInterrupted,
    TaskRetrying,
    TaskLateResult,
    TaskLeftover,
    PoolReduced,
    OrphanKilled,
    LockBusy,
    LimitBusy,
    JournalRepaired,
    LogDegraded,
}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one line of the log: one alternative an event."""
    import typing
    from inspect import cleandoc

    from pydantic import TypeAdapter

    globals().update(Any=typing.Any, ClassVar=typing.ClassVar, Level=typing.Literal["info", "warning", "error"])  # it reads them
    logged = [kind for kind in typing.get_args(Event) if kind is not TaskOutput]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of the jobrunner log",
        "oneOf": [_line_schema(kind, cleandoc(kind.__doc__ or ""), TypeAdapter(kind).json_schema()) for kind in logged],
    }


def _line_schema(kind: type[Event], description: str, own: dict[str, Any]) -> dict[str, Any]:
    envelope: dict[str, Any] = {
        "ts": {"type": "string", "format": "date-time"},
        "level": {"enum": ["info", "warning", "error"]},
        "event": {"const": kind.NAME},
        "seq": {"type": "integer", "minimum": 0},
        "run_id": {"type": "string"},
        "job": {"type": "string"},
    }
    logged = _logged(kind)
    required = [name for name in own.get("required", []) if not _may_be_left_out(own["properties"][name])]
    return {
        "title": kind.NAME,
        "description": description,
        "type": "object",
        "properties": {**envelope, **{name: _without_null(each) for name, each in own["properties"].items() if name in logged}},
        "required": [*envelope, *required],
        "additionalProperties": False,
    }


def _may_be_left_out(schema: dict[str, Any]) -> bool:
    return {"type": "null"} in schema.get("anyOf", [])


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A field that says nothing is left out of the line, so null is never written."""
    kinds = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    return kinds[0] if len(kinds) == 1 else {key: value for key, value in schema.items() if key not in ("title", "default")}
