"""Selecting tasks: what --only, --from, --until and --skip leave of a job, and what they refuse."""

from __future__ import annotations

import time

import pytest

from jobrunner import jobfile, selection, spec
from jobrunner.bind import data_references
from jobrunner.errors import UsageError
from jobrunner.selection import Wanted

#   list ─┬─ fetch ─┬─ report        finally: tidy ── tell
#         └─ check ─┘        alone
JOB = """
tasks:
  list: {run: echo}
  fetch: {needs: [list], run: echo}
  check: {needs: [list], run: echo}
  report: {needs: [fetch, check], run: echo}
  alone: {run: echo}
finally:
  tidy: {run: echo}
  tell: {needs: [tidy], run: "echo ${{ tasks.report.outcome }}"}
"""
FINALS = "tidy tell"


def job(text: str = JOB) -> spec.Job:
    return jobfile.parse(text.encode(), "job.yaml")


def wanted(options: str) -> Wanted:
    """`--from a --skip b` as the command line would have it."""
    words = options.split()
    found: dict[str, list[str]] = {}
    for option, name in zip(words[::2], words[1::2], strict=True):
        found.setdefault("start_from" if option == "--from" else option.removeprefix("--"), []).append(name)
    return Wanted(**found)


def select(options: str, text: str = JOB) -> str:
    return " ".join(selection.select(job(text), wanted(options), data_references))


@pytest.mark.parametrize(
    ("options", "selected"),
    [
        ("--only report", "report"),
        ("--only report --only list", "list report"),
        ("--only tell", "tell"),
        ("--only list --only tidy", "list tidy"),
        ("--from fetch", f"fetch report {FINALS}"),
        ("--from list", f"list fetch check report {FINALS}"),
        ("--from fetch --from alone", f"fetch report alone {FINALS}"),
        ("--until fetch", f"list fetch {FINALS}"),
        ("--until fetch --until alone", f"list fetch alone {FINALS}"),
        ("--until tell --skip alone", f"list fetch check report {FINALS}"),
        ("--skip fetch", f"list check report alone {FINALS}"),
        ("--skip tell", "list fetch check report alone tidy"),
        ("--from fetch --until fetch", f"fetch {FINALS}"),
        ("--from list --until report --skip check", f"list fetch report {FINALS}"),
        ("--from list --only check --only alone", "check"),
        ("--from tidy", FINALS),
        ("--from alone --skip tidy --skip tell", "alone"),
    ],
)
def test_a_selection_is_the_intersection_of_its_options_without_what_is_skipped(options: str, selected: str) -> None:
    assert select(options) == selected


@pytest.mark.parametrize("options", ["", "--from list --from alone", "--until tell", "--until report --until alone"])
def test_a_selection_of_all_is_none(options: str) -> None:
    assert select(options) == ""


def test_each_task_that_is_left_out_has_the_option_that_does_so() -> None:
    found = selection.left_out(job(), wanted("--from fetch --until report --skip check"))
    assert found == {"list": "--from", "check": "--skip", "alone": "--from"}
    assert selection.left_out(job(), wanted("--until fetch")) == {"check": "--until", "report": "--until", "alone": "--until"}
    assert selection.left_out(job(), wanted("--only list --skip tell"))["tell"] == "--skip"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--only lits", "--only lits: there is no such task. Did you mean 'list'?"),
        ("--from fetsh", "--from fetsh: there is no such task. Did you mean 'fetch'?"),
        ("--until zzz", "--until zzz: there is no such task. There are list, fetch, check, report, alone, tidy, tell."),
        ("--skip tdiy", "--skip tdiy: there is no such task. Did you mean 'tidy'?"),
        ("--from report --until list", "--from report --until list: no task is left to run."),
        ("--only list --skip list", "--only list --skip list: no task is left to run."),
        ("--from alone --until report", "--from alone --until report: no task is left to run."),
    ],
)
def test_what_cannot_be_selected_is_refused(options: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("field", ["only", "start_from", "until", "skip"])
def test_one_name_in_place_of_a_list_is_refused(field: str) -> None:
    with pytest.raises(UsageError, match=f"{field} is a list of task names: write {field}=\\['list'\\]"):
        selection.select(job(), Wanted(**{field: "list"}), data_references)


DATA = """
tasks:
  a: {run: echo}
  b: {needs: [a], run: "echo ${{ tasks.a.stdout }}"}
  c: {needs: [b], run: "echo ${{ tasks.b.stdout }}"}
  d: {needs: [a], if: "${{ tasks.a.outputs.x == '1' }}", run: echo}
  e: {needs: [c, d], run: echo}
finally:
  f: {run: "echo ${{ tasks.a.stdout }}"}
"""


RESUME = ", or use what a run has recorded: jobrunner resume RUN --rerun "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--only b", "--only leaves out a, whose data is used. Add --only a" + RESUME + "b"),
        ("--only c", "--only leaves out a, b, whose data is used. Add --only a --only b" + RESUME + "c"),
        ("--only d", "--only leaves out a, whose data is used. Add --only a" + RESUME + "d"),
        ("--from b", "--from leaves out a, whose data is used. Add --from a"),
        ("--skip a", "--skip leaves out a, whose data is used. Do not skip it, or skip what uses it: --skip b --skip d"),
        (
            "--from c --skip b",
            """--from leaves out a, whose data is used. Add --from a
--skip leaves out b, whose data is used. Do not skip it, or skip what uses it: --skip c""",
        ),
    ],
)
def test_data_of_a_task_that_is_left_out_is_missed_and_what_to_add_is_said(options: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(options, DATA)
    assert str(caught.value) == message


@pytest.mark.parametrize("options", ["--from e", "--only f", "--skip c", "--only a --only b"])
def test_a_final_task_may_use_the_data_of_what_is_left_out(options: str) -> None:
    assert select(options, DATA)


def test_a_job_of_100_000_tasks_is_selected_from_in_seconds() -> None:
    count = 100_000
    task = spec.Task.model_construct(run="true")
    tasks = {f"t{n}": task.model_copy(update={"needs": [f"t{n - 1}"] if n else []}) for n in range(count)}
    large = spec.Job.model_construct(tasks=tasks)
    begun = time.process_time()
    found = selection.select(large, wanted(f"--from t10 --until t{count - 10} --skip t500"), data_references)
    assert len(found) == count - 20
    assert time.process_time() - begun < 10
