"""Functions of db_dump.yaml: an SQLite database to a dump and back."""

from __future__ import annotations

import gzip
import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"


def existing(database: str) -> sqlite3.Connection:
    """Open a database for reading; sqlite3.connect alone would make an empty one where there is none."""
    return sqlite3.connect(f"{Path(database).resolve(strict=True).as_uri()}?mode=ro", uri=True, timeout=60)


def snapshot(database: str, copy: str) -> None:
    """Copy a database as it is at one moment."""
    Path(copy).parent.mkdir(parents=True, exist_ok=True)
    Path(copy).unlink(missing_ok=True)
    with closing(existing(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target, pages=-1)


def dump(copy: str, file: str) -> None:
    with closing(existing(copy)) as db, gzip.open(file, "wt", encoding="utf-8") as text:
        text.writelines(f"{statement}\n" for statement in db.iterdump())


def restore(file: str, copy: str) -> None:
    """Make a new database of a dump; gzip's checksum is checked on the way."""
    Path(copy).unlink(missing_ok=True)
    with gzip.open(file, "rt", encoding="utf-8") as text, closing(sqlite3.connect(copy)) as db:
        db.executescript(text.read())


def count(database: str) -> dict[str, tuple[int, str]]:
    """The number of rows of each table, and a checksum of its values that does not depend on their order."""
    with closing(existing(database)) as db:
        return {name: checksum(db, name) for (name,) in db.execute(TABLES).fetchall()}


def checksum(db: sqlite3.Connection, table: str) -> tuple[int, str]:
    rows, total, name = 0, 0, table.replace('"', '""')
    for row in db.execute(f'SELECT * FROM "{name}"'):
        rows, total = rows + 1, total + int.from_bytes(hashlib.sha256(repr(row).encode()).digest())
    return rows, f"{total % 2**256:064x}"


def keep(file: str, dump: str, before: dict[str, list[object]], after: dict[str, list[object]], most: int) -> None:
    """Put a dump that is right among the others, and remove the oldest; ValueError where a table is not what it was."""
    if wrong := [table for table in before.keys() | after.keys() if before.get(table) != after.get(table)]:
        raise ValueError(f"restored differently from the dump: {', '.join(sorted(wrong))}")
    Path(file).rename(dump)
    for old in sorted(Path(dump).parent.glob("*.sql.gz"))[:-most]:
        old.unlink()
    print(f"{dump}: {len(before)} tables, {sum(int(str(rows)) for rows, _ in before.values())} rows")
