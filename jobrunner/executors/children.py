"""How a host process comes to be: forked by a template or from the engine, or as a fresh interpreter; and how it is reaped."""

from __future__ import annotations

import contextlib
import json
import multiprocessing.context
import multiprocessing.process
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial

from jobrunner import host
from jobrunner.structs import struct, values
from jobrunner.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from jobrunner.executors.templates import Template

_SPAWNED = "import sys; sys.path[:] = {path!r}; from jobrunner.host import spawned; spawned({connection}, {stack}, {parent})"
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@struct
class Reaped:
    """How a process ended: its return code, negative for a signal, and what it used, where the system tells."""

    code: int
    usage: resource.struct_rusage | None


@struct
class Child:
    """A host that was started. `stack` is where it writes the Python stacks that it is asked for; `reap` waits for its end."""

    pid: int
    pidfd: int
    connection: socket.socket
    output: int
    stack: int
    reap: Callable[[], Reaped]
    has_call: bool = False
    """Its first call was given to it at its birth."""
    preloaded: bool = False
    """It was forked by a template that has imported what its pool is to preload."""


@struct(kw_only=False)
class _Ends:
    """What connects a host with the engine, on one side."""

    connection: socket.socket
    output: int
    stack: int

    def close(self) -> None:
        self.connection.close()
        os.close(self.output)
        os.close(self.stack)


def start_host(
    settings: host.Settings, *, method: str, folder: str, template: Template | None = None, call: bytes = b""
) -> Child:
    """Start a host in `folder`: by the template, if that can; then with its first call, if it is given here.

    Raises OSError where the system has no room for one more process or descriptor; then nothing of it is left."""
    if template is not None:
        fork = partial(_from_template, template, settings, call)
        child = _started(fork, has_call=bool(call), preloaded=template.has_preloaded)
        if child is not None:
            return child
    child = _started(lambda ends: _fork(settings, ends, folder) if method == "fork" else _spawn(ends, folder))
    assert child is not None
    return child


_Told = Callable[[int], None]


def _started(
    start: Callable[[_Ends], tuple[int, _Told] | None], *, has_call: bool = False, preloaded: bool = False
) -> Child | None:
    """A host that `start` has started; None where it has not. It gets descriptors that nobody else has had."""
    ours, theirs = _connected()
    try:
        if (started := start(theirs)) is None:
            ours.close()
            return None
        pid, told = started
        reap = _reaper(pid, told)
        pidfd = _pidfd(pid, reap)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    connection, output, stack = ours.connection, ours.output, ours.stack
    return Child(
        pid=pid, pidfd=pidfd, connection=connection, output=output, stack=stack, reap=reap, has_call=has_call, preloaded=preloaded
    )


def _connected() -> tuple[_Ends, _Ends]:
    """Our ends, which do not block, and those of the host. Raises OSError where there is no room; then nothing is open."""
    pipes: list[int] = []
    near, far = socket.socketpair()
    try:
        pipes += os.pipe()
        pipes += os.pipe()
    except BaseException:
        for fd in pipes:
            os.close(fd)
        near.close()
        far.close()
        raise
    output, far_output, stack, far_stack = pipes
    near.setblocking(False)
    for fd in (output, stack):
        os.set_blocking(fd, False)
    return _Ends(near, output, stack), _Ends(far, far_output, far_stack)


def _pidfd(pid: int, reap: Callable[[], Reaped]) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:  # what cannot be watched must not run
        os.kill(pid, signal.SIGKILL)
        reap()
        raise


def _reaper(pid: int, told: _Told) -> Callable[[], Reaped]:
    """Waits for the end of `pid`, and tells the object of the standard library that stands for it."""

    def reap() -> Reaped:
        code, usage = 0, None
        with contextlib.suppress(ChildProcessError):  # our caller ignores SIGCHLD: then the system keeps nothing of it
            _, status, usage = os.wait4(pid, 0)
            code = os.waitstatus_to_exitcode(status)
        told(code)
        return Reaped(code=code, usage=usage)

    return reap


class _Launch:
    """A fork as multiprocessing holds it, without its two pipes: we have a pidfd, and where fork fails it leaves them open."""

    def __init__(self, process: multiprocessing.process.BaseProcess) -> None:
        self.sentinel = -1
        self.returncode: int | None = None
        for stream in (sys.stdout, sys.stderr):  # what is buffered is the engine's to write
            with contextlib.suppress(Exception):
                stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = process._bootstrap(parent_sentinel=None)  # type: ignore[attr-defined]
            finally:
                os._exit(code)

    def poll(self, _: object = None) -> int | None:
        return self.returncode

    wait = poll

    def close(self) -> None:
        """Nothing is open."""


class _HostProcess(multiprocessing.context.ForkProcess):
    _Popen = _Launch  # type: ignore[assignment]


def _fork(settings: host.Settings, ends: _Ends, folder: str) -> tuple[int, _Told]:
    """What the engine handles stays blocked until the child has let go of it: a signal for it must not look like one for us."""
    import multiprocessing.util  # else every child would do it; not above: who runs commands alone does without

    process = _HostProcess(target=_serve, args=(ends, settings, folder, os.getpid()), name=settings.worker)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    # The module reaps what it knows of whenever a process is started; ours keep their number until we have ended their group.
    multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]

    def told(code: int) -> None:
        process._popen.returncode = code  # type: ignore[attr-defined]
        process.join()
        process.close()

    assert process.pid is not None
    return process.pid, told


def _from_template(template: Template, settings: host.Settings, call: bytes, ends: _Ends) -> tuple[int, _Told] | None:
    number = next(multiprocessing.process._process_counter)  # type: ignore[attr-defined]
    pid = template.fork(settings.worker, number, call, [ends.output, ends.output, ends.connection.fileno(), ends.stack])
    return None if pid is None else (pid, lambda _: None)


def _serve(ends: _Ends, settings: host.Settings, folder: str, parent: int) -> None:
    host.forked(ends.connection, ends.output, ends.stack, settings, folder, parent)


def _spawn(ends: _Ends, folder: str) -> tuple[int, _Told]:
    connection, stack = ends.connection.fileno(), ends.stack
    path = [os.path.abspath(entry) for entry in sys.path]
    import subprocess  # a fork does without

    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _SPAWNED.format(path=path, connection=connection, stack=stack, parent=os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=ends.output,
        stderr=ends.output,
        pass_fds=(connection, stack),
        cwd=folder,
        start_new_session=True,
    )

    def told(code: int) -> None:
        process.returncode = code

    return process.pid, told


def greeting(settings: host.Settings, method: str) -> bytes:
    """What a spawned host reads first; a forked one was born with it."""
    return b"" if method == "fork" else json.dumps(values(settings)).encode() + b"\n"
