"""The lane of `executor`: calls go to any PEP 3148 executor."""

from __future__ import annotations

import os
import time

from jobrunner import speech
from jobrunner.host.lane import Settings
from jobrunner.host.port import Port
from jobrunner.typed import TYPE_CHECKING
from jobrunner.work import Call, Outcome, Result, describe, resolve, run

if TYPE_CHECKING:  # only one lane needs them, and they load much that would be copied by every host
    from concurrent.futures import Executor, Future


class Foreign:
    """`executor: module:factory`: any PEP 3148 executor. Its workers are its own; here is one, the executor itself."""

    def __init__(self, port: Port, settings: Settings) -> None:
        self._port, self._settings = port, settings
        self._worker = settings.worker
        self._executor: Executor | None = None

    def serve(self) -> None:
        speech.install()
        started, tasks = time.monotonic(), 0
        for call in self._port.calls():
            tasks += 1
            self._port.began(call, self._worker)
            self._submit(call)
        if self._executor is not None:
            self._executor.shutdown(wait=True)
        self._port.joined(self._worker, None, tasks, time.monotonic() - started)

    def _submit(self, call: Call) -> None:
        from concurrent.futures import BrokenExecutor

        try:
            if self._executor is None:
                self._executor = resolve(self._settings.executor)(max_workers=self._settings.workers)
            executor = self._executor
            future = executor.submit(run_speaking, call)
        except BrokenExecutor:
            self._executor = None
            self._submit(call)
        except BaseException as error:  # a factory may raise anything; the attempt tells
            self._port.ended(Result(id=call.id, outcome=Outcome.FAILED, error=describe(error)))
        else:
            future.add_done_callback(lambda done: self._collect(call, done, executor))

    def _collect(self, call: Call, future: Future[tuple[Result, str]], executor: Executor) -> None:
        from concurrent.futures import BrokenExecutor

        try:
            result, text = future.result()
        except BrokenExecutor as error:
            if self._executor is executor:  # it will never run anything again: the next call gets a new one
                self._executor = None
            self._port.ended(Result(id=call.id, outcome=Outcome.CRASHED, error=describe(error)))
        except BaseException as error:  # whatever an executor answers is this attempt's ending
            self._port.ended(Result(id=call.id, outcome=Outcome.FAILED, error=describe(error)))
        else:
            if text:
                self._port.said(call.id, text)
            self._port.ended(result)


def run_speaking(call: Call) -> tuple[Result, str]:
    """`work.run` for an executor's worker, wherever it is: the Result, and what the target printed."""
    speech.install()
    said: list[str] = []
    pid = os.getpid()
    with speech.Voice(said.append):
        result = run(call, time.thread_time)
    if os.getpid() != pid:  # a fork that returned in the child too: a second worker would take the first one's calls
        os._exit(0)
    return result, "".join(said)
