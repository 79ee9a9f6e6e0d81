"""The journal under faults of the system: whichever write or sync fails, lies or is the last, nothing acknowledged is lost.

A small program writes records and says after each commit, by another system call, how many the journal has taken. strace makes
one call after the other fail. Then what was acknowledged is there, and the journal can be gone on with or is refused.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobrunner.events import JournalRepaired
from jobrunner.journal import DamagedJournal, Journal, last_record, replay
from jobrunner.stream import Stamped

ROOT = Path(__file__).resolve().parent.parent
GROUPS, SIZE = 6, 3
"""Commits of the program, every second of which syncs, and records in each."""

PROGRAM = """
import os, sys
from pathlib import Path
from jobrunner.events import PoolClosed
from jobrunner.stream import Stamped
from jobrunner.journal import Journal, JournalError, JournalFull

path, groups, size, filler = Path(sys.argv[1]), *map(int, sys.argv[2:5])

def take():
    for _ in range(size):
        seq = journal.seq + 1
        event = PoolClosed(pool=f"p{seq}" + "x" * filler)
        journal(Stamped(seq=seq, ts="2026-01-02T03:04:05Z", run_id="r1", job="j", event=event))

def fails_again():
    try:
        journal.commit(sync=True)
    except JournalError:
        return True

journal = Journal.create(path, sync=True, reserve=1 << 16)
try:
    for group in range(groups):
        take()
        journal.commit(sync=group % 2 == 1)
        os.writev(1, [b"%d\\n" % journal.seq])
except JournalFull:
    os.writev(1, [b"%d\\n" % journal.seq])
    os._exit(75)
except JournalError as error:
    assert fails_again() and fails_again()
    os.writev(2, [str(error).encode()])
    os._exit(error.exit_code)
journal.close()
os._exit(0)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the program ended: what was acknowledged, what it said, and the calls it made of those that were watched."""

    code: int
    acknowledged: int
    said: str
    calls: Sequence[str] = ()


def run(command: Sequence[str], path: Path, *, groups: int = GROUPS, filler: int = 0) -> Ended:
    program = [sys.executable, "-c", PROGRAM, str(path), str(groups), str(SIZE), str(filler)]
    ended = subprocess.run(
        [*command, *program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    acknowledged = [int(line) for line in ended.stdout.split()]
    return Ended(code=ended.returncode, acknowledged=max(acknowledged, default=0), said=ended.stderr)


def traced(path: Path, inject: str | None = None) -> Ended:
    """The program under strace. It makes no write(2) and fdatasync(2) but those of the journal, so the n-th is the journal's."""
    strace = shutil.which("strace")
    assert strace, "strace is not installed"
    log = path.with_suffix(".trace")
    fault = ["-e", f"inject={inject}"] if inject else []
    ended = run([strace, "-f", "-qqq", "-o", str(log), "-e", "trace=write,fdatasync", *fault], path)
    calls = re.findall(r"^\d+ +(write|fdatasync)\(", log.read_text(), re.MULTILINE)
    return Ended(code=ended.code, acknowledged=ended.acknowledged, said=ended.said, calls=calls)


def assert_old_or_new_state(path: Path, acknowledged: int) -> None:
    """What was acknowledged is there, in order and as it was; after it, whole records or none; and the journal goes on."""
    found = replay(path)
    assert acknowledged <= found.seq <= acknowledged + SIZE
    assert [(record["seq"], record["pool"]) for record in found.records] == [(n, f"p{n}") for n in range(1, found.seq + 1)]
    journal, again = Journal.reopen(path, sync=True)
    assert again == found
    event = JournalRepaired(offset=found.offset, dropped=found.dropped)
    journal(Stamped(seq=journal.seq + 1, ts="2026-01-02T03:04:05Z", run_id="r1", job="j", event=event))
    journal.commit(sync=True)
    journal.close()
    assert replay(path).records[:-1] == found.records
    assert (last_record(path) or {})["event"] == "journal.repaired"


def test_without_a_fault_a_commit_is_one_write_and_one_sync_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    ended = traced(path)
    assert (ended.code, ended.acknowledged, ended.said) == (0, GROUPS * SIZE, "")
    assert ended.calls == ["write", "write", "fdatasync"] * (GROUPS // 2)
    assert_old_or_new_state(path, GROUPS * SIZE)


FAILURES = [
    *((f"write:error={name}", at) for name in ("ENOSPC", "EIO", "EDQUOT") for at in range(1, GROUPS + 1)),
    *(("write:retval=0", at) for at in (1, GROUPS)),
    *((f"fdatasync:error={name}", at) for name in ("EIO", "ENOSPC") for at in range(1, GROUPS // 2 + 1)),
]


def _faults(folder: Path, faults: Sequence[tuple[str, int]]) -> list[tuple[str, Path, Ended]]:
    """The program under each fault, as many at a time as there are CPUs."""
    paths = [folder / f"{index}.jsonl" for index in range(len(faults))]
    injections = [f"{fault}:when={at}" for fault, at in faults]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(zip(injections, paths, threads.map(traced, paths, injections), strict=True))


def test_whichever_write_or_sync_fails_it_is_final_and_exit_74(tmp_path: Path) -> None:
    for fault, path, ended in _faults(tmp_path, FAILURES):
        assert (ended.code, "cannot write the journal" in ended.said) == (74, True), (fault, ended)
        call, _, at = fault.partition(":")[0], *fault.rpartition("=")[1:]
        assert (ended.calls[-1], ended.calls.count(call)) == (call, int(at)), fault
        assert_old_or_new_state(path, ended.acknowledged)


def test_killed_at_any_write_or_sync_it_is_the_old_state_or_the_new(tmp_path: Path) -> None:
    kills = [("write:signal=KILL", at) for at in range(1, GROUPS + 1)]
    kills += [("fdatasync:signal=KILL", at) for at in range(1, GROUPS // 2 + 1)]
    for fault, path, ended in _faults(tmp_path, kills):
        assert ended.code in (-signal.SIGKILL, 128 + signal.SIGKILL), (fault, ended)
        assert_old_or_new_state(path, ended.acknowledged)


def test_an_interrupted_call_is_made_again(tmp_path: Path) -> None:
    faults = [("write:error=EINTR", at) for at in (1, 2, GROUPS)] + [("fdatasync:error=EINTR", 1)]
    for fault, path, ended in _faults(tmp_path, faults):
        assert (ended.code, ended.acknowledged) == (0, GROUPS * SIZE), (fault, ended)
        assert_old_or_new_state(path, GROUPS * SIZE)


def test_a_disk_that_says_it_wrote_what_it_did_not_is_found_out(tmp_path: Path) -> None:
    """Of each group in turn the first 50 bytes are lost, and whole records follow: the journal is refused there."""
    for fault, path, ended in _faults(tmp_path, [("write:retval=50", at) for at in range(1, GROUPS + 1)]):
        assert ended.code == 0, (fault, ended)
        before = (int(fault.rpartition("=")[2]) - 1) * SIZE
        with pytest.raises(DamagedJournal) as caught:
            replay(path)
        assert path.read_bytes()[: caught.value.offset].count(b"\n") == before


def test_a_limit_in_the_middle_of_a_write_leaves_the_records_before(tmp_path: Path) -> None:
    """A real short write: the first call takes what fits, the second fails."""
    path = tmp_path / "events.jsonl"
    ended = run(["prlimit", "--fsize=1000", "--"], path, groups=100)
    assert (ended.code, os.strerror(errno.EFBIG) in ended.said) == (74, True), ended
    assert path.stat().st_size == 1000
    assert replay(path).dropped > 0
    assert_old_or_new_state(path, ended.acknowledged)


FULL_DISK = """
mount -t tmpfs -o size=6m none "$1" || exit 99
head -c 3500k /dev/zero >"$1/filler"
shift
"$@"
code=$?
cp "$JOURNAL" "$COPY"
exit $code
"""


def test_a_disk_that_fills_up_is_told_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system of 6 MiB, of which others have 3.5: the journal says so while what it was given is written whole."""
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setenv("JOURNAL", str(disk / "events.jsonl"))
    monkeypatch.setenv("COPY", str(tmp_path / "copy.jsonl"))
    command = ["unshare", "-rm", "sh", "-c", FULL_DISK, "sh", str(disk)]
    ended = run(command, disk / "events.jsonl", groups=1000, filler=1000)
    assert ended.code == 75, ended
    found = replay(tmp_path / "copy.jsonl")
    assert (found.seq, found.dropped) == (ended.acknowledged, 0)
    assert found.seq > 300


def test_without_any_room_there_is_no_journal(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    full = 'mount -t tmpfs -o size=1m none "$1" || exit 99; head -c 1m /dev/zero >"$1/filler"; shift; exec "$@"'
    ended = run(["unshare", "-rm", "sh", "-c", full, "sh", str(disk)], disk / "events.jsonl")
    assert ended.code == 1
    assert "JournalError: cannot keep a journal in" in ended.said


def test_readers_of_a_journal_that_is_being_written_see_its_first_records(tmp_path: Path) -> None:
    """They are never kept waiting, and what they have seen stays."""
    path = tmp_path / "events.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), "1500", "3", "300"], cwd=ROOT, stdout=subprocess.DEVNULL
    ) as writer:
        seen, reads = 0, 0
        while writer.poll() is None:
            if not path.exists():
                continue
            found = replay(path)
            assert found.seq >= seen
            assert all(record["pool"].startswith(f"p{record['seq']}x") for record in found.records[seen:])
            last = last_record(path)
            assert (last["seq"] if last else 0) >= found.seq
            seen, reads = found.seq, reads + 1
    assert writer.returncode == 0
    assert replay(path).seq == 4500
    assert reads > 0


def test_killed_at_any_moment_it_goes_on_each_time(tmp_path: Path) -> None:
    """No injection: the program is killed as soon as it has said a number, while it goes on writing."""
    path = tmp_path / "events.jsonl"
    for least in (1, 30, 300):
        path.unlink(missing_ok=True)
        command = [sys.executable, "-c", PROGRAM, str(path), "999999", "3", "0"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            acknowledged = next(int(line) for line in writer.stdout if int(line) >= least)
            writer.kill()
            acknowledged = max([acknowledged, *(int(line) for line in writer.stdout.read().split(b"\n")[:-1])])
        assert replay(path).seq >= acknowledged
        assert_old_or_new_state(path, acknowledged)
