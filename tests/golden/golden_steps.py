"""What the targets of the golden jobs do."""

from __future__ import annotations


def add(left: int, right: int) -> int:
    return left + right


def echo(value: object) -> object:
    return value


def fail(message: str) -> None:
    raise ValueError(message)


def lose_connection() -> None:
    raise ConnectionResetError("gone")
