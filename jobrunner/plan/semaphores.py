"""Slots that work takes while it runs: who waits for some is served in the order in which it came. Pure.

All slots that one needs are taken at once or not at all, and nobody holds any while waiting: so there is no deadlock. Who has
waited longest keeps later ones from taking what it waits for: so nobody starves, however much it needs.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Hashable, Mapping

from jobrunner.typed import Generic, Protocol, TypeVar

T = TypeVar("T")


class Outside(Protocol):
    """Slots that others take too. Neither method blocks; `take` gives all that is asked for, or nothing and False."""

    def take(self, wanted: Mapping[str, int], /) -> bool: ...
    def give(self, taken: Mapping[str, int], /) -> None: ...


class Semaphores(Generic[T]):
    """`slots` of each name. Of those named in `shared` there is no count here: `outside` has them."""

    def __init__(self, slots: Mapping[str, int], *, shared: frozenset[str] = frozenset(), outside: Outside | None = None) -> None:
        self._free = {name: count for name, count in slots.items() if name not in shared}
        self._shared, self._outside = shared, outside
        self._queues: dict[Hashable, deque[tuple[int, T, Mapping[str, int]]]] = {}
        self._order: list[tuple[int, Hashable]] = []
        """The queues by the arrival of who is first in them."""
        self._arrivals = 0
        self.was_refused = False
        """At the last `serve` somebody could have gone on but for slots that others hold: ask again in a while."""

    def __bool__(self) -> bool:
        """Somebody waits."""
        return bool(self._queues)

    def enter(self, who: T, wanted: Mapping[str, int], *, lane: Hashable) -> None:
        """Wait for slots. Those of one `lane` that want slots of the same names are served strictly one after the other."""
        self._arrivals += 1
        key = lane, tuple(sorted(wanted))
        if key not in self._queues:
            self._queues[key] = deque()
            self._order.append((self._arrivals, key))
        self._queues[key].append((self._arrivals, who, wanted))

    def serve(self, may_start: Callable[[T], bool | None], fits: Callable[[T], bool] = lambda who: True) -> T | None:
        """The first in order of arrival that gets all its slots, which it then has; None where nobody does.

        `may_start` says whether one could make use of them now; None takes it out of the queue. Who could, and waits for slots
        or for what `fits` asks for besides, keeps those behind it from them.
        """
        self.was_refused = False
        known = -1
        while known != self._arrivals:  # who was asked may have let others come in
            known = self._arrivals
            if (served := self._first_served(may_start, fits)) is not None:
                return served
        return None

    def _first_served(self, may_start: Callable[[T], bool | None], fits: Callable[[T], bool]) -> T | None:
        spoken_for: set[str] = set()
        for _, key in tuple(self._order):
            head = self._head(key, may_start)
            if head is None:
                continue
            who, wanted = head
            if spoken_for.isdisjoint(wanted) and fits(who) and self._take(wanted):
                self._leave(key)
                return who
            spoken_for.update(wanted)
        return None

    def give(self, taken: Mapping[str, int]) -> None:
        """The slots are free again."""
        for name, count in taken.items():
            if name not in self._shared:
                self._free[name] += count
        if self._outside is not None and (shared := self._of_others(taken)):
            self._outside.give(shared)

    def _head(self, key: Hashable, may_start: Callable[[T], bool | None]) -> tuple[T, Mapping[str, int]] | None:
        """Who is first in a queue, if it could start."""
        while key in self._queues:
            _, who, wanted = self._queues[key][0]
            if (may := may_start(who)) is not None:
                return (who, wanted) if may else None
            self._leave(key)
        return None

    def _leave(self, key: Hashable) -> None:
        queue = self._queues[key]
        arrival, _, _ = queue.popleft()
        del self._order[bisect_left(self._order, (arrival,))]
        if queue:
            insort(self._order, (queue[0][0], key))
        else:
            del self._queues[key]

    def _take(self, wanted: Mapping[str, int]) -> bool:
        if any(self._free[name] < count for name, count in wanted.items() if name not in self._shared):
            return False
        if self._outside is not None and (shared := self._of_others(wanted)) and not self._outside.take(shared):
            self.was_refused = True
            return False
        for name, count in wanted.items():
            if name not in self._shared:
                self._free[name] -= count
        return True

    def _of_others(self, wanted: Mapping[str, int]) -> dict[str, int]:
        return {name: count for name, count in wanted.items() if name in self._shared}
