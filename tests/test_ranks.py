"""The order of ready work where durations are known: the longest remaining path first, as declared where nothing is known."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner.items import Items
from jobrunner.plan import Attempt, Plan
from jobrunner.plan.ranks import estimated, longest_first, ranks, turns
from jobrunner.plan.rehearsal import Stage, better, play
from jobrunner.spec import Job, Task
from jobrunner.work import Outcome, Result

Graph = dict[str, list[str]]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, dict[str, float]]:
    """Needs without a circle, declared in any order, and seconds for every task."""
    count = draw(st.integers(1, 9))
    needs = {f"t{n}": [f"t{m}" for m in range(n) if draw(st.booleans())] for n in range(count)}
    declared = draw(st.permutations(list(needs)))
    seconds = {name: draw(st.floats(0, 1e6)) for name in needs}
    return {name: needs[name] for name in declared}, seconds


def longest_path(needs: Graph, seconds: Mapping[str, float], name: str) -> float:
    """By looking at every path."""
    behind = (longest_path(needs, seconds, other) for other, wanted in needs.items() if name in wanted)
    return seconds[name] + max(behind, default=0.0)


@given(graphs())
def test_a_rank_is_the_longest_remaining_path(graph: tuple[Graph, dict[str, float]]) -> None:
    needs, seconds = graph
    found = ranks(needs, seconds)
    assert list(found) == list(needs)
    for name in needs:
        assert math.isclose(found[name], longest_path(needs, seconds, name), rel_tol=1e-9, abs_tol=1e-9)


@given(graphs(), st.data())
def test_turns_are_places_and_what_others_wait_for_comes_first(
    graph: tuple[Graph, dict[str, float]], data: st.DataObject
) -> None:
    needs, seconds = graph
    known = {name: seconds[name] for name in data.draw(st.sets(st.sampled_from(list(needs))))}
    found = turns(needs, estimated(needs, known))
    assert sorted(found.values()) == list(range(len(needs)))
    if known == seconds:
        longest = max(ranks(needs, seconds).values())
        assert ranks(needs, seconds)[min(needs, key=found.__getitem__)] >= longest / 1.11 - 0.01


@given(graphs())
def test_without_a_difference_the_order_is_the_declared_one(graph: tuple[Graph, dict[str, float]]) -> None:
    needs, _ = graph
    as_declared = {name: place for place, name in enumerate(needs)}
    assert turns(needs, estimated(needs, {})) == as_declared
    assert turns({name: [] for name in needs}, dict.fromkeys(needs, 3.0)) == as_declared


@pytest.mark.parametrize(
    ("needs", "known", "order"),
    [
        pytest.param({"a": [], "b": []}, {"a": 1, "b": 2}, "ba", id="the longer of two"),
        pytest.param({"a": [], "b": [], "c": ["b"]}, {"a": 2, "b": 1, "c": 5}, "bca", id="what something long waits for"),
        pytest.param({"a": [], "b": []}, {"a": 1.0, "b": 1.03}, "ab", id="about as long: as declared"),
        pytest.param({"a": [], "b": []}, {"a": 0.001, "b": 0.009}, "ab", id="nothing to gain: as declared"),
        pytest.param({"a": ["b"], "b": []}, {"a": 1, "b": 1}, "ba", id="needed, and declared later"),
        pytest.param({"a": ["gone"], "b": []}, {"a": 1, "b": 2, "gone": 9}, "ba", id="what was not selected does not count"),
        pytest.param({"a": ["b", "b"], "b": [], "c": []}, {"a": 1, "b": 1, "c": 1.5}, "bca", id="needed twice"),
    ],
)
def test_what_has_the_longest_way_to_go_is_first(needs: Graph, known: dict[str, float], order: str) -> None:
    found = turns(needs, known)
    assert "".join(sorted(needs, key=found.__getitem__)) == order


@pytest.mark.parametrize(
    ("known", "order"),
    [
        pytest.param({"x1": 8, "y1": 1}, "x1 x2 y1 y2 z", id="the mean of those of the same kind"),
        pytest.param({"x1": 1, "y1": 8}, "y1 y2 x1 x2 z", id="whichever that is"),
        pytest.param({"x1": 8, "x2": 2, "y2": 4}, "x1 y1 y2 x2 z", id="a kind of which one is known"),
        pytest.param({"x1": 8, "x2": 8}, "x1 x2 y1 y2 z", id="another kind: the mean of the step"),
    ],
)
def test_what_is_not_known_lasts_as_its_siblings_do(known: dict[str, float], order: str) -> None:
    needs: Graph = {"x1": [], "x2": [], "y1": [], "y2": [], "z": ["x1", "x2", "y1", "y2"]}
    found = turns(needs, estimated(needs, known, kind=lambda name: name[0]))
    assert sorted(needs, key=found.__getitem__) == order.split()


def test_a_chain_of_a_hundred_thousand_tasks_is_no_matter_of_depth() -> None:
    needs = {f"t{n}": [f"t{n - 1}"] if n else [] for n in range(100_000)}
    found = ranks(needs, dict.fromkeys(needs, 1.0))
    assert (found["t0"], found["t99999"]) == (100_000, 1)
    backwards = dict(reversed(needs.items()))
    assert turns(backwards, dict.fromkeys(needs, 1.0))["t99999"] > turns(backwards, dict.fromkeys(needs, 1.0))["t0"]


@pytest.mark.parametrize(
    ("known", "order"),
    [
        ({"a": 1, "b": 3, "c": 2}, [1, 2, 0]),
        ({"a": 1, "c": 3}, [2, 1, 0]),
        ({"a": 1.0, "b": 1.02, "c": 1.01}, [0, 1, 2]),
        ({}, [0, 1, 2]),
    ],
)
def test_the_longest_item_is_first_and_an_unknown_one_as_long_as_the_mean(known: dict[str, float], order: list[int]) -> None:
    assert longest_first(["a", "b", "c"], known) == order


# --- tried out before the run -------------------------------------------------------------------------------------------------


def stage_of(needs: Graph, seconds: Mapping[str, float], workers: int = 2, bound: Collection[str] = ()) -> Stage:
    pools = dict.fromkeys(needs, "p")
    return Stage(needs=needs, seconds=seconds, pools=pools, workers={"p": workers}, bound=frozenset(bound))


@given(graphs(), st.integers(1, 4))
def test_the_order_that_is_taken_is_over_no_later_than_order_of_arrival(
    graph: tuple[Graph, dict[str, float]], workers: int
) -> None:
    needs, seconds = graph
    stage = stage_of(needs, seconds, workers)
    over, begun = play(stage, better(stage, turns(needs, seconds)))
    assert sorted(begun) == sorted(needs)
    assert over <= play(stage, None)[0] * (1 + 1e-9)


@given(graphs(), st.integers(1, 4))
def test_what_is_played_is_what_the_plan_does(graph: tuple[Graph, dict[str, float]], workers: int) -> None:
    needs, seconds = graph
    turn = turns(needs, seconds)
    _, begun = play(stage_of(needs, seconds, workers), turn)
    assert taken(plan_of({name: {"needs": each} for name, each in needs.items()}, turn, workers=workers), seconds) == begun


def test_a_rule_of_thumb_that_is_worse_this_time_is_not_followed() -> None:
    stage = stage_of({"a": [], "b": [], "c": []}, {"a": 4.0, "b": 2.0, "c": 2.0})
    worse, arrival = {"b": 0, "c": 1, "a": 2}, {"a": 0, "b": 1, "c": 2}
    assert (play(stage, worse)[0], play(stage, None)[0]) == (6.0, 4.0)
    assert better(stage, worse) == arrival
    assert better(stage, {"a": 0, "c": 1, "b": 2}) == {"a": 0, "c": 1, "b": 2}  # no worse


def test_a_pool_that_keeps_declared_order_keeps_it_in_the_rehearsal() -> None:
    needs: Graph = {"a": [], "b": [], "c": []}
    stage = stage_of(needs, {"a": 1.0, "b": 2.0, "c": 3.0}, workers=1, bound=["p"])
    assert play(stage, {"c": 0, "b": 1, "a": 2})[1] == ["a", "b", "c"]


# --- the plan takes it up ---------------------------------------------------------------------------------------------------


def plan_of(
    tasks: Mapping[str, Mapping[str, Any]],
    turn: Mapping[str, int] | None = None,
    sequence: Sequence[int] | None = None,
    workers: int = 1,
    limits: Mapping[str, int] | None = None,
    finals: Mapping[str, Task] | None = None,
) -> Plan:
    job = Job.model_validate(
        {"name": "test", "tasks": {name: {"run": "true", **task} for name, task in tasks.items()}, "limits": limits or {}}
    )
    job = job.model_copy(update={"tasks": {**job.tasks, **(finals or {})}, "finals": dict(finals or {})})  # as a reader gives it

    def expand(plan: Plan, name: str) -> Items:
        items = job.tasks[name].foreach
        assert isinstance(items, list)
        return Items(items)

    pools = dict.fromkeys(job.used_pools(), workers)
    return Plan(job, pools=pools, expand=expand, turns=turn, arrange=lambda name, items: sequence)


def taken(plan: Plan, seconds: Mapping[str, float] | None = None) -> list[str]:
    """The order in which attempts are taken; each lasts as long as `seconds` says."""
    order: list[str] = []
    running: list[tuple[float, int, Attempt]] = []
    now = 0.0
    while True:
        for attempt in plan.take(now):
            order.append(attempt.task if attempt.key is None else f"{attempt.task}[{attempt.key}]")
            heapq.heappush(running, (now + (seconds or {}).get(attempt.task, 1.0), attempt.id, attempt))
        if not running:
            return order
        now, _, ended = heapq.heappop(running)
        plan.apply(ended, Result(id=ended.id, outcome=Outcome.SUCCEEDED), now)


def test_ready_tasks_are_taken_by_their_turns() -> None:
    assert taken(plan_of({"a": {}, "b": {}, "c": {}}, {"a": 2, "b": 1, "c": 0})) == ["c", "b", "a"]


def test_a_turn_never_comes_before_what_is_needed() -> None:
    assert taken(plan_of({"a": {}, "b": {"needs": ["c"]}, "c": {}}, {"b": 0, "a": 1, "c": 2})) == ["a", "c", "b"]


def test_without_turns_the_order_is_the_declared_one() -> None:
    assert taken(plan_of({"a": {}, "b": {}, "c": {}}, {})) == ["a", "b", "c"]


def test_failures_are_told_in_declared_order_whatever_the_turns() -> None:
    plan = plan_of({"a": {}, "b": {}}, {"a": 1, "b": 0})
    for name in ("b", "a"):
        (attempt,) = plan.take(0.0)
        assert attempt.task == name
        plan.apply(attempt, Result(id=attempt.id, outcome=Outcome.FAILED), 0.0)
    assert plan.failures() == ["a", "b"]


def test_final_tasks_come_last_whatever_their_turns() -> None:
    finals = {name: Task.model_validate({"run": "true"}) for name in "yz"}
    plan = plan_of({"a": {}, "b": {}}, {"z": 0, "y": 1, "a": 3, "b": 2}, finals=finals)
    assert taken(plan) == ["b", "a", "z", "y"]


def test_those_who_wait_for_slots_of_a_limit_are_served_in_order_of_arrival() -> None:
    tasks = {name: {"limits": ["one"]} for name in "abc"}
    plan = plan_of(tasks, {"a": 2, "b": 1, "c": 0}, workers=2, limits={"one": 1})
    assert taken(plan) == ["a", "b", "c"]


def test_a_retry_keeps_its_turn() -> None:
    plan = plan_of({"a": {"retry": {"max": 1, "delay": 0}}, "b": {}, "c": {}}, {"a": 0, "c": 1, "b": 2})
    (first,) = plan.take(0.0)
    plan.apply(first, Result(id=first.id, outcome=Outcome.FAILED), 0.0)
    assert taken(plan) == ["a", "c", "b"]


def test_items_are_taken_in_the_order_that_is_asked_for_and_keep_their_places() -> None:
    plan = plan_of({"a": {"foreach": ["x", "y", "z"]}}, sequence=[2, 0, 1])
    found = []
    while attempts := list(plan.take(0.0)):
        (attempt,) = attempts
        found.append((attempt.key, attempt.index, attempt.item))
        value = f'"{attempt.item}"'.encode()
        plan.apply(attempt, Result(id=attempt.id, outcome=Outcome.SUCCEEDED, value=value), 0.0)
    assert found == [("z", 2, "z"), ("x", 0, "x"), ("y", 1, "y")]
    assert [None if each is None else each.json() for each in plan.results("a")] == ["x", "y", "z"]


def test_an_item_that_was_given_back_is_the_next_again() -> None:
    plan = plan_of({"a": {"foreach": ["x", "y", "z"]}}, sequence=[2, 0, 1])
    (first,) = plan.take(0.0)
    plan.give_back(first)
    assert taken(plan) == ["a[z]", "a[x]", "a[y]"]


def test_with_what_is_known_the_long_chain_is_not_left_for_the_end() -> None:
    tasks: dict[str, dict[str, list[str]]] = {f"short{n}": {} for n in range(6)} | {"long": {}, "longer": {"needs": ["long"]}}
    seconds = dict.fromkeys(tasks, 1.0) | {"long": 3.0, "longer": 3.0}
    needs = {name: task.get("needs", []) for name, task in tasks.items()}
    assert taken(plan_of(tasks, turns(needs, seconds), workers=2), seconds)[0] == "long"
