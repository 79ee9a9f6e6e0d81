"""docs/errors.md is what jobrunner says: each message with the file that causes it, its real output, and the file mended.

        tests/errors/*.yaml ─bad─▶ jobrunner validate ─▶ docs/errors.md          UPDATE_ERRORS=1 writes the page
                            └good─▶ jobrunner validate ─▶ valid

Every message text in the sources of the checks has an entry, or stands in LEFT_OUT with the reason.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

import jobrunner
from jobrunner import expressions
from jobrunner.cli.main import cli
from jobrunner.errors import ExpressionError

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "errors.md"
AREAS = sorted((ROOT / "tests" / "errors").glob("*.yaml"))
VALIDATE = "validate job.yaml"

INTRO = """\
# Messages

Every message about a job file: the file that causes it, what is printed, and the file mended. Search this page for a message
without the names in it. Unless a command stands there, the file is `job.yaml` and the command `jobrunner validate job.yaml`;
`jobrunner job.yaml` says the same and runs nothing. All mistakes of a file are told at once, in file order; each is
`file:line:column`, the key, the message, and what to write instead. The exit code is 2.

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A message, with the file that causes it. `good` is the file mended, `mended` the command where that is what changes."""

    area: str
    message: str
    bad: str
    good: str = ""
    why: str = ""
    search: str = ""
    command: str = VALIDATE
    mended: str = ""
    encoding: str = "utf-8"
    exits: int = 2
    runs: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    mended_files: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.area}: {self.message}"


@functools.cache
def area(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def entries_of(path: Path) -> list[Entry]:
    return [Entry(area=path.stem, **each) for each in area(path).get("entries", ())]


AREA = {path.stem: path for path in AREAS}
ENTRIES = [entry for path in AREAS for entry in entries_of(path)]


# --- what is printed ---------------------------------------------------------------------------------------------------------


def ran(command: str, files: Mapping[str, bytes]) -> tuple[int, str]:
    """Exit code and output of jobrunner in a folder that holds these files and nothing else."""
    printed = io.StringIO()
    with beside(files) as folder, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        exited = cli(shlex.split(command))
    return exited, re.sub(r"(?m)^ +│ +[~^]+\n", "", printed.getvalue().replace(folder, "…"))  # 3.13 marks more in its tracebacks


@contextlib.contextmanager
def beside(files: Mapping[str, bytes]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name, source in files.items():
            Path(name).write_bytes(source)
        yield folder


@functools.cache
def output(position: int) -> tuple[int, str]:
    """What the bad file of an entry comes to."""
    entry = ENTRIES[position]
    return ran(entry.command, {"job.yaml": entry.bad.encode(entry.encoding), **files_of(entry)})


def files_of(entry: Entry, changed: Mapping[str, str] | None = None) -> dict[str, bytes]:
    """What lies beside the job file: what the area has, the entry, and what is changed of it."""
    files = {**area(AREA[entry.area]).get("files", {}), **entry.files, **(changed or {})}
    return {name: text.encode() for name, text in files.items()}


def output_of(entry: Entry) -> str:
    return output(ENTRIES.index(entry))[1]


def pattern(text: str) -> re.Pattern[str]:
    """A message in which … stands for what differs."""
    return re.compile(".*?".join(map(re.escape, text.split("…"))))


@pytest.mark.parametrize("position", range(len(ENTRIES)), ids=lambda position: str(ENTRIES[position]))
def test_a_bad_file_says_the_message_that_its_entry_is_called_by(position: int) -> None:
    entry = ENTRIES[position]
    code, printed = output(position)
    assert code == entry.exits, printed
    assert pattern(entry.search or entry.message).search(printed), printed


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.good or entry.mended], ids=str)
def test_a_mended_file_is_valid(entry: Entry) -> None:
    files = {"job.yaml": (entry.good or entry.bad).encode(), **files_of(entry, entry.mended_files)}
    code, printed = ran(entry.mended or entry.command, files)
    assert code == 0, printed
    assert "warning" not in printed


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.runs], ids=str)
def test_a_mended_file_runs(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path))
    with beside({"job.yaml": entry.good.encode()}):
        assert cli(["job.yaml"]) == 0, capsys.readouterr()


def test_every_entry_is_mended_and_no_two_are_alike() -> None:
    assert [str(entry) for entry in ENTRIES if not (entry.good or entry.mended)] == []
    assert len({entry.message for entry in ENTRIES}) == len(ENTRIES)


# --- the page ----------------------------------------------------------------------------------------------------------------


@functools.cache
def rendered() -> str:
    return "".join(page())


def page() -> Iterator[str]:
    yield INTRO
    for path in AREAS:
        title = area(path)["title"]
        yield f"- [{title}](#{re.sub(r'[^a-z0-9- ]', '', title.lower()).replace(' ', '-')})\n"
    for path in AREAS:
        yield f"\n## {area(path)['title']}\n"
        if intro := area(path).get("intro"):
            yield f"\n{intro.strip()}\n"
        for name, text in area(path).get("files", {}).items():
            yield f"\n{beside_it(name, text)}\n"
        yield from map(section, entries_of(path))
        yield table(area(path))


def section(entry: Entry) -> str:
    command = "" if entry.command == VALIDATE else f"$ jobrunner {entry.command}\n"
    parts = [f"### {code(entry.message)}", block("yml", entry.bad, name="job.yaml" if entry.files else "")]
    parts += [beside_it(name, text) for name, text in entry.files.items()]
    parts += [block("text", command + output_of(entry)), entry.why, *mended(entry)]
    return "\n" + "\n\n".join(filter(None, parts)) + "\n"


def mended(entry: Entry) -> Iterator[str]:
    if entry.mended:
        yield f"Mended: `jobrunner {entry.mended}`"
    elif entry.encoding != "utf-8":
        yield "Mended: the same file, saved as UTF-8."
    else:
        yield "Mended:"
    if entry.good and entry.good != entry.bad:
        language = "yml" if entry.good.startswith("include:") else "yaml"  # what it includes is not there when docs are checked
        yield block(language, entry.good, name="job.yaml" if entry.mended_files else "")
    yield from (beside_it(name, text) for name, text in entry.mended_files.items())


def beside_it(name: str, text: str) -> str:
    return block("yml" if name.endswith(".yaml") else "python", text, name=name)


def block(language: str, text: str, *, name: str = "") -> str:
    """A fenced block; a character that nobody sees is shown as its picture."""
    named = f"# {name}\n" if name else ""
    shown = re.sub(r"[\x00-\x08\x0b-\x1f]", lambda found: chr(0x2400 + ord(found[0])), named + text)
    return f"```{language}\n{shown.rstrip()}\n```"


def code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def table(found: Mapping[str, Any]) -> str:
    if "expressions" not in found:
        return ""
    rows = [f"| {code(text)} | {said(text, found['scope']).replace('|', chr(92) + '|')} |" for text in found["expressions"]]
    return "\n".join(["", "| expression | message |", "| --- | --- |", *rows, ""])


def said(text: str, scope: Mapping[str, Any]) -> str:
    """What goes wrong with an expression, and what to write instead."""
    template = expressions.parse("${{ " + text + " }}")
    assert template is not None
    with pytest.raises(ExpressionError) as caught:
        template.value(scope)
    return f"{caught.value.message}{'.' if caught.value.hint else ''} {caught.value.hint}".strip()


def test_the_page_is_what_jobrunner_says() -> None:
    """UPDATE_ERRORS=1 writes it."""
    text = rendered()
    if os.environ.get("UPDATE_ERRORS"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text


# --- nothing is forgotten ----------------------------------------------------------------------------------------------------

PACKAGE = Path(jobrunner.__file__).parent
SOURCES = [
    *sorted((PACKAGE / "jobfile").glob("*.py")),
    *sorted((PACKAGE / "expressions").glob("*.py")),
    *sorted((PACKAGE / "preflight").glob("*.py")),
    *(PACKAGE / name for name in ("spec.py", "selection.py")),
]
NO_MESSAGES = {"fix.py", "vocabulary.py", "answers.py"}
"""What was mended, and hints: see test_fix and test_foreign."""

_OF_PYYAML = "the parser's own words, which reader translates"
_LARGE = "takes a file that is larger than an example"
_PART = "one of several that differ in a word, or a part of a message: an entry shows another one"
_OF_RUNS = "told while a task runs"
_INSIDE = "nobody reads it"
LEFT_OUT: dict[str, str] = {
    **dict.fromkeys(
        (
            "cannot start any token",
            "alphabetic or numeric",
            "could not find expected ':'",
            "did not find expected ',' or ']'",
            "did not find expected ',' or '}'",
            "did not find expected '-' indicator",
            "did not find expected key",
            "found unexpected end of stream",
            "found unknown escape character",
            "mapping values are not allowed",
            "that violates indentation",
            "undefined tag handle",
            "this is not YAML: …",  # for what it may yet say
            "an escape in double quotes names no character",  # only where PyYAML is without libyaml
        ),
        _OF_PYYAML,
    ),
    "… is more than this machine has: …": "the page would be another one on each machine: tests/test_validate.py has it",
    **dict.fromkeys(
        (
            "a number of … characters; quote it if it is text",
            "… problems up to here; the rest of the file is not read",
            "there are more problems; mend these first",
            "more than … files are included",
            "the included files are larger than … MiB together",
            "the file is larger than … MiB; a job file is never that large",
            "and … more, back to …",
            "a text holds at most … expressions; this one has …",
            "the expression has … characters; at most … are read",
            "… holds a character that no expression can hold",  # one that no page can show
            "the file cannot be read: it has nothing to read now",  # one of the kernel's
            "this is not a regular file",  # a device
            "the file cannot be read: …",  # for want of permissions, which root never has
        ),
        _LARGE,
    ),
    **dict.fromkeys(
        (
            "… in a task.",
            "pool and {given} exclude each other",
            "a single value",
            "the params file",
            "`a if c else b`",
            "0 * * * *",
            "0 0 * * 0",
            "0 0 1 * *",
            "0 0 1 1 *",
            "there is nothing in it",
            "…, or not a number",
            "a list holds text, numbers, true, false, null, lists and maps; this one holds something else",  # from Python
            "module 'jobrunner.jobfile' has no attribute …",  # from Python
            "… is not text or a number",
            "… is a list of task names: write …=[…]",  # from Python
            "looking at … raised …",
            ": ….py is not a regular file",  # takes a FIFO or a folder of that name
            "…, a folder without __init__.py",
            "cannot be tried: its interpreter …",
            "a word after …",
            "a command that is nested this deeply",
            "a command with a line that is broken inside a mark",
            "… loads …: … workers × … BLAS threads on … CPUs",  # takes numpy
            "; lines of a command go under 'run: |'",
        ),
        _PART,
    ),
    **dict.fromkeys(
        (
            "the value is too large or too deep",
            "only a number can stand in $((…)), not …; int(x) makes one of x",
            "the value holds a NUL character, which no command line can hold",
            "the value holds a lone surrogate, which no command line can hold",
            "the result would have a length of …; at most … are made",
            "… that holds NaN or infinity, or is too large, has no JSON text",
        ),
        _OF_RUNS,
    ),
    **dict.fromkeys(
        (
            "the next item of a sequence",
            "the next key of a mapping",
            "the value of <<",
            "the value of a key that was refused",
            "a job without a problem is valid",
            "expected a finite number",  # no key asks for one yet
            "ast.expr | ast.keyword",
            "str | int",
            "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None",
            "jobrunner job file",
        ),
        _INSIDE,
    ),
}
"""Texts of messages that have no entry, and why not."""


def literals(path: Path) -> Iterator[str]:
    """The texts of messages: three words or more, as they begin in lower case; hints begin with a capital letter."""
    rest: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while rest:
        node = rest.pop()
        if (text := literal(node)) is None:
            rest += [child for child in ast.iter_child_nodes(node) if not is_beside(child)]
        elif text.strip().count(" ") >= 2 and not text[0].isupper() and "\n" not in text and "import sys" not in text:
            yield text


def is_beside(node: ast.AST) -> bool:
    """A docstring, or a hint or description by its keyword."""
    if isinstance(node, ast.keyword):
        return node.arg in {"hint", "description"}
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def literal(node: ast.AST) -> str | None:
    """A text, with … for each value in it."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name not in NO_MESSAGES], ids=lambda path: path.stem)
def test_every_message_in_the_sources_has_an_entry(path: Path) -> None:
    printed = rendered().replace("\\|", "|")
    forgotten = {text for text in literals(path) if text not in LEFT_OUT and not pattern(text).search(printed)}
    assert sorted(forgotten) == [], "each wants an entry in tests/errors, or a reason in LEFT_OUT"
