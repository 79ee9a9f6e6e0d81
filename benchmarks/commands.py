"""Many short commands: against a loop that does nothing but spawn and wait, and against everything else that runs commands."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import jobs, tools
from benchmarks.measure import ROOT, Case, Contest, Goal, Measure
from benchmarks.tools import Work

LIMIT = Goal(ratio=1.25, stretch=1.15)
AHEAD = Goal(ratio=1)
OTHERS = ("just", "pypyr", "doit", "go-task")
FAMILY = "true, 2 at a time, as there are more of them"
SHELL_LINE = f"true && {tools.true()}"
SHELL = Goal(ratio=1.1, stretch=1)
NOTE = "jobrunner captures, logs and journals all the while; xargs, make and the limit capture nothing, xjobs keeps no record."


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """`true` many times, by two workers and by eight; a line with shell syntax; the slow tools, fewer times."""
    everywhere = ("xargs", "make", "ninja", "xjobs")
    if quick:
        wide = _few(scratch / "eight", 300, 8)
        shell = replace(_few(scratch / "shell", 300, 2), command=SHELL_LINE)
        return [
            _true(_few(scratch / "two", 1_000, 2), everywhere, 3),
            _true(wide, everywhere[:3], 3),
            _shell(shell, ("ninja",), 3),
        ]
    work = Work(folder=scratch / "two", command=tools.true(), items=10_000, workers=2)
    slow = replace(work, folder=scratch / "slow", items=500)
    slowest = replace(work, folder=scratch / "slowest", items=100)
    growing = [_true(replace(work, folder=scratch / f"{n}", items=n), (*everywhere, *OTHERS), 3) for n in (100, 1_000)]
    return [
        *(replace(each, family=FAMILY, x=each.items) for each in (*growing, _true(work, (*everywhere, *OTHERS), 5))),
        _true(replace(work, folder=scratch / "eight", workers=8), (*everywhere, *OTHERS), 5),
        _shell(replace(work, folder=scratch / "shell", command=SHELL_LINE), ("ninja", "make", "just"), 5),
        _contest(slow, [tools.ours(slow), *_peers(slow, ("parallel", "luigi", "dagu"))], 3),
        _contest(slowest, [tools.ours(slowest), *_peers(slowest, ("snakemake", "prefect"))], 1),
    ]


def _few(folder: Path, items: int, workers: int) -> Work:
    """For the quick form: a tenth of it is proven."""
    return Work(folder=folder, command=tools.true(), items=items, workers=workers, proven=items // 10)


def _true(work: Work, names: Sequence[str], rounds: int) -> Contest:
    return _contest(work, [tools.ours(work, single=True), *limits(work), *_peers(work, names)], rounds)


def _shell(work: Work, names: Sequence[str], rounds: int) -> Contest:
    return _contest(work, [tools.ours(work, "run", single=True), *_peers(work, names)], rounds)


def _contest(work: Work, cases: Sequence[Case], rounds: int) -> Contest:
    what = "true" if work.command == tools.true() else "the shell line `true && …`"
    title = f"{work.items:,} × {what}, {work.workers} at a time"
    compares: Measure = "item" if work.proven else "wall"  # few items: to start takes longer than all of them
    return Contest(group="commands", title=title, items=work.items, cases=cases, rounds=rounds, compares=compares, note=NOTE)


def _peers(work: Work, names: Sequence[str]) -> list[Case]:
    """Those that are to be had; whoever has a shell for it gets the shell's goal."""
    is_shell = work.command != tools.true()
    goals = {"ninja": SHELL} if is_shell else dict.fromkeys(("xargs", "make", "ninja"), AHEAD)
    found = (tools.case(name, work, goal=goals.get(name), single=True) for name in names)
    return [case for case in found if case]


def limits(work: Work) -> list[Case]:
    """The bare loop, and what a script would do."""
    loop, title = _spawn_loop(work.folder)
    in_threads = jobs.python("subprocess_threads.py")
    return [
        _counted(f"limit: {title}", loop, work, goal=LIMIT, is_floor=True),
        _counted("subprocess.run in threads", in_threads, work),
    ]


def _counted(name: str, start: Sequence[str], work: Work, *, goal: Goal | None = None, is_floor: bool = False) -> Case:
    """A program of ours that is told how many, how wide and what, and prints how many succeeded."""

    def command(asked: Work) -> list[str]:
        return [*start, str(asked.items), str(asked.workers), asked.command]

    work = replace(work, folder=work.folder / name.partition(" ")[0].strip(":"))
    return Case(
        name=name,
        argv=command(work),
        check=jobs.printed(str(work.items)),
        goal=goal,
        single=command(replace(work, items=1)),
        proof=tools.proof(work, command),
        is_floor=is_floor,
    )


def _spawn_loop(folder: Path) -> tuple[Sequence[str], str]:
    """The bare loop, compiled where there is a compiler."""
    if not (compiler := shutil.which("cc")):
        return jobs.python("spawn_loop.py"), "os.posix_spawn loop (Python: no C compiler here)"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "spawn_loop"
    subprocess.run([compiler, "-O2", "-o", program, ROOT / "benchmarks" / "peers" / "spawn_loop.c"], check=True)
    return [str(program)], "posix_spawn loop in C"
