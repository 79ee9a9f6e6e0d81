"""What can be found out about a job by importing what it calls: in a process of its own, within a time limit.

job ─▶ uses ─by module─▶ probing ⇄ probe (a fresh interpreter) ─answers─▶ findings at places of the job file
"""

from __future__ import annotations

import json
import math
import os
import posixpath
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from jobrunner import credentials, expressions, trust
from jobrunner.cpus import usable_cpus, worker_count
from jobrunner.errors import UsageError
from jobrunner.host import MODES
from jobrunner.jobfile import JobFile
from jobrunner.jobfile.document import Finding, Path, visible
from jobrunner.preflight import probing
from jobrunner.preflight.probe import Answer
from jobrunner.preflight.signatures import Argument, Remark, Use
from jobrunner.spec import Job, Limit, Pool, Range, Task
from jobrunner.structs import struct

DEFAULT_LIMIT: Final = 30.0
"""Seconds that the import of one module may take."""

_LONGEST_SHOWN = 40

_Uses: TypeAlias = Mapping[int, tuple[Path, Use]]
"""What the job file calls, by number, each with the path below which it stands."""


@struct
class Noted:
    """A finding of a preflight. `output` holds the last lines of what an import that failed has printed."""

    finding: Finding
    is_warning: bool = False
    output: str = ""


def check(file: JobFile, limit: float = DEFAULT_LIMIT) -> list[Noted]:
    """Import every target and executor of a job, and tell what would fail or go slowly at run time.

    This runs what modules do when they are imported, as nothing else does besides a run. `limit` is in seconds, for each module.
    Raises UnsafeError where others could make us import what they want.
    """
    uses = _uses(file.job)
    if not uses:
        return []
    trust.refuse_unsafe_file(file.path, "the job file", imports=True)
    try:
        environ = _environment(file)
    except UsageError as error:
        return [Noted(finding=Finding(path=("env_file",), message=str(error).removeprefix("env_file: ")))]
    modules = _by_module(uses)
    answered = list(probing.ask(modules, folder=str(file.path.parent), environ=environ, limit=limit))
    notes = [_noted(remark, uses, said) for answer, said in answered for remark in answer.remarks]
    crowds = _crowds(file.job, uses, environ)
    return [*notes, *_slow([answer for answer, _ in answered], modules, crowds)]


def _noted(remark: Remark, uses: _Uses, said: str) -> Noted:
    base, _ = uses[remark.use]
    message, hint = (visible(text.replace("\t", " ")) for text in (remark.message, remark.hint))  # an error may say anything
    finding = Finding(path=(*base, *remark.where), message=message, hint=hint, at_key=remark.at_key)
    return Noted(finding=finding, is_warning=remark.is_warning, output=said)


# --- what is asked -----------------------------------------------------------------------------------------------------------


def _uses(job: Job) -> _Uses:
    """Every target with its arguments, and the executors of the pools that are used."""
    found: list[tuple[Path, Use]] = []
    for name, task in job.tasks.items():
        if task.target is not None:
            args, kwargs = map(_argument, task.args), {key: _argument(value) for key, value in task.kwargs.items()}
            use = Use(id=len(found), key="target", target=task.target, args=list(args), kwargs=kwargs)
            found.append((("tasks", name), use))
    for name, pool in job.used_pools().items():
        if pool.executor is not None:
            size = Argument(kind="int", shown=str(pool.workers))
            use = Use(id=len(found), key="executor", target=pool.executor, kwargs={"max_workers": size})
            found.append((("pools", name), use))
    return dict(enumerate(found))


_KINDS: Final[Mapping[type, str]] = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str", list: "list"}


def _argument(value: object) -> Argument:
    if not expressions.is_constant(value):
        return Argument()
    text = json.dumps(value, ensure_ascii=False)
    shown = text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"
    return Argument(kind=_KINDS.get(type(value), "dict"), shown=visible(shown))


def _by_module(uses: _Uses) -> dict[str, list[Use]]:
    modules: dict[str, list[Use]] = {}
    for _, use in uses.values():
        modules.setdefault(use.target.partition(":")[0], []).append(use)
    return modules


def _environment(file: JobFile) -> dict[str, str]:
    """What a host has: the job's `env` as far as it is constant, its `env_file`, and no variable that a secret is read from."""
    job, hidden = file.job, credentials.variables(file.job)
    inherited = {name: value for name, value in os.environ.items() if name not in hidden}
    from_file = {} if job.env_file is None else credentials.env_file(file.path.parent / posixpath.expanduser(job.env_file))
    return {**inherited, **from_file, **{name: text for name, text in job.env.items() if expressions.is_constant(text)}}


# --- what would go slowly ----------------------------------------------------------------------------------------------------

_OF_PROCESSES = ("process", "process_pool")
_THREAD_LIMITS = frozenset({"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"})


@struct
class _Crowd:
    """A target of which `count` instances run at once. `is_free` where nothing bounds the threads that each computes with."""

    path: Path
    target: str
    pool: str
    count: int
    is_free: bool


def _crowds(job: Job, uses: _Uses, environ: Mapping[str, str]) -> dict[int, _Crowd]:
    pools = {name: (_mode(pool), _workers(pool)) for name, pool in job.used_pools().items()}
    bounded = not _THREAD_LIMITS.isdisjoint({*environ, *job.env})
    found: dict[int, _Crowd] = {}
    for number, (path, use) in uses.items():
        if path[0] == "tasks":
            name = str(path[1])
            task, pool = job.tasks[name], job.pool_of(name)
            mode, workers = pools[pool]
            is_alone = mode not in _OF_PROCESSES or not _THREAD_LIMITS.isdisjoint(task.env) or _has_cpus(task)
            count = _at_once(job, task, workers)
            if count > 1:
                place, is_free = (*path, use.key), not (bounded or is_alone)
                found[number] = _Crowd(path=place, target=use.target, pool=pool, count=count, is_free=is_free)
    return found


def _has_cpus(task: Task) -> bool:
    """It runs on so many CPUs, and its libraries count those."""
    return task.resources is not None and task.resources.cpus is not None


def _mode(pool: Pool) -> str:
    return "executor" if pool.executor else str(pool.mode)


def _workers(pool: Pool) -> int:
    mode = _mode(pool)
    return 1 if mode == "serial" else worker_count(pool.workers, threads=MODES[mode].threads, cpus=usable_cpus())


def _at_once(job: Job, task: Task, workers: int) -> int:
    """How many instances of a task can run at the same time, at most."""
    bounds = [workers, task.max_parallel or workers, _instances(task)]
    for name, taken in task.takes.items():
        limit = job.limits[name]
        bounds.append((limit.slots if isinstance(limit, Limit) else limit) // taken)
    return int(min(bounds))


def _instances(task: Task) -> float:
    """How many there are, infinity where only a run can tell."""
    match task.foreach:
        case list() as items:
            return len(items)
        case Range(range=bounds):
            return len(range(bounds) if isinstance(bounds, int) else range(*bounds))
    return math.inf if task.has_instances else 1


def _slow(answers: list[Answer], modules: Mapping[str, list[Use]], crowds: Mapping[int, _Crowd]) -> Iterator[Noted]:
    told: set[str] = set()
    for answer in answers:
        for use in modules[answer.module]:
            crowd = crowds.get(use.id)
            if crowd is not None and use.id in answer.pools:
                yield _nested(crowd, answer.pools[use.id])
            if crowd is not None and crowd.is_free and answer.libraries and crowd.pool not in told and usable_cpus() > 1:
                told.add(crowd.pool)  # one cure serves the whole pool
                yield _crowded(crowd, answer.libraries[0])


def _nested(crowd: _Crowd, started: str) -> Noted:
    message = f"{crowd.target} starts a pool of its own ({started}) inside {crowd.count} workers"
    hint = "Let one of the two be alone: max_parallel: 1 for this task, or a plain loop in the function."
    return Noted(finding=Finding(path=crowd.path, message=message, hint=hint), is_warning=True)


def _crowded(crowd: _Crowd, library: str) -> Noted:
    usable = usable_cpus()
    message = f"{crowd.target} loads {library}: {crowd.count} workers × {usable} BLAS threads on {usable} CPUs"
    return Noted(finding=Finding(path=crowd.path, message=message, hint="Write env: {OMP_NUM_THREADS: 1}."), is_warning=True)
