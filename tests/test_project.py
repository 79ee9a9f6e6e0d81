"""The project as a whole: locked dependencies, the commands of the README, and the wheel that people install."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import jobrunner

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
DECLARED = {
    "requirements.lock": PROJECT["dependencies"] + PYPROJECT["dependency-groups"]["build"],
    "requirements-dev.lock": PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"],
}
HASHED = re.compile(r"(?P<requirement>[^\\\n]+?)(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n")


def locked(name: str) -> dict[str, Requirement]:
    """What a lock file pins, by name."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = [Requirement(match["requirement"]) for match in HASHED.finditer(text)]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def version_of(requirement: Requirement) -> str:
    return str(requirement.specifier).removeprefix("==")


def readme_command(mark: str) -> str:
    """The fenced block that follows `<!-- ci: mark -->` in the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^<!-- ci: {mark} -->\n+```\w*\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1, f"README.md has {len(blocks)} blocks marked <!-- ci: {mark} -->; it needs one"
    return str(blocks[0])


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_pinned_and_hashed_requirements_and_nothing_else(name: str) -> None:
    rest = HASHED.sub("", (ROOT / name).read_text(encoding="utf-8"))
    assert rest == "", f"{name} holds more than hashed requirements (an address, an option, a path?): {rest[:200]!r}"
    for requirement in locked(name).values():
        assert requirement.url is None
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), f"{requirement} is not pinned"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_satisfies_what_the_project_declares(name: str) -> None:
    pins = locked(name)
    for text in DECLARED[name]:
        wanted = Requirement(text)
        pin = pins.get(canonicalize_name(wanted.name))
        assert pin is not None, f"{name} lacks {wanted.name}: lock again (see CONTRIBUTING.md)"
        assert wanted.specifier.contains(version_of(pin)), f"{name} pins {pin}, the project wants {wanted}"


def test_both_locks_agree() -> None:
    run, dev = (locked(name) for name in LOCKS)
    assert {name: str(pin) for name, pin in run.items()} == {name: str(dev.get(name)) for name in run}


@pytest.mark.parametrize(
    ("mark", "lock", "command"), [("run", LOCKS[0], "jobrunner jobs/nightly.yaml"), ("test", LOCKS[1], "python -m pytest")]
)
def test_the_readme_has_one_line_that_installs_from_the_lock_and_starts(mark: str, lock: str, command: str) -> None:
    assert readme_command(mark).split(" && ") == [
        "python3 -m venv .venv",
        f".venv/bin/pip install -q --require-hashes -r {lock}",
        ".venv/bin/pip install -q --no-deps --no-build-isolation -e .",
        f".venv/bin/{command}",
    ]


def test_both_locks_hold_what_builds_the_project() -> None:
    """`pip install --no-build-isolation` fetches nothing, so what the build needs is locked too."""
    for requirement in PYPROJECT["build-system"]["requires"]:
        assert requirement in PYPROJECT["dependency-groups"]["build"]
        assert all(canonicalize_name(Requirement(requirement).name) in locked(name) for name in LOCKS)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built without fetching anything."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    ended = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return next(out.glob("*.whl"))


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {path for path in (ROOT / "jobrunner").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert packed == {path.relative_to(ROOT).as_posix() for path in sources}


def test_the_wheel_says_the_version_that_the_package_says(wheel: Path) -> None:
    said = metadata(wheel)
    assert (said["Name"], said["Version"], said["License-Expression"]) == ("jobrunner", jobrunner.__version__, "Apache-2.0")


def test_the_wheel_works_away_from_the_clone(wheel: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(wheel)}
    command = [sys.executable, "-P", "-m", "jobrunner", "--version"]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert jobrunner.__version__ in ended.stdout
