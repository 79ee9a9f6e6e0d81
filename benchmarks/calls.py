"""Many calls of a Python function that does nothing, in each mode, against its bare primitive and other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import pools
from benchmarks.measure import Contest
from benchmarks.pools import Match, Peer, Work

NOTHING = Work(function="nothing", calls=1, item='"${{ item }}"')
PROCESSES = (
    Peer(way="ProcessPoolExecutor.submit"),
    Peer(way="multiprocessing.Pool.imap"),
    Peer(way="loky.submit", library="loky"),
    Peer(way="Pebble ProcessPool.map", library="pebble"),
    Peer(way="mpire.map, chunk_size=1", library="mpire"),
    Peer(way="joblib, loky", library="joblib"),
)
THREADS = (
    Peer(way="ThreadPoolExecutor.submit"),
    Peer(way="multiprocessing.ThreadPool.imap"),
    Peer(way="joblib, threading", library="joblib"),
    Peer(way="Pebble ThreadPool.map", library="pebble"),
    Peer(way="mpire threading, chunk_size=1", library="mpire"),
)


def _match(key: str, calls: int, quick: int, peers: Sequence[Peer], *, mode: str = "", more: str = "", rounds: int = 7) -> Match:
    """`more` says in the title what is special."""
    title = f"{mode or key}: {{calls}} calls of nothing, 2 workers{more}"
    return Match(key=key, mode=mode or key, calls=calls, quick=quick, peers=peers, rounds=rounds, title=title)


MATCHES = (
    _match("process_pool", 100_000, 12_000, PROCESSES),
    _match(
        "process_pool-chunks",
        100_000,
        0,
        [
            Peer(way="ProcessPoolExecutor.map in chunks"),
            Peer(way="multiprocessing.Pool.map in chunks"),
            Peer(way="mpire.map in chunks", library="mpire"),
        ],
        mode="process_pool",
        more=", peers that send calls in chunks: no call has a start, an end or a failure of its own",
    ),
    _match(
        "process_pool-clusters",
        10_000,
        0,
        [
            Peer(way="dask, processes", library="dask", has_single=False),
            Peer(way="dask, threads", library="dask", has_single=False),
            Peer(way="ray", library="ray", has_single=False),
        ],
        mode="process_pool",
        more=", schedulers for clusters: fewer calls",
        rounds=3,
    ),
    _match("thread_pool", 100_000, 20_000, THREADS),
    _match("thread", 100_000, 5_000, [Peer(way="a Thread a call")]),
    _match(
        "process",
        5_000,
        500,
        [Peer(way="a forked Process a call"), Peer(way="multiprocessing.Pool, a process a call")],
    ),
    _match(
        "process-slow",
        200,
        0,
        [Peer(way="Pebble, a process a call", library="pebble")],
        mode="process",
        more=", slow peers: fewer calls",
        rounds=3,
    ),
)
STARTS = {"process_pool": PROCESSES, "thread_pool": THREADS}
START = """\
What a throughput leaves out: the whole process from its start to its end, for one call. jobrunner reads and checks a job file,
opens a journal and a log and starts its guard in that time; the others are scripts of a few lines."""


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """No-op calls by two workers: very many, and one by a pool that is cold."""
    starts = [_start(scratch, mode, quick=quick) for mode in STARTS]
    return [*pools.contests(scratch, MATCHES, lambda match: NOTHING, group="calls", quick=quick), *starts]


def _start(scratch: Path, mode: str, *, quick: bool) -> Contest:
    return Contest(
        group="calls",
        key=f"{mode}-cold",
        title=f"{mode}: the first result of a cold pool of 2 workers",
        items=1,
        cases=[pools.ours(scratch, mode, NOTHING), *pools.cases(STARTS[mode], NOTHING)],
        rounds=3 if quick else 21,
        note=START,
    )
