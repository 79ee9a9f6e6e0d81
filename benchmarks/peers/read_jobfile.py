"""Reads a job file as jobrunner does: load, check, validate. Prints how many tasks it has."""

from __future__ import annotations

import sys
from pathlib import Path

from jobrunner import jobfile

if __name__ == "__main__":
    print(len(jobfile.read(Path(sys.argv[1])).job.tasks))
