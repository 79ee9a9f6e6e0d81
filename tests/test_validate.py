"""`validate`: what it tells, how it weighs it, where it points; and that it imports nothing unless it is asked to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobrunner.cli.main import cli

ROOT = Path(__file__).resolve().parent.parent

WORK = """
from multiprocessing import Pool
print("imported")
open("imported", "w").close()
def f(root: str, n: int = 0): ...
def spread(x):
    return Pool().map(str, [x])
"""
GOOD = "tasks: {a: {target: 'work:f', args: [x]}}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def heads(self) -> list[str]:
        """The first line of every problem, without its folder."""
        return [line.rpartition("/")[2] for line in self.err.splitlines() if ".yaml:" in line]


class Folder:
    """A folder with work.py, in which job files are written and validated."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self._capsys = path, capsys
        (path / "work.py").write_text(WORK)

    def validate(self, job: str, *options: str) -> Told:
        (self.path / "job.yaml").write_text(job)
        code = cli(["validate", *options, str(self.path / "job.yaml")])
        out, err = self._capsys.readouterr()
        return Told(code=code, out=out, err=err)

    @property
    def has_imported(self) -> bool:
        return (self.path / "imported").exists()


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Folder:
    return Folder(tmp_path, capsys)


# --- imports -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--strict"], ["--json"], ["--fix"], ["--strict", "--fix", "--json"]], ids=" ".join)
def test_nothing_of_the_users_is_imported_unless_it_is_asked_for(options: list[str], folder: Folder) -> None:
    assert folder.validate(GOOD, *options).code == 0
    assert not folder.has_imported


def test_imports_are_made_in_another_process_and_what_they_print_is_not_shown(folder: Folder) -> None:
    told = folder.validate(GOOD, "--imports")
    assert (told.code, told.out, told.err) == (0, f"{folder.path}/job.yaml: valid\n", "")
    assert folder.has_imported
    assert "work" not in sys.modules


def test_without_targets_nothing_is_started(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    assert folder.validate("tasks: {a: {run: echo}}", "--imports").code == 0


def test_the_help_says_what_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["validate", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Runs nothing. Imports nothing of yours either, unless --imports asks for it" in text


MISTAKES = """
defaults: {retry: 2}
pools: {odd: {executor: "work:nothing", workers: 2}}
tasks:
  a:
    target: work:f
    args:
      - x
      - 1
      - 2
  b: {target: "work:f", kwargs: {root: x, m: 2}}
  c: {target: "nowhere:f", pool: odd}
finally:
  d:
    target: work:ff
"""


def test_every_finding_stands_at_its_line_and_column(folder: Folder) -> None:
    told = folder.validate(MISTAKES, "--imports")
    assert told.code == 2
    assert told.heads == [
        "job.yaml:3:25: pools.odd.executor: there is no 'nothing' in work.py",
        "job.yaml:10:9: tasks.a.args[2]: it takes at most 2 positional arguments, and gets 3. It is f(root, n=0).",
        "job.yaml:11:43: tasks.b.kwargs.m: it has no parameter 'm'. It is f(root, n=0).",
        "job.yaml:12:15: tasks.c.target: there is no module 'nowhere', neither beside the job file nor on Python's path",
        "job.yaml:15:13: finally.d.target: there is no 'ff' in work.py. Did you mean 'f'?",
    ]


def test_a_finding_about_an_included_task_stands_in_the_included_file(folder: Folder) -> None:
    (folder.path / "shared.yaml").write_text("tasks:\n  b: {target: 'work:missing'}\n")
    told = folder.validate("include: [shared.yaml]\ntasks: {a: {target: 'work:f', args: [x]}}", "--imports")
    (head,) = told.heads
    assert head.startswith("shared.yaml:2:15: tasks.b.target: there is no 'missing' in work.py")


def test_an_import_that_hangs_is_named_within_its_time_and_the_rest_is_checked(folder: Folder) -> None:
    (folder.path / "hangs.py").write_text("print('so far')\nwhile True: pass")
    job = "tasks:\n  a: {target: 'hangs:f'}\n  b: {target: 'work:nothing'}\n"
    told = folder.validate(job, "--imports", "--import-timeout", "0.5")
    assert told.code == 2
    assert [head.split(". ")[0] for head in told.heads] == [
        "job.yaml:2:15: tasks.a.target: importing 'hangs' takes longer than 0.5 s",
        "job.yaml:3:15: tasks.b.target: there is no 'nothing' in work.py",
    ]
    assert "      │ so far\n" in told.err


@pytest.mark.parametrize("seconds", ["0", "-1", "3601", "nan", "soon"])
def test_a_time_limit_that_is_none_is_refused(seconds: str, folder: Folder) -> None:
    told = folder.validate(GOOD, "--imports", "--import-timeout", seconds)
    assert (told.code, folder.has_imported) == (2, False)
    assert "Invalid value for '--import-timeout'" in told.err


def test_a_file_with_mistakes_is_not_imported(folder: Folder) -> None:
    assert folder.validate(GOOD + "\nx: 1", "--imports").code == 2
    assert not folder.has_imported


# --- warnings ----------------------------------------------------------------------------------------------------------------

SLOW = "workers: 4\ntasks: {a: {foreach: [1, 2], target: 'work:spread', args: ['${{ item }}']}}"
TYPED = "tasks: {a: {target: 'work:f', args: [x, '2']}}"


@pytest.mark.parametrize(
    ("job", "head"),
    [
        (SLOW, "job.yaml:2:38: warning: tasks.a.target: work:spread starts a pool of its own (Pool, work.py line 7) inside 2"),
        (TYPED, "job.yaml:1:41: warning: tasks.a.args[1]: 'n' is annotated as int; this is text (\"2\")"),
    ],
)
def test_a_warning_is_told_and_the_file_is_valid_unless_it_must_be_strict(job: str, head: str, folder: Folder) -> None:
    told = folder.validate(job, "--imports")
    assert (told.code, told.out) == (0, f"{folder.path}/job.yaml: valid, 1 warning\n")
    assert told.heads[0].startswith(head)
    strict = folder.validate(job, "--imports", "--strict")
    assert (strict.code, strict.out) == (2, "")
    assert strict.heads[0].startswith(head.replace("warning: ", ""))


def test_problems_as_json_say_how_much_they_weigh(folder: Folder) -> None:
    job = "tasks:\n  a: {target: 'work:f', args: [x, '2']}\n  b: {target: 'fails:f'}\n"
    (folder.path / "fails.py").write_text("print('so far')\n1/0")
    told = folder.validate(job, "--imports", "--json")
    warning, error = json.loads(told.out)
    assert (told.code, told.err) == (2, "")
    assert (warning["severity"], warning["line"], warning["column"], warning["path"]) == ("warning", 2, 35, "tasks.a.args[1]")
    assert (error["severity"], error["line"], error["path"]) == ("error", 3, "tasks.b.target")
    assert error["output"].startswith("so far\nTraceback")
    assert "output" not in warning


def test_a_mistake_in_the_file_is_an_error_as_json(folder: Folder) -> None:
    (problem,) = json.loads(folder.validate("tasks: {a: {run: x, nedes: []}}", "--json").out)
    assert (problem["severity"], problem["path"]) == ("error", "tasks.a.nedes")


def test_so_many_warnings_that_not_all_are_told_are_still_warnings(folder: Folder) -> None:
    tasks = "".join(f"  t{n}: {{target: 'work:f', args: [x, '2']}}\n" for n in range(210))
    told = folder.validate(f"tasks:\n{tasks}", "--imports")
    assert (told.code, told.out) == (0, f"{folder.path}/job.yaml: valid, 201 warnings\n")


# --- strict ------------------------------------------------------------------------------------------------------------------

RAW = "raw() hands text to the shell as it is"
TWICE = "a second shell reads this value as its own syntax, whatever it holds"


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("run: echo ${{ raw(params.x) }}", {"raw(params.x)": RAW}),
        ("run: echo ${{ params.x }} ${{ raw(params.x) }} ${{ raw(run.id) }}", {"raw(params.x)": RAW, "raw(run.id)": RAW}),
        ("run: sh -c 'echo ${{ params.x }}'", {"params.x": TWICE}),
        ('run: cd / && /bin/bash -euc "echo ${{ params.x }}"', {"params.x": TWICE}),
        ("run: sh -c ${{ params.x }}", {"params.x": TWICE}),
        ("run: eval ls ${{ params.x }}", {"params.x": TWICE}),
        ("run: [echo, 'echo ${{ raw(params.x) }}']", {"raw(params.x)": RAW}),
        ("argv: [sh, -c, 'ls ${{ params.x }}']", {"params.x": TWICE}),
        ("argv: [nice, /bin/bash, -ec, 'ls ${{ params.x }}']", {"params.x": TWICE}),
        ("run: sh -c 'echo \"$1\"' sh ${{ params.x }}", {}),
        ("run: sh script.sh -c ${{ params.x }}", {}),
        ("run: tar -c ${{ params.x }}", {}),
        ("run: eval x; ls ${{ params.x }}", {}),
        ("argv: [sh, -c, 'ls \"$1\"', sh, '${{ params.x }}']", {}),
        ("argv: [grep, -c, '${{ params.x }}']", {}),
        ("run: echo ${{ params.x }}", {}),
    ],
)
def test_strict_refuses_what_a_shell_reads_as_syntax(action: str, told: dict[str, str], folder: Folder) -> None:
    job = f"params: {{x: 1}}\ntasks:\n  a:\n    {action}\n"
    strict = folder.validate(job, "--strict", "--json")
    line = job.splitlines()[3]
    found = {_marked(line, problem): problem["message"].removesuffix(".") for problem in json.loads(strict.out)}
    assert found == told
    assert strict.code == (2 if told else 0)
    assert folder.validate(job).code == 0


def _marked(line: str, problem: dict[str, Any]) -> str:
    assert problem["line"] == 4
    return line[problem["column"] - 1 :][: problem["length"]]


def test_strict_looks_at_final_tasks_too(folder: Folder) -> None:
    told = folder.validate("tasks: {a: {run: ls}}\nfinally: {b: {run: 'echo ${{ raw(run.id) }}'}}", "--strict")
    assert [head.split(": ")[:2] for head in told.heads] == [["job.yaml:2:30", "finally.b.run"]]


# --- fix ---------------------------------------------------------------------------------------------------------------------


def test_fix_mends_the_file_tells_each_change_and_then_checks_what_is_left(folder: Folder) -> None:
    told = folder.validate("tasks:\n  a: {run: x}\n  b: {run: x, depends: [a]}\n", "--fix")
    assert (told.code, told.err) == (0, "")
    assert "needs: [a]" in (folder.path / "job.yaml").read_text()
    change, verdict = told.out.splitlines()
    assert change.startswith(f"{folder.path}/job.yaml:3: ")
    assert change.endswith("depends → needs")
    assert verdict == f"{folder.path}/job.yaml: valid"


def test_fix_leaves_what_has_no_cure_and_tells_it(folder: Folder) -> None:
    job = "tasks:\n  a: {run: x, qwertyuiop: 1}\n"
    told = folder.validate(job, "--fix")
    assert (told.code, told.out, len(told.heads)) == (2, "", 1)
    assert (folder.path / "job.yaml").read_text() == job


def test_fix_says_where_there_are_more_cures_than_it_tries(folder: Folder) -> None:
    told = folder.validate("tasks:\n" + "".join(f"  t{number}: {{run: x, deps: [t{number}]}}\n" for number in range(60)), "--fix")
    message = "10 more places were not tried: mend what is told below first, then run --fix again"
    assert (told.code, told.out) == (2, f"{folder.path}/job.yaml: {message}\n")


def test_fix_with_json_keeps_standard_output_for_the_problems(folder: Folder) -> None:
    told = folder.validate("tasks:\n  a: {run: x}\n  b: {run: x, depends: [a]}\n", "--fix", "--json")
    assert json.loads(told.out) == []
    assert told.err.endswith("depends → needs\n")


def test_fix_of_a_file_that_is_not_there_tells_so_once(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["validate", "--fix", str(folder.path / "none.yaml")]) == 2
    assert capsys.readouterr().err.count("there is no such file") == 1


# --- what this machine does not have --------------------------------------------------------------------------------------------

TOO_MUCH = "{} is more than this machine has: 4GB. It runs beside nothing else that needs memory, and the limit comes too late"


@pytest.mark.parametrize(
    ("job", "told"),
    [
        ("tasks: {a: {run: ls, resources: {memory: 4GB}}}", []),
        ("tasks: {a: {run: ls, resources: {nice: 5}}}", []),
        (
            "tasks: {a: {run: ls, resources: {memory: 4GiB}}}",
            ["1:42: warning: tasks.a.resources.memory: " + TOO_MUCH.format("4GiB")],
        ),
        (
            "defaults: {resources: {memory: 5GB}}\ntasks: {a: {run: ls}, b: {run: ls}, c: {run: ls, resources: {memory: 6GB}}}",
            [
                "1:32: warning: defaults.resources.memory: " + TOO_MUCH.format("5GB"),
                "2:70: warning: tasks.c.resources.memory: " + TOO_MUCH.format("6GB"),
            ],
        ),
        (
            "tasks: {a: {run: ls}}\nfinally: {f: {run: ls, resources: {memory: 1TB}}}",
            ["2:44: warning: finally.f.resources.memory: " + TOO_MUCH.format("1TB")],
        ),
    ],
)
def test_memory_that_this_machine_does_not_have_is_a_warning(
    folder: Folder, job: str, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.preflight.capacity.whole_memory", lambda: 4 * 10**9)
    found = folder.validate(job)
    assert [head.removeprefix("job.yaml:").partition(": write less")[0] for head in found.heads] == told
    assert (
        found.code,
        found.out.endswith(f": valid, {len(told)} warning{'s' * (len(told) > 1)}\n" if told else ": valid\n"),
    ) == (0, True)
    strict = folder.validate(job, "--strict")
    assert strict.code == (2 if told else 0)
    assert sum("more than this machine has" in head for head in strict.heads) == len(told)


@pytest.mark.parametrize("most", [None, 1 << 62])
def test_where_nothing_says_how_much_memory_there_is_nothing_is_said(
    folder: Folder, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.preflight.capacity.whole_memory", lambda: most)
    assert folder.validate("tasks: {a: {run: x, resources: {memory: 1024TiB}}}").heads == []


# --- start-up ----------------------------------------------------------------------------------------------------------------


def test_without_options_nothing_of_imports_and_fixes_is_loaded(folder: Folder) -> None:
    (folder.path / "job.yaml").write_text(GOOD)
    code = "import sys; from jobrunner.cli.main import cli; cli(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", code, "validate", str(folder.path / "job.yaml")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    loaded = set(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split())
    ours = {
        "jobrunner.preflight.check",
        "jobrunner.preflight.cautions",
        "jobrunner.preflight.probing",
        "jobrunner.preflight.probe",
        "jobrunner.jobfile.fix",
    }
    assert loaded & ours == set()
