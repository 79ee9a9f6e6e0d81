"""Commands: spawned and supervised by the engine itself, whatever the mode of the task's pool.

A command leads a session and process group of its own, reads /dev/null, and starts with no signal blocked or ignored. It
has ended when its leader has ended, never when its pipes have: a background child may hold those for days.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from functools import partial

from jobrunner.executors.processes import PIPE_READS, Exit, group_members, read_available, signal_group
from jobrunner.loop import Loop, Timer, Watch
from jobrunner.work import Began, Command, Error, Leftover, Outcome, Report, Result, Said, StopRule

_MOST_KNOWN = 256
_KEPT_STDOUT = 64 << 10
_MOST_OUTPUTS = 1 << 20
_CANNOT_EXECUTE, _NOT_FOUND = 126, 127  # what shells answer (POSIX, 2.8.2 Exit Status for Commands)
_DEFAULTED = [int(number) for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}]


class Commands:
    """An executor of Commands for one pool; the plan bounds how many run at once."""

    def __init__(self, *, pool: str, slots: int) -> None:
        self.pool, self.slots = pool, slots
        self._running: dict[int, _Running] = {}
        self._known: dict[tuple[str, str], str] = {}

    def open(self, loop: Loop, report: Callable[[Report], None]) -> None:
        self.loop, self.report = loop, report
        self.null = os.open(os.devnull, os.O_RDONLY)
        self._folder = os.open(".", os.O_PATH)  # it need not be readable

    def start(self, command: Command) -> None:
        """Start `command`; its Began and Result follow as reports. One that cannot be started has failed, and says why."""
        pipes = None
        try:
            pipes = _Pipes(split=command.stdout_needed)
            pid = self._spawn(command, pipes)
        except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate in a word or in the environment
            if pipes is not None:
                pipes.close()
            code, why = _why_not(error, command)
            self.report(Began(id=command.id, worker=self.pool, pid=0))
            failure = Error(type=type(error).__name__, message=f"could not start: {why}")
            self.report(Result(id=command.id, outcome=Outcome.FAILED, exit_code=code, error=failure))
            return
        self._running[command.id] = _Running(self, command, pid, pipes)

    def stop(self, command_id: int, rule: StopRule) -> None:
        """The rule's signal to the command's group, after the grace SIGKILL."""
        if command_id in self._running:
            self._running[command_id].end(rule)

    def close(self) -> None:
        os.close(self.null)
        os.close(self._folder)

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

    def _spawn(self, command: Command, pipes: _Pipes) -> int:
        """posix_spawn has no working directory of its own, so this process steps into the command's and back."""
        actions = [
            (os.POSIX_SPAWN_DUP2, self.null, 0),
            (os.POSIX_SPAWN_DUP2, pipes.out_write, 1),
            (os.POSIX_SPAWN_DUP2, pipes.err_write, 2),
        ]
        os.chdir(command.cwd)
        try:
            return self._spawn_here(command, actions)
        finally:
            with contextlib.suppress(OSError):  # where we stand matters to nobody: every command names its folder
                os.fchdir(self._folder)

    def _spawn_here(self, command: Command, actions: list[tuple[int, int, int]]) -> int:
        """Where the last command of this name was found, this one is tried; what has gone from there is looked up again."""
        name = (command.argv[0], command.env.get("PATH", os.defpath))
        if known := self._known.pop(name, None):
            with contextlib.suppress(FileNotFoundError):
                pid = _posix_spawn(known, command, actions)
                self._known[name] = known
                return pid
        path = _found(*name)
        pid = _posix_spawn(path, command, actions)
        if os.path.isabs(path) and len(self._known) < _MOST_KNOWN:
            self._known[name] = path
        return pid


def _posix_spawn(path: str, command: Command, actions: list[tuple[int, int, int]]) -> int:
    def spawn(path: str, argv: tuple[str, ...]) -> int:
        return os.posix_spawn(path, argv, command.env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULTED)

    try:
        return spawn(path, command.argv)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        return spawn("/bin/sh", ("sh", path, *command.argv[1:]))  # a script without #!: a shell would run it, so do we


def _found(name: str, path: str) -> str:
    """The file that `name` means: as a shell finds it, by the PATH that the command gets. Not found: `name` itself."""
    return name if "/" in name else shutil.which(name, path=path) or name


def _why_not(error: OSError | ValueError, command: Command) -> tuple[int, str]:
    """Exit code and words for a command that could not be started."""
    name = command.argv[0]
    if isinstance(error, ValueError):
        return _CANNOT_EXECUTE, f"its words, environment or folder hold what no command can be given ({error})"
    if not os.path.isdir(command.cwd):
        return _CANNOT_EXECUTE, f"no such directory: {command.cwd}"
    path = os.path.join(command.cwd, _found(name, command.env.get("PATH", os.defpath)))
    match error.errno:
        case errno.ENOENT if "/" in path and os.path.isfile(path) and (interpreter := _interpreter(path)):
            return _CANNOT_EXECUTE, f"{name} asks for the interpreter {interpreter}, which does not exist"
        case errno.ENOENT:
            return _NOT_FOUND, f"no such command: {name}"
        case errno.EACCES if os.path.isdir(path):
            return _CANNOT_EXECUTE, f"{name} is a directory"
        case errno.EACCES:
            return _CANNOT_EXECUTE, f"{name} is not executable: chmod +x {name}"
        case _:
            return _CANNOT_EXECUTE, f"{name}: {error.strerror}"


def _interpreter(path: str) -> str:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        first = file.readline(256)
        if first.startswith(b"#!"):
            return first[2:].strip().split(b" ")[0].decode(errors="backslashreplace")
    return ""


class _Pipes:
    """Where a command writes: one pipe for both streams, so that their order is kept, or two if stdout is wanted alone."""

    def __init__(self, *, split: bool) -> None:
        self.out_read, self.out_write = os.pipe()
        self.err_read, self.err_write = os.pipe() if split else (self.out_read, self.out_write)

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
    """One command, from its start until it was reaped."""

    def __init__(self, commands: Commands, command: Command, pid: int, pipes: _Pipes) -> None:
        self._commands, self._command, self._pid, self._pipes = commands, command, pid, pipes
        loop = commands.loop
        self._started = loop.clock()
        self._stdout = bytearray()
        self._timer: Timer | None = None
        self._pidfd = os.pidfd_open(pid)
        pipes.close_far()
        self._outputs = dict(self._watch_pipes(loop))
        self._exit_watch = loop.watch(self._pidfd, self._on_exit)
        commands.report(Began(id=command.id, worker=commands.pool, pid=pid))

    def _watch_pipes(self, loop: Loop) -> Iterator[tuple[int, Watch]]:
        for fd in {self._pipes.out_read, self._pipes.err_read}:
            os.set_blocking(fd, False)
            yield fd, loop.watch(fd, partial(self._read, fd))

    def _read(self, fd: int) -> bool:
        """Take in what is there; False where nothing was."""
        data = read_available(fd)
        if data is None:
            self._outputs.pop(fd).close()
        elif data:
            if self._command.stdout_needed and fd == self._pipes.out_read:
                self._stdout = (self._stdout + data)[-_KEPT_STDOUT:]
            self._commands.report(Said(id=self._command.id, pool=self._commands.pool, data=data))
        return bool(data)

    def end(self, rule: StopRule) -> None:
        """The rule's signal to the whole group, after its grace SIGKILL."""
        if self._timer is None:
            signal_group(self._pid, rule.signal)
            self._timer = self._commands.loop.call_at(self._commands.loop.clock() + rule.grace, self.kill)

    def kill(self) -> None:
        signal_group(self._pid, signal.SIGKILL)

    def _on_exit(self) -> None:
        """The leader is a zombie now: look after its group while its number cannot be reused, then reap it."""
        self._drain()
        self._look_after_group()
        _, status, usage = os.wait4(self._pid, 0)
        self._release()
        exit = Exit.of(os.waitstatus_to_exitcode(status))
        self._commands.ended(
            Result(
                id=self._command.id,
                outcome=Outcome.SUCCEEDED if exit.code == 0 else Outcome.FAILED,
                duration=self._commands.loop.clock() - self._started,
                cpu=usage.ru_utime + usage.ru_stime,
                max_rss=_own_peak(usage.ru_maxrss),
                exit_code=exit.code,
                signal=exit.signal,
                error=None if exit.code == 0 else Error(type="CommandFailed", message=str(exit)),
                stdout=bytes(self._stdout),
                outputs=_read_outputs(self._command.output_file),
            )
        )

    def _drain(self) -> None:
        """What it wrote before it ended. A child of it that writes for ever must not keep us here: bounded by a pipe."""
        for fd in tuple(self._outputs):
            for _ in range(PIPE_READS):
                if fd not in self._outputs or not self._read(fd):
                    break

    def _look_after_group(self) -> None:
        """Only who still holds the output can be seen cheaply, so only then are the leftovers looked up and named."""
        pids = group_members(self._pid) if self._outputs else ()
        if not self._command.leftover_allowed:
            signal_group(self._pid, signal.SIGKILL)
        if pids:
            self._commands.report(Leftover(id=self._command.id, pids=pids, killed=not self._command.leftover_allowed))

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for watch in self._outputs.values():
            watch.close()
        self._exit_watch.close()
        self._pipes.close_near()
        os.close(self._pidfd)


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
