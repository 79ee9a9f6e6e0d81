"""`plan` and `schema`: what can be said about a job without running anything of it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import click

from jobrunner.cli import facts
from jobrunner.cli.options import options, run_options
from jobrunner.structs import struct

if TYPE_CHECKING:
    from jobrunner.api import Prepared
    from jobrunner.jobfile.document import Finding
    from jobrunner.spec import Job, Task

_MOST_NAMES = 20
_LONGEST_VALUE = 200
"""Characters of a parameter's value that people are shown."""
_LEFT_OUT = {
    "--skip": "skipped by --skip",
    "--only": "not in --only",
    "--from": "not after --from",
    "--until": "not needed by --until",
}


@click.command(short_help="Show what would run, run nothing.")
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON on stdout.")
def plan(as_json: bool, **given: Any) -> int:
    """Show what `run` would do: the order, the pools, what each task needs and how many items it has. Runs nothing.

    \b
    jobrunner plan job.yaml --set root=/srv
    jobrunner plan job.yaml --from report    what that selects
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
        from jobrunner.eventschema import json_schema
    else:
        from jobrunner.spec import json_schema
    click.echo(json.dumps(json_schema(), indent=2))
    return 0


# --- the plan ----------------------------------------------------------------------------------------------------------------


def plan_data(prepared: Prepared) -> dict[str, Any]:
    """The plan as plain data: pools, limits, and the selected tasks in an order in which they could run one by one."""
    from jobrunner import selection
    from jobrunner.preflight import capacity

    job = prepared.job
    names = _in_order(job, prepared.only)
    tasks = [facts.task_data(job, name) for name in names]
    used, taken = {task["pool"] for task in tasks}, {limit for task in tasks for limit in task["limits"]}
    (counts, refused), cached, order = counts_of(prepared, names), cached_of(prepared), order_of(prepared)
    for task in tasks:
        name = task["task"]
        task["items"], task["no_items"], task["because"] = counts.get(name), refused.get(name), cached.get(name)
        task["took"], task["peak"] = order.took.get(name), order.peaks.get(name)
    return {
        "job": job.name,
        "params": prepared.params,
        "pools": {name: facts.pool_data(pool) for name, pool in prepared.pools.items() if name in used},
        "limits": {name: limit for name, limit in facts.limits_data(job).items() if name in taken},
        "tasks": tasks,
        "order": order.data(),
        "left_out": selection.left_out(job, prepared.options.wanted),
        "cautions": [_caution(finding) for finding in capacity.find(job)],
    }


def _caution(finding: Finding) -> str:
    return f"{'.'.join(map(str, finding.path))}: {finding.message}"


@struct
class Order:
    """What a run takes first, where it `matters`: the tasks in `first`, by earlier runs; without such, in declared order.

    `took` (seconds) and `peaks` (bytes) are what earlier runs have measured of one instance.
    """

    matters: bool
    first: list[str]
    took: dict[str, float]
    peaks: dict[str, int]

    def data(self) -> dict[str, Any] | None:
        if not self.matters:
            return None
        return {"by": "durations", "first": self.first} if self.first else {"by": "declared"}


def order_of(prepared: Prepared) -> Order:
    """The order of a run that starts now."""
    from jobrunner import rundir
    from jobrunner.precedence import Precedence

    precedence = Precedence(prepared, rundir.state_dir(os.environ) / prepared.job.name)
    turns, known = precedence.turns(), precedence.known
    return Order(
        matters=precedence.has_choice,
        first=sorted((name for name in turns if name not in prepared.job.finals), key=turns.__getitem__),
        took={name: each.seconds for name, each in known.items()},
        peaks={name: each.peak for name, each in known.items() if each.peak is not None},
    )


def _in_order(job: Job, only: Collection[str]) -> list[str]:
    """What needs none of the others, then what needs only those, and so on, each in declared order; final tasks last."""
    from jobrunner.jobfile import needs

    selected = frozenset(only or job.tasks)
    depth: dict[str, int] = {}
    for name in needs.in_order(job.tasks):
        if name in selected:
            depth[name] = max((depth[need] + 1 for need in job.tasks[name].needs if need in selected), default=0)
    return sorted((name for name in job.tasks if name in selected), key=lambda name: (name in job.finals, depth[name]))


def cached_of(prepared: Prepared) -> dict[str, list[str]]:
    """For each selected task with a cache why it would run now, nothing where it would not; unless that shows only in the run."""
    from jobrunner import staleness

    is_cached = any(task.cache is not None for task in prepared.job.tasks.values())
    return staleness.causes(prepared) if is_cached and not prepared.options.force else {}


def counts_of(prepared: Prepared, names: Collection[str]) -> tuple[dict[str, int], dict[str, str]]:
    """How many items or combinations each task has, or why none can be had now, where either is known before the run."""
    from jobrunner import credentials
    from jobrunner.bind import Binder, Run
    from jobrunner.errors import ExpressionError, JobrunnerError
    from jobrunner.plan import Plan
    from jobrunner.recall import env_file_of

    job, found, refused = prepared.job, dict[str, int](), dict[str, str]()
    wanted = [name for name in names if job.tasks[name].has_instances and _is_known_now(job.tasks[name])]
    if not wanted:
        return found, refused
    hidden = credentials.variables(job)
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    facts_of_none = Run(id="", dir="", started_at="", folder=str(prepared.folder))
    with contextlib.suppress(JobrunnerError):  # an env_file or an env that cannot be had: the run will say so
        binder = Binder(job, params=prepared.params, environ=environ, run=facts_of_none, env_file=env_file_of(prepared))
        plan = Plan(job, pools=dict.fromkeys(prepared.pools, 1), expand=binder.items)
        for name in wanted:
            try:
                found[name] = len(binder.items(plan, name))
            except ExpressionError as error:
                refused[name] = str(error)
    return found, refused


def _is_known_now(task: Task) -> bool:
    """Whether its items depend on nothing that a run alone knows."""
    from jobrunner.expressions import parse

    source = task.matrix if task.foreach is None else task.foreach
    templates = map(parse, _texts_in(facts.plain(source)))
    return not any(reference.root in ("tasks", "run") for found in templates if found for reference in found.references)


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(each)


def plan_text(prepared: Prepared) -> str:
    """The plan for people."""
    data = plan_data(prepared)
    return "\n".join(
        [*_head(data, len(prepared.job.tasks)), *_tasks(data), *_left_out(data["left_out"]), *_cautions(data["cautions"])]
    )


def _head(data: dict[str, Any], declared: int) -> Iterator[str]:
    from jobrunner.jobfile.document import shortened

    shown, all_tasks = len(data["tasks"]), facts.count(declared, "task")
    yield f"{data['job']}: {all_tasks if shown == declared else f'{shown} of {all_tasks}'}"
    for name, value in data["params"].items():
        yield f"  param {name} = {shortened(json.dumps(value, ensure_ascii=False), _LONGEST_VALUE)}"
    for name, pool in data["pools"].items():
        yield f"  pool {name}: {facts.pool_text(pool)}"
    for name, limit in data["limits"].items():
        yield f"  limit {name}: {facts.count(limit['slots'], 'slot')}" + " of this host" * (limit["scope"] == "host")
    if (order := data["order"]) is not None:
        by_runs = order["by"] == "durations"
        told = f"this order, by how long they took: {_some(order['first'])}" if by_runs else "declared order"
        yield f"  ready tasks start in {told}"


def _tasks(data: dict[str, Any]) -> Iterator[str]:
    width = max(len(task["task"]) for task in data["tasks"])
    is_final = False
    for number, task in enumerate(data["tasks"], 1):
        if task["final"] and not is_final:
            yield "  finally, when all others have ended:" if number > 1 else "  finally:"
            is_final = True
        yield f"{number:>4}. {task['task']:<{width}}  {_described(task, data['left_out'])}"


def _described(task: dict[str, Any], left_out: Collection[str]) -> str:
    task = {**task, "needs": [need for need in task["needs"] if need not in left_out]}  # the others count as met
    told = [facts.action_of(task), f"in {task['pool']}", *facts.instances_of(task, task["items"]), *facts.terms_of(task)]
    if task["took"] is not None:
        told.append(f"took {_about(task['took'])}")
    if task["no_items"] is not None:
        told.append(f"as of now {task['no_items']}")
    if task["cache"] is not None:
        told.append(_cached(task["because"]))
    return " · ".join(told)


def _about(seconds: float) -> str:
    return facts.duration(round(seconds) if seconds >= 100 else float(f"{seconds:.2g}"))


def _cached(because: list[str] | None) -> str:
    if because is None:
        return "has a cache"
    return f"not cached: {'; '.join(because)}" if because else "cached as of now"


def _left_out(found: dict[str, str]) -> Iterator[str]:
    """One line an option: a job may have 100,000 tasks."""
    by_option: dict[str, list[str]] = {}
    for name, option in found.items():
        by_option.setdefault(option, []).append(name)
    for option, names in by_option.items():
        yield f"  {_LEFT_OUT[option]}: {_some(names)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _cautions(told: list[str]) -> Iterator[str]:
    return (f"  caution: {each}" for each in told)
