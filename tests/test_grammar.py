"""What an expression may be: what is refused, where and with which words; and the names that it refers to."""

from __future__ import annotations

import pytest

from jobrunner.expressions import DEEPEST, LONGEST, Reference
from tests.templates import refused, template, value

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
    ("${{ 1 << 2 }}", 4, "`<<` is not available"),
    ("${{ 1 >> 2 }}", 4, "`>>` is not available"),
    ("${{ 1 ^ 2 }}", 4, "`^` is not available"),
    ("${{ item @ 2 }}", 4, "`@` is not available"),
    ("${{ await item }}", 4, "`await` is not available"),
    ("${{ (yield item) }}", 5, "`yield` is not available"),
    ("${{ params.a | params.b }}", 4, "`|` is not available; write `or`"),
    ("${{ item | sorted }}", 4, "there are no filters; write `sorted(item)`"),
    ("${{ 'ä' + item.b | default(1, ) | join(sep='-') }}", 4, "write `join(default('ä' + item.b, 1), sep='-')`"),
    ("${{ item | upper | sorted }}", 4, "there are no filters, and there is no function upper(); the functions are len"),
    ("${{ " + " | ".join(["sorted"] * 1000) + " }}", 4, "there are no filters"),
    ("${{ 1j }}", 4, "a value is"),
    ("${{ b'a' }}", 4, "a value is"),
    ("${{ ... }}", 4, "a value is"),
    ("${{ 1e999 }}", 4, "too large"),
    ("${{ item.strip() }}", 4, "method"),
    ("${{ 'é' + lenn(item) }}", 10, "no function lenn"),
    ("${{ open('x') }}", 4, "no function open"),
    ("${{ succeeded() }}", 4, "no function succeeded"),
    ("${{ success(1) }}", 4, "takes 0 arguments"),
    ("${{ len() }}", 4, "takes 1 argument;"),
    ("${{ len(1, 2) }}", 4, "takes 1 argument;"),
    ("${{ min() }}", 4, "1 or more arguments"),
    ("${{ join([], 1, 2) }}", 4, "1 or 2 arguments"),
    ("${{ join(sep=',') }}", 4, "1 or 2 arguments"),
    ("${{ default(item) }}", 4, "takes 2 arguments"),
    ("${{ sorted(item, reverse=true) }}", 4, "named argument: reverse"),
    ("${{ len(**item) }}", 4, "named argument: **"),
    ("${{ basename() }}", 4, "basename() takes 1 argument;"),
    ("${{ relative(item) }}", 4, "relative() takes 2 arguments;"),
    ("${{ replace(item, 'a') }}", 4, "replace() takes 3 arguments;"),
    ("${{ relative(item, start='a') }}", 4, "named argument: start"),
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
        ("${{ base_name(item) }}", "Did you mean 'basename'?"),
        ("${{ relpath(item, '/a') }}", "Did you mean 'relative'?"),
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
        ("secrets.api-key", ["A name with a hyphen is written secrets['api-key']."] * 2),
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
