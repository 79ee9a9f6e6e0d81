"""The bars: what jobrunner promises against whom, in one table; and what is known of those that are missed.

BARS ─→ with_goals(contest): each case gets its goal        notes.toml ─→ notes(): a text a bar, written by hand
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure import Contest, Goal
from benchmarks.process import ROOT

NOTES = ROOT / "benchmarks" / "notes.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A goal against one case of one contest; where it is in seconds or MiB, for that many items (`size`) and no fewer."""

    group: str
    contest: str
    against: str
    goal: Goal
    size: int = 0

    @property
    def name(self) -> str:
        """As notes.toml has it: the contest's key and the case."""
        return f"{self.contest} / {self.against}"

    def at(self, items: int) -> Goal | None:
        """The goal for so many items: limits in seconds and MiB would be met by any small contest."""
        goal = self.goal if items >= self.size else replace(self.goal, seconds=None, mib=None)
        return goal if goal.is_bar() or goal.stretch is not None else None


AHEAD = Goal(ratio=1)
HOPED = Goal(stretch=1)
LIMIT = Goal(ratio=1.25, stretch=1.15)
PRIMITIVE = Goal(ratio=1.3, stretch=1.1)
LINES: Mapping[str, Mapping[str, Mapping[str, Goal]]] = {
    "cold": {
        "first-sight": {"script: YAML, pydantic, structlog, one spawn": Goal(ratio=1.1, stretch=0.9)},
        "unchanged": {"doit": Goal(ratio=0.75), "pypyr": Goal(ratio=0.75), "go-task": HOPED},
    },
    "commands": {
        "true-2": {"limit: bare posix_spawn loop": LIMIT, "xargs": AHEAD, "make": AHEAD, "ninja": AHEAD},
        "true-8": {"limit: bare posix_spawn loop": LIMIT, "xargs": AHEAD, "make": AHEAD, "ninja": AHEAD},
        "shell": {"ninja": Goal(ratio=1.1, stretch=1)},
    },
    "calls": {
        "process_pool": {
            "ProcessPoolExecutor.submit": Goal(ratio=0.5, stretch=0.25),
            "multiprocessing.Pool.imap": Goal(ratio=1),
        },
        "thread_pool": {"ThreadPoolExecutor.submit": Goal(ratio=1.3, stretch=0.8)},
        "thread": {"a Thread a call": PRIMITIVE},
        "process": {"a forked Process a call": PRIMITIVE},
    },
    "cpu": {
        "1ms": {
            "ideal": Goal(ratio=round(1 / 0.85, 3), stretch=round(1 / 0.92, 3)),
            "joblib, loky": AHEAD,
            "ProcessPoolExecutor.submit": AHEAD,
            "ProcessPoolExecutor.map in chunks": AHEAD,
            "Pebble ProcessPool.map": AHEAD,
            "dask, processes": AHEAD,
            "ray": AHEAD,
        },
    },
    "graph": {
        "graph-loaded": {"jobrunner": Goal(seconds=3, mib=300), "graphlib, ThreadPoolExecutor": Goal(ratio=5, stretch=2)},
        "graph": {"doit, 2 threads": AHEAD, "dask.threaded": AHEAD},
        "graph-smaller": {"go-task": AHEAD},
        "graph-small": {"luigi, in one process": AHEAD, "dagu": AHEAD},
        "graph-least": {"snakemake": AHEAD},
    },
    "yaml": {
        "reading": {"jobrunner: load, check, validate": Goal(seconds=4), "yaml.CSafeLoader: load only": AHEAD},
        "reading-slow": {
            "yaml.SafeLoader: load only": AHEAD,
            "ruamel.yaml, safe: load only": AHEAD,
            "ruamel.yaml, round trip: load only": AHEAD,
        },
    },
    "memory": {
        "many": {"jobrunner, over a job with one item": Goal(mib=100)},
        "rate": {"the first tenth of them": Goal(ratio=1.1)},
    },
    "makespan": {
        "makespan": {
            "the lower bound, in the median": Goal(ratio=1.05, stretch=1.02),
            "first in, first out, at worst": Goal(ratio=1.02),
        },
    },
    "safety": {
        "guard": {"the engine without a guard": Goal(ratio=1.04)},
        "durability": {"jobrunner --durability process": Goal(ratio=1.1)},
        "durability-layers": {"jobrunner --durability process": Goal(ratio=1.1)},
    },
}
"""A group → the key of a contest → the name of a case → what is promised. Ours has limits of its own: in seconds, in MiB."""
SIZES = {"graph-loaded": 100_000, "reading": 100_000, "many": 1_000_000}
"""From how many items on limits in seconds and MiB are meant."""
BARS = {
    bar.name: bar
    for group, contests in LINES.items()
    for contest, goals in contests.items()
    for against, goal in goals.items()
    for bar in (Bar(group=group, contest=contest, against=against, goal=goal, size=SIZES.get(contest, 0)),)
}


def with_goals(contest: Contest) -> Contest:
    """The contest with the goal of each case that a bar is set against."""
    found = {bar.against: bar.at(contest.items) for bar in BARS.values() if bar.contest == contest.key}
    return replace(contest, cases=[replace(case, goal=found.get(case.name)) for case in contest.cases])


def is_bar(contest: str, against: str) -> bool:
    """Whether a bar is set against that case."""
    return f"{contest} / {against}" in BARS


def notes(path: Path = NOTES) -> dict[str, str]:
    """What is written by hand of bars, by their names. Raises ValueError for a name that no bar has, and for what is no text."""
    found = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if unknown := sorted(found.keys() - BARS.keys()):
        raise ValueError(f"{path.name}: no bar {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, BARS))}")
    if wrong := sorted(name for name, text in found.items() if not isinstance(text, str)):
        raise ValueError(f"{path.name}: no text: {', '.join(map(repr, wrong))}")
    return {name: " ".join(text.split()) for name, text in found.items()}
