"""The workers of one host, of which the run is told: its threads, or the process itself. Each starts once and is joined once."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType

from jobrunner.executors.told import is_time
from jobrunner.loop import Loop
from jobrunner.processes import Exit
from jobrunner.structs import struct
from jobrunner.typed import Protocol
from jobrunner.work import Report, WorkerDied, WorkerJoined, WorkerStarted


class Pool(Protocol):
    """What a crew knows of its pool."""

    name: str
    loop: Loop
    has_threads: bool
    report: Callable[[Report], None]


@struct(kw_only=False, frozen=False)
class Worker:
    """A thread, or a process (whose `id` is None), and how many calls it has taken up."""

    id: int | None
    started: float
    tasks: int = 0


class Crew:
    """Reports its workers: a process at once, a thread when it is first heard of."""

    def __init__(self, pool: Pool, pid: int, name: str, *, preloaded: bool = False) -> None:
        self._pool, self._pid, self._name = pool, pid, name
        self._started = pool.loop.clock()
        self.threads: dict[str, Worker] = {}
        """Those that were not joined."""
        if not pool.has_threads:
            pool.report(WorkerStarted(pool=pool.name, worker=name, pid=pid, preloaded=preloaded))

    def thread(self, worker: str, thread: int | None) -> Worker:
        """The one of this name."""
        found = self.threads.get(worker)
        if found is None:
            found = self.threads[worker] = Worker(thread, self._pool.loop.clock())
            self._pool.report(WorkerStarted(pool=self._pool.name, worker=worker, pid=self._pid, thread=thread))
        return found

    def joined(self, worker: str, thread: int | None, tasks: int, lived: float) -> None:
        """A thread, as its host says. Raises ValueError where it says no such thing."""
        is_one = type(worker) is str and type(thread) in (int, NoneType)
        if not (self._pool.has_threads and is_one and type(tasks) is int and is_time(lived)):
            raise ValueError(worker)
        self.thread(worker, thread)
        del self.threads[worker]
        name = self._pool.name
        self._pool.report(WorkerJoined(pool=name, worker=worker, pid=self._pid, thread=thread, tasks=tasks, lived=lived))

    def died(self, exit: Exit, tasks: int) -> None:
        """All that were not joined, with the process, which had so many calls."""
        for worker, each in self._workers(tasks).items():
            died = WorkerDied(pool=self._pool.name, worker=worker, pid=self._pid, thread=each.id, reason=str(exit))
            self._pool.report(died)

    def ended(self, exit: Exit, tasks: int) -> None:
        """The process was joined, and with it all that were not."""
        now = self._pool.loop.clock()
        for worker, each in self._workers(tasks).items():
            self._pool.report(
                WorkerJoined(
                    pool=self._pool.name,
                    worker=worker,
                    pid=self._pid,
                    thread=each.id,
                    tasks=each.tasks,
                    lived=round(now - each.started, 6),
                    exit_code=exit.code,
                    signal=exit.signal,
                )
            )

    def _workers(self, tasks: int) -> dict[str, Worker]:
        return self.threads if self._pool.has_threads else {self._name: Worker(None, self._started, tasks)}
