"""The files that a pattern means: as a shell reads it, with `**` for any number of folders, each of them seen once.

Links are followed, and may lead in circles: glob.glob would walk them until names are too long.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from fnmatch import translate
from functools import lru_cache

_GLOB = frozenset("*?[")


def has_glob(text: str) -> bool:
    """Whether a text is a pattern, and not only a path."""
    return not _GLOB.isdisjoint(text)


class Walk:
    """Looks below `folder`, from which relative patterns count. Hidden names match only what begins with a dot.

    `strict` raises OSError for a folder that cannot be read; otherwise it holds nothing.
    """

    def __init__(self, folder: str, *, strict: bool) -> None:
        self._folder, self._strict = folder, strict

    def matching(self, pattern: str, *, folders: bool) -> set[str]:
        """Paths that match, written as the pattern is; of `folders` too."""
        *parents, last = [part for part in pattern.split("/") if part] or [""]
        places = {"/" if pattern.startswith("/") else ""}
        for part in parents:
            if part == "**":
                places = {inner for place in places for inner in self._folders(place, hidden=False)}
            else:
                places = {found for place in places for found, is_folder in self._children(place, part) if is_folder}
        found = self._all_below(places) if last == "**" else (each for place in places for each in self._children(place, last))
        if pattern.endswith("/"):
            return {f"{path}/" for path, is_folder in found if is_folder and folders}
        return {path for path, is_folder in found if folders or not is_folder}

    def files_below(self, place: str, *, hidden: bool = True) -> Iterator[str]:
        """All files in a folder and below it."""
        for inner in self._folders(place, hidden=hidden):
            for entry in self._entries(inner):
                if (hidden or not entry.name.startswith(".")) and not _is_folder(entry):
                    yield os.path.join(inner, entry.name)

    def _all_below(self, places: set[str]) -> Iterator[tuple[str, bool]]:
        for place in places:
            yield from ((inner, True) for inner in self._folders(place, hidden=False) if inner)
            yield from ((path, False) for path in self.files_below(place, hidden=False))

    def _children(self, place: str, part: str) -> Iterator[tuple[str, bool]]:
        """What of a folder fits one part of a pattern, and whether it is a folder itself."""
        if not has_glob(part):
            inner = os.path.join(place, part)
            if os.path.lexists(os.path.join(self._folder, inner)):
                yield inner, os.path.isdir(os.path.join(self._folder, inner))
            return
        fits, hidden = _compiled(part), part.startswith(".")
        for entry in self._entries(place):
            if fits.match(entry.name) and (hidden or not entry.name.startswith(".")):
                yield os.path.join(place, entry.name), _is_folder(entry)

    def _folders(self, top: str, *, hidden: bool) -> Iterator[str]:
        """A folder and those below it, also behind links; each once, though links may lead in circles."""
        pending, seen = [top], set()
        while pending:
            place = pending.pop()
            with contextlib.suppress(OSError):
                found = os.stat(os.path.join(self._folder, place))
                if (found.st_dev, found.st_ino) in seen:
                    continue
                seen.add((found.st_dev, found.st_ino))
            yield place
            inner = [entry.name for entry in self._entries(place) if _is_folder(entry)]
            pending += [os.path.join(place, name) for name in sorted(inner, reverse=True) if hidden or not name.startswith(".")]

    def _entries(self, place: str) -> list[os.DirEntry[str]]:
        """What a folder holds."""
        try:
            with os.scandir(os.path.join(self._folder, place) or ".") as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):  # it went away meanwhile
            return []
        except OSError:
            if self._strict:
                raise
            return []


@lru_cache(maxsize=256)
def _compiled(part: str) -> re.Pattern[str]:
    return re.compile(translate(part))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle: looking at it as a file tells
        return False
