"""What hosts do when things go wrong: they die with their engine, leave nothing, say where they stood and what they lacked."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner import host, work
from jobrunner.executors import hosts, limits, stacks
from jobrunner.work import Exhausted, Outcome, Resources, Result, StopRule, WorkerStarted
from tests.harness import open_descriptors
from tests.hostpool import ROOT, Driven, driven

METHODS = ("fork", "spawn")
ALONE = ("serial", "process", "process_pool")
WITH_STACK = StopRule(signal=signal.SIGTERM, grace=5.0, with_stack=True)


def wait_for(path: Path, run: Driven) -> None:
    run.until(path.exists)


def is_alive(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- the engine is killed ------------------------------------------------------------------------------------------------------

ENGINE = """
import json, sys, time
from jobrunner.work import WorkerStarted
from tests.hostpool import Driven

pids, runs = {}, []
for mode in ("serial", "thread", "thread_pool", "process", "process_pool"):
    for state in ("idle", "busy", "stopped"):
        run = Driven(mode, sys.argv[1], workers=1)
        runs.append(run)
        if mode != "process":  # there no host is ever idle
            run.start(1, "quick")
            run.result(1)
        if mode == "process" or state != "idle":
            run.start(2, "sleeps")
            run.began(2)
        pids[f"{mode}, {state}"] = run.of(WorkerStarted)[-1].pid
print(json.dumps(pids), flush=True)
time.sleep(60)
"""
"""An engine with hosts of every mode that are idle, busy, and busy until they are stopped."""


@contextlib.contextmanager
def engine(code: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", code, *words], cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def survivors(process: subprocess.Popen[bytes]) -> list[str]:
    """The hosts that do not end soon after SIGKILL to their engine; those called so are stopped before."""
    assert process.stdout is not None
    pids: dict[str, int] = json.loads(process.stdout.readline())
    with contextlib.ExitStack() as held:
        pidfds = {name: os.pidfd_open(pid) for name, pid in pids.items()}
        for pidfd in pidfds.values():
            held.callback(os.close, pidfd)
        for name, pidfd in pidfds.items():
            if "stopped" in name:
                signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        process.kill()
        return [name for name, pidfd in pidfds.items() if not select.select([pidfd], [], [], 10)[0]]


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_engine_leaves_no_host_whatever_it_does(method: str) -> None:
    with engine(ENGINE, method) as process:
        assert survivors(process) == []


STARTING = """
import json, sys, time
from jobrunner.executors import children
from tests.hostpool import Driven

started = children.start_host
def told(*args, **more):
    child = started(*args, **more)
    print(json.dumps({"starting": child.pid}), flush=True)
    time.sleep(60)
from jobrunner.executors import pool
pool.start_host = told
Driven("process", sys.argv[1]).start(1, "sleeps")
"""


@pytest.mark.parametrize("method", METHODS)
def test_an_engine_that_is_killed_while_a_host_starts_leaves_no_host(method: str) -> None:
    with engine(STARTING, method) as process:
        assert survivors(process) == []


class Closing:
    """Garbage that closes descriptors when it is collected, in a process that it was not made in."""

    def __init__(self) -> None:
        self.itself, self.pid = self, os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.pid:
            os.closerange(3, 5)


@pytest.mark.parametrize("mode", ["serial", "process_pool", "thread_pool"])
def test_a_host_does_not_collect_the_garbage_of_its_engine(mode: str) -> None:
    gc.disable()
    try:
        Closing()
        with driven(mode) as run:
            run.start(1, "gc:collect")
            assert run.result(1).outcome is Outcome.SUCCEEDED
    finally:
        gc.enable()


# --- what is left behind -------------------------------------------------------------------------------------------------------

LEAVER = """
import json, os, sys
from pathlib import Path
from jobrunner import system
from jobrunner.executors.reaper import Reaper
from jobrunner.work import Leftover, Result
from tests.hostpool import Driven

assert system.become_subreaper()
found = {}
for name in sys.argv[1:]:
    mode, method, ending, mark = name.split(",")
    run = Driven(mode, method, reaper=Reaper(inherits=True))
    run.start(7, "leaves_a_daemon", mark, ending)
    result = run.result(7)
    pid = int(Path(mark).read_text())
    alive = os.path.exists(f"/proc/{pid}")
    run.close()
    order = [type(each).__name__ for each in run.reports if isinstance(each, Leftover | Result)]
    whose = [each.id for each in run.of(Leftover) if each.pids == (pid,)]
    found[f"{mode},{method},{ending}"] = [result.outcome, alive, os.path.exists(f"/proc/{pid}"), whose, order]
print(json.dumps(found))
"""
"""Attempts that leave a daemon. Of each: its outcome, whether the daemon lived when that was told and when the pool was closed,
whose it was said to be, and what was reported first."""
ENDINGS = {"quick": "succeeded", "fails": "failed", "kills_itself": "crashed"}
SHARED = ("process_pool", "serial", "thread", "thread_pool")


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    cases = [("process", method, ending) for method in METHODS for ending in ENDINGS]
    cases += [(mode, "fork", ending) for mode in SHARED for ending in ("fails", "kills_itself")]
    folder = tmp_path_factory.mktemp("left")
    words = [",".join((*case, str(folder / f"mark-{number}"))) for number, case in enumerate(cases)]
    ended = subprocess.run([sys.executable, "-c", LEAVER, *words], cwd=ROOT, capture_output=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, list[Any]] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_an_attempt_with_a_process_of_its_own_ends_when_nothing_of_it_is_left(
    ending: str, method: str, left: dict[str, list[Any]]
) -> None:
    assert left[f"process,{method},{ending}"] == [ENDINGS[ending], False, False, [7], ["Leftover", "Result"]]


@pytest.mark.parametrize("mode", SHARED)
def test_an_attempt_that_ends_its_host_has_ended_when_nothing_of_it_is_left(mode: str, left: dict[str, list[Any]]) -> None:
    assert left[f"{mode},fork,kills_itself"] == ["crashed", False, False, [0], ["Leftover", "Result"]]


@pytest.mark.parametrize("mode", SHARED)
def test_a_host_that_is_used_again_keeps_what_was_left_until_it_ends(mode: str, left: dict[str, list[Any]]) -> None:
    assert left[f"{mode},fork,fails"] == ["failed", True, False, [0], ["Result", "Leftover"]]


@pytest.mark.parametrize("method", METHODS)
def test_a_failed_attempt_is_told_when_its_threads_are_gone_too(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_LONGEST_HOLD", 0.2)
    with driven("process", method) as run:
        run.start(1, "fails_beside_a_thread")
        assert run.result(1).outcome is Outcome.FAILED
        assert not is_alive(run.began(1).pid)


def test_a_success_does_not_wait_for_threads_that_it_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_LONGEST_HOLD", 0.2)
    with driven("process") as run:
        run.start(1, "succeeds_beside_a_thread")
        assert run.result(1).outcome is Outcome.SUCCEEDED
        assert is_alive(run.began(1).pid)


# --- where it stood ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for a busy machine."""
    for module in (stacks, hosts):
        monkeypatch.setattr(module, "PATIENCE", 20.0)


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ALONE)
def test_the_stack_of_a_stopped_attempt_shows_its_own_frames(mode: str, method: str, tmp_path: Path) -> None:
    with driven(mode, method) as run:
        run.start(1, "sleeps", str(tmp_path / "mark"))
        wait_for(tmp_path / "mark", run)
        run.pool.stop(1, WITH_STACK)
        result = run.result(1)
    assert result.signal == signal.SIGTERM
    header, *frames, inner, outer = result.stack.splitlines()
    assert "most recent call first" in header
    assert not any("jobrunner/" in frame for frame in frames)
    assert "tests/targets/hosts.py" in inner
    assert inner.endswith("in _sleep_inside")
    assert outer.endswith("in sleeps")


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("mode", ALONE)
def test_the_stack_comes_from_a_task_that_never_lets_go_of_the_interpreter(mode: str, tmp_path: Path) -> None:
    with driven(mode) as run:
        run.start(1, "holds_the_interpreter", str(tmp_path / "mark"))
        wait_for(tmp_path / "mark", run)
        run.pool.stop(1, WITH_STACK)
        assert run.result(1).stack.endswith("in holds_the_interpreter")


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("mode", ["thread", "thread_pool"])
def test_the_stack_of_an_abandoned_thread_is_that_of_its_attempt(mode: str, tmp_path: Path) -> None:
    with driven(mode) as run:
        run.start(1, "sleeps", str(tmp_path / "mark"))
        run.start(2, "sleeps", str(tmp_path / "other"))
        wait_for(tmp_path / "mark", run)
        wait_for(tmp_path / "other", run)
        run.pool.stop(1, WITH_STACK)
        result = run.result(1)
    assert result.abandoned
    header, *_, inner, outer = result.stack.splitlines()
    assert header == "Thread (most recent call first):"
    assert inner.endswith("in _sleep_inside")
    assert outer.endswith("in sleeps")


def test_a_thread_that_holds_the_interpreter_is_abandoned_without_its_stack(tmp_path: Path) -> None:
    with driven("thread") as run:
        run.start(1, "holds_the_interpreter", str(tmp_path / "mark"))
        wait_for(tmp_path / "mark", run)
        asked = time.monotonic()
        run.pool.stop(1, WITH_STACK)
        assert (run.result(1).abandoned, run.result(1).stack) == (True, "")
        assert time.monotonic() - asked < stacks.PATIENCE + 5


@pytest.mark.parametrize("mode", ALONE)
def test_a_stopped_process_is_not_waited_for_but_killed_after_its_grace(mode: str) -> None:
    with driven(mode) as run:
        run.start(1, "stops_itself")
        pid = run.began(1).pid
        run.until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        run.pool.stop(1, StopRule(signal=signal.SIGTERM, grace=0.2, with_stack=True))
        assert (run.result(1).signal, run.result(1).stack) == (signal.SIGKILL, "")


def test_a_task_that_has_dropped_all_handlers_gets_its_own_signal_all_the_same(tmp_path: Path) -> None:
    with driven("process") as run:
        run.start(1, "drops_all_handlers", str(tmp_path / "mark"))
        wait_for(tmp_path / "mark", run)
        run.pool.stop(1, StopRule(signal=signal.SIGUSR2, grace=5, with_stack=True))
        assert (run.result(1).signal, run.result(1).stack) == (signal.SIGUSR2, "")


def test_a_stack_that_is_deep_is_cut_and_waited_for_no_longer_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "PATIENCE", 2.0)  # it has no lowest frame, which would tell that it is complete
    with driven("process") as run:
        run.start(1, "waits_deep", 500, str(tmp_path / "mark"))
        wait_for(tmp_path / "mark", run)
        run.pool.stop(1, WITH_STACK)
        lines = run.result(1).stack.splitlines()
    assert any(line.endswith("in _sleep_inside") for line in lines)
    assert sum(line.endswith("in waits_deep") for line in lines) < 100
    assert lines[-1].strip() == "..." or sys.version_info >= (3, 13)  # which does not say that it has cut it


@pytest.mark.parametrize("method", METHODS)
def test_a_crash_in_c_code_tells_where_it_was(method: str) -> None:
    with driven("process_pool", method) as run:
        run.start(1, "segfaults")
        result = run.result(1)
    assert (result.outcome, result.signal) == (Outcome.CRASHED, signal.SIGSEGV)
    assert result.stack.startswith("Fatal Python error: Segmentation fault")
    assert result.stack.splitlines()[-1].endswith("in segfaults")


def test_a_stack_is_the_frames_of_the_task_alone() -> None:
    ours = "".join(f'  File "{each}", line 9 in f\n' for each in (work.__file__, host.__file__))
    theirs = 'Current thread 0x02 (most recent call first):\n  File "a.py", line 1 in g\n'
    text = f"Thread 0x01 (most recent call first):\n{ours}\n{theirs}{ours}"
    assert stacks.tidy(text) == stacks.tidy(text + '  File "torn') == theirs.strip()


# --- why it died ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "target", "args", "message"),
    [
        ("process", "segfaults", [], "killed by SIGSEGV"),
        ("process_pool", "kills_itself", [], "killed by SIGKILL"),
        ("serial", "exits", [3], "worker lost: exit 3 before the task returned"),
        ("process", "exits", [0], "worker lost: exit 0 before the task returned"),
        ("thread", "kills_itself", [], "killed by SIGKILL"),
    ],
)
def test_a_death_is_told_in_words(mode: str, target: str, args: list[int], message: str) -> None:
    with driven(mode) as run:
        run.start(1, target, *args)
        error = run.result(1).error
    assert error is not None
    assert (error.type, error.message) == ("WorkerDied", message)


def test_neighbours_of_a_thread_that_ends_their_process_are_told_so(tmp_path: Path) -> None:
    with driven("thread") as run:
        run.start(1, "sleeps", str(tmp_path / "mark"))
        wait_for(tmp_path / "mark", run)
        run.start(2, "segfaults")
        errors = [run.result(number).error for number in (1, 2)]
    assert [error and error.message for error in errors] == ["worker lost: its process was killed by SIGSEGV"] * 2


def test_a_dead_process_tells_what_it_used() -> None:
    with driven("process") as run:
        run.start(1, "kills_itself")
        result = run.result(1)
    assert result.max_rss is not None
    assert result.max_rss > 1 << 20
    assert result.cpu is not None


def test_a_process_that_the_kernel_killed_for_memory_is_told_so(tmp_path: Path) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("oom 0\noom_kill 0\n")
    with driven("process", workers=1) as run:
        run.pool.kernel_kills = limits.KernelKills([counter])
        run.start(1, "sleeps")
        counter.write_text("oom 1\noom_kill 1\n")
        os.kill(run.began(1).pid, signal.SIGKILL)
        error = run.result(1).error
        assert error is not None
        assert error.type == "OutOfMemory"
        assert error.message.startswith("out of memory (killed by the kernel, peak ")
        run.start(2, "kills_itself")
        assert (run.result(2).error or error).message == "killed by SIGKILL"


# --- what it may use -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_resources_are_taken_on(method: str) -> None:
    resources = Resources(memory=1 << 30, nice=os.nice(0) + 3, cpus=1)
    with driven("process", method) as run:
        run.start(1, "limits", resources=resources)
        result = run.result(1)
    assert result.json() == {"memory": 1 << 30, "nice": min(os.nice(0) + (resources.nice or 0), 19), "cpus": 1}


def test_attempts_at_the_same_time_are_on_cpus_of_their_own() -> None:
    there = sorted(os.sched_getaffinity(0))
    with driven("process", workers=2) as run:
        for number in (1, 2):
            run.start(number, "cpus", resources=Resources(cpus=1))
        found = [run.result(number).json() for number in (1, 2)]
    assert sorted(cpu for each in found for cpu in each) == (there[:2] if len(there) > 1 else there * 2)
    assert sorted(os.sched_getaffinity(0)) == there


def _held() -> int:
    """Bytes that this process, in which thousands of tests have run, would hand on to a fork, and that its limit counts."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) << 10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", ["takes", "takes_little_by_little"])
def test_an_attempt_that_is_out_of_memory_says_so(target: str, method: str) -> None:
    with driven("process", method) as run:
        run.start(1, target, 1024, resources=Resources(memory=_held() + (256 << 20)))
        result = run.result(1)
    assert result.outcome is Outcome.FAILED, result
    assert result.error is not None
    assert result.error.type == "OutOfMemory", result.error
    assert result.error.message.startswith("out of memory (limit ")
    assert f"in {target}" in result.error.traceback


@pytest.mark.parametrize(("target", "kind"), [("fails", "ValueError"), ("is_wrong_inside", "SystemError")])
def test_other_errors_under_a_limit_stay_what_they_are(target: str, kind: str) -> None:
    with driven("process") as run:
        run.start(1, target, resources=Resources(memory=1 << 30))
        error = run.result(1).error
    assert error is not None
    assert error.type == kind


def test_less_memory_than_python_takes_is_no_start() -> None:
    with driven("process") as run:
        run.start(1, "quick", resources=Resources(memory=1 << 20))
        error = run.result(1).error
    assert error is not None
    assert error.message.startswith("could not start: resources: memory 1 MiB is less than the ")


def test_a_niceness_that_is_not_ours_to_have_is_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "nice", refuse)  # who runs the tests may be root
    with driven("process") as run:
        run.start(1, "quick", resources=Resources(nice=-5))
        error = run.result(1).error
    assert error is not None
    assert (error.type, error.message) == ("PermissionError", "could not start: resources: nice -5: Operation not permitted")


# --- no room -------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def room_for(descriptors: int) -> Iterator[None]:
    """No more descriptors than so many can be opened."""
    gc.collect()  # what it closes must not make room later
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + descriptors, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("room", range(7))
def test_a_host_that_there_is_no_descriptor_for_is_told_and_leaves_nothing(room: int, method: str) -> None:
    with driven("process", method) as run:
        before = open_descriptors()
        with room_for(room):
            run.start(1, "quick")
        assert [each.id for each in run.of(Exhausted)] == [1]
        assert "Too many open files" in run.of(Exhausted)[0].reason
        assert open_descriptors() == before
        run.start(1, "quick", "there is room")
        assert run.result(1).json() == "there is room"


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOMEM, errno.ENFILE])
@pytest.mark.parametrize("call", ["fork", "pidfd_open", "pipe"])
def test_a_host_that_there_is_no_room_for_is_told_and_leaves_nothing(
    call: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with driven("process") as run:
        before = open_descriptors()
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refuse)
            run.start(1, "sleeps")
        assert [each.reason for each in run.of(Exhausted)] == [f"no room for one more worker process: {os.strerror(code)}"]
        assert open_descriptors() == before
        assert not run.of(Result)
        assert not run.of(WorkerStarted)
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def test_a_start_that_cannot_ever_work_is_a_failure_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with driven("process", "spawn") as run:
        run.start(1, "quick")
        error = run.result(1).error
    assert error is not None
    assert error.message == "could not start a worker process: No such file or directory"


def test_a_call_longer_than_the_socket_passes_without_a_free_descriptor() -> None:
    text = "x" * (8 << 20)
    with driven("process_pool", workers=1) as run:
        run.start(1, "quick")
        run.result(1)
        with room_for(0):
            run.start(2, "quick", text)
            assert len(run.result(2).json()) == len(text)
    assert not run.of(Exhausted)
