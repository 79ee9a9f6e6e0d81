"""Numbers that are no longer what was written: `python: [3.9, 3.10]` runs with 3.1. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from jobrunner.jobfile.document import Document, Finding, Path

_LOSES: Final = re.compile(r"[+-]?(?:[0-9]*\.[0-9]*0|0[0-9]+(?:\.[0-9]*)?)")
"""A zero at the end of a fraction, or in front of a number: it matters in versions, dates and codes, and in no number."""


def find(document: Document) -> Iterator[Finding]:
    """Where a zero gets lost in values that become texts: parameters, the instances of a task, words of a command.

    Arguments of targets are left alone, there numbers are numbers. Only the file itself is looked at, not what it includes.
    """
    job = document.value if isinstance(document.value, dict) else {}
    yield from _params(job.get("params"), document)
    for table in ("tasks", "finally"):
        tasks = job.get(table)
        for name, task in tasks.items() if isinstance(tasks, dict) else ():
            for key in ("matrix", "foreach", "argv"):
                if isinstance(task, dict):
                    yield from _below((table, name, key), task.get(key), document)


def _params(params: object, document: Document) -> Iterator[Finding]:
    if not isinstance(params, dict):
        return
    yield from _lost(("params",), params, document)
    for name, param in params.items():
        if isinstance(param, dict) and param.get("type") not in {"int", "float"}:
            yield from _lost(("params", name), param, document, only="default")
            yield from _below(("params", name, "default"), param.get("default"), document)
        elif isinstance(param, list):
            yield from _below(("params", name), param, document)


def _below(path: Path, value: object, document: Document) -> Iterator[Finding]:
    if isinstance(value, (dict, list)):
        yield from _lost(path, value, document)
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _below((*path, step), inner, document)


def _lost(path: Path, container: dict[str, object] | list[object], document: Document, only: str = "") -> Iterator[Finding]:
    for step, raw in document.raws.get(id(container), {}).items():
        if _LOSES.fullmatch(raw) and only in {"", step}:
            now = container[step]  # type: ignore[index]  # it is one of its own keys
            yield Finding(path=(*path, step), message=f"{raw} is the number {now}", hint=f'Write "{raw}" where it is text.')
