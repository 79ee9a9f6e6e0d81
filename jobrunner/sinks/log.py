"""The structured log: one line an event, as JSON; for people and as logfmt see `readable`."""

from __future__ import annotations

from collections.abc import Callable, Collection

from jobrunner.events import Event, Level, TaskFinished, TaskOutput, TaskStarted, level
from jobrunner.outlet import Outlet
from jobrunner.sinks.terminal import FORMATS, LEVELS
from jobrunner.stream import Row, Rows, Sink, Stamped, Together, place, unfolded
from jobrunner.typed import BinaryIO

__all__ = ["FORMATS", "LEVELS", "log_sink"]


def log_sink(to: Outlet | BinaryIO, *, format: str, minimum: str) -> Sink:  # noqa: A002  # as the option is called
    """A sink that writes every event of at least level `minimum`, in one write a line.

    `format` is json, logfmt or console; auto is console on a terminal and json elsewhere. A file that nobody reads, or that
    takes no more, costs lines of the log, never the run.
    """
    outlet = to if isinstance(to, Outlet) else Outlet(to, name="log")
    chosen = format if format != "auto" else "console" if outlet.isatty() else "json"
    shown = frozenset(each for each, number in LEVELS.items() if number >= LEVELS[minimum])
    lines_of = _json if chosen == "json" else _readable(chosen, outlet.isatty())

    def take(batch: Rows) -> None:
        outlet.write_all(lines_of(batch, shown))

    return Together(take, takes_rows=True)


def _json(batch: Rows, shown: Collection[str]) -> list[bytes]:
    """The lines that structlog's JSONRenderer gives, of the bytes that the journal has too: structlog costs 30 ms to import."""
    lines, heads, ts = list[bytes](), dict[tuple[type, Level], bytes](), ""
    for stamped in batch:
        if isinstance(stamped, Row):
            lines += _json_row(stamped) if "info" in shown else ()
            continue
        event = stamped.event
        kind, importance = type(event), level(event)
        if kind is TaskOutput or importance not in shown:
            continue
        if stamped.ts is not ts:  # as a rule all have one
            ts, heads = stamped.ts, {}
        head = heads.get((kind, importance))
        if head is None:
            head = heads[kind, importance] = _head(stamped, kind, importance)
        lines.append(b"%b%d,%b,%b}\n" % (head, stamped.seq, place(stamped.run_id, stamped.job), stamped.fields()))
    return lines


def _json_row(row: Row) -> list[bytes]:
    """Two lines an attempt, in one piece."""
    seq, around = row.seq, place(row.run_id, row.job)
    heads = [b"%b%%d,%b,%%b}\n" % (_head(row, kind, "info"), around.replace(b"%", b"%%")) for kind in (TaskStarted, TaskFinished)]
    form = b"".join(heads)
    return [
        form % (at, begin, at + 1, end)
        for at, (begin, end) in zip(range(seq, seq + 2 * len(row.fields), 2), row.fields, strict=True)
    ]


def _head(stamped: Stamped | Row, kind: type[Event], importance: Level) -> bytes:
    """What the lines of one kind of event share that were told at one time."""
    return f'{{"ts":"{stamped.ts}","level":"{importance}","event":"{kind.NAME}","seq":'.encode()


def _readable(chosen: str, is_terminal: bool) -> Callable[[Rows, Collection[str]], list[bytes]]:
    from jobrunner.sinks import readable  # loads structlog, which most runs from cron do without

    line_of = readable.lines(chosen, is_terminal)

    def lines(batch: Rows, shown: Collection[str]) -> list[bytes]:
        logged = ((stamped, level(stamped.event)) for stamped in unfolded(batch) if type(stamped.event) is not TaskOutput)
        return [line_of(stamped, importance) for stamped, importance in logged if importance in shown]

    return lines
