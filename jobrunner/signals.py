"""Signals as events of the loop: a handler that does nothing, and a descriptor that tells which signal came."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from jobrunner import system
from jobrunner.loop import Loop

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ASKING = signal.SIGUSR1


@contextlib.contextmanager
def watched(loop: Loop, on_signal: Callable[[int], None]) -> Iterator[None]:
    """While inside, INT, TERM, HUP and USR1 reach `on_signal` from the loop, by number, instead of interrupting anything.

    A signal that was ignored when we came stays ignored (nohup), and USR1 is the caller's where the caller handles it. Outside
    the main thread, where Python cannot watch signals, nothing is changed.
    """
    if not system.is_main_thread():
        yield
        return
    near, far = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    handlers = {number: signal.getsignal(number) for number in _STOPPING}
    # None is a handler that was not installed from Python: it could not be put back, so it stays.
    previous = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    if (handler := signal.getsignal(_ASKING)) is signal.SIG_DFL:
        previous[_ASKING] = handler
    wakeup = signal.set_wakeup_fd(far)

    def on_readable() -> None:
        for number in os.read(near, 64):
            if number in previous:
                on_signal(number)

    watch = loop.watch(near, on_readable)
    for number in previous:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        watch.close()
        os.close(near)
        os.close(far)
