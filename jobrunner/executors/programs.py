"""Programs that commands name: looked up, started, and in words why one could not be."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator

from jobrunner.executors import limits
from jobrunner.work import Command

_MOST_KNOWN = 256
_CANNOT_EXECUTE, _NOT_FOUND = 126, 127  # what shells answer (POSIX, 2.8.2 Exit Status for Commands)
_DEFAULTED = [int(number) for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}]


class Programs:
    """What was found before is found at once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def start(self, command: Command, actions: list[tuple[int, int, int]]) -> int:
        """Its pid. Where the last one of this name was found, this one is tried; what has gone from there is looked up again."""
        name = (command.argv[0], command.env.get("PATH", os.defpath))
        if known := self._known.get(name):
            try:
                return _posix_spawn(known, command, actions)
            except FileNotFoundError:
                del self._known[name]
        path = _found(*name)
        if path is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        pid = _posix_spawn(path, command, actions)
        if os.path.isabs(path) and len(self._known) < _MOST_KNOWN:
            self._known[name] = path
        return pid


def _posix_spawn(path: str, command: Command, actions: list[tuple[int, int, int]]) -> int:
    if limits.are_set(command.resources):
        _check_executable(path)
        words = limits.limited((path, *command.argv[1:]), command.resources)
        return _spawn(words[0], words, command.env, actions)
    try:
        return _spawn(path, command.argv, command.env, actions)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        words = ("sh", path, *command.argv[1:])  # a script without #!: a shell would run it, so do we
        return _spawn("/bin/sh", words, command.env, actions)


def _spawn(path: str, argv: tuple[str, ...], env: dict[str, str], actions: list[tuple[int, int, int]]) -> int:
    return os.posix_spawn(path, argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULTED)


def _check_executable(path: str) -> None:
    """Raises what starting it would: it is another program that will start it, and that would only have an exit code."""
    os.stat(path)
    if os.path.isdir(path) or not os.access(path, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if (interpreter := _interpreter(path)) and not os.path.exists(interpreter):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _found(name: str, path: str) -> str | None:
    """The file that `name` means: as a shell finds it, by the PATH that the command gets."""
    return name if "/" in name else next(_executables(name, path), None)


def _executables(name: str, path: str) -> Iterator[str]:
    """As `shutil.which`, which loads two compressors."""
    for folder in path.split(os.pathsep) if path else ():
        found = os.path.join(folder, name)
        if os.access(found, os.X_OK) and not os.path.isdir(found):
            yield found


def why_not(error: OSError | ValueError, command: Command) -> tuple[int, str]:
    """Exit code and words for a command that could not be started."""
    name = command.argv[0]
    if isinstance(error, ValueError):
        return _CANNOT_EXECUTE, f"its words, environment or folder hold what no command can be given ({error})"
    if not os.path.isdir(command.cwd):
        return _CANNOT_EXECUTE, f"no such directory: {command.cwd}"
    found = _found(name, command.env.get("PATH", os.defpath))
    path = os.path.join(command.cwd, found or "")
    match error.errno:
        case errno.ENOENT if os.path.isfile(path) and (interpreter := _interpreter(path)):
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
