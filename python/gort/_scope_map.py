"""The iterator that Scope.map() gives."""

from __future__ import annotations

from collections import deque

from gort._core import Chan
from gort._typing import TYPE_CHECKING, Generic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    from gort.scopes import Child, Scope

    R = TypeVar("R")
else:
    R = None

__all__ = ["Mapped"]


#: What follows the last item.
_END: Any = object()


class Mapped(Generic[R]):
    """Results of a function for each item, in order or as they come; made by Scope.map().

    Example:
        >>> import gort
        >>> with gort.scope() as s:
        ...     halves = s.map(lambda n: n / 2, iter((2, 4, 6)), limit=1)
        ...     print(next(halves))
        ...     halves.close()
        1.0
    """

    __slots__ = ("__weakref__", "_broken", "_fn", "_items", "_limit", "_ready", "_scope", "_window")

    _items: Iterator[Any] | None

    def __init__(
        self,
        scope: Scope,
        fn: Callable[[Any], R],
        iterable: Iterable[Any],
        limit: int | None,
        ordered: bool,
    ) -> None:
        """Start nothing yet."""
        self._items = None  # for close(), should one of the next lines raise
        self._window: deque[Child[R]] = deque()  # those whose result nobody has taken, oldest first
        if limit is not None and limit < 1:
            raise ValueError(f"Scope.map(): limit must be at least 1, not {limit}")
        self._scope = scope
        self._fn = fn
        self._limit = limit
        self._broken: BaseException | None = None  # what the iterable has raised
        # Those that have ended, in their order: as many as there may be, so that none must wait.
        self._ready: Chan[Child[R]] | None = None
        if not ordered:
            if limit is None:
                iterable = list(iterable)
                limit = self._limit = max(len(iterable), 1)
            self._ready = Chan(limit)
        self._items = iter(iterable)

    def __iter__(self) -> Mapped[R]:
        """Give itself."""
        return self

    def __next__(self) -> R:
        """Park until there is a result; give it, or raise what the function has raised."""
        self._fill()
        if not self._window:
            broken, self._broken = self._broken, None
            if broken is not None:
                raise broken
            raise StopIteration
        if self._ready is None:
            child = self._window[0]
            child._wait()
            self._window.popleft()
        else:
            child = self._ready.recv()
            self._window.remove(child)
            child._wait()
        return child._take()

    def _fill(self) -> None:
        """Start children for the next items, as far as they may."""
        while self._items is not None and (self._limit is None or len(self._window) < self._limit):
            try:
                item = next(self._items, _END)
            except BaseException as error:
                self._items = None
                if not isinstance(error, Exception):
                    raise
                self._broken = error  # its place is after the results before it
            else:
                if item is _END:
                    self._items = None
                    return
                self._window.append(self._scope._go(self._fn, (item,), {}, self._ready, True))

    def close(self) -> None:
        """Cancel what has not ended and take no more items. Never parks."""
        self._items = None
        while self._window:
            self._window.pop().cancel()

    def __del__(self) -> None:
        """Nobody asks for the rest any more."""
        if hasattr(self, "_window"):
            self.close()
