"""Names of `typing` that mean something to type checkers only: to load it takes longer than the journal of a short run.

At run time each is what lets a module be read: a form that can be called and subscripted, a base that may be. What needs the real
ones then (`get_args`, models of pydantic) imports `typing`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any as Any
    from typing import BinaryIO as BinaryIO
    from typing import ClassVar as ClassVar
    from typing import Final as Final
    from typing import Generic as Generic
    from typing import Literal as Literal
    from typing import NoReturn as NoReturn
    from typing import Protocol as Protocol
    from typing import TypeAlias as TypeAlias
    from typing import TypeVar as TypeVar
    from typing import cast as cast
    from typing import dataclass_transform as dataclass_transform
    from typing import overload as overload
else:

    class _Form:
        """Stands for each form, variable and alias of types."""

        def __call__(self, *_, **__):
            return self

        __getitem__ = __or__ = __ror__ = __call__

    class Generic:
        """A base that takes types."""

        __slots__ = ()

        def __class_getitem__(cls, _):
            return cls

    Protocol = Generic
    Any = BinaryIO = ClassVar = Final = Literal = NoReturn = TypeAlias = TypeVar = _Form()

    def cast(_, value):
        """The value."""
        return value

    def overload(function):
        """One of several signatures: the last one is the function."""
        return function

    def dataclass_transform(**_):
        """What marks a decorator."""
        return lambda function: function
