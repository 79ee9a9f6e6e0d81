"""A task of a job in words and as plain data: what `plan` and `show` have to say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobrunner.memory import in_units

if TYPE_CHECKING:
    from jobrunner.prepare import PoolPlan
    from jobrunner.spec import Job, Limit, Pool

_LONGEST = 60
"""Characters of an expression that are shown."""


def task_data(job: Job, name: str) -> dict[str, Any]:
    """What the job file says of a task."""
    task = job.tasks[name]
    action = next(key for key in task.ACTIONS if getattr(task, key) is not None)
    retries = task.retry if isinstance(task.retry, int) else task.retry.max  # no rule is made of the 0 that most have
    return {
        "task": name,
        "description": task.description,
        "action": action,
        "does": getattr(task, action),
        "pool": job.pool_of(name),
        "needs": list(task.needs),
        "if": task.condition,
        "foreach": plain(task.foreach),
        "matrix": plain(task.matrix),
        "limits": dict(task.takes),
        "max_parallel": task.max_parallel,
        "resources": plain(task.resources),
        "cache": plain(task.cache),
        "secrets": list(task.secrets),
        "timeout": task.timeout,
        "retries": retries,
        "retry": plain(task.retries) if retries else None,
        "final": name in job.finals,
    }


def limits_data(job: Job) -> dict[str, dict[str, Any]]:
    """The limits of a job, each with its slots and its scope."""
    return {name: {"slots": slots_of(limit), "scope": scope_of(limit)} for name, limit in job.limits.items()}


def slots_of(limit: int | Limit) -> int:
    return limit if isinstance(limit, int) else limit.slots


def scope_of(limit: int | Limit) -> str:
    return "run" if isinstance(limit, int) else limit.scope


def plain(value: Any) -> Any:
    """A part of a job file as it could be written in JSON."""
    return value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value


def action_of(data: Mapping[str, Any]) -> str:
    """`run make test …`, `target nightly:report`: the first line of what a task does."""
    does = data["does"]
    if data["action"] == "run" and isinstance(does, list):
        return f"run {_first_line(does[0])}" + (f", then {count(len(does) - 1, 'more command')}" if does[1:] else "")
    return f"{data['action']} {_first_line(does if isinstance(does, str) else ' '.join(map(str, does)))}"


def _first_line(text: str) -> str:
    first, *more = text.strip().splitlines() or [""]
    return f"{first}{' …' if more else ''}"


def instances_of(data: Mapping[str, Any], items: int | None = None) -> list[str]:
    """How often a task runs, where it is a fan-out."""
    each = "each item" if items is None else f"each of {count(items, 'item')}"
    if data["foreach"] is not None:
        return [f"for {each} of {_listed(data['foreach'])}"]
    if data["matrix"] is not None:
        axes = [name for name in data["matrix"] if name not in ("include", "exclude")]
        return [f"for {each.replace('item', 'combination')} of {' × '.join(axes) or 'include'}"]
    return []


def _listed(foreach: Any) -> str:
    """`range 3`, `glob *.csv`, `glob *.jpg, *.png, at least 1`, `[1, 2]`."""
    if isinstance(foreach, dict):
        least = foreach.get("at_least")
        kind, value = next(iter(foreach.items()))
        text = ", ".join(value) if kind == "glob" and isinstance(value, list) else value
        return short(f"{kind} {text if isinstance(text, (str, int)) else json.dumps(text)}") + (
            f", at least {least}" if least else ""
        )
    return short(foreach if isinstance(foreach, str) else json.dumps(foreach, ensure_ascii=False))


def terms_of(data: Mapping[str, Any]) -> list[str]:
    """On what terms it runs: its condition, what it needs, what it takes, how often and for how long it is tried."""
    facts = []
    if data["if"] is not None:
        facts.append(f"if {short(_bare(data['if']))}")
    if data["needs"]:
        facts.append("after " + ", ".join(data["needs"]))
    if data["limits"]:
        facts.append("takes " + ", ".join(f"{slots} × {name}" if slots > 1 else name for name, slots in data["limits"].items()))
    if data["max_parallel"] is not None:
        facts.append(f"at most {data['max_parallel']} at once")
    if data["resources"]:
        facts.append(_resources(data["resources"]))
    if data["retries"]:
        facts.append(f"retry {data['retries']}")
    if data["timeout"] is not None:
        facts.append(f"timeout {duration(data['timeout'])}")
    return facts


def _resources(data: Mapping[str, int]) -> str:
    """`memory 3GB, 2 CPUs, nice 10`."""
    told = []
    if (memory := data.get("memory")) is not None:
        told.append(f"memory {in_units(memory)}")
    if (cpus := data.get("cpus")) is not None:
        told.append(count(cpus, "CPU"))
    if (nice := data.get("nice")) is not None:
        told.append(f"nice {nice}")
    return ", ".join(told)


def pool_data(pool: Pool | PoolPlan) -> dict[str, Any]:
    """What is told of a pool: as it is declared, or as it comes to on this machine."""
    return {"mode": pool.mode or pool.executor, "workers": pool.workers, "preload": bool(pool.preload)}


def pool_text(data: Mapping[str, Any]) -> str:
    """`process, 4 workers, preload`."""
    workers = data["workers"]
    told: str = count(workers, "worker") if isinstance(workers, int) else f"{workers} workers"
    return f"{data['mode']}, {told}{', preload' if data['preload'] else ''}"


def _bare(condition: str) -> str:
    text = condition.strip()
    return text[3:-2].strip() if text.startswith("${{") and text.endswith("}}") else text


def short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def duration(seconds: float) -> str:
    """As a job file has it: `10m`, `1h30m`, `1.5s`, `500ms`."""
    seconds = round(seconds, 3)
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    whole, told = int(seconds // 60), ""
    for unit, size in (("d", 1440), ("h", 60), ("m", 1)):
        number, whole = divmod(whole, size)
        told += f"{number}{unit}" if number else ""
    rest = round(seconds % 60, 3)
    return told + (f"{rest:g}s" if rest or not told else "")


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
