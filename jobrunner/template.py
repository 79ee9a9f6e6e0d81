"""The template: a lean process that forks hosts for the engine, which stays their parent. Standard library only.

    engine ──name of a worker, descriptors of its host──▶ template ──pid, or minus the number of an error──▶ engine
      └──────── waits for, signals, reaps ──────▶ host ◀────┘

A fork costs what the process has in memory, when it begins and again when it ends: of the engine tens of megabytes, hundreds with
a large plan. What the hosts of a pool have in common is done here once.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import mmap
import multiprocessing.context
import multiprocessing.util  # else every host would do it
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from jobrunner import cloning, host, system
from jobrunner.structs import struct

LONGEST = 1 << 17
"""Bytes of a message."""
READY = b"ready"
SLOT = 4096
"""Bytes of the memory that is shared with the engine, in which the system itself writes the pid of a host."""
_CONTROL, _STACK, _FIRST_FREE = 3, 4, 5
_DESCRIPTORS = 3
_HAS_THREADS = 72


@struct
class Settings:
    """What the hosts of a template have in common. `mark` is a file that they have mapped, if there is one."""

    host: host.Settings
    mark: str
    modules: list[str]
    """Of the standard library, loaded here once: a host that was forked from the engine itself has them too."""


def serve(control_fd: int, slot_fd: int, engine: int) -> NoReturn:
    """Fork hosts until the engine closes its side. A failure ends this process: then the engine forks them itself."""
    system.die_with(engine)
    slot = mmap.mmap(slot_fd, SLOT)
    control = _settled(control_fd)
    received = json.loads(control.recv(LONGEST))
    common, mark = received["host"], _mapped(received["mark"])
    for name in received["modules"]:
        with contextlib.suppress(Exception):  # whoever needs it will be told
            importlib.import_module(name)
    # It begins as a process of multiprocessing does, for all hosts, and each host ends so: forked in the middle of `run`.
    process: Any = multiprocessing.context.ForkProcess(target=_run)
    process._args = (process, control, cloning.forker(slot), common, engine)
    process._parent_pid = engine
    code = 1
    try:
        code = process._bootstrap(parent_sentinel=None)
    finally:
        os._exit(code if mark is not slot else 1)  # until here both are mapped


def _settled(control_fd: int) -> socket.socket:
    """Its socket; in the place of a host's pipe for stacks there is nothing. All else that was inherited is closed.

    What is the output of a host leads nowhere, but is a pipe as that is: streams that are opened on it do for both.
    """
    for number, fd in ((_CONTROL, control_fd), (_STACK, 0)):
        if fd != number:
            os.dup2(fd, number, inheritable=False)
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


def _run(process: Any, control: socket.socket, fork: Callable[[], int], common: dict[str, Any], engine: int) -> None:
    """In the template until the engine closes its side; in a host until that has ended. `common` are the settings of all."""
    settings = host.Settings(**common)
    streams = host.prepare(settings, _STACK)
    host.rehearse(settings, streams)
    if len(os.listdir("/proc/self/task")) > 1:  # what stands in site-packages may start some
        os._exit(_HAS_THREADS)
    gc.collect()
    gc.freeze()
    control.send(READY)
    while received := _received(control):
        order, descriptors = received
        pid = _answered(control, fork)
        if pid == 0:
            name, process._identity = order
            process._name = name
            threading.main_thread()._set_native_id()  # type: ignore[attr-defined]
            host.cloned(descriptors, host.Settings(**{**common, "worker": name, "pool": name}), streams, engine)
            break
        for fd in descriptors:
            os.close(fd)


def _received(control: socket.socket) -> tuple[tuple[str, tuple[int]], list[int]] | None:
    data, descriptors, _, _ = socket.recv_fds(control, LONGEST, _DESCRIPTORS)
    if not data:
        return None
    name, number = json.loads(data)
    return (name, (number,)), descriptors


def _answered(control: socket.socket, fork: Callable[[], int]) -> int:
    """Fork, and tell the engine; what fork returned, or minus the number of the error."""
    try:
        pid = fork()
    except OSError as error:
        pid = -(error.errno or errno.EAGAIN)
    if pid:
        control.send(b"%d" % pid)
    return pid
