"""Completion in the shell: names of tasks and parameters from the job file that the command line names, and what they may be.

shell ─COMP_WORDS─▶ click finds the option ─▶ tasks, settings here ─outline of FILE─▶ names, or nothing: never a mistake

A job file that somebody still writes is completed from too: its YAML events are read up to where they make sense, and no model
is built of them, so that an answer takes a tenth of a second or two.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, shell_complete, split_arg_string

from jobrunner.cli.words import QUESTION
from jobrunner.structs import struct

VARIABLE: Final = QUESTION
"""The variable by which the script of a shell asks, as click names it."""

_MOST_BYTES: Final = 1 << 20
_MOST_FILES: Final = 20
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_-]{0,63}"
"""What names tasks and parameters: anything else that stands there in a file is not for a command line."""
_WORD: Final = r"[\w@%+,./:-]+"
"""A value that every shell takes for one plain word, unquoted."""

Outline: TypeAlias = "dict[str, Outline] | list[Outline] | str | None"
"""A part of a YAML file, all scalars as text; None is an alias of what is not there."""


def answer(command: click.Command, program: str, instruction: str) -> int:
    """Answer a shell's question. Whatever goes wrong, it gets no completions, and nobody a traceback."""
    add_completion_class(_Bash)
    try:
        return shell_complete(command, {}, program, VARIABLE, instruction)
    except Exception:  # a half-written line, a half-written file: there is nobody to tell
        return 1


def tasks(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The tasks of the job file on the command line."""
    return [item for item in _tasks(context) if item.value.startswith(incomplete)]


def settings(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """`name=` of each parameter of the job file on the command line; behind that the values that it may have, if they are few."""
    name, has_name, begun = incomplete.partition("=")
    declared = _declared(context)
    if not has_name:
        return [_item(f"{each}=", rule) for each, rule in declared.items() if each.startswith(name)]
    return [CompletionItem(f"{name}={each}") for each in _values(declared.get(name)) if each.startswith(begun)]


def _tasks(context: click.Context) -> Iterator[CompletionItem[str]]:
    for outline in _outlines(context):
        for section in ("tasks", "finally"):
            yield from (_item(name, task) for name, task in _mapping(outline, section).items() if re.fullmatch(_NAME, name))


def _declared(context: click.Context) -> dict[str, Outline]:
    found: dict[str, Outline] = {}
    for outline in _outlines(context):
        for name, rule in _mapping(outline, "params").items():
            if re.fullmatch(_NAME, name):
                found.setdefault(name, rule)
    return found


def _values(rule: Outline) -> list[str]:
    if isinstance(rule, str):
        rule = {"default": rule}
    if not isinstance(rule, dict):
        return []
    if isinstance(choices := rule.get("choices"), list):
        return [each for each in choices if isinstance(each, str) and re.fullmatch(_WORD, each)]
    is_flag = rule.get("type") == "bool" or ("type" not in rule and rule.get("default") in ("true", "false"))
    return ["true", "false"] if is_flag else []


def _item(value: str, said: Outline) -> CompletionItem[str]:
    """A name with its description, as far as a shell can show that on its line."""
    told = said.get("description") if isinstance(said, dict) else None
    return CompletionItem(value, help=" ".join(told.split())[:80] if isinstance(told, str) and told else None)


# --- the job file ------------------------------------------------------------------------------------------------------------


def _outlines(context: click.Context) -> Iterator[dict[str, Outline]]:
    """The outline of the job file on the command line, and of what it includes."""
    pending = [file for file in [_file_of(context)] if file is not None]
    seen: set[str] = set()
    while pending and len(seen) < _MOST_FILES:
        path = os.path.realpath(pending.pop(0))
        if path not in seen:
            seen.add(path)
            outline = _outline(path)
            pending += [os.path.join(os.path.dirname(path), os.path.expanduser(each)) for each in _included(outline)]
            yield outline


def _file_of(context: click.Context) -> str | None:
    """The argument that names the job file. Where the line is not complete, click has not told arguments from the rest."""
    words = [context.params.get("file"), context.params.get("what"), *context.args]
    paths = (os.path.expanduser(word) for word in words if isinstance(word, str))
    return next((path for path in paths if os.path.isfile(path)), None)


def _included(outline: dict[str, Outline]) -> Iterable[str]:
    found = outline.get("include")
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _mapping(outline: dict[str, Outline], key: str) -> dict[str, Outline]:
    found = outline.get(key)
    return found if isinstance(found, dict) else {}


def _outline(path: str) -> dict[str, Outline]:
    """What can be read of a file; of one that is broken, all before the place."""
    import yaml

    found: list[Outline] = []
    try:
        with open(path, "rb") as file:
            _fill(found, yaml.parse(file.read(_MOST_BYTES), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (OSError, ValueError, yaml.YAMLError):
        pass  # what was read up to here
    first = found[0] if found else None
    return first if isinstance(first, dict) else {}


@struct(kw_only=False, frozen=False)
class _Open:
    """A list or map that has not ended, and the key of a map that waits for its value."""

    node: dict[str, Outline] | list[Outline]
    key: str | None = None

    def place(self, node: Outline) -> None:
        if isinstance(self.node, list):
            self.node.append(node)
        elif self.key is None:
            self.key = node if isinstance(node, str) else ""
        else:
            self.node |= node if self.key == "<<" and isinstance(node, dict) else {self.key: node}
            self.key = None


def _fill(found: list[Outline], events: Iterable[Any]) -> None:
    """Every list and map is placed when it begins, so that what stands before a mistake is kept."""
    import yaml

    anchors: dict[str, Outline] = {}
    opened = [_Open(found)]
    for event in events:
        node: dict[str, Outline] | list[Outline] | str | None = None
        match event:
            case yaml.ScalarEvent():
                node = str(event.value)
            case yaml.MappingStartEvent():
                node = {}
            case yaml.SequenceStartEvent():
                node = []
            case yaml.AliasEvent():
                opened[-1].place(anchors.get(str(event.anchor)))
            case yaml.CollectionEndEvent():
                opened.pop()
        if node is not None:
            opened[-1].place(node)
            anchors[str(event.anchor)] = node
            if not isinstance(node, str):
                opened.append(_Open(node))


# --- bash --------------------------------------------------------------------------------------------------------------------


class _Bash(BashComplete):
    """bash takes `=` for a word of its own: `name=va` comes as three, and only the last of them is replaced by the answer.

    Behind `name=` stands no blank: `open`.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(complete_var)s=bash_complete $1)
    COMPREPLY=()
    for completion in $response; do
        case "${completion%%%%,*}" in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            open) compopt -o nospace; COMPREPLY+=("${completion#*,}") ;;
            *) COMPREPLY+=("${completion#*,}") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        words = split_arg_string(os.environ["COMP_WORDS"])
        place = int(os.environ["COMP_CWORD"])
        words = words[: place + 1] if place < len(words) else [*words, ""]
        self._is_split = len(words) > 2 and (words[-1] == "=" or words[-2] == "=")
        joined = _joined(words)
        return joined[1:-1], joined[-1]

    def format_completion(self, item: CompletionItem[str]) -> str:
        value = str(item.value)
        kind = "open" if value.endswith("=") else item.type
        return f"{kind},{value.rpartition('=')[2] if self._is_split else value}"


def _joined(words: Iterable[str]) -> list[str]:
    """The words as they were typed, around each `=` that bash has cut off."""
    found: list[str] = []
    is_open = False
    for word in words:
        if found and (word == "=" or is_open) and found[1:]:
            found[-1] += word
        else:
            found.append(word)
        is_open = word == "="
    return found
