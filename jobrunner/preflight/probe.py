"""What `validate --imports` runs in a process of its own: it imports targets and looks at them. Standard library only.

    question (a line of JSON: a module, its uses) ──▶ import, look up, match, read the source ──▶ answer (a line of JSON)

Whatever a module does when it is imported, it does here: in a fresh interpreter, which sees what a host would see.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import faulthandler
import importlib
import inspect
import json
import json.encoder
import linecache
import os
import pkgutil
import signal
import socket
import sys
import traceback
import types
import typing
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from functools import cache
from typing import Any

from jobrunner import host, system
from jobrunner.hints import did_you_mean
from jobrunner.preflight import nested, signatures
from jobrunner.preflight.nested import pool_in
from jobrunner.preflight.signatures import Argument, Remark, Use, misfits
from jobrunner.structs import field, struct

_LIBRARIES = ("numpy", "scipy", "torch", "sklearn")
"""What computes with threads of its own: those of BLAS or OpenMP."""
_LONGEST_SAID = 500


@struct
class Question:
    """A module to import, and what is used of it. The answer repeats `token`, which nothing imported before can know."""

    module: str
    token: str
    uses: list[Use]


@struct
class Answer:
    """What came of one module. `has_failed`: it could not be imported. `libraries` are those that compute with threads;
    `pools` tells for a use what its function starts itself, and where. `is_last`: it has changed what the probe itself works
    with, so that other modules are to be asked about elsewhere."""

    module: str
    token: str = ""
    has_failed: bool = False
    remarks: list[Remark] = field(default_factory=list)
    libraries: list[str] = field(default_factory=list)
    pools: dict[int, str] = field(default_factory=dict)
    is_last: bool = False


def question_of(line: bytes) -> Question:
    """The question in one line."""
    fields = json.loads(line)
    return Question(module=fields["module"], token=fields["token"], uses=[_use_of(each) for each in fields["uses"]])


def _use_of(fields: dict[str, Any]) -> Use:
    args = [Argument(**each) for each in fields.pop("args")]
    kwargs = {name: Argument(**each) for name, each in fields.pop("kwargs").items()}
    return Use(**fields, args=args, kwargs=kwargs)


# --- the process -------------------------------------------------------------------------------------------------------------


def main(fd: int, folder: str, limit: float, parent: int) -> None:
    """Answer questions until nobody asks, then end without what the imported modules would do at their end.

    `folder` is searched first; after `limit` seconds the stack of an import that goes on is written to stderr.
    """
    system.die_with(parent)
    connection = socket.socket(fileno=fd)
    connection.set_inheritable(False)
    sys.path.insert(0, folder)
    host.prefer_modules_in([folder])
    sys.argv = ["default-1"]  # the name of a worker, as in a host
    stack = os.dup(2)
    tools = _tools()
    connection.sendall(b"ready\n")
    for line in connection.makefile("rb"):
        question = question_of(line)
        faulthandler.dump_traceback_later(limit, file=stack)
        answer = probed(question.module, question.uses)
        faulthandler.cancel_dump_traceback_later()
        _flush()
        try:
            connection.sendall(_line_of(replace(answer, token=question.token, is_last=_have_changed(tools))))
        except OSError:  # the module has closed it: whoever waits for the answer sees that, and ends this process
            signal.pause()
    os._exit(0)


_dumps = json.dumps
"""As it is before anybody else is imported."""


def _line_of(answer: Answer) -> bytes:
    """Names and messages may hold what UTF-8 cannot."""
    return _dumps(asdict(answer), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


Tools = list[tuple[dict[str, Any], str, object]]


def _tools() -> Tools:
    """The functions and classes that this process works with, by the module that holds them, and what they are now."""
    ours = [host, nested, signatures, sys.modules[__name__]]
    modules = [ast, builtins, importlib, inspect, json, json.encoder, linecache, os, pkgutil, traceback, types, typing, *ours]
    return [(vars(module), name, value) for module in modules for name, value in vars(module).items() if callable(value)]


def _have_changed(tools: Tools) -> bool:
    for names, name, value in tools:  # noqa: SIM110  any() may be among what was changed
        if name not in names or names[name] is not value:
            return True
    return False


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # a module may have closed or replaced it
            continue


def probed(module: str, uses: list[Use]) -> Answer:
    """Import a module and look at what is used of it. Never raises: whatever the module does is in the answer."""
    before = frozenset(sys.modules)
    try:
        imported = importlib.import_module(module)
    except BaseException as error:  # sys.exit() and KeyboardInterrupt included
        message, hint = _told(module, error)
        remarks = [Remark(use=use.id, where=(use.key,), message=message, hint=hint) for use in uses]
        return Answer(module=module, has_failed=True, remarks=remarks)
    answer = Answer(module=module)
    with contextlib.suppress(Exception):  # anything may stand in sys.modules
        answer.libraries.extend(_libraries(imported, before))
    for use in uses:
        try:
            _look_up(imported, use, answer)
        except BaseException as error:  # attributes, signatures and annotations may run anybody's code
            answer.remarks.append(_at_target(use, f"looking at {use.target} raised {_last_line(error)}"))
    return answer


# --- imports that fail -------------------------------------------------------------------------------------------------------


def _told(module: str, error: BaseException) -> tuple[str, str]:
    try:
        return _why_not(module, error)
    except Exception:  # the error, or what stands in sys.modules, is not what it looks like
        return f"{module!r} cannot be imported: {type(error).__name__}", ""


def _why_not(module: str, error: BaseException) -> tuple[str, str]:
    """What stands in the way of an import, and what to do. The traceback goes to stderr."""
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return _not_found(error.name)
    _print_traceback(error)
    said = _last_line(error)
    if isinstance(error, SystemExit):
        hint = 'What runs it as a script belongs below if __name__ == "__main__".'
        return f"{module!r} ends the process when it is imported ({said}{_place(error)})", hint
    return f"{module!r} cannot be imported: {said}{_place(error)}", ""


def _last_line(error: BaseException) -> str:
    """`ValueError: no such thing`, whatever the methods of the error do."""
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines() or ["an error"]
    return lines[-1] if len(lines[-1]) <= _LONGEST_SAID else lines[-1][: _LONGEST_SAID - 1] + "…"


def _not_found(missing: str) -> tuple[str, str]:
    above, _, name = missing.rpartition(".")
    if above in sys.modules:
        path = list(getattr(sys.modules[above], "__path__", []))
        message = f"there is no module {missing!r}{_but_no_file(path, name)}"
        return message, did_you_mean(missing, _modules_in(path, f"{above}."))
    folder = sys.path[0]
    if odd := _but_no_file([folder], missing):
        return f"there is no module {missing!r}{odd}", ""
    names = _modules_in([folder], "")
    deeper = [f"{name}.{missing}" for name in sorted(_folders(folder)) if os.path.exists(f"{folder}/{name}/{missing}.py")]
    hint = f"Did you mean {deeper[0]!r}?" if deeper else did_you_mean(missing, names)
    return f"there is no module {missing!r}, neither beside the job file nor on Python's path", hint


def _but_no_file(path: Collection[str], name: str) -> str:
    """What stands in the place of a module and is none: a FIFO, a directory, a link that leads nowhere."""
    is_odd = any(os.path.lexists(f"{folder}/{name}.py") and not os.path.isfile(f"{folder}/{name}.py") for folder in path)
    return f": {name}.py is not a regular file" if is_odd else ""


def _modules_in(path: Collection[str], prefix: str) -> list[str]:
    """Those that can be imported: for pkgutil a FIFO is one, too."""
    names = (each.name for each in pkgutil.iter_modules(list(path), prefix))
    return [name for name in names if not _but_no_file(path, name.removeprefix(prefix))]


def _folders(folder: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder) if entry.name.isidentifier() and entry.is_dir()]
    except OSError:
        return []


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Where it was raised, without this module and what Python itself does to import."""
    frames = traceback.extract_tb(error.__traceback__)
    passed = (__file__, importlib.__file__)
    return [frame for frame in frames if frame.filename not in passed and not frame.filename.startswith("<frozen")]


def _place(error: BaseException) -> str:
    """`, nightly.py line 3`: the last place beside the job file that led there, else the last one."""
    if isinstance(error, SyntaxError) and error.filename:
        return f", {os.path.basename(error.filename)} line {error.lineno}"
    frames = _frames(error)
    own = [frame for frame in frames if frame.filename.startswith(sys.path[0] + os.sep)]
    return "".join(f", {os.path.basename(frame.filename)} line {frame.lineno}" for frame in (own or frames)[-1:])


def _print_traceback(error: BaseException) -> None:
    try:
        shown = traceback.TracebackException.from_exception(error)
        shown.stack = traceback.StackSummary.from_list(_frames(error))
        shown.print(file=sys.__stderr__)
    except Exception:  # its own methods may raise anything: then the message has to do
        return


# --- what a target is --------------------------------------------------------------------------------------------------------


def _look_up(module: types.ModuleType, use: Use, answer: Answer) -> None:
    """Add to `answer` what there is to say about the callable that a use names."""
    found: Any = module
    for name in use.target.partition(":")[2].split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            answer.remarks.append(_nothing_called(name, found, use))
            return
    if not callable(found):
        answer.remarks.append(_at_target(use, f"{use.target} is not callable but {type(found).__name__}"))
        return
    answer.remarks.extend(_unfit(found, use))
    if told := _own_pool(found):
        answer.pools[use.id] = told


def _nothing_called(name: str, place: Any, use: Use) -> Remark:
    names = [each for each in dir(place) if not each.startswith("_")]
    return _at_target(use, f"there is no {name!r} in {_called(place)}", did_you_mean(name, names))


def _called(place: Any) -> str:
    """`nightly.py` for the module in that file, else the name that it has in Python."""
    name, file = str(getattr(place, "__name__", "it")), getattr(place, "__file__", None)
    if isinstance(place, types.ModuleType) and file is None and hasattr(place, "__path__"):
        return f"{name}, a folder without __init__.py"
    base = os.path.basename(file) if isinstance(file, str) else ""
    return base if base.endswith(".py") and base != "__init__.py" else name


def _at_target(use: Use, message: str, hint: str = "") -> Remark:
    return Remark(use=use.id, where=(use.key,), message=message, hint=hint)


def _unfit(found: Callable[..., Any], use: Use) -> list[Remark]:
    if use.key == "executor":
        message = f"{use.target} cannot be called with max_workers, as an executor is"
        return [_at_target(use, message)] if any(not each.is_warning for each in misfits(found, use)) else []
    if inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        hint = "Return a list instead of using yield."
        return [_at_target(use, f"{use.target} is a generator function: nothing of it would run", hint)]
    return list(misfits(found, use))


# --- libraries that compute with threads -------------------------------------------------------------------------------------


def _libraries(module: types.ModuleType, before: frozenset[str]) -> list[str]:
    """Those that this module loads: it is the first one that does, or what it holds leads to them."""
    loaded = [name for name in _LIBRARIES if name in sys.modules]
    if not (shared := [name for name in loaded if name in before]):
        return loaded
    reached = _packages_behind(module)
    return [name for name in loaded if name not in shared or name in reached]


def _packages_behind(module: types.ModuleType) -> set[str]:
    """The packages, outside the standard library, that a module's names lead to, directly or through other modules."""
    packages: set[str] = set()
    seen, rest = {module.__name__}, [module]
    while rest:
        for origin in {_origin(value) for value in list(vars(rest.pop()).values())} - seen:
            seen.add(origin)
            package = origin.partition(".")[0]
            if origin in sys.modules and package not in sys.stdlib_module_names:
                packages.add(package)
                rest += [] if package in _LIBRARIES else [sys.modules[origin]]
    return packages


def _origin(value: object) -> str:
    """The module that a value of a module is, or comes from. Only of what runs nobody's code when it is asked."""
    if type(value) is types.ModuleType:
        return value.__name__
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        origin = getattr(value, "__module__", None)
        return origin if isinstance(origin, str) else ""
    return ""


# --- pools that a target starts itself ---------------------------------------------------------------------------------------


def _own_pool(found: Callable[..., Any]) -> str:
    """`ProcessPoolExecutor, nightly.py line 14`: the first pool that a function starts, or "" where none is seen."""
    code = getattr(inspect.unwrap(found), "__code__", None)
    return _pool_of(code) if isinstance(code, types.CodeType) else ""


@cache
def _pool_of(code: types.CodeType) -> str:
    try:
        started = pool_in("".join(linecache.getlines(code.co_filename)), code.co_name, code.co_firstlineno)
    except (SyntaxError, ValueError, RecursionError):  # the file has changed since, or was never Python
        return ""
    return f"{started[0]}, {os.path.basename(code.co_filename)} line {started[1]}" if started else ""
