"""The text of a command as a shell reads it: which of it is code, which words stand there, and what only bash understands. Pure.

text with ${{ }} ─ blanked ─▶ script ─ read ─▶ Script: code (quotes, comments, bodies hidden), expanded (also what "…" holds)
                 as long as the text: an offset in one is an offset in all
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from jobrunner import expressions
from jobrunner.expressions import Expression
from jobrunner.structs import struct

VALUE: Final = "\uf8ff"
"""Stands for each character of an expression."""
_QUOTED: Final = "\uf8fe"


def blanked(text: str) -> str:
    """The text with its expressions blotted out, as long as it was."""
    template = expressions.parse(text)
    script, at = "", 0
    for part in template.parts if template else (text,):
        if isinstance(part, Expression):
            end = text.index("}}", part.offset + len(part.source)) + 2
            script, at = script + VALUE * (end - at), end
        else:
            script, at = script + part, at + len(part)
    return script


@struct
class Script:
    """A script, and the same with what is no code hidden; `open_at` is where a quote begins that is never closed."""

    text: str
    code: str
    expanded: str
    open_at: int | None


@struct
class Word:
    """A word of a command; `text` is empty where only a shell, or a run, can tell it."""

    text: str
    offset: int
    length: int


# --- what is code ------------------------------------------------------------------------------------------------------------

_BARE: Final = re.compile(
    r"""
      \\. | \$'(?:\\.|[^'\\])*'? | '[^']*'?
    | " | \$\(\((?:[^()]|\([^()]*\))*\)\) | \$\{[^{}'"`]*\} | \$?\( | \)
    | (?<![^\s;&|()])\#[^\n]*
    | <<< | <<-?[ \t]*(['"]?)([\w.-]+)\1[^\n]{0,500}(?P<body>\n.*?(?:^\t*\2$|\Z))
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
_DOUBLE: Final = re.compile(r'\\.|"|\$\(\((?:[^()]|\([^()]*\))*\)\)|\$\(', re.DOTALL)


def read(script: str) -> Script:
    """Follow the quotes and brackets of a script. Where shells differ, or it is none, something of it may be taken for code."""
    code, expanded = list(script), list(script)
    opened: list[tuple[str, int]] = []
    at, unclosed = 0, None
    while at < len(script):
        is_double = bool(opened) and opened[-1][0] == '"'
        mark = (_DOUBLE if is_double else _BARE).search(script, at)
        begin, end = mark.span() if mark else (len(script), len(script))
        if is_double:
            _hide(code, at, begin, _QUOTED)
        if mark:
            _follow(mark, opened, code, expanded)
            if not is_double and script[begin] == "'" and (end - begin == 1 or script[end - 1] != "'"):
                unclosed = begin
        at = end
    quotes = [place for sign, place in opened if sign == '"']
    open_at = quotes[-1] if quotes and unclosed is None else unclosed
    return Script(text=script, code="".join(code), expanded="".join(expanded), open_at=open_at)


def _hide(letters: list[str], begin: int, end: int, filler: str) -> None:
    letters[begin:end] = [letter if letter == "\n" and filler == " " else filler for letter in letters[begin:end]]


def _follow(mark: re.Match[str], opened: list[tuple[str, int]], code: list[str], expanded: list[str]) -> None:
    """Follow one mark into, or out of, what it opens or closes, and hide it where it is no code."""
    sign, (begin, end) = mark[0], mark.span()
    if sign == '"':
        opened.pop() if opened and opened[-1][0] == '"' else opened.append((sign, begin))
        _hide(code, begin, end, _QUOTED)
    elif sign in {"(", "$("}:
        opened.append(("(", begin))
    elif sign == ")":
        opened[-1:] = [] if opened and opened[-1][0] == "(" else opened[-1:]
    elif sign.startswith(("#", "\\\n")):
        _hide_both(code, expanded, begin, end, " ")
    elif sign.startswith("<<"):
        if sign != "<<<":
            _hide_both(code, expanded, *mark.span("body"), " ")
    elif sign.startswith("$'"):
        _hide_both(code, expanded, begin + 2, end, _QUOTED)
    elif sign.startswith("$"):
        _hide(code, begin, end, _QUOTED)
    else:
        _hide_both(code, expanded, begin, end, _QUOTED)


def _hide_both(code: list[str], expanded: list[str], begin: int, end: int, filler: str) -> None:
    _hide(code, begin, end, filler)
    _hide(expanded, begin, end, filler)


# --- its words ---------------------------------------------------------------------------------------------------------------

_SEPARATOR: Final = re.compile(r"[;\n()`]|&&|\|\|?|(?<![<>])&(?!>)")
_WORD: Final = re.compile(r"(?:[^\s;()`|&]|(?<=[<>])&|&(?=>))+")
_KEYWORDS: Final = frozenset({"then", "do", "else", "elif", "if", "while", "until", "!", "{", "}", "time"})
_COMPUTED: Final = re.compile(f"[{VALUE}{_QUOTED}$*?~]")
_PLAIN_QUOTES: Final = re.compile(rf"""(['"])([^'"$`\\{VALUE}]+)\1""")


def commands(script: Script) -> Iterator[list[Word]]:
    """The words of each simple command, without keywords before it; assignments and redirections are words too."""
    at = 0
    for end in [*(mark.start() for mark in _SEPARATOR.finditer(script.code)), len(script.code)]:
        words = [_word(script, found) for found in _WORD.finditer(script.code, at, end)]
        while words and words[0].text in _KEYWORDS:
            words = words[1:]
        if words:
            yield words
        at = end


def _word(script: Script, found: re.Match[str]) -> Word:
    begin, end = found.span()
    written = script.text[begin:end]
    quoted = _PLAIN_QUOTES.fullmatch(written)
    text = quoted[2] if quoted else "" if _COMPUTED.search(found[0]) else written
    return Word(text=text, offset=begin, length=end - begin)


# --- what only bash understands ----------------------------------------------------------------------------------------------

_BASH: Final = "let bash run it: argv: [bash, -euo, pipefail, -c, …]."
_START: Final = r"(?:\A|[\n;&|()`{!]|\b(?:then|do|else|elif|if|while|until)\s)[^\S\n]*(?:[A-Za-z_]\w*=\S*[^\S\n]+)*"
_PLAIN: Final = rf"[^\s{{}},{VALUE}{_QUOTED}]"
_ONLY_BASH: Final = [
    (_START + r"(?P<it>\[\[)(?=\s)", "sh has no [[ ]]", "Write [ … ]"),
    (r"(?P<it>&>>?|>&(?=\s*[A-Za-z./]))", "sh has no …: it reads an & and a >", "Write >FILE 2>&1"),
    (r"(?P<it>\|&)", "sh has no |&", "Write 2>&1 |"),
    (rf"(?<!\$)(?P<it>\{{{_PLAIN}*(?:\.\.|,)(?:{_PLAIN}|,)*\}})", "sh has no …", "Write the words out"),
    (r"(?P<it>[<>]\()(?!\()", "sh has no … )", "Use a file or a pipe"),
    (r"(?P<it><<<)", "sh has no <<<", "Write printf '%s\\n' TEXT | …"),
    (r"(?P<it>\$')", "sh has no $' quotes", "Use printf"),
    (_START + r"(?P<it>\(\([^()]*\)\)|for\s+\(\()", "sh has no (( ))", "Write $(( … )) and [ … ]"),
    (_START + r"echo[^\S\n]+(?P<it>-[nE]*e[nE]*)(?=\s)", "echo of sh has no …", "Write printf"),
    (_START + r"(?:(?:export|readonly|local)\s+)?(?P<it>[A-Za-z_]\w*\+?=\()", "sh has no arrays", ""),
    (_START + r"(?P<it>function)[^\S\n]+\w", "sh has no function NAME", "Write NAME() { …; }"),
    (_START + r"(?P<it>source)[^\S\n]", "sh has no source", "Write . ./FILE"),
    (_START + r"set[^\S\n]+(?P<it>(?:-\w+[^\S\n]+)*-\w*o[^\S\n]+pipefail)\b", "sh has no set -o pipefail", ""),
    (_START + r"(?P<it>(?:declare|typeset|shopt|pushd|popd|let|mapfile|readarray|disown)(?=[\s;]|\Z))", "sh has no …", ""),
    (_START + r"read[^\S\n]+(?:-r[^\S\n]+)?(?P<it>-r?[adnNstu])", "read of sh has no …", ""),
    (_START + r"(?:test|\[)[^\S\n][^\n;&|]{0,300}?[^\S\n](?P<it>==)[^\S\n]", "[ of sh has no ==", "Write ="),
    (_START + r"trap\b[^\n;&|]{0,300}[^\S\n](?P<it>ERR)\b", "trap of sh has no ERR", "Write EXIT"),
]  # fmt: skip
_ONLY_BASH_EXPANDS: Final = [
    (r"(?P<it>\$\{[#!]?\w+\[)", "sh has no arrays", ""),
    (rf"(?P<it>\$\{{(?:!\w|\w+(?:/|\^|,|:(?![-=?+])))[^}}\n{VALUE}]*\}}?)", "sh has no …", ""),
]
_VARIABLE: Final = (
    r"\$\{?(?P<it>RANDOM|SRANDOM|PIPESTATUS|BASH_\w+|BASHPID|FUNCNAME|EPOCHSECONDS|EPOCHREALTIME|SECONDS|UID|EUID)\b"
)
_INTERPRETER: Final = re.compile(r"\s*(?P<it>#![^\S\n]*(?:\S*/env[^\S\n]+(?:-S[^\S\n]+)?)?(?:\S*/)?(?P<name>[\w.+-]+))(?=\s|\Z)")


@struct
class Trouble:
    """Something in a script that sh does not do as its author means; `offset` and `length` are characters of it."""

    message: str
    hint: str
    offset: int
    length: int


def only_bash(script: Script, known: frozenset[str] | None = frozenset()) -> list[Trouble]:
    """What of a script only bash understands, each kind once, in their order. `known` are the variables that it
    is given; None: nobody knows, so that they may be anything.

    A first line `#!/bin/bash` is told alone: what mends it mends the rest.
    """
    if (first := _INTERPRETER.match(script.text)) and first["name"] not in {"sh", "dash", "ash"}:
        words = "bash, -euo, pipefail, -c, …" if first["name"] == "bash" else f"{first['name']}, FILE"
        return [_trouble(first, "sh runs this text: … is a comment", f"Write argv: [{words}].")]
    told: dict[str, Trouble] = {}
    for table, text in ((_ONLY_BASH, script.code), (_ONLY_BASH_EXPANDS, script.expanded)):
        for pattern, message, instead in table:
            if found := re.compile(pattern).search(text):
                told.setdefault(pattern, _trouble(found, message, _hint(instead)))
    for found in re.finditer(_VARIABLE, script.expanded):
        name = found["it"]
        is_set = re.search(rf"\b{name}=|\b(?:read|for)\s[^\n;]*\b{name}\b", script.code)
        if known is not None and name not in known and not is_set:
            told.setdefault(name, _trouble(found, "sh has no $…: it is empty", _hint("")))
    return sorted(told.values(), key=lambda trouble: trouble.offset)


def _hint(instead: str) -> str:
    return f"{instead}, or {_BASH}" if instead else f"{_BASH[0].upper()}{_BASH[1:]}"


def _trouble(found: re.Match[str], message: str, hint: str) -> Trouble:
    begin, end = found.span("it")
    return Trouble(message=message.replace("…", found["it"], 1), hint=hint, offset=begin, length=end - begin)


# --- failures that nobody sees -----------------------------------------------------------------------------------------------

_HIDES: Final = re.compile(r"(?P<it>\|\|[^\S\n]*(?:true|:|exit[^\S\n]+0))[\s;]*\Z")
_EXITS: Final = re.compile(r"(?<=[^\s;])(?P<it>;[^\S\n]*exit[^\S\n]+0)[\s;]*\Z")
_TAKES_ANYTHING: Final = frozenset(
    {"mail", "mailx", "mutt", "sendmail", "tee", "logger", "ts", "gzip", "pigz", "bzip2", "xz", "zstd"}
)
_NEVER_FAILS: Final = frozenset({"echo", "printf", "cat", "true", ":", "date"})
_PIPELINES: Final = re.compile(r"[;\n()`]|&&|\|\||(?<![<>])&(?!>)")
_CONTINUE: Final = "Write continue_on_error: true: the failure is shown, and the run goes on."


def lost_failures(script: Script) -> Iterator[Trouble]:
    """Where a text ends well though a command in it has failed."""
    if found := _HIDES.search(script.code):
        yield _trouble(found, "after … no failure of this is seen", _CONTINUE)
    elif found := _EXITS.search(script.code):
        yield _trouble(found, "… hides no failure: sh -e has ended before it", _CONTINUE)
    code = re.sub(r"\|[^\S\n]*\n", lambda broken: broken[0][:-1] + " ", script.code)
    at = 0
    for end in [*(mark.start() for mark in _PIPELINES.finditer(code)), len(code)]:
        yield from _of_pipeline(code, at, end)
        at = end


def _of_pipeline(code: str, at: int, end: int) -> Iterator[Trouble]:
    parts = list(re.compile(r"[^|]+").finditer(code, at, end))
    firsts = [(re.findall(r"[^\s;()&|`]+", part[0]) or [""])[0] for part in parts]
    if len(parts) > 1 and firsts[-1] in _TAKES_ANYTHING and not _NEVER_FAILS.issuperset(firsts[:-1]):
        found = re.compile(rf"\|\s*(?P<it>{firsts[-1]})").search(code, parts[-1].start() - 1)
        if found:
            yield _trouble(found, "… ends well whatever fails before it: sh has no pipefail", _hint(""))


# --- marks without a partner -------------------------------------------------------------------------------------------------

_PARTNERS: Final = {"if": "fi", "do": "done", "case": "esac"}
_TOKEN: Final = r"(?P<it>[^\s;()`&|]+)|[\n;()`&|]"


def unclosed(script: Script) -> Trouble | None:
    """The quote, `if`, `case` or `do` of a script that sh refuses, which is never closed, where that is plain to see."""
    if script.open_at is not None:
        sign = script.text[script.open_at]
        return Trouble(message=f"the {sign} is never closed", hint="", offset=script.open_at, length=1)
    opened: list[re.Match[str]] = []
    is_first = True
    for found in re.finditer(_TOKEN, script.code):
        word = found["it"]
        if is_first and word in _PARTNERS:
            opened.append(found)
        elif is_first and opened and _PARTNERS[opened[-1]["it"]] == word:
            opened.pop()
        is_first = word is None or word in _KEYWORDS
    if not opened:
        return None
    return _trouble(opened[0], "… is never closed", f"Write {_PARTNERS[opened[0]['it']]} at its end.")
