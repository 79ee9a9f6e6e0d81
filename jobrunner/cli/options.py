"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobrunner.cli import completion
from jobrunner.kinds import MODES

if TYPE_CHECKING:
    from jobrunner.api import Options

Command = TypeVar("Command", bound=Callable[..., Any])


def _selecting(option: str, name: str, told: str) -> Callable[[Command], Command]:
    return click.option(option, name, multiple=True, metavar="TASK", shell_complete=completion.tasks, help=told)


_OPTIONS = (
    click.argument("file", type=click.Path()),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        shell_complete=completion.settings,
        help="Give a parameter of the job a value. Repeatable.",
    ),
    click.option(
        "--params-file",
        type=click.Path(),
        metavar="FILE",
        help="Values of parameters from a YAML or JSON file. --set stands above it, JOBRUNNER_PARAM_NAME below.",
    ),
    click.option("-j", "--workers", type=int, metavar="N", help="Workers of the job's default pool, instead of the file's."),
    click.option("--mode", type=click.Choice(MODES), help="Mode of the job's default pool."),
    _selecting("--only", "only", "Run only this task, without what it needs. Repeatable."),
    _selecting("--from", "start_from", "Run this task and all that needs it. Repeatable."),
    _selecting("--until", "until", "Run this task and all that it needs. Repeatable."),
    _selecting("--skip", "skip", "Leave this task out; what needs it runs all the same. Repeatable."),
    click.option("--force", is_flag=True, help="Run tasks also where their cache says that nothing has changed."),
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


def options(settings: tuple[str, ...], **given: Any) -> Options:
    """What the command line said, as the Python API takes it: its options have the names of the fields of Options."""
    from jobrunner.api import Options

    return Options(params=_pairs(settings), **given)


def _pairs(settings: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for setting in settings:
        name, found, value = setting.partition("=")
        if not found or not name:
            raise click.BadParameter(f"{setting!r}: write NAME=VALUE", param_hint="--set")
        pairs[name] = value
    return pairs
