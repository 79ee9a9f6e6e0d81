"""The guard: whoever dies, the tree dies with it, the journal tells, and the exit code is never 0 by accident.

Engines are small functions here. This process is a subreaper while a test runs: what gets out of the guard's and the engine's
hands becomes a child of ours, zombies too, and fails the test.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from benchmarks import leftovers
from jobrunner import __main__, guard, lifeline, processes, system
from jobrunner.errors import JobrunnerError
from jobrunner.events import Event, PoolClosed, RunFinished
from jobrunner.journal import Journal, replay
from jobrunner.stream import Stream

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no guard")

RUN = "20260101T000000Z-0a1b2c3d"
JOB = "nightly"
GONE = 5.0
"""Seconds: a tenth of one on a machine that has time, less than one is promised; whoever runs tests has other things running."""
Engine = Callable[["Scene"], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What an engine of a test has at hand: a journal, a lock, and a pipe to tell the test something; it also tells who lives."""

    journal: Path
    lock: Path
    say: int

    def tell(self, text: object) -> None:
        os.write(self.say, f"{text}\n".encode())

    def announce(self) -> lifeline.Lifeline:
        line = lifeline.current()
        assert line is not None
        lock = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        line.announce(str(self.journal), [lock])
        return line


@dataclass(slots=True, kw_only=True)
class Guarded:
    """A guard that runs; everything that it started holds the far end of `heard`."""

    pid: int
    heard: int
    errors: int
    journal: Path
    lock: Path

    def line(self) -> str:
        """The next line that the engine told."""
        text = b""
        while not text.endswith(b"\n"):
            text += os.read(self.heard, 1) or b"<the end>\n"
        return text.decode().rstrip()

    def lines(self, count: int) -> list[str]:
        return [self.line() for _ in range(count)]

    def exit_code(self) -> int:
        """Waits for the guard; as `subprocess` has it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def wait_for_end_of_tree(self) -> float:
        """Seconds until nobody is left who holds the pipe."""
        started = time.monotonic()
        while os.read(self.heard, 1 << 16):
            pass
        return time.monotonic() - started

    def stderr(self) -> str:
        """Once everything has ended."""
        pieces = []
        while select.select([self.errors], [], [], 0)[0]:
            try:
                piece = os.read(self.errors, 1 << 16)
            except OSError:  # a terminal that nobody holds any more
                break
            if not piece:
                break
            pieces.append(piece)
        return b"".join(pieces).decode()

    def recorded(self) -> list[str]:
        return [record["event"] for record in replay(self.journal).records]

    def has_lock(self) -> bool:
        """Somebody holds the lock of the run."""
        with open(self.lock, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


Start = Callable[..., Guarded]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a guard over an engine, in a process of its own. Whatever is left in the end is ended, and fails the test."""
    system.become_subreaper()
    journal = tmp_path / JOB / RUN / "events.jsonl"
    journal.parent.mkdir(parents=True)
    opened: list[int] = []

    def start(engine: Engine, *, before: Callable[[], object] = lambda: None, terminal: bool = False) -> Guarded:
        heard, say = os.pipe()
        os.set_inheritable(say, True)  # a pipe that exec-ed children hold too, to be counted
        errors, far_errors = os.openpty() if terminal else os.pipe()
        scene = Scene(journal=journal, lock=tmp_path / "lock", say=say)
        pid = os.fork()
        if not pid:
            for fd in (heard, errors, *opened):
                os.close(fd)
            _guard(engine, scene, before, far_errors)
        os.close(say)
        os.close(far_errors)
        opened.extend((heard, errors))
        return Guarded(pid=pid, heard=heard, errors=errors, journal=journal, lock=scene.lock)

    yield start
    left = {pid: Path(f"/proc/{pid}/stat").read_text() for pid in processes.children()}
    processes.end_children(5)
    system._prctl(system._SET_SUBREAPER, 0)
    for fd in opened:
        os.close(fd)
    assert left == {}


def _guard(engine: Engine, scene: Scene, before: Callable[[], object], errors: int) -> NoReturn:
    code = 99
    try:
        faulthandler.disable()
        os.setpgid(0, 0)  # as a shell does for each command
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(errors, 2)
        os.close(errors)
        before()
        code = guard.supervise(lambda: engine(scene))
    finally:
        os._exit(code)


def record(journal: Path, *happened: Event) -> None:
    """A journal with these events."""
    made = Journal.create(journal, sync=False, reserve=1 << 16)
    stream = Stream(run_id=RUN, job=JOB, sinks=[made], now=time.time)
    for event in happened:
        stream.emit(event)
    made.commit(sync=False)
    made.close()


def finished(code: int) -> RunFinished:
    return RunFinished(outcome="succeeded", exit_code=code, duration=1.0, task_time=1.0, outcomes={"succeeded": 1})


BEGUN = PoolClosed(pool="main")


# --- engines -------------------------------------------------------------------------------------------------------------------


def wait_forever(scene: Scene) -> int:
    scene.announce()
    scene.tell(os.getpid())
    while True:
        signal.pause()


def tree(scene: Scene, *, size: int = 1) -> None:
    """`size` of each: a child, one in a session of its own, a daemon that was forked twice, and a program in its own session."""
    for _ in range(size):
        for kind in ("child", "session", "daemon", "program"):
            pid = os.fork()
            if not pid:
                _live(scene, kind)
            if kind == "daemon":
                os.waitpid(pid, 0)


def _live(scene: Scene, kind: str) -> NoReturn:
    with contextlib.suppress(BaseException):
        if kind != "child":
            os.setsid()
        if kind == "daemon" and os.fork():
            os._exit(0)
        if kind == "program":
            os.dup2(scene.say, 9)  # shells know only descriptors of one digit
            os.execvp("sh", ["sh", "-c", f"trap '' TERM INT HUP; echo {kind} >&9; exec sleep 300"])
        scene.tell(kind)
        while True:
            signal.pause()
    os._exit(1)


def with_tree(scene: Scene, size: int = 1) -> int:
    record(scene.journal, BEGUN)
    tree(scene, size=size)
    return wait_forever(scene)


def told(guarded: Guarded, size: int = 1) -> int:
    """The engine's pid, as soon as it and its whole tree live."""
    words = guarded.lines(4 * size + 1)
    (engine,) = [int(word) for word in words if word.isdecimal()]
    return engine


# --- the exit code -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 2, 70, 75, 77, 255])
def test_without_a_journal_the_engines_exit_code_is_that_of_the_command(start: Start, code: int) -> None:
    guarded = start(lambda scene: code)
    assert (guarded.exit_code(), guarded.stderr()) == (code, "")


NOTHING, UNFINISHED = None, -1


@pytest.mark.parametrize(
    ("recorded", "ending", "code"),
    [
        (0, 0, 0),
        (1, 1, 1),
        (143, 143, 143),
        (124, 124, 124),
        (0, -signal.SIGKILL, 0),  # it had nothing left to do
        (1, -signal.SIGSEGV, 1),
        (143, -signal.SIGKILL, 143),
        (UNFINISHED, 0, 70),
        (UNFINISHED, 1, 70),
        (UNFINISHED, 2, 2),
        (UNFINISHED, 70, 70),
        (UNFINISHED, 74, 74),
        (UNFINISHED, -signal.SIGKILL, 70),
        (UNFINISHED, -signal.SIGSEGV, 70),
        (UNFINISHED, -signal.SIGTERM, 70),
        (1, 0, 70),
        (0, 1, 70),
        (0, 74, 74),  # the run is over, but its output could not be written
        (NOTHING, -signal.SIGTERM, 143),
        (NOTHING, -signal.SIGINT, 130),
        (NOTHING, -signal.SIGHUP, 129),
        (NOTHING, -signal.SIGKILL, 70),
        (NOTHING, -signal.SIGSEGV, 70),
    ],
)
def test_the_journal_decides_the_exit_code(start: Start, recorded: int | None, ending: int, code: int) -> None:
    def engine(scene: Scene) -> int:
        if recorded is not NOTHING:
            record(scene.journal, BEGUN, *([finished(recorded)] if recorded != UNFINISHED else []))
            scene.announce()
        if ending < 0:
            os.kill(os.getpid(), -ending)
        return ending

    assert start(engine).exit_code() == code


def test_a_journal_that_only_speaks_of_an_end_has_not_ended(start: Start) -> None:
    def engine(scene: Scene) -> int:
        record(scene.journal, PoolClosed(pool='","event":"run.finished","exit_code":0,'))
        scene.announce()
        return 0

    assert start(engine).exit_code() == 70


def test_an_engine_that_raises_is_a_bug(start: Start) -> None:
    def engine(scene: Scene) -> int:
        raise KeyError("oops")

    guarded = start(engine)
    assert guarded.exit_code() == 70
    assert "KeyError: 'oops'" in guarded.stderr()


# --- who dies ------------------------------------------------------------------------------------------------------------------


def test_when_the_engine_is_killed_its_whole_tree_is_gone_at_once_and_the_journal_tells(start: Start) -> None:
    guarded = start(with_tree)
    os.kill(told(guarded), signal.SIGKILL)
    assert guarded.wait_for_end_of_tree() < GONE
    assert guarded.exit_code() == 70
    assert guarded.recorded() == ["pool.closed", "run.interrupted"]
    reason = "the engine was killed by SIGKILL; 4 of its processes ended by the guard"
    assert replay(guarded.journal).records[-1]["reason"] == reason
    (line,) = guarded.stderr().splitlines()
    told_line = json.loads(line)
    assert (told_line.pop("ts")[-1], told_line) == (
        "Z",
        {"level": "error", "event": "run.interrupted", "seq": 2, "run_id": RUN, "job": JOB, "reason": reason},
    )


def test_a_tree_of_two_hundred_processes_is_gone_at_once(start: Start) -> None:
    def engine(scene: Scene) -> int:
        record(scene.journal, BEGUN)
        script = "for i in $(seq 100); do sleep 300 & setsid sleep 300 & done; echo; wait"
        subprocess.Popen(["sh", "-c", script], stdout=scene.say, start_new_session=True)
        return wait_forever(scene)

    guarded = start(engine)
    (pid,) = [int(line) for line in guarded.lines(2) if line]
    os.kill(pid, signal.SIGKILL)
    assert guarded.wait_for_end_of_tree() < GONE
    assert guarded.exit_code() == 70


def test_processes_that_fork_all_the_time_are_caught(start: Start) -> None:
    def engine(scene: Scene) -> int:
        record(scene.journal, BEGUN)
        if not os.fork():
            while True:  # each lives only to have a child; the daemon that is left is always a new one
                if os.fork():
                    os._exit(0)
        return wait_forever(scene)

    guarded = start(engine)
    os.kill(int(guarded.line()), signal.SIGKILL)
    assert guarded.wait_for_end_of_tree() < GONE
    assert guarded.exit_code() == 70


def test_a_stopped_engine_that_is_killed_is_noticed(start: Start) -> None:
    guarded = start(with_tree)
    engine = told(guarded)
    os.kill(engine, signal.SIGSTOP)
    os.kill(engine, signal.SIGKILL)
    assert guarded.wait_for_end_of_tree() < GONE
    assert guarded.exit_code() == 70


def test_when_the_guard_is_killed_the_engine_sees_it_and_can_end_all(start: Start) -> None:
    def engine(scene: Scene) -> int:
        tree(scene)
        line = scene.announce()
        scene.tell(os.getpid())
        select.select([line.fd], [], [])
        processes.end_children(5)
        os._exit(70)

    guarded = start(engine)
    told(guarded)
    os.kill(guarded.pid, signal.SIGKILL)
    assert guarded.wait_for_end_of_tree() < GONE
    assert guarded.exit_code() == -signal.SIGKILL
    _reap_adopted()


def test_an_engine_whose_guard_was_killed_before_the_run_began_is_told_so(start: Start) -> None:
    def engine(scene: Scene) -> int:
        line = lifeline.current()
        assert line is not None
        scene.tell(os.getpid())
        select.select([line.fd], [], [])
        try:
            scene.announce()
        except JobrunnerError as error:
            scene.tell(f"{error.exit_code}: {error}")
        return 0

    guarded = start(engine)
    guarded.line()
    os.kill(guarded.pid, signal.SIGKILL)
    assert guarded.line() == "70: the guard of this run was killed before anything had started: run it again"
    guarded.wait_for_end_of_tree()
    assert guarded.exit_code() == -signal.SIGKILL
    _reap_adopted()


def test_when_both_are_killed_what_they_leave_is_found_by_its_mark_and_its_cookie(start: Start) -> None:
    guarded = start(_with_marked_tree)
    engine = told(guarded)
    os.kill(guarded.pid, signal.SIGSTOP)  # so that it is not faster than we are
    os.waitpid(guarded.pid, os.WUNTRACED)
    os.kill(engine, signal.SIGKILL)
    _wait_for_state(engine, "Z")  # it carries the mark too, until it has gone
    os.kill(guarded.pid, signal.SIGKILL)
    assert guarded.exit_code() == -signal.SIGKILL
    left = processes.end_run(RUN, str(guarded.journal.with_name("mark")), 5)
    assert len(left) == 4
    assert guarded.wait_for_end_of_tree() < GONE
    _reap_adopted()


def _with_marked_tree(scene: Scene) -> int:
    import mmap

    mark = scene.journal.with_name("mark")
    mark.write_bytes(b"x")
    os.environ[processes.COOKIE] = f"outer:{RUN}"
    with open(mark, "rb") as file:
        held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        tree(scene)
        code = wait_forever(scene)
        held.close()
    return code


def _reap_adopted() -> None:
    """Of a guard that was killed nobody but us is left to reap the rest: all of it must have ended."""
    for pid in processes.children():
        assert os.waitpid(pid, 0)[0] == pid


def test_what_tasks_were_allowed_to_leave_outlives_a_run_that_ended(start: Start) -> None:
    def engine(scene: Scene) -> int:
        record(scene.journal, BEGUN, finished(0))
        scene.announce()
        tree(scene)
        return 0

    guarded = start(engine)
    assert guarded.exit_code() == 0
    guarded.lines(4)
    pids = processes.children()
    assert len([pid for pid in pids if Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"]) == 4
    processes.end_children(5)


def test_children_of_whoever_was_this_process_before_are_left_alone(start: Start) -> None:
    """As in `sidecar & exec jobrunner run job.yaml`."""
    sidecar = []

    def before() -> None:
        sidecar.append(subprocess.Popen(["sleep", "300"]))

    def engine(scene: Scene) -> int:
        scene.tell(sidecar[0].pid)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    guarded = start(engine, before=before)
    pid = int(guarded.line())
    assert guarded.exit_code() == 70
    assert processes.children() == [pid]
    processes.end_children(5)


def test_a_guard_that_fails_ends_everything_and_says_so(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> int:
        raise MemoryError("no room")

    monkeypatch.setattr(guard._Guard, "wait", fail)
    guarded = start(with_tree)
    assert guarded.exit_code() == 70
    guarded.wait_for_end_of_tree()
    assert "the guard failed, so the run was ended: MemoryError: no room" in guarded.stderr()


def test_where_no_process_can_be_started_nothing_runs(start: Start) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def before() -> None:
        os.fork = refuse

    guarded = start(lambda scene: 0, before=before)
    assert guarded.exit_code() == 74
    told = guarded.stderr()
    assert told.startswith("jobrunner: cannot start: the system refuses what the run itself needs: no more processes")
    assert "raise `ulimit -u`" in told


# --- the journal of a run that was lost ----------------------------------------------------------------------------------------


def test_a_torn_journal_is_repaired_before_the_interruption_is_recorded(start: Start) -> None:
    def engine(scene: Scene) -> int:
        record(scene.journal, BEGUN, BEGUN)
        with open(scene.journal, "r+b") as file:
            file.truncate(scene.journal.stat().st_size - 5)
        scene.announce()
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    guarded = start(engine)
    assert guarded.exit_code() == 70
    assert guarded.recorded() == ["pool.closed", "journal.repaired", "run.interrupted"]


def test_a_run_that_has_no_record_yet_gets_none(start: Start) -> None:
    def engine(scene: Scene) -> int:
        record(scene.journal)
        scene.announce()
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    guarded = start(engine)
    assert guarded.exit_code() == 70
    assert guarded.recorded() == []
    assert json.loads(guarded.stderr())["reason"] == "the engine was killed by SIGKILL"


def test_a_journal_that_cannot_be_repaired_is_told_of(start: Start) -> None:
    def engine(scene: Scene) -> int:
        record(scene.journal, BEGUN)
        scene.announce()
        scene.journal.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    guarded = start(engine)
    assert guarded.exit_code() == 70
    assert json.loads(guarded.stderr())["reason"].startswith("the engine was killed by SIGKILL; cannot ")


def test_on_a_terminal_people_are_told_how_to_go_on(start: Start) -> None:
    guarded = start(with_tree, terminal=True)
    os.kill(told(guarded), signal.SIGKILL)
    assert guarded.exit_code() == 70
    first, second = guarded.stderr().splitlines()
    assert first == f"jobrunner: run {RUN} of {JOB}: the engine was killed by SIGKILL; 4 of its processes ended by the guard"
    assert second == f"Go on with it: jobrunner resume {RUN}"


def test_a_stderr_that_nobody_reads_does_not_keep_the_guard(start: Start) -> None:
    def before() -> None:
        os.set_blocking(2, False)
        with contextlib.suppress(BlockingIOError):
            while os.write(2, bytes(1 << 16)):
                pass
        os.set_blocking(2, True)

    def engine(scene: Scene) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert start(engine, before=before).exit_code() == 70


# --- signals -------------------------------------------------------------------------------------------------------------------


def heed(scene: Scene) -> int:
    """Tells what signals come, until TERM."""
    heard: list[int] = []

    def note(number: int, frame: object) -> None:
        heard.append(number)
        scene.tell(signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, note)
    record(scene.journal, BEGUN, finished(143))
    near, far = os.pipe()
    os.set_blocking(far, False)
    signal.set_wakeup_fd(far)
    scene.announce()
    scene.tell("ready")
    while signal.SIGTERM not in heard:
        os.read(near, 1)  # a signal that comes a moment before is not missed
    return 143


def test_signals_are_passed_on(start: Start) -> None:
    guarded = start(heed)
    assert guarded.line() == "ready"
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
        os.kill(guarded.pid, number)
        assert guarded.line() == number.name
    assert guarded.exit_code() == 143


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_before_the_engine_listens_ends_both(start: Start, number: signal.Signals) -> None:
    def engine(scene: Scene) -> int:
        scene.tell("importing")
        while True:
            signal.pause()

    guarded = start(engine)
    guarded.line()
    os.kill(guarded.pid, number)
    assert guarded.exit_code() == 128 + number
    assert guarded.stderr() == ""


def test_a_question_before_the_engine_listens_does_not_end_it(start: Start) -> None:
    def engine(scene: Scene) -> int:
        scene.tell("importing")
        while True:
            signal.pause()

    guarded = start(engine)
    guarded.line()
    os.kill(guarded.pid, signal.SIGUSR1)
    os.kill(guarded.pid, signal.SIGTERM)
    assert guarded.exit_code() == 143


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_that_was_ignored_stays_ignored_and_is_not_passed_on(start: Start, number: signal.Signals) -> None:
    guarded = start(heed, before=lambda: signal.signal(number, signal.SIG_IGN))
    assert guarded.line() == "ready"
    os.kill(guarded.pid, number)
    os.kill(guarded.pid, signal.SIGTERM)
    assert guarded.line() == "SIGTERM"
    assert guarded.exit_code() == 143


def test_the_engine_has_the_signal_mask_of_the_caller(start: Start) -> None:
    def engine(scene: Scene) -> int:
        scene.tell(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
        return 0

    guarded = start(engine, before=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, (signal.SIGUSR2, signal.SIGHUP)))
    assert guarded.line() == str(sorted([int(signal.SIGUSR2), int(signal.SIGHUP)]))
    assert guarded.exit_code() == 0


def test_children_whose_end_the_caller_ignored_are_waited_for(start: Start) -> None:
    guarded = start(lambda scene: 3, before=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert guarded.exit_code() == 3


def test_a_guard_that_is_stopped_and_continued_goes_on(start: Start) -> None:
    guarded = start(heed)
    assert guarded.line() == "ready"
    os.kill(guarded.pid, signal.SIGSTOP)
    os.waitpid(guarded.pid, os.WUNTRACED)
    os.kill(guarded.pid, signal.SIGTERM)
    os.kill(guarded.pid, signal.SIGCONT)
    assert guarded.line() == "SIGTERM"
    assert guarded.exit_code() == 143


def test_the_engine_stops_and_goes_on_with_a_guard_that_the_terminal_stops(start: Start) -> None:
    guarded = start(wait_forever)
    engine = int(guarded.line())
    os.kill(guarded.pid, signal.SIGTSTP)
    assert os.WIFSTOPPED(os.waitpid(guarded.pid, os.WUNTRACED)[1])
    _wait_for_state(engine, "T")
    os.kill(guarded.pid, signal.SIGCONT)
    _wait_for_state(engine, "S")
    os.kill(guarded.pid, signal.SIGTERM)
    assert guarded.exit_code() == 70  # it did not listen, and died of it with its journal open


def _wait_for_state(pid: int, state: str) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        assert time.monotonic() < deadline
        os.sched_yield()


# --- what the engine is, and what it does not hand on --------------------------------------------------------------------------


def test_the_engine_is_a_child_in_a_session_of_its_own_without_a_terminal(start: Start) -> None:
    def engine(scene: Scene) -> int:
        line = lifeline.current()
        assert line is not None
        try:
            os.open("/dev/tty", os.O_RDWR)
        except OSError as error:
            scene.tell(error.errno == errno.ENXIO)
        scene.tell((os.getsid(0) == os.getpid(), os.getppid() == line.guard_pid))
        return 0

    guarded = start(engine)
    assert guarded.lines(2) == ["True", "(True, True)"]
    assert guarded.exit_code() == 0


def test_a_process_that_the_engine_forked_has_no_lifeline(start: Start) -> None:
    def engine(scene: Scene) -> int:
        if not os.fork():
            scene.tell(lifeline.current())
            os._exit(0)
        os.wait()
        return 0

    guarded = start(engine)
    assert guarded.line() == "None"
    assert guarded.exit_code() == 0


def test_programs_inherit_neither_the_lifeline_nor_the_lock(start: Start) -> None:
    def engine(scene: Scene) -> int:
        scene.announce()
        os.set_inheritable(scene.say, False)
        listed = subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True, check=True)
        os.set_inheritable(scene.say, True)
        scene.tell([row for row in listed.stdout.splitlines() if "socket" in row or str(scene.lock) in row])
        return 2

    guarded = start(engine)
    assert guarded.line() == "[]"
    assert guarded.exit_code() == 2


def test_the_lock_is_held_until_guard_and_engine_are_gone(start: Start) -> None:
    guarded = start(wait_forever)
    engine = int(guarded.line())
    os.kill(guarded.pid, signal.SIGSTOP)
    os.waitpid(guarded.pid, os.WUNTRACED)
    os.kill(engine, signal.SIGKILL)
    _wait_for_state(engine, "Z")
    assert guarded.has_lock()
    os.kill(guarded.pid, signal.SIGCONT)
    assert guarded.exit_code() == 70
    assert not guarded.has_lock()


def test_closed_standard_descriptors_are_not_taken_for_the_lifeline(start: Start) -> None:
    def before() -> None:
        for fd in (0, 1, 2):
            os.close(fd)

    def engine(scene: Scene) -> int:
        line = lifeline.current()
        scene.tell(line is not None and line.fd > 2 and {os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)})
        return 0

    guarded = start(engine, before=before)
    assert guarded.line() == "{'/dev/null'}"
    assert guarded.exit_code() == 0


def test_the_guard_shows_nobody_the_environment_that_it_was_started_with(start: Start) -> None:
    """A secret in it would be there for every task to read; whose process it is must stay to be seen."""
    program = (
        "import os, sys; from jobrunner.guard import supervise;"
        "supervise(lambda: sys.stdin.read() and 0); print(os.environ['SECRET'], end='')"
    )
    env = {"SECRET": "hunter2", processes.COOKIE: "outer", "PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen([sys.executable, "-c", program], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    environ = Path(f"/proc/{running.pid}/environ")
    deadline = time.monotonic() + 20
    while b"hunter2" in (shown := environ.read_bytes()) or not shown:
        assert time.monotonic() < deadline
        os.sched_yield()
    assert f"{processes.COOKIE}=outer".encode() in shown.split(b"\0")
    assert running.communicate()[0] == b"hunter2"


# --- which commands are guarded ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "is_guarded"),
    [
        (["run", "job.yaml"], True),
        (["job.yaml"], True),
        (["-q", "job.yaml"], True),
        (["resume"], True),
        (["validate", "job.yaml"], False),
        (["plan", "job.yaml"], False),
        (["schema"], False),
        (["--help"], False),
        (["--version"], False),
        ([], False),
    ],
)
def test_what_may_start_tasks_is_guarded(monkeypatch: pytest.MonkeyPatch, arguments: list[str], is_guarded: bool) -> None:
    class ExitedError(Exception):
        pass

    def leave(code: int) -> NoReturn:
        raise ExitedError(code)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys, "argv", ["jobrunner", *arguments])
    guards: list[Callable[[], int]] = []

    def supervise(engine: Callable[[], int], *, guards_a_guard: bool = False) -> int:
        guards.append(engine)
        return engine()

    monkeypatch.setattr("jobrunner.guard.supervise", supervise)
    monkeypatch.setattr("jobrunner.cli.main.cli", lambda: 2)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr("gc.disable", lambda: None)
    try:
        with pytest.raises(ExitedError) as exited:
            __main__.main()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert exited.value.args == (2,)
    assert len(guards) == (2 if is_guarded else 0)


def test_what_is_not_guarded_is_a_command() -> None:
    from jobrunner.cli.main import COMMANDS

    assert {word for word in __main__._RUNS_NOTHING if not word.startswith("-")} <= set(COMMANDS)


# --- two guards ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)], ids=str)
def test_whichever_two_of_the_three_are_killed_the_third_ends_what_is_left(tmp_path: Path, killed: tuple[int, ...]) -> None:
    (tmp_path / "job.yaml").write_text("name: job\ntasks: {a: {run: 'setsid sleep 600 & echo $! > pid; sleep 600'}}\n")
    environ = {**os.environ, "JOBRUNNER_STATE": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jobrunner", "job.yaml", "-q"]
    deadline, said = time.monotonic() + 30, tmp_path / "pid"
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL) as runner:
        while not (said.exists() and said.read_text().strip()):
            assert time.monotonic() < deadline
            os.sched_yield()
        family = leftovers.family(runner.pid)
        for place in killed:
            os.kill(family[place], signal.SIGKILL)
        while not is_over(int(said.read_text())):
            assert time.monotonic() < deadline, "a task lives on"
            os.sched_yield()
        runner.wait(timeout=20)
        (journal,) = (tmp_path / "state" / "job").glob("*/events.jsonl")
        while "run.interrupted" not in journal.read_text():
            assert time.monotonic() < deadline, "nobody has recorded the interruption"
            os.sched_yield()


def is_over(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # the second where it ends while we read
        return True


def test_a_terminal_stops_and_continues_all_three(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("name: job\ntasks: {a: {run: 'touch runs; sleep 600'}}\n")
    environ = {**os.environ, "JOBRUNNER_STATE": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "jobrunner", "job.yaml", "-q"]
    deadline = time.monotonic() + 30
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL, process_group=0) as runner:
        while not (tmp_path / "runs").exists():
            assert time.monotonic() < deadline
            os.sched_yield()
        family = leftovers.family(runner.pid)
        for number, states in ((signal.SIGTSTP, "T"), (signal.SIGCONT, "SR")):
            runner.send_signal(number)
            while not all(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in states for pid in family):
                assert time.monotonic() < deadline, number
                os.sched_yield()
        runner.terminate()
        assert runner.wait(timeout=20) == 143
