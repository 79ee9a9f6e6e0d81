"""Processes as the runner holds them: found by pidfd, signalled as a group, described in words, and ended without a rest.

What descends from a subreaper is found among its children (`end_children`). What a killed runner has left behind is found by
what only processes of that run carry (`of_run`): the *cookie*, its id in the environment variable JOBRUNNER_RUNS, or the
*mark*, a file that the engine has mapped and that forked processes inherit.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Collection, Iterator

from jobrunner.structs import replace, struct

COOKIE = "JOBRUNNER_RUNS"
"""The environment variable that holds the ids of the runs a process belongs to, outermost first, joined by colons."""

_PIECE = 1 << 16
PIPE_READS = 17
"""A pipe holds 64 KiB unless enlarged, at most 1 MiB for a user: so many reads empty one that nobody fills meanwhile."""
_LOOK_AGAIN = 0.05
"""Seconds: another thread may be told of a child's end in our place."""
_COMMAND_LENGTH = 200
_EXEC_LOOKS, _EXEC_PAUSE = 20, 0.001
"""So often a process that may be in the middle of an exec is looked at, and seconds between. Not until a time: on a busy machine
that may have come before this process, or that one, gets the CPU again."""


@struct
class Exit:
    """How a process ended: exactly one of `code` and `signal` is set."""

    code: int | None = None
    signal: int | None = None

    @classmethod
    def of(cls, returncode: int) -> Exit:
        """From a return code in the way of `subprocess`: minus the signal's number for a death by signal."""
        return cls(signal=-returncode) if returncode < 0 else cls(code=returncode)

    def __str__(self) -> str:
        return f"killed by {signal_name(self.signal)}" if self.signal else f"exit {self.code}"


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11; `signal 34` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def signal_group(pid: int, number: int) -> None:
    """Signal the process group that `pid` leads. Only for a child that was not reaped yet: its number cannot be reused."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:  # it was forked a moment ago and does not lead a group yet
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    except PermissionError:  # every member that is left has changed its user: not ours to end
        pass


def read_available(fd: int) -> bytes | None:
    """What `fd` holds at this moment, at most 64 KiB; b"" where it holds nothing; None at its end."""
    try:
        return os.read(fd, _PIECE) or None
    except BlockingIOError:
        return b""


def group_members(pid: int) -> tuple[int, ...]:
    """Live processes in the process group of `pid`, the leader left out (Linux: from /proc; elsewhere none are found)."""
    return tuple(sorted(other for other in _all_pids() if other != pid and _lives_in_group(other, pid)))


def _lives_in_group(pid: int, group: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] not in (b"Z", b"X") and int(fields[2]) == group


# --- children of this process -------------------------------------------------------------------------------------------------


def children() -> list[int]:
    """The children of this process, of all its threads, with those that have ended and were not reaped. Elsewhere than on Linux
    none. One that is started or reaped meanwhile may be missing."""
    threads = _names("/proc/self/task")
    try:
        return [pid for thread in threads for pid in _children_of_thread(thread)]
    except FileNotFoundError:  # a thread has ended just now; or the kernel has no such files
        return [pid for pid in _all_pids() if _parent(pid) == os.getpid()]


def _children_of_thread(thread: str) -> list[int]:
    with open(f"/proc/self/task/{thread}/children", "rb", buffering=0) as file:
        return [int(pid) for pid in file.readall().split()]


def end_children(patience: float, *, spare: Collection[int] = ()) -> list[int]:
    """SIGKILL and reap all children of this process, again and again until there are none: in a subreaper all that descends
    from it, since the children of one that is killed become its own.

    Left alone are those in `spare`, and those that we may not signal. Takes at most `patience` seconds: what not even SIGKILL
    ends (it waits for a broken disk) is left. The pids that were killed. Nobody else may wait for children meanwhile.
    """
    deadline, killed = time.monotonic() + patience, dict[int, None]()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
    try:
        while pids := [pid for pid in children() if pid not in spare and _kill(pid)]:
            killed |= dict.fromkeys(pids)
            if _reap(pids):
                continue
            if (left := deadline - time.monotonic()) <= 0:
                break
            signal.sigtimedwait((signal.SIGCHLD,), min(left, _LOOK_AGAIN))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return list(killed)


def _kill(pid: int) -> bool:
    """SIGKILL to a child, whose number cannot be reused before it is reaped; False where we may not, or where it has gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (PermissionError, ProcessLookupError):
        return False
    return True


def _reap(pids: list[int]) -> int:
    """How many of these children had ended and are gone now."""
    reaped = 0
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            reaped += os.waitpid(pid, os.WNOHANG)[0] != 0
    return reaped


# --- processes of a run whose runner has gone ---------------------------------------------------------------------------------


@struct
class Found:
    """A process that belongs to a run. `pidfd` is the caller's to close; -1 where that was done."""

    pid: int
    pidfd: int
    command: str


def of_run(run_id: str, mark: str) -> list[Found]:
    """Live processes of this user that belong to the run, by its cookie or by its mark; an empty `mark` is not looked for.

    Never this process or one of its ancestors. Not found are those that gave up both, programs that were started with an
    environment of their own (`env -i`), and those that have become another user.
    """
    above = {os.getpid(), *_ancestors()}
    mark = os.path.realpath(mark) if mark else ""
    pids = (pid for pid in _all_pids() if pid not in above and _is_ours(pid) and _belongs(pid, run_id, mark))
    return [found for pid in pids if (found := _held(pid, run_id, mark))]


def end_run(run_id: str, mark: str, patience: float) -> list[Found]:
    """SIGKILL what `of_run` finds, again until it finds nothing more, for at most `patience` seconds; what was found."""
    deadline = time.monotonic() + patience
    ended: dict[int, Found] = {}
    while found := of_run(run_id, mark):
        ended |= {each.pid: replace(each, pidfd=-1) for each in found}
        if not _end(found, deadline):
            break
    return list(ended.values())


def _end(found: list[Found], deadline: float) -> bool:
    """SIGKILL, then wait until all have ended; False where time ran out. Closes their pidfds."""
    try:
        for each in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(each.pidfd, signal.SIGKILL)
        return all(_wait(each.pidfd, deadline) for each in found)
    finally:
        for each in found:
            os.close(each.pidfd)


def _wait(pidfd: int, deadline: float) -> bool:
    """Until the process has ended; False where time ran out before."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def _held(pid: int, run_id: str, mark: str) -> Found | None:
    """The process, held by a descriptor; looked at once more, since its number may have become somebody else's before that."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if _belongs(pid, run_id, mark):
        return Found(pid=pid, pidfd=pidfd, command=_command(pid))
    os.close(pidfd)
    return None


def _belongs(pid: int, run_id: str, mark: str) -> bool:
    return _has_cookie(pid, os.fsencode(run_id)) or (mark != "" and _has_mapped(pid, os.fsencode(mark)))


def _has_cookie(pid: int, run_id: bytes) -> bool:
    name = os.fsencode(f"{COOKIE}=")
    return any(run_id in variable.removeprefix(name).split(b":") for variable in environment(pid) if variable.startswith(name))


def _has_mapped(pid: int, path: bytes) -> bool:
    """The last of six columns is the path, with newlines written as \\012; a file that was removed is said to be so."""
    name = path.replace(b"\n", rb"\012")
    paths = (line.split(maxsplit=5)[5:] for line in _read(pid, "maps").split(b"\n"))
    return any(found in ([name], [name + b" (deleted)"]) for found in paths)


def _command(pid: int) -> str:
    words = _read(pid, "cmdline").rstrip(b"\0").replace(b"\0", b" ")[:_COMMAND_LENGTH]
    return words.decode("utf-8", "backslashreplace")


# --- what /proc tells ---------------------------------------------------------------------------------------------------------


def environment(pid: int) -> list[bytes]:
    """The variables, as NAME=value, that a process was started with; none where it has gone or may not be looked into.

    In the middle of an exec a process has none for some microseconds, more on a busy machine: it is looked at again, as are
    those that were started with none at all (`env -i`), _EXEC_LOOKS times. A kernel thread or zombie runs no program.
    """
    looks = 1
    while not (found := _read(pid, "environ")) and _runs_program(pid) and looks < _EXEC_LOOKS:
        time.sleep(_EXEC_PAUSE)
        looks += 1
    return found.split(b"\0") if found else []


def _runs_program(pid: int) -> bool:
    try:
        os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
    return True


def _names(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(folder)
    return []


def _all_pids() -> list[int]:
    return [int(name) for name in _names("/proc") if name.isdecimal()]


def _read(pid: int, name: str) -> bytes:
    """A file of /proc/PID; empty where the process has gone or may not be looked into."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        return file.readall()
    return b""


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third (state) on; none where the process has gone."""
    return _read(pid, "stat").rpartition(b")")[2].split()  # the command may hold anything, even ")"


def _parent(pid: int) -> int:
    """0 where it has none, or has gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _ancestors() -> Iterator[int]:
    pid = os.getppid()
    while pid:
        yield pid
        pid = _parent(pid)


def _is_ours(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}").st_uid == os.geteuid()
    return False
