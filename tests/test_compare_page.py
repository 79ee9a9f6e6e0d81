"""docs/compare.md is true as far as that shows without the other tools: its numbers, its listings, the files that it names."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from jobrunner.cli.main import cli

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "jobs" / "examples"
COMPARED = EXAMPLES / "compared"
PAGE = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
ENDINGS = (".Taskfile.yml", "_dodo.py", ".dagu.yaml")
NAMES = ("backup", "csv_fanout", "python_matrix", "thumbnails", "web_scrape")
OTHERS = ("db_dump", "dependency_audit", "etl_sqlite", "log_shipping", "pdf_text")
DodoTask = dict[str, list[tuple[Callable[..., object], tuple[object, ...]]]]
FILES = [COMPARED / f"{name}{ending}" for name in NAMES for ending in ENDINGS]
ROW = re.compile(r"^\| \[(?P<name>\w+)\]\(\.\./jobs/examples/\w+\.yaml\) \|(?P<cells>.*)\|$", re.MULTILINE)
HEREDOC = re.compile(r"<<'END'[^\n]*\n(?P<text>.*?)^END$", re.MULTILINE | re.DOTALL)
LISTING = re.compile(r"\]\((?P<path>\.\./jobs/[^)]+)\):\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def code_lines(file: Path) -> int:
    """Lines that are not blank, no comment, and in Python no docstring."""
    text = file.read_text(encoding="utf-8")
    code = {number for number, line in enumerate(text.splitlines(), 1) if line.strip() and not line.lstrip().startswith("#")}
    return len(code - docstring_lines(text) if file.suffix == ".py" else code)


def docstring_lines(text: str) -> set[int]:
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    first = [node.body[0] for node in nodes if ast.get_docstring(node)]
    return {line for each in first for line in range(each.lineno, (each.end_lineno or each.lineno) + 1)}


def expected_row(name: str) -> list[str]:
    """The numbers of a job: its functions, which all four share, then what each tool needs besides."""
    files = [EXAMPLES / f"{name}.py", EXAMPLES / f"{name}.yaml", *(COMPARED / f"{name}{ending}" for ending in ENDINGS)]
    return [f"[{code_lines(file)}](../{file.relative_to(ROOT)})" if file.exists() else "–" for file in files]


@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_the_numbers_of_lines_are_those_of_the_files(name: str) -> None:
    rows = {row["name"]: [cell.strip() for cell in row["cells"].split("|")] for row in ROW.finditer(PAGE)}
    assert rows[name][:5] == expected_row(name), f"docs/compare.md: the row of {name} should be {' | '.join(expected_row(name))}"


def test_code_lines_are_neither_blank_nor_comments_nor_docstrings(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    code = ["A = 1  # code", "def f():", '    """Two', '    lines."""', '    return """no', '    docstring"""']
    file.write_text("\n".join(['"""Caption."""', "# comment", "", *code]))
    assert code_lines(file) == 4


@pytest.mark.parametrize("listing", [*LISTING.finditer(PAGE)], ids=lambda match: match["path"])
def test_a_job_that_is_shown_in_full_is_the_file_as_it_is(listing: re.Match[str]) -> None:
    file = (ROOT / "docs" / listing["path"]).resolve()
    assert listing["text"] == file.read_text(encoding="utf-8"), f"docs/compare.md shows {file.name} as it was"


def test_two_jobs_are_shown_in_full_for_each_tool() -> None:
    shown = {Path(match["path"]).name for match in LISTING.finditer(PAGE)}
    assert shown == {f"{name}{ending}" for name in ("csv_fanout", "thumbnails") for ending in (".yaml", *ENDINGS)}


def test_each_compared_file_belongs_to_an_example_and_stands_on_the_page() -> None:
    assert sorted(file for file in COMPARED.iterdir() if file.is_file()) == sorted(FILES)
    for name in NAMES:
        assert (EXAMPLES / f"{name}.yaml").exists()
    for file in FILES:
        assert file.name in PAGE


def documents(file: Path) -> list[dict[str, object]]:
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", sorted(COMPARED.glob("*.Taskfile.yml")), ids=lambda file: file.name)
def test_a_taskfile_is_yaml_with_a_default_task(file: Path) -> None:
    (document,) = documents(file)
    assert document["version"] == "3"
    assert isinstance(document["tasks"], dict)
    assert "default" in document["tasks"]


@pytest.mark.parametrize("file", sorted(COMPARED.glob("*.dagu.yaml")), ids=lambda file: file.name)
def test_a_dagu_file_is_yaml_whose_calls_and_dependencies_are_there(file: Path) -> None:
    found = documents(file)
    names = {document["name"] for document in found}
    for document in found:
        steps = document["steps"]
        assert isinstance(steps, list)
        ids = {step["id"] for step in steps}
        assert all({*step.get("depends", [])} <= ids and step.get("call") in {None, *names} for step in steps)


def scripts(value: object) -> Iterator[str]:
    """The Python in all here documents of a YAML value."""
    if isinstance(value, str):
        yield from (match["text"] for match in HEREDOC.finditer(value) if "import " in match["text"])
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from scripts(each)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_python_in_a_file_compiles_and_calls_functions_that_the_example_has(file: Path) -> None:
    name = re.split(r"[._](?:Taskfile|dodo|dagu)", file.name)[0]
    source = file.read_text(encoding="utf-8")
    for script in [source] if file.suffix == ".py" else scripts(documents(file)):
        compile(script, file.name, "exec")
    if (functions := EXAMPLES / f"{name}.py").exists():
        tree = ast.parse(functions.read_text(encoding="utf-8"))
        called = set(re.findall(rf"(?<![/\w]){name}\.(\w+)\b(?=[(,)])", source))
        assert called <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


# doit itself need not be there: a stand-in gives the files what they import, and their actions are called in order.


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the examples; the current directory is that of the compared files, as doit has it."""
    copy = tmp_path / "jobs" / "examples"
    shutil.copytree(EXAMPLES, copy)
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(copy / "compared")
    return copy


def run_dodo(file: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    doit, tools = types.ModuleType("doit"), types.ModuleType("doit.tools")
    vars(doit).update(get_var=variables.get, create_after=lambda executed: lambda creator: creator)
    vars(tools).update(config_changed=dict)
    name = file.name.removesuffix("_dodo.py")
    sys.modules.pop(name, None)
    for module in (doit, tools):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for create in task_creators(file):
        made = create()
        for task in [made] if isinstance(made, dict) else made:
            for function, *arguments in task["actions"]:
                function(*(arguments[0] if arguments else ()))
    del sys.modules[name]


def task_creators(file: Path) -> list[Callable[[], DodoTask | Iterator[DodoTask]]]:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [value for name, value in vars(module).items() if name.startswith("task_")]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_csv_fanout_gives_the_same_table_either_way(examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, work = tmp_path / "ours.csv", tmp_path / "theirs.csv", tmp_path / "work"
    assert cli([str(examples / "csv_fanout.yaml"), "--set", f"out={ours}", "--set", "paths=20"]) == 0
    settings = {"table": "../csv_fanout.csv", "out": str(theirs), "work": str(work), "paths": "20"}
    run_dodo(examples / "compared" / "csv_fanout_dodo.py", settings, monkeypatch)
    assert len(ours.read_text().splitlines()) > 2
    assert theirs.read_text() == ours.read_text()


def test_thumbnails_are_the_same_either_way(examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, ours, theirs = tmp_path / "images", tmp_path / "ours", tmp_path / "theirs"
    (images / "a folder").mkdir(parents=True)
    for name, width in {"one.jpg": 400, "a folder/it's two.png": 300}.items():
        Image.radial_gradient("L").resize((width, 200)).convert("RGB").save(images / name)
    assert cli([str(examples / "thumbnails.yaml"), "--set", f"root={images}", "--set", f"out={ours}", "--set", "size=32"]) == 0
    settings = {"root": str(images), "out": str(theirs), "size": "32"}
    run_dodo(examples / "compared" / "thumbnails_dodo.py", settings, monkeypatch)
    assert {*contents(ours)} == {"one.jpg.webp", "a folder/it's two.png.webp"}
    assert contents(theirs) == contents(ours)
