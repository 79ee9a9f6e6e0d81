"""What a run takes first where it has a choice, and what it does not take at once: by what earlier runs have measured.

There is a choice in pools of several workers that have more to do than workers. A serial pool, and any other with one worker,
keeps declared order: no other is any faster there, and people rely on it. So does a fan-out that runs one item at a time.
And there is one where several processes of tasks may run at once: their memory may not be enough for that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from jobrunner.durations import MOST_ITEMS, WORTH, Durations, Known, read, write
from jobrunner.items import Items
from jobrunner.prepare import Prepared
from jobrunner.stream import Sink
from jobrunner.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from jobrunner.plan.packing import Packing, Shortage
    from jobrunner.spec import Task

_LEAST_PEAK = 64 << 20
"""A measured peak below it, in bytes, is for the most part an interpreter and libraries, of which processes share the pages."""


class Precedence:
    """Of one part of a run. `folder` is the directory of the job; where there is no choice, it is left alone."""

    def __init__(self, prepared: Prepared, folder: Path) -> None:
        self._job, self._folder, self._plans = prepared.job, folder, prepared.pools
        self._names = prepared.only or tuple(prepared.job.tasks)
        self._pools = {name: prepared.job.pool_of(name) for name in self._names}
        self._workers = {name: pool.workers for name, pool in prepared.pools.items()}
        self._free = {name for name, pool in prepared.pools.items() if pool.workers > 1}
        self._lone = self._with_processes()
        self._at_once = self._most_at_once()
        self._has_choice = self._is_crowded()
        self._is_measured = self._has_choice or self._at_once > 1
        self._known: dict[str, Known] = read(folder) if self._is_measured else {}
        self._measured = Durations()

    def _is_crowded(self) -> bool:
        """Whether some pool of several workers may have more to do than these."""
        counts = Counter(self._pools.values())
        return any(counts[pool] > self._workers[pool] for pool in self._free) or not self._free.isdisjoint(self._unfolding())

    def _unfolding(self) -> Iterator[str]:
        """The pools of fan-outs, each as often as there are some."""
        return (self._pools[name] for name in self._names if self._job.tasks[name].has_instances)

    def _with_processes(self) -> list[str]:
        """Tasks whose attempts have a process to themselves: what that needs of memory it needs while it runs, and gives back."""
        tasks = self._job.tasks
        apart = {name for name, pool in self._plans.items() if pool.mode == "process" and pool.executor is None}
        return [name for name, pool in self._pools.items() if pool in apart or tasks[name].target is None]

    def _most_at_once(self) -> int:
        """So many of these processes may run at once."""
        own = dict.fromkeys(self._workers, 0)
        for name in self._lone:
            pool = self._pools[name]
            own[pool] += self._workers[pool] if self._job.tasks[name].has_instances else 1
        return sum(min(count, self._workers[pool]) for pool, count in own.items())

    @property
    def sinks(self) -> list[Sink]:
        """What has to see the events of the run."""
        return [self._measured] if self._is_measured else []

    @property
    def has_choice(self) -> bool:
        """Whether there may be more to start than workers, so that it matters what is taken first."""
        return self._has_choice

    @property
    def known(self) -> Mapping[str, Known]:
        """What earlier runs have measured; nothing where that makes no difference."""
        return self._known

    def turns(self) -> dict[str, int]:
        """The places of the tasks that are not bound to declared order; none where nothing is known, or all are soon over."""
        if not self._has_choice or self._known.keys().isdisjoint(self._names):
            return {}
        from jobrunner.plan import ranks  # here and below: most runs need none of it

        tasks = self._job.tasks
        needs = {name: tasks[name].needs for name in self._names}
        known = {name: known.seconds for name, known in self._known.items()}
        seconds = ranks.estimated(needs, known, kind=lambda name: (self._pools[name], _program(tasks[name])))
        if sum(seconds[name] for name in needs) < WORTH and not any(self._unfolding()):
            return {}
        found = self._rehearsed(needs, seconds, ranks.turns(needs, seconds))
        return {name: turn for name, turn in found.items() if self._pools[name] in self._free}

    def _rehearsed(
        self, needs: Mapping[str, Sequence[str]], seconds: Mapping[str, float], turns: Mapping[str, int]
    ) -> Mapping[str, int]:
        """Fan-outs cannot be played through: how many items they will have is not known."""
        if any(self._unfolding()):
            return turns
        from jobrunner.plan.rehearsal import Stage, better

        bound = frozenset(self._workers.keys() - self._free)
        stage = Stage(needs=needs, seconds=seconds, pools=self._pools, workers=self._workers, bound=bound)
        return better(stage, turns)

    def arrange(self, name: str, items: Items) -> Sequence[int] | None:
        """The order of a fan-out's items: the longest first; None for the declared one."""
        known = self._known.get(name)
        one_by_one = self._pools[name] not in self._free or self._job.tasks[name].max_parallel == 1
        if known is None or not known.items or one_by_one or len(items) > MOST_ITEMS:
            return None
        from jobrunner.plan import ranks

        return ranks.longest_first([items.key(index) for index in range(len(items))], known.items)

    def packing(self, tell: Callable[[Shortage], None]) -> Packing | None:
        """What keeps tasks from taking more memory together than there is; None where they cannot, as far as that is known."""
        needs = {} if self._at_once < 2 else {name: need for name in self._lone if (need := self._memory_of(name))}
        if not needs:
            return None
        from jobrunner.memory import usable_memory

        budget = usable_memory()
        if budget is None or max(needs.values()) * self._at_once <= budget:
            return None
        from jobrunner.plan.packing import Packing

        return Packing(budget, needs, tell=tell)

    def _memory_of(self, name: str) -> int:
        """Bytes: what it declares, else the peak of earlier runs, else 0."""
        resources, known = self._job.tasks[name].resources, self._known.get(name)
        if resources is not None and resources.memory is not None:
            return resources.memory
        return known.peak if known is not None and known.peak is not None and known.peak >= _LEAST_PEAK else 0

    def keep(self, seconds: float, *, by_way_of: Path) -> None:
        """The run has ended, and no order could have saved more than so many seconds: what it has measured is there for the next.

        Raises nothing.
        """
        if self._is_measured and seconds >= WORTH:
            write(self._folder, self._measured.merged(self._known, self._job.tasks), by_way_of=by_way_of)


def _program(task: Task) -> str:
    """What it runs: tasks that run the same take about as long."""
    if task.target is not None:
        return str(task.target)
    lines = [task.run] if isinstance(task.run, str) else task.run or task.argv or [""]
    return str(lines[0]).partition(" ")[0]
