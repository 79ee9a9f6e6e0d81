"""A call of a job file compared with the signature and the annotations of what it calls. Standard library only."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from jobrunner.hints import did_you_mean
from jobrunner.structs import field, struct

_LONGEST_SIGNATURE = 100

Where = tuple[str | int, ...]


@struct
class Argument:
    """An argument as the job file gives it: its `kind` is a key of KINDS, "" where it is known only at run time."""

    kind: str = ""
    shown: str = ""


@struct
class Use:
    """A callable that the job file names, under the `key` of it, and what it is called with."""

    id: int
    key: str
    target: str
    args: list[Argument] = field(default_factory=list)
    kwargs: dict[str, Argument] = field(default_factory=dict)


@struct
class Remark:
    """Something to say about a use, at `where` below it."""

    use: int
    where: Where
    message: str
    hint: str = ""
    at_key: bool = False
    is_warning: bool = False


def misfits(found: Callable[..., Any], use: Use) -> Iterator[Remark]:
    """What is wrong with a call of `found`; as warnings what may be right: an odd type, or what a decorator fills in."""
    called, declared = _signature(found, follow_wrapped=False), _signature(found, follow_wrapped=True)
    if called is None or declared is None:
        return
    if mismatches := list(matched(called, use)):
        yield from mismatches
    elif mismatches := list(matched(declared, use)):
        for each in mismatches:
            yield replace(each, message=f"{each.message} (unless its decorator sees to it)", is_warning=True)
    else:
        yield from _ill_typed(found, declared, use)


def _signature(found: Callable[..., Any], *, follow_wrapped: bool) -> inspect.Signature | None:
    """None for what has none, like some functions written in C."""
    try:
        return inspect.signature(found, follow_wrapped=follow_wrapped)
    except Exception:  # ValueError and TypeError, and what a __signature__ of its own raises
        return None


# --- arguments ---------------------------------------------------------------------------------------------------------------

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def matched(signature: inspect.Signature, use: Use) -> Iterator[Remark]:
    """What Python would refuse about the call: nothing exactly where `signature.bind` would accept it."""
    parameters = list(signature.parameters.values())
    positional = [each for each in parameters if each.kind in _BY_POSITION]
    if len(use.args) > len(positional) and not _has(parameters, inspect.Parameter.VAR_POSITIONAL):
        yield _too_many(len(positional), signature, use)
    yield from _unfit_names(parameters, positional, signature, use)
    named = [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    for each in (*positional[len(use.args) :], *named):
        is_named = each.name in use.kwargs and each.kind in _BY_NAME
        if each.default is inspect.Parameter.empty and not is_named:
            message = f"the argument {each.name!r} is missing"
            yield Remark(use=use.id, where=(use.key,), message=message, hint=_spelled(signature, use))


def _has(parameters: list[inspect.Parameter], kind: object) -> bool:
    return any(each.kind is kind for each in parameters)


def _too_many(most: int, signature: inspect.Signature, use: Use) -> Remark:
    count = {0: "no positional arguments", 1: "only one positional argument"}.get(most, f"at most {most} positional arguments")
    message = f"it takes {count}, and gets {len(use.args)}"
    return Remark(use=use.id, where=("args", most), message=message, hint=_spelled(signature, use))


def _unfit_names(
    parameters: list[inspect.Parameter], positional: list[inspect.Parameter], signature: inspect.Signature, use: Use
) -> Iterator[Remark]:
    names = [each.name for each in parameters if each.kind in _BY_NAME]
    taken = {each.name: place for place, each in enumerate(positional[: len(use.args)])}
    takes_any = _has(parameters, inspect.Parameter.VAR_KEYWORD)
    for name in use.kwargs:
        if name in names and name in taken:
            yield _at_name(use, name, f"{name!r} is given twice: args[{taken[name]}] is {name!r} too", "Leave one of them out.")
        elif name in names or takes_any:
            continue
        elif name in signature.parameters and signature.parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY:
            yield _at_name(use, name, f"{name!r} cannot be given by name", "Write it under args.")
        else:
            yield _at_name(use, name, f"it has no parameter {name!r}", did_you_mean(name, names) or _spelled(signature, use))


def _at_name(use: Use, name: str, message: str, hint: str) -> Remark:
    return Remark(use=use.id, where=("kwargs", name), at_key=True, message=message, hint=hint)


def _spelled(signature: inspect.Signature, use: Use) -> str:
    """`It is list_files(root, out='.').`"""
    parameters = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    try:
        text = f"{use.target.rpartition(':')[2]}{inspect.Signature(parameters)}"
    except Exception:  # the repr of a default may raise anything
        return ""
    return f"It is {text if len(text) <= _LONGEST_SIGNATURE else text[: _LONGEST_SIGNATURE - 1] + '…'}."


# --- annotations -------------------------------------------------------------------------------------------------------------

KINDS = {
    "null": "null",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "list": "a list",
    "dict": "a map",
}
"""The kinds of a JSON value, as people call them."""

_FITTING: dict[object, frozenset[str]] = {
    int: frozenset({"int", "bool"}),
    float: frozenset({"int", "float", "bool"}),
    str: frozenset({"str"}),
    bool: frozenset({"bool", "int"}),  # `verbose: 1` works
    list: frozenset({"list"}),
    dict: frozenset({"dict"}),
    type(None): frozenset({"null"}),
}


def _ill_typed(found: Callable[..., Any], signature: inspect.Signature, use: Use) -> Iterator[Remark]:
    """A constant that the annotation of its parameter rules out: it works only if the annotation is wrong."""
    types_of = _annotations(found)
    for name, where, argument in _bound(signature, use):
        fits = _kinds_that_fit(types_of.get(name))
        if not argument.kind or fits is None or argument.kind in fits:
            continue
        if argument.kind == "null" and signature.parameters[name].default is None:
            continue
        message = f"{name!r} is annotated as {_called(types_of[name])}; this is {KINDS[argument.kind]} ({argument.shown})"
        yield Remark(use=use.id, where=where, message=message, is_warning=True)


def _bound(signature: inspect.Signature, use: Use) -> Iterator[tuple[str, Where, Argument]]:
    """Each argument with the name of its parameter and its place; what *args and **kwargs take is left out."""
    names = [each.name for each in signature.parameters.values() if each.kind in _BY_POSITION]
    for place, (name, argument) in enumerate(zip(names, use.args, strict=False)):
        yield name, ("args", place), argument
    for name, argument in use.kwargs.items():
        if name in signature.parameters and signature.parameters[name].kind in _BY_NAME:
            yield name, ("kwargs", name), argument


def _annotations(found: Callable[..., Any]) -> Mapping[str, Any]:
    """By parameter; empty where they cannot be told (names of a TYPE_CHECKING block)."""
    function = inspect.unwrap(found)
    try:
        return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except Exception:  # an annotation may be any expression
        return {}


def _kinds_that_fit(annotation: Any) -> frozenset[str] | None:
    """The kinds of JSON values that an annotation takes, None where that cannot be said."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        options = [_kinds_that_fit(each) for each in typing.get_args(annotation)]
        known = [each for each in options if each is not None]
        return frozenset().union(*known) if len(known) == len(options) else None
    plain = origin or annotation
    return _FITTING.get(plain) if isinstance(plain, type) else None


def _called(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not typing.get_origin(annotation) else str(annotation)
