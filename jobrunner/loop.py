"""The one place where the engine blocks: a selector, and timers in a heap.

Registrations are objects, never descriptor numbers: a number may be reused between an event and its handling.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import time
from collections.abc import Callable


class Watch:
    """Interest in one descriptor. After `close` its callback is never called again, also not for events already read."""

    __slots__ = ("_loop", "active", "fd", "on_ready")

    def __init__(self, loop: Loop, fd: int, on_ready: Callable[[], object]) -> None:
        self._loop, self.fd, self.on_ready, self.active = loop, fd, on_ready, True

    def close(self) -> None:
        if self.active:
            self.active = False
            self._loop.selector.unregister(self.fd)


class Timer:
    """A call that is due at a time. `cancel` may be called at any moment, also after it was made."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], object]) -> None:
        self.action: Callable[[], object] | None = action

    def cancel(self) -> None:
        self.action = None


class Loop:
    """One selector and its timers; `clock` gives seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def watch(self, fd: int, on_ready: Callable[[], object], *, writable: bool = False) -> Watch:
        """Call `on_ready` whenever `fd` can be read (or, with `writable`, written) without blocking."""
        watch = Watch(self, fd, on_ready)
        self.selector.register(fd, selectors.EVENT_WRITE if writable else selectors.EVENT_READ, watch)
        return watch

    def call_at(self, when: float, action: Callable[[], object]) -> Timer:
        """Call `action` once, at `when` or soon after."""
        timer = Timer(action)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def turn(self, until: float | None = None) -> None:
        """Wait until something is ready, a timer is due or `until` has come; then make the calls that are due."""
        due = self._first_timer()
        moments = [moment for moment in (until, due) if moment is not None]
        timeout = max(0.0, min(moments) - self.clock()) if moments else None
        for key, _ in self.selector.select(timeout):
            if key.data.active:
                key.data.on_ready()
        self._make_due_calls()

    def close(self) -> None:
        self.selector.close()

    def _first_timer(self) -> float | None:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _make_due_calls(self) -> None:
        if not self._timers:
            return
        now = self.clock()
        while self._timers and self._timers[0][0] <= now:
            action = heapq.heappop(self._timers)[2].action
            if action is not None:
                action()
