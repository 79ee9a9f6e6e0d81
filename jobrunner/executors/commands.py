"""Commands: spawned and supervised by the engine itself, whatever the mode of the task's pool.

A command leads a session and process group of its own, reads /dev/null, and starts with no signal blocked or ignored. It
has ended when its leader has ended, never when its pipes have: a background child may hold those for days. Its result is
told when what it left behind is gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import stat
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from jobrunner.executors import limits
from jobrunner.executors.programs import Programs, why_not
from jobrunner.executors.reaper import Reaper
from jobrunner.loop import Loop, Timer, Watch
from jobrunner.processes import PIPE_READS, Exit, read_available, signal_group
from jobrunner.work import Began, Command, Error, Exhausted, Leftover, Outcome, Report, Result, Said, StopRule

_KEPT_STDOUT = 64 << 10
_MOST_OUTPUTS = 1 << 20
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
_LOST = Error(
    type="ExitLost",
    message="how it ended is not known: the process that runs the job takes the ends of all its children (SIGCHLD, os.wait)",
)


_STEPPING = threading.Lock()
"""Runs from Python may be in several threads, which share one working directory: no two may step out of it and back at a time."""


class Commands:
    """An executor of Commands for one pool; the plan bounds how many run at once."""

    def __init__(self, *, pool: str, slots: int, reaper: Reaper | None = None) -> None:
        self.pool, self.slots = pool, slots
        self.reaper, self._has_own_reaper = reaper or Reaper(inherits=False), reaper is None
        self._running: dict[int, _Running] = {}
        self._programs = Programs()

    def open(self, loop: Loop, report: Callable[[Report], None]) -> None:
        self.loop, self.report = loop, report
        self.null = os.open(os.devnull, os.O_RDONLY)
        with _STEPPING:
            self._folder = os.open(".", os.O_PATH)  # it need not be readable
        self.kernel_kills = limits.KernelKills()
        if self._has_own_reaper:
            self.reaper.open(loop, report)

    def start(self, command: Command) -> None:
        """Start `command`; its Began and Result follow as reports. One that cannot be started has failed, and says why.

        Where the system has no room for one more it is Exhausted, nothing of it was kept, and it may be started again.
        """
        try:
            self._running[command.id] = _Running(self, command)
        except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate in a word or in the environment
            self._refuse(command, error)

    def _refuse(self, command: Command, error: OSError | ValueError) -> None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            self.report(Exhausted(id=command.id, reason=os.strerror(error.errno)))
            return
        code, why = why_not(error, command)
        self.report(Began(id=command.id, worker=self.pool, pid=0))
        failure = Error(type=type(error).__name__, message=f"could not start: {why}")
        self.report(Result(id=command.id, outcome=Outcome.FAILED, exit_code=code, error=failure))

    def stop(self, command_id: int, rule: StopRule) -> None:
        """The rule's signal to the command's group and to what has escaped from it, after the grace SIGKILL."""
        if command_id in self._running:
            self._running[command_id].end(rule)

    def close(self) -> None:
        os.close(self.null)
        os.close(self._folder)
        if self._has_own_reaper:
            self.reaper.close()

    def dump(self) -> None:
        """Commands are not ours to look into."""

    def kill(self) -> None:
        """End every command at once."""
        for each in tuple(self._running.values()):
            each.kill()

    @property
    def closed(self) -> bool:
        return not self._running

    def ended(self, result: Result) -> None:
        del self._running[result.id]
        self.report(result)

    def spawn(self, command: Command, pipes: _Pipes) -> int:
        """posix_spawn has no working directory of its own, so this process steps into the command's and back."""
        actions = [
            (os.POSIX_SPAWN_DUP2, self.null, 0),
            (os.POSIX_SPAWN_DUP2, pipes.out_write, 1),
            (os.POSIX_SPAWN_DUP2, pipes.err_write, 2),
        ]
        with _STEPPING:
            os.chdir(command.cwd)
            try:
                return self._programs.start(command, actions)
            finally:
                with contextlib.suppress(OSError):  # where we stand matters to nobody: every command names its folder
                    os.fchdir(self._folder)


class _Pipes:
    """Where a command writes: one pipe for both streams, so that their order is kept, or two if stdout is wanted alone."""

    def __init__(self, *, split: bool) -> None:
        self.out_read, self.out_write = self.err_read, self.err_write = os.pipe()
        if split:
            try:
                self.err_read, self.err_write = os.pipe()
            except OSError:
                self.close()
                raise

    def close_far(self) -> None:
        for fd in {self.out_write, self.err_write}:
            os.close(fd)

    def close_near(self) -> None:
        for fd in {self.out_read, self.err_read}:
            os.close(fd)

    def close(self) -> None:
        self.close_far()
        self.close_near()


class _Running:
    """One command, from its start until it was reaped. Raises OSError or ValueError where it cannot start."""

    def __init__(self, commands: Commands, command: Command) -> None:
        self._commands, self._command = commands, command
        self._limit = command.resources.memory if command.resources else None
        self._stdout = bytearray()
        self._tail = b""
        self._outputs: dict[int, Watch] = {}
        self._timer: Timer | None = None
        self._was_stopped = False
        self._duration: float | None = None
        """None until its leader has ended."""
        self._exit_watch: Watch | None = None
        self._pidfd = -1
        self._cpus = limits.take_cpus(command.resources.cpus) if command.resources else frozenset[int]()
        self._pipes: _Pipes | None = None
        try:
            self._pid = self._start(commands.loop)
            self._hold(commands.loop)
        except BaseException:
            self._release()
            raise
        self._started = commands.loop.clock()
        commands.reaper.started(self._pid, command.id)
        commands.report(Began(id=command.id, worker=commands.pool, pid=self._pid))

    def _start(self, loop: Loop) -> int:
        """Its pid. What may fail for want of room comes before it runs, as far as it can."""
        self._pipes = pipes = _Pipes(split=self._command.stdout_needed)
        try:
            for fd in {pipes.out_read, pipes.err_read}:
                os.set_blocking(fd, False)
                self._outputs[fd] = loop.watch(fd, partial(self._read, fd))
            with limits.on_cpus(self._cpus) if self._cpus else contextlib.nullcontext():
                return self._commands.spawn(self._command, pipes)
        finally:
            pipes.close_far()

    def _hold(self, loop: Loop) -> None:
        """A descriptor is free: that of the pipe's far end. What cannot be held all the same must not run."""
        try:
            self._pidfd = os.pidfd_open(self._pid)
            self._exit_watch = loop.watch(self._pidfd, self._on_exit)
        except OSError:
            signal_group(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            raise
        if self._command.resources and self._command.resources.nice is not None:
            limits.weigh_session(self._pid, self._command.resources.nice)

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for watch in self._outputs.values():
            watch.close()
        if self._exit_watch is not None:
            self._exit_watch.close()
        if self._pipes is not None:
            self._pipes.close_near()
        if self._pidfd >= 0:
            os.close(self._pidfd)
        if self._cpus:
            limits.give_cpus_back(self._cpus)

    def _read(self, fd: int) -> bool:
        """Take in what is there; False where nothing was."""
        data = read_available(fd)
        if data is None:
            self._outputs.pop(fd).close()
        elif data:
            if self._command.stdout_needed and self._pipes is not None and fd == self._pipes.out_read:
                self._stdout = (self._stdout + data)[-_KEPT_STDOUT:]
            if self._limit is not None:
                self._tail = (self._tail + data)[-limits.KEPT_TAIL :]
            self._commands.report(Said(id=self._command.id, pool=self._commands.pool, data=data))
        return bool(data)

    def end(self, rule: StopRule) -> None:
        """The rule's signal to all of it, after its grace SIGKILL."""
        if self._timer is None and self._duration is None:
            self._timer = self._commands.loop.call_at(self._commands.loop.clock() + rule.grace, self.kill)
            self._signal(rule.signal)

    def kill(self) -> None:
        if self._duration is None:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        self._was_stopped = True
        self._commands.reaper.signal(self._command.id, number)

    def _on_exit(self) -> None:
        """The leader is a zombie now: what it left behind is ended while its number cannot be reused, then it is reaped."""
        if self._exit_watch is not None:
            self._exit_watch.close()
        self._duration = self._commands.loop.clock() - self._started
        self._drain()
        self._commands.reaper.end_orphans(
            self._command.id,
            self._finish,
            allowed=self._command.leftover_allowed,
            thorough=bool(self._outputs) or self._was_stopped,  # somebody holds its output, or got away from the signal
        )

    def _drain(self) -> None:
        """What it wrote before it ended. A child of it that writes for ever must not keep us here: bounded by a pipe."""
        for fd in tuple(self._outputs):
            for _ in range(PIPE_READS):
                if fd not in self._outputs or not self._read(fd):
                    break

    def _finish(self, left: tuple[int, ...]) -> None:
        if left:
            self._drain()
            self._commands.report(Leftover(id=self._command.id, pids=left, killed=not self._command.leftover_allowed))
        result = self._reap()
        self._release()
        self._commands.reaper.reaped(self._pid)
        self._commands.ended(result)

    def _reap(self) -> Result:
        try:
            _, status, usage = os.wait4(self._pid, 0)
        except ChildProcessError:
            return self._result(outcome=Outcome.FAILED, error=_LOST)
        exit, peak = Exit.of(os.waitstatus_to_exitcode(status)), _own_peak(usage.ru_maxrss)
        return self._result(
            outcome=Outcome.SUCCEEDED if exit.code == 0 else Outcome.FAILED,
            cpu=usage.ru_utime + usage.ru_stime,
            max_rss=peak,
            exit_code=exit.code,
            signal=exit.signal,
            error=None if exit.code == 0 else self._out_of_memory(exit, peak) or Error(type="CommandFailed", message=str(exit)),
        )

    def _result(self, **ending: Any) -> Result:
        return Result(
            id=self._command.id,
            duration=self._duration or 0.0,
            stdout=bytes(self._stdout),
            outputs=_read_outputs(self._command.output_file),
            **ending,
        )

    def _out_of_memory(self, exit: Exit, peak: int | None) -> Error | None:
        if self._was_stopped:
            return None
        by_kernel = limits.may_be_kernels(exit) and self._commands.kernel_kills.take_one()
        return limits.out_of_memory(exit, self._limit, peak, self._tail, by_kernel=by_kernel)


def _own_peak(kilobytes: int) -> int | None:
    """Peak memory in bytes. A spawned process starts with its parent's peak (Linux, exec_mmap), so less than that is unknown."""
    return kilobytes * 1024 if kilobytes > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss else None


def _read_outputs(path: str) -> dict[str, str]:
    """The `key=value` lines that the command wrote to $JOBRUNNER_OUTPUT; the last value of a key counts."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # most commands write none
        return {}
    with open(fd, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):  # a FIFO or a device of the command's could keep us here
            return {}
        lines = (file.read(_MOST_OUTPUTS) or b"").decode("utf-8", "backslashreplace").split("\n")
    with contextlib.suppress(OSError):
        os.unlink(path)
    return {key.strip(): value for key, found, value in (line.partition("=") for line in lines) if found and key.strip()}
