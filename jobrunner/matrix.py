"""The combinations of a `matrix`: every value of one name with every value of the others, as GitHub Actions reads it.

`exclude` drops those that match all pairs of one of its entries. Then each entry of `include` is added to every combination
that it would not change a value of; to none: it is a combination of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from jobrunner.errors import ExpressionError
from jobrunner.expressions import text_of
from jobrunner.items import Items

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


def combinations(matrix: Mapping[str, object]) -> list[Combination]:
    """All combinations, the last name changing fastest. Raises ExpressionError where a value has the wrong shape."""
    axes = {name: _listed(name, values) for name, values in matrix.items() if name not in ADDING}
    excluded = [_entry("exclude", each) for each in _listed("exclude", matrix.get("exclude", []))]
    found = [each for each in _product(axes) if not any(_matches(each, entry) for entry in excluded)]
    own = [dict(each) for each in found]
    for entry in _listed("include", matrix.get("include", [])):
        _include(_entry("include", entry), found, own)
    return found


def items(matrix: Mapping[str, object]) -> Items:
    """The combinations as items of a fan-out, each named by its values."""
    found = combinations(matrix)
    return Items(found, [",".join(text_of(value) for value in each.values()) for each in found])


def _product(axes: Mapping[str, Sequence[object]]) -> Iterator[Combination]:
    return (dict(zip(axes, values, strict=True)) for values in product(*axes.values())) if axes else iter(())


def _matches(combination: Combination, entry: Mapping[str, object]) -> bool:
    return all(name in combination and combination[name] == value for name, value in entry.items())


def _include(entry: Combination, found: list[Combination], own: list[Combination]) -> None:
    """`own` are the combinations as the product made them: what another entry has added may be replaced."""
    is_added = False
    for combination, original in zip(found, own, strict=False):  # what entries have added stands behind them
        if all(original.get(name, value) == value for name, value in entry.items()):
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
