"""What a host prints: its standard streams, and which attempt a thread speaks for. Standard library only: the far side.

`sys.stdout` and `sys.stderr` of a host of threads are replaced once by a `Speech`, which looks up who speaks. A thread
without an attempt (one that a task started itself) speaks for nobody, and goes on to the real stream. `Streams` are those
of the whole process.
"""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

Listener = Callable[[str], None]
_LONGEST_PIECE = 8192
_voices: dict[int, Voice] = {}
"""By thread. (A new thread pays less for an entry here than for a `threading.local` of its own.)"""


class Speech(io.TextIOBase):
    """A text stream that hands what is written to the listener of the writing thread, line by line."""

    def __init__(self, behind: TextIO) -> None:
        self._behind = behind

    def write(self, text: str) -> int:
        voice = _voices.get(threading.get_ident())
        if voice is None:
            return self._behind.write(text)
        voice.say(str(text))
        return len(text)

    def flush(self) -> None:
        voice = _voices.get(threading.get_ident())
        if voice is None:
            self._behind.flush()
        else:
            voice.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._behind.fileno()

    def reconfigure(self, **_: object) -> None:
        """Lines are passed on when they are whole, in UTF-8, whatever is asked."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def buffer(self) -> Any:
        """For `sys.stdout.buffer.write(bytes)`."""
        return _Bytes(self)


class _Bytes(io.RawIOBase):
    def __init__(self, speech: Speech) -> None:
        self._speech = speech

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._speech.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)

    def flush(self) -> None:
        self._speech.flush()


class Voice:
    """One attempt's voice in one thread: collects what is written until a line is whole."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._pieces: list[str] | None = None
        self._size = 0

    def __enter__(self) -> Voice:
        _voices[threading.get_ident()] = self
        return self

    def __exit__(self, *_: object) -> None:
        _voices.pop(threading.get_ident(), None)  # a child that the task forked has none any more
        if self._pieces:
            self.flush()

    def say(self, text: str) -> None:
        if self._pieces is None:
            self._pieces = []
        self._pieces.append(text)
        self._size += len(text)
        if "\n" in text or self._size > _LONGEST_PIECE:
            self.flush()

    def flush(self) -> None:
        if self._pieces:
            text = "".join(self._pieces)
            self._pieces, self._size = None, 0
            self._listener(text)


_installed: dict[str, Speech] = {}


def install() -> None:
    """Put a Speech in place of both standard streams of this process, or back in place where a task has replaced it."""
    if not _installed:
        os.register_at_fork(after_in_child=_forget_voice)
    for name in ("stdout", "stderr"):
        if name not in _installed:
            _installed[name] = Speech(getattr(sys, name))
        setattr(sys, name, _installed[name])


def _forget_voice() -> None:
    """A child that a task forks has no say on this process's connection: it writes to the real streams."""
    _voices.clear()


class _Patient(io.FileIO):
    """Waits for room also where some program that a task ran has made the other end of its output not wait, for all."""

    def write(self, data: Any) -> int:
        count: int | None = super().write(data)
        if count is None:
            os.set_blocking(self.fileno(), True)
            count = super().write(data)
        return count


def _stream(number: int) -> io.TextIOWrapper:
    """As `open` makes one. It lives as long as the process."""
    buffer = io.BufferedWriter(_Patient(number, "w", closefd=False))
    return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)


class Streams:
    """Standard output and error of this host, as they were at its start.

    They are not the engine's, which may be closed or hold text that is the engine's to write. A line is written as soon
    as it is whole, so that a crash loses no line that was printed.
    """

    def __init__(self) -> None:
        self._open()
        self.adopt()

    def adopt(self) -> None:
        """What 1 and 2 are now is theirs: in a host that was forked with them, another pipe."""
        self._spare = os.dup(1)

    def _open(self) -> None:
        self._out, self._err = _stream(1), _stream(2)
        sys.stdout = sys.__stdout__ = self._out  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = self._err  # type: ignore[misc]

    def restore(self) -> None:
        """Write out what is buffered, and undo what a task did to the streams: closed, replaced or redirected them."""
        is_broken = self._out.closed or self._err.closed
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # whatever a task left in their place may raise anything
                is_broken = True
        try:  # a call of nothing pays for `suppress`
            os.dup2(self._spare, 1)  # which takes less time than to ask whether it has to be done
            os.dup2(self._spare, 2)
        except OSError:  # a task has closed all that is open: the next word to the engine ends this host
            pass
        if is_broken:
            self._open()
        sys.stdout, sys.stderr = self._out, self._err

    def mark(self, data: bytes) -> None:
        """Write it all, in one piece, where the streams wrote when they were new. Raises OSError where nobody reads any more."""
        while True:
            try:
                os.write(self._spare, data)
            except BlockingIOError:  # some program that a task ran has made it so, for all
                select.select([], [self._spare], [])
            else:
                return

    def reopen(self) -> None:
        """For threads, which share the streams: put back what a task has closed, and leave alone what one has redirected."""
        for number in (1, 2):
            try:
                os.get_inheritable(number)  # which, unlike fstat, keeps the interpreter: else threads would change places here
            except OSError:
                os.dup2(self._spare, number)
