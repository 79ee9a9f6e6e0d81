"""A job file that has not changed is not parsed again: what it came to is kept in the state directory, as plain data.

    job file, its includes ─same bytes?─ STATE/.compiled/NAME-DIGEST ─rows→ plain objects ─→ JobFile
                └─ no, or not there, or not ours, or damaged, or made by another Python or other code ─→ jobfile.read

It is trusted for nothing but the very bytes it was made of: they are in it. A file that only we can have written, whole by its
digest, is read with `marshal`; every other one is as good as none. Nothing that a run decides (parameters, environment, what lies
on the disk) is in it.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import stat
import sys
from _blake2 import blake2b  # without OpenSSL, which `hashlib` loads
from collections.abc import Iterable, Iterator
from pathlib import Path

from jobrunner import __version__, jobfile, kinds, rundir, trust
from jobrunner.errors import JobrunnerError
from jobrunner.jobfile import sources
from jobrunner.jobfile.sources import Included, JobFile
from jobrunner.typed import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    from pydantic import BaseModel

    from jobrunner import spec


MOST_KEPT, MOST_BYTES = 100, 256 << 20
"""How many compiled jobs are kept, and how large all together: the oldest go."""

LARGEST = 256 << 20
"""Bytes of one: a larger file is not kept, and one that is there is damaged."""

_STEP = 200
"""Tasks that are packed at a time."""
_MAGIC = b"jobrunner, compiled 1\n"
_DIGEST = 20
_LIBRARIES = ("pydantic", "pydantic_core", "yaml", "simpleeval", "cronsim")

_Row: TypeAlias = tuple[str, dict[str, Any], dict[str, Any] | None]
"""A model by name, its attributes but for those left at their defaults, and which of them are other rows: by number, or by
key and number. Rows that others need stand before them."""
_Defaults: TypeAlias = tuple[tuple[str, ...], dict[str, Any], dict[str, Any] | None]
"""The attributes of a model in order, and the defaults of those that have one, as in a row."""


def read(path: str | os.PathLike[str]) -> JobFile:
    """As `jobfile.read`, from what was kept of an earlier run if that was of the same bytes."""
    return _found(os.fsdecode(path)) or jobfile.read(path)


def keep(file: JobFile, state: Path) -> None:
    """Keep what a job file came to, for the next run of it. Never raises: without it the next run takes a little longer."""
    for _ in keeping(file, state):
        pass


def keeping(file: JobFile, state: Path) -> Iterator[None]:
    """As `keep`, in steps of a few milliseconds for all but the last: a run has other things to do meanwhile."""
    if file.is_compiled:
        return
    with contextlib.suppress(JobrunnerError, OSError, ValueError, AttributeError):
        folder, packing = state / ".compiled", _Packing()
        for number, task in enumerate(file.job.tasks.values(), 1):
            packing.place(task)
            if not number % _STEP:
                yield
        data = _sealed(_head(file), marshal.dumps(packing.packed(file.job)))
        yield
        if len(data) > LARGEST:
            return
        trust.make_directory(folder)
        _write(folder / _name(str(file.path)), data)
        _prune(folder)


# --- the file ----------------------------------------------------------------------------------------------------------------


def _name(path: str) -> str:
    """One for each job file and each Python: two that take turns do not undo what the other one has kept."""
    digest = blake2b(os.fsencode(f"{path}\0{sys.version}"), digest_size=8).hexdigest()
    return f"{sources.name_of(path)[:80]}-{digest}"


def _sealed(head: tuple[Any, ...], rows: bytes) -> bytes:
    body = marshal.dumps((head, rows))
    return _MAGIC + blake2b(body, digest_size=_DIGEST).digest() + body


def _found(file: str) -> JobFile | None:
    """What was kept of a job file, if it holds for what the file says now. Raises nothing."""
    path = os.path.abspath(file)
    try:
        folder = rundir.state_dir(os.environ) / ".compiled"
        body = _own(folder, _name(path))
        if body is None:
            return None
        (stamp, place, source, included), rows = marshal.loads(body)
        if not _holds(stamp) or place != os.path.realpath(path) or source != sources.source_of(file):
            return None
        if any(os.path.realpath(each) != real or sources.source_of(each) != was for each, real, was in included):
            return None
        job = cast("spec.Job", _unpacked(*marshal.loads(rows)))
    except Exception:  # whatever is wrong with it, and be it too large for our memory: it is as good as none
        return None
    includes = tuple(Included(path=Path(each), source=was) for each, _, was in included)
    return JobFile(path=Path(path), source=source, job=job, includes=includes, file=file, is_compiled=True)


def _own(folder: Path, name: str) -> memoryview | None:
    """What stands in a file behind its digest; None where it is damaged, or where others could have written it."""
    with open(folder / name, "rb", buffering=0, opener=_without_following) as kept:
        found = os.fstat(kept.fileno())
        is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
        if not is_ours or found.st_size > LARGEST:
            return None
        trust.refuse_unsafe_directory(folder)
        data = memoryview(kept.readall())
    body = data[len(_MAGIC) + _DIGEST :]
    is_whole = data[: len(_MAGIC)] == _MAGIC and data[len(_MAGIC) :][:_DIGEST] == blake2b(body, digest_size=_DIGEST).digest()
    return body if is_whole else None


def _without_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _write(path: Path, data: bytes) -> None:
    """Under another name first, of this process alone: whoever reads meanwhile finds all of the old one or of the new one."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(beside, "xb", opener=_private) as file:
            file.write(data)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _prune(folder: Path) -> None:
    """What is too much goes, the oldest first; with it what writers that were killed have left."""
    kept = sorted(((found.st_mtime_ns, found.st_size, entry) for entry, found in _entries(folder)), key=lambda each: -each[0])
    total = 0
    for number, (_, size, entry) in enumerate(kept, 1):
        total += size
        if number > MOST_KEPT or (total > MOST_BYTES and number > 1):
            with contextlib.suppress(OSError):
                os.unlink(entry)


def _entries(folder: Path) -> Iterable[tuple[str, os.stat_result]]:
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another run has removed it
            yield entry.path, entry.stat(follow_symlinks=False)


# --- for whom it holds -------------------------------------------------------------------------------------------------------


def _head(file: JobFile) -> tuple[Any, ...]:
    """What must be the same for it to hold."""
    included = [(str(each.path), os.path.realpath(each.path), each.source) for each in file.includes]
    return (_stamp(), os.path.realpath(file.path), file.source, included)


def _stamp() -> tuple[Any, ...]:
    """Who made it: the Python, and the code as its files are. A folder of libraries changes when one of them is changed."""
    own = {module.__file__ for name, module in sys.modules.items() if name.startswith("jobrunner.") and module.__file__}
    libraries = {_folder(sys.modules[name]) for name in _LIBRARIES if name in sys.modules}
    paths = sorted(path for path in own | libraries if path)
    return (*_python(), [(path, *_state(path)) for path in paths])


def _holds(stamp: tuple[Any, ...]) -> bool:
    """Whether this process is of the same Python and the same code."""
    *python, files = stamp
    return tuple(python) == _python() and all(_state(path) == (changed, size) for path, changed, size in files)


def _python() -> tuple[str, ...]:
    return (__version__, sys.version, sys.prefix, sys.implementation.cache_tag or "", os.path.dirname(__file__))


def _folder(module: Any) -> str:
    return os.path.dirname(module.__path__[0] if hasattr(module, "__path__") else module.__file__ or "")


def _state(path: str) -> tuple[int, int]:
    """The change time cannot be set: whatever is written, moved or installed has a new one."""
    found = os.stat(path)
    return (found.st_mtime_ns if stat.S_ISDIR(found.st_mode) else found.st_ctime_ns, found.st_size)


# --- job → rows → job --------------------------------------------------------------------------------------------------------


_FLAT = (str, list, int, float, bool, type(None))
"""What no model is in: where a key holds several, it has a table of them."""


class _Packing:
    """Makes rows, one for each model however often it stands in others."""

    def __init__(self) -> None:
        from jobrunner import spec

        self.rows: list[_Row] = []
        self._numbers: dict[int, int] = {}
        self._kinds: dict[str, type[BaseModel]] = {"Pool": spec.Pool, "Retry": spec.Retry}  # a run may make these two
        self._defaults: dict[str, dict[str, Any]] = {}

    def packed(self, job: BaseModel) -> tuple[dict[str, _Defaults], list[_Row], int]:
        """The defaults of every model that occurs, all parts of the job, and which of them it is: all as `marshal` takes it."""
        number = self.place(job)
        return self.defaults(), self.rows, number

    def place(self, model: BaseModel) -> int:
        """The number of a model's row, which is made at its first use."""
        number = self._numbers.get(id(model))
        if number is None:
            kind = type(model).__name__
            self._kinds[kind] = type(model)
            unsaid = self._defaults_of(type(model))
            said = {
                name: value
                for name, value in vars(model).items()
                if value is not (default := unsaid.get(name, model)) and (type(value) is not type(default) or value != default)
            }
            self.rows.append(self._row(kind, said))
            self._numbers[id(model)] = number = len(self.rows) - 1
        return number

    def defaults(self) -> dict[str, _Defaults]:
        """The defaults of what has been placed, and of what they need themselves."""
        found: dict[str, _Defaults] = {}
        while missing := self._kinds.keys() - found.keys():
            for kind in sorted(missing):
                found[kind] = (tuple(self._kinds[kind].model_fields), *self._row(kind, self._defaults_of(self._kinds[kind]))[1:])
        return found

    def _defaults_of(self, kind: type[BaseModel]) -> dict[str, Any]:
        if kind.__name__ not in self._defaults:
            fields = kind.model_fields.items()
            given = {name: field.get_default(call_default_factory=True) for name, field in fields if not field.is_required()}
            self._defaults[kind.__name__] = given
        return self._defaults[kind.__name__]

    def _row(self, kind: str, values: dict[str, Any]) -> _Row:
        """A row with its values; the models among them, and in tables among them, are placed in rows of their own."""
        nested = [(name, value) for name, value in values.items() if type(value) not in _FLAT]
        numbers = {name: found for name, value in nested if (found := self._placed(value)) is not None}
        for name, found in numbers.items():
            values[name] = (
                None if isinstance(found, int) else {key: None if key in found else one for key, one in values[name].items()}
            )
        return kind, values, numbers or None

    def _placed(self, value: Any) -> int | dict[str, int] | None:
        if hasattr(value, "model_fields_set"):
            return self.place(value)
        if not isinstance(value, dict):
            return None
        return {key: self.place(one) for key, one in value.items() if hasattr(one, "model_fields_set")} or None


def _unpacked(defaults: dict[str, _Defaults], rows: list[_Row], number: int) -> kinds.Plain:
    """The job that was packed, in plain objects: what was one object is one again."""
    classes: dict[str, type[kinds.Plain]] = {}
    classes |= {kind: kinds.plain(kind, names, classes) for kind, (names, *_) in defaults.items()}
    made: list[kinds.Plain] = []
    new, give = kinds.Plain.__new__, object.__setattr__
    for kind, values, numbers in rows:
        if numbers is not None:
            _fill(values, numbers, made)
        made.append(one := new(classes[kind]))
        give(one, "__dict__", values)
    for kind, (_, values, numbers) in defaults.items():
        _fill(values, numbers or {}, made)
        for name, value in values.items():
            setattr(classes[kind], name, value)
    return made[number]


def _fill(values: dict[str, Any], numbers: dict[str, Any], made: list[kinds.Plain]) -> None:
    """Put other rows where they were, in the order in which they stood there."""
    for name, found in numbers.items():
        if isinstance(found, int):
            values[name] = made[found]
        else:
            values[name].update((key, made[number]) for key, number in found.items())
