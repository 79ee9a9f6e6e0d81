"""Large values of tasks: each in a file of the run's directory, so that a record of the journal stays a line for people too."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from jobrunner.structs import replace
from jobrunner.work import Result

LARGEST_IN_JOURNAL = 1 << 20
"""Bytes of JSON from which a value gets a file of its own."""


class Spill:
    """Puts large values into files of a directory.

    `prefix` tells the parts of a run apart; `sync` has the files outlast a loss of power; `withhold` says what must not be kept.
    """

    def __init__(self, directory: Path, *, prefix: str, sync: bool, withhold: Callable[[bytes], bool]) -> None:
        self._directory, self._prefix, self._sync, self._withhold = directory, prefix, sync, withhold

    def spill(self, result: Result) -> Result:
        """The result, with its value in a file if that is large. What is withheld stays, and so does what no disk takes."""
        if result.value is None or len(result.value) <= LARGEST_IN_JOURNAL or self._withhold(result.value):
            return result
        path = self._directory / f"{self._prefix}-{result.id}.json"
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._write(path, result.value)
        except OSError as error:  # 2 MiB in the journal could fill that up too, and end the run
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            note = f"a value of {len(result.value) >> 20} MiB is not on record: {error.strerror}"
            return replace(result, unkept=True, note="; ".join(filter(None, (result.note, note))))
        return replace(result, value=None, value_file=str(path))

    def _write(self, path: Path, value: bytes) -> None:
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(value)
            if self._sync:
                file.flush()
                os.fsync(file.fileno())
