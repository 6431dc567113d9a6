"""Go's iter.Pull: an iteration as two functions, one that gives the next value and one that stops.

Python's iterators can be asked for the next value as they are. What pull adds is a form that never
raises StopIteration, an end that runs the clean-up of whoever produces, and iterations that are
written the other way round, as Go's are: a function that calls `yield_(value)` for each value, and
may do so from any depth of calls, which no generator can.
"""

from __future__ import annotations

from types import GeneratorType

from gort._core import Chan, goexit, spawn
from gort._exceptions import GoroutineExit
from gort._typing import TYPE_CHECKING, Generic, T

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Literal, TypeAlias

    from gort._core import Goroutine

    Next: TypeAlias = "Callable[[], tuple[T, Literal[True]] | tuple[None, Literal[False]]]"

__all__ = ["pull"]

_GENERATOR_FLAG = 0x20  # inspect.CO_GENERATOR, without the import
_TWICE = "iter.Pull: next called again before yield"
_NESTED = "iter.Pull: stop called before yield"


def pull(
    source: Iterable[T] | Callable[[], Iterator[T]] | Callable[[Callable[[T], bool]], object], /
) -> tuple[Next[T], Callable[[], None]]:
    """Give (next, stop) for an iteration, with the rules of Go's iter.Pull; never parks.

    next() gives (value, True), then (None, False) for ever. stop() ends the iteration before that:
    a generator's `finally` blocks run, `yield_` returns False. It may be called at any time, any
    number of times; before the first next() nothing has begun, and nothing does. An exception of
    the source comes out of next() or stop(), once, and ends the iteration; goexit() ends the
    caller as well.

    A function that is no generator function is called with `yield_`, in a goroutine of its own from
    the first next() on: next() and stop() park while it runs. It returns when `yield_` gives False.
    Where the caller is cancelled in next(), or drops both functions, it is ended too.

    next() and stop() are not for several goroutines at once.

    Args:
        source: an iterable; a generator function without arguments; or a function of `yield_`.

    Raises:
        TypeError: source is neither iterable nor callable.
        RuntimeError: "iter.Pull: next called again before yield", out of next(); "iter.Pull: yield
            called again before next", out of yield_().

    Example:
        >>> from gort.iter import pull
        >>> def walk(tree, yield_):
        ...     return tree is None or (
        ...         walk(tree[0], yield_) and yield_(tree[1]) and walk(tree[2], yield_)
        ...     )
        >>> tree = ((None, 1, None), 2, (None, 3, None))
        >>> next, stop = pull(lambda yield_: walk(tree, yield_))
        >>> next(), next()
        ((1, True), (2, True))
        >>> stop()
        >>> next()
        (None, False)
    """
    found: _Pulled[T] | _Pushed[T]
    if hasattr(type(source), "__iter__"):
        found = _Pulled(iter(source))  # type: ignore[arg-type]
    elif not callable(source):
        raise TypeError(f"pull() needs an iterable or a function, not {type(source).__name__}")
    elif getattr(getattr(source, "__code__", None), "co_flags", 0) & _GENERATOR_FLAG:
        found = _Pulled(source())  # type: ignore[call-arg, arg-type]
    else:
        found = _Pushed(_Coroutine(source))  # type: ignore[arg-type]
    return found.next, found.stop


class _Pulled(Generic[T]):
    """An iterator, which runs on the stack of who asks."""

    __slots__ = ("_is_running", "_iterator")

    def __init__(self, iterator: Iterator[T]) -> None:
        self._iterator: Iterator[T] | None = iterator
        self._is_running = False

    def next(self) -> tuple[T, Literal[True]] | tuple[None, Literal[False]]:
        iterator = self._iterator
        if iterator is None:
            return None, False
        if self._is_running:
            raise RuntimeError(_TWICE)
        self._is_running = True
        try:
            return next(iterator), True
        except StopIteration:
            self._iterator = None
            return None, False
        except BaseException:
            self._iterator = None
            raise
        finally:
            self._is_running = False

    def stop(self) -> None:
        if self._is_running:
            raise RuntimeError(_NESTED)
        iterator, self._iterator = self._iterator, None
        if isinstance(iterator, GeneratorType):
            iterator.close()


class _Coroutine(Generic[T]):
    """A function of `yield_` in its goroutine. It knows nothing of who asks, who may drop it."""

    __slots__ = ("_error", "_seq", "_turns", "_values", "goroutine", "is_done", "yield_next")

    def __init__(self, seq: Callable[[Callable[[T], bool]], object]) -> None:
        self._seq: Callable[[Callable[[T], bool]], object] | None = seq
        self._turns: Chan[None] = Chan(1)
        self._values: Chan[tuple[Any, bool]] = Chan(1)
        self._error: BaseException | None = None
        self.goroutine: Goroutine[None] | None = None
        self.is_done = False
        self.yield_next = False

    def _yield(self, value: T) -> bool:
        if self.is_done:
            return False
        if not self.yield_next:
            raise RuntimeError("iter.Pull: yield called again before next")
        self.yield_next = False
        self._values.send((value, True))
        self._turns.recv()
        return not self.is_done

    def _run(self) -> None:
        seq, self._seq = self._seq, None
        assert seq is not None
        try:
            seq(self._yield)
        except BaseException as error:  # noqa: BLE001 - it is for who asks
            self._error = error
        finally:
            self.is_done = True
            self._values.try_send((None, False))  # full: who asked was cancelled

    def switch(self) -> tuple[Any, bool]:
        """Let it run until it has a value, (value, True), or ends: (None, False), or raises."""
        if self.goroutine is None:
            self.goroutine = spawn(self._run, name=getattr(self._seq, "__qualname__", "pull"))
        else:
            self._turns.send(None)
        try:
            answer = self._values.recv()
        except BaseException:
            self.is_done = True
            self.goroutine.cancel()
            raise
        error, self._error = self._error, None
        if error is None:
            return answer
        try:
            if isinstance(error, GoroutineExit):
                goexit()
            raise error
        finally:
            del error  # it knows this frame: a cycle


class _Pushed(Generic[T]):
    """Who asks a function of `yield_`."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: _Coroutine[T]) -> None:
        self._coroutine = coroutine

    def next(self) -> tuple[T, Literal[True]] | tuple[None, Literal[False]]:
        coroutine = self._coroutine
        if coroutine.is_done:
            return None, False
        if coroutine.yield_next:
            raise RuntimeError(_TWICE)
        coroutine.yield_next = True
        return coroutine.switch()  # type: ignore[return-value]

    def stop(self) -> None:
        coroutine = self._coroutine
        if coroutine.is_done:
            return
        if coroutine.yield_next:
            raise RuntimeError(_NESTED)
        coroutine.is_done = True
        if coroutine.goroutine is not None:
            coroutine.switch()

    def __del__(self) -> None:
        """Have it end, without waiting for that."""
        coroutine = self._coroutine
        if not coroutine.is_done and coroutine.goroutine is not None:
            coroutine.is_done = True
            coroutine._turns.try_send(None)
