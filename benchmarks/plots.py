"""The plots of the page: SVG, drawn here, for light and for dark backgrounds.

bars(table)     one bar a case, on a log scale, shortest first       lines(tables)   what grows with size, on two log scales
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from benchmarks.tables import COMPARED, Row, Table

WIDTH = 760
LEFT, RIGHT, TOP = 270, 90, 44
STEP = 24
PLOT_HEIGHT = 300
STYLE = """\
<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 14px }
.small { font-size: 11px; fill: #57606a }
.grid { stroke: #d0d7de; stroke-width: 1 }
.ours { fill: #0969da; stroke: #0969da }
.floor { fill: #8c959f; stroke: #8c959f }
.peer { fill: #bf8700; stroke: #bf8700 }
.line { fill: none; stroke-width: 2 }
.label { stroke: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .grid { stroke: #3d444d }
  .ours { fill: #4493f8; stroke: #4493f8 } .floor { fill: #656c76; stroke: #656c76 } .peer { fill: #d29922; stroke: #d29922 }
}
</style>"""
UNITS = {"wall": 1.0, "cpu": 1.0, "rss": 1.0, "item": 1e6}


def bars(table: Table) -> str:
    """One bar a case."""
    rows = sorted(table.rows, key=lambda row: value(table, row))
    low, high = _decades([value(table, row) for row in rows])
    height = TOP + STEP * len(rows) + 34
    drawn = [_bar(table, row, TOP + STEP * number, low, high) for number, row in enumerate(rows)]
    return _svg(table.title, height, [*_columns(low, high, TOP, height - 30, _unit(table)), *drawn])


def lines(family: str, tables: Sequence[Table]) -> str:
    """One line a case over the `x` of the contests of a family, where it took part in two of them or more."""
    series = {name: points for name, points in _series(tables).items() if len(points) > 1}
    xs, ys = ([point[axis] for points in series.values() for point in points] for axis in (0, 1))
    across, (low, high) = (min(xs), max(xs)), _decades(ys)
    bottom = TOP + PLOT_HEIGHT
    kinds = {row.name: _kind(table, row) for table in tables for row in table.rows}
    marks = [_rule(low, high, decade, bottom) for decade in range(low, high + 1)]
    marks += [_tick(x, across, bottom) for x in sorted(set(xs))]
    labels = _apart({name: _down(points[-1][1], low, high, bottom) for name, points in series.items()})
    for name, points in series.items():
        spots = [(_along(x, across), _down(y, low, high, bottom)) for x, y in points]
        marks.append(_path(name, kinds[name], spots, labels[name]))
    return _svg(f"{family}: {_unit(tables[0])}", bottom + 34, marks)


def value(table: Table, row: Row) -> float:
    """What a bar shows, in the unit of the axis; never 0, which has no place on a log scale."""
    figure = row.item if table.compares == "item" else getattr(row, table.compares)
    return max((figure or 0) * UNITS[table.compares], 1e-6)


def _kind(table: Table, row: Row) -> str:
    """Its colour."""
    return "ours" if row is table.rows[0] else "floor" if row.is_floor else "peer"


def _unit(table: Table) -> str:
    unit = {"rss": "MiB", "item": "µs"}.get(table.compares, "s")
    return f"{COMPARED[table.compares]}, {unit}, log scale: less is better"


def _decades(figures: Iterable[float]) -> tuple[int, int]:
    """The powers of ten around all figures, at least one apart."""
    logs = [math.log10(figure) for figure in figures]
    low = math.floor(min(logs) - 0.02)
    return low, max(math.ceil(max(logs) + 0.02), low + 1)


def _columns(low: int, high: int, top: int, bottom: int, unit: str) -> list[str]:
    marks = []
    for decade in range(low, high + 1):
        x = LEFT + (WIDTH - LEFT - RIGHT) * (decade - low) / (high - low)
        marks.append(f'<line class="grid" x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{bottom}"/>')
        marks.append(f'<text class="small" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{_number(10.0**decade)}</text>')
    return [*marks, f'<text class="small" x="{WIDTH - 8}" y="{bottom + 28}" text-anchor="end">{unit}</text>']


def _bar(table: Table, row: Row, y: int, low: int, high: int) -> str:
    figure = value(table, row)
    length = (WIDTH - LEFT - RIGHT) * (math.log10(figure) - low) / (high - low)
    return (
        f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(_short(row.name))}</text>'
        f'<rect class="{_kind(table, row)}" x="{LEFT}" y="{y}" width="{max(length, 1):.1f}" height="{STEP - 7}" rx="2"/>'
        f'<text x="{LEFT + length + 6:.1f}" y="{y + 13}">{_number(figure)}</text>'
    )


def _series(tables: Sequence[Table]) -> Mapping[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for table in sorted(tables, key=lambda each: each.x):
        for row in table.rows:
            series.setdefault(row.name, []).append((table.x, value(table, row)))
    return series


def _along(x: float, across: tuple[float, float]) -> float:
    low, high = math.log(across[0]), math.log(across[1])
    return 60 + (WIDTH - 60 - 250) * (math.log(x) - low) / (high - low)


def _down(y: float, low: int, high: int, bottom: int) -> float:
    return bottom - PLOT_HEIGHT * (math.log10(y) - low) / (high - low)


def _rule(low: int, high: int, decade: int, bottom: int) -> str:
    y = _down(10.0**decade, low, high, bottom)
    return (
        f'<line class="grid" x1="60" y1="{y:.1f}" x2="{WIDTH - 250}" y2="{y:.1f}"/>'
        f'<text class="small" x="54" y="{y + 4:.1f}" text-anchor="end">{_number(10.0**decade)}</text>'
    )


def _tick(x: float, across: tuple[float, float], bottom: int) -> str:
    return f'<text class="small" x="{_along(x, across):.1f}" y="{bottom + 18}" text-anchor="middle">{x:,g}</text>'


def _apart(heights: Mapping[str, float]) -> dict[str, float]:
    """Where labels go, so that none is over another: each at least 15 below the one above."""
    placed: dict[str, float] = {}
    last = -math.inf
    for name, height in sorted(heights.items(), key=lambda each: each[1]):
        last = placed[name] = max(height, last + 15)
    return placed


def _path(name: str, kind: str, spots: Sequence[tuple[float, float]], label: float) -> str:
    track = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    dots = "".join(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in spots)
    text = f'<text class="label" x="{spots[-1][0] + 10:.1f}" y="{label + 4:.1f}">{escape(_short(name))}</text>'
    return f'<polyline class="{kind} line" style="fill:none" points="{track}"/>{dots}{text}'


def _short(name: str, longest: int = 36) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def _svg(title: str, height: int, marks: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">'
    caption = f'<title>{escape(title)}</title>\n{STYLE}\n<text class="title" x="12" y="22">{escape(title)}</text>'
    return "\n".join([head, caption, *marks, "</svg>"]) + "\n"
