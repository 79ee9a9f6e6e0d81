"""What crosses between the engine and the far side, and the function that runs a call there. Standard library only.

A Call goes out as names and plain data; what comes back is text and JSON bytes. Nothing that a task made is ever
unpickled, so nothing that a task made can run inside the engine.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import cache

from jobrunner.structs import field, struct
from jobrunner.typed import Any

LARGEST_RESULT = 64 << 20
"""The largest result of a target, in bytes of JSON. More than this belongs in a file whose path is returned."""

_LONGEST_TRACEBACK = 16_384
_LONGEST_KIND = 200
MOST_KINDS = 20
_LEAST_ASKED = 20e-6
"""Seconds: of a call that took less it is not asked how much of that was CPU time, which would take nearly as long. All is."""


class Outcome(StrEnum):
    """How an attempt, an item or a task ended. Terminal: nothing follows it."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"


@struct
class Resources:
    """What a process may use: `memory` in bytes (RLIMIT_DATA), `nice` as nice(1) counts, `cpus` as a number of CPUs."""

    memory: int | None = None
    nice: int | None = None
    cpus: int | None = None


@struct(frozen=False, kw_only=False)  # nobody changes one: it is made in a third of the time
class Call:
    """One attempt of a Python callable. `env` and `cwd` count only where the attempt has the process to itself."""

    id: int
    target: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    cwd: str = ""
    needed: bool = False
    """Somebody waits for the result: one that is not JSON fails the attempt instead of being dropped with a note."""
    resources: Resources | None = None
    """Only for a host of one attempt, which takes them on before the target runs."""


@struct(frozen=False, kw_only=False)  # as above
class Calls:
    """Calls that differ in what they are given, and in some variables of their environment: each column has a value for each."""

    ids: Sequence[int]
    target: str
    args: Sequence[list[Any]]
    kwargs: Sequence[dict[str, Any]]
    env: dict[str, str]
    """The variables that are the same for all."""
    own_env: dict[str, Sequence[str]]
    """The others, as columns."""
    cwd: str

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Call]:
        return map(self.one, range(len(self.ids)))

    def one(self, at: int) -> Call:
        env = {**self.env, **{name: column[at] for name, column in self.own_env.items()}}
        return Call(self.ids[at], self.target, self.args[at], self.kwargs[at], env, self.cwd)

    def some(self, places: slice) -> Calls:
        own = {name: column[places] for name, column in self.own_env.items()}
        return Calls(self.ids[places], self.target, self.args[places], self.kwargs[places], self.env, own, self.cwd)


@struct(frozen=False)  # as above
class Command:
    """One attempt of a command. `env` is its whole environment; `cwd` is absolute."""

    id: int
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    output_file: str = ""
    """Where it may write `key=value` lines ($JOBRUNNER_OUTPUT)."""
    stdout_needed: bool = False
    """Somebody waits for its standard output: it gets a pipe of its own, and its last 64 KiB are kept."""
    leftover_allowed: bool = False
    """Processes that it leaves behind may stay."""
    resources: Resources | None = None
    then: tuple[tuple[str, ...], ...] = ()
    """Commands that follow, one after the other, each if the one before succeeded: all of them are one attempt."""


@struct
class StopRule:
    """How an attempt is stopped: `signal` (a number) to its process group, `grace` seconds later SIGKILL."""

    signal: int
    grace: float
    with_stack: bool = False
    """Take down where a Python task stands before it is stopped (a host of one attempt or of one worker)."""


@struct
class Error:
    """Why an attempt did not succeed, as text."""

    type: str
    message: str
    traceback: str = ""
    kinds: tuple[str, ...] = ()
    """Of an exception: the dotted names of its class and of those that this derives from, up to Exception; at most 20."""


@struct(frozen=False)  # nobody changes it: it is made three times as fast
class Result:
    """How one attempt ended. `duration` and `cpu` in seconds, `max_rss` in bytes, `value` the returned value as JSON."""

    id: int
    outcome: Outcome
    duration: float = 0.0
    cpu: float | None = None
    max_rss: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: Error | None = None
    value: bytes | None = None
    value_file: str = ""
    """Where a large value is kept instead."""
    unkept: bool = False
    """The value is there, but on no disk: a later part of the run will not have it."""
    note: str = ""
    abandoned: bool = False
    was_over: bool = False
    """It ended by itself: the wish to stop it, if there was one, came too late."""
    stdout: bytes = b""
    outputs: dict[str, str] = field(default_factory=dict)
    stack: str = ""
    """Where a Python task stood when it was stopped, as text."""

    def json(self) -> Any:
        """The value, decoded; None where there is none. Raises ValueError for one that cannot be decoded."""
        try:
            if self.value_file:
                with open(self.value_file, "rb") as file:
                    return json.loads(file.read())
            return None if self.value is None else json.loads(self.value)
        except OSError as error:
            raise ValueError(f"{self.value_file}: {error.strerror}") from None
        except RecursionError:
            raise ValueError("it is nested too deeply") from None


@struct(frozen=False)  # as above
class Began:
    """A worker has taken an attempt up. `thread` is the native thread id, None where the worker is a process."""

    id: int
    worker: str
    pid: int
    thread: int | None = None


Success = tuple[int, str, int | None, float, float | None, int | None, bytes | None]
"""Of a call that began and then succeeded: its id, worker, thread, duration, cpu, max_rss and value."""


@struct(frozen=False)  # as above
class Runs:
    """Attempts in one process of which each began, and then ended in a plain success, one after the other."""

    pid: int
    rows: list[Success]

    def reports(self, row: Success) -> tuple[Began, Result]:
        """What one of them is short for."""
        call_id, worker, thread, *_ = row
        return Began(id=call_id, worker=worker, pid=self.pid, thread=thread), result_of(row)


def result_of(row: Success) -> Result:
    call_id, _, _, duration, cpu, max_rss, value = row
    return Result(id=call_id, outcome=_SUCCEEDED, duration=duration, cpu=cpu, max_rss=max_rss, value=value)


@struct(frozen=False)  # as above
class Said:
    """Output of an attempt; `id` is 0 where it cannot be told which attempt of the pool it was."""

    id: int
    pool: str
    data: bytes


@struct
class Returned:
    """An attempt was handed to a worker that ended before it began: it is ready again, and does not count."""

    id: int


@struct
class Exhausted:
    """The system has no room to start it now (descriptors, processes, memory): it is ready again, and does not count."""

    id: int
    reason: str


@struct
class Leftover:
    """An attempt ended and left processes behind, which were killed (or allowed to stay). `id` is 0 where nobody knows whose."""

    id: int
    pids: tuple[int, ...]
    killed: bool


@struct
class StackTaken:
    """Where the Python code of a worker process stands at this moment: what `dump` asks for. Empty where it did not answer."""

    worker: str
    pid: int
    stack: str


@struct
class WorkerStarted:
    """A thread or process that executes attempts exists. `preloaded`: forked where its modules were imported already."""

    pool: str
    worker: str
    pid: int
    thread: int | None = None
    preloaded: bool = False


@struct
class WorkerDied:
    """A worker ended without being asked to, or was killed because it would not stop."""

    pool: str
    worker: str
    pid: int
    reason: str
    thread: int | None = None


@struct
class WorkerJoined:
    """A worker is gone and was waited for. It ran `tasks` attempts in `lived` seconds."""

    pool: str
    worker: str
    pid: int
    tasks: int
    lived: float
    thread: int | None = None
    exit_code: int | None = None
    signal: int | None = None


Report = Result | Began | Runs | Said | Returned | Exhausted | Leftover | StackTaken | WorkerStarted | WorkerDied | WorkerJoined
"""What executors tell the engine, in the order in which it happened."""


def run(call: Call, cpu_clock: Callable[[], float] = time.process_time) -> Result:
    """Run `call` here and now. Never raises: whatever the target does is in the Result.

    `sys.exit()` and `sys.exit(0)` are a success without a result, `sys.exit(3)` is a failure with exit code 3; every
    other exception, KeyboardInterrupt included, is a failure with its traceback as text.
    """
    started, cpu = time.perf_counter(), cpu_clock()
    ending = _ending(call)
    duration = time.perf_counter() - started
    return Result(id=call.id, duration=duration, cpu=duration if duration < _LEAST_ASKED else cpu_clock() - cpu, **ending)


def _ending(call: Call) -> dict[str, Any]:
    try:
        value = resolve(call.target)(*call.args, **call.kwargs)
        if value is None:
            return _NOTHING
        if hasattr(value, "__await__"):
            value = _awaited(value)
        return _valued(value, call.needed)
    except SystemExit as exit:
        return _exited(exit)
    except BaseException as error:  # a task may raise anything, KeyboardInterrupt and exception groups included
        return {"outcome": Outcome.FAILED, "error": describe(error)}


@cache
def resolve(target: str) -> Callable[..., Any]:
    """The callable that `module:function` names, looked up once in a process.

    The import waits for one that another thread has begun: what `sys.modules` holds meanwhile is half a module.
    """
    module_name, _, attributes = target.partition(":")
    found: Any = _run_at_hand(*at_hand.pop(module_name)) if module_name in at_hand else importlib.import_module(module_name)
    for name in attributes.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise AttributeError(_nothing_called(name, found, target)) from None
    if not callable(found):
        raise TypeError(f"{target} is not callable but {type(found).__name__}")
    return found  # type: ignore[no-any-return]


at_hand: dict[str, tuple[Any, Any]] = {}
"""Modules that nobody has imported, each made and with its code, but not run: what a template leaves to its hosts to do."""


def _run_at_hand(module: Any, code: Any) -> Any:
    """Import one of them, as the import system does: what has failed is not there."""
    name, spec = module.__name__, module.__spec__
    sys.modules[name] = module
    spec._initializing = True
    try:
        exec(code, module.__dict__)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    finally:
        spec._initializing = False
    return sys.modules[name]  # a module may put another one in its place


def _nothing_called(name: str, place: Any, target: str) -> str:
    """Names the file too: a module of this name may be found elsewhere than its author thinks."""
    import difflib

    near = difflib.get_close_matches(name, [each for each in dir(place) if not each.startswith("_")], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{target}: there is no {name!r} in {getattr(place, '__file__', place)!r}.{hint}"


def _awaited(awaitable: Any) -> Any:
    """A coroutine that nobody runs would be a silent success."""
    import asyncio

    async def wait() -> Any:
        return await awaitable

    return asyncio.run(wait())


_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_SUCCEEDED = Outcome.SUCCEEDED  # a look into an enum takes 70 ns
_NOTHING: dict[str, Any] = {"outcome": _SUCCEEDED, "value": b"null"}


def _valued(value: Any, needed: bool) -> dict[str, Any]:
    """A success with its value as JSON. A value that is not JSON is dropped with a note, or fails the attempt if needed."""
    if (hasattr(value, "__next__") and hasattr(value, "send")) or hasattr(value, "__anext__"):
        return _refused("returned a generator, so nothing ran; return a list instead of using yield")
    try:
        data = _encode(value).encode()
    except (TypeError, ValueError, RecursionError, UnicodeEncodeError) as error:
        said = f"returned {_article(_name(type(value)))}, which is not JSON ({_one_line(error)})"
        return _refused(said) if needed else {"outcome": Outcome.SUCCEEDED, "note": f"{said}: dropped"}
    if len(data) > LARGEST_RESULT:
        return _refused(f"returned {len(data) >> 20} MiB; write it to a file and return the path")
    return {"outcome": _SUCCEEDED, "value": data}


def _refused(message: str) -> dict[str, Any]:
    return {"outcome": Outcome.FAILED, "error": Error(type="ResultError", message=message)}


def _exited(exit: SystemExit) -> dict[str, Any]:
    if exit.code is None or exit.code == 0:
        return {"outcome": Outcome.SUCCEEDED, "value": b"null", "exit_code": 0}
    code = exit.code & 0xFF if isinstance(exit.code, int) else 1  # as the operating system would report it
    if code == 0:
        return {"outcome": Outcome.SUCCEEDED, "value": b"null", "exit_code": 0}
    error = Error(
        type="SystemExit",
        message=_one_line(exit) if isinstance(exit.code, str) else f"exit {_one_line(exit)}",
        kinds=kinds(type(exit)),
    )
    return {"outcome": Outcome.FAILED, "exit_code": code, "error": error}


def describe(error: BaseException) -> Error:
    """The exception as text, without the frames of this module; holds whatever the exception's own methods do."""
    try:
        import traceback  # who runs commands alone does without; hosts have it from their beginning

        shown = traceback.TracebackException.from_exception(error, lookup_lines=True)
        shown.stack = traceback.StackSummary.from_list([frame for frame in shown.stack if frame.filename != __file__])
        text = "".join(shown.format())
    except BaseException as broken:  # __str__, __cause__ or a source file may raise anything
        text = f"(no traceback: {_name(type(broken))} while it was formatted)"
    if len(text) > _LONGEST_TRACEBACK:
        half = _LONGEST_TRACEBACK // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    name = _name(type(error))
    return Error(type=name, message=_one_line(error) or name, traceback=_clean(text), kinds=kinds(type(error)))


def kinds(raised: type[BaseException]) -> tuple[str, ...]:
    """`Error.kinds` of an exception of this class. Asks `type`, never the class, which may answer as it likes."""
    mro = type.__dict__["__mro__"].__get__(raised)
    return tuple(_dotted(each) for each in mro if each is not object and each is not BaseException)[:MOST_KINDS]


def _dotted(kind: type) -> str:
    """`module.Class`, without the module for what is built in, and where it is no text."""
    module = type.__dict__["__module__"].__get__(kind)
    name = _clean(type.__dict__["__qualname__"].__get__(kind))
    return (name if type(module) is not str or module == "builtins" else f"{_clean(module)}.{name}")[-_LONGEST_KIND:]


def _name(kind: type) -> str:
    return _clean(type.__dict__["__name__"].__get__(kind))


def _one_line(error: BaseException) -> str:
    try:
        return _clean(str(error))[:2000]
    except BaseException as broken:
        return f"(no message: its __str__ raised {_name(type(broken))})"


def _clean(text: str) -> str:
    """Text that every JSON reader takes: a lone surrogate becomes its escape. A subclass of str has no say in it."""
    return str.encode(text, "utf-8", "backslashreplace").decode()


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
