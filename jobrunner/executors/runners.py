"""A runner as the engine sees it, from its start until all that it has begun is known to have ended.

queue ─▶ flush ─numbers, commands─▶ waits there ─▶ Began ─▶ … ─▶ Result
                                    └─ take_back: Returned, it has not begun, and never will there
death ─▶ its commands come to us, who are a subreaper too: each is killed, and what it left behind; then it is CRASHED.
         What has not begun is Returned: whose number is in the pipe yet, that has not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial

from jobrunner.executors import deaths, link
from jobrunner.executors.channel import Channel
from jobrunner.executors.orphans import wait_for
from jobrunner.executors.reaper import Reaper
from jobrunner.loop import Loop, Timer, Watch
from jobrunner.processes import COOKIE, Exit, environment, signal_group
from jobrunner.structs import struct
from jobrunner.work import Began, Command, Error, Exhausted, Leftover, Outcome, Report, Result, Returned, StopRule

_CODE = "import sys; sys.path[:] = {path!r}; from jobrunner.executors.runner import serve; serve()"
_RECEIVE = 1 << 18
_NO_ROOM = 0.002
"""Seconds to the next try to send, where the runner takes nothing now."""
_PATIENCE = 10.0
"""Seconds for which a runner with commands may be silent: then it is asked, and has as long again to answer."""
_LEAST_PATIENCE = 5.0
"""The same where a command is to be stopped."""
_CLOSING_PATIENCE = 5.0
_LAST_PATIENCE = 0.2
"""Seconds for a process that was forked, killed, and is no command yet, to be gone."""
_NOT_A_FRAME = (ValueError, TypeError, KeyError, IndexError, EOFError)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
"""Not for a runner: what the engine makes of them, it tells."""


@struct
class Place:
    """Where a runner stands: its pool, how many commands it runs at once, and the cookie that it can be found by."""

    pool: str
    slots: int
    cookie: str


class Runner:
    """One runner. Raises OSError where it cannot be started. Everything it has to say is a Report.

    `is_ready`: it takes commands. `is_over`: it takes none any more. `closed`: nothing of it is left.
    """

    def __init__(self, place: Place, loop: Loop, reaper: Reaper, report: Callable[[Report], None]) -> None:
        self._place, self._loop, self._reaper, self._report = place, loop, reaper, report
        self.is_ready = self.is_over = self.closed = False
        self.heard_at = loop.clock()
        """When a command last began."""
        self._flying: dict[int, int | None] = {}
        """Commands in the order in which they were queued, and the pid of each that is known to have begun."""
        self.waiting = 0
        """Of those, how many have not begun as far as is known."""
        self._rows: list[link.Row] = []
        self._room = place.slots
        self._unsent = bytearray()
        self._frames = link.Frames()
        self._timers: list[Timer] = []
        self._asked: Timer | None = None
        self._cause = ""
        self._mark = os.urandom(8).hex()
        self._start()
        self._watch_over(_PATIENCE)

    def _start(self) -> None:
        with contextlib.ExitStack() as undo:
            self._connection, far = socket.socketpair()
            undo.callback(self._connection.close)
            with far:
                self._channel = Channel()
                undo.callback(self._channel.close)
                place = self._place
                self._channel.give(self._connection, link.frame([(place.pool, place.slots, self._reaper.run_id)]))
                self._connection.setblocking(False)
                self.pid = _spawned(far.fileno(), {COOKIE: place.cookie, link.MARK: self._mark})
            self._reaper.started(self.pid)
            try:
                self._pidfd = os.pidfd_open(self.pid)
                undo.callback(os.close, self._pidfd)
                self._watches: list[Watch] = [self._loop.watch(self._pidfd, self._on_exit, once=True)]
                self._watches.append(self._loop.watch(self._connection.fileno(), self._receive))
            except OSError:  # what cannot be watched must not run
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self._reaper.reaped(self.pid)
                raise
            undo.pop_all()

    # Towards the runner.

    @property
    def has_commands(self) -> bool:
        return bool(self._flying)

    def queue(self, command: Command) -> None:
        """It goes with the next `flush`."""
        if not self._flying:
            self.heard_at = self._loop.clock()
        self._flying[command.id] = None
        self.waiting += 1
        self._rows.append(link.of_command(command))

    def flush(self) -> None:
        """What was queued is on its way: the numbers first, for of a command without one the runner thinks it was taken back."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        try:
            if self.is_over:
                raise OSError("it takes none any more")
            self._channel.put(row[1] for row in rows)
        except OSError:
            self._kill_for("it did not take its commands")
            self._return([row[1] for row in rows])
        else:
            self._send(rows)

    def allow(self, room: int) -> None:
        """So many commands may run there at once: others of the pool run elsewhere."""
        if room != self._room:
            self._room = room
            self._send([(link.ROOM, room)])

    def take_back(self) -> None:
        """What waits is not to begin here: it is Returned, the first of it last, for what is told last will be the next."""
        if self.waiting and self._pidfd >= 0:
            self.flush()
            found: list[int] = []
            while piece := self._channel.take_back():
                found += piece
            self._return(found)

    def stop(self, command_id: int, rule: StopRule) -> None:
        if command_id not in self._flying:
            return
        self.take_back()
        if command_id in self._flying:
            self._send([(link.STOP, command_id, int(rule.signal), rule.grace)])
            self._ask(_LEAST_PATIENCE)

    def kill(self) -> None:
        """End every command at once."""
        self.take_back()
        self._send([(link.KILL,)])
        if self.has_commands or not self.is_ready:
            self._ask(_LEAST_PATIENCE)

    def close(self) -> None:
        """No more commands: it ends by itself, soon."""
        self.is_over = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        if not self.is_ready:  # it has nothing yet
            self._kill_for("it was not needed")
        self._timers.append(self._loop.call_at(self._loop.clock() + _CLOSING_PATIENCE, partial(self._kill_for, "it did not end")))

    def _send(self, rows: list[link.Row]) -> None:
        if not self.is_over:
            has_rest = bool(self._unsent)
            self._unsent += link.frame(rows)
            if not has_rest:
                self._push()

    def _push(self) -> None:
        try:
            del self._unsent[: self._connection.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it is dead or dying: its pidfd tells
            self._unsent.clear()
        if self._unsent:
            self._loop.call_at(self._loop.clock() + _NO_ROOM, self._push)

    # Is it alive?

    def _watch_over(self, seconds: float) -> None:
        self._timers = [self._loop.call_at(self._loop.clock() + seconds, self._look)]

    def _look(self) -> None:
        if self.has_commands:
            self._ask(_PATIENCE)
        if not self.is_over:
            self._watch_over(_PATIENCE)

    def _ask(self, patience: float) -> None:
        if self._asked is None and not self.closed:
            self._send([(link.PING,)])
            words = f"the process that runs short commands did not answer for {patience:g} s"
            self._asked = self._loop.call_at(self._loop.clock() + patience, partial(self._kill_for, words))

    def _kill_for(self, cause: str) -> None:
        if not self.closed and self._pidfd >= 0:
            self._cause, self.is_over = self._cause or cause, True
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    # From the runner.

    def _receive(self) -> bool:
        """Take in what has come; False where nothing had."""
        try:
            data = self._connection.recv(_RECEIVE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.is_over = True
            self._watches[1].close()
            self._ask(_CLOSING_PATIENCE)
            return False
        self._forget_asked()
        try:
            for row in self._frames.rows(data):
                self._on_row(row)
        except _NOT_A_FRAME:
            self._kill_for("it sent what is no frame")
            return False
        return True

    def _on_row(self, row: link.Row) -> None:
        match row[0]:
            case link.READY:
                self.is_ready = True
            case link.ALIVE:
                pass  # whatever comes tells so
            case _:
                self._on_report(link.report_of(row))

    def _forget_asked(self) -> None:
        if self._asked is not None:
            self._asked.cancel()
            self._asked = None

    def _on_report(self, report: Report) -> None:
        if isinstance(report, Began):
            if self._flying[report.id] is not None:
                raise ValueError(report.id)
            self._flying[report.id] = report.pid
            self.waiting -= 1
            self.heard_at = self._loop.clock()
        elif isinstance(report, (Result, Exhausted)):
            self._end(report.id)
        self._report(report)
        if isinstance(report, Exhausted):
            self.take_back()

    def _end(self, command_id: int) -> None:
        if self._flying.pop(command_id) is None:
            self.waiting -= 1

    # Its end.

    def _on_exit(self) -> None:
        """It is a zombie now, and its commands are our children."""
        while self._watches[1].active and self._receive():
            pass
        self.is_over = True
        self.take_back()
        exit = self._joined()
        self._release()
        if self._flying:
            self._lose(deaths.crash(exit, cause=self._cause, shared=True))
        self.closed = not self._flying

    def _joined(self) -> Exit:
        try:
            return Exit.of(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]))
        except ChildProcessError:  # somebody else takes the ends of all children
            return Exit(signal=signal.SIGKILL)
        finally:
            self._reaper.reaped(self.pid)

    def _return(self, command_ids: list[int]) -> None:
        for command_id in reversed(command_ids):
            if command_id in self._flying:
                self._end(command_id)
                self._report(Returned(id=command_id))

    def _release(self) -> None:
        self._forget_asked()
        for timer in self._timers:
            timer.cancel()
        for watch in self._watches:
            watch.close()
        os.close(self._pidfd)
        self._pidfd = -1
        self._connection.close()
        self._channel.close()

    def _lose(self, error: Error) -> None:
        orphans = self._reaper.strangers()
        self._end_unborn(orphans)
        for command_id, pid in tuple(self._flying.items()):
            self._bury(command_id, pid if pid in orphans else None, error)

    def _end_unborn(self, orphans: list[int]) -> None:
        """What it had forked and has not become a command yet: its environment is still the runner's."""
        mark = f"{link.MARK}={self._mark}".encode()
        found = [pid for pid in orphans if mark in environment(pid)]
        for pid in found:
            os.kill(pid, signal.SIGKILL)  # not reaped, so its number is its own
        wait_for(found, self._loop.clock() + _LAST_PATIENCE)

    def _bury(self, command_id: int, leader: int | None, error: Error) -> None:
        """End what is left of a command, of which nobody has seen the end; then it has crashed."""
        last = partial(self._reaper.end_orphans, command_id, partial(self._crash, command_id, leader, error), thorough=True)
        if leader is None:  # it has ended, or we do not know which one it is: what it started is found by its environment
            last()
            return
        self._reaper.started(leader, command_id)
        signal_group(leader, signal.SIGKILL)
        try:
            pidfd = os.pidfd_open(leader)
            self._loop.watch(pidfd, partial(self._on_last_exit, pidfd, last), once=True)
        except OSError:  # no descriptor is left: it is waited for when it is reaped
            last()

    def _on_last_exit(self, pidfd: int, last: Callable[[], None]) -> None:
        os.close(pidfd)
        last()

    def _crash(self, command_id: int, leader: int | None, error: Error, left: tuple[int, ...]) -> None:
        if leader is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(leader, 0)
            self._reaper.reaped(leader)
        if left:
            self._report(Leftover(id=command_id, pids=left, killed=True))
        if self._flying[command_id] is None:
            self._report(Began(id=command_id, worker=self._place.pool, pid=0))
        self._end(command_id)
        self._report(Result(id=command_id, outcome=Outcome.CRASHED, error=error))
        self.closed = not self._flying


def _spawned(connection: int, more: dict[str, str]) -> int:
    """The pid of a fresh interpreter of our kind. Raises OSError."""
    import subprocess  # only for who has a runner

    code = _CODE.format(path=[os.path.abspath(entry) for entry in sys.path])
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, *flags, "-S", "-P", "-c", code],
            {**os.environ, **more},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, connection, 0),
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, null, 2),
            ],
            setsid=True,
            setsigmask=_SIGNALS,
        )
    finally:
        os.close(null)
