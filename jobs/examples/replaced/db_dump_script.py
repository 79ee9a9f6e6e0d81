"""Dump an SQLite database, restore the dump, compare both and rotate: the script that db_dump.yaml replaces."""

from __future__ import annotations

import argparse
import fcntl
import gzip
import hashlib
import logging
import shutil
import signal
import sqlite3
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
log = logging.getLogger("db_dump")


def existing(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.resolve(strict=True).as_uri()}?mode=ro", uri=True, timeout=60)


def snapshot(database: Path, copy: Path) -> None:
    copy.unlink(missing_ok=True)
    with closing(existing(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target, pages=-1)


def snapshot_with_retries(database: Path, copy: Path, tries: int) -> None:
    for attempt in range(1, tries + 1):
        try:
            snapshot(database, copy)
            return
        except sqlite3.OperationalError as error:
            if attempt == tries:
                raise
            log.warning("snapshot: %s; again (%d of %d)", error, attempt, tries)
            time.sleep(2 ** (attempt - 1))


def dump(copy: Path, file: Path) -> None:
    with closing(existing(copy)) as db, gzip.open(file, "wt", encoding="utf-8") as text:
        text.writelines(f"{statement}\n" for statement in db.iterdump())


def restore(file: Path, copy: Path) -> None:
    copy.unlink(missing_ok=True)
    with gzip.open(file, "rt", encoding="utf-8") as text, closing(sqlite3.connect(copy)) as db:
        db.executescript(text.read())


def count(database: Path) -> dict[str, tuple[int, str]]:
    with closing(existing(database)) as db:
        return {name: checksum(db, name) for (name,) in db.execute(TABLES).fetchall()}


def checksum(db: sqlite3.Connection, table: str) -> tuple[int, str]:
    rows, total, name = 0, 0, table.replace('"', '""')
    for row in db.execute(f'SELECT * FROM "{name}"'):
        rows, total = rows + 1, total + int.from_bytes(hashlib.sha256(repr(row).encode()).digest())
    return rows, f"{total % 2**256:064x}"


def compare(scratch: Path) -> dict[str, tuple[int, str]]:
    with ProcessPoolExecutor(2) as pool:
        before, after = pool.map(count, [scratch / "snapshot.db", scratch / "restored.db"], timeout=3600)
    if wrong := [table for table in before.keys() | after.keys() if before.get(table) != after.get(table)]:
        raise ValueError(f"restored differently from the dump: {', '.join(sorted(wrong))}")
    return before


def step(name: str) -> None:
    log.info("%s", name)


def dump_and_verify(options: argparse.Namespace, scratch: Path) -> None:
    step("snapshot")
    snapshot_with_retries(options.database, scratch / "snapshot.db", 6)
    step("dump")
    dump(scratch / "snapshot.db", scratch / "dump.sql.gz")
    step("restore")
    restore(scratch / "dump.sql.gz", scratch / "restored.db")
    step("count")
    tables = compare(scratch)
    step("keep")
    path = options.to / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.sql.gz"
    (scratch / "dump.sql.gz").rename(path)
    for old in sorted(options.to.glob("*.sql.gz"))[: -options.keep]:
        old.unlink()
    print(f"{path}: {len(tables)} tables, {sum(rows for rows, _ in tables.values())} rows")


def stop(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", type=Path)
    parser.add_argument("to", type=Path)
    parser.add_argument("--keep", type=int, default=7)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    scratch = options.to / "scratch"
    options.to.mkdir(parents=True, exist_ok=True)
    with (options.to / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.error("already running")
            return 75
        scratch.mkdir(exist_ok=True)
        try:
            dump_and_verify(options, scratch)
        except (OSError, ValueError, sqlite3.Error):
            log.exception("no dump")
            return 1
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
