"""The runners that are killed: what each needs written, how it is started and gone on with, and what it has recorded as done."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import leftovers
from benchmarks.process import ROOT

WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every runner has to do: `tasks` tasks of `seconds` each, WORKERS at a time, in a folder of its own."""

    folder: Path
    tasks: int
    seconds: float

    def task(self, number: object) -> list[str]:
        """The command line of one task."""
        return ["sh", str(self.folder / "task.sh"), str(self.folder), str(self.seconds), str(number)]

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """One tool. The command line that `command` gives starts the job, and given again goes on with it, as its documentation says.

    `recorded` tells which tasks it would find done; `victims` which processes a kill means, of those that it started with;
    `busy` is the exit code that asks to be started again, because its predecessor has not ended yet.
    """

    program: str
    version: Sequence[str]
    command: Callable[[Job], list[str]]
    recorded: Callable[[Job], Set[str]]
    victims: Callable[[int], Sequence[Sequence[int]]] = lambda pid: [[pid]]
    busy: int | None = None
    is_over: Callable[[Job], bool] = lambda job: False
    """Whether the job had ended when the runner was killed, so that another start would begin it anew."""

    def missing(self) -> str | None:
        """Why it cannot take part; None where it can."""
        return None if shutil.which(self.program) else f"{self.program} is not installed"

    def told_version(self) -> str:
        """The first line that it prints of itself."""
        ended = subprocess.run(self.version, capture_output=True, text=True, check=False, cwd=ROOT)
        return (ended.stdout or ended.stderr).partition("\n")[0]


def _parallel(job: Job) -> list[str]:
    options = ["--will-cite", f"-j{WORKERS}", "--joblog", str(job.folder / "joblog"), "--resume"]
    return ["parallel", *options, *job.task("{}"), ":::", *map(str, range(job.tasks))]


def _in_the_joblog(job: Job) -> set[str]:
    """Lines of the log after its head: Seq, Host, …, Exitval, Signal, Command; tasks are given in the order of their numbers."""
    path = job.folder / "joblog"
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]] if path.exists() else []
    return {str(int(row[0]) - 1) for row in rows if len(row) == 9 and row[6] == "0"}


def _make(job: Job) -> list[str]:
    names = " ".join(f"out/{number}" for number in range(job.tasks))
    job.write("Makefile", f"all: {names}\nout/%:\n\t@{shlex.join(job.task('$*'))} && touch $@\n".replace("'$*'", "$*"))
    return ["make", "-s", "-C", str(job.folder), f"-j{WORKERS}"]


def _ninja(job: Job) -> list[str]:
    rule = f"rule task\n  command = {shlex.join(job.task('N')).removesuffix('N')}$number && touch $out\n"
    builds = "".join(f"build out/{number}: task\n  number = {number}\n" for number in range(job.tasks))
    job.write("build.ninja", rule + builds)
    return ["ninja", "--quiet", "-C", str(job.folder), f"-j{WORKERS}"]


def _in_the_ninja_log(job: Job) -> set[str]:
    """Start, end, mtime, output and a hash; an output that is not in the log is made again."""
    path = job.folder / ".ninja_log"
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]] if path.exists() else []
    return {row[3].removeprefix("out/") for row in rows if len(row) == 5} & _outputs(job)


def _doit(uptodate: str) -> Callable[[Job], list[str]]:
    text = """\
from doit.tools import run_once

DOIT_CONFIG = {{"backend": "json", "dep_file": ".doit.json"}}


def task_each():
    for number in range({tasks}):
        action = f"{action}{{number}} && touch out/{{number}}"
        yield {{"name": str(number), "actions": [action], "targets": [f"out/{{number}}"], "uptodate": [{uptodate}]}}
"""

    def command(job: Job) -> list[str]:
        action = shlex.join(job.task("N")).removesuffix("N")
        file = job.write("dodo.py", text.format(tasks=job.tasks, action=action, uptodate=uptodate))
        return ["doit", "-f", str(file), "-n", str(WORKERS), "-v", "0"]

    return command


def _in_the_doit_file(job: Job) -> set[str]:
    """What `run_once` asks for: the tasks that were saved. doit saves when it ends."""
    path = job.folder / ".doit.json"
    names = json.loads(path.read_text() or "{}") if path.exists() else {}
    return {name.removeprefix("each:") for name in names} & _outputs(job)


def _outputs(job: Job) -> set[str]:
    return set(os.listdir(job.folder / "out"))


JOB = """\
name: kills
workers: {workers}
tasks:
  each:
    foreach: {{range: {tasks}}}
    argv: {argv}
"""


def _jobrunner(job: Job) -> list[str]:
    file = job.write("job.yaml", JOB.format(workers=WORKERS, tasks=job.tasks, argv=json.dumps(job.task("${{ item }}"))))
    return [sys.executable, "-m", "jobrunner", "run", str(file), "--resume", "-q"]


def _in_the_journal(job: Job) -> set[str]:
    """Tasks whose success stands in the journal. Its last line may be torn."""
    ended = [each for each in _records(job) if each["event"] == "task.finished" and each["outcome"] == "succeeded"]
    return {each["item"] for each in ended}


def _run_has_ended(job: Job) -> bool:
    return any(each["event"] == "run.finished" for each in _records(job))


def _records(job: Job) -> Iterator[dict[str, Any]]:
    for path in (job.folder / "state" / "kills").glob("*/events.jsonl"):
        yield from (json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))


def _guard_and_engine(pid: int) -> list[list[int]]:
    """The guard, the engine, or both, once they are there."""
    match leftovers.family(pid):
        case [guard, _, engine]:
            return [[guard], [engine], [guard, engine]]
        case some:
            return [some]


RUNNERS = {
    "jobrunner": Runner(
        program=sys.executable,
        version=[sys.executable, "-m", "jobrunner", "--version"],
        command=_jobrunner,
        recorded=_in_the_journal,
        victims=_guard_and_engine,
        busy=75,
        is_over=_run_has_ended,
    ),
    "parallel": Runner(program="parallel", version=["parallel", "--version"], command=_parallel, recorded=_in_the_joblog),
    "make": Runner(program="make", version=["make", "--version"], command=_make, recorded=_outputs),
    "ninja": Runner(program="ninja", version=["ninja", "--version"], command=_ninja, recorded=_in_the_ninja_log),
    "doit": Runner(program="doit", version=["doit", "--version"], command=_doit("run_once"), recorded=_in_the_doit_file),
    "doit-targets": Runner(program="doit", version=["doit", "--version"], command=_doit("True"), recorded=_outputs),
}
