"""The functions that benchmark jobs call. Copied beside the job file of each benchmark."""

from __future__ import annotations

import time


def nothing(n: int) -> None:
    """Costs nothing, so that what is measured is the way there and back."""


def rest(n: int) -> None:
    """Ten milliseconds in which nothing is computed."""
    time.sleep(0.01)
