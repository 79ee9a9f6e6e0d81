"""In which order ready work is taken where it is known how long it takes: what has the longest way to go comes first. Pure.

    rank(task) = its own seconds + the largest rank of those that need it          turn = place by rank, then as declared

All that takes more than one worker long is on such a way, so the run cannot end before it; what is on none can wait. A tenth more
or less is no reason to leave the declared order: durations differ by as much from run to run.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

from jobrunner.typed import TypeVar

_ABOUT, _NOTHING = 1.1, 0.01
"""So many times, and so many seconds, two may differ and count as equal."""
T = TypeVar("T", bound=Hashable)

Needs = Mapping[str, Sequence[str]]


def turns(needs: Needs, seconds: Mapping[str, float]) -> dict[str, int]:
    """The place of each task in the order in which ready ones are taken, from 0 on; `needs` has them in declared order.

    `seconds` are those of one instance, where a task has several. Linear in tasks and needs, but for the sorting.
    """
    return {name: turn for turn, name in enumerate(_largest_first(ranks(needs, seconds)))}


def ranks(needs: Needs, seconds: Mapping[str, float]) -> dict[str, float]:
    """The longest remaining path of each task, in seconds, itself included."""
    found = dict.fromkeys(needs, 0.0)
    for name in reversed(_in_order(needs)):  # all that need it stand behind it: what is longest of them is known
        rank = found[name] = found[name] + seconds[name]
        for need in needs[name]:
            if found.get(need, rank) < rank:
                found[need] = rank
    return found


def longest_first(keys: Sequence[str], known: Mapping[str, float]) -> list[int]:
    """The positions of the items of one fan-out in the order in which they are taken; unknown ones last as the mean of all."""
    mean = _mean(known.values())
    return _largest_first({index: known.get(key, mean) for index, key in enumerate(keys)})


def estimated(
    needs: Needs, known: Mapping[str, float], *, kind: Callable[[str], Hashable] = lambda name: None
) -> Mapping[str, float]:
    """The seconds of every task: of one that is not known those of its siblings in the mean, which are the tasks of the same
    `kind` that are as many steps from the beginning; where none is known, those of its step, else of all."""
    if all(name in known for name in needs):
        return known
    steps = _steps(needs)
    siblings, peers = defaultdict[Hashable, list[float]](list), defaultdict[int, list[float]](list)
    for name, seconds in known.items():
        if (step := steps.get(name)) is not None:
            siblings[step, kind(name)].append(seconds)
            peers[step].append(seconds)
    of_kind = {key: _mean(each) for key, each in siblings.items()}
    of_step = {step: _mean(each) for step, each in peers.items()}
    of_all = _mean([seconds for each in peers.values() for seconds in each])
    guessed = {}
    for name, step in steps.items():
        if name not in known:
            found = of_kind.get((step, kind(name)))
            guessed[name] = of_step.get(step, of_all) if found is None else found
    return {**known, **guessed}


def _largest_first(seconds: Mapping[T, float]) -> list[T]:
    """In groups that differ; within one, as they stand there. A group goes from its largest down to about as much."""
    ascending, edges = sorted(seconds.values()), list[float]()
    left = len(ascending)
    while left:
        edges.append(ascending[left - 1] / _ABOUT - _NOTHING)
        left = bisect_left(ascending, edges[-1], 0, left)
    edges.reverse()
    return sorted(seconds, key=lambda each: -bisect_right(edges, seconds[each]))


def _in_order(needs: Needs) -> Sequence[str]:
    """All tasks, each behind those that it needs. What is needed and not among them does not count."""
    seen: set[str] = set()
    for name, wanted in needs.items():
        for need in wanted:
            if need not in seen and need in needs:
                return _sorted(needs)
        seen.add(name)
    return list(needs)  # nearly always: people declare what is needed first


def _sorted(needs: Needs) -> list[str]:
    dependents: dict[str, list[str]] = {name: [] for name in needs}
    blockers = {}
    for name, wanted in needs.items():
        present = [need for need in wanted if need in dependents]
        blockers[name] = len(present)
        for need in present:
            dependents[need].append(name)
    order = [name for name, count in blockers.items() if not count]
    for name in order:  # grows while it is read
        for dependent in dependents[name]:
            blockers[dependent] -= 1
            if not blockers[dependent]:
                order.append(dependent)
    return order


def _steps(needs: Needs) -> dict[str, int]:
    """How many tasks come before each, one after the other, at most."""
    steps: dict[str, int] = {}
    for name in _in_order(needs):
        longest = 0
        for need in needs[name]:
            if steps.get(need, -1) >= longest:
                longest = steps[need] + 1
        steps[name] = longest
    return steps


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values) if values else 0.0
