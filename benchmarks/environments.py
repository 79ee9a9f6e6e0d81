"""The peers that jobrunner is measured against: each in an environment of its own, made once and found again.

    versions.txt ─→ PyPI: a venv a peer    npm: a folder a peer    Debian: what is on PATH, else apt-get, as root
                                    ↓
    environment("doit") → its interpreter, its programs, its version; None and a reason in `missing()` where it is not to be had

A venv or folder is under $XDG_CACHE_HOME/jobrunner-benchmarks, and is made again when its line in versions.txt changes.
"""

from __future__ import annotations

import fcntl
import functools
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import ROOT
from benchmarks.process import environment as clean_environment

TABLE = ROOT / "benchmarks" / "peers" / "versions.txt"
PATIENCE = 600.0
"""Seconds that one installation may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A line of the table: `package` is what its registry is asked for; `program` is "" where it is only imported."""

    name: str
    source: str
    package: str
    program: str
    is_quick: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where a peer is: `python` is the interpreter that imports it (ours, for what is no Python)."""

    python: str
    version: str
    programs: Path | None
    own: str

    def program(self, name: str = "") -> str:
        """The path of one of its programs, by default the one that the table names. Raises FileNotFoundError."""
        wanted = name or self.own
        if found := shutil.which(wanted, path=str(self.programs) if self.programs else None):
            return found
        raise FileNotFoundError(f"no program {wanted}")


class NotToBeHad(Exception):
    """Why a peer takes no part."""


@dataclass(slots=True)
class _Settings:
    """What was said on the command line, and what came of it."""

    install: bool
    quick: bool
    reasons: dict[str, str]
    versions: dict[str, str]


_settings = _Settings(install=True, quick=False, reasons={}, versions={})


def configure(*, install: bool, quick: bool) -> None:
    """`install`: what is not there is installed; `quick`: but not what takes long. Forgets what was found before."""
    _settings.install, _settings.quick = install, quick
    _settings.reasons.clear()
    _settings.versions.clear()
    environment.cache_clear()


def missing() -> dict[str, str]:
    """The peers that were asked for and take no part, each with the reason."""
    return dict(_settings.reasons)


def versions() -> dict[str, str]:
    """The peers that were asked for and are here, each with its version."""
    return dict(_settings.versions)


@functools.cache
def environment(name: str) -> Environment | None:
    """The peer of that name, installed if need be; None where it is not to be had. Raises KeyError for an unknown name."""
    peer = peers()[name]
    try:
        found = _MAKERS[peer.source](peer)
    except NotToBeHad as error:
        _settings.reasons[name] = str(error)
        return None
    _settings.versions[name] = found.version
    return found


@functools.cache
def peers() -> dict[str, Peer]:
    """The table, by name."""
    rows = [line.split() for line in TABLE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {
        name: Peer(name=name, source=source, package=package, program=program.strip("-"), is_quick=form == "quick")
        for name, source, package, program, form in rows
    }


def cache() -> Path:
    """Where environments are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jobrunner-benchmarks"


def _from_pypi(peer: Peer) -> Environment:
    folder = cache() / f"python{sys.version_info.major}.{sys.version_info.minor}" / peer.name
    programs = folder / "bin"
    with _made(folder, peer) as is_made:
        if not is_made:
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
            _run([str(programs / "python"), "-m", "pip", "install", "-q", "--compile", *peer.package.split("+")])
    return Environment(
        python=str(programs / "python"), version=_distribution_version(folder, peer), programs=programs, own=peer.program
    )


def _from_npm(peer: Peer) -> Environment:
    """Without scripts: they would fetch from elsewhere. The program is in the package of this platform, which npm chooses."""
    if path := shutil.which(peer.program):
        return Environment(python=sys.executable, version=_told_version(path), programs=None, own=peer.program)
    folder = cache() / "npm" / peer.name
    with _made(folder, peer) as is_made:
        if not is_made:
            if not (npm := shutil.which("npm")):
                raise NotToBeHad("npm is not installed")
            _run([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), peer.package])
    found = [path for path in folder.glob(f"node_modules/**/bin/{peer.program}") if os.access(path, os.X_OK)]
    binaries = sorted(found, key=lambda path: path.stat().st_size)
    if not binaries:
        raise NotToBeHad(f"{peer.package} has no program for {platform.system()} {platform.machine()}")
    told = json.loads((binaries[-1].parents[1] / "package.json").read_text(encoding="utf-8"))
    return Environment(python=sys.executable, version=str(told["version"]), programs=binaries[-1].parent, own=peer.program)


def _from_debian(peer: Peer) -> Environment:
    if not (path := shutil.which(peer.program)):
        _may_install(peer)
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise NotToBeHad(f"{peer.program} is not on PATH")
        _run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", peer.package])
        path = shutil.which(peer.program)
    if not path:
        raise NotToBeHad(f"Debian's {peer.package} has no {peer.program}")
    return Environment(python=sys.executable, version=_told_version(path), programs=None, own=peer.program)


_MAKERS = {"pypi": _from_pypi, "npm": _from_npm, "debian": _from_debian}


@contextmanager
def _made(folder: Path, peer: Peer) -> Iterator[bool]:
    """Whether the peer is in `folder` already, else the lock to install it: two runs at once do not install over each other."""
    stamp = folder / ".installed"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == peer.package:
        yield True
        return
    _may_install(peer)
    print(f"installing {peer.package}", file=sys.stderr, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text(encoding="utf-8") == peer.package:
            yield True
            return
        yield False
        stamp.write_text(peer.package, encoding="utf-8")


def _may_install(peer: Peer) -> None:
    if not _settings.install:
        raise NotToBeHad("not installed here")
    if _settings.quick and not peer.is_quick:
        raise NotToBeHad("not installed here, and the quick form does not wait for it")


def _run(argv: Sequence[str]) -> None:
    """Raises NotToBeHad, having told what the installer said."""
    env = clean_environment() | {"DEBIAN_FRONTEND": "noninteractive"}
    env.pop("PYTHONPATH", None)
    try:
        ended = subprocess.run(argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise NotToBeHad(f"not installed within {PATIENCE:g} s") from error
    if ended.returncode:
        print("\n".join((ended.stderr or ended.stdout).splitlines()[-5:]), file=sys.stderr)
        raise NotToBeHad(f"{Path(argv[0]).name} could not install it here")


def _distribution_version(folder: Path, peer: Peer) -> str:
    place = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    wanted = peer.package.partition("==")[0]
    return next(each.version for each in importlib.metadata.distributions(name=wanted, path=[str(place)]))


def _told_version(program: str) -> str:
    """The first number in what it prints of itself."""
    for option in ("--version", "-V"):
        ended = subprocess.run([program, option], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10)
        words = (ended.stdout or ended.stderr)[:200].replace("(", " ").replace(")", " ").split()
        if told := [word.strip(",.") for word in words if word[0].isdigit()]:
            return told[0]
    return "of this system"
