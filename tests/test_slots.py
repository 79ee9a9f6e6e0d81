"""Limits of the whole machine: never more slots are held than there are, and a process that is gone holds none."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobrunner.errors import JobrunnerError, StateError, UnsafeError
from jobrunner.slots import HostLimits, Slots
from tests.harness import all_closed

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 60.0


@pytest.fixture(autouse=True)
def _all_closed() -> Iterator[None]:
    with all_closed(Slots):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "limits"


def held(slots: Slots, name: str = "api") -> int:
    return len(slots.holders(name))


# --- One at a time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "asked", "got"),
    [
        ([], 4, True),
        ([1], 3, True),
        ([1], 4, False),
        ([1, 1, 1, 1], 1, False),
        ([4], 1, False),
        ([2, 1], 1, True),
        ([2, 2], 0, True),
    ],
)
def test_as_many_as_are_free_can_be_taken_and_nothing_is_kept_of_a_try_that_failed(
    there: list[int], asked: int, got: bool, folder: Path
) -> None:
    one, other = Slots(folder), Slots(folder)
    assert all(one.take("api", 4, count) for count in there)
    assert other.take("api", 4, asked) is got
    assert held(one) == sum(there) + (asked if got else 0)
    one.close()
    assert other.take("api", 4, 4 - (asked if got else 0))


def test_what_is_given_back_can_be_taken_by_others(folder: Path) -> None:
    one, other = Slots(folder), Slots(folder)
    assert one.take("api", 3, 3)
    one.give("api", 2)
    assert not other.take("api", 3, 3)
    assert other.take("api", 3, 2)
    assert not one.take("api", 3, 1)
    one.give("api", 5)
    assert other.take("api", 3, 1)


def test_two_limits_have_nothing_to_do_with_each_other(folder: Path) -> None:
    one, other = Slots(folder), Slots(folder)
    assert one.take("api", 1, 1)
    assert other.take("api_2", 1, 1)
    assert (held(one), held(one, "api_2"), held(one, "ap")) == (1, 1, 0)


def test_two_jobs_that_differ_in_the_number_of_slots_share_those_with_the_lower_numbers(folder: Path) -> None:
    few, many = Slots(folder), Slots(folder)
    assert many.take("api", 4, 1)
    assert few.take("api", 2, 1)
    assert not few.take("api", 2, 1)
    assert many.take("api", 4, 2)
    few.give("api", 1)
    assert few.take("api", 2, 1)


def test_more_than_there_are_can_never_be_had(folder: Path) -> None:
    with pytest.raises(ValueError, match="3 of 2 slots of api"):
        Slots(folder).take("api", 2, 3)


def test_who_holds_is_told_as_long_as_it_does(folder: Path) -> None:
    slots = Slots(folder, job="nightly")
    assert slots.holders("api") == []
    assert slots.take("api", 12, 11)
    assert slots.holders("api") == [f"pid {os.getpid()} (nightly)"] * 11
    slots.give("api", 10)
    assert slots.holders("api") == [f"pid {os.getpid()} (nightly)"]
    slots.close()
    slots.close()
    assert slots.holders("api") == []


@pytest.mark.parametrize(
    "text", [b"", b"\xff" * 9, b"pid", b"pid 0", b"pid -1", b"pid 999999999999999999", b"pid 4194305 (gone)"]
)
def test_what_cannot_be_a_holder_is_not_told(text: bytes, folder: Path) -> None:
    slots = Slots(folder)
    (folder / "api.0").write_bytes(text)
    (folder / "api.other").write_bytes(b"pid x")
    assert slots.holders("api") == []


# --- Where it cannot be trusted, or has no room --------------------------------------------------------------------------------


def test_files_and_folder_are_of_their_owner_alone(folder: Path) -> None:
    umask = os.umask(0)
    try:
        slots = Slots(folder)
        assert slots.take("api", 1, 1)
    finally:
        os.umask(umask)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "api.0")] == [0o700, 0o600]


def test_a_folder_that_others_may_write_to_is_refused(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(UnsafeError, match="others may write") as refused:
        Slots(folder)
    assert refused.value.exit_code == 77


@pytest.mark.parametrize(("kind", "refusal"), [("symlink", UnsafeError), ("directory", StateError), ("no folder", StateError)])
def test_a_slot_that_cannot_be_one_is_refused(kind: str, refusal: type[JobrunnerError], folder: Path) -> None:
    slots = Slots(folder)
    match kind:
        case "symlink":
            (folder / "api.1").symlink_to("/tmp/elsewhere")
        case "directory":
            (folder / "api.1").mkdir()
        case _:
            folder.rmdir()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(refusal):
        slots.take("api", 2, 2)
    assert len(os.listdir("/proc/self/fd")) == before
    if kind != "no folder":
        assert Slots(folder).take("api", 1, 1)


def test_where_no_descriptor_is_free_nothing_is_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots, other = Slots(folder), Slots(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", _failing_open(at=2))
        assert not slots.take("api", 2, 2)
    assert other.take("api", 2, 2)


def _failing_open(*, at: int) -> object:
    calls, real = iter(range(1, 1000)), os.open

    def opened(*args: object, **named: object) -> int:
        if next(calls) >= at:
            raise OSError(24, "Too many open files")
        return real(*args, **named)  # type: ignore[arg-type]

    return opened


def test_a_slot_that_was_removed_is_not_held_by_who_had_it_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots, real = Slots(folder), fcntl.flock

    def removing(fd: int, how: int) -> None:
        real(fd, how)
        (folder / "api.0").unlink(missing_ok=True)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", removing)
        assert not slots.take("api", 1, 1)
    assert slots.take("api", 1, 1)


# --- Children ------------------------------------------------------------------------------------------------------------------


def test_what_is_given_back_is_free_though_a_forked_child_has_a_copy(folder: Path) -> None:
    slots, other = Slots(folder), Slots(folder)
    assert slots.take("api", 1, 1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    slots.give("api", 1)
    free = other.take("api", 1, 1)
    os.close(writer)
    os.waitpid(child, 0)
    os.close(reader)
    assert free


def test_a_program_that_is_started_has_no_copy(folder: Path) -> None:
    slots = Slots(folder)
    assert slots.take("api", 1, 1)
    listed = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True, close_fds=False)
    assert "api.0" not in listed.stdout


# --- Several processes ---------------------------------------------------------------------------------------------------------


_HOLDER = """
import sys, time
from pathlib import Path
from jobrunner.slots import HostLimits, Slots
slots = Slots(Path(sys.argv[1]), job="holder")
assert slots.take("api", 2, 2)
if sys.argv[2] == "with hosts":
    from jobrunner import host
    from jobrunner.executors.children import start_host
    for number in range(4):
        settings = host.Settings(pool="p", worker=f"p-{number}", lane="serial", workers=1, executor="", path=[], env={})
        start_host(settings, method="fork", folder="/")
print("held", flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("children", ["alone", "with hosts"])
def test_what_a_killed_process_held_is_free_at_once(children: str, folder: Path) -> None:
    slots = Slots(folder)
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(folder), children], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert slots.holders("api") == [f"pid {holder.pid} (holder)"] * 2
        assert not slots.take("api", 2, 1)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert _taken_within(slots, 2.0 if children == "with hosts" else 0.0)
        assert slots.holders("api") == [f"pid {os.getpid()}"] * 2


def _taken_within(slots: Slots, seconds: float) -> bool:
    """Hosts that were being forked may hold a copy until the system has ended them too."""
    until = time.monotonic() + seconds
    while not (taken := slots.take("api", 2, 2)) and time.monotonic() < until:
        time.sleep(0.001)
    return taken


class Witness:
    """How many slots each worker says it holds: numbers in shared memory, under a lock of another kind."""

    def __init__(self, path: Path, workers: int) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._fd, 4 * workers)
        self._memory = mmap.mmap(self._fd, 4 * workers)
        self._form = f"{workers}i"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def held(self) -> tuple[int, ...]:
        return struct.unpack(self._form, self._memory)

    def set(self, worker: int, count: int) -> None:
        struct.pack_into("i", self._memory, 4 * worker, count)

    def close(self) -> None:
        os.close(self._fd)


SLOTS, WORKERS, ROUNDS = 5, 6, 40


def work(folder: Path, witness_file: Path, me: int, seed: int) -> None:
    """What a worker process does: take some slots, be seen with them, give them back; many times."""
    slots, witness, chance = Slots(folder), Witness(witness_file, WORKERS), random.Random(seed)
    for _ in range(ROUNDS):
        count = chance.randint(1, SLOTS)
        while not slots.take("api", SLOTS, count):
            time.sleep(chance.random() / 500)
        with witness.alone():
            witness.set(me, count)
            assert sum(witness.held()) <= SLOTS, witness.held()
        time.sleep(chance.random() / 1000)
        with witness.alone():
            witness.set(me, 0)
        slots.give("api", count)


_WORK = """
import sys
from pathlib import Path
from tests.test_slots import work
work(*map(Path, sys.argv[1:3]), *map(int, sys.argv[3:]))
"""


def start(folder: Path, witness: Path, me: int, seed: int) -> subprocess.Popen[bytes]:
    words = ["-c", _WORK, str(folder), str(witness), str(me), str(seed)]
    return subprocess.Popen([sys.executable, *words], cwd=ROOT)


@pytest.mark.parametrize("kills", [0, 12])
def test_never_more_slots_are_held_than_there_are_and_all_get_their_turn(kills: int, folder: Path, tmp_path: Path) -> None:
    """A worker is killed while nobody can look at the witness, and is taken off its list before anybody can."""
    witness, chance = Witness(tmp_path / "witness", WORKERS), random.Random()
    running = {me: start(folder, tmp_path / "witness", me, chance.getrandbits(32)) for me in range(WORKERS)}
    while kills and any(process.poll() is None for process in running.values()):
        time.sleep(0.01)  # not to wait: a kill at any moment
        with witness.alone():
            busy = [me for me, count in enumerate(witness.held()) if count]
            if not busy:
                continue
            me, kills = chance.choice(busy), kills - 1
            running[me].kill()
            running[me].wait()
            witness.set(me, 0)
        running[me] = start(folder, tmp_path / "witness", me, chance.getrandbits(32))
    codes = [process.wait(LIMIT) for process in running.values()]
    assert (codes, witness.held()) == ([0] * WORKERS, (0,) * WORKERS)
    witness.close()
    assert Slots(folder).take("api", SLOTS, SLOTS)


def test_who_waits_long_is_told_once_for_whom(tmp_path: Path) -> None:
    now, told = [0.0], list[tuple[list[str], list[str]]]()
    holder, waiting = Slots(tmp_path, job="import"), Slots(tmp_path, job="nightly")
    assert holder.take("db", 1, 1)
    limits = HostLimits(waiting, {"db": 1}, tell=lambda names, holders: told.append((names, holders)), clock=lambda: now[0])
    for now[0] in (0.0, 4.9, 5.0, 9.0, 100.0):
        assert not limits.take({"db": 1})
    assert told == [(["db"], [f"pid {os.getpid()} (import)"])]
    holder.close()
    assert limits.take({"db": 1})
    limits.give({"db": 1})
    assert holder.take("db", 1, 1)
    now[0] = 200.0
    assert not limits.take({"db": 1})
    assert len(told) == 1, "a new wait"
    holder.close()
    waiting.close()
