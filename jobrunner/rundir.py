"""The state directory, and in it one directory for each run, readable only for its owner.

STATE/JOB/lock
STATE/JOB/RUN_ID/events.jsonl   the journal: what happened, and the truth
STATE/JOB/RUN_ID/job.yaml       the job file as it was; what it includes is in included/
STATE/JOB/RUN_ID/output/        what tasks printed
STATE/JOB/RUN_ID/outputs/       where commands write `key=value` lines, while they run
STATE/JOB/RUN_ID/values/        large values that tasks gave to others
STATE/JOB/RUN_ID/mark           what processes of the run are known by that show no environment
STATE/JOB/cache/                what need not run again
STATE/JOB/durations.json        how long tasks took, of use to the next run
STATE/.limits/                  slots that all jobs share
STATE/.compiled/                what unchanged job files came to
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jobrunner import trust
from jobrunner.errors import StateError, UsageError
from jobrunner.structs import struct

_RUN_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{10}")
_BEGINNING = r"\d{8}T?\d{0,6}Z?(?:-[0-9a-f]*)?"
_MOST_NAMED = 5


@struct
class RunDir:
    """One run's directory; it exists, and only its owner may read it."""

    id: str
    job: str
    path: Path

    @property
    def journal(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def mark(self) -> Path:
        return self.path / "mark"


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


def new_run_id(now: float, after: str = "") -> str:
    """Unique, and sorts by start time; behind the run `after`, also where the clock was set back meanwhile."""
    fraction = int(now % 1 * 0x1000)
    found = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{fraction:03x}{os.urandom(4).hex()[1:]}"
    if found > after:
        return found
    second, _, number = after.partition("-")
    return f"{second}-{int(number, 16) + 1:010x}"


def job_dir(state: Path, job: str) -> Path:
    """The directory of a job's runs, made if need be. Raises StateError, or UnsafeError where others could interfere."""
    path = state / job
    trust.make_directory(state)
    trust.make_directory(path)
    trust.refuse_network(state)
    return path


def create(state: Path, *, job: str, run_id: str, job_file: bytes, included: Sequence[tuple[str, bytes]] = ()) -> RunDir:
    """Make the directory of a new run, all but its journal, with a copy of the job file and of what it includes (name, bytes).

    Raises StateError where it cannot.
    """
    path = job_dir(state, job) / run_id
    try:
        path.mkdir(mode=0o700)
        (path / "output").mkdir(mode=0o700)
        (path / "outputs").mkdir(mode=0o700)
        if included:
            (path / "included").mkdir(mode=0o700)
        copies = [(f"included/{number}-{name}", data) for number, (name, data) in enumerate(included, 1)]
        for name, data in (("job.yaml", job_file), ("mark", b"\0"), *copies):
            with open(path / name, "xb", opener=_private) as file:
                file.write(data)
    except OSError as error:
        raise _unusable(path, error) from None
    return RunDir(id=run_id, job=job, path=path)


def clear_outputs(directory: RunDir) -> None:
    """Remove what attempts of a killed run wrote for others: the next part counts its attempts from 1 again."""
    try:
        (directory.path / "outputs").mkdir(mode=0o700, exist_ok=True)
        for entry in os.scandir(directory.path / "outputs"):
            os.unlink(entry)
    except OSError as error:
        raise _unusable(directory.path / "outputs", error) from None


def sync(directory: RunDir) -> None:
    """Make the directory itself survive a loss of power: its entry in that of its job, and the job's in the state."""
    for path in (directory.path.parent, directory.path.parent.parent):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise _unusable(path, error) from None


def jobs(state: Path) -> list[str]:
    """The names of all jobs that have run."""
    try:
        return sorted(entry.name for entry in os.scandir(state) if entry.is_dir() and not entry.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unusable(state, error) from None


def runs(state: Path, job: str) -> Iterator[RunDir]:
    """The runs of a job that have a journal, the newest first."""
    try:
        names = sorted((name for name in os.listdir(state / job) if _RUN_ID.fullmatch(name)), reverse=True)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(state / job, error) from None
    for name in names:
        found = RunDir(id=name, job=job, path=state / job / name)
        if found.journal.is_file():
            yield found


def find(state: Path, run_id: str) -> RunDir | None:
    """The run of this id, or the only one whose id begins so, whatever its job. Raises UsageError where several do."""
    if _RUN_ID.fullmatch(run_id):
        paths = (RunDir(id=run_id, job=job, path=state / job / run_id) for job in jobs(state))
        return next((found for found in paths if found.journal.is_file()), None)
    if not re.fullmatch(_BEGINNING, run_id):
        return None
    found = [run for job in jobs(state) for run in runs(state, job) if run.id.startswith(run_id)]
    if len(found) > 1:
        named = ", ".join(run.id for run in found[:_MOST_NAMED])
        raise UsageError(f"{len(found)} runs begin with {run_id} ({named}{', …' * (len(found) > _MOST_NAMED)}): write more of it")
    return found[0] if found else None


def _unusable(path: Path, error: OSError) -> StateError:
    return StateError(f"cannot keep the state of the run in {path}: {error.strerror}; set JOBRUNNER_STATE")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
