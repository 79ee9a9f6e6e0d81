"""Resume through the command line: what is recorded is not run again, what was lost is, and nothing runs twice at a time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks import leftovers

ROOT = Path(__file__).resolve().parent.parent

# A task leaves one line in `witness` each time it runs; one with a file fail-NAME fails, one with block-NAME waits to be killed.
STEP = (
    "echo {name} >> witness; if [ -e fail-{name} ]; then exit 3; fi; "
    "if [ -e block-{name} ]; then echo $$ > pid; exec sleep 600; fi"
)
WHOM = {"guard": (0,), "second guard": (1,), "engine": (2,), "guard and engine": (0, 2), "guards": (0, 1), "all": (0, 1, 2)}
VALUES = "echo ${{ tasks.a.result }} ${{ tasks.b.outputs.k }} ${{ tasks.b.stdout }} >> got; "


def step(name: str, **keys: Any) -> dict[str, Any]:
    return {"run": STEP.format(name=name), **keys}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A folder with a job file, and a state directory of its own."""

    folder: Path

    def job(self, tasks: Mapping[str, Any], **keys: Any) -> None:
        (self.folder / "job.yaml").write_text(json.dumps({"name": "job", "workers": 1, "tasks": tasks, **keys}))

    def flag(self, name: str) -> Path:
        path = self.folder / name
        path.touch()
        return path

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "jobrunner", *args]

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "JOBRUNNER_STATE": str(self.folder / "state"), "PYTHONPATH": str(ROOT)}

    def call(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*args), cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False, timeout=60
        )

    def kill_in_the_middle(self, *args: str, whom: str = "guard and engine") -> None:
        """Run until a blocked task runs, and kill the runner there: guards, engine, or several of them."""
        (self.folder / "pid").unlink(missing_ok=True)
        with subprocess.Popen(
            self.command(*args), cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as runner:
            self.wait_until_blocked(runner)
            family = leftovers.family(runner.pid)
            for number in (signal.SIGSTOP, signal.SIGKILL):  # held first, so that nobody of them acts on the death of another
                for place in WHOM[whom]:
                    os.kill(family[place], number)
            runner.communicate()

    def wait_until_blocked(self, runner: subprocess.Popen[bytes]) -> None:
        """A blocked task runs, and has said so."""
        said = self.folder / "pid"
        assert runner.stderr is not None
        for line in runner.stderr:
            if b"task.started" in line and self.blocks(json.loads(line)):
                break
        deadline = time.monotonic() + 20
        while not (said.exists() and said.read_text().strip()):
            assert time.monotonic() < deadline
            os.sched_yield()

    def blocks(self, event: Mapping[str, Any]) -> bool:
        names = [event["task"], event.get("item", "")]
        return any((self.folder / f"block-{name}").exists() for name in names)

    def ran(self) -> Counter[str]:
        witness = self.folder / "witness"
        return Counter(witness.read_text().split()) if witness.exists() else Counter()

    def runs(self) -> list[Path]:
        return sorted((self.folder / "state" / "job").glob("2*"))

    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.runs()[-1] / "events.jsonl").read_text().splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [record for record in self.journal() if record["event"] == name]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(folder=tmp_path)


def is_alive(pid: int) -> bool:
    """It runs: it is neither gone nor a zombie that nobody has reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # the second where it ends while we read
        return False


def chain(*names: str) -> dict[str, Any]:
    return {name: step(name, needs=list(names[place - 1 : place])) for place, name in enumerate(names)}


# --- killed ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whom", WHOM)
def test_what_had_ended_is_not_run_again_and_what_ran_is(stage: Stage, whom: str) -> None:
    stage.job(chain("a", "b", "c"))
    block = stage.flag("block-b")
    stage.kill_in_the_middle("run", "job.yaml", whom=whom)
    block.unlink()
    resumed = stage.call("resume")
    assert resumed.returncode == 0, resumed.stderr
    assert stage.ran() == {"a": 1, "b": 2, "c": 1}
    assert len(stage.runs()) == 1
    (again,) = stage.events("run.resumed")
    assert (again["attempt"], again["recorded"], again["in_flight"]) == (2, 1, 1)
    lost, ended = (record for record in stage.events("task.finished") if record["task"] == "b")
    assert (lost["outcome"], lost["attempt"], lost["retried"]) == ("crashed", 1, True)
    assert (ended["outcome"], ended["attempt"]) == ("succeeded", 2)


def test_what_a_killed_run_left_running_is_ended_before_it_runs_again(stage: Stage) -> None:
    stage.job(chain("a", "b"))
    block = stage.flag("block-b")
    stage.kill_in_the_middle("run", "job.yaml", whom="all")
    left = int((stage.folder / "pid").read_text())
    assert is_alive(left)
    block.unlink()
    assert stage.call("resume").returncode == 0
    assert left in [record["pid"] for record in stage.events("orphan.killed")]
    assert not is_alive(left)


def test_a_new_run_ends_what_the_last_one_left_running_too(stage: Stage) -> None:
    stage.job(chain("a"))
    block = stage.flag("block-a")
    stage.kill_in_the_middle("run", "job.yaml", whom="all")
    left = int((stage.folder / "pid").read_text())
    block.unlink()
    assert stage.call("run", "job.yaml").returncode == 0
    assert len(stage.runs()) == 2
    assert left in [record["pid"] for record in stage.events("orphan.killed")]


def test_items_are_found_by_content_when_the_list_has_changed(stage: Stage) -> None:
    def job(items: Sequence[str]) -> None:
        stage.job({"each": {"foreach": list(items), "run": STEP.format(name="${{ item }}")}})

    job("abc")
    block = stage.flag("block-c")
    stage.kill_in_the_middle("run", "job.yaml")
    block.unlink()
    job("xcba")
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"a": 1, "b": 1, "c": 2, "x": 1}


def test_a_changed_task_and_all_that_depends_on_it_run_again(stage: Stage) -> None:
    tasks = chain("a", "b", "c", "d")
    stage.job(tasks)
    block = stage.flag("block-d")
    stage.kill_in_the_middle("run", "job.yaml")
    block.unlink()
    stage.job({**tasks, "b": step("b", needs=["a"], env={"NEW": "1"})})
    plan = stage.call("resume", "--dry-run").stdout
    assert "1 to run (1 changed)" in plan
    assert "runs after b" in plan
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"a": 1, "b": 2, "c": 2, "d": 2}


def test_values_of_recorded_tasks_reach_those_that_run_now(stage: Stage) -> None:
    stage.job(
        {
            "a": {"target": "os.path:join", "args": ["x", "y"]},
            "b": {"run": "echo k=v1 >> $JOBRUNNER_OUTPUT; echo text"},
            "c": {"needs": ["a", "b"], "run": VALUES + STEP.format(name="c")},
        }
    )
    block = stage.flag("block-c")
    stage.kill_in_the_middle("run", "job.yaml")
    block.unlink()
    assert stage.call("resume").returncode == 0
    assert (stage.folder / "got").read_text() == "x/y v1 text\n" * 2
    assert [record["task"] for record in stage.events("task.skipped")] == ["a", "b"]


# --- at most once ------------------------------------------------------------------------------------------------------------


def test_what_may_run_at_most_once_is_unknown_until_somebody_asks_for_it(stage: Stage) -> None:
    stage.job({"a": step("a", at_most_once=True), "b": step("b", needs=["a"])})
    block = stage.flag("block-a")
    stage.kill_in_the_middle("run", "job.yaml")
    block.unlink()
    resumed = stage.call("resume")
    assert resumed.returncode == 1
    assert stage.ran() == {"a": 1}
    assert [record["outcome"] for record in stage.events("task.finished")] == ["unknown"]
    assert "--rerun a" in resumed.stdout
    assert stage.call("resume", "--rerun", "a").returncode == 0
    assert stage.ran() == {"a": 2, "b": 1}


# --- failed ------------------------------------------------------------------------------------------------------------------


def test_what_failed_runs_again_only_when_asked_for(stage: Stage) -> None:
    stage.job(chain("a", "b", "c"))
    fails = stage.flag("fail-b")
    assert stage.call("run", "job.yaml").returncode == 1
    fails.unlink()
    refused = stage.call("resume")
    assert refused.returncode == 2
    assert "--retry-failed" in refused.stderr
    assert stage.call("resume", "--retry-failed").returncode == 0
    assert stage.ran() == {"a": 1, "b": 2, "c": 1}


def test_a_run_that_succeeded_has_nothing_left_to_do(stage: Stage) -> None:
    stage.job(chain("a"))
    assert stage.call("run", "job.yaml").returncode == 0
    assert stage.call("resume").returncode == 2
    assert stage.ran() == {"a": 1}


# --- which run ---------------------------------------------------------------------------------------------------------------


def test_run_with_resume_goes_on_where_there_is_something_and_starts_where_there_is_not(stage: Stage) -> None:
    stage.job(chain("a", "b"))
    block = stage.flag("block-b")
    stage.kill_in_the_middle("run", "job.yaml", "--resume")
    block.unlink()
    assert stage.call("run", "job.yaml", "--resume").returncode == 0
    assert (stage.ran(), len(stage.runs())) == ({"a": 1, "b": 2}, 1)
    assert stage.call("run", "job.yaml", "--resume").returncode == 0
    assert (stage.ran(), len(stage.runs())) == ({"a": 2, "b": 3}, 2)


def test_a_run_is_named_by_its_id_its_directory_or_its_job_file(stage: Stage) -> None:
    stage.job(chain("a", "b"))
    block = stage.flag("block-b")
    stage.kill_in_the_middle("run", "job.yaml")
    (run,) = stage.runs()
    for what in (run.name, str(run), "job.yaml"):
        shown = stage.call("resume", what, "--dry-run")
        assert run.name in shown.stdout, shown.stderr
    assert stage.ran() == {"a": 1, "b": 1}
    block.unlink()
    assert stage.call("resume", run.name).returncode == 0


@pytest.mark.parametrize("what", ["20260101T000000Z-00000000", "no.yaml"])
def test_a_run_that_does_not_exist_is_a_mistake_of_usage(stage: Stage, what: str) -> None:
    refused = stage.call("resume", what)
    assert refused.returncode == 2
    assert what in refused.stderr


def test_options_and_parameters_are_those_of_the_first_call(stage: Stage) -> None:
    stage.job({"a": {"run": STEP.format(name="${{ params.word }}")}, "b": step("b")}, params={"word": "default"})
    fails = stage.flag("fail-given")
    assert stage.call("run", "job.yaml", "--set", "word=given", "--only", "a").returncode == 1
    fails.unlink()
    assert stage.call("resume", "--retry-failed").returncode == 0
    assert stage.ran() == {"given": 2}


# --- stopped -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_run_that_was_stopped_goes_on(stage: Stage, number: int, code: int) -> None:
    stage.job(chain("a", "b"))
    block = stage.flag("block-b")
    with subprocess.Popen(
        stage.command("run", "job.yaml"), cwd=stage.folder, env=stage.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as runner:
        stage.wait_until_blocked(runner)
        runner.send_signal(number)
        runner.communicate()
    assert runner.returncode == code
    block.unlink()
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"a": 1, "b": 2}


def test_ten_crashes_of_a_resume_change_nothing(stage: Stage) -> None:
    stage.job(chain("a", "b", "c"))
    block = stage.flag("block-b")
    stage.kill_in_the_middle("run", "job.yaml")
    for _ in range(9):
        stage.kill_in_the_middle("resume")
    block.unlink()
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"a": 1, "b": 11, "c": 1}
    attempts = [(record["task"], record["attempt"]) for record in stage.events("task.finished")]
    assert attempts == [("a", 1), *(("b", number) for number in range(1, 12)), ("c", 1)]


# --- what would be done --------------------------------------------------------------------------------------------------------


def test_a_dry_run_with_resume_tells_what_it_would_go_on_with(stage: Stage) -> None:
    stage.job(chain("a", "b"))
    assert "in default" in stage.call("run", "job.yaml", "--resume", "--dry-run").stdout
    stage.flag("block-b")
    stage.kill_in_the_middle("run", "job.yaml")
    told = stage.call("run", "job.yaml", "--resume", "--dry-run").stdout
    assert re.search(r"^resume \S+ of job, attempt 2\n  a  1 recorded as succeeded\n  b  1 to run", told), told
    assert stage.ran() == {"a": 1, "b": 1}


def test_while_a_job_runs_a_resume_of_it_says_so_and_tells_nothing_else(stage: Stage) -> None:
    stage.job(chain("a"))
    block = stage.flag("block-a")
    with subprocess.Popen(
        stage.command("run", "job.yaml"), cwd=stage.folder, env=stage.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as runner:
        stage.wait_until_blocked(runner)
        for args in (["resume", "--dry-run"], ["resume"], ["run", "job.yaml", "--resume", "--dry-run"]):
            refused = stage.call(*args)
            assert (refused.returncode, refused.stdout) == (75, "")
            assert f"pid {runner.pid}" in refused.stderr
        block.unlink()
        runner.terminate()
        runner.communicate()


def test_without_a_name_it_is_the_last_run_that_was_stopped_or_killed(stage: Stage) -> None:
    stage.job(chain("a", "b"))
    stage.flag("block-b")
    stage.kill_in_the_middle("run", "job.yaml")
    (stage.folder / "other.yaml").write_text(json.dumps({"name": "other", "tasks": {"fine": {"run": "true"}}}))
    assert stage.call("run", "other.yaml").returncode == 0
    assert "of job, attempt 2" in stage.call("resume", "--dry-run").stdout
