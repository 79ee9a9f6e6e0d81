"""A run of the command line: its log, what it shows and where. Nothing of click is needed for it."""

from __future__ import annotations

import contextlib
import gc
import os
import stat
import sys
from collections.abc import Iterator

from jobrunner.cli import words
from jobrunner.outlet import Outlet
from jobrunner.sinks.log import log_sink
from jobrunner.sinks.output import terminal_sink
from jobrunner.sinks.summary import Summary
from jobrunner.stream import Sink, in_turn
from jobrunner.typed import TYPE_CHECKING, Any, BinaryIO, Literal

if TYPE_CHECKING:
    from jobrunner.api import Prepared, RunResult

_PATIENCE = 1.0
"""Seconds for a reader of stdout that stalls to take the summary."""


class UnusableLog(Exception):
    """The file for the log cannot be written; nothing ran."""


def run(
    file: str,
    *,
    settings: tuple[str, ...],
    resume: bool,
    durability: Literal["process", "disk"],
    quiet: bool,
    log_format: str,
    log_level: str | None,
    log_file: str | None,
    **given: Any,
) -> int:
    """Run a job file; the arguments are those of the command line. The exit code."""
    from jobrunner import api

    options = api.Options(params=words.pairs(settings), resume=resume, durability=durability, **given)
    prepared = api.prepare(file, options)
    return shown(prepared, quiet=quiet, log_format=log_format, log_level=log_level, log_file=log_file)


def shown(prepared: Prepared, *, quiet: bool, log_format: str, log_level: str | None, log_file: str | None) -> int:
    """Run what was prepared, with its log, output and summary where the options say. The exit code."""
    from jobrunner import api

    summary = Summary()
    sinks: list[Sink] = [summary]
    with _opened(log_file) as (log, display):
        lines: list[Sink] = [] if quiet else [terminal_sink(display)]  # the rest of a line comes before the end of its attempt
        if log_file or log_level or not quiet:
            lines.append(log_sink(log, format=log_format, minimum=log_level or "info"))
        sinks += [in_turn(*lines)] if log is display else lines
        _collect_garbage_again()
        outlets = [log] if log is display else [log, display]
        result = api.run_prepared(prepared, sinks=sinks, outlets=outlets, has_process=True)
        if not quiet or result.exit_code:
            display.write(_last_words(prepared, result, summary).encode("utf-8", "backslashreplace") + b"\n")
            display.finish(_PATIENCE)
    return result.exit_code


def _last_words(prepared: Prepared, result: RunResult, summary: Summary) -> str:
    if result.outcome == "skipped":
        return f"- {prepared.job.name}: not run, for it is running already (on_conflict: skip)"
    return summary.text(prepared.job.name)


def _collect_garbage_again() -> None:
    """The collector was off while modules were imported; forked workers get it as it is here. What lives now lives to the end."""
    gc.freeze()
    gc.enable()


@contextlib.contextmanager
def _opened(log_file: str | None) -> Iterator[tuple[Outlet, Outlet]]:
    """Where the log goes, and where all else does."""
    outlets = _outlets(log_file)
    try:
        yield outlets
    finally:
        for each in outlets:
            each.close()


def _outlets(log_file: str | None) -> tuple[Outlet, Outlet]:
    """One outlet for both where both are the same file, so that they keep their order."""
    if log_file is not None:
        with _appended(log_file) as file:
            return Outlet(file, name="log", torn=_is_torn(file)), Outlet(sys.stdout.buffer, name="stdout")
    if _is_same(sys.stdout.buffer, sys.stderr.buffer):
        both = Outlet(sys.stderr.buffer, name="log and stdout")
        return both, both
    return Outlet(sys.stderr.buffer, name="log"), Outlet(sys.stdout.buffer, name="stdout")


def _appended(log_file: str) -> BinaryIO:
    try:
        return open(log_file, "ab+", buffering=0, opener=_never_controlled)
    except OSError as error:
        raise UnusableLog(f"cannot write {log_file}: {error.strerror}") from None


def _never_controlled(path: str, flags: int) -> int:
    """A terminal that is opened never becomes the controlling one of the engine, which leads a session: its hang-up is no HUP."""
    return os.open(path, flags | os.O_NOCTTY, 0o666)


def _is_torn(file: BinaryIO) -> bool:
    """Whether a full disk tore the last line of an earlier run."""
    found = os.fstat(file.fileno())
    return stat.S_ISREG(found.st_mode) and found.st_size > 0 and os.pread(file.fileno(), 1, found.st_size - 1) != b"\n"


def _is_same(one: BinaryIO, other: BinaryIO) -> bool:
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
