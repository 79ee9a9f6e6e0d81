"""What a run and a forecast of it share: what tasks are given, and what is recalled instead of being run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from math import inf

from jobrunner import credentials, rundir
from jobrunner.bind import Binder, Run, data_references
from jobrunner.plan import Attempt, Plan
from jobrunner.prepare import Prepared
from jobrunner.recorded import Recorded
from jobrunner.structs import replace
from jobrunner.typed import TYPE_CHECKING
from jobrunner.work import Outcome, Result

if TYPE_CHECKING:
    from jobrunner.spec import Job

DATA = frozenset({"result", "results", "stdout", "outputs", "failures"})
"""What is kept of an attempt only where an expression asks for it."""
_SHARED = frozenset({"thread", "thread_pool", "executor"})
"""Modes in which calls share one environment."""
NO_LIMIT = 1 << 40
"""Workers of a pool in which nothing waits, as nothing runs."""


def env_file_of(prepared: Prepared) -> dict[str, str]:
    """The variables of the job's `env_file`, if it has one."""
    name = prepared.job.env_file
    return {} if name is None else credentials.env_file(prepared.folder / os.path.expanduser(name))


def keeping(job: Job) -> Callable[[str], bool]:
    """Whether what a task gives is kept: because an expression asks for it."""
    return waited_for(data_references(job)).__contains__


def waited_for(used: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The tasks of whose data, as `data_references` has it, somebody asks for more than how they ended."""
    return frozenset(name for name, values in used.items() if not DATA.isdisjoint(values))


def recalling(
    prepared: Prepared, directory: rundir.RunDir, recorded: Recorded, plan: Plan, keeps: Callable[[str], bool]
) -> Callable[[Attempt, str], Result | None]:
    """How an attempt has ended in an earlier part of the run; None where it is to run.

    What is recorded counts only where nothing that it needs has run again, and where all is kept that others will ask for. Of
    what may run at most once the first matters no more, and without the second its end is as good as unknown.
    """
    tasks, finals = prepared.job.tasks, prepared.job.finals
    others = [name for name in tasks if name not in finals]

    def latest(needs: Iterable[str]) -> float:
        """The place of the last record of these tasks, which have ended; infinite where one has run in this part."""
        return max((inf if plan.has_run(need) else recorded.last_ran(need) for need in needs), default=0)

    @cache
    def latest_of_others() -> float:
        return latest(others)

    @lru_cache(maxsize=16)  # the items of a fan-out come one after the other
    def latest_before(name: str) -> float:
        return max(latest(tasks[name].needs), latest_of_others() if name in finals else 0)

    def recall(attempt: Attempt, digest: str) -> Result | None:
        task = tasks[attempt.task]
        ending = recorded.find(attempt.task, attempt.key, digest, at_most_once=task.at_most_once)
        if ending is None:
            return None
        is_void = latest_before(attempt.task) > ending.place
        if is_void and not ending.stays(task.at_most_once):
            return None
        is_asked_for = keeps(attempt.task) and (ending.is_success or task.continue_on_error)
        if is_asked_for and not ending.has_data_in(directory.path) and ending.outcome is not Outcome.UNKNOWN:
            return replace(ending, outcome=Outcome.UNKNOWN).result(attempt.id, directory.path) if task.at_most_once else None
        return ending.result(attempt.id, directory.path)

    return recall


def binder_of(
    prepared: Prepared,
    directory: rundir.RunDir,
    recorded: Recorded,
    *,
    started_at: str,
    secrets: Mapping[str, str],
    env_file: Mapping[str, str],
) -> Binder:
    """What gives tasks their values in this run."""
    job, folder = prepared.job, str(prepared.folder)
    hidden = credentials.variables(job)
    facts = Run(id=directory.id, dir=str(directory.path), started_at=started_at, folder=folder, attempt=recorded.parts + 1)
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    return Binder(
        job,
        params=prepared.params,
        environ=environ,
        run=facts,
        env_file=env_file,
        secrets=secrets,
        masked=_masked(secrets),
        shared=[name for name, pool in prepared.pools.items() if pool.mode in _SHARED],
    )


def _masked(secrets: Mapping[str, str]) -> Callable[[str], str]:
    if not secrets:
        return str
    from jobrunner.masking import Mask

    return Mask(secrets.values()).text


def unlimited(job: Job) -> Job:
    """The job without what keeps instances waiting for each other: all are looked at, though none ends."""
    free: dict[str, object] = {"max_parallel": None, "limits": []}
    tasks = {name: task.model_copy(update=free) for name, task in job.tasks.items()}
    return job.model_copy(update={"tasks": tasks, "finals": {name: tasks[name] for name in job.finals}})
