"""Runs a job that is given as Python data and hands back what came of it: the result, the events and the output."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from jobrunner import api
from jobrunner.events import Event, TaskFinished, TaskOutput, TaskStarted
from jobrunner.stream import Stamped

E = TypeVar("E", bound=Event)

START_METHODS = ("fork", "spawn")
POOLS: dict[str, dict[str, Any]] = {
    "serial": {"mode": "serial"},
    "thread": {"mode": "thread", "workers": 2},
    "thread_pool": {"mode": "thread_pool", "workers": 2},
    "process": {"mode": "process", "workers": 2},
    "process_pool": {"mode": "process_pool", "workers": 2},
    "stock_threads": {"executor": "concurrent.futures:ThreadPoolExecutor", "workers": 2},
    "stock_processes": {"executor": "concurrent.futures:ProcessPoolExecutor", "workers": 2},
    "loky": {"executor": "loky.process_executor:ProcessPoolExecutor", "workers": 2},
}
"""What the tests call a lane: every mode, and the executors that users know, each as a pool of a job file."""

ALONE = ("serial", "process", "process_pool")
"""Lanes where an attempt has its process to itself, so that environment, folder and every byte it writes are its own."""
THREADS = ("thread", "thread_pool", "stock_threads")
FOREIGN = ("stock_threads", "stock_processes", "loky")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One finished run. `wall` in seconds, with loading and joining."""

    result: api.RunResult
    events: tuple[Event, ...]
    wall: float

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def started(self, task: str) -> list[TaskStarted]:
        return [event for event in self.of(TaskStarted) if event.task == task]

    def finished(self, task: str) -> list[TaskFinished]:
        return [event for event in self.of(TaskFinished) if event.task == task]

    def only(self, task: str) -> TaskFinished:
        """The one attempt of a task."""
        (event,) = self.finished(task)
        return event

    def error(self, task: str) -> dict[str, str]:
        error = self.only(task).error
        assert error is not None, f"{task} did not fail: {self.only(task)}"
        return error

    def output(self, task: str) -> str:
        """All that was attributed to a task; of an empty name, what was nobody's."""
        return b"".join(event.data for event in self.of(TaskOutput) if event.task == task).decode()

    def value(self, task: str) -> Any:
        return self.result.tasks[task].value


def run_job(folder: Path, job: Mapping[str, Any]) -> Ran:
    """Write `job` as a job file into `folder`, and run it in this process."""
    file = folder / "job.yaml"
    file.write_text(json.dumps(job), encoding="utf-8")
    stamped: list[Stamped] = []
    started = time.monotonic()
    result = api.run_prepared(api.prepare(file, api.Options()), sinks=[stamped.append], keep_results=True)
    return Ran(result=result, events=tuple(each.event for each in stamped), wall=time.monotonic() - started)


def open_descriptors() -> list[str]:
    gc.collect()  # what tests before this one have left is closed now, and not between two looks
    return sorted(os.listdir("/proc/self/fd"))


class Closable(Protocol):
    def close(self) -> None: ...


@contextmanager
def all_closed(kind: type[Closable]) -> Iterator[None]:
    """Every `kind` that is made inside is closed at the end: its descriptor is a number, which nothing else would close."""
    made: list[Closable] = []
    init = kind.__init__

    def noted(self: Closable, *args: Any, **keys: Any) -> None:
        init(self, *args, **keys)
        made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "__init__", noted)
        yield
    for each in made:
        each.close()
