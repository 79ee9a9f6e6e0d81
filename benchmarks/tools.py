"""How each command-line tool is told to run a command many times: its file, its command line, and what it needs between runs.

Work ─→ TOOLS["make"] ─→ Told: argv, folder, environment ─→ case(): measured with `true`, proven with a command that leaves marks
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import environments, jobs
from benchmarks.environments import Environment
from benchmarks.measure import Case, Twin
from benchmarks.process import ROOT, Surroundings

MARK_SCRIPT = "#!/bin/sh\nprintf x >>'{marks}'\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`command`, `items` times, `workers` at a time. A command with shell syntax is for tools that have a shell.

    `proven`: so many are enough for the proof that marks are left; all, where it is None.
    """

    folder: Path
    command: str
    items: int
    workers: int
    proven: int | None = None

    def write(self, name: str, text: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def shares(self) -> list[int]:
        """How many items each worker gets, for tools that only run lists of commands side by side."""
        return [len(range(worker, self.items, self.workers)) for worker in range(self.workers)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The command line that does the work."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


Tool = Callable[[Environment, Work], Told]


def true() -> str:
    """The program itself: some shells have a `true` of their own, and would start nothing."""
    return shutil.which("true") or "/bin/true"


def mark(folder: Path) -> Path:
    """A program as cheap as `true` that leaves a mark each time; `marks` counts and clears them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mark"
    if path.exists():
        return path
    if compiler := shutil.which("cc"):
        subprocess.run([compiler, "-O2", "-o", path, ROOT / "benchmarks" / "peers" / "mark.c"], check=True)
    else:
        path.write_text(MARK_SCRIPT.format(marks=_marks_of(path)), encoding="utf-8")
        path.chmod(0o755)
    return path


def marked(program: Path, items: int) -> Callable[[str], str | None]:
    """The check that `program` ran `items` times since it was last asked."""

    def check(_: str) -> str | None:
        marks = _marks_of(program)
        found = marks.stat().st_size if marks.exists() else 0
        marks.unlink(missing_ok=True)
        return None if found == items else f"the command ran {found} times, not {items}"

    return check


def proof(work: Work, tell: Callable[[Work], Sequence[str]]) -> Twin:
    """The work with a program that leaves marks in place of `true`."""
    program = mark(work.folder.parent / f"{work.folder.name}-proof")
    items = min(work.items, work.proven or work.items)
    proven = replace(work, command=work.command.replace(true(), str(program), 1), items=items, folder=program.parent / "work")
    return Twin(argv=tell(proven), check=marked(program, items))


def case(name: str, work: Work, *, single: bool = False) -> Case | None:
    """The tool at that work; None where it is not to be had. `single`: one item is measured beside it."""
    if (found := environments.environment(name)) is None:
        return None
    work = replace(work, folder=work.folder / name)
    told = TOOLS[name](found, work)
    one = TOOLS[name](found, replace(work, folder=work.folder / "one", items=1))
    return Case(
        name=name,
        argv=told.argv,
        check=_anything,
        single=Twin(argv=one.argv, check=_anything) if single else None,
        proof=proof(work, lambda proven: TOOLS[name](found, proven).argv),
        at=Surroundings(folder=work.folder, env=told.env),
    )


def ours(work: Work, key: str = "argv", *, single: bool = False) -> Case:
    """jobrunner at that work: a fan-out of the command; its log tells that every item succeeded."""
    job, one, name = _job(work, key), _job(replace(work, items=1), key), f"jobrunner, {key}"
    return Case(
        name=name,
        argv=jobs.command(job),
        check=jobs.logged(job, work.items),
        single=Twin(argv=jobs.command(one), check=jobs.logged(one, 1)) if single else None,
        proof=proof(work, lambda proven: jobs.command(_job(proven, key))),
    )


JOB = """\
name: {name}
workers: {workers}
tasks:
  each:
    foreach: {{range: {items}}}
    {what}
"""


def _job(work: Work, key: str) -> Path:
    work.folder.mkdir(parents=True, exist_ok=True)
    what = f'argv: ["{work.command}"]' if key == "argv" else f"run: '{work.command}'"
    name = f"commands-{work.workers}-{work.items}"
    return jobs.write_job(work.folder, name, JOB.format(name=name, workers=work.workers, items=work.items, what=what))


def _anything(_: str) -> None:
    """What such a tool prints tells nothing; its exit code was looked at, and its proof counted."""


def _marks_of(program: Path) -> Path:
    return program.with_name(f"{program.name}.marks")


def _make(found: Environment, work: Work) -> Told:
    names = " ".join(f"t{number}" for number in range(work.items))
    work.write("Makefile", f".PHONY: all {names}\nall: {names}\n{names}: ; {work.command}\n")
    return Told(argv=[found.program(), "-s", "-r", "-C", str(work.folder), f"-j{work.workers}"])


def _ninja(found: Environment, work: Work) -> Told:
    builds = "".join(f"build t{number}: each\n" for number in range(work.items))
    work.write("build.ninja", f"rule each\n  command = {work.command}\n{builds}")
    return Told(argv=[found.program(), "--quiet", "-C", str(work.folder), f"-j{work.workers}"])


def _xargs(found: Environment, work: Work) -> Told:
    path = work.write("items", "".join(f"{number}\n" for number in range(work.items)))
    return Told(argv=[found.program(), f"-P{work.workers}", "-n1", "-a", str(path), *shlex.split(work.command)])


def _xjobs(found: Environment, work: Work) -> Told:
    path = work.write("script", f"{work.command}\n" * work.items)
    return Told(argv=[found.program(), "-j", str(work.workers), "-v", "1", "-r", "-s", str(path)])


def _parallel(found: Environment, work: Work) -> Told:
    path = work.write("items", "".join(f"{number}\n" for number in range(work.items)))
    log = ["--joblog", str(work.folder / "joblog")]
    return Told(argv=[found.program(), "--will-cite", f"-j{work.workers}", *log, "-a", str(path), work.command])


def _just(found: Environment, work: Work) -> Told:
    """It has no limit of its own: as many recipes side by side as there are workers, a list of commands in each."""
    recipes = "".join(
        f"w{worker}:\n" + f"  @{work.command}\n" * share for worker, share in enumerate(work.shares()) if share or not worker
    )
    names = " ".join(f"w{worker}" for worker, share in enumerate(work.shares()) if share)
    path = work.write("justfile", f"[parallel]\nall: {names}\n{recipes}")
    return Told(argv=[found.program(), "-f", str(path), "all"])


def _go_task(found: Environment, work: Work) -> Told:
    tasks = "".join(f"  t{number}: {{silent: true, cmds: ['{work.command}']}}\n" for number in range(work.items))
    names = ", ".join(f"t{number}" for number in range(work.items))
    work.write("Taskfile.yml", f"version: '3'\ntasks:\n  all: {{deps: [{names}]}}\n{tasks}")
    return Told(argv=[found.program(), "-d", str(work.folder), "-C", str(work.workers), "all"], env={"TASK_REMOTE_DIR": ""})


DODO = """\
def task_each():
    for number in range({items}):
        yield {{"name": str(number), "actions": [{action!r}]}}
"""


def _doit(found: Environment, work: Work) -> Told:
    """An action that is a list starts no shell. One item needs no second process."""
    action = work.command if _needs_shell(work.command) else shlex.split(work.command)
    file = work.write("dodo.py", DODO.format(items=work.items, action=action))
    side_by_side = ["-n", str(work.workers)] if work.workers > 1 else []
    return Told(argv=[found.program(), "-f", str(file), "-d", str(work.folder), *side_by_side, "-v", "0"])


def _pypyr(found: Environment, work: Work) -> Told:
    """Commands side by side are lists of commands, as many as there are workers; one is a plain command."""
    step = "shells" if _needs_shell(work.command) else "cmds"
    lists = [f"    - [{', '.join([repr(work.command)] * share)}]\n" for share in work.shares() if share]
    text = f"steps:\n- name: pypyr.steps.{step}\n  in:\n   {step}:\n{''.join(lists)}"
    if work.items == 1:
        text = f"steps:\n- name: pypyr.steps.{step[:-1]}\n  in:\n    {step[:-1]}: {work.command}\n"
    path = work.write("pipeline.yaml", text)
    return Told(argv=[found.program(), str(path.with_suffix(""))])


INVOKE = """\
from invoke import task


@task
def each(c):
    for _ in range({items}):
        c.run({command!r})
"""


def _invoke(found: Environment, work: Work) -> Told:
    work.write("tasks.py", INVOKE.format(items=work.items, command=work.command))
    return Told(argv=[found.program(), "-r", str(work.folder), "each"])


def _poe(found: Environment, work: Work) -> Told:
    work.write("poe_tasks.toml", f'[tasks.each]\ncmd = "{work.command}"\n')
    return Told(argv=[found.program(), "-q", "-C", str(work.folder), "each"])


NOX = """\
import nox


@nox.session(venv_backend="none")
def each(session):
    session.run({command!r}, external=True)
"""


def _nox(found: Environment, work: Work) -> Told:
    file = work.write("noxfile.py", NOX.format(command=work.command))
    return Told(argv=[found.program(), "-f", str(file), "-s", "each"])


LUIGI = """\
import subprocess

import luigi


class Each(luigi.Task):
    number = luigi.IntParameter()
    is_done = False

    def run(self):
        subprocess.run({command!r}, check=True)
        self.is_done = True
        with self.output().open("w"):
            pass

    def output(self):
        return luigi.LocalTarget(f"done/{{self.number}}")


class All(luigi.WrapperTask):
    def requires(self):
        return [Each(number=number) for number in range({items})]
"""


def _luigi(found: Environment, work: Work) -> Told:
    work.write("each.py", LUIGI.format(command=shlex.split(work.command), items=work.items))
    options = ["--local-scheduler", "--workers", str(work.workers), "--log-level", "WARNING"]
    script = f"rm -rf done && exec {shlex.quote(found.program())} --module each All {shlex.join(options)}"
    return Told(argv=["sh", "-c", f"cd {shlex.quote(str(work.folder))} && {script}"], env={"PYTHONPATH": "."})


SNAKEFILE = """\
rule all:
    input: expand("done/{{n}}", n=range({items}))
rule each:
    output: touch("done/{{n}}")
    shell: "{command}"
"""


def _snakemake(found: Environment, work: Work) -> Told:
    file = work.write("Snakefile", SNAKEFILE.format(items=work.items, command=work.command))
    options = ["-d", str(work.folder), "-s", str(file), "-c", str(work.workers), "-q", "all", "--forceall", "--nolock"]
    return Told(argv=[found.program(), *options])


def _dagu(found: Environment, work: Work) -> Told:
    steps = "".join(f"  - {{name: t{number}, command: {work.command}, depends: []}}\n" for number in range(work.items))
    path = work.write("work.yaml", f"type: graph\nmaxActiveSteps: {work.workers}\nsteps:\n{steps}")
    return Told(argv=[found.program(), "start", "-q", str(path)], env={"DAGU_HOME": str(work.folder)})


FLOW = """\
import subprocess

from prefect import flow, task


@task
def each(number):
    subprocess.run({command!r}, check=True)


@flow
def every():
    for future in [each.submit(number) for number in range({items})]:
        future.result()


if __name__ == "__main__":
    every()
"""


def _prefect(found: Environment, work: Work) -> Told:
    file = work.write("flow.py", FLOW.format(command=shlex.split(work.command), items=work.items))
    quiet = {"PREFECT_LOGGING_LEVEL": "ERROR", "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    quiet["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"
    return Told(argv=[found.python, str(file)], env=quiet | {"PREFECT_HOME": str(work.folder)})


def _needs_shell(command: str) -> bool:
    return any(sign in command for sign in "|&;<>")


TOOLS: dict[str, Tool] = {
    "make": _make,
    "ninja": _ninja,
    "xargs": _xargs,
    "xjobs": _xjobs,
    "parallel": _parallel,
    "just": _just,
    "go-task": _go_task,
    "doit": _doit,
    "pypyr": _pypyr,
    "invoke": _invoke,
    "poe": _poe,
    "nox": _nox,
    "luigi": _luigi,
    "snakemake": _snakemake,
    "dagu": _dagu,
    "prefect": _prefect,
}
