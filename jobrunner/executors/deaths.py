"""Why a worker died, in words that a person reads."""

from __future__ import annotations

from jobrunner.processes import Exit
from jobrunner.work import Error


def crash(exit: Exit, *, cause: str, shared: bool) -> Error:
    """Why an attempt has no result. `cause` is why we ended its host; `shared` says that the host ran others at the same time."""
    if cause:
        message = f"worker lost: {cause}"
    elif exit.signal:
        message = f"worker lost: its process was {exit}" if shared else str(exit)
    else:
        message = f"worker lost: {'its process ended with ' if shared else ''}{exit} before the task returned"
    return Error(type="WorkerDied", message=message)
