"""What an editor makes of job files, by the schema alone. `python -m tests.editor_check` asks a real editor's server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, ValidationError

from jobrunner import spec
from jobrunner.jobfile import reader
from tests.editor_check import (
    ANYTHING,
    EXAMPLES,
    EXPECTED,
    LEVELS,
    MISTAKES,
    MODELINE,
    OFFERED,
    PAGE,
    ROOT,
    SCHEMA,
    described,
    examples_of_the_page,
)

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
MODELS: list[type[BaseModel]] = [
    spec.Job, spec.Defaults, spec.Task, spec.Retry, spec.Stop, spec.Resources, spec.Cache, spec.Range, spec.Glob, spec.Lines,
    spec.Pool, spec.Param, spec.Limit, spec.Schedule, spec.Concurrency, spec.Secret,
]  # fmt: skip
KEYS = [(name, key) for name, level in LEVELS.items() for key in level.keys]
WRONG = [pair for pair in KEYS if pair not in ANYTHING]


def value_of(text: str) -> Any:
    """What the reader of job files makes of a text, whatever its problems are."""
    return reader.read(text.encode(), "job.yaml").value


def problems(text: str) -> list[Any]:
    return sorted(VALIDATOR.iter_errors(value_of(text)), key=lambda error: list(error.path))


# --- examples ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_names_the_schema_and_keeps_to_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    modeline = text.splitlines()[0]
    assert modeline.startswith("# yaml-language-server: $schema=")
    assert (path.parent / modeline.partition("$schema=")[2]).resolve() == SCHEMA
    assert problems(text) == []


@pytest.mark.parametrize(("place", "text"), examples_of_the_page().items())
def test_an_example_of_the_page_keeps_to_the_schema(place: str, text: str) -> None:
    assert problems(text) == []


def test_the_mistakes_of_the_editor_check_are_mistakes_by_the_schema() -> None:
    found = problems(MISTAKES)
    assert [list(error.path) for error in found] == [["mode"], ["tasks", "list"], ["tasks", "none"]]
    assert len(found) == len(EXPECTED)


def test_the_page_shows_the_editor_check_over_every_example() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for path in EXAMPLES:
        if path.parent == ROOT / "jobs":
            assert f"ok   jobs/{path.name} has no problem" in page


# --- every key ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_has_a_row_with_a_value_that_fits_and_one_that_does_not(model: type[BaseModel]) -> None:
    rows = {key for level in LEVELS.values() if level.model is model for key in level.keys}
    assert set(spec.keys(model)) - inherited(model) <= rows <= set(spec.keys(model))


def inherited(model: type[BaseModel]) -> set[str]:
    """Keys of a task that `defaults` has too are asked for in both."""
    return set() if model is not spec.Task else set(spec.keys(spec.Defaults)) - {"env"}


@pytest.mark.parametrize("name", LEVELS)
def test_values_that_fit_are_taken_by_the_schema_and_by_the_models(name: str) -> None:
    text = LEVELS[name].text(LEVELS[name].right)
    assert problems(text) == []
    spec.Job.model_validate(value_of(text))


@pytest.mark.parametrize(("name", "key"), WRONG)
def test_a_value_of_a_wrong_type_is_refused_by_the_schema_and_by_the_models(name: str, key: str) -> None:
    text = LEVELS[name].text(LEVELS[name].wrong(key))
    assert any(key in step.path for error in problems(text) for step in deepest(error))
    with pytest.raises(ValidationError):
        spec.Job.model_validate(value_of(text))


def deepest(error: Any) -> Iterator[Any]:
    """An error, and those of the members of unions that it sums up."""
    yield error
    for each in error.context:
        yield from deepest(each)


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_an_editor_explains_every_key_wherever_its_value_leads(name: str, key: str) -> None:
    """The members of a union say what the key is for, as a hover shows the one that fits."""
    part = definition(LEVELS[name].model)["properties"][key]
    assert part["description"] == described(LEVELS[name], key) != ""
    assert "anyOf" not in part, "a hover strings its members together"
    assert all(member["description"] == part["description"] for member in part.get("oneOf", ()) if "$ref" in member)


@pytest.mark.parametrize(("name", "key"), OFFERED)
def test_an_editor_finds_the_values_of_a_key(name: str, key: str) -> None:
    part = definition(LEVELS[name].model)["properties"][key]
    members = [part, *part.get("oneOf", ())]
    found = {value for member in members for value in (*member.get("enum", ()), *member.get("examples", ()))}
    is_truth = part.get("type") == "boolean"
    assert found >= set(OFFERED[name, key]) or is_truth


def test_the_modes_are_explained_one_by_one() -> None:
    part = definition(spec.Job)["properties"]["mode"]
    assert len(part["enumDescriptions"]) == len(part["enum"])
    assert all(part["enumDescriptions"])


def definition(model: type[BaseModel]) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    found: dict[str, Any] = schema if model is spec.Job else schema["$defs"][model.__name__]
    return found


def test_every_level_says_which_file_its_text_belongs_to() -> None:
    assert all(level.text(level.right).startswith(MODELINE) for level in LEVELS.values())
