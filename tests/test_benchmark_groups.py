"""The benchmarks of calls, computing, graphs, YAML and memory, in tiny sizes: that they measure work which was really done."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import (
    bars,
    calls,
    cold,
    commands,
    cpu,
    environments,
    graph,
    layers,
    measure,
    memory,
    process,
    safety,
    work_items,
    yaml,
)
from benchmarks import pools as matches
from benchmarks.measure import Case, Contest
from benchmarks.peers import graphs, peak, pools

Contests = Callable[..., list[Contest]]
GROUPS: dict[str, Contests] = {each.__name__: each.contests for each in (calls, cpu, graph, yaml, memory)}
STANDARD = [way for way in pools.WAYS if way.startswith(("ideal", "Thread", "Process", "multiprocessing", "a "))]


@pytest.fixture
def _nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No peer is to be had but what comes with Python."""
    for module in ("graph", "yaml", "pools"):
        monkeypatch.setattr(f"benchmarks.{module}.environment", lambda name: None)


def say(_: str) -> None:
    """Tells nobody."""


@pytest.mark.parametrize("way", STANDARD)
def test_every_way_gives_back_every_call(way: str) -> None:
    assert pools.main(way, "nothing", 12, 0) == 12


@pytest.mark.parametrize("way", ["ideal", "ProcessPoolExecutor.map in chunks", "a Thread a call"])
def test_calls_that_compute_give_what_the_function_gives(way: str) -> None:
    assert pools.main(way, "burn", 5, 100) == 5


def test_a_call_that_gives_something_else_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pools.WAYS, "lossy", lambda function, arguments: [function(arguments[0]), -1])
    assert pools.main("lossy", "burn", 2, 100) == 1


def test_loops_cost_about_the_time_that_was_asked_for() -> None:
    assert work_items.loops_for(0.01) == pytest.approx(10 * work_items.loops_for(0.001), rel=0.6)


def test_each_task_needs_two_of_the_layer_before() -> None:
    graph_of_350 = dict(layers.nodes(350))
    assert len(graph_of_350) == 350
    for name, needed in graph_of_350.items():
        layer = int(name[1:]) // layers.WIDTH
        assert [int(each[1:]) // layers.WIDTH for each in needed] == [layer - 1] * len(set(needed))
        assert len(needed) == (2 if layer else 0)


@pytest.mark.parametrize("name", sorted(set(layers.WRITERS) - {"dodo.py", "Snakefile"}))
def test_each_file_has_every_task(name: str) -> None:
    text = "".join(layers.WRITERS[name](201))
    assert all(f"{each}" in text for each, _ in layers.nodes(201))


def test_make_is_told_once_what_is_phony() -> None:
    """A line for each target takes it quadratic time, which no one who writes a Makefile would pay."""
    text = "".join(layers.makefile(201))
    assert text.count(".PHONY") == 1
    assert all(f" {name}" in text.partition(".PHONY:")[2].partition("\n")[0] for name, _ in layers.nodes(201))


@pytest.mark.parametrize("name", ["dodo.py"])
def test_files_in_python_can_be_read_by_it(name: str) -> None:
    compile("".join(layers.WRITERS[name](10)), name, "exec")


def test_the_standard_library_runs_every_task_of_the_graph() -> None:
    assert graphs.standard_library(dict(layers.nodes(230))) == 230


@pytest.mark.usefixtures("_nothing_installed")
@pytest.mark.parametrize("name", GROUPS)
def test_a_group_has_contests_where_nothing_is_installed(name: str, tmp_path: Path) -> None:
    found = GROUPS[name](tmp_path, quick=True)
    assert found
    for contest in found:
        names = [case.name for case in contest.cases]
        assert len(set(names)) == len(names)
        assert f"benchmarks.{contest.group}" == name


@pytest.fixture
def _all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every peer is to be had, though none is."""
    found = environments.Environment(python="python", version="1", programs=None, own="true")
    for module in ("graph", "yaml", "pools", "environments"):
        monkeypatch.setattr(f"benchmarks.{module}.environment", lambda name: found)


@pytest.mark.usefixtures("_all_installed")
def test_every_bar_is_set_against_a_case_of_the_whole_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At full size, so that limits in seconds and MiB hold; files are written in a small one."""
    monkeypatch.setattr("benchmarks.layers.nodes", lambda tasks: iter(()))
    monkeypatch.setattr("benchmarks.yaml.write_tasks", lambda path, tasks: path.touch() or path)
    found = [
        (contest.key, case)
        for module in (cold, commands, calls, cpu, graph, yaml, memory, safety)
        for contest in map(bars.with_goals, module.contests(tmp_path, quick=False))
        for case in contest.cases
    ]
    carried = {f"{key} / {case.name}": case.goal for key, case in found if case.goal}
    assert carried == {name: bar.goal for name, bar in bars.BARS.items() if bar.contest != "makespan"}


@pytest.mark.usefixtures("_nothing_installed")
@pytest.mark.parametrize("module", [calls, cpu])
def test_throughput_is_compared_alike_for_all_and_never_in_one_round(module: ModuleType, tmp_path: Path) -> None:
    for contest in module.contests(tmp_path, quick=True):
        assert contest.rounds >= measure.LEAST_ROUNDS
        assert contest.compares == ("item" if contest.items > 1 else "wall")
        assert all(_has_checked_twin(case) for case in contest.cases) is (contest.items > 1)


@pytest.mark.usefixtures("_nothing_installed")
def test_processes_that_are_forked_with_their_module_have_a_row_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    (match,) = (replace(each, calls=2, rounds=1) for each in calls.MATCHES if each.key == "process")
    (contest,) = matches.contests(tmp_path, [match], lambda _: calls.NOTHING, group="calls", quick=False)
    outcome = measure.run(replace(contest, cases=contest.cases[:2]), scratch=tmp_path, say=say)
    assert [case.name for case in outcome.cases()] == ["jobrunner", "jobrunner, preload: true"]
    assert "preload: true" in (tmp_path / "nothing-process-0-2-preload-true.yaml").read_text()


def _has_checked_twin(case: Case) -> bool:
    return (
        case.single is not None and case.single.check("something else") is not None
        if case.name != "jobrunner"
        else bool(case.single)
    )


@pytest.mark.usefixtures("_nothing_installed")
def test_a_graph_is_run_from_a_loaded_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    contest = graph._contest(tmp_path, "graph-loaded", 120, graph.LOADED, [graph._standard_library], 1)
    outcome = measure.run(contest, scratch=tmp_path, say=say)
    assert not outcome.refused
    assert all(outcome.wall(case) > 0 for case in outcome.cases())


@pytest.mark.usefixtures("_nothing_installed")
def test_reading_is_measured_on_a_file_that_has_changed(tmp_path: Path) -> None:
    contest = yaml._first(tmp_path, 20, 2)
    before = (tmp_path / "first.yaml").stat().st_size
    outcome = measure.run(contest, scratch=tmp_path, say=say)
    assert not outcome.refused
    assert (tmp_path / "first.yaml").stat().st_size == before + 2


def test_all_processes_of_a_job_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(process.ROOT))
    spans = memory.Spans()
    outcome = measure.run(memory._many(tmp_path, 40, 1, spans), scratch=tmp_path, say=say)
    (case,) = outcome.cases()
    assert outcome.rss(case) < 100
    assert len(spans.first) == len(spans.last) == 1


def test_of_each_run_the_last_tenth_is_held_against_its_first(tmp_path: Path) -> None:
    spans = memory.Spans(first=[2.0, 3.0], last=[1.0, 6.0])
    rate = measure.run(memory._rate(40, 2, spans), scratch=tmp_path, say=say)
    assert rate.ratios(rate.cases()[1]) == [0.5, 2.0]


def test_only_ends_of_success_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    events = [("task.started", None), ("task.finished", "succeeded"), ("task.finished", "failed"), ("task.finished", "succeeded")]
    lines = [{"event": event, "outcome": outcome, "ts": f"2026-01-01T00:00:0{n}Z"} for n, (event, outcome) in enumerate(events)]
    log.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    first, last = peak.ends(log)
    assert last - first == 2
