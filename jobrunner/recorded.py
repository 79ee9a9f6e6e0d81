"""What the journal of a run says of its earlier parts: which instances have ended, which ran when the run was lost.

    events.jsonl ─replay─▶ records ─▶ Recorded ─outcome of (task, digest)─▶ resume: skip it, run it again, or leave it unknown

An instance is found again by its digest, that is by what it was, not by its place: an item may have moved in its list.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from pathlib import Path

from jobrunner.events import TaskFinished
from jobrunner.plan import Tries
from jobrunner.structs import field, struct
from jobrunner.typed import Any
from jobrunner.work import Error, Outcome, Result

_FINAL = frozenset({"succeeded", "failed", "timed_out", "crashed", "unknown"})
_FAILED = frozenset({"failed", "timed_out", "crashed"})
LOST = "the runner was killed while it ran"
UNKNOWN = "the runner was killed while it ran, and it may run at most once: look what it has done"
_STOPPED = "it was stopped while it ran, and it may run at most once: look what it has done"

Key = tuple[str, str | None]
"""A task and the key of its item."""


@struct
class Ending:
    """How an instance has ended for good."""

    task: str
    item: str | None
    outcome: Outcome
    exit_code: int | None
    reason: str
    data: Mapping[str, Any] | None
    """What is kept of its values; None where nothing is."""
    digest: str = ""
    place: int = 0
    """The number of its record: what ran after that may have made it void."""

    def result(self, attempt_id: int, directory: Path) -> Result:
        """The result of an attempt that has ended like this, in the run that is kept in `directory`."""
        data = self.data or {}
        value, value_file = data.get("value"), data.get("value_file")
        return Result(
            id=attempt_id,
            outcome=self.outcome,
            exit_code=self.exit_code,
            value=None if value is None else value.encode("utf-8", "surrogatepass"),
            value_file=str(directory / value_file) if value_file else "",
            stdout=data.get("stdout", "").encode("utf-8", "surrogateescape"),
            outputs=data.get("outputs", {}),
            error=None if self.outcome is Outcome.SUCCEEDED else Error(type="Recorded", message=self.reason),
        )

    @property
    def is_success(self) -> bool:
        return self.outcome is Outcome.SUCCEEDED

    def stays(self, at_most_once: bool) -> bool:
        """Whether it counts whatever has changed or has run again meanwhile, and whoever wants another try.

        What failed by itself has come to an end that nobody has to guess; one that was ended from outside may have done its work.
        """
        return self.outcome is Outcome.UNKNOWN or (at_most_once and self.outcome is not Outcome.FAILED)

    def has_data_in(self, directory: Path) -> bool:
        """Whether its values are kept, all of them."""
        if self.data is None or self.data.get("withheld"):
            return False
        value_file = self.data.get("value_file")
        return value_file is None or (directory / value_file).is_file()


@struct(kw_only=False, frozen=False)
class _Instance:
    """What happened to one instance so far."""

    made: int = 0
    lost: int = 0
    running: Mapping[str, Any] | None = None
    """The record of its start (or that it was about to start), if no end follows."""
    digest: str = ""
    """Of what may run at most once, from when that was about to start."""


@struct(kw_only=False, frozen=False)
class Recorded:
    """The records of one run, as a resume needs them. `retry_failed` and `rerun` say which endings do not count."""

    retry_failed: bool = False
    rerun: frozenset[str] = frozenset()
    started: dict[str, Any] = field(default_factory=dict)
    """The record `run.started`; empty where there is none."""
    finished: dict[str, Any] = field(default_factory=dict)
    """The last record, if that is `run.finished`."""
    parts: int = 0
    """How often the run was begun or resumed."""
    _instances: dict[Key, _Instance] = field(default_factory=lambda: defaultdict(_Instance))
    _endings: dict[Key, Ending] = field(default_factory=dict)
    _last_ran: dict[str, int] = field(default_factory=dict)
    _place: int = 0
    _by_digest: dict[tuple[str, str], deque[Ending]] = field(default_factory=lambda: defaultdict(deque))

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]], *, retry_failed: bool = False, rerun: Iterable[str] = ()) -> Recorded:
        found = cls(retry_failed=retry_failed, rerun=frozenset(rerun))
        for record in records:
            found._take_in(record)
        for ending in found._endings.values():
            found._by_digest[ending.task, ending.digest].append(ending)
        return found

    @property
    def is_unfinished(self) -> bool:
        """It was lost or stopped before it came to its own end."""
        return bool(self.started) and self.finished.get("outcome") in (None, "interrupted", "timed_out")

    @property
    def count(self) -> int:
        """Instances that have ended for good."""
        return len(self._endings)

    def find(self, task: str, item: str | None, digest: str, *, at_most_once: bool = False) -> Ending | None:
        """How an instance with this digest has ended, once for each that did; None where it is to run.

        One that nobody knows the end of stays unknown, also when its definition has changed meanwhile; so does a success that
        there may be at most once.
        """
        if task in self.rerun:
            return None
        known = self._endings.get((task, item))
        if known is not None and known.stays(at_most_once):
            return known
        found = self._by_digest.get((task, digest))
        if not found:
            return None
        ending = found.popleft()
        return None if self.retry_failed and ending.outcome in _FAILED else ending

    def has_succeeded(self, task: str, item: str | None) -> bool:
        """Whether an instance of this name has succeeded, be it with another definition or another input."""
        ending = self._endings.get((task, item))
        return ending is not None and ending.is_success

    def last_ran(self, task: str) -> int:
        """The place of the last record of an instance of a task: what it gave before may be another value now; 0: none."""
        return self._last_ran.get(task, 0)

    def tries(self, task: str, item: str | None) -> Tries:
        """How often an instance was tried. What was lost with its runner, and what `retry_failed` forgets, does not count."""
        instance = self._instances.get((task, item))
        if instance is None:
            return Tries()
        is_over = (task, item) in self._endings
        return Tries(made=instance.made, counted=0 if is_over else instance.made - instance.lost)

    def lost(self, at_most_once: Iterable[str]) -> list[TaskFinished]:
        """The ends that nobody recorded: of attempts that had begun when their runner was killed."""
        once = frozenset(at_most_once)
        return [_lost(key, each, key[0] in once) for key, each in self._instances.items() if each.running is not None]

    def has_ended(self, event: TaskFinished) -> None:
        """Take in the end of an attempt that was lost."""
        instance = self._instances[event.task, event.item]
        instance.running = None
        if event.outcome == Outcome.UNKNOWN:
            ending = self._unknown((event.task, event.item), event.digest or "", UNKNOWN)
            self._by_digest[ending.task, ending.digest].append(ending)
        else:
            instance.lost += 1

    # One record at a time.

    def _take_in(self, record: Mapping[str, Any]) -> None:
        self.finished = {}
        self._place += 1
        match record["event"]:
            case "run.started":
                self.started, self.parts = dict(record), 1
            case "run.resumed":
                self.parts += 1
            case "run.finished":
                self.finished = dict(record)
            case "task.submitted" | "task.started":
                self._begin(record)
            case "task.finished":
                self._end(record)

    def _begin(self, record: Mapping[str, Any]) -> None:
        key = record["task"], record.get("item")
        instance = self._instances[key]
        if self._endings.pop(key, None):  # it runs again, so how it ended before counts no more
            instance.lost = instance.made
        self._last_ran[record["task"]] = self._place
        instance.digest = record.get("digest") or (instance.digest if instance.running else "")
        instance.running = record
        instance.made = max(instance.made, record["attempt"])

    def _end(self, record: Mapping[str, Any]) -> None:
        key = record["task"], record.get("item")
        instance = self._instances[key]
        instance.running = None
        instance.made = max(instance.made, record["attempt"])
        if record.get("reason") == LOST or record["outcome"] == "cancelled":
            instance.lost += 1
        self._last_ran[record["task"]] = self._place
        if record["outcome"] in _FINAL and not record.get("retried"):
            self._endings[key] = _ending(record, self._place)
        elif record["outcome"] == "cancelled" and instance.digest:
            self._unknown(key, instance.digest, _STOPPED)
        else:
            self._endings.pop(key, None)

    def _unknown(self, key: Key, digest: str, reason: str) -> Ending:
        """The end of an instance that may have done its work, and may do it at most once."""
        ending = Ending(
            task=key[0], item=key[1], outcome=Outcome.UNKNOWN, exit_code=None, reason=reason, data=None, digest=digest
        )
        self._endings[key] = ending
        return ending


def _ending(record: Mapping[str, Any], place: int) -> Ending:
    return Ending(
        task=record["task"],
        item=record.get("item"),
        outcome=Outcome(record["outcome"]),
        exit_code=record.get("exit_code"),
        reason=record.get("reason", ""),
        data=record.get("data"),
        digest=record.get("digest", ""),
        place=place,
    )


def _lost(key: Key, instance: _Instance, at_most_once: bool) -> TaskFinished:
    begun = instance.running or {}
    return TaskFinished(
        task=key[0],
        item=key[1],
        attempt=begun["attempt"],
        mode=begun.get("mode", ""),
        worker=begun.get("worker", ""),
        pid=begun.get("pid", 0),
        thread=begun.get("thread"),
        outcome=Outcome.UNKNOWN if at_most_once else Outcome.CRASHED,
        duration=0.0,
        reason=UNKNOWN if at_most_once else LOST,
        error={"type": "RunnerDied", "message": UNKNOWN if at_most_once else LOST},
        digest=instance.digest or None,
        retried=not at_most_once,
    )
