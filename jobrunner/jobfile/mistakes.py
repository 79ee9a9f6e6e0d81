"""What pydantic found wrong in a job file, in the words of the person who wrote it: keys of other tools, types, names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from jobrunner import spec
from jobrunner.hints import did_you_mean
from jobrunner.jobfile.document import Document, Finding, Path, shortened

Advice: TypeAlias = Callable[[object], tuple[str, str] | None]
"""From the value that was written: our key, and how it is written with that value."""


def find(details: Sequence[ErrorDetails], document: Document) -> Iterator[Finding]:
    """Each of pydantic's errors as one finding."""
    renamed = {path_of(detail)[:-1] for detail in details if detail["type"] == "extra_forbidden"}
    for detail in details:
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
    after = at > 0 and (place[at - 1] in {"foreach", "retry", "range"} or (at == 2 and place[0] == "params"))
    return after and isinstance(step, str) and step.startswith("<")


def _is_renamed(missing: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    *level, key = path_of(missing)
    strangers = [
        path_of(detail)[-1] for detail in details if detail["type"] == "extra_forbidden" and path_of(detail)[:-1] == tuple(level)
    ]
    model = _model_at(tuple(level))
    return any(str(key) in (_advice(model, str(name), None) or did_you_mean(str(name), [str(key)])) for name in strangers)


def _finding(detail: ErrorDetails, document: Document) -> Finding:
    path = path_of(detail)
    kind, context = detail["type"], detail.get("ctx", {})
    if path and path[-1] == "[key]":
        return Finding(path=path[:-1], at_key=True, message=_about_name(path[:-1], str(path[-2])))
    value = document.at(path)
    if kind == "extra_forbidden":
        return _unknown_key(path, value)
    if kind == "missing":
        return Finding(path=path[:-1], at_key=True, message=f"{path[-1]!r} is missing", hint=_HOW.get(str(path[-1]), ""))
    if kind == "literal_error":
        return _not_a_choice(path, value, str(context["expected"]))
    if kind in _EXPECTED:
        return Finding(path=path, message=f"expected {_EXPECTED[kind]}, found {_said(value)}", hint=_cure(kind, value))
    if kind == "string_pattern_mismatch":
        return Finding(path=path, message=_about_name(path, str(value)))
    message = _bounds(kind, context) or str(detail["msg"])
    hint = _HOW["action"] if message.endswith("none of them") else ""
    return Finding(path=path, message=message, at_key=kind == "action", hint=hint)


_HOW: Final = {
    "tasks": "Write tasks: and under it name: {run: …}.",
    "max": "Write retry: 2, or retry: {max: 2}.",
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


def _cure(kind: str, value: object) -> str:
    """What to write instead, where it can be told from what was written."""
    if kind == "list_type" and isinstance(value, (str, int)) and not isinstance(value, bool):
        return f"Write [{shortened(str(value))}]."
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return f'Write "{str(value).lower()}".' if isinstance(value, bool) else f'Write "{value}".'
    if kind == "string_type" and isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "Write it as one text; lines of a command go under 'run: |'."
    if kind == "bool_type" and isinstance(value, str) and value.lower() in {"yes", "on", "no", "off"}:
        return f"Write {'true' if value.lower() in {'yes', 'on'} else 'false'}."
    if kind == "int_type" and isinstance(value, str) and re.fullmatch(r"[1-9]\d{0,9}", value, re.ASCII):
        return f"Write {value} without quotes."
    return ""


def _not_a_choice(path: Path, value: object, expected: str) -> Finding:
    names = re.findall(r"'([^']*)'", expected)
    hint = did_you_mean(value, names) if isinstance(value, str) else ""
    said = f"{shortened(str(value))!r}" if isinstance(value, str) else _said(value)
    return Finding(path=path, message=f"expected one of {', '.join(names)}, found {said}", hint=hint)


def _bounds(kind: str, context: Mapping[str, Any]) -> str | None:
    match kind:
        case "greater_than_equal":
            return f"expected {context['ge']} or more"
        case "less_than_equal":
            return f"expected {context['le']} or less"
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
    if "env" in path[-2:-1]:
        return f"{said} is not the name of an environment variable: letters, digits and '_', the first not a digit"
    return f"{said} is not a name: letters, digits, '_' and '-', at most 64, the first a letter or '_'"


# --- unknown keys ------------------------------------------------------------------------------------------------------------


def _unknown_key(path: Path, value: object) -> Finding:
    key = str(path[-1])
    model = _model_at(path[:-1])
    hint = _advice(model, key, value) or did_you_mean(key, list(model.model_fields))
    return Finding(path=path, at_key=True, message="unknown key", hint=hint)


def _model_at(path: Path) -> type[BaseModel]:
    """The model that checks the mapping at `path`."""
    named: Mapping[object, type[BaseModel]] = {"retry": spec.Retry, "stop": spec.Stop}
    if len(path) > 1 and path[0] in {"tasks", "defaults"} and path[-1] in named and len(path) == (3 if path[0] == "tasks" else 2):
        return named[path[-1]]
    if len(path) == 3 and path[2] == "foreach":
        return spec.Range
    top: Mapping[object, type[BaseModel]] = {
        "tasks": spec.Task,
        "pools": spec.Pool,
        "params": spec.Param,
        "defaults": spec.Defaults,
    }
    return top[path[0]] if path else spec.Job


def _advice(model: type[BaseModel], key: str, value: object) -> str:
    """Our key for a key of another tool; only where this level has it."""
    name = key.lower().replace("-", "_")
    if name in _SPELLED and (advice := _SPELLED[name](value)) is not None:
        ours, text = advice
    else:
        ours = _SYNONYMS.get(name, "")
        text = f"{ours}:" if ours else ""
    if name in {"jobs", "parallel"} and model is spec.Job and isinstance(value, int):
        ours, text = "workers", f"workers: {value}"
    if ours not in model.model_fields or ours == key:
        return ""
    return f"Write {ours!r}." if text.endswith(":") else f"Write {text}."


def _with_unit(ours: str, unit: str) -> Advice:
    def spell(value: object) -> tuple[str, str] | None:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return (ours, f"{ours}: {value}{unit}") if is_number else (ours, f"{ours}: 5{unit}")

    return spell


def _as_target(_value: object) -> tuple[str, str] | None:
    return ("target", "target: module:function")


def _as_command(value: object) -> tuple[str, str] | None:
    return ("argv", "argv:") if isinstance(value, list) else ("run", "run:")


def _as_retry(value: object) -> tuple[str, str] | None:
    return ("retry", f"retry: {value}") if isinstance(value, int) and not isinstance(value, bool) else ("retry", "retry:")


_SPELLED: Final[dict[str, Advice]] = {
    **dict.fromkeys(("timeout_minutes", "timeout_min", "timeout_mins"), _with_unit("timeout", "m")),
    **dict.fromkeys(("timeout_seconds", "timeout_secs", "timeout_sec", "timeout_s"), _with_unit("timeout", "s")),
    **dict.fromkeys(("timeout_hours",), _with_unit("timeout", "h")),
    **dict.fromkeys(("command", "cmd", "exec", "entrypoint"), _as_command),
    **dict.fromkeys(("func", "function", "callable", "python"), _as_target),
    **dict.fromkeys(("retries", "max_retries"), _as_retry),
}
_SYNONYMS: Final[dict[str, str]] = {
    **dict.fromkeys(("depends", "depends_on", "dependson", "requires", "after", "deps", "dependencies", "upstream"), "needs"),
    **dict.fromkeys(("cmds", "commands", "script", "shell", "bash", "sh"), "run"),
    **dict.fromkeys(("steps", "jobs", "stages"), "tasks"),
    **dict.fromkeys(("working_directory", "working_dir", "workdir", "dir", "chdir"), "cwd"),
    **dict.fromkeys(("environment", "envs", "environ"), "env"),
    **dict.fromkeys(("with_items", "loop", "for_each", "for", "items", "each"), "foreach"),
    **dict.fromkeys(("parallel", "concurrency", "max_workers", "jobs_count", "n_jobs", "processes", "threads"), "workers"),
    **dict.fromkeys(("max_parallelism", "parallelism"), "max_parallel"),
    **dict.fromkeys(("vars", "variables", "inputs", "parameters"), "params"),
    **dict.fromkeys(("ignore_errors", "allow_failure", "continue_on_error", "ignore_error"), "continue_on_error"),
    **dict.fromkeys(("fail_fast", "failfast"), "fail_fast"),
    **dict.fromkeys(("arguments", "params"), "kwargs"),
    **dict.fromkeys(("title", "desc", "summary", "doc"), "description"),
    "args": "args",
    "kwargs": "kwargs",
}
