"""The value of a plain scalar, as the YAML 1.2 core schema has it: true, null, numbers; `no`, `22:30` and dates stay text."""

from __future__ import annotations

import re
from typing import Final

LONGEST_NUMBER = 4_000
"""Digits: Python refuses to read or print whole numbers not far beyond it."""

WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
NUMBER_STARTS: Final = frozenset("-+.0123456789")
"""What begins with none of these is no number, which spares most scalars the patterns."""

# The core schema but for one thing: a number that begins with a superfluous zero (0755, 007) stays text, so no zero is lost.
_DIGIT: Final = re.compile(r"[-+]?\.?[0-9inIN]")
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT: Final = r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
_OCTAL_OR_HEX: Final = r"0o[0-7]+|0x[0-9a-fA-F]+"
_NOT_FINITE: Final = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"


def number(text: str) -> object:
    """The int or float that a plain scalar is; the text itself where it is none. Only for what is not `is_too_long`."""
    if _INT.fullmatch(text):
        return int(text)
    if not _DIGIT.match(text):  # like -v and ./x
        return text
    if re.fullmatch(_FLOAT, text):
        return float(text)
    if re.fullmatch(_OCTAL_OR_HEX, text):
        return int(text, 0)
    return float(text.replace(".", "", 1)) if re.fullmatch(_NOT_FINITE, text) else text


def is_too_long(text: str) -> bool:
    """Whether the scalar is a number of more characters than Python reads."""
    return len(text) > LONGEST_NUMBER and re.fullmatch(f"{_FLOAT}|{_OCTAL_OR_HEX}", text) is not None
