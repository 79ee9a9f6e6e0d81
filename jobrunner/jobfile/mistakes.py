"""What pydantic found wrong in a job file, in the words of the person who wrote it, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import dropwhile, takewhile
from typing import Any, Final

from pydantic_core import ErrorDetails

from jobrunner import spec
from jobrunner.hints import did_you_mean
from jobrunner.jobfile import cures, instances
from jobrunner.jobfile.document import Document, Finding, Path, dotted, shortened
from jobrunner.jobfile.foreign import advised, model_at, unknown_key


def find(details: Sequence[ErrorDetails], document: Document) -> Iterator[Finding]:
    """Each of pydantic's errors as one finding."""
    renamed = {path_of(detail)[:-1] for detail in details if detail["type"] == "extra_forbidden"}
    told = {problem.path for problem in document.problems if "stands already" not in problem.message}
    for detail in details:
        if told and document.at(path_of(detail)) in ({}, "") and dotted(path_of(detail)) in told:
            continue  # nothing is left of the value, for a reason that has been told
        if _is_outdented(path_of(detail), document) or _is_piece(detail, document):
            continue  # told at the key that it belongs to
        if detail["type"] == "missing" and path_of(detail)[:-1] in renamed and _is_renamed(detail, details):
            continue  # `steps` for `tasks` is one mistake, not two
        yield _finding(detail, document)


def path_of(detail: ErrorDetails) -> Path:
    """Where an error is: keys and positions, and a last '[key]' if it is a key. Without the names of union members."""
    place = detail["loc"]
    end = len(place) - (detail["type"] == "extra_forbidden")  # the last step is then what somebody wrote, whatever it looks like
    return tuple(step for at, step in enumerate(place) if at >= end or not _is_union_member(place, at))


def _is_union_member(place: Path, at: int) -> bool:
    """The tags of spec stand in <angle brackets>, behind the key whose value is a union."""
    step = place[at]
    return isinstance(step, str) and step.startswith("<") and _is_union(place[:at])


def _is_union(place: Path) -> bool:
    match place:
        case ("schedule",) | ("params" | "limits", _) | ("defaults", "retry" | "limits"):
            return True
        case ("tasks" | "finally", _, "foreach" | "retry" | "run" | "limits") | ("tasks" | "finally", _, "matrix", _):
            return True
        case ("tasks" | "finally", _, "foreach", "<range>", "range") | ("tasks" | "finally", _, "foreach", "<glob>", "glob"):
            return True
    return False


# --- what stands at the wrong place ------------------------------------------------------------------------------------------

_TASK_KEYS: Final = frozenset(spec.keys(spec.Task))
_TABLES: Final = ("tasks", "finally")


def _outdented(path: Path, document: Document) -> list[str]:
    """The keys that belong under the empty one at `path` and stand as far left: those of a task, or the tasks of a table."""
    table = document.at(path[:-1])
    if not isinstance(table, dict) or path[-1] not in table:
        return []
    if len(path) == 1 and path[0] in _TABLES:
        return [name for name in table if _is_lost_task((name,), document)]
    if not is_task(path) or path[-1] in _TASK_KEYS:
        return []
    names = list(table)
    behind = names[names.index(str(path[-1])) + 1 :]
    return list(takewhile(lambda name: name in _TASK_KEYS, behind))


def _is_outdented(path: Path, document: Document) -> bool:
    """Whether it is about one of those keys: what is wrong is told at the empty one."""
    if path[:1] != ("tasks",) and _is_lost_task(path, document):
        return True
    table = document.at(path[:1]) if len(path) > 1 and path[0] in _TABLES and path[1] in _TASK_KEYS else None
    if not isinstance(table, dict) or path[1] not in table:
        return False
    names = list(table)
    above = list(dropwhile(lambda name: name in _TASK_KEYS, reversed(names[: names.index(str(path[1]))])))
    return bool(above) and table[above[0]] is None


def _is_lost_task(path: Path, document: Document) -> bool:
    """A task at the left margin, where the table that it belongs to is empty."""
    job, name = document.value, path[0] if path else ""
    if not isinstance(job, dict) or name not in job or name in spec.keys(spec.Job):
        return False
    has_room = any(key in job and job[key] is None for key in _TABLES)
    return has_room and isinstance(job[name], dict) and not _TASK_KEYS.isdisjoint(job[name])


def _is_torn(path: Path, document: Document) -> bool:
    """An unknown key without a value: a comma within {…} has made an entry of the rest of a text."""
    table, known = document.at(path[:-1]), spec.keys(model_at(path[:-1]))
    return isinstance(table, dict) and path[-1] in table and table[path[-1]] is None and path[-1] not in known


def _before(path: Path, document: Document) -> Path:
    """The key above one that is there; the key itself where it is the first."""
    names = list(document.at(path[:-1]))  # type: ignore[call-overload]  # the map that holds it
    return (*path[:-1], names[max(0, names.index(path[-1]) - 1)])


def _is_piece(detail: ErrorDetails, document: Document) -> bool:
    """Whether it is about a later piece of a text that commas have torn, which is told at the first."""
    path = path_of(detail)
    if detail["type"] != "extra_forbidden" or not _is_torn(path, document):
        return False
    before = _before(path, document)
    return before != path and _is_torn(before, document) and bool(_torn(before, document))


def _torn(path: Path, document: Document) -> str:
    """The hint for `{run: echo "a, b"}`, of which `b"` is the second key."""
    before = _before(path, document) if _is_torn(path, document) else path
    while before != path and before[-1] != path[-1] and _is_torn(before, document):
        path, before = before, _before(before, document)
    if before == path or not isinstance(document.at(before), (str, int, float)):
        return ""
    from jobrunner.jobfile import unquoted  # only for who made this mistake

    begin, end = document.index(before), document.index(path, at_key=True)
    return unquoted.of_entries(document.home(path).text, begin, end, str(before[-1]))


# --- one error ---------------------------------------------------------------------------------------------------------------


def is_task(place: Path) -> bool:
    """Whether a whole task stands there."""
    return len(place) == 2 and place[0] in {"tasks", "finally"}


def _is_renamed(missing: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    *level, key = path_of(missing)
    strangers = [
        path_of(detail)[-1] for detail in details if detail["type"] == "extra_forbidden" and path_of(detail)[:-1] == tuple(level)
    ]
    model = model_at(tuple(level))
    return any(str(key) in (advised(model, str(name), None) or did_you_mean(str(name), [str(key)])) for name in strangers)


def _finding(detail: ErrorDetails, document: Document) -> Finding:
    path = path_of(detail)
    if path and path[-1] == "[key]":
        return Finding(path=path[:-1], at_key=True, message=_about_name(path[:-1], str(path[-2])))
    value = document.at(path)
    if detail["type"] == "extra_forbidden":
        found = unknown_key(path, value)
        return replace(found, hint=hint) if value is None and (hint := _torn(path, document)) else found
    if detail["type"] == "missing":
        return Finding(path=path[:-1], at_key=True, message=f"{path[-1]!r} is missing", hint=_HOW.get(str(path[-1]), ""))
    if value is None and (outdented := _outdented(path, document)):
        message = f"{path[-1]!r} has nothing under it: what belongs to it stands as far left"
        hint = f"Indent {', '.join(outdented[:8])} under {path[-1]}."
        return Finding(path=path, at_key=True, message=message, hint=hint)
    finding = _about_value(detail, path, value)
    is_evaluated = is_task(path) or (path[-1] in _WITH_EXPRESSIONS and path[0] != "secrets")
    if isinstance(value, str) and "${{" in value and not is_evaluated:
        return replace(finding, hint="There is no ${{ }} here: write the value itself.")
    return finding


_WITH_EXPRESSIONS: Final = cures.WITH_EXPRESSIONS | {"inputs", "outputs"}


def _about_value(detail: ErrorDetails, path: Path, value: object) -> Finding:
    """What is wrong with the value of a key that there is."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "literal_error":
        return _not_a_choice(path, value, str(context["expected"]))
    if kind == "model_type" and value is None and is_task(path):
        return Finding(path=path, message=f"{_ONE_ACTION}; this one has none of them", at_key=True, hint=_HOW["action"])
    if kind in _EXPECTED:
        message = f"expected {_EXPECTED[kind]}, found {_said(value)}"
        return Finding(path=path, message=message, hint=cures.of_type(kind, path, value) or _as_map(kind, path))
    if kind == "string_too_short" and path[2:3] == ("run",) and len(path) == 4:
        return Finding(path=path, message="this step is empty", hint="Leave it out.")
    if kind == "axis" and path[-1] in instances.CHANGES:
        message, hint = instances.no_maps(str(path[-1]))
        return Finding(path=path, message=message, hint=hint)
    if kind in _UNIONS:
        return Finding(path=path, message=str(detail["msg"]), hint=_of_union(kind, path, value))
    if kind == "string_pattern_mismatch":
        return Finding(path=path, message=_about_name(path, str(value)), hint=cures.of_target(path, str(value)))
    message = _bounds(kind, context) or str(detail["msg"])
    return Finding(path=path, message=message, at_key=kind in {"action", "secret"}, hint=_hint(kind, message, value))


def _hint(kind: str, message: str, value: object) -> str:
    if message.endswith("none of them"):
        return _HOW[kind]
    if not message.startswith("not a "):  # it is one, but out of bounds
        return ""
    return cures.of_duration(value) if kind == "duration" else cures.of_size(value) if kind == "size" else ""


def _as_map(kind: str, path: Path) -> str:
    """How a map is written under that key."""
    return _MAPS.get(str(path[-1]), "") if kind in {"dict_type", "model_type"} else ""


def _of_union(kind: str, path: Path, value: object) -> str:
    """What to write instead of a value that is no member of a union."""
    is_scalar = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    match kind:
        case "run" | "glob" if is_scalar or isinstance(value, bool):
            return cures.of_type("string_type", path, value)
        case "limits" | "axis" if is_scalar:
            return cures.of_type("list_type", path, value)
        case "limit" | "retry" if isinstance(value, str):
            return cures.of_type("int_type", path, value)
        case "foreach" if isinstance(value, int) and not isinstance(value, bool):
            return f"Write foreach: {{range: {shortened(str(value))}}}."
    return ""


_UNIONS: Final = frozenset({"run", "limits", "axis", "limit", "glob", "retry", "foreach"})
_MAPS: Final = {
    "matrix": "Give each name its list: matrix: {name: [a, b]}.",
    "limits": "Write limits: {name: 4}.",
    "cache": "Write cache: {inputs: [path], outputs: [path]}.",
    "finally": "Write finally: and under it name: {run: …}.",
}
_ONE_ACTION: Final = "a task has exactly one of target, run and argv"
_HOW: Final = {
    "tasks": "Write tasks: and under it name: {run: …}.",
    "max": "Write retry: 2, or retry: {max: 2}.",
    "slots": "Write {slots: 4}.",
    "cron": 'Write schedule: {cron: "30 2 * * *"}.',
    "secret": "Write one of env: VARIABLE, file: path, command: command, credential: name.",
    "action": "Write one of target: module:function, run: command, argv: [command, argument].",
}
_EXPECTED: Final = {
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a map (key: value)",
    "model_type": "a map (key: value)",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}


def _said(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
    return "a map"


def _not_a_choice(path: Path, value: object, expected: str) -> Finding:
    names = re.findall(r"'([^']*)'", expected)
    hint = did_you_mean(value, names) if isinstance(value, str) else ""
    said = f"{shortened(str(value))!r}" if isinstance(value, str) else _said(value)
    return Finding(path=path, message=f"expected one of {', '.join(names)}, found {said}", hint=hint)


def _bounds(kind: str, context: Mapping[str, Any]) -> str | None:
    match kind:
        case "greater_than_equal":
            return f"expected {context['ge']:g} or more"
        case "less_than_equal":
            return f"expected {context['le']:g} or less"
        case "too_short":
            return "expected at least one entry, found none"
        case "too_long":
            return f"expected at most {context['max_length']} entries"
        case "string_too_short":
            return "expected text, found none"
        case "finite_number":
            return "expected a finite number"
        case "int_parsing_size":
            return "the number is too large"
    return None


def _about_name(path: Path, name: str) -> str:
    said = repr(shortened(name)) if name else "nothing"
    if path == ("name",):
        return f"{said} is not a job name: letters, digits, '_', '.' and '-', at most 100, the first a letter, a digit or '_'"
    if path[-1:] in {("target",), ("executor",)}:
        return f"{said} is not module:function"
    if path[-1:] == ("credential",):
        return f"{said} is not the name of a credential: letters, digits, '_', '.', ':', '@' and '-', at most 255"
    if path[-2:-1] == ("exceptions",):
        return f"{said} is not the name of an exception: ConnectionError, or with its module requests.Timeout"
    if path == ("concurrency", "group"):
        return f"{said} is not the name of a group: letters, digits, '_', '.' and '-', at most 100, the first no '.' or '-'"
    if "env" in path[-2:-1] or (path[0] == "secrets" and path[2:] == ("env",)):
        return f"{said} is not the name of an environment variable: letters, digits and '_', the first not a digit"
    return f"{said} is not a name: letters, digits, '_' and '-', at most 64, the first a letter or '_'"
