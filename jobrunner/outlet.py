"""An output that cannot hurt the run: lines for a reader who may be slow, stalled or gone, on a disk that may be full.

    write ─▶ queue ─flush─▶ file          the file takes no more: the queue waits (8 MiB), then new lines are dropped and counted

Nothing here blocks, whoever shares the file. A pipe or terminal is opened once more for a file description of our own, for
O_NONBLOCK on the one that was handed to us would make everybody else's writes fail too.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import re
import select
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence

from jobrunner.loop import Loop, Watch
from jobrunner.structs import struct
from jobrunner.typed import Any, BinaryIO

MOST_QUEUED = 8 << 20
"""Bytes that wait for their reader, with what Python needs to keep them."""
_OVERHEAD = 64
_LARGEST_GROUP = 1 << 16
"""Bytes of lines that are made one write, about."""
_RETRY_AFTER = 1.0
"""Seconds after which a file that failed is tried again."""
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF, errno.ENXIO})
"""Errors after which no write can ever succeed: nobody is there."""
_LINE_END = ord("\n")
_STALLED = "its reader stalled"

Degraded = Callable[[str, str, int], None]
"""Called with the name of an output, the reason and the lines that were dropped so far."""


@struct
class _Port:
    """Where bytes go. `send` never blocks: it takes some, or raises BlockingIOError where the reader must read first."""

    send: Callable[[memoryview], int]
    waits_for: int | None = None
    """The descriptor, of our own, that tells when more can be sent; None where nothing can tell."""
    most: int = sys.maxsize
    """Bytes that are written as a whole or not at all."""
    takes_groups: bool = False
    """Several lines may be one write."""
    gone: frozenset[int] = _GONE
    held: _Held | None = None


class _Held:
    """Closes what it is given when nobody holds it any more. (`weakref.finalize` would have to be loaded.)"""

    __slots__ = ("_close", "_what")

    def __init__(self, close: Callable[[Any], None], what: Any) -> None:
        self._close, self._what = close, what

    def __del__(self) -> None:
        self._close(self._what)


class Outlet:
    """A file that is written line by line through a bounded queue. Lost lines are counted, and told through `attach`.

    Until it is attached every write is handed on at once, as far as the file takes it. A reader that has gone ends the output
    quietly. `torn` says that the file ends within a line: the next begins on one of its own.
    """

    def __init__(self, file: BinaryIO, *, name: str, torn: bool = False) -> None:
        self.name, self.dropped = name, 0
        self._port: _Port | None = _port(file)
        self._is_terminal = _is_terminal(file)
        self._queue: deque[bytes] = deque()
        self._queued = self._sent = 0
        self._torn = torn
        self._not_before = 0.0
        self._reason = _STALLED
        self._is_attached = self._is_degraded = self._is_untold = self._is_given_up = False
        self._told = 0
        self._loop: Loop | None = None
        self._watch: Watch | None = None
        self._degraded: Degraded = lambda name, reason, dropped: None

    def isatty(self) -> bool:
        """Whether people read it as it is written."""
        return self._is_terminal

    def attach(self, loop: Loop, degraded: Degraded) -> None:
        """From now on writes only queue, until `flush`; `loop` tells when a stalled reader reads again.

        `degraded` is called by `flush` when lines begin to be lost, and by `finish` with the final count.
        """
        self._loop, self._degraded, self._is_attached = loop, degraded, True

    def write(self, lines: bytes) -> None:
        """Queue whole lines, each with its line end. Never blocks, never raises; where the queue is full, they are dropped."""
        if self._port is None:
            return
        if self._torn:
            self._torn, lines = False, b"\n" + lines
        self._queue.append(lines)
        self._queued += len(lines) + _OVERHEAD
        if not self._is_attached or self._queued > MOST_QUEUED:
            self._send()
        if self._queued > MOST_QUEUED and len(self._queue) > 1:
            self._drop(self._queue.pop(), 0)

    def write_all(self, lines: Sequence[bytes]) -> None:
        """As `write`, one line after the other; where several may be one write, as one."""
        if len(lines) > 1 and self._port is not None and self._port.takes_groups:
            lines = (b"".join(lines),)
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what the file takes now, and tell if lines are being lost. To be called after each turn of the loop."""
        if self._queue:
            self._send()
        if self._is_untold:
            self._tell()

    def finish(self, patience: float) -> None:
        """Write what is queued, for at most so many seconds; drop and count the rest. Loop and callback are let go.

        More can be written afterwards, and be finished again; a reader who has used the patience up then gets none.
        """
        self._unwatch()
        self._loop = None
        self._send_patiently(0.0 if self._is_given_up else patience)
        self._is_given_up = self._is_given_up or bool(self._queue)
        while self._queue:
            self._drop(self._queue.pop(), 0 if self._queue else self._sent)
        if self.dropped > self._told:
            self._tell()
        self._degraded = lambda name, reason, dropped: None

    def close(self) -> None:
        """Nothing is written any more, and what is queued is dropped uncounted. The file that was handed over stays open."""
        self._end()

    # What the file takes.

    def _send(self) -> None:
        """Write until nothing is queued or the file takes no more."""
        if self._not_before and self._not_before > time.monotonic():
            return
        while self._queue and self._port is not None:
            if self._port.takes_groups and len(self._queue) > 1:
                self._group(len(self._queue[0]))
            try:
                sent = self._port.send(self._piece(self._port.most))
            except BlockingIOError:
                self._stall(self._port)
                return
            except (OSError, ValueError) as error:
                self._fail(error, self._port)
                return
            self._sent += sent
            if self._sent == len(self._queue[0]):
                self._queued -= len(self._queue.popleft()) + _OVERHEAD
                self._sent = 0
        self._unwatch()
        self._is_degraded, self._not_before = False, 0.0

    def _group(self, length: int) -> None:
        """Make one piece of the first lines of the queue: a write costs as much for fifty as for one."""
        lines = [self._queue.popleft()]
        while self._queue and length < _LARGEST_GROUP:
            length += len(self._queue[0])
            lines.append(self._queue.popleft())
        self._queue.appendleft(b"".join(lines))
        self._queued -= _OVERHEAD * (len(lines) - 1)

    def _piece(self, most: int) -> memoryview:
        """Whole lines of what comes next, no more than are written in one piece; a longer line alone."""
        head, start = self._queue[0], self._sent
        rest = memoryview(head)[start:]
        if len(rest) <= most:
            return rest
        end = head.rfind(b"\n", start, start + most) + 1 or head.find(b"\n", start) + 1
        return rest[: end - start] if end else rest

    def _stall(self, port: _Port) -> None:
        self._reason = _STALLED
        if self._loop is None:
            return
        if port.waits_for is None:
            self._not_before = time.monotonic() + _RETRY_AFTER
            return
        self._not_before = math.inf
        if self._watch is None:
            self._watch = self._loop.watch(port.waits_for, self._resume, writable=True)

    def _resume(self) -> None:
        self._not_before = 0.0
        self._send()

    def _fail(self, error: OSError | ValueError, port: _Port) -> None:
        number = error.errno if isinstance(error, OSError) else errno.EBADF
        if number in port.gone:
            self._end()
            return
        self._reason = os.strerror(number or errno.EIO)
        if number == errno.EMSGSIZE:  # no datagram can hold it
            self._drop(self._queue.popleft(), self._sent)
            return
        self._not_before = time.monotonic() + _RETRY_AFTER
        self._begin_degraded()

    def _end(self) -> None:
        self._unwatch()
        self._port = None
        self._queue.clear()
        self._queued = self._sent = 0

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._not_before = 0.0

    def _send_patiently(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        self._send()
        while self._queue and self._port is not None and not self._not_before:
            left = deadline - time.monotonic()
            if left <= 0 or self._port.waits_for is None or not _is_writable(self._port.waits_for, left):
                return
            self._send()

    # What is lost.

    def _drop(self, lines: bytes, sent: int) -> None:
        """`lines` have left the queue, with only the first `sent` bytes written."""
        if sent:
            self._sent, self._torn = 0, lines[sent - 1] != _LINE_END
        self.dropped += lines.count(b"\n", sent)
        self._queued -= len(lines) + _OVERHEAD
        self._begin_degraded()

    def _begin_degraded(self) -> None:
        if not self._is_degraded:
            self._is_degraded = self._is_untold = True

    def _tell(self) -> None:
        self._is_untold, self._told = False, self.dropped
        self._degraded(self.name, self._reason, self.dropped)


# --- files -------------------------------------------------------------------------------------------------------------------


def _port(file: BinaryIO) -> _Port | None:
    """How to write to `file` without blocking; its descriptor is closed with the port. None where it is closed."""
    try:
        with contextlib.suppress(OSError):  # as far as it was buffered
            file.flush()
        own = os.dup(file.fileno())
    except io.UnsupportedOperation:
        return _Port(send=file.write)
    except (OSError, ValueError):
        return None
    kind = os.fstat(own).st_mode
    if stat.S_ISSOCK(kind):
        return _socket(own)
    if stat.S_ISFIFO(kind):
        return _reopened(own, _write_pipe, _GONE)
    if os.isatty(own):
        return _reopened(own, _write_terminal, _GONE | {errno.EIO})  # what it says when it has hung up
    return _Port(send=lambda data: os.write(own, data), takes_groups=True, held=_Held(os.close, own))


def _reopened(fd: int, write: Callable[[int, memoryview], int], gone: frozenset[int]) -> _Port:
    """A pipe or terminal, opened for ourselves; where that is refused, `write` takes care not to block."""
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # it is another user's (su), nobody reads it, or there is no /proc
        own = fd
    else:
        os.close(fd)
        write = os.write
    held = _Held(os.close, own)
    return _Port(send=lambda data: write(own, data), waits_for=own, most=select.PIPE_BUF, gone=gone, held=held)


def _write_pipe(fd: int, data: memoryview) -> int:
    """One that can be written at all has room for PIPE_BUF bytes."""
    if not _is_writable(fd, 0):
        raise BlockingIOError
    return os.write(fd, data[: select.PIPE_BUF])


_TERMINAL_PIECE = rb"[^\n\r\t\b]{1,512}|[\n\r\t\b]"
"""What a terminal of Linux that can be written at all takes as one: it asks for room again at a character that it expands."""


def _write_terminal(fd: int, data: memoryview) -> int:
    piece = re.match(_TERMINAL_PIECE, data)
    if piece is None or not _is_writable(fd, 0):
        raise BlockingIOError
    return os.write(fd, piece[0])


def _socket(fd: int) -> _Port:
    import socket  # hardly ever is there one

    own = socket.socket(fileno=fd)
    flags = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
    return _Port(
        send=lambda data: own.send(data, flags), waits_for=fd, most=select.PIPE_BUF, held=_Held(socket.socket.close, own)
    )


def _is_writable(fd: int, patience: float) -> bool:
    """Whether it can be written, or has broken, within so many seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(math.ceil(patience * 1000)))


def _is_terminal(file: BinaryIO) -> bool:
    try:
        return file.isatty()
    except ValueError:
        return False
