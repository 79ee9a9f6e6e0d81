"""The cookbook shows the jobs and scripts as they are, and counts their lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_docs import ROOT, Block, blocks

PAGE = ROOT / "docs" / "cookbook.md"
EXAMPLES = ROOT / "jobs" / "examples"
SHOWN = [block for block in blocks(PAGE) if "of" in block.options]
ROWS = re.findall(
    r"^\| \[.+?\]\(#.+?\) \| (\d+) \| \[(.+?)\]\(.+?\) \| (\d+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
)


def code_lines(file: Path) -> int:
    """Lines that are neither blank nor a comment."""
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in file.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("block", SHOWN, ids=str)
def test_what_the_page_shows_is_what_lies_there(block: Block) -> None:
    assert block.text == (ROOT / block.options["of"]).read_text(encoding="utf-8")


def test_every_example_is_shown_with_the_script_that_it_replaces() -> None:
    shown = {(ROOT / block.options["of"]) for block in SHOWN}
    assert shown >= {*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("*.py"), *(EXAMPLES / "replaced").glob("*.*")}


@pytest.mark.parametrize(("job", "script", "lines"), ROWS)
def test_a_job_is_shorter_than_the_script_that_it_replaces(job: str, script: str, lines: str) -> None:
    name = script.partition(".")[0].removesuffix("_script")
    own = [file for file in (EXAMPLES / f"{name}.yaml", EXAMPLES / f"{name}.py") if file.exists()]
    assert sum(map(code_lines, own)) == int(job)
    assert code_lines(EXAMPLES / "replaced" / script) == int(lines)
    assert int(job) < int(lines)


def test_there_are_ten() -> None:
    assert len(ROWS) == 10
