"""The job file: read with positions, validated, checked, explained. Every mistake at once, in file order.

What loads pydantic and YAML is loaded when it is asked for: a run of a compiled job needs neither.
"""

from __future__ import annotations

from jobrunner.jobfile.sources import LARGEST, Included, JobFile, name_of
from jobrunner.typed import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobrunner.jobfile.loader import load, parse, placed, read

__all__ = ["LARGEST", "Included", "JobFile", "load", "name_of", "parse", "placed", "read"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'jobrunner.jobfile' has no attribute {name!r}")
    from jobrunner.jobfile import loader

    return getattr(loader, name)
