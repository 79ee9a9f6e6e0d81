"""Functions of nightly.yaml: list a tree, checksum and measure its files, verify the archive of it, write the database.

A path travels as text relative to the root. A file name that is not UTF-8 cannot travel as JSON: the file is skipped and counted.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sqlite3
import stat
import sysconfig
import tarfile
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypedDict

LEFT_OUT_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages"})
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
DECISIONS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.match_case)

SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE skipped (reason TEXT PRIMARY KEY, files INTEGER NOT NULL);
CREATE TABLE files (path TEXT PRIMARY KEY, suffix TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE modules (
    path TEXT PRIMARY KEY REFERENCES files, lines INTEGER NOT NULL, functions INTEGER NOT NULL, classes INTEGER NOT NULL,
    branches INTEGER NOT NULL, documented INTEGER NOT NULL, documentable INTEGER NOT NULL, error TEXT
);
CREATE TABLE top_functions (
    path TEXT NOT NULL REFERENCES modules, name TEXT NOT NULL, line INTEGER NOT NULL, lines INTEGER NOT NULL,
    complexity INTEGER NOT NULL
);
CREATE INDEX files_by_size ON files (size);
CREATE INDEX files_by_sha256 ON files (sha256, size);
CREATE INDEX top_functions_by_complexity ON top_functions (complexity);
CREATE INDEX top_functions_by_lines ON top_functions (lines);
"""


class Listing(TypedDict):
    """What is in a tree: paths in byte order, and how many were skipped for which reason."""

    root: str
    files: list[str]
    python_files: list[str]
    skipped: dict[str, int]


class Checksum(TypedDict):
    """One file: bytes read, and their SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


class Function(TypedDict):
    """One function: dotted name, first line, lines, and cyclomatic complexity."""

    name: str
    line: int
    lines: int
    complexity: int


class Metrics(TypedDict):
    """One Python file. `documented` of its `documentable` modules, classes and functions have a docstring.

    `top_functions` are its most complex and its longest functions. `error` says why the file does not parse; the counts
    but `lines` are then 0.
    """

    path: str
    lines: int
    functions: int
    classes: int
    branches: int
    documented: int
    documentable: int
    top_functions: list[Function]
    error: str | None


class Verified(TypedDict):
    """An archive that holds what it should: its files, their bytes, and its own bytes."""

    files: int
    bytes: int
    archive_bytes: int


@dataclass(slots=True, kw_only=True)
class _Scope:
    """A module, class or function: dotted name within the module, and the decisions of its own code, without inner scopes."""

    name: str
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    decisions: int = 0


class ArchiveMismatch(Exception):
    """The archive is damaged, or does not hold exactly the files that were checksummed."""


# ── list ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def list_files(root: str | None, out: str) -> Listing:
    """The regular, readable files under `root` (default: the standard library), without compiled ones and without `out`.

    Writes them to `out`/files.list as well, each ended by a NUL byte, for tar. Raises NotADirectoryError for a bad root,
    ValueError where `out` is the root.
    """
    top = os.path.realpath(root or sysconfig.get_path("stdlib"))
    if not os.path.isdir(top):
        raise NotADirectoryError(f"{top} is not a folder; give the tree to audit with --set root=FOLDER")
    if top == os.path.realpath(out):
        raise ValueError(f"{top} is the tree itself; give the results a folder of their own with --set out=FOLDER")
    os.makedirs(out, exist_ok=True)
    skipped: Counter[str] = Counter()
    files = sorted(_walk(top, os.path.realpath(out), skipped), key=os.fsencode)
    # "./" keeps a name like "--help" from being an option of tar.
    Path(out, "files.list").write_bytes(b"".join(os.fsencode(f"./{path}\0") for path in files))
    python_files = [path for path in files if path.endswith(".py")]
    print(f"{len(files)} files under {top}, {len(python_files)} of them Python; skipped: {dict(skipped) or 'none'}")
    return Listing(root=top, files=files, python_files=python_files, skipped=dict(sorted(skipped.items())))


def _walk(top: str, out: str, skipped: Counter[str]) -> Iterator[str]:
    """Paths below `top`, relative to it; what is left out is counted in `skipped`."""

    def count_unreadable(_: OSError) -> None:
        skipped["folder that cannot be read"] += 1

    for folder, folders, names in os.walk(top, onerror=count_unreadable):
        for name in tuple(folders):
            if reason := _why_folder_skipped(os.path.join(folder, name), out):
                skipped[reason] += 1
                folders.remove(name)
        for name in names:
            path = os.path.join(folder, name)
            if reason := _why_skipped(path):
                skipped[reason] += 1
            else:
                yield os.path.relpath(path, top)


def _why_folder_skipped(path: str, out: str) -> str | None:
    if os.path.islink(path):
        return "symbolic link"
    if path == out:
        return "folder of the results"
    name = os.path.basename(path)
    return f"folder {name}" if name in LEFT_OUT_FOLDERS else None


def _why_skipped(path: str) -> str | None:
    try:
        path.encode()
        kind = os.lstat(path).st_mode
    except UnicodeEncodeError:
        return "name that is not UTF-8"
    except OSError:
        return "file that vanished"
    if stat.S_ISLNK(kind):
        return "symbolic link"
    if not stat.S_ISREG(kind):
        return "neither file nor folder"
    if path.endswith((".pyc", ".pyo")):
        return "compiled Python"
    return None if os.access(path, os.R_OK) else "file that cannot be read"


# ── checksum ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def sha256(root: str, path: str) -> Checksum:
    """Size and SHA-256 of one file. Large reads release the GIL: threads do this in parallel. Raises OSError."""
    with open(os.path.join(root, path), "rb", buffering=0) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Checksum(path=path, size=file.tell(), sha256=digest)


# ── metrics ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def code_metrics(root: str, path: str, top: int) -> Metrics:
    """Measure one Python file. One that does not parse is a result with its `error`, not a failure. Raises OSError."""
    source = Path(root, path).read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scopes = _scopes(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return _metrics(path, source, [], top, _why_not_parsed(error))
    return _metrics(path, source, scopes, top, None)


def _metrics(path: str, source: bytes, scopes: list[_Scope], top: int, error: str | None) -> Metrics:
    functions = [_function(scope) for scope in scopes if isinstance(scope.node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return Metrics(
        path=path,
        lines=len(source.splitlines()),
        functions=len(functions),
        classes=sum(isinstance(scope.node, ast.ClassDef) for scope in scopes),
        branches=sum(scope.decisions for scope in scopes),
        documented=sum(ast.get_docstring(scope.node, clean=False) is not None for scope in scopes),
        documentable=len(scopes),
        top_functions=_top(functions, top),
        error=error,
    )


def _why_not_parsed(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno})" if error.lineno else error.msg
    return f"{type(error).__name__}: {error}"


def _scopes(tree: ast.Module) -> list[_Scope]:
    """The module, and every class and function in it. Walks with a stack of its own: nesting cannot exhaust Python's."""
    scopes = [_Scope(name="", node=tree)]
    stack: list[tuple[ast.AST, _Scope]] = [(tree, scopes[0])]
    while stack:
        node, scope = stack.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, DEFINITIONS):
                inner = _Scope(name=f"{scope.name}.{child.name}".lstrip("."), node=child)
                scopes.append(inner)
                stack.append((child, inner))
            else:
                scope.decisions += _decisions(child)
                stack.append((child, scope))
    return scopes


def _decisions(node: ast.AST) -> int:
    """How many ways to go on a node adds, as McCabe counts them: `a and b and c` adds two, a comprehension its loop and ifs."""
    if isinstance(node, DECISIONS):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    return 1 + len(node.ifs) if isinstance(node, ast.comprehension) else 0


def _function(scope: _Scope) -> Function:
    node = scope.node
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    return Function(name=scope.name, line=node.lineno, lines=lines, complexity=1 + scope.decisions)


def _top(functions: list[Function], top: int) -> list[Function]:
    """The `top` most complex and the `top` longest functions, each once: enough for an exact top of the whole tree."""
    by_complexity = sorted(functions, key=lambda function: -function["complexity"])[:top]
    by_lines = sorted(functions, key=lambda function: -function["lines"])[:top]
    return by_complexity + [function for function in by_lines if function not in by_complexity]


# ── verify ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def verify(fresh: str, archive: str, checksums: list[Checksum]) -> Verified:
    """Read the fresh archive as a stream, compare every file in it, and only then put it in place of the archive before.

    Raises ArchiveMismatch when it holds anything but what was checksummed. Can be run again after a crash: where there is
    no fresh archive any more, the one in place is compared.
    """
    candidate = fresh if os.path.exists(fresh) else archive
    found = _digests(candidate)
    _compare(candidate, {checksum["path"]: checksum["sha256"] for checksum in checksums}, found)
    if candidate == fresh:
        os.replace(fresh, archive)
    print(f"{archive} holds exactly the {len(found)} files that were checksummed")
    size = sum(checksum["size"] for checksum in checksums)
    return Verified(files=len(found), bytes=size, archive_bytes=os.path.getsize(archive))


def _digests(archive: str) -> dict[str, str]:
    """SHA-256 of every member by its path; "" stands for one that is not a file. Raises ArchiveMismatch for a damaged archive."""
    found: dict[str, str] = {}
    try:
        with tarfile.open(archive, "r|gz", encoding="utf-8") as stream:
            for member in stream:
                # tar stores the second name of a hard-linked file as a link to the first, which came before it.
                linked = found.get(member.linkname.removeprefix("./"), "")
                found[member.name.removeprefix("./")] = linked if member.islnk() else _digest(stream, member)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ArchiveMismatch(f"{archive} cannot be read back: {error}") from error
    return found


def _digest(stream: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = stream.extractfile(member) if member.isreg() else None
    if file is None:
        return ""
    digest = hashlib.sha256()
    while block := file.read(1 << 18):
        digest.update(block)
    return digest.hexdigest()


def _compare(archive: str, expected: dict[str, str], found: dict[str, str]) -> None:
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    different = sorted(path for path in expected.keys() & found.keys() if expected[path] != found[path])
    wrong = (("missing", missing), ("not expected", unexpected), ("different", different))
    said = [f"{len(paths)} {what} (the first is {paths[0]!r})" for what, paths in wrong if paths]
    if said:
        raise ArchiveMismatch(f"{archive} is not what was checksummed: {', '.join(said)}")


# ── database ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_database(
    database: str, checksums: list[Checksum], metrics: list[Metrics], facts: dict[str, str | int], skipped: dict[str, int]
) -> str:
    """Write all of it into a new SQLite database, and give its path. Readers see the old database or the new, never a part."""
    temporary = f"{database}.{os.getpid()}.tmp"
    try:
        with closing(sqlite3.connect(temporary)) as connection, connection:
            connection.executescript(SCHEMA)
            _fill(connection, checksums, metrics, facts, skipped)
        os.replace(temporary, database)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    return database


def _fill(
    connection: sqlite3.Connection,
    checksums: list[Checksum],
    metrics: list[Metrics],
    facts: dict[str, str | int],
    skipped: dict[str, int],
) -> None:
    connection.executemany("INSERT INTO facts VALUES (?, ?)", [(name, str(value)) for name, value in facts.items()])
    connection.executemany("INSERT INTO skipped VALUES (?, ?)", skipped.items())
    files = [(row["path"], PurePosixPath(row["path"]).suffix, row["size"], row["sha256"]) for row in checksums]
    connection.executemany("INSERT INTO files VALUES (?, ?, ?, ?)", files)
    connection.executemany(
        "INSERT INTO modules VALUES (:path, :lines, :functions, :classes, :branches, :documented, :documentable, :error)", metrics
    )
    functions = [{"path": row["path"], **function} for row in metrics for function in row["top_functions"]]
    connection.executemany("INSERT INTO top_functions VALUES (:path, :name, :line, :lines, :complexity)", functions)
