"""The extra of the sample: letters that ASCII does not have, as ASCII."""

from __future__ import annotations

LETTERS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})


def plain(text: str) -> str:
    return text.translate(LETTERS)
