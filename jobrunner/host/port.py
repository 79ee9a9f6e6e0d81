"""The host's end of its socket: calls come in, frames go out."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import queue
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from jobrunner import speech, work
from jobrunner.host import frames
from jobrunner.typed import Any, TypeAlias
from jobrunner.work import Call, Result

Begin: TypeAlias = "list[bytes]"
"""The frame that a call began, until it is taken."""
ENGINE_IS_GONE, NO_ROOM = 70, 72
_LONGEST_SAID = 1 << 20
_RECEIVE = 1 << 16
_NUMBER = 8
_MOST_UNSENT = 64
"""Frames that wait for the thread that sends them: with more, the one at hand sends them."""
POST_AFTER = 0.0005
"""Seconds that frames wait for others, unless a thread has nothing else to do: then it sends them."""


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
        self._unsent: list[bytes | Begin] = []
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
                    for call in frames.calls_of(line):
                        if self._queue is None or self._has_turn(self._queue, call.id):
                            yield call
                else:
                    self._answer(line)
        except OSError:
            os._exit(ENGINE_IS_GONE)

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
        if line.startswith(frames.CHANNEL):
            self.flush()
            if not self._given:  # there is no room for it here: what nobody has taken from there is to begin elsewhere
                os._exit(NO_ROOM)
            self._queue, self._mark = self._given.pop(), frames.MARK + line[len(frames.CHANNEL) :]
            self._told = frames.TOLD_BEFORE % self._last_id
            self._tell(0)
        elif line == frames.RINGS:
            self._open_rings()
        elif line == frames.BACK:
            self._send(["back", self.take_back()])
        elif line.startswith(frames.WHERE):
            call_id = int(line[len(frames.WHERE) :])
            self._send(["stack", call_id, _stack_of(self.threads.get(call_id, 0))])
        elif line == frames.PING:
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

    def taker(self, worker: str, native_id: int, ring: int, serial: int) -> Callable[[int, int], Begin]:
        """For one thread: tells that it is about to run a call, with the call's number and how many the thread has had by then.

        The engine knows, whatever becomes of this process and of what it has not sent. What it gives is for `ended_soon`.
        """
        told_of = b",%b,%d]\n" % (frames.quoted(worker), native_id)
        start = ring * frames.RING
        calls, most = start + frames.RING_HEAD, frames.RING - frames.RING_HEAD

        def took_up(call_id: int, tasks: int) -> Begin:
            if (rings := self._rings) is not None:
                rings[start], rings[start + 1] = native_id, serial
                rings[calls + tasks % most] = call_id
            begin = [b'["began",%d%b' % (call_id, told_of)]
            self._unsent.append(begin)
            self._send_soon()
            return begin

        return took_up

    def ended_soon(self, result: Result, begin: Begin) -> None:
        """Both in one frame, if the begin was not sent yet and there is no more to it."""
        began = _taken(begin) if frames.is_plain(result) else b""
        self._put(frames.ran_frame(began, result) if began else frames.result_frame(result, None))
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
            time.sleep(POST_AFTER)
            self.answer_bell()

    def began(self, call: Call, worker: str, thread: int | None = None) -> None:
        if self._mark:
            self._tell(call.id)
            return
        self._unsent.append(frames.BEGAN % (call.id, frames.quoted(worker), frames.thread_of(thread)))
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
        self._unsent.append(frames.JOINED % (frames.quoted(worker), frames.thread_of(thread), tasks, lived))

    def ended(self, result: Result, max_rss: int | None = None) -> None:
        self._put(frames.result_frame(result, max_rss))
        self.flush()

    def ended_before_next(self, result: Result, max_rss: int) -> None:
        """Told with the begin of the next call, or when there is none: one write for both."""
        self._exit_if_forked()
        self._last_id = result.id
        if self._mark and frames.is_plain(result) and result.value is not None and len(result.value) <= frames.MOST_AT_MARK:
            self._told = frames.TOLD % (result.id, result.duration, result.cpu, max_rss, result.value)
            return
        self._put(frames.result_frame(result, max_rss))
        if self._mark:  # what is large could be torn there
            self.flush()
            self._told = frames.TOLD_BEFORE % result.id

    def _tell(self, begins: int) -> None:
        """What was written until here is of the call before; from here on it is of the one that begins (0: of none)."""
        told, self._told = self._told, b""
        try:
            self.streams.mark(b"%b[%d%b\n" % (self._mark, begins, told or b"]"))
        except OSError:
            os._exit(ENGINE_IS_GONE)

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
                data = b"".join([each if isinstance(each, bytes) else _taken(each) for each in self._unsent[:count]])
                del self._unsent[:count]
                self._connection.sendall(data)
        except OSError:
            os._exit(ENGINE_IS_GONE)


def _taken(begin: Begin) -> bytes:
    """What it says; nothing where somebody else has taken it: the thread that it is of, or one that sends."""
    try:
        return begin.pop()
    except IndexError:
        return b""


def _stack_of(thread: int) -> str:
    """Where it stands, as faulthandler would write it: the most recent call first, down to what of jobrunner called the task."""
    lines = []
    frame = sys._current_frames().get(thread)
    while frame is not None and frame.f_code.co_filename != work.__file__:
        lines.append(f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}')
        frame = frame.f_back
    return "\n".join(["Thread (most recent call first):", *lines]) if lines else ""
