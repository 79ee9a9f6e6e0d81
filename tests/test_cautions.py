"""What is valid and probably not meant so: each caution at its exact place, and none where all is well."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.errors import Problem
from jobrunner.jobfile import parse, placed, read
from jobrunner.preflight import cautions, shell, surroundings

ROOT = Path(__file__).resolve().parent.parent


def told(source: str, folder: Path) -> list[Problem]:
    """What is said about a job file that stands in a folder."""
    path = folder / "job.yaml"
    path.write_text(source, encoding="utf-8")
    file = read(path)
    return list(placed(file, cautions.find(file.job, folder, file.source)))


def marked(problem: Problem) -> str:
    return problem.source[problem.column - 1 :][: problem.length]


def heads(source: str, folder: Path) -> list[tuple[int, str, str]]:
    """Line, what is marked there, and the message."""
    return [(each.line, marked(each), each.message.removesuffix(".")) for each in told(source, folder)]


def of_run(text: str, folder: Path) -> list[tuple[str, str]]:
    """Of a task that runs a text: what is marked on its first line, or on the one where it stands, and the message."""
    rows = "".join(f"      {row}\n" for row in text.split("\n"))
    return [head[1:] for head in heads(f"tasks:\n  a:\n    run: |\n{rows}", folder)]


# --- no false alarms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("jobs/*.yaml"), *ROOT.glob("jobs/examples/*.yaml")]), ids=lambda path: path.stem
)
def test_the_jobs_of_the_project_are_as_they_are_meant(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/bin/{name}" if name == "sh" else name)  # pg_dump is not everywhere
    file = read(path)
    assert placed(file, cautions.find(file.job, path.parent, file.source)) == ()


@pytest.mark.parametrize(
    "text",
    [
        "echo '[[ x ]] {1..3} $RANDOM <(x) &> a=(1) function f'",
        'echo "[[ x ]] {1..3} <(x) &> a=(1) function f"',
        "echo done # if [[ x ]]; then it's",
        "cat <<END\n[[ $RANDOM ]] it's {a,b}\nEND\necho x",
        "cat <<-'END' | wc -l\n\tit's <(x)\n\tEND",
        'test "$(echo "a b" | wc -l)" = 1 || echo "it\'s"',
        "case $1 in\n  a) echo one;;\n  *) echo two;;\nesac",
        "find . -name '*.tmp' -exec rm -f {} +",
        "ls 2>&1 | sort -u > out 2>> err",
        "x=$(( (1 + 2) * 3 )); echo ${x:-3} ${x#a} ${x%.*} ${#x} ${x:=y}",
        "if test -f a; then echo a; elif test -f b; then echo b; else echo c; fi",
        "for f in *; do while read -r x; do if test $x; then echo $x; fi; done < $f; done",
        "f() { echo x; }\nf\n( cd /tmp && ls )\n{ ls; } > out",
        "IFS= read -r RANDOM < x; echo $RANDOM",
        "SECONDS=3; echo $SECONDS ${SECONDS}",
        "docker ps --format '{{.ID}}' | wc -l",
        "rm x || true\nls",
        "if true; then\n  exit 0\nfi\nls",
        "ls\nexit 0",
        "echo failed | mail -s failed root",
        "ls | grep x | sort",
        "ssh host 'source x; [[ y ]]'",
        "bash -c '[[ x ]]'",
        "git show HEAD@{1} -- a.c",
        "echo a; cd /tmp && ls",
        "test a = b && [ a != b ] || :;ls",
        "printf '%s' 'a=(b)' | wc",
        "echo \\$RANDOM '$UID'",
        "curl -s x | jq '.a[] | {a, b}' | awk '{print $1}'",
        "echo it\\'s fine",
        'echo "a\\"b" \'c\'"d"',
    ],
)
def test_what_sh_understands_is_left_alone(text: str, tmp_path: Path) -> None:
    assert of_run(text, tmp_path) == []


def test_without_a_folder_nothing_of_the_machine_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((os, "listdir"), (os, "scandir"), (shutil, "which")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it looked"))
    job = parse(b"tasks: {a: {run: 'no-such-thing x', cache: {inputs: [none]}}, b: {run: 'echo \"'}}", "job.yaml")
    assert list(cautions.find(job)) == []


# --- what only bash understands ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("if [[ -f x ]]; then ls; fi", "[[", "sh has no [[ ]]"),
        ("ls && [[ -f x ]]", "[[", "sh has no [[ ]]"),
        ('echo "$([[ -f x ]] && echo y)"', "[[", "sh has no [[ ]]"),
        ("ls &> out", "&>", "sh has no &>: it reads an & and a >"),
        ("ls &>> out", "&>>", "sh has no &>>: it reads an & and a >"),
        ("ls >& out", ">&", "sh has no >&: it reads an & and a >"),
        ("ls |& sort", "|&", "sh has no |&"),
        ("touch x{1..3}", "{1..3}", "sh has no {1..3}"),
        ("rm -f *.{o,a}", "{o,a}", "sh has no {o,a}"),
        ("diff <(ls) x", "<(", "sh has no <( )"),
        ("ls > >(sort)", ">(", "sh has no >( )"),
        ("wc <<< word", "<<<", "sh has no <<<"),
        ("echo $'a\\n'", "$'", "sh has no $' quotes"),
        ("(( x > 1 )) && ls", "(( x > 1 ))", "sh has no (( ))"),
        ("for ((i = 0; i < 3; i++)); do ls; done", "for ((", "sh has no (( ))"),
        ("echo -e 'a\\n'; ls", "-e", "echo of sh has no -e"),
        ("echo -ne 'a\\n'; ls", "-ne", "echo of sh has no -ne"),
        ("x=(a b); ls", "x=(", "sh has no arrays"),
        ('echo "${x[@]}"', "${x[", "sh has no arrays"),
        ("function f { ls; }; f", "function", "sh has no function NAME"),
        ("source x.sh", "source", "sh has no source"),
        ("set -euo pipefail; ls", "-euo pipefail", "sh has no set -o pipefail"),
        ("set -e -o pipefail; ls", "-e -o pipefail", "sh has no set -o pipefail"),
        ("declare -i x=1; ls", "declare", "sh has no declare"),
        ("ls | while read -d x y; do ls; done", "-d", "read of sh has no -d"),
        ('if [ "$1" == x ]; then ls; fi', "==", "[ of sh has no =="),
        ("trap 'ls x' ERR; ls", "ERR", "trap of sh has no ERR"),
        ("echo ${x//a/b}", "${x//a/b}", "sh has no ${x//a/b}"),
        ("echo ${x:0:3}", "${x:0:3}", "sh has no ${x:0:3}"),
        ('echo "${x^^}"', "${x^^}", "sh has no ${x^^}"),
        ("echo ${!x}", "${!x}", "sh has no ${!x}"),
        ("echo $RANDOM", "RANDOM", "sh has no $RANDOM: it is empty"),
        ('echo "${BASH_SOURCE}"', "BASH_SOURCE", "sh has no $BASH_SOURCE: it is empty"),
        ("#!/bin/bash\nif [[ x ]]; then ls; fi", "#!/bin/bash", "sh runs this text: #!/bin/bash is a comment"),
        ("#!/usr/bin/env python3\nprint('x", "#!/usr/bin/env python3", "sh runs this text: #!/usr/bin/env python3 is a comment"),
    ],
)
def test_what_only_bash_understands_is_told_where_it_stands(text: str, at: str, message: str, tmp_path: Path) -> None:
    assert of_run(text, tmp_path) == [(at, message)]


def test_bash_may_run_what_bash_understands(tmp_path: Path) -> None:
    script = "[[ -f x ]] && a=(1) || echo {1..3} $RANDOM | tee x"
    assert heads(f"tasks: {{a: {{argv: [bash, -euo, pipefail, -c, '{script}']}}}}", tmp_path) == []
    assert [head[2] for head in heads("tasks: {a: {argv: [/bin/sh, -ec, '[[ -f x ]]']}}", tmp_path)] == ["sh has no [[ ]]"]


def test_a_program_that_needs_no_shell_is_not_the_shells_own(tmp_path: Path) -> None:
    assert heads("tasks: {a: {run: echo -e x}, b: {argv: [echo, '[[', '{1..3}', -e]}}", tmp_path) == []


def test_variables_that_the_job_sets_are_there(tmp_path: Path) -> None:
    job = "env: {SECONDS: 1}\ntasks: {a: {run: 'echo $SECONDS$UID', env: {UID: x}}}"
    assert heads(job, tmp_path) == []
    assert heads("env_file: vars\ntasks: {a: {run: 'echo $UID;'}}", tmp_path) == []


# --- sh -n, programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at", "message"),
    [
        ("ls\necho \"it's\nls", '"', 'the " is never closed'),
        ("echo 'a\nls", "'", "the ' is never closed"),
        ("ls\nif true; then\n  ls", "if", "if is never closed"),
        ("for x in a; do if true; then ls; fi", "do", "do is never closed"),
        ("case x in\na) ls;;\n", "case", "case is never closed"),
    ],
)
def test_a_text_that_sh_cannot_read_is_told_where_its_open_end_begins(text: str, at: str, message: str, tmp_path: Path) -> None:
    assert of_run(text, tmp_path) == [(at, message)]


@pytest.mark.parametrize(
    ("text", "line"),
    [("ls\nfi\nls", 5), ("ls\nls | | sort", 5), ("ls ; ; ls", 4), ("ls\nfor x in a; echo; done", 5), ("( ls", 4)],
)
def test_what_else_sh_says_is_told_at_its_line(text: str, line: int, tmp_path: Path) -> None:
    rows = "".join(f"      {row}\n" for row in text.split("\n"))
    (found,) = told(f"tasks:\n  a:\n    run: |\n{rows}", tmp_path)
    assert (found.line, found.message.split(":")[0]) == (line, "sh cannot read this")


def test_values_are_a_word_and_raw_may_be_anything(tmp_path: Path) -> None:
    fine = "params: {x: 1}\ntasks: {a: {run: 'for f in ${{ params.x }}; do echo $((${{ params.x }} + 1)); done'}}"
    assert heads(fine, tmp_path) == []
    raw = "params: {x: 1}\ntasks: {a: {run: 'if ${{ raw(params.x) }}'}}"
    assert [head[2] for head in heads(raw, tmp_path)] == ["raw() hands text to the shell as it is"]


def test_nothing_of_a_text_runs(tmp_path: Path) -> None:
    of_run(f"touch {tmp_path}/a; $(touch {tmp_path}/b); . {tmp_path}/c\n`touch {tmp_path}/d`", tmp_path)
    fake = tmp_path / "sh"
    fake.write_text(f"#!/bin/sh\ntouch {tmp_path}/e\n")
    fake.chmod(0o755)
    heads("tasks: {a: {argv: [./sh, -c, 'ls x']}}", tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["job.yaml", "sh"]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of PATH, with `curl` and `list-files` in it."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("curl", "list-files", "sh"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    surroundings._programs.cache_clear()
    return folder


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("run: curll -s x", "no such command: curll. Did you mean 'curl'?"),
        ("argv: [curl-, x]", "no such command: curl-. Did you mean 'curl'?"),
        ("run: list-file x", "no such command: list-file. Did you mean 'list-files'?"),
        ("run: here.sh x", "no such command: here.sh. Write ./here.sh for the file that stands there."),
        ("run: ./her.sh x", "no such command: ./her.sh. Did you mean './here.sh'?"),
        ("run: ./data.csv x", "./data.csv is not executable. Run chmod +x ./data.csv."),
        ("run: [curl x, curll x]", "no such command: curll. Did you mean 'curl'?"),
        ("{run: ./here.sh, cwd: inner}", "no such command: ./here.sh"),
        ("run: curl x", ""),
        ("run: ./here.sh x", ""),
        ("{run: ../here.sh, cwd: inner}", ""),
        ("{run: ./her.sh, cwd: '${{ run.dir }}'}", ""),
        ("run: '${{ run.id }} x'", ""),
        ("run: '${{ run.id }}curll x'", ""),
        ("{run: curll x, env: {PATH: /opt}}", ""),
        ("run: nothing-here x | sort", ""),
        ("argv: ['${{ run.dir }}/x']", ""),
        ("{run: ./made.sh, needs: [other]}", ""),
    ],
)
def test_a_program_that_is_not_here_is_told(task: str, said: str, programs: Path, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "here.sh").write_text("#!/bin/sh\n")
    (tmp_path / "here.sh").chmod(0o755)
    (tmp_path / "data.csv").write_text("x")
    source = (
        f"tasks:\n  other: {{target: 'x:y'}}\n  a:\n    {task}\n"
        if task[0] != "{"
        else f"tasks: {{other: {{target: 'x:y'}}, a: {task}}}"
    )
    assert [f"{each.message} {each.hint}".strip() for each in told(source, tmp_path)] == [said] * bool(said)


def test_a_path_of_an_env_file_says_what_is_here(programs: Path, tmp_path: Path) -> None:
    job = "env_file: vars\ntasks: {a: {run: curll x}}"
    (tmp_path / "vars").write_text("PATHS=1\n")
    assert len(heads(job, tmp_path)) == 1
    (tmp_path / "vars").write_text("A=1\nexport PATH=/opt/bin\n")
    assert heads(job, tmp_path) == []


# --- steps, env, templates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "word", "hint"),
    [
        ("cd /etc", "cd", "Write cwd: DIR, or one text of several lines (run: |)."),
        ("export A=1 B=2", "export", "Write env: {NAME: VALUE}, or one text of several lines (run: |)."),
        ("A=1", "an assignment", "Write env: {NAME: VALUE}, or one text of several lines (run: |)."),
        ("set -x", "set", "Write one text of several lines (run: |)."),
        (". ./x.sh", ".", "Write one text of several lines (run: |)."),
        ("cd x; export A=1", "cd", "Write cwd: DIR, or one text of several lines (run: |)."),
    ],
)
def test_a_step_that_prepares_only_itself_is_told(step: str, word: str, hint: str, tmp_path: Path) -> None:
    (found,) = told(f"tasks: {{a: {{run: [ls, '{step}', ls]}}}}", tmp_path)
    assert found.message == f"each step is a process of its own: what {word} does here ends with it."
    assert (found.path, found.hint) == ("tasks.a.run[1]", hint)


@pytest.mark.parametrize("step", ["cd x && ls", "A=1 ls", "cd x; ls", "export A=1\nls", "test -d x"])
def test_a_step_that_does_something_is_left_alone(step: str, tmp_path: Path) -> None:
    assert heads(f"tasks:\n  a:\n    run: [{step!r}, ls]\n".replace("\\n", "\n\n"), tmp_path) == []


@pytest.mark.parametrize(
    ("value", "at", "hint"),
    [
        ("$HOME/x", "$HOME", "Write ${{ env.HOME }}."),
        ("/x:${MY_PATH}", "${MY_PATH}", "Write ${{ env.MY_PATH }}."),
        ("$(date +%F).log", "$(date +%F)", "Write it in the command."),
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        "env: {A: '%s'}\ntasks: {a: {run: ls}}",
        "defaults: {env: {A: '%s'}}\ntasks: {a: {run: ls}, b: {run: ls}}",
        "tasks: {a: {run: ls, env: {A: '%s'}}}\nfinally: {b: {run: ls}}",
    ],
)
def test_shell_syntax_in_env_is_told_once(value: str, at: str, hint: str, place: str, tmp_path: Path) -> None:
    (found,) = told(place % value, tmp_path)
    assert (marked(found), found.hint) == (at, hint)


@pytest.mark.parametrize("value", ["pa$$word", "^x$", "$1", "US$ 5", "$lower", "${{ env.HOME }}/x", "100%", "a\\$b", "${time}"])
def test_other_dollars_in_env_are_text(value: str, tmp_path: Path) -> None:
    assert heads(f"tasks: {{a: {{run: ls, env: {{A: '{value}'}}}}}}", tmp_path) == []


def test_braces_of_other_tools_are_told_but_not_templates_of_programs(tmp_path: Path) -> None:
    job = "tasks: {a: {run: 'echo {{ name }} {{.X}}', env: {B: '{{ date }}'}}}"
    assert [marked(each) for each in told(job, tmp_path)] == ["{{ name }}", "{{.X}}", "{{ date }}"]
    fine = ["docker inspect -f {{.Id}} x", "kubectl get -o go-template={{.x}}", "gh api --template {{.x}} x"]
    for text in fine:
        assert heads(f"tasks: {{a: {{run: '{text} | cat'}}}}", tmp_path) == []


# --- numbers, lists ----------------------------------------------------------------------------------------------------------


def test_a_zero_that_gets_lost_is_told_where_values_become_texts(tmp_path: Path) -> None:
    job = """\
params: {version: 1.10, other: {default: 3.20}, share: {type: float, default: 1.50}, fine: 2.5, "list": [1.0, 1.30]}
tasks:
  a: {matrix: {v: [3.9, 3.10], include: [{v: 3.40}]}, argv: [echo, 3.50, "${{ params[matrix.v] }}"]}
  b: {foreach: [3.60, "3.70"], target: "x:y", args: [0.50], timeout: 1.50}
  c: {run: ls, env: {V: 1.10}}
"""
    found = ["1.10", "3.20", "1.30", "3.10", "3.40", "3.50", "3.60"]
    assert [marked(each) for each in told(job, tmp_path)] == found


@pytest.mark.parametrize(
    ("instances", "is_told"),
    [
        ("foreach: ['${{ params.names }}']", True),
        ("foreach: ['${{ params.typed }}']", True),
        ("foreach: ['${{ tasks.other.results }}']", True),
        ("matrix: {x: ['${{ params.names }}']}", True),
        ("foreach: '${{ params.names }}'", False),
        ("foreach: ['${{ params.one }}']", False),
        ("foreach: ['${{ params.names }}', x]", False),
        ("foreach: ['${{ params.names }} x']", False),
    ],
)
def test_a_list_as_the_only_item_is_told(instances: str, is_told: bool, tmp_path: Path) -> None:
    job = f"""\
params: {{names: [a], typed: {{type: list, default: [a]}}, one: a}}
tasks:
  other: {{foreach: [1], target: "x:y", args: ["${{{{ params }}}}"]}}
  a: {{needs: [other], {instances}, run: ls}}
"""
    assert [head[2] for head in heads(job, tmp_path)] == ["this is one item, and that is a list"] * is_told


# --- caches ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "inputs", "at"),
    [
        ("ls; ./s.sh x", "[data]", "./s.sh"),
        ("./s.sh x", "[data]", ""),
        ("ls; sh s.sh", "[data]", "s.sh"),
        ("sh s.sh", "[data]", ""),
        ("bash -eu ./s.sh x", "[data]", "./s.sh"),
        ("python3 -u h.py data", "[data]", "h.py"),
        ("nice -n 5 python3 h.py | sort", "[data]", "h.py"),
        ("A=1 timeout 5s ./s.sh; ls", "[data]", "./s.sh"),
        (". ./s.sh; ls", "[data]", "./s.sh"),
        ("ls | bash 's.sh'", "[data]", "s.sh"),
        ("ls; python3 lib/m.py", "[data]", "lib/m.py"),
        ("ls; python3 lib/m.py", "['*.py', data]", "lib/m.py"),
        ("ls; python3 h.py", "['${{ item }}']", "h.py"),
        ("ls; python3 h.py", "['${{ params.to }}/${{ item }}.py']", "h.py"),
        ("python3 h.py", "[data, h.py]", ""),
        ("python3 h.py", "[./h.py]", ""),
        ("python3 h.py", "['*.py']", ""),
        ("python3 lib/m.py", "['**/*.py']", ""),
        ("python3 lib/m.py", "[lib]", ""),
        ("python3 h.py", "['${{ params.to }}/*.py']", ""),
        ("python3 -m h", "[data]", ""),
        ("python3 -c 'x'", "[data]", ""),
        ("sort data", "[data]", ""),
        ("sh -c 'ls x' h.py", "[data]", ""),
        ("python3 none.py", "[data]", ""),
        ("python3 ${{ item }}", "[data]", ""),
        ("/bin/ls h.py", "[data]", ""),
    ],
)
def test_a_script_of_a_cached_task_is_one_of_its_inputs(command: str, inputs: str, at: str, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    for name in ("s.sh", "h.py", "data", "lib/m.py"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    quoted = command.replace('"', '\\"')
    job = (
        f'params: {{to: .}}\ntasks: {{a: {{foreach: ["${{{{ params.to }}}}", b], run: "{quoted}", cache: {{inputs: {inputs}}}}}}}'
    )
    found = told(job, tmp_path)
    assert [marked(each).strip("'") for each in found] == [at] * bool(at)
    assert all(each.hint == f"Add {os.path.normpath(at)} to cache.inputs." for each in found)


def test_a_script_that_a_command_begins_with_is_looked_at_by_the_cache_itself(tmp_path: Path) -> None:
    (tmp_path / "s.sh").write_text("")
    (tmp_path / "s.sh").chmod(0o755)
    assert told("tasks: {a: {argv: [./s.sh], cache: {inputs: [job.yaml]}}}", tmp_path) == []


def test_a_script_is_looked_for_where_the_command_runs(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "m.py").write_text("")
    job = "tasks: {a: {run: ls; python3 m.py, cwd: lib, cache: {inputs: ['%s']}}}"
    assert [each.hint for each in told(job % "job.yaml", tmp_path)] == ["Add lib/m.py to cache.inputs."]
    assert told(job % "lib/*.py", tmp_path) == []


@pytest.mark.parametrize(
    ("task", "is_told"),
    [
        ("run: ls, cache: {}", True),
        ("argv: [ls], cache: {outputs: [x]}", True),
        ("run: ls, cache: {inputs: []}", False),
        ("run: ls, cache: {inputs: [job.yaml]}", False),
        ("run: ls, cache: {ttl: 1h}", False),
        ("target: 'x:y', cache: {}", False),
    ],
)
def test_a_cached_command_names_what_it_reads(task: str, is_told: bool, tmp_path: Path) -> None:
    assert [head[1] for head in heads(f"tasks: {{a: {{{task}}}}}", tmp_path)] == ["cache"] * is_told


def test_inputs_that_mean_no_file_are_told_unless_another_task_may_make_them(tmp_path: Path) -> None:
    later = "b: {needs: [a], run: ls, cache: {inputs: [x]}}"
    job = f"tasks: {{a: {{run: ls, cache: {{inputs: [job.yaml, 'none/*.csv', none.csv]}}}}, {later}}}"
    assert [each.path for each in told(job, tmp_path)] == ["tasks.a.cache.inputs[1]", "tasks.a.cache.inputs[2]"]


# --- without a use -----------------------------------------------------------------------------------------------------------

UNUSED = """\
params: {used: 1, in_if: 1, in_cache: 1, unused: 1}
limits: {taken: 1, free: 1}
pools: {busy: {mode: thread}, idle: {mode: thread}}
secrets: {LISTED: {env: A}, LOST: {env: B}}
tasks:
  a: {run: "echo ${{ params.used }}", if: params.in_if, cache: {inputs: ["job.yaml${{ params.in_cache }}"]}, secrets: [LISTED]}
finally:
  b: {run: ls, pool: busy, limits: {taken: 1}}
"""


def test_what_nothing_uses_is_told_at_its_name(tmp_path: Path) -> None:
    assert [(line, at) for line, at, _ in heads(UNUSED, tmp_path)] == [(1, "unused"), (2, "free"), (3, "idle"), (4, "LOST")]


def test_a_job_that_includes_others_need_not_use_all_that_they_share(tmp_path: Path) -> None:
    (tmp_path / "common.yaml").write_text("params: {x: 1}\nlimits: {x: 1}\npools: {x: {mode: thread}}\n")
    assert heads("include: [common.yaml]\ntasks: {a: {run: ls}}", tmp_path) == []


def test_any_parameter_may_be_read_by_a_computed_name(tmp_path: Path) -> None:
    assert heads("params: {a: 1}\ntasks: {a: {foreach: [a], run: 'echo ${{ params[item] }}'}}", tmp_path) == []


# --- lost failures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("make || true", "|| true"),
        ("ls\nmake || :", "|| :"),
        ("make || exit 0", "|| exit 0"),
        ("make; exit 0", "; exit 0"),
        ("make | tee log", "tee"),
        ("make 2>&1 |\n  tee log\nls", "tee"),
        ("make | grep x | mail -s x root", "mail"),
        ("tar -c . | gzip > x && ls", "gzip"),
        ("{ make; ls; } | tee log", "tee"),
    ],
)
def test_a_failure_that_nobody_sees_is_told(text: str, at: str, tmp_path: Path) -> None:
    assert [each[0] for each in of_run(text, tmp_path)] == [at]


# --- the text of a command ---------------------------------------------------------------------------------------------------


@given(st.text(alphabet="ab '\"$(){}`\\#\n<>&|;-E[]!=:/0"))
@settings(max_examples=300)
def test_whatever_the_text_what_is_made_of_it_is_as_long(text: str) -> None:
    script = shell.read(text)
    assert len(script.code) == len(script.expanded) == len(text)
    for words in shell.commands(script):
        assert all(0 <= word.offset < word.offset + word.length <= len(text) for word in words)
    for trouble in [*shell.only_bash(script), *shell.lost_failures(script), shell.unclosed(script)]:
        assert trouble is None or 0 <= trouble.offset < trouble.offset + trouble.length <= len(text)


def test_expressions_are_blotted_out_place_by_place() -> None:
    text = "a ${{ params.x }}b${{item}} }} ${{ 'c}}' }}"
    assert shell.blanked(text).replace(shell.VALUE, "x") == "a xxxxxxxxxxxxxxxbxxxxxxxxx }} xxxxxxxxxxxx"


def test_cautions_of_final_tasks_are_told_there(tmp_path: Path) -> None:
    assert [each.path for each in told("tasks: {a: {run: ls}}\nfinally: {b: {run: '[[ x ]]'}}", tmp_path)] == ["finally.b.run"]


def test_a_caution_behind_a_value_is_told_on_its_own_line(tmp_path: Path) -> None:
    job = "params: {x: 1}\ntasks:\n  a:\n    run: |\n      echo ${{ params.x }}\n      ls\n      [[ -f x ]]\n"
    assert [head[:2] for head in heads(job, tmp_path)] == [(7, "[[")]
