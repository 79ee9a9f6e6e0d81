"""What attempts leave behind: found among the orphans that come to the engine, ended, and reaped.

An engine under a guard is a subreaper, so it inherits what has lost its parent below it: setsid, double fork and nohup do not
get away. Whose an orphan is tells its session, or the environment that it was started with ($JOBRUNNER_OUTPUT).

leader has ended ─▶ look at our children ─ only those that somebody started ─────────────────▶ done
                      │    ▲                                                                    ▲
                      │    └── there may be more ◀─ reaped ◀─ SIGKILL ◀─┐                       │
                      └─ orphans of it ─▶ held by pidfd, looked at again ┘   none any more ─────┘

In a process that inherits nothing (jobrunner.run() from Python) a look is a search through /proc, taken only where something
is known to be left, where an attempt is stopped, and at the end of the run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

from jobrunner import system
from jobrunner.executors.orphans import descendants, hold, owned_by, owner_of, reap, send, stat, wait_for
from jobrunner.loop import Loop, Timer, Watch
from jobrunner.processes import group_members, of_run, signal_group
from jobrunner.structs import struct
from jobrunner.work import Leftover, Report

_PATIENCE = 1.0
"""Seconds that an attempt waits for the end of what it left behind: what waits for a broken disk does not even die of SIGKILL."""
_LAST_PATIENCE = 2.0
_TIDY = 5.0
"""Seconds after which orphans that have ended by themselves are reaped, though no attempt has ended meanwhile."""
_AGAIN = 0.02
"""Seconds until the next look where nothing could be held: no descriptor was free."""
_PAGE = 4096
"""The kernel gives out at most so much of the list of children at once."""

_UNSEEN = 16
"""Leaders of steps that an attempt keeps unseen, at most, where a look is a search."""

Done = Callable[[tuple[int, ...]], None]


@struct(kw_only=False, frozen=False, eq=False)
class Origin:
    """Who left something behind: a command's attempt with the processes that led it and were not reaped yet, or (None) a host."""

    attempt_id: int | None
    leaders: tuple[int, ...] = ()


class Reaper:
    """Ends what attempts and hosts of one run leave behind. All executors of the run tell it what they start and reap."""

    def __init__(self, *, inherits: bool, run_id: str = "", mark: str = "") -> None:
        self._inherits, self.run_id, self.mark = inherits, run_id, mark
        self._children = -1
        self._known: dict[int, int | None] = {}
        """Children that somebody started and will reap, with the attempt that each leads; None for a host."""
        self._barren: set[int] = set()
        """Of those, what leaves nothing behind."""
        self._leaders: dict[int, tuple[int, ...]] = {}
        """More than one where steps of an attempt have left something behind."""
        self._claimed: dict[int, Origin] = {}
        self._ambiguous: set[int] = set()
        """Orphans that nothing tells the origin of, and that were there at an earlier look."""
        self._spared: set[int] = set()
        """Orphans that may stay, or that have become another user's."""
        self._allowed_attempts: set[int] = set()
        self._allowed_sessions: set[int] = set()
        self._orphaned: set[int] = set()
        """Orphans of the last look: our children, whose numbers stay theirs until we reap them."""
        self._room = -1
        """A descriptor that is kept for looking into /proc when no other is free."""
        self._sweeps: set[_Sweep] = set()
        self._tidy_timer: Timer | None = None
        self._sigchld_was_ignored = False

    def open(self, loop: Loop, report: Callable[[Report], None]) -> None:
        """Get ready. Where our parent had us ignore SIGCHLD, no child could be waited for: until `close` it counts again."""
        self.loop, self._report = loop, report
        self._room = os.open(os.devnull, os.O_RDONLY)
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN and system.is_main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._sigchld_was_ignored = True
        if self._inherits:
            with contextlib.suppress(OSError):  # a kernel that does not list children: then we search, as without a guard
                self._children = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
                self._tidy()

    @property
    def inherits(self) -> bool:
        """Whether what is left behind comes to us, so that it need not be searched for."""
        return self._children >= 0

    def started(self, pid: int, attempt_id: int | None = None) -> None:
        """`pid` is a child that its owner will reap: the leader of a command's attempt, or a host."""
        self._known[pid] = attempt_id
        if attempt_id is not None:
            self._leaders[attempt_id] = (*self._leaders.get(attempt_id, ()), pid)
        self._claimed.pop(pid, None)
        for pids in (self._ambiguous, self._spared, self._allowed_sessions):  # it is a new number
            pids.discard(pid)

    def started_template(self, pid: int) -> None:
        """`pid` is a child that its owner will reap, and that leaves nothing behind: all that it forks are children of ours."""
        self.started(pid)
        self._barren.add(pid)

    def reaped(self, pid: int) -> None:
        """The owner of `pid` has reaped it."""
        self._barren.discard(pid)
        attempt_id = self._known.pop(pid, None)
        if attempt_id is None:
            return
        leaders = self._leaders[attempt_id]
        if len(leaders) > 1:
            self._leaders[attempt_id] = tuple(each for each in leaders if each != pid)
        else:
            del self._leaders[attempt_id]

    def leads_others(self, pid: int) -> bool:
        """Whether a step of an attempt, which has ended, leads others: its number must stay theirs, so it is not reaped yet.

        May say so where nobody has looked, which is also safe.
        """
        if self._children < 0:
            attempt_id = self._known[pid]
            assert attempt_id is not None
            return len(self._leaders[attempt_id]) < _UNSEEN or bool(group_members(pid))
        if not (orphans := self._orphans()):
            return False
        with self._with_room():
            return any(_is_led_by(pid, each) for orphan in orphans for each in (orphan, *descendants(orphan)))

    def end_orphans(self, attempt_id: int | None, done: Done, *, allowed: bool = False, thorough: bool = False) -> None:
        """End what an attempt has left behind, then call `done` with the pids: at once where there is nothing, else within 1 s.

        Of a command: its leaders have ended and were not reaped yet, and their groups are ended too. None: of a host that was
        reaped just now; it is given what nobody else can have left. `allowed`: all of it may stay, now and later. `thorough`:
        there is reason to search where nothing is inherited.
        """
        if not allowed and self._children >= 0 and not self.strangers():
            done(())  # not even the group is left: whoever is in it descends from the leader, and has come to us with its death
            return
        origin = Origin(attempt_id, () if attempt_id is None else self._leaders.get(attempt_id, ()))
        if allowed:
            done(self._let_stay(origin))
        elif (self._children >= 0 or thorough) and (found := self.left_by(origin)):
            _Sweep(self, origin, done).end(found)
        else:
            end_groups(origin)
            done(())

    def signal(self, attempt_id: int, number: int) -> None:
        """Signal the groups that lead an attempt, and what has escaped from them as far as it is found."""
        leaders = self._leaders[attempt_id]
        look = partial(self._escapees, Origin(attempt_id, leaders))
        held = hold(look(), look)
        for leader in leaders:
            signal_group(leader, number)
        for pidfd in held.values():
            send(pidfd, number)
            os.close(pidfd)

    def kill(self) -> None:
        """SIGKILL to all that descends from the run, at once; for at most 2 s. What was started is still its owner's to reap."""
        self._end_all()

    def close(self) -> tuple[int, ...]:
        """End and reap what is left of the run, for at most 2 s, but for what may stay; the pids, which are also reported."""
        pids = self._end_all()
        for pid in tuple(self._known):  # their owners are gone
            reap(pid)
            self.reaped(pid)
        for sweep in tuple(self._sweeps):
            sweep.close()
        self._release()
        if pids:
            self._report(Leftover(id=0, pids=pids, killed=True))
        return pids

    def _release(self) -> None:
        if self._tidy_timer is not None:
            self._tidy_timer.cancel()
        for fd in (self._children, self._room):
            if fd >= 0:
                os.close(fd)
        self._children = self._room = -1
        if self._sigchld_was_ignored:
            self._sigchld_was_ignored = False
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    # What is there.

    def left_by(self, origin: Origin) -> list[int]:
        """Live processes that it has left behind."""
        if self._children < 0:
            with self._with_room():
                return self._searched(origin)
        if not (orphans := self._orphans()):
            return orphans
        found: list[int] = []
        with self._with_room():
            for pid in orphans:
                if self._is_of(pid, origin):
                    found += [pid, *descendants(pid)]
        return found

    @contextlib.contextmanager
    def _with_room(self) -> Iterator[None]:
        """A look opens one file after the other: the descriptor that is kept for it is free meanwhile."""
        if self._room >= 0:
            os.close(self._room)
            self._room = -1
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self._room = os.open(os.devnull, os.O_RDONLY)

    def _orphans(self) -> list[int]:
        """Our children that nobody started, but for those that may stay. What has ended is reaped on the way."""
        if not (pids := self.strangers()):
            return pids
        self._ambiguous.intersection_update(pids)
        found = [pid for pid in pids if not reap(pid) and not self._may_stay(pid)]
        self._orphaned = set(found)
        return found

    def strangers(self) -> list[int]:
        """Our children that nobody started, with those that have ended."""
        known = self._known
        return [pid for pid in self._all_children() if pid not in known]

    def _all_children(self) -> list[int]:
        """Complete: only by our reaping does one leave the list, and new ones come at its end."""
        data = piece = os.pread(self._children, _PAGE, 0)
        while len(piece) > _PAGE // 2:
            piece = os.pread(self._children, _PAGE, len(data))
            data += piece
        return [int(pid) for pid in data.split()]

    def _searched(self, origin: Origin) -> list[int]:
        found = {pid for leader in origin.leaders for pid in group_members(leader)}
        if self.run_id and origin.attempt_id is not None:
            found.update(owned_by(origin.attempt_id, self.run_id))
        return [pid for pid in found if pid not in origin.leaders and not self._may_stay(pid)]

    def _escapees(self, origin: Origin) -> list[int]:
        found = {*self.left_by(origin), *(pid for leader in origin.leaders for pid in descendants(leader))}
        return [pid for pid in found if (place := stat(pid)) is not None and place.group not in origin.leaders]

    # Whose it is.

    def _is_of(self, pid: int, origin: Origin) -> bool:
        if (claimant := self._claimed.get(pid)) is not None:
            return claimant is origin
        if (place := stat(pid)) is None:
            return False
        if place.group in origin.leaders or place.session in origin.leaders:
            return True
        if (owner := owner_of(pid, self.run_id)) is not None:
            was_overlooked = pid in self._ambiguous and owner not in self._leaders  # in the middle of an exec it names nobody
            return owner == origin.attempt_id or was_overlooked
        return place.session not in self._known and self._is_nobody_elses(pid, origin)

    def _is_nobody_elses(self, pid: int, origin: Origin) -> bool:
        """It names no attempt, and no session of anybody who lives: most likely it is of who has ended just now."""
        is_new_and_of_a_host = origin.attempt_id is None and pid not in self._ambiguous
        if is_new_and_of_a_host or self._known.keys() - self._barren <= set(origin.leaders):
            return True
        self._ambiguous.add(pid)
        return False

    def _may_stay(self, pid: int) -> bool:
        if pid in self._spared:
            return True
        if not self._allowed_attempts:
            return False
        place = stat(pid)
        if owner_of(pid, self.run_id) in self._allowed_attempts or (place and place.session in self._allowed_sessions):
            self._spared.add(pid)
            return True
        return False

    def _let_stay(self, origin: Origin) -> tuple[int, ...]:
        found = self.left_by(origin)
        self._spared.update(found)
        if origin.attempt_id is not None:
            self._allowed_attempts.add(origin.attempt_id)
            self._allowed_sessions.update(origin.leaders)
        return tuple(sorted(found))

    # What a sweep tells.

    def began(self, sweep: _Sweep) -> None:
        self._sweeps.add(sweep)

    def claim(self, pid: int, origin: Origin) -> None:
        self._claimed[pid] = origin

    def end_child(self, pid: int) -> None:
        """SIGKILL to a process of the last look that no descriptor was free for, if it is our child."""
        if pid in self._orphaned:
            with contextlib.suppress(PermissionError):
                os.kill(pid, signal.SIGKILL)

    def spare(self, pid: int) -> None:
        self._spared.add(pid)

    def ended(self, sweep: _Sweep) -> None:
        self._sweeps.discard(sweep)
        self._claimed = {pid: origin for pid, origin in self._claimed.items() if origin is not sweep.origin}

    # Now and then, and at the end.

    def _tidy(self) -> None:
        self._orphans()
        self._tidy_timer = self.loop.call_at(self.loop.clock() + _TIDY, self._tidy)

    def _end_all(self) -> tuple[int, ...]:
        """First what was started, so that its orphans come to us; then those, until there are no more."""
        deadline = time.monotonic() + _LAST_PATIENCE
        for pid in self._known:
            signal_group(pid, signal.SIGKILL)
        wait_for(tuple(self._known), deadline)
        ended: set[int] = set()
        while (held := self._hold_rest()) and time.monotonic() < deadline:
            ended.update(pid for pid, pidfd in held.items() if self._kill(pid, pidfd))
            wait_for(held, deadline)
            for pidfd in held.values():
                os.close(pidfd)
        return tuple(sorted(ended))

    def _hold_rest(self) -> dict[int, int]:
        """What is left of the run but for what was started, each with a descriptor."""
        if self._children >= 0:
            return hold(self._orphans(), self._orphans)
        found = {each.pid: each.pidfd for each in (of_run(self.run_id, self.mark) if self.run_id else ())}
        for pid in [pid for pid in found if pid in self._known or self._may_stay(pid)]:
            os.close(found.pop(pid))
        return found

    def _kill(self, pid: int, pidfd: int) -> bool:
        may = send(pidfd, signal.SIGKILL)
        if not may:
            self._spared.add(pid)
        return may


def _is_led_by(leader: int, pid: int) -> bool:
    return (place := stat(pid)) is not None and leader in (place.group, place.session)


def end_groups(origin: Origin) -> None:
    """SIGKILL to the groups of leaders that were not reaped yet."""
    for leader in origin.leaders:
        signal_group(leader, signal.SIGKILL)


class _Sweep:
    """The end of what one attempt or host has left behind: look, kill, wait, and again until there is nothing."""

    def __init__(self, reaper: Reaper, origin: Origin, done: Done) -> None:
        self._reaper, self.origin, self._done = reaper, origin, done
        self._watches: dict[int, tuple[Watch, int]] = {}
        self._killed: set[int] = set()
        self._patience: Timer | None = None
        self._next_look: Timer | None = None
        self._was_told = False

    def end(self, found: list[int]) -> None:
        held = hold(found, lambda: self._reaper.left_by(self.origin))
        end_groups(self.origin)
        self._wait_at_most()
        self._killed.update(found)
        for pid in found:
            self._reaper.claim(pid, self.origin)
            if pid in held:
                self._end(pid, held[pid])
            else:
                self._reaper.end_child(pid)
        if not self._watches:
            loop = self._reaper.loop
            self._next_look = loop.call_at(loop.clock() + _AGAIN, self._look)

    def _look(self) -> None:
        if found := self._reaper.left_by(self.origin):
            self.end(found)
        else:
            self._tell()
            self.close()

    def _wait_at_most(self) -> None:
        if self._patience is None:
            loop = self._reaper.loop
            self._patience = loop.call_at(loop.clock() + _PATIENCE, self._tell)
            self._reaper.began(self)

    def _end(self, pid: int, pidfd: int) -> None:
        if not send(pidfd, signal.SIGKILL):
            self._reaper.spare(pid)
            self._killed.discard(pid)
            os.close(pidfd)
            return
        self._watches[pid] = (self._reaper.loop.watch(pidfd, partial(self._gone, pid)), pidfd)

    def _gone(self, pid: int) -> None:
        self._let_go(pid)
        reap(pid)
        if not self._watches:
            self._look()

    def _let_go(self, pid: int) -> None:
        watch, pidfd = self._watches.pop(pid)
        watch.close()
        os.close(pidfd)

    def _tell(self) -> None:
        """All is gone, or has had its time; in that case it is seen to all the same."""
        if not self._was_told:
            self._was_told = True
            self._done(tuple(sorted(self._killed)))
            self.origin.leaders = ()  # from now on the numbers may be somebody else's

    def close(self) -> None:
        for pid in tuple(self._watches):
            self._let_go(pid)
        for timer in (self._patience, self._next_look):
            if timer is not None:
                timer.cancel()
        self._reaper.ended(self)
