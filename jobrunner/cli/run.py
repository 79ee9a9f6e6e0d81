"""`jobrunner run`: the job is run, the log goes to stderr, what tasks print and the summary to stdout."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import click

from jobrunner.cli.options import options, run_options
from jobrunner.events import Sink
from jobrunner.sinks.log import FORMATS, LEVELS, log_sink
from jobrunner.sinks.output import terminal_sink
from jobrunner.sinks.summary import Summary


@click.command(short_help="Run a job file.")
@run_options
@click.option("-n", "--dry-run", is_flag=True, help="Show what would run, and run nothing (the same as `jobrunner plan`).")
@click.option(
    "-q",
    "--quiet",
    is_flag=True,
    help="Print nothing unless the run fails, then the summary. --log-file gets its log all the same.",
)
@click.option(
    "--log-format", type=click.Choice(FORMATS), default="auto", show_default=True, help="auto: console on a terminal, else json."
)
@click.option("--log-level", type=click.Choice(tuple(LEVELS)), help="Least level that is logged.  [default: info]")
@click.option("--log-file", type=click.Path(dir_okay=False), metavar="FILE", help="Append the log to FILE instead of stderr.")
def run(dry_run: bool, quiet: bool, log_format: str, log_level: str | None, log_file: str | None, **given: Any) -> int:
    """Run a job file. The exit code is 0 only if every task succeeded, or its failure was allowed.

    \b
    jobrunner run job.yaml -j 4                        four workers in the default pool
    jobrunner run job.yaml --only report               one task, without what it needs
    jobrunner run job.yaml -q --log-file job.jsonl     for cron: silent unless something fails
    jobrunner run job.yaml 2>&1 >/dev/null | jq .event every event by name
    """
    from jobrunner import api

    prepared = api.prepare(given.pop("file"), options(**given))
    if dry_run:
        return _show_plan(prepared)
    summary = Summary()
    with _opened(log_file) as log:
        sinks: list[Sink] = [summary]
        if log_file or log_level or not quiet:
            sinks.append(log_sink(log, format=log_format, minimum=log_level or "info"))
        if not quiet:
            sinks.append(terminal_sink(sys.stdout.buffer))
        _collect_garbage_again()
        result = api.run_prepared(prepared, sinks=sinks)
    if not quiet or result.exit_code:
        _say(summary.text(prepared.job.name))
    return result.exit_code


def _show_plan(prepared: Any) -> int:
    from jobrunner.cli.inspect import plan_text

    click.echo(plan_text(prepared))
    return 0


def _collect_garbage_again() -> None:
    """The collector was off while modules were imported; forked workers get it as it is here. What lives now lives to the end."""
    gc.freeze()
    gc.enable()


@contextlib.contextmanager
def _opened(log_file: str | None) -> Iterator[BinaryIO]:
    if log_file is None:
        yield sys.stderr.buffer
        return
    try:
        file = open(log_file, "ab+", buffering=0)  # noqa: SIM115  # closed below: only opening it is a mistake of usage
    except OSError as error:
        raise click.BadParameter(f"cannot write {log_file}: {error.strerror}", param_hint="--log-file") from None
    with file:
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            file.write(b"\n")  # a full disk tore the last line of an earlier run
        yield file


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody listens any more; the exit code still tells
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
        sys.stdout.flush()
