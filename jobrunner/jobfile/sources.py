"""The files that a job is read from, as bytes: what a run needs of them also where nothing is left to be parsed."""

from __future__ import annotations

import os
import pathlib
import re
import stat

from jobrunner.structs import struct
from jobrunner.typed import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobrunner import spec

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of the largest job file that is read, and of all that it includes together."""


@struct
class Included:
    """A file that a job file includes, as it was: `path` is absolute, `source` the bytes that were read."""

    path: pathlib.Path
    source: bytes


@struct
class JobFile:
    """A valid job with the file it came from, as it was: `path` is absolute, `source` the bytes that were read."""

    path: pathlib.Path
    source: bytes
    job: spec.Job
    includes: tuple[Included, ...] = ()
    """The files that it includes, those that they include too, each once, in the order of reading."""
    file: str = ""
    """How the file was named: so it is called in problems."""
    is_compiled: bool = False
    """The job was not read from these bytes now, but when they were read before: it has no `model_fields_set`."""


def name_of(file: str) -> str:
    """The file's stem as a job's name, that of the file itself if this is a link: what a name cannot hold becomes '_'."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", pathlib.Path(os.path.realpath(file)).stem)[:100].lstrip(".-")
    return name or "job"


# --- path → bytes ------------------------------------------------------------------------------------------------------------

_STANDARD_INPUT: Final = "the name of a file is needed: standard input is not read"
_TOO_LARGE: Final = f"the file is larger than {LARGEST // 2**20} MiB; a job file is never that large"


class Unreadable(Exception):
    """There are no bytes of a file to be had; the message says why."""


def source_of(file: str, largest: int = LARGEST) -> bytes:
    """The bytes of a file, at most so many. Never blocks on a FIFO or a device; raises Unreadable, and nothing else."""
    try:
        if (wrong := _why_not(os.stat(file), largest)) is not None:
            raise Unreadable(wrong)
        with open(file, "rb", opener=_without_waiting) as stream:
            source: bytes | None = stream.read(largest + 1)
    except FileNotFoundError:
        raise Unreadable(_STANDARD_INPUT if file == "-" else "there is no such file") from None
    except OSError as error:
        raise Unreadable(f"the file cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise Unreadable("a file name holds no NUL character") from None
    if source is None:  # regular by name, as /proc/kmsg, and yet it waits for somebody to write
        raise Unreadable("the file cannot be read: it has nothing to read now")
    if len(source) > largest:
        raise Unreadable(_TOO_LARGE)
    return source


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _why_not(status: os.stat_result, largest: int) -> str | None:
    if stat.S_ISDIR(status.st_mode):
        return "this is a directory, not a job file"
    if not stat.S_ISREG(status.st_mode):
        return "this is not a regular file"  # a FIFO would block, a device never end
    return _TOO_LARGE if status.st_size > largest else None
