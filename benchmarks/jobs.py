"""The jobs that are measured: written to a temporary directory, run by `python -m jobrunner`, checked by their log."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jobrunner
from benchmarks.process import ROOT


def write_job(folder: Path, name: str, text: str) -> Path:
    """Writes a job file, and the module that its targets are in beside it."""
    shutil.copy(ROOT / "benchmarks" / "work_items.py", folder)
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def command(job: Path) -> list[str]:
    """The command line that runs `job` as users do, with the structured log in a file."""
    log = ["--log-level", "info", "--log-format", "json", "--log-file", str(_log_of(job))]
    return [sys.executable, "-m", "jobrunner", str(job), "-q", *log]


def logged(job: Path, items: int) -> Callable[[str], str | None]:
    """The check that the last run of `job` finished `items` attempts, each with success. Empties the log."""

    def check(_: str) -> str | None:
        log = _log_of(job)
        with log.open(encoding="utf-8") as lines:
            done = sum(1 for line in lines if '"task.finished"' in line and _is_success(json.loads(line)))
        log.unlink()
        return None if done == items else f"{done} of {items} attempts succeeded"

    return check


def version() -> str:
    """Of the jobrunner that is measured: the one of this checkout."""
    return jobrunner.__version__


def printed(text: str) -> Callable[[str], str | None]:
    """The check that a process printed `text`."""
    return lambda out: None if out.strip() == text else f"printed {out[:200]!r}, not {text!r}"


def python(script: str, *arguments: object) -> Sequence[str]:
    """The command line of one of the scripts in `benchmarks/peers`."""
    return [sys.executable, str(ROOT / "benchmarks" / "peers" / script), *map(str, arguments)]


def _log_of(job: Path) -> Path:
    return job.with_suffix(".log")


def _is_success(event: dict[str, object]) -> bool:
    return event.get("event") == "task.finished" and event.get("outcome") == "succeeded"
