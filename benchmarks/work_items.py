"""The functions that benchmark jobs call. Copied beside the job file of each benchmark."""

from __future__ import annotations


def nothing(n: int) -> None:
    """Costs nothing, so that what is measured is the way there and back."""
