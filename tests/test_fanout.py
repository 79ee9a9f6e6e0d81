"""What foreach comes to: values, numbers, files and lines, and what is said where there are none or too few."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobrunner.bind import fanout
from jobrunner.cli.main import cli
from jobrunner.errors import ExpressionError
from jobrunner.spec import Task

NOWHERE = Path("/jobs")


def items(foreach: object, folder: Path = NOWHERE, params: Mapping[str, Any] | None = None) -> list[object]:
    task = Task.model_validate({"run": "true", "foreach": foreach})
    return list(fanout.unfolding(task, str(folder))({"params": params or {}}))


# --- values ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("foreach", "expected"),
    [
        (["a", 1, None, {"x": [1]}], ["a", 1, None, {"x": [1]}]),
        (["${{ params.n }}", "n=${{ params.n }}"], [3, "n=3"]),
        ([], []),
        ({"range": 3}, [0, 1, 2]),
        ({"range": [2, 5]}, [2, 3, 4]),
        ({"range": [5, 0, -2]}, [5, 3, 1]),
        ({"range": 0}, []),
        ("${{ params.list }}", ["x", "y"]),
        ("${{ sorted(params.list + ['a']) }}", ["a", "x", "y"]),
    ],
)
def test_what_foreach_gives(foreach: object, expected: list[object]) -> None:
    assert items(foreach, params={"n": 3, "list": ["x", "y"]}) == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [("text", "text"), ({"a": 1}, "a map"), (3, "a number"), (True, "true or false"), (None, "nothing (null)")],
)
def test_an_expression_that_gives_no_list_says_what_it_gives(value: object, said: str) -> None:
    with pytest.raises(ExpressionError, match=f"it gives {said.split(' (')[0]}.*, not a list"):
        items("${{ params.x }}", params={"x": value})


# --- files -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.csv", "a.csv", ".hidden.csv", "c.txt", "sub/d.csv", "sub/deep/e.csv", ".git/f.csv", "[x].csv"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.csv", ["[x].csv", "a.csv", "b.csv"]),
        ("**/*.csv", ["[x].csv", "a.csv", "b.csv", "sub/d.csv", "sub/deep/e.csv"]),
        ("sub/**/*.csv", ["sub/d.csv", "sub/deep/e.csv"]),
        ("sub/*", ["sub/d.csv", "sub/deep"]),
        ("*/", ["sub/"]),
        ("[ab].csv", ["a.csv", "b.csv"]),
        ("[[]x].csv", ["[x].csv"]),
        (".*.csv", [".hidden.csv"]),
        ("none*", []),
        ("${{ params.end }}", ["c.txt"]),
    ],
)
def test_glob_gives_sorted_paths_from_the_job_files_folder_without_hidden_ones(
    folder: Path, pattern: str, expected: list[str]
) -> None:
    assert items({"glob": pattern}, folder, {"end": "*.txt"}) == expected


def test_an_absolute_glob_gives_absolute_paths(folder: Path) -> None:
    assert items({"glob": f"{folder}/*.txt"}) == [f"{folder}/c.txt"]


def test_a_glob_leaves_out_names_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.csv")).write_text("")
    (tmp_path / "ok.csv").write_text("")
    assert items({"glob": "*.csv"}, tmp_path) == ["ok.csv"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*.csv", "*.txt"], ["[x].csv", "a.csv", "b.csv", "c.txt"]),
        (["*.txt", "*.csv"], ["[x].csv", "a.csv", "b.csv", "c.txt"]),
        (["a.*", "*.csv", "[ab].csv"], ["[x].csv", "a.csv", "b.csv"]),
        (["**/**/e.csv"], ["sub/deep/e.csv"]),
        (["./a.*", "a.csv", "sub/../a.csv"], ["./a.csv"]),
        (["*", "*/"], ["[x].csv", "a.csv", "b.csv", "c.txt", "sub"]),
        (["none*", "c.*"], ["c.txt"]),
        (["${{ params.list }}"], ["a.csv", "c.txt"]),
        (["${{ params.list }}", "b.csv"], ["a.csv", "b.csv", "c.txt"]),
        ("${{ params.list }}", ["a.csv", "c.txt"]),
        ("${{ params.none }}", []),
        ("${{ [] }}", []),
    ],
)
def test_several_patterns_give_each_file_once_sorted_over_all(folder: Path, patterns: object, expected: list[str]) -> None:
    assert items({"glob": patterns}, folder, {"list": ["c.*", "a.*"], "none": None}) == expected


def test_of_a_file_that_is_matched_relative_and_absolute_the_first_way_is_taken(folder: Path) -> None:
    assert items({"glob": [f"{folder}/c.*", "*.txt"]}, folder) == [f"{folder}/c.txt"]
    assert items({"glob": ["*.txt", f"{folder}/c.*"]}, folder) == ["c.txt"]


@pytest.mark.parametrize(
    ("patterns", "least", "said"),
    [
        ("data/*.csv", 1, "0 files match data/*.csv, and at_least asks for 1"),
        ("*.csv", 4, "3 files match *.csv, and at_least asks for 4"),
        (["*.txt"], 2, "1 file matches *.txt, and at_least asks for 2"),
        (["*.txt", "*.csv"], 5, "4 files match *.txt or *.csv, and at_least asks for 5"),
        (["1", "2", "3", "4", "5"], 1, "0 files match 1 or 2 or 3 or one of 2 more, and at_least asks for 1"),
        ("${{ params.none }}", 1, "0 files match nothing, and at_least asks for 1"),
        ("${{ [] }}", 1, "0 files match no pattern, and at_least asks for 1"),
    ],
)
def test_fewer_files_than_at_least_are_an_error(folder: Path, patterns: object, least: int, said: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        items({"glob": patterns, "at_least": least}, folder, {"none": None})
    assert str(caught.value) == said
    assert items({"glob": ["*.csv", "*.txt"], "at_least": 4}, folder) == ["[x].csv", "a.csv", "b.csv", "c.txt"]


def test_a_task_with_too_few_files_fails_and_what_needs_it_is_skipped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", str(folder / "state"))
    (folder / "job.yaml").write_text(
        "tasks:\n"
        "  load: {foreach: {glob: ['*.csv', '*.xml'], at_least: 4}, run: 'echo ${{ stem(item) }}'}\n"
        "  report: {needs: [load], run: echo}\n"
    )
    assert cli([str(folder / "job.yaml")]) == 1
    assert "foreach: 3 files match *.csv or *.xml, and at_least asks for 4" in capsys.readouterr().out
    (folder / "d.csv").touch()
    assert cli(["resume", str(folder / "job.yaml"), "--retry-failed"]) == 0
    assert "load[d.csv] | d\n" in capsys.readouterr().out


def test_a_pattern_that_no_path_can_hold_is_an_error(folder: Path) -> None:
    with pytest.raises(ExpressionError, match="NUL character"):
        items({"glob": ["*.csv", "${{ params.bad }}"]}, folder, {"bad": "\0"})


# --- lines -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb", ["a", "b"]),
        (b"\n\na\n\n", ["a"]),
        (b"  a b \n", ["  a b "]),
        (b"", []),
        ("\ufeffü\n".encode(), ["ü"]),
    ],
)
def test_lines_gives_the_lines_of_a_file_without_empty_ones(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    (tmp_path / "list").write_bytes(content)
    assert items({"lines": "${{ params.file }}"}, tmp_path, {"file": "list"}) == expected


def test_lines_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    expected = {
        "missing": "No such file or directory",
        "latin": "can't decode byte 0xe9",
        "folder": "it is not a regular file",
        "fifo": "it is not a regular file",
    }
    for name, why in expected.items():
        with pytest.raises(ExpressionError, match=f"cannot read the lines of .*/{name}: .*{why}"):
            items({"lines": name}, tmp_path)


def test_lines_of_a_file_that_is_far_too_large_are_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate((256 << 20) + 1)
    with pytest.raises(ExpressionError, match="larger than 256 MiB"):
        items({"lines": "large"}, tmp_path)


def test_lines_are_those_of_any_system_without_the_empty_ones(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\rthree\n\nf\xc3\xbcnf")
    items = fanout.unfolding(Task.model_validate({"run": "true", "foreach": {"lines": "lines.txt"}}), str(tmp_path))({})
    assert list(items) == ["one", "two", "three", "fünf"]
    assert items[1:3] == ["two", "three"]
    assert items[-1] == "fünf"


def test_links_in_a_circle_end_the_search_for_files(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("a", "b"):
        (tmp_path / "d" / name).symlink_to(".")
    (tmp_path / "d" / "f.txt").touch()
    task = Task.model_validate({"run": "true", "foreach": {"glob": "d/**/*.txt"}})
    assert list(fanout.unfolding(task, str(tmp_path))({})) == ["d/f.txt"]
