"""Structs: what a frozen, slotted dataclass does, as far as anybody can tell, but nothing before the first one is made."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import orjson
import pytest

from jobrunner.structs import REQUIRED, defaults, field, struct


@struct
class Point:
    """Somewhere."""

    NAME: ClassVar[str] = "point"
    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.x + self.y


@struct(kw_only=False, frozen=False)
class Pair:
    first: int
    second: int = 0


@struct(frozen=False, eq=False)
class Place:
    name: str


@struct
class Noted:
    name: str
    note: str = field(compare=False, repr=False)


@struct
class Nothing:
    """No fields."""


@struct(kw_only=False)
class View(Mapping[str, int]):
    values_: dict[str, int]

    def __getitem__(self, key: str) -> int:
        return self.values_[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


def test_fields_are_given_by_name_and_defaults_fill_the_rest() -> None:
    point = Point(x=1)
    assert (point.x, point.y, point.tags, point.total, Point.NAME) == (1, 2, [], 3, "point")


def test_a_default_factory_makes_one_for_each() -> None:
    assert Point(x=1).tags is not Point(x=1).tags


@pytest.mark.parametrize("given", [{}, {"y": 1}, {"x": 1, "z": 2}])
def test_what_is_missing_or_unknown_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Point(**given)


def test_fields_are_given_by_place_only_where_the_struct_says_so() -> None:
    assert Pair(1, 2) == Pair(first=1, second=2)
    with pytest.raises(TypeError):
        Point(1)  # type: ignore[call-arg]  # that is what is tried


def test_there_is_nothing_but_the_fields() -> None:
    with pytest.raises(AttributeError):
        Pair(1).third = 3  # type: ignore[attr-defined]  # that is what is tried
    assert not hasattr(Pair(1), "__dict__")


def test_equal_and_hashed_by_value_and_by_kind() -> None:
    assert Pair(1, 2) == Pair(1, 2) != Pair(2, 1)
    assert hash(Noted(name="a", note="b")) == hash(Noted(name="a", note="c"))
    assert Point(x=1) != Pair(1)  # type: ignore[comparison-overlap]  # that is what is tried
    assert Nothing() == Nothing()
    assert Place(name="a") != Place(name="a")


def test_what_does_not_count_is_no_part_of_the_value_nor_of_the_text() -> None:
    assert Noted(name="a", note="b") == Noted(name="a", note="c")
    assert repr(Noted(name="a", note="b")) == "Noted(name='a')"


def test_the_text_names_the_kind_and_the_fields() -> None:
    assert repr(Point(x=1)) == "Point(x=1, y=2, tags=[])"


def test_dataclasses_takes_it_for_one_of_its_own() -> None:
    assert [each.name for each in dataclasses.fields(Point)] == ["x", "y", "tags"]
    assert Point.__dataclass_fields__ is Point.__dataclass_fields__, "made once"
    assert dataclasses.asdict(Point(x=1)) == {"x": 1, "y": 2, "tags": []}
    assert dataclasses.replace(Point(x=1), y=5) == Point(x=1, y=5)


def test_orjson_takes_it_for_a_dataclass() -> None:
    assert orjson.dumps(Point(x=1)) == b'{"x":1,"y":2,"tags":[]}'


def test_defaults_are_told_in_the_order_of_the_fields() -> None:
    assert [name for name, default in defaults(Point).items() if default is REQUIRED] == ["x"]
    assert list(defaults(Point)) == ["x", "y", "tags"]


@pytest.mark.parametrize("one", [Pair(1, 2), Point(x=1)])
def test_it_can_be_copied_and_pickled(one: Pair | Point) -> None:
    assert copy.copy(one) == copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one


def test_what_is_frozen_never_changes() -> None:
    point = Point(x=1)
    with pytest.raises(AttributeError, match="x of a Point does not change"):
        point.x = 2  # type: ignore[misc]  # that is what is tried
    with pytest.raises(AttributeError):
        del point.x
    pair = Pair(1)
    pair.first = 2
    assert (point.x, pair.first) == (1, 2)


def test_it_matches_by_name() -> None:
    match Point(x=3):
        case Point(x=found):
            assert found == 3


def test_it_may_be_a_mapping() -> None:
    assert dict(View({"a": 1})) == {"a": 1}


def test_dataclasses_and_inspect_are_not_imported_for_it() -> None:
    code = (
        "import sys; from jobrunner.structs import struct\n"
        "class A:\n  __annotations__ = {'a': 'int'}\n"
        "assert struct(A)(a=1).a == 1; print({'dataclasses', 'inspect'} & sys.modules.keys())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
