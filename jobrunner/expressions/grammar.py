"""What an expression may be: Python's own parser reads it, and what is not in our language is refused where it stands.

    code ─ read ─→ ast.expr, in which every node is in NODES, every operator in OPERATORS, every call in ARGUMENTS
                     ├─ references ─→ the names that it looks up, for the job file's checks
                     └─ path_of ────→ root and keys, where it is a look-up and no more

An error says what to write instead. Nothing here recurses: a tree may be deeper than Python's stack.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

from jobrunner.errors import ExpressionError
from jobrunner.expressions.code import DEEPEST, LONGEST, ROOTS, STATUS, Code, Key, Node, Path, Reference, named
from jobrunner.expressions.values import PLAIN, size_refusal
from jobrunner.hints import did_you_mean
from jobrunner.typed import Final

CONSTANTS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}
NODES: Final = (
    ast.Name, ast.Constant, ast.List, ast.Attribute, ast.Subscript, ast.Slice,
    ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Call, ast.keyword,
)  # fmt: skip
OPERATORS: Final = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.Not, ast.USub, ast.UAdd,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn,
)  # fmt: skip
ARGUMENTS: Final[dict[str, tuple[int, int | None]]] = {
    **dict.fromkeys(("len", "sum", "sorted", "str", "int", "float"), (1, 1)),
    "min": (1, None), "max": (1, None), "join": (1, 2), "default": (2, 2), "quote": (1, 1), "raw": (1, 1),
    **dict.fromkeys(("basename", "dirname", "stem"), (1, 1)), "relative": (2, 2), "replace": (3, 3),
    **dict.fromkeys(STATUS, (0, 0)),
}  # fmt: skip
"""The functions, with their fewest and most arguments; None is no limit."""

_UNKNOWN: Final[dict[type[ast.AST], str]] = {
    ast.LShift: "<<", ast.RShift: ">>", ast.BitXor: "^", ast.MatMult: "@",
    ast.Await: "await", ast.Yield: "yield", ast.YieldFrom: "yield",
}  # fmt: skip
_REFUSED: Final[dict[type[ast.AST], str]] = {
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
    **{kind: f"`{sign}` is not available in expressions" for kind, sign in _UNKNOWN.items()},
    ast.Invert: "`~` is not available; write `not`",
}
_FOREIGN: Final = {"&&": "`and`", "||": "`or`", "!": "`not`", "?": "`a if c else b`", "=": "=="}
_HYPHENATED: Final = r"\b((?:tasks|params|secrets)(?:\.\w+)*)\.([^\W\d]\w*(?:-\w+)+)"
_LINE_ENDS: Final = str.maketrans("\r\n", "  ")
_TOO_DEEP: Final = f"the expression is nested too deeply; at most {DEEPEST} levels are read"


# --- reading ---------------------------------------------------------------------------------------------------------


def read(code: Code) -> ast.expr:
    """The tree of an expression, all of it in the language. Raises ExpressionError for the first part that is not."""
    if len(code.text) > LONGEST:
        message = f"the expression has {len(code.text):,} characters; at most {LONGEST:,} are read"
        raise code.error(message, hint="Compute the value in a task.")
    tree = _parsed(code)
    rest: list[tuple[Node, int]] = [(tree, 1)]
    while rest:
        node, depth = rest.pop()
        if depth > DEEPEST:
            raise code.error(_TOO_DEEP)
        if message := _refusal(node, code):
            raise code.error(message, at=node, hint=_call_hint(node))
        rest += [(child, depth + 1) for child in reversed(list(_children(node)))]
    return tree


def _parsed(code: Code) -> ast.expr:
    try:
        with warnings.catch_warnings():  # `'\d'` and `1or 2` make Python warn whoever reads the job file
            warnings.simplefilter("ignore")
            return ast.parse(code.text.translate(_LINE_ENDS), mode="eval").body
    except SyntaxError as error:
        at = min(max((error.offset or 1) - 1, 0), len(code.text) - 1)
        message = f"{code.name} is not an expression: {error.msg}"
        raise ExpressionError(message, offset=code.offset + at, hint=_syntax_hint(code.text, at)) from None
    except (MemoryError, RecursionError):  # too deep for Python's own parser
        raise code.error(_TOO_DEEP) from None
    except ValueError:  # NUL, a lone surrogate
        raise code.error(f"{code.name} holds a character that no expression can hold") from None


def _syntax_hint(source: str, at: int) -> str:
    if match := re.search(_HYPHENATED, source):
        return _hyphen_hint(match)
    return next((f"Write {ours}." for sign, ours in _FOREIGN.items() if sign in source[max(0, at - 1) : at + 2]), "")


def _children(node: ast.AST) -> Iterator[Node]:
    """The parts of `node` that have values, in source order; the name of a function that is called has none."""
    called = node.func if isinstance(node, ast.Call) else None
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.expr, ast.keyword)) and child is not called:
            yield child


# --- refusing --------------------------------------------------------------------------------------------------------


def _refusal(node: Node, code: Code) -> str:
    """Why `node` is not in the language; nothing where it is."""
    if not isinstance(node, NODES):
        return _REFUSED.get(type(node), f"{named(code.part(node))} is not available in expressions")
    if isinstance(node, ast.Constant):
        fits = type(node.value) in PLAIN
        return size_refusal(node.value) if fits else "a value is a number, text, true, false, null or a list"
    if isinstance(node, ast.Call):
        return _call_refusal(node)
    for sign in ast.iter_child_nodes(node):
        if isinstance(sign, (ast.operator, ast.unaryop, ast.cmpop)) and not isinstance(sign, OPERATORS):
            return _about_filter(node, code) or _REFUSED[type(sign)]
    return ""


def _about_filter(node: Node, code: Code) -> str:
    """`params.names | sorted`, as template languages write it; nothing where no function's name stands on the right."""
    written: list[tuple[str, list[str]]] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        call = node.right if isinstance(node.right, ast.Call) else None
        name = call.func if call else node.right
        behind: list[Node] = [*call.args, *call.keywords] if call else []
        if not isinstance(name, ast.Name) or name.id in ROOTS or name.id in CONSTANTS:
            break
        written.append((name.id, [code.part(each) for each in behind]))
        node = node.left
    if unknown := [function for function, _ in written if function not in ARGUMENTS]:
        return f"there are no filters, and there is no function {unknown[-1]}(); the functions are " + ", ".join(ARGUMENTS)
    text = code.part(node)
    for function, rest in reversed(written):
        text = f"{function}({', '.join([text, *rest])})"
    return f"there are no filters; write {named(text)}" if written else ""


def _call_refusal(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute) and node.func.attr in {"split", "splitlines"}:
        return "an expression does not split text; let a command write a file, one item a line: foreach: {lines: FILE}"
    if not isinstance(node.func, ast.Name):
        return "a method cannot be called; the functions are " + ", ".join(ARGUMENTS)
    name = node.func.id
    if name not in ARGUMENTS:
        return f"there is no function {name}(); the functions are " + ", ".join(ARGUMENTS)
    words = [keyword.arg or "**" for keyword in node.keywords]
    if words and (name != "join" or set(words) != {"sep"}):
        return f"{name}() takes no such named argument: {', '.join(words)}"
    given, (least, most) = len(node.args) + len(words), ARGUMENTS[name]
    if given < least or (most is not None and given > most) or (words and not node.args):
        wanted = f"{least} or more" if most is None else str(least) if least == most else f"{least} or {most}"
        return f"{name}() takes {wanted} argument{'' if most == 1 else 's'}; it is given {given}"
    return ""


def _call_hint(node: Node) -> str:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id in ARGUMENTS:
        return ""
    return did_you_mean(node.func.id, ARGUMENTS)


# --- look-ups --------------------------------------------------------------------------------------------------------


def path_of(node: ast.AST) -> Path | None:
    """Root and keys, where `node` is a look-up with literal keys and no more."""
    keys: list[Key] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            keys.append(node.attr)
        elif isinstance(node, ast.Subscript) and (key := _literal_key(node.slice)) is not None:
            keys.append(key)
        else:
            return None
        node = node.value
    return None if node.id in CONSTANTS else (node.id, tuple(reversed(keys)))


def status_calls(tree: ast.expr, code: Code) -> Iterator[tuple[str, int, int]]:
    """The functions of a condition that `tree` calls, each with offset and length in the template."""
    rest: list[Node] = [tree]
    while rest:
        node = rest.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in STATUS:
            yield (node.func.id, *code.span(node))
        rest += reversed(list(_children(node)))


def _literal_key(node: ast.expr) -> Key | None:
    match node:
        case ast.Constant(value=str(key)):
            return key
        case ast.Constant(value=int(place)) if not isinstance(place, bool):
            return place
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(place))) if not isinstance(place, bool):
            return -place
    return None


def references(tree: ast.expr, code: Code) -> Iterator[Reference]:
    """The look-ups in `tree`, in source order, each with as many literal keys as it has."""
    hyphens = [match for match in re.finditer(_HYPHENATED, code.text) if _is_name(match)]
    rest: list[Node] = [tree]
    while rest:
        node = rest.pop()
        if path := path_of(node):
            offset, length = code.span(node)
            hint = next((_hyphen_hint(each) for each in hyphens if each.start() <= offset - code.offset < each.end()), "")
            yield Reference(root=path[0], path=path[1], offset=offset, length=length, hint=hint)
        else:
            rest += reversed(list(_children(node)))


def _is_name(match: re.Match[str]) -> bool:
    """Whether `tasks.list-files` can only be a name with a hyphen: `params.n-index` and `params.n-1` are subtractions."""
    return any(word not in ROOTS and not word[0].isdigit() for word in match[2].split("-")[1:])


def _hyphen_hint(match: re.Match[str]) -> str:
    return f"A name with a hyphen is written {match[1]}['{match[2]}']."
