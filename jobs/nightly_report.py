"""The HTML page of nightly.yaml: one self-contained file that shows what the database holds. Nothing on it is loaded or run.

Every value is escaped, and the page's own policy allows no script and no style but the one it carries.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from html import escape
from pathlib import Path

STYLE = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --ink: #1b1f27; --soft: #5b6472; --line: #dfe3ea; --mark: #2f6fdb; }
@media (prefers-color-scheme: dark) {
  :root { --page: #12151b; --card: #1a1f28; --ink: #e6e9ef; --soft: #98a2b3; --line: #2b323e; --mark: #6ea3ff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 2rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; }
h2 { margin: 0 0 .6rem; font-size: 1.05rem; }
p { margin: .2rem 0 1rem; color: var(--soft); overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 1.4rem 0; }
dl div, section { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; padding: .8rem 1rem; }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; font-size: 1.35rem; font-weight: 650; font-variant-numeric: tabular-nums; }
section { margin-top: 1rem; overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-size: .8rem; font-weight: 500; text-align: left; white-space: nowrap; }
th, td { padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
.number { text-align: right; white-space: nowrap; }
.bar { width: 22%; min-width: 5rem; padding-top: .65rem; }
code { font: .87em ui-monospace, monospace; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: .5rem; fill: var(--mark); }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its head, the HTML of a value, and its class in the style sheet."""

    head: str
    html: Callable[[object], str]
    css: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table of the page. A column takes the row's value at its place."""

    title: str
    note: str
    columns: tuple[Column, ...]
    rows: list[tuple[object, ...]]
    empty: str


def write_report(database: str, report: str, top: int) -> str:
    """Write the page, and give its path. Tables have at most `top` rows. Readers see the old page or the new, never a part."""
    with closing(sqlite3.connect(f"{Path(database).resolve().as_uri()}?mode=ro", uri=True)) as connection:
        text = page(connection, top)
    temporary = Path(f"{report}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(report)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{report} is written")
    return report


def page(connection: sqlite3.Connection, top: int) -> str:
    """The whole page as HTML."""
    facts = dict(connection.execute("SELECT name, value FROM facts"))
    root = path(facts.get("root", ""))
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Nightly audit</title>\n<style>{STYLE}</style>\n"
        f"<h1>Nightly audit</h1>\n<p>{root}</p>\n"
        f"<dl>{''.join(_totals(connection, int(facts.get('archive_bytes', '0'))))}</dl>\n"
        f"{''.join(_section(table) for table in _tables(connection, top))}</html>\n"
    )


# ── what the page says ────────────────────────────────────────────────────────────────────────────────────────────────


def _totals(connection: sqlite3.Connection, archive_bytes: int) -> Iterable[str]:
    files, size = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM files").fetchone()
    modules, lines, functions, classes, branches, documented, documentable = connection.execute(
        "SELECT count(*), coalesce(sum(lines), 0), coalesce(sum(functions), 0), coalesce(sum(classes), 0),"
        " coalesce(sum(branches), 0), coalesce(sum(documented), 0), coalesce(sum(documentable), 0) FROM modules"
    ).fetchone()
    share = f"{documented / documentable:.0%}" if documentable else "–"
    values = {
        "Files": number(files),
        "Size": octets(size),
        "Verified archive": octets(archive_bytes),
        "Python files": number(modules),
    }
    counts = {"Lines of Python": lines, "Functions": functions, "Classes": classes, "Branches": branches}
    values |= {name: number(count) for name, count in counts.items()} | {"With a docstring": share}
    return (f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in values.items())


def _tables(connection: sqlite3.Connection, top: int) -> list[Table]:
    return [
        _largest(connection, top),
        _kinds(connection, top),
        _functions(connection, top, "complexity", "Most complex functions", "Decisions plus one, as McCabe counts them."),
        _functions(connection, top, "lines", "Longest functions", "From the line of its def to its last."),
        _duplicates(connection, top),
        _unparsed(connection, top),
        _skipped(connection),
    ]


def _largest(connection: sqlite3.Connection, top: int) -> Table:
    rows = connection.execute("SELECT path, size, size FROM files ORDER BY size DESC, path LIMIT ?", (top,)).fetchall()
    most = max((row[1] for row in rows), default=0)
    columns = (Column(head="File", html=path), _number("Size", octets), Column(head="", html=bar(most), css="bar"))
    return Table(title="Largest files", note="", columns=columns, rows=rows, empty="The tree has no files.")


def _kinds(connection: sqlite3.Connection, top: int) -> Table:
    rows = connection.execute(
        "SELECT CASE suffix WHEN '' THEN 'no suffix' ELSE suffix END, count(*), sum(size), sum(size) FROM files"
        " GROUP BY suffix ORDER BY sum(size) DESC, suffix LIMIT ?",
        (top,),
    ).fetchall()
    most = max((row[2] for row in rows), default=0)
    columns = (
        Column(head="Kind", html=path),
        _number("Files"),
        _number("Size", octets),
        Column(head="", html=bar(most), css="bar"),
    )
    return Table(
        title="Kinds of files", note="By the suffix of the name.", columns=columns, rows=rows, empty="The tree has no files."
    )


def _functions(connection: sqlite3.Connection, top: int, order: str, title: str, note: str) -> Table:
    rows = connection.execute(
        f"SELECT name, path || ':' || line, complexity, lines, {order} FROM top_functions"
        f" ORDER BY {order} DESC, path, line LIMIT ?",
        (top,),
    ).fetchall()
    most = max((row[4] for row in rows), default=0)
    places = (Column(head="Function", html=path), Column(head="Place", html=path))
    columns = (*places, _number("Complexity"), _number("Lines"), Column(head="", html=bar(most), css="bar"))
    return Table(title=title, note=note, columns=columns, rows=rows, empty="The tree has no functions in Python.")


def _duplicates(connection: sqlite3.Connection, top: int) -> Table:
    groups = connection.execute(
        "SELECT sha256, count(*), size, size * (count(*) - 1) FROM files WHERE size > 0 GROUP BY sha256 HAVING count(*) > 1"
        " ORDER BY 4 DESC, sha256 LIMIT ?",
        (top,),
    ).fetchall()
    names = "SELECT path FROM files WHERE sha256 = ? ORDER BY path"
    rows = [([row[0] for row in connection.execute(names, group[:1])], *group[1:]) for group in groups]
    columns = (Column(head="Files", html=paths), _number("Copies"), _number("Size of one", octets), _number("Wasted", octets))
    note = "Files of equal content by SHA-256; empty ones are left out."
    return Table(title="Duplicates", note=note, columns=columns, rows=rows, empty="No two files are equal.")


def _unparsed(connection: sqlite3.Connection, top: int) -> Table:
    rows = connection.execute("SELECT path, error FROM modules WHERE error IS NOT NULL ORDER BY path LIMIT ?", (top,)).fetchall()
    columns = (Column(head="File", html=path), Column(head="Reason", html=words))
    title = "Python files that do not parse"
    return Table(title=title, note="", columns=columns, rows=rows, empty="Every Python file parses.")


def _skipped(connection: sqlite3.Connection) -> Table:
    rows = connection.execute("SELECT reason, files FROM skipped ORDER BY files DESC, reason").fetchall()
    columns = (Column(head="Reason", html=words), _number("Times"))
    note = "Neither checksummed nor in the archive; a folder counts once."
    return Table(title="Left out", note=note, columns=columns, rows=rows, empty="Nothing was left out.")


# ── how it says it ────────────────────────────────────────────────────────────────────────────────────────────────────


def _section(table: Table) -> str:
    title = f"<section><h2>{escape(table.title)}</h2>"
    if not table.rows:
        return f"{title}<p>{escape(table.empty)}</p></section>\n"
    head = "".join(f"<th{_css(column)}>{escape(column.head)}" for column in table.columns)
    body = "\n".join(f"<tr>{''.join(_cells(table.columns, row))}" for row in table.rows)
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    return f"{title}{note}<table><thead><tr>{head}<tbody>\n{body}\n</table></section>\n"


def _cells(columns: tuple[Column, ...], row: tuple[object, ...]) -> Iterable[str]:
    return (f"<td{_css(column)}>{column.html(value)}" for column, value in zip(columns, row, strict=True))


def _css(column: Column) -> str:
    return f' class="{column.css}"' if column.css else ""


def _number(head: str, html: Callable[[object], str] | None = None) -> Column:
    return Column(head=head, html=html or number, css="number")


def visible(text: str) -> str:
    """The text with every character that cannot be seen, or turns the reading direction, written as an escape."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def words(value: object) -> str:
    """HTML of a text."""
    return escape(visible(str(value)))


def path(value: object) -> str:
    """HTML of a path or a name of the tree."""
    return f"<code>{words(value)}</code>"


def paths(value: object) -> str:
    """HTML of the paths of one group."""
    assert isinstance(value, list)
    return "<br>".join(path(one) for one in value)


def number(value: object) -> str:
    """HTML of a whole number."""
    return f"{value:,}" if isinstance(value, int) else words(value)


def octets(value: object) -> str:
    """HTML of a size in bytes, in the unit that people would say."""
    assert isinstance(value, int)
    size, unit = float(value), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


def bar(most: int) -> Callable[[object], str]:
    """HTML of a bar as long as the value's share of `most`. Drawn as SVG: the page's policy allows no style in an element."""

    def drawn(value: object) -> str:
        assert isinstance(value, int)
        share = 100 * value / most if most else 0
        return (
            f'<svg viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true"><rect width="{share:.1f}" height="1"/></svg>'
        )

    return drawn
