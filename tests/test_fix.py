"""`validate --fix`: what has one cure is mended in place; everything else in the file stays as it is, to the byte."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobrunner.errors import JobFileError, UsageError
from jobrunner.jobfile import fix, parse, reader
from jobrunner.jobfile.document import Document

# What is written · what becomes of it.
MENDED = [
    ("tasks: {a: {cmd: ls}}", "tasks: {a: {run: ls}}"),
    ("tasks: {a: {cmds: [ls, pwd]}}", "tasks: {a: {run: [ls, pwd]}}"),
    ("steps: {a: {run: ls}}", "tasks: {a: {run: ls}}"),
    ("steps: {a: {cmd: ls}}", "tasks: {a: {run: ls}}"),
    ("tasks: {a: {run: x}, b: {run: y, depends: [a]}}", "tasks: {a: {run: x}, b: {run: y, needs: [a]}}"),
    ("tasks: {a: {run: x}, b: {run: y, depends_on: a}}", "tasks: {a: {run: x}, b: {run: y, needs: [a]}}"),
    ("tasks: {a: {run: x}, b: {run: y, needs: a}}", "tasks: {a: {run: x}, b: {run: y, needs: [a]}}"),
    ("tasks: {a: {run: x}, b: {run: y, needs: 'a'}}", "tasks: {a: {run: x}, b: {run: y, needs: [a]}}"),
    (
        "tasks:\n  a: {run: x}\n  b: {run: y}\n  c:\n    run: z\n    needs: a, b  # both\n",
        "tasks:\n  a: {run: x}\n  b: {run: y}\n  c:\n    run: z\n    needs: [a, b]  # both\n",
    ),
    ("tasks: {a: {run: x, timeout-minutes: 5}}", "tasks: {a: {run: x, timeout: 5m}}"),
    ("tasks: {a: {run: x, 'timeout-minutes': 5}}", "tasks: {a: {run: x, timeout: 5m}}"),
    ("tasks: {a: {run: x, retries: 3}}", "tasks: {a: {run: x, retry: 3}}"),
    ("tasks: {a: {run: x, max_attempts: 3}}", "tasks: {a: {run: x, retry: 2}}"),
    ("tasks: {a: {run: x, working-directory: /tmp}}", "tasks: {a: {run: x, cwd: /tmp}}"),
    ("tasks: {a: {run: x, timeuot: 5m}}", "tasks: {a: {run: x, timeout: 5m}}"),
    ("tasks: {a: {run: x, Timeout: 5m}}", "tasks: {a: {run: x, timeout: 5m}}"),
    ("fail-fast: yes\ntasks: {a: {run: x}}", "fail_fast: true\ntasks: {a: {run: x}}"),
    ("fail_fast: 'off'\ntasks: {a: {run: x}}", "fail_fast: false\ntasks: {a: {run: x}}"),
    ("tasks: {a: {run: x, max_parallel: '3'}}", "tasks: {a: {run: x, max_parallel: 3}}"),
    ("tasks: {a: {run: x, timeout: 10 minutes}}", "tasks: {a: {run: x, timeout: 10m}}"),
    ("tasks: {a: {argv: [echo, ${{ run.id }}]}}", 'tasks: {a: {argv: [echo, "${{ run.id }}"]}}'),
    ("tasks: {a: {argv: [echo, --x=${{ run.id }}/y, z]}}", 'tasks: {a: {argv: [echo, "--x=${{ run.id }}/y", z]}}'),
    ("tasks: {a: {argv: [echo, ${{ run.id }}-${{ run.dir }}]}}", 'tasks: {a: {argv: [echo, "${{ run.id }}-${{ run.dir }}"]}}'),
    ("tasks: {a: {run: x, env: {A: ${{ run.id }}}}}", 'tasks: {a: {run: x, env: {A: "${{ run.id }}"}}}'),
    ("tasks: {a: {run: x, env: {A: ${{ run['id'] }}}}}", "tasks: {a: {run: x, env: {A: \"${{ run['id'] }}\"}}}"),
    ('tasks: {a: {run: x, env: {A: ${{ run["id"] }}}}}', "tasks: {a: {run: x, env: {A: '${{ run[\"id\"] }}'}}}"),
]
# Two cures, or none; or one that does not help.
LEFT = [
    "tasks: {a: {cmd: ls, script: pwd}}",
    "tasks: {a: {run: x, cmd: ls}}",
    "tasks: {a: {run: x, zzz: 1}}",
    "tasks: {a: {run: x, uses: actions/checkout@v4}}",
    "tasks: {a: {run: x, threads: 4}}",
    "tasks: {a: {run: x, needs: 3}}",
    "tasks: {a: {run: x, needs: a b}}",
    "tasks: {a: {run: x, deps: [a]}}",  # it would need itself
    "tasks: {a: {argv: [echo, ${{ run.id ]}}",
    "tasks: {a: {argv: [${{ run['a'] ~ \"b\" }}]}}",
    "tasks:\n\ta: {cmd: ls}",
    "tasks: {a: {cmd: ls}, a: {cmd: ls}}",
    "tasks: [",
    "",
    "- a",
]


@pytest.mark.parametrize(("before", "after"), MENDED, ids=[before for before, _ in MENDED])
def test_what_has_one_cure_is_mended(before: str, after: str) -> None:
    result = fix.fixed(before.encode(), "job.yaml")
    assert result.source.decode() == after
    assert result.remaining == ()
    assert parse(result.source, "job.yaml").tasks


@pytest.mark.parametrize("text", LEFT)
def test_what_has_none_or_several_is_left_alone(text: str) -> None:
    result = fix.fixed(text.encode(), "job.yaml")
    assert result.source.decode() == text
    assert not result.changes
    assert result.remaining


def test_a_change_says_its_line_and_what_it_was() -> None:
    (change,) = fix.fixed(b"tasks:\n  a:\n    cmd: ls\n", "job.yaml").changes
    assert str(change) == "3: tasks.a.cmd: cmd → run"


def test_what_can_be_mended_is_mended_beside_what_cannot() -> None:
    result = fix.fixed(b"tasks:\n  a: {cmd: ls, uses: x}\n  b: {run: y, timout: 1m}\n", "job.yaml")
    assert result.source == b"tasks:\n  a: {run: ls, uses: x}\n  b: {run: y, timeout: 1m}\n"
    assert [problem.path for problem in result.remaining] == ["tasks.a.uses"]


def test_what_a_table_with_a_wrong_name_hides_is_mended_too() -> None:
    result = fix.fixed(b"steps:\n  a: {cmd: ls, uses: x, retry_policy: {limit: 3}}\n  b: {run: y, timout: 1m}\n", "job.yaml")
    assert result.source.startswith(b"tasks:\n  a: {run: ls, uses: x,")
    assert [problem.path for problem in result.remaining] == ["tasks.a.uses", "tasks.a.retry_policy"]


def test_a_file_with_thousands_of_mistakes_is_mended_in_seconds() -> None:
    source = "tasks:\n" + "".join(f"  t{number}: {{cmd: ls, timeout-minutes: 5, zzz: 1}}\n" for number in range(500))
    assert len(fix.fixed(source.encode(), "job.yaml").changes) == 1500


# Entries that hold an unquoted expression: what the scanner can walk through, and what makes it lose its way.
HOLES = [
    "${{ run.id }}",
    "--x=${{ run.id }}/${{ run.dir }}",
    "${{ run['id'] }}",
    '${{ run["id"] }}',
    "${{ run.id # x }}",
    "${{ run.id & 1 }}",
    "${{ [run.id, 'a'][0] }}",
    "${{ 'it' + \"s }}",
    "${{ a ? b : c }}",
]


@pytest.mark.parametrize("hole", HOLES)
def test_all_unquoted_expressions_of_a_file_are_quoted_however_many(hole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[bytes] = []
    read = reader.read

    def counted(source: bytes, file: str) -> Document:
        reads.append(source)
        return read(source, file)

    monkeypatch.setattr(reader, "read", counted)
    row = "  t{}: {{argv: [echo, {}, z], env: {{A: {}}}}}  # [${{{{ x }}}}]\n"
    row += "  u{}:\n    run: |\n      echo [${{{{ run.id }}}}] {{${{{{ run.id }}}}}}\n"
    source = "tasks:\n" + "".join(row.format(number, hole, hole, number) for number in range(300))
    quote = "'" if '"' in hole else '"'
    wanted = "tasks:\n" + "".join(row.format(number, *[f"{quote}{hole}{quote}"] * 2, number) for number in range(300))
    if quote in hole:
        wanted = source  # it takes an escape
    result = fix.fixed(source.encode(), "job.yaml")
    assert result.source.decode() == wanted
    assert len(result.changes) == 600 * (wanted != source)
    assert len(set(reads)) <= 3


def test_what_is_no_entry_is_never_quoted_though_the_scanner_is_lost_in_front_of_it() -> None:
    source = "tasks:\n  a: {argv: [x, ${{ 'a\" # }}]}\n  b: {run: 'echo [${{ run.id }}]'}\n  c:\n    run: echo [${{ run.id }}]\n"
    assert fix.fixed(source.encode(), "job.yaml").source.decode() == source


def test_a_hundred_thousand_edits_are_made_in_one_pass_and_know_their_lines() -> None:
    text = "a\n" * 100_000
    edits = [fix._Edit(begin=2 * line, end=2 * line + 1, after="bb") for line in range(100_000)]
    look, changes = fix._applied(fix._Look(source=text.encode(), file="job.yaml"), edits)
    assert look.source == b"bb\n" * 100_000
    assert [change.line for change in changes] == list(range(1, 100_001))


def test_cures_that_are_too_many_to_try_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "tasks:\n" + "".join(f"  t{number}: {{run: x, deps: [t{number}]}}\n" for number in range(60))  # each needs itself
    result = fix.fixed(source.encode(), "job.yaml")
    assert result.source.decode() == source
    assert result.untried == 10


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_comments_layout_line_ends_and_a_byte_order_mark_stay(bom: bytes, end: bytes) -> None:
    text = bom + "# Ünïcode ☃\ntasks:   # here\n\n    a:  {  cmd :  ls  , retries: 3 }   # there\n\n\n# end".encode().replace(
        b"\n", end
    )
    result = fix.fixed(text, "job.yaml")
    assert result.source == text.replace(b"cmd :", b"run :").replace(b"retries", b"retry")


# --- properties --------------------------------------------------------------------------------------------------------------

_KEYS = ["run", "cmd", "script", "needs", "deps", "depends_on", "timeout", "timeout-minutes", "retry", "retries", "cwd", "dir"]
_KEYS += ["nedes", "fail_fast", "env", "argv"]
_VALUES = ["ls", "a", "[a]", "a, b", "5", "'5'", "yes", "true", "5 minutes", '"x"', "&x a", "*x", "|\n      ls"]
_VALUES += ["[${{ run.id }}]", "{A: ${{ run.id }}}"]
_ROW = st.tuples(st.sampled_from([*_KEYS, "continue-on-error"]), st.sampled_from(_VALUES))
_TASK = st.lists(_ROW, min_size=1, max_size=5)


def _text(tasks: list[list[tuple[str, str]]], end: str) -> str:
    rows = ["tasks:  # all"]
    for name, task in zip("abcd", tasks, strict=False):
        rows += [
            f"  {name}:",
            *(f"    {key}: {value}  # c" if "\n" not in value else f"    {key}: {value}" for key, value in task),
        ]
    return end.join("\n".join(rows).split("\n")) + end


@given(tasks=st.lists(_TASK, min_size=1, max_size=4), end=st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_fixing_helps_changes_only_the_lines_it_names_and_is_done_at_once(tasks: list[list[tuple[str, str]]], end: str) -> None:
    source = _text(tasks, end).encode()
    result = fix.fixed(source, "job.yaml")
    before, after = source.split(b"\n"), result.source.split(b"\n")
    changed = {number for number, (old, new) in enumerate(zip(before, after, strict=True), start=1) if old != new}
    assert changed <= {change.line for change in result.changes}
    assert (result.source != source) == bool(result.changes)
    assert not result.changes or len(result.remaining) < len(_problems(source)) or _is_unreadable(source)
    assert fix.fixed(result.source, "job.yaml").source == result.source


@given(source=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_whatever_the_bytes_are_nothing_is_raised(source: bytes) -> None:
    assert fix.fixed(source, "job.yaml").source == source or fix.fixed(source, "job.yaml").changes


def _problems(source: bytes) -> tuple[object, ...]:
    try:
        parse(source, "job.yaml")
    except JobFileError as error:
        return error.problems
    return ()


def _is_unreadable(source: bytes) -> bool:
    from jobrunner.jobfile import reader

    try:
        reader.read(source, "job.yaml")
    except JobFileError:
        return True
    return False


# --- the file ----------------------------------------------------------------------------------------------------------------

BAD, GOOD = b"tasks: {a: {cmd: ls}}\n", b"tasks: {a: {run: ls}}\n"


def test_a_file_is_replaced_with_its_mode_and_owner(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(BAD)
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 12345, 54321)
    before = file.stat()
    assert len(fix.fix_file(file).changes) == 1
    after = file.stat()
    assert file.read_bytes() == GOOD
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid) == (0o640, before.st_uid, before.st_gid)
    assert os.listdir(tmp_path) == ["job.yaml"]


def test_a_file_without_anything_to_mend_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(GOOD)
    before = file.stat()
    assert fix.fix_file(file).changes == ()
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_link_stays_a_link_and_its_file_is_mended(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file = tmp_path / "real" / "job.yaml"
    file.write_bytes(BAD)
    link = tmp_path / "link.yaml"
    link.symlink_to("real/job.yaml")
    fix.fix_file(link)
    assert link.is_symlink()
    assert file.read_bytes() == GOOD


def test_a_file_with_another_name_is_not_torn_from_it(tmp_path: Path) -> None:
    file, other = tmp_path / "job.yaml", tmp_path / "other.yaml"
    file.write_text("tasks: {a: {cmd: ls}}")
    other.hardlink_to(file)
    with pytest.raises(UsageError, match=r"2 names .*hard links.*nothing was written"):
        fix.fix_file(file)
    assert file.samefile(other)
    assert other.read_text() == "tasks: {a: {cmd: ls}}"
    file.write_text("tasks: {a: {run: ls}}")
    assert not fix.fix_file(file).changes  # where nothing is to be written, nothing is refused


def test_a_file_that_somebody_changed_meanwhile_is_left_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(BAD)
    mend = fix.fixed

    def slowly(source: bytes, name: str) -> fix.Fixed:
        result = mend(source, name)
        file.write_bytes(b"tasks: {a: {cmd: another}}\n")
        return result

    monkeypatch.setattr(fix, "fixed", slowly)
    with pytest.raises(UsageError, match="changed while it was being fixed; nothing was written"):
        fix.fix_file(file)
    assert file.read_bytes() == b"tasks: {a: {cmd: another}}\n"
    assert os.listdir(tmp_path) == ["job.yaml"]


def test_where_the_disk_is_full_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(BAD)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left on device; nothing was written"):
        fix.fix_file(file)
    assert file.read_bytes() == BAD
    assert os.listdir(tmp_path) == ["job.yaml"]


@pytest.mark.parametrize("name", ["gone.yaml", ".", "fifo", "a\0b"])
def test_what_is_no_file_is_told_as_everywhere(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(JobFileError):
        fix.fix_file(f"{tmp_path}/{name}")
