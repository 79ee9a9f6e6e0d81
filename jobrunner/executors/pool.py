"""The hosts of one pool: which one gets a call, when a new one is started, and when one has had enough.

start(call) ─▶ host with room, or a new one ─▶ … ─Result─▶ idle, recycled or ended
            └▶ where all have work: it waits in a host, if calls have been short (prepare says how many may)
stop(call)  ─▶ one that waits is taken back; a host of one attempt is ended; one of many abandons the attempt
slow host   ─▶ what waits in it is taken back, and is ready again
death       ─▶ calls that began are CRASHED, calls that did not are returned; nobody else is touched
"""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

from jobrunner import host
from jobrunner.executors import limits
from jobrunner.executors.channel import LONGEST
from jobrunner.executors.children import Child, greeting, start_host
from jobrunner.executors.forking import Forking
from jobrunner.executors.hosts import Host
from jobrunner.executors.reaper import Reaper
from jobrunner.executors.wire import encoded
from jobrunner.loop import Loop
from jobrunner.processes import Exit
from jobrunner.structs import field, struct
from jobrunner.work import Call, Calls, Error, Exhausted, Outcome, Report, Result, Returned, Runs, Said, StopRule

_MOST_STILLBORN = 3
"""So many hosts in a row, besides one for each worker, may end before they begin any call; then calls fail instead of being
tried for ever. Workers that are killed together from outside must not look like workers that cannot start."""
_MOST_KILLED = 50
"""The same where SIGKILL ended them: an interpreter that cannot start does not end so, but somebody may be killing them."""
_WORK_AHEAD = 0.02
"""Seconds of work that may wait in a host, as far as the calls so far tell."""
_LONGEST_AHEAD = 0.005
"""Nothing waits behind calls that take longer than so many seconds on average, nor for longer than this behind one of them."""
_LEAST_COST = 20e-6
"""Seconds that a call costs around its target."""
_MOST_AHEAD = 128
"""Calls that may wait for one worker: with fewer, workers with short ones run dry during a turn of the loop."""
_LONGEST_REST = 0.01
"""Seconds for which the engine may look away from workers that have enough to do: each look costs it some 200 µs."""
_LEAST_BEFORE_REST = 2
"""Calls that must wait for each worker meanwhile."""
_SHORTEST_BEFORE_REST = 100e-6
"""Seconds that calls must take on average: of shorter ones the workers end as many as the engine can follow."""
_MOST_BEFORE_REST = 1 << 14
"""Bytes that have come from a host since the last rest: with more, its pipe (64 KiB) might be full before the next is over."""
_MOST_COUNTED = 0.02
"""Seconds: the first call of a host also imports, which may take long."""
_MOST_AHEAD_OF_THREADS = 256
_WEIGHT = 0.125
"""Of the latest call in the average."""
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})
"""Why the system refuses a process or a descriptor now, and may not refuse it when something has ended."""


@struct
class PoolSettings:
    """A pool as the job file wants it, with its numbers decided."""

    name: str
    mode: str
    workers: int
    executor: str = ""
    max_tasks_per_worker: int | None = None
    start_method: str = "fork"
    path: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    preload: list[str] = field(default_factory=list)
    """Targets that the template, if there is one, is to import for its hosts."""
    may_have_template: bool = False
    """Nothing that only this process knows is of use to its hosts: a template may fork them, where that pays."""


def start_method(wanted: str | None) -> str:
    """How hosts are started: as wanted, else forked, which is quick and safe in a process with one thread on Linux."""
    if wanted is not None:
        return wanted
    return "spawn" if sys.platform == "darwin" or threading.active_count() > 1 else "fork"


class HostPool:
    """An executor of Calls. Never blocks and never raises for a task's fault; everything it has to say is a Report."""

    report: Callable[[Report], None]

    def __init__(self, settings: PoolSettings, reaper: Reaper | None = None) -> None:
        self.settings, self.name, self._reaper = settings, settings.name, reaper
        self.slots = self.workers = settings.workers
        self._mode = host.MODES[settings.mode]
        self.has_threads = self._mode.threads
        self.is_for_one = self._mode.hosts is host.Hosts.ATTEMPT
        self._hosts: set[Host] = set()
        self._idle: list[Host] = []
        self._started = 0
        self._stillborn = 0
        self._mean: float | None = None
        """Seconds that a call takes, on average."""
        self._is_prepared = self._is_full = self._is_holding = False
        """Calls may wait in hosts; nothing more may before one has ended."""
        self._room = 0
        """Calls that may wait in each of the hosts that are quick, as of `prepare`."""
        self._quick: list[Host] = []
        self._places = iter(self._quick)
        """The hosts in which calls may wait, as often as they may, in the order in which they get them."""
        self._tells_runs = False
        self._is_free = True
        """As far as is known, some worker has nothing to do."""
        self._has_queued = False
        """Something waits in a host, or did so a moment ago."""

    def tell_runs(self) -> None:
        """From now on what began and ended is reported as Runs, where there is not more to it."""
        self._tells_runs = True

    def open(self, loop: Loop, report: Callable[[Report], None]) -> None:
        """Get ready; hosts are started when there is work for them."""
        self.loop, self.report = loop, report
        self.kernel_kills = limits.KernelKills()
        wanted = self.settings
        may = wanted.may_have_template and wanted.start_method == "fork" and not self._mode.threads
        self._forking = Forking(loop, wanted.folder, wanted.preload, self._reaper, self._refused, may=may)

    def prepare(self) -> int:
        """Calls follow, and `flush` after the last of them. So many more than there are workers may be handed over now.

        They wait in the hosts for their turn; what would wait for long comes back as Returned.
        """
        self._is_prepared = self._is_holding = self._mode.has_queue
        if self._is_prepared:
            for each in self._hosts:
                each.hold()
                self._is_holding = self._is_holding and (self.has_threads or each.has_turns)
        self._quick.clear()
        self._is_free = True
        if not self._is_prepared or self._is_full or self._mean is None or self._mean > _LONGEST_AHEAD:
            return 0
        ahead = _WORK_AHEAD / max(self._mean, _LEAST_COST)
        if self.has_threads:  # whichever thread is free takes the next: nothing waits behind a slow one
            has_room = any(not each.retired and each.has_rings() for each in self._hosts)
            return min(int(ahead * self.workers), _MOST_AHEAD_OF_THREADS) if has_room else 0
        self._room = min(int(ahead), _MOST_AHEAD)
        since = self.loop.clock() - _LONGEST_AHEAD
        self._quick.extend(each for each in self._hosts if not each.retired and each.heard_at >= since)
        self._places = self._in_turn()
        return self._room * len(self._quick)

    @property
    def together(self) -> Callable[[Calls], None] | None:
        """Starts many calls; None where they do not wait in the hosts."""
        return self.start_all if self._mode.has_queue else None

    def holds(self) -> bool:
        """Of what is started now nothing goes out before `flush`."""
        return self._is_holding

    def rest(self) -> float:
        """For so many seconds no worker runs out of work, as far as the calls so far tell, and much will have ended at once."""
        if not self._has_queued or self._mean is None or self._mean < _SHORTEST_BEFORE_REST:
            return 0.0
        if self._busy < (1 if self.has_threads else self.settings.workers):
            return 0.0
        if max([each.take_came() for each in self._hosts]) > _MOST_BEFORE_REST:
            return 0.0
        waiting = min(each.waiting for each in self._hosts if each.calls) // (self.settings.workers if self.has_threads else 1)
        return min(_LONGEST_REST, waiting * self._mean / 2) if waiting >= _LEAST_BEFORE_REST else 0.0

    def flush(self) -> None:
        """All that was started since `prepare` is on its way."""
        self._is_free, self._is_holding = True, False
        if self._is_prepared:
            for each in self._hosts:
                each.release()

    def start(self, call: Call) -> None:
        """Hand `call` to a host; its Began and its Result follow as reports. Exhausted where there is no room for a host."""
        if self._is_prepared and not self.has_threads and self._are_all_busy():
            self._queue(call)
            return
        holder: Host | None = None
        try:
            holder = self._idle_host() or self._shared_or_new(call)
            holder.hand_over(call)
        except OSError as error:
            if error.errno in _PASSING:
                self.report(Exhausted(id=call.id, reason=f"no room for one more worker process: {error.strerror}"))
            else:
                self._refuse(call, error, f"could not start a worker process: {error.strerror}")
        except RecursionError as error:
            if holder is not None:
                self._idle.append(holder)
            self._refuse(call, error, "could not start: its arguments are nested too deeply to be handed over")
        else:
            if self.has_threads and self._is_prepared:  # what has begun there is not always said in time
                self._look_soon()

    def start_all(self, calls: Calls) -> None:
        """As `start` of each, in their order; those that are to wait go out in one piece to each host."""
        first = 0
        if self.has_threads:
            first = self._hand_over_all(calls)
        elif not self.settings.max_tasks_per_worker:
            while first < len(calls) and not self._are_all_busy():
                self.start(calls.one(first))
                first += 1
            first += self._queue_all(calls.some(slice(first, None)))
        for at in range(first, len(calls)):
            self.start(calls.one(at))

    def _hand_over_all(self, calls: Calls) -> int:
        """To threads, if there are any yet: how many."""
        holder = next((each for each in self._hosts if not each.retired), None)
        count = 0 if holder is None else holder.hand_over_all(calls)
        if count:
            self._look_soon()
        return count

    def _queue_all(self, calls: Calls) -> int:
        """Behind those that the hosts with the least work have, until one cannot wait: how many do."""
        first = 0
        for each, count in Counter(islice(self._places, len(calls))).items():
            queued = each.queue_all(calls.some(slice(first, first + count)))
            first += queued
            if queued < count:
                break
        if first:
            self._look_soon()
        return first

    def _are_all_busy(self) -> bool:
        """While calls are handed over nobody becomes free."""
        self._is_free = self._is_free and self._busy < self.settings.workers
        return not self._is_free

    @property
    def _busy(self) -> int:
        return sum(1 for each in self._hosts if each.calls)

    def _queue(self, call: Call) -> None:
        """Behind those that the host with the least work has."""
        try:
            holder = next(self._places, None)
            if holder is None or not holder.queue(call):
                self._is_full = True
                self.report(Returned(id=call.id))
                return
        except RecursionError as error:
            self._refuse(call, error, "could not start: its arguments are nested too deeply to be handed over")
            return
        self._look_soon()

    def _in_turn(self) -> Iterator[Host]:
        """Who has least gets the next, so that all have as many in the end."""
        limit = self.settings.max_tasks_per_worker
        for level in range(1, self._room + 1):
            for each in self._quick:
                if 0 < len(each.calls) <= level and not each.retired and not (limit and each.tasks >= limit):
                    yield each

    def _look_soon(self) -> None:
        if not self._has_queued:
            self._has_queued = True
            self.loop.call_at(self.loop.clock() + _LONGEST_AHEAD, self._look_for_slow)

    def _look_for_slow(self) -> None:
        """A thread that holds the interpreter is seen."""
        self._has_queued = False
        if self.has_threads or self._busy < self.settings.workers:
            self._relieve()
        if any(each.waiting for each in self._hosts):
            self._look_soon()

    def _relieve(self) -> None:
        """Nothing waits for long behind a slow call while somebody has nothing to do: it may begin there."""
        now = self.loop.clock()
        for each in tuple(self._hosts):
            if each.waiting and now - each.heard_at >= _LONGEST_AHEAD:
                each.look() if self.has_threads else each.take_back()

    def returned(self, each: Host, call_ids: list[int]) -> None:
        """They are ready again, the first of them as the first: so it is told last."""
        for call_id in reversed(call_ids):
            self.report(Returned(id=call_id))
        self._place(each)

    def _refuse(self, call: Call, error: Exception, message: str) -> None:
        self.report(Result(id=call.id, outcome=Outcome.FAILED, error=Error(type=type(error).__name__, message=message)))

    def take_back(self) -> None:
        """What waits in hosts is not to begin there: it is Returned, unless it has begun by then."""
        for each in tuple(self._hosts):
            each.take_back()

    def stop(self, call_id: int, rule: StopRule) -> None:
        """Stop an attempt: where it has its process to itself by signal, grace and SIGKILL; else abandon it."""
        holder = next((each for each in self._hosts if call_id in each.calls), None)
        if holder is None:
            return
        if self._mode.threads:
            holder.abandon(call_id, rule)
        else:
            holder.stop(call_id, rule)

    def close(self) -> None:
        """Ask every host to end; `closed` tells when all of them were joined."""
        self._idle.clear()
        for each in tuple(self._hosts):
            each.finish()
        self._forking.close()

    def dump(self) -> None:
        """Report where each host stands."""
        for each in self._hosts:
            each.dump()

    def kill(self) -> None:
        """End every host at once."""
        for each in tuple(self._hosts):
            each.kill()
        self._forking.kill()

    @property
    def closed(self) -> bool:
        return not self._hosts and self._forking.closed

    def _idle_host(self) -> Host | None:
        while self._idle:
            if not (holder := self._idle.pop()).retired:
                return holder
        return None

    def _shared_or_new(self, call: Call) -> Host:
        if self._mode.hosts is host.Hosts.ONE:
            for each in self._hosts:
                if not each.retired:
                    return each
        return self._new(call, limits.take_cpus(call.resources.cpus if call.resources else None))

    def _new(self, call: Call, cpus: frozenset[int]) -> Host:
        """A host for `call`."""
        self._started += 1
        try:
            with limits.on_cpus(cpus):
                new = Host(self, self._child(call, cpus), self._name(), cpus)
        except BaseException:
            limits.give_cpus_back(cpus)
            raise
        self._hosts.add(new)
        if self._is_holding:
            new.hold()
        return new

    def _name(self) -> str:
        """Of the worker where a host is one; the first part of its threads' names where it has threads."""
        if self._mode.threads:
            return self.name if self._started == 1 else f"{self.name}.{self._started}"
        return f"{self.name}-{self._started}"

    def _child(self, call: Call, cpus: frozenset[int]) -> tuple[Child, bytes]:
        settings, method = self._host_settings(), self.settings.start_method
        forker = self._forking.template(settings)
        first = encoded(call, has_process=True) if forker and self.is_for_one and not cpus else b""
        if len(first) > LONGEST:
            first = b""
        child = start_host(settings, method=method, folder=self.settings.folder, template=forker, call=first)
        limits.put_on(child.pid, cpus)
        return child, greeting(settings, method)

    def _host_settings(self) -> host.Settings:
        return host.Settings(
            pool=self._name(),
            worker=self._name() if not self.settings.executor else f"{self._name()}-executor",
            lane=self.settings.mode,
            workers=self.settings.workers,
            executor=self.settings.executor,
            path=self.settings.path,
            env=self.settings.env,
        )

    def _refused(self, why: str) -> None:
        self.report(Said(id=0, pool=self.name, data=f"preload: each worker imports for itself: {why}\n".encode()))

    # What hosts tell their pool.

    def began_child(self, pid: int) -> None:
        if self._reaper is not None:
            self._reaper.started(pid)

    def reaped_child(self, pid: int, done: Callable[[tuple[int, ...]], None]) -> None:
        """`done` is called with what the host left behind when that is gone; at once where nobody could find it."""
        if self._reaper is None:
            done(())
        else:
            self._reaper.reaped(pid)
            self._reaper.end_orphans(None, done)

    def ended(self, each: Host, result: Result) -> None:
        self.report(result)
        self.ended_all(each, [result.duration])

    def ended_all(self, each: Host, durations: list[float]) -> None:
        """Calls that have just been reported."""
        self._is_full = False
        took = sum(min(duration, _MOST_COUNTED) for duration in durations) / len(durations)
        self._mean = took if self._mean is None else took + (1 - _WEIGHT) ** len(durations) * (self._mean - took)
        self._place(each)

    def _place(self, each: Host) -> None:
        """A host that has just become empty: idle again, or at its end."""
        if each.calls or each.retired or self._mode.hosts is host.Hosts.ONE:
            return
        limit = self.settings.max_tasks_per_worker
        if limit and each.tasks >= limit:
            each.finish()
        else:
            self._idle.append(each)
            if self._has_queued:
                self._relieve()

    def ran(self, runs: Runs) -> None:
        """Together where that is wanted."""
        if self._tells_runs:
            self.report(runs)
        else:
            for row in runs.rows:
                for report in runs.reports(row):
                    self.report(report)

    def began(self) -> None:
        self._stillborn = 0

    def gone(self, each: Host, lost: list[int], exit: Exit) -> None:
        """A host was reaped; the calls in `lost` were handed to it, but never began."""
        self._hosts.discard(each)
        limits.give_cpus_back(each.cpus)
        if lost and not each.has_begun and not each.stopping:
            self._stillborn += 1
        most = _MOST_KILLED if exit.signal == signal.SIGKILL else _MOST_STILLBORN
        for call_id in reversed(lost):
            if self._stillborn < most + self.settings.workers:
                self.report(Returned(id=call_id))
            else:
                message = f"worker lost: its worker ended before it began ({exit}), {self._stillborn} times in a row"
                self.report(Result(id=call_id, outcome=Outcome.CRASHED, error=Error(type="WorkerDied", message=message)))
