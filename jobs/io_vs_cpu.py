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

FASTER = 1.3
"""A way counts as faster from this speed-up over one worker on: less than that is noise on a busy machine."""

SAME_TIME = 1.3
"""Two ways take about the same time when neither takes more than so many times the other's."""

LEANER = 0.5
"""A way counts as leaner when it needs at most this share of the other's memory."""


class Span(TypedDict):
    """When and where one item ran: seconds of the system-wide monotonic clock, process id, bytes of that process's own memory."""

    start: float
    end: float
    pid: int
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One group of items: seconds from its first start to its last end, its processes, and their bytes of memory together."""

    seconds: float
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
        server.join()
    return _span_since(start)


def compute(rounds: int) -> Span:
    """CPU-bound: arithmetic in pure Python, which holds the GIL all the time."""
    start = time.monotonic()
    total = 0
    for number in range(rounds):
        total += number * number % 7
    return _span_since(start)


def _span_since(start: float) -> Span:
    return Span(start=start, end=time.monotonic(), pid=os.getpid(), memory=_memory())


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
    return Measured(
        seconds=max(span["end"] for span in spans) - min(span["start"] for span in spans),
        processes=len(memory),
        memory=sum(memory.values()),
    )


def verdict(serial: Measured, way: Measured, other: Measured) -> str:
    """✅ when a way is faster than one worker and the other way does not do the same with far less memory; ❌ with the reason."""
    if way.seconds * FASTER > serial.seconds:
        return "❌ no faster"
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
        ["GIL limitation", *(_gil_cell(cpu[0], way) for way in cpu[1:])],
    ]


def _speed_row(feature: str, groups: list[Measured]) -> list[str]:
    serial, threads, processes = groups
    cells = ((threads, verdict(serial, threads, processes)), (processes, verdict(serial, processes, threads)))
    return [f"{feature} (one worker {serial.seconds:.2f} s)", *(f"{way.seconds:.2f} s {mark}" for way, mark in cells)]


def _memory_cell(way: Measured) -> str:
    kind = "Shared" if way.processes == 1 else "Separate"
    return f"{kind}: {way.processes} process{'' if way.processes == 1 else 'es'}, {way.memory / 1e6:.0f} MB"


def _gil_cell(serial: Measured, way: Measured) -> str:
    speedup = serial.seconds / way.seconds
    return f"{'Computes in parallel' if speedup >= FASTER else 'One computes at a time'}: {speedup:.1f}x one worker"


def _columns(text: str) -> int:
    """How many columns of a terminal the text takes: ✅ and ❌ take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
