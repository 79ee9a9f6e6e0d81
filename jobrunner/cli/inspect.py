"""`validate`, `plan` and `schema`: what can be said about a job without running anything of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import click

from jobrunner.cli.options import options, run_options
from jobrunner.errors import JobFileError, Problem


@click.command(short_help="Check job files, run nothing.")
@click.argument("files", nargs=-1, required=True, type=click.Path(), metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print the problems as a JSON list on stdout.")
def validate(files: tuple[str, ...], as_json: bool) -> int:
    """Check job files: every problem with its line and column, and what to write instead.

    Runs nothing and imports nothing of yours. Exits 2 if a file has a problem.

    \b
    jobrunner validate jobs/*.yaml
    jobrunner validate --json job.yaml | jq -r '.[] | "\\(.line): \\(.message)"'
    """
    problems = list(_problems(files))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(problem) for problem in problems], indent=2))
        return 2 if problems else 0
    for problem in problems:
        click.echo(str(problem), err=True)
    if not problems:
        click.echo(f"{', '.join(files)}: valid")
    return 2 if problems else 0


def _problems(files: tuple[str, ...]) -> Iterator[Problem]:
    from jobrunner.jobfile import read

    for file in files:
        try:
            read(file)
        except JobFileError as error:
            yield from error.problems


@click.command(short_help="Show what would run, run nothing.")
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON on stdout.")
def plan(as_json: bool, **given: Any) -> int:
    """Show what `run` would do: the order, the pools and what each task needs. Runs nothing.

    \b
    jobrunner plan job.yaml --set root=/srv
    jobrunner plan job.yaml --json | jq .pools
    """
    from jobrunner import api

    prepared = api.prepare(given.pop("file"), options(**given))
    click.echo(json.dumps(plan_data(prepared), indent=2) if as_json else plan_text(prepared))
    return 0


@click.command()
@click.option("--events", is_flag=True, help="The schema of the log's events instead.")
def schema(events: bool) -> int:
    """Print the JSON Schema of the job file, for editors.

    \b
    jobrunner schema > job.schema.json     then in a job file, as its first line:
    # yaml-language-server: $schema=job.schema.json
    """
    if events:
        from jobrunner.events import json_schema
    else:
        from jobrunner.spec import json_schema
    click.echo(json.dumps(json_schema(), indent=2))
    return 0


def plan_data(prepared: Any) -> dict[str, Any]:
    """The plan as plain data: pools, and the selected tasks in an order in which they could run one by one."""
    job = prepared.job
    pools = {name: {"mode": pool.mode, "workers": pool.workers} for name, pool in prepared.pools.items()}
    tasks = [_task_data(job, name) for name in _in_order(job, prepared.only)]
    return {"job": job.name, "params": prepared.params, "pools": pools, "tasks": tasks}


def _task_data(job: Any, name: str) -> dict[str, Any]:
    task = job.tasks[name]
    action = next(key for key in task.ACTIONS if getattr(task, key) is not None)
    return {
        "task": name,
        "action": action,
        "does": getattr(task, action),
        "pool": job.pool_of(name),
        "needs": list(task.needs),
        "foreach": None if task.foreach is None else _foreach_data(task.foreach),
        "timeout": task.timeout,
        "retries": task.retries.max,
    }


def _foreach_data(foreach: Any) -> Any:
    return foreach.model_dump() if hasattr(foreach, "model_dump") else foreach


def _in_order(job: Any, only: tuple[str, ...]) -> list[str]:
    """Declared order, but nothing before what it needs."""
    import graphlib

    names = [name for name in job.tasks if not only or name in only]
    order = {name: place for place, name in enumerate(names)}
    sorter = graphlib.TopologicalSorter({name: [need for need in job.tasks[name].needs if need in order] for name in names})
    sorter.prepare()
    found: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=order.__getitem__)
        found += ready
        sorter.done(*ready)
    return found


def plan_text(prepared: Any) -> str:
    """The plan for people."""
    data = plan_data(prepared)
    lines = [f"{data['job']}: {len(data['tasks'])} tasks"]
    lines += [f"  param {name} = {json.dumps(value)}" for name, value in data["params"].items()]
    lines += [f"  pool {name}: {pool['mode']}, {_count(pool['workers'], 'worker')}" for name, pool in data["pools"].items()]
    width = max(len(task["task"]) for task in data["tasks"])
    for number, task in enumerate(data["tasks"], 1):
        lines.append(f"{number:>4}. {task['task']:<{width}}  {_described(task)}")
    return "\n".join(lines)


def _described(task: dict[str, Any]) -> str:
    does = task["does"] if isinstance(task["does"], str) else " ".join(map(str, task["does"]))
    first, *more = does.strip().splitlines()
    facts = [f"{task['action']} {first}{' …' if more else ''}", f"in {task['pool']}"]
    if task["foreach"] is not None:
        facts.append("for each item of " + _short(task["foreach"]))
    if task["needs"]:
        facts.append("after " + ", ".join(task["needs"]))
    return " · ".join(facts)


def _short(foreach: Any) -> str:
    text = foreach if isinstance(foreach, str) else json.dumps(foreach)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
