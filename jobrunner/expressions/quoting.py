"""Where a value stands in a shell command, and the text that makes it data there.

Literal parts and holes go in; `places` follows the quotes and brackets as sh, dash and bash do, with a stack:

    bare ──'──→ single ──'──→ back          bare, double ──$(──→ paren, read as bare ──)──→ back
    bare ──"──→ double ──"──→ back          bare, double ──$((─→ arithmetic ─────────))─→ back
    bare, double ──${──→ ${…},  ──`──→ `…`  no hole in these can be quoted; after them all is well again
    anything that shells read differently ──→ a reason, for all holes after it: nobody can know where they stand

A hole is then one of `_QUOTED` (bare, glued, single, double, arithmetic), or the reason why no value can be quoted in it.
In doubt it is a reason: a value that is refused harms nobody.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from functools import cache

from jobrunner.expressions.values import kind_of, text_of
from jobrunner.typed import Final

DEEPEST: Final = 50
"""Levels of quotes and brackets that are followed."""


class Raw(str):
    """Text that goes to the shell as it is."""

    __slots__ = ()


class Quoted(str):
    """Text that is already one shell word, or several: the shell gets it as it is, unless it stands inside quotes."""

    __slots__ = ()


def raw(value: object) -> Raw:
    """The function raw() of expressions: the text of a value; of a list, that of its elements with blanks between."""
    return Raw(" ".join(map(text_of, value)) if isinstance(value, (list, tuple)) else text_of(value))


def quote(value: object) -> Quoted:
    """The function quote() of expressions: one shell word; of a list, one an element."""
    return Quoted(_words(value))


def is_safe(place: str) -> bool:
    """Whether a value can be quoted in a place; if not, the place is the reason, as words that follow "in"."""
    return place in _QUOTED


def quoted(value: object, place: str) -> str:
    """The shell text of a value in a place that is safe. Raises ValueError for what cannot be handed over there.

    A list becomes one word an element, or one word in all inside quotes. What raw() gave is pasted anywhere, safe or not.
    """
    if isinstance(value, Raw) or (isinstance(value, Quoted) and place in {"bare", "glued"}):
        return str(value)
    return _QUOTED[place](value)


# --- where the holes are ---------------------------------------------------------------------------------------------

_HOLE: Final = "\0"
_IN_A_HERE_DOCUMENT: Final = "a here-document, where a shell expands it"
# What opens, closes or hides something, by where the shell is. A hole that is part of a longer mark is hidden by it.
_BARE: Final = r"""(?sx)
      [$<>(](?:\\\n)+ | (?:\\\n)+\#                  # a line broken inside a mark
    | \\.\#*                                         # an escape; a # after it begins no comment
    | \$\$ | \$\0 | \$'                              # $$ opens nothing, whatever follows
    | ['"`\0] | \$?\(\( | \$?\( | \) | \$\{
    | (?<![^\s;&|()]) (?: \#[^\n]* | case(?=\s) )    # where a word begins
    | <<<
    | [<>]& (?! (?:\d+|-) (?:[\s;|&<>()]|\Z) )       # bash expands what follows twice, unless it is a number
    | =\(                                            # bash reads on after a mistake in an array
    | << (?:(-)|(?!-)) [ \t]* (['"]?)([\w.-]+)\2 (?![^\s;|&])  # a whole here-document: its delimiter,
         [^\n'"`\\()<$]*\n                           #   a plain rest of the line,
         (?: (?: [^\\] | \\(?!\n) )*? \n )??         #   the body,
         (?(1)\t*)\3(?=\n|\Z)                        #   the delimiter again
    | <<                                             # or the start of one that is not so plain
    """
_IN_DOUBLE: Final = r"(?s)\$(?:\\\n)+|\\.|\$\$|\$\(\(|\$\(|\$\{|[\"`\0"
_MARKS: Final = {
    "bare": _BARE,
    "paren": _BARE,
    "single": r"['\0]",
    "double": _IN_DOUBLE + "]",
    "arithmetic": _IN_DOUBLE + "'()]",
    "${…}": _IN_DOUBLE + "'}]",
    "`…`; write $(…)": r"(?s)\\.|[`\0]",
}
_OPENS: Final = {"'": "single", '"': "double", "`": "`…`; write $(…)", "${": "${…}", "$(": "paren", "(": "paren"}
_CLOSES: Final = {"'": "single", '"': "double", "`": "`…`; write $(…)", "}": "${…}", ")": "paren"}


_compiled: Final = cache(re.compile)
"""At the first use: commands without values need none of them."""


def places(parts: Iterable[str | None]) -> Iterator[str]:
    """Where each hole stands. `parts` are the literal texts of a command, and None for each hole."""
    script = "".join(_HOLE if part is None else part.replace(_HOLE, " ") for part in parts)
    stack = ["bare"]
    at = 0
    while stack[-1] in _MARKS and (mark := _compiled(_MARKS[stack[-1]]).search(script, at)):
        sign, at = mark[0], mark.end()
        if sign == _HOLE:
            place = _place(stack)
            yield "glued" if place == "bare" and _is_glued(script, mark.start()) else place
        else:
            yield from [_hidden(sign)] * sign.count(_HOLE)
            _follow(sign, stack)
    yield from [stack[-1]] * script.count(_HOLE, at)


def _place(stack: list[str]) -> str:
    """Where a hole stands. Inside "${x:-"…"}" no quoting holds in all shells; a $(…) in it starts afresh."""
    fresh = max((depth for depth, state in enumerate(stack) if state == "paren"), default=0)
    if "${…}" in stack[fresh:]:
        return "${…}"
    return "bare" if stack[-1] == "paren" else stack[-1]


def _is_glued(script: str, at: int) -> bool:
    """Whether a bare word would merge with its neighbour: `$HOME${{ x }}`, `${{ x }}>file`."""
    return script[at + 1 : at + 2] in {"<", ">"} or re.search(r"\$\w*\Z", script[max(0, at - 100) : at]) is not None


def _hidden(sign: str) -> str:
    if sign.startswith("<<"):
        return _IN_A_HERE_DOCUMENT
    return "a comment" if sign.startswith("#") else f"a word after {sign[0]}"


def _follow(sign: str, stack: list[str]) -> None:
    """Follow one mark into, or out of, what it opens or closes."""
    top = stack[-1]
    if len(stack) > DEEPEST:
        stack.append("a command that is nested this deeply")
    elif top == "arithmetic" and sign in "()":
        stack.append(top) if sign == "(" else stack.pop()
    elif _CLOSES.get(sign) == top:
        stack.pop()
    elif sign.endswith("(("):
        stack += ["arithmetic"] * 2
    elif lost := _lost(sign, stack):
        stack.append(lost)
    elif sign in _OPENS:
        stack.append(_OPENS[sign])


def _lost(sign: str, stack: list[str]) -> str:
    """Why the rest of a script cannot be followed: shells differ here, or only a whole parser could."""
    if sign == "<<":
        return _IN_A_HERE_DOCUMENT
    if sign in {">&", "<&", "=("}:
        return f"a command with {sign}, which shells read differently"
    if "\\\n" in sign and sign != "\\\n" and not sign.startswith("<<"):
        return "a command with a line that is broken inside a mark"
    if sign == "$'":
        return "a command with $'…', which shells read differently"
    if sign == "case" and "paren" in stack:
        return "a command with `case` inside (…)"
    if sign in {"'", '"', "`"} and stack[-1] == "arithmetic":
        return "arithmetic with quotes in it"
    return "${…} with ' in it" if sign == "'" and stack[-1] == "${…}" and "double" in stack else ""


# --- what is written there -------------------------------------------------------------------------------------------


def _words(value: object, force: bool = False) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join([str(each) if isinstance(each, (Raw, Quoted)) else _word(text_of(each), force) for each in value])
    return _word(text_of(value), force)


def _word(text: str, force: bool = False) -> str:
    """One shell word, with `force` in quotes even if it needs none. Raises ValueError for what no process can be handed."""
    if "\0" in text:
        raise ValueError("the value holds a NUL character, which no command line can hold")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError("the value holds a lone surrogate, which no command line can hold") from None
    word = shlex.quote(text)
    return f"'{text}'" if force and word == text else word


def _digits(value: object) -> str:
    """In $((…)) a text would be evaluated: only numbers go in."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return text_of(value)
    raise ValueError(f"only a number can stand in $((…)), not {kind_of(value)}; int(x) makes one of x")


# Inside quotes: close them, the quoted word, open them again.
_QUOTED: Final[dict[str, Callable[[object], str]]] = {
    "bare": _words,
    "glued": lambda value: _words(value, force=True),
    "single": lambda value: f"'{_word(raw(value))}'",
    "double": lambda value: f'"{_word(raw(value))}"',
    "arithmetic": _digits,
}
