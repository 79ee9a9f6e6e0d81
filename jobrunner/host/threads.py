"""The lanes of `thread` and `thread_pool`."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from jobrunner import speech
from jobrunner.host.lane import Settings, or_dead
from jobrunner.host.port import POST_AFTER, Port
from jobrunner.typed import Any
from jobrunner.work import Call, run


class _Thread(threading.Thread):
    """Runs one call, and is put in `ended` when that is over. `worker` is given: a target may rename its thread."""

    def __init__(self, port: Port, call: Call, pool: str, number: int, ring: int, ended: queue.SimpleQueue[Any]) -> None:
        self.worker, self.ring = f"{pool}-{number}", ring
        super().__init__(name=self.worker)
        self._port, self._call, self._number, self._ended = port, call, number, ended

    def run(self) -> None:
        self.began_at = time.monotonic()
        _Seat(self._port, self.worker, self._number, self.ring).run(self._call, self._number)
        self._ended.put(self)


class ThreadPerCall:
    """`thread`: a new thread for every call, joined by the main thread when it has ended; at most `workers` at a time."""

    def __init__(self, port: Port, settings: Settings) -> None:
        self._port, self._pool = port, settings.pool
        self._inbox: queue.SimpleQueue[_Thread | str] = queue.SimpleQueue()
        self._waiting: deque[Call] = deque()
        self._free = list(range(settings.workers - 1, -1, -1))
        """Rings of which no thread makes use."""
        self._sent_at = -math.inf
        port.take_back = self._take_back

    def serve(self) -> None:
        speech.install()
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        self._started = self._alive = 0
        listening = True
        self._port.ring = partial(self._inbox.put, "send")
        while listening or self._alive:
            match self._next():
                case _Thread() as ended:
                    self._join(ended)
                    self._start_next()
                case "call":
                    self._start_next()
                case "end":
                    listening = False
        self._port.flush()

    def _next(self) -> _Thread | str:
        """What is to be done. What was said goes together, but is not kept back for long, nor where there is nothing to do."""
        if self._inbox.empty():
            now = time.monotonic()
            if self._waiting and now - self._sent_at < POST_AFTER:
                with contextlib.suppress(queue.Empty):
                    return self._inbox.get(timeout=POST_AFTER)
            self._sent_at = now
            self._port.answer_bell()
        return self._inbox.get()

    def _start_next(self) -> None:
        """Where there is a ring for it: an abandoned thread still has its own."""
        if not self._free:
            return
        try:
            call = self._waiting.popleft()
        except IndexError:  # it was taken back, or there is none
            return
        self._started, self._alive = self._started + 1, self._alive + 1
        _Thread(self._port, call, self._pool, self._started, self._free.pop(), self._inbox).start()

    def _join(self, ended: _Thread) -> None:
        self._alive -= 1
        self._free.append(ended.ring)
        ended.join()
        self._port.joined_soon(ended.worker, ended.native_id, 1, time.monotonic() - ended.began_at)

    def _listen(self) -> None:
        with or_dead():
            for call in self._port.calls():
                self._waiting.append(call)
                if self._free:  # looked for after it stands there: who ends from now on takes it
                    self._inbox.put("call")
            self._inbox.put("end")

    def _take_back(self) -> list[int]:
        return [call.id for call in _all_of(self._waiting.popleft, IndexError)]


def _all_of(take: Callable[[], Call | None], at_end: type[Exception]) -> Iterator[Call]:
    """What `take` gives until it raises: nobody else gets the same."""
    with contextlib.suppress(at_end):
        while True:
            if (call := take()) is not None:
                yield call


class ThreadPool:
    """`thread_pool`: up to `workers` threads, started when there is work for one more, reused, joined at the end."""

    def __init__(self, port: Port, settings: Settings) -> None:
        self._port, self._pool, self._workers = port, settings.pool, settings.workers
        self._queue: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._taken = 0
        self._ended = [0] * settings.workers
        """Calls that each thread has ended: only it adds to its own."""
        self._threads: list[threading.Thread] = []
        port.take_back = self._take_back

    def serve(self) -> None:
        speech.install()
        for call in self._port.calls():
            if len(self._threads) < self._workers and self._taken - sum(self._ended) >= len(self._threads):
                self._start_thread()
            self._taken += 1
            self._queue.put(call)
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _take_back(self) -> list[int]:
        back = [call.id for call in _all_of(self._queue.get_nowait, queue.Empty)]
        self._taken -= len(back)
        return back

    def _start_thread(self) -> None:
        number = len(self._threads)
        worker = f"{self._pool}-{number + 1}"
        thread = threading.Thread(target=self._work, args=(worker, number), name=worker)
        self._threads.append(thread)
        thread.start()

    def _work(self, worker: str, number: int) -> None:
        started, tasks = time.monotonic(), 0
        seat = _Seat(self._port, worker, number + 1, number)

        def count() -> None:
            self._ended[number] += 1

        while (call := self._next()) is not None:
            tasks += 1
            seat.run(call, tasks, count)
        self._port.joined(worker, threading.get_native_id(), tasks, time.monotonic() - started)

    def _next(self) -> Call | None:
        if self._queue.empty():
            self._port.flush()
        return self._queue.get()


class _Seat:
    """One thread in which calls run, and what is the same for all of them. `serial` is the number in the worker's name."""

    def __init__(self, port: Port, worker: str, serial: int, ring: int) -> None:
        thread = threading.current_thread()
        self._port, self._ident = port, thread.ident or 0
        self._taken = port.taker(worker, thread.native_id or 0, ring, serial)

    def run(self, call: Call, tasks: int, before_end: Callable[[], None] = lambda: None) -> None:
        """The call is the thread's `tasks`th."""
        port = self._port
        begin = self._taken(call.id, tasks)
        port.streams.reopen()
        speech.install()
        port.threads[call.id] = self._ident
        with speech.Voice(partial(port.said, call.id)):
            result = run(call, time.thread_time)
        del port.threads[call.id]
        before_end()
        port.ended_soon(result, begin)
