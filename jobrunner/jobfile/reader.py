"""Bytes of a YAML file → Document, in one pass over the parser's events; or what is wrong with them, in words for people.

path ─source_of→ bytes ─_decoded→ text ─CParser.get_event→ events ─unmarked→ Document (value), where there is nothing odd; else
                                   │                         events ─Builder→ Document (value, marks, problems so far)
                                   └─ control characters     └─ _translated: what the parser complains of
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any, Final

import yaml
from yaml import cyaml

from jobrunner.errors import JobFileError, Problem
from jobrunner.jobfile import sources, unmarked
from jobrunner.jobfile.builder import Builder, Refused
from jobrunner.jobfile.document import Document, problem_at, shortened
from jobrunner.jobfile.sources import Unreadable

__all__ = ["LARGEST", "Unreadable", "read", "source_of", "tokens"]

LARGEST: Final = sources.LARGEST

_ASCII_CONTROLS: Final = bytes(code for code in range(0x20) if code not in b"\t\n\r") + b"\x7f"
_UNFIT: Final = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|\r(?!\n)"
_GLUED: Final = r" *(?:-\s+)?([A-Za-z_][\w-]*):(?=[^\s:/\\])"
_WIDE_UNFIT: Final = rb"\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]|\xef\xbb\xbf|\xef\xbf[\xbe\xbf]"


def read(source: bytes, file: str) -> Document:
    """Read one YAML document. Raises JobFileError, and nothing else, for bytes that cannot be read as one.

    Mistakes that leave the rest readable (a duplicate key, a tag) are in `problems`; the first value of a duplicate key stands.
    """
    source = source.removeprefix(b"\xef\xbb\xbf")
    text = _decoded(source, file)
    if (found := unmarked.read(_parser(source))) is None:
        return _marked(source, text, file)
    again = cache(lambda: _marked(text.encode(), text, file))
    return Document(file=file, text=text, value=found.value, raws=found.raws, again=again)


def _marked(source: bytes, text: str, file: str) -> Document:
    """The same with marks. Raises JobFileError."""
    builder = Builder(file, text)
    try:
        builder.run(_parser(source))
    except yaml.MarkedYAMLError as error:
        builder.problems.append(_advised(_translated(error, file, text), text))
    except yaml.YAMLError as error:
        builder.problems.append(problem_at(file, text, 0, f"this is not YAML: {error}"))
    except Refused as error:
        builder.problems.append(_advised(error.problem, text))
    except (ValueError, OverflowError):
        if yaml.__with_libyaml__:
            raise  # ours
        builder.problems.append(problem_at(file, text, 0, "an escape in double quotes names no character"))
    else:
        return builder.document()
    raise JobFileError(tuple(sorted(builder.problems, key=lambda problem: (problem.line, problem.column))))


def tokens(text: str) -> Iterator[yaml.Token]:
    """What the scanner makes of a text, as far as it gets: it goes on where the parser would have stopped long before."""
    parser = _parser(text.encode())
    with suppress(yaml.YAMLError):
        while (token := parser.get_token()) is not None:
            yield token


# --- path → bytes ------------------------------------------------------------------------------------------------------------


def source_of(file: str) -> bytes:
    """The bytes of a file. Never blocks on a FIFO or a device; raises Unreadable, and nothing else."""
    return sources.source_of(file, LARGEST)


# --- bytes → text ------------------------------------------------------------------------------------------------------------


def _decoded(source: bytes, file: str) -> str:
    if source.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise JobFileError((problem_at(file, "", 0, "the file is UTF-16 or UTF-32; save it as UTF-8"),))
    try:
        text = source.decode("utf-8")
    except UnicodeDecodeError as error:
        before = source[: error.start].decode("utf-8")
        message = f"byte 0x{source[error.start]:02X} is not UTF-8; save the file as UTF-8"
        raise JobFileError((problem_at(file, before, len(before), message),)) from None
    if _is_suspect(source) and (unfit := re.search(_UNFIT, text)):
        raise JobFileError((problem_at(file, text, unfit.start(), _about_control(unfit[0])),))
    return text


def _is_suspect(source: bytes) -> bool:
    """Cheap enough for every file: True for every text in which `_UNFIT` finds something, and for few others."""
    if len(source.translate(None, _ASCII_CONTROLS)) != len(source):
        return True
    if source.count(b"\r") != source.count(b"\r\n"):
        return True
    return not source.isascii() and re.search(_WIDE_UNFIT, source) is not None


def _about_control(character: str) -> str:
    if character == "\x00":
        return "a NUL byte; if the file is UTF-16, save it as UTF-8"
    if character == "\r":
        return "a carriage return without a line feed; save the file with Unix line ends"
    return f'the control character U+{ord(character):04X} cannot stand in YAML; write "\\u{ord(character):04x}" in double quotes'


# --- text → events -----------------------------------------------------------------------------------------------------------


def _parser(source: bytes) -> Any:
    """What `get_event` is asked of: libyaml, where PyYAML has it."""
    if yaml.__with_libyaml__:
        return cyaml.CParser(source)  # type: ignore[attr-defined]  # the stubs know it only as a base of the loaders
    return yaml.SafeLoader(source)


_SAYINGS: Final[tuple[tuple[str, bool, str], ...]] = (  # part of the parser's words · at the context's mark · ours
    ("found unexpected end of stream", True, "this quote is never closed"),
    ("mapping values are not allowed", False, "a ':' cannot stand here; quote the text, or mend the indentation"),
    ("could not find expected ':'", True, "expected 'key: value'; a ':' with a space after it is missing"),
    ("did not find expected ',' or ']'", False, "expected ',' or ']': a list that begins with '[' is not closed"),
    ("did not find expected ',' or '}'", False, "expected ',' or '}': a map that begins with '{' is not closed"),
    ("did not find expected key", False, "expected a key here; mend the indentation or the quotes"),
    ("did not find expected '-' indicator", False, "expected '- ' here; mend the indentation"),
    (
        "found unknown escape character",
        False,
        "unknown escape in double quotes; write \\\\ for a backslash, or use single quotes",
    ),
    ("tab character", False, "a tab cannot indent; use spaces"),
    ("that violates indentation", False, "a tab cannot indent; use spaces"),
    ("undefined tag handle", False, "tags are not allowed; leave it out, or quote the text"),
)


def _translated(error: yaml.MarkedYAMLError, file: str, text: str) -> Problem:
    """The parser's complaint in the words of the person who wrote the file."""
    mark = error.problem_mark or error.context_mark
    index = min(mark.index, len(text)) if mark else 0
    if text.startswith("{{", index) and text[index - 1 : index] == "$":
        return problem_at(file, text, index - 1, "${{ }} inside {…} or […] has to be quoted", hint='Write "${{ … }}".', length=3)
    if text[index : index + 1] == "\t":
        return problem_at(file, text, index, "a tab cannot indent; use spaces")
    if "cannot start any token" in (error.problem or ""):
        return problem_at(file, text, index, f"text cannot begin with {text[index : index + 1]!r} unless it is quoted")
    if "alphabetic or numeric" in (error.problem or "") and error.context_mark:  # * and & name aliases and anchors
        place = min(error.context_mark.index, len(text))
        return problem_at(file, text, place, f"text cannot begin with {text[place : place + 1]!r} unless it is quoted")
    if (error.context or "").endswith("a tag"):
        return problem_at(file, text, index, "tags are not allowed; leave it out, or quote the text")
    if "mapping values are not allowed" in (error.problem or "") and (glued := _glued(text, index)):
        return problem_at(file, text, glued[0], "a space is missing behind the ':'", hint=f"Write {glued[1]}")
    for part, at_context, ours in _SAYINGS:
        if part in (error.problem or ""):
            place = error.context_mark.index if at_context and error.context_mark else index
            return problem_at(file, text, min(place, len(text)), ours)
    return problem_at(file, text, index, f"this is not YAML: {error.problem or error.context}")


_LACKS_QUOTES: Final = ("expected ',' or", "text cannot begin", "a ':' cannot", "nothing is anchored", "tags are not", "not YAML")
"""What is said where a text without its quotes may be the reason."""


def _advised(problem: Problem, text: str) -> Problem:
    """The problem with the entry in quotes, where that is what is missing."""
    if problem.hint or not any(part in problem.message for part in _LACKS_QUOTES):
        return problem
    from jobrunner.jobfile import unquoted  # only for who made a mistake

    begin = sum(len(line) + 1 for line in text.split("\n", problem.line - 1)[: problem.line - 1])
    hint = unquoted.of_stop(text, begin + problem.column - 1)
    return replace(problem, message=f"{problem.message}.", hint=hint) if hint else problem


def _glued(text: str, index: int) -> tuple[int, str] | None:
    """Where the ':' stands in a line `run:ls` above that of `index`, and the line mended: for YAML its text goes on there."""
    begin = text.rfind("\n", 0, index) + 1
    above = text.rfind("\n", 0, max(0, begin - 1)) + 1
    line, here = text[above:begin].rstrip(), text[begin:index]
    found = re.match(_GLUED, line)
    if found is None or found.start(1) != len(here) - len(here.lstrip(" ")) or re.search(r":(\s|$)", line):
        return None
    return above + found.end(1), f"{found[1]}: {shortened(line[found.end() :])}"
