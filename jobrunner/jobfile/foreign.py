"""Keys that a job file does not have: what they are called here, in the words of who knows them from another tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from jobrunner import spec
from jobrunner.hints import closest
from jobrunner.jobfile import vocabulary
from jobrunner.jobfile.answers import Answer, plain
from jobrunner.jobfile.document import Finding, Path

_TABLES: Final = frozenset({"tasks", "finally"})
_ONLY_OF_POOLS: Final = frozenset(spec.keys(spec.Pool)) - frozenset(spec.keys(spec.Job)) - frozenset(spec.keys(spec.Task))


def unknown_key(path: Path, value: object) -> Finding:
    """The finding about a key that the model at that level does not have."""
    key, model = str(path[-1]), model_at(path[:-1])
    hint = advised(model, key, value) or _hint(model, key)
    return Finding(path=path, at_key=True, message="unknown key", hint=hint)


def _hint(model: type[BaseModel], key: str) -> str:
    """Where our own key belongs, or which one was probably meant."""
    if model is spec.Defaults and key in spec.keys(spec.Task):
        return f"Write {key!r} in each task."
    near = closest(key, _names(model))
    if near is not None and is_slip(key, near):
        return f"Did you mean {near!r}?"
    if model in (spec.Task, spec.Defaults) and key in spec.keys(spec.Job):
        return f"{key!r} is a key of the job: write it at the top of the file."
    if model in (spec.Job, spec.Task, spec.Defaults) and key in _ONLY_OF_POOLS:
        return f"{key!r} is a key of a pool: write it in one, under pools at the top of the file."
    if model is spec.Job and key in spec.keys(spec.Defaults):
        return f"Write {key!r} in a task, or under defaults for all of them."
    if model is spec.Job and key in spec.keys(spec.Task):
        return f"Write {key!r} in a task."
    return "" if near is None else f"Did you mean {near!r}?"


def meant(path: Path) -> str:
    """Our key that the unknown one at `path` was probably meant to be, or nothing."""
    key, model = str(path[-1]), model_at(path[:-1])
    found = answer(model, key, None)
    return found.key if found else closest(key, _names(model)) or ""


def advised(model: type[BaseModel], key: str, value: object) -> str:
    """`Write timeout: 5m.`: what is written here for a key of another tool, or why there is nothing; or an empty text."""
    found = answer(model, key, value)
    if found is None and model is spec.Defaults:
        in_task = answer(spec.Task, key, value)
        return f"Write {in_task.key!r} in each task." if in_task and in_task.key else str(in_task or "")
    if found is None and model is spec.Job:
        in_task = answer(spec.Task, key, value)
        return f"{str(in_task).removesuffix('.')} in a task." if in_task and in_task.key and not in_task.note else ""
    return str(found or "")


def answer(model: type[BaseModel], key: str, value: object) -> Answer | None:
    """What a key of another tool is here: only a key that this level has, or a note where there is none."""
    ours = _names(model)
    for candidate in vocabulary.candidates(model, plain(key)):
        found = candidate(value)
        if found is not None and (found.note or (found.key in ours and found.key != key) or _is_elsewhere(found)):
            return found
    return None


def _is_elsewhere(found: Answer) -> bool:
    """The answer itself says at which other level it is written."""
    return found.text.endswith("at the top of the file")


def slip_of(model: type[BaseModel], key: str) -> str:
    """The one key of a model that is a single slip of the fingers away; nothing where there is none, or more than one."""
    near = [name for name in spec.keys(model) if is_slip(key, name)]
    return near[0] if len(near) == 1 else ""


def is_slip(word: str, name: str) -> bool:
    """Whether one letter more, less, other or swapped makes the name of the word; hyphens and capitals do not count."""
    word, name = plain(word), plain(name)
    short, long = sorted((word, name), key=len)
    if len(long) - len(short) > 1 or len(long) < 3:
        return word == name
    at = next((place for place, letter in enumerate(short) if letter != long[place]), len(short))
    if len(short) < len(long):
        return short[at:] == long[at + 1 :]
    is_swapped = short[at + 1 : at + 2] + short[at : at + 1] == long[at : at + 2] and short[at + 2 :] == long[at + 2 :]
    return short[at + 1 :] == long[at + 1 :] or is_swapped


def model_at(path: Path) -> type[BaseModel]:
    """The model that checks the mapping at `path`."""
    if not path:
        return spec.Job
    in_task = path[2:] if path[0] in _TABLES else path[1:] if path[0] == "defaults" else ()
    if len(in_task) == 1:
        return _WITHIN_A_TASK.get(in_task[0], spec.Task)
    return _TOP.get(path[0], spec.Job)


_WITHIN_A_TASK: Final[Mapping[object, type[BaseModel]]] = {
    "retry": spec.Retry,
    "stop": spec.Stop,
    "resources": spec.Resources,
    "cache": spec.Cache,
    "foreach": spec.Range,
}
_TOP: Final[Mapping[object, type[BaseModel]]] = {
    "tasks": spec.Task,
    "finally": spec.Task,
    "pools": spec.Pool,
    "params": spec.Param,
    "defaults": spec.Defaults,
    "secrets": spec.Secret,
    "limits": spec.Limit,
    "schedule": spec.Schedule,
    "concurrency": spec.Concurrency,
}


def _names(model: type[BaseModel]) -> list[str]:
    """The keys that may have been meant. Which of its three maps a `foreach` was to be is not known."""
    return ["range", "glob", "lines", "at_least"] if model is spec.Range else spec.keys(model)
