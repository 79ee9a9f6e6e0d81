"""Keys that a job file does not have: what they are called here, in the words of who knows them from another tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from pydantic import BaseModel

from jobrunner import spec
from jobrunner.hints import closest
from jobrunner.jobfile.document import Finding, Path

Advice: TypeAlias = Callable[[object], tuple[str, str]]
"""From the value that was written: our key, and how it is written with that value."""


def unknown_key(path: Path, value: object) -> Finding:
    """The finding about a key that the model at that level does not have."""
    key, model = str(path[-1]), model_at(path[:-1])
    name = _plain(key)
    if advice := advised(model, key, value):
        hint = advice
    elif name in _ABSENT:
        hint = f"There is no {key!r} in this version{_ABSENT[name]}."
    elif model is spec.Defaults and key in spec.Task.model_fields:
        hint = f"Write {key!r} in each task."
    else:
        near = closest(key, list(model.model_fields))
        hint = "" if near is None else f"Did you mean {near!r}?"
    return Finding(path=path, at_key=True, message="unknown key", hint=hint)


def meant(path: Path) -> str:
    """Our key that the unknown one at `path` was probably meant to be, or nothing."""
    key, model = str(path[-1]), model_at(path[:-1])
    if _plain(key) in _ABSENT:
        return ""
    ours, _ = _spelled(model, key, None)
    return ours or closest(key, list(model.model_fields)) or ""


def advised(model: type[BaseModel], key: str, value: object) -> str:
    """`Write timeout: 5m.`: our key for a key of another tool, only where this level has it; or nothing."""
    ours, text = _spelled(model, key, value)
    if not ours:
        return ""
    return f"Write {ours!r}." if text.endswith(":") else f"Write {text}."


def model_at(path: Path) -> type[BaseModel]:
    """The model that checks the mapping at `path`."""
    named: Mapping[object, type[BaseModel]] = {"retry": spec.Retry, "stop": spec.Stop, "resources": spec.Resources}
    if len(path) > 1 and path[0] in {"tasks", "defaults"} and path[-1] in named and len(path) == (3 if path[0] == "tasks" else 2):
        return named[path[-1]]
    if len(path) == 3 and path[2] == "foreach":
        return spec.Range
    top: Mapping[object, type[BaseModel]] = {
        "tasks": spec.Task,
        "pools": spec.Pool,
        "params": spec.Param,
        "defaults": spec.Defaults,
        "secrets": spec.Secret,
        "concurrency": spec.Concurrency,
    }
    return top[path[0]] if path else spec.Job


def _plain(key: str) -> str:
    return key.lower().replace("-", "_")


def _spelled(model: type[BaseModel], key: str, value: object) -> tuple[str, str]:
    """Our key and how it is written; two empty texts where there is none at this level."""
    name = _plain(key)
    if name in {"jobs", "parallel"} and model is spec.Job and isinstance(value, int):
        return "workers", f"workers: {value}"
    for ours, text in _offers(name, value):
        if ours in model.model_fields and ours != key:
            return ours, text
    return "", ""


def _offers(name: str, value: object) -> list[tuple[str, str]]:
    if name in _SPELLED:
        return [advice(value) for advice in _SPELLED[name]]
    ours = _SYNONYMS.get(name)
    return [] if ours is None else [(ours, f"{ours}:")]


def _with_number(ours: str, unit: str = "", *, less: int = 0, example: str = "") -> Advice:
    """A number that is written with our key; `example` stands for what is no number."""

    def spell(value: object) -> tuple[str, str]:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return ours, f"{ours}: {max(0, value - less)}{unit}"
        return ours, f"{ours}: {example}".rstrip()

    return spell


def _as_target(_value: object) -> tuple[str, str]:
    return ("target", "target: module:function")


def _as_command(value: object) -> tuple[str, str]:
    return ("argv", "argv:") if isinstance(value, list) else ("run", "run:")


def _as_conflict(value: object) -> tuple[str, str]:
    return ("on_conflict", f"on_conflict: {'wait' if value is False else 'replace'}")


def _as_shell(value: object) -> tuple[str, str]:
    """`shell: bash` names the shell of other tools; `shell: ls -l` is a command."""
    name = value.rpartition("/")[2] if isinstance(value, str) else ""
    if name not in {"bash", "sh", "zsh", "dash", "ksh"}:
        return _as_command(value)
    strict = "-euo, pipefail" if name in {"bash", "zsh", "ksh"} else "-eu"
    return ("argv", f"argv: [{name}, {strict}, -c, …]")


_SPELLED: Final[dict[str, tuple[Advice, ...]]] = {
    **dict.fromkeys(("timeout_minutes", "timeout_min", "timeout_mins"), (_with_number("timeout", "m", example="5m"),)),
    **dict.fromkeys(
        ("timeout_seconds", "timeout_secs", "timeout_sec", "timeout_s"), (_with_number("timeout", "s", example="5s"),)
    ),
    **dict.fromkeys(("timeout_hours",), (_with_number("timeout", "h", example="5h"),)),
    **dict.fromkeys(("command", "cmd", "exec", "entrypoint"), (_as_command,)),
    **dict.fromkeys(("shell", "executable", "interpreter"), (_as_shell,)),
    **dict.fromkeys(("func", "function", "callable", "python"), (_as_target,)),
    **dict.fromkeys(("retries", "max_retries"), (_with_number("retry"), _with_number("max"))),
    **dict.fromkeys(("attempts", "max_attempts"), (_with_number("retry", less=1), _with_number("max", less=1))),
    **dict.fromkeys(("count", "times", "limit"), (_with_number("max"),)),
    "cancel_in_progress": (_as_conflict,),
    "parallel": (_with_number("max_parallel"), lambda _value: ("workers", "workers:")),
}
"""Key of another tool → ours, the first of them that the level has."""

_SYNONYMS: Final[dict[str, str]] = {
    **dict.fromkeys(("depends", "depends_on", "dependson", "requires", "after", "deps", "dependencies", "upstream"), "needs"),
    **dict.fromkeys(("cmds", "commands", "script", "bash", "sh"), "run"),
    **dict.fromkeys(("steps", "jobs", "stages"), "tasks"),
    **dict.fromkeys(("working_directory", "working_dir", "workdir", "dir", "chdir"), "cwd"),
    **dict.fromkeys(("environment", "envs", "environ", "variable", "var"), "env"),
    **dict.fromkeys(("envfile", "env_files", "dotenv", "environment_file"), "env_file"),
    **dict.fromkeys(("mem", "mem_limit", "memory_limit", "ram", "max_memory"), "memory"),
    **dict.fromkeys(("niceness", "priority"), "nice"),
    **dict.fromkeys(("cores", "cpu", "ncpus", "cpu_count"), "cpus"),
    **dict.fromkeys(("concurrency_policy", "if_running", "overlap", "policy"), "on_conflict"),
    **dict.fromkeys(("path", "from_file"), "file"),
    **dict.fromkeys(("with_items", "loop", "for_each", "for", "items", "each"), "foreach"),
    **dict.fromkeys(("concurrency", "max_workers", "jobs_count", "n_jobs", "processes", "threads"), "workers"),
    **dict.fromkeys(("max_parallelism", "parallelism"), "max_parallel"),
    **dict.fromkeys(("vars", "variables", "inputs", "parameters"), "params"),
    **dict.fromkeys(("ignore_errors", "allow_failure", "continue_on_error", "ignore_error"), "continue_on_error"),
    **dict.fromkeys(("fail_fast", "failfast"), "fail_fast"),
    **dict.fromkeys(("arguments", "params"), "kwargs"),
    **dict.fromkeys(("title", "desc", "summary", "doc"), "description"),
    **dict.fromkeys(("arg", "args"), "args"),
    **dict.fromkeys(("kwarg", "kwargs"), "kwargs"),
}

_ABSENT: Final[dict[str, str]] = {
    **dict.fromkeys(("when", "if", "finally", "on_failure", "on_success", "trigger_rule"), ""),
    **dict.fromkeys(("cache", "limits", "keep"), ""),
    **dict.fromkeys(("matrix", "strategy"), "; foreach takes a list of items"),
    **dict.fromkeys(("schedule", "cron", "on"), "; cron or a systemd timer starts the job"),
    "version": "; leave it out",
}
"""Keys of other tools that nothing here stands for, with what may help."""
