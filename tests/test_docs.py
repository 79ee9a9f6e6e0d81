"""The documentation is true: every YAML example runs, prints what is written under it, and every key has one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel

from jobrunner import jobfile, spec
from jobrunner.cli.main import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = [ROOT / "README.md", ROOT / "docs" / "job-file.md", ROOT / "docs" / "python.md"]
"""Pages whose every YAML block is a whole job that runs; on the others it is a job, or a part of one, that is valid."""
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: `language`, then its options, as in ```yaml exit=1 or ```python file=functions.py."""

    page: Path
    line: int
    language: str
    options: dict[str, str]
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        language, *options = match["info"].split() or [""]
        pairs = dict(option.partition("=")[::2] for option in options)
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page=page, line=line, language=language, options=pairs, text=match["text"])


def examples() -> Iterator[tuple[Block, Block | None]]:
    """Every YAML block, with the output block that follows it, where one does; the command may stand in between."""
    for page in RUN:
        found = [*(block for block in blocks(page) if block.language != "console"), None]
        for block, after in pairwise(found):
            if block is not None and block.language == "yaml":
                yield block, after if after is not None and "output" in after.options else None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, but for what a clone has and examples use."""
    monkeypatch.chdir(tmp_path)
    for name in ("docs", "jobs", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def lay_out(page: Path, folder: Path) -> None:
    """Write the files that a page shows."""
    for block in blocks(page):
        if name := block.options.get("file", block.options.get("name")):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(block.text)


@pytest.mark.parametrize(("block", "output"), [pytest.param(*pair, id=str(pair[0])) for pair in examples()])
def test_an_example_runs_and_prints_what_stands_under_it(
    block: Block, output: Block | None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(block.page, folder)
    name = block.options.get("name", "example.yaml")
    (folder / name).write_text(block.text)
    code = cli([name])
    printed, told = capsys.readouterr()
    assert code == int(block.options.get("exit", "0")), printed + told
    if output is not None:
        assert sorted(task_lines(printed)) == sorted(task_lines(output.text))


OTHERS = [block for page in PAGES if page not in RUN for block in blocks(page) if block.language == "yaml"]


@pytest.mark.parametrize("block", OTHERS, ids=str)
def test_an_example_that_only_shows_something_is_valid(block: Block) -> None:
    text = block.text if re.search("^tasks:", block.text, re.MULTILINE) else f"{block.text}\ntasks: {{one: {{run: 'true'}}}}"
    assert jobfile.parse(text.encode(), str(block)).tasks


@pytest.mark.parametrize("block", [block for page in PAGES for block in blocks(page) if "run" in block.options], ids=str)
def test_an_example_in_python_runs(block: Block, folder: Path) -> None:
    lay_out(block.page, folder)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", block.text], env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def task_lines(text: str) -> list[str]:
    """What tasks printed. Which of two tasks that run at once is first is nobody's promise."""
    return [line for line in text.splitlines() if re.match(r"[\w-]+(\[[^]]*\])? \| ", line)]


MODELS: list[type[BaseModel]] = [
    spec.Job, spec.Task, spec.Defaults, spec.Pool, spec.Param, spec.Retry, spec.Stop, spec.Range, spec.Glob, spec.Lines,
    spec.Secret, spec.Concurrency, spec.Resources, spec.Limit, spec.Cache, spec.Schedule,
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_of_the_job_file_is_explained_and_stands_in_an_example(model: type[BaseModel]) -> None:
    page = ROOT / "docs" / "job-file.md"
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    shown = "\n".join(block.text for block in blocks(page) if block.language == "yaml")
    for key in spec.keys(model):
        assert re.search(rf"[`{{]{key}\b|^### .*\b{key}\b", prose, re.MULTILINE), f"docs/job-file.md does not explain {key}"
        assert re.search(rf"\b{key}:", shown), f"docs/job-file.md has no example with {key}"


def test_the_readme_shows_what_its_example_prints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "README.md"
    lay_out(page, folder)
    ((example, output),) = [(block, after) for block, after in examples() if block.page == page]
    assert output is not None
    assert cli([example.options["name"], "--log-file", "log.jsonl"]) == 0
    assert steady(capsys.readouterr().out) == steady(output.text)


def steady(text: str) -> str:
    """Printed text without what differs from run to run: times, what they come to, and where the output lies."""
    text = re.sub(r"(?m)^ *slowest: .*\n?", "", text)  # there is none where all took less than 10 ms
    text = re.sub(r"\d+(\.\d+)? s\b.*", "N s …", text)
    return re.sub(r"\S*/(\w+)/\d{8}T\d{6}Z-\w+/", r"…/\1/…/", text).strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_or_a_heading_leads_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in set(anchors(file)), f"{page.name}: {target}"


def anchors(page: Path) -> Iterator[str]:
    """The anchors of a page's headings, as GitHub makes them, and those that it has of its own."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    yield from re.findall(r'^<a id="([^"]+)"></a>$', text, re.MULTILINE)
    for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_design_names_every_module() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    modules = {path.stem for path in (ROOT / "jobrunner").rglob("*.py") if not path.stem.startswith("__")}
    assert {name for name in modules if not re.search(rf"\b{name}\b", text)} == set()
