"""A timeout ends the whole tree of an attempt in time: children in sessions of their own, double forks, what ignores TERM."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.chaos import chaos, records
from tests.chaos.chaos import Trial

pytestmark = pytest.mark.chaos

ATTEMPTS = 1_000 if os.environ.get("JOBRUNNER_LONG") else 100
TIMEOUT, GRACE, LATE = 0.3, 0.2, 0.2
WORKERS = 8
TREES = {
    "plain": "sleep 60",
    "deaf": "trap '' TERM; sleep 60; sleep 60",
    "session": "setsid sleep 60 & setsid sh -c 'sleep 60' & wait",
    "deaf_session": "trap '' TERM; setsid sh -c 'sleep 60; sleep 60' & wait",
    "double_fork": "( ( setsid sleep 60 & ) & ); sleep 60",
    "deaf_double_fork": "trap '' TERM; ( ( setsid sleep 60 & ) & ); sleep 60; sleep 60",
}
MOST_PROCESSES = 6
"""That the tree of one attempt has, its shells included."""


def _job() -> dict[str, object]:
    each = {"foreach": {"range": -(-ATTEMPTS // len(TREES))}, "timeout": f"{TIMEOUT:g}s", "stop": {"grace": f"{GRACE:g}s"}}
    return {"name": "chaos", "workers": WORKERS, "tasks": {name: {"run": text, **each} for name, text in TREES.items()}}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_attempt_and_all_that_it_started_is_gone_in_time(tmp_path: Path) -> None:
    trial = Trial(folder=tmp_path / "job", tasks=0)
    trial.write()
    (trial.folder / "job.yaml").write_text(json.dumps(_job()))
    with chaos.all_ended(trial):
        child = trial.start()
        most = _most_processes(trial, child)
        assert child.wait() == 1, trial.printed()
        assert trial.alive() == set(), "survivors"
    assert most <= WORKERS * MOST_PROCESSES + 2, "attempts that have ended had left processes"
    (run,) = records.run_dirs(trial.state, "chaos")
    taken = _taken(records.checked(run / "events.jsonl"))
    assert len(taken) == -(-ATTEMPTS // len(TREES)) * len(TREES)
    assert statistics.quantiles(taken, n=100)[98] <= TIMEOUT + GRACE + LATE, sorted(taken)[-5:]


def _most_processes(trial: Trial, child: subprocess.Popen[bytes]) -> int:
    """How many processes of the run lived at once, at most, guard and engine included."""
    most, deadline = 0, time.monotonic() + 240
    while child.poll() is None:
        assert time.monotonic() < deadline
        most = max(most, len(trial.alive()))
        time.sleep(0.05)
    return most


def _taken(found: list[records.Record]) -> list[float]:
    """Seconds from the start of each attempt to its end, as it was told and as the two records lie apart: the longer."""
    started = {(each["task"], each["item"]): _seconds(each) for each in found if each["event"] == "task.started"}
    ended = [each for each in found if each["event"] == "task.finished"]
    assert {each["outcome"] for each in ended} == {"timed_out"}
    return [max(each["duration"], _seconds(each) - started[each["task"], each["item"]]) for each in ended]


def _seconds(record: records.Record) -> float:
    return datetime.fromisoformat(record["ts"]).timestamp()
