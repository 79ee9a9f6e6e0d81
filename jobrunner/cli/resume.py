"""`jobrunner resume`: go on with a run that was stopped or killed, after telling what that will do."""

from __future__ import annotations

import os
from typing import Any, Literal

import click

from jobrunner.cli import completion, running, words
from jobrunner.cli.options import with_options
from jobrunner.errors import UsageError


@click.command(short_help="Go on with a run that was stopped or killed.")
@click.argument("what", required=False, metavar="[RUN|FILE]")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would run again, and run nothing.")
@click.option("--retry-failed", is_flag=True, help="Run again what has failed, and what was skipped because of it.")
@click.option(
    "--rerun",
    multiple=True,
    metavar="TASK",
    shell_complete=completion.tasks,
    help="Run this task again whatever is recorded of it. Repeatable.",
)
@click.option("--set", "settings", multiple=True, hidden=True)
@click.option("--params-file", hidden=True)
@with_options(words.DURABILITY, *words.SHOWING)
def resume(
    what: str | None,
    dry_run: bool,
    retry_failed: bool,
    rerun: tuple[str, ...],
    settings: tuple[str, ...],
    params_file: str | None,
    durability: Literal["process", "disk"],
    quiet: bool,
    **shows: Any,
) -> int:
    """Go on with a run: RUN is its id, the beginning of its id or its directory, FILE a job file or a job's name (its last
    run). Without either it is the last run of any job that was stopped or killed; with --retry-failed or --rerun, that did
    not succeed. It keeps the parameters and the selection of its run.

    What is recorded as succeeded is not run again, unless its definition or its inputs have changed, or what it needs was run
    again. What was running when the runner was killed runs again, unless it is at_most_once.

    \b
    jobrunner resume                              the last run that was stopped or killed
    jobrunner resume jobs/nightly.yaml --dry-run  what would be done
    jobrunner resume --retry-failed               with another chance for what has failed
    """
    _refuse_params(what, settings, params_file)
    from jobrunner import forecast, rundir
    from jobrunner.prepare import Options

    options = Options(retry_failed=retry_failed, rerun=rerun, durability=durability)
    state = rundir.state_dir(os.environ)
    directory = forecast.find_run(state, what, also_failed=retry_failed or bool(rerun))
    forecast.refuse_running(state, directory.job)
    prepared, recorded = forecast.prepare_resume(directory, options)
    if dry_run or not quiet:
        click.echo(forecast.text(forecast.forecast(prepared, recorded, directory)))
    if dry_run:
        return 0
    try:
        return running.shown(prepared, quiet=quiet, **shows)
    except running.UnusableLog as error:
        raise click.BadParameter(str(error), param_hint="--log-file") from None


def _refuse_params(what: str | None, settings: tuple[str, ...], params_file: str | None) -> None:
    """Half a run with one value and half with another would be the result of neither."""
    given = [f"--set {setting}" for setting in settings] + [f"--params-file {params_file}"] * (params_file is not None)
    if given:
        file = what if what is not None and os.path.isfile(what) else "FILE"
        anew = f"start a new run with `jobrunner run {file} {' '.join(given)}`"
        raise UsageError(f"{given[0]}: a resume keeps the parameters of its run; {anew}")
