"""What the contract suite runs: small targets, each of which does one thing that a user's function may do."""

# ruff: noqa: T201 — what a task prints is its output

from __future__ import annotations

import asyncio
import io
import math
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

NOT_CALLABLE = 3


def echo(*args: object, **kwargs: object) -> dict[str, object]:
    return {"args": args, "kwargs": kwargs}


def span(number: int, seconds: float) -> dict[str, Any]:
    """When and where this call ran: CLOCK_MONOTONIC is the same for all processes."""
    started = time.monotonic()
    time.sleep(seconds)
    return {"number": number, "started": started, "ended": time.monotonic(), **where()}


def where() -> dict[str, Any]:
    return {"pid": os.getpid(), "thread": threading.get_ident(), "is_main": threading.current_thread() is threading.main_thread()}


def meet(folder: str, me: int, all_of_us: int) -> bool:
    """True where all were here at the same time: each waits for the marks of the others."""
    Path(folder, f"met-{me}").touch()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if len(list(Path(folder).glob("met-*"))) >= all_of_us:
            return True
        time.sleep(0.005)
    return False


class TwoArguments(Exception):
    """Cannot be unpickled: its pickle holds one argument, its __init__ wants two."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self.second = second


class Unpicklable(Exception):
    def __reduce__(self) -> str:
        raise TypeError("cannot be pickled")


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def raise_value() -> None:
    raise ValueError("a plain mistake")


def raise_two_arguments() -> None:
    raise TwoArguments("one", "two")


def raise_unpicklable() -> None:
    raise Unpicklable("not to be sent")


def raise_speechless() -> None:
    raise Speechless


def raise_keyboard_interrupt() -> None:
    raise KeyboardInterrupt


def raise_group() -> None:
    raise BaseExceptionGroup("two at once", [KeyboardInterrupt(), ValueError("inner")])


def leave(code: object = None) -> None:
    sys.exit(code)  # type: ignore[arg-type]  # as scripts do


def return_object() -> object:
    return object()


def return_lambda() -> object:
    return lambda: None


def return_nan() -> float:
    return math.nan


def return_surrogate() -> str:
    return "\udc80"


class EvilReduce:
    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (0,)


def return_evil() -> object:
    return EvilReduce()


def generate() -> Iterator[int]:
    yield 1


async def generate_later() -> AsyncIterator[int]:
    yield 1


async def wait_a_little() -> str:
    await asyncio.sleep(0)
    return "awaited"


def text_of(size: int) -> str:
    return "x" * size


def length(text: str) -> int:
    return len(text)


def big_number() -> int:
    return 2**80


def speak(name: str) -> None:
    """Through every way to standard output that Python has; the last two are not Python's alone."""
    print(f"{name} print")
    sys.stderr.write(f"{name} stderr\n")
    sys.stdout.buffer.write(f"{name} buffer\n".encode())
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a TextIOWrapper, or what stands in for one
    sys.stdout.write(f"{name} unfinished")
    sys.stdout.flush()
    os.write(1, f"{name} os.write\n".encode())
    subprocess.run(["echo", f"{name} subprocess"], check=True)


def replace_stdout() -> None:
    sys.stdout = io.StringIO()
    print("never seen")


def close_stdout() -> None:
    sys.stdout.close()


def close_descriptors() -> None:
    os.close(1)
    os.close(2)


def redirect_descriptor() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def say(word: str) -> None:
    print(word)


def say_below(word: str) -> None:
    os.write(2, f"{word}\n".encode())


def go_away() -> str:
    os.chdir("/")
    return os.getcwd()


def folder() -> str:
    return os.getcwd()


def environment(*names: str) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in names}


def fork_without_end() -> int:
    """A fork whose child returns as well: only the parent's result counts."""
    os.fork()
    return os.getpid()


def own_processes() -> list[object]:
    """What users do inside a task: a pool of their own, and a command."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        squares = pool.map(_square, range(4))
    return [squares, subprocess.run(["echo", "x"], capture_output=True, check=True, text=True).stdout]


def _square(number: int) -> int:
    print("in a child of a task")
    return number * number


def path() -> list[str]:
    return sys.path
