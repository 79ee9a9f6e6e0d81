"""The values that expressions give, as JSON has them: their text, what people call their types, and how large they may be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from jobrunner.typed import Final, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
Scope: TypeAlias = Mapping[str, object]
"""What the names in an expression mean. It may compute a value when it is asked for, and raise ExpressionError."""

PLAIN: Final = frozenset({str, int, float, bool, type(None), list, dict})
"""The types that JSON knows."""
WIDEST: Final = 4096
"""Bits of a whole number that arithmetic may make: always few enough to print."""
TOO_LARGE: Final = "the number is too large"
LARGEST: Final = 10_000_000
"""Characters or elements that an operator or a function may make."""


def text_of(value: object) -> str:
    """A value inside text: text as it is, null as nothing, true and false, numbers as JSON, lists and maps as compact JSON.

    Raises ValueError for what JSON cannot hold.
    """
    if isinstance(value, str):
        return str(value)
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_jsonable)
    except (ValueError, RecursionError):
        raise ValueError(f"{kind_of(value)} that holds NaN or infinity, or is too large, has no JSON text") from None


def _jsonable(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


def plain(value: object) -> object:
    """A lazy Mapping as a dict, marked text as text: what crosses to a worker is JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return str(value) if isinstance(value, str) else value


def kind_of(value: object) -> str:
    """What people call the type of `value`."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true or false"
    names = (((int, float), "a number"), (str, "text"), ((list, tuple), "a list"), (Mapping, "a map"))
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def size_refusal(value: object) -> str:
    """Why a value cannot be had, or nothing: JSON has no infinity, and nobody means a number of a thousand digits."""
    if isinstance(value, int):
        return TOO_LARGE if value.bit_length() > WIDEST else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{TOO_LARGE}, or not a number"
    return "the result is a complex number" if isinstance(value, complex) else ""


def bound(length: int) -> None:
    """Raises ValueError before something is made that has more than LARGEST characters or elements."""
    if length > LARGEST:
        raise ValueError(f"the result would have a length of {length:,}; at most {LARGEST:,} are made")
