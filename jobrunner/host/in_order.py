"""The lane of `serial`, `process` and `process_pool`: one call after the other, in the main thread."""

from __future__ import annotations

import math
import os
import resource
import signal
import time
from collections.abc import Iterable

from jobrunner.host import frames, resources
from jobrunner.host.lane import Settings, began_with
from jobrunner.host.port import Port
from jobrunner.work import Call, Error, Outcome, Result, kinds, run

_PEAK_AFTER = 0.001
"""Seconds for which the peak of a host's memory is not asked for again: calls that are shorter take little."""

_UNKNOWN = {b"=": b""}
"""No environment has it."""


class InOrder:
    """`serial`, `process` and `process_pool`: in the main thread of this process, one at a time."""

    def __init__(self, port: Port, settings: Settings) -> None:
        self._port, self._worker = port, settings.worker
        self._first: Call | None = None
        """Of a host of one attempt that was forked with it."""
        self._folder, self._base_env = os.getcwd(), began_with
        self._env: dict[str, str] = {}
        self._kept: dict[bytes, bytes] = {}
        """The same as the system has it, for as long as no call has changed it."""
        self._last_peak, self._peak_at = 0, -math.inf

    def become(self, worker: str, line: bytes) -> None:
        """Be the lane of `worker`, in the process that forks it. `line` is its call, or b"" where that is still to come."""
        self._worker = worker
        self._first = frames.call_of(line) if line else None

    def forget(self) -> None:
        """Take the environment of the last call back."""
        self._set_environment({})

    def serve(self) -> None:
        self._port.is_here()
        try:
            if self._first is not None:
                self._run(self._first)  # who has started it with its call knows that it has begun
                return
            for call in self._port.calls():
                self._port.began(call, self._worker)
                self._run(call)
        finally:
            self._port.flush()

    def _run(self, call: Call) -> None:
        try:
            self._prepare(call)
        except (OSError, ValueError) as error:
            result = Result(id=call.id, outcome=Outcome.FAILED, error=could_not_start(error))
        else:
            result = resources.run_limited(call, call.resources.memory) if call.resources and call.resources.memory else run(call)
        signal.alarm(0)  # an alarm that this attempt set must not ring in the next
        self._port.streams.restore()
        self._port.ended_before_next(result, self._peak())

    def _peak(self) -> int:
        """Bytes. Asked for after every call that may have changed it by much: the system takes as long for it as for all else."""
        now = time.monotonic()
        if now - self._peak_at >= _PEAK_AFTER:
            self._last_peak, self._peak_at = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * resources.MAX_RSS_UNIT, now
        return self._last_peak

    def _prepare(self, call: Call) -> None:
        """The working directory and environment of this attempt; those of the one before it are taken back."""
        os.chdir(call.cwd or self._folder)
        self._set_environment(call.env)
        if call.resources is not None:
            resources.take_on(call.resources)

    def _set_environment(self, env: dict[str, str]) -> None:
        """What is as it was for the call before is not set again, unless that has changed it."""
        was, kept = self._env, self._kept
        is_as_set = (
            kept.items() <= getattr(os.environ, "_data", {}).items()
        )  # to ask for each by its name takes four times as long
        changed = env.items() - was.items() if is_as_set else env.items()
        self._env, self._kept = env, _UNKNOWN  # until all is set
        if not is_as_set:
            kept = {}
        if was.keys() != env.keys():
            self._put_back(was.keys() - env.keys(), kept)
        for name, value in changed:
            key, data = os.fsencode(name), os.fsencode(value)
            os.environb[key] = kept[key] = data
        self._kept = kept

    def _put_back(self, names: Iterable[str], kept: dict[bytes, bytes]) -> None:
        for name in names:
            kept.pop(os.fsencode(name), None)
            os.environ.pop(name, None)
            if name in self._base_env:
                os.environ[name] = self._base_env[name]


def could_not_start(error: OSError | ValueError) -> Error:
    """Its folder cannot be entered, its environment holds what none can hold (a NUL), or there is not what it may use."""
    match error:
        case OSError(strerror=None):
            why = str(error)
        case OSError():
            why = f"{error.strerror}: {error.filename}"
        case _:
            why = f"env or cwd: {error}"
    return Error(type=type(error).__name__, message=f"could not start: {why}", kinds=kinds(type(error)))
