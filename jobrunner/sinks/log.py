"""The structured log: one line an event, by structlog, as JSON, logfmt or for people."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import orjson

from jobrunner.events import Sink, Stamped, TaskOutput, level, payload
from jobrunner.sinks.terminal import colours, is_terminal


@contextlib.contextmanager
def _unavailable(name: str) -> Iterator[None]:
    """Inside, an import of the package `name` fails as if it were not installed. One that is loaded stays as it is."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # what the import system takes for "there is none"
    try:
        yield
    finally:
        del sys.modules[name]


# structlog loads rich wherever it is installed, for tracebacks that this log does not show: 40 ms of every start. A task that
# shares our modules by fork and renders its own exceptions with structlog gets plain tracebacks for it.
with _unavailable("rich"):
    import structlog

FORMATS = ("auto", "console", "json", "logfmt")
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_EXTRAS = ("ts", "run_id", "job", "seq", "level", "event")
_DEEPEST = 50
_MOST_BITS = 12_000
"""Python prints no number of more than 4300 digits, and no reader wants one."""


def log_sink(file: BinaryIO, *, format: str, minimum: str) -> Sink:  # noqa: A002  # as the option is called
    """A sink that writes every event of at least level `minimum` to `file`, in one write a line.

    `format` is json, logfmt or console; auto is console on a terminal and json elsewhere. A file that nobody reads any
    more ends the log, never the run.
    """
    chosen = format if format != "auto" else "console" if is_terminal(file) else "json"
    logger = structlog.BytesLogger(_Lines(file))  # type: ignore[arg-type]  # it needs write and flush, no more
    render = _RENDERERS[chosen](is_terminal(file))
    least = LEVELS[minimum]

    def write(stamped: Stamped) -> None:
        if isinstance(stamped.event, TaskOutput):
            return
        importance = level(stamped.event)
        if LEVELS[importance] >= least:
            logger.msg(render(logger, importance, _fields(stamped, importance)))

    return write


def _fields(stamped: Stamped, importance: str) -> dict[str, Any]:
    place = {"ts": stamped.ts, "level": importance, "event": stamped.event.NAME, "seq": stamped.seq}
    return {**place, "run_id": stamped.run_id, "job": stamped.job, **payload(stamped.event)}


class _Lines:
    """A binary file that is written unbuffered, and given up when it breaks."""

    def __init__(self, file: BinaryIO) -> None:
        self._fd = _fd_of(file)
        self._file: BinaryIO | None = file

    def write(self, data: bytes) -> None:
        try:
            if self._fd is not None:
                _write_all(self._fd, data)
            elif self._file is not None:
                self._file.write(data)
        except (OSError, ValueError):
            self._fd = self._file = None

    def flush(self) -> None:
        """Nothing is buffered."""


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # somebody who shares the file made it non-blocking
            select.select((), (fd,), ())


def _fd_of(file: BinaryIO) -> int | None:
    try:
        return file.fileno()
    except (OSError, ValueError, io.UnsupportedOperation):
        return None


Renderer = Callable[[Any, str, dict[str, Any]], bytes]


def _json(_: bool) -> Renderer:
    render = structlog.processors.JSONRenderer(serializer=_dumps)
    return lambda logger, name, event: render(logger, name, event)  # type: ignore[return-value]  # the serializer gives bytes


def _dumps(value: object, **_: object) -> bytes:
    """JSON that every reader takes, whatever `value` holds."""
    try:
        return orjson.dumps(value, default=_marker)
    except (TypeError, ValueError, RecursionError):  # a lone surrogate, a number beyond 64 bits, a value without an end
        return json.dumps(_plain(value, 0), ensure_ascii=False, separators=(",", ":")).encode()


def _plain(value: object, depth: int) -> object:
    """`value` as JSON can hold it; what it cannot is replaced by a text that says what it was."""
    match value:
        case None | bool():
            return value
        case int():
            return int(value) if value.bit_length() <= _MOST_BITS else f"(a number of {value.bit_length()} bits)"
        case float():
            return value if math.isfinite(value) else None  # as orjson writes them
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict() | list() | tuple() if depth == _DEEPEST:
            return "(nested too deeply)"
        case dict():
            return {str(_plain(str(key), depth)): _plain(each, depth + 1) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each, depth + 1) for each in value]
    return _marker(value)


def _marker(value: object) -> str:
    try:
        return repr(value).encode("utf-8", "backslashreplace").decode()
    except Exception as error:
        return f"({type(value).__name__}, whose repr raised {type(error).__name__})"


def _logfmt(_: bool) -> Renderer:
    render = structlog.processors.LogfmtRenderer(bool_as_flag=False)

    def rendered(logger: Any, name: str, event: dict[str, Any]) -> bytes:
        return render(logger, name, {key: _flat(value) for key, value in event.items()}).encode("utf-8", "backslashreplace")

    return rendered


_NOT_IN_LOGFMT = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
"""Control characters but the line end, which structlog escapes itself."""


def _flat(value: object) -> object:
    if isinstance(value, (int, dict, list)) and not isinstance(value, bool):
        value = _dumps(value).decode()
    return _NOT_IN_LOGFMT.sub(lambda match: f"\\x{ord(match[0]):02x}", value) if isinstance(value, str) else value


def _console(is_terminal: bool) -> Renderer:
    paint = colours(is_terminal)

    def rendered(_: Any, name: str, event: dict[str, Any]) -> bytes:
        error = event.pop("error", None) or {}
        event.pop("output", None)  # it was shown when it was printed
        shown = {key: value for key, value in event.items() if key not in _EXTRAS and value != ""}
        words = [f"{key}={_short(value)}" for key, value in shown.items()]
        head = " ".join([event["ts"][11:23], paint(f"{name:<7}", name), paint(f"{event['event']:<15}", "bold")])
        why = f" error={_short(error['message'])}" if error else ""
        return f"{head} {' '.join(words)}{why}".encode("utf-8", "backslashreplace")

    return rendered


def _short(value: object) -> str:
    """A value in one word: quoted, with escapes, where it holds anything that could be taken for more or obeyed."""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = value if isinstance(value, str) else _dumps(value).decode()
    return text if text and " " not in text and text.isprintable() else repr(text)


_RENDERERS: dict[str, Callable[[bool], Renderer]] = {"json": _json, "logfmt": _logfmt, "console": _console}
