"""Fake time: a test runs in a bubble, whose clock goes on only when nothing else can happen.

Go's testing/synctest, with its rules. In a bubble `gort.sleep`, timers and time-outs of gort go by
the bubble's clock, and so do `time.sleep`, `time.time`, `time.monotonic`, `datetime.now` and the
time-outs of `threading` and `queue`, as far as the boundary serves them (GORT_BOUNDARY=0 leaves
those out). The clock begins at midnight UTC of 1 January 2000. It stands still while a goroutine of
the bubble runs, is ready, or waits for what only the outside can bring; when all of them are
durably blocked it jumps to the next time somebody waits for. So a test of an hour's time-out takes
no time, and is exact.

Durably blocked is who waits for a channel made in the bubble, a select of such, a Cond, a
Semaphore, a WaitGroup that was counted up in the bubble, a goroutine's end, or sleeps. Not durably
blocked: a Mutex or RWMutex, a socket, a file, a child process, a C call. Time-outs of those
descriptors take real time, and the bubble's clock goes on by as much.

Unlike Go, which has none such: locks of `threading`, of which its Condition, Event and Queue are
made, count as durable for the clock, and not for the deadlock report. Share none of them with
goroutines outside of the bubble.
"""

from __future__ import annotations

import functools

from gort import _core, threads
from gort._exceptions import DeadlockError
from gort._typing import TYPE_CHECKING
from gort.runtime import _bubble_failures

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    from gort._core import Goroutine

    P = ParamSpec("P")
    T = TypeVar("T")

__all__ = ["run", "test", "wait"]


def run(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `fn` in a goroutine of a new bubble, let all of it run to its end, and give its result.

    Goroutines, threads, channels and timers made in the bubble belong to it; channels and timers of
    it can be used in it only. Parks until every goroutine of the bubble has ended.

    Args:
        fn: what to call; the bubble's main goroutine.
        *args: its positional arguments.
        **kwargs: its keyword arguments.

    Raises:
        DeadlockError: goroutines are left that nothing in the bubble can wake; once fn has returned
            the clock stands, so that includes sleepers. They are cancelled first, so that their
            `finally` blocks have run.
        BaseException: what fn raised; else what another goroutine of the bubble raised and nobody
            joined (an ExceptionGroup of several).
        RuntimeError: called in a bubble, or on a thread that is no goroutine.
        TypeError: fn is not callable.

    Example:
        >>> import gort, time
        >>> from gort.testing import synctest
        >>> def waits_long():
        ...     begun = time.monotonic()
        ...     gort.sleep(3600)
        ...     return time.monotonic() - begun
        >>> synctest.run(waits_long)
        3600.0
    """
    if not callable(fn):
        raise TypeError(f"synctest.run() needs a callable, not {type(fn).__name__}")
    bubble = _core._bubble_new()
    threads._learn()  # where that fails threads stay real, and outside
    failures = _bubble_failures.setdefault(bubble, [])
    try:
        main = _core._bubble_go(bubble, fn, args, kwargs)
        try:
            left = None if _core._bubble_drive(bubble) else _end_those_left(bubble, main)
        except BaseException:  # a signal's handler, or the program is one deadlock
            _cancel(bubble)
            raise
    finally:
        _core._bubble_end(bubble)
        del _bubble_failures[bubble]
    if left is None or left.main_ended:
        result = main.join()
    if failures:
        raise (
            failures[0]
            if len(failures) == 1
            else BaseExceptionGroup(f"{len(failures)} goroutines of the bubble", failures)
        )
    if left is not None:
        raise DeadlockError(f"{left.what}\n\n{left.dump}")
    return result


class _Left:
    """Those that nothing in the bubble could wake."""

    __slots__ = ("dump", "main_ended", "what")

    def __init__(self, main_ended: bool, dump: str) -> None:
        self.main_ended = main_ended
        self.dump = dump
        self.what = (
            "deadlock: main bubble goroutine has exited but blocked goroutines remain"
            if main_ended
            else "deadlock: all goroutines in bubble are blocked"
        )


def _end_those_left(bubble: int, main: Goroutine[Any]) -> _Left:
    """Say who is left, and have them end."""
    left = _Left(main.done, _core._bubble_members(bubble)[1])
    _cancel(bubble)
    _core._bubble_drive(bubble)  # their finally blocks
    if not left.main_ended and main.done:
        try:
            main.join()  # or it would be reported: that it was ended here is no news
        except BaseException:  # noqa: S110, BLE001
            pass
    return left


def _cancel(bubble: int) -> None:
    for goroutine in _core._bubble_members(bubble)[0]:
        goroutine.cancel()


def wait() -> None:
    """Park until every other goroutine of the bubble is durably blocked.

    Raises:
        RuntimeError: not in a bubble, or another goroutine of it waits already.

    Example:
        >>> import gort
        >>> from gort.testing import synctest
        >>> def main():
        ...     seen = []
        ...     gort.after_func(5, seen.append, "fired")
        ...     gort.sleep(5)
        ...     synctest.wait()
        ...     return seen
        >>> synctest.run(main)
        ['fired']
    """
    _core._bubble_wait()


def test(fn: Callable[P, T], /) -> Callable[P, T]:
    """Make a function run in a bubble of its own at each call: `run` as a decorator.

    For pytest there is `@pytest.mark.synctest` too, which keeps fixtures out of the bubble as well.

    Example:
        >>> import gort
        >>> from gort.testing import synctest
        >>> @synctest.test
        ... def test_times_out():
        ...     try:
        ...         gort.Chan().recv(timeout=30)
        ...     except TimeoutError:
        ...         return "timed out"
        >>> test_times_out()
        'timed out'
    """

    @functools.wraps(fn)
    def bubbled(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(fn, *args, **kwargs)

    return bubbled


test.__test__ = False  # type: ignore[attr-defined]  # no test itself, whatever pytest thinks of its name
