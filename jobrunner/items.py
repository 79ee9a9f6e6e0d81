"""The items of a fan-out and their keys: what names an instance in events, output files and from run to run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

from jobrunner.typed import overload

_LONGEST_KEY = 120
_FEW = 10_000
"""Items up to which memory does not matter."""
_SMALL = 1 << 63
_DIGEST_KEY = r"\d+-[0-9a-f]{12}"


class Items(Sequence[object]):
    """The items of one task. `key` names each: its text where that is short, printable and unique, else position and digest.

    The digest is over the item's content, so a key stays the same from run to run as long as the item does. No two items
    share a key: a text that looks like position and digest is not taken as it is. `names` gives other texts for
    them, and `unique` says that all of them differ.
    """

    def __init__(self, values: Sequence[object], *, names: Callable[[object], str] | None = None, unique: bool = False) -> None:
        self._values, self._named = values, names or _text
        self._is_count = isinstance(values, range) and names is None and all(abs(end) < _SMALL for end in _ends(values))
        """Numbers, each named by its digits."""
        self._repeated = frozenset[str]() if unique or isinstance(values, range) else _repeated(values, self._named)

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
        return self.named(index)[1]

    def named(self, index: int) -> tuple[object, str]:
        """An item and its key."""
        value = self._values[index]
        if self._is_count:
            return value, str(value)
        text = self._named(value)
        is_short = 0 < len(text) <= _LONGEST_KEY and text.isprintable()
        if is_short and text not in self._repeated and not ("-" in text and re.fullmatch(_DIGEST_KEY, text)):
            return value, text
        import hashlib  # only where an item is too long to name itself

        return value, f"{index}-{hashlib.sha256(_text(value).encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _ends(values: range) -> list[int]:
    return [values[0], values[-1]] if values else []


def _repeated(values: Sequence[object], named: Callable[[object], str]) -> frozenset[str]:
    """The names that stand there more than once."""
    seen: set[str] = set()
    twice: set[str] = set()
    for text in map(named, values) if len(values) <= _FEW else _suspects(values, named):
        (twice if text in seen else seen).add(text)
    return frozenset(twice)


def _suspects(values: Sequence[object], named: Callable[[object], str]) -> Iterator[str]:
    """All names that stand there more than once, and few others: a bit for each name, so that a million take 8 MB and not 100."""
    mask = (1 << (64 * len(values)).bit_length()) - 1
    bits = bytearray((mask >> 3) + 1)
    shared: set[int] = set()
    for text in map(named, values):
        place = hash(text) & mask
        if bits[place >> 3] & (1 << (place & 7)):
            shared.add(place)
        bits[place >> 3] |= 1 << (place & 7)
    return (text for text in map(named, values) if hash(text) & mask in shared)


def _text(value: object) -> str:
    if type(value) is int:
        return str(value)  # as JSON has it, in a tenth of the time
    return value if isinstance(value, str) else json.dumps(value, default=str, separators=(",", ":"), sort_keys=True)
