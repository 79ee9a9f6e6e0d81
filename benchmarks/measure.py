"""Measures whole processes: wall clock, CPU and peak memory of each, in interleaved rounds, so that drift hits all alike.

    proofs: A B C    round 1: A B C    round 2: B C A    …    →    ratio of a round = A / B; their median is the figure

Every case has a check, and a case whose process did not do its work is refused: it has no figure at all.

This process stays small and imports nothing heavy: on Linux a child's peak memory starts at what its parent had when it forked,
so that no figure can be under this process's own 16 MiB or so.
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
COMPILED = ("jobrunner", "benchmarks", "click", "orjson", "pydantic", "pydantic_core", "simpleeval", "structlog", "yaml")
UNSET = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPROFILEIMPORTTIME", "PYTHONDEVMODE")


class WorkNotDone(Exception):
    """A process ended without having done what it is measured for: its figure would mean nothing."""


Check = Callable[[str], str | None]
"""Gets what a process printed; gives what is wrong with it, or nothing."""
Measure = Literal["wall", "cpu", "rss", "item"]
"""What is compared: seconds of wall clock or CPU, peak MiB, or the wall clock that one more item costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One process: seconds of wall clock, seconds of CPU of it and all it waited for, peak MiB of the largest of them."""

    wall: float
    cpu: float
    rss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Where a set of figures lies."""

    median: float
    low: float
    high: float
    lower_quartile: float
    upper_quartile: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """Raises StatisticsError for no figures."""
        lower, median, upper = statistics.quantiles(list(figures) * (1 + (len(figures) == 1)), n=4, method="inclusive")
        return cls(median=median, low=min(figures), high=max(figures), lower_quartile=lower, upper_quartile=upper)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """The bar: how many times what the peer takes jobrunner may take, and how many seconds, how many MiB at most.

    `stretch` is the ratio that is hoped for beyond the bar.
    """

    ratio: float | None = None
    stretch: float | None = None
    seconds: float | None = None
    mib: float | None = None

    def __str__(self) -> str:
        limits = ((self.ratio, "×"), (self.seconds, "s"), (self.mib, "MiB"))
        bar = " and ".join(f"≤ {limit:g} {unit}" for limit, unit in limits if limit is not None)
        return " ".join(filter(None, [bar, "" if self.stretch is None else f"(stretch {self.stretch:g})"]))

    def is_bar(self) -> bool:
        """Whether it promises anything: a stretch alone does not."""
        return (self.ratio, self.seconds, self.mib) != (None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The same work done so that it leaves marks, which `check` counts: run once, before what is measured."""

    argv: Sequence[str]
    check: Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One command line to measure. `check` gets what it printed, and gives what is wrong with it, or nothing.

    `told` reads figures from what it printed: `wall` (seconds) and `rss` (MiB) stand in place of those of the whole process.
    `single` is the same command with one item: what one more item costs is the difference. `prepare` is called before each
    process, and is not measured. A process that takes more than `patience` seconds is killed, and has not done its work.
    """

    name: str
    argv: Sequence[str]
    check: Check
    goal: Goal | None = None
    single: Sequence[str] | None = None
    told: Callable[[str], Mapping[str, float]] | None = None
    proof: Proof | None = None
    prepare: Callable[[], None] | None = None
    folder: Path = ROOT
    env: Mapping[str, str] = field(default_factory=dict)
    patience: float = 900.0
    is_floor: bool = False
    """Not a peer but a limit: what the least that could do the work takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """jobrunner and its peers at the same work. `cases[0]` is ours; each other case may carry the goal against it.

    Contests with the same `family` are one plot of lines, at `x`. `budget` is how many seconds the rounds may take: no other
    round is begun after it. `note` says what is to be known of the figures.
    """

    group: str
    title: str
    items: int
    cases: Sequence[Case]
    rounds: int
    warm_up: bool = True
    compares: Measure = "wall"
    family: str = ""
    x: float = 0
    budget: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a contest gave: the samples of each case by round, those of its one-item twin beside them; who is refused, and why."""

    contest: Contest
    samples: dict[str, list[Sample]]
    singles: dict[str, list[Sample]]
    refused: dict[str, str] = field(default_factory=dict)

    def cases(self) -> list[Case]:
        """Those that did their work; the first is ours."""
        return [case for case in self.contest.cases if case.name in self.samples]

    def rounds(self) -> int:
        return len(self.samples[self.contest.cases[0].name])

    def wall(self, case: Case) -> float:
        return statistics.median(sample.wall for sample in self.samples[case.name])

    def rss(self, case: Case) -> float:
        return statistics.median(sample.rss for sample in self.samples[case.name])

    def figures(self, case: Case) -> list[float]:
        """What is compared, round by round."""
        match self.contest.compares:
            case "wall" | "cpu" | "rss" as name:
                return [getattr(sample, name) for sample in self.samples[case.name]]
            case "item":
                return self._per_item(case)

    def ratios(self, peer: Case) -> list[float]:
        """What we took over what the peer took, round by round."""
        return [mine / theirs for mine, theirs in zip(self.figures(self.contest.cases[0]), self.figures(peer), strict=True)]

    def per_item(self, case: Case) -> float | None:
        """Seconds that one more item costs; None where one item was not measured."""
        if case.name not in self.singles or self.contest.items < 2:
            return None
        return statistics.median(self._per_item(case))

    def _per_item(self, case: Case) -> list[float]:
        pairs = zip(self.samples[case.name], self.singles[case.name], strict=True)
        return [(many.wall - one.wall) / (self.contest.items - 1) for many, one in pairs]

    def is_met(self, peer: Case) -> bool | None:
        """Whether the bar against `peer` is met; None where there is none."""
        goal, ours = peer.goal, self.contest.cases[0]
        if goal is None or not goal.is_bar():
            return None
        within_seconds = goal.seconds is None or self.wall(ours) <= goal.seconds
        within_memory = goal.mib is None or self.rss(ours) <= goal.mib
        return within_seconds and within_memory and (goal.ratio is None or statistics.median(self.ratios(peer)) <= goal.ratio)

    def is_stretched(self, peer: Case) -> bool | None:
        """Whether what is hoped for beyond the bar is met too; None where nothing is."""
        hoped = peer.goal.stretch if peer.goal else None
        return None if hoped is None else self.is_met(peer) is not False and statistics.median(self.ratios(peer)) <= hoped


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
    """Runs all rounds of a contest, within its budget but at least one. Raises WorkNotDone when jobrunner did not do its work;
    a peer that did not is in `refused`, and in nothing else."""
    outcome = Outcome(contest=contest, samples={}, singles={})
    alive = _proven(contest, outcome, scratch=scratch, say=say)
    started = time.monotonic()
    for number in range(contest.rounds):
        if number and contest.budget is not None and time.monotonic() - started > contest.budget:
            break
        at = number % len(alive)
        for case in [*alive[at:], *alive[:at]]:
            say(f"{contest.title}: round {number + 1} of {contest.rounds}: {case.name}")
            if not _sampled(case, outcome, scratch=scratch):
                alive.remove(case)
    return outcome


def _proven(contest: Contest, outcome: Outcome, *, scratch: Path, say: Callable[[str], None]) -> list[Case]:
    """The cases that did their work when it left marks; the others once, which warms what there is to warm."""
    alive = []
    for case in contest.cases:
        say(f"{contest.title}: does it do its work: {case.name}")
        try:
            if case.proof:
                measure(case.proof.argv, scratch=scratch, check=case.proof.check, case=case)
            elif contest.warm_up:
                measure(case.argv, scratch=scratch, check=case.check, case=case)
        except WorkNotDone as error:
            _refuse(case, outcome, error)
        else:
            alive.append(case)
    return alive


def _sampled(case: Case, outcome: Outcome, *, scratch: Path) -> bool:
    """Measures a case once, and its one-item twin."""
    try:
        many = measure(case.argv, scratch=scratch, check=case.check, case=case)
        one = measure(case.single, scratch=scratch, case=case) if case.single else None
    except WorkNotDone as error:
        _refuse(case, outcome, error)
        return False
    outcome.samples.setdefault(case.name, []).append(many)
    if one:
        outcome.singles.setdefault(case.name, []).append(one)
    return True


def _refuse(case: Case, outcome: Outcome, why: WorkNotDone) -> None:
    """A case that failed once has no figures at all. Raises `why` when it is ours."""
    if case is outcome.contest.cases[0]:
        raise why
    outcome.refused[case.name] = str(why)
    outcome.samples.pop(case.name, None)
    outcome.singles.pop(case.name, None)


def measure(argv: Sequence[str], *, scratch: Path, check: Check | None = None, case: Case | None = None) -> Sample:
    """Runs one process from start to end. What it prints goes to files: a pipe would make it wait for us."""
    out, err = scratch / "out", scratch / "err"
    if case and case.prepare:
        case.prepare()
    env = environment() | dict(case.env if case else {})
    with out.open("wb") as stdout, err.open("wb") as stderr:
        started = time.perf_counter()
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=env,
            cwd=case.folder if case else ROOT,
            start_new_session=True,
        )
        with _ended_after(case.patience if case else None, child.pid) as too_long:
            _wait_for(child.pid)
            wall = time.perf_counter() - started
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if too_long.is_set():
        raise WorkNotDone(f"{' '.join(argv)}: not done after {wall:.0f} s")
    printed = out.read_text(errors="replace")
    wrong = f"exit code {child.returncode}" if child.returncode else check(printed) if check else None
    if wrong:
        raise WorkNotDone(f"{' '.join(argv)}: {wrong}\n{err.read_text(errors='replace')[-2000:]}".rstrip())
    told = case.told(printed) if case and case.told else {}
    return Sample(
        wall=told.get("wall", wall),
        cpu=usage.ru_utime + usage.ru_stime,
        rss=told.get("rss", usage.ru_maxrss / _MAXRSS_PER_MIB),
    )


def _wait_for(pid: int) -> None:
    """Until the process has ended. It is not reaped: its number is its own until nobody would kill it any more."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@contextmanager
def _ended_after(seconds: float | None, session: int) -> Iterator[threading.Event]:
    """Kills all of a session when it lives longer than that, and says so. Its leader is to be reaped only after this block."""
    killed = threading.Event()

    def kill() -> None:
        killed.set()
        with suppress(ProcessLookupError):
            os.killpg(session, signal.SIGKILL)

    if seconds is None:
        yield killed
        return
    timer = threading.Timer(seconds, kill)
    timer.start()
    yield killed
    timer.cancel()
    timer.join()


_MAXRSS_PER_MIB = 1024 * 1024 if sys.platform == "darwin" else 1024
