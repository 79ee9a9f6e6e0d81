"""Conditions, final tasks, limits and chosen retries in the plan, driven by hand; then any job against an obvious model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner import expressions
from jobrunner.errors import ExpressionError
from jobrunner.items import Items
from jobrunner.plan import Attempt, Plan, Skip, Skipped
from jobrunner.spec import Job, Task
from jobrunner.work import Error, Outcome, Result

SUCCEEDED, FAILED, TIMED_OUT, CRASHED = Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED
CANCELLED, SKIPPED = Outcome.CANCELLED, Outcome.SKIPPED

Tasks = Mapping[str, Mapping[str, Any]]


def job_of(tasks: Tasks, finals: Tasks | None = None, **keys: Any) -> Job:
    """A job of commands as the loader hands it on: the final tasks stand behind the others."""
    spelled = {
        key: {name: {"run": "true", **task} for name, task in rows.items()}
        for key, rows in (("tasks", tasks), ("finally", finals or {}))
    }
    job = Job.model_validate({"name": "test", **spelled, **keys})
    return job.model_copy(update={"tasks": {**job.tasks, **job.finals}})


def judge(plan: Plan, job: Job, name: str, item: object = None) -> bool:
    """What the condition of a task says, as the binder evaluates it."""
    met = plan.needs_met(name)
    scope = {"success()": met, "failure()": not met, "always()": True, "item": item, "params": {}}
    return bool(expressions.condition(job.tasks[name].condition or "true").value(scope))


def plan_of(tasks: Tasks, finals: Tasks | None = None, *, workers: int | Mapping[str, int] = 8, **keys: Any) -> Plan:
    outside = keys.pop("outside", None)
    job = job_of(tasks, finals, **keys)
    return Plan(
        job,
        pools={"default": workers} if isinstance(workers, int) else workers,
        expand=lambda plan, name: items_of(job.tasks[name]),
        decide=lambda plan, name: judge(plan, job, name),
        outside=outside,
    )


def items_of(task: Task) -> Items:
    assert isinstance(task.foreach, list), "these tests spell their items out"
    return Items(task.foreach)


def take(plan: Plan, now: float = 0.0) -> list[Attempt]:
    return list(plan.take(now))


def names(attempts: list[Attempt]) -> list[str]:
    return [each.task if each.key is None else f"{each.task}[{each.key}]" for each in attempts]


def end(plan: Plan, attempt: Attempt, outcome: Outcome = SUCCEEDED, now: float = 0.0, **facts: Any) -> float | None:
    """Its end; when it is tried again."""
    return plan.apply(attempt, Result(id=attempt.id, outcome=outcome, **facts), now).retry_at


def run(plan: Plan, outcomes: Mapping[str, Outcome] | None = None) -> list[str]:
    """Run to the end, all that can start at once; the names of what ran."""
    ran: list[str] = []
    while not plan.done:
        attempts = take(plan)
        plan.take_stops(0.0)
        assert attempts or plan.done, "stuck"
        ran += names(attempts)
        for attempt in attempts:
            end(plan, attempt, (outcomes or {}).get(attempt.task, SUCCEEDED))
    return ran


# --- if ----------------------------------------------------------------------------------------------------------------------

DIAMOND: Tasks = {"a": {}, "b": {}, "c": {"needs": ["a", "b"]}}


@pytest.mark.parametrize(
    ("condition", "outcomes", "runs"),
    [
        (None, {}, True),
        ("true", {}, True),
        ("false", {}, False),
        ("success()", {}, True),
        ("failure()", {}, False),
        ("always()", {}, True),
        ("always() and false", {}, False),
        (None, {"a": FAILED}, False),
        ("true", {"a": FAILED}, False),
        ("success()", {"a": FAILED}, False),
        ("failure()", {"a": FAILED}, True),
        ("failure()", {"b": CRASHED}, True),
        ("failure()", {"a": TIMED_OUT, "b": FAILED}, True),
        ("always()", {"a": FAILED}, True),
        ("${{ not success() }}", {"a": FAILED}, True),
    ],
)
def test_a_condition_says_whether_a_task_runs(condition: str | None, outcomes: dict[str, Outcome], runs: bool) -> None:
    tasks = {**DIAMOND, "c": {**DIAMOND["c"], **({} if condition is None else {"if": condition})}}
    assert ("c" in run(plan_of(tasks), outcomes)) is runs


def test_a_task_that_its_condition_skips_counts_as_met_and_the_run_stays_green() -> None:
    plan = plan_of({"a": {"if": "false"}, "b": {"needs": ["a"]}})
    assert run(plan) == ["b"]
    assert plan.take_skipped() == [Skipped(task="a", reason=Skip.CONDITION)]
    assert plan.states == {"a": SKIPPED, "b": SUCCEEDED}
    assert not plan.failed


def test_what_its_needs_skip_names_the_cause_though_it_has_a_condition() -> None:
    plan = plan_of({"a": {}, "b": {"needs": ["a"], "if": "true"}})
    run(plan, {"a": FAILED})
    assert plan.take_skipped() == [Skipped(task="b", reason=Skip.NEEDS, cause="a", cause_outcome="failed")]


def test_a_condition_that_asks_for_failures_waits_until_all_needs_have_ended() -> None:
    plan = plan_of({**DIAMOND, "c": {**DIAMOND["c"], "if": "failure()"}})
    a, b = take(plan)
    end(plan, a, FAILED)
    assert take(plan) == []
    end(plan, b)
    assert names(take(plan)) == ["c"]


def test_a_failure_is_over_for_those_behind_a_task_that_ran_all_the_same() -> None:
    plan = plan_of(
        {"a": {}, "b": {"needs": ["a"], "if": "always()"}, "c": {"needs": ["b"]}, "d": {"needs": ["b"], "if": "failure()"}}
    )
    assert run(plan, {"a": FAILED}) == ["a", "b", "c"]
    assert plan.failed


def test_a_forgiven_failure_is_no_failure() -> None:
    plan = plan_of(
        {"a": {"continue_on_error": True}, "b": {"needs": ["a"], "if": "failure()"}, "c": {"needs": ["a"], "if": "success()"}}
    )
    assert run(plan, {"a": FAILED}) == ["a", "c"]
    assert not plan.failed


def test_a_condition_that_cannot_be_judged_fails_its_task() -> None:
    def decide(plan: Plan, name: str) -> bool:
        raise ExpressionError("no such thing")

    job = job_of({"a": {"if": "params.x"}, "b": {"needs": ["a"]}, "c": {"if": "params.x", "foreach": [1, 2]}})
    plan = Plan(job, pools={"default": 4}, expand=lambda plan, name: Items([1, 2]), decide=decide)
    attempts = take(plan)
    assert names(attempts) == ["a", "c"], "a fan-out fails once, not for each item"
    assert [each.refused and each.refused.message for each in attempts] == ["if: no such thing"] * 2


def test_a_condition_that_looks_at_the_item_is_for_each_instance_to_judge() -> None:
    plan = plan_of({"a": {"foreach": [1, 2, 3], "if": "item != 2"}, "b": {"needs": ["a"]}})
    one, two, three = take(plan)
    assert one.is_conditional
    plan.apply(two, Result(id=two.id, outcome=SKIPPED), 0.0, recorded=True)
    end(plan, one)
    end(plan, three)
    assert plan.states["a"] is SUCCEEDED
    assert [each is None for each in plan.results("a")] == [False, True, False]
    assert names(take(plan)) == ["b"]


def test_a_fan_out_of_which_every_item_is_skipped_succeeds() -> None:
    plan = plan_of({"a": {"foreach": [1, 2], "if": "item > 5"}})
    for attempt in take(plan):
        plan.apply(attempt, Result(id=attempt.id, outcome=SKIPPED), 0.0, recorded=True)
    assert plan.done
    assert not plan.failed


def test_a_long_chain_of_conditions_does_not_recurse() -> None:
    tasks = {f"t{at}": {"needs": [f"t{at - 1}"] if at else [], "if": "false"} for at in range(5000)}
    plan = plan_of(tasks)
    assert plan.done


# --- finally -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED, CRASHED, TIMED_OUT])
def test_final_tasks_start_when_all_others_have_ended_whatever_the_outcome(outcome: Outcome) -> None:
    plan = plan_of({"a": {}, "b": {"needs": ["a"]}, "c": {}}, {"tidy": {}})
    first = take(plan)
    assert names(first) == ["a", "c"]
    end(plan, first[0], outcome)
    second = take(plan)
    assert "tidy" not in names(second)
    for attempt in (first[1], *second):
        end(plan, attempt)
    assert names(take(plan)) == ["tidy"]


@pytest.mark.parametrize(
    ("condition", "outcomes", "runs"),
    [
        ("success()", {}, True),
        ("failure()", {}, False),
        ("always()", {}, True),
        ("success()", {"a": FAILED}, False),
        ("failure()", {"a": FAILED}, True),
        ("true", {"a": FAILED}, True),
        ("failure()", {"forgiven": FAILED}, False),
        ("false", {"a": FAILED}, False),
    ],
)
def test_the_condition_of_a_final_task_speaks_of_all_tasks(condition: str, outcomes: dict[str, Outcome], runs: bool) -> None:
    plan = plan_of({"a": {}, "forgiven": {"continue_on_error": True}}, {"tell": {"if": condition}})
    assert ("tell" in run(plan, outcomes)) is runs


def test_final_tasks_may_need_each_other_and_no_failure_of_the_job_stands_in_their_way() -> None:
    finals: Tasks = {
        "second": {"needs": ["first"]},
        "first": {},
        "third": {"needs": ["second"]},
        "last": {"needs": ["second"], "if": "always()"},
    }
    plan = plan_of({"a": {}}, finals)
    assert run(plan, {"a": FAILED, "second": FAILED}) == ["a", "first", "second", "last"]
    assert plan.states["third"] is SKIPPED
    assert plan.failed


def test_a_final_task_that_fails_makes_the_run_fail() -> None:
    plan = plan_of({"a": {}}, {"tidy": {}})
    run(plan, {"tidy": FAILED})
    assert plan.failed


def test_final_tasks_run_after_the_run_was_stopped_and_only_a_second_wish_cancels_them() -> None:
    plan = plan_of({"a": {}, "b": {"needs": ["a"]}}, {"tidy": {"foreach": [1, 2]}, "last": {"needs": ["tidy"]}}, workers=1)
    (attempt,) = take(plan)
    plan.cancel()
    assert plan.take_stops(0.0) == [attempt]
    end(plan, attempt)
    assert plan.states["a"] is CANCELLED
    (tidy,) = take(plan)
    assert names([tidy]) == ["tidy[1]"]
    plan.cancel()
    assert plan.take_stops(0.0) == []
    plan.cancel(finals=True)
    assert plan.take_stops(0.0) == [tidy]
    end(plan, tidy)
    assert plan.done
    assert plan.states == {"a": CANCELLED, "b": SKIPPED, "tidy": CANCELLED, "last": SKIPPED}


def test_final_tasks_run_after_a_failure_that_ends_all_and_after_the_jobs_time() -> None:
    plan = plan_of({"a": {}, "b": {}}, {"tidy": {"retry": {"max": 1, "delay": 0}}}, fail_fast=True)
    a, b = take(plan)
    end(plan, a, FAILED)
    end(plan, b, FAILED)
    (tidy,) = take(plan)
    assert end(plan, tidy, FAILED) == 0.0, "a final task is tried again as it says, though the run was cancelled"
    timed = plan_of({"a": {}}, {"tidy": {}}, timeout=5)
    timed.begin(0.0)
    (attempt,) = take(timed)
    assert timed.take_stops(5.0) == [attempt]
    end(timed, attempt, now=5.0)
    (tidy,) = take(timed, 5.0)
    assert timed.next_wake() is None, "the time of the job is over for its tasks, not for the final ones"
    assert timed.take_stops(100.0) == []


def test_where_only_final_tasks_are_selected_they_start_at_once() -> None:
    job = job_of({"a": {}}, {"tidy": {}})
    plan = Plan(job, pools={"default": 1}, expand=lambda plan, name: Items([]), only=["tidy"])
    assert names(take(plan)) == ["tidy"]


def test_time_that_is_told_to_begin_again_counts_from_then() -> None:
    plan = plan_of({"a": {"timeout": 5}})
    (attempt,) = take(plan)
    plan.began(attempt, 0.0)
    plan.began(attempt, 3.0)
    assert plan.next_wake() == 8.0
    assert plan.take_stops(5.0) == []
    assert plan.take_stops(8.0) == [attempt]


# --- retry of chosen failures --------------------------------------------------------------------------------------------------

ERROR = Error(type="ConnectionResetError", message="x", kinds=("ConnectionResetError", "ConnectionError", "OSError", "Exception"))
FOREIGN = Error(type="Timeout", message="x", kinds=("requests.exceptions.Timeout", "OSError", "Exception"))


@pytest.mark.parametrize(
    ("rule", "outcome", "facts", "again"),
    [
        ({}, FAILED, {"exit_code": 1}, True),
        ({"exit_codes": [75]}, FAILED, {"exit_code": 75}, True),
        ({"exit_codes": [75]}, FAILED, {"exit_code": 1}, False),
        ({"exit_codes": [75]}, TIMED_OUT, {}, True),
        ({"exit_codes": [75]}, CRASHED, {"signal": 9}, True),
        ({"exceptions": ["ConnectionError"]}, FAILED, {"error": ERROR}, True),
        ({"exceptions": ["OSError"]}, FAILED, {"error": FOREIGN}, True),
        ({"exceptions": ["Timeout"]}, FAILED, {"error": FOREIGN}, True),
        ({"exceptions": ["requests.exceptions.Timeout"]}, FAILED, {"error": FOREIGN}, True),
        ({"exceptions": ["ValueError"]}, FAILED, {"error": FOREIGN}, False),
        ({"exceptions": ["out"]}, FAILED, {"error": FOREIGN}, False),
        ({"exceptions": ["ValueError"]}, FAILED, {}, False),
        ({"exit_codes": [3], "exceptions": ["ValueError"]}, FAILED, {"exit_code": 3}, True),
    ],
)
def test_only_the_chosen_failures_are_tried_again(
    rule: dict[str, Any], outcome: Outcome, facts: dict[str, Any], again: bool
) -> None:
    plan = plan_of({"a": {"retry": {"max": 1, "delay": 0, **rule}}})
    (attempt,) = take(plan)
    assert (end(plan, attempt, outcome, **facts) is not None) is again


# --- limits ------------------------------------------------------------------------------------------------------------------


def test_no_more_slots_of_a_limit_are_taken_than_there_are_over_all_tasks_and_pools() -> None:
    tasks: Tasks = {
        "a": {"limits": ["api"], "foreach": [1, 2]},
        "b": {"limits": {"api": 2}, "pool": "other"},
        "c": {"limits": ["api"]},
    }
    plan = plan_of(tasks, workers={"default": 8, "other": 8}, limits={"api": 2}, pools={"other": {}})
    order = []
    while not plan.done:
        attempts = take(plan)
        assert sum(2 if each.task == "b" else 1 for each in attempts) <= 2
        order += names(attempts)
        for attempt in attempts:
            end(plan, attempt)
    assert order == ["a[1]", "b", "c", "a[2]"], "first come, first served"


def test_who_needs_all_slots_is_not_starved_by_those_who_need_one() -> None:
    plan = plan_of({"small": {"limits": ["api"], "foreach": list(range(6))}, "large": {"limits": {"api": 2}}}, limits={"api": 2})
    order: list[str] = []
    flying = take(plan)
    while flying:
        attempt = flying.pop(0)
        order.append(attempt.task)
        end(plan, attempt)
        flying += take(plan)
    assert plan.done
    assert order.index("large") < 4


def test_what_waits_for_a_limit_holds_no_worker() -> None:
    plan = plan_of({"a": {"limits": ["one"], "foreach": [1, 2, 3]}, "b": {}}, limits={"one": 1}, workers=2)
    assert names(take(plan)) == ["a[1]", "b"]


def test_a_waiting_retry_holds_no_slot() -> None:
    plan = plan_of(
        {"a": {"limits": ["one"], "retry": {"max": 1, "delay": 10, "jitter": 0}}, "b": {"limits": ["one"]}}, limits={"one": 1}
    )
    (a,) = take(plan)
    assert end(plan, a, FAILED) == 10.0
    assert names(take(plan)) == ["b"]


@dataclass
class Others:
    """Slots that other runs hold and give back."""

    free: int
    taken: int = 0

    def take(self, wanted: Mapping[str, int]) -> bool:
        if sum(wanted.values()) > self.free:
            return False
        self.free -= sum(wanted.values())
        self.taken += sum(wanted.values())
        return True

    def give(self, taken: Mapping[str, int]) -> None:
        self.free += sum(taken.values())


def test_slots_that_other_runs_hold_are_asked_for_again_soon() -> None:
    others = Others(free=0)
    plan = plan_of({"a": {"limits": ["db"]}, "b": {}}, limits={"db": {"slots": 1, "scope": "host"}}, outside=others)
    (b,) = take(plan)
    assert b.task == "b"
    wake = plan.next_wake()
    assert wake is not None
    assert 0 < wake <= 1
    assert take(plan, wake) == []
    others.free = 1
    (a,) = take(plan, wake + 1)
    assert plan.next_wake() is None
    end(plan, a)
    assert others.free == 1


# --- any job, against an obvious model ---------------------------------------------------------------------------------------

CONDITIONS = [
    None,
    "true",
    "false",
    "success()",
    "failure()",
    "always()",
    "failure() and true",
    "item != 1",
    "always() and item != 1",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    tasks: dict[str, dict[str, Any]]
    finals: dict[str, dict[str, Any]]
    limits: dict[str, int]
    workers: dict[str, int]
    seed: int


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    limits = {"x": draw(st.integers(1, 3)), "y": draw(st.integers(1, 3))}

    def rows(prefix: str, count: int) -> dict[str, dict[str, Any]]:
        every = [f"{prefix}{number}" for number in range(count)]
        made: dict[str, dict[str, Any]] = {}
        for number, name in enumerate(every):
            task: dict[str, Any] = {
                "needs": draw(st.lists(st.sampled_from(every[:number]), unique=True, max_size=3)) if number else []
            }
            if draw(st.booleans()):
                task["foreach"] = draw(st.lists(st.integers(0, 3), max_size=4, unique=True))
            condition = draw(st.sampled_from(CONDITIONS))
            if condition is not None and ("item" not in condition or "foreach" in task):
                task["if"] = condition
            if draw(st.booleans()):
                task["retry"] = {"max": draw(st.integers(0, 2)), "delay": draw(st.integers(0, 2)), "jitter": 0}
                if draw(st.booleans()):
                    task["retry"]["exit_codes"] = [1]
            taken = draw(st.dictionaries(st.sampled_from(["x", "y"]), st.integers(1, 3)))
            task["limits"] = {each: min(count, limits[each]) for each, count in taken.items()}
            task["pool"] = draw(st.sampled_from(["p", "q"]))
            task["continue_on_error"] = draw(st.booleans())
            made[name] = task
        return {name: made[name] for name in draw(st.permutations(every))}

    return Scenario(
        tasks=rows("t", draw(st.integers(1, 7))),
        finals=rows("f", draw(st.integers(0, 3))),
        limits=limits,
        workers={"p": draw(st.integers(1, 3)), "q": draw(st.integers(1, 2))},
        seed=draw(st.integers(0, 1 << 16)),
    )


def fate(seed: int, task: str, index: int, number: int) -> tuple[Outcome, int | None]:
    """Outcome and exit code of one try, by the names alone: the same whatever the order."""
    outcome = random.Random(f"{seed}/{task}/{index}/{number}").choice([SUCCEEDED, SUCCEEDED, FAILED, FAILED, TIMED_OUT])
    return outcome, random.Random(f"{seed}/{task}/{index}/{number}/code").choice([1, 2]) if outcome is FAILED else None


@dataclass
class Drive:
    """Plays the engine with answers in random order; after each step the bounds are checked."""

    scenario: Scenario
    now: float = 0.0
    flying: list[Attempt] = field(default_factory=list)

    def run(self) -> Plan:
        scenario, rng = self.scenario, random.Random(self.scenario.seed)
        pools = {name: {"workers": count} for name, count in scenario.workers.items()}
        self.job = job_of(scenario.tasks, scenario.finals, pools=pools, limits=scenario.limits)
        self.plan = Plan(
            self.job,
            pools=scenario.workers,
            expand=lambda plan, name: items_of(self.job.tasks[name]),
            decide=lambda plan, name: judge(plan, self.job, name),
        )
        for _ in range(10_000):
            self._take()
            self._check()
            if self.plan.done:
                break
            self._happen(rng)
        assert self.plan.done
        assert not self.flying
        return self.plan

    def _take(self) -> None:
        for attempt in self.plan.take(self.now):
            if attempt.is_conditional and not judge(self.plan, self.job, attempt.task, attempt.item):
                self.plan.apply(attempt, Result(id=attempt.id, outcome=SKIPPED), self.now, recorded=True)
            else:
                self.flying.append(attempt)

    def _check(self) -> None:
        for pool, count in Counter(each.pool for each in self.flying).items():
            assert count <= self.scenario.workers[pool]
        for name, slots in self.scenario.limits.items():
            assert sum(self.job.tasks[each.task].takes.get(name, 0) for each in self.flying) <= slots
        if any(each.task in self.job.finals for each in self.flying):
            assert all(isinstance(self.plan.states[name], Outcome) for name in self.scenario.tasks)

    def _happen(self, rng: random.Random) -> None:
        if not self.flying:
            wake = self.plan.next_wake()
            assert wake is not None, "nothing runs, nothing is due, and the plan is not done"
            self.now = max(self.now, wake)
            return
        attempt = self.flying.pop(rng.randrange(len(self.flying)))
        self.now += rng.choice([0, 0.5, 1])
        outcome, code = fate(self.scenario.seed, attempt.task, attempt.index or 0, attempt.number)
        end(self.plan, attempt, outcome, self.now, exit_code=code)


@dataclass
class Model:
    """What tasks come to, slow and obvious: one after the other in the order of their needs, nothing at the same time."""

    scenario: Scenario
    found: dict[str, Outcome] = field(default_factory=dict)
    excused: set[str] = field(default_factory=set)

    def outcomes(self) -> dict[str, Outcome]:
        for name in sorted(self.scenario.tasks, key=lambda name: int(name[1:])):
            self._settle(name, self.scenario.tasks[name], all(map(self.well, self.scenario.tasks[name]["needs"])), is_final=False)
        everything = all(map(self.well, self.scenario.tasks))
        for name in sorted(self.scenario.finals, key=lambda name: int(name[1:])):
            needs = all(map(self.well, self.scenario.finals[name]["needs"]))
            self._settle(name, self.scenario.finals[name], everything and needs, is_final=True)
        return self.found

    def well(self, name: str) -> bool:
        task = {**self.scenario.tasks, **self.scenario.finals}[name]
        is_forgiven = task["continue_on_error"] and self.found[name] in (FAILED, TIMED_OUT)
        return self.found[name] is SUCCEEDED or name in self.excused or is_forgiven

    def _settle(self, name: str, task: dict[str, Any], met: bool, *, is_final: bool) -> None:
        condition: str = task.get("if", "true")
        asks = "()" in condition
        if not (asks or (all(map(self.well, task["needs"])) if is_final else met)):
            self.found[name] = SKIPPED
            return
        if "item" not in condition and not self._holds(condition, met):
            self.found[name] = SKIPPED
            self.excused.add(name)
            return
        items = task.get("foreach", [None])
        chosen = [index for index, item in enumerate(items) if self._holds(condition, met, item)]
        bad = {self._instance(name, task, index) for index in chosen} - {SUCCEEDED}
        self.found[name] = SUCCEEDED if not bad else bad.pop() if len(bad) == 1 else FAILED

    def _holds(self, condition: str, met: bool, item: object = None) -> bool:
        known = {
            "success": lambda: met,
            "failure": lambda: not met,
            "always": lambda: True,
            "item": item,
            "true": True,
            "false": False,
        }
        return bool(eval(condition, known))

    def _instance(self, name: str, task: dict[str, Any], index: int) -> Outcome:
        rule = task.get("retry", {"max": 0})
        for number in range(1, rule["max"] + 2):
            outcome, code = fate(self.scenario.seed, name, index, number)
            is_tried_again = outcome is TIMED_OUT or code in rule.get("exit_codes", [1, 2])
            if outcome is SUCCEEDED or not is_tried_again:
                break
        return outcome


@pytest.mark.timeout(300)  # half a minute where others keep the machine busy
@settings(max_examples=300)
@given(scenario=scenarios())
def test_any_job_comes_to_what_an_obvious_model_says_and_no_bound_is_broken(scenario: Scenario) -> None:
    plan, model = Drive(scenario).run(), Model(scenario)
    assert plan.states == model.outcomes()
    assert plan.failed == (not all(model.well(name) for name in plan.states))
