"""Go's sync package: locks, wait groups, run-once functions, condition variables, semaphores, maps.

The primitives are compiled. Here stand the parts that call Python functions: WaitGroup.go, Once,
once_func and its kin, and the reading side of an RWMutex as a context manager; Barrier and
CountDownLatch come from gort.barrier, and gort.atomic and gort.singleflight are here, too.

Everything works between goroutines and plain threads in every direction. Misuse (an unlock of what
is not locked, a counter below zero) raises RuntimeError with Go's words and changes nothing; an
argument that is wrong by itself raises TypeError or ValueError.
"""

from __future__ import annotations

import gc
from _weakref import ref

from gort import _core, atomic, singleflight
from gort._core import Cond, Goroutine, Map, Mutex, Semaphore, spawn
from gort._exceptions import GoroutineExit
from gort._typing import TYPE_CHECKING, Generic, T
from gort.barrier import Barrier, BrokenBarrierError, CountDownLatch
from gort.gc import FULL

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, TypeVarTuple

    Ts = TypeVarTuple("Ts")

__all__ = [
    "Barrier",
    "BrokenBarrierError",
    "Cond",
    "CountDownLatch",
    "Map",
    "Mutex",
    "Once",
    "Pool",
    "RWMutex",
    "Semaphore",
    "WaitGroup",
    "atomic",
    "once_func",
    "once_value",
    "once_values",
    "singleflight",
]


def _need_callable(fn: object, where: str) -> None:
    """Raise TypeError unless `fn` can be called."""
    if not callable(fn):
        raise TypeError(f"{where} needs a callable, not {type(fn).__name__}")


class _Reading:
    """The reading side of an RWMutex as a context manager, and as a lock: Go's RLocker."""

    __slots__ = ("_mutex",)

    def __init__(self, mutex: RWMutex) -> None:
        self._mutex = mutex

    def __enter__(self) -> None:
        self._mutex.rlock()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._mutex.runlock()

    def lock(self, timeout: float | None = None) -> None:
        """Lock for reading; parks at most `timeout` seconds (TimeoutError), None: for ever."""
        self._mutex.rlock(timeout)

    def unlock(self) -> None:
        """Unlock for reading."""
        self._mutex.runlock()


class RWMutex(_core.RWMutex):
    """A lock held by one writer or any number of readers; a waiting writer goes first.

    `with rw:` holds it for writing, `with rw.reading():` for reading. lock() and rlock() park
    until the lock is free; not re-entrant, not owned by a goroutine.

    Example:
        >>> import gort
        >>> rw = gort.RWMutex()
        >>> with rw.reading(), rw.reading():
        ...     rw.try_lock()
        False
    """

    __slots__ = ()

    def reading(self) -> _Reading:
        """Give a context manager that holds the lock for reading; entering it may park.

        It has lock() and unlock() as well, so that a Cond takes it, as Go's RLocker.
        """
        return _Reading(self)


class _Counted:
    """Body of a goroutine started by WaitGroup.go.

    Says done() when the function returns or is ended by GoroutineExit, not when it raises anything
    else, as in Go. A goroutine that is cancelled before it ran drops this without calling it:
    that is the end of its work as well.
    """

    __slots__ = ("_args", "_fn", "_kwargs", "_wg")

    _wg: WaitGroup | None

    def __init__(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self._wg = None
        self._fn = fn
        self._args = args
        self._kwargs = kwargs

    def __call__(self) -> Any:
        wg, self._wg = self._wg, None
        assert wg is not None
        try:
            result = self._fn(*self._args, **self._kwargs)
        except GoroutineExit:
            wg.done()
            raise
        wg.done()
        return result

    def __del__(self) -> None:
        wg = getattr(self, "_wg", None)  # memory may have run out before __init__ was called
        if wg is not None:
            wg.done()


class WaitGroup(_core.WaitGroup):
    """A counter of running work; wait() parks until it is back at zero.

    add(n) may be negative; done() is add(-1). A counter below zero raises RuntimeError
    "sync: negative WaitGroup counter". It may be used again once every wait() has returned; a
    wait() that comes back to a counter in use raises RuntimeError "sync: WaitGroup is reused before
    previous Wait has returned".

    Example:
        >>> import gort
        >>> wg, out = gort.WaitGroup(), []
        >>> for i in range(3):
        ...     _ = wg.go(out.append, i)
        >>> wg.wait()
        >>> sorted(out)
        [0, 1, 2]
    """

    __slots__ = ()

    def go(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Goroutine[T]:
        """Call add(1), run `fn` in a new goroutine, and call done() when it returns; never parks.

        As in Go, an exception in fn is reported (or raised by join) and done() is NOT called:
        wait() does not return as if the work had been done. goexit() and cancel() do call it.

        Args:
            fn: what to run.
            *args: its positional arguments.
            **kwargs: its keyword arguments.

        Raises:
            TypeError: fn is not callable.

        Example:
            >>> import gort
            >>> wg = gort.WaitGroup()
            >>> g = wg.go(pow, 2, 10)
            >>> wg.wait()
            >>> g.join()
            1024
        """
        _need_callable(fn, "WaitGroup.go()")
        body = _Counted(fn, args, kwargs)  # first: memory may run out
        body._wg = self  # if it cannot start it is dropped: done() as well
        try:
            self.add(1)  # between the two nobody is preempted, and so nobody cancelled
        except Exception:
            body._wg = None
            raise
        return spawn(body, name=getattr(fn, "__qualname__", None))


class Once:
    """Runs one function once, however many goroutines ask.

    Example:
        >>> import gort
        >>> once = gort.Once()
        >>> once.do(lambda: print("set up"))
        set up
        >>> once.do(lambda: print("set up"))
    """

    __slots__ = ("__weakref__", "_done", "_mutex")

    def __init__(self) -> None:
        """Make one that has not run yet."""
        self._done = False
        self._mutex = Mutex()

    def do(self, fn: Callable[[], object], /) -> None:
        """Run `fn` if no earlier call ran its function; return only once that one has ended.

        Parks while another goroutine runs its function. A function that raises counts as run:
        the exception goes to that caller, later calls return silently. Calling do() of the same
        Once from inside fn waits for itself for ever, as in Go.

        Args:
            fn: called without arguments.

        Raises:
            TypeError: fn is not callable.
            BaseException: whatever fn raises, to the caller that ran it.
        """
        _need_callable(fn, "Once.do()")
        if self._done:
            return
        self._mutex.lock()
        try:
            if not self._done:
                try:
                    fn()
                finally:
                    self._done = True
        finally:
            self._mutex.unlock()


def once_value(fn: Callable[[], T], /) -> Callable[[], T]:
    """Give a function that calls `fn` on its first call and returns that result on every call.

    Calls park while the first one runs. When fn raises, every call raises that same exception, the
    first one with the traceback of fn. fn is let go after the first call (with that traceback, if
    it raised).

    Args:
        fn: called without arguments, at most once.

    Raises:
        TypeError: fn is not callable.

    Example:
        >>> import gort
        >>> settings = gort.once_value(lambda: print("reading") or {"debug": True})
        >>> settings(), settings()
        reading
        ({'debug': True}, {'debug': True})
    """
    _need_callable(fn, "once_value()")
    once = Once()
    todo: list[Callable[[], T]] = [fn]
    results: list[T] = []
    failure: list[BaseException] = []

    def first() -> None:
        try:
            results.append(todo.pop()())
        except GoroutineExit:
            failure.append(RuntimeError("sync: the function that runs once called goexit"))
            raise
        except BaseException as error:
            failure.append(error)
            raise

    def call() -> T:
        once.do(first)  # the first time, the exception comes from here with its whole traceback
        if failure:
            raise failure[0].with_traceback(None)  # frames of earlier calls would pile up
        return results[0]

    call.__name__ = getattr(fn, "__name__", "once_value")
    call.__qualname__ = getattr(fn, "__qualname__", call.__name__)
    call.__doc__ = getattr(fn, "__doc__", None)
    return call


def once_values(fn: Callable[[], tuple[*Ts]], /) -> Callable[[], tuple[*Ts]]:
    """Give a function that calls `fn` on its first call and returns its values on every call.

    What Go's OnceValues is; in Python several values are a tuple, and this is once_value with the
    types of each.

    Args:
        fn: called without arguments, at most once.

    Raises:
        TypeError: fn is not callable.

    Example:
        >>> import gort
        >>> find = gort.once_values(lambda: ("value", None))
        >>> value, error = find()
        >>> value
        'value'
    """
    _need_callable(fn, "once_values()")
    return once_value(fn)


def once_func(fn: Callable[[], object], /) -> Callable[[], None]:
    """Give a function that calls `fn` on its first call and does nothing on later ones.

    Calls park while the first one runs. When fn raises, every call raises that same exception.

    Args:
        fn: called without arguments, at most once.

    Raises:
        TypeError: fn is not callable.

    Example:
        >>> import gort
        >>> connect = gort.once_func(lambda: print("connecting"))
        >>> connect()
        connecting
        >>> connect()
    """
    _need_callable(fn, "once_func()")
    value = once_value(fn)

    def call() -> None:
        value()

    call.__name__ = value.__name__
    call.__qualname__ = value.__qualname__
    call.__doc__ = value.__doc__
    return call


class Pool(Generic[T]):
    """Keeps objects for reuse; the garbage collector empties it, as Go's sync.Pool.

    What nobody has taken for two full collections is gone: the first sets it aside, the second
    drops it. Objects come back in any order, and may be dropped at any time: nothing that must be
    closed belongs here. Nothing parks.

    Args:
        new: makes an object when there is none; None: `get` gives None then.

    Raises:
        TypeError: new is neither callable nor None.

    Example:
        >>> import gort
        >>> buffers = gort.Pool(bytearray)
        >>> buffer = buffers.get()
        >>> buffers.put(buffer)
        >>> buffers.get() is buffer
        True
    """

    __slots__ = ("__weakref__", "_items", "_victims", "new")

    def __init__(self, new: Callable[[], T] | None = None) -> None:
        """Begin empty."""
        if new is not None:
            _need_callable(new, "Pool()")
        self.new = new
        self._items: list[T] = []
        self._victims: list[T] = []
        if _turn_pools not in gc.callbacks:
            gc.callbacks.append(_turn_pools)
        _pools.append(ref(self, _pools.remove))

    def get(self) -> T | None:
        """Take an object out, or make one.

        Raises:
            BaseException: whatever `new` raises.
        """
        # Each list operation is one step: collections and other goroutines come between them.
        for items in (self._items, self._victims):
            try:
                return items.pop()
            except IndexError:
                pass
        return None if self.new is None else self.new()

    def put(self, item: T | None, /) -> None:
        """Give an object back for reuse; None is ignored, as Go ignores nil.

        Args:
            item: it must not be used any more by who gives it.
        """
        if item is not None:
            self._items.append(item)


#: Every pool there is.
_pools: list[ref[Pool[Any]]] = []


def _turn_pools(phase: str, info: dict[str, int]) -> None:
    """Called by the garbage collector: before a full collection what pools keep gets older.

    Source: Go's sync/pool.go, poolCleanup.
    """
    if phase != "start" or info["generation"] < FULL:
        return
    for reference in tuple(_pools):
        pool = reference()
        if pool is not None:
            pool._victims, pool._items = pool._items, []
