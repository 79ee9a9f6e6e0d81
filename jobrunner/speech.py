"""What a thread prints, attributed to the attempt that it runs. Standard library only: this runs on the far side.

`sys.stdout` and `sys.stderr` of a host of threads are replaced once by a `Speech`, which looks up who speaks. A thread
without an attempt (one that a task started itself) speaks for nobody, and goes on to the real stream.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

Listener = Callable[[str], None]
_LONGEST_PIECE = 8192
_speaker = threading.local()


class Speech(io.TextIOBase):
    """A text stream that hands what is written to the listener of the writing thread, line by line."""

    def __init__(self, behind: TextIO) -> None:
        self._behind = behind

    def write(self, text: str) -> int:
        voice: Voice | None = getattr(_speaker, "voice", None)
        if voice is None:
            return self._behind.write(text)
        voice.say(str(text))
        return len(text)

    def flush(self) -> None:
        voice: Voice | None = getattr(_speaker, "voice", None)
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
        self._listener, self._pieces, self._size = listener, list[str](), 0

    def __enter__(self) -> Voice:
        _speaker.voice = self
        return self

    def __exit__(self, *_: object) -> None:
        _speaker.voice = None
        self.flush()

    def say(self, text: str) -> None:
        self._pieces.append(text)
        self._size += len(text)
        if "\n" in text or self._size > _LONGEST_PIECE:
            self.flush()

    def flush(self) -> None:
        if self._pieces:
            text = "".join(self._pieces)
            self._pieces, self._size = [], 0
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
    _speaker.voice = None
