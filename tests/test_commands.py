"""Commands: how they are started, what they find, how they end, and what is kept of what they say."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobrunner.bind import needs_shell
from jobrunner.events import TaskFinished, TaskOutput
from jobrunner.executors.commands import Commands
from jobrunner.executors.reaper import Reaper
from jobrunner.loop import Loop
from jobrunner.processes import children
from jobrunner.work import Command, Exhausted, Report, Result
from tests.commandpools import WAYS, each_way
from tests.harness import Ran, open_descriptors, run_job

ROOT = Path(__file__).resolve().parent.parent

way = pytest.fixture(params=WAYS)(each_way)
pytestmark = pytest.mark.usefixtures("way")


def script(path: Path, text: str, mode: int = 0o755) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def run_one(folder: Path, **task: Any) -> Ran:
    return run_job(folder, {"tasks": {"task": task}})


def said(folder: Path, **task: Any) -> str:
    """All that one command wrote; it must have succeeded."""
    ran = run_one(folder, **task)
    assert ran.result.ok, ran.only("task")
    return ran.output("task")


# --- With or without a shell ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "shell"),
    [
        ("tar -czf out.tgz src", False),
        ("python3 -m pkg.mod --flag=a,b@c:d/e%f+g", False),
        ("./run", False),
        ("echo $HOME", True),
        ("echo `id`", True),
        ("a | b", True),
        ("a && b", True),
        ("a; b", True),
        ("a > b", True),
        ("a < b", True),
        ("(a)", True),
        ("ls *.csv", True),
        ("ls file?", True),
        ("ls [ab]", True),
        ("ls ~", True),
        ("ls ~/x", True),
        ("echo 'a b'", True),
        ('echo "a b"', True),
        ("echo a\\ b", True),
        ("echo {a,b}", True),
        ("! true", True),
        ("a\nb", True),
        ("A=1 b", True),
        ("cd /", True),
        ("exit 3", True),
        ("export A", True),
        (". ./env", True),
        ("a # b", True),
        ("sleep 1 &", True),
    ],
)
def test_a_line_needs_a_shell_only_where_it_holds_syntax_of_one(line: str, shell: bool) -> None:
    assert needs_shell([line]) is shell


def test_a_plain_line_runs_without_a_shell_and_one_with_syntax_in_sh(tmp_path: Path) -> None:
    script(tmp_path / "parent", "#!/bin/sh\nps -o comm= -p $PPID\n")
    assert said(tmp_path, run="./parent a").strip() != "sh"
    assert said(tmp_path, run="./parent 'a'; true").strip() == "sh"


VALUES = ("a b", "$(id)", "`id`", "'; rm -rf x", '"', "\\", "*", "-n", "", "a\nb", "é ☃")


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("line", ["printf %s {}", "printf %s {} | cat", "printf '%s' {}"])
def test_a_value_in_a_line_stays_one_word_whatever_it_holds(line: str, value: str, tmp_path: Path) -> None:
    ran = run_job(tmp_path, {"params": {"v": value}, "tasks": {"task": {"run": line.format("${{ params.v }}")}}})
    assert (ran.result.ok, ran.output("task")) == (True, value)


@pytest.mark.parametrize("value", VALUES)
def test_a_word_of_argv_arrives_as_it_is(value: str, tmp_path: Path) -> None:
    assert said(tmp_path, argv=["printf", "%s", value]) == value


def test_a_line_of_several_commands_stops_at_the_first_that_fails(tmp_path: Path) -> None:
    ran = run_one(tmp_path, run="echo one\nfalse\necho two")
    assert (ran.only("task").outcome, ran.output("task")) == ("failed", "one\n")


# --- How it ends ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "signal_name", "message"),
    [
        ("exit 1", 1, None, "exit 1"),
        ("exit 255", 255, None, "exit 255"),
        ("exit 139", 139, None, "exit 139"),
        ("kill -SEGV $$", None, "SIGSEGV", "killed by SIGSEGV"),
        ("kill -KILL $$", None, "SIGKILL", "killed by SIGKILL"),
        ("kill -34 $$", None, "SIGRTMIN", "killed by SIGRTMIN"),
    ],
)
def test_an_end_is_told_as_it_was(line: str, code: int | None, signal_name: str | None, message: str, tmp_path: Path) -> None:
    ended = run_one(tmp_path, run=line).only("task")
    assert ended.error is not None
    assert (ended.outcome, ended.exit_code, ended.signal, ended.error["message"]) == ("failed", code, signal_name, message)


@pytest.mark.parametrize(
    ("task", "code", "message"),
    [
        ({"argv": ["no-such-command"]}, 127, "no such command: no-such-command"),
        ({"argv": ["./no-such-file"]}, 127, "no such command: ./no-such-file"),
        ({"argv": ["./plain"]}, 126, "./plain is not executable: chmod +x ./plain"),
        ({"argv": ["./sub"]}, 126, "./sub is a directory"),
        ({"argv": ["./misled"]}, 126, "./misled asks for the interpreter /no/such/interpreter, which does not exist"),
        ({"argv": ["true"], "cwd": "missing"}, 126, "no such directory: {folder}/missing"),
        ({"argv": ["true"], "cwd": "plain"}, 126, "no such directory: {folder}/plain"),
        ({"argv": ["true", "x" * 200_000]}, 126, "true: Argument list too long"),
    ],
)
def test_a_command_that_cannot_be_started_says_why(task: dict[str, Any], code: int, message: str, tmp_path: Path) -> None:
    script(tmp_path / "plain", "true", mode=0o644)
    script(tmp_path / "misled", "#!/no/such/interpreter\n")
    (tmp_path / "sub").mkdir()
    ended = run_job(tmp_path, {"params": {"nul": "a\0b"}, "tasks": {"task": task}}).only("task")
    assert (ended.outcome, ended.exit_code) == ("failed", code)
    assert (ended.error or {})["message"].startswith("could not start: " + message.format(folder=tmp_path))


@pytest.mark.parametrize(
    "task",
    [
        {"argv": ["printf", "${{ params.nul }}"]},
        {"argv": ["true"], "env": {"A": "${{ params.nul }}"}},
        {"target": "tests.targets.contract:folder", "mode": "process", "env": {"A": "${{ params.nul }}"}},
        {"target": "tests.targets.contract:folder", "mode": "process_pool", "cwd": "${{ params.nul }}"},
    ],
)
def test_a_value_that_no_command_line_or_environment_can_hold_is_a_failure(task: dict[str, Any], tmp_path: Path) -> None:
    ended = run_job(tmp_path, {"params": {"nul": "a\0b"}, "tasks": {"task": task}}).only("task")
    assert ended.outcome == "failed"
    assert ended.error is not None


def test_a_script_without_a_first_line_runs_in_sh(tmp_path: Path) -> None:
    script(tmp_path / "bare", 'echo "bare $1"\n')
    assert said(tmp_path, argv=["./bare", "x y"]) == "bare x y\n"


def test_a_file_in_the_folder_of_a_command_is_not_found_by_its_bare_name(tmp_path: Path) -> None:
    script(tmp_path / "tool", "#!/bin/sh\necho mine\n")
    assert run_one(tmp_path, argv=["tool"]).only("task").exit_code == 127


def test_a_command_that_appears_later_is_found_by_the_retry(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    maker = {"run": f"printf '#!/bin/sh\\necho found\\n' > {tmp_path}/bin/tool; chmod +x {tmp_path}/bin/tool", "needs": ["early"]}
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    early = {"run": "tool", "env": env, "continue_on_error": True}
    ran = run_job(tmp_path, {"tasks": {"early": early, "maker": maker, "late": {"run": "tool", "env": env, "needs": ["maker"]}}})
    assert (ran.only("early").exit_code, ran.output("late")) == (127, "found\n")


# --- What it finds -------------------------------------------------------------------------------------------------------------


def test_it_leads_a_session_and_a_group_of_its_own(tmp_path: Path) -> None:
    group, session, leader = said(tmp_path, run="ps -o pgid=,sid=,pid= -p $$").split()
    assert group == session == leader != str(os.getsid(0))


def test_it_reads_nothing(tmp_path: Path) -> None:
    assert said(tmp_path, run="readlink /proc/self/fd/0; cat") == "/dev/null\n"


def test_it_has_no_controlling_terminal(tmp_path: Path) -> None:
    assert run_one(tmp_path, run="exec < /dev/tty").only("task").outcome == "failed"


def test_it_inherits_no_descriptors_of_ours(tmp_path: Path) -> None:
    """By the command line, started without any but the standard three: those that we are given are passed on, as a shell does."""
    (tmp_path / "job.yaml").write_text(json.dumps({"tasks": {"task": {"argv": ["ls", "/proc/self/fd"]}}}), encoding="utf-8")
    command = [sys.executable, "-m", "jobrunner", "run", str(tmp_path / "job.yaml")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    listed = [line.rpartition("| ")[2] for line in ended.stdout.splitlines() if line.startswith("task | ")]
    assert listed == ["0", "1", "2", "3"]  # 3 is what ls itself reads


_DISTURBED = """
import json, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGINT, signal.SIGHUP})
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "jobrunner", "run", *sys.argv[1:]])
"""
_OF_LIBC = 0b11 << 31
"""Signals 32 and 33 are glibc's own; its posix_spawn leaves them ignored (sysdeps/unix/sysv/linux/spawni.c)."""
_SIGNALS = "grep -E ^Sig(Ign|Blk) /proc/self/status"


@pytest.mark.parametrize(
    "task",
    [
        {"argv": _SIGNALS.split()},
        {"run": "grep -E '^Sig(Ign|Blk)' /proc/self/status"},
    ],
)
def test_it_starts_with_no_signal_ignored_or_blocked_however_we_were_started(task: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(json.dumps({"tasks": {"task": task}}), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-c", _DISTURBED, str(tmp_path / "job.yaml")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    masks = [line.rpartition("\t")[2] for line in ended.stdout.splitlines() if "| Sig" in line]
    assert [int(mask, 16) & ~_OF_LIBC for mask in masks] == [0, 0]


def test_its_environment_is_as_written(tmp_path: Path) -> None:
    script(tmp_path / "show", '#!/bin/sh\nprintf "%s|" "$A" "$B" "$C" "$JOBRUNNER_TASK" "$JOBRUNNER_ATTEMPT"\n')
    task = {"argv": ["./show"], "env": {"B": "task", "C": "${{ params.c }}"}}
    ran = run_job(tmp_path, {"params": {"c": "x y"}, "env": {"A": "1.10", "B": "job"}, "tasks": {"task": task}})
    assert ran.output("task") == "1.10|task|x y|task|1|"


def test_a_command_is_looked_up_on_the_path_that_it_gets(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "ls", "#!/bin/sh\necho mine\n")
    assert said(tmp_path, argv=["ls"], env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}) == "mine\n"


@pytest.mark.parametrize(("cwd", "expected"), [(None, ""), ("sub", "/sub"), ("sub/../sub/.", "/sub")])
def test_it_runs_in_its_folder_which_counts_from_the_job_file(cwd: str | None, expected: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert said(tmp_path, argv=["pwd"], **({"cwd": cwd} if cwd else {})) == f"{tmp_path}{expected}\n"


# --- What it says --------------------------------------------------------------------------------------------------------------


def test_both_streams_keep_their_order(tmp_path: Path) -> None:
    assert said(tmp_path, run="for i in 1 2 3; do echo out $i; echo err $i >&2; done") == "".join(
        f"out {i}\nerr {i}\n" for i in (1, 2, 3)
    )


def user(of: str) -> dict[str, Any]:
    return {"argv": ["printf", "[%s]", "${{ " + of + " }}"], "needs": ["task"]}


def test_the_end_of_standard_output_is_kept_for_expressions_and_standard_error_is_not(tmp_path: Path) -> None:
    tasks = {"task": {"run": "echo noise >&2; echo value"}, "user": user("tasks.task.stdout")}
    ran = run_job(tmp_path, {"tasks": tasks})
    assert ran.output("user") == "[value]"
    assert sorted(ran.output("task").split()) == ["noise", "value"]


def test_of_long_standard_output_the_last_64_kib_are_kept(tmp_path: Path) -> None:
    tasks = {"task": {"run": "seq 1 30000"}, "user": user("len(tasks.task.stdout)")}
    assert run_job(tmp_path, {"tasks": tasks}).output("user") == f"[{(64 << 10) - 1}]"  # less its last line end


def test_lines_of_its_output_file_are_values(tmp_path: Path) -> None:
    line = "printf 'a=1\\n b =x=y\\nno value\\na=2\\n=nameless\\n' > \"$JOBRUNNER_OUTPUT\""
    tasks = {"task": {"run": line}, "user": user("tasks.task.outputs.a"), "other": user("tasks.task.outputs.b")}
    ran = run_job(tmp_path, {"tasks": tasks})
    assert (ran.output("user"), ran.output("other")) == ("[2]", "[x=y]")


@pytest.mark.parametrize("made", ["mkdir", "mkfifo", "ln -s /dev/zero"])
def test_an_output_file_that_is_none_gives_no_values(made: str, tmp_path: Path) -> None:
    ran = run_job(tmp_path, {"tasks": {"task": {"run": f'{made} "$JOBRUNNER_OUTPUT"'}, "user": user("len(tasks.task.outputs)")}})
    assert ran.output("user") == "[0]"


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a\0b", b"\x1b[31mred", b"x" * (1 << 20), b"no line end", b"\r\n\r"])
def test_what_it_writes_is_kept_byte_for_byte(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(data)
    ran = run_one(tmp_path, argv=["cat", "data"])
    assert b"".join(event.data for event in ran.of(TaskOutput)) == data


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a\0b", b"\x1b]0;title\x07", b"x" * (1 << 20)])
def test_the_last_lines_of_a_failure_are_valid_text(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(data)
    ended = run_one(tmp_path, run="cat data; exit 1").only("task")
    assert json.loads(json.dumps(ended.output).encode())
    assert len(ended.output or "") <= 4096


# --- What it costs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["true"], ["no-such-command"]])
def test_three_hundred_commands_leave_no_descriptor_open(argv: Sequence[str], tmp_path: Path) -> None:
    job = {"workers": 4, "tasks": {"task": {"argv": list(argv), "foreach": {"range": 300}}}}
    run_one(tmp_path, argv=["true"])
    before = open_descriptors()
    ran = run_job(tmp_path, job)
    assert len(ran.of(TaskFinished)) == 300
    assert open_descriptors() == before


class Alone:
    """Commands and their loop, without an engine; what they reported is in `inbox`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.loop, self.inbox = folder, Loop(), list[Report]()
        self.reaper = Reaper(inherits=False)
        self.reaper.open(self.loop, self.inbox.append)
        self.commands = Commands(pool="p", slots=9, reaper=self.reaper)
        self.commands.open(self.loop, self.inbox.append)

    def start(self, *argv: str, number: int = 1, **more: Any) -> None:
        self.commands.start(Command(id=number, argv=argv, env=dict(os.environ), cwd=str(self.folder), **more))

    def wait(self) -> None:
        while not self.commands.closed:
            self.loop.turn()

    def close(self) -> None:
        self.commands.close()
        self.reaper.close()
        self.loop.close()


def fail(code: int, *, at: int = 1) -> Callable[..., Any]:
    """A call that is answered with an error, the `at`-th time and from then on."""
    calls = itertools.count(1)

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*args: Any, **named: Any) -> Any:
            if next(calls) >= at:
                raise OSError(code, os.strerror(code))
            return call(*args, **named)

        return failing

    return wrap


NO_ROOM = [errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM]
PLACES: dict[str, tuple[Any, str, int]] = {
    "the first pipe": (os, "pipe", 1),
    "the second pipe": (os, "pipe", 2),
    "watching the first pipe": (Loop, "watch", 1),
    "watching the second pipe": (Loop, "watch", 2),
    "the start itself": (os, "posix_spawn", 1),
    "holding it": (os, "pidfd_open", 1),
    "watching it": (Loop, "watch", 3),
}


@pytest.mark.parametrize("code", NO_ROOM, ids=errno.errorcode.get)
@pytest.mark.parametrize("place", PLACES)
def test_where_the_system_has_no_room_the_command_is_given_back_and_nothing_of_it_stays(
    place: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Alone(tmp_path)
    before = open_descriptors()
    owner, name, at = PLACES[place]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail(code, at=at)(getattr(owner, name)))
        alone.start("sleep", "100", stdout_needed=True)
    assert alone.inbox == [Exhausted(id=1, reason=os.strerror(code))]
    assert (open_descriptors(), alone.commands.closed) == (before, True)
    assert not alone.loop.watched
    assert not [pid for pid in children() if "sleep" in Path(f"/proc/{pid}/comm").read_text()]
    alone.start("true")
    alone.wait()
    alone.close()
    assert isinstance(alone.inbox[-1], Result)
    assert alone.inbox[-1].exit_code == 0


_STARVED = """
import os, resource, sys
from pathlib import Path
from tests.test_commands import Alone
from jobrunner.work import Began, Exhausted, Result

alone = Alone(Path("/"))
alone.start("true")
alone.wait()
before = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (before - 1 + 6, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for number in range(2, 10_002):
    alone.start("true", number=number, stdout_needed=number % 3 == 0)
    if number % 50 == 0:
        alone.wait()
alone.wait()
kinds = {kind.__name__: sum(isinstance(each, kind) for each in alone.inbox) for kind in (Began, Exhausted, Result)}
assert len(os.listdir("/proc/self/fd")) == before
assert kinds["Exhausted"] >= 9000 and kinds["Began"] == kinds["Result"] >= 100, kinds
assert kinds["Exhausted"] + kinds["Result"] == 10_001, kinds
assert {each.reason for each in alone.inbox if isinstance(each, Exhausted)} == {"Too many open files"}
assert all(each.exit_code == 0 for each in alone.inbox if isinstance(each, Result))
"""


def test_ten_thousand_starts_with_hardly_a_descriptor_free_leave_none_open_and_fail_none() -> None:
    subprocess.run([sys.executable, "-c", _STARVED], cwd=ROOT, check=True, timeout=60)


_FLOODED = """
import json, resource, sys
from pathlib import Path
from jobrunner import api

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

def run(line):
    file = Path(sys.argv[1], "job.yaml")
    file.write_text(json.dumps({"tasks": {"task": {"run": line}}}))
    return api.run(file)

run("head -c 1000000 /dev/zero")
before = peak()
result = run(sys.argv[2])
assert result.ok, result
print(peak() - before)
"""


@pytest.mark.parametrize(
    "flood", ["head -c 200M /dev/zero", "yes '' | head -c 100M", "yes | head -c 200M; sleep 0.1; yes | head -c 1M >&2"]
)
def test_a_flood_of_output_blocks_nothing_and_costs_no_memory(flood: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _FLOODED, str(tmp_path), flood], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert int(ended.stdout) < 50 << 10


def test_a_signal_that_stops_a_command_reaches_its_children(tmp_path: Path) -> None:
    line = "sleep 100 & echo $! > child; wait"
    ran = run_one(tmp_path, run=line, timeout=0.5, stop={"signal": "INT", "grace": 0.2})
    assert ran.only("task").outcome == "timed_out"
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "cmdline")
    until = time.monotonic() + 10
    while (lives := is_alive(child)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not lives


def is_alive(command_line: Path) -> bool:
    """A zombie has no command line."""
    try:
        return command_line.read_bytes() != b""
    except OSError:
        return False
