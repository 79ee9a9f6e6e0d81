"""Where one part of a run is kept, and what is known of the parts before it.

the job's last run ─▶ what is left of it is ended ─▶ a new run, or that one gone on with: its directory and its journal
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobrunner import events, processes, rundir
from jobrunner.errors import JobrunnerError, StateError, UsageError
from jobrunner.events import Event
from jobrunner.journal import RESERVE, Journal, last_record
from jobrunner.prepare import Options, Prepared
from jobrunner.recorded import Recorded
from jobrunner.stream import timestamp
from jobrunner.structs import struct

RESERVED_PER_TASK, MOST_RESERVED = 2 << 10, 64 << 20
"""Bytes of the journal that are reserved for each task before a run begins."""
_PATIENCE = 1.0
"""Seconds for orphans of a killed run to be gone."""


@struct
class Part:
    """A run that is begun, or gone on with: where it is kept, and what is known of it."""

    directory: rundir.RunDir
    journal: Journal
    recorded: Recorded
    started_at: str
    notes: tuple[Event, ...]
    """What happened before there was a journal to tell it."""

    @property
    def attempt(self) -> int:
        return self.recorded.parts + 1


def begin(prepared: Prepared, state: Path) -> Part:
    """The run to go on with, or a new one. What a killed run left running is ended first."""
    job, options = prepared.job.name, prepared.options
    newest = next(rundir.runs(state, job), None)
    swept = list(_swept(newest))
    wanted = _wanted(prepared, state, newest)
    if wanted is not None and (part := _resumed(prepared, wanted, swept)) is not None:
        return part
    now, after = time.time(), "" if newest is None else newest.id
    directory = rundir.create(
        state,
        job=job,
        run_id=rundir.new_run_id(now, after),
        job_file=prepared.file.source,
        included=[(each.path.name, each.source) for each in prepared.file.includes],
    )
    durable = options.durability == "disk"
    reserve = min(RESERVE + RESERVED_PER_TASK * len(prepared.job.tasks), MOST_RESERVED)
    journal = Journal.create(directory.journal, sync=durable, reserve=reserve)
    if durable:
        rundir.sync(directory)
    return Part(directory=directory, journal=journal, recorded=Recorded(), started_at=timestamp(now), notes=tuple(swept))


def _swept(newest: rundir.RunDir | None) -> Iterator[Event]:
    """End what is left of the last run, if its runner was killed: nothing may run twice at the same time."""
    if newest is None or _has_finished(newest):
        return
    mark = str(newest.mark)
    for found in processes.end_run(newest.id, mark, _PATIENCE):
        yield events.OrphanKilled(pid=found.pid, run=newest.id, command=found.command)
    if left := processes.of_run(newest.id, mark):
        for each in left:
            os.close(each.pidfd)
        named = ", ".join(f"{each.pid} ({each.command})" for each in left)
        raise StateError(f"of the killed run {newest.id} some processes cannot be ended: {named}; end them, then try again")


def _has_finished(directory: rundir.RunDir) -> bool:
    try:
        record = last_record(directory.journal)
    except (OSError, JobrunnerError):  # damaged: then nobody knows
        return False
    return record is not None and record["event"] == events.RunFinished.NAME


def _wanted(prepared: Prepared, state: Path, newest: rundir.RunDir | None) -> rundir.RunDir | None:
    if isinstance(prepared.options.resume, str):
        found = rundir.find(state, prepared.options.resume)
        if found is None or found.job != prepared.job.name:
            raise UsageError(f"there is no run {prepared.options.resume} of the job {prepared.job.name}")
        return found
    return newest if prepared.options.resume else None


def _resumed(prepared: Prepared, directory: rundir.RunDir, notes: Sequence[Event]) -> Part | None:
    """The run in `directory`, gone on with; None where there is nothing to go on with and a new one is as good."""
    options = prepared.options
    journal, replay = Journal.reopen(directory.journal, sync=options.durability == "disk")
    recorded = Recorded.of(replay.records, retry_failed=options.retry_failed, rerun=options.rerun)
    by_name = isinstance(options.resume, str)
    if not (may_go_on(recorded, options) and (by_name or is_of(recorded, prepared))):
        journal.close()
        if by_name:
            raise UsageError(nothing_left(directory, recorded))
        return None
    rundir.clear_outputs(directory)
    repaired = [events.JournalRepaired(offset=replay.offset, dropped=replay.dropped)] if replay.dropped else []
    started_at = recorded.started["ts"]
    return Part(directory=directory, journal=journal, recorded=recorded, started_at=started_at, notes=(*repaired, *notes))


def may_go_on(recorded: Recorded, options: Options) -> bool:
    """Whether there is anything left to do of a run."""
    return bool(recorded.started) and (recorded.is_unfinished or options.retry_failed or bool(options.rerun))


def is_of(recorded: Recorded, prepared: Prepared) -> bool:
    """Whether it is a run of this very job file: another one may have the same name."""
    return os.path.realpath(str(recorded.started.get("file", ""))) == str(prepared.file.path.resolve())


def nothing_left(directory: rundir.RunDir, recorded: Recorded) -> str:
    how = "--retry-failed runs again what failed (also what you have changed since), --rerun TASK one task"
    return f"run {directory.id} has ended ({recorded.finished.get('outcome')}): nothing is left to do. {how}"


@contextlib.contextmanager
def marked(path: Path) -> Iterator[None]:
    """While inside, this process and what it forks can be told by a file that they have mapped."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a run of an older version has none
            file = stack.enter_context(open(path, "rb"))
            stack.enter_context(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        yield
