"""The value of an expression: its type, what is said when it cannot be had, default(), and lazy scopes."""

from __future__ import annotations

import ast
import importlib.metadata
import posixpath
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
import simpleeval  # type: ignore[import-untyped]  # it ships no types
from hypothesis import given
from hypothesis import strategies as st

from jobrunner.errors import ExpressionError
from jobrunner.expressions import grammar, texts
from jobrunner.expressions.code import STATUS, Code
from jobrunner.expressions.evaluation import FUNCTIONS, METHODS, OPERATIONS, Evaluation
from tests.templates import SCOPE, failed, template, value

ACCEPTED: list[tuple[str, object]] = [
    ("item", SCOPE["item"]),
    ("item.path[0]", "a.txt"),
    ("item.path[-1]", "b.txt"),
    ("item['path'][1]", "b.txt"),
    ("item.items", "a key"),
    ("item.keys", 1),
    ("item['']", "empty key"),
    ("item.nested.deep[0].x", 7),
    ("item.path[1:]", ["b.txt"]),
    ("params.root[:4]", "/srv"),
    ("item.path[index - 4]", "a.txt"),
    ("tasks['list-files'].result", ["x", "y z"]),
    ("params.n - 1", 2),
    ("params.n-index", -1),
    ("1", 1),
    ("-1.5", -1.5),
    ("1e3", 1000.0),
    ("'text'", "text"),
    ("'\\d'", "\\d"),
    ('"é"', "é"),
    ("[True, False, None, true, false, null]", [True, False, None, True, False, None]),
    ("[]", []),
    ("1 + 2 * 3 ** 2", 19),
    ("7 / 2", 3.5),
    ("7 // 2", 3),
    ("7 % 4", 3),
    ("'a' + 'b'", "ab"),
    ("[1] + [2]", [1, 2]),
    ("2 ** 100", 2**100),
    ("2 ** -1", 0.5),
    ("1 < 2 <= 2", True),
    ("1 < 2 > 2", False),
    ("1 == 1.0 != 2", True),
    ("'a' in ['a']", True),
    ("'b' not in 'abc'", False),
    ("'root' in params", True),
    ("true and 0 or 'last'", "last"),
    ("not params.none", True),
    ("'yes' if params.on else 'no'", "yes"),
    ("1 if false else [2]", [2]),
    ("params.none == null", True),
    ("len(item.path)", 2),
    ("min(3, 1)", 1),
    ("max([1, 5])", 5),
    ("sum(tasks.list.result)", 6),
    ("sorted(tasks.list.result)", [1, 2, 3]),
    ("str(true)", "true"),
    ("str([1, 'a'])", '[1,"a"]'),
    ("int('12') + 1", 13),
    ("float('1.5')", 1.5),
    ("join([1, 'a', true])", "1,a,true"),
    ("join(['a', 'b'], ' ')", "a b"),
    ("join(['a', 'b'], sep='-')", "a-b"),
    ("quote('a b')", "'a b'"),
    ("raw('a b')", "a b"),
    ("basename('a/b/c.tar.gz')", "c.tar.gz"),
    ("basename('a')", "a"),
    ("basename('a/b//')", "b"),
    ("basename('/')", ""),
    ("dirname('a/b/c.txt')", "a/b"),
    ("dirname('a')", "."),
    ("dirname('a/b/')", "a"),
    ("dirname('/a')", "/"),
    ("dirname('/')", "/"),
    ("stem('a/b.c/d.tar.gz')", "d.tar"),
    ("stem('a/b.c/d')", "d"),
    ("stem('.profile')", ".profile"),
    ("stem('/')", ""),
    ("relative('/srv/in/a/b.csv', '/srv/in/')", "a/b.csv"),
    ("relative('/srv/out', '/srv/in/a')", "../../out"),
    ("relative('a/./b//c', 'a')", "b/c"),
    ("relative('../a', 'b')", "../../a"),
    ("relative('../a', '..')", "a"),
    ("relative('a/..', '.')", "."),
    ("relative('/a', '//')", "a"),
    ("replace('a.b.c', '.', '')", "abc"),
    ("replace('abc', 'x', 'y')", "abc"),
]


@pytest.mark.parametrize(("source", "expected"), ACCEPTED)
def test_an_expression_keeps_the_type_of_its_value(source: str, expected: object) -> None:
    found = value(source)
    assert found == expected
    assert type(found) is type(expected)


# --- look-ups that fail


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("items", "`items`: items is not known here; there is params, env, item, index, run, …", ""),
        ("tasks.lost", "`tasks.lost`: `tasks` has no 'lost'; there is list, list-files", "Did you mean 'list'?"),
        ("params.rot", "`params.rot`: `params` has no 'rot'; there is root, n, half, on, none, …", "Did you mean 'root'?"),
        ("item.path[2]", "`item.path[2]`: `item.path` has no [2]; its length is 2", ""),
        ("item.path.x", "`item.path.x`: `item.path` is a list, which has no 'x'", ""),
        ("item.path['x']", "`item.path['x']`: `item.path` is a list, which has no 'x'", ""),
        ("item[0]", "`item[0]`: `item` has no [0]; there is path, items, keys, nested, ", ""),
        ("item[0:1]", "`item[0:1]`: `item` is a map, which has no slices", ""),
        ("index.real", "`index.real`: `index` is a number, which has no 'real'", ""),
        ("params.root.upper", "`params.root.upper`: `params.root` is text, which has no 'upper'", ""),
        ("params.none.x", "`params.none.x`: `params.none` is null, which has no 'x'", ""),
        ("params.on[0]", "`params.on[0]`: `params.on` is true or false, which has no [0]", ""),
        ("item.path[true]", "`item.path[true]`: `item.path` is a list, which has no [true]", ""),
        ("item.__class__", "`item.__class__`: `item` has no '__class__'; there is path, items, keys, nested, ", ""),
        (
            "tasks.list-files.result",
            "`tasks.list-files.result`: files is not known here; there is params, env, item, index, run, …",
            "A name with a hyphen is written tasks['list-files'].",
        ),
    ],
)
def test_a_look_up_that_fails_says_what_is_missing_and_what_there_is(source: str, message: str, hint: str) -> None:
    error = failed(source)
    assert (str(error), error.hint) == (message, hint)


def test_a_failed_look_up_marks_its_own_place() -> None:
    text = "é ${{ 1 + len(params.rot) }}"
    with pytest.raises(ExpressionError) as caught:
        template(text).value(SCOPE)
    assert text[caught.value.offset :][: caught.value.length] == "params.rot"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1 / 0", "division by zero"),
        ("1 % 0", "division by zero"),
        ("1 + 'a'", "+ joins two numbers"),
        ("'a' * 3", "* works on two numbers, not on text and a number"),
        ("'%9999999999d' % 1", "% works on two numbers"),
        ("[0] * 10 ** 9", "* works on two numbers, not on a list"),
        ("9 ** 9 ** 9", "too large"),
        ("2 ** 5000", "too large"),
        ("2.0 ** 5000", "too large"),
        ("(0 - 8) ** 0.5", "complex"),
        ("1e308 * 10", "too large"),
        ("float('nan')", "not a number"),
        ("int('x')", "'x' is not the text of a whole number"),
        ("int('9' * 1)", "* works on two numbers"),
        ("int([1])", "int() takes a number or the text of one, not a list"),
        ("int(null)", "int() takes a number or the text of one, not null"),
        ("float('1,5')", "'1,5' is not the text of a number"),
        ("float([1])", "float() takes a number or the text of one, not a list"),
        ("int('9' + '9')[0]", "is a number, which has no [0]"),
        ("len(1)", "len() takes a text, a list or a map, not a number"),
        ("min([])", "`min([])`: min() of an empty list has no value"),
        ("min(0)", "min() takes a list whose elements are all numbers or all texts, not a number"),
        ("max(1, 'a')", "max() takes a list whose elements are all numbers or all texts, not one of a number and text"),
        ("sorted(true)", "sorted() takes a list whose elements are all numbers or all texts, not true or false"),
        ("sum(['a', 1])", "sum() takes a list of numbers, or of lists, not one of text and a number"),
        ("sum('x')", "sum() takes a list of numbers, or of lists, not text"),
        ("sorted([1, 'a'])", "all numbers or all texts, not one of a number and text"),
        ("1 < 'a'", "< compares two numbers, two texts or two lists, not a number and text; int(x) makes a number of x"),
        ("[1] >= ['a']", ">= compares two lists only where their elements are all numbers or all texts"),
        ("null <= 1", "<= compares two numbers, two texts or two lists, not null and a number"),
        ("[] > 1", "> compares two numbers, two texts or two lists, not a list and a number"),
        ("1 in 2", "`in` looks for a text in a text, an element in a list or a key in a map, not for a number in a number"),
        ("3 not in 'a3'", "not for a number in text"),
        ("[1] in params", "not for a list in a map"),
        ("-'a'", "- stands in front of a number, not of text"),
        ("+[1]", "+ stands in front of a number, not of a list"),
        ("join('abc')", "join() takes a list"),
        ("join([], 1)", "join() takes a list"),
        ("basename(1)", "basename() takes the text of a path, not a number"),
        ("stem(null)", "stem() takes the text of a path, not null"),
        ("dirname('')", "dirname() is given an empty text"),
        ("relative('/a/b', 'a')", "relative() cannot tell the way: '/a/b' is absolute, and 'a' is not"),
        ("relative('a', '/a/b')", "relative() cannot tell the way: '/a/b' is absolute, and 'a' is not"),
        ("relative('a', '../b')", "relative() cannot tell the way out of '../b'"),
        ("relative('a', [])", "relative() takes the text of a path, not a list"),
        ("replace('a', 1, 'b')", "replace() takes three texts, not text, a number and text"),
        ("replace('a', '', 'b')", "replace() is told to look for empty text"),
        ("item.path[::0]", "slice step"),
        ("params[[1]]", "`params` is a map, which has no [[1]]"),
        ("item.path['a':]", "a slice goes from one whole number to another; text is none"),
        ("item.path[:true]", "a slice goes from one whole number to another; true or false is none"),
    ],
)
def test_whatever_goes_wrong_names_the_expression(source: str, words: str) -> None:
    error = failed(source)
    assert words in str(error)
    assert f"`{source}`" in str(error)


def test_a_long_expression_is_shortened_in_messages() -> None:
    assert "…`: division" in str(failed("1 / 0 + " + "len('" + "x" * 200 + "')"))


def test_a_path_that_was_raw_is_quoted_again() -> None:
    assert [type(value(f"{name}(raw('a/b'))")) for name in ("basename", "dirname", "stem")] == [str] * 3
    assert [type(value(f"replace(raw('a'), '{old}', 'c')")) for old in "ab"] == [str] * 2


@given(st.text("ab./", min_size=1, max_size=12), st.text("ab./", min_size=1, max_size=12))
def test_the_relative_way_from_a_folder_leads_to_the_path(path: str, start: str) -> None:
    if path.startswith("/") != start.startswith("/"):
        return
    try:
        found = texts.relative(path, start)
    except ValueError:
        assert ".." in posixpath.normpath(start)
        return
    there, wanted = (posixpath.abspath(each) for each in (posixpath.join(start, found), path))
    assert there.lstrip("/") == wanted.lstrip("/")  # POSIX keeps two slashes at the start, and nobody means them


def test_text_that_would_fill_the_memory_is_not_made() -> None:
    scope = {"item": ["x" * 6_000_000] * 2}
    assert "at most 10,000,000" in str(failed("item[0] + item[1]", scope))
    assert "at most 10,000,000" in str(failed("join(item)", scope))
    assert "at most 10,000,000" in str(failed("join([1] + item[:1], item[0])", scope))
    assert "at most 10,000,000" in str(failed("replace(item[0], 'x', 'xx')", scope))
    assert "at most 10,000,000" in str(failed("relative('a', item[0])", scope))


# --- default, lazy scopes


class Lazy(Mapping[str, object]):
    """A Mapping that computes its values, and says why it cannot."""

    def __getitem__(self, key: str) -> object:
        if key == "late":
            raise ExpressionError("late has not run")
        if key == "list":
            return {"result": [1]}
        if key == "inner":
            return template("${{ 1 + item }}").value({"item": 1})
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(["list", "inner"])

    def __len__(self) -> int:
        return 2


LAZY: dict[str, object] = {"tasks": Lazy(), "item": 40}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("default(params.x, 1)", 1),
        ("default(tasks.nope.result, 'none')", "none"),
        ("default(tasks.late.result, 'not run')", "not run"),
        ("default(tasks.list.result[5], null)", None),
        ("default(tasks.list.result, 1 / 0)", [1]),
        ("default(null, 2)", 2),
        ("default(false, 2)", False),
        ("default('', 2)", ""),
        ("default(default(nope, null), 3)", 3),
        ("default(nope + 1, 3)", 3),
    ],
)
def test_default_gives_the_fallback_for_what_is_missing_or_null(source: str, expected: object) -> None:
    assert value(source, LAZY) == expected


def test_default_does_not_hide_other_mistakes() -> None:
    assert "division by zero" in str(failed("default(1 / 0, 1)"))
    assert "is not the text of a whole number" in str(failed("default(int('x'), 1)"))


def test_a_lazy_scope_is_looked_up_and_its_own_error_comes_through() -> None:
    assert value("tasks.list.result[0]", LAZY) == 1
    assert value("item + tasks.inner", LAZY) == 42, "a scope may evaluate another expression meanwhile"
    for source in ("tasks.late.result", "1 + tasks.late"):
        assert str(failed(source, LAZY)) == "late has not run"


def test_a_lazy_map_becomes_a_plain_one() -> None:
    found = value("tasks", LAZY)
    assert type(found) is dict
    assert found == {"list": {"result": [1]}, "inner": 2}
    assert template("= ${{ tasks }}").value(LAZY) == '= {"list":{"result":[1]},"inner":2}'


# --- what is simpleeval's


def test_a_pure_look_up_does_not_import_simpleeval() -> None:
    code = (
        "import sys; from jobrunner.expressions import parse; t = parse('${{ item.path[0] }}')\n"
        "assert t.value({'item': {'path': ['a']}}) == 'a'; assert 'simpleeval' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("method", [name for node, name in METHODS.items() if node is not ast.List])
def test_simpleeval_has_the_private_methods_that_are_called_or_replaced(method: str) -> None:
    has = callable(getattr(simpleeval.SimpleEval, method, None))
    assert has, f"simpleeval {_version()} has no SimpleEval.{method} any more: see METHODS in jobrunner/expressions/evaluation.py"


def test_simpleeval_evaluates_every_part_of_a_tree_through_our_eval() -> None:
    walked: list[str] = []

    class Watched(Evaluation):
        def _eval(self, node: ast.AST) -> object:
            walked.append(type(node).__name__)
            return super()._eval(node)

    code = Code(text="-len([1, 2][0:1]) + 2 if 1 < 3 and not 0 else join([], sep='')", offset=0)
    tree = grammar.read(code)
    assert Watched(code, {})._eval(tree) == 1
    skipped = {"keyword", "Attribute", "Name"}  # what this expression does not come to
    assert set(walked) == {node.__name__ for node in grammar.NODES} - skipped, (
        f"simpleeval {_version()} evaluates parts of a tree past `_eval`, where the bounds are checked"
    )


def _version() -> str:
    return importlib.metadata.version("simpleeval")


def test_everything_that_the_grammar_lets_through_can_be_evaluated() -> None:
    assert set(OPERATIONS) == set(grammar.OPERATORS)
    assert {*FUNCTIONS, *STATUS, "default"} == set(grammar.ARGUMENTS)
