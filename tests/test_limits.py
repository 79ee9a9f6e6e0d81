"""Limits of commands: what is taken on before the program runs, what it bounds, and how an end for want of memory is told."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from jobrunner.executors import limits
from jobrunner.executors.commands import Commands
from jobrunner.loop import Loop
from jobrunner.processes import Exit
from jobrunner.work import Command, Report, Resources, Result, Said, StopRule

MIB = 1 << 20
PYTHON = sys.executable


class Runs:
    """Commands and their loop, without an engine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.loop, self.inbox = folder, Loop(), list[Report]()
        self.commands = Commands(pool="p", slots=9)
        self.commands.open(self.loop, self.inbox.append)

    def start(
        self, *argv: str, number: int = 1, env: Mapping[str, str] | None = None, resources: Resources | None = None, cwd: str = ""
    ) -> None:
        command = Command(
            id=number,
            argv=argv,
            env={**os.environ, **(env or {})},
            cwd=cwd or str(self.folder),
            output_file="/nowhere",
            resources=resources,
        )
        self.commands.start(command)

    def result(self, *argv: str, resources: Resources | None = None, env: Mapping[str, str] | None = None) -> Result:
        self.start(*argv, resources=resources, env=env)
        return self.wait()

    def said(self, *argv: str, resources: Resources | None = None, env: Mapping[str, str] | None = None) -> str:
        result = self.result(*argv, resources=resources, env=env)
        text = b"".join(each.data for each in self.inbox if isinstance(each, Said)).decode()
        assert result.exit_code == 0, text
        return text

    def wait(self, number: int = 1) -> Result:
        while not (found := [each for each in self.inbox if isinstance(each, Result) and each.id == number]):
            self.loop.turn()
        return found[0]

    def message(self, *argv: str, resources: Resources | None = None) -> str:
        error = self.result(*argv, resources=resources).error
        assert error is not None
        return f"{error.type}: {error.message}"


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path)
    yield runs
    runs.commands.kill()
    while not runs.commands.closed:
        runs.loop.turn()
    runs.commands.close()
    runs.loop.close()


@pytest.fixture(params=["prlimit", "sh"])
def limiter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str | None]:
    """Machines with and without prlimit(1)."""
    find = limits._program
    found = find if request.param == "prlimit" else lambda name: None if name == "prlimit" else find(name)
    monkeypatch.setattr(limits, "_program", found)
    return found


# --- memory -------------------------------------------------------------------------------------------------------------------


def grab(size: int, touch: bool = True) -> tuple[str, ...]:
    """A process that asks for `size` bytes by an anonymous mapping, and writes into them or not."""
    return (
        PYTHON,
        "-c",
        f"import mmap; m = mmap.mmap(-1, {size}, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); {touch} and m.write(b'x' * {size})",
    )


@pytest.mark.usefixtures("limiter")
@pytest.mark.parametrize("touch", [True, False])
def test_a_process_gets_no_more_private_memory_than_its_limit(touch: bool, runs: Runs) -> None:
    resources = Resources(memory=200 * MIB)
    assert runs.result(*grab(300 * MIB, touch), resources=resources).exit_code == 1
    assert runs.message(*grab(300 * MIB, touch), resources=resources).startswith("OutOfMemory: out of memory (limit 200 MiB")


@pytest.mark.usefixtures("limiter")
def test_within_its_limit_a_process_runs_as_without(runs: Runs) -> None:
    assert runs.result(*grab(100 * MIB), resources=Resources(memory=400 * MIB)).exit_code == 0


@pytest.mark.usefixtures("limiter")
def test_the_limit_holds_from_the_first_moment_and_cannot_be_raised(runs: Runs) -> None:
    code = "import resource; print(*resource.getrlimit(resource.RLIMIT_DATA))"
    assert runs.said(PYTHON, "-c", code, resources=Resources(memory=300 * MIB)) == f"{300 * MIB} {300 * MIB}\n"


def test_the_limit_bounds_each_process_and_its_children_too(runs: Runs) -> None:
    line = f"{PYTHON} -c 'import os; os.fork(); x = bytearray(100 << 20)'; {PYTHON} -c 'bytearray(300 << 20)'; exit $?"
    assert "limit 200 MiB" in runs.message("/bin/sh", "-c", line, resources=Resources(memory=200 * MIB))


def test_our_own_limit_is_not_touched(runs: Runs) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    runs.result("true", resources=Resources(memory=100 * MIB))
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("no-such-command",), 127, "no such command: no-such-command"),
        (("./no-such-file",), 127, "no such command: ./no-such-file"),
        (("./plain",), 126, "./plain is not executable: chmod +x ./plain"),
        (("./sub",), 126, "./sub is a directory"),
        (("./misled",), 126, "./misled asks for the interpreter /no/such/interpreter, which does not exist"),
        (("plain",), 127, "no such command: plain"),
    ],
)
@pytest.mark.parametrize("resources", [Resources(memory=100 * MIB), Resources(nice=1), Resources(cpus=1), None])
def test_a_command_that_cannot_be_started_says_why_with_limits_as_without(
    resources: Resources | None, argv: tuple[str, ...], code: int, message: str, runs: Runs
) -> None:
    for name, text, mode in (("plain", "true", 0o644), ("misled", "#!/no/such/interpreter\n", 0o755)):
        (runs.folder / name).write_text(text, encoding="utf-8")
        (runs.folder / name).chmod(mode)
    (runs.folder / "sub").mkdir()
    result = runs.result(*argv, resources=resources)
    assert (result.exit_code, result.error and result.error.message) == (code, f"could not start: {message}")


@pytest.mark.parametrize("resources", [Resources(memory=100 * MIB), Resources(nice=1), Resources(memory=100 * MIB, nice=1)])
def test_limits_change_nothing_but_what_they_limit(resources: Resources, runs: Runs) -> None:
    """Environment (names that no shell takes included), folder, words and signals are what they are without."""
    code = (
        "import json, os, sys; e = dict(os.environ); e.pop('_', 0); print(json.dumps([sorted(e.items()), os.getcwd(), sys.argv]))"
    )
    command = (PYTHON, "-c", code, "a b", "$x", "")
    env = {"a.b": "1", "PWD": "/elsewhere", "A": "é\n"}
    plain = runs.said(*command, env=env)
    runs.inbox.clear()
    assert runs.said(*command, env=env, resources=resources) == plain


@pytest.mark.usefixtures("limiter")
def test_a_script_without_a_first_line_runs_in_sh_under_a_limit(runs: Runs) -> None:
    (runs.folder / "bare").write_text('echo "bare $1"\n', encoding="utf-8")
    (runs.folder / "bare").chmod(0o755)
    assert runs.said("./bare", "x y", resources=Resources(memory=100 * MIB, nice=1)) == "bare x y\n"


# --- nice and cpus ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nice", [1, 19])
def test_niceness_counts_from_ours_and_is_that_of_the_session(nice: int, runs: Runs) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    said = runs.said("/bin/sh", "-c", "sleep 0.1; cat /proc/self/autogroup; nice", resources=Resources(nice=nice))
    assert int(said.split()[-1]) == min(19, ours + nice)
    if "nice" in said:  # a kernel that weighs sessions
        assert said.splitlines()[0].endswith(f" nice {nice}")


def affinity(runs: Runs, number: int) -> set[int]:
    text = b"".join(each.data for each in runs.inbox if isinstance(each, Said) and each.id == number).decode()
    return set(map(int, text.split()))


def test_commands_are_spread_over_the_least_used_cpus_and_give_them_back(runs: Runs) -> None:
    usable = os.sched_getaffinity(0)
    code = "import os, time; print(*os.sched_getaffinity(0), flush=True); os.path.exists('stay') and time.sleep(100)"
    (runs.folder / "stay").touch()
    for number in range(1, 2 * len(usable) + 1):
        runs.start(PYTHON, "-c", code, number=number, resources=Resources(cpus=1))
    while not all(affinity(runs, number) for number in range(1, 2 * len(usable) + 1)):
        runs.loop.turn()
    taken = [affinity(runs, number) for number in range(1, 2 * len(usable) + 1)]
    assert all(len(each) == 1 for each in taken)
    assert sorted(cpu for each in taken for cpu in each) == sorted([*usable, *usable])
    assert os.sched_getaffinity(0) == usable
    runs.commands.kill()
    for number in range(1, 2 * len(usable) + 1):
        runs.wait(number)
    assert not any(limits._running.values())


def test_more_cpus_than_there_are_means_all_of_them(runs: Runs) -> None:
    code = "import os; print(*os.sched_getaffinity(0))"
    said = runs.said(PYTHON, "-c", code, resources=Resources(cpus=4096))
    assert set(map(int, said.split())) == os.sched_getaffinity(0)


def test_a_command_that_cannot_be_started_keeps_no_cpu(runs: Runs) -> None:
    before = os.sched_getaffinity(0)
    assert runs.result("no-such-command", resources=Resources(cpus=1)).exit_code == 127
    assert (os.sched_getaffinity(0), any(limits._running.values())) == (before, False)


# --- how an end for want of memory is told --------------------------------------------------------------------------------------

FAILED, KILLED, IN_A_SHELL = Exit(code=1), Exit(signal=signal.SIGKILL), Exit(code=137)


@pytest.mark.parametrize(
    ("exit", "limit", "peak", "tail", "by_kernel", "message"),
    [
        (FAILED, 512, 530, b"", False, "out of memory (limit 512 MiB, peak 530 MiB)"),
        (FAILED, 512, 461, b"", False, "out of memory (limit 512 MiB, peak 461 MiB)"),
        (FAILED, 512, 460, b"", False, None),
        (FAILED, 200, 33, b"MemoryError", False, "out of memory (limit 200 MiB; an allocation was refused)"),
        (FAILED, 200, 100, b"MemoryError", False, "out of memory (limit 200 MiB, peak 100 MiB)"),
        (FAILED, 512, None, b"", False, None),
        (FAILED, None, 530, b"MemoryError", False, None),
        (Exit(code=0), 512, 530, b"MemoryError", False, None),
        (Exit(signal=signal.SIGSEGV), 512, 530, b"", False, "out of memory (limit 512 MiB, peak 530 MiB)"),
        *(
            (FAILED, 512, None, tail, False, "out of memory (limit 512 MiB)")
            for tail in (
                b"Traceback (most recent call last):\nMemoryError\n",
                b"terminate called after throwing an instance of 'std::bad_alloc'",
                b"sh: 1: Cannot fork: Cannot allocate memory",
                b"FATAL ERROR: JavaScript heap out of memory",
                b"java.lang.OutOfMemoryError: Java heap space",
                b"cannot allocate TLS data structures for initial thread",
                b"sort: memory exhausted",
            )
        ),
        (FAILED, 512, 20, b"disk is full", False, None),
        (KILLED, None, 3100, b"", True, "out of memory (killed by the kernel, peak 3100 MiB)"),
        (KILLED, None, None, b"", True, "out of memory (killed by the kernel)"),
        (IN_A_SHELL, None, None, b"Killed", True, "out of memory (killed by the kernel)"),
    ],
)
def test_want_of_memory_is_named_where_it_is_known(
    exit: Exit, limit: int | None, peak: int | None, tail: bytes, by_kernel: bool, message: str | None
) -> None:
    error = limits.out_of_memory(exit, limit and limit * MIB, peak and peak * MIB, tail, by_kernel=by_kernel)
    assert (error and error.message) == message


@pytest.mark.parametrize(
    ("size", "shown"), [(MIB, "1.0 MiB"), (10 * MIB, "10 MiB"), (1536 << 10, "1.5 MiB"), (5 << 40, "5242880 MiB")]
)
def test_sizes_are_told_in_mebibytes(size: int, shown: str) -> None:
    error = limits.out_of_memory(FAILED, size, None, b"MemoryError", by_kernel=False)
    assert error is not None
    assert error.message == f"out of memory (limit {shown})"


@pytest.mark.parametrize("text", ["low 0\nhigh 0\nmax 9\noom 9\noom_kill {}\n", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"])
def test_a_kill_by_the_kernel_is_seen_in_the_count_of_the_cgroup_and_explains_one_death(text: str, tmp_path: Path) -> None:
    (tmp_path / "events").write_text(text.format(3))
    kills = limits.KernelKills([tmp_path / "absent", tmp_path / "events"])
    assert not kills.take_one()
    (tmp_path / "events").write_text(text.format(5))
    assert [kills.take_one() for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("echo oom_kill 1 > events; kill -KILL $$", "OutOfMemory: out of memory (killed by the kernel"),
        ("echo oom_kill 1 > events; sh -c 'kill -KILL $$'; exit $?", "OutOfMemory: out of memory (killed by the kernel"),
        ("kill -KILL $$", "CommandFailed: killed by SIGKILL"),
        ("echo oom_kill 1 > events; kill -SEGV $$", "CommandFailed: killed by SIGSEGV"),
        ("echo oom_kill 1 > events; exit 3", "CommandFailed: exit 3"),
    ],
)
def test_a_death_by_sigkill_is_the_kernels_where_its_count_has_gone_up(line: str, message: str, runs: Runs) -> None:
    (runs.folder / "events").write_text("oom_kill 0\n")
    runs.commands.kernel_kills = limits.KernelKills([runs.folder / "events"])
    assert runs.message("/bin/sh", "-c", line).startswith(message)


def test_a_sigkill_of_ours_is_never_laid_on_the_kernel(runs: Runs) -> None:
    (runs.folder / "events").write_text("oom_kill 0\n")
    runs.commands.kernel_kills = limits.KernelKills([runs.folder / "events"])
    runs.start("/bin/sh", "-c", "trap '' TERM; echo oom_kill 1 > events; touch ready; while :; do sleep 1; done")
    while not (runs.folder / "ready").exists():
        runs.loop.turn(runs.loop.clock() + 0.01)
    runs.commands.stop(1, StopRule(signal=signal.SIGTERM, grace=0.05))
    result = runs.wait()
    assert (result.signal, result.error and result.error.message) == (signal.SIGKILL, "killed by SIGKILL")


def test_the_count_of_this_machine_can_be_read() -> None:
    assert any(path.exists() for path in limits._counters())
