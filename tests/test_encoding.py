"""Encoding: whatever a value holds, one line of JSON that strict readers take."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner.encoding import dumps

SURROGATE = "\ud800"
"""Put beside a value, it takes the way of what orjson refuses."""


def loaded(value: object) -> Any:
    return json.loads(dumps(value), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


class Wordless:
    """It can be described in no way, not even as a key."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


class Colour(Enum):
    RED = "red"


def endless(width: int) -> list[Any]:
    """A list that holds itself `width` times."""
    value: list[Any] = []
    value.extend([value] * width)
    return value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ([True, 0, -1.5, "ü🎉", {"a": []}], [True, 0, -1.5, "ü🎉", {"a": []}]),
        ((1, (2,)), [1, [2]]),
        ([float("nan"), float("inf"), -float("inf")], [None, None, None]),
        ([2**63, 2**64 - 1, 2**64, -(2**63) - 1], [2**63, 2**64 - 1, 2**64, -(2**63) - 1]),
        ([2**12_000 - 1], [2**12_000 - 1]),
        ([10**5000, -(10**5000)], ["(a number of 16610 bits)"] * 2),
        (SURROGATE, "\\ud800"),
        ("\ud83d\ude00", "\\ud83d\\ude00"),
        ({SURROGATE: [2**70, float("nan")]}, {"\\ud800": [2**70, None]}),
        ({1: 2, None: 3}, {"1": 2, "None": 3}),
        ({(1, 2): 3}, {"(1, 2)": 3}),
        (b"\xff", "b'\\xff'"),
        (Path("/x"), "PosixPath('/x')"),
        ([Path("/x"), SURROGATE], ["PosixPath('/x')", "\\ud800"]),
        (Wordless(), "(Wordless, whose repr raised RuntimeError)"),
        ([Wordless(), SURROGATE], ["(Wordless, whose repr raised RuntimeError)", "\\ud800"]),
        ({Wordless(): 1}, {"(Wordless, whose str raised RuntimeError)": 1}),
        ({10**5000: 1}, {"(int, whose str raised ValueError)": 1}),
        (Colour.RED, "red"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        ('\x00\n\r\x1b\x7f\x85\u2028\ufeff"\\', '\x00\n\r\x1b\x7f\x85\u2028\ufeff"\\'),
        ('\x00\n\r\x1b\x7f\x85\u2028\ufeff"\\' + SURROGATE, '\x00\n\r\x1b\x7f\x85\u2028\ufeff"\\\\ud800'),
        ("a" * (1 << 20) + SURROGATE, "a" * (1 << 20) + "\\ud800"),
    ],
    ids=range(24),  # pytest names a case by its value, and some of these have no name
)
def test_what_json_cannot_hold_is_a_text_that_says_what_it_was(value: object, expected: object) -> None:
    assert loaded(value) == expected


@pytest.mark.parametrize("width", [1, 2, 40])
def test_a_value_without_an_end_is_cut_at_once(width: int) -> None:
    assert loaded(endless(width)) == ["(nested too deeply)"] * width


@pytest.mark.parametrize("depth", [40, 200, 5_000])
def test_a_value_may_be_as_deep_as_it_likes(depth: int) -> None:
    assert b"[[[[" in dumps(nested(depth))
    assert b"[[[[" in dumps([nested(depth), SURROGATE])


def test_what_stands_in_a_value_twice_is_written_twice() -> None:
    twice = [1]
    assert loaded({"a": twice, "b": [twice, twice], "c": SURROGATE}) == {"a": [1], "b": [[1], [1]], "c": "\\ud800"}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters(), max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(anything)
def test_every_value_is_one_line_that_every_reader_takes(value: object) -> None:
    line = dumps(value)
    assert b"\n" not in line
    assert b"\0" not in line
    orjson.loads(line)
    assert loaded(value) == loaded([value])[0]


def test_jq_reads_what_hostile_values_become(tmp_path: Path) -> None:
    values = [SURROGATE, float("nan"), 10**3000, "\x00\x7f\u2028", b"\xff\x00", endless(2), {"\ud800": Wordless()}]
    (tmp_path / "lines").write_bytes(b"\n".join(map(dumps, values)))
    jq = shutil.which("jq")
    assert jq, "jq is not installed"
    ended = subprocess.run([jq, "-c", ".", tmp_path / "lines"], capture_output=True, check=True)
    assert ended.stdout.count(b"\n") == len(values)
