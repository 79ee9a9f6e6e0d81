"""Processes: what a run has started is found by its cookie or its mark, and ended to the last one; nobody else is."""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner import processes, system
from jobrunner.processes import COOKIE, Exit

Started = Callable[..., subprocess.Popen[bytes]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux has /proc")


@pytest.fixture
def run_id() -> str:
    """Of a run that nobody else knows."""
    return secrets.token_hex(8)


@pytest.fixture
def started() -> Iterator[Started]:
    """Starts `sleep`, or a script that prints a line as soon as it is ready."""
    running: list[subprocess.Popen[bytes]] = []

    def start(script: str = "", **options: Any) -> subprocess.Popen[bytes]:
        command = ["/bin/sh", "-c", script] if script else ["sleep", "300"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, **options)
        running.append(process)
        assert process.stdout is not None
        if script:
            process.stdout.readline()
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def with_cookie(*run_ids: str) -> dict[str, str]:
    return {**os.environ, COOKIE: ":".join(run_ids)}


def pids(found: list[processes.Found]) -> set[int]:
    for each in found:
        os.close(each.pidfd)
    return {each.pid for each in found}


# --- of_run, end_run -----------------------------------------------------------------------------------------------------------


def test_a_program_is_found_by_the_cookie_in_its_environment(run_id: str, started: Started) -> None:
    process = started(env=with_cookie("outer", run_id, "inner"), start_new_session=True)
    (found,) = processes.of_run(run_id, "")
    os.close(found.pidfd)
    assert (found.pid, found.command) == (process.pid, "sleep 300")


def test_a_program_in_the_middle_of_an_exec_is_found(run_id: str, started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment is empty for a moment."""
    process, read, looks = started(env=with_cookie(run_id)), processes._read, list[int]()

    def emptied(pid: int, name: str) -> bytes:
        if pid == process.pid and name == "environ":
            looks.append(pid)
            if len(looks) < 3:
                return b""
        return read(pid, name)

    monkeypatch.setattr(processes, "_read", emptied)
    assert pids(processes.of_run(run_id, "")) == {process.pid}


def test_a_program_without_any_environment_does_not_hold_up_the_search(run_id: str, started: Started) -> None:
    process = started(env={})
    assert processes.environment(process.pid) == []
    assert processes.of_run(run_id, "") == []


def test_a_cookie_is_compared_as_a_whole(run_id: str, started: Started) -> None:
    started(env=with_cookie(f"{run_id}0"))
    started(env={**os.environ, f"X{COOKIE}": run_id})
    started(env={**os.environ, "OTHER": f"{COOKIE}={run_id}"})
    assert processes.of_run(run_id, "") == []


def test_a_daemon_that_was_only_forked_is_found_by_its_mark(run_id: str, tmp_path: Path) -> None:
    mark = tmp_path / "a mark\nof two lines"
    mark.write_bytes(b"x")
    near, far = os.pipe()
    if not (pid := os.fork()):
        os.setsid()
        with open(mark, "rb") as file:
            held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        os.write(far, b".")
        while held:
            signal.pause()
    os.read(near, 1)
    try:
        link = tmp_path / "link"
        link.symlink_to(tmp_path)
        assert pids(processes.of_run(run_id, str(link / mark.name))) == {pid}
        assert processes.of_run(run_id, str(tmp_path / "a mark")) == []
        mark.unlink()
        assert {each.pid for each in processes.end_run(run_id, str(mark), 5)} == {pid}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(near)
        os.close(far)


def test_a_program_with_an_environment_of_its_own_cannot_be_found(run_id: str, started: Started) -> None:
    started("echo; exec env -i sleep 300", env=with_cookie(run_id))
    deadline = time.monotonic() + 10
    while pids(processes.of_run(run_id, "")):  # until it is `sleep`
        assert time.monotonic() < deadline


def test_this_process_and_its_ancestors_are_never_found(run_id: str, started: Started) -> None:
    program = (
        "import os, sys; from jobrunner import processes;"
        "print([each.command.split()[0] for each in processes.of_run(sys.argv[1], '')], flush=True)"
    )
    script = f'sleep 300 & p=$!; "{sys.executable}" -c "{program}" {run_id}; kill $p'
    env = {**with_cookie(run_id), "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(["/bin/sh", "-c", script], env=env, capture_output=True, text=True, check=False)
    assert ended.stdout in ("['sleep']\n", "['/bin/sh']\n"), ended.stderr  # its shell may not yet have become `sleep`


def test_everything_of_a_run_is_ended_and_named(run_id: str, started: Started) -> None:
    mine = [started("trap '' TERM; echo; while :; do sleep 300; done", env=with_cookie(run_id)) for _ in range(3)]
    other = started(env=with_cookie("another"))
    ended = processes.end_run(run_id, "", 5)
    assert {process.pid for process in mine} <= {each.pid for each in ended}
    assert all(each.pidfd == -1 for each in ended)
    assert [process.wait(timeout=5) for process in mine] == [-signal.SIGKILL] * 3
    assert other.poll() is None
    assert processes.end_run(run_id, "", 5) == []


def test_ending_a_run_leaves_no_descriptor_open(run_id: str, started: Started) -> None:
    before = os.listdir("/proc/self/fd")
    process = started(env=with_cookie(run_id))
    processes.end_run(run_id, "", 5)
    process.wait()
    assert process.stdout is not None
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1


def test_a_number_that_became_somebody_elses_is_not_signalled(
    run_id: str, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that was seen ends and its number is given away before it can be held: the one that is held is looked at."""
    process = started(env=with_cookie(run_id))
    looks = []
    belongs = processes._belongs

    def once(pid: int, run_id: str, mark: str) -> bool:
        looks.append(pid)
        return looks.count(pid) == 1 and belongs(pid, run_id, mark)

    monkeypatch.setattr(processes, "_belongs", once)
    before = len(os.listdir("/proc/self/fd"))
    assert processes.of_run(run_id, "") == []
    assert looks.count(process.pid) == 2
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_that_ends_while_it_is_looked_for_is_no_mistake(run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    monkeypatch.setattr(processes, "_all_pids", lambda: [process.pid])
    monkeypatch.setattr(processes, "_is_ours", lambda pid: True)
    monkeypatch.setattr(processes, "_belongs", lambda pid, run_id, mark: True)
    assert processes.of_run(run_id, "") == []


def test_processes_of_other_users_are_not_ours(run_id: str, started: Started) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    started(env=with_cookie(run_id), user=65534)
    assert processes.of_run(run_id, "") == []


def test_ending_a_run_takes_only_so_long(run_id: str, started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    started(env=with_cookie(run_id))
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda pidfd, number: None)  # as if it waited for a broken disk
    began = time.monotonic()
    assert len(processes.end_run(run_id, "", 0.1)) == 1
    assert 0.1 <= time.monotonic() - began < 5


# --- children, end_children ----------------------------------------------------------------------------------------------------


def in_a_subreaper(action: Callable[[], object]) -> str:
    """What `action` gives in a process of its own that is a subreaper and has no children."""
    near, far = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            system.become_subreaper()
            os.write(far, repr(action()).encode())
            for child in processes.children():
                os.kill(child, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(far)
    answer = os.read(near, 1 << 16).decode() if select.select([near], [], [], 0)[0] else ""
    os.close(near)
    return answer


def forked(*, orphan: bool = False) -> int:
    """A process that waits to be killed; of an orphan the parent has ended."""
    near, far = os.pipe()
    pid = os.fork()
    if not pid:
        if orphan:
            os.setsid()
            if os.fork():
                os._exit(0)
        os.write(far, b".")
        while True:
            signal.pause()
    os.read(near, 1)
    os.close(near)
    os.close(far)
    if orphan:
        os.waitpid(pid, 0)
    return pid


def test_children_are_seen_whoever_started_them() -> None:
    def action() -> bool:
        return processes.children() == [] and {forked(), forked()} == set(processes.children())

    assert in_a_subreaper(action) == "True"


def test_without_the_kernels_list_children_are_found_by_their_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: str) -> list[int]:
        raise FileNotFoundError

    monkeypatch.setattr(processes, "_children_of_thread", refuse)
    process = subprocess.Popen(["sleep", "300"])
    assert process.pid in processes.children()
    process.kill()
    process.wait()
    assert process.pid not in processes.children()


def test_all_children_are_ended_and_reaped_their_orphans_too() -> None:
    def action() -> tuple[int, list[int]]:
        for _ in range(20):
            forked(orphan=True)
            forked()
        return len(processes.end_children(5)), processes.children()

    assert in_a_subreaper(action) == "(40, [])"


def test_ending_no_children_takes_no_time() -> None:
    assert in_a_subreaper(lambda: processes.end_children(5)) == "[]"


def test_children_that_are_spared_live() -> None:
    def action() -> bool:
        spared, other = forked(), forked()
        return processes.end_children(5, spare=[spared]) == [other] and processes.children() == [spared]

    assert in_a_subreaper(action) == "True"


def test_children_that_do_not_end_are_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_kill", lambda pid: True)

    def action() -> bool:
        pid, began = forked(), time.monotonic()
        return processes.end_children(0.2) == [pid] and 0.2 <= time.monotonic() - began < 5

    assert in_a_subreaper(action) == "True"


def test_the_signal_mask_is_put_back() -> None:
    def action() -> bool:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        forked()
        processes.end_children(5)
        return signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before

    assert in_a_subreaper(action) == "True"


# --- words and groups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returncode", "text"), [(0, "exit 0"), (3, "exit 3"), (-9, "killed by SIGKILL"), (-34, "killed by SIGRTMIN")]
)
def test_an_exit_is_described_in_words(returncode: int, text: str) -> None:
    assert str(Exit.of(returncode)) == text


def test_a_signal_without_a_name_has_its_number() -> None:
    assert processes.signal_name(40) == "signal 40"


def test_members_of_a_group_are_seen_but_for_its_leader_and_the_dead(started: Started) -> None:
    process = started("sleep 300 & echo; wait", start_new_session=True)
    (member,) = processes.group_members(process.pid)
    assert member != process.pid
    processes.signal_group(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while processes.group_members(process.pid):
        assert time.monotonic() < deadline


def test_a_group_that_has_gone_is_no_mistake() -> None:
    process = subprocess.Popen(["true"])
    with contextlib.suppress(ChildProcessError):
        process.wait()
    processes.signal_group(process.pid, signal.SIGTERM)
