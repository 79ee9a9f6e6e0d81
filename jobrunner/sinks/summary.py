"""The end of a run on one screen: tasks by outcome, the slowest, what parallelism bought, and why something failed."""

from __future__ import annotations

import heapq
import os
import re
from collections import Counter

from jobrunner.events import LogDegraded, RunFinished, RunResumed, RunStarted, TaskFinished, TaskSkipped, TaskStarted
from jobrunner.sinks.terminal import escaped
from jobrunner.stream import Ran, Row, Rows, Stamped
from jobrunner.structs import field, struct
from jobrunner.typed import ClassVar

_SLOWEST = 3
_LEAST_SLOW = 0.01
"""Seconds: what was quicker than that is no news."""
_MOST_TASKS = 10
_MOST_OF_A_TASK = 3
_MOST_SKIPS = 10
_MOST_NAMES = 5
_LOST_WITH_ITS_RUNNER = "RunnerDied"
"""The type of error of an attempt that nothing was wrong with but its runner."""
_FAILED = frozenset({"failed", "timed_out", "crashed"})
_LEAST_TOGETHER = 1.05
_VERBS = {"skipped": "was ", "cancelled": "was ", "unknown": "is "}
_FRAME = r'(?m)^  File "(?P<file>.+)", line (?P<line>\d+), in (?P<name>.+)(?:\n    (?! *[~^]+$)(?P<code>.+))?'


@struct(kw_only=False, frozen=False)
class Summary:
    """A sink that keeps what `text` needs: counts, the slowest few, and the first failures of the tasks that failed first."""

    attempts: Counter[str] = field(default_factory=Counter)
    skips: Counter[str] = field(default_factory=Counter)
    slowest: list[tuple[float, str]] = field(default_factory=list)
    failures: dict[str, list[TaskFinished]] = field(default_factory=dict)
    failed: Counter[str] = field(default_factory=Counter)
    stopped: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    unknown: set[str] = field(default_factory=set)
    """What may run only once and was cut off with its runner: never more than were running then."""
    degraded: dict[str, LogDegraded] = field(default_factory=dict)
    run_id: str = ""
    started: RunStarted | RunResumed | None = None
    finished: RunFinished | None = None

    takes_rows: ClassVar[bool] = True

    def __call__(self, stamped: Stamped) -> None:
        self.take((stamped,))

    def take(self, batch: Rows) -> None:
        succeeded, slowest = 0, self.slowest
        for stamped in batch:
            if isinstance(stamped, Row):
                self._on_row(stamped)
                continue
            event = stamped.event
            kind = type(event)
            if kind is TaskStarted:  # there are as many of them as attempts
                continue
            if kind is not TaskFinished:
                self._on_another(stamped)
            elif event.outcome != "succeeded":  # type: ignore[union-attr]  # here and below: it is one
                self._on_trouble(event)  # type: ignore[arg-type]
            else:
                succeeded += 1
                if len(slowest) < _SLOWEST or event.duration >= slowest[0][0]:  # type: ignore[union-attr]
                    self._on_slow(event)  # type: ignore[arg-type]
        if succeeded:
            self.attempts["succeeded"] += succeeded

    def _on_row(self, row: Row) -> None:
        slowest = self.slowest
        for ran in row.runs:
            if len(slowest) < _SLOWEST or ran.duration >= slowest[0][0]:
                self._on_slow(ran)
        self.attempts["succeeded"] += len(row.runs)

    def _on_trouble(self, event: TaskFinished) -> None:
        if event.outcome == "unknown":
            self.unknown.add(name_of(event))
        elif event.retried:
            self.retries += (event.error or {}).get("type") != _LOST_WITH_ITS_RUNNER
        else:
            self._count(event)

    def _on_another(self, stamped: Stamped) -> None:
        match stamped.event:
            case TaskSkipped(outcome="unknown") as event:
                self.unknown.add(name_of(event))
            case TaskSkipped(reason="recorded", outcome="succeeded") | TaskSkipped(reason="condition"):
                pass  # counted in the event that the run goes on with; as the author of the job wants it
            case TaskSkipped() as event:
                whole = event.task if event.item is None else f"{event.task}[…]"
                self.skips[f"{whole}: {_why_skipped(event, stamped.run_id)}"] += 1
            case LogDegraded() as event:
                self.degraded[event.output] = event
            case RunStarted() | RunResumed() as event:
                self.started, self.run_id = event, stamped.run_id
            case RunFinished() as event:
                self.finished = event

    def _count(self, event: TaskFinished) -> None:
        self.attempts[event.outcome] += 1
        if len(self.slowest) < _SLOWEST or event.duration >= self.slowest[0][0]:
            self._on_slow(event)
        if event.outcome == "cancelled":
            self.stopped[event.task] += 1
        else:
            self._keep(event)

    def _on_slow(self, event: TaskFinished | Ran) -> None:
        heapq.heappush(self.slowest, (event.duration, name_of(event)))
        if len(self.slowest) > _SLOWEST:
            heapq.heappop(self.slowest)

    def _keep(self, event: TaskFinished) -> None:
        """Of each of the first tasks that failed the first failures: one of many items hides no other task."""
        self.failed[event.task] += 1
        if event.task in self.failures or len(self.failures) < _MOST_TASKS:
            kept = self.failures.setdefault(event.task, [])
            if len(kept) < _MOST_OF_A_TASK:
                kept.append(event)

    def text(self, job: str) -> str:
        """The summary for people, without a line end at its end."""
        lines = [*self._failure_lines(), *self._unknown_lines(), *self._stopped_lines(), *self._skip_lines()]
        if self.finished is not None:
            lines += [*self._closing_lines(job, self.finished), *self._next_lines(self.finished)]
        return escaped("\n".join(lines))

    def _failure_lines(self) -> list[str]:
        lines = []
        for task, kept in self.failures.items():
            for event in kept:
                lines += ["", f"✗ {name_of(event)}: {_why_failed(event)}"]
                lines += [f"    {line}" for line in self._details(event)]
            lines += _more(self.failed[task] - len(kept), f" of {task}")
        others = self.failed.keys() - self.failures.keys()
        return lines + _more(sum(self.failed[task] for task in others), f" of {_counted(len(others), 'other task')}")

    def _details(self, event: TaskFinished) -> list[str]:
        """The last that it printed, and where in the job's own code it went wrong."""
        folder = os.path.dirname(self.started.file) if self.started else ""
        return [*(event.output or "").splitlines(), *_place((event.error or {}).get("traceback", ""), folder)]

    def _unknown_lines(self) -> list[str]:
        return [
            f"? {name}: how it ended, or what it gave, is not on record, and it may run only once (at_most_once): look what it "
            f"has done, then jobrunner resume {self.run_id} --rerun {name.partition('[')[0]}"
            for name in sorted(self.unknown)
        ]

    def _stopped_lines(self) -> list[str]:
        if not self.stopped:
            return []
        number = sum(self.stopped.values())
        names = f": {', '.join(_often(self.stopped))}" if len(self.stopped) <= _MOST_NAMES else ""
        return [f"- {_counted(number, 'attempt')} {'was' if number == 1 else 'were'} stopped{names}"]

    def _skip_lines(self) -> list[str]:
        lines = [f"- {text}" for text in _often(self.skips)[:_MOST_SKIPS]]
        return lines + _more(len(self.skips) - len(lines))

    def _closing_lines(self, job: str, end: RunFinished) -> list[str]:
        tasks = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in end.outcomes.items())
        lines = ["", f"{'✓' if end.exit_code == 0 else '✗'} {job}: {end.outcome.replace('_', ' ')}. Tasks: {tasks or 'none'}"]
        runs = sum(self.attempts.values())
        if runs:
            lines.append(
                f"  {_counted(runs, 'run')}{self._tries()} in {_time(end.duration)}{_at_a_time(end) if runs > 1 else ''}"
            )
            slow = [(duration, name) for duration, name in sorted(self.slowest, reverse=True) if duration >= _LEAST_SLOW]
            lines += [f"  slowest: {', '.join(f'{name} {_time(duration)}' for duration, name in slow)}"] if slow else []
        if isinstance(self.started, RunResumed):
            lines.append(f"  resumed: part {self.started.attempt} of run {self.run_id}; {self.started.recorded} recorded earlier")
        if self.started is not None:
            lines.append(f"  output:  {self.started.run_dir}/output")
        return [*lines, *(_loss(event) for event in self.degraded.values() if event.dropped)]

    def _next_lines(self, end: RunFinished) -> list[str]:
        """What to type to go on with a run that did not succeed. What may run only once has a line of its own."""
        resume = f"jobrunner resume {self.run_id}"
        if end.outcome in ("interrupted", "timed_out"):
            return [f"  go on:   {resume}"]
        return [f"  again:   {resume} --retry-failed"] if end.exit_code and not _FAILED.isdisjoint(end.outcomes) else []

    def _tries(self) -> str:
        return f" and {_counted(self.retries, 'retry')}" if self.retries else ""


def _counted(number: int, noun: str) -> str:
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def _often(counts: Counter[str]) -> list[str]:
    return [f"{text} (× {count})" if count > 1 else text for text, count in counts.items()]


def _more(number: int, of: str = "") -> list[str]:
    return [f"  … and {number} more{of}"] if number else []


def _at_a_time(end: RunFinished) -> str:
    """The time of all attempts together, and how many of them there were at a time, where that was more than one.

    That is no gain in speed: attempts that share a CPU take longer than each would alone.
    """
    together = end.task_time / end.duration if end.duration else 1.0
    return f"; {_time(end.task_time)} of work" + (f", {together:.1f} at a time" if together >= _LEAST_TOGETHER else "")


def _loss(event: LogDegraded) -> str:
    what = "byte" if event.output == "output" else "line"
    verb = "was" if event.dropped == 1 else "were"
    return f"  {_counted(event.dropped, what)} of the {event.output} {verb} lost: {event.reason}"


def name_of(event: TaskFinished | TaskSkipped | Ran) -> str:
    """`task` or `task[item]`."""
    return event.task if event.item is None else f"{event.task}[{event.item}]"


def _why_failed(event: TaskFinished) -> str:
    outcome = event.outcome.replace("_", " ")
    reason = event.reason or (event.error or {}).get("message", "")
    tries = f" (attempt {event.attempt})" if event.attempt > 1 else ""
    said = reason if reason.startswith(outcome) and not tries else f"{outcome}{tries}: {reason}"
    return f"{said} — allowed by continue_on_error" if event.forgiven else said


def _place(traceback: str, folder: str) -> list[str]:
    """The innermost line of the traceback in the job's folder, where the mistake most likely is; else the innermost of all.

    The import system is no place to look at.
    """
    frames = [frame for frame in re.finditer(_FRAME, traceback) if not frame["file"].startswith("<frozen ")]
    own = [frame for frame in frames if frame["file"].startswith(f"{folder}/")]
    if not frames:
        return []
    frame = (own or frames)[-1]
    code = [frame["code"].strip()] if frame["code"] else []
    return [f"{frame['file'].removeprefix(f'{folder}/')}:{frame['line']} in {frame['name']}", *(f"  {line}" for line in code)]


def _why_skipped(event: TaskSkipped, run_id: str) -> str:
    match event.reason:
        case "recorded":
            outcome = (event.outcome or "").replace("_", " ")
            return f"{outcome} in an earlier part of the run: jobrunner resume {run_id} --retry-failed tries again"
        case "needs":
            outcome = (event.cause_outcome or "").replace("_", " ")
            return f"skipped: needs {event.cause}, which {_VERBS.get(outcome, '')}{outcome}"
        case "empty":
            return "nothing to do: no items"
        case "cached":
            return "cached: nothing has changed"
        case _:
            return "skipped: the run was stopped first"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
