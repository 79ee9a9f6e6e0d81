"""Values as JSON that every reader takes: what JSON cannot hold becomes a text that says what it was, never an exception."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import orjson

_DEEPEST = 50
_MOST_BITS = 12_000
"""Python prints no number of more than 4300 digits, and no reader wants one."""


def dumps(value: object) -> bytes:
    """JSON in UTF-8 on one line, whatever `value` holds. Readers that know no lone surrogates and no NaN take it too."""
    try:
        return orjson.dumps(value, default=_marker)
    except (TypeError, ValueError, RecursionError):  # a lone surrogate, a number beyond 64 bits, a value without an end
        return json.dumps(_plain(value, ()), ensure_ascii=False, separators=(",", ":")).encode()


def _plain(value: object, within: tuple[int, ...]) -> object:
    """`value` as JSON can hold it. `within` are the ids of the values that it is in: one of them again has no end."""
    match value:
        case None | bool():
            return value
        case int():
            return int(value) if value.bit_length() <= _MOST_BITS else f"(a number of {value.bit_length()} bits)"
        case float():
            return value if math.isfinite(value) else None  # as orjson writes them
        case str():
            return _text(value)
        case dict() | list() | tuple() if len(within) == _DEEPEST or id(value) in within:
            return "(nested too deeply)"
        case dict():
            return {_worded(key, str): _plain(each, (*within, id(value))) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each, (*within, id(value))) for each in value]
    return _marker(value)


def _marker(value: object) -> str:
    return _worded(value, repr)


def _worded(value: object, words: Callable[[object], str]) -> str:
    try:
        return _text(words(value))
    except Exception as error:
        return f"({type(value).__name__}, whose {words.__name__} raised {type(error).__name__})"


def _text(text: str) -> str:
    """A lone surrogate is written as its escape."""
    return text.encode("utf-8", "backslashreplace").decode()
