"""Contests: cases measured in interleaved rounds, so that drift hits all alike; what comes of them.

    proofs: A B C    round 1: A B C    round 2: B C A    …    →    ratio of a round = A / B; their median is the figure

Every case has a check, and a case whose process did not do its work is refused: it has no figure at all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks import process
from benchmarks.process import Check, Sample, Surroundings, WorkNotDone

Measure = Literal["wall", "cpu", "rss", "item"]
"""What is compared: seconds of wall clock or CPU, peak MiB, or the wall clock that one more item costs."""
LEAST = 1e-6
"""Seconds that many items take at least above one: a start that was slow by chance makes no figure negative."""
LEAST_ROUNDS = 3
"""A budget ends no contest before it has so many: fewer have no spread."""


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

    def is_met(self, *, ratio: float, seconds: float = 0.0, mib: float = 0.0) -> bool | None:
        """Whether all limits are kept; None where there is none."""
        pairs = ((ratio, self.ratio), (seconds, self.seconds), (mib, self.mib))
        return all(limit is None or figure <= limit for figure, limit in pairs) if self.is_bar() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """The same work with one item, or so that it leaves marks, with a check of its own."""

    argv: Sequence[str]
    check: Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One command line to measure. `check` gets what it printed, and gives what is wrong with it, or nothing.

    `single` is the same command with one item, measured beside it: what one more item costs is the difference. `proof` is run
    once, before what is measured. `prepare` is called before each process, and is not measured.
    """

    name: str
    argv: Sequence[str]
    check: Check
    goal: Goal | None = None
    single: Twin | None = None
    proof: Twin | None = None
    prepare: Callable[[], None] | None = None
    at: Surroundings = field(default_factory=Surroundings)
    is_floor: bool = False
    """Not a peer but a limit: what the least that could do the work takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """jobrunner and its peers at the same work. `cases[0]` is ours; each other case may carry the goal against it.

    `key` is by which bars, links and files name it, whatever its size; "" where no bar hangs on it. Contests with the same
    `family` are one plot of lines, at `x`. `budget` is how many seconds the rounds may take: no round beyond LEAST_ROUNDS is
    begun after it. `note` says what is to be known of the figures.
    """

    group: str
    title: str
    items: int
    cases: Sequence[Case]
    rounds: int
    key: str = ""
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

    def start(self, case: Case) -> float | None:
        """Seconds that it takes with one item; None where that was not measured."""
        ones = self.singles.get(case.name)
        return statistics.median(one.wall for one in ones) if ones else None

    def per_item(self, case: Case) -> float | None:
        """Seconds that one more item costs; None where one item was not measured."""
        if case.name not in self.singles or self.contest.items < 2:
            return None
        return statistics.median(self._per_item(case))

    def _per_item(self, case: Case) -> list[float]:
        pairs = zip(self.samples[case.name], self.singles[case.name], strict=True)
        return [max(many.wall - one.wall, LEAST) / (self.contest.items - 1) for many, one in pairs]

    def is_met(self, peer: Case) -> bool | None:
        """Whether the bar against `peer` is met; None where there is none."""
        goal, ours = peer.goal, self.contest.cases[0]
        if goal is None:
            return None
        return goal.is_met(ratio=statistics.median(self.ratios(peer)), seconds=self.wall(ours), mib=self.rss(ours))

    def is_close(self, peer: Case) -> bool:
        """Whether the bar against `peer` lies within the spread: some rounds alone meet it, and others do not."""
        if (goal := peer.goal) is None:
            return False
        rounds = zip(self.ratios(peer), self.samples[self.contest.cases[0].name], strict=True)
        return len({goal.is_met(ratio=ratio, seconds=ours.wall, mib=ours.rss) for ratio, ours in rounds}) > 1

    def is_stretched(self, peer: Case) -> bool | None:
        """Whether what is hoped for beyond the bar is met too; None where nothing is."""
        if peer.goal is None or peer.goal.stretch is None:
            return None
        return self.is_met(peer) is not False and statistics.median(self.ratios(peer)) <= peer.goal.stretch


def run(contest: Contest, *, scratch: Path, say: Callable[[str], None]) -> Outcome:
    """Runs all rounds of a contest, within its budget. Raises WorkNotDone when jobrunner did not do its work;
    a peer that did not is in `refused`, and in nothing else."""
    outcome = Outcome(contest=contest, samples={}, singles={})
    alive = _proven(contest, outcome, scratch=scratch, say=say)
    started = time.monotonic()
    for number in range(contest.rounds):
        if number >= LEAST_ROUNDS and contest.budget is not None and time.monotonic() - started > contest.budget:
            break
        at = number % len(alive)
        for case in [*alive[at:], *alive[:at]]:
            say(f"{contest.title}: round {number + 1} of {contest.rounds}: {case.name}")
            if not _sampled(case, outcome, scratch=scratch):
                alive.remove(case)
    return outcome


def _proven(contest: Contest, outcome: Outcome, *, scratch: Path, say: Callable[[str], None]) -> list[Case]:
    """The cases that did their work when it left marks; the others once, with one item if that is known, which warms them."""
    alive = []
    for case in contest.cases:
        say(f"{contest.title}: does it do its work: {case.name}")
        try:
            if case.proof:
                _measured(case, case.proof, scratch=scratch)
            elif contest.warm_up:
                _measured(case, case.single, scratch=scratch)
        except WorkNotDone as error:
            _refuse(case, outcome, error)
        else:
            alive.append(case)
    return alive


def _sampled(case: Case, outcome: Outcome, *, scratch: Path) -> bool:
    """Measures a case once, and its one-item twin."""
    try:
        many = _measured(case, scratch=scratch)
        one = _measured(case, case.single, scratch=scratch) if case.single else None
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


def _measured(case: Case, twin: Twin | None = None, *, scratch: Path) -> Sample:
    """One process of a case, or of its twin."""
    if case.prepare:
        case.prepare()
    chosen = twin or case
    return process.measure(chosen.argv, scratch=scratch, check=chosen.check, at=case.at)
