"""Reads a journal without jobrunner: what its lines say, and whether each follows from the one before."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

Record: TypeAlias = dict[str, Any]
CHECKSUM = re.compile(rb',"crc":"([0-9a-f]{8})"}\n')


def run_dirs(state: Path, job: str) -> list[Path]:
    """The runs of a job that have a journal, oldest first."""
    return sorted(path.parent for path in (state / job).glob("*/events.jsonl"))


def whole(path: Path) -> list[Record]:
    """The records before the first line that is torn or damaged, as they stand on disk now."""
    return parsed(path.read_bytes())


def parsed(data: bytes) -> list[Record]:
    """The records before the first line that is torn or damaged."""
    return [record for record, _ in _valid(data)]


def offsets(data: bytes) -> list[int]:
    """Where each valid record ends, in bytes."""
    return [end for _, end in _valid(data)]


def checked(path: Path) -> list[Record]:
    """All records. Raises AssertionError where a line does not parse, or a number or a checksum does not fit."""
    data = path.read_bytes()
    records = [json.loads(line) for line in data.splitlines()]
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert not data or offsets(data)[-1:] == [len(data)], f"{path}: the record at {offsets(data)[-1:]} does not follow"
    return records


def succeeded(records: list[Record]) -> list[str]:
    """`TASK-ITEM` (`TASK` where there are no items) of every success that is recorded, as often as it is."""
    ended = [each for each in records if each["event"] == "task.finished" and each["outcome"] == "succeeded"]
    return [f"{each['task']}-{each['item']}" if "item" in each else each["task"] for each in ended]


def _valid(data: bytes) -> Iterator[tuple[Record, int]]:
    """Records as long as each is a line of JSON whose checksum continues that of the line before; where each ends."""
    end = checksum = 0
    for line in data.splitlines(keepends=True):
        found = CHECKSUM.search(line)
        if not found or found.end() != len(line):
            return
        checksum = zlib.crc32(line[: found.start()], checksum)
        if int(found[1], 16) != checksum:
            return
        end += len(line)
        yield json.loads(line), end
