"""Control flow in whole runs: what is stopped, killed or resumed, and what then becomes of final tasks, caches and limits."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobrunner.slots import Slots
from tests.test_resume import Stage, step


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(folder=tmp_path)


def finals(stage: Stage, tasks: Mapping[str, Any], last: Mapping[str, Any], **keys: Any) -> None:
    """A job with final tasks."""
    stage.job(tasks, **{"finally": last}, **keys)


def signalled(stage: Stage, signals: Sequence[int], *, then: Sequence[int] = ()) -> int:
    """Send signals while a task blocks, and others when the next one does. The exit code."""
    with subprocess.Popen(
        stage.command("run", "job.yaml"), cwd=stage.folder, env=stage.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as runner:
        stage.wait_until_blocked(runner)
        for number in signals:
            runner.send_signal(number)
        if then:
            (stage.folder / "pid").unlink()
            stage.wait_until_blocked(runner)
            for number in then:
                runner.send_signal(number)
        runner.communicate()
    return runner.returncode


# --- finally -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signals", "code"), [([signal.SIGTERM], 143), ([signal.SIGTERM] * 2, 143), ([signal.SIGINT], 130)])
def test_a_run_that_is_stopped_tidies_up(stage: Stage, signals: list[int], code: int) -> None:
    finals(
        stage,
        {"a": step("a"), "b": step("b", needs=["a"])},
        {"tidy": step("tidy"), "cheer": step("cheer", **{"if": "success()"})},
    )
    stage.flag("block-a")
    assert signalled(stage, signals) == code
    assert stage.ran() == {"a": 1, "tidy": 1}


def test_a_second_int_ends_the_tidying_up_too(stage: Stage) -> None:
    finals(stage, {"a": step("a")}, {"tidy": step("tidy"), "last": step("last", needs=["tidy"])})
    stage.flag("block-a")
    stage.flag("block-tidy")
    assert signalled(stage, [signal.SIGINT], then=[signal.SIGINT]) == 130
    assert stage.ran() == {"a": 1, "tidy": 1}
    (ended,) = stage.events("run.finished")
    assert ended["outcomes"] == {"cancelled": 2, "skipped": 1}


def test_what_a_stopped_run_said_at_its_end_is_said_again_when_it_is_resumed(stage: Stage) -> None:
    told = {"run": "echo ${{ tasks.a.outcome }} >> told"}
    finals(stage, {"a": step("a"), "b": step("b")}, {"tell": told})
    block = stage.flag("block-b")
    assert signalled(stage, [signal.SIGTERM]) == 143
    block.unlink()
    resumed = stage.call("resume")
    assert resumed.returncode == 0, resumed.stderr
    assert stage.ran() == {"a": 1, "b": 2}
    assert (stage.folder / "told").read_text() == "succeeded\n" * 2


def test_a_runner_that_is_killed_in_its_last_task_goes_on_with_that(stage: Stage) -> None:
    finals(stage, {"a": step("a")}, {"tidy": step("tidy"), "last": step("last", needs=["tidy"])})
    block = stage.flag("block-last")
    stage.kill_in_the_middle("run", "job.yaml")
    block.unlink()
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"a": 1, "tidy": 1, "last": 2}


@pytest.mark.parametrize(
    "task", [{"run": "false", "retry": {"max": 3, "delay": "1h"}}, {"run": "true", "limits": ["db"]}], ids=["a retry", "slots"]
)
def test_where_the_jobs_time_ends_a_wait_the_final_tasks_run(stage: Stage, task: dict[str, Any]) -> None:
    limits = {"db": {"slots": 1, "scope": "host"}}
    finals(stage, {"a": task}, {"tidy": step("tidy")}, timeout="300ms", limits=limits)
    slots = Slots(stage.folder / "state" / ".limits", job="another")
    assert slots.take("db", 1, 1)
    ended = stage.call("run", "job.yaml")
    slots.close()
    assert ended.returncode == 124, ended.stderr
    assert stage.ran() == {"tidy": 1}


def test_a_dry_resume_says_when_final_tasks_run(stage: Stage) -> None:
    finals(stage, {"a": step("a"), "b": step("b", **{"if": "false"})}, {"tidy": step("tidy")})
    stage.flag("block-a")
    stage.kill_in_the_middle("run", "job.yaml")
    lines = {line.split()[0]: line for line in stage.call("resume", "--dry-run").stdout.splitlines()}
    assert lines["b"].endswith("skipped: its condition is false")
    assert lines["tidy"].endswith("runs after all others")


def test_items_that_the_condition_skips_are_skipped_again_when_the_run_is_resumed(stage: Stage) -> None:
    stage.job({"each": {"foreach": ["a", "b", "c"], "if": "item != 'a'", **step("${{ item }}")}})
    block = stage.flag("block-c")
    stage.kill_in_the_middle("run", "job.yaml")
    block.unlink()
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"b": 1, "c": 2}


# --- steps -------------------------------------------------------------------------------------------------------------------


def test_a_task_of_several_commands_that_was_cut_off_begins_again_with_the_first(stage: Stage) -> None:
    stage.job({"a": {"run": [STEP_ONE, step("b")["run"], "echo c >> witness"]}})
    block = stage.flag("block-b")
    with subprocess.Popen(
        stage.command("run", "job.yaml"),
        cwd=stage.folder,
        env=stage.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as runner:
        pid = stage.folder / "pid"
        while not (pid.exists() and pid.read_text().strip()):
            assert runner.poll() is None
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(30) == 143
    block.unlink()
    assert stage.ran() == {"one": 1, "b": 1}
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"one": 2, "b": 2, "c": 1}


STEP_ONE = "echo one >> witness"


# --- cache -------------------------------------------------------------------------------------------------------------------


def test_what_is_unchanged_is_skipped_in_the_next_run_and_says_why_it_runs_again(stage: Stage) -> None:
    make = {"run": "echo make >> witness; cp in.txt out.txt", "cache": {"inputs": ["in.txt"], "outputs": ["out.txt"]}}
    stage.job({"make": make, "use": step("use", needs=["make"])})
    (stage.folder / "in.txt").write_text("one")
    assert stage.call("run", "job.yaml").returncode == 0
    assert stage.call("run", "job.yaml").returncode == 0
    assert stage.ran() == {"make": 1, "use": 2}
    assert [each["reason"] for each in stage.events("task.skipped")] == ["cached"]
    (stage.folder / "in.txt").write_text("two")
    assert stage.call("run", "job.yaml").returncode == 0
    assert stage.events("task.started")[0]["because"] == ["input in.txt changed"]
    (stage.folder / "out.txt").unlink()
    assert stage.call("run", "job.yaml").returncode == 0
    assert stage.events("task.started")[0]["because"] == ["output out.txt is gone"]
    assert stage.call("run", "job.yaml", "--force").returncode == 0
    assert stage.ran() == {"make": 4, "use": 5}


@pytest.mark.parametrize("how", ["fails", "is stopped", "is killed with its runner"])
def test_half_of_an_output_is_never_taken_for_done(stage: Stage, how: str) -> None:
    half = "echo make >> witness; echo half > out.txt; " + step("make")["run"].split("; ", 1)[1] + "; echo whole > out.txt"
    stage.job({"make": {"run": half, "cache": {"inputs": ["in.txt"], "outputs": ["out.txt"]}}})
    (stage.folder / "in.txt").write_text("one")
    if how == "fails":
        flag = stage.flag("fail-make")
        assert stage.call("run", "job.yaml").returncode == 1
    else:
        flag = stage.flag("block-make")
        if how == "is stopped":
            assert signalled(stage, [signal.SIGTERM]) == 143
        else:
            stage.kill_in_the_middle("run", "job.yaml")
    flag.unlink()
    assert (stage.folder / "out.txt").read_text() == "half\n"
    assert stage.call("run", "job.yaml").returncode == 0
    assert stage.ran() == {"make": 2}
    assert (stage.folder / "out.txt").read_text() == "whole\n"
    assert stage.call("run", "job.yaml").returncode == 0
    assert stage.ran() == {"make": 2}


def test_a_look_into_the_cache_that_hangs_ends_with_the_timeout_of_its_task(stage: Stage) -> None:
    stage.job({"make": {**step("make"), "timeout": "300ms", "stop": {"grace": "200ms"}, "cache": {"inputs": ["in.txt"]}}})
    (stage.folder / "in.txt").write_text("one")
    hang = "import jobrunner.fingerprint as f, time\nf.check = lambda **asked: time.sleep(600)\n"
    (stage.folder / "sitecustomize.py").write_text(hang)
    environ = {**stage.environ, "PYTHONPATH": f"{stage.folder}:{stage.environ['PYTHONPATH']}"}
    ended = subprocess.run(
        stage.command("run", "job.yaml"), cwd=stage.folder, env=environ, capture_output=True, check=False, timeout=30
    )
    assert ended.returncode == 1
    assert stage.ran() == {}
    (event,) = stage.events("task.finished")
    assert event["outcome"] == "timed_out"


def test_two_job_files_of_the_same_name_do_not_take_each_others_work_for_done(stage: Stage, tmp_path: Path) -> None:
    for name in ("here", "there"):
        other = Stage(folder=tmp_path / name)
        other.folder.mkdir()
        other.job({"make": {**step("make"), "cache": {}}})
        subprocess.run(other.command("run", "job.yaml"), cwd=other.folder, env=stage.environ, capture_output=True, check=True)
        assert other.ran() == {"make": 1}


def test_a_task_that_is_to_run_again_is_not_cached(stage: Stage) -> None:
    stage.job({"make": {**step("make"), "cache": {}}})
    assert stage.call("run", "job.yaml").returncode == 0
    assert stage.call("resume", "job.yaml", "--rerun", "make").returncode == 0
    assert stage.ran() == {"make": 2}


def test_a_success_that_did_not_make_its_outputs_says_that_it_is_not_cached(stage: Stage) -> None:
    stage.job({"make": {"run": "true", "cache": {"outputs": ["out.txt"]}}})
    assert stage.call("run", "job.yaml").returncode == 0
    (ended,) = stage.events("task.finished")
    assert ended["note"] == "not cached: output out.txt was not there when it last ended"


def test_values_of_a_cached_task_are_there_for_those_who_ask(stage: Stage) -> None:
    make = {"run": 'echo "k=7" >> "$JOBRUNNER_OUTPUT"; echo said', "cache": {"inputs": ["in.txt"]}}
    use = {"needs": ["make"], "run": "echo ${{ tasks.make.outputs.k }} ${{ tasks.make.stdout }} >> got"}
    stage.job({"make": make, "use": use})
    (stage.folder / "in.txt").write_text("one")
    for _ in range(2):
        assert stage.call("run", "job.yaml").returncode == 0
    assert [each["task"] for each in stage.events("task.skipped")] == ["make"]
    assert (stage.folder / "got").read_text() == "7 said\n" * 2


def test_what_ran_again_makes_void_what_was_cached_behind_it(stage: Stage) -> None:
    make = {"run": "cat in.txt", "cache": {"inputs": ["in.txt"]}}
    stage.job({"make": make, "behind": {"needs": ["make"], **step("behind"), "cache": {}}})
    for text in ("one", "one", "two"):
        (stage.folder / "in.txt").write_text(text)
        assert stage.call("run", "job.yaml").returncode == 0
    assert stage.ran() == {"behind": 2}
    assert stage.events("task.started")[1]["because"] == ["needs make, which gave something else"]


# --- limits of the machine ---------------------------------------------------------------------------------------------------


def test_a_task_waits_for_slots_that_another_job_holds(stage: Stage) -> None:
    stage.job({"a": step("a", limits=["db"])}, limits={"db": {"slots": 1, "scope": "host"}})
    slots = Slots(stage.folder / "state" / ".limits", job="another")
    assert slots.take("db", 1, 1)
    with subprocess.Popen(
        stage.command("run", "job.yaml"), cwd=stage.folder, env=stage.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as runner:
        assert runner.stderr is not None
        assert any(b"pool.opened" in line for line in runner.stderr)
        assert stage.ran() == {}
        slots.close()
        assert any(b"task.started" in line for line in runner.stderr)
        runner.communicate()
    assert runner.returncode == 0


def test_a_run_that_waits_for_slots_can_be_stopped(stage: Stage) -> None:
    stage.job({"a": step("a", limits=["db"])}, limits={"db": {"slots": 1, "scope": "host"}})
    slots = Slots(stage.folder / "state" / ".limits", job="another")
    assert slots.take("db", 1, 1)
    with subprocess.Popen(
        stage.command("run", "job.yaml"), cwd=stage.folder, env=stage.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as runner:
        assert runner.stderr is not None
        assert any(b"pool.opened" in line for line in runner.stderr)
        runner.send_signal(signal.SIGTERM)
        runner.communicate()
    assert runner.returncode == 143
    assert stage.ran() == {}
    slots.close()


def test_a_killed_run_gives_its_slots_back(stage: Stage) -> None:
    stage.job({"a": step("a", limits=["db"])}, limits={"db": {"slots": 1, "scope": "host"}})
    stage.flag("block-a")
    stage.kill_in_the_middle("run", "job.yaml")
    slots = Slots(stage.folder / "state" / ".limits", job="another")
    assert slots.take("db", 1, 1)
    slots.close()


# --- large values ------------------------------------------------------------------------------------------------------------


def test_a_large_value_has_a_file_of_its_own_and_is_there_after_a_resume(stage: Stage) -> None:
    (stage.folder / "large.py").write_text("def make(): return 'x' * 2_000_000\ndef size(value): return len(value)\n")
    tasks = {
        "make": {"target": "large:make"},
        "block": step("block", needs=["make"]),
        "size": {"needs": ["make", "block"], "target": "large:size", "args": ["${{ tasks.make.result }}"]},
        "tell": {"needs": ["size"], "run": "echo ${{ tasks.size.result }} > got"},
    }
    stage.job(tasks)
    block = stage.flag("block-block")
    stage.kill_in_the_middle("run", "job.yaml")
    (file,) = (stage.runs()[-1] / "values").iterdir()
    assert len(json.loads(file.read_text())) == 2_000_000
    assert max(map(len, (stage.runs()[-1] / "events.jsonl").read_text().splitlines())) < 10_000
    block.unlink()
    assert stage.call("resume").returncode == 0
    assert (stage.folder / "got").read_text() == "2000000\n"


def test_a_value_whose_file_is_gone_is_made_again(stage: Stage) -> None:
    (stage.folder / "large.py").write_text(
        "def make():\n    open('witness', 'a').write('make\\n')\n    return 'x' * 2_000_000\ndef size(value): return len(value)\n"
    )
    tasks = {
        "make": {"target": "large:make", "mode": "process"},
        "block": step("block", needs=["make"]),
        "size": {"needs": ["make", "block"], "target": "large:size", "args": ["${{ tasks.make.result }}"]},
    }
    stage.job(tasks)
    block = stage.flag("block-block")
    stage.kill_in_the_middle("run", "job.yaml")
    (file,) = (stage.runs()[-1] / "values").iterdir()
    file.unlink()
    block.unlink()
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"make": 2, "block": 2}
