"""Where a limit of the system is too low for the run itself: clear words and exit code 74. Where it is not, the job runs."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

from jobrunner import refused
from jobrunner.errors import StateError
from tests.test_resume import Stage

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere limits have other effects")

PATIENCE = 60.0
COMMAND = {"run": "true"}
TARGET = {"target": "os:getpid"}


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(folder=tmp_path_factory.mktemp("refused"))


def limited(stage: Stage, number: int, value: int) -> subprocess.CompletedProcess[str]:
    """A run that has no more of `number` than `value`."""
    return subprocess.run(
        ["sh", "-c", f'ulimit -{"nv"[number == resource.RLIMIT_AS]} {value}; exec "$@"', "sh", *stage.command("run", "job.yaml")],
        cwd=stage.folder,
        env=stage.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("task", [COMMAND, TARGET], ids=["command", "target"])
@pytest.mark.parametrize("descriptors", range(6, 20))
def test_too_few_descriptors_for_the_run_itself_are_told_with_what_to_write(
    stage: Stage, descriptors: int, task: dict[str, str]
) -> None:
    stage.job({"a": task})
    ran = limited(stage, resource.RLIMIT_NOFILE, descriptors)
    assert "Traceback" not in ran.stderr
    assert "bug" not in ran.stderr
    if ran.returncode == 74:
        assert f"too many open files (the limit is {descriptors})" in ran.stderr
        assert "raise `ulimit -n`" in ran.stderr
        assert "LimitNOFILE=" in ran.stderr
        assert not any(b"task.started" in path.read_bytes() for path in stage.folder.rglob("events.jsonl"))
    else:  # there is room for the run and none for a task, which has waited for it: see operations, exit code 1
        assert ran.returncode == 1
        assert "could not start" in ran.stderr


@pytest.mark.parametrize("task", [COMMAND, TARGET], ids=["command", "target"])
def test_with_enough_descriptors_it_runs(stage: Stage, task: dict[str, str]) -> None:
    stage.job({"a": task})
    assert limited(stage, resource.RLIMIT_NOFILE, 64).returncode == 0


@pytest.mark.parametrize("limit", [60_000, 80_000])
def test_too_little_memory_for_the_run_itself_is_told_with_what_to_write(stage: Stage, limit: int) -> None:
    stage.job({"a": COMMAND})
    ran = limited(stage, resource.RLIMIT_AS, limit)
    assert ran.returncode == 74, ran.stderr
    assert f"cannot allocate memory (the limit is {limit}): raise `ulimit -v`" in ran.stderr
    assert "Traceback" not in ran.stderr


def of_context(error: OSError) -> BaseException:
    try:
        try:
            raise error
        except OSError:
            raise StateError("cannot lock: set JOBRUNNER_STATE") from None
    except StateError as mistake:
        return mistake


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENFILE, "Too many open files in system"), "fs.file-max"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "ulimit -v"),
        (MemoryError(), "ulimit -v"),
        (ImportError("x.so: cannot open shared object file: Too many open files"), "ulimit -n"),
        (ImportError("x.so: failed to map segment from shared object"), "ulimit -v"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), ""),
        (ImportError("No module named 'x'"), ""),
        (OSError(errno.ENOENT, "No such file or directory"), ""),
        (ValueError("x"), ""),
        (OSError("without a number"), ""),
        (None, ""),
    ],
    ids=repr,
)
def test_only_what_a_limit_refuses_has_such_words(error: BaseException | None, part: str) -> None:
    words = refused.words(error)
    assert part in words
    assert bool(words) == bool(part)


def test_what_keeps_the_state_from_being_used_is_named_by_its_cause(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobrunner.cli import main

    def answer(error: BaseException) -> Callable[[list[str]], int]:
        def run(_: list[str]) -> int:
            raise error

        return run

    monkeypatch.setattr(main, "_run", answer(of_context(OSError(errno.EMFILE, "Too many open files"))))
    assert main.cli(["run"]) == 74
    assert "JOBRUNNER_STATE" not in capsys.readouterr().err
    monkeypatch.setattr(main, "_run", answer(of_context(OSError(errno.EROFS, "Read-only file system"))))
    assert main.cli(["run"]) == 74
    assert capsys.readouterr().err == "cannot lock: set JOBRUNNER_STATE\n"
