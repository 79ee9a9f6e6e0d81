"""The benchmarks: what a figure is, who has none, and the page. No network, no peer that is not here anyway, tiny sizes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import bars, cold, commands, environments, events, jobs, leftovers, measure, plots, report, tables, tools
from benchmarks.__main__ import Form
from benchmarks.measure import Case, Contest, Goal, Outcome, Spread, Twin
from benchmarks.process import Sample, Surroundings, WorkNotDone
from benchmarks.report import Group
from benchmarks.tools import Work

ROOT = Path(__file__).resolve().parent.parent


def is_fine(_: str) -> str | None:
    """A check that nothing fails."""
    return None


@pytest.fixture(autouse=True)
def _nothing_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    environments.configure(install=False, quick=False)
    yield
    environments.configure(install=False, quick=False)


def python(name: str, code: str, check: Callable[[str], str | None] = is_fine, **more: object) -> Case:
    return replace(Case(name=name, argv=[sys.executable, "-S", "-c", code], check=check), **more)  # type: ignore[arg-type]


def contest(*cases: Case, rounds: int = 1, **more: object) -> Contest:
    made = Contest(group="cold", title="a title", items=1, cases=cases, rounds=rounds, warm_up=False)
    return replace(made, **more)  # type: ignore[arg-type]


def measured(of: Contest, scratch: Path) -> Outcome:
    return measure.run(of, scratch=scratch, say=lambda _: None)


def sampled(*walls: Sequence[float], goal: Goal | None = None, items: int = 1, singles: Sequence[float] = ()) -> Outcome:
    """What a contest of `len(walls)` cases gave, the first of them ours."""
    cases = [Case(name=str(n), argv=[], check=is_fine, goal=goal if n else None) for n in range(len(walls))]
    samples = {str(n): [Sample(wall=wall, cpu=wall / 2, rss=10 * wall) for wall in each] for n, each in enumerate(walls)}
    ones = {name: [Sample(wall=one, cpu=0, rss=0) for one in singles] for name in samples if singles}
    return Outcome(contest=contest(*cases, rounds=len(walls[0]), items=items), samples=samples, singles=ones)


# --- what a figure is ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ([2.0], (2, 2, 2, 2, 2)),
        ([1.0, 3.0], (2, 1, 3, 1.5, 2.5)),
        ([5.0, 1.0, 2.0, 4.0, 3.0], (3, 1, 5, 2, 4)),
    ],
)
def test_a_spread_is_the_median_the_extremes_and_the_quartiles(figures: list[float], expected: tuple[float, ...]) -> None:
    found = Spread.of(figures)
    assert (found.median, found.low, found.high, found.lower_quartile, found.upper_quartile) == expected


def test_a_ratio_is_taken_within_a_round_so_that_a_slow_round_hits_both() -> None:
    outcome = sampled([1, 10, 3], [2, 20, 3])
    assert outcome.ratios(outcome.contest.cases[1]) == [0.5, 0.5, 1]


def test_one_more_item_costs_what_many_take_above_one() -> None:
    outcome = sampled([3.0, 5.0], [1.0, 1.0], items=3, singles=[1, 1])
    assert outcome.per_item(outcome.contest.cases[0]) == 1.5


@pytest.mark.parametrize(
    ("goal", "met", "stretched"),
    [
        (None, None, None),
        (Goal(ratio=0.5), True, None),
        (Goal(ratio=0.4), False, None),
        (Goal(ratio=0.6, stretch=0.5), True, True),
        (Goal(ratio=0.6, stretch=0.4), True, False),
        (Goal(ratio=0.4, stretch=0.5), False, False),
        (Goal(stretch=0.5), None, True),
        (Goal(ratio=1, seconds=0.9), False, None),
        (Goal(ratio=1, seconds=1), True, None),
        (Goal(mib=10), True, None),
        (Goal(mib=9), False, None),
    ],
)
def test_a_bar_is_met_by_the_median_ratio_and_by_all_limits(goal: Goal | None, met: bool | None, stretched: bool | None) -> None:
    outcome = sampled([1, 1, 1], [2, 2, 1], goal=goal)
    peer = outcome.contest.cases[1]
    assert (outcome.is_met(peer), outcome.is_stretched(peer)) == (met, stretched)


@pytest.mark.parametrize(
    ("walls", "goal", "told"),
    [
        ([1, 1, 1], Goal(ratio=0.5), "met"),
        ([1, 1, 1.2], Goal(ratio=0.5), "met (within the spread)"),
        ([1, 1.2, 1.2], Goal(ratio=0.5, stretch=0.4), "**missed** (within the spread), stretch missed"),
        ([1, 1.2, 1.2], Goal(ratio=0.5, stretch=0.5), "**missed** (within the spread), stretch missed"),
        ([1, 1, 1.2], Goal(seconds=1.1), "met (within the spread)"),
        ([1, 1, 1.2], Goal(mib=9), "**missed**"),
        ([1, 1, 1.2], Goal(stretch=0.5), "stretch met"),
    ],
)
def test_a_verdict_tells_when_some_rounds_alone_would_have_given_another(walls: list[float], goal: Goal, told: str) -> None:
    assert tables.table(sampled(walls, [2, 2, 2], goal=goal)).rows[1].verdict == told


@pytest.mark.parametrize(("compares", "ratio"), [("wall", 0.5), ("cpu", 0.5), ("rss", 0.5), ("item", 0.25)])
def test_a_contest_says_what_it_compares(compares: str, ratio: float) -> None:
    outcome = sampled([2], [4], items=2, singles=[4 / 3])
    outcome = replace(outcome, contest=replace(outcome.contest, compares=compares))  # type: ignore[arg-type]
    assert outcome.ratios(outcome.contest.cases[1]) == [pytest.approx(ratio)]


# --- rounds -------------------------------------------------------------------------------------------------------------------


def test_rounds_are_interleaved_each_in_another_order(tmp_path: Path) -> None:
    tell = "open({path!r}, 'a').write({name!r})"
    cases = [python(name, tell.format(path=str(tmp_path / "order"), name=name)) for name in "abc"]
    outcome = measured(contest(*cases, rounds=3), tmp_path)
    assert (tmp_path / "order").read_text() == "abcbcacab"
    assert outcome.rounds() == 3
    assert all(sample.wall > 0 and sample.cpu > 0 and sample.rss > 1 for each in outcome.samples.values() for sample in each)


def test_no_round_begins_after_the_budget_but_those_that_give_a_spread(tmp_path: Path) -> None:
    assert measured(contest(python("ours", ""), rounds=9, budget=0), tmp_path).rounds() == measure.LEAST_ROUNDS == 3


def test_a_case_is_warmed_up_with_one_item_where_that_is_measured_too(tmp_path: Path) -> None:
    tell = "open({path!r}, 'a').write({name!r})"
    many, one = (python("ours", tell.format(path=str(tmp_path / "order"), name=name)) for name in ("many ", "one "))
    measured(contest(replace(many, single=Twin(argv=one.argv, check=is_fine)), warm_up=True), tmp_path)
    assert (tmp_path / "order").read_text() == "one many one "


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Form(rounds=None, share=None), (9, True, command.CONTEST_SECONDS)),
        (Form(rounds=None, share=8.0), (9, False, 4)),
        (Form(rounds=2, share=None), (2, True, command.CONTEST_SECONDS)),
        (Form(rounds=1, share=None), (1, False, command.CONTEST_SECONDS)),
    ],
)
def test_a_form_sets_rounds_warming_up_and_how_long_rounds_may_begin(form: Form, expected: tuple[int, bool, float]) -> None:
    one, _ = form.applied([contest(python("ours", ""), rounds=9, warm_up=True)] * 2)
    assert (one.rounds, one.warm_up, one.budget) == expected


def test_what_a_case_needs_before_each_process_is_prepared(tmp_path: Path) -> None:
    times: list[int] = []
    case = python("ours", "", prepare=lambda: times.append(1), proof=Twin(argv=[sys.executable, "-c", ""], check=is_fine))
    measured(contest(case, rounds=2), tmp_path)
    assert len(times) == 3


# --- who has no figure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (python("peer", "print(1)", jobs.printed("2")), "printed '1"),
        (python("peer", "raise SystemExit(3)"), "exit code 3"),
        (python("peer", "", lambda _: Path("/no/such/log").read_text()), "nothing to check: FileNotFoundError"),
        (python("peer", "", proof=Twin(argv=["true"], check=lambda _: "nothing was done")), "nothing was done"),
        (python("peer", "import time; time.sleep(60)", at=Surroundings(patience=0.2)), "not done after"),
    ],
    ids=["wrong answer", "failed", "no log", "no proof", "too long"],
)
def test_a_peer_that_did_not_do_its_work_is_refused_and_the_others_are_not(case: Case, why: str, tmp_path: Path) -> None:
    outcome = measured(contest(python("ours", ""), case, python("other", ""), rounds=2), tmp_path)
    assert why in outcome.refused["peer"]
    assert list(outcome.samples) == ["ours", "other"]
    table = tables.table(outcome)
    assert [row.name for row in table.rows] == ["ours", "other"]
    assert "peer" in tables.plain(table)


def test_a_peer_that_fails_in_a_later_round_has_no_figure_either(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    once = python("peer", f"import os; os.close(os.open({mark!r}, os.O_CREAT | os.O_EXCL))")
    outcome = measured(contest(python("ours", ""), once, rounds=3), tmp_path)
    assert list(outcome.samples) == ["ours"]
    assert outcome.rounds() == 3


def test_a_contest_in_which_jobrunner_did_not_do_its_work_has_no_figures(tmp_path: Path) -> None:
    with pytest.raises(WorkNotDone, match="exit code 1"):
        measured(contest(python("ours", "raise SystemExit(1)"), python("peer", "")), tmp_path)


def test_marks_tell_a_tool_that_did_less_than_it_should(tmp_path: Path) -> None:
    program = tools.mark(tmp_path)
    for _ in range(2):
        subprocess.run([program], check=True)
    assert tools.marked(program, 2)("") is None
    assert tools.marked(program, 2)("") == "the command ran 0 times, not 2"


# --- peers --------------------------------------------------------------------------------------------------------------------


def test_a_peer_that_is_not_here_takes_no_part_and_says_why() -> None:
    assert environments.environment("doit") is None
    assert environments.missing() == {"doit": "not installed here"}


def test_a_peer_on_the_path_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "xargs"
    program.write_text("#!/bin/sh\necho 'xargs (GNU findutils) 4.9.0'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = environments.environment("xargs")
    assert found is not None
    assert found.program() == str(program)
    assert environments.versions() == {"xargs": "4.9.0"}


def test_every_tool_is_in_the_table_of_versions_and_every_version_is_pinned() -> None:
    peers = environments.peers()
    assert set(tools.TOOLS) <= set(peers)
    assert all("==" in peer.package for peer in peers.values() if peer.source == "pypi")


HERE = [("xargs", "true"), *((("make", "true"), ("make", "true && true")) if shutil.which("make") else ())]
"""Tools of this machine, with lines that they can run: xargs has no shell."""


@pytest.mark.parametrize(("name", "command"), HERE)
def test_a_tool_that_is_here_does_the_work(name: str, command: str, tmp_path: Path) -> None:
    command = command.replace("true", tools.true(), 1)
    case = tools.case(name, Work(folder=tmp_path, command=command, items=5, workers=2), single=True)
    assert case is not None
    outcome = measured(contest(python("ours", ""), case), tmp_path)
    assert not outcome.refused
    assert len(outcome.singles[name]) == 1


@pytest.mark.parametrize("name", sorted(tools.TOOLS))
def test_what_a_tool_is_told_names_its_work(name: str, tmp_path: Path) -> None:
    """Without the tool: its file is where its command line has it, and holds the command."""
    found = environments.Environment(python=sys.executable, version="1", programs=None, own="true")
    told = tools.TOOLS[name](found, Work(folder=tmp_path / "work", command="some-command", items=3, workers=2))
    written = "".join(path.read_text() for path in (tmp_path / "work").iterdir())
    assert "some-command" in written + " ".join(told.argv)
    assert str(tmp_path / "work") in " ".join(told.argv)


# --- groups that need nobody else ---------------------------------------------------------------------------------------------


def test_cold_starts_are_measured_and_checked(tmp_path: Path) -> None:
    first, unchanged, *_ = cold.contests(tmp_path, quick=True)
    names = [row.name for row in tables.table(measured(replace(first, rounds=1), tmp_path)).rows]
    assert names[:2] == ["jobrunner, first sight", "script: YAML, pydantic, structlog, one spawn"]
    alone = replace(unchanged, cases=unchanged.cases[:1], rounds=1)
    assert measured(alone, tmp_path).rounds() == 1


@pytest.mark.parametrize("key", ["argv", "run"])
def test_commands_of_jobrunner_are_counted_beside_the_limit(key: str, tmp_path: Path) -> None:
    work = Work(folder=tmp_path, command=tools.true(), items=5, workers=2)
    outcome = measured(contest(tools.ours(work, key), *commands.limits(work)), tmp_path)
    assert not outcome.refused
    assert len(outcome.samples) == 3


def test_events_are_written_by_all_that_are_compared_and_counted(tmp_path: Path) -> None:
    names = {case.argv[2] for each in events.contests(tmp_path, quick=True) for case in each.cases}
    cases = [events.case(tmp_path / "few" / how, how, how, 7) for how in sorted(names)]
    outcome = measured(contest(*cases), tmp_path)
    assert not outcome.refused
    assert "nothing written" in str(cases[0].check("7"))
    (tmp_path / "few" / cases[0].name / "many").write_text("one line\n")
    assert "not 7 lines" in str(cases[0].check("7"))


# --- the page -----------------------------------------------------------------------------------------------------------------


def group(name: str, *contests: tables.Table, **more: object) -> Group:
    found = Group(
        name=name,
        caption="What it is.",
        day="2026-11-23",
        form="whole",
        machine="a machine",
        versions={"make": "4.3"},
        missing={"dagu": "not installed here"},
        contests=contests,
        seconds=61.0,
    )
    return replace(found, **more)  # type: ignore[arg-type]


def table(title: str = "a <title>", **more: object) -> tables.Table:
    found = tables.table(sampled([1.0, 2.0], [4.0, 4.0], [0.001, 0.002], goal=Goal(ratio=0.5, stretch=0.1)))
    return replace(found, title=title, **more)  # type: ignore[arg-type]


def test_figures_are_kept_as_they_were() -> None:
    before = table(refused={"peer": "exit code 1"})
    assert tables.from_data(json.loads(json.dumps(tables.as_data(before)))) == before


def test_a_table_shows_medians_spreads_and_bars_met_or_missed() -> None:
    ours, met, missed = tables.markdown(table()).splitlines()[4:7]
    assert ours.startswith("| 0 | 1.500 | 0.750 | 15 |")
    assert "0.38 [0.31, 0.44] (0.25 to 0.50) | ≤ 0.5 × (stretch 0.1) | met, stretch missed |" in met
    assert "one item" not in tables.markdown(table())
    assert "**missed**, stretch missed |" in missed


def test_the_page_has_every_bar_version_and_plot(tmp_path: Path) -> None:
    cases = {"doit": 1.0, "pypyr": 4.0}
    page = report.write([group("cold", barred("unchanged", cases))], docs=tmp_path, order=["cold"]).read_text()
    assert "| [a title](#cold-unchanged) | doit | 1.00 [1.00, 1.00] (1.00 to 1.00) | ≤ 0.75 × | **missed** |" in page
    assert "| [a title](#cold-unchanged) | pypyr | 0.25 [0.25, 0.25] (0.25 to 0.25) | ≤ 0.75 × | met |" in page
    assert "| [a title](#cold-unchanged) | go-task |  | (stretch 1) | not measured |" in page
    assert '<a id="cold-unchanged"></a>' in page
    assert "- make 4.3\n" in page
    assert "- not here: dagu (not installed here)" in page
    shown = set(re.findall(r"\]\((benchmarks/[^)]+\.svg)\)", page))
    assert shown == {f"benchmarks/{path.name}" for path in (tmp_path / "benchmarks").glob("*.svg")} != set()


def test_a_group_that_times_no_process_is_on_the_page_as_it_was_printed(tmp_path: Path) -> None:
    figures = {"the lower bound, in the median": 1.03, "first in, first out, at worst": 1.0204}
    made = group("makespan", printed="| workers |\n| ---: |\n| 2 |\n", figures=figures)
    page = report.write([made], docs=tmp_path, order=["makespan"]).read_text()
    assert "\n| workers |\n| ---: |\n| 2 |\n" in page
    link = "| [What it is](#makespan) |"
    assert f"{link} the lower bound, in the median | 1.030 | ≤ 1.05 × (stretch 1.02) | met, stretch missed |" in page
    assert f"{link} first in, first out, at worst | 1.0204 | ≤ 1.02 × | **missed** |" in page
    assert report.read(tmp_path / "benchmarks" / "results.json") == [replace(made, contests=[])]


def test_groups_that_were_not_measured_again_stay_on_the_page(tmp_path: Path) -> None:
    order = ["cold", "commands"]
    report.write(
        [group("cold", table()), group("commands", table("measured before", group="commands"))], docs=tmp_path, order=order
    )
    page = report.write([group("commands", table("measured anew", group="commands"))], docs=tmp_path, order=order).read_text()
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == order
    assert "measured anew" in page
    assert "measured before" not in page


def test_sizes_of_a_family_without_bars_are_one_table_and_one_plot(tmp_path: Path) -> None:
    sizes = [table(f"{n} of it", key="", family="all of it", x=n, items=n, group="memory") for n in (100, 10)]
    page = report.write([group("memory", *sizes)], docs=tmp_path, order=["memory"]).read_text()
    assert re.findall(r"^### (.*)$", page, re.MULTILINE) == ["all of it (medians of 2 rounds)"]
    assert page.index("| 10 | 0 | 1.500 |") < page.index("| 100 | 0 | 1.500 |")
    assert [path.name for path in (tmp_path / "benchmarks").glob("*.svg")] == ["family-memory-all-of-it.svg"]


def test_a_page_names_no_place_of_the_machine(tmp_path: Path) -> None:
    case = python("peer", "import sys; sys.exit(sys.argv[0] and 'failed in /some/place')")
    outcome = measured(contest(python("ours", ""), case), tmp_path)
    page = report.write([group("cold", tables.table(outcome))], docs=tmp_path, order=["cold"]).read_text()
    assert "Refused, because its work was not done: peer (exit code 1)." in page
    assert not re.search(rf"{re.escape(str(tmp_path))}|/some/place|{re.escape(sys.executable)}", page)


@pytest.mark.parametrize(
    "drawing",
    [
        plots.bars(table()),
        plots.bars(replace(table(), rows=table().rows[:1])),
        plots.lines("how & why", [table(x=10.0), table(x=1000.0), table(x=100.0)]),
        plots.bars(table("a title that is too long for the width of a drawing " * 2)),
    ],
    ids=["bars", "one bar", "lines", "two lines of title"],
)
def test_a_plot_is_whole_and_within_its_frame(drawing: str) -> None:
    root = ElementTree.fromstring(drawing)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for each in root.iter():
        ends = float(each.get("x", 0)) + float(each.get("width", 0) if each.tag.endswith("rect") else 0)
        assert 0 <= ends <= width
        assert 0 <= float(each.get("y", 0)) <= height
    assert "prefers-color-scheme: dark" in drawing


@pytest.mark.parametrize(
    "heights",
    [{"a": 100.0, "b": 101.0, "c": 102.0, "d": 250.0}, {str(n): 50.0 for n in range(12)}, {str(n): 255.0 for n in range(9)}],
)
def test_labels_are_not_over_each_other_nor_over_the_title(heights: dict[str, float]) -> None:
    placed = plots._apart(heights, plots.TOP, 260)
    assert placed.keys() == heights.keys()
    found = sorted(placed.values())
    assert all(below - above >= plots.LABEL for above, below in itertools.pairwise(found))
    assert plots.TOP <= found[0] <= found[-1] <= 260
    assert placed.get("d", 250) == 250


def test_what_grows_in_proportion_lies_on_the_dashed_line() -> None:
    grown = [table(x=x, rows=[replace(row, wall=3 + x / 50, rss=x) for row in table().rows]) for x in (10.0, 20.0, 70.0)]
    drawing = plots.lines("sizes", grown)
    tracks = [
        [tuple(map(float, each.split(","))) for each in track.split()] for track in re.findall(r'points="([^"]+)"', drawing)
    ]
    guides = re.findall(r'class="guide" x1="(\S+)" y1="(\S+)" x2="(\S+)" y2="(\S+)"', drawing)
    assert len(guides) == 2
    for x1, y1, x2, y2 in (map(float, guide) for guide in guides):
        on_it = [track for track in tracks if track[0] == (x1, y1) and track[-1] == (x2, y2)]
        assert on_it
        assert all(y == pytest.approx(y1 + (y2 - y1) * (x - x1) / (x2 - x1), abs=0.1) for track in on_it for x, y in track)


def test_a_plot_says_what_its_colours_mean() -> None:
    limited = table(rows=[replace(row, is_floor=row.name == "2") for row in table().rows])
    assert all(text in plots.bars(limited) for text in plots.KINDS.values())
    assert plots.KINDS["floor"] not in plots.bars(table())


@pytest.mark.parametrize("most", [0.003, 0.99, 1.0, 5.9, 6.0, 7.1, 999.0, 1e6])
def test_marks_are_few_and_round_and_go_beyond_what_is_shown(most: float) -> None:
    marks = plots._linear(most, 0, 100).marks
    assert 3 <= len(marks) <= 8
    assert marks[-2] <= most < marks[-1]
    assert plots._linear(most, 0, 100, is_exact=True).marks[-1] <= most


@pytest.mark.parametrize(("most", "unit"), [(20.0, "s: less"), (200.0, "s, log scale: less")])
def test_bars_are_as_long_as_what_they_show_unless_the_shortest_could_not_be_seen(most: float, unit: str) -> None:
    drawing = plots.bars(barred("unchanged", {"doit": most}))
    assert unit in drawing
    ours, peer, *_ = (float(width) for width in re.findall(r'<rect class="\w+" [^>]*width="([^"]+)"', drawing))
    assert (peer / ours == pytest.approx(most, rel=0.01)) is ("log" not in unit)


@pytest.mark.parametrize(
    ("figure", "shown"),
    [(0, "0"), (0.0026, "0.0026"), (0.0999, "0.0999"), (4.0, "4"), (10.7, "10.7"), (20, "20"), (1e6, "1,000,000")],
)
def test_numbers_on_a_plot_are_short(figure: float, shown: str) -> None:
    assert plots._number(figure) == shown


def test_a_line_goes_through_the_sizes_in_their_order_for_time_and_for_memory() -> None:
    drawing = plots.lines("sizes", [table(x=1000.0), table(x=10.0)])
    assert all(unit in drawing for unit in ("wall clock, s", "peak memory, MiB"))
    assert drawing.count("number of sizes") == 2
    tracks = re.findall(r'points="([^"]+)"', drawing)
    assert len(tracks) == 2 * 3
    for track in tracks:
        xs = [float(point.partition(",")[0]) for point in track.split()]
        assert xs == sorted(xs)


def barred(key: str, peers: dict[str, float], *, items: int = 1) -> tables.Table:
    """A contest with the bars of that key, in which ours took 1 s and each peer so many."""
    walls = {"jobrunner": 1.0} | peers
    cases = [Case(name=name, argv=[], check=is_fine) for name in walls]
    samples = {name: [Sample(wall=wall, cpu=wall, rss=20)] for name, wall in walls.items()}
    of = bars.with_goals(contest(*cases, key=key, items=items))
    return tables.table(Outcome(contest=of, samples=samples, singles={}))


@pytest.mark.parametrize(
    ("figure", "digits", "limits", "shown"),
    [
        (1.104, 2, [1.1], "1.104"),
        (1.1004, 2, [1.1], "1.1004"),
        (1.1, 2, [1.1], "1.10"),
        (1.096, 2, [1.1], "1.10"),
        (1.154, 2, [1.1], "1.15"),
        (1.254, 2, [None], "1.25"),
        (0.996, 2, [1.1, 0.9], "1.00"),
        (300.4, 0, [300], "300.4"),
    ],
)
def test_a_figure_has_the_digits_that_its_verdict_needs(figure: float, digits: int, limits: list[float], shown: str) -> None:
    assert tables.exact(figure, digits, limits) == shown


def test_a_missed_bar_is_shown_with_what_is_written_of_it() -> None:
    tried = group("cold", barred("unchanged", {"doit": 1.0, "pypyr": 4.0}))
    page = report.page(
        [tried], order=["cold"], notes={"unchanged / doit": "It is the import.", "unchanged / pypyr": "Not shown."}
    )
    left = page.partition("## What is left")[2].partition("\n## ")[0]
    figure = "1.00 [1.00, 1.00] (1.00 to 1.00), where the bar is ≤ 0.75 ×"
    assert left.strip() == f"- [a title](#cold-unchanged), against doit: {figure}. It is the import."
    assert "Nothing is written of it yet." in report.page([tried], order=["cold"], notes={})


def test_a_page_without_a_missed_bar_says_so() -> None:
    assert "No bar is missed." in report.page([group("cold", barred("unchanged", {"doit": 4.0}))], order=["cold"], notes={})


def test_notes_stay_when_figures_are_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.bars.notes", lambda: {"unchanged / doit": "It is the import."})
    for wall in (1.0, 1.1):
        page = report.write([group("cold", barred("unchanged", {"doit": wall}))], docs=tmp_path, order=["cold"]).read_text()
        assert page.count("It is the import.") == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('"unchanged / dot" = "x"', "no bar 'unchanged / dot'; there are .*'unchanged / doit'"),
        ('"unchanged / doit" = 3', "no text"),
    ],
)
def test_a_note_of_no_bar_is_an_error(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "notes.toml").write_text(text)
    with pytest.raises(ValueError, match=why):
        bars.notes(tmp_path / "notes.toml")


def test_the_notes_that_are_here_are_of_bars() -> None:
    assert set(bars.notes()) <= set(bars.BARS)


def test_a_limit_in_seconds_or_mib_holds_at_its_full_size_alone() -> None:
    small, full = (barred("reading", {"yaml.CSafeLoader: load only": 2.0}, items=items) for items in (10_000, 100_000))
    bar = bars.BARS["reading / jobrunner: load, check, validate"]
    assert (bar.at(10_000), bar.at(100_000)) == (None, bar.goal)
    assert [row.verdict for row in small.rows] == [row.verdict for row in full.rows] == ["", "met"]
    page = report.page([group("memory", barred("many", {}, items=10))], order=["memory"], notes={})
    assert "| jobrunner, over a job with one item |  | ≤ 100 MiB | not measured |" in page


# --- nothing is left ----------------------------------------------------------------------------------------------------------


def test_what_a_measured_process_leaves_running_is_ended(tmp_path: Path) -> None:
    leave = "import subprocess, sys; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    told: list[int] = []
    case = python("ours", leave, lambda printed: told.append(int(printed)))
    measured(contest(case), tmp_path)
    assert told
    assert not any(leftovers.is_alive(pid) for pid in told)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_run_leaves_no_process(number: signal.Signals, code: int, tmp_path: Path) -> None:
    mark = f"test-{tmp_path}"
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "commands", "--no-install"],
        cwd=ROOT,
        env=os.environ | {leftovers.NAME: mark, "JOBRUNNER_STATE": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until(
            lambda: any("spawn_loop" in line or "jobrunner" in line for line in _lines_of(leftovers.alive(mark), child.pid))
        )
        child.send_signal(number)
        assert child.wait(30) == code
        assert not leftovers.alive(mark)
    finally:
        child.kill()
        child.wait()
        leftovers.end(mark)


def _wait_until(is_so: Callable[[], bool], patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _lines_of(processes: set[leftovers.Process], but: int) -> Iterator[str]:
    """The command lines of these processes."""
    for each in processes:
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{each.pid}/cmdline").read_text()
            if each.pid != but:
                yield line


# --- the command line ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["no-such"], 2, "no group no-such; there are cold, commands, calls, cpu, graph, yaml, events, memory, makespan, safety"),
        (["--rounds", "0"], 2, "--rounds: at least 1"),
        (["--help"], 0, "--no-install"),
    ],
)
def test_the_command_line_tells_what_there_is(arguments: list[str], code: int, said: str) -> None:
    ended = subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == code
    assert said in ended.stdout + ended.stderr


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One group of one contest of one process; the page would be in a folder of the test."""
    monkeypatch.setattr("benchmarks.process.ROOT", tmp_path)
    monkeypatch.setattr("benchmarks.process.compile_all", lambda: None)
    monkeypatch.setattr(
        "benchmarks.cold.contests", lambda scratch, *, quick: [contest(python("ours", "", at=at(tmp_path)), rounds=2)]
    )


def at(folder: Path) -> Surroundings:
    return Surroundings(folder=folder)


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize(("arguments", "written"), [([], False), (["--json"], False), (["--write"], True)])
def test_the_page_is_written_when_it_is_asked_for_and_only_then(
    arguments: list[str], written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "cold", "--no-install", *arguments])
    assert command.main() == 0
    assert (tmp_path / "docs" / "benchmarks.md").exists() is written
    assert (tmp_path / "docs").exists() is written


@pytest.mark.usefixtures("_tiny")
def test_the_page_can_be_written_again_without_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = report.write([group("cold", barred("unchanged", {"doit": 1.0}))], docs=tmp_path / "docs", order=["cold"])
    figures = (tmp_path / "docs" / "benchmarks" / "results.json").read_text()
    monkeypatch.setattr("benchmarks.bars.notes", lambda: {"unchanged / doit": "It is the import."})
    monkeypatch.setattr("benchmarks.cold.contests", None)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--rewrite"])
    assert command.main() == 0
    assert "It is the import." in page.read_text()
    assert (tmp_path / "docs" / "benchmarks" / "results.json").read_text() == figures


def test_a_bar_of_a_contest_that_was_not_held_is_on_the_page() -> None:
    page = report.page([group("cold", barred("unchanged", {"doit": 4.0}))], order=["cold"], notes={})
    assert (
        "| [first-sight](#cold) | script: YAML, pydantic, structlog, one spawn |  | ≤ 1.1 × (stretch 0.9) | not measured |"
        in page
    )


@pytest.mark.usefixtures("_tiny")
def test_every_figure_is_told_as_json_and_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "cold", "--no-install", "--json", "--rounds", "1"])
    command.main()
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["name"], told["form"], told["contests"][0]["rounds"]) == ("cold", "whole", 1)
    assert told["contests"][0]["rows"][0]["wall"] > 0
    assert told["seconds"] > 0
