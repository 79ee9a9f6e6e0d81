"""The plots of the page: SVG, drawn here, for light and for dark backgrounds.

bars(table)     one bar a case, shortest first       lines(tables)     time above memory, over how many there are
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.measure import Measure
from benchmarks.tables import COMPARED, Row, Table

WIDTH = 760
LEFT, RIGHT, TOP = 320, 70, 44
STEP = 24
PLOT_HEIGHT, BETWEEN = 220, 72
AXIS, LABELS, LABEL = 60, 240, 15
TITLE_LENGTH, TITLE_HEIGHT = 80, 18
STYLE = """\
<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 14px }
.small { font-size: 11px; fill: #57606a }
.grid { stroke: #d0d7de; stroke-width: 1 }
.ours { fill: #0969da; stroke: #0969da }
.floor { fill: #8c959f; stroke: #8c959f }
.peer { fill: #bf8700; stroke: #bf8700 }
.line { fill: none; stroke-width: 1.5 }
.ours.line { stroke-width: 4 }
.guide { stroke: #24292f; stroke-width: 1; stroke-dasharray: 5 4 }
.figure { paint-order: stroke; stroke: #fff; stroke-width: 3px }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d } .guide { stroke: #f0f6fc } .figure { stroke: #0d1117 }
  .ours { fill: #4493f8; stroke: #4493f8 } .floor { fill: #656c76; stroke: #656c76 } .peer { fill: #d29922; stroke: #d29922 }
}
</style>"""
UNITS = {"wall": 1.0, "cpu": 1.0, "rss": 1.0, "item": 1e6}
KINDS = {"ours": "jobrunner", "peer": "peers", "floor": "limit: the least that does it"}
"""What colours mean."""
GUIDE = "dashed: straight from jobrunner's first point to its last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """From `low` to `high`, which lie at two places of the drawing: a log scale, or a linear one where `low` is 0."""

    low: float
    high: float
    start: float
    end: float
    marks: Sequence[float]

    def place(self, figure: float) -> float:
        along = math.log(figure / self.low) / math.log(self.high / self.low) if self.low else figure / self.high
        return self.start + (self.end - self.start) * along


def _linear(most: float, start: float, end: float, *, is_exact: bool = False) -> Scale:
    """Up to the first mark above `most`, or to `most` itself: marks are 1, 2 or 5 of a power of ten apart, at most seven."""
    step = next(step for step in _round(most / 10, most, (1, 2, 5)) if most / step <= 6)
    marks = [step * number for number in range(math.floor(most / step) + 1 + (not is_exact))]
    return Scale(low=0, high=most if is_exact else marks[-1], start=start, end=end, marks=marks)


def _logarithmic(figures: Sequence[float], start: float, end: float) -> Scale:
    """Marks are 1, 2 and 5 of every power of ten, or the powers alone where that would be too many."""
    steps = _round(min(figures) * 0.8, max(figures) * 1.1, (1, 2, 5))
    low = max(step for step in steps if step <= min(figures) * 0.8)
    high = min(step for step in steps if step >= max(figures) * 1.1)
    marks = [step for step in _round(low, high, (1, 2, 5) if high / low <= 1000 else (1,)) if low * 0.999 <= step <= high * 1.001]
    return Scale(low=low, high=high, start=start, end=end, marks=marks)


def _round(low: float, high: float, steps: Sequence[int]) -> list[float]:
    """These steps of every power of ten, from one that is not above `low` to one that is not below `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in steps]


def bars(table: Table) -> str:
    """One bar a case."""
    rows = sorted(table.rows, key=lambda row: value(table, row, table.compares))
    scale = _length_scale([value(table, row, table.compares) for row in rows])
    bottom = STEP * len(rows) + 4
    drawn = [_bar(table, row, STEP * number, scale) for number, row in enumerate(rows)]
    marks = [*_columns(scale, bottom, _unit(table.compares, scale)), *drawn]
    return _svg(table.title, bottom + 30, marks, [_kind(table, row) for row in rows])


def _length_scale(figures: Sequence[float]) -> Scale:
    """Linear, so that twice the time is twice the length, where the shortest can still be seen then."""
    if max(figures) > 30 * min(figures):
        return _logarithmic(figures, LEFT, WIDTH - RIGHT)
    return _linear(max(figures), LEFT, WIDTH - RIGHT)


def lines(family: str, tables: Sequence[Table]) -> str:
    """One line a case over the `x` of the contests of a family, where it took part in two of them or more.

    All scales are linear, and the dashed line is straight: what grows in proportion, a start apart, lies on it.
    """
    measures: Sequence[Measure] = ("wall", "rss")
    marks = [
        mark for at, measure in enumerate(measures) for mark in _panel(family, tables, measure, at * (PLOT_HEIGHT + BETWEEN))
    ]
    kinds = [_kind(table, row) for table in tables for row in table.rows]
    height = len(measures) * (PLOT_HEIGHT + BETWEEN) - BETWEEN + 48
    return _svg(title(family), height, marks, kinds, GUIDE)


def title(family: str) -> str:
    return f"{family}: time and memory as there are more of them"


def _panel(family: str, tables: Sequence[Table], measure: Measure, top: float) -> list[str]:
    """One measure: its axes with their captions, the lines and their names."""
    series = {name: points for name, points in _series(tables, measure).items() if len(points) > 1}
    top, bottom = top + 14, top + 14 + PLOT_HEIGHT
    across = _linear(max(table.x for table in tables), AXIS, WIDTH - LABELS, is_exact=True)
    down = _linear(max(y for points in series.values() for _, y in points), bottom, top)
    marks = [
        _caption(AXIS, top - 12, _unit(measure, down), "start"),
        _caption(across.end, bottom + 32, f"number of {family}", "end"),
    ]
    marks += [*(_rule(down, mark) for mark in down.marks), *(_tick(across, mark, bottom) for mark in across.marks)]
    kinds = {row.name: _kind(table, row) for table in tables for row in table.rows}
    spots = {name: [(across.place(x), down.place(y)) for x, y in points] for name, points in series.items()}
    labels = _apart({name: track[-1][1] for name, track in spots.items() if track[-1][0] == across.end}, top, bottom)
    ours_last = sorted(spots.items(), key=lambda each: kinds[each[0]] == "ours")
    marks += [_path(name, kinds[name], track, labels.get(name)) for name, track in ours_last]
    return [*marks, *(_straight(track) for name, track in ours_last if name == tables[0].rows[0].name)]


def value(table: Table, row: Row, measure: Measure) -> float:
    """What is drawn of a case; never 0, which has no place on a log scale."""
    figure = row.item if measure == "item" else getattr(row, measure)
    return max((figure or 0) * UNITS[measure], 1e-6)


def _kind(table: Table, row: Row) -> str:
    """Its colour."""
    return "ours" if row is table.rows[0] or row.name.startswith("jobrunner") else "floor" if row.is_floor else "peer"


def _unit(measure: Measure, scale: Scale) -> str:
    unit = {"rss": "MiB", "item": "µs"}.get(measure, "s")
    return f"{COMPARED[measure]}, {unit}{', log scale' if scale.low else ''}: less is better"


def _columns(scale: Scale, bottom: int, unit: str) -> list[str]:
    marks = []
    for mark in scale.marks:
        x = scale.place(mark)
        marks.append(f'<line class="grid" x1="{x:.1f}" y1="-6" x2="{x:.1f}" y2="{bottom}"/>')
        marks.append(_caption(x, bottom + 14, _number(mark), "middle"))
    return [*marks, _caption(scale.end, bottom + 30, unit, "end")]


def _caption(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="small" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _bar(table: Table, row: Row, y: int, scale: Scale) -> str:
    figure = value(table, row, table.compares)
    length = scale.place(figure) - LEFT
    return (
        f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(_short(row.name))}</text>'
        f'<rect class="{_kind(table, row)}" x="{LEFT}" y="{y}" width="{max(length, 1):.1f}" height="{STEP - 7}" rx="2"/>'
        f'<text class="figure" x="{LEFT + length + 6:.1f}" y="{y + 13}">{_number(figure)}</text>'
    )


def _series(tables: Sequence[Table], measure: Measure) -> Mapping[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for table in sorted(tables, key=lambda each: each.x):
        for row in table.rows:
            series.setdefault(row.name, []).append((table.x, value(table, row, measure)))
    return series


def _rule(down: Scale, mark: float) -> str:
    y = down.place(mark)
    rule = f'<line class="grid" x1="{AXIS}" y1="{y:.1f}" x2="{WIDTH - LABELS}" y2="{y:.1f}"/>'
    return rule + _caption(AXIS - 6, y + 4, _number(mark), "end")


def _tick(across: Scale, mark: float, bottom: float) -> str:
    x = across.place(mark)
    tick = f'<line class="grid" x1="{x:.1f}" y1="{bottom:.1f}" x2="{x:.1f}" y2="{bottom + 5:.1f}"/>'
    return tick + _caption(x, bottom + 17, _number(mark), "middle")


def _straight(track: Sequence[tuple[float, float]]) -> str:
    (x1, y1), (x2, y2) = track[0], track[-1]
    return f'<line class="guide" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _apart(heights: Mapping[str, float], top: float, bottom: float) -> dict[str, float]:
    """Where labels go, so that none is over another or outside: those that would be stand together around their middle."""
    names = sorted(heights, key=lambda name: heights[name])
    blocks: list[list[float]] = []  # where each would stand if all labels were one block: to be rising
    for at, name in enumerate(names):
        blocks.append([heights[name] - LABEL * at])
        while len(blocks) > 1 and statistics.fmean(blocks[-2]) > statistics.fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    places = [statistics.fmean(block) for block in blocks for _ in block]
    lowest = max(top, bottom - LABEL * (len(names) - 1))
    return {name: min(max(place, top), lowest) + LABEL * at for at, (name, place) in enumerate(zip(names, places, strict=True))}


def _path(name: str, kind: str, spots: Sequence[tuple[float, float]], label: float | None) -> str:
    """A line with its name: at its end beside the drawing, or right of its end where it stops within."""
    track = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    dots = "".join(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in spots)
    x, y = spots[-1]
    if label is None:
        text = f'<text class="figure" x="{x + 8:.1f}" y="{y + 4:.1f}">{escape(_short(name))}</text>'
    else:
        text = f'<line class="grid" x1="{x + 4:.1f}" y1="{y:.1f}" x2="{x + 22:.1f}" y2="{label:.1f}"/>'
        text += f'<text x="{x + 26:.1f}" y="{label + 4:.1f}">{escape(_short(name))}</text>'
    return f'<polyline class="{kind} line" style="fill:none" points="{track}"/>{dots}{text}'


def _short(name: str, longest: int = 46) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _number(figure: float) -> str:
    """Three digits, no power of ten."""
    if figure >= 100 or not figure:
        return f"{figure:,.0f}"
    text = f"{figure:.{max(0, 2 - math.floor(math.log10(figure)))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _legend(y: float, kinds: Sequence[str], more: str) -> str:
    """What each colour that occurs means."""
    x, marks = 12.0, []
    for kind in (kind for kind in KINDS if kind in kinds):
        marks.append(f'<rect class="{kind}" x="{x:.1f}" y="{y - 9:.1f}" width="10" height="10" rx="2"/>')
        marks.append(_caption(x + 16, y, KINDS[kind], "start"))
        x += 36 + 6 * len(KINDS[kind])
    return "".join([*marks, _caption(x, y, more, "start")])


def _svg(title: str, height: int, marks: Sequence[str], kinds: Sequence[str], more: str = "") -> str:
    """A drawing of that height, whose marks begin at 0, under its title and over its legend."""
    parts = textwrap.wrap(title, TITLE_LENGTH)
    top = TOP + TITLE_HEIGHT * (len(parts) - 1)
    whole = top + height + 26
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {whole}" width="{WIDTH}" role="img">'
    heading = [f'<text class="title" x="12" y="{22 + TITLE_HEIGHT * at}">{escape(part)}</text>' for at, part in enumerate(parts)]
    body = [f'<g transform="translate(0 {top})">', *marks, "</g>", _legend(whole - 10, kinds, more)]
    return "\n".join([head, f"<title>{escape(title)}</title>", STYLE, *heading, *body, "</svg>"]) + "\n"
