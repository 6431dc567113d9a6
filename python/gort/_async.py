"""Waiting for a goroutine from asyncio code."""

from __future__ import annotations

from gort._core import Goroutine, spawn
from gort._exceptions import GoroutineExit
from gort._typing import TYPE_CHECKING, T

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from typing import Any

__all__ = ["wait"]


def _resolve(future: Future[None]) -> None:
    """Loop side: wake the task, unless it is gone."""
    if not future.done():
        future.set_result(None)


def _watch(g: Goroutine[Any], loop: AbstractEventLoop, future: Future[None]) -> None:
    """Goroutine: wait for `g` and tell the loop."""
    try:
        g.join()
    except GoroutineExit:
        raise  # the asyncio side gave up
    except BaseException:  # noqa: BLE001, S110 - the task raises it itself
        pass
    try:
        loop.call_soon_threadsafe(_resolve, future)
    except RuntimeError:
        pass  # the loop is closed


async def wait(g: Goroutine[T]) -> T:
    """Wait for the goroutine `g` inside asyncio and return its result, as g.join() does.

    Suspends the task, never the event loop. Cancelling the task leaves `g` running.

    Args:
        g: the goroutine.

    Raises:
        Cancelled: g was cancelled.
        BaseException: whatever ended g.

    Example:
        >>> import asyncio, gort
        >>> asyncio.run(gort.wait(gort.go(pow, 2, 5)))
        32
    """
    if not isinstance(g, Goroutine):
        raise TypeError(f"gort.wait() needs a Goroutine, not {type(g).__name__}")
    if not g.done:
        from asyncio import get_running_loop

        loop = get_running_loop()
        future: Future[None] = loop.create_future()
        watcher = spawn(_watch, (g, loop, future), name="gort.wait")
        try:
            await future
        except BaseException:
            watcher.cancel()
            raise
    return g.join()
