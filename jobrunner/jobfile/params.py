"""Parameters: what a declaration allows, and the values of one run, from defaults and from what is given."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from jobrunner.errors import UsageError
from jobrunner.expressions import is_constant
from jobrunner.hints import did_you_mean
from jobrunner.jobfile.document import Document, Finding, shortened
from jobrunner.kinds import Param
from jobrunner.structs import struct
from jobrunner.typed import TYPE_CHECKING, Final, TypeAlias, cast

if TYPE_CHECKING:
    from pydantic import JsonValue

    from jobrunner import spec

Parse: TypeAlias = "Callable[[object], JsonValue]"

_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
LONGEST_NUMBER = 4_000


@struct
class Given:
    """A value for a parameter, and where it comes from: a `source` that is named, or a place in a `document`."""

    value: object
    base: Path
    """What a relative path counts from."""
    source: str = ""
    document: Document | None = None

    def problem(self, name: str, message: str, *, hint: str = "", at_name: bool = False) -> str:
        """What is wrong with it in words, with its line and column where it has one."""
        if self.document is not None:
            return str(self.document.problem(Finding(path=(name,), message=message, hint=hint, at_key=at_name)))
        behind = f" (from {self.source})" if self.source else ""
        return f"parameter {shortened(name)}: {message}{behind}{'.' if hint else ''} {hint}".rstrip()


@struct
class _Bare(Param):
    """What a spec.Param has that is only its default."""

    default: JsonValue
    type: None = None
    required: bool = False
    choices: None = None
    description: str = ""


def declared(param: spec.Param | JsonValue) -> spec.Param:
    """The declaration of a parameter, also where the job file gives only a value."""
    return param if isinstance(param, Param) else cast("spec.Param", _Bare(default=param))


def type_of(param: spec.Param | JsonValue) -> spec.ParamType:
    """The type that a parameter has: as declared, else that of its default or of its first choice, else str."""
    declaration = declared(param)
    if declaration.type is not None:
        return declaration.type
    sample = declaration.default
    if sample is None and declaration.choices:
        sample = declaration.choices[0]
    match sample:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case list():
            return "list"
    return "str"


def resolve(job: spec.Job, given: Mapping[str, Given], *, folder: Path) -> dict[str, JsonValue]:
    """The values of all parameters of one run, each a JSON value of its declared type; None where there is none.

    Given text is parsed by type; values from Python or a file may have their type already. A path becomes absolute: a default
    counts from `folder`. Raises UsageError naming everything that is wrong.
    """
    wrong = [_unknown(name, each, job) for name, each in given.items() if name not in job.params]
    values: dict[str, JsonValue] = {}
    for name, param in job.params.items():
        each = given.get(name)
        try:
            values[name] = _value(declared(param), type_of(param), name, each, folder)
        except ValueError as error:
            wrong.append(f"parameter {name}: {error}" if each is None else each.problem(name, str(error)))
    if wrong:
        raise UsageError("\n".join(wrong))
    return values


def find(job: spec.Job) -> Iterator[Finding]:
    """Declarations that contradict themselves, and defaults that look as if they were evaluated."""
    for name, param in job.params.items():
        value = param.default if isinstance(param, Param) else param
        if not is_constant(value):
            path = ("params", name, "default") if isinstance(param, Param) else ("params", name)
            yield Finding(path=path, message="a default is taken as written: expressions are not evaluated here")
        elif isinstance(param, Param):
            yield from _contradictions(param, ("params", name))


def _unknown(name: str, given: Given, job: spec.Job) -> str:
    known = f"The job has {', '.join(list(job.params)[:20])}." if job.params else "The job has none."
    hint = did_you_mean(name, list(job.params)) or known
    return given.problem(name, "the job has no such parameter", hint=hint, at_name=True)


def _value(param: spec.Param, kind: spec.ParamType, name: str, given: Given | None, folder: Path) -> JsonValue:
    if given is not None:
        return _chosen(_parsed(given.value, kind, given.base, param.choices), param.choices)
    if param.required:
        raise ValueError(f"required, but not given. Set it with --set {name}=…")
    if param.default is None:
        return None
    return _parsed(param.default, kind, folder, param.choices)


def _chosen(value: JsonValue, choices: list[JsonValue] | None) -> JsonValue:
    if choices is not None and value not in choices:
        raise ValueError(f"{_said(value)} is not one of {', '.join(_said(choice) for choice in choices)}")
    return value


def _parsed(value: object, kind: spec.ParamType, base: Path, choices: list[JsonValue] | None) -> JsonValue:
    """The value as its type. Raises ValueError with words for people."""
    match kind:
        case "path":
            return _as_path(value, base)
        case "choice":
            return next((choice for choice in choices or [] if value == choice or value == _said(choice)), _as_scalar(value))
    return _PARSERS[kind](value)


def _contradictions(param: spec.Param, path: tuple[str, str]) -> Iterator[Finding]:
    kind = type_of(param)
    if param.required and param.default is not None:
        yield Finding(path=(*path, "required"), message="a required parameter has no default", hint="Leave one of them out.")
    if kind == "choice" and not param.choices:
        yield Finding(path=(*path, "type"), message="a choice needs its choices", hint="Write choices: [a, b].")
    for position, choice in enumerate(param.choices or []):
        if (fault := _misfit(choice, kind)) is not None:
            yield Finding(path=(*path, "choices", position), message=fault, hint=_unquoted(choice, kind))
    if param.default is None:
        return
    if (fault := _misfit(param.default, kind)) is not None:
        hint = _day_of_run(path[1], param.default) if kind == "date" else _unquoted(param.default, kind)
        yield Finding(path=(*path, "default"), message=fault, hint=hint)
    elif param.choices and param.default not in param.choices:
        yield Finding(path=(*path, "default"), message=f"{_said(param.default)} is not among the choices")


def _misfit(value: JsonValue, kind: spec.ParamType) -> str | None:
    """Why a value of the job file is not of the type. Stricter than what is given by hand: "3" is not an int there."""
    try:
        if kind in {"int", "float", "bool"} and isinstance(value, str):
            raise ValueError(f"{_said(value)} is text, not {_NAMED[kind]}")
        if kind == "list" and not isinstance(value, list):
            raise ValueError(f"{_said(value)} is not a list")
        if isinstance(value, dict):
            raise ValueError("a parameter is text, a number, true or false, or a list")
        _parsed(value, kind, Path("/"), [value])
    except ValueError as error:
        return str(error)
    return None


def _day_of_run(name: str, value: JsonValue) -> str:
    """How an expression says the day on which the run starts, which no default can."""
    if not isinstance(value, str) or value.strip().lower() not in _DAYS:
        return ""
    spelled = f"params.{name}" if name.isidentifier() else f"params[{name!r}]"
    return f"Leave the default out, and write default({spelled}, run.started_at[:10])."


def _unquoted(value: JsonValue, kind: spec.ParamType) -> str:
    """The cure of a number, or of true, that stands in quotes."""
    if not isinstance(value, str) or kind not in {"int", "float", "bool"}:
        return ""
    try:
        return f"Write {json.dumps(_PARSERS[kind](value))} without quotes."
    except ValueError:
        return ""


def _said(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if value == "":
        return "''"
    return shortened(str(value)) if isinstance(value, (str, int, float)) else shortened(repr(value))


def _as_int(value: object) -> JsonValue:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d{1,18}", value.strip(), re.ASCII):
        return int(value)
    raise ValueError(f"{_said(value)} is not a whole number")


def _as_float(value: object) -> JsonValue:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool) and "_" not in str(value)[:LONGEST_NUMBER]:
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise ValueError(f"{_said(value)} is not a number")


def _as_bool(value: object) -> JsonValue:
    text = str(value).strip().lower() if isinstance(value, (bool, str)) or value in (0, 1) else ""
    if text in _TRUE | _FALSE:
        return text in _TRUE
    raise ValueError(f"{_said(value)} is neither true nor false; write true, false, yes, no, 1 or 0")


def _as_str(value: object) -> JsonValue:
    if isinstance(value, (str, os.PathLike)):
        return os.fsdecode(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{_said(value)} is not text")


def _as_date(value: object) -> JsonValue:
    import datetime  # only for jobs that have such a parameter

    if isinstance(value, datetime.date):
        return value.isoformat()[:10]
    try:
        return datetime.date.fromisoformat(cast(str, _as_str(value)).strip()).isoformat()
    except ValueError:
        day = _DAYS.get(str(value).strip().lower()) if isinstance(value, str) else None
        behind = f"; on the command line that day is {day}" if day else ""
        raise ValueError(f"{_said(value)} is not a date; write it like 2026-01-31{behind}") from None


_DAYS: Final = {
    **dict.fromkeys(("today", "now", "$(date)"), "$(date +%F)"),
    **{name: f"$(date -d {name} +%F)" for name in ("yesterday", "tomorrow")},
}
"""What people call a day, and how a shell writes it."""


def _as_list(value: object) -> JsonValue:
    if isinstance(value, (list, tuple)):
        return _as_json(list(value))
    if not isinstance(value, str):
        raise ValueError(f"{_said(value)} is not a list")
    if value.lstrip().startswith("["):
        try:
            return _as_json(json.loads(value))
        except (ValueError, RecursionError):
            raise ValueError(f"{_said(value)} begins like a JSON list, but is none") from None
    return [part.strip() for part in value.split(",")] if value.strip() else []


def _as_json(value: object) -> JsonValue:
    try:
        return cast("JsonValue", json.loads(json.dumps(value, allow_nan=False)))
    except (TypeError, ValueError, RecursionError):
        raise ValueError("a list holds text, numbers, true, false, null, lists and maps; this one holds something else") from None


def _as_path(value: object, base: Path) -> JsonValue:
    if not isinstance(value, (str, os.PathLike)) or not (text := os.fsdecode(value)) or "\0" in text:
        raise ValueError(f"{_said(value)} is not a path")
    return os.path.normpath(base / os.path.expanduser(text))


def _as_scalar(value: object) -> JsonValue:
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(f"{_said(value)} is not text or a number")


_PARSERS: Final[Mapping[spec.ParamType, Parse]] = {
    "str": _as_str,
    "int": _as_int,
    "float": _as_float,
    "bool": _as_bool,
    "date": _as_date,
    "list": _as_list,
}
_NAMED: Final[Mapping[spec.ParamType, str]] = {"int": "a whole number", "float": "a number", "bool": "true or false"}
