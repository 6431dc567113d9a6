"""Go's x/sync/singleflight: of calls with one key at the same time only one runs.

Example:
    >>> from gort import singleflight
    >>> group = singleflight.Group()
    >>> group.do("answer", lambda a, b: a * b, 6, 7)
    (42, False)

Others that ask for a key meanwhile wait and get the same result. An exception is a result as well:
it is raised in every caller, the same object, each time with the traceback that it left the
function with.
"""

from __future__ import annotations

from gort._core import Chan, Int, Map, WaitGroup, goexit, gosched, spawn
from gort._exceptions import GoroutineExit
from gort._typing import TYPE_CHECKING, Generic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any, TypeVar, TypeVarTuple

    from gort._core import Context
    from gort.chan import RecvChan

    K = TypeVar("K")
    V = TypeVar("V")
    Ts = TypeVarTuple("Ts")
else:
    K = V = None

__all__ = ["Group", "Result"]


def _need_callable(fn: object, where: str) -> None:
    """Raise TypeError unless `fn` can be called."""
    if not callable(fn):
        raise TypeError(f"{where} needs a callable, not {type(fn).__name__}")


class Result(Generic[V]):
    """What Group.do_chan sends: unpacks into value, error and shared.

    Example:
        >>> from gort import singleflight
        >>> value, error, shared = singleflight.Result(1, None, False)
        >>> value
        1
    """

    __slots__ = ("error", "shared", "value")

    def __init__(self, value: V | None, error: BaseException | None, shared: bool) -> None:
        """Take the result (None after an error), the error, and whether others got it as well."""
        self.value = value
        self.error = error
        self.shared = shared

    def __iter__(self) -> Iterator[Any]:
        """Give value, error and shared, one after another."""
        return iter((self.value, self.error, self.shared))

    def __repr__(self) -> str:
        """Name all three."""
        return f"Result(value={self.value!r}, error={self.error!r}, shared={self.shared})"


#: How often a call tries to end, when there is no memory for it.
TRIES = 100

#: Added to the number of those who joined a call when it ends: who joins later sees that.
_ENDED = -(2**62)


class _Call(Generic[V]):
    """A call in flight. What it came to is written before `ended` is done, and read after.

    No lock: each step is one operation of a compiled type. Who finds the call in the map adds one
    to `joined`; if that says that it has ended, it is in the map no more, and they look anew.
    """

    __slots__ = (
        "began", "chans", "ended", "error", "exited", "joined", "over", "shared", "traceback",
        "value",
    )  # fmt: skip

    def __init__(self) -> None:
        self.ended = WaitGroup()
        self.ended.add(1)
        self.joined = Int()
        self.chans: list[Chan[Result[V]]] = []
        self.shared = False
        self.began = self.over = False
        self.exited = True  # unless the function returns, or raises anything but GoroutineExit
        self.value: V | None = None
        self.error: BaseException | None = None
        self.traceback: TracebackType | None = None

    def run(self, fn: Callable[[*Ts], V], args: tuple[*Ts]) -> None:
        """Call the function; raises what it raises."""
        try:
            self.began = True
            self.value = fn(*args)
            self.exited = False
        except GoroutineExit:
            raise
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            del self  # the traceback holds this frame, which must not hold the traceback

    def fail(self, error: BaseException) -> None:
        """Take an exception for the result."""
        self.error, self.traceback = error, error.__traceback__
        self.began, self.exited = True, False

    def end(self, calls: Map[K, _Call[V]], key: K) -> None:
        """Leave the map, and give the result to all who joined."""
        tries = TRIES
        try:
            while tries:
                try:
                    self._tell_all(calls, key)
                    tries = 0
                except MemoryError:
                    tries -= 1  # others wait for this: they may have memory to give up
                    gosched()
        finally:
            self.ended.done()

    def _tell_all(self, calls: Map[K, _Call[V]], key: K) -> None:
        """Do all of end() but its last step; may be done again from anywhere."""
        try:
            calls.compare_and_delete(key, self)
        finally:
            if not self.over:
                self.shared = self.joined.swap(_ENDED) > 0
                self.over = True
            while self.chans:
                self._tell(self.chans[-1])
                self.chans.pop()
            if not self.shared:
                self.error = self.traceback = None  # nobody else asks

    def _tell(self, chan: Chan[Result[V]]) -> None:
        """Send the Result, or close the channel if there is none, or no memory for it."""
        sent = False
        try:
            sent = not self.exited and chan.try_send(Result(self.value, self.error, self.shared))
        except MemoryError:
            pass
        finally:
            if not sent:
                chan.close()

    def outcome(self) -> V:
        """Give the value, or raise what the function raised, in one who joined."""
        error, traceback = self.error, self.traceback
        try:
            if error is not None:
                raise error.with_traceback(traceback)  # frames of other callers would pile up
            if self.exited:
                goexit()
            return self.value  # type: ignore[return-value]
        finally:
            del self, error, traceback  # as in run()


class _Flight(Generic[K, V]):
    """Body of a goroutine started by do_chan().

    One that is cancelled before it ran drops this without calling it: that ends the call as well.
    """

    __slots__ = ("_args", "_call", "_calls", "_fn", "_key")

    _call: _Call[V] | None

    def __init__(
        self, calls: Map[K, _Call[V]], key: K, call: _Call[V], fn: Callable[..., V], args: Any
    ) -> None:
        self._call = call
        self._calls = calls
        self._key = key
        self._fn = fn
        self._args = args

    def __call__(self) -> None:
        call = self._call
        assert call is not None
        try:
            call.run(self._fn, self._args)
        except BaseException as error:
            if isinstance(error, GoroutineExit):
                raise  # anything else is in the Result
        finally:
            self.end()
            del call

    def end(self) -> None:
        """End the call, unless it has."""
        call, self._call = self._call, None
        if call is not None:
            call.end(self._calls, self._key)

    def __del__(self) -> None:
        if getattr(self, "_call", None) is not None:  # memory may run out before __init__ is called
            self.end()


class Group(Generic[K, V]):
    """A namespace of keys: of calls with one key at the same time only one runs.

    Example:
        >>> import gort
        >>> group, gate = gort.singleflight.Group(), gort.Chan()
        >>> first = group.do_chan("key", gate.recv)
        >>> second = group.do_chan("key", gate.recv)
        >>> gate.send("read once")
        >>> first.recv()
        Result(value='read once', error=None, shared=True)
        >>> second.recv().value
        'read once'
    """

    __slots__ = ("__weakref__", "_calls")

    def __init__(self) -> None:
        """Begin with no call in flight."""
        self._calls: Map[K, _Call[V]] = Map()

    def do(
        self,
        key: K,
        fn: Callable[[*Ts], V],
        /,
        *args: *Ts,
        timeout: float | None = None,
        ctx: Context | None = None,
    ) -> tuple[V, bool]:
        """Call `fn` and give its result, or wait for a call with this key that is in flight.

        Parks while another's call is in flight. Where fn ends its goroutine, by goexit() or because
        that is cancelled, those who wait for it end as well, as in Go.

        Args:
            key: hashable.
            fn: what to call, if nobody does.
            *args: its arguments.
            timeout: seconds to wait for another's call at most; fn itself is not limited.
            ctx: a Context that ends such a wait when it is done.

        Returns:
            The result, and whether it went to others as well.

        Raises:
            TypeError: key is not hashable, or fn not callable.
            TimeoutError: another's call took too long; it goes on.
            ContextCanceled, DeadlineExceeded: ctx is done before it ended; it goes on.
            BaseException: whatever fn raises, in every caller.
        """
        _need_callable(fn, "do()")
        hash(key)  # TypeError now, before there is a call to end
        while True:  # again, where the goroutine of a do_chan() never ran
            mine, call = _Call[V](), None
            try:
                try:
                    while call is None or (call is not mine and call.joined.add(1) < 0):
                        call = None  # whatever ends this here, the call that may be in the map does
                        call, _ = self._calls.load_or_store(key, mine)
                    if call is mine:
                        mine.run(fn, args)
                finally:
                    if call is None or call is mine:
                        mine.end(self._calls, key)
                if call is mine:
                    return mine.value, mine.shared  # type: ignore[return-value]
                call.ended.wait(timeout, ctx)
                if call.began:
                    return call.outcome(), True
            finally:
                del mine, call  # as in _Call.run()

    def do_chan(self, key: K, fn: Callable[[*Ts], V], /, *args: *Ts) -> RecvChan[Result[V]]:
        """Do the same in a goroutine of its own; give a channel that gets the Result. Never parks.

        An exception of fn, of do() as well, is the Result's error: Go ends the process there.
        Where fn ends its goroutine the channel is closed without a Result: Go leaves whoever
        receives waiting for ever. Otherwise the channel is not closed.

        Args:
            key: hashable.
            fn: what to call, if nobody does.
            *args: its arguments.

        Raises:
            TypeError: key is not hashable, or fn not callable.
        """
        _need_callable(fn, "do_chan()")
        hash(key)  # TypeError now, before there is a call to end
        mine = _Call[V]()
        mine.chans.append(Chan(1))
        flight = _Flight(self._calls, key, mine, fn, args)  # dropped, it ends the call
        while True:
            call, _ = self._calls.load_or_store(key, mine)
            if call is mine:
                break
            chan = Chan[Result[V]](1)
            call.chans.append(chan)
            if call.joined.add(1) > 0:
                return chan.receiver()
        try:
            spawn(flight, name=getattr(fn, "__qualname__", None))
        except BaseException as error:
            mine.fail(error)
            flight.end()
            raise
        return mine.chans[0].receiver()

    def forget(self, key: K, /) -> None:
        """Let the next call with this key run, whatever is in flight; never parks.

        Args:
            key: hashable.
        """
        self._calls.delete(key)
