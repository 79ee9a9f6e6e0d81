"""A crontab, line by line: what cron would start, when, and with which environment, as job files that do the same.

text ─parse─→ Entry …  ─named─→ (name, Entry) … ─job_text─→ YAML text
          └─→ Refused …
Written from crontab(5): where cron implementations differ, Debian's and cronie's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from jobrunner.starter import modelines, scalar
from jobrunner.structs import field, struct

_NICKNAMES: Final = {
    **dict.fromkeys(("@yearly", "@annually"), "0 0 1 1 *"),
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    **dict.fromkeys(("@daily", "@midnight"), "0 0 * * *"),
    "@hourly": "0 * * * *",
    "@reboot": "",
}
_VARIABLE: Final = r"""(?:"([^"]*)"|'([^']*)'|([^\s"'=#*@][^\s"'=]*))\s*=\s*(.*?)\s*"""
_ENV_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_FIVE_FIELDS: Final = r"((?:\S+\s+){4}\S+)\s+(.*)"
_CRON_TIME: Final = r"(?:@[a-z]+|(?:[0-9*~,/-]+\s+){4}\S+)\s+\S"
_HEADERS: Final = r"m\s+h\s+dom|minute\s+hour|DO NOT EDIT|\(.*installed on |\(Cron version|Edit this file to introduce"
_OWN: Final = frozenset({"SHELL", "MAILTO", "MAILFROM", "CRON_TZ", "RANDOM_DELAY", "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING"})
"""Variables that speak to cron itself."""


@struct
class Entry:
    """One line of a crontab that starts something. `cron` is its five fields, empty for @reboot; `stdin` what it is fed."""

    line: int
    cron: str
    command: str
    stdin: str | None = None
    user: str = ""
    description: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    """The variables that stand above it, cron's own among them."""

    @property
    def env(self) -> dict[str, str]:
        """What the command gets; HOME is where it starts, too."""
        return {name: text for name, text in self.settings.items() if name not in _OWN}


@struct
class Refused:
    """A line that is not turned into a job, and why. Lines count from 1."""

    line: int
    why: str


# --- text → entries ----------------------------------------------------------------------------------------------------------


def parse(text: str, *, is_system: bool = False) -> tuple[list[Entry], list[Refused]]:
    """The entries of a crontab, and the lines that are none. The lines of a system crontab name a user before the command."""
    entries: list[Entry] = []
    refused: list[Refused] = []
    settings: dict[str, str] = {}
    comments: list[str] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.removesuffix("\r").strip(" \t")
        if line.startswith("#"):
            comments.append(line.lstrip("#").strip())
            continue
        if match := re.fullmatch(_VARIABLE, line):
            refused += _set(settings, match, number)
        elif line:
            found = _entry(line, number, is_system=is_system)
            if isinstance(found, Entry):
                entries.append(replace(found, description=_description(comments), settings=dict(settings)))
            else:
                refused.append(found)
        comments = []
    return entries, refused


def _set(settings: dict[str, str], match: re.Match[str], number: int) -> Iterator[Refused]:
    """A variable for all lines below; quotes keep the blanks at the ends of its value."""
    name = next(part for part in match.groups()[:3] if part is not None)
    text = match[4]
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    if re.fullmatch(_ENV_NAME, name):
        settings[name] = text
    else:
        yield Refused(line=number, why=f"{name!r} is not the name of an environment variable")


def _entry(line: str, number: int, *, is_system: bool) -> Entry | Refused:
    if any("\ud800" <= char <= "\udfff" for char in line):
        return Refused(line=number, why="the line is not UTF-8")
    if line.startswith("@"):
        nickname, _, rest = line.replace("\t", " ").partition(" ")
        if (cron := _NICKNAMES.get(nickname.lower())) is None:
            return Refused(line=number, why=f"{nickname} is not a time that is known here: {', '.join(_NICKNAMES)}")
    else:
        match = re.fullmatch(_FIVE_FIELDS, line)
        if match is None:
            return Refused(line=number, why="a line has five fields (minute, hour, day, month, day of the week) and a command")
        cron, rest = " ".join(match[1].split()), match[2]
    user, after = [*rest.split(None, 1), "", ""][:2] if is_system else ("", rest)
    command, stdin = _fed(after.strip())
    if not command:
        said = "there is no user and command" if is_system else "there is no command"
        return Refused(line=number, why=f"{said} after the time")
    return Entry(line=number, cron=cron, command=command, stdin=stdin, user=user)


def _fed(text: str) -> tuple[str, str | None]:
    r"""The command and its input: the first % ends the command, each further one is a line end, and \% is a %."""
    command, *lines = re.split(r"(?<!\\)%", text)
    if not lines:
        return text.replace("\\%", "%"), None
    return command.replace("\\%", "%").rstrip(), "\n".join(line.replace("\\%", "%") for line in lines)


def _description(comments: Iterable[str]) -> str:
    """The comment right above an entry: not what is an entry out of use, a ruler or a header."""
    kept = (text for text in comments if re.search(r"\w", text) and not re.match(f"{_CRON_TIME}|{_HEADERS}", text, re.I))
    return " ".join(kept)[:500]


# --- names -------------------------------------------------------------------------------------------------------------------

_BEFORE: Final = frozenset(". [ [[ } ) cd test source export sleep umask set true if then".split())  # noqa: SIM905  # as shells
_WRAPPERS: Final = re.compile(
    r"[({!]|env|nice|ionice|nohup|sudo|doas|su|runuser|exec|time|timeout|flock|chronic|cronic|run-one|setsid|stdbuf|systemd-cat"
    r"|command|bash|sh|dash|zsh|perl|ruby|php|node|python[23]?"
)
_TAKES_ONE: Final = frozenset({"timeout", "flock"})
_WITH_SUBCOMMAND: Final = re.compile(r"make|docker|git|npm|systemctl|apt-get|certbot|restic|borg|jobrunner")


def named(entries: Iterable[Entry]) -> Iterator[tuple[str, Entry]]:
    """Each entry with a name of its own, made of what it starts."""
    given: set[str] = set()
    for entry in entries:
        stem = name_of(entry.command)
        name = next(each for number in range(1, 1_000_000) if (each := stem if number == 1 else f"{stem}-{number}") not in given)
        given.add(name)
        yield name, entry


def name_of(command: str) -> str:
    """`backup` for `cd /srv && nice -n 10 ./bin/backup.sh --full`."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(_started(command) or ["job"])).strip("-")[:60]
    return name if re.match(r"[A-Za-z_]", name) else f"job-{name}".rstrip("-")


def _started(command: str) -> list[str]:
    """The words that name the first program which does more than prepare."""
    return next((words for part in _simple_commands(command) if (words := _program(part))), [])


def _simple_commands(text: str) -> Iterator[list[str]]:
    """The words of each command between `&&`, `||`, `;` and `|`."""
    words: list[str] = []
    for word in _words(text):
        if set(word) <= set("&|;\n"):
            yield words
            words = []
        else:
            words.append(word)
    yield words


def _words(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:  # a quote that is never closed
        return text.replace("'", " ").replace('"', " ").split()


def _program(words: list[str]) -> list[str]:
    """The words that name what a simple command starts; none where it only prepares."""
    takes = 0  # words that belong to the wrapper: the time of timeout, the file of flock
    while words and (takes or _WRAPPERS.fullmatch(_stem(words[0])) or re.match(rf"{_ENV_NAME}=|-|\d+$", words[0])):
        first, *words = words
        if first == "-m" and words:
            return [words[0].rpartition(".")[2]]
        if first == "-c" and " " in "".join(words[:1]):
            return _started(words[0])
        if first in {"-u", "-g"}:
            words = words[1:]
        elif not first.startswith("-"):
            takes = max(0, takes - 1) if takes else int(_stem(first) in _TAKES_ONE)
    if not words or words[0] in _BEFORE:
        return []
    stem = _stem(words[0])
    if stem == "run-parts":
        return [_stem(words[-1])]
    following = [word for word in words[1:2] if re.fullmatch(r"[a-z][a-z0-9-]*", word)]
    return [stem, *following] if _WITH_SUBCOMMAND.fullmatch(stem) else [stem]


def _stem(word: str) -> str:
    name = word.rstrip("/").rpartition("/")[2]
    return re.sub(r"(?<=.)\.(?:sh|bash|py|pl|rb|php|js)$", "", name)


# --- entry → job file --------------------------------------------------------------------------------------------------------


def job_text(entry: Entry, name: str, schema: str) -> str:
    """The job file of an entry. `schema` is the path of the JSON Schema, as editors are told it."""
    task = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    lines = [*modelines(schema), *_comments(entry), f"name: {scalar(name)}"]
    if entry.description:
        lines.append(f"description: {scalar(entry.description)}")
    lines += [*_schedule(entry), *_env(entry), "tasks:", f"  {task}:", f"    cwd: {scalar(_folder(entry))}", *_action(entry)]
    return "\n".join(lines) + "\n"


def _comments(entry: Entry) -> Iterator[str]:
    yield f"# From line {entry.line} of a crontab."
    if not entry.cron:
        yield "# @reboot: no schedule says that. Start it from a systemd unit, or from the crontab: @reboot jobrunner FILE"
    if entry.user and entry.user != "root":
        yield f"# It ran as {_shown(entry.user)}: start this job as that user."
    if mailto := entry.settings.get("MAILTO"):
        yield f"# cron mailed its output to {_shown(mailto)}; jobrunner sends no mail: a task under finally: can."


def _schedule(entry: Entry) -> Iterator[str]:
    rule = {"cron": entry.cron}
    if zone := entry.settings.get("CRON_TZ"):
        rule["timezone"] = zone
    if re.fullmatch(r"[1-9]\d{0,4}", delay := entry.settings.get("RANDOM_DELAY", ""), re.ASCII):
        rule["jitter"] = f"{delay}m"
    if entry.cron and len(rule) == 1:
        yield f"schedule: {scalar(entry.cron)}"
    elif entry.cron:
        yield "schedule:"
        yield from (f"  {key}: {scalar(value)}" for key, value in rule.items())


def _env(entry: Entry) -> Iterator[str]:
    if entry.env:
        yield "env:"
        yield from (f"  {name}: {scalar(_literal(value))}" for name, value in entry.env.items())


def _folder(entry: Entry) -> str:
    """cron starts a command in its user's home."""
    home = entry.env.get("HOME") or ("~" + (entry.user.partition(":")[0] if entry.user != "root" else ""))
    return _literal(home)


def _action(entry: Entry) -> Iterator[str]:
    """`run` where that is the same to the letter; else the shell that cron would start, with the text that it would get."""
    shell = entry.settings.get("SHELL") or "/bin/sh"
    command = entry.command
    if shell in {"/bin/sh", "sh"} and entry.stdin is None and _is_for_run(command):
        yield f"    run: {scalar(command)}"
    else:
        text = command if entry.stdin is None else _with_input(command, entry.stdin)
        yield "    argv:"
        yield f"      - {scalar(_literal(shell))}"
        yield "      - -c"
        yield f"      - {scalar(_literal(text), indent=8)}"
    if re.search(r"(?<![&|>])&\s*$", command):
        yield "    stop: {leftover: allow}   # what it leaves behind with & goes on, as with cron"


def _is_for_run(command: str) -> bool:
    """Whether `sh -e` and cron's `sh -c` do the same: a `;` goes on after a failure only in the latter."""
    return "${{" not in command and not re.search(r"[;\n]|(?<![&|<>])&(?![&>])", command)


def _with_input(command: str, stdin: str) -> str:
    """The command with a here-document as its input, whose last line ends as cron ends it."""
    lines = stdin.removesuffix("\n").split("\n")
    end = next(word for number in range(len(lines) + 1) if (word := f"END{number or ''}") not in lines)
    return "\n".join(["{", command, f"}} <<'{end}'", *lines, end, ""])


def _literal(text: str) -> str:
    """Text in which `${{` is no expression."""
    return text.replace("${{", "${{ '$' }}{{")


def _shown(text: str) -> str:
    """Text as it can stand in a comment: on one line, nothing in it that YAML forbids."""
    return "".join(char if char.isprintable() else " " for char in text)[:200]
