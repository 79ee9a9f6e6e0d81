"""What the parts of a job are told apart by, and what they come to: the same of the models (spec) and of a compiled job.

Here is what a run needs of them without loading pydantic. Everything else it only reads.
"""

from __future__ import annotations

from jobrunner.typed import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol, Self, TypeVar

    class _Glob(Protocol):
        @property
        def glob(self) -> str | list[str]: ...

    class _Task(Protocol):
        @property
        def limits(self) -> list[str] | dict[str, int]: ...
        @property
        def foreach(self) -> object: ...
        @property
        def matrix(self) -> object: ...
        @property
        def pool(self) -> str | None: ...
        @property
        def mode(self) -> str | None: ...
        @property
        def workers(self) -> int | str | None: ...

    class _Pool(Protocol):
        @property
        def mode(self) -> str | None: ...
        @property
        def executor(self) -> str | None: ...
        def model_copy(self, *, update: dict[str, Any]) -> Self: ...

    R = TypeVar("R")
    P = TypeVar("P", bound=_Pool, covariant=True)

    class _Job(Protocol[P]):
        @property
        def mode(self) -> str: ...
        @property
        def workers(self) -> int | str: ...
        @property
        def pools(self) -> Mapping[str, P]: ...
        @property
        def tasks(self) -> Mapping[str, _Task]: ...


MODES = ("serial", "thread", "process", "thread_pool", "process_pool")
"""The modes that a job file may name. What each of them does is in host.MODES, which loads threads and sockets."""
THREADED = frozenset({"thread", "thread_pool", "executor"})
"""Those whose attempts share one process, and that of an executor."""
ACTIONS = ("target", "run", "argv")
"""What a task may do: exactly one of these."""
SOURCES = ("env", "file", "command", "credential")
"""Where a secret may come from: exactly one of these."""
MOST_WORKERS = 4096
DEFAULT_POOL = "default"
"""The pool of tasks that name none: `mode` and `workers` of the job."""


class Param:
    """A declared parameter; one that is not is only its default."""

    __slots__ = ()


class Limit:
    """A limit with a scope; one without is a number of slots."""

    __slots__ = ()


class Range:
    """Items by number."""

    __slots__ = ()


class Glob:
    """Items by the names of files."""

    __slots__ = ()


class Lines:
    """Items by the lines of a file."""

    __slots__ = ()


def patterns(glob: _Glob) -> list[str]:
    """The patterns, also where there is one."""
    return [glob.glob] if isinstance(glob.glob, str) else glob.glob


def takes(task: _Task) -> dict[str, int]:
    """How many slots of which limits each instance takes."""
    return dict.fromkeys(task.limits, 1) if isinstance(task.limits, list) else task.limits


def has_instances(task: _Task) -> bool:
    """It is a fan-out: what it comes to are the results of its instances."""
    return task.foreach is not None or task.matrix is not None


def retries(rule: int | R, make: Callable[..., R]) -> R:
    """The retry rule, made where the job file gives only a number."""
    return make(max=rule) if isinstance(rule, int) else rule


def pool_of(job: _Job[P], name: str) -> str:
    """Name of the pool that a task runs in: the one it names, its own where it has a mode or workers, else `default`."""
    task = job.tasks[name]
    return task.pool or (name if task.mode or task.workers else DEFAULT_POOL)


def used_pools(job: _Job[P], make: Callable[..., P]) -> dict[str, P]:
    """Every pool that some task runs in, with mode and workers decided, in the order of first use."""
    own = make(mode=job.mode, workers=job.workers)
    found: dict[str, P] = {}
    for name, task in job.tasks.items():
        pool = pool_of(job, name)
        if pool not in found:
            declared = job.pools.get(pool) or (
                own if pool == DEFAULT_POOL else make(mode=task.mode, workers=task.workers or "auto")
            )
            found[pool] = declared if declared.mode or declared.executor else declared.model_copy(update={"mode": job.mode})
    return found


class Plain:
    """A part of a compiled job: the attributes of the model that it was, those it did not give in its class. It never changes."""

    _names: tuple[str, ...] = ()

    def __init__(self, **given: object) -> None:
        object.__setattr__(self, "__dict__", given)

    def __setattr__(self, name: str, _: object) -> None:
        raise AttributeError(f"{name} of a {type(self).__name__} does not change", name=name, obj=self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def model_dump(self, *, exclude_none: bool = False) -> dict[str, Any]:
        """Its attributes by name, in the order of the model; what is in them too."""
        values = {name: getattr(self, name) for name in self._names}
        return {name: _dumped(value, exclude_none) for name, value in values.items() if value is not None or not exclude_none}

    def model_copy(self, *, update: Mapping[str, object]) -> Plain:
        """Another one with some attributes changed."""
        return type(self)(**{**vars(self), **update})


def _dumped(value: Any, exclude_none: bool) -> Any:
    if isinstance(value, Plain):
        return value.model_dump(exclude_none=exclude_none)
    if isinstance(value, dict):
        return {key: _dumped(each, exclude_none) for key, each in value.items() if each is not None or not exclude_none}
    return value


def plain(model: str, names: tuple[str, ...], classes: Mapping[str, type[Plain]]) -> type[Plain]:
    """A class for the parts of a compiled job that were of a model, by its name; `names` are its attributes in order, and
    `classes` are, or will be, those of the job."""
    methods: dict[str, Any] = {}
    match model:
        case "Glob":
            methods = {"patterns": property(patterns)}
        case "Task":
            methods = {
                "ACTIONS": ACTIONS,
                "takes": property(takes),
                "has_instances": property(has_instances),
                "retries": property(lambda task: retries(task.retry, classes["Retry"])),
            }
        case "Secret":
            methods = {"SOURCES": SOURCES}
        case "Job":
            methods = {"pool_of": pool_of, "used_pools": lambda job: used_pools(job, classes["Pool"])}
    return type(model, (Plain, *_TOLD_APART.get(model, ())), {**methods, "_names": names})


_TOLD_APART: dict[str, tuple[type, ...]] = {each.__name__: (each,) for each in (Param, Limit, Range, Glob, Lines)}
