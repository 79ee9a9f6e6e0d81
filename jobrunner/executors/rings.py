"""What the threads of a host have taken up, in memory that outlives it: so it need not be sent before it runs."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator

from jobrunner import host
from jobrunner.executors.wire import Wire

_BYTES = 8


class Rings:
    """One ring for each worker (see `host.RING`). A task can write there, as it can into its host's socket: numbers only."""

    def __init__(self, memory: mmap.mmap, workers: int) -> None:
        self._memory, self._workers = memory, workers
        self._numbers = memoryview(memory).cast("q")

    @classmethod
    def given(cls, wire: Wire, workers: int) -> Rings | None:
        """Rings that the host at the other end has, too; None where there is no room for them now."""
        with contextlib.suppress(OSError):
            fd = os.memfd_create("jobrunner-rings", os.MFD_CLOEXEC)
            try:
                os.ftruncate(fd, workers * host.RING * _BYTES)
                rings = cls(mmap.mmap(fd, 0), workers)
                if wire.give_rings(fd):
                    return rings
                rings.close()
            finally:
                os.close(fd)
        return None

    def taken(self) -> Iterator[tuple[int, int, list[int]]]:
        """Of each worker the number in its name, its thread, and the calls that it took up lately, in no order."""
        for start in range(0, self._workers * host.RING, host.RING):
            thread, number, *calls = self._numbers[start : start + host.RING]
            yield number, thread, calls

    def close(self) -> None:
        self._numbers.release()
        self._memory.close()
