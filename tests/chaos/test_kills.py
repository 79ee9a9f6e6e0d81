"""SIGKILL at random of engine, guard or both: what is recorded is never run again, nothing is lost, nothing is left behind."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos import chaos
from tests.chaos.chaos import Trial

pytestmark = pytest.mark.chaos

LONG = bool(os.environ.get("JOBRUNNER_LONG"))
KILLS, TRIALS, TASKS = (50, 20, 1_000) if LONG else (15, 2, 300)
"""Kills of a trial, trials, and tasks of each: 1,000 kills in the long form, 30 in CI."""
GOAL = 0.3 if LONG else 1.0
"""Tasks that were done before the kill but not recorded yet, and so run again, a kill; a few kills do not make a mean."""
SHORT_KILLS, SHORT_TRIALS, SHORT_TASKS = (10, 10, 3_000) if LONG else (4, 2, 1_200)
SEED = int(os.environ.get("JOBRUNNER_SEED", random.SystemRandom().randrange(1 << 32)))


@pytest.mark.slow
@pytest.mark.timeout(3600 if LONG else 150)
def test_a_job_that_is_killed_at_random_is_completed_by_resume(tmp_path: Path) -> None:
    print(f"JOBRUNNER_SEED={SEED}")  # noqa: T201  # what repeats a failure
    draw, trials = random.Random(SEED), []
    for number in range(TRIALS):
        trials.append(trial := Trial(folder=tmp_path / str(number), tasks=TASKS))
        chaos.run(trial, draw, kills=KILLS)
        chaos.verify(trial)
    print(chaos.told(trials))  # noqa: T201
    unrecorded = sum(each.was_done for trial in trials for each in chaos.repeats(trial))
    assert unrecorded / sum(len(trial.kills) for trial in trials) <= GOAL, chaos.told(trials)


@pytest.mark.slow
@pytest.mark.timeout(1200 if LONG else 150)
def test_short_commands_are_completed_too_whoever_is_killed_their_runners_included(tmp_path: Path) -> None:
    print(f"JOBRUNNER_SEED={SEED}")  # noqa: T201
    draw, trials = random.Random(SEED), []
    for number in range(SHORT_TRIALS):
        trials.append(trial := Trial(folder=tmp_path / str(number), tasks=SHORT_TASKS, seconds=0, is_short=True))
        chaos.run(trial, draw, kills=SHORT_KILLS)
        chaos.verify(trial)
    print(chaos.told(trials))  # noqa: T201
    assert sum(trial.runners for trial in trials) > 0, "many short commands are started in another way now"


@pytest.mark.slow
@pytest.mark.timeout(600 if LONG else 90)
def test_what_is_left_when_all_are_killed_is_ended_by_the_next_start(tmp_path: Path) -> None:
    print(f"JOBRUNNER_SEED={SEED}")  # noqa: T201
    trial = Trial(folder=tmp_path / "job", tasks=TASKS // 3)
    chaos.run(trial, random.Random(SEED), kills=KILLS // 2, victims=("all",))
    chaos.verify(trial)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_resume_that_is_killed_ten_times_in_a_row_changes_nothing(tmp_path: Path) -> None:
    """Nine in ten of these kills come while the runner starts; the job is completed all the same, and once."""
    print(f"JOBRUNNER_SEED={SEED}")  # noqa: T201
    trial = Trial(folder=tmp_path / "job", tasks=40)
    chaos.run(trial, random.Random(SEED), kills=12, early=0.9)
    chaos.verify(trial)
