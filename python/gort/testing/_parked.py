"""Waiting until everybody else waits."""

from __future__ import annotations

from time import monotonic

from gort import _core
from gort._core import gosched, sleep
from gort._dump import dump
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gort.context import Context

_LONGEST_PAUSE = 0.001


def wait_all_parked(timeout: float | None = None, ctx: Context | None = None) -> None:
    """Park until every goroutine but the calling one is parked: on a channel, a lock, a timer, I/O.

    One that computes, is ready, or is in a C call is not parked. Threads that are goroutines count,
    others do not. In a bubble of `synctest` this is `synctest.wait`.

    Args:
        timeout: the longest wait in seconds; None for ever. Not used in a bubble.
        ctx: its end ends the wait. Not used in a bubble.

    Raises:
        ContextCanceled, DeadlineExceeded: ctx is done.
        TimeoutError: some are not parked by then; the message lists all goroutines.

    Example:
        >>> import gort
        >>> from gort.testing import wait_all_parked
        >>> ch = gort.Chan()
        >>> g = gort.go(ch.recv)
        >>> wait_all_parked()
        >>> g.status
        'chan receive'
        >>> ch.send("done"); g.join()
        'done'
    """
    if _core._bubble_current():
        _core._bubble_wait()
        return
    until = None if timeout is None else monotonic() + timeout
    pause = 0.00001
    gosched()
    while not _core._are_parked():
        if until is not None and monotonic() >= until:
            raise TimeoutError(f"not all goroutines are parked\n\n{dump()}")
        sleep(pause, ctx=ctx)  # those in C calls need time, not turns
        pause = min(pause * 2, _LONGEST_PAUSE)
        gosched()
