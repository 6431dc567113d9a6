"""Time-outs of calls that wait more than once: when they end, and what is left of them."""

from __future__ import annotations

from gort._core import _now_ns


def until(timeout: float | None) -> int | None:
    """Give when a wait of `timeout` seconds that begins now is over, in ns; None: never.

    The clock is monotonic; in a bubble of gort.testing.synctest it is the bubble's.

    Raises:
        ValueError: timeout is negative or nan.
    """
    if timeout is None:
        return None
    if not timeout >= 0:
        raise ValueError("timeout must be a non-negative number of seconds")
    return _now_ns() + int(min(timeout, 9e9) * 1e9)


def left(until_ns: int | None) -> float | None:
    """Give the seconds from now until then, 0 if that is over; None for None."""
    return None if until_ns is None else max(until_ns - _now_ns(), 0) / 1e9
