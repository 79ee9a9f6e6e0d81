"""The template: a lean process that forks hosts for the engine, which stays their parent. Standard library only.

    engine ──name of a worker, descriptors of its host──▶ template ──pid, or minus the number of an error──▶ engine
      └──────── waits for, signals, reaps ──────▶ host ◀────┘

A fork costs what the process has in memory, when it begins and again when it ends: of the engine tens of megabytes, hundreds with
a large plan. What the hosts of a pool have in common is done here once.
"""

from __future__ import annotations

import errno
import gc
import json
import mmap
import multiprocessing.context
import multiprocessing.util  # else every host would do it
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from jobrunner import cloning, host, system

LONGEST = 1 << 17
"""Bytes of a message."""
READY = b"ready"
SLOT = 4096
"""Bytes of the memory that is shared with the engine, in which the system itself writes the pid of a host."""
_CONTROL, _STACK, _FIRST_FREE = 3, 4, 5
_DESCRIPTORS = 3
_HAS_THREADS = 72
_PARENT_NAME = "MainProcess"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the hosts of a template have in common. `mark` is a file that they have mapped, if there is one."""

    host: host.Settings
    mark: str


def serve(control_fd: int, slot_fd: int, engine: int) -> NoReturn:
    """Fork hosts until the engine closes its side. A failure ends this process: then the engine forks them itself."""
    system.die_with(engine)
    slot = mmap.mmap(slot_fd, SLOT)
    control = _settled(control_fd)
    received = json.loads(control.recv(LONGEST))
    settings = host.Settings(**received["host"])
    mark = _mapped(received["mark"])
    host.prepare(settings, _STACK)
    fork = cloning.forker(slot)
    if len(os.listdir("/proc/self/task")) > 1:  # what stands in site-packages may start some
        os._exit(_HAS_THREADS)
    gc.collect()
    gc.freeze()
    control.send(READY)
    _fork_hosts(control, fork, settings, engine)
    os._exit(mark is slot)  # both have lived until here


def _settled(control_fd: int) -> socket.socket:
    """Its socket; in the place of a host's pipe for stacks there is nothing. All else that was inherited is closed."""
    for number, fd in ((_CONTROL, control_fd), (_STACK, 0)):
        if fd != number:
            os.dup2(fd, number, inheritable=False)
    os.closerange(_FIRST_FREE, os.sysconf("SC_OPEN_MAX"))
    return socket.socket(fileno=_CONTROL)


def _mapped(mark: str) -> mmap.mmap | None:
    """By it a host is found whatever it has made of its environment."""
    try:
        with open(mark, "rb") as file:
            return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    except (OSError, ValueError):
        return None


def _fork_hosts(control: socket.socket, fork: Callable[[], int], settings: host.Settings, engine: int) -> None:
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, LONGEST, _DESCRIPTORS)
        if not data:
            return
        try:
            pid = fork()
        except OSError as error:
            pid = -(error.errno or errno.EAGAIN)
        if pid == 0:
            worker, number = json.loads(data)
            _be_host(worker, number, settings, descriptors, engine)
        control.send(b"%d" % pid)
        for fd in descriptors:
            os.close(fd)


def _be_host(worker: str, number: int, settings: host.Settings, descriptors: list[int], engine: int) -> NoReturn:
    """As multiprocessing begins a process, and ends it."""
    code = 1
    try:
        connection, output, stack = descriptors
        mine = replace(settings, worker=worker, pool=worker)
        process: Any = multiprocessing.context.ForkProcess(
            target=host.cloned, args=(connection, output, stack, mine, engine), name=worker
        )
        process._identity, process._parent_pid, process._parent_name = (number,), engine, _PARENT_NAME
        code = process._bootstrap(parent_sentinel=None)
    finally:
        os._exit(code)
