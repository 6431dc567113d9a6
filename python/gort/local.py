"""Values of which each goroutine has its own.

`threading.local` belongs to the goroutine as well: this is the same for one value, with a type. A
value that goroutines are to take over from who starts them belongs into a contextvars.ContextVar.
"""

from __future__ import annotations

from _thread import _local

from gort._typing import TYPE_CHECKING, Generic, T

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Local"]


class Local(Generic[T]):
    """One value for each goroutine, and each plain thread; gone with it.

    Args:
        make: called without arguments the first time a goroutine asks before it has set one.

    Example:
        >>> import gort
        >>> buffer = gort.Local(list)
        >>> buffer.get().append(1)
        >>> gort.go(buffer.get).join(), buffer.get()
        ([], [1])
    """

    __slots__ = ("__weakref__", "_local", "_make")

    def __init__(self, make: Callable[[], T] | None = None) -> None:
        """Make one that nobody has a value in."""
        if make is not None and not callable(make):
            raise TypeError(f"Local() needs a callable, not {type(make).__name__}")
        self._local = _local()
        self._make = make

    def get(self) -> T:
        """Give the caller's value.

        Raises:
            LookupError: it has none, and nothing makes one.
        """
        try:
            value: T = self._local.value
        except AttributeError:
            if self._make is None:
                raise LookupError("this goroutine has no value in the Local") from None
            value = self._local.value = self._make()
        return value

    def set(self, value: T) -> None:
        """Make it the caller's value."""
        self._local.value = value

    def clear(self) -> None:
        """Let the caller have no value."""
        self._local.__dict__.pop("value", None)
