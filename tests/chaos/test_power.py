"""A loss of power: of the journal what was synced is there, and any part of the rest. Resume goes on from it, or exits 74."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from benchmarks import witness
from tests.chaos import chaos, records
from tests.chaos.chaos import Trial

pytestmark = pytest.mark.chaos

SAMPLES = 300 if os.environ.get("JOBRUNNER_LONG") else 15
SECTOR = 512
SEED = int(os.environ.get("JOBRUNNER_SEED", random.SystemRandom().randrange(1 << 32)))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_goes_on_after_a_loss_of_power_and_repeats_nothing_that_was_synced(tmp_path: Path) -> None:
    print(f"JOBRUNNER_SEED={SEED}")  # noqa: T201  # what repeats a failure
    draw, trial, saved = random.Random(SEED), Trial(folder=tmp_path / "job", tasks=24, seconds=0.002), tmp_path / "saved"
    trial.write()
    with chaos.all_ended(trial):
        assert chaos.ended(trial, trial.start()) == 0, trial.printed()
        shutil.move(trial.state, saved)
        for _ in range(SAMPLES):
            _restore(trial, saved, draw)
            _goes_on(trial)


def _restore(trial: Trial, saved: Path, draw: random.Random) -> None:
    """The state as a loss of power at some moment of the run has left it; the witness knows nothing yet."""
    shutil.rmtree(trial.state, ignore_errors=True)
    shutil.copytree(saved, trial.state)
    (run,) = records.run_dirs(trial.state, "chaos")
    data = (run / "events.jsonl").read_bytes()
    (run / "events.jsonl").write_bytes(_after_power_loss(data, draw))
    trial.witness.unlink(missing_ok=True)
    (trial.folder / "log.jsonl").unlink(missing_ok=True)


def _after_power_loss(data: bytes, draw: random.Random) -> bytes:
    """What was synced when a record had been written, and of what followed, up to any byte, each sector or zeros for it."""
    written, ends = draw.randrange(len(records.offsets(data)) - 1), records.offsets(data)
    synced = max((each["synced"] for each in records.parsed(data)[: written + 1] if "synced" in each), default=0)
    start = ends[synced - 1] if synced else 0
    length = draw.randint(start, ends[written])
    sectors = {at // SECTOR for at in range(start, length)}
    lost = {sector for sector in sectors if draw.random() < 0.5} if draw.random() < 0.5 else set[int]()
    tail = bytes(0 if at // SECTOR in lost else data[at] for at in range(start, length))
    return data[:start] + tail


def _goes_on(trial: Trial) -> None:
    """Every task that the journal still has as ended is left alone, every other one is run once; or all is left alone: 74."""
    (before,) = trial.journals()
    recorded = set(records.succeeded(before))
    code = chaos.ended(trial, trial.start())
    lines = witness.read(trial.witness)
    if code == 74:
        assert lines == []
        return
    assert code == 0, trial.printed()
    done = sorted(line.task for line in lines if line.word == "done")
    expected = {f"{fan}-{number}" for fan in chaos.FANS for number in range(trial.each)} | {"total"}
    assert [name.partition("-")[0] if name.startswith("total") else name for name in done] == sorted(expected - recorded)
    chaos.verify_the_journal(trial)
