"""What the benchmarks found, as a plain table, as Markdown for the docs, or as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks.measure import Case, Outcome

HEAD = ("", "wall s", "CPU s", "peak MiB", "µs an item", "jobrunner ÷ this (min–max)", "goal", "")
FIGURES = range(1, 5)  # the columns that are set to the right
VERDICTS = {True: "met", False: "MISSED", None: ""}


def machine() -> str:
    """What was measured on, in one line."""
    return f"{platform.python_implementation()} {platform.python_version()}, {platform.system()}, {os.cpu_count()} CPUs"


def plain(outcome: Outcome) -> str:
    """An aligned table for a terminal."""
    rows = [HEAD, *_rows(outcome)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join([_title(outcome), *(_line(row, widths) for row in rows), ""])


def markdown(outcome: Outcome) -> str:
    """A table for the docs."""
    rule = ["---"] + ["---:"] * 5 + ["---"] * 2
    lines = ["| " + " | ".join(row) + " |" for row in [HEAD, rule, *_rows(outcome)]]
    return "\n".join([f"### {_title(outcome)}", "", *lines, ""])


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Every sample and figure, one object."""
    return json.dumps({"machine": machine(), "contests": [_contest(outcome) for outcome in outcomes]}, indent=2)


def _title(outcome: Outcome) -> str:
    return f"{outcome.contest.title} (medians of {outcome.contest.rounds} rounds)"


def _rows(outcome: Outcome) -> list[tuple[str, ...]]:
    return [_row(outcome, case) for case in outcome.contest.cases]


def _row(outcome: Outcome, case: Case) -> tuple[str, ...]:
    samples = outcome.samples[case.name]
    return (
        case.name,
        f"{outcome.wall(case):.3f}",
        f"{statistics.median(sample.cpu for sample in samples):.3f}",
        f"{statistics.median(sample.rss for sample in samples):.0f}",
        "" if (cost := outcome.per_item(case)) is None else f"{cost * 1e6:.1f}",
        "" if case is outcome.contest.cases[0] else _ratio(outcome.ratios(case)),
        str(case.goal or ""),
        VERDICTS[outcome.is_met(case)],
    )


def _ratio(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if column in FIGURES else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _contest(outcome: Outcome) -> dict[str, object]:
    return {
        "group": outcome.contest.group,
        "title": outcome.contest.title,
        "items": outcome.contest.items,
        "cases": [_case(outcome, case) for case in outcome.contest.cases],
    }


def _case(outcome: Outcome, case: Case) -> dict[str, object]:
    return {
        "name": case.name,
        "samples": [asdict(sample) for sample in outcome.samples[case.name]],
        "samples_of_one_item": [asdict(sample) for sample in outcome.singles.get(case.name, [])],
        "seconds_per_item": outcome.per_item(case),
        "ratios": outcome.ratios(case),
        "goal": asdict(case.goal) if case.goal else None,
        "is_met": outcome.is_met(case),
    }
