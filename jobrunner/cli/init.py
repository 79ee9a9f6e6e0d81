"""`init`: a first job file, or one for each line of a crontab."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import click

from jobrunner.errors import JobFileError, UsageError


@click.command(short_help="Write a first job file, or job files from a crontab.")
@click.argument("file", type=click.Path(), required=False)
@click.option(
    "--from-crontab", "crontab", type=click.File("rb"), metavar="CRONTAB", help="A crontab to turn into job files; - is stdin."
)
@click.option("--system", "is_system", is_flag=True, help="The crontab names a user in each line, as /etc/crontab does.")
@click.option("--into", type=click.Path(file_okay=False), metavar="DIR", help="Folder of the job files; made when missing.")
def init(file: str | None, crontab: IO[bytes] | None, is_system: bool, into: str | None) -> int:
    """Write a small job file that is valid and runs (FILE, else job.yaml), with a schema by which editors complete it.

    With --from-crontab: one job file with its schedule for each line of a crontab. Nothing is ever overwritten.
    Exits 2 if something was not written.

    \b
    jobrunner init                                     writes job.yaml
    jobrunner init backup.yaml
    crontab -l | jobrunner init --from-crontab -       one file a line, here
    jobrunner init --from-crontab /etc/crontab --system --into jobs
    """
    if crontab is None:
        if is_system or into is not None:
            raise click.UsageError("--system and --into belong to --from-crontab.")
        _start(Path(file or "job.yaml"))
        return 0
    if file is not None:
        raise click.UsageError("--from-crontab names the files itself: leave FILE out, or say --into DIR.")
    return _turn(_text_of(crontab), Path(into or "."), is_system=is_system)


def _start(path: Path) -> None:
    from jobrunner import starter

    _make(path.parent)
    starter.refuse_existing(path)
    starter.write_job(path, starter.starter_text(str(path), starter.schema_beside(path.parent.resolve())))
    click.echo(f"{path}: written. Run it: jobrunner {path}")


def _text_of(crontab: IO[bytes]) -> str:
    try:
        source = crontab.read()
    except OSError as error:
        raise UsageError(f"{crontab.name}: the crontab cannot be read: {error.strerror or error}") from None
    return source.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def _turn(text: str, folder: Path, *, is_system: bool) -> int:
    """One job file for each entry; what cannot be turned or written is told with its line."""
    from jobrunner import crontab, starter

    entries, refused = crontab.parse(text, is_system=is_system)
    if not entries and not refused:
        raise UsageError("the crontab starts nothing: it has no line with a time and a command")
    schema = ""
    for name, entry in crontab.named(entries):
        path = folder / f"{name}.yaml"
        try:
            if not schema:
                _make(folder)
                schema = starter.schema_beside(folder.resolve())
            starter.write_job(path, crontab.job_text(entry, name, schema))
        except (UsageError, JobFileError) as error:
            refused.append(crontab.Refused(line=entry.line, why=_why(error)))
        else:
            click.echo(f"{path}: line {entry.line}, {entry.cron or '@reboot'}")
    for each in sorted(refused, key=lambda each: each.line):
        click.echo(f"line {each.line}: {each.why}", err=True)
    return 2 if refused else 0


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: the folder cannot be made: {error.strerror or error}") from None


def _why(error: UsageError | JobFileError) -> str:
    if isinstance(error, UsageError):
        return str(error)
    return "; ".join(f"{problem.message} {problem.hint}".rstrip() for problem in error.problems)
