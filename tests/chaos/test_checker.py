"""The checker itself: what it must find in a witness, and in a journal."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from benchmarks import witness
from benchmarks.witness import Kill, Repeat
from tests.chaos import records

ONE, ONE_DONE = "start a 1\n", "start a 1\ndone a 1\n"


@pytest.mark.parametrize(
    ("first", "recorded", "later", "expected"),
    [
        pytest.param(ONE, set(), "start a 2\ndone a 2\n", [], id="killed in flight: it has to run again"),
        pytest.param(ONE_DONE, set(), "start a 2\ndone a 2\n", [(True, False)], id="done, and forgotten"),
        pytest.param(ONE_DONE, {"a"}, "start a 2\ndone a 2\n", [(True, True)], id="recorded, and run again"),
        pytest.param(ONE, set(), "done a 1\nstart a 2\n", [(False, False)], id="the first copy ended after the kill"),
        pytest.param(ONE, set(), "start a 2\ndone a 1\ndone a 2\n", [(False, False)], id="both at once"),
        pytest.param(ONE_DONE, set(), "start a 2\nstart a 3\ndone a 3\n", [(True, False)] * 2, id="again, and once more"),
        pytest.param(ONE_DONE, {"a"}, "start b 2\ndone b 2\n", [], id="another task"),
    ],
)
def test_a_task_that_need_not_have_run_again_is_found(
    tmp_path: Path, first: str, recorded: set[str], later: str, expected: list[tuple[bool, bool]]
) -> None:
    (tmp_path / "witness").write_text(first + later)
    found = witness.repeats(witness.read(tmp_path / "witness"), [Kill(offset=len(first), gone=len(first), recorded=recorded)])
    assert found == [Repeat(task="a", was_done=done, was_recorded=known) for done, known in expected]


def test_a_torn_line_of_the_witness_is_refused(tmp_path: Path) -> None:
    (tmp_path / "witness").write_text(ONE_DONE + "start b 2")
    with pytest.raises(ValueError, match="torn"):
        witness.read(tmp_path / "witness")


def journal(*names: str) -> bytes:
    """Lines as jobrunner writes them."""
    data, checksum = b"", 0
    for number, name in enumerate(names, 1):
        body = json.dumps({"seq": number, "event": name}, separators=(",", ":")).encode()[:-1]
        checksum = zlib.crc32(body, checksum)
        data += b'%b,"crc":"%08x"}\n' % (body, checksum)
    return data


WHOLE = journal("a", "b", "c")
LINES = WHOLE.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        pytest.param(WHOLE, 3, id="whole"),
        pytest.param(WHOLE[:-1], 2, id="torn"),
        pytest.param(LINES[0] + LINES[2], 1, id="one is missing"),
        pytest.param(LINES[0] + LINES[0] + LINES[1], 1, id="one is there twice"),
        pytest.param(WHOLE.replace(b'"b"', b'"B"'), 1, id="one was changed"),
        pytest.param(LINES[0] + bytes(100) + LINES[1] + LINES[2], 1, id="zeros"),
    ],
)
def test_a_journal_is_read_as_far_as_each_record_follows_from_the_one_before(tmp_path: Path, data: bytes, kept: int) -> None:
    (tmp_path / "events.jsonl").write_bytes(data)
    assert len(records.whole(tmp_path / "events.jsonl")) == kept
    if kept < 3:
        with pytest.raises((AssertionError, ValueError)):
            records.checked(tmp_path / "events.jsonl")
