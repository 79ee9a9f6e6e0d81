"""The `jobrunner` command: what runs a job in the usual way is understood here, everything else by click.

words ─▶ words.arguments ─▶ running.run          a run: click, and what it needs itself, would take as long as all the rest
   └─ None: help, a mistake, another command ─▶ group ─▶ the command
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from jobrunner import __version__
from jobrunner.cli.words import COMMANDS, QUESTION, arguments
from jobrunner.errors import JobrunnerError
from jobrunner.typed import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobrunner.cli.group import jobrunner

__all__ = ["COMMANDS", "cli", "jobrunner"]

_BUG = 70
_CANNOT_WRITE = 74  # EX_IOERR of sysexits.h
_INTERRUPTED = 130
_BROKEN_PIPE = 141  # as a shell reports a death by SIGPIPE


def __getattr__(name: str) -> Any:
    if name != "jobrunner":
        raise AttributeError(f"module 'jobrunner.cli.main' has no attribute {name!r}")
    from jobrunner.cli.group import jobrunner

    return jobrunner


def cli(args: list[str] | None = None) -> int:
    """Run the command line; the exit code. Mistakes are told on stderr in a line or two, never as a traceback."""
    _open_standard_streams()
    if args is None and (question := os.environ.get(QUESTION)):
        from jobrunner.cli import completion
        from jobrunner.cli.group import jobrunner

        return completion.answer(jobrunner, "jobrunner", question)
    try:
        return _run(sys.argv[1:] if args is None else args)
    except JobrunnerError as error:
        return _refused(error.__context__) or _mistaken(error)
    except Exception as error:  # whatever it is: never exit code 0 or 1 by accident
        return _refused(error) or _unwritten(error) or _bug()


def _run(words: list[str]) -> int:
    try:
        return _tell_version() if words == ["--version"] else _run_job(words)
    except (EOFError, KeyboardInterrupt):
        _tell("")
        return _INTERRUPTED
    except BrokenPipeError:
        return _BROKEN_PIPE


def _tell_version() -> int:
    """As click would."""
    sys.stdout.write(f"jobrunner {__version__}\n")
    sys.stdout.flush()
    return 0


def _run_job(words: list[str]) -> int:
    given = arguments(words)
    if given is None:
        return _by_click(words)
    from jobrunner.cli import running

    try:
        return running.run(**given)
    except running.UnusableLog:
        return _by_click(words)


def _by_click(words: list[str]) -> int:
    import click

    from jobrunner.cli.group import jobrunner

    try:
        code: Any = jobrunner.main(args=words, prog_name="jobrunner", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        with contextlib.suppress(OSError):  # nobody can be told; the exit code still tells
            error.show()
        return error.exit_code
    except click.Abort:
        return _INTERRUPTED
    except SystemExit:  # click's answer to a reader of our output that has gone away
        return _BROKEN_PIPE


def _open_standard_streams() -> None:
    """Where 0, 1 or 2 was closed by who started us, the next pipe would get its number, and a child its output there.

    They never close their descriptors: in a forked worker those numbers are its own, and it puts streams of its own in place.
    """
    for name, mode, flags in (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_WRONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, flags), mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _mistaken(error: JobrunnerError) -> int:
    _tell(str(error))
    return error.exit_code


def _refused(error: BaseException | None) -> int:
    """The exit code where a limit is too low for the run itself, whatever it was about to do; else 0."""
    if not isinstance(error, (OSError, MemoryError, ImportError)):
        return 0
    from jobrunner import refused

    if words := refused.words(error):
        _tell(f"jobrunner: {words}")
        return refused.EXIT
    return 0


def _unwritten(error: Exception) -> int:
    """The exit code where it was our own output that could not be written, else 0."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
        return 0
    _tell(f"jobrunner: cannot write: {error.strerror}")
    return _CANNOT_WRITE


def _bug() -> int:
    import traceback

    _tell(f"{traceback.format_exc()}\nThis is a bug of jobrunner {__version__}.")
    return _BUG


def _tell(text: str) -> None:
    import click

    with contextlib.suppress(OSError):
        click.echo(text, err=True)
