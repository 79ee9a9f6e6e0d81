"""The peers that call one Python function many times: each a case, in the environment where its library is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import jobs
from benchmarks.environments import environment
from benchmarks.measure import ROOT, Case, Goal


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One of the WAYS of peers/pools.py; `library` is the environment that it needs, "" for the standard library."""

    way: str
    library: str = ""
    goal: Goal | None = None
    is_floor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`calls` calls of a function of work_items, all with one argument."""

    function: str
    calls: int
    argument: int = 0


def cases(peers: Sequence[Peer], work: Work, *, with_single: bool = True) -> list[Case]:
    """A case for each peer that is to be had. `environments.missing` tells why the others take no part."""
    return [_case(peer, python, work, with_single) for peer in peers if (python := _interpreter(peer.library))]


def _interpreter(library: str) -> str | None:
    if not library:
        return sys.executable
    found = environment(library)
    return found.python if found else None


def _case(peer: Peer, python: str, work: Work, with_single: bool) -> Case:
    def argv(calls: int) -> list[str]:
        return [python, str(ROOT / "benchmarks" / "peers" / "pools.py"), peer.way, work.function, str(calls), str(work.argument)]

    return Case(
        name=peer.way,
        argv=argv(work.calls),
        check=jobs.printed(str(work.calls)),
        goal=peer.goal,
        single=argv(1) if with_single else None,
        is_floor=peer.is_floor,
    )
