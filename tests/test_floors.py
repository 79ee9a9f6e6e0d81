"""The floors: a module imports only from lower ones. Every import counts: top-level, in a function, for types only."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "jobrunner"

# Module → floor. `sinks.*` is the package and every module in it. `""` is the package itself: it loads the API when asked for it.
FLOORS = {
    "": 0,
    "typed": -1,
    "finding": 1,
    "structs": 0,
    "errors": 1,
    "work": 1,
    "speech": 1,
    "loop": 1,
    "cpus": 1,
    "memory": 1,
    "items": 1,
    "hints": 1,
    "preflight.nested": 1,
    "preflight.signatures": 2,
    "preflight.probe": 3,
    "preflight.probing": 4,
    "preflight.shell": 3,
    "preflight.unused": 4,
    "preflight.capacity": 4,
    "preflight.rewritten": 4,
    "preflight.lines": 6,
    "preflight.surroundings": 7,
    "preflight.cautions": 8,
    "preflight": 0,
    "preflight.check": 5,
    "refused": 1,
    "system": 1,
    "processes": 2,
    "encoding": 1,
    "lifeline": 2,
    "outlet": 2,
    "masking": 3,
    "trust": 2,
    "captured": 2,
    "reasons": 2,
    "spilled": 2,
    "syncing": 2,
    "kinds": 1,
    "spec": 2,
    "expressions.*": 2,
    "walk": 1,
    "fingerprint": 2,
    "events": 1,
    "stream": 2,
    "eventschema": 3,
    "host.*": 2,
    "cloning": 1,
    "template": 3,
    "signals": 2,
    "sinks.terminal": 2,
    "sinks.readable": 3,
    "jobfile.*": 3,
    "starter": 4,
    "crontab": 5,
    "selection": 3,
    "executors.*": 4,
    "sinks.*": 4,
    "durations": 3,
    "journal": 3,
    "lock": 3,
    "slots": 3,
    "credentials": 4,
    "rundir": 4,
    "guard": 4,
    "plan.*": 4,
    "recorded": 5,
    "bind.*": 5,
    "flights": 5,
    "lanes": 5,
    "engine": 6,
    "cache": 6,
    "compiled": 5,
    "prepare": 6,
    "parts": 7,
    "recall": 7,
    "precedence": 7,
    "session": 8,
    "forecast": 9,
    "staleness": 9,
    "api": 9,
    "cli.*": 10,
    "__main__": 11,
}

# Packages whose modules may import one another, as long as it makes no circle. Sinks do not: each is an output of its own.
FAMILIES = ("bind", "cli", "executors", "expressions", "host", "jobfile", "plan")

PURE = ("time", "datetime", "os", "threading", "subprocess")

# Module → what it must not import, with the reason that a failure prints.
WALLS = {
    "engine": (("jobrunner.executors",), "the engine is handed its executors, so that a test can hand it a fake"),
    "sinks.*": (("jobrunner.plan", "jobrunner.engine"), "what a sink needs is in the event, so that a journal can be replayed"),
    "plan.*": (PURE, "a plan is pure: `now` is an argument"),
    "bind.*": (PURE, "binding is pure: it turns a job into a plan and does nothing else"),
    "spec": (("os", "pathlib", "io", "sys"), "the models do no I/O, so that the schema is one call"),
}

# Module → all that it may import of ours. Together with STANDARD_ONLY this keeps a worker's start cheap.
SMALL = {"structs", "typed"}
ONLY = {
    "work": {"structs", "typed"},
    "speech": set(),
    "walk": set(),
    "fingerprint": {"walk", "structs", "typed"},
    "host.*": {"work", "speech", "system", "structs", "typed", "host"},
    "preflight.signatures": {"hints", "structs", "typed"},
    "preflight.probe": {"host", "system", "hints", "preflight", "structs", "typed"},
    "guard": {"processes", "system", "refused", "lifeline", "journal", "events", "stream", "errors", "structs", "typed"},
    "executors.*": {"work", "speech", "loop", "host", "template", "executors", "processes", "system", "encoding", *SMALL},
}

# A worker must not pay for pydantic and YAML.
STANDARD_ONLY = (
    "typed",
    "structs",
    "work",
    "speech",
    "fingerprint",
    "host",
    "host.begin",
    "host.foreign",
    "host.frames",
    "host.in_order",
    "host.lane",
    "host.modes",
    "host.port",
    "host.resources",
    "host.shelf",
    "host.single",
    "host.threads",
    "system",
    "processes",
    "lifeline",
    "preflight.probe",
    "preflight.signatures",
    "preflight.nested",
    "hints",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One import statement's one name: `module` is absolute and dotted, `line` counts from 1."""

    module: str
    line: int


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below it; a package is named as its directory."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def imports_of(source: str, *, package: str, known: set[str]) -> Iterator[Import]:
    """Every import in `source`, wherever it stands. `package` is what a relative import counts from; `known` are our modules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(module=alias.name, line=node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            for alias in node.names:
                yield Import(module=_imported_from(base, alias.name, known), line=node.lineno)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parents = package.split(".")
    kept = parents[: len(parents) - node.level + 1]
    return ".".join([*kept, node.module] if node.module else kept)


def _imported_from(base: str, name: str, known: set[str]) -> str:
    """The module that `from base import name` leads to: the package hands on what the API has, its version apart."""
    if f"{base}.{name}" in known:
        return f"{base}.{name}"
    return f"{PACKAGE}.api" if base == PACKAGE and name != "__version__" else base


def imports(module: str) -> list[Import]:
    """The imports of one of our modules."""
    path = MODULES[module]
    full = _full(module)
    package = full if path.name == "__init__.py" else full.rpartition(".")[0]
    known = {_full(name) for name in MODULES}
    return list(imports_of(path.read_text(encoding="utf-8"), package=package, known=known))


def _full(module: str) -> str:
    return f"{PACKAGE}.{module}" if module else PACKAGE


def _ours(found: Import) -> str | None:
    """The name below the package, None for what is not ours."""
    if found.module == PACKAGE:
        return ""
    return found.module.removeprefix(f"{PACKAGE}.") if found.module.startswith(f"{PACKAGE}.") else None


def row_of(module: str) -> str | None:
    """The row of a table that speaks of `module`: its own, or that of its package."""
    family = f"{module.partition('.')[0]}.*"
    return module if module in FLOORS else family if family in FLOORS else None


def floor_of(module: str) -> int | None:
    row = row_of(module)
    return None if row is None else FLOORS[row]


def _family(module: str) -> str | None:
    head = module.partition(".")[0]
    return head if head in FAMILIES else None


def _is_under(name: str, top: str) -> bool:
    return name == top or name.startswith(f"{top}.")


def _where(module: str, found: Import) -> str:
    return f"{MODULES[module].relative_to(ROOT)}:{found.line}: imports {found.module}"


def _assert_none(broken: list[str]) -> None:
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_floor(module: str) -> None:
    assert floor_of(module) is not None, f"{MODULES[module].relative_to(ROOT)} is in no row of FLOORS: give it a floor"


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_a_module_imports_only_from_lower_floors(module: str) -> None:
    broken = []
    for found in imports(module):
        if (other := _ours(found)) is None or (_family(module) and _family(module) == _family(other)):
            continue
        mine, theirs = floor_of(module), floor_of(other)
        if theirs is None or mine is None or theirs >= mine:
            broken.append(f"{_where(module, found)}, which is on floor {theirs}; {module} is on floor {mine}")
    _assert_none(broken)


def test_imports_run_in_no_circle() -> None:
    graph = {module: {other for found in imports(module) if (other := _ours(found))} for module in MODULES if module}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("imports run in a circle: " + " → ".join(map(_full, reversed(error.args[1]))))


@pytest.mark.parametrize("module", [name for name in MODULES if row_of(name) in WALLS])
def test_a_wall_is_kept(module: str) -> None:
    forbidden, reason = WALLS[row_of(module) or ""]
    _assert_none(
        [
            f"{_where(module, found)}, but {reason}"
            for found in imports(module)
            if any(_is_under(found.module, top) for top in forbidden)
        ]
    )


@pytest.mark.parametrize("module", [name for name in MODULES if row_of(name) in ONLY])
def test_a_module_with_a_short_list_imports_only_that_of_ours(module: str) -> None:
    allowed = ONLY[row_of(module) or ""]
    _assert_none(
        [
            f"{_where(module, found)}; of ours it may import only {', '.join(sorted(allowed))}"
            for found in imports(module)
            if (other := _ours(found)) and not any(_is_under(other, top) for top in allowed)
        ]
    )


@pytest.mark.parametrize("module", [name for name in STANDARD_ONLY if name in MODULES])
def test_what_runs_in_a_worker_imports_only_the_standard_library(module: str) -> None:
    _assert_none(
        [
            f"{_where(module, found)}, which is not in the standard library: every worker would pay for it"
            for found in imports(module)
            if _ours(found) is None and found.module.partition(".")[0] not in sys.stdlib_module_names
        ]
    )


def test_what_runs_in_a_worker_loads_without_any_installed_package() -> None:
    _load_in_a_bare_interpreter("import " + ", ".join(_full(name) for name in STANDARD_ONLY if name in MODULES))


def test_the_package_itself_loads_nothing_of_ours_eagerly() -> None:
    loaded = _load_in_a_bare_interpreter(f"import {PACKAGE}, sys; print(*sorted(m for m in sys.modules if '{PACKAGE}.' in m))")
    assert loaded == "", f"import {PACKAGE} also loads {loaded}"


def _load_in_a_bare_interpreter(code: str) -> str:
    """What `code` prints in an interpreter that sees this project and the standard library, no site-packages."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import jobrunner.plan", "jobrunner.plan"),
        ("import jobrunner.plan as p", "jobrunner.plan"),
        ("from jobrunner import plan", "jobrunner.plan"),
        ("from jobrunner.plan import Plan", "jobrunner.plan"),
        ("from jobrunner.plan import *", "jobrunner.plan"),
        ("from jobrunner import __version__", "jobrunner"),
        ("from jobrunner import run", "jobrunner.api"),
        ("from . import log", "jobrunner.sinks.log"),
        ("from .log import write", "jobrunner.sinks.log"),
        ("from ..plan import Plan", "jobrunner.plan"),
        ("from .. import plan", "jobrunner.plan"),
        ("def f():\n    import jobrunner.plan", "jobrunner.plan"),
        ("if TYPE_CHECKING:\n    from jobrunner.plan import Plan", "jobrunner.plan"),
        ("try:\n    import jobrunner.plan\nexcept ImportError:\n    pass", "jobrunner.plan"),
    ],
)
def test_an_import_is_seen_however_it_is_written(source: str, module: str) -> None:
    known = {"jobrunner", "jobrunner.plan", "jobrunner.sinks", "jobrunner.sinks.log"}
    assert [found.module for found in imports_of(source, package="jobrunner.sinks", known=known)] == [module]
