"""The structured log: one line an event, as JSON; for people and as logfmt see `readable`."""

from __future__ import annotations

from collections.abc import Callable

from jobrunner.events import Sink, Stamped, TaskOutput, level
from jobrunner.outlet import Outlet
from jobrunner.sinks.terminal import FORMATS, LEVELS
from jobrunner.typed import BinaryIO

__all__ = ["FORMATS", "LEVELS", "log_sink"]


def log_sink(to: Outlet | BinaryIO, *, format: str, minimum: str) -> Sink:  # noqa: A002  # as the option is called
    """A sink that writes every event of at least level `minimum`, in one write a line.

    `format` is json, logfmt or console; auto is console on a terminal and json elsewhere. A file that nobody reads, or that
    takes no more, costs lines of the log, never the run.
    """
    outlet = to if isinstance(to, Outlet) else Outlet(to, name="log")
    chosen = format if format != "auto" else "console" if outlet.isatty() else "json"
    tell = _json(outlet) if chosen == "json" else _readable(outlet, chosen)
    least = LEVELS[minimum]

    def write(stamped: Stamped) -> None:
        if type(stamped.event) is TaskOutput:
            return
        importance = level(stamped.event)
        if LEVELS[importance] >= least:
            tell(stamped, importance)

    return write


Teller = Callable[[Stamped, str], None]


def _json(outlet: Outlet) -> Teller:
    """The line that structlog's JSONRenderer gives, of the bytes that the journal has too: structlog costs 30 ms to import."""
    send = outlet.write

    def tell(stamped: Stamped, importance: str) -> None:
        head = f'{{"ts":"{stamped.ts}","level":"{importance}","event":"{stamped.event.NAME}","seq":{stamped.seq},'
        send(head.encode() + stamped.body() + b"}\n")

    return tell


def _readable(outlet: Outlet, chosen: str) -> Teller:
    from jobrunner.sinks import readable  # loads structlog, which most runs from cron do without

    return readable.teller(outlet, chosen)
