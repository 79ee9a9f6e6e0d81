"""Parameters: parsed by type from the command line, taken as they are from Python, and every mistake named."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from jobrunner import jobfile, spec
from jobrunner.errors import JobFileError, UnsafeError, UsageError
from jobrunner.jobfile import given, params
from jobrunner.jobfile.params import Given

FOLDER, CWD = Path("/jobs"), Path("/here")


def job(declarations: str) -> spec.Job:
    return jobfile.parse(f"params: {declarations}\ntasks: {{a: {{run: x}}}}".encode(), "a.yaml")


def resolve(declarations: str, **given: object) -> dict[str, object]:
    values = {name: Given(value=value, base=CWD) for name, value in given.items()}
    return dict(params.resolve(job(declarations), values, folder=FOLDER))


@pytest.mark.parametrize(
    ("declaration", "given", "value"),
    [
        ("{type: int}", "12", 12),
        ("{type: int}", " -3 ", -3),
        ("{type: int}", 12, 12),
        ("3", "4", 4),
        ("{type: float}", "1.5", 1.5),
        ("{type: float}", "1e3", 1000.0),
        ("{type: float}", 2, 2.0),
        ("1.5", "2", 2.0),
        ("{type: bool}", "true", True),
        ("{type: bool}", "YES", True),
        ("{type: bool}", "0", False),
        ("{type: bool}", "off", False),
        ("{type: bool}", False, False),
        ("{type: bool}", 1, True),
        ("true", "no", False),
        ("{type: str}", "12", "12"),
        ("{type: str}", 12, "12"),
        ("{}", "x", "x"),
        ("null", "x", "x"),
        ("x", "", ""),
        ("{type: date}", "2026-01-31", "2026-01-31"),
        ("{type: date}", datetime.date(2026, 1, 31), "2026-01-31"),
        ("{type: date}", datetime.datetime(2026, 1, 31, 5), "2026-01-31"),
        ("{type: list}", "a, b,c", ["a", "b", "c"]),
        ("{type: list}", '["a", 1, null]', ["a", 1, None]),
        ("{type: list}", "", []),
        ("{type: list}", (1, 2), [1, 2]),
        ("[a]", "x", ["x"]),
        ("{type: path}", "sub/x", "/here/sub/x"),
        ("{type: path}", "../x", "/x"),
        ("{type: path}", "/abs", "/abs"),
        ("{type: path}", Path("p"), "/here/p"),
        ("{type: choice, choices: [a, b]}", "b", "b"),
        ("{type: choice, choices: [1, 2]}", "2", 2),
        ("{choices: [1, 2]}", "2", 2),
        ("{type: int, choices: [1, 2]}", "2", 2),
    ],
)
def test_a_given_value_is_parsed_by_type(declaration: str, given: object, value: object) -> None:
    found = resolve(f"{{p: {declaration}}}", p=given)["p"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("declaration", "given", "message"),
    [
        ("{type: int}", "1.5", "1.5 is not a whole number"),
        ("{type: int}", "x", "x is not a whole number"),
        ("{type: int}", True, "true is not a whole number"),
        ("{type: int}", "1_000", "1_000 is not a whole number"),
        ("{type: int}", "٣", "٣ is not a whole number"),
        ("{type: int}", "9" * 100, "is not a whole number"),
        ("{type: float}", "nan", "nan is not a number"),
        ("{type: float}", "1_0", "1_0 is not a number"),
        ("{type: float}", "inf", "inf is not a number"),
        ("{type: float}", 10**400, "is not a number"),
        ("{type: bool}", "maybe", "maybe is neither true nor false"),
        ("{type: bool}", 2, "2 is neither true nor false"),
        ("{type: str}", ["x"], "is not text"),
        ("{type: date}", "31.1.2026", "31.1.2026 is not a date; write it like 2026-01-31"),
        ("{type: date}", "2026-02-30", "2026-02-30 is not a date"),
        ("{type: list}", "[1, 2", "begins like a JSON list, but is none"),
        ("{type: list}", 3, "3 is not a list"),
        ("{type: list}", [object()], "holds something else"),
        ("{type: path}", "", " is not a path"),
        ("{type: path}", 3, "3 is not a path"),
        ("{type: choice, choices: [a, b]}", "c", "c is not one of a, b"),
        ("{type: int, choices: [1, 2]}", "3", "3 is not one of 1, 2"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_words(declaration: str, given: object, message: str) -> None:
    with pytest.raises(UsageError, match="parameter p: ") as caught:
        resolve(f"{{p: {declaration}}}", p=given)
    assert message in str(caught.value)


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert resolve("{p: {type: path}}", p="~/x") == {"p": "/home/me/x"}


def test_a_default_path_counts_from_the_job_file_and_other_defaults_stay() -> None:
    declarations = "{p: {type: path, default: data}, n: 3, l: [a, 1], s: {description: d}, d: {type: date, default: 2026-01-31}}"
    assert resolve(declarations) == {"p": "/jobs/data", "n": 3, "l": ["a", 1], "s": None, "d": "2026-01-31"}


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        resolve("{root: {required: true}, count: 3}", cuont="1", count="x")
    assert str(caught.value).splitlines() == [
        "parameter cuont: the job has no such parameter. Did you mean 'count'?",
        "parameter root: required, but not given. Set it with --set root=…",
        "parameter count: x is not a whole number",
    ]


def test_the_parameters_of_the_job_are_listed_where_none_is_like_it() -> None:
    with pytest.raises(UsageError, match=r"The job has root, count\."):
        resolve("{root: x, count: 3}", zzz="1")
    with pytest.raises(UsageError, match=r"The job has none\."):
        resolve("{}", zzz="1")


# --- the params file ---------------------------------------------------------------------------------------------------------

TYPES = "{n: {type: int}, f: {type: float}, b: {type: bool}, s: {type: str}, p: {type: path}, l: {type: list}, d: {type: date}}"


def from_file(declarations: str, text: str, tmp_path: Path, name: str = "values.yaml") -> dict[str, object]:
    path = tmp_path / name
    path.write_text(text)
    declared = job(declarations)
    return dict(params.resolve(declared, given.from_file(declared, path), folder=FOLDER))


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("n: 3", "n", 3),
        ("n: '3'", "n", 3),
        ("f: 3", "f", 3.0),
        ("b: true", "b", True),
        ("b: yes", "b", True),
        ("s: text", "s", "text"),
        ("s: 1.10", "s", "1.10"),
        ("s: true", "s", "true"),
        ("s: 007", "s", "007"),
        ("l: [a, 1]", "l", ["a", 1]),
        ("l: a,b", "l", ["a", "b"]),
        ("d: 2026-01-31", "d", "2026-01-31"),
        ("p: /abs", "p", "/abs"),
    ],
)
def test_a_params_file_gives_values_of_their_types(text: str, name: str, value: object, tmp_path: Path) -> None:
    found = from_file(TYPES, text, tmp_path)[name]
    assert (found, type(found)) == (value, type(value))


def test_a_path_of_a_params_file_counts_from_the_folder_of_that_file(tmp_path: Path) -> None:
    assert from_file(TYPES, "p: sub/x", tmp_path)["p"] == str(tmp_path / "sub/x")


def test_a_params_file_may_be_json(tmp_path: Path) -> None:
    text = '{\n\t"n": 3,\n\t"s": "\\ud83d\\ude00 \\\\ud83d \\u00e9",\n\t"l": ["a"]\n}'
    found = from_file(TYPES, text, tmp_path, "values.json")
    assert (found["n"], found["s"], found["l"]) == (3, "\U0001f600 \\ud83d é", ["a"])


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}"])
def test_an_empty_params_file_gives_nothing(text: str, tmp_path: Path) -> None:
    assert from_file("{n: 3}", text, tmp_path) == {"n": 3}


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("n: three", ["values.yaml:1:4: n: three is not a whole number"]),
        ("s: x\nn:\n  a: 1", ["values.yaml:3:3: n: {'a': 1} is not a whole number"]),
        ("nn: 3", ["values.yaml:1:1: nn: the job has no such parameter. Did you mean 'n'?"]),
        (
            "n: x\nzzzz: 3\nb: 7",
            ["values.yaml:2:1: zzzz: the job has no such", "values.yaml:1:4: n: x is not", "values.yaml:3:4: b: 7 is"],
        ),
        ("s:", ["values.yaml:1:3: s: null is not text"]),
    ],
)
def test_a_mistake_in_a_params_file_has_its_line_and_column(text: str, messages: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        from_file(TYPES, text, tmp_path)
    told = [line for line in str(caught.value).splitlines() if line.startswith(str(tmp_path))]
    assert len(told) == len(messages)
    assert all(line.startswith(f"{tmp_path}/{message}") for line, message in zip(told, messages, strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a, b]", "1:1: a params file is a map; this is a list. A params file has lines like name: value"),
        ("just text", "1:1: a params file is a map; this is a single value."),
        ("a: [1, 2", "expected ',' or ']'"),
        ("n: 1\nn: 2", "2:1"),
    ],
)
def test_a_params_file_that_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(JobFileError) as caught:
        from_file(TYPES, text, tmp_path)
    assert message in str(caught.value)


def test_a_params_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--params-file .*/none.yaml: there is no such file"):
        given.from_file(job("{}"), tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="this is a directory, not a params file"):
        given.from_file(job("{}"), tmp_path)


def test_a_params_file_that_everybody_may_write_is_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("n: 1")
    path.chmod(0o666)
    with pytest.raises(UnsafeError, match="the params file"):
        given.from_file(job("{n: 3}"), path)


# --- the environment ---------------------------------------------------------------------------------------------------------


def from_environment(declarations: str, **environ: str) -> dict[str, object]:
    declared = job(declarations)
    return dict(params.resolve(declared, given.from_environment(declared, environ, cwd=CWD), folder=FOLDER))


def test_a_variable_gives_a_parameter_its_value() -> None:
    declarations = "{count: 3, dry-run: false, out_dir: {type: path}, l: [x]}"
    environ = {"COUNT": "7", "DRY_RUN": "yes", "OUT_DIR": "sub", "L": "a,b"}
    found = from_environment(declarations, **{f"JOBRUNNER_PARAM_{name}": value for name, value in environ.items()})
    assert found == {"count": 7, "dry-run": True, "out_dir": "/here/sub", "l": ["a", "b"]}


def test_a_variable_that_is_no_parameter_is_for_another_job() -> None:
    assert from_environment("{count: 3}", JOBRUNNER_PARAM_CUONT="7", JOBRUNNER_PARAM_="x", COUNT="9") == {"count": 3}


def test_a_wrong_value_names_its_variable() -> None:
    with pytest.raises(UsageError, match=r"^parameter count: x is not a whole number \(from JOBRUNNER_PARAM_COUNT\)$"):
        from_environment("{count: 3}", JOBRUNNER_PARAM_COUNT="x")


def test_a_wrong_value_of_the_command_line_names_its_option() -> None:
    values = given.from_call({"count": "x", "cuont": "1"}, cwd=CWD, source="--set")
    with pytest.raises(UsageError) as caught:
        params.resolve(job("{count: 3}"), values, folder=FOLDER)
    assert str(caught.value).splitlines() == [
        "parameter cuont: the job has no such parameter (from --set). Did you mean 'count'?",
        "parameter count: x is not a whole number (from --set)",
    ]
