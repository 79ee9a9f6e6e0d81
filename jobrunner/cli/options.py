"""The options that several commands share, as click has them: made from the table of words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobrunner.cli import completion, words
from jobrunner.cli.words import Option

if TYPE_CHECKING:
    from jobrunner.api import Options

Command = TypeVar("Command", bound=Callable[..., Any])


def option(row: Option) -> Callable[[Command], Command]:
    """An option of the table."""
    more: dict[str, Any] = {"help": row.told, "metavar": row.metavar}
    match row.kind:
        case "flag":
            more["is_flag"] = True
        case "switch":
            return click.option("/".join(row.words), row.name, default=None, help=row.told)
        case "texts":
            more |= {"multiple": True, "shell_complete": _COMPLETED.get(row.completes)}
        case "number":
            more["type"] = int
        case "choice":
            more |= {"type": click.Choice(row.choices), "default": row.default, "show_default": row.shows_default}
        case "path" | "log":
            more["type"] = click.Path(dir_okay=row.kind == "path")
    return click.option(*row.words, row.name, **more)


_COMPLETED = {"tasks": completion.tasks, "settings": completion.settings}


def with_options(*rows: Option) -> Callable[[Command], Command]:
    """Options of the table, in this order."""

    def add(command: Command) -> Command:
        for row in reversed(rows):
            command = option(row)(command)
        return command

    return add


def run_options(command: Command) -> Command:
    """FILE and the options that decide what a run does."""
    return click.argument("file", type=click.Path())(with_options(*words.DECIDING)(command))


def options(settings: tuple[str, ...], **given: Any) -> Options:
    """What the command line said, as the Python API takes it: its options have the names of the fields of Options."""
    from jobrunner.api import Options

    return Options(params=words.pairs(checked(settings)), **given)


def checked(settings: tuple[str, ...]) -> tuple[str, ...]:
    """Settings, each of which has a name and a value."""
    for setting in settings:
        if setting.find("=") < 1:
            raise click.BadParameter(f"{setting!r}: write NAME=VALUE", param_hint="--set")
    return settings
