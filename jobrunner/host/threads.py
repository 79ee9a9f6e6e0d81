"""The lanes of `thread` and `thread_pool`."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from jobrunner import speech
from jobrunner.host.lane import Settings, or_dead
from jobrunner.host.port import Port
from jobrunner.structs import struct
from jobrunner.work import Call, run


class ThreadPerCall:
    """`thread`: a new thread for every call, joined by the main thread when it has ended; at most `workers` at a time."""

    def __init__(self, port: Port, settings: Settings) -> None:
        self._port, self._pool = port, settings.pool
        self._inbox: queue.SimpleQueue[Call | _Ended | _Rung | None] = queue.SimpleQueue()
        self._waiting: deque[Call] = deque()
        self._free = list(range(settings.workers - 1, -1, -1))
        """Rings of which no thread makes use."""
        port.take_back = self._take_back

    def serve(self) -> None:
        speech.install()
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        self._started = self._alive = 0
        listening = True
        self._port.ring = partial(self._inbox.put, _Rung())
        while listening or self._alive:
            if self._inbox.empty():
                self._port.answer_bell()
            match self._inbox.get():
                case Call():
                    self._start_next()
                case _Rung():
                    pass
                case _Ended() as ended:
                    self._join(ended)
                    self._start_next()
                case None:
                    listening = False
        self._port.flush()

    def _start_next(self) -> None:
        """Where there is a ring for it: an abandoned thread still has its own."""
        if not self._free:
            return
        try:
            call = self._waiting.popleft()
        except IndexError:  # it was taken back, or there is none
            return
        self._started, self._alive = self._started + 1, self._alive + 1
        worker = f"{self._pool}-{self._started}"
        threading.Thread(target=self._run, args=(call, worker, self._free.pop(), self._started), name=worker).start()

    def _join(self, ended: _Ended) -> None:
        self._alive -= 1
        self._free.append(ended.ring)
        ended.thread.join()
        self._port.joined_soon(ended.worker, ended.native_id, 1, time.monotonic() - ended.started)

    def _listen(self) -> None:
        with or_dead():
            for call in self._port.calls():
                self._waiting.append(call)
                self._inbox.put(call)
            self._inbox.put(None)

    def _take_back(self) -> list[int]:
        return [call.id for call in _all_of(self._waiting.popleft, IndexError)]

    def _run(self, call: Call, worker: str, ring: int, number: int) -> None:
        started = time.monotonic()
        _run_in_thread(self._port, call, worker, ring, number, number)
        self._inbox.put(_Ended(threading.current_thread(), worker, threading.get_native_id(), started, ring))


class _Rung:
    """There is something to send."""


def _all_of(take: Callable[[], Call | None], at_end: type[Exception]) -> Iterator[Call]:
    """What `take` gives until it raises: nobody else gets the same."""
    with contextlib.suppress(at_end):
        while True:
            if (call := take()) is not None:
                yield call


@struct(kw_only=False)
class _Ended:
    thread: threading.Thread
    worker: str
    native_id: int
    started: float
    ring: int


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

        def count() -> None:
            self._ended[number] += 1

        while (call := self._next()) is not None:
            tasks += 1
            _run_in_thread(self._port, call, worker, number, number + 1, tasks, count)
        self._port.joined(worker, threading.get_native_id(), tasks, time.monotonic() - started)

    def _next(self) -> Call | None:
        if self._queue.empty():
            self._port.flush()
        return self._queue.get()


def _run_in_thread(
    port: Port, call: Call, worker: str, ring: int, serial: int, tasks: int, before_end: Callable[[], None] = lambda: None
) -> None:
    """`worker` is given: a target may rename its thread."""
    port.took_up(call, worker, ring, serial, tasks)
    port.streams.reopen()
    speech.install()
    port.threads[call.id] = threading.get_ident()
    with speech.Voice(lambda text: port.said(call.id, text)):
        result = run(call, time.thread_time)
    del port.threads[call.id]
    before_end()
    port.ended_soon(result)
