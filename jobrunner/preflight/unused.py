"""What a job declares and nothing in it uses: limits, pools, parameters, secrets. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from jobrunner import expressions
from jobrunner.expressions import Reference
from jobrunner.jobfile.document import Finding, Path
from jobrunner.spec import Job, Task


def find(job: Job) -> Iterator[Finding]:
    """Declarations without a use; of a job that includes others only secrets, as what it shares others may use."""
    if job.include is None:
        yield from _params(job)
        used = job.used_pools()
        for name in job.pools:
            if name not in used:
                yield _unused(("pools", name), "no task runs in this pool", f"Write pool: {name} at a task, or leave it out.")
        taken = {name for task in job.tasks.values() for name in task.takes}
        for name in job.limits:
            if name not in taken:
                hint = f"Write limits: [{name}] at the tasks that take it, or leave it out."
                yield _unused(("limits", name), "no task takes this limit", hint)
    listed = {name for task in job.tasks.values() for name in task.secrets}
    for name in job.secrets:
        if name not in listed:
            hint = f"Write secrets: [{name}] at the task that needs it, or leave it out."
            yield _unused(("secrets", name), "no task lists this secret, so none gets it", hint)


def _params(job: Job) -> Iterator[Finding]:
    read = {reference.path[:1] for reference in _references(job) if reference.root == "params"}
    if () in read:  # params[item]
        return
    for name in job.params:
        if (name,) not in read:
            yield _unused(("params", name), "nothing reads this parameter", f"Write ${{{{ params.{name} }}}}, or leave it out.")


def _unused(path: Path, message: str, hint: str) -> Finding:
    return Finding(path=path, message=message, hint=hint, at_key=True)


def _references(job: Job) -> Iterator[Reference]:
    for text in job.env.values():
        yield from _of_text(text)
    for task in job.tasks.values():
        for _, inner in texts((), task_values(task)):
            yield from _of_text(inner)
        if task.condition is not None:
            yield from expressions.condition(task.condition).references


def _of_text(text: str) -> tuple[Reference, ...]:
    template = expressions.parse(text)
    return template.references if template else ()


def task_values(task: Task) -> dict[str, object]:
    """What of a task may hold expressions, by key, but for its condition."""
    dumped = task.model_dump(include={"foreach", "matrix", "args", "kwargs", "run", "argv", "env", "cwd", "cache"})
    return {key: value for key, value in dumped.items() if value}


def texts(path: Path, value: object) -> Iterator[tuple[Path, str]]:
    """Every text in a value, with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from texts((*path, key), inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from texts((*path, number), inner)
