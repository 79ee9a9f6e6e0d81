"""Runs a job and watches the memory of all its processes together; then reads from its log what it did, and when.

python peak.py JOB [EMPTY]: prints `wall` and `cpu` in seconds; `rss`, the peak in MiB, over that of the job EMPTY if given;
`succeeded` attempts; the seconds from end to end of the `first` tenth of them, and of the `last`. As JSON, one object.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import orjson

from benchmarks import jobs

LEAST = 0.1
RESTRAINT = 20
"""Between two looks pass LEAST seconds, and RESTRAINT times what a look takes: watching may cost a twentieth of one CPU."""
KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One command line: seconds of wall clock and of CPU, and peak MiB of all its processes; pages that they share count once."""

    wall: float
    cpu: float
    mib: float


def watched(argv: Sequence[str]) -> Ran:
    """Runs it to its end. Raises CalledProcessError for an exit code other than 0."""
    started, spent, peak = time.perf_counter(), _cpu(), 0.0
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    while True:
        before = time.perf_counter()
        peak = max(peak, sum(map(_mib, _family(child.pid))))
        pause = max(LEAST, RESTRAINT * (time.perf_counter() - before))
        try:
            code = child.wait(pause)
        except subprocess.TimeoutExpired:
            continue
        if code:
            raise subprocess.CalledProcessError(code, argv)
        return Ran(wall=time.perf_counter() - started, cpu=_cpu() - spent, mib=max(peak, _largest()))


def _cpu() -> float:
    """Of all that has ended, and was waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _family(pid: int) -> Iterator[int]:
    """A process and all that it and its threads have started, as far as they live."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:
            continue
        for child in found:
            yield from _family(int(child))


def _mib(pid: int) -> float:
    """What is its own, and its part of what it shares. 0 for one that has ended, and where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / KIB for line in lines if line.startswith("Pss:")), 0.0)


def _largest() -> float:
    """The peak of the largest process that has ended: what lies between two looks is in it."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (KIB * KIB if sys.platform == "darwin" else KIB)


def ends(log: Path) -> list[float]:
    """When each attempt that succeeded has ended, in seconds, in the order of the log."""
    with log.open("rb") as lines:
        events = (orjson.loads(line) for line in lines if b'"task.finished"' in line)
        return [datetime.fromisoformat(event["ts"]).timestamp() for event in events if event["outcome"] == "succeeded"]


def main(job: Path, empty: Path | None) -> None:
    base = watched(jobs.command(empty)).mib if empty else 0.0
    ran = watched(jobs.command(job))
    log = job.with_suffix(".log")
    found = ends(log)
    for each in filter(None, (log, empty and empty.with_suffix(".log"))):
        os.unlink(each)
    tenth = max(1, len(found) // 10)
    told = {"wall": ran.wall, "cpu": ran.cpu, "rss": ran.mib - base, "base": base, "succeeded": len(found)}
    print(json.dumps(told | {"first": found[tenth - 1] - found[0], "last": found[-1] - found[-tenth]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
