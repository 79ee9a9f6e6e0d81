"""One task as the plan sees it: its state, and its instances as counters, however many there are."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from jobrunner import expressions
from jobrunner.errors import ExpressionError
from jobrunner.items import Items
from jobrunner.plan.attempt import Phase, State
from jobrunner.structs import struct
from jobrunner.typed import TYPE_CHECKING, TypeAlias
from jobrunner.work import Outcome, Result

if TYPE_CHECKING:
    from jobrunner.spec import Task

MOVES: Mapping[State, Collection[State]] = {
    Phase.WAITING: (Phase.READY, Outcome.SKIPPED),
    Phase.READY: (Phase.RUNNING, Outcome.SUCCEEDED, Outcome.SKIPPED),  # SUCCEEDED: a fan-out over no items
    Phase.RUNNING: (
        Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED, Outcome.CANCELLED, Outcome.UNKNOWN,
    ),
}  # fmt: skip
"""Where a task may go from where it stands; an outcome is final."""
FORGIVABLE = frozenset({Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED})
"""What continue_on_error allows."""
_SUCCEEDED = Outcome.SUCCEEDED
_HARMLESS = frozenset({Outcome.SUCCEEDED, Outcome.SKIPPED})
_NOTHING: Mapping[str, int] = {}
Kind: TypeAlias = "tuple[str, str | None, float | None, bool]"
"""What attempts that are handed out together have in common: target, folder, timeout, and whether their tasks are final."""
_OF_AN_ITEM = frozenset({"item", "index", "matrix"})


@struct(kw_only=False, frozen=False, eq=False)
class Pool:
    free: int
    ready: list[tuple[int, Node]]
    held: int = 0
    """Slots that the system had no room for: free again when something has ended, or some time has passed."""
    ahead: int = 0
    """So many attempts more than there are workers may be handed out; `free` is below zero then."""
    commands: int = 0
    """Of those in flight."""
    is_mixed: bool = False
    """It has calls and commands. Beside a command there is nothing ahead then: hosts would take its worker for a free one."""

    @property
    def room(self) -> int:
        return self.free if self.commands and self.is_mixed else self.free + self.ahead


class Node:
    """One task: its state, and its instances as counters."""

    __slots__ = (
        "again", "asks", "blockers", "delayed", "dependents", "dropped", "group", "has_instances", "has_run", "in_flight",
        "is_excused", "is_final", "is_judged_by_item", "is_queued", "items", "kind", "memory", "most", "name", "next", "order",
        "outcomes", "pool", "refused", "results", "sequence", "size", "state", "takes", "task", "turn", "unmet",
    )  # fmt: skip

    def __init__(self, name: str, order: int, task: Task, pool: str, is_final: bool) -> None:
        self.name, self.order, self.task, self.pool, self.is_final = name, order, task, pool, is_final
        self.turn = order
        """Its place among those that are ready in its pool: as declared, unless it is known how long tasks take."""
        self.has_instances = task.has_instances
        self.takes: Mapping[str, int] = task.takes if task.limits else _NOTHING
        self.memory = 0
        """Bytes that an attempt takes, as far as that is known and matters."""
        self.most = sys.maxsize if task.max_parallel is None else task.max_parallel
        """Instances at once."""
        self.asks = False
        """Its condition asks how its needs have ended: that they have not ended well does not decide."""
        self.is_judged_by_item = False
        if task.condition is not None:
            condition = expressions.condition(task.condition)
            self.asks = bool(condition.status)
            self.is_judged_by_item = any(each.root in _OF_AN_ITEM for each in condition.references)
        self.unmet: Node | None = None
        """The first of its needs that did not end well."""
        self.refused: ExpressionError | None = None
        """Why its condition could not be judged."""
        self.state: State = Phase.WAITING
        self.group = 0
        """Of the outcomes of which the last has let it start."""
        self.blockers = 0
        self.dependents: list[Node] = []
        self.items: Items | None = None
        self.sequence: Sequence[int] | None = None
        """The order of its items, where that is not the declared one."""
        self.size = 1
        self.next = self.in_flight = self.delayed = self.dropped = 0
        self.again: deque[tuple[int, int]] | None = None
        """Instances that are ready once more, and the number of their attempt: None while there were none, in most tasks ever."""
        self.outcomes: set[Outcome] | None = None
        """Those of instances, without successes; None where all have succeeded."""
        self.results: dict[int, Result] | None = None
        """By the place of the item; None where nothing is kept."""
        self.kind: Kind | None = None
        """Its attempts may be handed out together, with those of tasks of the same kind too; None: they may not."""
        self.is_queued = self.has_run = self.is_excused = False

    def __lt__(self, other: Node) -> bool:
        return self.order < other.order

    def move(self, state: State) -> None:
        assert state in MOVES.get(self.state, ()), f"{self.name}: {self.state} → {state} [this is a bug]"
        self.state = state

    def drop(self, number: int) -> None:
        """An instance whose attempt `number` will never start: the run is stopped. One that was to be tried again has failed."""
        if number == 1:
            self.dropped += 1
        else:
            self.note(Outcome.FAILED)

    def note(self, outcome: Outcome) -> None:
        """An instance has ended so, which is no success."""
        if self.outcomes is None:
            self.outcomes = set()
        self.outcomes.add(outcome)

    def unfold(self, items: Items, sequence: Sequence[int] | None) -> None:
        self.items, self.size, self.sequence = items, len(items), sequence

    def retry(self, index: int, number: int, *, first: bool = False) -> None:
        """An instance is ready once more, before all others of its kind or behind them."""
        if self.again is None:
            self.again = deque()
        if first:
            self.again.appendleft((index, number))
        else:
            self.again.append((index, number))

    def pop(self) -> tuple[int, int]:
        """The next instance and the number of its attempt."""
        if self.again:
            return self.again.popleft()
        place = self.next
        self.next = place + 1
        return place if self.sequence is None else self.sequence[place], 1

    @property
    def can_start(self) -> bool:
        return self.in_flight < self.most and (self.next < self.size or bool(self.again))

    @property
    def is_over(self) -> bool:
        return not (self.in_flight or self.delayed or self.again) and self.next >= self.size

    @property
    def ended_well(self) -> bool:
        """It has succeeded, was skipped by its own condition, or its failure is forgiven."""
        if self.state is _SUCCEEDED or self.is_excused:
            return True
        return self.task.continue_on_error and self.state in FORGIVABLE

    @property
    def outcome(self) -> Outcome:
        """Of the whole task: that of its instances where they agree, else failed. Those that the condition skips do not count."""
        bad = self.outcomes and self.outcomes - _HARMLESS
        if not bad:
            return Outcome.CANCELLED if self.dropped else _SUCCEEDED
        return bad.pop() if len(bad) == 1 else Outcome.FAILED
