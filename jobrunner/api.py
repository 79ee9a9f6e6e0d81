"""jobrunner from Python: load a job file, run it, get a typed result. The command line is a thin layer over this.

read ─▶ prepare (parameters, pools: everything that can be refused) ─▶ session (plan, executors, engine) ─▶ RunResult
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobrunner import session
from jobrunner.outlet import Outlet
from jobrunner.plan import Plan
from jobrunner.prepare import Durability, Options, Prepared, prepare
from jobrunner.stream import Sink
from jobrunner.structs import struct
from jobrunner.typed import TYPE_CHECKING, Any
from jobrunner.work import Outcome

if TYPE_CHECKING:
    from jobrunner.jobfile import load
    from jobrunner.spec import Job, Mode

__all__ = ["Options", "Prepared", "RunResult", "TaskResult", "load", "prepare", "run", "run_prepared"]


def __getattr__(name: str) -> Any:
    if name != "load":
        raise AttributeError(f"module 'jobrunner.api' has no attribute {name!r}")
    from jobrunner.jobfile import load  # it loads what a run of a compiled job does without

    return load


@struct
class TaskResult:
    """How a task ended. `value` is what its target returned; for a fan-out the list of values in the order of the items.

    A value is None where there is none: the attempt did not succeed, returned nothing, or is a command.
    """

    outcome: Outcome
    value: Any
    errors: tuple[str, ...] = ()


@struct
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
    start_from: Sequence[str] = (),
    until: Sequence[str] = (),
    skip: Sequence[str] = (),
    force: bool = False,
    params_file: str | os.PathLike[str] | None = None,
    fail_fast: bool | None = None,
    resume: bool = False,
    durability: Durability = "disk",
) -> RunResult:
    """Run a job file and wait for its end; the arguments are the fields of Options.

    Nothing is printed and no log is written: read the result. Raises JobFileError or UsageError where the job cannot run at
    all, BusyError where it is running already, StateError where the state directory cannot be used; what tasks do is in the
    result, never an exception.
    """
    options = Options(
        params=params or {},
        workers=workers,
        mode=mode,
        only=only,
        start_from=start_from,
        until=until,
        skip=skip,
        force=force,
        params_file=params_file,
        fail_fast=fail_fast,
        resume=resume,
        durability=durability,
    )
    return run_prepared(prepare(path, options), keep_results=True)


def run_prepared(
    prepared: Prepared,
    *,
    sinks: Sequence[Sink] = (),
    outlets: Sequence[Outlet] = (),
    keep_results: bool = False,
    has_process: bool = False,
) -> RunResult:
    """Run what was prepared. What tasks print is kept in the run directory; `sinks` get every event as well.

    `outlets` are what sinks write to: the run keeps them going, and never waits for them. `has_process` says that nothing else is
    done in this process until it ends: what there is by then is not looked through for garbage any more.
    """
    finished = session.run(prepared, sinks=sinks, outlets=outlets, keep_results=keep_results, has_process=has_process)
    if isinstance(finished, session.Busy):
        return _not_run()
    return RunResult(
        run_id=finished.directory.id,
        run_dir=finished.directory.path,
        outcome=finished.outcome,
        exit_code=finished.exit_code,
        duration=finished.tally.duration,
        task_time=finished.tally.task_time,
        tasks=_results(finished.plan, prepared.job) if keep_results else {},
    )


def _not_run() -> RunResult:
    """Another run of the job is under way, and the job file says that this one is then left out."""
    return RunResult(run_id="", run_dir=Path(), outcome="skipped", exit_code=0, duration=0.0, task_time=0.0, tasks={})


def _results(plan: Plan, job: Job) -> dict[str, TaskResult]:
    found = {}
    for name in plan.states:
        results, outcome = plan.results(name), plan.outcome(name)
        values = [None if result is None else result.json() for result in results]
        errors = tuple(result.error.message for result in results if result is not None and result.error)
        value = values if job.tasks[name].has_instances else values[0] if values else None
        found[name] = TaskResult(outcome=outcome or Outcome.UNKNOWN, value=value, errors=errors)
    return found
