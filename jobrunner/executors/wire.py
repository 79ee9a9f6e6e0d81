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
from collections.abc import Callable, Sequence

from jobrunner import host
from jobrunner.encoding import exact_dumps, loads
from jobrunner.executors.channel import LONGEST, Channel
from jobrunner.loop import Loop, Watch
from jobrunner.structs import values
from jobrunner.typed import Any
from jobrunner.work import LARGEST_RESULT, MOST_KINDS, Call, Error, Outcome, Result

Frame = list[Any]
FramesTaker = Callable[[list[tuple[Frame, bytes | None]]], None]

NOT_A_FRAME = (ValueError, TypeError, KeyError, IndexError, AttributeError)
"""What comes of taking something else for a frame."""
NO_FRAME = "it sent what is no frame"

_RECEIVE = 1 << 16  # more is not taken from the heap, but mapped and unmapped each time
_LONGEST_LINE = LARGEST_RESULT + (1 << 20)
"""Bytes of a line from a host: a result, or a frame with a traceback. More without a line end is no frame."""
_PING = b"\n"
_NO_DESCRIPTOR = 0.02
"""Seconds to the next try to send, where there is no descriptor to be told by that there is room."""

_FAR_OUTCOMES = {str(each): each for each in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CRASHED)}
"""A task can write to its host's socket, and what is no result must not get any further."""
_SUCCEEDED = Outcome.SUCCEEDED  # a look into an enum takes 70 ns
_NUMBER = (int, float)
_MOST = 1e12
"""Seconds."""
_TOLD = 4
"""Fields of a result that stands at a mark."""


_MEASURED, _PLAIN = 5, [None, None, "", None, True]
"""Behind the measures of a plain success of a thread."""
_RESULT = ["result"]
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

    def queue(self, call_id: int, data: bytes) -> bool:
        """Put an encoded call behind those that the host has. False where there is no room, or no way, for it."""
        if len(data) > LONGEST or self._channel is None or self._unsent_watch is not None:
            return False
        self._turns.append(call_id)
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
        frames = [(frame, next(pairs, _NONE)[1] if _has_value(frame) else None) for frame, _ in pairs]
        if frames and frames[-1][1] is None and _has_value(frames[-1][0]):
            self._frame, _ = frames.pop()  # its value is on the way
        on_frames(frames)
        return True

    def _take(self, line: bytes) -> None:
        if self._frame is not None:
            frame, self._frame = self._frame, None
            self._on_frame(frame, line)
            return
        frame = loads(line)
        if frame[0] == "result" and frame[-1]:
            self._frame = frame  # its value is the next line
        else:
            self._on_frame(frame, None)


def is_time(seconds: Any) -> bool:
    """As a host measures it: no NaN, which no JSON may hold."""
    return type(seconds) in _NUMBER and abs(seconds) < _MOST


def result_of(frame: Frame, value: bytes | None) -> Result:
    """The Result in a frame. Raises ValueError or TypeError where it is none."""
    _, call_id, outcome, duration, cpu, max_rss, exit_code, note, error, _ = frame
    if (
        outcome not in _FAR_OUTCOMES
        or type(call_id) is not int
        or not is_time(duration)
        or not (cpu is None or is_time(cpu))
        or not (max_rss is None or type(max_rss) is int)
        or not (exit_code is None or type(exit_code) is int)
        or type(note) is not str
    ):
        raise ValueError(outcome)
    return Result(
        id=call_id,
        outcome=_FAR_OUTCOMES[outcome],
        duration=duration,
        cpu=cpu,
        max_rss=max_rss,
        exit_code=exit_code,
        note=note,
        error=None if error is None else _error_of(error),
        value=value,
    )


Turn = tuple[int, Result | None]
"""Which call begins (0: none), and how the one before has ended, if that is told."""


def turns_of(marks: Sequence[bytes]) -> list[Turn | None]:
    """What stands at each of many marks, read as one piece of JSON; None for what is to be looked at by itself."""
    parts = [mark.partition(b" ") for mark in marks]
    try:
        fields = loads(b"[%b]" % b",".join([each for each, _, _ in parts]))
    except ValueError:
        fields = ()
    if len(fields) != len(marks):
        return [None] * len(marks)
    return [_turn(each, value) for each, (_, _, value) in zip(fields, parts, strict=True)]


def _turn(fields: Any, value: bytes) -> Turn | None:
    if type(fields) is not list or len(fields) != 1 + _TOLD:
        return (fields[0], None) if type(fields) is list and len(fields) == 1 and type(fields[0]) is int else None
    begins, ended, duration, cpu, max_rss = fields
    if not (type(begins) is type(ended) is type(max_rss) is int and type(duration) is type(cpu) is float):
        return None
    if not (abs(duration) < _MOST and abs(cpu) < _MOST):
        return None
    return begins, Result(id=ended, outcome=_SUCCEEDED, duration=duration, cpu=cpu, max_rss=max_rss, value=value)


def _has_value(frame: Any) -> bool:
    """What is no list is no frame, which its taker finds out."""
    return type(frame) is list and frame[:1] == _RESULT and bool(frame[-1])


def plain_result(frame: Frame, value: bytes | None) -> Result | None:
    """The Result in a frame of a thread that tells a plain success, as most do; None where it has to be looked at."""
    if value is None or frame[_MEASURED:] != _PLAIN:  # TypeError where it is no list
        return None
    _, call_id, outcome, duration, cpu, *_ = frame
    is_measured = type(duration) is type(cpu) is float and abs(duration) < _MOST and abs(cpu) < _MOST
    if outcome != "succeeded" or type(call_id) is not int or not is_measured:
        return None
    return Result(id=call_id, outcome=_SUCCEEDED, duration=duration, cpu=cpu, value=value)


def turn_of(mark: bytes) -> tuple[int, int, Result | None]:
    """What stands at a mark: which call begins, which has ended (0: none), and how, unless it was told before.

    Raises ValueError or TypeError where it is no such thing.
    """
    fields, _, value = mark.partition(b" ")
    begins, *told = loads(fields)
    if type(begins) is not int or (told and type(told[0]) is not int):
        raise ValueError(mark)
    if len(told) < _TOLD:
        return begins, told[0] if told else 0, None
    ended, duration, cpu, max_rss = told
    is_measured = type(duration) is type(cpu) is float and is_time(duration) and is_time(cpu)
    if not is_measured or type(max_rss) is not int:
        raise ValueError(mark)
    result = Result(id=ended, outcome=_SUCCEEDED, duration=duration, cpu=cpu, max_rss=max_rss, value=value)
    return begins, ended, result


def _error_of(texts: list[str]) -> Error:
    if type(texts) is not list or not all(type(text) is str for text in texts):
        raise ValueError(texts)
    kind, message, traceback, *kinds = texts
    return Error(type=kind, message=message, traceback=traceback, kinds=tuple(kinds[:MOST_KINDS]))


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
    try:
        return exact_dumps(fields)
    except TypeError:  # a whole number beyond 64 bits, a lone surrogate from the environment: slower, but they pass
        return json.dumps(fields).encode()
