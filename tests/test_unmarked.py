"""Values without marks: what is read so is what the Builder makes of it, and places are found all the same."""

from __future__ import annotations

import glob

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobrunner.errors import JobFileError
from jobrunner.jobfile import reader, unmarked
from jobrunner.jobfile.document import Document, Finding


def found(text: str) -> unmarked.Unmarked | None:
    return unmarked.read(reader._parser(text.encode()))


def marked(text: str) -> Document:
    return reader._marked(text.encode(), text, "a.yaml")


def shown(value: object, raws: unmarked.Raws) -> object:
    """A value with the types of all scalars, the order of keys, and how numbers are written."""
    written = raws.get(id(value), {})
    if isinstance(value, dict):
        return [(key, shown(each, raws), written.get(key)) for key, each in value.items()]
    if isinstance(value, list):
        return {"list": [(shown(each, raws), written.get(place)) for place, each in enumerate(value)]}
    return repr(value)


TAKEN = [
    "",
    "# a\n",
    "a",
    "[]",
    "- a\n- - b\n  - {c: [d, 1.10]}\n",
    "a:\n  b: 1\n  c:\n    d: 2\n  e: 3\nf: 4\n",
    "a: 1\nb: 1.10\nc: +3\nd: 0755\ne: .5\nf: -1e3\ng: 0x1F\nh: .inf\ni: -v\nj: 1.\nk: '1.10'\n",
    "a: null\nb: ~\nc: true\nd: FALSE\ne: no\nf: 22:30\ng: 2026-01-31\nh:\ni: ''\nj: 'true'\n",
    "a: |\n  b\n  c\nd: >-\n  e\n  f\n'<': g\n",
    *("[" * depth + "]" * depth for depth in (1, 64)),
]


@pytest.mark.parametrize("text", TAKEN)
def test_what_holds_nothing_odd_is_read_without_marks_for_what_it_is(text: str) -> None:
    taken, document = found(text), marked(text)
    assert taken is not None
    assert shown(taken.value, taken.raws) == shown(document.value, document.raws)


LEFT = {
    "an anchor": "a: &b c\n",
    "an anchored map": "a: &b {c: d}\n",
    "an alias": "a: *b\n",
    "a tag": "a: !!str 1\n",
    "a tagged list": "a: !!seq []\n",
    "a key twice": "a: 1\na: 2\n",
    "a merge": "<<: {a: b}\n",
    "a list as a key": "? [a]\n: b\n",
    "an alias as a key": "? *a\n: b\n",
    "a second document": "a: b\n---\nc: d\n",
    "no YAML": "a: [b\n",
    "an escape that is none": 'a: "\\q"\n',
    "a number that is too long": f"a: {'1' * 5000}\n",
    "what is too deep": "[" * 65 + "]" * 65,
}


@pytest.mark.parametrize("what", LEFT)
def test_what_is_odd_is_left_to_the_builder(what: str) -> None:
    assert found(LEFT[what]) is None


@pytest.mark.parametrize("path", sorted(glob.glob("jobs/*.y*ml")))
def test_the_examples_are_read_without_marks(path: str) -> None:
    assert reader.read(reader.source_of(path), path).again is not None


PIECES = [
    *("a", "b", "- ", "-", ": ", ":", "#", " #", " ", "  ", "'", '"', "[", "]", "{", "}", ", ", "${{ x }}", "\n", "\n  ", "\n- "),
    *("a: ", "\nb: ", "\n  c: ", "\n  d:", "1", "1.10", "-1", "0755", "null", "~", "true", ".inf", "[a, b]", "{a: b}", "'x'"),
    *("--x", "\n---\n", "\n...\n", "<<", "&a ", "*a", "!", "!!str ", "|\n ", ">", "? ", "%", "@", "\\", "''", "é", "=", "/"),
]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=14).map("".join)


@settings(max_examples=2000, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(TEXTS, TEXTS.map("a: ".__add__)))
def test_what_is_read_without_marks_is_what_the_builder_makes_of_it_without_a_problem(text: str) -> None:
    if (taken := found(text)) is None:
        return
    document = marked(text)
    assert document.problems == ()
    assert shown(taken.value, taken.raws) == shown(document.value, document.raws)


def test_places_are_found_in_a_text_that_was_read_without_marks_which_is_read_once_more_for_all_of_them() -> None:
    text = "a:\n  b: 1\n  c: [x, 'y']\n"
    document = reader.read(text.encode(), "a.yaml")
    assert document.again is not None
    assert document.marks == {}
    for path in ((), ("a",), ("a", "b"), ("a", "c", 1)):
        finding = Finding(path=path, message="no", at_key=path != ())
        assert document.problem(finding) == marked(text).problem(finding)
    assert document.again() is document.again()


def test_what_is_wrong_late_in_a_file_is_told_with_its_place() -> None:
    with pytest.raises(JobFileError) as refused:
        reader.read(b"tasks:\n  a:\n    run: x\n    env: [\n", "a.yaml")
    assert [(problem.line, problem.column) for problem in refused.value.problems] == [(5, 1)]
