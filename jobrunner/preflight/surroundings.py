"""What this machine tells about the commands of a job: programs that are not here, texts that sh cannot read, files that a cache
leaves out. Nothing of the job's runs: `sh -n` reads its text and no more."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import lru_cache
from typing import Final

from jobrunner import fingerprint
from jobrunner.bind.lines import INTERPRETERS
from jobrunner.hints import did_you_mean
from jobrunner.jobfile.document import Finding, Path, shortened
from jobrunner.preflight import shell
from jobrunner.preflight.lines import Command, Line, commands_of, lines_of
from jobrunner.preflight.shell import Word
from jobrunner.spec import Cache, Job, Task

_LARGEST: Final = 100_000
"""Characters of a text that is shown to a shell: the kernel takes no larger argument either."""
_PATIENCE: Final = 10.0


def find(job: Job, folder: str) -> Iterator[Finding]:
    """In the order of the tasks. `folder` is that of the job file."""
    _files.cache_clear()  # they may have come and gone since another look
    has_path = "PATH" in job.env or _sets_path(job, folder)
    for name, task in job.tasks.items():
        base = ("tasks", name)
        cwd = _cwd(task, folder)
        for line in lines_of(base, task):
            yield from _syntax(line)
        for command in commands_of(base, task):
            if command.is_direct and not has_path and "PATH" not in task.env:
                yield from _missing(command, cwd, may_be_made=bool(task.needs))
            if task.cache is not None and cwd is not None:
                yield from _scripts(command, task.cache, cwd, folder)
        if task.cache is not None:
            yield from _inputs((*base, "cache"), task.cache, folder, may_be_made=bool(task.needs))


def _sets_path(job: Job, folder: str) -> bool:
    if job.env_file is None:
        return False
    try:
        with open(os.path.join(folder, os.path.expanduser(job.env_file)), encoding="utf-8", errors="replace") as file:
            return re.search(r"^\s*(?:export\s+)?PATH\s*=", file.read(1 << 20), re.MULTILINE) is not None
    except OSError:
        return True


def _cwd(task: Task, folder: str) -> str | None:
    """Where its commands run, None where only the run can tell."""
    if task.cwd is not None and "${{" in task.cwd:
        return None
    return os.path.join(folder, os.path.expanduser(task.cwd or ""))


# --- sh -n -------------------------------------------------------------------------------------------------------------------


def _syntax(line: Line) -> Iterator[Finding]:
    """What a shell refuses to read; nothing where the text is told to be for another program, which comes to the same."""
    text = line.script.text
    if not line.reader or line.is_raw or len(text) > _LARGEST or (line.is_sh and shell.only_bash(line.script)):
        return
    said = _refusal(line.reader, text.replace(shell.VALUE, "x"))
    if not said:
        return
    if trouble := shell.unclosed(line.script):
        yield line.finding(trouble)
        return
    begin, end = _line_of(text, said)
    reader = line.reader.rpartition("/")[2]
    message = f"{reader} cannot read this: {shortened(re.sub(r'^.*?[0-9]+: ', '', said), 120)}"
    yield Finding(path=line.path, message=message, offset=begin, length=end - begin)


@lru_cache(maxsize=4096)
def _refusal(reader: str, text: str) -> str:
    """The first line of what a shell says about a text, which it reads and does not run; empty where it is content."""
    program = reader if reader == "/bin/sh" else shutil.which(os.path.basename(reader))  # never one of the job's own
    if program is None:
        return ""
    command = [program, "-n", "-c", text]
    environ = {"LC_ALL": "C"}
    try:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False, env=environ
        )
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return ""
    return (ended.stderr.decode(errors="replace").splitlines() or [""])[0] if ended.returncode else ""


def _line_of(text: str, said: str) -> tuple[int, int]:
    """Begin and end of the line that a shell speaks of: `sh: 3: Syntax error: …`, `bash: -c: line 3: syntax error …`."""
    numbers = re.findall(r"(?::\sline\s|^[^:]*:\s)([0-9]+):\s", said)
    rows = text.split("\n")
    last = len(text.rstrip().split("\n"))  # what is missing is told behind the end
    row = min(int(numbers[0]) if numbers else 1, last) - 1
    begin = sum(len(each) + 1 for each in rows[:row])
    blanks = len(rows[row]) - len(rows[row].lstrip())
    return begin + blanks, begin + max(len(rows[row].rstrip()), blanks + 1)


# --- programs ----------------------------------------------------------------------------------------------------------------


def _missing(command: Command, cwd: str | None, *, may_be_made: bool) -> Iterator[Finding]:
    """The program of a direct command that cannot be started. With `may_be_made` another task may yet make a file."""
    name = command.words[0].text if command.words else ""
    if not name:
        return
    if "/" not in name:
        if shutil.which(name) is None:
            yield command.finding(0, f"no such command: {shortened(name)}", _nearest(name, cwd))
    elif cwd is not None:
        path = os.path.join(cwd, name)
        if not os.path.exists(path):
            if not may_be_made:
                yield command.finding(0, f"no such command: {shortened(name)}", _neighbour(path, name))
        elif not os.path.isdir(path) and not os.access(path, os.X_OK):
            yield command.finding(0, f"{shortened(name)} is not executable", f"Run chmod +x {shortened(name)}.")


def _nearest(name: str, cwd: str | None) -> str:
    if cwd is not None and os.path.isfile(os.path.join(cwd, name)):
        return f"Write ./{name} for the file that stands there."
    if len(name) < 3:
        return ""
    like = [each for each in _programs() if abs(len(each) - len(name)) <= 2 and len(set(each) ^ set(name)) <= 2]
    return did_you_mean(name, like[:200])


@lru_cache(maxsize=1)
def _programs() -> tuple[str, ...]:
    """The names of all that can be called."""
    found: set[str] = set()
    for place in os.environ.get("PATH", os.defpath).split(os.pathsep):
        try:
            found.update(entry.name for entry in os.scandir(place or "."))
        except OSError:
            continue
    return tuple(sorted(found))


def _neighbour(path: str, name: str) -> str:
    try:
        names = os.listdir(os.path.dirname(path))
    except OSError:
        return ""
    place = name.rpartition("/")[0]
    return did_you_mean(name, [f"{place}/{each}" for each in names[:200]])


# --- caches ------------------------------------------------------------------------------------------------------------------

_INTERPRETER: Final = re.compile(
    r"(?:.*/)?(?:(?:ba|da|a|k|z)?sh|python[0-9.]*|pypy[0-9.]*|perl|ruby|node|php|Rscript|lua|\.|source)"
)
_WRAPPERS: Final = frozenset(
    {"env", "nice", "ionice", "nohup", "timeout", "setsid", "sudo", "exec", "command", "time", "xargs", "chrt"}
)
_OF_WRAPPERS: Final = re.compile(r"-.*|[0-9.]+[smhd]?|[A-Za-z_]\w*=.*")
_NO_SCRIPT: Final = re.compile(r"-(?:[a-z]*[cem]|-command|-eval)")
_INSTANCE: Final = re.compile(r"\$\{\{[^}]*\b(?:item|index|matrix)\b")


def _is_looked_at(command: Command, number: int) -> bool:
    """Whether the cache counts this script as the code of its task: what a command begins with."""
    is_first = command.is_argv or command.words[0].offset == 0
    return is_first and (number == 0 or (number == 1 and command.words[0].text in INTERPRETERS))


def _scripts(command: Command, cache: Cache, cwd: str, folder: str) -> Iterator[Finding]:
    """A file of the job's own that a cached task runs, though its cache does not look at it."""
    number = _script(command.words)
    if number is None or _is_looked_at(command, number):
        return
    name = command.words[number].text
    path = os.path.join(cwd, os.path.expanduser(name))
    if os.path.isabs(name) and not os.path.abspath(name).startswith(os.path.join(os.path.abspath(folder), "")):
        return
    if os.path.isfile(path) and not any(_covers(pattern, path, folder) for pattern in cache.inputs):
        wanted = os.path.relpath(path, folder)
        yield command.finding(number, f"{shortened(name)} is run but is no input", f"Add {shortened(wanted)} to cache.inputs.")


def _script(words: Sequence[Word]) -> int | None:
    """Which word names the script: the program, or the file that an interpreter is given."""
    first = 0
    while first < len(words) and (words[first].text in _WRAPPERS or re.match(r"[A-Za-z_]\w*=", words[first].text)):
        first += 1
        while first < len(words) and words[first - 1].text and _OF_WRAPPERS.fullmatch(words[first].text):
            first += 1
    if first >= len(words):
        return None
    if not _INTERPRETER.fullmatch(words[first].text):
        return first if "/" in words[first].text else None
    for number, word in enumerate(words[first + 1 :], start=first + 1):
        if not word.text or _NO_SCRIPT.fullmatch(word.text):
            return None
        if not word.text.startswith("-"):
            return number
    return None


def _covers(pattern: str, path: str, folder: str) -> bool:
    """Whether an input may mean the file. What differs from item to item is taken for data."""
    if "${{" in pattern:
        wide = re.sub(rf"[{shell.VALUE}]+", "*", shell.blanked(pattern))
        return not _INSTANCE.search(pattern) and fnmatch(os.path.realpath(path), f"*{wide.removeprefix('./')}")
    try:
        return os.path.realpath(path) in _files(pattern, folder)
    except OSError:
        return True


@lru_cache(maxsize=256)
def _files(pattern: str, folder: str) -> frozenset[str]:
    return frozenset(os.path.realpath(os.path.join(folder, path)) for path in fingerprint.paths_of(pattern, folder))


def _inputs(base: Path, cache: Cache, folder: str, *, may_be_made: bool) -> Iterator[Finding]:
    """Inputs that mean no file now. With `may_be_made` another task may yet make one."""
    for number, pattern in enumerate(cache.inputs):
        if "${{" in pattern or may_be_made:
            continue
        try:
            is_there = any(map(os.path.exists, _files(pattern, folder)))
        except OSError:
            continue
        if not is_there:
            hint = "Paths and patterns count from the job file's folder."
            yield Finding(path=(*base, "inputs", number), message=f"{shortened(pattern)} means no file now", hint=hint)
