"""What a job asks for that this machine does not have at all: memory. Nothing of the job's is read or run."""

from __future__ import annotations

from collections.abc import Iterator

from jobrunner.jobfile.document import Finding, Path
from jobrunner.memory import in_units, whole_memory
from jobrunner.spec import Job

_HINT = "It runs beside nothing else that needs memory, and the limit comes too late: write less, or leave it out."


def find(job: Job) -> Iterator[Finding]:
    """Each task, or `defaults` for those that have it from there, whose `resources.memory` is more than there is."""
    asked = dict(_asked(job))
    most = whole_memory() if asked else None
    for base, memory in asked.items():
        if most is not None and memory > most:
            message = f"{in_units(memory)} is more than this machine has: {in_units(most)}"
            yield Finding(path=(*base, "resources", "memory"), message=message, hint=_HINT)


def _asked(job: Job) -> Iterator[tuple[Path, int]]:
    shared = job.defaults.resources
    if shared is not None and shared.memory is not None:
        yield ("defaults",), shared.memory
    for name, task in job.tasks.items():
        if task.resources is not None and task.resources.memory is not None and task.resources != shared:
            yield ("tasks", name), task.resources.memory
