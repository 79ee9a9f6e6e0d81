"""The functions that benchmark jobs call. Copied beside the job file of each benchmark; peers import them from here."""

from __future__ import annotations

import time


def nothing(n: int = 0) -> None:
    """Costs nothing, so that what is measured is the way there and back."""


def rest(n: int) -> None:
    """Ten milliseconds in which nothing is computed."""
    time.sleep(0.01)


def burn(loops: int) -> int:
    """A fixed amount of arithmetic: what it costs in CPU does not depend on who else is at work."""
    total = 0
    for n in range(loops):
        total = (total * 31 + n) % 1_000_003
    return total


def loops_for(seconds: float) -> int:
    """How many loops of `burn` cost that much CPU here: the best of seven, which neighbours have disturbed the least."""
    probe = 20_000
    best = min(_cpu_of(probe) for _ in range(7))
    return max(1, round(probe * seconds / best))


def _cpu_of(loops: int) -> float:
    started = time.process_time()
    burn(loops)
    return time.process_time() - started
