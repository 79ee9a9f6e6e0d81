"""Hosts that a template has forked: they look like others to user code, and a template that ends takes nothing with it."""

from __future__ import annotations

import compileall
import contextlib
import errno
import importlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobrunner import prepare
from jobrunner.executors import forking, hosts, stacks, templates
from jobrunner.executors.reaper import Reaper
from jobrunner.processes import COOKIE, children
from jobrunner.spec import Job
from jobrunner.work import Began, Exhausted, Outcome, Resources, Result, Returned, Said, StopRule, WorkerStarted
from tests.hostpool import ROOT, Driven

FACTS = "tests.targets.template:facts"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="templates are for Linux")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host starts a template."""
    monkeypatch.setattr(forking, "_MUCH", 0)


@contextlib.contextmanager
def templated(mode: str = "process", **settings: Any) -> Iterator[Driven]:
    """A pool whose template is ready. Its first call, 1, has been made by a host that was forked from this process."""
    run = Driven(mode, may_have_template=True, **settings)
    try:
        run.start(1, "quick")
        run.result(1)
        run.until(lambda: run.pool._forking._templates and (run.pool._forking._templates[-1].is_ready or run.of(Said)))
        yield run
    finally:
        run.pool.kill()
        run.close()


def until_ready(run: Driven) -> templates.Template:
    run.until(lambda: run.pool._forking._templates and run.pool._forking._templates[-1].is_ready)
    return run.pool._forking._templates[-1]


def value(run: Driven, call_id: int, target: str = FACTS, *args: object, **more: Any) -> Any:
    run.start(call_id, target, *args, **more)
    result = run.result(call_id)
    assert result.outcome is Outcome.SUCCEEDED, result
    return result.json()


def other(run: Driven, *skipped: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a host of the template tells, and one that was forked from this process; but for what is different in any two."""
    found = value(run, 50)
    with contextlib.closing(Driven("process", env={"WIDE": "yes"})) as plain:
        expected = value(plain, 1)
    left_out = {"pid", "name", "number", "argv", "peak", "is_lean", "maps", "environment", *skipped}
    return {k: v for k, v in found.items() if k not in left_out}, {k: v for k, v in expected.items() if k not in left_out}


# --- what user code sees -------------------------------------------------------------------------------------------------------


def test_a_host_of_a_template_looks_like_any_other() -> None:
    with templated(env={"WIDE": "yes"}) as run:
        found, expected = other(run)
        assert found == expected
        assert found["engine"] == os.getpid()
        assert found["native"]
        assert found["leads"]
        assert found["parent"] == ["MainProcess", os.getpid()]


def test_it_has_the_name_of_its_worker_and_a_number_of_its_own() -> None:
    with templated() as run:
        first, second = value(run, 2), value(run, 3)
        assert first["is_lean"]
        assert second["is_lean"]
        assert [first["name"], first["argv"], second["name"]] == ["p-2", ["p-2"], "p-3"]
        assert first["number"] != second["number"]
        assert {first["pid"], second["pid"]} == {each.pid for each in run.of(WorkerStarted)[1:]}


def test_no_descriptor_of_the_engine_is_open_in_it() -> None:
    with templated() as run, open(os.devnull, "rb") as secret:
        os.set_inheritable(secret.fileno(), True)
        assert value(run, 2)["descriptors"].count("/dev/null") == 1
        assert len(value(run, 3)["descriptors"]) == len(value(run, 2 + 2)["descriptors"])


def test_it_is_found_by_the_cookie_and_by_the_mark_of_its_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.write_text("run")
    reaper = Reaper(inherits=False, mark=str(mark))
    with templated(env={COOKIE: "of-this-run"}, reaper=reaper) as run:
        found = value(run, 2)
        assert found["is_lean"]
        assert f"{COOKIE}=of-this-run" in found["environment"].split("\0")
        assert str(mark) in found["maps"]
    reaper.close()


def test_what_the_engine_has_of_the_standard_library_is_there_in_every_host() -> None:
    import colorsys  # noqa: F401  # nobody else uses it

    with templated() as run:
        assert value(run, 2)["colors"]


def test_it_is_on_the_cpus_that_it_was_given() -> None:
    with templated() as run:
        assert len(value(run, 2, resources=Resources(cpus=1))["cpus"]) == 1
        assert value(run, 3)["cpus"] == sorted(os.sched_getaffinity(0))


def test_a_task_may_start_processes_and_signal_its_threads() -> None:
    with templated() as run:
        assert value(run, 2, "tests.targets.template:child_of_its_own") == 7
        assert value(run, 3, "tests.targets.template:signals_its_main_thread") is True


@pytest.mark.parametrize(
    ("target", "outcome", "word"), [("segfaults", Outcome.CRASHED, "SIGSEGV"), ("kills_itself", Outcome.CRASHED, "SIGKILL")]
)
def test_its_death_is_told_as_that_of_any_other(target: str, outcome: Outcome, word: str) -> None:
    with templated() as run:
        run.start(2, target)
        result = run.result(2)
        assert result.outcome is outcome
        assert result.error is not None
        assert word in result.error.message
        assert value(run, 3)["is_lean"]


# --- with its first call -------------------------------------------------------------------------------------------------------


def test_a_call_that_is_too_large_to_be_born_with_is_handed_over_afterwards() -> None:
    with templated() as run:
        run.start(2, "builtins:len", "x" * (1 << 20))
        assert run.result(2).json() == 1 << 20


def test_arguments_that_are_nested_too_deeply_fail_their_call_and_nothing_else() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with templated() as run:
        run.start(2, "quick", deep)
        assert run.result(2).outcome is Outcome.FAILED
        assert value(run, 3)["is_lean"]


@pytest.mark.parametrize("target", ["leaves_a_thread", "registers_at_exit", "starts_a_child"])
def test_what_is_to_be_done_at_the_end_of_a_process_is_done(target: str, tmp_path: Path) -> None:
    with templated() as run:
        run.start(2, f"tests.targets.preloaded:{target}", str(tmp_path / "done"))
        assert run.result(2).outcome is Outcome.SUCCEEDED
        assert (tmp_path / "done").read_text() == "done"


# --- what a host finds without a look ------------------------------------------------------------------------------------------

MODULE = "import os\n\nPID = os.getpid()\n\ndef told():\n    return [{word!r}, PID == os.getpid(), __name__, __file__]\n"


@contextlib.contextmanager
def importing(folder: Path, name: str, word: str) -> Iterator[tuple[Driven, Path]]:
    """A pool that finds a module of this name in `folder`, and the module's file. It was imported once, and so compiled."""
    path = folder.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(MODULE.format(word=word))
    with templated(path=[str(folder), ROOT]) as run:
        value(run, 2, f"{name}:told")
        yield run, path


@pytest.mark.parametrize("name", ["told_alone", "told_package.inside"])
def test_a_module_that_was_read_once_is_run_by_each_host_for_itself(name: str, tmp_path: Path) -> None:
    with importing(tmp_path, name, "first") as (run, path):
        assert [value(run, number, f"{name}:told") for number in (3, 4)] == [["first", True, name, str(path)]] * 2


def test_a_module_that_changes_during_the_run_is_read_again(tmp_path: Path) -> None:
    with importing(tmp_path, "told_twice", "first") as (run, path):
        assert value(run, 3, "told_twice:told")[0] == "first"
        path.write_text(MODULE.format(word="a longer one"))
        assert value(run, 4, "told_twice:told")[0] == "a longer one"
        path.write_text("def told(:\n")
        run.start(5, "told_twice:told")
        error = run.result(5).error
        assert error is not None
        assert error.type == "SyntaxError"
        path.unlink()
        run.start(6, "told_twice:told")
        error = run.result(6).error
        assert error is not None
        assert error.type == "ModuleNotFoundError"


BROKEN = """
import sys
print("it ran")
{line}
def told(): return "never"
"""


@pytest.mark.parametrize(
    ("line", "kind", "word"),
    [
        ("raise ValueError('of its own')", "ValueError", "of its own"),
        ("import told_broken; told_broken.later", "AttributeError", "partially initialized module"),
        ("import no_such_module", "ModuleNotFoundError", "no_such_module"),
    ],
)
def test_a_module_that_cannot_be_imported_is_run_once_and_says_why_each_time(
    line: str, kind: str, word: str, tmp_path: Path
) -> None:
    with importing(tmp_path, "told_broken", "first") as (run, path):
        path.write_text(BROKEN.format(line=line))
        compileall.compile_file(path, quiet=2)
        for number in (3, 4):
            run.start(number, "told_broken:told")
            result = run.result(number)
            error = result.error
            assert error is not None
            assert (result.outcome, error.type) == (Outcome.FAILED, kind)
            assert word in error.message
            assert f'{path}", line 4' in error.traceback
            assert b"".join(each.data for each in run.of(Said) if each.id == number) == b"it ran\n"


def test_a_module_may_put_another_one_in_its_place(tmp_path: Path) -> None:
    with importing(tmp_path, "told_placed", "first") as (run, path):
        path.write_text("import sys, types\nsys.modules[__name__] = types.SimpleNamespace(told=lambda: 'the other')\n")
        compileall.compile_file(path, quiet=2)
        assert [value(run, number, "told_placed:told") for number in (3, 4)] == ["the other"] * 2


def test_of_what_few_targets_use_a_host_has_what_the_module_of_its_target_names(tmp_path: Path) -> None:
    for name in ("random", "uuid"):  # the engine has both, and nothing else of the standard library wants the second
        importlib.import_module(name)
    with importing(tmp_path, "told_named", "first") as (run, path):
        path.write_text(
            "import sys\nhas = [name in sys.modules for name in ('random', 'uuid')]\nimport random\n"
            "def told(): return [*has, random.random()]\n"
        )
        compileall.compile_file(path, quiet=2)
        *has, first = value(run, 3, "told_named:told")
        assert has == [True, False]
        assert value(run, 4, "told_named:told")[-1] != first


# --- a host that is told of when it has ended ----------------------------------------------------------------------------------


def test_a_call_that_a_host_was_born_with_has_begun_by_that() -> None:
    with templated() as run:
        run.start(2, "sleeps")
        (began,) = [each for each in run.of(Began) if each.id == 2]
        os.kill(began.pid, signal.SIGKILL)
        assert run.result(2).outcome is Outcome.CRASHED
        assert not run.of(Returned)


@pytest.mark.parametrize("alone", [0.0, 60.0], ids=["at once", "never before its end"])
def test_whenever_one_listens_to_a_host_it_tells_the_same(alone: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_LEFT_ALONE", alone)
    with templated() as run:
        run.start(2, "builtins:print", "a line")
        assert run.result(2).outcome is Outcome.SUCCEEDED
        assert b"".join(each.data for each in run.of(Said) if each.id == 2) == b"a line\n"
        run.start(3, "fails")
        assert (run.result(3).error or Exception).type == "ValueError"  # type: ignore[union-attr]


def test_where_it_stands_is_known_at_once_when_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "PATIENCE", 60.0)  # longer than this waits
    with templated() as run:
        run.start(2, "sleeps", str(tmp_path / "mark"))
        run.until((tmp_path / "mark").exists)
        run.pool.stop(2, StopRule(signal=signal.SIGTERM, grace=60.0, with_stack=True))
        header, *_, outer = run.result(2).stack.splitlines()
        assert "most recent call first" in header
        assert outer.endswith("in sleeps")


def test_what_is_more_than_has_room_in_pipes_is_taken_in_while_the_host_lives() -> None:
    with templated() as run:
        run.start(2, "builtins:print", "x" * 20_000, "y" * 12_000)
        run.start(3, "tests.targets.template:is_large")
        assert len(run.result(3).json()) == 1 << 22
        assert run.result(2).outcome is Outcome.SUCCEEDED
        assert sum(len(each.data) for each in run.of(Said) if each.id == 3) == 1 << 20


def test_an_environment_that_none_can_hold_is_no_start() -> None:
    with templated() as run:
        run.start(2, "quick", env={"WRONG": "a\0b"})
        error = run.result(2).error
        assert error is not None
        assert error.message.startswith("could not start: env or cwd: ")
        assert value(run, 3, "os:getenv", "WRONG") is None


def test_variables_of_one_attempt_are_not_those_of_the_next() -> None:
    with templated() as run:
        assert value(run, 2, "os:getenv", "MINE", env={"MINE": "yes", "JOBRUNNER_ITEM": "3"}) == "yes"
        assert [value(run, number, "os:getenv", name) for number, name in ((3, "MINE"), (4, "JOBRUNNER_ITEM"))] == [None, None]


# --- preload -------------------------------------------------------------------------------------------------------------------

PLACE = "tests.targets.preloaded:place"


def test_what_is_preloaded_is_imported_once_and_as_its_import_has_left_it_in_each_host() -> None:
    with templated(preload=[PLACE]) as run:
        first, second = value(run, 2, PLACE), value(run, 3, PLACE)
        assert first[0] == second[0] == run.pool._forking._templates[-1].pid
        assert first[1] != second[1]
        assert first[2] == second[2] == 1
        assert first[3] != second[3]  # random is seeded anew
        assert [started.preloaded for started in run.of(WorkerStarted)] == [False, True, True], (
            "the first came before the template"
        )


def test_what_is_not_preloaded_is_imported_in_each_host() -> None:
    with templated() as run:
        imported, pid, _, _ = value(run, 2, PLACE)
        assert imported == pid
        assert not any(started.preloaded for started in run.of(WorkerStarted))


def test_a_template_comes_with_the_second_host_where_it_has_something_to_preload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "_MUCH", 1 << 60)
    with contextlib.closing(Driven("process", may_have_template=True, preload=[PLACE])) as run:
        value(run, 1)
        assert not run.pool._forking._templates
        value(run, 2)
        until_ready(run)
        assert value(run, 3, PLACE)[0] == run.pool._forking._templates[-1].pid


def test_the_targets_of_a_pool_are_what_it_preloads_each_once() -> None:
    pools = {"p": {"mode": "process", "preload": True}, "q": {"mode": "process"}}
    in_p, in_q = {"target": "m:f", "pool": "p"}, {"target": "m:g", "pool": "q"}
    job = Job.model_validate({"pools": pools, "tasks": {"a": in_p, "b": in_p, "c": in_q, "d": {"run": "ls", "pool": "p"}}})
    assert {name: plan.preload for name, plan in prepare._sized(job).items()} == {"p": ("m:f",), "q": ()}


REFUSED = {
    "raise ValueError('no')": "ValueError: no",
    "raise SystemExit(3)": "SystemExit",
    "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()": "starts a thread",
    "import subprocess\nchild = subprocess.Popen(['sleep', '60'])": "starts a process",
    "import socket\npair = socket.socketpair()": "leaves open",
    "import os, sys\nif sys.argv[0] == '-c':\n    os._exit(0)": "has ended",
}


@pytest.mark.parametrize(("text", "word"), REFUSED.items(), ids=REFUSED.values())
def test_what_cannot_be_shared_is_not_preloaded_and_that_is_said_once(text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(f"{text}\n\ndef nothing():\n    pass\n")
    with templated(preload=["odd:nothing"], path=[str(tmp_path), ROOT]) as run:
        run.until(lambda: run.of(Said))
        for number in (2, 3):
            value(run, number)
        run.until(lambda: run.pool._forking._templates[-1].is_ready)
        assert value(run, 4)["is_lean"]
        (said,) = run.of(Said)
        assert said.data.decode().startswith("preload: each worker imports for itself: odd")
        assert word in said.data.decode()
        assert said.id == 0
        assert not any(started.preloaded for started in run.of(WorkerStarted))


SHARED = {
    "prints": "print('x' * 100_000, end='')",
    "waits for a thread": "import threading\nthread = threading.Thread(target=abs, args=[1])\nthread.start()\nthread.join()",
    "waits for a process": "import subprocess\nsubprocess.run(['true'], check=True)",
}


@pytest.mark.parametrize("text", SHARED.values(), ids=SHARED)
def test_what_is_over_when_a_module_is_imported_hinders_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(f"import os\n{text}\n\nPID = os.getpid()\n\ndef maker():\n    return PID\n")
    with templated(preload=["odd:maker"], path=[str(tmp_path), ROOT]) as run:
        assert value(run, 2, "odd:maker") == value(run, 3, "odd:maker"), "of the template"
        assert not run.of(Said)


FORGED = [[b"ready"], [b"ready", b"1"], [b"ready", b"-x"], [b"ready", b"-99999999999999999999"], [b"ready", b""], [b"1"]]


@pytest.mark.parametrize("words", FORGED, ids=repr)
def test_what_a_module_writes_in_place_of_the_template_starts_nothing_and_harms_nobody(
    words: list[bytes], tmp_path: Path
) -> None:
    """`1` would be a process of somebody else."""
    text = f"import os, stat, sys\nif stat.S_ISSOCK(os.fstat(6).st_mode):\n    for word in {words}:\n        os.write(6, word)\n"
    (tmp_path / "odd.py").write_text(f"{text}\ndef nothing():\n    return os.getppid()\n")
    with contextlib.closing(
        Driven("process", may_have_template=True, preload=["odd:nothing"], path=[str(tmp_path), ROOT])
    ) as run:
        for number in range(1, 12):
            assert value(run, number, "builtins:abs", -number) == number
            run.until(lambda: all(each.is_ready or each.is_over for each in run.pool._forking._templates))
        assert 1 not in {each.pid for each in run.of(WorkerStarted)}


def test_a_fork_of_a_module_that_returns_in_its_child_too_is_no_second_template(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("import os\npid = os.fork()\n\ndef nothing():\n    pass\n")
    with templated(preload=["odd:nothing"], path=[str(tmp_path), ROOT]) as run:
        run.until(lambda: run.of(Said))
        assert b"starts a process" in run.of(Said)[0].data
        assert value(run, 2, "builtins:abs", -2) == 2


LARGE = """
import json, os
from jobrunner.executors import forking, limits
from tests.hostpool import Driven
heap = [bytes(4096) for _ in range(131072)]
run = Driven("process", may_have_template=True)
run.start(1, "quick")
run.result(1)
run.until(lambda: run.pool._forking._templates and run.pool._forking._templates[-1].is_ready)
run.start(2, "tests.targets.template:facts")
facts = run.result(2).json()
run.close()
print(json.dumps([limits.resident() >> 20, facts["peak"], facts["is_lean"]]))
"""


def test_a_large_engine_is_not_copied() -> None:
    ended = subprocess.run([sys.executable, "-c", LARGE], cwd=ROOT, capture_output=True, timeout=60, check=True)
    ours, its, is_lean = json.loads(ended.stdout)
    assert ours > 500
    assert is_lean
    assert its < 64


# --- a template that ends ------------------------------------------------------------------------------------------------------


def test_hosts_live_on_when_their_template_is_killed_and_another_one_comes(tmp_path: Path) -> None:
    with templated() as run:
        first = run.pool._forking._templates[-1]
        run.start(2, "tests.targets.template:facts")
        run.start(3, "sleeps")
        run.began(3)
        os.kill(first.pid, signal.SIGKILL)
        run.until(lambda: first.closed)
        assert run.result(2).outcome is Outcome.SUCCEEDED
        assert value(run, 4)["engine"] == os.getpid()
        assert until_ready(run) is not first
        assert value(run, 5)["is_lean"]
        assert not [each for each in run.of(Result) if each.id == 3]


def test_where_templates_are_killed_again_and_again_hosts_are_forked_without() -> None:
    with templated() as run:
        for number in range(2, 8):
            os.kill(run.pool._forking._templates[-1].pid, signal.SIGKILL) if not run.pool._forking._templates[-1].closed else None
            run.until(lambda: run.pool._forking._templates[-1].closed)
            value(run, number)
        assert len(run.pool._forking._templates) == forking._MOST_TEMPLATES


def test_a_stopped_template_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "_PATIENCE", 0.01)
    with templated() as run:
        stopped = run.pool._forking._templates[-1]
        os.kill(stopped.pid, signal.SIGSTOP)
        facts = value(run, 2)
        assert not facts["is_lean"]
        assert facts["engine"] == os.getpid()
        run.until(lambda: stopped.closed)
        assert len([each for each in run.of(Result) if each.id == 2]) == 1


class _Late:
    """Says that nothing has come, when the host is there and its template was stopped."""

    def __init__(self, template: templates.Template) -> None:
        self._template = template

    def poll(self, _: float) -> list[object]:
        assert select.select([self._template._control], [], [], 20)[0]
        os.kill(self._template.pid, signal.SIGSTOP)
        return []


def test_a_host_that_was_forked_but_not_told_is_known_all_the_same() -> None:
    with templated() as run:
        template = run.pool._forking._templates[-1]
        template._poll = _Late(template)  # type: ignore[assignment]
        facts = value(run, 2)
        assert facts["is_lean"]
        assert facts["pid"] == run.of(WorkerStarted)[-1].pid
        assert len([each for each in run.of(Result) if each.id == 2]) == 1


def test_where_the_template_cannot_fork_the_callis_ready_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> int:
        raise OSError(errno.EAGAIN, "no room")

    with templated() as run:
        with monkeypatch.context() as short:
            short.setattr(templates.Template, "fork", no_room)
            run.start(2, "quick")
        assert [each.id for each in run.of(Exhausted)] == [2]
        assert value(run, 3)["is_lean"]


def test_a_template_that_cannot_start_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "_CODE", "raise SystemExit(3)")
    run = Driven("process", may_have_template=True)
    for number in range(1, 8):
        value(run, number)
        run.until(lambda: run.pool._forking._templates[-1].closed)
    assert len(run.pool._forking._templates) == forking._MOST_TEMPLATES
    run.close()


def test_a_closed_pool_leaves_no_template() -> None:
    before = set(children())
    with templated():
        assert set(children()) - before
    assert set(children()) == before


def test_a_pool_that_is_closed_before_its_templateis_ready_leaves_none() -> None:
    before = set(children())
    run = Driven("process", may_have_template=True)
    run.start(1, "quick")
    run.result(1)
    run.close()
    assert set(children()) == before


KILLED = """
import json, os, sys, time
from jobrunner.executors import forking
from tests.hostpool import Driven
forking._MUCH = 0
run = Driven("process", may_have_template=True)
run.start(1, "quick")
run.result(1)
run.until(lambda: run.pool._forking._templates and run.pool._forking._templates[-1].is_ready)
run.start(2, "sleeps")
print(json.dumps([run.pool._forking._templates[-1].pid, run.began(2).pid]), flush=True)
time.sleep(60)
"""


def test_an_engine_that_is_killed_leaves_neither_template_nor_host() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", KILLED], cwd=ROOT, stdout=subprocess.PIPE) as engine,
        contextlib.ExitStack() as held,
    ):
        assert engine.stdout is not None
        pids = json.loads(engine.stdout.readline())
        pidfds = [os.pidfd_open(pid) for pid in pids]
        for pidfd in pidfds:
            held.callback(os.close, pidfd)
        engine.kill()
        assert [bool(select.select([pidfd], [], [], 10)[0]) for pidfd in pidfds] == [True, True]


def test_an_orphan_is_an_attempts_also_while_a_template_lives() -> None:
    """It names nobody: whose it is tells that nobody else lives, and a template leaves nothing behind."""
    reaper = Reaper(inherits=True)
    reaper.started(11, 1)
    reaper.started_template(12)
    from jobrunner.executors.reaper import Origin

    assert reaper._is_nobody_elses(13, Origin(1, (11,)))
    reaper.started(14)
    assert not reaper._is_nobody_elses(13, Origin(1, (11,)))
