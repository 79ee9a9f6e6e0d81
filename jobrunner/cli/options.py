"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from jobrunner.api import Options
from jobrunner.spec import MOST_WORKERS, Mode

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("file", type=click.Path()),
    click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Give a parameter of the job a value."),
    click.option(
        "-j", "--workers", type=click.IntRange(1, MOST_WORKERS), metavar="N", help="Workers of the job's default pool."
    ),
    click.option("--mode", type=click.Choice(get_args(Mode)), help="Mode of the job's default pool."),
    click.option("--only", multiple=True, metavar="TASK", help="Run only this task, without what it needs. Repeatable."),
    click.option(
        "--fail-fast/--keep-going", default=None, help="After a failure stop everything, or go on with independent tasks."
    ),
)


def run_options(command: Command) -> Command:
    """FILE and the options that decide what a run does."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def options(settings: tuple[str, ...], workers: int | None, mode: Mode | None, only: tuple[str, ...], fail_fast: bool | None) -> Options:
    """What the command line said, as the Python API takes it."""
    return Options(params=_pairs(settings), workers=workers, mode=mode, only=only, fail_fast=fail_fast)


def _pairs(settings: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for setting in settings:
        name, found, value = setting.partition("=")
        if not found or not name:
            raise click.BadParameter(f"{setting!r}: write NAME=VALUE", param_hint="--set")
        pairs[name] = value
    return pairs
