"""A graph of tasks that do nothing, each needing two of the layer before: how fast plan, log and journal go through it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import jobs, layers
from benchmarks.environments import environment
from benchmarks.measure import Case, Contest
from benchmarks.process import ROOT, Check, Surroundings

PEERS = ROOT / "benchmarks" / "peers"
TOLD = Surroundings(told=json.loads)
Peer = Callable[[Path, int], Case | None]
Plan = Mapping[str, tuple[int, str, Sequence[Peer], int]]
LOADED = "from a loaded job to its end"
WHOLE = "whole processes, from the file"
SMALLER = f"{WHOLE}; slow peers: a smaller graph"
NOTE = """\
Layers of 100 tasks that do nothing, two workers. ninja, make, just and go-task run no task: they walk the graph. dagu starts
`true` for each, snakemake touches a file, all others call a function. The job file has not changed since the run before."""


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """The graph in full from a loaded job, then whole processes; peers that would take minutes have smaller ones of their own."""
    full = 3_000 if quick else 100_000
    middle, small, least = (1_000, 200, 50) if quick else (10_000, 1_000, 100)
    plan: Plan = {
        "graph-loaded": (full, LOADED, (_standard_library,), 7),
        "graph": (full, WHOLE, (_doit, _dask, _ninja, _make, _just), 5),
        "graph-smaller": (middle, SMALLER, (_go_task,), 3),
        "graph-small": (small, SMALLER, (_luigi, _dagu), 3),
        "graph-least": (least, SMALLER, (_snakemake,), 3),
    }
    found = [_contest(scratch / key, key, *rest) for key, rest in plan.items()]
    several = [contest for contest in found if len(contest.cases) > 1]
    return [replace(contest, rounds=3 if contest.items > least else 1) for contest in several] if quick else several


def write(folder: Path, tasks: int) -> Path:
    """Every tool's file of that graph, and the module that the targets are in; the job file's path."""
    for name, lines in layers.WRITERS.items():
        layers.write(folder / name, lines(tasks))
    shutil.copy(ROOT / "benchmarks" / "work_items.py", folder)
    return folder / "job.yaml"


def _contest(folder: Path, key: str, tasks: int, what: str, peers: Sequence[Peer], rounds: int) -> Contest:
    job = write(folder, tasks)
    ours = _loaded(job, tasks) if what == LOADED else _whole(job, tasks)
    cases = [ours, *(case for peer in peers if (case := peer(folder, tasks)))]
    title = f"graph of {tasks:,} tasks, 2 needs each, {what}"
    return Contest(group="graph", key=key, title=title, items=tasks, cases=cases, rounds=rounds, note=NOTE)


def _loaded(job: Path, tasks: int) -> Case:
    argv = [sys.executable, str(PEERS / "run_loaded.py"), str(job)]
    return Case(name="jobrunner", argv=argv, check=jobs.logged(job, tasks), at=TOLD)


def _whole(job: Path, tasks: int) -> Case:
    return Case(name="jobrunner", argv=jobs.command(job), check=jobs.logged(job, tasks))


def _standard_library(folder: Path, tasks: int) -> Case | None:
    argv = [sys.executable, str(PEERS / "graphs.py"), "standard-library", str(tasks)]
    return Case(name="graphlib, ThreadPoolExecutor", argv=argv, check=_ran(tasks), at=TOLD)


def _library(name: str, label: str, folder: Path, tasks: int) -> Case | None:
    if (found := environment(name)) is None:
        return None
    return Case(name=label, argv=[found.python, str(PEERS / "graphs.py"), name, str(tasks)], check=_ran(tasks))


def _ran(tasks: int) -> Check:
    """The check that a script of peers/graphs.py ran every task."""

    def check(printed: str) -> str | None:
        ran = json.loads(printed)["ran"]
        return None if ran == tasks else f"{ran} of {tasks} tasks ran"

    return check


def _program(
    name: str,
    arguments: Sequence[str],
    folder: Path,
    tasks: int,
    *,
    label: str = "",
    check: Callable[[Path, int], Check] = lambda folder, tasks: jobs.printed("done"),
    env: Callable[[Path], Mapping[str, str]] = lambda folder: {},
    prepare: Callable[[Path], None] = lambda folder: None,
) -> Case | None:
    """A program in the folder of its file; None where it is not to be had."""
    if (found := environment(name)) is None:
        return None
    return Case(
        name=label or name,
        argv=[found.program(), *arguments],
        check=check(folder, tasks),
        at=Surroundings(folder=folder, env=env(folder)),
        prepare=partial(prepare, folder),
    )


def _home_of_dagu(folder: Path) -> dict[str, str]:
    return {"DAGU_HOME": str(folder / "dagu"), "HOME": str(folder / "dagu")}


def _without_files(folder: Path) -> None:
    """What snakemake has made: else it would have nothing to do."""
    for name in ("out", ".snakemake"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _without_database(folder: Path) -> None:
    for path in folder.glob(".doit*"):
        path.unlink()


def _touched(folder: Path, tasks: int) -> Check:
    def check(_: str) -> str | None:
        found = sum(1 for _ in (folder / "out").iterdir())
        return None if found == tasks else f"{found} of {tasks} files were made"

    return check


def _dagu_ended(folder: Path, tasks: int) -> Check:
    """Its exit code says whether a step failed; every step leaves a file of its output."""

    def check(_: str) -> str | None:
        found = len({path.name.partition(".")[0] for path in (folder / "dagu").rglob("t*.*")})
        return None if found == tasks else f"{found} of {tasks} steps left an output"

    return check


def _without_history(folder: Path) -> None:
    shutil.rmtree(folder / "dagu", ignore_errors=True)
    (folder / "dagu").mkdir()


_dask: Peer = partial(_library, "dask", "dask.threaded")
_luigi: Peer = partial(_library, "luigi", "luigi, in one process")
_ninja: Peer = partial(_program, "ninja", ["--quiet", "-j2", "all"])
_make: Peer = partial(_program, "make", ["-s", "-j2"])
_just: Peer = partial(_program, "just", [])
_go_task: Peer = partial(_program, "go-task", ["-C", "2", "all"])
_doit: Peer = partial(
    _program,
    "doit",
    ["-n", "2", "-P", "thread", "-r", "zero"],
    label="doit, 2 threads",
    check=lambda folder, tasks: jobs.printed(str(tasks)),
    prepare=_without_database,
)
_snakemake: Peer = partial(
    _program,
    "snakemake",
    ["-c", "2", "--quiet", "all"],
    check=_touched,
    prepare=_without_files,
)
_dagu: Peer = partial(
    _program,
    "dagu",
    ["start", "dagu.yaml"],
    check=_dagu_ended,
    env=_home_of_dagu,
    prepare=_without_history,
)
