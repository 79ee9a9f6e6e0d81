"""Many calls of a Python function that does nothing, in each mode, against the bare primitive of that mode."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks import jobs
from benchmarks.measure import Case, Contest, Goal

JOB = """\
name: {mode}-{items}
pools:
  two: {{mode: {mode}, workers: 2}}
tasks:
  each:
    foreach: {{range: {items}}}
    target: work_items:nothing
    args: ["${{{{ item }}}}"]
    pool: two
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A mode, the bare primitive that it is measured against, how many calls, and the goal."""

    mode: str
    primitive: str
    items: int
    goal: Goal


RIVALS = (
    Rival(mode="thread_pool", primitive="ThreadPoolExecutor.submit", items=20_000, goal=Goal(ratio=1.5)),
    Rival(mode="process_pool", primitive="ProcessPoolExecutor.submit", items=20_000, goal=Goal(ratio=0.5)),
    Rival(mode="thread", primitive="a Thread per call", items=20_000, goal=Goal(ratio=1.3)),
    Rival(mode="process", primitive="a forked Process per call", items=1_000, goal=Goal(ratio=1.3)),
)


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """No-op calls by two workers, one contest a mode."""
    return [_contest(scratch, rival, rival.items // 10 if quick else rival.items, 3 if quick else 7) for rival in RIVALS]


def _contest(scratch: Path, rival: Rival, items: int, rounds: int) -> Contest:
    many, one = (jobs.write_job(scratch, f"{rival.mode}-{n}", JOB.format(mode=rival.mode, items=n)) for n in (items, 1))
    ours = Case(name="jobrunner", argv=jobs.command(many), check=jobs.logged(many, items), single=jobs.command(one))
    bare = Case(
        name=rival.primitive,
        argv=jobs.python("calls.py", rival.mode, items),
        check=jobs.printed(str(items)),
        goal=rival.goal,
        single=jobs.python("calls.py", rival.mode, 1),
    )
    title = f"{rival.mode}: {items:,} calls of nothing, 2 workers"
    return Contest(group="calls", title=title, items=items, cases=[ours, bare], rounds=rounds)
