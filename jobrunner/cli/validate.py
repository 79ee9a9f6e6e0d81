"""`validate`: what can be said about job files without running them; with --imports, about what they call; with --fix, mended."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from jobrunner.errors import JobFileError, Problem
from jobrunner.structs import struct

if TYPE_CHECKING:
    from jobrunner.jobfile import JobFile
    from jobrunner.preflight.check import Noted

_OUTPUT_MARGIN = " " * 6 + "│ "


def _limit(_: click.Context, __: click.Parameter, seconds: float) -> float:
    if seconds != seconds:
        raise click.BadParameter("nan is not in the range 0<x<=3600.")
    return seconds


@click.command(short_help="Check job files, run nothing.")
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print the problems as a JSON list on stdout.")
@click.option(
    "--imports", is_flag=True, help="Import the targets too, in a process of its own, and compare them with their calls."
)
@click.option(
    "--import-timeout",
    type=click.FloatRange(min=0, min_open=True, max=3600),
    default=30.0,
    show_default=True,
    callback=_limit,
    metavar="SECONDS",
    help="With --imports: the longest that one module may take.",
)
@click.option("--strict", is_flag=True, help="Warnings are errors, and so is text that a shell reads unquoted.")
@click.option("--fix", is_flag=True, help="First mend in the files what has exactly one cure.")
def validate(files: tuple[str, ...], as_json: bool, imports: bool, import_timeout: float, strict: bool, fix: bool) -> int:
    """Check job files: every problem with its line and column, and what to write instead.

    Runs nothing. Imports nothing of yours either, unless --imports asks for it: then every target's module is imported, and does
    what it does when it is imported. Exits 2 if a file has a problem; warnings alone exit 0, unless --strict is given.

    \b
    jobrunner validate jobs/*.yaml
    jobrunner validate --imports jobs/*.yaml     are the targets there, do the arguments fit?
    jobrunner validate --strict --imports jobs/*.yaml                     in a build
    jobrunner validate --fix job.yaml            depends → needs, and the like
    jobrunner validate --json job.yaml | jq -r '.[] | "\\(.line): \\(.message)"'
    """
    if fix:
        _mend(files, told_on_stderr=as_json)
    checks = _Checks(import_timeout=import_timeout if imports else None, is_strict=strict)
    verdicts = [verdict for file in files for verdict in _verdicts(file, checks)]
    if as_json:
        click.echo(json.dumps([verdict.data() for verdict in verdicts], indent=2))
    else:
        _tell(verdicts, files)
    return 2 if any(verdict.is_error for verdict in verdicts) else 0


@struct
class _Checks:
    """What is looked for. `import_timeout` is in seconds; None: nothing is imported."""

    import_timeout: float | None
    is_strict: bool


@struct
class _Verdict:
    """A problem with its weight; `output` is what an import that failed has printed."""

    problem: Problem
    is_error: bool = True
    output: str = ""

    def data(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self.problem)
        severity = "error" if self.is_error else "warning"
        return {**fields, "severity": severity, **({"output": self.output} if self.output else {})}

    def __str__(self) -> str:
        problem = self.problem
        if not self.is_error:  # as compilers write it, so that editors find the place
            told = ": ".join(filter(None, ("warning", problem.path, problem.message)))
            problem = replace(problem, path="", message=told)
        return "\n".join([str(problem), *(_OUTPUT_MARGIN + line for line in self.output.splitlines())])


def _tell(verdicts: Sequence[_Verdict], files: Sequence[str]) -> None:
    for verdict in verdicts:
        click.echo(str(verdict), err=True)
    if not any(verdict.is_error for verdict in verdicts):
        count = len(verdicts)
        click.echo(f"{', '.join(files)}: valid" + (f", {count} warning{'s' * (count > 1)}" if count else ""))


def _mend(files: Iterable[str], *, told_on_stderr: bool) -> None:
    from jobrunner.jobfile.fix import fix_file

    for file in files:
        try:
            fixed = fix_file(file)
        except JobFileError:  # it cannot be read, as the check below will tell
            continue
        for change in fixed.changes:
            click.echo(f"{file}:{change}", err=told_on_stderr)
        if fixed.untried:
            message = f"{fixed.untried} more places were not tried: mend what is told below first, then run --fix again"
            click.echo(f"{file}: {message}", err=told_on_stderr)


def _verdicts(file: str, checks: _Checks) -> Iterator[_Verdict]:
    from jobrunner.jobfile import read

    try:
        job_file = read(file)
    except JobFileError as error:
        yield from (_Verdict(problem=problem) for problem in error.problems)
        return
    yield from _placed(job_file, list(_noted(job_file, checks)), checks)


def _noted(file: JobFile, checks: _Checks) -> Iterator[Noted]:
    from jobrunner.preflight import capacity

    beyond = list(capacity.find(file.job))
    if not (beyond or checks.is_strict or checks.import_timeout is not None):
        return
    from jobrunner.preflight import cautions, check

    yield from (check.Noted(finding=finding, is_warning=True) for finding in beyond)
    if checks.is_strict:
        yield from (check.Noted(finding=finding) for finding in cautions.find(file.job, file.path.parent, file.source))
    if checks.import_timeout is not None:
        yield from check.check(file, checks.import_timeout)


def _placed(file: JobFile, notes: Sequence[Noted], checks: _Checks) -> Iterator[_Verdict]:
    """The notes in file order. What a message says decides its weight and its output, so the one is found by the other."""
    from jobrunner.jobfile import placed

    if not notes:
        return
    by_message = {note.finding.message.rstrip("."): note for note in notes}
    are_warnings = all(note.is_warning for note in notes)
    for problem in placed(file, [note.finding for note in notes]):
        note = by_message.get(problem.message.rstrip("."))
        is_warning = note.is_warning if note else are_warnings  # there are too many to tell all
        yield _Verdict(problem=problem, is_error=checks.is_strict or not is_warning, output=note.output if note else "")
