"""What a task writes where only its host should: that host ends, each of its calls has one end, and nobody else is touched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobrunner.executors import hosts
from jobrunner.work import Result
from tests.hostpool import Driven, driven
from tests.test_ahead import Calls, ends, hand_over, noted, warm

TARGETS = "tests.targets.forgers"
LAST = 8

FRAMES = {
    "the end of one that waits": '["result",2,"succeeded",0.1,0.1,1,null,"",null,false]',
    "the end of one that waits, with a value": '["result",2,"succeeded",0.1,0.1,1,null,"",null,true]\n1',
    "the begin of one that waits, and its end": '["began",2,"p-1",null]\n["result",2,"failed",0.1,0.1,1,null,"",null,false]',
    "the run of one that waits": '["ran",2,"p-1",1,0.1,0.1]\n1',
    "the run of one that runs": '["ran",1,"p-1",1,0.1,0.1]\n1',
    "a run without a value": '["ran",2,"p-1",1,0.1,0.1]',
    "a run without a thread": '["ran",2,"p-1",null,0.1,0.1]\n1',
    "a run with a time that is no number": '["ran",2,"p-1",1,NaN,0.1]\n1',
    "a run of no call": '["ran",[],"p-1",1,0.1,0.1]\n1',
    "a run of nothing": '["ran"]\n1',
    "a worker that has joined, with words for numbers": '["joined","p-9",null,"many","long"]',
    "a worker that is no text": '["joined",[],null,1,1.0]',
    "a thread that is none": '["joined","p-9","t",1,1.0]',
    "a time that is no number": '["result",1,"succeeded",NaN,0.1,1,null,"",null,false]',
    "a time without end": '["result",1,"succeeded",0.1,1e999,1,null,"",null,false]',
    "what nobody has asked back": '["back",[2,2]]',
    "where one stands that waits": '["stack",2,"here"]',
    "where it stands, as no text": '["stack",1,[1,2]]',
    "output of no call": '["said",[],"x"]',
}


def end_of_each(run: Driven, calls: Calls) -> dict[int, str]:
    """How each call ended, which it must do once. What comes back is handed over again, one after the other."""
    hand_over(run, calls)
    run.until(lambda: len(ends(run)) == len(calls))
    found = ends(run)
    for number, target, args in calls:
        while found[number] == "returned":
            run.reports.clear()
            run.start(number, target, *args)
            run.until(lambda: ends(run))
            found |= ends(run)
    return found


def with_queue(run: Driven) -> None:
    """Warm it, and have calls wait in its host once, which has its queue then."""
    warm(run)
    numbers = range(20_001, 20_009)
    found = end_of_each(run, [(number, "quick", []) for number in numbers])
    assert len(found) == len(numbers)
    run.reports.clear()
    warm(run)


def behind(first: tuple[int, str, list[object]]) -> Calls:
    return [first, *((number, "quick", []) for number in range(2, LAST + 1))]


@pytest.mark.parametrize("mode", ["process_pool", "thread_pool", "thread", "process"])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_frame_of_a_task_ends_its_host_at_most_and_loses_no_call(mode: str, frame: str) -> None:
    with driven(mode, workers=1) as run:
        if mode != "process":
            with_queue(run)
        found = end_of_each(run, behind((1, f"{TARGETS}:frame", [frame])))
        assert all(each.duration < 1e9 for each in run.of(Result))
        assert sorted(found) == list(range(1, LAST + 1))


MARKS = [
    "[0,1,NaN,0.1,1] 1",
    "[[]]",
    "[{}]",
    '["x"]',
    "[2]",
    "[0,2]",
    "[2,1,0.1,0.1,1] 1",
    "[0,2,0.1,0.1,1] 1",
    "[0,1,0.1,0.1,1] x",
    "[0.5]",
    "[true,1]",
    "[0,[]]",
    "[null,1]",
    "x",
]


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_of_a_task_ends_its_host_at_most_and_loses_no_call(mark: str) -> None:
    with driven("process_pool", workers=1) as run:
        with_queue(run)
        found = end_of_each(run, behind((1, f"{TARGETS}:mark", [mark])))
        assert found[1] != "failed"
        assert sorted(found) == list(range(1, LAST + 1))


def number(value: int) -> str:
    return value.to_bytes(8, sys.byteorder).hex()


DEEDS: dict[str, tuple[str, object]] = {
    "takes one number": ("takes_numbers", 1),
    "takes all": ("takes_numbers", 100),
    "repeats one": ("puts_numbers", number(3)),
    "repeats its own": ("puts_numbers", number(1)),
    "writes one of nobody": ("puts_numbers", number(99)),
    "writes a part of one": ("puts_numbers", "0102"),
    "closes all that is open": ("closes_all", 0),
    "closes what is not a stream": ("closes_all", 3),
}


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
def test_numbers_that_a_task_takes_or_writes_make_no_call_run_twice(
    deed: tuple[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_LONGEST_START", 0.5)
    name, argument = deed
    with driven("process_pool", workers=1) as run:
        with_queue(run)
        path = tmp_path / "notes"
        others: Calls = [(each, "notes", [str(path), each]) for each in range(2, LAST + 1)]
        found = end_of_each(run, [(1, f"{TARGETS}:{name}", [argument]), *others])
        assert sorted(noted(path)) == sorted(each for each in range(2, LAST + 1) if found[each] == "succeeded")
        assert found[1] in ("succeeded", "crashed")
        assert {found[each] for each in range(2, LAST + 1)} == {"succeeded"}
