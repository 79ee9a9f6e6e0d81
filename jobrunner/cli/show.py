"""`jobrunner show`: what one job is: its parameters and how to give them, its tasks, pools, limits and secrets by name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from jobrunner.cli import facts

if TYPE_CHECKING:
    from jobrunner.jobfile import JobFile
    from jobrunner.spec import Job

_TYPED = {"int": "N", "float": "NUMBER", "bool": "true|false", "path": "PATH", "date": "YYYY-MM-DD", "list": "A,B,…"}
"""What is written behind `--set name=` for each type of parameter; TEXT for others."""
_WIDEST = 40
"""Columns of names before what is said of them."""


@click.command(short_help="Show what a job is: parameters, tasks, pools.")
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON on stdout.")
def show(file: str, as_json: bool) -> int:
    """Show what a job is and how to run it: parameters, tasks and what they need, pools, limits, secrets by name.

    Runs nothing and imports nothing of yours.

    \b
    jobrunner show jobs/nightly.yaml
    jobrunner show job.yaml --json | jq '.params | keys'
    """
    from jobrunner.jobfile import read

    found = read(file)
    data = show_data(found)
    click.echo(json.dumps(data, indent=2, ensure_ascii=False) if as_json else show_text(data, file))
    return 0


def show_data(file: JobFile) -> dict[str, Any]:
    """The job as plain data."""
    job = file.job
    return {
        "job": job.name,
        "file": str(file.path),
        "description": job.description,
        "schedule": facts.plain(job.schedule),
        "timeout": job.timeout,
        "params": _params(job),
        "tasks": [facts.task_data(job, name) for name in job.tasks],
        "pools": {name: facts.pool_data(pool) for name, pool in job.used_pools().items()},
        "limits": facts.limits_data(job),
        "secrets": {name: facts.plain(secret) for name, secret in job.secrets.items()},
    }


def _params(job: Job) -> dict[str, dict[str, Any]]:
    from jobrunner.jobfile import given, params

    found = {}
    for name, param in job.params.items():
        declared = params.declared(param)
        found[name] = {
            "type": params.type_of(param),
            "default": declared.default,
            "required": declared.required,
            "choices": declared.choices,
            "description": declared.description,
            "variable": given.variable(name),
        }
    return found


# --- for people --------------------------------------------------------------------------------------------------------------


def show_text(data: Mapping[str, Any], file: str) -> str:
    """What `show` prints. `file` is the job file as it was named."""
    finals = [task for task in data["tasks"] if task["final"]]
    others = [task for task in data["tasks"] if not task["final"]]
    sections = (
        ("Parameters (also in --params-file FILE, or as variables like JOBRUNNER_PARAM_NAME)", _param_rows(data["params"])),
        ("Tasks", map(_task_row, others)),
        ("Finally, when all others have ended", map(_task_row, finals)),
        ("Pools", ((name, facts.pool_text(pool)) for name, pool in data["pools"].items())),
        ("Limits", ((name, _limit(limit)) for name, limit in data["limits"].items())),
        ("Secrets", ((name, _source(secret)) for name, secret in data["secrets"].items())),
    )
    lines = [*_head(data, file)]
    for title, rows in sections:
        lines += _section(title, list(rows))
    return "\n".join(lines)


def _head(data: Mapping[str, Any], file: str) -> Iterator[str]:
    yield data["job"] + (f": {data['description']}" if data["description"] else "")
    if (schedule := data["schedule"]) is not None:
        yield f"  schedule {_schedule(schedule)}"
    if data["timeout"] is not None:
        yield f"  timeout {facts.duration(data['timeout'])}"
    needed = "".join(f" --set {name}=…" for name, param in data["params"].items() if param["required"])
    yield f"  jobrunner {file}{needed}"


def _schedule(schedule: str | Mapping[str, Any]) -> str:
    if isinstance(schedule, str):
        return schedule
    told = [schedule["cron"]]
    if zone := schedule.get("timezone"):
        told.append(f"({zone})")
    if schedule.get("jitter"):
        told.append(f"up to {facts.duration(schedule['jitter'])} later")
    return " ".join(told)


def _section(title: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    if not rows:
        return
    width = min(_WIDEST, max(len(name) for name, _ in rows))
    yield f"\n{title}:"
    for name, told in rows:
        yield f"  {name:<{width}}  {told}".rstrip()


def _param_rows(params: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for name, param in params.items():
        yield f"--set {name}={_value(param)}", " ".join(_param_facts(param))


def _value(param: Mapping[str, Any]) -> str:
    if param["choices"]:
        return "|".join(_written(choice) for choice in param["choices"])
    return _TYPED.get(param["type"], "TEXT")


def _param_facts(param: Mapping[str, Any]) -> Iterator[str]:
    if param["description"]:
        yield " ".join(param["description"].split())
    if param["required"]:
        yield "[required]"
    elif param["default"] is not None:
        yield f"[default: {_written(param['default'])}]"


def _written(value: Any) -> str:
    """A value as it would stand behind `--set name=`."""
    if isinstance(value, list):
        return ",".join(map(str, value)) if all(isinstance(each, str) for each in value) else json.dumps(value)
    return value if isinstance(value, str) else json.dumps(value)


def _task_row(task: Mapping[str, Any]) -> tuple[str, str]:
    does = " ".join(task["description"].split()) or facts.short(facts.action_of(task))
    return task["task"], " · ".join(_without_empty([does, *facts.instances_of(task), *facts.terms_of(task), *_cache(task)]))


def _cache(task: Mapping[str, Any]) -> list[str]:
    return ["cache"] if task["cache"] is not None else []


def _without_empty(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if text]


def _limit(limit: Mapping[str, Any]) -> str:
    return facts.count(limit["slots"], "slot") + (" of this host, shared by all its jobs" if limit["scope"] == "host" else "")


def _source(secret: Mapping[str, Any]) -> str:
    ((kind, value),) = secret.items()
    match kind:
        case "env":
            return f"from the variable {value}"
        case "command":
            return "from what a command prints"
    return f"from the {kind} {value}"
