"""The state directory, and in it one directory for each run: the job file as it was, and what tasks printed.

STATE/JOB/RUN_ID/job.yaml
STATE/JOB/RUN_ID/output/TASK.log, output/TASK/ITEM.log
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from jobrunner.errors import StateError, UnsafeError

_LONGEST_FILE_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDir:
    """One run's directory; it exists, and only its owner may read it."""

    id: str
    path: Path

    def output_file(self, task: str, item: str | None) -> Path:
        """Where the output of a task or of one of its items belongs; different ones never share a file."""
        if item is None:
            return self.path / "output" / f"{task}.log"
        return self.path / "output" / task / f"{_file_name(item)}.log"

    def keep(self, task: str, item: str | None, data: bytes) -> None:
        """Add output to its file. What a full disk does not take is lost: it must not stop the tasks."""
        with contextlib.suppress(OSError):
            append(self.output_file(task, item), data)


def state_dir(environ: Mapping[str, str]) -> Path:
    """$JOBRUNNER_STATE, else $STATE_DIRECTORY (systemd), else $XDG_STATE_HOME/jobrunner, else ~/.local/state/jobrunner."""
    if own := environ.get("JOBRUNNER_STATE"):
        return Path(own).absolute()
    if systemd := environ.get("STATE_DIRECTORY"):
        return Path(systemd.split(":")[0]).absolute()
    if (xdg := environ.get("XDG_STATE_HOME")) and Path(xdg).is_absolute():
        return Path(xdg) / "jobrunner"
    try:
        return Path.home() / ".local" / "state" / "jobrunner"
    except RuntimeError:
        raise StateError("no home directory is known: set JOBRUNNER_STATE to a directory for the state of runs") from None


def new_run_id(now: float) -> str:
    """Sorts by start time, to the second; unique."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def create(state: Path, *, job: str, run_id: str, job_file: bytes) -> RunDir:
    """Make the directory of a new run. Raises StateError where it cannot, UnsafeError where others could interfere."""
    path = state / job / run_id
    try:
        for each in (*reversed(state.parents), state):  # mkdir(parents=True) would leave those to the umask
            each.mkdir(mode=0o700, exist_ok=True)
        _refuse_unsafe(state)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _refuse_unsafe(path.parent)
        path.mkdir(mode=0o700)
        (path / "output").mkdir(mode=0o700)
        (path / "outputs").mkdir(mode=0o700)
        with open(path / "job.yaml", "xb", opener=_private) as file:
            file.write(job_file)
    except OSError as error:
        raise StateError(f"cannot keep the state of the run in {path}: {error.strerror}; set JOBRUNNER_STATE") from None
    return RunDir(id=run_id, path=path)


def append(path: Path, data: bytes) -> None:
    """Add to an output file, which is made if need be, readable only for its owner."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
    finally:
        os.close(file)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _refuse_unsafe(path: Path) -> None:
    """A directory of somebody else, or that others may write to, could make us write where they want."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
        raise UnsafeError(f"{path} is not a directory of its own: remove it or set JOBRUNNER_STATE")
    if found.st_uid != os.geteuid():
        raise UnsafeError(f"{path} belongs to another user: set JOBRUNNER_STATE to a directory of your own")
    if found.st_mode & stat.S_ISVTX:
        raise UnsafeError(
            f"{path} is shared by all: set JOBRUNNER_STATE to a directory of your own, such as {path / 'jobrunner'}"
        )
    if found.st_mode & 0o022:
        raise UnsafeError(f"others may write to {path}: chmod go-w {path}")


def _file_name(item: str) -> str:
    """Shorter than the longest, or exactly that long and ending in a digest: so no name is like that of another item."""
    name = quote(item, safe=" ,+=@~()[]", errors="surrogatepass")
    if len(name) < _LONGEST_FILE_NAME:
        return name
    return f"{name[: _LONGEST_FILE_NAME - 33]}-{hashlib.sha256(item.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
