"""How much memory there is for a run: the least that its cgroups and the system have left, without a reserve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from jobrunner.memory import in_units, usable_memory, whole_memory

GIB = 1 << 30


def left(
    tmp_path: Path, files: Mapping[str, str], *, own: str | None = "0::/a/b\n", available: int | None = 100 * GIB
) -> int | None:
    """What is found where the files of cgroups are these, named from the root."""
    cgroups, system, ours = tmp_path / "cgroup", tmp_path / "meminfo", tmp_path / "own"
    (cgroups / "a" / "b").mkdir(parents=True)
    for name, text in files.items():
        (cgroups / name).write_text(text)
    if available is not None:
        system.write_text(f"MemTotal: 999999999 kB\nMemFree: 1 kB\nMemAvailable:  {available // 1024} kB\n")
    if own is not None:
        ours.write_text(own)
    return usable_memory(cgroups=cgroups, own=ours, system=system)


def kept(size: int) -> int:
    """What is left of so much when the reserve is taken off."""
    return size - min(size // 20, 512 << 20)


LIMIT = {"memory.max": f"{8 * GIB}\n", "memory.current": f"{3 * GIB}\n"}


def of(folder: str, files: Mapping[str, str]) -> dict[str, str]:
    return {f"{folder}{name}": text for name, text in files.items()}


@pytest.mark.parametrize(
    ("files", "own", "available", "size"),
    [
        pytest.param({}, "0::/a/b\n", 10 * GIB, 10 * GIB, id="no bound: what the system has"),
        pytest.param(of("a/b/", LIMIT), "0::/a/b\n", 100 * GIB, 5 * GIB, id="our own bound, less what is used"),
        pytest.param(of("a/", LIMIT), "0::/a/b\n", 100 * GIB, 5 * GIB, id="that of one around ours"),
        pytest.param(of("", LIMIT), "0::/a/b\n", 100 * GIB, 5 * GIB, id="that of the root, in a container"),
        pytest.param(of("", LIMIT), "0::/gone/../..\n", 100 * GIB, 5 * GIB, id="ours is not to be seen here: the root"),
        pytest.param(of("", LIMIT), None, 100 * GIB, 5 * GIB, id="nothing says which is ours: the root"),
        pytest.param(of("a/", LIMIT), "0::/\n", 100 * GIB, 100 * GIB, id="not that of a neighbour"),
        pytest.param(of("a/b/", LIMIT), "0::/a/b\n", 4 * GIB, 4 * GIB, id="the system has less than that"),
        pytest.param(
            of("a/b/", {**LIMIT, "memory.high": f"{4 * GIB}"}), "0::/a/b\n", 100 * GIB, GIB, id="above memory.high it is slow"
        ),
        pytest.param(
            of("a/b/", {**LIMIT, "memory.max": "max\n"}), "0::/a/b\n", 100 * GIB, 100 * GIB, id="max is no bound"
        ),
        pytest.param(
            of("a/b/", {**LIMIT, "memory.stat": f"anon 1\ninactive_file {GIB}\nactive_file {GIB}\n"}),
            "0::/a/b\n", 100 * GIB, 7 * GIB, id="what is kept of files is free",
        ),
        pytest.param(
            of("a/b/", {**LIMIT, "memory.current": f"{9 * GIB}"}), "0::/a/b\n", 100 * GIB, 0, id="more is used than allowed"
        ),
        pytest.param(of("a/b/", {"memory.max": "8\n"}), "0::/a/b\n", 2 * GIB, 2 * GIB, id="nothing says what is used"),
        pytest.param(of("a/b/", {**LIMIT, "memory.max": "?"}), "x\n0::/a/b\n", 2 * GIB, 2 * GIB, id="what is no number"),
        pytest.param(of("a/b/", LIMIT), "0::/a/b\n", None, 5 * GIB, id="no system to ask"),
    ],
)  # fmt: skip
def test_the_least_counts(tmp_path: Path, files: Mapping[str, str], own: str | None, available: int | None, size: int) -> None:
    assert left(tmp_path, files, own=own, available=available) == kept(size)


@pytest.mark.parametrize(
    ("files", "size"),
    [
        pytest.param({}, 999_999_999 * 1024, id="the machine"),
        pytest.param(
            {"a/b/memory.max": "max\n", "a/memory.max": f"{3 * GIB}\n"}, 3 * GIB, id="a bound around ours, whatever is used"
        ),
        pytest.param({"memory.max": f"{1 << 60}"}, 999_999_999 * 1024, id="a bound above what there is"),
    ],
)
def test_all_that_there_is_is_the_machine_or_a_bound_of_ours(tmp_path: Path, files: Mapping[str, str], size: int) -> None:
    left(tmp_path, files)
    found = whole_memory(cgroups=tmp_path / "cgroup", own=tmp_path / "own", system=tmp_path / "meminfo")
    assert found == size
    nowhere = tmp_path / "gone"
    assert whole_memory(cgroups=nowhere, own=nowhere, system=nowhere) is None


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (512 << 20, "512MiB"), (3 * 10**9, "3GB"), (3 << 30, "3GiB"), (10**8, "100MB"), (3 << 29, "1536MiB"),
        (64 * 10**12, "64TB"), (25_276_502_016, "23.5GiB"), (1_048_577, "1.0MiB"), (1 << 50, "1024TiB"), (1000, "1KB"),
        (700, "0.7KiB"),
    ],
)  # fmt: skip
def test_a_size_is_told_as_a_job_file_has_it(size: int, told: str) -> None:
    assert in_units(size) == told


def test_where_nothing_says_it_is_not_known(tmp_path: Path) -> None:
    assert left(tmp_path, {}, own=None, available=None) is None


def test_the_reserve_is_a_share_and_no_more_than_half_a_gibibyte(tmp_path: Path) -> None:
    assert left(tmp_path, {}, available=100 * GIB) == 100 * GIB - GIB // 2


def test_of_this_machine_it_is_known_or_not() -> None:
    found = usable_memory()
    assert found is None or found >= 0
