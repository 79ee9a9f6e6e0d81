"""A job and what its caller wants, made ready to run: everything that can be refused is refused here, before anything starts."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from jobrunner import compiled, cpus, jobfile, trust
from jobrunner.bind import data_references
from jobrunner.errors import UsageError
from jobrunner.jobfile import JobFile
from jobrunner.kinds import MODES, MOST_WORKERS, THREADED, pool_of
from jobrunner.structs import field, struct
from jobrunner.typed import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jobrunner.jobfile.params import Given
    from jobrunner.selection import Wanted
    from jobrunner.spec import Job, Mode, StartMethod

Durability = Literal["process", "disk"]


@struct
class Options:
    """What a caller decides about one run. `workers` and `mode` stand in place of those of the job, not of named pools."""

    params: Mapping[str, object] = field(default_factory=dict)
    workers: int | None = None
    mode: Mode | None = None
    only: Sequence[str] = ()
    """These tasks, and not what they need. `start_from`, `until` and `skip` select tasks too: see `selection`."""
    start_from: Sequence[str] = ()
    until: Sequence[str] = ()
    skip: Sequence[str] = ()
    force: bool = False
    """Run what the cache says is up to date."""
    params_file: str | os.PathLike[str] | None = None
    """A YAML or JSON file with values of parameters; `params` stand above it, variables JOBRUNNER_PARAM_NAME below."""
    fail_fast: bool | None = None
    resume: bool | str = False
    """Go on with the run of this id; True: with the last run of the job, if that is unfinished."""
    retry_failed: bool = False
    """Of a resumed run: run again what has failed."""
    rerun: Sequence[str] = ()
    """Of a resumed run: tasks that run again whatever is recorded of them."""
    durability: Durability = "disk"
    """What the journal outlives: the death of this process, or a loss of power too."""

    @property
    def wanted(self) -> Wanted:
        """Which tasks are selected."""
        from jobrunner.selection import Wanted

        return Wanted(only=self.only, start_from=self.start_from, until=self.until, skip=self.skip)

    def recordable(self) -> dict[str, Any]:
        """What a resume must ask for again, besides parameters."""
        wanted: dict[str, Any] = {"workers": self.workers, "mode": self.mode, "fail_fast": self.fail_fast}
        wanted |= {name: list(getattr(self, name)) for name in ("only", "start_from", "until", "skip")}
        return {name: value for name, value in (wanted | {"force": self.force or None}).items() if value not in (None, [])}


@struct
class PoolPlan:
    """One pool with its worker count decided for this machine."""

    mode: str
    workers: int
    executor: str | None = None
    max_tasks_per_worker: int | None = None
    start_method: StartMethod | None = None
    preload: tuple[str, ...] = ()
    """Targets whose modules are imported once for all its workers."""


@struct
class Prepared:
    """A job that nothing can be said against any more: its parameters have values, its pools sizes."""

    file: JobFile
    job: Job
    params: dict[str, Any]
    pools: dict[str, PoolPlan]
    options: Options
    only: tuple[str, ...]
    """The selected tasks in declared order; empty where all are."""
    given: dict[str, Any]
    """The parameters that were given a value, wherever that came from, with it."""

    @property
    def folder(self) -> Path:
        """Where the job file is: what its relative paths count from."""
        return self.file.path.parent

    @property
    def at_most_once(self) -> list[str]:
        """The tasks that may run at most once."""
        return [name for name, task in self.job.tasks.items() if task.at_most_once]


def prepare(path: str | os.PathLike[str], options: Options) -> Prepared:
    """Everything that can be refused, before anything is made or started."""
    file = _read(path, options)
    trust.refuse_unsafe_file(file.path, "the job file", imports=_imports(file.job))
    for included in file.includes:
        trust.refuse_unsafe_file(included.path, "the included file")
    _check_pool(options)
    only = _selected(file.job, options)
    _check_rerun(file.job, options.rerun)
    changes: dict[str, Any] = {"workers": options.workers, "mode": options.mode, "fail_fast": options.fail_fast}
    job = file.job.model_copy(update={key: value for key, value in changes.items() if value is not None})
    if not file.is_compiled:
        _check_changed(job, options)
    values, given = _parameters(job, options, file.path.parent)
    return Prepared(file=file, job=job, params=values, pools=_sized(job), options=options, only=only, given=given)


def _read(path: str | os.PathLike[str], options: Options) -> JobFile:
    """The job file; as it was compiled only where nothing that was checked then is changed now.

    Much depends on the mode. Of the workers of a job only one check asks: a serial job has no more than one.
    """
    if options.mode is not None:
        return jobfile.read(path)
    file = compiled.read(path)
    is_refused = file.is_compiled and file.job.mode == "serial" and options.workers not in (None, 1)
    return jobfile.read(path) if is_refused else file


def _selected(job: Job, options: Options) -> tuple[str, ...]:
    """The tasks that are selected; none where all are."""
    if not (options.only or options.start_from or options.until or options.skip):
        return ()
    from jobrunner.selection import select

    return select(job, options.wanted, data_references)


def _parameters(job: Job, options: Options, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of all parameters, and of those that are given."""
    cwd = _current_folder()
    if not (job.params or options.params or options.params_file is not None):  # most jobs have none
        return {}, {}
    from jobrunner.jobfile import params

    found = _given(job, options, cwd)
    values = params.resolve(job, found, folder=folder)
    return values, {name: values[name] for name in found}


def _given(job: Job, options: Options, cwd: Path) -> dict[str, Given]:
    """The values that parameters are given, by their callers' precedence. A run that is resumed keeps those it had."""
    from jobrunner.jobfile import given

    if isinstance(options.resume, str):
        return given.from_call(options.params, cwd=cwd, source="the run that is resumed")
    from_file = {} if options.params_file is None else given.from_file(job, options.params_file)
    return {
        **given.from_environment(job, os.environ, cwd=cwd),
        **from_file,
        **given.from_call(options.params, cwd=cwd, source="--set"),
    }


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise UsageError(f"the current directory cannot be used ({error.strerror}): change to one that exists") from None


def _check_pool(options: Options) -> None:
    if options.workers is not None and (type(options.workers) is not int or not 1 <= options.workers <= MOST_WORKERS):
        raise UsageError(f"--workers {options.workers}: give a whole number from 1 to {MOST_WORKERS}")
    if options.mode is not None and options.mode not in MODES:
        raise UsageError(f"--mode {options.mode}: modes are {', '.join(MODES)}")
    if options.mode == "serial" and options.workers not in (None, 1):
        raise UsageError("--mode serial runs one at a time: leave --workers out")


def _check_changed(job: Job, options: Options) -> None:
    """What was right in the mode of the file can be wrong in another: threads share one environment and one folder."""
    if options.mode is None and options.workers is None:
        return
    from jobrunner.jobfile import checks
    from jobrunner.jobfile.document import dotted

    if findings := list(checks.find(job, dotted)):
        option = "--workers" if options.mode is None else f"--mode {options.mode}"
        told = (f"{option}: {dotted(finding.path)}: {finding.message}. {finding.hint}".rstrip() for finding in findings)
        raise UsageError("\n".join(told))


def _imports(job: Job) -> bool:
    return any(task.target is not None for task in job.tasks.values())


def _check_rerun(job: Job, rerun: Collection[str]) -> None:
    for name in rerun:
        if name not in job.tasks:
            from jobrunner.hints import one_of

            raise UsageError(f"--rerun {name}: there is no such task. {one_of(name, job.tasks)}".rstrip())


def _targets(job: Job, pool: str) -> tuple[str, ...]:
    """What is called in this pool, each once."""
    calls = {task.target: None for name, task in job.tasks.items() if task.target is not None and pool_of(job, name) == pool}
    return tuple(calls)


def _sized(job: Job) -> dict[str, PoolPlan]:
    usable = cpus.usable_cpus()
    found = {}
    for name, pool in job.used_pools().items():
        mode = "executor" if pool.executor else str(pool.mode)
        workers = 1 if mode == "serial" else cpus.worker_count(pool.workers, threads=mode in THREADED, cpus=usable)
        found[name] = PoolPlan(
            mode=mode,
            workers=workers,
            executor=pool.executor,
            max_tasks_per_worker=pool.max_tasks_per_worker,
            start_method=pool.start_method,
            preload=_targets(job, name) if pool.preload else (),
        )
    return found
