"""jobrunner: one YAML file says what runs, in which parallelism mode, with how many workers.

>>> import jobrunner
>>> result = jobrunner.run("jobs/nightly.yaml", params={"out": "/tmp/out"})
>>> result.exit_code
0

Nothing is imported before it is used: a worker process pays only for the two modules it needs.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["RunResult", "TaskResult", "__version__", "load", "run"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jobrunner.api import RunResult, TaskResult, load, run


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jobrunner' has no attribute {name!r}")
    from jobrunner import api

    return getattr(api, name)
