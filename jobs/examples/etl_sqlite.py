"""Functions of etl_sqlite.yaml: rows of CSV files to SQLite, totals out of it."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path

TABLES = """
CREATE TABLE IF NOT EXISTS sales (source TEXT, line INTEGER, day TEXT, shop TEXT, article TEXT, pieces INTEGER, cents INTEGER);
CREATE TABLE IF NOT EXISTS rejected (source TEXT, line INTEGER, reason TEXT);
"""
TOTALS = "SELECT substr(day, 1, 7) AS month, shop, sum(pieces), sum(pieces * cents) / 100.0 FROM sales GROUP BY month, shop"


def parse(path: str, folder: str, tolerate: float) -> str:
    """Check each row and write a database of those that are right and those that are not; its path."""
    source, staged = Path(path).name, Path(folder, f"{Path(path).name}.db")
    staged.unlink(missing_ok=True)
    with open(path, newline="", encoding="utf-8-sig") as text, closing(opened(str(staged))) as db, db:
        lines = csv.DictReader(text)
        for row in lines:
            try:
                db.execute("INSERT INTO sales VALUES (?, ?, ?, ?, ?, ?, ?)", (source, lines.line_num, *checked(row)))
            except (ArithmeticError, KeyError, TypeError, ValueError) as error:
                db.execute("INSERT INTO rejected VALUES (?, ?, ?)", (source, lines.line_num, f"{type(error).__name__}: {error}"))
        ((right, wrong),) = db.execute("SELECT (SELECT count(*) FROM sales), (SELECT count(*) FROM rejected)")
        print(f"{right} rows, {wrong} rejected")
        if wrong > tolerate * (right + wrong):
            raise ValueError(f"{path}: {wrong} of {right + wrong} rows are wrong; the first: {first(db)}")
    return str(staged)


def checked(row: Mapping[str, str]) -> tuple[str, str, str, int, int]:
    """The values of a row, converted; ValueError and its like say what is wrong with it."""
    pieces, cents = int(row["pieces"]), Decimal(row["price"]) * 100
    if pieces < 1 or cents != int(cents) or not row["shop"].strip():
        raise ValueError("pieces are at least 1, a price has whole cents, a sale has a shop")
    return date.fromisoformat(row["day"]).isoformat(), row["shop"].strip(), row["article"], pieces, int(cents)


def first(db: sqlite3.Connection) -> str:
    """The first row that was rejected."""
    ((line, reason),) = db.execute("SELECT line, reason FROM rejected LIMIT 1")
    return f"line {line}: {reason}"


def load(staged: str, database: str) -> None:
    """Put one file's rows in the place of those that it had before, all or none."""
    source = Path(staged).stem
    with closing(opened(database)) as db:
        db.execute("ATTACH ? AS staged", (staged,))
        with db:
            for table in ("sales", "rejected"):
                db.execute(f"DELETE FROM {table} WHERE source = ?", (source,))
                db.execute(f"INSERT INTO {table} SELECT * FROM staged.{table}")


def opened(database: str) -> sqlite3.Connection:
    """A database with our tables, made when missing."""
    Path(database).parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(database)
    db.executescript(TABLES)
    return db


def report(database: str, report: str) -> int:
    """Write the totals of each month and shop, and say how many; the old report stays until the new one is whole."""
    fresh = Path(f"{report}.new")
    with closing(opened(database)) as db, fresh.open("w", newline="", encoding="utf-8") as text:
        rows = db.execute(TOTALS).fetchall()
        csv.writer(text).writerows([("month", "shop", "pieces", "revenue"), *rows])
    fresh.replace(report)
    return len(rows)
