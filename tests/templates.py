"""Short ways to say what a template gives or refuses, and random texts to try it on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import strategies as st

from jobrunner.errors import ExpressionError
from jobrunner.expressions import Template, parse

SCOPE: dict[str, object] = {
    "params": {"root": "/srv/my data", "n": 3, "half": 0.5, "on": True, "none": None, "my-key": "hyphen"},
    "env": {"HOME": "/home/ada"},
    "item": {"path": ["a.txt", "b.txt"], "items": "a key", "keys": 1, "nested": {"deep": [{"x": 7}]}, "": "empty key"},
    "index": 4,
    "run": {"id": "r1", "dir": "/tmp/r 1"},
    "tasks": {"list": {"result": [3, 1, 2]}, "list-files": {"result": ["x", "y z"]}},
}


def template(text: str) -> Template:
    found = parse(text)
    assert found is not None
    return found


def value(source: str, scope: Mapping[str, object] = SCOPE) -> object:
    return template("${{ " + source + " }}").value(scope)


def refused(text: str) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    return caught.value


def failed(source: str, scope: Mapping[str, object] = SCOPE) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        value(source, scope)
    return caught.value


SCRIPT = st.lists(
    st.sampled_from(
        [
            "${{ item }}",
            "${{",
            "}}",
            "'",
            '"',
            "`",
            "$(",
            "$((",
            "${",
            "(",
            ")",
            "}",
            "\\",
            "#",
            "<<E",
            "\nE\n",
            " ",
            "x",
            "case ",
        ]
    ),
    max_size=12,
).map("".join)
"""Pieces of shell, with expressions between them, in any order."""


def outcome(text: str) -> Template | ExpressionError | None:
    """What parsing and evaluating gives; any other exception fails the test."""
    try:
        found = parse(text)
        if found:
            found.value(SCOPE)
            found.shell(SCOPE)
    except ExpressionError as error:
        return error
    return found
