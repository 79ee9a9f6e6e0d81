"""What other tools write where an expression of ours stands: GitHub's names and functions, the braces of go-task.

`github.run_id` ─of_name─→ Write run.id.     `contains(a, b)` ─of_call─→ Write b in a.     `{{.DAY}}` ─braces─→ Mistake
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Final

from jobrunner import spec
from jobrunner.errors import ExpressionError
from jobrunner.expressions import parse
from jobrunner.jobfile import lookups
from jobrunner.jobfile.comparisons import Mistake

_OF_GITHUB: Final = {"run_id": "run.id", "run_number": "run.id", "run_attempt": "run.attempt"}
_OF_RUNNER: Final = {"temp": "run.dir", "os": "env.RUNNER_OS", "tool_cache": "run.dir", "workspace": "run.dir"}
_OF_TASKS: Final = {"result": "outcome", "outcome": "outcome", "conclusion": "outcome", "status": "outcome"}
_STATUS: Final = {"success": "success()", "failure": "failure()", "failed": "failure()"}
_FORMATS: Final = r"--format|--template|-o\s*(go-template|jsonpath)|\s-f\b|inspect"
"""What commands are given templates of their own with."""
_BRACES: Final = r"(?<!\$)\{\{-?\s*(?P<said>\.?(?P<name>[A-Za-z_]\w*)[^{}\n]*?)\s*-?\}\}"


def of_name(root: str, path: Sequence[str | int], job: spec.Job) -> str:
    """What to write for a name that an expression of another tool starts from; nothing for all others."""
    keys = [str(key) for key in path]
    match root:
        case "needs" | "steps" | "jobs":
            return _of_task(keys)
        case "inputs" | "vars" | "param" | "args":
            return f"Write {lookups.dotted('params', keys[0])}." if keys else "Write params.NAME."
        case "github":
            return _of_github(keys)
        case "runner":
            return f"Write {_OF_RUNNER.get(keys[0] if keys else '', 'env.NAME')}."
        case "job" if keys[:1] == ["status"]:
            return "Write failure(), or success(), in if; how one task has ended is tasks.NAME.outcome."
        case "strategy":
            return "Write index, or matrix.NAME."
        case "task" if keys and keys[0] in job.tasks:
            return f"Write {'.'.join([lookups.spelled(keys[0]), *keys[1:]])}."
    return ""


def _of_task(keys: Sequence[str]) -> str:
    if not keys:
        return "Write tasks.NAME."
    task = lookups.spelled(keys[0])
    if len(keys) == 1:
        return f"Write {task}.outcome."
    return f"Write {'.'.join([task, _OF_TASKS.get(keys[1], keys[1]), *keys[2:]])}."


def _of_github(keys: Sequence[str]) -> str:
    key = keys[0] if keys else ""
    if key in _OF_GITHUB:
        return f"Write {_OF_GITHUB[key]}."
    if key == "workspace":
        return "Commands start in the folder of the job file: leave it out."
    if key == "event":
        return "No event starts a job: declare a parameter, and write params.NAME."
    return f"In a workflow of GitHub's, write env.GITHUB_{key.upper() or 'NAME'}; else declare a parameter: params.NAME."


# --- functions ---------------------------------------------------------------------------------------------------------------


def of_call(written: str) -> str:
    """What to write for the call of a function that other tools have, from the call as it is written; nothing for all others."""
    try:
        call = ast.parse(written, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    if not isinstance(call, ast.Call) or len(written) > 200 or not written.isprintable():
        return ""
    arguments = [ast.get_source_segment(written, each) or "…" for each in call.args]
    if isinstance(call.func, ast.Name):
        return _of_function(call.func.id, arguments)
    if isinstance(call.func, ast.Attribute):
        owner = ast.get_source_segment(written, call.func.value) or "…"
        return _of_function(_METHODS.get(call.func.attr, ""), [owner, *arguments])
    return ""


_METHODS: Final = {
    **{name: name for name in ("startswith", "endswith", "replace", "get")},
    "join": "joined",
}


def _of_function(name: str, given: list[str]) -> str:
    first, second = (*given, "…", "…")[:2]
    match name:
        case "cancelled":
            return "A task under finally runs after a stop too; there tasks.NAME.outcome == 'cancelled' says so."
        case "contains":
            return f"Write {second} in {first}."
        case "startsWith" | "startswith":
            return f"Write {first}[:{_length(second)}] == {second}."
        case "endsWith" | "endswith":
            return f"Write {first}[-{_length(second)}:] == {second}."
        case "format":
            return "Write the text with a ${{ … }} at each place, or join texts with +."
        case "toJSON" | "toJson":
            return f"Write str({first}): the text of a list or a map is JSON; alone in args or kwargs it stays what it is."
        case "fromJSON" | "fromJson":
            return "The result of a target is no text: write tasks.NAME.result; int(x) and float(x) make numbers of texts."
        case "hashFiles":
            return "Write cache: {inputs: [path]} in the task: it is skipped while those files stay the same."
        case "replace" if len(given) == 3:
            return f"Write replace({', '.join(given)})."
        case "get" if len(given) in {2, 3}:
            return f"Write default({first}[{second}], {given[2] if len(given) == 3 else 'null'})."
        case "joined" if len(given) == 2:
            return f"Write join({second}, {first})."
        case "bool":
            return f"Write {first} == 'true'."
    return ""


def _length(written: str) -> str:
    """How long a text is: a number where it is written out."""
    try:
        value = ast.literal_eval(written)
    except (SyntaxError, ValueError):
        return f"len({written})"
    return str(len(value)) if isinstance(value, str) else f"len({written})"


# --- braces without a dollar ---------------------------------------------------------------------------------------------------


def braces(text: str, task: spec.Task | None, job: spec.Job) -> Iterator[Mistake]:
    """`{{.DAY}}` and `{{ params.day }}`, which are text here, where they can only be meant as an expression.

    Docker, kubectl and others are given templates like these: only names that the job has count, and no text with --format.
    """
    if text.count("{{") == text.count("${{") or re.search(_FORMATS, text):
        return
    for found in re.finditer(_BRACES, text):
        is_shown = len(found[0]) <= 100 and found[0].isprintable()
        if is_shown and (meant := _meant(found["said"], found["name"], task, job)):
            message = f"{found[0]} is text here: an expression begins with ${{{{"
            yield Mistake(message=message, hint=f"Write {meant}.", offset=found.start(), length=len(found[0]))


def _meant(said: str, name: str, task: spec.Task | None, job: spec.Job) -> str:
    """The expression that braces were meant to be; nothing where they may be meant for somebody else."""
    if said.startswith("."):
        return _of_variable(name, job) if said == f".{name}" else ""
    try:
        template = parse(f"${{{{ {said} }}}}")
    except ExpressionError:
        return ""
    references = () if template is None else template.references
    are_ours = references and all(_is_ours(each.root, each.path, task, job) for each in references)
    return f"${{{{ {said} }}}}" if are_ours else ""


def _of_variable(name: str, job: spec.Job) -> str:
    """`{{.NAME}}` of go-task: a parameter, or a variable of the environment."""
    meant = next((each for each in job.params if each.casefold().replace("-", "_") == name.casefold()), None)
    if meant is not None:
        return f"${{{{ {lookups.dotted('params', meant)} }}}}"
    return f"${{{{ env.{name} }}}}" if name in job.env else ""


def _is_ours(root: str, path: Sequence[str | int], task: spec.Task | None, job: spec.Job) -> bool:
    first = path[0] if path else None
    match root:
        case "params":
            return first in job.params
        case "tasks":
            return first in job.tasks
        case "item":
            return task is not None and task.foreach is not None
        case "matrix":
            return task is not None and task.matrix is not None and bool(path)
        case "run":
            return first in {"id", "dir", "started_at", "attempt"}
    return False
