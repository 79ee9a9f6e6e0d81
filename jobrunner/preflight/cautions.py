"""What is valid in a job file and yet not what its author means: what `validate --strict` refuses.

texts ─▶ shell: what only bash understands, failures that nobody sees      a value that a second shell reads: here
steps, env, {{ x }}, lists in lists: here      declarations without a use: unused
numbers that lose a zero: rewritten              files and programs of this machine: surroundings
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Final

from jobrunner import expressions
from jobrunner.expressions import ROOTS, Expression
from jobrunner.jobfile import reader
from jobrunner.jobfile.document import Finding, Path, shortened
from jobrunner.preflight import rewritten, shell, surroundings, unused
from jobrunner.preflight.lines import Line, lines_of
from jobrunner.spec import Job, Param, Task

_SHELLS: Final = frozenset({"sh", "ash", "bash", "dash", "ksh", "zsh"})
_SCRIPT_OPTION = r"-[a-z]*c"
_INSIDE_SCRIPT = r"(?:^|[\s;&|(/])(?:a|ba|da|k|z)?sh(?:\s+-\S+)*\s+-[a-z]*c\s+(?:'[^']*|\"[^\"]*|[^\s'\"]*)\Z"
_INSIDE_EVAL = r"(?:^|[\s;&|(])eval\s[^;&|\n]*\Z"
_RAW = "raw() hands text to the shell as it is"
_RAW_HINT = "Leave raw() out: then the value is quoted, whatever it holds."
_TWICE = "a second shell reads this value as its own syntax, whatever it holds"
_TWICE_HINT = "Hand it over as an argument: sh -c 'echo \"$1\"' sh VALUE."


def find(job: Job, folder: str | os.PathLike[str] | None = None, source: bytes = b"") -> Iterator[Finding]:
    """Everything that is likely not meant so.

    `folder`, of the job file, is where files are looked for; without it nothing of this machine is looked at. `source` is the
    file's bytes, which have numbers as they were written.
    """
    for key, text in job.env.items():
        yield from _of_env(("env", key), text)
    for key, text in job.defaults.env.items():
        yield from _of_env(("defaults", "env", key), text)
    for name, task in job.tasks.items():
        yield from _of_task(("tasks", name), task, job)
    yield from unused.find(job)
    if source:
        yield from rewritten.find(reader.read(source, job.name))
    if folder is not None:
        yield from surroundings.find(job, os.fspath(folder))


def _of_task(base: Path, task: Task, job: Job) -> Iterator[Finding]:
    for path, text in _commands(base, task):
        yield from _of_command(path, text)
    if task.argv is not None:
        yield from _of_words((*base, "argv"), [str(word) for word in task.argv])
    known = None if job.env_file else frozenset({*job.env, *task.env, *task.secrets})
    for line in lines_of(base, task):
        yield from _of_line(line, known)
    yield from _of_steps(base, task)
    for key, text in task.env.items():
        if job.defaults.env.get(key) != text:
            yield from _of_env((*base, "env", key), text)
    for path, text in unused.texts(base, unused.task_values(task)):
        yield from _foreign(path, text)
    yield from _nested(base, task, job)
    yield from _nothing_named(base, task)


# --- what a second shell reads -----------------------------------------------------------------------------------------------


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


# --- what a shell does not do ------------------------------------------------------------------------------------------------


def _of_line(line: Line, known: frozenset[str] | None) -> Iterator[Finding]:
    if not line.is_sh:
        return
    troubles = shell.only_bash(line.script, known)
    yield from map(line.finding, troubles)
    if not any("pipefail" in trouble.message or "comment" in trouble.message for trouble in troubles):
        yield from map(line.finding, shell.lost_failures(line.script))


_STEP_ENDS = "each step is a process of its own: what … does here ends with it"
_ONE_TEXT = "one text of several lines (run: |)"
_INSTEAD: Final = {"cd": "Write cwd: DIR, or ", "export": "Write env: {NAME: VALUE}, or ", "=": "Write env: {NAME: VALUE}, or "}
_ALONE: Final = frozenset({"cd", "export", "set", "source", ".", "alias", "unset", "umask", "ulimit", "readonly", "shift"})


def _of_steps(base: Path, task: Task) -> Iterator[Finding]:
    """Steps that prepare something for the next ones, which never see it."""
    for number, text in enumerate(task.run if isinstance(task.run, list) else ()):
        script = shell.read(shell.blanked(text))
        firsts = [_own(words) for words in shell.commands(script)]
        if firsts and all(firsts):
            hint = f"{_INSTEAD.get(firsts[0], 'Write ')}{_ONE_TEXT}."
            word = "an assignment" if firsts[0] == "=" else firsts[0]
            yield Finding(path=(*base, "run", number), message=_STEP_ENDS.replace("…", word), hint=hint)


def _own(words: Sequence[shell.Word]) -> str:
    """The first word of a command that changes only the shell it runs in, `=` for an assignment; else nothing."""
    first = words[0].text
    if first in _ALONE:
        return first
    return "=" if first and all(re.match(r"[A-Za-z_]\w*=", word.text) for word in words) else ""


# --- values that are taken as written ----------------------------------------------------------------------------------------

_SHELL_VALUE: Final = re.compile(r"\$\{(?P<long>[A-Z_][A-Z0-9_]*)\}|\$(?P<short>[A-Z_][A-Z0-9_]+)|\$\([^)]*\)?")
_FOREIGN: Final = re.compile(r"(?<![${])\{\{-?\s*(?P<name>\.?[A-Za-z_]\w*(?:\.\w+)*)\s*-?\}\}")
_TEMPLATES: Final = re.compile(r"--(?:format|template)\b|\b(?:docker|podman|nerdctl|kubectl|oc|helm|gh|go|jinja\w*|mustache)\b")


def _of_env(path: Path, text: str) -> Iterator[Finding]:
    for found in _SHELL_VALUE.finditer(shell.blanked(text)):
        name = found["long"] or found["short"]
        hint = f"Write ${{{{ env.{name} }}}}." if name else "Write it in the command."
        message = f"no shell reads env: {shortened(found[0]).replace(shell.VALUE, '…')} stays as it is"
        yield Finding(path=path, message=message, hint=hint, offset=found.start(), length=len(found[0]))


def _foreign(path: Path, text: str) -> Iterator[Finding]:
    """`{{ x }}` of other tools; programs that have such templates themselves get them as they are."""
    if "{{" not in text or _TEMPLATES.search(text):
        return
    for found in _FOREIGN.finditer(shell.blanked(text)):
        name = found["name"].removeprefix(".")
        wanted = name if name.partition(".")[0] in ROOTS else f"params.{name}"
        hint = f"Write ${{{{ {shortened(wanted)} }}}}."
        message = f"{shortened(found[0])} is no expression: it stays as it is"
        yield Finding(path=path, message=message, hint=hint, offset=found.start(), length=len(found[0]))


# --- lists, caches -----------------------------------------------------------------------------------------------------------


def _nested(base: Path, task: Task, job: Job) -> Iterator[Finding]:
    """`foreach: ["${{ params.list }}"]`: one item, which is the list."""
    axes: dict[Path, object] = {(*base, "matrix", name): axis for name, axis in (task.matrix or {}).items()}
    for path, values in {(*base, "foreach"): task.foreach, **axes}.items():
        if isinstance(values, list) and len(values) == 1 and isinstance(values[0], str) and _is_list(values[0], job):
            hint = f"Write it without the brackets: {path[-1]}: {shortened(values[0])}"
            yield Finding(path=(*path, 0), message="this is one item, and that is a list", hint=hint)


def _is_list(text: str, job: Job) -> bool:
    template = expressions.parse(text)
    path = template.only.path if template and template.only else None
    if path is None:
        return False
    root, keys = path
    if root == "tasks":
        return keys[1:] == ("results",)
    param = job.params.get(str(keys[0])) if root == "params" and len(keys) == 1 else None
    if isinstance(param, Param):
        return param.type == "list" or (param.type is None and isinstance(param.default, list))
    return isinstance(param, list)


def _nothing_named(base: Path, task: Task) -> Iterator[Finding]:
    if task.cache is None or task.target is not None or task.cache.ttl is not None or "inputs" in task.cache.model_fields_set:
        return
    message = "nothing of what it reads is named: it runs again only when the command changes"
    hint = "Write cache: {inputs: [FILES]}; inputs: [] where it reads none."
    yield Finding(path=(*base, "cache"), message=message, hint=hint, at_key=True)
