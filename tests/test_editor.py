"""What an editor makes of job files, by the schema alone. `python -m tests.editor_check` asks a real editor's server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml

from jobrunner.spec import Mode
from tests.editor_check import EXPECTED, MISTAKES, MODELINE

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = json.loads((ROOT / "schemas" / "job.schema.json").read_text(encoding="utf-8"))
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))


def problems(text: str) -> list[Any]:
    return sorted(jsonschema.Draft202012Validator(SCHEMA).iter_errors(yaml.safe_load(text)), key=lambda error: list(error.path))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_an_example_names_the_schema_and_keeps_to_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(MODELINE)
    assert (path.parent / MODELINE.strip().partition("$schema=")[2]).resolve() == ROOT / "schemas" / "job.schema.json"
    assert problems(text) == []


def test_the_mistakes_of_the_editor_check_are_mistakes_by_the_schema() -> None:
    found = problems(MISTAKES)
    assert [list(error.path) for error in found] == [["mode"], ["tasks", "list"], ["tasks", "none"]]
    assert len(found) == len(EXPECTED)


@pytest.mark.parametrize("model", ["Defaults", "Task", "Pool", None])
def test_every_mode_key_offers_the_modes(model: str | None) -> None:
    """At the top level of the key, where editors look for completions."""
    key = (SCHEMA["$defs"][model] if model else SCHEMA)["properties"]["mode"]
    offered = {value for part in key.get("anyOf", [key]) for value in part.get("enum", [])}
    assert offered == set(get_args(Mode))


@pytest.mark.parametrize("model", ["Defaults", "Task", "Pool", "Param", "Retry", "Stop", None])
def test_every_key_says_what_it_is_for(model: str | None) -> None:
    for name, key in (SCHEMA["$defs"][model] if model else SCHEMA)["properties"].items():
        assert key.get("description"), name


def test_the_page_shows_the_editor_check_over_every_example() -> None:
    page = (ROOT / "docs" / "job-file.md").read_text(encoding="utf-8")
    for path in JOBS:
        assert f"ok   jobs/{path.name} has no problem" in page
