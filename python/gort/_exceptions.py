"""The exceptions of gort.

The whole tree::

    BaseException
    ├── GoroutineExit          raised inside a goroutine by goexit() and by cancel()
    └── Exception
        ├── ChanClosed         send on, close of, or receive from a closed channel
        ├── Cancelled          what join() raises for a goroutine that cancel() ended
        ├── ContextCanceled    a context is done because somebody cancelled it
        ├── TimeoutError
        │   └── DeadlineExceeded   a context is done because its deadline has passed
        └── RuntimeError
            ├── DeadlockError  all goroutines are asleep and nothing can wake them
            └── RuntimeStopped the runtime is shutting down, or the goroutine is another process's

Time-outs are the built-in TimeoutError; wrong arguments are the built-in TypeError and ValueError.
The compiled core takes these classes from here by name.
"""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "ChanClosed",
    "ContextCanceled",
    "DeadlineExceeded",
    "DeadlockError",
    "GoroutineExit",
    "RuntimeStopped",
]


class GoroutineExit(BaseException):
    """Ends the goroutine it is raised in: by goexit(), or at its next park after cancel().

    It is a BaseException so that ``except Exception`` does not stop it; ``finally`` blocks run and
    nothing is reported. Let it pass, or raise it again after cleaning up.

    Example:
        >>> import gort
        >>> def worker():
        ...     try:
        ...         gort.goexit()
        ...     finally:
        ...         print("cleaned up")
        >>> gort.go(worker).join()
        cleaned up
    """


class ChanClosed(Exception):
    """A channel is closed: the message says whether a send, a close or a receive found it so.

    Example:
        >>> import gort
        >>> ch = gort.Chan(1)
        >>> ch.close()
        >>> ch.send(1)
        Traceback (most recent call last):
        gort._exceptions.ChanClosed: send on closed channel
    """


class Cancelled(Exception):
    """The goroutine that was joined had been ended by its cancel().

    Example:
        >>> import gort
        >>> g = gort.go(gort.Chan().recv)
        >>> g.cancel()
        True
        >>> try:
        ...     g.join()
        ... except gort.Cancelled:
        ...     print("cancelled")
        cancelled
    """


class ContextCanceled(Exception):
    """A context is done: its cancel was called, or that of one above it.

    Example:
        >>> import gort
        >>> ctx, cancel = gort.context.with_cancel(gort.context.background())
        >>> cancel()
        >>> ctx.err()
        ContextCanceled('context canceled')
    """

    def __init__(self, text: str = "context canceled") -> None:
        """Say `text`; the default is Go's."""
        super().__init__(text)


class DeadlineExceeded(TimeoutError):
    """A context is done: its deadline has passed, or that of one above it.

    Example:
        >>> import gort
        >>> ctx, cancel = gort.context.with_timeout(gort.context.background(), 0)
        >>> ctx.err()
        DeadlineExceeded('context deadline exceeded')
    """

    def __init__(self, text: str = "context deadline exceeded") -> None:
        """Say `text`; the default is Go's."""
        super().__init__(text)


class DeadlockError(RuntimeError):
    """Every goroutine is asleep and no timer, descriptor or thread can wake one.

    The message opens with Go's "all goroutines are asleep - deadlock!" and goes on with a dump of
    every goroutine and what it waits for; `dump` is that second part alone.
    """

    @property
    def dump(self) -> str:
        """The listing of all goroutines with their wait reasons, as text."""
        return str(self).partition("\n")[2].lstrip("\n")


class RuntimeStopped(RuntimeError):
    """The runtime has shut down (the interpreter is ending): nothing can be started or awaited.

    Also what join() raises in a forked child for a goroutine that stayed in the parent.
    """
