"""Measures whole processes: wall clock, CPU and peak memory of each, in interleaved rounds, so that drift hits all alike.

    round 1: A B C    round 2: A B C    …    →    ratio of a round = wall(A) / wall(B); the median of the ratios is the figure

This process stays small and imports nothing heavy: on Linux a child's peak memory starts at what its parent had when it forked,
so that no figure can be under this process's own 16 MiB or so.
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILED = ("jobrunner", "benchmarks", "click", "orjson", "pydantic", "pydantic_core", "simpleeval", "structlog", "yaml")
UNSET = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPROFILEIMPORTTIME", "PYTHONDEVMODE")


class WorkNotDone(Exception):
    """A process ended without having done what it is measured for: its figure would mean nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One process: seconds of wall clock, seconds of CPU of it and all it waited for, peak MiB of the largest of them."""

    wall: float
    cpu: float
    rss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """How many times the wall clock of the peer jobrunner may take, and how many seconds at most."""

    ratio: float
    seconds: float | None = None

    def __str__(self) -> str:
        return f"≤ {self.ratio:g} ×" + ("" if self.seconds is None else f" and ≤ {self.seconds:g} s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One command line to measure. `check` gets what it printed, and gives what is wrong with it, or nothing.

    `single` is the same command with one item: what one more item costs is the difference.
    """

    name: str
    argv: Sequence[str]
    check: Callable[[str], str | None]
    goal: Goal | None = None
    single: Sequence[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """jobrunner and its peers at the same work. `cases[0]` is ours; each other case may carry the goal against it."""

    group: str
    title: str
    items: int
    cases: Sequence[Case]
    rounds: int
    warm_up: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a contest gave: the samples of each case by round, those of its one-item twin beside them."""

    contest: Contest
    samples: dict[str, list[Sample]]
    singles: dict[str, list[Sample]]

    def wall(self, case: Case) -> float:
        return statistics.median(sample.wall for sample in self.samples[case.name])

    def ratios(self, peer: Case) -> list[float]:
        """Our wall clock over the peer's, round by round."""
        ours = self.samples[self.contest.cases[0].name]
        return [mine.wall / theirs.wall for mine, theirs in zip(ours, self.samples[peer.name], strict=True)]

    def per_item(self, case: Case) -> float | None:
        """Seconds that one more item costs; None where one item was not measured."""
        if case.name not in self.singles or self.contest.items < 2:
            return None
        pairs = zip(self.samples[case.name], self.singles[case.name], strict=True)
        return statistics.median(many.wall - one.wall for many, one in pairs) / (self.contest.items - 1)

    def is_met(self, peer: Case) -> bool | None:
        """Whether the goal against `peer` is met; None where there is none."""
        if peer.goal is None:
            return None
        within = peer.goal.seconds is None or self.wall(self.contest.cases[0]) <= peer.goal.seconds
        return within and statistics.median(self.ratios(peer)) <= peer.goal.ratio


def environment() -> dict[str, str]:
    """The environment of measured processes: ours without what makes Python slower than users have it; they find this tree."""
    return {name: value for name, value in os.environ.items() if name not in UNSET} | {"PYTHONPATH": str(ROOT)}


def compile_all() -> None:
    """Compiles what measured processes import: a source that is compiled on import costs two to three times more."""
    for name in COMPILED:
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations or []) if spec else []:
            compileall.compile_dir(place, quiet=2)


def run(contest: Contest, *, scratch: Path, say: Callable[[str], None]) -> Outcome:
    """Runs all rounds of a contest. Raises WorkNotDone when a process did not do its work."""
    outcome = Outcome(contest=contest, samples={}, singles={})
    for number in range(-1 if contest.warm_up else 0, contest.rounds):
        for case in contest.cases:
            say(f"{contest.title}: {'warm-up' if number < 0 else f'round {number + 1} of {contest.rounds}'}: {case.name}")
            many = measure(case.argv, scratch=scratch, check=case.check)
            one = measure(case.single, scratch=scratch) if case.single else None
            if number >= 0:
                outcome.samples.setdefault(case.name, []).append(many)
            if number >= 0 and one:
                outcome.singles.setdefault(case.name, []).append(one)
    return outcome


def measure(argv: Sequence[str], *, scratch: Path, check: Callable[[str], str | None] | None = None) -> Sample:
    """Runs one process from start to end. What it prints goes to files: a pipe would make it wait for us."""
    out, err = scratch / "out", scratch / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        started = time.perf_counter()
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment(), cwd=ROOT)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    wrong = f"exit code {child.returncode}" if child.returncode else check(out.read_text(errors="replace")) if check else None
    if wrong:
        raise WorkNotDone(f"{' '.join(argv)}: {wrong}\n{err.read_text(errors='replace')[-2000:]}".rstrip())
    return Sample(wall=wall, cpu=usage.ru_utime + usage.ru_stime, rss=usage.ru_maxrss / _MAXRSS_PER_MIB)


_MAXRSS_PER_MIB = 1024 * 1024 if sys.platform == "darwin" else 1024
