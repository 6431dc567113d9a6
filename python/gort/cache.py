"""A bounded cache for goroutines and threads, which loads each key once.

When it is full it evicts by SIEVE (Zhang, Yang, Yue, Vigfusson, Rashmi: SIEVE is Simpler than LRU,
NSDI 2024): a hit only sets a bit, and what nobody asked for again leaves first, so that one pass
over many keys does not wash out those in use. Entries may expire, too. All of it but `get_or_load`
is compiled; each operation is one step to other goroutines and threads, as far as keys' `__hash__`
and `__eq__` are.
"""

from __future__ import annotations

from _thread import get_ident

from gort import _core
from gort._core import Chan
from gort._deadline import left, until
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, TypeVar

    from gort._core import Context

    K = TypeVar("K")
    V = TypeVar("V")
else:
    K = V = None

__all__ = ["ConcurrentCache"]


class _Load:
    """One load in progress, and its outcome: who comes for the key meanwhile waits for it."""

    __slots__ = ("_error", "_over", "_traceback", "_value", "has_value", "leader")

    def __init__(self) -> None:
        self.leader = get_ident()
        self.has_value = False
        self._value: Any = None
        self._error: Exception | None = None
        self._traceback: TracebackType | None = None
        self._over: Chan[None] = Chan()

    @property
    def has_failed(self) -> bool:
        return self._error is not None

    @property
    def is_over(self) -> bool:
        return self._over.closed

    def succeed(self, value: Any) -> None:
        self._value, self.has_value = value, True

    def fail(self, error: Exception) -> None:
        trace = error.__traceback__
        self._error = error
        self._traceback = trace and trace.tb_next  # without the frame that knows this: a cycle

    def end(self) -> None:
        """Let go of those that wait. Without an outcome another one is to load."""
        self._over.close()

    def wait(self, until_ns: int | None, ctx: Context | None) -> bool:
        """Park until it is over; return whether it has an outcome."""
        self._over.recv_ok(left(until_ns), ctx)
        return self.has_value or self.has_failed

    def outcome(self) -> Any:
        """Return or raise it."""
        if self._error is None:
            return self._value
        try:
            raise self._error.with_traceback(self._traceback)  # or each waiter would add to it
        finally:
            del self  # the traceback has this frame: a cycle


class ConcurrentCache(_core.ConcurrentCache[K, V]):
    """At most `max_size` values by key; SIEVE chooses who leaves when it is full.

    `get` gives (value, True) or (None, False), so that None is a value like any other; `cache[key]`
    raises KeyError instead. Both count as a hit or a miss; `in`, `len`, iteration, `keys` and
    `items` (lists, oldest first) count as nothing. `put(key, value, ttl=None)` and
    `cache[key] = value` keep a value, `delete` (which says whether there was one), `del` and
    `clear` forget. `resize(max_size)` evicts what is too much. None of them parks, unless a key's
    `__hash__` or `__eq__`, a value's `__del__` or `on_evict` does.

    An entry with a time to live is never seen after it. Its memory is given back by the operations
    that follow: each takes out a few whose time is up, `len`, `keys`, `items` and `stats` all of
    them. The clock is monotonic; in a bubble of gort.testing.synctest it is the bubble's.

    `stats()` gives counts: hits, misses, loads (loaders that ended, of which load_failures raised),
    evictions, expirations, and size.

    Args:
        max_size: entries, 1 or more.
        ttl: seconds an entry lives, more than 0; None: until it is evicted. `put` may say its own
            (math.inf: for ever).
        on_evict: called as on_evict(key, value) with what is evicted or expires, not with what is
            replaced or deleted. It may do anything. The operation that called it is done by then,
            and raises what it raises.

    Raises:
        ValueError: max_size or ttl is out of its range.
        TypeError: an argument is no such thing; a key cannot be hashed.
        MemoryError: there is no room for one more entry; nothing changed.

    Example:
        >>> from gort.cache import ConcurrentCache
        >>> cache = ConcurrentCache[str, int](1000, ttl=60)
        >>> cache["a"] = 1
        >>> cache.get("a"), cache.get("b")
        ((1, True), (None, False))
        >>> cache.get_or_load("b", lambda key: len(key) * 10)
        10
        >>> sorted(cache), cache.stats()["hits"]
        (['a', 'b'], 1)
    """

    __slots__ = ()

    def get_or_load(
        self,
        key: K,
        loader: Callable[[K], V],
        timeout: float | None = None,
        ctx: Context | None = None,
    ) -> V:
        """Give the value of `key`, or what `loader(key)` returns, which is kept.

        One goroutine or thread at a time calls a loader for a key; others that want it park for the
        outcome. An exception of the loader goes to all of them and is not kept. When who loads is
        cancelled (or interrupted, as by Ctrl-C), one of those that wait loads instead. A `put`,
        `delete` or `clear` of the key during the load is newer: the outcome goes to those that
        waited by then, and is not kept.

        Args:
            key: what to look for.
            loader: called with the key, at most once.
            timeout: the longest wait for another's load in seconds; None for ever. An own load is
                not cut short.
            ctx: a Context that ends such a wait when it is done.

        Raises:
            TimeoutError: another's load is not over by then.
            ContextCanceled, DeadlineExceeded: ctx is done before that.
            RuntimeError: called for a key inside the loader of that key.
            ValueError: timeout is negative or nan.
            Exception: what the loader raised.

        Example:
            >>> import gort
            >>> from gort.cache import ConcurrentCache
            >>> cache, calls = ConcurrentCache[int, int](10), []
            >>> def load(key):
            ...     calls.append(key)
            ...     gort.sleep(0.001)
            ...     return key * key
            >>> gs = [gort.go(cache.get_or_load, 7, load) for _ in range(5)]
            >>> [g.join() for g in gs], calls
            ([49, 49, 49, 49, 49], [7])
        """
        value, ok = self.get(key)
        if ok:
            return value  # type: ignore[return-value]
        until_ns = until(timeout)
        while True:
            load: _Load | None = self._loads.get(key)
            if load is None:
                load = self._load(key, loader)
            elif load.is_over:  # a comparison that raised kept its leader from taking it out
                self._give_up(key, load, False)
                continue
            if load.leader == get_ident() and not load.is_over:
                raise RuntimeError("get_or_load() for a key inside the loader of that key")
            if load.wait(until_ns, None if load.is_over else ctx):
                try:
                    return load.outcome()  # type: ignore[no-any-return]
                finally:
                    del load  # an exception has this frame: a cycle
            # Its leader is gone without an outcome.

    def _load(self, key: K, loader: Callable[[K], V]) -> _Load:
        """Give the load of a key: one that another leads, or one that is led here, to its end."""
        current = load = _Load()
        is_out = False
        try:
            current = self._loads.setdefault(key, load)
            if current is load:
                value, ok = self._peek(key)  # another load may have ended since the look
                if ok:
                    load.succeed(value)
                else:
                    value = loader(key)
                    load.succeed(value)
                    self._finish(key, load, value)
                    is_out = True
        except Exception as error:
            if current is not load or load.has_value:
                raise
            load.fail(error)
        finally:
            if current is load:
                try:
                    if not is_out:
                        self._give_up(key, load, load.has_failed)
                finally:
                    load.end()
        try:
            return current
        finally:
            del load, current  # frames of the loader lead here: a cycle, if it raised
