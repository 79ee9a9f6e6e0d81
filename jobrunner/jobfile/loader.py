"""A job file, read and checked: bytes → values → models → defaults merged → checks. Every mistake at once, in file order.

path ─bytes→ reader.read ─Document→ spec.Job ─merged→ checks, references, params ─→ JobFile, or JobFileError
                                        └─refused→ mistakes; salvage ─merged→ the same checks of what is left
"""

from __future__ import annotations

import gc
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobrunner import spec
from jobrunner.errors import JobFileError, Problem
from jobrunner.jobfile import checks, mistakes, params, reader, references, salvage
from jobrunner.jobfile.document import MOST_PROBLEMS, Document, Finding
from jobrunner.jobfile.salvage import Unsure

LARGEST = 64 * 1024 * 1024
"""Bytes of the largest job file that is read."""

_OWN_POOL = frozenset({"mode", "workers"})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A valid job with the file it came from, as it was: `path` is absolute, `source` the bytes that were read."""

    path: Path
    source: bytes
    job: spec.Job


def load(path: str | os.PathLike[str]) -> spec.Job:
    """The job in a file. Raises JobFileError with every problem, in file order."""
    return read(path).job


def read(path: str | os.PathLike[str]) -> JobFile:
    """The job in a file, with the file's bytes. Raises JobFileError with every problem, in file order.

    Never blocks on a FIFO or a device, never runs anything of the user's, and raises nothing else, whatever the bytes are.
    """
    file = os.fsdecode(path)
    source = _bytes_of(file)
    return JobFile(path=Path(os.path.abspath(file)), source=source, job=parse(source, file))


def parse(source: bytes, file: str) -> spec.Job:
    """The job in the bytes of a file. `file` is named in problems; its stem names the job where the job does not say."""
    with _garbage_left_alone():
        job, problems = _judged(source, file)
    if problems:
        raise JobFileError(problems)
    assert job is not None, "a job without a problem is valid"
    return job if job.name else job.model_copy(update={"name": name_of(file)})


def _judged(source: bytes, file: str) -> tuple[spec.Job | None, tuple[Problem, ...]]:
    """On return the document is gone: the collector, when it is enabled again, walks what is left, which takes a tenth."""
    document = reader.read(source, file)
    job, findings = _checked(document)
    return job, _placed(findings, document)


def name_of(file: str) -> str:
    """The file's stem as a job's name, that of the file itself if this is a link: what a name cannot hold becomes '_'."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(os.path.realpath(file)).stem)[:100].lstrip(".-")
    return name or "job"


@contextmanager
def _garbage_left_alone() -> Iterator[None]:
    """Reading makes a million objects and no circles: the collector would walk them again and again, and find nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# --- bytes -------------------------------------------------------------------------------------------------------------------


def _bytes_of(file: str) -> bytes:
    try:
        if (wrong := _why_not(os.stat(file))) is not None:
            raise _unreadable(file, wrong)
        with open(file, "rb") as stream:
            source = stream.read(LARGEST + 1)
    except FileNotFoundError:
        raise _unreadable(file, _STANDARD_INPUT if file == "-" else "there is no such file") from None
    except OSError as error:
        raise _unreadable(file, f"the file cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise _unreadable(file, "a file name holds no NUL character") from None
    if len(source) > LARGEST:
        raise _unreadable(file, _TOO_LARGE)
    return source


_STANDARD_INPUT = "the name of a file is needed: standard input is not read"
_TOO_LARGE = f"the file is larger than {LARGEST // 2**20} MiB; a job file is never that large"


def _why_not(status: os.stat_result) -> str | None:
    if stat.S_ISDIR(status.st_mode):
        return "this is a directory, not a job file"
    if not stat.S_ISREG(status.st_mode):
        return "this is not a regular file"  # a FIFO would block, a device never end
    return _TOO_LARGE if status.st_size > LARGEST else None


def _unreadable(file: str, message: str) -> JobFileError:
    return JobFileError((Problem(file=file, line=1, column=1, message=message),))


# --- values → job ------------------------------------------------------------------------------------------------------------


def _checked(document: Document) -> tuple[spec.Job | None, Iterable[Finding]]:
    """The job and what is wrong with it. Where the models refuse some parts, the rest is checked without them."""
    if not isinstance(document.value, dict):
        return None, [_not_a_job(document.value)]
    value = _env_as_written(document, document.value)
    try:
        job = spec.Job.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        found = mistakes.find(details, document)
        return None, chain(found, _found_beside(details, value, document)) if len(details) <= MOST_PROBLEMS else found
    return _merged(job), _cross_checked(job, document)


def _found_beside(details: Sequence[ErrorDetails], value: dict[str, Any], document: Document) -> Iterator[Finding]:
    """What the checks find in all that the models leave."""
    rest, unsure = salvage.salvaged(value, details)
    return unsure.shown(_cross_checked(_merged(rest), document, unsure)) if rest else iter(())


def _not_a_job(value: object) -> Finding:
    hint = "Write tasks: and under it name: {run: …}."
    if value is None:
        return Finding(path=(), message="the file is empty; a job file has tasks", hint=hint)
    said = "a list" if isinstance(value, list) else "a single value"
    return Finding(path=(), message=f"a job file is a map that has tasks; this is {said}", hint=hint)


def _cross_checked(job: spec.Job, document: Document, unsure: Unsure | None = None) -> Iterator[Finding]:
    return chain(params.find(job), checks.find(job, document.line), references.find(job, unsure or Unsure()))


def _placed(findings: Iterable[Finding], document: Document) -> tuple[Problem, ...]:
    """Findings and the reader's problems in file order, each once."""
    limited = list(islice(findings, MOST_PROBLEMS + 1))
    placed = (document.problem(_at_home(finding, document)) for finding in limited[:MOST_PROBLEMS])
    unique = {(problem.line, problem.column, problem.message): problem for problem in (*document.problems, *placed)}
    ordered = sorted(unique.values(), key=lambda problem: (problem.line, problem.column))
    if len(limited) > MOST_PROBLEMS:
        ordered.append(
            Problem(file=document.file, line=ordered[-1].line, column=1, message="there are more problems; mend these first")
        )
    return tuple(ordered)


def _at_home(finding: Finding, document: Document) -> Finding:
    """A finding about a task's key that `defaults` gave is one about `defaults`."""
    path = finding.path
    if len(path) < 3 or path[0] != "tasks" or document.has(path):
        return finding
    home = ("defaults", *path[2:])
    if not document.has(home):
        return finding
    return replace(finding, path=home)


# --- defaults ----------------------------------------------------------------------------------------------------------------


def _merged(job: spec.Job) -> spec.Job:
    """The job with its defaults in every task. A task's own key wins; `env` is merged key by key."""
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


# --- env ---------------------------------------------------------------------------------------------------------------------


def _env_as_written(document: Document, job: dict[str, Any]) -> dict[str, Any]:
    """The job with the plain scalars of every `env` as the file writes them. What holds none is not copied."""
    changed = {
        key: value for key, value in (("env", job.get("env")), ("defaults", job.get("defaults"))) if isinstance(value, dict)
    }
    written: dict[str, Any] = {}
    if "env" in changed:
        written["env"] = document.as_written(changed["env"])
    if "defaults" in changed:
        written["defaults"] = _with_env(changed["defaults"], document)
    if isinstance(tasks := job.get("tasks"), dict):
        written["tasks"] = {name: _with_env(task, document) for name, task in tasks.items()}
    return {**job, **written}


def _with_env(task: Any, document: Document) -> Any:
    if isinstance(task, dict) and isinstance(env := task.get("env"), dict):
        return {**task, "env": document.as_written(env)}
    return task
