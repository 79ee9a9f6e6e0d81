"""The host of one attempt that a template forks with its call: what can be done before the fork is done there, once.

    template: take the call in, encode its variables ─fork─▶ host: run it, tell, end

After a fork each object that Python touches costs a page of memory that is copied, 2 to 4 µs, since its count of references
changes. So what such a host does is little, and in one place. A call with limits goes the way of all others (InOrder).
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Set

from jobrunner.host import frames
from jobrunner.host.in_order import could_not_start
from jobrunner.host.lane import CANNOT_SERVE
from jobrunner.host.port import ENGINE_IS_GONE
from jobrunner.host.resources import MAX_RSS_UNIT
from jobrunner.host.shelf import Shelf
from jobrunner.typed import Any
from jobrunner.work import Call, Outcome, Result, run


class Single:
    """What each such host is: made once, by the template, whose descriptor for a connection is the host's too."""

    def __init__(self, connection: socket.socket, rare: Set[str]) -> None:
        self._connection, self._folder = connection, os.getcwd()
        self._variables: Any = getattr(os.environ, "_data", None)
        """What `os.environ` takes for the variables of the process."""
        self._had = dict(os.environ)
        self._shelf = Shelf(rare)
        self._call = Call(0, "")
        self._environment: list[tuple[bytes, bytes]] = []

    def become(self, line: bytes) -> bool:
        """Be the host of this call, in the process that forks it. False for one that has to go the other way."""
        if not line or getattr(os.environ, "_data", self) is not self._variables:  # a module may have put another one there
            return False
        fields = frames.fields_of(line)
        if "resources" in fields:
            return False
        get, call = fields.get, self._call
        call.id, call.target, call.args = fields["id"], fields["target"], fields["args"]
        call.kwargs, call.cwd, call.needed = get("kwargs") or {}, get("cwd", ""), get("needed", False)
        environment, had = [], self._had
        for name, value in fields["env"].items():
            if had.get(name) != value:
                environment.append((os.fsencode(name), os.fsencode(value)))
        self._environment = environment
        self._shelf.look(call.target)
        return True

    def rehearse(self, line: bytes) -> None:
        """What is made once when it is first used, and what the interpreter writes into code until it knows it, is made here."""
        self.become(line)
        self.attempt(os.getpid())
        self._shelf.rehearse()

    def main(self) -> None:
        """Run the call, in the process that was forked for it. What modules and threads want to do at its end is left to do."""
        gc.enable()
        try:
            self.attempt(os.getpid())
        except KeyboardInterrupt:  # not while the target runs: whoever sent it wants this host to end
            os._exit(128 + signal.SIGINT)
        except BaseException:
            traceback.print_exc()
            os._exit(CANNOT_SERVE)

    def attempt(self, pid: int) -> None:
        """Ends this process where a fork by the target has returned in its child too: that must not speak for this host."""
        call, variables = self._call, self._variables
        try:
            os.chdir(call.cwd or self._folder)
            for name, value in self._environment:
                os.putenv(name, value)
                variables[name] = value
        except (OSError, ValueError) as error:
            result = Result(id=call.id, outcome=Outcome.FAILED, error=could_not_start(error))
        else:
            result = run(call)
        signal.alarm(0)  # one that the target has set must not ring before all is told
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:  # whatever a target left in their place may raise anything
                continue
        if os.getpid() != pid:
            os._exit(0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAX_RSS_UNIT
        try:
            self._connection.sendall(frames.result_frame(result, peak))
        except OSError:
            os._exit(ENGINE_IS_GONE)
