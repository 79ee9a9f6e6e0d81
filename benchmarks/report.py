"""The page of the benchmarks: docs/benchmarks.md and its plots, written from the figures that are kept beside them.

a run of some groups ─→ docs/benchmarks/results.json: the newest figures of every group ─→ benchmarks.md, *.svg
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import bars, plots, tables
from benchmarks.bars import Bar
from benchmarks.tables import Row, Table

HEAD = """\
# Benchmarks

jobrunner, every tool that it could be mistaken for, and the least that could do the same work, side by side. This page is
written by `python -m benchmarks --write`; on your own machine

```console
$ python -m benchmarks --quick        # under three minutes
$ python -m benchmarks                # all of it, some 40 minutes; or name groups: {groups}
```

installs the peers by name (PyPI, Debian, npm), each in an environment of its own under `~/.cache/jobrunner-benchmarks`
(`--no-install`: only what is there already), and measures whole processes from start to end.

How to read it:

- **Rounds are interleaved**: every case once, then every case again in another order, so that what else the machine does hits all
  alike. A ratio is taken within a round, and the median of the rounds is the figure: `median [quartiles] (extremes)`. Where a
  round is long there are three; a plain "one round" has no spread.
- **jobrunner does all that it does for users**: structured log, journal and captured output are on.
- **Who did not do the work has no figure**: each case has a check, and each tool that runs commands has first to run one
  that leaves marks, up to a thousand times, which are counted.
- **wall s** is the whole process, its start-up included; **one item, s** is the same with one item, nearly all of it start-up;
  **µs an item** is what each further item costs, start-up left out: (wall of many − wall of one) ÷ (many − 1).
- **CPU s** is user and system time of the process and of all that it waited for; **peak MiB** is that of the largest, never less
  than the 20 MiB or so of the process that measures. What is left running elsewhere (the workers of a cluster) is in neither.
- **jobrunner ÷ this** is a ratio of wall s, or of µs an item in tables that say "compared by time an item": the quick form does,
  which has fewer items. Below 1 jobrunner is ahead.
- **A bar** is what jobrunner promises, as a multiple of the peer of that row, or in seconds or MiB; **stretch** is what is hoped
  for. The median decides. **Within the spread**: some rounds alone would have decided otherwise. A bar that is missed is shown as
  such, with what is known of it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The newest figures of one group, with what they were taken on, and how many seconds that took.

    A group that times no process has a table that it has `printed`, and the `figures` that bars are set against.
    """

    name: str
    caption: str
    day: str
    form: str
    machine: str
    versions: Mapping[str, str]
    missing: Mapping[str, str]
    contests: Sequence[Table]
    seconds: float
    printed: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


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


def page(groups: Sequence[Group], *, order: Sequence[str], notes: Mapping[str, str] | None = None) -> str:
    """The whole page. `notes` are what is known of the bars that are missed: those of notes.toml, if none are given."""
    found = list(_standings(groups))
    parts = [
        HEAD.format(groups=", ".join(f"`{name}`" for name in order)),
        _bars_met(found, groups),
        _left(found, bars.notes() if notes is None else notes),
        _measured_on(groups),
    ]
    return "\n".join([*parts, *map(_section, groups)]).rstrip() + "\n"


def verdicts(groups: Sequence[Group]) -> list[str]:
    """Of every bar of these groups."""
    return [each.verdict for each in _standings(groups)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one bar stands: `figure` is the ratio, or what there is in seconds or MiB."""

    bar: Bar
    title: str
    anchor: str
    figure: str
    goal: str
    verdict: str

    @property
    def link(self) -> str:
        return f"[{self.title}](#{self.anchor})"


def _standings(groups: Sequence[Group]) -> Iterator[Standing]:
    """Every bar of the groups that were measured, in their order: those without a figure as well."""
    for group in groups:
        contests = {contest.key: contest for contest in group.contests}
        for bar in (bar for bar in bars.BARS.values() if bar.group == group.name):
            if bar.against in group.figures:
                yield _simulated(group, bar, group.figures[bar.against])
            elif contest := contests.get(bar.contest):
                yield _standing(contest, bar)
            else:
                yield Standing(
                    bar=bar, title=bar.contest, anchor=group.name, figure="", goal=str(bar.goal), verdict="not measured"
                )


def _standing(contest: Table, bar: Bar) -> Standing:
    row = next((row for row in contest.rows if row.name == bar.against), None)
    if row is None:
        verdict = "refused" if bar.against in contest.refused else "not measured"
    elif row.goal is None:
        verdict = f"not asked here: it is meant for {bar.size:,}"
    else:
        verdict = row.verdict
    return Standing(
        bar=bar,
        title=contest.title,
        anchor=_anchor(contest),
        figure=_figure(contest, row) if row else "",
        goal=str(row.goal if row and row.goal else bar.goal),
        verdict=verdict,
    )


def _figure(contest: Table, row: Row) -> str:
    if row.ratio:
        return tables.spread(row.ratio, row.goal)
    goal = row.goal or bars.BARS[f"{contest.key} / {row.name}"].goal
    seconds = [] if goal.seconds is None else [f"{tables.exact(row.wall, 2, [goal.seconds])} s"]
    return ", ".join([*seconds, *([] if goal.mib is None else [f"{tables.exact(row.rss, 0, [goal.mib])} MiB"])])


def _simulated(group: Group, bar: Bar, figure: float) -> Standing:
    is_met, hoped = bar.goal.is_met(ratio=figure), bar.goal.stretch
    return Standing(
        bar=bar,
        title=group.caption.partition(":")[0].rstrip("."),
        anchor=group.name,
        figure=tables.exact(figure, 3, [bar.goal.ratio, hoped]),
        goal=str(bar.goal),
        verdict=tables.verdict(is_met, None if hoped is None else figure <= hoped),
    )


def _bars_met(found: Sequence[Standing], groups: Sequence[Group]) -> str:
    """Every bar in one table, and what the figures are worth."""
    quick = [group for group in groups if group.form != "whole"]
    worth = (
        f"Figures of the quick form ({', '.join(group.name for group in quick)}) are there to see that it works, not to quote."
    )
    rows = [f"| {each.link} | {each.bar.against} | {each.figure} | {each.goal} | {each.verdict} |" for each in found]
    head = ["| what | against | jobrunner ÷ that, or what it takes | bar | |", "| --- | --- | ---: | --- | --- |"]
    return "\n".join(["## The bars", "", _count(found), "", *([worth, ""] if quick else []), *head, *rows, ""])


def _count(found: Sequence[Standing]) -> str:
    """How many bars are met and missed; a stretch alone is no bar."""
    barred = [each.verdict for each in found if each.bar.goal.is_bar()]
    met, missed = (sum(verdict.startswith(tables.BARS[is_met]) for verdict in barred) for is_met in (True, False))
    rest = len(barred) - met - missed
    return f"Of {len(barred)} bars {met} are met and {missed} missed{f'; {rest} could not be measured here' if rest else ''}."


def _left(found: Sequence[Standing], notes: Mapping[str, str]) -> str:
    """What is known of each bar that is missed."""
    missed = [each for each in found if each.verdict.startswith(tables.BARS[False])]
    rows = [
        f"- {each.link}, against {each.bar.against}: {each.figure}, where the bar is {each.goal}."
        f" {notes.get(each.bar.name, 'Nothing is written of it yet.')}"
        for each in missed
    ]
    return "\n".join(["## What is left", "", *(rows or ["No bar is missed."]), ""])


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
    parts = [f"## {group.name}", "", group.caption, "", f"Measured on {group.day}{form}, in {_lasted(group.seconds)}.", ""]
    parts += [group.printed.rstrip(), ""] if group.printed else []
    for family, members in _families(group).items():
        parts += [f"![{plots.title(family)}](benchmarks/{_file_of_family(group, family)})", ""]
        parts += [tables.growth(few), few[0].note, ""] if (few := [each for each in members if not each.key]) else []
    for contest in filter(_stands_alone, group.contests):
        parts += [f'<a id="{_anchor(contest)}"></a>', "", tables.markdown(contest), *([contest.note, ""] if contest.note else [])]
        parts += [f"![{contest.title}](benchmarks/{_file_of(contest)})", ""] if len(contest.rows) > 1 else []
    return "\n".join(parts)


def _lasted(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"


def _plots(group: Group) -> Iterator[tuple[str, str]]:
    """File names and drawings."""
    for contest in filter(_stands_alone, group.contests):
        if len(contest.rows) > 1:
            yield _file_of(contest), plots.bars(contest)
    for family, members in _families(group).items():
        yield _file_of_family(group, family), plots.lines(family, members)


def _families(group: Group) -> dict[str, list[Table]]:
    """The contests of each family that has more than one size."""
    names = dict.fromkeys(contest.family for contest in group.contests if contest.family)
    found = {name: [contest for contest in group.contests if contest.family == name] for name in names}
    return {name: members for name, members in found.items() if len({each.x for each in members}) > 1}


def _stands_alone(contest: Table) -> bool:
    """Whether it has a table and a plot of its own: one of a family that has no key is in those of the family."""
    return bool(contest.key or not contest.family)


def _anchor(contest: Table) -> str:
    """By which links and files name a table: the same whatever its size, where it has a key."""
    return f"{contest.group}-{contest.key or _slug(contest.title)}".replace("_", "-")


def _file_of(contest: Table) -> str:
    return f"{_anchor(contest)}.svg"


def _file_of_family(group: Group, family: str) -> str:
    return f"family-{group.name}-{_slug(family)}.svg"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace(",", "")).strip("-")[:60].rstrip("-")
