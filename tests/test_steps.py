"""Commands of several steps: one attempt, which ends with the first step that fails, and says which one that was."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner.executors.steps import title
from jobrunner.processes import children
from jobrunner.work import Began, Outcome, Resources, Result, Said, StopRule
from tests.harness import open_descriptors
from tests.test_commands import Alone, fail, is_alive
from tests.test_reaper import drive

ROOT = Path(__file__).resolve().parent.parent
SOON = StopRule(signal=signal.SIGTERM, grace=20)
LONG = ("sleep", "100")


def sh(text: str) -> tuple[str, str, str]:
    return ("/bin/sh", "-ec", text)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    found = Alone(tmp_path)
    yield found
    found.close()


def run(alone: Alone, *steps: tuple[str, ...], **more: Any) -> Result:
    """Run `steps` to their end: one attempt, which began once."""
    alone.start(*steps[0], then=steps[1:], **more)
    return ended(alone)


def ended(alone: Alone) -> Result:
    alone.wait()
    (result,) = [each for each in alone.inbox if isinstance(each, Result)]
    assert sum(isinstance(each, Began) for each in alone.inbox) == 1
    assert alone.inbox[-1] is result
    return result


def said(alone: Alone) -> str:
    return b"".join(each.data for each in alone.inbox if isinstance(each, Said)).decode()


def message(result: Result) -> str:
    assert result.error is not None
    return result.error.message


def until(alone: Alone, path: Path) -> None:
    """Let the loop turn until a step has made this file."""
    limit = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < limit, f"no {path.name}"
        alone.loop.turn(time.monotonic() + 0.01)


# --- How it ends ---------------------------------------------------------------------------------------------------------------


def test_the_steps_run_one_after_the_other_in_one_attempt(alone: Alone) -> None:
    result = run(alone, sh("sleep 0.1; echo one"), ("echo", "two"), sh("echo three"))
    assert (result.outcome, result.exit_code, result.signal, result.error) == (Outcome.SUCCEEDED, 0, None, None)
    assert said(alone) == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("steps", "code", "number", "words", "output"),
    [
        ([("echo", "a"), ("false",), ("echo", "b")], 1, None, "step 2 of 3 (false) exited with 1", "a\n"),
        ([("false",), ("echo", "b")], 1, None, "step 1 of 2 (false) exited with 1", ""),
        ([("echo", "a"), sh("exit 3")], 3, None, "step 2 of 2 (exit 3) exited with 3", "a\n"),
        ([("true",), sh("kill -SEGV $$"), ("true",)], None, 11, "step 2 of 3 (kill -SEGV $$) was killed by SIGSEGV", ""),
        ([sh("kill -KILL $$"), ("true",)], None, 9, "step 1 of 2 (kill -KILL $$) was killed by SIGKILL", ""),
        (
            [("echo", "a"), ("no-such-command", "x"), ("echo", "b")],
            127,
            None,
            "step 2 of 3 (no-such-command x) could not start: no such command: no-such-command",
            "a\n",
        ),
        ([("nope",), ("true",)], 127, None, "step 1 of 2 (nope) could not start: no such command: nope", ""),
        ([("true",), ("/",)], 126, None, "step 2 of 2 (/) could not start: / is a directory", ""),
        ([("true",), ("true", "a\0b")], 126, None, None, ""),
    ],
)
def test_the_first_step_that_fails_ends_it_and_is_named(
    steps: list[tuple[str, ...]], code: int | None, number: int | None, words: str | None, output: str, alone: Alone
) -> None:
    result = run(alone, *steps)
    assert (result.outcome, result.exit_code, result.signal) == (Outcome.FAILED, code, number)
    assert words in (message(result), None)
    assert said(alone) == output


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("make", "test"), "make test"),
        (("grep", "a b", "x"), "grep 'a b' x"),
        (sh("make test && echo done"), "make test && echo done"),
        (sh("\n  # all of it\nmake\n"), "# all of it"),
        (("/bin/sh", "-c", "true"), "/bin/sh -c true"),
        (("x" * 60,), "x" * 60),
        (("x" * 61,), "x" * 59 + "…"),
        (sh(""), ""),
    ],
)
def test_a_step_is_called_by_its_first_line_at_most_sixty_characters_of_it(argv: tuple[str, ...], expected: str) -> None:
    assert title(argv) == expected


def test_a_step_whose_end_somebody_else_has_taken_is_not_followed_by_the_next(alone: Alone) -> None:
    alone.start("true", then=(("touch", "next"),))
    assert os.waitpid(children()[0], 0)[1] == 0
    result = ended(alone)
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, None)
    assert message(result).startswith("how it ended is not known")
    assert not (alone.folder / "next").exists()


def test_for_want_of_memory_the_step_is_named_and_what_another_said_is_not_believed(alone: Alone) -> None:
    limit = Resources(memory=256 << 20)
    hungry = (sys.executable, "-c", "b'x' * (1 << 30)")
    result = run(alone, ("echo", "out of memory"), hungry, ("true",), resources=limit)
    assert message(result).startswith("step 2 of 3 (")
    assert "): out of memory (limit 256 MiB" in message(result)
    alone.inbox.clear()
    assert message(run(alone, ("echo", "out of memory"), ("false",), resources=limit)) == "step 2 of 2 (false) exited with 1"


# --- What it has used, and said ------------------------------------------------------------------------------------------------


_BURN = "import time\nwhile time.process_time() < 0.2: pass"


def test_cpu_is_that_of_all_steps_and_memory_that_of_the_hungriest(alone: Alone) -> None:
    most = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) + (
        200 << 20
    )  # below the peak of who forks it none is known
    big = (sys.executable, "-c", f"b'x' * {most}")
    burn = (sys.executable, "-c", _BURN)
    result = run(alone, burn, big, burn, ("true",))
    assert result.cpu is not None
    assert result.max_rss is not None
    assert 0.4 <= result.cpu <= result.duration + 0.1
    assert most <= result.max_rss < most + (400 << 20)


def test_standard_output_is_that_of_all_steps(alone: Alone) -> None:
    assert run(alone, ("echo", "one"), sh("echo no >&2"), ("echo", "two"), stdout_needed=True).stdout == b"one\ntwo\n"


def test_all_steps_write_values_to_the_same_file(alone: Alone, tmp_path: Path) -> None:
    file = tmp_path / "7"
    steps = [sh(f"echo {line} >> {file}") for line in ("a=1", "b=2", "a=3")]
    assert run(alone, *steps, output_file=str(file)).outputs == {"a": "3", "b": "2"}


@pytest.mark.parametrize("split", [False, True])
def test_a_step_that_closes_its_output_does_not_close_that_of_the_next(split: bool, alone: Alone) -> None:
    steps = [sh("exec >&- 2>&-; sleep 0.05"), ("echo", "still"), sh("exec >&- 2>&-"), ("echo", "here")]
    assert run(alone, *steps, stdout_needed=split).outcome is Outcome.SUCCEEDED
    assert said(alone) == "still\nhere\n"


_FLOODED = """
import resource, sys
from pathlib import Path
from tests.test_commands import Alone
from jobrunner.work import Result, Said

size = 0
def count(report):
    global size
    if isinstance(report, Said):
        size += len(report.data)
    else:
        alone.inbox.append(report)
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
alone = Alone(Path("/"))
alone.commands.report = count
before = peak()
alone.start("head", "-c", "60M", "/dev/zero", then=(("true",), ("head", "-c", "40M", "/dev/zero")), stdout_needed=True)
alone.wait()
result = alone.inbox[-1]
assert isinstance(result, Result) and result.exit_code == 0 and len(result.stdout) == 64 << 10, result
assert size == 100 << 20, size
assert peak() - before < 20 << 10, peak() - before
"""


def test_a_hundred_megabytes_over_two_steps_are_passed_on_and_not_kept() -> None:
    subprocess.run([sys.executable, "-c", _FLOODED], cwd=ROOT, check=True, timeout=60)


def test_a_thousand_steps_are_run_and_leave_nothing_open(alone: Alone) -> None:
    before = open_descriptors()
    result = run(alone, *[("true",)] * 999, ("echo", "end"))
    assert (result.exit_code, said(alone)) == (0, "end\n")
    assert (open_descriptors(), children()) == (before, [])


# --- When it is stopped --------------------------------------------------------------------------------------------------------


def test_a_stop_in_a_later_step_ends_that_and_starts_no_other(alone: Alone, tmp_path: Path) -> None:
    alone.start("true", then=(sh("touch here; sleep 100; true"), ("touch", "next")))
    until(alone, tmp_path / "here")
    alone.commands.stop(1, SOON)
    result = ended(alone)
    assert (result.outcome, result.signal) == (Outcome.FAILED, signal.SIGTERM)
    assert message(result) == "step 2 of 3 (touch here; sleep 100; true) was killed by SIGTERM"
    assert not (tmp_path / "next").exists()


@pytest.mark.parametrize("at_once", [False, True])
def test_a_stop_between_two_steps_starts_no_other_and_is_no_success(at_once: bool, alone: Alone, tmp_path: Path) -> None:
    alone.start("true", then=(("touch", "next"),))
    os.waitid(os.P_PID, children()[0], os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has seen it
    if at_once:
        alone.commands.kill()
    else:
        alone.commands.stop(1, SOON)
    result = ended(alone)
    assert (result.outcome, result.exit_code, message(result)) == (Outcome.FAILED, None, "stopped after step 1 of 2 (true)")
    assert not (tmp_path / "next").exists()


def test_a_step_that_takes_the_signal_and_succeeds_is_the_last_one(alone: Alone, tmp_path: Path) -> None:
    alone.start(*sh("trap 'exit 0' TERM; touch here; while :; do sleep 0.01; done"), then=(("touch", "next"),))
    until(alone, tmp_path / "here")
    alone.commands.stop(1, SOON)
    assert (ended(alone).outcome, (tmp_path / "next").exists()) == (Outcome.FAILED, False)


def test_a_step_that_ignores_the_signal_is_killed_after_the_grace(alone: Alone, tmp_path: Path) -> None:
    alone.start("true", then=(sh("trap '' TERM; touch here; sleep 100"), ("touch", "next")))
    until(alone, tmp_path / "here")
    alone.commands.stop(1, StopRule(signal=signal.SIGTERM, grace=0.1))
    assert (ended(alone).signal, (tmp_path / "next").exists()) == (signal.SIGKILL, False)


def test_a_step_that_is_killed_from_outside_is_named(alone: Alone, tmp_path: Path) -> None:
    alone.start("true", then=(sh("touch here; exec sleep 100"), ("touch", "next")))
    until(alone, tmp_path / "here")
    os.kill(children()[-1], signal.SIGKILL)
    assert message(ended(alone)) == "step 2 of 3 (touch here; exec sleep 100) was killed by SIGKILL"
    assert not (tmp_path / "next").exists()


# --- Where the system has no room ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["posix_spawn", "pidfd_open", "dup"])
def test_a_later_step_that_the_system_has_no_room_for_fails_the_attempt(
    name: str, code: int, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail(code, at=2)(getattr(os, name)))
        result = run(alone, ("true",), LONG, ("true",), stdout_needed=True)
    assert (result.outcome, result.exit_code) == (Outcome.FAILED, 126)
    assert message(result) == f"step 2 of 3 (sleep 100) could not start: sleep: {os.strerror(code)}"
    assert (open_descriptors(), children()) == (before, [])
    assert not alone.loop.watched


# --- What a step leaves behind -------------------------------------------------------------------------------------------------


def alive(file: Path) -> bool:
    return is_alive(Path("/proc", file.read_text().strip(), "cmdline"))


def gone(file: Path) -> bool:
    """Whether the process whose pid is in `file` has ended, or does so within seconds: it was killed, and may not know yet."""
    limit = time.monotonic() + 10
    while (lives := alive(file)) and time.monotonic() < limit:
        time.sleep(0.01)
    return not lives


SERVER = sh("sleep 100 >/dev/null 2>&1 & echo $! > server")
USE = sh("kill -0 $(cat server)")


@pytest.mark.parametrize("last", [("true",), ("false",), ("nope",)])
def test_what_a_step_leaves_behind_lives_until_the_attempt_ends(last: tuple[str, ...], alone: Alone, tmp_path: Path) -> None:
    result = run(alone, SERVER, ("true",), USE, last)
    assert message(result).startswith("step 4 of 4") if result.error else last == ("true",)
    assert gone(tmp_path / "server")


def test_what_a_step_leaves_behind_may_stay_where_that_is_allowed(alone: Alone, tmp_path: Path) -> None:
    assert run(alone, SERVER, USE, leftover_allowed=True).outcome is Outcome.SUCCEEDED
    assert alive(tmp_path / "server")
    os.kill(int((tmp_path / "server").read_text()), signal.SIGKILL)


def test_a_stop_reaches_what_an_earlier_step_has_left_behind(alone: Alone, tmp_path: Path) -> None:
    server = sh("(trap 'touch told; exit' TERM; touch up; while :; do sleep 0.01; done) >/dev/null 2>&1 & echo $! > server")
    waits = "trap 'while [ ! -e told ]; do sleep 0.01; done; exit 3' TERM; touch here; sleep 100 & wait"
    alone.start(*server, then=(sh(waits),))
    until(alone, tmp_path / "up")
    until(alone, tmp_path / "here")
    alone.commands.stop(1, SOON)
    assert ended(alone).exit_code == 3
    assert (tmp_path / "told").exists()


_GONE = '; until(lambda: 1 in told["result"])'


@pytest.mark.parametrize("inherits", [True, False])
@pytest.mark.parametrize("background", ["sleep 100", "setsid sleep 100", "env -i sleep 100", "nohup sleep 100"])
def test_nothing_of_forty_steps_survives_them(background: str, inherits: bool, tmp_path: Path) -> None:
    leave = f"{background} >/dev/null 2>&1 &"
    steps = f"then=(('/bin/sh', '-c', {leave!r}),) * 39"
    told = drive(tmp_path, f"start(1, {leave!r}, {steps})" + _GONE, inherits=inherits, quiet=False)
    assert told.result["1"][0] == "succeeded"
    if inherits:
        assert (told.leftover, told.left) == ({"1": [40, True, 0]}, "")
    else:
        assert told.left.count("sleep 100") == 0


def test_a_server_without_our_environment_outlives_the_end_of_another_attempt_but_not_that_of_its_own(tmp_path: Path) -> None:
    told = drive(
        tmp_path,
        """
server = "env -i sleep 100 >/dev/null 2>&1 & echo $! > server"
ask = "until [ -e other ]; do sleep 0.01; done; kill -0 $(cat server)"
start(1, server, then=(("/bin/sh", "-c", ask),))
until(lambda: os.path.exists("server"))
start(2, "true")
until(lambda: 2 in told["result"])
start(3, "true")
until(lambda: 3 in told["result"])
open("other", "w").close()
until(lambda: 1 in told["result"])
""",
    )
    assert {number: result[0] for number, result in told.result.items()} == dict.fromkeys("123", "succeeded")
    assert (told.leftover, told.left) == ({"1": [1, True, 0]}, "")


def test_a_thousand_steps_beside_a_server_keep_no_zombies(tmp_path: Path) -> None:
    count = "ps -e -o stat= | grep -c Z > zombies; true"
    told = drive(
        tmp_path,
        f"start(1, 'sleep 100 >/dev/null 2>&1 &', then=(('true',),) * 1000 + (('/bin/sh', '-c', {count!r}),))" + _GONE,
    )
    assert (told.result["1"][0], told.leftover, told.left) == ("succeeded", {"1": [1, True, 0]}, "")
    assert (tmp_path / "zombies").read_text() == "1\n"  # the one that leads the server
