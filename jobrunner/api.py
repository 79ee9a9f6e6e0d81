"""jobrunner from Python: load a job file, run it, get a typed result. The command line is a thin layer over this.

read ─▶ prepare (parameters, pools: everything that can be refused) ─▶ run (plan, executors, engine) ─▶ RunResult
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from jobrunner import cpus, rundir, signals
from jobrunner.bind import Binder, Run, data_references
from jobrunner.engine import Engine, Lane, Tally
from jobrunner.errors import UsageError
from jobrunner.events import RunFinished, RunStarted, Sink, Stream, timestamp
from jobrunner.executors.commands import Commands
from jobrunner.executors.pool import HostPool, PoolSettings, start_method
from jobrunner.hints import did_you_mean
from jobrunner.host import MODES
from jobrunner.jobfile import JobFile, checks, load, params, read
from jobrunner.jobfile.document import dotted
from jobrunner.loop import Loop
from jobrunner.plan import Plan
from jobrunner.sinks.output import file_sink
from jobrunner.spec import MOST_WORKERS, Job, Mode, Pool, Stop
from jobrunner.work import Outcome, StopRule

__all__ = ["Options", "Prepared", "RunResult", "TaskResult", "load", "prepare", "run", "run_prepared"]

_TIMED_OUT = 124  # as timeout(1) answers
_SIGNALLED = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller decides about one run. `workers` and `mode` stand in place of those of the job, not of named pools."""

    params: Mapping[str, object] = field(default_factory=dict)
    workers: int | None = None
    mode: Mode | None = None
    only: Sequence[str] = ()
    fail_fast: bool | None = None


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
    only: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """How a task ended. `value` is what its target returned; for a fan-out the list of values in the order of the items.

    A value is None where there is none: the attempt did not succeed, returned nothing, or is a command.
    """

    outcome: Outcome
    value: Any
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended. `exit_code` is that of the command line; `duration` (wall) and `task_time` (sum) are seconds."""

    run_id: str
    run_dir: Path
    outcome: str
    exit_code: int
    duration: float
    task_time: float
    tasks: dict[str, TaskResult]

    @property
    def ok(self) -> bool:
        """Every task succeeded, or its failure was allowed."""
        return self.exit_code == 0


def run(
    path: str | os.PathLike[str],
    *,
    params: Mapping[str, object] | None = None,
    workers: int | None = None,
    mode: Mode | None = None,
    only: Sequence[str] = (),
    fail_fast: bool | None = None,
) -> RunResult:
    """Run a job file and wait for its end; the arguments are the fields of Options.

    Nothing is printed and no log is written: read the result. Raises JobFileError or UsageError where the job cannot run at
    all, StateError where the state directory cannot be used; what tasks do is in the result, never an exception.
    """
    options = Options(params=params or {}, workers=workers, mode=mode, only=only, fail_fast=fail_fast)
    return run_prepared(prepare(path, options), keep_results=True)


def prepare(path: str | os.PathLike[str], options: Options) -> Prepared:
    """Everything that can be refused, before anything is made or started."""
    file = read(path)
    _check_pool(options)
    _check_only(file.job, options.only)
    changes: dict[str, Any] = {"workers": options.workers, "mode": options.mode, "fail_fast": options.fail_fast}
    job = file.job.model_copy(update={key: value for key, value in changes.items() if value is not None})
    _check_changed(job, options)
    values = params.resolve(job, options.params, folder=file.path.parent, cwd=_current_folder())
    return Prepared(file=file, job=job, params=values, pools=_sized(job), only=tuple(options.only))


def run_prepared(
    prepared: Prepared,
    *,
    sinks: Sequence[Sink] = (),
    keep_results: bool = False,
) -> RunResult:
    """Run what was prepared. What tasks print is kept in the run directory; `sinks` get every event as well."""
    now, job = time.time(), prepared.job
    directory = _directory(prepared, now)
    stream = Stream(run_id=directory.id, job=job.name, sinks=[file_sink(directory.keep), *sinks], now=time.time)
    binder = _binder(prepared, directory, now)
    used = data_references(job)
    plan = _plan(prepared, binder, directory, keeps=lambda name: keep_results or name in used)
    with contextlib.closing(Loop()) as loop:
        engine = _engine(prepared, plan, binder, used, stream, loop)
        with signals.watched(loop, engine.interrupt):
            stream.emit(_started(prepared, directory, plan))
            tally = engine.run()
            outcome, exit_code = _verdict(plan, tally)
            stream.emit(_finished(plan, tally, outcome, exit_code))
    return RunResult(
        run_id=directory.id,
        run_dir=directory.path,
        outcome=outcome,
        exit_code=exit_code,
        duration=tally.duration,
        task_time=tally.task_time,
        tasks=_results(plan, job) if keep_results else {},
    )


# --- the parts of a run ------------------------------------------------------------------------------------------------------


def _directory(prepared: Prepared, now: float) -> rundir.RunDir:
    state, run_id = rundir.state_dir(os.environ), rundir.new_run_id(now)
    return rundir.create(state, job=prepared.job.name, run_id=run_id, job_file=prepared.file.source)


def _binder(prepared: Prepared, directory: rundir.RunDir, now: float) -> Binder:
    folder = str(prepared.file.path.parent)
    facts = Run(id=directory.id, dir=str(directory.path), started_at=timestamp(now), folder=folder)
    return Binder(prepared.job, params=prepared.params, environ=dict(os.environ), run=facts)


def _plan(prepared: Prepared, binder: Binder, directory: rundir.RunDir, keeps: Callable[[str], bool]) -> Plan:
    slots = {name: pool.workers for name, pool in prepared.pools.items()}
    return Plan(prepared.job, pools=slots, expand=binder.items, only=prepared.only, keeps=keeps, seed=hash(directory.id))


def _engine(
    prepared: Prepared, plan: Plan, binder: Binder, used: Mapping[str, Collection[str]], stream: Stream, loop: Loop
) -> Engine:
    job, folder = prepared.job, str(prepared.file.path.parent)
    return Engine(
        plan,
        {name: _lane(name, pool, folder, binder.job_env) for name, pool in prepared.pools.items()},
        bind=lambda plan, attempt: binder.work(plan, attempt, needed=not _DATA.isdisjoint(used.get(attempt.task, ()))),
        rule_of=lambda name: _stop_rule(job.tasks[name].stop),
        emit=stream.emit,
        loop=loop,
    )


def _started(prepared: Prepared, directory: rundir.RunDir, plan: Plan) -> RunStarted:
    return RunStarted(
        file=str(prepared.file.path),
        run_dir=str(directory.path),
        pid=os.getpid(),
        tasks=len(plan.states),
        params=prepared.params,
    )


def _finished(plan: Plan, tally: Tally, outcome: str, exit_code: int) -> RunFinished:
    outcomes = Counter(str(state) for state in plan.states.values())
    return RunFinished(
        outcome=outcome, exit_code=exit_code, duration=tally.duration, task_time=tally.task_time, outcomes=dict(outcomes)
    )


_DATA = frozenset({"result", "results", "stdout"})
"""What is kept of an attempt only where an expression asks for it."""


def _verdict(plan: Plan, tally: Tally) -> tuple[str, int]:
    if tally.signal is not None:
        return "interrupted", _SIGNALLED + tally.signal
    if plan.has_timed_out:
        return "timed_out", _TIMED_OUT
    return ("failed", 1) if plan.failed else ("succeeded", 0)


def _results(plan: Plan, job: Job) -> dict[str, TaskResult]:
    found = {}
    for name in plan.states:
        results, outcome = plan.results(name), plan.outcome(name)
        values = [None if result is None else result.json() for result in results]
        errors = tuple(result.error.message for result in results if result is not None and result.error)
        value = values if job.tasks[name].foreach is not None else values[0] if values else None
        found[name] = TaskResult(outcome=outcome or Outcome.UNKNOWN, value=value, errors=errors)
    return found


# --- what is refused, and what is decided, before a run -----------------------------------------------------------------------


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


def _lane(name: str, pool: PoolPlan, folder: str, env: dict[str, str]) -> Lane:
    settings = PoolSettings(
        name=name,
        mode=pool.mode,
        workers=pool.workers,
        executor=pool.spec.executor or "",
        max_tasks_per_worker=pool.spec.max_tasks_per_worker,
        start_method=start_method(pool.spec.start_method),
        path=[folder],
        env=env,
        folder=folder,
    )
    calls, commands = HostPool(settings), Commands(pool=name, slots=pool.workers)
    return Lane(mode=pool.mode, workers=pool.workers, calls=calls, commands=commands, executor=pool.spec.executor)


def _stop_rule(stop: Stop) -> StopRule:
    return StopRule(signal=signal.Signals[f"SIG{stop.signal}"], grace=stop.grace)
