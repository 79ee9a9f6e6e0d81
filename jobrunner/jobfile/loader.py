"""A job file, read and checked: bytes → values → models → defaults merged → checks. Every mistake at once, in file order.

path ─bytes→ reader ─Document→ including ─Gathered→ spec.Job ─merged→ checks, references, params ─→ JobFile, or JobFileError
                                                       └─refused→ mistakes; salvage ─merged→ the same checks of what is left
"""

from __future__ import annotations

import gc
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain, islice
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobrunner import hints, spec
from jobrunner.errors import JobFileError, Problem
from jobrunner.jobfile import checks, including, mistakes, params, reader, references, salvage
from jobrunner.jobfile.document import MOST_PROBLEMS, Document, Finding, Path
from jobrunner.jobfile.including import Gathered
from jobrunner.jobfile.reader import LARGEST
from jobrunner.jobfile.salvage import Unsure
from jobrunner.jobfile.sources import Included, JobFile, name_of

__all__ = ["LARGEST", "Included", "JobFile", "load", "name_of", "parse", "placed", "read"]

_OWN_POOL = frozenset({"mode", "workers"})


def load(path: str | os.PathLike[str]) -> spec.Job:
    """The job in a file. Raises JobFileError with every problem, in file order."""
    return read(path).job


def read(path: str | os.PathLike[str]) -> JobFile:
    """The job in a file, with the bytes of it and of what it includes. Raises JobFileError with every problem, in file order.

    Never blocks on a FIFO or a device, never runs anything of the user's, and raises nothing else, whatever the bytes are.
    """
    file = os.fsdecode(path)
    try:
        source = reader.source_of(file)
    except reader.Unreadable as error:
        hint = _beside(file)
        message = f"{error}. {hint}" if hint else str(error)
        raise JobFileError((Problem(file=file, line=1, column=1, message=message),)) from None
    job, includes = _parsed(source, file)
    return JobFile(path=pathlib.Path(os.path.abspath(file)), source=source, job=job, includes=includes, file=file)


def _beside(file: str) -> str:
    """The job file that was meant, where there is none of this name and one like it: `job.yml` for job.yaml."""
    folder, name = os.path.split(file)
    with suppress(OSError, ValueError):
        if name and not os.path.lexists(file):
            stems = {
                each.rpartition(".")[0]: each for each in sorted(os.listdir(folder or ".")) if each.endswith((".yaml", ".yml"))
            }
            found = hints.closest(name.rpartition(".")[0] or name, stems)
            return f"Did you mean {stems[found]!r}?" if found else ""
    return ""


def parse(source: bytes, file: str) -> spec.Job:
    """The job in the bytes of a file. `file` is named in problems; its stem names the job where the job does not say.

    What the job includes is read from the disk, beside `file`.
    """
    return _parsed(source, file)[0]


def placed(file: JobFile, findings: Iterable[Finding]) -> tuple[Problem, ...]:
    """Findings about a job that was read, at their places (of defaults, finally, an included file), in file order.

    The bytes are read again as they were: this takes as long as reading the file did.
    """
    name = file.file or str(file.path)
    sources = (each.source for each in file.includes)  # asked for in the same order
    with garbage_left_alone():
        gathered = including.gather(reader.read(file.source, name), name, lambda _: next(sources, b""))
        return _placed(_at_finals(findings, file.job), gathered)


def _parsed(source: bytes, file: str) -> tuple[spec.Job, tuple[Included, ...]]:
    with garbage_left_alone():
        job, problems, included = _judged(source, file)
    if problems:
        raise JobFileError(problems)
    assert job is not None, "a job without a problem is valid"
    return (job if job.name else job.model_copy(update={"name": name_of(file)})), included


def _judged(source: bytes, file: str) -> tuple[spec.Job | None, tuple[Problem, ...], tuple[Included, ...]]:
    """On return the documents are gone: the collector, when it is enabled again, walks what is left, which takes a tenth."""
    gathered = including.gather(reader.read(source, file), file)
    job, findings = _checked(gathered)
    return job, _placed(findings, gathered), gathered.included


@contextmanager
def garbage_left_alone() -> Iterator[None]:
    """Reading makes a million objects and no circles: the collector would walk them again and again, and find nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# --- values → job ------------------------------------------------------------------------------------------------------------

_PLUGINS = "pydantic.plugin._loader"


def _build_models() -> None:
    """Build what validates a job, and the two models that a run makes, without plug-ins of pydantic: to look for some it reads
    what is said of every package that is installed.

    That takes as long as all that is ours. Where somebody's models have been built before, it has been done.
    """
    if spec.Job.__pydantic_complete__ or _PLUGINS in sys.modules:
        return
    none = ModuleType(_PLUGINS)
    none.get_plugins = tuple  # type: ignore[attr-defined]  # a module has what it is given
    sys.modules[_PLUGINS] = none
    try:
        for model in (spec.Job, spec.Pool, spec.Retry):
            model.model_rebuild()
    finally:
        del sys.modules[_PLUGINS]


def _checked(gathered: Gathered) -> tuple[spec.Job | None, Iterable[Finding]]:
    """The job and what is wrong with it. Where the models refuse some parts, the rest is checked without them."""
    value, document = gathered.value, gathered.document
    if not isinstance(value, dict):
        return None, [_not_a_job(value)]
    twice = _twice(value, document)
    try:
        _build_models()
        job = spec.Job.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        if not gathered.is_whole:
            details = [detail for detail in details if not _lacks_tasks(detail)]
        found = chain(mistakes.find(details, document), twice)
        return None, chain(found, _found_beside(details, value, gathered)) if len(details) <= MOST_PROBLEMS else found
    return job, chain(twice, _cross_checked(_merged(job), gathered, Unsure()))


def _lacks_tasks(detail: ErrorDetails) -> bool:
    """Where an included file is missing, so may be the tasks."""
    return detail["loc"] == ("tasks",) and detail["type"] in {"missing", "too_short"}


def _found_beside(details: Sequence[ErrorDetails], value: dict[str, Any], gathered: Gathered) -> Iterator[Finding]:
    """What the checks find in all that the models leave."""
    rest, unsure = salvage.salvaged(value, details)
    return _cross_checked(_merged(rest), gathered, unsure) if rest else iter(())


def _not_a_job(value: object) -> Finding:
    hint = "Write tasks: and under it name: {run: …}."
    if value is None:
        return Finding(path=(), message="the file is empty; a job file has tasks", hint=hint)
    said = "a list" if isinstance(value, list) else "a single value"
    return Finding(path=(), message=f"a job file is a map that has tasks; this is {said}", hint=hint)


def _twice(value: dict[str, Any], document: Document) -> Iterator[Finding]:
    """Names that stand both in `tasks` and in `finally`."""
    tasks, finals = value.get("tasks"), value.get("finally")
    if not isinstance(tasks, dict) or not isinstance(finals, dict):
        return
    for name in finals:
        if name in tasks:
            message = f"{name!r} stands already in tasks, {document.place(('tasks', name), at_key=True)}"
            yield Finding(path=("finally", name), at_key=True, message=message, hint="Rename one of them.")


def _cross_checked(job: spec.Job, gathered: Gathered, unsure: Unsure) -> Iterator[Finding]:
    """What the checks find, but for what only follows from a mistake that has been told."""
    if not gathered.is_whole:
        _doubt_all(job, unsure)

    def place(path: Path) -> str:
        return gathered.document.place(_at_final(path, job))

    findings = chain(params.find(job), checks.find(job, place), references.find(job, unsure))
    return unsure.shown(_at_finals(findings, job))


def _doubt_all(job: spec.Job, unsure: Unsure) -> None:
    """Note what may stand in a file that could not be read: names, defaults, and the needs of what a task needs."""
    unsure.tables.update(including.TABLES, ("secrets",))
    unsure.lanes.update(("", *job.tasks))
    unsure.needs.update(name for name, task in job.tasks.items() if any(need not in job.tasks for need in task.needs))


def _at_finals(findings: Iterable[Finding], job: spec.Job) -> Iterable[Finding]:
    """What is found about a task of `finally`, which checks meet among the tasks, told at `finally`."""
    if not job.finals:
        return findings
    return (replace(finding, path=_at_final(finding.path, job)) for finding in findings)


def _at_final(path: Path, job: spec.Job) -> Path:
    is_final = len(path) > 1 and path[0] == "tasks" and path[1] in job.finals
    return ("finally", *path[1:]) if is_final else path


def _placed(findings: Iterable[Finding], gathered: Gathered) -> tuple[Problem, ...]:
    """Findings, and the problems of reading, in the order of the files and of their lines, each once."""
    document = gathered.document
    limited = list(islice(findings, MOST_PROBLEMS + 1))
    at_home = (document.problem(_at_home(finding, document)) for finding in limited[:MOST_PROBLEMS])
    found = (*document.problems, *gathered.problems, *at_home)
    unique = {(problem.file, problem.line, problem.column, problem.message): problem for problem in found}
    order = {file: position for position, file in enumerate(gathered.order)}
    ordered = sorted(unique.values(), key=lambda problem: (order[problem.file], problem.line, problem.column))
    if max(len(limited), len(gathered.problems)) > MOST_PROBLEMS:
        last = ordered[-1]
        ordered.append(Problem(file=last.file, line=last.line, column=1, message="there are more problems; mend these first"))
    return tuple(ordered)


def _at_home(finding: Finding, document: Document) -> Finding:
    """A finding about a task's key that `defaults` gave is one about `defaults`."""
    path = finding.path
    if len(path) < 3 or path[0] not in {"tasks", "finally"} or document.has(path):
        return finding
    home = ("defaults", *path[2:])
    if not document.has(home):
        return finding
    return replace(finding, path=home)


# --- finally, defaults -------------------------------------------------------------------------------------------------------


def _merged(job: spec.Job) -> spec.Job:
    """The job with the tasks of `finally` behind the others, and its defaults in every task.

    They are the same objects in both tables. A task's own key wins over the defaults; `env` is merged key by key.
    """
    for name in job.finals.keys() & job.tasks.keys():
        del job.finals[name]  # which has been told
    job.tasks.update(job.finals)
    defaults = {key: getattr(job.defaults, key) for key in sorted(job.defaults.model_fields_set)}
    if not defaults:
        return job
    for task in job.tasks.values():
        _fill(task, defaults)
    return job


def _fill(task: spec.Task, defaults: dict[str, Any]) -> None:
    """Put the defaults that a task leaves open into it.

    In place, though models are frozen: nobody else has seen this one, and copies would double the time of a large file.
    """
    own = task.model_fields_set
    for key, value in defaults.items():
        if key == "env":
            task.__dict__["env"] = {**value, **task.env}
        elif key not in own and not _is_overruled(key, own):
            task.__dict__[key] = value


def _is_overruled(key: str, own: set[str]) -> bool:
    """A task that names a pool drops the default mode and workers, and the reverse."""
    return (key in _OWN_POOL and "pool" in own) or (key == "pool" and not _OWN_POOL.isdisjoint(own))
