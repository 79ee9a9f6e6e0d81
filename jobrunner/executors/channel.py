"""Whose turn it is: the numbers of the calls that wait in one host, in a pipe. Who reads a number has that call, and nobody else.

        engine ──numbers──▶ near ═══ a pipe ═══ far ──one at a time──▶ host, before it runs that call
                                                 └───all at once────▶ take_back

The calls themselves go over the host's socket, many in one send. The engine holds both ends, so it can take itself the
numbers that the host has not taken: the kernel is the arbiter. A call of which the host finds no number is none any more.
"""

from __future__ import annotations

import contextlib
import os
import socket
from array import array
from collections.abc import Iterable

NUMBER = 8
"""Bytes of a number."""
LONGEST = 1 << 15
"""Bytes of a call that may wait in a host."""
_MOST = 1 << 12


class Channel:
    """A queue of numbers of which the far end is given to one host. Raises OSError where there is no descriptor left."""

    def __init__(self) -> None:
        self._far, self._near = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def give(self, connection: socket.socket, line: bytes) -> None:
        """Send the far end along with `line`. Raises OSError where that is not possible now."""
        if socket.send_fds(connection, [line], [self._far]) != len(line):
            raise OSError("the host reads nothing")

    def put(self, call_ids: Iterable[int]) -> None:
        """To be done before the calls are sent. Raises OSError where there is no room, which a host leaves that works."""
        os.write(self._near, array("q", call_ids).tobytes())

    def take_back(self) -> list[int]:
        """The calls that the host has not taken up, and will not."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._far, _MOST)
            return array("q", data[: len(data) // NUMBER * NUMBER]).tolist()
        return []

    def close(self) -> None:
        os.close(self._near)
        os.close(self._far)
