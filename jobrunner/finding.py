"""Modules of jobrunner are found where they must be: what the path finder does for any module is half the time of a small one.

jobrunner.plan.node ─▶ FOLDER/plan/__pycache__/node.cpython-311.pyc, as old as FOLDER/plan/node.py says ─▶ executed
                   └─ not there, not of it, not by its time ─▶ None: everybody else looks
"""

from __future__ import annotations

import _frozen_importlib_external as external
import os
import sys
from _imp import _fix_co_filename  # type: ignore[attr-defined]
from marshal import loads

import jobrunner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec, SourceFileLoader
    from types import CodeType, ModuleType
else:
    SourceFileLoader = external.SourceFileLoader
    ModuleSpec = type(jobrunner.__spec__)

_HEAD = 16
"""Bytes before the code: whose it is, how it is checked, and time and size of the source."""
_TAIL = f".{sys.implementation.cache_tag}.pyc"
_FOLDER = os.path.dirname(jobrunner.__file__)


class _Loader(SourceFileLoader):
    """As the usual one, with the code at hand."""

    def __init__(self, name: str, path: str, code: bytes) -> None:
        super().__init__(name, path)
        self._code: bytes | None = code

    def get_code(self, fullname: str) -> CodeType | None:
        data, self._code = self._code, None
        if data is None:
            return super().get_code(fullname)
        code: CodeType = loads(data)
        _fix_co_filename(code, self.path)
        return code


class _Finder:
    """Finds what belongs to jobrunner and has been compiled; all else it leaves to others."""

    @staticmethod
    def find_spec(name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith("jobrunner."):
            return None
        stem, _, last = f"{_FOLDER}/{name[10:].replace('.', '/')}".rpartition("/")
        return _found(name, stem, last) or _found(name, f"{stem}/{last}", "__init__")


def _found(name: str, folder: str, last: str) -> ModuleSpec | None:
    source, cached = f"{folder}/{last}.py", f"{folder}/__pycache__/{last}{_TAIL}"
    try:
        with open(cached, "rb", buffering=0) as file:
            data = file.readall()
        found = os.stat(source)
    except OSError:
        return None
    times = int(found.st_mtime).to_bytes(8, "little")[:4] + found.st_size.to_bytes(8, "little")[:4]
    if data[:_HEAD] != external.MAGIC_NUMBER + bytes(4) + times:
        return None
    spec = ModuleSpec(name, _Loader(name, source, data[_HEAD:]), origin=source, is_package=last == "__init__")
    spec.has_location, spec.cached = True, cached
    if last == "__init__":
        spec.submodule_search_locations = [folder]
    return spec


def load_paths() -> None:
    """Load `pathlib` without `urllib.parse`, which it needs for URLs only, and which takes four times as long as itself.

    Whoever asks a path for its URL gets the real one, loaded then; so does whoever imports that module.
    """
    if "urllib.parse" in sys.modules or "pathlib" in sys.modules:
        return
    stand_in = type(sys)("urllib.parse")
    stand_in.quote_from_bytes = _quoted  # type: ignore[attr-defined]  # a module has what it is given
    sys.modules["urllib.parse"] = stand_in
    try:
        import pathlib  # noqa: F401  # for those who import it later
    finally:
        del sys.modules["urllib.parse"]


def _quoted(data: bytes, safe: str = "/") -> str:
    from urllib.parse import quote_from_bytes

    return quote_from_bytes(data, safe)


def install() -> None:
    """Only where modules come from files in the usual way."""
    if type(jobrunner.__loader__) is SourceFileLoader and sys.pycache_prefix is None and not sys.flags.optimize:
        sys.meta_path.insert(0, _Finder)
