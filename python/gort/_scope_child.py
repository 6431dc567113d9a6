"""A child of a scope, and what its goroutine calls."""

from __future__ import annotations

from gort import _core
from gort._core import current
from gort._exceptions import Cancelled, GoroutineExit
from gort._typing import TYPE_CHECKING, Generic, T

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    from gort._core import Chan, Context, Goroutine
    from gort.scopes import Scope

__all__ = ["Body", "Child"]


class Child(Generic[T]):
    """A goroutine of a scope, made by its go(); its result is there once the block has ended.

    Example:
        >>> import gort
        >>> with gort.scope() as s:
        ...     child = s.go(sum, [1, 2, 3])
        ...     child.join()
        6
        >>> child.result(), child.done
        (6, True)
    """

    __slots__ = (
        "__weakref__", "_apart", "_counts", "_failure", "_goroutine", "_ready", "_ref", "_scope",
        "_told", "_traceback", "name",
    )  # fmt: skip

    #: The qualified name of its function.
    name: str | None
    _goroutine: Goroutine[T] | None
    _failure: BaseException | None
    _traceback: TracebackType | None

    def __init__(
        self, scope: Scope, name: str | None, ready: Chan[Any] | None, apart: bool
    ) -> None:
        """Be of `scope`; `apart`: its failure is for who takes its result, not for the scope."""
        self.name = name
        self._scope = scope
        self._apart = apart
        self._counts = False  # its failure is to come out of the block
        self._ready = ready
        # Before it begins only a weak reference: a goroutine that gets no stack is then dropped,
        # and so is its body, which says so to the scope.
        self._ref: Callable[[], Goroutine[T] | None] | None = None
        self._goroutine = None
        self._failure = None
        self._traceback = None
        self._told = False  # the end of the scope has cancelled it

    def __repr__(self) -> str:
        """Show the goroutine."""
        return f"<gort.Child {self.name}: {self.goroutine!r}>"

    @property
    def goroutine(self) -> Goroutine[T] | None:
        """The goroutine; None if it has ended before it began."""
        return self._goroutine or (None if self._ref is None else self._ref())

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        g = self.goroutine
        return g is None or g.done

    def cancel(self) -> bool:
        """Ask it to end, with GoroutineExit; False if it has. Its siblings go on. Never parks."""
        g = self.goroutine
        return g is not None and g.cancel()

    def join(self, timeout: float | None = None, ctx: Context | None = None) -> T:
        """Park until it has ended; give its result.

        Args:
            timeout: seconds at most; None waits for ever.
            ctx: a Context that ends the wait when it is done.

        Raises:
            TimeoutError: the time is over.
            Cancelled: it was cancelled.
            BaseException: what it has raised, which is an error of the scope all the same.
        """
        g = self.goroutine
        if g is not None:
            value = g.join(timeout, ctx)
            if self._failure is None:
                return value
        if self._failure is not None:
            raise self._failure.with_traceback(self._traceback)
        raise Cancelled("the goroutine was cancelled")

    def _wait(self) -> None:
        """Park until its goroutine has ended, however."""
        g = self.goroutine
        while g is not None and not g.done:
            try:
                g.join()
            except Cancelled:
                pass

    def _tell(self) -> None:
        """Cancel it for the end of the scope, unless that was done or it has failed."""
        g = self.goroutine
        if g is not None and not self._told and self._failure is None:
            self._told = True
            g.cancel()

    def _take(self) -> T:
        """Give its result, or raise its failure, which is then no error of the scope any more."""
        self._counts = False
        return self.join()

    def result(self) -> T:
        """Give its result, or raise as join() does; never parks.

        Raises:
            RuntimeError: it has not ended.
        """
        if not self.done:
            raise RuntimeError(f"{self!r} has not ended")
        return self.join()


class Body:
    """What a child's goroutine calls. Whoever ends before it is called drops it."""

    __slots__ = ("_args", "_child", "_fn", "_kwargs")

    _child: Child[Any] | None
    _fn: Callable[..., Any] | None

    def __init__(self, child: Child[Any], fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._fn = fn
        self._args = args
        self._kwargs = kwargs
        self._child = child

    def __call__(self) -> Any:
        child, fn, self._fn = self._child, self._fn, None
        assert child is not None
        child._goroutine = current()
        if child._scope._ending:
            child._tell()
        try:
            run = child._scope._context.run
            return run(fn, *self._args, **self._kwargs)  # type: ignore[arg-type]  # called once
        except GoroutineExit:
            raise
        except BaseException as error:  # noqa: BLE001 - the scope raises it
            child._counts = True
            child._traceback = error.__traceback__
            child._failure = error
            child._scope._failed(child, error)
        finally:
            _core._no_preempt(1)  # no safe point, at which a cancel would end it, in what follows
            while self._child is not None:
                try:
                    self._end()
                except MemoryError:
                    continue  # a call may need some; who waits must hear of it
            _core._no_preempt(-1)

    def _end(self) -> None:
        """Say the end to the scope. Twice is as good as once."""
        child = self._child
        if child is not None:
            child._scope._ended(child)
            self._child = None

    def __del__(self) -> None:
        child = getattr(self, "_child", None)  # memory may have run out before __init__ was called
        if child is None:
            return
        if self._fn is not None and child._ref is not None:
            g = current()
            if g is None or not g.done:  # else it was cancelled, and drops this at its end
                child._counts = True
                child._failure = MemoryError("a goroutine of the scope got no stack")
                child._scope._failed(child, child._failure)
        self._end()
