"""Attempts in flight as the engine sees them, and what is told of them: reports of executors as events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from jobrunner import events, work
from jobrunner.plan import Attempt, Ended, Plan, Skipped, Span
from jobrunner.reasons import error_of, last_lines, reason_of, signal_name
from jobrunner.stream import Ran
from jobrunner.structs import struct
from jobrunner.work import Call, Command, Outcome, Result

_SUCCEEDED = Outcome.SUCCEEDED
_TAIL_BYTES = 4096


@struct(kw_only=False, frozen=False, eq=False)
class Flight:
    """An attempt as the engine sees it: who runs it, and the last of what it printed."""

    attempt: Attempt
    mode: str
    digest: str = ""
    bound: Call | Command | None = None
    because: tuple[str, ...] = ()
    """Why it runs, where it might have been cached."""
    succeeded: Result | None = None
    """How it ended, while the cache takes down what it has made."""
    began: work.Began | None = None
    began_at: float = 0.0
    tail: bytes = b""
    printed: int = 0
    """Bytes."""

    @property
    def name(self) -> str:
        """The task, with its item where it has one."""
        attempt = self.attempt
        return attempt.task if attempt.key is None else f"{attempt.task}[{attempt.key}]"

    def is_success_all_the_same(self, result: Result) -> bool:
        """It was to be stopped, but had ended by itself before that came to it: well, and in its time."""
        attempt = self.attempt
        is_in_time = attempt.timeout is None or result.duration <= attempt.timeout
        return result.outcome is _SUCCEEDED and is_in_time and (result.was_over or not attempt.is_stopped)

    def said(self, said: work.Said) -> events.TaskOutput:
        """It has printed something."""
        attempt, data = self.attempt, said.data
        self.tail = (self.tail + data)[-_TAIL_BYTES:]
        self.printed += len(data)
        return events.TaskOutput(task=attempt.task, item=attempt.key, attempt=attempt.number, pool=said.pool, data=data)

    @property
    def is_plain(self) -> bool:
        """There is nothing to tell of it yet, not even that it has begun."""
        return self.began is None and self.attempt.stopping is None and not (self.because or self.printed)

    def started(self, began: work.Began) -> events.TaskStarted:
        attempt, because = self.attempt, self.because or None
        return events.TaskStarted(
            attempt.task, attempt.key, attempt.number, self.mode, began.worker, began.pid, began.thread, because
        )

    def ran(self, pid: int, row: work.Success) -> Ran:
        """It has begun and succeeded in one step."""
        _, worker, thread, duration, cpu, max_rss, _ = row
        attempt, digest = self.attempt, self.digest or None
        who = attempt.task, attempt.key, attempt.number, self.mode, worker, pid, thread
        return Ran(*who, duration, cpu, max_rss, digest)

    def finished(self, result: Result, ended: Ended, duration: float, most_output: int) -> events.TaskFinished:
        """How it has ended. Of more output than `most_output`, in bytes, only a part is kept."""
        attempt, began = self.attempt, self.began
        assert began is not None
        event = events.TaskFinished(
            attempt.task, attempt.key, attempt.number, self.mode, began.worker, began.pid, ended.outcome, duration,
            None, began.thread, result.cpu, result.max_rss, result.exit_code,
        )  # fmt: skip
        if result.note:
            event.note = result.note
        if self.digest:
            event.digest = self.digest
        if self.printed > most_output:
            event.truncated = True
        if ended.outcome is not _SUCCEEDED:
            self._explain(event, result, ended)
        return event

    def _explain(self, event: events.TaskFinished, result: Result, ended: Ended) -> None:
        """Put in what is told of an attempt that did not succeed."""
        event.error = error_of(ended.outcome, result, event.duration)
        event.reason, event.signal = reason_of(event.error), signal_name(result.signal)
        event.output, event.abandoned = last_lines(self.tail), result.abandoned
        event.retried, event.forgiven = ended.retry_at is not None, ended.forgiven


@struct(kw_only=False, eq=False)
class Group:
    """A span as the engine sees it: who runs its attempts, and the digest of each."""

    span: Span
    mode: str
    digests: Sequence[str]

    def flight(self, attempt: Attempt) -> Flight:
        return Flight(attempt, self.mode, self.digests[attempt.id - self.span.first])

    def ran(self, pid: int, rows: Sequence[work.Success]) -> list[Ran]:
        """These attempts of it have begun and succeeded in one step each."""
        mode, digests, first = self.mode, self.digests, self.span.first
        tasks, keys = self.span.tasks, self.span.keys
        return [
            Ran(tasks[at := number - first], keys[at], 1, mode, worker, pid, thread, duration, cpu, max_rss, digests[at] or None)
            for number, worker, thread, duration, cpu, max_rss, _ in rows
        ]


class Flights:
    """All that is in flight, by id. An attempt of a group has a Flight of its own from when that is asked for."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._found: dict[int, Flight | Group] = {}

    def add(self, flight: Flight) -> None:
        self._found[flight.attempt.id] = flight

    def add_group(self, group: Group) -> None:
        self._found.update(dict.fromkeys(group.span.ids, group))

    def get(self, attempt_id: int) -> Flight | None:
        found = self._found.get(attempt_id)
        if isinstance(found, Group):
            found = self._found[attempt_id] = found.flight(self._plan.attempt(attempt_id))
        return found

    def pop(self, attempt_id: int) -> Flight | None:
        return self.take(attempt_id) if attempt_id in self._found else None

    def take(self, attempt_id: int) -> Flight:
        """As `pop`. Raises KeyError for one that is not in flight."""
        found = self._found.pop(attempt_id)
        return found.flight(self._plan.attempt(attempt_id)) if isinstance(found, Group) else found

    def take_all(self, rows: Sequence[work.Success]) -> None:
        """These of one group have ended."""
        for row in rows:
            del self._found[row[0]]

    def by_group(self, rows: Sequence[work.Success]) -> Iterator[tuple[Group | None, list[work.Success]]]:
        """Rows that follow one another and belong to one group; with None those that belong to none."""
        found = self._found.get
        for group, members in groupby(rows, lambda row: each if type(each := found(row[0])) is Group else None):
            yield group, list(members)

    def begun(self) -> list[Flight]:
        return [each for each in self._found.values() if isinstance(each, Flight) and each.began_at]

    def count(self, pool: str) -> int:
        """Of one pool."""
        return sum((each.attempt if isinstance(each, Flight) else each.span).pool == pool for each in self._found.values())


def success_of(began: work.Began, result: Result) -> work.Success | None:
    """Both as one, if it is of one attempt that has succeeded and there is nothing else to it."""
    is_plain = result.outcome is _SUCCEEDED and result.exit_code is None and not (result.note or result.abandoned)
    measures = result.duration, result.cpu, result.max_rss, result.value
    return (began.id, began.worker, began.thread, *measures) if is_plain and began.id == result.id else None


def leftover_event(report: work.Leftover, flight: Flight | None) -> events.TaskLeftover:
    task, item, number = ("", None, 0) if flight is None else (flight.attempt.task, flight.attempt.key, flight.attempt.number)
    return events.TaskLeftover(task=task, item=item, attempt=number, pids=list(report.pids), killed=report.killed)


def skipped_event(skipped: Skipped) -> events.TaskSkipped:
    cause, outcome = skipped.cause or None, skipped.cause_outcome or None
    return events.TaskSkipped(task=skipped.task, reason=skipped.reason, cause=cause, cause_outcome=outcome)


def data_of(result: Result) -> events.Data:
    """What expressions may ask for when the run is resumed."""
    if result.unkept:
        return events.Data(withheld=True)
    value_file = "/".join(result.value_file.rsplit("/", 2)[1:])  # below the run's directory, wherever that will be
    return events.Data(value=result.value, value_file=value_file, stdout=result.stdout, outputs=result.outputs)


def worker_event(
    report: work.WorkerStarted | work.WorkerDied | work.WorkerJoined, mode: str
) -> events.WorkerStarted | events.WorkerDied | events.WorkerJoined:
    """What executors tell of a worker, with the mode of its pool."""
    worker, pool, pid, thread = report.worker, report.pool, report.pid, report.thread
    match report:
        case work.WorkerStarted(preloaded=preloaded):
            return events.WorkerStarted(worker, pool, mode, pid, thread, preloaded)
        case work.WorkerDied(reason=reason):
            return events.WorkerDied(worker=worker, pool=pool, mode=mode, pid=pid, reason=reason, thread=thread)
        case work.WorkerJoined():
            code, signal = report.exit_code, signal_name(report.signal)
            return events.WorkerJoined(worker, pool, mode, pid, report.tasks, report.lived, thread, code, signal)
