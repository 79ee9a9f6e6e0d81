"""What the engine is handed: who runs attempts, who knows what need not run, who keeps what has happened."""

from __future__ import annotations

from collections.abc import Callable

from jobrunner.loop import Loop
from jobrunner.plan import Attempt
from jobrunner.structs import struct
from jobrunner.typed import Protocol, TypeVar
from jobrunner.work import Call, Calls, Command, Report, Result, StopRule

Work = TypeVar("Work", contravariant=True)


class Executor(Protocol[Work]):
    """What runs attempts: the hosts of one pool, or its commands. No method blocks or raises for a task's fault."""

    slots: int

    def open(self, loop: Loop, report: Callable[[Report], None]) -> None: ...
    def start(self, work: Work, /) -> None: ...
    def stop(self, attempt_id: int, rule: StopRule, /) -> None: ...
    def dump(self) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...


@struct
class Lane:
    """One pool as the engine runs it: an executor for its calls, one for its commands."""

    mode: str
    workers: int
    calls: Executor[Call]
    commands: Executor[Command]
    executor: str | None = None
    prepare: Callable[[], int] = lambda: 0
    """Calls follow, and `flush` after the last of them: how many more than there are workers may be handed over now."""
    flush: Callable[[], None] = lambda: None
    holds: Callable[[], bool] = lambda: False
    """Of calls that are started now nothing goes out before `flush`."""
    start_all: Callable[[Calls], None] | None = None
    """As `start` of each call, in their order; None where calls do not wait in the hosts."""
    tell_runs: Callable[[], None] = lambda: None
    """From now on attempts that began and ended may be reported as Runs."""
    rest: Callable[[], float] = lambda: 0.0
    """For so many seconds all workers have something to do, so that nobody need look."""
    take_back: Callable[[], None] = lambda: None
    """What was handed over ahead and has not begun is not to begin there: it is Returned."""


class Verdict(Protocol):
    """What a look into the cache comes to: how the attempt has ended before, or why it must run."""

    @property
    def fresh(self) -> bool: ...
    @property
    def causes(self) -> tuple[str, ...]: ...
    @property
    def result(self) -> Result | None: ...


class Cache(Protocol):
    """Who knows what need not run. The looking itself is done by a host: the engine reads no files."""

    def check(self, attempt: Attempt, work: Call | Command, /) -> Call | None: ...
    def judge(self, attempt: Attempt, result: Result, /) -> Verdict: ...
    def store(self, attempt: Attempt, work: Call | Command, result: Result, /) -> Call | None: ...
    def noted(self, answer: Result, /) -> str: ...
    def ended(self, attempt: Attempt, digest: str, /) -> None: ...


CACHE_LANE = "(cache)"
"""The pool whose hosts look after what is cached. Its calls have the numbers of their attempts, below zero."""


@struct
class Memory:
    """What outlives the engine: by default nothing.

    `commit` puts on record what was emitted, and with True makes it outlast a loss of power; `digest` names what an attempt
    is; `recall` gives how it has ended in an earlier part of the run; `keeps` says whose values a later part may need.
    """

    commit: Callable[[bool], None] = lambda sync: None
    commit_ahead: Callable[[], None] = lambda: None
    """As `commit` with True, but only when `settle` returns: what is done meanwhile nobody need wait for."""
    settle: Callable[[], None] = lambda: None
    digest: Callable[[Attempt, Call | Command], str] = lambda attempt, work: ""
    recall: Callable[[Attempt, str], Result | None] | None = None
    keeps: Callable[[str], bool] = lambda task: False
    spill: Callable[[Result], Result] = lambda result: result
    """Puts a large value, if it is one that is kept, into a file."""
    cache: Cache | None = None
    most_output: int = 32 << 20
    """Of more output than this, in bytes, only a part is kept."""
