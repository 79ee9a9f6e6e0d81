"""Who may run: one run of a job and of its group at a time, told from the lock and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from jobrunner import lock
from jobrunner.errors import JobrunnerError, StateError, UnsafeError
from jobrunner.lock import BusyError, Claim, Holder, claim
from jobrunner.spec import Concurrency

ROOT = Path(__file__).resolve().parent.parent
SINCE = "2024-05-01T02:30:00.000000Z"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def _outside_of_any_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBRUNNER_RUNS", raising=False)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests with a holder that never says who it is."""
    monkeypatch.setattr(lock, "_PATIENCE", 0.0)


def never(holder: Holder, group: str) -> NoReturn:
    raise AssertionError(f"{group} is busy: {holder}")


def holder(job: str = "nightly", *, run_id: str = "r1", pid: int = 0, file: str = "/opt/jobs/nightly.yaml") -> Holder:
    return Holder(pid=pid or os.getpid(), run_id=run_id, since=SINCE, file=file, job=job)


def rule(on_conflict: str = "fail", **more: Any) -> Concurrency:
    return Concurrency.model_validate({"on_conflict": on_conflict, **more})


def held(state: Path, job: str = "nightly", **more: Any) -> Claim:
    """The lock, taken by this process, which has said so."""
    taken = claim(state, job, rule(**more), on_busy=never)
    assert taken is not None
    taken.tell(holder(job))
    return taken


def refused(state: Path, job: str = "nightly", **more: Any) -> BusyError:
    told: list[Holder] = []
    file = more.pop("file", "")
    with pytest.raises(BusyError) as busy:
        claim(state, job, rule(**more), on_busy=lambda holder, group: told.append(holder), file=file)
    return busy.value


# --- taking and giving back ---------------------------------------------------------------------------------------------------


def test_the_lock_is_a_file_for_its_owner_alone_that_stays(state: Path) -> None:
    before = os.umask(0)
    try:
        held(state).close()
    finally:
        os.umask(before)
    file = state / "nightly" / "lock"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [stat.S_IMODE(path.stat().st_mode) for path in (state, state / "nightly")] == [0o700, 0o700]


def test_a_lock_that_was_given_back_can_be_taken_again(state: Path) -> None:
    inode = None
    for _ in range(3):
        with held(state):
            found = (state / "nightly" / "lock").stat().st_ino
            assert inode in (None, found)
            inode = found


def test_who_holds_it_is_written_while_it_is_held_and_no_longer(state: Path) -> None:
    file = state / "nightly" / "lock"
    with held(state) as taken:
        written = json.loads(file.read_text())
        assert written.pop("started") > 0
        assert written == {"pid": os.getpid(), "run_id": "r1", "since": SINCE, "file": "/opt/jobs/nightly.yaml", "job": "nightly"}
    assert file.read_text() == ""
    taken.close()  # once more changes nothing


@pytest.mark.usefixtures("_impatient")
def test_a_holder_is_named_before_it_has_a_run(state: Path) -> None:
    with claim(state, "nightly", rule(), on_busy=never, file="nightly.yaml") or never(lock.UNKNOWN, ""):
        found = refused(state).holder
    assert (found.pid, found.run_id, found.file) == (os.getpid(), "", os.path.abspath("nightly.yaml"))


def test_different_jobs_do_not_meet(state: Path) -> None:
    with held(state, "a"), held(state, "b"):
        pass


def test_a_path_that_is_no_utf_8_can_be_told(state: Path) -> None:
    with held(state) as taken:
        taken.tell(holder(file="/jobs/\udcff.yaml"))
        assert refused(state).holder.file == "/jobs/\\udcff.yaml"


@pytest.mark.usefixtures("_impatient")
def test_a_disk_that_is_full_leaves_the_holder_unknown_and_the_lock_held(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with held(state):
        assert refused(state).holder == lock.UNKNOWN


# --- it is busy: fail and skip ------------------------------------------------------------------------------------------------


def test_a_busy_job_is_refused_with_all_that_is_known_of_the_holder_and_what_to_do(state: Path) -> None:
    with held(state):
        error = refused(state)
    assert isinstance(error, JobrunnerError)
    assert error.exit_code == 75
    assert str(error) == (
        f"nightly is already running (pid {os.getpid()}, run r1, since {SINCE}, job file /opt/jobs/nightly.yaml)."
        " To wait for its end instead: `concurrency: {on_conflict: wait}`"
    )


def test_two_job_files_of_one_name_are_told_to_differ(state: Path, tmp_path: Path) -> None:
    with held(state):
        assert "share the name nightly; give one of them another `name`" in str(refused(state, file=tmp_path / "nightly.yaml"))


def test_the_same_file_by_another_path_is_the_same_job(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, link = tmp_path / "nightly.yaml", tmp_path / "link.yaml"
    file.touch()
    link.symlink_to(file)
    monkeypatch.chdir(tmp_path)
    with held(state) as taken:
        taken.tell(holder(file=str(file)))
        for path in (link, "nightly.yaml", "./link.yaml"):
            assert "already running" in str(refused(state, file=path))
            assert "share the name" not in str(refused(state, file=path))


def test_skip_tells_who_is_in_the_way_and_gives_nothing(state: Path) -> None:
    told: list[tuple[str, str]] = []
    with held(state):
        assert claim(state, "nightly", rule("skip"), on_busy=lambda holder, group: told.append((holder.run_id, group))) is None
    assert told == [("r1", "nightly")]
    held(state).close()


TORN = [
    b"",
    b"\n",
    b'{"pid": 12, "run_id": "r',
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b'{"pid": "x"}',
    b'{"pid": 1}',
    b"[" * 70_000,
    b"9" * 100_000,
]


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("content", TORN, ids=lambda content: repr(content[:20]))
@pytest.mark.parametrize("on_conflict", ["fail", "skip", "wait", "replace"])
def test_a_torn_content_breaks_nothing(state: Path, content: bytes, on_conflict: str) -> None:
    told: list[Holder] = []
    with held(state):
        (state / "nightly" / "lock").write_bytes(content)
        if on_conflict == "skip":
            assert claim(state, "nightly", rule("skip"), on_busy=lambda holder, group: told.append(holder)) is None
            assert told == [lock.UNKNOWN]
        else:
            error = refused(state, on_conflict=on_conflict, wait=0)
            assert error.holder == lock.UNKNOWN
            assert "who it is, is not known" in str(error)


@pytest.mark.usefixtures("_impatient")
def test_a_number_that_is_no_process_breaks_nothing(state: Path) -> None:
    for pid in (-1, 1 << 22, 1 << 40, 1 << 70):
        with held(state):
            written = {"pid": pid, "run_id": "r", "since": "", "file": "", "job": "", "started": 1}
            (state / "nightly" / "lock").write_text(json.dumps(written))
            assert refused(state, on_conflict="replace", wait=0).holder.run_id == "r"


# --- groups -------------------------------------------------------------------------------------------------------------------


def test_jobs_of_one_group_exclude_each_other_and_the_text_names_both(state: Path) -> None:
    with held(state, "load", group="etl") as taken:
        assert len(taken.fds) == 2
        error = refused(state, "extract", group="etl")
        held(state, "other", group="web").close()
    assert str(error).startswith(f"extract may not run now: group etl is held by load (pid {os.getpid()}, run r1, since {SINCE}")
    held(state, "extract", group="etl").close()


def test_a_job_alone_is_its_own_group(state: Path) -> None:
    with held(state, "nightly") as taken:
        assert len(taken.fds) == 1
        refused(state, "report", group="nightly")
    with held(state, "report", group="nightly"):
        refused(state, "nightly")
        refused(state, "nightly", group="nightly")


def test_a_job_that_is_refused_for_its_group_does_not_keep_its_own_lock(state: Path) -> None:
    with held(state, "b"):
        refused(state, "a", group="b")
        refused(state, "c", group="b")
        held(state, "a").close()
        held(state, "c").close()


def test_two_jobs_that_name_each_other_as_group_take_the_locks_in_one_order(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    take = lock._Lock.take

    def noted(self: lock._Lock, us: Holder) -> bool:
        order.append(self.name)
        return take(self, us)

    monkeypatch.setattr(lock._Lock, "take", noted)
    held(state, "a", group="b").close()
    held(state, "b", group="a").close()
    assert order == ["a", "b", "a", "b"]


# --- other processes ----------------------------------------------------------------------------------------------------------


def forked(work: Callable[[], int]) -> int:
    """The pid of a child that does `work` and exits with its result, 99 if it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the test runner may have a thread for its timeout
        pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        code = work()
    finally:
        os._exit(code)


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Other:
    """A process that holds the lock until it is let go, ended, or told to stop by TERM, which it obeys at once."""

    def __init__(self, state: Path, job: str = "nightly", **more: Any) -> None:
        ready, tell_ready = os.pipe()
        hold, self._let_go = os.pipe()

        def work() -> int:
            os.close(self._let_go)
            with held(state, job, **more):
                os.write(tell_ready, b"x")
                os.read(hold, 1)
            return 0

        self.pid = forked(work)
        self._holds = True
        for fd in (tell_ready, hold):
            os.close(fd)
        assert os.read(ready, 1) == b"x"
        os.close(ready)

    def let_go(self) -> None:
        if self._holds:
            os.close(self._let_go)
        self._holds = False

    def end(self) -> int:
        self.let_go()
        return exit_code(self.pid)


def test_of_100_simultaneous_starts_exactly_one_runs_and_all_others_name_it(state: Path) -> None:
    results, tell = os.pipe()
    start, go = os.pipe()
    over, end = os.pipe()

    def work() -> int:
        for fd in (go, end):
            os.close(fd)
        os.read(start, 1)
        try:
            with claim(state, "nightly", rule(), on_busy=never) or never(lock.UNKNOWN, "") as taken:
                taken.tell(holder(run_id="winner"))
                os.write(tell, b"%d runs\n" % os.getpid())
                os.read(over, 1)
        except BusyError as error:
            os.write(tell, f"{error.holder.pid} {error.holder.run_id}\n".encode())
        return 0

    pids = [forked(work) for _ in range(100)]
    for fd in (tell, start, over, go):  # closing `go` starts them all
        os.close(fd)
    with open(results, "rb") as file:
        lines = [file.readline().decode().split() for _ in pids]
        os.close(end)
        assert file.read() == b""
    assert [exit_code(pid) for pid in pids] == [0] * 100
    ((winner, _),) = [line for line in lines if line[1] == "runs"]
    assert int(winner) in pids
    assert [line for line in lines if line[1] != "runs"] == [[winner, "winner"]] * 99


def test_a_lock_left_by_a_killed_run_needs_no_clean_up(state: Path) -> None:
    other = Other(state)
    assert refused(state).holder.pid == other.pid
    os.kill(other.pid, signal.SIGKILL)
    assert other.end() == -signal.SIGKILL
    assert json.loads((state / "nightly" / "lock").read_text())["pid"] == other.pid
    with held(state):
        assert refused(state).holder.pid == os.getpid()


def test_a_process_that_is_executed_never_inherits_the_lock(state: Path) -> None:
    taken = held(state)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False) as child:
        taken.close()
        held(state).close()
        assert child.stdin is not None
        child.stdin.close()


@pytest.mark.usefixtures("_impatient")
def test_a_duplicate_of_the_descriptors_holds_the_lock_as_well(state: Path) -> None:
    taken = held(state)
    duplicates = [os.dup(fd) for fd in taken.fds]
    taken.close()
    refused(state)
    for fd in duplicates:
        os.close(fd)
    held(state).close()


def test_wait_begins_when_the_other_has_ended_and_is_told_once(state: Path) -> None:
    other = Other(state)
    told: list[tuple[int, str]] = []

    def busy(holder: Holder, group: str) -> None:
        told.append((holder.pid, group))
        other.let_go()

    with claim(state, "nightly", rule("wait"), on_busy=busy) or never(lock.UNKNOWN, "") as taken:
        taken.tell(holder())
        assert told == [(other.pid, "nightly")]
        assert refused(state, wait=0).holder.pid == os.getpid()
    assert other.end() == 0


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("on_conflict", ["wait", "replace"])
def test_a_wait_ends_after_its_time_with_the_holders_name(state: Path, on_conflict: str) -> None:
    with held(state) as taken:
        taken.tell(Holder(pid=os.getppid(), run_id="r1", since=SINCE, file="", job="nightly", started=1))
        error = refused(state, on_conflict=on_conflict, wait=0.05)
    assert error.holder.run_id == "r1"
    assert "It has not ended within 0.05 s; a longer `wait`" in str(error)


def test_term_ends_a_wait_at_once_by_its_default_action(state: Path) -> None:
    ready, tell = os.pipe()

    def busy(holder: Holder, group: str) -> None:
        os.write(tell, b"x")

    def work() -> int:
        claim(state, "nightly", rule("wait"), on_busy=busy)
        return 0

    with held(state):
        pid = forked(work)
        assert os.read(ready, 1) == b"x"
        os.kill(pid, signal.SIGTERM)
        assert exit_code(pid) == -signal.SIGTERM
    for fd in (ready, tell):
        os.close(fd)


def test_replace_stops_the_holder_and_takes_its_place(state: Path) -> None:
    other = Other(state)
    told: list[int] = []
    with claim(state, "nightly", rule("replace"), on_busy=lambda holder, group: told.append(holder.pid)) or never(
        lock.UNKNOWN, ""
    ):
        assert told == [other.pid]
    assert other.end() == -signal.SIGTERM


@pytest.mark.usefixtures("_impatient")
def test_replace_signals_nobody_but_the_very_process_that_holds_the_lock(state: Path) -> None:
    """The number is right, the start time is not: it has been given to another process meanwhile."""
    bystander = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    with held(state) as taken:
        taken.tell(Holder(pid=bystander.pid, run_id="r1", since=SINCE, file="", job="nightly", started=1))
        refused(state, on_conflict="replace", wait=0)
    bystander.communicate()
    assert bystander.returncode == 0


def test_replace_does_not_stop_the_process_that_asks_for_it(state: Path) -> None:
    with held(state):
        assert "would wait for itself" in str(refused(state, on_conflict="replace"))


@pytest.mark.parametrize("on_conflict", ["wait", "replace"])
def test_a_task_that_starts_its_own_job_does_not_wait_for_itself(
    state: Path, on_conflict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Other(state)
    monkeypatch.setenv("JOBRUNNER_RUNS", "r0:r1")
    assert "held by the run that started this one" in str(refused(state, on_conflict=on_conflict))
    assert other.end() == 0


# --- the state directory misbehaves -------------------------------------------------------------------------------------------


def test_a_state_directory_that_is_deleted_meanwhile_does_not_give_the_lock_twice(state: Path) -> None:
    """Who waits goes for the file that is at the path when its turn comes, as everybody else does."""
    other = Other(state)

    def busy(holder: Holder, group: str) -> None:
        (state / "nightly" / "lock").rename(state / "moved")
        other.let_go()

    with claim(state, "nightly", rule("wait"), on_busy=busy) or never(lock.UNKNOWN, "") as taken:
        taken.tell(holder())
        refused(state)
    assert other.end() == 0


def place(state: Path, kind: str) -> None:
    folder = state / "nightly"
    folder.mkdir(parents=True, mode=0o700)
    file = folder / "lock"
    match kind:
        case "symlink":
            (state / "victim").write_text("precious")
            file.symlink_to(state / "victim")
        case "dangling":
            file.symlink_to(state / "victim")
        case "fifo":
            os.mkfifo(file)
        case "directory":
            file.mkdir()
        case "folder is a symlink":
            folder.rename(state / "elsewhere")
            folder.symlink_to(state / "elsewhere")


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("symlink", UnsafeError, "is a symlink: remove it"),
        ("dangling", UnsafeError, "is a symlink: remove it"),
        ("fifo", UnsafeError, "is not a regular file"),
        ("directory", StateError, "Is a directory; set JOBRUNNER_STATE"),
        ("folder is a symlink", UnsafeError, "not a directory of its own"),
    ],
)
def test_what_lies_in_the_place_of_the_lock_is_refused_and_left_alone(
    state: Path, kind: str, error: type[JobrunnerError], message: str
) -> None:
    state.mkdir(mode=0o700)
    place(state, kind)
    with pytest.raises(error, match=message):
        claim(state, "nightly", rule(), on_busy=never)
    victim = state / "victim"
    assert victim.read_text() == "precious" if kind == "symlink" else not victim.exists()


@pytest.mark.parametrize(("number", "code"), [(30, 74), (13, 74), (28, 74), (5, 74)], ids=["EROFS", "EACCES", "ENOSPC", "EIO"])
def test_a_state_directory_that_takes_no_lock_is_a_state_error(
    state: Path, number: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    held(state).close()

    def fails(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(StateError, match=f"cannot lock .*{os.strerror(number)}; set JOBRUNNER_STATE") as refusal:
        claim(state, "nightly", rule(), on_busy=never)
    assert refusal.value.exit_code == code


def test_a_file_system_without_locks_is_a_state_error(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> NoReturn:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(StateError, match="No locks available; set JOBRUNNER_STATE"):
        claim(state, "nightly", rule(), on_busy=never)


def test_a_refusal_leaves_no_descriptor_open(state: Path) -> None:
    with held(state):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            refused(state)
            refused(state, "other", group="nightly")
        assert len(os.listdir("/proc/self/fd")) == before


def test_it_loads_without_the_engine() -> None:
    code = "import sys, jobrunner.lock; print(*sorted(m for m in sys.modules if 'jobrunner.e' in m))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["jobrunner.encoding", "jobrunner.errors", "jobrunner.events"]
