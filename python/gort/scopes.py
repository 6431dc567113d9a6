"""Structured goroutines: children of a block, which end before the block does.

    >>> import gort
    >>> with gort.scope() as s:
    ...     a = s.go(pow, 2, 10)
    ...     b = s.go(len, "four")
    >>> a.result(), b.result()
    (1024, 4)

The first child that fails cancels its siblings: the scope's context is done, and each ends with
GoroutineExit at its next park or safe point, so that code that knows no context ends as well. What
went wrong comes out of the block as one ExceptionGroup: flat, each exception once, without those
that the scope's own cancelling has made.

KeyboardInterrupt and SystemExit come out by themselves, with the rest as their cause, as from
asyncio.TaskGroup: who asks for them means the program. A group that a child raises is taken apart,
as all that says more than its members is where it was raised. Who calls goexit(), or is cancelled
alone through its handle, has not failed.
"""

from __future__ import annotations

from _weakref import ref
from os import register_at_fork

from gort import _core
from gort._core import Chan, current, current_context, spawn
from gort._exceptions import DeadlockError, GoroutineExit, RuntimeStopped
from gort._scope_child import Body, Child
from gort._scope_errors import ended_from_outside, gather, is_made_by_end, raise_all, tell_stuck
from gort._scope_map import Mapped
from gort._typing import TYPE_CHECKING
from gort.context import after_func, with_cancel_cause, with_timeout
from gort.runtime import _report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any, TypeVar

    from gort._core import Goroutine
    from gort.context import Cancel, Context

    T = TypeVar("T")
    A = TypeVar("A")
    R = TypeVar("R")

__all__ = ["Child", "Scope", "scope"]

#: One object, another one in each forked process; empty before the first scope.
_process: list[object] = []


def _forget_parent() -> None:
    """In a forked child: the children of scopes that go on here have stayed in the parent."""
    _process[0] = object()


#: Seconds after which a scope says which children have not ended although they were cancelled.
PATIENCE = 5.0
#: Children that are kept before those that have ended are let go.
KEPT = 64


class Scope:
    """A block whose goroutines end before it does; made by gort.scope()."""

    __slots__ = (
        "__weakref__", "_cancel_context", "_closed", "_context", "_cut", "_ending", "_errors",
        "_first", "_is_own", "_known", "_live", "_name", "_on_stuck", "_outer", "_outer_cancel",
        "_owed", "_patience", "_process", "_stop", "_sweep_at", "_wake", "_watcher",
    )  # fmt: skip

    _context: Context
    _first: Child[Any] | BaseException | None
    _stop: Callable[[], bool] | None
    _watcher: Goroutine[Any] | None

    def __init__(
        self,
        ctx: Context | None,
        timeout: float | None,
        name: str | None,
        patience: float | None,
        on_stuck: Callable[[list[Child[Any]], str], object] | None,
    ) -> None:
        """Derive the context; nothing runs yet."""
        parent = current_context() if ctx is None else ctx
        self._outer_cancel: Cancel | None = None
        if timeout is not None:
            parent, self._outer_cancel = with_timeout(parent, timeout)
        self._outer = parent
        self._context, self._cancel_context = with_cancel_cause(parent)
        self._name = name
        self._patience = patience
        self._on_stuck = on_stuck
        self._live: dict[Child[Any], None] = {}  # those that have not said their end
        self._known: dict[Child[Any], None] = {}  # those whose goroutine may not have ended
        self._sweep_at = KEPT
        self._wake: Chan[None] = Chan(1)  # something has changed for who waits at the end
        self._stop = None  # ends looking at the context above
        self._watcher = None
        self._errors: list[BaseException] = []
        self._first = None  # the child that failed first, or the exception of the block
        self._closed = True
        self._ending = False  # cancelled, or about to be
        self._is_own = False  # it was cancelled by this scope, not by its context
        self._owed = False  # children may not have been told
        self._cut = False  # what was going on has been ended from outside
        self._process: object = None  # in which it was entered

    def __repr__(self) -> str:
        """Show name and children."""
        return f"<gort.Scope {self._name or 'without a name'}: {len(self._live)} children>"

    @property
    def name(self) -> str | None:
        """The name it was given."""
        return self._name

    @property
    def context(self) -> Context:
        """Its context, which is the current one of its children, and done when it ends."""
        return self._context

    @property
    def cancelled(self) -> bool:
        """Whether it has been cancelled, by a failure, by cancel(), or through its context."""
        return self._ending

    def __enter__(self) -> Scope:
        """Begin the block."""
        if self._process is not None:
            raise RuntimeError("a scope is entered once")
        if not _process:
            register_at_fork(after_in_child=_forget_parent)
            _process.append(object())
        self._process = _process[0]
        self._closed = False
        if self._outer.done() is not None:
            self._stop = after_func(self._outer, self._end_from_outside)
        return self

    def go(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Child[T]:
        """Run `fn` in a child; never parks. In a scope that is cancelled it does not run.

        Args:
            fn: what to run. An exception of its cancels the scope, and comes out of the block.
            *args: its positional arguments.
            **kwargs: its keyword arguments.

        Raises:
            TypeError: fn is not callable.
            RuntimeError: the block has ended or was not entered.
            MemoryError: it cannot be started; the scope is as before.

        Example:
            >>> import gort
            >>> with gort.scope() as s:
            ...     words = [s.go(str.upper, word) for word in ("a", "b")]
            >>> [word.result() for word in words]
            ['A', 'B']
        """
        child: Child[T] = self._go(fn, args, kwargs, None, False)
        return child

    def _go(self, fn: Any, args: Any, kwargs: Any, ready: Chan[Any] | None, apart: bool) -> Any:
        """Start a child."""
        if not callable(fn):
            raise TypeError(f"Scope.go() needs a callable, not {type(fn).__name__}")
        if len(self._known) >= self._sweep_at:
            self._sweep()
        name = getattr(fn, "__qualname__", None)
        child: Child[Any] = Child(self, name if type(name) is str else None, ready, apart)
        body = Body(child, fn, args, kwargs)
        self._known[child] = None
        self._live[child] = None
        try:
            if self._closed:
                self._known.pop(child, None)
                raise RuntimeError("the block of the scope has ended or was not entered")
            child._ref = ref(spawn(body, name=child.name))
        except BaseException:
            del body  # which says the child's end, unless it runs
            raise
        if self._ending:
            child._tell()
        return child

    def map(
        self, fn: Callable[[A], R], iterable: Iterable[A], limit: int | None = None, *,
        ordered: bool = True,
    ) -> Mapped[R]:  # fmt: skip
        """Give an iterator of fn(item) for each item, each in a child of its own.

        Nothing starts before the first result is asked for. Iterating parks. An exception of `fn`
        is raised in its place, does not cancel the scope by itself, and iterating may go on after
        it. Leaving the loop early, or close(), cancels the rest; what failed by then and was not
        seen comes out of the block. One goroutine at a time may iterate.

        Args:
            fn: called with one item.
            iterable: the items; it is never asked for more than `limit` that were not taken.
            limit: how many children at most, those included whose result nobody has taken yet;
                None: all items at once.
            ordered: False gives results as they come.

        Raises:
            TypeError: fn is not callable, iterable cannot be iterated, limit is no integer.
            ValueError: limit is less than one.

        Example:
            >>> import gort
            >>> with gort.scope() as s:
            ...     list(s.map(lambda n: n * n, range(5), limit=2))
            [0, 1, 4, 9, 16]
        """
        if not callable(fn):
            raise TypeError(f"Scope.map() needs a callable, not {type(fn).__name__}")
        return Mapped(self, fn, iterable, limit, ordered)

    def cancel(self) -> None:
        """End the context and all children, which is no error of the scope. Never parks.

        Example:
            >>> import gort
            >>> with gort.scope() as s:
            ...     child = s.go(gort.Chan().recv)
            ...     s.cancel()
            >>> child.done
            True
        """
        self._cancel(None)

    # What follows runs at a child's end, where nothing may be lost because memory is refused.

    def _failed(self, child: Child[Any], error: BaseException) -> None:
        """A child has failed; it is no error if the scope's end has made it."""
        _core._note_origin(error)
        if is_made_by_end(self, error):
            self._cut = True
            child._counts = False
        elif not child._apart and self._first is None:
            self._first = child

    def _ended(self, child: Child[Any]) -> None:
        """A child has ended, but for the way out of its goroutine."""
        if not self._is_own and self._context.err() is not None:
            self._cut = True
        if child._counts and not child._apart and not self._ending:
            try:
                self._cancel(child._failure)
            except MemoryError:
                pass  # who waits at the end tells the rest
        ready, child._ready = child._ready, None
        if ready is not None:
            ready.try_send(child)
        self._live.pop(child, None)
        if not self._live:
            self._wake.try_send(None)

    def _cancel(self, cause: BaseException | None) -> None:
        """End the context and all children."""
        if not self._ending:
            self._is_own = self._context.err() is None
            self._owed = True
            self._ending = True
            self._wake.try_send(None)
            self._cancel_context(cause)
        if self._owed:
            self._tell_all()

    def _tell_all(self) -> None:
        """Cancel each child, once. Those that start from now on look at `_ending`."""
        for child in tuple(self._live):
            child._tell()
        self._owed = False

    def _end_from_outside(self) -> None:
        """Goroutine: the context above is done."""
        self._watcher = current()
        self._wake.try_send(None)
        self._cancel(None)

    # What follows is the end of the block.

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        """Wait for the children; raise what went wrong."""
        if self._process is not _process[0]:
            return None  # forked since: the children stayed in the parent
        is_exit = isinstance(exc, GoroutineExit)
        is_made, is_judged, is_over, refused, stopped = False, False, False, None, None
        while not is_over:
            try:
                if not is_judged:
                    is_made = exc is not None and not is_exit and is_made_by_end(self, exc)
                    is_judged = True
                    self._cut = self._cut or is_made
                    if not is_made and not is_exit and self._first is None:
                        self._first = exc
                stopped = self._wait_for_all(exc)
                is_over = True
            except MemoryError as error:
                refused = error  # even a call may need some
        is_error = not is_exit and not is_made
        outside = ended_from_outside(self)
        self._cancel_context(None)
        if self._outer_cancel is not None:
            self._outer_cancel()
        first = self._first._failure if isinstance(self._first, Child) else self._first
        others = [*self._errors, exc if is_error else None, stopped, refused]
        errors = gather(self, first, others)
        if is_exit or isinstance(stopped, GoroutineExit):
            for unheard in errors:
                _report(current(), unheard)  # nobody else would hear of it
            if not is_exit and stopped is not None:
                raise stopped
            return None
        if outside is not None:
            errors.insert(0, outside)
        if errors:
            raise_all(self._name, errors)
        return is_made

    def _wait_for_all(self, cause: BaseException | None) -> BaseException | None:
        """Wait until every child has ended; cancel them first if there is a `cause`.

        Gives what has ended the wait itself meanwhile: a cancel, Ctrl-C, refused memory. The
        children are then cancelled, and waited for all the same.
        """
        stopped: BaseException | None = None
        told = self._patience is None
        while True:
            try:
                if cause is not None:
                    self._cancel(None if isinstance(cause, GoroutineExit) else cause)
                    cause = None
                elif self._owed:
                    self._tell_all()
                if self._live:
                    told = self._wait(told)
                elif not self._closed:
                    self._closed = True
                elif self._known:
                    self._let_go()
                elif self._stop is not None:
                    self._unwatch(self._stop)
                else:
                    return stopped
            except BaseException as error:  # noqa: BLE001 - the block raises it
                if stopped is None or isinstance(error, GoroutineExit):
                    stopped = error
                if isinstance(error, RuntimeStopped):
                    return stopped  # nothing runs any more
                if self._ending and isinstance(error, KeyboardInterrupt | DeadlockError):
                    self._tell_again()
                cause = error

    def _tell_again(self) -> None:
        """Have children cancelled once more that went on after the first time."""
        self._owed = True
        for child in list(self._live):
            child._told = False

    def _wait(self, told: bool) -> bool:
        """Wait until something has changed. Whether those that do not end have been told of."""
        if told or not self._ending:
            self._wake.recv()
            return told
        assert self._patience is not None
        try:
            self._wake.recv(timeout=self._patience)
        except TimeoutError:
            tell_stuck(self, self._on_stuck, self._patience)
            return True
        return False

    def _let_go(self) -> None:
        """Wait until the oldest child has left its goroutine, and keep only its error."""
        child = next(iter(self._known))
        child._wait()
        if child._counts and child._failure is not None:
            self._errors.append(child._failure)
            child._counts = False
        self._known.pop(child, None)

    def _sweep(self) -> None:
        """Let go of children that have ended well."""
        for child in tuple(self._known):
            if not child._counts and child not in self._live and child.done:
                self._known.pop(child, None)
        self._sweep_at = 2 * len(self._known) + KEPT

    def _unwatch(self, stop: Callable[[], bool]) -> None:
        """Look no more at the context above; wait for the goroutine that has begun to end us."""
        _core._no_preempt(1)  # `stop` says only once that it has prevented it
        try:
            if stop():
                self._stop = None
        finally:
            _core._no_preempt(-1)
        if self._stop is not None:
            while self._watcher is None:
                self._wake.recv()
            self._watcher.join()
            self._stop = None


def scope(
    ctx: Context | None = None,
    *,
    timeout: float | None = None,
    name: str | None = None,
    patience: float | None = PATIENCE,
    on_stuck: Callable[[list[Child[Any]], str], object] | None = None,
) -> Scope:
    """Give a block whose goroutines end before it does: `with gort.scope() as s: s.go(fn)`.

    At its end the block waits for its children. The first that fails, or an exception of the block,
    cancels the others: the scope's context is done and each child is cancelled. The block itself is
    not interrupted: it may look at the scope's context. A scope that is cancelled from outside
    while children run, or whose time is over, raises the err() of its context. Where the block is
    on a plain thread, num_goroutine() may count the last child for a moment more.

    Args:
        ctx: the context to derive from; None: the current one.
        timeout: seconds after which the children are cancelled; None: never.
        name: for messages.
        patience: seconds that a cancelled child may take to end before it is reported with its
            stack, once; the block goes on waiting. None: no report.
        on_stuck: called with those children and the report, which else goes to stderr.

    Raises:
        ExceptionGroup: at the block's end, what went wrong: flat, each exception once, without what
            the cancelling itself has made; BaseExceptionGroup where one is no Exception.
        KeyboardInterrupt, SystemExit: if one of these is among them, with the others as its cause.
        GoroutineExit: the goroutine of the block was cancelled, which waits for the children
            first; what else went wrong is reported through gort.excepthook.
        TypeError: an argument is of the wrong type.
        ValueError: timeout or patience is nan, or patience is negative.

    Example:
        >>> import gort
        >>> never = gort.Chan()
        >>> try:
        ...     with gort.scope(name="both") as s:
        ...         waits = s.go(never.recv)
        ...         fails = s.go(int, "four")
        ... except* ValueError as group:
        ...     print(group.exceptions[0])
        invalid literal for int() with base 10: 'four'
        >>> waits.done
        True
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"scope(): name must be a str or None, not {type(name).__name__}")
    if patience is not None and not patience >= 0:
        raise ValueError(f"scope(): patience must be zero or more seconds, not {patience}")
    if on_stuck is not None and not callable(on_stuck):
        raise TypeError(f"scope() needs a callable on_stuck, not {type(on_stuck).__name__}")
    return Scope(ctx, timeout, name, patience, on_stuck)
