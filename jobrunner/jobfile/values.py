"""The values of a job file that have to be looked at: texts with an expression in them, and what no JSON holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from jobrunner.jobfile.document import Finding, Path

_WIDEST: Final = 2**63


def collect(value: Any, path: Path, found: list[tuple[Path, object]]) -> None:
    """What has to be looked at among all the values of a task: most have nothing in them, and cost one test."""
    kind = type(value)
    if kind is str:
        if "{{" in value or "\0" in value:
            found.append((path, value))
    elif kind is list:
        for position, item in enumerate(value):
            collect(item, (*path, position), found)
    elif kind is dict:
        for key, item in value.items():
            collect(item, (*path, key), found)
    elif _is_unfit(value):
        found.append((path, value))


def _is_unfit(value: object) -> bool:
    if type(value) is float:
        return not math.isfinite(value)
    return type(value) is int and not -_WIDEST <= value < 2 * _WIDEST


def unfit(value: object, path: Path) -> Iterator[Finding]:
    """The numbers within a value that no JSON holds."""
    found: list[tuple[Path, object]] = []
    collect(value, path, found)
    for place, leaf in found:
        if not isinstance(leaf, str):
            yield not_json(place, leaf)


def not_json(path: Path, value: object) -> Finding:
    """Why a number that was collected cannot be handed to a task."""
    if isinstance(value, float):
        return Finding(path=path, message="infinity and not-a-number are no JSON values; tasks are handed JSON", hint="Quote it.")
    return Finding(path=path, message="a whole number beyond 64 bits cannot be handed to a task", hint="Quote it.")
