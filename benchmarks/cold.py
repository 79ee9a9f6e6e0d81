"""Cold start: one job with one command, seen for the first time or unchanged since, against scripts and every other tool."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import jobs, tools
from benchmarks.measure import Case, Contest, Twin
from benchmarks.tools import Work

JOB = """\
name: cold
tasks:
  only: {{argv: ["{command}"]}}
"""
FAST = ("doit", "pypyr", "go-task", "make", "ninja", "just", "invoke", "poe", "parallel", "dagu")
SLOW = ("nox", "luigi")
SLOWEST = ("snakemake", "prefect")
NOTE = """\
One job of one command, `true`, from the start of the process to its end. First sight: the job file changes before
each run of ours; unchanged: it does not. The script does by hand what the job asks for, with the libraries that jobrunner has."""


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """One job, one `true`."""
    rounds = 5 if quick else 21
    plain = _plain()
    slow = [_unchanged(scratch / "slowest"), *([] if quick else _peers(scratch, SLOWEST))]
    return [
        _contest(
            "first-sight",
            "cold start, first sight of the job file",
            [_first_sight(scratch / "first"), *_scripts(scratch / "fresh"), plain],
            rounds,
        ),
        _contest(
            "unchanged",
            "cold start, job file unchanged",
            [
                _unchanged(scratch / "unchanged"),
                *_peers(scratch, FAST if quick else FAST + SLOW),
                *_scripts(scratch),
                plain,
            ],
            rounds,
        ),
        *([_contest("slowest", "cold start, the slowest", slow, 3)] if len(slow) > 1 else []),
    ]


def _contest(key: str, title: str, cases: list[Case], rounds: int) -> Contest:
    return Contest(group="cold", key=key, title=title, items=1, cases=cases, rounds=rounds, note=NOTE)


def _first_sight(folder: Path) -> Case:
    """A job file that nobody has seen: another content each time, so that nothing that was kept of it fits."""
    job = _write(folder, tools.true())
    return Case(
        name="jobrunner, first sight",
        argv=jobs.command(job),
        check=jobs.logged(job, 1),
        proof=_proof(folder),
        prepare=_rewrite(job, itertools.count()),
    )


def _rewrite(job: Path, numbers: itertools.count[int]) -> Callable[[], None]:
    def prepare() -> None:
        job.write_text(
            f"# {next(numbers)}\n{JOB.format(command=tools.true())}description: number {next(numbers)}\n", encoding="utf-8"
        )

    return prepare


def _unchanged(folder: Path) -> Case:
    """The second and every later run of the same file: the first was the warm-up."""
    job = _write(folder, tools.true())
    once = Twin(argv=jobs.command(job), check=jobs.logged(job, 1))
    return Case(name="jobrunner, unchanged", argv=jobs.command(job), check=jobs.logged(job, 1), proof=once)


def _proof(folder: Path) -> Twin:
    program = tools.mark(folder / "proof")
    return Twin(argv=jobs.command(_write(folder / "proof", str(program))), check=tools.marked(program, 1))


def _write(folder: Path, command: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return jobs.write_job(folder, "cold", JOB.format(command=command))


def _scripts(scratch: Path) -> list[Case]:
    """What a script with the same libraries takes: plain, and as lean as it gets."""
    return [
        _script(scratch / "script", "cold_script.py", "script: YAML, pydantic, structlog, one spawn"),
        _script(scratch / "lean", "cold_lean.py", "the same script, lean"),
    ]


def _script(folder: Path, name: str, title: str) -> Case:
    job = _write(folder, tools.true())
    program = tools.mark(folder / "proof")
    proven = _write(folder / "proof", str(program))
    return Case(
        name=title,
        argv=jobs.python(name, job, folder / "log"),
        check=jobs.printed("0"),
        proof=Twin(argv=jobs.python(name, proven, folder / "log"), check=tools.marked(program, 1)),
    )


def _plain() -> Case:
    return Case(name="python -c pass", argv=[sys.executable, "-c", "pass"], check=jobs.printed(""), is_floor=True)


def _peers(scratch: Path, names: tuple[str, ...]) -> list[Case]:
    work = Work(folder=scratch / "peers", command=tools.true(), items=1, workers=1)
    return [case for name in names if (case := tools.case(name, work))]
