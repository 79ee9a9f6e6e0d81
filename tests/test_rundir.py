"""The state directory: where it is, who may read it, and what is refused before anything runs."""

from __future__ import annotations

import os
import pwd
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner.captured import Captured
from jobrunner.errors import JobrunnerError, StateError, UnsafeError
from jobrunner.rundir import RunDir, create, find, new_run_id, runs, state_dir


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def made(state: Path, run_id: str = "r1") -> RunDir:
    return create(state, job="nightly", run_id=run_id, job_file=b"tasks: {}\n")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- where -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"JOBRUNNER_STATE": "/own", "STATE_DIRECTORY": "/sys", "XDG_STATE_HOME": "/xdg"}, "/own"),
        ({"STATE_DIRECTORY": "/sys", "XDG_STATE_HOME": "/xdg"}, "/sys"),
        ({"STATE_DIRECTORY": "/sys:/other"}, "/sys"),
        ({"XDG_STATE_HOME": "/xdg"}, "/xdg/jobrunner"),
        ({"XDG_STATE_HOME": "relative"}, "/home/somebody/.local/state/jobrunner"),
        ({"JOBRUNNER_STATE": "", "STATE_DIRECTORY": "", "XDG_STATE_HOME": ""}, "/home/somebody/.local/state/jobrunner"),
        ({}, "/home/somebody/.local/state/jobrunner"),
    ],
)
def test_the_first_setting_that_says_something_wins(
    environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert state_dir(environ) == Path(expected)


def test_a_relative_state_counts_from_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert state_dir({"JOBRUNNER_STATE": "state"}) == tmp_path / "state"


def test_without_any_home_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(StateError, match="set JOBRUNNER_STATE"):
        state_dir({})


# --- who may read it ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_umask")
def test_directories_are_0700_and_files_0600_whatever_the_umask(tmp_path: Path) -> None:
    state = tmp_path / "missing" / "state"
    run = made(state)
    captured = Captured(run.path / "output", lambda output, reason, dropped: None)
    for task, item in (("a", None), ("b", "x/y")):
        captured.keep(task, item, b"output\n")
    captured.close()
    for path in [tmp_path / "missing", state, *state.rglob("*")]:
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_a_run_directory_keeps_the_job_file_as_it_was(tmp_path: Path) -> None:
    run = made(tmp_path / "state")
    assert run.path == tmp_path / "state" / "nightly" / "r1"
    assert (run.path / "job.yaml").read_bytes() == b"tasks: {}\n"


# --- what is refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["state", "job"])
@pytest.mark.parametrize("bits", [0o777, 0o770, 0o702])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, level: str, bits: int) -> None:
    state = tmp_path / "state"
    made(state)
    open_to_all = state if level == "state" else state / "nightly"
    open_to_all.chmod(bits)
    with pytest.raises(UnsafeError, match="chmod go-w") as refusal:
        made(state, "r2")
    assert refusal.value.exit_code == 77


@pytest.mark.parametrize("level", ["state", "job"])
def test_a_symlink_is_refused(tmp_path: Path, level: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    state = tmp_path / "state"
    if level == "state":
        state.symlink_to(elsewhere)
    else:
        state.mkdir(mode=0o700)
        (state / "nightly").symlink_to(elsewhere)
    with pytest.raises(UnsafeError, match="JOBRUNNER_STATE"):
        made(state)
    assert list(elsewhere.iterdir()) == []


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: state.stat().st_uid + 1)
    with pytest.raises(UnsafeError, match="belongs to another user"):
        made(state)


def test_a_file_where_the_directory_should_be_is_a_state_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for state in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(StateError, match="set JOBRUNNER_STATE") as refusal:
            made(state)
        assert refusal.value.exit_code == 74


def test_a_place_that_cannot_be_written_is_a_state_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, **_: object) -> None:
        if not path.exists():
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(StateError, match="Permission denied; set JOBRUNNER_STATE"):
        made(tmp_path / "state")


def test_the_same_run_is_never_made_twice(tmp_path: Path) -> None:
    made(tmp_path / "state")
    with pytest.raises(StateError, match="File exists"):
        made(tmp_path / "state")


@pytest.mark.parametrize(("state", "code"), [("shared", 77), ("file", 74)])
def test_the_command_line_exits_with_the_code_of_the_refusal_and_runs_nothing(tmp_path: Path, state: str, code: int) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "job.yaml").write_text("tasks: {a: {run: touch ran}}\n")
    root = Path(__file__).parent.parent
    environ = {**os.environ, "JOBRUNNER_STATE": str(tmp_path / state), "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "jobrunner", str(tmp_path / "job.yaml")]
    ended = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == code
    assert "JOBRUNNER_STATE" in ended.stderr or "chmod" in ended.stderr
    assert not (tmp_path / "ran").exists()


def test_every_refusal_is_a_jobrunner_error() -> None:
    assert issubclass(StateError, JobrunnerError)
    assert issubclass(UnsafeError, JobrunnerError)


# --- ids and names -----------------------------------------------------------------------------------------------------------


def test_run_ids_sort_by_the_time_of_their_start_and_are_unique() -> None:
    moments = [0, 1, 59, 86_400, 1_700_000_000, 1_700_000_001, 4_102_444_800]
    ids = [new_run_id(moment) for moment in moments]
    assert ids == sorted(ids)
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{10}", each) for each in ids)
    assert len({new_run_id(0) for _ in range(100)}) == 100


def test_a_run_sorts_behind_the_one_before_it_also_where_the_clock_was_set_back() -> None:
    last = new_run_id(1_700_000_000)
    for moment in (1_600_000_000, 1_700_000_000, 1_699_999_999.9):
        last, before = new_run_id(moment, after=last), last
        assert last > before


# --- which runs there are ------------------------------------------------------------------------------------------------------


def begun(state: Path, run_id: str, job: str = "nightly") -> RunDir:
    run = create(state, job=job, run_id=run_id, job_file=b"")
    run.journal.touch()
    return run


def test_runs_are_told_the_newest_first_and_only_if_they_have_a_journal(tmp_path: Path) -> None:
    ids = [new_run_id(moment) for moment in (1, 2, 3)]
    for each in ids:
        begun(tmp_path, each)
    create(tmp_path, job="nightly", run_id=new_run_id(4), job_file=b"")
    (tmp_path / "nightly" / "notes").mkdir()
    assert [run.id for run in runs(tmp_path, "nightly")] == ids[::-1]
    assert list(runs(tmp_path, "never")) == []


def test_a_run_is_found_by_its_id_whatever_its_job(tmp_path: Path) -> None:
    run = begun(tmp_path, new_run_id(1), job="other")
    begun(tmp_path, new_run_id(1))
    assert find(tmp_path, run.id) == run
    for what in (new_run_id(2), "..", "nightly", ""):
        assert find(tmp_path, what) is None
    assert find(tmp_path / "nowhere", run.id) is None
