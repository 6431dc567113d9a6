"""Contexts: when work is to end, why, and values for it, as in Go's package context.

    >>> import gort
    >>> with gort.context.with_timeout(gort.context.background(), 0.01) as ctx:
    ...     _ = gort.select(gort.recv(ctx.done()))
    ...     ctx.err()
    DeadlineExceeded('context deadline exceeded')

What makes a context gives a pair, as Go does: `ctx, cancel = with_cancel(parent)`. Used in a `with`
statement the pair gives the context, and cancels it at the block's end. Whoever uses neither leaves
the context below its parent until that is done, or until its own deadline, as in Go.

Contexts are compiled, and so is what cancelling one does to all below it. Here stand the pair, how
ours are put below contexts of other kinds, and what str() shows.
"""

from __future__ import annotations

from gort import _core
from gort._core import Context, background, cause, current_context, spawn, todo, without_cancel
from gort._core import recv as _recv
from gort._core import select as _select
from gort._exceptions import ContextCanceled, DeadlineExceeded
from gort._typing import TYPE_CHECKING, Generic

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Protocol, TypeVar

    class Cancel(Protocol):
        """What ends a context."""

        def __call__(self) -> None:
            """End it; never parks."""

    class CancelCause(Protocol):
        """What ends a context for a reason."""

        def __call__(self, cause: BaseException | None = None) -> None:
            """End it; never parks."""

    F = TypeVar("F", bound=Cancel)
else:
    F = None

__all__ = [
    "Context",
    "ContextCanceled",
    "DeadlineExceeded",
    "Derived",
    "after_func",
    "background",
    "cause",
    "current_context",
    "todo",
    "with_cancel",
    "with_cancel_cause",
    "with_deadline",
    "with_deadline_cause",
    "with_timeout",
    "with_timeout_cause",
    "with_value",
    "without_cancel",
]


class Derived(tuple[Context, F], Generic[F]):
    """A context and what cancels it: `ctx, cancel = ...`, or `with ... as ctx:`."""

    __slots__ = ()

    def __enter__(self) -> Context:
        """Give the context."""
        return self[0]

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Cancel it."""
        self[1]()


def _derived(pair: tuple[Context, F]) -> Derived[F]:
    """Make the pair that is given out; where there is no memory for it nothing is left."""
    try:
        return Derived(pair)
    except BaseException:
        pair[1]()
        raise


def with_cancel(parent: Context) -> Derived[Cancel]:
    """Give a context that is done when its cancel is called, or when `parent` is. Never parks.

    Args:
        parent: a Context, or any object with its methods.

    Returns:
        The pair (ctx, cancel), also for a `with` statement, which cancels at its end.

    Raises:
        TypeError: parent is None ("cannot create context from nil parent") or no context.

    Example:
        >>> import gort
        >>> with gort.context.with_cancel(gort.context.background()) as ctx:
        ...     g = gort.go(ctx.done().recv_ok)
        >>> g.join()
        (None, False)
    """
    return _derived(_core._with_cancel(parent, False))


def with_cancel_cause(parent: Context) -> Derived[CancelCause]:
    """Give a context as with_cancel() does, whose cancel takes an exception as the cause.

    Without one, as at the end of a `with` statement, the cause is the err() of the context.

    Args:
        parent: a Context, or any object with its methods.

    Raises:
        TypeError: parent is None or no context; cancel: the cause is not an exception.

    Example:
        >>> import gort
        >>> ctx, cancel = gort.context.with_cancel_cause(gort.context.background())
        >>> cancel(KeyError("gone"))
        >>> ctx.err(), ctx.cause()
        (ContextCanceled('context canceled'), KeyError('gone'))
    """
    return _derived(_core._with_cancel(parent, True))


def with_deadline(parent: Context, deadline: float) -> Derived[Cancel]:
    """Give a context that is done at `deadline` at the latest. Never parks.

    Args:
        parent: a Context, or any object with its methods; an earlier deadline of its counts.
        deadline: seconds since 1970, as time.time() and the channels of gort.time have them.

    Raises:
        TypeError: parent is None or no context, deadline is no number.
        ValueError: deadline is nan.
        MemoryError: there is no memory for it.

    Example:
        >>> import gort, time
        >>> with gort.context.with_deadline(gort.context.background(), time.time() - 1) as ctx:
        ...     ctx.err()
        DeadlineExceeded('context deadline exceeded')
    """
    return _derived(_core._with_deadline(parent, deadline, False, None))


def with_deadline_cause(
    parent: Context, deadline: float, cause: BaseException | None
) -> Derived[Cancel]:
    """Give a context as with_deadline() does; `cause` is its cause if the deadline passes.

    Example:
        >>> import gort
        >>> slow = RuntimeError("too slow")
        >>> background = gort.context.background()
        >>> with gort.context.with_deadline_cause(background, 0, slow) as ctx:
        ...     ctx.cause()
        RuntimeError('too slow')
    """
    return _derived(_core._with_deadline(parent, deadline, False, cause))


def with_timeout(parent: Context, timeout: float) -> Derived[Cancel]:
    """Give a context that is done after `timeout` seconds at the latest. Never parks.

    Args:
        parent: a Context, or any object with its methods; an earlier deadline of its counts.
        timeout: seconds from now; zero or less is at once.

    Raises:
        TypeError: parent is None or no context, timeout is no number.
        ValueError: timeout is nan.
        MemoryError: there is no memory for it.

    Example:
        >>> import gort
        >>> with gort.context.with_timeout(gort.context.background(), 0.01) as ctx:
        ...     ctx.done().recv_ok()
        (None, False)
    """
    return _derived(_core._with_deadline(parent, timeout, True, None))


def with_timeout_cause(
    parent: Context, timeout: float, cause: BaseException | None
) -> Derived[Cancel]:
    """Give a context as with_timeout() does; `cause` is its cause if the time passes.

    Example:
        >>> import gort
        >>> slow = RuntimeError("too slow")
        >>> with gort.context.with_timeout_cause(gort.context.background(), 0, slow) as ctx:
        ...     ctx.err(), ctx.cause()
        (DeadlineExceeded('context deadline exceeded'), RuntimeError('too slow'))
    """
    return _derived(_core._with_deadline(parent, timeout, True, cause))


def with_value(parent: Context, key: object, value: object) -> Context:
    """Give a context that answers value(key) with `value`, and else as `parent`. Never parks.

    Args:
        parent: a Context, or any object with its methods.
        key: any hashable object but None; a class or an object of your own collides with nobody's.
        value: what to answer.

    Raises:
        TypeError: parent is None or no context; "nil key"; "key is not comparable".

    Example:
        >>> import gort
        >>> ctx = gort.context.with_value(gort.context.background(), "user", "gopher")
        >>> ctx.value("user"), ctx.value("group", "none")
        ('gopher', 'none')
        >>> print(ctx)
        context.Background.WithValue(user, gopher)
    """
    return _core._with_value(parent, key, value)


def after_func(
    ctx: Context, fn: Callable[..., object], /, *args: Any, **kwargs: Any
) -> Callable[[], bool]:
    """Call `fn` in a goroutine of its own once `ctx` is done; at once if it is. Never parks.

    A call that is due where memory is refused comes once there is some.

    Args:
        ctx: a Context, or any object with its methods.
        fn: what to call.
        *args: its positional arguments.
        **kwargs: its keyword arguments.

    Returns:
        A function that prevents the call and says whether it did; it does not wait for `fn`.

    Raises:
        TypeError: ctx is None or no context, fn is not callable.

    Example:
        >>> import gort
        >>> ctx, cancel = gort.context.with_cancel(gort.context.background())
        >>> called = gort.Chan(1)
        >>> stop = gort.context.after_func(ctx, called.send, "called")
        >>> cancel()
        >>> called.recv(), stop()
        ('called', False)
    """
    if not callable(fn):
        raise TypeError(f"after_func() needs a callable, not {type(fn).__name__}")
    return _core._context_after_func(ctx, fn, args, kwargs)


def _join(child: Context, parent: Any) -> None:
    """Put `child`, which is new, below a context that is not ours: context.go, propagateCancel."""
    done = parent.done()
    if done is None:
        return
    if done.closed:
        _end(child, parent)
        return
    ours = parent.value(_core._CANCEL_KEY)
    if type(ours) is Context and ours.done() == done:
        _core._context_link(ours, child)
        return
    after = getattr(parent, "after_func", None)
    if after is not None:
        _core._context_stopper(child, after(lambda: _end(child, parent)))
    else:
        spawn(_watch, (child, parent, done), name="gort.context")


def _watch(child: Context, parent: Any, done: Any) -> None:
    """Goroutine: end `child` when its parent is done, unless it ends before."""
    if _select(_recv(done), _recv(_core._context_done(child)))[0] == 0:
        _end(child, parent)


def _end(child: Context, parent: Any) -> None:
    """End `child` as its parent, which is done, has ended."""
    _core._context_end(child, parent.err(), cause(parent))


def _cause(other: Any) -> BaseException | None:
    """Why a context that is not ours is done: context.go, Cause."""
    err: BaseException | None = other.err()
    if err is None:
        return None
    ours = other.value(_core._CANCEL_KEY)
    found = ours.cause() if type(ours) is Context else None
    return err if found is None else found


def _type_name(thing: object) -> str:
    """The type of an object, with its module unless it is built in."""
    tp = type(thing)
    return tp.__qualname__ if tp.__module__ == "builtins" else f"{tp.__module__}.{tp.__qualname__}"


def _shown(thing: object) -> str:
    """A key or a value as Go shows them: texts, what has a text of its own, else the type."""
    if thing is None:
        return "<nil>"
    return str(thing) if type(thing).__str__ is not object.__str__ else _type_name(thing)


def _text(ctx: Any) -> str:
    """str() of a context, from the outermost part to the root, however many there are."""
    parts: list[str] = []
    while type(ctx) is Context:
        kind, parent, key, value, deadline = ctx._parts()
        if kind == "Value":
            parts.append(f".WithValue({_shown(key)}, {_shown(value)})")
        elif kind == "Deadline":
            left = deadline - _core._context_now()
            parts.append(f".WithDeadline({_go_time(deadline)} [{_go_duration(left)}])")
        elif kind in ("Background", "Todo"):
            parts.append(f"context.{kind.upper() if kind == 'Todo' else kind}")
            break
        else:
            parts.append(f".With{kind.removeprefix('With')}")
        ctx = parent
    else:
        shows: Any = type(ctx).__str__
        parts.append(_type_name(ctx) if shows is Context.__str__ else _shown(ctx))
    return "".join(reversed(parts))


def _repr(ctx: object) -> str:
    """repr() of a context."""
    return f"<gort.context.Context {_text(ctx)}>"


def _go_time(seconds: float) -> str:
    """A time as Go prints one."""
    from time import localtime, strftime

    try:
        whole = int(seconds // 1)
        local = localtime(whole)
    except (OverflowError, ValueError, OSError):
        return str(seconds)  # a year that no calendar has
    fraction = f"{seconds % 1:.9f}"[1:].rstrip("0").rstrip(".")
    return strftime("%Y-%m-%d %H:%M:%S", local) + fraction + strftime(" %z %Z", local)


def _go_duration(seconds: float) -> str:
    """A duration as Go prints one."""
    sign, rest = ("-", -seconds) if seconds < 0 else ("", seconds)
    if rest == float("inf"):
        return f"{sign}{rest}s"
    ns = round(rest * 1e9)
    if ns < 1_000_000_000:
        for size, unit in ((1_000_000, "ms"), (1_000, "µs"), (1, "ns")):
            if ns >= size:
                return f"{sign}{_decimal(ns, size)}{unit}"
        return "0s"
    minutes, ns = divmod(ns, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(ns, 1_000_000_000)}s"
    if minutes or hours:
        text = f"{minutes}m{text}"
    return f"{sign}{hours}h{text}" if hours else f"{sign}{text}"


def _decimal(n: int, unit: int) -> str:
    """Give n / unit without a zero at the end."""
    whole, rest = divmod(n, unit)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}}".rstrip("0").rstrip(".") if rest else str(whole)
