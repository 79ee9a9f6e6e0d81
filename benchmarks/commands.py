"""Many short commands: against a loop that does nothing but spawn and wait, and against everything else that runs commands."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import jobs, tools
from benchmarks.measure import Case, Contest, Twin
from benchmarks.process import ROOT
from benchmarks.tools import Work

BARRED = ("xargs", "make", "ninja")
EVERYBODY = (*BARRED, "xjobs", "just", "pypyr", "doit", "go-task")
FAMILY = "commands that do nothing, 2 at a time"
SHELL_LINE = f"true && {tools.true()}"
NOTE = """\
jobrunner captures, logs and journals all the while; xargs, make and the limit capture nothing, xjobs keeps no record. The limit
is a program in C where there is a compiler."""


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """`true` many times, by two workers and by eight; a line with shell syntax; the slow tools, fewer times."""
    work = Work(folder=scratch / "two", command=tools.true(), items=10_000, workers=2, proven=100 if quick else 1_000)
    eight = replace(work, folder=scratch / "eight", workers=8)
    shell = replace(work, folder=scratch / "shell", command=SHELL_LINE, items=5_000)
    if quick:
        found = [
            _true("true-2", replace(work, items=1_000), BARRED, 3),
            _true("true-8", replace(eight, items=600), BARRED, 3),
            _shell(replace(shell, items=300), ("ninja",), 3),
        ]
        return [replace(each, compares="item") for each in found]  # to start takes as long as a good part of the few
    growing = [_true(f"true-2-{n}", replace(work, folder=scratch / f"{n}", items=n), EVERYBODY, 3) for n in (100, 1_000)]
    return [
        *(replace(each, family=FAMILY, x=each.items) for each in (*growing, _true("true-2", work, EVERYBODY, 5))),
        _true("true-8", eight, BARRED, 5),
        _shell(shell, ("ninja", "make", "just"), 5),
        *_slow("slow", replace(work, folder=scratch / "slow", items=500), ("parallel", "luigi", "dagu")),
        *_slow("slowest", replace(work, folder=scratch / "slowest", items=100), ("snakemake", "prefect"), 1),
    ]


def _true(key: str, work: Work, names: Sequence[str], rounds: int) -> Contest:
    return _contest(key, work, [tools.ours(work, single=True), *limits(work), *_peers(work, names)], rounds)


def _shell(work: Work, names: Sequence[str], rounds: int) -> Contest:
    return _contest("shell", work, [tools.ours(work, "run", single=True), *_peers(work, names)], rounds)


def _slow(key: str, work: Work, names: Sequence[str], rounds: int = 3) -> list[Contest]:
    """None where no such tool is to be had."""
    peers = _peers(work, names)
    return [_contest(key, work, [tools.ours(work, single=True), *peers], rounds)] if peers else []


def _contest(key: str, work: Work, cases: Sequence[Case], rounds: int) -> Contest:
    what = "true" if work.command == tools.true() else "the shell line `true && …`"
    return Contest(
        group="commands",
        key=key,
        title=f"{work.items:,} × {what}, {work.workers} at a time",
        items=work.items,
        cases=cases,
        rounds=rounds,
        note=NOTE,
    )


def _peers(work: Work, names: Sequence[str]) -> list[Case]:
    """Those that are to be had."""
    return [case for name in names if (case := tools.case(name, work, single=True))]


def limits(work: Work) -> list[Case]:
    """The bare loop, and what a script would do."""
    in_threads = jobs.python("subprocess_threads.py")
    return [
        _counted("limit: bare posix_spawn loop", _spawn_loop(work.folder), work, is_floor=True),
        _counted("subprocess.run in threads", in_threads, work),
    ]


def _counted(name: str, start: Sequence[str], work: Work, *, is_floor: bool = False) -> Case:
    """A program of ours that is told how many, how wide and what, and prints how many succeeded."""

    def command(asked: Work) -> list[str]:
        return [*start, str(asked.items), str(asked.workers), asked.command]

    work = replace(work, folder=work.folder / name.partition(" ")[0].strip(":"))
    return Case(
        name=name,
        argv=command(work),
        check=jobs.printed(str(work.items)),
        single=Twin(argv=command(replace(work, items=1)), check=jobs.printed("1")),
        proof=tools.proof(work, command),
        is_floor=is_floor,
    )


def _spawn_loop(folder: Path) -> Sequence[str]:
    """The bare loop: in C where there is a compiler, else in Python, which takes some per cent more."""
    if not (compiler := shutil.which("cc")):
        return jobs.python("spawn_loop.py")
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "spawn_loop"
    subprocess.run([compiler, "-O2", "-o", program, ROOT / "benchmarks" / "peers" / "spawn_loop.c"], check=True)
    return [str(program)]
