"""Tasks that only compute, from 100 µs to 10 ms of CPU each: how much of two workers' time is left for them.

The work is a fixed amount of arithmetic, found once for this machine. The ideal does the same amount in the same round: two
forked processes, each with every other call in one bare loop. So efficiency is the ideal's wall clock over that of whoever is
measured, starts and ends included, and neighbours on the machine slow both alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks import jobs, pools, work_items
from benchmarks.measure import Case, Contest, Goal
from benchmarks.pools import Peer, Work

JOB = """\
name: burn-{loops}-{calls}
pools:
  two: {{mode: process_pool, workers: 2}}
tasks:
  each:
    foreach: {{range: {calls}}}
    target: work_items:burn
    args: [{loops}]
    pool: two
"""
AHEAD = Goal(ratio=1)
PEERS = (
    Peer(way="ProcessPoolExecutor.submit", goal=AHEAD),
    Peer(way="ProcessPoolExecutor.map in chunks", goal=AHEAD),
    Peer(way="multiprocessing.Pool.imap"),
    Peer(way="loky.submit", library="loky"),
    Peer(way="joblib, loky", library="joblib", goal=AHEAD),
    Peer(way="Pebble ProcessPool.map", library="pebble", goal=AHEAD),
    Peer(way="mpire.map, chunk_size=1", library="mpire"),
)
CLUSTERS = (
    Peer(way="dask, processes", library="dask", goal=AHEAD),
    Peer(way="ray", library="ray", goal=AHEAD),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """Calls of `microseconds` of CPU each: how many of them."""

    microseconds: int
    calls: int
    efficiency: Goal | None = None
    """Of the ideal's wall clock: 85 % is a ratio of 1 ÷ 0.85."""
    with_clusters: bool = False
    """Against dask and ray too: they take seconds to start, and most of the time where calls are short."""


LENGTHS = (
    Length(microseconds=100, calls=50_000),
    Length(
        microseconds=1_000,
        calls=10_000,
        with_clusters=True,
        efficiency=Goal(ratio=round(1 / 0.85, 3), stretch=round(1 / 0.92, 3)),
    ),
    Length(microseconds=10_000, calls=1_000, with_clusters=True),
)


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """A contest a length, by two workers of `process_pool`."""
    return [_contest(scratch, length, quick=quick) for length in LENGTHS]


def _contest(scratch: Path, length: Length, *, quick: bool) -> Contest:
    calls = length.calls // 10 if quick else length.calls
    work = Work(function="burn", calls=calls, argument=work_items.loops_for(length.microseconds / 1e6))
    ideal = Peer(way="ideal", goal=length.efficiency, is_floor=True)
    title = f"{calls:,} calls of {length.microseconds / 1000:g} ms of CPU, 2 workers; efficiency is ideal ÷ wall"
    clusters = pools.cases(CLUSTERS if length.with_clusters and not quick else [], work, with_single=False)
    cases = [_ours(scratch, work), *pools.cases([ideal, *PEERS], work), *clusters]
    return Contest(group="cpu", title=title, items=calls, cases=cases, rounds=3 if quick else 5)


def _ours(scratch: Path, work: Work) -> Case:
    many, one = (
        jobs.write_job(scratch, f"burn-{work.argument}-{calls}", JOB.format(loops=work.argument, calls=calls))
        for calls in (work.calls, 1)
    )
    return Case(name="jobrunner", argv=jobs.command(many), check=jobs.logged(many, work.calls), single=jobs.command(one))
