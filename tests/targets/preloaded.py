"""A module that tells where it was imported, and what is left of that in a host."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import random
import threading

IMPORTED_IN = os.getpid()
"""The template, where it was preloaded; else the host."""
calls: list[int] = []


def place() -> tuple[int, int, int, float]:
    """Where it was imported, where it runs, how many calls it has seen, and what is drawn at random there."""
    calls.append(1)
    return IMPORTED_IN, os.getpid(), len(calls), random.random()


def leaves_a_thread(path: str) -> None:
    """A thread that is no daemon is waited for."""
    threading.Thread(target=_write, args=(path,)).start()


def registers_at_exit(path: str) -> None:
    """What multiprocessing calls at the end of a process."""
    multiprocessing.util.Finalize(None, _write, args=(path,), exitpriority=1)


def starts_a_child(path: str) -> None:
    """A process of multiprocessing that is no daemon is waited for."""
    multiprocessing.get_context("fork").Process(target=_write, args=(path,)).start()


def _write(path: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write("done")
