"""The words of a command line: the options of a run as a table, from which click makes its own, and what needs no click."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from jobrunner.kinds import MODES
from jobrunner.sinks.terminal import FORMATS, LEVELS
from jobrunner.structs import struct
from jobrunner.typed import Any, Literal, TypeAlias

COMMANDS = ("run", "resume", "validate", "plan", "show", "why", "init", "schema")
QUESTION = "_JOBRUNNER_COMPLETE"
"""The variable by which the completion of a shell asks, as click names it."""

Kind: TypeAlias = Literal["flag", "switch", "text", "texts", "number", "choice", "path", "log"]
"""What an option takes: nothing; nothing, and its second word says no; a text; one each time; … ; a file to write to."""


@struct(kw_only=False)
class Option:
    """An option: `name` is its keyword, `told` its help; `completes` what a shell completes it from."""

    words: tuple[str, ...]
    name: str
    kind: Kind
    told: str
    default: str | None = None
    shows_default: bool = False
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    completes: Literal["", "tasks", "settings"] = ""


def _selecting(word: str, name: str, told: str) -> Option:
    return Option((word,), name, "texts", told, metavar="TASK", completes="tasks")


DECIDING = (
    Option(
        ("--set",),
        "settings",
        "texts",
        "Give a parameter of the job a value. Repeatable.",
        metavar="NAME=VALUE",
        completes="settings",
    ),
    Option(
        ("--params-file",),
        "params_file",
        "path",
        "Values of parameters from a YAML or JSON file. --set stands above it, JOBRUNNER_PARAM_NAME below.",
        metavar="FILE",
    ),
    Option(("-j", "--workers"), "workers", "number", "Workers of the job's default pool, instead of the file's.", metavar="N"),
    Option(("--mode",), "mode", "choice", "Mode of the job's default pool.", choices=MODES),
    _selecting("--only", "only", "Run only this task, without what it needs. Repeatable."),
    _selecting("--from", "start_from", "Run this task and all that needs it. Repeatable."),
    _selecting("--until", "until", "Run this task and all that it needs. Repeatable."),
    _selecting("--skip", "skip", "Leave this task out; what needs it runs all the same. Repeatable."),
    Option(("--force",), "force", "flag", "Run tasks also where their cache says that nothing has changed."),
    Option(
        ("--fail-fast", "--keep-going"),
        "fail_fast",
        "switch",
        "After a failure stop everything, or go on with independent tasks.",
    ),
)
"""What decides what a run does."""

DURABILITY = Option(
    ("--durability",),
    "durability",
    "choice",
    "What the record of finished tasks outlives: the death of this process, or a loss of power too.",
    default="disk",
    shows_default=True,
    choices=("process", "disk"),
)
"""What a run and a resume both decide."""

SHOWING = (
    Option(
        ("-q", "--quiet"),
        "quiet",
        "flag",
        "Print nothing unless the run fails, then the summary. --log-file gets its log all the same.",
    ),
    Option(
        ("--log-format",),
        "log_format",
        "choice",
        "auto: console on a terminal, else json.",
        default="auto",
        shows_default=True,
        choices=FORMATS,
    ),
    Option(("--log-level",), "log_level", "choice", "Least level that is logged.  [default: info]", choices=tuple(LEVELS)),
    Option(("--log-file",), "log_file", "log", "Append the log to FILE instead of stderr.", metavar="FILE"),
)
"""What decides what of a run is shown, and where."""

RESUMING = Option(("--resume",), "resume", "flag", "Go on with the last run of this job if it was stopped or killed, else start.")


def is_for_run(first: str) -> bool:
    """Whether a command line that begins so is one of `run`, which need not be said."""
    if first in COMMANDS or first in ("--help", "-h", "--version"):
        return False
    return first.startswith("-") or first.endswith((".yaml", ".yml")) or os.sep in first or os.path.exists(first)


def arguments(words: list[str]) -> dict[str, Any] | None:
    """The arguments of a run by their keywords, as click would give them; None for what click has to answer itself.

    That is everything else than a run, what asks for help, and whatever may be a mistake.
    """
    if not words or not (words[0] == "run" or is_for_run(words[0])):
        return None
    options = (*DECIDING, RESUMING, DURABILITY, *SHOWING)
    found: dict[str, Any] = {each.name: _DEFAULTS.get(each.kind, each.default) for each in options}
    known = {word: each for each in options for word in each.words}
    files = []
    rest = iter(words[words[0] == "run" :])
    for word in rest:
        if not word.startswith("-"):
            files.append(word)
        elif not _take(word, rest, known, found):
            return None
    return {"file": files[0], **found} if len(files) == 1 and files[0] else None


_DEFAULTS: dict[str, Any] = {"flag": False, "texts": ()}


def _take(word: str, rest: Iterator[str], known: dict[str, Option], found: dict[str, Any]) -> bool:
    """Note what an option says; False where it may be a mistake."""
    name, has_value, value = word.partition("=") if word.startswith("--") else (word, "", "")
    option = known.get(name)
    if option is None:
        return False
    if option.kind in ("flag", "switch"):
        found[option.name] = name == option.words[0] or option.kind == "flag"
        return not has_value
    value = value if has_value else next(rest, "")
    if not value or value.startswith("-") or not _FITS[option.kind](value, option):
        return False
    match option.kind:
        case "texts":
            found[option.name] = (*found[option.name], value)
        case "number":
            found[option.name] = int(value)
        case _:
            found[option.name] = value
    return True


_FITS: dict[str, Callable[[str, Option], bool]] = {
    "path": lambda value, _: True,
    "texts": lambda value, option: option.completes != "settings" or value.find("=") > 0,
    "number": lambda value, _: value.isascii() and value.isdecimal() and len(value) < 10,
    "choice": lambda value, option: value in option.choices,
    "log": lambda value, _: not os.path.lexists(value) or (not os.path.isdir(value) and os.access(value, os.R_OK)),
}
"""Whether a value surely is none that click refuses."""


def pairs(settings: tuple[str, ...]) -> dict[str, str]:
    """Parameters by name, of words like NAME=VALUE."""
    return {name: value for name, _, value in (setting.partition("=") for setting in settings)}
