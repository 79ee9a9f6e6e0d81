"""What happened, in the past tense: the frozen events that every sink gets.

Fields that are None, or as their default has them, are left out of the log. `docs/events.md` explains each;
`schemas/event.schema.json` is made from these classes.
"""

from __future__ import annotations

from jobrunner.structs import field, struct
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


@struct(frozen=False, kw_only=False)  # in mode `thread` there are as many as attempts: made like this, in a third of the time
class WorkerStarted:
    """A thread or process that executes attempts exists. `thread` is the native thread id; its name is `worker`.

    `preloaded`: its pool has `preload`, and it was forked where the modules were imported already.
    """

    NAME: ClassVar[str] = "worker.started"
    worker: str
    pool: str
    mode: str
    pid: int
    thread: int | None = None
    preloaded: bool = False


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


@struct(frozen=False, kw_only=False)  # as WorkerStarted
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
    """A task waits for slots of limits that jobs share, or for memory (`resources.memory`); `holders` have them, if known.

    For memory also which `task` waits first, and in bytes what is `wanted`, `used` and `usable` by the run.
    """

    NAME: ClassVar[str] = "limit.busy"
    limits: list[str]
    holders: list[str]
    task: str | None = None
    wanted: int | None = None
    used: int | None = None
    usable: int | None = None


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
