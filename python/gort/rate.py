"""A limiter of how often something happens: a token bucket, with the rules of Go's x/time/rate.

The bucket holds at most `burst` tokens and gets `limit` of them per second; an event takes one. Who
may not go on at once can be refused (`allow`), told when (`reserve`), or wait (`wait`). Nothing
here polls or has a goroutine: time is looked at when somebody asks. The clock is monotonic; in a
bubble of gort.testing.synctest it is the bubble's.
"""

from __future__ import annotations

import math

from gort._core import Mutex, _check_context, _context_now, _now_ns, sleep
from gort._typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gort._core import Context

__all__ = ["Inf", "Limiter", "Reservation", "every"]

#: The limit that allows everything, whatever the burst.
Inf = math.inf

#: A wait without an end, in ns.
_FOREVER = 2**63 - 1


def every(seconds: float, /) -> float:
    """Give the limit of one event per `seconds` seconds; zero or less is Inf. Never parks.

    Args:
        seconds: between two events.

    Example:
        >>> from gort.rate import every
        >>> every(0.25)
        4.0
    """
    return Inf if seconds <= 0 else 1 / seconds


def _checked(limit: float) -> float:
    if not limit >= 0:
        raise ValueError(f"limit must be a non-negative number of events per second, not {limit}")
    return float(limit)


def _count(n: int, what: str) -> int:
    if n < 0:
        raise ValueError(f"{what} must be 0 or more, not {n}")
    return n


def _wait_ns(limit: float, tokens: float) -> int:
    """How long it takes until there are so many more."""
    if limit <= 0:
        return _FOREVER
    ns = tokens / limit * 1e9
    return _FOREVER if ns > _FOREVER else int(ns)


def _within(ctx: Context, timeout: float | None) -> float | None:
    """The longest wait that ends before the deadline of `ctx` does, which is not done."""
    _check_context(ctx)
    deadline = ctx.deadline()
    if deadline is None:
        return timeout
    left = max(deadline - _context_now(), 0.0)
    return left if timeout is None else min(timeout, left)


class Reservation:
    """Tokens that are taken, perhaps of the future: what `reserve` and `reserve_n` give.

    `ok` says whether there is one: False if it asks for more than the burst.

    Example:
        >>> from gort.rate import Limiter
        >>> limiter = Limiter(0.1, 1)
        >>> limiter.reserve().delay()
        0.0
        >>> later = limiter.reserve()
        >>> 0 < later.delay() <= 10
        True
        >>> later.cancel()
    """

    __slots__ = ("_at_ns", "_limit", "_limiter", "_tokens", "ok")

    def __init__(self, limiter: Limiter, limit: float, ok: bool, tokens: int, at_ns: int) -> None:
        """Made by a Limiter."""
        self._limiter, self._limit = limiter, limit
        self.ok = ok
        self._tokens, self._at_ns = tokens, at_ns

    def delay(self) -> float:
        """Give the seconds to wait from now before what was reserved may happen; never parks.

        Returns:
            0 when it may happen at once; math.inf when it never may.
        """
        return self._delay_from(_now_ns())

    def _delay_from(self, now_ns: int) -> float:
        if not self.ok or self._at_ns == _FOREVER:
            return math.inf
        return max(self._at_ns - now_ns, 0) / 1e9

    def cancel(self) -> None:
        """Give the tokens back, as far as later reservations do not count on them; never parks.

        It does nothing once it is time.
        """
        if self.ok:
            self._limiter._restore(self)


class Limiter:
    """Lets events happen `limit` times a second on average, and `burst` at once.

    `limit` may be Inf: then everything is allowed. At 0 only the first burst is. An event of a
    burst of `n` is one with `n` tokens; more than `burst` are never allowed. Works from goroutines
    and threads.

    Args:
        limit: events per second; `every(seconds)` gives one from an interval.
        burst: tokens at most; as many are there in the beginning.

    Raises:
        ValueError: limit or burst is negative, or limit is nan.

    Example:
        >>> from gort.rate import Limiter
        >>> limiter = Limiter(0.1, 2)
        >>> [limiter.allow() for _ in range(3)]
        [True, True, False]
        >>> limiter = Limiter(100, 2)
        >>> for _ in range(3):
        ...     limiter.wait()
    """

    __slots__ = ("__weakref__", "_burst", "_limit", "_mutex", "_state")

    def __init__(self, limit: float, burst: int) -> None:
        """Begin with a full bucket."""
        self._limit, self._burst = _checked(limit), _count(burst, "burst")
        self._mutex = Mutex()
        # Tokens, as of when, and when the last event reserved is to happen: in one piece, so that
        # whoever is ended in between leaves no half of it.
        self._state = (float(burst), _now_ns(), 0)

    @property
    def limit(self) -> float:
        """Events per second."""
        return self._limit

    @property
    def burst(self) -> int:
        """Tokens at most."""
        return self._burst

    def tokens(self) -> float:
        """Give the tokens there are now; less than 0: they are reserved."""
        with self._mutex:
            return self._advance(_now_ns())

    def set_limit(self, limit: float) -> None:
        """Change the limit from now on; reservations made before keep their time.

        Raises:
            ValueError: limit is negative or nan.
        """
        limit = _checked(limit)
        with self._mutex:
            now_ns = _now_ns()
            self._state = (self._advance(now_ns), now_ns, self._state[2])
            self._limit = limit

    def set_burst(self, burst: int) -> None:
        """Change the burst from now on; reservations made before keep their time.

        Raises:
            ValueError: burst is negative.
        """
        _count(burst, "burst")
        with self._mutex:
            now_ns = _now_ns()
            self._state = (self._advance(now_ns), now_ns, self._state[2])
            self._burst = burst

    def allow(self) -> bool:
        """Say whether an event may happen now, and count it if so; never parks for a token."""
        return self.allow_n(1)

    def allow_n(self, n: int) -> bool:
        """Say whether `n` events may happen now, and count them if so; never parks for a token.

        Raises:
            ValueError: n is negative.
        """
        return self._reserve(n, _now_ns(), 0).ok

    def reserve(self) -> Reservation:
        """Count an event and give when it may happen: wait for its delay(), or cancel it."""
        return self.reserve_n(1)

    def reserve_n(self, n: int) -> Reservation:
        """Count `n` events and give when they may happen; `ok` is False if n exceeds the burst.

        Raises:
            ValueError: n is negative.
        """
        return self._reserve(n, _now_ns(), _FOREVER)

    def wait(self, timeout: float | None = None, ctx: Context | None = None) -> None:
        """Park until an event may happen, and count it. Who comes first goes first.

        Args:
            timeout: the longest wait in seconds; None for ever.
            ctx: a Context that ends the wait when it is done; its deadline counts as a timeout.

        Raises:
            TimeoutError: it may not happen by then; raised at once, and nothing is counted.
            ContextCanceled, DeadlineExceeded: ctx is done; nothing is counted.
            ValueError: the burst is 0; or timeout is negative or nan.
        """
        self.wait_n(1, timeout, ctx)

    def wait_n(self, n: int, timeout: float | None = None, ctx: Context | None = None) -> None:
        """Park until `n` events may happen, and count them. Who is cancelled counts none.

        Args:
            n: tokens.
            timeout: the longest wait in seconds; None for ever.
            ctx: a Context that ends the wait when it is done; its deadline counts as a timeout.

        Raises:
            TimeoutError: they may not happen by then; raised at once, and nothing is counted.
            ContextCanceled, DeadlineExceeded: ctx is done; nothing is counted.
            ValueError: n is negative or exceeds the burst; or timeout is negative or nan.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError("timeout must be a non-negative number of seconds")
        if n > self._burst and self._limit != Inf:
            raise ValueError(f"rate: Wait(n={n}) exceeds limiter's burst {self._burst}")
        if ctx is not None:
            timeout = _within(ctx, timeout)
        now_ns = _now_ns()
        most_ns = _FOREVER if timeout is None else int(min(timeout * 1e9, _FOREVER))
        reservation = self._reserve(n, now_ns, most_ns)
        if not reservation.ok:
            raise TimeoutError(f"rate: Wait(n={n}) would exceed context deadline")
        delay = reservation._delay_from(now_ns)
        if delay > 0:
            try:
                sleep(delay, ctx=ctx)
            except BaseException:
                reservation.cancel()
                raise

    def _advance(self, now_ns: int) -> float:
        """The tokens there are by then."""
        tokens, last_ns, _ = self._state
        if self._limit == Inf:
            return float(self._burst)
        return min(tokens + max(now_ns - last_ns, 0) / 1e9 * self._limit, float(self._burst))

    def _reserve(self, n: int, now_ns: int, most_ns: int) -> Reservation:
        """Take `n` tokens if that needs no more than `most_ns` of waiting."""
        _count(n, "n")
        with self._mutex:
            limit = self._limit
            if limit == Inf:
                return Reservation(self, limit, True, n, now_ns)
            tokens = self._advance(now_ns) - n
            wait_ns = _wait_ns(limit, -tokens) if tokens < 0 else 0
            if n > self._burst or wait_ns > most_ns:
                return Reservation(self, limit, False, 0, 0)
            at_ns = _FOREVER if wait_ns == _FOREVER else now_ns + wait_ns
            self._state = (tokens, now_ns, at_ns)
            return Reservation(self, limit, True, n, at_ns)

    def _restore(self, reservation: Reservation) -> None:
        """Take tokens back that were not used."""
        with self._mutex:
            now_ns, at_ns = _now_ns(), reservation._at_ns
            last_event_ns = self._state[2]
            if self._limit == Inf or reservation._tokens == 0 or at_ns < now_ns:
                return
            # Tokens that were reserved after it, and depend on its being there, are not restored.
            later = max(last_event_ns - at_ns, 0) / 1e9 * reservation._limit
            restored = reservation._tokens - (later if reservation._limit > 0 else 0)
            if restored <= 0:
                return
            tokens = min(self._advance(now_ns) + restored, float(self._burst))
            if at_ns == last_event_ns:
                before_ns = at_ns - _wait_ns(reservation._limit, reservation._tokens)
                if before_ns >= now_ns:
                    last_event_ns = before_ns
            self._state = (tokens, now_ns, last_event_ns)
