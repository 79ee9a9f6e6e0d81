"""A small package for python_matrix.yaml to test: titles as they stand in an address."""

from __future__ import annotations

import re

try:
    from translit import plain  # type: ignore[import-not-found]  # the extra, where it is
except ImportError:

    def plain(text: str) -> str:
        return text.encode("ascii", "ignore").decode()


def slug(title: str) -> str:
    """Lower-case words with hyphens between them."""
    return "-".join(re.findall("[a-z0-9]+", plain(title.lower())))
