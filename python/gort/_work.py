"""One call of an executor, from `submit` or `map` to the end of its goroutine.

A goroutine may end without having run (cancelled before its turn, no memory for its stack), and a
cancel may come between any two instructions of one that runs: `Task.__del__` settles what is left
and hands the place on. So nobody but its goroutine keeps a task that has a place.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import BrokenExecutor, CancelledError, Future
from concurrent.futures._base import CANCELLED, FINISHED, PENDING
from concurrent.futures.thread import BrokenThreadPool
from time import monotonic

from gort._core import Chan, gosched
from gort._exceptions import Cancelled, GoroutineExit, RuntimeStopped
from gort._lazyfuture import LazyFuture
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from gort._core import Goroutine
    from gort.futures import Executor

__all__ = ["BROKEN", "STAYED", "Call", "Slot", "Task", "forked", "tasks_of_this_stack"]

BROKEN = "an initializer failed, the executor is not usable anymore"
STAYED = "the task stayed in the process that forked"


class Task:
    """One call with a future; the function of its goroutine."""

    __slots__ = ("args", "fn", "future", "goroutine", "kwargs", "place", "pool")

    future: Any
    place: object  # what `pool._places` was when it took one of them; None: it has none
    goroutine: Goroutine[None] | None  # its own, while it stands in the queue

    def __init__(
        self,
        pool: Executor,
        future: Future[Any] | Slot,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.pool = pool
        self.future = future
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.place = None

    def __del__(self) -> None:
        """Settle what never ran: its goroutine was cancelled before its turn, or got no stack."""
        place = getattr(self, "place", None)
        if place is not None and place is self.pool._places:
            self.give_up(Cancelled("the goroutine was cancelled"))
            try:
                self.pool._ended(self)
            except RuntimeStopped:
                pass  # nothing runs any more

    def __call__(self) -> None:
        """Run it, in its goroutine."""
        pool, future = self.pool, self.future
        try:
            if self.place is None or not future.set_running_or_notify_cancel():
                return  # its submit was interrupted, or it was cancelled
            if pool._before is not None and not pool._initialize():
                future.set_exception(BrokenThreadPool(BROKEN))
                return
            try:
                result = self.fn(*self.args, **self.kwargs)
            except BaseException as raised:  # noqa: BLE001 - it is whoever waits who has to know
                error = _outcome(raised)
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
                del error
            else:
                future.set_result(result)
        except (
            BaseException
        ) as failure:  # a cancel or a lack of memory, before its result was there
            is_exit = isinstance(failure, GoroutineExit)
            self.give_up(Cancelled("the goroutine was cancelled") if is_exit else failure)
            raise
        finally:
            pool._futures.discard(future)
            pool._ended(self)
            del self, pool, future  # an exception keeps this frame, and the future the exception

    def give_up(self, error: BaseException) -> None:
        """Say that it will not run, and why; nothing if it is over."""
        future: Future[Any] = self.future
        self.pool._futures.discard(future)
        if future.running() or (
            future._state in (PENDING, CANCELLED) and future.set_running_or_notify_cancel()
        ):
            future.set_exception(error)

    def cancel(self) -> None:
        """Cancel it before it runs, and tell those that wait, also for several."""
        self.pool._futures.discard(self.future)
        if self.future.cancel() and self.future._state == CANCELLED:
            self.future.set_running_or_notify_cancel()


class Slot:
    """Where a call of `map` ends. Nobody but the iterator sees it, so it is less than a future.

    `is_over` is written last by who ends it, and read by who waits for it after `waiter` was set:
    one of the two sees the other, so there is no lock.
    """

    __slots__ = ("error", "is_over", "result", "waiter")

    # Set by Executor._call: an __init__ would take longer than all of it.
    is_over: bool  # or not wanted any more
    result: Any
    error: BaseException | None
    waiter: Chan[None] | None

    def get(self, until: float | None) -> Any:
        """Park until it is over, `until` then by the clock; give its result or raise its error."""
        if not self.is_over:
            gosched()  # those that are ready may be all that is waited for: one wait for many
        if not self.is_over:
            self.waiter = Chan()
            try:
                if not self.is_over:
                    self.waiter.recv_ok(None if until is None else max(until - monotonic(), 0.0))
            except BaseException:
                self.is_over = True
                raise
        if self.error is not None:
            try:
                raise self.error
            finally:
                del self  # or the exception would have itself in its traceback
        return self.result

    def give_up(self, error: BaseException) -> None:
        """End with an exception, unless it is over."""
        if not self.is_over:
            self.error = error
            self.is_over = True
            if self.waiter is not None:
                self.waiter.close()


class Call(Task):
    """One call of a map: what Task does, without a call of the future for each step."""

    __slots__ = ()

    future: Slot

    def __init__(
        self, pool: Executor, slot: Slot, fn: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        self.pool = pool
        self.future = slot
        self.fn = fn
        self.args = args
        self.place = None

    def __call__(self) -> None:
        """Run it, in its goroutine."""
        pool, slot = self.pool, self.future
        try:
            slot.result = None
            if self.place is None or slot.is_over:
                return  # its submit was interrupted, or nobody wants it
            if pool._before is not None and not pool._initialize():
                slot.error = BrokenThreadPool(BROKEN)
            else:
                slot.result = self.fn(*self.args)
        except BaseException as raised:  # noqa: BLE001 - it is whoever waits who has to know
            slot.error = raised
            slot.error = _outcome(raised)
        finally:
            slot.is_over = True
            if slot.waiter is not None:
                slot.waiter.close()
            pool._ended(self)
            del self, pool, slot  # as in Task

    def give_up(self, error: BaseException) -> None:
        """Say that it will not run, and why; nothing if it is over."""
        self.future.give_up(error)

    def cancel(self) -> None:
        """Have who waits for it know that it was cancelled."""
        self.future.give_up(CancelledError())


def forked(future: Future[Any], is_here: bool) -> None:
    """In the child of a fork: new locks for a future, whose holders are not here; or its end."""
    if isinstance(future, LazyFuture):
        future._lose_waiters()
    else:
        future._condition, future._waiters = threading.Condition(), []
    if not is_here and not future.done():  # its callbacks are the parent's business, too
        future._exception = BrokenExecutor(STAYED)
        future._state = FINISHED


def _outcome(raised: BaseException) -> BaseException | None:
    """What a call that raised ends with, as join() has it: goexit() is a return of None."""
    if isinstance(raised, GoroutineExit):
        return None if raised.args in ((), ("goexit",)) else Cancelled(*raised.args)
    # Without the frame that called it.
    trace = raised.__traceback__
    return raised.with_traceback(trace and trace.tb_next)


def tasks_of_this_stack() -> set[Task]:
    """The tasks whose calls this very call is part of."""
    found: set[Task] = set()
    frame = sys._getframe(1).f_back
    while frame is not None:
        if frame.f_code in (Task.__call__.__code__, Call.__call__.__code__):
            found.add(frame.f_locals["self"])
        frame = frame.f_back
    return found
