"""What a lane is, and what a host is told when it starts."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator

from jobrunner.host.port import Port
from jobrunner.structs import struct
from jobrunner.typed import Protocol

CANNOT_SERVE = 71


@struct
class Settings:
    """What a host is told when it starts."""

    pool: str
    worker: str
    lane: str
    workers: int
    executor: str
    path: list[str]
    env: dict[str, str]


began_with: dict[str, str] = {}
"""The environment before any attempt."""


class Lane(Protocol):
    """What a mode does with a Call. `serve` runs in the main thread and returns when there are no more calls."""

    def __init__(self, port: Port, settings: Settings) -> None: ...
    def serve(self) -> None: ...


@contextlib.contextmanager
def or_dead() -> Iterator[None]:
    """What serves either goes on or ends its process: no memory or no room for a thread, and its calls go to another host."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:
        traceback.print_exc()
        os._exit(CANNOT_SERVE)
