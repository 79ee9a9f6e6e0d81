"""Cold start: one job with one command, against the least that a script with the same libraries does."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import jobs
from benchmarks.measure import Case, Contest, Goal

JOB = """\
name: cold
tasks:
  only: {argv: ["true"]}
"""


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """One job, one `true`."""
    job = jobs.write_job(scratch, "cold", JOB)
    cases = [
        Case(name="jobrunner", argv=jobs.command(job), check=jobs.logged(job, 1)),
        Case(
            name="script: YAML, pydantic, structlog, one spawn",
            argv=jobs.python("cold_script.py", job, scratch / "script.log"),
            check=jobs.printed("0"),
            goal=Goal(ratio=1.1),
        ),
        Case(name="python -c pass", argv=[sys.executable, "-c", "pass"], check=jobs.printed("")),
    ]
    return [Contest(group="cold", title="cold start, one command", items=1, cases=cases, rounds=3 if quick else 21)]
