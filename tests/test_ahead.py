"""Calls that wait in a host for their turn: they begin in order, not behind a slow one, and have not begun until they have."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from jobrunner.executors import hosts
from jobrunner.executors.channel import Channel
from jobrunner.executors.told import NOT_A_FRAME, turn_of, turns_of
from jobrunner.executors.turns import Turns
from jobrunner.host import CHANNEL, Port
from jobrunner.host.port import NO_ROOM
from jobrunner.speech import Streams
from jobrunner.work import Began, Outcome, Report, Result, Returned, Runs, Said, StopRule, WorkerDied
from tests.hostpool import LIMIT, Driven, driven

POOLED = ["process_pool", "thread_pool", "thread"]
RULE = StopRule(signal=signal.SIGTERM, grace=5)
Calls = list[tuple[int, str, list[Any]]]


def warm(run: Driven) -> None:
    """Have calls done until many may wait in the hosts, which are idle then."""
    for number in range(10_000, 20_000, 3):
        hand_over(run, [(number + each, "quick", []) for each in range(run.pool.workers)])
        room = run.pool.prepare()
        run.pool.flush()
        for each in range(run.pool.workers):
            run.result(number + each)
        run.reports.clear()
        if room > 15:
            return
    raise AssertionError("nothing may wait")


def hand_over(run: Driven, calls: Calls) -> None:
    """All at once, as an engine does."""
    run.pool.prepare()
    for target, group in groupby(calls, itemgetter(1)):
        if run.hands_over_together:
            run.start_all(target, {number: args for number, _, args in group})
        else:
            for number, _, args in group:
                run.start(number, target, *args)
    run.pool.flush()


@pytest.fixture(autouse=True, params=["one by one", "together"])
def handed_over(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driven, "hands_over_together", request.param == "together")


def noted(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def ends(run: Driven) -> dict[int, str]:
    """How each call has ended, which it must do once: its outcome, or that it was returned."""
    ended = [(each.id, str(each.outcome)) for each in run.of(Result)] + [(each.id, "returned") for each in run.of(Returned)]
    assert len(dict(ended)) == len(ended), ended
    return dict(ended)


def few_behind(first: tuple[int, str, list[object]], path: Path) -> Calls:
    return [first, *((number, "notes", [str(path), number]) for number in range(2, 12))]


@pytest.fixture(params=[*((mode, "fork") for mode in POOLED), ("process_pool", "spawn"), ("thread_pool", "spawn")])
def run(request: pytest.FixtureRequest) -> Iterator[Driven]:
    with driven(*request.param) as made:
        warm(made)
        yield made


def test_a_slow_call_holds_up_none_of_those_behind_it(run: Driven, tmp_path: Path) -> None:
    path, gate = tmp_path / "notes", tmp_path / "gate"
    calls = few_behind((1, "notes", [str(path), 1, str(gate)]), path)
    hand_over(run, calls)
    done: set[int] = set()
    while len(done) < 10:
        run.until(lambda: len(ends(run)) > 0)
        again = [each for each in calls if ends(run).get(each[0]) == "returned"]
        done |= {number for number, how in ends(run).items() if how == "succeeded"}
        run.reports.clear()
        run.loop.turn(run.loop.clock())  # where there was no room for one, it comes back at once
        hand_over(run, again)
    assert done == set(range(2, 12))
    run.until(lambda: 1 in noted(path))  # its thread may have taken it up, and not come far
    assert sorted(noted(path)) == list(range(1, 12))
    gate.touch()
    assert run.result(1).outcome is Outcome.SUCCEEDED


def test_what_began_and_ended_is_told_together_and_comes_to_the_same(run: Driven, tmp_path: Path) -> None:
    path, until = tmp_path / "notes", time.monotonic() + LIMIT
    run.pool.tell_runs()
    hand_over(run, [(number, "notes", [str(path), number]) for number in range(2, 22)])
    while len(noted(path)) + len(run.of(Returned)) < 20:  # nobody listens meanwhile
        assert time.monotonic() < until

    def told() -> list[Report]:
        pairs = (runs.reports(row) for runs in run.of(Runs) for row in runs.rows)
        return [*run.reports, *(each for pair in pairs for each in pair)]

    run.until(lambda: sum(isinstance(each, Result) for each in told()) + len(run.of(Returned)) == 20)
    begun, ended = ([each.id for each in told() if isinstance(each, kind)] for kind in (Began, Result))
    # in other modes each may have been heard of by itself, or have come back
    assert run.of(Runs) or run.pool.settings.mode != "thread_pool"
    assert sorted(begun) == sorted(ended) == sorted(noted(path))
    assert all(each.value == b"%d" % each.id for each in told() if isinstance(each, Result))


def test_what_waits_behind_a_slow_call_stays_there_until_somebody_is_free(tmp_path: Path) -> None:
    path, gates = tmp_path / "notes", [tmp_path / "first", tmp_path / "second"]
    with driven("process_pool") as run:
        warm(run)
        first: Calls = [(number, "notes", [str(path), number, str(gate)]) for number, gate in enumerate(gates, 1)]
        hand_over(run, [*first, *((number, "notes", [str(path), number]) for number in range(3, 11))])
        run.until(lambda: {each.id for each in run.of(Began)} == {1, 2})
        had_no_room, looks = ends(run), run.loop.clock() + 0.03
        run.until(lambda: run.loop.clock() > looks)
        assert ends(run) == had_no_room
        gates[1].touch()
        run.until(lambda: len(ends(run)) == 9)
        gates[0].touch()
        assert run.result(1).outcome is Outcome.SUCCEEDED


def test_of_those_that_wait_in_a_host_that_dies_none_has_begun(run: Driven, tmp_path: Path) -> None:
    path, gate = tmp_path / "notes", tmp_path / "gate"
    hand_over(run, few_behind((1, "notes_and_dies", [str(path), 1, str(gate)]), path))
    run.until(lambda: 1 in noted(path))
    gate.touch()
    run.until(lambda: len(ends(run)) == 11)
    returned = {number for number, how in ends(run).items() if how == "returned"}
    assert ends(run)[1] == "crashed"
    assert set(noted(path)) <= {each.id for each in run.of(Began)} == set(range(1, 12)) - returned


def test_a_crash_costs_no_call_of_another_process(tmp_path: Path) -> None:
    path, gate = tmp_path / "notes", tmp_path / "gate"
    with driven("process_pool") as run:
        warm(run)
        hand_over(run, few_behind((1, "notes_and_dies", [str(path), 1, str(gate)]), path))
        run.until(lambda: 1 in noted(path))
        gate.touch()
        run.until(lambda: len(ends(run)) == 11)
        assert [number for number, how in ends(run).items() if how == "crashed"] == [1]


def test_what_waits_when_all_is_stopped_never_begins(run: Driven, tmp_path: Path) -> None:
    path, gate = tmp_path / "notes", tmp_path / "gate"
    calls: Calls = [(number, "notes", [str(path), number, str(gate)]) for number in range(1, 12)]
    hand_over(run, calls)
    for number, *_ in calls:
        run.pool.stop(number, RULE)
    run.until(lambda: len(ends(run)) == 11)
    returned = {number for number, how in ends(run).items() if how == "returned"}
    assert len(returned) >= 9
    assert returned.isdisjoint(noted(path))
    gate.touch()


def test_of_what_has_ended_unheard_by_the_time_it_is_stopped_nothing_was_stopped(run: Driven, tmp_path: Path) -> None:
    path, last = tmp_path / "notes", 12
    hand_over(run, [(number, "notes", [str(path), number]) for number in range(1, last + 1)])
    end = time.monotonic() + LIMIT
    while len(noted(path)) < last - len(run.of(Returned)):  # nobody hears of any end
        assert time.monotonic() < end
    for number in range(1, last + 1):
        run.pool.stop(number, RULE)
    run.until(lambda: len(ends(run)) == last)
    stopped = {each.id for each in run.of(Result) if not each.was_over}
    assert len(stopped) <= run.pool.workers, "only what each worker has taken up last may have been at work still"
    assert {how for number, how in ends(run).items() if number not in stopped} <= {"succeeded", "returned"}


def test_what_waits_when_all_is_taken_back_never_begins(run: Driven, tmp_path: Path) -> None:
    path, gate = tmp_path / "notes", tmp_path / "gate"
    hand_over(run, [(number, "notes", [str(path), number, str(gate)]) for number in range(1, 12)])
    run.until(lambda: len(noted(path)) == 2)
    run.pool.take_back()
    run.until(lambda: len(ends(run)) >= 9)
    gate.touch()
    run.until(lambda: len(ends(run)) == 11)
    returned = {number for number, how in ends(run).items() if how == "returned"}
    assert len(returned) == 9
    assert returned.isdisjoint(noted(path))


@pytest.mark.parametrize("mode", POOLED)
def test_they_begin_in_the_order_in_which_they_were_handed_over(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    with driven(mode, workers=1) as run:
        warm(run)
        hand_over(run, few_behind((1, "notes", [str(path), 1]), path))
        run.until(lambda: len(ends(run)) == 11)
        taken_back = {number for number, how in ends(run).items() if how == "returned"}
        assert noted(path) == [number for number in range(1, 12) if number not in taken_back]
        begun = [each.id for each in run.of(Began)]
        if run.pool.has_threads:  # a look at them tells what runs, before what was on its way
            begun.sort()
        assert begun == noted(path)


def test_what_they_print_is_theirs(tmp_path: Path) -> None:
    with driven("process_pool") as run:
        warm(run)
        for start in range(1, 400, 15):
            run.reports.clear()
            hand_over(run, [(number, "writes", [number]) for number in range(start, start + 15)])
            run.until(lambda: len(ends(run)) == 15)
            begun = [number for number, how in ends(run).items() if how == "succeeded"]
            wrong = [each for each in run.of(Said) if set(re.findall(rb"<(\d+)>", each.data)) != {b"%d" % each.id}]
            assert not wrong
            assert sorted({each.id for each in run.of(Said)}) == sorted(number for number in begun if number % 3 == 0)


def test_output_that_one_call_has_made_not_wait_waits_for_the_next() -> None:
    with driven("process_pool", workers=1) as run:
        run.start(1, "does_not_wait")
        run.result(1)
        run.start(2, "prints", 1 << 20)
        assert run.result(2).outcome is Outcome.SUCCEEDED
        run.until(lambda: sum(len(each.data) for each in run.of(Said) if each.id == 2) == (1 << 20) + 1)


def test_ends_that_are_told_in_two_ways_come_in_their_order(tmp_path: Path) -> None:
    with driven("process_pool", workers=1) as run:
        warm(run)
        for start in range(1, 1500, 15):
            run.reports.clear()
            hand_over(run, [(number, "no_such" if number % 3 else "quick", []) for number in range(start, start + 15)])
            run.until(lambda: len(ends(run)) == 15)
            told = [(type(each), each.id) for each in run.reports if isinstance(each, Began | Result)]
            assert told == [(kind, number) for _, number in told[::2] for kind in (Began, Result)]
            assert {number for number, how in ends(run).items() if how == "failed"} == {
                number for number, how in ends(run).items() if how != "returned" and number % 3
            }
            assert not run.of(WorkerDied)


def test_a_thread_that_holds_the_interpreter_is_known_to_have_begun(tmp_path: Path) -> None:
    with driven("thread_pool") as run:
        warm(run)
        hand_over(run, [(1, "holds_the_interpreter", [str(tmp_path / "mark")])])
        assert run.began(1).worker.startswith("p-")


@pytest.mark.parametrize("mode", ["thread", "thread_pool"])
def test_threads_whose_process_has_no_descriptor_left_go_on(mode: str) -> None:
    """What would be handed over with one is done without."""
    with driven(mode, workers=2) as run:
        run.start(1, "takes_all_descriptors")
        run.result(1)
        for start in range(2, 40, 4):
            hand_over(run, [(number, "quick", [number]) for number in range(start, start + 4)])
            assert [run.result(number).json() for number in range(start, start + 4)] == list(range(start, start + 4))
        assert len({each.pid for each in run.of(Began)}) == 1


@pytest.mark.parametrize("mode", ["thread", "thread_pool"])
def test_threads_whose_process_sleeps_before_any_call_began_are_replaced(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_LONGEST_START", 0.5)
    with driven(mode, workers=2) as run:
        run.start(1, "quick")
        run.result(1)
        pid = run.began(1).pid
        os.kill(pid, signal.SIGSTOP)
        hand_over(run, [(number, "quick", [number]) for number in range(2, 6)])
        run.until(lambda: len(run.of(Returned)) == 4)
        assert [each.id for each in run.of(Returned)] == [5, 4, 3, 2], "the first of them is ready again as the first"
        run.start(6, "quick")
        assert run.result(6).outcome is Outcome.SUCCEEDED


def test_a_recycled_worker_gets_no_more_than_its_share(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    with driven("process_pool", max_tasks_per_worker=3, workers=1) as run:
        for start in range(1, 60, 3):
            hand_over(run, [(number, "notes", [str(path), number]) for number in range(start, start + 1)])
            run.result(start)
        begun: dict[int, int] = {}
        for each in run.of(Began):
            begun[each.pid] = begun.get(each.pid, 0) + 1
    assert max(begun.values()) == 3


def test_a_host_that_has_no_room_for_a_queue_ends_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "_exit", sys.exit)
    engine, far = socket.socketpair()
    with engine, far:
        engine.sendall(CHANNEL + b"mark\n")  # the system has dropped the descriptor that went with it
        with pytest.raises(SystemExit) as ended:
            list(Port(far, Mute()).calls())
    assert (ended.value.code, capfd.readouterr()) == (NO_ROOM, ("", ""))


def test_a_number_that_a_host_has_taken_stays_with_it() -> None:
    with contextlib.closing(Channel()) as channel:
        channel.put([7, 8, 9])
        assert int.from_bytes(os.read(channel._far, 8), sys.byteorder) == 7
        assert channel.take_back() == [8, 9]
        assert channel.take_back() == []


def test_a_host_runs_what_it_finds_a_number_for_and_nothing_else() -> None:
    engine, far = socket.socketpair()
    with engine, far, contextlib.closing(Channel()) as channel:
        port = Port(far, Mute())
        channel.give(engine, CHANNEL + b"mark\n")
        channel.put([1, 3, 5])
        engine.sendall(b"".join(b'{"id":%d,"target":"t:t","args":[]}\n' % number for number in (1, 2, 3, 4, 1, 5, 6)))
        engine.shutdown(socket.SHUT_WR)
        assert [call.id for call in port.calls()] == [1, 3, 5]
        assert port._queue is not None
        os.close(port._queue)


class Mute(Streams):
    """Streams to which nothing is written."""

    def __init__(self) -> None:
        """Nothing is opened."""

    def mark(self, data: bytes) -> None:
        """Nobody reads it."""


def slow_down(run: Driven) -> None:
    """Have calls of a millisecond done: those that are known so far may have been too short to rest meanwhile."""
    hand_over(run, [(number, "time:sleep", [0.001]) for number in (30_001, 30_002)])
    run.until(lambda: is_over(run, 30_001) and is_over(run, 30_002))


def test_nobody_rests_unless_every_worker_has_calls_that_wait(run: Driven) -> None:
    assert run.pool.rest() == 0
    warm(run)
    slow_down(run)
    assert run.pool.rest() == 0
    hand_over(run, [(number, "time:sleep", [0.001]) for number in range(1, 3)])
    assert run.pool.rest() == 0
    hand_over(run, [(number, "time:sleep", [0.001]) for number in range(3, 11)])
    mean = run.pool._mean
    assert mean is not None
    assert 0 < run.pool.rest() <= min(0.01, 5 * mean / 2), "half of what five calls take"
    for number in range(1, 11):
        run.until(partial(is_over, run, number))
    assert run.pool.rest() == 0


def test_nobody_rests_while_a_worker_might_fill_its_pipe(run: Driven) -> None:
    warm(run)
    slow_down(run)
    run.pool.rest()
    hand_over(run, [(1, "builtins:print", ["x" * 20_000]), (2, "time:sleep", [0.001])])
    run.until(lambda: is_over(run, 1) and is_over(run, 2) and sum(len(each.data) for each in run.of(Said)) > 20_000)
    hand_over(run, [(number, "time:sleep", [0.001]) for number in range(3, 13)])
    assert run.pool.rest() == 0, "much has come"
    assert run.pool.rest() > 0, "nothing has come since"


def is_over(run: Driven, number: int) -> bool:
    return number in ends(run)


def one_of_them_is_known(run: Driven, first: int) -> bool:
    return any(each.id >= first for each in run.of(Began)) or any(each.id >= first for each in run.of(Returned))


def test_calls_taken_back_from_a_host_at_work_run_once_there_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    with driven("process_pool", workers=1) as run:
        warm(run)
        for start in range(1, 3000, 16):
            hand_over(run, [(number, "notes", [str(path), number]) for number in range(start, start + 16)])
            run.until(partial(one_of_them_is_known, run, start))
            for each in tuple(run.pool._hosts):
                each.take_back()
            run.until(lambda: not any(each.calls for each in run.pool._hosts))
        assert not run.of(WorkerDied)
        assert sorted(noted(path)) == sorted(number for number, ending in ends(run).items() if ending == "succeeded")


MARK = b"\0" + b"0123456789abcdef"


@pytest.mark.parametrize("at", range(75))
def test_output_is_split_at_marks_wherever_it_is_torn(at: int) -> None:
    turns = Turns(MARK)
    text = b"one" + MARK + b"1\n" + MARK + b"2\n" + b"thr\0ee" + MARK + b"3\n" + b"nobody"
    said: dict[bytes, bytes] = {}
    last = b""
    for piece in (text[:at], text[at:]):
        for mark, data in turns.split(piece):
            last = mark or last
            said[last] = said.get(last, b"") + data
    assert said == {b"": b"one", b"1": b"", b"2": b"thr\0ee", b"3": b"nobody"}
    assert turns.rest() == b""


@pytest.mark.parametrize("mark", [b"x", b"[1", b"[1,2,3,4,5]", b'["a",1,2,3,4]', b"{}", b"[]", b"[1,2,0.1,0.1,null]"])
def test_what_stands_at_no_mark_of_a_host_is_no_turn(mark: bytes) -> None:
    with pytest.raises(NOT_A_FRAME):
        turn_of(mark)


def test_a_turn_tells_what_begins_and_how_what_was_before_has_ended() -> None:
    assert turn_of(b"[7]") == (7, 0, None)
    assert turn_of(b"[7,6]") == (7, 6, None)
    result = Result(id=6, outcome=Outcome.SUCCEEDED, duration=0.25, cpu=0.125, max_rss=4096, value=b'{"a": 1}')
    assert turn_of(b'[0,6,0.25,0.125,4096] {"a": 1}') == (0, 6, result)


ALONE = [
    (MARK + b"[1]\n", [b"[1]"]),
    (MARK + b"[2,1,0.1,0.1,9] null\n" + MARK + b"[0,2]\n", [b"[2,1,0.1,0.1,9] null", b"[0,2]"]),
    (b"x" + MARK + b"[1]\n", []),
    (MARK + b"[1]\nx" + MARK + b"[2]\n", []),
    (MARK + b"[1]\nx\n", []),
    (MARK + b"[1]\n" + MARK + b"[2]", []),
    (MARK + b"[1]\n,[5,1,0.1,0.1,9]\n" + MARK + b"[2]\n", []),
    (b"", []),
]


@pytest.mark.parametrize(("data", "marks"), ALONE)
def test_marks_among_which_nothing_was_printed_are_found_at_once(data: bytes, marks: list[bytes]) -> None:
    assert Turns(MARK).alone(data) == marks


TOGETHER = [
    b"[7]",
    b"[0,6,0.25,0.125,4096] 1",
    b"[7,6]",
    b"[7,6,1,0.1,9] 1",
    b"[true]",
    b"[]",
    b"[7,6,1e999,0.1,9] 1",
    b"[7],[6]",
]


@pytest.mark.parametrize("marks", [TOGETHER[:2], *([b"[7]", each] for each in TOGETHER), [b"[1", b"2]", b"3,4"]])
def test_of_marks_that_are_read_together_each_says_what_it_says_alone_or_is_left_to_be_read_so(marks: list[bytes]) -> None:
    for mark, turn in zip(marks, turns_of(marks), strict=True):
        if turn is not None:
            begins, ended, duration, cpu, max_rss, value = turn
            result = Result(id=ended, outcome=Outcome.SUCCEEDED, duration=duration, cpu=cpu, max_rss=max_rss, value=value)
            assert turn_of(mark) == (begins, ended, result if ended else None)
