"""The `${{ … }}` language: text → Template, checked once when it is read, evaluated once an item.

    text ─ parse ─→ Template: literal parts and Expressions ─ value(scope) ─→ JSON value or text
             │                                       │      ─ shell(scope) ─→ shell text, every value quoted
          grammar       look-ups: here; the rest: evaluation           quoting

A Template and its Expressions are immutable: one serves all items of a task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from jobrunner.errors import ExpressionError
from jobrunner.expressions.code import Code, Path, Reference
from jobrunner.expressions.values import PLAIN, JsonValue, Scope, plain, text_of
from jobrunner.structs import field, struct
from jobrunner.typed import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    import ast


@struct
class Expression:
    """What stands between `${{` and `}}`, checked."""

    code: Code
    references: tuple[Reference, ...]
    tree: ast.expr = field(repr=False, compare=False)
    path: Path | None
    """Root and keys where the expression is nothing but a look-up."""
    status: tuple[tuple[str, int, int], ...] = ()
    """The calls of success(), failure() and always(): name, and offset and length in the template's text."""

    @property
    def source(self) -> str:
        return self.code.text

    @property
    def offset(self) -> int:
        """Where `source` starts in the template's text."""
        return self.code.offset

    @property
    def is_raw(self) -> bool:
        """Whether it is a call of raw(): its value then goes to the shell as it is."""
        import ast

        return isinstance(self.tree, ast.Call) and cast(ast.Name, self.tree.func).id == "raw"

    def value(self, scope: Scope) -> object:
        """The value, of its own type. Raises ExpressionError where it cannot be had."""
        if self.path is not None:
            root, keys = self.path
            try:
                found = scope[root]
                for key in keys:
                    found = found[key]  # type: ignore[index]  # what cannot be indexed is explained below
                return found
            except (LookupError, TypeError):
                pass
        from jobrunner.expressions.evaluation import evaluate  # loads simpleeval, which most job files do without

        return evaluate(self.tree, self.code, scope)


@struct
class Template:
    """A text with expressions in it. Immutable, so one may serve all items of a task."""

    text: str
    parts: tuple[str | Expression, ...]
    references: tuple[Reference, ...]
    only: Expression | None = field(repr=False, compare=False)
    """The expression that is the whole text, blanks apart."""
    places: tuple[str, ...] = field(repr=False, compare=False)
    """Where each expression stands, as a shell reads the text; see `quoting`."""

    @property
    def status(self) -> tuple[tuple[str, int, int], ...]:
        """The calls of success(), failure() and always() in it."""
        return tuple(call for part in self.parts if isinstance(part, Expression) for call in part.status)

    @property
    def is_single(self) -> bool:
        """Whether the whole text, stripped, is one expression: its value then keeps its type."""
        return self.only is not None

    def value(self, scope: Scope) -> object:
        """The value of a single expression, as JSON holds it; text otherwise. Raises ExpressionError."""
        if self.only is not None:
            found = self.only.value(scope)
            return found if type(found) in PLAIN else plain(found)
        return "".join([part if isinstance(part, str) else _text(part, scope) for part in self.parts])

    def shell(self, scope: Scope) -> str:
        """A shell command in which every value is data, wherever it stands: bare, in '…', in "…" or in $(…).

        A list becomes one word an element, or one word in all inside quotes. raw(x) is pasted as it is.
        Raises ExpressionError, also where no quoting is safe (see `check_shell`).
        """
        places = iter(self.places)
        return "".join([part if isinstance(part, str) else _shell_text(part, next(places), scope) for part in self.parts])

    def check_shell(self) -> None:
        """Raise ExpressionError if a value stands where a shell cannot be handed it as data: a here-document, `…`, a comment."""
        from jobrunner.expressions import quoting

        expressions = (part for part in self.parts if isinstance(part, Expression))
        for part, place in zip(expressions, self.places, strict=True):
            if not quoting.is_safe(place) and not part.is_raw:
                raise _unsafe(part, place)


def _text(expression: Expression, scope: Scope) -> str:
    try:
        return text_of(expression.value(scope))
    except ValueError as error:
        raise expression.code.error(f"{expression.code.name}: {error}") from None


def _shell_text(expression: Expression, place: str, scope: Scope) -> str:
    from jobrunner.expressions import quoting

    value = expression.value(scope)
    if not quoting.is_safe(place) and not isinstance(value, quoting.Raw):
        raise _unsafe(expression, place)
    try:
        return quoting.quoted(value, place)
    except ValueError as error:
        raise expression.code.error(f"{expression.code.name}: {error}") from None


def _unsafe(expression: Expression, place: str) -> ExpressionError:
    message = f"{expression.code.name} cannot be quoted safely in {place}"
    hint = 'Put the value in `env` and write "$NAME" in the command; raw() pastes it unquoted.'
    return expression.code.error(message, hint=hint)


# --- reading ---------------------------------------------------------------------------------------------------------

_OPEN: Final = "${{"
_CLOSERS: Final = {"(": ")", "[": "]", "{": "}"}
_MARK: Final = r"""'(?:\\[^\r\n]|[^'\\\r\n])*'|"(?:\\[^\r\n]|[^"\\\r\n])*"|[][(){}'"#]"""


@lru_cache(maxsize=4096)
def parse(text: str) -> Template | None:
    """The template in `text`, or None where it holds no `${{`. Raises ExpressionError, which marks the place in `text`."""
    if _OPEN not in text:
        return None
    from jobrunner.expressions import quoting  # most texts hold no expression: what it takes to read one is loaded for the first

    parts = tuple(_parts(text))
    expressions = [part for part in parts if isinstance(part, Expression)]
    is_single = len(expressions) == 1 and not any(part.strip() for part in parts if isinstance(part, str))
    return Template(
        text=text,
        parts=parts,
        references=tuple(reference for part in expressions for reference in part.references),
        only=expressions[0] if is_single else None,
        places=tuple(quoting.places(part if isinstance(part, str) else None for part in parts)),
    )


@lru_cache(maxsize=4096)
def condition(text: str) -> Template:
    """The template of an `if`: `${{ … }}`, or the expression alone. Raises ExpressionError, which marks the place in `text`."""
    template = parse(text)
    if template is None:
        only = _expression(text, 0)
        return Template(text=text, parts=(only,), references=only.references, only=only, places=())
    if template.only is None:
        raise ExpressionError("a condition is one expression", offset=0, length=len(text), hint="Write all of it in one ${{ }}.")
    return template


def _parts(text: str) -> Iterator[str | Expression]:
    position = 0
    while (start := text.find(_OPEN, position)) >= 0:
        if start > position:
            yield text[position:start]
        end = _end(text, start)
        yield _expression(text[start + len(_OPEN) : end], start + len(_OPEN))
        position = end + 2
    if position < len(text):
        yield text[position:]


def _end(text: str, start: int) -> int:
    """Where the `}}` stands that closes the `${{` at `start`: outside quotes, and outside braces and brackets."""
    opened: list[int] = []
    for mark in re.compile(_MARK).finditer(text, start + len(_OPEN)):
        sign, at = mark[0], mark.start()
        if sign in _CLOSERS:
            opened.append(at)
        elif opened and sign == _CLOSERS[text[opened[-1]]]:
            opened.pop()
        elif not opened and text.startswith("}}", at):
            return at
        elif sign in {"'", '"'}:
            raise _unclosed(start, f"The {sign} at character {at + 1} has no partner on its line.")
        elif sign == "#":
            raise ExpressionError("an expression cannot hold a comment", offset=at, hint="Put a # that is data in quotes.")
    raise _unclosed(start, f"The {text[opened[-1]]} at character {opened[-1] + 1} is still open." if opened else "")


def _unclosed(start: int, hint: str) -> ExpressionError:
    return ExpressionError("`${{` is never closed with `}}`", offset=start, length=len(_OPEN), hint=hint)


@lru_cache(maxsize=4096)
def _expression(inside: str, offset: int) -> Expression:
    from jobrunner.expressions import grammar

    source = inside.strip()
    if not source:
        raise ExpressionError("the expression is empty", offset=offset, length=len(inside) or 1)
    code = Code(text=source, offset=offset + len(inside) - len(inside.lstrip()))
    tree = grammar.read(code)
    return Expression(
        code=code,
        references=tuple(grammar.references(tree, code)),
        tree=tree,
        path=grammar.path_of(tree),
        status=tuple(grammar.status_calls(tree, code)),
    )


# --- values that hold templates --------------------------------------------------------------------------------------


def is_constant(value: object) -> bool:
    """Whether no text anywhere in `value` holds an expression."""
    if isinstance(value, str):
        return _OPEN not in value
    if isinstance(value, list):
        return all(map(is_constant, value))
    return not isinstance(value, dict) or all(map(is_constant, value.values()))


def compiled(value: JsonValue) -> Callable[[Scope], JsonValue]:
    """A function of the scope that gives `value` with its expressions evaluated; keys of maps are taken as they are.

    What holds no expression is handed back as the same object. Raises ExpressionError for a malformed one, at once.
    """
    return _steps(value) or (lambda _: value)


def _steps(value: JsonValue) -> Callable[[Scope], JsonValue] | None:
    """As `compiled`; None for a constant, so that an item pays only for what depends on it."""
    if isinstance(value, str):
        template = parse(value)
        return cast(Callable[[Scope], JsonValue], template.value) if template else None
    if isinstance(value, list):
        items = [(_steps(each), each) for each in value]
        if any(step for step, _ in items):
            return lambda scope: [step(scope) if step else each for step, each in items]
    if isinstance(value, dict):
        entries = [(key, _steps(each), each) for key, each in value.items()]
        if any(step for _, step, _ in entries):
            return lambda scope: {key: step(scope) if step else each for key, step, each in entries}
    return None
