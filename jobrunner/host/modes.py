"""The table of modes: which lane each has, and how many hosts."""

from __future__ import annotations

from enum import StrEnum

from jobrunner.host.foreign import Foreign
from jobrunner.host.in_order import InOrder
from jobrunner.host.lane import Lane
from jobrunner.host.threads import ThreadPerCall, ThreadPool
from jobrunner.structs import struct


class Hosts(StrEnum):
    """How many host processes a mode has."""

    ONE = "one for the pool"
    WORKER = "one for each worker, reused"
    ATTEMPT = "a fresh one for each attempt"


@struct(kw_only=False)
class Mode:
    """One row of MODES."""

    lane: type[Lane]
    hosts: Hosts
    threads: bool = False
    """Attempts share one process: its environment, its working directory, and its death."""
    has_queue: bool = False
    """Calls may wait in its hosts for their turn."""


MODES: dict[str, Mode] = {
    "serial": Mode(InOrder, Hosts.ONE),
    "thread": Mode(ThreadPerCall, Hosts.ONE, threads=True, has_queue=True),
    "thread_pool": Mode(ThreadPool, Hosts.ONE, threads=True, has_queue=True),
    "process": Mode(InOrder, Hosts.ATTEMPT),
    "process_pool": Mode(InOrder, Hosts.WORKER, has_queue=True),
    "executor": Mode(Foreign, Hosts.ONE, threads=True),
}
