"""Tasks whose memory is known: together never more than there is, nobody waits for ever, and what is small may go first."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.api import run_prepared
from jobrunner.events import Event, LimitBusy, TaskFinished, TaskStarted
from jobrunner.items import Items
from jobrunner.plan import Attempt, Plan
from jobrunner.plan.packing import PATIENCE, Packing, Shortage
from jobrunner.precedence import Precedence
from jobrunner.prepare import Options, prepare
from jobrunner.spec import Job
from jobrunner.stream import Stamped
from jobrunner.work import Outcome, Result

Tasks = Mapping[str, Mapping[str, Any]]


class Outside:
    """Slots that others hold as long as the test says."""

    def __init__(self, *, answer: bool = True) -> None:
        self.answer = answer

    def take(self, _: Mapping[str, int], /) -> bool:
        return self.answer

    def give(self, _: Mapping[str, int], /) -> None:
        pass


class Run:
    """A plan with a budget of 100, driven by hand. `needs` by task; what runs is known by its names."""

    def __init__(
        self,
        needs: Mapping[str, int],
        tasks: Tasks | None = None,
        finals: Tasks | None = None,
        *,
        workers: int | Mapping[str, int] = 10,
        turns: Mapping[str, int] | None = None,
        outside: Outside | None = None,
        budget: int = 100,
        **keys: Any,
    ) -> None:
        pools = {"default": workers} if isinstance(workers, int) else workers
        if not isinstance(workers, int):
            keys["pools"] = {name: {"mode": "thread_pool", "workers": count} for name, count in pools.items()}
        tasks, finals = tasks or {name: {} for name in needs}, finals or {}
        declared = {name: {"run": "true", **each} for name, each in tasks.items()}
        final = {name: {"run": "true", **each} for name, each in finals.items()}
        job = Job.model_validate({"name": "test", "tasks": declared, "finally": final, **keys})
        self.job = job.model_copy(update={"tasks": {**job.tasks, **job.finals}})  # as the loader hands it on
        self.told: list[Shortage] = []
        self.packing = Packing(budget, needs, tell=self.told.append)
        self.plan = Plan(self.job, pools=pools, expand=self.items, packing=self.packing, turns=turns, outside=outside)
        self.running: dict[str, Attempt] = {}
        self.now = 0.0

    def items(self, _: Plan, name: str) -> Items:
        foreach = self.job.tasks[name].foreach
        assert isinstance(foreach, list)
        return Items(foreach)

    def take(self) -> list[str]:
        """What starts now."""
        started = []
        for attempt in self.plan.take(self.now):
            name = attempt.task if attempt.key is None else f"{attempt.task}[{attempt.key}]"
            self.running[name] = attempt
            started.append(name)
        return started

    def end(self, name: str, outcome: Outcome = Outcome.SUCCEEDED) -> list[str]:
        """It ends; what starts then."""
        attempt = self.running.pop(name)
        self.plan.apply(attempt, Result(id=attempt.id, outcome=outcome), self.now)
        return self.take()


# --- what starts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("needs", "workers", "started"),
    [
        pytest.param({"a": 60, "b": 40}, 10, "ab", id="they fit exactly"),
        pytest.param({"a": 60, "b": 60}, 10, "a", id="together too much"),
        pytest.param({"a": 60, "b": 60, "c": 40}, 10, "ac", id="a smaller one goes first"),
        pytest.param({"a": 60, "b": 0, "c": 60}, 10, "ab", id="of which nothing is known takes nothing"),
        pytest.param({"a": 500, "b": 1, "c": 0}, 10, "ac", id="larger than the machine: alone, but for what is not known"),
        pytest.param({"a": 1, "b": 500, "c": 1}, 10, "ac", id="and not beside others"),
        pytest.param({"a": 33, "b": 33, "c": 33, "d": 33}, 10, "abc", id="as many as fit"),
        pytest.param({"a": 60, "b": 60, "c": 0}, 2, "ac", id="who waits for memory keeps no worker"),
        pytest.param({"a": 10, "b": 0, "c": 10}, 2, "ab", id="where all fit the order is the declared one"),
        pytest.param({"b": 0, "a": 10, "c": 10}, 2, "ba", id="whoever takes memory"),
    ],
)
def test_what_is_started_fits(needs: Mapping[str, int], workers: int, started: str) -> None:
    assert "".join(Run(needs, workers=workers).take()) == started


def test_when_memory_comes_free_who_waits_starts_in_order_of_turns() -> None:
    run = Run({"a": 100, "b": 50, "c": 50, "d": 50}, turns={"a": 0, "b": 3, "c": 2, "d": 1})
    assert run.take() == ["a"]
    assert run.end("a") == ["d", "c"]
    assert run.end("c") == ["b"]


def test_memory_is_shared_by_all_pools() -> None:
    tasks = {"a": {"pool": "x"}, "b": {"pool": "y"}, "c": {"pool": "y"}}
    run = Run({"a": 60, "b": 60, "c": 30}, tasks, workers={"x": 1, "y": 2})
    assert run.take() == ["a", "c"]
    assert run.end("a") == ["b"]


def test_the_items_of_a_fan_out_are_packed_too() -> None:
    run = Run({"f": 40}, {"f": {"foreach": list("abcd")}, "g": {"foreach": [], "needs": ["f"]}})
    assert run.take() == ["f[a]", "f[b]"]
    assert run.end("f[b]") == ["f[c]"]
    assert run.end("f[a]") == ["f[d]"]
    run.end("f[c]")
    run.end("f[d]")
    assert run.plan.done


def test_a_retry_waits_for_memory_again() -> None:
    run = Run({"a": 60, "b": 60}, {"a": {"retry": {"max": 1, "delay": 1, "jitter": 0}}, "b": {}})
    assert run.take() == ["a"]
    assert run.end("a", Outcome.FAILED) == ["b"], "while it waits for its retry it takes nothing"
    run.now = 10.0
    assert run.take() == []
    assert run.end("b") == ["a"]


def test_what_is_given_back_takes_no_memory() -> None:
    run = Run({"a": 60, "b": 30, "c": 60})
    assert run.take() == ["a", "b"]
    run.plan.give_back(run.running.pop("a"))
    assert run.take() == ["a"]
    assert run.end("a") == ["c"]


def test_what_the_system_had_no_room_for_takes_no_memory() -> None:
    run = Run({"a": 60, "b": 30, "c": 60}, workers=2)
    assert run.take() == ["a", "b"]
    assert run.plan.hold_back(run.running.pop("a"), run.now)
    assert run.take() == []
    assert run.end("b") == ["a"]
    assert run.end("a") == ["c"]


def test_final_tasks_are_packed_and_a_stop_leaves_nothing_waiting() -> None:
    run = Run({"a": 60, "b": 60, "x": 60, "y": 60}, {"a": {}, "b": {}}, {"x": {}, "y": {}})
    assert run.take() == ["a"]
    run.plan.cancel()
    assert run.take() == []
    assert run.end("a") == ["x"]
    assert run.end("x") == ["y"]
    run.end("y")
    assert run.plan.done
    assert str(run.plan.states["b"]) == "skipped"


# --- nobody starves -------------------------------------------------------------------------------------------------------------


def streamed(run: Run) -> list[str]:
    """The order in which all start, where always the oldest of what runs ends."""
    order = run.take()
    while run.running:
        order += run.end(next(iter(run.running)))
    assert run.plan.done
    return order


@pytest.mark.parametrize("workers", [2, 3, 10])
def test_who_was_overtaken_so_often_has_the_room_kept_for_it(workers: int) -> None:
    small = {f"s{number}": 30 for number in range(40)}
    order = streamed(Run({"first": 30, "large": 90, **small}, workers=workers))
    assert order.index("large") <= 1 + PATIENCE + 1  # the last to overtake may be started together with the one before


def test_who_starves_has_a_worker_kept_for_it_too() -> None:
    free = {f"n{number}": 0 for number in range(40)}
    run = Run({"first": 60, "large": 60, **free}, workers=2)
    assert run.take() == ["first", "n0"]
    for number in range(PATIENCE - 1):
        assert run.end(f"n{number}") == [f"n{number + 1}"]
    assert run.end(f"n{PATIENCE - 1}") == []
    assert run.end("first") == ["large", f"n{PATIENCE}"]


def test_beside_what_is_kept_for_one_others_still_start() -> None:
    names = ["first", "large", *(f"s{number}" for number in range(PATIENCE)), "little", "middle"]
    needs = dict.fromkeys(names, 5) | {"first": 60, "large": 60, "little": 30, "middle": 41}
    run = Run(needs, workers=4)
    run.take()
    for number in range(PATIENCE):
        run.end(f"s{number}")
    assert "large" not in run.running
    assert "little" not in run.running, "it would not fit beside what is kept"
    started = run.end("first")
    assert started == ["large", "little"]


def test_what_comes_before_it_in_order_does_not_overtake() -> None:
    run = Run({"f": 30, "large": 90}, {"f": {"foreach": list(range(30))}, "large": {}}, workers=3)
    assert streamed(run)[-1] == "large"


def test_who_no_longer_wants_to_start_keeps_no_room() -> None:
    small = {f"s{number}": 30 for number in range(40)}
    run = Run({"first": 60, "large": 90, **small}, workers=3)
    run.take()
    for number in range(PATIENCE):
        run.end(f"s{number}")
    run.plan.cancel(stop=False)
    while run.running:
        run.end(next(iter(run.running)))
    assert run.plan.done


def test_who_starves_starts_also_where_one_of_its_size_stands_before_it() -> None:
    small = {f"s{number}": 1 for number in range(PATIENCE + 2)}
    tasks: dict[str, dict[str, Any]] = {"first": {"pool": "x"}, "large": {"pool": "y"}}
    tasks["before"] = {"pool": "y", "needs": ["first"]}
    tasks |= {name: {"pool": "x" if number % 2 else "y"} for number, name in enumerate(small)}
    turns = {"first": 20, "before": 18, "large": 19} | {name: 30 + number for number, name in enumerate(small)}
    run = Run({"first": 1, "before": 100, "large": 100, **small}, tasks, workers={"x": 1, "y": 2}, turns=turns)
    run.take()
    while run.running:
        run.end(sorted(run.running, key=lambda name: name == "first")[0])
    assert run.plan.done


# --- with slots of limits -------------------------------------------------------------------------------------------------------


def test_who_takes_slots_starts_when_there_is_memory_too_and_keeps_its_place() -> None:
    tasks = {"a": {}, "b": {"limits": ["db"]}, "c": {"limits": ["db"]}, "d": {}}
    run = Run({"a": 60, "b": 60, "c": 10, "d": 10}, tasks, limits={"db": 1})
    assert run.take() == ["a", "d"], "the slot is for b, which waits for memory"
    assert run.end("a") == ["b"]
    assert run.end("b") == ["c"]


def test_who_starves_for_slots_of_others_stops_nobody() -> None:
    outside = Outside()
    small = {f"s{number}": 30 for number in range(20)}
    tasks: dict[str, dict[str, Any]] = {"first": {}, "large": {"limits": ["db"]}, **{name: {} for name in small}}
    limits = {"db": {"slots": 1, "scope": "host"}}
    run = Run({"first": 30, "large": 90, **small}, tasks, workers=3, limits=limits, outside=outside)
    run.take()
    outside.answer = False
    order = []
    while run.running:
        order += run.end(next(iter(run.running)))
    assert set(order) | {"first", "s0", "s1"} == {"first", *small}
    outside.answer = True
    run.now = 1.0
    assert run.take() == ["large"]


# --- it is told -----------------------------------------------------------------------------------------------------------------


def test_that_something_waits_for_memory_is_told_after_five_seconds_and_once() -> None:
    run = Run({"a": 60, "b": 60, "c": 60, "n": 0})
    run.take()
    assert run.plan.next_wake() == 5.0
    run.now = 4.9
    run.end("n")
    assert run.told == []
    run.now = 5.0
    run.take()
    assert [told.holders for told in run.told] == [["a"]]
    assert run.plan.next_wake() is None
    run.now = 20.0
    run.take()
    assert [told.holders for told in run.told] == [["a"]]


def test_it_is_told_who_waits_first_and_how_much_is_wanted_used_and_there() -> None:
    run = Run({"a": 60, "b": 500, "c": 60, "d": 30})
    run.take()
    run.now = 5.0
    run.take()
    assert run.told == [Shortage(task="b", wanted=500, used=90, usable=100, holders=["a", "d"])], "not what it was cut to"


def test_a_wait_that_is_over_is_not_told() -> None:
    run = Run({"a": 60, "b": 60})
    run.take()
    run.now = 4.0
    run.end("a")
    assert run.plan.next_wake() is None
    run.now = 9.0
    run.end("b")
    assert run.told == []


# --- whatever the job is --------------------------------------------------------------------------------------------------------


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Needs, memory, limits, fan-outs, retries, final tasks and turns as they come."""
    pools = {"x": draw(st.integers(1, 3)), "y": draw(st.integers(1, 3))}
    count = draw(st.integers(1, 14))
    tasks: dict[str, dict[str, Any]] = {}
    for number in range(count):
        task: dict[str, Any] = {"pool": draw(st.sampled_from("xy"))}
        task["needs"] = sorted({f"t{draw(st.integers(0, number - 1))}" for _ in range(draw(st.integers(0, 2)))} if number else [])
        if draw(st.integers(0, 3)) == 0:
            task["limits"] = draw(st.sampled_from([["k"], {"k": 2}, ["k", "m"], ["m"]]))
        if draw(st.integers(0, 3)) == 0:
            task["foreach"] = list(range(draw(st.integers(0, 6))))
        if draw(st.integers(0, 3)) == 0:
            task["retry"] = {"max": 2, "delay": 0}
        if draw(st.integers(0, 5)) == 0:
            task["continue_on_error"] = True
        tasks[f"t{number}"] = task
    needs = {name: draw(st.sampled_from([0, 0, 1, 20, 34, 50, 51, 60, 99, 100, 101, 1000])) for name in [*tasks, "z"]}
    turns = dict(zip(draw(st.permutations(sorted(tasks))), itertools.count(), strict=False)) if draw(st.booleans()) else None
    return Run(needs, tasks, {"z": {"pool": "x"}}, workers=pools, turns=turns, limits={"k": 2, "m": 1})


@settings(max_examples=400)
@given(run=runs(), seed=st.integers(0, 1 << 30))
def test_never_more_than_there_is_never_stuck_and_every_task_ends(run: Run, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(1000):
        run.take()
        needs = [need for each in run.running.values() if (need := run.packing.needs.get(each.task, 0))]
        assert sum(needs) <= 100
        if run.plan.done:
            return
        if not run.running:
            wake = run.plan.next_wake()
            assert wake is not None, "nothing runs, nothing is due, and the plan is not done"
            run.now = max(run.now, wake)
            continue
        name = chance.choice(sorted(run.running))
        attempt = run.running.pop(name)
        match chance.randrange(10):
            case 0:
                run.plan.give_back(attempt)
            case 1 if run.plan.hold_back(attempt, run.now):
                run.now += chance.choice([0.0, 0.1, 1.0])
            case 2:
                run.plan.apply(attempt, Result(id=attempt.id, outcome=Outcome.FAILED), run.now)
            case 3 if chance.randrange(10) == 0:
                run.plan.cancel(stop=False)
                run.plan.apply(attempt, Result(id=attempt.id, outcome=Outcome.SUCCEEDED), run.now)
            case _:
                run.plan.apply(attempt, Result(id=attempt.id, outcome=Outcome.SUCCEEDED), run.now)
    pytest.fail("it goes on for ever")


# --- what a run does with it ----------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The machine has 1000 MiB; how often it was asked."""
    found: list[int] = []

    def usable() -> int:
        found.append(1)
        return 1000 << 20

    monkeypatch.setattr("jobrunner.memory.usable_memory", usable)
    return found


def packing_of(tmp_path: Path, text: str, peaks: Mapping[str, int]) -> Mapping[str, int] | None:
    """What tasks need in MiB, where earlier runs have measured these peaks."""
    from jobrunner.durations import Known, write

    (tmp_path / "job.yaml").write_text(f"name: j\n{'' if 'serial' in text else 'workers: 2'}\n{text}\n", encoding="utf-8")
    (tmp_path / "run").mkdir()
    known = {name: Known(seconds=1, peak=peak << 20) for name, peak in peaks.items()}
    write(tmp_path, known, by_way_of=tmp_path / "run")
    found = Precedence(prepare(tmp_path / "job.yaml", Options()), tmp_path).packing(lambda tasks: None)
    return None if found is None else {name: need >> 20 for name, need in found.needs.items()}


@pytest.mark.parametrize(
    ("text", "peaks", "needs", "is_asked"),
    [
        pytest.param("tasks: {a: {run: x}, b: {run: y}}", {}, None, False, id="nothing is known: nothing is looked at"),
        pytest.param(
            "tasks: {a: {run: x, resources: {memory: 600MiB}}, b: {run: y}}", {"b": 700}, {"a": 600, "b": 700}, True,
            id="what is declared, and what was measured",
        ),
        pytest.param(
            "tasks: {a: {run: x, resources: {memory: 600MiB}}, b: {run: y}}", {"a": 100}, {"a": 600}, True,
            id="what is declared goes before what was measured",
        ),
        pytest.param("tasks: {a: {run: x}, b: {run: y}}", {"a": 400, "b": 500}, None, True, id="whatever runs, it is enough"),
        pytest.param("tasks: {a: {run: x}, b: {run: y}}", {"a": 63, "b": 63}, None, False, id="what is mostly shared"),
        pytest.param("tasks: {a: {run: x}}", {"a": 900}, None, False, id="there is but one"),
        pytest.param("mode: serial\ntasks: {a: {run: x}, b: {run: y}}", {"a": 900, "b": 900}, None, False, id="one at a time"),
        pytest.param(
            "mode: process\ntasks: {a: {target: 'platform:node'}, b: {target: 'platform:node'}}", {"a": 900},
            {"a": 900}, True, id="a process for each attempt",
        ),
        pytest.param(
            "mode: process_pool\ntasks: {a: {target: 'platform:node'}, b: {target: 'platform:node'}}", {"a": 900},
            None, False, id="a process for many says nothing of one",
        ),
        pytest.param("tasks: {a: {run: x, foreach: [1, 2]}}", {"a": 900}, {"a": 900}, True, id="items beside one another"),
        pytest.param(
            "pools: {p: {mode: thread_pool, workers: 1}, q: {mode: thread_pool, workers: 1}}\n"
            "tasks: {a: {run: x, pool: p}, b: {run: y, pool: q}}", {"a": 900, "b": 900},
            {"a": 900, "b": 900}, True, id="pools beside one another",
        ),
    ],
)  # fmt: skip
def test_memory_counts_where_it_is_known_and_may_not_be_enough(
    tmp_path: Path, asked: list[int], text: str, peaks: Mapping[str, int], needs: Mapping[str, int] | None, is_asked: bool
) -> None:
    assert packing_of(tmp_path, text, peaks) == needs
    assert bool(asked) is is_asked


SLOW = [sys.executable, "-c", "import time; time.sleep(0.3)"]


def test_two_commands_that_together_need_too_much_never_run_at_once(
    tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("jobrunner.plan.packing._TOLD_AFTER", 0.1)
    tasks = "".join(f"  {name}: {{argv: {SLOW}, resources: {{memory: 600MiB}}}}\n" for name in "abc")
    (tmp_path / "job.yaml").write_text(f"name: j\nworkers: 3\nmode: thread_pool\ntasks:\n{tasks}  n: {{argv: {SLOW}}}\n")
    seen: list[Event] = []

    def note(stamped: Stamped) -> None:
        seen.append(stamped.event)

    assert run_prepared(prepare(tmp_path / "job.yaml", Options()), sinks=[note]).ok
    running = set[str]()
    for event in seen:
        match event:
            case TaskStarted(task=name):
                running.add(name)
                assert len(running - {"n"}) <= 1
            case TaskFinished(task=name):
                running.remove(name)
    busy = LimitBusy(
        limits=["resources.memory"], holders=["a"], task="b", wanted=600 << 20, used=600 << 20, usable=1000 << 20
    )  # fmt: skip
    assert [event for event in seen if isinstance(event, LimitBusy)] == [busy]
    assert len(asked) == 1


def test_measured_memory_is_used_by_the_next_run(tmp_path: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    from jobrunner.durations import Known, write

    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    (tmp_path / "state" / "j").mkdir(parents=True, mode=0o700)
    (tmp_path / "state").chmod(0o700)
    write(tmp_path / "state" / "j", {name: Known(seconds=1, peak=600 << 20) for name in "ab"}, by_way_of=tmp_path)
    tasks = "".join(f"  {name}: {{argv: {SLOW}}}\n" for name in "abc")
    (tmp_path / "job.yaml").write_text(f"name: j\nworkers: 3\nmode: thread_pool\ntasks:\n{tasks}")
    running, most = set[str](), set[tuple[str, ...]]()

    def note(stamped: Stamped) -> None:
        if isinstance(stamped.event, TaskStarted):
            running.add(stamped.event.task)
            most.add(tuple(sorted(running)))
        elif isinstance(stamped.event, TaskFinished):
            running.remove(stamped.event.task)

    assert run_prepared(prepare(tmp_path / "job.yaml", Options()), sinks=[note]).ok
    assert asked
    assert not any({"a", "b"} <= set(each) for each in most)
