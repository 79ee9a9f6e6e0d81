"""Texts of a job file as the operating system takes them: what it can be handed, and where a path of the file counts from."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from jobrunner import expressions
from jobrunner.errors import ExpressionError
from jobrunner.expressions import Scope, text_of


def passable(text: str) -> str:
    """Text that can be handed to the operating system, else ExpressionError."""
    if "\0" in text:
        raise ExpressionError(f"{text[:80]!r} holds a NUL character, which no command line, variable or path can hold")
    try:
        text.encode("utf-8", "surrogateescape")  # names of files that are not UTF-8 come and go as half surrogates
    except UnicodeEncodeError:
        raise ExpressionError(f"{text[:80]!r} holds a lone surrogate, which no command line, variable or path can hold") from None
    return text


def absolute(value: object, folder: str) -> str:
    """A path of the job file: `~` is somebody's home, what is not absolute counts from `folder`."""
    return posixpath.join(folder, posixpath.expanduser(passable(text_of(value))))


def template_value(text: str) -> Callable[[Scope], object]:
    """What a text gives: itself, where it holds no expression."""
    template = expressions.parse(text)
    return (lambda scope: text) if template is None else template.value
