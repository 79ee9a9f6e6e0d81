"""Many calls of a Python function that does nothing, in each mode, against its bare primitive and other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import pools
from benchmarks.measure import Contest
from benchmarks.pools import Match, Work

NOTHING = Work(function="nothing", calls=1, item='"${{ item }}"')
PROCESSES = (
    "ProcessPoolExecutor.submit",
    "multiprocessing.Pool.imap",
    "loky.submit",
    "Pebble ProcessPool.map",
    "mpire.map, chunk_size=1",
    "joblib, loky",
)
THREADS = (
    "ThreadPoolExecutor.submit",
    "multiprocessing.ThreadPool.imap",
    "joblib, threading",
    "Pebble ThreadPool.map",
    "mpire threading, chunk_size=1",
)
CHUNKS = ("ProcessPoolExecutor.map in chunks", "multiprocessing.Pool.map in chunks", "mpire.map in chunks")
FORKS = ("a forked Process a call", "multiprocessing.Pool, a process a call")
CLUSTERS = ("dask, processes", "dask, threads", "ray")
EACH = """\
By jobrunner each call is handed over by itself, and has a start and an end in log and journal. joblib and dask put calls together
as they see fit."""
IN_CHUNKS = "A call that is sent in a chunk has no start, no end and no failure of its own."
PRELOADED = "`preload: true`: the function's module is imported once, before processes are forked, not in each of them."


def _match(key: str, calls: int, ways: Sequence[str], what: str = "", **more: Any) -> Match:
    """A key begins with the mode; `what` says in the title what is special."""
    mode = key.partition("-")[0]
    title = f"{mode}: {{calls}} calls of nothing, 2 workers{what}"
    return Match(key=key, mode=mode, calls=calls, ways=ways, rounds=7, title=title, **{"note": EACH} | more)


MATCHES = (
    _match("process_pool", 100_000, PROCESSES, quick=12_000),
    _match("process_pool-chunks", 100_000, CHUNKS, "; peers that send calls in chunks", note=IN_CHUNKS),
    _match("process_pool-clusters", 3_000, CLUSTERS, "; schedulers for clusters: fewer calls"),
    _match("thread_pool", 100_000, THREADS, quick=20_000),
    _match("thread", 30_000, ["a Thread a call"], quick=4_000),
    _match("process", 2_000, FORKS, quick=300, also=["preload: true"], note=PRELOADED),
    _match("process-slow", 200, ["Pebble, a process a call"], "; slow peers: fewer calls"),
)
STARTS = {"process_pool": PROCESSES, "thread_pool": THREADS}
START = """\
What a throughput leaves out: the whole process from its start to its end, for one call. jobrunner reads and checks a job file,
opens a journal and a log and starts its guard in that time; the others are scripts of a few lines."""


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """No-op calls by two workers: very many, and one by a pool that is cold."""
    starts = [] if quick else [_start(scratch, mode) for mode in STARTS]
    return [*pools.contests(scratch, MATCHES, lambda match: NOTHING, group="calls", quick=quick), *starts]


def _start(scratch: Path, mode: str) -> Contest:
    return Contest(
        group="calls",
        key=f"{mode}-cold",
        title=f"{mode}: the first result of a cold pool of 2 workers",
        items=1,
        cases=[pools.ours(scratch, mode, NOTHING), *pools.cases(STARTS[mode], NOTHING)],
        rounds=21,
        note=START,
    )
