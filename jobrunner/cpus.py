"""How many workers a pool gets on this machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_MOST_AUTOMATIC_THREADS = 32


def usable_cpus() -> int:
    """CPUs that this process may use: its affinity, and the quota of its cgroup where there is one. At least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(allowed, math.ceil(quota))) if quota else allowed


def _cgroup_quota() -> float | None:
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no cgroup v2 here, or "max": no quota
        return None


def worker_count(workers: int | str, *, threads: bool, cpus: int) -> int:
    """What `workers` of a job file comes to: a number as it is, "50%" of the CPUs, "auto" (CPUs; threads: up to 32).

    The rule for threads is that of `concurrent.futures.ThreadPoolExecutor`: `min(32, CPUs + 4)`.
    """
    if isinstance(workers, int):
        return workers
    if workers == "auto":
        return min(_MOST_AUTOMATIC_THREADS, cpus + 4) if threads else cpus
    return max(1, int(workers.removesuffix("%")) * cpus // 100)
