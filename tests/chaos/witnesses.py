"""The Python targets of the chaos job: they tell the witness what `task.sh` tells it. Copied beside the job file."""

from __future__ import annotations

import os
import time
from pathlib import Path


def work(folder: str, seconds: float, name: str) -> int:
    """Tells its start, takes its time, tells its end; the number in its name."""
    place = Path(folder)
    _tell_of_others(place, name)
    _tell(place, f"start {name} {os.getpid()}")
    (place / "pid" / name).write_text(f"{os.getpid()} {_identity(os.getpid())}\n")
    time.sleep(seconds)
    _tell(place, f"done {name} {os.getpid()}")
    return int(name.rpartition("-")[2])


def total(folder: str, *results: list[int]) -> int:
    """What came of the tasks before, those of earlier parts of the run included."""
    found = sum(map(sum, results))
    _tell(Path(folder), f"start total-{found} {os.getpid()}")
    _tell(Path(folder), f"done total-{found} {os.getpid()}")
    return found


def _tell_of_others(place: Path, name: str) -> None:
    earlier = _words(place / "pid" / name)
    if len(earlier) == 2 and _identity(int(earlier[0])) == earlier[1]:
        _tell(place, f"twice {name} {os.getpid()} {earlier[0]}")
    words = iter(_words(place / "survivors"))
    survivors = dict(zip(words, words, strict=True))
    if str(os.getppid()) in survivors:
        return  # an engine that has not seen yet that its guard is gone: it may start one more task, beside those that it runs
    for other, started in survivors.items():
        if _identity(int(other)) == started:
            _tell(place, f"beside {name} {os.getpid()} {other}")


def _tell(place: Path, line: str) -> None:
    file = os.open(place / "witness", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line.encode() + b"\n")
    os.close(file)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except FileNotFoundError:
        return []


def _identity(pid: int) -> str:
    """When a live process was started, in clock ticks since boot; empty where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
