"""Large values in files: what is kept, what is not, and what becomes of a value that no disk takes."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from jobrunner.spilled import LARGEST_IN_JOURNAL, Spill
from jobrunner.work import Outcome, Result


def result(size: int) -> Result:
    return Result(id=7, outcome=Outcome.SUCCEEDED, value=json.dumps("x" * (size - 2)).encode())


def spill_of(directory: Path, *, sync: bool = False, secret: bytes = b"none") -> Spill:
    return Spill(directory, prefix="1", sync=sync, withhold=lambda data: secret in data)


@pytest.mark.parametrize("sync", [False, True])
def test_a_large_value_goes_into_a_file_that_only_its_owner_reads(tmp_path: Path, sync: bool) -> None:
    before = result(LARGEST_IN_JOURNAL + 1)
    spilled = spill_of(tmp_path / "values", sync=sync).spill(before)
    assert spilled.value is None
    assert Path(spilled.value_file) == tmp_path / "values" / "1-7.json"
    assert stat.S_IMODE(Path(spilled.value_file).stat().st_mode) == 0o600
    assert spilled.json() == before.json()


def test_a_value_of_a_mebibyte_stays_where_it_is(tmp_path: Path) -> None:
    before = result(LARGEST_IN_JOURNAL)
    assert spill_of(tmp_path).spill(before) is before


def test_a_value_that_holds_a_secret_is_written_nowhere(tmp_path: Path) -> None:
    before = result(LARGEST_IN_JOURNAL + 1)
    assert spill_of(tmp_path, secret=b"xxx").spill(before) is before
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_no_disk_takes_is_there_for_this_run_and_said_to_be_lost_for_the_next(tmp_path: Path) -> None:
    blocked = tmp_path / "values"
    blocked.write_text("a file where the directory should be")
    before = result(2 * LARGEST_IN_JOURNAL)
    kept = spill_of(blocked).spill(before)
    assert (kept.value, kept.unkept) == (before.value, True)
    assert kept.note == "a value of 2 MiB is not on record: File exists"


def test_a_file_that_is_gone_is_a_value_that_cannot_be_read(tmp_path: Path) -> None:
    spilled = spill_of(tmp_path).spill(result(LARGEST_IN_JOURNAL + 1))
    Path(spilled.value_file).unlink()
    with pytest.raises(ValueError, match="No such file"):
        spilled.json()
