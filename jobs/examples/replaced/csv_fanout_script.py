"""Simulate each loan of a table on all cores, and go on after a kill: the script that csv_fanout.yaml replaces."""

from __future__ import annotations

import argparse
import csv
import fcntl
import hashlib
import json
import logging
import os
import random
import sys
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from statistics import quantiles
from typing import TextIO

TRIES = 3
Row = dict[str, str]
Result = dict[str, str | float]
log = logging.getLogger("csv_fanout")


def read(table: str) -> list[Row]:
    with open(table, newline="", encoding="utf-8-sig") as text:
        rows = list(csv.DictReader(text))
    loans = [row["loan"] for row in rows]
    if not all(loans) or len({*loans}) < len(loans):
        raise ValueError(f"{table}: each row has a loan of its own name")
    return rows


def simulate(row: Row, paths: int) -> Result:
    chance = random.Random(row["loan"])
    amount, rate, volatility, years = (float(row[name]) for name in ("amount", "rate", "volatility", "years"))
    costs = quantiles([interest(chance, amount, rate, volatility, int(years)) for _ in range(paths)], n=10)
    return {"loan": row["loan"], "median": round(costs[4], 2), "worst_tenth": round(costs[8], 2)}


def interest(chance: random.Random, amount: float, rate: float, volatility: float, years: int) -> float:
    paid = 0.0
    for year in range(years):
        paid += amount * (1 - year / years) * rate / 100
        rate = max(0.0, rate + chance.gauss(0, volatility))
    return paid


def digest(row: Row, paths: int) -> str:
    return hashlib.sha256(json.dumps([row, paths], sort_keys=True).encode()).hexdigest()


def recorded(journal: Path) -> dict[str, Result]:
    """What an earlier run has done. The last line may be half a line: then that row is done again."""
    done = {}
    if journal.exists():
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            done[entry["digest"]] = entry["result"]
    return done


def record(journal: TextIO, key: str, result: Result) -> None:
    journal.write(json.dumps({"digest": key, "result": result}) + "\n")
    journal.flush()
    os.fsync(journal.fileno())


def run_once(rows: list[Row], paths: int, done: dict[str, Result], journal: TextIO) -> tuple[list[Row], int]:
    """Do what is not done: the rows whose worker died, and the number of those that failed."""
    lost, failed = [], 0
    with ProcessPoolExecutor() as pool:
        futures: dict[Future[Result], Row] = {pool.submit(simulate, row, paths): row for row in rows}
        for future in as_completed(futures):
            row = futures[future]
            try:
                result = future.result()
            except (BrokenProcessPool, MemoryError) as error:
                lost.append(row)
                log.warning("%s: %s", row["loan"], error)
            except Exception:
                failed += 1
                log.exception("%s failed", row["loan"])
            else:
                key = digest(row, paths)
                record(journal, key, result)
                done[key] = result
                log.info("%s done", row["loan"])
    return lost, failed


def run(options: argparse.Namespace, kept: Path) -> int:
    rows = read(options.table)
    done = recorded(kept)
    waiting = [row for row in rows if digest(row, options.paths) not in done]
    log.info("%d rows, %d of them done before", len(rows), len(rows) - len(waiting))
    failed = 0
    with kept.open("a", encoding="utf-8") as journal:
        journal.write("\n")  # a half line of a run that was killed ends here
        for attempt in range(1, TRIES + 1):
            waiting, more = run_once(waiting, options.paths, done, journal)
            failed += more
            if not waiting:
                break
            log.warning("a worker died (%d of %d)", attempt, TRIES)
    if failed or waiting:
        return 1
    write([done[digest(row, options.paths)] for row in rows], options.out)
    kept.unlink()
    return 0


def write(results: list[Result], out: Path) -> None:
    fresh = out.with_name(f"{out.name}.new")
    with fresh.open("w", newline="", encoding="utf-8") as text:
        lines = csv.DictWriter(text, ["loan", "median", "worst_tenth"])
        lines.writeheader()
        lines.writerows(results)
    fresh.replace(out)
    print(f"{len(results)} loans")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("out", type=Path)
    parser.add_argument("--paths", type=int, default=2000)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.with_name(f"{options.out.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.error("already running")
            return 75
        return run(options, options.out.with_name(f"{options.out.name}.journal"))


if __name__ == "__main__":
    sys.exit(main())
