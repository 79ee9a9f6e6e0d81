"""Compiled jobs: the same job as from the file itself, for the very bytes it was made of, and for nothing else."""

from __future__ import annotations

import contextlib
import marshal
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from jobrunner import compiled, jobfile, kinds
from jobrunner.cli.main import cli
from jobrunner.errors import JobFileError
from jobrunner.jobfile import JobFile

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted([*ROOT.glob("jobs/**/*.yaml"), *ROOT.glob("tests/golden/**/job.yaml"), *ROOT.glob("docs/**/*.yaml")])
EVERYTHING = """\
include: [more.yaml]
schedule: {cron: "30 2 * * *", timezone: Europe/Berlin, jitter: 5m}
mode: process_pool
workers: 50%
pools: {wide: {mode: thread, workers: 7}, own: {executor: "concurrent.futures:ThreadPoolExecutor", workers: 2}, plain: {}}
params: {plain: 1, listed: [a, 1.5, null], text: {type: choice, choices: [a, b], default: a}, none: null}
env: {A: 1.10, B: yes}
secrets: {token: {env: TOKEN}, file: {file: ./secret}}
limits: {db: 3, host: {slots: 2, scope: host}}
concurrency: {group: all, on_conflict: wait, wait: 1h}
defaults: {timeout: 1h, stop: {signal: INT, grace: 3s}, retry: 2}
tasks:
  call: {target: "functions:show", args: [1, "${{ params.plain }}", {deep: [1, {er: null}]}], kwargs: {a: 1.5}, pool: wide}
  ranged: {run: "echo ${{ item }}", foreach: {range: [1, 9, 2]}, limits: [db], needs: [call]}
  files:
    argv: [echo, 1, 2.5, x]
    foreach: {glob: [a/*, "**/b"], at_least: 0}
    retry: {max: 3, delay: 1s, exit_codes: [3]}
    mode: thread
    env: {C: c}
  lines: {run: [echo a, echo b], foreach: {lines: names.txt}, cwd: sub, cache: {inputs: [a], ttl: 1d}, pool: own}
  matrix: {run: "echo ${{ matrix.a }}", matrix: {a: [1, 2], b: [x]}, limits: {host: 2}, secrets: [token], pool: plain}
  last:
    run: "true"
    resources: {memory: 512MiB, nice: 3}
    if: failure()
    at_most_once: true
    retry: 0
    continue_on_error: true
    needs: [lines]
finally:
  tidy: {run: "true", timeout: 5s}
timeout: 2h
fail_fast: true
"""
MORE = "tasks: {included: {run: 'true'}}\n"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def job(tmp_path: Path, state: Path) -> Path:
    """A job file with something of everything, which includes another, and was compiled."""
    (tmp_path / "more.yaml").write_text(MORE)
    path = tmp_path / "job.yaml"
    path.write_text(EVERYTHING)
    compiled.keep(jobfile.read(path), state)
    assert compiled.read(path).is_compiled
    return path


def kept(state: Path) -> Path:
    (path,) = (state / ".compiled").iterdir()
    return path


def same(model: object, plain: object, at: str = "job") -> None:
    """All attributes of a model, and what its properties give, are those of the plain object; and so on below."""
    if isinstance(model, BaseModel):
        assert isinstance(plain, kinds.Plain), at
        assert type(plain).__name__ == type(model).__name__, at
        for told_apart in (kinds.Param, kinds.Limit, kinds.Range, kinds.Glob, kinds.Lines):
            assert isinstance(plain, told_apart) == isinstance(model, told_apart), at
        properties = [name for name, each in vars(type(model)).items() if isinstance(each, property)]
        constants = [name for name in type(model).__class_vars__ if name.isupper()]
        for name in (*type(model).model_fields, *properties, *constants):
            same(getattr(model, name), getattr(plain, name), f"{at}.{name}")
        assert plain.model_dump() == model.model_dump(), at
        assert list(plain.model_dump(exclude_none=True)) == list(model.model_dump(exclude_none=True)), at
    elif isinstance(model, dict):
        assert isinstance(plain, dict), at
        assert list(plain) == list(model), at
        for key, value in model.items():
            same(value, plain[key], f"{at}[{key!r}]")
    elif isinstance(model, list):
        assert isinstance(plain, list), at
        assert len(plain) == len(model), at
        for number, value in enumerate(model):
            same(value, plain[number], f"{at}[{number}]")
    else:
        assert (type(plain), plain) == (type(model), model), at


def same_job(read: JobFile, found: JobFile) -> None:
    assert found.is_compiled
    assert (found.path, found.source, found.includes, found.file) == (read.path, read.source, read.includes, read.file)
    same(read.job, found.job)
    pools, others = read.job.used_pools(), found.job.used_pools()
    same(pools, others)
    assert {name: read.job.pool_of(name) for name in read.job.tasks} == {
        name: found.job.pool_of(name) for name in found.job.tasks
    }


# --- the same job ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_compiled_job_is_the_job_attribute_by_attribute(path: Path, state: Path) -> None:
    read = None
    with contextlib.suppress(JobFileError):  # some are there to be refused
        read = jobfile.read(path)
    if read is not None:
        compiled.keep(read, state)
        same_job(read, compiled.read(path))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_plan_of_a_compiled_job_is_the_plan_of_the_job(path: Path, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli(["plan", "--json", str(path)])
    told = capsys.readouterr()
    if code == 0:
        compiled.keep(jobfile.read(path), state)
        assert compiled.read(path).is_compiled
        assert cli(["plan", "--json", str(path)]) == 0
        assert capsys.readouterr() == told


def test_every_model_survives(job: Path) -> None:
    read, found = jobfile.read(job), compiled.read(job)
    same_job(read, found)
    changed = {"mode": "thread", "fail_fast": False}
    same(read.job.model_copy(update=changed), found.job.model_copy(update=changed))
    assert found.job.tasks["tidy"] is found.job.finals["tidy"]


def test_a_part_of_a_compiled_job_never_changes(job: Path) -> None:
    found: Any = compiled.read(job).job
    with pytest.raises(AttributeError, match="timeout of a Task does not change"):
        found.tasks["last"].timeout = 3


# --- for the very bytes ------------------------------------------------------------------------------------------------------


def touch(path: Path) -> None:
    os.utime(path, (1, 1))


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("# more\n")


def replace(path: Path) -> None:
    """The same size and times, other bytes."""
    found = path.stat()
    path.write_bytes(path.read_bytes().replace(b'true"', b'date"').replace(b"true'", b"date'"))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize("name", ["job.yaml", "more.yaml"])
@pytest.mark.parametrize(("change", "holds"), [(touch, True), (append, False), (replace, False)])
def test_it_holds_for_the_bytes_whatever_the_times_of_the_files(
    job: Path, name: str, change: Callable[[Path], None], holds: bool
) -> None:
    change(job.with_name(name))
    assert compiled.read(job).is_compiled == holds


def test_a_mistake_that_was_put_in_is_told(job: Path) -> None:
    job.write_text("tasks: {a: {rnu: x}}")
    with pytest.raises(JobFileError, match="rnu"):
        compiled.read(job)


def test_a_file_that_is_gone_is_gone(job: Path) -> None:
    job.with_name("more.yaml").unlink()
    with pytest.raises(JobFileError, match="there is no such file"):
        compiled.read(job)


def test_a_link_to_the_file_is_another_job_file(job: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(job)
    assert not compiled.read(link).is_compiled
    job.rename(tmp_path / "other.yaml")
    (tmp_path / "job.yaml").symlink_to(tmp_path / "other.yaml")
    assert not compiled.read(job).is_compiled, "its name would be another one"


# --- damaged, foreign, of another time ---------------------------------------------------------------------------------------


def test_damage_anywhere_makes_it_worthless(job: Path, state: Path) -> None:
    path = kept(state)
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 300)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert not compiled.read(job).is_compiled, at
    for length in range(0, len(whole), max(1, len(whole) // 50)):
        path.write_bytes(whole[:length])
        assert not compiled.read(job).is_compiled, length
    path.write_bytes(whole)
    assert compiled.read(job).is_compiled


@pytest.mark.parametrize(
    "rows",
    [
        (1, 2, 3),
        ("a", "b", "c"),
        ({}, [("X", {}, None)], 0),
        ({"X": ((), {}, None)}, [], 7),
        None,
        ({}, [("X", {}, {"a": {}})], 0),
    ],
)
def test_what_no_rows_of_ours_are_is_worth_nothing_though_its_digest_is_right(job: Path, state: Path, rows: Any) -> None:
    head, _ = marshal.loads(kept(state).read_bytes()[len(compiled._MAGIC) + compiled._DIGEST :])
    kept(state).write_bytes(compiled._sealed(head, marshal.dumps(rows)))
    assert not compiled.read(job).is_compiled


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o602])
def test_what_others_may_read_or_write_is_not_ours(job: Path, state: Path, mode: int) -> None:
    kept(state).chmod(mode)
    assert not compiled.read(job).is_compiled


def test_where_others_may_write_nothing_is_ours(job: Path, state: Path) -> None:
    (state / ".compiled").chmod(0o770)
    assert not compiled.read(job).is_compiled


def test_one_that_is_larger_than_any_is_neither_read_nor_kept(job: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = kept(state).stat().st_size
    os.truncate(kept(state), 1 << 40)
    assert not compiled.read(job).is_compiled
    kept(state).unlink()
    monkeypatch.setattr(compiled, "LARGEST", size - 1)
    compiled.keep(jobfile.read(job), state)
    assert not list((state / ".compiled").iterdir())


def test_a_link_or_a_directory_in_its_place_is_not_read(job: Path, state: Path, tmp_path: Path) -> None:
    path = kept(state)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert not compiled.read(job).is_compiled
    path.unlink()
    path.mkdir()
    assert not compiled.read(job).is_compiled


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_somebody_else_is_not_ours(job: Path, state: Path) -> None:
    os.chown(kept(state), 12345, 12345)
    assert not compiled.read(job).is_compiled


@pytest.mark.parametrize("what", ["__version__", "sys.version", "sys.prefix", "sys.implementation"])
def test_another_python_or_version_reads_the_file_itself(job: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: Any = type("Other", (), {"cache_tag": "cpython-399"}) if what == "sys.implementation" else "other"
    monkeypatch.setattr(f"jobrunner.compiled.{what}", changed)
    assert not compiled.read(job).is_compiled


def test_other_code_of_jobrunner_or_another_library_reads_the_file_itself(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pydantic

    from jobrunner import spec

    state_of = compiled._state
    for changed in (spec.__file__, os.path.dirname(os.path.dirname(pydantic.__file__))):
        with monkeypatch.context() as patch:
            patch.setattr(compiled, "_state", lambda path, changed=changed: (1, 1) if path == changed else state_of(path))
            assert not compiled.read(job).is_compiled, changed
    assert compiled.read(job).is_compiled


# --- keeping ------------------------------------------------------------------------------------------------------------------


def test_a_state_that_cannot_be_written_changes_nothing(job: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    compiled.keep(jobfile.read(job), tmp_path / "file")
    compiled.keep(jobfile.read(job), Path("/proc/nowhere"))


def test_what_is_kept_is_for_its_owner_alone_and_nothing_is_left_beside_it(job: Path, state: Path) -> None:
    assert kept(state).stat().st_mode & 0o777 == 0o600
    assert (state / ".compiled").stat().st_mode & 0o777 == 0o700


def test_two_writers_at_once_leave_one_whole_file(job: Path, state: Path) -> None:
    file = jobfile.read(job)
    pids = []
    for _ in range(8):
        if not (pid := os.fork()):
            for _ in range(20):
                compiled.keep(file, state)
            os._exit(0)
        pids.append(pid)
    while pids:
        assert compiled.read(job).is_compiled, "whoever reads meanwhile finds a whole one"
        pids = [pid for pid in pids if os.waitpid(pid, os.WNOHANG)[0] == 0]
    assert kept(state).name.startswith("job-")


def test_the_oldest_go_when_there_are_too_many(job: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MOST_KEPT", 3)
    old = kept(state)
    touch(old)
    (state / ".compiled" / "left.123").write_bytes(b"half of one")
    touch(state / ".compiled" / "left.123")
    for number in range(3):
        other = job.with_name(f"other{number}.yaml")
        other.write_text(MORE)
        compiled.keep(jobfile.read(other), state)
    assert sorted(path.name.split("-")[0] for path in (state / ".compiled").iterdir()) == ["other0", "other1", "other2"]


def test_too_many_bytes_make_room_too_but_the_newest_stays(job: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MOST_BYTES", 1)
    touch(kept(state))
    other = job.with_name("other.yaml")
    other.write_text(MORE)
    compiled.keep(jobfile.read(other), state)
    assert kept(state).name.startswith("other-")


def test_many_tasks_are_kept_and_found(tmp_path: Path, state: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(
        "tasks:\n" + "".join(f"  t{n}: {{run: echo {n}, needs: [t{max(0, n - 1)}]}}\n" for n in range(1, 5000)) + "  t0: {run: x}"
    )
    read = jobfile.read(path)
    compiled.keep(read, state)
    found = compiled.read(path)
    assert found.is_compiled
    assert list(found.job.tasks) == list(read.job.tasks)
    same(read.job.tasks["t4999"], found.job.tasks["t4999"])


def test_it_is_read_by_several_threads_at_once(job: Path) -> None:
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(compiled.read(job).is_compiled)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8
