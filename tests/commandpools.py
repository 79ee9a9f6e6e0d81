"""Pools of commands that do what they otherwise come to: all goes to a runner, from the first command on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from jobrunner import session
from jobrunner.executors.commandpool import CommandPool
from jobrunner.loop import Loop
from jobrunner.work import Command, Report

WAYS = ("by the engine", "by a runner")


class ByRunner(CommandPool):
    """Has a runner when it is open, to which all goes that may."""

    def open(self, loop: Loop, report: Callable[[Report], None]) -> None:
        super().open(loop, report)
        self._report, self._direct.report = report, self._on_report
        self._may_have_runner = True
        self._want_runner()
        while self._runner is not None and not self._runner.is_ready:
            loop.turn()

    def prepare(self) -> int:
        return 2 if self._runner is not None and not self._runner.is_over else 0

    def start(self, command: Command) -> None:
        if command.resources is not None or command.leftover_allowed:
            self._direct.start(command)
        else:
            super().start(command)

    def _is_short(self) -> bool:
        return True


def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The body of a fixture with WAYS as its parameters: jobs run their commands so."""
    if request.param == "by a runner":
        monkeypatch.setattr(session, "CommandPool", ByRunner)
    yield request.param
