"""Generic classes without importing `typing` at run time.

`import typing` costs several milliseconds, a good part of what `import gort` may take. Type
checkers read the real `typing.Generic`; at run time `Generic[T]` is a base class whose subclasses
only answer to subscription, as `list` does.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Generic, TypeVar, overload

    T = TypeVar("T")
else:

    class _Subscriptable:
        __slots__ = ()
        __class_getitem__ = classmethod(type(list[int]))

    class Generic:
        """Stands in for typing.Generic."""

        def __class_getitem__(cls, _item: object) -> type:
            """Give the base class that Generic[T] stands for."""
            return _Subscriptable

    T = None

    def overload(_function: object) -> None:
        """Stand in for typing.overload."""


__all__ = ["TYPE_CHECKING", "Generic", "T", "overload"]
