"""Completion in the shell: what click is asked by bash, zsh and fish, and what it answers from the job file on the line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobrunner.cli import completion
from jobrunner.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parent.parent

JOB = """
params:
  root: {type: path, description: what to read}
  level: {default: low, choices: [low, high]}
  full: false
  strict: {type: bool}
tasks:
  fetch: {run: echo, description: "get it,\\n all"}
  filter: {needs: [fetch], run: echo}
  build: {needs: [filter], run: echo}
finally:
  forget: {run: echo}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    return Ask(monkeypatch, capsys)


class Ask:
    """What bash is answered on a line whose last word is not complete; a blank at its end begins a new one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, line: str, shell: str = "bash") -> list[str]:
        words = line.replace("=", " = ").split() if shell == "bash" else line.split()
        place = len(words) - (not line.endswith(" "))
        self._monkeypatch.setenv("COMP_WORDS", " ".join(words))
        current = "" if line.endswith(" ") else words[-1]
        self._monkeypatch.setenv("COMP_CWORD", current if shell == "fish" else str(place))
        self._monkeypatch.setenv(completion.VARIABLE, f"{shell}_complete")
        cli()
        told = self._capsys.readouterr()
        assert told.err == ""
        return told.out.splitlines()


TASKS = ["plain,fetch", "plain,filter", "plain,build", "plain,forget"]


@pytest.mark.parametrize("option", ["--only", "--from", "--until", "--skip"])
@pytest.mark.parametrize("begin", ["jobrunner job.yaml", "jobrunner run job.yaml", "jobrunner plan job.yaml"])
def test_an_option_that_selects_is_completed_with_the_tasks_of_the_job(ask: Ask, begin: str, option: str) -> None:
    assert ask(f"{begin} {option} ") == TASKS
    assert ask(f"{begin} {option} fi") == ["plain,filter"]
    assert ask(f"{begin} {option} fetch {option}=fo") == ["plain,forget"]


def test_the_tasks_of_a_resume_are_completed(ask: Ask) -> None:
    assert ask("jobrunner resume job.yaml --rerun f") == ["plain,fetch", "plain,filter", "plain,forget"]


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("jobrunner job.yaml --set ", ["open,root=", "open,level=", "open,full=", "open,strict="]),
        ("jobrunner job.yaml --set le", ["open,level="]),
        ("jobrunner job.yaml --set level=", ["plain,low", "plain,high"]),
        ("jobrunner job.yaml --set level=h", ["plain,high"]),
        ("jobrunner job.yaml --set=level=h", ["plain,high"]),
        ("jobrunner job.yaml --set full=t", ["plain,true"]),
        ("jobrunner job.yaml --set strict=", ["plain,true", "plain,false"]),
        ("jobrunner job.yaml --set root=", []),
        ("jobrunner job.yaml --set none=", []),
    ],
)
def test_a_parameter_is_completed_and_behind_it_its_choices(ask: Ask, line: str, answers: list[str]) -> None:
    assert [line for line in ask(line) if line] == answers


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_is_no_word_of_a_command_line_is_never_offered(ask: Ask, folder: Path, shell: str) -> None:
    (folder / "job.yaml").write_text(
        "params:\n  l: {choices: [plain, a b, 'x;y', $(touch pwn), '~', \"new\\nline\", '', -x, häuser/a.csv, '`id`']}\n"
        "  'p;q': {default: 1}\n"
        "tasks:\n  fine: {run: x}\n  a;rm -rf ~: {run: x}\n  $(touch pwn): {run: x}\n  \"b\\nc\": {run: x}\n  '': {run: x}\n"
    )
    offered = ["plain,fine"] if shell != "zsh" else ["plain", "fine", "_"]
    assert ask("jobrunner job.yaml --only ", shell) == offered
    values = [line for line in ask("jobrunner job.yaml --set l=", shell) if line not in ("plain", "_")]
    assert [line.removeprefix("plain,").removeprefix("l=") for line in values] == ["plain", "-x", "häuser/a.csv"]
    assert not [line for line in ask("jobrunner job.yaml --set ", shell) if "q" in line]


def test_zsh_and_fish_get_the_whole_word_and_descriptions(ask: Ask) -> None:
    assert ask("jobrunner job.yaml --set level=h", "zsh") == ["plain", "level=high", "_"]
    assert ask("jobrunner job.yaml --set level=h", "fish") == ["plain,level=high"]
    assert ask("jobrunner job.yaml --set ro", "zsh") == ["plain", "root=", "what to read"]
    assert ask("jobrunner job.yaml --only fe", "fish") == ["plain,fetch\tget it, all"]


def test_the_first_word_is_a_command_or_a_file(ask: Ask) -> None:
    assert ask("jobrunner ") == ["file,", *(f"plain,{command}" for command in COMMANDS)]
    assert ask("jobrunner val") == ["file,val", "plain,validate"]
    assert ask("jobrunner run jo") == ["file,jo"]


def test_options_are_completed_behind_a_file_as_behind_run(ask: Ask) -> None:
    assert ask("jobrunner job.yaml --dr") == ask("jobrunner run job.yaml --dr") == ["plain,--dry-run"]


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("tasks:\n  one: {run: x}\n  two: {run: [", ["one", "two"]),
        ("tasks:\n  one: {run: x}\n\tbad", ["one"]),
        ("tasks: {a: &x {run: y}, b: *x, c: *y}", ["a", "b", "c"]),
        ("x: &x {a: {run: y}}\ntasks:\n  <<: *x\n  b: {run: z}", ["a", "b"]),
        ("tasks: [a, b]", []),
        ("[" * 5000, []),
        ("- a", []),
        ("", []),
        ("\0", []),
    ],
)
def test_of_a_file_that_is_broken_what_can_be_read_is_completed(ask: Ask, folder: Path, text: str, answers: list[str]) -> None:
    (folder / "job.yaml").write_text(text)
    assert [line for line in ask("jobrunner job.yaml --only ") if line] == [f"plain,{name}" for name in answers]


@pytest.mark.parametrize(
    "line", ["jobrunner gone.yaml --only ", "jobrunner what --only x", "jobrunner . --set ", "jobrunner --only "]
)
def test_without_a_job_file_there_are_no_names_and_no_mistake(ask: Ask, line: str) -> None:
    assert not [answer for answer in ask(line) if answer.startswith(("plain,f", "open,"))]


def test_what_a_job_includes_is_completed_too(ask: Ask, folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "job.yaml").write_text("include: [more/base.yaml, gone.yaml]\ntasks: {own: {run: x}}")
    (folder / "more" / "base.yaml").write_text("include: [../job.yaml]\nparams: {p: 1}\ntasks: {shared: {run: x}}")
    assert ask("jobrunner job.yaml --only ") == ["plain,own", "plain,shared"]
    assert ask("jobrunner job.yaml --set ") == ["open,p="]


def test_a_shell_that_is_not_known_is_told_by_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(completion.VARIABLE, "tcsh_source")
    assert cli() == 1


def test_names_are_completed_without_the_models_of_job_files(folder: Path) -> None:
    code = "import sys; from jobrunner.cli.main import cli; cli(); assert not {'pydantic', 'simpleeval'} & set(sys.modules)"
    env = {"COMP_WORDS": "jobrunner job.yaml --only f", "COMP_CWORD": "3", completion.VARIABLE: "bash_complete"}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines() == ["plain,fetch", "plain,filter", "plain,forget"]


@pytest.mark.parametrize(
    ("words", "replies"),
    [
        (("jobrunner", "job.yaml", "--only", "fi"), ["filter"]),
        (("jobrunner", "job.yaml", "--set", "level", "="), ["low", "high"]),
        (("jobrunner", "job.yaml", "--set", "level", "=", "h"), ["high"]),
        (("jobrunner", "job.yaml", "--set", ""), ["root=", "level=", "full=", "strict="]),
        (("jobrunner", "sche"), ["schema"]),
    ],
)
def test_bash_runs_the_script_that_it_is_given(folder: Path, words: tuple[str, ...], replies: list[str]) -> None:
    command = folder / "jobrunner"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m jobrunner "$@"\n')
    command.chmod(0o755)
    quoted = " ".join(f"'{word}'" for word in words)
    line = f"""
        compopt() {{ :; }}
        eval "$(_JOBRUNNER_COMPLETE=bash_source ./jobrunner)"
        COMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1}
        _jobrunner_completion ./jobrunner
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert (ended.stdout.splitlines(), ended.stderr) == (replies, "")
