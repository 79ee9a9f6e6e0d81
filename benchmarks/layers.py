"""The graph that is measured: layers of a hundred tasks that do nothing, each task needing two of the layer before.

The files in which each tool reads it. They are written line by line: the process that measures is to stay small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

WIDTH = 100
Node = tuple[str, tuple[str, ...]]


def needs(number: int) -> tuple[str, ...]:
    """The names of what task `number` needs: its own place in the layer before, and the one beside it."""
    layer, place = divmod(number, WIDTH)
    if layer == 0:
        return ()
    before = (layer - 1) * WIDTH
    return f"t{before + place}", f"t{before + (place + 1) % WIDTH}"


def nodes(tasks: int) -> Iterator[Node]:
    """Every task's name, with what it needs: in an order in which they can run."""
    return ((f"t{number}", needs(number)) for number in range(tasks))


def last(tasks: int) -> list[str]:
    """The tasks that nothing else needs: the last layer."""
    return [f"t{number}" for number in range(max(0, tasks - WIDTH), tasks)]


def write(path: Path, lines: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(lines)
    return path


def job(tasks: int) -> Iterator[str]:
    """For jobrunner. Its targets are in the module `work_items` beside the file."""
    yield f"name: graph-{tasks}\nmode: thread_pool\nworkers: 2\ntasks:\n"
    for name, needed in nodes(tasks):
        yield f"  {name}: {{target: 'work_items:nothing'{_needs(', needs', needed)}}}\n"


def ninja(tasks: int) -> Iterator[str]:
    """Phony edges: nothing is run but the last command."""
    yield "rule tell\n  command = echo done\n  description = all of it\n"
    for name, needed in nodes(tasks):
        yield f"build {name}: phony {' '.join(needed)}\n"
    yield f"build all: tell {' '.join(last(tasks))}\n"


def makefile(tasks: int) -> Iterator[str]:
    """Targets without recipes: nothing is run but the last command."""
    yield f"all: {' '.join(last(tasks))}\n\t@echo done\n.PHONY:"
    yield from (f" {name}" for name, _ in nodes(tasks))  # in one line: make takes quadratic time for a line each
    yield "\n"
    for name, needed in nodes(tasks):
        yield f"{name}: {' '.join(needed)}\n"


def justfile(tasks: int) -> Iterator[str]:
    """Recipes without lines: nothing is run but the last command."""
    yield f"all: {' '.join(last(tasks))}\n    @echo done\n"
    for name, needed in nodes(tasks):
        yield f"{name}: {' '.join(needed)}\n"


def taskfile(tasks: int) -> Iterator[str]:
    """Tasks without commands; `run: once`, else each runs as often as something needs it."""
    yield "version: '3'\nrun: once\nsilent: true\ntasks:\n"
    yield f"  all: {{cmds: [echo done], deps: [{', '.join(last(tasks))}]}}\n"
    for name, needed in nodes(tasks):
        yield f"  {name}: {{deps: [{', '.join(needed)}]}}\n"


def dagu(tasks: int) -> Iterator[str]:
    """Every step needs a command: `true`."""
    yield f"name: graph-{tasks}\ntype: graph\nmax_active_steps: 2\nsteps:\n"
    for name, needed in nodes(tasks):
        yield f"  - {{name: {name}, command: 'true'{_needs(', depends', needed)}}}\n"


def snakefile(tasks: int) -> Iterator[str]:
    """One rule for all: what it makes is a file that is touched, as snakemake goes by files."""
    yield "from benchmarks.layers import last, needs\n\n"
    yield f"rule all:\n    input: [f'out/{{name}}' for name in last({tasks})]\n\n"
    yield "rule each:\n    input: lambda wildcards: [f'out/{name}' for name in needs(int(wildcards.number))]\n"
    yield "    output: touch('out/t{number}')\n"


def dodo(tasks: int) -> Iterator[str]:
    """Python actions in the process of doit; it prints how many were called."""
    yield "import atexit\n\nfrom benchmarks.layers import nodes\n\ncalled = []\n\n\n"
    yield "def nothing():\n    called.append(None)\n\n\n"
    yield f"def task_graph():\n    for name, needed in nodes({tasks}):\n"
    yield "        yield {'basename': name, 'actions': [nothing], 'task_dep': list(needed)}\n\n\n"
    yield "atexit.register(lambda: print(len(called)))\n"


WRITERS: dict[str, Callable[[int], Iterator[str]]] = {
    "job.yaml": job,
    "build.ninja": ninja,
    "Makefile": makefile,
    "justfile": justfile,
    "Taskfile.yml": taskfile,
    "dagu.yaml": dagu,
    "Snakefile": snakefile,
    "dodo.py": dodo,
}


def _needs(key: str, needed: tuple[str, ...]) -> str:
    return f"{key}: [{', '.join(needed)}]" if needed else ""
