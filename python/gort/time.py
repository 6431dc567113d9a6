"""Go's timers and tickers, with the rules of Go 1.23.

A timer's channel looks unbuffered. After stop() or reset() no stale value is ever received; a
ticker whose reader is slow drops ticks. A timer or ticker nobody refers to any more is collected,
stopped or not: the goroutine that waits for it holds its channel only weakly.

Each running timer is one goroutine parked on a `stop` channel with a time-out. A `_Run` is one
such wait; `live` says under the timer's mutex whether it may still fire, which makes stop() and
firing exclude each other.
"""

from __future__ import annotations

import time as _time
from _weakref import ref
from math import isnan

from gort._core import Chan, Mutex, recv, select, sleep, spawn
from gort._exceptions import ChanClosed
from gort._typing import TYPE_CHECKING
from gort.chan import RecvChan

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Ticker", "Timer", "after", "after_func", "sleep", "tick"]

_FOREVER_SECONDS = 1e9  # longer waits (31 years) are the same as this one


def _seconds(value: float, what: str) -> float:
    """Check a duration in seconds: a real number, not nan."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number of seconds, not {type(value).__name__}")
    if isnan(limited := min(value, _FOREVER_SECONDS)):
        raise ValueError(f"{what} must not be nan")
    return float(max(-1.0, limited))


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


class _Run:
    """One wait of a timer, from start or reset to firing or stop."""

    __slots__ = ("__weakref__", "deadline", "live", "mutex", "period", "stop")

    def __init__(self, mutex: Mutex, seconds: float, period: float | None) -> None:
        self.mutex = mutex
        self.live = True
        self.stop: Chan[None] = Chan(0)
        self.deadline = _time.monotonic() + seconds
        self.period = period

    def end(self) -> None:
        """Wake the goroutine so that it ends; harmless the second time."""
        try:
            self.stop.close()
        except ChanClosed:
            pass

    def sleep(self) -> bool:
        """Park until the deadline; False when stopped before."""
        left = max(0.0, self.deadline - _time.monotonic())
        return select(recv(self.stop), timeout=left)[0] != 0

    def fire(self, feed: Callable[[], Chan[float] | None]) -> bool:
        """Put the time into the channel, if the wait is still live; say whether to go on."""
        with self.mutex:
            channel = feed()
            if not self.live or channel is None:
                return False
            channel.try_send(_time.time())
            if self.period is None:
                self.live = False
                return False
            late = _time.monotonic() - self.deadline
            self.deadline += self.period * (1 + max(0, int(late / self.period)))
            return True


def _feed(run: _Run, channel: Callable[[], Chan[float] | None]) -> None:
    """Goroutine of a timer or ticker that has a channel."""
    while run.sleep() and run.fire(channel):
        pass


def _call(run: _Run, fn: Callable[..., object], args: Any, kwargs: Any) -> None:
    """Goroutine of after_func."""
    if run.sleep():
        with run.mutex:
            if not run.live:
                return
            run.live = False
        fn(*args, **kwargs)


def _weak(channel: Chan[float], run: _Run) -> Callable[[], Chan[float] | None]:
    """Refer to `channel` so that its collection ends the wait."""
    try:
        return ref(channel, lambda _: run.end())
    except TypeError:  # a core whose Chan takes no weak references: such a timer needs its stop()
        return lambda: channel


class Timer:
    """Sends the time (seconds since 1970, float) on `c` once, after `seconds` seconds.

    Args:
        seconds: from now; zero or less fires at once.

    Example:
        >>> import gort
        >>> timer = gort.Timer(0.01)
        >>> timer.c.recv() > 0
        True
        >>> timer.stop()
        False
    """

    __slots__ = ("_chan", "_job", "_mutex", "_run")

    def __init__(self, seconds: float) -> None:
        """Start the timer."""
        self._setup(_seconds(seconds, "the duration of a Timer"), Chan(1), None)

    def _setup(self, seconds: float, chan: Chan[float] | None, job: Any) -> None:
        self._chan = chan
        self._job = job
        self._mutex = Mutex()
        self._start(seconds)

    def _start(self, seconds: float) -> None:
        """Begin a wait; the caller holds the mutex or is the constructor."""
        run = self._run = _Run(self._mutex, seconds, None)
        if self._chan is not None:
            spawn(_feed, (run, _weak(self._chan, run)), name="gort.Timer")
        else:
            fn = self._job[0]
            spawn(_call, (run, *self._job), name=getattr(fn, "__qualname__", None))

    @property
    def c(self) -> RecvChan[float] | None:
        """The channel the time comes on; None for a timer made by after_func."""
        return None if self._chan is None else _TimeChan(self._chan)

    def _halt(self) -> bool:
        """Stop the wait and take back an unread value; the caller holds the mutex."""
        if self._run.live:
            self._run.live = False
            self._run.end()
            return True
        return self._chan is not None and self._chan.try_recv()[2]

    def stop(self) -> bool:
        """Stop the timer; never parks for long, and does not wait for an after_func function.

        Returns:
            True when this call prevented the value from being received (or the function from
            being called), even when the time was already up; False when it was too late.
        """
        with self._mutex:
            return self._halt()

    def reset(self, seconds: float) -> bool:
        """Let the timer run for `seconds` seconds from now; no value of before is received.

        Returns:
            What stop() would have returned.
        """
        seconds = _seconds(seconds, "the duration of a Timer")
        with self._mutex:
            active = self._halt()
            self._start(seconds)
            return active


class Ticker:
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

    __slots__ = ("_chan", "_mutex", "_run")

    def __init__(self, seconds: float) -> None:
        """Start ticking."""
        seconds = self._period(seconds, "NewTicker")
        self._chan: Chan[float] = Chan(1)
        self._mutex = Mutex()
        self._start(seconds)

    @staticmethod
    def _period(seconds: float, where: str) -> float:
        seconds = _seconds(seconds, "the period of a Ticker")
        if seconds <= 0:
            raise ValueError(f"non-positive interval for {where}")
        return seconds

    def _start(self, seconds: float) -> None:
        """Begin ticking; the caller holds the mutex or is the constructor."""
        run = self._run = _Run(self._mutex, seconds, seconds)
        spawn(_feed, (run, _weak(self._chan, run)), name="gort.Ticker")

    @property
    def c(self) -> RecvChan[float]:
        """The channel the ticks come on."""
        return _TimeChan(self._chan)

    def _halt(self) -> None:
        """Stop ticking and drop an unread tick; the caller holds the mutex."""
        self._run.live = False
        self._run.end()
        self._chan.try_recv()

    def stop(self) -> None:
        """Stop ticking; no tick is received afterwards. The channel is not closed."""
        with self._mutex:
            self._halt()

    def reset(self, seconds: float) -> None:
        """Tick every `seconds` seconds from now on.

        Raises:
            ValueError: "non-positive interval for Ticker.Reset".
        """
        seconds = self._period(seconds, "Ticker.Reset")
        with self._mutex:
            self._halt()
            self._start(seconds)


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
    channel = Timer(seconds).c
    assert channel is not None
    return channel


def after_func(seconds: float, fn: Callable[..., object], /, *args: Any, **kwargs: Any) -> Timer:
    """Call `fn` in a goroutine of its own after `seconds` seconds; never parks.

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
    timer = Timer.__new__(Timer)
    timer._setup(_seconds(seconds, "the duration of a Timer"), None, (fn, args, kwargs))
    return timer


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
    if _seconds(seconds, "the period of a Ticker") <= 0:
        return None
    return Ticker(seconds).c
