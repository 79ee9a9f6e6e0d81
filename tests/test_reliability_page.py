"""docs/reliability.md is true: every test that it names exists, and what it says to type works on the journal of a real run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from jobrunner import captured, journal, outlet, parts, session
from tests.test_resume import Stage, chain

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
PROMISE = (
    "A task recorded as finished is never run again by a resume. A task in flight at a crash is run again, unless it is "
    "`at_most_once`: then it is reported `unknown`."
)
SECTIONS = {
    "A": "Bad job files",
    "B": "Tasks that misbehave",
    "C": "Workers that die",
    "D": "The runner dies",
    "E": "Signals",
    "F": "Resources",
    "G": "Journal and files",
    "H": "The clock",
    "I": "Overlap",
    "J": "Distributed",
    "K": "Output",
    "L": "Security",
}
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows(section: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    text = PAGE.partition(f"\n### {section}\n")[2].partition("\n#")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def all_rows() -> Iterator[tuple[str, str, str]]:
    """Each fault, its tests and its result."""
    for section in ["Always", *(f"{letter}. {title}" for letter, title in SECTIONS.items())]:
        found = rows(section)
        assert found, f"{section} has no table"
        for row in found:
            assert len(row) == (3 if section == "Always" else 4), row
            yield row[0], row[-2], row[-1]


@cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_the_promise_is_that_of_the_contract_word_for_word() -> None:
    quoted = " ".join(line.removeprefix(">").strip() for line in PAGE.splitlines() if line.startswith(">"))
    assert quoted == PROMISE
    assert not re.search(r"exactly[ -]once", PAGE, re.IGNORECASE)


def test_every_test_that_is_named_exists() -> None:
    named = TEST.findall(PAGE)
    assert len(named) > 150
    assert [f"{file}::{name}" for file, name in named if not (ROOT / file).exists() or name not in functions(file)] == []
    assert {word for word in re.findall(r"`(tests/[^`]*|test_[^`]*)`", PAGE) if not TEST.fullmatch(f"`{word}`")} <= {
        "tests/conftest.py"
    }


def test_every_row_has_a_result_and_what_holds_has_a_test() -> None:
    for fault, tests, result in all_rows():
        assert re.match(r"holds$|holds[ ;:]|holds in part: |not covered|said, ", result), fault
        assert result.startswith("holds") <= bool(TEST.search(tests)), f"{fault}: no test"
        assert not TEST.sub("", tests).strip("–, "), f"{fault}: {tests}"


def test_the_new_tests_of_faults_stand_in_the_table() -> None:
    named = {name for file, name in TEST.findall(PAGE) if file == "tests/test_fault_rows.py"}
    assert named == {name for name in functions("tests/test_fault_rows.py") if name.startswith("test_")}


def test_the_bounds_on_the_page_are_those_of_the_code() -> None:
    assert f"{captured.KEPT_OUTPUT >> 20} MiB: at {captured.KEPT_OUTPUT >> 21} MiB" in PAGE
    assert f"a queue of {outlet.MOST_QUEUED >> 20} MiB each" in PAGE
    per_task, most = parts.RESERVED_PER_TASK, parts.MOST_RESERVED
    assert f"({journal.RESERVE >> 20} MiB and {per_task >> 10} KiB for each task, {most >> 20} MiB at most)" in PAGE
    assert (session._PATIENCE, session._LONGEST_UNSYNCED) == (1.0, 1.0)
    assert "at the end one second for what is queued" in PAGE
    assert "synced within a second" in PAGE


# --- on a real journal ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A run that was killed while `load` ran; its journal lies in the folder, too."""
    stage = Stage(folder=tmp_path_factory.mktemp("stage"))
    stage.job(chain("fetch", "load", "report"))
    block = stage.flag("block-load")
    stage.kill_in_the_middle("run", "job.yaml")
    block.unlink()
    (stage.folder / "events.jsonl").write_bytes((stage.runs()[-1] / "events.jsonl").read_bytes())
    return stage


def commands() -> list[str]:
    return re.findall(r"^```sh\n(jq .*)\n```$", PAGE, re.MULTILINE)


def lines_of(command: str, folder: Path) -> list[str]:
    ended = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


def test_the_questions_to_a_journal_are_answered(stage: Stage) -> None:
    order, recorded, in_flight, parts, failed, torn = (lines_of(command, stage.folder) for command in commands())
    seen = [line.split("\t") for line in order]
    assert [int(line[0]) for line in seen] == list(range(1, len(seen) + 1))
    assert ["task.started", "fetch"] in [line[2:4] for line in seen]
    assert recorded == ["fetch"]
    (lost,) = map(json.loads, in_flight)
    assert (lost["task"], lost["item"], lost["attempt"]) == ("load", None, 1)
    assert lost["pid"] == int((stage.folder / "pid").read_text())
    assert [json.loads(part)["event"] for part in parts][:1] == ["run.started"]
    assert failed == []
    assert len(torn) == len(seen)


@pytest.mark.parametrize("item", [None, "x"])
def test_a_task_and_its_item_are_told_as_everywhere(item: str | None, tmp_path: Path) -> None:
    record = {"seq": 1, "ts": "T", "event": "task.finished", "task": "a", "attempt": 1, "outcome": "succeeded", "reason": "why"}
    (tmp_path / "events.jsonl").write_text(json.dumps(record | ({"item": item} if item else {})))
    name = f"a[{item}]" if item else "a"
    order, recorded, _, _, failed, _ = (lines_of(command, tmp_path) for command in commands())
    assert (order, recorded, failed) == ([f"1\tT\ttask.finished\t{name}\tsucceeded"], [name], [f"{name} attempt 1: why"])


def test_a_journal_with_a_torn_end_can_be_read(stage: Stage, tmp_path: Path) -> None:
    data = (stage.folder / "events.jsonl").read_bytes()
    (tmp_path / "events.jsonl").write_bytes(data[:-20])
    assert len(lines_of(commands()[-1], tmp_path)) == data.count(b"\n") - 1


def test_the_check_of_a_journal_finds_what_was_changed(stage: Stage, tmp_path: Path) -> None:
    (script,) = re.findall(r"^```python name=check.py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "check.py").write_text(script)
    data = (stage.folder / "events.jsonl").read_bytes()
    second = data.index(b"\n") + 5
    for text, told in [(data, ""), (data[:second] + b"X" + data[second + 1 :], "line 2 is not as it was written\n")]:
        (tmp_path / "events.jsonl").write_bytes(text)
        command = [sys.executable, "check.py", "events.jsonl"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stderr == told


def test_the_fields_of_the_table_stand_in_a_journal(stage: Stage) -> None:
    table = PAGE.partition("## The journal\n")[2].partition("\nAll else")[0]
    fields = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    records = [json.loads(line) for line in (stage.folder / "events.jsonl").read_text().splitlines()]
    assert set(fields) - {"data"} <= set().union(*records)
    assert [list(record)[-1] for record in records] == ["crc"] * len(records)
    assert [number for number, record in enumerate(records, start=1) if "v" in record] == [1]


def test_a_dry_run_tells_what_the_page_shows(stage: Stage) -> None:
    (shown,) = re.findall(r"^```text dry-run\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    told = stage.call("resume", "job.yaml", "--dry-run").stdout
    (run,) = stage.runs()
    assert told == re.sub(r"resume \S+ of nightly", f"resume {run.name} of job", shown)
