"""The reader: YAML 1.2 values, where they stand, and what it refuses, each at its line and column."""

from __future__ import annotations

import math

import pytest
import yaml

from jobrunner.errors import JobFileError, Problem
from jobrunner.jobfile import builder, reader
from jobrunner.jobfile.document import MOST_PROBLEMS, Document, Finding


def read(text: str | bytes) -> Document:
    return reader.read(text.encode() if isinstance(text, str) else text, "a.yaml")


def problems(text: str | bytes) -> tuple[Problem, ...]:
    """What is wrong with a text, whether the rest could be read or not."""
    try:
        return read(text).problems
    except JobFileError as error:
        return error.problems


@pytest.fixture(params=["libyaml", "pure"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both parsers of PyYAML: not every installation has the fast one."""
    if request.param == "pure":
        monkeypatch.setattr(yaml, "__with_libyaml__", False)
    return str(request.param)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.10", 1.1),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-1.5e-3", -0.0015),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("22:30", "22:30"),
        ("1:30", "1:30"),
        ("0755", "0755"),
        ("007", "007"),
        ("-01", "-01"),
        ("01.5", "01.5"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2026-01-31", "2026-01-31"),
        ("2026-13-45", "2026-13-45"),
        ("2026-01-31T10:00:00Z", "2026-01-31T10:00:00Z"),
        ("=", "="),
        ("١٢", "١٢"),
        ("'true'", "true"),
        ('"1"', "1"),
        ("|\n  1", "1"),
        (".", "."),
        ("-", [None]),
        ("1.2.3", "1.2.3"),
        ("nan", "nan"),
    ],
)
def test_plain_scalars_are_those_of_yaml_1_2_and_nothing_is_lost(text: str, value: object, parser: str) -> None:
    found = read(text if text == "-" else f"key: {text}").value
    assert found == (value if text == "-" else {"key": value})
    if text != "-":
        assert isinstance(found, dict)
        assert type(found["key"]) is type(value)


def test_not_a_number_is_a_float() -> None:
    value = read("a: .nan").value
    assert isinstance(value, dict)
    assert math.isnan(value["a"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1: a", {"1": "a"}),
        ("true: a", {"true": "a"}),
        ("null: a", {"null": "a"}),
        ("1.10: a", {"1.10": "a"}),
        ("on: a", {"on": "a"}),
        ("? a\n: b", {"a": "b"}),
        ("'<<': a", {"<<": "a"}),
    ],
)
def test_a_key_is_its_text(text: str, value: object, parser: str) -> None:
    assert read(text).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
        ("a: &x 1\nb: [*x, *x]", {"a": 1, "b": [1, 1]}),
        ("a: &x 1\na2: &x 2\nb: *x", {"a": 1, "a2": 2, "b": 2}),
        ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"a": {"p": 1, "q": 2}, "b": {"q": 3, "p": 1}}),
        ("a: &x {p: 1, q: 2}\nb: {q: 3, <<: *x}", {"a": {"p": 1, "q": 2}, "b": {"q": 3, "p": 1}}),
        ("a: &x {p: 1}\nb: &y {p: 2, q: 2}\nc:\n  <<: [*x, *y]", {"a": {"p": 1}, "b": {"p": 2, "q": 2}, "c": {"p": 1, "q": 2}}),
        ("b: {<<: {p: 1}, q: 2}", {"b": {"q": 2, "p": 1}}),
        ("b: {<<: [{p: 1}], q: 2}", {"b": {"q": 2, "p": 1}}),
        ("? &k a\n: 1\n? b\n: *k", {"a": 1, "b": "a"}),
        ("a: &k x\n*k : 1", {"a": "x", "x": 1}),
    ],
)
def test_anchors_aliases_and_merge_keys_work(text: str, value: object, parser: str) -> None:
    document = read(text)
    assert (document.value, document.problems) == (value, ())


def test_a_byte_order_mark_and_windows_line_ends_are_read_and_do_not_shift_positions() -> None:
    document = read(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    problem = document.problem(Finding(path=("b",), message="m"))
    assert (document.value, problem.line, problem.column, problem.source) == ({"a": 1, "b": 2}, 2, 4, "b: 2")


REFUSED: list[tuple[str, str | bytes, int, int, str]] = [
    ("a duplicate key", "a: 1\nb:\n  c: 1\n  d: 1\n  c: 2", 5, 3, "duplicate key in line 5; 'c' stands already in line 3"),
    ("a duplicate quoted key", "a: 1\n'a': 2", 2, 1, "in line 2; 'a' stands already in line 1"),
    ("a duplicate merge key", "a: &a {}\nb:\n  <<: *a\n  <<: *a", 4, 3, "in line 4; '<<' stands already in line 3"),
    ("a merge of text", "a:\n  <<: x", 2, 7, "<< takes a map"),
    ("a tag", "a: !!int 3", 1, 4, "tags are not allowed"),
    ("a tag of nothing", "a: ! x", 1, 4, "tags are not allowed"),
    ("a Python tag", "a: !!python/object/apply:os.system [x]", 1, 4, "tags are not allowed"),
    ("a tag behind an anchor", "a: &x !!map {}", 1, 7, "tags are not allowed"),
    ("a tag on a key", "!!str a: b", 1, 1, "tags are not allowed"),
    ("a broken tag", "a: !<bad", 1, 9, "tags are not allowed"),
    ("a tag with an unknown handle", "a: !x!y z", 1, 4, "tags are not allowed"),
    ("a list as a key", "[a]: 1", 1, 1, "a key is text"),
    ("a map as a key", "? {a: b}\n: 1", 1, 3, "a key is text"),
    ("a forgotten dollar", "a: {{ x }}", 1, 5, '{{ … }} is a map as a key. An expression is written "${{ … }}".'),
    ("a second document", "a: 1\n---\nb: 2", 2, 1, "a second YAML document"),
    ("an alias of nothing", "a: *x", 1, 4, "nothing is anchored as '&x'"),
    ("an alias of itself", "a: &x [1, *x]", 1, 11, "stands inside of what it refers to"),
    ("an alias of itself in a map", "a: &x\n  b: *x", 2, 6, "stands inside of what it refers to"),
    ("a list that is not closed", "a: [1, 2", 1, 9, "a list that begins with '['"),
    ("a map that is not closed", "a: {b: 1", 1, 9, "a map that begins with '{'"),
    ("a quote that is not closed", "a: 'x\nb: 1\nc: 2", 1, 4, "this quote is never closed"),
    ("a double quote that is not closed", 'a: 1\nb: "x', 2, 4, "this quote is never closed"),
    ("a tab that indents", "a:\n\tb: 1", 2, 1, "a tab cannot indent"),
    ("a tab in a block", "a: |\n x\n\ty", 3, 1, "a tab cannot indent"),
    ("a colon in plain text", "a: b: c", 1, 5, "quote the text"),
    ("text without a colon", "a: 1\nb\nc: 2", 2, 1, "expected 'key: value'"),
    ("bad indentation", "a:\n  - b\n c: d", 3, 2, "expected a key here"),
    ("a reserved character", "a: @x", 1, 4, "text cannot begin with '@'"),
    ("an unknown escape", 'a: "\\q"', 1, 5, "unknown escape"),
    ("an expression in a flow list", "args: [${{ a }}]", 1, 8, '${{ }} inside {…} or […] has to be quoted. Write "${{ … }}".'),
    ("an expression in a flow map", "k: {a: ${{ x }}}", 1, 8, "has to be quoted"),
    ("an expression behind text in a flow list", "k: [a-${{ x }}]", 1, 7, "has to be quoted"),
    ("a NUL byte", b"a: 1\nb: \x00", 2, 4, "a NUL byte"),
    ("UTF-16", "a: 1".encode("utf-16"), 1, 1, "save it as UTF-8"),
    ("UTF-16 without a mark", "a: 1".encode("utf-16-le"), 1, 2, "a NUL byte"),
    ("Latin-1", b"a: 1\nb: \xe9", 2, 4, "byte 0xE9 is not UTF-8"),
    ("a cut UTF-8 sequence", "ä: é".encode()[:-1], 1, 4, "byte 0xC3 is not UTF-8"),
    ("an encoded surrogate", b"a: \xed\xa0\x80", 1, 4, "is not UTF-8"),
    ("a lone carriage return", "a: 1\rb: 2", 1, 5, "a carriage return without a line feed"),
    ("a bell", "a: x\x07", 1, 5, "U+0007"),
    ("an escape", "a: \x1b[31m", 1, 4, "U+001B"),
    ("a C1 control", "a: é\x85b", 1, 5, "U+0085"),
    ("a line separator", "a: é\u2028b", 1, 5, "U+2028"),
    ("a byte order mark inside", "a: \ufeffx", 1, 4, "U+FEFF"),
    ("a huge whole number", "a: 1\nb: " + "9" * 5000, 2, 4, "a number of 5000 characters"),
    ("a huge hexadecimal number", "b: 0x" + "f" * 5000, 1, 4, "a number of 5002 characters"),
    ("an unknown directive", "%FOO x\n---\na", 1, 5, "not YAML"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_refused_has_its_position(text: str | bytes, line: int, column: int, message: str) -> None:
    problem = problems(text)[0]
    assert message in str(problem)
    assert (problem.line, problem.column) == (line, column)


@pytest.mark.parametrize("text", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_the_pure_parser_refuses_the_same(text: str | bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    found = problems(text)
    assert found or text in {"%FOO x\n---\na"}


def test_text_that_only_begins_like_a_number_may_be_long() -> None:
    assert read("a: 1" + "x" * 5000).problems == ()


def nested(depth: int, *, flow: bool = True) -> str:
    return "[" * depth + "]" * depth if flow else "\n".join("  " * level + f"k{level}:" for level in range(depth))


@pytest.mark.parametrize(("depth", "fine"), [(64, True), (65, False), (50_000, False)])
def test_lists_are_nested_at_most_64_deep(depth: int, fine: bool) -> None:
    found = problems(nested(depth))
    assert [problem.column for problem in found] == ([] if fine else [65])


def test_aliases_count_towards_the_depth() -> None:
    text = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 100))
    (problem,) = problems(text)
    assert problem.line == 64
    assert "nested more than 64 deep" in problem.message


BOMBS = {
    "laughs": "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40)),
    "merges": "a0: &a0 {k0: 1}\n"
    + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}], k{i}: 1}}\n" for i in range(1, 76)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_expand(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: what aliases and merges stood for when the file was given up."""
    counted: list[int] = []
    count = builder.Builder._count

    def counting(self: builder.Builder, weight: int, mark: yaml.Mark) -> None:
        counted.append(weight)
        count(self, weight, mark)

    monkeypatch.setattr(builder.Builder, "_count", counting)
    (problem,) = problems(BOMBS[name])
    assert "aliases and merge keys expand to more than" in problem.message
    assert sum(counted[:-1]) <= builder.FREE_COPIES + len(BOMBS[name])


def test_a_task_template_merged_into_very_many_tasks_is_no_bomb() -> None:
    rows = "".join(f"t{i}: {{<<: *d, n: {i}}}\n" for i in range(20_000))
    assert read("d: &d {a: 1, b: 2, c: 3}\n" + rows).problems == ()


def test_problems_of_one_file_have_an_end() -> None:
    found = problems("a: 1\n" * 10_000)
    assert len(found) == MOST_PROBLEMS + 1
    assert "the rest of the file is not read" in found[-1].message


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("tasks:\n  a:\n    run:ls -l\n    timeout: 1m", (3, 8)),
        ("tasks:\n  a:\n    run:ls\r\n    timeout: 1m\r\n", (3, 8)),
        ("a:\n- run:ls\n  timeout: 1m", (2, 6)),
        ("run:ls\ntimeout: 1m", (1, 4)),
        ("a:\n  b: http://x\n  c:\n   d:/e\n   f: g", None),
        ("a:\n  run:ls\n    timeout: 1m", None),  # it is deeper, and so may be text that goes on
        ("a: b: c", None),
        ("a:b:\n<<: c:", None),
        ("a:b: c\nd: e: f", None),
        ("if: |\nif: tasks:", None),
    ],
)
def test_a_key_without_a_space_is_told_on_its_own_line(text: str, place: tuple[int, int] | None) -> None:
    with pytest.raises(JobFileError) as caught:
        reader.read(text.encode(), "job.yaml")
    problem = caught.value.problems[-1]
    if place is None:
        assert problem.message != "a space is missing behind the ':'."
    else:
        assert (problem.message, problem.line, problem.column) == ("a space is missing behind the ':'.", *place)
        assert problem.hint in {"Write run: ls -l", "Write run: ls"}
