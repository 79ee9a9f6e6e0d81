"""Structs: what travels. Like frozen, slotted dataclasses, but nothing is compiled until the first one of a kind is made.

A dataclass compiles half a dozen functions when its module is imported, half a millisecond each, and `dataclasses` itself imports
`inspect`: a run that starts one command paid 50 ms for 120 kinds of which it makes twenty. And the constructor of a frozen one
takes nearly twice as long as this one, that of one which is not frozen a third. Type checkers see dataclasses (PEP 681).
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from jobrunner.typed import Any, TypeVar, dataclass_transform, overload

T = TypeVar("T")

_FEW = 4
"""Structs of a kind after which a constructor for it pays: to compile one takes as long as forty without."""

REQUIRED = object()
"""What stands for the default of a field that has none."""


class _Field:
    """What stands in place of a default: how one is made for each struct, if there is one, and what does not count."""

    __slots__ = ("compare", "make", "repr")

    def __init__(self, make: Callable[[], Any] | None, compare: bool, repr: bool) -> None:  # noqa: A002  # as dataclasses has it
        self.make, self.compare, self.repr = make, compare, repr


@overload
def field(*, default_factory: Callable[[], T]) -> T: ...
@overload
def field(*, compare: bool, repr: bool) -> Any: ...  # as dataclasses has it
def field(
    *,
    default_factory: Callable[[], Any] | None = None,
    compare: bool = True,
    repr: bool = True,  # noqa: A002  # as dataclasses has it
) -> Any:
    """As `dataclasses.field`: a default that is made for each struct, or a field that is no part of its value or its text."""
    return _Field(default_factory, compare, repr)


@overload
def struct(cls: type[T], /) -> type[T]: ...
@overload
def struct(*, kw_only: bool = True, frozen: bool = True, eq: bool = True) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def struct(
    cls: type[T] | None = None,
    /,
    *,
    kw_only: bool = True,
    frozen: bool = True,
    eq: bool = True,
) -> type[T] | Callable[[type[T]], type[T]]:
    """A class of the annotated fields, with slots, a constructor, and a text form; equal by value unless `eq` is False.

    `dataclasses.fields`, `replace` and `asdict` take it for a dataclass. A struct does not inherit from another one.
    """
    return _made(cls, kw_only, frozen, eq) if cls is not None else lambda cls: _made(cls, kw_only, frozen, eq)


def _made(cls: type[T], kw_only: bool, frozen: bool, eq: bool) -> type[T]:
    """The class made again: slots cannot be added to one that is there."""
    space = dict(cls.__dict__)
    names = tuple(name for name, kind in space.get("__annotations__", {}).items() if not kind.startswith("ClassVar"))
    defaults = {name: space.pop(name) for name in names if name in space}
    space.pop("__dict__", None)
    space.pop("__weakref__", None)
    space |= {"__slots__": names, "__match_args__": () if kw_only else names}
    space["__struct__"] = space["__dataclass_fields__"] = _Fields(names, defaults, kw_only)
    space.setdefault("__repr__", _repr([name for name in names if _counts(defaults.get(name), "repr")]))
    if frozen:
        space |= {"__setattr__": _refuse, "__delattr__": _refuse, "__setstate__": _restore}
    if eq:
        values = _reader([name for name in names if _counts(defaults.get(name), "compare")])
        space |= {"__eq__": _equal(values), "__hash__": lambda self: hash(values(self))}

    left = _FEW

    def first(self: Any, *args: Any, **given: Any) -> None:
        nonlocal left
        left -= 1
        if left and not args and _fill(self, names, defaults, given):
            return
        made.__init__ = _constructor(made, names, defaults, kw_only, frozen)
        made.__init__(self, *args, **given)

    made: Any = type(cls)(cls.__name__, cls.__bases__, {**space, "__init__": first})  # type: ignore[misc]  # its metaclass
    return made  # type: ignore[no-any-return]


def defaults(kind: type) -> dict[str, object]:
    """The fields of a struct in their order, and the default of each; `REQUIRED` where there is none."""
    fields: _Fields = kind.__dict__["__struct__"]
    return {name: fields.defaults.get(name, REQUIRED) for name in fields.names}


def replace(one: T, /, **changes: Any) -> T:
    """Another struct of that kind, with some fields changed."""
    return type(one)(**{**values(one), **changes})


def values(one: object) -> dict[str, Any]:
    """The fields of a struct with what they hold."""
    return {name: getattr(one, name) for name in defaults(type(one))}


def _counts(default: object, what: str) -> bool:
    return not isinstance(default, _Field) or bool(getattr(default, what))


def _reader(names: list[str]) -> Callable[[Any], Any]:
    return attrgetter(*names) if names else lambda _: ()


def _constructor(cls: type, names: tuple[str, ...], defaults: dict[str, Any], kw_only: bool, frozen: bool) -> Callable[..., None]:
    """Where the struct is frozen each value is put into its slot by what makes the slot: past what refuses to."""
    given = {name: default for name, default in defaults.items() if not isinstance(default, _Field) or default.make}
    parameters = [f"{name}=_{name}" if name in given else name for name in names]
    form = "set_{0}(self, {1})" if frozen else "self.{0} = {1}"
    lines = [form.format(name, _value_of(name, given)) for name in names]
    star = ["*"] if kw_only and names else []
    source = f"def __init__({', '.join(['self', *star, *parameters])}):\n  " + "\n  ".join(lines or ["pass"])
    space: dict[str, Any] = {f"_{name}": default for name, default in given.items()}
    space |= {f"set_{name}": cls.__dict__[name].__set__ for name in names}
    exec(source, space)
    constructor: Callable[..., None] = space["__init__"]
    return constructor


def _fill(self: object, names: tuple[str, ...], defaults: dict[str, Any], given: dict[str, Any]) -> bool:
    """Give a struct its values without a constructor; False where they are not what it takes, which a constructor tells best."""
    values = [given.get(name, defaults.get(name, REQUIRED)) for name in names]
    values = [(value.make() if value.make else REQUIRED) if isinstance(value, _Field) else value for value in values]
    if any(value is REQUIRED for value in values) or not given.keys() <= set(names):
        return False
    for name, value in zip(names, values, strict=True):
        object.__setattr__(self, name, value)
    return True


def _value_of(name: str, given: dict[str, Any]) -> str:
    return f"_{name}.make() if {name} is _{name} else {name}" if isinstance(given.get(name), _Field) else name


def _refuse(self: Any, name: str, *_: Any) -> None:
    from dataclasses import FrozenInstanceError  # what callers of the API may expect: an AttributeError

    raise FrozenInstanceError(f"{name} of a {type(self).__name__} does not change", name=name, obj=self)


def _restore(self: Any, state: tuple[None, dict[str, Any]]) -> None:
    """As `copy` and `pickle` want it."""
    for name, value in state[1].items():
        object.__setattr__(self, name, value)


def _repr(names: list[str]) -> Callable[[Any], str]:
    def text(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return text


def _equal(values: Callable[[Any], Any]) -> Callable[[Any, object], bool]:
    def equal(self: Any, other: object) -> bool:
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    return equal


class _Fields:
    """What `dataclasses` asks a class for: made when it does so first, and then in the place of this."""

    def __init__(self, names: tuple[str, ...], defaults: dict[str, Any], kw_only: bool) -> None:
        self.names, self.defaults, self._kw_only = names, defaults, kw_only

    def __get__(self, _: object, owner: type) -> dict[str, Any]:
        from dataclasses import MISSING, make_dataclass
        from dataclasses import field as plain

        def of(default: object) -> Any:
            if not isinstance(default, _Field):
                return plain(default=default)
            return plain(default_factory=default.make or MISSING, compare=default.compare, repr=default.repr)

        kinds = owner.__annotations__
        rows = [(name, kinds[name], *([of(self.defaults[name])] if name in self.defaults else [])) for name in self.names]
        found: dict[str, Any] = vars(make_dataclass(owner.__name__, rows, kw_only=self._kw_only))["__dataclass_fields__"]
        type.__setattr__(owner, "__dataclass_fields__", found)
        return found
