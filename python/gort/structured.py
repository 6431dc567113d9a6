"""A function and all it starts, as one: a thin name over gort.scope().

>>> import gort
>>> from gort import structured
>>> def fetch_all(ctx):
...     parts = [structured.spawn(ctx, str.upper, word) for word in ("a", "b")]
...     return [part.join() for part in parts]
>>> structured.go(gort.context.background(), fetch_all)
['A', 'B']
"""

from __future__ import annotations

from gort._typing import TYPE_CHECKING
from gort.context import with_value
from gort.scopes import scope

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Concatenate, ParamSpec, TypeVar

    from gort.context import Context
    from gort.scopes import Child, Scope

    P = ParamSpec("P")
    T = TypeVar("T")

__all__ = ["go", "spawn"]


class _Key:
    """The key of a scope in its context."""

    def __str__(self) -> str:
        return "structured"


_KEY = _Key()


def go(
    ctx: Context, fn: Callable[Concatenate[Context, P], T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call fn(child context) in a goroutine; give its result when all it started has ended. Parks.

    What `fn` starts with spawn() and the child context, or one below it, ends before go() returns.
    The first that fails, `fn` included, cancels the others, and the child context.

    Args:
        ctx: the context to derive from.
        fn: what to call.
        *args: its positional arguments after the context.
        **kwargs: its keyword arguments.

    Raises:
        ExceptionGroup: what went wrong, as gort.scope() raises it.
        Cancelled: fn was cancelled alone.
        TypeError: ctx is None or no context, fn is not callable.

    Example:
        >>> import gort
        >>> gort.structured.go(gort.context.background(), lambda ctx: ctx.err() is None)
        True
    """
    if not callable(fn):
        raise TypeError(f"structured.go() needs a callable, not {type(fn).__name__}")
    if ctx is None:
        raise TypeError("cannot create context from nil parent")
    with scope(ctx, name=getattr(fn, "__qualname__", None)) as s:
        child_ctx = with_value(s.context, _KEY, s)
        child: Child[T] = s.go(child_ctx.run, fn, child_ctx, *args, **kwargs)
    return child.result()


def spawn(ctx: Context, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Child[T]:
    """Run `fn` in a goroutine of the go() whose context this is, or is above it. Never parks.

    Args:
        ctx: what go() gave its function, or a context below it.
        fn: what to run.
        *args: its positional arguments.
        **kwargs: its keyword arguments.

    Raises:
        RuntimeError: the context is of no go(), or that has ended.
        TypeError: fn is not callable.

    Example:
        >>> import gort
        >>> from gort import structured
        >>> def length(ctx, word):
        ...     return structured.spawn(ctx, len, word).join()
        >>> structured.go(gort.context.background(), length, "four")
        4
    """
    owner: Scope | None = ctx.value(_KEY)
    if owner is None:
        raise RuntimeError("structured.spawn(): the context is not below one of structured.go()")
    return owner.go(fn, *args, **kwargs)
