"""The commands of one pool: run by the engine itself, or by a runner once they have turned out to be short and many.

start(command) ─▶ Commands: one process after the other, each by the engine
               └▶ a runner, which has more of them than there are workers: while it starts the next, the engine records the last
prepare says how many more. The first that all workers are too busy for asks for a runner; it boots, and nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

from jobrunner.executors.commands import Commands
from jobrunner.executors.reaper import Reaper
from jobrunner.loop import Loop
from jobrunner.typed import TYPE_CHECKING
from jobrunner.work import Command, Report, Result, Returned, StopRule

if TYPE_CHECKING:
    from jobrunner.executors.runners import Runner

_LONGEST = 0.030
"""Seconds: commands that take longer on average are started by the engine, which has the time."""
_LEAST_ENDED = 100
"""Commands that have ended before a runner is started: it takes the CPU time of as many to start, and there may be few more."""
_WORK_AHEAD = 0.120
"""Seconds of work that may wait for each worker, as far as the commands so far tell."""
_MOST_AHEAD = 64
"""Commands that may wait in all: a turn of the engine takes as long as a few of them."""
_LONGEST_AHEAD = 0.100
"""Nothing waits for longer than so many seconds in which no command begins."""
_MOST_COUNTED = 0.2
_WEIGHT = 0.0625
"""Of the latest command in the average."""


class CommandPool:
    """An executor of Commands. `cookie` is what a runner can be found by; without one there never is a runner."""

    def __init__(self, *, pool: str, slots: int, reaper: Reaper, cookie: str = "") -> None:
        self.pool, self.slots, self._reaper, self._cookie = pool, slots, reaper, cookie
        self._direct = Commands(pool=pool, slots=slots, reaper=reaper)
        self._runner: Runner | None = None
        self._may_have_runner = False
        self._mean: float | None = None
        """Seconds that a command takes, on average."""
        self._ended = 0
        self._is_looking = False

    def open(self, loop: Loop, report: Callable[[Report], None]) -> None:
        self._loop, self._report = loop, report
        self._may_have_runner = bool(self._cookie) and self._reaper.inherits
        self._direct.open(loop, self._on_report if self._may_have_runner else report)

    def prepare(self) -> int:
        """Commands follow, and `flush` after the last of them. So many more than there are workers may be handed over now."""
        if not self._may_have_runner or self._mean is None or self._mean > _LONGEST:
            return 0
        if (runner := self._runner) is None:
            return 1 if self._ended >= _LEAST_ENDED else 0
        if not runner.is_ready or runner.is_over or self._is_slow(runner):
            return 0
        return min(_MOST_AHEAD, int(self.slots * _WORK_AHEAD / self._mean))

    def _is_slow(self, runner: Runner) -> bool:
        return runner.has_commands and self._loop.clock() - runner.heard_at > _LONGEST_AHEAD

    def start(self, command: Command) -> None:
        """Start `command`, or have it wait for its turn; its Began and its Result follow as reports, or Returned."""
        runner = self._runner
        if runner is not None and runner.is_ready and not runner.is_over and (runner.has_commands or self._is_short()):
            runner.allow(self.slots - self._direct.running)
            runner.queue(command)
        elif self._direct.running < self.slots:
            self._direct.start(command)
        else:
            self._report(Returned(id=command.id))
            self._want_runner()

    def _is_short(self) -> bool:
        return self._mean is not None and self._mean <= _LONGEST

    def _want_runner(self) -> None:
        """Only once: one that was killed may be so again."""
        if self._runner is None and self._may_have_runner:
            from jobrunner.executors.runners import Place, Runner  # most runs need none

            place = Place(pool=self.pool, slots=self.slots, cookie=self._cookie)
            try:
                self._runner = Runner(place, self._loop, self._reaper, self._on_report)
            except OSError:  # no room for it
                self._may_have_runner = False

    def flush(self) -> None:
        """All that was started since `prepare` is on its way."""
        if self._runner is not None:
            self._runner.flush()
            if self._runner.waiting and not self._is_looking:
                self._look_soon()

    def _look_soon(self) -> None:
        self._is_looking = True
        self._loop.call_at(self._loop.clock() + _LONGEST_AHEAD, self._look_for_slow)

    def _look_for_slow(self) -> None:
        """What would wait for long may be ready again, so that others may have their turn before it."""
        self._is_looking = False
        runner = self._runner
        if runner is not None and runner.waiting:
            if self._is_slow(runner):
                runner.take_back()
            self._look_soon()

    def take_back(self) -> None:
        """What waits is not to begin there: it is Returned."""
        if self._runner is not None:
            self._runner.take_back()

    def stop(self, command_id: int, rule: StopRule) -> None:
        self._direct.stop(command_id, rule)
        if self._runner is not None:
            self._runner.stop(command_id, rule)

    def kill(self) -> None:
        """End every command at once."""
        self._direct.kill()
        if self._runner is not None:
            self._runner.kill()

    def dump(self) -> None:
        """Commands are not ours to look into."""

    def close(self) -> None:
        self._direct.close()
        if self._runner is not None:
            self._runner.close()

    @property
    def closed(self) -> bool:
        return self._direct.closed and (self._runner is None or self._runner.closed)

    def _on_report(self, report: Report) -> None:
        if isinstance(report, Result):
            self._ended += 1
            took = min(report.duration, _MOST_COUNTED)
            self._mean = took if self._mean is None else self._mean + _WEIGHT * (took - self._mean)
            if self._runner is not None:
                self._runner.allow(self.slots - self._direct.running)
        self._report(report)
