"""The contract of every mode and of the executors that users know: one suite, one job for each, one sentence a test."""

from __future__ import annotations

import functools
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jobrunner.events import TaskFinished, TaskStarted, WorkerDied, WorkerJoined, WorkerStarted
from tests.harness import ALONE, FOREIGN, POOLS, START_METHODS, THREADS, Ran, run_job

TARGETS = "tests.targets.contract"
LANES = [(lane, method) for lane in POOLS for method in START_METHODS]
SPANS = 6

FAILURES: dict[str, tuple[dict[str, Any], str, str]] = {
    "raises": ({"target": "raise_value"}, "ValueError", "a plain mistake"),
    "raises_two_arguments": ({"target": "raise_two_arguments"}, "TwoArguments", "one"),
    "raises_unpicklable": ({"target": "raise_unpicklable"}, "Unpicklable", "not to be sent"),
    "raises_speechless": ({"target": "raise_speechless"}, "Speechless", "(no message: its __str__ raised ValueError)"),
    "raises_keyboard_interrupt": ({"target": "raise_keyboard_interrupt"}, "KeyboardInterrupt", "KeyboardInterrupt"),
    "raises_group": ({"target": "raise_group"}, "BaseExceptionGroup", "two at once (2 sub-exceptions)"),
    "exits_3": ({"target": "leave", "args": [3]}, "SystemExit", "exit 3"),
    "exits_text": ({"target": "leave", "args": ["no disk"]}, "SystemExit", "no disk"),
    "generates": ({"target": "generate"}, "ResultError", "returned a generator, so nothing ran; return a list instead"),
    "generates_later": ({"target": "generate_later"}, "ResultError", "returned a generator, so nothing ran; return a list"),
    "needed_object": ({"target": "return_object"}, "ResultError", "returned an object, which is not JSON"),
    "misses_module": ({"target": "no.such.module:f"}, "ModuleNotFoundError", "No module named 'no'"),
    "misses_function": ({"target": f"{TARGETS}:no_such_function"}, "AttributeError", "no_such_function"),
    "misses_call": ({"target": f"{TARGETS}:NOT_CALLABLE"}, "TypeError", "NOT_CALLABLE is not callable but int"),
    "cannot_import": ({"target": "broken_import:f"}, "RuntimeError", "broken while imported"),
    "cannot_parse": ({"target": "broken_syntax:f"}, "SyntaxError", "broken_syntax.py"),
    "wrong_arguments": ({"target": "length", "args": [1, 2]}, "TypeError", "length() takes 1 positional argument but 2"),
}
"""Task → what it runs, the type of its error, and the beginning of its message (or a part of it)."""

SUCCESSES: dict[str, tuple[dict[str, Any], Any]] = {
    "args": ({"target": "echo", "args": [1, "a", None, [True]]}, {"args": [1, "a", None, [True]], "kwargs": {}}),
    "kwargs": ({"target": "echo", "kwargs": {"é": {"b": 1.5}}}, {"args": [], "kwargs": {"é": {"b": 1.5}}}),
    "awaited": ({"target": "wait_a_little"}, "awaited"),
    "exits": ({"target": "leave"}, None),
    "exits_0": ({"target": "leave", "args": [0]}, None),
    "beside": ({"target": "beside:here"}, "beside the job file"),
    "beside_first": ({"target": "colorsys:here"}, "beside the job file"),
    "big_number": ({"target": "big_number"}, 2**80),
    "length": ({"target": "length", "args": ["${{ tasks.text.result }}"], "needs": ["text"]}, 5_000_000),
    "processes": ({"target": "own_processes"}, [[0, 1, 4, 9], "x\n"]),
}
"""Task → what it runs, and its value."""

DROPPED = {
    "returns_object": "returned an object, which is not JSON (Object of type object is not JSON serializable): dropped",
    "returns_lambda": "returned a function, which is not JSON (Object of type function is not JSON serializable): dropped",
    "returns_nan": "returned a float, which is not JSON (Out of range float values are not JSON compliant",
    "returns_surrogate": "returned a str, which is not JSON (",
    "returns_evil": "returned an EvilReduce, which is not JSON (Object of type EvilReduce is not JSON serializable): dropped",
}
"""Task that returns what is not JSON → how its note begins."""

MODULES = {
    "beside.py": "def here(): return 'beside the job file'",
    "colorsys.py": "def here(): return 'beside the job file'",
    "broken_import.py": "raise RuntimeError('broken while imported')",
    "broken_syntax.py": "def f(:",
}


def each_lane(*lanes: str) -> pytest.MarkDecorator:
    """Both start methods of these lanes; of all where none is named."""
    return pytest.mark.parametrize(("lane", "method"), [each for each in LANES if each[0] in (lanes or POOLS)])


def target(task: dict[str, Any]) -> dict[str, Any]:
    name = task["target"]
    return {**task, "target": name if ":" in name else f"{TARGETS}:{name}", "continue_on_error": True}


def contract_job(lane: str, folder: Path) -> dict[str, Any]:
    tasks: dict[str, dict[str, Any]] = {
        "span": {"target": "span", "foreach": {"range": SPANS}, "args": ["${{ item }}", 0.02]},
        "meet": {"target": "meet", "foreach": {"range": 2}, "args": [str(folder), "${{ item }}", 1 if lane == "serial" else 2]},
        "text": {"target": "text_of", "args": [5_000_000]},
        **{name: task for name, (task, _) in SUCCESSES.items()},
        **{name: task for name, (task, _, _) in FAILURES.items()},
        **{name: {"target": name.replace("returns", "return")} for name in DROPPED},
        "user_of_object": {"target": "echo", "args": ["${{ tasks.needed_object.result }}"], "needs": ["needed_object"]},
        "path": {"target": "path"},
        "job_env": {"target": "environment", "args": ["WIDE"]},
    }
    one_by_one: dict[str, dict[str, Any]] = {
        "replaces_stdout": {"target": "replace_stdout"},
        "after_replaced": {"target": "say", "args": ["after replaced"]},
        "closes_stdout": {"target": "close_stdout"},
        "after_closed": {"target": "say", "args": ["after closed"]},
        "speak": {"target": "speak", "args": ["I"]},
        "closes_descriptors": {"target": "close_descriptors"},
        "after_descriptors": {"target": "say", "args": ["after descriptors"]},
        "forks": {"target": "fork_without_end"},
        **({} if lane in FOREIGN else {"below_descriptors": {"target": "say_below", "args": ["below"]}}),
        **(alone_tasks() if lane in ALONE else {}),
    }
    single = {**POOLS[lane], **({} if lane == "serial" else {"workers": 1})}
    return {
        "env": {"WIDE": "as written: 1.10"},
        "pools": {"many": POOLS[lane], "single": single},
        "tasks": {
            **{name: {**target(task), "pool": "many"} for name, task in tasks.items()},
            **{name: {**target(task), "pool": "single"} for name, task in one_by_one.items()},
        },
    }


def alone_tasks() -> dict[str, dict[str, Any]]:
    names = ["OWN", "WIDE", "JOBRUNNER_TASK", "JOBRUNNER_ATTEMPT", "JOBRUNNER_ITEM", "JOBRUNNER_TASK_KEY", "JOBRUNNER_RUN_ID"]
    return {
        "goes_away": {"target": "go_away"},
        "after_away": {"target": "folder"},
        "elsewhere": {"target": "folder", "cwd": "sub"},
        "after_elsewhere": {"target": "folder"},
        "own_env": {"target": "environment", "args": names, "env": {"OWN": "mine", "WIDE": "narrow"}},
        "after_own_env": {"target": "environment", "args": ["OWN", "WIDE"]},
        "redirects": {"target": "redirect_descriptor"},
        "after_redirected": {"target": "say", "args": ["after redirected"]},
    }


@functools.cache
def contract(lane: str, method: str) -> Ran:
    """The contract job of one lane, run once."""
    folder = Path(tempfile.mkdtemp(prefix=f"{lane}-", dir=_folder()))
    (folder / "sub").mkdir()
    for name, text in MODULES.items():
        (folder / name).write_text(text, encoding="utf-8")
    job = contract_job(lane, folder)
    for pool in job["pools"].values():
        pool["start_method"] = method
    return run_job(folder, job)


@functools.cache
def _folder() -> str:
    return os.path.realpath(tempfile.mkdtemp(dir=os.environ["JOBRUNNER_STATE"]))


@each_lane()
@pytest.mark.parametrize("task", SUCCESSES)
def test_arguments_arrive_and_values_come_back_as_json(lane: str, method: str, task: str) -> None:
    ran = contract(lane, method)
    assert (ran.only(task).outcome, ran.value(task)) == ("succeeded", SUCCESSES[task][1]), ran.only(task)


@each_lane()
@pytest.mark.parametrize("task", FAILURES)
def test_a_failure_names_its_cause(lane: str, method: str, task: str) -> None:
    ran, (_, kind, message) = contract(lane, method), FAILURES[task]
    error = ran.error(task)
    assert ran.only(task).outcome == "failed"
    assert error["type"] == kind
    assert message in error["message"]


@each_lane()
def test_an_exception_has_its_traceback_as_text_without_frames_of_ours(lane: str, method: str) -> None:
    text = contract(lane, method).error("raises")["traceback"]
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("ValueError: a plain mistake\n")
    assert "raise_value" in text
    assert "jobrunner" + os.sep + "work.py" not in text


@each_lane()
def test_an_exit_code_of_sys_exit_is_reported(lane: str, method: str) -> None:
    ran = contract(lane, method)
    assert {task: ran.only(task).exit_code for task in ("exits", "exits_0", "exits_3", "exits_text")} == {
        "exits": 0,
        "exits_0": 0,
        "exits_3": 3,
        "exits_text": 1,
    }


@each_lane()
@pytest.mark.parametrize("task", DROPPED)
def test_a_value_that_is_not_json_is_dropped_with_a_note(lane: str, method: str, task: str) -> None:
    ran = contract(lane, method)
    assert (ran.only(task).outcome, ran.value(task)) == ("succeeded", None)
    assert (ran.only(task).note or "").startswith(DROPPED[task])


@each_lane()
def test_values_come_back_in_the_order_of_the_items(lane: str, method: str) -> None:
    assert [span["number"] for span in contract(lane, method).value("span")] == list(range(SPANS))


@each_lane()
def test_at_most_so_many_run_at_once_as_there_are_workers(lane: str, method: str) -> None:
    spans = contract(lane, method).value("span")
    peak = max(sum(other["started"] <= span["started"] < other["ended"] for other in spans) for span in spans)
    assert peak <= (1 if lane == "serial" else 2)


@each_lane()
def test_all_workers_run_at_once(lane: str, method: str) -> None:
    assert contract(lane, method).value("meet") == [True, True]


@each_lane("serial")
def test_serial_runs_in_declared_order(lane: str, method: str) -> None:
    ran = contract(lane, method)
    order = list(dict.fromkeys(event.task for event in ran.of(TaskStarted) if event.worker.startswith("many")))
    assert order == sorted(order, key=list(ran.result.tasks).index)


@each_lane()
def test_every_start_has_its_finish(lane: str, method: str) -> None:
    ran = contract(lane, method)
    starts = Counter((event.task, event.item, event.attempt) for event in ran.of(TaskStarted))
    assert starts == Counter((event.task, event.item, event.attempt) for event in ran.of(TaskFinished))
    assert set(starts.values()) == {1}


@each_lane()
def test_every_worker_that_started_is_joined_and_none_died(lane: str, method: str) -> None:
    ran = contract(lane, method)
    started = Counter((event.worker, event.pid, event.thread) for event in ran.of(WorkerStarted))
    assert started == Counter((event.worker, event.pid, event.thread) for event in ran.of(WorkerJoined))
    assert not ran.of(WorkerDied)
    assert sum(event.tasks for event in ran.of(WorkerJoined)) == len(ran.of(TaskFinished))


@each_lane()
def test_no_target_runs_in_the_process_of_the_engine(lane: str, method: str) -> None:
    ran = contract(lane, method)
    assert os.getpid() not in {span["pid"] for span in ran.value("span")} | {event.pid for event in ran.of(TaskStarted)}


@each_lane("serial", "process", "process_pool", "thread", "thread_pool")
def test_the_log_says_in_which_process_a_target_runs(lane: str, method: str) -> None:
    ran = contract(lane, method)
    logged = {int(event.item or -1): event.pid for event in ran.started("span")}
    assert logged == {span["number"]: span["pid"] for span in ran.value("span")}


@each_lane(*THREADS)
def test_the_threads_of_a_pool_share_a_process(lane: str, method: str) -> None:
    assert len({span["pid"] for span in contract(lane, method).value("span")}) == 1


@each_lane("thread")
def test_a_thread_is_new_for_every_attempt(lane: str, method: str) -> None:
    ran = contract(lane, method)
    joined = ran.of(WorkerJoined)
    assert len({event.worker for event in joined}) == len(ran.of(TaskFinished))
    assert {event.tasks for event in joined} == {1}
    assert not any(span["is_main"] for span in ran.value("span"))


@each_lane("thread_pool")
def test_a_thread_pool_reuses_its_threads(lane: str, method: str) -> None:
    assert len({span["thread"] for span in contract(lane, method).value("span")}) <= 2


@each_lane("process")
def test_a_process_is_new_for_every_attempt(lane: str, method: str) -> None:
    ran = contract(lane, method)
    assert len({event.worker for event in ran.of(TaskStarted)}) == len(ran.of(TaskFinished))
    assert len({span["pid"] for span in ran.value("span")}) == SPANS


@each_lane(*ALONE)
def test_a_target_runs_in_the_main_thread_of_its_process(lane: str, method: str) -> None:
    assert all(span["is_main"] for span in contract(lane, method).value("span"))


@each_lane("process_pool", "stock_processes", "loky")
def test_a_pool_of_processes_reuses_them(lane: str, method: str) -> None:
    assert len({span["pid"] for span in contract(lane, method).value("span")}) <= 2


@pytest.mark.parametrize("method", START_METHODS)
def test_a_worker_is_replaced_after_so_many_attempts(method: str, tmp_path: Path) -> None:
    pool = {"mode": "process_pool", "workers": 2, "max_tasks_per_worker": 2, "start_method": method}
    task = {"target": f"{TARGETS}:where", "foreach": {"range": 9}, "pool": "p"}
    ran = run_job(tmp_path, {"pools": {"p": pool}, "tasks": {"where": task}})
    pids = Counter(value["pid"] for value in ran.value("where"))
    assert max(pids.values()) <= 2
    assert len(pids) >= 5
    assert sorted(event.tasks for event in ran.of(WorkerJoined)) == sorted(pids.values())


SAID = ("print", "stderr", "buffer", "unfinished")
SAID_BELOW_PYTHON = ("os.write", "subprocess")


@each_lane()
def test_what_a_target_prints_is_attributed_to_it(lane: str, method: str) -> None:
    ran = contract(lane, method)
    assert all(f"I {way}" in ran.output("speak") for way in SAID)


@each_lane()
def test_output_below_python_is_captured_and_where_the_process_is_its_own_attributed(lane: str, method: str) -> None:
    ran = contract(lane, method)
    heard = ran.output("speak") + ("" if lane in ALONE else ran.output(""))
    assert all(f"I {way}\n" in heard for way in SAID_BELOW_PYTHON)


@each_lane(*ALONE)
def test_output_keeps_its_order_where_the_process_is_its_own(lane: str, method: str) -> None:
    lines = ["print", "stderr", "buffer", "unfinishedI os.write", "subprocess"]
    assert contract(lane, method).output("speak") == "".join(f"I {line}\n" for line in lines)


@each_lane()
@pytest.mark.parametrize("before", ["replaced", "closed", "descriptors"])
def test_a_task_that_spoils_its_streams_does_not_disturb_the_next_one(lane: str, method: str, before: str) -> None:
    ran = contract(lane, method)
    assert (ran.only(f"after_{before}").outcome, ran.output(f"after_{before}")) == ("succeeded", f"after {before}\n")


@each_lane(*ALONE, "thread", "thread_pool")
def test_descriptors_that_a_task_closed_are_open_for_the_next_one(lane: str, method: str) -> None:
    ran = contract(lane, method)
    assert ran.only("below_descriptors").outcome == "succeeded"
    assert "below\n" in ran.output("below_descriptors") + ran.output("")


@each_lane(*ALONE)
def test_a_descriptor_that_a_task_redirects_is_put_back(lane: str, method: str) -> None:
    assert contract(lane, method).output("after_redirected") == "after redirected\n"


@each_lane(*ALONE)
def test_the_folder_of_an_attempt_is_its_own(lane: str, method: str) -> None:
    ran = contract(lane, method)
    home = ran.value("after_away")
    assert ran.value("goes_away") == "/"
    assert (Path(home) / "beside.py").exists()
    assert ran.value("elsewhere") == f"{home}/sub"
    assert ran.value("after_elsewhere") == home


@each_lane(*ALONE)
def test_the_environment_of_an_attempt_is_its_own(lane: str, method: str) -> None:
    ran = contract(lane, method)
    run_id = ran.result.run_id
    assert ran.value("own_env") == {
        "OWN": "mine",
        "WIDE": "narrow",
        "JOBRUNNER_TASK": "own_env",
        "JOBRUNNER_ATTEMPT": "1",
        "JOBRUNNER_ITEM": "",
        "JOBRUNNER_TASK_KEY": f"{run_id}/own_env",
        "JOBRUNNER_RUN_ID": run_id,
    }
    assert ran.value("after_own_env") == {"OWN": None, "WIDE": "as written: 1.10"}


@each_lane()
def test_the_environment_of_the_job_reaches_every_target(lane: str, method: str) -> None:
    assert contract(lane, method).value("job_env") == {"WIDE": "as written: 1.10"}


@each_lane()
def test_the_folder_of_the_job_file_comes_first_on_the_path(lane: str, method: str) -> None:
    ran = contract(lane, method)
    folders = [Path(entry) for entry in ran.value("path")]
    assert (folders[0] / "beside.py").exists() or lane == "loky"
    assert any((folder / "beside.py").exists() for folder in folders)


@each_lane()
def test_a_fork_that_returns_in_the_child_too_counts_once(lane: str, method: str) -> None:
    ran = contract(lane, method)
    assert ran.only("forks").outcome == "succeeded"


@pytest.mark.parametrize("lane", ["process_pool", "thread_pool", "stock_processes"])
def test_a_value_beyond_64_mib_is_refused_and_one_below_arrives(lane: str, tmp_path: Path) -> None:
    sizes = {"fits": 60 << 20, "refused": 65 << 20}
    tasks = {name: {"target": f"{TARGETS}:text_of", "args": [size], "pool": "p"} for name, size in sizes.items()}
    ran = run_job(tmp_path, {"pools": {"p": POOLS[lane]}, "tasks": tasks})
    assert len(ran.value("fits")) == sizes["fits"]
    assert ran.error("refused") == {
        "type": "ResultError",
        "message": "returned 65 MiB; write it to a file and return the path",
    }


def same(ran: Ran) -> dict[str, Any]:
    """What must not depend on the executor: outcome, value, note, exit code and error of every attempt, bar where it ran."""
    places = ("span", "path", "forks", "text")
    return {
        task: [(event.outcome, ran.value(task), event.note, event.exit_code, (event.error or {}).get("message"))]
        for task in ran.result.tasks
        if task not in places and task in contract_job("loky", Path())["tasks"]
        for event in ran.finished(task)
    }


@each_lane(*FOREIGN, "thread", "thread_pool", "serial", "process")
def test_a_job_comes_to_the_same_in_every_mode_and_executor_as_in_process_pool(lane: str, method: str) -> None:
    assert same(contract(lane, method)) == same(contract("process_pool", method))
