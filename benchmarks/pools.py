"""Many calls of one Python function: by jobrunner in one of its modes, and by the peers, each where its library is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import bars, jobs
from benchmarks.environments import environment
from benchmarks.measure import Case, Contest, Twin
from benchmarks.process import ROOT

JOB = """\
name: {name}
pools:
  two: {{mode: {mode}, workers: 2}}
tasks:
  each:
    foreach: {{range: {calls}}}
    target: work_items:{function}
    args: [{argument}]
    pool: two
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One of the WAYS of peers/pools.py; `library` is the environment that it needs, "" for the standard library."""

    way: str
    library: str = ""
    is_floor: bool = False
    has_single: bool = True
    """One call is measured beside the many. A cluster takes seconds to start, and so for one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`calls` calls of a function of work_items, all with one argument; jobrunner is given `item` in its place, if it is any."""

    function: str
    calls: int
    argument: int = 0
    item: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """jobrunner in a mode against peers: `calls` of them, `quick` in the quick form (0: not there)."""

    key: str
    mode: str
    calls: int
    quick: int
    peers: Sequence[Peer]
    rounds: int
    title: str
    """With {calls} in it."""


def contests(scratch: Path, matches: Sequence[Match], work: Callable[[Match], Work], *, group: str, quick: bool) -> list[Contest]:
    """Whole processes of many calls. In the quick form fewer calls, what one more of them costs, and only peers with a bar.

    A contest without any peer that is to be had is left out.
    """
    found = [_contest(scratch, match, work(match), group=group, quick=quick) for match in matches if match.quick or not quick]
    return [contest for contest in found if len(contest.cases) > 1]


def _contest(scratch: Path, match: Match, work: Work, *, group: str, quick: bool) -> Contest:
    work = replace(work, calls=match.quick if quick else match.calls)
    peers = [peer for peer in match.peers if not quick or (peer.has_single and bars.is_bar(match.key, peer.way))]
    return Contest(
        group=group,
        key=match.key,
        title=match.title.format(calls=f"{work.calls:,}"),
        items=work.calls,
        cases=[ours(scratch, match.mode, work), *cases(peers, work)],
        rounds=3 if quick else match.rounds,
        compares="item" if quick else "wall",
    )


def ours(scratch: Path, mode: str, work: Work) -> Case:
    """jobrunner: a fan-out of the calls."""
    many = job(scratch, mode, work)
    single = None
    if work.calls > 1:
        one = job(scratch, mode, replace(work, calls=1))
        single = Twin(argv=jobs.command(one), check=jobs.logged(one, 1))
    return Case(name="jobrunner", argv=jobs.command(many), check=jobs.logged(many, work.calls), single=single)


def job(scratch: Path, mode: str, work: Work) -> Path:
    """Its job file."""
    name = f"{work.function}-{mode}-{work.argument}-{work.calls}".replace("_", "-")
    text = JOB.format(name=name, mode=mode, calls=work.calls, function=work.function, argument=work.item or work.argument)
    return jobs.write_job(scratch, name, text)


def cases(peers: Sequence[Peer], work: Work) -> list[Case]:
    """A case for each peer that is to be had. `environments.missing` tells why the others take no part."""
    return [_case(peer, python, work) for peer in peers if (python := _interpreter(peer.library))]


def _interpreter(library: str) -> str | None:
    if not library:
        return sys.executable
    found = environment(library)
    return found.python if found else None


def _case(peer: Peer, python: str, work: Work) -> Case:
    def twin(calls: int) -> Twin:
        script = str(ROOT / "benchmarks" / "peers" / "pools.py")
        argv = [python, script, peer.way, work.function, str(calls), str(work.argument)]
        return Twin(argv=argv, check=jobs.printed(str(calls)))

    many = twin(work.calls)
    single = twin(1) if peer.has_single and work.calls > 1 else None
    return Case(name=peer.way, argv=many.argv, check=many.check, single=single, is_floor=peer.is_floor)
