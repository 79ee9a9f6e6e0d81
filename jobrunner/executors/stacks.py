"""Where the Python code of a host stands, as text: asked for by a signal, or left behind by a crash in C code.

The host's faulthandler writes it from the signal handler itself, into a pipe that only the engine reads: so it comes also while C
code holds the interpreter. Nobody is waited for: what has not come in time is left out.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable
from functools import cache

from jobrunner import host, work
from jobrunner.loop import Loop, Timer, Watch
from jobrunner.processes import PIPE_READS, read_available

PATIENCE = 0.1
"""Seconds that a stack may take to come before the task is stopped without it."""
_LONGEST = 1 << 16


def _pattern(path: str) -> str:
    """As faulthandler writes it."""
    return re.escape(ascii(path)[1:-1])


@cache
def _complete() -> re.Pattern[str]:
    """The main thread is the last that is written, and this its lowest frame that is of interest."""
    return re.compile(rf'File "{_host()}", line \d+ in main\n')


@cache
def _our_frames() -> re.Pattern[str]:
    """What called the task. What called that, in a forked host, is the engine as it stood when it forked."""
    return re.compile(rf'  File "(?:{_pattern(work.__file__)}|{_host()})", line \d+ in .*\n(?:  .*\n)*')


def _host() -> str:
    return _pattern(os.path.dirname(host.__file__)) + r"/\w+\.py"


_EMPTY_THREADS = r"(?a)(?:Current thread|Thread) 0x\w+[^\n]*:\n(?=\n|$)\n?"
_MODULES = r"\nExtension modules: .*\n"


class Stack:
    """The reading end of one host's pipe for stacks, which this owns."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self._loop, self._fd = loop, fd
        self._data = bytearray()
        self._watch: Watch | None = None
        self._timer: Timer | None = None

    def ask(self, pidfd: int, then: Callable[[], None]) -> None:
        """Ask the host for its stack; `then` is called when it has come, at latest after PATIENCE; not at all after `close`."""
        self._forget()
        self._read()
        self._data.clear()  # what a task's own child wrote there is no answer
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, host.STACK_SIGNAL)
        self._watch = self._loop.watch(self._fd, lambda: self._on_data(then))
        self._timer = self._loop.call_at(self._loop.clock() + PATIENCE, lambda: self._go_on(then))

    def text(self) -> str:
        """All that has come, the frames of jobrunner left out; empty where nothing has."""
        self._read()
        return tidy(self._data.decode("ascii", "backslashreplace"))

    def take(self) -> str:
        """The text, which is then forgotten: a crash that follows has another one."""
        text = self.text()
        self._data.clear()
        return text

    def close(self) -> None:
        self._forget()
        os.close(self._fd)

    def _on_data(self, then: Callable[[], None]) -> None:
        self._read()
        if _complete().search(self._data.decode("ascii", "replace")):
            self._go_on(then)

    def _go_on(self, then: Callable[[], None]) -> None:
        self._forget()
        then()

    def _forget(self) -> None:
        if self._watch is not None:
            self._watch.close()
        if self._timer is not None:
            self._timer.cancel()

    def _read(self) -> None:
        for _ in range(PIPE_READS):
            if not (data := read_available(self._fd)):
                break
            self._data += data[: _LONGEST - len(self._data)]


def tidy(text: str) -> str:
    """Without the frames of jobrunner, threads in which there is nothing else, and a last line that was cut off by the end."""
    whole = text[: text.rfind("\n") + 1]
    if not whole:  # as of most hosts: nothing is compiled for it
        return ""
    return re.sub(_EMPTY_THREADS, "", _our_frames().sub("", re.sub(_MODULES, "", whole))).strip()
