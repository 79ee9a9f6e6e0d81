"""The `${{ … }}` language: what it accepts and refuses (and where), what values become, and that a shell gets them as data."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.errors import ExpressionError
from jobrunner.expressions import DEEPEST, LONGEST, Expression, JsonValue, Reference, Template, compiled, is_constant, parse

SCOPE: dict[str, object] = {
    "params": {"root": "/srv/my data", "n": 3, "half": 0.5, "on": True, "none": None, "my-key": "hyphen"},
    "env": {"HOME": "/root"},
    "item": {"path": ["a.txt", "b.txt"], "items": "a key", "keys": 1, "nested": {"deep": [{"x": 7}]}, "": "empty key"},
    "index": 4,
    "run": {"id": "r1", "dir": "/tmp/r 1"},
    "tasks": {"list": {"result": [3, 1, 2]}, "list-files": {"result": ["x", "y z"]}},
}


def template(text: str) -> Template:
    found = parse(text)
    assert found is not None
    return found


def value(source: str, scope: Mapping[str, object] = SCOPE) -> object:
    return template("${{ " + source + " }}").value(scope)


def refused(text: str) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    return caught.value


def failed(source: str, scope: Mapping[str, object] = SCOPE) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        value(source, scope)
    return caught.value


# --- reading


@pytest.mark.parametrize("text", ["", "plain", "$ {{ x }}", "{{ x }}", "$${x}", "${x}", "}}"])
def test_a_text_without_an_expression_is_no_template(text: str) -> None:
    assert parse(text) is None
    assert is_constant(text)


@pytest.mark.parametrize(
    ("text", "literals_and_sources", "single"),
    [
        ("${{ item }}", ["item"], True),
        ("${{item}}", ["item"], True),
        (" \n${{ item }}\n", [" \n", "item", "\n"], True),
        ("a ${{ item }} b ${{index}}", ["a ", "item", " b ", "index"], False),
        ("${{ item }}${{ index }}", ["item", "index"], False),
        ("${{ '}}' }}", ["'}}'"], True),
        ('${{ "}}" }}', ['"}}"'], True),
        (r"${{ 'it\'s }}' }}", [r"'it\'s }}'"], True),
        ("${{ '${{' }}", ["'${{'"], True),
        ("${{ item['}}'] }}", ["item['}}']"], True),
        ("${{ [item,\n  index] }}", ["[item,\n  index]"], True),
        ("${{ item }}}", ["item", "}"], False),
    ],
)
def test_a_template_is_cut_where_the_braces_close(text: str, literals_and_sources: list[str], single: bool) -> None:
    found = template(text)
    assert [part.source if isinstance(part, Expression) else part for part in found.parts] == literals_and_sources
    assert found.is_single is single
    assert found.text == text
    for part in found.parts:
        if isinstance(part, Expression):
            assert text[part.offset :].startswith(part.source)


def test_the_same_text_is_parsed_once() -> None:
    assert parse("once ${{ item }}") is parse("once ${{ item }}")


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
]


@pytest.mark.parametrize(("source", "expected"), ACCEPTED)
def test_an_expression_keeps_the_type_of_its_value(source: str, expected: object) -> None:
    found = value(source)
    assert found == expected
    assert type(found) is type(expected)


REFUSED = [
    ("${{ }}", 3, "empty"),
    ("a ${{ item", 2, "never closed"),
    ("${{ 'open }}", 0, "never closed"),
    ("${{ (item }}", 0, "never closed"),
    ("x ${{ item # why }}", 11, "comment"),
    ("${{ a b }}", 4, "not an expression"),
    ("${{ f'{item}' }}", 4, "f-strings"),
    ("${{ 1 + lambda: 2 }}", 8, "not an expression"),
    ("${{ [lambda: 2] }}", 5, "cannot be defined"),
    ("${{ [x for x in item] }}", 4, "loops"),
    ("${{ len(x for x in item) }}", 7, "loops"),
    ("${{ {'a': 1} }}", 4, "map"),
    ("${{ {1, 2} }}", 4, "set"),
    ("${{ 1, 2 }}", 4, "brackets"),
    ("${{ (1, 2) }}", 4, "brackets"),
    ("${{ (x := 1) }}", 5, "assign"),
    ("${{ [*item] }}", 5, "unpack"),
    ("${{ item is None }}", 4, "`is`"),
    ("${{ 1 & 2 }}", 4, "and"),
    ("${{ 1 | 2 }}", 4, "or"),
    ("${{ ~1 }}", 4, "not"),
    ("${{ 1 << 2 }}", 4, "LShift"),
    ("${{ 1j }}", 4, "a value is"),
    ("${{ b'a' }}", 4, "a value is"),
    ("${{ ... }}", 4, "a value is"),
    ("${{ 1e999 }}", 4, "too large"),
    ("${{ item.strip() }}", 4, "method"),
    ("${{ 'é' + lenn(item) }}", 10, "no function lenn"),
    ("${{ open('x') }}", 4, "no function open"),
    ("${{ success() }}", 4, "no function success"),
    ("${{ len() }}", 4, "takes 1 argument;"),
    ("${{ len(1, 2) }}", 4, "takes 1 argument;"),
    ("${{ min() }}", 4, "1 or more arguments"),
    ("${{ join([], 1, 2) }}", 4, "1 or 2 arguments"),
    ("${{ join(sep=',') }}", 4, "1 or 2 arguments"),
    ("${{ default(item) }}", 4, "takes 2 arguments"),
    ("${{ sorted(item, reverse=true) }}", 4, "named argument: reverse"),
    ("${{ len(**item) }}", 4, "named argument: **"),
    ("${{ yield }}", 4, "not an expression"),
    ("${{ item }} and ${{ 'ünï' + [1, {}] }}", 32, "map"),
    ("${{ a\0b }}", 4, "`a"),
    ("${{ a\ud800b }}", 4, "character"),
]


@pytest.mark.parametrize(("text", "offset", "words"), REFUSED)
def test_what_is_not_in_the_language_is_refused_at_its_place(text: str, offset: int, words: str) -> None:
    error = refused(text)
    assert words in str(error)
    if words != "not an expression":  # Python's own parser picks that place
        assert error.offset == offset, text[error.offset :]
    assert 0 <= error.offset < len(text)
    assert error.length >= 1
    assert error.offset + error.length <= len(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("${{ 'open }}", "The ' at character 5 has no partner on its line."),
        ("${{ [item }}", "The [ at character 5 is still open."),
        ("${{ lenn(item) }}", "Did you mean 'len'?"),
        ("${{ item && index }}", "Write `and`."),
        ("${{ item || index }}", "Write `or`."),
        ("${{ !item }}", "Write `not`."),
        ("${{ item = 1 }}", "Write ==."),
        ("${{ tasks.step-1.result }}", "A name with a hyphen is written tasks['step-1']."),
    ],
)
def test_a_refusal_says_what_to_write_instead(text: str, hint: str) -> None:
    assert refused(text).hint == hint


BOMBS = [
    "(" * 5000 + ")" * 4000,
    "(" * 60 + "1" + ")" * 60 + "+(" * 100,
    "[" * 4000 + "]" * 4000,
    "-" * 9000 + "1",
    "not " * 2000 + "1",
    "item" + ".a" * 4000,
    "item" + "[0]" * 3000,
    "1" + "+1" * 4000,
    "1 if 1 else " * 800 + "1",
    "len(" * 2000 + "1" + ")" * 2000,
    "1" * 9000,
    "1" * (LONGEST + 1),
    "tasks.a-" * 1200 + "!",
]


@pytest.mark.parametrize("source", BOMBS, ids=range(len(BOMBS)))
def test_a_deep_or_long_expression_is_refused(source: str) -> None:
    refused("${{ " + source + " }}")


def test_nesting_is_accepted_up_to_the_bound() -> None:
    assert value("-" * (DEEPEST - 1) + "1") == -1
    assert "nested too deeply" in str(refused("${{ " + "-" * DEEPEST + "1 }}"))


# --- references


def reference(text: str, part: str, root: str, *path: str | int) -> Reference:
    return Reference(root=root, path=path, offset=text.index(part), length=len(part))


def test_references_are_the_free_names_with_their_literal_keys() -> None:
    text = "é ${{ len(params.x['a b'][-1]) + tasks.a.results[i].name }} ${{ default(nope, true) if 'é' in env.E else [item][0] }}"
    assert template(text).references == (
        reference(text, "params.x['a b'][-1]", "params", "x", "a b", -1),
        reference(text, "tasks.a.results", "tasks", "a", "results"),
        Reference(root="i", path=(), offset=text.index("[i]") + 1, length=1),
        reference(text, "env.E", "env", "E"),
        reference(text, "nope", "nope"),
        Reference(root="item", path=(), offset=text.index("[item]") + 1, length=4),
    )


def test_a_function_and_a_literal_are_no_references() -> None:
    assert template("${{ len([1, null, true, 'item']) }}").references == ()


@pytest.mark.parametrize(
    ("source", "hints"),
    [
        ("tasks.list-files.result", ["A name with a hyphen is written tasks['list-files']."] * 2),
        ("params.a-b-c", ["A name with a hyphen is written params['a-b-c']."] * 3),
        ("tasks.a.outputs.my-key", ["A name with a hyphen is written tasks.a.outputs['my-key']."] * 2),
        ("tasks['list-files'].result", [""]),
        ("params.n-index", ["", ""]),
        ("params.n - x", ["", ""]),
        ("params.n-1", [""]),
    ],
)
def test_a_name_with_a_hyphen_gets_a_hint(source: str, hints: list[str]) -> None:
    assert [each.hint for each in template("${{ " + source + " }}").references] == hints


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
        ("int('x')", "invalid literal"),
        ("int('9' + '9')[0]", "is a number, which has no [0]"),
        ("len(1)", "len()"),
        ("min([])", "`min([])`"),
        ("sum(['a'])", "unsupported operand"),
        ("sorted([1, 'a'])", "not supported"),
        ("1 < 'a'", "not supported"),
        ("1 in 2", "not iterable"),
        ("-'a'", "unary"),
        ("join('abc')", "join() takes a list"),
        ("join([], 1)", "join() takes a list"),
        ("item.path[::0]", "slice step"),
        ("params[[1]]", "unhashable"),
    ],
)
def test_whatever_goes_wrong_names_the_expression(source: str, words: str) -> None:
    error = failed(source)
    assert words in str(error)
    assert f"`{source}`" in str(error)


def test_a_long_expression_is_shortened_in_messages() -> None:
    assert "…`: division" in str(failed("1 / 0 + " + "len('" + "x" * 200 + "')"))


def test_text_that_would_fill_the_memory_is_not_made() -> None:
    scope = {"item": ["x" * 6_000_000] * 2}
    assert "at most 10,000,000" in str(failed("item[0] + item[1]", scope))
    assert "at most 10,000,000" in str(failed("join(item)", scope))
    assert "at most 10,000,000" in str(failed("join([1] + item[:1], item[0])", scope))


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
    assert "invalid literal" in str(failed("default(int('x'), 1)"))


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


# --- text, compiled values


@pytest.mark.parametrize(
    ("given_value", "text"),
    [
        ("as it is", "as it is"),
        ("", ""),
        (None, ""),
        (True, "true"),
        (False, "false"),
        (1, "1"),
        (1.0, "1.0"),
        (1e300, "1e+300"),
        ([1, "é", None, True], '[1,"é",null,true]'),
        ({"a": {"b": []}}, '{"a":{"b":[]}}'),
    ],
)
def test_inside_text_a_value_becomes_text(given_value: object, text: str) -> None:
    assert template("<${{ item }}>").value({"item": given_value}) == f"<{text}>"


def test_what_json_cannot_hold_has_no_text() -> None:
    with pytest.raises(ExpressionError, match="`item`: a list that holds NaN"):
        template("<${{ item }}>").value({"item": [float("nan")]})


@pytest.mark.parametrize("constant", ["x", 1, None, [], {}, ["a", {"b": [1.5]}], {"${{ key }}": "value"}])
def test_a_value_without_an_expression_is_the_same_object(constant: JsonValue) -> None:
    assert is_constant(constant)
    assert compiled(constant)({}) is constant


def test_a_compiled_value_is_evaluated_wherever_it_holds_an_expression() -> None:
    constant: JsonValue = [1, 2]
    declared: JsonValue = {"a": ["${{ item }}", "n ${{ item[0] }}", 3], "b": constant, "${{ key }}": "x"}
    assert not is_constant(declared)
    evaluate = compiled(declared)
    first = evaluate({"item": [7]})
    assert first == {"a": [[7], "n 7", 3], "b": [1, 2], "${{ key }}": "x"}
    assert evaluate({"item": "k"}) == {"a": ["k", "n k", 3], "b": [1, 2], "${{ key }}": "x"}
    assert isinstance(first, dict)
    assert first["b"] is constant


def test_a_malformed_expression_is_refused_when_it_is_compiled() -> None:
    with pytest.raises(ExpressionError):
        compiled({"a": ["${{ ] }}"]})


def test_a_pure_look_up_does_not_import_simpleeval() -> None:
    code = (
        "import sys; from jobrunner.expressions import parse; t = parse('${{ item.path[0] }}')\n"
        "assert t.value({'item': {'path': ['a']}}) == 'a'; assert 'simpleeval' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- shell words

HOSTILE = [
    '"; rm -rf x"',
    "'; rm -rf x; '",
    "",
    " ",
    "a b",
    "line\nline",
    "trailing\n",
    "it's",
    'say "hi"',
    "$(touch x)",
    "`touch x`",
    "$HOME",
    "\\",
    "\\'",
    "a\\\nb",
    "*",
    "~",
    "-n",
    "%s",
    "#x",
    "!x",
    "ünï 漢字 🎉",
    "\t\r\x01\x7f",
    "}",
    "2",
    ")",
    "x" * 10_000,
]
SHELLS = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]


def words(command: str, shell: str = "sh") -> list[str]:
    """The arguments that a shell makes of `show …`, told apart by a mark that the values do not hold."""
    script = 'show() { for each in "$@"; do printf "%s\\036" "$each"; done; }\n' + command
    ended = subprocess.run([shell, "-c", script], capture_output=True, check=True, env={"HOME": "/h", "A": "var"}, timeout=20)
    assert ended.stderr == b""
    return ended.stdout.decode().split("\x1e")[:-1]


# Template → what its one argument is, with {} for the value.
PLACES = [
    ("show ${{ item }}", "{}"),
    ("show --x=${{ item }}.txt", "--x={}.txt"),
    ("show '<${{ item }}>'", "<{}>"),
    ('show "<${{ item }}>"', "<{}>"),
    ('show "$A${{ item }}$A"', "var{}var"),
    ("show $A${{ item }}", "var{}"),
    ("show \"it's \"${{ item }}'\"'", "it's {}\""),
    (r"show \'${{ item }}\"", "'{}\""),
    ('show "\\"${{ item }}\\""', '"{}"'),
    ("show a\\ ${{ item }} # don't", "a {}"),
    ("# don't\nshow ${{ item }}", "{}"),
    ("# it's \"\nshow '${{ item }}'", "{}"),
    ("show a#'b'${{ item }}", "a#b{}"),
    ('show "$(printf "%s." ${{ item }})"', "{}."),
    ('show "$(printf "%s." "${{ item }}")"', "{}."),
    ('show "$(printf "%s." \'<${{ item }}>\')"', "<{}>."),
    ('show "$(printf "%s" "$(printf "%s." "${{ item }}")")"', "{}."),
    ("(show ${{ item }})", "{}"),
    ("case x in x) show ${{ item }};; esac", "{}"),
    ('show "$((1 + (2)))${{ item }}"', "3{}"),
    ('show "${A}${{ item }}"', "var{}"),
    ('show "${A:-"it"}${{ item }}"', "var{}"),
    ('show "$(cat <<E\nit\'s "\nE\n)"${{ item }}', "it's \"{}"),
    ("cat <<'E' >/dev/null\nit's \"\nE\nshow ${{ item }}", "{}"),
    ('show `echo "it\'s"`${{ item }}', "it's{}"),
    ('show "${A:-$(printf "%s." ${{ item }})}"${{ item }}', "var{}"),
    ("show ${{ item }}>&1", "{}"),
    ("show ${{ item }} 2>&1", "{}"),
    ("show \\ #'a b'${{ item }}", " #a b{}"),
    ("cat >/dev/null <<-E\nit's\n\tE\nshow ${{ item }}", "{}"),
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("text", "expected"), PLACES)
def test_a_value_stays_data_wherever_it_stands_in_a_command(text: str, expected: str, shell: str) -> None:
    found = template(text)
    found.check_shell()
    for hostile in HOSTILE:
        command = found.shell({"item": hostile})
        assert words(command, shell) == [expected.replace("{}", hostile)], command


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("cat <<EOF\n${{ item }}\nEOF", "a here-document"),
        ("cat <<'EOF'\n${{ item }}\nEOF\n", "a here-document"),
        ("cat <<A <<B\nA\n${{ item }}\nB", "a here-document"),
        ("cat <<EOF; echo ${{ item }}\nEOF", "a here-document"),
        ("echo `echo ${{ item }}`", "`…`"),
        ('echo "`echo ${{ item }}`"', "`…`"),
        ("true # ${{ item }}", "a comment"),
        ("# ${{ item }}\ntrue", "a comment"),
        ("echo ${A:-${{ item }}}", "${…}"),
        ('echo "${A:-"${{ item }}"}"', "${…}"),
        ('echo "${A:-it\'s} ${{ item }}"', "${…} with '"),
        ("echo $'a' ${{ item }}", "$'…'"),
        ("echo $${{ item }}", "a word after $"),
        ("echo \\${{ item }}", "a word after \\"),
        ('echo "\\${{ item }}"', "a word after \\"),
        ('echo "$(case a in a) echo ${{ item }};; esac)"', "`case` inside (…)"),
        ("echo >&2${{ item }}", ">&, which shells"),
        ("A=(${{ item }})", "=(, which shells"),
        ("cat <<E\n\tE\n${{ item }}\nE", "a here-document"),
        ("cat <<E\n\\\nE\n${{ item }}\nE", "a here-document"),
        ("echo $\\\n${{ item }}", "broken inside a mark"),
        ("( " * 60 + "echo ${{ item }}" + " )" * 60, "nested this deeply"),
        ('echo $(( "1" + ${{ item }} ))', "arithmetic with quotes"),
    ],
)
def test_where_no_quoting_is_safe_a_value_is_refused_before_anything_runs(text: str, place: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        template(text).check_shell()
    assert place in str(caught.value)
    assert "env" in caught.value.hint
    assert text[caught.value.offset :].startswith("item")
    with pytest.raises(ExpressionError):
        template(text).shell({"item": 1})
    pasted = template(text.replace("item", "raw(item)"))
    pasted.check_shell()
    assert "x y" in pasted.shell({"item": "x y"})


@pytest.mark.parametrize(
    ("text", "item", "command"),
    [
        ("show ${{ item }}", ["a b", 1, None, True], "show 'a b' 1 '' true"),
        ("show ${{ item }}", [], "show "),
        ("show ${{ item }}", {"a": 1}, "show '{\"a\":1}'"),
        ("show ${{ item }}", None, "show ''"),
        ("show '${{ item }}'", ["a", "b"], "show '''a b'''"),
        ("show ${{ raw(item) }}", "a b", "show a b"),
        ("show ${{ raw(item) }}", ["-v", "a b"], "show -v a b"),
        ("show ${{ quote(item) }}", "a b", "show 'a b'"),
        ("show ${{ [raw('-v -x'), item] }}", "a b", "show -v -x 'a b'"),
        ("show ${{ 'x' + raw(item) }}", "a b", "show 'xa b'"),
        ("show $((${{ item }} + 1))", 2, "show $((2 + 1))"),
        ("echo ${{ item }}>file", 2, "echo '2'>file"),
        ("echo ${{ item }} >file", 2, "echo 2 >file"),
    ],
)
def test_lists_numbers_and_marked_text_in_a_command(text: str, item: object, command: str) -> None:
    assert template(text).shell({"item": item}) == command


@pytest.mark.parametrize("shell", SHELLS)
def test_a_list_is_one_word_an_element_and_inside_quotes_one_word(shell: str) -> None:
    assert words(template("show ${{ item }}").shell({"item": HOSTILE}), shell) == HOSTILE
    for text in ("show '${{ item }}'", 'show "${{ item }}"'):
        assert words(template(text).shell({"item": ["a b", "c"]}), shell) == ["a b c"]


@pytest.mark.parametrize("shell", SHELLS)
def test_quote_makes_a_word_for_a_shell_inside_a_shell(shell: str) -> None:
    for hostile in HOSTILE:
        inner = template("""eval "show ${{ quote(item) }}" """).shell({"item": hostile})
        assert words(inner, shell) == [hostile]


@pytest.mark.parametrize(
    ("text", "item", "message"),
    [
        ("echo ${{ item }}", "a\0b", "NUL"),
        ("echo ${{ item }}", "a\ud800b", "lone surrogate"),
        ("echo $((${{ item }} + 1))", "a[$(touch x)]", "only a number"),
        ("echo ${{ item }}", [[float("inf")]], "infinity"),
    ],
)
def test_what_a_command_line_cannot_hold_is_refused(text: str, item: object, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        template(text).shell({"item": item})


# --- any text

SCRIPT = st.lists(
    st.sampled_from(
        [
            "${{ item }}",
            "${{",
            "}}",
            "'",
            '"',
            "`",
            "$(",
            "$((",
            "${",
            "(",
            ")",
            "}",
            "\\",
            "#",
            "<<E",
            "\nE\n",
            " ",
            "x",
            "case ",
        ]
    ),
    max_size=12,
).map("".join)
SOURCE = st.text(st.sampled_from("ab.[]()'\"{}0-+*/%<>=!&|#, \n\\é\0") | st.characters(), max_size=40)
PRINTABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1e"), max_size=30)


def outcome(text: str) -> Template | ExpressionError | None:
    """What parsing and evaluating gives; any other exception fails the test."""
    try:
        found = parse(text)
        if found:
            found.value(SCOPE)
            found.shell(SCOPE)
    except ExpressionError as error:
        return error
    return found


@given(SOURCE | SCRIPT | SOURCE.map(lambda text: "x ${{" + text + "}} y"))
@settings(deadline=None)
def test_any_text_is_a_template_or_none_or_an_expression_error(text: str) -> None:
    found = outcome(text)
    assert (found is None) is ("${{" not in text)
    if isinstance(found, ExpressionError):
        assert 0 <= found.offset < len(text)
        assert found.length >= 1
        assert str(found)


@given(PRINTABLE, st.sampled_from(PLACES))
@settings(max_examples=60, deadline=None)
def test_any_text_goes_through_a_shell_unchanged(item: str, place: tuple[str, str]) -> None:
    text, expected = place
    assert words(template(text).shell({"item": item})) == [expected.replace("{}", item)]


@pytest.mark.parametrize("shell", SHELLS)
@given(SCRIPT)
@settings(max_examples=100, deadline=None)
def test_no_place_in_any_script_lets_a_value_run(shell: str, script: str) -> None:
    """Descriptor 3 is written to by the value alone, if any quoting lets it be taken as code."""
    ran = "echo RAN >&3"
    found = outcome(script)
    if isinstance(found, Template):
        command = found.shell({"item": f"';\"`$({ran})`;{ran};'$({ran})\n {ran}\n)}}"})
        watched = [shell, "-c", 'exec 3>&1 >/dev/null 2>&1; eval "$1"', shell, command]
        ended = subprocess.run(watched, capture_output=True, timeout=20, check=False)
        assert b"RAN" not in ended.stdout, command
