"""A sync that goes on beside us: it is over when `wait` says so, and a disk that fails is told of."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from jobrunner import journal, syncing
from jobrunner.journal import Journal, JournalError, replay
from jobrunner.syncing import Syncing
from tests.test_journal import event_of, take


def is_known() -> bool:
    try:
        with open(os.devnull, "w") as file:
            Syncing(file.fileno()).close()
    except OSError:
        return False
    return True


of_the_system = pytest.mark.skipif(not is_known(), reason="the system has no such call")


@of_the_system
def test_a_sync_begins_and_is_waited_for_again_and_again(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    each = Syncing(fd)
    for _ in range(3):
        os.write(fd, b"line")
        each.begin()
        each.wait()
    each.begin()
    each.close()
    os.close(fd)


@of_the_system
def test_what_cannot_be_synced_is_an_error_as_of_fdatasync() -> None:
    far, near = os.pipe()
    each = Syncing(near)
    with pytest.raises(OSError, match="Invalid argument"):
        each.begin()
    each.close()
    os.close(far)
    os.close(near)


@pytest.mark.parametrize("call", ["numbered_call", None])
def test_where_the_system_has_no_such_call_that_is_told(call: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if call:
        monkeypatch.setattr(syncing, call, lambda: None)
    else:
        monkeypatch.setattr(syncing, "_CALLS", {})
    with pytest.raises(OSError, match="not known here"):
        Syncing(1)


class Disk:
    """A disk that syncs beside us, as the journal sees it."""

    fails = False

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.told: list[str] = []
        made.append(self)

    def begin(self) -> None:
        self.told.append("begin")

    def wait(self) -> None:
        self.told.append("wait")
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def close(self) -> None:
        self.told.append("close")


made: list[Disk] = []


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Journal, Disk]:
    """A journal on a disk that has shown itself slow, so that syncs go on beside us; the last of them was begun."""
    made.clear()
    monkeypatch.setattr(syncing, "Syncing", Disk)
    monkeypatch.setattr(journal, "_SLOW_SYNC", 0.0)
    kept = Journal.create(tmp_path / "events.jsonl", sync=True, reserve=0)
    for _ in range(journal._BEFORE_GOING_ON):
        take(kept, event_of(0))
        kept.commit(sync=True, wait=False)
    assert not made
    take(kept, event_of(0))
    kept.commit(sync=True, wait=False)
    return kept, made[0]


def synced(kept: Journal) -> int:
    """What the next record says that the disk has."""
    take(kept, event_of(0))
    kept.commit(sync=False)
    return int(replay(kept.path).records[-1]["synced"])


def test_records_say_that_the_disk_has_others_when_that_was_waited_for(beside: tuple[Journal, Disk]) -> None:
    kept, disk = beside
    assert (disk.told, synced(kept)) == (["begin"], kept.seq - 2)
    begun = kept.seq - 1
    kept.settle()
    kept.settle()
    assert (disk.told, synced(kept)) == (["begin", "wait"], begun)


def test_a_sync_that_is_waited_for_waits_for_the_one_before(
    beside: tuple[Journal, Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, disk = beside
    monkeypatch.setattr(os, "fdatasync", lambda fd: disk.told.append("sync"))
    kept.commit(sync=True)
    assert disk.told == ["begin", "wait"]  # nothing was written since
    take(kept, event_of(0))
    kept.commit(sync=True)
    assert disk.told == ["begin", "wait", "sync"]
    kept.close()
    assert disk.told[-1] == "close"


def test_the_first_failure_of_a_sync_beside_us_is_final(beside: tuple[Journal, Disk]) -> None:
    kept, disk = beside
    disk.fails = True
    with pytest.raises(JournalError, match="Input/output error"):
        kept.settle()
    with pytest.raises(JournalError, match="Input/output error"):
        kept.commit(sync=True)
    assert disk.told == ["begin", "wait"]


def test_where_the_file_cannot_be_synced_beside_us_it_is_waited_for(
    beside: tuple[Journal, Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, disk = beside
    kept.settle()

    def refuse() -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(disk, "begin", refuse)
    monkeypatch.setattr(os, "fdatasync", lambda fd: disk.told.append("sync"))
    for _ in range(2):
        take(kept, event_of(0))
        kept.commit(sync=True, wait=False)
    assert disk.told == ["begin", "wait", "close", "sync", "sync"]
    assert len(made) == 1


def test_who_asks_again_after_a_failure_does_not_wait_for_ever(beside: tuple[Journal, Disk]) -> None:
    kept, disk = beside
    disk.fails = True
    with pytest.raises(JournalError):
        kept.settle()
    kept.settle()
    assert disk.told == ["begin", "wait"]
