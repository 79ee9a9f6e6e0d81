"""What the benchmarks found: figures that travel as JSON, and as a table for a terminal or for the docs.

Outcome (samples) ─→ Table of Rows (medians and spreads) ─→ plain() · markdown() · as_data() ⇄ from_data()
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Case, Goal, Measure, Outcome, Spread

BARS = {True: "met", False: "**missed**", None: ""}
STRETCHES = {True: "stretch met", False: "stretch missed", None: ""}
COMPARED = {"wall": "wall clock", "cpu": "CPU time", "rss": "peak memory", "item": "time an item"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case: medians in seconds and MiB, `start` and `item` in seconds; `ratio` is what jobrunner took over what this took."""

    name: str
    wall: float
    cpu: float
    rss: float
    start: float | None
    item: float | None
    ratio: Spread | None
    goal: Goal | None
    verdict: str
    is_floor: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One contest. `rows[0]` is ours; `refused` did not do the work, each with the reason."""

    group: str
    key: str
    title: str
    items: int
    rounds: int
    compares: Measure
    family: str
    x: float
    note: str
    rows: Sequence[Row]
    refused: Mapping[str, str]


def table(outcome: Outcome) -> Table:
    """The figures of an outcome."""
    contest = outcome.contest
    return Table(
        group=contest.group,
        key=contest.key,
        title=contest.title,
        items=contest.items,
        rounds=outcome.rounds(),
        compares=contest.compares,
        family=contest.family,
        x=contest.x,
        note=contest.note,
        rows=[_row(outcome, case) for case in outcome.cases()],
        refused={name: _reason(text) for name, text in outcome.refused.items()},
    )


def _row(outcome: Outcome, case: Case) -> Row:
    is_ours = case is outcome.contest.cases[0]
    return Row(
        name=case.name,
        wall=outcome.wall(case),
        cpu=statistics.median(sample.cpu for sample in outcome.samples[case.name]),
        rss=outcome.rss(case),
        start=outcome.start(case),
        item=outcome.per_item(case),
        ratio=None if is_ours else Spread.of(outcome.ratios(case)),
        goal=case.goal,
        verdict=verdict(outcome.is_met(case), outcome.is_stretched(case), is_close=outcome.is_close(case)),
        is_floor=case.is_floor,
    )


def verdict(is_met: bool | None, is_stretched: bool | None, *, is_close: bool = False) -> str:
    """In words; "" where there is no bar. `is_close`: some rounds alone would have given another."""
    return ", ".join(filter(None, [BARS[is_met] + (" (within the spread)" if is_close else ""), STRETCHES[is_stretched]]))


def _reason(text: str) -> str:
    """Without the command line that it opens with, and without what was printed: both name paths of this machine."""
    first = text.partition("\n")[0]
    return first.rpartition(": ")[2]


def as_data(each: Table) -> dict[str, Any]:
    """Plain data, for JSON."""
    return asdict(each)


NESTED = {"ratio": Spread, "goal": Goal}


def from_data(data: Mapping[str, Any]) -> Table:
    """The table that `as_data` gave. Raises TypeError for keys that no table has."""
    rows = [Row(**row | {name: kind(**row[name]) for name, kind in NESTED.items() if row[name]}) for row in data["rows"]]
    return Table(**{**data, "rows": rows})


def plain(each: Table) -> str:
    """Aligned, for a terminal."""
    rows = [HEAD, *(_cells(each, row) for row in each.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    refused = [f"refused: {name}: {reason}" for name, reason in each.refused.items()]
    return "\n".join([_title(each), *(_line(row, widths) for row in rows), *refused, ""]).replace("**missed**", "MISSED")


def markdown(each: Table) -> str:
    """For the docs: without the columns in which nothing stands."""
    rows = [HEAD, *(_cells(each, row) for row in each.rows)]
    columns = [column for column in range(len(HEAD)) if not column or any(row[column] for row in rows[1:])]
    figures = [at for at, column in enumerate(columns) if column in FIGURES]
    refused = [f"\nRefused, because its work was not done: {name} ({reason})." for name, reason in each.refused.items()]
    shown = [[row[column] for column in columns] for row in rows]
    return "\n".join([f"### {_title(each)}", "", *_lined(shown, figures), *refused, ""])


def growth(members: Sequence[Table]) -> str:
    """One table of the contests of a family, for the docs: each case at each size."""
    head = ("how many", "", "wall s", "CPU s", "peak MiB", "µs each", "jobrunner ÷ this")
    rows = [
        (
            f"{each.items:,}",
            row.name,
            f"{row.wall:.3f}",
            f"{row.cpu:.3f}",
            f"{row.rss:.0f}",
            f"{row.wall / each.items * 1e6:.1f}",
            "" if row.ratio is None else spread(row.ratio),
        )
        for each in sorted(members, key=lambda each: each.x)
        for row in each.rows
    ]
    rounds = sorted({each.rounds for each in members})
    counts = " or ".join(map(str, rounds))
    title = f"{members[0].family} (medians of {counts} rounds)"
    return "\n".join([f"### {title}", "", *_lined([head, *rows], (0, 2, 3, 4, 5, 6)), ""])


def _lined(rows: Sequence[Sequence[str]], figures: Sequence[int]) -> list[str]:
    """The lines of a table in Markdown: its head first; columns of figures are set to the right."""
    rule = ["---:" if column in figures else "---" for column in range(len(rows[0]))]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (rows[0], rule, *rows[1:])]


HEAD = ("", "wall s", "CPU s", "peak MiB", "one item, s", "µs an item", "jobrunner ÷ this", "bar", "")
FIGURES = range(1, 7)  # the columns that are set to the right


def _title(each: Table) -> str:
    rounds = f"medians of {each.rounds} rounds" if each.rounds > 1 else "one round"
    compared = "" if each.compares == "wall" else f", compared by {COMPARED[each.compares]}"
    return f"{each.title} ({rounds}{compared})"


def _cells(each: Table, row: Row) -> tuple[str, ...]:
    return (
        row.name,
        exact(row.wall, 3, [row.goal.seconds if row.goal and row is each.rows[0] else None]),
        f"{row.cpu:.3f}" if row.cpu else "",
        exact(row.rss, 0, [row.goal.mib if row.goal and row is each.rows[0] else None]) if row.rss else "",
        "" if row.start is None or each.items < 2 else f"{row.start:.3f}",
        "" if row.item is None or each.items < 2 else f"{row.item * 1e6:.1f}",
        "" if row.ratio is None else spread(row.ratio, row.goal),
        str(row.goal or ""),
        row.verdict,
    )


def exact(figure: float, digits: int, limits: Sequence[float | None]) -> str:
    """With so many digits, and more where it would look as if it were on the limit, or beyond, and is not."""
    for more in range(digits, digits + 5):
        text = f"{figure:.{more}f}"
        if all((float(text) <= limit) == (figure <= limit) for limit in limits if limit is not None):
            break
    return text


def spread(ratio: Spread, goal: Goal | None = None) -> str:
    """`median [quartiles] (extremes)`."""
    quartiles = f"[{ratio.lower_quartile:.2f}, {ratio.upper_quartile:.2f}]"
    median = exact(ratio.median, 2, [goal.ratio, goal.stretch] if goal else [])
    return f"{median} {quartiles} ({ratio.low:.2f} to {ratio.high:.2f})"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if column in FIGURES else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def machine() -> str:
    """What was measured on, in one line: no name, no path."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, {platform.system()} {platform.release().partition('-')[0]}, {_cpu()}, {_memory():.0f} GiB of memory"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} CPUs" + (
        f" ({models[0]})" if models else ""
    )


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
