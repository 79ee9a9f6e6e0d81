"""A runner: a lean process that runs a pool's commands for the engine, where they are short and many.

          engine ──commands, many at once──▶ wait here ─ its number is taken ─▶ Commands ─▶ at most `room` at once
             ▲  └──numbers──▶ a pipe (channel), from which the engine can take them back ──┘        │
             └────────────── reports, many at once ◀────────────────────────────────────────────────┘

It starts the next command the moment one has ended, while the engine still writes down what came before. It is a subreaper, so
what its commands leave behind comes to it. When the engine has gone, or closes, it ends all that is left and itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections import deque

from jobrunner import system
from jobrunner.executors import link
from jobrunner.executors.channel import NUMBER
from jobrunner.executors.commands import Commands
from jobrunner.executors.reaper import Reaper
from jobrunner.loop import Loop
from jobrunner.work import Command, Exhausted, Report, Result, StopRule

_LONGEST_GREETING = 1 << 16
_RECEIVE = 1 << 18
_LATEST = 0.010
"""Seconds that a report waits for others to go with it, as long as enough commands wait."""
_MOST_UNTOLD = 48
"""Reports that go together at most, if not sooner."""


def serve() -> None:
    """Run what comes over the socket that is descriptor 0, until that is closed."""
    connection = socket.socket(fileno=0)
    os.set_inheritable(0, False)
    data, descriptors, _, _ = socket.recv_fds(connection, _LONGEST_GREETING, 1)
    ((pool, room, run_id),) = link.Frames().rows(data)
    if not system.become_subreaper():
        return
    with contextlib.closing(Loop()) as loop:
        _Runner(connection, descriptors[0], loop, pool, room, run_id).run()


class _Runner:
    def __init__(self, connection: socket.socket, numbers: int, loop: Loop, pool: str, room: int, run_id: str) -> None:
        self._connection, self._numbers, self._loop, self._room = connection, numbers, loop, room
        self._frames = link.Frames()
        self._waiting: deque[Command] = deque()
        self._taken: int | None = None
        """The number of the next command, if we have it: that command is ours to run."""
        self._running = 0
        self._is_over = self._is_exhausted = False
        self._untold: list[link.Row] = []
        self._untold_since = 0.0
        self._reaper = Reaper(inherits=True, run_id=run_id)
        self._reaper.open(loop, self._report)
        self._commands = Commands(pool=pool, slots=room, reaper=self._reaper)
        self._commands.open(loop, self._report)
        loop.watch(connection.fileno(), self._receive)

    def run(self) -> None:
        self._add((link.READY,))
        self._tell()
        while not self._is_over:
            self._loop.turn(self._untold_since + _LATEST if self._untold else None)
            self._fill()
            if self._untold and self._is_time_to_tell():
                self._tell()
        self._commands.kill()
        self._reaper.close()
        self._tell()

    def _is_time_to_tell(self) -> bool:
        """The engine is to hear at once of what may leave us without work, and now and then of the rest."""
        if len(self._waiting) <= 2 * self._room or len(self._untold) >= _MOST_UNTOLD:
            return True
        return self._loop.clock() - self._untold_since >= _LATEST

    def _tell(self) -> None:
        """Waits where the engine is busy: it reads whatever happens."""
        rows, self._untold = self._untold, []
        if rows:
            try:
                self._connection.sendall(link.frame(rows))
            except OSError:
                self._is_over = True

    def _receive(self) -> None:
        try:
            data = self._connection.recv(_RECEIVE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._is_over = self._is_over or not data
        for row in self._frames.rows(data):
            self._is_exhausted = False
            self._on_row(row)

    def _on_row(self, row: link.Row) -> None:
        match row[0]:
            case link.COMMAND:
                self._waiting.append(link.command_of(row))
                if self._taken is not None:  # before anybody can wish to stop it
                    self._fill()
            case link.STOP:
                self._commands.stop(row[1], StopRule(signal=row[2], grace=row[3]))
            case link.ROOM:
                self._room = row[1]
            case link.KILL:
                self._commands.kill()
            case link.PING:
                self._add((link.ALIVE,))
                self._tell()

    def _fill(self) -> None:
        while self._running < self._room and not self._is_exhausted and (command := self._next()) is not None:
            self._running += 1
            self._commands.start(command)

    def _next(self) -> Command | None:
        """The next one that is ours. What waits before it, or has no number any more, was taken back."""
        if not self._waiting:
            return None
        if self._taken is None:
            self._taken = self._take()
        if self._taken is None:
            self._waiting.clear()
            return None
        while self._waiting and self._waiting[0].id < self._taken:
            self._waiting.popleft()
        if not self._waiting:  # it is on its way
            return None
        self._taken = None
        return self._waiting.popleft()

    def _take(self) -> int | None:
        with contextlib.suppress(BlockingIOError):
            return int.from_bytes(os.read(self._numbers, NUMBER), sys.byteorder)
        return None

    # What commands tell.

    def _report(self, report: Report) -> None:
        if isinstance(report, (Result, Exhausted)):
            self._running -= 1
            self._is_exhausted = isinstance(report, Exhausted)
        self._add(link.of_report(report))

    def _add(self, row: link.Row) -> None:
        if not self._untold:
            self._untold_since = self._loop.clock()
        self._untold.append(row)
