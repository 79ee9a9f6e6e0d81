"""Command line of the benchmarks: `python -m benchmarks [GROUP…] [--quick] [--rounds N] [--json | --markdown] [--write]`."""

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import bars, environments, jobs, measure, process, report, tables
from benchmarks.report import Group
from benchmarks.tables import Table

GROUPS = ("cold", "commands", "calls", "cpu", "graph", "yaml", "events", "memory", "makespan")
"""Those that are measured when none is named. Each is a module of this package with `contests(scratch, *, quick)`."""
ASKED = (*GROUPS, "safety")
SIMULATED = ("makespan",)
"""Groups that time no process: commands of their own, `python -m benchmarks.GROUP`, which print their table as Markdown."""
QUICK_SECONDS = 120.0
"""How long the quick form may take; each group may use its share of what is left for rounds beyond the least."""
CONTEST_SECONDS = 20.0
"""The same for a contest of the whole form."""


def main() -> int:
    """0: every figure could be taken (a missed bar is a figure too); 1: jobrunner or a peer did not do its work."""
    chosen = _arguments()
    bars.notes()  # a mistake in them is told before anything is measured
    if chosen.rewrite:
        return _written([])
    with process.interruptible(), process.nothing_left():
        groups, wrong = _groups(chosen)
    _say("")
    if chosen.json:
        print(json.dumps([report.as_data(group) for group in groups], indent=1, ensure_ascii=False))
    else:
        print(_closing(groups))
    return wrong


def _written(groups: Sequence[Group]) -> int:
    """Writes the page, with the newest figures of each group: these, and those that were kept."""
    path = report.write(groups, docs=process.ROOT / "docs", order=ASKED)
    print(f"written: {path.relative_to(process.ROOT)}", file=sys.stderr)
    return 0


def _groups(chosen: argparse.Namespace) -> tuple[list[Group], int]:
    """The groups that were asked for, each within its share of what is left of the time; 1 where anybody did not do its work."""
    environments.configure(install=not chosen.no_install, quick=chosen.quick)
    process.compile_all()
    show = _silent if chosen.json else tables.markdown if chosen.markdown else tables.plain
    groups, wrong = [], 0
    names = chosen.groups or GROUPS
    for at, name in enumerate(names):
        share = (QUICK_SECONDS - (time.monotonic() - STARTED)) / (len(names) - at)
        form = Form(rounds=chosen.rounds, share=share if chosen.quick else None)
        started = time.monotonic()
        group, failed = _simulated(name, form, show=show) if name in SIMULATED else _group(name, form, show=show)
        groups.append(replace(group, seconds=time.monotonic() - started))
        wrong |= failed
        if chosen.write:  # group by group: an interrupt loses the one that is being measured
            _written(groups[-1:])
    return groups, wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The quick form has a share of its seconds for each group. `rounds` are the most there may be, if any number was named."""

    rounds: int | None
    share: float | None

    @property
    def is_quick(self) -> bool:
        return self.share is not None

    def applied(self, contests: Sequence[measure.Contest]) -> Iterator[measure.Contest]:
        """As they are to be measured: with their bars and a budget; in the quick form without warming up, but for proofs."""
        budget = CONTEST_SECONDS if self.share is None else self.share / len(contests)
        for contest in map(bars.with_goals, contests):
            rounds = contest.rounds if self.rounds is None else min(self.rounds, contest.rounds)
            warm_up = contest.warm_up and not self.is_quick and self.rounds != 1
            yield replace(contest, rounds=rounds, warm_up=warm_up, budget=budget)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="jobrunner, its peers and the floor, side by side.")
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"what is measured: {', '.join(ASKED)}; all but safety if none is given"
    )
    parser.add_argument("--quick", action="store_true", help="few items, rounds and peers, under three minutes: not to quote")
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="no more than so many: one shows that all is done, no spread",
    )
    parser.add_argument(
        "--no-install",
        action="store_true",
        help="measure only the peers that are there already; else they are installed by pip, apt and npm",
    )
    parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md, with plots")
    parser.add_argument("--rewrite", action="store_true", help="measure nothing: the page again, from the figures that were kept")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="tables for the docs")
    form.add_argument("--json", action="store_true", help="every figure, as JSON")
    chosen = parser.parse_args()
    if unknown := set(chosen.groups) - set(ASKED):
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(ASKED)}")
    if chosen.rounds is not None and chosen.rounds < 1:
        parser.error("--rounds: at least 1")
    return chosen


def _group(name: str, form: Form, *, show: Show) -> tuple[Group, int]:
    """Measures a group. A contest in which jobrunner fails has no table; the others have."""
    module = importlib.import_module(f"benchmarks.{name}")
    contests: list[Table] = []
    wrong = 0
    for found in _measured(module, form):
        if isinstance(found, process.WorkNotDone):
            print(f"not measured: {found}\n", file=sys.stderr)
            wrong = 1
            continue
        for who, why in found.refused.items():
            print(f"refused: {who}: {why}\n", file=sys.stderr)
            wrong = 1
        contests.append(tables.table(found))
        _print(show(contests[-1]))
    return _figures(name, module.__doc__ or "", contests, form), wrong


def _simulated(name: str, form: Form, *, show: Show) -> tuple[Group, int]:
    """What the command of that group prints, which is a table and the figures that bars are set against."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--page", "--cache", str(environments.cache())]
    argv = [*command, "--quick"] if form.is_quick else command
    ended = subprocess.run(argv, stdout=subprocess.PIPE, text=True, env=process.environment(), cwd=process.ROOT)
    told = json.loads(ended.stdout) if ended.stdout else {}
    if show is not _silent:
        _print(told.get("printed", ""))
    source = process.ROOT / "benchmarks" / f"{name}.py"  # read, not imported: this process is to stay small
    group = _figures(name, ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "", [], form)
    return replace(group, **told), int(not told)


def _figures(name: str, caption: str, contests: Sequence[Table], form: Form) -> Group:
    return Group(
        name=name,
        caption=caption.strip().partition("\n")[0],
        day=datetime.now(UTC).date().isoformat(),
        form="quick" if form.is_quick else "whole",
        machine=tables.machine(),
        versions={"jobrunner": jobs.version()} | environments.versions(),
        missing=environments.missing(),
        contests=contests,
        seconds=0.0,
    )


def _measured(module: Any, form: Form) -> Iterator[measure.Outcome | process.WorkNotDone]:
    """The outcome of every contest, or why it has none."""
    with tempfile.TemporaryDirectory(prefix="jobrunner-bench-") as name:
        scratch = Path(name)
        os.environ["JOBRUNNER_STATE"] = str(scratch / "state")
        for contest in form.applied(module.contests(scratch, quick=form.is_quick)):
            try:
                yield measure.run(contest, scratch=scratch, say=_say)
            except process.WorkNotDone as error:
                yield error


def _print(text: str) -> None:
    if text:
        print(text, flush=True)


def _silent(_: Table) -> str:
    return ""


def _closing(groups: Sequence[Group]) -> str:
    """The machine, the versions and how many bars are met."""
    versions = dict(item for group in groups for item in group.versions.items())
    missing = dict(item for group in groups for item in group.missing.items())
    verdicts = [verdict for verdict in report.verdicts(groups) if verdict.startswith(("met", "**missed"))]
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


Show = Callable[[Table], str]
STARTED = time.monotonic()

if __name__ == "__main__":
    sys.exit(main())
