"""Calls on their way to one host, a message each: what the host has not taken yet can be taken back.

        engine ──put──▶ near ═══ the kernel's queue ═══ far ──recv──▶ host
                                                         └──recv──▶ take_back

The engine holds both ends. Who receives a message has it, and nobody else: at no moment both have it, or neither. Which ones the
engine has taken back, only the messages themselves tell: the host may receive others in between.
"""

from __future__ import annotations

import contextlib
import socket

LONGEST = 1 << 15
"""Bytes of a call that can go this way."""


class Channel:
    """A queue of calls of which the far end is given to one host. Raises OSError where there is no descriptor left."""

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def give(self, connection: socket.socket, line: bytes) -> None:
        """Send the far end along with `line`. Raises OSError where that is not possible now."""
        if socket.send_fds(connection, [line], [self._far.fileno()]) != len(line):
            raise OSError("the host reads nothing")

    def put(self, call: bytes) -> bool:
        """Whether there was room for it."""
        try:
            self._near.send(call, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    def take_back(self) -> list[bytes]:
        """The calls that the host has not received, and will not."""
        taken = []
        with contextlib.suppress(BlockingIOError):
            while call := self._far.recv(LONGEST, socket.MSG_DONTWAIT):
                taken.append(call)
        return taken

    def close(self) -> None:
        self._near.close()
        self._far.close()
