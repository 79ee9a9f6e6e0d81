"""Runners that are killed at random and started again until their job is complete: what each repeats, loses and leaves running.

    start ─▶ the witness has grown by so many starts ─▶ SIGKILL ─▶ start again … ─▶ (after KILLS_OF_A_JOB) left alone to the end

Run with `python -m benchmarks.kills`. When a kill comes is drawn from the seed; what it meets there is the machine's.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import leftovers, tables, witness
from benchmarks.process import ROOT, environment
from benchmarks.runners import RUNNERS, Job, Runner

KILLS_OF_A_JOB = 10
LOOK_AGAIN = 1.0
"""Seconds after which what outlived a kill counts as left running."""
LONGEST_JOB = 300.0
HEAD = (
    "",
    "kills",
    "finished tasks run again, a kill",
    "of these finished before their runner was killed",
    "of these recorded",
    "two copies at once",
    "processes that outlived the kill",
    "alive 1 s later",
    "tasks lost",
    "ended well",
)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came of the kills of one runner: sums over all its jobs."""

    kills: int = 0
    jobs: int = 0
    ended_well: int = 0
    again: int = 0
    again_done: int = 0
    again_recorded: int = 0
    twice: int = 0
    outlived: int = 0
    left: int = 0
    lost: int = 0

    def row(self, name: str) -> tuple[str, ...]:
        """A row of the table under HEAD."""
        kills = max(1, self.kills)
        a_kill = (f"{self.again / kills:.2f}", f"{self.again_done / kills:.2f}", f"{self.again_recorded / kills:.2f}")
        counts = (self.twice, self.outlived, self.left, self.lost)
        return (name, str(self.kills), *a_kill, *map(str, counts), f"{self.ended_well} of {self.jobs}")


@dataclass(slots=True, kw_only=True)
class Watch:
    """What outlived a kill, to be looked at again a second later, whatever happens meanwhile."""

    waiting: list[tuple[float, set[leftovers.Process]]] = field(default_factory=list)
    seen: set[leftovers.Process] = field(default_factory=set)
    left: int = 0

    def add(self, processes: set[leftovers.Process]) -> None:
        """Each counts once, for the first kill that it outlived."""
        if new := processes - self.seen:
            self.seen |= new
            self.waiting.append((time.monotonic() + LOOK_AGAIN, new))

    def look(self) -> None:
        while self.waiting and time.monotonic() >= self.waiting[0][0]:
            self.left += len(leftovers.still_alive(self.waiting.pop(0)[1]))

    def wait(self) -> None:
        """Until nothing has to be looked at any more."""
        while self.waiting:
            time.sleep(0.01)
            self.look()


def main() -> int:
    """0 unless a runner that takes part could not be measured: what the figures are is for who reads them."""
    chosen = _arguments()
    draw = random.Random(chosen.seed)
    print(f"seed {chosen.seed}: {chosen.tasks} tasks of {chosen.milliseconds} ms, 4 at a time; {tables.machine()}\n", flush=True)
    rows = []
    for name in chosen.tools:
        if why := RUNNERS[name].missing():
            print(f"{name}: {why}", file=sys.stderr)
            continue
        rows.append(_series(RUNNERS[name], chosen, random.Random(draw.random())).row(_title(name)))
    print(_markdown(rows) if chosen.markdown else _plain(rows))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="of each runner (50)")
    parser.add_argument("--tools", type=lambda text: text.split(","), default=list(RUNNERS), help=",".join(RUNNERS))
    parser.add_argument("--tasks", type=int, default=200, help="tasks of a job (200)")
    parser.add_argument("--milliseconds", type=int, default=20, help="that a task takes (20)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--markdown", action="store_true", help="a table for the docs")
    chosen = parser.parse_args()
    if unknown := set(chosen.tools) - set(RUNNERS):
        parser.error(f"no tool {', '.join(sorted(unknown))}; there are {', '.join(RUNNERS)}")
    return chosen


def _series(runner: Runner, chosen: argparse.Namespace, draw: random.Random) -> Tally:
    """Jobs, one after the other, until the runner has been killed often enough."""
    tally = Tally()
    while tally.kills < chosen.kills:
        with tempfile.TemporaryDirectory(prefix="jobrunner-kills-") as name:
            job = Job(folder=Path(name).resolve(), tasks=chosen.tasks, seconds=chosen.milliseconds / 1000)
            _one_job(runner, job, draw, tally, min(KILLS_OF_A_JOB, chosen.kills - tally.kills))
    return tally


def _one_job(runner: Runner, job: Job, draw: random.Random, tally: Tally, wanted: int) -> None:
    """Starts and kills the runner up to `wanted` times, then lets it end; adds what the witness tells to the tally."""
    shutil.copy(ROOT / "benchmarks" / "peers" / "task.sh", job.folder)
    for name in ("pid", "out"):
        (job.folder / name).mkdir()
    argv, watch, kills, code = runner.command(job), Watch(), list[witness.Kill](), None
    deadline = time.monotonic() + LONGEST_JOB
    with _all_ended(job):
        while code is None and len(kills) < wanted:
            code = _until_killed(runner, job, argv, draw, watch, kills)
        while code is None or (code == runner.busy and time.monotonic() < deadline):
            code = _to_the_end(job, argv, watch, deadline)
        watch.wait()
    _judge(job, kills, tally)
    tally.jobs, tally.ended_well = tally.jobs + 1, tally.ended_well + (code == 0)
    tally.kills, tally.outlived, tally.left = tally.kills + len(kills), tally.outlived + len(watch.seen), tally.left + watch.left


def _judge(job: Job, kills: Sequence[witness.Kill], tally: Tally) -> None:
    lines = witness.read(job.folder / "witness")
    again = witness.repeats(lines, kills)
    tally.again += len(again)
    tally.again_done += sum(each.was_done for each in again)
    tally.again_recorded += sum(each.was_recorded for each in again)
    tally.twice += sum(line.word == "twice" for line in lines)
    tally.lost += job.tasks - len(witness.told(lines, "done"))


def _until_killed(
    runner: Runner,
    job: Job,
    argv: Sequence[str],
    draw: random.Random,
    watch: Watch,
    kills: list[witness.Kill],
) -> int | None:
    """One start and its kill. The exit code where the runner ended first; None where it was killed or has to be tried again."""
    is_due = _moment(job, draw)
    which = draw.random()
    child = _start(job, argv)
    while child.poll() is None and not is_due():
        watch.look()
        time.sleep(0.001)
    if child.returncode is not None:
        return None if child.returncode == runner.busy else child.returncode
    victims = runner.victims(child.pid)
    offset = witness.size(job.folder / "witness")
    for pid in victims[int(which * len(victims))]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    child.wait(timeout=LONGEST_JOB)
    gone = witness.size(job.folder / "witness")
    watch.add(leftovers.alive(str(job.folder)))
    kills.append(witness.Kill(offset=offset, gone=gone, recorded=runner.recorded(job)))
    return 0 if runner.is_over(job) else None


def _moment(job: Job, draw: random.Random) -> Callable[[], bool]:
    """When the next kill is due: after some more starts and a part of a task; one in ten while the runner itself starts."""
    if draw.random() < 0.1:
        at = time.monotonic() + draw.uniform(0, 0.3)
        return lambda: time.monotonic() >= at
    path, before = job.folder / "witness", witness.size(job.folder / "witness")
    wanted, rest = draw.randint(1, max(1, job.tasks // KILLS_OF_A_JOB)) * len("start 100 10000\ndone 100 10000\n"), draw.random()
    reached: list[float] = []

    def is_due() -> bool:
        if not reached and witness.size(path) - before >= wanted:
            reached.append(time.monotonic() + rest * job.seconds)
        return bool(reached) and time.monotonic() >= reached[0]

    return is_due


def _to_the_end(job: Job, argv: Sequence[str], watch: Watch, deadline: float) -> int:
    child = _start(job, argv)
    while child.poll() is None:
        watch.look()
        if time.monotonic() > deadline:
            child.kill()
        time.sleep(0.005)
    return child.returncode


def _start(job: Job, argv: Sequence[str]) -> subprocess.Popen[bytes]:
    env = environment() | {leftovers.NAME: str(job.folder), "JOBRUNNER_STATE": str(job.folder / "state")}
    with (job.folder / "printed").open("ab") as printed:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, env=env, cwd=job.folder)


@contextlib.contextmanager
def _all_ended(job: Job) -> Iterator[None]:
    """Whatever a runner leaves is ended, also where this process is interrupted."""
    try:
        yield
    finally:
        leftovers.end(str(job.folder))


def _title(name: str) -> str:
    return f"{name} ({RUNNERS[name].told_version()})"


def _plain(rows: Sequence[Sequence[str]]) -> str:
    """One paragraph a runner: the heads are too long for a row of a terminal."""
    return "\n\n".join(
        "\n".join([row[0], *(f"  {head:36}{cell:>10}" for head, cell in zip(HEAD[1:], row[1:], strict=True))]) for row in rows
    )


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(HEAD) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [HEAD, rule, *rows])


if __name__ == "__main__":
    sys.exit(main())
