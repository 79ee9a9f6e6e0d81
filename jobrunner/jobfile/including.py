"""`include`: the tables of other files, merged under those of the file that names them before the models see any of it.

main ─include→ a ─include→ base        read in this order, and problems told in it:    main, a, base, b
     └───────→ b                       merged in this order, what comes later wins:    base, a, b, main

Each file keeps its own Document; which of them answers for a path is Document.home's to know.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydantic import ValidationError

from jobrunner import spec
from jobrunner.errors import JobFileError, Problem
from jobrunner.jobfile import foreign, mistakes, reader
from jobrunner.jobfile.document import LONGEST_LINE, MOST_PROBLEMS, Document, Finding, shortened, visible
from jobrunner.jobfile.sources import Included
from jobrunner.structs import field, struct

MOST_FILES: Final = 100
"""Files that one job file may include, those that they include counted."""

TABLES: Final = ("defaults", "env", "params", "pools", "limits", "tasks")
"""What an included file may hold, besides `include`: maps that are merged entry by entry."""

_MAY_HOLD: Final = f"It may hold include, {', '.join(TABLES[:-1])} and {TABLES[-1]}."
_RESTED_ON: Final = frozenset({"finally", "secrets", "mode", "workers"})
"""Keys of a job that checks of tasks rest on: where one is refused, what they find would only follow from that."""

SourceOf: TypeAlias = Callable[[str], bytes]
"""The bytes of a file; raises reader.Unreadable."""


@struct
class Gathered:
    """A job file and all that it includes: one value for the models, and one document that knows where each part stands.

    Where `is_whole` is false something is missing from the value, which has its problem: what is not there means nothing then.
    """

    value: object
    document: Document
    included: tuple[Included, ...] = ()
    problems: tuple[Problem, ...] = ()
    is_whole: bool = True
    order: tuple[str, ...] = ()
    """The files by name, in the order of reading."""


def gather(document: Document, file: str, source_of: SourceOf = reader.source_of) -> Gathered:
    """The value of a job file with every `env` as it is written, merged with what the file includes. Raises nothing."""
    value = document.value
    if not isinstance(value, dict):
        return Gathered(value=value, document=document, order=(document.file,))
    if "include" not in value:
        return Gathered(value=_env_as_written(document), document=document, order=(document.file,))
    reading = _Reading(source_of=source_of, order=[document.file])
    reading.follow(document, file, os.path.realpath(file))
    reading.tell_twice()
    *others, _ = reading.merged
    return Gathered(
        value=_merged(reading.merged),
        document=replace(document, included=tuple(reversed(others))),
        included=tuple(reading.included),
        problems=tuple(reading.problems),
        is_whole=reading.is_whole,
        order=tuple(reading.order),
    )


# --- reading -----------------------------------------------------------------------------------------------------------------


@struct(frozen=False)
class _Reading:
    """What is read of the files that include one another, each of them once, depth first."""

    source_of: SourceOf
    order: list[str]
    merged: list[Document] = field(default_factory=list)
    included: list[Included] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    chain: dict[str, str] = field(default_factory=dict)
    """The files from the job file down to the one that is read: their real paths, and how they are shown."""
    known: set[str] = field(default_factory=set)
    is_whole: bool = True

    def follow(self, document: Document, file: str, real: str) -> None:
        """Read what a file includes, in its order; then the file itself takes its place above them."""
        self.chain[real] = document.file
        entries = document.value.get("include") if isinstance(document.value, dict) else None
        if not (isinstance(entries, list) or entries is None):
            self.is_whole = False
        for position, entry in enumerate(entries if isinstance(entries, list) else ()):
            if (wrong := self._take(entry, os.path.dirname(file))) is not None:
                self.is_whole = False
                self._say(document, replace(wrong, path=("include", position)))
        del self.chain[real]
        self.merged.append(document)

    def _take(self, entry: object, folder: str) -> Finding | None:
        """Read one file that is named in `include`, unless it has been read; or why that cannot be."""
        if not isinstance(entry, str) or not entry:
            self.is_whole = False  # the models say why
            return None
        if "\0" in entry or "${{" in entry:
            return _not_a_path(entry)
        file = os.path.normpath(os.path.join(folder, entry))
        real = os.path.realpath(file)
        if real in self.chain:
            return self._circle(real)
        if real in self.known:
            return None
        if len(self.known) == MOST_FILES:
            return Finding(path=(), message=f"more than {MOST_FILES} files are included")
        self.known.add(real)
        return self._open(file, real)

    def _open(self, file: str, real: str) -> Finding | None:
        shown = visible(file)
        try:
            source = self.source_of(file)
        except reader.Unreadable as error:
            return Finding(path=(), message=f"{shortened(file, LONGEST_LINE)}: {error}")
        self.order.append(shown)
        self.included.append(Included(path=Path(os.path.abspath(file)), source=source))
        if sum(len(each.source) for each in self.included) > reader.LARGEST:
            return Finding(path=(), message=f"the included files are larger than {reader.LARGEST // 2**20} MiB together")
        try:
            document = reader.read(source, shown)
        except JobFileError as error:
            self.problems += error.problems
            self.is_whole = False
        else:
            self._judge(document)
            self.follow(document, file, real)
        return None

    def _circle(self, real: str) -> Finding:
        files = [*self.chain.values()][[*self.chain].index(real) :]
        if len(files) == 1:
            return Finding(path=(), message="a file cannot include itself")
        edges = (f"{one} includes {other}" for one, other in zip(files, [*files[1:], files[0]], strict=True))
        return Finding(path=(), message=f"files include each other in a circle: {', '.join(edges)}")

    def _judge(self, document: Document) -> None:
        """Say what stands in an included file that cannot stand there."""
        self.problems += document.problems
        if not isinstance(document.value, dict):
            self.is_whole = False
            self._say(document, _not_a_map(document.value))
            return
        for key, value in document.value.items():
            if key not in TABLES and key != "include":
                self.is_whole = self.is_whole and key in spec.keys(spec.Job) and key not in _RESTED_ON
                self._say(document, _stranger(key, value))
        for finding in _misshapen(document, document.value):
            self.is_whole = False
            self._say(document, finding)

    def tell_twice(self) -> None:
        """A task has one place: the same name in two files is a mistake, told in the one that is merged later."""
        first: dict[str, Document] = {}
        for document in self.merged:
            tasks = _table(document, "tasks")
            for name in islice((name for name in tasks if name in first), MOST_PROBLEMS + 1):
                place = f"{first[name].file}:{first[name].line(('tasks', name), at_key=True)}"
                message = f"the task {name!r} stands already in {place}"
                self._say(document, Finding(path=("tasks", name), at_key=True, message=message, hint="Rename one of them."))
            first |= dict.fromkeys(tasks, document)

    def _say(self, document: Document, finding: Finding) -> None:
        """Note a problem, unless there are more than will be shown: to place one takes time that grows with the file."""
        if len(self.problems) <= MOST_PROBLEMS:
            self.problems.append(document.problem(finding))


# --- what is wrong with an included file -------------------------------------------------------------------------------------


def _not_a_path(entry: str) -> Finding:
    if "\0" in entry:
        return Finding(path=(), message="a file name holds no NUL character")
    return Finding(path=(), message="no ${{ }} is evaluated here", hint="Write the path itself.")


def _not_a_map(value: object) -> Finding:
    if value is None:
        return Finding(path=(), message="the file is empty", hint=_MAY_HOLD)
    said = "a list" if isinstance(value, list) else "a single value"
    return Finding(path=(), message=f"an included file is a map; this is {said}", hint=_MAY_HOLD)


def _stranger(key: str, value: object) -> Finding:
    """A key that an included file cannot have."""
    if key in spec.keys(spec.Job):
        return Finding(path=(key,), at_key=True, message="this cannot stand in an included file", hint=_MAY_HOLD)
    if foreign.meant((key,)) in TABLES:
        return foreign.unknown_key((key,), value)
    return Finding(path=(key,), at_key=True, message="unknown key in an included file", hint=_MAY_HOLD)


def _misshapen(document: Document, value: dict[str, Any]) -> Iterator[Finding]:
    """Tables that are no maps, and a bad `include`, in the models' words: what is merged is of the right shape."""
    wrong = {key: value[key] for key in TABLES if key in value and not isinstance(value[key], dict)}
    included = {"include": value["include"]} if "include" in value else {}
    try:
        spec.Job.model_validate({"tasks": {"a": {"run": "true"}}, **wrong, **included})
    except ValidationError as error:
        yield from mistakes.find(error.errors(include_url=False, include_input=False), document)


# --- merging -----------------------------------------------------------------------------------------------------------------


def _table(document: Document, key: str) -> dict[str, Any]:
    table = document.value.get(key) if isinstance(document.value, dict) else None
    return table if isinstance(table, dict) else {}


def _merged(documents: list[Document]) -> dict[str, Any]:
    """One value of all files, the job file last. A table of its own that is no map is left for the models to refuse."""
    tables: dict[str, dict[str, Any]] = {}
    for document in documents:
        value = _env_as_written(document)
        for key in TABLES:
            if isinstance(part := value.get(key), dict):
                _lay_over(tables.setdefault(key, {}), part, is_defaults=key == "defaults")
    return {**value, **{key: table for key, table in tables.items() if isinstance(value.get(key, {}), dict)}}


def _lay_over(table: dict[str, Any], part: dict[str, Any], *, is_defaults: bool) -> None:
    """Put the entries of a file over those of files before it; `env` of the defaults is itself such a table."""
    below, above = table.get("env"), part.get("env")
    table.update(part)
    if is_defaults and isinstance(below, dict) and isinstance(above, dict):
        table["env"] = {**below, **above}


# --- env ---------------------------------------------------------------------------------------------------------------------


def _env_as_written(document: Document) -> dict[str, Any]:
    """The value of a file with the plain scalars of every `env` as the file writes them. What holds none is not copied."""
    value: dict[str, Any] = document.value if isinstance(document.value, dict) else {}
    written: dict[str, Any] = {}
    if isinstance(env := value.get("env"), dict):
        written["env"] = document.as_written(env)
    if isinstance(defaults := value.get("defaults"), dict):
        written["defaults"] = _with_env(defaults, document)
    for table in ("tasks", "finally"):
        if isinstance(tasks := value.get(table), dict):
            written[table] = {name: _with_env(task, document) for name, task in tasks.items()}
    return {**value, **written}


def _with_env(task: Any, document: Document) -> Any:
    if isinstance(task, dict) and isinstance(env := task.get("env"), dict):
        return {**task, "env": document.as_written(env)}
    return task
