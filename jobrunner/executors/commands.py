"""Commands: spawned and supervised by the engine itself, whatever the mode of the task's pool.

A command leads a session and process group of its own, reads /dev/null, and starts with no signal blocked or ignored. It
has ended when its leader has ended, never when its pipes have: a background child may hold those for days. Its result is
told when what it left behind is gone.

A command may have steps, which are one attempt. What a step leaves behind stays until the attempt ends: the next may need it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
from _thread import allocate_lock
from collections.abc import Callable
from functools import partial

from jobrunner.executors import limits
from jobrunner.executors.programs import Programs, why_not
from jobrunner.executors.reaper import Reaper
from jobrunner.executors.steps import Spent, Steps, has_succeeded
from jobrunner.loop import Loop, Timer, Watch
from jobrunner.processes import PIPE_READS, Exit, read_available, signal_group
from jobrunner.structs import replace
from jobrunner.typed import Any
from jobrunner.work import Began, Command, Error, Exhausted, Leftover, Outcome, Report, Result, Said, StopRule

_KEPT_STDOUT = 64 << 10
_MOST_OUTPUTS = 1 << 20
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
_LOST = Error(
    type="ExitLost",
    message="how it ended is not known: the process that runs the job takes the ends of all its children (SIGCHLD, os.wait)",
)
_SUCCEEDED = {"outcome": Outcome.SUCCEEDED, "exit_code": 0}

_STEPPING = allocate_lock()
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
        self.report(Began(id=command.id, worker=self.pool, pid=0))
        self.report(Result(id=command.id, **_not_started(Steps(command), error)))

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

    @property
    def running(self) -> int:
        return len(self._running)

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
                try:  # noqa: SIM105  # it is said here for each command, and costs more with `suppress`
                    os.fchdir(self._folder)
                except OSError:  # where we stand matters to nobody: every command names its folder
                    pass


class _Pipes:
    """Where a command writes: one pipe for both streams, so that their order is kept, or two if stdout is wanted alone.

    All steps have the same. The far ends stay open until the last has ended: its death would close them, and wake us once more
    than the death itself does.
    """

    __slots__ = ("_far_is_open", "err_write", "near", "out_read", "out_write")

    def __init__(self, *, split: bool) -> None:
        self.out_read, self.out_write = os.pipe()
        self.near: tuple[int, ...] = (self.out_read,)
        self.err_write = self.out_write
        self._far_is_open = True
        if split:
            self._split()

    def _split(self) -> None:
        try:
            err_read, self.err_write = os.pipe()
        except OSError:
            self.close()
            raise
        self.near = (self.out_read, err_read)

    def close_far(self) -> None:
        if self._far_is_open:
            self._far_is_open = False
            os.close(self.out_write)
            if self.err_write != self.out_write:
                os.close(self.err_write)

    def close(self) -> None:
        self.close_far()
        for fd in self.near:
            os.close(fd)


class _Running:
    """One command, from its start until it was reaped. Raises OSError or ValueError where it cannot start."""

    # As most commands have it from their start to their end: what is here costs them nothing.
    _timer: Timer | None = None
    _was_stopped = False
    _duration: float | None = None
    """None until its leader has ended, and no step follows."""
    _failure: dict[str, Any] | None = None
    """A step that could not start."""
    _stdout = _tail = b""
    _limit: int | None = None
    _cpus: frozenset[int] = frozenset()
    _exit_watch: Watch | None = None
    _pidfd = -1
    _pipes: _Pipes | None = None

    def __init__(self, commands: Commands, command: Command) -> None:
        self._commands, self._command = commands, command
        self._steps, self._spent = Steps(command), Spent()
        self._outputs: dict[int, Watch] = {}
        self._leaders: list[int] = []
        """Not reaped yet: that of the current step is the last, before it are those that led what is left of their steps."""
        if command.resources is not None:
            self._limit, self._cpus = command.resources.memory, limits.take_cpus(command.resources.cpus)
        try:
            self._listen(commands.loop)
            self._start()
        except BaseException:
            self._release()
            raise
        self._started = commands.loop.clock()
        commands.report(Began(id=command.id, worker=commands.pool, pid=self._leaders[0]))

    def _listen(self, loop: Loop) -> None:
        self._pipes = pipes = _Pipes(split=self._command.stdout_needed)
        for fd in pipes.near:
            os.set_blocking(fd, False)
            self._outputs[fd] = loop.watch(fd, partial(self._read, fd))

    def _start(self) -> None:
        """Start the current step. What may fail for want of room comes before it runs, as far as it can."""
        assert self._pipes is not None
        if not self._steps.is_last:
            os.close(os.dup(self._commands.null))  # a descriptor is free, to hold it by
        pid = self._spawned(self._pipes)
        self._hold(pid, self._pipes)
        if self._steps.is_last and not self._commands.reaper.inherits:
            self._pipes.close_far()  # the next child to start has a copy of them for a moment, and who has one is searched for
        self._leaders.append(pid)
        self._commands.reaper.started(pid, self._command.id)

    def _spawned(self, pipes: _Pipes) -> int:
        if not self._cpus:
            return self._commands.spawn(self._steps.current, pipes)
        with limits.on_cpus(self._cpus):
            return self._commands.spawn(self._steps.current, pipes)

    def _hold(self, pid: int, pipes: _Pipes) -> None:
        """What cannot be held all the same must not run."""
        try:
            self._pidfd = self._pidfd_of(pid, pipes)
            self._exit_watch = self._commands.loop.watch(self._pidfd, self._on_exit, once=True)
        except OSError:
            signal_group(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        if self._command.resources and self._command.resources.nice is not None:
            limits.weigh_session(pid, self._command.resources.nice)

    def _pidfd_of(self, pid: int, pipes: _Pipes) -> int:
        try:
            return os.pidfd_open(pid)
        except OSError:
            if not self._steps.is_last:
                raise
            pipes.close_far()  # a descriptor is free now
            return os.pidfd_open(pid)

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for watch in self._outputs.values():
            watch.close()
        if self._exit_watch is not None:
            self._exit_watch.close()
        if self._pipes is not None:
            self._pipes.close()
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
        """The leader is a zombie now, and the next step starts; or all ends."""
        if self._steps.is_last or self._was_stopped or not has_succeeded(self._leaders[-1]) or not self._goes_on():
            self._wind_up()

    def _goes_on(self) -> bool:
        """Whether the next step runs now."""
        self._drain()
        self._tail = b""
        self._leave_step()
        self._steps.advance()
        try:
            self._start()
        except (OSError, ValueError) as error:  # too late to give it back
            self._failure = _not_started(self._steps, error)
        return self._failure is None

    def _leave_step(self) -> None:
        """Its leader is kept while it leads others: its number must stay theirs until they are ended."""
        os.close(self._pidfd)
        self._pidfd = -1
        if not self._commands.reaper.leads_others(self._leaders[-1]):
            self._reap(self._leaders.pop())

    def _wind_up(self) -> None:
        """What it left behind is ended while the numbers of its leaders cannot be reused, then they are reaped."""
        if self._pipes is not None:
            self._pipes.close_far()
        self._duration = round(self._commands.loop.clock() - self._started, 6)
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
        ending = self._failure or self._ending(self._reap(self._leaders.pop()))
        while self._leaders:
            self._reap(self._leaders.pop())
        self._release()
        self._commands.ended(self._result(ending))

    def _reap(self, pid: int) -> tuple[Exit, int | None] | None:
        """How it ended, and its peak of memory; None where somebody else has taken that."""
        try:
            return self._spent.reap(pid)
        except ChildProcessError:
            return None
        finally:
            self._commands.reaper.reaped(pid)

    def _ending(self, ended: tuple[Exit, int | None] | None) -> dict[str, Any]:
        """By the end of the last step that ran."""
        if ended is None:
            return {"outcome": Outcome.FAILED, "error": _LOST}
        exit, peak = ended
        if exit.code != 0:
            error = self._out_of_memory(exit, peak) or Error(type="CommandFailed", message=self._steps.ended(exit))
            return {"outcome": Outcome.FAILED, "exit_code": exit.code, "signal": exit.signal, "error": error}
        if self._steps.is_last:
            return _SUCCEEDED
        return {"outcome": Outcome.FAILED, "error": Error(type="CommandStopped", message=self._steps.was_stopped())}

    def _result(self, ending: dict[str, Any]) -> Result:
        return Result(
            id=self._command.id,
            duration=self._duration or 0.0,
            cpu=self._spent.cpu,
            max_rss=self._spent.max_rss,
            stdout=self._stdout,
            outputs=_read_outputs(self._command.output_file),
            **ending,
        )

    def _out_of_memory(self, exit: Exit, peak: int | None) -> Error | None:
        if self._was_stopped:
            return None
        by_kernel = limits.may_be_kernels(exit) and self._commands.kernel_kills.take_one()
        error = limits.out_of_memory(exit, self._limit, peak, self._tail, by_kernel=by_kernel)
        return error and replace(error, message=self._steps.failed(error.message))


def _not_started(steps: Steps, error: OSError | ValueError) -> dict[str, Any]:
    """The ending of a command whose current step could not start."""
    code, why = why_not(error, steps.current)
    failure = Error(type=type(error).__name__, message=steps.could_not_start(why))
    return {"outcome": Outcome.FAILED, "exit_code": code, "error": failure}


def _read_outputs(path: str) -> dict[str, str]:
    """The `key=value` lines that the command wrote to $JOBRUNNER_OUTPUT; the last value of a key counts."""
    if not os.access(path, os.F_OK):  # most commands write none, and an exception costs more than this
        return {}
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return {}
    try:  # what it made there may be anything: a FIFO or a device could keep us here, a directory cannot be read
        data = os.read(fd, _MOST_OUTPUTS) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        data = b""
    finally:
        os.close(fd)
    with contextlib.suppress(OSError):
        os.unlink(path)
    lines = data.decode("utf-8", "backslashreplace").split("\n")
    return {key.strip(): value for key, found, value in (line.partition("=") for line in lines) if found and key.strip()}
