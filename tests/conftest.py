"""Settings that all tests share: how hypothesis searches, and a state directory that is nobody's."""

from __future__ import annotations

import gc
import mmap
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("here", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,  # a busy machine is not a bug
    derandomize=True,  # the same commit gives the same verdict
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(scope="session", autouse=True)
def _state_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs that tests start never touch the state directory, nor the settings, of who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        state = tmp_path_factory.mktemp("state")
        patch.setenv("JOBRUNNER_STATE", str(state))
        for name in ("STATE_DIRECTORY", "NO_COLOR", "FORCE_COLOR", "PYTHONDONTWRITEBYTECODE"):
            patch.delenv(name, raising=False)
        yield
        assert not _files_with(CANARY, state), "a secret of some test is in the state of its run"


@pytest.fixture(scope="session", autouse=True)
def _signals_of_the_tests() -> None:
    """A shell starts what runs in the background with INT ignored, and so it would be in every run that a test stops."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _working_directory_of_the_tests() -> Iterator[None]:
    """A run in this process leaves it where it was."""
    before = os.getcwd()
    yield
    after = os.getcwd()
    os.chdir(before)
    assert after == before


@pytest.fixture(autouse=True)
def _garbage_of_the_tests() -> Iterator[None]:
    """A command line that was run in this process has set aside all there was, itself included: it may be collected again."""
    yield
    gc.unfreeze()


CANARY = b"canary/7f3A"
"""With this begins every secret of tests/test_secrets.py. After all tests it is looked for in all that runs have left."""


def _files_with(text: bytes, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and _holds(path, text)]


def _holds(path: Path, text: bytes) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        return data.find(text) >= 0
