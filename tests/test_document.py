"""Documents: every key, value and place inside a text has its line and column, and plain scalars are kept as written."""

from __future__ import annotations

import pytest
import yaml

from jobrunner.jobfile import reader
from jobrunner.jobfile.document import LONGEST_LINE, Document, Finding, Path, dotted


def read(text: str) -> Document:
    return reader.read(text.encode(), "a.yaml")


@pytest.fixture(params=["libyaml", "pure"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both parsers of PyYAML: not every installation has the fast one."""
    if request.param == "pure":
        monkeypatch.setattr(yaml, "__with_libyaml__", False)
    return str(request.param)


TEXT = """\
name: x
tasks:
  first:
    run: "echo ä ${{ a }}"
    args: [1, 'two', "three"]
    kwargs: {p: plain text, q: {r: [10, 20]}}
  second: {env: {A: 1.10}}
"""


@pytest.mark.parametrize(
    ("path", "at_key", "place"),
    [
        (("name",), True, (1, 1, 4)),
        (("name",), False, (1, 7, 1)),
        (("tasks", "first"), True, (3, 3, 5)),
        (("tasks", "first"), False, (4, 5, 1)),
        (("tasks", "first", "run"), False, (4, 10, 17)),
        (("tasks", "first", "args"), False, (5, 11, 1)),
        (("tasks", "first", "args", 0), False, (5, 12, 1)),
        (("tasks", "first", "args", 1), False, (5, 15, 5)),
        (("tasks", "first", "args", 2), False, (5, 22, 7)),
        (("tasks", "first", "kwargs", "p"), False, (6, 17, 10)),
        (("tasks", "first", "kwargs", "q", "r", 1), False, (6, 41, 2)),
        (("tasks", "second", "env", "A"), True, (7, 18, 1)),
        (("tasks", "second", "env", "A"), False, (7, 21, 4)),
        (("tasks", "second", "env", "<union>", "A"), False, (7, 21, 4)),
        (("tasks", "third", "x"), False, (3, 3, 1)),
        ((), False, (1, 1, 1)),
    ],
)
def test_every_key_and_value_has_line_column_and_length(
    path: Path, at_key: bool, place: tuple[int, int, int], parser: str
) -> None:
    problem = read(TEXT).problem(Finding(path=path, message="m", at_key=at_key))
    assert (problem.line, problem.column, problem.length) == place


def test_keys_that_came_by_a_merge_stand_where_they_were_written() -> None:
    document = read("a: &a\n  p: 1\n  q: 2\nb:\n  <<: *a\n  q: 3\n  r: 4\n")
    lines = {key: document.line(("b", key), at_key=True) for key in "pqr"}
    assert lines == {"p": 2, "q": 6, "r": 7}


@pytest.mark.parametrize(
    ("text", "needle", "place"),
    [
        ("a: x ${{ NAME }}", "NAME", (1, 10)),
        ("a: 'x ${{ NAME }}'", "NAME", (1, 11)),
        ('a: "ä \\t ${{ NAME }}"', "NAME", (1, 14)),
        ("a: 'it''s ${{ NAME }}'", "NAME", (1, 15)),
        ("a: ${{ one }} ${{ NAME }}", "NAME", (1, 19)),
        ("a: |\n  one\n  two ${{ NAME }}", "NAME", (3, 11)),
        ("a: >-\n  one\n  two ${{ NAME }}", "NAME", (3, 11)),
        ("a: |\n\n    ${{ one }}\n      ${{ one + NAME }}", "NAME", (4, 17)),
        ("a: one\n  two ${{ NAME }}", "NAME", (2, 11)),
        ("a: 'one\n\n  two ${{ NAME }}'", "NAME", (3, 11)),
        ('a: "\\u0024{{ NAME }}"', "NAME", (1, 4)),
        ("a: &x ${{ NAME }}", "NAME", (1, 11)),
        ("a: one and NAME", "NAME", (1, 12)),
        ("a: one\n  and (NAME)", "NAME", (2, 8)),
        ("a: 'it''s \"x\" and NAME'", "NAME", (1, 19)),
        ('a: "it\'s \\"x\\" and NAME"', "NAME", (1, 20)),
        ("a: |-\n  one\n   and NAME", "NAME", (3, 8)),
        ("a: >\n\n  one\n  NAME", "NAME", (4, 3)),
        ("a: '  NAME'", "NAME", (1, 7)),
        ("a: NAME", "NAME", (1, 4)),
        ("a: 'NAME'", "NAME", (1, 5)),
        ('a: "\\\\ NAME"', "NAME", (1, 4)),
        ("a: " + "x " * 2000 + "NAME", "NAME", (1, 4)),
    ],
)
def test_a_place_inside_a_scalar_has_its_own_position(text: str, needle: str, place: tuple[int, int]) -> None:
    document = read(text)
    value = document.at(("a",))
    assert isinstance(value, str)
    problem = document.problem(Finding(path=("a",), message="m", offset=value.index(needle), length=len(needle)))
    assert (problem.line, problem.column) == place


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("1.10", "1.10"),
        ("12", "12"),
        ("0x1F", "0x1F"),
        ("1e3", "1e3"),
        ("true", "true"),
        ("True", "true"),
        ("no", "no"),
        ("", ""),
        ("null", ""),
        ("~", ""),
        ("0755", "0755"),
        ("*n", "2.50"),
        ("[1]", [1]),
    ],
)
def test_plain_scalars_can_be_had_as_they_were_written(written: str, text: object) -> None:
    document = read(f"n: &n 2.50\nenv:\n  A: {written}\n")
    env = document.at(("env",))
    assert isinstance(env, dict)
    assert document.as_written(env) == {"A": text}


def test_merged_scalars_can_be_had_as_they_were_written() -> None:
    document = read("a: &a {V: 1.10}\nb: {<<: *a}\n")
    merged = document.at(("b",))
    assert isinstance(merged, dict)
    assert document.as_written(merged) == {"V": "1.10"}


def test_a_long_line_is_shown_up_to_a_limit_and_the_caret_stays_in_it() -> None:
    document = read("a: [" + "x, " * 200 + "last]")
    early = document.problem(Finding(path=("a", 0), message="m"))
    late = document.problem(Finding(path=("a", 200), message="m"))
    assert len(early.source) == LONGEST_LINE
    assert (late.column, late.source) == (605, "")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("tasks", "a", "args", 0), "tasks.a.args[0]"),
        (("tasks", "a b"), "tasks['a b']"),
        (("tasks", "\x1b[31m"), "tasks['\N{REPLACEMENT CHARACTER}[31m']"),
        ((0, "x"), "[0].x"),
    ],
)
def test_a_path_is_shown_as_people_read_it(path: Path, text: str) -> None:
    assert dotted(path) == text
