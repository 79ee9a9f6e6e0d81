"""The journal of a run: every event as one line of JSON, appended in groups, on disk before anything depends on it.

    event ─encode→ buffer ─commit: one write, one fdatasync→ events.jsonl ─replay→ records

A record is a line of JSON whose last member `crc` is the CRC-32 of the line's bytes before it, continued from the record
before: so one that was changed, lost, moved or put in is found. What was torn when a machine or a runner died is at the end,
and is cut off when the journal is opened again; what is damaged before whole records is refused. A record says in `synced`
up to which `seq` the disk had them all when it was taken: a gap in what came after that is not damage, but a power loss.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import time
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from jobrunner import system
from jobrunner.encoding import dumps, loads
from jobrunner.errors import StateError
from jobrunner.events import Data, Event, TaskFinished, TaskOutput, TaskStarted
from jobrunner.stream import Row, Rows, Stamped, place
from jobrunner.structs import struct
from jobrunner.typed import TYPE_CHECKING, Any, NoReturn, TypeAlias

if TYPE_CHECKING:
    from jobrunner.syncing import Syncing

VERSION = 1
RESERVE = 1 << 20
"""Bytes that are reserved at a time."""
MARGIN = 256 << 10
"""Bytes that stay free for records of attempts in flight when the disk has no more room."""

_BEFORE_GOING_ON, _SLOW_SYNC = 16, 50e-6
"""So many syncs show how long one takes, in seconds: of longer ones those that follow are not waited for where they need not."""
_WINDOW = 64 << 10
_SEAL = len(b',"crc":"00000000"}')
_VERSION = rb'\{"v":([0-9]{1,9})[,}]'
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_BEYOND_ORJSON = b"0" * 19
"""So many digits may be an integer of more than 64 bits, of which orjson would make a float."""

Record: TypeAlias = dict[str, Any]
"""A line of the journal, as JSON has it."""


class JournalError(StateError):
    """The journal cannot be written, so nothing may go on that depends on it. It stays so: nothing is tried again."""


class JournalFull(JournalError):
    """What was to be written is written, but there is no room for much more: start nothing new, let the rest end."""


class DamagedJournal(StateError):
    """A record is not as it was written, and whole ones follow. `offset` is where it begins, in bytes."""

    def __init__(self, path: Path, offset: int) -> None:
        super().__init__(
            f"{path} is damaged at byte {offset}: what stands there was not written so, and whole records follow; "
            f"restore the file from a copy, or start a new run"
        )
        self.path, self.offset = path, offset


@struct
class Replay:
    """What a journal holds: its whole `records`, the `seq` of the last (0: none), and where they end.

    `offset` are the bytes of the records, `dropped` those of a torn end after them. `crc` continues the last record.
    """

    records: list[Record]
    seq: int
    offset: int
    dropped: int
    crc: int


class Journal:
    """The end of one run's journal. It is a sink: it takes events, and `commit` puts what it took into the file.

    Only the holder of the run's lock may have one. Readers are never kept waiting: they see whole records and, at most, a
    torn one at the end.
    """

    def __init__(self, path: Path, fd: int, *, sync: bool, replay: Replay, reserved: int, is_dirty: bool = False) -> None:
        self.path = path
        self._fd, self._is_synced = fd, sync
        self._seq, self._crc = replay.seq, replay.crc
        self._size, self._reserved = replay.offset, reserved
        self._buffer: list[bytes] = []
        self._mark = _mark(replay.seq) if sync and not is_dirty else b""  # empty: nobody knows what the disk has
        self._is_dirty = is_dirty
        self._full = self._failure = ""
        self._syncing: Syncing | None = None
        self._pending = 0
        """The last record of which the disk will have been told when `settle` returns; 0: nothing is under way."""
        self._syncs, self._sync_time = 0, 0.0

    @classmethod
    def create(cls, path: Path, *, sync: bool, reserve: int = RESERVE) -> Journal:
        """Make the journal of a new run, readable only for its owner, with `reserve` bytes of room (0: the first commit asks).

        With `sync` it is on disk when this returns. Raises JournalError where it cannot be made, and leaves no file then.
        """
        try:
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(f"cannot make the journal {path}: {error.strerror}") from None
        try:
            if reserve:
                system.reserve(fd, 0, reserve)
            if sync:
                _sync_directory(path.parent)
        except OSError as error:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise JournalError(f"cannot keep a journal in {path.parent}: {error.strerror}") from None
        return cls(path, fd, sync=sync, replay=_NOTHING, reserved=reserve)

    @classmethod
    def reopen(cls, path: Path, *, sync: bool, at_once: bool = True) -> tuple[Journal, Replay]:
        """Go on with the journal of a run that was lost or stopped: what it holds, and its end, a torn record cut off.

        With `sync` what it holds is on disk when this returns; where it need not be `at_once`, with the next commit that syncs.
        Raises DamagedJournal, StateError where it cannot be read or is of a later version (it is left as it is then), and
        JournalError where it cannot be written.
        """
        found = replay(path)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise JournalError(f"cannot go on with the journal {path}: {error.strerror}") from None
        try:
            if found.dropped:
                os.ftruncate(fd, found.offset)
            is_synced = sync and (at_once or found.dropped > 0)  # what was cut off is gone before anything takes its place
            if is_synced:
                _sync(fd)  # what nobody has synced may be all that we are about to build on
        except OSError as error:
            os.close(fd)
            raise JournalError(f"cannot repair the journal {path}: {error.strerror}") from None
        return cls(path, fd, sync=sync, replay=found, reserved=found.offset, is_dirty=not is_synced), found

    @property
    def seq(self) -> int:
        """The number of the last event that it took; 0 where there was none."""
        return self._seq

    takes_rows = True

    def __call__(self, stamped: Stamped) -> None:
        """Take one event: as `take`."""
        self.take((stamped,))

    def take(self, batch: Rows) -> None:
        """Take events, to be written by the next commit. Output is not part of the journal.

        Raises JournalError if numbers are missing. After a failure it takes nothing: `commit` is what tells.
        """
        if self._failure:
            return
        ts, heads = "", dict[type, bytes]()
        for stamped in batch:
            if stamped.ts is not ts:  # as a rule all have one
                ts, heads = stamped.ts, {}
            if isinstance(stamped, Row):
                self._take_row(stamped)
            elif type(stamped.event) is not TaskOutput:
                self._take_one(stamped, heads)

    def _take_one(self, stamped: Stamped, heads: dict[type, bytes]) -> None:
        """`heads` are those that other events of the same time have needed."""
        event, seq = stamped.event, self._next(stamped.seq)
        kind = type(event)
        head = heads.get(kind)
        if head is None:
            head = heads[kind] = _head(stamped, kind)
        data = _data(event) if isinstance(event, TaskFinished) else b""
        body = b'%b"seq":%d,%b%b%b%b' % (_BEGIN if seq > 1 else _FIRST, seq, head, stamped.fields(), data, self._mark)
        self._seq, self._crc = seq, zlib.crc32(body, self._crc)
        self._buffer += (body, _SEALED % self._crc)

    def _take_row(self, row: Row) -> None:
        """Attempts with both their events: what differs is put into forms, one for each event."""
        seq, crc, add, crc32 = self._next(row.seq), self._crc, self._buffer.extend, zlib.crc32
        begin, end = (_form(_head(row, kind), self._mark) for kind in (TaskStarted, TaskFinished))
        for started, finished in row.fields:
            first, second = begin % (seq, started), end % (seq + 1, finished)
            middle = crc32(first, crc)
            crc = crc32(second, middle)
            add((first, _SEALED % middle, second, _SEALED % crc))
            seq += 2
        self._seq, self._crc = seq - 1, crc

    def _next(self, seq: int) -> int:
        if seq != self._seq + 1:
            raise JournalError(f"event {seq} follows event {self._seq} in the journal [this is a bug]")
        return seq

    def commit(self, *, sync: bool, wait: bool = True) -> None:
        """Write what was taken, in one write; with `sync` it is on disk when this returns, if the journal is to be synced.
        Without `wait` when `settle` returns.

        Raises JournalFull when it is written, but the next records may have no room; and JournalError when it may not be
        written, or not be on disk: from then on each call does, and writes nothing, since what a failed write or sync has left
        is not known.
        """
        if self._failure:
            raise JournalError(self._failure)
        self._failure = f"writing the journal {self.path} was interrupted"  # unless this comes to its end
        try:
            self._write()
            if sync:
                self._await_sync()
                self._sync(wait)
        except OSError as error:
            self._fail(error)
        self._failure = ""
        if self._full:
            raise JournalFull(self._full)

    def settle(self) -> None:
        """What was committed without waiting for it is on disk. Raises JournalError where it is not, and from then on."""
        try:
            self._await_sync()
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Give back what was reserved and not used. What was not committed is lost. Closing twice is no mistake."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        if not self._failure:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, os.fstat(fd).st_size)
        self._failure = self._failure or f"the journal {self.path} is closed"
        self._stop_syncing()
        os.close(fd)

    def _write(self) -> None:
        group = b"".join(self._buffer)
        self._make_room(len(group))
        if not group:
            return
        if not os.fstat(self._fd).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "it was deleted")
        rest = memoryview(group)
        while rest:
            rest = rest[_some(os.write(self._fd, rest)) :]
        self._buffer.clear()
        self._size += len(group)
        self._is_dirty = True

    def _make_room(self, length: int) -> None:
        """After a group of `length` bytes there is room for more, or the journal is full. A full one is not asked again."""
        missing = self._size + length + MARGIN - self._reserved
        if missing <= 0 or self._full:
            return
        step = -(-missing // RESERVE) * RESERVE
        try:
            system.reserve(self._fd, self._reserved, step)
            self._reserved += step
        except OSError as error:
            needed = f"{(step + MARGIN) / (1 << 20):g} MiB"
            self._full = (
                f"no room for more in the journal {self.path}: {error.strerror}; free about {needed} there, then resume the run: "
                f"jobrunner resume {self.path.parent.name}"
            )

    def _sync(self, wait: bool) -> None:
        if not (self._is_synced and self._is_dirty):
            return
        if not wait and self._goes_on():
            self._pending, self._is_dirty = self._seq, False
            return
        started = time.perf_counter()
        _sync(self._fd)
        self._is_dirty = False
        self._mark = _mark(self._seq)
        self._syncs, self._sync_time = self._syncs + 1, self._sync_time + time.perf_counter() - started

    def _goes_on(self) -> bool:
        """Whether the disk syncs beside us from now on: tried where that pays, and not again where the system refuses."""
        try:
            if self._syncs == _BEFORE_GOING_ON and self._sync_time > _BEFORE_GOING_ON * _SLOW_SYNC:
                from jobrunner.syncing import Syncing  # short runs do without

                self._syncs += 1
                self._syncing = Syncing(self._fd)
            if self._syncing is not None:
                self._syncing.begin()
        except OSError:
            self._stop_syncing()
        return self._syncing is not None

    def _await_sync(self) -> None:
        pending, self._pending = self._pending, 0
        if pending and self._syncing is not None:
            self._syncing.wait()
            self._mark = _mark(pending)

    def _stop_syncing(self) -> None:
        if self._syncing is not None:
            self._syncing.close()
            self._syncing = None

    def _fail(self, error: OSError) -> NoReturn:
        self._buffer.clear()
        why = f"cannot write the journal {self.path}: {error.strerror}"
        self._failure = f"{why}; the run cannot go on, since what it does would not be recorded"
        raise JournalError(self._failure) from None


_BEGIN, _FIRST = b"{", b'{"v":%d,' % VERSION


_SEALED = b',"crc":"%08x"}\n'


def _head(stamped: Stamped | Row, kind: type[Event]) -> bytes:
    """What the records of one kind of event share that were taken at one time."""
    when = f'"ts":"{stamped.ts}","event":"{kind.NAME}",'
    return b"%b%b," % (when.encode(), place(stamped.run_id, stamped.job))


def _form(head: bytes, mark: bytes) -> bytes:
    """A record as what its number and its fields are put into, up to its seal."""
    return b'%b"seq":%%d,%b%%b%b' % (_BEGIN, head.replace(b"%", b"%%"), mark)


def _data(event: TaskFinished) -> bytes:
    return b"" if event.data is None else b',"data":' + dumps(_texts(event.data))


def _mark(seq: int) -> bytes:
    """Says that the disk has all records up to this one."""
    return b',"synced":%d' % seq if seq else b""


def _texts(data: Data) -> Record:
    """Values as text: a number that a reader of JSON would round is as the task gave it, and output as expressions see it."""
    texts: Record = {} if data.value is None else {"value": _text(data.value)}
    if data.value_file:
        texts["value_file"] = data.value_file
    if data.stdout:
        texts["stdout"] = data.stdout.decode("utf-8", "replace")
    if data.outputs:
        texts["outputs"] = data.outputs
    if data.withheld:
        texts["withheld"] = True
    return texts


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8", "surrogatepass")  # encoding writes one as the escape that it also is in this JSON
    except UnicodeDecodeError:
        return value.decode("utf-8", "replace")


def _some(written: int) -> int:
    if not written:
        raise OSError(errno.EIO, "it takes nothing")
    return written


def _sync(fd: int) -> None:
    getattr(os, "fdatasync", os.fsync)(fd)


def _sync_directory(path: Path) -> None:
    """The names in a directory are on disk. Some file systems cannot be asked that of a directory."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


# Reading.


def replay(path: Path) -> Replay:
    """All whole records of a journal, also of one that is being written; the file is only read.

    Raises DamagedJournal where one before whole ones is not as it was written, and StateError for a journal that cannot be
    read or that a later version has written.
    """
    try:
        with _reading(path) as fd:
            data = _read(fd, 0, os.fstat(fd).st_size)
    except OSError as error:
        raise StateError(f"cannot read the journal {path}: {error.strerror}") from None
    _refuse_later_version(path, data)
    found = _whole_records(data)
    if _is_damaged(data, found):
        raise DamagedJournal(path, found.offset)
    return found


def last_record(path: Path) -> Record | None:
    """The last whole record of a journal, read from its end. None where there is none, or the file cannot be read.

    It is judged by the record before it alone: only `replay` judges them all.
    """
    try:
        with _reading(path) as fd:
            return _last_record(fd, os.fstat(fd).st_size)
    except OSError:
        return None


def _last_record(fd: int, size: int) -> Record | None:
    window = _WINDOW
    while True:
        start = max(0, size - window)
        found = _last_in(_read(fd, start, size), is_all=not start)
        if found is not None or not start:
            return found
        window *= 4


def _last_in(data: bytes, *, is_all: bool) -> Record | None:
    """The last whole record in the end of a file. What stands before the first line end need not be a line."""
    lines = data.split(b"\n")
    for index in range(len(lines) - 2, -1, -1):
        before = _crc_of(lines[index - 1]) if index else 0 if is_all else None
        if before is not None and _is_sealed(lines[index], before):
            return _parsed(lines[index])
    return None


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        yield fd
    finally:
        os.close(fd)


def _read(fd: int, start: int, end: int) -> bytes:
    pieces = []
    while start < end and (piece := os.pread(fd, end - start, start)):
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)


def _refuse_later_version(path: Path, data: bytes) -> None:
    """Every version begins its journals so, whatever else it changes."""
    if (begin := re.match(_VERSION, data)) and (version := int(begin[1])) > VERSION:
        raise StateError(f"{path} is of a later jobrunner (version {version} of the journal, this one reads {VERSION}): use that")


def _whole_records(data: bytes) -> Replay:
    """The records up to the end, or up to the first that is not as it was written."""
    records: list[Record] = []
    start = crc = 0
    while (end := data.find(b"\n", start)) >= 0:
        line = data[start:end]
        record = _parsed(line) if _is_sealed(line, crc) else None
        if record is None or record.get("seq") != len(records) + 1 or (not records and record.get("v") != VERSION):
            break
        records.append(record)
        crc = int(line[-10:-2], 16)
        start = end + 1
    return Replay(records=records, seq=len(records), offset=start, dropped=len(data) - start, crc=crc)


_NOTHING = _whole_records(b"")


def _is_damaged(data: bytes, found: Replay) -> bool:
    """After the first line that is no record, is there one? After a gap, one that says that the disk had what is missing?"""
    lines = data[found.offset :].split(b"\n")[:-1]
    if not (later := list(_later_records(lines, found.crc)) if lines else []):
        return not found.records and len(lines) > 1 and b"\0" not in lines[0]  # all is changed: an editor's line ends, for one
    is_gap = b"\0" in lines[0]  # JSON has no NUL, and a file system fills with them what never reached the disk
    return not is_gap or any(record.get("synced", 0) > found.seq for record in later)


def _later_records(lines: list[bytes], crc: int) -> Iterator[Record]:
    """Records among `lines`, of which the first is none; `crc` is that of the record before it.

    Whatever was done to a line, the one after it can be told: it continues that line's seal, what that line's seal should
    have been, or, if that line was put in, the record before.
    """
    for before, line in pairwise(lines):
        continued = (_crc_of(before), zlib.crc32(before[:-_SEAL], crc), crc)
        if any(each is not None and _is_sealed(line, each) for each in continued) and (record := _parsed(line)) is not None:
            yield record


def _is_sealed(line: bytes, before: int) -> bool:
    return line[-_SEAL:] == b',"crc":"%08x"}' % zlib.crc32(line[:-_SEAL], before)


def _crc_of(line: bytes) -> int | None:
    with contextlib.suppress(ValueError):
        crc = int(line[-_SEAL:][8:16], 16)
        return crc if line.endswith(b',"crc":"%08x"}' % crc) else None
    return None


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line) if _BEYOND_ORJSON in line.translate(_ZEROS) else loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
