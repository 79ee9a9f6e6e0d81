"""The engine with fakes at every edge: a loop whose clock jumps, executors that answer from a script, no process."""

from __future__ import annotations

import itertools
import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner import events
from jobrunner.engine import Engine, Tally
from jobrunner.errors import ExpressionError, JobrunnerError
from jobrunner.events import Event
from jobrunner.flights import success_of
from jobrunner.items import Items
from jobrunner.lanes import Lane, Memory
from jobrunner.loop import Loop
from jobrunner.plan import Attempt, Plan, Span
from jobrunner.spec import Job, Range
from jobrunner.stream import Ran
from jobrunner.structs import replace
from jobrunner.work import (
    Began,
    Call,
    Calls,
    Command,
    Error,
    Leftover,
    Outcome,
    Report,
    Result,
    Returned,
    Runs,
    Said,
    StackTaken,
    StopRule,
    WorkerDied,
    WorkerJoined,
    WorkerStarted,
)

Kind = TypeVar("Kind")
Script: TypeAlias = "dict[tuple[str, int | None, int], Act]"
"""By task, index of the item (None without items) and number of the attempt."""


class FakeLoop(Loop):
    """Time jumps to the next thing that is due; nothing is ever waited for."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: self.now)
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._count = itertools.count()

    def after(self, delay: float, action: Callable[[], object]) -> None:
        self._due.append((self.now + delay, next(self._count), action))

    def turn(self, until: float | None = None) -> None:
        moments = [when for when, _, _ in self._due] + ([] if until is None else [until])
        assert moments, "the engine waits for what never happens"
        self.now = max(self.now, min(moments))
        due = sorted(each for each in self._due if each[0] <= self.now)
        self._due = [each for each in self._due if each[0] > self.now]
        for _, _, action in due:
            action()


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What a fake executor does with one attempt, in seconds after its start."""

    begins: float | None = 0.0
    """None: it never gets as far as a worker."""
    lasts: float | None = 1.0
    """None: only a stop ends it."""
    outcome: Outcome = Outcome.SUCCEEDED
    stops_in: float | None = 0.0
    """After a stop; None: it does not hear."""
    at_once: bool = False
    """Everything is reported from within `start`."""
    returned: bool = False
    """It is handed back before it begins."""
    abandons: bool = False
    """A stop answers for it at once; what it comes to is late."""
    says: bytes = b""
    more: Mapping[str, Any] = field(default_factory=dict)


def in_runs(told: list[Report]) -> list[Report]:
    """The same, a begin and a success that follows it as one."""
    match told:
        case [Began() as began, Result() as result] if row := success_of(began, result):
            return [Runs(pid=began.pid, rows=[row])]
    return told


class FakeExecutor:
    """Plays the acts of a script; an attempt that the script does not name succeeds after a second."""

    slots = 99

    def __init__(self, script: Callable[[int], Act]) -> None:
        self.script = script
        self.kills = 0
        self.closes_in = 0.0
        self.is_open = self.is_closed = self.tells_runs = False
        self.is_one_process = False
        self.running: dict[int, Act] = {}
        self.stopped: list[tuple[int, StopRule]] = []

    def open(self, loop: Loop, report: Callable[[Report], None]) -> None:
        assert isinstance(loop, FakeLoop)
        self.loop, self.report, self.is_open = loop, report, True

    def start(self, work: Call | Command) -> None:
        act, number = self.script(work.id), work.id
        self.running[number] = act
        if act.at_once:
            report, told = self.report, list[Report]()
            self.report = told.append
            self._begin(number)
            self._end(number, act.outcome)
            self.report = report
            for each in in_runs(told) if self.tells_runs else told:
                report(each)
            return
        if act.returned:
            self.loop.after(act.begins or 0.0, lambda: self._return(number))
            return
        if act.begins is not None:
            self.loop.after(act.begins, lambda: self._begin(number))
        if act.lasts is not None:
            self.loop.after((act.begins or 0.0) + act.lasts, lambda: self._end(number, act.outcome))

    def start_all(self, calls: Calls) -> None:
        """What succeeds at once is told together, as far as nothing else comes between."""
        report, told = self.report, list[Report]()
        self.report = told.append
        for call in calls:
            self.start(call)
        self.report = report
        for are_runs, some in itertools.groupby(told, lambda each: isinstance(each, Runs)):
            if are_runs and self.is_one_process:
                report(Runs(pid=1000, rows=[row for each in some if isinstance(each, Runs) for row in each.rows]))
            else:
                for each in some:
                    report(each)

    def tell_runs(self) -> None:
        self.tells_runs = True

    def stop(self, attempt_id: int, rule: StopRule) -> None:
        act = self.running.get(attempt_id)
        if act is None:
            return
        self.stopped.append((attempt_id, rule))
        if act.abandons:
            self.report(Result(id=attempt_id, outcome=Outcome.FAILED, abandoned=True))
        elif act.stops_in is not None:
            self.loop.after(act.stops_in, lambda: self._end(attempt_id, Outcome.FAILED, signal=15))

    def dump(self) -> None:
        self.report(StackTaken(worker="w", pid=7, stack="there"))

    def kill(self) -> None:
        self.kills += 1
        for number in tuple(self.running):
            self.loop.after(0.0, lambda number=number: self._end(number, Outcome.CRASHED, signal=9))  # type: ignore[misc]

    def close(self) -> None:
        if self.closes_in:
            self.loop.after(self.closes_in, self._close)
        else:
            self._close()

    def _close(self) -> None:
        self.is_closed = True

    @property
    def closed(self) -> bool:
        return self.is_closed

    def _begin(self, number: int) -> None:
        act = self.running.get(number)
        if act is not None:
            self.report(Began(id=number, worker=f"w{number}", pid=1000 if self.is_one_process else 1000 + number))
            if act.says:
                self.report(Said(id=number, pool="default", data=act.says))

    def _return(self, number: int) -> None:
        if self.running.pop(number, None):
            self.report(Returned(id=number))

    def _end(self, number: int, outcome: Outcome, **more: Any) -> None:
        if number in self.running:
            act = self.running.pop(number)
            lasts = {} if act.lasts is None else {"duration": act.lasts}
            self.report(Result(**{"id": number, "outcome": outcome, **lasts, **act.more, **more}))


@dataclass(slots=True)
class Stage:
    """An engine, its plan and its fakes."""

    job: Job
    script: Script
    workers: int = 1
    acts: dict[int, Act] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    refuse: frozenset[str] = frozenset()
    on_event: Callable[[Event], None] = lambda event: None
    commands: bool = False
    together: bool = False
    """Events are taken all at once, with attempts that began and succeeded in one step as `Ran`."""
    is_kept: bool = True
    """Results are: then nothing is handed out with others."""
    bound_together: int = 0
    """So many attempts were handed out with others."""
    told: int = 0
    """So many attempts were told so."""
    memory: Memory = field(default_factory=Memory)
    loop: FakeLoop = field(default_factory=FakeLoop)
    tally: Tally | None = None
    calls_side: FakeExecutor = field(init=False)
    commands_side: FakeExecutor = field(init=False)
    plan: Plan = field(init=False)
    lanes: dict[str, Lane] = field(init=False)
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.calls_side, self.commands_side = FakeExecutor(self.acts.__getitem__), FakeExecutor(self.acts.__getitem__)
        pools, keeps = {"default": self.workers}, self.is_kept
        self.plan = Plan(self.job, pools=pools, expand=lambda plan, name: self._items(name), keeps=lambda name: keeps)
        calls, commands = self.calls_side, self.commands_side
        lane = Lane(mode="process", workers=self.workers, calls=calls, commands=commands, tell_runs=calls.tell_runs)
        lane = replace(lane, start_all=calls.start_all)
        self.lanes = {"default": lane}
        self.engine = Engine(
            self.plan,
            self.lanes,
            bind=lambda plan, attempt: self._bind(attempt),
            rule_of=lambda name: StopRule(signal=15, grace=10.0),
            emit=self._emit,
            emit_all=self._emit_all if self.together else None,
            bind_all=lambda plan, span: self._bind_all(span),
            loop=self.loop,
            memory=self.memory,
        )

    def _items(self, name: str) -> Items:
        foreach = self.job.tasks[name].foreach
        if isinstance(foreach, Range) and isinstance(foreach.range, int):
            return Items(range(foreach.range))
        raise ExpressionError("it gives text, not a list")

    def _bind(self, attempt: Attempt) -> Call | Command:
        if attempt.task in self.refuse:
            raise ExpressionError("tasks.x.result has no key 'y'")
        place = attempt.task, attempt.index, attempt.number
        self.acts[attempt.id] = act = self.script.get(place, Act())
        if act.returned:  # once
            self.script = {**self.script, place: Act()}
        if self.commands:
            return Command(id=attempt.id, argv=("true",), env={}, cwd="/")
        return Call(id=attempt.id, target="m:f")

    def _bind_all(self, span: Span) -> tuple[Calls, list[str]]:
        attempts, count = [span.attempt(each) for each in span.ids], len(span.ids)
        if not self.refuse.isdisjoint(span.tasks):  # before a script takes note of any
            raise ExpressionError("tasks.x.result has no key 'y'")
        calls = [self._bind(each) for each in attempts]
        self.bound_together += count
        digests = [self.memory.digest(attempt, call) for attempt, call in zip(attempts, calls, strict=True)]
        return Calls(span.ids, "m:f", [[]] * count, [{}] * count, {}, {}, ""), digests

    def _emit(self, event: Event) -> None:
        self.events.append(event)
        self.on_event(event)

    def _emit_all(self, told: Sequence[Event | Ran]) -> None:
        for each in told:
            for event in each.events() if isinstance(each, Ran) else (each,):
                self._emit(event)
            self.told += isinstance(each, Ran)

    def run(self) -> Tally:
        return self.engine.run()

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]

    def story(self) -> list[str]:
        return [told(event) for event in self.events if not isinstance(event, (events.PoolOpened, events.PoolClosed))]


def told(event: Event) -> str:
    """An event in short: `started a[0] 1`."""
    who = getattr(event, "task", "")
    item = getattr(event, "item", None)
    name = who if item is None else f"{who}[{item}]"
    match event:
        case events.TaskFinished():
            return f"{event.outcome} {name} {event.attempt}"
        case events.TaskSkipped():
            return f"skipped {name}: {event.reason}"
    return " ".join(str(part) for part in (event.NAME.partition(".")[2], name, getattr(event, "attempt", "")) if part)


def stage(tasks: Mapping[str, Mapping[str, Any]], script: Script | None = None, **more: Any) -> Stage:
    keys = {key: more.pop(key) for key in ("timeout", "fail_fast") if key in more}
    made = {name: task if "target" in task else {"run": "true", **task} for name, task in tasks.items()}
    job = Job.model_validate({"name": "test", "tasks": made, **keys})
    return Stage(job=job, script=script or {}, **more)


NEVER = Act(lasts=None)


# --- the order of events -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "outcome", "runs_already"),
    [
        ({"a": {"foreach": {"range": 2}}}, Outcome.SUCCEEDED, True),
        ({"a": {"foreach": {"range": 2}}}, Outcome.FAILED, False),
        ({"a": {}, "b": {"needs": ["a"]}}, Outcome.SUCCEEDED, False),
    ],
    ids=["independent", "after a failure", "needs it"],
)
def test_what_does_not_depend_on_an_end_starts_before_that_is_told(tasks: Any, outcome: Outcome, runs_already: bool) -> None:
    found: list[bool] = []
    index = 0 if "b" not in tasks else None
    on = stage(tasks, {("a", index, 1): Act(outcome=outcome)})
    on.on_event = lambda event: found.append(bool(on.calls_side.running)) if isinstance(event, events.TaskFinished) else None
    on.run()
    assert found[0] == runs_already
    assert [line.split()[0] for line in on.story()] == ["started", outcome, "started", "succeeded"]


LAYERS = {"a": {}, "b": {}, "c": {}, "d": {"needs": ["a", "b"]}, "e": {"needs": ["b", "c"]}, "f": {"needs": ["c"]}}
CHAINS = {"a": {}, "b": {"needs": ["a"]}, "c": {}, "d": {"needs": ["c"]}}


@pytest.mark.parametrize(
    ("tasks", "synced_before"),
    [
        pytest.param({"a": {"foreach": {"range": 9}}}, [1], id="nothing depends on anything: once, before the first"),
        pytest.param(LAYERS, [1, 4], id="one layer after the other: once a layer"),
        pytest.param(CHAINS, [1, 2, 4], id="one chain after the other: before each that needs another"),
        pytest.param({"a": {}, "b": {"at_most_once": True, "needs": ["a"]}}, [1, 2], id="the intent with what has let it start"),
    ],
)
def test_the_disk_is_waited_for_only_before_something_that_an_outcome_has_unlocked(tasks: Any, synced_before: list[int]) -> None:
    """By the number of the attempt that starts next."""
    on: Stage
    found: list[int] = []
    on = stage(tasks, memory=Memory(commit=lambda sync: found.append(max(on.acts)) if sync else None))
    on.run()
    assert found == synced_before


def test_what_is_held_is_started_while_the_disk_syncs_and_goes_out_when_that_is_over() -> None:
    told: list[str] = []
    memory = Memory(commit_ahead=partial(told.append, "begin"), settle=partial(told.append, "settle"))
    on = stage(LAYERS, memory=memory)
    start = on.calls_side.start

    def noted(work: Call | Command) -> None:
        told.append(f"start {work.id}")
        start(work)

    on.calls_side.start = noted  # type: ignore[method-assign]
    on.lanes["default"] = replace(on.lanes["default"], holds=lambda: True, flush=lambda: told.append("flush"))
    on.run()
    steps = [each for each, _ in itertools.groupby(told)]
    assert steps[:9] == ["begin", "start 1", "settle", "flush", "start 2", "flush", "start 3", "flush", "begin"]
    assert steps[9:12] == ["start 4", "settle", "flush"]
    assert (told.count("begin"), told.count("settle")) == (2, 2)


@pytest.mark.parametrize("foreach", [{}, {"foreach": {"range": 9}}])
def test_what_has_no_room_on_record_does_not_start(foreach: dict[str, Any]) -> None:
    """The disk becomes full while what has unlocked it is put on record."""
    on: Stage

    def commit(sync: bool) -> None:
        if sync and on.of(events.TaskFinished):
            on.plan.cancel(stop=False, finals=True)

    on = stage({"a": {}, "b": {"needs": ["a"], **foreach}, "c": {}}, workers=2, memory=Memory(commit=commit))
    on.run()
    assert {event.task for event in on.of(events.TaskStarted)} == {"a", "c"}
    assert on.plan.states["b"] in (Outcome.SKIPPED, Outcome.CANCELLED)


def test_no_outcome_is_needed_that_is_not_on_the_disk() -> None:
    on: Stage
    durable: set[str] = set()

    def commit(sync: bool) -> None:
        if sync:
            durable.update(event.task for event in on.of(events.TaskFinished))

    on = stage(LAYERS | {"g": {"needs": ["f"]}, "h": {}}, workers=2, memory=Memory(commit=commit))
    start = on.calls_side.start

    def checked(work: Call | Command) -> None:
        started = on.engine._flights.get(work.id)
        assert started is not None
        assert durable.issuperset(on.job.tasks[started.attempt.task].needs)
        start(work)

    on.calls_side.start = checked  # type: ignore[method-assign]
    on.run()
    assert durable >= {"a", "b", "c", "f"}


def test_a_run_opens_its_pools_runs_its_tasks_and_closes_its_pools() -> None:
    on = stage({"a": {}, "b": {"needs": ["a"]}})
    tally = on.run()
    assert on.events[0] == events.PoolOpened(pool="default", mode="process", workers=1)
    assert on.events[-1] == events.PoolClosed(pool="default")
    assert on.story() == ["started a 1", "succeeded a 1", "started b 1", "succeeded b 1"]
    assert tally == Tally(duration=2.0, task_time=2.0)


def test_all_pools_are_closed_at_the_same_time() -> None:
    on = stage({"a": {}})
    slow = [FakeExecutor(lambda number: Act()) for _ in range(3)]
    for number, executor in enumerate(slow):
        executor.closes_in = 5.0
        idle = FakeExecutor(lambda number: Act())
        on.lanes[f"p{number}"] = Lane(mode="thread", workers=1, calls=executor, commands=idle)
    assert on.run().duration == 1.0 + 5.0
    assert [event.pool for event in on.of(events.PoolClosed)] == ["default", "p0", "p1", "p2"]


def test_two_workers_halve_the_time() -> None:
    on = stage({"a": {"foreach": {"range": 4}}}, workers=2)
    assert on.run() == Tally(duration=2.0, task_time=4.0)


def test_what_a_task_says_becomes_an_event_and_its_last_lines_are_told_when_it_failed() -> None:
    text = b"".join(b"line %d\n" % number for number in range(50))
    on = stage({"a": {}, "b": {}}, {("a", None, 1): Act(says=text, outcome=Outcome.FAILED), ("b", None, 1): Act(says=text)})
    on.run()
    assert on.of(events.TaskOutput)[0].data == text
    failed, passed = on.of(events.TaskFinished)
    assert failed.output == "\n".join(f"line {number}" for number in range(40, 50))
    assert passed.output is None


def test_a_command_runs_on_the_other_side_of_its_lane_and_says_that_it_is_one() -> None:
    on = stage({"a": {}}, commands=True)
    on.run()
    assert on.of(events.TaskStarted)[0].mode == "command"
    assert on.of(events.TaskFinished)[0].mode == "command"


def test_what_executors_tell_of_their_workers_is_told_on_with_the_mode_of_the_pool() -> None:
    on = stage({"a": {}})
    who: dict[str, Any] = {"pool": "default", "worker": "w", "pid": 7}

    def tell(event: Event) -> None:
        if isinstance(event, events.TaskStarted):
            on.calls_side.report(WorkerStarted(**who))
            on.calls_side.report(WorkerDied(**who, reason="killed by SIGKILL"))
            on.calls_side.report(WorkerJoined(**who, tasks=1, lived=2.5, signal=9))

    on.on_event = tell
    on.run()
    assert on.of(events.WorkerStarted) == [events.WorkerStarted(**who, mode="process")]
    assert on.of(events.WorkerDied) == [events.WorkerDied(**who, mode="process", reason="killed by SIGKILL")]
    joined = events.WorkerJoined(**who, mode="process", tasks=1, lived=2.5, signal="SIGKILL")
    assert on.of(events.WorkerJoined) == [joined]


def test_output_that_nobody_owns_is_the_pools() -> None:
    on = stage({"a": {}})

    def tell(event: Event) -> None:
        if isinstance(event, events.TaskStarted):
            on.calls_side.report(Said(id=0, pool="default", data=b"?"))

    on.on_event = tell
    on.run()
    assert on.of(events.TaskOutput) == [events.TaskOutput(task="", item=None, attempt=0, pool="default", data=b"?")]


def test_processes_left_behind_are_named() -> None:
    on = stage({"a": {}})

    def tell(event: Event) -> None:
        if isinstance(event, events.TaskStarted):
            on.calls_side.report(Leftover(id=1, pids=(5, 6), killed=False))

    on.on_event = tell
    on.run()
    assert on.of(events.TaskLeftover) == [events.TaskLeftover(task="a", item=None, attempt=1, pids=[5, 6], killed=False)]


# --- refusals ----------------------------------------------------------------------------------------------------------------


def test_an_expression_that_cannot_be_evaluated_is_a_start_and_a_failure_that_is_not_tried_again() -> None:
    on = stage({"a": {"retry": 2}, "b": {}, "c": {"needs": ["a"]}}, refuse=frozenset({"a"}))
    on.run()
    assert on.story() == [
        "started a 1",
        "failed a 1",
        "skipped c: needs",
        "started b 1",
        "succeeded b 1",
    ]
    (first, *_) = on.of(events.TaskFinished)
    assert first.error == {"type": "ExpressionError", "message": "tasks.x.result has no key 'y'"}
    assert first.pid == 0


def test_a_foreach_that_gives_no_list_is_a_start_and_a_failure_without_an_item() -> None:
    on = stage({"a": {"foreach": "${{ params.x }}"}})
    on.run()
    (finished,) = on.of(events.TaskFinished)
    assert (finished.item, finished.outcome) == (None, "failed")
    assert finished.error is not None
    assert finished.error["message"] == "foreach: it gives text, not a list"


@pytest.mark.parametrize("count", [2, 5])
def test_what_is_refused_at_once_makes_room_for_the_next(count: int) -> None:
    on = stage({f"t{number}": {} for number in range(count)}, refuse=frozenset(f"t{number}" for number in range(count)))
    on.run()
    assert [each.outcome for each in on.of(events.TaskFinished)] == ["failed"] * count


def test_what_ends_within_its_start_makes_room_for_the_next_while_others_run_on() -> None:
    script: Script = {
        ("slow", None, 1): Act(lasts=100.0),
        ("quick", None, 1): Act(at_once=True),
        ("next", None, 1): Act(lasts=1.0),
    }
    on = stage({"slow": {}, "quick": {}, "next": {}}, script, workers=2)
    on.run()
    assert on.story()[-2:] == ["succeeded next 1", "succeeded slow 1"]
    assert on.loop.now == 100.0


def test_a_result_without_a_beginning_still_has_its_start_in_the_log() -> None:
    error = Error(type="OSError", message="could not start a worker process: EAGAIN")
    on = stage({"a": {}}, {("a", None, 1): Act(begins=None, outcome=Outcome.FAILED, more={"error": error})})
    on.run()
    assert on.story() == ["started a 1", "failed a 1"]
    assert on.of(events.TaskStarted)[0].worker == "default"


# --- retries -----------------------------------------------------------------------------------------------------------------


def test_a_retry_is_announced_with_its_number_and_its_wait() -> None:
    retry = {"max": 2, "delay": 5, "backoff": 2.0, "jitter": 0}
    script: Script = {("a", None, number): Act(outcome=Outcome.FAILED) for number in (1, 2)}
    on = stage({"a": {"retry": retry}}, script)
    on.run()
    assert [(each.attempt, each.delay) for each in on.of(events.TaskRetrying)] == [(2, 5.0), (3, 10.0)]
    assert [each.retried for each in on.of(events.TaskFinished)] == [True, True, False]
    assert on.loop.now == 1 + 5 + 1 + 10 + 1


def test_a_failure_that_is_allowed_says_so_only_when_it_is_the_last() -> None:
    script: Script = {("a", None, number): Act(outcome=Outcome.FAILED) for number in (1, 2)}
    on = stage({"a": {"retry": {"max": 1, "delay": 0}, "continue_on_error": True}}, script)
    on.run()
    assert [each.forgiven for each in on.of(events.TaskFinished)] == [False, True]


def test_what_was_handed_over_but_never_began_leaves_no_trace_in_the_log() -> None:
    on = stage({"a": {}})
    acts = iter([Act(returned=True), Act()])
    on.calls_side.script = lambda number: next(acts)
    on.run()
    assert on.story() == ["started a 1", "succeeded a 1"]


# --- stopping ----------------------------------------------------------------------------------------------------------------


def test_an_attempt_over_its_time_is_stopped_with_the_rule_of_its_task() -> None:
    on = stage({"a": {"timeout": 30}}, {("a", None, 1): Act(begins=5.0, lasts=None, stops_in=2.0)})
    on.run()
    assert on.calls_side.stopped == [(1, StopRule(signal=15, grace=10.0, with_stack=True))]
    (finished,) = on.of(events.TaskFinished)
    assert (finished.outcome, finished.duration) == ("timed_out", 32.0)
    assert finished.error == {"type": "TimedOut", "message": "timed out after 32 s, stopped by SIGTERM"}
    assert on.loop.now == 37.0


def test_an_abandoned_attempt_has_timed_out_at_once_and_its_late_result_changes_nothing() -> None:
    on = stage({"a": {"timeout": 1}, "b": {}}, {("a", None, 1): Act(lasts=1.5, abandons=True)}, workers=1)
    on.run()
    assert on.story() == ["started a 1", "timed_out a 1", "started b 1", "late_result a 1", "succeeded b 1"]
    assert on.plan.outcome("a") is Outcome.TIMED_OUT
    assert on.of(events.TaskFinished)[0].abandoned


def test_a_result_of_an_attempt_that_nobody_knows_is_dropped() -> None:
    on = stage({"a": {}})

    def tell(event: Event) -> None:
        if isinstance(event, events.TaskStarted):
            on.calls_side.report(Result(id=99, outcome=Outcome.SUCCEEDED))
            on.calls_side.report(Began(id=99, worker="w", pid=1))

    on.on_event = tell
    on.run()
    assert on.story() == ["started a 1", "succeeded a 1"]


def test_the_first_signal_stops_and_the_run_drains() -> None:
    on = stage({"a": {}, "b": {"needs": ["a"]}}, {("a", None, 1): Act(lasts=None, stops_in=3.0)})
    on.loop.after(10.0, lambda: on.engine.interrupt(signal.SIGTERM))
    tally = on.run()
    assert tally.signal == signal.SIGTERM
    assert on.story() == ["started a 1", "interrupted", "cancelled a 1", "skipped b: cancelled"] or on.story() == [
        "started a 1",
        "interrupted",
        "skipped b: cancelled",
        "cancelled a 1",
    ]
    assert on.calls_side.kills == 0
    assert on.loop.now == 13.0
    (interrupted,) = on.of(events.RunInterrupted)
    assert (interrupted.reason, interrupted.signal) == ("stopped by SIGTERM", "SIGTERM")


@pytest.mark.parametrize(("outcome", "told"), [(Outcome.SUCCEEDED, "succeeded"), (Outcome.FAILED, "cancelled")])
def test_a_success_that_was_reported_when_the_signal_came_is_one(outcome: Outcome, told: str) -> None:
    on = stage({"a": {}}, {("a", None, 1): Act(lasts=10.0, outcome=outcome)})
    on.loop.after(10.0, lambda: on.engine.interrupt(signal.SIGTERM))
    on.run()
    assert on.story() == ["started a 1", "interrupted", f"{told} a 1"]
    assert on.calls_side.stopped == []


def test_a_success_that_was_reported_in_the_turn_before_more_is_started_is_one_though_a_signal_came() -> None:
    on = stage({"a": {}, "b": {}}, {("a", None, 1): Act(at_once=True), ("b", None, 1): Act(lasts=0.0)}, workers=2)
    on.loop.after(0.0, lambda: on.engine.interrupt(signal.SIGTERM))
    on.run()
    assert on.plan.outcome("b") is Outcome.SUCCEEDED


OVER = {"was_over": True}


@pytest.mark.parametrize(("took", "more", "told"), [(0.5, OVER, "succeeded"), (1.5, OVER, "timed_out"), (0.5, {}, "timed_out")])
def test_what_had_ended_in_its_time_has_not_timed_out_however_late_that_is_heard(took: float, more: Any, told: str) -> None:
    on = stage({"a": {"timeout": 1}}, {("a", None, 1): Act(lasts=2.0, stops_in=None, more={"duration": took, **more})})
    on.run()
    assert on.story() == ["started a 1", f"{told} a 1"]


def test_the_second_signal_kills_at_once() -> None:
    on = stage({"a": {}}, {("a", None, 1): Act(lasts=None, stops_in=None)})
    on.loop.after(10.0, lambda: on.engine.interrupt(signal.SIGINT))
    on.loop.after(11.0, lambda: on.engine.interrupt(signal.SIGINT))
    tally = on.run()
    assert (on.calls_side.kills, on.commands_side.kills) == (1, 1)
    assert tally.signal == signal.SIGINT
    assert on.loop.now == 11.0
    (finished,) = on.of(events.TaskFinished)
    assert finished.outcome == "cancelled"
    assert len(on.of(events.RunInterrupted)) == 1


def test_a_signal_before_the_first_task_starts_nothing() -> None:
    on = stage({"a": {}, "b": {}})
    on.engine.interrupt(signal.SIGHUP)
    assert on.run().signal == signal.SIGHUP
    assert on.story() == ["interrupted", "skipped a: cancelled", "skipped b: cancelled"]


def test_the_jobs_timeout_interrupts_the_run_and_says_why() -> None:
    on = stage({"a": {}, "b": {"needs": ["a"]}}, {("a", None, 1): Act(lasts=None)}, timeout=60)
    tally = on.run()
    assert tally.signal is None
    assert on.plan.has_timed_out
    assert [each.reason for each in on.of(events.RunInterrupted)] == ["the job's timeout is over"]
    assert on.of(events.TaskFinished)[0].outcome == "cancelled"


def test_fail_fast_stops_what_runs() -> None:
    script: Script = {("a", None, 1): Act(outcome=Outcome.FAILED), ("b", None, 1): NEVER}
    on = stage({"a": {}, "b": {}, "c": {}}, script, workers=2, fail_fast=True)
    on.run()
    assert sorted(on.story()) == ["cancelled b 1", "failed a 1", "skipped c: cancelled", "started a 1", "started b 1"]


# --- our own bugs ------------------------------------------------------------------------------------------------------------


def test_a_plan_that_can_never_end_is_called_our_bug_instead_of_being_waited_for() -> None:
    on = stage({"a": {}}, workers=0)
    with pytest.raises(JobrunnerError, match=r"^stuck: .* \[this is a bug\]$"):
        on.run()
    assert on.calls_side.kills == 1


@pytest.mark.parametrize("error", [RuntimeError("a sink broke"), KeyboardInterrupt()])
def test_whatever_breaks_the_engine_every_lane_is_killed(error: BaseException) -> None:
    def broken(event: Event) -> None:
        if isinstance(event, events.TaskStarted):
            raise error

    on = stage({"a": {}}, on_event=broken)
    with pytest.raises(type(error)):
        on.run()
    assert (on.calls_side.kills, on.commands_side.kills) == (1, 1)


# --- any script --------------------------------------------------------------------------------------------------------------

acts = st.builds(
    Act,
    begins=st.sampled_from([0.0, 0.5, None]),
    lasts=st.sampled_from([0.0, 1.0, 3.0]),
    outcome=st.sampled_from([Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CRASHED]),
    stops_in=st.sampled_from([0.0, 1.0, None]),
    at_once=st.booleans(),
    abandons=st.booleans(),
)


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    tasks: dict[str, dict[str, Any]] = {}
    for number in range(draw(st.integers(1, 5))):
        task: dict[str, Any] = {"needs": [name for name in tasks if draw(st.booleans())]}
        if draw(st.booleans()):
            task["foreach"] = {"range": draw(st.integers(0, 4))}
        if draw(st.booleans()):
            task["retry"] = {"max": draw(st.integers(0, 2)), "delay": draw(st.integers(0, 2))}
        if draw(st.booleans()):
            task["timeout"] = draw(st.sampled_from([0.5, 2.0]))
        tasks[f"t{number}"] = task
    script: Script = {
        (name, index if "foreach" in task else None, number): draw(acts)
        for name, task in tasks.items()
        for index in range(task.get("foreach", {"range": 1})["range"])
        for number in (1, 2, 3)
    }
    more: dict[str, Any] = {"fail_fast": draw(st.booleans())}
    if draw(st.booleans()):
        more["timeout"] = draw(st.sampled_from([1.0, 4.0]))
    refuse = frozenset(draw(st.lists(st.sampled_from(sorted(tasks)), max_size=1)))
    on = stage(tasks, script, workers=draw(st.integers(1, 3)), refuse=refuse, **more)
    for moment in draw(st.lists(st.sampled_from([0.0, 1.0, 2.5]), max_size=2)):
        on.loop.after(moment, lambda: on.engine.interrupt(signal.SIGTERM))
    return on


@settings(max_examples=150)
@given(on=stages())
def test_every_start_has_exactly_one_finish_whatever_happens(on: Stage) -> None:
    on.run()
    starts = Counter((each.task, each.item, each.attempt) for each in on.of(events.TaskStarted))
    ends = Counter((each.task, each.item, each.attempt) for each in on.of(events.TaskFinished))
    assert starts == ends
    assert set(starts.values()) <= {1}
    assert all(on.plan.outcome(name) for name in on.plan.states)
    assert_in_order(on)


def assert_in_order(on: Stage) -> None:
    """A start before its finish, a retry between two tries, at most one outcome a task that ran or was skipped."""
    seen: set[tuple[str, str | None, int]] = set()
    for event in on.events:
        if isinstance(event, events.TaskStarted):
            seen.add((event.task, event.item, event.attempt))
        elif isinstance(event, events.TaskFinished):
            assert (event.task, event.item, event.attempt) in seen
        elif isinstance(event, events.TaskRetrying):
            assert (event.task, event.item, event.attempt - 1) in seen
            assert (event.task, event.item, event.attempt) not in seen
    skipped = Counter(each.task for each in on.of(events.TaskSkipped))
    assert set(skipped.values()) <= {1}
    assert not set(skipped) & {task for task, _, _ in seen}


@settings(max_examples=50)
@given(seed=st.integers(0, 1 << 16))
def test_the_order_of_reports_within_a_turn_changes_no_outcome(seed: int) -> None:
    rng = random.Random(seed)
    script: Script = {("a", index, 1): Act(lasts=1.0, begins=rng.choice([0.0, 0.5])) for index in range(6)}
    on = stage({"a": {"foreach": {"range": 6}}, "b": {"needs": ["a"]}}, script, workers=rng.randint(1, 6))
    on.run()
    assert on.plan.states == {"a": Outcome.SUCCEEDED, "b": Outcome.SUCCEEDED}


# --- attempts that are told in one --------------------------------------------------------------------------------------------

ACTS = st.one_of(
    st.just(Act(at_once=True)),
    st.just(Act(lasts=0.0)),
    st.builds(
        Act,
        lasts=st.sampled_from([0.0, 1.0]),
        outcome=st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED]),
        at_once=st.booleans(),
        says=st.sampled_from([b"", b"x"]),
        more=st.sampled_from([
            {}, {"note": "dropped"}, {"exit_code": 0}, {"cpu": 0.5, "max_rss": 7, "duration": 2.0}, {"value": b"1"},
        ]),
    ),
)  # fmt: skip
MIXED: Mapping[str, Mapping[str, Any]] = {
    "a": {"foreach": {"range": 5}, "retry": {"max": 1, "delay": 1}},
    "b": {"needs": ["a"], "foreach": {"range": 3}, "timeout": 0.5, "continue_on_error": True},
    "c": {"foreach": {"range": 3}, "max_parallel": 1},
    "d": {"needs": ["b", "c"], "at_most_once": True},
    "e": {"needs": ["b"]},
}
PLACES = [
    (name, index, number)
    for name, task in MIXED.items()
    for index in (range(5) if "foreach" in task else (None,))
    for number in (1, 2)
]


@given(st.fixed_dictionaries(dict.fromkeys(PLACES, ACTS)), st.integers(1, 4), st.booleans(), st.booleans())
@settings(deadline=None)
def test_an_attempt_that_is_told_in_one_comes_to_the_same_as_one_whose_begin_and_end_are(
    script: Script, workers: int, keeps: bool, fail_fast: bool
) -> None:
    def played(together: bool) -> Stage:
        memory = Memory(digest=lambda attempt, work: f"{attempt.task}", keeps=lambda task: keeps and task == "a")
        played = stage(MIXED, script, workers=workers, together=together, fail_fast=fail_fast, memory=memory)
        played.plan.allow_ahead("default", 2)
        played.tally = played.run()
        return played

    one_by_one, together = played(False), played(True)
    assert one_by_one.events == together.events
    assert one_by_one.plan.states == together.plan.states
    assert [one_by_one.plan.results(name) for name in MIXED] == [together.plan.results(name) for name in MIXED]
    assert one_by_one.tally == together.tally


def test_a_success_whose_begin_and_end_come_together_is_told_in_one() -> None:
    played = stage({"a": {"foreach": {"range": 9}}}, {("a", each, 1): Act(at_once=True) for each in range(8)}, together=True)
    played.run()
    assert played.told == 8
    assert len(played.of(events.TaskStarted)) == len(played.of(events.TaskFinished)) == 9


# --- what is handed out together -----------------------------------------------------------------------------------------------

CALLS: Mapping[str, Mapping[str, Any]] = {
    "a": {"target": "m:f", "foreach": {"range": 5}, "retry": {"max": 1, "delay": 1}},
    "b": {"target": "m:f", "needs": ["a"], "foreach": {"range": 5}, "timeout": 0.5, "continue_on_error": True},
    "c": {"target": "m:f", "foreach": {"range": 5}, "max_parallel": 2},
    "d": {"target": "m:f", "needs": ["b", "c"]},
    **{name: {"target": "m:f", "needs": ["a"] if name > "g" else []} for name in "efghi"},
    "j": {"target": "m:f", "needs": ["e", "f"], "timeout": 0.5, "continue_on_error": True},
    "k": {"target": "m:f", "needs": ["e"], "timeout": 0.5, "retry": {"max": 1, "delay": 1}},
    "l": {"target": "m:f", "needs": ["j", "h"]},
}
OF_CALLS = [
    (name, index, number)
    for name, task in CALLS.items()
    for index in (range(5) if "foreach" in task else (None,))
    for number in (1, 2)
]
MOMENTS = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.5]), max_size=2)
TURNED_BACK = st.one_of(ACTS, st.sampled_from([Act(returned=True), Act(begins=None, outcome=Outcome.CRASHED)]))


@given(st.fixed_dictionaries(dict.fromkeys(OF_CALLS, TURNED_BACK)), st.integers(1, 4), st.integers(0, 9), MOMENTS, st.booleans())
@settings(deadline=None, max_examples=200)
def test_what_is_handed_out_together_comes_to_the_same_as_each_by_itself(
    script: Script, workers: int, ahead: int, moments: list[float], refused: bool
) -> None:
    def played(together: bool) -> Stage:
        memory = Memory(digest=lambda attempt, work: f"{attempt.task}/{attempt.key}")
        refuse = frozenset("bf") if refused else frozenset()
        played = stage(CALLS, dict(script), workers=workers, together=together, is_kept=False, memory=memory, refuse=refuse)
        played.calls_side.is_one_process = True
        played.plan.allow_ahead("default", ahead)
        for moment in moments:
            played.loop.after(moment, lambda: played.engine.interrupt(signal.SIGTERM))
        played.tally = played.run()
        return played

    one_by_one, together = played(False), played(True)
    assert one_by_one.events == together.events
    assert one_by_one.plan.states == together.plan.states
    assert one_by_one.tally == together.tally


def test_tasks_are_handed_out_together_as_items_are() -> None:
    tasks = {name: {"target": "m:f"} for name in "abc"} | {name: {"target": "m:f", "needs": ["b"]} for name in "de"}
    script: Script = {(name, None, 1): Act(at_once=name != "c") for name in tasks}
    on = stage(tasks, script, workers=9, together=True, is_kept=False)
    on.calls_side.is_one_process = True
    on.run()
    assert (on.bound_together, on.told) == (5, 4)
    assert on.story()[:4] == ["started a 1", "succeeded a 1", "started b 1", "succeeded b 1"]
    assert set(on.plan.states.values()) == {Outcome.SUCCEEDED}


def test_items_are_handed_out_together_where_only_success_matters() -> None:
    script: Script = {("a", each, 1): Act(at_once=each != 4) for each in range(9)}
    on = stage({"a": {"target": "m:f", "foreach": {"range": 9}}}, script, workers=9, together=True, is_kept=False)
    on.calls_side.is_one_process = True
    on.run()
    assert (on.bound_together, on.told) == (9, 8)
    assert len(on.of(events.TaskStarted)) == len(on.of(events.TaskFinished)) == 9
