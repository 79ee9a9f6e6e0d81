"""Parameters: parsed by type from the command line, taken as they are from Python, and every mistake named."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from jobrunner import jobfile, spec
from jobrunner.errors import UsageError
from jobrunner.jobfile import params

FOLDER, CWD = Path("/jobs"), Path("/here")


def job(declarations: str) -> spec.Job:
    return jobfile.parse(f"params: {declarations}\ntasks: {{a: {{run: x}}}}".encode(), "a.yaml")


def resolve(declarations: str, **given: object) -> dict[str, object]:
    return dict(params.resolve(job(declarations), given, folder=FOLDER, cwd=CWD))


@pytest.mark.parametrize(
    ("declaration", "given", "value"),
    [
        ("{type: int}", "12", 12),
        ("{type: int}", " -3 ", -3),
        ("{type: int}", 12, 12),
        ("3", "4", 4),
        ("{type: float}", "1.5", 1.5),
        ("{type: float}", "1e3", 1000.0),
        ("{type: float}", 2, 2.0),
        ("1.5", "2", 2.0),
        ("{type: bool}", "true", True),
        ("{type: bool}", "YES", True),
        ("{type: bool}", "0", False),
        ("{type: bool}", "off", False),
        ("{type: bool}", False, False),
        ("{type: bool}", 1, True),
        ("true", "no", False),
        ("{type: str}", "12", "12"),
        ("{type: str}", 12, "12"),
        ("{}", "x", "x"),
        ("null", "x", "x"),
        ("x", "", ""),
        ("{type: date}", "2026-01-31", "2026-01-31"),
        ("{type: date}", datetime.date(2026, 1, 31), "2026-01-31"),
        ("{type: date}", datetime.datetime(2026, 1, 31, 5), "2026-01-31"),
        ("{type: list}", "a, b,c", ["a", "b", "c"]),
        ("{type: list}", '["a", 1, null]', ["a", 1, None]),
        ("{type: list}", "", []),
        ("{type: list}", (1, 2), [1, 2]),
        ("[a]", "x", ["x"]),
        ("{type: path}", "sub/x", "/here/sub/x"),
        ("{type: path}", "../x", "/x"),
        ("{type: path}", "/abs", "/abs"),
        ("{type: path}", Path("p"), "/here/p"),
        ("{type: choice, choices: [a, b]}", "b", "b"),
        ("{type: choice, choices: [1, 2]}", "2", 2),
        ("{choices: [1, 2]}", "2", 2),
        ("{type: int, choices: [1, 2]}", "2", 2),
    ],
)
def test_a_given_value_is_parsed_by_type(declaration: str, given: object, value: object) -> None:
    found = resolve(f"{{p: {declaration}}}", p=given)["p"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("declaration", "given", "message"),
    [
        ("{type: int}", "1.5", "1.5 is not a whole number"),
        ("{type: int}", "x", "x is not a whole number"),
        ("{type: int}", True, "true is not a whole number"),
        ("{type: int}", "1_000", "1_000 is not a whole number"),
        ("{type: int}", "٣", "٣ is not a whole number"),
        ("{type: int}", "9" * 100, "is not a whole number"),
        ("{type: float}", "nan", "nan is not a number"),
        ("{type: float}", "1_0", "1_0 is not a number"),
        ("{type: float}", "inf", "inf is not a number"),
        ("{type: float}", 10**400, "is not a number"),
        ("{type: bool}", "maybe", "maybe is neither true nor false"),
        ("{type: bool}", 2, "2 is neither true nor false"),
        ("{type: str}", ["x"], "is not text"),
        ("{type: date}", "31.1.2026", "31.1.2026 is not a date; write it like 2026-01-31"),
        ("{type: date}", "2026-02-30", "2026-02-30 is not a date"),
        ("{type: list}", "[1, 2", "begins like a JSON list, but is none"),
        ("{type: list}", 3, "3 is not a list"),
        ("{type: list}", [object()], "holds something else"),
        ("{type: path}", "", " is not a path"),
        ("{type: path}", 3, "3 is not a path"),
        ("{type: choice, choices: [a, b]}", "c", "c is not one of a, b"),
        ("{type: int, choices: [1, 2]}", "3", "3 is not one of 1, 2"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_words(declaration: str, given: object, message: str) -> None:
    with pytest.raises(UsageError, match="parameter p: ") as caught:
        resolve(f"{{p: {declaration}}}", p=given)
    assert message in str(caught.value)


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert resolve("{p: {type: path}}", p="~/x") == {"p": "/home/me/x"}


def test_a_default_path_counts_from_the_job_file_and_other_defaults_stay() -> None:
    declarations = "{p: {type: path, default: data}, n: 3, l: [a, 1], s: {description: d}, d: {type: date, default: 2026-01-31}}"
    assert resolve(declarations) == {"p": "/jobs/data", "n": 3, "l": ["a", 1], "s": None, "d": "2026-01-31"}


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        resolve("{root: {required: true}, count: 3}", cuont="1", count="x")
    assert str(caught.value).splitlines() == [
        "parameter cuont: the job has no such parameter. Did you mean 'count'?",
        "parameter root: required, but not given. Set it with --set root=…",
        "parameter count: x is not a whole number",
    ]


def test_the_parameters_of_the_job_are_listed_where_none_is_like_it() -> None:
    with pytest.raises(UsageError, match=r"The job has root, count\."):
        resolve("{root: x, count: 3}", zzz="1")
    with pytest.raises(UsageError, match=r"The job has none\."):
        resolve("{}", zzz="1")
