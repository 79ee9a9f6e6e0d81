"""What `${{ }}` refers to, checked before anything runs: names, parameters, tasks among the needs, attributes that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from jobrunner import spec
from jobrunner.errors import ExpressionError
from jobrunner.expressions import ROOTS, STATUS, Expression, Reference, Template, condition, parse
from jobrunner.hints import did_you_mean
from jobrunner.jobfile import checks, comparisons, conditions, cures, dialects, instances, lookups, needs
from jobrunner.jobfile.comparisons import Mistake, Sure
from jobrunner.jobfile.document import Finding, Path
from jobrunner.jobfile.lookups import Wrong
from jobrunner.jobfile.salvage import Unsure
from jobrunner.jobfile.values import collect, not_json, unfit
from jobrunner.structs import struct

RUN_KEYS: Final = ("id", "dir", "started_at", "attempt", "failed")
_NOT_LISTS: Final = frozenset({"exit_code", "outcome", "stdout"})

MOST_EXPRESSIONS = 1000
"""Expressions in one text: each takes 20 µs to read."""
MOST_UNREADABLE = 10
"""Expressions of one text that are said to be none: the text is read again for each."""


@struct
class _Place:
    """A text with an expression: where it stands, and which names hold there."""

    path: Path
    task: str | None
    says: str = ""
    """`foreach` or `matrix` where the text itself says what the instances are."""


@struct
class _Use:
    """`tasks.target` in a text of `task`, which does not name it among its own needs."""

    task: str
    target: str
    finding: Finding


@struct
class _Against:
    """What texts are checked against, and the `uses` that they make of other tasks, judged last."""

    job: spec.Job
    others: needs.Tasks
    """The tasks of the job that are no final ones."""
    unsure: Unsure
    uses: list[_Use]

    @property
    def sure(self) -> Sure:
        return Sure(job=self.job, unsure=self.unsure)


def find(job: spec.Job, unsure: Unsure) -> Iterator[Finding]:
    """Everything wrong in the expressions of a job whose defaults are merged, and values that no JSON holds."""
    uses: list[_Use] = []
    against = _Against(job=job, others=needs.beside(job.tasks, job.finals), unsure=unsure, uses=uses)
    for key, text in job.env.items():
        yield from _text(text, _Place(path=("env", key), task=None), against)
    for name, param in job.params.items():
        if isinstance(param, spec.Param):
            yield from unfit(param.default, ("params", name, "default"))
        else:
            yield from unfit(param, ("params", name))
    for name, task in job.tasks.items():
        yield from _task(name, task, against)
    if uses:
        unneeded = needs.unneeded([(use.task, use.target) for use in uses], job.tasks, unsure.needs)
        yield from (uses[position].finding for position in unneeded)


_WITH_EXPRESSIONS: Final = ("args", "kwargs", "run", "argv", "env", "cwd")


def _task(name: str, task: spec.Task, against: _Against) -> Iterator[Finding]:
    found: list[tuple[Path, object]] = []
    for key in _WITH_EXPRESSIONS:
        if value := getattr(task, key):
            collect(value, (key,), found)
    if task.cache is not None:
        collect({"inputs": task.cache.inputs, "outputs": task.cache.outputs}, ("cache",), found)
    for path, leaf in found:
        yield from _leaf(leaf, _Place(path=("tasks", name, *path), task=name), against)
    if task.condition is not None:
        yield from _condition(task.condition, _Place(path=("tasks", name, "if"), task=name), against)
    if task.foreach is not None:
        yield from _foreach(name, task, against)
    if task.matrix is not None:
        yield from _matrix(name, task.matrix, against)


def _leaf(value: object, place: _Place, against: _Against) -> Iterator[Finding]:
    if not isinstance(value, str):
        yield not_json(place.path, value)
        return
    if "\0" in value and place.path[2] in {"run", "argv", "env", "cwd"}:
        yield Finding(path=place.path, message="a command cannot be handed a NUL character")
    if "\0" in value and place.path[2] == "cache":
        yield Finding(path=place.path, message="a path cannot hold a NUL character")
    yield from _text(value, place, against)


def _text(text: str, place: _Place, against: _Against) -> Iterator[Finding]:
    if (count := text.count("${{")) > MOST_EXPRESSIONS:
        message = f"a text holds at most {MOST_EXPRESSIONS:,} expressions; this one has {count:,}"
        yield Finding(path=place.path, message=message, hint="Make the text in a task, and write its result here.")
        return
    template, errors = _readable(text)
    if template is not None and place.path[2:3] == ("run",):
        try:
            template.check_shell()
        except ExpressionError as error:
            errors.append(error)
    yield from (_malformed(error, place, text) for error in errors)
    if "{{" in text:
        task = None if place.task is None else against.job.tasks[place.task]
        yield from _told(dialects.braces(text, task, against.job), place)
    if template is not None:
        yield from _without_status(template, place)
        yield from _judged(template, place, against)


def _malformed(error: ExpressionError, place: _Place, text: str) -> Finding:
    hint = dialects.of_call(text[error.offset :][: error.length]) or error.hint
    return Finding(path=place.path, message=error.message, hint=hint, offset=error.offset, length=error.length)


def _told(mistakes: Iterable[Mistake], place: _Place) -> Iterator[Finding]:
    """Mistakes in the text at a place."""
    for each in mistakes:
        yield Finding(path=place.path, message=each.message, hint=each.hint, offset=each.offset, length=each.length)


def _without_status(template: Template, place: _Place) -> Iterator[Finding]:
    for name, offset, length in template.status:
        hint = "tasks.NAME.outcome is how a task has ended." if name != "always" else ""
        yield Finding(path=place.path, message=f"{name}() is known only in `if`", hint=hint, offset=offset, length=length)


def _judged(template: Template, place: _Place, against: _Against) -> Iterator[Finding]:
    judge = _Judge(job=against.job, place=place, against=against)
    for reference in template.references:
        if (said := judge.about(reference)) is not None:
            message, hint = said[0], reference.hint or said[1]
            yield Finding(path=place.path, message=message, hint=hint, offset=reference.offset, length=reference.length)
    for part in template.parts:
        if isinstance(part, Expression) and part.path is None:  # most are look-ups, and compare nothing
            yield from _told(comparisons.find(part, against.sure), place)
            if template.only is not part or place.path[2:] != ("if",):
                yield from _told(conditions.find_choices(part, against.sure), place)


def _readable(text: str) -> tuple[Template | None, list[ExpressionError]]:
    """What can be read of a text, and why the rest cannot: an expression that is none is blotted out, and what follows read."""
    errors: list[ExpressionError] = []
    while len(errors) < MOST_UNREADABLE:
        try:
            return parse(text), errors
        except ExpressionError as error:
            errors.append(error)
            start, end = text.rfind("${{", 0, error.offset + 3), text.find("}}", error.offset)
            if start < 0 or end < 0:
                break
            text = f"{text[:start]}{'x' * (end + 2 - start)}{text[end + 2 :]}"
    return None, errors


def _condition(text: str, place: _Place, against: _Against) -> Iterator[Finding]:
    try:
        template = condition(text)
    except ExpressionError as error:
        finding = _malformed(error, place, text)
        is_prose = not error.hint and "is not an expression" in error.message
        yield replace(finding, hint="A condition is an expression, like params.full or failure().") if is_prose else finding
        return
    wrong = list(_judged(template, place, against))
    yield from wrong
    if template.only is not None and not wrong:
        yield from _told(conditions.find(template.only, str(place.task), against.sure), place)
    if template.only is not None and (kind := _constant(template.only)):
        message = f"a condition is true or false; this is always {kind}"
        offset, length = template.only.offset, len(template.only.source)
        yield Finding(path=place.path, message=message, hint="Write a comparison.", offset=offset, length=length)


def _constant(only: Expression) -> str:
    """What people call a constant that is neither true nor false; nothing for all others."""
    match only.tree:
        case ast.Constant(value=value) if not isinstance(value, bool):
            return "the same text" if isinstance(value, str) else "the same number"
        case ast.Name(id="null"):
            return "nothing"
        case ast.List():
            return "a list"
    return ""


@struct
class _Judge:
    """Says what is wrong with a reference that stands at a place."""

    job: spec.Job
    place: _Place
    against: _Against

    def about(self, reference: Reference) -> Wrong:
        match reference.root:
            case "params":
                return self._param(reference)
            case "tasks":
                return self._task(reference)
            case "run":
                return lookups.key_of("run", reference.path, RUN_KEYS)
            case "item" | "index" | "matrix":
                return self._instance(reference)
            case "secrets":
                return self._secret(reference)
            case "env":
                return self._env(reference)
        if reference.root in ROOTS:
            return None
        return f"the name {reference.root!r} is not known here", self._near(reference)

    def _near(self, reference: Reference) -> str:
        """What an unknown name was probably meant to be."""
        root = reference.root
        if written := dialects.of_name(root, reference.path, self.job):
            return written
        if root in STATUS and not reference.path:
            return f"Write {root}()."
        if root.lower() in _TRUTHS and self.place.path[2:] == ("if",):
            return f"Write {_TRUTHS[root.lower()]}."
        if root in self.job.params:
            return f"Write {lookups.dotted('params', root)}."
        return did_you_mean(root, sorted(ROOTS)) or f"Names are {', '.join(sorted(ROOTS))}."

    def _param(self, reference: Reference) -> Wrong:
        if not reference.path or (name := str(reference.path[0])) in self.job.params or "params" in self.against.unsure.tables:
            return None
        known = list(self.job.params)
        hint = did_you_mean(name, known) or ("" if known else f"Declare it: params: {{{name}: …}}.")
        return f"the job has no parameter {name!r}", hint

    def _instance(self, reference: Reference) -> Wrong:
        """`item`, `index` and `matrix` are known where a task has such instances."""
        root = reference.root
        if self.place.says:
            what = "the items" if self.place.says == "foreach" else "the combinations"
            return f"{root!r} is not known in {self.place.says}, which says what {what} are", ""
        if self.place.task is None:
            return f"{root!r} is not known in the env of the job", "Write it in the env of the task."
        task = self.job.tasks[self.place.task]
        if self.place.task in self.against.unsure.instances:
            return None
        match root:
            case "item" if task.foreach is None:
                names = instances.names(task.matrix) if task.matrix else []
                hint = f"Write {lookups.dotted('matrix', names[0])}." if names else ""
                return "'item' is known only in a task with foreach", hint
            case "index" if not task.has_instances:
                return "'index' is known only in a task with foreach or matrix", ""
            case "matrix" if task.matrix is None:
                return "'matrix' is known only in a task with matrix", "" if task.foreach is None else "Write item."
            case "matrix" if task.matrix and reference.path:
                names = instances.names(task.matrix)
                return lookups.key_of("matrix", reference.path, names) if names else None
        return None

    def _secret(self, reference: Reference) -> Wrong:
        """A secret stands in the `env` of a task that lists it, where nobody but the task sees it."""
        if self.place.task is None:
            return "the env of the job reaches every task, so no secret stands in it", "Write it in the env of the task."
        name = str(reference.path[0]) if reference.path else ""
        key = str(self.place.path[2])
        if key != "env":
            return f"a secret never stands in {key}, only in env", _without_secret(key, name)
        if not name:
            return "after secrets comes the name of a secret", "Write secrets.NAME."
        listed = self.job.tasks[self.place.task].secrets
        if name in listed:
            return (f"a secret is text: it has no {reference.path[1]!r}", "") if len(reference.path) > 1 else None
        if name in self.job.secrets:
            return f"the task does not list the secret {name!r}", f"Add it: secrets: [{', '.join([*listed, name])}]."
        if "secrets" in self.against.unsure.tables:
            return None
        return f"the job has no secret {name!r}", checks.secret_hint(name, self.job.secrets)

    def _env(self, reference: Reference) -> Wrong:
        """The variables that secrets are read from are no longer there when tasks run."""
        name = str(reference.path[0]) if reference.path else ""
        source = next((secret for secret, rule in self.job.secrets.items() if rule.env == name and name), None)
        if source is None or self.job.env_file is not None or name in self.job.env:
            return None
        hint = f"Write {lookups.dotted('secrets', source)}."
        return f"the secret {source!r} is read from {name}, which tasks then do not see", hint

    def _task(self, reference: Reference) -> Wrong:
        if self.place.task is None:
            return "the env of the job is made before any task runs", "Write it in the env of the task."
        if not reference.path or not isinstance(reference.path[0], str):
            return "after tasks comes the name of a task", "Write tasks.NAME.result."
        name, keys = reference.path[0], reference.path[1:]
        is_final = self.place.task in self.job.finals
        if name not in self.job.tasks:
            return self._no_task(name, self.job.tasks if is_final else self.against.others)
        if name == self.place.task:
            return "a task cannot refer to itself", ""
        if not is_final and name in self.job.finals:
            return needs.is_final(name), f"Move {self.place.task!r} to finally."
        has_ended = is_final and name not in self.job.finals
        if not has_ended and name not in self.job.tasks[self.place.task].needs:
            self._note(name, reference)
        return None if name in self.against.unsure.kinds else lookups.result_key(name, self.job.tasks[name], keys)

    def _no_task(self, name: str, tasks: needs.Tasks) -> Wrong:
        if name in self.against.unsure.kinds or "tasks" in self.against.unsure.tables:
            return None
        return f"no task is called {name!r}", needs.near(name, tasks, of=str(self.place.task))

    def _note(self, name: str, reference: Reference) -> None:
        task = str(self.place.task)
        named = self.job.tasks[task].needs
        hint = f"Add {name} to needs: [{', '.join([*named, name])}]." if len(named) < 10 else f"Add {name} to needs."
        message = f"{name!r} is not among the needs of {task!r}, so it may not have run yet"
        finding = Finding(path=self.place.path, message=message, hint=hint, offset=reference.offset, length=reference.length)
        self.against.uses.append(_Use(task=task, target=name, finding=finding))


def _without_secret(key: str, name: str) -> str:
    """What to write instead of a secret in `key`: the task finds it in its environment."""
    secret = name or "NAME"
    lists = f"Write secrets: [{secret}]"
    if not secret.isidentifier():
        variable = secret.upper().replace("-", "_")
        lists, secret = f'{lists} and env: {{{variable}: "${{{{ secrets[{secret!r}] }}}}"}}', variable
    match key:
        case "run":
            return f'{lists}; in the command "${secret}" is its value.'
        case "args" | "kwargs":
            return f"{lists}; in the target os.environ[{secret!r}] is its value."
        case "argv":
            return f"{lists}; the command finds it in its environment, as {secret}."
        case "if":
            return f"{lists}; the task itself can test it."
    return ""


# --- foreach, matrix -----------------------------------------------------------------------------------------------------------


def _foreach(name: str, task: spec.Task, against: _Against) -> Iterator[Finding]:
    path = ("tasks", name, "foreach")
    match task.foreach:
        case str() as text:
            yield from _listing(text, _Place(path=path, task=name, says="foreach"), against)
        case spec.Glob(glob=patterns):
            yield from _all(patterns, _Place(path=(*path, "glob"), task=name, says="foreach"), against)
        case spec.Lines(lines=text):
            yield from _leaf(text, _Place(path=(*path, "lines"), task=name, says="foreach"), against)
        case list() as items:
            yield from _all(items, _Place(path=path, task=name, says="foreach"), against)


def _matrix(name: str, matrix: spec.Matrix, against: _Against) -> Iterator[Finding]:
    for axis, values in matrix.items():
        place = _Place(path=("tasks", name, "matrix", axis), task=name, says="matrix")
        if isinstance(values, list):
            yield from _all(values, place, against)
        elif axis not in instances.CHANGES or "${{" in values:
            yield from _listing(values, place, against)


def _all(values: object, place: _Place, against: _Against) -> Iterator[Finding]:
    """The texts among what stands at a place."""
    found: list[tuple[Path, object]] = []
    collect(values, place.path, found)
    for path, value in found:
        yield from _leaf(value, replace(place, path=path), against)


def _listing(text: str, place: _Place, against: _Against) -> Iterator[Finding]:
    """A text that says what the instances are: exactly one expression, and one that can be a list."""
    wrong = list(_text(text, place, against))
    yield from wrong
    if wrong:
        return
    template = parse(text)
    if template is None or not template.is_single:
        what, example = (
            ("foreach", _items_of(text)) if place.says == "foreach" else ("a name of a matrix", cures.flow([text]) or "[…]")
        )
        message = f"{what} is a list, or one expression that gives a list; this is text"
        cure = _LISTS_OF_COMMANDS if re.search(r"\$\(|`", text) else f"Write {place.path[-1]}: {example}."
        yield Finding(path=place.path, message=message, hint="" if template else cure)
    elif (why := _why_no_list(template, against.job)) is not None:
        reference = template.references[0]
        hint = _LISTS_OF_COMMANDS if why == "stdout is not a list" else ""
        yield Finding(path=place.path, message=why, hint=hint, offset=reference.offset, length=reference.length)


def _items_of(text: str) -> str:
    """What was probably meant: files where it is a pattern."""
    return "[a, b]" if not re.search(r"[*?]", text) else cures.flow({"glob": text}) or "{glob: …}"


def _why_no_list(template: Template, job: spec.Job) -> str | None:
    """Why an expression that is nothing but a look-up cannot give a list."""
    if template.only is None or template.only.path is None:
        return None
    root, keys = template.only.path
    if root == "params" and len(keys) == 1 and keys[0] in job.params:
        param = job.params[str(keys[0])]
        kind = _type_of(param)
        return None if kind in {"list", None} else f"the parameter {keys[0]!r} is {_A[kind]}, not a list"
    if root == "tasks" and len(keys) == 2 and keys[0] in job.tasks and keys[1] in _NOT_LISTS:
        return f"{keys[1]} is not a list"
    return "run has no lists" if root == "run" else None


_LISTS_OF_COMMANDS: Final = "Let the command write a file, one item a line: foreach: {lines: FILE}."
_TRUTHS: Final = {**dict.fromkeys(("yes", "on"), "true"), **dict.fromkeys(("no", "off"), "false")}
_A: Final = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "path": "a path",
    "date": "a date",
    "choice": "a choice",
    "str": "text",
}


def _type_of(param: object) -> str | None:
    """The type as far as it is said: by name, or by the default."""
    if isinstance(param, spec.Param):
        if param.type is not None:
            return param.type
        param = param.default if param.default is not None else (param.choices or [None])[0]
    return {bool: "bool", int: "int", float: "float", list: "list"}.get(type(param), "str")
