"""The guard: the outer process of a run, which outlives whatever may happen to the engine.

    caller (cron, systemd, a shell)
      └─ guard    one thread, one blocking call: reaps, passes signals on, decides the exit code
           └─ a second one: the engine of the first, as it were
                └─ engine    in a session of its own; hosts and commands are its children

All are subreapers, so nothing of the run gets out of their reach by losing its parent. A guard that is killed is seen by the
engine (lifeline), an engine that is killed by the guard, which then ends all that descends from it before it tells.

Imports are made where they are used. Every page of memory that the guard has when it forks is copied as soon as the engine
touches it, and the run waits for that; what is only needed at the end of a short run is not loaded while the engine starts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from jobrunner import lifeline, system

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import NoReturn

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_DIED = 70
_SIGNALLED = 128
_PATIENCE = 5.0
"""Seconds for killed processes to be gone. All but those that wait for a broken disk are within milliseconds."""
_STALLED = 1.0
"""Seconds for a stderr that nobody reads."""
_SHORT = 1.0
"""Seconds after which the engine is up: then the guard loads what it needs to end a tree, while nothing waits for it."""
_WINDOW = 4096
_KEPT_VARIABLES = "JOBRUNNER_"
"""What tells whose process this is, where the guard is one of another run."""


def supervise_twice(engine: Callable[[], int]) -> int:
    """As `supervise`, by a guard that has a guard: whichever two of the three processes are killed, the third ends the rest."""
    return supervise(lambda: supervise(engine), guards_a_guard=True)


def supervise(engine: Callable[[], int], *, guards_a_guard: bool = False) -> int:
    """Run `engine` in a child and wait for its end; the exit code of the command.

    That is what `engine` returned if its journal agrees or none was announced, 128 and the number of a signal that ended it
    before, and 70 where it died or ended without having recorded its end: then nothing of the run is left.
    Elsewhere than on Linux `engine` is called, and nobody guards it.
    """
    if sys.platform != "linux":
        return engine()
    try:
        guard = _Guard(engine, guards_a_guard=guards_a_guard)
    except OSError as error:
        from jobrunner import refused

        words = refused.process_words(error.errno or 0)
        _write(f"jobrunner: cannot start: {words or error.strerror}\n")
        return refused.EXIT if words else _DIED
    try:
        return guard.verdict(guard.wait())
    except BaseException as error:  # whatever it is: nothing runs on with nobody in charge
        return guard.give_up(error)


class _Guard:
    """The guard of one engine, which it starts."""

    def __init__(self, engine: Callable[[], int], *, guards_a_guard: bool) -> None:
        self._guards_a_guard = guards_a_guard
        _hold_standard_descriptors()
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # children whose end is ignored leave no exit code
        wanted = (*_FORWARDED, signal.SIGTSTP)
        # One that is ignored stays so for both of us (nohup); one that is waited for would be taken although it is ignored.
        self._waited = {signal.SIGCHLD, *(number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN)}
        self._foreign = _children_before()
        self._is_subreaper = system.become_subreaper()
        self._end, engine_end = lifeline.pair()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._waited)
        guard_pid = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            self._end.close()
            _be_engine(engine, lifeline.Lifeline(engine_end, guard_pid, lifeline.inherited()), mask)
        engine_end.close()
        system.scrub_all(keep=_KEPT_VARIABLES)  # the engine hides secrets in its own memory only

    def wait(self) -> int:
        """Until the engine has ended; how it did, as `os.waitpid` tells it."""
        heard = signal.sigtimedwait(self._waited, _SHORT)
        if heard is None:
            from jobrunner import processes  # noqa: F401  # an installation may be replaced while a long run goes on
        while True:
            if heard is not None and (status := self._heed(heard.si_signo)) is not None:
                return status
            heard = signal.sigwaitinfo(self._waited)

    def _heed(self, number: int) -> int | None:
        """Pass the signal on, if it is for the engine. Its status, if that has ended."""
        if (status := self._reap()) is not None:
            return status
        if number == signal.SIGTSTP:
            self._pause()
        elif number in _STOPPING or (number == signal.SIGUSR1 and lifeline.has_announced(self._end)):
            os.kill(self._pid, number)  # it is not reaped, so the number is its own
        return None

    def _reap(self) -> int | None:
        """Reap all that have ended, until it is the engine."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid in (0, self._pid):
                return status if pid else None

    def _pause(self) -> None:
        """The terminal's ^Z reaches only the guard that was started: all stop, and go on when it goes on.

        A process that leads a session has no shell that would let it go on, so the system does not let TSTP stop it.
        """
        os.kill(self._pid, signal.SIGTSTP if self._guards_a_guard else signal.SIGSTOP)
        if os.getsid(0) == os.getpid():
            signal.raise_signal(signal.SIGSTOP)
        else:
            signal.raise_signal(signal.SIGTSTP)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTSTP,))  # here it stops
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTSTP,))
        os.kill(self._pid, signal.SIGCONT)

    def verdict(self, status: int) -> int:
        """The exit code, after the engine has ended so."""
        journal, code = lifeline.announced(self._end), os.waitstatus_to_exitcode(status)
        if not journal:
            return code if code >= 0 else self._never_began(-code)
        closing = _closing(journal)
        if closing and b',"exit_code":%d,' % code in closing:
            return code
        run = _RunFacts(journal)
        ended = self._end_tree(run.id, run.mark) if code < 0 and not closing else 0  # first of all: every moment counts
        recorded = _recorded_code(journal)
        if recorded is None:
            return self._interrupted(run, code, ended)
        if code < 0:
            return recorded
        return code if code not in (0, 1) else self._disagreement(journal, code, recorded)

    def _never_began(self, number: int) -> int:
        from jobrunner import processes

        self._end_tree("", "")
        if number in _STOPPING:
            return _SIGNALLED + number
        _write(f"jobrunner: the engine was killed by {processes.signal_name(number)} before anything had started\n")
        return _DIED

    def _interrupted(self, run: _RunFacts, code: int, ended: int) -> int:
        """The run is not over, but its engine is. An engine that failed on its own has told why."""
        from jobrunner import processes

        ended += self._end_tree(run.id, run.mark)
        if code not in (0, 1) and code > 0:
            return code
        how = f"was {processes.Exit.of(code)}" if code < 0 else f"ended with {processes.Exit.of(code)} before the run was over"
        reason = f"the engine {how}" + (f"; {ended} of its processes ended by the guard" if ended else "")
        run.tell(reason, *run.record(reason))
        return _DIED

    def _disagreement(self, journal: str, code: int, recorded: int) -> int:
        _RunFacts(journal).tell(f"the engine ended with exit {code}, but has recorded exit {recorded}", None, "")
        return _DIED

    def give_up(self, error: BaseException) -> int:
        """The guard itself has failed: end everything, and say so."""
        self._end_tree("", "")
        _write(
            f"jobrunner: the guard failed, so the run was ended: {type(error).__name__}: {error}\nThis is a bug of jobrunner.\n"
        )
        return _DIED

    def _end_tree(self, run_id: str, mark: str) -> int:
        """End all that descends from the engine, and it too; how many there were."""
        from jobrunner import processes

        ended = len(processes.end_children(_PATIENCE, spare=self._foreign))
        if not self._is_subreaper and run_id:
            ended += len(processes.end_run(run_id, mark, _PATIENCE))
        return ended


def _hold_standard_descriptors() -> None:
    """Where 0, 1 or 2 was closed by who started us, the lifeline would get that number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free


def _children_before() -> frozenset[int]:
    """The children of whoever was this process before an exec: hardly ever are there any."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return frozenset()
    from jobrunner import processes

    return frozenset(processes.children())


def _be_engine(engine: Callable[[], int], line: lifeline.Lifeline, mask: Collection[signal.Signals | int]) -> NoReturn:
    code = _DIED
    try:
        os.setsid()
        system.become_subreaper()
        lifeline.hold(line)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = engine()
    except BaseException as error:
        code = _failed(error)
    finally:
        os._exit(code)


def _failed(error: BaseException) -> int:
    """Tell why an engine ended without an exit code of its own."""
    from jobrunner import refused

    if words := refused.words(error):
        _write(f"jobrunner: {words}\n")
        return refused.EXIT
    import traceback

    _write(f"{traceback.format_exc()}\nThis is a bug of jobrunner.\n")
    return _DIED


def _closing(journal: str) -> bytes:
    """What the last line says of the end of the run; empty where it is about something else, or cannot be told without reading.

    Seen without what it takes to read a journal.
    """
    with contextlib.suppress(OSError), open(journal, "rb", buffering=0) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _WINDOW))
        last, _, rest = (b"\n" + file.readall()).rpartition(b"\n")
        event = last.rpartition(b"\n")[2].partition(b',"event":"')[2]  # the first one: what could hold another is after it
        return event if not rest and event.startswith(b'run.finished"') else b""
    return b""


def _recorded_code(journal: str) -> int | None:
    """The exit code that the journal ends with; None where the run has not finished."""
    from pathlib import Path

    from jobrunner.journal import last_record

    record = last_record(Path(journal))
    if record is None or record["event"] != "run.finished":
        return None
    code = record["exit_code"]
    return code if isinstance(code, int) else None


class _RunFacts:
    """A run as its place tells: STATE/JOB/RUN_ID/events.jsonl."""

    def __init__(self, journal: str) -> None:
        self._journal, folder = journal, os.path.dirname(journal)
        self.id, self.job = os.path.basename(folder), os.path.basename(os.path.dirname(folder))
        self.mark = os.path.join(folder, "mark")

    def record(self, reason: str) -> tuple[int | None, str]:
        """Repair the journal and record the interruption; its number, or why it could not be. No record: the run never began."""
        import time
        from pathlib import Path

        from jobrunner.errors import JobrunnerError
        from jobrunner.events import JournalRepaired, RunInterrupted
        from jobrunner.journal import Journal, JournalFull
        from jobrunner.stream import Stream

        try:
            journal, found = Journal.reopen(Path(self._journal), sync=True, at_once=False)
            with contextlib.closing(journal), contextlib.suppress(JournalFull):
                if not found.seq:
                    return None, ""
                stream = Stream(run_id=self.id, job=self.job, sinks=[journal], now=time.time, seq=found.seq)
                if found.dropped:
                    stream.emit(JournalRepaired(offset=found.offset, dropped=found.dropped))
                stream.emit(RunInterrupted(reason=reason))
                journal.commit(sync=True)
            return journal.seq, ""
        except (JobrunnerError, OSError) as error:
            return None, str(error)

    def tell(self, reason: str, seq: int | None, trouble: str) -> None:
        """One line on stderr: text for people on a terminal, elsewhere an event of the log."""
        if os.isatty(2):
            more = f"\njobrunner: {trouble}" if trouble else ""
            _write(f"jobrunner: run {self.id} of {self.job}: {reason}{more}\nGo on with it: jobrunner resume {self.id}\n")
            return
        import json
        import time

        from jobrunner.events import RunInterrupted
        from jobrunner.stream import timestamp

        line = {"ts": timestamp(time.time()), "level": "error", "event": RunInterrupted.NAME}
        number = {} if seq is None else {"seq": seq}
        told = f"{reason}; {trouble}" if trouble else reason
        _write(json.dumps({**line, **number, "run_id": self.id, "job": self.job, "reason": told}, separators=(",", ":")) + "\n")


def _write(text: str) -> None:
    """To stderr, if somebody takes it: a log that nobody reads any more must not keep the guard."""
    import select

    poll = select.poll()
    with contextlib.suppress(OSError):
        poll.register(2, select.POLLOUT)
        if poll.poll(_STALLED * 1000):
            os.write(2, text.encode("utf-8", "backslashreplace")[: select.PIPE_BUF])
