"""Limiter against exact arithmetic: what is allowed, when reservations are due, what cancelling gives back."""

from __future__ import annotations

from fractions import Fraction

import gort
from gort import _core
from gort.rate import Limiter
from gort.testing import synctest
from hypothesis import given, settings
from hypothesis import strategies as st

SECOND = 10**9


class Exact:
    """Every grant with its time; a bucket is what the grants leave of it."""

    def __init__(self, limit, burst, now):
        self.limit, self.burst = limit, burst
        self.tokens, self.last = Fraction(burst), now
        self.newest = None

    def advance(self, now):
        more = Fraction(now - self.last, SECOND) * self.limit
        self.tokens = min(self.tokens + more, Fraction(self.burst))
        self.last = now

    def ask(self, n, now, most=None):
        """When it may happen, or None; `most`: the longest wait in ns."""
        self.advance(now)
        missing = max(n - self.tokens, Fraction(0))
        wait = missing / self.limit * SECOND
        if n > self.burst or (most is not None and wait > most):
            return None
        self.tokens -= n
        self.newest = now + wait
        return self.newest

    def give_back(self, n, due, now):
        """What was reserved for `due`, of which those behind it have used a part."""
        self.advance(now)
        if n == 0 or due < now:
            return
        restored = n - (self.newest - due) / SECOND * self.limit
        if restored > 0:
            self.tokens = min(self.tokens + restored, Fraction(self.burst))
            before = due - Fraction(n, self.limit) * SECOND
            if due == self.newest and before >= now:
                self.newest = before


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("allow"), st.integers(0, 6)),
        st.tuples(st.just("reserve"), st.integers(0, 6)),
        st.tuples(st.just("reserve"), st.integers(1, 3)),
        st.tuples(st.just("cancel"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(0, 3)),
        st.tuples(st.just("wait_until"), st.integers(0, 16)),
        st.tuples(st.just("sleep"), st.integers(1, 16)),
        st.tuples(st.just("limit"), st.sampled_from([1, 2, 4, 8])),
        st.tuples(st.just("burst"), st.integers(0, 6)),
    ),
    min_size=1,
    max_size=60,
)


def program(limit, burst, steps):
    """Times are eighths of seconds and limits powers of two, so that floats are exact, too."""
    limiter, exact = Limiter(limit, burst), Exact(limit, burst, _core._now_ns())
    reserved = []
    for what, n in steps:
        now = _core._now_ns()
        if what == "allow":
            assert limiter.allow_n(n) == (exact.ask(n, now, 0) is not None)
        elif what == "reserve":
            due, got = exact.ask(n, now), limiter.reserve_n(n)
            assert got.ok == (due is not None)
            if due is not None:
                assert got.delay() == (due - now) / SECOND
                reserved.append((got, n, due, exact.limit))
        elif what == "cancel" and n < len(reserved):
            got, tokens, due, then = reserved.pop(n)
            if then == exact.limit:  # else Go counts what is behind it by the limit of then
                got.cancel()
                exact.give_back(tokens, due, now)
        elif what == "wait" and n <= exact.burst:
            due = exact.ask(n, now)
            limiter.wait_n(n)
            assert _core._now_ns() == max(due, now)
        elif what == "wait_until" and exact.burst:
            due = exact.ask(1, now, Fraction(n * SECOND, 8))
            try:
                limiter.wait(timeout=n / 8)
            except TimeoutError:
                assert due is None and _core._now_ns() == now
            else:
                assert _core._now_ns() == due
        elif what == "sleep":
            gort.sleep(n / 8)
        elif what == "limit":
            exact.advance(now)
            exact.limit = n
            limiter.set_limit(n)
        elif what == "burst":
            exact.advance(now)
            exact.burst = n
            limiter.set_burst(n)
        exact.advance(_core._now_ns())
        assert limiter.tokens() == exact.tokens


@settings(max_examples=200, deadline=None, derandomize=True)
@given(limit=st.sampled_from([1, 2, 4, 8]), burst=st.integers(0, 6), steps=STEPS)
def test_limiter_is_exact(limit, burst, steps):
    synctest.run(program, limit, burst, steps)
