"""The loop: timers in order, registrations that are objects, and a wait that ends when it should."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from jobrunner.loop import Loop


class Clock:
    """Time that stands still until a test moves it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loop(clock: Clock) -> Iterator[Loop]:
    loop = Loop(clock)
    yield loop
    loop.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    near, far = os.pipe()
    yield near, far
    for fd in (near, far):
        os.close(fd)


def test_timers_are_called_in_the_order_of_their_times_and_then_of_their_making(loop: Loop, clock: Clock) -> None:
    made: list[str] = []
    for name, when in (("c", 103), ("a", 101), ("b", 102), ("b again", 102), ("later", 105)):
        loop.call_at(when, lambda name=name: made.append(name))  # type: ignore[misc]  # mypy cannot infer a lambda's default
    clock.now = 104
    loop.turn()
    assert made == ["a", "b", "b again", "c"]


def test_a_timer_is_called_once(loop: Loop, clock: Clock) -> None:
    made: list[str] = []
    loop.call_at(101, lambda: made.append("a"))
    clock.now = 102
    loop.turn(until=102)
    loop.turn(until=102)
    assert made == ["a"]


def test_a_cancelled_timer_is_never_called_and_nobody_waits_for_it(loop: Loop, clock: Clock) -> None:
    made: list[str] = []
    timer = loop.call_at(101, lambda: made.append("a"))
    loop.call_at(102, lambda: made.append("b"))
    timer.cancel()
    timer.cancel()
    clock.now = 103
    loop.turn()
    timer.cancel()
    assert made == ["b"]


def test_a_timer_may_cancel_another_that_is_due_in_the_same_turn(loop: Loop, clock: Clock) -> None:
    made: list[str] = []
    loop.call_at(101, lambda: second.cancel())
    second = loop.call_at(102, lambda: made.append("second"))
    clock.now = 103
    loop.turn()
    assert made == []


def test_a_timer_may_make_another_that_is_due_at_once(loop: Loop, clock: Clock) -> None:
    made: list[str] = []
    loop.call_at(101, lambda: loop.call_at(clock.now, lambda: made.append("inner")))
    clock.now = 101
    loop.turn()
    assert made == ["inner"]


def test_a_turn_ends_when_its_time_has_come_though_nothing_happened(loop: Loop, pipe: tuple[int, int]) -> None:
    called: list[str] = []
    loop.watch(pipe[0], lambda: called.append("read"))
    loop.call_at(101, lambda: called.append("timer"))
    loop.turn(until=100)
    assert called == []


def test_a_turn_without_an_end_lasts_until_something_can_be_read(loop: Loop, pipe: tuple[int, int]) -> None:
    read: list[bytes] = []
    loop.watch(pipe[0], lambda: read.append(os.read(pipe[0], 10)))
    os.write(pipe[1], b"x")
    loop.turn()
    assert read == [b"x"]


def test_what_can_be_written_is_told_to_who_asked_for_it(loop: Loop, pipe: tuple[int, int]) -> None:
    called: list[str] = []
    watch = loop.watch(pipe[1], lambda: called.append("write"), writable=True)
    loop.turn()
    watch.close()
    loop.turn(until=100)
    assert called == ["write"]


def test_closing_a_watch_twice_is_harmless(loop: Loop, pipe: tuple[int, int]) -> None:
    watch = loop.watch(pipe[0], lambda: None)
    watch.close()
    watch.close()
    loop.watch(pipe[0], lambda: None).close()


def test_a_closed_watch_gets_no_call_for_what_was_read_before_nor_for_who_reuses_its_number(loop: Loop) -> None:
    """Two sockets are ready in one turn; whoever is called first closes the other and opens a third under the same number."""
    called: list[str] = []
    pairs = {name: socket.socketpair() for name in ("a", "b")}
    for near, far in pairs.values():
        far.send(b"x")
        near.setblocking(False)
    fresh: list[socket.socket] = []

    def on_ready(name: str) -> None:
        called.append(name)
        other = "b" if name == "a" else "a"
        number = pairs[other][0].fileno()
        watches[other].close()
        pairs[other][0].close()
        fresh.extend(socket.socketpair())
        assert number in (fresh[0].fileno(), fresh[1].fileno()), "the number is reused"
        reused = fresh[0] if fresh[0].fileno() == number else fresh[1]
        watches["fresh"] = loop.watch(reused.fileno(), lambda: called.append("fresh"))
        watches[name].close()

    watches = {name: loop.watch(near.fileno(), lambda name=name: on_ready(name)) for name, (near, _) in pairs.items()}  # type: ignore[misc]
    loop.turn()
    loop.turn(until=100)
    assert len(called) == 1
    assert called[0] in ("a", "b")
    watches["fresh"].close()
    for each in (*fresh, *(end for pair in pairs.values() for end in pair)):
        each.close()


def test_a_watch_for_once_is_called_once_though_what_was_ready_stays_so(loop: Loop, pipe: tuple[int, int]) -> None:
    called: list[str] = []
    watch = loop.watch(pipe[0], lambda: called.append("read"), once=True)
    os.write(pipe[1], b"x")
    loop.turn()
    assert (called, watch.active, dict(loop.watched)) == (["read"], False, {})
    loop.turn(until=100)
    watch.close()
    assert called == ["read"]


def test_a_watch_for_once_that_was_closed_is_never_called(loop: Loop, pipe: tuple[int, int]) -> None:
    called: list[str] = []
    loop.watch(pipe[0], lambda: called.append("read"), once=True).close()
    os.write(pipe[1], b"x")
    loop.turn(until=100)
    assert (called, dict(loop.watched)) == ([], {})


def test_a_number_that_was_watched_once_may_be_given_to_another_at_once(loop: Loop) -> None:
    called: list[int] = []
    for count in range(3):
        near, far = os.pipe()
        loop.watch(near, lambda count=count: called.append(count), once=True)  # type: ignore[misc]  # mypy cannot infer it
        os.close(far)
        loop.turn()
        os.close(near)
    assert called == [0, 1, 2]
