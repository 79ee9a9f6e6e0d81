"""Values as JSON that every reader takes: what JSON cannot hold becomes a text that says what it was, never an exception.

orjson writes a value in a tenth of the time, but loading it takes half as long as a whole run of one command: it brings
`dataclasses`, `uuid`, `zoneinfo` and `inspect`. So the first values are written by the standard library, in the same bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import cache

from jobrunner.typed import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import types

_DEEPEST = 50
_MOST_BITS = 12_000
"""Python prints no number of more than 4300 digits, and no reader wants one."""
_FEW = 100
"""Values after which loading orjson pays."""
_UNLIKE = r"[0-9]e[-+][0-9]"
"""Where Python writes a power of ten, orjson may write none, or writes it in another way."""

_count = 0
_quick: Callable[..., bytes] | None = None
"""What writes a value, once it was needed."""
_sort_keys = 0


def dumps(value: object) -> bytes:
    """JSON in UTF-8 on one line, whatever `value` holds. Readers that know no lone surrogates and no NaN take it too."""
    if _count < _FEW and (text := _briefly(value, _WRITE)) is not None:
        return text
    try:
        return (_quick or _quickly())(value, _marker)
    except (TypeError, ValueError, RecursionError):  # a lone surrogate, a number beyond 64 bits, a value without an end
        return json.dumps(_plain(value, ()), ensure_ascii=False, separators=(",", ":")).encode()


def sorted_dumps(value: object) -> bytes:
    """JSON whose objects have their keys in order, always the same bytes for the same value; of what JSON can hold only."""
    if _count < _FEW and (text := _briefly(value, _SORT)) is not None:
        return text
    try:
        write = _quick or _quickly()
        return write(value, None, _sort_keys)
    except TypeError:  # a whole number beyond 64 bits, a half surrogate
        return json.dumps(value, sort_keys=True).encode()


def exact_dumps(value: object) -> bytes:
    """As `dumps`, but it raises TypeError for what JSON cannot hold."""
    if _count < _FEW and (text := _briefly(value, _WRITE)) is not None:
        return text
    return (_quick or _quickly())(value)


def loads(text: bytes) -> Any:
    """What JSON in UTF-8 says; raises ValueError. No whole number in it has more than 64 bits."""
    global _count
    _count += 1
    try:
        return json.loads(text) if _count < _FEW else _orjson().loads(text)
    except RecursionError:  # only the standard library's; orjson has a bound of its own
        raise ValueError("it is nested too deeply") from None


_FORM: dict[str, Any] = {"ensure_ascii": False, "check_circular": False, "allow_nan": False, "separators": (",", ":")}
_WRITE, _SORT = json.JSONEncoder(**_FORM).encode, json.JSONEncoder(**_FORM, sort_keys=True).encode


def _quickly() -> Callable[..., bytes]:
    global _quick, _sort_keys
    orjson = _orjson()
    _quick, _sort_keys = orjson.dumps, orjson.OPT_SORT_KEYS
    return orjson.dumps  # type: ignore[no-any-return]


@cache
def _orjson() -> types.ModuleType:
    import orjson

    return orjson


def _briefly(value: object, write: Callable[[object], str]) -> bytes | None:
    """The bytes that orjson would write, from the standard library; None where they might be others."""
    global _count
    _count += len(value) if type(value) is list else 1
    if _count > _FEW or not _is_simple(value, _DEEPEST):  # be it in one list
        return None
    try:
        text = write(value)
        may_differ = ("e-" in text or "e+" in text) and re.search(_UNLIKE, text)  # most often it need not be compiled
        return None if may_differ else text.encode()
    except ValueError:  # a lone surrogate, NaN
        return None


def _is_simple(value: Any, deepest: int) -> bool:
    """Whether there is but one way to write it."""
    kind = type(value)
    if isinstance(value, str) or kind is bool or value is None or kind is float:
        return True
    if kind is int:
        return bool(-(1 << 63) <= value < 1 << 63)
    if kind is dict and deepest:
        return all(type(key) is str and _is_simple(each, deepest - 1) for key, each in value.items())
    return (kind is list or kind is tuple) and deepest > 0 and all(_is_simple(each, deepest - 1) for each in value)


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
