"""Jobs that try to hang, break or deceive the engine: each ends in time, as what it is, and with a log that adds up."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import jobrunner
from jobrunner.executors import hosts
from jobrunner.executors.commands import Commands
from jobrunner.loop import Loop
from jobrunner.work import Command, Outcome, Report, Result

TARGETS = """
import calendar, os, signal, socket, threading, time

def wait(seconds): time.sleep(seconds)
def deep(levels):
    found = []
    for _ in range(levels): found = [found]
    return found
def long_words(count): return ["x" * 60_000] * count
def take(value): return 1
def rename(name): threading.current_thread().name = name
def shout(megabytes): print("x" * (megabytes << 20))
def set_alarm(): signal.setitimer(signal.ITIMER_REAL, 0.05)
def which_calendar(): return calendar.WHOSE
def forge(frame):
    os.write(3, frame.encode() + b"\\n")
    time.sleep(30)
def pause_idle():
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and _parent(name) == os.getppid():
            os.kill(int(name), signal.SIGSTOP)
def _parent(pid):
    try: return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
    except OSError: return 0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    (tmp_path / "hostile.py").write_text(TARGETS)
    (tmp_path / "calendar.py").write_text("WHOSE = 'ours'\n")
    return tmp_path


def run(folder: Path, text: str) -> jobrunner.RunResult:
    (folder / "job.yaml").write_text(text)
    return jobrunner.run(folder / "job.yaml")


def test_a_fifo_in_place_of_the_outputs_keeps_nobody(folder: Path) -> None:
    result = run(folder, "tasks: {a: {run: 'mkfifo \"$JOBRUNNER_OUTPUT\"'}}")
    assert result.ok


def test_an_attempt_that_is_over_its_time_before_it_begins_has_one_end(folder: Path) -> None:
    text = "{mode: thread_pool, timeout: 1ms, tasks: {a: {target: 'hostile:wait', args: [5]}}}"
    result = run(folder, text)
    assert (result.outcome, result.exit_code) == ("timed_out", 124)


@pytest.mark.parametrize("levels", [300, 900])
def test_a_result_nested_too_deeply_fails_who_takes_it(folder: Path, levels: int) -> None:
    text = f"""
mode: process_pool
tasks:
  deep: {{target: "hostile:deep", args: [{levels}]}}
  take: {{needs: [deep], target: "hostile:take", args: ["${{{{ tasks.deep.result }}}}"]}}
  other: {{target: "hostile:take", args: [1]}}
"""
    result = run(folder, text)
    assert result.tasks["other"].outcome is Outcome.SUCCEEDED
    if levels == 300 or result.tasks["take"].outcome is not Outcome.FAILED:  # how deep JSON may go is for Python to say
        assert result.ok
    else:
        assert result.tasks["take"].errors == ("could not start: its arguments are nested too deeply to be handed over",)


FORGED = [
    '["result", 1, "skipped", 0.1, 0.1, 1, null, "", null, false]',
    '["result", 1, "succeeded", "long", 0.1, 1, null, "", null, false]',
    '["result", 1, "succeeded", 0.1, "much", 1, null, "", null, false]',
    '["result", 1, "failed", 0.1, 0.1, 1, null, "", [1, 2, 3], false]',
    '["began", 1, "again", null]',
    '["began", [], "x", null]',
    '["said", 1, 5]',
    '["ran", 1, "x", 1, 0.1, 0.1]',
]


@pytest.mark.parametrize("frame", FORGED)
def test_a_forged_frame_ends_its_host_and_nothing_else(folder: Path, frame: str) -> None:
    text = f"""
mode: process
tasks:
  a: {{target: "hostile:forge", args: ['{frame}']}}
  b: {{target: "hostile:take", args: [1]}}
"""
    result = run(folder, text)
    assert (result.tasks["a"].outcome, result.tasks["b"].outcome) == (Outcome.CRASHED, Outcome.SUCCEEDED)


@pytest.mark.parametrize("mode", ["thread", "thread_pool"])
def test_a_thread_that_renames_itself_is_the_same_worker(folder: Path, mode: str) -> None:
    text = f"{{mode: {mode}, tasks: {{a: {{foreach: {{range: 5}}, target: 'hostile:rename', args: [other]}}}}}}"
    (folder / "job.yaml").write_text(text)
    command = [sys.executable, "-m", "jobrunner", str(folder / "job.yaml"), "--log-file", str(folder / "log")]
    assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0
    events = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    started = [event["worker"] for event in events if event["event"] == "worker.started"]
    assert started
    assert sorted(started) == sorted(event["worker"] for event in events if event["event"] == "worker.joined")
    assert "other" not in started


def test_a_print_of_70_megabytes_is_output(folder: Path) -> None:
    result = run(folder, "{mode: thread_pool, tasks: {a: {target: 'hostile:shout', args: [70]}}}")
    assert result.ok
    kept = [(result.run_dir / "output" / name).stat().st_size for name in ("a.log", "a.log.1")]
    assert kept == [(70 << 20) % (16 << 20) + 1, 16 << 20], "the last of it, in two files"


def test_an_alarm_does_not_ring_in_the_next_attempt(folder: Path) -> None:
    text = """
mode: process_pool
workers: 1
tasks:
  sets: {target: "hostile:set_alarm"}
  next: {needs: [sets], target: "hostile:wait", args: [0.2]}
"""
    assert run(folder, text).ok


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_module_beside_the_job_file_is_found_before_one_that_is_loaded(folder: Path, method: str) -> None:
    text = f"""
pools: {{p: {{mode: process, start_method: {method}}}}}
tasks: {{a: {{pool: p, target: "hostile:which_calendar"}}}}
"""
    assert run(folder, text).tasks["a"].value == "ours"


def test_commands_that_fail_to_start_for_ever_do_not_hide_a_signal(folder: Path) -> None:
    text = "tasks: {a: {foreach: {range: 1000000}, run: no-such-command-anywhere, retry: {max: 1000, delay: 0}}}"
    (folder / "job.yaml").write_text(text)
    command = [sys.executable, "-m", "jobrunner", str(folder / "job.yaml"), "--log-file", str(folder / "log")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while "task.retrying" not in ((folder / "log").read_text() if (folder / "log").exists() else ""):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        assert process.wait(timeout=30) == 143
        assert time.monotonic() - asked < 10


def test_long_values_are_whole_words_of_a_plain_command(folder: Path) -> None:
    """1.8 MB in words below the kernel's limit for one: a reader that is quadratic in the line takes minutes."""
    text = """
timeout: 30s
tasks:
  long: {target: "hostile:long_words", args: [30]}
  count: {needs: [long], run: "python3 hostile_count.py ${{ tasks.long.result }} end"}
"""
    script = "import sys; words = sys.argv[1:-1]; sys.exit(len(words) != 30 or {len(word) for word in words} != {60000})"
    (folder / "hostile_count.py").write_text(script)
    result = run(folder, text)
    assert (result.ok, result.tasks["count"].errors) == (True, ())


def test_a_worker_that_never_begins_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`stops` puts the idle workers of its pool to sleep, so the next call would be handed to one that sleeps."""
    monkeypatch.setattr(hosts, "_LONGEST_START", 0.5)
    text = """
mode: process_pool
workers: 3
tasks:
  warm: {foreach: {range: 3}, target: "hostile:wait", args: [0.2]}
  stops: {needs: [warm], target: "hostile:pause_idle"}
  next: {needs: [stops], foreach: {range: 3}, target: "hostile:wait", args: [0.1]}
"""
    assert run(folder, text).ok


def test_a_torn_line_in_the_log_file_is_ended_before_the_next_run(folder: Path) -> None:
    (folder / "job.yaml").write_text("tasks: {a: {run: 'true'}}")
    (folder / "log").write_text('{"event": "task.fin')
    command = [sys.executable, "-m", "jobrunner", str(folder / "job.yaml"), "-q", "--log-file", str(folder / "log")]
    assert subprocess.run(command, check=False).returncode == 0
    torn, first, *_ = (folder / "log").read_text().splitlines()
    assert torn == '{"event": "task.fin'
    assert '"event":"run.started"' in first


def test_a_folder_that_cannot_be_read_is_no_obstacle() -> None:
    """As nobody, because root reads every folder."""

    def work(answer: Connection, closed: str) -> None:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        os.chdir(closed)
        os.chmod(closed, 0o311)
        reports: list[Report] = []
        commands, loop = Commands(pool="p", slots=1), Loop()
        commands.open(loop, reports.append)
        commands.start(Command(id=1, argv=("true",), env={"PATH": os.defpath}, cwd="/"))
        while not commands.closed:
            loop.turn()
        answer.send([report.outcome for report in reports if isinstance(report, Result)])

    with tempfile.TemporaryDirectory() as outer:  # pytest's own temporary folders are closed to others
        os.chmod(outer, 0o777)
        closed = os.path.join(outer, "closed")
        os.mkdir(closed)
        if os.geteuid() == 0:
            os.chown(closed, 65534, 65534)
        receive, send = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(target=work, args=(send, closed))
        child.start()
        send.close()
        assert receive.recv() == [Outcome.SUCCEEDED]
        child.join()
