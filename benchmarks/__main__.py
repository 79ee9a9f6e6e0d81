"""Command line of the benchmarks: `python -m benchmarks [GROUP…] [--quick] [--no-install] [--json | --markdown] [--write]`."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import environments, jobs, measure, report, tables
from benchmarks.report import Group
from benchmarks.tables import Table

GROUPS = ("cold", "commands", "calls", "cpu", "graph", "yaml", "events", "memory", "makespan")
"""Those that are measured when none is named. Each is a module of this package with `contests(scratch, *, quick)`."""
ASKED = (*GROUPS, "safety")
SIMULATED = ("makespan",)
"""Groups that time no process: commands of their own, `python -m benchmarks.GROUP`, which print their table as Markdown."""
QUICK_SECONDS = 160.0
"""How long the quick form may take; each group may use its share of what is left for rounds beyond the first."""


def main() -> int:
    """0: every figure could be taken (a missed bar is a figure too); 1: jobrunner or a peer did not do its work."""
    chosen = _arguments()
    environments.configure(install=not chosen.no_install, quick=chosen.quick)
    measure.compile_all()
    show = _silent if chosen.json else tables.markdown if chosen.markdown else tables.plain
    groups, wrong = [], 0
    names = chosen.groups or GROUPS
    for at, name in enumerate(names):
        share = (QUICK_SECONDS - (time.monotonic() - STARTED)) / (len(names) - at)
        if name in SIMULATED:
            group, failed = _simulated(name, quick=chosen.quick, show=not chosen.json)
        else:
            group, failed = _group(name, budget=share if chosen.quick else None, show=show)
        groups.append(group)
        wrong |= failed
    _say("")
    if chosen.json:
        print(json.dumps([report.as_data(group) for group in groups], indent=1, ensure_ascii=False))
    else:
        print(_closing(groups))
    if chosen.write:
        path = report.write(groups, docs=measure.ROOT / "docs", order=ASKED)
        print(f"written: {path.relative_to(measure.ROOT)}", file=sys.stderr)
    return wrong


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="jobrunner, its peers and the floor, side by side.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(ASKED)}; all but safety if none is given")
    parser.add_argument("--quick", action="store_true", help="few items, rounds and peers, under three minutes: not to quote")
    parser.add_argument("--no-install", action="store_true", help="measure only the peers that are there already")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md, with plots")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="tables for the docs")
    form.add_argument("--json", action="store_true", help="every figure, as JSON")
    chosen = parser.parse_args()
    if unknown := set(chosen.groups) - set(ASKED):
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(ASKED)}")
    return chosen


def _group(name: str, *, budget: float | None, show: Any) -> tuple[Group, int]:
    """Measures a group, in the quick form with a budget. A contest in which jobrunner fails has no table; the others have."""
    module = importlib.import_module(f"benchmarks.{name}")
    contests: list[Table] = []
    wrong = 0
    for found in _measured(module, budget):
        if isinstance(found, measure.WorkNotDone):
            print(f"not measured: {found}\n", file=sys.stderr)
            wrong = 1
            continue
        for who, why in found.refused.items():
            print(f"refused: {who}: {why}\n", file=sys.stderr)
            wrong = 1
        contests.append(tables.table(found))
        print(show(contests[-1]), end="\n" if show is not _silent else "", flush=True)
    return _figures(name, (module.__doc__ or "").strip().partition("\n")[0], contests, quick=budget is not None), wrong


def _simulated(name: str, *, quick: bool, show: bool) -> tuple[Group, int]:
    """What the command of that group prints. Exit code 1 with a table is a bar that was missed."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--markdown", "--cache", str(environments.cache())]
    argv = [*command, "--quick"] if quick else command
    ended = subprocess.run(argv, stdout=subprocess.PIPE, text=True, env=measure.environment(), cwd=measure.ROOT)
    if show:
        print(ended.stdout)
    source = measure.ROOT / "benchmarks" / f"{name}.py"  # read, not imported: this process is to stay small
    caption = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) if source.exists() else None
    group = _figures(name, (caption or "").partition("\n")[0], [], quick=quick)
    group = replace(group, printed=ended.stdout, verdict="met" if not ended.returncode else "**missed**")
    return group, int(not ended.stdout)


def _figures(name: str, caption: str, contests: Sequence[Table], *, quick: bool) -> Group:
    return Group(
        name=name,
        caption=caption,
        day=datetime.now(UTC).date().isoformat(),
        form="quick" if quick else "whole",
        machine=tables.machine(),
        versions={"jobrunner": jobs.version()} | environments.versions(),
        missing=environments.missing(),
        contests=contests,
    )


def _measured(module: Any, budget: float | None) -> Iterator[measure.Outcome | measure.WorkNotDone]:
    """The outcome of every contest, or why it has none."""
    with tempfile.TemporaryDirectory(prefix="jobrunner-bench-") as name:
        scratch = Path(name)
        os.environ["JOBRUNNER_STATE"] = str(scratch / "state")
        contests = module.contests(scratch, quick=budget is not None)
        for contest in contests:
            if budget is not None:  # no time for warming up, but for proofs
                contest = replace(contest, budget=budget / len(contests), warm_up=False)
            try:
                yield measure.run(contest, scratch=scratch, say=_say)
            except measure.WorkNotDone as error:
                yield error


def _silent(_: Table) -> str:
    return ""


def _closing(groups: Sequence[Group]) -> str:
    """The machine, the versions and how many bars are met."""
    versions = dict(item for group in groups for item in group.versions.items())
    missing = dict(item for group in groups for item in group.missing.items())
    rows = [row.verdict for group in groups for contest in group.contests for row in contest.rows]
    verdicts = [each for each in (*rows, *(group.verdict for group in groups)) if each.startswith(("met", "**missed"))]
    lines = [tables.machine(), ", ".join(f"{name} {version}" for name, version in versions.items())]
    lines += [f"not here: {name}: {why}" for name, why in missing.items()]
    lines.append(
        f"{sum(each.startswith('met') for each in verdicts)} of {len(verdicts)} bars met, in {time.monotonic() - STARTED:.0f} s"
    )
    return "\n".join(lines)


def _say(text: str) -> None:
    """Progress, on a terminal only: one line that is written over."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


STARTED = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
