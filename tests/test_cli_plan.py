"""`plan` and `run -n`: what would run, in which order, on what terms; and the options that decide it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobrunner import durations, rundir
from jobrunner.cli.main import cli
from jobrunner.journal import replay
from jobrunner.prepare import Options, prepare

JOB = """
params: {root: {type: path, default: data}, full: false, axis: {type: list, default: [x, y]}}
limits: {api: 4, disk: {slots: 1, scope: host}, idle: 3}
pools: {cpu: {mode: process_pool, workers: 2}}
workers: 2
tasks:
  list: {run: "ls ${{ params.root }}"}
  late: {needs: [fetch], run: echo}
  fetch: {needs: [list], foreach: {range: 3}, run: "curl ${{ item }}", limits: {api: 2, disk: 1}}
  files: {foreach: {glob: "*.txt"}, run: "cat ${{ item }}"}
  lines: {foreach: {lines: names.txt}, run: "echo ${{ item }}"}
  build: {matrix: {os: [a, b], py: "${{ params.axis }}"}, run: "make ${{ matrix.os }}", if: "${{ params.full }}"}
  given: {needs: [list], foreach: "${{ tasks.list.outputs.names }}", run: "echo ${{ item }}"}
  report: {needs: [late, given], target: "gone:report", pool: cpu}
finally:
  tell: {needs: [tidy], if: failure(), run: "echo ${{ tasks.list.outcome }}"}
  tidy: {run: [echo 1, echo 2, echo 3]}
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    (tmp_path / "names.txt").write_text("one\n\ntwo\n")
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "job.yaml").write_text(JOB)
    return "job.yaml"


def planned(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    assert cli(["plan", *args]) == 0
    plan = capsys.readouterr().out
    assert cli(["run", "-n", *args]) == 0
    assert capsys.readouterr().out == plan
    return plan.splitlines()


def as_data(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert cli(["plan", "--json", *args]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_plan_tells_order_pools_items_conditions_and_limits(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert planned(capsys, job) == [
        "job: 10 tasks",
        f'  param root = "{tmp_path}/data"',
        "  param full = false",
        '  param axis = ["x", "y"]',
        "  pool default: thread_pool, 2 workers",
        "  pool cpu: process_pool, 2 workers",
        "  limit api: 4 slots",
        "  limit disk: 1 slot of this host",
        "  ready tasks start in declared order",
        "   1. list    run ls ${{ params.root }} · in default",
        "   2. files   run cat ${{ item }} · in default · for each of 3 items of glob *.txt",
        "   3. lines   run echo ${{ item }} · in default · for each of 2 items of lines names.txt",
        "   4. build   run make ${{ matrix.os }} · in default · for each of 4 combinations of os × py · if params.full",
        "   5. fetch   run curl ${{ item }} · in default · for each of 3 items of range 3 · after list · takes 2 × api, disk",
        "   6. given   run echo ${{ item }} · in default · for each item of ${{ tasks.list.outputs.names }} · after list",
        "   7. late    run echo · in default · after fetch",
        "   8. report  target gone:report · in cpu · after late, given",
        "  finally, when all others have ended:",
        "   9. tidy    run echo 1, then 2 more commands · in default",
        "  10. tell    run echo ${{ tasks.list.outcome }} · in default · if failure() · after tidy",
    ]


def test_a_plan_shows_what_is_left_out_and_by_what(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = planned(capsys, job, "--until", "late", "--skip", "tell", "--skip", "list")
    assert lines[0] == "job: 3 of 10 tasks"
    assert "  pool cpu: process_pool, 2 workers" not in lines
    assert [line.split()[1] for line in lines if line.split()[0].rstrip(".").isdigit()] == ["fetch", "late", "tidy"]
    assert not any("after list" in line for line in lines), "what is left out counts as met"
    assert lines[-2:] == [
        "  skipped by --skip: list, tell",
        "  not needed by --until: files, lines, build, given, report",
    ]


def test_a_long_list_of_what_is_left_out_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "many.yaml"
    file.write_text("tasks:\n" + "".join(f"  t{number}: {{run: echo}}\n" for number in range(50)))
    lines = planned(capsys, str(file), "--only", "t7")
    assert lines[-1].startswith("  not in --only: t0, t1, t2, ")
    assert lines[-1].endswith(", t20 and 29 more")


def test_a_plan_as_json_is_complete(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = as_data(capsys, job, "--from", "list", "--skip", "given")
    assert data["left_out"] == {"files": "--from", "lines": "--from", "build": "--from", "given": "--skip"}
    assert data["limits"] == {"api": {"slots": 4, "scope": "run"}, "disk": {"slots": 1, "scope": "host"}}
    fetch = next(task for task in data["tasks"] if task["task"] == "fetch")
    assert fetch == {
        "task": "fetch", "description": "", "action": "run", "does": "curl ${{ item }}", "pool": "default", "needs": ["list"],
        "if": None, "foreach": {"range": 3}, "matrix": None, "limits": {"api": 2, "disk": 1}, "cache": None, "secrets": [],
        "timeout": None, "retries": 0, "retry": None, "final": False, "items": 3, "no_items": None, "because": None,
        "max_parallel": None, "resources": None, "took": None, "peak": None,
    }  # fmt: skip
    assert [(task["task"], task["final"], task["if"]) for task in data["tasks"]][-1] == ("tell", True, "failure()")


TERMS = [
    ("retry: 3", "retry 3"),
    ("retry: {max: 2, delay: 5s}", "retry 2"),
    ("retry: 0", ""),
    ("timeout: 10m", "timeout 10m"),
    ("timeout: 5400", "timeout 1h30m"),
    ("timeout: 500ms", "timeout 500ms"),
    ("timeout: 1d1s", "timeout 1d1s"),
    ("timeout: 61.5", "timeout 1m1.5s"),
    (
        "retry: 1, timeout: 1m, limits: [api], cache: {}",
        "takes api · retry 1 · timeout 1m · not cached: no earlier success is known",
    ),
    ("resources: {memory: 3MB}", "memory 3MB"),
    ("resources: {nice: 0, cpus: 2, memory: 1.5MiB}", "memory 1536KiB, 2 CPUs, nice 0"),
    ("resources: {cpus: 1}, limits: [api]", "takes api · 1 CPU"),
    ("resources: {}", ""),
    ("foreach: {glob: '*.txt', at_least: 1}", "for each of 2 items of glob *.txt, at least 1"),
    ("foreach: {glob: [b.*, '*.txt']}", "for each of 2 items of glob b.*, *.txt"),
    (
        "foreach: {glob: '*.csv', at_least: 1}",
        "for each item of glob *.csv, at least 1 · as of now 0 files match *.csv, and at_least asks for 1",
    ),
]


MANY = """
name: j
workers: 2
pools: {ready: {mode: process, workers: 2, preload: true}, own: {executor: "concurrent.futures:ThreadPoolExecutor", workers: 3}}
tasks:
  quick: {run: echo}
  slow: {run: echo, max_parallel: 3}
  behind: {needs: [quick], run: echo}
  big: {target: "m:f", pool: ready, resources: {memory: 2GB}}
  other: {target: "m:f", pool: own}
finally:
  last: {run: echo}
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    (tmp_path / "job.yaml").write_text(MANY)
    return tmp_path / "state"


def measured(state: Path, **seconds: float) -> None:
    """As if earlier runs had taken so long."""
    (state / "j" / "run").mkdir(parents=True)
    known = {name: durations.Known(seconds=each, peak=100 << 20) for name, each in seconds.items()}
    durations.write(state / "j", known, by_way_of=state / "j" / "run")


@pytest.mark.usefixtures("state")
def test_a_plan_tells_preload_resources_and_that_nothing_but_declaration_gives_the_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert planned(capsys, "job.yaml")[1:] == [
        "  pool default: thread_pool, 2 workers",
        "  pool ready: process, 2 workers, preload",
        "  pool own: executor, 3 workers",
        "  ready tasks start in declared order",
        "   1. quick   run echo · in default",
        "   2. slow    run echo · in default · at most 3 at once",
        "   3. big     target m:f · in ready · memory 2GB",
        "   4. other   target m:f · in own",
        "   5. behind  run echo · in default · after quick",
        "  finally, when all others have ended:",
        "   6. last    run echo · in default",
    ]
    data = as_data(capsys, "job.yaml")
    assert data["order"] == {"by": "declared"}
    assert {name: pool["preload"] for name, pool in data["pools"].items()} == {"default": False, "ready": True, "own": False}
    big, slow = (next(task for task in data["tasks"] if task["task"] == name) for name in ("big", "slow"))
    assert (big["resources"], slow["max_parallel"]) == ({"memory": 2_000_000_000}, 3)


def test_a_plan_tells_how_long_tasks_took_and_what_is_taken_first_by_that(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(state, quick=0.123456, slow=400.4, behind=12.345)
    lines = planned(capsys, "job.yaml")
    (order,) = [line for line in lines if "ready tasks" in line]
    assert order.startswith("  ready tasks start in this order, by how long they took: slow, ")
    assert [line.rpartition(" · ")[2] for line in lines if "run echo" in line and "last" not in line] == [
        "took 120ms",
        "took 6m40s",
        "took 12s",
    ]
    data = as_data(capsys, "job.yaml")
    assert data["order"]["by"] == "durations"
    assert set(data["order"]["first"]) == {"quick", "slow", "behind", "big", "other"}
    assert order.endswith(": " + ", ".join(data["order"]["first"]))
    slow, big = (next(task for task in data["tasks"] if task["task"] == name) for name in ("slow", "big"))
    assert (slow["took"], slow["peak"], big["took"], big["peak"]) == (400.4, 100 << 20, None, None)


@pytest.mark.parametrize("keys", ["workers: 1", "mode: serial", "workers: 5"])
def test_where_the_order_makes_no_difference_nothing_is_said_of_it(
    state: Path, keys: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("job.yaml").write_text(f"name: j\n{keys}\ntasks: {{a: {{run: echo}}, b: {{run: echo}}}}")
    measured(state, a=10.0, b=20.0)
    assert not any("ready tasks" in line for line in planned(capsys, "job.yaml"))
    assert as_data(capsys, "job.yaml")["order"] is None


@pytest.mark.usefixtures("state")
def test_memory_that_is_not_there_is_a_caution(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("jobrunner.preflight.capacity.whole_memory", lambda: 1 << 30)
    told = "tasks.big.resources.memory: 2GB is more than this machine has: 1GiB"
    assert planned(capsys, "job.yaml")[-1] == f"  caution: {told}"
    assert as_data(capsys, "job.yaml")["cautions"] == [told]
    monkeypatch.setattr("jobrunner.preflight.capacity.whole_memory", lambda: 2_000_000_000)
    assert as_data(capsys, "job.yaml")["cautions"] == []


@pytest.mark.parametrize(("keys", "told"), TERMS)
def test_a_plan_tells_retries_timeouts_caches_and_files(
    job: str, keys: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").unlink()
    (tmp_path / "terms.yaml").write_text(f"limits: {{api: 4}}\ntasks: {{a: {{run: x, {keys}}}}}\n")
    assert planned(capsys, "terms.yaml")[-1] == f"   1. a  run x · in default{' · ' + told if told else ''}"


def test_a_plan_as_json_has_the_whole_rule_of_retries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("tasks: {a: {run: x, timeout: 10m, cache: {ttl: 1d}, retry: {max: 2, delay: 5s, exit_codes: [75]}}}")
    (task,) = as_data(capsys, str(file))["tasks"]
    assert (task["timeout"], task["cache"]["ttl"], task["retries"], task["retry"]) == (
        600, 86400, 2, {"max": 2, "delay": 5, "backoff": 2, "max_delay": 300, "jitter": 0.1, "exit_codes": [75]},
    )  # fmt: skip


def test_items_that_cannot_be_counted_now_are_no_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text("tasks:\n  a: {foreach: {lines: gone.txt}, run: x}\n  b: {foreach: {glob: '${{ run.dir }}/*'}, run: x}\n")
    assert {task["task"]: task["items"] for task in as_data(capsys, str(file))["tasks"]} == {"a": None, "b": None}


# --- what the options say ----------------------------------------------------------------------------------------------------


def test_the_command_line_stands_above_a_params_file_and_that_above_the_environment(
    job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(*args: str) -> Any:
        return as_data(capsys, job, *args)["params"]["axis"]

    (tmp_path / "values.yaml").write_text("axis: [file]\n")
    assert found() == ["x", "y"]
    monkeypatch.setenv("JOBRUNNER_PARAM_AXIS", "variable")
    assert found() == ["variable"]
    assert found("--params-file", "values.yaml") == ["file"]
    assert found("--params-file", "values.yaml", "--set", "axis=said") == ["said"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--params-file", "gone.yaml"], "--params-file gone.yaml: there is no such file"),
        (["--params-file", "wrong.yaml"], "wrong.yaml:2:1: roott: the job has no such parameter. Did you mean 'root'?"),
        (["--params-file", "wrong.yaml"], "wrong.yaml:1:7: full: 7 is neither true nor false"),
        (["--set", "full=7"], "parameter full: 7 is neither true nor false; write true, false, yes, no, 1 or 0 (from --set)"),
        (["--from", "lits"], "--from lits: there is no such task. Did you mean 'list'?"),
        (["--skip", "list"], "--skip leaves out list, whose data is used. Do not skip it, or skip what uses it: --skip given"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_before_anything_runs(
    args: list[str], said: str, job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.yaml").write_text("full: 7\nroott: x\n")
    for command in ("plan", "run"):
        assert cli([command, job, *args]) == 2
        told = capsys.readouterr()
        assert said in told.err
        assert told.out == ""
    assert not (tmp_path / "state").exists()


def test_a_params_file_that_everybody_may_write_exits_77(job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "open.yaml").write_text("full: true")
    (tmp_path / "open.yaml").chmod(0o666)
    assert cli(["plan", job, "--params-file", "open.yaml"]) == 77
    assert "the params file" in capsys.readouterr().err


def test_what_was_asked_for_is_recorded_and_a_resume_asks_for_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    file = tmp_path / "job.yaml"
    file.write_text(
        "params: {a: 1, b: 2, c: 3, d: 4}\n"
        "tasks:\n"
        "  first: {run: 'echo first'}\n"
        "  second: {needs: [first], run: 'echo ${{ params.a }}${{ params.b }}${{ params.c }}${{ params.d }}; exit 1'}\n"
        "  third: {needs: [second], run: 'echo third'}\n"
    )
    (tmp_path / "values.yaml").write_text("b: 20\n")
    monkeypatch.setenv("JOBRUNNER_PARAM_C", "30")
    options = ["--params-file", str(tmp_path / "values.yaml"), "--set", "a=10", "--from", "second", "--skip", "third", "--force"]
    assert cli([str(file), *options]) == 1
    assert "second | 1020304" in capsys.readouterr().out

    (run,) = rundir.runs(tmp_path / "state", "job")
    started = next(record for record in replay(run.journal).records if record["event"] == "run.started")
    assert started["options"] == {
        "params": {"a": 10, "b": 20, "c": 30}, "start_from": ["second"], "skip": ["third"], "force": True
    }  # fmt: skip

    monkeypatch.setenv("JOBRUNNER_PARAM_C", "99")
    monkeypatch.setenv("JOBRUNNER_PARAM_D", "99")
    (tmp_path / "values.yaml").unlink()
    assert cli(["resume", str(file), "--retry-failed"]) == 1
    out = capsys.readouterr().out
    assert "second | 1020304" in out
    assert "first" not in out.replace("first come", "")
    assert "third" not in out


def test_all_options_that_select_and_change_a_run_are_recorded() -> None:
    selected: dict[str, list[str]] = {"only": ["a"], "start_from": ["b"], "until": ["c"], "skip": ["d"]}
    options = Options(**selected, force=True, workers=2, mode="thread", fail_fast=False)  # type: ignore[arg-type]
    assert options.recordable() == {
        **selected, "force": True, "workers": 2, "mode": "thread", "fail_fast": False,
    }  # fmt: skip
    assert Options().recordable() == {}


def test_what_is_prepared_has_the_selected_tasks_in_declared_order(job: str) -> None:
    assert prepare(job, Options()).only == ()
    assert prepare(job, Options(until=["late"])).only == ("list", "late", "fetch", "tell", "tidy")
    assert prepare(job, Options(params={"full": "yes"})).given == {"full": True}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--set", "x=1"],
            "--set x=1: a resume keeps the parameters of its run; start a new run with `jobrunner run FILE --set x=1`",
        ),
        (["job.yaml", "--set", "x=1"], "start a new run with `jobrunner run job.yaml --set x=1`"),
        (["job.yaml", "--params-file", "p"], "--params-file p: a resume keeps the parameters of its run"),
    ],
)
def test_a_resume_takes_no_parameters_and_says_what_to_do(
    args: list[str], said: str, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["resume", *args]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "ran"),
    [
        (["--from", "b"], ["b", "c", "f"]),
        (["--until", "b"], ["a", "b", "f"]),
        (["--skip", "b"], ["a", "c", "f"]),
        (["--from", "b", "--until", "b", "--skip", "f"], ["b"]),
        (["--only", "f"], ["f"]),
    ],
)
def test_a_run_runs_what_is_selected(
    options: list[str], ran: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    file = tmp_path / "job.yaml"
    file.write_text(
        "tasks: {a: {run: echo}, b: {needs: [a], run: echo}, c: {needs: [b], run: echo}}\n"
        "finally: {f: {run: 'echo ${{ tasks.a.outcome }}'}}\n"
    )
    assert cli([str(file), *options]) == 0
    log = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["task"] for event in log if event["event"] == "task.started"] == ran


def test_a_plan_says_of_each_cache_whether_its_task_would_run_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    (tmp_path / "in").write_text("1")
    file = tmp_path / "job.yaml"
    file.write_text("tasks: {a: {run: cp in out, cache: {inputs: [in], outputs: [out]}}}")
    assert " · not cached: " in planned(capsys, str(file))[-1]
    assert cli([str(file)]) == 0
    capsys.readouterr()
    assert planned(capsys, str(file))[-1].endswith(" · cached as of now")
    assert as_data(capsys, str(file))["tasks"][0]["because"] == []
    assert planned(capsys, str(file), "--force")[-1].endswith(" · has a cache")
    (tmp_path / "in").write_text("2")
    assert " · not cached: " in planned(capsys, str(file))[-1]
    assert as_data(capsys, str(file))["tasks"][0]["because"]


@pytest.mark.parametrize("what", ["beginning", "job's name", "id"])
def test_a_resume_finds_its_run_by_the_beginning_of_its_id_or_by_the_name_of_its_job(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    file = tmp_path / "job.yaml"
    file.write_text("name: tiny\ntasks: {a: {run: exit 1}}")
    assert cli([str(file), "-q"]) == 1
    (run,) = rundir.runs(tmp_path / "state", "tiny")
    capsys.readouterr()
    assert cli(["resume", "-n", "--retry-failed", {"beginning": run.id[:16], "job's name": "tiny", "id": run.id}[what]]) == 0
    assert capsys.readouterr().out.startswith(f"resume {run.id} of tiny, attempt 2")
