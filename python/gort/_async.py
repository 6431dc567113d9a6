"""Between asyncio and goroutines: a task waits for a goroutine, a goroutine for a future.

Neither blocks the other's loop or scheduler. What was cancelled is told in the words of who waits:
a task that waits for a goroutine that was cancelled gets asyncio.CancelledError, a goroutine that
waits for a future that was cancelled gets Cancelled.
"""

from __future__ import annotations

from gort._core import Chan, Goroutine, spawn
from gort._exceptions import Cancelled, GoroutineExit
from gort._typing import TYPE_CHECKING, T

if TYPE_CHECKING:
    import concurrent.futures
    from asyncio import AbstractEventLoop, Future
    from typing import Any

    from gort._core import Context

__all__ = ["from_future", "wait"]


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


async def wait(g: Goroutine[T], *, cancel: bool = False) -> T:
    """Wait for the goroutine `g` inside asyncio and return its result, as g.join() does.

    Suspends the task, never the event loop. Cancelling the task leaves `g` running, unless `cancel`
    says otherwise: then g.cancel() is called, and not waited for.

    Args:
        g: the goroutine.
        cancel: whether cancelling the task cancels g.

    Raises:
        asyncio.CancelledError: g was cancelled, or the task.
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
            if cancel:
                g.cancel()
            raise
    try:
        return g.join()
    except Cancelled as cancelled:
        from asyncio import CancelledError

        raise CancelledError(*cancelled.args) from cancelled


def from_future(
    future: Future[T] | concurrent.futures.Future[T],
    timeout: float | None = None,
    ctx: Context | None = None,
) -> T:
    """Park until a future or task is over; return its result, or raise what it raised.

    Works from goroutines and threads, for futures of `concurrent.futures` and for those of asyncio,
    whose loop has to run meanwhile, elsewhere. The future goes on when this ends early.

    Args:
        future: for a coroutine, what asyncio.run_coroutine_threadsafe(coroutine, loop) gives.
        timeout: the longest wait in seconds; None for ever.
        ctx: a Context that ends the wait when it is done.

    Raises:
        Cancelled: the future was cancelled.
        TimeoutError: it is not over by then.
        ContextCanceled, DeadlineExceeded: ctx is done.
        RuntimeError: it is of the loop that would be blocked, or of one that is closed.
        TypeError: it is no future.
        BaseException: what the future's work raised.

    Example:
        >>> import asyncio, gort
        >>> async def main():
        ...     task = asyncio.create_task(asyncio.sleep(0.001, "slept"))
        ...     return await gort.wait(gort.go(gort.from_future, task))
        >>> asyncio.run(main())
        'slept'
    """
    kind = type(future)
    if hasattr(kind, "_asyncio_future_blocking"):  # what asyncio.isfuture asks
        if not future.done():
            _until_done(future, timeout, ctx)  # type: ignore[arg-type]
    elif hasattr(kind, "set_running_or_notify_cancel"):
        if ctx is not None:
            over: Chan[None] = Chan()
            future.add_done_callback(lambda _: over.close())
            over.recv_ok(timeout, ctx)
        try:
            return future.result(timeout)  # type: ignore[call-arg]
        except Exception:
            if not future.cancelled():
                raise
    else:
        raise TypeError(f"gort.from_future() needs a future, not {kind.__name__}")
    if future.cancelled():
        raise Cancelled("the future was cancelled")
    return future.result()


def _until_done(future: Future[Any], timeout: float | None, ctx: Context | None) -> None:
    """Park until a future of asyncio is over; only its loop may touch its callbacks."""
    from asyncio import _get_running_loop

    loop = future.get_loop()
    if _get_running_loop() is loop:
        raise RuntimeError("from_future() would block the loop of its future: await it instead")
    done: Chan[None] = Chan()

    def close(_: object) -> None:
        done.close()

    try:
        loop.call_soon_threadsafe(future.add_done_callback, close)
    except RuntimeError:  # the loop is closed, after the future was over perhaps
        if future.done():
            return
        raise
    try:
        done.recv_ok(timeout, ctx)
    except BaseException:
        try:
            loop.call_soon_threadsafe(future.remove_done_callback, close)
        except RuntimeError:
            pass  # the loop is closed
        raise
