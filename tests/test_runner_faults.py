"""Faults of whole runs whose commands go through a runner: signals, no descriptors, a full disk. What users see of them."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import leftovers
from tests.chaos import chaos, records
from tests.test_resume import Stage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no runners")

PATIENCE = 60.0
MORE = 60
"""Commands that have run since there was a runner: it has booted by then, and has commands."""
TELL = 'echo "$JOBRUNNER_ITEM" >> witness'


class Marked(Stage):
    """What it starts can be found by a mark in its environment."""

    @property
    def environ(self) -> dict[str, str]:
        return {**super().environ, leftovers.NAME: str(self.folder)}

    def many(self, run: str, count: int, more: dict[str, Any] | None = None, **keys: Any) -> None:
        """A job of many short commands, two at a time, the last of which waits for a file `go`; and whatever `more` tasks."""
        run = f"case $JOBRUNNER_ITEM in {count - 1}) until [ -e go ]; do sleep 0.01; done;; esac; {run}"
        self.job({"a": {"run": run, "foreach": {"range": count}, **keys}, **(more or {})}, workers=2)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Marked]:
    yield Marked(folder=tmp_path)
    assert not leftovers.alive(str(tmp_path)), "processes are left"
    leftovers.end(str(tmp_path))


@contextmanager
def with_runner(stage: Marked, *args: str, before: Sequence[str] = ()) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A run in which a runner has been at work for a while, and the pid of that."""
    argv = [*before, *stage.command(*args, "-q")]
    with subprocess.Popen(argv, cwd=stage.folder, env=stage.environ, stderr=subprocess.DEVNULL) as run:
        try:
            until(lambda: bool(runners(stage)), run)
            (runner,) = runners(stage)[:1]
            seen = stage.ran().total()
            until(lambda: stage.ran().total() >= seen + MORE, run)
            yield run, runner
        finally:
            run.kill()


def runners(stage: Marked) -> list[int]:
    return chaos.runners(str(stage.folder))


def until(is_so: Callable[[], bool], run: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + PATIENCE
    while not is_so():
        assert run.poll() is None, "the run has ended before it"
        assert time.monotonic() < limit
        time.sleep(0.005)


def accounted(found: list[dict[str, Any]]) -> None:
    """Each attempt that was started has ended, once."""
    ids = {
        name: Counter((each["task"], each.get("item"), each["attempt"]) for each in found if each["event"] == name)
        for name in ENDS
    }
    assert ids["task.started"] == ids["task.finished"]
    assert set(ids["task.started"].values()) == {1}


ENDS = ("task.started", "task.finished")


def once(count: int) -> dict[str, int]:
    return {str(number): 1 for number in range(count)}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_in_order_and_a_resume_runs_what_is_left_once(stage: Marked, number: int, code: int) -> None:
    stage.many(TELL, 500)
    with with_runner(stage, "run", "job.yaml") as (run, _):
        run.send_signal(number)
        stage.flag("go")
        assert run.wait(PATIENCE) == code
    accounted(stage.journal())
    assert not leftovers.alive(str(stage.folder))
    assert stage.call("resume", "-q").returncode == 0
    again = {each["item"] for each in stage.events("task.finished") if each["outcome"] == "cancelled"}
    assert {item for item, times in stage.ran().items() if times > 1} <= again
    assert set(stage.ran()) == set(once(500))


def test_what_a_dead_runner_had_begun_has_crashed_and_its_retry_never_meets_it(stage: Marked) -> None:
    """Also where it had ended, if that was not told yet: so there may be more of them than workers."""
    alone = 'exec 9> "held-$JOBRUNNER_ITEM"; flock -n 9 || exit 9'
    stage.many(f"{alone}; {TELL}; sleep 0.01", 400, retry={"max": 1})
    with with_runner(stage, "run", "job.yaml") as (run, runner):
        os.kill(runner, signal.SIGKILL)
        stage.flag("go")
        assert run.wait(PATIENCE) == 0
    accounted(stage.journal())
    crashed = [each["item"] for each in stage.events("task.finished") if each["outcome"] == "crashed"]
    assert 0 < len(crashed) <= 20
    assert {item for item, times in stage.ran().items() if times > 1} <= set(crashed)
    assert set(stage.ran()) == set(once(400))


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(stage: Marked) -> None:
    slow = "case $JOBRUNNER_ITEM in *50) setsid sleep 600 & sleep 600;; esac"
    stage.many(f"{TELL}; {slow}", 400, timeout="1.5s")
    with with_runner(stage, "run", "job.yaml") as (run, _):
        stage.flag("go")
        assert run.wait(PATIENCE) == 1
    accounted(stage.journal())
    outcomes = {each["item"]: each["outcome"] for each in stage.events("task.finished")}
    assert {item for item, outcome in outcomes.items() if outcome == "timed_out"} == {"50", "150", "250", "350"}
    assert stage.ran() == once(400)


def test_output_and_values_are_those_of_their_own_attempt_also_when_a_runner_dies(stage: Marked) -> None:
    told = f'{TELL}; echo "of $JOBRUNNER_ITEM"; echo "value=$JOBRUNNER_ITEM" >> "$JOBRUNNER_OUTPUT"'
    last = {"needs": ["a"], "run": "echo ${{ tasks.a.results }} > results"}
    stage.many(told, 400, {"last": last}, retry={"max": 3})
    with with_runner(stage, "run", "job.yaml") as (run, runner):
        os.kill(runner, signal.SIGKILL)
        stage.flag("go")
        assert run.wait(PATIENCE) == 0
    accounted(stage.journal())
    ended = stage.events("task.finished")
    values = {each["item"]: each["data"]["outputs"]["value"] for each in ended if "data" in each}
    assert values == {item: item for item in once(400)}
    kept = {path.stem: set(path.read_text().splitlines()) for path in (stage.runs()[-1] / "output" / "a").iterdir()}
    assert kept == {item: {f"of {item}"} for item in once(400)}  # also of one that was run again


# --- resources -----------------------------------------------------------------------------------------------------------------


LEAST = 12
"""Numbers below which a runner with one command has its descriptors."""


def limit_descriptors(runner: int, free: int, run: subprocess.Popen[bytes]) -> None:
    """Leave it so many more than it holds. It stands still meanwhile: what it opened after we looked would be above its limit."""
    os.kill(runner, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{runner}/stat").read_text().rpartition(")")[2].split()[0] == "T", run)
    most = max(LEAST, *(int(number) + 1 for number in os.listdir(f"/proc/{runner}/fd"))) + free
    resource.prlimit(runner, resource.RLIMIT_NOFILE, (most, most))
    os.kill(runner, signal.SIGCONT)


@pytest.mark.parametrize("free", [0, 1, 2, 4])
def test_a_runner_that_has_no_descriptor_left_fails_no_command(stage: Marked, free: int) -> None:
    stage.many(TELL, 500)
    with with_runner(stage, "run", "job.yaml") as (run, runner):
        limit_descriptors(runner, free, run)
        stage.flag("go")
        assert run.wait(PATIENCE) == 0
    accounted(stage.journal())
    assert stage.ran() == once(500)


@pytest.mark.parametrize("descriptors", [32, 40, 64])
def test_where_few_descriptors_may_be_open_all_commands_run_once(stage: Marked, descriptors: int) -> None:
    """Whether there is room for a runner or not."""
    stage.many(TELL, 400)
    stage.flag("go")
    limited = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *stage.command("run", "job.yaml", "-q")]
    ran = subprocess.run(
        limited, cwd=stage.folder, env=stage.environ, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert ran.returncode == 0, ran.stderr
    accounted(stage.journal())
    assert stage.ran() == once(400)


SMALL_DISK = """
mount -t tmpfs -o size=3m,mode=700 none state || exit 99
"$@"
code=$?
cp -r state kept
mount -o remount,size=64m state
"$@" --resume
echo "$code $?" > codes
cp -r state/. resumed
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_a_disk_that_fills_up_ends_the_run_with_74_and_with_room_it_is_completed(stage: Marked) -> None:
    """On 3 MiB there is room for the records of less than half of the commands, and for some of their output."""
    (stage.folder / "state").mkdir(mode=0o700)
    last = {"needs": ["a"], "run": "test ${{ len(tasks.a.results) }} = 900"}
    stage.many(f"{TELL}; head -c 4000 /dev/zero | tr '\\0' x", 900, {"last": last})
    with with_runner(stage, "run", "job.yaml", before=["unshare", "-m", "sh", "-c", SMALL_DISK, "sh"]) as (run, _):
        stage.flag("go")
        run.wait(PATIENCE)
    assert (stage.folder / "codes").read_text() == "74 0\n"
    (full,), (completed,) = (records.run_dirs(stage.folder / name, "job") for name in ("kept", "resumed"))
    recorded = {each.removeprefix("a-") for each in records.succeeded(records.checked(full / "events.jsonl"))}
    assert 100 < len(recorded) < 900
    assert all(stage.ran()[item] == 1 for item in recorded)
    assert set(stage.ran()) == set(once(900))
    accounted([json.loads(line) for line in (completed / "events.jsonl").read_text().splitlines()])
