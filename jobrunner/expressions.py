"""The `${{ … }}` language: text → Template, checked once when it is read, evaluated once an item.

text ─ parse ─→ Template: literal parts and Expressions ─ value(scope) ─→ JSON value or text
                                  │                     ─ shell(scope) ─→ shell text, every value quoted
                          pure look-ups: ours; the rest: simpleeval, over the tree that was checked here
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import operator
import os
import re
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import islice
from typing import NoReturn, TypeAlias, cast

from jobrunner.errors import ExpressionError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
Scope: TypeAlias = Mapping[str, object]
Key: TypeAlias = "str | int"

ROOTS = frozenset({"params", "env", "item", "index", "run", "tasks"})
"""The names that an expression may start from."""

LONGEST = 10_000
"""Characters in one expression."""
DEEPEST = 50
"""Levels of nesting in one expression; `a + b + c` has two."""
LARGEST = 10_000_000
"""Characters or elements that + and join() may make."""
WIDEST = 4096
"""Bits of a whole number that arithmetic may make: always few enough to print."""

_CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_PLAIN = frozenset({str, int, float, bool, type(None), list, dict})


# --- what parse gives ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """What stands between `${{` and `}}`, checked. `offset` is where `source` starts in the template's text."""

    source: str
    offset: int
    references: tuple[Reference, ...]
    tree: ast.expr = field(repr=False, compare=False)
    path: tuple[str, tuple[Key, ...]] | None
    """Root and keys where the expression is nothing but a look-up."""

    def value(self, scope: Scope) -> object:
        """The value, of its own type. Raises ExpressionError where it cannot be had."""
        if self.path is not None:
            root, keys = self.path
            try:
                found = scope[root]
                for key in keys:
                    found = found[key]  # type: ignore[index]  # what cannot be indexed is explained below
            except (LookupError, TypeError):
                return _evaluated(self, scope)
            return found
        return _evaluated(self, scope)

    @property
    def is_raw(self) -> bool:
        """Whether it is a call of raw(): its value then goes to the shell as it is."""
        return isinstance(self.tree, ast.Call) and cast(ast.Name, self.tree.func).id == "raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A text with expressions in it. Immutable, so one may serve all items of a task."""

    text: str
    parts: tuple[str | Expression, ...]
    references: tuple[Reference, ...]
    only: Expression | None = field(repr=False, compare=False)
    """The expression that is the whole text, blanks apart."""
    places: tuple[str, ...] = field(repr=False, compare=False)
    """Where each expression stands, as a shell reads the text: a key of `_QUOTED`, else why no value can be quoted there."""

    @property
    def is_single(self) -> bool:
        """Whether the whole text, stripped, is one expression: its value then keeps its type."""
        return self.only is not None

    def value(self, scope: Scope) -> object:
        """The value of a single expression, as JSON holds it; text otherwise. Raises ExpressionError."""
        if self.only is not None:
            found = self.only.value(scope)
            return found if type(found) in _PLAIN else _plain(found)
        return "".join([part if isinstance(part, str) else _text_part(part, scope) for part in self.parts])

    def shell(self, scope: Scope) -> str:
        """A shell command in which every value is data, wherever it stands: bare, in '…', in "…" or in $(…).

        A list becomes one word an element, or one word in all inside quotes. raw(x) is pasted as it is.
        Raises ExpressionError, also where no quoting is safe (see `check_shell`).
        """
        places = iter(self.places)
        return "".join([part if isinstance(part, str) else _shell_part(part, next(places), scope) for part in self.parts])

    def check_shell(self) -> None:
        """Raise ExpressionError if a value stands where a shell cannot be handed it as data: a here-document, `…`, a comment."""
        expressions = (part for part in self.parts if isinstance(part, Expression))
        for part, place in zip(expressions, self.places, strict=True):
            if place not in _QUOTED and not part.is_raw:
                _refuse_place(part, place)


# --- reading ---------------------------------------------------------------------------------------------------------

_OPEN = "${{"
_CLOSERS = {"(": ")", "[": "]", "{": "}"}
_MARK = re.compile(r"""'(?:\\[^\r\n]|[^'\\\r\n])*'|"(?:\\[^\r\n]|[^"\\\r\n])*"|[][(){}'"#]""")
_LINE_ENDS = str.maketrans("\r\n", "  ")
_HYPHENATED = re.compile(r"\b((?:tasks|params)(?:\.\w+)*)\.([^\W\d]\w*(?:-\w+)+)")
_FOREIGN = {"&&": "Write `and`.", "||": "Write `or`.", "!": "Write `not`.", "?": "Write `a if c else b`.", "=": "Write ==."}


@lru_cache(maxsize=4096)
def parse(text: str) -> Template | None:
    """The template in `text`, or None where it holds no `${{`. Raises ExpressionError, which marks the place in `text`."""
    if _OPEN not in text:
        return None
    parts = tuple(_parts(text))
    expressions = [part for part in parts if isinstance(part, Expression)]
    outline = "".join(part.replace(_HOLE, " ") if isinstance(part, str) else _HOLE for part in parts)
    return Template(
        text=text,
        parts=parts,
        references=tuple(reference for part in expressions for reference in part.references),
        only=expressions[0] if outline.strip() == _HOLE else None,
        places=tuple(_places(outline)),
    )


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
    for mark in _MARK.finditer(text, start + len(_OPEN)):
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


def _expression(inside: str, offset: int) -> Expression:
    source = inside.strip()
    offset += len(inside) - len(inside.lstrip())
    if not source:
        raise ExpressionError("the expression is empty", offset=offset - len(inside), length=len(inside) or 1)
    if len(source) > LONGEST:
        message = f"the expression has {len(source):,} characters; at most {LONGEST:,} are read"
        raise ExpressionError(message, offset=offset, length=len(source), hint="Compute the value in a task.")
    tree = _tree(source, offset)
    _check(tree, _Place(source=source, offset=offset))
    references = tuple(_references(tree, _Place(source=source, offset=offset)))
    return Expression(source=source, offset=offset, references=references, tree=tree, path=_path(tree))


def _tree(source: str, offset: int) -> ast.expr:
    try:
        with warnings.catch_warnings():  # `'\d'` and `1or 2` make Python warn whoever reads the job file
            warnings.simplefilter("ignore")
            return ast.parse(source.translate(_LINE_ENDS), mode="eval").body
    except SyntaxError as error:
        at = min(max((error.offset or 1) - 1, 0), len(source) - 1)
        message = f"{_named(source)} is not an expression: {error.msg}"
        raise ExpressionError(message, offset=offset + at, hint=_syntax_hint(source, at)) from None
    except (ValueError, MemoryError, RecursionError) as error:  # NUL, a lone surrogate; too deep for Python's parser
        deep = isinstance(error, (MemoryError, RecursionError))
        message = _TOO_DEEP if deep else f"{_named(source)} holds a character that no expression can hold"
        raise ExpressionError(message, offset=offset, length=len(source)) from None


def _syntax_hint(source: str, at: int) -> str:
    if match := _HYPHENATED.search(source):
        return _hyphen_hint(match)
    return next((hint for sign, hint in _FOREIGN.items() if sign in source[max(0, at - 1) : at + 2]), "")


# --- what an expression may hold -------------------------------------------------------------------------------------

_TOO_DEEP = f"the expression is nested too deeply; at most {DEEPEST} levels are read"
_ARITHMETIC: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
}  # fmt: skip
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)
_OPERATORS = (*_ARITHMETIC, *_COMPARISONS, ast.And, ast.Or, ast.Not, ast.USub, ast.UAdd)
# What an expression may consist of, and the method that evaluates it: SimpleEval's, or ours in _Rules.
_HANDLERS: dict[type[ast.AST], str] = {
    ast.Name: "_name", ast.Constant: "_eval_constant", ast.List: "_list",
    ast.Attribute: "_attribute", ast.Subscript: "_subscript", ast.Slice: "_eval_slice",
    ast.Compare: "_eval_compare", ast.BoolOp: "_eval_boolop", ast.BinOp: "_eval_binop", ast.UnaryOp: "_eval_unaryop",
    ast.IfExp: "_eval_ifexp", ast.Call: "_call", ast.keyword: "_eval_keyword",
}  # fmt: skip
_REFUSED: dict[type[ast.AST], str] = {
    ast.JoinedStr: "f-strings are not available; join texts with +",
    ast.Lambda: "functions cannot be defined in an expression; compute the value in a task",
    ast.NamedExpr: "an expression cannot assign; write == to compare",
    ast.Tuple: "a list is written in brackets: [a, b]",
    ast.Dict: "a map cannot be written in an expression; write it in YAML around the expressions",
    ast.Set: "a set cannot be written in an expression; a list is written in brackets: [a, b]",
    ast.Starred: "* cannot unpack in an expression",
    **dict.fromkeys((ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp), "loops are not available; use foreach"),
    **dict.fromkeys((ast.Is, ast.IsNot), "`is` is not available; write == or !="),
    ast.BitAnd: "`&` is not available; write `and`",
    ast.BitOr: "`|` is not available; write `or`",
    ast.Invert: "`~` is not available; write `not`",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Turns nodes of a tree into places of the template's text."""

    source: str
    offset: int

    def span(self, node: ast.expr | ast.keyword) -> tuple[int, int]:
        """Offset and length. Python counts bytes of UTF-8, people count characters."""
        line = self.source.encode()
        start, end = (len(line[:column].decode()) for column in (node.col_offset, node.end_col_offset or 0))
        return self.offset + start, max(1, end - start)

    def error(self, node: ast.expr | ast.keyword, message: str, hint: str = "") -> ExpressionError:
        offset, length = self.span(node)
        return ExpressionError(message, offset=offset, length=length, hint=hint)


def _check(tree: ast.expr, place: _Place) -> None:
    """Refuse, in source order, all that is not in the language. No recursion: the tree may be deeper than Python's stack."""
    rest: list[tuple[ast.expr | ast.keyword, int]] = [(tree, 1)]
    while rest:
        node, depth = rest.pop()
        if depth > DEEPEST:
            raise ExpressionError(_TOO_DEEP, offset=place.offset, length=len(place.source))
        if message := _refusal(node):
            raise place.error(node, message, _call_hint(node))
        rest += [(child, depth + 1) for child in reversed(list(_children(node)))]


def _children(node: ast.AST) -> Iterator[ast.expr | ast.keyword]:
    """The parts of `node` that have values; the name of a function that is called has none."""
    called = node.func if isinstance(node, ast.Call) else None
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.expr, ast.keyword)) and child is not called:
            yield child


def _refusal(node: ast.expr | ast.keyword) -> str:
    """Why `node` is not in the language; nothing where it is."""
    if type(node) not in _HANDLERS:
        return _REFUSED.get(type(node), f"{type(node).__name__} is not available in expressions")
    if isinstance(node, ast.Constant):
        return _constant_refusal(node.value)
    if isinstance(node, ast.Call):
        return _call_refusal(node)
    for sign in [child for child in ast.iter_child_nodes(node) if isinstance(child, (ast.operator, ast.unaryop, ast.cmpop))]:
        if not isinstance(sign, _OPERATORS):
            return _REFUSED.get(type(sign), f"the operator {type(sign).__name__} is not available in expressions")
    return ""


def _constant_refusal(value: object) -> str:
    if type(value) not in _PLAIN:
        return "a value is a number, text, true, false, null or a list"
    return _size_refusal(value)


def _call_refusal(node: ast.Call) -> str:
    if not isinstance(node.func, ast.Name):
        return "a method cannot be called; the functions are " + ", ".join(_ARGUMENTS)
    name = node.func.id
    if name not in _ARGUMENTS:
        return f"there is no function {name}(); the functions are " + ", ".join(_ARGUMENTS)
    given = [""] * len(node.args) + [keyword.arg or "**" for keyword in node.keywords]
    if any(word not in {"", "sep"} or (word and name != "join") for word in given):
        return f"{name}() takes no such named argument: {', '.join(word for word in given if word)}"
    least, most = _ARGUMENTS[name]
    if len(given) > (most or len(given)) or len(given) < least or (name == "join" and not node.args):
        wanted = f"{least} or more" if most is None else str(least) if least == most else f"{least} or {most}"
        return f"{name}() takes {wanted} argument{'' if most == 1 else 's'}; it is given {len(given)}"
    return ""


def _call_hint(node: ast.AST) -> str:
    return _did_you_mean(node.func.id, list(_ARGUMENTS)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _path(node: ast.expr) -> tuple[str, tuple[Key, ...]] | None:
    """Root and keys where `node` is a pure look-up."""
    keys: list[Key] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            keys.append(node.attr)
        elif isinstance(node, ast.Subscript) and (key := _literal_key(node.slice)) is not None:
            keys.append(key)
        else:
            return None
        node = node.value
    return None if node.id in _CONSTANTS else (node.id, tuple(reversed(keys)))


def _literal_key(node: ast.expr) -> Key | None:
    match node:
        case ast.Constant(value=str(key)):
            return key
        case ast.Constant(value=int(place)) if not isinstance(place, bool):
            return place
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(place))) if not isinstance(place, bool):
            return -place
    return None


def _references(tree: ast.expr, place: _Place) -> Iterator[Reference]:
    hints = [(match.span(), _hyphen_hint(match)) for match in _HYPHENATED.finditer(place.source) if _is_hyphenated(match)]
    rest: list[ast.expr | ast.keyword] = [tree]
    while rest:
        node = rest.pop()
        if isinstance(node, ast.expr) and (path := _path(node)):
            offset, length = place.span(node)
            hint = next((hint for (start, end), hint in hints if start <= offset - place.offset < end), "")
            yield Reference(root=path[0], path=path[1], offset=offset, length=length, hint=hint)
        else:
            rest += reversed(list(_children(node)))


def _is_hyphenated(match: re.Match[str]) -> bool:
    """Whether `tasks.list-files` can only be a name with a hyphen: `params.n-index` and `params.n-1` are subtractions."""
    return any(word not in ROOTS and not word[0].isdigit() for word in match[2].split("-")[1:])


def _hyphen_hint(match: re.Match[str]) -> str:
    return f"A name with a hyphen is written {match[1]}['{match[2]}']."


# --- evaluating ------------------------------------------------------------------------------------------------------


class Raw(str):
    """Text that goes to the shell as it is."""

    __slots__ = ()


class Quoted(str):
    """Text that is already one shell word, or several: the shell gets it as it is, unless it stands inside quotes."""

    __slots__ = ()


class _Rules:
    """Our language, laid over simpleeval.SimpleEval's walk: look-ups in maps and lists only, lazy default(), bounds.

    SimpleEval.__init__ is left out on purpose: it builds its whole language each time, and ours must not hold more than
    `_HANDLERS`. One object serves one evaluation, because a lazy scope may evaluate another expression meanwhile.
    """

    allowed_attrs = None
    _eval: Callable[[ast.AST], object]

    def __init__(self, scope: Scope, place: _Place) -> None:
        self.expr = place.source
        self.names = scope
        self.place = place
        self.operators = _OPERATIONS
        self.functions = _FUNCTIONS
        self.nodes = {node: getattr(self, handler) for node, handler in _HANDLERS.items()}

    def _name(self, node: ast.Name) -> object:
        if node.id in _CONSTANTS:
            return _CONSTANTS[node.id]
        try:
            return self.names[node.id]
        except KeyError:
            hint = next((each.hint for each in _references(node, self.place) if each.hint), "")
            raise self._missing(node, f"{node.id} is not known here; {_offer(self.names)}", hint) from None

    def _list(self, node: ast.List) -> list[object]:
        return [self._eval(each) for each in node.elts]

    def _attribute(self, node: ast.Attribute) -> object:
        return self._look_up(node, self._eval(node.value), node.attr)

    def _subscript(self, node: ast.Subscript) -> object:
        return self._look_up(node, self._eval(node.value), self._eval(node.slice))

    def _look_up(self, node: ast.Attribute | ast.Subscript, container: object, key: object) -> object:
        """An element, never an attribute of a Python object: `item.items` is the key "items"."""
        owner = _named(ast.unparse(node.value))
        try:
            if isinstance(container, Mapping) and not isinstance(key, slice):
                return container[key]
            if isinstance(container, (list, tuple, str)) and isinstance(key, (int, slice)) and not isinstance(key, bool):
                return container[key]
        except KeyError:
            keys = cast(Mapping[object, object], container)
            raise self._missing(node, f"{owner} has no {_shown(key)}; {_offer(keys)}", _did_you_mean(key, keys)) from None
        except IndexError:
            raise self._missing(node, f"{owner} has no [{key}]; its length is {len(cast(str, container))}") from None
        raise self._missing(node, f"{owner} is {_kind(container)}, which has no {_shown(key)}")

    def _missing(self, node: ast.expr, message: str, hint: str = "") -> ExpressionError:
        return self.place.error(node, f"{_named(self.expr)}: {message}", hint)

    def _call(self, node: ast.Call) -> object:
        name = cast(ast.Name, node.func).id
        if name == "default":
            return self._default(*node.args)
        named = {str(keyword.arg): self._eval(keyword.value) for keyword in node.keywords}
        return _FUNCTIONS[name](*[self._eval(each) for each in node.args], **named)

    def _default(self, wanted: ast.expr, fallback: ast.expr) -> object:
        """Only a look-up that fails is an ExpressionError at this depth: `default(1 / 0, 2)` stays an error."""
        try:
            found = self._eval(wanted)
        except ExpressionError:
            found = None
        return self._eval(fallback) if found is None else found

    def _check_disallowed_items(self, value: object) -> None:
        """Called by SimpleEval with the value of every node; theirs walks whole lists in search of modules, which none holds."""
        if message := _size_refusal(value):
            raise ValueError(message)


@cache
def _evaluator() -> type[_Rules]:
    import simpleeval  # type: ignore[import-untyped]  # it ships no types

    return cast(type[_Rules], type("_Evaluator", (_Rules, simpleeval.SimpleEval), {}))


def _evaluated(expression: Expression, scope: Scope) -> object:
    """The value, by walking the tree. Whatever goes wrong in it is an ExpressionError that shows the expression."""
    place = _Place(source=expression.source, offset=expression.offset)
    try:
        return _evaluator()(scope, place)._eval(expression.tree)
    except ZeroDivisionError:
        problem = "division by zero"
    except OverflowError:
        problem = _TOO_LARGE
    except (RecursionError, MemoryError):
        problem = "the value is too large or too deep"
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        problem = str(error)
    raise ExpressionError(f"{_named(place.source)}: {problem}", offset=place.offset, length=len(place.source))


_TOO_LARGE = "the number is too large"


def _size_refusal(value: object) -> str:
    """Why a value cannot be had: JSON has no infinity, and nobody means a number of a thousand digits."""
    if isinstance(value, int):
        return _TOO_LARGE if value.bit_length() > WIDEST else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{_TOO_LARGE}, or not a number"
    return "the result is a complex number" if isinstance(value, complex) else ""


def _numeric(sign: str, operation: Callable[..., object]) -> Callable[[object, object], object]:
    """`operation` on numbers alone: `'a' * 10 ** 9` and `'%999999999d' % 1` would fill the memory."""

    def checked(left: object, right: object) -> object:
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            return operation(left, right)
        raise TypeError(f"{sign} works on two numbers, not on {_kind(left)} and {_kind(right)}")

    return checked


def _add(left: object, right: object) -> object:
    if (isinstance(left, str) and isinstance(right, str)) or (isinstance(left, list) and isinstance(right, list)):
        _bound(len(left) + len(right))
        return operator.add(left, right)
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left + right
    raise TypeError(f"+ joins two numbers, two texts or two lists, not {_kind(left)} and {_kind(right)}; str(x) makes text of x")


def _power(left: int | float, right: int | float) -> object:
    if isinstance(left, int) and isinstance(right, int) and right > 0 and left.bit_length() * right > 2 * WIDEST:
        raise OverflowError
    return left**right


def _bound(length: int) -> None:
    if length > LARGEST:
        raise ValueError(f"the result would have a length of {length:,}; at most {LARGEST:,} are made")


_OPERATIONS: dict[type[ast.AST], Callable[..., object]] = {
    ast.Add: _add,
    ast.Sub: _numeric("-", operator.sub),
    ast.Mult: _numeric("*", operator.mul),
    ast.Div: _numeric("/", operator.truediv),
    ast.FloorDiv: _numeric("//", operator.floordiv),
    ast.Mod: _numeric("%", operator.mod),
    ast.Pow: _numeric("**", _power),
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
    ast.Not: operator.not_, ast.USub: operator.neg, ast.UAdd: operator.pos,
}  # fmt: skip


def _join(items: object, sep: object = ",") -> str:
    if not isinstance(items, (list, tuple)) or not isinstance(sep, str):
        raise TypeError(f"join() takes a list and a text between its elements, not {_kind(items)} and {_kind(sep)}")
    texts = [text_of(each) for each in items]
    _bound(sum(map(len, texts)) + len(sep) * len(texts))
    return sep.join(texts)


def _raw(value: object) -> Raw:
    return Raw(" ".join(map(text_of, value)) if isinstance(value, (list, tuple)) else text_of(value))


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "len": len, "min": min, "max": max, "sum": sum, "sorted": sorted, "int": int, "float": float,
    "str": lambda value: text_of(value), "join": _join, "quote": lambda value: Quoted(_words(value)), "raw": _raw,
}  # fmt: skip
# Name → fewest and most arguments; None is no limit. default() is not in _FUNCTIONS: it does not evaluate all of its own.
_ARGUMENTS: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("len", "sum", "sorted", "str", "int", "float"), (1, 1)),
    "min": (1, None), "max": (1, None), "join": (1, 2), "default": (2, 2), "quote": (1, 1), "raw": (1, 1),
}  # fmt: skip


# --- values as text and as shell words -------------------------------------------------------------------------------


def text_of(value: object) -> str:
    """A value inside text: text as it is, null as nothing, true and false, numbers as JSON, lists and maps as compact JSON.

    Raises ValueError for what JSON cannot hold.
    """
    if isinstance(value, str):
        return str(value)
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_jsonable)
    except (ValueError, RecursionError):
        raise ValueError(f"{_kind(value)} that holds NaN or infinity, or is too large, has no JSON text") from None


def _jsonable(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _plain(value: object) -> object:
    """A lazy Mapping as a dict, marked text as text: what crosses to a worker is JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return str(value) if isinstance(value, str) else value


_HOLE = "\0"  # stands for an expression while a template is read as a shell reads it
_IN_A_HERE_DOCUMENT = "a here-document, where a shell expands it"
# What ends, opens or hides something, by where the shell is. A hole that a longer mark swallows cannot be quoted.
_BARE = re.compile(
    # a line broken inside a mark; an escape, and # after it is no comment; `$$`, which opens nothing
    r"[$<>(](?:\\\n)+|(?:\\\n)+#|\\.#*|\$\$|\$\0|\$'|['\"`\0]|\$?\(\(|\$?\(|\)|\$\{|(?<![^\s;&|()])(?:#[^\n]*|case(?=\s))|<<<"
    # bash expands the word after >& twice where it is not a number, and reads on after a mistake in an array
    r"|[<>]&(?!(?:\d+|-)(?:[\s;|&<>()]|\Z))|=\("
    # a whole here-document: its delimiter, a plain rest of the line, the body, the delimiter again; or else its start
    r"|<<(?:(-)|(?!-))[ \t]*(['\"]?)([\w.-]+)\2(?![^\s;|&])[^\n'\"`\\()<$]*\n(?:(?:[^\\]|\\(?!\n))*?\n)??(?(1)\t*)\3(?=\n|\Z)|<<",
    re.DOTALL,
)
_IN_DOUBLE = r"\$(?:\\\n)+|\\.|\$\$|\$\(\(|\$\(|\$\{|[\"`\0"
_SHELL = {
    "bare": _BARE,
    "paren": _BARE,
    "single": re.compile(r"['\0]"),
    "double": re.compile(_IN_DOUBLE + "]", re.DOTALL),
    "arithmetic": re.compile(_IN_DOUBLE + "'()]", re.DOTALL),
    "${…}": re.compile(_IN_DOUBLE + "'}]", re.DOTALL),
    "`…`; write $(…)": re.compile(r"\\.|[`\0]", re.DOTALL),
}
_OPENS = {"'": "single", '"': "double", "`": "`…`; write $(…)", "${": "${…}", "$(": "paren", "(": "paren"}
_CLOSES = {"'": "single", '"': "double", "`": "`…`; write $(…)", "}": "${…}", ")": "paren"}


def _places(script: str) -> Iterator[str]:
    """Where each hole of `script` stands, as `sh` reads it. What it cannot be sure of, it gives a reason for instead."""
    stack = ["bare"]
    at = 0
    while stack[-1] in _SHELL and (mark := _SHELL[stack[-1]].search(script, at)):
        sign, at = mark[0], mark.end()
        if sign == _HOLE:
            place = _place(stack)
            yield "glued" if place == "bare" and _is_glued(script, mark.start()) else place
        else:
            yield from [_hidden(sign)] * sign.count(_HOLE)
            _enter(stack, sign)
    yield from [stack[-1]] * script.count(_HOLE, at)


def _place(stack: list[str]) -> str:
    """Where a hole stands. Inside "${x:-"…"}" no quoting holds in all shells; a $(…) in it starts afresh."""
    fresh = max((depth for depth, state in enumerate(stack) if state == "paren"), default=0)
    if "${…}" in stack[fresh:]:
        return "${…}"
    return "bare" if stack[-1] == "paren" else stack[-1]


def _enter(stack: list[str], sign: str) -> None:
    """Follow one mark into, or out of, what it opens or closes."""
    top = stack[-1]
    if len(stack) > DEEPEST:
        stack.append("a command that is nested this deeply")
    elif top == "arithmetic" and sign in "()":
        stack.append(top) if sign == "(" else stack.pop()
    elif _CLOSES.get(sign) == top:
        stack.pop()
    elif sign.endswith("(("):
        stack += ["arithmetic"] * 2
    elif lost := _lost(stack, sign):
        stack.append(lost)
    elif sign in _OPENS:
        stack.append(_OPENS[sign])


def _lost(stack: list[str], sign: str) -> str:
    """Why the rest of a script cannot be followed: shells differ here, or only a whole parser could."""
    if sign == "<<":
        return _IN_A_HERE_DOCUMENT
    if sign in {">&", "<&", "=("}:
        return f"a command with {sign}, which shells read differently"
    if "\\\n" in sign and sign != "\\\n" and not sign.startswith("<<"):
        return "a command with a line that is broken inside a mark"
    if sign == "$'":
        return "a command with $'…', which shells read differently"
    if sign == "case" and "paren" in stack:
        return "a command with `case` inside (…)"
    if sign in {"'", '"', "`"} and stack[-1] == "arithmetic":
        return "arithmetic with quotes in it"
    return "${…} with ' in it" if sign == "'" and stack[-1] == "${…}" and "double" in stack else ""


def _hidden(sign: str) -> str:
    if sign.startswith("<<"):
        return _IN_A_HERE_DOCUMENT
    return "a comment" if sign.startswith("#") else f"a word after {sign[0]}"


def _is_glued(script: str, at: int) -> bool:
    """Whether a bare word would merge with its neighbour: `$HOME${{ x }}`, `${{ x }}>file`."""
    return script[at + 1 : at + 2] in {"<", ">"} or re.search(r"\$\w*\Z", script[max(0, at - 100) : at]) is not None


# Where an expression stands → what its value becomes there. Inside quotes: close them, the quoted word, open them again.
_QUOTED: dict[str, Callable[[object], str]] = {
    "bare": lambda value: _words(value),
    "glued": lambda value: _words(value, force=True),
    "single": lambda value: f"'{_word(_raw(value))}'",
    "double": lambda value: f'"{_word(_raw(value))}"',
    "arithmetic": lambda value: _digits(value),
}


def _text_part(expression: Expression, scope: Scope) -> str:
    try:
        return text_of(expression.value(scope))
    except ValueError as error:
        raise _unusable(expression, error) from None


def _unusable(expression: Expression, error: ValueError) -> ExpressionError:
    message = f"{_named(expression.source)}: {error}"
    return ExpressionError(message, offset=expression.offset, length=len(expression.source))


def _shell_part(expression: Expression, place: str, scope: Scope) -> str:
    value = expression.value(scope)
    if isinstance(value, Raw) or (isinstance(value, Quoted) and place in {"bare", "glued"}):
        return str(value)
    if place not in _QUOTED:
        _refuse_place(expression, place)
    try:
        return _QUOTED[place](value)
    except ValueError as error:
        raise _unusable(expression, error) from None


def _refuse_place(expression: Expression, place: str) -> NoReturn:
    message = f"{_named(expression.source)} cannot be quoted safely in {place}"
    hint = 'Put the value in `env` and write "$NAME" in the command; raw() pastes it unquoted.'
    raise ExpressionError(message, offset=expression.offset, length=len(expression.source), hint=hint)


def _words(value: object, force: bool = False) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join([str(each) if isinstance(each, (Raw, Quoted)) else _word(text_of(each), force) for each in value])
    return _word(text_of(value), force)


def _word(text: str, force: bool = False) -> str:
    """One shell word. Raises ValueError for what no argument of a process can hold."""
    if "\0" in text:
        raise ValueError("the value holds a NUL character, which no command line can hold")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError("the value holds a lone surrogate, which no command line can hold") from None
    quoted = shlex.quote(text)
    return f"'{text}'" if force and quoted == text else quoted


def _digits(value: object) -> str:
    """In $((…)) a text would be evaluated: only numbers go in."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return text_of(value)
    raise ValueError(f"only a number can stand in $((…)), not {_kind(value)}; int(x) makes one of x")


# --- words for people ------------------------------------------------------------------------------------------------


def _named(source: str) -> str:
    line = " ".join(source.split())
    return f"`{line}`" if len(line) <= 80 else f"`{line[:77]}…`"


def _shown(key: object) -> str:
    if isinstance(key, slice):
        return "slices"
    return repr(key) if isinstance(key, str) else f"[{text_of(key)}]"


def _kind(value: object) -> str:
    """What people call the type of `value`."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true or false"
    names = (((int, float), "a number"), (str, "text"), ((list, tuple), "a list"), (Mapping, "a map"))
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def _offer(there: Mapping[object, object] | Scope) -> str:
    """The first few of the keys that there are."""
    shown = [str(key)[:40] for key in islice(there, 6)]
    return f"there is {', '.join(shown[:5])}{', …' if len(shown) > 5 else ''}" if shown else "there is nothing in it"


def _did_you_mean(key: object, there: Mapping[object, object] | list[str]) -> str:
    """Looks at no more than a thousand keys: a result may be a map of a million."""
    close = difflib.get_close_matches(str(key)[:100], [str(each) for each in islice(there, 1000)], n=1)
    return f"Did you mean '{close[0]}'?" if close and close[0] != key else ""
