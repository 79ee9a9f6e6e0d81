"""Reading a very large job file: load, check and validate, against the C YAML loader that only loads."""

from __future__ import annotations

from pathlib import Path

from benchmarks import jobs
from benchmarks.measure import Case, Contest, Goal

TASK = """\
  task_{n:06d}:
    needs: [task_{before:06d}]
    argv: [process-one, --input, "/data/in/{n:06d}.csv"]
"""


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """100,000 tasks, each needing the one before it: 11 MB of YAML."""
    tasks = 2_000 if quick else 100_000
    job = write_tasks(scratch / "reading.yaml", tasks)
    cases = [
        Case(name="jobrunner: load, check, validate", argv=jobs.python("read_jobfile.py", job), check=jobs.printed(str(tasks))),
        Case(
            name="yaml.CSafeLoader: load only",
            argv=jobs.python("read_yaml.py", job),
            check=jobs.printed(str(tasks)),
            goal=Goal(ratio=1, seconds=4),
        ),
    ]
    title = f"reading {tasks:,} tasks, {job.stat().st_size / 1e6:.1f} MB"
    return [Contest(group="reading", title=title, items=tasks, cases=cases, rounds=3 if quick else 5, warm_up=False)]


def write_tasks(path: Path, tasks: int) -> Path:
    """A chain of `tasks` tasks. Written line by line: this process is to stay small."""
    with path.open("w", encoding="utf-8") as file:
        file.write('name: reading\ntasks:\n  task_000000:\n    argv: ["true"]\n')
        file.writelines(TASK.format(n=n, before=n - 1) for n in range(1, tasks))
    return path
