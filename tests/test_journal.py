"""The journal: what is committed is found again; what is not as it was written is cut off or refused, never skipped."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobrunner import events, system
from jobrunner.errors import StateError
from jobrunner.events import Event
from jobrunner.journal import (
    MARGIN,
    RESERVE,
    DamagedJournal,
    Journal,
    JournalError,
    JournalFull,
    Record,
    Replay,
    last_record,
    replay,
)
from jobrunner.stream import Stamped
from tests.harness import all_closed

TS = "2026-01-02T03:04:05.678901Z"
EMPTY = Replay(records=[], seq=0, offset=0, dropped=0, crc=0)


@pytest.fixture(autouse=True)
def _all_closed() -> Iterator[None]:
    with all_closed(Journal):
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def stamped(event: Event, seq: int) -> Stamped:
    return Stamped(seq=seq, ts=TS, run_id="r1", job="j", event=event)


def started(**params: Any) -> events.RunStarted:
    return events.RunStarted(file="/jobs/j.yaml", run_dir="/s/j/r1", pid=1, tasks=1, params=params, options={})


def finished(**more: Any) -> events.TaskFinished:
    given = {"task": "a", "item": None, "attempt": 1, "mode": "thread_pool", "worker": "w-1", "pid": 7, "outcome": "succeeded"}
    return events.TaskFinished(**{**given, "duration": 1.5, **more})


def event_of(seq: int) -> Event:
    """Short events of several kinds: the damage below is done to each of their bytes."""
    kinds: tuple[Event, ...] = (
        events.PoolClosed(pool=f"p{seq}"),
        events.RunInterrupted(reason="signal", signal="SIGTERM"),
        events.TaskSkipped(task="b", reason="needs", cause="a"),
        events.TaskRetrying(task="ü", item=None, attempt=2, delay=0.5),
    )
    return kinds[seq % len(kinds)]


def write(path: Path, groups: list[list[Event]], *, sync: bool = False) -> None:
    """A journal of the events, a commit a group."""
    journal = Journal.create(path, sync=sync, reserve=0)
    for group in groups:
        take(journal, *group)
        journal.commit(sync=True)
    journal.close()


def take(journal: Journal, *taken: Event) -> None:
    for event in taken:
        journal(stamped(event, journal.seq + 1))


def begins(data: bytes) -> list[int]:
    """Where the lines begin, and the end."""
    found = [0]
    for line in data.splitlines(keepends=True):
        found.append(found[-1] + len(line))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal of 30 records."""
    path = tmp_path_factory.mktemp("whole") / "events.jsonl"
    write(path, [[event_of(seq) for seq in range(1, 31)]])
    return path.read_bytes()


def records_of(data: bytes) -> list[Record]:
    return [json.loads(line) for line in data.splitlines()]


def judge(path: Path, data: bytes, records: list[Record], starts: list[int]) -> int | None:
    """How many of `records` a damaged journal still gives; None if it is refused."""
    path.write_bytes(data)
    try:
        found = replay(path)
    except StateError as error:
        assert_names_its_place(error, starts)
        return None
    assert found.records == records[: found.seq]
    assert (found.offset, found.dropped) == (starts[found.seq], len(data) - starts[found.seq])
    return found.seq


def assert_names_its_place(error: StateError, starts: list[int]) -> None:
    assert error.exit_code == 74
    if isinstance(error, DamagedJournal):
        assert f"damaged at byte {error.offset}:" in str(error)
        assert error.offset in starts


# --- Round trip --------------------------------------------------------------------------------------------------------------


def test_what_is_committed_is_found_again(path: Path) -> None:
    journal = Journal.create(path, sync=True, reserve=RESERVE)
    take(journal, started(x=1), event_of(1))
    journal.commit(sync=True)
    take(journal, finished())
    assert (journal.seq, replay(path).seq) == (3, 2)
    journal.commit(sync=False)
    found = replay(path)
    assert [record["event"] for record in found.records] == ["run.started", "run.interrupted", "task.finished"]
    assert [record["seq"] for record in found.records] == [1, 2, 3]
    assert (found.seq, found.offset, found.dropped) == (3, path.stat().st_size, 0)
    journal.close()
    journal.close()


def test_a_record_is_its_place_its_fields_and_a_seal(path: Path) -> None:
    write(path, [[events.PoolClosed(pool="p")], [events.PoolClosed(pool="q")]], sync=True)
    first, second = path.read_bytes().splitlines()
    place = f'"ts":"{TS}","event":"pool.closed","run_id":"r1","job":"j"'
    body = f'{{"v":1,"seq":1,{place},"pool":"p"'.encode()
    crc = zlib.crc32(body)
    assert first == body + f',"crc":"{crc:08x}"}}'.encode()
    body = f'{{"seq":2,{place},"pool":"q","synced":1'.encode()
    assert second == body + f',"crc":"{zlib.crc32(body, crc):08x}"}}'.encode()


HOSTILE: list[tuple[Any, Any]] = [
    ("\ud800", "\\ud800"),
    (float("nan"), None),
    ([1 << 63, 1 << 64, -(1 << 200), 10**18, 1.5e300], [1 << 63, 1 << 64, -(1 << 200), 10**18, 1.5e300]),
    ("x" * 1_000_000, "x" * 1_000_000),
    ("\0\n\r\u2028\x7f", "\0\n\r\u2028\x7f"),
    ('"crc":"00000000"}\n', '"crc":"00000000"}\n'),
    ([[[[{"a": [0.1, "\ud800"]}]]]], [[[[{"a": [0.1, "\\ud800"]}]]]]),
    ("1" * 40, "1" * 40),
]


@pytest.mark.parametrize(("value", "expected"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_values_are_one_record_each(path: Path, value: Any, expected: Any) -> None:
    write(path, [[started(x=value), finished(error={"type": "E", "message": str(value)}), event_of(1)]])
    found = replay(path)
    assert found.records[0]["params"] == {"x": expected}
    assert type(found.records[0]["params"]["x"]) is type(expected)
    assert (found.seq, found.dropped) == (3, 0)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (events.Data(value=b'{"a":[1.0,"x"]}'), {"value": '{"a":[1.0,"x"]}'}),
        (events.Data(value=b"123456789012345678901234567890"), {"value": "123456789012345678901234567890"}),
        (events.Data(value=b'"\\ud800"'), {"value": '"\\ud800"'}),
        (events.Data(value='"\ud800"'.encode("utf-8", "surrogatepass")), {"value": '"\\ud800"'}),
        (events.Data(value=b'"\xff"'), {"value": '"\ufffd"'}),
        (events.Data(value=b"null"), {"value": "null"}),
        (events.Data(stdout=b"a\0\xff\xc3\n"), {"stdout": "a\0\ufffd\ufffd\n"}),
        (events.Data(outputs={"k": "v", "\ud800": "\x1b"}), {"outputs": {"k": "v", "\\ud800": "\x1b"}}),
        (events.Data(withheld=True), {"withheld": True}),
        (events.Data(), {}),
        (None, None),
    ],
)
def test_what_a_task_gave_to_others_is_text(path: Path, data: events.Data | None, expected: Any) -> None:
    write(path, [[started(), finished(data=data)]])
    assert replay(path).records[1].get("data") == expected


def test_output_is_not_in_the_journal(path: Path) -> None:
    journal = Journal.create(path, sync=False, reserve=0)
    take(journal, started())
    journal(stamped(events.TaskOutput(task="a", item=None, attempt=1, pool="p", data=b"x"), 1))
    take(journal, event_of(1))
    journal.commit(sync=False)
    assert replay(path).seq == 2


def test_jq_reads_every_line(path: Path) -> None:
    journal = Journal.create(path, sync=True, reserve=RESERVE)
    take(journal, *(started(x=value) for value, _ in HOSTILE), finished(data=events.Data(stdout=b"\xff\0", value=b'"\\ud800"')))
    journal.commit(sync=True)
    jq = shutil.which("jq")
    assert jq, "jq is not installed"
    ended = subprocess.run([jq, "-c", "[.seq, .event, .crc]", path], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert lines == [[record["seq"], record["event"], record["crc"]] for record in replay(path).records]
    assert len(lines) == len(HOSTILE) + 1


def test_reserved_room_is_not_in_the_file_and_is_given_back(path: Path) -> None:
    journal = Journal.create(path, sync=True, reserve=RESERVE)
    take(journal, started())
    journal.commit(sync=True)
    assert b"\0" not in path.read_bytes()
    assert path.stat().st_blocks * 512 >= RESERVE
    journal.close()
    assert path.stat().st_blocks * 512 < RESERVE
    assert replay(path).dropped == 0


def test_a_journal_is_its_owners_and_closes_on_exec(path: Path) -> None:
    umask = os.umask(0)
    try:
        journal = Journal.create(path, sync=True, reserve=0)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not os.get_inheritable(journal._fd)


def test_an_event_out_of_its_place_is_our_bug(path: Path) -> None:
    journal = Journal.create(path, sync=False, reserve=0)
    take(journal, started())
    for seq in (1, 3):
        with pytest.raises(JournalError, match=f"event {seq} follows event 1 .*this is a bug"):
            journal(stamped(event_of(1), seq))


# --- Damage ------------------------------------------------------------------------------------------------------------------


def test_cut_at_any_byte_it_is_the_records_before(path: Path, whole: bytes) -> None:
    records, starts = records_of(whole), begins(whole)
    for length in range(len(whole) + 1):
        assert judge(path, whole[:length], records, starts) == whole[:length].count(b"\n")


@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF])
def test_with_any_byte_changed_it_is_refused_there_or_ends_there(path: Path, whole: bytes, change: int) -> None:
    records, starts = records_of(whole), begins(whole)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= change
        hit = whole[:at].count(b"\n")
        verdict = judge(path, bytes(damaged), records, starts)
        assert verdict == (hit if hit >= len(records) - 2 and verdict is not None else None), at
        if hit == len(records) - 1:
            assert verdict == hit


def test_the_offset_is_that_of_the_record_that_was_changed(path: Path, whole: bytes) -> None:
    starts = begins(whole)
    for hit, at in enumerate(starts[:-3]):
        path.write_bytes(whole[: at + 20] + b"!" + whole[at + 21 :])
        with pytest.raises(DamagedJournal, match=f"byte {at}:") as caught:
            replay(path)
        assert caught.value.offset == at == starts[hit]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"x",
        b"x\n",
        b"\0" * 4096,
        b"{}\n",
        b"[]\n" * 50,
        b"\xff" * 999 + b"\n",
        b'{"seq":31,"crc":"00000000"}\n',
        b"\n" * 99,
    ],
)
def test_garbage_at_the_end_is_cut_off(path: Path, whole: bytes, garbage: bytes) -> None:
    assert judge(path, whole + garbage, records_of(whole), begins(whole)) == 30


@pytest.mark.parametrize("index", [0, 1, 14, 28])
@pytest.mark.parametrize(
    ("how", "at"),
    [
        (lambda lines, index: lines[:index] + [lines[index]] * 2 + lines[index + 1 :], 1),
        (lambda lines, index: [*lines[:index], lines[index + 1], lines[index], *lines[index + 2 :]], 0),
        (lambda lines, index: [*lines[: index + 1], b"{}\n", *lines[index + 1 :]], 1),
        (lambda lines, index: [*lines[: index + 1], b"\n", *lines[index + 1 :]], 1),
    ],
    ids=["twice", "swapped", "between", "empty"],
)
def test_a_record_moved_or_put_in_is_refused(
    path: Path, whole: bytes, how: Callable[[list[bytes], int], list[bytes]], at: int, index: int
) -> None:
    starts = begins(whole)
    path.write_bytes(b"".join(how(whole.splitlines(keepends=True), index)))
    with pytest.raises(DamagedJournal) as caught:
        replay(path)
    assert caught.value.offset == starts[index + at]


def test_a_record_that_is_missing_is_refused_or_ends_the_journal(path: Path, whole: bytes) -> None:
    lines, records, starts = whole.splitlines(keepends=True), records_of(whole), begins(whole)
    verdicts = [judge(path, b"".join(lines[:index] + lines[index + 1 :]), records, starts) for index in range(30)]
    assert verdicts == [None] * 28 + [28, 29]


def test_records_of_another_journal_are_refused(path: Path, whole: bytes, tmp_path: Path) -> None:
    write(tmp_path / "other", [[started(other=True), *(event_of(seq) for seq in range(2, 31))]])
    lines, other = whole.splitlines(keepends=True), (tmp_path / "other").read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:10] + other[10:]))
    with pytest.raises(DamagedJournal) as caught:
        replay(path)
    assert caught.value.offset == begins(whole)[10]


WAYS = ["cut", "put", "gap", "copy", "lose", "move"]


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Up to four cuts, copies, insertions, gaps, removals and moves, anywhere."""
    steps = draw(
        st.lists(
            st.tuples(st.sampled_from(WAYS), st.integers(0, 9999), st.integers(0, 999), st.binary()),
            min_size=1,
            max_size=4,
        )
    )

    def damage(data: bytes) -> bytes:
        for how, start, length, new in steps:
            at = start % (len(data) + 1)
            part = data[at : at + length]
            rest = data[at + length :]
            data = {
                "cut": data[:at],
                "put": data[:at] + new + data[at:],
                "gap": data[:at] + b"\0" * len(part) + rest,
                "copy": data + part,
                "lose": data[:at] + rest,
                "move": data[:at] + rest + part,
            }[how]
        return data

    return damage


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=damages())
def test_any_damage_leaves_the_first_records_or_is_refused(path: Path, whole: bytes, damage: Callable[[bytes], bytes]) -> None:
    damaged = damage(whole)
    verdict = judge(path, damaged, records_of(whole), begins(whole))
    last = last_record(path)
    assert last is None or last in records_of(whole)
    assert path.read_bytes() == damaged
    if verdict is None:
        with pytest.raises(StateError):
            Journal.reopen(path, sync=False)
        assert path.read_bytes() == damaged
    else:
        assert_goes_on(path, verdict)


def assert_goes_on(path: Path, seq: int) -> None:
    """Repaired and gone on with, it reads as what was whole and what was added."""
    journal, found = Journal.reopen(path, sync=False)
    assert (found.seq, journal.seq) == (seq, seq)
    take(journal, events.JournalRepaired(offset=found.offset, dropped=found.dropped), event_of(seq))
    journal.commit(sync=True)
    journal.close()
    again = replay(path)
    assert again.records[:seq] == found.records
    assert [record["event"] for record in again.records[seq:]] == ["journal.repaired", event_of(seq).NAME]
    assert again.dropped == 0


def test_repaired_wherever_it_was_torn_it_goes_on(path: Path, whole: bytes) -> None:
    for length in range(0, len(whole) + 1, 3):
        path.write_bytes(whole[:length])
        assert_goes_on(path, whole[:length].count(b"\n"))


def test_a_journal_gone_on_with_reads_the_same_a_third_time(path: Path) -> None:
    write(path, [[started(x="\ud800")], [event_of(1)]], sync=True)
    for seq in (2, 4, 6):
        with open(path, "ab") as file:
            file.write(b'{"seq":3,"ts"')
        assert_goes_on(path, seq)
    assert replay(path) == replay(path)


def groups_of(path: Path) -> list[int]:
    """How long a journal with synced groups of three records was after each commit."""
    journal = Journal.create(path, sync=True, reserve=0)
    lengths = []
    for group in range(8):
        take(journal, *(event_of(group * 3 + offset) for offset in (1, 2, 3)))
        journal.commit(sync=True)
        lengths.append(path.stat().st_size)
    journal.close()
    return lengths


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(synced=st.integers(0, 7), grain=st.sampled_from([1, 7, 64, 512]), lost=st.integers(min_value=0), end=st.integers(0, 999))
def test_after_a_power_loss_all_that_was_synced_is_there(
    tmp_path_factory: pytest.TempPathFactory, synced: int, grain: int, lost: int, end: int
) -> None:
    """Any bytes of the last group, the only one that is not synced, may be missing or read as zeros."""
    path = tmp_path_factory.mktemp("power") / "events.jsonl"
    lengths = groups_of(path)
    data = bytearray(path.read_bytes()[: lengths[synced]])
    safe = lengths[synced - 1] if synced else 0
    for piece, at in enumerate(range(safe, len(data), grain)):
        if lost >> piece & 1:
            data[at : at + grain] = bytes(len(data[at : at + grain]))
    path.write_bytes(data[: max(safe, len(data) - end)])
    found = replay(path)
    assert found.seq >= synced * 3
    assert_goes_on(path, found.seq)


def test_a_gap_in_what_was_synced_is_damage(path: Path) -> None:
    lengths = groups_of(path)
    data = path.read_bytes()
    for group in range(7):
        at = lengths[group] - 41
        path.write_bytes(data[:at] + bytes(40) + data[at + 40 :])
        with pytest.raises(DamagedJournal) as caught:
            replay(path)
        assert caught.value.offset == begins(data)[group * 3 + 2]


@pytest.mark.parametrize("data", [b'{"v":2,"anything":"else"}\n', b'{"v":12}\nnot json\n', b'{"v":2,'])
def test_a_later_version_is_refused_and_left_as_it_is(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    for read in (replay, lambda path: Journal.reopen(path, sync=True)):
        with pytest.raises(StateError, match=r"later jobrunner .version") as caught:
            read(path)
        assert caught.value.exit_code == 74
    assert path.read_bytes() == data


def test_a_first_record_without_its_version_is_none(path: Path, whole: bytes) -> None:
    body = whole.splitlines()[0][:-18].replace(b'"v":1,', b"")
    path.write_bytes(body + b',"crc":"%08x"}\n' % zlib.crc32(body))
    assert replay(path).seq == 0


@pytest.mark.parametrize(
    "body", [b"[1", b'{"seq":1', b'{"v":1,"seq":7', b'{"v":1,"seq":1,"x":' + b"[" * 2000, b'{"v":1,"seq":1,,']
)
def test_a_line_with_a_right_seal_that_is_no_record_is_none(path: Path, body: bytes) -> None:
    path.write_bytes(body + b',"crc":"%08x"}\n' % zlib.crc32(body))
    assert replay(path).seq == 0


# --- Faults ------------------------------------------------------------------------------------------------------------------


class Calls:
    """Stands before a function of `os`: counts its calls, and does something else instead when told so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, instead: Callable[..., Any] | None = None) -> None:
        self.count, self._real, self.instead = 0, getattr(os, name), instead
        monkeypatch.setattr(os, name, self)

    def __call__(self, *args: Any) -> Any:
        self.count += 1
        return self.instead(self._real, *args) if self.instead else self._real(*args)


def failing(code: int) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal.create(path, sync=True, reserve=RESERVE)
    take(journal, started())
    journal.commit(sync=True)
    yield journal
    journal.close()


def test_a_directory_that_cannot_be_synced_is_taken_as_it_is_a_broken_one_is_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = Calls(monkeypatch, "fsync", failing(errno.EINVAL))
    Journal.create(path, sync=True, reserve=0).close()
    path.unlink()
    syncs.instead = failing(errno.EIO)
    with pytest.raises(JournalError, match=r"cannot keep a journal .*Input/output error"):
        Journal.create(path, sync=True, reserve=0)
    assert not path.exists()


def test_a_journal_that_cannot_be_synced_is_not_gone_on_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its runner had not synced may be all that a resume is about to build on."""
    write(path, [[started()]])
    Calls(monkeypatch, "fdatasync", failing(errno.EIO))
    with pytest.raises(JournalError, match=r"cannot repair the journal .*Input/output error"):
        Journal.reopen(path, sync=True)
    assert Journal.reopen(path, sync=False)[1].seq == 1


def test_who_has_only_an_end_to_tell_syncs_it_together_with_all_before_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not with what was torn: that is gone from the disk before anything takes its place."""
    write(path, [[started()], [event_of(1)]])
    syncs = Calls(monkeypatch, "fdatasync")
    journal, _ = Journal.reopen(path, sync=True, at_once=False)
    assert syncs.count == 0
    take(journal, event_of(2))
    journal.commit(sync=True)
    assert (syncs.count, "synced" in replay(path).records[-1]) == (1, False)  # nobody knew then what the disk had
    path.write_bytes(path.read_bytes() + b'{"seq":')
    Journal.reopen(path, sync=True, at_once=False)
    assert syncs.count == 2


def test_a_journal_on_a_read_only_disk_can_be_read_and_not_gone_on_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(real: Callable[..., int], name: Path, flags: int, *mode: int) -> int:
        if flags & os.O_WRONLY:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(name, flags, *mode)

    write(path, [[started()]])
    Calls(monkeypatch, "open", read_only)
    assert replay(path).seq == 1
    with pytest.raises(JournalError, match=r"cannot go on with the journal .*Read-only"):
        Journal.reopen(path, sync=True)
    with pytest.raises(JournalError, match=r"cannot make the journal .*Read-only"):
        Journal.create(path.with_name("new"), sync=True, reserve=0)


@pytest.mark.parametrize("count", [1, 2, 500])
@pytest.mark.parametrize("sync", [True, False])
def test_a_commit_is_one_write_and_at_most_one_sync(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, count: int, sync: bool
) -> None:
    writes, syncs = Calls(monkeypatch, "write"), Calls(monkeypatch, "fdatasync")
    take(journal, *map(event_of, range(count)))
    journal.commit(sync=sync)
    assert (writes.count, syncs.count) == (1, int(sync))
    journal.commit(sync=True)
    assert (writes.count, syncs.count) == (1, 1)
    journal.commit(sync=True)
    assert (writes.count, syncs.count) == (1, 1)


def test_a_journal_that_need_not_be_on_disk_is_never_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs, whole_syncs = Calls(monkeypatch, "fdatasync"), Calls(monkeypatch, "fsync")
    write(path, [[started()], [event_of(1)]])
    journal, _ = Journal.reopen(path, sync=False)
    take(journal, event_of(2))
    journal.commit(sync=True)
    assert (syncs.count, whole_syncs.count) == (0, 0)
    assert "synced" not in replay(path).records[-1]


def test_a_new_journal_is_in_its_directory_on_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    Calls(monkeypatch, "fsync", lambda real, fd: asked.append(stat.S_ISDIR(os.fstat(fd).st_mode)))
    Journal.create(path, sync=True, reserve=0).close()
    assert asked == [True]


def test_short_writes_are_finished(journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = Calls(monkeypatch, "write", lambda real, fd, data: real(fd, data[:7]))
    take(journal, *map(event_of, range(20)))
    journal.commit(sync=True)
    assert writes.count > 100
    assert replay(path).seq == 21


@pytest.mark.parametrize("call", ["write", "fdatasync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG])
def test_the_first_failure_is_final(journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    take(journal, event_of(1))
    failed = Calls(monkeypatch, call, failing(code))
    with pytest.raises(JournalError, match=os.strerror(code)) as caught:
        journal.commit(sync=True)
    assert (caught.value.exit_code, isinstance(caught.value, JournalFull)) == (74, False)
    failed.instead = None  # the disk is well again, for all that the journal knows
    size = path.stat().st_size
    for _ in range(3):
        take_without_numbers(journal)
        with pytest.raises(JournalError, match=os.strerror(code)):
            journal.commit(sync=True)
    assert (failed.count, path.stat().st_size) == (1, size)


def take_without_numbers(journal: Journal) -> None:
    """A run that is being ended says more; it must not fail again for that."""
    journal(stamped(event_of(1), journal.seq + 1))
    journal(stamped(event_of(1), journal.seq + 2))


@pytest.mark.parametrize("written", [0, 1, 100])
def test_a_write_that_fails_half_way_leaves_the_records_before(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    def half(real: Callable[..., int], fd: int, data: memoryview) -> int:
        if len(data) < total[0] or not written:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data[:written])

    take(journal, event_of(1), event_of(2))
    total = [sum(map(len, journal._buffer))]
    Calls(monkeypatch, "write", half)
    with pytest.raises(JournalError, match="No space"):
        journal.commit(sync=True)
    journal.close()
    assert (replay(path).seq, replay(path).dropped) == (1, written)
    monkeypatch.undo()
    assert_goes_on(path, 1)


def test_a_disk_that_takes_nothing_is_not_asked_for_ever(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    Calls(monkeypatch, "write", lambda *_: 0)
    take(journal, event_of(1))
    with pytest.raises(JournalError, match="takes nothing"):
        journal.commit(sync=True)


def test_an_interrupted_write_is_final(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    take(journal, event_of(1))
    Calls(monkeypatch, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        journal.commit(sync=True)
    monkeypatch.undo()
    with pytest.raises(JournalError, match="interrupted"):
        journal.commit(sync=True)


def test_a_deleted_journal_is_not_written_on_in_silence(journal: Journal, path: Path) -> None:
    path.unlink()
    take(journal, event_of(1))
    with pytest.raises(JournalError, match="it was deleted"):
        journal.commit(sync=True)


def test_a_closed_journal_says_so(journal: Journal) -> None:
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.commit(sync=True)


# --- Room --------------------------------------------------------------------------------------------------------------------


class Disk:
    """A disk with room for so many bytes, in the place of `system.reserve`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self.asked = room, list[tuple[int, int]]()
        monkeypatch.setattr(system, "reserve", self)

    def __call__(self, _: int, offset: int, length: int) -> None:
        self.asked.append((offset, length))
        if offset + length > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_without_room_no_journal_is_begun(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch, RESERVE - 1)
    with pytest.raises(JournalError, match="No space left"):
        Journal.create(path, sync=True, reserve=RESERVE)
    assert not path.exists()


def test_more_room_is_reserved_before_it_is_needed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, 1 << 40)
    journal = Journal.create(path, sync=False, reserve=RESERVE)
    for _ in range(40):
        take(journal, finished(output="x" * 50_000))
        journal.commit(sync=True)
        offset, length = disk.asked[-1]
        assert offset + length - path.stat().st_size >= MARGIN
    assert disk.asked == [(0, RESERVE), (RESERVE, RESERVE), (2 * RESERVE, RESERVE)]
    take(journal, finished(output="x" * 3 * RESERVE))
    journal.commit(sync=True)
    assert disk.asked[3:] == [(3 * RESERVE, 3 * RESERVE)]


def write_for_ever(journal: Journal) -> None:
    while True:
        take(journal, finished(output="x" * 50_000))
        journal.commit(sync=True)


def test_a_full_disk_is_told_while_what_is_in_flight_still_fits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, RESERVE)
    journal = Journal.create(path, sync=True, reserve=RESERVE)
    with pytest.raises(JournalFull, match=rf"No space left.*; free about 1.25 MiB there, .* resume {path.parent.name}$"):
        write_for_ever(journal)
    assert MARGIN - 51_000 <= RESERVE - path.stat().st_size <= MARGIN
    assert replay(path).seq == journal.seq
    for _ in range(3):
        take(journal, finished())
        with pytest.raises(JournalFull):
            journal.commit(sync=True)
        assert replay(path).seq == journal.seq
    assert len(disk.asked) == 2


def test_a_journal_that_is_gone_on_with_reserves_room_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, [[started()]])
    disk = Disk(monkeypatch, RESERVE - 1)
    journal, found = Journal.reopen(path, sync=True)
    take(journal, event_of(1))
    with pytest.raises(JournalFull):
        journal.commit(sync=True)
    assert disk.asked == [(found.offset, RESERVE)]
    assert replay(path).seq == 2


# --- Files -------------------------------------------------------------------------------------------------------------------


def test_there_is_one_journal_a_run(path: Path) -> None:
    write(path, [[started()]])
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"cannot make the journal .*File exists"):
        Journal.create(path, sync=True, reserve=RESERVE)
    assert path.read_bytes() == before


def _link(path: Path) -> None:
    write(path.with_name("real"), [[started()]])
    path.symlink_to("real")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "No such file"),
        (Path.mkdir, "regular file"),
        (os.mkfifo, "regular file"),
        (_link, "symbolic link"),
        (lambda path: path.symlink_to("/dev/zero"), "symbolic link"),
    ],
    ids=["nothing", "directory", "fifo", "link", "device"],
)
def test_what_is_no_journal_is_refused(path: Path, make: Callable[[Path], None], why: str) -> None:
    make(path)
    for read in (replay, lambda path: Journal.reopen(path, sync=True)):
        with pytest.raises(StateError, match=why) as caught:
            read(path)
        assert caught.value.exit_code == 74
    assert last_record(path) is None


def test_a_journal_cannot_be_made_where_there_is_no_directory(path: Path) -> None:
    with pytest.raises(JournalError, match=r"cannot make the journal .*No such file"):
        Journal.create(path / "events.jsonl", sync=True, reserve=0)


def test_an_empty_journal_is_a_run_that_has_not_begun(path: Path) -> None:
    path.touch()
    assert replay(path) == EMPTY
    assert_goes_on(path, 0)
    assert replay(path).records[0]["v"] == 1


# --- The last record ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [b"", b"x", b"{}\n", b"\0" * 70_000, b"x" * 300_000 + b"\n", b"\n" * 99_999])
@pytest.mark.parametrize("long", [0, 10, 70_000, 1_000_000])
@pytest.mark.parametrize("before", [0, 1, 3])
def test_the_last_whole_record_is_found_from_the_end(path: Path, before: int, long: int, tail: bytes) -> None:
    write(path, [[*map(event_of, range(before)), finished(output="x" * long)]])
    with open(path, "ab") as file:
        file.write(tail)
    assert last_record(path) == replay(path).records[-1]


def test_the_last_record_is_never_one_that_was_changed(path: Path, whole: bytes) -> None:
    records, starts = records_of(whole), begins(whole)
    for at in range(starts[-3], len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert last_record(path) in (records[-3:] if at < starts[-2] - 1 else records[-3:-1]), at


@pytest.mark.parametrize("data", [b"", b"x", b"\n", b"{}\n", b"x" * 200_000, b"x\n" * 100_000])
def test_without_a_whole_record_there_is_no_last_one(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert last_record(path) is None


def test_cut_anywhere_the_last_record_is_that_of_the_replay(path: Path, whole: bytes) -> None:
    for length in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:length])
        records = replay(path).records
        assert last_record(path) == (records[-1] if records else None)


def test_the_last_record_of_a_long_journal_is_read_without_the_rest(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, [[finished(output="x" * 5_000)] * 1_000])
    read: list[int] = []

    def measured(real: Callable[..., bytes], *place: int) -> bytes:
        read.append(len(data := real(*place)))
        return data

    Calls(monkeypatch, "pread", measured)
    assert (last_record(path) or {})["seq"] == 1_000
    assert sum(read) <= 64 << 10


def test_reading_a_journal_loads_no_models() -> None:
    """The guard does it at the end of every run."""
    code = "import sys, jobrunner.journal; print({'pydantic', 'yaml', 'structlog', 'click'} & sys.modules.keys())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
