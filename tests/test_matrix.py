"""The combinations of a matrix. Expected values of the rules for include are the ones that GitHub's documentation shows."""

from __future__ import annotations

from typing import Any

import pytest

from jobrunner.bind import matrix
from jobrunner.errors import ExpressionError

FRUIT: dict[str, Any] = {"fruit": ["apple", "pear"], "animal": ["cat", "dog"]}


@pytest.mark.parametrize(
    ("given", "combinations"),
    [
        pytest.param({"a": [1, 2]}, [{"a": 1}, {"a": 2}], id="one name"),
        pytest.param(
            {"a": [1, 2], "b": ["x", "y"]},
            [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}],
            id="the last name changes fastest",
        ),
        pytest.param({"a": [1], "b": []}, [], id="no value of a name: no combination"),
        pytest.param({"a": [1, 2], "exclude": [{"a": 1}]}, [{"a": 2}], id="exclude"),
        pytest.param(
            {"a": [1, 2], "b": [1, 2], "exclude": [{"a": 1}, {"a": 2, "b": 2}]},
            [{"a": 2, "b": 1}],
            id="exclude by some of the names",
        ),
        pytest.param({"a": [1, True], "exclude": [{"a": True}]}, [{"a": 1}], id="true is not 1"),
        pytest.param({"a": [1], "exclude": [{"c": 1}]}, [{"a": 1}], id="exclude by a name that is none matches nothing"),
        pytest.param({"include": [{"a": 1}, {"b": 2}]}, [{"a": 1}, {"b": 2}], id="include alone is a list of combinations"),
        pytest.param({"a": [1], "exclude": [{"a": 1}], "include": [{"a": 1}]}, [{"a": 1}], id="include comes after exclude"),
        pytest.param(
            {
                **FRUIT,
                "include": [
                    {"color": "green"},
                    {"color": "pink", "animal": "cat"},
                    {"fruit": "apple", "shape": "circle"},
                    {"fruit": "banana"},
                    {"fruit": "banana", "animal": "cat"},
                ],
            },
            [
                {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
                {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
                {"fruit": "pear", "animal": "cat", "color": "pink"},
                {"fruit": "pear", "animal": "dog", "color": "green"},
                {"fruit": "banana"},
                {"fruit": "banana", "animal": "cat"},
            ],
            id="include, as GitHub documents it",
        ),
    ],
)
def test_the_combinations_of_a_matrix(given: dict[str, Any], combinations: list[dict[str, Any]]) -> None:
    assert list(matrix.combinations(given)) == combinations


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": "text"}, "a gives something that is not a list"),
        ({"a": [1], "include": ["x"]}, "an entry of include is a map"),
        ({"a": [1], "exclude": 5}, "exclude gives something that is not a list"),
    ],
)
def test_what_has_the_wrong_shape_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        matrix.combinations(given)


def test_an_instance_is_named_by_its_values() -> None:
    items = matrix.items({"python": ["3.11", "3.12"], "slow": [True, None]})
    assert [items.key(index) for index in range(4)] == ["3.11,true", "3.11,", "3.12,true", "3.12,"]


def test_instances_whose_values_read_alike_are_named_by_place_and_content() -> None:
    items = matrix.items({"a": ["1", 1]})
    keys = [items.key(index) for index in range(2)]
    assert [key.split("-")[0] for key in keys] == ["0", "1"]
    assert keys[0].split("-")[1] != keys[1].split("-")[1]


def test_a_name_that_a_combination_does_not_have_is_null() -> None:
    values = matrix.Values({"a": 1})
    assert values["a"] == 1
    assert values["b"] is None
    assert dict(values) == {"a": 1}


def test_ten_million_combinations_are_made_when_they_are_asked_for() -> None:
    found = matrix.combinations({"a": list(range(1000)), "b": list(range(100)), "c": list(range(100))})
    assert len(found) == 10_000_000
    assert found[0] == {"a": 0, "b": 0, "c": 0}
    assert found[-1] == {"a": 999, "b": 99, "c": 99}
    assert found[12_345] == {"a": 1, "b": 23, "c": 45}
    assert found[98:102] == [
        {"a": 0, "b": 0, "c": 98},
        {"a": 0, "b": 0, "c": 99},
        {"a": 0, "b": 1, "c": 0},
        {"a": 0, "b": 1, "c": 1},
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": list(range(10_000)), "b": list(range(10_000))}, "it has 100,000,000 combinations; at most 10,000,000 are made"),
        ({"a": list(range(500)), "b": list(range(500)), "exclude": [{"a": 1}]}, "it has 250,000 combinations; at most 100,000"),
        ({"include": [{"a": 1}] * 100_001}, "it has 100,001 combinations"),
        ({"a": list(range(100)), "include": [{"b": 1}] * 50_000}, "50,000 entries for 100 combinations; that is too much"),
    ],
)
def test_too_many_combinations_are_refused_before_they_are_made(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        matrix.combinations(given)
