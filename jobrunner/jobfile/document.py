"""What a YAML file says and where each part of it stands: values with the marks of their keys, findings with their positions.

Marks are kept by container identity: `marks[id(container)]` lists key, value, key, value … of a mapping and the values of a
sequence, in the order in which the container holds them. Nothing is looked up until there is something to say; where a file could
be read without marks, they are made then.

A file that includes others has their documents in `included`. Merging keeps the path of every entry, so what is said at a path
is said by the document that the entry came from, and only by it: no mark is ever copied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from jobrunner.errors import Problem
from jobrunner.structs import field, struct
from jobrunner.typed import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import yaml

Path: TypeAlias = tuple[str | int, ...]

MOST_PROBLEMS = 200
"""After so many problems of one file the rest is not looked for."""

LONGEST_LINE = 160
"""Characters of a source line that are shown under a problem."""

# Patterns are texts: most files need none of them, and `re` compiles them at their first use.
_QUOTED = r'"(?:[^"\\\n]|\\.)*"' + r"|'(?:[^'\n]|'')*'"
_PLAIN_KEY = r"[a-zA-Z0-9_-]{1,64}"
_WORD = r"[^\s,\[\]{}]+"
_HEADER = r"(?:[|>][^\n]*\n\s*|['\"])?\s*"

_LONGEST_BARE = 2000
"""Characters of a text without `${{` in which places are looked for: the pattern is as long."""


@struct
class Finding:
    """Something wrong at a path of the document, not yet placed. `offset` and `length` are characters of the text there."""

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False
    offset: int | None = None
    length: int | None = None


@struct
class Document:
    """What a YAML file says (`value`), what was wrong with it on the way (`problems`), and where everything stands."""

    file: str
    text: str
    value: object = None
    problems: tuple[Problem, ...] = ()
    start: yaml.Mark | None = None
    marks: dict[int, list[yaml.Mark]] = field(default_factory=dict)
    raws: dict[int, dict[str | int, str]] = field(default_factory=dict)
    places: dict[int, dict[str, int]] = field(default_factory=dict)
    """Position of each key of the mappings that were asked about: a search through a large one for each problem is slow."""
    included: tuple[Document, ...] = ()
    """The files merged under this one, those first whose entries stand above the others'."""
    again: Callable[[], Document] | None = None
    """Reads the text once more, for its marks, where this has none."""

    def home(self, path: Path) -> Document:
        """The document that gave the value at `path`: this one, or the first included one that holds more of the way to it."""
        if not self.included:
            return self
        entry = path[: 3 if path[:2] == ("defaults", "env") else 2]  # as deep as files are merged
        return max((self, *self.included), key=lambda document: len(document._walk(entry)))

    def has(self, path: Path) -> bool:
        """Whether the file, or one that it includes, holds a value at `path`."""
        return len(self.home(path)._walk(path)) == len(path)

    def at(self, path: Path) -> object:
        """The value at `path`, or the innermost one on the way to it."""
        home = self.home(path)
        return home._value(home._walk(path))

    def problem(self, finding: Finding) -> Problem:
        """The finding with its position. Steps of its path that the file does not hold are left out."""
        return self.home(finding.path)._problem(finding)

    def index(self, path: Path, *, at_key: bool = False) -> int:
        """The character of the text, counted from 0, where the value (or key) at `path` begins; of the file that it came from."""
        home = self.home(path)
        return home._index(home._walk(path), at_key)

    def line(self, path: Path, *, at_key: bool = False) -> int:
        """The line, counted from 1, of the value (or key) at `path` in the file that it came from."""
        home = self.home(path)
        return home.text.count("\n", 0, self.index(path, at_key=at_key)) + 1

    def place(self, path: Path, *, at_key: bool = False) -> str:
        """`line 7`, or `jobs/common.yaml:7` where there is more than one file: where something stands, for a message."""
        line = self.line(path, at_key=at_key)
        return f"{self.home(path).file}:{line}" if self.included else f"line {line}"

    def _problem(self, finding: Finding) -> Problem:
        steps = self._walk(finding.path)
        at_key = finding.at_key and len(steps) > 0
        index = self._index(steps, at_key)
        if finding.offset is None:
            length = self._extent(steps[-1] if at_key else self._value(steps), index)
        else:
            index, length = self._inside(self._value(steps), index, finding.offset), finding.length or 1
        path = dotted(tuple(steps))
        return problem_at(self.file, self.text, index, finding.message, hint=finding.hint, path=path, length=length)

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
                here = here[step]  # type: ignore[index]  # it holds the step
        return steps

    def _value(self, steps: Sequence[str | int]) -> object:
        here: Any = self.value
        for step in steps:
            here = here[step]
        return here

    def _index(self, steps: Sequence[str | int], at_key: bool) -> int:
        """The character of the text where the value (or key) begins."""
        if self.again is not None:
            return self.again()._index(steps, at_key)
        mark = self._mark(steps, at_key) if steps else self.start
        return 0 if mark is None else min(mark.index, len(self.text))

    def _mark(self, steps: Sequence[str | int], at_key: bool) -> yaml.Mark:
        container = self._value(steps[:-1])
        marks = self.marks[id(container)]
        if not isinstance(container, dict):
            return marks[int(steps[-1])]
        if (places := self.places.get(id(container))) is None:
            places = self.places[id(container)] = {key: place for place, key in enumerate(container)}
        return marks[2 * places[str(steps[-1])] + (not at_key)]

    def _extent(self, said: object, index: int) -> int:
        """How many characters the key or the scalar that begins at `index` takes on its first line."""
        window = self.text[index : index + 2 * LONGEST_LINE]  # more is never underlined
        if quoted := re.match(_QUOTED, window):
            return len(quoted[0])
        if isinstance(said, (dict, list)):
            return 1
        if isinstance(said, str) and said and self.text.startswith(said, index):
            return len(said)
        return len(word_at(self.text, index)) or 1

    def _inside(self, said: object, index: int, offset: int) -> int:
        """Where a character of the text of a scalar that begins at `index` stands in the file.

        Text inside `${{ … }}` is written alike in every style of scalar, so the n-th `${{` of the text is the n-th one of the
        source. Where an escape makes them differ, it is the expression's beginning or the scalar's.
        """
        if not isinstance(said, str):
            return index
        if (begin := said.rfind("${{", 0, offset + 3)) < 0:
            return self._inside_bare(said[:offset], index)
        place = index - 1
        for _ in range(said.count("${{", 0, begin) + 1):
            place = self.text.find("${{", place + 1)
            if place < 0:
                return index
        behind = said[begin:offset]
        if "\n" not in behind and self.text.startswith(behind, place):
            return place + len(behind)
        return self._inside_bare(behind, place)

    def _inside_bare(self, before: str, index: int) -> int:
        """Where the text `before`, which has no `${{`, ends in the scalar at `index`: its blanks may be line ends there."""
        if len(before) > _LONGEST_BARE:
            return index
        words = (re.escape(word).replace("'", "''?").replace('"', r'\\?"') for word in before.split())
        found = re.compile(_HEADER + r"\s+".join(words) + r"\s+" * before[-1:].isspace()).match(self.text, index)
        return found.end() if found else index


def _holds(container: object, step: str | int) -> bool:
    if isinstance(container, dict):
        return step in container
    return isinstance(container, list) and isinstance(step, int) and 0 <= step < len(container)


def _as_text(value: object) -> object:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
    return value


# --- as people read it -------------------------------------------------------------------------------------------------------


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


def word_at(text: str, index: int) -> str:
    """What stands there up to a blank, comma, bracket or brace."""
    word = re.match(_WORD, text[index : index + 2 * LONGEST_LINE])
    return word[0] if word else ""


def dotted(path: Path) -> str:
    """`tasks.a.args[0]`: a path as people read it."""
    return shortened("".join(map(_step, path)).removeprefix("."), LONGEST_LINE)


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if re.fullmatch(_PLAIN_KEY, step) else f"[{shortened(step)!r}]"


def shortened(text: str, longest: int = 60) -> str:
    """A name as it can be shown in a message: on one line, never longer than `longest`."""
    return visible(text if len(text) <= longest else text[: longest - 1] + "…")


def visible(text: str) -> str:
    """The text with characters that a terminal would obey or hide replaced."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
