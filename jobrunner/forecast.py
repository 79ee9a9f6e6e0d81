"""What a resume will do, found out without doing it: the plan is played through with what is recorded, and nothing else."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jobrunner import lock, rundir
from jobrunner.bind import Binder, data_references
from jobrunner.errors import ExpressionError, UsageError
from jobrunner.events import RunFinished
from jobrunner.journal import last_record, replay
from jobrunner.masking import REPLACEMENT
from jobrunner.parts import is_of, may_go_on, nothing_left
from jobrunner.plan import Attempt, Phase, Plan, Skip
from jobrunner.prepare import Options, Prepared, prepare
from jobrunner.recall import NO_LIMIT, binder_of, env_file_of, keeping, recalling, unlimited
from jobrunner.recorded import Recorded
from jobrunner.spec import Concurrency, Job
from jobrunner.structs import replace, struct
from jobrunner.work import Outcome, Result


@struct
class TaskForecast:
    """What becomes of one task: instances that stay `recorded`, that run, of these `lost` in flight; or what it waits for."""

    task: str
    recorded: Counter[str]
    runs: int = 0
    lost: int = 0
    changed: int = 0
    waits_for: tuple[str, ...] = ()
    skipped: str = ""


@struct
class Forecast:
    """What a resume of one run will do."""

    run_id: str
    job: str
    attempt: int
    tasks: tuple[TaskForecast, ...]


def find_run(state: Path, what: str | None, *, also_failed: bool = False) -> rundir.RunDir:
    """The run that `what` means: a run's id, its beginning, or its directory; a job's name or file, then the last run of it.

    None is the last run of all that was stopped or killed, or (`also_failed`) that did not succeed. Raises UsageError where
    there is none.
    """
    if what is None:
        return _newest(state, also_failed=also_failed)
    if (found := rundir.find(state, os.path.basename(os.path.normpath(what)))) is not None:
        return found
    if not what.endswith((".yaml", ".yml")) and what in rundir.jobs(state) and (last := next(rundir.runs(state, what), None)):
        return last
    if not os.path.exists(what):
        raise UsageError(f"{what} is neither a run, a job that has run, nor a job file. Runs lie in {state}")
    from jobrunner.jobfile import read

    job = read(what).job.name
    newest = next(rundir.runs(state, job), None)
    if newest is None:
        raise UsageError(f"there is no run of {job} in {state}")
    return newest


def _newest(state: Path, *, also_failed: bool) -> rundir.RunDir:
    newest = [run for job in rundir.jobs(state) if (run := next(rundir.runs(state, job), None)) is not None]
    over = ("succeeded",) if also_failed else ("succeeded", "failed")
    for run in sorted(newest, key=lambda run: run.id, reverse=True):
        last = last_record(run.journal)
        if last is not None and not (last["event"] == RunFinished.NAME and last["outcome"] in over):
            return run
    if also_failed:
        raise UsageError(f"the last run of every job in {state} has succeeded; name a run or a job file")
    how = "name a run or a job file, or add --retry-failed to go on with one that failed"
    raise UsageError(f"no job's last run in {state} was stopped or killed; {how}")


def refuse_running(state: Path, job: str) -> None:
    """Raise BusyError while the job runs: what is not on record yet would look lost."""
    claim = lock.claim(state, job, Concurrency(), on_busy=lambda holder, group: None)
    if claim is not None:
        claim.close()


def prepare_resume(directory: rundir.RunDir, options: Options) -> tuple[Prepared, Recorded]:
    """The job of a run as its file is now, with what its caller asked for then, and what is recorded of it."""
    recorded = Recorded.of(replay(directory.journal).records, retry_failed=options.retry_failed, rerun=options.rerun)
    if not recorded.started:
        raise UsageError(f"run {directory.id} had not begun: start the job anew")
    if not may_go_on(recorded, options):
        raise UsageError(nothing_left(directory, recorded))
    file, asked = recorded.started["file"], dict(recorded.started.get("options", {}))
    _refuse_masked(directory, file, asked.get("params", {}))
    if not os.path.exists(file):
        raise UsageError(f"{file} is gone: put it back (the run's copy is {directory.path}/job.yaml)")
    prepared = prepare(file, replace(options, resume=directory.id, params=asked.pop("params", {}), **asked))
    return prepared, recorded


def _refuse_masked(directory: rundir.RunDir, file: str, params: Mapping[str, object]) -> None:
    """What held a secret is not on record, and its mask would be another value."""
    masked = [name for name, value in params.items() if REPLACEMENT.decode() in str(value)]
    if masked:
        given = " ".join(f"--set {name}=…" for name in masked)
        raise UsageError(
            f"run {directory.id} was given a secret in {', '.join(masked)}, which is not on record: jobrunner run --resume "
            f"{file} {given} goes on with it"
        )


def of_last_run(prepared: Prepared, state: Path) -> Forecast | None:
    """What `run --resume` will do; None where there is no run to go on with, so that it starts one."""
    directory = next(rundir.runs(state, prepared.job.name), None)
    if directory is None:
        return None
    recorded = Recorded.of(replay(directory.journal).records)
    return (
        forecast(prepared, recorded, directory) if is_of(recorded, prepared) and may_go_on(recorded, prepared.options) else None
    )


def forecast(prepared: Prepared, recorded: Recorded, directory: rundir.RunDir) -> Forecast:
    """Play the plan through. `recorded` is used up."""
    started_at, env_file = recorded.started["ts"], env_file_of(prepared)
    binder = binder_of(prepared, directory, recorded, started_at=started_at, secrets={}, env_file=env_file)
    keeps = keeping(prepared.job)
    lost = recorded.lost(prepared.at_most_once)
    for ending in lost:
        recorded.has_ended(ending)
    used = data_references(prepared.job)
    plan = Plan(
        unlimited(prepared.job),
        pools=dict.fromkeys(prepared.pools, NO_LIMIT),
        expand=binder.items,
        decide=binder.decide,
        only=prepared.only,
        keeps=lambda name: name in used,
        tries=recorded.tries,
    )
    recall = recalling(prepared, directory, recorded, plan, keeps)
    found = {name: TaskForecast(task=name, recorded=Counter()) for name in plan.states}
    were_lost = {(ending.task, ending.item) for ending in lost if ending.outcome is not Outcome.UNKNOWN}
    for attempt in plan.take(0.0):
        before = found[attempt.task]
        result = _recalled(binder, recall, plan, attempt)
        if result is not None and result.outcome is Outcome.SKIPPED:
            plan.apply(attempt, result, 0.0, recorded=True)
        elif result is None:
            found[attempt.task] = _will_run(before, attempt, were_lost, recorded)
        else:
            before.recorded[str(result.outcome)] += 1
            plan.apply(attempt, result, 0.0, recorded=True)
    return _told(prepared, directory, recorded, plan, found)


def _recalled(binder: Binder, recall: Callable[[Attempt, str], Result | None], plan: Plan, attempt: Attempt) -> Result | None:
    """What an attempt comes to without running: as it has ended before, or skipped by its condition. None where it runs."""
    if attempt.refused is not None:
        return None
    try:
        work = binder.work(plan, attempt, needed=False)
    except ExpressionError:
        return None
    if isinstance(work, Skip):
        return Result(id=attempt.id, outcome=Outcome.SKIPPED)
    return recall(attempt, binder.digest(attempt, work))


def _will_run(before: TaskForecast, attempt: Attempt, lost: set[tuple[str, str | None]], recorded: Recorded) -> TaskForecast:
    key = attempt.task, attempt.key
    changed = recorded.has_succeeded(*key) and attempt.task not in recorded.rerun
    return replace(before, runs=before.runs + 1, lost=before.lost + (key in lost), changed=before.changed + changed)


def _told(
    prepared: Prepared, directory: rundir.RunDir, recorded: Recorded, plan: Plan, found: dict[str, TaskForecast]
) -> Forecast:
    for skipped in plan.take_skipped():
        if skipped.reason is Skip.NEEDS:
            found[skipped.task] = replace(found[skipped.task], skipped=f"needs {skipped.cause}, {skipped.cause_outcome}")
        elif skipped.reason is Skip.CONDITION:
            found[skipped.task] = replace(found[skipped.task], skipped="its condition is false")
    for name, state in plan.states.items():
        if state is Phase.WAITING:
            if (kept := _stays(prepared.job, recorded, name)) is not None:
                found[name].recorded[kept] += 1
                continue
            needs = [need for need in prepared.job.tasks[name].needs if isinstance(plan.states.get(need), Phase)]
            found[name] = replace(found[name], waits_for=tuple(needs) or ("all others",))
    return Forecast(run_id=directory.id, job=prepared.job.name, attempt=recorded.parts + 1, tasks=tuple(found.values()))


def _stays(job: Job, recorded: Recorded, name: str) -> str | None:
    """How a task that may run at most once has ended: that counts whatever runs before it now."""
    if not job.tasks[name].at_most_once:
        return None
    ending = recorded.find(name, None, "", at_most_once=True)
    return None if ending is None else str(ending.outcome)


def text(forecast: Forecast) -> str:
    """The forecast for people."""
    lines = [f"resume {forecast.run_id} of {forecast.job}, attempt {forecast.attempt}"]
    width = max(len(each.task) for each in forecast.tasks)
    return "\n".join(lines + [f"  {each.task:<{width}}  {_described(each)}" for each in forecast.tasks])


def _described(each: TaskForecast) -> str:
    if each.skipped:
        return f"skipped: {each.skipped}"
    if each.waits_for:
        return f"runs after {_names(each.waits_for)}"
    facts = [f"{count} recorded as {outcome.replace('_', ' ')}" for outcome, count in each.recorded.items()]
    if each.runs:
        why = [f"{number} {word}" for number, word in ((each.lost, "lost in flight"), (each.changed, "changed")) if number]
        facts.append(f"{each.runs} to run" + (f" ({', '.join(why)})" if why else ""))
    return ", ".join(facts) or "nothing to do"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)
