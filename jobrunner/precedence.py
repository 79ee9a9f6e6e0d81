"""What a run takes first where it has a choice: what earlier runs have measured, as the plan asks for it.

There is a choice in pools of several workers that have more to do than workers. A serial pool, and any other with one worker,
keeps declared order: no other is any faster there, and people rely on it. So does a fan-out that runs one item at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobrunner.durations import MOST_ITEMS, WORTH, Durations, Known, read, write
from jobrunner.events import Sink
from jobrunner.items import Items
from jobrunner.prepare import Prepared

if TYPE_CHECKING:
    from jobrunner.spec import Task


class Precedence:
    """Of one part of a run. `folder` is the directory of the job; where there is no choice, it is left alone."""

    def __init__(self, prepared: Prepared, folder: Path) -> None:
        self._job, self._folder = prepared.job, folder
        self._names = prepared.only or tuple(prepared.job.tasks)
        self._pools = {name: prepared.job.pool_of(name) for name in self._names}
        self._workers = {name: pool.workers for name, pool in prepared.pools.items()}
        self._free = {name for name, pool in prepared.pools.items() if pool.workers > 1}
        self._has_choice = any(self._is_crowded(pool, prepared.pools[pool].workers) for pool in self._free)
        self._known: dict[str, Known] = read(folder) if self._has_choice else {}
        self._measured = Durations()

    def _is_crowded(self, pool: str, workers: int) -> bool:
        """Whether it may have more to do than workers."""
        own = [name for name in self._names if self._pools[name] == pool]
        return len(own) > workers or any(self._job.tasks[name].has_instances for name in own)

    @property
    def sinks(self) -> list[Sink]:
        """What has to see the events of the run."""
        return [self._measured] if self._has_choice else []

    def turns(self) -> dict[str, int]:
        """The places of the tasks that are not bound to declared order; none where nothing is known."""
        if not any(name in self._known for name in self._names):
            return {}
        from jobrunner.plan import ranks  # here and below: most runs need none of it

        tasks = self._job.tasks
        needs = {name: tasks[name].needs for name in self._names}
        known = {name: known.seconds for name, known in self._known.items()}
        seconds = ranks.estimated(needs, known, kind=lambda name: (self._pools[name], _program(tasks[name])))
        found = self._rehearsed(needs, seconds, ranks.turns(needs, seconds))
        return {name: turn for name, turn in found.items() if self._pools[name] in self._free}

    def _rehearsed(
        self, needs: Mapping[str, Sequence[str]], seconds: Mapping[str, float], turns: Mapping[str, int]
    ) -> Mapping[str, int]:
        """Fan-outs cannot be played through: how many items they will have is not known."""
        if any(self._job.tasks[name].has_instances for name in self._names):
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

    def keep(self, seconds: float, *, by_way_of: Path) -> None:
        """The run has ended, after so many seconds: what it has measured is there for the next. Raises nothing."""
        if self._has_choice and seconds >= WORTH:
            write(self._folder, self._measured.merged(self._known, self._job.tasks), by_way_of=by_way_of)


def _program(task: Task) -> str:
    """What it runs: tasks that run the same take about as long."""
    if task.target is not None:
        return str(task.target)
    lines = [task.run] if isinstance(task.run, str) else task.run or task.argv or [""]
    return str(lines[0]).partition(" ")[0]
