"""The fault table: what a task does to its worker, and what comes of it and of its neighbours, in every mode.

Every row is one run of the command line over all lanes. After it no process of the run is left, every log line is valid,
every attempt that started has ended, and a pool beside the guilty one has noticed nothing.
"""

from __future__ import annotations

import functools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from jobrunner import work
from jobrunner.events import TaskLateResult, WorkerDied, WorkerStarted
from jobrunner.eventschema import json_schema
from jobrunner.executors import hosts
from jobrunner.executors.pool import HostPool, PoolSettings
from jobrunner.loop import Loop
from jobrunner.work import Outcome
from tests.harness import POOLS, run_job

ROOT = Path(__file__).resolve().parent.parent
TARGETS = "tests.targets.faults"
TIMEOUT = GRACE = 0.4
LIMIT = 50.0
"""Seconds that a row may take, however busy the machine is."""

LANES: dict[str, dict[str, Any]] = {
    **{lane: pool for lane, pool in POOLS.items() if lane != "stock_threads"},
    "spawned_pool": {**POOLS["process_pool"], "start_method": "spawn"},
}
COLUMNS = {
    "serial, process, process_pool": ("serial", "process", "process_pool", "spawned_pool"),
    "thread, thread_pool": ("thread", "thread_pool"),
    "stock ProcessPoolExecutor": ("stock_processes",),
    "loky": ("loky",),
}
"""The columns of the table in docs/modes.md, and the lanes that each speaks for."""
COLUMN = {lane: position for position, lanes in enumerate(COLUMNS.values()) for lane in lanes}

ALL = "crashed, neighbours too"
NOT_TRIED = "–"
DEATH = ("crashed", ALL, ALL, ALL)
OURS_ONLY = ("crashed", ALL, NOT_TRIED, NOT_TRIED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A deed of tests/targets/faults.py, in words for the docs, and its outcome in each of COLUMNS."""

    words: str
    deed: str
    outcomes: tuple[str, str, str, str]
    has_timeout: bool = False


ROWS = {
    row.deed.split()[0]: row
    for row in (
        Row(words="`sys.exit(1)`", deed="exit_1", outcomes=("failed",) * 4),
        Row(words="`sys.exit(0)`", deed="exit_0", outcomes=("succeeded",) * 4),
        Row(words="an exception", deed="raises", outcomes=("failed",) * 4),
        Row(words="an exception that cannot be unpickled", deed="raises_two_arguments", outcomes=("failed",) * 4),
        Row(words="`KeyboardInterrupt`", deed="interrupts", outcomes=("failed",) * 4),
        Row(words="a result that cannot be pickled", deed="returns_unpicklable", outcomes=("succeeded",) * 4),
        Row(words="`os._exit(0)`", deed="vanishes", outcomes=DEATH),
        Row(words="SIGKILL by itself", deed="kills_itself", outcomes=DEATH),
        Row(words="SIGKILL by somebody else while busy", deed="is_killed_by_another", outcomes=DEATH),
        Row(words="a segmentation fault", deed="segfaults", outcomes=DEATH),
        Row(words="`os.abort()`", deed="aborts", outcomes=DEATH),
        Row(words="over its timeout, ignores SIGTERM", deed="ignores_term", outcomes=("timed_out",) * 4, has_timeout=True),
        Row(
            words="over its timeout, stopped by SIGSTOP",
            deed="stops_itself",
            outcomes=("timed_out", "timed_out, neighbours crashed", "timed_out", "timed_out"),
            has_timeout=True,
        ),
        Row(
            words="over its timeout, holds the GIL in C beyond the grace",
            deed="holds_the_interpreter 30",
            outcomes=("timed_out", "timed_out, neighbours crashed", "timed_out", "timed_out"),
            has_timeout=True,
        ),
        Row(words="leaves a child that holds standard output", deed="leaves_a_child", outcomes=("succeeded",) * 4),
        Row(words="writes garbage to its worker's connection", deed="talks_nonsense", outcomes=OURS_ONLY),
        Row(words="forges the result of another attempt", deed="lies", outcomes=OURS_ONLY),
        Row(words="closes its worker's connection", deed="hangs_up", outcomes=OURS_ONLY),
    )
}
CASES = [(row, lane) for row in ROWS for lane in LANES if ROWS[row].outcomes[COLUMN[lane]] != NOT_TRIED]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the command line: its exit code, its log, what it left running."""

    exit_code: int
    log: tuple[dict[str, Any], ...]
    leftovers: tuple[str, ...]
    stdout: str
    wall: float

    def named(self, event: str, **fields: object) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == event and all(line.get(key) == fields[key] for key in fields)]


def run_cli(job: dict[str, Any], folder: Path) -> Run:
    """Run `job` by the command line, for at most LIMIT seconds. What carries the run's cookie afterwards was left by it."""
    (folder / "job.yaml").write_text(json.dumps(job), encoding="utf-8")
    cookie = f"FAULTS_COOKIE={uuid.uuid4().hex}"
    name, _, value = cookie.partition("=")
    started = time.monotonic()
    options = ["--log-format", "json", "--log-file", str(folder / "log")]
    ended = subprocess.run(
        [sys.executable, "-m", "jobrunner", "run", *options, str(folder / "job.yaml")],
        cwd=ROOT,
        env={**os.environ, name: value},
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    wall = time.monotonic() - started
    log = tuple(json.loads(line) for line in (folder / "log").read_text(encoding="utf-8").splitlines())
    said = ended.stdout.decode("utf-8", "replace")
    return Run(exit_code=ended.returncode, log=log, leftovers=leftovers(cookie.encode()), stdout=said, wall=wall)


def leftovers(cookie: bytes, patience: float = 2.0) -> tuple[str, ...]:
    """Live processes with `cookie` in their environment, once those that were killed have had time to end (in seconds)."""
    until = time.monotonic() + patience
    while (found := tuple(carriers(cookie))) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def carriers(cookie: bytes) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if cookie in (process / "environ").read_bytes():
                yield f"{process.name}: {(process / 'cmdline').read_bytes()!r}"
        except OSError:
            continue


def fault_job(row: Row, folder: Path) -> dict[str, Any]:
    """In every lane the guilty one beside an innocent one; where both go, the innocent one stays until it is taken."""
    tasks: dict[str, Any] = {}
    for lane in LANES:
        expected = row.outcomes[COLUMN[lane]]
        if expected == NOT_TRIED:
            continue
        mark = "" if lane == "serial" else str(folder / f"mark-{lane}")
        stop = {"timeout": TIMEOUT, "stop": {"grace": GRACE}} if row.has_timeout else {}
        seconds = 30 if "neighbours" in expected else 0.1
        tasks[f"innocent_{lane}"] = {"target": f"{TARGETS}:innocent", "args": [mark, seconds]}
        tasks[f"guilty_{lane}"] = {"target": f"{TARGETS}:beside", "args": [mark, row.deed], **stop}
        tasks[f"later_{lane}"] = {"target": f"{TARGETS}:innocent"}
    pools = {lane: pool for lane, pool in LANES.items() if f"guilty_{lane}" in tasks}
    return {"pools": pools, "tasks": {name: {**task, "pool": name.partition("_")[2]} for name, task in tasks.items()}}


@functools.cache
def fault(row: str) -> Run:
    folder = Path(tempfile.mkdtemp(dir=os.environ["JOBRUNNER_STATE"]))
    return run_cli(fault_job(ROWS[row], folder), folder)


def outcome(run: Run, task: str) -> str:
    (finished,) = run.named("task.finished", task=task)
    return str(finished["outcome"])


@functools.cache
def validators() -> dict[str, Any]:
    return {each["title"]: jsonschema.Draft202012Validator(each) for each in json_schema()["oneOf"]}


def assert_sound(run: Run) -> None:
    """What holds after every run, whatever went wrong in it."""
    assert run.leftovers == ()
    for line in run.log:
        validators()[line["event"]].validate(line)
    starts, finishes = (
        Counter((line["task"], line.get("item"), line["attempt"]) for line in run.named(f"task.{name}"))
        for name in ("started", "finished")
    )
    assert starts == finishes
    began, joined = (
        Counter((line["worker"], line["pid"]) for line in run.named(f"worker.{name}")) for name in ("started", "joined")
    )
    assert began == joined
    (last,) = run.named("run.finished")
    assert last is run.log[-1]
    assert (run.exit_code == 0) == (last["outcome"] == "succeeded")


@pytest.mark.parametrize(("row", "lane"), CASES)
def test_a_fault_has_the_outcome_of_the_table(row: str, lane: str) -> None:
    assert outcome(fault(row), f"guilty_{lane}") == ROWS[row].outcomes[COLUMN[lane]].partition(",")[0]


@pytest.mark.parametrize(("row", "lane"), CASES)
def test_a_fault_takes_only_those_with_it_that_the_table_says(row: str, lane: str) -> None:
    goes = lane != "serial" and "neighbours" in ROWS[row].outcomes[COLUMN[lane]]
    assert outcome(fault(row), f"innocent_{lane}") == ("crashed" if goes else "succeeded")


@pytest.mark.parametrize(("row", "lane"), CASES)
def test_after_a_fault_its_pool_works_on(row: str, lane: str) -> None:
    assert outcome(fault(row), f"later_{lane}") == "succeeded"


@pytest.mark.parametrize("row", ROWS)
def test_after_a_fault_nothing_is_left_and_the_log_is_whole(row: str) -> None:
    assert_sound(fault(row))


@pytest.mark.parametrize("lane", ["serial", "process", "process_pool", "spawned_pool"])
@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ("vanishes", {"exit_code": 0}),
        ("kills_itself", {"signal": "SIGKILL"}),
        ("segfaults", {"signal": "SIGSEGV"}),
        ("aborts", {"signal": "SIGABRT"}),
        ("exit_1", {"exit_code": 1}),
    ],
)
def test_an_end_is_named(row: str, lane: str, fields: dict[str, object]) -> None:
    (line,) = fault(row).named("task.finished", task=f"guilty_{lane}")
    assert {key: line.get(key) for key in fields} == fields
    assert all(str(value) in line["error"]["message"] for value in fields.values())


@pytest.mark.parametrize("row", [name for name, row in ROWS.items() if row.has_timeout])
@pytest.mark.parametrize("lane", LANES)
def test_a_timeout_is_kept_within_its_grace(row: str, lane: str) -> None:
    (line,) = fault(row).named("task.finished", task=f"guilty_{lane}")
    assert TIMEOUT - 0.1 <= line["duration"] <= TIMEOUT + (GRACE if "process" in LANES[lane].get("mode", "") else 0) + 1
    assert line.get("abandoned", False) == (lane in ("thread", "thread_pool", "stock_processes", "loky"))


def test_a_worker_that_is_no_use_any_more_is_named_with_the_reason() -> None:
    (line,) = fault("talks_nonsense").named("task.finished", task="guilty_process_pool")
    assert line["error"]["message"] == "worker lost: it sent what is no frame"


# --- Deaths that need a scene of their own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", ["process_pool", "spawned_pool", "thread", "thread_pool", "serial"])
def test_a_worker_that_is_killed_while_idle_costs_nothing(lane: str, tmp_path: Path) -> None:
    pool = {**LANES[lane], **({} if lane == "serial" else {"workers": 1})}
    tasks = {
        "before": {"target": f"{TARGETS}:pid", "pool": "p"},
        "killer": {"target": f"{TARGETS}:kill_idle", "args": ["${{ tasks.before.result }}"], "needs": ["before"], "pool": "q"},
        "after": {"target": f"{TARGETS}:pid", "needs": ["killer"], "pool": "p"},
    }
    ran = run_job(tmp_path, {"pools": {"p": pool, "q": {"mode": "process", "workers": 1}}, "tasks": tasks})
    assert ran.result.ok
    assert [event.attempt for event in ran.finished("after")] == [1]
    assert ran.value("after") != ran.value("before")
    if lane != "thread":  # there, no thread was left that could have died
        assert {event.pid for event in ran.of(WorkerDied)} == {ran.value("before")}


def test_a_poison_task_uses_up_its_own_retries_and_nobody_elses(tmp_path: Path) -> None:
    tasks = {
        "poison": {"target": f"{TARGETS}:kills_itself", "retry": {"max": 2, "delay": 0}},
        "innocent": {"target": f"{TARGETS}:innocent", "foreach": {"range": 20}, "args": ["", 0.01]},
    }
    ran = run_job(tmp_path, {"mode": "process_pool", "workers": 2, "tasks": tasks})
    assert [(event.attempt, event.outcome) for event in ran.finished("poison")] == [(n, "crashed") for n in (1, 2, 3)]
    assert [(event.attempt, event.outcome) for event in ran.finished("innocent")] == [(1, "succeeded")] * 20


@pytest.mark.parametrize("lane", ["process", "process_pool", "serial"])
def test_a_task_that_survives_its_third_try_succeeds(lane: str, tmp_path: Path) -> None:
    task = {"target": f"{TARGETS}:fails_until", "args": [str(tmp_path), 3], "retry": {"max": 2, "delay": 0}, "pool": "p"}
    ran = run_job(tmp_path, {"pools": {"p": LANES[lane]}, "tasks": {"task": task}})
    assert [event.outcome for event in ran.finished("task")] == ["crashed", "crashed", "succeeded"]


@pytest.mark.parametrize("lane", ["process_pool", "spawned_pool", "thread_pool"])
def test_an_import_that_fails_everywhere_fails_at_once_without_new_workers(lane: str, tmp_path: Path) -> None:
    (tmp_path / "hopeless.py").write_text("raise ImportError('libmissing.so')", encoding="utf-8")
    task = {"target": "hopeless:f", "foreach": {"range": 20}, "pool": "p"}
    ran = run_job(tmp_path, {"pools": {"p": LANES[lane]}, "tasks": {"task": task}})
    assert {(event.outcome, (event.error or {})["message"]) for event in ran.finished("task")} == {("failed", "libmissing.so")}
    assert len(ran.of(WorkerStarted)) <= 2


@pytest.mark.parametrize("lane", ["process", "process_pool", "thread", "serial"])
def test_hosts_that_die_at_once_end_the_attempt_and_are_not_started_for_ever(
    lane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    task = {"target": f"{TARGETS}:innocent", "foreach": {"range": 5}, "pool": "p"}
    ran = run_job(tmp_path, {"pools": {"p": {**LANES[lane], "start_method": "spawn"}}, "tasks": {"task": task}})
    assert {event.outcome for event in ran.finished("task")} == {"crashed"}
    assert "its worker ended before it began (exit 1)" in (ran.finished("task")[0].error or {})["message"]
    assert len(ran.of(WorkerStarted)) <= 10


def test_an_interpreter_that_cannot_be_started_is_a_failure_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    task = {"target": f"{TARGETS}:innocent", "foreach": {"range": 5}, "pool": "p"}
    ran = run_job(tmp_path, {"pools": {"p": LANES["spawned_pool"]}, "tasks": {"task": task}})
    assert {(event.outcome, (event.error or {})["message"]) for event in ran.finished("task")} == {
        ("failed", "could not start a worker process: No such file or directory")
    }


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (f"{TARGETS}:broken_factory", "no such cluster"),
        (f"{TARGETS}:odd_factory", "'object' object has no attribute 'submit'"),
        (f"{TARGETS}:no_factory", "no_factory"),
        ("no.such.module:Executor", "No module named 'no'"),
    ],
)
def test_an_executor_that_cannot_be_made_is_a_failure_that_says_so(factory: str, message: str, tmp_path: Path) -> None:
    task = {"target": f"{TARGETS}:innocent", "foreach": {"range": 3}, "pool": "p"}
    ran = run_job(tmp_path, {"pools": {"p": {"executor": factory, "workers": 2}}, "tasks": {"task": task}})
    assert [event.outcome for event in ran.finished("task")] == ["failed"] * 3
    assert message in (ran.finished("task")[0].error or {})["message"]


# --- Threads that go on --------------------------------------------------------------------------------------------------------


def threads_job(lane: str, deed: str, seconds: float, timeout: float) -> dict[str, Any]:
    tasks: dict[str, dict[str, Any]] = {
        "guilty": {"target": f"{TARGETS}:beside", "args": ["", deed], "timeout": timeout},
        "innocent": {"target": f"{TARGETS}:innocent", "args": ["", seconds]},
    }
    return {"pools": {"p": LANES[lane]}, "tasks": {name: {**task, "pool": "p"} for name, task in tasks.items()}}


@pytest.mark.parametrize("lane", ["thread", "thread_pool"])
@pytest.mark.parametrize("deed", ["sleeps 1", "holds_the_interpreter 1"])
def test_a_late_result_of_an_abandoned_thread_is_logged_and_changes_nothing(lane: str, deed: str, tmp_path: Path) -> None:
    ran = run_job(tmp_path, threads_job(lane, deed, seconds=1.5, timeout=0.2))
    assert [(event.outcome, event.abandoned) for event in ran.finished("guilty")] == [("timed_out", True)]
    assert [(event.task, event.outcome) for event in ran.of(TaskLateResult)] == [("guilty", "succeeded")]
    assert ran.only("innocent").outcome == "succeeded"


@pytest.mark.parametrize("lane", ["thread", "thread_pool"])
def test_an_abandoned_thread_does_not_hold_up_the_run(lane: str, tmp_path: Path) -> None:
    ran = run_job(tmp_path, threads_job(lane, "sleeps 30", seconds=0.5, timeout=0.2))
    assert ran.only("innocent").outcome == "succeeded"
    assert ran.wall < 5


@pytest.mark.parametrize("lane", ["thread", "thread_pool"])
def test_the_host_of_an_abandoned_thread_gets_no_new_work(lane: str, tmp_path: Path) -> None:
    job = threads_job(lane, "sleeps 30", seconds=0, timeout=0.2)
    after = {"target": f"{TARGETS}:pid", "needs": ["guilty"], "pool": "p"}
    job["tasks"] = {**job["tasks"], "guilty": {**job["tasks"]["guilty"], "continue_on_error": True}, "after": after}
    ran = run_job(tmp_path, job)
    assert ran.value("after") != ran.only("guilty").pid


def test_calls_behind_a_thread_that_never_lets_go_are_given_to_another_host(tmp_path: Path) -> None:
    job = threads_job("thread", "holds_the_interpreter 30", seconds=0, timeout=0.2)
    job["tasks"]["guilty"]["stop"] = {"grace": 0.3}
    job["tasks"]["innocent"]["retry"] = {"max": 1, "delay": 0}
    assert run_job(tmp_path, job).finished("innocent")[-1].outcome == "succeeded"


@pytest.mark.parametrize("lane", ["process", "process_pool", "serial", "thread", "thread_pool"])
def test_a_thread_that_a_task_left_running_does_not_hold_up_the_run(
    lane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_CLOSING_GRACE", 0.3)
    task = {"target": f"{TARGETS}:leaves_a_thread", "pool": "p"}
    ran = run_job(tmp_path, {"pools": {"p": LANES[lane]}, "tasks": {"task": task}})
    assert ran.result.ok
    assert ran.wall < 10


# --- Output --------------------------------------------------------------------------------------------------------------------


def memory_of_engine() -> str:
    return "grep VmHWM /proc/$PPID/status"


@pytest.mark.parametrize(
    "flood",
    [
        {"target": f"{TARGETS}:floods", "args": [100], "mode": "process_pool"},
        {"target": f"{TARGETS}:floods", "args": [100], "mode": "thread_pool"},
        {"target": f"{TARGETS}:prints_much", "args": [30], "mode": "thread_pool"},
        {"run": "head -c 100000000 /dev/zero"},
    ],
)
def test_output_without_end_does_not_grow_the_engine(flood: dict[str, Any], tmp_path: Path) -> None:
    tasks = {
        "before": {"run": memory_of_engine()},
        "flood": {**flood, "needs": ["before"]},
        "after": {"run": memory_of_engine(), "needs": ["flood"]},
    }
    folder = tmp_path
    run = run_cli({"name": f"flood{uuid.uuid4().hex[:8]}", "tasks": tasks}, folder)
    assert_sound(run)
    assert run.exit_code == 0
    before, after = (int(kilobytes) for kilobytes in re.findall(r"VmHWM:\s+(\d+) kB", run.stdout))
    assert after - before < 50 << 10


def test_a_child_that_a_command_leaves_behind_is_named_and_killed(tmp_path: Path) -> None:
    run = run_cli({"tasks": {"task": {"run": "sleep 100 & echo done"}}}, tmp_path)
    assert_sound(run)
    assert run.wall < 20
    (line,) = run.named("task.leftover")
    assert line["killed"]
    assert outcome(run, "task") == "succeeded"


def test_a_child_that_may_stay_stays(tmp_path: Path) -> None:
    run = run_cli({"tasks": {"task": {"run": "sleep 100 & echo done", "stop": {"leftover": "allow"}}}}, tmp_path)
    (line,) = run.named("task.leftover")
    (pid,) = line["pids"]
    os.kill(pid, 9)
    assert not line.get("killed", False)
    assert [name.partition(":")[0] for name in run.leftovers] == [str(pid)]


def test_a_command_that_ignores_term_is_killed_after_the_grace(tmp_path: Path) -> None:
    task = {"run": "trap '' TERM; sleep 30; sleep 30", "timeout": TIMEOUT, "stop": {"grace": GRACE}}
    run = run_cli({"tasks": {"task": task}}, tmp_path)
    assert_sound(run)
    (line,) = run.named("task.finished")
    assert (line["outcome"], line["signal"]) == ("timed_out", "SIGKILL")
    assert TIMEOUT + GRACE <= line["duration"] <= TIMEOUT + GRACE + 1


# --- A storm -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_workers_killed_at_random_moments_cost_exactly_their_own_attempts(seed: int) -> None:
    storm = Storm(random.Random(seed), kills=70)
    storm.run()
    crashed = {call for call, result in storm.results.items() if result.outcome is Outcome.CRASHED}
    assert set(storm.results) == set(range(1, storm.last + 1))
    assert all(storm.pid_of[call] in storm.killed for call in crashed)
    assert all(result.outcome in (Outcome.CRASHED, Outcome.SUCCEEDED) for result in storm.results.values())
    assert all(result.error is None or result.signal == 9 for result in storm.results.values())


class Storm:
    """A process pool that always has four calls in flight, and somebody who kills its workers until there were enough."""

    def __init__(self, dice: random.Random, kills: int) -> None:
        self.dice, self.kills, self.last = dice, kills, 0
        self.loop, self.inbox = Loop(), deque[work.Report]()
        self.pool = HostPool(PoolSettings(name="p", mode="process_pool", workers=4))
        self.pids: list[int] = []
        self.killed: set[int] = set()
        self.pid_of: dict[int, int] = {}
        self.in_flight: set[int] = set()
        self.results: dict[int, work.Result] = {}

    def run(self) -> None:
        self.pool.open(self.loop, self.inbox.append)
        until = time.monotonic() + LIMIT
        while len(self.killed) < self.kills or self.in_flight:
            assert time.monotonic() < until, f"{self.in_flight} never ended"
            while len(self.in_flight) < 4 and len(self.killed) < self.kills:
                self.last += 1
                self.start(self.last)
            self.turn()
        self.pool.close()
        while not self.pool.closed:
            assert time.monotonic() < until
            self.turn()
        self.loop.close()

    def start(self, call_id: int) -> None:
        self.in_flight.add(call_id)
        seconds = self.dice.choice((0, 0, 0.001, 0.003))
        self.pool.start(work.Call(id=call_id, target=f"{TARGETS}:innocent", args=["", seconds]))

    def turn(self) -> None:
        if self.dice.random() < 0.3:
            self.kill_one()
        self.loop.turn(self.loop.clock() + 0.01)
        while self.inbox:
            self.apply(self.inbox.popleft())

    def kill_one(self) -> None:
        """Only ones that were not joined: their numbers are still theirs."""
        alive = [pid for pid in self.pids if pid not in self.killed]
        if alive and len(self.killed) < self.kills:
            pid = self.dice.choice(alive)
            self.killed.add(pid)
            os.kill(pid, 9)

    def apply(self, report: work.Report) -> None:
        match report:
            case work.WorkerStarted(pid=pid):
                self.pids.append(pid)
                self.killed.discard(pid)
            case work.WorkerJoined(pid=pid):
                self.pids.remove(pid)
            case work.Began(id=call_id, pid=pid):
                self.pid_of[call_id] = pid
            case work.Result(id=call_id):
                assert call_id not in self.results
                self.results[call_id] = report
                self.in_flight.remove(call_id)
            case work.Returned(id=call_id):
                self.in_flight.remove(call_id)
                self.start(call_id)
            case _:
                pass


def test_the_fault_table_of_the_docs_is_this_one() -> None:
    text = (ROOT / "docs" / "modes.md").read_text(encoding="utf-8")
    table = text.partition("<!-- fault table -->\n")[2].partition("\n\n")[0].splitlines()
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert found[0] == ["what the task does", *COLUMNS]
    assert found[2:] == [[row.words, *row.outcomes] for row in ROWS.values()]
