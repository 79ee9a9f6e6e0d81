"""Binds a task to its values: expressions become the items of a fan-out, a Call or a Command.

Every text of a task is parsed once, when the task is first bound; after that an attempt costs only its look-ups.
"""

from __future__ import annotations

import posixpath
from _blake2 import blake2b  # without OpenSSL, which `hashlib` loads
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from jobrunner import expressions
from jobrunner.bind.lines import command_lines
from jobrunner.bind.paths import absolute, passable, template_value
from jobrunner.bind.scope import CertainTasks, RunFacts, Tasks, Values
from jobrunner.encoding import sorted_dumps
from jobrunner.errors import ExpressionError, UsageError
from jobrunner.expressions import Scope
from jobrunner.items import Items
from jobrunner.kinds import Glob, Lines, Range
from jobrunner.plan import Attempt, Plan, Skip, Span
from jobrunner.structs import struct
from jobrunner.typed import TYPE_CHECKING, Any, TypeAlias, cast
from jobrunner.work import Call, Calls, Command, Resources

if TYPE_CHECKING:
    from jobrunner.spec import Job, Task

_NO_ENV: dict[str, str] = {}
_NOTHING: Scope = {}
_OWN = frozenset({"index", "item"})
_Given: TypeAlias = "tuple[list[list[Any]], list[dict[str, Any]]]"
"""The args and the kwargs of each."""


@struct
class Run:
    """What expressions call `run`, and where the job file is. `folder` and `dir` are absolute."""

    id: str
    dir: str
    started_at: str
    folder: str
    attempt: int = 1


@struct(frozen=False)  # of a graph there is one for each task
class _Bound:
    """The texts of one task as functions of a scope."""

    condition: Callable[[Scope], bool] | None
    args: Callable[[Scope], Any] | None
    """None, also below, where no expression stands there."""
    kwargs: Callable[[Scope], Any] | None
    is_own: bool
    """Expressions in args and kwargs ask for nothing but the item and its place."""
    commands: tuple[Callable[[Scope], tuple[str, ...]], ...]
    env: Callable[[Scope], dict[str, str]] | None
    secret_env: Callable[[Scope], dict[str, str]] | None
    """What holds secrets: it reaches the attempt, and no digest."""
    cwd: Callable[[Scope], str]
    is_fixed: bool
    """No expression stands in its commands or folder."""
    has_own_env: bool
    """The task declares variables or secrets."""
    resources: Resources | None


class Binder:
    """Gives what an attempt runs. Raises ExpressionError where a value that it needs cannot be had.

    `shared` names the pools in which calls share one environment: they get none of their own.
    """

    def __init__(
        self,
        job: Job,
        *,
        params: Mapping[str, object],
        environ: Mapping[str, str],
        run: Run,
        env_file: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        masked: Callable[[str], str] = str,
        shared: Collection[str] = (),
    ) -> None:
        self._masked, self._shared = masked, shared
        self._job, self._tasks, self._run, self._secrets = job, job.tasks, run, secrets or {}
        facts = {"id": run.id, "dir": run.dir, "started_at": run.started_at, "attempt": run.attempt}
        from_file = env_file or {}
        self._facts_of_run = facts
        self._scope: dict[str, object] = {"params": params, "env": {**environ, **from_file}, "run": facts}
        self.job_env: dict[str, str] = {**from_file, **_in_order(job.env, self._scope)}
        """What the job's `env_file` holds, and its `env` with its expressions evaluated."""
        self._around: dict[str, str] = {**environ, **self.job_env}
        """What every command has in its environment: made once, for it may be long."""
        self._scope["env"] = self._around
        self._bound: dict[str, _Bound] = {}
        """Of fan-outs: any other task is bound once, and kept it would only take up room."""
        self._bare = _Bound(
            condition=None, args=None, kwargs=None, is_own=False, commands=(), env=None, secret_env=None,
            cwd=_folder(None, run.folder), is_fixed=False, has_own_env=False, resources=None,
        )  # fmt: skip
        """Of all tasks that are bare."""
        self._digests: dict[str, str] = {}
        """By target."""
        self._scope_known: tuple[Plan | None, dict[str, object]] = None, {}
        self._values: dict[str, Values] = {}
        runs = ":".join(filter(None, (environ.get("JOBRUNNER_RUNS"), run.id)))
        self.cookie = {"JOBRUNNER_RUN_ID": run.id, "JOBRUNNER_RUNS": runs}
        """What every process of the run has in its environment: the run, and all runs around it, the outermost first."""

    def items(self, plan: Plan, name: str) -> Items:
        """The items of a fan-out, once its needs have ended."""
        from jobrunner.bind.fanout import unfolding  # most jobs have no fan-out

        return unfolding(self._tasks[name], self._run.folder)(self.scope(plan))

    def decide(self, plan: Plan, name: str) -> bool:
        """What the condition of a task says, once its needs have ended."""
        condition = self._tasks[name].condition
        return condition is None or _judged(condition)(self._judging(self.scope(plan), plan, name))

    def work(self, plan: Plan, attempt: Attempt, needed: bool) -> Call | Command | Skip:
        """What `attempt` runs; `needed` says that an expression somewhere waits for its result.

        A Skip where its condition, which looks at the item, says so.
        """
        task, bound = self._tasks[attempt.task], self._bound.get(attempt.task) or self._of(attempt.task)
        is_judged = attempt.is_conditional and bound.condition is not None
        if is_judged and not bound.condition(self._judging(self.scope(plan, attempt), plan, attempt.task)):  # type: ignore[misc]  # it is there
            return Skip.CONDITION
        if task.target is None:
            return self._command(plan, attempt, task, bound, needed)
        args, kwargs = task.args, task.kwargs
        if bound.args is not None or bound.kwargs is not None:
            scope = {"index": attempt.index, "item": attempt.item} if bound.is_own else self.scope(plan, attempt)
            args = args if bound.args is None else bound.args(scope)
            kwargs = kwargs if bound.kwargs is None else bound.kwargs(scope)
        cwd = bound.cwd(self._certain(plan, attempt)) if task.cwd else ""
        env = _NO_ENV  # what is put into the environment of the host while it runs this call
        if bound.has_own_env:
            env = {**self._own_env(plan, attempt, bound), **self._facts(attempt)}
        elif attempt.pool not in self._shared:
            env = self._facts(attempt)
        return Call(attempt.id, task.target, args, kwargs, env, cwd, needed, bound.resources)

    def calls(self, plan: Plan, span: Span) -> tuple[Calls, list[str]]:
        """What the attempts of `span` run, and the digest of each: as `work` and `digest` of each."""
        task = self._tasks[span.tasks[0]]
        target, cwd = task.target or "", _folder(task.cwd, self._run.folder)(_NOTHING) if task.cwd else ""
        args, kwargs = self._given_items(plan, span, task) if span.places else self._given_tasks(plan, span)
        own, env = ({}, _NO_ENV) if span.pool in self._shared else self._facts_of(span)
        if not (span.places or cwd or any(args) or any(kwargs)):
            digests = [self._digest_of(target)] * len(args)
        else:
            around = _NO_ENV, cwd, self.job_env
            items = [[each] for each in span.items] if span.places else [list[object]()] * len(args)
            what = zip(args, kwargs, items, strict=True)
            digests = [_digested([target, *given, *around, *item]) for *given, item in what]
        return Calls(span.ids, target, args, kwargs, env, own, cwd), digests

    def _given_items(self, plan: Plan, span: Span, task: Task) -> _Given:
        bound, count = self._bound.get(span.tasks[0]) or self._of(span.tasks[0]), len(span.places)
        args, kwargs = [task.args] * count, [task.kwargs] * count
        if bound.args is not None or bound.kwargs is not None:
            scopes: list[Scope]
            if bound.is_own:
                scopes = [{"index": place, "item": item} for place, item in zip(span.places, span.items, strict=True)]
            else:
                scopes = [self.scope(plan, span.attempt(each)) for each in span.ids]
            args = args if bound.args is None else [bound.args(scope) for scope in scopes]
            kwargs = kwargs if bound.kwargs is None else [bound.kwargs(scope) for scope in scopes]
        return args, kwargs

    def _given_tasks(self, plan: Plan, span: Span) -> _Given:
        tasks, scope = [self._tasks[name] for name in span.tasks], self.scope(plan)
        return [_valued(task.args, scope) for task in tasks], [_valued(task.kwargs, scope) for task in tasks]

    def _facts_of(self, span: Span) -> tuple[dict[str, Sequence[str]], dict[str, str]]:
        """As `_facts` of each: what each has by itself, and what all have."""
        run, task = self._run.id, span.tasks[0]
        around = {**self.cookie, "JOBRUNNER_ATTEMPT": "1"}
        if not span.places:
            names = [f"{run}/{each}" for each in span.tasks]
            return {"JOBRUNNER_TASK": span.tasks, "JOBRUNNER_TASK_KEY": names}, {**around, "JOBRUNNER_ITEM": ""}
        keys = [each or "" for each in span.keys]
        names = [f"{run}/{task}/{each}" if each else f"{run}/{task}" for each in keys]
        return {"JOBRUNNER_ITEM": keys, "JOBRUNNER_TASK_KEY": names}, {**around, "JOBRUNNER_TASK": task}

    def _own_env(self, plan: Plan, attempt: Attempt, bound: _Bound) -> dict[str, str]:
        """What the task declares, and the secrets that it lists."""
        scope = self._certain(plan, attempt)
        public, secret = bound.env, bound.secret_env
        return {**(public(scope) if public else {}), **(secret(scope) if secret else {})}

    def digest(self, attempt: Attempt, work: Call | Command) -> str:
        """Names what `work` is: its definition with every value in it, and its item, of which a command is told in its
        environment; not the item's place nor the attempt.
        """
        declared = self._tasks[attempt.task].env
        if isinstance(work, Call) and not (declared or work.args or work.kwargs or work.cwd) and attempt.index is None:
            return self._digest_of(work.target)
        env = {name: work.env[name] for name, text in declared.items() if not _reads_secret(text)} if declared else _NO_ENV
        if isinstance(work, Call):
            what: list[object] = [work.target, work.args, work.kwargs, env, work.cwd, self.job_env]
        else:
            what = [[work.argv, *work.then] if work.then else work.argv, env, work.cwd, self.job_env]
        if attempt.index is not None:
            what.append(attempt.item)
        return _digested(what)

    def _digest_of(self, target: str) -> str:
        """Of a call with nothing else, as most of a large graph are."""
        known = self._digests.get(target)
        if known is None:
            known = self._digests[target] = _digested([target, [], {}, _NO_ENV, "", self.job_env])
        return known

    def _command(self, plan: Plan, attempt: Attempt, task: Task, bound: _Bound, needed: bool) -> Command:
        scope = _NOTHING if bound.is_fixed else self._certain(plan, attempt)
        first, *rest = [command(scope) for command in bound.commands]
        output_file = f"{self._run.dir}/outputs/{attempt.id}"
        facts = {**self._facts(attempt), "JOBRUNNER_OUTPUT": output_file}
        return Command(
            id=attempt.id,
            argv=first,
            then=tuple(rest),
            env={**self._around, **(self._own_env(plan, attempt, bound) if bound.has_own_env else {}), **facts},
            cwd=bound.cwd(scope),
            output_file=output_file,
            stdout_needed=needed,
            leftover_allowed=task.stop.leftover == "allow",
            resources=bound.resources,
        )

    def _facts(self, attempt: Attempt) -> dict[str, str]:
        """What every attempt can read about itself. The key is the same for all tries: an idempotency key."""
        task, item = attempt.task, attempt.key or ""
        return {
            **self.cookie,
            "JOBRUNNER_TASK": task,
            "JOBRUNNER_ITEM": item,
            "JOBRUNNER_ATTEMPT": str(attempt.number),
            "JOBRUNNER_TASK_KEY": f"{self._run.id}/{task}/{item}" if item else f"{self._run.id}/{task}",
        }

    def scope(self, plan: Plan, attempt: Attempt | None = None) -> Scope:
        """What the names in the expressions of a task mean, or in those of one of its instances."""
        around = self._scope_of(plan)
        if attempt is None or attempt.index is None:
            return around
        if self._tasks[attempt.task].matrix is None:
            return {**around, "index": attempt.index, "item": attempt.item}
        from jobrunner.bind import matrix

        return {**around, "index": attempt.index, "matrix": matrix.Values(attempt.item)}

    def _scope_of(self, plan: Plan) -> Scope:
        """What is the same for all attempts of a plan."""
        known, scope = self._scope_known
        if known is not plan:
            scope = {
                **self._scope,
                "run": RunFacts(self._facts_of_run, plan),
                "tasks": Tasks(self._job, plan, self._values, self._masked),
            }
            self._scope_known = plan, scope
        return scope

    def _certain(self, plan: Plan, attempt: Attempt) -> Scope:
        """The scope of what goes to the system, where nothing may be missing."""
        scope = self.scope(plan, attempt)
        return {**scope, "tasks": CertainTasks(scope["tasks"])}  # type: ignore[arg-type]  # it is made above

    def _judging(self, scope: Scope, plan: Plan, name: str) -> Scope:
        is_met = plan.needs_met(name)
        return {**scope, "success()": is_met, "failure()": not is_met, "always()": True}

    def _of(self, name: str) -> _Bound:
        """Its texts, seen for the first time, as far as they are kept."""
        task = self._tasks[name]
        if _is_bare(task):
            return self._bare
        bound = self._compile(task)
        if task.has_instances:
            self._bound[name] = bound
        return bound

    def _secret_env(self, task: Task) -> Callable[[Scope], dict[str, str]] | None:
        """The secrets that a task lists, under their own names and where its `env` names them."""
        listed = {name: self._secrets[name] for name in task.secrets if name in self._secrets}
        if not listed:
            return None
        own = {name: value for name, value in listed.items() if "-" not in name and name not in task.env}
        named = _texts({name: text for name, text in task.env.items() if _reads_secret(text)})
        return lambda scope: {**own, **named({**scope, "secrets": listed})}

    def _compile(self, task: Task) -> _Bound:
        return _Bound(
            condition=None if task.condition is None else _judged(task.condition),
            args=_varying(task.args),
            kwargs=_varying(task.kwargs),
            is_own=task.foreach is not None and _roots([task.args, task.kwargs]) <= _OWN,
            commands=command_lines(task) if task.target is None else (),
            env=_texts({name: text for name, text in task.env.items() if not _reads_secret(text)}) if task.env else None,
            secret_env=self._secret_env(task) if task.secrets else None,
            cwd=_folder(task.cwd, self._run.folder),
            is_fixed=task.target is None and expressions.is_constant([task.run, task.argv, task.cwd]),
            has_own_env=bool(task.env or task.secrets),
            resources=_resources(task),
        )


def _digested(what: list[object]) -> str:
    return blake2b(sorted_dumps(what), digest_size=8).hexdigest()


def _varying(value: Any) -> Callable[[Scope], Any] | None:
    """The value as a function of the scope; None where it holds no expression."""
    return None if not value or expressions.is_constant(value) else expressions.compiled(value)


def _valued(value: Any, scope: Scope) -> Any:
    varying = _varying(value)
    return value if varying is None else varying(scope)


def _is_bare(task: Task) -> bool:
    """It is a target without anything around it, as most of a large graph are."""
    around = task.args or task.kwargs or task.env or task.secrets or task.condition or task.cwd or task.resources
    return not around and task.target is not None


def _roots(value: object) -> set[str]:
    """What its expressions begin with."""
    return {each.root for text in _all_texts(value) if (found := expressions.parse(text)) for each in found.references}


def _reads_secret(text: str) -> bool:
    template = expressions.parse(text) if "${{" in text else None
    return template is not None and any(reference.root == "secrets" for reference in template.references)


def _resources(task: Task) -> Resources | None:
    wanted = task.resources
    return None if wanted is None else Resources(memory=wanted.memory, nice=wanted.nice, cpus=wanted.cpus)


def data_references(job: Job) -> dict[str, frozenset[str]]:
    """For each task whose data an expression uses: which of its values (`result`, `stdout`, …)."""
    found: dict[str, set[str]] = {}
    for task in job.tasks.values():
        if _is_bare(task) and not (task.has_instances or task.cache):  # there are no texts in it
            continue
        for template in _templates(task):
            for reference in template.references:
                if reference.root == "tasks" and reference.path:
                    found.setdefault(str(reference.path[0]), set()).update(str(key) for key in reference.path[1:2])
    return {name: frozenset(values) for name, values in found.items()}


def _templates(task: Task) -> Iterator[expressions.Template]:
    """Every text of a task that holds expressions."""
    values = [task.args, task.kwargs, task.run, task.argv, task.env, task.cwd, _foreach_text(task), task.matrix]
    if task.cache is not None:
        values += [task.cache.inputs, task.cache.outputs]
    for value in values:
        if value:  # most keys of most tasks are not given
            yield from filter(None, map(expressions.parse, _all_texts(value)))
    if task.condition is not None:
        yield expressions.condition(task.condition)


def _foreach_text(task: Task) -> object:
    match task.foreach:
        case Glob(glob=text) | Lines(lines=text):
            return text
        case Range() | None:
            return None
        case other:
            return other


def _all_texts(value: object) -> Iterator[str]:
    """Every text in `value` that holds an expression, however deep."""
    if isinstance(value, str):
        if "${{" in value:
            yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _all_texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _all_texts(each)


def _texts(env: Mapping[str, str]) -> Callable[[Scope], dict[str, str]]:
    """Environment values: always text, whatever an expression gives."""
    fixed = {name: text for name, text in env.items() if "${{" not in text}
    computed = {name: expressions.parse(text) for name, text in env.items() if "${{" in text}
    if not computed:
        return lambda scope: fixed
    return lambda scope: {**fixed, **{name: passable(expressions.text_of(t.value(scope))) for name, t in computed.items() if t}}


def _in_order(env: Mapping[str, str], scope: Scope) -> dict[str, str]:
    """The `env` of the job: each value may use those above it. Raises UsageError where one cannot be had."""
    around, found = cast(Mapping[str, str], scope["env"]), dict[str, str]()
    for name, text in env.items():
        try:
            found |= _texts({name: text})({**scope, "env": {**around, **found}})
        except ExpressionError as error:
            raise UsageError(f"env.{name}: {error}") from None
    return found


def _folder(cwd: str | None, folder: str) -> Callable[[Scope], str]:
    if cwd is None:
        return lambda scope: folder
    value = template_value(cwd)
    return lambda scope: posixpath.normpath(absolute(value(scope), folder))


def _judged(condition: str) -> Callable[[Scope], bool]:
    """A condition as true or false. Text is neither: that of a variable would be true whatever it says."""
    template = expressions.condition(condition)

    def judge(scope: Scope) -> bool:
        value = template.value(scope)
        if isinstance(value, str):
            raise ExpressionError(f"it gives the text {value[:80]!r}, not true or false; compare it with ==")
        return bool(value)

    return judge
