"""The one loop: take what can start, start it, wait, apply what has come back, tell what happened.

        plan.take ─▶ bind ─▶ executor.start        selector ─▶ executor ─report─▶ plan.apply ─▶ event
                             executor.stop ◀─ plan.take_stops (deadlines, signals, fail_fast)

One thread, one blocking call (Loop.turn). Executors never call back into the engine in the middle of a step: what they
report waits in the inbox until the step is over.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar, assert_never

from jobrunner import events, work
from jobrunner.errors import ExpressionError, JobrunnerError
from jobrunner.events import Event
from jobrunner.loop import Loop
from jobrunner.plan import Attempt, Ended, Plan
from jobrunner.work import Call, Command, Error, Outcome, Report, Result, StopRule

_TAIL_LINES = 10
_TAIL_BYTES = 4096


Work = TypeVar("Work", contravariant=True)


class Executor(Protocol[Work]):
    """What runs attempts: the hosts of one pool, or its commands. No method blocks or raises for a task's fault."""

    slots: int

    def open(self, loop: Loop, report: Callable[[Report], None]) -> None: ...
    def start(self, work: Work, /) -> None: ...
    def stop(self, attempt_id: int, rule: StopRule, /) -> None: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One pool as the engine runs it: an executor for its calls, one for its commands."""

    mode: str
    workers: int
    calls: Executor[Call]
    commands: Executor[Command]
    executor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a run came to: wall time and the sum over its attempts, in seconds, and the signal that stopped it, if one did."""

    duration: float
    task_time: float
    signal: int | None = None


@dataclass(slots=True)
class _Flight:
    """An attempt as the engine sees it: who runs it, and the last of what it printed."""

    attempt: Attempt
    mode: str
    began: work.Began | None = None
    began_at: float = 0.0
    tail: bytes = b""


class Engine:
    """Runs a plan to its end. `bind` gives what an attempt runs, `rule_of` how a task is stopped, `emit` takes the events."""

    def __init__(
        self,
        plan: Plan,
        lanes: Mapping[str, Lane],
        *,
        bind: Callable[[Plan, Attempt], Call | Command],
        rule_of: Callable[[str], StopRule],
        emit: Callable[[Event], None],
        loop: Loop,
    ) -> None:
        self._plan, self._lanes, self._emit, self._loop = plan, lanes, emit, loop
        self._bind, self._rule_of = bind, rule_of
        self._inbox: deque[Report] = deque()
        self._flights: dict[int, _Flight] = {}
        self._abandoned: dict[int, _Flight] = {}
        self._task_time = 0.0
        self._signal: int | None = None

    def run(self) -> Tally:
        """Run until every task has its outcome and every worker was joined."""
        started = self._loop.clock()
        try:
            self._open()
            self._plan.begin(started)
            while not self._plan.done:
                self._fill()
                if self._drain():  # what came back at once may have made room: fill again, but look at signals meanwhile
                    self._loop.turn(self._loop.clock())
                elif not self._plan.done:
                    self._wait()
            self._report_skipped()
            self._close()
        except BaseException:  # our bug or a sink's: whatever it is, no task may outlive the engine
            self._kill()
            raise
        return Tally(duration=self._loop.clock() - started, task_time=self._task_time, signal=self._signal)

    def interrupt(self, number: int) -> None:
        """A signal asks the run to stop: nothing new starts and what runs is stopped. The second one kills at once."""
        if self._signal is not None or self._plan.done:
            self._kill()
            return
        self._signal = number
        name = signal.Signals(number).name
        self._emit(events.RunInterrupted(reason=f"stopped by {name}", signal=name))
        self._plan.cancel()

    def _kill(self) -> None:
        for lane in self._lanes.values():
            lane.calls.kill()
            lane.commands.kill()

    # The steps of the loop.

    def _open(self) -> None:
        for name, lane in self._lanes.items():
            for executor in (lane.calls, lane.commands):
                executor.open(self._loop, self._inbox.append)
            self._emit(events.PoolOpened(pool=name, mode=lane.mode, workers=lane.workers, executor=lane.executor))

    def _fill(self) -> None:
        for attempt in self._plan.take(self._loop.clock()):
            self._start(attempt)
        self._report_skipped()
        self._stop_due()

    def _start(self, attempt: Attempt) -> None:
        lane = self._lanes[attempt.pool]
        self._flights[attempt.id] = _Flight(attempt, "command" if attempt.is_command else lane.mode)
        try:
            bound = None if attempt.refused else self._bind(self._plan, attempt)
        except ExpressionError as error:
            attempt.refused, bound = Error(type="ExpressionError", message=str(error)), None
        match bound:
            case Call():
                lane.calls.start(bound)
            case Command():
                lane.commands.start(bound)
            case None:  # it cannot even be started: a start and a failure, so that the log tells as much as for any other
                self._inbox.append(Result(id=attempt.id, outcome=Outcome.FAILED, error=attempt.refused))

    def _stop_due(self) -> None:
        timed_out = self._plan.has_timed_out
        stops = self._plan.take_stops(self._loop.clock())
        if self._plan.has_timed_out and not timed_out:
            self._emit(events.RunInterrupted(reason="the job's timeout is over"))
        for attempt in stops:
            lane, rule = self._lanes[attempt.pool], self._rule_of(attempt.task)
            lane.calls.stop(attempt.id, rule)
            lane.commands.stop(attempt.id, rule)

    def _wait(self) -> None:
        until = self._plan.next_wake()
        if until is None and not self._plan.in_flight:
            raise JobrunnerError("stuck: nothing runs and nothing can start [this is a bug]")
        self._loop.turn(until)
        self._drain()

    def _drain(self) -> bool:
        """Apply all that was reported. False where nothing was."""
        had_reports = bool(self._inbox)
        while self._inbox:
            self._apply(self._inbox.popleft())
        return had_reports

    def _close(self) -> None:
        """Join every worker: all pools end at the same time, so that slow ones are not waited for one after the other."""
        for lane in self._lanes.values():
            lane.calls.close()
            lane.commands.close()
        for name, lane in self._lanes.items():
            while not (lane.calls.closed and lane.commands.closed):
                self._loop.turn()
                self._drain()
            self._drain()
            self._emit(events.PoolClosed(pool=name))

    # What executors report.

    def _apply(self, report: Report) -> None:
        match report:
            case Result():
                self._on_result(report)
            case work.Began():
                self._on_began(report)
            case work.Said():
                self._on_said(report)
            case work.Returned():
                self._plan.give_back(self._flights.pop(report.id).attempt)
            case work.Leftover():
                self._on_leftover(report)
            case work.WorkerStarted() | work.WorkerDied() | work.WorkerJoined():
                self._emit(self._worker_event(report))
            case _:
                assert_never(report)

    def _on_began(self, began: work.Began) -> None:
        flight = self._flights.get(began.id)
        if flight is None:
            return
        flight.began, flight.began_at = began, self._loop.clock()
        self._plan.began(flight.attempt, flight.began_at)
        attempt = flight.attempt
        self._emit(
            events.TaskStarted(
                task=attempt.task,
                item=attempt.key,
                attempt=attempt.number,
                mode=flight.mode,
                worker=began.worker,
                pid=began.pid,
                thread=began.thread,
            )
        )

    def _on_said(self, said: work.Said) -> None:
        flight = self._flights.get(said.id) or self._abandoned.get(said.id)
        if flight is None:
            self._emit(events.TaskOutput(task="", item=None, attempt=0, pool=said.pool, data=said.data))
            return
        flight.tail = (flight.tail + said.data)[-_TAIL_BYTES:]
        attempt = flight.attempt
        self._emit(events.TaskOutput(task=attempt.task, item=attempt.key, attempt=attempt.number, pool=said.pool, data=said.data))

    def _on_result(self, result: Result) -> None:
        flight = self._flights.pop(result.id, None)
        if flight is None:
            self._on_late_result(result)
            return
        if flight.began is None:  # it never got as far as a worker
            self._flights[result.id] = flight
            self._on_began(work.Began(id=result.id, worker=flight.attempt.pool, pid=0))
            del self._flights[result.id]
        if result.abandoned:
            self._abandoned[result.id] = flight
        now = self._loop.clock()
        duration = result.duration or now - flight.began_at  # nobody measured the time of one that was lost
        self._task_time += duration
        ended = self._plan.apply(flight.attempt, result, now)
        self._emit(self._finished(flight, result, ended, duration))
        if ended.retry_at is not None:
            self._report_retry(flight.attempt, ended.retry_at)
        self._report_skipped()

    def _on_late_result(self, result: Result) -> None:
        flight = self._abandoned.pop(result.id, None)
        if flight is not None:
            attempt = flight.attempt
            self._emit(events.TaskLateResult(task=attempt.task, item=attempt.key, attempt=attempt.number, outcome=result.outcome))

    def _on_leftover(self, report: work.Leftover) -> None:
        attempt = self._flights[report.id].attempt
        self._emit(
            events.TaskLeftover(
                task=attempt.task, item=attempt.key, attempt=attempt.number, pids=list(report.pids), killed=report.killed
            )
        )

    # Events.

    def _finished(self, flight: _Flight, result: Result, ended: Ended, duration: float) -> events.TaskFinished:
        attempt, began = flight.attempt, flight.began
        assert began is not None
        failed, retried = ended.outcome is not Outcome.SUCCEEDED, ended.retry_at is not None
        return events.TaskFinished(
            task=attempt.task,
            item=attempt.key,
            attempt=attempt.number,
            mode=flight.mode,
            worker=began.worker,
            pid=began.pid,
            thread=began.thread,
            outcome=ended.outcome,
            duration=duration,
            cpu=result.cpu,
            max_rss=result.max_rss,
            exit_code=result.exit_code,
            signal=_signal_name(result.signal),
            error=_error(ended.outcome, result, duration) if failed else None,
            note=result.note or None,
            output=_last_lines(flight.tail) if failed else None,
            abandoned=result.abandoned,
            retried=retried,
            forgiven=ended.forgiven,
        )

    def _report_retry(self, attempt: Attempt, retry_at: float) -> None:
        delay = max(0.0, retry_at - self._loop.clock())
        self._emit(events.TaskRetrying(task=attempt.task, item=attempt.key, attempt=attempt.number + 1, delay=delay))

    def _report_skipped(self) -> None:
        for skipped in self._plan.take_skipped():
            self._emit(
                events.TaskSkipped(
                    task=skipped.task,
                    reason=skipped.reason,
                    cause=skipped.cause or None,
                    cause_outcome=skipped.cause_outcome or None,
                )
            )

    def _worker_event(self, report: work.WorkerStarted | work.WorkerDied | work.WorkerJoined) -> Event:
        mode = self._lanes[report.pool].mode
        who = {"worker": report.worker, "pool": report.pool, "mode": mode, "pid": report.pid, "thread": report.thread}
        match report:
            case work.WorkerStarted():
                return events.WorkerStarted(**who)  # type: ignore[arg-type]  # one dict of mixed values serves three events
            case work.WorkerDied(reason=reason):
                return events.WorkerDied(**who, reason=reason)  # type: ignore[arg-type]  # as above
            case work.WorkerJoined():
                return events.WorkerJoined(
                    **who,  # type: ignore[arg-type]  # as above
                    tasks=report.tasks,
                    lived=report.lived,
                    exit_code=report.exit_code,
                    signal=_signal_name(report.signal),
                )


def _signal_name(number: int | None) -> str | None:
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _error(outcome: Outcome, result: Result, duration: float) -> dict[str, str] | None:
    """Why an attempt did not succeed; for one that was stopped, that it was."""
    if outcome is Outcome.TIMED_OUT:
        return {"type": "TimedOut", "message": f"timed out after {duration:.3g} s{_ending(result)}"}
    if outcome is Outcome.CANCELLED:
        return {"type": "Cancelled", "message": f"cancelled after {duration:.3g} s{_ending(result)}"}
    if result.error is None:
        return None
    error = {"type": result.error.type, "message": result.error.message, "traceback": result.error.traceback}
    return {name: text for name, text in error.items() if text}


def _ending(result: Result) -> str:
    if result.abandoned:
        return "; its thread was abandoned"
    return f", stopped by {_signal_name(result.signal)}" if result.signal else ""


def _last_lines(tail: bytes) -> str | None:
    lines = tail.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
    return "\n".join(lines) or None
