"""What a preflight finds: calls against signatures, constants against annotations, pools in pools, threads times workers."""

from __future__ import annotations

import contextlib
import inspect
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner import jobfile, processes
from jobrunner.errors import UnsafeError
from jobrunner.preflight import check as preflight
from jobrunner.preflight import probe, probing
from jobrunner.preflight.check import Noted
from jobrunner.preflight.nested import pool_in
from jobrunner.preflight.signatures import Argument, Remark, Use, matched, misfits

ROOT = Path(__file__).resolve().parent.parent


def found(folder: Path, job: str, limit: float = 20.0, **modules: str) -> list[Noted]:
    """What is noted of a job beside modules with these texts."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "job.yaml").write_text(job)
    return preflight.check(jobfile.read(folder / "job.yaml"), limit)


def said(notes: list[Noted]) -> list[str]:
    return [note.finding.message for note in notes]


def use(args: int = 0, *kwargs: str) -> Use:
    return Use(id=0, key="target", target="m:f", args=[Argument()] * args, kwargs=dict.fromkeys(kwargs, Argument()))


# --- arguments ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "call", "message", "hint"),
    [
        (lambda a, b: 0, use(1), "the argument 'b' is missing", "It is f(a, b)."),
        (lambda a, *, b: 0, use(1), "the argument 'b' is missing", "It is f(a, *, b)."),
        (lambda a: 0, use(3), "it takes only one positional argument, and gets 3", "It is f(a)."),
        (lambda: 0, use(1), "it takes no positional arguments, and gets 1", "It is f()."),
        (lambda a, b=2: 0, use(3), "it takes at most 2 positional arguments, and gets 3", "It is f(a, b=2)."),
        (lambda root=1: 0, use(0, "rooot"), "it has no parameter 'rooot'", "Did you mean 'root'?"),
        (lambda root=1: 0, use(0, "x"), "it has no parameter 'x'", "It is f(root=1)."),
        (lambda a: 0, use(1, "a"), "'a' is given twice: args[0] is 'a' too", "Leave one of them out."),
        (lambda a=1, /: 0, use(0, "a"), "'a' cannot be given by name", "Write it under args."),
    ],
)
def test_a_call_that_python_would_refuse_is_told_with_its_parameter(
    function: Callable[..., Any], call: Use, message: str, hint: str
) -> None:
    (remark,) = misfits(function, call)
    assert (remark.message, remark.hint, remark.is_warning) == (message, hint, False)


NAMES = ("a", "b", "c", "d")


@st.composite
def signatures(draw: st.DrawFn) -> inspect.Signature:
    """Any order of kinds that Python allows, with defaults where it allows them."""
    kinds = sorted(draw(st.lists(st.sampled_from(list(inspect._ParameterKind)), max_size=4)))
    variable = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    kinds = [kind for place, kind in enumerate(kinds) if kind not in variable or kind not in kinds[:place]]
    parameters, has_default = [], False
    for name, kind in zip(NAMES, kinds, strict=False):
        wants = kind not in variable and draw(st.booleans())
        has_default = kind is not inspect.Parameter.KEYWORD_ONLY and (has_default or wants) and kind not in variable
        default = 0 if wants or has_default else inspect.Parameter.empty
        parameters.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(parameters)


@given(signatures(), st.integers(0, 4), st.sets(st.sampled_from((*NAMES, "other"))))
def test_a_call_is_refused_exactly_where_python_refuses_it(signature: inspect.Signature, args: int, kwargs: set[str]) -> None:
    scope: dict[str, Callable[..., None]] = {}
    exec(f"def f{signature}: ...", scope)
    try:
        scope["f"](*[None] * args, **dict.fromkeys(kwargs))
        is_fine = True
    except TypeError:
        is_fine = False
    assert (list(matched(signature, use(args, *kwargs))) == []) is is_fine


def test_what_only_the_wrapped_function_refuses_is_a_warning() -> None:
    def wrapper(*args: object, **kwargs: object) -> None: ...

    wrapper.__wrapped__ = lambda connection, name: 0  # type: ignore[attr-defined]
    (remark,) = misfits(wrapper, use(1))
    assert remark.is_warning
    assert remark.message == "the argument 'name' is missing (unless its decorator sees to it)"


@pytest.mark.parametrize("callable_", [max, print, type("C", (), {"__call__": lambda self, x: 0})(), dict.fromkeys])
def test_what_has_no_python_signature_is_taken_as_it_is(callable_: Callable[..., Any]) -> None:
    assert list(misfits(callable_, use(1))) == []


class Hostile:
    """Every way to be asked raises."""

    def __call__(self) -> None: ...

    @property
    def __signature__(self) -> object:
        raise RuntimeError("no")


def test_a_signature_that_raises_is_none() -> None:
    assert list(misfits(Hostile(), use(3))) == []


def constant(kind: str, shown: str = "…") -> Use:
    return Use(id=0, key="target", target="m:f", args=[Argument(kind=kind, shown=shown)])


def annotated(annotation: object, default: object = inspect.Parameter.empty) -> Callable[..., Any]:
    def f(x: object = default) -> None: ...

    f.__annotations__ = {"x": annotation}
    return f


KINDS = ("null", "bool", "int", "float", "str", "list", "dict")


@pytest.mark.parametrize(
    ("annotation", "fitting"),
    [
        (int, {"int", "bool"}),
        (float, {"int", "float", "bool"}),
        (str, {"str"}),
        (bool, {"bool", "int"}),
        (list, {"list"}),
        (dict, {"dict"}),
        (list[int], {"list"}),
        (dict[str, int], {"dict"}),
        (int | None, {"int", "bool", "null"}),
        (int | str, {"int", "bool", "str"}),
        ("int", {"int", "bool"}),
        (Path, set(KINDS)),
        (int | Path, set(KINDS)),
        (object, set(KINDS)),
        (Any, set(KINDS)),
        ("Unknown", set(KINDS)),
    ],
    ids=str,
)
def test_a_constant_that_an_annotation_rules_out_is_a_warning(annotation: object, fitting: set[str]) -> None:
    accepted = {kind for kind in KINDS if not list(misfits(annotated(annotation), constant(kind)))}
    assert accepted == fitting


def test_a_warning_about_a_type_says_what_is_there_and_what_is_wanted() -> None:
    (remark,) = misfits(annotated(int), constant("str", '"5"'))
    assert (remark.where, remark.is_warning) == (("args", 0), True)
    assert remark.message == "'x' is annotated as int; this is text (\"5\")"


def test_null_fits_where_none_is_the_default() -> None:
    assert list(misfits(annotated(int, None), constant("null"))) == []


def test_a_value_that_only_a_run_knows_fits_everything(tmp_path: Path) -> None:
    job = 'params: {n: x}\ntasks: {a: {target: "m:f", args: ["${{ params.n }}", ["${{ params.n }}"]]}}'
    assert found(tmp_path, job, m="def f(n: int, m: int): ...") == []


# --- what a target is --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("def g(): ...\ndef ff(): ...", "there is no 'f' in m.py", "Did you mean 'ff'?"),
        ("f = 3", "m:f is not callable but int", ""),
        ("def f(): yield 1", "m:f is a generator function: nothing of it would run", "Return a list instead of using yield."),
        ("async def f(): yield", "m:f is a generator function: nothing of it would run", "Return a list instead of using yield."),
        ("import nosuch", "'m' cannot be imported: ModuleNotFoundError: No module named 'nosuch', m.py line 1", ""),
        ("def h():\n    1 / 0\nh()", "'m' cannot be imported: ZeroDivisionError: division by zero, m.py line 2", ""),
        ("def (", "'m' cannot be imported: SyntaxError: invalid syntax, m.py line 1", ""),
        (
            "raise SystemExit(3)",
            "'m' ends the process when it is imported (SystemExit: 3, m.py line 1)",
            'What runs it as a script belongs below if __name__ == "__main__".',
        ),
        ("raise KeyboardInterrupt", "'m' cannot be imported: KeyboardInterrupt, m.py line 1", ""),
        ("def __getattr__(name): raise RuntimeError('no')", "looking at m:f raised RuntimeError: no", ""),
        ("class E(Exception):\n def __str__(self): 1/0\nraise E",
         "'m' cannot be imported: m.E: <exception str() failed>, m.py line 3", ""),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "importing 'm' ends the process (killed by SIGSEGV)", ""),
        ("import os\nos._exit(0)", "importing 'm' ends the process (exit 0)", ""),
    ],
)  # fmt: skip
def test_a_target_that_cannot_be_called_is_an_error(text: str, message: str, hint: str, tmp_path: Path) -> None:
    (note,) = found(tmp_path, "tasks: {a: {target: 'm:f'}}", m=text)
    assert (note.finding.message, note.finding.hint, note.is_warning) == (message, hint, False)
    assert note.finding.path == ("tasks", "a", "target")


@pytest.mark.parametrize(
    "text", ["async def f(): ...", "class f: ...", "import functools\nf = functools.partial(print)", "f = print"]
)
def test_whatever_can_be_called_is_fine(text: str, tmp_path: Path) -> None:
    assert found(tmp_path, "tasks: {a: {target: 'm:f'}}", m=text) == []


@pytest.mark.parametrize(
    ("target", "message", "hint"),
    [
        ("n:f", "there is no module 'n', neither beside the job file nor on Python's path", ""),
        (
            "nightli:f",
            "there is no module 'nightli', neither beside the job file nor on Python's path",
            "Did you mean 'nightly'?",
        ),
        ("deep:f", "there is no module 'deep', neither beside the job file nor on Python's path", "Did you mean 'lib.deep'?"),
        ("lib.deap:f", "there is no module 'lib.deap'", "Did you mean 'lib.deep'?"),
        ("nightly.x:f", "there is no module 'nightly.x'", ""),
    ],
)
def test_a_module_that_is_not_there_is_told_with_the_one_that_was_meant(
    target: str, message: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "deep.py").touch()
    (note,) = found(tmp_path, f"tasks: {{a: {{target: '{target}'}}}}", nightly="")
    assert (note.finding.message, note.finding.hint) == (message, hint)


@pytest.mark.parametrize("inside", ["", "lib."])
@pytest.mark.parametrize("odd", [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path)], ids=["fifo", "folder", "link"])
def test_what_stands_in_the_place_of_a_module_and_is_none_is_told(
    odd: Callable[[Path], None], inside: str, tmp_path: Path
) -> None:
    (tmp_path / "lib").mkdir()
    odd(tmp_path / inside.replace(".", "/") / "mod.py")
    (note,) = found(tmp_path, f"tasks: {{a: {{target: '{inside}mod:f'}}}}")
    assert note.finding.message == f"there is no module '{inside}mod': mod.py is not a regular file"
    assert note.finding.hint == ""


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("math:sqrtx", "there is no 'sqrtx' in math"),
        ("lib:f", "there is no 'f' in lib, a folder without __init__.py"),
        ("package:f", "there is no 'f' in package"),
        ("package.mod:f", "there is no 'f' in mod.py"),
        ("package.mod:C.f", "there is no 'f' in C"),
        ("sys:f", "there is no 'f' in sys"),
    ],
)
def test_where_there_is_no_such_name_is_said_as_people_call_it(target: str, message: str, tmp_path: Path) -> None:
    for folder in ("lib", "package"):
        (tmp_path / folder).mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "mod.py").write_text("class C: ...")
    assert said(found(tmp_path, f"tasks: {{a: {{target: '{target}'}}}}")) == [message]


def test_what_an_import_that_fails_has_printed_is_kept_and_nothing_else(tmp_path: Path) -> None:
    job = "tasks: {a: {target: 'fine:f'}, b: {target: 'bad:f'}, c: {target: 'other:f'}}"
    notes = found(tmp_path, job, fine="print('fine')\ndef f(): ...", bad="print('before')\n1/0", other="print('other')\nf = 3")
    assert [bool(note.output) for note in notes] == [True, False]
    assert notes[0].output.splitlines() == [
        "before",
        "Traceback (most recent call last):",
        f'  File "{tmp_path}/bad.py", line 2, in <module>',
        "    1/0",
        "    ~^~",
        "ZeroDivisionError: division by zero",
    ]


def test_of_much_output_the_last_lines_are_kept(tmp_path: Path) -> None:
    text = "import os\nfor n in range(50_000): print(n, flush=True)\nos.write(1, b'\\x1b[31m\\xff'); os._exit(1)"
    (note,) = found(tmp_path, "tasks: {a: {target: 'm:f'}}", m=text)
    lines = note.output.splitlines()
    assert lines[:-1] == [str(n) for n in range(49_989, 50_000)]
    assert lines[-1] == "\ufffd[31m\ufffd"


# --- executors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executor", "messages"),
    [
        ("concurrent.futures:ThreadPoolExecutor", []),
        ("concurrent.futures:ThreadPoolExecuter", ["there is no 'ThreadPoolExecuter' in concurrent.futures"]),
        ("m:f", ["m:f cannot be called with max_workers, as an executor is"]),
        ("m:make", []),
    ],
)
def test_the_executor_of_a_pool_must_be_one(executor: str, messages: list[str], tmp_path: Path) -> None:
    job = f"pools: {{p: {{executor: '{executor}', workers: 2}}}}\ntasks: {{a: {{target: 'm:f', pool: p}}}}"
    notes = found(tmp_path, job, m="def f(): ...\ndef make(max_workers): ...")
    assert said(notes) == messages
    assert {note.finding.path for note in notes} <= {("pools", "p", "executor")}


# --- the process that imports ------------------------------------------------------------------------------------------------


def test_imports_that_hang_or_die_are_named_and_the_rest_is_checked(tmp_path: Path) -> None:
    names = ("hangs", "dies", "hangs_too", "fails", "fine")
    job = "tasks:\n" + "".join(f"  {name}: {{target: '{name}:f'}}\n  {name}_2: {{target: '{name}:g'}}\n" for name in names)
    modules = {
        "hangs": "import threading\nprint('now')\nthreading.Event().wait()",
        "dies": "import os; os._exit(3)",
        "hangs_too": "while True: pass",
        "fails": "1/0",
        "fine": "def f(): ...\ndef g(x): ...",
    }
    notes = found(tmp_path, job, limit=0.5, **modules)
    assert [(note.finding.path[1], note.finding.message.split(",")[0]) for note in notes] == [
        ("hangs", "importing 'hangs' takes longer than 0.5 s"),
        ("hangs_2", "importing 'hangs' takes longer than 0.5 s"),
        ("dies", "importing 'dies' ends the process (exit 3)"),
        ("dies_2", "importing 'dies' ends the process (exit 3)"),
        ("hangs_too", "importing 'hangs_too' takes longer than 0.5 s"),
        ("hangs_too_2", "importing 'hangs_too' takes longer than 0.5 s"),
        ("fails", "'fails' cannot be imported: ZeroDivisionError: division by zero"),
        ("fails_2", "'fails' cannot be imported: ZeroDivisionError: division by zero"),
        ("fine_2", "the argument 'x' is missing"),
    ]
    assert f'File "{tmp_path}/hangs.py", line 3 in <module>' in notes[0].output
    assert notes[0].output.startswith("now\n")


def test_an_interpreter_that_cannot_start_is_no_hang_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    notes = found(tmp_path, "tasks: {a: {target: 'm:f'}, b: {target: 'n:f'}}", m="")
    message = "importing '{}' cannot be tried: its interpreter ends the process (exit 1)"
    assert said(notes) == [message.format("m"), message.format("n")]
    assert "Fatal Python error" in notes[0].output


def test_all_that_an_import_has_started_is_gone_afterwards(tmp_path: Path) -> None:
    text = (
        "import subprocess, pathlib\n"
        "one = subprocess.Popen(['sleep', '600'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(one.pid))\n"
        "def f(): ..."
    )
    assert found(tmp_path, "tasks: {a: {target: 'm:f'}}", m=text) == []
    assert _ends(int((tmp_path / "pid").read_text()))


ESCAPES = {
    "a group of its own": "subprocess.Popen(['setsid', 'sleep', '601'])",
    "a daemon": "subprocess.run(['sh', '-c', 'setsid sleep 602 >/dev/null 2>&1 & setsid nohup sleep 603 >/dev/null 2>&1 &'])",
    "a daemon, and then the process ends": "subprocess.run(['sh', '-c', 'setsid sleep 604 &']); os._exit(0)",
    "a daemon, and then it hangs": "subprocess.run(['sh', '-c', 'setsid sleep 605 &']); import time; time.sleep(600)",
}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the group is ended")
@pytest.mark.parametrize("text", ESCAPES.values(), ids=ESCAPES.keys())
def test_what_has_left_the_group_is_gone_too_and_nothing_else(text: str, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as ours:
        before = processes.children()
        found(tmp_path, "tasks: {a: {target: 'm:f'}}", limit=1.0, m=f"import os, subprocess\n{text}\ndef f(): ...")
        assert processes.children() == before
        assert ours.poll() is None
        ours.kill()
    assert not _runs_in(tmp_path)


def _runs_in(folder: Path) -> list[str]:
    """Processes that run in this folder."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/cwd") == str(folder):
                found.append(pid)
    return found


# What a module does to the process that imports it.
CHANGES_OF_TOOLS = [
    "import json\njson.dumps = lambda *a, **k: 'x'",
    "import json\njson.loads = json.dumps = None",
    "import inspect\ninspect.signature = None",
    "import inspect\ninspect.signature = lambda *a, **k: inspect.Signature()",
    "import importlib, types\nimportlib.import_module = lambda name: types.ModuleType(name)",
    "from jobrunner.preflight import signatures\nsignatures.matched = lambda *a: ()",
    "from jobrunner.preflight import probe\nprobe.probed = lambda module, uses: probe.Answer(module=module)",
    "import builtins\nbuiltins.any = lambda each: True",
    "import traceback\ntraceback.format_exception_only = None",
]
FORGED = '{"module": "%s", "token": "", "remarks": []}'
BABBLE = {
    "a line to descriptors that it has not opened": "write(b'1\\n')",
    "no line": "write(b'1')",
    "what is not UTF-8": "write(b'\\xff\\n')",
    "what is nested without end": "write(b'[' * 100_000 + b'\\n')",
    "a forged answer for itself": f"write({FORGED % 'm'!r}.encode() + b'\\n')",
    "an answer about what was not asked": (
        "from jobrunner.preflight import probe, signatures\n"
        "remark = signatures.Remark(use=99, where=('x',), message='y')\n"
        "probe._look_up = lambda module, use, answer: answer.remarks.append(remark)"
    ),
    "a forged answer for the next": f"write({FORGED % 'n'!r}.encode() + b'\\n')",
}
_WRITE = """\
import contextlib, os
def write(data):
    for fd in range(3, 256):
        with contextlib.suppress(OSError):
            os.set_blocking(fd, False)
            os.write(fd, data)
"""
TWO = "tasks: {a: {target: 'm:f'}, b: {target: 'n:f'}, c: {target: 'n:g'}}"


@pytest.mark.parametrize("text", CHANGES_OF_TOOLS)
def test_a_module_that_changes_what_the_check_works_with_hides_nothing_of_the_next(text: str, tmp_path: Path) -> None:
    notes = found(tmp_path, TWO, m=f"{text}\ndef f(): ...", n="def f(x): ...")
    of_next = [note.finding.message for note in notes if note.finding.path[1] != "a"]
    assert of_next == ["the argument 'x' is missing", "there is no 'g' in n.py"]


@pytest.mark.parametrize("text", BABBLE.values(), ids=BABBLE.keys())
def test_what_is_no_answer_is_told_of_the_module_that_gave_it(text: str, tmp_path: Path) -> None:
    notes = found(tmp_path, TWO, m=f"{_WRITE}\n{text}\ndef f(): ...", n="def f(x): ...")
    first, *rest = said(notes)
    assert first.startswith("importing 'm' does not answer properly: ")
    assert rest == ["the argument 'x' is missing", "there is no 'g' in n.py"]


def test_a_line_without_an_end_is_not_read_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_LONGEST_ANSWER", 100_000)
    text = f"{_WRITE}\nwhile True: write(b'x' * 1000)"
    (message,) = said(found(tmp_path, "tasks: {a: {target: 'm:f'}}", m=text))
    assert message.startswith("importing 'm' does not answer properly: 'xxx")


def test_a_module_that_closes_what_it_has_not_opened_does_not_answer_properly(tmp_path: Path) -> None:
    notes = found(tmp_path, TWO, m="import os\nos.closerange(3, 256)\ndef f(): ...", n="def f(x): ...")
    assert said(notes) == [
        "importing 'm' does not answer properly: it has closed a descriptor that it has not opened",
        "the argument 'x' is missing",
        "there is no 'g' in n.py",
    ]


def test_what_a_module_has_left_running_is_not_put_down_to_the_next(tmp_path: Path) -> None:
    """The next one is asked about again, in a process of its own."""
    late = "import os, threading, sys\ndef end():\n    while 'n' not in sys.modules: pass\n    os._exit(7)\n"
    text = f"{late}threading.Thread(target=end, daemon=True).start()\ndef f(): ..."
    notes = found(tmp_path, TWO, m=text, n="import time\ntime.sleep(0.3)\ndef f(x): ...")
    assert said(notes) == ["the argument 'x' is missing", "there is no 'g' in n.py"]


ODD = {
    "an error without a name": "raise type('', (Exception,), {'__module__': 'builtins'})()",
    "an error that cannot be told": "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E",
    "a message that no encoding holds": "raise ValueError('\\udcff')",
    "a message of a megabyte": "raise ValueError('x' * 1_000_000)",
    "an object in place of the module": "import sys\nsys.modules[__name__] = object()",
    "a name that is no text": "__name__ = 3\n__file__ = 4",
    "a look that raises": "def __getattr__(name):\n    raise type('', (BaseException,), {'__module__': 'builtins'})()",
    "an error of another kind": "import sys\nsys.modules['x'] = 3\nraise ModuleNotFoundError(name=type('S', (str,), {})('m'))",
    "a package that is none": "import sys\nsys.modules[__name__].__path__ = 3\nraise ModuleNotFoundError(name=['m'])",
    "another object in place of the next": "import sys\nsys.modules['json'] = 3\nimport json as j\nraise KeyError(j)",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
def test_whatever_a_module_is_something_is_said_about_it_and_the_next(text: str, tmp_path: Path) -> None:
    notes = found(tmp_path, TWO, m=text, n="def f(x): ...")
    assert [note.finding.path[1] for note in notes] == ["a", "b", "c"]
    assert all(0 < len(note.finding.message) < 700 and note.finding.message.isprintable() for note in notes)
    assert not any("ends the process" in note.finding.message for note in notes)


def test_what_an_error_says_obeys_no_terminal(tmp_path: Path) -> None:
    (message,) = said(found(tmp_path, "tasks: {a: {target: 'm:f'}}", m="raise ValueError('\x1b[31m\u202e')"))
    assert "ValueError: \N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}" in message


def _ends(pid: int) -> bool:
    """Whether a process ends soon, or has ended."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with open(watch, "rb", buffering=0):
        return bool(select.select([watch], [], [], 10)[0])


def test_a_module_is_imported_as_a_host_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to read, the folder of the job, its env without secrets; and what stands beside the job goes before all else."""
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setenv("GIVEN", "1")
    text = (
        "import os, sys, json\n"
        "assert sys.stdin.read() == ''\n"
        f"assert os.getcwd() == {str(tmp_path)!r}\n"
        "assert (os.environ['GIVEN'], os.environ['OWN'], os.environ['FILED']) == ('1', '2', '3')\n"
        "assert 'TOKEN' not in os.environ and 'LATER' not in os.environ\n"
        "assert json.HERE and sys.argv == ['default-1']\n"
        "def f(): ..."
    )
    (tmp_path / ".env").write_text("FILED=3\n")
    (tmp_path / ".env").chmod(0o600)
    job = 'secrets: {t: {env: TOKEN}}\nenv: {OWN: 2, LATER: "${{ run.id }}"}\nenv_file: .env\ntasks: {a: {target: "m:f"}}'
    assert said(found(tmp_path, job, m=text, json="HERE = True")) == []


def test_an_env_file_that_cannot_be_read_is_told_at_its_place(tmp_path: Path) -> None:
    (note,) = found(tmp_path, "env_file: none.env\ntasks: {a: {target: 'm:f'}}")
    assert note.finding.path == ("env_file",)
    assert note.finding.message.startswith(f"{tmp_path}/none.env cannot be read")


def test_nothing_is_imported_that_others_could_have_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, what: str, *, imports: bool) -> None:
        assert imports
        raise UnsafeError("others may write to it")

    monkeypatch.setattr("jobrunner.trust.refuse_unsafe_file", refuse)
    with pytest.raises(UnsafeError):
        found(tmp_path, "tasks: {a: {target: 'm:f'}}", m=f"open({str(tmp_path / 'imported')!r}, 'w')")
    assert not (tmp_path / "imported").exists()


def test_a_job_of_commands_imports_nothing_and_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    assert found(tmp_path, "tasks: {a: {run: echo}}") == []


def test_ctrl_c_while_it_imports_ends_the_import(tmp_path: Path) -> None:
    """In the process of the command line, which leaves SIGINT to the system."""
    (tmp_path / "m.py").write_text("import os, time\nos.write(int(os.environ['READY']), b'%d' % os.getpid())\ntime.sleep(600)")
    (tmp_path / "job.yaml").write_text("tasks: {a: {target: 'm:f'}}")
    code = (
        "import os, signal, subprocess, sys\n"
        "start = subprocess.Popen\n"
        "fd = int(os.environ['READY'])\n"
        "subprocess.Popen = lambda *args, pass_fds, **more: start(*args, pass_fds=(*pass_fds, fd), **more)\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "from jobrunner import jobfile\nfrom jobrunner.preflight import check as preflight\n"
        "preflight.check(jobfile.read(sys.argv[1]))"
    )
    ready, theirs = os.pipe()
    env = {**os.environ, "READY": str(theirs), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path / "job.yaml")]
    with subprocess.Popen(command, env=env, pass_fds=(theirs,), stderr=subprocess.PIPE, start_new_session=True) as process:
        os.close(theirs)
        pid = int(os.read(ready, 20))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert b"KeyboardInterrupt" in process.stderr.read()
    os.close(ready)
    assert _ends(pid)


# --- what would go slowly ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("imports", "body", "told"),
    [
        ("from multiprocessing import Pool", "Pool(4)", "Pool"),
        ("import multiprocessing", "multiprocessing.Pool()", "Pool"),
        ("import multiprocessing as mp", "mp.get_context('spawn').Pool(2)", "Pool"),
        ("import concurrent.futures", "concurrent.futures.ProcessPoolExecutor()", "ProcessPoolExecutor"),
        ("from concurrent import futures", "futures.ProcessPoolExecutor(max_workers=n)", "ProcessPoolExecutor"),
        ("from concurrent.futures import ProcessPoolExecutor as P", "P()", "ProcessPoolExecutor"),
        ("", "from concurrent.futures import ProcessPoolExecutor; ProcessPoolExecutor()", "ProcessPoolExecutor"),
        ("from joblib import Parallel", "Parallel(n_jobs=-1)([])", "Parallel"),
        ("from joblib import Parallel", "Parallel(n)([])", "Parallel"),
        ("from dask.distributed import Client", "Client()", "Client"),
        ("from sklearn.ensemble import Forest", "Forest(n_jobs=-1)", "Forest(n_jobs=-1)"),
        ("from multiprocessing import Pool", "Pool(1)", None),
        ("from multiprocessing import Pool", "Pool(processes=1)", None),
        ("from joblib import Parallel", "Parallel()([])", None),
        ("from joblib import Parallel", "Parallel(n_jobs=1)([])", None),
        ("from dask.distributed import Client", "Client('tcp://here:8786')", None),
        ("from concurrent.futures import ThreadPoolExecutor", "ThreadPoolExecutor()", None),
        ("from psycopg import Pool", "Pool(4)", None),
        ("from multiprocessing.pool import ThreadPool", "ThreadPool(4)", None),
        ("", "Forest(n_jobs=1)", None),
        ("", "Forest(n_jobs=None)", None),
    ],
)
def test_a_pool_that_a_function_starts_is_found_in_its_source(imports: str, body: str, told: str | None) -> None:
    source = f"{imports}\n@cached\ndef f(n):\n    {body}\n"
    assert pool_in(source, "f", 2) == (None if told is None else (told, 4))
    through = f"{imports}\ndef f(n):\n    return h(n)\ndef h(n):\n    {body}\n    return f(n)\n"
    assert pool_in(through, "f", 2) == (None if told is None else (told, 5))
    assert pool_in(f"{imports}\ndef other(n):\n    {body}\ndef f(n): ...\n", "f", 4) is None


NESTED = "from multiprocessing import Pool\ndef f(x):\n    with Pool() as pool: return pool.map(str, [x])\n"


@pytest.mark.parametrize(
    ("job", "task", "count"),
    [
        ("mode: process_pool\nworkers: 8", "foreach: {range: 100}", 8),
        ("mode: process\nworkers: 8", "foreach: {range: 100}", 8),
        ("mode: thread_pool\nworkers: 8", "foreach: [a, b, c]", 3),
        ("mode: process_pool\nworkers: 8", "foreach: {range: 100}, max_parallel: 2", 2),
        ("mode: process_pool\nworkers: 8\nlimits: {x: 3}", "foreach: {range: 100}, limits: [x]", 3),
        ("mode: process_pool\nworkers: 8\nlimits: {x: {slots: 8}}", "foreach: {range: 100}, limits: {x: 2}", 4),
        ("mode: process_pool\nworkers: 8", "foreach: {range: 100}, max_parallel: 1", 0),
        ("mode: process_pool\nworkers: 8", "foreach: [a]", 0),
        ("mode: process_pool\nworkers: 8", "max_parallel: 2", 0),
        ("mode: serial", "foreach: {range: 100}", 0),
    ],
)
def test_a_pool_inside_several_workers_is_a_warning(job: str, task: str, count: int, tmp_path: Path) -> None:
    notes = found(tmp_path, f'{job}\ntasks: {{a: {{target: "m:f", args: [1], {task}}}}}', m=NESTED)
    told = [f"m:f starts a pool of its own (Pool, m.py line 3) inside {count} workers"]
    assert said(notes) == (told if count else [])
    assert all(note.is_warning for note in notes)


CROWDED = (
    "mode: process_pool\nworkers: 8\ntasks: {a: {target: 'm:f', foreach: {range: 9}}, b: {target: 'm:f', foreach: {range: 9}}}"
)


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "usable_cpus", lambda: 2)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("two_cpus")
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("", "", True),
        ("process_pool", "process", True),
        ("process_pool", "thread_pool", False),
        ("workers: 8", "workers: 1", False),
        ("tasks:", "env: {OMP_NUM_THREADS: 1}\ntasks:", False),
        ("tasks:", "env: {MKL_NUM_THREADS: '${{ run.attempt }}'}\ntasks:", False),
        ("tasks:", "defaults: {env: {OPENBLAS_NUM_THREADS: 1}}\ntasks:", False),
        ("tasks:", "defaults: {max_parallel: 1}\ntasks:", False),
    ],
)
def test_processes_that_each_compute_with_all_cpus_are_one_warning_a_pool(old: str, new: str, told: bool, tmp_path: Path) -> None:
    notes = found(tmp_path, CROWDED.replace(old, new, 1), numpy="", m="import numpy\ndef f(): ...")
    expected = ["m:f loads numpy: 8 workers × 2 BLAS threads on 2 CPUs"] if told else []
    assert said(notes) == expected
    assert [note.finding.hint for note in notes] == ["Write env: {OMP_NUM_THREADS: 1}."] * told


@pytest.mark.usefixtures("two_cpus")
def test_threads_that_are_bounded_in_the_environment_are_no_crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert found(tmp_path, CROWDED, numpy="", m="import numpy\ndef f(): ...") == []


@pytest.mark.usefixtures("two_cpus")
def test_a_library_counts_for_who_leads_to_it_and_not_for_who_is_imported_later(tmp_path: Path) -> None:
    names = ("direct", "none", "through", "taken")
    job = "mode: process_pool\ntasks:\n" + "".join(
        f"  {name}: {{target: '{name}:f', foreach: {{range: 9}}, workers: 4}}\n" for name in names
    )
    modules = {
        "numpy": "def array(): ...",
        "frames": "import numpy",
        "direct": "import numpy\ndef f(): ...",
        "none": "import json\ndef f(): ...",
        "through": "import frames\ndef f(): ...",
        "taken": "from numpy import array\ndef f(): ...",
    }
    assert [note.finding.path[1] for note in found(tmp_path, job, 20.0, **modules)] == ["direct", "through", "taken"]


def test_an_answer_survives_the_pipe() -> None:
    answer = probe.Answer(
        module="m",
        has_failed=True,
        remarks=[Remark(use=0, where=("args", 0), message="x", hint="y", at_key=True, is_warning=True)],
        libraries=["numpy"],
        pools={0: "Pool"},
        token="t",
        is_last=True,
    )
    question = probe.Question(module="m", token="t", uses=[use()])
    assert probing._answer_of(probe._line_of(answer), question) == answer
