"""The page of the benchmarks: docs/benchmarks.md and its plots, written from the figures that are kept beside them.

a run of some groups ─→ docs/benchmarks/results.json: the newest figures of every group ─→ benchmarks.md, *.svg
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import plots, tables
from benchmarks.tables import Table

HEAD = """\
# Benchmarks

jobrunner, every tool that it could be mistaken for, and the least that could do the same work, side by side. This page is
written by `python -m benchmarks --write`; on your own machine

```console
$ python -m benchmarks --quick        # under three minutes
$ python -m benchmarks                # all of it; or name groups: {groups}
```

installs the peers by name (PyPI, Debian, npm), each in an environment of its own under `~/.cache/jobrunner-benchmarks`
(`--no-install`: only what is there already), and measures whole processes from start to end.

- **Rounds are interleaved**: every case once, then every case again in another order, so that what else the machine does hits all
  alike. A ratio is taken within a round, and the median of the rounds is the figure: `median [quartiles] (extremes)`.
- **jobrunner does all that it does for users**: structured log, journal and captured output are on.
- **Who did not do the work has no figure**: each case has a check, and each tool that runs commands has first to run one
  that leaves marks, which are counted.
- **CPU** is user and system time of the process and of all that it waited for; **peak MiB** is that of the largest, never less
  than the 20 MiB or so of the process that measures. What is left running elsewhere (the workers of a cluster) is in neither.
- **A bar** is what jobrunner promises, as a multiple of the peer of that row, or in seconds or MiB; **stretch** is what is hoped
  for. A bar that is missed is shown as such.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The newest figures of one group, with what they were taken on. `printed` is the table of a group that times no process."""

    name: str
    caption: str
    day: str
    form: str
    machine: str
    versions: Mapping[str, str]
    missing: Mapping[str, str]
    contests: Sequence[Table]
    printed: str = ""
    verdict: str = ""


def write(found: Sequence[Group], *, docs: Path, order: Sequence[str]) -> Path:
    """Keeps the figures of these groups in the place of older ones, and writes the page and its plots. Gives the page."""
    folder = docs / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    kept = {group.name: group for group in [*read(folder / "results.json"), *found]}
    groups = [kept[name] for name in order if name in kept]
    text = json.dumps([as_data(group) for group in groups], indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    for old in folder.glob("*.svg"):
        old.unlink()
    for group in groups:
        for name, drawing in _plots(group):
            (folder / name).write_text(drawing, encoding="utf-8")
    path = docs / "benchmarks.md"
    path.write_text(page(groups, order=order), encoding="utf-8")
    return path


def read(results: Path) -> list[Group]:
    """The figures that were kept; none where there is no such file."""
    kept = json.loads(results.read_text(encoding="utf-8")) if results.exists() else []
    return [Group(**{**each, "contests": [tables.from_data(contest) for contest in each["contests"]]}) for each in kept]


def as_data(group: Group) -> dict[str, Any]:
    return asdict(group)


def page(groups: Sequence[Group], *, order: Sequence[str]) -> str:
    """The whole page."""
    parts = [HEAD.format(groups=", ".join(f"`{name}`" for name in order)), _bars_met(groups), _measured_on(groups)]
    return "\n".join([*parts, *map(_section, groups)]).rstrip() + "\n"


def _bars_met(groups: Sequence[Group]) -> str:
    """Every bar in one table."""
    rows = [row for group in groups for contest in group.contests for row in _bars_of(contest)]
    rows += [f"| [{group.caption.rstrip('.')}](#{group.name}) | | | | {group.verdict} |" for group in groups if group.verdict]
    return "\n".join(
        ["## The bars", "", "| what | against | jobrunner ÷ that | bar | |", "| --- | --- | ---: | --- | --- |", *rows, ""]
    )


def _bars_of(contest: Table) -> Iterator[str]:
    for row in contest.rows:
        if row.goal:
            ratio = tables.spread(row.ratio) if row.ratio else ""
            yield f"| [{contest.title}](#{contest.group}) | {row.name} | {ratio} | {row.goal} | {row.verdict} |"


def _measured_on(groups: Sequence[Group]) -> str:
    """The machine and the versions, of all groups together."""
    machines = sorted({group.machine for group in groups})
    versions = dict(sorted(item for group in groups for item in group.versions.items()))
    missing = {name: why for group in groups for name, why in group.missing.items() if name not in versions}
    lines = ["## Measured on", "", *(f"- {each}" for each in machines)]
    lines.append(f"- {', '.join(f'{name} {version}' for name, version in versions.items())}")
    lines += [f"- not here: {name} ({why})" for name, why in sorted(missing.items())]
    return "\n".join([*lines, ""])


def _section(group: Group) -> str:
    form = "" if group.form == "whole" else " in the quick form: to see that it works, not to quote"
    parts = [f"## {group.name}", "", group.caption, "", f"Measured on {group.day}{form}.", ""]
    parts += [group.printed.rstrip(), ""] if group.printed else []
    for name, drawing in _plots(group):
        if name.startswith("family-"):
            parts += [f"![{_title_of(drawing)}](benchmarks/{name})", ""]
    for contest in group.contests:
        parts += [tables.markdown(contest), *([contest.note, ""] if contest.note else [])]
        parts += [f"![{contest.title}](benchmarks/{_file_of(contest)})", ""] if len(contest.rows) > 1 else []
    return "\n".join(parts)


def _plots(group: Group) -> Iterator[tuple[str, str]]:
    """File names and drawings."""
    for contest in group.contests:
        if len(contest.rows) > 1:
            yield _file_of(contest), plots.bars(contest)
    for family in dict.fromkeys(contest.family for contest in group.contests if contest.family):
        members = [contest for contest in group.contests if contest.family == family]
        if len({contest.x for contest in members}) > 1:
            yield f"family-{group.name}-{_slug(family)}.svg", plots.lines(family, members)


def _file_of(contest: Table) -> str:
    return f"{contest.group}-{_slug(contest.title)}.svg"


def _title_of(drawing: str) -> str:
    return drawing.partition("<title>")[2].partition("</title>")[0]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace(",", "")).strip("-")[:60].rstrip("-")
