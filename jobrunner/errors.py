"""Mistakes, as exceptions: what a person did that cannot be run. What a task did is an Outcome, never one of these."""

from __future__ import annotations

from jobrunner.structs import struct


class JobrunnerError(Exception):
    """Anything jobrunner refuses to do. `exit_code` is what the command line then exits with."""

    exit_code = 70


class UsageError(JobrunnerError):
    """The command line or an argument of the Python API asks for what cannot be done; nothing ran."""

    exit_code = 2


class StateError(JobrunnerError):
    """The state directory cannot be used; nothing ran."""

    exit_code = 74


class UnsafeError(JobrunnerError):
    """The state directory belongs to somebody else or others may write to it; nothing ran."""

    exit_code = 77


class ExpressionError(JobrunnerError):
    """A `${{ }}` expression is malformed, or its value cannot be had at this moment.

    `offset` and `length` mark the place in the text that holds the expression, in characters.
    """

    def __init__(self, message: str, *, offset: int = 0, length: int = 1, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.length = length
        self.hint = hint


@struct
class Problem:
    """One thing that is wrong in a job file. Lines and columns count from 1; `column` and `length` are characters."""

    file: str
    line: int
    column: int
    path: str = ""
    message: str
    hint: str = ""
    length: int = 1
    source: str = ""

    def __str__(self) -> str:
        """The problem as people read it: position, path, message and hint; then the line itself with a caret under it."""
        head = ": ".join(part for part in (f"{self.file}:{self.line}:{self.column}", self.path, self.message) if part)
        text = f"{head} {self.hint}".rstrip()
        if not self.source:
            return text
        margin = " " * 5
        caret = " " * (self.column - 1) + "^" * max(1, self.length)
        return f"{text}\n{self.line:>5} | {self.source}\n{margin} | {caret}"


class JobFileError(JobrunnerError):
    """The job file is not valid: every problem found, in file order. Nothing ran."""

    exit_code = 2

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
