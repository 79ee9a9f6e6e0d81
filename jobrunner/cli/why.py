"""`jobrunner why`: whether a task would run now or is cached, and what has changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from jobrunner.cli import completion
from jobrunner.cli.options import options

if TYPE_CHECKING:
    from jobrunner.staleness import Instance

_MOST_SHOWN = 20
_ANSWERS: dict[bool | None, str] = {True: "cached", False: "would run", None: "known only in the run"}


@click.command(short_help="Say why a task would run, or that it is cached.")
@click.argument("file", type=click.Path())
@click.argument("task", shell_complete=completion.tasks)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Give a parameter of the job a value. Repeatable.")
@click.option("--params-file", type=click.Path(), metavar="FILE", help="Values of parameters from a YAML or JSON file.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON on stdout.")
def why(task: str, as_json: bool, file: str, **given: Any) -> int:
    """Say whether a task with a `cache` would be skipped now, and if not, what has changed. Runs nothing.

    Where its arguments come from tasks before it, what those gave in the last run is taken for what they will give.

    \b
    jobrunner why job.yaml report
    jobrunner why job.yaml report --json | jq -r '.instances[].causes[]'
    """
    from jobrunner import api, staleness
    from jobrunner.errors import UsageError
    from jobrunner.hints import did_you_mean

    prepared = api.prepare(file, options(**given))
    if task not in prepared.job.tasks:
        raise UsageError(f"{prepared.job.name} has no task {task}. {did_you_mean(task, prepared.job.tasks)}".rstrip())
    has_cache = prepared.job.tasks[task].cache is not None
    answer = _answer(task, staleness.of_task(prepared, task)) if has_cache else {"task": task, "has_cache": False}
    click.echo(json.dumps(answer, indent=2) if as_json else "\n".join(_lines(answer)))
    return 0


def _answer(task: str, instances: Iterator[Instance]) -> dict[str, Any]:
    """The answer as plain data: the first instances, and how many there are of each kind."""
    shown = list(islice(instances, _MOST_SHOWN))
    rest = Counter(each.fresh for each in instances)
    counts = rest + Counter(each.fresh for each in shown)
    return {
        "task": task,
        "has_cache": True,
        **{_ANSWERS[kind].replace(" ", "_"): counts[kind] for kind in _ANSWERS},
        "instances": [{"item": each.key, "cached": each.fresh, "causes": list(each.causes)} for each in shown],
        "not_shown": {_ANSWERS[kind]: count for kind, count in rest.items()},
    }


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    """The answer for people."""
    if not answer["has_cache"]:
        yield f"{answer['task']} has no cache: it always runs"
        yield "  with a key `cache` it is skipped while nothing that it depends on has changed"
    elif not answer["instances"]:
        yield f"{answer['task']}: nothing of it would run: its condition is false, or it has no items"
    else:
        for each in answer["instances"]:
            name = answer["task"] if each["item"] is None else f"{answer['task']}[{each['item']}]"
            yield f"{name}: {'cached: would be skipped' if each['cached'] else _ANSWERS[each['cached']]}"
            yield from (f"  {cause}" for cause in each["causes"])
        if more := answer["not_shown"]:
            yield f"and {sum(more.values())} more: " + ", ".join(f"{count} {kind}" for kind, count in more.items())
