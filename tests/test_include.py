"""`include` and `finally`: what is merged and in which order, and every mistake at its own file, line and column."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobrunner import jobfile, spec
from jobrunner.errors import JobFileError, Problem
from jobrunner.jobfile import including, reader
from jobrunner.jobfile.document import Finding

Files = dict[str, str]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(files: Files) -> str:
    """Write the files; the first of them is the job file."""
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    return next(iter(files))


def job(files: Files) -> spec.Job:
    return jobfile.load(written(files))


def problems(files: Files) -> tuple[Problem, ...]:
    with pytest.raises(JobFileError) as caught:
        job(files)
    return caught.value.problems


def said(files: Files) -> list[str]:
    """Position, path, message and hint of every problem, without the source line."""
    return [str(problem).partition("\n")[0] for problem in problems(files)]


# --- what is merged ----------------------------------------------------------------------------------------------------------

MAIN = "include: [common.yaml]\ntasks: {main: {run: x}}\n"


def test_tasks_of_included_files_come_first_in_the_order_of_include() -> None:
    files = {
        "a.yaml": "include: [b.yaml, c.yaml]\ntasks: {a1: {run: x, needs: [d]}, a2: {run: x}}",
        "b.yaml": "tasks: {b: {run: x}}\ninclude: [d.yaml]",
        "c.yaml": "tasks: {c: {run: x, needs: [a2]}}",
        "d.yaml": "tasks: {d: {run: x}}",
    }
    assert list(job(files).tasks) == ["d", "b", "c", "a1", "a2"]


def test_the_including_file_wins_entry_by_entry_and_a_later_one_over_an_earlier_one() -> None:
    layer = "{table}: {{all: {one}, {own}: {one}, {pair}: {one}}}"
    files = {"a.yaml": "include: [b.yaml, c.yaml]\ntasks: {t: {run: x}}\n"}
    for name, own, pair, value in (("a", "a", "ac", 1), ("b", "b", "bc", 2), ("c", "c", "bc", 3)):
        text = "\n".join(layer.format(table=table, one=value, own=own, pair=pair) for table in ("env", "params", "limits"))
        files[f"{name}.yaml"] = files.get(f"{name}.yaml", "") + text
    found = job(files)
    expected = {"all": 1, "a": 1, "ac": 1, "b": 2, "bc": 3, "c": 3}
    assert found.params == expected
    assert found.limits == expected
    assert found.env == {key: str(value) for key, value in expected.items()}


def test_a_pool_of_the_including_file_replaces_the_whole_pool() -> None:
    files = {"a.yaml": MAIN + "pools: {p: {workers: 2}}", "common.yaml": "pools: {p: {mode: process}, q: {workers: 3}}"}
    found = job(files).pools
    assert (found["p"].mode, found["p"].workers, found["q"].workers) == (None, 2, 3)


def test_defaults_are_merged_key_by_key_and_their_env_too() -> None:
    files = {
        "a.yaml": MAIN + "defaults: {retry: 1, env: {A: 1.10, B: x}}",
        "common.yaml": "defaults: {retry: 5, timeout: 9s, env: {A: 2, C: 0x1F}}\ntasks: {other: {run: x}}",
    }
    for task in job(files).tasks.values():
        assert (task.retry, task.timeout, task.env) == (1, 9.0, {"A": "1.10", "B": "x", "C": "0x1F"})


def test_env_of_included_tasks_is_taken_as_written() -> None:
    files = {"a.yaml": MAIN, "common.yaml": "env: {A: 1.10}\ntasks: {t: {run: x, env: {B: no, C: 0755}}}"}
    found = job(files)
    assert (found.env, found.tasks["t"].env) == ({"A": "1.10"}, {"B": "no", "C": "0755"})


def test_all_tasks_may_be_included() -> None:
    assert list(job({"a.yaml": "include: [common.yaml]", "common.yaml": "tasks: {t: {run: x}}"}).tasks) == ["t"]


def test_no_file_has_to_be_included() -> None:
    assert jobfile.parse(b"include:\ntasks: {a: {run: x}}", "a.yaml").include is None


def test_paths_count_from_the_file_that_includes_and_may_go_through_links() -> None:
    files = {
        "jobs/a.yaml": "include: [../shared/b.yaml]\ntasks: {a: {run: x}}",
        "shared/b.yaml": "include: [more/c.yaml]\ntasks: {b: {run: x}}",
        "shared/more/c.yaml": "tasks: {c: {run: x}}",
    }
    assert list(job(files).tasks) == ["c", "b", "a"]
    os.symlink("shared/b.yaml", "link.yaml")
    absolute = {"jobs/d.yaml": f"include: [../link.yaml, {Path('shared/b.yaml').resolve()}]\ntasks: {{a: {{run: x}}}}"}
    with pytest.raises(JobFileError, match=r"^link.yaml:1:11: include\[0\]: more/c.yaml: there is no such file"):
        job(absolute)


def test_a_file_that_is_included_by_two_ways_is_read_once() -> None:
    files = {
        "a.yaml": "include: [b.yaml, c.yaml, ./d.yaml]\ntasks: {a: {run: x}}",
        "b.yaml": "include: [d.yaml]\nenv: {D: b}",
        "c.yaml": "include: [sub/../d.yaml]",
        "d.yaml": "tasks: {d: {run: x}}\nenv: {D: d}",
    }
    assert list(job(files).tasks) == ["d", "a"]
    assert job(files).env == {"D": "b"}
    assert [each.path.name for each in jobfile.read("a.yaml").includes] == ["b.yaml", "d.yaml", "c.yaml"]


def test_read_keeps_the_bytes_of_included_files_and_their_absolute_paths(tmp_path: Path) -> None:
    found = jobfile.read(written({"jobs/a.yaml": "include: [../common.yaml]", "common.yaml": "tasks: {t: {run: x}} # é\n"}))
    assert found.includes == (jobfile.Included(path=tmp_path / "common.yaml", source="tasks: {t: {run: x}} # é\n".encode()),)
    assert jobfile.read(written({"b.yaml": "tasks: {t: {run: x}}"})).includes == ()


# --- what is wrong, and where ------------------------------------------------------------------------------------------------

MAY_HOLD = "It may hold include, defaults, env, params, pools, limits and tasks."
WRONG: dict[str, tuple[Files, list[str]]] = {
    "text in place of a list": (
        {"a.yaml": "include: common.yaml\ntasks: {a: {run: x}}", "common.yaml": ""},
        ["a.yaml:1:10: include: expected a list, found text. Write [common.yaml]."],
    ),
    "text in place of a list in an included file": (
        {"a.yaml": MAIN, "common.yaml": "\ninclude: b.yaml"},
        ["common.yaml:2:10: include: expected a list, found text. Write [b.yaml]."],
    ),
    "entries that are no paths": (
        {"a.yaml": 'include:\n- 3\n- ""\n- "a\\0b"\n- ${{ params.x }}\ntasks: {a: {run: x}}'},
        [
            'a.yaml:2:3: include[0]: expected text, found a number. Write "3".',
            "a.yaml:3:3: include[1]: expected text, found none",
            "a.yaml:4:3: include[2]: a file name holds no NUL character",
            "a.yaml:5:3: include[3]: no ${{ }} is evaluated here. Write the path itself.",
        ],
    ),
    "no entry at all": (
        {"a.yaml": "include: []\ntasks: {a: {run: x}}"},
        ["a.yaml:1:10: include: expected at least one entry, found none"],
    ),
    "a file that is not there": (
        {"jobs/a.yaml": "tasks:\n  a: {run: x, needs: [t]}\ninclude:\n  - common.yaml\n"},
        ["jobs/a.yaml:4:5: include[0]: jobs/common.yaml: there is no such file"],
    ),
    "a file that is not there, for all tasks": (
        {"a.yaml": "include: [b.yaml]\nname: a b"},
        [
            "a.yaml:1:11: include[0]: b.yaml: there is no such file",
            (
                "a.yaml:2:7: name: 'a b' is not a job name: letters, digits, '_', '.' and '-', at most 100, "
                "the first a letter, a digit or '_'"
            ),
        ],
    ),
    "a file that is not there, beside mistakes that do not follow from it": (
        {
            "a.yaml": "include: [b.yaml]\ntasks:\n  a: {run: 'x ${{ params.p }} ${{ itme }}', needs: [t], pool: p}\n"
            "  b: {timeout: -1, needs: [a], run: 'x ${{ tasks.t.stdout }} ${{ tasks.c.stdout }}'}\n  c: {run: x}\n"
        },
        [
            "a.yaml:1:11: include[0]: b.yaml: there is no such file",
            "a.yaml:3:35: tasks.a.run: the name 'itme' is not known here. Did you mean 'item'?",
            "a.yaml:4:16: tasks.b.timeout: a duration is between 0 and ten years",
        ],
    ),
    "a directory": (
        {"a.yaml": "include: [d, sub/b.yaml]\ntasks: {a: {run: x}}", "d/x": "", "sub/b.yaml": "include: [.]"},
        [
            "a.yaml:1:11: include[0]: d: this is a directory, not a job file",
            "sub/b.yaml:1:11: include[0]: sub: this is a directory, not a job file",
        ],
    ),
    "a file that includes itself": (
        {"a.yaml": "tasks: {a: {run: x}}\ninclude: [./a.yaml]"},
        ["a.yaml:2:11: include[0]: a file cannot include itself"],
    ),
    "a circle": (
        {
            "a.yaml": "include: [b.yaml]\ntasks: {a: {run: x}}",
            "b.yaml": "include: [c.yaml]",
            "c.yaml": "env: {}\ninclude: [d.yaml, b.yaml]",
            "d.yaml": "env: {}",
        },
        ["c.yaml:2:19: include[1]: files include each other in a circle: b.yaml includes c.yaml, c.yaml includes b.yaml"],
    ),
    "keys of a job": (
        {"a.yaml": MAIN, "common.yaml": "name: x\nfinally: {t: {run: x}}\ntask: {t: {run: x}}\nzzz: 1\nfail_fast: true"},
        [
            f"common.yaml:1:1: name: this cannot stand in an included file. {MAY_HOLD}",
            f"common.yaml:2:1: finally: this cannot stand in an included file. {MAY_HOLD}",
            "common.yaml:3:1: task: unknown key. Did you mean 'tasks'?",
            f"common.yaml:4:1: zzz: unknown key in an included file. {MAY_HOLD}",
            f"common.yaml:5:1: fail_fast: this cannot stand in an included file. {MAY_HOLD}",
        ],
    ),
    "a key of a job, beside a mistake of a task": (
        {"a.yaml": MAIN, "common.yaml": "name: x\ntasks: {t: {run: x, needs: [gone]}}"},
        [
            f"common.yaml:1:1: name: this cannot stand in an included file. {MAY_HOLD}",
            "common.yaml:2:29: tasks.t.needs[0]: no task is called 'gone'. The only other task is main.",
        ],
    ),
    "an empty file": ({"a.yaml": MAIN, "common.yaml": "# later\n"}, [f"common.yaml:1:1: the file is empty. {MAY_HOLD}"]),
    "a list": (
        {"a.yaml": MAIN, "common.yaml": "\n- a"},
        [f"common.yaml:2:1: an included file is a map; this is a list. {MAY_HOLD}"],
    ),
    "tables that are no maps": (
        {"a.yaml": MAIN, "common.yaml": "env: 3\ntasks:\n- name: t\n  run: x\nlimits:\n"},
        [
            "common.yaml:1:6: env: expected a map (key: value), found a number",
            "common.yaml:3:1: tasks: expected a map (key: value), found a list. Write a map, each task under its name: t: {…}.",
            "common.yaml:5:8: limits: expected a map (key: value), found nothing. Write limits: {name: 4}.",
        ],
    ),
    "bad YAML": (
        {"a.yaml": MAIN + "zzz: 1", "common.yaml": "tasks:\n  t: {run: 'x}\n"},
        ["a.yaml:3:1: zzz: unknown key", "common.yaml:2:12: this quote is never closed"],
    ),
    "duplicate keys and tags": (
        {"a.yaml": MAIN, "common.yaml": "tasks:\n  t: {run: x}\n  t: {run: y}\n  u: {run: !!str x}"},
        [
            "common.yaml:3:3: tasks.t: duplicate key in line 3; 't' stands already in line 2",
            "common.yaml:4:12: tasks.u.run: tags are not allowed; leave it out (and quote the value if it is to be text)",
        ],
    ),
    "an alias of another file": (
        {"a.yaml": "tasks: {a: &a {run: x}}\ninclude: [b.yaml]", "b.yaml": "tasks: {b: *a}"},
        ["b.yaml:1:12: tasks.b: nothing is anchored as '&a' above this line"],
    ),
    "deep nesting": (
        {"a.yaml": MAIN, "common.yaml": "{a: " * 100},
        [f"common.yaml:1:257: {'.'.join('a' * 64)}: lists and maps are nested more than 64 deep"],
    ),
    "what the models find": (
        {
            "a.yaml": MAIN + "params: {p: {typ: int}}",
            "common.yaml": "params: {q: {typ: int}}\nenv: {A B: 1}\ndefaults: {env: {C D: 1}, retry: x}\n"
            "tasks:\n  t: {run: x, foreech: [1]}\n  main2: {}\n",
        },
        [
            "a.yaml:3:14: params.p.typ: unknown key. Did you mean 'type'?",
            "common.yaml:1:14: params.q.typ: unknown key. Did you mean 'type'?",
            (
                "common.yaml:2:7: env['A B']: 'A B' is not the name of an environment variable: letters, digits "
                "and '_', the first not a digit"
            ),
            (
                "common.yaml:3:18: defaults.env['C D']: 'C D' is not the name of an environment variable: letters, digits "
                "and '_', the first not a digit"
            ),
            (
                "common.yaml:3:34: defaults.retry: retry is a whole number of re-runs, or {max, delay, backoff, max_delay, "
                "jitter, exit_codes, exceptions}"
            ),
            "common.yaml:5:15: tasks.t.foreech: unknown key. Did you mean 'foreach'?",
            (
                "common.yaml:6:3: tasks.main2: a task has exactly one of target, run and argv; this one has none of them. "
                "Write one of target: module:function, run: command, argv: [command, argument]."
            ),
        ],
    ),
    "what the checks find": (
        {
            "a.yaml": "include: [b.yaml, c.yaml]\ntasks:\n  main: {run: 'x ${{ params.q }}', needs: [b, nope]}\n",
            "b.yaml": "tasks:\n  b: {run: x}\n\n\n\n\n  bb: {run: x, needs: [b, gone]}\n",
            "c.yaml": "params: {p: 1}\ndefaults: {pool: cpu}\ntasks:\n  c:\n    run: |\n      echo ${{ params.p }} ${{ itme }}\n",
        },
        [
            "a.yaml:3:22: tasks.main.run: the job has no parameter 'q'",
            "a.yaml:3:47: tasks.main.needs[1]: no task is called 'nope'. The other tasks are b, bb, c.",
            "b.yaml:7:27: tasks.bb.needs[1]: no task is called 'gone'. The other tasks are b, c, main.",
            "c.yaml:2:18: defaults.pool: no pool is called 'cpu'. The job has no pools.",
            "c.yaml:6:32: tasks.c.run: the name 'itme' is not known here. Did you mean 'item'?",
        ],
    ),
    "what the checks find beside what the models find": (
        {"a.yaml": MAIN + "zzz: 1", "common.yaml": "tasks:\n  t: {run: x, needs: [gone]}"},
        [
            "a.yaml:3:1: zzz: unknown key",
            "common.yaml:2:23: tasks.t.needs[0]: no task is called 'gone'. The only other task is main.",
        ],
    ),
    "a task of two files": (
        {
            "a.yaml": "include: [b.yaml, c.yaml]\ntasks:\n  a: {run: x}\n  t: {run: x}\n",
            "b.yaml": "tasks:\n  t: {run: x}\n",
            "c.yaml": "tasks:\n\n  t: {run: x}\n  a: {run: x}\n",
        },
        [
            "a.yaml:3:3: tasks.a: the task 'a' stands already in c.yaml:4. Rename one of them.",
            "a.yaml:4:3: tasks.t: the task 't' stands already in c.yaml:3. Rename one of them.",
            "c.yaml:3:3: tasks.t: the task 't' stands already in b.yaml:2. Rename one of them.",
        ],
    ),
    "a final task called as an included one": (
        {"a.yaml": MAIN + "finally:\n  t: {run: x}\n", "common.yaml": "\ntasks: {t: {run: x}}"},
        ["a.yaml:4:3: finally.t: 't' stands already in tasks, common.yaml:2. Rename one of them."],
    ),
    "a circle of needs through two files": (
        {"a.yaml": "include: [b.yaml]\ntasks:\n  a: {run: x, needs: [b]}", "b.yaml": "tasks: {b: {run: x, needs: [a]}}"},
        ["b.yaml:1:29: tasks.b.needs[0]: tasks need each other in a circle: b needs a (b.yaml:1), a needs b (a.yaml:3)"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_has_its_own_file_line_and_column(name: str) -> None:
    files, lines = WRONG[name]
    assert said(files) == lines


def test_a_problem_shows_the_line_of_its_own_file() -> None:
    (problem,) = problems({"a.yaml": MAIN, "common.yaml": "tasks:\n  t:\n    run: x\n    foreech: [1]\n"})
    assert str(problem) == (
        "common.yaml:4:5: tasks.t.foreech: unknown key. Did you mean 'foreach'?\n    4 |     foreech: [1]\n      |     ^^^^^^^"
    )


def test_what_cannot_be_read_is_told_at_its_entry_and_never_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo("fifo")
    Path("large").write_bytes(b"#" * 1001)
    monkeypatch.setattr(reader, "LARGEST", 1000)
    files = ["fifo", "/dev/zero", "large", "a.yaml/x", "x" * 300]
    found = said({"a.yaml": "include: [" + ", ".join(files) + "]"})
    messages = [line.rpartition(": the")[2] if ": the" in line else line.rpartition(": ")[2] for line in found]
    assert [line.partition(": ")[0] for line in found] == [f"a.yaml:1:{column}" for column in (11, 17, 28, 35, 45)]
    assert messages == [
        "this is not a regular file",
        "this is not a regular file",
        " file is larger than 64 MiB; a job file is never that large",
        " file cannot be read: Not a directory",
        " file cannot be read: File name too long",
    ]


def test_a_bomb_in_an_included_file_is_refused_there() -> None:
    rows = "".join(f"  k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 10)}]\n" for n in range(1, 9))
    (line,) = said({"a.yaml": MAIN, "common.yaml": f"params:\n  k0: &k0 [a, a]\n{rows}tasks: {{t: {{run: x}}}}"})
    assert line.startswith("common.yaml:")
    assert "aliases and merge keys expand to more than" in line


@pytest.mark.parametrize("row", ["t{}: {{run: x}}", "zz{}: 1"])
def test_very_many_mistakes_in_included_files_are_counted_off(row: str) -> None:
    rows = "".join(f"  {row.format(n)}\n" for n in range(20_000))
    strangers = rows.replace("  zz", "zz") if row.startswith("zz") else f"tasks:\n{rows}"
    found = problems({"a.yaml": "include: [b.yaml, c.yaml]", "b.yaml": strangers, "c.yaml": strangers})
    assert len(found) == 202
    assert found[-1].message == "there are more problems; mend these first"


def test_the_name_of_an_included_file_is_shown_without_what_a_terminal_obeys() -> None:
    Path("\x1b[31m.yaml").write_text("zzz: 1")
    lines = said({"a.yaml": 'include: ["\\e[31m.yaml", "\\e[32m.yaml"]\ntasks: {a: {run: x}}'})
    assert lines == [
        "a.yaml:1:26: include[1]: \N{REPLACEMENT CHARACTER}[32m.yaml: there is no such file",
        f"\N{REPLACEMENT CHARACTER}[31m.yaml:1:1: zzz: unknown key in an included file. {MAY_HOLD}",
    ]


def test_included_files_are_bounded_in_number_and_together_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(including, "MOST_FILES", 3)
    files = {f"f{n}.yaml": f"include: [f{n + 1}.yaml]" for n in range(6)}
    assert said({**files, "f6.yaml": "tasks: {t: {run: x}}"}) == ["f3.yaml:1:11: include[0]: more than 3 files are included"]
    monkeypatch.setattr(reader, "LARGEST", 60)
    small = {"a.yaml": "include: [b.yaml, c.yaml]", "b.yaml": "tasks: {b: {run: x}}".ljust(40), "c.yaml": "env: {A: 1}".ljust(40)}
    assert said(small) == ["a.yaml:1:19: include[1]: the included files are larger than 0 MiB together"]


def test_findings_about_a_job_that_was_read_are_placed_in_the_files_as_they_were() -> None:
    files = {
        "jobs/a.yaml": "include: [b.yaml]\nfinally:\n  z: {run: x}\ntasks:\n  a: {run: x}",
        "jobs/b.yaml": "defaults:\n  cwd: x\ntasks:\n  b: {run: x}",
    }
    file = jobfile.read(written(files))
    Path("jobs/b.yaml").unlink()
    paths = [("tasks", "b", "run"), ("tasks", "z", "run"), ("tasks", "z", "cwd"), ("tasks", "a", "run")]
    found = jobfile.placed(file, [Finding(path=path, message=f"m{number}") for number, path in enumerate(paths)])
    assert [str(problem).partition("\n")[0] for problem in found] == [
        "jobs/a.yaml:3:12: finally.z.run: m1",
        "jobs/a.yaml:5:12: tasks.a.run: m3",
        "jobs/b.yaml:2:8: defaults.cwd: m2",
        "jobs/b.yaml:4:12: tasks.b.run: m0",
    ]


# --- finally -----------------------------------------------------------------------------------------------------------------

FINALS = "tasks:\n  a: {run: x}\nfinally:\n  z: {run: x, env: {V: 1.10}, %s}\n"


def test_final_tasks_stand_behind_the_others_as_the_same_objects_with_the_defaults() -> None:
    text = (
        "finally: {z: {run: x, env: {V: 1.10}}, y: {run: x, retry: 0}}\ndefaults: {retry: 2, env: {W: no}}\ntasks: {a: {run: x}}"
    )
    found = jobfile.parse(text.encode(), "a.yaml")
    assert list(found.tasks) == ["a", "z", "y"]
    assert [name for name in found.tasks if name in found.finals] == ["z", "y"]
    assert all(found.tasks[name] is task for name, task in found.finals.items())
    assert [(task.retry, task.env) for task in found.finals.values()] == [(2, {"W": "no", "V": "1.10"}), (0, {"W": "no"})]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (FINALS % "pool: p", ["a.yaml:4:37: finally.z.pool: no pool is called 'p'. The job has no pools."]),
        (
            FINALS % "cwd: '${{ param }}'",
            ["a.yaml:4:41: finally.z.cwd: the name 'param' is not known here. Write params.NAME."],
        ),
        (FINALS % "foreech: [1]", ["a.yaml:4:31: finally.z.foreech: unknown key. Did you mean 'foreach'?"]),
        (
            FINALS % "pool: p" + "zzz: 1",
            ["a.yaml:4:37: finally.z.pool: no pool is called 'p'. The job has no pools.", "a.yaml:5:1: zzz: unknown key"],
        ),
        (
            "defaults: {cwd: '${{ param }}'}\nfinally: {z: {run: x}}\ntasks: {a: {run: x, cwd: y}}",
            ["a.yaml:1:22: defaults.cwd: the name 'param' is not known here. Write params.NAME."],
        ),
        (
            "finally:\n  a: {run: x}\n  z: {run: x}\ntasks:\n  a: {run: x}\n",
            ["a.yaml:2:3: finally.a: 'a' stands already in tasks, line 5. Rename one of them."],
        ),
        (
            "finally:\n  a: {run: x}\ntasks:\n  a: {run: x, zzz: 1}\n",
            [
                "a.yaml:2:3: finally.a: 'a' stands already in tasks, line 4. Rename one of them.",
                "a.yaml:4:15: tasks.a.zzz: unknown key",
            ],
        ),
        (
            "finally: [z]\ntasks: {a: {run: x}}",
            [
                (
                    "a.yaml:1:10: finally: expected a map (key: value), found a list. "
                    "Write a map, each task under its name: name: {…}."
                )
            ],
        ),
    ],
)
def test_a_mistake_of_a_final_task_is_told_at_finally(text: str, lines: list[str]) -> None:
    assert said({"a.yaml": text}) == lines


# --- found by chance ---------------------------------------------------------------------------------------------------------

BASE: Files = {
    "a.yaml": "include: [b.yaml, d/c.yaml]\ndefaults: {retry: 1, env: {A: 1.10}}\ntasks:\n  a: {run: 'x ${{ params.p }}', "
    "needs: [b, c]}\nfinally:\n  z: {run: x, if: failure()}\n",
    "b.yaml": "include: [d/c.yaml]\nparams: {p: 1}\nenv: &e {B: 2}\ntasks:\n  b: {run: x, env: *e}\n",
    "d/c.yaml": "defaults: {timeout: 5s}\npools: {q: {mode: process_pool}}\ntasks:\n  c: {target: 'm:f', pool: q, "
    "args: ['${{ params.p }}']}\n",
}
PIECES = [
    *["include: ", "[a.yaml]", "[d/c.yaml, b.yaml]", "tasks:", "\n", "\n  ", "  ", "- ", ": ", "{", "}", "[", "]", "'", "<<: *e"],
    *["a: {run: x}", "z", "name: x", "env: 3", "finally:", "null", "${{ ", " }}", "\t", "\0", "needs: [z]", "&e ", "*e", "#"],
]
Change = tuple[int, int, int, str]
CHANGES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 200), st.sampled_from([0, 1, 2, 8, 30]), st.sampled_from(PIECES)), max_size=4
)


def test_the_files_that_are_changed_are_valid() -> None:
    assert list(job(BASE).tasks) == ["c", "b", "a", "z"]


def changed(changes: list[Change]) -> Files:
    files = dict(BASE)
    for number, start, length, piece in changes:
        name = list(BASE)[number]
        files[name] = files[name][:start] + piece + files[name][start + length :]
    return files


@settings(max_examples=600, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(CHANGES)
@example([])
@example([(2, 0, 0, "include: [../a.yaml]\n")])
def test_any_change_of_files_that_include_each_other_is_a_job_or_problems_in_file_order(changes: list[Change]) -> None:
    files = changed(changes)
    try:
        assert isinstance(job(files), spec.Job)
    except JobFileError as error:
        found = error.problems
        places = [(list(files).index(problem.file), problem.line, problem.column) for problem in found]
        read_in_order = [index for index, _ in dict.fromkeys((place[0], 0) for place in places)]
        assert places == sorted(places, key=lambda place: (read_in_order.index(place[0]), place))
        for problem in found:
            lines = files[problem.file].split("\n")
            assert 1 <= problem.line <= len(lines)
            assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
            assert all(line.isprintable() for line in str(problem).split("\n"))
