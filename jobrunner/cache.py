"""Which tasks need not run, because nothing that they depend on has changed: the engine's side, which reads no file of theirs.

    attempt ─▶ check ─Call─▶ a host: fingerprint.check ─Result─▶ judge ─┬─ fresh: as it ended when it was stored
                                                                        └─ causes ─▶ it runs ─▶ store ─Call─▶ fingerprint.store

What comes to a host are digests, patterns and what is to be kept: values of variables and arguments never leave this process.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import posixpath
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobrunner import expressions, fingerprint
from jobrunner.bind import Binder
from jobrunner.bind.lines import INTERPRETERS
from jobrunner.errors import ExpressionError
from jobrunner.fingerprint import Request, digest_of
from jobrunner.plan import Attempt, Plan
from jobrunner.structs import struct, values
from jobrunner.work import Call, Command, Outcome, Result

if TYPE_CHECKING:
    from jobrunner.spec import Job, Task

LARGEST = 1 << 20
"""Bytes of what a task gave that an entry keeps; with more it runs again where somebody asks for it."""
_MOST_FOUND = 10_000
_CHECK, _STORE = "jobrunner.fingerprint:check", "jobrunner.fingerprint:store"
_SAYS_NOTHING = frozenset(
    {"id", "env", "cwd", "output_file", "stdout_needed", "leftover_allowed", "needed", "resources", "target"}
)
"""Fields of a Call or Command that are other ones in each run, or decide nothing of what it does. `env` and `cwd` see below."""


@struct
class Verdict:
    """Whether an attempt need not run; if so, how the instance ended when that was stored, else why."""

    fresh: bool
    causes: tuple[str, ...] = ()
    result: Result | None = None


def directory_of(job_dir: Path, file: Path) -> Path:
    """Where the entries of a job file are: two files of one name have nothing to do with each other."""
    return job_dir / "cache" / digest_of(os.path.realpath(file))[:16]


class Cache:
    """What is cached of one job. `directory` has an entry for each instance, and is made when the first one is.

    `force` says which tasks run in any case. `now` is the time in seconds since 1970. `keeps` says whose data somebody will
    ask for, and `withhold` which bytes must not be kept.
    """

    def __init__(
        self,
        job: Job,
        binder: Binder,
        directory: Path,
        *,
        folder: Path,
        force: Callable[[str], bool],
        now: Callable[[], float],
        keeps: Callable[[str], bool],
        withhold: Callable[[bytes], bool] = lambda data: False,
    ) -> None:
        self._job, self._binder, self._directory, self._folder = job, binder, directory, str(folder)
        self._force, self._now, self._keeps, self._withhold = force, now, keeps, withhold
        self._token = secrets.token_hex(8)
        self._plan: Plan | None = None
        self._paths = {name: _compiled(task) for name, task in job.tasks.items() if task.cache}
        self._found: dict[tuple[str, str | None], str] = {}
        """Of instances in flight: the digest of what they depend on."""
        self._given: Counter[str] = Counter()
        """Task → the sum over the digests of its instances: they may end in any order."""

    def attach(self, plan: Plan) -> None:
        """Say whose attempts are to come."""
        self._plan = plan

    def check(self, attempt: Attempt, work: Call | Command) -> Call | None:
        """What a host has to look at before an attempt runs; None where the task has no cache."""
        if attempt.task not in self._paths:
            return None
        return Call(id=-attempt.id, target=_CHECK, kwargs=_plain(self._request(attempt, work)), needed=True)

    def judge(self, attempt: Attempt, result: Result) -> Verdict:
        """What the host has found. A look that failed is a cause to run, and leaves no entry."""
        try:
            if result.outcome is not Outcome.SUCCEEDED:
                raise ValueError(result.error.message if result.error else str(result.outcome))
            return self.verdict(attempt, result.json())
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            with contextlib.suppress(OSError):
                fingerprint.forget(self._entry(attempt))
            return Verdict(fresh=False, causes=(f"its cache could not be checked: {' '.join(str(error).split())[:200]}",))

    def verdict(self, attempt: Attempt, answer: dict[str, Any]) -> Verdict:
        """What an answer of `fingerprint.check` or `compare` means. Raises ValueError, TypeError or KeyError where it is none."""
        is_fresh, causes = bool(answer["fresh"]), tuple(map(str, answer["causes"]))
        stored = _stored(attempt, answer["data"]) if is_fresh else None
        self._has_found(attempt, str(answer["digest"]))
        return Verdict(fresh=is_fresh, causes=causes, result=stored)

    def store(self, attempt: Attempt, work: Call | Command, result: Result) -> Call | None:
        """What a host has to do when an attempt has succeeded; None where nothing is to be stored."""
        del work  # what it was is in the claim that the check has made
        if attempt.task not in self._paths or result.outcome is not Outcome.SUCCEEDED:
            return None
        try:
            outputs = self._evaluated(attempt)[1]
        except ExpressionError:  # as the check has said already
            return None
        kwargs = {
            "entry": self._entry(attempt),
            "owner": self._owner(attempt),
            "now": self._now(),
            "folder": self._folder,
            "outputs": outputs,
            "data": self._data(attempt.task, result),
        }
        return Call(id=-attempt.id, target=_STORE, kwargs=kwargs, needed=True)

    def noted(self, answer: Result) -> str:
        """Why a success was not stored, from the Result of the Call of `store`; empty where it was."""
        try:
            found = answer.json() if answer.outcome is Outcome.SUCCEEDED else {"stored": False, "why": "that went wrong"}
            return "" if found["stored"] else f"not cached: {found['why'] or 'it runs elsewhere too'}"
        except (ValueError, TypeError, KeyError):
            return "not cached: that went wrong"

    def ended(self, attempt: Attempt, digest: str) -> None:
        """An attempt has succeeded, now or before; `digest` is that of its definition. What needs it is told apart by it."""
        own = [attempt.key, digest, self._found_of(attempt), self._needs(self._job.tasks[attempt.task])]
        self._given[attempt.task] += int(digest_of(own)[:32], 16)

    # What a task depends on.

    def _request(self, attempt: Attempt, work: Call | Command) -> Request:
        task = self._job.tasks[attempt.task]
        assert task.cache is not None
        problem, inputs, outputs = "", list[str](), list[str]()
        try:
            inputs, outputs = self._evaluated(attempt)
        except ExpressionError as error:
            problem = f"what it depends on is not known: {error}"
        return Request(
            entry=self._entry(attempt),
            owner=self._owner(attempt),
            now=self._now(),
            folder=self._folder,
            module=work.target.partition(":")[0] if isinstance(work, Call) else "",
            scripts=list(_scripts(work, self._folder)) if isinstance(work, Command) else [],
            facts={**self._facts(attempt, work), "the list of its outputs": digest_of(outputs)},
            env=dict(self._env(attempt, work)),
            needs=self._needs(task),
            inputs=inputs,
            ttl=task.cache.ttl,
            wants_data=self._keeps(attempt.task),
            force=self._force(attempt.task),
            problem=problem,
        )

    def _facts(self, attempt: Attempt, work: Call | Command) -> dict[str, str]:
        """Digests, by what they are called to people."""
        rest = {name: value for name, value in values(work).items() if name not in _SAYS_NOTHING}
        folder = work.cwd.removeprefix(self._folder)  # the folder may have been moved with all that is in it
        facts = {"the folder it runs in": digest_of(folder)}
        if isinstance(work, Call):
            facts |= {"the target": digest_of(work.target), "the arguments": digest_of(rest)}
        else:
            facts["the command"] = digest_of(rest)
        return facts if attempt.index is None else {**facts, "the item": digest_of(attempt.item)}

    def _env(self, attempt: Attempt, work: Call | Command) -> Iterator[tuple[str, str | None]]:
        """The variables that are declared for it, and those that its `cache` names. Of secrets only what that names counts."""
        task = self._job.tasks[attempt.task]
        assert task.cache is not None
        hidden = {name for name, text in task.env.items() if _reads_secret(text)} | set(task.secrets)
        around = self._binder.scope(self._the_plan, attempt)["env"]
        assert isinstance(around, dict)
        for name in dict.fromkeys((*self._binder.job_env, *task.env, *task.cache.env)):
            if name in hidden and (name not in task.cache.env or name not in work.env):
                if name in task.cache.env:
                    yield name, None  # who asks before a run does not read secrets
            else:
                yield name, digest_of([work.env.get(name, around.get(name))])

    def _needs(self, task: Task) -> dict[str, str | None]:
        """What it needs, each with the digest of what that was. One that is not selected is as it was."""
        plan = self._the_plan
        return {need: digest_of(self._given[need]) if need in plan.tasks else None for need in dict.fromkeys(task.needs)}

    @property
    def _the_plan(self) -> Plan:
        assert self._plan is not None, "attach a plan first"
        return self._plan

    def _evaluated(self, attempt: Attempt) -> tuple[list[str], list[str]]:
        """Inputs and outputs of an instance. Raises ExpressionError."""
        scope = self._binder.scope(self._the_plan, attempt)
        inputs, outputs = (list(_texts(paths(scope))) for paths in self._paths[attempt.task])
        return inputs, outputs

    def _has_found(self, attempt: Attempt, digest: str) -> None:
        self._found[attempt.task, attempt.key] = digest
        if len(self._found) > _MOST_FOUND:  # of attempts that have failed; an entry tells too
            del self._found[next(iter(self._found))]

    def _found_of(self, attempt: Attempt) -> str:
        if attempt.task not in self._paths:
            return ""
        if found := self._found.pop((attempt.task, attempt.key), ""):
            return found
        entry = fingerprint.entry_at(self._entry(attempt))  # it has ended in an earlier part of the run
        return entry.digest if entry else self._token

    # What is kept.

    def _entry(self, attempt: Attempt) -> str:
        """Where it is: under the name of the task, and a digest for whatever its item is called."""
        return str(self._directory / f"{attempt.task}-{digest_of([attempt.task, attempt.key])[:16]}.json")

    def _owner(self, attempt: Attempt) -> str:
        return f"{self._token}-{attempt.id}"

    def _data(self, task: str, result: Result) -> str | None:
        pieces = [result.value or b"", result.stdout, *(text.encode("utf-8", "replace") for text in result.outputs.values())]
        is_kept = self._keeps(task) and not result.value_file and sum(map(len, pieces)) <= LARGEST
        if not is_kept or any(map(self._withhold, pieces)):
            return None
        value = None if result.value is None else result.value.decode("utf-8", "surrogatepass")
        stdout = base64.b64encode(result.stdout).decode()
        return json.dumps({"value": value, "stdout": stdout, "outputs": result.outputs, "exit_code": result.exit_code})


def _stored(attempt: Attempt, data: str | None) -> Result:
    """How it ended when it was stored. Raises ValueError, TypeError or KeyError where that cannot be told."""
    if data is None:
        return Result(id=attempt.id, outcome=Outcome.SUCCEEDED, exit_code=0 if attempt.is_command else None)
    kept = json.loads(data)
    return Result(
        id=attempt.id,
        outcome=Outcome.SUCCEEDED,
        exit_code=kept["exit_code"],
        value=None if kept["value"] is None else kept["value"].encode("utf-8", "surrogatepass"),
        stdout=base64.b64decode(kept["stdout"]),
        outputs=dict(kept["outputs"]),
    )


def _plain(request: Request) -> dict[str, object]:
    return values(request)


_Paths = Callable[[expressions.Scope], expressions.JsonValue]


def _compiled(task: Task) -> tuple[_Paths, _Paths]:
    assert task.cache is not None
    return expressions.compiled(list(task.cache.inputs)), expressions.compiled(list(task.cache.outputs))


def _texts(values: object) -> Iterator[str]:
    """Paths as texts; an expression that gives a list gives several. Raises ExpressionError for one that is empty."""
    for value in values if isinstance(values, list) else [values]:
        if isinstance(value, list):
            yield from _texts(value)
            continue
        text = "" if value is None else expressions.text_of(value)
        if not text.strip():
            raise ExpressionError("a path of its inputs or outputs is empty")
        yield text


def _reads_secret(text: str) -> bool:
    template = expressions.parse(text) if "${{" in text else None
    return template is not None and any(reference.root == "secrets" for reference in template.references)


def _scripts(work: Command, folder: str) -> Iterator[str]:
    """The scripts of the job's own that a command begins with, as far as its first words tell: `./load.sh`, `sh load.sh`."""
    for argv in (work.argv, *work.then):
        words = argv[2].split(maxsplit=2) if argv[:2] == ("/bin/sh", "-ec") else argv
        named = words[:1] if words and "/" in words[0] else words[1:2] if words and words[0] in INTERPRETERS else ()
        for word in named:
            path = posixpath.normpath(posixpath.join(work.cwd, word))
            if path.startswith(f"{folder}/") and "\0" not in path:
                yield posixpath.relpath(path, folder)
