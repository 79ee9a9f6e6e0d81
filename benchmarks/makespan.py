"""How long runs take by the order in which ready work is taken: workflow traces, the real plan, and a clock that only counts.

    WfFormat ─▶ Job, seconds ─▶ Plan.take ─▶ ends, soonest first ─▶ Plan.apply …    makespan ÷ max(critical path, work ÷ workers)

Run with `python -m benchmarks.makespan`. The traces are made by the recipes of wfcommons (installed into an environment of its
own, pinned), or read with `--instances DIRECTORY`: measured runs, as https://github.com/wfcommons/WfInstances has them.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bars import LINES
from benchmarks.process import ROOT
from jobrunner.items import Items
from jobrunner.plan import Attempt, Plan
from jobrunner.plan.ranks import estimated, ranks, turns
from jobrunner.plan.rehearsal import Stage, better
from jobrunner.spec import Job
from jobrunner.work import Outcome, Result

WFCOMMONS = "wfcommons==1.6"
WORKERS = (2, 4, 8, 16, 32, 64)
SIZES = (100, 300, 1000)
NOISE = 0.3
BARS = LINES["makespan"]["makespan"]
"""In the order of `reached`."""
HEAD = ("workers", "order", "median", "mean", "95 %", "worst", "worst ÷ first in, first out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One workflow: what its tasks need, how many seconds they took, and which program they run."""

    name: str
    needs: Mapping[str, Sequence[str]]
    seconds: Mapping[str, float]
    programs: Mapping[str, str]

    @property
    def critical_path(self) -> float:
        return max(ranks(self.needs, self.seconds).values(), default=0.0)

    def bound(self, workers: int) -> float:
        """Seconds that no order can go below."""
        return max(self.critical_path, sum(self.seconds.values()) / workers)

    def job(self, *, in_order_of_arrival: bool = False) -> Job:
        """As a job of commands. A limit that never binds makes the plan take them in the order in which they became ready."""
        limits = {"limits": {"any": len(self.needs)}} if in_order_of_arrival else {}
        own = {"limits": ["any"]} if in_order_of_arrival else {}
        tasks = {name: {"argv": [self.programs[name]], "needs": needs, **own} for name, needs in self.needs.items()}
        return Job.model_validate({"name": "trace", "tasks": tasks, **limits})


Order = Callable[[Trace, int, random.Random], Mapping[str, int] | None]


def _by_history(known: Callable[[Trace, random.Random], dict[str, float]]) -> Order:
    """As a run does it (jobrunner/precedence.py)."""

    def order(trace: Trace, workers: int, rng: random.Random) -> Mapping[str, int]:
        seconds = estimated(trace.needs, known(trace, rng), kind=trace.programs.__getitem__)
        pools, sizes = dict.fromkeys(trace.needs, "default"), {"default": workers}
        return better(Stage(needs=trace.needs, seconds=seconds, pools=pools, workers=sizes), turns(trace.needs, seconds))

    return order


def _noisy(trace: Trace, rng: random.Random) -> dict[str, float]:
    return {name: seconds * rng.uniform(1 - NOISE, 1 + NOISE) for name, seconds in trace.seconds.items()}


def _half(trace: Trace, rng: random.Random) -> dict[str, float]:
    return {name: trace.seconds[name] for name in rng.sample(list(trace.needs), len(trace.needs) // 2)}


def _shuffled(trace: Trace, workers: int, rng: random.Random) -> dict[str, int]:
    return dict(zip(trace.needs, rng.sample(range(len(trace.needs)), len(trace.needs)), strict=True))


FIRST = "first in, first out"
MEANING = """\
What an order goes by. history: the seconds that tasks took before; ±30 %: seconds that are off by up to so much; half the tasks:
the others are estimated; declared: the place in the job file; random; first in, first out: when a task became ready. 1 is the
lower bound, which no order can beat."""
ORDERS: Mapping[str, Order] = {
    "history": _by_history(lambda trace, rng: dict(trace.seconds)),
    f"history, ±{NOISE * 100:g} %": _by_history(_noisy),
    "history of half the tasks": _by_history(_half),
    "declared": lambda trace, workers, rng: None,
    "random": _shuffled,
    FIRST: lambda trace, workers, rng: None,
}


def makespan(trace: Trace, job: Job, workers: int, order: Mapping[str, int] | None) -> float:
    """Seconds from start to end with the real plan; what runs takes what the trace says."""
    plan = Plan(job, pools={"default": workers}, expand=_no_items, turns=order, keeps=lambda name: False)
    now, running = 0.0, list[tuple[float, int, Attempt]]()
    while not plan.done:
        for attempt in plan.take(now):
            heapq.heappush(running, (now + trace.seconds[attempt.task], attempt.id, attempt))
        now, _, ended = heapq.heappop(running)
        plan.apply(ended, Result(id=ended.id, outcome=Outcome.SUCCEEDED), now)
    return now


def _no_items(plan: Plan, name: str) -> Items:
    raise AssertionError(f"{name} has no items")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One simulation: the makespan over the lower bound."""

    trace: str
    workers: int
    order: str
    ratio: float


def simulated(traces: Sequence[Trace], say: Callable[[str], None] = lambda text: None) -> Iterator[Found]:
    """Every trace with every order and number of workers. Random numbers hang on the trace alone."""
    for trace in traces:
        say(trace.name)
        declared, arrival = trace.job(), trace.job(in_order_of_arrival=True)
        for name, order in ORDERS.items():
            for workers in WORKERS:
                given = order(trace, workers, random.Random(trace.name))
                took = makespan(trace, arrival if name == FIRST else declared, workers, given)
                yield Found(trace=trace.name, workers=workers, order=name, ratio=took / trace.bound(workers))


def rows(found: Sequence[Found]) -> list[tuple[str, ...]]:
    """The cells below HEAD: each order at each number of workers, and over all."""
    first = {(each.trace, each.workers): each.ratio for each in found if each.order == FIRST}
    return [_row(found, order, workers, first) for order in ORDERS for workers in (*WORKERS, None)]


def _row(found: Sequence[Found], order: str, workers: int | None, first: Mapping[tuple[str, int], float]) -> tuple[str, ...]:
    chosen = [each for each in found if each.order == order and workers in (None, each.workers)]
    ratios = sorted(each.ratio for each in chosen)
    against = max(each.ratio / first[each.trace, each.workers] for each in chosen)
    figures = (statistics.median(ratios), statistics.fmean(ratios), ratios[int(0.95 * (len(ratios) - 1))], ratios[-1], against)
    return ("all" if workers is None else str(workers), order, *(f"{figure:.3f}" for figure in figures))


# --- traces ---------------------------------------------------------------------------------------------------------------------


def read(path: Path, name: str) -> Trace | None:
    """A trace in WfFormat 1.4 or 1.5; None where it is none, or says nothing of durations."""
    try:
        workflow = json.loads(path.read_bytes())["workflow"]
        tasks = workflow["specification"]["tasks"] if "specification" in workflow else workflow["tasks"]
        ran = {each["id"]: each for each in workflow.get("execution", workflow)["tasks"]}
        named = {each["id"]: f"task_{number}" for number, each in enumerate(tasks)}
        return _trace(name, tasks, ran, named)
    except (KeyError, TypeError, ValueError):
        return None


def _trace(name: str, tasks: Sequence[Any], ran: Mapping[str, Any], named: Mapping[str, str]) -> Trace | None:
    seconds = {own: float(ran[each]["runtimeInSeconds"]) for each, own in named.items()}
    if sum(seconds.values()) <= 0:
        return None
    return Trace(
        name=name,
        needs={named[each["id"]]: [named[parent] for parent in dict.fromkeys(each.get("parents", ()))] for each in tasks},
        seconds=seconds,
        programs={own: str(ran[each].get("command", {}).get("program") or "true") for each, own in named.items()},
    )


def read_all(folder: Path) -> list[Trace]:
    found = (read(path, str(path.relative_to(folder).with_suffix(""))) for path in sorted(folder.rglob("*.json")))
    return [trace for trace in found if trace is not None]


def made(folder: Path, sizes: Sequence[int]) -> list[Trace]:
    """The traces that the recipes of wfcommons make, in an environment of its own below `folder`."""
    python = folder / "environment" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "environment")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", WFCOMMONS], check=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        script = ROOT / "benchmarks" / "peers" / "write_traces.py"
        subprocess.run([str(python), str(script), scratch, *map(str, sizes)], check=True, stderr=subprocess.DEVNULL)
        return read_all(Path(scratch))


# --- the command ----------------------------------------------------------------------------------------------------------------


def main() -> int:
    """0: history keeps to the goals; 1: it does not."""
    chosen = _arguments()
    if chosen.instances:
        traces = read_all(chosen.instances)
    else:
        chosen.cache.mkdir(parents=True, exist_ok=True)
        traces = made(chosen.cache, SIZES[:1] if chosen.quick else SIZES)
    found = list(simulated(traces, _say))
    _say("")
    if chosen.json:
        print(json.dumps([[each.trace, each.workers, each.order, round(each.ratio, 4)] for each in found]))
    elif chosen.page:
        printed = "\n".join([title(traces), "", markdown([HEAD, *rows(found)]), "", MEANING])
        print(json.dumps({"printed": printed, "figures": dict(zip(BARS, reached(found), strict=True))}))
    else:
        print(title(traces), "", (markdown if chosen.markdown else plain)([HEAD, *rows(found)]), sep="\n")
    return 0 if is_met(found) else 1


def is_met(found: Sequence[Found]) -> bool:
    """Whether history keeps to the goals: in the median near the lower bound, nowhere much worse than first in, first out."""
    return all(goal.is_met(ratio=figure) for figure, goal in zip(reached(found), BARS.values(), strict=True))


def reached(found: Sequence[Found]) -> tuple[float, float]:
    """With history: the median over the lower bound, and the worst over first in, first out."""
    first = {(each.trace, each.workers): each.ratio for each in found if each.order == FIRST}
    ours = [each for each in found if each.order == "history"]
    return (
        statistics.median(each.ratio for each in ours),
        max(each.ratio / first[each.trace, each.workers] for each in ours),
    )


def title(traces: Sequence[Trace]) -> str:
    tasks = sorted(len(trace.needs) for trace in traces)
    return (
        f"{len(traces)} workflows of {tasks[0]} to {tasks[-1]} tasks (median {statistics.median(tasks):.0f}):"
        " makespan ÷ max(critical path, work ÷ workers)"
    )


def plain(table: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)


def markdown(table: Sequence[Sequence[str]]) -> str:
    rule = ["---:", "---", *["---:"] * (len(HEAD) - 2)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [table[0], rule, *table[1:]])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.makespan", description="How long runs take by their order.")
    parser.add_argument("--instances", type=Path, metavar="DIRECTORY", help="traces in WfFormat to read, instead of making some")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "jobrunner-benchmarks", metavar="DIRECTORY")
    parser.add_argument("--quick", action="store_true", help="few traces: to see that it works, not to quote")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="a table for the docs")
    form.add_argument("--json", action="store_true", help="every simulation, as JSON")
    form.add_argument("--page", action="store_true", help="the table and what the bars are about, as JSON")
    return parser.parse_args()


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
