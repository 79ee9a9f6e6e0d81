"""Tasks that only compute, from 100 µs to 10 ms of CPU each: how much of two workers' time is left for them.

The work is a fixed amount of arithmetic, found once for this machine. The ideal does the same amount in the same round: two
forked processes, each with every other call in one bare loop. So efficiency is the ideal's time over that of whoever is measured,
and neighbours on the machine slow both alike.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import pools, work_items
from benchmarks.measure import Contest
from benchmarks.pools import Match, Work

WAYS = (
    "ideal",
    "ProcessPoolExecutor.submit",
    "ProcessPoolExecutor.map in chunks",
    "multiprocessing.Pool.imap",
    "loky.submit",
    "joblib, loky",
    "Pebble ProcessPool.map",
    "mpire.map, chunk_size=1",
)
CLUSTERS = ("dask, processes", "ray")
"""Not where calls are short: they would take most of the time."""
IDEAL = """\
Ideal: two forked processes, each with every other call in one loop, and nothing else. Efficiency is its time over one's own: the
bar of 1.176 × asks for 85 %."""
LENGTHS = {
    "100us": (100, 30_000, 0, WAYS),
    "1ms": (1_000, 5_000, 1_000, (*WAYS, *CLUSTERS)),
    "10ms": (10_000, 300, 0, (*WAYS, *CLUSTERS)),
}
"""Key → microseconds of CPU a call, calls, calls in the quick form, ways."""


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """A contest a length, by two workers of `process_pool`."""
    return pools.contests(scratch, [_match(key) for key in LENGTHS], _work, group="cpu", quick=quick)


def _match(key: str) -> Match:
    microseconds, calls, quick, ways = LENGTHS[key]
    title = f"process_pool: {{calls}} calls of {microseconds / 1000:g} ms of CPU each, 2 workers"
    return Match(key=key, mode="process_pool", calls=calls, quick=quick, ways=ways, rounds=7, title=title, note=IDEAL)


def _work(match: Match) -> Work:
    return Work(function="burn", calls=match.calls, argument=work_items.loops_for(LENGTHS[match.key][0] / 1e6))
