"""The engine's end of the socket to a host: Calls out, frames in, neither of which ever blocks.

A frame is one line of JSON; the value of a result is the line after it, and is passed on unread. A host in which calls are to
wait is given a Channel when there is the first of them: what goes out from then on counts when its number is there, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from jobrunner import host
from jobrunner.encoding import exact_dumps, loads
from jobrunner.executors.channel import LONGEST, Channel
from jobrunner.executors.told import NOT_A_FRAME, Frame, has_value
from jobrunner.loop import Loop, Watch
from jobrunner.structs import values
from jobrunner.work import LARGEST_RESULT, Call, Calls

FramesTaker = Callable[[list[tuple[Frame, bytes | None]]], None]

NO_FRAME = "it sent what is no frame"

_RECEIVE = 1 << 16  # more is not taken from the heap, but mapped and unmapped each time
_LONGEST_LINE = LARGEST_RESULT + (1 << 20)
"""Bytes of a line from a host: a result, or a frame with a traceback. More without a line end is no frame."""
_PING = b"\n"
_NO_DESCRIPTOR = 0.02
"""Seconds to the next try to send, where there is no descriptor to be told by that there is room."""

_NONE = (None, None)
_MANY = 4
"""Lines from which on it pays to read them together."""


class Wire:
    """One host's socket. `on_frame` gets each frame with the value that follows it; it raises for one that cannot be.

    `on_hang_up` is called once: the far end has closed, or sent what is no frame (then with the reason).
    """

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        *,
        on_frame: Callable[[Frame, bytes | None], None],
        on_hang_up: Callable[[str], None],
        later: bool = False,
    ) -> None:
        """With `later` nothing that comes is taken in before `attend`, unless one drains it."""
        self._loop, self._connection = loop, connection
        self._on_frame, self._on_hang_up = on_frame, on_hang_up
        self.on_frames: FramesTaker | None = None
        """Gets those that come together at once, where there is such a one; as `on_frame`."""
        self._unsent = bytearray()
        self._unsent_watch: Watch | None = None
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._frame: Frame | None = None
        self._is_held = False
        self._channel: Channel | None = None
        self._turns: list[int] = []
        """Numbers for the channel, while they are held."""
        self._lines: deque[bytes] = deque()
        self.received = 0
        """Bytes; whoever looks at it may begin anew."""
        self._watch = (loop.watch_later if later else loop.watch)(connection.fileno(), self.receive)

    def attend(self) -> None:
        """Raises OSError where there is no room."""
        self._watch.begin()

    # Out.

    def call(self, call_id: int, data: bytes) -> None:
        """Send an encoded call to a host that has nothing else to do."""
        if self._channel is not None:
            self._turns.append(call_id)
            if not self._is_held:
                self._put_turns()
        self.send(data + b"\n")

    def queue(self, call_ids: Iterable[int], data: bytes) -> bool:
        """Put encoded calls behind those that the host has. False where there is no room, or no way, for them."""
        if len(data) > LONGEST or self._channel is None or self._unsent_watch is not None:
            return False
        self._turns += call_ids
        self._unsent += data
        self._unsent += b"\n"
        if not self._is_held:
            self.release()
        return True

    def _put_turns(self) -> None:
        """Before the calls themselves: of one without a number the host thinks that it was taken back."""
        if self._turns and self._channel is not None:
            turns, self._turns = self._turns, []
            try:
                self._channel.put(turns)
            except OSError:
                self._break("it does not take its turns")

    def open_channel(self, mark: bytes) -> bool:
        """Give the host a channel, over which its calls come from now on. False where that is not possible now."""
        if self._unsent and self._unsent_watch is None:
            self._flush()  # it was held
        if self._channel is None and not self._unsent:
            with contextlib.suppress(OSError):
                channel = Channel()
                try:
                    channel.give(self._connection, host.CHANNEL + mark + b"\n")
                except BaseException:
                    channel.close()
                    raise
                self._channel = channel
        return self._channel is not None

    def give_rings(self, fd: int) -> bool:
        """Have a host of threads write there what they take up. False where that is not possible now."""
        if self._unsent:
            return False
        with contextlib.suppress(OSError):
            line = host.RINGS + b"\n"
            return socket.send_fds(self._connection, [line], [fd]) == len(line)
        return False

    def take_back(self) -> list[int]:
        """The calls that the host has not taken up, and will not."""
        self._put_turns()
        return self._channel.take_back() if self._channel is not None else []

    def ask_back(self) -> None:
        """Have the host give back what waits in it: a frame `back` answers, if the interpreter can."""
        self.send(host.BACK + b"\n")

    def hold(self) -> None:
        """Send nothing before `release`: what follows goes together."""
        self._is_held = True

    def release(self) -> None:
        self._is_held = False
        if self._turns:
            self._put_turns()
        if self._unsent and self._unsent_watch is None:
            self._flush()

    def ping(self) -> None:
        self.send(_PING)

    def ask(self, call_id: int) -> None:
        """Where the thread of this call stands: a frame `stack` answers, if the interpreter can."""
        self.send(host.WHERE + b"%d\n" % call_id)

    def send(self, data: bytes) -> None:
        """Send as much as fits now, and the rest when there is room."""
        self._unsent += data
        if self._unsent_watch is None and not self._is_held:
            self._flush()

    def shut(self) -> None:
        """Nothing more will be sent."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    @property
    def is_sent(self) -> bool:
        """Nothing waits for room."""
        return not self._unsent

    def _flush(self) -> None:
        try:
            del self._unsent[: self._connection.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it is dead or dying: its pidfd tells
            self._unsent.clear()
        if self._unsent and self._unsent_watch is None:
            self._send_later()
        elif not self._unsent:
            self._forget_unsent()

    def _send_later(self) -> None:
        try:
            self._unsent_watch = self._loop.watch(os.dup(self._connection.fileno()), self._flush, writable=True)
        except OSError:  # no descriptor is left, and a selector takes each only once: look again soon
            self._loop.call_at(self._loop.clock() + _NO_DESCRIPTOR, self._flush)

    def _forget_unsent(self) -> None:
        if self._unsent_watch is not None:
            self._unsent_watch.close()
            os.close(self._unsent_watch.fd)
            self._unsent_watch = None

    # In.

    def receive(self) -> bool:
        """Take in what has come; False where nothing had."""
        try:
            data = self._connection.recv(_RECEIVE)
        except BlockingIOError:
            self._take_lines(b"")
            return False
        except OSError:
            data = b""
        self.received += len(data)
        self._take_lines(data)
        if not data:
            self._break("")
        return bool(data) and self._watch.active

    def _take_lines(self, data: bytes) -> None:
        """Frames may come to be wanted while one of them is dealt with: then they are, in their order."""
        try:
            lines = self._whole_lines(data)
            if self.on_frames is not None and self._take_together(self.on_frames, lines):
                return
            self._lines.extend(lines)
            while self._lines:
                self._take(self._lines.popleft())
        except NOT_A_FRAME:
            self._lines.clear()
            self._break(NO_FRAME)

    def _break(self, why: str) -> None:
        if self._watch.active:
            self._watch.close()
            self._on_hang_up(why)

    def drain(self) -> None:
        """Take in all that is there. The last frame may be torn, and somebody else may hold the far end open."""
        while self._watch.active and self.receive():
            pass

    def close(self) -> None:
        self._watch.close()
        self._forget_unsent()
        self._connection.close()
        if self._channel is not None:
            self._channel.close()

    def _whole_lines(self, data: bytes) -> list[bytes]:
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

    def _take_together(self, on_frames: FramesTaker, lines: list[bytes]) -> bool:
        """Read as one piece of JSON, in which values stand among frames. False where that is not all that there is to it."""
        if self._lines or len(lines) < _MANY:
            return False
        if self._frame is not None:
            self._take(lines.pop(0))
        try:
            told = loads(b"[%b]" % b",".join(lines))
        except ValueError:
            return False
        if len(told) != len(lines):
            return False
        pairs = iter(zip(told, lines, strict=True))
        frames = [(frame, next(pairs, _NONE)[1] if has_value(frame) else None) for frame, _ in pairs]
        if frames and frames[-1][1] is None and has_value(frames[-1][0]):
            self._frame, _ = frames.pop()  # its value is on the way
        on_frames(frames)
        return True

    def _take(self, line: bytes) -> None:
        if self._frame is not None:
            frame, self._frame = self._frame, None
            self._on_frame(frame, line)
            return
        frame = loads(line)
        if has_value(frame):
            self._frame = frame  # its value is the next line
        else:
            self._on_frame(frame, None)


def pieces(calls: Calls, *, has_process: bool) -> list[tuple[Sequence[int], bytes]]:
    """As `encoded`, of many, in pieces that may wait in a host unless one call alone is too long; with each its numbers.

    None at all where one of them is nested too deeply.
    """
    try:
        return list(_pieces(calls, has_process))
    except RecursionError:
        return []


def _pieces(calls: Calls, has_process: bool) -> Iterator[tuple[Sequence[int], bytes]]:
    data = _encoded_together(calls, has_process)
    if len(data) <= LONGEST or len(calls) == 1:
        yield calls.ids, data
        return
    half = len(calls) // 2
    for some in slice(half), slice(half, None):
        yield from _pieces(calls.some(some), has_process)


def _encoded_together(calls: Calls, has_process: bool) -> bytes:
    fields: dict[str, object] = {"ids": list(calls.ids), "target": calls.target, "args": calls.args}
    if any(calls.kwargs):
        fields["kwargs"] = calls.kwargs
    if has_process:
        fields |= {"env": calls.env, "own_env": calls.own_env, "cwd": calls.cwd}
    return _line(fields)


def encoded(call: Call, *, has_process: bool) -> bytes:
    """As it goes out, without what is as it is by default. Raises RecursionError for what is nested too deeply."""
    fields: dict[str, object] = {"id": call.id, "target": call.target, "args": call.args}
    if call.kwargs:
        fields["kwargs"] = call.kwargs
    if call.needed:
        fields["needed"] = True
    if has_process:
        fields["env"] = call.env
        if call.cwd:
            fields["cwd"] = call.cwd
        if call.resources is not None:
            fields["resources"] = values(call.resources)
    return _line(fields)


def _line(fields: dict[str, object]) -> bytes:
    try:
        return exact_dumps(fields)
    except TypeError:  # a whole number beyond 64 bits, a lone surrogate from the environment: slower, but they pass
        return json.dumps(fields).encode()
