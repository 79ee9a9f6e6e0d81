"""Events: the schema is that of the classes, a line leaves out what says nothing, the stream numbers without a gap."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_args

import jsonschema
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobrunner import api, events
from jobrunner.durations import Durations
from jobrunner.encoding import dumps
from jobrunner.events import Event, level
from jobrunner.eventschema import json_schema
from jobrunner.journal import Journal
from jobrunner.sinks.log import log_sink
from jobrunner.sinks.summary import Summary
from jobrunner.stream import Ran, Sink, Stamped, Stream, Together, in_turn, payload, timestamp
from jobrunner.work import Outcome

ROOT = Path(__file__).parent.parent
SCHEMA_FILE = ROOT / "schemas" / "event.schema.json"

WORKER: dict[str, Any] = {"worker": "cpu-1", "pool": "cpu", "mode": "process_pool", "pid": 7}
ATTEMPT: dict[str, Any] = {"task": "a", "item": "x", "attempt": 1}
RUNNER: dict[str, Any] = {**ATTEMPT, "mode": "process_pool", "worker": "cpu-1", "pid": 7}
ERROR = {"type": "ValueError", "message": "no", "traceback": "Traceback …"}

PLACE: dict[str, Any] = {"file": "/j.yaml", "run_dir": "/s/j/r", "pid": 1, "tasks": 3}

# Each event twice: with all that it can say, and with as little as it can say.
FULL: list[Event] = [
    events.RunStarted(**PLACE, params={"n": 1, "list": ["a"]}, options={"params": {"n": 1}, "only": ["a"]}),
    events.RunResumed(**PLACE, attempt=2, recorded=5, in_flight=1),
    events.RunInterrupted(reason="stopped by SIGTERM", signal="SIGTERM"),
    events.RunStacks(process="engine", pid=7, stack="File …", running={"a[x]": 1.5}),
    events.RunFinished(outcome="failed", exit_code=1, duration=1.5, task_time=3.0, outcomes={"failed": 1}),
    events.PoolOpened(pool="cpu", mode="executor", workers=2, executor="loky:get_reusable_executor"),
    events.PoolReduced(pool="cpu", workers=1, reason="Too many open files"),
    events.PoolClosed(pool="cpu"),
    events.WorkerStarted(**WORKER, thread=9, preloaded=True),
    events.WorkerDied(**WORKER, thread=9, reason="killed by SIGKILL"),
    events.WorkerJoined(**WORKER, thread=9, tasks=3, lived=1.5, exit_code=0, signal="SIGKILL"),
    events.TaskSubmitted(**ATTEMPT, digest="0123456789abcdef"),
    events.TaskStarted(**RUNNER, thread=9, because=("input a.csv changed",)),
    events.TaskFinished(
        **RUNNER, outcome="failed", duration=1.0, reason="ValueError: no", thread=9, cpu=0.5, max_rss=1 << 20, exit_code=1,
        signal="SIGSEGV", error=ERROR, note="dropped", output="last\nlines", abandoned=True, retried=True, forgiven=True,
        truncated=True, digest="0123456789abcdef", data=events.Data(value=b"1"),
    ),
    events.TaskRetrying(**ATTEMPT, delay=1.0),
    events.TaskSkipped(task="a", reason="needs", item="x", outcome="succeeded", cause="b", cause_outcome="failed"),
    events.TaskLateResult(**ATTEMPT, outcome="succeeded"),
    events.TaskLeftover(**ATTEMPT, pids=[5, 6], killed=True),
    events.OrphanKilled(pid=5, run="r", command="sleep 9"),
    events.LockBusy(group="j", holder="r", pid=5, on_conflict="wait"),
    events.LimitBusy(limits=["api"], holders=["pid 5 (other)"], task="a", wanted=3, used=2, usable=4),
    events.JournalRepaired(offset=100, dropped=7),
    events.LogDegraded(output="log", reason="its reader stalled", dropped=3),
]  # fmt: skip
BARE: list[Event] = [
    events.RunStarted(**{**PLACE, "tasks": 0}, params={}, options={}),
    events.RunResumed(**PLACE, attempt=2, recorded=0, in_flight=0),
    events.RunInterrupted(reason="the job's timeout is over"),
    events.RunStacks(process="cpu-1", pid=8, stack=""),
    events.RunFinished(outcome="succeeded", exit_code=0, duration=0.0, task_time=0.0, outcomes={}),
    events.PoolOpened(pool="cpu", mode="process_pool", workers=2),
    events.PoolReduced(pool="cpu", workers=0, reason=""),
    events.PoolClosed(pool="cpu"),
    events.WorkerStarted(**WORKER),
    events.WorkerDied(**WORKER, reason=""),
    events.WorkerJoined(**WORKER, tasks=0, lived=0.0),
    events.TaskSubmitted(**{**ATTEMPT, "item": None}, digest=""),
    events.TaskStarted(**{**RUNNER, "item": None}),
    events.TaskFinished(**{**RUNNER, "item": None}, outcome="succeeded", duration=0.0),
    events.TaskRetrying(**{**ATTEMPT, "item": None}, delay=0.0),
    events.TaskSkipped(task="a", reason="empty"),
    events.TaskLateResult(**{**ATTEMPT, "item": None}, outcome="succeeded"),
    events.TaskLeftover(**{**ATTEMPT, "item": None}, pids=[], killed=False),
    events.OrphanKilled(pid=5, run="r", command=""),
    events.LockBusy(group="j", holder="", pid=0, on_conflict="replace"),
    events.LimitBusy(limits=["api"], holders=[]),
    events.JournalRepaired(offset=0, dropped=1),
    events.LogDegraded(output="log", reason="", dropped=0),
]
FULL_BY_NAME = {event.NAME: event for event in FULL}
LOGGED = [kind for kind in get_args(Event) if kind is not events.TaskOutput]


def logged_fields(kind: type[Event]) -> list[Field[Any]]:
    """All but what only the journal holds."""
    return [each for each in fields(kind) if each.name != "data"]


def line_of(event: Event) -> dict[str, Any]:
    """The event as a reader of the log gets it."""
    file = io.BytesIO()
    log_sink(file, format="json", minimum="debug")(Stamped(seq=1, ts=timestamp(0), run_id="r", job="j", event=event))
    found = orjson.loads(file.getvalue())
    assert isinstance(found, dict)
    return found


# --- times -------------------------------------------------------------------------------------------------------------------


def test_times_have_microseconds_and_no_more_in_every_mode_and_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    modes = ("serial", "thread", "thread_pool", "process", "process_pool")
    tasks = "".join(
        f"  {mode}: {{mode: {mode}, foreach: [1, x], target: 'math:sqrt', args: ['${{{{ item }}}}'], continue_on_error: true}}\n"
        for mode in modes
    )
    (tmp_path / "job.yaml").write_text(f"tasks:\n{tasks}  command: {{run: exit 1, retry: {{max: 1, delay: 0.001}}}}\n")
    file = io.BytesIO()
    api.run_prepared(api.prepare(tmp_path / "job.yaml", api.Options()), sinks=[log_sink(file, format="json", minimum="info")])
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    times = {(line["event"], key): value for line in lines for key, value in line.items() if isinstance(value, float)}
    assert {(name, value) for name, value in times.items() if round(value, 6) != value} == set()
    assert {key for _, key in times} == {"duration", "cpu", "lived", "delay", "task_time"}
    together = sum(line["duration"] for line in lines if line["event"] == "task.finished")
    assert lines[-1]["task_time"] == pytest.approx(together, abs=1e-6)


# --- the schema --------------------------------------------------------------------------------------------------------------


def test_the_schema_file_is_that_of_the_classes() -> None:
    expected = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    how = "print(json.dumps(s.json_schema(), indent=2, ensure_ascii=False))"
    new = f"python -c 'import json, jobrunner.eventschema as s; {how}'"
    assert SCHEMA_FILE.read_text(encoding="utf-8") == expected, f"write it again: {new} > schemas/event.schema.json"


def test_the_schema_is_a_valid_schema_with_one_alternative_an_event() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert [each["title"] for each in schema["oneOf"]] == [kind.NAME for kind in LOGGED]
    assert all(each["description"] for each in schema["oneOf"])


def test_every_event_class_is_tried_here() -> None:
    assert [type(event) for event in FULL] == [type(event) for event in BARE] == LOGGED


@pytest.mark.parametrize("event", [*FULL, *BARE], ids=lambda event: event.NAME)
def test_every_event_validates_with_all_that_it_can_say_and_with_as_little(event: Event) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(line_of(event))


@pytest.mark.parametrize("event", FULL, ids=lambda event: event.NAME)
def test_a_line_with_an_unknown_field_or_without_a_needed_one_is_not_valid(event: Event) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    line = line_of(event)
    assert not validator.is_valid({**line, "unknown": 1})
    for name in ("ts", "seq", "event", "run_id", "job", "level"):
        assert not validator.is_valid({key: value for key, value in line.items() if key != name})


@pytest.mark.parametrize("event", FULL, ids=lambda event: event.NAME)
def test_null_is_never_valid(event: Event) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    line = line_of(event)
    for name in payload(event):
        assert not validator.is_valid({**line, name: None}), name


# --- what is written out by hand ----------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(), max_size=12)  # lone surrogates too: they come from names of files
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)
OF_AN_ATTEMPT: dict[str, st.SearchStrategy[Any]] = {
    "task": TEXTS, "item": st.none() | TEXTS, "attempt": NUMBERS, "mode": TEXTS, "worker": TEXTS, "pid": NUMBERS,
    "thread": st.none() | NUMBERS,
}  # fmt: skip
SECONDS = st.floats(allow_nan=False, allow_infinity=False)
OF_A_START_ALONE: dict[str, st.SearchStrategy[Any]] = {"because": st.none() | st.lists(TEXTS, max_size=2).map(tuple)}
OF_AN_END_ALONE: dict[str, st.SearchStrategy[Any]] = {
    "outcome": st.sampled_from(Outcome) | TEXTS, "duration": SECONDS, "reason": st.none() | TEXTS, "cpu": st.none() | SECONDS,
    "max_rss": st.none() | NUMBERS, "exit_code": st.none() | NUMBERS, "signal": st.none() | TEXTS,
    "error": st.none() | st.dictionaries(TEXTS, TEXTS, max_size=2), "note": st.none() | TEXTS, "output": st.none() | TEXTS,
    "abandoned": st.booleans(), "retried": st.booleans(), "forgiven": st.booleans(), "truncated": st.booleans(),
    "digest": st.none() | TEXTS,
}  # fmt: skip
STARTS = st.builds(events.TaskStarted, **OF_AN_ATTEMPT, **OF_A_START_ALONE)
ENDS = st.builds(events.TaskFinished, **OF_AN_ATTEMPT, **OF_AN_END_ALONE)


@settings(max_examples=500)
@given(event=STARTS | ENDS)
def test_what_is_written_out_by_hand_is_what_the_general_form_gives(event: Event) -> None:
    written = Stamped(seq=1, ts="", run_id="r", job="j", event=event).fields()
    assert json.loads(b"{%b}" % written) == json.loads(dumps(payload(event)))


def test_every_field_of_what_is_written_out_by_hand_is_tried() -> None:
    assert {each.name for each in logged_fields(events.TaskStarted)} == {*OF_AN_ATTEMPT, *OF_A_START_ALONE}
    assert {each.name for each in logged_fields(events.TaskFinished)} == {*OF_AN_ATTEMPT, *OF_AN_END_ALONE}


# --- what a line holds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", FULL, ids=lambda event: event.NAME)
def test_a_payload_holds_every_field_that_says_something(event: Event) -> None:
    assert payload(event) == {each.name: getattr(event, each.name) for each in logged_fields(type(event))}


@pytest.mark.parametrize("event", BARE, ids=lambda event: event.NAME)
def test_a_payload_leaves_out_what_says_nothing_and_nothing_else(event: Event) -> None:
    kept = payload(event)
    for each in logged_fields(type(event)):
        value = getattr(event, each.name)
        assert (each.name in kept) == (value is not None and (each.default is MISSING or value is not each.default))


def test_a_no_that_is_an_answer_is_written() -> None:
    event = events.TaskLeftover(task="a", item=None, attempt=1, pids=[5], killed=False)
    assert payload(event)["killed"] is False


def test_names_are_unique_and_in_the_past_tense_of_their_class() -> None:
    names = [kind.NAME for kind in get_args(Event)]
    assert len(set(names)) == len(names)
    for kind in get_args(Event):
        assert kind.NAME.replace(".", "_").replace("_", "") == kind.__name__.lower()


QUIET = (
    "run.started", "run.resumed", "run.stacks", "pool.opened", "pool.closed", "worker.started", "worker.joined",
    "task.submitted", "task.started", "task.skipped",
)  # fmt: skip
LOUD = (
    "run.interrupted", "pool.reduced", "worker.died", "task.retrying", "task.late_result", "task.leftover", "orphan.killed",
    "lock.busy", "journal.repaired", "log.degraded",
)  # fmt: skip


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (events.RunFinished(outcome="succeeded", exit_code=0, duration=1, task_time=1, outcomes={}), "info"),
        (events.RunFinished(outcome="failed", exit_code=1, duration=1, task_time=1, outcomes={}), "error"),
        (events.TaskFinished(**RUNNER, outcome="succeeded", duration=1), "info"),
        (events.TaskFinished(**RUNNER, outcome="failed", duration=1), "error"),
        (events.TaskFinished(**RUNNER, outcome="timed_out", duration=1), "error"),
        (events.TaskFinished(**RUNNER, outcome="crashed", duration=1), "error"),
        (events.TaskFinished(**RUNNER, outcome="cancelled", duration=1), "error"),
        (events.TaskFinished(**RUNNER, outcome="unknown", duration=1), "error"),
        (events.TaskFinished(**RUNNER, outcome="failed", duration=1, retried=True), "warning"),
        (events.TaskFinished(**RUNNER, outcome="failed", duration=1, forgiven=True), "warning"),
        *((FULL_BY_NAME[name], "info") for name in QUIET),
        *((FULL_BY_NAME[name], "warning") for name in LOUD),
    ],
    ids=lambda value: value if isinstance(value, str) else value.NAME,
)
def test_the_level_is_how_much_a_person_should_care(event: Event, expected: str) -> None:
    assert level(event) == expected


# --- the stream --------------------------------------------------------------------------------------------------------------


def test_the_stream_numbers_events_from_one_without_a_gap_and_output_takes_no_number() -> None:
    seen: list[Stamped] = []
    stream = Stream(run_id="r", job="j", sinks=[seen.append], now=lambda: 0.0)
    said = events.TaskOutput(task="a", item=None, attempt=1, pool="p", data=b"x")
    for event in (FULL[0], said, FULL[1], said, said, FULL[2]):
        stream.emit(event)
    assert [each.seq for each in seen] == [1, 1, 2, 2, 2, 3]
    assert [each.seq for each in seen if not isinstance(each.event, events.TaskOutput)] == [1, 2, 3]


TEXT = st.one_of(st.text(max_size=9), st.sampled_from(["x", '","outcome":"succeeded","duration":', "100 %d%b", "\ud800"]))
TIMES = st.floats(0, 1e6)
RUNS = st.builds(
    Ran, TEXT, st.none() | TEXT, st.integers(1, 9), st.just("thread"), TEXT, st.integers(1, 1 << 22),
    st.none() | st.integers(1, 9), TIMES, st.none() | TIMES, st.none() | st.integers(0, 1 << 40), st.none() | TEXT,
)  # fmt: skip


@given(
    st.lists(st.lists(st.one_of(RUNS, RUNS, st.sampled_from(FULL)), min_size=1), max_size=4), st.sampled_from(["info", "warning"])
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_attempts_told_in_one_are_the_same_bytes_as_their_two_events(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[Event | Ran]], minimum: str
) -> None:
    def written(in_one: bool) -> tuple[object, ...]:
        folder, log, seen = tmp_path_factory.mktemp("journal"), io.BytesIO(), list[tuple[int, str, bytes]]()
        summary, durations = Summary(), Durations()
        journal = Journal.create(folder / "events.jsonl", sync=True)
        sinks: list[Any] = [
            journal, log_sink(log, format="json", minimum=minimum), summary, durations,
            lambda stamped: seen.append((stamped.seq, stamped.event.NAME, stamped.fields())),
        ]  # fmt: skip
        stream = Stream(run_id="r%d", job="j %b", sinks=sinks, now=lambda: 1.5)
        stream.emit(FULL[0])
        for group in groups:
            if in_one:
                stream.add_all(group)
            for each in () if in_one else group:
                for event in each.events() if isinstance(each, Ran) else (each,):
                    stream.add(event)
            stream.tell()
            journal.commit(sync=True)
        journal.close()
        text = (folder / "events.jsonl").read_bytes()
        return text, log.getvalue(), seen, summary.attempts, summary.slowest, durations.merged({}, [""]), journal.seq

    assert written(True) == written(False)


def test_where_there_is_output_sinks_of_one_place_get_each_event_in_turn() -> None:
    told: list[str] = []
    started, finished = Ran("a", None, 1, "serial", "w", 1, None, 0.1, None, None, None).events()
    said = events.TaskOutput(task="a", item=None, attempt=1, pool="p", data=b"said")

    def named(name: str) -> Sink:
        return Together(lambda batch: told.extend(f"{name} {each.event.NAME}" for each in batch))

    stream = Stream(run_id="r", job="j", sinks=[in_turn(named("one"), named("two"))], now=lambda: 0.0)
    stream.add_all([started, said, finished])
    stream.tell()
    names = ["task.started", "task.output", "task.finished"]
    assert told == [f"{sink} {name}" for name in names for sink in ("one", "two")]


def test_every_sink_gets_every_event_in_the_same_order() -> None:
    first: list[Stamped] = []
    second: list[Stamped] = []
    stream = Stream(run_id="r", job="j", sinks=[first.append, second.append], now=lambda: 0.0)
    for event in FULL:
        stream.emit(event)
    assert first == second
    assert [each.event for each in first] == FULL
    assert {(each.run_id, each.job) for each in first} == {("r", "j")}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_767_323_045.123456, "2026-01-02T03:04:05.123456Z"),
        (951_782_399.5, "2000-02-28T23:59:59.500000Z"),
    ],
)
def test_a_timestamp_is_utc_in_rfc_3339_with_microseconds(seconds: float, expected: str) -> None:
    assert timestamp(seconds) == expected


def test_an_event_never_changes() -> None:
    with pytest.raises(AttributeError):
        FULL_BY_NAME["pool.closed"].pool = "other"  # type: ignore[misc,union-attr]


# --- docs/events.md ----------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### `([\w.]+)`\n(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL))
ENVELOPE = ["ts", "level", "event", "seq", "run_id", "job"]
QUESTIONS = re.findall(r"^(.*\?.*)\n\n```sh\n(jq .*)\n```$", PAGE, re.MULTILINE)


def documented(text: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)


def test_every_event_is_documented_and_no_other() -> None:
    assert set(SECTIONS) == {kind.NAME for kind in LOGGED}
    assert documented(PAGE.partition("### ")[0]) == ENVELOPE


@pytest.mark.parametrize("kind", LOGGED, ids=lambda kind: kind.NAME)
def test_every_field_is_documented_in_its_order(kind: type[Event]) -> None:
    assert documented(SECTIONS[kind.NAME]) == [each.name for each in logged_fields(kind)]


@pytest.mark.parametrize("kind", LOGGED, ids=lambda kind: kind.NAME)
def test_every_event_has_one_example_that_is_a_line_of_the_log(kind: type[Event]) -> None:
    (line,) = re.findall(r"^```json\n(.*)\n```$", SECTIONS[kind.NAME], re.MULTILINE)
    found = json.loads(line)
    assert found["event"] == kind.NAME
    jsonschema.Draft202012Validator(json_schema()).validate(found)
    (alternative,) = [each for each in json_schema()["oneOf"] if each["title"] == kind.NAME]
    assert list(found) == [name for name in alternative["properties"] if name in found]


@pytest.fixture(scope="module")
def run_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real log, run.jsonl: two items that succeed, one that fails twice, a target in a pool, no end."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "job.yaml").write_text(
        """
workers: 2
tasks:
  part: {foreach: [one, two, bad], run: "test ${{ item }} != bad", retry: {max: 1, delay: 0}}
  target: {mode: process_pool, workers: 1, target: "time:time"}
"""
    )
    file = io.BytesIO()
    api.run_prepared(api.prepare(folder / "job.yaml", api.Options()), sinks=[log_sink(file, format="json", minimum="info")])
    (folder / "run.jsonl").write_bytes(file.getvalue())
    return folder


def asked(question: str, folder: Path) -> list[str]:
    """What the jq line under the question of the page that starts so answers."""
    (command,) = [command for said, command in QUESTIONS if said.startswith(question)]
    assert shutil.which("jq"), "these tests need jq"
    ended = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_there_are_five_questions() -> None:
    assert len(QUESTIONS) == 5


def test_the_page_says_how_to_find_what_failed(run_log: Path) -> None:
    assert asked("What failed", run_log) == ["part[bad] failed: exit 1"]


def test_the_page_says_how_to_find_the_slowest(run_log: Path) -> None:
    found = asked("Which five", run_log)
    assert len(found) == 5
    assert {line.partition(" s ")[2] for line in found} <= {"part[one]", "part[two]", "part[bad]", "target"}
    durations = [float(line.split()[0]) for line in found]
    assert durations == sorted(durations, reverse=True)


def test_the_page_says_how_to_sum_the_time_of_a_task(run_log: Path) -> None:
    found = [json.loads(line) for line in asked("Where did", run_log)]
    assert [(each["task"], each["attempts"]) for each in found] == [("part", 4), ("target", 1)]


def test_the_page_says_how_to_see_what_workers_did(run_log: Path) -> None:
    (line,) = asked("Who ran", run_log)
    assert re.fullmatch(r"target-1 took up 1 in [\d.e-]+ s", line)


def test_the_page_says_how_to_find_what_was_cut_short(run_log: Path, tmp_path: Path) -> None:
    assert asked("What was running", run_log) == []
    lines = (run_log / "run.jsonl").read_text().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if '"task.started"' in line)
    (tmp_path / "run.jsonl").write_text("".join(lines[: first + 1]))
    (cut,) = asked("What was running", tmp_path)
    assert json.loads(cut) == json.loads(lines[first])
