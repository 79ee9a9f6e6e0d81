"""The bare primitives: N calls of a function that does nothing, by two workers. Prints how many came back."""

from __future__ import annotations

import multiprocessing
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from threading import Thread

WORKERS = 2


def nothing(n: int) -> None:
    """Costs nothing, as the item of the measured jobs."""


def in_executor(make: Callable[[int], Executor], calls: int) -> int:
    with make(WORKERS) as executor:
        futures = [executor.submit(nothing, n) for n in range(calls)]
        return sum(future.result() is None for future in futures)


def one_each(make: Callable[[int], Thread | BaseProcess], calls: int) -> int:
    """A new thread or process a call, at most WORKERS alive, all joined."""
    alive: deque[Thread | BaseProcess] = deque()
    joined = 0
    for n in range(calls):
        if len(alive) == WORKERS:
            joined += has_ended(alive.popleft())
        alive.append(worker := make(n))
        worker.start()
    return joined + sum(map(has_ended, alive))


def has_ended(worker: Thread | BaseProcess) -> bool:
    worker.join()
    return isinstance(worker, Thread) or worker.exitcode == 0


def thread(n: int) -> Thread:
    return Thread(target=nothing, args=(n,))


def process(n: int) -> BaseProcess:
    return multiprocessing.get_context("fork").Process(target=nothing, args=(n,))


def main(mode: str, calls: int) -> int:
    match mode:
        case "thread_pool":
            return in_executor(ThreadPoolExecutor, calls)
        case "process_pool":
            return in_executor(ProcessPoolExecutor, calls)
        case "thread":
            return one_each(thread, calls)
        case "process":
            return one_each(process, calls)
    raise SystemExit(f"no primitive for mode {mode}")


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2])))
