"""A run as cron starts it: hardly any environment, standard streams closed, and / as the current directory."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BARE = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
CLOSED = {"none": "", "stdin": "<&-", "stdin and stdout": "<&- >&-", "all": "<&- >&- 2>&-"}
TASKS: dict[str, Any] = {
    "command": {"run": "echo said; echo told >&2; pwd > pwd; env > env; ls -l /proc/self/fd > fds"},
    "function": {"target": "functions:said", "mode": "process_pool", "needs": ["command"]},
    "thread": {"target": "functions:said", "needs": ["command"]},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended: its exit code, the records of its journal, its directory."""

    code: int
    journal: list[dict[str, Any]]
    run_dir: Path


def run(folder: Path, tasks: dict[str, Any], *, closed: str) -> Ended:
    (folder / "functions.py").write_text("import os\ndef said():\n    print('said')\n    return os.getcwd()\n")
    job = folder / "job.yaml"
    job.write_text(json.dumps({"tasks": tasks}))
    state = folder / "state"
    command = shlex.join([sys.executable, "-m", "jobrunner", str(job)])
    ended = subprocess.run(
        ["/bin/sh", "-c", f"exec {command} {closed}"],
        cwd="/",
        env={**BARE, "JOBRUNNER_STATE": str(state)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=40,
    )
    (run_dir,) = [path for path in (state / "job").iterdir() if path.is_dir()]
    journal = [json.loads(line) for line in (run_dir / "events.jsonl").read_bytes().splitlines()]
    return Ended(code=ended.returncode, journal=journal, run_dir=run_dir)


@pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED)
def test_a_run_is_the_same_whatever_is_closed(tmp_path: Path, closed: str) -> None:
    ended = run(tmp_path, TASKS, closed=closed)
    last = ended.journal[-1]
    assert (ended.code, last["event"], last["exit_code"], last["outcomes"]) == (0, "run.finished", 0, {"succeeded": 3})
    assert (ended.run_dir / "output" / "command.log").read_text().split() == ["said", "told"]
    for task in ("function", "thread"):
        assert (ended.run_dir / "output" / f"{task}.log").read_text() == "said\n"
    assert (tmp_path / "pwd").read_text() == f"{tmp_path}\n"
    assert (tmp_path / "state" / "job" / "lock").read_text() == "", "something was written where a stream should be"


@pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED)
def test_a_failure_is_told_by_the_exit_code_whatever_is_closed(tmp_path: Path, closed: str) -> None:
    ended = run(tmp_path, {"a": {"run": "exit 3"}}, closed=closed)
    last = ended.journal[-1]
    assert (ended.code, last["event"], last["exit_code"]) == (1, "run.finished", 1)


def test_tasks_get_what_cron_gave_and_what_is_theirs_and_nothing_is_made_up(tmp_path: Path) -> None:
    run(tmp_path, TASKS, closed=CLOSED["all"])
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    own = {name for name in names if name.startswith("JOBRUNNER_")}
    assert names - own - {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"} == set(BARE)  # the last: Python's own, in the locale C
    assert {"JOBRUNNER_RUN_ID", "JOBRUNNER_TASK", "JOBRUNNER_ATTEMPT"} <= own


@pytest.mark.parametrize("closed", CLOSED.values(), ids=CLOSED)
def test_a_command_has_its_three_streams_and_no_other_descriptor(tmp_path: Path, closed: str) -> None:
    run(tmp_path, {"a": TASKS["command"]}, closed=closed)
    listed = [line.split(" -> ") for line in (tmp_path / "fds").read_text().splitlines() if " -> " in line]
    found = {int(left.split()[-1]): target for left, target in listed}
    assert set(found) <= {0, 1, 2, 3}, found  # 3 is the directory that ls reads
    assert found[0] == "/dev/null"


def test_without_a_home_the_state_lies_where_the_user_database_says() -> None:
    """Not through a run: that would write to the home of who runs the tests."""
    code = "import os; from jobrunner.rundir import state_dir; print(state_dir(os.environ))"
    ended = subprocess.run([sys.executable, "-c", code], cwd="/", env=BARE, capture_output=True, text=True, check=True)
    home = pwd.getpwuid(os.getuid()).pw_dir
    assert ended.stdout == f"{home}/.local/state/jobrunner\n"
