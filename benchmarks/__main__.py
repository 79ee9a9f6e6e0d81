"""Command line of the benchmarks: `python -m benchmarks [GROUP…] [--quick] [--markdown | --json]`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import calls, cold, commands, measure, reading, safety, tables

GROUPS = {
    "cold": cold.contests,
    "commands": commands.contests,
    "calls": calls.contests,
    "reading": reading.contests,
    "safety": safety.contests,
}


def main() -> int:
    """0: every figure could be taken (a missed goal is a figure too); 1: some work was not done."""
    chosen = _arguments()
    measure.compile_all()
    outcomes, wrong = [], 0
    for found in _measured(chosen.groups or list(GROUPS), quick=chosen.quick):
        if isinstance(found, measure.WorkNotDone):
            print(f"not measured: {found}\n", file=sys.stderr)
            wrong = 1
        else:
            outcomes.append(found)
            if not chosen.json:
                print(tables.markdown(found) if chosen.markdown else tables.plain(found), flush=True)
    print(tables.as_json(outcomes) if chosen.json else tables.machine())
    return wrong


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="jobrunner against the bare primitives.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all if none is given")
    parser.add_argument("--quick", action="store_true", help="few items and rounds: to see that it works, not to quote")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="tables for the docs")
    form.add_argument("--json", action="store_true", help="every sample, as JSON")
    chosen = parser.parse_args()
    if unknown := set(chosen.groups) - set(GROUPS):
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    return chosen


def _measured(groups: Sequence[str], *, quick: bool) -> Iterator[measure.Outcome | measure.WorkNotDone]:
    """The outcome of every contest, or why it has none: one that cannot be measured leaves the others alone."""
    for group in groups:
        with tempfile.TemporaryDirectory(prefix="jobrunner-bench-") as name:
            scratch = Path(name)
            os.environ["JOBRUNNER_STATE"] = str(scratch / "state")
            for contest in GROUPS[group](scratch, quick=quick):
                try:
                    yield measure.run(contest, scratch=scratch, say=_say)
                except measure.WorkNotDone as error:
                    yield error
    _say("")


def _say(text: str) -> None:
    """Progress, on a terminal only: one line that is written over."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
