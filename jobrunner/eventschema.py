"""The JSON Schema of a line of the log, made from the classes of the events."""

from __future__ import annotations

import typing
from inspect import cleandoc
from typing import Any

from pydantic import TypeAdapter

from jobrunner.events import Event, TaskOutput
from jobrunner.stream import logged
from jobrunner.structs import REQUIRED

_NAMES = {"Any": typing.Any, "ClassVar": typing.ClassVar}
"""What stands in the annotations of events: the names of `jobrunner.typed` mean nothing when a program runs."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one line of the log: one alternative an event."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of the jobrunner log",
        "oneOf": [_line_schema(kind) for kind in typing.get_args(Event) if kind is not TaskOutput],
    }


def _line_schema(kind: type[Event]) -> dict[str, Any]:
    envelope: dict[str, Any] = {
        "ts": {"type": "string", "format": "date-time"},
        "level": {"enum": ["info", "warning", "error"]},
        "event": {"const": kind.NAME},
        "seq": {"type": "integer", "minimum": 0},
        "run_id": {"type": "string"},
        "job": {"type": "string"},
    }
    hints = typing.get_type_hints(kind, localns=_NAMES)
    own = {name: TypeAdapter(hints[name]).json_schema() for name in logged(kind)}
    required = [name for name, default in logged(kind).items() if default is REQUIRED and _NULL not in own[name].get("anyOf", [])]
    return {
        "title": kind.NAME,
        "description": cleandoc(kind.__doc__ or ""),
        "type": "object",
        "properties": {**envelope, **{name: _without_null(each) for name, each in own.items()}},
        "required": [*envelope, *required],
        "additionalProperties": False,
    }


_NULL = {"type": "null"}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A field that says nothing is left out of the line, so null is never written."""
    kinds = [each for each in schema.get("anyOf", []) if each != _NULL]
    return kinds[0] if len(kinds) == 1 else schema
