"""`jobrunner show`: what a job is, without running or importing anything of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobrunner.cli.main import cli

ROOT = Path(__file__).resolve().parent.parent
JOB = """
name: nightly
description: Everything that runs at night
schedule: {cron: "30 2 * * *", timezone: Europe/Berlin, jitter: 5m}
timeout: 1h
params:
  root: {type: path, default: data, description: tree to audit}
  level: {choices: [1, 2], default: 1}
  full: false
  day: {type: date, required: true}
  names: [a, b]
limits: {api: 4, disk: {slots: 1, scope: host}}
secrets: {token: {env: TOKEN}, key: {file: key.txt}, word: {command: pass show word}}
pools: {cpu: {mode: process_pool, workers: 2, preload: true}}
tasks:
  list: {run: "ls ${{ params.root }}", resources: {memory: 512MiB, nice: 10}, description: list the files}
  fetch: {needs: [list], foreach: {range: 3}, run: "curl ${{ item }}", limits: {api: 2, disk: 1}, secrets: [token]}
  build: {needs: [list], matrix: {os: [a, b], py: [1, 2, 3]}, run: "make ${{ matrix.os }}", if: "${{ params.full }}", cache: {}}
  report: {needs: [fetch, build], target: "gone:report", pool: cpu, retry: 3, timeout: 90s}
finally:
  notify: {if: failure(), run: [echo 1, echo 2]}
"""
SHOWN = """\
nightly: Everything that runs at night
  schedule 30 2 * * * (Europe/Berlin) up to 5m later
  timeout 1h
  jobrunner {file} --set day=…

Parameters (also in --params-file FILE, or as variables like JOBRUNNER_PARAM_NAME):
  --set root=PATH        tree to audit [default: data]
  --set level=1|2        [default: 1]
  --set full=true|false  [default: false]
  --set day=YYYY-MM-DD   [required]
  --set names=A,B,…      [default: a,b]

Tasks:
  list    list the files · memory 512MiB, nice 10
  fetch   run curl ${{ item }} · for each item of range 3 · after list · takes 2 × api, disk
  build   run make ${{ matrix.os }} · for each combination of os × py · if params.full · after list · cache
  report  target gone:report · after fetch, build · retry 3 · timeout 1m30s

Finally, when all others have ended:
  notify  run echo 1, then 1 more command · if failure()

Pools:
  default  thread_pool, auto workers
  cpu      process_pool, 2 workers, preload

Limits:
  api   4 slots
  disk  1 slot of this host, shared by all its jobs

Secrets:
  token  from the variable TOKEN
  key    from the file key.txt
  word   from what a command prints
"""


@pytest.fixture
def job(tmp_path: Path) -> str:
    (tmp_path / "job.yaml").write_text(JOB)
    return str(tmp_path / "job.yaml")


def test_all_of_a_job_is_shown_as_it_is_declared(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["show", job]) == 0
    assert capsys.readouterr().out == SHOWN.replace("{file}", job)


def test_what_a_job_does_not_have_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "small.yaml"
    file.write_text("tasks: {a: {run: echo}}")
    assert cli(["show", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "small",
        f"  jobrunner {file}",
        "",
        "Tasks:",
        "  a  run echo",
        "",
        "Pools:",
        "  default  thread_pool, auto workers",
    ]


def test_as_json_it_is_all_there(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["show", "--json", job]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["job"], data["file"], data["schedule"]["cron"]) == ("nightly", job, "30 2 * * *")
    assert data["params"]["level"] == {
        "type": "int", "default": 1, "required": False, "choices": [1, 2], "description": "",
        "variable": "JOBRUNNER_PARAM_LEVEL",
    }  # fmt: skip
    assert [(task["task"], task["final"]) for task in data["tasks"]][-2:] == [("report", False), ("notify", True)]
    assert data["limits"]["disk"] == {"slots": 1, "scope": "host"}
    assert data["pools"]["cpu"] == {"mode": "process_pool", "workers": 2, "preload": True}
    assert data["tasks"][0]["resources"] == {"memory": 512 << 20, "nice": 10}
    assert data["secrets"]["token"] == {"env": "TOKEN"}


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "jobs").glob("*.yaml")))
def test_each_example_can_be_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["show", str(ROOT / "jobs" / name)]) == 0
    assert "Tasks:" in capsys.readouterr().out


def test_a_bad_job_file_is_told_as_by_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("tasks:\n  a: {run: x, nedes: [b]}\n")
    assert cli(["show", str(file)]) == 2
    told = capsys.readouterr()
    assert f"{file}:2:15: " in told.err
    assert told.out == ""


def test_it_does_not_load_the_engine(job: str) -> None:
    code = f"import sys; from jobrunner.cli.main import cli; cli(['show', {job!r}]); print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"jobrunner.engine", "jobrunner.session", "jobrunner.api", "structlog"} & set(ended.stdout.split())
