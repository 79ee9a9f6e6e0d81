"""Targets that tell what a host is, as user code sees it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import Any


def facts() -> dict[str, Any]:
    parent = multiprocessing.parent_process()
    return {
        "pid": os.getpid(),
        "engine": os.getppid(),
        "leads": os.getpid() == os.getsid(0) == os.getpgid(0),
        "name": multiprocessing.current_process().name,
        "number": multiprocessing.current_process()._identity,
        "parent": parent and (parent.name, parent.pid),
        "native": threading.main_thread().native_id == threading.get_native_id() == os.getpid(),
        "argv": sys.argv,
        "folder": os.getcwd(),
        "env": os.environ.get("WIDE"),
        "ignored": sorted(number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN),
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "descriptors": descriptors(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "is_lean": "jobrunner.executors.pool" not in sys.modules,
        "colors": "colorsys" in sys.modules,
        "maps": Path("/proc/self/maps").read_text(),
        "environment": Path("/proc/self/environ").read_text(),
    }


def descriptors() -> list[str]:
    """What is open, but for what reads the list."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}").partition(":")[0])
        except FileNotFoundError:
            continue
    return sorted(found)


def child_of_its_own() -> int | None:
    """The exit code of a process that the task starts itself."""
    child = multiprocessing.get_context("fork").Process(target=sys.exit, args=(7,))
    child.start()
    child.join()
    return child.exitcode


def signals_its_main_thread() -> bool:
    """The C library knows under which id the thread runs."""
    heard: list[int] = []
    signal.signal(signal.SIGUSR2, lambda number, _: heard.append(number))
    main = threading.get_ident()
    other = threading.Thread(target=lambda: signal.pthread_kill(main, signal.SIGUSR2))
    other.start()
    other.join()
    return heard == [signal.SIGUSR2]


def is_large() -> str:
    """What it prints and returns has no room in its pipes."""
    sys.stdout.write("x" * (1 << 20))
    return "y" * (1 << 22)
