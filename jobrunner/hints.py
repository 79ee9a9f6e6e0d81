"""Did you mean: the name that is nearest to one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Collection

MOST_NAMES = 500
"""Among more names than this only differences of case and hyphen are looked for: likeness takes long to measure."""


def closest(word: str, names: Collection[str]) -> str | None:
    """The one of `names` that is most like `word`, or None where none is like it."""
    if len(word) > 100:
        return None
    similar = [name for name in names if abs(len(name) - len(word)) <= 3 + len(word) // 3]
    if (same := next((name for name in similar if len(name) == len(word) and _plain(name) == _plain(word)), None)) is not None:
        return same
    near = difflib.get_close_matches(word, similar, n=1, cutoff=0.6) if len(similar) <= MOST_NAMES else []
    return near[0] if near else None


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")


def did_you_mean(word: str, names: Collection[str]) -> str:
    """`Did you mean 'foreach'?`, or nothing."""
    name = closest(word, names)
    return "" if name is None else f"Did you mean {name!r}?"
