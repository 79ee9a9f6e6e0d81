"""The reaper: nothing that an attempt or a host leaves behind survives it, and nobody else's processes are touched.

Whatever leaves strangers runs in a PID namespace of its own: what is alive there afterwards, `ps` tells.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobrunner.events import TaskLeftover
from tests.harness import run_job

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 60.0

DRIVER = """
import json, os, signal, sys, time
from jobrunner import system
from jobrunner.executors.commands import Commands
from jobrunner.executors.reaper import Reaper
from jobrunner.loop import Loop
from jobrunner.work import Began, Command, Leftover, Result, StopRule

job = json.loads(sys.argv[1])
inherits, run_id = job.get("inherits", True), "run-1"
if inherits:
    system.become_subreaper()
loop, inbox, told = Loop(), [], {"began": {}, "leftover": {}, "result": {}, "order": []}
reaper = Reaper(inherits=inherits, run_id=run_id)
reaper.open(loop, inbox.append)
commands = Commands(pool="p", slots=9, reaper=reaper)
commands.open(loop, inbox.append)

def start(number, script, **more):
    env = {**os.environ, "JOBRUNNER_RUN_ID": run_id, "JOBRUNNER_RUNS": run_id, "JOBRUNNER_OUTPUT": f"/nowhere/{number}"}
    argv = ("/bin/sh", "-c", script) if isinstance(script, str) else tuple(script)
    commands.start(Command(id=number, argv=argv, env=env, cwd=os.getcwd(), **more))

def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

def take():
    for report in inbox:
        match report:
            case Began(): told["began"][report.id] = time.monotonic()
            case Leftover(): told["leftover"][report.id] = [len(report.pids), report.killed, sum(map(alive, report.pids))]
            case Result():
                told["result"][report.id] = [str(report.outcome), report.signal, time.monotonic() - told["began"][report.id]]
                told["order"].append(report.id)
    inbox.clear()

def until(condition, patience=30):
    limit = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < limit, "it takes too long"
        loop.turn(time.monotonic() + 0.05)
        take()

exec(job["script"])
take()
told["last"] = len(reaper.close())
take()
commands.close()
told["descriptors"] = len(os.listdir("/proc/self/fd"))
try:
    told["child"] = os.waitpid(-1, os.WNOHANG)[0]
except ChildProcessError:
    told["child"] = None
print(json.dumps(told), flush=True)
"""
LEAK_CHECK = '"$@"; all=$(ps -e -o pid=,stat=,args=); printf "%s\\n" "$all" | grep -v "ps -e" >&2'


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a driver told, by attempt: `leftover` how many, killed, how many lived then; `result` outcome, signal, seconds."""

    leftover: dict[str, Any]
    result: dict[str, list[Any]]
    order: list[int]
    last: int
    child: int | None
    left: str


def drive(folder: Path, script: str, **job: Any) -> Told:
    """Run `script` in the driver, as the only program of a PID namespace; `left` is what ps shows afterwards."""
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    ended = subprocess.run(
        [
            *("unshare", *as_root, "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"),
            *("/bin/sh", "-c", LEAK_CHECK, "sh", sys.executable, "-c", DRIVER, json.dumps({"script": script, **job})),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ended.stdout, ended.stderr
    told = json.loads(ended.stdout)
    return Told(**{name: told[name] for name in ("leftover", "result", "order", "last", "child")}, left=ended.stderr)


def attempt(folder: Path, script: str, **job: Any) -> Told:
    return drive(folder, f'start(1, {script!r}); until(lambda: 1 in told["result"])', **job)


def write_script(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return f"{sys.executable} {name}"


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        if "silent" in sys.argv:
            null = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1, 2):
                os.dup2(null, fd)
        open("ready", "w").close()
        time.sleep(100)
    os._exit(0)
while not os.path.exists("ready"):
    time.sleep(0.01)
"""
TREE = """
import os, sys, time
def grow(depth):
    for _ in range(int(sys.argv[1]) if depth else 0):
        if os.fork() == 0:
            os.setsid()
            grow(depth - 1)
            os.write(ready, b"x")
            time.sleep(100)
            os._exit(0)
taken, ready = os.pipe()
grow(int(sys.argv[2]))
count = 0
while count < int(sys.argv[3]):
    count += len(os.read(taken, 1000))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Escape:
    """A way to get away from the process group; `count` is how many are left, `scripts` are files that it wants."""

    line: str
    count: int = 1


ESCAPES = {
    "in the background": Escape(line="sleep 100 &"),
    "in the background, silent": Escape(line="sleep 100 > /dev/null 2>&1 &"),
    "nohup": Escape(line="nohup sleep 100 > /dev/null 2>&1 &"),
    "a group of its own": Escape(line="set -m; sleep 100 > /dev/null 2>&1 &"),
    "setsid": Escape(line="setsid sleep 100 > /dev/null 2>&1 & sleep 0.1"),
    "setsid, holds the output": Escape(line="setsid sleep 100 & sleep 0.1"),
    "setsid, no environment": Escape(line="env -i setsid sleep 100 > /dev/null 2>&1 & sleep 0.1"),
    "setsid, ignores TERM": Escape(line="trap '' TERM HUP; setsid sleep 100 > /dev/null 2>&1 & sleep 0.1"),
    "double fork": Escape(line="{python} daemon.py"),
    "double fork, silent": Escape(line="{python} daemon.py silent"),
    "a supervisor that starts its child again": Escape(
        line="setsid sh -c 'while :; do sleep 100; done' > /dev/null 2>&1 & sleep 0.1", count=2
    ),
    "a tree of 258 sessions": Escape(line="{python} tree.py 6 3 258", count=258),
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_what_an_attempt_leaves_behind_is_named_and_gone_when_its_result_is_told(escape: str, tmp_path: Path) -> None:
    write_script(tmp_path, "daemon.py", DAEMON)
    write_script(tmp_path, "tree.py", TREE)
    told = attempt(tmp_path, ESCAPES[escape].line.replace("{python}", sys.executable))
    assert told.result["1"][0] == "succeeded"
    assert told.leftover == {"1": [ESCAPES[escape].count, True, 0]}
    assert (told.last, told.child, told.left) == (0, None, "")


@pytest.mark.parametrize("escape", sorted(ESCAPES))
def test_what_may_stay_stays_and_is_named(escape: str, tmp_path: Path) -> None:
    write_script(tmp_path, "daemon.py", DAEMON)
    write_script(tmp_path, "tree.py", TREE)
    line = ESCAPES[escape].line.replace("{python}", sys.executable)
    script = f"""
start(1, {line!r}, leftover_allowed=True)
until(lambda: 1 in told["result"])
start(2, ["true"])
until(lambda: 2 in told["result"])
"""
    told = drive(tmp_path, script)
    count = ESCAPES[escape].count
    assert told.leftover == {"1": [count, False, count]}
    assert (told.last, len(told.left.splitlines())) == (0, count)


@pytest.mark.parametrize("line", ["true", "sleep 0.01 & wait", "(sleep 0.01 &) ; sleep 0.1", "false | cat"])
def test_who_leaves_nothing_behind_is_told_nothing(line: str, tmp_path: Path) -> None:
    told = attempt(tmp_path, line)
    assert (told.leftover, told.last, told.child, told.left) == ({}, 0, None, "")


def test_the_orphan_of_an_attempt_that_still_runs_is_left_alone(tmp_path: Path) -> None:
    write_script(tmp_path, "daemon.py", DAEMON)
    script = f"""
start(1, "{sys.executable} daemon.py silent; until test -e go; do sleep 0.01; done")
until(lambda: os.path.exists("ready"))
for number in range(2, 30):
    start(number, ["true"])
    until(lambda: number in told["result"])
open("go", "w").close()
until(lambda: 1 in told["result"])
"""
    told = drive(tmp_path, script)
    assert told.leftover == {"1": [1, True, 0]}
    assert told.order[-1] == 1


def test_an_orphan_without_a_mark_is_not_laid_on_another_attempt_while_two_run(tmp_path: Path) -> None:
    script = """
start(1, "env -i setsid sh -c '(sleep 100 > /dev/null 2>&1 & echo > ready)'; until test -e go; do sleep 0.01; done")
until(lambda: os.path.exists("ready"))
start(2, ["true"])
until(lambda: 2 in told["result"])
open("go", "w").close()
until(lambda: 1 in told["result"])
"""
    told = drive(tmp_path, script)
    assert (told.leftover, told.left) == ({"1": [1, True, 0]}, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_the_stop_signal_reaches_who_has_escaped(number: int, tmp_path: Path) -> None:
    """The leader and its orphan in another session both write what they got, within the grace."""
    name = signal.Signals(number).name.removeprefix("SIG")
    trap = f"trap 'echo got >> WHO; exit' {name}; echo > WHO.ready; while :; do sleep 0.01; done"
    leader, orphan, child = (trap.replace("WHO", who) for who in ("leader", "orphan", "child"))
    (tmp_path / "orphan.sh").write_text(orphan, encoding="utf-8")
    (tmp_path / "child.sh").write_text(child, encoding="utf-8")
    line = f"(setsid sh orphan.sh > /dev/null 2>&1 &); setsid sh child.sh & {leader.replace('exit', 'sleep 0.3; exit')}"
    script = f"""
start(1, {line!r})
until(lambda: all(os.path.exists(f"{{who}}.ready") for who in ("leader", "orphan", "child")))
commands.stop(1, StopRule(signal={int(number)}, grace=20))
until(lambda: 1 in told["result"])
"""
    told = drive(tmp_path, script)
    assert [(tmp_path / who).read_text() for who in ("leader", "orphan", "child")] == ["got\n"] * 3
    assert (told.last, told.left) == (0, "")


@pytest.mark.parametrize("inherits", [True, False])
@pytest.mark.parametrize("escape", ["setsid", "double fork, silent", "a tree of 258 sessions"])
def test_who_ignores_the_signal_is_killed_after_the_grace_with_all_that_escaped(
    escape: str, inherits: bool, tmp_path: Path
) -> None:
    write_script(tmp_path, "daemon.py", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + DAEMON)
    write_script(tmp_path, "tree.py", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + TREE)
    line = f"trap '' TERM; {ESCAPES[escape].line.replace('{python}', sys.executable)}; touch all; while :; do sleep 1; done"
    script = f"""
start(1, {line!r})
until(lambda: os.path.exists("all"))
take()
told["began"][1] = time.monotonic()
commands.stop(1, StopRule(signal=signal.SIGTERM, grace=0.3))
until(lambda: 1 in told["result"])
"""
    told = drive(tmp_path, script, inherits=inherits)
    outcome, number, seconds = told.result["1"]
    left = [line for line in told.left.splitlines() if inherits or "[" not in line]  # ps: what has died, and init is to reap
    assert (outcome, number, told.child, left) == ("failed", signal.SIGKILL, None, [])
    assert 0.3 <= seconds < 10


def test_where_nothing_is_inherited_what_holds_the_output_or_the_cookie_is_ended(tmp_path: Path) -> None:
    write_script(tmp_path, "daemon.py", DAEMON)
    script = f"""
start(1, "{sys.executable} daemon.py")
until(lambda: 1 in told["result"])
os.unlink("ready")
start(2, "{sys.executable} daemon.py silent")
until(lambda: 2 in told["result"])
"""
    told = drive(tmp_path, script, inherits=False)
    assert told.leftover == {"1": [1, True, 0], "0": [1, True, 0]}
    assert (told.last, told.left) == (1, "")


def test_what_may_stay_stays_also_where_nothing_is_inherited(tmp_path: Path) -> None:
    write_script(tmp_path, "daemon.py", DAEMON)
    script = f'start(1, "{sys.executable} daemon.py silent", leftover_allowed=True); until(lambda: 1 in told["result"])'
    told = drive(tmp_path, script, inherits=False)
    assert told.leftover == {"1": [1, False, 1]}
    assert (told.last, len(told.left.splitlines())) == (0, 1)


def test_another_runs_processes_are_not_ours_though_their_attempt_has_the_same_number(tmp_path: Path) -> None:
    script = """
import subprocess
other = {**os.environ, "JOBRUNNER_RUN_ID": "run-2", "JOBRUNNER_RUNS": "run-2", "JOBRUNNER_OUTPUT": "/nowhere/1"}
stranger = subprocess.Popen(["sleep", "100"], env=other, start_new_session=True)
start(1, "sleep 100 &")
until(lambda: 1 in told["result"])
told["last"] = len(reaper.close())
assert stranger.poll() is None
stranger.kill()
stranger.wait()
reaper.open(loop, inbox.append)
"""
    told = drive(tmp_path, script, inherits=False)
    assert (told.leftover, told.left) == ({"1": [1, True, 0]}, "")


def test_orphans_that_end_by_themselves_are_reaped_while_an_attempt_runs(tmp_path: Path) -> None:
    """No attempt ends meanwhile: else they would pile up for as long as it takes."""
    script = """
from jobrunner.executors import reaper as module
module._TIDY = 0.05
reaper._tidy()
start(1, "for i in 1 2 3 4 5; do (true &); done; touch done; until test -e go; do sleep 0.01; done")
until(lambda: os.path.exists("done"))
until(lambda: len(reaper._all_children()) == 1)
open("go", "w").close()
until(lambda: 1 in told["result"])
"""
    assert drive(tmp_path, script).leftover == {}


@pytest.mark.parametrize("inherits", [True, False])
def test_kill_ends_everything_at_once_and_every_attempt_still_has_its_result(inherits: bool, tmp_path: Path) -> None:
    write_script(tmp_path, "daemon.py", DAEMON)
    script = f"""
start(1, "trap '' TERM; {sys.executable} daemon.py silent; touch all; sleep 100")
start(2, "sleep 100")
until(lambda: os.path.exists("all"))
commands.kill()
reaper.kill()
until(lambda: len(told["result"]) == 2)
"""
    told = drive(tmp_path, script, inherits=inherits)
    assert [told.result[number][:2] for number in ("1", "2")] == [["failed", signal.SIGKILL]] * 2
    assert (told.child, told.left) == (None, "")


def test_close_ends_and_reaps_also_what_was_started_and_never_waited_for(tmp_path: Path) -> None:
    told = drive(tmp_path, """start(1, "setsid sleep 100 & sleep 100"); start(2, "sleep 100")""")
    assert (told.child, told.left) == (None, "")


HOST = """
def host(work):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        work()
        os._exit(0)
    reaper.started(pid)
    return pid

def daemon(name):
    if os.fork() == 0:
        os.setsid()
        open(name, "w").close()
        time.sleep(100)
    while not os.path.exists(name):
        time.sleep(0.01)

def join(pid):
    os.waitpid(pid, 0)
    reaper.reaped(pid)
    ended = []
    reaper.end_orphans(None, ended.append)
    until(lambda: ended)
    return len(ended[0])
"""


def test_what_a_host_leaves_behind_is_ended_and_that_of_a_host_that_lives_is_not(tmp_path: Path) -> None:
    script = (
        HOST
        + """
first = host(lambda: (daemon("a"), time.sleep(100)))
second = host(lambda: (os.fork() or time.sleep(100), daemon("b")))
until(lambda: os.path.exists("a") and os.path.exists("b"))
os.kill(first, signal.SIGSTOP)
told["leftover"][2] = join(second)
os.kill(first, signal.SIGKILL)
told["leftover"][1] = join(first)
"""
    )
    told = drive(tmp_path, script)
    assert told.leftover == {"2": 2, "1": 1}
    assert (told.last, told.child, told.left) == (0, None, "")


def test_a_list_of_children_longer_than_a_page_is_read_whole(tmp_path: Path) -> None:
    script = """
for _ in range(1000):
    reaper.started(os.posix_spawn("/bin/sleep", ["sleep", "100"], {}))
assert set(reaper._all_children()) == set(reaper._known) and len(reaper._known) == 1000
for pid in reaper._known:
    os.kill(pid, signal.SIGKILL)
"""
    assert drive(tmp_path, script).left == ""


@pytest.mark.parametrize("free", [0, 1, 2])
def test_leftovers_are_ended_where_no_descriptor_is_free(free: int, tmp_path: Path) -> None:
    script = """
import resource
start(1, "(sleep 100 > /dev/null 2>&1 &); (setsid sleep 100 > /dev/null 2>&1 &); until test -e go; do sleep 0.01; done")
until(lambda: len(reaper._all_children()) == 3)
until(lambda: False not in [open(f"/proc/{pid}/comm").read() in ("sh\\n", "sleep\\n") for pid in reaper._all_children()])
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
open("go", "w").close()
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + FREE, limits[1]))
until(lambda: 1 in told["result"])
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
"""
    told = drive(tmp_path, script.replace("FREE", str(free)))
    assert (told.leftover["1"][:2], told.left) == ([2, True], "")


def test_children_that_our_parent_made_us_ignore_are_waited_for(tmp_path: Path) -> None:
    script = """
reaper.close()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
reaper.open(loop, inbox.append)
start(1, "exit 3")
until(lambda: 1 in told["result"])
reaper.close()
assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
reaper.open(loop, inbox.append)
"""
    assert drive(tmp_path, script).result["1"][0] == "failed"


def test_an_end_that_somebody_else_took_is_a_failure_and_never_a_success(tmp_path: Path) -> None:
    script = """
start(1, "exit 0")
os.waitpid(next(iter(reaper._known)), 0)
until(lambda: 1 in told["result"])
"""
    assert drive(tmp_path, script).result["1"][:2] == ["failed", None]


def test_of_four_hundred_attempts_that_leave_a_session_behind_none_survives(tmp_path: Path) -> None:
    script = """
for first in range(0, 400, 20):
    for number in range(first, first + 20):
        start(number, "setsid -f sleep 100 > /dev/null 2>&1" if number % 2 else "(setsid sleep 100 > /dev/null 2>&1 &)")
    until(lambda: len(told["result"]) == first + 20)
assert len(reaper._all_children()) == 0, reaper._all_children()
"""
    told = drive(tmp_path, script)
    assert (told.last, told.child, told.left) == (0, None, "")


def test_what_its_own_attempt_has_overlooked_the_next_one_ends(tmp_path: Path) -> None:
    """In the middle of an exec a process names nobody, and on a busy machine that may take longer than anybody looks."""
    script = """
from jobrunner.executors import reaper as module
start(1, "exec sleep 100")
until(lambda: 1 in told["began"])
owner_of, module.owner_of = module.owner_of, lambda pid, run_id: None
start(2, "setsid -f sleep 100 > /dev/null 2>&1")
until(lambda: 2 in told["result"])
assert len(reaper.strangers()) == 1, reaper.strangers()
module.owner_of = owner_of
start(3, "true")
until(lambda: 3 in told["result"])
assert not reaper.strangers(), reaper.strangers()
assert 1 not in told["result"]
"""
    assert drive(tmp_path, script).leftover == {"3": [1, True, 0]}


def test_a_run_in_this_process_ends_what_its_tasks_leave_behind(tmp_path: Path) -> None:
    write_script(tmp_path, "daemon.py", DAEMON)
    ran = run_job(tmp_path, {"tasks": {"task": {"run": f"{sys.executable} daemon.py; echo done"}}})
    assert ran.result.ok
    (leftover,) = ran.of(TaskLeftover)
    (pid,) = leftover.pids
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()
