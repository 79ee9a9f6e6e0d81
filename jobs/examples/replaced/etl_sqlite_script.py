"""The script that etl_sqlite.yaml and etl_sqlite.py stand in for. Usage: etl_sqlite_script.py INBOX OUT [--tolerate 0.1]"""

from __future__ import annotations

import argparse
import csv
import fcntl
import logging
import os
import sqlite3
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from datetime import date
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

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


def load_patiently(staged: str, database: str) -> None:
    """Load, and try again while somebody else has the database open."""
    for delay in (1, 2, 4, 8, 16):
        try:
            return load(staged, database)
        except sqlite3.OperationalError as error:
            logging.warning("%s: %s; again in %d s", staged, error, delay)
            time.sleep(delay)
    return load(staged, database)


def parse_all(files: list[str], folder: str, args: argparse.Namespace) -> list[str] | None:
    """The staged databases in the order of the files; None if a file failed, with all failures told."""
    staged: dict[str, str] = {}
    with ProcessPoolExecutor(args.workers) as pool:
        futures = {pool.submit(parse, path, folder, args.tolerate): path for path in files}
        for future in as_completed(futures):
            try:
                staged[futures[future]] = future.result()
                logging.info("%s: parsed", futures[future])
            except BrokenProcessPool:
                logging.error("%s: a worker died, and the pool with it", futures[future])
            except Exception:
                logging.exception("%s: failed", futures[future])
    return [staged[path] for path in files] if len(staged) == len(files) else None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("inbox", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tolerate", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    return parser.parse_args()


def run(args: argparse.Namespace) -> int:
    database = str(args.out / "sales.db")
    with TemporaryDirectory() as folder:
        staged = parse_all(sorted(map(str, args.inbox.glob("*.csv"))), folder, args)
        if staged is None:
            logging.error("nothing was loaded")
            return 1
        for each in staged:
            load_patiently(each, database)
    logging.info("%d rows in the report", report(database, str(args.out / "report.csv")))
    return 0


def main() -> int:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with (args.out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.error("already running")
            return 75
        try:
            return run(args)
        except Exception:
            logging.exception("failed")
            return 1


if __name__ == "__main__":
    sys.exit(main())
