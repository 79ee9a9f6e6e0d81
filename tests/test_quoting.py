"""A shell gets every value as data: wherever it stands, whatever it is; where that cannot be, it is refused."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.errors import ExpressionError
from jobrunner.expressions import Template
from tests.templates import SCRIPT, outcome, template

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


PRINTABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1e"), max_size=30)


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
