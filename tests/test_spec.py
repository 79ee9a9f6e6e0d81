"""The models of the job file: what each key takes, and that a mistake is answered once."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from jobrunner import spec


def job(**keys: Any) -> spec.Job:
    return spec.Job.model_validate({"tasks": {"a": {"run": "x"}}, **keys})


def task(**keys: Any) -> spec.Task:
    return spec.Task.model_validate({"run": "x", **keys})


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (90, 90.0),
        (1.5, 1.5),
        (0, 0.0),
        ("90", 90.0),
        ("90s", 90.0),
        ("500ms", 0.5),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("2d", 172_800.0),
        ("1w", 604_800.0),
        ("PT1H30M", 5400.0),
        ("P1DT1S", 86_401.0),
        (" 5m ", 300.0),
    ],
)
def test_a_duration_is_seconds_or_has_units(written: object, seconds: float) -> None:
    assert spec.seconds(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "",
        "x",
        "5 m",
        "-5",
        -5,
        float("nan"),
        float("inf"),
        True,
        None,
        [],
        "1e9",
        "1h30",
        "P",
        "PT",
        "9" * 40 + "s",
        1e12,
        "٣s",
        10**400,
    ],
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(PydanticCustomError):
        spec.seconds(written)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        (1 << 20, 1 << 20),
        ("1048576", 1 << 20),
        ("1048576B", 1 << 20),
        ("1MiB", 1 << 20),
        ("1.5 MiB", 3 << 19),
        (" 512MiB ", 512 << 20),
        ("2GB", 2 * 10**9),
        ("2gib", 2 << 30),
        ("1TB", 10**12),
        ("1TiB", 1 << 40),
        ("2000KB", 2 * 10**6),
        ("1024KiB", 1 << 20),
    ],
)
def test_a_size_is_bytes_or_has_units(written: object, found: int) -> None:
    assert spec.size(written) == found


@pytest.mark.parametrize(
    "written",
    ["", "x", "512M", "5iB", "-1MiB", "1MiBs", "1e9", "1,5GiB", 0, -1, 1, True, 1.5, None, [], 1 << 51, "9999TiB", "٣GiB"],
)
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(PydanticCustomError):
        spec.size(written)


@pytest.mark.parametrize("source", [{"env": "A_1"}, {"file": "~/x"}, {"command": "pass show x"}, {"credential": "db.pw@1:2"}])
def test_a_secret_has_one_source(source: dict[str, str]) -> None:
    assert job(secrets={"s": source}).secrets["s"].model_dump(exclude_none=True) == source


@pytest.mark.parametrize(
    "source",
    [{}, None, "x", {"env": "A B"}, {"env": ""}, {"file": ""}, {"command": ""}, {"credential": "a/b"}, {"env": "A", "file": "b"}],
)
def test_a_secret_without_one_source_is_one_error(source: object) -> None:
    with pytest.raises(ValidationError) as caught:
        job(secrets={"s": source})
    assert caught.value.error_count() == 1


@pytest.mark.parametrize("written", [1, 4096, "auto", "50%", "1%", "1000%"])
def test_workers_are_a_number_auto_or_a_share(written: object) -> None:
    assert job(workers=written).workers == written


@pytest.mark.parametrize("written", [0, -1, 4097, 1.5, True, "", "0%", "1001%", "-5%", "5", "many", None, float("nan"), 10**30])
def test_other_workers_are_refused_once(written: object) -> None:
    with pytest.raises(ValidationError) as caught:
        job(workers=written)
    assert caught.value.error_count() == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("foreach", [1, "a", {"b": []}]),
        ("foreach", {"range": 3}),
        ("foreach", {"range": [1, 10, 2]}),
        ("foreach", {"glob": "*.csv"}),
        ("foreach", {"glob": ["*.csv", "a"], "at_least": 0}),
        ("foreach", {"lines": "hosts.txt"}),
        ("foreach", "${{ params.x }}"),
        ("foreach", None),
        ("retry", 0),
        ("retry", {"max": 2, "delay": "5s"}),
        ("timeout", "5m"),
        ("env", {"A": "x", "B_2": 1, "C": 1.5}),
        ("needs", ["b", "c-d"]),
        ("stop", {"signal": "INT", "grace": 0, "leftover": "allow"}),
        ("max_parallel", 3),
        ("continue_on_error", True),
        ("cwd", "sub"),
        ("secrets", ["a", "b-c"]),
        ("resources", {"memory": "512MiB", "nice": -20, "cpus": 4096}),
        ("resources", {}),
        ("at_most_once", True),
    ],
)
def test_a_task_takes(key: str, value: object) -> None:
    task(**{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("foreach", True),
        ("foreach", 3),
        ("foreach", {}),
        ("foreach", {"range": 3, "glob": "x"}),
        ("foreach", {"range": "3"}),
        ("foreach", {"range": []}),
        ("foreach", {"range": [1, 2, 3, 4]}),
        ("foreach", {"glob": ""}),
        ("foreach", {"glob": []}),
        ("foreach", {"glob": [1]}),
        ("foreach", {"glob": ["a", ""]}),
        ("foreach", {"glob": None}),
        ("foreach", {"glob": "a", "at_least": -1}),
        ("foreach", {"glob": "a", "at_least": True}),
        ("foreach", {"glob": "a", "at_least": 10_000_001}),
        ("foreach", {"range": 3, "at_least": 1}),
        ("foreach", {"lines": ["a"]}),
        ("retry", "2"),
        ("retry", True),
        ("retry", -1),
        ("retry", 1001),
        ("retry", None),
        ("retry", [2]),
        ("retry", {}),
        ("retry", {"max": 2, "backoff": 0}),
        ("timeout", 0),
        ("timeout", "soon"),
        ("env", ["A=1"]),
        ("env", {"A": ["x"]}),
        ("needs", "b"),
        ("needs", ["b c"]),
        ("needs", [1]),
        ("argv", ["x"]),
        ("args", [1]),
        ("mode", "dask"),
        ("max_parallel", 0),
        ("continue_on_error", "yes"),
        ("stop", {"signal": "SIGTERM"}),
        ("matrix", {}),
        ("secrets", "a"),
        ("secrets", ["a b"]),
        ("secrets", {"a": {"env": "A"}}),
        ("resources", "512MiB"),
        ("resources", {"memory": True}),
        ("resources", {"nice": 20}),
        ("resources", {"cpus": 0}),
        ("at_most_once", "yes"),
    ],
)
def test_a_task_refuses_with_one_error(key: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        task(**{key: value})
    assert caught.value.error_count() == 1


@pytest.mark.parametrize(
    "keys",
    [{}, {"run": "x", "argv": ["x"]}, {"run": "x", "target": "m:f"}, {"argv": []}, {"run": ""}, {"run": "x", "kwargs": {"a": 1}}],
)
def test_a_task_has_exactly_one_action(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        spec.Task.model_validate(keys)


@pytest.mark.parametrize(
    ("target", "fine"),
    [
        ("m:f", True),
        ("a.b.c:d", True),
        ("m:Class.method", True),
        ("m", False),
        ("m.f", False),
        (":f", False),
        ("m:", False),
        ("m:f()", False),
        ("../m:f", False),
        ("m:f\n", False),
        ("1m:f", False),
    ],
)
def test_a_target_is_module_and_function(target: str, fine: bool) -> None:
    if fine:
        assert spec.Task.model_validate({"target": target}).target == target
    else:
        with pytest.raises(ValidationError):
            spec.Task.model_validate({"target": target})


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\nb", "a\n", "a b", "é", "😀", "1a", "-a", "a" * 65, "a" * 10_000, "a.b"])
def test_a_task_name_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        job(tasks={name: {"run": "x"}})


def test_models_never_change() -> None:
    with pytest.raises(ValidationError):
        job().name = "other"  # type: ignore[misc]


def test_retries_are_a_rule_also_where_the_file_gives_a_number() -> None:
    assert task(retry=3).retries == spec.Retry(max=3)
    assert task(retry={"max": 1, "delay": 2}).retries == spec.Retry(max=1, delay=2.0)


@pytest.mark.parametrize("value", [1, 1.5, "x", True, None, [1, "a"], {"type": "int", "default": 3}, {"required": True}])
def test_a_parameter_is_a_value_or_a_declaration(value: object) -> None:
    given = job(params={"x": value}).params["x"]
    assert isinstance(given, spec.Param) == isinstance(value, dict)


def test_an_unknown_key_in_a_declaration_is_one_error() -> None:
    with pytest.raises(ValidationError) as caught:
        job(params={"x": {"typ": "int"}})
    assert [error["type"] for error in caught.value.errors()] == ["extra_forbidden"]
