"""How much memory a run may use on this machine: what its cgroups and the system have left when it starts."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_SYSTEM = Path("/proc/meminfo")
_RESERVE = 20
"""One part of so many stays free: for ourselves, and for what grows beside us."""
_LARGEST_RESERVE = 512 << 20


def usable_memory(*, cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP, system: Path = _SYSTEM) -> int | None:
    """Bytes that can be taken now: the least that one of our cgroups (version 2) or the system has left, without a reserve.

    What is kept of files only until somebody needs the room counts as free. None where nothing says; never raises for it.
    """
    left = [*_left_in(cgroups, own), *_left_of(system)]
    if not left:
        return None
    least = max(0, min(left))
    return least - min(least // _RESERVE, _LARGEST_RESERVE)


def _left_of(system: Path) -> Iterator[int]:
    """MemAvailable, by the kernel's own estimate: what can be had without swapping."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^MemAvailable:\s*(\d+) kB$", system.read_text(), re.MULTILINE):
            yield int(found[1]) * 1024


def _left_in(cgroups: Path, own: Path) -> Iterator[int]:
    """Of our cgroup and each one around it that is bounded. In a container ours may be the root, whatever its name."""
    ours = cgroups / _path_of(own).strip("/")
    if ".." in ours.parts or not ours.is_dir():
        ours = cgroups
    while True:
        yield from _left_below(ours)
        if ours == cgroups:
            return
        ours = ours.parent


def _path_of(own: Path) -> str:
    """Of our cgroup in version 2."""
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            if line.startswith("0::"):
                return line[3:]
    return "/"


def _left_below(folder: Path) -> Iterator[int]:
    limits = [limit for name in ("memory.max", "memory.high") if (limit := _number(folder / name)) is not None]
    used = _number(folder / "memory.current")
    if limits and used is not None:
        yield min(limits) - max(0, used - _kept_of_files(folder))


def _number(file: Path) -> int | None:
    """None where there is no such file, or no bound ("max")."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _kept_of_files(folder: Path) -> int:
    with contextlib.suppress(OSError):
        text = (folder / "memory.stat").read_text()
        return sum(int(size) for size in re.findall(r"^(?:in)?active_file (\d+)$", text, re.MULTILINE))
    return 0
