"""A kill, an error or a short write at every write and sync of the journal: it holds the old state or the new; resume works."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import witness
from tests.chaos import chaos, faulty
from tests.chaos.chaos import Trial

pytestmark = pytest.mark.chaos

LONG = bool(os.environ.get("JOBRUNNER_LONG"))
AT_ONCE = 4
CODES = {
    "kill_before": chaos.LOST,
    "kill_halfway": chaos.LOST,
    "kill_after": chaos.LOST,
    "eio": 74,
    "enospc": 74,
    "short": 0,
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", faulty.KINDS)
def test_whatever_goes_wrong_at_a_journal_write_is_gone_on_from(tmp_path: Path, kind: str) -> None:
    """Also where it is the first, when there is nothing to go on with. CI hits one operation in three, each kind others."""
    step, first, hits = *((1, 1) if LONG else (3, 1 + faulty.KINDS.index(kind) % 3)), 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for numbers in _in_groups(first, step):
            found = list(pool.map(lambda number: _is_hit(tmp_path / f"{kind}-{number}", kind, number), numbers))
            hits += sum(found)
            if not all(found):
                break
            assert numbers[-1] < 1_000, "a small job does not write that often"
    print(f"{kind}: {hits} operations")  # noqa: T201
    assert hits >= 3, "the journal is not written by os.write any more: tests/chaos/faulty.py sees nothing of it"


def _in_groups(first: int, step: int) -> Iterator[list[int]]:
    numbers = itertools.count(first, step)
    while True:
        yield list(itertools.islice(numbers, AT_ONCE))


def _is_hit(folder: Path, kind: str, number: int) -> bool:
    """Runs a job whose journal is hit at operation `number`, then goes on with it. False where it had fewer operations."""
    trial, flag = Trial(folder=folder, tasks=8, seconds=0.005), folder / "hit"
    trial.write()
    with chaos.all_ended(trial):
        code = chaos.ended(trial, trial.start([sys.executable, "-m", "tests.chaos.faulty", kind, str(number), str(flag)]))
        if flag.exists():
            _go_on(trial, code, CODES[kind])
        else:
            assert code == 0, trial.printed()
    chaos.verify(trial)
    return flag.exists()


def _go_on(trial: Trial, code: int, expected: int) -> None:
    """The run ended as is promised for the fault, with nothing left of it; without the fault it comes to its end."""
    found = chaos.look(
        trial, "engine" if expected == chaos.LOST else "all", code, offset=witness.size(trial.witness), wound_up=None
    )
    trial.kills.append(found)
    assert code == expected or (code == 0 and found.finished), f"exit code {code}\n{trial.printed()}"
    assert not trial.alive()
    if not found.finished:
        again = chaos.ended(trial, trial.start())
        assert again == 0, f"exit code {again} of the resume\n{trial.printed()}"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize("fault", ["signal=KILL", "error=EIO", "error=ENOSPC"])
@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_resume_whose_journal_the_system_fails_is_gone_on_from(tmp_path: Path, fault: str, call: str) -> None:
    """The same from outside, by the system itself: the first operations on a journal that is gone on with."""
    for number in range(1, 12 if LONG else 3):
        trial = Trial(folder=tmp_path / str(number), tasks=8, seconds=0.005)
        trial.write()
        with chaos.all_ended(trial):
            _kill_early(trial)
            journals = sorted(trial.state.glob("chaos/*/events.jsonl"))
            traced = [argument for path in journals for argument in ("-P", str(path))]
            inject = ["-e", f"inject={call}:{fault}:when={number}", "-e", f"trace={call}", "-o", str(trial.folder / "strace")]
            code = chaos.ended(trial, trial.start(["strace", "-f", "-qq", *traced, *inject, sys.executable, "-m", "jobrunner"]))
            is_hit = "INJECTED" in (trial.folder / "strace").read_text() or code == chaos.LOST
            assert is_hit or number > 1, "no such call on the journal: it is written in another way now"
            _go_on(trial, code, (chaos.LOST if "KILL" in fault else 74) if is_hit else 0)
        chaos.verify(trial)


def _kill_early(trial: Trial) -> None:
    """A run that has a journal and is lost."""
    child = trial.start()
    while len(witness.read(trial.witness)) < 3:
        time.sleep(0.001)
    trial.kills.append(chaos.kill(trial, child, "all", waits=False))


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_no_room_for_the_journal_is_74_before_any_task(tmp_path: Path) -> None:
    trial = Trial(folder=tmp_path / "job", tasks=8)
    trial.write()
    with chaos.all_ended(trial):
        inject = ["-e", "trace=fallocate", "-e", "inject=fallocate:error=ENOSPC", "-o", str(tmp_path / "strace")]
        assert chaos.ended(trial, trial.start(["strace", "-f", "-qq", *inject, sys.executable, "-m", "jobrunner"])) == 74
    assert witness.read(trial.witness) == []
    assert subprocess.run(["grep", "-c", "INJECTED", tmp_path / "strace"], stdout=subprocess.DEVNULL, check=False).returncode == 0
