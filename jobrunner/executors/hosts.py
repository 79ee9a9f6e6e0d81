"""One host process as the engine sees it, from its start until it was joined.

hand_over ─Call─▶ … ─Began─▶ … ─Result─▶        end      signal, grace, SIGKILL: for a host of one attempt at a time
                                                abandon  for a host of many: the attempt is over, the host gets no new work and is
finish ─▶ ends by itself, soon                           killed when empty, or when it does not answer a ping within the
kill   ─▶ SIGKILL to its group                           grace (a thread that never lets go of the GIL)

queue ─Call─▶ waits in the host for its turn ─Began─▶ …
                 └─take_back─▶ Returned: it has not begun, and never will here

Its end: SIGKILL to its group while it is not reaped, then to what has left the group. Only then the attempts that went with it
are reported, so that none is tried again beside what is left of it. A host of one attempt reports that one always so.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import NoneType

from jobrunner import host
from jobrunner.executors import deaths, limits
from jobrunner.executors.children import Child, Reaped
from jobrunner.executors.crew import Crew
from jobrunner.executors.hearing import Hearing
from jobrunner.executors.rings import Rings
from jobrunner.executors.stacks import PATIENCE, Stack
from jobrunner.executors.told import NO_TURN, NOT_A_FRAME, Frame, plain_end, plain_run, result_of, turn_of, turns_of
from jobrunner.executors.turns import Turns
from jobrunner.executors.wire import NO_FRAME, Wire, encoded, pieces
from jobrunner.loop import Loop, Timer
from jobrunner.processes import PIPE_READS, Exit, read_available, signal_group
from jobrunner.structs import field, replace, struct
from jobrunner.typed import Protocol
from jobrunner.work import (
    Began,
    Call,
    Calls,
    Error,
    Leftover,
    Outcome,
    Report,
    Result,
    Runs,
    Said,
    StackTaken,
    StopRule,
    Success,
)

_CLOSING_GRACE = 5.0
"""Seconds that a host without work may take to end, for instance because a task left a thread running."""
_LONGEST_START = 60.0
"""Seconds that a host with nothing else to do may take to begin what it was handed: one that was stopped never would."""
_LONGEST_STACK = 1 << 16
_MARK_BYTES = 8
_SUCCEEDED = Outcome.SUCCEEDED  # a look into an enum takes 70 ns
_LEFT_ALONE = 0.03
"""Seconds for which one that was born with its call is not listened to: most that is short has ended by then, and tells all at
once. What it prints or returns has room in its pipes meanwhile, or waits."""
_BEGAN = 4
"""Fields of that frame."""
_LONGEST_HOLD = 1.0
"""Seconds that the result of an attempt waits for the end of its host. Then a failure ends the host, and a success is told."""


class Owner(Protocol):
    """The pool that a host belongs to, as the host sees it."""

    name: str
    loop: Loop
    workers: int
    has_threads: bool
    is_for_one: bool
    """Its hosts run one attempt each."""
    kernel_kills: limits.KernelKills
    report: Callable[[Report], None]

    def began_child(self, pid: int, /) -> None: ...
    def reaped_child(self, pid: int, done: Callable[[tuple[int, ...]], None], /) -> None: ...
    def began(self) -> None: ...
    def ran(self, runs: Runs, /) -> None: ...
    def ended(self, host: Host, result: Result, /) -> None: ...
    def ended_all(self, host: Host, durations: list[float], /) -> None: ...
    def returned(self, host: Host, call_ids: list[int], /) -> None: ...
    def gone(self, host: Host, lost: list[int], exit: Exit, /) -> None: ...


_NOBODY: tuple[int, str, int | None] = 0, "", None


@struct(frozen=False, eq=False)
class Lately:
    """What has come from a host together and was not told yet: what began and ended, and what has begun since."""

    rows: list[Success] = field(default_factory=list)
    begun: tuple[int, str, int | None] = _NOBODY
    """Its id, worker and thread."""
    begins: int = 0
    """Of those that the pool was not told of."""
    durations: list[float] = field(default_factory=list)
    """As above, of ends."""


class Host:
    """One host process, from its start until it was joined."""

    def __init__(self, pool: Owner, started: tuple[Child, bytes], name: str, cpus: frozenset[int] = frozenset()) -> None:
        self._pool, (self._child, greeting), self.name, self.cpus = pool, started, name, cpus
        self.calls: dict[int, bool] = {}
        """Calls in flight in the order in which they were handed over, and whether they began."""
        self.waiting = 0
        """Calls in flight that have not begun, as far as is known."""
        self.heard_at = 0.0
        """When something last began here, or was handed over to a host without work."""
        self.tasks = 0
        self.has_begun = False
        """It took up a call: it is able to work."""
        self.retired = False
        """It gets no new calls."""
        self.stopping = False
        """It was told to end whatever it does."""
        self._finishing = False
        """It was told to end when it has nothing to do."""
        self._abandoned: set[int] = set()
        self._timer: Timer | None = None
        self._hold_timer: Timer | None = None
        self._overdue: Timer | None = None
        self._turns: Turns | None = None
        self._rings: Rings | None = None
        self._seen: set[int] = set()
        """Calls that are known to have begun, and whose begin is still on its way."""
        self._unwanted: dict[int, StopRule] = {}
        """Calls that were asked back, and are to be stopped where they begin all the same."""
        self._over: set[int] = set()
        """Calls that will have ended by themselves, if they are heard to have ended."""
        self._speaker = 0
        """The call that wrote what comes out, where one host runs one call after the other without waiting for us."""
        self._printed = 0
        """Bytes, marks among them, since that was last asked."""
        self._sent: dict[int, Result] = {}
        """Came over the socket, and their marks have not come."""
        self._cause = ""
        self._memory: int | None = None
        self._held: Result | None = None
        """Of a host of one attempt: how that attempt ended, told when the host has ended too."""
        self._is_gone = False
        """It is a zombie."""
        self._reaped: Reaped | None = None
        """Its number is somebody else's from then on."""
        pool.began_child(self._child.pid)
        self._stack = Stack(pool.loop, self._child.stack)
        self._exit_watch = pool.loop.watch(self._child.pidfd, self._on_exit)
        later = self._child.has_call
        self._output_watch = (pool.loop.watch_later if later else pool.loop.watch)(self._child.output, self._on_output)
        self._wire = Wire(pool.loop, self._child.connection, on_frame=self._on_frame, on_hang_up=self._on_hang_up, later=later)
        self._attention = pool.loop.call_at(pool.loop.clock() + _LEFT_ALONE, self._attend) if later else None
        self._hearing = Hearing(pool.loop, self._wire, self._kill_as_deaf)
        if pool.has_threads:
            self._wire.on_frames = self._on_frames
        if greeting:
            self._wire.send(greeting)
        self._crew = Crew(pool, self._child.pid, name, preloaded=self._child.preloaded)

    def _attend(self) -> None:
        try:
            self._output_watch.begin()
            self._wire.attend()
        except OSError as error:  # what cannot be watched must not run
            self._cause = f"it could not be watched: {error.strerror}"
            self.kill()

    # Towards the host.

    def hand_over(self, call: Call) -> None:
        """To one that has a worker for it, or was born with it: that one has begun it by being there."""
        self._memory = call.resources.memory if call.resources else None
        if self._child.has_call:
            self._count((call.id,))
            self._begin(call.id, self.name, None)
            return
        self._wire.call(call.id, encoded(call, has_process=not self._pool.has_threads))
        self._took((call.id,))
        if self._pool.is_for_one and self._wire.is_sent:
            self._wire.shut()  # it need not be told to end

    def queue(self, call: Call) -> bool:
        """Have it wait here for its turn. False where it cannot, or not now."""
        if (self._turns is None and not self._opens_turns()) or not self._wire.queue((call.id,), encoded(call, has_process=True)):
            return False
        self._took((call.id,))
        return True

    def hand_over_all(self, calls: Calls) -> int:
        """As `hand_over` of each, to threads: of all, or of none where one of them is not to be sent."""
        found = pieces(calls, has_process=False)
        for call_ids, data in found:
            self._wire.send(data + b"\n")
            self._took(call_ids)
        return len(calls) if found else 0

    def queue_all(self, calls: Calls) -> int:
        """As `queue` of each, until one cannot wait here: how many do."""
        count = 0
        if self._turns is not None or self._opens_turns():
            for call_ids, data in pieces(calls, has_process=True):
                if not self._wire.queue(call_ids, data):
                    break
                self._took(call_ids)
                count += len(call_ids)
        return count

    def has_rings(self) -> bool:
        """What its threads take up is known, whatever becomes of it; tries to make it so."""
        if self._rings is None:
            self._rings = Rings.given(self._wire, self._pool.workers)
        return self._rings is not None

    def look(self, *, with_ended: bool = False) -> None:
        """What has begun, and is not said yet, or never will be: a thread may hold the interpreter.

        Of each thread what it took up last, which runs; `with_ended` also what it took up before, whose ends are on their way.
        """
        if self._rings is None or not self.waiting:
            return
        for number, thread, taken in self._rings.taken():
            begun = sorted(call_id for call_id in taken if self.calls.get(call_id) is False)
            for call_id in begun if with_ended else begun[-1:]:  # numbers rise in the order in which calls are handed over
                self._begin(call_id, f"{self.name}-{number}", thread)
                self._seen.add(call_id)

    @property
    def has_turns(self) -> bool:
        """Calls may wait in it."""
        return self._turns is not None

    def _opens_turns(self) -> bool:
        if self._turns is None:
            mark = os.urandom(_MARK_BYTES).hex().encode()
            if self._wire.open_channel(mark):
                self._turns = Turns(host.MARK + mark)
                self._speaker = next(iter(self.calls), 0)
        return self._turns is not None

    def _took(self, call_ids: Sequence[int]) -> None:
        if not self.calls:
            self.heard_at = self._pool.loop.clock()
        self._count(call_ids)
        if self._overdue is None:
            self._overdue = self._pool.loop.call_at(self._pool.loop.clock() + _LONGEST_START, self._on_overdue)

    def _count(self, call_ids: Sequence[int]) -> None:
        self.calls.update(dict.fromkeys(call_ids, False))
        self.waiting += len(call_ids)
        self.tasks += len(call_ids)

    def take_back(self) -> None:
        """What waits here is to begin somewhere else."""
        if self._reaped is not None or not self.waiting:
            return
        if self._pool.has_threads:
            self._hearing.ask_back()
        else:
            self._on_numbers(dict.fromkeys(self._wire.take_back()))

    def _on_numbers(self, call_ids: Iterable[int]) -> None:
        """A task may have written what it likes there, or have said that a call begins whose number is still there."""
        if any(self.calls.get(call_id) for call_id in call_ids):
            self._on_hang_up(NO_FRAME)
        self._on_back([call_id for call_id in call_ids if self.calls.get(call_id) is False])

    def _on_answer(self, call_ids: list[int]) -> None:
        is_each_once = len(set(call_ids)) == len(call_ids)
        if not self._hearing.is_asked_back or not is_each_once or any(self.calls[call_id] for call_id in call_ids):
            raise ValueError(call_ids)
        self._hearing.gave_back()
        for call_id in call_ids:
            self._unwanted.pop(call_id, None)
        self._on_back(call_ids)
        self._finish_if_empty()

    def _on_back(self, call_ids: list[int]) -> None:
        for call_id in call_ids:
            del self.calls[call_id]
            self._over.discard(call_id)
        if call_ids:
            self.waiting -= len(call_ids)
            self.tasks -= len(call_ids)
            self._pool.returned(self, call_ids)

    def hold(self) -> None:
        """What is handed over now goes together, when `release` is called."""
        self._wire.hold()

    def take_came(self) -> int:
        """Bytes that came from it, by whichever way, since this was last asked."""
        came, self._printed = self._printed + self._wire.received, 0
        self._wire.received = 0
        return came

    def release(self) -> None:
        if self._reaped is None:
            self._wire.release()

    def abandon(self, call_id: int, rule: StopRule) -> None:
        """Give up one attempt of many: it is over for the run, its thread may go on until this host is killed."""
        self.look(with_ended=True)
        self.take_back()
        self._hear_what_is_over()
        if call_id not in self.calls or call_id in self._abandoned:
            return
        if not self.calls[call_id]:  # it comes back, or begins
            self._unwanted[call_id] = rule
        elif self._has_gone_on(call_id):  # it has ended, and that is on its way
            self._pool.loop.call_at(self._pool.loop.clock() + rule.grace, partial(self._abandon, call_id, rule))
        else:
            self._abandon(call_id, rule)

    def _abandon(self, call_id: int, rule: StopRule) -> None:
        if call_id not in self.calls or call_id in self._abandoned:
            return
        self._over.discard(call_id)
        self.retired = True
        if rule.with_stack:
            self._wire.ask(call_id)
            self._pool.loop.call_at(self._pool.loop.clock() + PATIENCE, partial(self._give_up, call_id))
        else:
            self._give_up(call_id)
        self._hearing.keep_asking(rule.grace)

    def _hear_what_is_over(self) -> None:
        """Whose end has come by now was not stopped, whatever was wished meanwhile."""
        if not self.stopping:
            self._over.update(self.calls)
        self._wire.drain()

    def _has_gone_on(self, call_id: int) -> bool:
        """The thread that ran this call has taken up another one since."""
        taken = () if self._rings is None else (calls for _, _, calls in self._rings.taken())
        return any(call_id in calls and call_id != max(calls) for calls in taken)

    def _give_up(self, call_id: int, stack: str = "") -> None:
        """When its stack has come, or was waited for long enough; nothing where it has ended meanwhile."""
        if not self.calls.get(call_id) or call_id in self._abandoned:
            return
        self._abandoned.add(call_id)
        self._pool.ended(self, Result(id=call_id, outcome=Outcome.CANCELLED, abandoned=True, stack=stack))
        self._finish_if_empty()

    def _on_overdue(self) -> None:
        """Something was handed over so long ago: has it begun, or what came after it?"""
        self._overdue = None
        if not self.waiting:
            return
        now = self._pool.loop.clock()
        due = self.heard_at + _LONGEST_START if self.waiting == len(self.calls) else now + _LONGEST_START
        if due <= now:
            self._kill_as_asleep()
        else:
            self._overdue = self._pool.loop.call_at(due, self._on_overdue)

    def _kill_as_asleep(self) -> None:
        self._cause = f"it did not begin within {_LONGEST_START:g} s"
        self._signal_group(signal.SIGKILL)

    def _forget_overdue(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()

    def _kill_as_deaf(self, seconds: float) -> None:
        self._cause = f"its process did not answer for {seconds:g} s: a thread holds the interpreter, or it was stopped"
        self.kill()

    def stop(self, call_id: int, rule: StopRule) -> None:
        """Stop an attempt of a host that runs one at a time: with the host, unless it has ended or can be taken back."""
        self.take_back()
        self._hear_what_is_over()
        self._on_output()
        if call_id not in self.calls:
            return
        if next(reversed(self.calls)) == call_id:
            self._over.discard(call_id)
            self.end(rule)
        else:  # the host has taken the next one already: this one has ended, and its result is on the way
            self._pool.loop.call_at(self._pool.loop.clock() + rule.grace, partial(self._end_with, call_id, rule))

    def _end_with(self, call_id: int, rule: StopRule) -> None:
        if call_id in self.calls:
            self.end(rule)

    def end(self, rule: StopRule) -> None:
        """End this host: the rule's signal to its group, after the grace SIGKILL. Before that its stack is taken, if wanted."""
        if self.stopping:
            return
        self.stopping = self.retired = True
        if rule.with_stack and self._reaped is None:
            self._stack.ask(self._child.pidfd, partial(self._end_now, rule))
        else:
            self._end_now(rule)

    def _end_now(self, rule: StopRule) -> None:
        self._signal_group(rule.signal)
        self._kill_at(rule.grace)

    def dump(self) -> None:
        """Report where it stands, soon. One that is being stopped has other things to tell."""
        if self._reaped is None and not self.stopping:
            self._stack.ask(self._child.pidfd, self._report_stack)

    def _report_stack(self) -> None:
        self._pool.report(StackTaken(worker=self.name, pid=self._child.pid, stack=self._stack.take()))

    def finish(self) -> None:
        """No more calls: let it end by itself, soon. What it still runs was abandoned: nobody waits for that."""
        self.retired = self._finishing = True
        if self.calls:
            self.kill()
            return
        self._wire.shut()
        self._kill_at(_CLOSING_GRACE)

    def kill(self) -> None:
        self.stopping = self.retired = True
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        if self._reaped is None:  # else the number is free, and may be somebody's already
            signal_group(self._child.pid, number)

    def _finish_if_empty(self) -> None:
        if not self.retired or self.calls.keys() - self._abandoned:
            return
        self.finish()

    def _kill_at(self, grace: float) -> None:
        if self._timer is None:
            self._timer = self._pool.loop.call_at(self._pool.loop.clock() + grace, self.kill)

    # From the host.

    def _on_frame(self, frame: Frame, value: bytes | None) -> None:
        match frame[0]:
            case "result":
                self._on_sent_result(result_of(frame, value))
            case "began":
                self._on_began(*frame[1:])
            case "ran" if self._pool.has_threads and value is not None and (run := plain_run(frame)):
                self._on_ran(run, value)
            case "said":
                self._say(frame[1] if frame[1] in self.calls else 0, frame[2].encode())
            case "joined":
                self._crew.joined(*frame[1:])
            case "back":
                self._on_answer(frame[1])
            case "alive":
                self._hearing.answered()
            case "stack":
                self._on_stack(frame[1], frame[2])
            case other:
                raise ValueError(other)

    def _on_frames(self, frames: list[tuple[Frame, bytes | None]]) -> None:
        """Of threads: many at once, and what is the same for all of them once."""
        calls, threads, lately = self.calls, self._crew.threads, Lately()
        for frame, value in frames:
            if value is not None and self._is_plain_run(frame, value, lately):
                continue
            end = None if value is None or self.retired or self._over else plain_end(frame)
            if end is not None and calls.get(end[0]):
                call_id, duration, cpu = end
                del calls[call_id]
                lately.durations.append(duration)
                if call_id == lately.begun[0]:
                    lately.rows.append((*lately.begun, duration, cpu, None, value))
                    lately.begun = _NOBODY
                else:
                    self._tell(lately)
                    self._pool.report(Result(id=call_id, outcome=_SUCCEEDED, duration=duration, cpu=cpu, value=value))
            elif self._is_plain_begin(frame):
                _, call_id, worker, thread = frame
                if lately.begun[0] or worker not in threads:
                    self._tell(lately)
                calls[call_id] = True
                lately.begun, lately.begins = (call_id, worker, thread), lately.begins + 1
                self._crew.thread(worker, thread).tasks += 1
            else:
                self._settle(lately)
                self._on_frame(frame, value)
        self._settle(lately)

    def _is_plain_run(self, frame: Frame, value: bytes, lately: Lately) -> bool:
        """Whether it tells that one began and succeeded, and nothing else is to be heeded: then that is noted."""
        run = None if self.retired or self._over or self._unwanted else plain_run(frame)
        if run is None or self.calls.get(run[0]) is not False:
            return False
        call_id, worker, thread, duration, cpu = run
        if lately.begun[0] or worker not in self._crew.threads:
            self._tell(lately)
        del self.calls[call_id]
        self._crew.thread(worker, thread).tasks += 1
        lately.rows.append((call_id, worker, thread, duration, cpu, None, value))
        lately.durations.append(duration)
        lately.begins += 1
        return True

    def _on_ran(self, run: tuple[int, str, int, float, float], value: bytes) -> None:
        call_id, worker, thread, duration, cpu = run
        if self._unwanted.pop(call_id, None) is not None:
            self._over.add(call_id)
        self._on_began(call_id, worker, thread)
        self._on_sent_result(Result(id=call_id, outcome=_SUCCEEDED, duration=duration, cpu=cpu, value=value))

    def _is_plain_begin(self, frame: Frame) -> bool:
        if type(frame) is not list or len(frame) != _BEGAN or frame[0] != "began" or self._unwanted:
            return False
        _, call_id, worker, thread = frame
        return type(call_id) is type(thread) is int and type(worker) is str and self.calls.get(call_id) is False

    def _on_stack(self, call_id: int, stack: str) -> None:
        """Of one that is to be abandoned: before that nobody asks."""
        if not self.retired or type(stack) is not str:
            raise ValueError(call_id)
        self._give_up(call_id, stack[:_LONGEST_STACK])

    def _on_hang_up(self, why: str) -> None:
        """Useless, and maybe alive: unless it was asked to end, it is killed."""
        self._cause = self._cause or why
        self.retired = True
        if not self._finishing:
            self._signal_group(signal.SIGKILL)

    def _on_began(self, call_id: int, worker: str, thread: int | None) -> None:
        if call_id in self._seen:
            self._seen.discard(call_id)
            return
        if self.calls[call_id] or type(worker) is not str or type(thread) not in (int, NoneType):
            raise ValueError(call_id)
        self._begin(call_id, worker, thread)

    def _begin(self, call_id: int, worker: str, thread: int | None) -> None:
        self.calls[call_id] = True
        self._have_begun(1)
        if self._pool.has_threads:
            self._crew.thread(worker, thread).tasks += 1
        self._pool.report(Began(id=call_id, worker=worker, pid=self._child.pid, thread=thread))
        if call_id in self._unwanted:
            self.abandon(call_id, self._unwanted.pop(call_id))

    def _on_sent_result(self, result: Result) -> None:
        """Over the socket, not at a mark: then it waits for that. What it printed comes first: it was written before this."""
        if result.id not in self.calls:
            raise ValueError(result.id)
        if self._turns is not None:
            self._sent[result.id] = result
            return
        if not self._pool.has_threads:
            self._on_output()
        self._on_result(result)

    def _on_result(self, result: Result) -> None:
        if not self.calls[result.id]:  # it waits, and has to come to its end elsewhere
            raise ValueError(result.id)
        del self.calls[result.id]
        if result.id in self._over:
            self._over.discard(result.id)
            result = replace(result, was_over=True)
        elif self.stopping:
            result = replace(result, stack=self._stack.text())
        if self._pool.is_for_one:
            self._hold(result)
            return
        self._pool.ended(self, result)
        self._finish_if_empty()

    def _hold(self, result: Result) -> None:
        """This host has had its attempt, which is told when the host, and what it leaves behind, is gone."""
        self._held = result
        if self._is_gone:
            self.retired = self._finishing = True
            return
        self.finish()
        self._hold_timer = self._pool.loop.call_at(self._pool.loop.clock() + _LONGEST_HOLD, self._on_long_hold)

    def _on_long_hold(self) -> None:
        """A thread of the task goes on, say. What failed may be tried again, so that nothing of it may go on."""
        if self._held is not None and self._held.outcome is not Outcome.SUCCEEDED:
            self.kill()
        else:
            self._tell_held()

    def _tell_held(self) -> None:
        if self._held is not None:
            result, self._held = self._held, None
            self._pool.ended(self, result)

    def _on_output(self) -> None:
        for _ in range(PIPE_READS):  # and no more: one who never stops writing must not keep the engine here
            if not (data := read_available(self._child.output)):
                break
            self._printed += len(data)
            self._tell_output(data)
        if data is None:
            self._output_watch.close()

    def _tell_output(self, data: bytes) -> None:
        if self._turns is None:
            alone = not self._pool.has_threads and self.calls  # which of several threads wrote it, nobody can tell
            self._say(next(iter(self.calls)) if alone else 0, data)
            return
        if marks := self._turns.alone(data):
            self._on_marks(marks)
            return
        for mark, text in self._turns.split(data):
            if mark:
                self._on_mark(mark)
            if text:
                self._say(self._speaker if self._speaker in self.calls else 0, text)

    def _on_marks(self, marks: list[bytes]) -> None:
        """Many at once, and what is the same for all of them once."""
        calls, name, lately = self.calls, self.name, Lately()
        for mark, turn in zip(marks, turns_of(marks), strict=True):
            begins, ended, duration, cpu, max_rss, value = turn or NO_TURN
            is_plain = turn is not None and not (self.stopping or self._over) and (not begins or calls.get(begins) is False)
            if not is_plain or ((ended or lately.begun[0]) and calls.get(ended) is not True):
                self._settle(lately)
                self._on_mark(mark)
                continue
            if ended:
                del calls[ended]
                lately.durations.append(duration)
                if ended == lately.begun[0]:
                    lately.rows.append((ended, name, None, duration, cpu, max_rss, value))
                else:
                    self._tell(lately)
                    self._pool.report(
                        Result(id=ended, outcome=_SUCCEEDED, duration=duration, cpu=cpu, max_rss=max_rss, value=value)
                    )
            self._speaker = begins
            lately.begun = _NOBODY
            if begins:
                calls[begins] = True
                lately.begun, lately.begins = (begins, name, None), lately.begins + 1
        self._settle(lately)

    def _tell(self, lately: Lately) -> None:
        """Report what has begun and ended, and then what has begun."""
        if lately.rows:
            self._pool.ran(Runs(pid=self._child.pid, rows=lately.rows))
            lately.rows = []
        call_id, worker, thread = lately.begun
        if call_id:
            self._pool.report(Began(id=call_id, worker=worker, pid=self._child.pid, thread=thread))
            lately.begun = _NOBODY

    def _settle(self, lately: Lately) -> None:
        """Tell what has come together, and what it means for the pool."""
        self._tell(lately)
        self._have_begun(lately.begins)
        if lately.durations:
            self._pool.ended_all(self, lately.durations)
            self._finish_if_empty()
        lately.begins, lately.durations = 0, []

    def _have_begun(self, count: int) -> None:
        if count:
            self.has_begun = True
            self.waiting -= count
            self.heard_at = self._pool.loop.clock()
            self._pool.began()

    def _on_mark(self, mark: bytes) -> None:
        try:
            self._on_turn(*turn_of(mark))
        except NOT_A_FRAME:
            self._on_hang_up(NO_FRAME)

    def _on_turn(self, begins: int, ended: int, result: Result | None) -> None:
        """One call has ended, how it says or has said over the socket, and the next one begins."""
        if result is not None:
            self._on_result(result)
        elif ended in self.calls:
            if ended not in self._sent:
                self._wire.drain()
            self._on_result(self._sent.pop(ended))
        self._speaker = begins
        if begins:
            self._on_began(begins, self.name, None)

    def _say(self, call_id: int, data: bytes) -> None:
        self._pool.report(Said(id=call_id, pool=self._pool.name, data=data))

    # Its end.

    def _on_exit(self) -> None:
        """It is a zombie now: read what it left, end its group while the number is still its own, then reap it."""
        self._is_gone = True
        self._wire.drain()
        self.look(with_ended=True)
        self._on_output()
        self._say_rest()
        signal_group(self._child.pid, signal.SIGKILL)
        self._reaped = self._child.reap()
        text = self._stack.text()
        self._release()
        self.retired = True
        self._pool.reaped_child(self._child.pid, partial(self._on_gone, self._reaped, text))

    def _say_rest(self) -> None:
        if self._turns is not None and (rest := self._turns.rest()):
            self._say(0, rest)
        for result in self._sent.values():
            if self.calls.get(result.id):
                self._on_result(result)

    def _on_gone(self, reaped: Reaped, stack: str, leftovers: tuple[int, ...]) -> None:
        """Nothing of it is left, so that what it did not bring to its end can be tried again."""
        exit = Exit.of(reaped.code)
        lost = [call_id for call_id, began in self.calls.items() if not began and call_id not in self._abandoned]
        crashed = [call_id for call_id, began in self.calls.items() if began and call_id not in self._abandoned]
        if leftovers:
            self._pool.report(Leftover(id=self._leaver(crashed), pids=leftovers, killed=True))
        if self.stopping or self.calls or self._crew.threads or not self._finishing:
            self._crew.died(exit, self.tasks)
        self.calls.clear()
        self.tasks -= len(lost)
        self._tell_held()
        for call_id in crashed:
            self._pool.ended(self, self._crash(call_id, reaped, shared=len(crashed) > 1, stack=stack))
        self._crew.ended(exit, self.tasks)
        self._pool.gone(self, lost, exit)

    def _leaver(self, crashed: list[int]) -> int:
        """The attempt that left processes behind: 0 where there may have been several, or where it has been told already."""
        if not self._pool.is_for_one:
            return 0
        return self._held.id if self._held is not None else next(iter(crashed), 0)

    def _release(self) -> None:
        self._exit_watch.close()
        self._output_watch.close()
        self._wire.close()
        self._stack.close()
        self._hearing.close()
        self._forget_overdue()
        if self._rings is not None:
            self._rings.close()
        for timer in (self._timer, self._hold_timer, self._attention):
            if timer is not None:
                timer.cancel()
        os.close(self._child.pidfd)
        os.close(self._child.output)

    def _crash(self, call_id: int, reaped: Reaped, *, shared: bool, stack: str) -> Result:
        exit, usage = Exit.of(reaped.code), reaped.usage
        peak = usage.ru_maxrss * host.MAX_RSS_UNIT if usage is not None else None
        return Result(
            id=call_id,
            outcome=Outcome.CRASHED,
            error=self._why(exit, peak, shared),
            exit_code=exit.code,
            signal=exit.signal,
            cpu=round(usage.ru_utime + usage.ru_stime, 6) if usage is not None and self._pool.is_for_one else None,
            max_rss=None if self._pool.has_threads else peak,
            stack=stack,
        )

    def _why(self, exit: Exit, peak: int | None, shared: bool) -> Error:
        error = None
        if not self.stopping and not self._cause:
            by_kernel = exit.signal == signal.SIGKILL and self._pool.kernel_kills.take_one()
            error = limits.out_of_memory(exit, self._memory, peak, b"", by_kernel=by_kernel)
        return error or deaths.crash(exit, cause=self._cause, shared=shared)
