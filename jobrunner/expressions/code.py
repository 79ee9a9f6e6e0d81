"""What an expression consists of once it is checked: its code, and the names it looks up. Without what reads it (grammar)."""

from __future__ import annotations

from jobrunner.errors import ExpressionError
from jobrunner.structs import struct
from jobrunner.typed import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    import ast

Key: TypeAlias = "str | int"
Path: TypeAlias = tuple[str, tuple[Key, ...]]
Node: TypeAlias = "ast.expr | ast.keyword"

ROOTS: Final = frozenset({"params", "env", "item", "index", "matrix", "run", "tasks", "secrets"})
"""The names that an expression may start from."""
LONGEST: Final = 10_000
"""Characters in one expression."""
DEEPEST: Final = 50
"""Levels of nesting in one expression; `a + b + c` has two."""

STATUS: Final = ("success", "failure", "always")
"""The functions of a condition: how what a task needs has ended."""


@struct
class Code:
    """What stands between `${{` and `}}`. `offset` is where `text` starts in the template: errors are marked there."""

    text: str
    offset: int

    @property
    def name(self) -> str:
        """What messages call it: itself, in one line of at most 80 characters."""
        return named(self.text)

    def span(self, node: Node) -> tuple[int, int]:
        """Offset and length of a part in the template. Python counts bytes of UTF-8, people count characters."""
        line = self.text.encode()
        start, end = (len(line[:column].decode()) for column in (node.col_offset, node.end_col_offset or 0))
        return self.offset + start, max(1, end - start)

    def part(self, node: Node) -> str:
        """How a part is written."""
        offset, length = self.span(node)
        return self.text[offset - self.offset :][:length]

    def error(self, message: str, *, at: Node | None = None, hint: str = "") -> ExpressionError:
        """An error that marks a part, or all of it."""
        offset, length = self.span(at) if at else (self.offset, len(self.text))
        return ExpressionError(message, offset=offset, length=length, hint=hint)


@struct
class Reference:
    """A name that an expression looks up, and the literal keys after it: `tasks.a.results[0]` is tasks, (a, results, 0).

    `root` may be unknown (see ROOTS): that is for the caller to refuse, and `hint` then says what was probably meant.
    `offset` and `length` are characters of the template's text.
    """

    root: str
    path: tuple[Key, ...]
    offset: int
    length: int
    hint: str = ""


def named(source: str) -> str:
    line = " ".join(source.split())
    return f"`{line}`" if len(line) <= 80 else f"`{line[:77]}…`"
