"""What a plan begins with: its nodes, the slots of its limits, and the pools in which calls may wait in hosts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from jobrunner.kinds import Limit
from jobrunner.plan.node import Kind, Node
from jobrunner.plan.semaphores import Outside, Semaphores
from jobrunner.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from jobrunner.plan.packing import Packing
    from jobrunner.spec import Job


def nodes(job: Job, only: Collection[str], turns: Mapping[str, int], packing: Packing | None) -> dict[str, Node]:
    """The tasks that were selected, in declared order."""
    finals, pool_of = job.finals, job.pool_of
    found = {
        name: Node(name, order, task, pool_of(name), name in finals)
        for order, (name, task) in enumerate(job.tasks.items())
        if not only or name in only
    }
    for name, turn in turns.items():
        found[name].turn = turn
    for name, need in packing.needs.items() if packing is not None else ():
        if name in found:
            found[name].memory = need
    return found


def semaphores(job: Job, outside: Outside | None) -> Semaphores[Node]:
    slots = {name: rule.slots if isinstance(rule, Limit) else rule for name, rule in job.limits.items()}
    shared = frozenset(name for name, rule in job.limits.items() if isinstance(rule, Limit) and rule.scope == "host")
    return Semaphores(slots, shared=frozenset() if outside is None else shared, outside=outside)


def plain_pools(nodes: Collection[Node]) -> frozenset[str]:
    """The pools all of whose tasks take no slots, may run again, and are not looked up anywhere first.

    Who waits for slots or memory is asked when a worker is free, which one that has work ahead never is; and what fail_fast
    stops, or may run only once, should not have been handed out.
    """
    return frozenset({node.pool for node in nodes} - {node.pool for node in nodes if not _is_plain(node)})


def _is_plain(node: Node) -> bool:
    task = node.task
    leaves = task.stop.leftover == "allow"  # it may stay where it is a child of the engine
    return not (node.takes or node.memory or task.at_most_once or task.cache or task.resources or leaves)


def mark_uniform(nodes: Collection[Node], pools: Collection[str], keeps: Callable[[str], bool]) -> None:
    """Find the tasks in these pools whose attempts differ in what their target is given, and whose results nobody asks for."""
    kinds: dict[Kind, Kind] = {}
    for node in nodes:
        task = node.task
        around = task.env or task.secrets or task.condition or "${{" in (task.cwd or "")
        if task.target is not None and not around and node.pool in pools and not keeps(node.name):
            kind = task.target, task.cwd, task.timeout, node.is_final
            node.kind = kinds.setdefault(kind, kind)


def calling_pools(nodes: Collection[Node]) -> set[str]:
    """The pools in which targets run."""
    return {node.pool for node in nodes if node.task.target is not None}


def mixed_pools(nodes: Collection[Node], calling: set[str]) -> set[str]:
    """Those of the `calling` pools that have commands too."""
    return calling & {node.pool for node in nodes if node.task.target is None}
