"""The far side: a process that runs the callables of one pool, and nothing of the engine. Standard library only.

        engine ──Call──▶ socket ──▶ lane ──▶ work.run ──Began, Said, Result, Joined──▶ socket ──▶ engine

Every frame is one line of JSON; the value of a result follows its frame as a line of its own, so that the engine can
pass it on unread. A lane is what a mode does with a Call. To add a mode: one small class below, and one row in MODES.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import gc
import itertools
import json
import math
import mmap
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import lru_cache, partial
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any, Protocol

from jobrunner import speech, system, work
from jobrunner.structs import replace, struct
from jobrunner.work import Call, Error, Outcome, Resources, Result, describe, kinds, resolve, run

if TYPE_CHECKING:  # only one lane needs them, and they load much that would be copied by every host
    from concurrent.futures import Executor, Future

_ENGINE_IS_GONE = 70
_CANNOT_SERVE = 71
_LEFT = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGKILL, signal.SIGSTOP}
_OURS = {"jobrunner", "__main__"}
_LONGEST_SAID = 1 << 20
_RECEIVE = 1 << 16
_NUMBER = 8
_MOST_AT_MARK = 1 << 11
"""Bytes of a value that may stand at a mark: a pipe takes 4 KiB in one piece."""
_PING = b""
CHANNEL = b"!"
"""How the line begins with which a host is given a queue; the mark of its output follows."""
BACK = b"-"
"""The line that asks a host of threads for the calls that nobody has taken up."""
RINGS = b"#"
"""The line with which a host of threads is given memory for its rings."""
RING = 256
"""Numbers of 8 bytes in a ring: the native id of its thread, the number in the name of its worker, and the calls that it took up
last, more than may be on their way to a host."""
RING_HEAD = 2
_MOST_UNSENT = 64
"""Frames that wait for the thread that sends them: with more, the one at hand sends them."""
_POST_AFTER = 0.0005
"""Seconds that frames wait for others, unless a thread has nothing else to do: then it sends them."""
_PEAK_AFTER = 0.001
"""Seconds for which the peak of a host's memory is not asked for again: calls that are shorter take little."""
MARK = b"\0"
"""How a mark in the output begins; the rest is what nobody else knows, and the call after which it stands."""
WHERE = b"?"
"""How a line begins that asks where the thread of a call stands; its id follows."""
STACK_SIGNAL = signal.SIGWINCH
"""Tells a host to write where its Python code stands. Ignored unless it is handled, so that it harms no task that has replaced
itself by another program or has put back all handlers, as one of the real-time signals would; and nobody else sends or handles it
here: it is about the size of a terminal, which a host has not. SIGUSR1, SIGUSR2 and the real-time signals are left to tasks."""
MAX_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage(2): kilobytes on Linux, bytes on macOS


class Hosts(StrEnum):
    """How many host processes a mode has."""

    ONE = "one for the pool"
    WORKER = "one for each worker, reused"
    ATTEMPT = "a fresh one for each attempt"


@struct
class Settings:
    """What a host is told when it starts."""

    pool: str
    worker: str
    lane: str
    workers: int
    executor: str
    path: list[str]
    env: dict[str, str]


_began_with: dict[str, str] = {}
"""The environment before any attempt."""


class Port:
    """The host's end of the socket pair: calls come in, frames go out; any thread may send. Owns the standard streams.

    The engine may give a host that runs one call at a time a queue: a pipe with the numbers of calls that are still to run, of
    which it takes one before each. From then on it says what ends and begins in its output, after a mark, in one write before the
    next call runs. A host of threads may get memory for `rings`, one for each worker: what a thread takes up stands there before
    it runs, so that this need not be sent at once.
    """

    def __init__(self, connection: socket.socket, streams: speech.Streams) -> None:
        self._connection, self.streams = connection, streams
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._unsent: list[bytes] = []
        self._lines: deque[bytes] = deque()
        self._pieces: list[bytes] = []
        self._queue: int | None = None
        self._turn = b""
        """The number that was taken from there, and whose call has not come."""
        self._given: list[int] = []
        self._rings: memoryview | None = None
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.ring: Callable[[], None] = partial(self._bell.put, None)
        """Have somebody answer the bell, soon."""
        self._is_rung = False
        self._mark = b""
        self._told = b""
        """How the last call has ended, as far as it is to be said at a mark; empty when it was."""
        self._last_id = 0
        self.take_back: Callable[[], list[int]] = list
        """Gives the calls of the lane that no thread has taken up; none of them will."""
        self.threads: dict[int, int] = {}
        """Calls that run in threads, and which (threading.get_ident)."""

    def is_here(self) -> None:
        """From now on it is this process that speaks."""
        self._pid = os.getpid()

    # In.

    def calls(self) -> Iterator[Call]:
        """Every Call until the engine closes its side."""
        try:
            while (line := self._next()) is not None:
                if line.startswith(b"{"):
                    call = _call_of(line)
                    if self._queue is None or self._has_turn(self._queue, call.id):
                        yield call
                else:
                    self._answer(line)
        except OSError:
            os._exit(_ENGINE_IS_GONE)

    def _next(self) -> bytes | None:
        """A line; None when the engine is gone. What was put off is sent before it waits."""
        if not self._lines:
            self.flush()
            while not self._lines:
                if not self._receive():
                    return None
        return self._lines.popleft()

    def _has_turn(self, queue: int, call_id: int) -> bool:
        """Nobody has taken it back, and from now on nobody can. The numbers stand there before their calls come."""
        if not self._turn:
            try:
                self._turn = os.read(queue, _NUMBER)
            except BlockingIOError:
                return False
        if int.from_bytes(self._turn, sys.byteorder, signed=True) != call_id:
            return False
        self._turn = b""
        return True

    def _receive(self) -> bool:
        """Take in lines from the engine, and what it gives with them."""
        data, given, _, _ = socket.recv_fds(self._connection, _RECEIVE, 1, socket.MSG_CMSG_CLOEXEC)
        self._given.extend(given)
        *lines, rest = data.split(b"\n")
        if lines and self._pieces:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces.clear()
        if rest:
            self._pieces.append(rest)
        self._lines.extend(lines)
        return bool(data)

    def _answer(self, line: bytes) -> None:
        if line.startswith(CHANNEL):
            self.flush()
            self._queue, self._mark = self._given.pop(), MARK + line[len(CHANNEL) :]
            self._told = _TOLD_BEFORE % self._last_id
            self._tell(0)
        elif line == RINGS:
            self._open_rings()
        elif line == BACK:
            self._send(["back", self.take_back()])
        elif line.startswith(WHERE):
            call_id = int(line[len(WHERE) :])
            self._send(["stack", call_id, _stack_of(self.threads.get(call_id, 0))])
        elif line == _PING:
            self._send(["alive"])

    def _open_rings(self) -> None:
        """Where tasks have left no room for the descriptor, the memory or the thread, every frame is sent at once, as before."""
        if not self._given:
            return
        fd = self._given.pop()
        with contextlib.suppress(OSError, RuntimeError):
            rings = memoryview(mmap.mmap(fd, 0)).cast("q")
            threading.Thread(target=self._post, name="post", daemon=True).start()
            self._rings = rings
        os.close(fd)

    # Out.

    def took_up(self, call: Call, worker: str, ring: int, serial: int, tasks: int) -> None:
        """A thread is about to run it. The engine knows, whatever becomes of this process and of what it has not sent."""
        native_id = threading.get_native_id()
        if self._rings is not None:
            start = ring * RING
            self._rings[start] = native_id
            self._rings[start + 1] = serial
            self._rings[start + RING_HEAD + tasks % (RING - RING_HEAD)] = call.id
        self._unsent.append(_BEGAN % (call.id, _quoted(worker), b"%d" % native_id))  # whoever forks does so later
        self._send_soon()

    def ended_soon(self, result: Result) -> None:
        self._put(_result_frame(result, None))
        self._send_soon()

    def _send_soon(self) -> None:
        """Now, where the engine would not know otherwise what has begun, or where much has come together."""
        if self._rings is None or len(self._unsent) >= _MOST_UNSENT:
            self.flush()
        elif not self._is_rung:
            self._is_rung = True
            self.ring()

    def answer_bell(self) -> None:
        """Send what threads have left to be sent: they go on meanwhile."""
        self._is_rung = False  # before it looks: who puts something from now on rings again
        self.flush()

    def _post(self) -> None:
        while True:
            self._bell.get()
            time.sleep(_POST_AFTER)
            self.answer_bell()

    def began(self, call: Call, worker: str, thread: int | None = None) -> None:
        if self._mark:
            self._tell(call.id)
            return
        self._put(_BEGAN % (call.id, _quoted(worker), b"null" if thread is None else b"%d" % thread))
        self.flush()

    def said(self, call_id: int, text: str) -> None:
        for start in range(0, len(text), _LONGEST_SAID):
            piece = text[start : start + _LONGEST_SAID]
            self._send(["said", call_id, piece.encode("utf-8", "backslashreplace").decode()])

    def joined(self, worker: str, thread: int | None, tasks: int, lived: float) -> None:
        self.joined_soon(worker, thread, tasks, lived)
        self.flush()

    def joined_soon(self, worker: str, thread: int | None, tasks: int, lived: float) -> None:
        """Told with what comes next: `answer_bell` has to follow."""
        self._put(json.dumps(["joined", worker, thread, tasks, lived], separators=(",", ":")).encode() + b"\n")

    def ended(self, result: Result, max_rss: int | None = None) -> None:
        self._put(_result_frame(result, max_rss))
        self.flush()

    def ended_before_next(self, result: Result, max_rss: int) -> None:
        """Told with the begin of the next call, or when there is none: one write for both."""
        self._exit_if_forked()
        self._last_id = result.id
        if self._mark and _is_plain(result) and result.value is not None and len(result.value) <= _MOST_AT_MARK:
            self._told = _TOLD % (result.id, result.duration, result.cpu, max_rss, result.value)
            return
        self._put(_result_frame(result, max_rss))
        if self._mark:  # what is large could be torn there
            self.flush()
            self._told = _TOLD_BEFORE % result.id

    def _tell(self, begins: int) -> None:
        """What was written until here is of the call before; from here on it is of the one that begins (0: of none)."""
        told, self._told = self._told, b""
        try:
            self.streams.mark(b"%b[%d%b\n" % (self._mark, begins, told or b"]"))
        except OSError:
            os._exit(_ENGINE_IS_GONE)

    def _send(self, frame: list[Any]) -> None:
        self._put(json.dumps(frame, separators=(",", ":")).encode() + b"\n")
        self.flush()

    def _put(self, data: bytes) -> None:
        self._exit_if_forked()
        self._unsent.append(data)

    def _exit_if_forked(self) -> None:
        """A fork by a target returned in the child too: it must not speak for this host, nor take its calls."""
        if os.getpid() != self._pid:
            os._exit(0)

    def flush(self) -> None:
        """Send what was put; in the order in which it was."""
        if self._told:
            self._tell(0)
        if not self._unsent:
            return
        try:
            with self._lock:
                count = len(self._unsent)
                data = b"".join(self._unsent[:count])
                del self._unsent[:count]
                self._connection.sendall(data)
        except OSError:
            os._exit(_ENGINE_IS_GONE)


@lru_cache(maxsize=64)
def _quoted(worker: str) -> bytes:
    return json.dumps(worker).encode()


_BEGAN = b'["began",%d,%b,%b]\n'
_PLAIN_RESULT = b'["result",%d,"succeeded",%.9f,%.9f,%b,null,"",null,true]\n%b\n'
"""As most of them are."""


_TOLD = b",%d,%.9f,%.9f,%d] %b"
_TOLD_BEFORE = b",%d]"
"""At a mark, after the number of the call that begins: how the one before has ended, or that this was sent before."""


def _is_plain(result: Result) -> bool:
    """Of a success there is no more to tell than its value and its measures."""
    is_plain = result.error is None and result.exit_code is None and not result.note and result.outcome is Outcome.SUCCEEDED
    return is_plain and result.value is not None and result.cpu is not None


def _result_frame(result: Result, max_rss: int | None) -> bytes:
    """One line, and the value as another one."""
    if _is_plain(result):
        rss = b"null" if max_rss is None else b"%d" % max_rss
        return _PLAIN_RESULT % (result.id, result.duration, result.cpu, rss, result.value)
    error = result.error and [result.error.type, result.error.message, result.error.traceback, *result.error.kinds]
    has_value = result.value is not None
    frame = ["result", result.id, result.outcome, result.duration, result.cpu, max_rss, result.exit_code, result.note, error]
    line = json.dumps([*frame, has_value], separators=(",", ":")).encode() + b"\n"
    return line + (result.value or b"") + b"\n" if has_value else line


_decode = json.JSONDecoder().raw_decode


def _call_of(line: bytes) -> Call:
    fields, _ = _decode(line.decode())  # json.loads would look for the encoding first
    get = fields.get
    call = Call(fields["id"], fields["target"], fields["args"], get("kwargs") or {}, get("env") or {}, get("cwd", ""))
    call.needed = get("needed", False)
    if (resources := get("resources")) is not None:
        call.resources = Resources(**resources)
    return call


def _stack_of(thread: int) -> str:
    """Where it stands, as faulthandler would write it: the most recent call first, down to what of jobrunner called the task."""
    lines = []
    frame = sys._current_frames().get(thread)
    while frame is not None and frame.f_code.co_filename != work.__file__:
        lines.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}')
        frame = frame.f_back
    return "\n".join(["Thread (most recent call first):", *lines]) if lines else ""


class Lane(Protocol):
    """What a mode does with a Call. `serve` runs in the main thread and returns when there are no more calls."""

    def __init__(self, port: Port, settings: Settings) -> None: ...
    def serve(self) -> None: ...


class InOrder:
    """`serial`, `process` and `process_pool`: in the main thread of this process, one at a time."""

    def __init__(self, port: Port, settings: Settings) -> None:
        self._port, self._worker = port, settings.worker
        self._first: Call | None = None
        """Of a host of one attempt that was forked with it."""
        self._folder, self._base_env = os.getcwd(), _began_with
        self._env: dict[str, str] = {}
        self._last_peak, self._peak_at = 0, -math.inf

    def become(self, worker: str, line: bytes) -> None:
        """Be the lane of `worker`, in the process that forks it. `line` is its call, or b"" where that is still to come."""
        self._worker = worker
        self._first = _call_of(line) if line else None

    def serve(self) -> None:
        self._port.is_here()
        try:
            if self._first is not None:
                self._take_up(self._first)
                return
            for call in self._port.calls():
                self._take_up(call)
        finally:
            self._port.flush()

    def _take_up(self, call: Call) -> None:
        self._port.began(call, self._worker)
        self._run(call)

    def _run(self, call: Call) -> None:
        try:
            self._prepare(call)
        except (OSError, ValueError) as error:
            result = Result(id=call.id, outcome=Outcome.FAILED, error=_could_not_start(error))
        else:
            result = _run_limited(call, call.resources.memory) if call.resources and call.resources.memory else run(call)
        signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm that this attempt set must not ring in the next
        self._port.streams.restore()
        self._port.ended_before_next(result, self._peak())

    def _peak(self) -> int:
        """Bytes. Asked for after every call that may have changed it by much: the system takes as long for it as for all else."""
        now = time.monotonic()
        if now - self._peak_at >= _PEAK_AFTER:
            self._last_peak, self._peak_at = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAX_RSS_UNIT, now
        return self._last_peak

    def _prepare(self, call: Call) -> None:
        """The working directory and environment of this attempt; those of the one before it are taken back."""
        os.chdir(call.cwd or self._folder)
        for name in self._env.keys() - call.env.keys():
            os.environ.pop(name, None)
            if name in self._base_env:
                os.environ[name] = self._base_env[name]
        for name, value in call.env.items():
            if self._env.get(name) != value or os.environ.get(name) != value:
                os.environ[name] = value
        self._env = call.env
        if call.resources is not None:
            _take_on(call.resources)


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
        with _or_dead():
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


class Foreign:
    """`executor: module:factory`: any PEP 3148 executor. Its workers are its own; here is one, the executor itself."""

    def __init__(self, port: Port, settings: Settings) -> None:
        self._port, self._settings = port, settings
        self._worker = settings.worker
        self._executor: Executor | None = None

    def serve(self) -> None:
        speech.install()
        started, tasks = time.monotonic(), 0
        for call in self._port.calls():
            tasks += 1
            self._port.began(call, self._worker)
            self._submit(call)
        if self._executor is not None:
            self._executor.shutdown(wait=True)
        self._port.joined(self._worker, None, tasks, time.monotonic() - started)

    def _submit(self, call: Call) -> None:
        from concurrent.futures import BrokenExecutor

        try:
            if self._executor is None:
                self._executor = resolve(self._settings.executor)(max_workers=self._settings.workers)
            executor = self._executor
            future = executor.submit(run_speaking, call)
        except BrokenExecutor:
            self._executor = None
            self._submit(call)
        except BaseException as error:  # a factory may raise anything; the attempt tells
            self._port.ended(Result(id=call.id, outcome=Outcome.FAILED, error=describe(error)))
        else:
            future.add_done_callback(lambda done: self._collect(call, done, executor))

    def _collect(self, call: Call, future: Future[tuple[Result, str]], executor: Executor) -> None:
        from concurrent.futures import BrokenExecutor

        try:
            result, text = future.result()
        except BrokenExecutor as error:
            if self._executor is executor:  # it will never run anything again: the next call gets a new one
                self._executor = None
            self._port.ended(Result(id=call.id, outcome=Outcome.CRASHED, error=describe(error)))
        except BaseException as error:  # whatever an executor answers is this attempt's ending
            self._port.ended(Result(id=call.id, outcome=Outcome.FAILED, error=describe(error)))
        else:
            if text:
                self._port.said(call.id, text)
            self._port.ended(result)


def run_speaking(call: Call) -> tuple[Result, str]:
    """`work.run` for an executor's worker, wherever it is: the Result, and what the target printed."""
    speech.install()
    said: list[str] = []
    pid = os.getpid()
    with speech.Voice(said.append):
        result = run(call, time.thread_time)
    if os.getpid() != pid:  # a fork that returned in the child too: a second worker would take the first one's calls
        os._exit(0)
    return result, "".join(said)


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


@struct(kw_only=False)
class Mode:
    """One row of MODES."""

    lane: type[Lane]
    hosts: Hosts
    threads: bool = False
    """Attempts share one process: its environment, its working directory, and its death."""
    has_queue: bool = False
    """Calls may wait in its hosts for their turn."""


MODES: dict[str, Mode] = {
    "serial": Mode(InOrder, Hosts.ONE),
    "thread": Mode(ThreadPerCall, Hosts.ONE, threads=True, has_queue=True),
    "thread_pool": Mode(ThreadPool, Hosts.ONE, threads=True, has_queue=True),
    "process": Mode(InOrder, Hosts.ATTEMPT),
    "process_pool": Mode(InOrder, Hosts.WORKER, has_queue=True),
    "executor": Mode(Foreign, Hosts.ONE, threads=True),
}


def prepare(settings: Settings, stack: int) -> speech.Streams:
    """Make this process one that may run targets: what is the same for all hosts of a pool.

    Standard input, output and error are already those of a host. The descriptor `stack` takes where its Python code stands when
    it is asked, or killed by an error in C code.
    """
    faulthandler.enable(stack)
    faulthandler.register(STACK_SIGNAL, stack)
    _reset_signals()
    sys.path[:0] = settings.path
    _prefer_modules_in(settings.path)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    os.environ.update(settings.env)
    _began_with.update(os.environ)
    return speech.Streams()


def _begin(connection: socket.socket, settings: Settings, streams: speech.Streams) -> None:
    """Serve until the engine closes its side."""
    sys.argv = [settings.worker]
    main(lambda: MODES[settings.lane].lane(Port(connection, streams), settings).serve())


def main(serve: Callable[[], None]) -> None:
    """In every host the lowest frame that is of interest."""
    gc.enable()  # the command line runs without, and so does a fork until it has begun
    try:
        with _or_dead():
            serve()
    except KeyboardInterrupt:  # between two attempts: whoever sent it wants this host to end
        os._exit(128 + signal.SIGINT)


@contextlib.contextmanager
def _or_dead() -> Iterator[None]:
    """What serves either goes on or ends its process: no memory or no room for a thread, and its calls go to another host."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:
        traceback.print_exc()
        os._exit(_CANNOT_SERVE)


def _reset_signals() -> None:
    """As in any interpreter: what our parents had ignored or handled is theirs. Python itself ignores PIPE and XFSZ."""
    handled = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
    ignored = (number for number in signal.valid_signals() - _LEFT if signal.getsignal(number) is signal.SIG_IGN)
    for number in (*handled, *ignored):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _prefer_modules_in(folders: list[str]) -> None:
    """What stands beside the job file is found first, also where a module of that name is loaded already, for the engine.

    Who has imported the other one keeps it. Modules that are part of the interpreter itself cannot be replaced.
    """
    beside = {entry.removesuffix(".py") for folder in folders for entry in _entries(folder)}
    for name in [name for name in sys.modules if name.partition(".")[0] in beside - _OURS]:
        if getattr(sys.modules[name].__spec__, "origin", None) not in ("built-in", "frozen"):
            del sys.modules[name]


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # gone, or not readable: then nothing can be imported from it either
        return []


def forked(connection: socket.socket, output: int, stack: int, settings: Settings, folder: str, parent: int) -> None:
    """Where a forked host begins: tie its life to that of the engine, drop everything that was inherited, then serve."""
    _die_with(parent)
    gc.disable()
    gc.freeze()  # garbage of the engine's is never collected here: it would close what are our descriptors now, by their number
    os.setsid()
    signal.set_wakeup_fd(-1)
    _keep_only(connection.fileno(), output, stack)
    os.chdir(folder)
    streams = prepare(settings, _STACK)
    _begin(socket.socket(fileno=_CONNECTION), settings, streams)


def rehearsed(settings: Settings, streams: speech.Streams) -> InOrder:
    """The lane of all hosts that this process will fork, after some calls; its connection is the descriptor 3.

    What is made once when it is first used, and what the interpreter writes into code until it knows it, would else be copied by
    every host.
    """
    near, far = socket.socketpair()
    os.dup2(far.fileno(), _CONNECTION, inheritable=False)
    lane = InOrder(Port(socket.socket(fileno=_CONNECTION), streams), settings)
    with near, far:
        for number in range(_REHEARSALS):
            lane.become(settings.worker, _REHEARSED % number)
            main(lane.serve)
            _look_for_modules()
    return lane


_REHEARSALS = 12
"""The interpreter (3.11) rewrites a function for speed after eight calls."""
_REHEARSED = b'{"id":0,"target":"builtins:abs","args":[0],"env":{"JOBRUNNER_ITEM":"%d"}}'


def _look_for_modules() -> None:
    """Find one as a target is found, and read its code: folders of sys.path are looked into here, not by every host."""
    spec = PathFinder.find_spec(__name__.rpartition(".")[0])
    if spec is not None and (get_code := getattr(spec.loader, "get_code", None)) is not None:
        get_code(spec.name)
    PathFinder.find_spec("no_such_module")  # all folders


def cloned(lane: InOrder, parent: int) -> None:
    """Where a host begins that a template has forked: all is in its place."""
    _die_with(parent)
    os.setsid()
    if (numpy_random := sys.modules.get("numpy.random")) is not None:  # Python's own does so itself after a fork
        with contextlib.suppress(Exception):
            numpy_random.seed()
    main(lane.serve)


def spawned(connection_fd: int, stack: int, parent: int) -> None:
    """Where a spawned host begins: its settings are the first line on its socket."""
    _die_with(parent)
    connection = socket.socket(fileno=connection_fd)
    for fd in (connection_fd, stack):
        os.set_inheritable(fd, False)
    line = bytearray()
    while not line.endswith(b"\n"):
        if not (piece := connection.recv(1)):
            os._exit(_ENGINE_IS_GONE)
        line += piece
    settings = Settings(**json.loads(line))
    _begin(connection, settings, prepare(settings, stack))


def _die_with(parent: int) -> None:
    """A host does not outlive the engine, and what its tasks leave behind stays below it, whatever that does."""
    system.die_with(parent)
    system.become_subreaper()


_CONNECTION, _STACK, _FIRST_FREE = 3, 4, 5


def _keep_only(connection: int, output: int, stack: int) -> None:
    """Nothing to read, the output, the socket and the pipe for stacks, from 0 on; all others are closed: a sibling's copy of a
    socket would hide its death. Closed first, since the engine may have had none left."""
    end = os.sysconf("SC_OPEN_MAX")
    for below, above in itertools.pairwise((-1, *sorted((connection, output, stack)), end)):
        os.closerange(below + 1, above)
    null = os.open(os.devnull, os.O_RDONLY)
    safe = [fcntl.fcntl(fd, fcntl.F_DUPFD, _FIRST_FREE) for fd in (null, output, output, connection, stack)]
    for number, fd in enumerate(safe):
        os.dup2(fd, number, inheritable=number < _CONNECTION)
    os.closerange(_FIRST_FREE, end)


def _could_not_start(error: OSError | ValueError) -> Error:
    """Its folder cannot be entered, its environment holds what none can hold (a NUL), or there is not what it may use."""
    match error:
        case OSError(strerror=None):
            why = str(error)
        case OSError():
            why = f"{error.strerror}: {error.filename}"
        case _:
            why = f"env or cwd: {error}"
    return Error(type=type(error).__name__, message=f"could not start: {why}", kinds=kinds(type(error)))


# --- what an attempt may use --------------------------------------------------------------------------------------------------


def _take_on(resources: Resources) -> None:
    """Limit this process; on its CPUs it is already. Raises OSError, which says what cannot be had."""
    if resources.nice is not None:
        _be_nice(resources.nice)
    if resources.memory is not None:
        _take_memory(resources.memory)


def _be_nice(nice: int) -> None:
    try:
        os.nice(nice)
    except OSError as error:
        raise type(error)(f"resources: nice {nice}: {error.strerror}") from None
    # Where the system weighs whole sessions (sched(7), autogroup), niceness counts only within one: so this one gets it too.
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "wb", buffering=0) as file:
        file.write(b"%d" % nice)


def _take_memory(limit: int) -> None:
    """The limit that can be lifted again: else a process that is out of memory could not tell so."""
    taken = _data_size()
    if limit <= taken:
        raise OSError(f"resources: memory {_mebibytes(limit)} is less than the {_mebibytes(taken)} that Python itself has taken")
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _data_size() -> int:
    """Bytes that count for RLIMIT_DATA, and the stack; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.readall().split()[5]) * resource.getpagesize()
    except OSError:
        return 0


_shortages: list[Error] = []


def _run_limited(call: Call, limit: int) -> Result:
    """`work.run`; where memory was out, that is the error."""
    target = f"{__name__}:{within_limit.__name__}"
    try:
        result = run(replace(call, target=target, args=[call.target, *call.args]))
    except MemoryError as error:  # nothing was left for its report
        result = Result(id=call.id, outcome=Outcome.FAILED, error=describe(error))
    _lift_memory_limit()
    shortage = _shortages.pop() if _shortages else result.error
    if result.error is None or shortage is None or not shortage.type.endswith("MemoryError"):  # as libraries name theirs, too
        return result
    message = out_of_memory(limit, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAX_RSS_UNIT)
    return replace(result, error=replace(shortage, type="OutOfMemory", message=message))


def within_limit(target: str, *args: Any, **kwargs: Any) -> Any:
    """Call the target; a want of memory is described before it goes on, and without the limit: that takes memory."""
    try:
        return resolve(target)(*args, **kwargs)
    except MemoryError as error:
        _lift_memory_limit()
        _shortages.append(describe(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)))
        raise


def _lift_memory_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def out_of_memory(limit: int | None, peak: int | None) -> str:
    """`out of memory (limit 512 MiB, peak 498 MiB)`, of which what is not known is left out.

    A peak far below the limit was no want of memory: one large allocation was, and had no part in the peak.
    """
    if limit and peak and 2 * peak < limit:
        return f"out of memory (limit {_mebibytes(limit)}; an allocation was refused)"
    figures = ", ".join(f"{name} {_mebibytes(size)}" for name, size in (("limit", limit), ("peak", peak)) if size)
    return f"out of memory ({figures})" if figures else "out of memory"


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
