"""The commands of a task as preflights look at them: texts of `run`, words of `argv`, and the scripts that a shell gets.

Pure: nothing runs, and nothing of the machine is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from jobrunner import expressions
from jobrunner.bind.lines import needs_shell
from jobrunner.expressions import Expression
from jobrunner.jobfile.document import Finding, Path
from jobrunner.preflight import shell
from jobrunner.preflight.shell import Script, Trouble, Word
from jobrunner.spec import Task
from jobrunner.structs import struct

_SHELL: Final = re.compile(r"(?:.*/)?(?:ba|da|a)?sh")
_SCRIPT_OPTION: Final = re.compile(r"-[a-z]*c")
_WORD: Final = re.compile(r"\S+")


@struct
class Line:
    """A text that is a command, or several. `reader` is the shell that gets it; empty where its words are the command."""

    path: Path
    script: Script
    reader: str
    is_raw: bool
    """It holds raw(): nobody knows what else is in it."""

    @property
    def is_sh(self) -> bool:
        """Whether it goes to what may not be bash."""
        return self.reader.rpartition("/")[2] in {"sh", "dash", "ash"}

    def finding(self, trouble: Trouble) -> Finding:
        """What is wrong in it, at its place."""
        return _at(self.path, trouble.message, trouble.hint, trouble.offset, trouble.length)


@struct
class Command:
    """The words of one simple command at `path`: those of a text, or (`is_argv`) each with a place of its own."""

    path: Path
    words: tuple[Word, ...]
    is_argv: bool = False
    is_direct: bool = True
    """No shell: the first word is the program."""

    def finding(self, number: int, message: str, hint: str = "") -> Finding:
        """What is wrong with one of its words, at its place."""
        if self.is_argv:
            return Finding(path=(*self.path, number), message=message, hint=hint)
        word = self.words[number]
        return _at(self.path, message, hint, word.offset, word.length)


def _at(path: Path, message: str, hint: str, offset: int, length: int) -> Finding:
    return Finding(path=path, message=message, hint=hint, offset=offset, length=length)


def lines_of(base: Path, task: Task) -> Iterator[Line]:
    """The texts of `run`, and the script of `argv: [sh, -c, …]`."""
    if isinstance(task.run, str):
        yield _line((*base, "run"), task.run)
    for number, text in enumerate(task.run if isinstance(task.run, list) else ()):
        yield _line((*base, "run", number), text)
    words = [str(word) for word in task.argv or ()]
    if words and _SHELL.fullmatch(words[0]):
        place = next((number for number, word in enumerate(words[1:-1], start=1) if _SCRIPT_OPTION.fullmatch(word)), None)
        if place is not None:
            yield _line((*base, "argv", place + 1), words[place + 1], reader=words[0])


def _line(path: Path, text: str, *, reader: str = "") -> Line:
    template = expressions.parse(text.strip())
    parts = template.parts if template else (text.strip(),)
    is_raw = any(isinstance(part, Expression) and part.is_raw for part in parts)
    if is_raw or needs_shell([part for part in parts if isinstance(part, str)]):
        reader = reader or "/bin/sh"
    return Line(path=path, script=shell.read(shell.blanked(text)), reader=reader, is_raw=is_raw)


def commands_of(base: Path, task: Task) -> Iterator[Command]:
    """Every simple command of a task."""
    for line in lines_of(base, task):
        found = shell.commands(line.script) if line.reader else [_words(line.script.text)]
        yield from (Command(path=line.path, words=tuple(words), is_direct=not line.reader) for words in found)
    if task.argv is not None:
        words = tuple(Word(text="" if "${{" in str(word) else str(word), offset=0, length=0) for word in task.argv)
        yield Command(path=(*base, "argv"), words=words, is_argv=True)


def _words(text: str) -> list[Word]:
    """Of a text that no shell reads."""
    marks = _WORD.finditer(text)
    return [Word(text="" if shell.VALUE in mark[0] else mark[0], offset=mark.start(), length=len(mark[0])) for mark in marks]
