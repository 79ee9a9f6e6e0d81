"""What the crash table runs: each way to go, at the import of a module, in a call, or while the value becomes JSON."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import ItemsView
from pathlib import Path


def segfault() -> None:
    ctypes.string_at(0)


def sys_exit() -> None:
    sys.exit(1)


def c_exit() -> None:
    """As a library in C may: nothing of Python is asked."""
    ctypes.CDLL(None).exit(3)


def exception() -> None:
    raise RuntimeError("a crash that is none")


class Trap(dict[str, int]):
    """Goes when it is written as JSON."""

    def __init__(self, way: str) -> None:
        super().__init__(a=1)
        self._way = way

    def items(self) -> ItemsView[str, int]:  # type: ignore[override]  # a dict says dict_items, which has no public name
        globals()[self._way]()
        return super().items()


class Bomb:
    """Goes when it is pickled, which nobody does here."""

    def __reduce__(self) -> str:
        os._exit(3)


def give_trap(way: str) -> Trap:
    return Trap(way)


def give_bomb() -> Bomb:
    return Bomb()


def wait_for(mark: str, release: str) -> str:
    """Leaves a mark, then does nothing until it is released."""
    Path(mark).touch()
    until = time.monotonic() + 30
    while not Path(release).exists() and time.monotonic() < until:
        time.sleep(0.002)
    return "released"


def witness(file: str, number: int, seconds: float) -> int:
    """Writes down that it was begun, and where."""
    fd = os.open(file, os.O_WRONLY | os.O_APPEND)
    os.write(fd, f"{number} {os.getpid()}\n".encode())
    os.close(fd)
    time.sleep(seconds)
    return number
