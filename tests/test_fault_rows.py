"""Faults that are injected into whole runs, where no other test does so: signals, clocks, full disks, lost and damaged state."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks import leftovers
from tests.test_resume import ROOT, Stage, chain, step

PATIENCE = 30.0
"""Seconds after which something hangs."""


class Shifted(Stage):
    """Each time that Python asks for the wall clock, it has been set by two hours: forwards, then back."""

    CLOCK = """
import itertools, time
shift, real = itertools.cycle((3600, -3600)), time.time
time.time = lambda: real() + next(shift)
"""

    @property
    def environ(self) -> dict[str, str]:
        (self.folder / "clock").mkdir(exist_ok=True)
        (self.folder / "clock" / "sitecustomize.py").write_text(self.CLOCK)
        return {**super().environ, "PYTHONPATH": f"{self.folder / 'clock'}:{ROOT}"}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(folder=tmp_path)


@contextmanager
def started(stage: Stage, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    """A runner with its pipes; killed at the end if it still lives."""
    with subprocess.Popen(
        stage.command(*args), cwd=stage.folder, env=stage.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as runner:
        try:
            yield runner
        finally:
            runner.kill()


def wait_for_line(file: Any, text: bytes) -> bytes:
    for line in file:
        if text in line:
            return bytes(line)
    raise AssertionError(f"it has ended without {text!r}")


def engine_of(runner: subprocess.Popen[bytes]) -> int:
    return leftovers.family(runner.pid)[-1]


def traced(stage: Stage, call: str, inject: str, *args: str) -> subprocess.CompletedProcess[str]:
    """The runner under strace, which does `inject` to its system call `call`; what it traced is in the file `trace`."""
    strace = shutil.which("strace")
    assert strace, "strace is not installed"
    options = ["-f", "-qq", "-o", str(stage.folder / "trace"), "-e", f"trace={call}"]
    options += ["-e", f"inject={call}:{inject}"] if inject else []
    command = [strace, *options, *stage.command(*args)]
    return subprocess.run(command, cwd=stage.folder, env=stage.environ, capture_output=True, text=True, check=False, timeout=60)


def endings(stage: Stage) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for record in stage.events("task.finished"):
        found.setdefault(record["task"], []).append(record["outcome"])
    return found


# --- job files, tasks, workers -------------------------------------------------------------------------------------------------


BAD = ["tasks: {a: {run: 'touch ran', neds: []}}", "", "tasks: [", "tasks: {a: {target: 'm:f', needs: [b]}}"]


@pytest.mark.parametrize("text", BAD)
def test_a_bad_job_file_leaves_no_state_no_lock_and_runs_nothing(stage: Stage, text: str) -> None:
    (stage.folder / "job.yaml").write_text(text)
    (stage.folder / "m.py").write_text("open('ran', 'w')")
    refused = stage.call("run", "job.yaml", "--resume")
    assert refused.returncode == 2
    assert re.search(r"job\.yaml:\d+:\d+: ", refused.stderr)
    assert sorted(path.name for path in stage.folder.iterdir()) == ["job.yaml", "m.py"]


def test_what_a_thread_changes_of_its_process_reaches_neither_the_engine_nor_a_command(stage: Stage) -> None:
    (stage.folder / "change.py").write_text(
        "import os\ndef all():\n    os.chdir('/')\n    os.umask(0o777)\n    os.environ['CHANGED'] = '1'\n"
    )
    told = 'umask >> told; pwd >> told; echo "[$CHANGED]" >> told'
    tasks = {"change": {"target": "change:all"}, "tell": {"needs": ["change"], "run": told}}
    (stage.folder / "job.yaml").write_text(json.dumps({"name": "job", "mode": "thread_pool", "tasks": tasks}))
    assert stage.call("run", "job.yaml").returncode == 0
    umask = subprocess.run(["sh", "-c", "umask"], capture_output=True, text=True, check=True).stdout.strip()
    assert (stage.folder / "told").read_text().split() == [umask, str(stage.folder), "[]"]


@pytest.mark.parametrize("mode", ["thread_pool", "process", "process_pool"])
def test_a_worker_that_dies_within_a_frame_is_a_crash_of_its_own_attempt(stage: Stage, mode: str) -> None:
    text = 'import os\ndef half():\n    os.write(3, b\'["result", 1, "succ\')\n    os._exit(0)\n'
    (stage.folder / "half.py").write_text(text)
    stage.job({"a": {"target": "half:half"}, "b": {"target": "math:sqrt", "args": [4]}}, mode=mode)
    assert stage.call("run", "job.yaml").returncode == 1
    assert endings(stage) == {"a": ["crashed"], "b": ["succeeded"]}


def test_output_beyond_what_is_kept_is_cut_and_the_task_is_told_so_and_succeeds(stage: Stage) -> None:
    stage.job({"a": {"run": "head -c 40000000 /dev/zero"}, "b": {"run": "echo little"}})
    assert stage.call("run", "job.yaml", "-q").returncode == 0
    assert {record["task"]: record.get("truncated", False) for record in stage.events("task.finished")} == {"a": True, "b": False}
    kept = sum(path.stat().st_size for path in (stage.runs()[-1] / "output").glob("a.log*"))
    assert 16 << 20 <= kept <= 32 << 20


# --- the runner, and signals to it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("journal", [None, b"", b'{"v":1,"seq":1,"ts":"2026-'], ids=["none", "empty", "torn"])
def test_a_run_that_was_lost_before_its_first_record_is_no_run(stage: Stage, journal: bytes | None) -> None:
    stage.job(chain("a"))
    lost = stage.folder / "state" / "job" / "20260101T000000Z-0000000000"
    lost.mkdir(parents=True)
    for path in (lost, lost.parent, lost.parent.parent):
        path.chmod(0o700)
    if journal is not None:
        (lost / "events.jsonl").write_bytes(journal)
    assert stage.call("resume").returncode == 2
    assert stage.ran() == {}
    started_anew = stage.call("run", "job.yaml", "--resume")
    assert started_anew.returncode == 0, started_anew.stderr
    assert (stage.ran(), len(stage.runs())) == ({"a": 1}, 2)
    assert stage.journal()[0]["event"] == "run.started"


def test_a_signal_at_any_sync_of_the_journal_ends_the_run_as_its_last_record_says(tmp_path: Path) -> None:
    """From the first record to the last: between the two the run is stopped in order, and can be gone on with."""

    def hit(number: int) -> tuple[int, int]:
        stage = Stage(folder=tmp_path / str(number))
        stage.folder.mkdir()
        stage.job(chain("a", "b"))
        code = traced(stage, "fdatasync", f"signal=TERM:when={number}" if number else "", "run", "job.yaml").returncode
        last = stage.journal()[-1]
        assert (last["event"], last["exit_code"]) == ("run.finished", code)
        assert code in (0, 143)
        recorded = {task: 1 for task, outcomes in endings(stage).items() if outcomes == ["succeeded"]}
        assert code == 143 or recorded == {"a": 1, "b": 1}
        assert code == 0 or stage.call("resume").returncode == 0
        assert (recorded.items() <= stage.ran().items(), set(stage.ran())) == (True, {"a", "b"})
        return code, (stage.folder / "trace").read_text().count("fdatasync(")

    undisturbed, syncs = hit(0)
    assert (undisturbed, syncs >= 3) == (0, True), "the journal is synced in another way now"
    with ThreadPoolExecutor(4) as pool:
        codes = [code for code, _ in pool.map(hit, range(1, syncs + 1))]
    assert codes[:2] == [143, 143]


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGHUP], ids=["TERM", "HUP"])
def test_a_second_signal_takes_no_task_its_time_to_end(stage: Stage, second: int, waits: bool) -> None:
    """Only INT does. Of two that come at once the kernel makes one, or gives out that with the lower number first."""
    tidy = "trap 'sleep 0.3; echo tidy >> witness; exit' TERM; echo ready; while :; do sleep 0.05; done"
    stage.job({"a": {"run": tidy}})
    with started(stage, "run", "job.yaml") as runner:
        wait_for_line(runner.stdout, b"ready")
        runner.send_signal(signal.SIGTERM)
        if waits:
            wait_for_line(runner.stderr, b'"run.interrupted"')
        runner.send_signal(second)
        assert runner.wait(timeout=PATIENCE) in ({143} if waits else {143, 128 + second})
    assert stage.ran() == {"tidy": 1}
    assert len(stage.events("run.interrupted")) == 1
    assert endings(stage) == {"a": ["cancelled"]}


def test_an_attempt_that_is_overdue_when_the_runner_goes_on_times_out_once(stage: Stage) -> None:
    """The engine is stopped before the time is over, and goes on when it is."""
    os.mkfifo(stage.folder / "fifo")
    stage.job({"a": {"run": "sleep 1.2; echo over > fifo; exec sleep 600", "timeout": "1s"}, "b": step("b")})
    fifo = os.open(stage.folder / "fifo", os.O_RDWR)
    with started(stage, "run", "job.yaml") as runner:
        wait_for_line(runner.stderr, b'"task.started"')
        os.kill(engine_of(runner), signal.SIGSTOP)
        is_over = select.select([fifo], [], [], PATIENCE)[0]
        os.kill(engine_of(runner), signal.SIGCONT)
        assert is_over, "it was stopped too late"
        assert runner.wait(timeout=PATIENCE) == 1
    os.close(fifo)
    assert endings(stage) == {"a": ["timed_out"], "b": ["succeeded"]}


@pytest.mark.parametrize("mode", ["process", "process_pool", "thread_pool"])
def test_usr1_asks_where_all_stand_and_changes_nothing(stage: Stage, mode: str) -> None:
    os.mkfifo(stage.folder / "fifo")
    (stage.folder / "functions.py").write_text("def wait():\n    open('fifo').read()\n")
    stage.job({"a": {"target": "functions:wait"}}, mode=mode)
    with started(stage, "run", "job.yaml") as runner:
        wait_for_line(runner.stderr, b'"task.started"')
        with open(stage.folder / "fifo", "w"):  # it waits in open, then in read: opened here it is in the task for certain
            runner.send_signal(signal.SIGUSR1)
            engine, host = (json.loads(wait_for_line(runner.stderr, b'"run.stacks"')) for _ in range(2))
        assert runner.wait(timeout=PATIENCE) == 0
    assert (engine["process"], list(engine["running"])) == ("engine", ["a"])
    assert "engine.py" in engine["stack"]
    assert "functions.py" in host["stack"]
    assert "running" not in host


DISTURBED = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGINT})
for name in sys.argv[1].split():
    signal.signal(signal.Signals[name], signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "jobrunner", "run", *sys.argv[2:]])
"""
SEEN = """
import signal
def seen(names):
    lines = dict(line.split(":", 1) for line in open("/proc/thread-self/status"))
    ignored = [name for name in names if int(lines["SigIgn"], 16) >> signal.Signals[name] - 1 & 1]
    assert (int(lines["SigBlk"], 16), ignored) == (0, []), lines
"""
IGNORED = ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM", "SIGQUIT", "SIGPROF", "SIGTSTP"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_functions_start_with_no_signal_blocked_nor_ignored(stage: Stage, method: str) -> None:
    (stage.folder / "seen.py").write_text(SEEN)
    modes = ["serial", "thread", "thread_pool", "process", "process_pool"]
    tasks = {mode: {"target": "seen:seen", "args": [IGNORED], "pool": mode} for mode in modes}
    stage.job(tasks, pools={mode: {"mode": mode, "start_method": method} for mode in modes})
    command = [sys.executable, "-c", DISTURBED, " ".join(IGNORED), "job.yaml"]
    ended = subprocess.run(command, cwd=stage.folder, env=stage.environ, capture_output=True, check=False, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stderr
    assert endings(stage) == {mode: ["succeeded"] for mode in modes}


# --- the journal and its disk --------------------------------------------------------------------------------------------------

GIVES = "def give(n):\n    with open('witness', 'a') as file:\n        file.write(f'{n}\\n')\n    return 'x' * 200_000\n"


def large_job(stage: Stage) -> None:
    """Its journal grows beyond what is reserved at the start, by values that a later task asks for. None is handed out ahead."""
    (stage.folder / "gives.py").write_text(GIVES)
    stage.job(
        {
            "give": {"foreach": {"range": 10}, "target": "gives:give", "args": ["${{ item }}"], "max_parallel": 2},
            "count": {"needs": ["give"], "run": "test ${{ len(tasks.give.results) }} = 10"},
        },
        mode="process_pool",
    )


def test_a_disk_that_has_no_more_room_for_the_journal_starts_nothing_new_and_exits_74(stage: Stage) -> None:
    large_job(stage)
    full = traced(stage, "fallocate", "error=ENOSPC:when=2+", "run", "job.yaml")
    assert full.returncode == 74, full.stderr
    assert "No space left on device" in full.stderr
    before = stage.ran()
    assert 0 < len(before) < 10
    assert endings(stage) == {"give": ["succeeded"] * len(before)}
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {str(number): 1 for number in range(10)}


def test_a_resume_that_has_no_room_for_its_records_exits_74_before_any_task(stage: Stage) -> None:
    stage.job(chain("a", "b"))
    block = stage.flag("block-b")
    stage.kill_in_the_middle("run", "job.yaml")
    block.unlink()
    assert traced(stage, "fallocate", "error=ENOSPC", "resume").returncode == 74
    assert stage.ran() == {"a": 1, "b": 1}
    assert stage.call("resume").returncode == 0
    assert stage.ran() == {"a": 1, "b": 2}


def changed(line: int, before: bytes, after: bytes) -> Any:
    def change(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        lines[line] = lines[line].replace(before, after, 1)
        return b"".join(lines)

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (changed(2, b'"event"', b'"EVENT"'), "is damaged at byte {third}"),
        (changed(0, b'{"v":1', b'{"v":2'), "is of a later jobrunner"),
    ],
    ids=["damaged", "later version"],
)
@pytest.mark.parametrize("args", [["resume"], ["run", "job.yaml", "--resume"]], ids=["resume", "run"])
def test_a_journal_that_cannot_be_believed_is_left_as_it_is(stage: Stage, change: Any, told: str, args: Sequence[str]) -> None:
    stage.job(chain("a", "b"))
    block = stage.flag("block-b")
    stage.kill_in_the_middle("run", "job.yaml")
    block.unlink()
    journal = stage.runs()[-1] / "events.jsonl"
    data = change(journal.read_bytes())
    journal.write_bytes(data)
    refused = stage.call(*args)
    assert refused.returncode == 74
    third = sum(len(line) for line in data.splitlines(keepends=True)[:2])
    assert told.format(third=third) in refused.stderr
    assert (journal.read_bytes(), stage.ran(), len(stage.runs())) == (data, {"a": 1, "b": 1}, 1)


def test_a_state_directory_that_is_deleted_ends_the_run_with_74(stage: Stage) -> None:
    stage.job({"a": {"run": "rm -r state"}, "b": step("b", needs=["a"])})
    lost = stage.call("run", "job.yaml")
    assert lost.returncode == 74
    assert "it was deleted" in lost.stderr
    assert stage.ran() == {}


def test_a_state_directory_that_became_a_symlink_is_not_gone_on_with(stage: Stage) -> None:
    stage.job(chain("a", "b"))
    block = stage.flag("block-b")
    stage.kill_in_the_middle("run", "job.yaml")
    block.unlink()
    (stage.folder / "state").rename(stage.folder / "moved")
    (stage.folder / "state").symlink_to(stage.folder / "moved")
    for args in (["resume"], ["run", "job.yaml", "--resume"]):
        assert stage.call(*args).returncode == 77
    assert stage.ran() == {"a": 1, "b": 1}


# --- the clock -----------------------------------------------------------------------------------------------------------------


def test_a_wall_clock_that_is_set_by_hours_changes_no_outcome_and_no_duration(tmp_path: Path) -> None:
    stage = Shifted(folder=tmp_path)
    tasks = {
        "quick": {"run": "sleep 0.2", "timeout": "20s"},
        "slow": {"run": "sleep 600", "timeout": "300ms", "continue_on_error": True},
        "again": {"run": "test $JOBRUNNER_ATTEMPT = 2", "retry": {"max": 1, "delay": "100ms"}},
    }
    stage.job(tasks, timeout="50s")
    assert stage.call("run", "job.yaml").returncode == 0
    journal = stage.journal()
    assert endings(stage) == {"quick": ["succeeded"], "slow": ["timed_out"], "again": ["failed", "succeeded"]}
    assert [record["seq"] for record in journal] == list(range(1, len(journal) + 1))
    assert all(0 <= record["duration"] < 50 for record in journal if "duration" in record)
    times = [datetime.fromisoformat(record["ts"]) for record in journal]
    assert all(time.utcoffset() == timedelta(0) for time in times)
    assert times != sorted(times), "the clock was not set"


def test_neither_the_lock_nor_a_resume_asks_what_time_it_is(tmp_path: Path) -> None:
    stage = Shifted(folder=tmp_path)
    stage.job(chain("a", "b"))
    block = stage.flag("block-b")
    with started(stage, "run", "job.yaml") as runner:
        wait_for_line(runner.stderr, b'"task":"b"')
        assert stage.call("run", "job.yaml").returncode == 75
        os.kill(engine_of(runner), signal.SIGKILL)
        assert runner.wait(timeout=PATIENCE) == 70
    block.unlink()
    assert stage.call("run", "job.yaml", "--resume").returncode == 0
    assert (stage.ran(), len(stage.runs())) == ({"a": 1, "b": 2}, 1)
