"""Targets that write what only their host should write, or take what only it should take."""

from __future__ import annotations

import gc
import os
import time

_LONG = 0.05


def frame(text: str) -> None:
    """Onto the connection of its host."""
    os.write(3, text.encode() + b"\n")
    time.sleep(_LONG)


def mark(text: str) -> None:
    """Into its output, after the word that marks the ends of calls."""
    port = next(each for each in gc.get_objects() if type(each).__name__ == "Port" and each._mark)
    os.write(1, port._mark + text.encode() + b"\n")
    time.sleep(_LONG)


def takes_numbers(count: int) -> None:
    """Of calls that wait, from the pipe of its host."""
    os.read(_queue(), 8 * count)


def puts_numbers(data: str) -> None:
    """Into that pipe, whose far end can be opened for writing."""
    fd = os.open(f"/proc/self/fd/{_queue()}", os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, bytes.fromhex(data))
    os.close(fd)


def closes_all(first: int) -> None:
    os.closerange(first, 50)


def _queue() -> int:
    port = next(each for each in gc.get_objects() if type(each).__name__ == "Port" and each._queue is not None)
    assert isinstance(port._queue, int)
    return port._queue
