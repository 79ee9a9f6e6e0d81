"""The combinations of a `matrix`: every value of one name with every value of the others, as GitHub Actions reads it.

`exclude` drops those that match all pairs of one of its entries. Then each entry of `include` is added to every combination
that it would not change a value of; to none: it is a combination of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from jobrunner.errors import ExpressionError
from jobrunner.expressions import text_of
from jobrunner.items import Items
from jobrunner.typed import overload

Combination = dict[str, object]

ADDING = ("include", "exclude")
"""The names of a matrix that are no names of values."""


class Values(Mapping[str, object]):
    """`matrix` in expressions: the values of one combination, null under a name that it has not."""

    def __init__(self, combination: object) -> None:
        self._values: Mapping[str, object] = combination if isinstance(combination, dict) else {}

    def __getitem__(self, name: str) -> object:
        return self._values.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


MOST = 10_000_000
"""Combinations of a matrix. They are made when they are asked for."""
_MOST_COMPARED = 2_000_000
MOST_CHANGED = 100_000
"""Combinations of one with `include` or `exclude`: all are made at once, since each entry looks at each."""


def combinations(matrix: Mapping[str, object]) -> Sequence[Combination]:
    """All combinations, the last name changing fastest. Raises ExpressionError for a value of the wrong shape or for too many."""
    axes = {name: _listed(name, values) for name, values in matrix.items() if name not in ADDING}
    excluded = [_entry("exclude", each) for each in _listed("exclude", matrix.get("exclude", []))]
    included = [_entry("include", each) for each in _listed("include", matrix.get("include", []))]
    every, is_changed = _Product(axes), bool(excluded or included)
    most = MOST_CHANGED if is_changed else MOST
    if every.size > most or len(included) > most:
        raise ExpressionError(f"it has {max(every.size, len(included)):,} combinations; at most {most:,} are made")
    entries = len(excluded) + len(included)
    if every.size * entries > _MOST_COMPARED:
        raise ExpressionError(f"include and exclude have {entries:,} entries for {every.size:,} combinations; that is too much")
    return _changed(every, excluded, included) if is_changed else every


def items(matrix: Mapping[str, object]) -> Items:
    """The combinations as items of a fan-out, each named by its values."""
    found = combinations(matrix)
    if not isinstance(found, _Product):
        return Items(found, names=_name)
    if found.has_unique_names:
        return Items(found, names=_name, unique=True)
    return Items(found, names=_name) if len(found) <= MOST_CHANGED else Items(found, names=lambda _: "", unique=True)


def _name(combination: object) -> str:
    assert isinstance(combination, dict)
    return ",".join(map(text_of, combination.values()))


class _Product(Sequence[Combination]):
    """Every value of one name with every value of the others; a combination is made when it is asked for."""

    def __init__(self, axes: Mapping[str, Sequence[object]]) -> None:
        self._axes = axes
        self.size = math.prod(map(len, axes.values())) if axes else 0

    @property
    def has_unique_names(self) -> bool:
        """No two combinations read alike, as far as that can be told from the values alone."""
        texts = [[text_of(value) for value in values] for values in self._axes.values()]
        return all(len(set(each)) == len(each) and not any("," in text for text in each) for each in texts)

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Combination: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Combination]: ...
    def __getitem__(self, index: int | slice) -> Combination | Sequence[Combination]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self.size))]
        rest, found = range(self.size)[index], list[object]()
        for values in reversed(list(self._axes.values())):
            rest, place = divmod(rest, len(values))
            found.append(values[place])
        return dict(zip(self._axes, reversed(found), strict=True))


def _changed(every: Iterable[Combination], excluded: Sequence[Combination], included: Sequence[Combination]) -> list[Combination]:
    found = [each for each in every if not any(_matches(each, entry) for entry in excluded)]
    own = [dict(each) for each in found]
    for entry in included:
        _include(entry, found, own)
    return found


def _matches(combination: Combination, entry: Mapping[str, object]) -> bool:
    return all(name in combination and _is_same(combination[name], value) for name, value in entry.items())


def _is_same(one: object, other: object) -> bool:
    """As YAML has them: true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _include(entry: Combination, found: list[Combination], own: list[Combination]) -> None:
    """`own` are the combinations as the product made them: what another entry has added may be replaced."""
    is_added = False
    for combination, original in zip(found, own, strict=False):  # what entries have added stands behind them
        if all(_is_same(original.get(name, value), value) for name, value in entry.items()):
            combination.update(entry)
            is_added = True
    if not is_added:
        found.append(dict(entry))


def _listed(name: str, values: object) -> list[object]:
    if isinstance(values, list):
        return values
    raise ExpressionError(f"{name} gives something that is not a list")


def _entry(key: str, entry: object) -> Combination:
    if isinstance(entry, dict):
        return entry
    raise ExpressionError(f"an entry of {key} is a map of names and values")
