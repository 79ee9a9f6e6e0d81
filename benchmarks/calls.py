"""Many calls of a Python function that does nothing, in each mode, against its bare primitive and other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import jobs, pools
from benchmarks.measure import Case, Contest, Goal
from benchmarks.pools import Peer, Work

JOB = """\
name: {mode}-{items}
pools:
  two: {{mode: {mode}, workers: 2}}
tasks:
  each:
    foreach: {{range: {items}}}
    target: work_items:nothing
    args: ["${{{{ item }}}}"]
    pool: two
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A mode against its peers: how many calls, and how many in the quick form (0: it is left out there).

    `more` says in the title what is special.
    """

    mode: str
    calls: int
    quick: int
    peers: Sequence[Peer]
    more: str = ""
    rounds: int = 7


MATCHES = (
    Match(
        mode="thread_pool",
        calls=100_000,
        quick=5_000,
        peers=(
            Peer(way="ThreadPoolExecutor.submit", goal=Goal(ratio=1.3, stretch=0.8)),
            Peer(way="multiprocessing.ThreadPool.imap"),
            Peer(way="joblib, threading", library="joblib"),
            Peer(way="Pebble ThreadPool.map", library="pebble"),
            Peer(way="mpire threading, chunk_size=1", library="mpire"),
        ),
    ),
    Match(
        mode="process_pool",
        calls=100_000,
        quick=5_000,
        peers=(
            Peer(way="ProcessPoolExecutor.submit", goal=Goal(ratio=0.5, stretch=0.25)),
            Peer(way="multiprocessing.Pool.imap", goal=Goal(ratio=1.0)),
            Peer(way="loky.submit", library="loky"),
            Peer(way="Pebble ProcessPool.map", library="pebble"),
            Peer(way="mpire.map, chunk_size=1", library="mpire"),
            Peer(way="joblib, loky", library="joblib"),
        ),
    ),
    Match(
        mode="process_pool",
        calls=100_000,
        quick=5_000,
        more=", peers that send calls in chunks: no call has a start, an end or a failure of its own",
        peers=(
            Peer(way="ProcessPoolExecutor.map in chunks"),
            Peer(way="multiprocessing.Pool.map in chunks"),
            Peer(way="mpire.map in chunks", library="mpire"),
        ),
    ),
    Match(
        mode="process_pool",
        calls=10_000,
        quick=0,
        more=", schedulers for clusters: fewer calls",
        rounds=3,
        peers=(
            Peer(way="dask, processes", library="dask"),
            Peer(way="dask, threads", library="dask"),
            Peer(way="ray", library="ray"),
        ),
    ),
    Match(
        mode="thread",
        calls=100_000,
        quick=5_000,
        peers=(Peer(way="a Thread a call", goal=Goal(ratio=1.3, stretch=1.1)),),
    ),
    Match(
        mode="process",
        calls=2_000,
        quick=200,
        peers=(
            Peer(way="a forked Process a call", goal=Goal(ratio=1.3, stretch=1.1)),
            Peer(way="multiprocessing.Pool, a process a call"),
        ),
    ),
    Match(
        mode="process",
        calls=200,
        quick=0,
        more=", slow peers: fewer calls",
        rounds=3,
        peers=(Peer(way="Pebble, a process a call", library="pebble"),),
    ),
)


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """No-op calls by two workers. One without any peer that is to be had is left out."""
    found = [_contest(scratch, match, quick=quick) for match in MATCHES if match.quick or not quick]
    return [contest for contest in found if len(contest.cases) > 1]


def _contest(scratch: Path, match: Match, *, quick: bool) -> Contest:
    calls = match.quick if quick else match.calls
    peers = pools.cases(match.peers, Work(function="nothing", calls=calls))
    title = f"{match.mode}: {calls:,} calls of nothing, 2 workers{match.more}"
    cases = [_ours(scratch, match.mode, calls), *peers]
    return Contest(group="calls", title=title, items=calls, cases=cases, rounds=3 if quick else match.rounds)


def _ours(scratch: Path, mode: str, calls: int) -> Case:
    many, one = (jobs.write_job(scratch, f"{mode}-{n}", JOB.format(mode=mode, items=n)) for n in (calls, 1))
    return Case(name="jobrunner", argv=jobs.command(many), check=jobs.logged(many, calls), single=jobs.command(one))
