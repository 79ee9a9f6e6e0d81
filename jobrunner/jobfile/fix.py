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
from functools import cached_property
from typing import Final

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobrunner import spec
from jobrunner.errors import JobFileError, Problem, UsageError
from jobrunner.jobfile import cures, foreign, loader, mistakes, reader
from jobrunner.jobfile.document import MOST_PROBLEMS, Document, Path, dotted
from jobrunner.structs import struct

_MOST_ROUNDS: Final = 200
"""So often a file is read again before it is judged: each round mends all that it can see."""
_MOST_SINGLE: Final = 50
"""So many edits are tried one by one where all together do not help: each means reading the file twice."""
_BOM: Final = b"\xef\xbb\xbf"
_UNREADABLE: Final = 1_000_000  # more than any file that can be read has problems
_QUOTED: Final = r'"(?:[^"\\\n]|\\.)*"' + r"|'(?:[^'\n]|'')*'"
_PLAIN_HOLE: Final = r"\$\{\{[^'\"{}\n]*\}\}"
_OPENING: Final = (yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken)
_CLOSING: Final = (yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_WORD: Final = r"[^\s,\[\]{}#&*!|>\"']+"
_NAMES: Final = r"[A-Za-z_][\w-]*(?:\s*,\s*[A-Za-z_][\w-]*)*"
_LISTS_OF_NAMES: Final = frozenset({"needs", "secrets", "limits"})
_WORDS: Final = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}


@struct
class Change:
    """One thing that was mended, by the line it stands on, counted from 1."""

    line: int
    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.line}: {self.path + ': ' if self.path else ''}{self.before} → {self.after}"


@struct
class Fixed:
    """What a file is after mending: its bytes, what was changed in file order, and the problems that remain.

    `untried` is the number of cures that may yet help: too many to try each of them alone, and together they do not.
    """

    source: bytes
    changes: tuple[Change, ...] = ()
    remaining: tuple[Problem, ...] = ()
    untried: int = 0


@struct
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
    already comes back as it is. Takes as long as reading it a few times, however much there is to mend.
    """
    changes: list[Change] = []
    with loader.garbage_left_alone():
        look = _Look(source=source, file=file)
        while (better := _improved(look)) is not None:
            look, more = better
            changes += more
        ordered = tuple(sorted(changes, key=lambda change: change.line))
        untried = max(0, len(look.edits) - _MOST_SINGLE)
        return Fixed(source=look.source, changes=ordered, remaining=look.problems, untried=untried)


@dataclass(frozen=True, kw_only=True)  # no slots: what it says is found out when it is asked for, once
class _Look:
    """Bytes of a job file, and what there is to say about them."""

    source: bytes
    file: str

    @cached_property
    def edits(self) -> list[_Edit]:
        """Every edit that the file asks for now, none overlapping another."""
        return self._found[0]

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        try:
            loader.parse(self.source, self.file)
        except JobFileError as error:
            return error.problems
        return ()

    @cached_property
    def badness(self) -> int:
        """How many problems the file has; more than any other where it cannot be read."""
        if (refused := self._found[1]) >= _UNREADABLE:
            return refused
        found = len(self.problems)
        return found if found < MOST_PROBLEMS else max(found, refused)  # no more than so many are told

    @cached_property
    def _found(self) -> tuple[list[_Edit], int]:
        """The edits, and how much the models refuse."""
        try:
            document = reader.read(self.source, self.file)
        except JobFileError as error:
            return _quotes(self.source, error.problems), _UNREADABLE
        details = _details(document)
        if document.problems or not isinstance(document.value, dict):
            return [], len(details)  # a duplicate key: nobody knows which of the two was meant
        return _disjoint(_of_details(details, document)), len(details)


def _improved(look: _Look) -> tuple[_Look, list[Change]] | None:
    """All edits to their end where that helps, else the first single one that does."""
    if not look.edits:
        return None
    before = max(look.badness, _hidden(look))
    for chosen in (look.edits, *([edit] for edit in look.edits[:_MOST_SINGLE])):
        once, changes = _applied(look, chosen)
        last, more = _to_the_end(once)
        if last.badness < before:
            return last, changes + more
        if once.badness < before:
            return once, changes
    return None


def _hidden(look: _Look) -> int:
    """How many problems it really has where a table has a wrong name (`steps`): those under it are seen when it is renamed."""
    tables = [edit for edit in look.edits if edit.is_table]
    shown = _applied(look, tables)[0].badness if tables else 0
    return 0 if shown >= _UNREADABLE else shown + len(tables)


def _to_the_end(look: _Look) -> tuple[_Look, list[Change]]:
    """What the result of an edit asks for, and so on: one may uncover another."""
    found: list[Change] = []
    for _ in range(_MOST_ROUNDS if look.edits else 0):
        look, changes = _applied(look, look.edits)
        found += changes
        if not look.edits:
            break
    return look, found


def _text_of(source: bytes) -> str:
    return source.removeprefix(_BOM).decode()


def _applied(look: _Look, edits: Sequence[_Edit]) -> tuple[_Look, list[Change]]:
    """The bytes with the edits, which are in file order, made in one pass."""
    bom = _BOM if look.source.startswith(_BOM) else b""
    text = _text_of(look.source)
    changes, pieces, done, line = [], [], 0, 1
    for edit in edits:
        line += text.count("\n", done, edit.begin)  # an edit holds no line end
        changes.append(Change(line=line, path=edit.path, before=text[edit.begin : edit.end], after=edit.after))
        pieces += [text[done : edit.begin], edit.after]
        done = edit.end
    return _Look(source=bom + "".join([*pieces, text[done:]]).encode(), file=look.file), changes


# --- what can be mended ------------------------------------------------------------------------------------------------------


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
    edits = _token_edit(document.index(path, at_key=True), str(path[-1]), name, path, document)
    is_table = len(path) == 1 and isinstance(document.at(path), dict)
    return [replace(edit, is_table=is_table) for edit in edits]


def _value_edit(path: Path, new: str, document: Document) -> list[_Edit]:
    """A scalar on one line written anew. An anchor, a text of several lines and an alias are left alone."""
    value = document.at(path)
    if not isinstance(value, (str, int, float)):
        return []
    return _token_edit(document.index(path), value, new, path, document)


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


def _quotes(source: bytes, problems: Sequence[Problem]) -> list[_Edit]:
    """Quotes around each entry of a flow collection that holds an unquoted `${{`, where that is what the reader stopped at."""
    if not problems or not problems[-1].message.startswith("${{ }} inside"):
        return []
    text = _text_of(source)
    return _disjoint(edit for hole in _unquoted(text) if (edit := _quoted(text, hole)))


def _quoted(text: str, hole: int) -> _Edit | None:
    begin, end = text.rfind("\n", 0, hole) + 1, text.find("\n", hole)
    entry = _entry(text[begin : end if end >= 0 else len(text)].rstrip("\r"), hole - begin)
    if entry is None:
        return None
    start, stop = begin + entry[0], begin + entry[1]
    inside = text[start:stop]
    quote = '"' if not set('"\\') & set(inside) else "'"
    if quote == "'" and "'" in inside:
        return None
    return _Edit(begin=start, end=stop, after=f"{quote}{inside}{quote}")


def _unquoted(text: str) -> list[int]:
    """Where each `${{` stands that the scanner meets in a flow collection outside quotes, and takes for two maps."""
    odd: list[int] = []
    text = re.sub(_PLAIN_HOLE, lambda hole: f"${{{{{'x' * (len(hole[0]) - 5)}}}}}", text)  # what stands in one is not YAML
    while True:
        places, lost = _scanned(text)
        if lost is None:
            return sorted({*places, *odd})
        odd.append(lost)
        text = text[:lost] + "x" * (_end_of(text, lost) - lost) + text[_end_of(text, lost) :]


def _scanned(text: str) -> tuple[list[int], int | None]:
    """The unquoted holes of a text, and the one in which the scanner has lost its way: what it says behind that is not so."""
    places: list[int] = []
    depth = within = 0  # of flow collections: how deep, and how deep where the last hole began
    for token in reader.tokens(text):
        place = token.end_mark.index
        if isinstance(token, yaml.ScalarToken) and token.plain and text.startswith("${{", place - 1):
            if within:
                break
            places.append(place - 1)
            within = depth
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if within and depth == within and isinstance(token, _CLOSING):
            if place != _end_of(text, places[-1]):
                break
            within = 0
    return places, places[-1] if within else None


def _end_of(text: str, hole: int) -> int:
    """Behind the `}}` of a hole, else the end of its line."""
    closed, line = text.find("}}", hole), text.find("\n", hole)
    line = line if line >= 0 else len(text)
    return closed + 2 if 0 <= closed < line else line


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

    Symbolic links are followed; mode and owner stay. Raises JobFileError where the file cannot be read, UsageError where it
    cannot be replaced, has other names that would keep the old bytes, or was changed by somebody else in the meantime: then
    nothing was written.
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
    if seen.st_nlink > 1:
        names = f"the file has {seen.st_nlink} names (hard links), of which the others would keep the old text"
        raise UsageError(f"{file}: {names}; nothing was written")
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
