"""How a process becomes a host: forked by the engine or by a template, or spawned."""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import gc
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Set
from importlib.machinery import PathFinder

from jobrunner import speech, system
from jobrunner.host.in_order import InOrder
from jobrunner.host.lane import Settings, began_with, or_dead
from jobrunner.host.modes import MODES
from jobrunner.host.port import ENGINE_IS_GONE, Port
from jobrunner.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from jobrunner.host.single import Single

_LEFT = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGKILL, signal.SIGSTOP}
_OURS = {"jobrunner", "__main__"}
STACK_SIGNAL = signal.SIGWINCH
"""Tells a host to write where its Python code stands. Ignored unless it is handled, so that it harms no task that has replaced
itself by another program or has put back all handlers, as one of the real-time signals would; and nobody else sends or handles it
here: it is about the size of a terminal, which a host has not. SIGUSR1, SIGUSR2 and the real-time signals are left to tasks."""


def prepare(settings: Settings, stack: int) -> speech.Streams:
    """Make this process one that may run targets: what is the same for all hosts of a pool.

    Standard input, output and error are already those of a host. The descriptor `stack` takes where its Python code stands when
    it is asked, or killed by an error in C code.
    """
    faulthandler.enable(stack)
    faulthandler.register(STACK_SIGNAL, stack)
    _reset_signals()
    sys.path[:0] = settings.path
    prefer_modules_in(settings.path)
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    os.environ.update(settings.env)
    began_with.update(os.environ)
    return speech.Streams()


def _begin(connection: socket.socket, settings: Settings, streams: speech.Streams) -> None:
    """Serve until the engine closes its side."""
    sys.argv = [settings.worker]
    main(lambda: MODES[settings.lane].lane(Port(connection, streams), settings).serve())


def main(serve: Callable[[], None]) -> None:
    """In every host the lowest frame that is of interest."""
    gc.enable()  # the command line runs without, and so does a fork until it has begun
    try:
        with or_dead():
            serve()
    except KeyboardInterrupt:  # between two attempts: whoever sent it wants this host to end
        os._exit(128 + signal.SIGINT)


def _reset_signals() -> None:
    """As in any interpreter: what our parents had ignored or handled is theirs. Python itself ignores PIPE and XFSZ."""
    handled = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
    ignored = (number for number in signal.valid_signals() - _LEFT if signal.getsignal(number) is signal.SIG_IGN)
    for number in (*handled, *ignored):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def prefer_modules_in(folders: list[str]) -> None:
    """What stands beside the job file is found first, also where a module of that name is loaded already, for the engine.

    Who has imported the other one keeps it. Modules that are part of the interpreter itself cannot be replaced.
    """
    beside = {entry.removesuffix(".py") for folder in folders for entry in _entries(folder)}
    for name in [name for name in sys.modules if name.partition(".")[0] in beside - _OURS]:
        if getattr(sys.modules[name].__spec__, "origin", None) not in ("built-in", "frozen"):
            del sys.modules[name]


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # gone, or not readable: then nothing can be imported from it either
        return []


def forked(connection: socket.socket, output: int, stack: int, settings: Settings, folder: str, parent: int) -> None:
    """Where a forked host begins: tie its life to that of the engine, drop everything that was inherited, then serve."""
    _die_with(parent)
    gc.disable()
    gc.freeze()  # garbage of the engine's is never collected here: it would close what are our descriptors now, by their number
    os.setsid()
    signal.set_wakeup_fd(-1)
    _keep_only(connection.fileno(), output, stack)
    os.chdir(folder)
    streams = prepare(settings, _STACK)
    _begin(socket.socket(fileno=_CONNECTION), settings, streams)


def rehearsed(settings: Settings, streams: speech.Streams, rare: Set[str]) -> tuple[InOrder, Single]:
    """Both lanes of all hosts that this process will fork, after some calls; their connection is the descriptor 3.

    What is `rare` is imported here where the module of a target names it.

    What is made once when it is first used, and what the interpreter writes into code until it knows it, would else be copied by
    every host.
    """
    from jobrunner.host.single import Single  # the engine, which loads this module too, does without

    near, far = socket.socketpair()
    os.dup2(far.fileno(), _CONNECTION, inheritable=False)
    connection = socket.socket(fileno=_CONNECTION)
    lane, single = InOrder(Port(connection, streams), settings), Single(connection, rare)
    with near, far:
        for number in range(_REHEARSALS):
            lane.become(settings.worker, _REHEARSED % number)
            main(lane.serve)
            single.rehearse(_REHEARSED % number)
            _look_for_modules()
    lane.forget()
    return lane, single


_REHEARSALS = 12
"""The interpreter (3.11) rewrites a function for speed after eight calls."""
_REHEARSED = b'{"id":0,"target":"builtins:abs","args":[0],"env":{"JOBRUNNER_ITEM":"%d"}}'


def _look_for_modules() -> None:
    """Find one as a target is found, and read its code: folders of sys.path are looked into here, not by every host."""
    spec = PathFinder.find_spec(__name__.partition(".")[0])
    if spec is not None and (get_code := getattr(spec.loader, "get_code", None)) is not None:
        get_code(spec.name)
    PathFinder.find_spec("no_such_module")  # all folders


def cloned(run: Callable[[], None]) -> None:
    """Where a host begins that a template has forked: all is in its place, and its life is tied to that of the engine."""
    os.setsid()
    if (numpy_random := sys.modules.get("numpy.random")) is not None:  # Python's own does so itself after a fork
        with contextlib.suppress(Exception):
            numpy_random.seed()
    run()


def spawned(connection_fd: int, stack: int, parent: int) -> None:
    """Where a spawned host begins: its settings are the first line on its socket."""
    _die_with(parent)
    connection = socket.socket(fileno=connection_fd)
    for fd in (connection_fd, stack):
        os.set_inheritable(fd, False)
    line = bytearray()
    while not line.endswith(b"\n"):
        if not (piece := connection.recv(1)):
            os._exit(ENGINE_IS_GONE)
        line += piece
    settings = Settings(**json.loads(line))
    _begin(connection, settings, prepare(settings, stack))


def _die_with(parent: int) -> None:
    """A host does not outlive the engine, and what its tasks leave behind stays below it, whatever that does."""
    system.die_with(parent)
    system.become_subreaper()


_CONNECTION, _STACK, _FIRST_FREE = 3, 4, 5


def _keep_only(connection: int, output: int, stack: int) -> None:
    """Nothing to read, the output, the socket and the pipe for stacks, from 0 on; all others are closed: a sibling's copy of a
    socket would hide its death. Closed first, since the engine may have had none left."""
    end = os.sysconf("SC_OPEN_MAX")
    for below, above in itertools.pairwise((-1, *sorted((connection, output, stack)), end)):
        os.closerange(below + 1, above)
    null = os.open(os.devnull, os.O_RDONLY)
    safe = [fcntl.fcntl(fd, fcntl.F_DUPFD, _FIRST_FREE) for fd in (null, output, output, connection, stack)]
    for number, fd in enumerate(safe):
        os.dup2(fd, number, inheritable=number < _CONNECTION)
    os.closerange(_FIRST_FREE, end)
