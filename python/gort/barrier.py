"""Barrier and CountDownLatch: what Python's threading and Java have for waiting for one another.

Everything works between goroutines and plain threads in every direction.
"""

from __future__ import annotations

from gort._core import Chan, Int, Mutex, _check_context
from gort._exceptions import DeadlineExceeded
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from gort._core import Context

__all__ = ["Barrier", "BrokenBarrierError", "CountDownLatch"]


class BrokenBarrierError(RuntimeError):
    """A Barrier is broken: somebody gave up, its action failed, or abort() or reset() was called.

    What is raised is a threading.BrokenBarrierError as well.

    Example:
        >>> import gort
        >>> barrier = gort.Barrier(2)
        >>> barrier.abort()
        >>> barrier.wait()
        Traceback (most recent call last):
        gort.barrier.BrokenBarrierError
    """


#: The class of what is raised, once there was a need for it.
_raised: list[type[BrokenBarrierError]] = []


def _broken() -> BrokenBarrierError:
    """Make an exception of both classes; threading is loaded here, not by `import gort`."""
    if not _raised:
        from threading import BrokenBarrierError as Theirs

        bases = (BrokenBarrierError, Theirs)
        space = {"__module__": __name__, "__doc__": BrokenBarrierError.__doc__}
        _raised.append(type("BrokenBarrierError", bases, space))
    return _raised[0]()


#: States of a generation; the last two are ends.
OPEN, TRIPPING, TRIPPED, BROKEN = range(4)


class _Generation:
    """Those who meet at a Barrier at one time.

    `arrived` and `gate` are changed under the barrier's mutex, the state in single steps: whoever
    is cancelled breaks it without the lock, where a second cancellation might come.
    """

    __slots__ = ("arrived", "gate", "state")

    def __init__(self) -> None:
        self.arrived = 0
        self.state = Int(OPEN)
        self.gate: Chan[None] | None = None  # closed at the end; made by the first to wait

    def turns(self, old: int, new: int) -> bool:
        """Go from a state to another, which lets all go on if it is the last; whether it did."""
        done = self.state.compare_and_swap(old, new)
        if done and new >= TRIPPED and self.gate is not None:
            self.gate.close()
        return done


class Barrier:
    """A place where a number of goroutines or threads wait for one another, time after time.

    What threading.Barrier does, but nobody waits for the last ones to leave. Whoever is cancelled
    or interrupted while it waits breaks the barrier, as in Java: it will not come again.

    Args:
        parties: int, how many meet; at least 1.
        action: called by one of them, before they go on; None: nothing is.
        timeout: seconds that wait() waits at most unless told otherwise; None: for ever.

    Raises:
        TypeError: parties is no integer, or action not callable.
        ValueError: parties is below 1.

    Example:
        >>> import gort
        >>> barrier = gort.Barrier(2, action=lambda: print("all are here"))
        >>> g = gort.go(barrier.wait)
        >>> sorted([barrier.wait(), g.join()])
        all are here
        [0, 1]
    """

    __slots__ = ("__weakref__", "_action", "_generation", "_mutex", "_parties", "_timeout")

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Begin with nobody there."""
        if not isinstance(parties, int):
            raise TypeError(f"parties must be an int, not {type(parties).__name__}")
        if parties < 1:
            raise ValueError("parties must be >= 1")
        if action is not None and not callable(action):
            raise TypeError(f"action must be callable, not {type(action).__name__}")
        self._parties = parties
        self._action = action
        self._timeout = timeout
        self._mutex = Mutex()
        self._generation = _Generation()

    def wait(self, timeout: float | None = None, ctx: Context | None = None) -> int:
        """Park until all are there. One of them calls the action first.

        Args:
            timeout: seconds to wait at most; when they are over the barrier breaks. None: what the
                barrier was made with.
            ctx: a Context; when it is done during the wait the barrier breaks.

        Returns:
            An int from 0 to parties - 1, another one for each: in order of arrival.

        Raises:
            BrokenBarrierError: the barrier is or gets broken, by a time-out as well.
            ContextCanceled, DeadlineExceeded: ctx is done; before the wait it breaks nothing.
            BaseException: whatever the action raises, to the one that called it.
        """
        if ctx is not None:
            _check_context(ctx)
        joined: _Generation | None = None
        try:
            with self._mutex:
                generation = self._generation
                if generation.state.load() == BROKEN:
                    raise _broken()
                joined = generation
                index = generation.arrived
                generation.arrived += 1
                if generation.arrived == self._parties:
                    self._trip(generation)
                    return index
                gate = generation.gate
                if gate is None:
                    gate = generation.gate = Chan()
            self._await(generation, gate, self._timeout if timeout is None else timeout, ctx)
        except BaseException:
            if joined is not None:
                joined.turns(OPEN, BROKEN)
            raise
        if generation.state.load() == BROKEN:
            raise _broken()
        return index

    def _trip(self, generation: _Generation) -> None:
        """Call the action and let all go on; they begin anew. Under the mutex."""
        if not generation.turns(OPEN, TRIPPING):
            raise _broken()  # by one who was cancelled
        end = BROKEN
        try:
            if self._action is not None:
                self._action()
            self._generation = _Generation()
            end = TRIPPED
        finally:
            generation.turns(TRIPPING, end)

    def _await(
        self,
        generation: _Generation,
        gate: Chan[None],
        timeout: float | None,
        ctx: Context | None,
    ) -> None:
        """Park until the generation ends, or break it when the time is over."""
        try:
            gate.recv_ok(timeout, ctx)
        except DeadlineExceeded:
            raise
        except TimeoutError:
            if not generation.turns(OPEN, BROKEN):
                gate.recv_ok()  # all were there in time: the action runs

    def reset(self) -> None:
        """Begin anew: who waits gets BrokenBarrierError. Parks while the action runs."""
        with self._mutex:
            self._generation.turns(OPEN, BROKEN)
            self._generation = _Generation()

    def abort(self) -> None:
        """Break the barrier, until it is reset. Parks while the action runs."""
        with self._mutex:
            self._generation.turns(OPEN, BROKEN)

    @property
    def parties(self) -> int:
        """How many meet."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many wait at this moment."""
        generation = self._generation
        return generation.arrived if generation.state.load() == OPEN else 0

    @property
    def broken(self) -> bool:
        """Whether the barrier is broken."""
        return self._generation.state.load() == BROKEN


class CountDownLatch:
    """A number that is counted down once, for others to wait for; Java's CountDownLatch.

    Args:
        count: int, how often count_down() must be called; at 0 nobody ever waits.

    Raises:
        TypeError: count is no integer.
        ValueError: count is negative.

    Example:
        >>> import gort
        >>> latch = gort.CountDownLatch(2)
        >>> for _ in range(2):
        ...     _ = gort.go(latch.count_down)
        >>> latch.wait()
        >>> latch.count
        0
    """

    __slots__ = ("__weakref__", "_count", "_gate")

    def __init__(self, count: int) -> None:
        """Begin at `count`."""
        self._count = Int(count)
        if count < 0:
            raise ValueError("count < 0")
        self._gate: Chan[None] = Chan()
        if count == 0:
            self._gate.close()

    def count_down(self) -> None:
        """Take one off; at 0 all who wait go on, and nothing is taken off any more. Never parks."""
        count = self._count
        while (n := count.load()) > 0:
            if count.compare_and_swap(n, n - 1):
                if n == 1:
                    self._gate.close()
                return

    def wait(self, timeout: float | None = None, ctx: Context | None = None) -> None:
        """Park until the count is 0.

        Args:
            timeout: seconds to wait at most; None: for ever.
            ctx: a Context that ends the wait when it is done.

        Raises:
            TimeoutError: it is not, by then.
            ContextCanceled, DeadlineExceeded: ctx is done.
        """
        self._gate.recv_ok(timeout, ctx)

    @property
    def count(self) -> int:
        """What is left to count down."""
        return self._count.load()
