"""What is valid and not what was meant: comparisons that never hold, conditions that are never asked, text for true or false,
names of other tools, text that lacks its quotes, keys that stand too far left. And what is called impossible is impossible.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner import expressions, jobfile
from jobrunner.bind import Binder, Run
from jobrunner.errors import ExpressionError, JobFileError, Problem
from jobrunner.items import Items
from jobrunner.jobfile import comparisons, conditions
from jobrunner.jobfile.comparisons import Sure
from jobrunner.jobfile.salvage import Unsure
from jobrunner.plan import Plan
from jobrunner.plan.node import FORGIVABLE
from jobrunner.spec import Job
from jobrunner.work import Outcome, Result


def problems(text: str) -> tuple[Problem, ...]:
    try:
        jobfile.parse(text.encode(), "a.yaml")
    except JobFileError as error:
        return error.problems
    return ()


def marked(problem: Problem) -> str:
    """What the carets stand under."""
    return problem.source[problem.column - 1 : problem.column - 1 + problem.length]


def said(text: str) -> list[tuple[str, str]]:
    """What is marked, and the message with its hint."""
    return [(marked(found), f"{found.message} {found.hint}".strip()) for found in problems(text)]


PARAMS = (
    "params: {n: 3, share: 0.5, ok: true, mode: {choices: [fast, slow], default: fast}, tag: latest, names: [a], opt: null, "
    "flag: no, quoted: 'false', day: {type: date, default: 2026-01-01}, big: {type: int}}\n"
)


def of_if(condition: str) -> str:
    """A job whose task b is asked that, and needs a, whatever becomes of that."""
    return f"{PARAMS}tasks:\n  a: {{run: x}}\n  b:\n    needs: [a]\n    run: x\n    if: always() and ({condition})\n"


# --- comparisons -------------------------------------------------------------------------------------------------------------

OUTCOME = "is no outcome: this is never true. Did you mean"
COMPARED: list[tuple[str, str, str]] = [
    ("tasks.a.outcome == 'failure'", "'failure'", f"'failure' {OUTCOME} 'failed'?"),
    ("tasks.a.outcome == 'success'", "'success'", f"'success' {OUTCOME} 'succeeded'?"),
    ("'skip' == tasks.a.outcome", "'skip'", f"'skip' {OUTCOME} 'skipped'?"),
    ("tasks.a.outcome in ['failed', 'timeout']", "'timeout'", f"'timeout' {OUTCOME} 'timed_out'?"),
    ("tasks.a.outcome == 'Failed'", "'Failed'", f"'Failed' {OUTCOME} 'failed'?"),
    (
        "tasks.a.outcome != 'success'",
        "'success'",
        "'success' is no outcome: this is always true. Did you mean 'succeeded'?",
    ),
    (
        "tasks.a.outcome == 'x'",
        "'x'",
        "'x' is no outcome: this is never true. Outcomes are succeeded, failed, timed_out, crashed, cancelled, skipped, unknown.",
    ),
    (
        "tasks.a.exit_code == '0'",
        "",
        "tasks.a.exit_code is a number, '0' is text: this is never true. Write tasks.a.exit_code == 0.",
    ),
    ("tasks.a.stdout == 3", "", "tasks.a.stdout is text, 3 is a number: this is never true. Write int(tasks.a.stdout) == 3."),
    (
        "tasks.a.outputs.rows > 3",
        "",
        "tasks.a.outputs.rows is text, 3 is a number: there is no order between them. Write int(tasks.a.outputs.rows) > 3.",
    ),
    ("run.failed == 'a'", "", "run.failed is a list, 'a' is text: this is never true. Write 'a' in run.failed."),
    ("run.failed != 'a'", "", "run.failed is a list, 'a' is text: this is always true. Write 'a' not in run.failed."),
    ("run.failed == 0", "", "run.failed is a list, 0 is a number: this is never true. Write len(run.failed) == 0."),
    ("run.failed == true", "", "run.failed is a list, true is true or false: this is never true. Write len(run.failed) > 0."),
    ("run.attempt == '1'", "", "run.attempt is a number, '1' is text: this is never true. Write run.attempt == 1."),
    ("'aa' in run.failed", "'aa'", "no task is called 'aa': this is never true. Did you mean 'a'?"),
    ("params.n == '3'", "", "params.n is a number, '3' is text: this is never true. Write params.n == 3."),
    ("'3' < params.n", "", "'3' is text, params.n is a number: there is no order between them. Write params.n > 3."),
    ("params.n in ['3', 4]", "'3'", "params.n is a number, '3' is text: they are never equal. Write 3."),
    (
        "params.n == tasks.a.stdout",
        "",
        "params.n is a number, tasks.a.stdout is text: this is never true. Write params.n == int(tasks.a.stdout).",
    ),
    ("params.ok == 'true'", "", "params.ok is true or false, 'true' is text: this is never true. Write params.ok."),
    ("params.ok != 'yes'", "", "params.ok is true or false, 'yes' is text: this is always true. Write not params.ok."),
    ("params.tag == 3", "", "params.tag is text, 3 is a number: this is never true. Write params.tag == '3'."),
    ("params.tag == true", "", "params.tag is text, true is true or false: this is never true. Write params.tag == 'true'."),
    ("params.names == 'a'", "", "params.names is a list, 'a' is text: this is never true. Write 'a' in params.names."),
    (
        "params.mode == 'fats'",
        "'fats'",
        "'fats' is not among the choices of params.mode: this is never true. Did you mean 'fast'?",
    ),
    (
        "params.mode in ['x', 'slow']",
        "'x'",
        "'x' is not among the choices of params.mode: this is never true. There are fast, slow.",
    ),
    ("env.CI == 1", "", "env.CI is text, 1 is a number: this is never true. Write int(env.CI) == 1."),
    ("len(run.failed) == '0'", "", "len(run.failed) is a number, '0' is text: this is never true"),
]


@pytest.mark.parametrize(("condition", "place", "message"), COMPARED)
def test_a_comparison_that_never_holds_is_told_where_it_stands(condition: str, place: str, message: str) -> None:
    assert said(of_if(condition)) == [(place or condition, message)]


FINE = [
    "tasks.a.outcome in ['failed', 'timed_out', 'crashed', 'cancelled', 'unknown', 'skipped', 'succeeded']",
    "tasks.a.exit_code == 0 or tasks.a.exit_code == null or tasks.a.exit_code > 1",
    "tasks.a.failures or not run.failed or 'a' in run.failed or run.failed == ['a'] or run.failed == []",
    "params.n == 3.0 or params.n > params.share or params.n == true",
    "params.ok == true or params.ok == 1 or params.ok == params.n",
    "params.big == null or params.opt == 'x' or params.opt != null",
    "params.mode == 'slow' or params.tag == params.mode or params.tag in ['a', 'b'] or 'l' in params.tag",
    "params.names == ['a'] or 'a' in params.names or len(params.names) > 2 or params.names[0] == 3",
    "default(params.big, 'x') == 'x' or int(tasks.a.stdout) == 3 or env.CI == 'true' or not params.ok",
    "params.opt and params.opt != 'x' or not tasks.a.stdout or params.day < '2026-02-01'",
]


@pytest.mark.parametrize("condition", FINE)
def test_a_comparison_that_may_hold_is_nobodys_business(condition: str) -> None:
    assert said(of_if(condition)) == []


def test_the_results_of_a_target_may_have_an_outcome_of_their_own() -> None:
    row = "tasks:\n  a: {{{}, foreach: [1]}}\n  b:\n    needs: [a]\n    run: x\n    if: tasks.a.results[0].outcome == 'good'\n"
    assert said(row.format("target: 'm:f'")) == []
    assert [place for place, _ in said(row.format("run: x"))] == ["'good'"]


def test_comparisons_are_read_in_every_expression_and_at_their_place() -> None:
    text = "tasks:\n  a: {run: x}\n  b: {run: \"echo ${{ run.id }} ${{ 1 if tasks.a.outcome == 'ok' else 2 }}\", needs: [a]}\n"
    assert said(text) == [("'ok'", f"'ok' {OUTCOME} 'succeeded'?")]


# --- conditions that never hold ----------------------------------------------------------------------------------------------

SKIPPED = "this is never true: where 'a' has not ended well, 'b' is skipped before it is asked."
NO_NEEDS = "'b' needs nothing that could fail, so failure() is never true. Add needs, or move it to finally."
ANY = "this is never true: where a task that it needs has not ended well, 'b' is skipped before it is asked."
EVER = "this is never true, however the tasks end. Write always() or failure() in place of success()."


def or_failure(condition: str) -> str:
    return f"{SKIPPED} Write always() and {condition}, or failure()."


EITHER = "tasks.a.outcome == 'failed' or tasks.a.outcome == 'crashed'"
NEVER: list[tuple[str, str, str]] = [
    ("tasks.a.outcome == 'failed'", "tasks.a.outcome", or_failure("tasks.a.outcome == 'failed'")),
    ("tasks.a.outcome != 'succeeded'", "tasks.a.outcome", or_failure("tasks.a.outcome != 'succeeded'")),
    ("tasks.a.failures", "tasks.a.failures", or_failure("tasks.a.failures")),
    ("tasks.a.exit_code > 0", "tasks.a.exit_code", or_failure("tasks.a.exit_code > 0")),
    (EITHER, "tasks.a.outcome", or_failure(f"({EITHER})")),
    ("run.failed", "run.failed", f"{ANY} Write always() and run.failed, or failure()."),
    ("success() and tasks.a.outcome == 'failed'", "tasks.a.outcome", EVER),
]


@pytest.mark.parametrize(("condition", "place", "message"), NEVER)
def test_a_condition_that_never_holds_is_told_with_one_that_may(condition: str, place: str, message: str) -> None:
    assert said(f"tasks:\n  a: {{run: x}}\n  b: {{run: x, needs: [a], if: {condition}}}\n") == [(place, message)]


def test_a_task_without_needs_never_sees_a_failure() -> None:
    assert said("tasks:\n  a: {run: x}\n  b: {run: x, if: failure()}\n") == [("failure()", NO_NEEDS)]


MAYBE = [
    "b: {run: x, needs: [a], if: always() and tasks.a.outcome == 'failed'}",
    "b: {run: x, needs: [a], if: failure()}",
    "b: {run: x, needs: [a], if: success()}",
    "b: {run: x, if: success()}",
    "b: {run: x, needs: [a], if: false}",
    "b: {run: x, if: run.failed}",
    "b: {run: x, needs: [c], if: tasks.c.outcome == 'failed'}\n  c: {run: x, continue_on_error: true}",
    "b: {run: x, needs: [c], if: tasks.c.outcome == 'skipped'}\n  c: {run: x, if: env.A == 'b'}",
    "b: {run: x, needs: [c], if: tasks.a.outcome == 'failed'}\n  c: {run: x, needs: [a], if: always()}",
    "c: {run: x}\nfinally:\n  b: {run: x, if: tasks.a.outcome == 'failed'}",
    "c: {run: x}\nfinally:\n  b: {run: x, if: failure()}",
    "c: {run: x}\nfinally:\n  b: {run: x, if: run.failed}",
]


@pytest.mark.parametrize("task", MAYBE)
def test_a_condition_that_may_hold_is_nobodys_business(task: str) -> None:
    assert said(f"tasks:\n  a: {{run: x}}\n  {task}\n") == []


def test_nothing_is_called_impossible_where_the_task_has_another_mistake() -> None:
    text = "tasks:\n  a: {run: x, continue_on_eror: true}\n  b: {run: x, needs: [a], if: tasks.a.outcome == 'failed'}\n"
    assert [message for _, message in said(text)] == ["unknown key. Did you mean 'continue_on_error'?"]


# --- what is impossible is impossible ----------------------------------------------------------------------------------------

_RUN = Run(id="1", dir="/run", started_at="2026-01-01T00:00:00Z", folder="/")
_ENDS = [outcome for outcome in Outcome if outcome is not Outcome.SKIPPED]

atoms = st.sampled_from([
    *(f"tasks.a.outcome == '{outcome}'" for outcome in Outcome),
    "tasks.a.outcome != 'succeeded'", "tasks.a.outcome in ['failed', 'skipped']", "tasks.a.exit_code == 1",
    "tasks.a.exit_code != 0", "tasks.a.exit_code", "tasks.a.failures", "len(tasks.a.failures) > 0", "run.failed",
    "'a' in run.failed", "'a' not in run.failed", "len(run.failed) == 0",
    "success()", "failure()", "always()", "true", "run.attempt > 1",
])  # fmt: skip
conditions_of_b = st.recursive(
    atoms,
    lambda parts: st.one_of(
        parts.map(lambda part: f"not ({part})"),
        st.tuples(parts, st.sampled_from(["and", "or"]), parts).map(lambda three: f"({three[0]}) {three[1]} ({three[2]})"),
        st.tuples(parts, parts, parts).map(lambda three: f"({three[0]}) if ({three[1]}) else ({three[2]})"),
    ),
    max_leaves=4,
)


def job_of(condition: str, *, needs: bool, forgives: bool, own: str, is_final: bool, beside: bool) -> Job:
    a = {"run": "x", "continue_on_error": forgives, **({"if": own} if own else {})}
    b = {"run": "x", "if": condition, **({"needs": ["a"]} if needs and not is_final else {})}
    rows = {"a": a, **({"c": {"run": "x"}} if beside else {})}
    job = Job.model_validate(
        {"name": "j", "tasks": rows if is_final else {**rows, "b": b}, "finally": {"b": b} if is_final else {}}
    )
    return job.model_copy(update={"tasks": {**job.tasks, **job.finals}})


def has_run(job: Job, ends: dict[str, Outcome]) -> bool:
    """Whether b is started where the others end so."""
    binder = Binder(job, params={}, environ={}, run=_RUN)
    plan = Plan(job, pools={"default": 3}, expand=lambda plan, name: Items([]), decide=binder.decide)
    ran = False
    while not plan.done:
        for attempt in list(plan.take(0.0)):
            ran |= attempt.task == "b" and attempt.refused is None
            outcome = ends.get(attempt.task, Outcome.SUCCEEDED)
            code = {Outcome.SUCCEEDED: 0, Outcome.FAILED: 1}.get(outcome)
            plan.apply(attempt, Result(id=attempt.id, outcome=outcome, exit_code=code), 0.0)
    return ran


def never_told(job: Job) -> Iterator[str]:
    only = expressions.condition(job.tasks["b"].condition or "").only
    assert only is not None
    found = conditions.find(only, "b", Sure(job=job, unsure=Unsure()))
    return (mistake.message for mistake in found if "never true" in mistake.message)


@settings(max_examples=400, deadline=None)
@given(conditions_of_b, st.booleans(), st.booleans(), st.sampled_from(["", "false", "true"]), st.booleans(), st.booleans())
def test_what_is_called_impossible_never_runs(
    condition: str, needs: bool, forgives: bool, own: str, is_final: bool, beside: bool
) -> None:
    job = job_of(condition, needs=needs, forgives=forgives, own=own, is_final=is_final, beside=beside)
    if any(never_told(job)):
        for end in _ENDS:
            for other in (Outcome.SUCCEEDED, Outcome.FAILED):
                assert not has_run(job, {"a": end, "c": other}), (condition, end, other)


VALUES: dict[str, list[object]] = {
    "int": [0, 1, 3],
    "float": [0.5, 1.0],
    "bool": [True, False],
    "str": ["", "3", "true"],
    "list": [[], ["a"], [3]],
}
CONSTANTS = ["0", "3", "'3'", "0.5", "true", "false", "null", "'true'", "'a'", "[]", "['a']", "''"]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(VALUES)), st.booleans(), st.sampled_from(["==", "!=", "in"]), st.sampled_from(CONSTANTS), st.booleans()
)
def test_a_comparison_that_is_called_constant_is(kind: str, may_be_null: bool, sign: str, constant: str, turned: bool) -> None:
    right = f"[{constant}]" if sign == "in" else constant
    text = f"{right} {sign} params.p" if turned and sign != "in" else f"params.p {sign} {right}"
    only = expressions.condition(text).only
    assert only is not None
    default = None if may_be_null else VALUES[kind][0]
    job = Job.model_validate({"name": "j", "params": {"p": {"type": kind, "default": default}}, "tasks": {"a": {"run": "x"}}})
    for found in comparisons.find(only, Sure(job=job, unsure=Unsure())):
        for value in [*VALUES[kind], *([None] if may_be_null else [])]:
            assert only.value({"params": {"p": value}}) is ("always true" in found.message), (text, value, found.message)


def test_what_is_forgiven_is_what_the_plan_forgives() -> None:
    assert {str(outcome) for outcome in FORGIVABLE} == set(conditions.FORGIVEN)


def test_what_every_outcome_is_called_elsewhere_leads_to_one() -> None:
    assert set(comparisons._ENDS.values()) < set(comparisons.OUTCOMES)


# --- text for true or false --------------------------------------------------------------------------------------------------

NEITHER = "is text, which is neither true nor false."
NO = "params.flag is text: `no` is not false in YAML 1.2. Write flag: false, or compare: params.flag == 'no'."
UNQUOTED = "Write quoted: false without quotes, or compare: params.quoted == 'false'."
TEXTS: list[tuple[str, str, str]] = [
    ("params.tag", "params.tag", f"params.tag {NEITHER} Compare it: params.tag != ''."),
    ("not params.tag", "params.tag", f"params.tag {NEITHER} Compare it: params.tag == ''."),
    ("params.tag and params.ok", "params.tag", f"params.tag {NEITHER} Compare it: params.tag != ''."),
    ("params.flag", "params.flag", NO),
    ("not params.flag", "params.flag", NO),
    ("params.quoted", "params.quoted", f"params.quoted {NEITHER} {UNQUOTED}"),
    ("params.opt", "params.opt", f"params.opt {NEITHER} Compare it: params.opt != null."),
    ("params.mode or params.ok", "params.mode", f"params.mode {NEITHER} Compare it: params.mode == 'fast'."),
    ("env.CI", "env.CI", f"env.CI {NEITHER} Compare it: env.CI == 'true'."),
    ("not env.CI or params.ok", "env.CI", f"env.CI {NEITHER} Compare it: env.CI == 'true'."),
    ("tasks.a.stdout", "tasks.a.stdout", f"tasks.a.stdout {NEITHER} Compare it: tasks.a.stdout != ''."),
    ("tasks.a.outcome", "tasks.a.outcome", f"tasks.a.outcome {NEITHER} Compare it: tasks.a.outcome == 'succeeded'."),
    ("default(env.CI, '')", "default(env.CI, '')", f"default(env.CI, '') {NEITHER} Compare it: default(env.CI, '') != ''."),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "place", "message"), TEXTS)
def test_text_is_neither_true_nor_false(condition: str, place: str, message: str) -> None:
    assert said(f"{PARAMS}tasks:\n  a: {{run: x}}\n  b:\n    needs: [a]\n    run: x\n    if: {condition}\n") == [(place, message)]


def test_text_that_reads_like_false_is_told_in_every_choice() -> None:
    command = "ls ${{ '-v' if params.v else '' }} ${{ params.tag or 'x' }}"
    text = f"params: {{v: {{default: off}}, tag: ''}}\ntasks:\n  a: {{run: \"{command}\"}}\n"
    message = "params.v is text: `off` is not false in YAML 1.2. Write default: false, or compare: params.v == 'off'."
    assert said(text) == [("params.v", message)]


# --- names of other tools ----------------------------------------------------------------------------------------------------

NAMES: list[tuple[str, str]] = [
    ("needs.a.result", "Write tasks.a.outcome."),
    ("needs.a.outputs.rows", "Write tasks.a.outputs.rows."),
    ("steps.a.outputs.rows", "Write tasks.a.outputs.rows."),
    ("steps.a.conclusion", "Write tasks.a.outcome."),
    ("github.run_id", "Write run.id."),
    ("github.sha", "In a workflow of GitHub's, write env.GITHUB_SHA; else declare a parameter: params.NAME."),
    ("inputs.day", "Write params.day."),
    ("vars.day", "Write params.day."),
    ("runner.temp", "Write run.dir."),
    ("job.status", "Write failure(), or success(), in if; how one task has ended is tasks.NAME.outcome."),
    ("cancelled()", "A task under finally runs after a stop too; there tasks.NAME.outcome == 'cancelled' says so."),
    ("contains(env.A, 'x')", "Write 'x' in env.A."),
    ("startsWith(env.A, 'abc')", "Write env.A[:3] == 'abc'."),
    ("endsWith(env.A, env.B)", "Write env.A[-len(env.B):] == env.B."),
    ("env.A.startswith('v')", "Write env.A[:1] == 'v'."),
    ("format('{0}', 1)", "Write the text with a ${{ … }} at each place, or join texts with +."),
    ("toJSON(env.A)", "Write str(env.A): the text of a list or a map is JSON; alone in args or kwargs it stays what it is."),
    ("fromJSON(env.A)", "The result of a target is no text: write tasks.NAME.result; int(x) and float(x) make numbers of texts."),
    ("hashFiles('*.lock')", "Write cache: {inputs: [path]} in the task: it is skipped while those files stay the same."),
]


@pytest.mark.parametrize(("written", "hint"), NAMES)
def test_a_name_of_another_tool_is_answered_with_ours(written: str, hint: str) -> None:
    [found] = problems(f'tasks:\n  a: {{run: x}}\n  b: {{needs: [a], run: "echo ${{{{ {written} }}}}"}}\n')
    assert (marked(found), found.hint) == (written, hint)


BRACES: list[tuple[str, list[tuple[str, str]]]] = [
    ("echo {{.DAY}}", [("{{.DAY}}", "{{.DAY}} is text here: an expression begins with ${{. Write ${{ params.day }}.")]),
    ("echo {{ .day }}", [("{{ .day }}", "{{ .day }} is text here: an expression begins with ${{. Write ${{ params.day }}.")]),
    ("echo {{.LANG}}", [("{{.LANG}}", "{{.LANG}} is text here: an expression begins with ${{. Write ${{ env.LANG }}.")]),
    (
        "echo ${{ run.id }} {{ params.day }}",
        [("{{ params.day }}", "{{ params.day }} is text here: an expression begins with ${{. Write ${{ params.day }}.")],
    ),
    ("echo {{ item }}", [("{{ item }}", "{{ item }} is text here: an expression begins with ${{. Write ${{ item }}.")]),
    ("docker ps --format '{{.day}}'", []),
    ("echo {{.Names}} {{ .Values.day }} {{ params.other }} {{ user }} {{ matrix.os }} {{{{ ${{ item }}", []),
]


@pytest.mark.parametrize(("command", "found"), BRACES)
def test_braces_of_other_tools_are_told_where_nobody_else_reads_them(command: str, found: list[tuple[str, str]]) -> None:
    text = f"params: {{day: monday}}\nenv: {{LANG: C}}\ntasks:\n  a:\n    foreach: [1]\n    run: {command}\n"
    assert said(text) == found


# --- text that lacks its quotes ----------------------------------------------------------------------------------------------

QUOTES: list[tuple[str, str]] = [
    ("tasks:\n  a: {run: echo \"a, b\"}", "Quote the whole text: run: 'echo \"a, b\"'."),
    ("tasks:\n  a: {run: echo a, b, c}", 'Quote the whole text: run: "echo a, b, c".'),
    ("tasks:\n  a: {run: echo a: b, timeout: 5m}", 'Quote the whole text: run: "echo a: b".'),
    ("tasks:\n  a: {run: echo {a,b}}", 'Quote the whole text: run: "echo {a,b}".'),
    ("tasks:\n  a: {run: grep [a-z] file, timeout: 5m}", 'Quote the whole text: run: "grep [a-z] file".'),
    ("tasks:\n  a: {run: echo hi # there}", 'Quote the whole text: run: "echo hi # there".'),
    ("schedule: * * * * *\ntasks: {a: {run: x}}", 'Quote the whole text: schedule: "* * * * *".'),
    ("schedule: *5 * * * *\ntasks: {a: {run: x}}", 'Quote the whole text: schedule: "*5 * * * *".'),
    ("tasks:\n  a:\n    run: *.csv", 'Quote the whole text: run: "*.csv".'),
    ("params:\n  v: @daily\ntasks: {a: {run: x}}", 'Quote the whole text: v: "@daily".'),
    ("tasks:\n  a:\n    run: \"my tool\" && b", "Quote the whole text: run: '\"my tool\" && b'."),
    ("tasks:\n  a:\n    run: echo a: b", 'Quote the whole text: run: "echo a: b".'),
    ("tasks:\n  a: run: ls", "Write a: {run: ls}, or run on a line of its own."),
    ("tasks:\n  a:\n    if: !failure()\n    run: x", "Write if: not failure()."),
    ("tasks:\n  a: {if: !params.full, run: x}", "Write if: not params.full."),
    ("tasks:\n  a: {run: x, env: *common}", ""),
    ("tasks:\n  a: {run: x, timeout: [5m}", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "hint"), QUOTES)
def test_text_that_lacks_its_quotes_is_shown_with_them(text: str, hint: str) -> None:
    [found] = problems(text)
    assert found.hint == hint


# --- too far left ------------------------------------------------------------------------------------------------------------

LEFT: list[tuple[str, str, str]] = [
    ("tasks:\n  c:\n  run: x\n  needs: [a]\n  a: {run: x}", "2:3", "Indent run, needs under c."),
    ("tasks:\n  a: {run: x}\n  c:\n  env: {A: b}\n  run: x", "3:3", "Indent env, run under c."),
    ("tasks:\nfetch: {run: x}\nload:\n  run: x\n  needs: [fetch]", "1:1", "Indent fetch, load under tasks."),
    ("tasks: {a: {run: x}}\nfinally:\nmail: {run: x}", "2:1", "Indent mail under finally."),
]


@pytest.mark.parametrize(("text", "place", "hint"), LEFT)
def test_keys_that_stand_too_far_left_are_one_mistake(text: str, place: str, hint: str) -> None:
    [found] = problems(text)
    assert (f"{found.line}:{found.column}", found.hint) == (place, hint)
    assert found.message.endswith("has nothing under it: what belongs to it stands as far left.")


# --- dates -------------------------------------------------------------------------------------------------------------------


def test_a_day_that_is_called_by_its_name_is_answered_with_what_a_shell_writes() -> None:
    [found] = problems("params: {day: {type: date, default: today}}\ntasks: {a: {run: x}}")
    assert "on the command line that day is $(date +%F)" in found.message
    assert found.hint == "Leave the default out, and write default(params.day, run.started_at[:10])."


def test_no_error_is_raised_for_any_expression_of_the_language() -> None:
    """The checks look at trees that may hold anything; they only ever say something."""
    job = Job.model_validate({"name": "j", "tasks": {"a": {"run": "x"}}})
    for text in ("[1][0] == 2 < 'a'", "params[0] == 'x'", "tasks[run.id].outcome == 'x'", "(1 if [] else 2) in 3", "-run == +1"):
        try:
            only = expressions.condition(text).only
        except ExpressionError:
            continue
        assert only is not None
        sure = Sure(job=job, unsure=Unsure())
        list(comparisons.find(only, sure))
        list(conditions.find(only, "a", sure))
