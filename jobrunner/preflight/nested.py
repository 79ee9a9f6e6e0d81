"""Pools of processes that a function starts itself, found in its source. Standard library only."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

_POOLS = frozenset(
    {
        "multiprocessing.Pool",
        "multiprocessing.pool.Pool",
        "multiprocess.Pool",
        "concurrent.futures.ProcessPoolExecutor",
        "concurrent.futures.process.ProcessPoolExecutor",
        "joblib.Parallel",
        "loky.ProcessPoolExecutor",
        "loky.get_reusable_executor",
        "pebble.ProcessPool",
        "dask.distributed.Client",
        "dask.distributed.LocalCluster",
        "distributed.Client",
        "distributed.LocalCluster",
    }
)
_SIZES = ("max_workers", "processes", "n_jobs", "n_workers")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def pool_in(source: str, name: str, line: int) -> tuple[str, int] | None:
    """What starts a pool of processes in the function that begins at `line` or in what it calls in that file; with its line."""
    tree = ast.parse(source)
    top = {node.name: node for node in tree.body if isinstance(node, _Function)}
    first = next((node for node in ast.walk(tree) if isinstance(node, _Function) and _begins(node, name, line)), None)
    origins = dict(_imported(tree))
    rest: list[_Function] = [first] if first else []
    seen: set[str] = set()
    while rest:
        for call in (node for node in ast.walk(rest.pop()) if isinstance(node, ast.Call)):
            if told := _started_by(call, _dotted(call.func, origins)):
                return told, call.lineno
            if isinstance(call.func, ast.Name) and call.func.id in top and call.func.id not in seen:
                seen.add(call.func.id)
                rest.append(top[call.func.id])
    return None


def _begins(node: _Function, name: str, line: int) -> bool:
    return node.name == name and line in (node.lineno, *(each.lineno for each in node.decorator_list[:1]))


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names that imports bind, wherever they stand, with what they mean."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _dotted(node: ast.expr, origins: Mapping[str, str]) -> str:
    """The full name of what is called, as far as the imports tell. `get_context("spawn")` stands for its module."""
    match node:
        case ast.Name(id=name):
            return origins.get(name, name)
        case ast.Attribute(value=value, attr=attr):
            return f"{_dotted(value, origins)}.{attr}"
        case ast.Call(func=func):
            name = _dotted(func, origins)
            return name.removesuffix(".get_context") if name.endswith(".get_context") else ""
    return ""


def _started_by(call: ast.Call, name: str) -> str:
    """How the pool that a call starts is called; "" where it starts none, or one of a single process."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    short = name.rpartition(".")[2]
    if name in _POOLS:
        size = _constant(next((given[key] for key in _SIZES if key in given), next(iter(call.args), None)))
        is_one = size == 1 or (size is None and name == "joblib.Parallel")
        return "" if is_one or isinstance(size, str) else short  # a text is the address of a cluster
    jobs = _constant(given.get("n_jobs"))
    return f"{short}(n_jobs={jobs})" if isinstance(jobs, int) and jobs != 1 else ""


def _constant(node: ast.expr | None) -> object:
    """The value of a constant, None where there is nothing, `...` for what is known only at run time."""
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ...
