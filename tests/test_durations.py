"""What earlier runs have measured: kept in a file that is of use, and never in the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner import durations
from jobrunner.api import run_prepared
from jobrunner.durations import LARGEST, MOST_ITEMS, NAME, Durations, Known, read, write
from jobrunner.events import Event, RunInterrupted, TaskFinished, TaskStarted
from jobrunner.precedence import Precedence
from jobrunner.prepare import Options, prepare
from jobrunner.stream import Stamped


def finished(task: str, seconds: float, *, item: str | None = None, outcome: str = "succeeded", peak: int | None = None) -> Event:
    who: dict[str, Any] = {"attempt": 1, "mode": "command", "worker": "w", "pid": 1}
    return TaskFinished(task=task, item=item, outcome=outcome, duration=seconds, max_rss=peak, **who)


def measured(*events: Event) -> Durations:
    found = Durations()
    for event in events:
        found(Stamped(seq=1, ts="", run_id="", job="", event=event))
    return found


def folder_with(path: Path, content: bytes | Mapping[str, object]) -> Path:
    file = path / NAME
    file.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))
    file.chmod(0o600)
    return path


# --- what is kept -------------------------------------------------------------------------------------------------------------


def test_the_mean_of_what_succeeded_is_kept_and_the_peak_of_its_memory() -> None:
    found = measured(
        finished("a", 1.0, peak=10),
        finished("a", 3.0, peak=30),
        finished("a", 99.0, outcome="failed", peak=99),
        RunInterrupted(reason="x"),
        TaskStarted(task="b", item=None, attempt=1, mode="command", worker="w", pid=1),
    )
    assert found.merged({}, ["a", "b"]) == {"a": Known(seconds=2.0, peak=30)}


@pytest.mark.parametrize(
    ("runs", "seconds"),
    [
        pytest.param([4.0], 4.0, id="one"),
        pytest.param([4.0, 8.0], 6.0, id="two: their mean"),
        pytest.param([6.0, 6.0, 6.0, 9.0], 7.0, id="later ones: a third each"),
    ],
)
def test_runs_are_merged_as_a_moving_mean(runs: list[float], seconds: float) -> None:
    known: dict[str, Known] = {}
    for each in runs:
        known = measured(finished("a", each)).merged(known, ["a"])
    assert known["a"].seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("peaks", "peak"),
    [([100, 300], 300), ([300, 100], 200), ([300, None], 300), ([None, 100], 100), ([300, 100, 100], 167), ([None, None], None)],
)
def test_the_peak_of_memory_rises_at_once_and_falls_slowly(peaks: list[int | None], peak: int | None) -> None:
    known: dict[str, Known] = {}
    for each in peaks:
        known = measured(finished("a", 1.0, peak=each)).merged(known, ["a"])
    assert known["a"].peak == peak


def test_what_did_not_run_now_stays_known_and_what_left_the_job_does_not() -> None:
    before = {"a": Known(seconds=1), "b": Known(seconds=2), "gone": Known(seconds=3)}
    found = measured(finished("a", 1.0)).merged(before, ["a", "b"])
    assert (set(found), found["b"]) == ({"a", "b"}, before["b"])


def test_items_are_known_by_their_keys_also_those_that_did_not_run_now() -> None:
    before = {"a": Known(seconds=1, items={"x": 2.0, "y": 5.0})}
    found = measured(finished("a", 4.0, item="x"), finished("a", 1.0, item="z")).merged(before, ["a"])
    assert found["a"].items == {"x": 3.0, "y": 5.0, "z": 1.0}


def test_of_a_large_fan_out_no_item_is_kept() -> None:
    found = measured(*(finished("a", 1.0, item=str(n)) for n in range(MOST_ITEMS + 1))).merged({}, ["a"])
    assert (found["a"].seconds, found["a"].items) == (1.0, {})
    kept = {"a": Known(seconds=1, items={f"old{n}": 1.0 for n in range(MOST_ITEMS)})}
    assert measured(finished("a", 1.0, item="new")).merged(kept, ["a"])["a"].items == {"new": 1.0}


# --- the file -----------------------------------------------------------------------------------------------------------------

TIMES = st.floats(0, 1e9).map(lambda each: round(each, 4))
KNOWN = st.builds(
    Known,
    seconds=TIMES,
    runs=st.integers(1, 3),
    peak=st.none() | st.integers(0, 1 << 60),
    items=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), TIMES, max_size=3),
)


@given(st.dictionaries(st.text("abc", min_size=1), KNOWN, max_size=4))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, known: dict[str, Known]) -> None:
    folder = tmp_path_factory.mktemp("job")
    (folder / "run").mkdir()
    write(folder, known, by_way_of=folder / "run")
    assert read(folder) == known
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600
    assert not list((folder / "run").iterdir())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty, as after a loss of power"),
        pytest.param(b'{"version":1,"tasks":{"a":{"sec', id="torn"),
        pytest.param(b"\0" * 100, id="zeros"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"[1]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param({"version": 2, "tasks": {"a": {"seconds": 1.0, "runs": 1}}}, id="of a later version"),
        pytest.param({"version": 1}, id="no tasks"),
        pytest.param({"version": 1, "tasks": []}, id="tasks that are none"),
        pytest.param({"version": 1, "tasks": {"a": 1}}, id="an entry that is none"),
        pytest.param(b'{"version":1,"tasks":{"a":{"seconds":1e999,"runs":1}}}', id="infinite"),
        pytest.param(b'{"version":1,"tasks":{"a":{"seconds":1%b,"runs":1}}}' % (b"0" * 400), id="more than a float holds"),
        pytest.param({"version": 1, "tasks": {"a": {"seconds": 1.7e308, "runs": 1}}}, id="more than can be added up"),
        pytest.param(
            b'{"version":1,"tasks":{"a":{"seconds":1,"runs":1,"peak":1%b}}}' % (b"0" * 400), id="a peak beyond all memory"
        ),
        pytest.param({"version": 1, "tasks": {"a": {"seconds": -1, "runs": 1}}}, id="negative"),
        pytest.param({"version": 1, "tasks": {"a": {"seconds": True, "runs": 1}}}, id="no number"),
        pytest.param({"version": 1, "tasks": {"a": {"seconds": 1, "runs": 0}}}, id="no runs"),
        pytest.param({"version": 1, "tasks": {"a": {"seconds": 1, "runs": 1, "items": {"x": "y"}}}}, id="items without time"),
        pytest.param({"version": 1, "tasks": {"a": {"seconds": 1, "runs": 1, "peak": "x"}}}, id="a peak that is none"),
    ],
)
def test_a_damaged_file_counts_for_nothing(tmp_path: Path, content: bytes | Mapping[str, object]) -> None:
    assert read(folder_with(tmp_path, content)) == {}


@given(st.binary(max_size=200))
def test_no_content_whatever_is_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    read(folder_with(tmp_path_factory.mktemp("job"), content))


GOOD = orjson.dumps({"version": 1, "tasks": {"a": {"seconds": 1.0, "runs": 1}}})


def _linked(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(Path.unlink, id="gone"),
        pytest.param(_linked, id="a symlink"),
        pytest.param(_fifo, id="a FIFO"),
        pytest.param(_folder, id="a directory"),
        pytest.param(lambda file: file.chmod(0o666), id="others may write to it"),
        pytest.param(lambda file: os.truncate(file, LARGEST + 1), id="huge"),
        pytest.param(
            lambda file: os.chown(file, 12345, -1),
            id="another user's",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away"),
        ),
    ],
)
def test_a_foreign_file_counts_for_nothing(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    folder_with(tmp_path, GOOD)
    assert read(tmp_path) == {"a": Known(seconds=1.0)}
    before = set(os.listdir("/proc/self/fd"))
    spoil(tmp_path / NAME)
    assert read(tmp_path) == {}
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_what_cannot_be_written_leaves_what_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_with(tmp_path, GOOD)
    write(tmp_path, {"b": Known(seconds=1)}, by_way_of=tmp_path / "gone")
    (tmp_path / "run").mkdir()
    write(tmp_path, {"b": Known(seconds=1, items={"\ud800": 1.0})}, by_way_of=tmp_path / "run")
    monkeypatch.setattr(durations, "LARGEST", 10)
    write(tmp_path, {"b": Known(seconds=1)}, by_way_of=tmp_path / "run")
    monkeypatch.setattr(durations, "MOST_TASKS", 0)
    write(tmp_path, {"b": Known(seconds=1)}, by_way_of=tmp_path / "run")
    assert (tmp_path / NAME).read_bytes() == GOOD
    assert not list((tmp_path / "run").iterdir())


def test_what_lies_in_the_way_of_a_symlink_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / NAME).symlink_to("target")
    write(tmp_path, {"a": Known(seconds=1)}, by_way_of=tmp_path / "run")
    assert read(tmp_path) == {"a": Known(seconds=1)}
    assert (tmp_path / "target").read_bytes() == b"precious"


# --- what a run does with it ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def precedence_of(tmp_path: Path, text: str, known: Mapping[str, object]) -> Precedence:
    file = tmp_path / "job.yaml"
    file.write_text(f"name: j\n{text}", encoding="utf-8")
    return Precedence(prepare(file, Options()), folder_with(tmp_path, {"version": 1, "tasks": known}))


def entry(seconds: float, **items: float) -> dict[str, object]:
    return {"seconds": seconds, "runs": 1, "items": items}


THREE = "tasks:\n  a: {run: 'true'}\n  b: {run: 'true'}\n  c: {run: 'true'}\n"
KNOWN_THREE = {"a": entry(1), "b": entry(2), "c": entry(3)}


@pytest.mark.parametrize(
    ("text", "known", "order"),
    [
        pytest.param(f"workers: 2\nmode: thread_pool\n{THREE}", KNOWN_THREE, ["c", "b", "a"], id="the longest first"),
        pytest.param(f"workers: 2\nmode: thread_pool\n{THREE}", {}, [], id="nothing known: as declared"),
        pytest.param(f"workers: 2\nmode: thread_pool\n{THREE}", {"old": entry(1)}, [], id="only of tasks that are gone"),
        pytest.param(
            f"workers: 2\nmode: thread_pool\n{THREE}", {"a": entry(0.1), "b": entry(0.3)}, [], id="no order could save a second"
        ),
        pytest.param(f"workers: 1\nmode: thread_pool\n{THREE}", KNOWN_THREE, [], id="one worker: as declared"),
        pytest.param(f"mode: serial\n{THREE}", KNOWN_THREE, [], id="serial: as declared"),
        pytest.param(f"workers: 3\nmode: thread_pool\n{THREE}", KNOWN_THREE, [], id="no more to do than workers: not read"),
        pytest.param(
            f"workers: 2\nmode: thread_pool\n{THREE}  s: {{mode: serial, run: 'true', needs: [a]}}\n",
            {**KNOWN_THREE, "s": entry(9)},
            ["a", "c", "b"],
            id="what a serial task waits for is urgent, and it has no turn",
        ),
        pytest.param(
            f"workers: 2\nmode: thread_pool\n{THREE}finally:\n  y: {{run: 'true'}}\n  z: {{run: 'true', needs: [y]}}\n",
            {**KNOWN_THREE, "z": entry(99)},
            ["y", "z", "c", "b", "a"],
            id="final tasks among themselves",
        ),
    ],
)
def test_turns_are_given_where_there_is_a_choice(
    tmp_path: Path, text: str, known: Mapping[str, object], order: list[str]
) -> None:
    found = precedence_of(tmp_path, text, known).turns()
    assert sorted(found, key=found.__getitem__) == order


@pytest.mark.parametrize(
    ("keys", "known", "order"),
    [
        pytest.param("", entry(1, x=1, y=2, z=3), [2, 1, 0], id="the longest first"),
        pytest.param(", max_parallel: 1", entry(1, x=1, y=2, z=3), None, id="one by one: as declared"),
        pytest.param("", entry(1), None, id="no item known: as declared"),
        pytest.param(", mode: serial", entry(1, x=1, y=2, z=3), None, id="serial: as declared"),
    ],
)
def test_items_are_arranged_where_there_is_a_choice(
    tmp_path: Path, keys: str, known: dict[str, object], order: list[int] | None
) -> None:
    from jobrunner.items import Items

    text = f"workers: 2\nmode: thread_pool\ntasks:\n  f: {{foreach: [x, y, z], run: 'true'{keys}}}\n"
    assert precedence_of(tmp_path, text, {"f": known}).arrange("f", Items(["x", "y", "z"])) == order


def test_a_run_keeps_what_it_has_measured_and_the_next_one_begins_with_the_longest(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.precedence.WORTH", 0.0)
    file = tmp_path / "job.yaml"
    file.write_text(
        "name: j\nworkers: 2\nmode: thread_pool\ntasks:\n"
        "  a: {run: 'true'}\n  b: {run: 'true'}\n  c: {run: sleep 0.2}\n  f: {foreach: [0, 0.3], run: 'sleep ${{ item }}'}\n"
    )
    begun: list[list[str]] = []

    def note(stamped: Stamped) -> None:
        if isinstance(event := stamped.event, TaskStarted):
            begun[-1].append(f"{event.task} {event.item or ''}".strip())

    for _ in range(2):
        begun.append([])
        assert run_prepared(prepare(file, Options()), sinks=[note]).ok
    assert set(begun[0][:2]) == {"a", "b"}
    known = read(state / "j")
    assert set(known) == {"a", "b", "c", "f"}
    assert known["c"].seconds > 0.19
    assert set(known["f"].items) == {"0", "0.3"}
    assert set(begun[1][:2]) == {"c", "f 0.3"}


def test_a_run_that_has_no_choice_or_is_over_at_once_leaves_no_file(tmp_path: Path, state: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("name: j\nworkers: 2\nmode: thread_pool\n" + THREE)
    assert run_prepared(prepare(file, Options())).ok
    assert not (state / "j" / NAME).exists()


def test_a_run_does_not_mind_what_it_finds_in_the_place_of_the_file(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.precedence.WORTH", 0.0)
    (state / "j" / NAME).mkdir(parents=True)
    for each in (state, state / "j"):
        each.chmod(0o700)
    file = tmp_path / "job.yaml"
    file.write_text("name: j\nworkers: 2\nmode: thread_pool\n" + THREE)
    assert run_prepared(prepare(file, Options())).ok
