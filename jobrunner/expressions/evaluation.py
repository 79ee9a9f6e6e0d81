"""The value of an expression: simpleeval walks the tree; look-ups, default(), functions and bounds are ours.

    tree ─→ Evaluation._eval, once a node ─→ simpleeval's _eval_compare, _eval_binop …, or ours of the same name
                                          ─→ what is too large is refused, whatever made it

Only a tree that `grammar.read` has let through comes here. Loads simpleeval, so it is imported where the first expression
is evaluated that is more than a look-up.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final, cast

import simpleeval  # type: ignore[import-untyped]  # it ships no types

from jobrunner.errors import ExpressionError
from jobrunner.expressions import quoting, texts
from jobrunner.expressions.code import STATUS, Code, named
from jobrunner.expressions.grammar import CONSTANTS, NODES, references
from jobrunner.expressions.values import TOO_LARGE, WIDEST, Scope, bound, kind_of, size_refusal, text_of
from jobrunner.hints import did_you_mean

METHODS: Final[dict[type[ast.AST], str]] = {node: f"_eval_{node.__name__.lower()}" for node in NODES}
"""Node → the method that evaluates it: the names are simpleeval's, who has all but that of a list."""


def evaluate(tree: ast.expr, code: Code, scope: Scope) -> object:
    """The value. Whatever goes wrong is an ExpressionError that shows the expression and marks the place."""
    try:
        return Evaluation(code, scope)._eval(tree)
    except ZeroDivisionError:
        problem = "division by zero"
    except OverflowError:
        problem = TOO_LARGE
    except (RecursionError, MemoryError):
        problem = "the value is too large or too deep"
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        problem = str(error)
    raise code.error(f"{code.name}: {problem}")


class Evaluation(simpleeval.SimpleEval):  # type: ignore[misc]  # untyped
    """One evaluation of one expression: a lazy scope may evaluate another one meanwhile.

    SimpleEval.__init__ and _eval are left out on purpose: the one builds its whole language each time, the other searches
    every list that comes by for modules, which none of ours holds.
    """

    nodes = None  # SimpleEval's own table: see METHODS

    def __init__(self, code: Code, scope: Scope) -> None:
        self.code = code
        self.names = scope
        self.operators = OPERATIONS
        self.functions = FUNCTIONS

    def _eval(self, node: ast.AST) -> object:
        found: object = getattr(self, METHODS[type(node)])(node)
        if message := size_refusal(found):
            raise ValueError(message)
        return found

    def _eval_name(self, node: ast.Name) -> object:
        if node.id in CONSTANTS:
            return CONSTANTS[node.id]
        try:
            return self.names[node.id]
        except KeyError:
            [reference] = references(node, self.code)
            raise self._missing(node, f"{node.id} is not known here; {_offer(self.names)}", reference.hint) from None

    def _eval_list(self, node: ast.List) -> list[object]:
        return [self._eval(each) for each in node.elts]

    def _eval_attribute(self, node: ast.Attribute) -> object:
        return self._look_up(node, self._eval(node.value), node.attr)

    def _eval_subscript(self, node: ast.Subscript) -> object:
        return self._look_up(node, self._eval(node.value), self._eval(node.slice))

    def _look_up(self, node: ast.Attribute | ast.Subscript, container: object, key: object) -> object:
        """An element, never an attribute of a Python object: `item.items` is the key "items"."""
        owner = named(ast.unparse(node.value))
        try:
            if isinstance(container, Mapping) and not isinstance(key, (slice, list, Mapping)):
                return container[key]
            if isinstance(key, slice) and (odd := _odd_bound(key)) is not None:
                raise TypeError(f"a slice goes from one whole number to another; {kind_of(odd)} is none")
            if isinstance(container, (list, tuple, str)) and isinstance(key, (int, slice)) and not isinstance(key, bool):
                return container[key]
        except KeyError:
            keys = cast(Mapping[object, object], container)
            near = did_you_mean(str(key), [str(each) for each in islice(keys, 1000)])  # a result may be a map of a million
            raise self._missing(node, f"{owner} has no {_shown(key)}; {_offer(keys)}", near) from None
        except IndexError:
            raise self._missing(node, f"{owner} has no [{key}]; its length is {len(cast(str, container))}") from None
        raise self._missing(node, f"{owner} is {kind_of(container)}, which has no {_shown(key)}")

    def _missing(self, node: ast.expr, message: str, hint: str = "") -> ExpressionError:
        return self.code.error(f"{self.code.name}: {message}", at=node, hint=hint)

    def _eval_call(self, node: ast.Call) -> object:
        name = cast(ast.Name, node.func).id
        if name in STATUS:
            return self._status(node, name)
        return self._default(*node.args) if name == "default" else super()._eval_call(node)

    def _status(self, node: ast.Call, name: str) -> object:
        """What the scope says of it: only that of a condition does."""
        if (call := f"{name}()") not in self.names:
            raise self._missing(node, f"{call} is known only in `if`")
        return self.names[call]

    def _default(self, wanted: ast.expr, fallback: ast.expr) -> object:
        """Only a look-up that fails is an ExpressionError at this depth: `default(1 / 0, 2)` stays an error."""
        try:
            found = self._eval(wanted)
        except ExpressionError:
            found = None
        return self._eval(fallback) if found is None else found


def _odd_bound(key: slice) -> object:
    """What stands in a slice and is no whole number; None where nothing does."""
    bounds = (each for each in (key.start, key.stop, key.step) if each is not None)
    return next((each for each in bounds if not isinstance(each, int) or isinstance(each, bool)), None)


def _shown(key: object) -> str:
    if isinstance(key, slice):
        return "slices"
    return repr(key) if isinstance(key, str) else f"[{text_of(key)}]"


def _offer(there: Mapping[object, object] | Scope) -> str:
    """The first few of the keys that there are."""
    shown = [str(key)[:40] for key in islice(there, 6)]
    return f"there is {', '.join(shown[:5])}{', …' if len(shown) > 5 else ''}" if shown else "there is nothing in it"


# --- operators and functions -----------------------------------------------------------------------------------------


def _numeric(sign: str, operation: Callable[..., object]) -> Callable[[object, object], object]:
    """`operation` on numbers alone: `'a' * 10 ** 9` and `'%999999999d' % 1` would fill the memory."""

    def checked(left: object, right: object) -> object:
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            return operation(left, right)
        raise TypeError(f"{sign} works on two numbers, not on {kind_of(left)} and {kind_of(right)}")

    return checked


def _add(left: object, right: object) -> object:
    if (isinstance(left, str) and isinstance(right, str)) or (isinstance(left, list) and isinstance(right, list)):
        bound(len(left) + len(right))
        return operator.add(left, right)
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        return left + right
    kinds = f"{kind_of(left)} and {kind_of(right)}"
    raise TypeError(f"+ joins two numbers, two texts or two lists, not {kinds}; str(x) makes text of x")


def _ordered(sign: str, operation: Callable[..., object]) -> Callable[[object, object], object]:
    """`operation` on two values that have an order."""

    def checked(left: object, right: object) -> object:
        try:
            return operation(left, right)
        except TypeError:
            pass
        if isinstance(left, list) and isinstance(right, list):
            raise TypeError(f"{sign} compares two lists only where their elements are all numbers or all texts")
        kinds = f"{kind_of(left)} and {kind_of(right)}"
        raise TypeError(f"{sign} compares two numbers, two texts or two lists, not {kinds}; int(x) makes a number of x")

    return checked


def _in(item: object, container: object) -> bool:
    if isinstance(container, str) and isinstance(item, str):
        return item in container
    if isinstance(container, (list, tuple)) or (isinstance(container, Mapping) and not isinstance(item, (list, Mapping))):
        return item in container
    kinds = f"{kind_of(item)} in {kind_of(container)}"
    raise TypeError(f"`in` looks for a text in a text, an element in a list or a key in a map, not for {kinds}")


def _signed(sign: str, operation: Callable[..., object]) -> Callable[[object], object]:
    def checked(value: object) -> object:
        if isinstance(value, (int, float)):
            return operation(value)
        raise TypeError(f"{sign} stands in front of a number, not of {kind_of(value)}")

    return checked


def _power(left: int | float, right: int | float) -> object:
    """Refused before it is computed where it would take long."""
    if isinstance(left, int) and isinstance(right, int) and right > 0 and left.bit_length() * right > 2 * WIDEST:
        raise OverflowError
    return left**right


def _sum(items: object) -> object:
    """Of numbers, or of lists, as + joins them."""
    if isinstance(items, (list, tuple)) and items and all(isinstance(each, list) for each in items):
        bound(sum(map(len, items)))
        return [each for part in items for each in part]
    if isinstance(items, (list, tuple)) and all(isinstance(each, (int, float)) for each in items):
        return sum(items)
    raise TypeError(f"sum() takes a list of numbers, or of lists, not {_held(items)}")


def _compared(name: str, function: Callable[..., object]) -> Callable[..., object]:
    """min, max or sorted."""

    def checked(*values: object) -> object:
        try:
            return function(*values)
        except TypeError:
            held = _held(values[0] if len(values) == 1 else values)
            raise TypeError(f"{name}() takes a list whose elements are all numbers or all texts, not {held}") from None
        except ValueError:
            raise ValueError(f"{name}() of an empty list has no value") from None

    return checked


def _held(items: object) -> str:
    """`one of a number and text`: what is in a list, where that is what is wrong."""
    if not isinstance(items, (list, tuple)):
        return kind_of(items)
    return "one of " + " and ".join(dict.fromkeys(map(kind_of, items)))


def _len(value: object) -> int:
    if isinstance(value, (str, list, tuple, Mapping)):
        return len(value)
    raise TypeError(f"len() takes a text, a list or a map, not {kind_of(value)}")


def _number(name: str, function: Callable[..., object], wanted: str) -> Callable[[object], object]:
    """int or float."""

    def checked(value: object) -> object:
        try:
            return function(value)
        except TypeError:
            raise TypeError(f"{name}() takes a number or the text of one, not {kind_of(value)}") from None
        except ValueError:
            raise ValueError(f"{str(value)[:40]!r} is not the text of {wanted}") from None

    return checked


def _join(items: object, sep: object = ",") -> str:
    if not isinstance(items, (list, tuple)) or not isinstance(sep, str):
        raise TypeError(f"join() takes a list and a text between its elements, not {kind_of(items)} and {kind_of(sep)}")
    texts = [text_of(each) for each in items]
    bound(sum(map(len, texts)) + len(sep) * len(texts))
    return sep.join(texts)


OPERATIONS: Final[dict[type[ast.AST], Callable[..., object]]] = {
    ast.Add: _add,
    ast.Sub: _numeric("-", operator.sub),
    ast.Mult: _numeric("*", operator.mul),
    ast.Div: _numeric("/", operator.truediv),
    ast.FloorDiv: _numeric("//", operator.floordiv),
    ast.Mod: _numeric("%", operator.mod),
    ast.Pow: _numeric("**", _power),
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.Lt: _ordered("<", operator.lt), ast.LtE: _ordered("<=", operator.le),
    ast.Gt: _ordered(">", operator.gt), ast.GtE: _ordered(">=", operator.ge),
    ast.In: _in,
    ast.NotIn: lambda item, container: not _in(item, container),
    ast.Not: operator.not_, ast.USub: _signed("-", operator.neg), ast.UAdd: _signed("+", operator.pos),
}  # fmt: skip
FUNCTIONS: Final[dict[str, Callable[..., object]]] = {
    "len": _len, "min": _compared("min", min), "max": _compared("max", max), "sorted": _compared("sorted", sorted),
    "sum": _sum, "int": _number("int", int, "a whole number"), "float": _number("float", float, "a number"),
    "str": text_of, "join": _join, "quote": quoting.quote, "raw": quoting.raw,
    "basename": texts.basename, "dirname": texts.dirname, "stem": texts.stem, "relative": texts.relative,
    "replace": texts.replace,
}  # fmt: skip
"""All but default(), which does not evaluate all of its arguments, and those of a condition, whose values the scope has."""
