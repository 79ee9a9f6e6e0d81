"""Runners: whoever dies, and whenever, no command is lost, runs twice or outlives the run, and each start has one end."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner import system
from jobrunner.executors import commandpool, link, runners
from jobrunner.executors.commandpool import CommandPool
from jobrunner.executors.reaper import Reaper
from jobrunner.executors.runners import Runner
from jobrunner.loop import Loop
from jobrunner.processes import children, environment, of_run
from jobrunner.work import Began, Command, Error, Exhausted, Leftover, Outcome, Report, Result, Returned, Said, StopRule
from tests.commandpools import ByRunner

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60.0
TERM = StopRule(signal=signal.SIGTERM, grace=30)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody inherits what a runner leaves behind")


class Scene:
    """A pool of two whose commands go to a runner, without an engine. This process is a subreaper meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.loop, self.inbox = folder, Loop(), list[Report]()
        self.reaper = Reaper(inherits=True, run_id="run-1")
        self.reaper.open(self.loop, self.inbox.append)
        self.pool = ByRunner(pool="p", slots=2, reaper=self.reaper, cookie="run-1")
        self.pool.open(self.loop, self.inbox.append)

    @property
    def runner(self) -> Runner:
        assert self.pool._runner is not None
        return self.pool._runner

    def start(self, *scripts: str, first: int = 1) -> None:
        for number, text in enumerate(scripts, first):
            env = {**os.environ, "JOBRUNNER_RUN_ID": "run-1", "JOBRUNNER_RUNS": "run-1", "JOBRUNNER_OUTPUT": f"/nowhere/{number}"}
            self.pool.start(Command(id=number, argv=("/bin/sh", "-c", text), env=env, cwd=str(self.folder)))
        self.pool.flush()

    def until(self, condition: Callable[[], bool]) -> None:
        limit = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < limit, self.inbox
            self.loop.turn(time.monotonic() + 0.05)

    def of(self, kind: type) -> list[Any]:
        return [each for each in self.inbox if type(each) is kind]

    def ends(self) -> dict[int, str]:
        """How each command has ended, which it must do once."""
        ends = [(each.id, str(each.outcome)) for each in self.of(Result)] + [(each.id, "returned") for each in self.of(Returned)]
        assert len(dict(ends)) == len(ends), ends
        began = [each.id for each in self.of(Began)]
        assert len(set(began)) == len(began)
        assert {each.id for each in self.of(Result)} <= set(began)
        return dict(ends)

    def close(self) -> None:
        self.pool.close()
        self.until(lambda: self.pool.closed)
        self.reaper.close()
        self.loop.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with system.subreaping():
        before = len(os.listdir("/proc/self/fd"))
        scene = Scene(tmp_path)
        yield scene
        scene.close()
        assert not [pid for pid in children() if is_alive(pid)]
        assert len(os.listdir("/proc/self/fd")) == before


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


REPORTS: list[Report] = [
    Began(id=1, worker="p", pid=7),
    Said(id=1, pool="p", data=b"\xff\x00"),
    Exhausted(id=1, reason="none"),
    Leftover(id=0, pids=(1, 2), killed=True),
    Result(id=1, outcome=Outcome.SUCCEEDED, duration=0.5, cpu=0.1, max_rss=9, exit_code=0, stdout=b"a", outputs={"a": "b"}),
    Result(id=1, outcome=Outcome.FAILED, signal=9, error=Error(type="A", message="\udcff", kinds=("B",))),
]


@pytest.mark.parametrize("report", REPORTS, ids=lambda each: type(each).__name__)
def test_a_report_arrives_as_it_was_sent_in_pieces_of_any_length(report: Report) -> None:
    frames, data = link.Frames(), link.frame([link.of_report(report)] * 2)
    rows = [row for at in range(0, len(data), 3) for row in frames.rows(data[at : at + 3])]
    assert [link.report_of(row) for row in rows] == [report, report]


def test_at_most_as_many_run_as_there_are_workers_and_all_in_their_order(scene: Scene) -> None:
    scene.start(*["true"] * 40)
    scene.until(lambda: len(scene.of(Result)) == 40)
    assert set(scene.ends().values()) == {"succeeded"}
    assert [each.id for each in scene.of(Began)] == list(range(1, 41))
    running = itertools.accumulate({Began: 1, Result: -1}.get(type(each), 0) for each in scene.inbox)
    assert max(running) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_of_a_runner_that_is_lost_what_has_begun_has_crashed_and_what_waits_is_ready_again(
    number: signal.Signals, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "_PATIENCE", 0.5)
    scene.runner._watch_over(0.5)
    scene.start(*["setsid sleep 1000 & exec sleep 1000"] * 6)
    scene.until(lambda: len(scene.of(Began)) == 2)
    os.kill(scene.runner.pid, number)
    scene.until(lambda: len(scene.ends()) == 6)
    assert scene.ends() == {1: "crashed", 2: "crashed"} | dict.fromkeys(range(3, 7), "returned")
    assert [each.id for each in scene.of(Returned)] == [6, 5, 4, 3]
    assert not [each.pid for each in scene.of(Began) if is_alive(each.pid)]
    scene.until(lambda: scene.runner.closed)
    scene.until(lambda: not scene.reaper.strangers())
    scene.start("true", first=10)  # by the engine itself from now on
    scene.until(lambda: scene.ends().get(10) == "succeeded")


def test_killed_at_any_moment_it_loses_nothing_and_nothing_runs_twice(tmp_path: Path) -> None:
    for seed in range(12):
        with system.subreaping():
            folder = tmp_path / str(seed)
            folder.mkdir()
            scene = Scene(folder)
            scene.start(*["echo ${JOBRUNNER_OUTPUT##*/} >> ran"] * 60)
            moment = time.monotonic() + random.Random(seed).random() * 0.3
            while time.monotonic() < moment:
                scene.loop.turn(moment)
            os.kill(scene.runner.pid, signal.SIGKILL)
            scene.until(lambda: len(scene.ends()) == 60)  # noqa: B023  # it is called at once
            ends = scene.ends()
            ran = [int(each) for each in (folder / "ran").read_text().split()] if (folder / "ran").exists() else []
            scene.close()
            assert len(set(ran)) == len(ran)
            assert {each for each, end in ends.items() if end == "succeeded"} <= set(ran)
            assert not {each for each, end in ends.items() if end == "returned"} & set(ran)


def test_what_is_taken_back_does_not_begin_and_the_first_of_it_is_the_next(scene: Scene, tmp_path: Path) -> None:
    scene.start(*["until [ -e go ]; do sleep 0.01; done; echo $$ >> ran"] * 8)
    scene.until(lambda: len(scene.of(Began)) == 2)
    scene.pool.take_back()
    assert [each.id for each in scene.of(Returned)] == [8, 7, 6, 5, 4, 3]
    scene.start("true", "true", first=9)
    (tmp_path / "go").touch()
    scene.until(lambda: len(scene.ends()) == 10)
    assert len((tmp_path / "ran").read_text().split()) == 2


def test_a_stop_takes_what_waits_back_and_reaches_what_runs(scene: Scene, tmp_path: Path) -> None:
    ignoring = "trap '' TERM; touch ready; while :; do sleep 0.01; done"
    scene.start(ignoring, "trap 'exit 7' TERM; touch other; while :; do sleep 0.01; done", "touch third")
    scene.until(lambda: (tmp_path / "ready").exists() and (tmp_path / "other").exists())
    scene.pool.stop(3, TERM)
    scene.pool.stop(2, TERM)
    scene.pool.stop(1, StopRule(signal=signal.SIGTERM, grace=0.2))
    scene.until(lambda: len(scene.ends()) == 3)
    assert scene.ends() == {1: "failed", 2: "failed", 3: "returned"}
    results = {each.id: (each.exit_code, each.signal) for each in scene.of(Result)}
    assert results == {1: (None, signal.SIGKILL), 2: (7, None)}
    assert not (tmp_path / "third").exists()


def test_a_kill_ends_all_at_once(scene: Scene) -> None:
    scene.start(*["exec sleep 1000"] * 5)
    scene.until(lambda: len(scene.of(Began)) == 2)
    scene.pool.kill()
    scene.until(lambda: len(scene.ends()) == 5)
    assert [each.signal for each in scene.of(Result)] == [signal.SIGKILL] * 2


def test_when_its_engine_has_gone_it_ends_all_that_it_runs_and_itself(tmp_path: Path) -> None:
    with system.subreaping():
        if (engine := os.fork()) == 0:
            try:
                scene = Scene(tmp_path)
                scene.start(*["setsid sleep 1000 & exec sleep 1000"] * 4)
                scene.until(lambda: len(scene.of(Began)) == 2)
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(engine, 0)
        limit = time.monotonic() + PATIENCE
        while True:  # what it leaves is ours, until it has ended
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            assert time.monotonic() < limit, [Path(f"/proc/{each}/cmdline").read_text() for each in children()]
            time.sleep(0 if pid else 0.01)


def test_a_runner_is_started_only_where_commands_are_short_and_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commandpool, "_LEAST_ENDED", 3)
    monkeypatch.setattr(commandpool, "_LONGEST", 60.0)
    with system.subreaping():
        loop, inbox = Loop(), list[Report]()
        reaper = Reaper(inherits=True, run_id="run-1")
        reaper.open(loop, inbox.append)
        pool = CommandPool(pool="p", slots=1, reaper=reaper, cookie="run-1")
        pool.open(loop, inbox.append)

        def run(number: int) -> None:
            pool.start(Command(id=number, argv=("true",), env=dict(os.environ), cwd="/"))

        for number in range(3):
            assert pool.prepare() == 0
            run(number)
            while not pool.closed:
                loop.turn()
        assert (pool.prepare(), pool._runner) == (1, None)
        run(3)
        run(4)
        assert pool._runner is not None
        assert [each.id for each in inbox if isinstance(each, Returned)] == [4]
        assert pool.prepare() == 0
        while not pool._runner.is_ready or pool._direct.running:
            loop.turn()
        assert pool.prepare() > 1
        pool.close()
        while not pool.closed:
            loop.turn()
        reaper.close()
        loop.close()


# --- The whole program ---------------------------------------------------------------------------------------------------------


def runners_below(pid: int) -> list[int]:
    """The runners among what descends from a process."""
    found, rest = list[int](), [pid]
    while rest:
        each = rest.pop()
        try:
            rest += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
        except OSError:
            continue
        if any(variable.startswith(link.MARK.encode()) for variable in environment(each)):
            found.append(each)
    return found


def started_with_runner(folder: Path, task: dict[str, Any], env: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """A run of the task alone, two at a time, and the pid of its runner."""
    (folder / "job.yaml").write_text(json.dumps({"name": "j", "workers": 2, "tasks": {"a": task}}))
    run = subprocess.Popen([sys.executable, "-m", "jobrunner", "job.yaml", "-q"], cwd=folder, env=env)
    while run.poll() is None and not (found := runners_below(run.pid)):
        time.sleep(0.005)
    assert run.poll() is None, "there was no runner"
    return run, found[0]


@pytest.mark.parametrize("lines", [0, 150, 500])
def test_a_run_whose_runner_is_killed_goes_on_and_no_attempt_runs_twice(lines: int, tmp_path: Path) -> None:
    count = 1000
    task = {"run": 'echo "$JOBRUNNER_ITEM $JOBRUNNER_ATTEMPT" >> ran', "foreach": {"range": count}, "retry": {"max": 2}}
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JOBRUNNER_STATE": str(tmp_path / "state")}
    run, runner = started_with_runner(tmp_path, task, env)
    while run.poll() is None and (tmp_path / "ran").read_text().count("\n") < lines:
        time.sleep(0.005)
    os.kill(runner, signal.SIGKILL)
    assert run.wait() == 0
    ran = (tmp_path / "ran").read_text().split("\n")[:-1]
    assert len(set(ran)) == len(ran)
    assert {line.split()[0] for line in ran} == set(map(str, range(count)))
    (journal,) = (tmp_path / "state").glob("j/*/events.jsonl")
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    started = [(each["item"], each["attempt"]) for each in events if each["event"] == "task.started"]
    ended = [(each["item"], each["attempt"]) for each in events if each["event"] == "task.finished"]
    assert len(set(started)) == len(started)
    assert sorted(started) == sorted(ended)


@pytest.mark.parametrize("victim", ["the engine", "the guard"])
def test_a_run_that_is_killed_leaves_no_runner_and_no_command_and_is_resumed(victim: str, tmp_path: Path) -> None:
    task = {"run": 'echo "$JOBRUNNER_ITEM" >> ran', "foreach": {"range": 500}}
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JOBRUNNER_STATE": str(tmp_path / "state")}
    run, runner = started_with_runner(tmp_path, task, env)
    engine = int(Path(f"/proc/{runner}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(engine if victim == "the engine" else run.pid, signal.SIGKILL)
    assert run.wait() != 0
    (directory,) = (each.parent for each in (tmp_path / "state").glob("j/*/events.jsonl"))
    limit = time.monotonic() + PATIENCE
    while left := of_run(directory.name, str(directory / "mark")):
        for each in left:
            os.close(each.pidfd)
        assert time.monotonic() < limit
    resumed = [sys.executable, "-m", "jobrunner", "resume", directory.name, "-q"]
    assert subprocess.run(resumed, cwd=tmp_path, env=env, check=False).returncode == 0
    assert set((tmp_path / "ran").read_text().split()) == set(map(str, range(500)))
