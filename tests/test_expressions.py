"""Templates: where a text is cut into literals and expressions, what it becomes, and values that hold templates."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.errors import ExpressionError
from jobrunner.expressions import Expression, JsonValue, compiled, is_constant, parse
from tests.templates import SCRIPT, outcome, template

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


# --- any text


SOURCE = st.text(st.sampled_from("ab.[]()'\"{}0-+*/%<>=!&|#, \n\\é\0") | st.characters(), max_size=40)


@given(SOURCE | SCRIPT | SOURCE.map(lambda text: "x ${{" + text + "}} y"))
@settings(deadline=None)
def test_any_text_is_a_template_or_none_or_an_expression_error(text: str) -> None:
    found = outcome(text)
    assert (found is None) is ("${{" not in text)
    if isinstance(found, ExpressionError):
        assert 0 <= found.offset < len(text)
        assert found.length >= 1
        assert str(found)
