"""YAML text → plain values, with the line and column of every key and value, in one pass over the parser's events.

    bytes ─decoded→ text ─CParser.get_event→ events ─_Builder→ Document (value, marks, problems so far)

Marks are kept by container identity: `marks[id(container)]` lists key, value, key, value … of a mapping and the values of a
sequence, in the order in which the container holds them. Nothing is looked up until there is something to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, TypeAlias

import yaml
from yaml import cyaml

from jobrunner.errors import JobFileError, Problem

Path: TypeAlias = tuple[str | int, ...]

DEEPEST = 64
"""How deep lists and maps may be nested, aliases followed."""

FREE_COPIES = 100_000
"""So many values, plus one a byte of the file, may come from aliases and merge keys: the work stays linear in the file."""

LONGEST_NUMBER = 4_000
"""Digits: Python refuses to read or print whole numbers not far beyond it."""

MOST_PROBLEMS = 200
"""After so many problems the rest is only counted."""

LONGEST_LINE = 160
"""Characters of a source line that are shown under a problem."""

_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# YAML 1.2 core, but for one thing: a number that begins with a superfluous zero (0755, 007) stays text, so no zero is lost.
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", re.ASCII)

_ASCII_CONTROLS = bytes(code for code in range(0x20) if code not in b"\t\n\r") + b"\x7f"
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|\r(?!\n)")
_WIDE_UNFIT = re.compile(rb"\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]|\xef\xbb\xbf|\xef\xbf[\xbe\xbf]")
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"' + r"|'(?:[^'\n]|'')*'")
_PLAIN_KEY = re.compile(r"[\w-]{1,64}", re.ASCII)
_WORD = re.compile(r"[^\s,\[\]{}]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong at a path of the document, not yet placed. `offset` and `length` are characters of the text there."""

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False
    offset: int | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class _State:
    """What a container waits for, where that is not simply the value of a key."""

    name: str


_AWAIT_KEY: Final = _State("the next key of a mapping")
_ITEM: Final = _State("the next item of a sequence")
_MERGE: Final = _State("the value of <<")
_DROPPED: Final = _State("the value of a key that was refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a YAML file says (`value`), what was wrong with it on the way (`problems`), and where everything stands."""

    file: str
    text: str
    value: object = None
    problems: tuple[Problem, ...] = ()
    start: yaml.Mark | None = None
    marks: dict[int, list[yaml.Mark]] = field(default_factory=dict)
    raws: dict[int, dict[str | int, str]] = field(default_factory=dict)

    def has(self, path: Path) -> bool:
        """Whether the file holds a value at `path`."""
        return len(self._walk(path)) == len(path)

    def at(self, path: Path) -> object:
        """The value at `path`, or the innermost one on the way to it."""
        return self._value(self._walk(path))

    def problem(self, finding: Finding) -> Problem:
        """The finding with its position. Steps of its path that the file does not hold are left out."""
        steps = self._walk(finding.path)
        at_key = finding.at_key and len(steps) > 0
        index = self._index(steps, at_key)
        extent = self._extent(steps, index, at_key)
        if finding.offset is not None:
            index, extent = self._inside(steps, index, finding.offset), finding.length or 1
        path = dotted(tuple(steps))
        return problem_at(self.file, self.text, index, finding.message, hint=finding.hint, path=path, length=extent)

    def line(self, path: Path, *, at_key: bool = False) -> int:
        """The line, counted from 1, of the value (or key) at `path`."""
        return self.text.count("\n", 0, self._index(self._walk(path), at_key)) + 1

    def as_written(self, container: dict[str, object]) -> dict[str, object]:
        """A copy whose plain scalars are the text that the file holds: 1.10 is "1.10", true is "true", null is ""."""
        raws = self.raws.get(id(container), {})
        return {key: raws[key] if key in raws else _as_text(value) for key, value in container.items()}

    def _walk(self, path: Path) -> list[str | int]:
        """The steps of `path` that lead from container to container; others (names of union members) are passed over."""
        steps: list[str | int] = []
        here = self.value
        for step in path:
            if _holds(here, step):
                steps.append(step)
                here = here[step]  # type: ignore[index]
        return steps

    def _value(self, steps: Sequence[str | int]) -> object:
        here: Any = self.value
        for step in steps:
            here = here[step]
        return here

    def _index(self, steps: Sequence[str | int], at_key: bool) -> int:
        mark = self._mark(steps, at_key)
        return 0 if mark is None else min(mark.index, len(self.text))

    def _mark(self, steps: Sequence[str | int], at_key: bool) -> yaml.Mark | None:
        if not steps:
            return self.start
        container = self._value(steps[:-1])
        marks = self.marks[id(container)]
        if isinstance(container, dict):
            return marks[2 * list(container).index(steps[-1]) + (0 if at_key else 1)]
        return marks[int(steps[-1])]

    def _extent(self, steps: Sequence[str | int], index: int, at_key: bool) -> int:
        """How many characters the key or the scalar takes on its first line."""
        said = steps[-1] if at_key and steps else self._value(steps)
        end = index + 2 * LONGEST_LINE  # more is never underlined
        if quoted := _QUOTED.match(self.text, index, end):
            return len(quoted[0])
        if isinstance(said, (dict, list)):
            return 1
        if isinstance(said, str) and said and self.text.startswith(said, index):
            return len(said)
        word = _WORD.match(self.text, index, end)
        return len(word[0]) if word else 1

    def _inside(self, steps: Sequence[str | int], index: int, offset: int) -> int:
        """Where a character of a scalar's text stands in the file.

        Text inside `${{ … }}` is written alike in every style of scalar, so the n-th `${{` of the text is the n-th one of the
        source. Where an escape makes them differ, it is the expression's beginning or the scalar's.
        """
        text = self._value(steps)
        begin = text.rfind("${{", 0, offset + 3) if isinstance(text, str) else -1
        if not isinstance(text, str) or begin < 0:
            return index
        place = index - 1
        for _ in range(text.count("${{", 0, begin) + 1):
            place = self.text.find("${{", place + 1)
            if place < 0:
                return index
        return place + offset - begin if self.text.startswith(text[begin:offset], place) else place


def read(source: bytes, file: str) -> Document:
    """Read one YAML document. Raises JobFileError, and nothing else, for bytes that cannot be read as one.

    Mistakes that leave the rest readable (a duplicate key, a tag) are in `problems`; the first value of a duplicate key stands.
    """
    source = source.removeprefix(b"\xef\xbb\xbf")
    text = _decoded(source, file)
    builder = _Builder(file, text)
    try:
        builder.run(_parser(source))
    except yaml.MarkedYAMLError as error:
        builder.problems.append(_translated(error, file, text))
    except yaml.YAMLError as error:
        builder.problems.append(problem_at(file, text, 0, f"this is not YAML: {error}"))
    except _Refused as error:
        builder.problems.append(error.problem)
    except (ValueError, OverflowError):
        if yaml.__with_libyaml__:
            raise  # ours
        builder.problems.append(problem_at(file, text, 0, "an escape in double quotes names no character"))
    else:
        return builder.document()
    raise JobFileError(tuple(builder.problems))


def problem_at(file: str, text: str, index: int, message: str, *, hint: str = "", path: str = "", length: int = 1) -> Problem:
    """A problem at a character of a text, with the line it stands on."""
    begin = text.rfind("\n", 0, index) + 1
    end = text.find("\n", index)
    line = (text[begin:] if end < 0 else text[begin:end]).rstrip("\r")
    column = min(index - begin, len(line))
    shown = line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"
    return Problem(
        file=file,
        line=text.count("\n", 0, begin) + 1,
        column=column + 1,
        path=path,
        message=f"{message}." if hint else message,
        hint=hint,
        length=max(1, min(length, len(shown) - column)),
        source="" if column >= LONGEST_LINE else visible(shown.replace("\t", " ")),
    )


def dotted(path: Path) -> str:
    """`tasks.a.args[0]`: a path as people read it."""
    parts = [f".{step}" if isinstance(step, str) and _PLAIN_KEY.fullmatch(step) else f"[{_shown(step)}]" for step in path]
    return shortened("".join(parts).removeprefix("."), LONGEST_LINE)


def _shown(step: str | int) -> str:
    return str(step) if isinstance(step, int) else repr(shortened(step))


def shortened(text: str, longest: int = 60) -> str:
    """A name as it can be shown in a message: on one line, never longer than `longest`."""
    return visible(text if len(text) <= longest else text[: longest - 1] + "…")


def visible(text: str) -> str:
    """The text with characters that a terminal would obey or hide replaced."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _as_text(value: object) -> object:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
    return value


def _holds(container: object, step: str | int) -> bool:
    if isinstance(container, dict):
        return step in container
    return isinstance(container, list) and isinstance(step, int) and 0 <= step < len(container)


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
    if _is_suspect(source) and (unfit := _UNFIT.search(text)):
        raise JobFileError((problem_at(file, text, unfit.start(), _about_control(unfit[0])),))
    return text


def _is_suspect(source: bytes) -> bool:
    """Cheap enough for every file: True for every text in which `_UNFIT` finds something, and for few others."""
    if len(source.translate(None, _ASCII_CONTROLS)) != len(source):
        return True
    if source.count(b"\r") != source.count(b"\r\n"):
        return True
    return not source.isascii() and _WIDE_UNFIT.search(source) is not None


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
    if (error.context or "").endswith("a tag"):
        return problem_at(file, text, index, "tags are not allowed; leave it out, or quote the text")
    for part, at_context, ours in _SAYINGS:
        if part in (error.problem or ""):
            place = error.context_mark.index if at_context and error.context_mark else index
            return problem_at(file, text, min(place, len(text)), ours)
    return problem_at(file, text, index, f"this is not YAML: {error.problem or error.context}")


# --- events → values ---------------------------------------------------------------------------------------------------------


class _Refused(Exception):
    """The rest of the file cannot be read, or is not worth it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class _Anchored:
    value: object
    weight: int
    height: int
    raw: str | None = None


class _Builder:
    """Puts values together from events, iteratively. What is open is on `stack`; the innermost container is in the fields."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self.problems: list[Problem] = []
        self.marks: dict[int, list[yaml.Mark]] = {}
        self.raws: dict[int, dict[str | int, str]] = {}
        self.anchors: dict[str, _Anchored | None] = {}
        self.dropped: list[object] = []  # keeps what was refused alive: identities must not be used again
        self.merge_lines: dict[int, int] = {}
        self.nodes = 0
        self.copies = 0
        self.most_copies = FREE_COPIES + len(text)
        self.root: list[Any] = []
        self.container: Any = self.root
        self.here: list[yaml.Mark] = []
        self.key: str | _State = _ITEM
        self.height = 0
        self.merge: Any = None
        self.stack: list[tuple[Any, list[yaml.Mark], str | _State, int, Any, str | None, int]] = []
        self.has_document = False

    def run(self, parser: Any) -> None:
        """Take all events of the stream."""
        act: dict[type[Any], Callable[[Any], None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._open_mapping,
            yaml.MappingEndEvent: self._close,
            yaml.SequenceStartEvent: self._open_sequence,
            yaml.SequenceEndEvent: self._close,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._document,
        }
        get, end = parser.get_event, yaml.StreamEndEvent
        while (kind := type(event := get())) is not end:
            if (action := act.get(kind)) is not None:  # stream start and document end say nothing
                action(event)

    def document(self) -> Document:
        """What was built. Only after `run`."""
        return Document(
            file=self.file,
            text=self.text,
            value=self.root[0] if self.root else None,
            problems=tuple(self.problems),
            start=self.here[0] if self.here else None,
            marks=self.marks,
            raws=self.raws,
        )

    def _document(self, event: Any) -> None:
        if self.has_document:
            message = "a second YAML document begins here; a job file holds one"
            raise _Refused(self._problem(event.start_mark, message, length=3))
        self.has_document = True

    def _scalar(self, event: Any) -> None:
        """The hot path: a key, or a value put where it belongs."""
        text = event.value
        key = self.key
        self.nodes += 1
        if key is _AWAIT_KEY:
            if event.tag is None and event.anchor is None and text not in self.container and text != "<<":
                self.key = text
                self.here.append(event.start_mark)
                return
            self._odd_key(event)
            return
        value = text
        if event.implicit[0]:
            value = _WORDS.get(text, text)
            if value is text and text[0] in "-+.0123456789":
                value = self._number(event)
        if event.tag is not None or event.anchor is not None:
            self._tag_or_anchor(event, value)
        if key is _ITEM:
            self.container.append(value)
            self.here.append(event.start_mark)
        elif type(key) is str:
            self.container[key] = value
            self.here.append(event.start_mark)
            self.key = _AWAIT_KEY
        else:
            self._put_aside(value, event.start_mark)

    def _number(self, event: Any) -> object:
        """The number that a plain scalar is, or its text. How it is written is kept where printing would change it."""
        text: str = event.value
        if len(text) > LONGEST_NUMBER and (_FLOAT.fullmatch(text) or _OCTAL_OR_HEX.fullmatch(text)):
            self._say(event.start_mark, f"a number of {len(text)} characters; quote it if it is text", length=len(text))
            return 0
        value = _number(text)
        if value is not text and str(value) != text:
            self._keep_raw(text)
        return value

    def _keep_raw(self, raw: str) -> None:
        place = len(self.container) if self.key is _ITEM else self.key
        if not isinstance(place, _State):
            self.raws.setdefault(id(self.container), {})[place] = raw

    def _odd_key(self, event: Any) -> None:
        """A key with a tag or an anchor, one that is there already, or `<<`."""
        text = event.value
        self._tag_or_anchor(event, text)
        is_merge = text == "<<" and event.implicit[0]
        if is_merge and self.merge is None:
            self.key, self.merge = _MERGE, ()
            self.merge_lines[id(self.container)] = event.start_mark.line
        elif is_merge or text in self.container:
            self._duplicate(event, text)
            self.key = _DROPPED
        else:
            self.key = text
            self.here.append(event.start_mark)

    def _duplicate(self, event: Any, text: str) -> None:
        first = (
            self.here[2 * list(self.container).index(text)].line
            if text in self.container
            else self.merge_lines[id(self.container)]
        )
        message = f"duplicate key in line {event.start_mark.line + 1}; {shortened(text)!r} stands already in line {first + 1}"
        length = len(text) if self.text.startswith(text, event.start_mark.index) else 1
        self._say(event.start_mark, message, key=text, length=length)

    def _tag_or_anchor(self, event: Any, value: object) -> None:
        if event.tag is not None:
            self._refuse_tag(event)
        if event.anchor is not None:
            raw = event.value if not isinstance(value, str) and value is not None else None
            self.anchors[event.anchor] = _Anchored(value=value, weight=1, height=0, raw=raw)

    def _refuse_tag(self, event: Any) -> None:
        index = self.text.find("!", event.start_mark.index)
        word = _WORD.match(self.text, index)
        message = "tags are not allowed; leave it out (and quote the value if it is to be text)"
        self._say(event.start_mark, message, index=index, length=len(word[0]) if word else 1)

    def _open_mapping(self, event: Any) -> None:
        self._open(event, {}, _AWAIT_KEY)

    def _open_sequence(self, event: Any) -> None:
        self._open(event, [], _ITEM)

    def _open(self, event: Any, container: Any, state: _State) -> None:
        mark = event.start_mark
        if event.tag is not None:
            self._refuse_tag(event)
        if len(self.stack) >= DEEPEST:
            raise _Refused(self._problem(mark, f"lists and maps are nested more than {DEEPEST} deep"))
        key = self.key
        if type(key) is str:
            self.container[key] = container
            self.here.append(mark)
            key = _AWAIT_KEY
        elif key is _ITEM:
            self.container.append(container)
            self.here.append(mark)
        else:
            self.dropped.append(container)
            if key is _AWAIT_KEY:
                self._refuse_key(mark)
                key = _DROPPED  # what follows is the value of this key
            elif key is _DROPPED:
                key = _AWAIT_KEY
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.stack.append((self.container, self.here, key, self.height, self.merge, event.anchor, self.nodes))
        self.nodes += 1
        self.container, self.key, self.height, self.merge = container, state, 0, None
        self.here = self.marks[id(container)] = []

    def _refuse_key(self, mark: yaml.Mark) -> None:
        if self.text.startswith(("{{", "{ {"), mark.index - 1) or self.text.startswith("{{", mark.index):
            message, hint = "{{ … }} is a map as a key", 'An expression is written "${{ … }}".'
        else:
            message, hint = "a key is text, not a list or a map", ""
        self._say(mark, message, hint=hint)

    def _close(self, event: Any) -> None:
        if self.merge:
            self._apply_merge()
        container, height = self.container, self.height + 1
        self.container, self.here, self.key, above, self.merge, anchor, nodes = self.stack.pop()
        self.height = max(above, height)
        if anchor is not None:
            self.anchors[anchor] = _Anchored(value=container, weight=self.nodes - nodes, height=height)
        if self.key is _MERGE:
            self._take_merge(container, event.start_mark)

    def _alias(self, event: Any) -> None:
        mark = event.start_mark
        if event.anchor not in self.anchors:
            raise _Refused(
                self._problem(mark, f"nothing is anchored as '&{event.anchor}' above this line", length=len(event.anchor) + 1)
            )
        anchored = self.anchors[event.anchor]
        if anchored is None:
            raise _Refused(
                self._problem(mark, f"'*{event.anchor}' stands inside of what it refers to", length=len(event.anchor) + 1)
            )
        if len(self.stack) + anchored.height > DEEPEST:
            raise _Refused(self._problem(mark, f"lists and maps are nested more than {DEEPEST} deep"))
        self._count(anchored.weight, mark)
        self.height = max(self.height, anchored.height)
        if self.key is _AWAIT_KEY:
            self._alias_key(anchored, mark)
            return
        if anchored.raw is not None:
            self._keep_raw(anchored.raw)
        self._put(anchored.value, mark)
        if self.key is _MERGE:
            self._take_merge(anchored.value, mark)

    def _alias_key(self, anchored: _Anchored, mark: yaml.Mark) -> None:
        text = anchored.value
        if isinstance(text, str) and text not in self.container:
            self.key = text
            self.here.append(mark)
            return
        self._say(mark, "an alias as a key has to be text that is not a key already")
        self.key = _DROPPED

    def _count(self, weight: int, mark: yaml.Mark) -> None:
        """Aliases and merges multiply: what they stand for is counted, not what they take to write."""
        self.nodes += weight
        self.copies += weight
        if self.copies > self.most_copies:
            raise _Refused(self._problem(mark, f"aliases and merge keys expand to more than {self.most_copies:,} values"))

    def _put(self, value: object, mark: yaml.Mark) -> None:
        if self.key is _ITEM:
            self.container.append(value)
        elif isinstance(self.key, str):
            self.container[self.key] = value
            self.key = _AWAIT_KEY
        else:
            if self.key is _DROPPED:
                self._put_aside(value, mark)
            return
        self.here.append(mark)

    def _put_aside(self, value: object, mark: yaml.Mark) -> None:
        """A scalar under `<<`, or a value whose key was refused."""
        if self.key is _MERGE:
            self._take_merge(value, mark)
        else:
            self.dropped.append(value)
            self.key = _AWAIT_KEY

    def _take_merge(self, value: object, mark: yaml.Mark) -> None:
        sources = value if isinstance(value, list) else [value]
        if all(isinstance(source, dict) for source in sources):
            self.merge = tuple(sources)
        else:
            self._say(mark, "<< takes a map or a list of maps", hint="Write <<: *anchor.")
        self.dropped.append(value)
        self.key = _AWAIT_KEY

    def _apply_merge(self) -> None:
        """Keys of the merged maps that the mapping does not hold itself; the first map that has a key gives it."""
        for source in self.merge:
            marks = self.marks[id(source)]
            self._count(len(source), self.here[0] if self.here else marks[0] if marks else self._any_mark())
            raws = self.raws.get(id(source), {})
            for position, (key, value) in enumerate(source.items()):
                if key not in self.container:
                    self.container[key] = value
                    self.here += marks[2 * position : 2 * position + 2]
                    if key in raws:
                        self.raws.setdefault(id(self.container), {})[key] = raws[key]

    def _any_mark(self) -> yaml.Mark:
        return self.stack[-1][1][-1]

    def _path(self) -> Path:
        """The keys and positions that lead to where the next value goes."""
        open_ones = [*(level[0] for level in self.stack[1:]), self.container] if self.stack else []
        path: list[str | int] = [_place_of(inner, outer) for outer, inner in pairwise(open_ones)]
        if isinstance(self.key, str):
            path.append(self.key)
        elif self.key is _ITEM and self.stack:
            path.append(len(self.container))
        return tuple(path)

    def _say(self, mark: yaml.Mark, message: str, **where: Any) -> None:
        """Note a problem after which reading goes on; but not for ever."""
        self.problems.append(self._problem(mark, message, **where))
        if len(self.problems) >= MOST_PROBLEMS:
            raise _Refused(self._problem(mark, f"{MOST_PROBLEMS} problems up to here; the rest of the file is not read"))

    def _problem(
        self, mark: yaml.Mark, message: str, *, hint: str = "", key: str | None = None, length: int = 1, index: int | None = None
    ) -> Problem:
        path = self._path() if key is None else (*self._path(), key)
        place = min(mark.index, len(self.text)) if index is None else index
        return problem_at(self.file, self.text, place, message, hint=hint, path=dotted(path), length=length)


def _place_of(inner: object, container: Any) -> str | int:
    """The key or position at which the innermost open container hangs in the one around it: it was put there last."""
    if isinstance(container, list):
        return max(0, len(container) - 1)
    return next((key for key in reversed(container) if container[key] is inner), "?")


def _number(text: str) -> object:
    """The int or float that a plain scalar is in the YAML 1.2 core schema; the text itself where it is none."""
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _OCTAL_OR_HEX.fullmatch(text):
        return int(text, 0)
    return float(text.replace(".", "", 1)) if _NOT_FINITE.fullmatch(text) else text
