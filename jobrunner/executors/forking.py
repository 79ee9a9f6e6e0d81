"""Who forks the hosts of a pool: this process, and a template once what this one has copied for them would have paid for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from jobrunner import host
from jobrunner.executors import limits
from jobrunner.executors.reaper import Reaper
from jobrunner.loop import Loop
from jobrunner.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from jobrunner.executors.templates import Template

_MUCH = 160 << 20
"""Bytes in all that forks of this process may copy before a template is started, which takes as much time as copying them."""
_MOST_TEMPLATES = 3
"""So many are started: when the last is over, hosts are forked without one."""


class Forking:
    """The templates of one pool. `refused` is told, once, why the targets in `preload` are not imported by one."""

    def __init__(
        self, loop: Loop, folder: str, preload: list[str], reaper: Reaper | None, refused: Callable[[str], None], *, may: bool
    ) -> None:
        self._loop, self._folder, self._preload, self._reaper, self._refused = loop, folder, preload, reaper, refused
        self._may, self._is_early = may, bool(preload)
        self._copied = 0
        """Bytes that forks of this process had to copy, or might have had to."""
        self._tries = self._asked = 0
        self._templates: list[Template] = []
        """The last one forks our hosts; those before it were over, or have failed."""

    def template(self, settings: host.Settings) -> Template | None:
        """What forks the next host, once this process would have to copy much for so many; None where it forks it itself."""
        self._asked += 1
        if self._templates and not (last := self._templates[-1]).is_over:
            return last if last.is_ready else None
        if not self._may:
            return None
        self._copied += limits.resident()
        is_worth_it = self._copied >= _MUCH or (self._is_early and self._asked > 1)
        if is_worth_it and self._tries < _MOST_TEMPLATES:
            self._tries += 1
            with contextlib.suppress(OSError):
                self._templates.append(self._new(settings))
        return None

    def _new(self, settings: host.Settings) -> Template:
        from jobrunner import template  # few runs come to this
        from jobrunner.executors import templates

        reaper = self._reaper
        wanted = template.Settings(
            host=settings, mark=reaper.mark if reaper else "", modules=templates.standard_modules(), preload=self._preload
        )
        began, reaped = (reaper.started_template, reaper.reaped) if reaper else (_nobody, _nobody)
        return templates.Template(wanted, self._folder, self._loop, began, reaped, self._on_refused)

    def _on_refused(self, why: str) -> None:
        """What was to be preloaded cannot be: each host imports it for itself."""
        if self._preload:
            self._preload, self._tries = [], self._tries - 1
            self._refused(why)

    def close(self) -> None:
        for each in self._templates:
            each.close()

    def kill(self) -> None:
        for each in self._templates:
            each.kill()

    @property
    def closed(self) -> bool:
        return all(each.closed for each in self._templates)


def _nobody(_: int) -> None:
    """Is told."""
