"""Which instances would run now, and why: the plan is played through with what is cached and recorded, and nothing is run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from jobrunner import fingerprint, rundir
from jobrunner.bind import data_references
from jobrunner.cache import Cache, Verdict, directory_of
from jobrunner.errors import ExpressionError, JobrunnerError
from jobrunner.items import Items
from jobrunner.journal import replay
from jobrunner.plan import Attempt, Plan, Skip
from jobrunner.prepare import Prepared
from jobrunner.recall import NO_LIMIT, binder_of, env_file_of, keeping, unlimited
from jobrunner.recorded import Recorded
from jobrunner.spec import Job
from jobrunner.stream import timestamp
from jobrunner.structs import struct
from jobrunner.work import Call, Command, Outcome, Result


@struct
class Instance:
    """One instance of a task: whether it would be skipped as cached, None where only the run will tell; and else why."""

    task: str
    key: str | None
    fresh: bool | None
    causes: tuple[str, ...] = ()


def causes(prepared: Prepared) -> dict[str, list[str]]:
    """For each selected task with a cache why it would run; empty where all of it would be skipped.

    Tasks of which only the run will tell are left out.
    """
    found: dict[str, list[str]] = {}
    unknown = set()
    for each in instances(prepared, prepared.only):
        if each.fresh is None:
            unknown.add(each.task)
        told = found.setdefault(each.task, [])
        told += [cause for cause in each.causes if cause not in told and len(told) <= fingerprint.MOST_CAUSES]
    return {name: told for name, told in found.items() if name not in unknown}


def of_task(prepared: Prepared, name: str) -> Iterator[Instance]:
    """The instances of one task with a cache."""
    only = () if name in prepared.job.finals else tuple(_with_needs(prepared.job, name))
    return (each for each in instances(prepared, only) if each.task == name)


def instances(prepared: Prepared, only: tuple[str, ...]) -> Iterator[Instance]:
    """Every instance of tasks with a cache, in the order in which they could run; of the tasks in `only`, or of all."""
    return _Play(prepared, only).instances()


def _with_needs(job: Job, name: str) -> list[str]:
    found, pending = dict.fromkeys([name]), [name]
    while pending:
        for need in job.tasks[pending.pop()].needs:
            if need not in found:
                found[need] = None
                pending.append(need)
    return list(found)


class _Play:
    """A run in which every task succeeds at once: with what is cached or recorded of it, else with nothing anybody knows."""

    def __init__(self, prepared: Prepared, only: tuple[str, ...]) -> None:
        self._job = prepared.job
        state = rundir.state_dir(os.environ)
        next_run = rundir.RunDir(id="next", job=self._job.name, path=state / self._job.name / "next")
        now, env_file = timestamp(time.time()), env_file_of(prepared)
        self._binder = binder_of(prepared, next_run, Recorded(), started_at=now, secrets={}, env_file=env_file)
        self._keeps = keeping(self._job)
        self._recorded, self._recorded_in = _last_run(state, self._job.name)
        self._reads = {name: _reads(self._job, name) for name in self._job.tasks}
        self._unknown: set[str] = set()
        self._plan = Plan(
            unlimited(self._job),
            pools=dict.fromkeys(prepared.pools, NO_LIMIT),
            expand=self._items,
            decide=self._decide,
            only=only,
            keeps=lambda name: True,
        )
        self._cache = Cache(
            self._job,
            self._binder,
            directory_of(state / self._job.name, prepared.file.path),
            folder=prepared.folder,
            force=lambda task: prepared.options.force,
            now=time.time,
            keeps=self._keeps,
        )
        self._cache.attach(self._plan)

    def instances(self) -> Iterator[Instance]:
        for attempt in self._plan.take(0.0):
            found, result = self._step(attempt)
            self._plan.apply(attempt, result, 0.0, recorded=True)
            if found is not None:
                yield found

    # What nobody knows yet is one instance, of which that is said.

    def _items(self, plan: Plan, name: str) -> Items:
        return Items([None]) if self._waits_for(name) else self._binder.items(plan, name)

    def _decide(self, plan: Plan, name: str) -> bool:
        return bool(self._waits_for(name)) or self._binder.decide(plan, name)

    def _waits_for(self, name: str) -> list[str]:
        return sorted(self._reads[name] & self._unknown)

    def _step(self, attempt: Attempt) -> tuple[Instance | None, Result]:
        """What is said of an instance of a task with a cache, and what it comes to."""
        succeeded = Result(id=attempt.id, outcome=Outcome.SUCCEEDED)
        if waits_for := self._waits_for(attempt.task):
            self._unknown.add(attempt.task)
            why = f"depends on the result of {', '.join(waits_for)}, which is known only when it has run"
            return self._told(attempt, None, why), succeeded
        work = self._work(attempt)
        match work:
            case Skip():
                return None, Result(id=attempt.id, outcome=Outcome.SKIPPED)
            case str():
                self._unknown.add(attempt.task)
                return self._told(attempt, False, f"it cannot start: {work}"), succeeded
        verdict, digest = self._verdict(attempt, work), self._binder.digest(attempt, work)
        self._cache.ended(attempt, digest)
        result = verdict.result or self._recalled(attempt, digest)
        if result is None:
            self._unknown.add(attempt.task)
        return self._told(attempt, verdict.fresh, *verdict.causes), result or succeeded

    def _work(self, attempt: Attempt) -> Call | Command | Skip | str:
        """What it would run, or why it cannot."""
        if attempt.refused is not None:
            return attempt.refused.message
        try:
            return self._binder.work(self._plan, attempt, needed=False)
        except ExpressionError as error:
            return str(error)

    def _verdict(self, attempt: Attempt, work: Call | Command) -> Verdict:
        look = self._cache.check(attempt, work)
        if look is None:
            return Verdict(fresh=False)
        return self._cache.verdict(attempt, fingerprint.compare(**look.kwargs))

    def _recalled(self, attempt: Attempt, digest: str) -> Result | None:
        """What it gave in the last run, where it was the same."""
        ending = self._recorded.find(attempt.task, attempt.key, digest)
        if ending is None or not ending.is_success:
            return None
        if self._keeps(attempt.task) and not ending.has_data_in(self._recorded_in):
            return None
        return ending.result(attempt.id, self._recorded_in)

    def _told(self, attempt: Attempt, fresh: bool | None, *causes: str) -> Instance | None:
        if self._job.tasks[attempt.task].cache is None:
            return None
        key = None if fresh is None else attempt.key
        return Instance(task=attempt.task, key=key, fresh=fresh, causes=causes)


def _last_run(state: Path, job: str) -> tuple[Recorded, Path]:
    """What is on record of the last run, as far as there is one that can be read, and where its values are."""
    newest = next(rundir.runs(state, job), None)
    if newest is None:
        return Recorded(), state
    try:
        return Recorded.of(replay(newest.journal).records), newest.path
    except (OSError, JobrunnerError):
        return Recorded(), newest.path


def _reads(job: Job, name: str) -> frozenset[str]:
    """The tasks whose data an expression of this one uses."""
    alone = job.model_copy(update={"tasks": {name: job.tasks[name]}})
    return frozenset(task for task, values in data_references(alone).items() if values != {"outcome"})
