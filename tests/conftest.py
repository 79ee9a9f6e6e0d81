"""Settings that all tests share: how hypothesis searches, and a state directory that is nobody's."""

from __future__ import annotations

import os
from collections.abc import Iterator

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
        patch.setenv("JOBRUNNER_STATE", str(tmp_path_factory.mktemp("state")))
        for name in ("STATE_DIRECTORY", "NO_COLOR", "FORCE_COLOR", "PYTHONDONTWRITEBYTECODE"):
            patch.delenv(name, raising=False)
        yield
