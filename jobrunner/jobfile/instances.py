"""What the models cannot see of foreach and matrix: endless ranges, patterns of a shell, entries that fit no combination."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Final

from pydantic import JsonValue

from jobrunner import spec
from jobrunner.expressions import is_constant
from jobrunner.hints import did_you_mean
from jobrunner.jobfile import cures
from jobrunner.jobfile.document import Finding, Path

MOST_ITEMS = 10_000_000
"""Items that one `range` may give, and combinations that one `matrix` may."""
CHANGES: Final = ("include", "exclude")
"""The keys of a matrix that are no names of it."""


def find(name: str, task: spec.Task) -> Iterator[Finding]:
    """Everything wrong in what says which instances a task has, apart from its expressions."""
    if isinstance(task.foreach, spec.Range):
        yield from _range(("tasks", name, "foreach", "range"), task.foreach.range)
    if isinstance(task.foreach, spec.Glob):
        yield from _glob(("tasks", name, "foreach", "glob"), task.foreach.glob)
    if task.matrix is None:
        return
    path = ("tasks", name, "matrix")
    if task.foreach is not None:
        hint = "Make the items one more name of the matrix, or leave one of them out."
        yield Finding(path=path, at_key=True, message="foreach and matrix exclude each other", hint=hint)
    yield from _matrix(path, task.matrix)


def names(matrix: spec.Matrix) -> list[str]:
    """The names that combinations have: those with lists, and those that include brings; none where that is computed."""
    if isinstance(matrix.get("include"), str):
        return []
    return list(dict.fromkeys([*_axes(matrix), *(key for _, entry in _entries(matrix, "include") for key in entry)]))


# --- foreach -----------------------------------------------------------------------------------------------------------------


def _range(path: Path, bounds: int | list[int]) -> Iterator[Finding]:
    if isinstance(bounds, int):
        bounds = [bounds]
    if len(bounds) == 3 and bounds[2] == 0:
        yield Finding(path=(*path, 2), message="the step of a range is not 0")
    elif _length(bounds) > MOST_ITEMS:
        yield Finding(path=path, message=f"more than {MOST_ITEMS:,} items")


def _length(bounds: list[int]) -> int:
    """How many numbers `range(*bounds)` has; len() would overflow."""
    start, stop = (0, bounds[0]) if len(bounds) == 1 else bounds[:2]
    step = bounds[2] if len(bounds) == 3 else 1
    return max(0, -((start - stop) // step))


_NOT_LITERAL: Final = r"\$\{\{.*?\}\}|\[!?\]?[^\]]*\]"
"""What no brace of a pattern stands in: an expression, and the characters of which one matches."""
_BRACES: Final = r"\{[^{}]*(?:,|\.\.)[^{}]*\}"
_LONGEST_PATTERN: Final = 1000
_MOST_SPELLED: Final = 8


def _glob(path: Path, patterns: str | list[str]) -> Iterator[Finding]:
    """`*.{jpg,png}` of a shell names files with braces here, which nobody has."""
    for at, pattern in enumerate([patterns] if isinstance(patterns, str) else patterns):
        if (found := re.search(_BRACES, _literal(pattern))) is None:
            continue
        place = path if isinstance(patterns, str) else (*path, at)
        offset, length = found.start(), len(found[0])
        hint = _written_out(pattern, is_alone=isinstance(patterns, str))
        yield Finding(path=place, message="braces are not a pattern here", hint=hint, offset=offset, length=length)


def _written_out(pattern: str, *, is_alone: bool) -> str:
    """What to write instead of a pattern with braces, which is the value itself or one of several."""
    spelled = cures.flow(_spelled(pattern))
    if spelled in ("", "[]"):
        return "Write a list of patterns, one for each."
    return f"Write a list: {spelled}." if is_alone else f"Write one for each: {spelled[1:-1]}."


def _literal(pattern: str) -> str:
    """The pattern with as many other characters in place of what is not literal in it. Nobody writes a very long one."""
    if len(pattern) > _LONGEST_PATTERN:
        return ""
    return re.sub(_NOT_LITERAL, lambda part: "x" * len(part[0]), pattern, flags=re.DOTALL)


def _spelled(pattern: str) -> list[str]:
    """The patterns that a shell makes of one with `{a,b}`, where they are few; nothing where they are many, or of `{1..9}`."""
    done, rest = list[str](), [pattern]
    while rest:
        text = rest.pop(0)
        found = re.search(_BRACES, literal := _literal(text))
        if found is None:
            done.append(text)
            continue
        commas = [found.start(), *(at for at in range(*found.span()) if literal[at] == ","), found.end() - 1]
        rest[:0] = [text[: found.start()] + text[one + 1 : two] + text[found.end() :] for one, two in pairwise(commas)]
        if len(commas) < 3 or len(done) + len(rest) > _MOST_SPELLED:
            return []
    return done


# --- matrix ------------------------------------------------------------------------------------------------------------------


def _matrix(path: Path, matrix: spec.Matrix) -> Iterator[Finding]:
    axes = _axes(matrix)
    for key in CHANGES:
        yield from _maps((*path, key), matrix.get(key, []))
    if not axes and "exclude" in matrix:
        message = "exclude drops combinations, and this matrix has no names that make some"
        yield Finding(path=(*path, "exclude"), at_key=True, message=message, hint="Write name: [a, b] beside it.")
    else:
        yield from _excluded((*path, "exclude"), matrix)
    sizes = [len(values) for values in axes.values() if isinstance(values, list)]
    if prod(sizes) + len(_entries(matrix, "include")) > MOST_ITEMS:
        yield Finding(path=path, at_key=True, message=f"more than {MOST_ITEMS:,} combinations")


def _axes(matrix: spec.Matrix) -> dict[str, list[JsonValue] | str]:
    return {name: values for name, values in matrix.items() if name not in CHANGES}


def _entries(matrix: spec.Matrix, key: str) -> list[tuple[int, dict[str, object]]]:
    """The maps of include or exclude, with their positions."""
    rows = matrix.get(key)
    return [(at, dict(row)) for at, row in enumerate(rows) if isinstance(row, dict)] if isinstance(rows, list) else []


def _maps(path: Path, rows: object) -> Iterator[Finding]:
    """Include and exclude are lists of maps, each of which says something, or an expression (see references)."""
    message, hint = no_maps(str(path[-1]))
    if isinstance(rows, str) and "${{" in rows:
        return
    if not isinstance(rows, list):
        yield Finding(path=path, message=message, hint=hint)
        return
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            yield Finding(path=(*path, at), message=message, hint=hint)
        elif not row:
            said = "nothing is added by" if path[-1] == "include" else "every combination is dropped by"
            yield Finding(path=(*path, at), message=f"{said} an empty map", hint="Leave it out.")


def no_maps(key: str) -> tuple[str, str]:
    """What include and exclude are, and how they are written."""
    return f"{key} of a matrix is a list of maps", f"Write {key}: [{{name: value}}]."


def _excluded(path: Path, matrix: spec.Matrix) -> Iterator[Finding]:
    axes = _axes(matrix)
    for at, row in _entries(matrix, "exclude"):
        for key, value in row.items():
            if key not in axes:
                hint = did_you_mean(key, axes) or f"There {'is' if len(axes) == 1 else 'are'} {', '.join(list(axes)[:8])}."
                yield Finding(path=(*path, at, key), at_key=True, message=f"no list of the matrix is called {key!r}", hint=hint)
            elif isinstance(value, list):
                yield Finding(path=(*path, at, key), message="exclude compares one value", hint="Write a map for each of them.")
            elif _is_absent(value, values := axes[key]):
                hint = _of_absent(value, values)
                yield Finding(path=(*path, at, key), message=f"{key!r} has no such value, so nothing is dropped", hint=hint)


def _of_absent(value: object, values: list[JsonValue] | str) -> str:
    """What was probably meant by a value that the list does not hold. 3.10 is the number 3.1, which is like no text."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and any(isinstance(each, str) for each in values):
        return "The list has texts, and this is a number: quote it."
    return did_you_mean(str(value), [str(each) for each in values])


def _is_absent(value: object, values: list[JsonValue] | str) -> bool:
    """Whether it is plain to see that a list does not hold a value."""
    return isinstance(values, list) and is_constant(value) and is_constant(values) and value not in values
