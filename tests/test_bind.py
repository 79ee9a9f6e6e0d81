"""Binding: from the texts of a task and the values of its needs to the items, the Call or the Command of an attempt."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner.bind import Binder, Run, data_references, needs_shell
from jobrunner.errors import ExpressionError, UsageError
from jobrunner.items import Items
from jobrunner.plan import Attempt, Plan, Skip, Span
from jobrunner.spec import Job
from jobrunner.work import Call, Command, Error, Outcome, Result

FOLDER = "/jobs"
ENVIRON = {"PATH": "/bin:/usr/bin", "HOME": "/home/somebody"}


class Bench:
    """A job with its plan and binder; tasks are answered by hand."""

    def __init__(
        self, tasks: Mapping[str, Mapping[str, Any]], *, params: Mapping[str, object] | None = None, **keys: Any
    ) -> None:
        folder, environ, only = keys.pop("folder", FOLDER), keys.pop("environ", ENVIRON), keys.pop("only", ())
        made = {name: task if {"target", "argv", "run"} & set(task) else {"run": "true", **task} for name, task in tasks.items()}
        self.job = Job.model_validate({"name": "test", "tasks": made, **keys})
        run = self.run = Run(id="r1", dir="/state/test/r1", started_at="2026-01-02T03:04:05Z", folder=folder)
        self.binder = Binder(self.job, params=params or {}, environ=environ, run=run)
        self.plan = Plan(self.job, pools={"default": 99}, expand=self.binder.items, decide=self.binder.decide, only=only)

    def take(self) -> list[Attempt]:
        return list(self.plan.take(0.0))

    def work(self, attempt: Attempt | None = None, *, needed: bool = False) -> Call | Command:
        work = self.binder.work(self.plan, attempt or self.take()[0], needed)
        assert not isinstance(work, Skip)
        return work

    def call(self) -> Call:
        work = self.work()
        assert isinstance(work, Call)
        return work

    def command(self) -> Command:
        work = self.work()
        assert isinstance(work, Command)
        return work

    def end(self, attempt: Attempt, outcome: Outcome = Outcome.SUCCEEDED, **result: Any) -> None:
        self.plan.apply(attempt, Result(id=attempt.id, outcome=outcome, **result), 0.0)

    def items(self, name: str) -> list[object]:
        return list(self.binder.items(self.plan, name))


# --- with or without a shell -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tar -czf x.tar.gz src", False),
        ("./build.sh --fast", False),
        ("rsync -a a/ host:b/", False),
        ("python3 -m http.server 8000", False),
        ("test -f x", False),
        ("echo a,b %c @d +e", False),
        ("make CC=gcc", False),
        ("a | b", True),
        ("a > out", True),
        ("a < in", True),
        ("a; b", True),
        ("a && b", True),
        ("sleep 1 &", True),
        ("echo $HOME", True),
        ("echo `date`", True),
        ("echo 'a b'", True),
        ('echo "a b"', True),
        ("echo a\\ b", True),
        ("ls *.c", True),
        ("ls [ab]", True),
        ("ls ?", True),
        ("(a)", True),
        ("{ a; }", True),
        ("ls ~", True),
        ("! a", True),
        ("a # why", True),
        ("a^b", True),
        ("a\nb", True),
        ("CC=gcc make", True),
        ("cd x", True),
        ("exec a", True),
        (". ./env", True),
        (": nothing", True),
        ("exit 3", True),
        ("ulimit -n 10", True),
        ("until x", True),
    ],
)
def test_a_line_goes_to_a_shell_if_only_a_shell_understands_it_as_in_make(line: str, expected: bool) -> None:
    assert needs_shell([line]) is expected
    argv = Bench({"a": {"run": line}}).command().argv
    assert argv == (("/bin/sh", "-ec", line) if expected else tuple(line.split()))


def test_a_value_does_not_bring_a_shell_in_but_raw_does() -> None:
    params = {"x": "a; b"}
    assert Bench({"a": {"run": "echo ${{ params.x }}"}}, params=params).command().argv == ("echo", "a; b")
    raw = Bench({"a": {"run": "echo ${{ raw(params.x) }}"}}, params=params).command().argv
    assert raw == ("/bin/sh", "-ec", "echo a; b")


def test_a_shell_stops_at_the_first_line_that_fails() -> None:
    argv = Bench({"a": {"run": "false\necho reached"}}).command().argv
    ended = subprocess.run(argv, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, b"")


HOSTILE = [
    "",
    " ",
    "a b",
    "; rm -rf x",
    "$(id)",
    "`id`",
    "'",
    '"',
    "\\",
    "\n",
    "-rf",
    "*",
    "~",
    "#",
    "&",
    "|",
    "ü🎉",
    "a'b\"c",
    "${HOME}",
    "!!",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    "task",
    [
        {"run": "printf %s ${{ params.x }}"},
        {"run": "printf %s ${{ params.x }} | cat"},
        {"run": 'printf %s "${{ params.x }}" | cat'},
        {"run": "printf %s '${{ params.x }}' | cat"},
        {"argv": ["printf", "%s", "${{ params.x }}"]},
    ],
    ids=["no shell", "bare", "double quotes", "single quotes", "argv"],
)
def test_a_value_is_one_argument_wherever_it_stands(task: dict[str, Any], value: str) -> None:
    argv = Bench({"a": task}, params={"x": value}).command().argv
    assert subprocess.run(argv, capture_output=True, check=True).stdout.decode() == value


@given(value=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_any_text_is_one_argument_without_a_shell_and_with_one(value: str) -> None:
    tasks = {"a": {"run": "echo ${{ params.x }} end"}, "b": {"run": "echo ${{ params.x }} end | cat"}}
    bench = Bench(tasks, params={"x": value})
    direct, shell = (bench.work(attempt) for attempt in bench.take())
    assert isinstance(direct, Command)
    assert isinstance(shell, Command)
    assert direct.argv == ("echo", value, "end")
    assert shlex.split(shell.argv[2]) == ["echo", value, "end", "|", "cat"]


def test_a_list_becomes_one_argument_an_element() -> None:
    argv = Bench({"a": {"run": "cat ${{ params.x }}"}}, params={"x": ["a b", "c"]}).command().argv
    assert argv == ("cat", "a b", "c")


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
@pytest.mark.parametrize(
    "task",
    [
        {"run": "echo ${{ params.x }}"},
        {"argv": ["echo", "${{ params.x }}"]},
        {"run": "true", "env": {"X": "${{ params.x }}"}},
        {"run": "true", "cwd": "${{ params.x }}"},
    ],
    ids=["run", "argv", "env", "cwd"],
)
def test_what_no_process_can_be_given_is_refused_instead_of_breaking_the_run(task: dict[str, Any], value: str) -> None:
    with pytest.raises(ExpressionError, match=r"NUL|surrogate"):
        Bench({"a": task}, params={"x": value}).work()


def test_a_file_name_that_is_not_utf8_can_be_handed_on() -> None:
    name = os.fsdecode(b"caf\xe9")
    assert Bench({"a": {"argv": ["cat", "${{ params.x }}"]}}, params={"x": name}).command().argv == ("cat", name)


# --- what an attempt is given ------------------------------------------------------------------------------------------------


def test_arguments_keep_their_types_and_only_expressions_are_evaluated() -> None:
    tasks = {
        "a": {
            "target": "m:f",
            "args": ["${{ params.n }}", "n is ${{ params.n }}", 3, ["${{ params.flag }}"]],
            "kwargs": {"deep": {"list": "${{ params.list }}"}, "text": "as it is"},
        }
    }
    call = Bench(tasks, params={"n": 7, "flag": True, "list": [1, {"x": None}]}).call()
    assert call.target == "m:f"
    assert call.args == [7, "n is 7", 3, [True]]
    assert call.kwargs == {"deep": {"list": [1, {"x": None}]}, "text": "as it is"}


def test_item_and_index_are_those_of_the_instance() -> None:
    bench = Bench(
        {"a": {"target": "m:f", "args": ["${{ item }}", "${{ index }}", "${{ item.x }}"], "foreach": [{"x": "p"}, {"x": "q"}]}}
    )
    found = [bench.work(attempt) for attempt in bench.take()]
    assert [each.args for each in found if isinstance(each, Call)] == [[{"x": "p"}, 0, "p"], [{"x": "q"}, 1, "q"]]


@pytest.mark.parametrize("attempts", [1, 3])
def test_every_attempt_can_read_about_itself_and_its_key_is_the_same_for_all_tries(attempts: int) -> None:
    bench = Bench({"a": {"foreach": ["x/y"], "retry": {"max": 5, "delay": 0}}})
    for _ in range(attempts):
        (attempt,) = bench.take()
        work = bench.work(attempt)
        bench.end(attempt, Outcome.FAILED)
    facts = {name: text for name, text in work.env.items() if name.startswith("JOBRUNNER_")}
    output = facts.pop("JOBRUNNER_OUTPUT")
    assert output == f"/state/test/r1/outputs/{attempt.id}"
    assert facts == {
        "JOBRUNNER_RUN_ID": "r1",
        "JOBRUNNER_RUNS": "r1",
        "JOBRUNNER_TASK": "a",
        "JOBRUNNER_ITEM": "x/y",
        "JOBRUNNER_ATTEMPT": str(attempts),
        "JOBRUNNER_TASK_KEY": "r1/a/x/y",
    }


def test_a_task_without_items_has_an_empty_item_and_a_key_of_run_and_task() -> None:
    env = Bench({"a": {}}).command().env
    assert (env["JOBRUNNER_ITEM"], env["JOBRUNNER_TASK_KEY"]) == ("", "r1/a")


def test_env_of_a_command_is_ours_then_the_jobs_then_the_tasks_as_text() -> None:
    tasks = {"a": {"env": {"HOME": "/task", "N": "${{ params.n }}", "LIST": "${{ params.list }}", "FROM_JOB": "${{ env.WHO }}!"}}}
    bench = Bench(tasks, params={"n": 1.5, "list": [1, "b"]}, env={"HOME": "/job", "WHO": "${{ params.n }}"})
    env = bench.command().env
    assert (env["PATH"], env["HOME"], env["N"], env["LIST"]) == ("/bin:/usr/bin", "/task", "1.5", '[1,"b"]')
    assert (env["WHO"], env["FROM_JOB"]) == ("1.5", "1.5!")


def test_env_of_a_call_is_what_the_task_adds() -> None:
    env = Bench({"a": {"target": "m:f", "env": {"X": "1"}}}, env={"JOB": "1"}).call().env
    assert env["X"] == "1"
    assert "JOB" not in env, "its host has it already"


@pytest.mark.parametrize(
    ("cwd", "expected"),
    [
        (None, "/jobs"),
        ("sub", "/jobs/sub"),
        ("../other/", "/other"),
        ("/abs/./x", "/abs/x"),
        ("${{ params.x }}/y", "/jobs/p q/y"),
        ("~/x", "/home/me/x"),
    ],
)
def test_cwd_counts_from_the_job_files_folder(cwd: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    task = {} if cwd is None else {"cwd": cwd}
    assert Bench({"a": task}, params={"x": "p q"}).command().cwd == expected


def test_a_call_without_cwd_stays_where_its_host_is() -> None:
    assert Bench({"a": {"target": "m:f"}}).call().cwd == ""


def test_run_tells_about_the_run() -> None:
    argv = (
        Bench({"a": {"argv": ["echo", "${{ run.id }} ${{ run.dir }} ${{ run.started_at }} ${{ run.attempt }}"]}}).command().argv
    )
    assert argv[1] == "r1 /state/test/r1 2026-01-02T03:04:05Z 1"


@pytest.mark.parametrize("needed", [True, False])
def test_who_is_waited_for_is_told_to_the_far_side(needed: bool) -> None:
    call = Bench({"a": {"target": "m:f"}}).work(needed=needed)
    command = Bench({"a": {}}).work(needed=needed)
    assert isinstance(call, Call)
    assert isinstance(command, Command)
    assert call.needed is command.stdout_needed is needed


# --- values of other tasks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("tasks.a.result", {"n": [1, 2], "large": 2**80}),
        ("tasks.a.result.n[1]", 2),
        ("tasks.a.results", [{"n": [1, 2], "large": 2**80}]),
        ("tasks.a.outcome", "succeeded"),
        ("tasks.a.stdout", "line 1\nline 2"),
        ("tasks.a.outputs.key", "value"),
        ("tasks.a.exit_code", 0),
        ("tasks.a.result.large", 2**80),
        ("len(tasks.a.result.n)", 2),
    ],
)
def test_the_values_of_a_task_that_has_ended(expression: str, expected: object) -> None:
    bench = Bench({"a": {}, "b": {"needs": ["a"], "target": "m:f", "args": [f"${{{{ {expression} }}}}"]}})
    (attempt,) = bench.take()
    bench.end(
        attempt, value=b'{"n":[1,2],"large":%d}' % (2**80), stdout=b"line 1\nline 2\n\n", outputs={"key": "value"}, exit_code=0
    )
    assert bench.call().args == [expected]


def test_results_of_a_fan_out_stand_in_the_order_of_its_items_with_null_for_what_failed() -> None:
    tasks: dict[str, dict[str, Any]] = {
        "a": {"foreach": [1, 2, 3], "continue_on_error": True, "target": "m:f"},
        "b": {"needs": ["a"], "target": "m:f", "args": ["${{ tasks.a.results }}", "${{ tasks.a.outcome }}"]},
    }
    bench = Bench(tasks)
    first, second, third = bench.take()
    bench.end(third, value=b'"c"')
    bench.end(second, Outcome.FAILED)
    bench.end(first, value=b'"a"')
    assert bench.call().args == [["a", None, "c"], "failed"]


def test_results_of_a_command_with_instances_say_of_each_how_it_ended_and_what_it_gave() -> None:
    tasks: dict[str, dict[str, Any]] = {
        "a": {"foreach": ["x", "y"], "continue_on_error": True},
        "b": {"needs": ["a"], "target": "m:f", "args": ["${{ tasks.a.results }}"]},
    }
    bench = Bench(tasks)
    first, second = bench.take()
    bench.end(first, stdout=b"said\n", outputs={"k": "1"}, exit_code=0)
    bench.end(second, Outcome.TIMED_OUT)
    [results] = bench.call().args
    assert results == [
        {"item": "x", "outcome": "succeeded", "exit_code": 0, "stdout": "said", "outputs": {"k": "1"}},
        {"item": "y", "outcome": "timed_out", "exit_code": None, "stdout": "", "outputs": {}},
    ]


@pytest.mark.parametrize(
    "expression", ["tasks.a.result.missing", "tasks.a.result[5]", "tasks.a.outputs.no", "params.no", "1 / 0"]
)
def test_a_value_that_cannot_be_had_is_refused_with_its_expression(expression: str) -> None:
    bench = Bench({"a": {}, "b": {"needs": ["a"], "target": "m:f", "args": [f"${{{{ {expression} }}}}"]}})
    (attempt,) = bench.take()
    bench.end(attempt, value=b"[]")
    with pytest.raises(ExpressionError):
        bench.work()


def test_data_references_tell_whose_values_are_used_wherever_they_stand() -> None:
    job = Bench(
        {
            "a": {},
            "args": {"target": "m:f", "args": [["${{ tasks.a.result }}"]]},
            "kwargs": {"target": "m:f", "kwargs": {"x": {"y": "${{ tasks.b.results[0] }}"}}},
            "run": {"run": "echo ${{ tasks.c.stdout }} ${{ tasks.a.outcome }}"},
            "argv": {"argv": ["echo", "${{ tasks.d.outputs.x }}"]},
            "env": {"env": {"X": "${{ tasks.e.exit_code }}"}},
            "cwd": {"cwd": "${{ tasks.f.result }}"},
            "each": {"foreach": "${{ tasks.g.result }}"},
            "list": {"foreach": ["${{ tasks.h.result }}"]},
            "glob": {"foreach": {"glob": "${{ tasks.i.result }}/*"}},
            "lines": {"foreach": {"lines": "${{ tasks.j.stdout }}"}},
            "whole": {"target": "m:f", "args": ["${{ tasks.k }}"]},
            "range": {"foreach": {"range": 3}},
        }
    ).job
    found = {name: set(values) for name, values in data_references(job).items()}
    assert found == {
        "a": {"result", "outcome"},
        "b": {"results"},
        "c": {"stdout"},
        "d": {"outputs"},
        "e": {"exit_code"},
        "f": {"result"},
        "g": {"result"},
        "h": {"result"},
        "i": {"result"},
        "j": {"stdout"},
        "k": set(),
    }


# --- items -------------------------------------------------------------------------------------------------------------------


def test_items_of_a_needs_result_name_their_instances() -> None:
    bench = Bench({"a": {}, "b": {"needs": ["a"], "foreach": "${{ tasks.a.result }}"}})
    (attempt,) = bench.take()
    bench.end(attempt, value=b'["x","y","y"]')
    keys = [each.key for each in bench.take()]
    assert keys == [Items(["x", "y", "y"]).key(index) for index in range(3)]
    assert keys[0] == "x"


# --- conditions, matrices, lists of commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        ("params.flag", True),
        ("${{ not params.flag }}", False),
        ("params.names", True),
        ("params.none", False),
        ("params.number - 1", False),
        ("env.STAGE == 'test'", True),
        ("success() and params.flag", True),
        ("failure()", False),
        ("always()", True),
    ],
)
def test_a_condition_is_true_or_false(condition: str, answer: bool) -> None:
    params = {"flag": True, "names": ["ada"], "none": [], "number": 1}
    bench = Bench({"a": {"if": condition}}, params=params, environ={"STAGE": "test"})
    assert bool(bench.take()) is answer


def test_a_condition_that_gives_text_is_refused_for_text_is_always_true() -> None:
    bench = Bench({"a": {"if": "env.DEBUG"}}, environ={"DEBUG": "false"})
    (attempt,) = bench.take()
    assert attempt.refused is not None
    assert attempt.refused.message == "if: it gives the text 'false', not true or false; compare it with =="


def test_a_condition_of_an_item_is_judged_where_the_attempt_is_bound() -> None:
    bench = Bench({"a": {"foreach": [1, 2], "if": "item == 2"}})
    one, two = bench.take()
    assert bench.binder.work(bench.plan, one, needed=False) is Skip.CONDITION
    assert isinstance(bench.binder.work(bench.plan, two, needed=False), Command)


def test_the_values_of_a_combination_stand_under_their_names() -> None:
    matrix = {"os": "${{ params.systems }}", "include": [{"os": "bsd", "extra": 1}]}
    bench = Bench(
        {"a": {"matrix": matrix, "argv": ["${{ matrix.os }}", "${{ matrix.extra }}", "${{ index }}"]}},
        params={"systems": ["linux"]},
    )
    works = [bench.binder.work(bench.plan, attempt, needed=False) for attempt in bench.take()]
    assert [each.argv for each in works if isinstance(each, Command)] == [("linux", "", "0"), ("bsd", "1", "1")]


def test_a_list_of_commands_is_one_command_and_those_that_follow() -> None:
    bench = Bench({"a": {"run": ["make test", "echo $HOME", "echo ${{ params.x }}"]}}, params={"x": "a b"})
    (attempt,) = bench.take()
    work = bench.binder.work(bench.plan, attempt, needed=False)
    assert isinstance(work, Command)
    assert work.argv == ("make", "test")
    assert work.then == (("/bin/sh", "-ec", "echo $HOME"), ("echo", "a b"))


def test_the_commands_that_follow_count_for_the_digest() -> None:
    digests = set()
    for second in ("b", "c"):
        bench = Bench({"a": {"run": ["a", second]}})
        (attempt,) = bench.take()
        work = bench.binder.work(bench.plan, attempt, needed=False)
        assert not isinstance(work, Skip)
        digests.add(bench.binder.digest(attempt, work))
    assert len(digests) == 2


def test_a_task_that_is_not_selected_reads_as_skipped() -> None:
    words = ["${{ tasks.a.outcome }}", "${{ default(tasks.a.stdout, '') }}"]
    bench = Bench({"a": {}, "b": {"argv": words, "needs": ["a"]}}, only=["b"])
    (attempt,) = bench.take()
    work = bench.binder.work(bench.plan, attempt, needed=False)
    assert isinstance(work, Command)
    assert work.argv == ("skipped", "")


def test_what_failed_of_a_task_is_a_list_of_items_and_reasons() -> None:
    tasks: dict[str, dict[str, Any]] = {
        "a": {"foreach": ["x", "y"], "continue_on_error": True},
        "b": {"continue_on_error": True},
        "c": {
            "needs": ["a", "b"],
            "target": "m:f",
            "args": ["${{ tasks.a.failures }}", "${{ tasks.b.failures }}", "${{ run.failed }}"],
        },
    }
    bench = Bench(tasks)
    first, second, third = bench.take()
    bench.end(first)
    bench.end(second, Outcome.FAILED, error=Error(type="E", message="exit 3\nmore"))
    bench.end(third, Outcome.TIMED_OUT)
    failures, alone, failed = bench.call().args
    assert failures == [{"item": "y", "outcome": "failed", "reason": "E: exit 3"}]
    assert alone == [{"item": None, "outcome": "timed_out", "reason": "timed out after 0 s"}]
    assert failed == [], "what continue_on_error allows has not failed"


# --- values that are not there -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["tasks.a.stdout", "tasks.a.outputs.k", "tasks.a.exit_code", "tasks.b.result", "tasks.c.results", "tasks.c.result"]
)
def test_what_a_task_did_not_give_is_no_empty_word_of_a_command(value: str) -> None:
    """`rm -r data/${{ tasks.a.stdout }}` would remove all of it."""
    name = value.split(".")[1]
    never: dict[str, dict[str, Any]] = {
        "a": {"if": "false"},
        "b": {"if": "false", "target": "m:f"},
        "c": {"if": "false", "target": "m:f", **({"foreach": [1]} if value.endswith("s") else {})},
    }
    for place in (
        {"run": f"echo ${{{{ {value} }}}}"},
        {"run": f"echo x; rm -r data/${{{{ {value} }}}}"},
        {"env": {"X": f"${{{{ {value} }}}}"}},
    ):
        bench = Bench({name: never[name], "user": {"needs": [name], **place}})
        with pytest.raises(ExpressionError, match=f"{name} was skipped, so it has no {value.split('.')[2]}"):
            bench.command()


def test_a_result_of_a_task_that_failed_is_no_empty_word_either() -> None:
    bench = Bench(
        {"a": {"target": "m:f", "continue_on_error": True}, "b": {"needs": ["a"], "run": "rm -r data/${{ tasks.a.result }}"}}
    )
    (attempt,) = bench.take()
    bench.end(attempt, Outcome.FAILED)
    with pytest.raises(ExpressionError, match="a failed, so it has no result"):
        bench.command()


def test_a_default_stands_for_what_a_task_did_not_give_and_a_target_is_handed_null() -> None:
    tasks: dict[str, dict[str, Any]] = {
        "a": {"if": "false"},
        "b": {"needs": ["a"], "argv": ["x", "${{ default(tasks.a.stdout, 'none') }}"]},
        "c": {"needs": ["a"], "target": "m:f", "args": ["${{ tasks.a.exit_code }}"]},
    }
    bench = Bench(tasks)
    b, c = bench.take()
    command, call = bench.work(b), bench.work(c)
    assert isinstance(command, Command)
    assert isinstance(call, Call)
    assert command.argv == ("x", "none")
    assert call.args == [None]


def test_a_variable_of_the_job_may_use_those_above_it() -> None:
    env = {"DAY": "${{ params.day }}", "IN": "in/${{ env.DAY }}", "FILE": "${{ env.IN }}/${{ env.SITE }}.csv"}
    bench = Bench({"a": {}}, params={"day": "2026-01-31"}, environ={"SITE": "eu"}, env=env)
    assert bench.binder.job_env["FILE"] == "in/2026-01-31/eu.csv"


def test_a_variable_that_cannot_be_had_is_a_mistake_of_the_job_and_no_bug() -> None:
    with pytest.raises(UsageError, match=r"env\.IN: `env\.DAY`"):
        Bench({"a": {}}, env={"IN": "${{ env.DAY }}", "DAY": "x"}, environ={})


# --- many at once ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    [
        {"foreach": ["a b", "c", 7, "", {"d": [1.5, None]}]},
        {"foreach": {"range": 5}, "args": ["${{ item }}", "${{ index }}", "fixed"]},
        {"foreach": ["x", "y"], "kwargs": {"name": "${{ item }}", "run": "${{ run.id }}"}, "cwd": "below"},
        {"foreach": ["x", "y"], "args": ["${{ params.p }}"], "kwargs": {"deep": {"er": ["${{ item }}"]}}},
        {"matrix": {"os": ["linux", "mac"], "py": [3, 4]}, "args": ["${{ matrix.os }}", "${{ matrix.py }}", "${{ index }}"]},
    ],
)
@pytest.mark.parametrize("shared", [[], ["default"]])
def test_items_bound_together_are_bound_as_each_by_itself(task: dict[str, Any], shared: list[str]) -> None:
    on = Bench({"a": {"target": "m:f", **task}}, params={"p": "given"}, env={"JOB": "yes"})
    check_bound_together(on, Binder(on.job, params={"p": "given"}, environ=ENVIRON, run=on.run, shared=shared))


def check_bound_together(on: Bench, binder: Binder) -> None:
    plan = Plan(on.job, pools={"default": 99}, expand=binder.items, keeps=lambda name: False)
    (span,) = plan.take_together(0.0, {"default"})
    assert isinstance(span, Span)
    calls, digests = binder.calls(plan, span)
    alone = [plan.attempt(each) for each in span.ids]
    assert list(calls) == [binder.work(plan, attempt, False) for attempt in alone]
    assert digests == [binder.digest(attempt, call) for attempt, call in zip(alone, calls, strict=True)]
    assert list(calls.some(slice(1, None))) == list(calls)[1:]


@pytest.mark.parametrize(
    "tasks",
    [
        {"a": {}, "b": {}, "c-d": {}},
        {"a": {}, "b": {"args": [1, {"x": None}]}, "c": {"kwargs": {"k": ["v"]}}},
        {"a": {"cwd": "below"}, "b": {"cwd": "below", "args": ["${{ params.p }}", "${{ run.id }}"]}},
        {"a": {"kwargs": {"deep": {"er": ["${{ params.p }}"]}}}, "b": {"args": ["fixed"]}},
    ],
)
@pytest.mark.parametrize("shared", [[], ["default"]])
def test_tasks_bound_together_are_bound_as_each_by_itself(tasks: dict[str, dict[str, Any]], shared: list[str]) -> None:
    made = {name: {"target": "m:f", **task} for name, task in tasks.items()}
    on = Bench(made, params={"p": "given"}, env={"JOB": "yes"})
    binder = Binder(on.job, params={"p": "given"}, environ=ENVIRON, run=on.run, shared=shared)
    check_bound_together(on, binder)


@pytest.mark.parametrize(
    "tasks",
    [
        {"a": {"foreach": [{"k": 1}, {}], "args": ["${{ item.k }}"]}},
        {"a": {}, "b": {"args": ["${{ env.NONE }}"]}},
    ],
)
def test_a_value_that_cannot_be_had_refuses_to_bind_all_of_them_together(tasks: dict[str, dict[str, Any]]) -> None:
    on = Bench({name: {"target": "m:f", **task} for name, task in tasks.items()})
    plan = Plan(on.job, pools={"default": 99}, expand=on.binder.items, keeps=lambda name: False)
    (span,) = plan.take_together(0.0, {"default"})
    assert isinstance(span, Span)
    with pytest.raises(ExpressionError):
        on.binder.calls(plan, span)
