"""jobrunner from Python: typed results, mistakes as exceptions, and a caller that finds everything as it was."""

from __future__ import annotations

import dataclasses
import gc
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import jobrunner
from jobrunner import RunResult, TaskResult
from jobrunner.errors import JobFileError, JobrunnerError, StateError, UnsafeError, UsageError
from jobrunner.spec import Mode
from jobrunner.work import Outcome

ROOT = Path(__file__).resolve().parent.parent
MODES: tuple[Mode, ...] = ("serial", "thread", "process", "thread_pool", "process_pool")

FUNCTIONS = """
def double(number):
    print("doubling", number)
    if number == 13:
        raise ValueError("unlucky")
    return 2 * number

def echo(value):
    return value

def is_forked():
    import sys
    return "jobrunner.engine" in sys.modules
"""
JOB = """
params: {numbers: {type: list, default: [1, 2, 3]}}
tasks:
  double: {foreach: "${{ params.numbers }}", target: "functions:double", args: ["${{ item }}"]}
  total: {needs: [double], target: "functions:echo", args: ["${{ sum(tasks.double.results) }}"]}
  hello: {run: echo hello}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


@pytest.fixture
def job(folder: Path) -> Path:
    return folder / "job.yaml"


def write(folder: Path, text: str) -> Path:
    path = folder / "written.yaml"
    path.write_text(text)
    return path


# --- results -----------------------------------------------------------------------------------------------------------------


def test_a_run_gives_a_typed_result(job: Path, folder: Path) -> None:
    result = jobrunner.run(job)
    assert isinstance(result, RunResult)
    assert (result.ok, result.exit_code, result.outcome) == (True, 0, "succeeded")
    assert result.run_dir == folder / "state" / "job" / result.run_id
    assert (result.run_dir / "job.yaml").read_text() == JOB
    assert result.task_time > 0
    assert 0 < result.duration < 60
    assert result.tasks == {
        "double": TaskResult(outcome=Outcome.SUCCEEDED, value=[2, 4, 6]),
        "total": TaskResult(outcome=Outcome.SUCCEEDED, value=12),
        "hello": TaskResult(outcome=Outcome.SUCCEEDED, value=None),
    }


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_gives_the_same_values(mode: Mode, job: Path) -> None:
    result = jobrunner.run(job, mode=mode, workers=1, params={"numbers": [5, 6]})
    assert (result.tasks["double"].value, result.tasks["total"].value) == ([10, 12], 22)


def test_a_failure_is_in_the_result_and_no_exception(job: Path) -> None:
    result = jobrunner.run(job, params={"numbers": [1, 13]})
    assert (result.ok, result.exit_code, result.outcome) == (False, 1, "failed")
    assert result.tasks["double"] == TaskResult(outcome=Outcome.FAILED, value=[2, None], errors=("unlucky",))
    assert result.tasks["total"] == TaskResult(outcome=Outcome.SKIPPED, value=None)
    assert result.tasks["hello"].outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(("fail_fast", "outcome"), [(False, Outcome.SUCCEEDED), (True, Outcome.SKIPPED)])
def test_fail_fast_replaces_what_the_file_says(fail_fast: bool, outcome: Outcome, folder: Path) -> None:
    path = write(folder, "workers: 1\ntasks: {bad: {run: 'false'}, other: {run: 'true'}}")
    assert jobrunner.run(path, fail_fast=fail_fast).tasks["other"].outcome is outcome


def test_only_leaves_the_other_tasks_out(job: Path) -> None:
    assert list(jobrunner.run(job, only=["hello"]).tasks) == ["hello"]


def test_the_timeout_of_the_job_is_an_outcome(folder: Path) -> None:
    result = jobrunner.run(write(folder, "timeout: 0.05\ntasks: {a: {run: sleep 60}}"))
    assert (result.exit_code, result.outcome) == (124, "timed_out")


def test_a_result_cannot_be_changed(job: Path) -> None:
    result = jobrunner.run(job, only=["hello"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.exit_code = 0  # type: ignore[misc]


def test_load_gives_the_job_and_runs_nothing(job: Path, folder: Path) -> None:
    loaded = jobrunner.load(job)
    assert (loaded.name, list(loaded.tasks)) == ("job", ["double", "total", "hello"])
    assert not (folder / "state").exists()


# --- mistakes ----------------------------------------------------------------------------------------------------------------


def test_a_bad_job_file_raises_with_every_problem(folder: Path) -> None:
    path = write(folder, "tasks:\n  a: {run: x, nedes: []}\n  b: {run: x, needs: [c]}\n")
    with pytest.raises(JobFileError) as caught:
        jobrunner.run(path)
    assert [(problem.line, problem.column) for problem in caught.value.problems] == [(2, 15), (3, 23)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"params": {"nubmers": []}}, "Did you mean 'numbers'?"),
        ({"params": {"numbers": 3}}, "parameter numbers: 3 is not a list"),
        ({"only": ["totl"]}, "Did you mean 'total'?"),
        ({"only": ["total"]}, "--only leaves out double, whose data is used"),
        ({"only": "hello"}, r"write only=\['hello'\]"),
        ({"workers": 0}, "a whole number from 1 to"),
        ({"workers": True}, "a whole number from 1 to"),
        ({"mode": "threads"}, "modes are serial, thread"),
        ({"mode": "serial", "workers": 2}, "runs one at a time"),
    ],
)
def test_a_mistake_of_the_caller_raises_before_anything_is_made(arguments: dict[str, object], said: str, job: Path) -> None:
    with pytest.raises(UsageError, match=said):
        jobrunner.run(job, **arguments)  # type: ignore[arg-type]  # that is the mistake
    assert not (job.parent / "state").exists()


def test_a_state_directory_that_cannot_be_used_raises(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", "/dev/null/state")
    with pytest.raises(StateError):
        jobrunner.run(job)


def test_a_state_directory_that_others_may_write_to_raises(job: Path, folder: Path) -> None:
    (folder / "state").mkdir(mode=0o700)
    (folder / "state").chmod(0o777)
    with pytest.raises(UnsafeError):
        jobrunner.run(job)


def test_every_mistake_is_a_jobrunner_error_with_its_exit_code() -> None:
    assert {error: error.exit_code for error in (JobFileError, UsageError, StateError, UnsafeError)} == {
        JobFileError: 2,
        UsageError: 2,
        StateError: 74,
        UnsafeError: 77,
    }
    assert all(issubclass(error, JobrunnerError) for error in (JobFileError, UsageError, StateError, UnsafeError))


# --- the caller finds everything as it was -----------------------------------------------------------------------------------


def surroundings() -> dict[str, object]:
    return {
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "threads": threading.active_count(),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "path": list(sys.path),
        "collector": gc.isenabled(),
        "set aside": gc.get_freeze_count(),
    }


@pytest.mark.parametrize("mode", MODES)
def test_a_run_leaves_the_process_as_it_was(
    mode: Mode,
    job: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    jobrunner.run(job, only=["hello"])  # what is made once in a process exists now
    before = surroundings()
    for _ in range(2):
        jobrunner.run(job, mode=mode, workers=1)
    assert surroundings() == before
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_what_the_caller_has_set_aside_from_the_collector_stays_aside(job: Path) -> None:
    gc.freeze()
    before = gc.get_freeze_count()
    jobrunner.run(job, only=["hello"])
    assert 0 < gc.get_freeze_count() <= before


def test_a_refused_run_leaves_the_process_as_it_was(job: Path) -> None:
    before = surroundings()
    with pytest.raises(UsageError):
        jobrunner.run(job, only=["nothing"])
    assert surroundings() == before


def test_runs_in_a_row_are_independent(job: Path) -> None:
    first, second = (jobrunner.run(job, params={"numbers": [number]}) for number in (1, 2))
    assert (first.tasks["total"].value, second.tasks["total"].value) == (2, 4)
    assert first.run_id != second.run_id


def test_runs_in_several_threads_at_once_are_independent(job: Path) -> None:
    """Outside the main thread nothing is changed about signals; beside other threads workers are spawned, not forked."""
    jobs = [job.with_name(f"{name}.yaml") for name in "abc"]
    for copy in jobs:
        copy.write_text(f"name: {copy.stem}\n" + re.sub(r"^name:.*\n", "", job.read_text(), flags=re.MULTILINE))
    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(lambda number: jobrunner.run(jobs[number], params={"numbers": [number]}), range(3)))
    assert [result.tasks["total"].value for result in results] == [0, 2, 4]


def test_a_worker_is_forked_unless_there_are_other_threads(folder: Path) -> None:
    """A fork of a process with threads can deadlock: then it is a fresh interpreter."""
    path = write(folder, "mode: process\ntasks: {a: {target: 'functions:is_forked'}}")
    release = threading.Event()
    other = threading.Thread(target=release.wait)
    assert jobrunner.run(path).tasks["a"].value is True
    other.start()
    try:
        assert jobrunner.run(path).tasks["a"].value is False
    finally:
        release.set()
        other.join()


# --- names and imports -------------------------------------------------------------------------------------------------------


def test_run_and_load_stay_the_functions_whatever_else_is_imported() -> None:
    code = """
import importlib, pkgutil, jobrunner
for module in pkgutil.walk_packages(jobrunner.__path__, "jobrunner."):
    if module.name != "jobrunner.__main__":
        importlib.import_module(module.name)
from jobrunner import load, run
assert callable(jobrunner.run) and jobrunner.run is run is jobrunner.api.run
assert callable(jobrunner.load) and jobrunner.load is load is jobrunner.jobfile.load
"""
    python(code)


def test_all_public_names_exist_and_others_are_refused() -> None:
    for name in jobrunner.__all__:
        assert getattr(jobrunner, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'rnu'"):
        jobrunner.rnu  # noqa: B018


def python(code: str, *args: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code, *args], env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


NEVER = {"rich", "jsonschema", "loky", "hypothesis", "sqlite3", "unittest", "pydantic.v1"}
SIMPLE = "tasks: {a: {run: 'echo ${{ params.x }}'}}\nparams: {x: 1}"
COMPUTED = "tasks: {a: {run: 'echo ${{ params.x + 1 }}'}}\nparams: {x: 1}"


@pytest.mark.parametrize(
    ("args", "text", "absent"),
    [
        (["validate"], SIMPLE, NEVER | {"structlog", "simpleeval", "jobrunner.engine", "jobrunner.api", "multiprocessing"}),
        (["plan"], SIMPLE, NEVER | {"structlog", "simpleeval"}),
        (["schema"], "", NEVER | {"structlog", "simpleeval", "yaml", "jobrunner.engine"}),
        (["-q"], SIMPLE, NEVER | {"simpleeval"}),
        (["-q"], COMPUTED, NEVER),
    ],
)
def test_a_command_imports_only_what_it_uses(args: list[str], text: str, absent: set[str], folder: Path) -> None:
    code = """
import sys
from jobrunner.cli.main import cli
assert cli(sys.argv[1:]) == 0
print("MODULES", *sys.modules)
"""
    path = [str(write(folder, text))] if text else []
    loaded = set(python(code, *args, *path).rpartition("MODULES")[2].split())
    assert loaded & absent == set()


def test_a_number_that_is_computed_needs_simpleeval(folder: Path) -> None:
    """The counterpart of the table above: it would notice if modules were told wrongly."""
    code = "import sys, jobrunner; assert jobrunner.run(sys.argv[1]).ok; print('simpleeval' in sys.modules)"
    assert python(code, str(write(folder, COMPUTED))) == "True\n"
