"""Comparisons that come out alike whatever happens, because one side is never what the other says; each with what to write.

node ─kinds_of→ {text, null} …  ┐
     ─values_of→ outcomes, choices ┴─ find ─→ Mistake: message, hint, and its place in the text of the expression
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final, TypeAlias

from jobrunner import spec
from jobrunner.expressions import Expression
from jobrunner.expressions.code import Code, Key
from jobrunner.expressions.grammar import CONSTANTS, path_of
from jobrunner.hints import did_you_mean
from jobrunner.jobfile import params
from jobrunner.jobfile.document import shortened
from jobrunner.jobfile.salvage import Unsure
from jobrunner.structs import struct
from jobrunner.work import Outcome

Kinds: TypeAlias = frozenset[str]
"""What a value may be: text, number, bool, null, list, map. No kinds: it is not known."""

UNKNOWN: Final[Kinds] = frozenset()
OUTCOMES: Final = tuple(str(outcome) for outcome in Outcome)

_TEXT, _NUMBER, _LIST = frozenset({"text"}), frozenset({"number"}), frozenset({"list"})
_OF_TYPE: Final[dict[str, Kinds]] = {
    **dict.fromkeys(("str", "path", "date"), _TEXT),
    **dict.fromkeys(("int", "float"), _NUMBER),
    "bool": frozenset({"bool"}),
    "list": _LIST,
}
_OF_CALL: Final[dict[str, Kinds]] = {
    **dict.fromkeys(("len", "int", "float"), _NUMBER),
    **dict.fromkeys(("str", "join", "quote", "basename", "dirname", "stem", "relative", "replace"), _TEXT),
    "sorted": _LIST,
}
_OF_RUN: Final[dict[Key, Kinds]] = {
    **dict.fromkeys(("id", "dir", "started_at"), _TEXT),
    "attempt": _NUMBER,
    "failed": _LIST,
}
_OF_TASK: Final[dict[Key, Kinds]] = {
    **dict.fromkeys(("outcome", "stdout"), _TEXT),
    "exit_code": frozenset({"number", "null"}),
    **dict.fromkeys(("results", "failures"), _LIST),
    "outputs": frozenset({"map"}),
}
_SAID: Final = {"text": "text", "number": "a number", "bool": "true or false", "list": "a list", "map": "a map"}
_ENDS: Final = {
    **dict.fromkeys(("failure", "fail", "error", "errored", "ko"), "failed"),
    **dict.fromkeys(("success", "ok", "succeed", "passed", "completed", "complete", "done", "finished"), "succeeded"),
    **dict.fromkeys(("skip", "ignored"), "skipped"),
    **dict.fromkeys(("timeout", "timedout", "timed out"), "timed_out"),
    **dict.fromkeys(("crash", "killed", "died"), "crashed"),
    **dict.fromkeys(("cancel", "canceled", "aborted"), "cancelled"),
}
"""What an outcome is called elsewhere, and here."""
TRUE: Final = frozenset({"true", "yes", "on", "1"})
FALSE: Final = frozenset({"false", "no", "off", "0"})


@struct
class Mistake:
    """Something wrong in an expression. `offset` and `length` are characters of the text that it stands in."""

    message: str
    hint: str
    offset: int
    length: int


@struct
class Sure:
    """What can be relied on: the job, defaults merged, and what is open about it."""

    job: spec.Job
    unsure: Unsure

    def param(self, name: Key) -> spec.Param | None:
        """The declaration of a parameter; None where there is none that is whole."""
        if "params" in self.unsure.tables or ("params", name) in {cut[:2] for cut in self.unsure.cuts}:
            return None
        return params.declared(self.job.params[str(name)]) if name in self.job.params else None


def find(expression: Expression, sure: Sure) -> Iterator[Mistake]:
    """The comparisons of an expression that are never true, or never false, or that cannot be made. Takes microseconds."""
    for node in ast.walk(expression.tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            for left, sign, right in zip(sides, node.ops, sides[1:], strict=False):
                yield from _Pair(code=expression.code, left=left, sign=sign, right=right, sure=sure).mistakes()


# --- what a part of an expression can be ---------------------------------------------------------------------------------------


def kinds_of(node: ast.expr, sure: Sure) -> Kinds:
    """What the value of a part may be, where that is known for certain."""
    match node:
        case ast.Constant(value=value):
            return _kind(value)
        case ast.Name(id=name) if name in CONSTANTS:
            return _kind(CONSTANTS[name])
        case ast.List():
            return _LIST
        case ast.Call(func=ast.Name(id="default"), args=[wanted, fallback]):
            wanted_kinds, others = kinds_of(wanted, sure), kinds_of(fallback, sure)
            return (wanted_kinds - {"null"}) | others if wanted_kinds and others else UNKNOWN
        case ast.Call(func=ast.Name(id=name)):
            return _OF_CALL.get(name, UNKNOWN)
    return UNKNOWN if (path := path_of(node)) is None else _kinds_of_path(path[0], path[1], sure)


def _kind(value: object) -> Kinds:
    if value is None or isinstance(value, bool):
        return frozenset({"null" if value is None else "bool"})
    return _TEXT if isinstance(value, str) else _NUMBER


def _kinds_of_path(root: str, keys: tuple[Key, ...], sure: Sure) -> Kinds:
    match root, keys:
        case "params", (name,):
            return UNKNOWN if (param := sure.param(name)) is None else _kinds_of_param(param)
        case "env", (_,):
            return _TEXT
        case "index", ():
            return _NUMBER
        case "run", (key,):
            return _OF_RUN.get(key, UNKNOWN)
        case "tasks", (name, key) if name in sure.job.tasks and (key == "outcome" or name not in sure.unsure.kinds):
            return _OF_TASK.get(key, UNKNOWN)
        case "tasks", (name, "outputs", _) if name in sure.job.tasks:
            return _TEXT
    return UNKNOWN


def _kinds_of_param(param: spec.Param) -> Kinds:
    kind = params.type_of(param)
    if kind == "choice":
        kinds = frozenset[str]().union(*map(_kind, param.choices or ()))
    else:
        kinds = _OF_TYPE[kind]
    return kinds | {"null"} if kinds and param.default is None and not param.required else kinds


def values_of(node: ast.expr, sure: Sure) -> Sequence[object]:
    """All texts that a part may be, where they are known: outcomes, and the choices of a parameter."""
    root, keys = path_of(node) or ("", ())
    if root == "tasks" and _is_outcome(keys, sure):
        return OUTCOMES
    if root != "params" or len(keys) != 1 or (param := sure.param(keys[0])) is None or not param.choices:
        return ()
    is_plain = params.type_of(param) in {"str", "choice"} and all(isinstance(choice, str) for choice in param.choices)
    return param.choices if is_plain else ()


def _is_outcome(keys: tuple[Key, ...], sure: Sure) -> bool:
    """Whether it is how a task has ended, or one of its instances: results of a target may have an `outcome` of their own."""
    match keys:
        case (_, "outcome") | (_, "failures", int(), "outcome"):
            return True
        case (name, "results", int(), "outcome") if name in sure.job.tasks and name not in sure.unsure.kinds:
            return sure.job.tasks[str(name)].target is None
    return False


# --- two sides that never meet -------------------------------------------------------------------------------------------------


@struct
class _Pair:
    """One comparison of an expression."""

    code: Code
    left: ast.expr
    sign: ast.cmpop
    right: ast.expr
    sure: Sure

    def mistakes(self) -> Iterator[Mistake]:
        match self.sign:
            case ast.Eq() | ast.NotEq():
                yield from self._of_equality()
            case ast.In() | ast.NotIn() if isinstance(self.right, ast.List):
                for each in self.right.elts:
                    yield from self._of_element(each)
            case ast.In() | ast.NotIn():
                yield from self._of_failed()
            case _:
                yield from self._of_order()

    def _of_equality(self) -> Iterator[Mistake]:
        left, right = kinds_of(self.left, self.sure), kinds_of(self.right, self.sure)
        if left and right and not _meet(left, right):
            yield self._mistake(f"{self._kinds()}: this is {self._always}", self._cure())
            return
        for one, other in ((self.left, self.right), (self.right, self.left)):
            yield from self._of_value(one, other)

    def _of_element(self, each: ast.expr) -> Iterator[Mistake]:
        """One element of a list that something is looked for in."""
        kinds, own = kinds_of(self.left, self.sure), kinds_of(each, self.sure)
        if kinds and own and not _meet(kinds, own):
            message = f"{self._part(self.left)} is {_said(kinds)}, {self._part(each)} is {_said(own)}: they are never equal"
            yield self._mistake(message, _as_kind(each, kinds), at=each)
        else:
            yield from self._of_value(self.left, each)

    def _of_value(self, asked: ast.expr, other: ast.expr) -> Iterator[Mistake]:
        """A constant that is none of the values which `asked` can have."""
        values = values_of(asked, self.sure)
        if not values or not isinstance(other, ast.Constant) or not isinstance(other.value, str) or other.value in values:
            return
        if values is OUTCOMES:
            meant = _ENDS.get(other.value.casefold())
            hint = f"Did you mean {meant!r}?" if meant else did_you_mean(other.value, OUTCOMES)
            hint = hint or f"Outcomes are {', '.join(OUTCOMES)}."
            yield self._mistake(f"{shortened(other.value)!r} is no outcome: this is {self._always}", hint, at=other)
            return
        choices = [shortened(str(value)) for value in values]
        there = f"There {'is' if len(choices) == 1 else 'are'} {', '.join(choices[:8])}."
        hint = did_you_mean(other.value, choices) or there
        message = f"{shortened(other.value)!r} is not among the choices of {self._part(asked)}: this is {self._always}"
        yield self._mistake(message, hint, at=other)

    def _of_failed(self) -> Iterator[Mistake]:
        """`'fetch' in run.failed`, where there is no such task."""
        tasks = self.sure.job.tasks
        if path_of(self.right) != ("run", ("failed",)) or "tasks" in self.sure.unsure.tables:
            return
        if isinstance(self.left, ast.Constant) and isinstance(name := self.left.value, str) and name not in tasks:
            message = f"no task is called {shortened(name)!r}: this is {self._always}"
            yield self._mistake(message, did_you_mean(name, tasks), at=self.left)

    def _of_order(self) -> Iterator[Mistake]:
        """`<` and its like, which fail where two kinds have no order."""
        left, right = (kinds_of(side, self.sure) - {"null"} for side in (self.left, self.right))
        if left and right and not _meet(left, right):
            yield self._mistake(f"{self._kinds()}: there is no order between them", self._cure())

    @property
    def _always(self) -> str:
        return "always true" if isinstance(self.sign, (ast.NotEq, ast.NotIn)) else "never true"

    def _kinds(self) -> str:
        sides = (self.left, self.right)
        return ", ".join(f"{self._part(side)} is {_said(kinds_of(side, self.sure))}" for side in sides)

    def _part(self, node: ast.expr) -> str:
        offset, length = self.code.span(node)
        return shortened(self.code.text[offset - self.code.offset :][:length])

    def _mistake(self, message: str, hint: str, *, at: ast.expr | None = None) -> Mistake:
        offset, length = self.code.span(at or self.left)
        if at is None:
            last, behind = self.code.span(self.right)
            length = last + behind - offset
        return Mistake(message=message, hint=hint, offset=offset, length=length)

    def _cure(self) -> str:
        """What was probably meant; nothing where that cannot be told."""
        for asked, other in ((self.left, self.right), (self.right, self.left)):
            if path_of(asked) and (written := self._instead(asked, other)):
                return f"Write {written}."
        return ""

    def _instead(self, asked: ast.expr, other: ast.expr) -> str:
        """The comparison of a look-up with something else, mended; "asked" is written first."""
        kinds, name = kinds_of(asked, self.sure), self._part(asked)
        sign = _SIGNS[type(self.sign)] if asked is self.left else _TURNED[_SIGNS[type(self.sign)]]
        constant = other.value if isinstance(other, ast.Constant) else None
        if isinstance(other, ast.Name) and other.id in CONSTANTS:
            constant = CONSTANTS[other.id]
        if constant is None:
            is_text = "text" in kinds_of(other, self.sure) and "number" in kinds
            return f"{name} {sign} int({self._part(other)})" if is_text else ""
        if "bool" in kinds:
            return _as_truth(name, sign, constant)
        if "list" in kinds or "map" in kinds:
            return _as_list(name, sign, constant, is_map="map" in kinds)
        if "text" in kinds and isinstance(constant, (int, float)) and not isinstance(constant, bool) and _is_printed(asked):
            return f"int({name}) {sign} {self._part(other)}"
        text = _as_kind(other, kinds).removeprefix("Write ").removesuffix(".")
        return f"{name} {sign} {text}" if text else ""


_SIGNS: Final[dict[type[ast.cmpop], str]] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_TURNED: Final = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _meet(left: Kinds, right: Kinds) -> bool:
    """Whether there may be two equal values: true is the number 1."""
    return not _as_numbers(left).isdisjoint(_as_numbers(right))


def _as_numbers(kinds: Kinds) -> Kinds:
    return kinds - {"bool"} | {"number"} if "bool" in kinds else kinds


def _said(kinds: Collection[str]) -> str:
    return " or ".join(_SAID[kind] for kind in _SAID if kind in kinds) or "null"


def _is_printed(asked: ast.expr) -> bool:
    """Text that a command or the environment has given, and which may be a number."""
    root, _ = path_of(asked) or ("", ())
    return root in {"tasks", "env"}


def _as_kind(constant: ast.expr, kinds: Kinds) -> str:
    """A constant as the kind that it is compared with."""
    match constant:
        case ast.Constant(value=str(text)) if "number" in kinds and re.fullmatch(r"-?(0|[1-9]\d{0,15})(\.\d+)?", text, re.ASCII):
            return f"Write {text}."
        case ast.Constant(value=str(text)) if "bool" in kinds and text.casefold() in TRUE | FALSE:
            return f"Write {'true' if text.casefold() in TRUE else 'false'}."
        case ast.Constant(value=int() | float() as number) if "text" in kinds and not isinstance(number, bool):
            return f"Write '{number}'."
        case ast.Name(id="true" | "false" as word) if "text" in kinds:
            return f"Write '{word}'."
    return ""


def _as_truth(name: str, sign: str, constant: object) -> str:
    """`params.ok == 'true'` is params.ok."""
    word = str(constant).casefold()
    if sign not in {"==", "!="} or word not in TRUE | FALSE:
        return ""
    return name if (word in TRUE) == (sign == "==") else f"not {name}"


def _as_list(name: str, sign: str, constant: object, *, is_map: bool) -> str:
    """A list holds a text and has a length; it equals neither."""
    if isinstance(constant, bool):
        return f"len({name}) {'>' if constant == (sign == '==') else '=='} 0" if sign in {"==", "!="} else ""
    if isinstance(constant, (int, float)):
        return f"len({name}) {sign} {constant}"
    if is_map or sign not in {"==", "!="}:
        return ""
    return f"{shortened(str(constant))!r} {'in' if sign == '==' else 'not in'} {name}" if constant else f"len({name}) {sign} 0"
