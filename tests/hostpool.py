"""One HostPool driven by hand: calls go in, reports come out. Nothing of a plan or an engine comes between."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from jobrunner.executors.pool import HostPool, PoolSettings
from jobrunner.executors.reaper import Reaper
from jobrunner.loop import Loop
from jobrunner.work import Began, Call, Calls, Report, Result

R = TypeVar("R", bound=Report)

LIMIT = 30.0
"""Seconds after which something that was waited for has not come: a hang."""
TARGETS = "tests.targets.hosts"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Driven:
    """A pool, its loop, and all that it has reported."""

    hands_over_together = False

    def __init__(self, mode: str, method: str = "fork", *, reaper: Reaper | None = None, **settings: Any) -> None:
        wanted = {"name": "p", "workers": 2, "path": [ROOT], "folder": ROOT, **settings}
        self.pool = HostPool(PoolSettings(mode=mode, start_method=method, **wanted), reaper)
        self.loop, self.reports = Loop(), list[Report]()
        if reaper is not None:
            reaper.open(self.loop, self.reports.append)
        self.pool.open(self.loop, self.reports.append)

    def start(self, call_id: int, target: str, *args: object, **more: Any) -> None:
        name = target if ":" in target else f"{TARGETS}:{target}"
        self.pool.start(Call(id=call_id, target=name, args=list(args), **more))

    def start_all(self, target: str, args: Mapping[int, list[Any]]) -> None:
        """Calls by their numbers, as the items of a task are handed over."""
        count, name = len(args), target if ":" in target else f"{TARGETS}:{target}"
        own_env: dict[str, Sequence[str]] = {"JOBRUNNER_ITEM": [str(each) for each in args]}
        self.pool.start_all(Calls([*args], name, [*args.values()], [{}] * count, {"SHARED": "yes"}, own_env, ""))

    def until(self, met: Callable[[], object]) -> None:
        end = time.monotonic() + LIMIT
        while not met():
            assert time.monotonic() < end, f"waited for in vain, after {self.reports}"
            self.loop.turn(self.loop.clock() + 0.05)

    def of(self, kind: type[R]) -> list[R]:
        return [report for report in self.reports if isinstance(report, kind)]

    def began(self, call_id: int) -> Began:
        """Waits until this call has begun."""
        self.until(lambda: any(each.id == call_id for each in self.of(Began)))
        return next(each for each in self.of(Began) if each.id == call_id)

    def result(self, call_id: int) -> Result:
        """Waits until this call has ended; it must have ended once."""
        self.until(lambda: any(each.id == call_id for each in self.of(Result)))
        (found,) = [each for each in self.of(Result) if each.id == call_id and not each.abandoned] or [
            each for each in self.of(Result) if each.id == call_id
        ]
        return found

    def close(self) -> None:
        self.pool.close()
        self.until(lambda: self.pool.closed)
        self.loop.close()


@contextmanager
def driven(mode: str, method: str = "fork", **settings: Any) -> Iterator[Driven]:
    """A pool that is killed afterwards, whatever it still does."""
    made = Driven(mode, method, **settings)
    try:
        yield made
    finally:
        made.pool.kill()
        made.close()
