"""A job file: read, merged with its defaults, and every mistake answered with its position and what to write instead."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from jobrunner import jobfile, spec
from jobrunner.errors import JobFileError, Problem
from jobrunner.jobfile import needs, reader


def job(text: str) -> spec.Job:
    return jobfile.parse(text.encode(), "jobs/a.yaml")


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(JobFileError) as caught:
        job(text)
    return caught.value.problems


def said(text: str) -> list[str]:
    """Position, path, message and hint of every problem, without the source line."""
    return [str(problem).partition("\n")[0].removeprefix("jobs/a.yaml:") for problem in problems(text)]


# --- files -------------------------------------------------------------------------------------------------------------------


def test_read_keeps_the_bytes_and_the_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = b"\xef\xbb\xbftasks: {a: {run: x}}\n"
    (tmp_path / "nightly.yaml").write_bytes(source)
    monkeypatch.chdir(tmp_path)
    found = jobfile.read("nightly.yaml")
    assert (found.path, found.source, found.job.name) == (tmp_path / "nightly.yaml", source, "nightly")
    assert jobfile.load(Path("nightly.yaml")) == found.job


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.yaml", "a"),
        ("x/nightly etl.yaml", "nightly_etl"),
        ("..hidden.yaml", "hidden"),
        ("é.yaml", "_"),
        ("a.b.yml", "a.b"),
        ("-.yaml", "job"),
    ],
)
def test_a_job_without_a_name_has_that_of_its_file(file: str, name: str) -> None:
    found = jobfile.parse(b"tasks: {a: {run: x}}", file).name
    assert found == name
    assert spec.Job.model_validate({"name": found, "tasks": {"a": {"run": "x"}}}).name == name


def test_a_file_that_cannot_be_read_is_a_problem_at_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    Path("folder").mkdir()
    Path("large").write_bytes(b"#" * 101)
    monkeypatch.setattr(reader, "LARGEST", 100)
    table = {
        "absent.yaml": "there is no such file",
        "-": "the name of a file is needed: standard input is not read",
        "folder": "this is a directory",
        "fifo": "this is not a regular file",
        "/dev/zero": "this is not a regular file",
        "large": "the file is larger than",
        "large/x": "the file cannot be read: Not a directory",
        "": "there is no such file",
        "a\0b": "a file name holds no NUL",
        "x" * 5000: "the file cannot be read: File name too long",
    }
    for file, message in table.items():
        with pytest.raises(JobFileError) as caught:
            jobfile.read(file)
        (problem,) = caught.value.problems
        assert (problem.file, problem.line, problem.column) == (file, 1, 1)
        assert message in problem.message


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("night.yml", " Did you mean 'night.yaml'?"),
        ("jobs/nigth.yaml", " Did you mean 'night.yaml'?"),
        ("other.yaml", ""),
        ("jobs/", ""),
        ("gone/night.yml", ""),
    ],
)
def test_of_a_file_that_is_not_there_the_one_beside_it_is_told_that_is_like_it(
    asked: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("jobs").mkdir()
    for name in ("night.yaml", "night.py", "jobs/night.yaml"):
        Path(name).touch()
    with pytest.raises(JobFileError) as caught:
        jobfile.read(asked)
    (problem,) = caught.value.problems
    assert problem.message == (
        "this is a directory, not a job file" if asked == "jobs/" else f"there is no such file{'.' * bool(hint)}{hint}"
    )


def test_the_garbage_collector_is_as_it_was() -> None:
    job("tasks: {a: {run: x}}")
    problems("a: [")
    assert gc.isenabled()


def test_a_problem_shows_the_line_and_a_caret() -> None:
    (problem,) = problems("tasks:\n  a:\n    run: x\n    foreech: [1]\n")
    assert str(problem) == (
        "jobs/a.yaml:4:5: tasks.a.foreech: unknown key. Did you mean 'foreach'?\n    4 |     foreech: [1]\n      |     ^^^^^^^"
    )


# --- defaults and env --------------------------------------------------------------------------------------------------------


def test_defaults_hold_for_every_task_and_its_own_keys_win() -> None:
    tasks = job("defaults: {retry: 2, timeout: 10m, cwd: x}\ntasks: {a: {run: x}, b: {run: x, retry: 0, timeout: 1s}}").tasks
    assert [(task.retry, task.timeout, task.cwd) for task in tasks.values()] == [(2, 600.0, "x"), (0, 1.0, "x")]


def test_env_of_defaults_and_task_is_merged_key_by_key() -> None:
    tasks = job("defaults: {env: {A: 1, B: 2}}\ntasks: {a: {run: x, env: {B: 3, C: 4}}, b: {run: x}}").tasks
    assert [task.env for task in tasks.values()] == [{"A": "1", "B": "3", "C": "4"}, {"A": "1", "B": "2"}]


def test_a_pool_of_the_task_drops_mode_and_workers_of_the_defaults_and_the_reverse() -> None:
    text = "pools: {p: {}}\ndefaults: {%s}\ntasks: {a: {run: x, %s}}"
    by_pool = job(text % ("mode: thread, workers: 3", "pool: p")).tasks["a"]
    by_mode = job(text % ("pool: p", "workers: 3")).tasks["a"]
    assert (by_pool.pool, by_pool.mode, by_pool.workers) == ("p", None, None)
    assert (by_mode.pool, by_mode.mode, by_mode.workers) == (None, None, 3)


def test_env_values_are_taken_as_written() -> None:
    env = "{VERSION: 1.10, FLAG: no, X: true, Y: True, EMPTY: , NULL_: null, OCT: 0755, HEX: 0x1F, TIME: 22:30, T: 'a b'}"
    text = f"env: {env}\ndefaults: {{env: {{D: 2.0}}}}\ntasks: {{a: {{run: x, env: {{V: 1e3}}}}}}"
    found = job(text)
    assert found.env == {
        "VERSION": "1.10",
        "FLAG": "no",
        "X": "true",
        "Y": "true",
        "EMPTY": "",
        "NULL_": "",
        "OCT": "0755",
        "HEX": "0x1F",
        "TIME": "22:30",
        "T": "a b",
    }
    assert found.tasks["a"].env == {"D": "2.0", "V": "1e3"}


def test_a_map_called_env_among_kwargs_keeps_its_types() -> None:
    assert job("tasks: {a: {target: 'm:f', kwargs: {env: {A: 1.10, B: true}}}}").tasks["a"].kwargs == {
        "env": {"A": 1.1, "B": True}
    }


# --- keys and types ----------------------------------------------------------------------------------------------------------

FOREIGN = [
    *[(key, "[b]", "Write 'needs'.") for key in ("depends", "depends_on", "depends-on", "requires", "after")],
    *[(key, "ls", "Write 'run'.") for key in ("command", "cmd", "cmds", "script", "shell", "exec")],
    ("command", "[ls, -l]", "Write 'argv'."),
    ("timeout-minutes", "5", "Write timeout: 5m."),
    ("timeout_seconds", "30", "Write timeout: 30s."),
    ("retries", "3", "Write retry: 3."),
    ("max_retries", "3", "Write retry: 3."),
    *[(key, "x", "Write 'cwd'.") for key in ("working-directory", "working_dir", "dir", "workdir")],
    ("environment", "{}", "Write 'env'."),
    *[(key, "[1]", "Write 'foreach'.") for key in ("with_items", "loop", "for_each")],
    *[(key, "m:f", "Write target: module:function.") for key in ("func", "function", "callable", "python")],
    *[(key, "4", "Write 'workers'.") for key in ("concurrency", "max_workers")],
    ("parallel", "4", "Write max_parallel: 4."),
    ("arg", "[1]", "Write 'args'."),
    ("max_attempts", "3", "Write retry: 2."),
    ("shell", "bash", "Write argv: [bash, -euo, pipefail, -c, …]."),
    ("shell", "/bin/sh", "Write argv: [sh, -eu, -c, …]."),
    *[(key, "true", "Write 'continue_on_error'.") for key in ("continue-on-error", "ignore_errors", "allow_failure")],
    ("Run", "ls", "Did you mean 'run'?"),
    ("foreech", "[1]", "Did you mean 'foreach'?"),
    ("when", "x", "Write 'if'."),
    ("on_failure", "x", "Write finally: {on_failure: {if: failure(), run: …}} at the top of the file."),
    ("trigger_rule", "x", "Write if: always(), or failure()."),
    ("zzz", "1", ""),
]


@pytest.mark.parametrize(("key", "value", "hint"), FOREIGN, ids=[f"{key}={value}" for key, value, _ in FOREIGN])
def test_a_key_of_another_tool_in_a_task_is_answered_with_ours(key: str, value: str, hint: str) -> None:
    (line,) = said(f"tasks:\n  a:\n    argv: [x]\n    {key}: {value}\n")
    assert line == f"4:5: tasks.a.{key}: unknown key{'. ' + hint if hint else ''}"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("steps: {a: {run: x}}", ["1:1: steps: unknown key. Write 'tasks'."]),
        ("jobs: {a: {run: x}}", ["1:1: jobs: unknown key. Write 'tasks'."]),
        ("task: {a: {run: x}}", ["1:1: task: unknown key. Did you mean 'tasks'?"]),
        ("jobs: 4\ntasks: {a: {run: x}}", ["1:1: jobs: unknown key. Write workers: 4."]),
        ("vars: {}\ntasks: {a: {run: x}}", ["1:1: vars: unknown key. Write 'params'."]),
        ("fail-fast: true\ntasks: {a: {run: x}}", ["1:1: fail-fast: unknown key. Write 'fail_fast'."]),
        ("finaly: {}\ntasks: {a: {run: x}}", ["1:1: finaly: unknown key. Did you mean 'finally'?"]),
        ("tasks: {a: {run: x, matrix: {}}}", ["1:29: tasks.a.matrix: expected at least one entry, found none"]),
        ("pools: {p: {max_workers: 3}}\ntasks: {a: {run: x}}", ["1:13: pools.p.max_workers: unknown key. Write 'workers'."]),
        ("tasks: {a: {run: x, retry: {max: 1, dealy: 3}}}", ["1:37: tasks.a.retry.dealy: unknown key. Did you mean 'delay'?"]),
        ("tasks: {a: {run: x, stop: {sig: INT}}}", ["1:28: tasks.a.stop.sig: unknown key. Did you mean 'signal'?"]),
        ("params: {p: {typ: int}}\ntasks: {a: {run: x}}", ["1:14: params.p.typ: unknown key. Did you mean 'type'?"]),
        ("defaults: {needs: [a]}\ntasks: {a: {run: x}}", ["1:12: defaults.needs: unknown key. Write 'needs' in each task."]),
        ("name: x", ["1:1: 'tasks' is missing. Write tasks: and under it name: {run: …}."]),
        ("tasks: {}", ["1:8: tasks: expected at least one entry, found none"]),
        (
            "version: 2\ntasks: {a: {run: x}}",
            ["1:1: version: unknown key. Leave it out: a job file has no version."],
        ),
        (
            "tasks:\n- name: a\n  run: x",
            ["2:1: tasks: expected a map (key: value), found a list. Write a map, each task under its name: a: {…}."],
        ),
        (
            "tasks: [a]",
            ["1:8: tasks: expected a map (key: value), found a list. Write a map, each task under its name: name: {…}."],
        ),
        ("tasks: {t: echo hi}", ["1:12: tasks.t: expected a map (key: value), found text. Write t: {run: echo hi}."]),
        (
            "tasks: {t: 'echo ${{ params.x }}'}",
            ['1:12: tasks.t: expected a map (key: value), found text. Write t: {run: "echo ${{ params.x }}"}.'],
        ),
        ("tasks: {t: 'm:f'}", ['1:12: tasks.t: expected a map (key: value), found text. Write t: {target: "m:f"}.']),
        ("tasks: {t: [ls, -l]}", ["1:12: tasks.t: expected a map (key: value), found a list. Write t: {argv: [ls, -l]}."]),
        (
            "tasks: {a: }",
            [
                (
                    "1:9: tasks.a: a task has exactly one of target, run and argv; this one has none of them. "
                    "Write one of target: module:function, run: command, argv: [command, argument]."
                )
            ],
        ),
        (
            "tasks: {a: {target: 'm:f', args: {x: 1}}}",
            ["1:34: tasks.a.args: expected a list, found a map. Write kwargs: {x: …}."],
        ),
        (
            "tasks: {a: {target: 'm:f', kwargs: [1]}}",
            ["1:36: tasks.a.kwargs: expected a map (key: value), found a list. Write args: […]."],
        ),
        (
            "tasks: {a: {target: 'm:f', args: '${{ item }}'}}",
            ['1:34: tasks.a.args: expected a list, found text. Write ["${{ item }}"].'],
        ),
        (
            "tasks: {a: {run: x, stop: SIGTERM}}",
            ["1:27: tasks.a.stop: expected a map (key: value), found text. Write stop: {signal: TERM}."],
        ),
        (
            "tasks: {a: {run: x, stop: 10s}}",
            ["1:27: tasks.a.stop: expected a map (key: value), found text. Write stop: {grace: 10s}."],
        ),
        ("tasks: {a: {run: x, retry: {count: 3}}}", ["1:29: tasks.a.retry.count: unknown key. Write max: 3."]),
        ("tasks: {a: {run: x, retry: {attempts: 3}}}", ["1:29: tasks.a.retry.attempts: unknown key. Write max: 2."]),
        ("tasks: {a: {run: x, needs: b}, b: {run: x}}", ["1:28: tasks.a.needs: expected a list, found text. Write [b]."]),
        ("tasks: {a: {run: true}}", ['1:18: tasks.a.run: run is a command, or a list of commands. Write "true".']),
        (
            "tasks: {a: {run: {x: y}}}",
            ["1:18: tasks.a.run: run is a command, or a list of commands"],
        ),
        (
            "tasks: {a: {run: x, continue_on_error: yes}}",
            [("1:40: tasks.a.continue_on_error: expected true or false, found text. Write true.")],
        ),
        (
            "tasks: {a: {run: x, max_parallel: '3'}}",
            [("1:35: tasks.a.max_parallel: expected a whole number, found text. Write 3 without quotes.")],
        ),
        ("tasks: {a: {run: x, max_parallel: 0}}", ["1:35: tasks.a.max_parallel: expected 1 or more"]),
        (
            "tasks: {a: {run: x, mode: proces}}",
            [
                (
                    "1:27: tasks.a.mode: expected one of serial, thread, process, thread_pool, process_pool, found 'proces'. Did "
                    "you mean 'process'?"
                )
            ],
        ),
        (
            "tasks: {a: {run: x, foreach: 3}}",
            [
                (
                    "1:30: tasks.a.foreach: foreach is a list, one of {range: …}, {glob: …} and {lines: …}, or an expression "
                    "that gives a list. Write foreach: {range: 3}."
                )
            ],
        ),
        (
            "tasks: {a: {run: x, foreach: {range: x}}}",
            [("1:38: tasks.a.foreach.range: range is a whole number, or a list of 1 to 3 of them")],
        ),
        (
            "tasks: {a: {run: x, retry: yes}}",
            [
                (
                    "1:28: tasks.a.retry: retry is a whole number of re-runs, "
                    "or {max, delay, backoff, max_delay, jitter, exit_codes, exceptions}"
                )
            ],
        ),
        ("tasks: {a: {run: x, retry: {}}}", ["1:21: tasks.a.retry: 'max' is missing. Write retry: 2, or retry: {max: 2}."]),
        (
            "tasks: {a: {run: x, timeout: soon}}",
            [("1:30: tasks.a.timeout: not a duration; write seconds (90) or units (90s, 1h30m, 1.5h, 500ms, PT90S)")],
        ),
        ("tasks: {a: {run: x, timeout: -1}}", ["1:30: tasks.a.timeout: a duration is between 0 and ten years"]),
        ("tasks: {a: {target: m.f}}", ["1:21: tasks.a.target: 'm.f' is not module:function. Write m:f."]),
        ("tasks: {a: {target: lib/g.py}}", ["1:21: tasks.a.target: 'lib/g.py' is not module:function. Write lib.g:function."]),
        ("tasks: {a: {target: f}}", ["1:21: tasks.a.target: 'f' is not module:function"]),
        (
            "tasks: {a: {target: 'g.py:show'}}",
            ["1:21: tasks.a.target: a target names a module, not its file g.py. Write g:show."],
        ),
        (
            "tasks: {a: {}}",
            [
                (
                    "1:9: tasks.a: a task has exactly one of target, run and argv; this one has none of them. "
                    "Write one of target: module:function, run: command, argv: [command, argument]."
                )
            ],
        ),
        (
            "tasks: {a: {run: x, argv: [y]}}",
            [("1:9: tasks.a: a task has exactly one of target, run and argv; this one has run and argv")],
        ),
        (
            "tasks: {../x: {run: x}}",
            [("1:9: tasks['../x']: '../x' is not a name: letters, digits, '_' and '-', at most 64, the first a letter or '_'")],
        ),
        (
            "name: a/b\ntasks: {a: {run: x}}",
            [
                (
                    "1:7: name: 'a/b' is not a job name: letters, digits, '_', '.' and '-', at most 100, the first a letter, a "
                    "digit or '_'"
                )
            ],
        ),
        (
            "env: {A-B: x}\ntasks: {a: {run: x}}",
            ["1:7: env.A-B: 'A-B' is not the name of an environment variable: letters, digits and '_', the first not a digit"],
        ),
        (
            "env: {A: [x]}\ntasks: {a: {run: x}}",
            [("1:10: env.A: expected text, found a list. Write it as one text.")],
        ),
        ("tasks: {a: {argv: [x, true]}}", ["1:23: tasks.a.argv[1]: an argument of a command is text or a number; quote it"]),
        ("", ["1:1: the file is empty; a job file has tasks. Write tasks: and under it name: {run: …}."]),
        ("# nothing", ["1:1: the file is empty; a job file has tasks. Write tasks: and under it name: {run: …}."]),
        ("\n- a", ["2:1: a job file is a map that has tasks; this is a list. Write tasks: and under it name: {run: …}."]),
        ("text", ["1:1: a job file is a map that has tasks; this is a single value. Write tasks: and under it name: {run: …}."]),
    ],
)
def test_a_mistake_of_the_models_is_said_once_in_words(text: str, lines: list[str]) -> None:
    assert said(text) == lines


@pytest.mark.parametrize(
    "rest",
    [
        *[f"{key}: '${{{{ params.x }}}}'" for key in ("timeout", "workers", "mode", "retry", "max_parallel", "pool", "needs")],
        "foreach: {range: '${{ params.x }}'}",
        "continue_on_error: ${{ params.x }}",
        "stop: {grace: '${{ params.x }}'}",
    ],
)
def test_an_expression_where_none_is_evaluated_is_told_so(rest: str) -> None:
    (line,) = said(f"params: {{x: 1}}\ntasks:\n  a:\n    run: x\n    {rest}\n")
    assert line.endswith(". There is no ${{ }} here: write the value itself.")


def test_the_name_of_a_job_is_no_expression() -> None:
    (line,) = said("name: ${{ run.id }}\ntasks: {a: {run: x}}")
    assert line.endswith("There is no ${{ }} here: write the value itself.")


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("10 minutes", " Write 10m."),
        ("1hour", " Write 1h."),
        ("5 min", " Write 5m."),
        ("1 hour and 30 mins", " Write 1h30m."),
        ("2 Days, 3 hrs.", " Write 2d3h."),
        ("10M", " Write 10m."),
        ("3 months", ""),
        ("soon", ""),
    ],
)
def test_a_duration_in_words_is_answered_with_how_it_is_written(written: str, hint: str) -> None:
    (line,) = said(f"timeout: {written}\ntasks: {{a: {{run: x}}}}")
    assert line.partition("PT90S)")[2].removeprefix(".") == hint


# --- needs -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "lines"),
    [
        (
            "a: {run: x, needs: [lst]}\n  list: {run: x}",
            ["2:23: tasks.a.needs[0]: no task is called 'lst'. Did you mean 'list'?"],
        ),
        ("a: {run: x, needs: [a]}", ["2:23: tasks.a.needs[0]: a task cannot need itself"]),
        ("b: {run: x}\n  a: {run: x, needs: [b, b]}", ["3:26: tasks.a.needs[1]: 'b' is listed twice. Leave one out."]),
        (
            "a: {run: x, needs: [b]}\n  b: {run: x, needs: [a]}",
            ["2:23: tasks.a.needs[0]: tasks need each other in a circle: a needs b (line 2), b needs a (line 3)"],
        ),
        (
            (
                "z: {run: x, needs: [b]}\n  a: {run: x}\n  b: {run: x, needs: [a, c]}\n  c: {run: x, needs: [d]}\n  d: {run: "
                "x, needs: [b]}"
            ),
            [
                (
                    "4:26: tasks.b.needs[1]: tasks need each other in a circle: b needs c (line 4), c needs d (line 5), d "
                    "needs b (line 6)"
                )
            ],
        ),
        (
            "a: {run: x, needs: [b]}\n  b: {run: x, needs: [a]}\n  c: {run: x, needs: [d]}\n  d: {run: x, needs: [c]}",
            [
                "2:23: tasks.a.needs[0]: tasks need each other in a circle: a needs b (line 2), b needs a (line 3)",
                "4:23: tasks.c.needs[0]: tasks need each other in a circle: c needs d (line 4), d needs c (line 5)",
            ],
        ),
        ("a: {run: x}\n  A: {run: x}", ["3:3: tasks.A: 'A' differs from 'a' only in case"]),
        (
            "a: {run: x, needs: [bb]}\n  c: {run: x}\n  d: {run: x}",
            ["2:23: tasks.a.needs[0]: no task is called 'bb'. The other tasks are c, d."],
        ),
        (
            "a: {run: x, needs: [q]}\n  c: {run: x}",
            ["2:23: tasks.a.needs[0]: no task is called 'q'. The only other task is c."],
        ),
        (
            "a: {run: x, needs: [zz]}\n" + "".join(f"  t{n}: {{run: x}}\n" for n in range(9)),
            ["2:23: tasks.a.needs[0]: no task is called 'zz'"],
        ),
    ],
)
def test_needs_are_checked(tasks: str, lines: list[str]) -> None:
    assert said(f"tasks:\n  {tasks}\n") == lines


def chain(length: int, *, circle: bool) -> dict[str, spec.Task]:
    last = {"t0": [f"t{length - 1}"] if circle else []}
    needs = last | {f"t{n}": [f"t{n - 1}"] for n in range(1, length)}
    return {name: spec.Task(run="x", needs=needs[name]) for name in reversed(needs)}


def test_a_long_chain_is_no_circle_and_needs_no_recursion() -> None:
    assert list(needs.find(chain(20_000, circle=False), lambda path: "line 1")) == []


def test_a_long_circle_is_printed_in_part() -> None:
    (finding,) = needs.find(chain(20_000, circle=True), lambda path: "line 1")
    assert finding.message.endswith("(line 1), and 19988 more, back to t19999")


# --- pools -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "pools: {cpu: {}}\ntasks: {a: {run: x, pool: cpus}}",
            ["2:27: tasks.a.pool: no pool is called 'cpus'. Did you mean 'cpu'?"],
        ),
        ("tasks: {a: {run: x, pool: cpu}}", ["1:27: tasks.a.pool: no pool is called 'cpu'. The job has no pools."]),
        (
            "tasks: {a: {run: x, pool: default}}",
            ["1:27: tasks.a.pool: no pool is called 'default'. Leave pool out: that is the default."],
        ),
        (
            "pools: {p: {}}\ntasks: {a: {run: x, pool: p, mode: thread, workers: 2}}",
            ["2:21: tasks.a.pool: pool and mode and workers exclude each other. Leave one of them out."],
        ),
        (
            "pools: {p: {}}\ndefaults: {pool: p, workers: 2}\ntasks: {a: {run: x}}",
            ["2:12: defaults.pool: pool and workers exclude each other. Leave one of them out."],
        ),
        (
            "pools: {a: {}}\ntasks: {a: {run: x, mode: thread}}",
            ["2:9: tasks.a: the task's own pool would be called 'a', as another pool is. Rename one of them, or write pool: a."],
        ),
        (
            "tasks: {default: {run: x, workers: 2}}",
            [
                (
                    "1:9: tasks.default: the task's own pool would be called 'default', as another pool is. "
                    "Rename one of them, or write pool: default."
                )
            ],
        ),
        (
            "pools: {default: {}}\ntasks: {a: {run: x}}",
            ["1:9: pools.default: the pool 'default' is the one that mode and workers of the job make. Rename it."],
        ),
        ("pools: {p: {}, P: {}}\ntasks: {a: {run: x}}", ["1:16: pools.P: 'P' differs from 'p' only in case"]),
        (
            "pools: {p: {mode: thread, executor: 'm:f'}}\ntasks: {a: {run: x}}",
            ["1:27: pools.p.executor: executor stands in place of mode. Leave one of them out."],
        ),
        (
            "pools: {p: {mode: process, max_tasks_per_worker: 5}}\ntasks: {a: {run: x}}",
            [
                (
                    "1:28: pools.p.max_tasks_per_worker: no worker is replaced in mode process; max_tasks_per_worker is for "
                    "mode process_pool"
                )
            ],
        ),
        (
            "pools: {p: {executor: 'm:f', max_tasks_per_worker: 5}}\ntasks: {a: {run: x}}",
            [
                (
                    "1:30: pools.p.max_tasks_per_worker: no worker is replaced with an executor; max_tasks_per_worker is for "
                    "mode process_pool"
                )
            ],
        ),
        (
            "pools: {p: {mode: process, start_method: spawn, preload: true}}\ntasks: {a: {run: x}}",
            [("1:49: pools.p.preload: nothing is forked with start_method spawn; preload is for modes process and process_pool")],
        ),
        (
            "mode: serial\nworkers: 2\ntasks: {a: {run: x}}",
            ["2:10: workers: mode serial runs one at a time: workers is 1. Leave workers out, or take another mode."],
        ),
        (
            "pools: {p: {mode: serial, workers: 50%}}\ntasks: {a: {run: x}}",
            ["1:36: pools.p.workers: mode serial runs one at a time: workers is 1. Leave workers out, or take another mode."],
        ),
        (
            "tasks: {a: {run: x, mode: serial, workers: 2}}",
            ["1:44: tasks.a.workers: mode serial runs one at a time: workers is 1. Leave workers out, or take another mode."],
        ),
        (
            "tasks: {a: {target: 'm:f', env: {A: x}}}",
            [
                (
                    "1:28: tasks.a.env: the threads of mode thread_pool share os.environ; a target there has no env. "
                    "Write mode: process_pool or process, hand the values over in kwargs, or set env for the whole job."
                )
            ],
        ),
        (
            "pools: {p: {executor: 'm:f'}}\ntasks: {a: {target: 'm:f', pool: p, cwd: x}}",
            [
                (
                    "2:37: tasks.a.cwd: the tasks of an executor share the working directory; a target there has no cwd. "
                    "Write mode: process_pool or process, or hand the folder over in kwargs."
                )
            ],
        ),
        (
            "mode: thread\ndefaults: {cwd: x}\ntasks: {a: {target: 'm:f'}, b: {target: 'm:f'}, c: {run: x}}",
            [
                (
                    "2:12: defaults.cwd: the threads of mode thread share the working directory; a target there has no cwd. "
                    "Write mode: process_pool or process, or hand the folder over in kwargs."
                )
            ],
        ),
    ],
)
def test_pools_are_checked(text: str, lines: list[str]) -> None:
    assert said(text) == lines


@pytest.mark.parametrize(
    "text",
    [
        "env: {A: x}\ntasks: {a: {target: 'm:f'}}",
        "tasks: {a: {run: x, env: {A: x}, cwd: y}}",
        "mode: process\ntasks: {a: {target: 'm:f', env: {A: x}, cwd: y}}",
        "mode: serial\ntasks: {a: {target: 'm:f', cwd: y}}",
        "tasks: {a: {target: 'm:f', mode: process_pool, cwd: y}}",
        (
            "pools: {p: {mode: process_pool, max_tasks_per_worker: 3, start_method: spawn}}\ntasks: {a: {target: 'm:f', "
            "pool: p, cwd: y}}"
        ),
        "mode: process_pool\npools: {p: {max_tasks_per_worker: 3}}\ntasks: {a: {run: x}}",
        "mode: process\npools: {p: {preload: true}}\ntasks: {a: {run: x}}",
        "mode: thread\npools: {p: {preload: false}}\ntasks: {a: {run: x}}",
        "mode: serial\nworkers: 1\ntasks: {a: {run: x}}",
        "pools: {a: {}}\ntasks: {a: {run: x, pool: a}}",
    ],
)
def test_pools_that_fit_are_fine(text: str) -> None:
    job(text)


# --- secrets, resources, concurrency, at_most_once ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "secrets: {s: {}}",
            [
                (
                    "1:11: secrets.s: a secret has exactly one of env, file, command and credential; this one has none of "
                    "them. Write one of env: VARIABLE, file: path, command: command, credential: name."
                )
            ],
        ),
        (
            "secrets: {s: {env: A, file: b}}",
            [("1:11: secrets.s: a secret has exactly one of env, file, command and credential; this one has env and file")],
        ),
        ("secrets: {s: {fil: x}}", ["1:15: secrets.s.fil: unknown key. Did you mean 'file'?"]),
        ("secrets: {s: {environment: X}}", ["1:15: secrets.s.environment: unknown key. Write 'env'."]),
        ("secrets: {s: $TOKEN}", ["1:14: secrets.s: expected a map (key: value), found text. Write s: {env: TOKEN}."]),
        ("secrets: {s: /etc/key}", ["1:14: secrets.s: expected a map (key: value), found text. Write s: {file: /etc/key}."]),
        (
            "secrets: {s: hunter2}",
            [
                (
                    "1:14: secrets.s: expected a map (key: value), found text. Write s: {env: VARIABLE}: a job file says "
                    "where a secret is, not what it is."
                )
            ],
        ),
        (
            "secrets: [a]",
            [
                (
                    "1:10: secrets: expected a map (key: value), found a list. Write a map, each secret under its name: NAME: "
                    "{env: VARIABLE}."
                )
            ],
        ),
        (
            "secrets: {s: {env: A-B}}",
            [
                (
                    "1:20: secrets.s.env: 'A-B' is not the name of an environment variable: letters, digits and '_', "
                    "the first not a digit"
                )
            ],
        ),
        (
            "secrets: {s: {credential: ../x}}",
            [
                (
                    "1:27: secrets.s.credential: '../x' is not the name of a credential: letters, digits, '_', "
                    "'.', ':', '@' and '-', at most 255"
                )
            ],
        ),
        (
            "secrets: {s: {file: 'a/${{ params.x }}'}}",
            ["1:21: secrets.s.file: no ${{ }} is evaluated here. Write the value itself."],
        ),
        (
            "secrets: {s: {command: 'x ${{ params.x }}'}}",
            [("1:24: secrets.s.command: no ${{ }} is evaluated here. Write the value itself.")],
        ),
        ("env_file: ${{ params.x }}", ["1:11: env_file: no ${{ }} is evaluated here. Write the value itself."]),
        ("envfile: x", ["1:1: envfile: unknown key. Write 'env_file'."]),
        ("concurrency: 4", ["1:14: concurrency: expected a map (key: value), found a number. Write workers: 4."]),
        ("concurrency: etl", ["1:14: concurrency: expected a map (key: value), found text. Write concurrency: {group: etl}."]),
        (
            "concurrency: wait",
            ["1:14: concurrency: expected a map (key: value), found text. Write concurrency: {on_conflict: wait}."],
        ),
        ("concurrency: {groop: x}", ["1:15: concurrency.groop: unknown key. Did you mean 'group'?"]),
        (
            "concurrency: {cancel-in-progress: true}",
            ["1:15: concurrency.cancel-in-progress: unknown key. Write on_conflict: replace."],
        ),
        (
            "concurrency: {group: a b}",
            [
                (
                    "1:22: concurrency.group: 'a b' is not the name of a group: letters, digits, '_', '.' and '-', at "
                    "most 100, the first no '.' or '-'"
                )
            ],
        ),
        (
            "concurrency: {on_conflict: wat}",
            [("1:28: concurrency.on_conflict: expected one of fail, skip, wait, replace, found 'wat'. Did you mean 'wait'?")],
        ),
        ("defaults: {resources: {mem: 1GB}}", ["1:24: defaults.resources.mem: unknown key. Write 'memory'."]),
        (
            "defaults: {resources: {memory: 1 byte}}",
            [("1:32: defaults.resources.memory: not a size; write bytes (1048576) or units (512MiB, 2GB)")],
        ),
        (
            "defaults: {resources: 512MiB}",
            [("1:23: defaults.resources: expected a map (key: value), found text. Write resources: {memory: 512MiB}.")],
        ),
        ("defaults: {secrets: [s]}", ["1:12: defaults.secrets: unknown key. Write 'secrets' in each task."]),
        (
            "defaults: {retry: 2, at_most_once: true}",
            [
                (
                    "1:22: defaults.at_most_once: at_most_once and retry exclude each other: a retry "
                    "is a second run. Write retry: 0 beside it."
                )
            ],
        ),
    ],
)
def test_keys_of_the_job_are_checked_at_every_level(text: str, lines: list[str]) -> None:
    assert said(f"{text}\ntasks: {{a: {{run: x}}}}") == lines


SECRETS = "secrets: {token: {env: T}, api-key: {file: k}}\ntasks:\n  a: "


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("{run: x, secrets: [tokn]}", "25: tasks.a.secrets[0]: the job has no secret 'tokn'. Did you mean 'token'?"),
        (
            "{run: x, secrets: [zz-top]}",
            ("25: tasks.a.secrets[0]: the job has no secret 'zz-top'. Declare it: secrets: {zz-top: {env: ZZ_TOP}}."),
        ),
        ("{run: x, secrets: [token, token]}", "32: tasks.a.secrets[1]: 'token' is listed twice. Leave one out."),
        ("{run: x, secrets: token}", "24: tasks.a.secrets: expected a list, found text. Write [token]."),
        (
            "{run: x, secrets: [api-key]}",
            (
                "25: tasks.a.secrets[0]: 'api-key' is not the name of an environment variable, so the task "
                "would not get it. Write env: {API_KEY: \"${{ secrets['api-key'] }}\"}."
            ),
        ),
        (
            "{run: 'x ${{ secrets.token }}', secrets: [token]}",
            (
                "19: tasks.a.run: a secret never stands in run, only in env. Write secrets: "
                '[token]; in the command "$token" is its value.'
            ),
        ),
        (
            "{run: 'x ${{ len(secrets) }}'}",
            (
                "23: tasks.a.run: a secret never stands in run, only in env. Write secrets: [NAME]; in the "
                'command "$NAME" is its value.'
            ),
        ),
        (
            "{argv: [x, '${{ secrets.token }}']}",
            (
                "22: tasks.a.argv[1]: a secret never stands in argv, only in env. Write secrets: [token]; "
                "the command finds it in its environment, as token."
            ),
        ),
        (
            "{target: 'm:f', mode: process, args: ['${{ secrets.token }}']}",
            (
                "49: tasks.a.args[0]: a secret never stands in args, only in "
                "env. Write secrets: [token]; in the target os.environ['token'] is its value."
            ),
        ),
        (
            "{target: 'm:f', mode: process, kwargs: {x: [\"${{ secrets['api-key'] }}\"]}}",
            (
                "55: tasks.a.kwargs.x[0]: a secret never stands in kwargs, only in env. Write secrets: [api-key] and "
                "env: {API_KEY: \"${{ secrets['api-key'] }}\"}; in the target os.environ['API_KEY'] is its value."
            ),
        ),
        ("{run: x, cwd: '${{ secrets.token }}'}", "25: tasks.a.cwd: a secret never stands in cwd, only in env"),
        ("{run: x, foreach: '${{ secrets.token }}'}", "29: tasks.a.foreach: a secret never stands in foreach, only in env"),
        (
            "{run: x, env: {A: '${{ secrets.token }}'}}",
            ("29: tasks.a.env.A: the task does not list the secret 'token'. Add it: secrets: [token]."),
        ),
        ("{run: x, env: {A: '${{ secrets.tokn }}'}}", "29: tasks.a.env.A: the job has no secret 'tokn'. Did you mean 'token'?"),
        (
            "{run: x, env: {A: '${{ secrets }}'}}",
            "29: tasks.a.env.A: after secrets comes the name of a secret. Write secrets.NAME.",
        ),
        (
            "{run: x, env: {A: '${{ secret.token }}'}}",
            "29: tasks.a.env.A: the name 'secret' is not known here. Did you mean 'secrets'?",
        ),
        ("{run: x, secrets: [token], env: {A: '${{ secrets.token.x }}'}}", "47: tasks.a.env.A: a secret is text: it has no 'x'"),
        (
            "{run: 'x ${{ env.T }}', secrets: [token]}",
            ("19: tasks.a.run: the secret 'token' is read from T, which tasks then do not see. Write secrets.token."),
        ),
        (
            "{target: 'm:f', secrets: [token]}",
            (
                "22: tasks.a.secrets: the threads of mode thread_pool share os.environ; a target there has "
                "no secrets. Write mode: process_pool or process, or read the secret in a command."
            ),
        ),
        (
            "{target: 'm:f', resources: {nice: 5}}",
            (
                "22: tasks.a.resources: a target in mode thread_pool has no process for each attempt; "
                "resources are for commands and mode process. Write mode: process."
            ),
        ),
        (
            "{target: 'm:f', mode: process_pool, resources: {cpus: 1}}",
            (
                "42: tasks.a.resources: a target in mode process_pool has no "
                "process for each attempt; resources are for commands and mode process. Write mode: process."
            ),
        ),
        ("{run: x, resources: {nicee: 1}}", "27: tasks.a.resources.nicee: unknown key. Did you mean 'nice'?"),
        (
            "{run: x, at_most_once: true, retry: 1}",
            ("35: tasks.a.retry: at_most_once and retry exclude each other: a retry is a second run. Write retry: 0."),
        ),
        (
            "{run: x, at_most_once: true, retry: {max: 2}}",
            ("35: tasks.a.retry: at_most_once and retry exclude each other: a retry is a second run. Write retry: 0."),
        ),
    ],
)
def test_secrets_and_limits_of_a_task_are_checked(task: str, message: str) -> None:
    assert said(f"{SECRETS}{task}") == [f"3:{message}"]


def test_a_name_with_a_hyphen_is_answered_with_how_it_is_written() -> None:
    first, *_ = said(f"{SECRETS}{{run: x, env: {{A: '${{{{ secrets.api-key }}}}'}}}}")
    assert first.endswith("A name with a hyphen is written secrets['api-key'].")


def test_no_secret_stands_in_the_env_of_the_job() -> None:
    (line,) = said(f"env: {{A: '${{{{ secrets.token }}}}'}}\n{SECRETS}{{run: x}}")
    assert (
        line == "1:15: env.A: the env of the job reaches every task, so no secret stands in it. Write it in the env of the task."
    )


def test_a_secret_in_the_env_of_the_defaults_is_told_once_to_those_that_do_not_list_it() -> None:
    (line,) = said(
        f"defaults: {{env: {{A: '${{{{ secrets.token }}}}'}}}}\n{SECRETS}{{run: x, secrets: [token]}}\n"
        "  b: {run: x}\n  c: {run: x}"
    )
    assert line == "1:26: defaults.env.A: the task does not list the secret 'token'. Add it: secrets: [token]."


@pytest.mark.parametrize(
    "task",
    [
        "{run: x}",
        "{run: x, secrets: [token]}",
        "{run: x, secrets: [token, api-key], env: {A: 'Bearer ${{ secrets.token }}', B: \"${{ secrets['api-key'] }}\"}}",
        "{target: 'm:f', mode: process, secrets: [token], resources: {memory: 1GB, nice: -5, cpus: 2}}",
        "{target: 'm:f', mode: process_pool, secrets: [token]}",
        "{target: 'm:f', mode: serial, secrets: [token], env: {A: '${{ secrets.token + env.HOME }}'}}",
        "{run: x, resources: {memory: 512MiB}}",
        "{argv: [x], resources: {}, at_most_once: true, retry: 0}",
    ],
)
def test_secrets_and_limits_that_fit_are_fine(task: str) -> None:
    job(f"{SECRETS}{task}")


@pytest.mark.parametrize("other", ["env: {T: x}", "env_file: x.env"])
def test_a_variable_of_the_job_may_have_the_name_of_one_that_a_secret_is_read_from(other: str) -> None:
    job(f"{other}\n{SECRETS}{{run: 'x ${{{{ env.T }}}}'}}")


# --- expressions -------------------------------------------------------------------------------------------------------------

TASKS = """\
params: {files: [a], n: 3, p: {type: path}, l: {type: list}}
mode: process_pool
tasks:
  one: {target: "m:f"}
  many: {target: "m:f", foreach: [1, 2], needs: [one]}
  cmd: {run: ls}
  alone: {run: ls}
"""


@pytest.mark.parametrize(
    ("rest", "place", "message"),
    [
        ("run: echo ${{ params.m }}", "9:19", "run: the job has no parameter 'm'"),
        ("run: echo ${{ parms.n }}", "9:19", "run: the name 'parms' is not known here. Did you mean 'params'?"),
        ("run: echo ${{ 1 + }}", "9:19", "run: `1 +` is not an expression: invalid syntax"),
        ("run: echo ${{ frob(1) }}", "9:19", "run: "),
        ("run: echo ${{ item }}", "9:19", "run: 'item' is known only in a task with foreach"),
        ("run: echo ${{ index }}", "9:19", "run: 'index' is known only in a task with foreach"),
        ("run: echo ${{ run.name }}", "9:19", "run: run has no 'name'. There are id, dir, started_at, attempt, failed."),
        ("run: echo ${{ run.ids }}", "9:19", "run: run has no 'ids'. Did you mean 'id'?"),
        ("run: echo ${{ tasks.none.result }}", "9:19", "run: no task is called 'none'. Did you mean 'one'?"),
        (
            "run: echo ${{ tasks.alone.stdout }}",
            "9:19",
            "run: 'alone' is not among the needs of 'x', so it may not have run yet. Add alone to needs: [many, cmd, alone].",
        ),
        ("run: echo ${{ tasks.x.stdout }}", "9:19", "run: a task cannot refer to itself"),
        ("run: echo ${{ tasks }}", "9:19", "run: after tasks comes the name of a task. Write tasks.NAME.result."),
        ("run: echo ${{ tasks.one }}", "9:19", "run: tasks.one alone is no value. Write tasks.one.result; there are"),
        ("run: echo ${{ tasks.one.reslt }}", "9:19", "run: tasks.one has no 'reslt'. Did you mean 'result'?"),
        (
            "run: echo ${{ tasks.many.result }}",
            "9:19",
            "run: 'many' has foreach: it has a list of results. Write tasks.many.results.",
        ),
        ("run: echo ${{ tasks.one.results }}", "9:19", "run: 'one' has no foreach: it has one result. Write tasks.one.result."),
        ("run: echo ${{ tasks.one.stdout }}", "9:19", "run: 'one' is a target: it has no stdout. Write tasks.one.result."),
        ("run: echo ${{ tasks.many.outputs }}", "9:19", "run: 'many' is a target: it has no outputs. Write tasks.many.results."),
        ("run: |\n      echo one\n      echo ${{ params.m }}", "11:16", "run: the job has no parameter 'm'"),
        ("run: >-\n      echo one\n      echo ${{ params.m }}", "11:16", "run: the job has no parameter 'm'"),
        ("argv: [echo, 'a ${{ params.m }}']", "9:25", "argv[1]: the job has no parameter 'm'"),
        ("target: m:f\n    args: ['${{ params.m }}']", "10:17", "args[0]: the job has no parameter 'm'"),
        ("target: m:f\n    kwargs: {a: [{b: 'ä ${{ params.m }}'}]}", "10:29", "kwargs.a[0].b: the job has no parameter 'm'"),
        ("run: ls\n    env: {A: 'x${{ params.m }}'}", "10:20", "env.A: the job has no parameter 'm'"),
        ("run: ls\n    cwd: /x/${{ params.m }}", "10:17", "cwd: the job has no parameter 'm'"),
        ("run: ls\n    foreach: {glob: '${{ params.m }}/*'}", "10:26", "foreach.glob: the job has no parameter 'm'"),
        ("run: ls\n    foreach: {lines: '${{ params.m }}/*'}", "10:27", "foreach.lines: the job has no parameter 'm'"),
        ("run: ls\n    foreach: ['${{ params.m }}']", "10:20", "foreach[0]: the job has no parameter 'm'"),
        ("run: ls\n    foreach: ${{ params.m }}", "10:18", "foreach: the job has no parameter 'm'"),
        ("run: ls\n    foreach: ${{ item }}", "10:18", "foreach: 'item' is not known in foreach, which says what the items are"),
        (
            "run: ls\n    foreach: a",
            "10:14",
            "foreach: foreach is a list, or one expression that gives a list; this is text. Write foreach: [a, b].",
        ),
        (
            "run: ls\n    foreach: $(ls)",
            "10:14",
            (
                "foreach: foreach is a list, or one expression that gives a list; this is text. "
                "Let the command write a file, one item a line: foreach: {lines: FILE}."
            ),
        ),
        (
            "run: ls\n    foreach: a ${{ params.files }}",
            "10:14",
            "foreach: foreach is a list, or one expression that gives a list; this is text",
        ),
        ("run: ls\n    foreach: ${{ params.n }}", "10:18", "foreach: the parameter 'n' is a whole number, not a list"),
        ("run: ls\n    foreach: ${{ params.p }}", "10:18", "foreach: the parameter 'p' is a path, not a list"),
        ("run: ls\n    foreach: ${{ tasks.cmd.exit_code }}", "10:18", "foreach: exit_code is not a list"),
        ("run: ls\n    foreach: {range: [0, 5, 0]}", "10:29", "foreach.range[2]: the step of a range is not 0"),
        ("run: ls\n    foreach: {range: 100000000000000000000}", "10:22", "foreach.range: more than 10,000,000 items"),
        ("run: ls\n    foreach: {range: [5, -100000000000, -1]}", "10:22", "foreach.range: more than 10,000,000 items"),
        ('run: "a\\0b"', "9:10", "run: a command cannot be handed a NUL character"),
        ("target: m:f\n    args: [.inf]", "10:12", "args[0]: infinity and not-a-number are no JSON values"),
        ("target: m:f\n    kwargs: {a: 99999999999999999999}", "10:17", "kwargs.a: a whole number beyond 64 bits"),
    ],
)
def test_expressions_are_checked_with_their_place_in_the_scalar(rest: str, place: str, message: str) -> None:
    (line,) = said(f"{TASKS}  x:\n    {rest}\n    needs: [many, cmd]\n")
    assert line.startswith(f"{place}: tasks.x.{message}")


KINDS = """\
tasks:
  list-files: {target: "m:f"}
  cmd: {run: ls}
  cmds: {argv: [ls], foreach: [1, 2]}
  x:
    needs: [cmd, cmds, list-files]
    target: m:f
    args: ["${{ %s }}"]
"""


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        *[
            (f"tasks.cmd.{key}", f"'cmd' is a command: it has no {key}. Write tasks.cmd.stdout or tasks.cmd.outputs.KEY or")
            for key in ("result", "results")
        ],
        ("tasks.cmd.result[0]", "'cmd' is a command: it has no result."),
        (
            "tasks.cmd",
            "tasks.cmd alone is no value. Write tasks.cmd.stdout; there are stdout, outputs, exit_code, outcome, failures.",
        ),
        ("tasks.cmd.stdot", "tasks.cmd has no 'stdot'. Did you mean 'stdout'?"),
        *[
            (
                f"tasks.cmds.{key}",
                f"'cmds' is a command with foreach: it has no {key} of its own, each item has. Write tasks.cmds.results",
            )
            for key in ("stdout", "outputs", "exit_code")
        ],
        (
            "tasks.cmds.result",
            "'cmds' is a command with foreach: it has no result. Write tasks.cmds.results: a list of maps with item,",
        ),
        ("tasks.cmds", "tasks.cmds alone is no value. Write tasks.cmds.results; there are results, outcome, failures."),
        ("tasks['list-files'].stdout", "'list-files' is a target: it has no stdout. Write tasks['list-files'].result."),
        ("tasks['list-files']", "tasks['list-files'] alone is no value. Write tasks['list-files'].result; there are result,"),
        ("tasks.list-files.result", "no task is called 'list'. A name with a hyphen is written tasks['list-files']."),
    ],
)
def test_what_a_task_has_depends_on_its_kind(reference: str, message: str) -> None:
    line = said(KINDS % reference)[0]
    assert line.startswith(f"8:17: tasks.x.args[0]: {message}")


@pytest.mark.parametrize("key", ["stdout", "outputs.k", "exit_code", "outcome"])
def test_a_command_has_what_commands_have(key: str) -> None:
    job(KINDS % f"tasks.cmd.{key}")


@pytest.mark.parametrize(
    ("command", "place", "where"),
    [
        ("cat <<END\n      ${{ params.a }}\n      END", "6:11", "a here-document"),
        ("echo `${{ params.a }}`", "5:17", "`…`"),
        ("ls # ${{ params.a }}", "5:16", "a comment"),
    ],
)
def test_a_value_that_no_quoting_makes_safe_is_refused_where_it_stands(command: str, place: str, where: str) -> None:
    (line,) = said(f"params: {{a: 1}}\ntasks:\n  x:\n    run: |\n      {command}\n")
    assert line.startswith(f"{place}: tasks.x.run: `params.a` cannot be quoted safely in {where}")


def test_a_text_of_very_many_expressions_is_refused_without_reading_them() -> None:
    (line,) = said("tasks: {a: {run: '" + "${{ 1 }} " * 1001 + "'}}")
    assert line.startswith("1:18: tasks.a.run: a text holds at most 1,000 expressions; this one has 1,001.")


@pytest.mark.parametrize(
    "rest",
    [
        "run: echo ${{ tasks.one.result }} ${{ tasks.many.results }} ${{ tasks.cmd.stdout }} ${{ tasks.cmd.outputs.key }}",
        (
            "run: echo ${{ run.id }} ${{ run.dir }} ${{ run.started_at }} ${{ run.attempt }} ${{ env.HOME }} ${{ "
            "len(params.files) }}"
        ),
        "run: echo ${{ item }} ${{ index }}\n    foreach: ${{ tasks.one.result }}",
        "run: echo ${{ item.name[0] }}\n    foreach: ${{ params.files }}",
        "run: ls\n    foreach: ${{ params.l }}",
        "run: ls\n    foreach: ${{ params.files if params.n else [] }}",
        "run: ls\n    foreach: {range: [10, 0, -3]}",
    ],
)
def test_expressions_that_refer_to_what_is_there_are_fine(rest: str) -> None:
    job(f"{TASKS}  x:\n    {rest}\n    needs: [many, cmd]\n")


@pytest.mark.parametrize(
    ("env", "line"),
    [
        (
            "${{ tasks.a.stdout }}",
            "1:15: env.A: the env of the job is made before any task runs. Write it in the env of the task.",
        ),
        ("${{ item }}", "1:15: env.A: 'item' is not known in the env of the job. Write it in the env of the task."),
    ],
)
def test_the_env_of_the_job_knows_no_task_and_no_item(env: str, line: str) -> None:
    assert said(f"env: {{A: '{env}'}}\ntasks: {{a: {{run: x}}}}") == [line]


def test_an_expression_of_the_defaults_is_said_once_where_it_stands() -> None:
    text = "defaults: {env: {A: '${{ params.x }}'}}\ntasks: {a: {run: x}, b: {run: x}}"
    assert said(text) == ["1:26: defaults.env.A: the job has no parameter 'x'. Declare it: params: {x: …}."]


def test_needs_of_needs_are_found_through_a_long_chain_at_once() -> None:
    rows = [f"  t{n}: {{run: 'x ${{{{ tasks.t0.stdout }}}}', needs: [t{n - 1}]}}" for n in range(1, 3000)]
    job("tasks:\n  t0: {run: x}\n" + "\n".join(rows))


# --- params ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declaration", "line"),
    [
        ("{type: int, default: x}", "1:34: params.p.default: x is text, not a whole number"),
        ("{type: int, default: '3'}", "1:34: params.p.default: 3 is text, not a whole number. Write 3 without quotes."),
        ("{type: float, default: '1e3'}", "1:36: params.p.default: 1e3 is text, not a number. Write 1000.0 without quotes."),
        ("{type: bool, default: 'yes'}", "1:35: params.p.default: yes is text, not true or false. Write true without quotes."),
        ("{type: int, choices: [1, '2']}", "1:38: params.p.choices[1]: 2 is text, not a whole number. Write 2 without quotes."),
        ("{type: int, default: 1.5}", "1:34: params.p.default: 1.5 is not a whole number"),
        ("{type: bool, default: 1}", ""),
        ("{type: list, default: a}", "1:35: params.p.default: a is not a list"),
        ("{type: date, default: 2026-02-30}", "1:35: params.p.default: 2026-02-30 is not a date; write it like 2026-01-31"),
        ("{default: {a: 1}}", "1:23: params.p.default: a parameter is text, a number, true or false, or a list"),
        ("{required: true, default: 1}", "1:24: params.p.required: a required parameter has no default. Leave one of them out."),
        ("{type: choice}", "1:20: params.p.type: a choice needs its choices. Write choices: [a, b]."),
        ("{choices: [1, 2], default: 3}", "1:40: params.p.default: 3 is not among the choices"),
        ("{type: int, choices: [1, x]}", "1:38: params.p.choices[1]: x is text, not a whole number"),
        ("{type: choice, choices: [a, b], default: a}", ""),
        ("{type: date, default: 2026-02-28}", ""),
        ("{type: float, default: 1}", ""),
        ("'${{ run.id }}'", "1:13: params.p: a default is taken as written: expressions are not evaluated here"),
        ("{type: int, default: '${{ 3 }}'}", "1:34: params.p.default: a default is taken as written: expressions are not"),
        ("{type: list, default: [a, '${{ 3 }}']}", "1:35: params.p.default: a default is taken as written: expressions"),
        (".inf", "1:13: params.p: infinity and not-a-number are no JSON values"),
    ],
)
def test_declarations_of_parameters_do_not_contradict_themselves(declaration: str, line: str) -> None:
    text = f"params: {{p: {declaration}}}\ntasks: {{a: {{run: x}}}}"
    if line:
        assert said(text)[0].startswith(line)
    else:
        job(text)


# --- all at once -------------------------------------------------------------------------------------------------------------


def test_every_kind_of_mistake_is_reported_at_once_in_file_order() -> None:
    text = """\
workers: 0
workers: 2
params: {n: {type: int, default: x}}
tasks:
  a: {run: x, nedes: [b]}
  b: {command: x}
  c: {run: "${{ params.m }}", needs: [d]}
  e: {run: !!str x}
  f: {target: m.f, args: [1]}
"""
    assert [line.partition(": ")[0] for line in said(text)] == [
        "1:10",
        "2:1",
        "3:34",
        "5:15",
        "6:7",
        "7:17",
        "7:39",
        "8:12",
        "9:15",
    ]


MANY = {
    "a bad value beside a bad need and an expression": (
        "list: {run: x}\n  a: {needs: [lst], run: 'x ${{ params.m }}', timeout: x}",
        ["tasks.a.needs[0]", "tasks.a.run", "tasks.a.timeout"],
    ),
    "no action that is known": (
        "list: {run: x}\n  a: {needs: [lst], foreech: [1], command: x, env: {A: '${{ item.a + parms.x }}'}}",
        ["tasks.a.needs[0]", "tasks.a.foreech", "tasks.a.command", "tasks.a.env.A"],
    ),
    "no action at all": ("a: {needs: [q], args: ['${{ params.m }}']}", ["tasks.a", "tasks.a.needs[0]", "tasks.a.args[0]"]),
    "two actions": ("a: {needs: [q], run: '${{ params.m }}', argv: [x]}", ["tasks.a", "tasks.a.needs[0]", "tasks.a.run"]),
    "a bad entry among good ones": (
        "a: {run: x, needs: [lst, ../x, b]}\n  b: {run: x, env: {A-B: x, C: '${{ params.q }}'}}",
        ["tasks.a.needs[0]", "tasks.a.needs[1]", "tasks.b.env.A-B", "tasks.b.env.C"],
    ),
    "a task that needs itself beside one that needs more": (
        "v: {run: x, needs: [v]}\n  w: {run: '${{ tasks.z.stdout }}'}\n  z: {run: x}",
        ["tasks.v.needs[0]", "tasks.w.run"],
    ),
    "a circle beside a task that needs more": (
        "a: {run: x, needs: [b]}\n  b: {run: x, needs: [a]}\n  w: {run: '${{ tasks.z.stdout }}'}\n  z: {run: x}",
        ["tasks.a.needs[0]", "tasks.w.run"],
    ),
    "expressions of one text": (
        "a: {run: 'x ${{ params.q }} ${{ 1 + }} ${{ frob(1) }} ${{ itm }}'}",
        ["tasks.a.run"] * 4,
    ),
    "secrets, one that is no name and one that is not there": (
        "a: {run: x, secrets: [a b, gone], env: {A: '${{ secrets.other }}'}}",
        ["tasks.a.secrets[0]", "tasks.a.secrets[1]", "tasks.a.env.A"],
    ),
    "what no shell can be handed, and a name": ("a: {run: 'echo `${{ item }}` ${{ params.q }}'}", ["tasks.a.run"] * 3),
    "text for a task": ("a: echo hi\n  b: {run: x, needs: [c]}", ["tasks.a", "tasks.b.needs[0]"]),
    "a pool that is not there beside a bad mode": (
        "a: {run: x, mode: proces}\n  b: {run: x, pool: p}",
        ["tasks.a.mode", "tasks.b.pool"],
    ),
}


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("top", ["", "nmae: x\n"], ids=["as it is", "with an unknown key of the job"])
def test_a_mistake_hides_no_other(name: str, top: str) -> None:
    tasks, paths = MANY[name]
    found = [problem.path for problem in problems(f"{top}tasks:\n  {tasks}\n")]
    assert found == ["nmae"] * bool(top) + paths


FOLLOWING = {
    "an action that is not known": (
        "tasks:\n  a: {func: 'm:f'}\n  b: {needs: [a], run: 'x ${{ tasks.a.result }} ${{ tasks.a.stdout }}'}",
        "tasks.a.func",
    ),
    "a foreach that is not known": (
        "tasks:\n  a: {target: 'm:f', foreech: [1], args: ['${{ item }}']}\n  b: {needs: [a], run: '${{ tasks.a.results }}'}",
        "tasks.a.foreech",
    ),
    "a bad foreach": ("tasks: {a: {run: '${{ item }}', foreach: 3}}", "tasks.a.foreach"),
    "needs by another name": ("tasks: {a: {run: x}, b: {depends_on: [a], run: '${{ tasks.a.stdout }}'}}", "tasks.b.depends_on"),
    "bad needs": ("tasks: {a: {run: x}, b: {needs: a, run: '${{ tasks.a.stdout }}'}}", "tasks.b.needs"),
    "needs through bad needs": (
        "tasks: {a: {run: x}, b: {needs: a, run: x}, c: {needs: [b], run: '${{ tasks.a.stdout }}'}}",
        "tasks.b.needs",
    ),
    "needs in the defaults": (
        "defaults: {needs: [a]}\ntasks: {a: {run: x}, b: {run: '${{ tasks.a.stdout }}'}}",
        "defaults.needs",
    ),
    "params by another name": ("vars: {q: 1}\ntasks: {a: {run: '${{ params.q }}'}}", "vars"),
    "a bad param": ("params: {q: {typ: list}}\ntasks: {a: {run: x, foreach: '${{ params.q }}'}}", "params.q.typ"),
    "bad pools": ("pools: 3\ntasks: {a: {run: x, pool: q}}", "pools"),
    "a bad mode": ("mode: proces\ntasks: {a: {target: 'm:f', cwd: x}}", "mode"),
    "a bad mode of a task": ("tasks: {a: {target: 'm:f', cwd: x, mode: proces}}", "tasks.a.mode"),
    "a bad mode of the defaults": ("defaults: {mode: proces}\ntasks: {a: {target: 'm:f', cwd: x}}", "defaults.mode"),
    "a bad mode of a pool": ("pools: {p: {mode: x, max_tasks_per_worker: 2}}\ntasks: {a: {run: x, pool: p}}", "pools.p.mode"),
    "a bad name": ("tasks: {a b: {run: x}, c: {run: \"${{ tasks['a b'].stdout }}\"}}", "tasks['a b']"),
    "secrets by another name": ("secret: {s: {env: S}}\ntasks: {a: {run: x, secrets: [s]}}", "secret"),
    "bad secrets": (
        "secrets: [s]\ntasks: {a: {run: x, secrets: [s], env: {A: '${{ secrets.s }}', B: '${{ secrets.t }}'}}}",
        "secrets",
    ),
    "a bad secret": ("secrets: {s: {fil: x}}\ntasks: {a: {run: x, secrets: [s], env: {A: '${{ secrets.s }}'}}}", "secrets.s.fil"),
    "a bad name of a secret": ("secrets: {a b: {env: S}}\ntasks: {a: {run: x, secrets: [s]}}", "secrets['a b']"),
    "a bad mode beside secrets": ("mode: proces\ntasks: {a: {target: 'm:f', resources: {nice: 1}}}", "mode"),
    "a bad retry beside at_most_once": ("defaults: {retry: x, at_most_once: true}\ntasks: {a: {run: x}}", "defaults.retry"),
    "text for a task": ("tasks: {a: echo hi, b: {needs: [a], target: 'm:f', args: ['${{ tasks.a.result }}']}}", "tasks.a"),
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_nothing_is_said_that_only_follows_from_another_mistake(name: str) -> None:
    text, path = FOLLOWING[name]
    assert [problem.path for problem in problems(text)] == [path]


ODD = [
    "{}",
    "{zz: 1}",
    "3.7",
    "-1",
    "[3]",
    "[{a: 1}]",
    "'${{ x }}'",
    "",
    "true",
    "{A-B: [1]}",
    "[[1]]",
    "{range: x}",
    "{p: {mode: x}}",
]
LEVELS: dict[str, type[spec.Model]] = {
    "tasks:\n  z: {run: x, needs: [gone]}\n  a: {zz: 1, %s: %s}": spec.Task,
    "defaults: {%s: %s}\ntasks:\n  z: {run: x, needs: [gone]}": spec.Defaults,
    "pools: {p: {%s: %s}}\ntasks:\n  z: {run: x, needs: [gone]}": spec.Pool,
    "params: {p: {%s: %s}}\ntasks:\n  z: {run: x, needs: [gone]}": spec.Param,
    "secrets: {p: {%s: %s}}\ntasks:\n  z: {run: x, needs: [gone], secrets: [p]}": spec.Secret,
    "concurrency: {%s: %s}\ntasks:\n  z: {run: x, needs: [gone]}": spec.Concurrency,
    "tasks:\n  z: {run: x, needs: [gone], resources: {%s: %s}}": spec.Resources,
    "tasks:\n  z: {run: x, needs: [gone], cache: {%s: %s}}": spec.Cache,
    "tasks:\n  z: {run: x, needs: [gone], retry: {%s: %s}}": spec.Retry,
    "limits: {p: {%s: %s}}\ntasks:\n  z: {run: x, needs: [gone], limits: [p]}": spec.Limit,
    "schedule: {%s: %s}\ntasks:\n  z: {run: x, needs: [gone]}": spec.Schedule,
    "finally: {f: {%s: %s}}\ntasks:\n  z: {run: x, needs: [gone]}": spec.Task,
    "%s: %s\ntasks:\n  z: {run: x, needs: [gone]}": spec.Job,
}


@pytest.mark.parametrize("level", LEVELS)
def test_no_value_of_any_key_hides_a_mistake_of_another_task(level: str) -> None:
    for key in spec.keys(LEVELS[level]):
        for value in ODD if key not in {"tasks", "include"} else ():
            messages = [problem.message.removesuffix(".") for problem in problems(level % (key, value))]
            assert "no task is called 'gone'" in messages, (key, value)


def test_very_many_mistakes_are_counted_off() -> None:
    found = problems("tasks:\n" + "".join(f"  t{n}: {{run: x, zzz: 1}}\n" for n in range(1000)))
    assert len(found) == 201
    assert found[-1].message == "there are more problems; mend these first"
