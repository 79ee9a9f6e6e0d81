"""What goes between the engine and a runner: frames of rows, which are plain data; many rows in one frame, and in one send.

Both ends are of one version and one interpreter, and a runner runs no code but ours, so `marshal` does: in a third of the time
of JSON, and with bytes. What is the same in the commands of one frame, most of their environments, is in it once.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from operator import attrgetter

from jobrunner.structs import defaults
from jobrunner.typed import Any, TypeAlias
from jobrunner.work import Began, Command, Error, Exhausted, Leftover, Outcome, Report, Result, Said

Row: TypeAlias = tuple[Any, ...]

COMMAND, STOP, ROOM, KILL, PING = "command", "stop", "room", "kill", "ping"
"""Rows for the runner: a command; id, signal and grace; how many may run at once."""
READY, ALIVE = "ready", "alive"
"""Rows from the runner that are no reports."""
MARK = "JOBRUNNER_RUNNER"
"""A variable that only a runner has in its environment, and what it has forked and has not become a command yet."""

_HEAD = 4
_KINDS: dict[str, type] = {kind.__name__: kind for kind in (Began, Said, Result, Leftover, Exhausted)}
_NAMES = {name: tuple(defaults(kind)) for name, kind in _KINDS.items()}
_VALUES = {kind: attrgetter(*_NAMES[name]) for name, kind in _KINDS.items()}
_OUTCOMES = {str(each): each for each in Outcome}
_OUTCOME, _ERROR = (1 + _NAMES["Result"].index(name) for name in ("outcome", "error"))
_ERROR_FIELDS = attrgetter(*defaults(Error))
_COMMAND_NAMES = tuple(name for name in defaults(Command) if name not in ("resources", "leftover_allowed"))
"""Commands with these two do not go to a runner."""
_COMMAND_VALUES = attrgetter(*_COMMAND_NAMES)


def frame(rows: list[Row]) -> bytes:
    data = marshal.dumps(rows)
    return len(data).to_bytes(_HEAD, "big") + data


class Frames:
    """Frames as they come, in pieces of any length."""

    def __init__(self) -> None:
        self._data = bytearray()

    def rows(self, data: bytes) -> Iterator[Row]:
        """The rows that `data` completes. Raises ValueError, TypeError or EOFError for what is no frame."""
        self._data += data
        while len(self._data) >= _HEAD and len(self._data) >= (end := _HEAD + int.from_bytes(self._data[:_HEAD], "big")):
            rows = marshal.loads(self._data[_HEAD:end])
            del self._data[:end]
            yield from rows


def of_command(command: Command) -> Row:
    return (COMMAND, *_COMMAND_VALUES(command))


def command_of(row: Row) -> Command:
    return Command(**dict(zip(_COMMAND_NAMES, row[1:], strict=True)))


def of_report(report: Report) -> Row:
    kind = type(report)
    found = [kind.__name__, *_VALUES[kind](report)]
    if kind is Result:
        found[_OUTCOME] = str(found[_OUTCOME].value)
        found[_ERROR] = found[_ERROR] and _ERROR_FIELDS(found[_ERROR])
    return tuple(found)


def report_of(row: Row) -> Report:
    """Raises KeyError, TypeError or ValueError for a row that is none."""
    fields = dict(zip(_NAMES[row[0]], row[1:], strict=True))
    if row[0] == "Result":
        fields["outcome"] = _OUTCOMES[fields["outcome"]]
        fields["error"] = fields["error"] and Error(**dict(zip(defaults(Error), fields["error"], strict=True)))
    report: Report = _KINDS[row[0]](**fields)
    return report
