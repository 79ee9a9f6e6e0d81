"""What tasks print: kept in a file for each task or item, and shown line by line with the task's name in front."""

from __future__ import annotations

from collections.abc import Callable

from jobrunner.events import RunFinished, TaskFinished, TaskOutput
from jobrunner.outlet import Outlet
from jobrunner.sinks.terminal import visible
from jobrunner.stream import Rows, Sink, Stamped, Together
from jobrunner.typed import BinaryIO

_LONGEST_LINE = 1 << 16

Speaker = tuple[str, str | None, int]


def file_sink(keep: Callable[[str, str | None, bytes], None]) -> Sink:
    """Hands every piece of output to `keep(task, item, data)`; what cannot be attributed goes under `pool.NAME`.

    No task is called so: names of tasks hold no dot.
    """

    def take(batch: Rows) -> None:
        for stamped in batch:
            if isinstance(stamped, Stamped) and type(event := stamped.event) is TaskOutput:
                keep(event.task or f"pool.{event.pool}", event.item, event.data)

    return Together(take, takes_rows=True)


def terminal_sink(to: Outlet | BinaryIO) -> Sink:
    """Shows output as `task[item] | line`. A line is shown when it is whole, or when its attempt or the run has ended."""
    partial: dict[Speaker, bytes] = {}
    outlet = to if isinstance(to, Outlet) else Outlet(to, name="stdout")
    escape = outlet.isatty()

    def show(speaker: Speaker, data: bytes) -> None:
        if escape:
            data = _for_terminal(data)
        prefix = _label(speaker).encode("utf-8", "backslashreplace") + b" | "
        outlet.write(prefix + data.replace(b"\n", b"\n" + prefix) + b"\n")

    def write(stamped: Stamped) -> None:
        match stamped.event:
            case TaskOutput() as event:
                speaker = (event.task or f"({event.pool})", event.item, event.attempt)
                *lines, rest = (partial.pop(speaker, b"") + event.data).split(b"\n")
                if len(rest) > _LONGEST_LINE:
                    lines, rest = [*lines, rest], b""
                if lines:
                    show(speaker, b"\n".join(lines))
                if rest:
                    partial[speaker] = rest
            case TaskFinished() as event:
                rest = partial.pop((event.task, event.item, event.attempt), b"")
                if rest:
                    show((event.task, event.item, event.attempt), rest)
            case RunFinished():
                for speaker, rest in partial.items():
                    show(speaker, rest)
                partial.clear()

    return write


def _for_terminal(data: bytes) -> bytes:
    """Lines that may keep their colours, none of which runs on into the next line."""
    lines = (visible(line.removesuffix("\r")) for line in data.decode("utf-8", "replace").split("\n"))
    return "\n".join(f"{line}\x1b[0m" if "\x1b" in line else line for line in lines).encode("utf-8", "replace")


def _label(speaker: Speaker) -> str:
    task, item, _ = speaker
    return task if item is None else f"{task}[{visible(item)}]"
