"""The cache: what of a task counts, what an entry keeps and gives back, and whole runs that skip what has not changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from jobrunner import api, staleness, work
from jobrunner.bind import Binder, Run
from jobrunner.cache import LARGEST, Cache, Verdict
from jobrunner.cli.main import cli
from jobrunner.events import TaskSkipped
from jobrunner.plan import Attempt, Plan
from jobrunner.spec import Job
from jobrunner.work import Call, Command, Error, Outcome, Result
from tests.harness import Ran, run_job

HERE = "test_cache"


class Part:
    """One run of a job, whose attempts are answered by hand. Calls go through JSON, as they do to a host."""

    def __init__(self, folder: Path, tasks: Mapping[str, Mapping[str, Any]], **keys: Any) -> None:
        options = {
            name: keys.pop(name) for name in ("keeps", "withhold", "force", "only", "secrets", "environ", "run") if name in keys
        }
        made = {name: task if {"target", "argv", "run"} & set(task) else {"run": "true", **task} for name, task in tasks.items()}
        self.job = Job.model_validate({"name": "test", "tasks": made, **keys})
        self.folder = folder
        run = Run(id=options.get("run", "r1"), dir=f"/runs/{options.get('run', 'r1')}", started_at="2026", folder=str(folder))
        environ, known = options.get("environ", {"PATH": "/bin", "HOME": "/home/ada"}), options.get("secrets", {})
        self.binder = Binder(self.job, params={"files": ["a.csv", "b.csv"]}, environ=environ, run=run, secrets=known)
        self.plan = Plan(
            self.job,
            pools=dict.fromkeys(self.job.used_pools(), 99),
            expand=self.binder.items,
            decide=self.binder.decide,
            only=options.get("only", ()),
        )
        self.cache = Cache(
            self.job,
            self.binder,
            folder / "cache",
            folder=folder,
            force=lambda task: bool(options.get("force", False)),
            now=lambda: 1000.0,
            keeps=options.get("keeps", lambda name: False),
            withhold=options.get("withhold", lambda data: False),
        )
        self.cache.attach(self.plan)

    def run(self, result: Result | None = None) -> dict[str, Verdict]:
        """Play all tasks; each succeeds, with `result`. What was said of each instance with a cache, by its name."""
        found = {}
        for attempt in self.plan.take(0.0):
            bound = self.work(attempt)
            verdict = self.judge(attempt, bound)
            ended = replace(result or Result(id=0, outcome=Outcome.SUCCEEDED), id=attempt.id)
            if verdict is not None:
                found[f"{attempt.task}[{attempt.key}]" if attempt.key else attempt.task] = verdict
                ended = verdict.result or ended
            if verdict is not None and not verdict.fresh:
                self.store(attempt, bound, ended)
            self.cache.ended(attempt, self.binder.digest(attempt, bound))
            self.plan.apply(attempt, ended, 0.0, recorded=True)
        return found

    def work(self, attempt: Attempt) -> Call | Command:
        bound = self.binder.work(self.plan, attempt, False)
        assert isinstance(bound, Call | Command)
        return bound

    def judge(self, attempt: Attempt, bound: Call | Command) -> Verdict | None:
        look = self.cache.check(attempt, bound)
        return None if look is None else self.cache.judge(attempt, sent(look))

    def store(self, attempt: Attempt, bound: Call | Command, result: Result) -> dict[str, Any]:
        call = self.cache.store(attempt, bound, result)
        answer: dict[str, Any] = {} if call is None else sent(call).json()
        return answer


def sent(call: Call) -> Result:
    """What a host answers."""
    assert call.id < 0
    kwargs = json.loads(json.dumps(call.kwargs))
    result = work.run(replace(call, kwargs=kwargs))
    assert result.outcome is Outcome.SUCCEEDED, result.error
    return result


def twice(folder: Path, first: dict[str, Any], second: dict[str, Any], **keys: Any) -> tuple[str, ...]:
    """Why the only cached instance of the second run would run after the first has succeeded."""
    Part(folder, **{**keys, **first}).run()
    [verdict] = Part(folder, run="r2", **{**keys, **second}).run().values()
    return verdict.causes


def task(**keys: Any) -> dict[str, Any]:
    return {"tasks": {"a": {"cache": {}, **keys}}}


# --- what counts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "cause"),
    [
        (task(run="echo 1"), task(run="echo 2"), "the command changed"),
        (task(run=["echo 1", "echo 2"]), task(run=["echo 1", "echo 3"]), "the command changed"),
        (task(run="echo ${{ run.id }}"), task(run="echo ${{ run.id }}"), "the command changed"),
        (task(run="true"), task(target="os:getpid"), "the command is gone"),
        (task(target="os:getpid"), task(target="os:getppid"), "the target changed"),
        (task(target="os:kill", args=[1]), task(target="os:kill", args=[2]), "the arguments changed"),
        (task(target="os:kill", kwargs={"a": 1}), task(target="os:kill", kwargs={"a": "1"}), "the arguments changed"),
        (task(cwd="a"), task(cwd="b"), "the folder it runs in changed"),
        (task(env={"STAGE": "a"}), task(env={"STAGE": "b"}), "env STAGE changed"),
        (task(env={"STAGE": "a"}), task(), "env STAGE is gone"),
        ({**task(), "env": {"STAGE": "a"}}, {**task(), "env": {"STAGE": "b"}}, "env STAGE changed"),
        (task(cache={"outputs": []}), task(cache={"outputs": ["a"]}), "the list of its outputs changed"),
        (task(), task(cache={"inputs": ["none.csv"]}), "input none.csv is missing"),
        (task(), task(cache={"inputs": ["${{ env.NONE }}"]}), "what it depends on is not known: "),
        (task(), task(cache={"inputs": ["${{ '' }}"]}), "what it depends on is not known: a path of"),
        (task(), {**task(), "force": True}, "it is to run whatever is cached (--force)"),
    ],
)  # fmt: skip
def test_this_counts(tmp_path: Path, first: dict[str, Any], second: dict[str, Any], cause: str) -> None:
    assert any(each.startswith(cause) for each in twice(tmp_path, first, second)), twice(tmp_path, first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (task(), task()),
        (task(), task(timeout=5, retry=3, description="other", mode="thread", resources={"nice": 5})),
        (task(), {**task(), "environ": {"PATH": "/bin", "HOME": "/home/ada", "OTHER": "1"}}),
        (task(cache={"ttl": 5}), task(cache={"ttl": 7})),
        (task(target="os:kill", kwargs={"a": 1, "b": 2}), task(target="os:kill", kwargs={"b": 2, "a": 1})),
    ],
)
def test_this_does_not_count(tmp_path: Path, first: dict[str, Any], second: dict[str, Any]) -> None:
    assert twice(tmp_path, first, second) == ()


@pytest.mark.parametrize("action", [{"run": "true"}, {"target": "os:getpid"}])
def test_a_variable_that_the_cache_names_counts_wherever_it_comes_from(tmp_path: Path, action: dict[str, Any]) -> None:
    named = task(cache={"env": ["STAGE"]}, **action)
    assert twice(tmp_path, {**named, "environ": {"STAGE": "a"}}, {**named, "environ": {"STAGE": "a"}}) == ()
    assert twice(tmp_path, {**named, "environ": {"STAGE": "a"}}, {**named, "environ": {"STAGE": "b"}}) == ("env STAGE changed",)
    assert twice(tmp_path, {**named, "environ": {}}, {**named, "environ": {"STAGE": ""}}) == ("env STAGE changed",)


@pytest.mark.parametrize(
    ("listed", "names", "causes"),
    [
        ({"secrets": ["token"], "env": {"AUTH": "Bearer ${{ secrets.token }}"}}, [], ()),
        ({"secrets": ["token"], "env": {"AUTH": "Bearer ${{ secrets.token }}"}}, ["AUTH"], ("env AUTH changed",)),
        ({"secrets": ["token"]}, [], ()),
        ({"secrets": ["token"]}, ["token"], ("env token changed",)),
    ],
)
def test_a_secret_counts_only_where_it_is_named_and_is_in_no_entry(
    tmp_path: Path, listed: dict[str, Any], names: list[str], causes: tuple[str, ...]
) -> None:
    job = {**task(**listed, cache={"env": names}), "environ": {}}
    job["tasks"]["a"]["target"] = "os:getpid"
    declared = {**job, "secrets": {"token": "first-secret"}}
    Part(tmp_path, **_with_secret(declared, "first-secret")).run()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").iterdir())
    assert b"first-secret" not in kept
    [verdict] = Part(tmp_path, **_with_secret(declared, "other-secret")).run().values()
    assert verdict.causes == causes
    [asked_before_a_run] = Part(tmp_path, **_with_secret(declared, None)).run().values()
    assert asked_before_a_run.fresh


def _with_secret(job: dict[str, Any], value: str | None) -> dict[str, Any]:
    return {**job, "secrets": {} if value is None else {"token": value}}


def test_inputs_may_be_expressions_and_lists(tmp_path: Path) -> None:
    job = {"tasks": {"a": {"foreach": ["a.csv", "c.csv"], "cache": {"inputs": ["${{ item }}", "${{ params.files }}"]}}}}
    for name in "abc":
        (tmp_path / f"{name}.csv").touch()
    Part(tmp_path, **job).run()
    (tmp_path / "c.csv").write_text("more")
    causes = {name: verdict.causes for name, verdict in Part(tmp_path, **job).run().items()}
    assert causes == {"a[a.csv]": (), "a[c.csv]": ("input c.csv changed",)}


def test_instances_are_told_apart_whatever_their_items_are_called(tmp_path: Path) -> None:
    items = ["../../x", "a\nb", "é\udcff", "", "x" * 5000, {"b": 1}, {"b": 2}, "B", "b", 1, "1"]
    job = {"tasks": {"a": {"foreach": items, "cache": {}, "target": "os:getpid"}}}
    assert not any(verdict.fresh for verdict in Part(tmp_path, **job).run().values())
    assert all(verdict.fresh for verdict in Part(tmp_path, **job).run().values())
    assert len(list((tmp_path / "cache").iterdir())) == len(items)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


# --- what it needs --------------------------------------------------------------------------------------------------------------


def chain(*, first: str = "true", between: Mapping[str, Any] | None = None) -> dict[str, Any]:
    tasks = {"a": {"run": first}, "b": {"needs": ["a"], **(between or {})}, "c": {"needs": ["b"], "cache": {}}}
    return {"tasks": tasks}


def test_a_change_far_above_is_a_cause_also_through_tasks_without_a_cache(tmp_path: Path) -> None:
    assert twice(tmp_path, chain(), chain()) == ()
    assert twice(tmp_path, chain(), chain(first="echo 2")) == ("needs b, which gave something else",)


def test_another_input_of_a_task_above_is_a_cause(tmp_path: Path) -> None:
    job = chain(between={"cache": {"inputs": ["*.csv"]}})
    Part(tmp_path, **job).run()
    (tmp_path / "a.csv").touch()
    causes = {name: verdict.causes for name, verdict in Part(tmp_path, **job).run().items()}
    assert causes == {"b": ("input a.csv is new",), "c": ("needs b, which gave something else",)}
    assert all(verdict.fresh for verdict in Part(tmp_path, **job).run().values())


def test_one_more_instance_above_is_a_cause_and_their_order_is_none(tmp_path: Path) -> None:
    def job(items: list[int]) -> dict[str, Any]:
        return {"tasks": {"a": {"foreach": items}, "b": {"needs": ["a"], "cache": {}}}}

    assert twice(tmp_path, job([1, 2]), job([2, 1])) == ()
    assert twice(tmp_path, job([1, 2]), job([1, 2, 3])) == ("needs a, which gave something else",)


def test_what_is_left_out_of_a_run_counts_as_it_was(tmp_path: Path) -> None:
    Part(tmp_path, **chain()).run()
    assert Part(tmp_path, **chain(), only=["c"]).run()["c"].fresh
    assert Part(tmp_path, **chain(), only=["c"], force=True).run()["c"].causes
    assert Part(tmp_path, **chain()).run()["c"].fresh, "and is remembered as it was"


def test_what_has_ended_in_an_earlier_part_of_the_run_is_as_its_entry_says(tmp_path: Path) -> None:
    job = chain(between={"cache": {}})
    Part(tmp_path, **job).run()
    part = Part(tmp_path, **job)
    for attempt in part.plan.take(0.0):
        bound = part.work(attempt)
        if attempt.task == "c":
            verdict = part.judge(attempt, bound)
            assert verdict is not None
            assert verdict.fresh
        part.cache.ended(attempt, part.binder.digest(attempt, bound))  # b was never checked
        part.plan.apply(attempt, Result(id=attempt.id, outcome=Outcome.SUCCEEDED), 0.0, recorded=True)


# --- what is kept ---------------------------------------------------------------------------------------------------------------

GAVE = Result(
    id=0,
    outcome=Outcome.SUCCEEDED,
    value='{"é":[1,null,"\\ud800"]}'.encode(),
    stdout=b"\xff\x00 out\n",
    outputs={"key": "välue"},
    exit_code=0,
)


def _kept(tmp_path: Path, gave: Result, **options: Any) -> Verdict:
    job = {**task(target="os:getpid"), "keeps": lambda name: True, **options}
    Part(tmp_path, **job).run(gave)
    return Part(tmp_path, **job).run(gave)["a"]


def test_what_a_task_gave_comes_back_as_it_was(tmp_path: Path) -> None:
    verdict = _kept(tmp_path, GAVE)
    assert verdict.fresh
    assert verdict.result is not None
    assert replace(verdict.result, id=0) == GAVE
    assert verdict.result.id > 0


@pytest.mark.parametrize(
    ("gave", "options"),
    [
        (replace(GAVE, value=b'"' + b"x" * LARGEST + b'"'), {}),
        (replace(GAVE, stdout=b"x" * LARGEST), {}),
        (replace(GAVE, value_file="/somewhere"), {}),
        (GAVE, {"withhold": lambda data: b"out" in data}),
        (GAVE, {"withhold": lambda data: "välue".encode() in data}),
    ],
)
def test_what_is_too_large_or_secret_is_not_kept_and_asked_for_it_runs_again(
    tmp_path: Path, gave: Result, options: dict[str, Any]
) -> None:
    assert _kept(tmp_path, gave, **options).causes == ("what it gave is not kept",)
    assert _kept(tmp_path, gave, **options, keeps=lambda name: False).fresh


def test_what_nobody_asks_for_is_not_kept(tmp_path: Path) -> None:
    assert _kept(tmp_path, GAVE, keeps=lambda name: False).fresh
    assert Part(tmp_path, **task(target="os:getpid"), keeps=lambda name: True).run()["a"].causes == ("what it gave is not kept",)


@pytest.mark.parametrize(
    "answer",
    [
        Result(id=-1, outcome=Outcome.CRASHED, error=Error(type="WorkerDied", message="killed by\nsignal 9")),
        Result(id=-1, outcome=Outcome.FAILED),
        Result(id=-1, outcome=Outcome.SUCCEEDED, value=b"[]"),
        Result(id=-1, outcome=Outcome.SUCCEEDED, value=b'{"fresh": true}'),
        Result(id=-1, outcome=Outcome.SUCCEEDED, value=b'{"fresh": true, "causes": [], "digest": "", "data": "[]"}'),
    ],
)
def test_a_check_that_failed_is_a_cause_and_leaves_no_entry(tmp_path: Path, answer: Result) -> None:
    Part(tmp_path, **task()).run()
    part = Part(tmp_path, **task())
    [attempt] = part.plan.take(0.0)
    verdict = part.cache.judge(attempt, answer)
    assert not verdict.fresh
    assert verdict.causes[0].startswith("its cache could not be checked: ")
    assert "\n" not in verdict.causes[0]
    assert list((tmp_path / "cache").iterdir()) == []
    part.cache.ended(attempt, "digest")


def test_a_task_without_a_cache_is_not_looked_at(tmp_path: Path) -> None:
    part = Part(tmp_path, {"a": {}})
    [attempt] = part.plan.take(0.0)
    bound = part.work(attempt)
    assert part.cache.check(attempt, bound) is None
    assert part.cache.store(attempt, bound, GAVE) is None
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CRASHED, Outcome.CANCELLED])
def test_only_a_success_is_stored(tmp_path: Path, outcome: Outcome) -> None:
    part = Part(tmp_path, **task())
    [attempt] = part.plan.take(0.0)
    assert part.cache.store(attempt, part.work(attempt), Result(id=attempt.id, outcome=outcome)) is None


# --- whole runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def folder(tmp_path: Path, state: Path) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    return folder


def skipped(ran: Ran) -> list[str]:
    return [event.task for event in ran.of(TaskSkipped) if event.reason == "cached"]


BUILD = {
    "name": "build",
    "tasks": {
        "count": {"run": "sh -c 'wc -l < a.csv > out.txt; cat out.txt'", "cache": {"inputs": ["a.csv"], "outputs": ["out.txt"]}},
        "show": {"needs": ["count"], "argv": ["echo", "${{ tasks.count.stdout }}"], "cache": {}},
    },
}


def test_a_second_run_skips_what_has_not_changed_with_its_data(folder: Path) -> None:
    (folder / "a.csv").write_text("1\n2\n")
    assert skipped(run_job(folder, BUILD)) == []
    again = run_job(folder, BUILD)
    assert skipped(again) == ["count", "show"]
    assert again.result.exit_code == 0
    (folder / "a.csv").write_text("1\n2\n3\n")
    third = run_job(folder, BUILD)
    assert skipped(third) == []
    assert third.output("show") == "3\n"
    assert third.started("count")[0].because == ("input a.csv changed",)
    (folder / "out.txt").unlink()
    assert run_job(folder, BUILD).started("count")[0].because == ("output out.txt is gone",)


def test_half_written_outputs_of_a_failed_attempt_are_never_taken_for_done(folder: Path) -> None:
    job = {"name": "half", "tasks": {"a": {"run": "sh ./make.sh", "cache": {"outputs": ["out.txt"]}}}}
    (folder / "make.sh").write_text("echo all > out.txt")
    run_job(folder, job)
    (folder / "make.sh").write_text("echo half > out.txt; exit 3")
    (folder / "out.txt").unlink()
    assert run_job(folder, job).result.exit_code == 1
    (folder / "make.sh").write_text("echo all > out.txt")
    last = run_job(folder, job)
    assert last.started("a")[0].because == ("no success of its last attempt is known",)


def test_a_run_that_is_killed_in_the_middle_leaves_nothing_fresh(folder: Path, state: Path) -> None:
    job = {"name": "killed", "tasks": {"a": {"run": "sh ./make.sh", "cache": {"outputs": ["out.txt"]}}}}
    (folder / "make.sh").write_text("echo half > out.txt; if [ -e block ]; then echo > fifo; sleep 60; fi")
    run_job(folder, job)
    (folder / "block").touch()
    os.mkfifo(folder / "fifo")
    (folder / "out.txt").unlink()
    command = [sys.executable, "-m", "jobrunner", "run", "job.yaml", "-q", "--log-file", os.devnull]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    engine = subprocess.Popen(command, cwd=folder, env=environ, start_new_session=True)
    (folder / "fifo").read_bytes()  # it runs, and has written its output
    os.killpg(engine.pid, signal.SIGKILL)
    engine.wait()
    (folder / "block").unlink()
    again = run_job(folder, job)
    assert again.started("a")[0].because == ("no success of its last attempt is known",)


def test_an_output_that_is_missing_after_a_success_is_no_failure_but_runs_again(folder: Path) -> None:
    job = {"name": "none", "tasks": {"a": {"run": "true", "cache": {"outputs": ["out.txt"]}}}}
    assert run_job(folder, job).result.exit_code == 0
    assert run_job(folder, job).started("a")[0].because == ("output out.txt was not there when it last ended",)


def test_a_function_runs_again_when_its_module_changes(folder: Path) -> None:
    job = {"name": "code", "mode": "process", "tasks": {"a": {"target": f"{HERE}_steps:f", "args": [1], "cache": {}}}}
    (folder / f"{HERE}_steps.py").write_text("def f(x): return x")
    assert run_job(folder, job).value("a") == 1
    again = run_job(folder, job)
    assert skipped(again) == ["a"]
    assert again.value("a") == 1
    (folder / f"{HERE}_steps.py").write_text("def f(x): return x + 1")
    third = run_job(folder, job)
    assert third.started("a")[0].because == (f"{HERE}_steps.py changed",)
    assert third.value("a") == 2


# --- why -----------------------------------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """`jobrunner why` of a task of a job."""

    folder: Path
    job: dict[str, Any]
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *args: str) -> str:
        self.capsys.readouterr()
        (self.folder / "job.yaml").write_text(json.dumps(self.job))
        assert cli(["why", str(self.folder / "job.yaml"), *args]) == 0, self.capsys.readouterr().err
        return self.capsys.readouterr().out


@pytest.fixture
def ask(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[dict[str, Any]], Asked]:
    return lambda job: Asked(folder, job, capsys)


def test_why_says_what_has_changed_or_that_it_is_cached(folder: Path, ask: Callable[[dict[str, Any]], Asked]) -> None:
    why = ask(BUILD)
    (folder / "a.csv").write_text("1\n")
    assert why("count") == "count: would run\n  no earlier success is known\n"
    run_job(folder, BUILD)
    assert why("count") == "count: cached as of now: would be skipped\n"
    assert why("show") == "show: cached as of now: would be skipped\n"
    (folder / "a.csv").write_text("2\n")
    assert why("count") == "count: would run\n  input a.csv changed\n"
    assert why("show") == "show: would run\n  needs count, which gave something else\n"
    assert skipped(run_job(folder, BUILD)) == [], "and it has changed nothing by asking"


def test_why_takes_what_the_last_run_recorded_for_what_the_tasks_before_will_give(
    folder: Path, ask: Callable[[dict[str, Any]], Asked]
) -> None:
    each = {"needs": ["list"], "foreach": "${{ tasks.list.result }}", "argv": ["echo", "${{ item }}"], "cache": {}}
    job = {"name": "items", "tasks": {"list": {"target": f"{HERE}_items:f"}, "each": each}}
    (folder / f"{HERE}_items.py").write_text("def f(): return ['x', 'y']")
    why = ask(job)
    assert why("each") == "each: known only in the run\n  depends on the result of list, which is known only when it has run\n"
    run_job(folder, job)
    assert why("each") == "each[x]: cached as of now: would be skipped\neach[y]: cached as of now: would be skipped\n"
    assert why("list").startswith("list has no cache: it always runs\n")


def test_why_shows_twenty_instances_and_counts_the_others(folder: Path, ask: Callable[[dict[str, Any]], Asked]) -> None:
    why = ask({"name": "many", "tasks": {"a": {"foreach": {"range": 50}, "run": "true", "cache": {}}}})
    lines = why("a").splitlines()
    assert len(lines) == 41
    assert lines[-1] == "and 30 more: 30 would run"
    data = json.loads(why("a", "--json"))
    assert (data["would_run"], data["cached"], len(data["instances"]), data["not_shown"]) == (50, 0, 20, {"would run": 30})


def test_why_of_nothing_and_of_no_task(folder: Path, ask: Callable[[dict[str, Any]], Asked], capsys: Any) -> None:
    why = ask({"name": "none", "params": {"n": 1}, "tasks": {"a": {"foreach": [], "run": "true", "cache": {}}}})
    assert why("a", "--set", "n=2").startswith("a: nothing of it would run")
    assert cli(["why", str(folder / "job.yaml"), "aa"]) == 2
    assert "has no task aa. Did you mean" in capsys.readouterr().err


SEVERAL: dict[str, Any] = {
    "name": "several",
    "tasks": {
        "list": {"target": f"{HERE}_several:f"},
        "count": {"run": "cat a.csv b.csv c.csv d.csv", "cache": {"inputs": ["a.csv", "b.csv", "c.csv", "d.csv"]}},
        "each": {"foreach": {"glob": "*.csv"}, "run": "cat ${{ item }}", "cache": {"inputs": ["${{ item }}"]}},
        "late": {"needs": ["list"], "argv": ["echo", "${{ tasks.list.result }}"], "cache": {}},
        "never": {"foreach": [], "run": "true", "cache": {}},
    },
    "finally": {"tell": {"run": "true", "cache": {}}},
}


def test_why_of_a_whole_job_sums_up_each_task_with_a_cache(folder: Path, ask: Callable[[dict[str, Any]], Asked]) -> None:
    (folder / f"{HERE}_several.py").write_text("def f(): return 'x'")
    for name in "abcd":
        (folder / f"{name}.csv").write_text(name)
    why = ask(SEVERAL)
    assert why() == (
        "count: would run\n  no earlier success is known\n"
        "each: 4 would run\n  no earlier success is known\n"
        "late: known only in the run\n  depends on the result of list, which is known only when it has run\n"
        "never: nothing of it would run: its condition is false, or it has no items\n"
        "tell: would run\n  no earlier success is known\n"
    )
    run_job(folder, SEVERAL)
    fresh = (
        "late: cached as of now: would be skipped\nnever: nothing of it would run: its condition is false, or it has no items\n"
    )
    assert why() == (
        "count: cached as of now: would be skipped\neach: cached as of now: would be skipped (× 4)\n"
        f"{fresh}tell: cached as of now: would be skipped\n"
    )
    for name in "abcd":
        (folder / f"{name}.csv").write_text(f"{name}\n")
    (folder / "a.csv").unlink()
    (folder / "e.csv").touch()
    assert why().startswith(
        "count: would run\n  input a.csv is gone\n  input b.csv changed\n  input c.csv changed\n"
        f"  and 2 more: jobrunner why {folder}/job.yaml count\n"
        "each: 4 would run\n  input b.csv changed\n  input c.csv changed\n  input d.csv changed\n"
        f"  and 1 more: jobrunner why {folder}/job.yaml each\n"
    )
    (folder / "b.csv").write_text("b")
    assert "\neach: 3 would run, 1 cached\n  input c.csv changed\n" in why()


def test_why_of_a_whole_job_as_json_has_counts_and_causes(folder: Path, ask: Callable[[dict[str, Any]], Asked]) -> None:
    data = json.loads(ask({"name": "two", "tasks": {"a": {"run": "true"}, "b": {"run": "true", "cache": {}}}})("--json"))
    causes = ["no earlier success is known"]
    assert data == {
        "job": "two",
        "tasks": [{"task": "b", "cached": 0, "would_run": 1, "known_only_in_the_run": 0, "causes": causes}],
    }


def test_why_of_a_job_without_caches_says_so(folder: Path, ask: Callable[[dict[str, Any]], Asked]) -> None:
    assert ask({"name": "none", "tasks": {"a": {"run": "true"}}})().startswith(
        "none: no task has a cache: all of them always run\n"
    )


def test_causes_of_a_whole_job_leave_out_what_only_the_run_will_tell(folder: Path) -> None:
    later = {"needs": ["first"], "argv": ["echo", "${{ tasks.first.stdout }}"], "cache": {}}
    job = {"name": "all", "tasks": {"first": {"run": "true"}, "later": later, "now": {"run": "true", "cache": {}}}}
    (folder / "job.yaml").write_text(json.dumps(job))
    assert staleness.causes(api.prepare(folder / "job.yaml", api.Options())) == {"now": ["no earlier success is known"]}
    run_job(folder, job)
    assert staleness.causes(api.prepare(folder / "job.yaml", api.Options())) == {"now": [], "later": []}


@pytest.mark.parametrize("content", ['{"value": 5}', "[" * 100_000, '"text"', "[]"])
def test_an_entry_with_odd_data_is_a_cause_to_run(tmp_path: Path, content: str) -> None:
    part = Part(tmp_path, tasks={"a": {"cache": {}}})
    attempt = next(iter(part.plan.take(0.0)))
    answer = json.dumps({"fresh": True, "causes": [], "digest": "x", "data": content}).encode()
    verdict = part.cache.judge(attempt, Result(id=-attempt.id, outcome=Outcome.SUCCEEDED, value=answer))
    assert not verdict.fresh


@pytest.mark.parametrize(
    "task",
    [
        {"argv": ["./load.sh", "x"]},
        {"run": "./load.sh"},
        {"run": "sh load.sh --fast"},
        {"run": "./load.sh > /dev/null && echo done"},
        {"run": ["true", "tools/../load.sh x"]},
        {"argv": ["../load.sh"], "cwd": "tools"},
    ],
    ids=str,
)
def test_the_script_that_a_command_begins_with_counts_as_its_code(tmp_path: Path, task: dict[str, Any]) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "load.sh").write_text("one")
    job = {"tasks": {"a": {**task, "cache": {}}}}
    Part(tmp_path, **job).run()
    assert Part(tmp_path, **job).run()["a"].fresh
    (tmp_path / "load.sh").write_text("two")
    assert Part(tmp_path, **job).run()["a"].causes == ("load.sh changed",)


@pytest.mark.parametrize(
    "task", [{"run": "cp load.sh x"}, {"argv": ["/bin/true", "load.sh"]}, {"run": "python3 -c load.sh"}], ids=str
)
def test_other_words_of_a_command_are_no_code(tmp_path: Path, task: dict[str, Any]) -> None:
    (tmp_path / "load.sh").write_text("one")
    job = {"tasks": {"a": {**task, "cache": {}}}}
    Part(tmp_path, **job).run()
    (tmp_path / "load.sh").write_text("two")
    assert Part(tmp_path, **job).run()["a"].fresh
