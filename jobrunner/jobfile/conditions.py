"""Conditions that do not ask what their writer meant: they can never hold, or take a text for true or false.

A condition is played through in two worlds: all that the task needs has ended well, or something has not. In each a part has
the values that it can have there, where they are known; what is not known may be true and may be false. A condition that holds
in neither of them, though it might if nothing were known, never holds.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Final, TypeAlias

from jobrunner import spec
from jobrunner.expressions import STATUS, Expression
from jobrunner.expressions.code import Code, Key
from jobrunner.expressions.grammar import CONSTANTS, path_of
from jobrunner.jobfile import params
from jobrunner.jobfile.comparisons import FALSE, TRUE, Mistake, Sure, kinds_of
from jobrunner.jobfile.document import shortened
from jobrunner.structs import struct

FORGIVEN: Final = ("failed", "timed_out", "crashed")
"""What continue_on_error allows; the plan has the same."""

Values: TypeAlias = "Sequence[object] | None"
"""What a part may be; None where that is not known."""
_MOST_VALUES: Final = 100
_MOST_TASKS: Final = 100
"""In a larger job nobody looks whether all tasks are before or behind one."""
_EITHER: Final = frozenset({True, False})


def find(expression: Expression, name: str, sure: Sure) -> Iterator[Mistake]:
    """What is wrong with the condition of a task, apart from its names and its comparisons."""
    yield from _texts(expression, sure)
    if (mistake := _never(expression, name, sure)) is not None:
        yield mistake


def find_choices(expression: Expression, sure: Sure) -> Iterator[Mistake]:
    """Parameters such as `flag: no` that stand for true or false in `a if params.flag else b`, wherever that is written."""
    for node in ast.walk(expression.tree):
        if isinstance(node, ast.IfExp):
            for asked, is_negated in _asked(node.test, is_value=False):
                if (param := _param(asked, sure)) is not None and _word(param):
                    yield _about_text(asked, is_negated, expression.code, sure)


# --- text for true or false --------------------------------------------------------------------------------------------------


def _texts(expression: Expression, sure: Sure) -> Iterator[Mistake]:
    """Texts that stand where true or false is asked: `no` is as true as any other."""
    results = {id(node) for node, _ in _asked(expression.tree, is_value=True)}
    for asked, is_negated in _asked(expression.tree, is_value=False):
        kinds = kinds_of(asked, sure)
        is_result = id(asked) in results and isinstance(asked, (ast.Attribute, ast.Subscript, ast.Call))
        is_given = _param(asked, sure) is not None or (path_of(asked) or ("",))[0] == "env"
        if (kinds == {"text"} and (is_given or is_result)) or (kinds == {"text", "null"} and is_result):
            yield _about_text(asked, is_negated, expression.code, sure)


def _asked(node: ast.expr, *, is_value: bool, is_negated: bool = False) -> Iterator[tuple[ast.expr, bool]]:
    """The parts that decide, each with whether `not` stands before it; with `is_value` those alone that can be the value."""
    match node:
        case ast.BoolOp(op=op, values=parts):
            is_and = isinstance(op, ast.And)
            for part in parts[-1:] if is_value and is_and else parts:
                yield from _asked(part, is_value=is_value, is_negated=is_negated)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            if not is_value:
                yield from _asked(operand, is_value=False, is_negated=not is_negated)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            for part in (body, orelse) if is_value else (test, body, orelse):
                yield from _asked(part, is_value=is_value, is_negated=is_negated)
        case _:
            yield node, is_negated


def _param(node: ast.expr, sure: Sure) -> spec.Param | None:
    root, keys = path_of(node) or ("", ())
    return sure.param(keys[0]) if root == "params" and len(keys) == 1 else None


def _word(param: spec.Param) -> str:
    """The default of a text that reads like true or false."""
    text = param.default if isinstance(param.default, str) and params.type_of(param) == "str" else ""
    return text if text.casefold() in (TRUE | FALSE) - {"0", "1"} else ""


def _about_text(asked: ast.expr, is_negated: bool, code: Code, sure: Sure) -> Mistake:
    offset, length = code.span(asked)
    written, param = shortened(code.text[offset - code.offset :][:length]), _param(asked, sure)
    word, sign = _word(param) if param else "", "==" if is_negated else "!="
    message = f"{written} is text, which is neither true nor false"
    if word:
        name = (path_of(asked) or ("", ("",)))[1][0]
        said = "true" if word.casefold() in TRUE else "false"
        if word.casefold() != said:
            message = f"{written} is text: `{word}` is not {said} in YAML 1.2"
        unquoted = f"{said} without quotes" if word == said else said
        hint = f"Write {'default' if _is_spelled_out(name, sure) else name}: {unquoted}, or compare: {written} == {word!r}."
    elif "null" in kinds_of(asked, sure):
        hint = f"Compare it: {written} {sign} null."
    elif param is not None and param.choices:
        hint = f"Compare it: {written} == {shortened(str(param.choices[0]))!r}."
    elif path_of(asked) and written.startswith("env") and not written.startswith("env['"):
        hint = f"Compare it: {written} == 'true'."
    elif written.endswith(".outcome"):
        hint = f"Compare it: {written} {'!=' if is_negated else '=='} 'succeeded'."
    else:
        hint = f"Compare it: {written} {sign} ''."
    return Mistake(message=message, hint=hint, offset=offset, length=length)


def _is_spelled_out(name: Key, sure: Sure) -> bool:
    return isinstance(sure.job.params.get(str(name)), spec.Param)


# --- what never holds --------------------------------------------------------------------------------------------------------


@struct
class _World:
    """What is so when a condition is judged: which tasks have ended well, and what the functions of a condition say."""

    job: spec.Job
    name: str
    is_well: Callable[[str], bool]
    status: dict[str, bool]

    def values(self, node: ast.expr) -> Values:
        match node:
            case ast.Constant(value=value):
                return [value]
            case ast.Name(id=name) if name in CONSTANTS:
                return [CONSTANTS[name]]
            case ast.List(elts=elements):
                parts = [self.values(each) for each in elements]
                return [[part[0] for part in parts if part]] if all(part and len(part) == 1 for part in parts) else None
            case ast.Call(func=ast.Name(id=name)) if name in STATUS:
                return [self.status[name]] if name in self.status else None
            case ast.Call(func=ast.Name(id="len"), args=[ast.expr() as part]) if (found := self.values(part)) is not None:
                sized = [each for each in found if isinstance(each, (str, list))]
                return [len(each) for each in sized] if len(sized) == len(found) else None
        match path_of(node):
            case "tasks", (str(task), key) if task in self.job.tasks and self.is_well(task):
                return self._of_well(self.job.tasks[task], key)
            case "run", ("failed",) if self._is_first():
                return [[]]
        return None

    def _of_well(self, task: spec.Task, key: Key) -> Values:
        """What can be read of a task that has ended well."""
        may_be_skipped = task.condition is not None or self.name in self.job.finals
        match key:
            case "outcome":
                return ["succeeded", *["skipped"] * may_be_skipped, *(FORGIVEN if task.continue_on_error else ())]
            case "failures" if not task.continue_on_error:
                return [[]]
            case "exit_code" if not task.continue_on_error and task.target is None and not task.has_instances:
                return [0, *[None] * may_be_skipped]
        return None

    def _is_first(self) -> bool:
        """Whether no task can have failed: each comes later, or has ended well."""
        if self.name in self.job.finals or len(self.job.tasks) > _MOST_TASKS:
            return False
        later, known = {self.name}, -1
        while len(later) > known:
            known = len(later)
            later |= {name for name, task in self.job.tasks.items() if not later.isdisjoint(task.needs)}
        return all(name in later or name in self.job.finals or self.is_well(name) for name in self.job.tasks)

    def truths(self, node: ast.expr) -> frozenset[bool]:
        """Whether a part can be true, and whether it can be false."""
        match node:
            case ast.BoolOp(op=op, values=parts):
                decides = isinstance(op, ast.Or)  # one true part makes it true
                found = [self.truths(part) for part in parts]
                can_be = {decides} if any(decides in each for each in found) else set[bool]()
                return frozenset(can_be | ({not decides} if all((not decides) in each for each in found) else set()))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return frozenset(not each for each in self.truths(operand))
            case ast.IfExp(body=body, orelse=orelse):
                return self.truths(body) | self.truths(orelse)
            case ast.Compare(left=left, ops=[sign], comparators=[right]):
                return self._compared(left, sign, right)
        values = self.values(node)
        return _EITHER if values is None else frozenset(map(bool, values))

    def _compared(self, left: ast.expr, sign: ast.cmpop, right: ast.expr) -> frozenset[bool]:
        if isinstance(sign, (ast.In, ast.NotIn)) and path_of(right) == ("run", ("failed",)):
            names = self.values(left) or [None]
            if all(isinstance(name, str) and name in self.job.tasks and self.is_well(name) for name in names):
                return frozenset({isinstance(sign, ast.NotIn)})
        ones, others = self.values(left), self.values(right)
        if ones is None or others is None or len(ones) * len(others) > _MOST_VALUES or type(sign) not in _OPERATIONS:
            return _EITHER
        try:
            return frozenset(_OPERATIONS[type(sign)](one, other) for one, other in product(ones, others))
        except TypeError:
            return _EITHER


_OPERATIONS: Final[dict[type[ast.cmpop], Callable[[object, object], bool]]] = {
    ast.Eq: lambda one, other: one == other,
    ast.NotEq: lambda one, other: one != other,
    ast.Lt: lambda one, other: one < other,  # type: ignore[operator]  # TypeError is what the caller waits for, as below
    ast.LtE: lambda one, other: one <= other,  # type: ignore[operator]
    ast.Gt: lambda one, other: one > other,  # type: ignore[operator]
    ast.GtE: lambda one, other: one >= other,  # type: ignore[operator]
    ast.In: lambda one, other: one in other,  # type: ignore[operator]
    ast.NotIn: lambda one, other: one not in other,  # type: ignore[operator]
}


def _never(expression: Expression, name: str, sure: Sure) -> Mistake | None:
    """Why a condition never holds; None where it may."""
    anywhere = _World(job=sure.job, name=name, is_well=lambda _: False, status={})
    worlds = _worlds(expression, name, sure.job)
    if any(True in world.truths(expression.tree) for world in worlds) or True not in anywhere.truths(expression.tree):
        return None
    if not _is_sure(expression, name, sure):
        return None
    return _why(expression, name, sure.job, worlds[0])


def _worlds(expression: Expression, name: str, job: spec.Job) -> list[_World]:
    """The worlds in which the condition of a task is judged at all, that in which all has ended well first."""
    task, is_final = job.tasks[name], name in job.finals
    needed = frozenset(task.needs)

    def is_needed(other: str) -> bool:
        return other in needed

    def is_met(other: str) -> bool:
        return other in needed or (is_final and other not in job.finals)

    met = _World(job=job, name=name, is_well=is_met, status={"success": True, "failure": False, "always": True})
    if not is_final and not (needed and expression.status):
        return [met]
    is_known = is_needed if is_final else lambda _: False
    return [met, _World(job=job, name=name, is_well=is_known, status={"success": False, "failure": True, "always": True})]


def _is_sure(expression: Expression, name: str, sure: Sure) -> bool:
    """Whether nothing is open about the tasks that it speaks of."""
    unsure = sure.unsure
    named = {str(each.path[0]) for each in expression.references if each.root == "tasks" and each.path}
    is_about_all = any(each.root == "run" for each in expression.references)
    touched = unsure.hurt if is_about_all else unsure.hurt & {name, "", *named}
    return not touched and name not in unsure.needs and "tasks" not in unsure.tables


def _why(expression: Expression, name: str, job: spec.Job, met: _World) -> Mistake:
    is_final = name in job.finals
    for call, offset, length in expression.status:
        if call == "failure" and not is_final and not job.tasks[name].needs:
            message = f"{name!r} needs nothing that could fail, so failure() is never true"
            return Mistake(message=message, hint="Add needs, or move it to finally.", offset=offset, length=length)
    offset, length, task = _culprit(expression, met)
    if is_final or any(call != "always" for call, _, _ in expression.status):
        message = "this is never true, however the tasks end"
        is_success = any(call == "success" for call, _, _ in expression.status)
        hint = "Write always() or failure() in place of success()." if task and is_success else ""
        return Mistake(message=message, hint=hint, offset=offset, length=length)
    what = repr(task) if task else "a task that it needs"
    message = f"this is never true: where {what} has not ended well, {name!r} is skipped before it is asked"
    return Mistake(message=message, hint=f"Write {_always(expression)}, or failure().", offset=offset, length=length)


def _culprit(expression: Expression, met: _World) -> tuple[int, int, str]:
    """Offset and length of the first look-up that cannot be what is asked, and the task that it looks at."""
    for node in ast.walk(expression.tree):
        if isinstance(node, ast.expr) and (path := path_of(node)) is not None:
            if path[0] == "tasks" and met.values(node) is not None:
                return (*expression.code.span(node), str(path[1][0]))
            if path == ("run", ("failed",)):
                return (*expression.code.span(node), "")
    return expression.offset, len(expression.source), ""


def _always(expression: Expression) -> str:
    source = shortened(expression.source, 100)
    needs_brackets = isinstance(expression.tree, ast.IfExp) or (
        isinstance(expression.tree, ast.BoolOp) and isinstance(expression.tree.op, ast.Or)
    )
    return f"always() and ({source})" if needs_brackets else f"always() and {source}"
