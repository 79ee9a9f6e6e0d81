"""What a journal says of the earlier parts of a run, from records as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobrunner.plan import Tries
from jobrunner.recorded import LOST, UNKNOWN, Ending, Recorded

STARTED = {"event": "run.started", "ts": "2026-01-01T00:00:00.000000Z", "file": "/jobs/a.yaml", "options": {}}


def start(task: str = "a", item: str | None = None, attempt: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "event": "task.started",
        "task": task,
        "item": item,
        "attempt": attempt,
        "worker": "w",
        "pid": 7,
        "mode": "thread",
        **more,
    }


def submit(task: str = "a", digest: str = "d1", attempt: int = 1) -> dict[str, Any]:
    return {"event": "task.submitted", "task": task, "attempt": attempt, "digest": digest}


def finish(
    outcome: str = "succeeded", task: str = "a", item: str | None = None, attempt: int = 1, digest: str = "d1", **more: Any
) -> dict[str, Any]:
    return {
        "event": "task.finished", "task": task, "item": item, "attempt": attempt, "outcome": outcome, "digest": digest, **more
    }  # fmt: skip


def read(*records: dict[str, Any], **how: Any) -> Recorded:
    return Recorded.of([STARTED, *records], **how)


def found(recorded: Recorded, task: str = "a", item: str | None = None, digest: str = "d1") -> str | None:
    ending = recorded.find(task, item, digest)
    return None if ending is None else str(ending.outcome)


# --- what is over, and what is not ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "how", "outcome"),
    [
        pytest.param([], {}, None, id="never ran"),
        pytest.param([start()], {}, None, id="was running"),
        pytest.param([start(), finish()], {}, "succeeded", id="succeeded"),
        pytest.param([start(), finish("failed")], {}, "failed", id="failed"),
        pytest.param([start(), finish("timed_out")], {}, "timed_out", id="timed out"),
        pytest.param([start(), finish("crashed")], {}, "crashed", id="crashed"),
        pytest.param([start(), finish("cancelled")], {}, None, id="cancelled: it never had its chance"),
        pytest.param([start(), finish("failed", retried=True)], {}, None, id="failed, and waits for its retry"),
        pytest.param([finish("failed"), finish(attempt=2)], {}, "succeeded", id="the later end counts"),
        pytest.param([finish("failed")], {"retry_failed": True}, None, id="retry_failed"),
        pytest.param([finish()], {"retry_failed": True}, "succeeded", id="retry_failed leaves a success alone"),
        pytest.param([finish()], {"rerun": ["a"]}, None, id="rerun"),
        pytest.param([finish()], {"rerun": ["b"]}, "succeeded", id="rerun of another"),
        pytest.param([finish("unknown")], {}, "unknown", id="unknown"),
        pytest.param([finish("unknown")], {"retry_failed": True}, "unknown", id="retry_failed does not touch the unknown"),
        pytest.param([finish("unknown")], {"rerun": ["a"]}, None, id="rerun does"),
    ],
)
def test_what_counts_of_an_instance(records: list[dict[str, Any]], how: dict[str, Any], outcome: str | None) -> None:
    assert found(read(*records, **how)) == outcome


def test_a_success_with_another_digest_is_none() -> None:
    assert found(read(finish()), digest="d2") is None


def test_what_is_unknown_stays_so_when_its_definition_has_changed() -> None:
    assert found(read(finish("unknown")), digest="d2") == "unknown"


def test_items_are_found_by_content_wherever_they_stand_now() -> None:
    recorded = read(finish(item="0-aaa", digest="x"), finish(item="1-bbb", digest="y"))
    assert found(recorded, item="5-bbb", digest="y") == "succeeded"
    assert found(recorded, item="0-ccc", digest="z") is None


def test_equal_items_count_once_each() -> None:
    recorded = read(finish(item="0-aaa", digest="x"), finish("failed", item="1-aaa", digest="x"))
    assert sorted(filter(None, (found(recorded, item=f"{place}-aaa", digest="x") for place in range(3)))) == [
        "failed",
        "succeeded",
    ]


@pytest.mark.parametrize(
    ("data", "kept"),
    [(None, False), ({}, True), ({"value": "1"}, True), ({"withheld": True}, False)],
)
def test_it_is_known_whether_values_are_kept(data: dict[str, Any] | None, kept: bool) -> None:
    ending = read(finish(data=data) if data is not None else finish()).find("a", None, "d1")
    assert isinstance(ending, Ending)
    assert ending.has_data_in(Path("run")) is kept


def test_the_values_come_back_as_they_were() -> None:
    ending = read(finish(exit_code=0, data={"value": "123456789012345678901", "stdout": "é\n", "outputs": {"k": "v"}})).find(
        "a", None, "d1"
    )
    assert ending is not None
    result = ending.result(5, Path("run"))
    assert (result.id, result.json(), result.stdout, result.outputs) == (5, 123456789012345678901, "é\n".encode(), {"k": "v"})


@pytest.mark.parametrize(
    ("outcome", "how", "stays"),
    [
        ("succeeded", {}, True),
        ("timed_out", {"retry_failed": True}, True),
        ("crashed", {"retry_failed": True}, True),
        ("failed", {"retry_failed": True}, False),
        ("succeeded", {"rerun": ["a"]}, False),
        ("crashed", {"rerun": ["a"]}, False),
    ],
)
def test_what_may_run_at_most_once_and_did_not_fail_by_itself_stays_as_it_ended(
    outcome: str, how: dict[str, Any], stays: bool
) -> None:
    ending = read(submit(), start(), finish(outcome), **how).find("a", None, "another digest", at_most_once=True)
    assert (ending is not None) is stays


# --- how often ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "how", "tries"),
    [
        pytest.param([], {}, Tries(), id="never"),
        pytest.param([start(), finish("failed", retried=True)], {}, Tries(made=1, counted=1), id="failed once"),
        pytest.param([start(), finish("crashed", retried=True, reason=LOST)], {}, Tries(made=1, counted=0), id="lost"),
        pytest.param(
            [finish("failed", retried=True), start(attempt=2), finish("crashed", attempt=2, retried=True, reason=LOST)],
            {},
            Tries(made=2, counted=1),
            id="failed, then lost",
        ),
        pytest.param(
            [finish("failed", attempt=3)], {"retry_failed": True}, Tries(made=3, counted=0), id="retry_failed: a new budget"
        ),
        pytest.param([finish("cancelled")], {}, Tries(made=1, counted=0), id="cancelled"),
    ],
)
def test_how_often_an_instance_was_tried(records: list[dict[str, Any]], how: dict[str, Any], tries: Tries) -> None:
    assert read(*records, **how).tries("a", None) == tries


# --- what was in flight --------------------------------------------------------------------------------------------------------


def test_what_had_begun_and_not_ended_is_lost_and_runs_again() -> None:
    recorded = read(start(), finish(), start("b", "x", 2))
    (lost,) = recorded.lost([])
    assert (lost.task, lost.item, lost.attempt, lost.outcome, lost.retried, lost.reason) == ("b", "x", 2, "crashed", True, LOST)
    recorded.has_ended(lost)
    assert recorded.tries("b", "x") == Tries(made=2, counted=1)
    assert found(recorded, "b", "x") is None


@pytest.mark.parametrize("records", [[submit()], [submit(), start()]], ids=["about to start", "started"])
def test_what_may_run_only_once_and_was_about_to_is_unknown(records: list[dict[str, Any]]) -> None:
    recorded = read(*records)
    (lost,) = recorded.lost(["a"])
    assert (lost.outcome, lost.retried, lost.reason, lost.digest) == ("unknown", False, UNKNOWN, "d1")
    recorded.has_ended(lost)
    assert found(recorded) == "unknown"


def test_nothing_is_lost_twice() -> None:
    recorded = read(start(), finish("crashed", retried=True, reason=LOST))
    assert recorded.lost([]) == []


# --- the run -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "unfinished"),
    [
        pytest.param([], True, id="killed"),
        pytest.param([{"event": "run.finished", "outcome": "succeeded"}], False, id="succeeded"),
        pytest.param([{"event": "run.finished", "outcome": "failed"}], False, id="failed"),
        pytest.param([{"event": "run.finished", "outcome": "interrupted"}], True, id="stopped"),
        pytest.param([{"event": "run.finished", "outcome": "timed_out"}], True, id="over its time"),
        pytest.param(
            [{"event": "run.finished", "outcome": "interrupted"}, {"event": "run.resumed"}], True, id="killed while resumed"
        ),
    ],
)
def test_which_runs_are_unfinished(records: list[dict[str, Any]], unfinished: bool) -> None:
    assert read(*records).is_unfinished is unfinished


def test_a_journal_without_a_beginning_is_no_run() -> None:
    recorded = Recorded.of([])
    assert not recorded.is_unfinished
    assert recorded.parts == 0


def test_the_parts_of_a_run_are_counted() -> None:
    assert read({"event": "run.resumed"}, {"event": "run.resumed"}).parts == 3
