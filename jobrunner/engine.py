"""The one loop: take what can start, start it, wait, apply what has come back, tell what happened.

        plan.take ─▶ bind ─▶ recall? cached? ─▶ executor.start        selector ─▶ executor ─report─▶ plan.apply ─▶ event
          ▲                             executor.stop ◀─ plan.take_stops (deadlines, signals, fail_fast)
          └── commit: what has happened is on record before anything that depends on it starts

One thread, one blocking call (Loop.turn). Executors never call back into the engine in the middle of a step: what they
report waits in the inbox until the step is over.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from jobrunner import events, work
from jobrunner.errors import ExpressionError, JobrunnerError
from jobrunner.events import Event
from jobrunner.flights import Flight, Flights, Group, data_of, leftover_event, skipped_event, success_of, worker_event
from jobrunner.lanes import CACHE_LANE, Executor, Lane, Memory
from jobrunner.loop import Loop
from jobrunner.plan import Attempt, Plan, Skip, Span
from jobrunner.stream import Ran
from jobrunner.structs import replace, struct
from jobrunner.typed import Any
from jobrunner.work import Began, Call, Calls, Command, Error, Outcome, Report, Result, Said, StopRule

_LAST_PATIENCE = 2.0
"""Seconds for killed workers to be gone where the engine itself has come to grief."""

_NO_ROOM_MADE = frozenset({Said, work.WorkerStarted})
"""Reports that let nothing start, beside begins."""

_SUCCEEDED = Outcome.SUCCEEDED  # a look into an enum takes 70 ns


@struct
class Tally:
    """What a run came to: wall time and the sum over its attempts, in seconds, and the signal that stopped it, if one did."""

    duration: float
    task_time: float
    signal: int | None = None


class Engine:
    """Runs a plan to its end. `bind` gives what an attempt runs, `rule_of` how a task is stopped, `emit` takes the events.

    With `emit_all` that takes them instead, all that is told at once, and among them attempts as `Ran`. With `bind_all`, which
    gives what the attempts of a Span run and the digest of each, items may be handed out together.
    """

    def __init__(
        self,
        plan: Plan,
        lanes: Mapping[str, Lane],
        *,
        bind: Callable[[Plan, Attempt], Call | Command | Skip],
        rule_of: Callable[[str], StopRule],
        emit: Callable[[Event], None],
        loop: Loop,
        memory: Memory | None = None,
        emit_all: Callable[[Sequence[Event | Ran]], None] | None = None,
        bind_all: Callable[[Plan, Span], tuple[Calls, Sequence[str]]] | None = None,
    ) -> None:
        self._plan, self._lanes, self._loop = plan, lanes, loop
        self._events: list[Event | Ran] = []
        """What has happened and was not told yet: what can start at once starts first."""
        self._emit, self._emit_one, self._emit_all = self._events.append, emit, emit_all
        self._is_urgent = self._is_syncing = False
        self._bind, self._bind_all, self._rule_of, self._memory = bind, bind_all, rule_of, memory or Memory()
        self._cache, self._recall = self._memory.cache, self._memory.recall
        self._tells_runs = emit_all is not None and self._cache is None
        may = self._tells_runs and self._recall is None and bind_all is not None
        self._start_all = {name: lane.start_all for name, lane in lanes.items() if may and lane.start_all}
        """Of the pools in which items may be handed out together."""
        self._digest, self._keeps = self._memory.digest, self._memory.keeps
        self._now = loop.clock()
        """When what is at hand was taken up."""
        self._inbox: deque[Report] = deque()
        self._handlers = self._by_kind()
        self._flights = Flights(plan)
        self._abandoned: dict[int, Flight] = {}
        self._task_time = 0.0
        self._signal: int | None = None
        self._reduced: set[str] = set()

    def run(self) -> Tally:
        """Run until every task has its outcome and every worker was joined."""
        started = self._loop.clock()
        try:
            self._open()
            self._plan.begin(started)
            while not self._plan.done:
                if self._is_urgent:
                    self._commit(False)
                self._fill()
                has_room = self._drain()
                self._commit(False)
                if has_room:  # by what came back at once: fill again, but look at signals meanwhile
                    self._loop.turn(self._loop.clock())
                    self._drain()  # what has ended by now is not to be stopped
                elif not self._plan.done:
                    self._wait()
            self._report_skipped()
            self._commit(False)  # workers may take their time to join
            self._close()
            self._tell()
        except BaseException:  # our bug, a sink's, or no journal any more: whatever it is, no task may outlive the engine
            self._abort()
            raise
        return Tally(duration=round(self._loop.clock() - started, 6), task_time=round(self._task_time, 6), signal=self._signal)

    def report(self, report: Report) -> None:
        """What an executor, or one who serves them all, has to say: applied when the step at hand is over."""
        self._inbox.append(report)

    def interrupt(self, number: int) -> None:
        """A signal asks the run to stop: nothing new starts and what runs is stopped. INT after any of them kills at once.

        TERM and HUP are often sent more than once for one wish: by timeout(1), and by systemd to every process of a unit.
        """
        if self._signal is not None or self._plan.done:
            if number == signal.SIGINT:
                self._plan.cancel(finals=True)
                self._kill()
            return
        self._signal = number
        name = signal.Signals(number).name
        self._emit(events.RunInterrupted(reason=f"stopped by {name}", signal=name))
        self._plan.cancel()

    def record_first(self) -> None:
        """Nothing starts before all that has happened is on record, and who keeps the record has been asked whether to go on."""
        self._is_urgent = True

    def take_back(self) -> None:
        """What was handed over and has not begun is taken back: it starts only if the plan hands it out again."""
        for lane in self._lanes.values():
            lane.take_back()

    def settle(self) -> None:
        """Apply what was reported after the last step: at the end, when all executors have closed."""
        self._drain()
        self._tell()

    def dump(self) -> None:
        """Tell what runs, for how long, and where the engine and its worker processes stand."""
        now = self._loop.clock()
        running = {each.name: round(now - each.began_at, 6) for each in self._flights.begun()}
        import traceback  # only for who asks

        stack = "".join(traceback.format_stack(sys._getframe(1)))
        self._emit(events.RunStacks(process="engine", pid=os.getpid(), stack=stack, running=running))
        for lane in self._lanes.values():
            lane.calls.dump()

    def _abort(self) -> None:
        """Kill everything, and reap it as far as that is soon done."""
        self._kill()
        until = self._loop.clock() + _LAST_PATIENCE
        with contextlib.suppress(Exception):
            for each in self._executors:
                each.close()
            while not all(each.closed for each in self._executors):
                if self._loop.clock() >= until:
                    break
                self._loop.turn(until)

    def _kill(self) -> None:
        for each in self._executors:
            each.kill()

    @property
    def _executors(self) -> list[Executor[Call] | Executor[Command]]:
        return [each for lane in self._lanes.values() for each in (lane.calls, lane.commands)]

    # The steps of the loop.

    def _commit(self, sync: bool) -> None:
        self._tell()
        self._is_urgent = False
        self._memory.commit(sync)
        if sync:
            self._is_syncing = False
            self._plan.recorded()

    def _record_before(self, attempt: Attempt | Span, *, is_held: bool) -> None:
        """What has let it start is on record before it does. What is held goes out after `_settle`."""
        if not self._plan.is_ahead_of_record(attempt):
            if not is_held:
                self._settle()
        elif is_held:
            self._tell()
            self._memory.commit_ahead()
            self._is_syncing = True
            self._plan.recorded()
        else:
            self._commit(True)

    def _settle(self) -> None:
        if self._is_syncing:
            self._is_syncing = False
            self._memory.settle()

    def _tell(self) -> None:
        """In the order in which it happened."""
        if self._emit_all is not None:
            self._emit_all(self._events)
        else:
            for event in self._events:
                self._emit_one(event)  # type: ignore[arg-type]  # there is nothing else
        self._events.clear()

    def _open(self) -> None:
        for name, lane in self._lanes.items():
            for executor in (lane.calls, lane.commands):
                executor.open(self._loop, self._inbox.append)
            if self._tells_runs:
                lane.tell_runs()
            self._emit(events.PoolOpened(pool=name, mode=lane.mode, workers=lane.workers, executor=lane.executor))

    def _fill(self) -> None:
        self._stop_due()  # first: where the time of the job is over, that may let the final tasks start
        for name, lane in self._lanes.items():
            self._plan.allow_ahead(name, lane.prepare())
        self._now = self._loop.clock()
        for taken in self._plan.take_together(self._now, self._start_all.keys()):
            if isinstance(taken, Span):
                self._start_together(taken)
            else:
                self._start(taken)
        self._settle()
        for lane in self._lanes.values():
            lane.flush()
        self._report_skipped()

    def _start(self, attempt: Attempt) -> None:
        lane = self._lanes[attempt.pool]
        flight = Flight(attempt, "command" if attempt.is_command else lane.mode)
        self._flights.add(flight)
        try:
            bound = None if attempt.refused else self._bind(self._plan, attempt)
        except ExpressionError as error:
            attempt.refused, bound = Error(type="ExpressionError", message=str(error)), None
        if isinstance(bound, (Call, Command)):
            flight.digest = self._digest(attempt, bound)
            if self._recall is not None and self._is_recalled(flight):
                return
            if self._cache is None or not self._is_looked_up(flight, bound):
                self._launch(flight, bound, lane)
        elif bound is None:  # it cannot even be started: a start and a failure, so that the log tells as much as for any other
            self._inbox.append(Result(id=attempt.id, outcome=Outcome.FAILED, error=attempt.refused))
        else:
            self._skip(attempt, bound, Result(id=attempt.id, outcome=Outcome.SKIPPED))

    def _start_together(self, span: Span) -> None:
        """As `_start` of each; one by one where not all can be bound."""
        assert self._bind_all is not None
        lane = self._lanes[span.pool]
        try:
            calls, digests = self._bind_all(self._plan, span)
        except ExpressionError:
            for each in span.ids:
                self._start(self._plan.attempt(each))
            return
        self._flights.add_group(Group(span, lane.mode, digests))
        if self._is_syncing or self._plan.is_ahead_of_record(span):
            self._record_before(span, is_held=lane.holds())
        if self._plan.is_cancelled and self._plan.is_unwanted(span):
            self._inbox.extend(work.Returned(id=each) for each in span.ids)
        else:
            self._start_all[span.pool](calls)

    def _launch(self, flight: Flight, bound: Call | Command, lane: Lane) -> None:
        """Hand it over, after what has let it start is on record; what may run only once, after that it is about to."""
        attempt = flight.attempt
        if attempt.at_most_once:
            digest = flight.digest
            self._emit(events.TaskSubmitted(task=attempt.task, item=attempt.key, attempt=attempt.number, digest=digest))
            self._commit(True)
        if self._is_syncing or self._plan.is_ahead_of_record(attempt):
            self._record_before(attempt, is_held=isinstance(bound, Call) and lane.holds())
        is_unwanted = self._plan.is_cancelled and self._plan.is_unwanted(attempt)  # the record has no room for more, say
        if is_unwanted and not attempt.at_most_once:
            self._inbox.append(work.Returned(id=attempt.id))
        elif isinstance(bound, Call):
            lane.calls.start(bound)
        else:
            lane.commands.start(bound)

    def _skip(self, attempt: Attempt, reason: Skip, result: Result) -> None:
        """It does not run now: this is what it comes to."""
        flight = self._flights.take(attempt.id)
        ended = self._plan.apply(attempt, result, self._loop.clock(), recorded=True)
        outcome = None if reason is Skip.CONDITION else ended.outcome
        self._emit(events.TaskSkipped(task=attempt.task, item=attempt.key, reason=reason, outcome=outcome))
        if self._cache is not None and ended.outcome is _SUCCEEDED:
            self._cache.ended(attempt, flight.digest)

    def _is_recalled(self, flight: Flight) -> bool:
        """Whether it has ended in an earlier part of the run."""
        result = None if self._recall is None else self._recall(flight.attempt, flight.digest)
        if result is not None:
            self._skip(flight.attempt, Skip.RECORDED, result)
        return result is not None

    def _is_looked_up(self, flight: Flight, bound: Call | Command) -> bool:
        """Whether it may be cached: somebody looks, and it waits."""
        attempt = flight.attempt
        look = None if self._cache is None else self._cache.check(attempt, bound)
        if look is not None:
            now = self._loop.clock()
            flight.bound, flight.began_at = bound, now
            self._plan.began(attempt, now)  # a look that hangs is over with the timeout too
            self._lanes[CACHE_LANE].calls.start(look)
        return look is not None

    def _on_cache(self, answer: Result) -> None:
        """Somebody has looked whether an attempt is cached, or has taken down what it has made."""
        flight, cache = self._flights.get(-answer.id), self._cache
        if flight is None or cache is None:
            return
        attempt = flight.attempt
        if flight.succeeded is not None:
            attempt.stopping = None  # it had succeeded before anybody wished to stop it
            note = "; ".join(filter(None, (flight.succeeded.note, cache.noted(answer))))
            self._flights.pop(attempt.id)
            self._end(flight, replace(flight.succeeded, note=note))
            return
        if attempt.stopping is not None:
            self._inbox.append(Result(id=attempt.id, outcome=attempt.stopping))
            return
        verdict = cache.judge(attempt, answer)
        if verdict.fresh and verdict.result is not None:
            self._skip(attempt, Skip.CACHED, verdict.result)
        elif flight.bound is not None:
            flight.because = verdict.causes
            self._launch(flight, flight.bound, self._lanes[attempt.pool])

    def _stop_due(self) -> None:
        timed_out = self._plan.has_timed_out
        stops = self._plan.take_stops(self._loop.clock())
        if self._plan.has_timed_out and not timed_out:
            self._emit(events.RunInterrupted(reason="the job's timeout is over"))
        for attempt in stops:
            lane, rule = self._lanes[attempt.pool], self._rule_of(attempt.task)
            rule = replace(rule, with_stack=attempt.stopping is Outcome.TIMED_OUT)
            lane.calls.stop(attempt.id, rule)
            lane.commands.stop(attempt.id, rule)
            if CACHE_LANE in self._lanes:
                self._lanes[CACHE_LANE].calls.stop(-attempt.id, rule)

    def _wait(self) -> None:
        until = self._plan.next_wake()
        if until is None and not self._plan.in_flight:
            raise JobrunnerError("stuck: nothing runs and nothing can start [this is a bug]")
        if rest := min((lane.rest() for lane in self._lanes.values()), default=0.0):
            self._loop.rest(rest)
        self._loop.turn(until)
        self._drain()

    def _drain(self) -> bool:
        """Apply all that was reported, as of one moment. Whether something among it may have made room.

        That an attempt has begun waits for what comes next: mostly that is its end, and both are one step.
        """
        inbox, handlers, has_room = self._inbox, self._handlers, False
        while inbox:
            reports, self._now = tuple(inbox), self._loop.clock()
            inbox.clear()
            began: Began | None = None
            for report in reports:
                if began is not None:
                    if isinstance(report, Result) and (row := success_of(began, report)) and self._ran(began.pid, row):
                        began, has_room = None, True
                        continue
                    self._on_began(began)
                    began = None
                if isinstance(report, Began):
                    began = report
                else:
                    handlers[type(report)](report)
                    has_room = has_room or type(report) not in _NO_ROOM_MADE
            if began is not None:
                self._on_began(began)
        return has_room

    def _ran(self, pid: int, row: work.Success) -> bool:
        """An attempt has begun and succeeded: whether there is nothing more to do or to tell.

        Then it is done, with the same effect as `_on_began` and `_on_result` would have.
        """
        flight = self._flights.get(row[0])
        if flight is None or not flight.is_plain or not self._tells_runs or self._keeps(flight.attempt.task):
            return False
        self._flights.take(row[0])
        attempt, plan = flight.attempt, self._plan
        ran = flight.ran(pid, row)
        self._task_time += ran.duration
        plan.succeeded(attempt, work.result_of(row) if plan.keeps(attempt.task) else None)
        self._events.append(ran)
        if plan.skips:
            self._report_skipped()
        return True

    def _have_run(self, group: Group, pid: int, rows: Sequence[work.Success]) -> None:
        """As `_ran`, of attempts of one group."""
        self._flights.take_all(rows)
        self._plan.succeeded_together(group.span, [row[0] for row in rows])
        self._task_time += sum(row[3] for row in rows)
        self._events.extend(group.ran(pid, rows))
        if self._plan.skips:
            self._report_skipped()

    def _close(self) -> None:
        """Join every worker: all pools end at the same time, so that slow ones are not waited for one after the other."""
        for each in self._executors:
            each.close()
        for name, lane in self._lanes.items():
            while not (lane.calls.closed and lane.commands.closed):
                self._loop.turn()
                self._drain()
            self._drain()
            self._emit(events.PoolClosed(pool=name))

    # What executors report.

    def _by_kind(self) -> dict[type, Callable[[Any], None]]:
        """What is done with each kind of report."""
        return {
            Result: self._on_result,
            Began: self._on_began,
            work.Runs: self._on_runs,
            Said: self._on_said,
            work.Returned: self._on_returned,
            work.Exhausted: self._on_exhausted,
            work.Leftover: self._on_leftover,
            work.StackTaken: self._on_stack,
            work.WorkerStarted: self._on_worker,
            work.WorkerDied: self._on_worker,
            work.WorkerJoined: self._on_worker,
        }

    def _on_runs(self, runs: work.Runs) -> None:
        for group, rows in self._flights.by_group(runs.rows):
            if group is not None and not self._plan.is_cancelled:
                self._have_run(group, runs.pid, rows)
                continue
            for row in rows:
                if not self._ran(runs.pid, row):
                    began, result = runs.reports(row)
                    self._on_began(began)
                    self._on_result(result)

    def _on_returned(self, report: work.Returned) -> None:
        if report.id < 0:
            self._on_cache(Result(id=report.id, outcome=Outcome.FAILED))
        else:
            self._plan.give_back(self._flights.take(report.id).attempt)

    def _on_stack(self, report: work.StackTaken) -> None:
        self._emit(events.RunStacks(process=report.worker, pid=report.pid, stack=report.stack))

    def _on_worker(self, report: work.WorkerStarted | work.WorkerDied | work.WorkerJoined) -> None:
        self._emit(worker_event(report, self._lanes[report.pool].mode))

    def _on_exhausted(self, report: work.Exhausted) -> None:
        """The system has no room: the pool goes on with fewer. Where nothing at all can start, the attempt fails for it."""
        if report.id < 0:
            self._on_cache(Result(id=report.id, outcome=Outcome.FAILED))
            return
        flight = self._flights.take(report.id)
        if not self._plan.hold_back(flight.attempt, self._loop.clock()):
            error = Error(type="OSError", message=f"could not start: {report.reason}")
            self._flights.add(flight)
            self._on_result(Result(id=report.id, outcome=Outcome.FAILED, error=error))
            return
        pool = flight.attempt.pool
        if pool not in self._reduced:
            self._reduced.add(pool)
            self._emit(events.PoolReduced(pool=pool, workers=self._flights.count(pool), reason=report.reason))

    def _on_began(self, began: Began) -> None:
        flight = self._flights.get(began.id)
        if flight is not None:
            self._begin(flight, began)

    def _begin(self, flight: Flight, began: Began) -> None:
        flight.began, flight.began_at = began, self._now
        if flight.attempt.timeout is not None:
            self._plan.began(flight.attempt, self._now)
        self._emit(flight.started(began))

    def _on_said(self, said: Said) -> None:
        flight = self._flights.get(said.id) or self._abandoned.get(said.id)
        if flight is None:
            self._emit(events.TaskOutput(task="", item=None, attempt=0, pool=said.pool, data=said.data))
            return
        self._emit(flight.said(said))

    def _on_result(self, result: Result) -> None:
        flight = self._flights.pop(result.id)
        if flight is None:
            self._on_unexpected(result)
            return
        if flight.began is None:  # it never got as far as a worker
            self._begin(flight, Began(id=result.id, worker=flight.attempt.pool, pid=0))
        if result.abandoned:
            self._abandoned[result.id] = flight
        elif flight.attempt.stopping is not None and flight.is_success_all_the_same(result):
            flight.attempt.stopping = None
        if self._cache is None or not self._is_taken_down(flight, result):
            self._end(flight, result)

    def _on_unexpected(self, result: Result) -> None:
        """Nobody waits for it: it is about the cache, or late."""
        if result.id < 0:
            self._on_cache(result)
        elif (flight := self._abandoned.pop(result.id, None)) is not None:
            attempt = flight.attempt
            self._emit(events.TaskLateResult(task=attempt.task, item=attempt.key, attempt=attempt.number, outcome=result.outcome))

    def _is_taken_down(self, flight: Flight, result: Result) -> bool:
        """Whether the cache still has to see what it has made, before anybody can change that: until then it has not ended."""
        cache, attempt = self._cache, flight.attempt
        if cache is None or flight.bound is None or result.outcome is not _SUCCEEDED or attempt.stopping is not None:
            return False
        call = cache.store(attempt, flight.bound, result)
        if call is not None:
            flight.succeeded = result
            self._flights.add(flight)
            self._lanes[CACHE_LANE].calls.start(call)
        return call is not None

    def _end(self, flight: Flight, result: Result) -> None:
        """An attempt has come to its end: told to the plan first, then to all who listen."""
        attempt = flight.attempt
        if is_kept := self._keeps(attempt.task):
            result = self._memory.spill(result)
        duration = result.duration or round(self._now - flight.began_at, 6)  # nobody measured the time of one that was lost
        self._task_time += duration
        ended = self._plan.apply(attempt, result, self._now)
        event = flight.finished(result, ended, duration, self._memory.most_output)
        if is_kept and ended.retry_at is None:
            event.data = data_of(result)
        self._emit(event)
        if ended.outcome is not _SUCCEEDED:
            self._is_urgent = True
        elif self._cache is not None:
            self._cache.ended(attempt, flight.digest)
        if ended.retry_at is not None:
            delay = round(max(0.0, ended.retry_at - self._loop.clock()), 6)
            self._emit(events.TaskRetrying(task=attempt.task, item=attempt.key, attempt=attempt.number + 1, delay=delay))
        if self._plan.skips:
            self._report_skipped()

    def _on_leftover(self, report: work.Leftover) -> None:
        self._emit(leftover_event(report, self._flights.get(report.id)))

    def _report_skipped(self) -> None:
        for skipped in self._plan.take_skipped():
            self._emit(skipped_event(skipped))
