"""One run from its lock to its last record: everything is wired together here.

claim the job ─▶ sweep what a killed run left ─▶ journal: made, or read again ─▶ plan, executors, engine ─▶ run.finished
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from jobrunner import compiled, credentials, events, lifeline, lock, rundir, signals, system, trust
from jobrunner.bind import Binder, data_references
from jobrunner.captured import KEPT_OUTPUT, Captured
from jobrunner.engine import Engine, Tally
from jobrunner.errors import JobrunnerError
from jobrunner.events import Event
from jobrunner.executors.commandpool import CommandPool
from jobrunner.executors.reaper import Reaper
from jobrunner.journal import JournalFull
from jobrunner.kinds import Limit
from jobrunner.lanes import CACHE_LANE, Lane, Memory
from jobrunner.loop import Loop, Timer
from jobrunner.outlet import Outlet
from jobrunner.parts import Part, begin, marked
from jobrunner.plan import Plan
from jobrunner.precedence import Precedence
from jobrunner.prepare import PoolPlan, Prepared
from jobrunner.processes import COOKIE
from jobrunner.recall import binder_of, env_file_of, recalling, waited_for
from jobrunner.sinks.output import file_sink
from jobrunner.spilled import Spill
from jobrunner.stream import Sink, Stamped, Stream, timestamp
from jobrunner.structs import replace, struct
from jobrunner.typed import TYPE_CHECKING, TypeAlias
from jobrunner.work import Call, StopRule

if TYPE_CHECKING:
    from jobrunner.cache import Cache
    from jobrunner.executors.pool import HostPool
    from jobrunner.plan.packing import Shortage
    from jobrunner.slots import HostLimits, Slots
    from jobrunner.spec import Job, Stop

Emit: TypeAlias = Callable[[Event], None]

_TIMED_OUT = 124  # as timeout(1) answers
_SIGNALLED = 128
_LONGEST_UNSYNCED = 1.0
"""Seconds after which a record is made to outlast a loss of power, where nothing asks for it earlier."""
_PATIENCE = 1.0
"""Seconds for a log that stalls to take its last lines."""
_LOOKING = PoolPlan(mode="process_pool", workers=2)
"""Where is looked whether what a task depends on has changed."""


@struct
class Finished:
    """A run that has come to its end."""

    directory: rundir.RunDir
    plan: Plan
    outcome: str
    exit_code: int
    tally: Tally


@struct
class Busy:
    """The job is not run, as its `concurrency` says: another run is under way."""


def run(
    prepared: Prepared, *, sinks: Sequence[Sink], outlets: Sequence[Outlet], keep_results: bool, has_process: bool
) -> Finished | Busy:
    """Run what was prepared, or go on with it. Raises what keeps it from running at all, and StateError for a lost journal.

    `has_process` says that nothing else is done in this process until it ends.
    """
    job, state = prepared.job, rundir.state_dir(os.environ)
    rundir.job_dir(state, job.name)

    def on_busy(holder: lock.Holder, group: str) -> None:
        _tell_busy(prepared, holder, group, sinks, outlets)

    claim = lock.claim(state, job.name, job.concurrency, on_busy=on_busy, file=prepared.file.path, pause=_pause)
    if claim is None:
        return Busy()
    with claim, _secrets(prepared) as secrets, _frozen(has_process) as freeze:
        env_file = env_file_of(prepared)
        part = begin(prepared, state)
        with contextlib.closing(part.journal), marked(part.directory.mark), _shared_slots(prepared, state) as slots:
            claim.tell(_holder(prepared, part))
            binder = binder_of(
                prepared, part.directory, part.recorded, started_at=part.started_at, secrets=secrets, env_file=env_file
            )
            with _uncollected(freeze):
                session = _Session(prepared, part, claim.fds, binder, secrets, sinks, outlets, keep_results, slots)
            return session.run()


@contextlib.contextmanager
def _frozen(has_process: bool) -> Iterator[Callable[[], None]]:
    """What sets all there is aside as no garbage, until the end of the run where the process is the caller's, who may let go of
    what a run has made. A caller who has set something aside keeps that, and the rest is looked through as ever."""
    if has_process:
        yield gc.freeze
    elif gc.get_freeze_count():
        yield lambda: None
    else:
        try:
            yield gc.freeze
        finally:
            gc.unfreeze()


@contextlib.contextmanager
def _uncollected(freeze: Callable[[], None]) -> Iterator[None]:
    """What is made inside lives as long as the run: looking for garbage among a hundred thousand tasks took 6 % of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        freeze()
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def _shared_slots(prepared: Prepared, state: Path) -> Iterator[Slots | None]:
    """The slots of limits whose scope is the host; None where the job has no such limit."""
    if not _shared_counts(prepared.job):
        yield None
        return
    from jobrunner.slots import Slots

    with contextlib.closing(Slots(state / ".limits", job=prepared.job.name)) as slots:
        yield slots


def _shared_counts(job: Job) -> dict[str, int]:
    return {name: rule.slots for name, rule in job.limits.items() if isinstance(rule, Limit) and rule.scope == "host"}


def _pause(seconds: float) -> None:
    """Let so much time pass; _GuardLost where our guard was killed meanwhile: nobody waits for this run any more."""
    line = lifeline.current()
    if line is None:
        time.sleep(seconds)
    elif select.select(line.fds, [], [], seconds)[0]:
        raise _GuardLost("the guard of this run was killed while it waited for another run: nothing ran")


def _tell_busy(prepared: Prepared, holder: lock.Holder, group: str, sinks: Sequence[Sink], outlets: Sequence[Outlet]) -> None:
    """In the log at once, for the wait may be long, and not in the journal: there is no run yet."""
    job = prepared.job
    busy = events.LockBusy(group=group, holder=holder.run_id, pid=holder.pid, on_conflict=job.concurrency.on_conflict)
    for sink in sinks:
        sink(Stamped(seq=0, ts=timestamp(time.time()), run_id="", job=job.name, event=busy))
    for outlet in outlets:
        outlet.flush()


@contextlib.contextmanager
def _secrets(prepared: Prepared) -> Iterator[dict[str, str]]:
    """The secrets that are asked for. While inside, what we start does not find them in the environment they came from."""
    job, wanted = prepared.job, credentials.wanted(prepared.job, prepared.only or prepared.job.tasks)
    found = credentials.read(job, prepared.folder, os.environ, wanted=wanted)
    hidden = {name: os.environ[name] for name in credentials.variables(job) if name in os.environ}
    for name in hidden:
        if lifeline.current() is None:
            del os.environ[name]
        else:
            system.scrub(name)
    try:
        yield found
    finally:
        os.environ.update(hidden)


def _holder(prepared: Prepared, part: Part) -> lock.Holder:
    line = lifeline.current()
    pid = os.getpid() if line is None else line.guard_pid
    return lock.Holder(
        pid=pid, run_id=part.directory.id, since=timestamp(time.time()), file=str(prepared.file.path), job=prepared.job.name
    )


# --- the run -------------------------------------------------------------------------------------------------------------------


def _masking(secrets: Mapping[str, str], emit: Emit) -> tuple[Emit, Callable[[bytes], bool]]:
    """What emits events without the secrets, and what tells whether a value holds one."""
    if not secrets:
        return emit, lambda _: False
    from jobrunner.masking import Mask, masked

    mask = Mask(secrets.values())
    return masked(mask, emit), mask.holds


def _spill_of(prepared: Prepared, part: Part, withhold: Callable[[bytes], bool]) -> Spill:
    """Where large values of this part of the run go."""
    directory, durable = part.directory.path / "values", prepared.options.durability == "disk"
    return Spill(directory, prefix=str(part.attempt), sync=durable, withhold=withhold)


class _GuardLost(JobrunnerError):
    """Our guard was killed: without it nobody would end our tasks if we were killed too."""


class _Session:
    """One part of a run: from its first event to its last."""

    def __init__(
        self,
        prepared: Prepared,
        part: Part,
        lock_fds: Sequence[int],
        binder: Binder,
        secrets: Mapping[str, str],
        sinks: Sequence[Sink],
        outlets: Sequence[Outlet],
        keep_results: bool,
        slots: Slots | None,
    ) -> None:
        self._prepared, self._part, self._outlets, self._binder = prepared, part, outlets, binder
        self._lock_fds, self._lifeline = lock_fds, lifeline.current()
        self._precedence = Precedence(prepared, part.directory.path.parent)
        self._captured = Captured(part.directory.path / "output", self._degraded)
        self._stream = Stream(
            run_id=part.directory.id,
            job=prepared.job.name,
            first=[part.journal, file_sink(self._captured.keep)],
            sinks=[*self._precedence.sinks, *sinks],
            now=time.time,
            seq=part.journal.seq,
        )
        self._emit, withhold = _masking(secrets, self._stream.add)
        self._hides = bool(secrets)
        self._spill = _spill_of(prepared, part, withhold)
        self._used = data_references(prepared.job)
        self._waited = waited_for(self._used)
        self._keeps = (frozenset(prepared.job.tasks) if keep_results else self._waited).__contains__
        self._plan = Plan(
            prepared.job,
            pools={name: pool.workers for name, pool in prepared.pools.items()},
            expand=self._binder.items,
            decide=self._binder.decide,
            outside=None if slots is None else self._shared(slots),
            only=prepared.only,
            keeps=self._keeps if keep_results else self._used.__contains__,
            tries=part.recorded.tries if part.attempt > 1 else None,
            turns=self._precedence.turns(),
            arrange=self._precedence.arrange,
            packing=self._precedence.packing(self._tell_shortage),
            seed=hash(part.directory.id),
        )
        self._cache = self._caching(withhold)
        recall = recalling(prepared, part.directory, part.recorded, self._plan, self._keeps)
        self._recall = recall if part.attempt > 1 else None
        self._reaper = Reaper(inherits=self._lifeline is not None, run_id=part.directory.id, mark=str(part.directory.mark))
        self._sync_timer: Timer | None = None
        self._full: JournalFull | None = None
        self._keeping = compiled.keeping(prepared.file, part.directory.path.parent.parent)
        self._has_begun = self._has_lost_guard = False

    def _shared(self, slots: Slots) -> HostLimits:
        from jobrunner.slots import HostLimits

        return HostLimits(slots, _shared_counts(self._prepared.job), tell=self._tell_waiting)

    def _caching(self, withhold: Callable[[bytes], bool]) -> Cache | None:
        """What knows which tasks need not run; None where no task asks."""
        prepared = self._prepared
        if not any(prepared.job.tasks[name].cache for name in self._plan.tasks):
            return None
        from jobrunner.cache import Cache, directory_of

        directory = directory_of(self._part.directory.path.parent, prepared.file.path)
        for path in (directory.parent, directory):
            trust.make_directory(path)
        cache = Cache(
            prepared.job,
            self._binder,
            directory,
            folder=prepared.folder,
            force=lambda task: prepared.options.force or task in prepared.options.rerun,
            now=time.time,
            keeps=self._keeps,
            withhold=withhold,
        )
        cache.attach(self._plan)
        return cache

    def run(self) -> Finished:
        with contextlib.closing(Loop()) as loop:
            self._loop = loop
            engine = self._running = self._engine()
            with signals.watched(loop, lambda number: _on_signal(engine, number)), self._watched_guard():
                for outlet in self._outlets:
                    outlet.attach(loop, self._degraded)
                self._tell_beginning()
                loop.call_at(loop.clock(), self._keep_job)  # when the first tasks have been started: they need not wait for it
                try:
                    tally = engine.run()
                except _GuardLost as lost:
                    self._emit(events.RunInterrupted(reason=str(lost)))
                    self._commit(True)
                    raise
                finally:
                    self._reaper.close()
                engine.settle()
                return self._finish(tally)

    def _tell_beginning(self) -> None:
        """What came before, and that the run begins: on record, and synced by the engine before anything starts."""
        part, plan, prepared = self._part, self._plan, self._prepared
        place = {"file": str(prepared.file.path), "run_dir": str(part.directory.path), "pid": os.getpid()}
        if part.attempt == 1:
            options = {**prepared.options.recordable(), "params": prepared.given}
            self._emit(
                events.RunStarted(**place, tasks=len(plan.tasks), params=prepared.params, options=options)  # type: ignore[arg-type]
            )
        for note in part.notes:
            self._emit(note)
        if part.attempt > 1:
            lost = part.recorded.lost(prepared.at_most_once)
            for ending in lost:
                self._emit(ending)
                part.recorded.has_ended(ending)
            self._emit(
                events.RunResumed(
                    **place,  # type: ignore[arg-type]  # one dict of mixed values serves two events
                    tasks=len(plan.tasks),
                    attempt=part.attempt,
                    recorded=part.recorded.count,
                    in_flight=len(lost),
                )
            )
        self._commit(False)  # the engine syncs before it starts anything
        if self._lifeline is not None:
            self._lifeline.announce(str(part.directory.journal), self._lock_fds)
        self._has_begun = True

    def _keep_job(self) -> None:
        """A step of keeping what the job file came to; the next one when the loop has done what else there is to do."""
        if next(self._keeping, self) is not self:
            self._loop.call_at(self._loop.clock(), self._keep_job)

    def _finish(self, tally: Tally) -> Finished:
        """The last record, after all that can still happen has happened. A run without a record of it has not finished."""
        if self._full is not None:
            raise self._full
        self._stream.tell()  # what the log does not take counts, too
        for outlet in self._outlets:
            outlet.finish(_PATIENCE)
        self._captured.close()
        outcome, exit_code = _verdict(self._plan, tally)
        counts = Counter(str(state) for state in self._plan.states.values())
        self._emit(
            events.RunFinished(
                outcome=outcome, exit_code=exit_code, duration=tally.duration, task_time=tally.task_time, outcomes=dict(counts)
            )
        )
        self._commit(True)
        for outlet in self._outlets:
            outlet.finish(_PATIENCE)
        self._stream.tell()  # what was lost at the very end, to those who sum up
        self._precedence.keep(min(tally.duration, tally.task_time), by_way_of=self._part.directory.path)
        for _ in self._keeping:  # the run was shorter than that
            pass
        return Finished(directory=self._part.directory, plan=self._plan, outcome=outcome, exit_code=exit_code, tally=tally)

    def _commit(self, sync: bool, *, wait: bool = True) -> None:
        """Put on record what was emitted, then let the outputs go on; what nobody waits for is synced a little later.

        Without `wait` both only when that has been settled.
        """
        if wait:
            self._stream.tell()
        else:
            self._stream.record()
        sync = sync and not self._has_lost_guard  # a disk may be slow, and tasks run on meanwhile
        try:
            self._part.journal.commit(sync=sync, wait=wait)
        except JournalFull as full:
            self._run_out(full)
        if sync and self._sync_timer is not None:
            self._sync_timer.cancel()
            self._sync_timer = None
        elif not sync and self._sync_timer is None:
            self._sync_timer = self._loop.call_at(self._loop.clock() + _LONGEST_UNSYNCED, self._sync_late)
        if wait:
            self._flush()
        if self._has_lost_guard:
            self._has_lost_guard = False
            raise _GuardLost(
                f"the guard of the run was killed, so all was ended; go on: jobrunner resume {self._part.directory.id}"
            )

    def _settle(self) -> None:
        """What was committed without waiting is on record; the outputs go on while the disk is at it."""
        self._stream.tell()
        self._flush()
        self._part.journal.settle()

    def _flush(self) -> None:
        for outlet in self._outlets:
            outlet.flush()

    def _lose_guard(self) -> None:
        """Our guard was killed. What has ended by now is put on record; then `commit` ends the run."""
        self._has_lost_guard = True
        self._running.record_first()
        self._forget_guards()

    def _forget_guards(self) -> None:
        for watch in self._guard_watches:
            watch.close()

    def _sync_late(self) -> None:
        self._sync_timer = None
        self._commit(True)

    def _run_out(self, full: JournalFull) -> None:
        """The disk has room for the ends of what runs and no more: nothing new starts."""
        if not self._has_begun:
            raise full
        if self._full is None:
            self._full = full
            self._plan.cancel(stop=False, finals=True)
            self._running.take_back()
            self._emit(events.RunInterrupted(reason=str(full)))

    def _tell_waiting(self, limits: list[str], holders: list[str]) -> None:
        self._emit(events.LimitBusy(limits=limits, holders=holders))

    def _tell_shortage(self, short: Shortage) -> None:
        self._emit(
            events.LimitBusy(
                limits=["resources.memory"], holders=short.holders, task=short.task, wanted=short.wanted, used=short.used,
                usable=short.usable,
            )
        )  # fmt: skip

    def _degraded(self, output: str, reason: str, dropped: int) -> None:
        self._emit(events.LogDegraded(output=output, reason=reason, dropped=dropped))

    @contextlib.contextmanager
    def _watched_guard(self) -> Iterator[None]:
        if self._lifeline is None:
            yield
            return
        self._guard_watches = [self._loop.watch(fd, self._lose_guard) for fd in self._lifeline.fds]
        try:
            yield
        finally:
            self._forget_guards()

    def _engine(self) -> Engine:
        prepared, job, waited = self._prepared, self._prepared.job, self._waited
        env = {**self._binder.job_env, **self._binder.cookie}
        pools = prepared.pools if self._cache is None else {**prepared.pools, CACHE_LANE: _LOOKING}
        calling = {CACHE_LANE, *self._plan.calling}
        engine = Engine(
            self._plan,
            {name: _lane(name, pool, str(prepared.folder), env, self._reaper, name in calling) for name, pool in pools.items()},
            bind=lambda plan, attempt: self._binder.work(plan, attempt, attempt.task in waited),
            rule_of=lambda name: _stop_rule(job.tasks[name].stop),
            bind_all=self._binder.calls,
            emit=self._emit,
            emit_all=None if self._hides else self._stream.add_all,
            loop=self._loop,
            memory=Memory(
                commit=self._commit,
                commit_ahead=partial(self._commit, True, wait=False),
                settle=self._settle,
                digest=self._binder.digest,
                recall=self._recall,
                keeps=self._keeps,
                spill=self._spill.spill,
                cache=self._cache,
                most_output=KEPT_OUTPUT,
            ),
        )
        self._reaper.open(self._loop, engine.report)
        return engine


def _on_signal(engine: Engine, number: int) -> None:
    if number == signal.SIGUSR1:
        engine.dump()
    else:
        engine.interrupt(number)


def _lane(name: str, pool: PoolPlan, folder: str, env: Mapping[str, str], reaper: Reaper, has_calls: bool) -> Lane:
    calls = _hosts(name, pool, folder, env, reaper) if has_calls else _NoHosts()
    commands = CommandPool(pool=name, slots=pool.workers, reaper=reaper, cookie="" if has_calls else env[COOKIE])
    lane = Lane(mode=pool.mode, workers=pool.workers, calls=calls, commands=commands, executor=pool.executor)
    if name == CACHE_LANE:  # its calls are no attempts, which the plan could take back
        return lane
    if has_calls:
        lane = replace(lane, start_all=calls.together, holds=calls.holds, tell_runs=calls.tell_runs, rest=calls.rest)
        return replace(lane, prepare=calls.prepare, flush=calls.flush, take_back=calls.take_back)
    return replace(lane, prepare=commands.prepare, flush=commands.flush, take_back=commands.take_back)


def _hosts(name: str, pool: PoolPlan, folder: str, env: Mapping[str, str], reaper: Reaper) -> HostPool:
    from jobrunner.executors.pool import HostPool, PoolSettings, start_method

    settings = PoolSettings(
        name=name,
        mode=pool.mode,
        workers=pool.workers,
        executor=pool.executor or "",
        max_tasks_per_worker=pool.max_tasks_per_worker,
        start_method=start_method(pool.start_method),
        path=[folder],
        env=dict(env),
        folder=folder,
        preload=list(pool.preload),
        may_have_template=lifeline.current() is not None,
    )
    return HostPool(settings, reaper)


class _NoHosts:
    """The hosts of a pool that no target runs in: what it takes to have one is not even loaded."""

    slots, closed, together = 0, True, None

    def stop(self, *_: object) -> None:
        """There is nothing to stop, nor to open."""

    open = dump = kill = close = flush = take_back = tell_runs = stop

    def start(self, call: Call, /) -> None:
        raise AssertionError(f"{call.target} has no host to run in [this is a bug]")

    def prepare(self) -> int:
        return 0

    def holds(self) -> bool:
        return False

    def rest(self) -> float:
        return 0.0


def _stop_rule(stop: Stop) -> StopRule:
    return StopRule(signal=signal.Signals[f"SIG{stop.signal}"], grace=stop.grace)


def _verdict(plan: Plan, tally: Tally) -> tuple[str, int]:
    if tally.signal is not None:
        return "interrupted", _SIGNALLED + tally.signal
    if plan.has_timed_out:
        return "timed_out", _TIMED_OUT
    return ("failed", 1) if plan.failed else ("succeeded", 0)
