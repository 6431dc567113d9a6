"""Groups of goroutines that work on parts of one task, as Go's golang.org/x/sync/errgroup.

    >>> import gort
    >>> group, ctx = gort.errgroup.with_context(gort.context.background())
    >>> group.go(int, "12")
    >>> group.go(int, "twelve")
    >>> group.wait()
    Traceback (most recent call last):
    ValueError: invalid literal for int() with base 10: 'twelve'

In Go a function returns an error, and one that panics ends the program. Here every exception is the
error a function "returns": the first is what wait() raises, those after it are dropped, as in Go.
GoroutineExit is none: who calls goexit() or is cancelled is done. What the functions return is
dropped; `gort.scope()` keeps results and all errors, and ends its children itself.
"""

from __future__ import annotations

from gort import _core
from gort._core import current
from gort._core import go as _go
from gort._exceptions import GoroutineExit
from gort._typing import TYPE_CHECKING
from gort.context import with_cancel_cause

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from gort.context import CancelCause, Context

__all__ = ["Group", "with_context"]


class _Limit:
    """How many functions may be active, and which are."""

    __slots__ = ("active", "free")

    def __init__(self, n: int) -> None:
        self.free = _core.Semaphore(n)
        self.active: set[int] = set()  # their ids: who is dropped without being called says its end


class _Work:
    """Body of a goroutine of a group.

    Its end is said once: `_end` clears `_group` and calls compiled code, and no safe point lies
    between the two. Whoever is cancelled before it ran, or before it came to that, drops this.
    """

    __slots__ = ("_args", "_fn", "_group", "_is_sent", "_kwargs", "_limit")

    _fn: Callable[..., object] | None
    _group: Group | None

    def __init__(
        self, group: Group, fn: Callable[..., object], args: Any, kwargs: Any, limit: _Limit | None
    ) -> None:
        self._fn = fn
        self._args = args
        self._kwargs = kwargs
        self._limit = limit
        self._is_sent = False  # to its goroutine
        self._group = group
        group._wg.add(1)  # no safe point since the line above

    def __call__(self) -> None:
        fn, self._fn = self._fn, None
        try:
            fn(*self._args, **self._kwargs)  # type: ignore[misc]  # it is called once
        except GoroutineExit:
            raise
        except BaseException as error:  # noqa: BLE001 - it is what the function "returns"
            group = self._group
            # Nothing is called between the look and the change, so no other goroutine comes between
            # them, and no memory is needed.
            if group is not None and group._error is None:
                group._traceback = error.__traceback__
                group._error = error
                if group._cancel is not None:
                    group._cancel(error)
                _core._note_origin(error)
        finally:
            while self._group is not None:
                try:
                    self._end()
                except MemoryError:
                    continue  # a call may need some; who waits must hear of it

    def _end(self) -> None:
        """Count it as done, once."""
        limit, group = self._limit, self._group
        if limit is not None:
            limit.active.discard(id(self))
            self._limit = None
            limit.free.release()
        if group is not None:
            self._group = None
            group._wg.done()

    def __del__(self) -> None:
        group = getattr(self, "_group", None)  # memory may have run out before __init__ was called
        if group is None:
            return
        if self._is_sent and self._fn is not None and not _is_ending():
            error = MemoryError("a goroutine of the group got no stack")
            if group._error is None:
                group._error = error
                if group._cancel is not None:
                    group._cancel(error)
        self._end()


def _is_ending() -> bool:
    """Whether the calling goroutine has ended and drops what it was given."""
    g = current()
    return g is not None and g.done


class Group:
    """Goroutines that work on parts of one task: wait() waits for all and raises the first error.

    Without a limit any number may be active. It may be used again after wait(), which then raises
    the first error of all.

    Example:
        >>> import gort
        >>> group, seen = gort.errgroup.Group(), []
        >>> group.set_limit(2)
        >>> for i in range(5):
        ...     group.go(seen.append, i)
        >>> group.wait()
        >>> sorted(seen)
        [0, 1, 2, 3, 4]
    """

    __slots__ = ("__weakref__", "_cancel", "_error", "_limit", "_traceback", "_wg")

    _traceback: TracebackType | None

    def __init__(self, cancel: CancelCause | None = None) -> None:
        """Begin empty.

        Args:
            cancel: called with the first error, and at wait()'s end; with_context() gives it.
        """
        self._wg = _core.WaitGroup()
        self._cancel = cancel
        self._limit: _Limit | None = None
        self._error: BaseException | None = None
        self._traceback = None

    def go(self, fn: Callable[..., object], /, *args: Any, **kwargs: Any) -> None:
        """Run `fn` in a new goroutine; park while the limit is reached.

        Args:
            fn: what to run; its first exception is the group's error.
            *args: its positional arguments.
            **kwargs: its keyword arguments.

        Raises:
            TypeError: fn is not callable.
            MemoryError: it cannot be started; the group is as before.

        Example:
            >>> import gort
            >>> group = gort.errgroup.Group()
            >>> group.go(print, "in a goroutine")
            >>> group.wait()
            in a goroutine
        """
        if not callable(fn):
            raise TypeError(f"Group.go() needs a callable, not {type(fn).__name__}")
        limit = self._limit
        if limit is None:
            work = _Work(self, fn, args, kwargs, None)
        else:
            work = self._limited(fn, args, kwargs, limit, limit.free.acquire)  # type: ignore[assignment]
        work._is_sent = True
        try:
            _go(work)
        except Exception:
            work._end()  # it was not started, as it is where the caller is ended right after
            raise

    def try_go(self, fn: Callable[..., object], /, *args: Any, **kwargs: Any) -> bool:
        """Run `fn` in a new goroutine unless the limit is reached; whether it did. Never parks.

        Args:
            fn: what to run; its first exception is the group's error.
            *args: its positional arguments.
            **kwargs: its keyword arguments.

        Raises:
            TypeError: fn is not callable.
            MemoryError: it cannot be started; the group is as before.

        Example:
            >>> import gort
            >>> group, gate = gort.errgroup.Group(), gort.Chan()
            >>> group.set_limit(1)
            >>> group.try_go(gate.recv), group.try_go(gate.recv)
            (True, False)
            >>> gate.send(None)
            >>> group.wait()
        """
        if not callable(fn):
            raise TypeError(f"Group.try_go() needs a callable, not {type(fn).__name__}")
        limit = self._limit
        if limit is None:
            work: _Work | None = _Work(self, fn, args, kwargs, None)
        else:
            work = self._limited(fn, args, kwargs, limit, limit.free.try_acquire)
        if work is None:
            return False
        work._is_sent = True
        try:
            _go(work)
        except Exception:
            work._end()
            raise
        return True

    def _limited(
        self, fn: Any, args: Any, kwargs: Any, limit: _Limit, take: Callable[[], bool | None]
    ) -> _Work | None:
        """Give the body of a goroutine once `take` has taken a place; None if it says False."""
        _core._no_preempt(1)  # no safe point between the place and who gives it back
        try:
            if take() is False:
                return None
            try:
                work = _Work(self, fn, args, kwargs, limit)
            except BaseException:
                limit.free.release()
                raise
            try:
                limit.active.add(id(work))
            except MemoryError:
                work._end()
                raise
            return work
        finally:
            _core._no_preempt(-1)

    def set_limit(self, n: int) -> None:
        """Let at most `n` functions be active at a time, from now on. Never parks.

        Args:
            n: how many; negative: any number; 0: go() parks for ever and try_go() gives False.

        Raises:
            RuntimeError: "errgroup: modify limit while 2 goroutines in the group are still active".
            TypeError: n is no integer.

        Example:
            >>> import gort
            >>> group = gort.errgroup.Group()
            >>> group.set_limit(0)
            >>> group.try_go(print)
            False
        """
        if n < 0:
            self._limit = None
            return
        active = 0 if self._limit is None else len(self._limit.active)
        if active:
            raise RuntimeError(
                f"errgroup: modify limit while {active} goroutines in the group are still active"
            )
        self._limit = _Limit(n)

    def wait(self, timeout: float | None = None, ctx: Context | None = None) -> None:
        """Park until all functions have ended; raise the first error.

        The context of with_context() is then cancelled, with the error as its cause.

        Args:
            timeout: seconds at most; None waits for ever.
            ctx: a Context that ends the wait when it is done.

        Raises:
            TimeoutError: the time is over; nothing is cancelled.
            BaseException: what the first function that failed has raised, at every call.

        Example:
            >>> import gort
            >>> group = gort.errgroup.Group()
            >>> group.go(int, "3")
            >>> group.wait()
        """
        self._wg.wait(timeout, ctx)
        error = self._error
        if self._cancel is not None:
            self._cancel(error)
        if error is not None:
            raise error.with_traceback(self._traceback)  # frames of earlier calls would pile up


def with_context(ctx: Context) -> tuple[Group, Context]:
    """Give a group and a context below `ctx` that its first error cancels. Never parks.

    The context is done when a function fails, with its exception as the cause, or when wait()
    returns.

    Args:
        ctx: a Context, or any object with its methods.

    Raises:
        TypeError: ctx is None or no context.

    Example:
        >>> import gort
        >>> group, ctx = gort.errgroup.with_context(gort.context.background())
        >>> group.go(ctx.done().recv_ok)  # until another one fails
        >>> group.go(int, "four")
        >>> try:
        ...     group.wait()
        ... except ValueError as error:
        ...     print(ctx.cause() is error)
        True
    """
    ctx, cancel = with_cancel_cause(ctx)
    return Group(cancel), ctx
