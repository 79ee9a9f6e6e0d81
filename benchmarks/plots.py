"""The plots of the page: SVG, drawn here, for light and for dark backgrounds.

bars(table)     one bar a case, on a log scale, shortest first       lines(tables)   what grows with size, on two log scales
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.measure import Measure
from benchmarks.tables import COMPARED, Row, Table

WIDTH = 760
LEFT, RIGHT, TOP = 300, 70, 44
STEP = 24
PLOT_HEIGHT = 300
AXIS, LABELS, LABEL = 60, 240, 15
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
.ours.line { stroke-width: 3 }
.guide { stroke: #8c959f; stroke-width: 1; stroke-dasharray: 4 4 }
.figure { paint-order: stroke; stroke: #fff; stroke-width: 3px }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d } .guide { stroke: #656c76 } .figure { stroke: #0d1117 }
  .ours { fill: #4493f8; stroke: #4493f8 } .floor { fill: #656c76; stroke: #656c76 } .peer { fill: #d29922; stroke: #d29922 }
}
</style>"""
UNITS = {"wall": 1.0, "cpu": 1.0, "rss": 1.0, "item": 1e6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """From `low` to `high`, which lie at two places of the drawing: a log scale, or a linear one where `low` is 0."""

    low: float
    high: float
    start: float
    end: float

    def place(self, figure: float) -> float:
        along = math.log(figure / self.low) / math.log(self.high / self.low) if self.low else figure / self.high
        return self.start + (self.end - self.start) * along

    def marks(self) -> list[float]:
        """Fifths of a linear scale; 1, 2 and 5 of every power of ten, or the powers alone where that would be too many."""
        if not self.low:
            return [self.high * part / 5 for part in range(6)]
        steps = (1, 2, 5) if self.high / self.low <= 200 else (1,)
        return [mark for mark in _round(self.low, self.high, steps) if self.low * 0.999 <= mark <= self.high * 1.001]


def _round(low: float, high: float, steps: Sequence[int]) -> list[float]:
    """These steps of every power of ten, from one that is not above `low` to one that is not below `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in steps]


def bars(table: Table) -> str:
    """One bar a case."""
    rows = sorted(table.rows, key=lambda row: value(table, row, table.compares))
    scale = _length_scale([value(table, row, table.compares) for row in rows])
    height = TOP + STEP * len(rows) + 34
    drawn = [_bar(table, row, TOP + STEP * number, scale) for number, row in enumerate(rows)]
    return _svg(table.title, height, [*_columns(scale, TOP, height - 30, _unit(table.compares, scale)), *drawn])


def _length_scale(figures: Sequence[float]) -> Scale:
    """Linear, so that twice the time is twice the length, where the shortest can still be seen then."""
    low, high = _around(figures)
    return Scale(low=low if max(figures) > 30 * min(figures) else 0, high=high, start=LEFT, end=WIDTH - RIGHT)


def lines(family: str, tables: Sequence[Table], measure: Measure = "wall") -> str:
    """One line a case over the `x` of the contests of a family, where it took part in two of them or more.

    The dashed line is what grows in proportion to `x`: seconds do so from the point on where a start no longer counts.
    """
    series = {name: points for name, points in _series(tables, measure).items() if len(points) > 1}
    xs, ys = ([point[axis] for points in series.values() for point in points] for axis in (0, 1))
    low, high = _around(ys)
    across = Scale(low=min(xs), high=max(xs), start=AXIS, end=WIDTH - LABELS)
    down = Scale(low=low, high=high, start=TOP + PLOT_HEIGHT, end=TOP)
    kinds = {row.name: _kind(table, row) for table in tables for row in table.rows}
    marks = [*(_rule(down, mark) for mark in down.marks()), *(_tick(across, x) for x in sorted(set(xs)))]
    if measure == "wall":
        marks.append(_proportion(across, down, series[tables[0].rows[0].name][-1]))
    spots = {name: [(across.place(x), down.place(y)) for x, y in points] for name, points in series.items()}
    labels = _apart({name: track[-1][1] for name, track in spots.items() if track[-1][0] == across.end})
    ours_last = sorted(spots.items(), key=lambda each: kinds[each[0]] == "ours")
    marks += [_path(name, kinds[name], track, labels.get(name)) for name, track in ours_last]
    return _svg(f"{family}: {_unit(measure, down)}", TOP + PLOT_HEIGHT + 34, marks)


def value(table: Table, row: Row, measure: Measure) -> float:
    """What is drawn of a case; never 0, which has no place on a log scale."""
    figure = row.item if measure == "item" else getattr(row, measure)
    return max((figure or 0) * UNITS[measure], 1e-6)


def _kind(table: Table, row: Row) -> str:
    """Its colour."""
    return "ours" if row is table.rows[0] else "floor" if row.is_floor else "peer"


def _unit(measure: Measure, scale: Scale) -> str:
    unit = {"rss": "MiB", "item": "µs"}.get(measure, "s")
    return f"{COMPARED[measure]}, {unit}{', log scale' if scale.low else ''}: less is better"


def _around(figures: Iterable[float]) -> tuple[float, float]:
    """The nearest of 1, 2 and 5 of a power of ten below and above all figures, with some air."""
    found = list(figures)
    low, high = min(found) * 0.8, max(found) * 1.1
    steps = _round(low, high, (1, 2, 5))
    return max(step for step in steps if step <= low), min(step for step in steps if step >= high)


def _columns(scale: Scale, top: int, bottom: int, unit: str) -> list[str]:
    marks = []
    for mark in scale.marks():
        x = scale.place(mark)
        marks.append(f'<line class="grid" x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{bottom}"/>')
        marks.append(f'<text class="small" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{_number(mark)}</text>')
    return [*marks, f'<text class="small" x="{WIDTH - 8}" y="{bottom + 28}" text-anchor="end">{unit}</text>']


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
    return (
        f'<line class="grid" x1="{AXIS}" y1="{y:.1f}" x2="{WIDTH - LABELS}" y2="{y:.1f}"/>'
        f'<text class="small" x="{AXIS - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(mark)}</text>'
    )


def _tick(across: Scale, x: float) -> str:
    return f'<text class="small" x="{across.place(x):.1f}" y="{TOP + PLOT_HEIGHT + 18}" text-anchor="middle">{_number(x)}</text>'


def _proportion(across: Scale, down: Scale, last: tuple[float, float]) -> str:
    """A straight line through the last point, cut where it leaves the drawing."""
    x, y = last
    lowest = max(across.low, x * down.low / y)
    ends = [(across.place(each), down.place(y * each / x)) for each in (lowest, x)]
    (x1, y1), (x2, y2) = ends
    return f'<line class="guide" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _apart(heights: Mapping[str, float]) -> dict[str, float]:
    """Where labels go, so that none is over another: those that would be stand together around their middle."""
    names = sorted(heights, key=lambda name: heights[name])
    blocks: list[list[float]] = []  # where each would stand if all labels were one block: to be rising
    for at, name in enumerate(names):
        blocks.append([heights[name] - LABEL * at])
        while len(blocks) > 1 and statistics.fmean(blocks[-2]) > statistics.fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    places = [statistics.fmean(block) for block in blocks for _ in block]
    return {name: max(place, TOP) + LABEL * at for at, (name, place) in enumerate(zip(names, places, strict=True))}


def _path(name: str, kind: str, spots: Sequence[tuple[float, float]], label: float | None) -> str:
    """A line with its name: at its end beside the drawing, or over its end where it stops within."""
    track = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    dots = "".join(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in spots)
    x, y = spots[-1]
    if label is None:
        text = f'<text class="figure" x="{x:.1f}" y="{y - 9:.1f}" text-anchor="end">{escape(_short(name))}</text>'
    else:
        text = f'<line class="grid" x1="{x + 4:.1f}" y1="{y:.1f}" x2="{x + 22:.1f}" y2="{label:.1f}"/>'
        text += f'<text x="{x + 26:.1f}" y="{label + 4:.1f}">{escape(_short(name))}</text>'
    return f'<polyline class="{kind} line" style="fill:none" points="{track}"/>{dots}{text}'


def _short(name: str, longest: int = 44) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _number(figure: float) -> str:
    """Three digits, no power of ten."""
    if figure >= 100 or not figure:
        return f"{figure:,.0f}"
    text = f"{figure:.{max(0, 2 - math.floor(math.log10(figure)))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _svg(title: str, height: int, marks: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">'
    caption = f'<title>{escape(title)}</title>\n{STYLE}\n<text class="title" x="12" y="22">{escape(title)}</text>'
    return "\n".join([head, caption, *marks, "</svg>"]) + "\n"
