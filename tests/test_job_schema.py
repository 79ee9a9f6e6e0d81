"""The JSON Schema of the job file: fresh, valid, described, and of one mind with the models."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jobrunner import jobfile, spec
from jobrunner.errors import JobFileError
from jobrunner.jobfile import reader
from tests.editor_check import LEVELS, OFFERED

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "schemas" / "job.schema.json"

EXAMPLE = """\
# yaml-language-server: $schema=../schemas/job.schema.json
name: nightly
description: Audit and archive a source tree
mode: thread_pool            # default mode of the tasks below
workers: 8                   # a number, "auto" (usable CPUs) or "50%"
params:
  root: {type: path, default: /srv/data, description: tree to audit}
pools:
  cpu: {mode: process_pool, workers: auto, max_tasks_per_worker: 500}
defaults: {retry: 2, timeout: 10m}
tasks:
  list_files:
    target: nightly:list_files          # a function in nightly.py beside this file
    kwargs: {root: "${{ params.root }}"}
  checksum:
    needs: [list_files]
    foreach: ${{ tasks.list_files.result }}
    target: nightly:sha256
    args: ["${{ item }}"]
  metrics:
    needs: [list_files]
    foreach: ${{ tasks.list_files.result }}
    target: nightly:code_metrics
    args: ["${{ item }}"]
    pool: cpu
  archive:
    run: tar -czf ${{ run.dir }}/tree.tar.gz -C ${{ params.root }} .
    timeout: 30m
  report:
    needs: [checksum, metrics, archive]
    target: nightly:write_report
    kwargs: {sums: "${{ tasks.checksum.results }}", metrics: "${{ tasks.metrics.results }}"}
"""


def validator() -> Any:
    return jsonschema.Draft202012Validator(spec.json_schema())


def test_the_schema_file_is_fresh() -> None:
    """It is json.dumps(spec.json_schema(), indent=2, ensure_ascii=False) and a line end."""
    assert SCHEMA.read_text(encoding="utf-8") == json.dumps(spec.json_schema(), indent=2, ensure_ascii=False) + "\n"


def test_the_schema_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(spec.json_schema())


def test_every_key_has_a_description() -> None:
    schema = spec.json_schema()
    models = {"Job": schema, **schema["$defs"]}
    bare = [
        f"{model}.{key}"
        for model, rule in models.items()
        for key, part in rule.get("properties", {}).items()
        if not part.get("description")
    ]
    assert bare == []


def test_the_documented_example_is_valid_for_the_schema_and_for_the_models() -> None:
    value = reader.read(EXAMPLE.encode(), "nightly.yaml").value
    validator().validate(value)
    job = jobfile.parse(EXAMPLE.encode(), "nightly.yaml")
    assert list(job.tasks) == ["list_files", "checksum", "metrics", "archive", "report"]
    assert job.tasks["report"].retry == 2


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("tasks: {a: {run: x}}", True),
        ("tasks: {a: {argv: [x, 1, 1.5]}}", True),
        ("tasks: {a: {run: x, env: {A: 1, B: null, C: x, D: true}}}", True),
        ("tasks: {a: {run: x, foreach: {range: [1, 5]}}}", True),
        ("tasks: {a: {run: x, foreach: [1, {b: c}]}}", True),
        ("tasks: {a: {run: x, retry: {max: 1, delay: 5s}}}", True),
        ("tasks: {a: {run: x, timeout: 1h30m}}", True),
        ("params: {a: 1, b: {type: list, default: [1]}, c: null}\ntasks: {a: {run: x}}", True),
        ("pools: {p: {executor: 'm:f', workers: 50%}}\ntasks: {a: {run: x, pool: p}}", True),
        ("secrets: {s: {env: A}, t: {command: x}}\ntasks: {a: {run: x, secrets: [s]}}", True),
        ("concurrency: {group: g, on_conflict: wait, wait: 5m}\nenv_file: x\ntasks: {a: {run: x}}", True),
        ("tasks: {a: {run: x, at_most_once: true, resources: {memory: 1.5GB, nice: -5, cpus: 2}}}", True),
        ("tasks: {a: {run: x, resources: {memory: 1048576}}}", True),
        ("secrets: {s: {}}\ntasks: {a: {run: x}}", False),
        ("secrets: {s: {env: A, file: b}}\ntasks: {a: {run: x}}", False),
        ("secrets: {s: text}\ntasks: {a: {run: x}}", False),
        ("secrets: {s: {credential: a/b}}\ntasks: {a: {run: x}}", False),
        ("concurrency: {on_conflict: stop}\ntasks: {a: {run: x}}", False),
        ("tasks: {a: {run: x, resources: {memory: much}}}", False),
        ("tasks: {a: {run: x, resources: {nice: 20}}}", False),
        ("tasks: {}", False),
        ("{}", False),
        ("tasks: {a: {}}", False),
        ("tasks: {a: {run: x, argv: [y]}}", False),
        ("tasks: {a b: {run: x}}", False),
        ("tasks: {a: {run: x, need: [b]}}", False),
        ("tasks: {a: {run: x, needs: b}}", False),
        ("tasks: {a: {run: x, retry: -1}}", False),
        ("tasks: {a: {run: x, timeout: 0}}", False),
        ("tasks: {a: {run: x, timeout: soon}}", False),
        ("tasks: {a: {run: x, foreach: {rnge: 3}}}", False),
        ("tasks: {a: {run: x, foreach: {glob: [a, b], at_least: 1}}}", True),
        ("tasks: {a: {run: x, foreach: {glob: []}}}", False),
        ("tasks: {a: {run: x, foreach: {range: 3, at_least: 1}}}", False),
        ("tasks: {a: {run: x, env: {'A B': x}}}", False),
        ("tasks: {a: {run: x}}\nworkers: 0", False),
        ("tasks: {a: {run: x}}\nmode: fast", False),
        ("tasks: {a: {target: m.f}}", False),
    ],
)
def test_schema_and_models_are_of_one_mind(text: str, fine: bool) -> None:
    value = yaml.safe_load(text)
    assert validator().is_valid(value) is fine
    try:
        jobfile.parse(text.encode(), "a.yaml")
    except JobFileError:
        assert not fine
    else:
        assert fine


# --- found by chance ---------------------------------------------------------------------------------------------------------

KEYS = [(name, key) for name, level in LEVELS.items() for key in level.keys]
CHOICES = sorted({value for values in OFFERED.values() for value in values} - {"true", "false"})
TEXTS = [
    *("", " ", "a", "a b", "auto", "50%", "90s", " 5m ", "1h30m", "PT90S", "P1D", "1.5h", "2GB", "512 MiB", " 3 ", "m:f", "m.f"),
    *("m:f.g", "${{ item }}", "* * * * *", "true", "null", "3", "-1", "1e3", "größe", "a\n", "\u00a0", "\u0663", *CHOICES),
]
SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 5000) | st.floats(allow_nan=False) | st.sampled_from(TEXTS) | st.text(max_size=4)
)
NAMES = st.sampled_from(sorted({key for _, key in KEYS} | {"a", "B", "c-d", "x y", "1", ""}))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=5
)


def like(value: object) -> st.SearchStrategy[Any]:
    """Values of the kind of one that fits, and a few that are of another."""
    match value:
        case bool():
            return st.booleans()
        case int():
            return st.integers(-1, 300) | SCALARS
        case float():
            return st.floats(0, 3) | SCALARS
        case str():
            return st.sampled_from([value, *CHOICES, *TEXTS]) | SCALARS
        case list():
            return st.lists(st.one_of([like(each) for each in value] or [SCALARS]), max_size=3)
        case dict():
            return st.fixed_dictionaries({}, optional={key: like(each) | st.just(each) for key, each in value.items()})
    return SCALARS


@cache
def fitting(place: tuple[str, str]) -> st.SearchStrategy[Any]:
    """Made once for each place: hypothesis looks through a strategy at its first use, which takes longer than to draw from it."""
    name, key = place
    right = reader.read(LEVELS[name].right[key].encode(), "a.yaml").value
    return st.just(right) | like(right) | like(right) | VALUES


@pytest.mark.parametrize("level", LEVELS)
def test_what_the_models_take_the_schema_takes_too(level: str) -> None:
    """The schema may be more patient: it knows nothing of time zones, circles, or of how long ten years are."""
    places = [place for place in KEYS if place[0] == level]

    @settings(
        max_examples=20 * len(places), deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.sampled_from(places).flatmap(lambda place: st.tuples(st.just(place), fitting(place))))
    def check(case: tuple[tuple[str, str], object]) -> None:
        assert_taken(*case)

    check()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("task: run", "timeout"), " 5m "),
        (("job", "tasks"), {"a": {"run": "x", "target": None}}),
        (("job", "secrets"), {"a": {"env": "x", "file": None}}),
        (("job", "params"), {"a": 1, "b": 1.5, "c": None, "d": [{}], "e": {"type": None}}),
    ],
)
def test_the_schema_takes_what_it_once_did_not(place: tuple[str, str], value: object) -> None:
    assert_taken(place, value)


def assert_taken(place: tuple[str, str], value: object) -> None:
    """That the schema takes a value at a place, if the models do."""
    job = with_value(*place, value)
    try:
        spec.Job.model_validate(job)
    except ValidationError:
        return
    assert [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(job)] == []


VALIDATOR = validator()


def with_value(name: str, key: str, value: object) -> Any:
    """The job of a level in which all keys fit, with another value for one."""
    return put(with_place(name, key), value)


@cache
def with_place(name: str, key: str) -> object:
    level = LEVELS[name]
    return reader.read(level.text({**level.right, key: "PLACE"}).encode(), "a.yaml").value


def put(job: object, value: object) -> object:
    if isinstance(job, dict):
        return {key: value if part == "PLACE" else put(part, value) for key, part in job.items()}
    return job
