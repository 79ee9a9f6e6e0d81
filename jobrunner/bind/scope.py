"""What `tasks` and `run` mean in expressions: what has ended, how, and what it gave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from jobrunner.errors import ExpressionError
from jobrunner.items import Items
from jobrunner.plan import Plan
from jobrunner.reasons import error_of, reason_of
from jobrunner.structs import field, struct
from jobrunner.typed import TYPE_CHECKING, Any
from jobrunner.work import Outcome, Result

if TYPE_CHECKING:
    from jobrunner.spec import Job, Task

_OF_RUNS = frozenset({"results", "stdout", "outputs", "exit_code"})


@struct(kw_only=False)
class Tasks(Mapping[str, Mapping[str, object]]):
    """`tasks` in expressions: the values of the tasks that have ended. One that is not selected is as good as skipped."""

    _job: Job
    _plan: Plan
    _values: dict[str, Values]
    _masked: Callable[[str], str]

    def __getitem__(self, name: str) -> Values:
        found = self._values.get(name)
        if found is None:
            found = self._values[name] = self._found(self._job.tasks[name], name)
        return found

    def _found(self, task: Task, name: str) -> Values:
        if name not in self._plan.tasks:
            return Values(Outcome.SKIPPED, [])
        outcome = self._plan.outcome(name)
        if outcome is None:
            raise KeyError(name)
        return Values(outcome, self._plan.results(name), self._plan.items(name), task.target is None, self._masked)

    def __iter__(self) -> Iterator[str]:
        return iter(self._job.tasks)

    def __len__(self) -> int:
        return len(self._job.tasks)


@struct(kw_only=False)
class Values(Mapping[str, object]):
    """`tasks.NAME` in expressions; a result is decoded when it is first asked for."""

    _outcome: Outcome
    _results: list[Result | None]
    _items: Items | None = None
    _is_command: bool = False
    _masked: Callable[[str], str] = str
    _decoded: dict[str, object] = field(default_factory=dict)

    def __getitem__(self, key: str) -> object:
        if key not in self._decoded:
            self._decoded[key] = self._value(key)
        return self._decoded[key]

    def lacks(self, key: str) -> bool:
        """The task did not come to give this."""
        first = self._results[0] if self._results else None
        if key == "result":
            return first is None or (first.outcome is not Outcome.SUCCEEDED and first.value is None and not first.value_file)
        return key in _OF_RUNS and self._outcome is Outcome.SKIPPED

    def _value(self, key: str) -> object:
        first = self._results[0] if self._results else None
        match key:
            case "outcome":
                return str(self._outcome)
            case "results":
                if self._items is None or not self._is_command:
                    return [_value_of(result) for result in self._results]
                return [_of_command(item, result) for item, result in zip(self._items, self._results, strict=False)]
            case "result":
                return _value_of(first)
            case "failures":
                return [self._failure(index, result) for index, result in enumerate(self._results) if _has_failed(result)]
            case "stdout":
                return _stdout(first) if first else ""
            case "outputs":
                return first.outputs if first else {}
            case "exit_code":
                return first.exit_code if first else None
            case _:
                raise KeyError(key)

    def _failure(self, index: int, result: Result | None) -> dict[str, object]:
        """What the log says of it: a reason goes to notifications, where no secret belongs."""
        assert result is not None
        reason = self._masked(reason_of(error_of(result.outcome, result, result.duration)))
        return {"item": None if self._items is None else self._items[index], "outcome": str(result.outcome), "reason": reason}

    def __iter__(self) -> Iterator[str]:
        return iter(("outcome", "results", "result", "failures", "stdout", "outputs", "exit_code"))

    def __len__(self) -> int:
        return 7


@struct(kw_only=False)
class CertainTasks(Mapping[str, Mapping[str, object]]):
    """`tasks` in the text of a command: what is not there is an error, as it would be an empty word (`rm -r data/`).

    `default(tasks.NAME.stdout, '-')` says what stands there then.
    """

    _tasks: Tasks

    def __getitem__(self, name: str) -> Mapping[str, object]:
        return _Certain(name, self._tasks[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)


@struct(kw_only=False)
class _Certain(Mapping[str, object]):
    _name: str
    _values: Values

    def __getitem__(self, key: str) -> object:
        if self._values.lacks(key):
            outcome = str(self._values["outcome"]).replace("_", " ")
            was = {"skipped": "was ", "cancelled": "was "}.get(outcome, "")
            raise ExpressionError(f"{self._name} {was}{outcome}, so it has no {key}; default(…, '') says what to take then")
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@struct(kw_only=False)
class RunFacts(Mapping[str, object]):
    """`run` in expressions: what is known from its beginning, and what has failed so far."""

    _facts: Mapping[str, object]
    _plan: Plan

    def __getitem__(self, key: str) -> object:
        return self._plan.failures() if key == "failed" else self._facts[key]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._facts, "failed"))

    def __len__(self) -> int:
        return len(self._facts) + 1


def _value_of(result: Result | None) -> Any:
    try:
        return None if result is None else result.json()
    except ValueError as error:
        raise ExpressionError(f"the result cannot be read: {error}") from None


def _has_failed(result: Result | None) -> bool:
    return result is not None and result.outcome is not Outcome.SUCCEEDED


def _stdout(result: Result) -> str:
    return result.stdout.decode("utf-8", "replace").rstrip("\n")


def _of_command(item: object, result: Result | None) -> dict[str, object] | None:
    """An instance of a command as `results` has it; None where it did not run."""
    if result is None:
        return None
    values = {"exit_code": result.exit_code, "stdout": _stdout(result), "outputs": result.outputs}
    return {"item": item, "outcome": str(result.outcome), **values}
