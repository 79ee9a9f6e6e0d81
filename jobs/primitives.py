"""Functions of threads.yaml, processes.yaml, thread_pool.yaml and process_pool.yaml: the work that shows each primitive."""

from __future__ import annotations

import time


def thread_worker(thread_id: int, seconds: float) -> None:
    """Say that it started, wait for so many seconds, say that it finished."""
    print(f"Thread {thread_id} started")
    time.sleep(seconds)
    print(f"Thread {thread_id} finished")


def process_worker(process_id: int, seconds: float) -> None:
    """Say that it started, wait for so many seconds, say that it finished."""
    print(f"Process {process_id} started")
    time.sleep(seconds)
    print(f"Process {process_id} finished")


def task(n: int) -> str:
    """The result of one item; whoever needs the task gets all results in the order of the items."""
    return f"Task {n} completed"


def show(results: list[str]) -> None:
    """Print the results as one list."""
    print(results)
