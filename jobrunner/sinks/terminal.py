"""What a terminal may be shown: colours only where they are wanted, and nothing that a task could use to control it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

FORMATS = ("auto", "console", "json", "logfmt")
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""What a log can be asked for."""

_CODES = {"info": "32", "warning": "33", "error": "31", "bold": "1", "dim": "2"}
_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f]"
_CONTROL_OR_COLOUR = rf"\x1b\[[0-9;]*m|{_CONTROL}"


def colours(is_terminal: bool) -> Callable[[str, str], str]:
    """A function that paints a text, or leaves it as it is: not on a terminal, or NO_COLOR is set (https://no-color.org)."""
    if not is_terminal or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return lambda text, kind: text
    return lambda text, kind: f"\x1b[{_CODES[kind]}m{text}\x1b[0m" if kind in _CODES else text


def visible(text: str) -> str:
    """Colours pass; every other control character but tab and line end is shown as its escape instead of obeyed."""
    return re.sub(_CONTROL_OR_COLOUR, lambda match: match[0] if len(match[0]) > 1 else f"\\x{ord(match[0]):02x}", text)


def escaped(text: str) -> str:
    """As `visible`, but colours are escaped too: for text of a task amid our own."""
    return re.sub(_CONTROL, lambda match: f"\\x{ord(match[0]):02x}", text)
