"""Signals as events of the loop: what was ignored stays ignored, what was installed is put back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from jobrunner import signals
from jobrunner.loop import Loop

WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Whatever a test does to the handlers of this process is undone."""
    before = {number: signal.getsignal(number) for number in WATCHED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def kill(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", WATCHED)
def test_a_signal_is_told_from_the_loop(loop: Loop, number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    told: list[int] = []
    with signals.watched(loop, told.append):
        kill(number)
        loop.turn()
    assert told == [number]


def test_signals_are_told_each_in_their_order(loop: Loop) -> None:
    for number in WATCHED:  # whoever started the tests in the background had INT ignored
        signal.signal(number, signal.SIG_DFL)
    told: list[int] = []
    with signals.watched(loop, told.append):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            signal.raise_signal(number)  # to this thread, so that none waits for another and two of a kind are two
        while len(told) < 3:
            loop.turn()
    assert told == [signal.SIGTERM, signal.SIGINT, signal.SIGINT]


def test_a_question_that_the_caller_answers_stays_the_callers(loop: Loop) -> None:
    heard: list[int] = []
    told: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    with signals.watched(loop, told.append):
        kill(signal.SIGUSR1)
        kill(signal.SIGTERM)
        loop.turn()
    assert (told, heard) == ([signal.SIGTERM], [signal.SIGUSR1])


def test_other_signals_are_not_ours(loop: Loop) -> None:
    told: list[int] = []
    heard: list[int] = []
    previous = signal.signal(signal.SIGUSR2, lambda number, frame: heard.append(number))
    try:
        with signals.watched(loop, told.append):
            kill(signal.SIGUSR2)
            kill(signal.SIGTERM)
            loop.turn()
    finally:
        signal.signal(signal.SIGUSR2, previous)
    assert (told, heard) == ([signal.SIGTERM], [signal.SIGUSR2])


def test_a_signal_that_was_ignored_stays_ignored_as_nohup_wants_it(loop: Loop) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    told: list[int] = []
    with signals.watched(loop, told.append):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        kill(signal.SIGHUP)
        loop.turn(until=loop.clock())
    assert told == []
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_handlers_and_wakeup_are_put_back_also_when_the_run_breaks(loop: Loop) -> None:
    def mine(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGTERM, mine)
    near, far = os.pipe()
    os.set_blocking(far, False)
    before = signal.set_wakeup_fd(far)
    try:
        with pytest.raises(RuntimeError), signals.watched(loop, lambda number: None):
            raise RuntimeError
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.set_wakeup_fd(before) == far
    finally:
        signal.set_wakeup_fd(before)
        os.close(near)
        os.close(far)
    assert not loop.watched


def test_a_handler_that_python_did_not_install_stays(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = {number: signal.getsignal(number) for number in WATCHED}
    handlers[signal.SIGHUP] = None
    monkeypatch.setattr(signal, "getsignal", handlers.__getitem__)
    with signals.watched(loop, lambda number: None):
        assert signal.getsignal(signal.SIGHUP) is None
    monkeypatch.undo()


def test_outside_the_main_thread_nothing_changes(loop: Loop) -> None:
    before = [signal.getsignal(number) for number in WATCHED]
    seen: list[object] = []

    def run() -> None:
        with signals.watched(loop, lambda number: None):
            seen.extend(signal.getsignal(number) for number in WATCHED)
            seen.append(dict(loop.watched))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [*before, {}]
