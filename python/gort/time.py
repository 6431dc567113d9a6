"""Go's timers and tickers, with the rules of Go 1.23.

They are compiled: a timer is an entry in a heap of the scheduler, no goroutine. A timer's channel
looks unbuffered. After stop() or reset() no stale value is ever received; a ticker whose reader is
slow drops ticks. A timer belongs to its channel: when nobody refers to that any more it is
collected, stopped or not. A timer that is set counts as something that may wake the program, so
there is no DeadlockError while there is one.
"""

from __future__ import annotations

from gort import _core
from gort._core import Chan, sleep
from gort._typing import TYPE_CHECKING
from gort.chan import RecvChan

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Ticker", "Timer", "after", "after_func", "sleep", "tick"]


class _TimeChan(RecvChan[float]):
    """The channel of a timer: fed on time, and without a visible buffer."""

    __slots__ = ()

    def __len__(self) -> int:
        """Say 0: the channel looks unbuffered."""
        return 0

    @property
    def cap(self) -> int:
        """0: the channel looks unbuffered."""
        return 0

    # A look without waiting sees a timer whose time is up, even if nobody has scheduled since.

    @property
    def _recv_chan(self) -> Chan[float]:
        _core._poll_timers()
        return self._ch

    def try_recv(self) -> tuple[float | None, bool, bool]:
        """Receive if that needs no waiting: (value, ok, ready); never parks."""
        _core._poll_timers()
        return self._ch.try_recv()


class Timer(_core.Timer):
    """Sends the time (seconds since 1970, float) on `c` once, after `seconds` seconds.

    Works from goroutines, the main thread and plain threads; nothing here parks.

    Args:
        seconds: from now; zero or less fires at once.

    Raises:
        TypeError: seconds is not a number.
        ValueError: seconds is nan.

    Example:
        >>> import gort
        >>> timer = gort.Timer(0.01)
        >>> timer.c.recv() > 0
        True
        >>> timer.stop()
        False
    """

    __slots__ = ()

    @property
    def c(self) -> RecvChan[float] | None:
        """The channel the time comes on; None for a timer made by after_func."""
        return None if self._chan is None else _TimeChan(self._chan)

    def stop(self) -> bool:
        """Stop the timer; never parks, and does not wait for an after_func function.

        Returns:
            True when this call prevented the value from being received (or the function from
            being called), even when the time was already up; False when it was too late.
        """
        return super().stop()

    def reset(self, seconds: float) -> bool:
        """Let the timer run for `seconds` seconds from now; no value of before is received.

        Returns:
            What stop() would have returned.
        """
        return super().reset(seconds)


class Ticker(_core.Ticker):
    """Sends the time on `c` every `seconds` seconds; a slow reader finds one tick, not many.

    Args:
        seconds: the period, greater than zero.

    Raises:
        ValueError: "non-positive interval for NewTicker".

    Example:
        >>> import gort
        >>> ticker = gort.Ticker(0.01)
        >>> first, second = ticker.c.recv(), ticker.c.recv()
        >>> ticker.stop()
        >>> second > first
        True
    """

    __slots__ = ()

    @property
    def c(self) -> RecvChan[float]:
        """The channel the ticks come on."""
        return _TimeChan(self._chan)

    def stop(self) -> None:
        """Stop ticking; no tick is received afterwards. The channel is not closed."""
        super().stop()

    def reset(self, seconds: float) -> None:
        """Tick every `seconds` seconds from now on.

        Raises:
            ValueError: "non-positive interval for Ticker.Reset".
        """
        super().reset(seconds)


def after(seconds: float, /) -> RecvChan[float]:
    """Give a channel that receives the time once, after `seconds` seconds; never parks.

    Args:
        seconds: from now; zero or less is at once.

    Example:
        >>> import gort
        >>> index, _, ok = gort.select(gort.recv(gort.Chan()), gort.recv(gort.after(0.01)))
        >>> index, ok
        (1, True)
    """
    return _TimeChan(_core._time_chan(seconds, False))


def after_func(seconds: float, fn: Callable[..., object], /, *args: Any, **kwargs: Any) -> Timer:
    """Call `fn` in a goroutine of its own after `seconds` seconds; never parks.

    A call that is due where memory is refused comes once there is some.

    Args:
        seconds: from now.
        fn: what to call.
        *args: its positional arguments.
        **kwargs: its keyword arguments.

    Returns:
        The timer; its stop() prevents the call, its `c` is None.

    Raises:
        TypeError: fn is not callable.

    Example:
        >>> import gort
        >>> done = gort.Chan()
        >>> timer = gort.after_func(0.01, done.send, "called")
        >>> done.recv()
        'called'
    """
    if not callable(fn):
        raise TypeError(f"after_func() needs a callable, not {type(fn).__name__}")
    return _core._after_func(Timer, seconds, fn, args, kwargs)


def tick(seconds: float, /) -> RecvChan[float] | None:
    """Give the channel of a new Ticker; None when `seconds` is zero or less. Never parks.

    The ticker ends when nobody refers to the channel any more.

    Args:
        seconds: the period.

    Example:
        >>> import gort
        >>> for _ in gort.tick(0.01):
        ...     break
    """
    if seconds <= 0:
        return None
    return _TimeChan(_core._time_chan(seconds, True))
