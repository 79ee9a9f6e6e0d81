"""The code of modules that targets are in: found and read once, by a template, and run by each host that imports them.

Nothing of a module runs in the template, so that what it draws at random, opens or starts when it is imported is each host's
own. What is read of it is what each host would have found and read: its place, and its code as of its last change.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterator, Sequence, Set
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from types import CodeType, ModuleType

from jobrunner import work
from jobrunner.structs import struct

_NOTHING = "_jobrunner_nothing"
_Place = tuple[int, int, int]


@struct(kw_only=False)
class _Book:
    """What is known of a module: `folders` are those in which it was looked for, None for those of sys.path."""

    spec: ModuleSpec
    folders: list[str] | None
    place: _Place
    code: CodeType
    module: ModuleType | None
    """Made, not run: of one that is in no package."""


class Shelf:
    """A finder of modules that stands before all others, and knows those that it was asked to look for.

    Those that are `rare` are imported once where one of these names them.
    """

    def __init__(self, rare: Set[str]) -> None:
        self._rare = set(rare)
        self._books: dict[str, _Book] = {}
        self._targets: dict[str, list[_Book]] = {}
        """Those that are to be imported for each target, where all of them are known."""
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Sequence[str] | None = None, _: object = None) -> ModuleSpec | None:
        """As the import system asks for it. A package that has other folders than were looked into has other modules."""
        book = self._books.get(name)
        return book.spec if book is not None and book.folders in (None, path) else None

    def look(self, target: str) -> None:
        """Have ready what a host needs to import the module of this target, and the packages that it is in."""
        books = self._targets.get(target)
        if books is None:
            books = self._look_anew(target)
        for book in books:
            if _place(book.spec) != book.place:
                books = self._look_anew(target)
                break
        work.at_hand.clear()
        if len(books) == 1 and (module := books[0].module) is not None:
            work.at_hand[module.__name__] = (module, books[0].code)

    def _look_anew(self, target: str) -> list[_Book]:
        """Empty where some of it is not to be had."""
        self._targets.pop(target, None)
        books: list[_Book] = []
        folders: list[str] | None = None
        for name in _with_parents(target.partition(":")[0]):
            if name in sys.modules:
                folders = getattr(sys.modules[name], "__path__", None)
            elif (book := self._looked_for(name, folders)) is not None:
                folders = book.spec.submodule_search_locations
                books.append(book)
            else:
                return []
            if folders is None:
                break
        self._targets[target] = books
        return books

    def _looked_for(self, name: str, folders: list[str] | None) -> _Book | None:
        """None where it is not to be had as plain source, or not now: hosts import it as if this were not here."""
        known = self._books.get(name)
        if known is not None and known.place == _place(known.spec):
            return known
        self._books.pop(name, None)
        try:
            spec = _found(name, folders)
            if spec is None or type(spec.loader) is not SourceFileLoader or not os.path.exists(spec.cached or ""):
                return None  # what is not compiled yet takes its time, and the template is waited for: a host does that
            place, code = _place(spec), spec.loader.get_code(name)
        except Exception:  # whatever is wrong with it is told by whoever imports it
            return None
        if place is None or code is None:
            return None
        self._import_rare(code)
        return self._put(spec, code, place, folders)

    def _import_rare(self, code: CodeType) -> None:
        for name in self._rare.intersection(code.co_names):
            self._rare.discard(name)
            with contextlib.suppress(Exception):  # whoever needs it will be told
                importlib.import_module(name)
        gc.freeze()

    def _put(self, spec: ModuleSpec, code: CodeType, place: _Place, folders: list[str] | None) -> _Book:
        spec.loader.get_code = lambda _: code  # type: ignore[union-attr]  # what has found it is what a module tells of itself
        book = self._books[spec.name] = _Book(spec, folders, place, code, None if "." in spec.name else _made(spec))
        return book

    def rehearse(self) -> None:
        """Import a module in both ways of hosts: what the interpreter writes into code until it knows it they need not copy."""
        spec = ModuleSpec(_NOTHING, SourceFileLoader(_NOTHING, __file__), origin=__file__)
        code = compile("", __file__, "exec")
        book = self._put(spec, code, (0, 0, 0), None)
        importlib.import_module(_NOTHING)
        work.at_hand[_NOTHING] = (book.module, code)
        work.resolve.__wrapped__(f"{_NOTHING}:__spec__.__class__")  # what it has found once it does not look for again
        del sys.modules[_NOTHING], self._books[_NOTHING]


def _made(spec: ModuleSpec) -> ModuleType:
    """As the import system makes it, up to where its code would run."""
    module = module_from_spec(spec)
    module.__dict__["__builtins__"] = builtins.__dict__
    return module


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
