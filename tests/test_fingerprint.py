"""The fingerprint: never fresh where content differs, fresh where nothing changed, whatever clock, names and kills do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner import fingerprint
from jobrunner.fingerprint import Request, check, compare, digest_of, paths_of, source_files, store

LATER = 10_000_000_000
"""Nanoseconds after which a look is clearly later than any change."""


@dataclass
class Bench:
    """One instance whose task is run by hand: `run` is what the engine does."""

    folder: Path
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    made: int = 0
    given: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)

    @property
    def entry(self) -> Path:
        return self.folder.parent / "cache" / "task-0.json"

    def request(self, **changes: Any) -> dict[str, Any]:
        entry, inputs = str(self.entry), list(self.inputs)
        base = {"entry": entry, "owner": f"run-{self.made}", "now": 1000.0, "folder": str(self.folder), "inputs": inputs}
        request = Request(**{**base, **self.given, **changes})
        return {each.name: getattr(request, each.name) for each in fields(request)}

    def check(self, **changes: Any) -> dict[str, Any]:
        self.made += 1
        answer = check(**self.request(**changes))
        json.dumps(answer, ensure_ascii=False).encode()  # as it goes to the engine
        return answer

    def causes(self, **changes: Any) -> list[str]:
        """Why it would run; changes nothing."""
        found: list[str] = compare(**self.request(**changes))["causes"]
        return found

    def store(self, data: str | None = None, now: float = 1000.0, **changes: Any) -> dict[str, Any]:
        base = {"entry": str(self.entry), "owner": f"run-{self.made}", "now": now, "folder": str(self.folder)}
        return store(**{**base, "outputs": list(self.outputs), "data": data, **changes})

    def run(self, work: Callable[[], object] = lambda: None, **changes: Any) -> bool:
        """Check, and if need be work and store. Whether it was fresh."""
        if self.check(**changes)["fresh"]:
            return True
        work()
        assert self.store()["stored"]
        return False

    def write(self, name: str, text: str = "x") -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "job")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look comes long after every change."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + LATER)


# --- causes -------------------------------------------------------------------------------------------------------------------


def test_it_is_fresh_when_nothing_has_changed_and_gives_back_what_was_kept(bench: Bench) -> None:
    bench.inputs, bench.outputs = ["a.csv"], ["out.txt"]
    bench.write("a.csv")
    assert bench.check()["causes"] == ["no earlier success is known"]
    bench.write("out.txt")
    assert bench.store('{"value": 1}') == {"stored": True, "missing": [], "why": ""}
    answer = bench.check()
    assert (answer["fresh"], answer["causes"], answer["data"]) == (True, [], '{"value": 1}')


FACTS = {"the command": digest_of("a"), "the arguments": digest_of([1])}


def _link_elsewhere(bench: Bench) -> None:
    bench.write("b.csv", "other")
    (bench.folder / "a.csv").unlink()
    (bench.folder / "a.csv").symlink_to("b.csv")


@pytest.mark.parametrize(
    ("change", "request_changes", "cause"),
    [
        (lambda b: b.write("a.csv", "y"), {}, "input a.csv changed"),
        (lambda b: (b.folder / "a.csv").unlink(), {}, "input a.csv is missing"),
        (lambda b: (b.folder / "in/1.txt").unlink(), {}, "input in/1.txt is gone"),
        (lambda b: b.write("in/2.txt"), {}, "input in/2.txt is new"),
        (_link_elsewhere, {}, "input a.csv changed"),
        (lambda b: b.write("out.txt", "y"), {}, "output out.txt was changed"),
        (lambda b: (b.folder / "out.txt").unlink(), {}, "output out.txt is gone"),
        (lambda b: b.write("nightly.py", "y"), {}, "nightly.py changed"),
        (lambda b: (b.folder / "nightly.py").unlink(), {}, "nightly.py is gone"),
        (lambda b: b.write("nightly/__init__.py"), {}, "nightly/__init__.py is new"),
        (None, {"facts": {**FACTS, "the command": digest_of("b")}}, "the command changed"),
        (None, {"facts": {**FACTS, "the arguments": digest_of([2])}}, "the arguments changed"),
        (None, {"env": {"STAGE": digest_of("b")}}, "env STAGE changed"),
        (None, {"env": {}}, "env STAGE is gone"),
        (None, {"needs": {"fetch": digest_of(2)}}, "needs fetch, which gave something else"),
        (None, {"needs": {"fetch": digest_of(1), "more": digest_of(1)}}, "needs more, which is new"),
        (None, {"needs": {}}, "needs fetch no more"),
        (None, {"ttl": 3600.0, "now": 4600.0}, "older than its ttl of 1h"),
        (None, {"ttl": 3600.0, "now": 999.0}, "older than its ttl of 1h"),  # the clock was set back: nobody knows
        (None, {"wants_data": True}, "what it gave is not kept"),
        (None, {"force": True}, "it is to run whatever is cached (--force)"),
        (None, {"problem": "nobody knows"}, "nobody knows"),
    ],
)
def test_every_change_is_a_cause_in_words(
    bench: Bench, change: Callable[[Bench], object] | None, request_changes: dict[str, Any], cause: str
) -> None:
    bench.inputs, bench.outputs = ["a.csv", "in/*.txt"], ["out.txt"]
    bench.given = {"facts": FACTS, "env": {"STAGE": digest_of("a")}, "needs": {"fetch": digest_of(1)}, "module": "nightly"}
    for name in ("a.csv", "in/1.txt", "nightly.py"):
        bench.write(name)
    bench.run(lambda: bench.write("out.txt"))
    assert bench.run()
    if change is not None:
        change(bench)
    assert cause in bench.causes(**request_changes)
    answer = bench.check(**request_changes)
    assert not answer["fresh"]
    assert cause in answer["causes"]
    assert bench.causes()[0] == "no success of its last attempt is known", "the entry is gone before the check answers"


def test_what_is_not_known_now_counts_as_it_was(bench: Bench) -> None:
    bench.run(env={"TOKEN": digest_of("s")}, needs={"fetch": digest_of(1)})
    assert bench.run(env={"TOKEN": None}, needs={"fetch": None})
    assert bench.causes(env={"TOKEN": digest_of("t")}, needs={"fetch": digest_of(1)}) == ["env TOKEN changed"]


def test_a_ttl_counts_from_the_success(bench: Bench) -> None:
    bench.check(ttl=60.0)
    bench.store(now=5000.0)
    assert bench.causes(ttl=60.0, now=5059.0) == []
    assert bench.causes(ttl=60.0, now=5060.0) == ["older than its ttl of 1m"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "250ms"), (1.5, "1.5s"), (60, "1m"), (5400, "1h30m"), (90_061, "1d1h1m1s"), (604_800, "7d")]
)
def test_a_duration_reads_as_in_a_job_file(seconds: float, text: str) -> None:
    assert fingerprint.duration(seconds) == text


def test_many_causes_are_cut_to_twenty_lines_and_a_count(bench: Bench) -> None:
    bench.inputs = ["*.csv"]
    bench.run()
    for number in range(30):
        bench.write(f"{number:02}.csv")
    causes = bench.causes()
    assert len(causes) == 21
    assert (causes[0], causes[-1]) == ("input 00.csv is new", "and 10 more")


def test_comparing_changes_nothing_on_disk(bench: Bench) -> None:
    bench.causes()
    assert not bench.entry.parent.exists()
    bench.inputs = ["a.csv"]
    bench.run()
    before = bench.entry.read_bytes()
    bench.write("a.csv")
    assert bench.causes() == ["input a.csv is new"]
    assert bench.entry.read_bytes() == before


# --- outputs and endings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [["out.txt", "no.txt"], ["out.txt", "no/*.txt"], ["out.txt", "empty"]])
def test_a_success_without_one_of_its_outputs_is_not_stored(bench: Bench, outputs: list[str]) -> None:
    bench.outputs = outputs
    bench.check()
    bench.write("out.txt")
    (bench.folder / "empty").mkdir()
    answer = bench.store()
    assert (answer["stored"], answer["missing"]) == (False, [outputs[1]])
    how = "held no file" if outputs[1] == "empty" else "was not there"
    assert bench.causes() == [f"output {outputs[1]} {how} when it last ended"]


def test_an_output_that_a_sibling_adds_to_the_same_pattern_is_no_change(bench: Bench) -> None:
    bench.outputs = ["out/*.txt"]
    bench.run(lambda: bench.write("out/1.txt"))
    bench.write("out/2.txt")
    assert bench.run()


def test_an_attempt_that_fails_or_is_killed_leaves_no_entry(bench: Bench) -> None:
    bench.outputs = ["out.txt"]
    bench.run(lambda: bench.write("out.txt"))
    assert not bench.check(facts={"the command": "other"})["fresh"]
    assert not bench.check()["fresh"], "all is as it was at the last success, but an attempt has failed since"


def test_an_input_that_changes_while_the_task_runs_makes_it_run_again(bench: Bench) -> None:
    bench.inputs = ["a.csv"]
    bench.write("a.csv", "one")
    bench.check()
    bench.write("a.csv", "two")
    assert not bench.store()["stored"]
    assert bench.causes() == ["input a.csv changed while it last ran"]


def test_an_input_that_is_changed_and_put_back_while_the_task_runs_makes_it_run_again(bench: Bench) -> None:
    bench.inputs = ["a.csv"]
    bench.write("a.csv", "one")
    os.utime(bench.folder / "a.csv", ns=(1, 1))
    bench.check()
    bench.write("a.csv", "two")
    bench.write("a.csv", "one")
    assert not bench.store()["stored"]


def test_a_link_to_an_input_made_while_the_task_runs_is_no_change(bench: Bench) -> None:
    bench.inputs = ["a.csv"]
    bench.write("a.csv")
    bench.check()
    os.link(bench.folder / "a.csv", bench.folder / "b.csv")
    assert bench.store()["stored"]
    assert bench.run()


def test_only_who_made_the_claim_may_store(bench: Bench) -> None:
    bench.check()
    bench.made = 99
    assert not bench.store()["stored"]


# --- the clock ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["inputs", "outputs"])
def test_a_change_of_the_same_size_in_the_same_tick_is_seen(bench: Bench, role: str) -> None:
    for number in range(60):  # ext4 ticks every 1 to 10 ms: most of these keep the times
        setattr(bench, role, ["a.csv"])
        bench.write("a.csv", f"{number:05}")
        bench.run()
        bench.write("a.csv", f"{number + 1:05}")
        assert not bench.check()["fresh"]


def test_a_change_that_hides_behind_its_old_mtime_is_seen(bench: Bench, later: None) -> None:
    bench.inputs = ["a.csv"]
    bench.write("a.csv", "one")
    os.utime(bench.folder / "a.csv", ns=(5, 5))
    bench.run()
    assert bench.run()
    bench.write("a.csv", "two")
    os.utime(bench.folder / "a.csv", ns=(5, 5))
    assert bench.causes() == ["input a.csv changed"]


def test_a_file_that_is_settled_is_not_read_again_and_one_that_is_fresh_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = _counted(monkeypatch)
    bench.inputs = ["a.csv"]
    bench.write("a.csv")
    bench.run()
    assert bench.run()
    assert bench.run()
    assert len(reads) == 3, "its times could hide a change"
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + LATER)
    assert bench.run()
    assert bench.run()
    assert len(reads) == 4, "once more, and never again"


def test_only_the_input_that_changed_is_read_again_also_after_a_failure(
    bench: Bench, later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.inputs = ["*.csv"]
    for name in "abc":
        bench.write(f"{name}.csv")
    bench.run()
    reads = _counted(monkeypatch)
    bench.write("b.csv", "y")
    bench.check()  # and the attempt fails
    bench.check()
    assert reads == [str(bench.folder / "b.csv")]


def test_touching_without_changing_is_no_change(bench: Bench, later: None) -> None:
    bench.inputs, bench.outputs = ["a.csv"], ["out.txt"]
    bench.write("a.csv")
    bench.run(lambda: bench.write("out.txt"))
    os.utime(bench.folder / "a.csv")
    os.utime(bench.folder / "out.txt")
    assert bench.run()


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    reads: list[str] = []
    real = fingerprint._read_through

    def counted(path: str) -> fingerprint.Seen:
        reads.append(path)
        return real(path)

    monkeypatch.setattr(fingerprint, "_read_through", counted)
    return reads


# --- files --------------------------------------------------------------------------------------------------------------------

ODD = [
    b"a\nb.csv", b"\xff\xfe.csv", b"'\"$(x).csv", b"a[1].csv", b"*.csv", b" .csv", b"\x1b[31m.csv", "é…\u202e.csv".encode(),
    b"n" * 251 + b".csv",
]  # fmt: skip


def test_a_name_that_looks_like_a_pattern_counts_beside_what_the_pattern_means(bench: Bench) -> None:
    for name in ("a[1].csv", "a1.csv", "a2.csv"):
        bench.write(name)
    assert paths_of("a[1].csv", str(bench.folder)) == ["a1.csv", "a[1].csv"]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("pattern", [None, "*.csv", "in"])
def test_odd_names_are_names(bench: Bench, name: bytes, pattern: str | None) -> None:
    os.mkdir(bench.folder / "in")
    text = os.fsdecode(name) if pattern is None else f"in/{os.fsdecode(name)}" if pattern == "in" else os.fsdecode(name)
    path = os.path.join(bench.folder, text)
    with open(path, "w") as file:
        file.write("one")
    bench.inputs, bench.outputs = [pattern or text], [pattern or text]
    assert not bench.run()
    assert bench.run()
    with open(path, "w") as file:
        file.write("two")
    causes = bench.causes()
    assert len(causes) == 2, causes
    assert all(cause.isprintable() for cause in causes)
    assert bench.check()["causes"] == causes


TREE = ("a.csv", "b.txt", ".hid.csv", "in/c.csv", "in/.hid/d.csv", "in/deep/e.csv", "in/deep/f.txt", "x y/g.csv")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.csv", ["a.csv"]),
        ("none.csv", ["none.csv"]),
        ("*.csv", ["a.csv"]),
        (".*.csv", [".hid.csv"]),
        ("*", ["a.csv", "b.txt"]),
        ("*/*.csv", ["in/c.csv", "x y/g.csv"]),
        ("**/*.csv", ["a.csv", "in/c.csv", "in/deep/e.csv", "x y/g.csv"]),
        ("in/**", ["in/c.csv", "in/deep/e.csv", "in/deep/f.txt"]),
        ("in/**/e.csv", ["in/deep/e.csv"]),
        ("**/deep/*.[ct]*", ["in/deep/e.csv", "in/deep/f.txt"]),
        ("in", ["in/.hid/d.csv", "in/c.csv", "in/deep/e.csv", "in/deep/f.txt"]),
        ("in/", ["in/.hid/d.csv", "in/c.csv", "in/deep/e.csv", "in/deep/f.txt"]),
        ("./in/*.csv", ["./in/c.csv"]),
        ("in/../*.csv", ["in/../a.csv"]),
        ("?.csv", ["a.csv"]),
        ("no/*.csv", []),
        ("a.csv/*", []),
    ],
)
def test_a_pattern_means_these_files(bench: Bench, pattern: str, expected: list[str]) -> None:
    for name in TREE:
        bench.write(name)
    assert paths_of(pattern, str(bench.folder)) == expected
    absolute = paths_of(f"{bench.folder}/{pattern}", "/")
    assert [os.path.normpath(path) for path in absolute] == [os.path.normpath(bench.folder / name) for name in expected]


def test_links_in_circles_come_to_an_end(bench: Bench) -> None:
    for name in ("in/a.csv", "in/deep/b.csv"):
        bench.write(name)
    for number in range(6):
        os.symlink("..", bench.folder / f"in/deep/up{number}")
    os.symlink("self", bench.folder / "in/self")
    for pattern in ("in", "in/**"):
        assert "in/a.csv" in paths_of(pattern, str(bench.folder))
        assert len(paths_of(pattern, str(bench.folder))) == 3


def test_of_a_link_the_content_of_what_it_leads_to_counts(bench: Bench, later: None) -> None:
    bench.inputs = ["link.csv"]
    bench.write("real.csv", "one")
    os.symlink("real.csv", bench.folder / "link.csv")
    bench.run()
    assert bench.run()
    bench.write("real.csv", "two")
    assert bench.causes() == ["input link.csv changed"]
    os.unlink(bench.folder / "real.csv")
    assert "input link.csv is missing" in bench.causes()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: os.symlink("a", path), "symbolic links"),
        (os.mkfifo, "it is not a regular file"),
        (lambda path: os.symlink("/dev/zero", path), "it is not a regular file"),
        (lambda path: os.symlink("/proc/self/mem", path), "Input/output error"),
    ],
)
@pytest.mark.parametrize("pattern", ["a", "?"])
def test_what_cannot_be_read_is_a_cause_each_time(bench: Bench, make: Callable[[Path], object], words: str, pattern: str) -> None:
    make(bench.folder / "a")
    bench.inputs = [pattern]
    for _ in range(2):
        causes = bench.check()["causes"]
        assert causes[-1].startswith("input a cannot be read (")
        assert words in causes[-1]
        bench.store()


def test_a_folder_that_cannot_be_read_is_a_cause(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.inputs = ["in/**"]
    bench.write("in/a.csv")
    bench.run()

    def refused(path: str) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refused)
    assert any("cannot be read (Permission denied: " in cause for cause in bench.causes())


@pytest.mark.parametrize("text", ["nul\0.csv", "\ud800.csv", "x" * 5000, "a/" * 3000])
def test_what_can_be_no_path_is_a_cause(bench: Bench, text: str) -> None:
    bench.inputs = bench.outputs = [text]
    assert any(cause.startswith("input ") for cause in bench.check()["causes"])
    assert not bench.store()["stored"]


# --- code ---------------------------------------------------------------------------------------------------------------------


def test_code_is_found_beside_the_job_first_through_packages_and_never_run(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = "raise SystemExit('imported')"
    for name in ("json.py", "pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/mod.py", "space/mod.py", "bare/in/mod.py"):
        bench.write(name, bomb)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far.py").write_text(bomb)
    monkeypatch.syspath_prepend(str(elsewhere))
    folder = str(bench.folder)
    assert source_files("json", folder) == ["json.py"]
    assert source_files("pkg.sub.mod", folder) == ["pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/mod.py"]
    assert source_files("space.mod", folder) == ["space/mod.py"]
    assert source_files("bare.in.mod", folder) == ["bare/in/mod.py"]
    assert source_files("far", folder) == [str(elsewhere / "far.py")]
    assert source_files("pkg.none", folder) == ["pkg/__init__.py"]
    assert source_files("none.at.all", folder) == []
    assert source_files("sys", folder) == []
    assert source_files("orjson.orjson", folder)[-1].endswith(".so")


# --- entries ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-1],
        lambda raw: raw.replace(b'"done":true', b'"done":1   '),
        lambda raw: raw.replace(b"cache 1", b"cache 0"),
        lambda raw: b"{}",
        lambda raw: b"\xff\x00" * 100,
        lambda raw: raw + b" ",
    ],
)
def test_an_entry_that_is_damaged_or_foreign_is_none(bench: Bench, damage: Callable[[bytes], bytes]) -> None:
    bench.run()
    bench.entry.write_bytes(damage(bench.entry.read_bytes()))
    assert bench.check()["causes"] == ["no earlier success is known"]


def test_entries_are_for_their_owner_alone(bench: Bench) -> None:
    bench.run()
    assert bench.entry.stat().st_mode & 0o777 == 0o600
    assert bench.entry.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in bench.entry.parent.iterdir()] == [bench.entry.name]


def test_where_no_claim_can_be_written_at_least_the_entry_goes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run()

    def full(path: str, entry: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fingerprint, "_write", full)
    assert not bench.check(force=True)["fresh"]
    assert not bench.entry.exists()
    assert not bench.store()["stored"]


KILLED = """
import json, os, signal, sys
from jobrunner import fingerprint
request, outputs, place = json.loads(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
names = ("open", "replace", "unlink")
count = 0
def dying(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == place:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for name in names:
    setattr(fingerprint.os, name, dying(getattr(os, name)))
assert not fingerprint.check(**request)["fresh"]
with open(os.path.join(request["folder"], "out.txt"), "w") as file:
    file.write("new")
keys = {key: request[key] for key in ("entry", "owner", "now", "folder")}
assert fingerprint.store(**keys, outputs=outputs, data=None)["stored"]
print(count)
"""


def test_a_kill_at_any_step_leaves_no_success_that_was_none(bench: Bench) -> None:
    bench.inputs, bench.outputs = ["a.csv"], ["out.txt"]
    bench.write("a.csv", "new")
    steps, place = None, 1
    while steps is None:
        bench.write("a.csv", "old")
        bench.run(lambda: bench.write("out.txt", "old"), force=True)
        bench.write("a.csv", "new")
        request = json.dumps(bench.request(owner="killed"))
        command = [sys.executable, "-c", KILLED, request, json.dumps(bench.outputs), str(place)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode == 0:
            steps = int(ended.stdout)
        else:
            assert ended.returncode == -signal.SIGKILL, ended.stderr
        output = (bench.folder / "out.txt").read_text()
        assert bool(bench.causes()) or output == "new", f"killed at step {place}"
        if output == "old":
            assert "input a.csv changed" in bench.causes() or "no success of its last attempt is known" in bench.causes()
        place += 1
    assert steps >= 6, "the kills reach the claim and the entry"
    assert place == steps + 2, "every step was killed once"


def test_checks_of_one_entry_at_the_same_time_leave_one_that_may_store(bench: Bench) -> None:
    bench.inputs = ["*.csv"]
    for number in range(50):
        bench.write(f"{number}.csv")
    for _ in range(20):
        stored: list[bool] = []
        together = threading.Barrier(4)

        def attempt(owner: str, together: threading.Barrier = together, stored: list[bool] = stored) -> None:
            request = bench.request(owner=owner, force=True)
            together.wait()
            check(**request)
            together.wait()
            keys = {key: request[key] for key in ("entry", "owner", "now", "folder")}
            stored.append(store(**keys, outputs=[], data=None)["stored"])

        threads = [threading.Thread(target=attempt, args=(str(number),)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stored.count(True) == 1
        assert bench.causes() == []


def test_refreshing_an_entry_never_undoes_a_claim(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.inputs = ["a.csv"]
    bench.write("a.csv")
    bench.run()
    real = fingerprint._swap

    def overtaken(path: str, raw: bytes, entry: fingerprint.Entry) -> bool:
        check(**bench.request(owner="other", force=True))
        return real(path, raw, entry)

    monkeypatch.setattr(fingerprint, "_swap", overtaken)
    assert check(**bench.request())["fresh"]
    assert bench.causes() == ["no success of its last attempt is known"]


def test_ten_thousand_inputs_are_looked_at_in_well_under_a_second(
    bench: Bench, later: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.inputs = ["in/**/*.csv"]
    for folder in range(100):
        (bench.folder / f"in/{folder}").mkdir(parents=True)
        for number in range(100):
            (bench.folder / f"in/{folder}/{number}.csv").write_text(str(number))
    bench.run()
    reads = _counted(monkeypatch)
    started = time.process_time()
    assert bench.run()
    assert time.process_time() - started < 1.0
    assert not reads


# --- against a model that is slow and obvious -----------------------------------------------------------------------------------

NAMES = st.sampled_from(["a.csv", "b.csv", "in/c.csv", "in/deep/d.csv", "fixed.txt"])
TEXTS = st.sampled_from(["one", "two", "six", "", "longer"])
STEPS = st.one_of(
    st.tuples(st.just("write"), NAMES, TEXTS),
    st.tuples(st.just("delete"), NAMES, st.just("")),
    st.tuples(st.just("touch"), NAMES, st.just("")),
    st.tuples(st.just("move"), NAMES, NAMES),
    st.tuples(st.just("output"), st.sampled_from(["out/1", "out/2"]), TEXTS),
    st.tuples(st.just("spoil"), st.sampled_from(["out/1", "out/2"]), st.just("")),
    st.tuples(st.just("env"), st.just(""), TEXTS),
    st.tuples(st.just("args"), st.just(""), TEXTS),
    st.tuples(st.just("run"), st.just(""), st.sampled_from(["succeeds", "fails", "is killed before it stores"])),
    st.tuples(st.just("run"), st.just(""), st.just("succeeds")),
)


@dataclass
class Model:
    """All contents at the last success: what is fresh is what is equal to them."""

    bench: Bench
    values: dict[str, str] = field(default_factory=lambda: {"env": "", "args": ""})
    success: tuple[object, dict[str, bytes]] | None = None

    def inputs(self) -> dict[str, bytes]:
        found = {}
        for path in sorted(self.bench.folder.rglob("*")):
            name = str(path.relative_to(self.bench.folder))
            if path.is_file() and (name in ("a.csv", "fixed.txt") or name.startswith("in/")):
                found[name] = path.read_bytes()
        return found

    def outputs(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.bench.folder / "out").glob("*")}

    def state(self) -> object:
        return self.inputs(), dict(self.values)

    def is_fresh(self) -> bool:
        """As it was, with what it made, and with the inputs that are named."""
        if self.success is None or not (self.bench.folder / "fixed.txt").is_file():
            return False
        state, made = self.success
        now = self.outputs()
        return state == self.state() and all(now.get(name) == content for name, content in made.items())


def _apply(model: Model, kind: str, name: str, text: str) -> None:
    path = model.bench.folder / name
    match kind:
        case "write" | "output":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        case "delete" | "spoil":
            path.unlink(missing_ok=True)
        case "touch" if path.exists():
            os.utime(path)
        case "move" if path.exists():
            target = model.bench.folder / text
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        case "env" | "args":
            model.values[kind] = text
        case "run":
            _run(model, text)


def _run(model: Model, how: str) -> None:
    bench = model.bench
    wanted = model.is_fresh()
    request = {"env": {"STAGE": digest_of(model.values["env"])}, "facts": {"the arguments": digest_of(model.values["args"])}}
    assert (bench.causes(**request) == []) == wanted
    answer = bench.check(**request)
    assert answer["fresh"] == wanted, answer["causes"]
    if wanted:
        return
    before, model.success = model.state(), None
    bench.write("out/1", how)
    if how == "succeeds":
        assert bench.store()["stored"]
        model.success = before, model.outputs()


@pytest.mark.parametrize("shift", [0, LATER])
def test_it_is_fresh_exactly_where_all_contents_are_as_at_the_last_success(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    real = time.time_ns
    # The shift has every look trust the times at once. Then only edits in the same tick could deceive it, so there each edit is
    # given another size by the model's texts or another inode.
    monkeypatch.setattr(time, "time_ns", lambda: real() + shift)

    @settings(max_examples=60)
    @given(steps=st.lists(STEPS, max_size=25))
    def holds(steps: list[tuple[str, str, str]]) -> None:
        bench = Bench(tmp_path_factory.mktemp("model") / "job")
        bench.inputs, bench.outputs = ["a.csv", "in/**", "fixed.txt"], ["out/*"]
        bench.inputs[0] = "[a].csv"
        model = Model(bench)
        for kind, name, text in steps:
            _apply(model, kind, name, text)
            if shift:
                _tick(bench)
        _run(model, "succeeds")
        _run(model, "succeeds")

    holds()


def _tick(bench: Bench) -> None:
    """Until the clock of the file system has gone on."""
    mark = bench.folder.parent / "tick"
    mark.touch()
    before = mark.stat().st_ctime_ns
    while mark.stat().st_ctime_ns == before:
        os.utime(mark)


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    yield
    after = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    assert after <= before


def test_a_file_without_a_size_is_read_at_each_look() -> None:
    files = fingerprint.look(["/proc/uptime"], "/", {})
    assert not files["/proc/uptime"].is_settled


def test_a_pattern_that_means_too_many_files_is_a_problem_and_not_a_long_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "MOST_FILES", 2)
    for number in range(3):
        (tmp_path / f"{number}.txt").touch()
    assert fingerprint.look_for("*.txt", str(tmp_path), {})["*.txt"].problem == "it means 3 files; at most 2 are looked at"
