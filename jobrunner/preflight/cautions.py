"""Commands that a shell may read otherwise than their author thinks: what `validate --strict` refuses. Pure: nothing runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from jobrunner import expressions
from jobrunner.expressions import Expression
from jobrunner.jobfile.document import Finding, Path
from jobrunner.spec import Job, Task

_SHELLS: Final = frozenset({"sh", "ash", "bash", "dash", "ksh", "zsh"})
_SCRIPT_OPTION = r"-[a-z]*c"
_INSIDE_SCRIPT = r"(?:^|[\s;&|(/])(?:a|ba|da|k|z)?sh(?:\s+-\S+)*\s+-[a-z]*c\s+(?:'[^']*|\"[^\"]*|[^\s'\"]*)\Z"
_INSIDE_EVAL = r"(?:^|[\s;&|(])eval\s[^;&|\n]*\Z"
_RAW = "raw() hands text to the shell as it is"
_RAW_HINT = "Leave raw() out: then the value is quoted, whatever it holds."
_TWICE = "a second shell reads this value as its own syntax, whatever it holds"
_TWICE_HINT = "Hand it over as an argument: sh -c 'echo \"$1\"' sh VALUE."


def find(job: Job) -> Iterator[Finding]:
    """Every value of a command that a shell reads as syntax, in the order of the tasks."""
    for name, task in job.tasks.items():
        for path, text in _commands(("tasks", name), task):
            yield from _of_command(path, text)
        if task.argv is not None:
            yield from _of_words(("tasks", name, "argv"), [str(word) for word in task.argv])


def _commands(base: Path, task: Task) -> Iterator[tuple[Path, str]]:
    if isinstance(task.run, str):
        yield (*base, "run"), task.run
    for number, text in enumerate(task.run if isinstance(task.run, list) else ()):
        yield (*base, "run", number), text


def _of_command(path: Path, text: str) -> Iterator[Finding]:
    template = expressions.parse(text)
    before = ""
    for part in template.parts if template else ():
        if isinstance(part, str):
            before += part
            continue
        if part.is_raw:
            yield _at(path, part, _RAW, _RAW_HINT)
        elif re.search(_INSIDE_SCRIPT, before) or re.search(_INSIDE_EVAL, before):
            yield _at(path, part, _TWICE, _TWICE_HINT)
        before += "x"


def _at(path: Path, part: Expression, message: str, hint: str) -> Finding:
    return Finding(path=path, message=message, hint=hint, offset=part.offset, length=len(part.source))


def _of_words(path: Path, words: Sequence[str]) -> Iterator[Finding]:
    """`[sh, -c, …]`, also behind env, nice or sudo."""
    for number, word in enumerate(words[2:], start=2):
        shell, option = words[number - 2].rpartition("/")[2], words[number - 1]
        template = expressions.parse(word) if shell in _SHELLS and re.fullmatch(_SCRIPT_OPTION, option) else None
        for part in template.parts if template else ():
            if isinstance(part, Expression):
                yield _at((*path, number), part, _TWICE, _TWICE_HINT)
