"""N calls of one function by two workers, in the way each library documents for many calls. Prints how many came back right.

python pools.py WAY FUNCTION N ARGUMENT: each call is FUNCTION(ARGUMENT), of benchmarks.work_items. Libraries are imported where
they are used, so that none pays for another. "in chunks" says that calls are sent so; joblib and dask decide for themselves.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from functools import partial
from multiprocessing.pool import Pool, ThreadPool
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

from benchmarks import work_items

WORKERS = 2
Function = Callable[[int], object]
Way = Callable[[Function, Sequence[int]], Iterable[object]]


def submitted(make: Callable[[], Any], function: Function, arguments: Sequence[int]) -> list[object]:
    """Any executor of PEP 3148: one call a submit."""
    with make() as executor:
        waiting = [executor.submit(function, argument) for argument in arguments]
        return [each.result() for each in waiting]


def mapped(make: Callable[[], futures.Executor], function: Function, arguments: Sequence[int]) -> list[object]:
    """In chunks, four a worker, as multiprocessing.Pool.map makes them: Executor.map itself makes none by default."""
    with make() as executor:
        return list(executor.map(function, arguments, chunksize=max(1, len(arguments) // (4 * WORKERS))))


def pool_imap(make: Callable[[], Pool], function: Function, arguments: Sequence[int]) -> list[object]:
    with make() as pool:
        return list(pool.imap(function, arguments, chunksize=1))


def pool_map(function: Function, arguments: Sequence[int]) -> list[object]:
    with Pool(WORKERS) as pool:
        return pool.map(function, arguments)


def threads(function: Function, arguments: Sequence[int]) -> list[object]:
    """A new thread a call, at most WORKERS alive, all joined."""
    found: list[object] = []

    def call(argument: int) -> None:
        found.append(function(argument))

    alive: deque[Thread] = deque()
    for argument in arguments:
        if len(alive) == WORKERS:
            alive.popleft().join()
        alive.append(thread := Thread(target=call, args=(argument,)))
        thread.start()
    for thread in alive:
        thread.join()
    return found


def processes(function: Function, arguments: Sequence[int]) -> list[object]:
    """A new forked process a call, at most WORKERS alive, all joined. It gives no value back: its exit code says that it ran."""
    fork = multiprocessing.get_context("fork")
    alive: deque[BaseProcess] = deque()
    codes: list[int | None] = []
    for argument in arguments:
        if len(alive) == WORKERS:
            codes.append(_exit_code(alive.popleft()))
        alive.append(process := fork.Process(target=function, args=(argument,)))
        process.start()
    codes += map(_exit_code, alive)
    return [None for code in codes if code == 0]


def _exit_code(process: BaseProcess) -> int | None:
    process.join()
    return process.exitcode


def halves(function: Function, arguments: Sequence[int]) -> list[object]:
    """The ideal: two forked processes, each with every other call in one loop; what they found comes back at their end."""
    fork = multiprocessing.get_context("fork")
    ends = [fork.Pipe(duplex=False) for _ in range(WORKERS)]
    workers = [
        fork.Process(target=_half, args=(function, arguments[number::WORKERS], sender)) for number, (_, sender) in enumerate(ends)
    ]
    for worker in workers:
        worker.start()
    found = [each for receiver, _ in ends for each in receiver.recv()]
    for worker in workers:
        worker.join()
    return found


def _half(function: Function, arguments: Sequence[int], sender: Any) -> None:
    sender.send([function(argument) for argument in arguments])


def loky(function: Function, arguments: Sequence[int]) -> list[object]:
    from loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=WORKERS)
    waiting = [executor.submit(function, argument) for argument in arguments]
    found = [each.result() for each in waiting]
    executor.shutdown()
    return found


def pebble(kind: str, function: Function, arguments: Sequence[int], **options: int) -> list[object]:
    import pebble

    with getattr(pebble, kind)(max_workers=WORKERS, **options) as pool:
        return list(pool.map(function, arguments).result())


def mpire(function: Function, arguments: Sequence[int], **options: Any) -> list[object]:
    from mpire import WorkerPool

    kind = {name: options.pop(name) for name in ("start_method",) if name in options}
    with WorkerPool(n_jobs=WORKERS, **kind) as pool:
        return list(pool.map(function, arguments, **options))


def joblib(backend: str, function: Function, arguments: Sequence[int]) -> list[object]:
    from joblib import Parallel, delayed

    return list(Parallel(n_jobs=WORKERS, backend=backend)(delayed(function)(argument) for argument in arguments))


def dask(cluster: dict[str, Any], function: Function, arguments: Sequence[int]) -> list[object]:
    """`pure=False`: else calls with the same argument are one."""
    from distributed import Client, LocalCluster

    with LocalCluster(dashboard_address=None, **cluster) as made, Client(made) as client:
        return list(client.gather(client.map(function, arguments, pure=False)))


def ray(function: Function, arguments: Sequence[int]) -> list[object]:
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    remote = ray.remote(function)
    found = list(ray.get([remote.remote(argument) for argument in arguments]))
    ray.shutdown()
    return found


# The way each is called → how. Keys are the names that tables show.
WAYS: dict[str, Way] = {
    "ideal": halves,
    "ThreadPoolExecutor.submit": partial(submitted, partial(futures.ThreadPoolExecutor, WORKERS)),
    "ProcessPoolExecutor.submit": partial(submitted, partial(futures.ProcessPoolExecutor, WORKERS)),
    "ProcessPoolExecutor.map in chunks": partial(mapped, partial(futures.ProcessPoolExecutor, WORKERS)),
    "multiprocessing.Pool.imap": partial(pool_imap, partial(Pool, WORKERS)),
    "multiprocessing.Pool.map in chunks": pool_map,
    "multiprocessing.Pool, a process a call": partial(pool_imap, partial(Pool, WORKERS, maxtasksperchild=1)),
    "multiprocessing.ThreadPool.imap": partial(pool_imap, partial(ThreadPool, WORKERS)),
    "a Thread a call": threads,
    "a forked Process a call": processes,
    "loky.submit": loky,
    "Pebble ProcessPool.map": partial(pebble, "ProcessPool"),
    "Pebble ThreadPool.map": partial(pebble, "ThreadPool"),
    "Pebble, a process a call": partial(pebble, "ProcessPool", max_tasks=1),
    "mpire.map in chunks": mpire,
    "mpire.map, chunk_size=1": partial(mpire, chunk_size=1),
    "mpire threading, chunk_size=1": partial(mpire, chunk_size=1, start_method="threading"),
    "joblib, threading": partial(joblib, "threading"),
    "joblib, loky": partial(joblib, "loky"),
    "dask, processes": partial(dask, {"n_workers": WORKERS, "threads_per_worker": 1}),
    "dask, threads": partial(dask, {"processes": False, "n_workers": 1, "threads_per_worker": WORKERS}),
    "ray": ray,
}


def main(way: str, name: str, calls: int, argument: int) -> int:
    """How many calls gave what the function gives when it is called here."""
    function: Function = getattr(work_items, name)
    expected = function(argument)
    return sum(found == expected for found in WAYS[way](function, [argument] * calls))


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
