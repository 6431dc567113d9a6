"""gort.rate, what Go's tests leave out: waiting in turn, cancelling, changes while others wait, bad input."""

from __future__ import annotations

import math
from time import monotonic

import gort
import pytest
from gort import _core
from gort.rate import Inf, Limiter, every
from gort.testing import no_leaks, synctest
from waiting import OnThread, join_all


def test_all_wait_their_turn(anywhere):
    def body():
        limiter, begun = Limiter(1000, 2), monotonic()
        for _ in range(10):
            limiter.wait()
        assert monotonic() - begun >= 0.008

    anywhere(body)


@synctest.test
def test_those_who_wait_go_on_at_the_rate_in_order():
    limiter, times = Limiter(2, 1), []
    begun = _core._now_ns()

    def waits(n):
        limiter.wait()
        times.append((n, (_core._now_ns() - begun) / 1e9))

    for n in range(5):
        gort.go(waits, n)
        gort.gosched()
    gort.sleep(10)
    assert times == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]
    assert limiter.tokens() == 1.0


@synctest.test
def test_time_out_is_told_at_once_and_counts_nothing():
    limiter = Limiter(1, 1)
    limiter.wait(timeout=0)
    begun = _core._now_ns()
    with pytest.raises(TimeoutError, match=r"rate: Wait\(n=1\) would exceed context deadline"):
        limiter.wait(timeout=0.999)
    assert _core._now_ns() == begun and limiter.tokens() == 0.0
    limiter.wait(timeout=1)
    assert _core._now_ns() - begun == 10**9


@synctest.test
def test_who_is_cancelled_gives_back_what_nobody_counts_on():
    with no_leaks():
        limiter = Limiter(1, 1)
        limiter.wait()
        first = gort.go(limiter.wait)
        gort.gosched()
        second = gort.go(limiter.wait)
        gort.sleep(0.25)
        second.cancel()
        with pytest.raises(gort.Cancelled):
            second.join()
        assert limiter.tokens() == -0.75
        first.join()


@synctest.test
def test_tokens_and_reservations():
    limiter = Limiter(4, 8)
    assert limiter.tokens() == 8.0 and limiter.allow_n(8)
    later = limiter.reserve_n(6)
    assert later.ok and later.delay() == 1.5 and limiter.tokens() == -6.0
    gort.sleep(1)
    assert later.delay() == 0.5
    gort.sleep(1)
    assert later.delay() == 0.0
    later.cancel()  # too late
    assert limiter.tokens() == 2.0
    refused = limiter.reserve_n(9)
    assert not refused.ok and refused.delay() == math.inf
    gort.sleep(100)
    assert limiter.tokens() == 8.0


@synctest.test
def test_limit_and_burst_change_from_now_on():
    limiter = Limiter(1, 10)
    limiter.allow_n(10)
    gort.sleep(2)
    limiter.set_limit(10)
    assert limiter.limit == 10.0 and limiter.tokens() == 2.0
    gort.sleep(0.5)
    assert limiter.tokens() == 7.0
    limiter.set_burst(3)
    assert limiter.burst == 3 and limiter.tokens() == 3.0
    limiter.set_limit(Inf)
    assert limiter.allow_n(100) and limiter.tokens() == 3.0
    limiter.set_limit(0)
    assert limiter.tokens() == 3.0 and limiter.allow_n(3)
    gort.sleep(10**6)
    assert not limiter.allow()


@synctest.test
def test_without_a_limit_above_zero_what_is_reserved_never_comes():
    limiter = Limiter(0, 1)
    limiter.wait()
    never = limiter.reserve()
    assert never.ok and never.delay() == math.inf
    never.cancel()
    with pytest.raises(TimeoutError):
        limiter.wait(timeout=10**6)


def test_many_at_once_get_no_more_than_there_is():
    limiter = Limiter(1e-9, 500)

    def takes():
        return sum(limiter.allow() for _ in range(200))

    gs = [gort.go(takes) for _ in range(4)] + [OnThread(takes) for _ in range(4)]
    assert sum(join_all(gs)) == 500


def test_bad_arguments():
    limiter = Limiter(every(1), 3)
    for limit in (-1, math.nan):
        for use in (
            lambda limit=limit: Limiter(limit, 1),
            lambda limit=limit: limiter.set_limit(limit),
        ):
            with pytest.raises(ValueError, match="limit must be a non-negative number of events"):
                use()
    for use in (lambda: Limiter(1, -1), lambda: limiter.set_burst(-1)):
        with pytest.raises(ValueError, match="burst must be 0 or more, not -1"):
            use()
    for use in (limiter.allow_n, limiter.reserve_n, limiter.wait_n):
        with pytest.raises(ValueError, match="n must be 0 or more, not -2"):
            use(-2)
    for timeout in (-1, math.nan):
        with pytest.raises(ValueError, match="timeout must be"):
            limiter.wait(timeout)
    with pytest.raises(ValueError, match=r"rate: Wait\(n=4\) exceeds limiter's burst 3"):
        limiter.wait_n(4)
    with pytest.raises(TypeError):
        Limiter("fast", 1)
    assert limiter.tokens() == 3.0
