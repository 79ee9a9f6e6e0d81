"""`jobrunner run`: the job is run, the log goes to stderr, what tasks print and the summary to stdout."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import click

from jobrunner.events import Sink
from jobrunner.cli.options import options, run_options
from jobrunner.sinks.log import FORMATS, LEVELS


@click.command()
@run_options
@click.option("-n", "--dry-run", is_flag=True, help="Show what would run, and run nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing unless something fails; warnings and errors are still logged.")
@click.option("--log-format", type=click.Choice(FORMATS), default="auto", show_default=True, help="auto: console on a terminal, else json.")
@click.option("--log-level", type=click.Choice(tuple(LEVELS)), help="Least level that is logged.  [default: info; warning with -q]")
@click.option("--log-file", type=click.Path(dir_okay=False), metavar="FILE", help="Append the log to FILE instead of stderr.")
def run(
    dry_run: bool, quiet: bool, log_format: str, log_level: str | None, log_file: str | None, **given: Any
) -> int:
    """Run a job file. The exit code is 0 only if every task succeeded."""
    from jobrunner import api
    from jobrunner.sinks.log import log_sink
    from jobrunner.sinks.output import file_sink, terminal_sink
    from jobrunner.sinks.summary import Summary

    prepared = api.prepare(given.pop("file"), options(**given))
    if dry_run:
        from jobrunner.cli.inspect import plan_text

        click.echo(plan_text(prepared))
        return 0
    summary = Summary()
    with _opened(log_file) as log:
        sinks: list[Sink] = [log_sink(log, format=log_format, minimum=log_level or ("warning" if quiet else "info")), summary]
        if not quiet:
            sinks.append(terminal_sink(_binary(sys.stdout)))
        result = api.run_prepared(prepared, sinks=sinks, run_sinks=[lambda run_dir: file_sink(_keeper(run_dir))])
    if not quiet or result.exit_code:
        _say(summary.text(prepared.job.name))
    return result.exit_code


def _keeper(run_dir: Any) -> Any:
    from jobrunner.rundir import append

    def keep(task: str, item: str | None, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full disk must not stop the tasks
            append(run_dir.output_file(task, item), data)

    return keep


@contextlib.contextmanager
def _opened(log_file: str | None) -> Iterator[BinaryIO]:
    if log_file is None:
        yield _binary(sys.stderr)
        return
    try:
        file = open(log_file, "ab", buffering=0)
    except OSError as error:
        raise click.BadParameter(f"cannot write {log_file}: {error.strerror}", param_hint="--log-file") from None
    with file:
        yield file


def _binary(stream: Any) -> BinaryIO:
    """The bytes under a standard stream; nowhere, where it was closed before we started."""
    return getattr(stream, "buffer", None) or io.BytesIO()


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody listens any more; the exit code still tells
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
        sys.stdout.flush()
