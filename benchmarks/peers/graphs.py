"""A graph of tasks that do nothing, run by a library. Prints how many ran, and the seconds from the graph to its end, as JSON.

python graphs.py LIBRARY TASKS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from graphlib import TopologicalSorter
from queue import SimpleQueue

from benchmarks import layers
from benchmarks.work_items import nothing

Graph = dict[str, tuple[str, ...]]


def standard_library(graph: Graph) -> int:
    """graphlib says what is ready, two threads run it, and say so in a queue."""
    sorter, ended, ran = TopologicalSorter(graph), SimpleQueue[str](), 0
    sorter.prepare()

    def run(name: str) -> None:
        nothing()
        ended.put(name)

    with ThreadPoolExecutor(2) as threads:
        while sorter.is_active():
            for name in sorter.get_ready():
                threads.submit(run, name)
            sorter.done(ended.get())
            ran += 1
    return ran


def dask(graph: Graph) -> int:
    """Its threaded scheduler, without a cluster: what its documentation has for graphs of one's own."""
    from dask.threaded import get

    called: list[str] = []

    def run(*needed: object) -> None:
        nothing()
        called.append("")

    get({name: (run, *needed) for name, needed in graph.items()}, layers.last(len(graph)), num_workers=2)
    return len(called)


def luigi(graph: Graph) -> int:
    """In one process: with two workers it forks for each task. What is done is known to the class, not to files."""
    import luigi

    done: set[str] = set()

    class Node(luigi.Task):  # type: ignore[misc]  # it ships no types
        name = luigi.Parameter()

        def requires(self) -> list[Node]:
            return [Node(name=name) for name in graph[self.name]]

        def run(self) -> None:
            done.add(self.name)

        def complete(self) -> bool:
            return self.name in done

    luigi.build([Node(name=name) for name in layers.last(len(graph))], local_scheduler=True, log_level="ERROR")
    return len(done)


LIBRARIES: dict[str, Callable[[Graph], int]] = {"standard-library": standard_library, "dask": dask, "luigi": luigi}


def main(library: str, tasks: int) -> None:
    graph = dict(layers.nodes(tasks))
    started = time.perf_counter()
    ran = LIBRARIES[library](graph)
    print(json.dumps({"ran": ran, "wall": time.perf_counter() - started}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
