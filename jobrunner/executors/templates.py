"""The engine's side of a template: a lean process that forks hosts for us, who have much in memory.

start ─▶ (boots, nobody waits for it) ─▶ ready ─ fork: asked for a host, answers with its pid ─▶ close: ends by itself
                                           └─ killed, stopped or failed: over, and whoever asks forks the host himself

Its hosts are our children (clone(2), CLONE_PARENT): we watch, signal and reap them as any other, and they live on when it dies.
"""

from __future__ import annotations

import array
import contextlib
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

from jobrunner import template
from jobrunner.loop import Loop
from jobrunner.processes import COOKIE, children
from jobrunner.structs import values

_CODE = (
    "import sys; sys.path[:] = {path!r}; from jobrunner import cloning; cloning.import_threading(); "
    "from jobrunner.template import serve; serve({control}, {slot}, {engine})"
)
_PATIENCE = 1.0
"""Seconds that the engine waits for a pid, which comes within one millisecond: one that was stopped never answers."""
_ERRORS = 4096
"""Numbers of errors are smaller."""
_LONGEST_END = 1.0
"""Seconds that a killed template may take to be gone."""


class Template:
    """One template process, from its start until it was reaped. `began` and `reaped` are told its pid."""

    def __init__(
        self,
        settings: template.Settings,
        folder: str,
        loop: Loop,
        began: Callable[[int], None],
        reaped: Callable[[int], None],
        refused: Callable[[str], None],
    ) -> None:
        """Start it in `folder`. Raises OSError where that cannot be. `refused` is told why it has not preloaded what it was to.

        `is_ready`: it can be asked for hosts. `is_over`: it forks no more, or never has. `closed`: it was reaped.
        `has_preloaded`: its hosts have what was to be imported.
        """
        self._loop, self._reaped, self._refused = loop, reaped, refused
        self.closed = self.is_ready = self.is_over = self._is_unwanted = False
        self._preload, self.has_preloaded = settings.preload, bool(settings.preload)
        with contextlib.ExitStack() as undo:
            self._control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(self._control.close)
            with far:
                self._control.setblocking(False)
                told = {**values(settings), "host": values(settings.host)}
                self._control.send(json.dumps(told).encode())
                self._slot, slot_fd = _shared_memory()
                try:
                    self._process = _started(far.fileno(), slot_fd, folder, settings.host.env.get(COOKIE))
                finally:
                    os.close(slot_fd)
            self.pid = self._process.pid
            began(self.pid)
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except OSError:  # what cannot be watched must not run
                self._process.kill()
                self._process.wait()
                reaped(self.pid)
                raise
            undo.pop_all()
        self._poll = select.poll()
        self._poll.register(self._control, select.POLLIN)
        self._exit_watch = loop.watch(self._pidfd, self._on_exit)
        self._ready_watch = loop.watch(self._control.fileno(), self._on_ready)

    def fork(self, worker: str, number: int, call: bytes, descriptors: list[int]) -> int | None:
        """The pid of a new host, which is our child; None where the template is not ready yet, or is over.

        It begins with the encoded `call`, if there is one; of `descriptors` it has the first as its descriptor 1, and so on.

        Raises OSError where the system has no room for one more process. Takes a second at most, and then it is over.
        """
        if not self.is_ready or self.is_over:
            return None
        self._slot[:4] = bytes(4)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        try:
            self._control.sendmsg([b"%b\n%d\n%b" % (worker.encode(), number, call)], [rights])
            answer = self._control.recv(template.LONGEST) if self._poll.poll(_PATIENCE * 1000) else b""
        except OSError:
            answer = b""
        if (pid := self._told(answer)) is None:
            return self._give_up()
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid

    def _told(self, answer: bytes) -> int | None:
        """None where it is neither an error nor what the system has written: a module that it has imported may write there."""
        try:
            pid = int(answer)
        except ValueError:
            return None
        return pid if -_ERRORS < pid < 0 or 0 < pid == self._written() else None

    def _written(self) -> int:
        return int.from_bytes(self._slot[:4], sys.byteorder)

    def _give_up(self) -> int | None:
        """It was killed or stopped, maybe when it had forked already: what the system has written tells."""
        self.kill()
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.poll(_LONGEST_END * 1000)
        pid = self._written()
        return pid if pid in children() else None

    def close(self) -> None:
        """No more hosts: it ends by itself, soon."""
        self.is_over = self._is_unwanted = True
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        if not self.is_ready:  # it may be anywhere
            self.kill()

    def kill(self) -> None:
        self.is_over = self._is_unwanted = True
        if not self.closed:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _on_ready(self) -> None:
        self._ready_watch.close()
        answer = b""
        with contextlib.suppress(OSError):
            answer = self._control.recv(template.LONGEST)
        self.is_ready = answer == template.READY
        self.is_over = self.is_over or not self.is_ready
        if answer.startswith(template.REFUSED):
            self._refused(answer.removeprefix(template.REFUSED).decode("utf-8", "replace"))

    def _on_exit(self) -> None:
        self.is_over = self.closed = True
        for watch in (self._exit_watch, self._ready_watch):
            watch.close()
        self._process.wait()
        self._reaped(self.pid)
        if not (self.is_ready or self._is_unwanted):
            self._refused(f"{', '.join(self._preload)}: the process that was to import this once has ended")
        os.close(self._pidfd)
        self._control.close()
        self._slot.close()


def _shared_memory() -> tuple[mmap.mmap, int]:
    fd = os.memfd_create("slot")
    try:
        os.ftruncate(fd, template.SLOT)
        return mmap.mmap(fd, template.SLOT), fd
    except BaseException:
        os.close(fd)
        raise


def _started(control: int, slot: int, folder: str, cookie: str | None) -> subprocess.Popen[bytes]:
    """A fresh interpreter of our kind. What it can be found by is in its environment, and in that of its hosts."""
    path = [os.path.abspath(entry) for entry in sys.path]
    code = _CODE.format(path=path, control=control, slot=slot, engine=os.getpid())
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return subprocess.Popen(
        [sys.executable, *flags, "-P", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(control, slot),
        cwd=folder,
        env=None if cookie is None else {**os.environ, COOKIE: cookie},
        start_new_session=True,
    )


def standard_modules() -> list[str]:
    """What this process has loaded of the standard library."""
    return [name for name in sys.modules if name.partition(".")[0] in sys.stdlib_module_names - {"__main__"}]
