"""Functions of expressions for names of files and other texts: nothing here looks at the disk, or knows where it stands.

Folders end as in the shell's commands of these names: `basename` of `a/b/` is `b`, and `dirname` of `b` is `.`: a path that
is put together from it never starts at the root by mistake.
"""

from __future__ import annotations

import posixpath
from itertools import takewhile
from typing import Final

from jobrunner.expressions.values import bound, kind_of

_UP: Final = ".."


def basename(path: object) -> str:
    """The last part of a path: `c.tar.gz` of `a/b/c.tar.gz`; empty for the root."""
    return posixpath.basename(_path("basename", path).rstrip("/"))


def dirname(path: object) -> str:
    """What stands before the last part of a path; `.` where nothing does."""
    text = _path("dirname", path)
    return posixpath.dirname(text.rstrip("/") or text) or "."


def stem(path: object) -> str:
    """The last part of a path without its last suffix: `c.tar` of `a/b/c.tar.gz`, `.profile` of `.profile`."""
    return posixpath.splitext(basename(_path("stem", path)))[0]


def relative(path: object, start: object) -> str:
    """The way from the folder `start` to `path`, `.` where they are the same. Both are absolute, or neither is."""
    text, origin = _path("relative", path), _path("relative", start)
    if text.startswith("/") != origin.startswith("/"):
        absolute, other = (text, origin) if text.startswith("/") else (origin, text)
        raise ValueError(f"relative() cannot tell the way: {absolute[:80]!r} is absolute, and {other[:80]!r} is not")
    steps, behind = _steps(text), _steps(origin)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(steps, behind, strict=False)))
    if _UP in behind[common:]:  # the way back down has a name that no path here says
        raise ValueError(f"relative() cannot tell the way out of {origin[:80]!r}")
    bound(len(text) + len(origin) * 2)
    return "/".join([*[_UP] * len(behind[common:]), *steps[common:]]) or "."


def replace(text: object, old: object, new: object) -> str:
    """`text` with `new` at every place where `old` stands."""
    if not (isinstance(text, str) and isinstance(old, str) and isinstance(new, str)):
        raise TypeError(f"replace() takes three texts, not {kind_of(text)}, {kind_of(old)} and {kind_of(new)}")
    if not old:
        raise ValueError("replace() is told to look for empty text")
    bound(len(text) + text.count(old) * (len(new) - len(old)))
    return text.replace(old, new)


def _path(function: str, path: object) -> str:
    if not isinstance(path, str):
        raise TypeError(f"{function}() takes the text of a path, not {kind_of(path)}")
    if not path:
        raise ValueError(f"{function}() is given an empty text, which is no path")
    return str(path)


def _steps(path: str) -> list[str]:
    """The names on the way, without `.` and with `..` only where it leads out."""
    return [step for step in posixpath.normpath(path).split("/") if step not in ("", ".")]
