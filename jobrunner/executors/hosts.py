"""The hosts of one pool as the engine sees them: handing over, death, stopping, recycling, joining.

start(call) ─▶ host with room, or a new one ─Call─▶ … ─Began─▶ … ─Result─▶ idle, recycled or ended
stop(call)  ─▶ a host of one attempt: signal, grace, SIGKILL
               a host of many: the attempt is abandoned, the host gets no new work and is killed when empty,
               or when it does not answer a ping within the grace (a thread that never lets go of the GIL)
death       ─▶ calls that began are CRASHED, calls that did not are returned; nobody else is touched
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from jobrunner import host
from jobrunner.executors.children import Child, greeting, start_host
from jobrunner.executors.processes import PIPE_READS, Exit, read_available, signal_group
from jobrunner.loop import Loop, Timer, Watch
from jobrunner.work import (
    LARGEST_RESULT,
    Began,
    Call,
    Error,
    Outcome,
    Report,
    Result,
    Returned,
    Said,
    StopRule,
    WorkerDied,
    WorkerJoined,
    WorkerStarted,
)

_CLOSING_GRACE = 5.0
"""Seconds that a host without work may take to end, for instance because a task left a thread running."""
_MOST_STILLBORN = 3
"""So many hosts in a row, besides one for each worker, may end before they begin any call; then calls fail instead of being
tried for ever. Workers that are killed together from outside must not look like workers that cannot start."""
_RECEIVE = 1 << 18
_LONGEST_LINE = LARGEST_RESULT + (1 << 20)
"""Bytes of a line from a host: a result, or a frame with a traceback. More without a line end is no frame."""
_PING = b"\n"
_LEAST_PATIENCE = 1.0
"""Seconds that a host with an abandoned thread has to answer a ping, even where the task's grace is shorter."""


@dataclass(frozen=True, slots=True, kw_only=True)
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


def start_method(wanted: str | None) -> str:
    """How hosts are started: as wanted, else forked, which is quick and safe in a process with one thread on Linux."""
    if wanted is not None:
        return wanted
    return "spawn" if sys.platform == "darwin" or threading.active_count() > 1 else "fork"


class HostPool:
    """An executor of Calls. Never blocks and never raises for a task's fault; everything it has to say is a Report."""

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.slots = settings.workers
        self._mode = host.MODES[settings.mode]
        self._holders: dict[int, _Host] = {}
        self._hosts: set[_Host] = set()
        self._idle: list[_Host] = []
        self._started = 0
        self._stillborn = 0

    def open(self, loop: Loop, report: Callable[[Report], None]) -> None:
        """Get ready; hosts are started when there is work for them."""
        self.loop, self.report = loop, report

    def start(self, call: Call) -> None:
        """Hand `call` to a host; its Began and its Result follow as reports."""
        try:
            holder = self._idle_host() or self._shared_or_new()
        except OSError as error:
            message = f"could not start a worker process: {error.strerror}"
            self.report(Result(id=call.id, outcome=Outcome.FAILED, error=Error(type=type(error).__name__, message=message)))
            return
        self._holders[call.id] = holder
        holder.hand_over(call)

    def stop(self, call_id: int, rule: StopRule) -> None:
        """Stop an attempt: where it has its process to itself by signal, grace and SIGKILL; else abandon it."""
        holder = self._holders.get(call_id)
        if holder is None:
            return
        if self._mode.threads:
            holder.abandon(call_id, rule)
        else:
            holder.end(rule)

    def close(self) -> None:
        """Ask every host to end; `closed` tells when all of them were joined."""
        self._idle.clear()
        for each in tuple(self._hosts):
            each.finish()

    def kill(self) -> None:
        """End every host at once."""
        for each in tuple(self._hosts):
            each.kill()

    @property
    def closed(self) -> bool:
        return not self._hosts

    def _idle_host(self) -> _Host | None:
        while self._idle:
            if not (holder := self._idle.pop()).retired:
                return holder
        return None

    def _shared_or_new(self) -> _Host:
        if self._mode.hosts is host.Hosts.ONE:
            for each in self._hosts:
                if not each.retired:
                    return each
        self._started += 1
        new = _Host(self, self._child(), self._name())
        self._hosts.add(new)
        return new

    def _name(self) -> str:
        """Of the worker where a host is one; the first part of its threads' names where it has threads."""
        if self._mode.threads:
            return self.settings.name if self._started == 1 else f"{self.settings.name}.{self._started}"
        return f"{self.settings.name}-{self._started}"

    def _child(self) -> tuple[Child, bytes]:
        settings = host.Settings(
            pool=self._name(),
            worker=self._name() if not self.settings.executor else f"{self._name()}-executor",
            lane=self.settings.mode,
            workers=self.settings.workers,
            executor=self.settings.executor,
            path=self.settings.path,
            env=self.settings.env,
        )
        method = self.settings.start_method
        return start_host(settings, method=method, folder=self.settings.folder), greeting(settings, method)

    # What hosts tell their pool.

    def ended(self, each: _Host, result: Result) -> None:
        self._holders.pop(result.id, None)
        self.report(result)
        self._place(each)

    def _place(self, each: _Host) -> None:
        """A host that has just become empty: idle again, or at its end."""
        if each.calls or each.retired or self._mode.hosts is host.Hosts.ONE:
            return
        limit = self.settings.max_tasks_per_worker
        if self._mode.hosts is host.Hosts.ATTEMPT or (limit and each.tasks >= limit):
            each.finish()
        else:
            self._idle.append(each)

    def began(self) -> None:
        self._stillborn = 0

    def gone(self, each: _Host, lost: list[int], exit: Exit) -> None:
        """A host was reaped; the calls in `lost` were handed to it, but never began."""
        self._hosts.discard(each)
        if lost and not each.has_begun and not each.stopping:
            self._stillborn += 1
        for call_id in lost:
            del self._holders[call_id]
            if self._stillborn < _MOST_STILLBORN + self.settings.workers:
                self.report(Returned(id=call_id))
            else:
                message = f"its worker ended before it began ({exit}), {self._stillborn} times in a row"
                self.report(Result(id=call_id, outcome=Outcome.CRASHED, error=Error(type="WorkerDied", message=message)))

    @property
    def has_threads(self) -> bool:
        return self._mode.threads


class _Host:
    """One host process, from its start until it was joined."""

    def __init__(self, pool: HostPool, started: tuple[Child, bytes], name: str) -> None:
        self._pool, (self._child, greeting), self.name = pool, started, name
        self.calls: dict[int, bool] = {}
        """Calls in flight, and whether they began."""
        self.tasks = 0
        self.has_begun = False
        """It took up a call: it is able to work."""
        self.retired = False
        """It gets no new calls."""
        self.stopping = False
        """It was told to end whatever it does."""
        self._finishing = False
        """It was told to end when it has nothing to do."""
        self._abandoned: set[int] = set()
        self._threads: dict[str, int | None] = {}
        self._started = pool.loop.clock()
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._frame: list[Any] | None = None
        self._unsent = bytearray(greeting)
        self._unsent_watch: Watch | None = None
        self._timer: Timer | None = None
        self._ping_timer: Timer | None = None
        self._patience = 0.0
        self._cause = ""
        self._watches = [
            pool.loop.watch(self._child.pidfd, self._on_exit),
            pool.loop.watch(self._child.connection.fileno(), self._on_frames),
            pool.loop.watch(self._child.output, self._on_output),
        ]
        if not pool.has_threads:
            pool.report(WorkerStarted(pool=pool.settings.name, worker=name, pid=self._child.pid))

    # Towards the host.

    def hand_over(self, call: Call) -> None:
        self.calls[call.id] = False
        self.tasks += 1
        self._send(_encoded(call) + b"\n")

    def abandon(self, call_id: int, rule: StopRule) -> None:
        """Give up one attempt of many: it is over for the run, its thread may go on until this host is killed."""
        if call_id not in self.calls or call_id in self._abandoned:
            return
        self._abandoned.add(call_id)
        self.retired = True
        self._pool.ended(self, Result(id=call_id, outcome=Outcome.CANCELLED, abandoned=True))
        self._finish_if_empty()
        if self._ping_timer is None:
            self._patience = max(rule.grace, _LEAST_PATIENCE)
            self._ping()

    def _ping(self) -> None:
        """Ask whether it still works for its other calls: an abandoned thread may hold the interpreter, now or later."""
        self._send(_PING)
        self._ping_timer = self._pool.loop.call_at(self._pool.loop.clock() + self._patience, self._kill_as_deaf)

    def _on_alive(self) -> None:
        self._forget_ping()
        self._ping_timer = self._pool.loop.call_at(self._pool.loop.clock() + self._patience, self._ping)

    def _kill_as_deaf(self) -> None:
        self._cause = f"its process did not answer for {self._patience:g} s: a thread holds the interpreter, or it was stopped"
        self.kill()

    def end(self, rule: StopRule) -> None:
        """End this host: the rule's signal to its group, after the grace SIGKILL."""
        if self.stopping:
            return
        self.stopping = self.retired = True
        signal_group(self._child.pid, rule.signal)
        self._kill_at(rule.grace)

    def finish(self) -> None:
        """No more calls: let it end by itself, soon. What it still runs was abandoned: nobody waits for that."""
        self.retired = self._finishing = True
        if self.calls:
            self.kill()
            return
        with contextlib.suppress(OSError):
            self._child.connection.shutdown(socket.SHUT_WR)
        self._kill_at(_CLOSING_GRACE)

    def kill(self) -> None:
        self.stopping = self.retired = True
        signal_group(self._child.pid, signal.SIGKILL)

    def _finish_if_empty(self) -> None:
        if not self.retired or self.calls.keys() - self._abandoned:
            return
        self.finish()

    def _kill_at(self, grace: float) -> None:
        if self._timer is None:
            self._timer = self._pool.loop.call_at(self._pool.loop.clock() + grace, self.kill)

    def _send(self, data: bytes) -> None:
        self._unsent += data
        if self._unsent_watch is None:
            self._on_writable()

    def _on_writable(self) -> None:
        try:
            del self._unsent[: self._child.connection.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it is dead or dying: its pidfd tells
            self._unsent.clear()
        if self._unsent and self._unsent_watch is None:  # a descriptor of its own: a selector takes each only once
            self._unsent_watch = self._pool.loop.watch(os.dup(self._child.connection.fileno()), self._on_writable, writable=True)
        elif not self._unsent:
            self._forget_writable()

    def _forget_writable(self) -> None:
        if self._unsent_watch is not None:
            self._unsent_watch.close()
            os.close(self._unsent_watch.fd)
            self._unsent_watch = None

    # From the host.

    def _on_frames(self) -> bool:
        """Take in what has come; False where nothing had. End of file or garbage makes a host useless: it is killed."""
        try:
            data = self._child.connection.recv(_RECEIVE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        try:
            for line in self._lines(data):
                self._on_line(line)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            self._cause, data = "it sent what is no frame", b""
        if not data:
            self._hang_up()
        return bool(data)

    def _lines(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. Raises ValueError where one becomes longer than any that a host sends."""
        *lines, rest = data.split(b"\n")
        if lines and self._pieces:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces, self._waiting = [], 0
        if rest:
            self._pieces.append(rest)
            self._waiting += len(rest)
        if self._waiting > _LONGEST_LINE:
            raise ValueError(self._waiting)
        return lines

    def _hang_up(self) -> None:
        self._watches[1].close()
        self.retired = True
        if not self._finishing:
            signal_group(self._child.pid, signal.SIGKILL)

    def _on_line(self, line: bytes) -> None:
        if self._frame is not None:
            frame, self._frame = self._frame, None
            self._on_result(frame, line)
            return
        frame = orjson.loads(line)
        match frame[0]:
            case "result" if frame[-1]:
                self._frame = frame
            case "result":
                self._on_result(frame, None)
            case "began":
                self._on_began(*frame[1:])
            case "said":
                self._say(frame[1], frame[2].encode())
            case "joined":
                self._on_joined(*frame[1:])
            case "alive":
                self._on_alive()
            case other:
                raise ValueError(other)

    def _on_began(self, call_id: int, worker: str, pid: int, thread: int | None) -> None:
        if call_id not in self.calls:
            raise KeyError(call_id)
        self.calls[call_id] = self.has_begun = True
        self._pool.began()
        if self._pool.has_threads and worker not in self._threads:
            self._threads[worker] = thread
            self._pool.report(WorkerStarted(pool=self._pool.settings.name, worker=worker, pid=pid, thread=thread))
        if call_id not in self._abandoned:
            self._pool.report(Began(id=call_id, worker=worker, pid=pid, thread=thread))

    def _on_result(self, frame: list[Any], value: bytes | None) -> None:
        if not self._pool.has_threads:
            self._on_output()  # all it printed was written before this frame
        result = _decoded(frame, value)
        del self.calls[result.id]
        self._pool.ended(self, result)
        self._finish_if_empty()

    def _on_joined(self, worker: str, thread: int | None, tasks: int, lived: float) -> None:
        self._threads.pop(worker, None)
        name = self._pool.settings.name
        self._pool.report(WorkerJoined(pool=name, worker=worker, pid=self._child.pid, thread=thread, tasks=tasks, lived=lived))

    def _on_output(self) -> None:
        for _ in range(PIPE_READS):  # and no more: one who never stops writing must not keep the engine here
            if not (data := read_available(self._child.output)):
                break
            speaker = next(iter(self.calls)) if len(self.calls) == 1 else 0
            self._say(speaker, data)
        if data is None:
            self._watches[2].close()

    def _say(self, call_id: int, data: bytes) -> None:
        self._pool.report(Said(id=call_id, pool=self._pool.settings.name, data=data))

    # Its end.

    def _on_exit(self) -> None:
        """It is a zombie now: read what it left, end its group while the number is still its own, then reap it."""
        self._drain()
        signal_group(self._child.pid, signal.SIGKILL)
        exit = Exit.of(self._child.reap())
        self._release()
        lost = [call_id for call_id, began in self.calls.items() if not began]
        if self.stopping or self.calls or self._threads or not self._finishing:
            self._report_death(exit)
        crashed = [call_id for call_id, began in self.calls.items() if began and call_id not in self._abandoned]
        self.calls.clear()
        self.retired = True
        for call_id in crashed:
            self._pool.ended(self, self._crash(call_id, exit))
        self._report_joined(exit)
        self._pool.gone(self, lost, exit)

    def _drain(self) -> None:
        """Everything it sent before it died. Its last frame may be torn, and a child of it may hold the socket open."""
        while self._watches[1].active and self._on_frames():
            pass
        self._on_output()

    def _release(self) -> None:
        for watch in self._watches:
            watch.close()
        self._forget_writable()
        self._forget_ping()
        if self._timer is not None:
            self._timer.cancel()
        self._child.connection.close()
        os.close(self._child.pidfd)
        os.close(self._child.output)

    def _forget_ping(self) -> None:
        if self._ping_timer is not None:
            self._ping_timer.cancel()

    def _workers(self) -> Iterator[tuple[str, int | None]]:
        if self._pool.has_threads:
            yield from self._threads.items()
        else:
            yield self.name, None

    def _report_death(self, exit: Exit) -> None:
        for worker, thread in self._workers():
            died = WorkerDied(pool=self._pool.settings.name, worker=worker, pid=self._child.pid, thread=thread, reason=str(exit))
            self._pool.report(died)

    def _report_joined(self, exit: Exit) -> None:
        lived = self._pool.loop.clock() - self._started
        for worker, thread in self._workers():
            self._pool.report(
                WorkerJoined(
                    pool=self._pool.settings.name,
                    worker=worker,
                    pid=self._child.pid,
                    thread=thread,
                    tasks=self.tasks,
                    lived=lived,
                    exit_code=exit.code,
                    signal=exit.signal,
                )
            )

    def _crash(self, call_id: int, exit: Exit) -> Result:
        how = str(exit) if exit.signal else f"ended with {exit} before the task returned"
        message = f"worker {self.name} (pid {self._child.pid}) {'was ' if exit.signal else ''}{how}"
        error = Error(type="WorkerDied", message=f"{message}: {self._cause}" if self._cause else message)
        return Result(id=call_id, outcome=Outcome.CRASHED, error=error, exit_code=exit.code, signal=exit.signal)


def _encoded(call: Call) -> bytes:
    try:
        return orjson.dumps(call)
    except TypeError:  # a whole number beyond 64 bits, a lone surrogate from the environment: slower, but they pass
        return json.dumps(asdict(call)).encode()


def _decoded(frame: list[Any], value: bytes | None) -> Result:
    _, call_id, outcome, duration, cpu, max_rss, exit_code, note, error, _ = frame
    return Result(
        id=call_id,
        outcome=Outcome(outcome),
        duration=duration,
        cpu=cpu,
        max_rss=max_rss,
        exit_code=exit_code,
        note=note,
        error=Error(type=error[0], message=error[1], traceback=error[2]) if isinstance(error, list) else None,
        value=value,
    )
