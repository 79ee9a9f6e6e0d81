"""Events of a YAML parser → plain values alone, for files that hold nothing odd: all others are the Builder's.

Most files are read without a word to say about a place in them. So no marks are kept here, which are a third of the time and
half of the memory of a large file; who wants to say where something stands reads the text again (`Document.again`).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import yaml

from jobrunner.jobfile import scalars
from jobrunner.jobfile.builder import DEEPEST
from jobrunner.structs import struct

Raws: TypeAlias = dict[int, dict[str | int, str]]


_STARTS = {yaml.MappingStartEvent: dict, yaml.SequenceStartEvent: list}
_ENDS = frozenset({yaml.MappingEndEvent, yaml.SequenceEndEvent})


@struct
class Unmarked:
    """What one document says, and numbers as they are written where printing would change them (see Document.raws)."""

    value: object
    raws: Raws


class _OddError(Exception):
    """An anchor, an alias, a tag, a key twice, `<<`, a second document, …: whether it may stand, or what is wrong with it."""


def read(parser: Any) -> Unmarked | None:
    """The values of a stream, or None: there is more to it, or it is no YAML."""
    raws: Raws = {}
    try:
        return Unmarked(value=_values(parser, raws), raws=raws)
    except (_OddError, yaml.YAMLError, ValueError, OverflowError):
        return None


def _values(parser: Any, raws: Raws) -> object:
    """The hot path: the innermost open container, and the key of a map that waits for its value."""
    get, scalar, words, number_starts = parser.get_event, yaml.ScalarEvent, scalars.WORDS, scalars.NUMBER_STARTS
    root: list[Any] = []
    container: Any = root
    key: str | None = None
    stack: list[Any] = []
    while (kind := type(event := get())) is not yaml.StreamEndEvent:
        if kind is scalar:
            value = event.value
            if event.anchor is not None or event.tag is not None:
                raise _OddError
            if key is None and type(container) is dict:
                if value in container or value == "<<":
                    raise _OddError
                key = value
                continue
            if event.implicit[0]:
                text, value = value, words.get(value, value)
                if value is text and text[0] in number_starts:
                    value = _number(text, len(container) if key is None else key, container, raws)
            if key is None:
                container.append(value)
            else:
                container[key], key = value, None
        elif kind in _STARTS:
            stack.append(container)
            container, key = _opened(event, key, container, len(stack)), None
        elif kind in _ENDS:
            container = stack.pop()
        elif kind is yaml.AliasEvent or (kind is yaml.DocumentStartEvent and root):
            raise _OddError
    return root[0] if root else None


def _opened(event: Any, key: str | None, container: Any, depth: int) -> Any:
    """A new container, at its place in the one around it."""
    if event.anchor is not None or event.tag is not None or depth > DEEPEST:
        raise _OddError
    below: Any = _STARTS[type(event)]()
    if key is not None:
        container[key] = below
    elif type(container) is list:
        container.append(below)
    else:  # a container as a key
        raise _OddError
    return below


def _number(text: str, place: int | str, container: Any, raws: Raws) -> object:
    """The number that a plain scalar is, or its text."""
    if scalars.is_too_long(text):
        raise _OddError
    value = scalars.number(text)
    if value is not text and str(value) != text:
        raws.setdefault(id(container), {})[place] = text
    return value
