"""The `jobrunner` command and its subcommands; `jobrunner FILE` is `jobrunner run FILE`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from jobrunner import __version__
from jobrunner.cli.inspect import plan, schema, validate
from jobrunner.cli.run import run
from jobrunner.errors import JobrunnerError
from jobrunner.hints import did_you_mean

_BUG = 70
_BROKEN_PIPE = 141  # as a shell reports a death by SIGPIPE


class Cli(click.Group):
    """A group whose default command is `run`, and whose mistakes are answered with what was probably meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and self._is_for_run(args[0]):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def _is_for_run(self, first: str) -> bool:
        if first in self.commands or first in ("--help", "-h", "--version"):
            return False
        return first.startswith("-") or first.endswith((".yaml", ".yml")) or os.sep in first or os.path.exists(first)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            hint = did_you_mean(args[0], self.commands) or "Commands: " + ", ".join(self.commands)
            ctx.fail(f"{args[0]!r} is neither a command nor a job file. {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="jobrunner", message="%(prog)s %(version)s")
def jobrunner() -> None:
    """Run the tasks of a job file in threads, processes, pools or as commands.

    \b
    jobrunner jobs/nightly.yaml                  run it
    jobrunner jobs/nightly.yaml --set root=/srv  with a parameter
    jobrunner validate jobs/nightly.yaml         check it, run nothing
    jobrunner plan jobs/nightly.yaml             show what would run

    Task output and the summary go to stdout, the log to stderr: console text on a terminal, JSON lines elsewhere.

    \b
    Exit codes: 0 all succeeded · 1 something failed · 2 bad job file or usage, nothing ran
      70 a bug of jobrunner · 74 no state directory · 77 unsafe permissions · 124 the job's timeout
      129, 130, 143 stopped by HUP, INT, TERM
    """


for command in (run, validate, plan, schema):
    jobrunner.add_command(command)


def cli(args: list[str] | None = None) -> int:
    """Run the command line; the exit code. Mistakes are told on stderr in a line or two, never as a traceback."""
    try:
        code: Any = jobrunner.main(args=args, prog_name="jobrunner", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except JobrunnerError as error:
        _tell(str(error))
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _BROKEN_PIPE
    except Exception:  # whatever it is, it is ours: never exit code 0 or 1 by accident
        import traceback

        _tell(f"{traceback.format_exc()}\nThis is a bug of jobrunner {__version__}.")
        return _BUG


def _tell(text: str) -> None:
    if sys.stderr is not None:
        click.echo(text, err=True)
