"""Whether a host of threads still answers: one of them may hold the interpreter, now or later, and nobody would see."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jobrunner.executors.wire import Wire
from jobrunner.loop import Loop, Timer

_LEAST_PATIENCE = 1.0
"""Seconds that a host has to answer, even where the task's grace is shorter."""


class Hearing:
    """Asks one host, and calls `on_deaf` with the seconds for which it has not answered. Nothing after `close`."""

    def __init__(self, loop: Loop, wire: Wire, on_deaf: Callable[[float], None]) -> None:
        self._loop, self._wire, self._on_deaf = loop, wire, on_deaf
        self._patience = _LEAST_PATIENCE
        self._ping_timer: Timer | None = None
        self._back_timer: Timer | None = None

    def keep_asking(self, grace: float) -> None:
        """From now on whether it still works for its other calls: it has an abandoned thread."""
        if self._ping_timer is None:
            self._patience = max(grace, _LEAST_PATIENCE)
            self._ping()

    def answered(self) -> None:
        """It is alive; asked again in a while."""
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        self._ping_timer = self._loop.call_at(self._loop.clock() + self._patience, self._ping)

    def ask_back(self) -> None:
        """For what waits in it, unless it has been asked already. Where it is deaf that is ready again when it is gone, too."""
        if self._back_timer is None:
            self._back_timer = self._wait()
            self._wire.ask_back()

    @property
    def is_asked_back(self) -> bool:
        """What waits in it was asked for, and has not come."""
        return self._back_timer is not None

    def gave_back(self) -> None:
        if self._back_timer is not None:
            self._back_timer.cancel()
            self._back_timer = None

    def close(self) -> None:
        self.gave_back()
        if self._ping_timer is not None:
            self._ping_timer.cancel()

    def _ping(self) -> None:
        self._wire.ping()
        self._ping_timer = self._wait()

    def _wait(self) -> Timer:
        return self._loop.call_at(self._loop.clock() + self._patience, partial(self._on_deaf, self._patience))
