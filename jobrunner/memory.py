"""How much memory a run may use on this machine: what its cgroups and the system have, in all and left; sizes in words."""

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
_UNITS = {
    f"{prefix}{kind}B": base**power for kind, base in (("i", 1024), ("", 1000)) for power, prefix in enumerate("KMGT", start=1)
}
_MOST_EXACT = 9999


def usable_memory(*, cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP, system: Path = _SYSTEM) -> int | None:
    """Bytes that can be taken now: the least that one of our cgroups (version 2) or the system has left, without a reserve.

    What is kept of files only until somebody needs the room counts as free. None where nothing says; never raises for it.
    """
    left = [*_left_in(cgroups, own), *_left_of(system)]
    if not left:
        return None
    least = max(0, min(left))
    return least - min(least // _RESERVE, _LARGEST_RESERVE)


def whole_memory(*, cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP, system: Path = _SYSTEM) -> int | None:
    """Bytes that there are at all, for us: of the machine, or the bound of one of our cgroups. None where nothing says."""
    bounds = [bound for folder in _ours(cgroups, own) if (bound := _number(folder / "memory.max")) is not None]
    return min([*bounds, *_told_by(system, "MemTotal")], default=None)


def in_units(size: int) -> str:
    """Bytes as a job file has them, the shortest that is exact (`3GB`, `512MiB`); what no unit tells is rounded (`23.4GiB`)."""
    exact = [f"{size // unit}{name}" for name, unit in _UNITS.items() if size % unit == 0 and 0 < size // unit <= _MOST_EXACT]
    if exact:
        return min(exact, key=len)
    name = next((name for name in ("TiB", "GiB", "MiB") if size >= _UNITS[name]), "KiB")
    return f"{size / _UNITS[name]:.1f}{name}"


def _left_of(system: Path) -> Iterator[int]:
    """MemAvailable, by the kernel's own estimate: what can be had without swapping."""
    return _told_by(system, "MemAvailable")


def _told_by(system: Path, name: str) -> Iterator[int]:
    with contextlib.suppress(OSError):
        if found := re.search(rf"^{name}:\s*(\d+) kB$", system.read_text(), re.MULTILINE):
            yield int(found[1]) * 1024


def _left_in(cgroups: Path, own: Path) -> Iterator[int]:
    for folder in _ours(cgroups, own):
        yield from _left_below(folder)


def _ours(cgroups: Path, own: Path) -> Iterator[Path]:
    """Our cgroup and each one around it. In a container ours may be the root, whatever its name."""
    ours = cgroups / _path_of(own).strip("/")
    if ".." in ours.parts or not ours.is_dir():
        ours = cgroups
    while True:
        yield ours
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
