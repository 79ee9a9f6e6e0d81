"""Mistakes that have exactly one cure, mended in the file itself; every byte that is not part of one stays as it is.

bytes ─reader→ Document ─the models' errors→ edits ─applied→ bytes ─┐
  │        └─ unquoted ${{ }} in a flow collection ─→ edit ────────┤ again, until there are no more edits
  └────────── kept where the result has not fewer problems ←───────┘
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobrunner import spec
from jobrunner.errors import JobFileError, Problem, UsageError
from jobrunner.jobfile import cures, foreign, loader, mistakes, reader
from jobrunner.jobfile.document import MOST_PROBLEMS, Document, Finding, Path, dotted

MOST_ROUNDS: Final = 200
"""So often a file is read again: each round mends all it can see, and an unquoted `${{` hides what comes after it."""

_BOM: Final = b"\xef\xbb\xbf"
_MOST_SINGLE: Final = 50
_UNREADABLE: Final = 1_000_000  # more than any file that can be read has problems
_QUOTED: Final = r'"(?:[^"\\\n]|\\.)*"' + r"|'(?:[^'\n]|'')*'"
_WORD: Final = r"[^\s,\[\]{}#&*!|>\"']+"
_NAMES: Final = r"[A-Za-z_][\w-]*(?:\s*,\s*[A-Za-z_][\w-]*)*"
_LISTS_OF_NAMES: Final = frozenset({"needs", "secrets", "limits"})
_WORDS: Final = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that was mended, by the line it stands on, counted from 1."""

    line: int
    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.line}: {self.path + ': ' if self.path else ''}{self.before} → {self.after}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """What a file is after mending: its bytes, what was changed in file order, and the problems that remain."""

    source: bytes
    changes: tuple[Change, ...] = ()
    remaining: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    """Characters `begin` to `end` of the text become `after`. All on one line, so no line ever moves."""

    begin: int
    end: int
    after: str
    path: str = ""
    is_table: bool = False


def fixed(source: bytes, file: str) -> Fixed:
    """The bytes of a job file with all mended that has one cure; unchanged where the result would not be better.

    Better is: it can be read, and has strictly fewer problems, those counted that a table with a wrong name hid. What is fixed
    already comes back as it is.
    """
    changes: list[Change] = []
    while (better := _improved(source, file)) is not None:
        source, more = better
        changes += more
    return Fixed(source=source, changes=tuple(sorted(changes, key=lambda change: change.line)), remaining=_problems(source, file))


def _improved(source: bytes, file: str) -> tuple[bytes, list[Change]] | None:
    """All edits to their end where that helps, else the first single one that does."""
    edits = _edits(source, file)
    if not edits:
        return None
    before = max(_badness(source, file), _hidden(source, edits, file))
    for chosen in (edits, *([edit] for edit in edits[:_MOST_SINGLE])):
        result, changes = _to_the_end(source, chosen, file)
        if _badness(result, file) < before:
            return result, changes
        result, changes = _applied(source, chosen)
        if _badness(result, file) < before:
            return result, changes
    return None


def _hidden(source: bytes, edits: Sequence[_Edit], file: str) -> int:
    """How many problems it really has where a table has a wrong name (`steps`): those under it are seen when it is renamed."""
    tables = [edit for edit in edits if edit.is_table]
    shown = _badness(_applied(source, tables)[0], file) if tables else 0
    return 0 if shown >= _UNREADABLE else shown + len(tables)


def _to_the_end(source: bytes, edits: Sequence[_Edit], file: str) -> tuple[bytes, list[Change]]:
    """The edits, then those that the result asks for, and so on: one may uncover another."""
    found: list[Change] = []
    for _ in range(MOST_ROUNDS):
        source, changes = _applied(source, edits)
        found += changes
        if not (edits := _edits(source, file)):
            break
    return source, found


def _badness(source: bytes, file: str) -> int:
    """How many problems a file has; more than any other where it cannot be read."""
    try:
        document = reader.read(source, file)
    except JobFileError:
        return _UNREADABLE
    found = len(_problems(source, file))
    return found if found < MOST_PROBLEMS else max(found, len(_details(document)))  # no more than so many are told


def _problems(source: bytes, file: str) -> tuple[Problem, ...]:
    try:
        loader.parse(source, file)
    except JobFileError as error:
        return error.problems
    return ()


def _applied(source: bytes, edits: Sequence[_Edit]) -> tuple[bytes, list[Change]]:
    bom = _BOM if source.startswith(_BOM) else b""
    text = source.removeprefix(_BOM).decode()
    changes = []
    for edit in sorted(edits, key=lambda edit: edit.begin, reverse=True):
        line = text.count("\n", 0, edit.begin) + 1
        changes.append(Change(line=line, path=edit.path, before=text[edit.begin : edit.end], after=edit.after))
        text = text[: edit.begin] + edit.after + text[edit.end :]
    return bom + text.encode(), changes[::-1]


# --- what can be mended ------------------------------------------------------------------------------------------------------


def _edits(source: bytes, file: str) -> list[_Edit]:
    """Every edit that the file asks for now, none overlapping another."""
    try:
        document = reader.read(source, file)
    except JobFileError as error:
        return _quotes(source, error.problems[-1]) if error.problems else []
    if document.problems or not isinstance(document.value, dict):
        return []  # a duplicate key: nobody knows which of the two was meant
    return _disjoint(_of_details(_details(document), document))


def _details(document: Document) -> list[ErrorDetails]:
    """What the models refuse."""
    try:
        spec.Job.model_validate(document.value)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)
    return []


def _disjoint(edits: Iterable[_Edit]) -> list[_Edit]:
    """In file order; of those that touch the same characters (aliases name one place twice) the first."""
    found: list[_Edit] = []
    for edit in sorted(edits, key=lambda edit: (edit.begin, edit.end)):
        if not found or edit.begin >= found[-1].end:
            found.append(edit)
    return found


def _of_details(details: Sequence[ErrorDetails], document: Document) -> Iterator[_Edit]:
    wanted: Counter[Path] = Counter()
    renames: list[tuple[Path, list[_Edit]]] = []
    for detail in details:
        path = mistakes.path_of(detail)
        if not path or not document.has(path):
            continue
        if detail["type"] == "extra_forbidden":
            name, edits = _rename(path, document)
            wanted[(*path[:-1], name)] += 1
            renames.append(((*path[:-1], name), edits))
        else:
            yield from _value(detail["type"], path, document)
    for home, edits in renames:
        if wanted[home] == 1 and not document.has(home):  # two keys that become one: nobody knows which is meant
            yield from edits


def _rename(path: Path, document: Document) -> tuple[str, list[_Edit]]:
    """The key that an unknown one is to be, and what has to be written for it; no edits where that is not certain."""
    key, value, model = str(path[-1]), document.at(path), foreign.model_at(path[:-1])
    answer = foreign.answer(model, key, value)
    if answer is None:
        name = foreign.slip_of(model, key)
        return name, _key_edit(path, name, document) if name else []
    if answer.note or not answer.is_same:
        return answer.key, []
    edits = _key_edit(path, answer.key, document)
    if answer.text:
        new = answer.text.partition(": ")[2]
        edits += [] if new == str(value) else _value_edit(path, new, document)
    return answer.key, edits


def _value(kind: str, path: Path, document: Document) -> Iterator[_Edit]:
    """A value of the wrong type that can only mean one of the right type."""
    value = document.at(path)
    if path[-1] in _LISTS_OF_NAMES and isinstance(value, str) and len(path) <= 3 and kind in {"list_type", "limits"}:
        if re.fullmatch(_NAMES, value, re.ASCII):
            yield from _value_edit(path, f"[{', '.join(re.split(r'[, ]+', value))}]", document)
    elif path == ("include",) and isinstance(value, str) and re.fullmatch(r"[\w./-]+", value):
        yield from _value_edit(path, f"[{value}]", document)
    elif kind == "bool_type" and isinstance(value, str) and (word := _WORDS.get(value.lower())):
        yield from _value_edit(path, word, document)
    elif kind == "int_type" and isinstance(value, str) and re.fullmatch(r"[1-9]\d{0,9}", value, re.ASCII):
        yield from _value_edit(path, value, document)
    elif kind == "duration" and (said := cures.of_duration(value)):
        yield from _value_edit(path, said.removeprefix("Write ").removesuffix("."), document)


def _key_edit(path: Path, name: str, document: Document) -> list[_Edit]:
    edits = _token_edit(_index(path, document, at_key=True), str(path[-1]), name, path, document)
    is_table = len(path) == 1 and isinstance(document.at(path), dict)
    return [replace(edit, is_table=is_table) for edit in edits]


def _value_edit(path: Path, new: str, document: Document) -> list[_Edit]:
    """A scalar on one line written anew. An anchor, a text of several lines and an alias are left alone."""
    value = document.at(path)
    if not isinstance(value, (str, int, float)):
        return []
    return _token_edit(_index(path, document), value, new, path, document)


def _index(path: Path, document: Document, *, at_key: bool = False) -> int:
    """The character of the text where the value (or key) begins."""
    place = document.problem(Finding(path=path, message="", at_key=at_key))
    return _line_starts(document.text)[place.line - 1] + place.column - 1


@lru_cache(maxsize=1)
def _line_starts(text: str) -> tuple[int, ...]:
    return (0, *(match.end() for match in re.finditer("\n", text)))


def _token_edit(begin: int, said: object, new: str, path: Path, document: Document) -> list[_Edit]:
    text = document.text
    if quoted := re.compile(_QUOTED).match(text, begin):
        end = quoted.end()
    elif isinstance(said, str):
        end = begin + len(said) if text.startswith(said, begin) else begin
    else:
        word = re.compile(_WORD).match(text, begin)
        end = word.end() if word else begin
    return [_Edit(begin=begin, end=end, after=new, path=dotted(path))] if end > begin else []


# --- ${{ }} that lacks its quotes ---------------------------------------------------------------------------------------------


def _quotes(source: bytes, problem: Problem) -> list[_Edit]:
    """Quotes around the entry of a flow collection that holds the unquoted `${{` which the reader stopped at."""
    if not problem.message.startswith("${{ }} inside"):
        return []
    lines = source.removeprefix(_BOM).decode().split("\n")
    line = lines[problem.line - 1].rstrip("\r")
    entry = _entry(line, problem.column - 1)
    if entry is None:
        return []
    start, end = entry
    before = sum(len(each) + 1 for each in lines[: problem.line - 1])
    text = line[start:end]
    quote = '"' if not set('"\\') & set(text) else "'"
    if quote == "'" and "'" in text:
        return []
    return [_Edit(begin=before + start, end=before + end, after=f"{quote}{text}{quote}")]


def _entry(line: str, hole: int) -> tuple[int, int] | None:
    """Where the entry begins and ends in which a `${{` stands; None where that is not certain."""
    start = max(
        (line.rfind(mark, 0, hole) + len(mark) for mark in ("[", "{", ", ", ",", ": ") if mark in line[:hole]), default=-1
    )
    if start < 0:
        return None
    start += len(line[start:hole]) - len(line[start:hole].lstrip())
    end = hole
    while (opened := line.find("${{", end)) >= 0 and not re.search(r"[,\]}]", line[end:opened]):
        if (closed := line.find("}}", opened)) < 0:
            return None
        end = closed + 2
    rest = re.match(r"[^,\]}\[{\"'#]*(?=[,\]}])", line[end:])
    if end == hole or rest is None or re.search(r"[\"'#]", line[start:hole]):
        return None
    return start, end + len(rest[0].rstrip())


# --- the file ----------------------------------------------------------------------------------------------------------------


def fix_file(path: str | os.PathLike[str]) -> Fixed:
    """Mend a job file in place; it is written, all or nothing, only where something changed.

    Links are followed; mode and owner stay. Raises JobFileError where the file cannot be read, UsageError where it cannot be
    replaced or was changed by somebody else in the meantime: then nothing was written.
    """
    file = os.fsdecode(path)
    try:
        seen = os.stat(file)
        source = reader.source_of(file)
    except (OSError, ValueError, reader.Unreadable):
        loader.read(file)  # says in words why there are no bytes
        raise UsageError(f"{file}: the file cannot be read") from None
    result = fixed(source, file)
    if result.source != source:
        try:
            _replace(os.path.realpath(file), seen, result.source)
        except OSError as error:
            raise UsageError(f"{file}: the file cannot be replaced: {error.strerror or error}; nothing was written") from None
    return result


def _replace(file: str, seen: os.stat_result, source: bytes) -> None:
    """Put other bytes in a file's place; whoever reads it sees the old ones or the new ones, also after a loss of power."""
    if not os.access(file, os.W_OK):
        raise UsageError(f"{file}: you may not write to this file; nothing was written")
    folder, name = os.path.split(file)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name[:100]}.")
    try:
        with open(descriptor, "wb") as stream:
            if (seen.st_uid, seen.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, seen.st_uid, seen.st_gid)
            os.fchmod(descriptor, seen.st_mode & 0o7777)
            stream.write(source)
            stream.flush()
            os.fsync(descriptor)
        if _state(os.stat(file)) != _state(seen):
            raise UsageError(f"{file}: the file was changed while it was being fixed; nothing was written")
        os.replace(temporary, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _sync_folder(folder: str) -> None:
    """The new name outlives a loss of power. A file system that cannot do it has replaced the file nevertheless."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
