"""The code of modules that targets are in: found and read once, by a template, and run by each host that imports them.

Nothing of a module runs in the template, so that what it draws at random, opens or starts when it is imported is each host's
own. What is read of it is what each host would have found and read: its place, and its code as of its last change.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType

_NOTHING = "_jobrunner_nothing"
_Place = tuple[int, int, int]


class Shelf:
    """A finder of modules that stands before all others, and knows those that it was asked to look for."""

    def __init__(self) -> None:
        self._specs: dict[str, tuple[ModuleSpec, list[str] | None]] = {}
        """With the folders in which it was looked for: None for those of sys.path."""
        self._places: dict[str, _Place] = {}
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Sequence[str] | None = None, _: object = None) -> ModuleSpec | None:
        """As the import system asks for it. A package that has other folders than were looked into has other modules."""
        spec, folders = self._specs.get(name) or (None, None)
        return spec if folders is None or folders == path else None

    def look(self, target: str) -> None:
        """Have ready what a host needs to import the module of this target, and the packages that it is in."""
        folders: list[str] | None = None
        for name in _with_parents(target.partition(":")[0]):
            if name in sys.modules:
                folders = getattr(sys.modules[name], "__path__", None)
            elif (spec := self._looked_for(name, folders)) is not None:
                folders = spec.submodule_search_locations
            else:
                return
            if folders is None:
                return

    def _looked_for(self, name: str, folders: list[str] | None) -> ModuleSpec | None:
        """None where it is not to be had as plain source, or not now: hosts import it as if this were not here."""
        known = self._specs.get(name)
        if known is not None and self._places[name] == _place(known[0]):
            return known[0]
        self._specs.pop(name, None)
        try:
            spec = _found(name, folders)
            if spec is None or type(spec.loader) is not SourceFileLoader or not os.path.exists(spec.cached or ""):
                return None  # what is not compiled yet takes its time, and the template is waited for: a host does that
            place, code = _place(spec), spec.loader.get_code(name)
        except Exception:  # whatever is wrong with it is told by whoever imports it
            return None
        if place is None or code is None:
            return None
        self._put(spec, code, place, folders)
        return spec

    def _put(self, spec: ModuleSpec, code: CodeType, place: _Place, folders: list[str] | None) -> None:
        spec.loader.get_code = lambda _: code  # type: ignore[union-attr]  # what has found it is what a module tells of itself
        self._specs[spec.name], self._places[spec.name] = (spec, folders), place

    def rehearse(self) -> None:
        """Import a module as a host does: what the interpreter writes into code until it knows it is not each host's to copy."""
        spec = ModuleSpec(_NOTHING, SourceFileLoader(_NOTHING, __file__), origin=__file__)
        self._put(spec, compile("", __file__, "exec"), (0, 0, 0), None)
        importlib.import_module(_NOTHING)
        del sys.modules[_NOTHING], self._specs[_NOTHING], self._places[_NOTHING]


def _with_parents(module: str) -> Iterator[str]:
    """`a`, `a.b`, `a.b.c`."""
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        yield name


def _found(name: str, folders: list[str] | None) -> ModuleSpec | None:
    """As an import would find it."""
    for finder in sys.meta_path[1:]:
        spec = finder.find_spec(name, folders)
        if spec is not None:
            return spec
    return None


def _place(spec: ModuleSpec) -> _Place | None:
    """What changes when its source does; None where that cannot be told."""
    try:
        status = os.stat(spec.origin or "")
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
