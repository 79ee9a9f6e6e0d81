"""What one event costs: a line of the structured log and a record of the journal, against other logs and other records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import jobs
from benchmarks.measure import Case, Contest, Twin

NOTE = """\
Loops in one process; "µs an item" is what one more event costs, start-up left out. All records have the same fields. The journal
and SQLite write, or commit, groups of 100; synced means that the disk has the group before the next is begun."""


def contests(scratch: Path, *, quick: bool) -> list[Contest]:
    """Log and journal together against what only logs; the journal alone against what only keeps records."""
    items, rounds = (10_000, 3) if quick else (100_000, 7)
    logs = {
        "jobrunner: log line and journal record": "jobrunner",
        "jobrunner: log line alone": "log",
        "structlog, leanest: log line alone": "structlog",
        "stdlib logging, JSON: log line alone": "logging",
        "orjson and one write a line": "orjson",
    }
    records = {
        "jobrunner: journal record": "journal",
        "jobrunner: journal record, synced": "journal-synced",
        "SQLite, WAL": "sqlite",
        "SQLite, WAL, synced": "sqlite-synced",
    }
    return [
        _contest(scratch, f"{items:,} events to a log", logs, items, rounds),
        _contest(scratch, f"{items:,} events to a record that outlasts the process", records, items, rounds),
    ]


def _contest(scratch: Path, title: str, names: dict[str, str], items: int, rounds: int) -> Contest:
    cases = [case(scratch / how, name, how, items) for name, how in names.items()]
    return Contest(group="events", title=title, items=items, cases=cases, rounds=rounds, compares="item", note=NOTE)


def case(folder: Path, name: str, how: str, items: int) -> Case:
    """One way to write that many events, which is also what the files are checked for."""
    folder.mkdir(parents=True, exist_ok=True)
    many, one = folder / "many", folder / "one"
    return Case(
        name=name,
        argv=jobs.python("event_lines.py", how, items, many),
        check=_counted(folder, items, is_lines="sqlite" not in how),
        single=Twin(argv=jobs.python("event_lines.py", how, 1, one), check=jobs.printed("1")),
        prepare=_cleared(folder),
        is_floor=how == "orjson",
    )


def _counted(folder: Path, items: int, *, is_lines: bool) -> Callable[[str], str | None]:
    """As many lines in each file as there were events; a table has been counted by who wrote it."""

    def check(told: str) -> str | None:
        files = [path for path in folder.glob("many*") if path.stat().st_size] if is_lines else []
        counts = {path.name: _lines(path) for path in files}
        wrong = {name: count for name, count in counts.items() if count != items}
        if wrong or (is_lines and not counts):
            return f"{wrong or 'nothing'} written, not {items} lines"
        return jobs.printed(str(items))(told)

    return check


def _lines(path: Path) -> int:
    """One by one: this process is to stay small."""
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _cleared(folder: Path) -> Callable[[], None]:
    def clear() -> None:
        for path in folder.iterdir():
            path.unlink()

    return clear
