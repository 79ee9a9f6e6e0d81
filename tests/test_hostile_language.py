"""The worst users of the whole language: conditions, final tasks, matrices, limits, caches, steps and imports, at their edges."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner.bind import matrix
from jobrunner.errors import ExpressionError
from jobrunner.jobfile import fix
from jobrunner.spec import Job
from jobrunner.work import Outcome
from tests.harness import run_job
from tests.test_resume import ROOT, Stage, step

MODULE = "hostile_functions"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(folder=tmp_path)


def outcomes(stage: Stage) -> dict[str, str]:
    return {record["task"]: record["outcome"] for record in stage.events("task.finished") if not record.get("retried")}


# --- finally -----------------------------------------------------------------------------------------------------------------


def test_final_tasks_run_where_the_jobs_timeout_comes_while_nothing_is_in_flight(stage: Stage) -> None:
    waits = {"run": "false", "retry": {"max": 1, "delay": "1h"}}
    stage.job({"a": waits}, timeout="300ms", **{"finally": {"f": {"run": "echo f >> witness"}}})
    ran = stage.call("run", "job.yaml")
    assert (ran.returncode, stage.ran()) == (124, {"f": 1}), ran.stderr


@pytest.mark.parametrize(("condition", "runs"), [("always()", True), ("failure()", True), ("true", False)])
def test_a_final_task_is_asked_itself_whether_it_runs_after_a_final_task_that_failed(
    condition: str, runs: bool, tmp_path: Path
) -> None:
    finals = {"bad": {"run": "false"}, "then": {"needs": ["bad"], "if": condition, "run": "true"}}
    ran = run_job(tmp_path, {"tasks": {"a": {"run": "false" if condition == "failure()" else "true"}}, "finally": finals})
    assert (ran.result.tasks["then"].outcome == Outcome.SUCCEEDED) == runs
    assert ran.result.exit_code == 1


def test_final_tasks_that_a_kill_interrupted_run_again_at_the_end_of_a_resume(stage: Stage) -> None:
    stage.job({"a": step("a")}, **{"finally": {"f": step("f")}})
    block = stage.flag("block-f")
    stage.kill_in_the_middle("run", "job.yaml", whom="engine")
    block.unlink()
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"a": 1, "f": 2}


# --- cache -------------------------------------------------------------------------------------------------------------------


def test_what_another_job_file_of_the_same_name_has_done_is_not_cached_here(tmp_path: Path) -> None:
    for place in ("one", "two"):
        folder = tmp_path / place
        folder.mkdir()
        (folder / "job.yaml").write_text("tasks: {build: {run: pwd > made, cache: {ttl: 1h}}}")
        environ = {**os.environ, "JOBRUNNER_STATE": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "jobrunner", "job.yaml", "-q"], cwd=folder, env=environ, check=True)
        assert (folder / "made").read_text() == f"{folder}\n"


def test_a_cached_task_that_is_to_run_again_does(stage: Stage) -> None:
    stage.job({"a": {"run": "echo a >> witness", "cache": {"ttl": "1h"}}})
    assert [stage.call("run", "job.yaml").returncode for _ in range(2)] == [0, 0]
    assert stage.ran() == {"a": 1}
    assert stage.call("resume", "job.yaml", "--rerun", "a").returncode == 0
    assert stage.ran() == {"a": 2}


def forged(entry: Path, **data: Any) -> None:
    """Change what an entry says that the task gave, and seal it anew."""
    _, _, body = entry.read_bytes().partition(b"\n")
    content = json.loads(body)
    content["data"] = data["raw"] if "raw" in data else json.dumps({**json.loads(content["data"]), **data})
    body = json.dumps(content, separators=(",", ":")).encode()
    head = f"jobrunner cache 1 {hashlib.blake2b(body, digest_size=20).hexdigest()}\n"
    entry.write_bytes(head.encode() + body)


FORGED: list[dict[str, Any]] = [
    {"value": 5},
    {"value": ["a"]},
    {"raw": "[1]"},
    {"raw": "[" * 100_000 + "]" * 100_000},
    {"stdout": "é"},
    {"stdout": 5},
    {"outputs": 5},
]


def cached(stage: Stage) -> Path:
    """The entry of a task whose value another one uses, after a first run."""
    (stage.folder / f"{MODULE}.py").write_text("def give(): return [1]\ndef show(value): print(value)\n")
    use = {"needs": ["a"], "target": f"{MODULE}:show", "args": ["${{ tasks.a.result }}"]}
    stage.job({"a": {"target": f"{MODULE}:give", "cache": {"ttl": "1h"}}, "b": use})
    assert stage.call("run", "job.yaml").returncode == 0
    (entry,) = (stage.folder / "state" / "job" / "cache").rglob("a-*.json")
    return entry


@pytest.mark.parametrize("data", FORGED, ids=lambda data: repr(data)[:30])
def test_an_entry_that_somebody_has_written_by_hand_is_a_cause_to_run(data: dict[str, Any], stage: Stage) -> None:
    forged(cached(stage), **data)
    ran = stage.call("run", "job.yaml")
    assert (ran.returncode, outcomes(stage)) == (0, {"a": "succeeded", "b": "succeeded"}), ran.stderr


@pytest.mark.parametrize("what", ["FIFO", "folder", "endless"])
def test_what_stands_in_the_place_of_an_entry_and_is_no_file_is_a_cause_to_run(what: str, stage: Stage) -> None:
    entry = cached(stage)
    entry.unlink()
    match what:
        case "FIFO":
            os.mkfifo(entry)
        case "folder":
            entry.mkdir()
        case _:
            entry.symlink_to("/dev/zero")
    ran = stage.call("run", "job.yaml")
    assert (ran.returncode, outcomes(stage)) == (0, {"a": "succeeded", "b": "succeeded"}), ran.stderr


def test_a_secret_in_the_name_of_an_input_is_in_no_file(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE", "canary/7f3A-because")
    name = {"run": "echo $word"}
    use = {"needs": ["name"], "run": "true", "cache": {"inputs": ["${{ tasks.name.stdout }}"]}}
    stage.job({"name": {**name, "secrets": ["word"]}, "use": use}, secrets={"word": {"env": "SOURCE"}})
    ran = stage.call("run", "job.yaml")
    assert ran.returncode == 0
    assert "input *** is missing" in ran.stderr
    assert "canary" not in ran.stdout + ran.stderr + (stage.runs()[-1] / "events.jsonl").read_text()


def test_a_secret_in_the_reason_of_a_failure_is_on_no_command_line(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE", "hunter2-of-nobody")
    (stage.folder / f"{MODULE}.py").write_text("import os\ndef fail(): raise ValueError('https://' + os.environ['word'])\n")
    tell = {"run": "tr '\\0' ' ' < /proc/$$/cmdline > line; : ${{ tasks.bad.failures[0].reason }}"}
    bad = {"target": f"{MODULE}:fail", "mode": "process", "secrets": ["word"]}
    stage.job({"bad": bad}, secrets={"word": {"env": "SOURCE"}}, **{"finally": {"tell": tell}})
    assert stage.call("run", "job.yaml").returncode == 1
    assert "hunter2" not in (stage.folder / "line").read_text()


# --- commands ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "makes",
    [
        "mkdir $JOBRUNNER_OUTPUT",
        "mkfifo $JOBRUNNER_OUTPUT",
        "ln -s /dev/zero $JOBRUNNER_OUTPUT",
        "ln $0 $JOBRUNNER_OUTPUT || true",
        "rm -rf ${JOBRUNNER_OUTPUT%/*}; touch ${JOBRUNNER_OUTPUT%/*}",
    ],
)
def test_whatever_a_command_makes_of_its_output_file_the_run_goes_on(makes: str, tmp_path: Path) -> None:
    odd = {"run": ["echo a=1 > $JOBRUNNER_OUTPUT", "rm $JOBRUNNER_OUTPUT", makes]}
    ran = run_job(tmp_path, {"tasks": {"odd": odd, "then": {"needs": ["odd"], "run": "true"}}})
    assert ran.result.exit_code == 0


# --- matrix and foreach ------------------------------------------------------------------------------------------------------


def test_true_and_one_are_two_values_of_a_matrix() -> None:
    assert matrix.combinations({"k": [1, 2], "exclude": [{"k": True}]}) == [{"k": 1}, {"k": 2}]
    assert matrix.combinations({"k": [1], "include": [{"k": True, "s": "b"}]}) == [{"k": 1}, {"k": True, "s": "b"}]


def test_a_matrix_of_far_too_many_combinations_takes_neither_the_memory_nor_the_time() -> None:
    code = """
        import resource
        from jobrunner.bind import matrix
        from jobrunner.errors import ExpressionError
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
        try:
            matrix.items({name: list(range(1000)) for name in "abc"})
        except ExpressionError as error:
            print(error)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=20, cwd=ROOT)


def test_what_a_matrix_includes_is_not_held_against_every_combination() -> None:
    started = time.process_time()
    include = [{"a": 1000 + number, "x": number} for number in range(20_000)]
    try:
        assert len(matrix.combinations({"a": list(range(50)), "b": list(range(20)), "include": include})) == 21_000
    except ExpressionError:
        return  # there may be a bound
    assert time.process_time() - started < 3  # a thousand comparisons an entry take longer than that


def test_a_pattern_finds_its_way_through_links_that_lead_in_circles(stage: Stage) -> None:
    folder = stage.folder / "data"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).symlink_to(".")
    (folder / "file.txt").touch()
    stage.job({"each": {"foreach": {"glob": "data/**/*.txt"}, "run": "echo each >> witness"}})
    with subprocess.Popen(
        stage.command("run", "job.yaml", "-q"), cwd=stage.folder, env=stage.environ, start_new_session=True
    ) as runner:
        try:
            assert runner.wait(20) == 0
        finally:
            if runner.poll() is None:
                end_family(runner.pid)
    assert stage.ran()["each"] >= 1


def end_family(pid: int) -> None:
    """Kill a runner with its guards and engine, the innermost first."""
    for each in [*family(pid)][::-1]:
        os.kill(each, signal.SIGKILL)


def family(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from family(int(child))


# --- limits ------------------------------------------------------------------------------------------------------------------


def test_a_limit_with_more_slots_than_descriptors_is_no_wait_for_ever(stage: Stage) -> None:
    stage.job({"a": {"run": "true", "limits": {"api": 400}}}, limits={"api": {"slots": 400, "scope": "host"}})
    line = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *stage.command("run", "job.yaml")]
    with subprocess.Popen(
        line, cwd=stage.folder, env=stage.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as runner:
        try:
            said, _ = runner.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            end_family(runner.pid)
            raise
    assert runner.returncode != 0
    assert os.strerror(errno.EMFILE) in said or "descriptors" in said or "api" in said


# --- validate ----------------------------------------------------------------------------------------------------------------


def validated(job: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobrunner", "validate", "--imports", str(job)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)


BAD_ANSWERS = [
    "for fd in range(3, 30):\n    try: os.write(fd, b'1\\n')\n    except OSError: pass",
    "for fd in range(3, 30):\n    try: os.write(fd, b'[[[[\\n')\n    except OSError: pass",
    "for fd in range(3, 30):\n    try: os.write(fd, b'{' * 100000 + b'\\n')\n    except OSError: pass",
    "import json\njson.dumps = lambda *args, **kwargs: 'x'",
]


@pytest.mark.parametrize("text", BAD_ANSWERS)
def test_a_module_that_answers_in_the_place_of_its_probe_is_no_bug_of_ours(text: str, tmp_path: Path) -> None:
    (tmp_path / f"{MODULE}.py").write_text(f"import os\n{text}\ndef f(): pass\n")
    job = tmp_path / "job.yaml"
    job.write_text(f"tasks: {{a: {{target: '{MODULE}:f'}}, b: {{target: 'math:nothing'}}}}")
    checked = validated(job)
    assert checked.returncode == 2, checked.stderr
    assert "nothing" in checked.stderr
    assert "is a bug" not in checked.stderr


def test_an_answer_that_a_module_forges_hides_no_mistake_of_another_one(tmp_path: Path) -> None:
    answer = json.dumps({"module": MODULE, "has_failed": False, "remarks": [], "libraries": [], "pools": {}})
    line = f"{answer}\n".encode()
    text = f"import os\nfor fd in range(3, 30):\n    try: os.write(fd, {line!r})\n    except OSError: pass\n"
    (tmp_path / f"{MODULE}.py").write_text(f"{text}def f(): pass\n")
    job = tmp_path / "job.yaml"
    job.write_text(f"tasks: {{a: {{target: '{MODULE}:f'}}, b: {{target: 'math:nothing'}}}}")
    checked = validated(job)
    assert (checked.returncode, "nothing" in checked.stderr) == (2, True), checked.stdout


def test_any_number_of_expressions_gets_its_quotes() -> None:
    lines = [f"  t{number}: {{argv: [echo, ${{{{ run.id }}}}]}}" for number in range(300)]
    mended = fix.fixed("\n".join(["tasks:", *lines, ""]).encode(), "job.yaml")
    assert not mended.remaining
    assert len(mended.changes) == 300


def test_names_of_a_matrix_may_be_those_of_methods() -> None:
    task = {"run": "true", "matrix": {"get": [1], "keys": [2], "index": [3], "item": [4]}}
    assert Job.model_validate({"tasks": {"a": task}}).tasks["a"].has_instances
    assert list(matrix.combinations(task["matrix"])[0]) == ["get", "keys", "index", "item"]  # type: ignore[arg-type]
