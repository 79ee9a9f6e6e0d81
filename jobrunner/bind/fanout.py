"""The items of a fan-out: what `foreach` and `matrix` of a task come to, once the tasks that it needs have ended.

    foreach: [a, "${{ … }}"]              the values as they are written
    foreach: ${{ … }}                     a list that an expression gives
    foreach: {range | glob | lines: …}    numbers, files, lines of a file
    matrix: {…}                           combinations, see matrix

What the disk holds is asked when the task is about to start, and again when a run is resumed.
"""

from __future__ import annotations

import posixpath
from array import array
from collections.abc import Callable, Iterable, Sequence

from jobrunner import expressions
from jobrunner.bind import matrix
from jobrunner.bind.paths import absolute, passable
from jobrunner.errors import ExpressionError
from jobrunner.expressions import Scope, text_of
from jobrunner.items import Items
from jobrunner.kinds import Glob, Lines, Range
from jobrunner.typed import TYPE_CHECKING, Final, overload
from jobrunner.walk import Walk, has_glob

if TYPE_CHECKING:
    from jobrunner.spec import Task

MOST_LINES_BYTES: Final = 256 << 20
"""The largest file whose lines are read."""
_MOST_NAMED: Final = 3
"""Patterns that a message names."""


def unfolding(task: Task, folder: str) -> Callable[[Scope], Items]:
    """The items as a function of what names mean; relative paths count from `folder`. It raises ExpressionError."""
    if task.matrix is not None:
        values_of = expressions.compiled(dict(task.matrix))
        return lambda scope: matrix.items(values_of(scope))  # type: ignore[arg-type]  # a map stays a map
    match task.foreach:
        case Range(range=bounds):
            items = Items(range(bounds) if isinstance(bounds, int) else range(*bounds))
            return lambda scope: items
        case Glob(patterns=written, at_least=least):
            patterns = expressions.compiled(list(written))
            return lambda scope: Items(_enough(_patterns(patterns(scope)), folder, least))
        case Lines(lines=path):
            text = expressions.compiled(path)
            return lambda scope: Items(_lines(absolute(text(scope), folder)))
        case written:
            values = expressions.compiled(written)
            return lambda scope: _listed(values(scope))


def _listed(value: object) -> Items:
    if isinstance(value, list):
        return Items(value)
    raise ExpressionError(f"it gives {_kind(value)}, not a list")


def _kind(value: object) -> str:
    kinds = {str: "text", dict: "a map", bool: "true or false", int: "a number", float: "a number", type(None): "nothing (null)"}
    return kinds.get(type(value), type(value).__name__)


# --- files -------------------------------------------------------------------------------------------------------------------


def _patterns(values: object) -> list[str]:
    """The patterns as texts; an expression that gives a list gives several."""
    assert isinstance(values, list)
    return [passable(text_of(each)) for value in values for each in (value if isinstance(value, list) else [value])]


def _enough(patterns: Sequence[str], folder: str, least: int) -> list[str]:
    found = _files(patterns, folder)
    if len(found) < least:
        matching = f"{len(found)} files match" if len(found) != 1 else "1 file matches"
        raise ExpressionError(f"{matching} {_named(patterns)}, and at_least asks for {least}")
    return found


def _named(patterns: Sequence[str]) -> str:
    shown = [pattern[:80] or "nothing" for pattern in patterns[:_MOST_NAMED]]
    more = len(patterns) - len(shown)
    return " or ".join([*shown, f"one of {more} more"] if more else shown or ["no pattern"])


def _files(patterns: Iterable[str], folder: str) -> list[str]:
    """Files that match, sorted, each once; as text that can be passed on, so names that are not UTF-8 are left out.

    Of two ways to write a path (`a.csv`, `./a.csv`) that of the first pattern is taken.
    """
    found: dict[str, str] = {}
    for pattern in patterns:
        for name in _means(posixpath.expanduser(pattern), folder):
            if name.isprintable() or not _has_surrogates(name):
                found.setdefault(posixpath.normpath(posixpath.join(folder, name)), name)
    return sorted(found.values())


def _means(pattern: str, folder: str) -> Iterable[str]:
    if has_glob(pattern):
        return Walk(folder, strict=False).matching(pattern, folders=True)
    return [pattern] if pattern and posixpath.lexists(posixpath.join(folder, pattern)) else []


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


class _TextLines(Sequence[str]):
    """The lines of a text without the empty ones. A million of them are the text itself and 8 MB of places."""

    def __init__(self, text: bytes) -> None:
        self._text, self._starts = text, array("Q")
        start = 0
        while start < len(text):
            end = text.find(b"\n", start)
            end = len(text) if end < 0 else end
            if end > start:
                self._starts.append(start)
            start = end + 1

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        start = self._starts[index]
        end = self._text.find(b"\n", start)
        return self._text[start : len(self._text) if end < 0 else end].decode()


def _lines(path: str) -> Sequence[str]:
    """The lines of a regular file (a FIFO would block the run) in UTF-8, with or without a byte order mark."""
    try:
        if posixpath.getsize(path) > MOST_LINES_BYTES:
            raise ExpressionError(f"{path} is larger than {MOST_LINES_BYTES >> 20} MiB")
        if not posixpath.isfile(path):
            raise ExpressionError(f"cannot read the lines of {path}: it is not a regular file")
        with open(path, "rb") as file:
            text = file.read().removeprefix(b"\xef\xbb\xbf")
        text.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ExpressionError(f"cannot read the lines of {path}: {getattr(error, 'strerror', None) or error}") from None
    return _TextLines(text.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
