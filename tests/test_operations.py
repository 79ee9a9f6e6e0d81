"""What docs/operations.md tells people to install and type: the very text of the page, tried."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobrunner import durations, spec
from jobrunner.cli.main import cli

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
UNITS = ("nightly.service", "nightly.timer")


def block(info: str) -> str:
    """The fenced block with this info string."""
    (found,) = re.findall(rf"^```{re.escape(info)}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def setting(unit: str, key: str) -> str:
    (found,) = re.findall(rf"^{key}=(.*)$", block(f"ini file={unit}"), re.MULTILINE)
    return str(found)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_takes_the_units_without_a_word(tmp_path: Path) -> None:
    """As they stand on the page, but for the path of the command, which has to exist."""
    for name in UNITS:
        text = block(f"ini file={name}").replace("/opt/jobs/.venv/bin/jobrunner", "/bin/true")
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", *(str(tmp_path / name) for name in UNITS)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in (ended.stdout + ended.stderr).splitlines() if any(name in line for name in UNITS)]
    assert (ended.returncode, said) == (0, []), ended.stderr


def test_the_unit_leaves_more_time_to_stop_than_the_grace() -> None:
    assert int(setting("nightly.service", "TimeoutStopSec")) > spec.DEFAULT_GRACE


def test_the_unit_signals_the_runner_alone_and_keeps_its_state_private() -> None:
    assert setting("nightly.service", "KillMode") == "mixed"
    assert setting("nightly.service", "StateDirectoryMode") == "0700"


def arguments(command: str) -> list[str]:
    """What stands after the path of the command."""
    return command.partition("/bin/jobrunner ")[2].split()


@pytest.mark.parametrize(
    "command", [setting("nightly.service", "ExecStart"), block("crontab").splitlines()[1]], ids=["systemd", "cron"]
)
def test_the_command_line_runs_a_job(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nightly.yaml").write_text("tasks: {a: {run: echo done}}")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.delenv("JOBRUNNER_STATE")
    paths = {"/opt/jobs/nightly.yaml": str(tmp_path / "nightly.yaml"), "/var/log/jobs/nightly.jsonl": str(tmp_path / "log.jsonl")}
    assert cli([paths.get(word, word) for word in arguments(command)]) == 0
    (output,) = (tmp_path / "state").glob("nightly/*/output/a.log")
    assert output.read_text() == "done\n"


def test_the_cron_line_has_five_fields_and_no_percent_sign() -> None:
    """cron takes % for the end of the line."""
    line = block("crontab").splitlines()[1]
    assert re.match(r"([\d*/,-]+ ){5}/", line)
    assert "%" not in line


def test_pruning_removes_old_runs_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "a state"
    monkeypatch.setenv("JOBRUNNER_STATE", str(state))
    job = tmp_path / "job.yaml"
    job.write_text("tasks: {a: {run: echo done, cache: {}}}")
    for _ in range(3):
        assert cli([str(job), "-q"]) == 0
    old, *_ = runs = sorted((state / "job").iterdir())
    make_old(old, state / "job" / "cache", state / "job" / "lock")
    subprocess.run(["sh", "-c", block("sh name=prune")], check=True)
    assert sorted((state / "job").iterdir()) == runs[1:]


def make_old(*paths: Path) -> None:
    """With all that is in them."""
    long_ago = time.time() - 40 * 86_400
    for path in paths:
        for each in (path, *path.rglob("*")):
            os.utime(each, (long_ago, long_ago))


KNOWING = """
workers: 1
tasks:
  made: {argv: [sh, -c, "echo made"], cache: {inputs: []}}
  tidy: {needs: [made], argv: [sh, %s]}
  last: {needs: [tidy], argv: [sh, -c, "test -e go"]}
"""


def test_runs_may_be_removed_while_another_one_is_on_and_the_next_ones_miss_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run itself removes the earlier ones in its middle. It fails, and is resumed; the cache and durations are there."""
    state, job = tmp_path / "state", tmp_path / "job.yaml"
    monkeypatch.setenv("JOBRUNNER_STATE", str(state))
    (tmp_path / "prune.sh").write_text(":\n")
    job.write_text(KNOWING % "prune.sh")
    assert cli([str(job), "-q"]) == 1
    (first,) = (path for path in (state / "job").iterdir() if path.name.startswith("2"))
    (state / "job" / "of").mkdir()
    durations.write(state / "job", {"made": durations.Known(seconds=2.0)}, by_way_of=state / "job" / "of")
    make_old(first)
    (tmp_path / "prune.sh").write_text(block("sh name=prune"))
    assert cli([str(job), "-q"]) == 1, "it goes on to its end, in which `last` fails"
    assert not first.exists()
    capsys.readouterr()
    (tmp_path / "go").touch()
    assert cli(["resume", str(job), "--retry-failed", "-q"]) == 0
    assert cli(["resume", first.name]) == 2
    assert "is neither a run" in capsys.readouterr().err
    assert cli(["why", str(job), "made"]) == 0
    assert "cached" in capsys.readouterr().out
    assert durations.read(state / "job").keys() == {"made"}
    shutil.rmtree(state / "job")
    assert cli([str(job), "-q"]) == 0, "all of a job's state may go when none of its runs is on"


def test_all_but_the_last_runs_of_a_job_can_be_removed(tmp_path: Path) -> None:
    names = [f"202611{day:02d}T{hour:02d}0000Z-0123456789" for day in range(1, 27) for hour in (1, 3, 5, 7)]
    for name in (*names, "cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "lock").touch()
    subprocess.run(["sh", "-c", block("sh name=keep")], check=True, cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names[-100:], "cache", "lock"]


@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq here")
def test_every_jq_filter_on_the_page_reads_a_log(tmp_path: Path) -> None:
    job, log = tmp_path / "job.yaml", tmp_path / "log.jsonl"
    job.write_text("tasks: {a: {target: 'math:sqrt', args: [2]}, b: {foreach: [x], run: exit 3}}")
    assert cli([str(job), "-q", "--log-level", "info", "--log-file", str(log)]) == 1
    (tmp_path / "run").mkdir()
    durations.write(tmp_path, {"a": durations.Known(seconds=2.0)}, by_way_of=tmp_path / "run")
    filters = re.findall(r"jq (-\w+ )?'(.*?)'", PAGE)
    assert len(filters) == 6
    told = ""
    for options, text in filters:
        file = tmp_path / durations.NAME if text.startswith(".tasks") else log
        ended = subprocess.run(["jq", *options.split(), text, file], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout
        told += ended.stdout
    assert re.findall(r"^([ab].*)\t(?:succeeded|failed)\t", told, re.MULTILINE) in (["a", "b[x]"], ["b[x]", "a"])


def test_the_exit_codes_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    cli(["--help"])
    text = capsys.readouterr().out
    in_help = re.findall(r"^ +([\d, ]+?)  +\w", text[text.index("Exit codes") :], re.MULTILINE)
    assert re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE) == in_help


def test_the_variables_for_the_state_are_asked_in_the_order_of_the_table(tmp_path: Path) -> None:
    names = ("JOBRUNNER_STATE", "STATE_DIRECTORY", "XDG_STATE_HOME")
    assert tuple(re.findall(r"^\| `([A-Z_]+)`", PAGE, re.MULTILINE)) == names
    job = tmp_path / "job.yaml"
    job.write_text("tasks: {a: {run: 'true'}}")
    for first in range(3):
        env = {name: str(tmp_path / f"{first}-{name}") for name in names[first:]}
        command = [sys.executable, "-m", "jobrunner", "-q", str(job)]
        subprocess.run(command, env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), **env}, check=True)
        assert [path.name for path in tmp_path.glob(f"{first}-*")] == [f"{first}-{names[first]}"]
