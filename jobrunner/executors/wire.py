"""The engine's end of the socket to a host: Calls out, frames in, neither of which ever blocks.

A frame is one line of JSON; the value of a result is the line after it, and is passed on unread. Calls that are to wait in a host
of processes go through a Channel instead, which is given to the host when there is the first of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import orjson

from jobrunner import host
from jobrunner.executors.channel import LONGEST, Channel
from jobrunner.loop import Loop, Watch
from jobrunner.work import LARGEST_RESULT, MOST_KINDS, Call, Error, Outcome, Result

Frame = list[Any]

_RECEIVE = 1 << 16  # more is not taken from the heap, but mapped and unmapped each time
_LONGEST_LINE = LARGEST_RESULT + (1 << 20)
"""Bytes of a line from a host: a result, or a frame with a traceback. More without a line end is no frame."""
_PING = b"\n"
_NO_DESCRIPTOR = 0.02
"""Seconds to the next try to send, where there is no descriptor to be told by that there is room."""

_FAR_OUTCOMES = {str(each): each for each in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CRASHED)}
"""A task can write to its host's socket, and what is no result must not get any further."""
_NUMBER = (int, float)


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
    ) -> None:
        self._loop, self._connection = loop, connection
        self._on_frame, self._on_hang_up = on_frame, on_hang_up
        self._unsent = bytearray()
        self._unsent_watch: Watch | None = None
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._frame: Frame | None = None
        self._is_held = False
        self._channel: Channel | None = None
        self._watch = loop.watch(connection.fileno(), self.receive)

    # Out.

    def call(self, data: bytes) -> None:
        """Send an encoded call to a host that has nothing else to do."""
        if self._channel is None or len(data) > LONGEST or not self._channel.put(data):
            self.send(data + b"\n")

    def queue(self, data: bytes) -> bool:
        """Put an encoded call behind those that the host has. False where there is no room, or no way, for it."""
        return len(data) <= LONGEST and self._channel is not None and self._channel.put(data)

    def open_channel(self, mark: bytes) -> bool:
        """Give the host a channel, over which its calls come from now on. False where that is not possible now."""
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
        """The queued calls that the host has not seen, and will not see."""
        return [_id_of(call) for call in self._channel.take_back()] if self._channel is not None else []

    def ask_back(self) -> None:
        """Have the host give back what waits in it: a frame `back` answers, if the interpreter can."""
        self.send(host.BACK + b"\n")

    def hold(self) -> None:
        """Send nothing before `release`: what follows goes together."""
        self._is_held = True

    def release(self) -> None:
        self._is_held = False
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
            return False
        except OSError:
            data = b""
        why = ""
        try:
            for line in self._lines(data):
                self._take(line)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            why, data = "it sent what is no frame", b""
        if not data and self._watch.active:
            self._watch.close()
            self._on_hang_up(why)
        return bool(data)

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

    def _take(self, line: bytes) -> None:
        if self._frame is not None:
            frame, self._frame = self._frame, None
            self._on_frame(frame, line)
            return
        frame = orjson.loads(line)
        if frame[0] == "result" and frame[-1]:
            self._frame = frame  # its value is the next line
        else:
            self._on_frame(frame, None)


def result_of(frame: Frame, value: bytes | None) -> Result:
    """The Result in a frame. Raises ValueError or TypeError where it is none."""
    _, call_id, outcome, duration, cpu, max_rss, exit_code, note, error, _ = frame
    if (
        outcome not in _FAR_OUTCOMES
        or type(call_id) is not int
        or type(duration) not in _NUMBER
        or not (cpu is None or type(cpu) in _NUMBER)
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


def _error_of(texts: list[str]) -> Error:
    if type(texts) is not list or not all(type(text) is str for text in texts):
        raise ValueError(texts)
    kind, message, traceback, *kinds = texts
    return Error(type=kind, message=message, traceback=traceback, kinds=tuple(kinds[:MOST_KINDS]))


def _id_of(call: bytes) -> int:
    """Of an encoded call: it begins with its id."""
    return int(call[len('{"id":') : call.index(b",")])


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
            fields["resources"] = asdict(call.resources)
    try:
        return orjson.dumps(fields)
    except TypeError:  # a whole number beyond 64 bits, a lone surrogate from the environment: slower, but they pass
        return json.dumps(fields).encode()
