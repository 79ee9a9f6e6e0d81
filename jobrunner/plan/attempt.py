"""What a plan hands out and gets back: attempts, how they end, and why something does not run."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from jobrunner.structs import struct
from jobrunner.work import Error, Outcome


class Phase(StrEnum):
    """Where a task stands before its outcome."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"


State = Phase | Outcome


class Skip(StrEnum):
    """Why a task did not run."""

    NEEDS = "needs"
    CONDITION = "condition"
    EMPTY = "empty"
    CANCELLED = "cancelled"
    RECORDED = "recorded"
    CACHED = "cached"


@struct
class Skipped:
    """A task that never runs; `cause` names the task whose outcome is the reason, where there is one."""

    task: str
    reason: Skip
    cause: str = ""
    cause_outcome: str = ""


@struct
class Tries:
    """Attempts of an instance in earlier parts of the same run: all, and those that count against its retries."""

    made: int = 0
    counted: int = 0


@struct(frozen=False, eq=False, kw_only=False)
class Attempt:
    """One try of one instance, from `take` until `apply`."""

    id: int
    task: str
    number: int
    """Counts from 1, over the whole run, however often that is resumed."""
    pool: str
    counted: int = 1
    """As `number`, but without the attempts that ended only because the runner did."""
    serial: int = 1
    """As `number`, but since the plan was made."""
    is_command: bool = False
    at_most_once: bool = False
    index: int | None = None
    item: object = None
    key: str | None = None
    """Names the item; None for a task without items."""
    is_conditional: bool = False
    """The condition of its task looks at the item: it is judged for each instance."""
    timeout: float | None = None
    """Seconds that it may take once it has begun."""
    overdue_at: float | None = None
    """When its time is over, once that counts."""
    refused: Error | None = None
    """Why it cannot run at all: the engine answers it with a failure."""
    stopping: Outcome | None = None
    """It was asked to stop; whatever it answers, this is its outcome, unless it had succeeded before that came to it."""
    is_stopped: bool = False
    """Who runs it was told to stop it."""


@struct(eq=False, kw_only=False)
class Span:
    """First attempts that follow one another, handed out together: of items of one task, or of tasks that run one target.

    Each is an Attempt only where there is more to it than that it began and succeeded.
    """

    first: int
    """The id of the first of them; the others have those after it."""
    pool: str
    timeout: float | None
    tasks: Sequence[str]
    """Of each."""
    keys: Sequence[str | None]
    """Of its item."""
    items: Sequence[object] = ()
    places: Sequence[int] = ()
    """Of the items; none where these are tasks without items."""

    @property
    def ids(self) -> range:
        return range(self.first, self.first + len(self.tasks))

    def attempt(self, attempt_id: int) -> Attempt:
        at = attempt_id - self.first
        attempt = Attempt(attempt_id, self.tasks[at], 1, self.pool, timeout=self.timeout)
        if self.places:
            attempt.index, attempt.item, attempt.key = self.places[at], self.items[at], self.keys[at]
        return attempt


@struct(frozen=False, kw_only=False)  # nobody keeps one; there are as many as attempts
class Ended:
    """What the end of an attempt means: its outcome, and when (in the plan's time) its instance is tried again, if it is.

    `forgiven` says that it failed for good, but the job goes on as if it had not (`continue_on_error`).
    """

    attempt: Attempt
    outcome: Outcome
    retry_at: float | None = None
    forgiven: bool = False
