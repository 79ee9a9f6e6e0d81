"""Nasty nights: what is killed while it is resumed, stopped, waiting or told apart by nothing but its item."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.test_resume import STEP, Stage, chain, is_alive, step


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(folder=tmp_path)


def killed_at(stage: Stage, name: str, *args: str) -> None:
    """Kill the runner while `name` runs; after that nothing blocks any more."""
    block = stage.flag(f"block-{name}")
    stage.kill_in_the_middle(*args)
    block.unlink()


def stopped_at(stage: Stage, name: str) -> int:
    """Stop the runner with TERM while `name` runs; its exit code."""
    block = stage.flag(f"block-{name}")
    with subprocess.Popen(
        stage.command("run", "job.yaml"), cwd=stage.folder, env=stage.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as runner:
        stage.wait_until_blocked(runner)
        runner.send_signal(signal.SIGTERM)
        runner.communicate()
    block.unlink()
    return runner.returncode


# --- a resume that is killed itself ------------------------------------------------------------------------------------------


def test_a_second_chance_that_is_killed_is_given_again(stage: Stage) -> None:
    stage.job(chain("a", "b"))
    fails = stage.flag("fail-a")
    assert stage.call("run", "job.yaml").returncode == 1
    fails.unlink()
    killed_at(stage, "a", "resume", "--retry-failed")
    assert "1 to run (1 lost in flight)" in stage.call("resume", "--dry-run").stdout
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"a": 3, "b": 1}


def test_a_rerun_that_is_killed_runs_again_and_so_does_what_needs_it(stage: Stage) -> None:
    stage.job(chain("a", "b"))
    assert stage.call("run", "job.yaml").returncode == 0
    killed_at(stage, "a", "resume", "job.yaml", "--rerun", "a")
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"a": 3, "b": 2}


def test_what_needs_a_task_that_ran_again_runs_again_though_the_runner_was_killed_between_them(stage: Stage) -> None:
    stage.job(chain("a", "b", "c"))
    assert stage.call("run", "job.yaml").returncode == 0
    killed_at(stage, "b", "resume", "job.yaml", "--rerun", "a")
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"a": 2, "b": 3, "c": 2}


# --- which instance is which -------------------------------------------------------------------------------------------------


def test_items_that_a_command_knows_from_its_environment_alone_are_told_apart(stage: Stage) -> None:
    is_on_record = """grep -q 'task.finished.*"item":"b"' ${{ run.dir }}/events.jsonl"""
    wait = f"if [ $JOBRUNNER_ITEM = a -a -e block-a ]; then until {is_on_record}; do :; done; fi; "
    run = wait + STEP.format(name="$JOBRUNNER_ITEM")
    stage.job({"each": {"foreach": ["a", "b"], "run": run}}, workers=2)
    killed_at(stage, "a", "run", "job.yaml")
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"a": 2, "b": 1}


def test_what_a_lost_attempt_wrote_for_others_is_nobodys(stage: Stage) -> None:
    write = "if [ -e block-a ]; then echo lost=1 >> $JOBRUNNER_OUTPUT; fi; "
    stage.job({"a": {"run": write + STEP.format(name="a")}, "b": {"needs": ["a"], "run": "echo ${{ tasks.a.outputs }} > got"}})
    killed_at(stage, "a", "run", "job.yaml")
    assert stage.call("resume").returncode == 0
    assert (stage.folder / "got").read_text() == "{}\n"


def test_values_of_an_allowed_failure_reach_those_that_run_after_a_resume(stage: Stage) -> None:
    tell = "echo ${{ tasks.a.stdout }} >> got; "
    allowed = {"run": "echo why; exit 1", "continue_on_error": True}
    stage.job({"a": allowed, "b": {"needs": ["a"], "run": tell + STEP.format(name="b")}})
    killed_at(stage, "b", "run", "job.yaml")
    assert stage.call("resume").returncode == 0
    assert (stage.folder / "got").read_text() == "why\n" * 2


# --- at most once ------------------------------------------------------------------------------------------------------------


def test_what_may_run_at_most_once_and_was_stopped_in_the_middle_is_unknown(stage: Stage) -> None:
    stage.job({"a": step("a", at_most_once=True)})
    assert stopped_at(stage, "a") == 143
    resumed = stage.call("resume")
    assert (resumed.returncode, stage.ran()) == (1, {"a": 1})
    assert "--rerun a" in resumed.stdout
    assert stage.call("resume", "--rerun", "a").returncode == 0
    assert stage.ran() == {"a": 2}


def test_what_may_run_at_most_once_is_not_repeated_for_a_change_of_what_it_needs(stage: Stage) -> None:
    tasks = {"a": step("a"), "pay": step("pay", needs=["a"], at_most_once=True), "c": step("c", needs=["pay"])}
    stage.job(tasks)
    killed_at(stage, "c", "run", "job.yaml")
    stage.job({**tasks, "a": step("a", env={"NEW": "1"})})
    assert "pay  1 recorded as succeeded" in stage.call("resume", "--dry-run").stdout
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"a": 2, "pay": 1, "c": 2}


def test_what_may_run_at_most_once_is_unknown_where_its_values_were_not_kept(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE", "receipt-4711")
    pay = {"run": 'echo pay >> witness; echo "r=$word" >> $JOBRUNNER_OUTPUT', "secrets": ["word"], "at_most_once": True}
    use = {"needs": ["pay"], "run": "test ${{ len(tasks.pay.outputs.r) }} -gt 3; " + STEP.format(name="b")}
    stage.job({"pay": pay, "b": use}, secrets={"word": {"env": "SOURCE"}})
    killed_at(stage, "b", "run", "job.yaml")
    assert stage.call("resume").returncode == 1
    assert stage.ran() == {"pay": 1, "b": 1}


# --- what a resume says ------------------------------------------------------------------------------------------------------


def test_a_forecast_counts_all_items_of_a_task_whatever_may_run_at_once(stage: Stage) -> None:
    stage.job({"each": {"foreach": {"range": 10}, "max_parallel": 2, "run": STEP.format(name="${{ item }}")}})
    killed_at(stage, "3", "run", "job.yaml")
    assert "3 recorded as succeeded, 7 to run (1 lost in flight)" in stage.call("resume", "--dry-run").stdout


def test_a_parameter_that_was_masked_is_asked_for_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE", "production")
    stage.job(
        {"a": {"run": "echo ${{ params.place }} >> got", "secrets": ["word"]}, "b": step("b", needs=["a"])},
        params={"place": "test"},
        secrets={"word": {"env": "SOURCE"}},
    )
    killed_at(stage, "b", "run", "job.yaml", "--set", "place=production")
    refused = stage.call("resume")
    assert refused.returncode == 2
    assert "--set place=" in refused.stderr
    assert stage.call("run", "--resume", "job.yaml", "--set", "place=production").returncode == 0
    assert (stage.folder / "got").read_text() == "production\n"


def test_a_run_that_was_killed_right_after_a_success_is_found(stage: Stage) -> None:
    stage.job(chain("a", "b"))
    killed_at(stage, "b", "run", "job.yaml")
    (run,) = stage.runs()
    lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    last = next(place for place, line in enumerate(lines) if json.loads(line)["event"] == "task.finished")
    (run / "events.jsonl").write_bytes(b"".join(lines[: last + 1]))
    assert stage.call("resume").returncode == 0
    assert stage.ran()["a"] == 1


def test_a_journal_that_an_editor_has_saved_with_its_own_line_ends_is_damaged_and_left_as_it_is(stage: Stage) -> None:
    stage.job(chain("a", "b"))
    killed_at(stage, "b", "run", "job.yaml")
    journal = stage.runs()[0] / "events.jsonl"
    changed = journal.read_bytes().replace(b"\n", b"\r\n")
    journal.write_bytes(changed)
    for args in (["resume", "job.yaml"], ["run", "--resume", "job.yaml"]):
        refused = stage.call(*args)
        assert (refused.returncode, "damaged at byte 0" in refused.stderr) == (74, True)
    assert journal.read_bytes() == changed
    assert stage.ran() == {"a": 1, "b": 1}


# --- waiting -----------------------------------------------------------------------------------------------------------------


def test_a_runner_that_waits_for_its_turn_ends_when_its_guard_is_killed(stage: Stage) -> None:
    stage.job({"a": step("a")}, concurrency={"on_conflict": "wait"})
    block = stage.flag("block-a")
    streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(stage.command("run", "job.yaml"), cwd=stage.folder, env=stage.environ, **streams) as first:
        stage.wait_until_blocked(first)
        with subprocess.Popen(stage.command("run", "job.yaml"), cwd=stage.folder, env=stage.environ, **streams) as second:
            assert second.stderr is not None
            next(line for line in second.stderr if b"lock.busy" in line)
            below = _below(second.pid)
            held = {pid: os.pidfd_open(pid) for pid in below}
            second.kill()
            for pid, pidfd in held.items():
                assert select.select([pidfd], [], [], 10)[0], f"{pid} waits for nobody"
                assert not is_alive(pid)
                os.close(pidfd)
        block.unlink()
        first.send_signal(signal.SIGTERM)
        first.communicate()
    assert len(stage.runs()) == 1


def _below(pid: int) -> list[int]:
    """All processes below one, those nearest first."""
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(each for child in found for each in _below(child))]
