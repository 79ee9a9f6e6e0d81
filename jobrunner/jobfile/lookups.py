"""What may follow a name in an expression: `tasks.NAME.result` for a target, `.stdout` for a command, `run.id`."""

from __future__ import annotations

from collections.abc import Sequence
from keyword import iskeyword
from typing import Final, TypeAlias

from jobrunner import spec
from jobrunner.hints import did_you_mean

Wrong: TypeAlias = tuple[str, str] | None
"""Message and hint, or None where all is well."""

_OF_COMMANDS: Final = ("stdout", "outputs", "exit_code")
_OTHERS_HAVE: Final = frozenset({"result", "results", *_OF_COMMANDS})


def key_of(root: str, keys: Sequence[str | int], known: Sequence[str]) -> Wrong:
    """What is wrong where one of the `known` keys has to follow `root`."""
    there = f"here {'is' if len(known) == 1 else 'are'} {', '.join(known)}."
    if not keys:
        return f"{root} alone is no value", f"Write {root}.{known[0]}; t{there}"
    if keys[0] in known:
        return None
    return f"{root} has no {str(keys[0])!r}", did_you_mean(str(keys[0]), known) or f"T{there}"


def result_key(name: str, task: spec.Task, keys: Sequence[str | int]) -> Wrong:
    """What `tasks.name.KEY` has to be for that kind of task."""
    key = str(keys[0]) if keys else ""
    own = _own_keys(task)
    if key in own or key not in _OTHERS_HAVE:
        return key_of(spelled(name), keys, (*own, "outcome", "failures"))
    return _of_target(name, task, key) if task.target is not None else _of_command(name, task, key)


def _own_keys(task: spec.Task) -> tuple[str, ...]:
    if task.has_instances:
        return ("results",)
    return ("result",) if task.target is not None else _OF_COMMANDS


def _of_target(name: str, task: spec.Task, key: str) -> Wrong:
    [own] = _own_keys(task)
    hint = f"Write {spelled(name)}.{own}."
    if key in _OF_COMMANDS:
        return f"{name!r} is a target: it has no {key}", hint
    said = f"has {_fan_out(task)}: it has a list of results" if task.has_instances else "has no foreach: it has one result"
    return f"{name!r} {said}", hint


def _of_command(name: str, task: spec.Task, key: str) -> Wrong:
    if not task.has_instances:
        keys = " or ".join(f"{spelled(name)}.{own}" for own in ("stdout", "outputs.KEY", "exit_code"))
        return f"{name!r} is a command: it has no {key}", f"Write {keys}."
    hint = f"Write {spelled(name)}.results: a list of maps with item, outcome, exit_code, stdout and outputs."
    of_its_own = f" of its own, each {'item' if task.foreach is not None else 'combination'} has" * (key in _OF_COMMANDS)
    return f"{name!r} is a command with {_fan_out(task)}: it has no {key}{of_its_own}", hint


def _fan_out(task: spec.Task) -> str:
    return "foreach" if task.foreach is not None else "a matrix"


def spelled(name: str) -> str:
    """The task as an expression refers to it."""
    return dotted("tasks", name)


def dotted(root: str, name: str) -> str:
    """`root.name`, or `root['name']` where the name is no identifier."""
    return f"{root}.{name}" if name.isidentifier() and not iskeyword(name) else f"{root}[{name!r}]"
