"""Kills a run at random until it is complete, and compares what the tasks told with what the journal and the log say.

    start ─▶ more of the witness ─▶ SIGKILL of engine, guard or both ─▶ journal, survivors ─▶ start again … ─▶ exit 0 ─▶ verify

A run is started by the same command each time: `python -m jobrunner run FILE --resume`. What is started is the guard; its only
child is the engine. Everything that belongs to a run carries a mark in its environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from benchmarks import leftovers, witness
from benchmarks.process import ROOT, environment
from tests.chaos import records

Victim: TypeAlias = Literal["engine", "guard", "second guard", "guard and engine", "second guard and engine", "guards", "all"]
VICTIMS: tuple[Victim, ...] = ("engine", "guard", "second guard", "guard and engine", "second guard and engine", "guards")
"""One or two of the three processes: the third ends what is left. "all" leaves that to the next start."""
MEANT: dict[Victim, tuple[int, ...]] = {
    "guard": (0,), "second guard": (1,), "engine": (2,), "guard and engine": (0, 2), "second guard and engine": (1, 2),
    "guards": (0, 1), "all": (0, 1, 2),
}  # fmt: skip
RUNNER = "JOBRUNNER_RUNNER"
"""A variable that only a runner has, and what it has forked and has not become a command yet."""
BUSY = 75
LOST = 70
PATIENCE = 30.0
"""Seconds in which a runner that is to end has to: a busy machine is no bug."""
GONE = 1.0 if os.environ.get("JOBRUNNER_LONG") else 5.0
"""Seconds after which nothing of a run may live, where guard or engine was left to end it: 1 is promised, CI may be busy."""

JOB = """\
name: chaos
pools:
  shell: {{mode: thread_pool, workers: 2}}
  threads: {{mode: thread_pool, workers: 2}}
  hosts: {{mode: process_pool, workers: 2}}
  fresh: {{mode: process, workers: 2}}
tasks:
  shell:
    pool: shell
    foreach: {{range: {each}}}
    argv: [sh, {folder}/task.sh, {folder}, "{seconds}", "shell-${{{{ item }}}}"]
  threads:
    pool: threads
    foreach: {{range: {each}}}
    target: witnesses:work
    args: [{folder}, {seconds}, "threads-${{{{ item }}}}"]
  hosts:
    pool: hosts
    needs: [shell]
    foreach: {{range: {each}}}
    target: witnesses:work
    args: [{folder}, {seconds}, "hosts-${{{{ item }}}}"]
  fresh:
    pool: fresh
    needs: [threads]
    foreach: {{range: {each}}}
    target: witnesses:work
    args: [{folder}, {seconds}, "fresh-${{{{ item }}}}"]
  total:
    pool: threads
    needs: [hosts, fresh]
    target: witnesses:total
    args: [{folder}, "${{{{ tasks.threads.results }}}}", "${{{{ tasks.hosts.results }}}}", "${{{{ tasks.fresh.results }}}}"]
"""
FANS = ("shell", "threads", "hosts", "fresh")

SHORT_JOB = """\
name: chaos
pools: {{shell: {{mode: thread_pool, workers: 2}}}}
tasks:
  shell:
    pool: shell
    foreach: {{range: {each}}}
    retry: {{max: 5}}
    argv: [sh, {folder}/task.sh, {folder}, "{seconds}", "shell-${{{{ item }}}}"]
"""
"""Commands alone, many and short: in each part of the run all but the first hundred or so are started by a runner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """One kill and what was found right after it. `wound_up` in seconds: until nothing of the run lived; None: not awaited."""

    victim: Victim
    kill: witness.Kill
    code: int
    survivors: frozenset[int]
    """Pids of the run that lived then."""
    finished: bool
    """The run's end was in the journal already."""
    wound_up: float | None


@dataclass(slots=True, kw_only=True)
class Trial:
    """One job that is killed until it is complete: its folder, and what happened so far."""

    folder: Path
    tasks: int
    seconds: float = 0.02
    is_short: bool = False
    """It is SHORT_JOB, whose runners are killed now and then, too."""
    kills: list[Killed] = field(default_factory=list)
    busy: int = 0
    runners: int = 0
    """How many of them were killed."""

    @property
    def fans(self) -> tuple[str, ...]:
        return FANS[:1] if self.is_short else FANS

    @property
    def each(self) -> int:
        """Items of each of the fan-outs."""
        return self.tasks // len(self.fans)

    @property
    def items(self) -> set[str]:
        """Each item, as it tells its name."""
        return {f"{fan}-{number}" for fan in self.fans for number in range(self.each)}

    @property
    def witness(self) -> Path:
        return self.folder / "witness"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def write(self) -> None:
        """The job file, and the modules and scripts beside it."""
        self.folder.mkdir(parents=True)
        (self.folder / "pid").mkdir()
        shutil.copy(ROOT / "benchmarks" / "peers" / "task.sh", self.folder)
        shutil.copy(Path(__file__).with_name("witnesses.py"), self.folder)
        job = SHORT_JOB if self.is_short else JOB
        (self.folder / "job.yaml").write_text(job.format(each=self.each, folder=self.folder, seconds=self.seconds))

    def start(self, program: Sequence[str] = (sys.executable, "-m", "jobrunner")) -> subprocess.Popen[bytes]:
        """The runner, started as a unit with `Restart=` would start it."""
        options = ["--resume", "-q", "--log-level", "info", "--log-format", "json", "--log-file", str(self.folder / "log.jsonl")]
        argv = [*program, "run", str(self.folder / "job.yaml"), *options]
        env = environment() | {leftovers.NAME: str(self.folder), "JOBRUNNER_STATE": str(self.state)}
        with (self.folder / "printed").open("ab") as printed:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, env=env, cwd=self.folder)

    def journals(self) -> list[list[records.Record]]:
        """What the journals on disk say now: more than one where a run was killed before its first record."""
        return [records.whole(path / "events.jsonl") for path in records.run_dirs(self.state, "chaos")]

    def alive(self) -> set[leftovers.Process]:
        return leftovers.alive(str(self.folder))

    def printed(self) -> str:
        """The end of what the runner printed."""
        return (self.folder / "printed").read_text(errors="replace")[-3000:]


def run(trial: Trial, draw: random.Random, *, kills: int, early: float = 0.1, victims: tuple[Victim, ...] = VICTIMS) -> None:
    """Kill `trial` up to `kills` times, a share of them (`early`) while the runner still starts; then let it end."""
    trial.write()
    with all_ended(trial):
        code: int | None = None
        while code is None and len(trial.kills) < kills:
            code = _until_killed(trial, draw, kills=kills, early=early, victims=victims)
        while code is None or code == BUSY:
            code = ended(trial, trial.start())
        assert code == 0, f"exit code {code} after {len(trial.kills)} kills\n{trial.printed()}"
        assert not trial.alive(), f"left after the end: {trial.alive()}"


def _until_killed(trial: Trial, draw: random.Random, *, kills: int, early: float, victims: tuple[Victim, ...]) -> int | None:
    """One start and its kill. The exit code where the runner ended first; None where it was killed or has to be started again."""
    is_due, victim, waits = _moment(trial, draw, kills, early), draw.choice(victims), draw.random() < 0.5
    child = trial.start()
    if trial.is_short and draw.random() < 0.75:
        _kill_a_runner(trial, child, is_due, draw.random() * 0.2)
    while child.poll() is None and not is_due():
        time.sleep(0.001)
    if child.returncode is None:
        trial.kills.append(killed := kill(trial, child, victim, waits=waits))
        return 0 if killed.finished else None  # another start would be another run
    if child.returncode == BUSY:
        trial.busy += 1
        return None
    return child.returncode


def _kill_a_runner(trial: Trial, child: subprocess.Popen[bytes], is_due: Callable[[], bool], later: float) -> None:
    """So many seconds after there is one; unless the kill of the run is due before that."""
    while child.poll() is None and not is_due():
        for pid in runners(str(trial.folder))[:1]:
            time.sleep(later)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                trial.runners += 1
            return
        time.sleep(0.005)


def kill(trial: Trial, child: subprocess.Popen[bytes], victim: Victim, *, waits: bool) -> Killed:
    """Kill guards, engine or several of them. Where one of them is left to end the run, it `waits` until that has happened."""
    family = leftovers.family(child.pid)
    victim = victim if len(family) == 3 else "all"
    offset = witness.size(trial.witness)
    for pid in [family[place] for place in MEANT[victim] if place < len(family)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    at, code = time.monotonic(), ended(trial, child)
    wound_up = _wound_up(trial, at) if waits and victim != "all" else None
    return look(trial, victim, code, offset=offset, wound_up=wound_up)


def look(trial: Trial, victim: Victim, code: int, *, offset: int, wound_up: float | None) -> Killed:
    """What is found after a kill, or a fault, that came when the witness had `offset` bytes. Survivors are told to the tasks."""
    found, gone = trial.journals(), witness.size(trial.witness)
    alive = trial.alive()
    (trial.folder / "survivors").write_text("".join(f"{each.pid} {each.started}\n" for each in alive))
    return Killed(
        victim=victim,
        kill=witness.Kill(offset=offset, gone=gone, recorded={name for each in found for name in records.succeeded(each)}),
        code=code,
        survivors=frozenset(each.pid for each in alive),
        finished=any(each[-1]["event"] == "run.finished" for each in found if each),
        wound_up=wound_up,
    )


def _wound_up(trial: Trial, since: float) -> float:
    """Seconds until nothing of the run lived; many where something does after PATIENCE."""
    while trial.alive() and time.monotonic() < since + PATIENCE:
        time.sleep(0.005)
    return time.monotonic() - since


def _moment(trial: Trial, draw: random.Random, kills: int, early: float) -> Callable[[], bool]:
    """When the next kill is due: after some more starts and a part of a task, or at any moment of the runner's own start."""
    if draw.random() < early:
        at = time.monotonic() + draw.uniform(0, 0.5)
        return lambda: time.monotonic() >= at
    before, reached = witness.size(trial.witness), list[float]()
    wanted, rest = draw.randint(1, max(1, 2 * trial.tasks // kills)) * len("start threads-100 10000\n" * 2), draw.random()

    def is_due() -> bool:
        if not reached and witness.size(trial.witness) - before >= wanted:
            reached.append(time.monotonic() + rest * trial.seconds)
        return bool(reached) and time.monotonic() >= reached[0]

    return is_due


def ended(trial: Trial, child: subprocess.Popen[bytes]) -> int:
    """The exit code of a runner that is left alone."""
    return child.wait(timeout=PATIENCE + trial.tasks * trial.seconds)


@contextlib.contextmanager
def all_ended(trial: Trial) -> Iterator[None]:
    try:
        yield
    finally:
        leftovers.end(str(trial.folder))


def repeats(trial: Trial) -> list[witness.Repeat]:
    """Tasks that ended well, and were run again all the same."""
    return witness.repeats(witness.read(trial.witness), [each.kill for each in trial.kills])


def verify(trial: Trial) -> None:
    """All that is promised, of a trial that has run to its end."""
    _verify_the_kills(trial)
    _verify_the_witness(trial)
    verify_the_journal(trial)
    for line in (trial.folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line)


def _verify_the_kills(trial: Trial) -> None:
    """A guard that outlives its engine says 70, unless the run had ended; what was left to one of them is gone in a second."""
    for each in trial.kills:
        if each.victim == "engine":
            assert each.code == LOST or (each.code == 0 and each.finished), f"{each}\n{trial.printed()}"
        if each.wound_up is not None:
            assert each.wound_up <= GONE, f"{each.victim} was killed; processes of the run lived {each.wound_up:.2f} s longer"


def _verify_the_witness(trial: Trial) -> None:
    """Each task was done, none that was recorded began again, never two at once, none beside what a kill had left."""
    lines = witness.read(trial.witness)
    totals = set() if trial.is_short else {f"total-{3 * sum(range(trial.each))}"}
    assert witness.told(lines, "done") == trial.items | totals
    assert [line for line in lines if line.word == "twice"] == []
    for line, kill in _beside(trial, lines):
        raise AssertionError(f"{line} beside what was left by {kill}\n{trial.printed()}")
    for each in trial.kills:
        later = {line.task for line in lines if line.word == "start" and line.offset >= each.kill.gone}
        assert later & each.kill.recorded == set(), f"recorded tasks were run again: {each}"


def _beside(trial: Trial, lines: list[witness.Line]) -> list[tuple[witness.Line, Killed]]:
    """Where a task ran beside what a kill had left. What was left itself may still have begun its task then."""
    found = [line for line in lines if line.word == "beside"]
    kills = [next(each for each in reversed(trial.kills) if each.kill.offset <= line.offset) for line in found]
    return [(line, kill) for line, kill in zip(found, kills, strict=True) if line.pid not in kill.survivors]


def verify_the_journal(trial: Trial) -> None:
    """One journal ends in success, it is whole, and says of each task once that it succeeded: as the witness does."""
    journals = [records.checked(path / "events.jsonl") for path in records.run_dirs(trial.state, "chaos")]
    (run,) = [each for each in journals if records.succeeded(each)]
    assert (run[-1]["event"], run[-1]["outcome"], run[-1]["exit_code"]) == ("run.finished", "succeeded", 0)
    assert sorted(records.succeeded(run)) == sorted([*trial.items, *([] if trial.is_short else ["total"])])


def runners(mark: str) -> list[int]:
    """The processes that start short commands for an engine, of all that carry the mark."""
    return [each.pid for each in leftovers.alive(mark) if leftovers.has(each.pid, RUNNER)]


def told(trials: list[Trial]) -> str:
    """The figures of several trials in a few lines."""
    kills = [each for trial in trials for each in trial.kills]
    again = [each for trial in trials for each in repeats(trial)]
    waits = [each.wound_up for each in kills if each.wound_up is not None]
    many = max(1, len(kills))
    return (
        f"{len(kills)} kills ({dict(Counter(each.victim for each in kills))})\n"
        f"run again, a kill: {len(again) / many:.3f} tasks that ended well: {sum(each.was_done for each in again) / many:.3f} "
        f"before the kill, the others by themselves after it; {sum(each.was_recorded for each in again)} of all were recorded\n"
        f"{sum(trial.runners for trial in trials)} runners killed besides; "
        f"wound up in {max(waits, default=0):.3f} s at most; "
        f"{sum(trial.busy for trial in trials)} starts met a run that had not ended yet"
    )
