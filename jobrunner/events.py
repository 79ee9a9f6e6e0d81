"""What happened, in the past tense: the frozen events that every sink gets, and the stream that numbers them.

Fields that are None, or as their default has them, are left out of the log. `docs/events.md` explains each;
`schemas/event.schema.json` is made from these classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, Literal, TypeAlias, get_args

Level: TypeAlias = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """A run begins. `tasks` counts the tasks that were selected; `file` is the job file."""

    NAME: ClassVar[str] = "run.started"
    file: str
    run_dir: str
    pid: int
    tasks: int
    params: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInterrupted:
    """The run is being stopped, by a signal or because its time is over: nothing new starts."""

    NAME: ClassVar[str] = "run.interrupted"
    reason: str
    signal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The run has ended. `outcomes` counts tasks; `duration` and `task_time` in seconds (wall, sum over attempts)."""

    NAME: ClassVar[str] = "run.finished"
    outcome: str
    exit_code: int
    duration: float
    task_time: float
    outcomes: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOpened:
    """A pool is ready; its workers start when there is work for them."""

    NAME: ClassVar[str] = "pool.opened"
    pool: str
    mode: str
    workers: int
    executor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolClosed:
    """Every worker of the pool was joined."""

    NAME: ClassVar[str] = "pool.closed"
    pool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted:
    """A thread or process that executes attempts exists. `thread` is the native thread id; its name is `worker`."""

    NAME: ClassVar[str] = "worker.started"
    worker: str
    pool: str
    mode: str
    pid: int
    thread: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDied:
    """A worker ended unasked, or was killed because it would not stop."""

    NAME: ClassVar[str] = "worker.died"
    worker: str
    pool: str
    mode: str
    pid: int
    reason: str
    thread: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted:
    """A worker has taken an attempt up."""

    NAME: ClassVar[str] = "task.started"
    task: str
    item: str | None
    attempt: int
    mode: str
    worker: str
    pid: int
    thread: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFinished:
    """An attempt has ended. `duration` and `cpu` in seconds, `max_rss` in bytes; `output` are its last lines if it failed."""

    NAME: ClassVar[str] = "task.finished"
    task: str
    item: str | None
    attempt: int
    mode: str
    worker: str
    pid: int
    outcome: str
    duration: float
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRetrying:
    """An attempt failed and will be tried again: `attempt` is the number of the next try, `delay` seconds from now."""

    NAME: ClassVar[str] = "task.retrying"
    task: str
    item: str | None
    attempt: int
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSkipped:
    """A task that never runs. `reason`: needs (see `cause`), empty (no items), cancelled (the run was stopped first)."""

    NAME: ClassVar[str] = "task.skipped"
    task: str
    reason: str
    cause: str | None = None
    cause_outcome: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLateResult:
    """An abandoned attempt ended after all. It changes nothing."""

    NAME: ClassVar[str] = "task.late_result"
    task: str
    item: str | None
    attempt: int
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLeftover:
    """A command ended and left processes behind."""

    NAME: ClassVar[str] = "task.leftover"
    task: str
    item: str | None
    attempt: int
    pids: list[int]
    killed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
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
    | RunInterrupted
    | RunFinished
    | PoolOpened
    | PoolClosed
    | WorkerStarted
    | WorkerDied
    | WorkerJoined
    | TaskStarted
    | TaskFinished
    | TaskRetrying
    | TaskSkipped
    | TaskLateResult
    | TaskLeftover
    | TaskOutput
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamped:
    """An event with its place in the run: `seq` counts from 1, `ts` is UTC in RFC 3339.

    Output is not part of the log and has no number of its own: it carries that of the event before it.
    """

    seq: int
    ts: str
    run_id: str
    job: str
    event: Event


Sink: TypeAlias = Callable[[Stamped], None]


class Stream:
    """Numbers the events of one run and gives each to every sink, in order."""

    def __init__(self, *, run_id: str, job: str, sinks: Sequence[Sink], now: Callable[[], float]) -> None:
        self._run_id, self._job, self._sinks, self._now = run_id, job, sinks, now
        self._seq = 0

    def emit(self, event: Event) -> None:
        if not isinstance(event, TaskOutput):
            self._seq += 1
        stamped = Stamped(seq=self._seq, ts=timestamp(self._now()), run_id=self._run_id, job=self._job, event=event)
        for sink in self._sinks:
            sink(stamped)


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with microseconds, for seconds since the epoch."""
    whole = int(seconds // 1)
    return f"{_second(whole)}.{int((seconds - whole) * 1_000_000):06d}Z"


@lru_cache(maxsize=1)
def _second(whole: int) -> str:
    """The part of a timestamp that thousands of events share."""
    return datetime.fromtimestamp(whole, UTC).isoformat(timespec="seconds").removesuffix("+00:00")


def payload(event: Event) -> dict[str, Any]:
    """The event's own fields, without those that say nothing."""
    names, values_of, defaults = _FIELDS[type(event)]
    rows = zip(names, values_of(event), defaults, strict=True)
    return {name: value for name, value, default in rows if value is not None and value is not default}


def _fields_of(kind: type) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]], tuple[object, ...]]:
    """Names, one call that reads all values, and defaults."""
    names = tuple(each.name for each in fields(kind))
    getter: Callable[[Any], Any] = attrgetter(*names)
    return names, getter if len(names) > 1 else lambda event: (getter(event),), tuple(each.default for each in fields(kind))


_FIELDS = {kind: _fields_of(kind) for kind in get_args(Event)}


def level(event: Event) -> Level:
    """How much a person should care."""
    match event:
        case TaskFinished(outcome="succeeded"):
            return "info"
        case TaskFinished(forgiven=True) | TaskFinished(retried=True) | WorkerDied() | RunInterrupted() | TaskRetrying():
            return "warning"
        case TaskLateResult() | TaskLeftover():
            return "warning"
        case TaskFinished():
            return "error"
        case RunFinished(exit_code=code):
            return "error" if code else "info"
        case _:
            return "info"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one line of the log: one alternative an event."""
    from pydantic import TypeAdapter

    logged = [kind for kind in get_args(Event) if kind is not TaskOutput]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of the jobrunner log",
        "oneOf": [_line_schema(kind, TypeAdapter(kind).json_schema()) for kind in logged],
    }


def _line_schema(kind: type[Event], own: dict[str, Any]) -> dict[str, Any]:
    envelope: dict[str, Any] = {
        "ts": {"type": "string", "format": "date-time"},
        "level": {"enum": ["info", "warning", "error"]},
        "event": {"const": kind.NAME},
        "seq": {"type": "integer", "minimum": 1},
        "run_id": {"type": "string"},
        "job": {"type": "string"},
    }
    required = [name for name in own.get("required", []) if not _may_be_left_out(own["properties"][name])]
    return {
        "title": kind.NAME,
        "description": kind.__doc__,
        "type": "object",
        "properties": {**envelope, **{name: _without_null(each) for name, each in own["properties"].items()}},
        "required": [*envelope, *required],
        "additionalProperties": False,
    }


def _may_be_left_out(schema: dict[str, Any]) -> bool:
    return {"type": "null"} in schema.get("anyOf", [])


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A field that says nothing is left out of the line, so null is never written."""
    kinds = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    return kinds[0] if len(kinds) == 1 else {key: value for key, value in schema.items() if key not in ("title", "default")}
