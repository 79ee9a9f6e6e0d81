"""What tasks print, kept in files of bounded size: the end of each, and as much before it as there is room for.

    OUTPUT/TASK.log, OUTPUT/TASK/ITEM.log        up to 16 MiB, then …
    OUTPUT/TASK.log.1, OUTPUT/TASK/ITEM.log.1    … it becomes this, in place of the one before, and is begun anew

Nothing here raises: what a full disk does not take, or a folder that somebody has removed, is lost and counted. No state is
kept for a file but its losses, and no file stays open: to open one costs 6 µs, and a file that was moved away is seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from jobrunner.errors import StateError

KEPT_OUTPUT = 32 << 20
"""Bytes that are kept of one task or item: at least its last 16 MiB."""
_MOST_IN_FILE = KEPT_OUTPUT // 2
_LEAST_ROOM = 1 << 16
"""A file with less room than this makes way rather than that a line is cut."""
_MOST_LOSSES = 10_000
_LONGEST_FILE_NAME = 200
_WRITE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""Non-blocking: what a task has put in place of its file may be a pipe that nobody reads."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW

Degraded = Callable[[str, str, int], None]
"""Called with "output", the reason and the bytes that were lost so far."""


class Captured:
    """The output folder of one run. `degraded` is told when output is lost, and again each time that has doubled.

    Only the owner may read what is kept. The folder is the one that was there at the start, whatever takes its name later;
    where there is none, StateError.
    """

    def __init__(self, folder: Path, degraded: Degraded) -> None:
        try:
            self._folder = os.open(folder, _FOLDER)
        except OSError as error:
            raise StateError(f"cannot keep what tasks print in {folder}: {error.strerror}") from None
        self._degraded = degraded
        self._lost: dict[tuple[str, str | None], int] = {}
        self.dropped = self._told = 0
        self._reason = ""

    def keep(self, task: str, item: str | None, data: bytes) -> None:
        """Add to the output of a task or item."""
        while data:
            try:
                kept, replaced = self._keep(task, item, data)
            except OSError as error:
                self._drop(task, item, len(data), os.strerror(error.errno or 0))
                return
            data = data[kept:]
            if replaced:
                self._count(task, item, replaced)

    def lost(self, task: str, item: str | None) -> int:
        """Bytes that it printed in this run and that are not kept any more; known for the last 10,000 that lost some."""
        return self._lost.get((task, item), 0)

    def close(self) -> None:
        """Tell the final count, if there is one. Nothing is kept any more."""
        if self.dropped > self._told:
            self._tell()
        if self._folder >= 0:
            os.close(self._folder)
        self._folder = -1

    def _keep(self, task: str, item: str | None, data: bytes) -> tuple[int, int]:
        """How much was kept of `data`, and how many older bytes made room for it."""
        place, name = self._place(task, item)
        try:
            file = os.open(name, _WRITE, 0o600, dir_fd=place)
            try:
                return _append(file, data, name, place)
            finally:
                os.close(file)
        finally:
            if place != self._folder:
                os.close(place)

    def _place(self, task: str, item: str | None) -> tuple[int, str]:
        """The folder, open, and the name of the file in it."""
        if item is None:
            return self._folder, f"{task}.log"
        try:
            return os.open(task, _FOLDER, dir_fd=self._folder), f"{file_name(item)}.log"
        except FileNotFoundError:
            os.mkdir(task, 0o700, dir_fd=self._folder)
            return os.open(task, _FOLDER, dir_fd=self._folder), f"{file_name(item)}.log"

    # What is lost.

    def _drop(self, task: str, item: str | None, count: int, reason: str) -> None:
        self._count(task, item, count)
        self.dropped += count
        self._reason = reason
        if self.dropped >= 2 * self._told:
            self._tell()

    def _tell(self) -> None:
        self._told = self.dropped
        self._degraded("output", self._reason, self.dropped)

    def _count(self, task: str, item: str | None, count: int) -> None:
        self._lost[task, item] = self._lost.pop((task, item), 0) + count
        if len(self._lost) > _MOST_LOSSES:
            del self._lost[next(iter(self._lost))]


def output_file(folder: Path, task: str, item: str | None) -> Path:
    """Where in the output folder that of a task or of one of its items belongs; different ones never share a file."""
    return folder / f"{task}.log" if item is None else folder / task / f"{file_name(item)}.log"


def file_name(item: str) -> str:
    """Shorter than the longest, or exactly that long and ending in a digest: so no name is like that of another item."""
    from urllib.parse import quote  # only where there are items

    name = quote(item, safe=" ,+=@~()[]", errors="surrogatepass")
    if len(name) < _LONGEST_FILE_NAME:
        return name
    import hashlib

    return f"{name[: _LONGEST_FILE_NAME - 33]}-{hashlib.sha256(item.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def _append(file: int, data: bytes, name: str, place: int) -> tuple[int, int]:
    """Write what the file has room for, up to a line end if it can be; a full one makes way first. As `Captured._keep`."""
    room = max(0, _MOST_IN_FILE - os.fstat(file).st_size)
    if len(data) > room:
        whole = data.rfind(b"\n", 0, room) + 1
        if not whole and room < _LEAST_ROOM:
            return 0, _rotate(name, place)
        data = data[: whole or room]
    return os.write(file, data), 0


def _rotate(name: str, place: int) -> int:
    """Make room for a file of this name; the bytes that are gone for it."""
    older = f"{name}.1"
    try:
        replaced = os.stat(older, dir_fd=place, follow_symlinks=False).st_size
    except FileNotFoundError:
        replaced = 0
    os.rename(name, older, src_dir_fd=place, dst_dir_fd=place)
    return replaced
