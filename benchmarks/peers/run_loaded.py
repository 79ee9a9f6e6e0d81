"""Runs a job as `jobrunner run -q` does, log in a file beside it, and prints the seconds from the loaded job to the run's end."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

from jobrunner import api
from jobrunner.cli.running import shown


def main(job: Path) -> int:
    gc.disable()  # as the command does until the run begins
    prepared = api.prepare(job, api.Options())
    started = time.perf_counter()
    code = shown(prepared, quiet=True, log_format="json", log_level="info", log_file=str(job.with_suffix(".log")))
    print(json.dumps({"wall": time.perf_counter() - started}))
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
