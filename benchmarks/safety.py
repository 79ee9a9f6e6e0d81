"""What safety costs: the guard at the start of a run, and a journal that outlasts a loss of power."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import jobs
from benchmarks.measure import Case, Contest

ONE = """\
name: guarded
tasks:
  only: {argv: ["true"]}
"""
FAN_OUT = """\
name: fan-out
mode: process_pool
workers: 4
tasks:
  each:
    foreach: {{range: {items}}}
    target: "work_items:rest"
    args: ["${{{{ item }}}}"]
"""
LAYER = """\
  layer_{layer}:
    {needs}foreach: {{range: 100}}
    target: "work_items:rest"
    args: ["${{{{ item }}}}"]
"""
# As `jobrunner` starts the engine, but in the process itself.
UNGUARDED = """\
import gc, os, sys
gc.disable()
from jobrunner.cli.main import cli
code = cli(sys.argv[1:])
sys.stdout.flush()
os._exit(code)
"""


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """A run with and without its guard; 10,000 tasks of 10 ms with records on disk, and in the memory of the system."""
    items = 500 if quick else 10_000
    layers = items // 100
    layered = "name: layered\nmode: process_pool\nworkers: 4\ntasks:\n" + "".join(_layer(number) for number in range(layers))
    rounds = 3
    return [
        _guard(scratch, quick=quick),
        _durability(scratch, "durability", "fan-out", FAN_OUT.format(items=items), items, f"{items:,} items of 10 ms", rounds),
        _durability(
            scratch,
            "durability-layers",
            "layered",
            layered,
            items,
            f"{layers} layers of 100 tasks of 10 ms, each after the one before",
            rounds,
        ),
    ]


def _layer(number: int) -> str:
    return LAYER.format(layer=number, needs=f"needs: [layer_{number - 1}]\n    " if number else "")


def _guard(scratch: Path, *, quick: bool) -> Contest:
    job = jobs.write_job(scratch, "guarded", ONE)
    command = jobs.command(job)
    cases = [
        Case(name="jobrunner", argv=command, check=jobs.logged(job, 1)),
        Case(
            name="the engine without a guard",
            argv=[sys.executable, "-c", UNGUARDED, *command[3:]],
            check=jobs.logged(job, 1),
        ),
    ]
    return Contest(group="safety", key="guard", title="guard, one command", items=1, cases=cases, rounds=5 if quick else 41)


def _durability(scratch: Path, key: str, name: str, text: str, items: int, title: str, rounds: int) -> Contest:
    job = jobs.write_job(scratch, name, text)
    cases = [
        Case(name="jobrunner --durability disk", argv=jobs.command(job), check=jobs.logged(job, items)),
        Case(
            name="jobrunner --durability process",
            argv=[*jobs.command(job), "--durability", "process"],
            check=jobs.logged(job, items),
        ),
    ]
    return Contest(group="safety", key=key, title=title, items=items, cases=cases, rounds=rounds, warm_up=False)
