"""A job and what its caller wants, made ready to run: everything that can be refused is refused here, before anything starts."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from jobrunner import cpus, trust
from jobrunner.bind import data_references
from jobrunner.errors import UsageError
from jobrunner.hints import did_you_mean
from jobrunner.host import MODES
from jobrunner.jobfile import JobFile, checks, params, read
from jobrunner.jobfile.document import dotted
from jobrunner.spec import MOST_WORKERS, Job, Mode, Pool

Durability = Literal["process", "disk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller decides about one run. `workers` and `mode` stand in place of those of the job, not of named pools."""

    params: Mapping[str, object] = field(default_factory=dict)
    workers: int | None = None
    mode: Mode | None = None
    only: Sequence[str] = ()
    fail_fast: bool | None = None
    resume: bool | str = False
    """Go on with the run of this id; True: with the last run of the job, if that is unfinished."""
    retry_failed: bool = False
    """Of a resumed run: run again what has failed."""
    rerun: Sequence[str] = ()
    """Of a resumed run: tasks that run again whatever is recorded of them."""
    durability: Durability = "disk"
    """What the journal outlives: the death of this process, or a loss of power too."""

    def recordable(self) -> dict[str, Any]:
        """What a resume must ask for again, besides parameters."""
        wanted = {"workers": self.workers, "mode": self.mode, "only": list(self.only), "fail_fast": self.fail_fast}
        return {name: value for name, value in wanted.items() if value not in (None, [])}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """One pool with its worker count decided for this machine."""

    spec: Pool
    mode: str
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A job that nothing can be said against any more: its parameters have values, its pools sizes."""

    file: JobFile
    job: Job
    params: dict[str, Any]
    pools: dict[str, PoolPlan]
    options: Options

    @property
    def only(self) -> tuple[str, ...]:
        return tuple(self.options.only)

    @property
    def folder(self) -> Path:
        """Where the job file is: what its relative paths count from."""
        return self.file.path.parent

    @property
    def at_most_once(self) -> list[str]:
        """The tasks that may run at most once."""
        return [name for name, task in self.job.tasks.items() if task.at_most_once]

    @property
    def given(self) -> dict[str, Any]:
        """The parameters that the caller gave, with their values."""
        return {name: self.params[name] for name in self.options.params if name in self.params}


def prepare(path: str | os.PathLike[str], options: Options) -> Prepared:
    """Everything that can be refused, before anything is made or started."""
    file = read(path)
    trust.refuse_unsafe_file(file.path, "the job file", imports=_imports(file.job))
    _check_pool(options)
    _check_only(file.job, options.only)
    _check_rerun(file.job, options.rerun)
    changes: dict[str, Any] = {"workers": options.workers, "mode": options.mode, "fail_fast": options.fail_fast}
    job = file.job.model_copy(update={key: value for key, value in changes.items() if value is not None})
    _check_changed(job, options)
    values = params.resolve(job, options.params, folder=file.path.parent, cwd=_current_folder())
    return Prepared(file=file, job=job, params=values, pools=_sized(job), options=options)


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise UsageError(f"the current directory cannot be used ({error.strerror}): change to one that exists") from None


def _check_pool(options: Options) -> None:
    if options.workers is not None and (type(options.workers) is not int or not 1 <= options.workers <= MOST_WORKERS):
        raise UsageError(f"--workers {options.workers}: give a whole number from 1 to {MOST_WORKERS}")
    if options.mode is not None and options.mode not in get_args(Mode):
        raise UsageError(f"--mode {options.mode}: modes are {', '.join(get_args(Mode))}")
    if options.mode == "serial" and options.workers not in (None, 1):
        raise UsageError("--mode serial runs one at a time: leave --workers out")


def _check_changed(job: Job, options: Options) -> None:
    """What was right in the mode of the file can be wrong in another: threads share one environment and one folder."""
    if options.mode is None and options.workers is None:
        return
    if findings := list(checks.find(job, lambda path: 0)):
        option = "--workers" if options.mode is None else f"--mode {options.mode}"
        told = (f"{option}: {dotted(finding.path)}: {finding.message}. {finding.hint}".rstrip() for finding in findings)
        raise UsageError("\n".join(told))


def _imports(job: Job) -> bool:
    return any(task.target is not None for task in job.tasks.values())


def _check_rerun(job: Job, rerun: Collection[str]) -> None:
    for name in rerun:
        if name not in job.tasks:
            raise UsageError(f"--rerun {name}: there is no such task. {did_you_mean(name, job.tasks)}".rstrip())


def _check_only(job: Job, only: Collection[str]) -> None:
    """`only` leaves out what a task needs, so what it reads from there would be missing."""
    if isinstance(only, str):
        raise UsageError(f"only is a list of task names: write only=[{only!r}]")
    for name in only:
        if name not in job.tasks:
            raise UsageError(f"--only {name}: there is no such task. {did_you_mean(name, job.tasks)}".rstrip())
    selected = job.model_copy(update={"tasks": {name: job.tasks[name] for name in only}})
    if missing := [name for name in data_references(selected) if name not in only]:
        more = " ".join(f"--only {name}" for name in missing)
        raise UsageError(f"--only leaves out {', '.join(missing)}, whose data is used. Add {more}")


def _sized(job: Job) -> dict[str, PoolPlan]:
    usable = cpus.usable_cpus()
    found = {}
    for name, pool in job.used_pools().items():
        mode = "executor" if pool.executor else str(pool.mode)
        workers = 1 if mode == "serial" else cpus.worker_count(pool.workers, threads=MODES[mode].threads, cpus=usable)
        found[name] = PoolPlan(spec=pool, mode=mode, workers=workers)
    return found
