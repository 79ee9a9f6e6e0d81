"""The structured log: one line an event, by structlog, as JSON, logfmt or for people."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, BinaryIO

import orjson
import structlog

from jobrunner.events import Sink, Stamped, TaskOutput, level, payload
from jobrunner.sinks.terminal import colours, visible

FORMATS = ("auto", "console", "json", "logfmt")
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_EXTRAS = ("ts", "run_id", "job", "seq", "level", "event")


def log_sink(file: BinaryIO, *, format: str, minimum: str) -> Sink:
    """A sink that writes every event of at least level `minimum` to `file`, in one write a line.

    `format` is json, logfmt or console; auto is console on a terminal and json elsewhere. A file that nobody reads any
    more ends the log, never the run.
    """
    chosen = format if format != "auto" else "console" if _is_terminal(file) else "json"
    logger = structlog.BytesLogger(_Lines(file))  # type: ignore[arg-type]  # it needs write and flush, no more
    render = _RENDERERS[chosen](_is_terminal(file))
    least = LEVELS[minimum]

    def write(stamped: Stamped) -> None:
        if isinstance(stamped.event, TaskOutput):
            return
        importance = level(stamped.event)
        if LEVELS[importance] >= least:
            fields = {"ts": stamped.ts, "level": importance, "event": stamped.event.NAME, "seq": stamped.seq}
            logger.msg(render(logger, importance, {**fields, "run_id": stamped.run_id, "job": stamped.job, **payload(stamped.event)}))

    return write


class _Lines:
    """A binary file that is written unbuffered, and given up when it breaks."""

    def __init__(self, file: BinaryIO) -> None:
        self._fd: int | None = file.fileno() if _has_fd(file) else None
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
        data = data[os.write(fd, data) :]


def _has_fd(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except (OSError, io.UnsupportedOperation):
        return False
    return True


def _is_terminal(file: BinaryIO) -> bool:
    try:
        return file.isatty()
    except ValueError:  # closed
        return False


Renderer = Callable[[Any, str, dict[str, Any]], bytes]


def _json(_: bool) -> Renderer:
    render = structlog.processors.JSONRenderer(serializer=_dumps)
    return lambda logger, name, event: render(logger, name, event)  # type: ignore[return-value]  # the serializer gives bytes


def _dumps(value: dict[str, Any], **_: object) -> bytes:
    try:
        return orjson.dumps(value, default=repr)
    except (TypeError, ValueError):  # a lone surrogate, a number beyond 64 bits: the standard library writes those too
        import json

        return json.dumps(value, default=repr).encode()


def _logfmt(_: bool) -> Renderer:
    render = structlog.processors.LogfmtRenderer(bool_as_flag=False)

    def rendered(logger: Any, name: str, event: dict[str, Any]) -> bytes:
        flat = {key: _flat(value) for key, value in event.items()}
        return render(logger, name, flat).encode("utf-8", "backslashreplace")

    return rendered


def _flat(value: object) -> object:
    return orjson.dumps(value, default=repr).decode() if isinstance(value, (dict, list)) else value


def _console(is_terminal: bool) -> Renderer:
    paint = colours(is_terminal)

    def rendered(logger: Any, name: str, event: dict[str, Any]) -> bytes:
        error = event.pop("error", None) or {}
        event.pop("output", None)  # it was shown when it was printed
        shown = {key: value for key, value in event.items() if key not in _EXTRAS and value != ""}
        words = [f"{key}={_short(value)}" for key, value in shown.items()]
        head = f"{event['ts'][11:23]} {paint(f'{name:<7}', name)} {paint(event['event'], 'bold'):<15}"
        why = f" error={_short(error['message'])}" if error else ""
        return visible(f"{head} {' '.join(words)}{why}").encode("utf-8", "backslashreplace")

    return rendered


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = value if isinstance(value, str) else orjson.dumps(value, default=repr).decode()
    return text if text and " " not in text else repr(text)


_RENDERERS: dict[str, Callable[[bool], Renderer]] = {"json": _json, "logfmt": _logfmt, "console": _console}
