"""The template: a lean process that forks hosts for the engine, which stays their parent. Standard library only.

    engine ──name of a worker, descriptors of its host──▶ template ──pid, or minus the number of an error──▶ engine
      └──────── waits for, signals, reaps ──────▶ host ◀────┘

A fork costs what the process has in memory, when it begins and again when it ends: of the engine tens of megabytes, hundreds with
a large plan. What the hosts of a pool have in common is done here once.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import gc
import importlib
import json
import mmap
import multiprocessing.context
import multiprocessing.util  # else every host would do it
import os
import socket
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Set
from functools import partial

from jobrunner import cloning, host, processes, system, work
from jobrunner.structs import struct
from jobrunner.typed import Any, NoReturn

LONGEST = 1 << 17
"""Bytes of a message."""
READY = b"ready"
REFUSED = b"refused: "
"""Why a template cannot preload, and ends."""
SLOT = 4096
"""Bytes of the memory that is shared with the engine, in which the system itself writes the pid of a host."""
_PLACES = array("i", [1, 2, 3, 4])
"""Where a host has its output, twice, its connection and its pipe for stacks: what comes is put where nothing is, from below."""
_IN_PLACE = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _PLACES.tobytes())]
_ROOM = socket.CMSG_LEN(len(_PLACES) * _PLACES.itemsize)
_CONNECTION, _STACK, _CONTROL, _FIRST_FREE = 3, 4, 6, 7
_RARE = frozenset(
    [
        "decimal",
        "fractions",
        "hashlib",
        "hmac",
        "numbers",
        "platform",
        "random",
        "secrets",
        "sysconfig",
        "tempfile",
        "uuid",
        "zoneinfo",
    ]
)
_PARTS = frozenset(["_blake2", "_decimal", "_hashlib", "_random", "_sha512", "_uuid", "_zoneinfo"])
"""Of the standard library what few targets use, and what belongs to it. Each fork would pay for it: in mappings, and `random` is
seeded anew in each host."""
_HAS_THREADS, _REFUSED = 72, 73
_LONGEST_REASON = 2000
_REHEARSALS = 12
_LONGEST_JOIN = 0.1
"""Seconds."""
_RUNS_EXIT_FUNCTIONS = sys.version_info >= (3, 13)
"""What is to be done at the end of a process of multiprocessing stands in `atexit`, and whoever has forked it calls that."""


@struct
class Settings:
    """What the hosts of a template have in common. `mark` is a file that they have mapped, if there is one."""

    host: host.Settings
    mark: str
    modules: list[str]
    """Of the standard library, loaded here once: a host that was forked from the engine itself has them too. Of those that few
    use only what targets name."""
    preload: list[str]
    """Targets that are looked up here once, so that their modules are imported."""


def serve(control_fd: int, slot_fd: int, engine: int) -> NoReturn:
    """Fork hosts until the engine closes its side. A failure ends this process: then the engine forks them itself."""
    system.die_with(engine)
    slot = mmap.mmap(slot_fd, SLOT)
    control = _settled(control_fd)
    received = json.loads(control.recv(LONGEST))
    common, mark = received["host"], _mapped(received["mark"])
    for name in received["modules"]:
        if name.partition(".")[0] not in _RARE | _PARTS:
            with contextlib.suppress(Exception):  # whoever needs it will be told
                importlib.import_module(name)
    # It begins as a process of multiprocessing does, for all hosts, and each host ends so: forked in the middle of `run`.
    process: Any = multiprocessing.context.ForkProcess(target=_run)
    process._args = (
        process,
        control,
        cloning.forker(slot, engine),
        common,
        received["preload"],
        _RARE.intersection(received["modules"]),
    )
    process._parent_pid = engine
    code = 1
    if _RUNS_EXIT_FUNCTIONS:
        atexit._clear()
        atexit.register(multiprocessing.util._exit_function)  # type: ignore[attr-defined]
    try:
        code = process._bootstrap(parent_sentinel=None)
    finally:
        if _RUNS_EXIT_FUNCTIONS:
            atexit._run_exitfuncs()
        os._exit(code if mark is not slot else 1)  # until here both are mapped


def _settled(control_fd: int) -> socket.socket:
    """Its socket; in the place of a host's, and of its pipe for stacks, there is nothing. All else that was inherited is closed.

    What is the output of a host leads nowhere, but is a pipe as that is: streams that are opened on it do for both.
    """
    control_fd = fcntl.fcntl(control_fd, fcntl.F_DUPFD, _FIRST_FREE)
    for number, fd in ((_CONTROL, control_fd), (_STACK, 0), (_STACK - 1, 0)):
        os.dup2(fd, number, inheritable=False)
    os.closerange(_STACK + 1, _CONTROL)
    os.closerange(_FIRST_FREE, os.sysconf("SC_OPEN_MAX"))
    nowhere, output = os.pipe()
    for number in (1, 2):
        os.dup2(output, number)
    os.close(nowhere)
    os.close(output)
    return socket.socket(fileno=_CONTROL)


def _mapped(mark: str) -> mmap.mmap | None:
    """By it a host is found whatever it has made of its environment."""
    try:
        with open(mark, "rb") as file:
            return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    except (OSError, ValueError):
        return None


def _run(
    process: Any, control: socket.socket, fork: Callable[[], int], common: dict[str, Any], preload: list[str], rare: Set[str]
) -> None:
    """In the template until the engine closes its side; in a host until that has ended. `common` are the settings of all."""
    settings = host.Settings(**common)
    streams = host.prepare(settings, _STACK)
    (lane, single), pid = host.rehearsed(settings, streams, rare), os.getpid()
    if _has_threads():  # what stands in site-packages may start some
        os._exit(_HAS_THREADS)
    refused = _preloaded(preload)
    if os.getpid() != pid:  # a fork by a module returned in the child too
        os._exit(0)
    if refused:
        control.send(REFUSED + refused.encode("utf-8", "backslashreplace")[:_LONGEST_REASON])
        os._exit(_REFUSED)
    gc.collect()
    gc.freeze()
    ends, last = _Ends(), os.sysconf("SC_OPEN_MAX")
    for _ in range(_REHEARSALS):
        ends.are_none()
    os.closerange(_PLACES[0], _CONTROL)
    control.send(READY)
    be_main_thread = threading.main_thread()._set_native_id  # type: ignore[attr-defined]
    while order := _received(control):
        worker, number, call = order.split(b"\n", 2)
        name = worker.decode()
        process._name, process._identity, sys.argv[:] = name, (int(number),), [name]
        streams.adopt()
        if not (is_single := single.become(call)):
            lane.become(name, call)
        if _answered(control, fork) == 0:
            be_main_thread()
            os.closerange(_CONTROL, last)
            host.cloned(single.main if is_single else partial(host.main, lane.serve))
            if ends.are_none():
                os._exit(0)
            break
        os.closerange(_PLACES[0], _CONTROL)


def _has_threads() -> bool:
    """One that was joined may still be there for a moment, to the system."""
    until = time.monotonic() + _LONGEST_JOIN
    while len(os.listdir("/proc/self/task")) > 1:
        if time.monotonic() >= until:
            return True
        time.sleep(_LONGEST_JOIN / 50)
    return False


def _preloaded(targets: list[str]) -> str:
    """Import what the targets are in; why that cannot be shared by all hosts, "" where it can.

    A module that cannot be imported, or has no such function, fails each attempt in words of its own. What would be shared with
    the hosts, or be missing in them, must not be there: threads, child processes, open files and connections. What it prints then
    nobody reads.
    """
    with _silence():
        return _imported(targets)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Output goes nowhere; what stands for it is as before afterwards."""
    nowhere, output = os.open(os.devnull, os.O_WRONLY), os.dup(1)
    for number in (1, 2):
        os.dup2(nowhere, number)
    yield
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # whatever a module left in their place may raise anything
            stream.flush()
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    os.close(nowhere)


def _imported(targets: list[str]) -> str:
    before = _descriptors()
    for target in targets:
        module = target.partition(":")[0]
        try:
            work.resolve(target)
        except BaseException as error:  # a module may raise anything, SystemExit too
            told = work.describe(error)
            return f"{module}: {told.type}: {told.message}"
        if _has_threads():
            return f"{module} starts a thread when it is imported"
        if processes.children():
            return f"{module} starts a process when it is imported"
        if opened := _descriptors() - before:
            return f"{module} leaves open what it opens when it is imported: {', '.join(sorted(opened))}"
    return ""


def _descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the list itself
            found.add(f"{name} ({os.readlink(f'/proc/self/fd/{name}')})")
    return found


class _Ends:
    """Whether there is something to be done at the end of a host: else what finds that out would copy 80 pages."""

    def __init__(self) -> None:
        self._threads: list[Any] = [threading._active, threading._limbo]  # type: ignore[attr-defined]
        self._processes: list[Any] = [multiprocessing.util._finalizer_registry, multiprocessing.process._children]  # type: ignore[attr-defined]
        self._functions = getattr(threading, "_threading_atexits", [])
        self._count_functions = atexit._ncallbacks
        self._counts = self._counted()

    def _counted(self) -> tuple[list[int], int]:
        return [*map(len, self._threads), *map(len, self._processes), len(self._functions)], self._count_functions()

    def are_none(self) -> bool:
        """No thread, no process of multiprocessing, and nobody who wants to be called. What was printed was written already."""
        return self._counted() == self._counts


def _received(control: socket.socket) -> bytes:
    """The name and number of a host, and its first call or b"", as lines; b"" at the end. Its descriptors are in their places."""
    while True:
        data, given, _, _ = control.recvmsg(LONGEST, _ROOM)
        if not data or given == _IN_PLACE:
            break
        os.closerange(_PLACES[0], _CONTROL)  # there was no room for one of them
        control.send(b"-%d" % errno.EMFILE)
    if data:
        os.set_inheritable(_CONNECTION, False)
        os.set_inheritable(_STACK, False)
    return data


def _answered(control: socket.socket, fork: Callable[[], int]) -> int:
    """Fork, and tell the engine; what fork returned, or minus the number of the error."""
    try:
        pid = fork()
    except OSError as error:
        pid = -(error.errno or errno.EAGAIN)
    if pid:
        control.send(b"%d" % pid)
    return pid
