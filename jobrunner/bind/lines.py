"""Command lines: texts of `run` and words of `argv` as what is executed, with or without a shell."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from jobrunner import expressions
from jobrunner.bind.paths import passable, template_value
from jobrunner.errors import ExpressionError
from jobrunner.expressions import Scope
from jobrunner.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from jobrunner.spec import Task

_SHELL_SYNTAX = r"""[#;"'*?\[\]&|<>(){}$`^~!\\\n\r]"""
_SHELL_WORDS = frozenset({
    ".", ":", "alias", "bg", "break", "case", "cd", "command", "continue", "eval", "exec", "exit", "export", "fc", "fg", "for",
    "getopts", "hash", "if", "jobs", "local", "read", "readonly", "return", "set", "shift", "source", "times", "trap", "type",
    "ulimit", "umask", "unalias", "unset", "until", "wait", "while",
})  # fmt: skip
INTERPRETERS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "python", "python3", "perl", "ruby", "node"})
"""Programs whose first argument is the script that they run."""
_BLANKS = r"[ \t]+"  # what separates words in a shell, and no other space


def command_lines(task: Task) -> tuple[Callable[[Scope], tuple[str, ...]], ...]:
    if task.argv is not None:
        if expressions.is_constant(task.argv):
            argv = tuple(passable(str(word)) for word in task.argv)
            return (lambda scope: argv,)
        words = [template_value(str(word)) for word in task.argv]
        return (lambda scope: tuple(passable(expressions.text_of(word(scope))) for word in words),)
    lines = [task.run] if isinstance(task.run, str) else task.run or []
    return tuple(_shell_line(line.strip()) for line in lines)


def _shell_line(line: str) -> Callable[[Scope], tuple[str, ...]]:
    """Without shell syntax the words are the command, as in GNU make; with it, `sh -e` runs the text."""
    template = expressions.parse(line)
    if template is None:
        argv = ("/bin/sh", "-ec", line) if needs_shell([line]) else tuple(re.split(_BLANKS, line))
        return lambda scope: argv
    literals = [part for part in template.parts if isinstance(part, str)]
    if needs_shell(literals) or any(isinstance(part, expressions.Expression) and part.is_raw for part in template.parts):
        return lambda scope: ("/bin/sh", "-ec", template.shell(scope))
    return lambda scope: _words(template, scope)


def _words(template: expressions.Template, scope: Scope) -> tuple[str, ...]:
    """The words of a line without shell syntax: each value is one word, or part of one; a list is a word for each element."""
    words: list[str] = []
    is_open = False
    for part in template.parts:
        for number, piece in enumerate(_pieces(part, scope)):
            is_open = is_open and number == 0
            if piece is None:
                continue
            words[-1:] = [words[-1] + piece] if is_open else [*words[-1:], piece]
            is_open = True
    return tuple(map(passable, words))


def _pieces(part: str | expressions.Expression, scope: Scope) -> list[str | None]:
    """What a part adds to the words: the first piece to the one that is open, the others are new. None adds nothing."""
    if isinstance(part, str):
        return [piece or None for piece in re.split(_BLANKS, part)]
    value = part.value(scope)
    try:
        return [expressions.text_of(each) for each in value] if isinstance(value, list) else [expressions.text_of(value)]
    except ValueError as error:
        raise ExpressionError(str(error)) from None


def needs_shell(parts: Sequence[str]) -> bool:
    """Whether the literal parts of a command line hold syntax or a builtin that only a shell understands."""
    first = parts[0].split(maxsplit=1)[0] if parts and parts[0].strip() else ""
    return first in _SHELL_WORDS or "=" in first or any(re.search(_SHELL_SYNTAX, part) for part in parts)
