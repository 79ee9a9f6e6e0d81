"""The group of all commands, as click has it."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from jobrunner import __version__
from jobrunner.cli.words import COMMANDS, is_for_run
from jobrunner.hints import did_you_mean

__all__ = ["Cli", "jobrunner"]


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
        return super().parse_args(ctx, ["run", *args] if args and is_for_run(args[0]) else args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Commands, and job files: bash shows files where no command begins so."""
        return [CompletionItem(incomplete, type="file"), *super().shell_complete(ctx, incomplete)]

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not ctx.resilient_parsing:
            hint = did_you_mean(args[0], COMMANDS) or "Commands: " + ", ".join(COMMANDS)
            ctx.fail(f"{args[0]!r} is neither a command nor a job file. {hint}")
        return super().resolve_command(ctx, args)


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
