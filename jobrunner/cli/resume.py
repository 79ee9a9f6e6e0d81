"""`jobrunner resume`: go on with a run that was stopped or killed, after telling what that will do."""

from __future__ import annotations

import os
from typing import Any, Literal

import click

from jobrunner.cli.options import durability_option
from jobrunner.cli.run import shown, shown_options


@click.command(short_help="Go on with a run that was stopped or killed.")
@click.argument("what", required=False, metavar="[RUN|FILE]")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would run again, and run nothing.")
@click.option("--retry-failed", is_flag=True, help="Run again what has failed, and what was skipped because of it.")
@click.option("--rerun", multiple=True, metavar="TASK", help="Run this task again whatever is recorded of it. Repeatable.")
@durability_option
@shown_options
def resume(
    what: str | None,
    dry_run: bool,
    retry_failed: bool,
    rerun: tuple[str, ...],
    durability: Literal["process", "disk"],
    quiet: bool,
    **shows: Any,
) -> int:
    """Go on with a run: RUN is its id or directory, FILE a job file (its last run). Without either it is the last run of any
    job that was stopped or killed; with --retry-failed or --rerun, that did not succeed.

    What is recorded as succeeded is not run again, unless its definition or its inputs have changed, or what it needs was run
    again. What was running when the runner was killed runs again, unless it is at_most_once.

    \b
    jobrunner resume                              the last run that was stopped or killed
    jobrunner resume jobs/nightly.yaml --dry-run  what would be done
    jobrunner resume --retry-failed               with another chance for what has failed
    """
    from jobrunner import forecast, rundir
    from jobrunner.prepare import Options

    options = Options(retry_failed=retry_failed, rerun=rerun, durability=durability)
    state = rundir.state_dir(os.environ)
    directory = forecast.find_run(state, what, also_failed=retry_failed or bool(rerun))
    forecast.refuse_running(state, directory.job)
    prepared, recorded = forecast.prepare_resume(directory, options)
    if dry_run or not quiet:
        click.echo(forecast.text(forecast.forecast(prepared, recorded, directory)))
    return 0 if dry_run else shown(prepared, quiet=quiet, **shows)
