"""`jobrunner run`: the job is run, the log goes to stderr, what tasks print and the summary to stdout."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from jobrunner.cli import running, words
from jobrunner.cli.options import checked, options, run_options, with_options

if TYPE_CHECKING:
    from jobrunner.api import Prepared


@click.command(short_help="Run a job file.")
@run_options
@click.option("-n", "--dry-run", is_flag=True, help="Show what would run, and run nothing (the same as `jobrunner plan`).")
@with_options(words.RESUMING, words.DURABILITY, *words.SHOWING)
def run(dry_run: bool, **given: Any) -> int:
    """Run a job file. The exit code is 0 only if every task succeeded, or its failure was allowed.

    \b
    jobrunner run job.yaml -j 4                        four workers in the default pool
    jobrunner run job.yaml --only report               one task, without what it needs
    jobrunner run job.yaml --resume                    go on where a run was cut off
    jobrunner run job.yaml -q --log-file job.jsonl     for cron: silent unless something fails
    jobrunner run job.yaml 2>&1 >/dev/null | jq .event every event by name
    """
    if dry_run:
        return _foreseen(given)
    try:
        return running.run(**{**given, "settings": checked(given["settings"])})
    except running.UnusableLog as error:
        raise click.BadParameter(str(error), param_hint="--log-file") from None


def _foreseen(given: dict[str, Any]) -> int:
    """What a run would do."""
    from jobrunner import api

    file = given.pop("file")
    for name in ("durability", *(row.name for row in words.SHOWING)):
        given.pop(name)
    prepared = api.prepare(file, options(**given))
    return _show_resume(prepared) if given["resume"] else _show_plan(prepared)


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
