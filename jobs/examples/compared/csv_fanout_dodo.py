"""The job of ../csv_fanout.yaml for doit: `doit -f csv_fanout_dodo.py -n 2 table=… out=…`."""
# mypy: ignore-errors

import hashlib
import json
import sys
import time
from pathlib import Path

from doit import create_after, get_var

sys.path.insert(0, "..")
import csv_fanout

DOIT_CONFIG = {"continue": True}
TABLE = get_var("table", "../csv_fanout.csv")
OUT = get_var("out", "../../../out/csv_fanout.csv")
PATHS = int(get_var("paths", "2000"))
WORK = Path(get_var("work", "../../../out/csv_fanout.work"))


def task_read():
    """The table as JSON: what the next task creator needs."""
    return {"actions": [(read,)], "file_dep": [TABLE], "targets": [WORK / "table.json"]}


def read():
    table = csv_fanout.read(TABLE)
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "table.json").write_text(json.dumps(table))


def rows():
    return json.loads((WORK / "table.json").read_text())["rows"].values()


def result(row):
    """The file of a row's result is named by what it depends on: doit's own records are lost when it is killed."""
    return WORK / f"{hashlib.sha256(json.dumps([row, PATHS]).encode()).hexdigest()}.json"


@create_after(executed="read")
def task_simulate():
    """A result for each row of the table."""
    for row in rows():
        yield {"name": row["loan"], "actions": [(simulate, (row,))], "targets": [result(row)], "uptodate": [True]}


def retried(function, *arguments):
    for _ in range(2):
        try:
            return function(*arguments)
        except MemoryError:
            time.sleep(1)
    return function(*arguments)


def simulate(row):
    found = retried(csv_fanout.simulate, row, PATHS)
    fresh = result(row).with_suffix(".new")
    fresh.write_text(json.dumps(found))
    fresh.replace(result(row))


@create_after(executed="simulate")
def task_write():
    """The results as a table, in the order of the rows."""
    return {"actions": [(write,)], "file_dep": [result(row) for row in rows()], "targets": [OUT], "verbosity": 2}


def write():
    csv_fanout.write([json.loads(result(row).read_text()) for row in rows()], OUT)
