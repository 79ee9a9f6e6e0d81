"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobrunner.host import MODES

if TYPE_CHECKING:
    from jobrunner.api import Options
    from jobrunner.spec import Mode

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("file", type=click.Path()),
    click.option(
        "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Give a parameter of the job a value. Repeatable."
    ),
    click.option("-j", "--workers", type=int, metavar="N", help="Workers of the job's default pool, instead of the file's."),
    click.option(
        "--mode", type=click.Choice([name for name in MODES if name != "executor"]), help="Mode of the job's default pool."
    ),
    click.option("--only", multiple=True, metavar="TASK", help="Run only this task, without what it needs. Repeatable."),
    click.option(
        "--fail-fast/--keep-going", default=None, help="After a failure stop everything, or go on with independent tasks."
    ),
)


durability_option = click.option(
    "--durability",
    type=click.Choice(["process", "disk"]),
    default="disk",
    show_default=True,
    help="What the record of finished tasks outlives: the death of this process, or a loss of power too.",
)
"""What a run and a resume both decide."""


def run_options(command: Command) -> Command:
    """FILE and the options that decide what a run does."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def options(
    settings: tuple[str, ...], workers: int | None, mode: Mode | None, only: tuple[str, ...], fail_fast: bool | None
) -> Options:
    """What the command line said, as the Python API takes it."""
    from jobrunner.api import Options

    return Options(params=_pairs(settings), workers=workers, mode=mode, only=only, fail_fast=fail_fast)


def _pairs(settings: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for setting in settings:
        name, found, value = setting.partition("=")
        if not found or not name:
            raise click.BadParameter(f"{setting!r}: write NAME=VALUE", param_hint="--set")
        pairs[name] = value
    return pairs
