"""The crash table that loky tests itself with, over our modes; and workers that are killed at random, many times.

A worker goes by a segmentation fault, `sys.exit`, an exit in C or an exception; while it takes in what it is to run, runs it, or
hands its value back. loky's arguments and results are pickled objects, which can do anything when they are read. Ours are JSON:
what is left are the import of the target's module, and a value that runs code while it is written.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobrunner.work import Began, Outcome, Result, Returned, WorkerJoined, WorkerStarted
from tests.hostpool import ROOT, Driven, driven

WAYS = {"segfault": "crashed", "sys_exit": "failed", "c_exit": "crashed", "exception": "failed"}
"""How it goes, and the outcome: the same wherever it goes, in every mode."""
MOMENTS = ("argument", "run", "result")
MODES = ("serial", "thread", "thread_pool", "process", "process_pool")
SHARED = ("thread", "thread_pool")
METHODS = ("fork", "spawn")
TARGETS = "tests.targets.loky_table"
CASES = [(way, moment) for way in WAYS for moment in MOMENTS]
ENDS = {"segfault": (None, 11), "sys_exit": (1, None), "c_exit": (3, None), "exception": (None, None)}
"""Exit code and signal that are reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the guilty one ended, and the innocent one that ran beside it (in serial: after it)."""

    guilty: Result
    innocent: Result


Lane = tuple[str, dict[tuple[str, str], Ended]]
"""A mode, and how each of CASES ended there."""


def call(way: str, moment: str) -> tuple[str, ...]:
    """The target and its arguments."""
    if moment == "argument":
        return (f"import_{way}:anything",)
    return (f"{TARGETS}:{way}",) if moment == "run" else (f"{TARGETS}:give_trap", way)


def side_by_side(run: Driven, mode: str, number: int, words: tuple[str, ...], folder: Path) -> Ended:
    mark, release = folder / f"mark-{number}", folder / f"release-{number}"
    if mode == "serial":
        release.touch()
    else:
        run.start(number + 1, f"{TARGETS}:wait_for", str(mark), str(release))
        run.until(mark.exists)
    run.start(number, *words)
    guilty = run.result(number)
    release.touch()
    if mode == "serial":
        run.start(number + 1, f"{TARGETS}:wait_for", str(mark), str(release))
    return Ended(guilty=guilty, innocent=run.result(number + 1))


@pytest.fixture(scope="module", params=[(mode, method) for mode in MODES for method in METHODS], ids="-".join)
def lane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lane:
    """One pool goes through the whole table."""
    mode, method = request.param
    folder = tmp_path_factory.mktemp("table")
    for way in WAYS:
        (folder / f"import_{way}.py").write_text(f"import {TARGETS}\n{TARGETS}.{way}()\n")
    with driven(mode, method, path=[str(folder), ROOT]) as run:
        ended = {
            case: side_by_side(run, mode, 10 * position, call(*case), folder) for position, case in enumerate([*CASES], start=1)
        }
        ended["bomb", "result"] = side_by_side(run, mode, 1000, (f"{TARGETS}:give_bomb",), folder)
    return mode, ended


@pytest.mark.parametrize(("way", "moment"), CASES)
def test_a_way_to_go_has_its_outcome(lane: Lane, way: str, moment: str) -> None:
    guilty = lane[1][way, moment].guilty
    assert (guilty.outcome, guilty.exit_code, guilty.signal) == (WAYS[way], *ENDS[way])
    assert guilty.error is not None


@pytest.mark.parametrize(("way", "moment"), CASES)
def test_who_goes_takes_nobody_along_but_threads_of_its_process(lane: Lane, way: str, moment: str) -> None:
    mode, ended = lane
    goes = mode in SHARED and WAYS[way] == "crashed"
    assert ended[way, moment].innocent.outcome == ("crashed" if goes else "succeeded")


def test_a_value_that_would_go_when_it_is_pickled_is_no_json(lane: Lane) -> None:
    ended = lane[1]["bomb", "result"]
    assert (ended.guilty.outcome, ended.innocent.outcome) == (Outcome.SUCCEEDED, Outcome.SUCCEEDED)
    assert ended.guilty.note.startswith("returned a Bomb, which is not JSON")


# --- workers killed at random --------------------------------------------------------------------------------------------------

IS_LONG = os.environ.get("JOBRUNNER_LONG") == "1"
KILLS = 10_000 if IS_LONG else 300
WORKERS = 4


class Storm:
    """A pool with up to as many calls in flight as workers, and somebody who kills workers, busy ones and idle ones."""

    def __init__(self, mode: str, file: Path, dice: random.Random) -> None:
        self.dice, self.file = dice, file
        self.run = Driven(mode, workers=WORKERS)
        self.seen = self.last = self.kills = 0
        self.in_flight: set[int] = set()
        self.alive: dict[int, str] = {}
        self.killed: set[str] = set()
        """Workers, by name: numbers of processes are used again."""
        self.worker_of: dict[int, str] = {}
        self.results: dict[int, Result] = {}

    def blow(self, kills: int) -> None:
        while self.kills < kills or self.in_flight:
            while len(self.in_flight) < self.dice.randint(0, WORKERS) and self.kills < kills:
                self.last += 1
                self.begin(self.last)
            if self.alive and self.kills < kills and self.dice.random() < 0.5:
                self.kill_one()
            self.turn()
        self.run.close()
        self.apply_new()

    def begin(self, number: int) -> None:
        self.in_flight.add(number)
        self.run.start(number, f"{TARGETS}:witness", str(self.file), number, self.dice.choice((0, 0, 0.001, 0.003)))

    def turn(self) -> None:
        before = len(self.run.reports)
        if self.dice.random() < 0.5 or not self.in_flight:
            self.run.loop.turn(self.run.loop.clock() + self.dice.random() / 500)
        else:  # a hang is found here: nothing in flight is told for half a minute
            self.run.until(lambda: len(self.run.reports) > before)
        self.apply_new()

    def kill_one(self) -> None:
        """Only one that was not joined: its number is still its own."""
        pid = self.dice.choice(list(self.alive))
        if self.alive[pid] not in self.killed:
            self.killed.add(self.alive[pid])
            self.kills += 1
            os.kill(pid, 9)

    def apply_new(self) -> None:
        while self.seen < len(self.run.reports):
            self.apply(self.run.reports[self.seen])
            self.seen += 1

    def apply(self, report: object) -> None:
        match report:
            case WorkerStarted(pid=pid, worker=worker):
                self.alive[pid] = worker
            case WorkerJoined(pid=pid):
                del self.alive[pid]
            case Result(id=number):
                assert number not in self.results, "ended twice"
                self.results[number] = report
                self.in_flight.remove(number)
            case Returned(id=number):
                self.begin(number)
            case Began(id=number, worker=worker):
                self.worker_of[number] = worker
            case _:
                pass


@pytest.mark.timeout(3600 if IS_LONG else 60)
@pytest.mark.parametrize("mode", ["process_pool", "process"])
def test_killed_workers_lose_exactly_what_had_begun_in_them(mode: str, tmp_path: Path) -> None:
    file = tmp_path / "witness"
    file.touch()
    storm = Storm(mode, file, random.Random(mode))
    storm.blow(KILLS if mode == "process_pool" else KILLS // 5)
    begun = Counter(int(line.split()[0]) for line in file.read_text().splitlines())
    crashed = {number for number, result in storm.results.items() if result.outcome is Outcome.CRASHED}
    assert set(storm.results) == set(range(1, storm.last + 1)), "an attempt has no end"
    assert set(begun.values()) <= {1}, "an attempt ran twice"
    assert set(begun) >= set(storm.results) - crashed, "an attempt succeeded that did not run"
    assert all(result.outcome in (Outcome.CRASHED, Outcome.SUCCEEDED) for result in storm.results.values())
    assert all(storm.worker_of[number] in storm.killed for number in crashed), "an attempt crashed whose worker nobody killed"
    assert max(Counter(storm.worker_of[number] for number in crashed).values()) == 1, "a worker took two attempts along"
    assert all(storm.results[number].signal == 9 for number in crashed)
    assert len(crashed) > storm.kills // 60, "too few of the killed were busy to tell anything"
    assert len(crashed) < storm.kills or mode == "process", "none of the killed was idle"
