"""How a host process comes to be: forked from the engine, or as a fresh interpreter."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from jobrunner import host

_SPAWNED = "import sys; sys.path[:] = {path!r}; from jobrunner.host import spawned; spawned({fd})"
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A host that was started. `reap` waits for its end and gives its return code, negative for a signal."""

    pid: int
    pidfd: int
    connection: socket.socket
    output: int
    reap: Callable[[], int]


def start_host(settings: host.Settings, *, method: str, folder: str) -> Child:
    """Start a host in `folder`. Raises OSError where the system has no room for one more process or descriptor."""
    near, far = socket.socketpair()
    output, far_output = os.pipe()
    try:
        pid, reap = _fork(settings, far, far_output, folder) if method == "fork" else _spawn(far, far_output, folder)
        pidfd = os.pidfd_open(pid)
    except BaseException:
        near.close()
        os.close(output)
        raise
    finally:
        far.close()
        os.close(far_output)
    near.setblocking(False)
    os.set_blocking(output, False)
    return Child(pid=pid, pidfd=pidfd, connection=near, output=output, reap=reap)


def _fork(settings: host.Settings, connection: socket.socket, output: int, folder: str) -> tuple[int, Callable[[], int]]:
    """What the engine handles stays blocked until the child has let go of it: a signal for it must not look like one for us."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_serve, args=(connection, output, settings, folder), name=settings.worker)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    # The module reaps what it knows of whenever a process is started; ours keep their number until we have ended their group.
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]

    def reap() -> int:
        process.join()
        code = process.exitcode
        process.close()
        return 0 if code is None else code

    assert process.pid is not None
    return process.pid, reap


def _serve(connection: socket.socket, output: int, settings: host.Settings, folder: str) -> None:
    host.forked(connection, output, settings, folder)


def _spawn(connection: socket.socket, output: int, folder: str) -> tuple[int, Callable[[], int]]:
    fd = connection.fileno()
    code = _SPAWNED.format(path=[os.path.abspath(entry) for entry in sys.path], fd=fd)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=(fd,),
        cwd=folder,
        start_new_session=True,
    )
    return process.pid, process.wait


def greeting(settings: host.Settings, method: str) -> bytes:
    """What a spawned host reads first; a forked one was born with it."""
    return b"" if method == "fork" else json.dumps(dataclasses.asdict(settings)).encode() + b"\n"
