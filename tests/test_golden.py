"""Golden runs: each `golden/*.yaml` is run for real, and its log must be the `.jsonl` beside it.

What differs from run to run (times, process numbers, paths) is replaced by its name. Where the order of events is free (more
than one worker at a time), the lines are sorted. After a change that is meant, write the files again and read the difference:

        UPDATE_GOLDEN=1 pytest tests/test_golden.py
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from jobrunner import api
from jobrunner.eventschema import json_schema
from jobrunner.sinks.log import log_sink

GOLDEN = Path(__file__).parent / "golden"
JOBS = sorted(GOLDEN.glob("*.yaml"))

FREE_ORDER = {"fan_out_in_a_pool"}
TWICE = {"cached"}
"""Jobs of which the log is that of a second run: the first has left something for it."""
VOLATILE = ("ts", "run_id", "pid", "thread", "duration", "task_time", "lived", "delay", "run_dir", "digest")
MEASURED = ("cpu", "max_rss")
"""Not known of every attempt, so not compared at all."""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run finds what an earlier test has left."""
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))


def log_of(job: Path) -> list[dict[str, Any]]:
    """The log of a real run of `job`."""
    if job.stem in TWICE:
        api.run(job)
    file = io.BytesIO()
    api.run_prepared(api.prepare(job, api.Options()), sinks=[log_sink(file, format="json", minimum="debug")])
    return [orjson.loads(line) for line in file.getvalue().splitlines()]


def normalised(line: dict[str, Any], *, free: bool) -> dict[str, Any]:
    kept: dict[str, Any] = {key: f"<{key}>" if key in VOLATILE else value for key, value in line.items() if key not in MEASURED}
    if free:
        kept = {key: value for key, value in kept.items() if key != "seq"}
        kept |= {key: f"<{key}>" for key in ("worker", "tasks") if key in kept and kept["event"] != "run.started"}
    if "file" in line:
        kept["file"] = Path(line["file"]).name
    if "reason" in line:
        kept["reason"] = _constant(line["reason"])
    if "error" in line:
        kept["error"] = {key: _constant(text) for key, text in line["error"].items()}
    return kept


def _constant(text: str) -> str:
    text = text.replace(str(GOLDEN), "<folder>")
    return re.sub(r"after \S+ s\b", "after <duration> s", text)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_the_log_of_a_run_is_the_golden_one(job: Path) -> None:
    free = job.stem in FREE_ORDER
    log = log_of(job)
    assert [line["seq"] for line in log] == list(range(1, len(log) + 1))
    lines = [orjson.dumps(normalised(line, free=free)).decode() for line in log]
    text = "".join(f"{line}\n" for line in (sorted(lines) if free else lines))
    golden = job.with_suffix(".jsonl")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text.splitlines() == golden.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_every_line_of_a_golden_run_is_described_by_the_schema(job: Path) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    for line in log_of(job):
        validator.validate(line)


def test_every_golden_log_has_its_job() -> None:
    assert {path.stem for path in GOLDEN.glob("*.jsonl")} == {job.stem for job in JOBS}
