"""Calls of the system: orphans come to a subreaper, children die with their parent, space is set aside, secrets are not shown."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobrunner import system

ROOT = Path(__file__).resolve().parent.parent


def in_a_child(action: Callable[[], object]) -> str:
    """What a forked process that calls `action` answers."""
    near, far = os.pipe()
    if not (pid := os.fork()):
        os.write(far, str(action()).encode())
        os._exit(0)
    os.close(far)
    os.waitpid(pid, 0)
    with open(near, encoding="utf-8") as file:
        return file.read()


def orphan_s_parent() -> bool:
    """A grandchild whose parent has ended is ours now."""
    system.become_subreaper()
    near, far = os.pipe()
    if not (pid := os.fork()):
        if not os.fork():
            os.close(near)
            signal.pause()
        os._exit(0)
    os.close(far)
    os.waitpid(pid, 0)
    (orphan,) = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    os.kill(orphan, signal.SIGKILL)
    return os.waitpid(orphan, 0)[0] == orphan


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has such a call")
def test_orphans_come_to_a_subreaper() -> None:
    assert in_a_child(system.become_subreaper) == "True"
    assert in_a_child(orphan_s_parent) == "True"


def has_orphans() -> bool:
    """Whether a grandchild whose parent has ended is ours. It ends when this returns."""
    near, far = os.pipe()
    if not (pid := os.fork()):
        if not os.fork():
            os.close(far)
            os.read(near, 1)
        os._exit(0)
    os.close(near)
    os.waitpid(pid, 0)
    is_ours = Path(f"/proc/self/task/{os.getpid()}/children").read_text() != ""
    os.close(far)
    if is_ours:
        os.wait()
    return is_ours


def orphans_before_inside_and_after() -> list[bool]:
    found = [has_orphans()]
    with system.subreaping():
        found.append(has_orphans())
        with system.subreaping():
            pass
        found.append(has_orphans())
    return [*found, has_orphans()]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has such a call")
def test_who_was_no_subreaper_is_none_afterwards_and_who_was_one_stays_one() -> None:
    assert in_a_child(orphans_before_inside_and_after) == "[False, True, True, False]"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has such a call")
def test_a_child_dies_with_its_parent() -> None:
    near, far = os.pipe()
    ready, is_ready = os.pipe()
    if not (pid := os.fork()):
        parent = os.getpid()
        if not os.fork():
            system.die_with(parent)
            os.write(is_ready, b".")
            while True:
                signal.pause()
        signal.pause()
    os.close(far)
    os.read(ready, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert select.select([near], [], [], 10)[0]
    assert os.read(near, 1) == b""
    for fd in (near, ready, is_ready):
        os.close(fd)


def test_a_child_whose_parent_has_gone_already_ends_at_once() -> None:
    if not (pid := os.fork()):
        system.die_with(os.getpid())  # its parent is another one
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_reserved_space_does_not_change_the_size(tmp_path: Path) -> None:
    with open(tmp_path / "journal", "wb") as file:
        system.reserve(file.fileno(), 0, 1 << 20)
        system.reserve(file.fileno(), 5 << 30, 4096)  # offsets of more than 32 bits
        found = os.fstat(file.fileno())
        assert found.st_size == 0
        assert found.st_blocks * 512 >= (1 << 20) + 4096 or not found.st_blocks


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF])
def test_a_disk_without_room_is_told(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(system, "_fallocate", lambda fd, offset, length: code)
    with pytest.raises(OSError, match=os.strerror(code)) as raised:
        system.reserve(3, 0, 4096)
    assert raised.value.errno == code


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_cannot_reserve_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(system, "_fallocate", lambda fd, offset, length: code)
    system.reserve(3, 0, 4096)


def test_an_interrupted_reservation_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [errno.EINTR, errno.EINTR, 0]
    monkeypatch.setattr(system, "_fallocate", lambda fd, offset, length: codes.pop(0))
    system.reserve(3, 0, 4096)
    assert codes == []


def test_where_the_system_has_no_such_call_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_function", lambda name, arguments: None)
    assert system.become_subreaper() is False
    with system.subreaping():
        pass
    system.die_with(os.getppid())
    system.reserve(-1, 0, 4096)


def test_a_function_that_does_not_exist_is_none() -> None:
    assert system._function("jobrunner_no_such_function", "i") is None


def shown_after(action: str) -> list[bytes]:
    """What /proc shows of the environment of a process that has done `action`."""
    program = f"from jobrunner import system; {action}; print(open('/proc/self/environ', 'rb').read())"
    env = {"A": "1", "SECRET": "hunter2", "SECRETS": "two", "JOBRUNNER_RUNS": "r1", "EMPTY": "", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    shown: bytes = eval(ended.stdout)
    return shown.split(b"\0")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux shows it")
def test_a_scrubbed_variable_is_shown_to_nobody_and_inherited_by_nobody() -> None:
    shown = shown_after("system.scrub('SECRET'); import os; assert 'SECRET' not in os.environ")
    assert {b"A=1", b"SECRET=", b"SECRETS=two", b"JOBRUNNER_RUNS=r1"} <= set(shown)
    assert not any(b"hunter2" in each for each in shown)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux shows it")
def test_all_but_some_variables_can_be_hidden_and_are_still_inherited() -> None:
    shown = shown_after("system.scrub_all(keep='JOBRUNNER_'); import os; assert os.environ['SECRET'] == 'hunter2'")
    assert {b"A=", b"SECRET=", b"SECRETS=", b"JOBRUNNER_RUNS=r1"} <= set(shown)
    assert not any(b"hunter2" in each or b"two" in each for each in shown)


def test_a_variable_that_is_not_there_can_be_scrubbed() -> None:
    system.scrub("JOBRUNNER_TEST_NOWHERE")


def test_the_package_ctypes_is_not_imported() -> None:
    program = "import sys; from jobrunner import system; system.become_subreaper(); print('ctypes' in sys.modules)"
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {program}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
