"""`jobrunner why`: whether tasks would run now or are cached, and what has changed."""

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
    from jobrunner.api import Prepared
    from jobrunner.staleness import Instance

_MOST_SHOWN = 20
"""Instances of one task that are shown, and causes of a task that are gathered."""
_MOST_CAUSES = 3
"""Causes of each task that are shown where all tasks are."""
_ANSWERS: dict[bool | None, str] = {True: "cached", False: "would run", None: "known only in the run"}
_NOTHING = "nothing of it would run: its condition is false, or it has no items"
_WHAT_A_CACHE_DOES = "  with a key `cache` a task is skipped while nothing that it depends on has changed"


@click.command(short_help="Say why tasks would run, or that they are cached.")
@click.argument("file", type=click.Path())
@click.argument("task", required=False, shell_complete=completion.tasks)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Give a parameter of the job a value. Repeatable.")
@click.option("--params-file", type=click.Path(), metavar="FILE", help="Values of parameters from a YAML or JSON file.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON on stdout.")
def why(task: str | None, as_json: bool, file: str, **given: Any) -> int:
    """Say whether a task with a `cache` would be skipped now, and if not, what has changed; without TASK of all of them.

    Runs nothing. Where arguments come from tasks before, what those gave in the last run is taken for what they will give.

    \b
    jobrunner why job.yaml                   all tasks with a cache, in short
    jobrunner why job.yaml report            one task, each instance
    jobrunner why job.yaml report --json | jq -r '.instances[].causes[]'
    """
    from jobrunner import api

    prepared = api.prepare(file, options(**given))
    answer = _about_all(prepared) if task is None else _about(prepared, task)
    lines = _lines_of_all(answer, file) if task is None else _lines(answer)
    click.echo(json.dumps(answer, indent=2) if as_json else "\n".join(lines))
    return 0


# --- one task ----------------------------------------------------------------------------------------------------------------


def _about(prepared: Prepared, task: str) -> dict[str, Any]:
    """The answer about one task as plain data."""
    from jobrunner import staleness
    from jobrunner.errors import UsageError
    from jobrunner.hints import one_of

    if task not in prepared.job.tasks:
        raise UsageError(f"{prepared.job.name} has no task {task}. {one_of(task, prepared.job.tasks)}".rstrip())
    has_cache = prepared.job.tasks[task].cache is not None
    return _answer(task, staleness.of_task(prepared, task)) if has_cache else {"task": task, "has_cache": False}


def _answer(task: str, instances: Iterator[Instance]) -> dict[str, Any]:
    """The first instances, and how many there are of each kind."""
    shown = list(islice(instances, _MOST_SHOWN))
    rest = Counter(each.fresh for each in instances)
    return {
        "task": task,
        "has_cache": True,
        **_counts(rest + Counter(each.fresh for each in shown)),
        "instances": [{"item": each.key, "cached": each.fresh, "causes": list(each.causes)} for each in shown],
        "not_shown": {_ANSWERS[kind]: count for kind, count in rest.items()},
    }


def _counts(counts: Counter[bool | None]) -> dict[str, int]:
    return {_ANSWERS[kind].replace(" ", "_"): counts[kind] for kind in _ANSWERS}


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    """The answer for people."""
    if not answer["has_cache"]:
        yield f"{answer['task']} has no cache: it always runs"
        yield _WHAT_A_CACHE_DOES
    elif not answer["instances"]:
        yield f"{answer['task']}: {_NOTHING}"
    else:
        for each in answer["instances"]:
            name = answer["task"] if each["item"] is None else f"{answer['task']}[{each['item']}]"
            yield f"{name}: {_told(each['cached'])}"
            yield from (f"  {cause}" for cause in each["causes"])
        if more := answer["not_shown"]:
            yield f"and {sum(more.values())} more: " + ", ".join(f"{count} {kind}" for kind, count in more.items())


def _told(is_cached: bool | None) -> str:
    return "cached as of now: would be skipped" if is_cached else _ANSWERS[is_cached]


# --- all tasks ---------------------------------------------------------------------------------------------------------------


def _about_all(prepared: Prepared) -> dict[str, Any]:
    """The answer about all tasks with a cache as plain data, in declared order."""
    from jobrunner import staleness

    counts = {name: Counter[bool | None]() for name, task in prepared.job.tasks.items() if task.cache is not None}
    causes: dict[str, dict[str, None]] = {name: {} for name in counts}
    for each in staleness.instances(prepared, prepared.only) if counts else ():
        counts[each.task][each.fresh] += 1
        if len(causes[each.task]) < _MOST_SHOWN:
            causes[each.task] |= dict.fromkeys(each.causes)
    rows = [{"task": name, **_counts(found), "causes": list(causes[name])} for name, found in counts.items()]
    return {"job": prepared.job.name, "tasks": rows}


def _lines_of_all(answer: dict[str, Any], file: str) -> Iterator[str]:
    """The answer for people: what holds for each task, and the first causes. `file` is the job file as it was named."""
    if not answer["tasks"]:
        yield f"{answer['job']}: no task has a cache: all of them always run"
        yield _WHAT_A_CACHE_DOES
    for row in answer["tasks"]:
        causes, more = row["causes"][:_MOST_CAUSES], len(row["causes"]) - _MOST_CAUSES
        yield f"{row['task']}: {_summed(row)}"
        yield from (f"  {cause}" for cause in causes)
        if more > 0:
            yield f"  and {more} more: jobrunner why {file} {row['task']}"


def _summed(row: dict[str, Any]) -> str:
    """`cached as of now: would be skipped`, or `2 would run, 7 cached`."""
    kinds = [(kind, row[told.replace(" ", "_")]) for kind, told in _ANSWERS.items()]
    there = [(kind, count) for kind, count in sorted(kinds, key=lambda each: each[0] is True) if count]
    if not there:
        return _NOTHING
    if len(there) == 1 and (there[0][1] == 1 or there[0][0]):
        kind, count = there[0]
        return _told(kind) + (f" (× {count})" if count > 1 else "")
    return ", ".join(f"{count} {_ANSWERS[kind]}" for kind, count in there)
