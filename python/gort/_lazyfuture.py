"""A Future of `concurrent.futures` that makes what waiting needs when somebody waits.

`concurrent.futures` reaches into its futures: `wait` and `as_completed` lock `_condition`, read
`_state` and change `_waiters`. All three are here, the first and the last made at their first use.

`_guard` is held for a few instructions, among which the interpreter looks for nothing else to do:
no signal, no pass of the collector, no other goroutine comes between. Only the end of a future
that somebody waits for calls something while it is held, and by then it has its last state.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    LOGGER,
    PENDING,
    RUNNING,
)

from gort._core import Chan, Mutex
from gort._typing import TYPE_CHECKING, T

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["LazyFuture"]

_OVER = frozenset((CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED))


class _Guard:
    """A Mutex with the names that threading.Condition asks of its lock."""

    __slots__ = ("_mutex", "release")

    def __init__(self, mutex: Mutex) -> None:
        self._mutex = mutex
        self.release = mutex.unlock

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Lock, as a Lock of threading does."""
        if not blocking:
            return self._mutex.try_lock()
        try:
            self._mutex.lock(timeout if timeout >= 0 else None)
        except TimeoutError:
            return False
        return True

    def __enter__(self) -> bool:
        self._mutex.lock()
        return True

    def __exit__(self, *_: object) -> None:
        self.release()

    def locked(self) -> bool:
        """Whether somebody has it at this moment."""
        is_free = self._mutex.try_lock()
        if is_free:
            self._mutex.unlock()
        return not is_free


class LazyFuture(Future[T]):
    """A `concurrent.futures.Future` that makes what waiting needs when somebody waits.

    It does all that a Future does, and everything that takes one takes it. Most futures are asked
    for their result when it is there, or are given a callback: those never need the Condition that
    a Future is made with, which takes longer to make than a goroutine.

    Example:
        >>> from concurrent.futures import Future
        >>> from gort.futures import Executor
        >>> with Executor(lazy=True) as pool:
        ...     future = pool.submit(pow, 2, 5)
        ...     isinstance(future, Future), future.result()
        (True, 32)
    """

    __slots__ = (
        "_callbacks", "_ended", "_exception", "_guard", "_result", "_state", "_wakers", "_watchers",
    )  # fmt: skip

    def __init__(self) -> None:
        """Made by `Executor.submit`."""
        self._guard = Mutex()
        self._state = PENDING
        self._result = self._exception = None
        self._ended: Chan[None] | None = None  # closed at the end; made by who waits for it
        self._wakers: threading.Condition | None = None
        self._watchers: list[Any] = []
        self._callbacks: tuple[Callable[[Future[T]], object], ...] = ()

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        """What `concurrent.futures` locks, made at its first use."""
        if self._wakers is None:
            wakers = threading.Condition(_Guard(self._guard))  # type: ignore[arg-type]
            with self._guard:
                if self._wakers is None:
                    self._wakers = wakers
        return self._wakers

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        """What `wait` and `as_completed` want told, with the lock held."""
        return self._watchers

    def _lose_waiters(self) -> None:
        """In the child of a fork: who waits, and who held the lock, stayed in the parent."""
        self._guard = Mutex()
        self._ended = self._wakers = None
        self._watchers = []

    def _tell(self, word: str) -> None:
        """Wake those that wait, with the lock held and the last state set."""
        if self._ended is not None and not self._ended.closed:
            self._ended.close()
        if self._wakers is not None:
            for watcher in self._watchers if word else ():
                getattr(watcher, word)(self)
            self._wakers.notify_all()

    def _call_back(self) -> None:
        """Call who wants to know, without the lock; after the end nobody is added."""
        for callback in self._callbacks:
            try:
                callback(self)
            except Exception:  # noqa: BLE001 - as Future does: the others are to be called
                LOGGER.exception("exception calling callback for %r", self)

    def _finish(self, result: T | None, exception: BaseException | None, word: str) -> None:
        """End it."""
        with self._guard:
            state = self._state
            if state not in _OVER:
                self._result = result
                self._exception = exception
                self._state = FINISHED
                if self._ended is not None or self._wakers is not None:
                    self._tell(word)
        if state in _OVER:
            raise InvalidStateError(f"{state}: {self!r}")
        if self._callbacks:
            self._call_back()

    # Those that read `_state` alone need no lock: it is written after all that belongs to it.

    def cancel(self) -> bool:
        """Cancel it unless it runs or is over; return whether it is cancelled. Never parks."""
        with self._guard:
            state = self._state
            if state == PENDING:
                self._state = CANCELLED
                self._tell("")
        if state == PENDING:
            self._call_back()
        return state not in (RUNNING, FINISHED)

    def cancelled(self) -> bool:
        """Tell whether it was cancelled. Never parks."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def running(self) -> bool:
        """Tell whether it runs. Never parks."""
        return self._state == RUNNING

    def done(self) -> bool:
        """Tell whether it has ended or was cancelled. Never parks."""
        return self._state in _OVER

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call `fn` with this future when it is over, in the goroutine that ends it; or at once.

        Args:
            fn: what to call; an exception that it raises is logged.
        """
        while self._state not in _OVER:
            callbacks = self._callbacks
            more = (*callbacks, fn)
            with self._guard:
                if self._state not in _OVER and self._callbacks is callbacks:
                    self._callbacks = more
                    return
        try:
            fn(self)
        except Exception:  # noqa: BLE001 - as Future does
            LOGGER.exception("exception calling callback for %r", self)

    def _await(self, timeout: float | None) -> None:
        """Park until it is over, and raise what waiting raises."""
        if self._state not in _OVER:
            ended: Chan[None] = Chan()
            with self._guard:
                if self._ended is None:
                    self._ended = ended
                else:
                    ended = self._ended
            if self._state not in _OVER:
                try:
                    ended.recv_ok(None if timeout is None else max(timeout, 0.0))
                except TimeoutError:
                    pass  # it may have ended at that moment
        if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
            raise CancelledError
        if self._state != FINISHED:
            raise TimeoutError

    def result(self, timeout: float | None = None) -> T:
        """Park until it is over; return what the call returned, or raise what it raised.

        Args:
            timeout: the longest wait in seconds; None for ever.

        Raises:
            CancelledError: it was cancelled.
            TimeoutError: it is not over by then.
            BaseException: what the call raised.
        """
        if self._state != FINISHED:
            self._await(timeout)
        if self._exception is None:
            return self._result  # type: ignore[return-value]
        try:
            raise self._exception
        finally:
            del self  # or the exception would have itself in its traceback

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Park until it is over; return what the call raised, or None.

        Args:
            timeout: the longest wait in seconds; None for ever.

        Raises:
            CancelledError: it was cancelled.
            TimeoutError: it is not over by then.
        """
        if self._state != FINISHED:
            self._await(timeout)
        return self._exception

    def set_running_or_notify_cancel(self) -> bool:
        """Say that it runs now, for executors; return False if it was cancelled."""
        with self._guard:
            state = self._state
            if state == PENDING:
                self._state = RUNNING
            elif state == CANCELLED:
                self._state = CANCELLED_AND_NOTIFIED
                self._tell("add_cancelled")
        if state == PENDING:
            return True
        if state == CANCELLED:
            return False
        LOGGER.critical("Future %s in unexpected state: %s", id(self), state)
        raise RuntimeError("Future in unexpected state")

    def set_result(self, result: T) -> None:
        """End it with a result, for executors."""
        self._finish(result, None, "add_result")

    def set_exception(self, exception: BaseException | None) -> None:
        """End it with an exception, for executors."""
        self._finish(None, exception, "add_exception")
