"""Bad job files: whatever the bytes are, a Job or a JobFileError with positions; never a traceback, a hang or a crash."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobrunner import jobfile, spec
from jobrunner.errors import JobFileError, Problem
from jobrunner.jobfile import document

VALID = """\
name: nightly
mode: process_pool
workers: 50%
params: {root: {type: path, default: /srv/data}, n: 3, names: [a, b]}
pools: {cpu: {mode: process_pool, workers: auto, max_tasks_per_worker: 500}}
env: {A: 1.10}
env_file: x.env
secrets: {token: {env: TOKEN}, key: {file: k}}
limits: {api: 2, db: {slots: 1, scope: host}}
schedule: {cron: "30 2 * * MON-FRI", timezone: UTC}
concurrency: {group: etl, on_conflict: wait, wait: 5m}
defaults: &d {retry: {max: 2, delay: 5s}, timeout: 10m}
tasks:
  list: {target: "m:list", kwargs: {root: "${{ params.root }}"}}
  each:
    <<: *d
    needs: [list]
    foreach: ${{ tasks.list.result }}
    target: m:f
    args: ["${{ item }}", 'x ${{ index + 1 }}']
    pool: cpu
  archive:
    run: |
      tar -czf ${{ run.dir }}/x.tar.gz ${{ params.root }}
    stop: {signal: INT, grace: 1s}
    secrets: [token, key]
    env: {T: "${{ secrets.token }}"}
    resources: {memory: 512MiB, nice: 5, cpus: 1}
    at_most_once: false
  build:
    if: success() and params.n > 2
    needs: [archive]
    matrix: {os: [a, b], n: "${{ params.names }}", include: [{os: a, c: 1}], exclude: [{os: b, n: x}]}
    run: ["make ${{ matrix.os }}", 'make test']
    limits: {api: 1}
    retry: {max: 1, exit_codes: [75]}
    cache: {inputs: ["src/${{ matrix.os }}/**"], outputs: [/out], env: [CC], ttl: 1d}
finally:
  tell: {if: "failure() and tasks.archive.outcome != 'skipped'", run: x, limits: [db]}
"""


def problems(source: bytes) -> tuple[Problem, ...]:
    """What is wrong with a file, nothing for a job; after checking that every problem can be shown and points into the file."""
    try:
        job = jobfile.parse(source, "a.yaml")
    except JobFileError as error:
        found = error.problems
    else:
        assert isinstance(job, spec.Job)
        return ()
    assert found
    lines = source.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").split("\n")
    for problem in found:
        assert problem.message
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        assert all(line.isprintable() for line in str(problem).split("\n"))
    places = [(problem.line, problem.column) for problem in found]
    assert places == sorted(places) or len(found) > document.MOST_PROBLEMS
    return found


def test_the_valid_file_is_valid() -> None:
    assert problems(VALID.encode()) == ()


BAD: dict[str, tuple[str | bytes, tuple[int, int], str]] = {
    "empty": ("", (1, 1), "the file is empty"),
    "blank lines": ("\n\n", (1, 1), "the file is empty"),
    "null": ("null", (1, 1), "the file is empty"),
    "a list": ("- a: 1", (1, 1), "a job file is a map"),
    "a scalar": ("42", (1, 1), "a job file is a map"),
    "two documents": (VALID + "---\n" + VALID, (VALID.count("\n") + 1, 1), "a second YAML document"),
    "a tab": ("tasks:\n\ta: {run: x}", (2, 1), "a tab cannot indent"),
    "an open quote": ("tasks:\n  a: {run: 'x}\n", (2, 12), "never closed"),
    "NUL": (b"tasks: {a: {run: x\x00}}", (1, 19), "a NUL byte"),
    "UTF-16 little endian": (VALID.encode("utf-16"), (1, 1), "UTF-16"),
    "UTF-16 big endian": (b"\xfe\xff" + VALID.encode("utf-16-be"), (1, 1), "UTF-16"),
    "UTF-32": (VALID.encode("utf-32"), (1, 1), "UTF-16 or UTF-32"),
    "a lone carriage return": (b"tasks:\r  a: {run: x}", (1, 7), "a carriage return"),
    "duplicate keys": ("tasks:\n  a: {run: x}\n  a: {run: y}", (3, 3), "duplicate key in line 3; 'a' stands already in line 2"),
    "a truth of YAML 1.1": ("fail_fast: yes\ntasks: {a: {run: x}}", (1, 12), "expected true or false, found text. Write true."),
    "a sexagesimal of YAML 1.1": ("timeout: 22:22\ntasks: {a: {run: x}}", (1, 10), "not a duration"),
    "an octal of YAML 1.1": ("workers: 010\ntasks: {a: {run: x}}", (1, 10), "workers is a whole number"),
    "an underscore of YAML 1.1": ("workers: 1_0\ntasks: {a: {run: x}}", (1, 10), "workers is a whole number"),
    "on as a key": ("on: push\ntasks: {a: {run: x}}", (1, 1), "unknown key"),
    "an unknown key": ("task: {}\ntasks: {a: {run: x}}", (1, 1), "Did you mean 'tasks'?"),
    "100 kB of brackets": ("[" * 100_000, (1, 65), "nested more than 64 deep"),
    "100 kB of braces": ("{a: " * 25_000, (1, 257), "nested more than 64 deep"),
    "deep blocks": ("\n".join(" " * n + "a:" for n in range(1000)), (65, 65), "nested more than 64 deep"),
    "deep sequences": ("- " * 1000, (1, 129), "nested more than 64 deep"),
    "5,000 digits": ("workers: " + "9" * 5000 + "\ntasks: {a: {run: x}}", (1, 10), "a number of 5000 characters"),
    "an impossible date": ("timeout: 2026-02-31\ntasks: {a: {run: x}}", (1, 10), "not a duration"),
    "a broken integer tag": ("workers: !!int x\ntasks: {a: {run: x}}", (1, 10), "tags are not allowed"),
    "a broken timestamp tag": ("timeout: !!timestamp 2026-99-99\ntasks: {a: {run: x}}", (1, 10), "tags are not allowed"),
    "a broken binary tag": ("name: !!binary x\ntasks: {a: {run: x}}", (1, 7), "tags are not allowed"),
    "an alias of itself": ("tasks: &t\n  a: *t", (2, 6), "stands inside of what it refers to"),
    "a Python tag": ("tasks: !!python/object/apply:os.system [ls]", (1, 8), "tags are not allowed"),
    "a task that needs itself": ("tasks: {a: {run: x, needs: [a]}}", (1, 29), "a task cannot need itself"),
    "a circle": (
        "tasks:\n  a: {run: x, needs: [b]}\n  b: {run: x, needs: [a]}",
        (2, 23),
        "a needs b (line 2), b needs a (line 3)",
    ),
    "a need of nothing": ("tasks: {a: {run: x, needs: [b]}}", (1, 29), "no task is called 'b'"),
    "names equal but for case": ("tasks:\n  ab: {run: x}\n  aB: {run: x}", (3, 3), "only in case"),
    "names equal but for normalisation": ("tasks:\n  \u00e9: {run: x}\n  e\u0301: {run: x}", (2, 3), "is not a name"),
    "negative workers": ("workers: -1\ntasks: {a: {run: x}}", (1, 10), "workers is a whole number"),
    "no workers": ("workers: 0\ntasks: {a: {run: x}}", (1, 10), "workers is a whole number"),
    "workers that are no number": ("workers: .nan\ntasks: {a: {run: x}}", (1, 10), "workers is a whole number"),
    "infinite workers": ("workers: .inf\ntasks: {a: {run: x}}", (1, 10), "workers is a whole number"),
    "absurd workers": ("workers: 1000000\ntasks: {a: {run: x}}", (1, 10), "from 1 to 4096"),
    "a negative timeout": ("timeout: -1\ntasks: {a: {run: x}}", (1, 10), "a duration is between 0 and ten years"),
    "a timeout of nothing": ("timeout: 0\ntasks: {a: {run: x}}", (1, 10), "a timeout is longer than 0"),
    "a timeout that is no number": ("timeout: .nan\ntasks: {a: {run: x}}", (1, 10), "not a duration"),
    "an infinite timeout": ("timeout: .inf\ntasks: {a: {run: x}}", (1, 10), "a duration is between 0 and ten years"),
    "an absurd timeout": ("timeout: 99999999999999999999d\ntasks: {a: {run: x}}", (1, 10), "not a duration"),
    "a whole timeout beyond every float": ("timeout: 1" + "0" * 400 + "\ntasks: {a: {run: x}}", (1, 10), "ten years"),
    "a name with ..": ("tasks: {..: {run: x}}", (1, 9), "'..' is not a name"),
    "a name with a slash": ("tasks: {a/b: {run: x}}", (1, 9), "'a/b' is not a name"),
    "a name with a newline": ('tasks: {"a\\nb": {run: x}}', (1, 9), "is not a name"),
    "a name of 10 kB": ("tasks: {? " + "a" * 10_000 + " : {run: x}}", (1, 11), "is not a name"),
    "a name with an emoji": ("tasks: {😀: {run: x}}", (1, 9), "is not a name"),
    "an empty name": ("tasks: {'': {run: x}}", (1, 9), "nothing is not a name"),
    "a target that is no target": ("tasks: {a: {target: os.system}}", (1, 21), "'os.system' is not module:function"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_position(name: str) -> None:
    text, place, message = BAD[name]
    found = problems(text if isinstance(text, bytes) else text.encode())
    assert message in "\n".join(str(problem) for problem in found)
    assert place in [(problem.line, problem.column) for problem in found]


def test_a_byte_order_mark_is_accepted() -> None:
    assert problems(b"\xef\xbb\xbf" + VALID.encode()) == ()


def test_ten_thousand_tasks_in_a_chain_are_fine() -> None:
    rows = "".join(f"  t{n}: {{run: x, needs: [t{n + 1}]}}\n" for n in range(10_000))
    assert problems(f"tasks:\n{rows}  t10000: {{run: x}}\n".encode()) == ()


def test_every_row_of_a_large_file_may_be_wrong() -> None:
    """The work is bounded by what is reported, though every task needs one that is not there."""
    rows = "".join(f"  t{n}: {{run: x, needs: [u{n}]}}\n" for n in range(10_000))
    assert len(problems(f"tasks:\n{rows}".encode())) == document.MOST_PROBLEMS + 1


def test_nothing_of_the_user_is_imported_or_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boom.py").write_text("raise SystemExit(3)")
    (tmp_path / "a.yaml").write_text("tasks: {a: {target: 'boom:f'}, b: {run: 'touch ran', cwd: /nowhere}}")
    jobfile.load("a.yaml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.yaml", "boom.py"]


# --- found by chance ---------------------------------------------------------------------------------------------------------

PIECES = [
    *[
        "tasks:",
        "a:",
        "run: x",
        "needs: [a]",
        "- ",
        "  ",
        "\n",
        "\n  ",
        "\n    ",
        ": ",
        "? ",
        "<<: ",
        "&x ",
        "*x",
        "[",
        "]",
        "{",
        "}",
    ],
    *[
        ",",
        "'",
        '"',
        "|\n",
        ">-\n",
        "!!int ",
        "! ",
        "%YAML 1.1\n",
        "---\n",
        "...\n",
        "#",
        "${{ ",
        " }}",
        "params.a",
        "tasks.a.result",
    ],
    *["if: ", "matrix: ", "limits: ", "cache: ", "schedule: ", "finally:\n", "include: ", "exclude: ", "failure()", "* * * * *"],
    *["foreach: ", "retry: ", "timeout: ", "env: ", "defaults: ", "pools: ", "params: ", "kwargs: ", "target: m:f", "argv: [x]"],
    *[
        "null",
        "true",
        "1e999",
        ".inf",
        "0x1f",
        "9" * 30,
        "-1",
        "\t",
        "\r",
        "\0",
        "\ufeff",
        "é",
        "😀",
        "\\",
        "\u2028",
        "item",
        "cwd: x",
    ],
]


def search(files: int) -> settings:
    """The same files each time, and no verdict about the speed of the machine. All searches together try 10,000."""
    return settings(max_examples=files, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@search(4000)
@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf\xef\xbb\xbf")
@example(b"%TAG ! x\n%TAG ! y\n--- a")
@example(b"\xff")
def test_any_bytes_are_a_job_or_problems(source: bytes) -> None:
    problems(source)


@search(3000)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
@example("tasks: {a: {run: x, needs: [a], <<: {needs: *x}}}")
@example("{{a: b}: &x c, d: *x}")
@example("? [a, b]\n: {<<: [{a: 1}, {b: 2}]}\n")
@example("a: &a {<<: *a}")
@example("? *x\n: 1")
def test_any_yaml_like_text_is_a_job_or_problems(text: str) -> None:
    problems(text.encode("utf-8", "surrogatepass"))


def mutated(seed: int) -> bytes:
    """The valid file with one to four spans cut, doubled, moved or replaced."""
    chance = random.Random(seed)
    text = VALID
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(text) + 1)
        stop = min(len(text), start + chance.choice([0, 1, 1, 2, 5, 30]))
        piece = chance.choice(["", "", chance.choice(PIECES), text[start:stop] * 2, chr(chance.randrange(0x20, 0x7F))])
        text = text[:start] + piece + text[stop:]
    return text.encode()


@search(2000)
@given(st.integers(min_value=0, max_value=2**32))
@example(598792)  # a key that begins with '<'
def test_any_change_of_a_valid_file_is_a_job_or_problems(seed: int) -> None:
    problems(mutated(seed))


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["${{ item }}", "a", "5m", "auto"])
)
KEYS = st.sampled_from(
    [
        *spec.keys(spec.Job),
        *spec.keys(spec.Task),
        "max",
        "cron",
        "exclude",
        "inputs",
        "exit_codes",
        "range",
        "glob",
        "type",
        "a",
        "b",
        "depends",
    ]
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=6)


@search(1000)
@given(
    st.dictionaries(KEYS, VALUES, max_size=5),
    st.dictionaries(st.sampled_from(["a", "b", "A"]), st.dictionaries(KEYS, VALUES, max_size=4)),
)
def test_any_values_are_a_job_or_problems(keys: dict[str, object], tasks: dict[str, object]) -> None:
    problems(flow({**keys, "tasks": tasks}).encode("utf-8", "surrogatepass"))


def flow(value: object) -> str:
    """A value as YAML in flow style."""
    match value:
        case dict():
            return "{" + ", ".join(f"? {flow(key)} : {flow(one)}" for key, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(flow, value)) + "]"
        case str():
            return "'" + value.replace("'", "''").replace("\n", " ") + "'"
        case None:
            return "null"
    return str(value).lower()


@pytest.mark.parametrize("cut", range(0, len(VALID), 7))
def test_a_file_that_was_cut_short_is_a_job_or_problems(cut: int) -> None:
    problems(VALID.encode()[:cut])
