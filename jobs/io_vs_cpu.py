"""Functions of io_vs_cpu.yaml: one I/O-bound and one CPU-bound piece of work, and the table that compares how they ran."""

from __future__ import annotations

import os
import re
import resource
import socket
import threading
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

AT_ONCE = 1.2
"""Items count as making progress at the same time when there are at least so many on average."""

SAME_TIME = 1.3
"""Two ways take about the same time when neither takes more than so many times the other's."""

LEANER = 0.5
"""A way counts as leaner when it needs at most this share of the other's memory."""


class Span(TypedDict):
    """When and where one item ran, on the system-wide monotonic clock in seconds.

    `progress` is how long it did what it is about, waiting or computing, and did not queue for a CPU or the GIL; in seconds.
    `memory` is what the process `pid` has for itself, in bytes.
    """

    start: float
    end: float
    progress: float
    pid: int
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One group of items: seconds from its first start to its last end, its processes, and their bytes of memory together.

    `at_once` is how many items made progress at the same time, on average. Unlike the seconds it does not depend on how
    busy the machine was with other things when the group had its turn.
    """

    seconds: float
    at_once: float
    processes: int
    memory: int


def wait_for_answer(seconds: float) -> Span:
    """I/O-bound: block on a socket until the other end answers. The delay stands in for a network and a server."""
    start = time.monotonic()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = threading.Timer(seconds, theirs.sendall, [b"answer"])
        server.start()
        ours.recv(16)
        waited = time.monotonic() - start
        server.join()
    return _span(start, waited)


def compute(rounds: int) -> Span:
    """CPU-bound: arithmetic in pure Python, which holds the GIL all the time."""
    start, cpu = time.monotonic(), time.thread_time()
    total = 0
    for number in range(rounds):
        total += number * number % 7
    return _span(start, time.thread_time() - cpu)


def _span(start: float, progress: float) -> Span:
    return Span(start=start, end=time.monotonic(), progress=progress, pid=os.getpid(), memory=_memory())


def _memory() -> int:
    """Bytes that only this process has: what one more process costs. Its peak, shared pages too, if the kernel does not say."""
    try:
        private = re.findall(r"^Private_\w+:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        private = []
    kilobytes = sum(map(int, private)) or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * 1024


def measured(spans: Sequence[Span]) -> Measured:
    """What a group took. Raises ValueError for an empty group."""
    memory: dict[int, int] = {}
    for span in spans:
        memory[span["pid"]] = max(memory.get(span["pid"], 0), span["memory"])
    seconds = max(span["end"] for span in spans) - min(span["start"] for span in spans)
    return Measured(
        seconds=seconds,
        at_once=sum(span["progress"] for span in spans) / seconds,
        processes=len(memory),
        memory=sum(memory.values()),
    )


def verdict(way: Measured, other: Measured) -> str:
    """✅ when items run at once and the other way does not do the same with far less memory; ❌ with the reason."""
    if way.at_once < AT_ONCE:
        return "❌ one at a time"
    if other.seconds <= way.seconds * SAME_TIME and other.memory <= way.memory * LEANER:
        return f"❌ {way.memory / other.memory:.0f}x the memory"
    return "✅"


def print_table(io: list[list[Span]], cpu: list[list[Span]]) -> list[list[str]]:
    """Print, and return, the table of both. Each list holds three groups: one worker, threads, processes."""
    rows = table([measured(group) for group in io], [measured(group) for group in cpu])
    widths = [max(_columns(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print(" | ".join(cell + " " * (width - _columns(cell)) for cell, width in zip(row, widths, strict=True)).rstrip())
    if len(os.sched_getaffinity(0)) == 1:
        print("Only one CPU is usable here: no way can compute faster than one worker.")
    return rows


def table(io: list[Measured], cpu: list[Measured]) -> list[list[str]]:
    """The rows of the table, first the head. Every mark and word in it follows from the figures."""
    return [
        ["Feature", "Threads (threading)", "Processes (multiprocessing)"],
        ["Memory usage", *(_memory_cell(way) for way in io[1:])],
        _speed_row("CPU-bound tasks", cpu),
        _speed_row("I/O-bound tasks", io),
        ["GIL limitation", *(_gil_cell(way) for way in cpu[1:])],
    ]


def _speed_row(feature: str, groups: list[Measured]) -> list[str]:
    serial, threads, processes = groups
    cells = ((threads, verdict(threads, processes)), (processes, verdict(processes, threads)))
    return [f"{feature} (one worker {serial.seconds:.2f} s)", *(f"{way.seconds:.2f} s {mark}" for way, mark in cells)]


def _memory_cell(way: Measured) -> str:
    kind = "Shared" if way.processes == 1 else "Separate"
    return f"{kind}: {way.processes} process{'' if way.processes == 1 else 'es'}, {way.memory / 1e6:.0f} MB"


def _gil_cell(way: Measured) -> str:
    kind = "Not affected" if way.at_once >= AT_ONCE else "Affected"
    return f"{kind}: {way.at_once:.1f} CPUs compute at once"


def _columns(text: str) -> int:
    """How many columns of a terminal the text takes: ✅ and ❌ take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
