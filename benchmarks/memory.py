"""What very many items and tasks cost: the memory of all processes together, whether the rate holds, and how both grow.

A job with a million items is watched against the same job with one. Then items and tasks of a graph in growing numbers, as lines,
which should be straight.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import calls, jobs, layers, pools
from benchmarks.measure import LEAST_ROUNDS, Case, Contest
from benchmarks.pools import Work
from benchmarks.process import ROOT, Surroundings

ITEMS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
TASKS = (1_000, 3_000, 10_000, 30_000, 100_000)
QUICK_ITEMS = (1_000, 5_000, 20_000)
QUICK_TASKS = (1_000, 2_000, 5_000)
TOLD = Surroundings(told=json.loads)
MOST_OF_PEERS = 300_000
"""Their futures and graphs take a gigabyte and more beyond it."""
ALL = "Peak MiB is of all processes together, over that of the same job with one item. Hoped for: 60 MiB."
LINES = """\
jobrunner's peak MiB is that of all its processes together, the others' that of the largest. Its job file is new in the first
round and unchanged in the others. Where a line is straight, each item or task costs the same however many there are."""
FLAT = "Seconds of wall clock, from the log. A round is one of the runs above: its last tenth against its first."


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """Memory and rate of the many, then the lines."""
    many, rounds = 30_000 if quick else 1_000_000, LEAST_ROUNDS  # which no budget cuts: both are to have as many
    spans = Spans()
    items = [_items(scratch, count, 3 if count <= MOST_OF_PEERS else 1) for count in (QUICK_ITEMS if quick else ITEMS)]
    tasks = [_tasks(scratch, count, 3) for count in (QUICK_TASKS if quick else TASKS)]
    return [_many(scratch, many, rounds, spans), _rate(many, rounds, spans), *items, *tasks]


@dataclass(slots=True)
class Spans:
    """How long the first and the last tenth of the many took, run by run: taken when their runs are checked."""

    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)

    def take(self, told: dict[str, float]) -> None:
        self.first.append(told["first"])
        self.last.append(told["last"])


def _many(scratch: Path, items: int, rounds: int, spans: Spans) -> Contest:
    job, empty = (_fan_out(scratch, count) for count in (items, 1))
    case = Case(
        name="jobrunner, over a job with one item",
        argv=jobs.python("peak.py", job, empty),
        check=_succeeded(items, spans.take),
        at=TOLD,
    )
    title = f"{items:,} calls of nothing, thread_pool, 2 workers"
    return Contest(group="memory", key="many", title=title, items=items, cases=[case], rounds=rounds, warm_up=False, note=ALL)


def _rate(items: int, rounds: int, spans: Spans) -> Contest:
    """What the runs before have told, as a contest: of each its last tenth against its first."""

    def case(name: str, found: list[float]) -> Case:
        return Case(
            name=f"the {name} tenth of them",
            argv=[sys.executable, "-c", ""],
            check=lambda _: None if found else "no run has told it",
            at=Surroundings(told=lambda _: {"wall": found.pop(0), "cpu": 0, "rss": 0}),
        )

    cases = [case("last", spans.last), case("first", spans.first)]
    title = f"the rate over {items:,} calls is flat: the last {items // 10:,} against the first"
    return Contest(
        group="memory", key="rate", title=title, items=items // 10, cases=cases, rounds=rounds, warm_up=False, note=FLAT
    )


def _items(scratch: Path, items: int, rounds: int) -> Contest:
    peers = pools.cases(["ThreadPoolExecutor.submit"], _work(items), single=False)
    cases = [_ours(_fan_out(scratch, items), items), *(peers if items <= MOST_OF_PEERS else [])]
    return _line("items of one task", items, cases, rounds)


def _tasks(scratch: Path, tasks: int, rounds: int) -> Contest:
    job = layers.write(scratch / f"graph-{tasks}.yaml", layers.job(tasks))
    shutil.copy(ROOT / "benchmarks" / "work_items.py", scratch)
    peer = Case(
        name="graphlib, ThreadPoolExecutor",
        argv=jobs.python("graphs.py", "standard-library", tasks),
        check=lambda printed: None if json.loads(printed)["ran"] == tasks else f"printed {printed}",
    )
    return _line("tasks of a graph", tasks, [_ours(job, tasks), peer], rounds)


def _line(family: str, x: int, cases: Sequence[Case], rounds: int) -> Contest:
    return Contest(
        group="memory",
        title=f"{x:,} {family}",
        items=x,
        cases=cases,
        rounds=rounds,
        warm_up=False,
        family=f"{family}, 2 threads",
        x=x,
        note=LINES,
    )


def _ours(job: Path, attempts: int) -> Case:
    return Case(name="jobrunner", argv=jobs.python("peak.py", job), check=_succeeded(attempts), at=TOLD)


def _fan_out(scratch: Path, items: int) -> Path:
    return pools.job(scratch, "thread_pool", _work(items))


def _work(items: int) -> Work:
    return replace(calls.NOTHING, calls=items)


def _succeeded(attempts: int, then: Callable[[dict[str, Any]], None] = lambda told: None) -> Callable[[str], str | None]:
    """The check that so many attempts succeeded, as peers/peak.py tells."""

    def check(printed: str) -> str | None:
        told = json.loads(printed)
        then(told)
        return None if told["succeeded"] == attempts else f"{told['succeeded']} of {attempts} attempts succeeded"

    return check
