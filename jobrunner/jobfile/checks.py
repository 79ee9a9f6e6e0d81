"""What the models cannot see: needs, secrets and limits that are not there, look-alikes, keys that do not fit a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from jobrunner import spec
from jobrunner.hints import did_you_mean
from jobrunner.jobfile import cures, instances, needs, schedule
from jobrunner.jobfile.document import Finding, Path

_SHARED: Final = frozenset({"thread", "thread_pool"})
_OWN: Final = ("mode", "workers")
_CHECKED: Final = frozenset((
    "pool", "mode", "workers", "env", "cwd", "secrets", "limits", "resources", "retry", "at_most_once",
    "foreach", "matrix", "run", "cache", "target",
))  # fmt: skip
"""Keys of a task about which there may be something to say."""


def find(job: spec.Job, place: needs.Place) -> Iterator[Finding]:
    """Everything that is wrong across the tasks of a job whose defaults are merged. `place` says where a path's value stands."""
    yield from needs.find(job.tasks, place, job.finals)
    yield from _look_alikes("tasks", job.tasks)
    yield from _look_alikes("pools", job.pools)
    yield from _look_alikes("limits", job.limits)
    yield from _host_limits(job)
    if job.schedule is not None:
        yield from schedule.find(job.schedule)
    yield from _pools(job)
    yield from _no_expressions(job)
    has_defaults = bool(job.defaults.model_fields_set)
    for name, task in job.tasks.items():
        if has_defaults or not _CHECKED.isdisjoint(task.model_fields_set):  # most tasks of a large file have none of them
            yield from _task(name, task, job)


def _task(name: str, task: spec.Task, job: spec.Job) -> Iterator[Finding]:
    if task.pool is not None or task.mode is not None or task.workers is not None:
        yield from _own_pool(name, task, job)
    if task.env or task.secrets or task.cwd is not None:
        yield from _shared_process(name, task, job)
    if task.secrets:
        yield from _secrets(name, task, job)
    if task.limits:
        yield from _limits(name, task, job)
    if task.resources is not None and task.target is not None:
        yield from _resources(name, task, job)
    if task.retry:
        yield from _retry(name, task)
    if task.foreach is not None or task.matrix is not None:
        yield from instances.find(name, task)
    if isinstance(task.run, list):
        yield from _steps(name, task.run)
    if task.cache is not None:
        yield from _cache(name, task.cache)
    if task.target is not None and ".py:" in task.target:
        yield _file_as_module(name, task.target)


# --- names -------------------------------------------------------------------------------------------------------------------


def _look_alikes(table: str, names: Mapping[str, object]) -> Iterator[Finding]:
    """Names that differ only in case: on some file systems their output would be one file."""
    seen: dict[str, str] = {}
    for name in names:
        folded = name.casefold()
        if folded in seen:
            yield Finding(path=(table, name), at_key=True, message=f"{name!r} differs from {seen[folded]!r} only in case")
        seen.setdefault(folded, name)


def _file_as_module(name: str, target: str) -> Finding:
    module = target.partition(".py:")[0]
    message = f"a target names a module, not its file {module}.py"
    return Finding(path=("tasks", name, "target"), message=message, hint=cures.of_target(("target",), target))


# --- pools -------------------------------------------------------------------------------------------------------------------


def _pools(job: spec.Job) -> Iterator[Finding]:
    if job.mode == "serial" and job.workers not in (1, "auto"):
        yield _serial(("workers",))
    if job.defaults.pool is not None and (given := _given(job.defaults)):
        yield Finding(
            path=("defaults", "pool"), at_key=True, message=_ONE_OF_BOTH.format(given=given), hint="Leave one of them out."
        )
    for name, pool in job.pools.items():
        yield from _pool(("pools", name), pool, job.mode if pool.mode is None else pool.mode)


_ONE_OF_BOTH: Final = "pool and {given} exclude each other"


def _pool(path: tuple[str, str], pool: spec.Pool, mode: spec.Mode) -> Iterator[Finding]:
    if path[1] == "default":
        yield Finding(
            path=path,
            at_key=True,
            message="the pool 'default' is the one that mode and workers of the job make",
            hint="Rename it.",
        )
    if pool.executor is not None and pool.mode is not None:
        yield Finding(
            path=(*path, "executor"), at_key=True, message="executor stands in place of mode", hint="Leave one of them out."
        )
    if pool.max_tasks_per_worker is not None and (pool.executor is not None or mode != "process_pool"):
        said = "with an executor" if pool.executor is not None else f"in mode {mode}"
        message = f"no worker is replaced {said}; max_tasks_per_worker is for mode process_pool"
        yield Finding(path=(*path, "max_tasks_per_worker"), at_key=True, message=message)
    if pool.preload and (why := _no_preload(pool, mode)):
        message = f"nothing is forked {why}; preload is for modes process and process_pool"
        yield Finding(path=(*path, "preload"), at_key=True, message=message)
    if pool.executor is None and mode == "serial" and pool.workers not in (1, "auto"):
        yield _serial((*path, "workers"))


def _no_preload(pool: spec.Pool, mode: spec.Mode) -> str:
    """Where no worker is forked with what was imported; "" where one is."""
    if pool.executor is not None:
        return "with an executor"
    if mode not in ("process", "process_pool"):
        return f"for an attempt in mode {mode}"
    return "with start_method spawn" if pool.start_method == "spawn" else ""


def _serial(path: Path) -> Finding:
    return Finding(
        path=path, message="mode serial runs one at a time: workers is 1", hint="Leave workers out, or take another mode."
    )


def _given(task: spec.Defaults) -> str:
    return " and ".join(key for key in _OWN if getattr(task, key) is not None)


def _own_pool(name: str, task: spec.Task, job: spec.Job) -> Iterator[Finding]:
    """A task's choice of where it runs: a pool that exists, or one of its own, not both."""
    given = _given(task)
    path = ("tasks", name)
    if task.pool is not None:
        if given:
            yield Finding(
                path=(*path, "pool"), at_key=True, message=_ONE_OF_BOTH.format(given=given), hint="Leave one of them out."
            )
        if task.pool not in job.pools:
            yield Finding(path=(*path, "pool"), message=f"no pool is called {task.pool!r}", hint=_pool_hint(task.pool, job))
    elif given:
        if name in job.pools or name == "default":
            message = f"the task's own pool would be called {name!r}, as another pool is"
            yield Finding(path=path, at_key=True, message=message, hint=f"Rename one of them, or write pool: {name}.")
        if (task.mode or job.mode) == "serial" and task.workers not in (None, 1, "auto"):
            yield _serial((*path, "workers"))


def _pool_hint(name: str, job: spec.Job) -> str:
    if name == "default":
        return "Leave pool out: that is the default."
    return did_you_mean(name, job.pools.keys()) or ("" if job.pools else "The job has no pools.")


def _shared_process(name: str, task: spec.Task, job: spec.Job) -> Iterator[Finding]:
    """`env`, `secrets` and `cwd` belong to a process; targets on threads and executors share one with their neighbours."""
    where = _shared_lane(task, job)
    if task.target is None or where is None:
        return
    if task.env:
        hint = "Write mode: process_pool or process, hand the values over in kwargs, or set env for the whole job."
        yield Finding(
            path=("tasks", name, "env"), at_key=True, message=f"{where} share os.environ; a target there has no env", hint=hint
        )
    if task.secrets:
        hint = "Write mode: process_pool or process, or read the secret in a command."
        message = f"{where} share os.environ; a target there has no secrets"
        yield Finding(path=("tasks", name, "secrets"), at_key=True, message=message, hint=hint)
    if task.cwd is not None:
        hint = "Write mode: process_pool or process, or hand the folder over in kwargs."
        message = f"{where} share the working directory; a target there has no cwd"
        yield Finding(path=("tasks", name, "cwd"), at_key=True, message=message, hint=hint)


def _shared_lane(task: spec.Task, job: spec.Job) -> str | None:
    """What shares a process, in words; None where each target has a process for as long as it runs."""
    mode = _lane(task, job)
    if mode == _EXECUTOR:
        return "the tasks of an executor"
    return f"the threads of mode {mode}" if mode in _SHARED else None


_EXECUTOR: Final = "executor"


def _lane(task: spec.Task, job: spec.Job) -> str | None:
    """The mode that a task runs in, or `executor`; None where its pool is not there."""
    if task.pool is None:
        return task.mode or job.mode
    pool = job.pools.get(task.pool)
    if pool is None:
        return None
    return _EXECUTOR if pool.executor is not None else pool.mode or job.mode


# --- secrets, resources, limits, retry ---------------------------------------------------------------------------------------


def _secrets(name: str, task: spec.Task, job: spec.Job) -> Iterator[Finding]:
    """What a task lists is declared, stands there once, and can be had."""
    for position, secret in enumerate(task.secrets):
        path = ("tasks", name, "secrets", position)
        if secret not in job.secrets:
            yield Finding(path=path, message=f"the job has no secret {secret!r}", hint=secret_hint(secret, job.secrets))
        elif secret in task.secrets[:position]:
            yield Finding(path=path, message=f"{secret!r} is listed twice", hint="Leave one out.")
        elif not secret.isidentifier() and not any("secrets" in text and secret in text for text in task.env.values()):
            message = f"{secret!r} is not the name of an environment variable, so the task would not get it"
            variable = secret.upper().replace("-", "_")
            yield Finding(path=path, message=message, hint=f"Write env: {{{variable}: \"${{{{ secrets['{secret}'] }}}}\"}}.")


def secret_hint(name: str, declared: Mapping[str, object]) -> str:
    """The secret that was probably meant, or how this one is declared."""
    return did_you_mean(name, list(declared)) or f"Declare it: secrets: {{{name}: {{env: {name.upper().replace('-', '_')}}}}}."


def _resources(name: str, task: spec.Task, job: spec.Job) -> Iterator[Finding]:
    """Limits hold for a process: a target has one for each attempt in mode process only."""
    mode = _lane(task, job)
    if mode in {None, "process"}:
        return
    where = "with an executor" if mode == _EXECUTOR else f"in mode {mode}"
    message = f"a target {where} has no process for each attempt; resources are for commands and mode process"
    yield Finding(path=("tasks", name, "resources"), at_key=True, message=message, hint="Write mode: process.")


def _limits(name: str, task: spec.Task, job: spec.Job) -> Iterator[Finding]:
    """What a task takes is declared, stands there once, and is not more than there is."""
    is_map = isinstance(task.limits, dict)
    for position, (limit, count) in enumerate(task.takes.items() if is_map else ((limit, 1) for limit in task.limits)):
        path = ("tasks", name, "limits", limit if is_map else position)
        if limit not in job.limits:
            hint = did_you_mean(limit, list(job.limits)) or f"Declare it: limits: {{{limit}: {max(4, count)}}}."
            yield Finding(path=path, at_key=is_map, message=f"the job has no limit {limit!r}", hint=hint)
        elif not is_map and limit in list(task.limits)[:position]:
            hint = f"Leave one out; two slots are limits: {{{limit}: 2}}."
            yield Finding(path=path, message=f"{limit!r} is listed twice", hint=hint)
        elif count > (slots := _slots(job.limits[limit])):
            message = f"{limit!r} has {slots} slot{'s' * (slots > 1)}, so a task that takes {count} could never start"
            yield Finding(path=path, message=message, hint=f"Take fewer, or raise the limit: {{{limit}: {count}}}.")


MOST_HOST_SLOTS = 256
"""Slots of a limit of the machine: who holds one has a file open for it."""


def _host_limits(job: spec.Job) -> Iterator[Finding]:
    for name, limit in job.limits.items():
        if isinstance(limit, spec.Limit) and limit.scope == "host" and limit.slots > MOST_HOST_SLOTS:
            message = f"a limit of the host has at most {MOST_HOST_SLOTS} slots"
            yield Finding(path=("limits", name, "slots"), message=message)


def _slots(limit: int | spec.Limit) -> int:
    return limit if isinstance(limit, int) else limit.slots


def _retry(name: str, task: spec.Task) -> Iterator[Finding]:
    if task.at_most_once and task.retries.max > 0:
        yield _second_run(name, task)
    if isinstance(task.retry, int):
        return
    path = ("tasks", name, "retry")
    if task.retry.exceptions and task.target is None and "retry" in task.model_fields_set:  # defaults are for targets too
        message = "a command has an exit code, no exception"
        yield Finding(path=(*path, "exceptions"), at_key=True, message=message, hint="Write exit_codes: [1].")
    for key, values in (("exit_codes", task.retry.exit_codes or ()), ("exceptions", task.retry.exceptions or ())):
        for position, value in enumerate(values):
            if value in values[:position]:
                yield Finding(path=(*path, key, position), message=f"{value!r} is listed twice", hint="Leave one out.")


def _second_run(name: str, task: spec.Task) -> Finding:
    """Told where the task itself says one of the two; the other may come from the defaults."""
    is_own = "retry" in task.model_fields_set
    key, hint = ("retry", "Write retry: 0.") if is_own else ("at_most_once", "Write retry: 0 beside it.")
    message = "at_most_once and retry exclude each other: a retry is a second run"
    return Finding(path=("tasks", name, key), at_key=True, message=message, hint=hint)


def _no_expressions(job: spec.Job) -> Iterator[Finding]:
    """Where secrets and variables come from is read before there is a run to ask for values."""
    texts: list[tuple[Path, str | None]] = [(("env_file",), job.env_file)]
    for name, secret in job.secrets.items():
        texts += [(("secrets", name, "file"), secret.file), (("secrets", name, "command"), secret.command)]
    for path, text in texts:
        if text is not None and "${{" in text:
            yield Finding(path=path, message="no ${{ }} is evaluated here", hint="Write the value itself.")
        elif text is not None and "\0" in text:
            yield Finding(path=path, message="a path or a command cannot hold a NUL character")


# --- steps, cache ------------------------------------------------------------------------------------------------------------


def _steps(name: str, steps: list[str]) -> Iterator[Finding]:
    """Each step is a command; `run: [tar, -czf, x]` means one command and its arguments."""
    for position, step in enumerate(steps):
        path = ("tasks", name, "run", position)
        if not step.strip():
            yield Finding(path=path, message="this step is empty", hint="Leave it out.")
        elif position > 0 and step.startswith("-"):
            message = "a list is run step by step, and no command begins with '-'"
            yield Finding(path=path, message=message, hint="Write argv: […] for one command with its arguments.")
            return


def _cache(name: str, cache: spec.Cache) -> Iterator[Finding]:
    for key, patterns in (("inputs", cache.inputs), ("outputs", cache.outputs)):
        for position, pattern in enumerate(patterns):
            if not pattern.strip():
                yield Finding(path=("tasks", name, "cache", key, position), message="this path is empty", hint="Leave it out.")
