"""N events, each as one record of the same fields: `event_lines.py HOW N FILE`. Prints how many it gave away.

In groups of 100, where there are groups: so many are written, or committed, at once.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

GROUP = 100
PLACE = {"run_id": "20261123T091500Z-1a2b3c", "job": "nightly"}
FIELDS = {
    "task": "load",
    "attempt": 1,
    "mode": "process_pool",
    "worker": "two/1",
    "pid": 4242,
    "outcome": "succeeded",
    "duration": 0.012345,
    "cpu": 0.010101,
    "max_rss": 23_456_789,
}


def groups(wanted: int) -> Iterator[range]:
    for first in range(0, wanted, GROUP):
        yield range(first, min(first + GROUP, wanted))


def jobrunner(wanted: int, path: Path, *, log: bool, journal: bool, sync: bool) -> int:
    """The sinks of a run: the structured log, one write a line, and the journal, one write a group."""
    from jobrunner.events import TaskFinished
    from jobrunner.journal import Journal
    from jobrunner.sinks.log import log_sink
    from jobrunner.stream import Sink, Stream

    sinks: list[Sink] = []
    record = Journal.create(path.with_suffix(".journal"), sync=sync) if journal else None
    if record:
        sinks.append(record)
    with path.open("wb", buffering=0) as file:
        if log:
            sinks.append(log_sink(file, format="json", minimum="info"))
        stream = Stream(run_id=PLACE["run_id"], job=PLACE["job"], sinks=sinks, now=time.time)
        for group in groups(wanted):
            for n in group:
                stream.emit(TaskFinished(item=str(n), **FIELDS))  # type: ignore[arg-type]
            if record:
                record.commit(sync=sync)
        if record:
            record.close()
    return wanted


def structlog(wanted: int, path: Path) -> int:
    """As lean as its own page on performance has it: bytes logger, orjson, cached; the time is added, as it is in our log."""
    import orjson
    import structlog

    with path.open("wb", buffering=0) as file:
        structlog.configure(
            cache_logger_on_first_use=True,
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            processors=[structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.JSONRenderer(orjson.dumps)],
            logger_factory=structlog.BytesLoggerFactory(file=file),
        )
        log = structlog.get_logger().bind(**PLACE)
        for n in range(wanted):
            log.info("task.finished", seq=n, item=str(n), **FIELDS)
    return wanted


def stdlib(wanted: int, path: Path) -> int:
    """The logging module with a formatter that gives JSON."""
    import json

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            head = {"ts": datetime.fromtimestamp(record.created, UTC).isoformat(), "level": record.levelname.lower()}
            return json.dumps(head | {"event": record.getMessage()} | record.__dict__["fields"])

    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(Formatter())
    log = logging.getLogger("events")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    for n in range(wanted):
        log.info("task.finished", extra={"fields": PLACE | {"seq": n, "item": str(n)} | FIELDS})
    handler.close()
    return wanted


def orjson(wanted: int, path: Path) -> int:
    """The floor: the dictionary to bytes, one write a line."""
    import orjson

    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for n in range(wanted):
        os.write(fd, orjson.dumps(_event(n), option=orjson.OPT_APPEND_NEWLINE))
    os.close(fd)
    return wanted


def sqlite(wanted: int, path: Path, *, synchronous: str) -> int:
    """A table of records in WAL mode, one transaction a group."""
    import sqlite3

    import orjson

    database = sqlite3.connect(path, isolation_level=None)
    database.execute("pragma journal_mode = wal")
    database.execute(f"pragma synchronous = {synchronous}")
    database.execute("create table events (seq integer primary key, record blob)")
    for group in groups(wanted):
        database.execute("begin")
        for n in group:
            database.execute("insert into events values (?, ?)", (n, orjson.dumps(_event(n))))
        database.execute("commit")
    (count,) = database.execute("select count(*) from events").fetchone()
    database.close()
    return int(count)


def _event(n: int) -> dict[str, Any]:
    return {"ts": time.time(), "level": "info", "event": "task.finished", "seq": n, "item": str(n), **PLACE, **FIELDS}


HOW: dict[str, Callable[[int, Path], int]] = {
    "jobrunner": lambda n, path: jobrunner(n, path, log=True, journal=True, sync=False),
    "log": lambda n, path: jobrunner(n, path, log=True, journal=False, sync=False),
    "journal": lambda n, path: jobrunner(n, path, log=False, journal=True, sync=False),
    "journal-synced": lambda n, path: jobrunner(n, path, log=False, journal=True, sync=True),
    "structlog": structlog,
    "logging": stdlib,
    "orjson": orjson,
    "sqlite": lambda n, path: sqlite(n, path, synchronous="normal"),
    "sqlite-synced": lambda n, path: sqlite(n, path, synchronous="full"),
}

if __name__ == "__main__":
    print(HOW[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3])))
