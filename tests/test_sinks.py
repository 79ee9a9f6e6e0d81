"""Sinks: a log that every reader can parse, a terminal that no task can control, output that is kept, an end on one screen."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pty
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from jobrunner import events
from jobrunner.captured import Captured
from jobrunner.events import Event, level
from jobrunner.loop import Loop
from jobrunner.outlet import MOST_QUEUED, Outlet
from jobrunner.sinks import readable
from jobrunner.sinks.log import log_sink
from jobrunner.sinks.output import file_sink, terminal_sink
from jobrunner.sinks.summary import Summary
from jobrunner.sinks.terminal import colours, escaped, visible
from jobrunner.stream import Stamped

ROOT = Path(__file__).parent.parent
TS = "2026-01-02T03:04:05.678901Z"


class Terminal(io.BytesIO):
    """A file that says it is one."""

    def isatty(self) -> bool:
        return True


class Writes(io.BytesIO):
    """A file that counts its writes."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        self.pieces.append(bytes(data))
        return len(data)


def stamped(event: Event, seq: int = 1) -> Stamped:
    return Stamped(seq=seq, ts=TS, run_id="r1", job="j", event=event)


def finished(**more: Any) -> events.TaskFinished:
    given = {"task": "a", "item": None, "attempt": 1, "mode": "thread_pool", "worker": "w-1", "pid": 7, "outcome": "succeeded"}
    return events.TaskFinished(**{**given, "duration": 1.5, **more})


def failed(message: str = "no", **more: Any) -> events.TaskFinished:
    return finished(**{"outcome": "failed", "error": {"type": "ValueError", "message": message}, **more})


def started(params: dict[str, Any] | None = None) -> events.RunStarted:
    return events.RunStarted(file="/jobs/j.yaml", run_dir="/s/j/r1", pid=1, tasks=1, params=params or {}, options={})


def said(data: bytes, task: str = "a", item: str | None = None, attempt: int = 1) -> events.TaskOutput:
    return events.TaskOutput(task=task, item=item, attempt=attempt, pool="p", data=data)


def logged(event: Event, format: str, file: io.BytesIO | None = None) -> bytes:  # noqa: A002  # as the option is called
    file = file or io.BytesIO()
    log_sink(file, format=format, minimum="info")(stamped(event))
    return file.getvalue()


# --- JSON lines --------------------------------------------------------------------------------------------------------------


def test_a_json_line_has_its_place_first_and_then_its_fields() -> None:
    assert logged(failed(), "json").decode() == (
        f'{{"ts":"{TS}","level":"error","event":"task.finished","seq":1,"run_id":"r1","job":"j","task":"a","attempt":1,'
        '"mode":"thread_pool","worker":"w-1","pid":7,"outcome":"failed","duration":1.5,'
        '"error":{"type":"ValueError","message":"no"}}\n'
    )


BAD_TEXTS = ["\x00\x01\x1b[31m\x7f\x85", "\ud800", "a\nb\rc\u2028d", '"quotes" \\ and =', "ü🎉", "", "\ufeff"]


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_a_line_is_one_write_of_one_line_that_strict_readers_take(text: str) -> None:
    file = Writes()
    sink = log_sink(file, format="json", minimum="info")
    sink(stamped(failed(text, item=text, output=text, note=text, worker=text)))
    (line,) = file.pieces
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    expected = text.replace("\ud800", "\\ud800")
    found = orjson.loads(line)
    assert found == json.loads(line)
    assert (found["error"]["message"], found["worker"]) == (expected, expected)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (float("inf"), None),
        ([float("nan"), "\ud800"], [None, "\\ud800"]),
        (1 << 64, 1 << 64),
        ([10**5000, -(10**5000)], ["(a number of 16610 bits)"] * 2),  # in a list, as pytest names a case by its numbers
        ({"\ud800": 1 << 70}, {"\\ud800": 1 << 70}),
        ({1: 2}, {"1": 2}),
        (Path("/x"), "PosixPath('/x')"),
        (Unprintable(), "(Unprintable, whose repr raised RuntimeError)"),
        ([Unprintable(), "\ud800"], ["(Unprintable, whose repr raised RuntimeError)", "\\ud800"]),
        ((1 << 70, None, True), [1 << 70, None, True]),
        (b"\xff", "b'\\xff'"),
    ],
)
def test_a_value_that_json_cannot_hold_becomes_a_marker_never_an_exception(value: Any, expected: Any) -> None:
    line = logged(started({"x": value}), "json")
    found = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["params"]["x"] == expected


def test_a_value_without_an_end_is_cut() -> None:
    assert b"(nested too deeply)" in logged(started({"x": ENDLESS}), "json")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(value=anything, text=st.text(st.characters()), name=st.sampled_from(["json", "logfmt", "console"]))
def test_whatever_an_event_holds_each_format_writes_one_line(value: Any, text: str, name: str) -> None:
    for event in (started({"x": value, text: 1}), failed(text, item=text, worker=text)):
        line = logged(event, name)
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        line.decode()
        if name == "json":
            json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


def test_output_is_not_in_the_log() -> None:
    assert logged(said(b"x\n"), "json") == b""


@pytest.mark.parametrize(("minimum", "count"), [("debug", 3), ("info", 3), ("warning", 2), ("error", 1)])
def test_only_events_of_at_least_the_minimum_level_are_written(minimum: str, count: int) -> None:
    file = Writes()
    sink = log_sink(file, format="json", minimum=minimum)
    for event in (finished(), failed(forgiven=True), failed()):
        sink(stamped(event))
    assert len(file.pieces) == count


@pytest.mark.parametrize("event", [finished(), failed(), failed(forgiven=True)], ids=["finished", "failed", "forgiven"])
def test_a_line_of_json_is_what_structlog_would_render(event: Event) -> None:
    fields = readable._fields(stamped(event), level(event))
    line = structlog.processors.JSONRenderer(serializer=lambda value, **_: orjson.dumps(value))(None, "info", fields)
    assert logged(event, "json") == line + b"\n"  # type: ignore[operator]  # the serializer gives bytes


def test_logfmt_is_rendered_by_structlog(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    class Spy(structlog.processors.LogfmtRenderer):
        def __call__(self, *args: Any) -> Any:
            used.append(args)
            return super().__call__(*args)

    monkeypatch.setattr(structlog.processors, "LogfmtRenderer", Spy)
    logged(finished(), "logfmt")
    assert len(used) == 1


# --- logfmt ------------------------------------------------------------------------------------------------------------------


def parsed_logfmt(line: str) -> dict[str, str]:
    """The pairs of a line, as readers of logfmt take it: key=value, key="quoted \\" value", split at blanks."""
    found, at = {}, 0
    while at < len(line):
        key, _, _ = line[at:].partition("=")
        assert key.replace("_", "").isalnum(), f"{key!r} is no key"
        at += len(key) + 1
        value, at = _quoted(line, at + 1) if line[at : at + 1] == '"' else _bare(line, at)
        found[key] = value
        at += 1
    return found


def _bare(line: str, at: int) -> tuple[str, int]:
    end = line.find(" ", at)
    end = len(line) if end < 0 else end
    return line[at:end], end


def _quoted(line: str, at: int) -> tuple[str, int]:
    made = ""
    while line[at] != '"':
        if line[at] == "\\":
            at += 1
            made += {"n": "\n"}.get(line[at], line[at])
        else:
            made += line[at]
        at += 1
    return made, at + 1


@pytest.mark.parametrize("text", ["plain", "two words", 'a "quote"', "a=b", "back\\slash and space", "two\nlines here", ""])
def test_a_logfmt_line_parses_to_what_the_event_said(text: str) -> None:
    found = parsed_logfmt(logged(finished(note=text, item=text), "logfmt").decode().rstrip("\n"))
    assert (found["note"], found["item"], found["event"], found["duration"]) == (text, text, "task.finished", "1.5")


@given(text=st.text(st.characters()))
def test_a_logfmt_line_parses_whatever_a_task_said(text: str) -> None:
    line = logged(failed(text, item=text), "logfmt").decode().rstrip("\n")
    found = parsed_logfmt(line)
    assert list(found)[-1] == "error"
    assert not [char for char in line if char < " " or "\x7f" <= char <= "\x9f"]


def test_maps_and_flags_in_logfmt_are_json_and_words() -> None:
    found = parsed_logfmt(logged(failed(retried=True), "logfmt").decode().strip())
    assert json.loads(found["error"]) == {"type": "ValueError", "message": "no"}
    assert found["retried"] == "true"


# --- the console -------------------------------------------------------------------------------------------------------------


def test_the_console_is_for_people() -> None:
    line = logged(failed("two words", item="x", cpu=0.25, output="shown before"), "console").decode()
    assert line == (
        "03:04:05.678 error   task.finished   task=a item=x attempt=1 mode=thread_pool worker=w-1 pid=7 outcome=failed "
        "duration=1.500 cpu=0.250 error='two words'\n"
    )


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            events.LogDegraded(output="log", reason="its reader stalled", dropped=12),
            "warning log.degraded    output=log reason='its reader stalled' dropped=12",
        ),
        (
            events.RunResumed(file="/j.yaml", run_dir="/s", pid=1, tasks=3, attempt=2, recorded=950, in_flight=2),
            "info    run.resumed     file=/j.yaml run_dir=/s pid=1 tasks=3 attempt=2 recorded=950 in_flight=2",
        ),
        (events.JournalRepaired(offset=10, dropped=3), "warning journal.repaired offset=10 dropped=3"),
        (
            events.RunStacks(
                process="engine", pid=7, running={"a[1]": 2.5}, stack='  File "engine.py", line 1\n    \x1b[2Jturn()\n'
            ),
            (
                'info    run.stacks      process=engine pid=7 running={"a[1]":2.5}\n'
                '      File "engine.py", line 1\n        \\x1b[2Jturn()'
            ),
        ),
        (events.RunInterrupted(reason="stopped by SIGTERM", signal="SIGTERM"), None),
        (events.TaskSubmitted(task="a", item=None, attempt=1, digest="0123"), "info    task.submitted  task=a attempt=1"),
        (
            events.TaskSkipped(task="a", item="x", reason="recorded", outcome="succeeded"),
            "info    task.skipped    task=a reason=recorded item=x outcome=succeeded",
        ),
    ],
)
def test_what_only_some_runs_tell_is_for_people_too(event: Event, expected: str | None) -> None:
    line = logged(event, "console").decode()
    if expected is None:
        assert line.count("\n") == 1
    else:
        assert line == f"03:04:05.678 {expected}\n"


@pytest.mark.parametrize(
    ("params", "options", "told"),
    [
        ({}, {"params": {}}, ""),
        ({"n": 1}, {"params": {"n": 1}}, ' params={"n":1}'),
        ({"n": 1}, {"params": {}, "only": ["a"]}, ' params={"n":1} options={"only":["a"]}'),
    ],
)
def test_the_console_tells_parameters_once_and_no_empty_field(params: dict[str, Any], options: dict[str, Any], told: str) -> None:
    begun = events.RunStarted(file="/j.yaml", run_dir="/s", pid=1, tasks=3, params=params, options=options)
    line = logged(begun, "console").decode()
    assert line == f"03:04:05.678 info    run.started     file=/j.yaml run_dir=/s pid=1 tasks=3{told}\n"
    busy = events.LimitBusy(limits=["api"], holders=[])
    assert logged(busy, "console").decode().endswith(' limits=["api"]\n')
    assert begun.options is options, "what other sinks get is left alone"


def test_the_console_says_once_why_something_failed() -> None:
    line = logged(failed("exit 3", reason="exit 3", digest="0123"), "console").decode()
    assert "reason='exit 3'" in line
    assert "error=" not in line
    assert "digest" not in line


@pytest.mark.parametrize("text", [*BAD_TEXTS, "\x1b[8mhidden", "\x1b]0;title\x07", "\u202eright to left", "a\tb"])
def test_the_console_passes_no_control_character_from_a_task_to_the_terminal(text: str) -> None:
    event = failed(text, task=text or "a", item=text, worker=text, note=text)
    shown = logged(event, "console", Terminal()).decode()
    for code in ("\x1b[31m", "\x1b[1m", "\x1b[0m"):
        shown = shown.replace(code, "", 1 if code != "\x1b[0m" else 2)
    assert shown.endswith("\n")
    assert shown[:-1].isprintable(), repr(shown)


@pytest.mark.parametrize(
    ("environ", "terminal", "painted"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    environ: dict[str, str], terminal: bool, painted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    shown = logged(finished(), "console", Terminal() if terminal else io.BytesIO())
    assert (b"\x1b[" in shown) is painted
    assert colours(terminal)("x", "unknown kind") == "x"


@pytest.mark.parametrize(("file", "is_json"), [(io.BytesIO(), True), (Terminal(), False)])
def test_auto_is_the_console_on_a_terminal_and_json_elsewhere(file: io.BytesIO, is_json: bool) -> None:
    assert logged(finished(), "auto", file).startswith(b"{") is is_json


# --- files that break --------------------------------------------------------------------------------------------------------


def closed_file() -> BinaryIO:
    file = io.BytesIO()
    file.close()
    return file


@contextlib.contextmanager
def broken_pipe() -> Iterator[BinaryIO]:
    near, far = os.pipe()
    os.close(near)
    with os.fdopen(far, "wb", buffering=0) as file:
        yield file


@pytest.mark.parametrize("format", ["auto", "json", "logfmt", "console"])
def test_a_closed_or_broken_log_ends_the_log_never_the_run(format: str) -> None:  # noqa: A002  # as the option is called
    with broken_pipe() as broken, open("/dev/full", "wb", buffering=0) as full:
        for file in (closed_file(), broken, full):
            sink = log_sink(file, format=format, minimum="info")
            sink(stamped(finished()))
            sink(stamped(finished()))


def test_a_log_that_is_closed_later_ends_there() -> None:
    file = io.BytesIO()
    sink = log_sink(file, format="json", minimum="info")
    sink(stamped(finished()))
    file.close()
    sink(stamped(finished()))


def test_the_log_of_a_run_waits_in_its_outlet_until_the_journal_has_been_written() -> None:
    file = io.BytesIO()
    outlet = Outlet(file, name="log")
    with contextlib.closing(Loop()) as loop:
        outlet.attach(loop, lambda *call: None)
        log_sink(outlet, format="json", minimum="info")(stamped(finished()))
        terminal_sink(outlet)(stamped(said(b"x\n")))
        assert file.getvalue() == b""
        outlet.flush()
        assert file.getvalue() == logged(finished(), "json") + b"a | x\n", "of one file the log and the output keep their order"


def test_100_000_events_that_nobody_reads_take_no_more_memory_than_the_queue() -> None:
    near, far = os.pipe()
    with os.fdopen(far, "wb", buffering=0) as file, contextlib.closing(Loop()) as loop:
        outlet = Outlet(file, name="log")
        outlet.attach(loop, lambda *call: None)
        log_line, show = log_sink(outlet, format="json", minimum="info"), terminal_sink(outlet)
        for number in range(50_000):
            log_line(stamped(finished(), number))
            show(stamped(said(b"short\n"), number))
            outlet.flush()
        assert sum(map(sys.getsizeof, outlet._queue)) <= MOST_QUEUED
        outlet.finish(0)
        with os.fdopen(near, "rb") as reader:
            assert reader.read1(1 << 20).count(b"\n") + outlet.dropped == 100_000


def test_a_short_write_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with open(tmp_path / "log", "wb", buffering=0) as file:
        sink = log_sink(file, format="json", minimum="info")
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
        sink(stamped(finished()))
        monkeypatch.undo()
    assert (tmp_path / "log").read_bytes() == logged(finished(), "json")


# --- rich is kept out --------------------------------------------------------------------------------------------------------


def test_the_log_does_not_load_rich_where_it_is_installed(tmp_path: Path) -> None:
    """A fake rich on the path tells when it is imported; what wants the real one afterwards gets it."""
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("print('rich was imported')\n")
    (tmp_path / "rich" / "console.py").write_text("class Console: ...\n")
    (tmp_path / "rich" / "traceback.py").write_text("class Traceback: ...\n")
    (tmp_path / "rich" / "pretty.py").write_text("")
    assert "rich was imported" in run_python("import structlog", tmp_path), "if structlog has stopped it, so can we"
    assert run_python("import jobrunner.sinks.readable", tmp_path) == ""
    assert run_python("import jobrunner.cli.run, jobrunner.sinks.readable", tmp_path) == ""
    assert run_python("import jobrunner.sinks.readable, rich.console; rich.console.Console()", tmp_path) == "rich was imported\n"
    assert run_python("import rich, jobrunner.sinks.readable, structlog; assert structlog.dev.rich is rich", tmp_path) != ""


def run_python(code: str, *path: Path) -> str:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    return subprocess.run([sys.executable, "-c", code], env=environ, check=True, capture_output=True, text=True).stdout


def test_a_module_that_was_made_unavailable_is_available_again() -> None:
    with readable._unavailable("wave"), pytest.raises(ImportError):
        import wave
    import wave

    assert "wave" in sys.modules
    assert wave.__name__ == "wave"


# --- output on the terminal --------------------------------------------------------------------------------------------------


def shown(pieces: list[Event], file: io.BytesIO | None = None) -> str:
    file = file or io.BytesIO()
    sink = terminal_sink(file)
    for event in pieces:
        sink(stamped(event))
    return file.getvalue().decode()


END = events.RunFinished(outcome="succeeded", exit_code=0, duration=1, task_time=1, outcomes={})


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param([said(b"one\ntwo\n")], "a | one\na | two\n", id="lines"),
        pytest.param([said(b"on"), said(b"e\ntw"), said(b"o\n")], "a | one\na | two\n", id="pieces"),
        pytest.param([said(b"x", item="i")], "", id="a part of a line waits"),
        pytest.param([said(b"x"), finished()], "a | x\n", id="until its attempt ends"),
        pytest.param([said(b"x", attempt=1), finished(attempt=2)], "", id="its own attempt"),
        pytest.param([said(b"x", task="", attempt=0), END], "(p) | x\n", id="or the run ends"),
        pytest.param([said(b"x\n", item="i")], "a[i] | x\n", id="item"),
        pytest.param([said(b"\n\n")], "a | \na | \n", id="empty lines"),
        pytest.param([said(b"\xff\xfe\n")], None, id="not UTF-8"),
        pytest.param(
            [said(b"a1", task="a"), said(b"b1", task="b"), said(b"a2\n", task="a"), said(b"b2\n", task="b")],
            "a | a1a2\nb | b1b2\n",
            id="interleaved",
        ),
    ],
)
def test_lines_are_shown_whole_with_the_name_of_their_task(pieces: list[Event], expected: str | None) -> None:
    if expected is None:
        file = io.BytesIO()
        terminal_sink(file)(stamped(pieces[0]))
        assert file.getvalue() == b"a | \xff\xfe\n", "what is not shown to a terminal is passed on as it is"
    else:
        assert shown(pieces) == expected


@given(
    texts=st.dictionaries(st.sampled_from("abc"), st.lists(st.sampled_from([b"x", b"y\n", b"\n", b"zz"]), max_size=6)),
    order=st.randoms(use_true_random=False),
)
def test_however_pieces_interleave_each_task_keeps_its_lines(texts: dict[str, list[bytes]], order: Any) -> None:
    queue = [task for task, pieces in texts.items() for _ in pieces]
    order.shuffle(queue)
    rest = {task: iter(pieces) for task, pieces in texts.items()}
    text = shown([*(said(next(rest[task]), task=task) for task in queue), *(finished(task=task) for task in texts)])
    for task, pieces in texts.items():
        lines = [line.removeprefix(f"{task} | ") for line in text.splitlines() if line.startswith(f"{task} | ")]
        assert lines == b"".join(pieces).decode().splitlines()


def test_a_line_without_an_end_is_shown_in_bounded_pieces() -> None:
    file = Writes()
    sink = terminal_sink(file)
    for _ in range(64):
        sink(stamped(said(b"x" * (1 << 14))))  # a megabyte in all
    assert sum(piece.count(b"x") for piece in file.pieces) >= (1 << 20) - (1 << 16)
    assert max(map(len, file.pieces)) < (1 << 17)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x1b[2J\x1b]0;t\x07\r\x08", "a | \\x1b[2J\\x1b]0;t\\x07\\x0d\\x08\n"),
        (b"\x1b[31mred", "a | \x1b[31mred\x1b[0m\n"),
        (b"dos line\r", "a | dos line\n"),
        (b"tab\t\xc2\x85", "a | tab\t\\x85\n"),
        (b"\xff", "a | \ufffd\n"),
        (b"\x00", "a | \\x00\n"),
    ],
)
def test_a_terminal_is_shown_colours_and_no_other_control_character(data: bytes, expected: str) -> None:
    assert shown([said(data + b"\n")], Terminal()) == expected


def test_a_colour_ends_with_its_line() -> None:
    assert shown([said(b"\x1b[31mred\nplain\n")], Terminal()) == "a | \x1b[31mred\x1b[0m\na | plain\n"


def test_an_item_cannot_control_the_terminal_either() -> None:
    assert "\x1b]" not in shown([said(b"x\n", item="\x1b]0;t\x07")], Terminal())


def test_a_reader_that_goes_away_ends_the_display_never_the_run() -> None:
    near, far = os.pipe()
    file = os.fdopen(far, "wb")
    sink = terminal_sink(file)
    os.close(near)
    for _ in range(3):
        sink(stamped(said(b"x\n")))
    file.close()


def test_a_display_that_was_closed_is_none() -> None:
    terminal_sink(closed_file())(stamped(said(b"x\n")))


def test_a_real_terminal_is_one() -> None:
    near, far = pty.openpty()
    with os.fdopen(far, "wb", buffering=0) as file:
        terminal_sink(file)(stamped(said(b"\x1b[2Jx\n")))
        assert os.read(near, 100) == b"a | \\x1b[2Jx\r\n"
    os.close(near)


@pytest.mark.parametrize(
    ("text", "with_colours", "without"),
    [
        ("plain\ttab\nline", "plain\ttab\nline", "plain\ttab\nline"),
        ("\x1b[1;31mx\x1b[m", "\x1b[1;31mx\x1b[m", "\\x1b[1;31mx\\x1b[m"),
        ("\x1b[2J", "\\x1b[2J", "\\x1b[2J"),
        ("\x9b31m", "\\x9b31m", "\\x9b31m"),
        ("\x1b[31", "\\x1b[31", "\\x1b[31"),
        ("ü🎉", "ü🎉", "ü🎉"),
    ],
)
def test_what_a_terminal_may_be_shown(text: str, with_colours: str, without: str) -> None:
    assert visible(text) == with_colours
    assert escaped(text) == without


# --- output in files ---------------------------------------------------------------------------------------------------------


def test_output_goes_to_its_task_and_nobodys_output_to_the_pool(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    captured = Captured(tmp_path / "output", lambda *call: pytest.fail(f"{call}"))
    sink = file_sink(captured.keep)
    pieces: list[Event] = [
        said(b"one\n"),
        said(b"two\n"),
        said(b"\xff\x00", task="b"),
        said(b"?", task=""),
        said(b"own", task="pool-p"),
    ]
    for event in [*pieces, said(b"of an item", item="../x"), finished()]:
        sink(stamped(event))
    captured.close()
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.log")}
    assert found == {
        "output/a.log": b"one\ntwo\n",
        "output/b.log": b"\xff\x00",
        "output/pool.p.log": b"?",
        "output/pool-p.log": b"own",
        "output/a/..%2Fx.log": b"of an item",
    }


# --- the summary -------------------------------------------------------------------------------------------------------------


def summary_of(happened: list[Event], job: str = "nightly") -> str:
    summary = Summary()
    for event in happened:
        summary(stamped(event))
    return summary.text(job)


def ended(exit_code: int = 0, outcome: str = "", **outcomes: int) -> events.RunFinished:
    outcome = outcome or ("failed" if exit_code else "succeeded")
    return events.RunFinished(outcome=outcome, exit_code=exit_code, duration=2.0, task_time=5.0, outcomes=outcomes)


def skipped(task: str, reason: str = "needs", cause: str | None = "a", outcome: str | None = "failed") -> events.TaskSkipped:
    return events.TaskSkipped(task=task, reason=reason, cause=cause, cause_outcome=outcome)


def recorded(task: str = "a", item: str | None = None, outcome: str = "succeeded") -> events.TaskSkipped:
    return events.TaskSkipped(task=task, item=item, reason="recorded", outcome=outcome)


def resumed() -> events.RunResumed:
    return events.RunResumed(file="/j.yaml", run_dir="/s/j/r1", pid=1, tasks=3, attempt=2, recorded=950, in_flight=2)


def degraded(output: str, dropped: int, reason: str = "its reader stalled") -> events.LogDegraded:
    return events.LogDegraded(output=output, reason=reason, dropped=dropped)


TRACE = """Traceback (most recent call last):
  File "/jobs/own.py", line 7, in work
    json.loads(text)
    ~~~~~~~~~~^^^^^^
  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode
    raise ValueError('no')
ValueError: no
"""

SUMMARIES: dict[str, tuple[list[Event], str]] = {
    "success": (
        [started(), finished(), finished(task="b", item="x", duration=0.5), ended(succeeded=2)],
        """

        ✓ nightly: succeeded. Tasks: 2 succeeded
          2 runs in 2.00 s; 5.00 s of work, 2.5 at a time
          slowest: a 1.50 s, b[x] 0.50 s
          output:  /s/j/r1/output""",
    ),
    "failures and skips": (
        [
            started(),
            failed(retried=True),
            failed(attempt=2, reason="ValueError: no", error={"type": "ValueError", "message": "no", "traceback": TRACE}),
            failed(task="b", item="x", reason="exit 3", output="last\nlines"),
            finished(task="t", outcome="timed_out", reason="timed out after 3 s"),
            skipped("c"),
            skipped("d", cause="c", outcome="skipped"),
            skipped("e", reason="empty", cause=None, outcome=None),
            skipped("f", reason="cancelled", cause=None, outcome=None),
            ended(1, failed=2, timed_out=1, skipped=3, succeeded=1),
        ],
        """

        ✗ a: failed (attempt 2): ValueError: no
            own.py:7 in work
              json.loads(text)

        ✗ b[x]: failed: exit 3
            last
            lines

        ✗ t: timed out after 3 s
        - c: skipped: needs a, which failed
        - d: skipped: needs c, which was skipped
        - e: nothing to do: no items
        - f: skipped: the run was stopped first

        ✗ nightly: failed. Tasks: 2 failed, 1 timed out, 3 skipped, 1 succeeded
          3 runs and 1 retry in 2.00 s; 5.00 s of work, 2.5 at a time
          slowest: t 1.50 s, b[x] 1.50 s, a 1.50 s
          output:  /s/j/r1/output
          again:   jobrunner resume r1 --retry-failed""",
    ),
    "forgiven": (
        [started(), failed(forgiven=True, reason="ValueError: no"), ended(failed=1)],
        """

        ✗ a: failed: ValueError: no — allowed by continue_on_error

        ✓ nightly: succeeded. Tasks: 1 failed
          1 run in 2.00 s
          slowest: a 1.50 s
          output:  /s/j/r1/output""",
    ),
    "many failures": (
        [
            *(failed("no", task="items", item=str(number), duration=float(number)) for number in range(500)),
            failed("no", task="first"),
            failed("no", task="items", item="last"),
            *(skipped(f"s{n}") for n in range(12)),
        ],
        "".join(f"\n\n✗ items[{number}]: failed: no" for number in range(3))
        + "\n  … and 498 more of items"
        + "\n\n✗ first: failed: no"
        + "".join(f"\n- s{number}: skipped: needs a, which failed" for number in range(10))
        + "\n  … and 2 more",
    ),
    "many tasks that failed": (
        [failed("no", task=f"t{number % 12}") for number in range(25)],
        "".join(f"\n\n✗ t{number}: failed: no" * (3 if number == 0 else 2) for number in range(10))
        + "\n  … and 4 more of 2 other tasks",
    ),
    "stopped": (
        [
            started(),
            *(finished(task="items", item=str(number), outcome="cancelled", reason="killed by SIGTERM") for number in range(7)),
            finished(task="load", outcome="cancelled", reason="killed by SIGTERM"),
            failed("no", task="bad"),
            skipped("c", outcome="cancelled"),
            ended(143, outcome="interrupted", cancelled=2, failed=1, skipped=1),
        ],
        """

        ✗ bad: failed: no
        - 8 attempts were stopped: items (× 7), load
        - c: skipped: needs a, which was cancelled

        ✗ nightly: interrupted. Tasks: 2 cancelled, 1 failed, 1 skipped
          9 runs in 2.00 s; 5.00 s of work, 2.5 at a time
          slowest: load 1.50 s, items[6] 1.50 s, items[5] 1.50 s
          output:  /s/j/r1/output
          go on:   jobrunner resume r1""",
    ),
    "over the time of the job": (
        [
            started(),
            *(finished(task=f"t{number}", outcome="cancelled") for number in range(6)),
            ended(124, outcome="timed_out", cancelled=6),
        ],
        """
        - 6 attempts were stopped

        ✗ nightly: timed out. Tasks: 6 cancelled
          6 runs in 2.00 s; 5.00 s of work, 2.5 at a time
          slowest: t5 1.50 s, t4 1.50 s, t3 1.50 s
          output:  /s/j/r1/output
          go on:   jobrunner resume r1""",
    ),
    "unknown alone": (
        [
            started(),
            recorded(task="pay", outcome="unknown"),
            skipped("ship", cause="pay", outcome="unknown"),
            ended(1, unknown=1, skipped=1),
        ],
        """
        ? pay: how it ended, or what it gave, is not on record, and it may run only once (at_most_once): look what it has done, then jobrunner resume r1 --rerun pay
        - ship: skipped: needs pay, which is unknown

        ✗ nightly: failed. Tasks: 1 unknown, 1 skipped
          output:  /s/j/r1/output""",  # noqa: E501  # as long as it is
    ),
    "resumed": (
        [
            finished(outcome="unknown", reason="nobody knows", task="pay", item="7"),
            finished(outcome="crashed", retried=True, error={"type": "RunnerDied", "message": "it was killed"}),
            resumed(),
            *(recorded(item=str(number)) for number in range(950)),
            *(recorded(task="b", item=str(number), outcome="timed_out") for number in range(3)),
            recorded(task="pay", item="7", outcome="unknown"),
            finished(),
            ended(1, succeeded=1, failed=2),
        ],
        """
        ? pay[7]: how it ended, or what it gave, is not on record, and it may run only once (at_most_once): look what it has done, then jobrunner resume r1 --rerun pay
        - b[…]: timed out in an earlier part of the run: jobrunner resume r1 --retry-failed tries again (× 3)

        ✗ nightly: failed. Tasks: 1 succeeded, 2 failed
          1 run in 2.00 s
          slowest: a 1.50 s
          resumed: part 2 of run r1; 950 recorded earlier
          output:  /s/j/r1/output
          again:   jobrunner resume r1 --retry-failed""",  # noqa: E501  # as long as it is
    ),
    "lines were lost": (
        [
            started(),
            degraded("log", 7),
            degraded("log", 12_345),
            degraded("stdout", 1),
            degraded("output", 4096, "No space left on device"),
            degraded("log of the past", 0, "No space left on device"),
            ended(),
        ],
        """

        ✓ nightly: succeeded. Tasks: none
          output:  /s/j/r1/output
          12345 lines of the log were lost: its reader stalled
          1 line of the stdout was lost: its reader stalled
          4096 bytes of the output were lost: No space left on device""",
    ),
    "nothing ran": ([started(), ended()], "\n\n✓ nightly: succeeded. Tasks: none\n  output:  /s/j/r1/output"),
}


@pytest.mark.parametrize("case", SUMMARIES)
def test_the_summary_says_what_happened_on_one_screen(case: str) -> None:
    happened, expected = SUMMARIES[case]
    assert summary_of(happened) == textwrap.dedent(expected).removeprefix("\n")


def test_it_says_how_many_attempts_there_were_at_a_time_where_that_was_more_than_one() -> None:
    end = events.RunFinished(outcome="succeeded", exit_code=0, duration=2.0, task_time=2.0, outcomes={"succeeded": 1})
    assert "1 run in 2.00 s\n" in summary_of([finished(), end])
    assert "2 runs in 2.00 s; 2.00 s of work\n" in summary_of([finished(), finished(), end])
    assert "; 5.00 s of work, 2.5 at a time\n" in summary_of([finished(), finished(), dataclasses.replace(end, task_time=5.0)])


def test_the_slowest_are_the_slowest_of_all() -> None:
    text = summary_of([*(finished(item=str(number), duration=float(number % 97)) for number in range(500)), ended(succeeded=1)])
    assert "slowest: a[96] 1 min 36 s" in text


@pytest.mark.parametrize(
    ("seconds", "shown_as"),
    [(0.01, "0.01 s"), (59.99, "59.99 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min")],
)
def test_times_are_said_as_people_say_them(seconds: float, shown_as: str) -> None:
    assert f"slowest: a {shown_as}" in summary_of([finished(duration=seconds), ended(succeeded=1)])


def test_the_import_system_is_no_place_where_something_failed() -> None:
    frozen = '  File "<frozen importlib._bootstrap>", line 1140, in _find_and_load_unlocked\n'
    error = {"type": "ModuleNotFoundError", "message": "No module named 'x'", "traceback": f"Traceback …\n{frozen}"}
    assert "importlib" not in summary_of([failed(error=error), ended(1, failed=1)])
    error["traceback"] = f'Traceback …\n  File "/usr/lib/a.py", line 3, in load\n    import x\n{frozen}'
    assert "/usr/lib/a.py:3 in load\n      import x\n" in summary_of([started(), failed(error=error), ended(1, failed=1)])


def test_what_took_less_than_10_ms_is_not_named_among_the_slowest() -> None:
    quick, slow = finished(item="x", duration=0.0099), finished(item="y", duration=0.5)
    assert "slowest: a[y] 0.50 s\n" in summary_of([quick, slow, quick, ended(succeeded=1)]) + "\n"
    assert "slowest" not in summary_of([quick, quick, ended(succeeded=1)])


def test_the_summary_holds_no_control_character_of_a_task() -> None:
    text = summary_of([failed("\x1b[2J\rgone", output="\x1b[8mhidden\x07"), ended(1, failed=1)])
    assert "\x1b" not in text
    assert "\r" not in text


def test_memory_of_the_summary_is_bounded() -> None:
    summary = Summary()
    for number in range(5000):
        summary(stamped(failed(task=f"t{number % 50}", item=str(number))))
    assert [len(kept) for kept in summary.failures.values()] == [3] * 10
    assert len(summary.slowest) == 3
