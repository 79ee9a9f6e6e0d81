"""The job file: read with positions, validated, checked, explained. Every mistake at once, in file order."""

from __future__ import annotations

from jobrunner.jobfile.loader import LARGEST, Included, JobFile, load, name_of, parse, placed, read

__all__ = ["LARGEST", "Included", "JobFile", "load", "name_of", "parse", "placed", "read"]
