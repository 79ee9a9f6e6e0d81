"""The structured log: one line an event, as JSON; for people and as logfmt see `readable`."""

from __future__ import annotations

from collections.abc import Callable

from jobrunner.events import TaskOutput, level
from jobrunner.outlet import Outlet
from jobrunner.sinks.terminal import FORMATS, LEVELS
from jobrunner.stream import Batch, Sink, Stamped, Together
from jobrunner.typed import BinaryIO

__all__ = ["FORMATS", "LEVELS", "log_sink"]


def log_sink(to: Outlet | BinaryIO, *, format: str, minimum: str) -> Sink:  # noqa: A002  # as the option is called
    """A sink that writes every event of at least level `minimum`, in one write a line.

    `format` is json, logfmt or console; auto is console on a terminal and json elsewhere. A file that nobody reads, or that
    takes no more, costs lines of the log, never the run.
    """
    outlet = to if isinstance(to, Outlet) else Outlet(to, name="log")
    chosen = format if format != "auto" else "console" if outlet.isatty() else "json"
    line_of = _json if chosen == "json" else _readable(chosen, outlet.isatty())
    least = LEVELS[minimum]

    def take(batch: Batch) -> None:
        lines = [
            line_of(stamped, importance)
            for stamped in batch
            if type(stamped.event) is not TaskOutput and LEVELS[importance := level(stamped.event)] >= least
        ]
        outlet.write_all(lines)

    return Together(take)


def _json(stamped: Stamped, importance: str) -> bytes:
    """The line that structlog's JSONRenderer gives, of the bytes that the journal has too: structlog costs 30 ms to import."""
    head = f'{{"ts":"{stamped.ts}","level":"{importance}","event":"{stamped.event.NAME}","seq":{stamped.seq},'
    return b"%b%b}\n" % (head.encode(), stamped.body())


def _readable(chosen: str, is_terminal: bool) -> Callable[[Stamped, str], bytes]:
    from jobrunner.sinks import readable  # loads structlog, which most runs from cron do without

    return readable.lines(chosen, is_terminal)
