"""Reading a very large job file: load, check and validate, against YAML loaders that only load."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from benchmarks import jobs
from benchmarks.environments import environment
from benchmarks.measure import Case, Contest
from benchmarks.process import ROOT, Check

TASK = """\
  task_{n:06d}:
    needs: [task_{before:06d}]
    argv: [process-one, --input, "/data/in/{n:06d}.csv"]
"""
CHANGED = """\
Ours is the whole command, `jobrunner validate`; the others only make lists and mappings of the file. The file is changed before
each reading by ours, so that nothing kept of an earlier one is of use. Hoped for: 3 s for 100,000 tasks."""
KEPT = (
    "Unchanged: what was kept of an earlier reading may be used. Changed: the same command after the file has got another line."
)


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """100,000 tasks, each needing the one before it: 11 MB of YAML; loaders in Python get a tenth of it."""
    tasks, rounds = (10_000, 3) if quick else (100_000, 5)
    found = [_first(scratch, tasks, rounds), _slow(scratch, tasks // 10)]
    return found if quick else [*found, _again(scratch, tasks, rounds)]


def write_tasks(path: Path, tasks: int) -> Path:
    """A chain of `tasks` tasks. Written line by line: this process is to stay small."""
    with path.open("w", encoding="utf-8") as file:
        file.write('name: reading\ntasks:\n  task_000000:\n    argv: ["true"]\n')
        file.writelines(TASK.format(n=n, before=n - 1) for n in range(1, tasks))
    return path


def _first(scratch: Path, tasks: int, rounds: int) -> Contest:
    job = write_tasks(scratch / "first.yaml", tasks)
    cases = [
        _ours(job),
        _loader("CSafeLoader", job, tasks),
        _loader("CSafeLoader, collector off", job, tasks),
    ]
    title = f"reading {_size(job, tasks)}"
    return _contest("reading", title, tasks, cases, rounds, warm_up=False, note=CHANGED)


def _slow(scratch: Path, tasks: int) -> Contest:
    """Loaders written in Python. ruamel's own keeps comments and positions; its safe one does not."""
    job = write_tasks(scratch / "slow.yaml", tasks)
    cases = [_ours(job), _loader("SafeLoader", job, tasks)]
    if found := environment("ruamel"):
        ruamel = [("ruamel safe, pure", "ruamel.yaml, safe"), ("ruamel round trip", "ruamel.yaml, round trip")]
        cases += [_loader(way, job, tasks, python=found.python, label=label) for way, label in ruamel]
    title = f"reading {_size(job, tasks)}: loaders in Python"
    return _contest("reading-slow", title, tasks, cases, 3, warm_up=False, note=CHANGED)


def _again(scratch: Path, tasks: int, rounds: int) -> Contest:
    """The whole command, on a file that did not change since it was read, and on one that did."""
    kept, changed = (write_tasks(scratch / f"{name}.yaml", tasks) for name in ("kept", "changed"))
    checks = {"validate": _valid, "plan": _planned(tasks)}
    cases = [
        case
        for command, check in checks.items()
        for case in (
            Case(name=f"jobrunner {command}, unchanged", argv=_command(command, kept), check=check),
            Case(
                name=f"jobrunner {command}, changed",
                argv=_command(command, changed),
                check=check,
                prepare=partial(_change, changed),
            ),
        )
    ]
    title = f"reading {_size(kept, tasks)} again"
    return _contest("reading-again", title, tasks, cases, rounds, note=KEPT)


def _contest(key: str, title: str, tasks: int, cases: list[Case], rounds: int, *, note: str, warm_up: bool = True) -> Contest:
    return Contest(group="yaml", key=key, title=title, items=tasks, cases=cases, rounds=rounds, warm_up=warm_up, note=note)


def _valid(printed: str) -> str | None:
    return None if printed.rstrip().endswith(": valid") else f"printed {printed[:200]!r}"


def _planned(tasks: int) -> Check:
    """The check that every task is in the plan."""

    def check(printed: str) -> str | None:
        found = sum(1 for line in printed.splitlines() if ". task_" in line)
        return None if found == tasks else f"{found} of {tasks} tasks are in the plan"

    return check


def _size(job: Path, tasks: int) -> str:
    return f"{tasks:,} tasks, {job.stat().st_size / 1e6:.1f} MB"


def _ours(job: Path) -> Case:
    return Case(
        name="jobrunner: load, check, validate",
        argv=_command("validate", job),
        check=_valid,
        prepare=partial(_change, job),
    )


def _loader(way: str, job: Path, tasks: int, *, python: str = sys.executable, label: str = "") -> Case:
    return Case(
        name=f"{label or f'yaml.{way}'}: load only",
        argv=[python, str(ROOT / "benchmarks" / "peers" / "read_yaml.py"), str(job), way],
        check=jobs.printed(str(tasks)),
    )


def _command(name: str, job: Path) -> list[str]:
    return [sys.executable, "-m", "jobrunner", name, str(job)]


def _change(job: Path) -> None:
    """Another empty line at its end: the same job, other bytes."""
    with job.open("a", encoding="utf-8") as file:
        file.write("\n")
