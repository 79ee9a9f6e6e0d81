"""The graph of needs: every need is a task that ends before, none runs in a circle, and what the needs of needs reach."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, TypeAlias

from jobrunner import spec
from jobrunner.hints import did_you_mean
from jobrunner.jobfile.document import Finding, Path

Place: TypeAlias = Callable[[Path], str]
"""`line 7`: where the value at a path stands."""
Tasks: TypeAlias = Mapping[str, spec.Task]

NO_TASKS: Final[Tasks] = {}
MOST_CYCLES = 10
MOST_SHOWN = 8
"""Among so many tasks all are shown to who names one that is not there."""

MOST_EDGES = 12
"""Edges of one cycle that are printed."""

BATCH = 1024
"""Tasks whose dependents are looked for in one pass over the graph."""


def find(tasks: Tasks, place: Place, finals: Tasks = NO_TASKS) -> Iterator[Finding]:
    """Needs of what is not there, of itself and twice, and circles. `place` says where a path's value stands.

    `tasks` are all of a job; those of them that are in `finals` need one another, and no other task needs them.
    """
    others = beside(tasks, finals)
    for name, task in tasks.items():
        peers = finals if name in finals else others
        if len(task.needs) == 1 and task.needs[0] != name and task.needs[0] in peers:
            continue  # as most are
        seen: set[str] = set()
        for position, need in enumerate(task.needs):
            path = ("tasks", name, "needs", position)
            if need in tasks and need not in peers:
                yield _across(name, need, path, finals)
            elif (finding := _need(name, need, path, peers, seen)) is not None:
                yield finding
            seen.add(need)
    yield from _cycles(tasks, place, finals)


def beside(tasks: Tasks, finals: Tasks) -> Tasks:
    """The tasks that are no final ones."""
    return {name: task for name, task in tasks.items() if name not in finals} if finals else tasks


def _across(name: str, need: str, path: Path, finals: Tasks) -> Finding:
    if name in finals:
        return Finding(path=path, message="a finally task waits for all tasks anyway", hint="Leave it out.")
    return Finding(path=path, message=is_final(need), hint=f"Leave it out, or move {name!r} to finally.")


def is_final(name: str) -> str:
    """Why a task of `tasks` can have nothing to do with that one."""
    return f"{name!r} is a finally task: it starts when all tasks have ended"


def _need(name: str, need: str, path: Path, tasks: Tasks, seen: set[str]) -> Finding | None:
    if need not in tasks:
        return Finding(path=path, message=f"no task is called {need!r}", hint=near(need, tasks, of=name))
    if need == name:
        return Finding(path=path, message="a task cannot need itself")
    if need in seen:
        return Finding(path=path, message=f"{need!r} is listed twice", hint="Leave one out.")
    return None


def near(name: str, tasks: Tasks, *, of: str) -> str:
    """The task that was probably meant, or the few that there are besides `of`, whose text this is."""
    others = [other for other in islice(tasks, MOST_SHOWN + 2) if other != of]
    few = (
        f"The other tasks are {', '.join(others)}."
        if len(others) > 1
        else f"The only other task is {others[0]}."
        if others
        else ""
    )
    return did_you_mean(name, tasks.keys()) or few * (len(others) <= MOST_SHOWN)


def _cycles(tasks: Tasks, place: Place, finals: Tasks) -> Iterator[Finding]:
    """Circles of needs, one finding for each that a depth-first walk meets, at the first of its tasks in the file.

    One that runs through both tables of tasks has been told: no task of one needs one of the other.
    """
    if _is_declared_in_order(tasks):
        return
    order = {name: position for position, name in enumerate(tasks)}
    circles = (cycle for cycle in _circles(tasks) if len({name in finals for name in cycle}) == 1)
    for number, cycle in enumerate(circles):
        if number == MOST_CYCLES:
            return
        first = min(range(len(cycle)), key=lambda at: order[cycle[at]])
        yield _cycle(cycle[first:] + cycle[:first], tasks, place)


def _is_declared_in_order(tasks: Tasks) -> bool:
    """Whether every task stands below all that it needs, as most files are written: then there is no circle."""
    above: set[str] = set()
    for name, task in tasks.items():
        if not above.issuperset(task.needs):
            return False
        above.add(name)
    return True


def _circles(tasks: Tasks) -> Iterator[list[str]]:
    """Depth first, without recursion: each edge is walked once. A task that needs itself has its own finding."""
    done: set[str] = set()
    for root in tasks:
        path = [] if root in done else [root]
        depth = dict.fromkeys(path, 0)
        needs = [iter(tasks[name].needs) for name in path]
        while path:
            need = next((need for need in needs[-1] if need in tasks and need not in done and need != path[-1]), None)
            if need is None:
                done.add(path[-1])
                needs.pop()
                del depth[path.pop()]
            elif need in depth:
                yield path[depth[need] :]
            else:
                depth[need] = len(path)
                path.append(need)
                needs.append(iter(tasks[need].needs))


def _cycle(cycle: list[str], tasks: Tasks, place: Place) -> Finding:
    edges = []
    for name, need in list(zip(cycle, cycle[1:] + cycle[:1], strict=True))[:MOST_EDGES]:
        path = ("tasks", name, "needs", tasks[name].needs.index(need))
        edges.append(f"{name} needs {need} ({place(path)})")
    if len(cycle) > MOST_EDGES:
        edges.append(f"and {len(cycle) - MOST_EDGES} more, back to {cycle[0]}")
    first = ("tasks", cycle[0], "needs", tasks[cycle[0]].needs.index(cycle[1]))
    return Finding(path=first, message=f"tasks need each other in a circle: {', '.join(edges)}")


# --- needs of needs ----------------------------------------------------------------------------------------------------------


def unneeded(uses: Sequence[tuple[str, str]], tasks: Tasks, unsure: Collection[str] = ()) -> Iterator[int]:
    """Positions of the pairs (task, other) whose other is not among the task's needs, nor among theirs.

    A bit for each other, handed down the graph: linear in the edges for each BATCH of others. Nothing is said of tasks in a
    circle, which has its own finding, nor of those whose needs are `unsure`, nor of what needs one of them.
    """
    order = in_order(tasks)
    others = list(dict.fromkeys(other for _, other in uses))
    for start in range(0, len(others), BATCH):
        bits = {other: 1 << position for position, other in enumerate(others[start : start + BATCH])}
        above = _bits_above(order, tasks, bits, unsure)
        yield from (at for at, (task, other) in enumerate(uses) if other in bits and not above.get(task, _ALL) & bits[other])


_ALL = -1  # every bit


def _bits_above(order: Sequence[str], tasks: Tasks, bits: Mapping[str, int], unsure: Collection[str]) -> dict[str, int]:
    above: dict[str, int] = {}
    for name in order:
        mine = _ALL if name in unsure else 0
        for need in tasks[name].needs:
            mine |= above.get(need, 0) | bits.get(need, 0)
        above[name] = mine
    return above


def in_order(tasks: Tasks) -> Sequence[str]:
    """The tasks, each below all that it needs, without those in a circle and below one. Needing itself does not count."""
    if _is_declared_in_order(tasks):
        return tuple(tasks)
    waits = {name: sum(need in tasks and need != name for need in task.needs) for name, task in tasks.items()}
    dependents: dict[str, list[str]] = {}
    for name, task in tasks.items():
        for need in task.needs:
            if need != name:
                dependents.setdefault(need, []).append(name)
    order = [name for name, count in waits.items() if count == 0]
    for name in order:  # grows while it is walked
        for dependent in dependents.get(name, ()):
            waits[dependent] -= 1
            if waits[dependent] == 0:
                order.append(dependent)
    return order
