"""The command line: what each command answers, every exit code, and that nothing around a run can change what it says."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import jobrunner
from jobrunner import spec
from jobrunner.cli.main import COMMANDS, cli
from jobrunner.eventschema import json_schema as event_schema
from jobrunner.sinks.log import FORMATS, LEVELS

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "jobrunner"]
EXAMPLES = ("threads", "processes", "thread_pool", "process_pool")

FUNCTIONS = """
import signal, time

def wait(how=""):
    if how == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    time.sleep(600)

def wait_in_thread():
    print("ready", flush=True)
    time.sleep(600)

def show(value):
    print(type(value).__name__, value)
"""

JOB = """
params: {count: 2, name: {default: world, choices: [world, moon]}}
mode: thread_pool
workers: 3
tasks:
  first: {target: "functions:show", args: ["${{ params.count }}"]}
  second: {needs: [first], run: "echo hello ${{ params.name }}"}
"""
FAILING = "tasks: {bad: {run: echo out of luck; exit 3}, after: {needs: [bad], run: echo no}, other: {run: echo fine}}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with job.yaml, failing.yaml, and the functions that they call."""
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "failing.yaml").write_text(FAILING)
    return tmp_path


@pytest.fixture
def job(folder: Path) -> str:
    return str(folder / "job.yaml")


@pytest.fixture
def failing(folder: Path) -> str:
    return str(folder / "failing.yaml")


def write(folder: Path, text: str) -> str:
    path = folder / "written.yaml"
    path.write_text(text)
    return str(path)


def start(args: list[str], **how: Any) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **how.pop("env", {})}
    return subprocess.Popen([*COMMAND, *args], env=env, **how)


def shell(line: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `$jobrunner` is the command."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "jobrunner": " ".join(COMMAND), **how.pop("env", {})}
    return subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True, check=False, **how)


def events(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines()]


# --- help, version, mistakes -------------------------------------------------------------------------------------------------


def test_without_arguments_it_prints_its_help_and_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli([]) == 2
    assert "Usage: jobrunner" in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["--version"]) == 0
    assert capsys.readouterr().out == f"jobrunner {jobrunner.__version__}\n"


@pytest.mark.parametrize("args", [["-h"], ["--help"], *([command, "-h"] for command in COMMANDS)], ids=" ".join)
def test_every_help_shows_an_example(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(args) == 0
    text = capsys.readouterr().out
    assert re.search(r"^  jobrunner .*(yaml|json)", text, re.MULTILINE)
    assert all(len(line) <= 100 for line in text.splitlines())


def test_the_help_names_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    cli(["--help"])
    text = capsys.readouterr().out
    named = {int(code) for code in re.findall(r"\b\d{1,3}\b", text[text.index("Exit codes") : text.index("Options")])}
    assert named == {0, 1, 2, 70, 74, 75, 77, 124, 129, 130, 143}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["valdate", "job.yaml"], "Did you mean 'validate'?"),
        (["nightly"], "'nightly' is neither a command nor a job file. Commands: run, resume, validate, plan, show, why, init"),
        (["missing.yaml"], "missing.yaml:1:1: there is no such file"),
        (["run", "missing.yaml"], "missing.yaml:1:1: there is no such file"),
        (["run"], "Missing argument 'FILE'"),
        (["."], "this is a directory, not a job file"),
        (["job.yaml", "extra"], "extra"),
        (["job.yaml", "--onyl", "first"], "--only"),
        (["job.yaml", "--only", "frist"], "--only frist: there is no such task. Did you mean 'first'?"),
        (["job.yaml", "--set", "count"], "'count': write NAME=VALUE"),
        (["job.yaml", "--set", "=3"], "'=3': write NAME=VALUE"),
        (["job.yaml", "--set", "cuont=3"], "Did you mean 'count'?"),
        (["job.yaml", "--set", "count=three"], "parameter count: three is not a whole number"),
        (["job.yaml", "--set", "name=mars"], "mars is not one of world, moon"),
        (["job.yaml", "-j", "0"], "--workers 0: give a whole number from 1 to"),
        (["job.yaml", "-j", "many"], "'many' is not a valid integer"),
        (["job.yaml", "-j", "2", "--mode", "serial"], "--mode serial runs one at a time"),
        (["job.yaml", "--mode", "threads"], "'threads' is not one of 'serial'"),
        (["job.yaml", "--log-format", "xml"], "'xml' is not one of 'auto'"),
        (["job.yaml", "--log-level", "all"], "'all' is not one of 'debug'"),
        (["job.yaml", "--log-file", "."], "is a directory"),
        (["job.yaml", "--log-file", "nowhere/log"], "cannot write nowhere/log: No such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_of_usage_exits_2_and_says_what_to_write(
    args: list[str], said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert cli(args) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""
    assert "Traceback" not in told.err


def test_a_required_parameter_that_is_not_given_is_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli([write(folder, "params: {root: {type: path, required: true}}\ntasks: {a: {run: 'true'}}")]) == 2
    assert "parameter root: required, but not given. Set it with --set root=…" in capsys.readouterr().err


def test_only_refuses_a_task_whose_data_would_be_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "tasks: {a: {run: echo 1}, b: {needs: [a], run: 'echo ${{ tasks.a.stdout }}'}}"
    assert cli([write(folder, text), "--only", "b"]) == 2
    assert "--only leaves out a, whose data is used. Add --only a" in capsys.readouterr().err


# --- validate, plan, schema --------------------------------------------------------------------------------------------------


def test_validate_says_that_files_are_valid(job: str, failing: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["validate", job, failing]) == 0
    assert capsys.readouterr().out == f"{job}, {failing}: valid\n"


def test_validate_tells_every_problem_of_every_file(job: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = write(folder, "tasks:\n  a: {run: x, nedes: [b]}\n  c: {run: x, needs: [d]}\n")
    assert cli(["validate", bad, job, str(folder / "missing.yaml")]) == 2
    told = capsys.readouterr()
    assert [line.split(": ")[0] for line in told.err.splitlines() if ".yaml:" in line] == [
        f"{bad}:2:15",
        f"{bad}:3:23",
        f"{folder}/missing.yaml:1:1",
    ]
    assert "Did you mean 'needs'?" in told.err
    assert told.out == ""


def test_validate_as_json_is_a_list_of_problems(folder: Path, job: str, capsys: pytest.CaptureFixture[str]) -> None:
    bad = write(folder, "tasks:\n  a: {run: x, nedes: [b]}\n")
    assert cli(["validate", "--json", bad]) == 2
    (problem,) = json.loads(capsys.readouterr().out)
    assert (problem["file"], problem["line"], problem["column"]) == (bad, 2, 15)
    assert cli(["validate", "--json", job]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_bad_job_file_is_told_the_same_by_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = write(folder, "tasks:\n  a: {run: x, nedes: [b]}\n")
    cli(["validate", bad])
    validated = capsys.readouterr().err
    assert cli([bad]) == 2
    assert capsys.readouterr().err == validated


def test_plan_is_what_a_dry_run_shows_and_runs_nothing(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    assert cli(["plan", job, "--set", "count=5"]) == 0
    plan = capsys.readouterr().out
    assert cli([job, "--dry-run", "--set", "count=5"]) == 0
    assert capsys.readouterr().out == plan
    assert plan.splitlines() == [
        "job: 2 tasks",
        "  param count = 5",
        '  param name = "world"',
        "  pool default: thread_pool, 3 workers",
        "   1. first   target functions:show · in default",
        "   2. second  run echo hello ${{ params.name }} · in default · after first",
    ]
    assert not (tmp_path / "state").exists()


def test_a_plan_as_json_has_its_pools_and_its_tasks_in_order(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["plan", job, "--json", "-j", "7", "--mode", "process"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["pools"] == {"default": {"mode": "process", "workers": 7, "preload": False}}
    assert [task["task"] for task in plan["tasks"]] == ["first", "second"]


@pytest.mark.parametrize(("args", "schema"), [([], spec.json_schema), (["--events"], event_schema)])
def test_schema_prints_the_schema(args: list[str], schema: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["schema", *args]) == 0
    assert json.loads(capsys.readouterr().out) == schema()


# --- run: options ------------------------------------------------------------------------------------------------------------


def test_a_run_prints_what_tasks_print_and_a_summary_and_logs_to_stderr(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli([job]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[:2] == ["first | int 2", "second | hello world"]
    assert "✓ job: succeeded. Tasks: 2 succeeded" in told.out
    names = [event["event"] for event in events(told.err)]
    assert (names[0], names[-1]) == ("run.started", "run.finished")


@pytest.mark.parametrize(("given", "printed"), [("count=7", "first | int 7"), ("name=moon", "second | hello moon")])
def test_set_gives_a_parameter_a_value_of_its_type(
    given: str, printed: str, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli([job, "--set", given]) == 0
    assert printed in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("mode", ["serial", "thread", "process", "thread_pool", "process_pool"])
def test_mode_and_workers_replace_those_of_the_default_pool(mode: str, job: str, capsys: pytest.CaptureFixture[str]) -> None:
    workers = 1 if mode == "serial" else 2
    assert cli([job, "--mode", mode, "-j", str(workers)]) == 0
    (opened,) = [event for event in events(capsys.readouterr().err) if event["event"] == "pool.opened"]
    assert (opened["mode"], opened["workers"]) == (mode, workers)


def test_only_runs_the_named_tasks_without_what_they_need(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli([job, "--only", "second"]) == 0
    started = [event["task"] for event in events(capsys.readouterr().err) if event["event"] == "task.started"]
    assert started == ["second"]


@pytest.mark.parametrize(("option", "ran"), [("--keep-going", {"bad", "other"}), ("--fail-fast", {"bad"})])
def test_fail_fast_and_keep_going_replace_what_the_file_says(
    option: str, ran: set[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "workers: 1\ntasks: {bad: {run: exit 1}, other: {run: echo fine}}"
    assert cli([write(folder, text), option]) == 1
    assert {event["task"] for event in events(capsys.readouterr().err) if event["event"] == "task.started"} == ran


def test_a_mode_that_the_tasks_cannot_run_in_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(folder, "mode: process_pool\ntasks: {a: {target: 'os:getcwd', cwd: /, env: {A: b}}}")
    assert cli([file, "--mode", "process"]) == 0
    capsys.readouterr()
    assert cli([file, "--mode", "thread"]) == 2
    told = capsys.readouterr().err
    assert "--mode thread: tasks.a.env: " in told
    assert "--mode thread: tasks.a.cwd: " in told


def test_quiet_prints_nothing_where_all_succeeds(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli([job, "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_quiet_tells_of_a_failure_in_the_summary_alone(failing: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli([failing, "-q"]) == 1
    told = capsys.readouterr()
    assert "✗ bad: failed: exit 3" in told.out
    assert "out of luck" in told.out
    assert "other |" not in told.out
    assert told.err == ""


def test_quiet_leaves_the_log_file_and_a_level_that_was_asked_for(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli([job, "-q", "--log-file", str(tmp_path / "log")]) == 0
    assert capsys.readouterr() == ("", "")
    assert events((tmp_path / "log").read_text())[0]["seq"] == 1
    assert cli([job, "-q", "--log-level", "info"]) == 0
    told = capsys.readouterr()
    assert (told.out, events(told.err)[-1]["event"]) == ("", "run.finished")


@pytest.mark.parametrize("log_format", FORMATS)
def test_each_log_format_tells_every_event(log_format: str, job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli([job, "--log-format", log_format]) == 0
    log = capsys.readouterr().err
    for name in ("run.started", "task.started", "worker.joined", "run.finished"):
        assert name in log
    assert len([line for line in log.splitlines() if line]) >= 10


@pytest.mark.parametrize("level", LEVELS)
def test_the_log_level_is_the_least_that_is_logged(level: str, failing: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli([failing, "--log-level", level]) == 1
    seen = {event["level"] for event in events(capsys.readouterr().err)}
    assert seen
    assert all(LEVELS[each] >= LEVELS[level] for each in seen)


def test_a_log_file_is_appended_to(job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    for _ in range(2):
        assert cli([job, "--log-file", str(log)]) == 0
    assert capsys.readouterr().err == ""
    written = events(log.read_text())
    assert len({event["run_id"] for event in written}) == 2
    assert [event["event"] for event in written].count("run.finished") == 2


# --- exit codes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("tasks: {a: {run: 'true'}}", 0),
        ("tasks: {a: {run: 'false', continue_on_error: true}, b: {needs: [a], run: echo}}", 0),
        ("tasks: {a: {run: 'false'}}", 1),
        ("tasks: {a: {run: exit 124}}", 1),
        ("tasks: {a: {run: sleep 60, timeout: 0.05, stop: {grace: 1}}}", 1),
        ("tasks: {a: {run: kill -SEGV $$}}", 1),
        ("tasks: {a: {target: 'functions:missing'}}", 1),
        ("timeout: 0.05\ntasks: {a: {run: sleep 60}}", 124),
        ("tasks: {}", 2),
        ("tasks: [", 2),
    ],
)
def test_the_exit_code_says_how_the_run_ended(text: str, code: int, folder: Path) -> None:
    assert cli([write(folder, text), "-q"]) == code


def test_a_bug_exits_70_and_says_that_it_is_one(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("impossible")

    monkeypatch.setattr("jobrunner.api.prepare", broken)
    assert cli([job]) == 70
    told = capsys.readouterr().err
    assert "RuntimeError: impossible" in told
    assert "This is a bug of jobrunner" in told


def test_an_interrupt_before_the_run_exits_130(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobrunner.api.prepare", interrupted)
    assert cli([job]) == 130


def test_a_state_directory_that_cannot_be_used_exits_74(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", "/dev/null/state")
    assert cli([job]) == 74
    assert "cannot keep the state of runs" in capsys.readouterr().err


def test_a_state_directory_that_others_may_write_to_exits_77(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    monkeypatch.setenv("JOBRUNNER_STATE", str(state))
    assert cli([job]) == 77
    assert f"chmod go-w {state}" in capsys.readouterr().err


# --- what is around a run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "$jobrunner {job} >&-",
        "$jobrunner {job} 2>&-",
        "$jobrunner {job} <&-",
        "$jobrunner {job} <&- >&- 2>&-",
        "$jobrunner {job} >/dev/full",
        "$jobrunner {job} 2>/dev/full",
        "$jobrunner {job} --log-file /dev/full",
        "$jobrunner {job} 2>/dev/null | head -1; exit ${{PIPESTATUS[0]}}",
        "$jobrunner {job} 2>&1 >/dev/null | head -1; exit ${{PIPESTATUS[0]}}",
    ],
)
def test_the_exit_code_is_about_the_tasks_whatever_becomes_of_the_streams(
    line: str, failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    ended = shell(line.format(job=failing))
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    (output,) = (tmp_path / "state").glob("failing/*/output")
    assert {file.name: file.read_text() for file in output.iterdir()} == {"bad.log": "out of luck\n", "other.log": "fine\n"}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$jobrunner schema | true; exit ${PIPESTATUS[0]}", 141),
        ("$jobrunner schema >/dev/full", 74),
        ("$jobrunner schema >&-", 0),
    ],
)
def test_an_answer_that_nobody_gets_is_no_bug(line: str, code: int) -> None:
    ended = shell(line)
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr


def test_it_runs_where_cron_would_start_it(failing: str, tmp_path: Path) -> None:
    """No HOME, hardly a PATH, in the root directory."""
    command = f"env -i PATH=/usr/bin:/bin JOBRUNNER_STATE={tmp_path}/state PYTHONPATH={ROOT} {sys.executable} -m jobrunner"
    ended = shell(f"{command} {failing} -q", cwd="/")
    assert ended.returncode == 1
    assert "✗ bad: failed: exit 3" in ended.stdout


def test_a_current_directory_that_is_gone_is_named(job: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    ended = shell(f"cd {gone} && rmdir {gone} && $jobrunner {job}")
    assert ended.returncode == 2
    assert "the current directory cannot be used" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_a_terminal_gets_colours_unless_they_are_not_wanted(env: dict[str, str], coloured: bool, job: str) -> None:
    shown = on_a_terminal([job], {"TERM": "xterm", **env})
    assert "run.started" in shown
    assert ("\x1b[" in shown) is coloured


def on_a_terminal(args: list[str], env: dict[str, str]) -> str:
    near, far = pty.openpty()
    process = start(args, stdin=far, stdout=far, stderr=far, env=env)
    os.close(far)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
        while piece := os.read(near, 65536):
            shown += piece
    os.close(near)
    assert process.wait() == 0
    return shown.decode()


@pytest.mark.parametrize("name", EXAMPLES)
def test_jq_reads_every_line_of_the_log_of_an_example_and_sees_starts_finishes_and_joins(name: str, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    quick = ["--set", "seconds=0.05"] if name in ("threads", "processes") else []
    assert cli([str(ROOT / "jobs" / f"{name}.yaml"), "-q", "--log-level", "info", "--log-file", str(log), *quick]) == 0
    assert read_by_jq(log) == len(log.read_text().splitlines())
    told = events(log.read_text())
    started, finished, joined = (
        [event for event in told if event["event"] == kind] for kind in ("task.started", "task.finished", "worker.joined")
    )
    fan_out = [event for event in finished if event.get("item") is not None]
    assert sorted(event["item"] for event in fan_out) == ["0", "1", "2"]
    assert len(started) == len(finished) == 4
    workers = {event["worker"] for event in fan_out}
    assert workers <= {event["worker"] for event in joined}
    who = "thread" if "thread" in name else "pid"
    assert {event[who] for event in fan_out} <= {event[who] for event in joined}
    if name in ("threads", "processes"):  # one each
        assert len(workers) == len({event[who] for event in fan_out}) == 3
    assert len({event["pid"] for event in fan_out}) == (1 if who == "thread" else len(workers))


def read_by_jq(log: Path) -> int:
    """How many lines of the log jq reads; without jq, how many Python reads."""
    if (jq := shutil.which("jq")) is None:
        return len(events(log.read_text()))
    return len(subprocess.run([jq, "-c", ".event", log], capture_output=True, text=True, check=True).stdout.splitlines())


# --- signals -----------------------------------------------------------------------------------------------------------------

KINDS = ("serial", "thread", "process", "thread_pool", "process_pool", "command")


def waiting_job(folder: Path, kind: str, stubborn: bool) -> str:
    """A job whose one task says "ready" and then waits; a stubborn one ignores TERM."""
    if kind == "command":
        trap = "trap '' TERM; " if stubborn else ""
        return write(folder, f'tasks: {{a: {{run: "{trap}echo ready; while :; do sleep 600; done", stop: {{grace: 60}}}}}}')
    if "thread" in kind:
        return write(folder, f"mode: {kind}\ntasks: {{a: {{target: 'functions:wait_in_thread', stop: {{grace: 60}}}}}}")
    how = "stubborn" if stubborn else ""
    return write(folder, f"mode: {kind}\ntasks: {{a: {{target: 'functions:wait', args: ['{how}'], stop: {{grace: 60}}}}}}")


@contextlib.contextmanager
def born_with(number: signal.Signals, handler: signal.Handlers) -> Iterator[None]:
    """Processes started inside find `number` ignored or with its default, whatever started these tests ignores."""
    previous = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, previous)


@contextlib.contextmanager
def ready(job: str, log: Path, hangup: signal.Handlers = signal.SIG_DFL) -> Iterator[subprocess.Popen[bytes]]:
    """A run whose task has said that it is ready."""
    with born_with(signal.SIGHUP, hangup), born_with(signal.SIGINT, signal.SIG_DFL):
        process = start([job, "--log-file", str(log)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    with process:
        try:
            assert process.stdout.readline() == b"a | ready\n"
            yield process
        finally:
            process.kill()


def assert_nothing_is_left(log: Path) -> None:
    for pid in {event["pid"] for event in events(log.read_text()) if event.get("pid")}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        *((kind, signal.SIGTERM) for kind in KINDS),
        ("command", signal.SIGINT),
        ("command", signal.SIGHUP),
        ("process", signal.SIGINT),
    ],
)
def test_a_signal_stops_the_run_in_order(kind: str, number: signal.Signals, folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with ready(waiting_job(folder, kind, stubborn=False), log) as process:
        sent = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
    assert time.monotonic() - sent < 10  # far below the grace
    told = events(log.read_text())
    assert [event["signal"] for event in told if event["event"] == "run.interrupted"] == [number.name]
    assert [event["outcome"] for event in told if event["event"] == "task.finished"] == ["cancelled"]
    assert (told[-1]["event"], told[-1]["outcome"], told[-1]["exit_code"]) == ("run.finished", "interrupted", 128 + number)
    assert_nothing_is_left(log)


@pytest.mark.parametrize("kind", KINDS)
def test_int_ends_everything_at_once_when_the_run_is_being_stopped_already(kind: str, folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with ready(waiting_job(folder, kind, stubborn=True), log) as process:
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        wait_for(log, "run.interrupted")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 143
    assert time.monotonic() - sent < 10
    assert_nothing_is_left(log)


def wait_for(log: Path, name: str) -> None:
    deadline = time.monotonic() + 20
    while f'"event":"{name}"' not in log.read_text():
        assert time.monotonic() < deadline, f"no {name} in the log"
        os.sched_yield()


def test_an_ignored_hangup_stays_ignored(folder: Path, tmp_path: Path) -> None:
    """As nohup starts it."""
    log = tmp_path / "log.jsonl"
    with ready(waiting_job(folder, "command", stubborn=False), log, hangup=signal.SIG_IGN) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143
    assert [event["signal"] for event in events(log.read_text()) if event["event"] == "run.interrupted"] == ["SIGTERM"]
