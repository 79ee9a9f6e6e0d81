"""Many calls of one Python function: by jobrunner in one of its modes, and by the peers, each where its library is."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import bars, jobs
from benchmarks.environments import environment
from benchmarks.measure import Case, Contest, Twin
from benchmarks.process import ROOT

LIBRARIES = ("joblib", "loky", "pebble", "mpire", "dask", "ray")
CLUSTERS = ("dask", "ray")
"""They take seconds to start, and so for one call: that is not measured beside the many, and not in the quick form."""
JOB = """\
name: {name}
pools:
  two: {{mode: {mode}, workers: 2{more}}}
tasks:
  each:
    foreach: {{range: {calls}}}
    target: work_items:{function}
    args: [{argument}]
    pool: two
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`calls` calls of a function of work_items, all with one argument; jobrunner is given `item` in its place, if it is any."""

    function: str
    calls: int
    argument: int = 0
    item: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """jobrunner in a mode against some WAYS of peers/pools.py: `calls` of them, `quick` in the quick form (0: not there).

    `also` are more rows of ours, not in the quick form: what the pool has besides, in YAML.
    """

    key: str
    mode: str
    calls: int
    ways: Sequence[str]
    rounds: int
    title: str
    """With {calls} in it."""
    quick: int = 0
    also: Sequence[str] = ()
    note: str = ""


def contests(scratch: Path, matches: Sequence[Match], work: Callable[[Match], Work], *, group: str, quick: bool) -> list[Contest]:
    """Whole processes of many calls. In the quick form fewer calls, what one more of them costs, and only peers with a bar.

    A contest without any peer that is to be had is left out.
    """
    found = [_contest(scratch, match, work(match), group=group, quick=quick) for match in matches if match.quick or not quick]
    return [contest for contest in found if len(contest.cases) > 1]


def _contest(scratch: Path, match: Match, work: Work, *, group: str, quick: bool) -> Contest:
    work = replace(work, calls=match.quick if quick else match.calls)
    also = () if quick else match.also
    ways = [way for way in match.ways if not quick or (_library(way) not in CLUSTERS and bars.is_bar(match.key, way))]
    return Contest(
        group=group,
        key=match.key,
        title=match.title.format(calls=f"{work.calls:,}"),
        items=work.calls,
        cases=[
            ours(scratch, match.mode, work),
            *(ours(scratch, match.mode, work, more) for more in also),
            *cases(ways, work),
        ],
        rounds=3 if quick else match.rounds,
        compares="item" if quick else "wall",
        note=match.note,
    )


def ours(scratch: Path, mode: str, work: Work, more: str = "") -> Case:
    """jobrunner: a fan-out of the calls. `more` is what its pool has besides."""
    many = job(scratch, mode, work, more)
    single = None
    if work.calls > 1:
        one = job(scratch, mode, replace(work, calls=1), more)
        single = Twin(argv=jobs.command(one), check=jobs.logged(one, 1))
    name = f"jobrunner, {more}" if more else "jobrunner"
    return Case(name=name, argv=jobs.command(many), check=jobs.logged(many, work.calls), single=single)


def job(scratch: Path, mode: str, work: Work, more: str = "") -> Path:
    """Its job file."""
    name = re.sub(r"\W+|_", "-", f"{work.function}-{mode}-{work.argument}-{work.calls}-{more}").strip("-")
    argument = work.item or work.argument
    more = f", {more}" if more else ""
    text = JOB.format(name=name, mode=mode, calls=work.calls, function=work.function, argument=argument, more=more)
    return jobs.write_job(scratch, name, text)


def cases(ways: Sequence[str], work: Work, *, single: bool = True) -> list[Case]:
    """A case for each peer that is to be had. `environments.missing` tells why the others take no part."""
    return [_case(way, python, work, single=single) for way in ways if (python := _interpreter(_library(way)))]


def _library(way: str) -> str:
    """The environment that it needs, by which its name begins; "" for the standard library."""
    first = re.split(r"\W", way.lower(), maxsplit=1)[0]
    return first if first in LIBRARIES else ""


def _interpreter(library: str) -> str | None:
    if not library:
        return sys.executable
    found = environment(library)
    return found.python if found else None


def _case(way: str, python: str, work: Work, *, single: bool) -> Case:
    def twin(calls: int) -> Twin:
        script = str(ROOT / "benchmarks" / "peers" / "pools.py")
        return Twin(argv=[python, script, way, work.function, str(calls), str(work.argument)], check=jobs.printed(str(calls)))

    many = twin(work.calls)
    one = twin(1) if single and work.calls > 1 and _library(way) not in CLUSTERS else None
    return Case(name=way, argv=many.argv, check=many.check, single=one, is_floor=way == "ideal")
