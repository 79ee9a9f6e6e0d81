"""`python -m jobrunner` and the `jobrunner` command."""

from __future__ import annotations

import gc
import os
import signal
import sys

_RUNS_NOTHING = ("validate", "plan", "schema", "show", "init", "why", "-h", "--help", "--version")
"""First words of a command line that starts no task, and needs no guard."""


def main() -> None:
    """Run the command line and exit with its code: under a guard, if it may start tasks.

    The collector is off while modules are imported (a run turns it on again), and the interpreter is not taken apart at the
    end: together a fifth of the time of a short run.
    """
    gc.disable()
    from jobrunner import finding

    finding.install()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the engine listens there is nothing to tidy up: just end
    os._exit(_guarded() if sys.argv[1:] and sys.argv[1] not in _RUNS_NOTHING else _command_line())


def _guarded() -> int:
    from jobrunner.guard import supervise_twice

    return supervise_twice(_command_line)


def _command_line() -> int:
    from jobrunner import finding
    from jobrunner.cli.main import cli

    finding.load_paths()
    code = cli()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed, broken, or never there
            continue
    return code


if __name__ == "__main__":
    main()
