"""`jobrunner run`: the job is run, the log goes to stderr, what tasks print and the summary to stdout."""

from __future__ import annotations

import contextlib
import gc
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

import click

from jobrunner.cli.options import durability_option, options, run_options
from jobrunner.events import Sink
from jobrunner.outlet import Outlet
from jobrunner.sinks.log import FORMATS, LEVELS, log_sink
from jobrunner.sinks.output import terminal_sink
from jobrunner.sinks.summary import Summary
from jobrunner.structs import replace

if TYPE_CHECKING:
    from jobrunner.api import Prepared, RunResult

Command = TypeVar("Command", bound=Callable[..., Any])

_PATIENCE = 1.0
"""Seconds for a reader of stdout that stalls to take the summary."""

_SHOWN = (
    click.option(
        "-q",
        "--quiet",
        is_flag=True,
        help="Print nothing unless the run fails, then the summary. --log-file gets its log all the same.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        default="auto",
        show_default=True,
        help="auto: console on a terminal, else json.",
    ),
    click.option("--log-level", type=click.Choice(tuple(LEVELS)), help="Least level that is logged.  [default: info]"),
    click.option("--log-file", type=click.Path(dir_okay=False), metavar="FILE", help="Append the log to FILE instead of stderr."),
)


def shown_options(command: Command) -> Command:
    """The options that decide what of a run is shown, and where: the keywords of `shown`."""
    for option in reversed(_SHOWN):
        command = option(command)
    return command


@click.command(short_help="Run a job file.")
@run_options
@click.option("-n", "--dry-run", is_flag=True, help="Show what would run, and run nothing (the same as `jobrunner plan`).")
@click.option("--resume", is_flag=True, help="Go on with the last run of this job if it was stopped or killed, else start.")
@durability_option
@shown_options
def run(
    dry_run: bool,
    resume: bool,
    durability: Literal["process", "disk"],
    quiet: bool,
    log_format: str,
    log_level: str | None,
    log_file: str | None,
    **given: Any,
) -> int:
    """Run a job file. The exit code is 0 only if every task succeeded, or its failure was allowed.

    \b
    jobrunner run job.yaml -j 4                        four workers in the default pool
    jobrunner run job.yaml --only report               one task, without what it needs
    jobrunner run job.yaml --resume                    go on where a run was cut off
    jobrunner run job.yaml -q --log-file job.jsonl     for cron: silent unless something fails
    jobrunner run job.yaml 2>&1 >/dev/null | jq .event every event by name
    """
    from jobrunner import api, compiled

    file = given.pop("file")
    wanted = replace(options(**given), resume=resume, durability=durability)
    prepared = api.prepare(file, wanted, read=None if dry_run else compiled.read)
    if dry_run:
        return _show_resume(prepared) if resume else _show_plan(prepared)
    return shown(prepared, quiet=quiet, log_format=log_format, log_level=log_level, log_file=log_file)


def shown(prepared: Prepared, *, quiet: bool, log_format: str, log_level: str | None, log_file: str | None) -> int:
    """Run what was prepared, with its log, output and summary where the options say. The exit code."""
    from jobrunner import api

    summary = Summary()
    sinks: list[Sink] = [summary]
    with _opened(log_file) as (log, display):
        if log_file or log_level or not quiet:
            sinks.append(log_sink(log, format=log_format, minimum=log_level or "info"))
        if not quiet:
            sinks.append(terminal_sink(display))
        _collect_garbage_again()
        result = api.run_prepared(prepared, sinks=sinks, outlets=[log] if log is display else [log, display])
        if not quiet or result.exit_code:
            display.write(_last_words(prepared, result, summary).encode("utf-8", "backslashreplace") + b"\n")
            display.finish(_PATIENCE)
    return result.exit_code


def _last_words(prepared: Prepared, result: RunResult, summary: Summary) -> str:
    if result.outcome == "skipped":
        return f"- {prepared.job.name}: not run, for it is running already (on_conflict: skip)"
    return summary.text(prepared.job.name)


def _show_resume(prepared: Prepared) -> int:
    """What `--resume` would do: go on with a run, or start one."""
    from jobrunner import forecast, rundir

    state = rundir.state_dir(os.environ)
    forecast.refuse_running(state, prepared.job.name)
    found = forecast.of_last_run(prepared, state)
    if found is None:
        return _show_plan(prepared)
    click.echo(forecast.text(found))
    return 0


def _show_plan(prepared: Prepared) -> int:
    from jobrunner.cli.inspect import plan_text

    click.echo(plan_text(prepared))
    return 0


def _collect_garbage_again() -> None:
    """The collector was off while modules were imported; forked workers get it as it is here. What lives now lives to the end."""
    gc.freeze()
    gc.enable()


@contextlib.contextmanager
def _opened(log_file: str | None) -> Iterator[tuple[Outlet, Outlet]]:
    """Where the log goes, and where all else does: one outlet where both are the same file, so that they keep their order."""
    if log_file is not None:
        with _appended(log_file) as file:
            yield Outlet(file, name="log", torn=_is_torn(file)), Outlet(sys.stdout.buffer, name="stdout")
    elif _is_same(sys.stdout.buffer, sys.stderr.buffer):
        both = Outlet(sys.stderr.buffer, name="log and stdout")
        yield both, both
    else:
        yield Outlet(sys.stderr.buffer, name="log"), Outlet(sys.stdout.buffer, name="stdout")


def _appended(log_file: str) -> BinaryIO:
    try:
        return open(log_file, "ab+", buffering=0, opener=_never_controlled)
    except OSError as error:
        raise click.BadParameter(f"cannot write {log_file}: {error.strerror}", param_hint="--log-file") from None


def _never_controlled(path: str, flags: int) -> int:
    """A terminal that is opened never becomes the controlling one of the engine, which leads a session: its hang-up is no HUP."""
    return os.open(path, flags | os.O_NOCTTY, 0o666)


def _is_torn(file: BinaryIO) -> bool:
    """Whether a full disk tore the last line of an earlier run."""
    found = os.fstat(file.fileno())
    return stat.S_ISREG(found.st_mode) and found.st_size > 0 and os.pread(file.fileno(), 1, found.st_size - 1) != b"\n"


def _is_same(one: BinaryIO, other: BinaryIO) -> bool:
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
