"""Who runs next: a pure state machine. No clock, no thread, no file; `now` is an argument."""

from __future__ import annotations

from jobrunner.plan.attempt import Attempt, Ended, Phase, Skip, Skipped, Span, State, Tries
from jobrunner.plan.plan import Plan
from jobrunner.plan.semaphores import Outside

__all__ = ["Attempt", "Ended", "Outside", "Phase", "Plan", "Skip", "Skipped", "Span", "State", "Tries"]
