"""A probe from outside: it is started, asked, given so much time for each module, and ended with all that it has started.

A module that takes too long, ends the process or does not answer properly is named as the one that does; the rest is asked of
a new process. What came of it in a process that has imported others may be their doing: then it is asked about again, first.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from pydantic import TypeAdapter

from jobrunner import system
from jobrunner.jobfile.document import shortened, visible
from jobrunner.preflight.probe import Answer, Question
from jobrunner.preflight.signatures import Remark, Use
from jobrunner.processes import PIPE_READS, Exit, children, end_children, read_available, signal_group

_START = 120.0
"""Seconds that the interpreter itself may take to start, on a machine that is busy with other things."""
_STACK_GRACE = 0.5
"""Seconds between the time limit, when the probe writes where it hangs, and its end."""
_KEPT_OUTPUT = 1 << 16
_SHOWN_LINES = 12
_LONGEST_ANSWER = 1 << 26
_LAST_PATIENCE = 2.0
"""Seconds for the end of what does not even die of SIGKILL: it waits for a broken disk."""
_ANSWER: Final = TypeAdapter(Answer)
_HINTS: Final = {
    "takes": "What takes long, or never ends, belongs in a function.",
    "does": "When it is imported, a module writes only to what it has opened, and closes nothing else.",
}
_OF_IMPORT: Final = ("<frozen importlib", "/importlib/__init__.py", "/jobrunner/preflight/probe.py", 'File "<string>"')


def ask(
    modules: Mapping[str, Sequence[Use]], *, folder: str, environ: Mapping[str, str], limit: float
) -> Iterator[tuple[Answer, str]]:
    """The answer for each module, and where it could not be imported the last lines that it has printed.

    It imports in `folder`, which is searched first, with `environ`; `limit` is in seconds, for each module. While it does, Ctrl-C
    raises KeyboardInterrupt, and leaves nothing behind.
    """
    left = dict(modules)
    while left:
        with _interruptible(), system.subreaping(), _Probe(folder, environ, limit) as probe:
            yield from _asked(probe, left)


def _asked(probe: _Probe, left: dict[str, Sequence[Use]]) -> Iterator[tuple[Answer, str]]:
    """The answers of one process, as far as it can be trusted; what is left is taken out of `left`."""
    is_first = True
    while left:
        module = next(iter(left))
        answer = probe.ask(Question(module=module, token=secrets.token_hex(8), uses=list(left[module])))
        if probe.is_suspect and not is_first:
            return
        del left[module]
        yield answer, probe.take_output() if answer.has_failed else ""
        if probe.fate or answer.is_last:
            return
        is_first = False


class _Probe:
    """One process that imports modules when it is asked to. On leaving, it and all that descends from it are gone.

    This process is a subreaper meanwhile. Left alone are the children that it had before.
    """

    _CODE = (
        "import sys; sys.path[:] = {path!r}; from jobrunner.preflight.probe import main; "
        "main({fd}, {folder!r}, {limit}, {parent})"
    )

    def __init__(self, folder: str, environ: Mapping[str, str], limit: float) -> None:
        self._limit, self._said, self._output = limit, bytearray(), bytearray()
        self.fate = ""
        """Why it cannot be asked any more."""
        self.is_suspect = False
        """Whether that may be the doing of any module that it has imported."""
        self._spared = children()
        with contextlib.ExitStack() as near, contextlib.ExitStack() as far:
            self._connection, theirs = socket.socketpair()
            near.callback(self._connection.close)
            far.callback(theirs.close)
            self._output_fd, output = os.pipe()
            near.callback(os.close, self._output_fd)
            far.callback(os.close, output)
            self._process = self._start(folder, environ, theirs.fileno(), output)
            self._pidfd = os.pidfd_open(self._process.pid)
            near.callback(os.close, self._pidfd)
            self._open = near.pop_all()
        os.set_blocking(self._output_fd, False)
        self._connection.settimeout(_START)  # which makes its descriptor one that never blocks
        self._watched = [self._pidfd, self._output_fd, self._connection.fileno()]

    def _start(self, folder: str, environ: Mapping[str, str], fd: int, output: int) -> subprocess.Popen[bytes]:
        """As a spawned host is started: what it finds on its path is what a host finds."""
        path = [os.path.abspath(entry) for entry in sys.path]
        code = self._CODE.format(path=path, fd=fd, folder=folder, limit=self._limit, parent=os.getpid())
        return subprocess.Popen(
            [sys.executable, "-u", "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(fd,),
            cwd=folder,
            env=environ,
            start_new_session=True,
        )

    def __enter__(self) -> _Probe:
        if not self._line(_START):
            self.fate = f"cannot be tried: its interpreter {self._death() or 'does not start'}"
        return self

    def __exit__(self, *_: object) -> None:
        signal_group(self._process.pid, signal.SIGKILL)
        self._process.wait()
        end_children(_LAST_PATIENCE, spare=self._spared)
        self._open.close()

    def ask(self, question: Question) -> Answer:
        """The answer, or in its place what has become of the process; then `fate` is set."""
        if not self.fate:
            self.take_output()
            try:
                if line := self._answer(question):
                    return _answer_of(line, question)
            except ValueError as error:
                self.fate = f"does not answer properly: {error}"
            self.fate = self.fate or self._death() or self._silence()
            self.is_suspect = not self.fate.startswith("takes")
        hint = _HINTS.get(self.fate.split()[0], "")
        message = f"importing {question.module!r} {self.fate}"
        remarks = [Remark(use=use.id, where=(use.key,), message=message, hint=hint) for use in question.uses]
        return Answer(module=question.module, has_failed=True, remarks=remarks)

    def _silence(self) -> str:
        if self._connection.fileno() not in self._watched:
            return "does not answer properly: it has closed a descriptor that it has not opened"
        return f"takes longer than {self._limit:g} s"

    def _answer(self, question: Question) -> bytes:
        with contextlib.suppress(OSError):  # it has gone, or does not listen: the wait for its answer will tell
            self._connection.sendall(json.dumps(asdict(question)).encode() + b"\n")
        return self._line(self._limit + _STACK_GRACE)

    def take_output(self) -> str:
        """The last lines of what was printed since the last time."""
        self._read_output()
        lines = self._output.decode("utf-8", "replace").splitlines()
        self._output.clear()
        return "\n".join([visible(line.replace("\t", " ")) for line in lines if not _is_of_import(line)][-_SHOWN_LINES:])

    def _line(self, patience: float) -> bytes:
        """The next line that it says; b"" where it has ended, cannot say any more, or has not for `patience` seconds.

        Raises ValueError for a line that does not end.
        """
        deadline = time.monotonic() + patience
        while b"\n" not in self._said:
            ready, _, _ = select.select(self._watched, [], [], max(0.0, deadline - time.monotonic()))
            self._read_output()
            if not self._read_said() and (self._pidfd in ready or time.monotonic() >= deadline):
                return b""
            if self._connection.fileno() not in self._watched:
                deadline = min(deadline, time.monotonic() + _STACK_GRACE)  # it ends, or has closed what it was given
            if len(self._said) > _LONGEST_ANSWER:
                raise _no_answer(self._said)
        line, _, self._said = self._said.partition(b"\n")
        return bytes(line)

    def _read_said(self) -> bool:
        data = read_available(self._connection.fileno()) if self._connection.fileno() in self._watched else b""
        self._said += data or b""
        if data is None:
            self._watched.remove(self._connection.fileno())
        return bool(data)

    def _read_output(self) -> None:
        for _ in range(PIPE_READS if self._output_fd in self._watched else 0):  # and no more: it may never stop writing
            data = read_available(self._output_fd)
            self._output += data or b""
            if data is None:
                self._watched.remove(self._output_fd)
            if not data:
                break
        del self._output[:-_KEPT_OUTPUT]

    def _death(self) -> str:
        """How it ended, "" where it has not."""
        ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return ""
        exit = Exit(code=ended.si_status) if ended.si_code == os.CLD_EXITED else Exit(signal=ended.si_status)
        return f"ends the process ({exit})"


def _answer_of(line: bytes, question: Question) -> Answer:
    """The answer in one line. Raises ValueError for what is none to this question: then somebody else has written it."""
    try:
        answer = _ANSWER.validate_json(line, strict=True)
    except ValueError:
        raise _no_answer(line) from None
    told_of = {*answer.pools, *(remark.use for remark in answer.remarks)}
    if (answer.module, answer.token) != (question.module, question.token) or not told_of <= {use.id for use in question.uses}:
        raise _no_answer(line)
    return answer


def _no_answer(said: bytes | bytearray) -> ValueError:
    return ValueError(f"{shortened(said[:200].decode('utf-8', 'replace'))!r} came in place of the answer")


def _is_of_import(line: str) -> bool:
    """A line of a stack that shows how Python, or the probe, came to import the module."""
    return line.startswith(("Timeout (", "Thread 0x")) or any(part in line for part in _OF_IMPORT)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """The command line lets the system end it at Ctrl-C; while inside, what was started is ended too."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
