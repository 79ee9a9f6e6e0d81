"""Memory for what runs at once: together no more than there is, whatever that means for the order. Pure.

    used + its own ≤ budget  ─▶ it starts        else it waits; smaller ones go first, so often, then the room is kept for it

What needs more than there is counts as all of it, so it runs, beside nothing else that is known to need memory. Where nothing
such runs there is always room: so there is no deadlock. Who was overtaken `PATIENCE` times by what comes behind it in order
has its memory and a worker kept for it as they become free: so nobody starves. (Who waits for slots of a limit too, has these in
the order of the limit.)
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from jobrunner.plan.attempt import Phase
from jobrunner.plan.node import Node, Pool
from jobrunner.structs import struct

PATIENCE = 8
"""So many attempts may overtake one that waits for memory."""
_TOLD_AFTER = 5.0
"""Seconds for which something has waited for memory before that is told."""
_SIZES = 16
"""Who waits is sorted into so many sizes: of each only the first is asked whether it fits."""


@struct
class Shortage:
    """`task` has waited for memory for 5 s: it needs `wanted` bytes, and the `holders` have `used` of the `usable` ones."""

    task: str
    wanted: int
    used: int
    usable: int
    holders: list[str]


@struct(kw_only=False, frozen=False, eq=False)
class _Wait:
    pool: Pool
    overtaken: int = 0


class Packing:
    """`budget` is the memory there is, and `needs` what one attempt of a task takes of it, in bytes; others take nothing.

    `tell` is told when something has waited for memory for 5 s; again when that was over in between.
    """

    def __init__(
        self, budget: int, needs: Mapping[str, int], *, tell: Callable[[Shortage], None] = lambda shortage: None
    ) -> None:
        self._budget, self._asked, self._tell = max(1, budget), needs, tell
        self.needs = {name: min(need, self._budget) for name, need in needs.items() if need > 0}
        self._used = 0
        self._running: Counter[str] = Counter()
        self._lanes: dict[Pool, dict[int, list[tuple[int, Node]]]] = {}
        self._waits: dict[Node, _Wait] = {}
        """Who had a worker, and no room, since it was asked first."""
        self._waiting_since: float | None = None
        self.tell_at: float | None = None

    def enter(self, node: Node, pool: Pool) -> None:
        """It is ready, and takes no slots of limits."""
        lane = self._lanes.setdefault(pool, {}).setdefault(node.memory * _SIZES // self._budget, [])
        heapq.heappush(lane, (node.turn, node))

    def choose(self, pool: Pool, plain: Node | None, can_start: Callable[[Node], bool]) -> Node | None:
        """Who starts next in a pool with a free worker: the first that fits, or `plain`, the first that takes no memory."""
        packed, starved = self._first(pool, can_start), self._starved()
        if packed is None:
            return None if starved is not None and self._keeps_worker(starved, pool) else plain
        return packed if plain is None or packed is starved or packed.turn < plain.turn else plain

    def fits(self, node: Node, pool: Pool) -> bool:
        """Whether there is room for it now, beside what is kept for another. Who is asked has a worker, and waits from now on."""
        left, first = self._budget - self._used, self._starved()
        if first is not None and first is not node and self._waits[first].pool.free > 0 and (self._used or not first.takes):
            left -= first.memory
        if node.memory <= left:
            return True
        self._waits.setdefault(node, _Wait(pool))
        return False

    def issued(self, node: Node, pool: Pool) -> None:
        """An attempt of it starts. Who waits, and comes before it in order, was overtaken."""
        self._waits.pop(node, None)
        if node.memory:
            self._used += node.memory
            self._running[node.name] += 1
        for other, wait in self._waits.items():
            if (node.memory or wait.pool is pool) and other.turn < node.turn:
                wait.overtaken += 1

    def give(self, node: Node) -> Iterable[Pool]:
        """An attempt of it has ended: in these pools somebody may fit now."""
        self._used -= node.memory
        self._running[node.name] -= 1
        return self._lanes

    def note(self, now: float) -> None:
        """All that can start has started."""
        self._waits = {node: wait for node, wait in self._waits.items() if _wants(node)}
        if not self._waits:
            self._waiting_since = self.tell_at = None
        elif self._waiting_since is None:
            self._waiting_since = now
            self.tell_at = now + _TOLD_AFTER
        elif self.tell_at is not None and self.tell_at <= now:
            self.tell_at = None
            self._tell(self._shortage())

    def _shortage(self) -> Shortage:
        first = min(self._waits, key=lambda node: node.turn)
        wanted, holders = self._asked.get(first.name, 0), sorted(+self._running)
        return Shortage(task=first.name, wanted=wanted, used=self._used, usable=self._budget, holders=holders)

    def _first(self, pool: Pool, can_start: Callable[[Node], bool]) -> Node | None:
        lanes, starved = self._lanes.get(pool, {}), self._starved()
        heads = [head for size in tuple(lanes) if (head := self._head(lanes, size, can_start)) is not None]
        if starved is not None and starved not in heads and self._may_begin(starved, pool, can_start):
            heads.append(starved)  # behind one of its size that became ready later, and for which no room is left
        heads.sort(key=lambda node: (node is not starved, node.turn))
        return next((node for node in heads if self.fits(node, pool)), None)

    def _may_begin(self, starved: Node, pool: Pool, can_start: Callable[[Node], bool]) -> bool:
        return self._waits[starved].pool is pool and not starved.takes and can_start(starved)

    def _head(self, lanes: dict[int, list[tuple[int, Node]]], size: int, can_start: Callable[[Node], bool]) -> Node | None:
        lane = lanes[size]
        while lane:
            node = lane[0][1]
            if can_start(node):
                return node
            if lane[0][1] is node:  # an empty fan-out can have put its dependent in front of itself
                heapq.heappop(lane)
                node.is_queued = False
        del lanes[size]
        return None

    def _starved(self) -> Node | None:
        """Who was overtaken too often, and still wants to start."""
        for node, wait in self._waits.items():
            if wait.overtaken >= PATIENCE and _wants(node):
                return node
        return None

    def _keeps_worker(self, starved: Node, pool: Pool) -> bool:
        """Whether the last free worker is for one that waits for memory, which others are about to give back."""
        return self._waits[starved].pool is pool and pool.free == 1 and starved.memory > self._budget - self._used


def _wants(node: Node) -> bool:
    return node.is_queued and node.can_start and isinstance(node.state, Phase)
