"""What a plan does for a task costs the same in a large job as in a small one: counted in executed lines, not in time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import pytest

from jobrunner.items import Items
from jobrunner.plan import Attempt, Plan
from jobrunner.spec import Job
from jobrunner.work import Outcome, Result

SMALL, LARGE = 60, 480
MOST = 1.35
"""So many times the lines of a task in the small job: a heap and a sorted list take a few more steps where they are longer."""

Tasks = Mapping[str, Mapping[str, Any]]
Story = Callable[[Attempt], Outcome]


def ends_well(attempt: Attempt) -> Outcome:
    return Outcome.SUCCEEDED


def fails_at_first(attempt: Attempt) -> Outcome:
    return Outcome.FAILED if attempt.number == 1 else Outcome.SUCCEEDED


def first_fails(attempt: Attempt) -> Outcome:
    return Outcome.FAILED if attempt.task == "t0" else Outcome.SUCCEEDED


def independent(count: int, **keys: Any) -> Tasks:
    return {f"t{number}": keys for number in range(count)}


def chain(count: int, **keys: Any) -> Tasks:
    return {f"t{number}": {**keys, "needs": [f"t{number - 1}"]} if number else {} for number in range(count)}


def layers(count: int) -> Tasks:
    needs = {number: [f"t{number - 10}", f"t{number - 9}"] for number in range(10, count)}
    return {f"t{number}": {"needs": needs[number]} if number in needs else {} for number in range(count)}


def one_needs_all(count: int) -> Tasks:
    return {**independent(count), "last": {"needs": [f"t{number}" for number in range(count)]}}


def all_need_one(count: int) -> Tasks:
    return {"t0": {}, **{f"t{number}": {"needs": ["t0"]} for number in range(1, count)}}


def one_fan_out(count: int, **keys: Any) -> Tasks:
    return {"t": {"foreach": {"range": count}, **keys}}


def limits_of_their_own(count: int) -> Tasks:
    return {f"t{number}": {"limits": [f"l{number}"]} for number in range(count)}


def lines_of(action: Callable[[], None]) -> int:
    """How many lines of Python it executes, each time round a loop counted."""
    lines = 0

    def count(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        action()
    finally:
        sys.settrace(before)
    return lines


def play(job: Job, story: Story, *, cancels: bool) -> None:
    """The whole run, two attempts at a time; with `cancels` it is stopped when the first two have begun."""

    def items(_: Plan, name: str) -> Items:
        foreach: Any = job.tasks[name].foreach
        return Items(range(foreach.range))

    plan = Plan(job, pools=dict.fromkeys(job.used_pools(), 2), expand=items)
    flying: list[Attempt] = []
    now = 0.0
    plan.begin(now)
    while not plan.done:
        plan.take_stops(now)
        for attempt in plan.take(now):
            plan.began(attempt, now)
            flying.append(attempt)
        if cancels:
            plan.cancel()
        plan.take_skipped()
        wake = plan.next_wake()
        if flying:
            attempt = flying.pop(0)
            plan.apply(attempt, Result(id=attempt.id, outcome=story(attempt)), now)
        else:
            now = now if wake is None else wake
    assert isinstance(plan.failed, bool)


@pytest.mark.parametrize(
    ("tasks", "story", "cancels", "keys"),
    [
        pytest.param(independent, ends_well, False, {}, id="independent"),
        pytest.param(chain, ends_well, False, {}, id="a chain"),
        pytest.param(layers, ends_well, False, {}, id="layers"),
        pytest.param(one_needs_all, ends_well, False, {}, id="one needs all"),
        pytest.param(all_need_one, ends_well, False, {}, id="all need one"),
        pytest.param(all_need_one, first_fails, False, {}, id="all are skipped at once"),
        pytest.param(chain, first_fails, False, {}, id="all of a chain are skipped"),
        pytest.param(independent, ends_well, True, {}, id="all are cancelled"),
        pytest.param(independent, first_fails, False, {"fail_fast": True}, id="the first failure ends all"),
        pytest.param(one_fan_out, ends_well, False, {}, id="items"),
        pytest.param(lambda count: one_fan_out(count, retry={"max": 1, "delay": 9}), fails_at_first, False, {}, id="retries"),
        pytest.param(lambda count: independent(count, timeout=9), ends_well, False, {}, id="timeouts"),
        pytest.param(lambda count: independent(count, limits=["one"]), ends_well, False, {}, id="a limit"),
        pytest.param(limits_of_their_own, ends_well, False, {}, id="a limit each"),
    ],
)
def test_a_task_of_a_large_job_takes_no_more_steps_than_one_of_a_small_one(
    tasks: Callable[[int], Tasks], story: Story, cancels: bool, keys: Mapping[str, Any]
) -> None:
    def steps(count: int) -> float:
        given = {name: {"target": "m:f", **task} for name, task in tasks(count).items()}
        limits = {limit: 1 for task in given.values() for limit in task.get("limits", ())}
        job = Job.model_validate({"name": "test", "mode": "thread_pool", "tasks": given, "limits": limits, **keys})
        return lines_of(lambda: play(job, story, cancels=cancels)) / count

    steps(2)  # what is done once for all, such as an import, is not counted
    assert steps(LARGE) <= MOST * steps(SMALL)
