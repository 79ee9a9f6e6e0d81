"""Secrets in whole runs: who gets them, and that nothing that a run writes, shows or keeps holds one."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobrunner import api
from jobrunner.errors import UnsafeError, UsageError
from tests.harness import Ran, run_job

ROOT = Path(__file__).resolve().parent.parent
CANARY = "canary/7f3A 'Zq\"9+x"
FORMS = [
    CANARY,
    json.dumps(CANARY)[1:-1],
    repr(CANARY)[1:-1],
    base64.b64encode(CANARY.encode()).decode()[:24],
    CANARY.encode().hex(),
]

TARGETS = '''
import base64, glob, json, os, sys, time

def show():
    secret = os.environ["token"]
    print(secret, json.dumps({secret: 1}), repr(secret), base64.b64encode(secret.encode()).decode(), secret.encode().hex())
    for character in secret:
        print(character, end="", flush=True)
    print()
    print(secret, file=sys.stderr)

def fail():
    secret = os.environ["token"]
    raise ValueError(f"cannot log in with {secret!r}")

def give():
    return {"got": os.environ["token"]}

def has_it_unseen():
    assert os.environb[b"token"] not in open("/proc/self/environ", "rb").read()

def seen():
    """What a task that lists no secret finds: in its environment, in those of all processes above it, and on command lines."""
    canary, above, found = b"canary/7f3A", os.getpid(), []
    while above > 1:
        if canary in open(f"/proc/{above}/environ", "rb").read():
            found.append(f"environ of {open(f'/proc/{above}/cmdline').read()}")
        above = int(open(f"/proc/{above}/stat").read().rpartition(")")[2].split()[1])
        if above == int(os.environ["STARTED_BY"]):
            break
    found += [name for name, value in os.environ.items() if canary.decode() in value]
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            found += [path] if canary in open(path, "rb").read() else []
        except OSError:
            pass
    return found
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "targets.py").write_text(TARGETS)
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("CANARY", CANARY)
    monkeypatch.setenv("STARTED_BY", str(os.getpid()))
    return tmp_path


def run(folder: Path, tasks: dict[str, Any], **keys: Any) -> Ran:
    return run_job(folder, {"mode": "process", "secrets": {"token": {"env": "CANARY"}}, **keys, "tasks": tasks})


def leaks(folder: Path) -> list[str]:
    """The log, and files of the state directory, that hold a form of the canary."""
    files = [folder / "log.jsonl", *(path for path in (folder / "state").rglob("*") if path.is_file())]
    return [str(path) for path in files for form in FORMS if form.encode() in path.read_bytes()]


# --- who gets it -------------------------------------------------------------------------------------------------------------


def test_a_task_that_lists_a_secret_gets_it_under_its_name_and_where_env_says(folder: Path) -> None:
    script = 'test "$token" = "$EXPECTED" && test "$AUTH" = "Bearer $EXPECTED"'
    (folder / "expected").write_text(CANARY)
    (folder / "expected").chmod(0o600)
    tasks = {
        "a": {"run": f"EXPECTED=$(cat expected); {script}", "secrets": ["token"], "env": {"AUTH": "Bearer ${{ secrets.token }}"}}
    }
    assert run(folder, tasks).result.ok


@pytest.mark.parametrize("mode", ["serial", "process", "process_pool"])
def test_a_target_gets_it_and_its_neighbours_in_the_same_process_do_not(folder: Path, mode: str) -> None:
    tasks = {
        "first": {"target": "os:getenv", "args": ["token", "nothing"]},
        "has": {"target": "targets:give", "secrets": ["token"], "needs": ["first"]},
        "after": {"target": "os:getenv", "args": ["token", "nothing"], "needs": ["has"]},
    }
    ran = run(folder, tasks, mode=mode, workers=1 if mode != "serial" else "auto")
    assert [ran.value(name) for name in tasks] == ["nothing", {"got": CANARY}, "nothing"]


def test_what_stands_above_what(folder: Path) -> None:
    """`env` of the task, its secrets, `env` of the job, `env_file`, the environment of the runner."""
    (folder / "x.env").write_text("A=file\nB=file\nC=file\nD=file\n")
    os.environ.update(A="runner", B="runner", C="runner", D="runner", E="runner")
    secrets = {"A": {"command": "echo secret"}, "B": {"command": "echo secret"}}
    task = {"run": 'echo "$A $B $C $D $E"', "secrets": ["A", "B"], "env": {"A": "task"}}
    try:
        ran = run(folder, {"a": task}, secrets=secrets, env_file="x.env", env={"A": "job", "B": "job", "C": "job"})
    finally:
        for name in "ABCDE":
            os.environ.pop(name, None)
    assert ran.output("a") == "task *** job file runner\n"


@pytest.mark.parametrize(
    "task", [{"run": 'test "$X" = 1'}, {"target": "operator:eq", "args": ["1", "${{ env.X }}"]}], ids=["run", "target"]
)
def test_variables_of_an_env_file_reach_every_task(folder: Path, task: dict[str, Any]) -> None:
    (folder / "x.env").write_text("X=1\n")
    assert run(folder, {"a": task, "b": {"target": "os:getenv", "args": ["X"]}}, env_file="x.env").value("b") == "1"


# --- who does not ------------------------------------------------------------------------------------------------------------


def test_nothing_that_a_run_writes_shows_or_keeps_holds_a_secret(folder: Path) -> None:
    script = 'echo "$token"; printf %s "$token" | base64; printf "%s" "$token" >&2; echo "k=$token" > "$JOBRUNNER_OUTPUT"; exit 3'
    tasks = {
        "shows": {"target": "targets:show", "secrets": ["token"]},
        "fails": {"target": "targets:fail", "secrets": ["token"]},
        "gives": {"target": "targets:give", "secrets": ["token"]},
        "command": {"run": script, "secrets": ["token"]},
        "items": {"foreach": "${{ tasks.gives.result.values }}", "needs": ["gives"], "run": "echo ${{ item }}"},
        "says": {"argv": ["echo", "${{ tasks.gives.result.got }}"], "needs": ["gives"]},
        "computes": {"run": "true", "secrets": ["token"], "env": {"N": "${{ int(secrets.token) }}"}},
    }
    (folder / "job.yaml").write_text(json.dumps({"mode": "process", "secrets": {"token": {"env": "CANARY"}}, "tasks": tasks}))
    started = [sys.executable, "-m", "jobrunner", "job.yaml", "--log-file", "log.jsonl"]
    ended = subprocess.run(started, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    printed = ended.stdout + ended.stderr
    assert ended.returncode == 1, printed.decode()
    assert printed.count(b"***") > 5
    assert [form for form in FORMS if form.encode() in printed] == []
    assert leaks(folder) == []
    for path in (folder / "state").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_task_that_lists_no_secret_finds_it_nowhere(folder: Path) -> None:
    """Not in its environment, not in that of a process of ours above it, and not on any command line."""
    tasks = {
        "has": {"run": 'test -n "$token"', "secrets": ["token"]},
        "has_not": {"target": "targets:seen", "needs": ["has"]},
        "tells": {"argv": ["test", "${{ tasks.has_not.result }}", "=", "[]"], "needs": ["has_not"]},
    }
    (folder / "job.yaml").write_text(json.dumps({"mode": "process", "secrets": {"token": {"env": "CANARY"}}, "tasks": tasks}))
    started = [sys.executable, "-m", "jobrunner", "job.yaml"]
    ended = subprocess.run(started, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert ended.returncode == 0, (ended.stdout + ended.stderr).decode()


@pytest.mark.parametrize("mode", ["serial", "process", "process_pool"])
def test_the_system_shows_none_in_the_environment_of_a_worker_that_has_it(folder: Path, mode: str) -> None:
    tasks = {"has": {"target": "targets:has_it_unseen", "secrets": ["token"]}}
    (folder / "job.yaml").write_text(json.dumps({"mode": mode, "secrets": {"token": {"env": "CANARY"}}, "tasks": tasks}))
    started = [sys.executable, "-m", "jobrunner", "job.yaml"]
    ended = subprocess.run(started, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert ended.returncode == 0, (ended.stdout + ended.stderr).decode()


# --- what keeps a run from starting --------------------------------------------------------------------------------------------


def test_a_secret_that_cannot_be_had_ends_the_run_before_it_begins(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"secrets\.token: the variable GONE is not set"):
        run(folder, {"a": {"run": "touch ran", "secrets": ["token"]}}, secrets={"token": {"env": "GONE"}})
    assert not (folder / "ran").exists()


def test_a_secret_that_no_selected_task_lists_is_not_read(folder: Path) -> None:
    job = {
        "secrets": {"s": {"command": "touch ran; exit 1"}},
        "tasks": {"a": {"run": "true", "secrets": ["s"]}, "b": {"run": "true"}},
    }
    (folder / "job.yaml").write_text(json.dumps(job))
    prepared = api.prepare(folder / "job.yaml", api.Options(only=["b"]))
    assert api.run_prepared(prepared).ok
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("name", "source"), [("token.txt", {"secrets": {"token": {"file": "token.txt"}}}), ("x.env", {"env_file": "x.env"})]
)
def test_a_file_that_others_can_change_ends_the_run_with_77(folder: Path, name: str, source: dict[str, Any]) -> None:
    (folder / name).write_text("A=1\n")
    (folder / name).chmod(0o666)
    with pytest.raises(UnsafeError) as caught:
        run(folder, {"a": {"run": "true", "secrets": ["token"]}}, **source)
    assert caught.value.exit_code == 77


def test_the_reason_of_a_failure_goes_to_nobody_with_a_secret_in_it(folder: Path) -> None:
    log_in = {"target": "targets:fail", "mode": "process", "secrets": ["token"], "continue_on_error": True}
    tell = {"needs": ["log_in"], "argv": ["echo", "${{ tasks.log_in.failures[0].reason }}"]}
    ran = run_job(folder, {"secrets": {"token": {"env": "CANARY"}}, "tasks": {"log_in": log_in, "tell": tell}})
    assert ran.output("tell") == "ValueError: cannot log in with '***'\n"


def test_why_a_cached_task_runs_is_told_without_secrets(folder: Path) -> None:
    tasks = {
        "gives": {"target": "targets:give", "secrets": ["token"]},
        "reads": {"needs": ["gives"], "run": "true", "cache": {"inputs": ["${{ tasks.gives.result.got }}"]}},
    }
    assert run(folder, tasks).started("reads")[0].because == ("no earlier success is known", "input *** is missing")
