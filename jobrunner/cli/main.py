"""The `jobrunner` command and its subcommands; `jobrunner FILE` is `jobrunner run FILE`."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Any

import click
from click.shell_completion import CompletionItem

from jobrunner import __version__
from jobrunner.cli import completion
from jobrunner.errors import JobrunnerError
from jobrunner.hints import did_you_mean

COMMANDS = ("run", "resume", "validate", "plan", "show", "why", "init", "schema")

_BUG = 70
_CANNOT_WRITE = 74  # EX_IOERR of sysexits.h
_INTERRUPTED = 130
_BROKEN_PIPE = 141  # as a shell reports a death by SIGPIPE


class Cli(click.Group):
    """A group whose default command is `run`, and whose mistakes are answered with what was probably meant.

    A command's module is imported when the command is asked for: `validate` does not pay for the engine.
    """

    def list_commands(self, _: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _: click.Context, cmd_name: str) -> click.Command | None:
        match cmd_name:
            case "run":
                from jobrunner.cli.run import run

                return run
            case "resume":
                from jobrunner.cli.resume import resume

                return resume
            case "validate":
                from jobrunner.cli.validate import validate

                return validate
            case "plan" | "schema":
                from jobrunner.cli import inspect

                return {"plan": inspect.plan, "schema": inspect.schema}[cmd_name]
            case "show":
                from jobrunner.cli.show import show

                return show
            case "why":
                from jobrunner.cli.why import why

                return why
            case "init":
                from jobrunner.cli.init import init

                return init
        return None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["run", *args] if args and _is_for_run(args[0]) else args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Commands, and job files: bash shows files where no command begins so."""
        return [CompletionItem(incomplete, type="file"), *super().shell_complete(ctx, incomplete)]

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not ctx.resilient_parsing:
            hint = did_you_mean(args[0], COMMANDS) or "Commands: " + ", ".join(COMMANDS)
            ctx.fail(f"{args[0]!r} is neither a command nor a job file. {hint}")
        return super().resolve_command(ctx, args)


def _is_for_run(first: str) -> bool:
    if first in COMMANDS or first in ("--help", "-h", "--version"):
        return False
    return first.startswith("-") or first.endswith((".yaml", ".yml")) or os.sep in first or os.path.exists(first)


@click.group(cls=Cli, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="jobrunner", message="%(prog)s %(version)s")
def jobrunner() -> None:
    """Run the tasks of a job file in threads, processes, pools or as commands.

    \b
    jobrunner jobs/nightly.yaml                  run it (the same as `jobrunner run …`)
    jobrunner jobs/nightly.yaml --set root=/srv  with a parameter
    jobrunner validate jobs/*.yaml               check them, run nothing
    jobrunner show jobs/nightly.yaml             what it is: parameters, tasks, pools
    jobrunner plan jobs/nightly.yaml             show what would run
    jobrunner resume                             go on with the last run that was stopped or killed
    jobrunner init                               write a first job file

    What tasks print and the summary go to stdout, the log to stderr: console text on a terminal, JSON lines elsewhere.

    \b
    Completion, also of tasks and parameters (zsh_source, fish_source for other shells), in ~/.bashrc:
      eval "$(_JOBRUNNER_COMPLETE=bash_source jobrunner)"

    \b
    Exit codes:
      0    every task succeeded, or its failure was allowed
      1    a task failed, timed out, crashed, or was skipped because of one
      2    bad job file or usage; nothing ran
      70   a bug of jobrunner, or its process was killed
      74   the journal cannot be written
      75   it is running already
      77   the job file or the state directory could be changed by others; nothing ran
      124  the job's own timeout
      129, 130, 143  stopped by HUP, INT, TERM
    """


def cli(args: list[str] | None = None) -> int:
    """Run the command line; the exit code. Mistakes are told on stderr in a line or two, never as a traceback."""
    _open_standard_streams()
    if args is None and (question := os.environ.get(completion.VARIABLE)):
        return completion.answer(jobrunner, "jobrunner", question)
    try:
        code: Any = jobrunner.main(args=args, prog_name="jobrunner", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        with contextlib.suppress(OSError):  # nobody can be told; the exit code still tells
            error.show()
        return error.exit_code
    except click.Abort:
        return _INTERRUPTED
    except JobrunnerError as error:
        _tell(str(error))
        return error.exit_code
    except SystemExit:  # click's answer to a reader of our output that has gone away
        return _BROKEN_PIPE
    except Exception as error:  # whatever it is: never exit code 0 or 1 by accident
        return _unwritten(error) or _bug()


def _open_standard_streams() -> None:
    """Where 0, 1 or 2 was closed by who started us, the next pipe would get its number, and a child its output there.

    They never close their descriptors: in a forked worker those numbers are its own, and it puts streams of its own in place.
    """
    for name, mode, flags in (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_WRONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, flags), mode, encoding="utf-8", closefd=False))  # noqa: SIM115


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
    with contextlib.suppress(OSError):
        click.echo(text, err=True)
