"""The witness: a file to which every task appends a line when it starts and when it is done; what it tells afterwards.

    start TASK PID      done TASK PID      twice TASK PID OTHER: it starts while an earlier copy of it still lives

A line is one write to a file that was opened to append, so that no line is torn and all are in the order of what happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that a task told. `offset` is where its line begins, in bytes."""

    offset: int
    word: str
    task: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill: how long the witness was before it and when the runner was gone, in bytes; what that had recorded as done."""

    offset: int
    gone: int
    recorded: Set[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """A task that was started again although an earlier copy of it ended well, then or later."""

    task: str
    was_done: bool
    """Its `done` was there before the kill of the runner that had started it …"""
    was_recorded: bool
    """… and so was the runner's own record of it."""


def size(path: Path) -> int:
    """Bytes in the witness; 0 where there is none yet."""
    return path.stat().st_size if path.exists() else 0


def read(path: Path) -> list[Line]:
    """All lines, in order. Raises ValueError for one that is not whole."""
    return list(_lines(path.read_bytes() if path.exists() else b""))


def _lines(data: bytes) -> Iterator[Line]:
    offset = 0
    for text in data.splitlines(keepends=True):
        word, task, pid, *_ = text.decode().split()
        if not text.endswith(b"\n"):
            raise ValueError(f"a torn line at the end of the witness: {text!r}")
        yield Line(offset=offset, word=word, task=task, pid=int(pid))
        offset += len(text)


def told(lines: Sequence[Line], word: str) -> set[str]:
    """The tasks that told `word`, at least once."""
    return {line.task for line in lines if line.word == word}


def repeats(lines: Sequence[Line], kills: Sequence[Kill]) -> list[Repeat]:
    """Every start of a task that an earlier start of it had made, or was about to make, needless."""
    found: list[Repeat] = []
    dones = {(line.task, line.pid): line.offset for line in lines if line.word == "done"}
    earlier: dict[str, list[tuple[int, int]]] = {}
    for line in lines:
        if line.word != "start":
            continue
        copies = earlier.setdefault(line.task, [])
        if copies:
            before = [kill for kill in kills if kill.gone <= line.offset]
            again = [_repeat(line.task, *copy, before) for copy in copies]
            found.append(max(again, key=lambda each: (each.was_recorded, each.was_done)))
        if (done := dones.get((line.task, line.pid))) is not None:
            copies.append((line.offset, done))
    return found


def _repeat(task: str, start: int, done: int, kills: Sequence[Kill]) -> Repeat:
    """What another start is, after `kills`, of a task with a copy from `start` to `done`: seen from the kill of its runner."""
    own = next((kill for kill in kills if kill.gone > start), kills[-1] if kills else None)
    was_done = own is None or done < own.offset
    return Repeat(task=task, was_done=was_done, was_recorded=was_done and own is not None and task in own.recorded)
