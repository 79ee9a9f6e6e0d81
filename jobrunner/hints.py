"""Did you mean: the name that is nearest to one that is not known."""

from __future__ import annotations

from collections.abc import Collection

_FEW = 10
MOST_NAMES = 200
"""Among more names only the same one with other hyphens or in small letters is looked for: likeness takes 10 µs a name."""


def closest(word: str, names: Collection[str]) -> str | None:
    """The one of `names` that is most like `word`, or None where none is like it."""
    if len(word) > 100:
        return None
    if len(names) > MOST_NAMES:
        return next((name for name in _respelled(word) if name in names), None)
    if (same := next((name for name in names if _plain(name) == _plain(word)), None)) is not None:
        return same
    import difflib  # only for who made a mistake

    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return near[0] if near else None


def _respelled(word: str) -> tuple[str, ...]:
    small = word.casefold()
    return word.replace("-", "_"), word.replace("_", "-"), small, small.replace("-", "_"), small.replace("_", "-")


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_")


def one_of(word: str, names: Collection[str]) -> str:
    """`Did you mean 'check'?`; where none is like it `There are archive, check.`, if they are few."""
    return did_you_mean(word, names) or (f"There are {', '.join(names)}." if 1 < len(names) <= _FEW else "")


def did_you_mean(word: str, names: Collection[str]) -> str:
    """`Did you mean 'foreach'?`, or nothing."""
    name = closest(word, names)
    return "" if name is None else f"Did you mean {name!r}?"
