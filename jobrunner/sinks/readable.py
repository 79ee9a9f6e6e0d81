"""The log for people, and as logfmt: rendered and written by structlog."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from jobrunner.encoding import dumps
from jobrunner.events import TaskFinished
from jobrunner.sinks.terminal import colours, escaped
from jobrunner.stream import Stamped, payload


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

_EXTRAS = ("ts", "run_id", "job", "seq", "level", "event")


def lines(chosen: str, is_terminal: bool) -> Callable[[Stamped, str], bytes]:
    """What gives the line of an event of a level: `chosen` is logfmt or console."""
    render = _RENDERERS[chosen](is_terminal)
    return lambda stamped, importance: render(None, importance, _fields(stamped, importance)) + b"\n"


def _fields(stamped: Stamped, importance: str) -> dict[str, Any]:
    place = {"ts": stamped.ts, "level": importance, "event": stamped.event.NAME, "seq": stamped.seq}
    return {**place, "run_id": stamped.run_id, "job": stamped.job, **payload(stamped.event)}


Renderer = Callable[[Any, str, dict[str, Any]], bytes]


def _logfmt(_: bool) -> Renderer:
    render = structlog.processors.LogfmtRenderer(bool_as_flag=False)

    def rendered(logger: Any, name: str, event: dict[str, Any]) -> bytes:
        return render(logger, name, {key: _flat(value) for key, value in event.items()}).encode("utf-8", "backslashreplace")

    return rendered


_NOT_IN_LOGFMT = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
"""Control characters but the line end, which structlog escapes itself."""


def _flat(value: object) -> object:
    if isinstance(value, (int, dict, list)) and not isinstance(value, bool):
        value = dumps(value).decode()
    return _NOT_IN_LOGFMT.sub(lambda match: f"\\x{ord(match[0]):02x}", value) if isinstance(value, str) else value


_FOR_PROGRAMS = (*_EXTRAS, "digest", "error")
"""What the console leaves out: the reason says what an error is."""


def _console(is_terminal: bool) -> Renderer:
    paint = colours(is_terminal)

    def rendered(_: Any, name: str, event: dict[str, Any]) -> bytes:
        stack = event.pop("stack", "")
        if event["event"] == TaskFinished.NAME:
            event.pop("output", None)  # it was shown when it was printed
        error = event.get("error") if "reason" not in event else None
        if "options" in event:  # parameters stand beside them
            event["options"] = {key: value for key, value in event["options"].items() if key != "params"}
        shown = {key: value for key, value in event.items() if key not in _FOR_PROGRAMS and value not in ("", {}, [])}
        words = [f"{key}={_short(value)}" for key, value in shown.items()]
        head = " ".join([event["ts"][11:23], paint(f"{name:<7}", name), paint(f"{event['event']:<15}", "bold")])
        why = f" error={_short(error['message'])}" if error else ""
        below = [f"    {escaped(line)}" for line in stack.splitlines()]
        return "\n".join([f"{head} {' '.join(words)}{why}", *below]).encode("utf-8", "backslashreplace")

    return rendered


def _short(value: object) -> str:
    """A value in one word: quoted, with escapes, where it holds anything that could be taken for more or obeyed."""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = value if isinstance(value, str) else dumps(value).decode()
    return text if text and " " not in text and text.isprintable() else repr(text)


_RENDERERS: dict[str, Callable[[bool], Renderer]] = {"logfmt": _logfmt, "console": _console}
