"""What `${{ }}` refers to, checked before anything runs: names, parameters, tasks among the needs, attributes that exist."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any, Final, TypeAlias

from jobrunner import spec
from jobrunner.errors import ExpressionError
from jobrunner.expressions import ROOTS, Reference, Template, parse
from jobrunner.hints import did_you_mean
from jobrunner.jobfile import checks, needs
from jobrunner.jobfile.document import Finding, Path
from jobrunner.jobfile.salvage import Unsure

RUN_KEYS: Final = ("id", "dir", "started_at", "attempt")
_OF_COMMANDS: Final = ("stdout", "outputs", "exit_code")
_OTHERS_HAVE: Final = frozenset({"result", "results", *_OF_COMMANDS})
_NOT_LISTS: Final = frozenset({"exit_code", "outcome", "stdout"})

MOST_EXPRESSIONS = 1000
"""Expressions in one text: each takes 20 µs to read."""
MOST_UNREADABLE = 10
"""Expressions of one text that are said to be none: the text is read again for each."""

_WIDEST = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A text with an expression: where it stands, and which names hold there."""

    path: Path
    task: str | None
    has_item: bool
    is_foreach: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """`tasks.target` in a text of `task`, which does not name it among its own needs."""

    task: str
    target: str
    finding: Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class _Against:
    """What texts are checked against, and the `uses` that they make of other tasks, judged last."""

    job: spec.Job
    unsure: Unsure
    uses: list[_Use]


def find(job: spec.Job, unsure: Unsure) -> Iterator[Finding]:
    """Everything wrong in the expressions of a job whose defaults are merged, and values that no JSON holds."""
    uses: list[_Use] = []
    against = _Against(job=job, unsure=unsure, uses=uses)
    for key, text in job.env.items():
        yield from _text(text, _Place(path=("env", key), task=None, has_item=False), against)
    for name, param in job.params.items():
        if isinstance(param, spec.Param):
            yield from _unfit(param.default, ("params", name, "default"))
        else:
            yield from _unfit(param, ("params", name))
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
            _collect(value, (key,), found)
    has_item = task.foreach is not None
    for path, leaf in found:
        yield from _leaf(leaf, _Place(path=("tasks", name, *path), task=name, has_item=has_item), against)
    if has_item:
        yield from _foreach(name, task, against)


def _collect(value: Any, path: Path, found: list[tuple[Path, object]]) -> None:
    """What has to be looked at among all the values of a task: most have nothing in them, and cost one test."""
    kind = type(value)
    if kind is str:
        if "${{" in value or "\0" in value:
            found.append((path, value))
    elif kind is list:
        for position, item in enumerate(value):
            _collect(item, (*path, position), found)
    elif kind is dict:
        for key, item in value.items():
            _collect(item, (*path, key), found)
    elif _is_unfit(value):
        found.append((path, value))


def _is_unfit(value: object) -> bool:
    if type(value) is float:
        return not math.isfinite(value)
    return type(value) is int and not -_WIDEST <= value < 2 * _WIDEST


def _unfit(value: object, path: Path) -> Iterator[Finding]:
    found: list[tuple[Path, object]] = []
    _collect(value, path, found)
    for place, leaf in found:
        if not isinstance(leaf, str):
            yield _not_json(place, leaf)


def _not_json(path: Path, value: object) -> Finding:
    if isinstance(value, float):
        return Finding(path=path, message="infinity and not-a-number are no JSON values; tasks are handed JSON", hint="Quote it.")
    return Finding(path=path, message="a whole number beyond 64 bits cannot be handed to a task", hint="Quote it.")


def _leaf(value: object, place: _Place, against: _Against) -> Iterator[Finding]:
    if not isinstance(value, str):
        yield _not_json(place.path, value)
        return
    if "\0" in value and place.path[2] in {"run", "argv", "env", "cwd"}:
        yield Finding(path=place.path, message="a command cannot be handed a NUL character")
    yield from _text(value, place, against)


def _text(text: str, place: _Place, against: _Against) -> Iterator[Finding]:
    if (count := text.count("${{")) > MOST_EXPRESSIONS:
        message = f"a text holds at most {MOST_EXPRESSIONS:,} expressions; this one has {count:,}"
        yield Finding(path=place.path, message=message, hint="Make the text in a task, and write its result here.")
        return
    template, errors = _readable(text)
    if template is not None and place.path[2:] == ("run",):
        try:
            template.check_shell()
        except ExpressionError as error:
            errors.append(error)
    for wrong in errors:
        yield Finding(path=place.path, message=wrong.message, hint=wrong.hint, offset=wrong.offset, length=wrong.length)
    judge = _Judge(job=against.job, place=place, against=against)
    for reference in template.references if template else ():
        if (said := judge.about(reference)) is not None:
            message, hint = said[0], reference.hint or said[1]
            yield Finding(path=place.path, message=message, hint=hint, offset=reference.offset, length=reference.length)


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


Wrong: TypeAlias = tuple[str, str] | None
"""Message and hint, or None where all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
                return _key_of("run", reference.path, RUN_KEYS)
            case "item" | "index":
                return self._item(reference)
            case "secrets":
                return self._secret(reference)
            case "env":
                return self._env(reference)
        if reference.root in ROOTS:
            return None
        hint = did_you_mean(reference.root, sorted(ROOTS)) or f"Names are {', '.join(sorted(ROOTS))}."
        return f"the name {reference.root!r} is not known here", hint

    def _param(self, reference: Reference) -> Wrong:
        if not reference.path or (name := str(reference.path[0])) in self.job.params or "params" in self.against.unsure.tables:
            return None
        known = list(self.job.params)
        hint = did_you_mean(name, known) or ("" if known else f"Declare it: params: {{{name}: …}}.")
        return f"the job has no parameter {name!r}", hint

    def _item(self, reference: Reference) -> Wrong:
        if self.place.is_foreach:
            return f"{reference.root!r} is not known in foreach, which says what the items are", ""
        if self.place.task is None:
            return f"{reference.root!r} is not known in the env of the job", "Write it in the env of the task."
        return None if self.place.has_item else (f"{reference.root!r} is known only in a task with foreach", "")

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
        return f"the secret {source!r} is read from {name}, which tasks then do not see", f"Write {_dotted('secrets', source)}."

    def _task(self, reference: Reference) -> Wrong:
        if self.place.task is None:
            return "the env of the job is made before any task runs", "Write it in the env of the task."
        if not reference.path or not isinstance(reference.path[0], str):
            return "after tasks comes the name of a task", "Write tasks.NAME.result."
        name, keys = reference.path[0], reference.path[1:]
        if name not in self.job.tasks:
            return self._no_task(name)
        if name == self.place.task:
            return "a task cannot refer to itself", ""
        if name not in self.job.tasks[self.place.task].needs:
            self._note(name, reference)
        return None if name in self.against.unsure.kinds else _result_key(name, self.job.tasks[name], keys)

    def _no_task(self, name: str) -> Wrong:
        if name in self.against.unsure.kinds:
            return None
        return f"no task is called {name!r}", needs.near(name, self.job.tasks, of=str(self.place.task))

    def _note(self, name: str, reference: Reference) -> None:
        task = str(self.place.task)
        named = self.job.tasks[task].needs
        hint = f"Add {name} to needs: [{', '.join([*named, name])}]." if len(named) < 10 else f"Add {name} to needs."
        message = f"{name!r} is not among the needs of {task!r}, so it may not have run yet"
        finding = Finding(path=self.place.path, message=message, hint=hint, offset=reference.offset, length=reference.length)
        self.against.uses.append(_Use(task=task, target=name, finding=finding))


def _key_of(root: str, keys: Sequence[str | int], known: Sequence[str]) -> Wrong:
    there = f"here {'is' if len(known) == 1 else 'are'} {', '.join(known)}."
    if not keys:
        return f"{root} alone is no value", f"Write {root}.{known[0]}; t{there}"
    if keys[0] in known:
        return None
    return f"{root} has no {str(keys[0])!r}", did_you_mean(str(keys[0]), known) or f"T{there}"


def _result_key(name: str, task: spec.Task, keys: Sequence[str | int]) -> Wrong:
    """What `tasks.name.KEY` has to be for that kind of task."""
    key = str(keys[0]) if keys else ""
    own = _own_keys(task)
    if key in own or key not in _OTHERS_HAVE:
        return _key_of(_spelled(name), keys, (*own, "outcome"))
    return _of_target(name, own[0], key) if task.target is not None else _of_command(name, task, key)


def _own_keys(task: spec.Task) -> tuple[str, ...]:
    if task.target is not None:
        return ("result",) if task.foreach is None else ("results",)
    return _OF_COMMANDS if task.foreach is None else ()


def _of_target(name: str, own: str, key: str) -> Wrong:
    hint = f"Write {_spelled(name)}.{own}."
    if key in _OF_COMMANDS:
        return f"{name!r} is a target: it has no {key}", hint
    return f"{name!r} {'has no foreach: it has one result' if own == 'result' else 'has foreach: it has a list of results'}", hint


def _of_command(name: str, task: spec.Task, key: str) -> Wrong:
    if task.foreach is None:
        keys = " or ".join(f"{_spelled(name)}.{own}" for own in ("stdout", "outputs.KEY", "exit_code"))
        return f"{name!r} is a command: it has no {key}", f"Write {keys}."
    hint = "Let the command write files, or write it as a target: that has results."
    return f"{name!r} is a command with foreach: it has no {key}{' of its own, each item has' * (key in _OF_COMMANDS)}", hint


def _spelled(name: str) -> str:
    """The task as an expression refers to it."""
    return _dotted("tasks", name)


def _dotted(root: str, name: str) -> str:
    return f"{root}.{name}" if name.isidentifier() and not iskeyword(name) else f"{root}[{name!r}]"


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
    return ""


# --- foreach -----------------------------------------------------------------------------------------------------------------


def _foreach(name: str, task: spec.Task, against: _Against) -> Iterator[Finding]:
    path = ("tasks", name, "foreach")
    match task.foreach:
        case str() as text:
            yield from _listing(text, _Place(path=path, task=name, has_item=True, is_foreach=True), against)
        case spec.Glob(glob=text):
            yield from _leaf(text, _Place(path=(*path, "glob"), task=name, has_item=True, is_foreach=True), against)
        case spec.Lines(lines=text):
            yield from _leaf(text, _Place(path=(*path, "lines"), task=name, has_item=True, is_foreach=True), against)
        case list() as items:
            found: list[tuple[Path, object]] = []
            _collect(items, path, found)
            for place, value in found:
                yield from _leaf(value, _Place(path=place, task=name, has_item=True, is_foreach=True), against)


def _listing(text: str, place: _Place, against: _Against) -> Iterator[Finding]:
    """A text of foreach: exactly one expression, and one that can be a list."""
    wrong = list(_text(text, place, against))
    yield from wrong
    if wrong:
        return
    template = parse(text)
    if template is None or not template.is_single:
        message = "foreach is a list, or one expression that gives a list; this is text"
        yield Finding(path=place.path, message=message, hint="" if template else "Write foreach: [a, b].")
    elif (why := _why_no_list(template, against.job)) is not None:
        reference = template.references[0]
        yield Finding(path=place.path, message=why, offset=reference.offset, length=reference.length)


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
