"""The same job started more than once, through the command line: one runs, the others do as `concurrency` has it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONG = bool(os.environ.get("JOBRUNNER_LONG"))
STARTS, ROUNDS = (100, 100) if LONG else (20, 1)
SECONDS = 40  # after which something hangs


@dataclass(slots=True)
class Place:
    """A folder with a job that runs until it is let go, and the processes that were started in it.

    Its one task adds a line to `ran`, reads a line of a FIFO, adds a line to `ended`. The test keeps the FIFO open.
    """

    folder: Path
    fifo: int
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "nightly.yaml"

    def write(self, file: Path | None = None, **job: Any) -> Path:
        hold = {"run": "echo x >> ran; read line < fifo; echo x >> ended", "stop": {"grace": "1s"}}
        file = file or self.file
        file.write_text(json.dumps({"tasks": {"hold": hold}, **job}))
        return file

    def start(self, file: str | Path | None = None, *, cwd: Path | None = None) -> subprocess.Popen[str]:
        """`jobrunner FILE`, its log and errors to be read from `stderr`."""
        command = [sys.executable, "-m", "jobrunner", str(file or self.file), "-q", "--log-level", "info"]
        env = {**os.environ, "JOBRUNNER_STATE": str(self.folder / "state"), "PYTHONPATH": str(ROOT)}
        env.pop("JOBRUNNER_RUNS", None)
        process = subprocess.Popen(
            command, cwd=cwd or self.folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.started.append(process)
        return process

    def let_go(self, runs: int = 1) -> None:
        """So many tasks end as soon as they read: now, or when they start."""
        os.write(self.fifo, b"\n" * runs)

    def holder(self, job: str = "nightly") -> dict[str, Any]:
        found = json.loads((self.folder / "state" / job / "lock").read_text())
        assert isinstance(found, dict)
        return found

    def count(self, name: str) -> int:
        file = self.folder / name
        return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    os.mkfifo(tmp_path / "fifo")
    place = Place(folder=tmp_path, fifo=os.open(tmp_path / "fifo", os.O_RDWR))
    place.write()
    yield place
    place.let_go(STARTS)
    for process in place.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    os.close(place.fifo)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it told."""
    _, told = process.communicate(timeout=SECONDS)
    return process.returncode, told


def wait_for_ends(processes: Sequence[subprocess.Popen[str]], count: int) -> None:
    """Until `count` of them have ended. Nothing is reaped, what they print fits their pipes."""
    poll, fds = select.poll(), [os.pidfd_open(process.pid) for process in processes]
    for fd in fds:
        poll.register(fd, select.POLLIN)
    over, until = 0, time.monotonic() + SECONDS
    while over < count and time.monotonic() < until:
        for fd, _ in poll.poll(1000 * SECONDS):
            poll.unregister(fd)
            over += 1
    for fd in fds:
        os.close(fd)
    assert over >= count


def wait_for(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """The next line of its log with this event; what comes before is dropped."""
    assert process.stderr is not None
    for line in process.stderr:
        found = json.loads(line) if line.startswith("{") else {}
        if found.get("event") == event:
            assert isinstance(found, dict)
            return found
    raise AssertionError(f"it has ended without {event}")


def running(place: Place, file: Path | None = None) -> subprocess.Popen[str]:
    """A run whose task has started."""
    process = place.start(file)
    wait_for(process, "task.started")
    return process


@pytest.mark.timeout(300)
@pytest.mark.parametrize("_", range(ROUNDS))
def test_of_many_simultaneous_starts_exactly_one_runs_and_all_others_name_it(place: Place, _: int) -> None:
    processes = [place.start() for _ in range(STARTS)]
    wait_for_ends(processes, STARTS - 1)
    (winner,) = [process for process in processes if process.poll() is None]
    holder = place.holder()
    place.let_go()
    assert ended(winner)[0] == 0
    for code, told in (ended(process) for process in processes if process is not winner):
        assert code == 75, told
        assert f"nightly is already running (pid {holder['pid']}, run {holder['run_id']}, since {holder['since']}" in told
        assert "concurrency: {on_conflict: wait}" in told
    assert (place.count("ran"), place.count("ended")) == (1, 1)
    assert [path.name for path in (place.folder / "state" / "nightly").iterdir() if path.is_dir()] == [holder["run_id"]]


def test_through_a_symlink_or_another_path_it_is_the_same_job(place: Place, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    (tmp_path / "other_name.yaml").symlink_to("nightly.yaml")
    first = running(place)
    paths = ["nightly.yaml", "./elsewhere/nightly.yaml", str(tmp_path / "elsewhere" / "nightly.yaml"), "other_name.yaml"]
    for code, told in map(ended, [place.start(path) for path in paths]):
        assert code == 75, told
        assert "already running" in told
        assert "share the name" not in told
    place.let_go()
    assert ended(first)[0] == 0
    assert place.count("ran") == 1


def test_two_job_files_of_one_name_are_told_to_differ(place: Place) -> None:
    first = running(place)
    (place.folder / "b").mkdir()
    code, told = ended(place.start(place.write(place.folder / "b" / "nightly.yaml")))
    assert (code, "share the name nightly" in told, str(place.file) in told) == (75, True, True)
    place.let_go()
    assert ended(first)[0] == 0


def test_jobs_of_one_group_do_not_overlap(place: Place) -> None:
    load = place.write(place.folder / "load.yaml", concurrency={"group": "etl"})
    extract = place.write(place.folder / "extract.yaml", concurrency={"group": "etl"})
    first = running(place, load)
    code, told = ended(place.start(extract))
    assert (code, "extract may not run now: group etl is held by load" in told) == (75, True), told
    place.let_go(2)
    assert ended(first)[0] == 0
    assert ended(place.start(extract))[0] == 0


def test_skip_exits_0_and_runs_nothing(place: Place) -> None:
    place.write(concurrency={"on_conflict": "skip"})
    first = running(place)
    assert ended(place.start())[0] == 0
    assert place.count("ran") == 1
    place.let_go()
    assert ended(first)[0] == 0


def test_wait_runs_when_the_other_has_ended_and_says_whom_it_waits_for(place: Place) -> None:
    place.write(concurrency={"on_conflict": "wait"})
    first = running(place)
    second = place.start()
    busy = wait_for(second, "lock.busy")
    assert (busy["pid"], busy["on_conflict"]) == (place.holder()["pid"], "wait")
    assert place.count("ran") == 1
    place.let_go(2)
    assert [ended(process)[0] for process in (first, second)] == [0, 0]
    assert (place.count("ran"), place.count("ended")) == (2, 2)


def test_a_wait_that_is_over_exits_75(place: Place) -> None:
    place.write(concurrency={"on_conflict": "wait", "wait": "100ms"})
    first = running(place)
    code, told = ended(place.start())
    assert (code, "It has not ended within 0.1 s" in told) == (75, True), told
    place.let_go()
    assert ended(first)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_a_wait_at_once(place: Place, number: signal.Signals) -> None:
    place.write(concurrency={"on_conflict": "wait"})
    first = running(place)
    second = place.start()
    wait_for(second, "lock.busy")
    second.send_signal(number)
    assert ended(second)[0] in (128 + number, -number)
    place.let_go()
    assert ended(first)[0] == 0
    assert place.count("ran") == 1


def test_replace_stops_the_other_in_order_and_runs(place: Place) -> None:
    place.write(concurrency={"on_conflict": "replace"})
    first = running(place)
    second = place.start()
    assert ended(first)[0] == 143
    place.let_go()
    assert ended(second)[0] == 0
    assert (place.count("ran"), place.count("ended")) == (2, 1)


def test_a_lock_left_by_a_killed_run_needs_no_clean_up(place: Place) -> None:
    first = running(place)
    first.kill()
    first.wait(timeout=SECONDS)
    second = running(place)
    place.let_go()
    assert ended(second)[0] == 0
    assert (place.count("ran"), place.count("ended")) == (2, 1)


def test_what_a_task_leaves_behind_does_not_hold_the_lock(place: Place) -> None:
    place.write(tasks={"hold": {"run": "read line < fifo & echo $! >> ran", "stop": {"leftover": "allow"}}})
    for _ in range(2):
        code, told = ended(place.start())
        assert code == 0, told
    for pid in (place.folder / "ran").read_text().split():
        os.kill(int(pid), 0)  # it is there, and ends when the test lets it go
