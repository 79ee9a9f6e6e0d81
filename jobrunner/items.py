"""The items of a fan-out and their keys: what names an instance in events, output files and from run to run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import overload

_LONGEST_KEY = 120
_DIGEST_KEY = re.compile(r"\d+-[0-9a-f]{12}")


class Items(Sequence[object]):
    """The items of one task. `key` names each: its text where that is short, printable and unique, else position and digest.

    The digest is over the item's content, so a key stays the same from run to run as long as the item does. No two items
    share a key: a text that looks like position and digest is not taken as it is. `names` stand in place of their texts.
    """

    def __init__(self, values: Sequence[object], names: Sequence[str] | None = None) -> None:
        self._values, self._names = values, names
        self._repeated = frozenset[str]() if isinstance(values, range) else _repeated(values if names is None else names)

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> object: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[object]: ...
    def __getitem__(self, index: int | slice) -> object:
        return self._values[index]

    def __iter__(self) -> Iterator[object]:
        return iter(self._values)

    def key(self, index: int) -> str:
        text = _text((self._values if self._names is None else self._names)[index])
        is_short = 0 < len(text) <= _LONGEST_KEY and text.isprintable()
        if is_short and text not in self._repeated and not _DIGEST_KEY.fullmatch(text):
            return text
        content = text if self._names is None else _text(self._values[index])
        return f"{index}-{hashlib.sha256(content.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _repeated(values: Sequence[object]) -> frozenset[str]:
    seen: set[str] = set()
    twice: set[str] = set()
    for value in values:
        text = _text(value)
        (twice if text in seen else seen).add(text)
    return frozenset(twice)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, separators=(",", ":"), sort_keys=True)
