"""The values of secrets, read when a run starts and kept nowhere: from a variable, a file, a command or systemd; and `env_file`.

Nothing here puts a value into a message. What reaches a task, and how it is kept out of all outputs, is decided elsewhere
(see bind and masking).
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import stat
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from jobrunner import trust
from jobrunner.errors import UnsafeError, UsageError
from jobrunner.typed import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import subprocess

    from jobrunner.spec import Job, Secret

LARGEST: Final = 64 << 10
"""Bytes of the largest secret: Linux refuses to start a process with a variable of 128 KiB."""
LARGEST_FILE: Final = 1 << 20
"""Bytes of the largest `env_file`."""
PATIENCE: Final = 60.0
"""Seconds that the command of a secret may take."""

_TOO_LARGE: Final = f"is larger than {LARGEST >> 10} KiB, more than a variable can hold"


def variables(job: Job) -> tuple[str, ...]:
    """The variables that secrets are declared to be read from, wanted or not: no task may find them in its environment."""
    return tuple(dict.fromkeys(secret.env for secret in job.secrets.values() if secret.env is not None))


def wanted(job: Job, tasks: Iterable[str]) -> tuple[str, ...]:
    """The secrets that some of `tasks` list, in the order of their declaration."""
    listed = {name for task in tasks for name in job.tasks[task].secrets}
    return tuple(name for name in job.secrets if name in listed)


def read(job: Job, folder: Path, environ: Mapping[str, str], *, wanted: Collection[str]) -> dict[str, str]:
    """The values of the wanted secrets. `folder` is that of the job file, which relative paths and commands start from.

    Raises UsageError that names every secret that cannot be had, UnsafeError for the first file that others can read.
    """
    found: dict[str, str] = {}
    wrong: list[str] = []
    for name, secret in job.secrets.items():
        if name in wanted:
            try:
                found[name] = _usable(_value(secret, folder, environ))
            except _Unavailable as error:
                wrong.append(f"secrets.{name}: {error}")
    if wrong:
        raise UsageError("\n".join(wrong))
    return found


class _Unavailable(Exception):
    """Why a secret cannot be had, in words that go behind its name; never with a part of it."""


def _value(secret: Secret, folder: Path, environ: Mapping[str, str]) -> str:
    if secret.env is not None:
        if secret.env not in environ:
            raise _Unavailable(f"the variable {secret.env} is not set")
        return environ[secret.env]
    if secret.command is not None:
        return _text(_printed(secret.command, folder, environ), "what its command printed")
    path = _path(folder, secret.file) if secret.file is not None else _credential(str(secret.credential), environ)
    return _text(_private(path), str(path))


def _usable(value: str) -> str:
    """A value that a variable can hold and a mask can find."""
    if not value.strip():
        raise _Unavailable("it is empty")
    if "\0" in value:
        raise _Unavailable("it holds a NUL character, which no variable can hold")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise _Unavailable("it is not UTF-8") from None
    if size > LARGEST:
        raise _Unavailable(f"it {_TOO_LARGE}")
    return value


def _text(data: bytes, source: str) -> str:
    """The text without its last line end, which editors and echo add."""
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise _Unavailable(f"{source} is not UTF-8") from None


# --- files -------------------------------------------------------------------------------------------------------------------


def _path(folder: Path, name: str) -> Path:
    return folder / os.path.expanduser(name)


def _credential(name: str, environ: Mapping[str, str]) -> Path:
    """Where systemd puts a credential for the service."""
    if not (directory := environ.get("CREDENTIALS_DIRECTORY")):
        said = f"there is no $CREDENTIALS_DIRECTORY: start jobrunner as a systemd service with LoadCredential={name}:PATH"
        raise _Unavailable(said)
    path = Path(directory, name)
    if not path.exists():
        raise _Unavailable(f"the service has no credential {name!r}; its unit wants LoadCredential={name}:PATH")
    return path


def _private(path: Path) -> bytes:
    """What a file holds that nobody but its owner and his group can read, the owner being ourselves or root."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            _refuse_exposed(path, found)
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise _Unavailable(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > LARGEST:
        raise _Unavailable(f"{path} {_TOO_LARGE}")
    return data


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would block


def _refuse_exposed(path: Path, found: os.stat_result) -> None:
    """Asked of the open file, so that nobody can put another in its place in between."""
    if not stat.S_ISREG(found.st_mode):
        raise _Unavailable(f"{path} is not a regular file")
    if found.st_mode & 0o007:
        raise UnsafeError(f"others may read or change the secret in {path}: chmod o= {path}")
    if found.st_uid not in {0, os.geteuid()}:
        raise UnsafeError(f"{path} holds a secret but belongs to another user: chown it to yourself or to root")
    trust.refuse_unsafe_file(path, "the secret in")


# --- commands ----------------------------------------------------------------------------------------------------------------


def _printed(command: str, folder: Path, environ: Mapping[str, str]) -> bytes:
    """What a command prints, run by `sh -e` in a session of its own, reading nothing; its errors go where ours go."""
    deadline = time.monotonic() + PATIENCE
    import subprocess  # only where there are secrets from commands

    process = subprocess.Popen(
        ["/bin/sh", "-ec", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=folder,
        env=dict(environ),
        start_new_session=True,
    )
    try:
        with process:
            data = _drained(process, deadline)
            code = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise _Unavailable(f"its command did not end within {PATIENCE:.0f} s") from None
    if code:
        raise _Unavailable(
            f"its command ended with exit code {code}" if code > 0 else f"its command was killed by signal {-code}"
        )
    return data


def _drained(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """All that the command prints, up to the size of a secret; whatever goes wrong, it is killed with what it started."""
    import subprocess

    assert process.stdout is not None
    data = b""
    try:
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        while len(data) <= LARGEST:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise subprocess.TimeoutExpired(process.args, PATIENCE)
            if not (part := os.read(process.stdout.fileno(), LARGEST)):
                return data
            data += part
        raise _Unavailable(f"what its command printed {_TOO_LARGE}")
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


# --- env_file ----------------------------------------------------------------------------------------------------------------

_LINE: Final = r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)"
_QUOTED: Final = r"""(?:'([^']*)'|"((?:[^"\\]|\\.)*)")[ \t]*(?:[ \t]#.*)?"""
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}


def env_file(path: Path) -> dict[str, str]:
    """The variables of a file whose lines are `NAME=value`, blank, or # comments.

    `export `, single quotes and double quotes are understood, and in these \\n, \\r, \\t, \\\\, \\" and \\$. Nothing is expanded:
    `$HOME` is five characters. Raises UsageError with file:line for every line that is none of this, UnsafeError where somebody
    else may have written it.
    """
    found: dict[str, str] = {}
    wrong: list[str] = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            if (entry := _entry(line.strip(" \t\r"))) is not None:
                name, value = entry
                if name in found:
                    raise _Unavailable(f"{name} stands there twice; leave one out")
                found[name] = value
        except _Unavailable as error:
            wrong.append(f"{path}:{number}: {error}")
    if wrong:
        raise UsageError("\n".join(wrong))
    return found


def _lines(path: Path) -> list[str]:
    try:
        trust.refuse_unsafe_file(path, "the env_file")
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"env_file: {path} is not a regular file")
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"env_file: {path} cannot be read: {error.strerror}") from None
    if len(data) > LARGEST_FILE:
        raise UsageError(f"env_file: {path} is larger than {LARGEST_FILE >> 20} MiB")
    try:
        return data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: this is not UTF-8") from None


def _entry(line: str) -> tuple[str, str] | None:
    """Name and value of a line, None for one that says nothing. No message holds a value."""
    if not line or line.startswith("#"):
        return None
    if "\0" in line:
        raise _Unavailable("a variable holds no NUL character")
    match = re.fullmatch(_LINE, line, re.ASCII | re.DOTALL)
    if match is None:
        raise _Unavailable("a line is NAME=value, with a name of letters, digits and '_', no blanks around =, or a # comment")
    name, value = match.groups()
    return name, _unquoted(name, value)


def _unquoted(name: str, value: str) -> str:
    if not value.startswith(("'", '"')):
        if re.search(r"[ \t]#", value):
            raise _Unavailable(f"the value of {name} may end in a comment or hold a #: quote it")
        return value.strip(" \t")
    match = re.fullmatch(_QUOTED, value, re.DOTALL)
    if match is None:
        said = f"the quotes of {name} are not closed on this line, or something stands behind them"
        raise _Unavailable(f"{said}; a line end in a value is written \\n in double quotes")
    single, double = match.groups()
    if single is not None:
        return str(single)
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), double)
