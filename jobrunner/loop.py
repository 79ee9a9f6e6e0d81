"""The one place where the engine blocks: epoll, and timers in a heap.

Registrations are objects, never descriptor numbers: a number may be reused between an event and its handling. epoll is asked
directly: with `selectors` in between a command costs about 12 µs more, for it is watched twice.
"""

from __future__ import annotations

import heapq
import itertools
import math
import select
import time
from collections.abc import Callable, Mapping
from contextlib import suppress


class Watch:
    """Interest in one descriptor. After `close` its callback is never called again, also not for events already read.

    To be closed before its descriptor is: a child in the middle of its start has a copy, and would keep the interest alive.
    """

    __slots__ = ("_loop", "active", "fd", "is_once", "on_ready")

    def __init__(self, loop: Loop, fd: int, on_ready: Callable[[], object], is_once: bool) -> None:
        self._loop, self.fd, self.on_ready, self.is_once, self.active = loop, fd, on_ready, is_once, True

    def begin(self) -> None:
        """From now on its callback is called, where that was put off. Raises OSError where there is no room."""
        if self.active:
            self._loop.begin(self)

    def close(self) -> None:
        if self.active:
            self.active = False
            self._loop.forget(self.fd)


class Timer:
    """A call that is due at a time. `cancel` may be called at any moment, also after it was made."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], object]) -> None:
        self.action: Callable[[], object] | None = action

    def cancel(self) -> None:
        self.action = None


class Loop:
    """One epoll and its timers; `clock` gives seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._epoll = select.epoll()
        self._watches: dict[int, Watch] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    @property
    def watched(self) -> Mapping[int, Watch]:
        """Every descriptor that somebody has an interest in."""
        return self._watches

    def watch_later(self, fd: int, on_ready: Callable[[], object]) -> Watch:
        """Call `on_ready` whenever `fd` can be read, once the watch has begun: what is over before that costs no system call."""
        return Watch(self, fd, on_ready, is_once=False)

    def begin(self, watch: Watch) -> None:
        if watch.fd not in self._watches:
            self._epoll.register(watch.fd, select.EPOLLIN)
            self._watches[watch.fd] = watch

    def watch(self, fd: int, on_ready: Callable[[], object], *, writable: bool = False, once: bool = False) -> Watch:
        """Call `on_ready` whenever `fd` can be read (or, with `writable`, written) without blocking. OSError: no room.

        With `once` it is called at most once, and the watch is closed then; that costs one system call less.
        """
        events = select.EPOLLOUT if writable else select.EPOLLIN
        self._epoll.register(fd, events | select.EPOLLONESHOT if once else events)
        watch = self._watches[fd] = Watch(self, fd, on_ready, once)
        return watch

    def forget(self, fd: int) -> None:
        """Nobody is interested in `fd` any more."""
        if self._watches.pop(fd, None) is not None:
            with suppress(OSError, ValueError):  # it was closed, or the loop was
                self._epoll.unregister(fd)

    def call_at(self, when: float, action: Callable[[], object]) -> Timer:
        """Call `action` once, at `when` or soon after."""
        timer = Timer(action)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def rest(self, seconds: float) -> None:
        """Look at nothing, so that more comes together: for who has nobody waiting for him meanwhile."""
        time.sleep(seconds)

    def turn(self, until: float | None = None) -> None:
        """Wait until something is ready, a timer is due or `until` has come; then make the calls that are due."""
        for watch in self._ready(self._patience(until)):
            if watch.active:
                if watch.is_once:
                    watch.active = False
                    del self._watches[watch.fd]
                watch.on_ready()
        if self._timers:
            self._make_due_calls()

    def close(self) -> None:
        self._epoll.close()
        self._watches.clear()

    def _patience(self, until: float | None) -> float | None:
        """Seconds, in whole milliseconds and never too few; None for ever."""
        due = self._first_timer() if self._timers else None
        if due is None or (until is not None and until < due):
            due = until
        return None if due is None else math.ceil(max(0.0, due - self.clock()) * 1e3) * 1e-3

    def _ready(self, patience: float | None) -> list[Watch]:
        """All that can go on now: found before any call is made, which may give the number of one to another."""
        watches = self._watches
        return [watch for fd, _ in self._epoll.poll(patience, len(watches) or 1) if (watch := watches.get(fd))]

    def _first_timer(self) -> float | None:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _make_due_calls(self) -> None:
        now = self.clock()
        while self._timers and self._timers[0][0] <= now:
            action = heapq.heappop(self._timers)[2].action
            if action is not None:
                action()
