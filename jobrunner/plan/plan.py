"""What runs next: every task's state, and nothing else. Pure: no clock, no thread, no file, no log; `now` is an argument.

        WAITING ──needs have ended──▶ READY ──an instance is taken──▶ RUNNING ──all instances have ended──▶ an Outcome
           └──a need failed, its condition is false, or the run is being stopped──▶ SKIPPED

A task is one node, whatever its fan-out: a million items are counters here, and only instances in flight or waiting for
their retry are objects. A node stays RUNNING while an instance waits for its retry; such an instance holds no slot.
Ready work is taken in declared order, item by item, or in that of `turns` (ranks); what waits for slots of a limit, in the order
in which it came (semaphores); what needs memory, when there is room for it (packing).
Tasks of `finally` start when all others have ended, however that came, and nothing but a second wish to stop cancels them.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Collection, Iterator, KeysView, Mapping, Sequence

from jobrunner.errors import ExpressionError
from jobrunner.items import Items
from jobrunner.plan import beginning, retries
from jobrunner.plan.attempt import Attempt, Ended, Phase, Skip, Skipped, Span, State, Tries
from jobrunner.plan.node import FORGIVABLE, Node, Pool
from jobrunner.plan.semaphores import Outside, Semaphores
from jobrunner.structs import replace
from jobrunner.typed import TYPE_CHECKING
from jobrunner.work import Error, Outcome, Result

if TYPE_CHECKING:
    import random

    from jobrunner.plan.packing import Packing
    from jobrunner.spec import Job

_RELEASE_AFTER = 0.25
"""Seconds after which a slot is tried again that the system had no room for, where nothing has ended meanwhile."""
_LONGEST_STARVING = 10.0
"""Seconds for which nothing at all may be startable before an attempt fails for it."""
_ASK_AGAIN_AFTER = 0.1
"""Seconds after which slots that other runs hold are asked for again."""
_WAITING, _READY, _RUNNING = Phase.WAITING, Phase.READY, Phase.RUNNING  # here and below: a look into an enum takes 70 ns
_SUCCEEDED, _SKIPPED = Outcome.SUCCEEDED, Outcome.SKIPPED
_NEVER: float | None = None
_OPEN = frozenset(Phase)
"""Where a task stands that has no outcome."""
_STALE_DEADLINES = 1000
"""So many deadlines of attempts that have ended may lie behind the one of a slow attempt before they are swept out."""


class Plan:
    """The states of all tasks of a valid Job, moved by the engine's reports alone.

    `pools` gives the worker count of each pool by name. `expand` gives the items of a fan-out when its needs have ended, and
    `decide` what a condition says; both may raise ExpressionError. `outside` has the slots that other runs take too. `only`
    leaves out all other tasks and what they are needed for. `keeps` says whose results `results` will be asked for. `tries`
    tells how often an instance was tried before the run was resumed; None where there was nothing before. `turns` gives the
    places of tasks among those that are ready in their pool (of all of a pool or of none), and `arrange` the order of a
    fan-out's items; without, both are as declared. `packing` has the memory that tasks need.
    """

    def __init__(
        self,
        job: Job,
        *,
        pools: Mapping[str, int],
        expand: Callable[[Plan, str], Items],
        decide: Callable[[Plan, str], bool] = lambda plan, name: True,
        outside: Outside | None = None,
        only: Collection[str] = (),
        keeps: Callable[[str], bool] = lambda name: True,
        tries: Callable[[str, str | None], Tries] | None = None,
        turns: Mapping[str, int] | None = None,
        arrange: Callable[[str, Items], Sequence[int] | None] = lambda name, items: None,
        packing: Packing | None = None,
        seed: int = 0,
    ) -> None:
        self._job, self._expand, self._decide, self.keeps, self._tries = job, expand, decide, keeps, tries
        self._arrange, self._seed, self._packing = arrange, seed, packing
        self._random: random.Random | None = None
        self._pools = {name: Pool(count, []) for name, count in pools.items()}
        self._stirred: dict[Pool, None] = {}
        self._semaphores: Semaphores[Node] = beginning.semaphores(job, outside)
        self._nodes = beginning.nodes(job, only, turns or {}, packing)
        self.calling = beginning.calling_pools(self._nodes.values())
        for name in beginning.mixed_pools(self._nodes.values(), self.calling):
            self._pools[name].is_mixed = True
        self._plain_pools = frozenset() if job.fail_fast else beginning.plain_pools(self._nodes.values())
        is_plain = not job.limits and tries is None and packing is None
        if is_plain:
            beginning.mark_uniform(self._nodes.values(), self._plain_pools, keeps)
        self._flight: dict[int, Attempt | Span] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._delayed: list[tuple[float, int, Node, int, int]] = []
        self._last_id = self._bad_ends = self._given_back = self._ended_before = 0
        self._open = len(self._nodes)
        self._open_before_finals = sum(not node.is_final for node in self._nodes.values())
        self.skips: list[Skipped] = []
        """Tasks that were found never to run, and were not taken."""
        self._stops: list[Attempt] = []
        self._failures: list[Node] = []
        self._overdue_at = self._released_at = self._starved_since = self._ask_again_at = _NEVER
        self.is_cancelled = self.has_timed_out = self._has_no_finals = self._have_finals_begun = False
        self._group = 0
        """The number of the outcomes that are not on record together: what one of them has unlocked bears it."""
        self._link()

    def _link(self) -> None:
        nodes = self._nodes
        for node in nodes.values():
            for need in dict.fromkeys(node.task.needs):
                if (needed := nodes.get(need)) is not None:
                    needed.dependents.append(node)
                    node.blockers += 1
            node.blockers += node.is_final  # the last of the others stands in its way, whoever that is
        for node in [node for node in nodes.values() if not node.blockers]:
            if not self._open_up(node):
                self._pass_on(node)
        self._begin_finals()

    # What the engine asks.

    @property
    def done(self) -> bool:
        """Every task has its outcome."""
        return self._open == 0

    @property
    def tasks(self) -> KeysView[str]:
        """The names of those that were selected, in declared order."""
        return self._nodes.keys()

    @property
    def in_flight(self) -> int:
        return len(self._flight)

    @property
    def states(self) -> dict[str, State]:
        return {name: node.state for name, node in self._nodes.items()}

    @property
    def failed(self) -> bool:
        """Some task did not end well, and its failure counts."""
        return not all(node.ended_well for node in self._nodes.values())

    def failures(self) -> list[str]:
        """The tasks that have not ended well so far, in declared order, without those that were only skipped because of them."""
        return [node.name for node in self._failures]

    def needs_met(self, name: str) -> bool:
        """All that the task needs has ended well; for a final one also all tasks that are not final."""
        node = self._nodes[name]
        return node.unmet is None and not (node.is_final and self._bad_ends)

    def begin(self, now: float) -> None:
        """The run starts: the job's own timeout counts from `now`."""
        if self._job.timeout is not None:
            self._overdue_at = now + self._job.timeout

    def next_wake(self) -> float | None:
        """When time alone changes something: a deadline or a retry that is due."""
        while self._deadlines and self._is_stale(self._deadlines[0]):
            heapq.heappop(self._deadlines)
        heads = [heap[0][0] for heap in (self._deadlines, self._delayed) if heap]
        if self._overdue_at is not None and not self.is_cancelled and self._open_before_finals:
            heads.append(self._overdue_at)
        others = self._ask_again_at, self._released_at, None if self._packing is None else self._packing.tell_at
        heads += [each for each in others if each is not None]
        return min(heads, default=None)

    def allow_ahead(self, name: str, count: int) -> None:
        """So many attempts more than the pool has workers may be handed out: they have not begun, and may be given back.

        Only in a pool where that can make no difference but in speed.
        """
        pool = self._pools.get(name)
        if pool is not None and pool.ahead != count and name in self._plain_pools:
            pool.ahead = count
            self._stirred[pool] = None

    def take(self, now: float) -> Iterator[Attempt]:
        """Attempts to start now: as many as there are free workers, and what is allowed ahead, in the order of their turns."""
        for each in self.take_together(now, ()):
            assert isinstance(each, Attempt)
            yield each

    def take_together(self, now: float, pools: Collection[str]) -> Iterator[Attempt | Span]:
        """As `take`, in these pools as Spans where that can make no difference but in speed."""
        self._wake(now)
        pick, stirred = self._first if self._packing is None else self._next, self._stirred
        limited = self._semaphores if self._job.limits else ()
        while stirred:  # an empty fan-out in one pool can make a task of another ready: go on until all are quiet
            if limited:
                yield from self._take_limited(now)
            pool = next(iter(stirred))
            del stirred[pool]
            while (pool.free > 0 or pool.room > 0) and (node := pick(pool)) is not None:
                needs_worker = pool.is_mixed and node.task.target is None
                if pool.free <= 0 and needs_worker:  # nothing goes ahead of it
                    break
                goes_together = node.kind is not None and node.pool in pools and not node.again
                yield self._issue_together(node, pool) if goes_together else self._issue(node, pool)
                if stirred or limited:  # others have their turn
                    stirred[pool] = None
                    break
        if self._packing is not None:
            self._packing.note(now)

    def is_ahead_of_record(self, attempt: Attempt | Span) -> bool:
        """Whether what has let it start, an outcome or the begin of the run, may not be on record: it must be before it does."""
        names = attempt.tasks if isinstance(attempt, Span) else (attempt.task,)
        return any(self._nodes[name].group == self._group for name in names)

    def attempt(self, attempt_id: int) -> Attempt:
        """One in flight: where it was handed out together with others it is by itself from now on."""
        found = self._flight[attempt_id]
        if isinstance(found, Span):
            found = self._flight[attempt_id] = found.attempt(attempt_id)
        return found

    def is_unwanted(self, attempt: Attempt | Span) -> bool:
        """Whether it need not start any more: all that it belongs to was cancelled."""
        return self._is_cancelled(self._nodes[attempt.tasks[0] if isinstance(attempt, Span) else attempt.task])

    def recorded(self) -> None:
        """All that has happened so far is on record."""
        self._group += 1

    def has_run(self, name: str) -> bool:
        """Some instance of the task was run by this plan, so what was recorded of its dependents no longer holds."""
        return name in self._nodes and self._nodes[name].has_run

    def take_skipped(self) -> list[Skipped]:
        """Tasks that were found never to run, since the last call."""
        skipped, self.skips = self.skips, []
        return skipped

    def take_stops(self, now: float) -> list[Attempt]:
        """Attempts to stop now, each once: those over their time, and all in flight when the run is being stopped."""
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline = heapq.heappop(self._deadlines)
            if not self._is_stale(deadline):
                self._stop(self.attempt(deadline[1]), Outcome.TIMED_OUT)
        is_overdue = self._overdue_at is not None and self._overdue_at <= now and self._open_before_finals > 0
        if is_overdue and not self.is_cancelled:
            self.has_timed_out = True
            self.cancel()
        stops, self._stops = self._stops, []
        for attempt in stops:
            attempt.is_stopped = True
        return stops

    # What the engine tells.

    def began(self, attempt: Attempt, now: float) -> None:
        """Its worker has taken it up: its timeout counts from `now`. Told again, it counts from then."""
        if attempt.timeout is None:
            return
        attempt.overdue_at = now + attempt.timeout
        heapq.heappush(self._deadlines, (attempt.overdue_at, attempt.id))
        if len(self._deadlines) > 2 * len(self._flight) + _STALE_DEADLINES:
            self._deadlines = [deadline for deadline in self._deadlines if not self._is_stale(deadline)]
            heapq.heapify(self._deadlines)

    def _is_stale(self, deadline: tuple[float, int]) -> bool:
        """Its attempt has ended, or has another one now."""
        attempt = self._flight.get(deadline[1])
        return not isinstance(attempt, Attempt) or attempt.overdue_at != deadline[0]

    def give_back(self, attempt: Attempt) -> None:
        """It was handed over, but never began: it is ready again and does not count."""
        node = self._land(attempt)
        self._given_back += 1
        if self._is_cancelled(node):
            node.drop(attempt.serial)
            self._settle(node)
        else:
            node.retry(attempt.index or 0, attempt.serial, first=True)
            self._queue(node)

    def hold_back(self, attempt: Attempt, now: float) -> bool:
        """The system had no room to start it: its slot is not used until something ends. False where that would be for ever."""
        ended = self._last_id - len(self._flight) - self._given_back
        if self._starved_since is None or ended != self._ended_before:
            self._starved_since, self._ended_before = now, ended
        if now - self._starved_since > _LONGEST_STARVING and len(self._flight) == 1:
            self._ended_before += 1  # its own end makes no room
            return False
        pool = self._pools[self._nodes[attempt.task].pool]
        self.give_back(attempt)
        pool.free -= 1
        pool.held += 1
        self._released_at = now + _RELEASE_AFTER
        return True

    def apply(self, attempt: Attempt, result: Result, now: float, *, recorded: bool = False) -> Ended:
        """An attempt has ended. Gives what it comes to, and moves every task that this decides.

        `recorded` says that it did not run now: this is how it has ended before.
        """
        node = self._land(attempt)
        if self._released_at is not None:
            self._release_held()
        outcome = attempt.stopping or result.outcome
        assert outcome is not _SKIPPED or attempt.is_conditional, f"{node.name}: running → skipped [this is a bug]"
        if recorded:
            self._record(node, attempt, result, outcome)
            self._settle(node)
            return Ended(attempt, outcome)
        node.has_run = True
        if outcome is not _SUCCEEDED and self._may_retry(attempt, node, result):
            retry_at = now + retries.delay(node.task.retries, attempt.counted, self._chance())
            node.delayed += 1
            heapq.heappush(self._delayed, (retry_at, attempt.id, node, attempt.index or 0, attempt.serial + 1))
            self._queue(node)
            return Ended(attempt, outcome, retry_at=retry_at)
        self._record(node, attempt, result, outcome)
        self._settle(node)
        if outcome is _SUCCEEDED:
            return Ended(attempt, outcome)
        forgiven = node.task.continue_on_error and outcome in FORGIVABLE
        if self._job.fail_fast and not forgiven:
            self.cancel()
        return Ended(attempt, outcome, forgiven=forgiven)

    def succeeded(self, attempt: Attempt, result: Result | None) -> None:
        """As `apply`, of one that has just succeeded and was not asked to stop; without a result where that is not kept."""
        node = self._land(attempt)
        if result is not None:
            self._keep(node, attempt, result)
        self._go_on(node)

    def succeeded_together(self, span: Span, ids: Sequence[int]) -> None:
        """As `succeeded`, of attempts of a span that are not by themselves."""
        pool = self._pools[span.pool]
        pool.free += len(ids)
        self._stirred[pool] = None
        for each in ids:
            del self._flight[each]
        if span.places:
            node = self._nodes[span.tasks[0]]
            node.in_flight -= len(ids)
            self._go_on(node)
            return
        if self._released_at is not None:
            self._release_held()
        for each in ids:
            node = self._nodes[span.tasks[each - span.first]]
            node.in_flight, node.has_run = 0, True
            self._finish(node, _SUCCEEDED)

    def _go_on(self, node: Node) -> None:
        """After some of its instances have succeeded."""
        if self._released_at is not None:
            self._release_held()
        node.has_run = True
        if node.next < node.size or not node.is_over:
            if not node.is_queued:
                self._queue(node)
        else:
            self._finish(node, node.outcome)

    def cancel(self, *, stop: bool = True, finals: bool = False) -> None:
        """Nothing new starts, what waits is skipped, and what runs is to be stopped, unless `stop` lets it end by itself.

        Final tasks are spared: they start when all others have ended. With `finals` they too are cancelled.
        """
        if self.is_cancelled and not (finals and not self._has_no_finals):
            return
        self.is_cancelled = True
        self._has_no_finals = finals
        for attempt in [self.attempt(each) for each in tuple(self._flight)] if stop else ():
            if self._is_cancelled(self._nodes[attempt.task]):
                self._stop(attempt, Outcome.CANCELLED)
        delayed, self._delayed = self._delayed, []
        for each in delayed:
            if self._is_cancelled(each[2]):
                each[2].delayed -= 1
                each[2].drop(each[4])
            else:
                heapq.heappush(self._delayed, each)
        for node in tuple(self._nodes.values()):
            if self._is_cancelled(node):
                self._drop_rest(node)
        self._begin_finals()

    def _is_cancelled(self, node: Node) -> bool:
        return self.is_cancelled and (self._has_no_finals or not node.is_final)

    # Results, for expressions and for the caller.

    def outcome(self, name: str) -> Outcome | None:
        """The outcome of a task, None while it has none."""
        state = self._nodes[name].state
        return state if isinstance(state, Outcome) else None

    def items(self, name: str) -> Items | None:
        """The items of a fan-out, None where it has none yet."""
        return self._nodes[name].items

    def results(self, name: str) -> list[Result | None]:
        """The results of a task in the order of its items (one for a task without); None for an instance without one."""
        node = self._nodes[name]
        if node.items is None and node.has_instances:
            return []
        kept = node.results or {}
        return [kept.get(index) for index in range(node.size)]

    # Below here, one step each.

    def _open_up(self, node: Node) -> bool:
        """All that it needs has ended: it is ready, or skipped by its condition. Whether it is ready."""
        if node.task.condition is not None and not self._is_wanted(node):
            node.is_excused = True
            self._skip(node, Skipped(task=node.name, reason=Skip.CONDITION))
            return False
        node.move(_READY)
        self._queue(node)
        return True

    def _is_wanted(self, node: Node) -> bool:
        """What its condition says; true where that is not for the task as a whole to answer, or cannot be answered."""
        if node.is_judged_by_item:
            return True
        try:
            return self._decide(self, node.name)
        except ExpressionError as error:
            node.refused = _told("if", error)
            return True

    def _queue(self, node: Node) -> None:
        if node.is_queued or not (node.items is None or node.can_start):
            return
        node.is_queued = True
        pool = self._pools[node.pool]
        if node.takes:
            self._semaphores.enter(node, node.takes, lane=node.pool)
        elif node.memory and self._packing is not None:
            self._packing.enter(node, pool)
        else:
            heapq.heappush(pool.ready, (node.turn, node))
        self._stirred[pool] = None

    def _next(self, pool: Pool) -> Node | None:
        """Who starts next in a pool with a free worker, of those that take no slots of limits."""
        first = self._first(pool)
        return first if self._packing is None or pool.free <= 0 else self._packing.choose(pool, first, self._can_start)

    def _first(self, pool: Pool) -> Node | None:
        """The first node in order of turns that can start an instance and takes neither slots of limits nor memory."""
        ready = pool.ready
        while ready:
            node = ready[0][1]
            if node.again or (node.items is None and node.has_instances):
                can_start = self._can_start(node)
            else:  # one after the other
                can_start = node.next < node.size and node.in_flight < node.most and node.state in _OPEN
            if can_start:
                return node
            if ready[0][1] is node:  # an empty fan-out can have put its dependent in front of itself
                heapq.heappop(ready)
                node.is_queued = False
        return None

    def _can_start(self, node: Node) -> bool:
        """Whether an instance of a queued node can start. A fan-out has its items from here on, or has ended without."""
        if node.items is None and node.has_instances and node.state is _READY:
            self._unfold(node)
        return node.can_start and node.state in _OPEN

    def _take_limited(self, now: float) -> Iterator[Attempt]:
        """What gets all the slots that it asks for."""
        self._ask_again_at = None
        while self._semaphores and any(pool.free > 0 for pool in self._pools.values()):
            node = self._semaphores.serve(self._may_take, self._fits)
            if node is None:
                self._ask_again_at = now + _ASK_AGAIN_AFTER if self._semaphores.was_refused else None
                break
            node.is_queued = False
            yield self._issue(node, self._pools[node.pool])
            self._queue(node)

    def _may_take(self, node: Node) -> bool | None:
        """Whether it could start if it had the slots; None where it no longer wants to."""
        if not self._can_start(node):
            node.is_queued = False
            return None
        pool = self._pools[node.pool]
        first = self._next(pool)
        return pool.free > 0 and (first is None or node.turn < first.turn)

    def _fits(self, node: Node) -> bool:
        """Whether there is memory for it."""
        return self._packing is None or not node.memory or self._packing.fits(node, self._pools[node.pool])

    def _unfold(self, node: Node) -> None:
        """Ask for the items of a fan-out: where there are none, that ends the task."""
        try:
            items = Items([node.refused]) if node.refused else self._expand(self, node.name)
        except ExpressionError as error:
            items = Items([_told("foreach" if node.task.matrix is None else "matrix", error)])
        node.unfold(items, self._arrange(node.name, items))
        if not items:
            self.skips.append(Skipped(task=node.name, reason=Skip.EMPTY))
            self._finish(node, _SUCCEEDED)

    def _issue(self, node: Node, pool: Pool) -> Attempt:
        index, number = node.next, 1
        if node.again or node.sequence is not None:
            index, number = node.pop()
        else:
            node.next = index + 1
        if node.state is _READY:
            node.move(_RUNNING)
        pool.free -= 1
        pool.commands += node.task.target is None
        node.in_flight += 1
        if self._packing is not None:
            self._packing.issued(node, pool)
        task, place, item, key, refused = node.task, None, None, None, node.refused
        if node.items is not None:
            place, (item, key) = index, node.items.named(index)
            if isinstance(item, ExpressionError):
                refused, place, item, key = item, None, None, None
        self._last_id += 1
        attempt = self._flight[self._last_id] = Attempt(
            self._last_id, node.name, number, node.pool, number, number, task.target is None, task.at_most_once,
            place, item, key, node.is_judged_by_item, task.timeout,
        )  # fmt: skip
        if refused is not None:
            attempt.refused = Error(type="ExpressionError", message=str(refused))
        if self._tries is not None:
            before = self._tries(node.name, key)
            attempt.number, attempt.counted = number + before.made, number + before.counted
        return attempt

    def _issue_together(self, node: Node, pool: Pool) -> Attempt | Span:
        """As many of its instances, or of the tasks of its kind, as there is room for."""
        if not node.has_instances:
            return self._issue_alike(node, pool)
        start, count = node.next, min(pool.room, node.size - node.next, node.most - node.in_flight)
        if count == 1 or node.items is None:
            return self._issue(node, pool)
        if node.state is _READY:
            node.move(_RUNNING)
        node.next += count
        node.in_flight += count
        pool.free -= count
        places = range(start, start + count) if node.sequence is None else node.sequence[start : start + count]
        items, keys = zip(*map(node.items.named, places), strict=True)
        return self._fly(Span(self._last_id + 1, node.pool, node.task.timeout, [node.name] * count, keys, items, places))

    def _issue_alike(self, node: Node, pool: Pool) -> Attempt | Span:
        nodes = self._alike(node, pool)
        if len(nodes) == 1:
            return self._issue(node, pool)
        for each in nodes:
            each.move(_RUNNING)
            each.next = each.in_flight = 1
        pool.free -= len(nodes)
        names = [each.name for each in nodes]
        return self._fly(Span(self._last_id + 1, node.pool, node.task.timeout, names, [None] * len(names)))

    def _alike(self, first: Node, pool: Pool) -> list[Node]:
        """The first that is ready and those of its kind that follow it, which are no longer queued then."""
        ready, found, room, kind = pool.ready, list[Node](), pool.room, first.kind
        while ready and len(found) < room:
            node = ready[0][1]
            if node.kind is not kind or node.state is not _READY or node.has_instances or node.again:
                break
            heapq.heappop(ready)
            node.is_queued = False
            found.append(node)
        return found

    def _fly(self, span: Span) -> Span:
        self._last_id += len(span.tasks)
        self._flight.update(dict.fromkeys(span.ids, span))
        return span

    def _release_held(self) -> None:
        """The slots that the system had no room for are tried again."""
        self._released_at = None
        for pool in self._pools.values():
            if pool.held:
                pool.free, pool.held = pool.free + pool.held, 0
                self._stirred[pool] = None

    def _wake(self, now: float) -> None:
        if self._released_at is not None and self._released_at <= now:
            self._release_held()
        if self._ask_again_at is not None and self._ask_again_at <= now:
            self._ask_again_at = None
            self._stirred.update(dict.fromkeys(self._pools.values()))
        while self._delayed and self._delayed[0][0] <= now:
            _, _, node, index, number = heapq.heappop(self._delayed)
            node.delayed -= 1
            node.retry(index, number)
            self._queue(node)

    def _land(self, attempt: Attempt) -> Node:
        node = self._nodes[attempt.task]
        del self._flight[attempt.id]
        node.in_flight -= 1
        pool = self._pools[node.pool]
        pool.free += 1
        pool.commands -= attempt.is_command
        self._stirred[pool] = None
        if node.takes:
            self._semaphores.give(node.takes)
        if node.memory and self._packing is not None:
            self._stirred.update(dict.fromkeys(self._packing.give(node)))
        return node

    def _chance(self) -> random.Random:
        """What decides the jitter of retries: loaded at the first one."""
        if self._random is None:
            import random

            self._random = random.Random(self._seed)
        return self._random

    def _may_retry(self, attempt: Attempt, node: Node, result: Result) -> bool:
        retry = node.task.retries
        if attempt.counted > retry.max or attempt.refused or self._is_cancelled(node):
            return False
        return attempt.stopping is not None or result.outcome is not Outcome.FAILED or retries.is_worth_it(retry, result)

    def _record(self, node: Node, attempt: Attempt, result: Result, outcome: Outcome) -> None:
        if outcome is not _SUCCEEDED:  # nobody asks how many have
            node.note(outcome)
        if outcome is not _SKIPPED and self.keeps(node.name):
            self._keep(node, attempt, result if result.outcome is outcome else replace(result, outcome=outcome))

    def _keep(self, node: Node, attempt: Attempt, result: Result) -> None:
        if node.results is None:
            node.results = {}
        node.results[attempt.index or 0] = result

    def _settle(self, node: Node) -> None:
        """After an instance has ended: the task has too, or it may start one more."""
        if node.is_over:
            self._finish(node, node.outcome)
        elif not node.is_queued:
            self._queue(node)

    def _finish(self, node: Node, outcome: Outcome) -> None:
        node.move(outcome)
        node.outcomes = None  # its own says all that is asked from now on
        self._close(node)
        if node.dependents:
            self._pass_on(node)
        if not self._open_before_finals:
            self._begin_finals()

    def _close(self, node: Node) -> None:
        """It has its outcome."""
        self._open -= 1
        self._open_before_finals -= not node.is_final
        if node.state is not _SUCCEEDED and not node.ended_well:
            self._bad_ends += not node.is_final  # they decide for those that are final
            if node.state is not _SKIPPED:
                bisect.insort(self._failures, node)

    def _pass_on(self, ended: Node) -> None:
        """Tell the dependents of a task that has its outcome; a skip goes on to theirs (a chain may be long: no recursion)."""
        pending = [ended]
        while pending:
            node = pending.pop()
            dependents, node.dependents = node.dependents, []  # nobody asks again, and they would take up room
            has_ended_well = node.ended_well
            for dependent in dependents:
                dependent.blockers -= 1
                if not has_ended_well:
                    dependent.unmet = dependent.unmet or node
                if dependent.blockers and dependent.unmet is None:  # it still waits
                    continue
                if dependent.state is _WAITING and not self._move_on(dependent):
                    pending.append(dependent)

    def _move_on(self, node: Node) -> bool:
        """One of its needs has ended. False where that has ended it too."""
        if node.unmet is not None and not node.asks and not (node.is_final and node.blockers):
            unmet = node.unmet
            self._skip(node, Skipped(task=node.name, reason=Skip.NEEDS, cause=unmet.name, cause_outcome=str(unmet.state)))
            return False
        if node.blockers:
            return True
        node.group = self._group
        return self._open_up(node)

    def _begin_finals(self) -> None:
        """When all others have ended, nothing but their needs stands in the way of the final tasks."""
        if self._open_before_finals or self._have_finals_begun:
            return
        self._have_finals_begun = True
        for node in tuple(self._nodes.values()):
            if node.is_final:
                node.blockers -= 1
                if node.state is _WAITING and not self._move_on(node):
                    self._pass_on(node)

    def _skip(self, node: Node, why: Skipped) -> None:
        node.move(_SKIPPED)
        self._close(node)
        self.skips.append(why)

    def _stop(self, attempt: Attempt, outcome: Outcome) -> None:
        if attempt.stopping is None:
            attempt.stopping = outcome
            self._stops.append(attempt)

    def _drop_rest(self, node: Node) -> None:
        if node.state in (_WAITING, _READY):
            self._skip(node, Skipped(task=node.name, reason=Skip.CANCELLED))
        elif node.state is _RUNNING:
            node.dropped += node.size - node.next
            node.next = node.size
            while node.again:
                node.drop(node.pop()[1])
            if node.is_over:
                self._finish(node, node.outcome)


def _told(key: str, error: ExpressionError) -> ExpressionError:
    return ExpressionError(f"{key}: {error}")
