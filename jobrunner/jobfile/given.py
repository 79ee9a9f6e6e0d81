"""Where the values of parameters come from: `--set` stands above a params file, that above the environment.

--set, or the Python API ─┐
params file (YAML, JSON) ─┼─▶ Given by name, each with its place ─params.resolve─▶ values, or every mistake with its place
JOBRUNNER_PARAM_NAME ─────┘
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from jobrunner import trust
from jobrunner.errors import JobFileError, Problem, UsageError
from jobrunner.jobfile import params, sources
from jobrunner.jobfile.params import Given
from jobrunner.typed import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobrunner import spec

_PAIR: Final = rb"\\\\|(\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_PREFIX: Final = "JOBRUNNER_PARAM_"
_HOW: Final = "A params file has lines like name: value, or is JSON: {name: value}."


def variable(name: str) -> str:
    """The variable of the environment that gives a parameter its value."""
    return _PREFIX + name.upper().replace("-", "_")


def from_call(values: Mapping[str, object], *, cwd: Path, source: str) -> dict[str, Given]:
    """Values of the command line or of the Python API. `source` is named where one is wrong."""
    return {name: Given(value=value, base=cwd, source=source) for name, value in values.items()}


def from_environment(job: spec.Job, environ: Mapping[str, str], *, cwd: Path) -> dict[str, Given]:
    """What the environment gives. Its other variables may be meant for other jobs, so none of them is a mistake."""
    if not any(name.startswith(_PREFIX) for name in environ):
        return {}
    named = {name: variable(name) for name in job.params}
    return {name: Given(value=environ[key], base=cwd, source=key) for name, key in named.items() if key in environ}


def from_file(job: spec.Job, file: str | os.PathLike[str]) -> dict[str, Given]:
    """What a params file gives; relative paths in it count from its folder.

    Raises JobFileError with every problem of its YAML, UsageError where it cannot be read, UnsafeError where others may write it.
    """
    from jobrunner.jobfile import reader

    name = os.fsdecode(file)
    document = reader.read(_plain(_bytes_of(name), name), name)
    if document.problems:
        raise JobFileError(document.problems)
    if document.value is None:
        return {}
    if not isinstance(document.value, dict):
        said = "a list" if isinstance(document.value, list) else "a single value"
        problem = Problem(file=name, line=1, column=1, message=f"a params file is a map; this is {said}.", hint=_HOW)
        raise JobFileError((problem,))
    base, written = Path(os.path.abspath(name)).parent, document.as_written(document.value)
    values = {key: written[key] if _is_text(job, key, value) else value for key, value in document.value.items()}
    return {key: Given(value=value, base=base, document=document) for key, value in values.items()}


def _is_text(job: spec.Job, name: str, value: object) -> bool:
    """Whether a plain scalar is wanted as it is written: 1.10 as "1.10"."""
    return name in job.params and params.type_of(job.params[name]) in {"str", "path"} and isinstance(value, (bool, int, float))


def _plain(source: bytes, name: str) -> bytes:
    """JSON with characters outside the first plane as themselves: YAML has no pairs of escapes for them, and JSON no others."""
    return re.sub(_PAIR, _character, source) if name.endswith(".json") else source


def _character(escapes: re.Match[bytes]) -> bytes:
    """What a pair of escapes stands for; an escaped backslash as it is."""
    return escapes[0] if escapes[1] is None else str(json.loads(b'"' + escapes[0] + b'"')).encode()


def _bytes_of(name: str) -> bytes:
    trust.refuse_unsafe_file(name, "the params file")
    try:
        return sources.source_of(name)
    except sources.Unreadable as error:
        raise UsageError(f"--params-file {name}: {str(error).replace('a job file', 'a params file')}") from None
