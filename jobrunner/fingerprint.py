"""What a task depends on, compared with how it was when the task last succeeded. Runs in a host. Standard library only.

    check: entry, files as they are ─┬─ all the same ─▶ fresh
                                     └─ else: a claim takes its place ─▶ the task runs ─▶ store: the claim becomes an entry

A claim holds what was found *before* the task ran, and is no success: whatever is killed in between leaves no entry behind.
A file whose size, times and inode are those of the last look is not read again, but only where that look came clearly after its
last change: an edit in the same tick of the clock as the look would leave the same times (`Seen.is_settled`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.machinery
import json
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from jobrunner.structs import field, replace, struct, values
from jobrunner.walk import Walk, has_glob

FORMAT = 1
"""Of an entry: one of another format is none."""
MOST_CAUSES = 20
_LONGEST_CAUSE = 300
_SETTLED = 2_500_000_000
"""Nanoseconds between the last change of a file and a look at it, from which on every later change must show in its times. The
coarsest clock of a file system ticks every 2 s (FAT)."""
_LARGEST_ENTRY = 64 << 20
MOST_FILES = 100_000
"""Files that one path or pattern may mean."""


class Seen(NamedTuple):
    """One file at one look; times in nanoseconds. `looked` is when reading it began; 0: nobody can tell whether
    it changed since."""

    digest: str
    size: int = 0
    modified: int = 0
    changed: int = 0
    inode: int = 0
    looked: int = 0
    problem: str = ""
    """Why it cannot be read; then all else is empty."""

    @property
    def is_settled(self) -> bool:
        """Whether a change after the look cannot have left the times as they are."""
        return max(self.modified, self.changed) + _SETTLED < self.looked

    @property
    def stamp(self) -> tuple[int, int, int, int]:
        return self.size, self.modified, self.changed, self.inode


Files = dict[str, Seen]
"""Path as it was asked for, relative ones from the job's folder → what was seen there."""


@struct
class Request:
    """What a check is asked: the keyword arguments of `check`. Digests are the engine's; None is "not known now": as it was."""

    entry: str
    owner: str
    """Tells one attempt of one run from all others: only who has made the claim may make an entry of it."""
    now: float
    folder: str
    module: str = ""
    """Whose source file counts; empty for a command."""
    scripts: list[str] = field(default_factory=list)
    """Files that a command executes, relative to the folder."""
    facts: dict[str, str] = field(default_factory=dict)
    """In the words of a cause, like "the command"."""
    env: dict[str, str | None] = field(default_factory=dict)
    needs: dict[str, str | None] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    ttl: float | None = None
    wants_data: bool = False
    force: bool = False
    problem: str = ""
    """Why it cannot be told what the task depends on."""


@struct
class Entry:
    """What is on disk of one instance: a success with all that it depended on, or (`done` is false) a claim."""

    owner: str
    facts: dict[str, str]
    env: dict[str, str]
    needs: dict[str, str]
    code: Files
    inputs: Files
    done: bool = False
    why: str = ""
    """Of a claim: why no success came of it, where that is known."""
    ended: float = 0.0
    outputs: Files = field(default_factory=dict)
    data: str | None = None
    """What it gave, as JSON; None where that is not kept."""

    @property
    def digest(self) -> str:
        """Of all that it depended on, files by their content."""
        contents = [{path: seen.digest for path, seen in files.items()} for files in (self.code, self.inputs)]
        return digest_of([self.facts, self.env, self.needs, *contents])


# --- the three calls -----------------------------------------------------------------------------------------------------------


def check(**asked: Any) -> dict[str, Any]:
    """Whether a task need not run: `{fresh, causes, digest, data}`. Where it must, its entry is gone when this returns."""
    request = Request(**asked)
    raw, before = _read(request.entry)
    now = _present(request, before)
    outputs = look(before.outputs, request.folder, before.outputs) if before else {}
    causes = _causes(request, before, now, outputs)
    if causes:
        _claim(request.entry, now)
    elif before and (now.code, now.inputs, outputs) != (before.code, before.inputs, before.outputs):
        _swap(request.entry, raw, replace(before, code=now.code, inputs=now.inputs, outputs=outputs))  # what has settled since
    return _answer(before, now, causes)


def compare(**asked: Any) -> dict[str, Any]:
    """As `check`, but nothing is changed."""
    request = Request(**asked)
    _, before = _read(request.entry)
    now = _present(request, before)
    outputs = look(before.outputs, request.folder, before.outputs) if before else {}
    return _answer(before, now, _causes(request, before, now, outputs))


def store(*, entry: str, owner: str, now: float, folder: str, outputs: list[str], data: str | None) -> dict[str, Any]:
    """Make an entry of the claim: `{stored, missing, why}`. Nothing is stored where an output is missing, an input has changed
    meanwhile, or somebody else has taken the claim's place."""
    raw, claim = _read(entry)
    if claim is None or claim.done or claim.owner != owner:
        return {"stored": False, "missing": [], "why": "it was not checked before it ran, or is running elsewhere"}
    found = {pattern: look_for(pattern, folder, {}) for pattern in outputs}
    made = {path: seen for files in found.values() for path, seen in files.items()}
    missing = [pattern for pattern, files in found.items() if not files]
    why = _not_done(claim, folder, made, missing)
    ended = replace(claim, why=why) if why else replace(claim, done=True, ended=now, outputs=made, data=data)
    return {"stored": _swap(entry, raw, ended) and not why, "missing": [shown(path) for path in missing], "why": why}


def _not_done(claim: Entry, folder: str, made: Files, missing: list[str]) -> str:
    if missing:
        holds_none = os.path.isdir(os.path.join(folder, os.path.expanduser(missing[0])))
        return f"output {shown(missing[0])} {'held no file' if holds_none else 'was not there'} when it last ended"
    if unread := next(((path, seen.problem) for path, seen in made.items() if seen.problem), None):
        return f"output {shown(unread[0])} could not be read when it last ended ({unread[1]})"
    changed = next((path for path, seen in claim.inputs.items() if _is_written(os.path.join(folder, path), seen)), None)
    return "" if changed is None else f"input {shown(changed)} changed while it last ran"


def _is_written(path: str, seen: Seen) -> bool:
    """Whether an input was written to since. One that is gone is the next check's to tell, a new link to it changes nothing."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    return not seen.problem and (found.st_size, found.st_mtime_ns, found.st_ino) != (seen.size, seen.modified, seen.inode)


def _answer(before: Entry | None, now: Entry, causes: list[str]) -> dict[str, Any]:
    data = before.data if before and not causes else None
    return {"fresh": not causes, "causes": _capped(causes), "digest": now.digest, "data": data}


# --- why it must run -----------------------------------------------------------------------------------------------------------


def _present(request: Request, before: Entry | None) -> Entry:
    """All that the task depends on as it is now; what was seen before is not read again where it cannot have changed."""
    known = before.inputs if before else {}
    inputs = [look_for(pattern, request.folder, known) for pattern in request.inputs]
    code = source_files(request.module, request.folder) if request.module else request.scripts
    return Entry(
        owner=request.owner,
        facts=request.facts,
        env=_known(request.env, before.env if before else {}),
        needs=_known(request.needs, before.needs if before else {}),
        code=look(code, request.folder, before.code if before else {}),
        inputs={path: seen for files in inputs for path, seen in files.items()},
    )


def _known(now: Mapping[str, str | None], before: Mapping[str, str]) -> dict[str, str]:
    found = {name: before.get(name) if value is None else value for name, value in now.items()}
    return {name: value for name, value in found.items() if value is not None}


def _causes(request: Request, before: Entry | None, now: Entry, outputs: Files) -> list[str]:
    causes = [request.problem] if request.problem else []
    if request.force:
        causes.append("it is to run whatever is cached (--force)")
    if before is None:
        causes.append("no earlier success is known")
    elif not before.done:
        causes.append(before.why or "no success of its last attempt is known")
    else:
        causes += _changes(before, now)
        causes += _outdated(request, before, outputs)
    return causes + list(_problems(request, now))


def _changes(before: Entry, now: Entry) -> Iterator[str]:
    yield from _differences("", before.facts, now.facts)
    yield from _differences("", _digests(before.code), _digests(now.code))
    yield from _differences("env ", before.env, now.env)
    yield from _differences("input ", _digests(before.inputs), _digests(now.inputs))
    for name in sorted(before.needs.keys() | now.needs.keys()):
        if before.needs.get(name) != now.needs.get(name):
            how = ", which gave something else" if name in before.needs and name in now.needs else ", which is new"
            yield f"needs {name}{how}" if name in now.needs else f"needs {name} no more"


def _digests(files: Files) -> dict[str, str]:
    return {path: seen.digest for path, seen in files.items()}


def _differences(kind: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    if before == now:
        return
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            how = "is gone" if name not in now else "is new" if name not in before else "changed"
            yield f"{kind}{shown(name)} {how}"


def _outdated(request: Request, before: Entry, outputs: Files) -> Iterator[str]:
    """What has become of the success itself."""
    for path, seen in before.outputs.items():
        found = outputs.get(path)
        if found is None or found.digest != seen.digest:
            how = "is gone" if found is None else "cannot be read" if found.problem else "was changed"
            yield f"output {shown(path)} {how}"
    if request.ttl is not None and not 0 <= request.now - before.ended < request.ttl:
        yield f"older than its ttl of {duration(request.ttl)}"
    if request.wants_data and before.data is None:
        yield "what it gave is not kept"


def _problems(request: Request, now: Entry) -> Iterator[str]:
    """Inputs without which nobody can tell, however they were before."""
    for pattern in request.inputs:
        path = os.path.expanduser(pattern)
        if not has_glob(path) and path not in now.inputs and not os.path.isdir(os.path.join(request.folder, path)):
            yield f"input {shown(pattern)} is missing"
    for path, seen in now.inputs.items():
        if seen.problem:
            yield f"input {shown(path)} cannot be read ({seen.problem})"


def _capped(causes: list[str]) -> list[str]:
    lines = [cause if len(cause) <= _LONGEST_CAUSE else f"{cause[: _LONGEST_CAUSE - 1]}…" for cause in causes]
    more = len(lines) - MOST_CAUSES
    return lines if more <= 0 else [*lines[:MOST_CAUSES], f"and {more} more"]


def shown(path: str) -> str:
    """A name on one line that every terminal and reader takes."""
    return path if path.isprintable() else path.encode("unicode_escape", "backslashreplace").decode("ascii", "backslashreplace")


def duration(seconds: float) -> str:
    """As a job file writes it: `1h30m`, `500ms`."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        count, seconds = divmod(seconds, size)
        parts.append(f"{count:g}{unit}" if count else "")
    return "".join(parts) + (f"{seconds:g}s" if seconds or not any(parts) else "")


# --- files ---------------------------------------------------------------------------------------------------------------------


def look(paths: Iterable[str], folder: str, known: Files) -> Files:
    """What each path holds now; those where nothing is are left out. A link counts as what it leads to."""
    found = {}
    for path in paths:
        if (seen := _seen(os.path.join(folder, path), known.get(path))) is not None:
            found[path] = seen
    return found


def look_for(pattern: str, folder: str, known: Files) -> Files:
    """What the files hold that a path or pattern means; where a folder cannot be read, that is what is known of the pattern."""
    try:
        paths = paths_of(pattern, folder)
        if len(paths) > MOST_FILES:
            return {pattern: Seen("", problem=f"it means {len(paths):,} files; at most {MOST_FILES:,} are looked at")}
        return look(paths, folder, known)
    except OSError as error:
        return {pattern: Seen("", problem=f"{error.strerror}: {shown(str(error.filename))}")}


def _seen(path: str, known: Seen | None) -> Seen | None:
    try:
        if known is not None and known.is_settled and _stamp(os.stat(path)) == known.stamp:
            return known
        return _read_through(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        return Seen("", problem=getattr(error, "strerror", None) or str(error))


def _read_through(path: str) -> Seen:
    if not stat.S_ISREG(os.stat(path).st_mode):  # opening a device may do anything
        return Seen("", problem="it is not a regular file")
    with open(path, "rb", buffering=0, opener=_never_waiting) as file:
        looked, before = time.time_ns(), os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            return Seen("", problem="it is not a regular file")
        digest = hashlib.file_digest(file, _hash).hexdigest()
        is_whole = file.tell() == before.st_size  # as of /proc, whose files have no size and never change their times
        is_still = is_whole and _stamp(os.fstat(file.fileno())) == _stamp(before)
    return Seen(digest, *_stamp(before), looked=looked if is_still else 0)


def _stamp(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _never_waiting(path: str, flags: int) -> int:
    """A FIFO would wait for somebody who writes."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _hash(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=20)


def digest_of(value: object) -> str:
    """Of plain data, whatever the order of its maps."""
    return _hash(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def paths_of(pattern: str, folder: str) -> list[str]:
    """The files that a path or pattern means: a folder stands for all below it, `**` for any number of folders, and hidden
    names match only what begins with a dot, as in a shell. A name with such characters that is there counts too. Sorted."""
    pattern = os.path.expanduser(pattern)
    whole = os.path.join(folder, pattern)
    walk = Walk(folder, strict=True)  # files nobody sees would count as unchanged
    found = walk.matching(pattern, folders=False) if has_glob(pattern) else set()
    if os.path.isdir(whole):
        found.update(walk.files_below(pattern))
    elif not has_glob(pattern) or os.path.lexists(whole):
        found.add(pattern)
    return sorted(found)


# --- code ----------------------------------------------------------------------------------------------------------------------


def source_files(module: str, folder: str) -> list[str]:
    """The file that a module would be loaded from, and those of the packages around it, found without importing anything.

    Empty for what has no file: a module of the interpreter itself, one from a zip file, one that does not exist.
    """
    files: list[str] = []
    path: list[str] = [folder, *sys.path]
    for part in module.split("."):
        spec = importlib.machinery.PathFinder.find_spec(part, path)
        if spec is None:
            break
        if spec.origin and spec.has_location:
            files.append(os.path.relpath(spec.origin, folder) if spec.origin.startswith(f"{folder}/") else spec.origin)
        if spec.submodule_search_locations is None:
            break
        path = list(spec.submodule_search_locations)
    return files


# --- entries on disk -----------------------------------------------------------------------------------------------------------


def entry_at(path: str) -> Entry | None:
    """The entry or claim there; None for none, and for what is damaged, foreign or of another format."""
    return _read(path)[1]


def forget(path: str) -> None:
    """No success is known any more."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _read(path: str) -> tuple[bytes, Entry | None]:
    try:
        with open(path, "rb", opener=_never_through_a_link) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_ENTRY:
                return b"", None
            raw = file.read()
    except OSError:
        return b"", None
    head, _, body = raw.partition(b"\n")
    try:
        return raw, _entry_of(json.loads(body)) if head == _head(body) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return raw, None


def _never_through_a_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _head(body: bytes) -> bytes:
    return b"jobrunner cache %d %s" % (FORMAT, _hash(body).hexdigest().encode())


def _entry_of(fields: dict[str, Any]) -> Entry:
    files = {name: {path: Seen(*seen) for path, seen in fields[name].items()} for name in ("code", "inputs", "outputs")}
    return Entry(**{**fields, **files})


def _claim(path: str, now: Entry) -> None:
    """Where it cannot be written, at least no entry stays."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with _locked(path):
            _write(path, now)
    except OSError:
        forget(path)


def _swap(path: str, raw: bytes, entry: Entry) -> bool:
    """Put `entry` in the place of what was read, unless somebody else was faster."""
    try:
        with _locked(path):
            if _read(path)[0] != raw:
                return False
            _write(path, entry)
            return True
    except OSError:
        return False


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """One writer at a time in the folder of the entries, be it another process or another thread."""
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write(path: str, entry: Entry) -> None:
    """The whole entry or the one before it, never half of one. Not synced: an entry that a loss of power brings back is compared
    with the files like any other."""
    body = json.dumps(values(entry), separators=(",", ":")).encode()
    fresh = f"{path}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(_head(body) + b"\n" + body)
    os.replace(fresh, path)
