"""Many short commands, two at a time, against xargs and against a loop that does nothing but spawn and wait."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks import jobs
from benchmarks.measure import ROOT, Case, Contest, Goal

JOB = """\
name: commands-{items}
workers: 2
tasks:
  each:
    foreach: {{range: {items}}}
    argv: ["true"]
"""


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """`true`, many times, by two workers; jobrunner captures output, logs and journals all the while."""
    items = 200 if quick else 2_000
    spawn, limit = _spawn_loop(scratch)
    cases = [
        _ours(scratch, items),
        Case(
            name=f"limit: {limit}",
            argv=[*spawn, str(items)],
            check=jobs.printed(str(items)),
            goal=Goal(ratio=1.25),
            single=[*spawn, "1"],
        ),
        *_xargs(scratch, items),
    ]
    return [Contest(group="commands", title=f"{items:,} × true, 2 at a time", items=items, cases=cases, rounds=3 if quick else 7)]


def _ours(scratch: Path, items: int) -> Case:
    many, one = (jobs.write_job(scratch, f"commands-{n}", JOB.format(items=n)) for n in (items, 1))
    return Case(name="jobrunner", argv=jobs.command(many), check=jobs.logged(many, items), single=jobs.command(one))


def _spawn_loop(scratch: Path) -> tuple[Sequence[str], str]:
    """The bare loop, compiled where there is a compiler."""
    if not (compiler := shutil.which("cc")):
        return jobs.python("spawn_loop.py"), "os.posix_spawn loop (Python: no C compiler here)"
    program = scratch / "spawn_loop"
    subprocess.run([compiler, "-O2", "-o", program, ROOT / "benchmarks" / "peers" / "spawn_loop.c"], check=True)
    return [str(program)], "posix_spawn loop in C"


def _xargs(scratch: Path, items: int) -> list[Case]:
    """xargs gives its item to the command as an argument; its exit code tells when one of them failed."""
    if not (program := shutil.which("xargs")):
        return []
    for count in (items, 1):
        (scratch / f"xargs-{count}").write_text("".join(f"{n}\n" for n in range(count)))
    command = [program, "-P2", "-n1", "-a"]
    return [
        Case(
            name="xargs -P2",
            argv=[*command, str(scratch / f"xargs-{items}"), "true"],
            check=jobs.printed(""),
            goal=Goal(ratio=1),
            single=[*command, str(scratch / "xargs-1"), "true"],
        )
    ]
