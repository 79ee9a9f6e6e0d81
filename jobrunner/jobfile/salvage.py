"""What is left of a job that the models refuse: the offending keys cut out, and a note of what can no longer be known.

value, pydantic's errors ─ salvaged ─→ a valid Job, to be checked like any other
                                   └─→ Unsure: what must not be said about it, as it would only follow from a cut

A task keeps all keys but the bad ones. Where no action is left, a harmless one stands in, so that its needs and its
expressions are still checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobrunner import spec
from jobrunner.jobfile import foreign, mistakes
from jobrunner.jobfile.document import Finding, Path
from jobrunner.structs import field, struct

_ACTIONS: Final = frozenset(spec.Task.ACTIONS)
_INSTANCES: Final = frozenset({"foreach", "matrix"})
_KINDS: Final = _ACTIONS | _INSTANCES
_LANES: Final = frozenset({"mode", "workers", "pool", "executor"})
_ABOUT_LANES: Final = frozenset({"env", "cwd", "secrets", "resources", "pool", "executor", "workers", "max_tasks_per_worker"})
_PLACEHOLDER: Final = {"run": "true"}
_HAS_ENTRIES: Final = frozenset({"env", "needs", "argv", "run", "secrets", "limits", "matrix"})
"""Keys of a task of which single entries are cut."""


_ROWS: Final = ("tasks", "finally")
"""The tables of tasks."""
_NAMED_IN: Final[dict[str | int, str]] = {"secrets": "secrets", "limits": "limits", "needs": "tasks"}
"""Key of a task that lists names → the table that they stand in."""


@struct
class Unsure:
    """What a cut has left open: findings that rest on it would only follow from another mistake."""

    needs: set[str] = field(default_factory=set)
    """Tasks whose needs may be more than those that are left."""
    kinds: set[str] = field(default_factory=set)
    """Tasks of which it is not known what they run, or whether they have items: so neither what they give."""
    instances: set[str] = field(default_factory=set)
    """Tasks of which it is not known whether they have items or combinations, or which names these have."""
    lanes: set[str] = field(default_factory=set)
    """Tasks of which it is not known where they run; "" for the job's pools."""
    tables: set[str] = field(default_factory=set)
    """`params`, `pools`, `secrets`, `limits` and `tasks`, where they may hold more names than are left."""
    cuts: set[Path] = field(default_factory=set)
    """Places that were cut: they have their own finding."""
    hurt: set[str] = field(default_factory=set)
    """Tasks of which some key is not as it was written; "" where that may be any task's."""

    def shown(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """The findings that do not stand where something was cut, nor rest on where a task runs when that is open."""
        return (finding for finding in findings if not self._is_hidden(finding))

    def _is_hidden(self, finding: Finding) -> bool:
        path = finding.path
        if any(path[:length] in self.cuts for length in range(1, len(path) + 1)):
            return True
        if len(path) == 4 and path[2] in _NAMED_IN:
            return _NAMED_IN[path[2]] in self.tables
        if path[-1] not in _ABOUT_LANES or (len(path) != 3 and path[0] not in {"workers", "defaults"}):
            return False
        if path[-1] == "pool" and not finding.at_key:
            return "pools" in self.tables
        is_about_lanes = finding.at_key or path[-1] == "workers"
        return is_about_lanes and ("" in self.lanes or (path[0] in _ROWS and path[1] in self.lanes))


def salvaged(value: dict[str, Any], details: Sequence[ErrorDetails]) -> tuple[spec.Job | None, Unsure]:
    """The job without what the models refuse, defaults not merged; None where no tasks are left to be checked."""
    rest = {key: _copied(part) if key in _TABLES else part for key, part in value.items()}
    unsure = Unsure()
    if not isinstance(rest.get("tasks"), dict) or not rest["tasks"]:
        return None, unsure
    hurt: set[tuple[str, str]] = set()
    for detail in details:
        place = mistakes.path_of(detail)
        _doubt(detail, place, rest, unsure)
        if place[0] in _ROWS and len(place) > 1:
            hurt.add((str(place[0]), str(place[1])))
            unsure.hurt.add(str(place[1]))
        elif place[0] in {"defaults", "include"}:
            unsure.hurt.add("")
        _cut(rest, place)
    for table, name in hurt:
        if name in (rows := rest.get(table, {})):
            rows[name] = _made_whole(name, rows[name], unsure)
    try:
        return (spec.Job.model_validate(rest), unsure) if rest["tasks"] else (None, unsure)
    except ValidationError:
        return None, unsure


# --- what is open then -------------------------------------------------------------------------------------------------------


def _doubt(detail: ErrorDetails, place: Path, rest: dict[str, Any], unsure: Unsure) -> None:
    """Note what the key at `place` leaves open. An unknown key is taken for the one it was probably meant to be."""
    is_unknown = detail["type"] == "extra_forbidden"
    if not is_unknown and detail["type"] != "action":
        unsure.cuts.add(place[:-1] if place[-1] == "[key]" else place)
    match place:
        case ("tasks" | "finally" as table, str(name)) | ("tasks" | "finally" as table, str(name), "[key]"):
            _doubt_task(table, name, "", rest, unsure)
        case ("tasks" | "finally" as table, str(name), key, *_):
            _doubt_task(table, name, (foreign.meant(place) if is_unknown and len(place) == 3 else str(key)), rest, unsure)
            if is_unknown and key == "strategy":
                _doubt_task(table, name, "matrix", rest, unsure)
        case ("defaults",):
            unsure.lanes.update(("", *_names(rest)))
        case ("defaults", key, *_):
            meant = foreign.meant(place) or key if is_unknown and len(place) == 2 else key
            for table, name in _names_of_rows(rest) if meant in _KINDS | _LANES | {"needs"} else ():
                _doubt_task(table, name, str(meant), rest, unsure)
            if meant in _LANES:
                unsure.lanes.add("")
        case ("include", *_):
            unsure.tables.update(("params", "pools", "secrets", "limits", "tasks"))
            unsure.lanes.update(("", *_names(rest)))
        case (table, *_):
            name = foreign.meant(place) if is_unknown and len(place) == 1 else str(table)
            if len(place) == 1 or place[-1] == "[key]":
                unsure.tables.add(name)
            if name in {"mode", "workers", "pools"}:
                unsure.lanes.update(("", *_names(rest)))


def _doubt_task(table: str, name: str, key: str, rest: dict[str, Any], unsure: Unsure) -> None:
    """Note what follows where `key` of a task is not known; an empty one is the whole task."""
    is_gone = not key and not isinstance(rest[table].get(name), dict)
    if key == "needs" or is_gone:
        unsure.needs.add(name)
    if key in _KINDS or not key:
        unsure.kinds.add(name)
    if key in _INSTANCES:
        unsure.instances.add(name)
    if key in _LANES or key in _KINDS or not key:
        unsure.lanes.add(name)


def _names_of_rows(rest: dict[str, Any]) -> list[tuple[str, str]]:
    return [(table, name) for table in _ROWS if isinstance(rest.get(table), dict) for name in rest[table]]


def _names(rest: dict[str, Any]) -> list[str]:
    """The names of all tasks."""
    return [name for _, name in _names_of_rows(rest)]


# --- cutting -----------------------------------------------------------------------------------------------------------------

_TABLES: Final = frozenset({"tasks", "finally", "pools", "params", "secrets", "limits"})


def _copied(table: Any) -> Any:
    """A table and its rows, so that they can be cut without a change to what was read."""
    if not isinstance(table, dict):
        return table
    return {name: dict(row) if isinstance(row, dict) else row for name, row in table.items()}


def _cut(rest: dict[str, Any], place: Path) -> None:
    """Take the innermost key that `place` is in out of the job; where it is a row of a table, something valid stands for it."""
    table, *steps = place
    rows = rest.get(str(table))
    if table not in _TABLES or not steps or not isinstance(rows, dict):
        _cut_key(rest, place)
    elif steps[-1] == "[key]" and len(steps) == 2:
        rows.pop(steps[0], None)
    elif table == "params":
        rows[steps[0]] = []  # passes for a list, so that nothing is said of its type
    elif table == "secrets":
        rows[steps[0]] = {"credential": "_"}
    elif table == "limits":
        rows[steps[0]] = spec.MOST_WORKERS  # so that it is enough for all
    elif isinstance(row := rows.get(steps[0]), dict):
        _cut_key(row, tuple(steps[1:]))
    elif steps[0] in rows:
        rows[steps[0]] = {}


def _cut_key(row: dict[str, Any], steps: Path) -> None:
    """Take a key out of a row, or an entry out of its `env`; an entry of a list is replaced, as others keep their positions."""
    if not steps:
        return
    key = str(steps[0])
    inner = row.get(key)
    if len(steps) > 1 and key in _HAS_ENTRIES and isinstance(inner, dict):
        row[key] = {name: entry for name, entry in inner.items() if name != steps[1]}
        if key == "matrix" and not row[key]:
            del row[key]
    elif len(steps) > 1 and key in _HAS_ENTRIES and isinstance(inner, list):
        row[key] = [("_" if at == steps[1] else entry) for at, entry in enumerate(inner)]
    elif key == "defaults" and len(steps) > 1 and isinstance(inner, dict):
        row[key] = dict(inner)
        _cut_key(row[key], steps[1:2] if steps[1] == "limits" else steps[1:])  # an entry of it stands in every task
    else:
        row.pop(key, None)


def _made_whole(name: str, row: dict[str, Any], unsure: Unsure) -> dict[str, Any]:
    """A task with exactly one action: the first it has, or a placeholder."""
    given = [key for key in spec.Task.ACTIONS if row.get(key) is not None]
    has_arguments = bool(row.get("args") or row.get("kwargs"))
    if len(given) == 1 and (given == ["target"] or not has_arguments):
        return row
    unsure.kinds.add(name)
    unsure.lanes.add(name)
    if not given:
        return {**row, **({"target": "m:f"} if has_arguments else _PLACEHOLDER)}
    dropped = _ACTIONS - {given[0]} | (set() if given[0] == "target" else {"args", "kwargs"})
    return {key: part for key, part in row.items() if key not in dropped}
