"""Items and their keys: short and readable where they can be, unique always, the same from run to run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner.items import Items


@pytest.mark.parametrize(
    ("items", "keys"),
    [
        (["a.csv", "b/c.csv"], ["a.csv", "b/c.csv"]),
        ([1, 2.5, True, None], ["1", "2.5", "true", "null"]),
        ([{"b": 1, "a": [2]}], ['{"a":[2],"b":1}']),
        (["a", "a", "b"], ["0-ca978112ca1b", "1-ca978112ca1b", "b"]),
        (["1", 1], ["0-6b86b273ff34", "1-6b86b273ff34"]),
        ([""], ["0-e3b0c44298fc"]),
        (["x" * 120], ["x" * 120]),
        (["x" * 121], ["0-79072a47bfaa"]),
        (["line\nend"], ["0-fd3b5b4e2127"]),
        (["\x1b[31m"], ["0-83a738788fd1"]),
        (["Füße 🎉"], ["Füße 🎉"]),
    ],
)
def test_a_key_is_the_text_where_that_is_short_printable_and_unique(items: list[object], keys: list[str]) -> None:
    made = Items(items)
    assert [made.key(index) for index in range(len(items))] == keys


def test_a_lone_surrogate_has_a_key_that_can_be_written_to_a_file() -> None:
    Items(["\ud800"]).key(0).encode()


def test_a_text_that_looks_like_the_key_of_another_item_is_not_taken_as_it_is() -> None:
    long = "x" * 500
    copy = Items([long]).key(0)
    items = Items([long, copy])
    assert items.key(0) != items.key(1)


def test_a_range_of_a_hundred_million_items_costs_nothing() -> None:
    items = Items(range(100_000_000))
    assert len(items) == 100_000_000
    assert items.key(99_999_999) == "99999999"


def test_items_are_a_sequence() -> None:
    items = Items(["a", "b"])
    assert list(items) == ["a", "b"]
    assert items[0:1] == ["a"]
    assert "b" in items
    assert not Items([])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(items=st.lists(json_values, max_size=8))
def test_no_two_items_share_a_key_and_keys_do_not_change_from_run_to_run(items: list[object]) -> None:
    first, second = Items(items), Items(list(items))
    keys = [first.key(index) for index in range(len(items))]
    assert len(set(keys)) == len(keys)
    assert keys == [second.key(index) for index in range(len(items))]
    assert all(key.isprintable() and 0 < len(key) <= 120 for key in keys)


def test_of_very_many_items_the_repeated_ones_are_found_too() -> None:
    values = [str(number) for number in range(30_000)] + ["7", "29999"]
    items = Items(values)
    assert items.key(6) == "6"
    assert {items.key(7), items.key(30_000)} == {"7-7902699be42c", "30000-7902699be42c"}
    assert items.key(30_001).startswith("30001-")
    assert items.key(29_998) == "29998"
