"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of x/time/rate/rate_test.go, in a bubble's time: TestLimit, TestEvery, TestLimiterBurst1, TestLimiterBurst3,
TestLimiter_noTruncationErrors, TestSimultaneousRequests, TestLongRunningQPS, TestSimpleReserve, TestMix,
TestCancelInvalid, TestCancelLast, TestCancelTooLate, TestCancel0Tokens, TestCancel1Token, TestCancelMulti,
TestReserveSetLimit, TestReserveSetBurst, TestReserveSetLimitCancel, TestReserveMax, TestWaitSimple,
TestWaitCancel, TestWaitTimeout, TestWaitInf, TestZeroLimit. Not those in which time goes back.
"""

import math

import gort
import pytest
from gort import _core
from gort.rate import Inf, Limiter, every
from gort.testing import synctest

D = 0.1


class Times:
    """The bubble's time in multiples of D since it was made."""

    def __init__(self):
        self.start = _core._now_ns()

    def now(self):
        return round((_core._now_ns() - self.start) / (D * 1e9))

    def at(self, t):
        left = self.start + round(t * D * 1e9) - _core._now_ns()
        assert left >= 0
        gort.sleep(left / 1e9)


def run(limiter, steps):
    times = Times()
    for i, (t, n, ok) in enumerate(steps):
        times.at(t)
        assert limiter.allow_n(n) is ok, i


def reserve(times, limiter, t, n, act, ok=True, most=None):
    times.at(t)
    most_ns = 2**63 - 1 if most is None else int(most * 1e9)
    r = limiter._reserve(n, _core._now_ns(), most_ns)
    assert r.ok is ok
    if ok:
        assert times.now() + round(r.delay() / D) == act
    return r


def test_limit():
    assert Limiter(10, 1).limit != Inf


def test_every():
    for interval, limit in [
        (0, Inf), (-1, Inf), (1e-9, 1e9), (1e-6, 1e6), (1e-3, 1e3), (0.01, 100), (0.1, 10), (1, 1),
        (2, 0.5), (2.5, 0.4), (4, 0.25), (10, 0.1), (2**63 / 1e9, 1e9 / 2**63),
    ]:  # fmt: skip
        assert every(interval) == pytest.approx(limit, rel=1e-9)


@synctest.test
def test_limiter_burst_1():
    run(
        Limiter(10, 1),
        [
            (0, 1, True), (0, 1, False), (0, 1, False),
            (1, 1, True), (1, 1, False), (1, 1, False),
            (2, 2, False),  # burst size is 1, so n=2 always fails
            (2, 1, True), (2, 1, False),
        ],
    )  # fmt: skip


@synctest.test
def test_limiter_burst_3():
    run(
        Limiter(10, 3),
        [
            (0, 2, True), (0, 2, False), (0, 1, True), (0, 1, False),
            (1, 4, False),
            (2, 1, True), (3, 1, True), (4, 1, True), (4, 1, True), (4, 1, False), (4, 1, False),
            (9, 3, True), (9, 0, True),
        ],
    )  # fmt: skip


def test_limiter_no_truncation_errors():
    assert Limiter(0.7692307692307693, 1).allow()


@synctest.test
def test_simultaneous_requests():
    burst, requests = 5, 15
    limiter, oks = Limiter(1, burst), []
    wg = gort.WaitGroup()
    for _ in range(requests):
        wg.go(lambda: oks.append(limiter.allow()))
    wg.wait()
    assert sum(oks) == burst and len(oks) == requests


@synctest.test
def test_long_running_qps():
    limit, burst, oks = 100, 100, []
    limiter, wg = Limiter(limit, burst), gort.WaitGroup()
    start = _core._now_ns()
    while _core._now_ns() < start + 5 * 10**9:
        wg.go(lambda: oks.append(limiter.allow()))
        gort.sleep(0.002)
    wg.wait()
    ideal = burst + limit * (_core._now_ns() - start) / 1e9
    assert int(0.999 * ideal) <= sum(oks) <= ideal + 1


@synctest.test
def test_simple_reserve():
    times, lim = Times(), Limiter(10, 2)
    reserve(times, lim, 0, 2, 0)
    reserve(times, lim, 0, 2, 2)
    reserve(times, lim, 3, 2, 4)


@synctest.test
def test_mix():
    times, lim = Times(), Limiter(10, 2)
    reserve(times, lim, 0, 3, 1, ok=False)  # n > burst
    reserve(times, lim, 0, 2, 0)
    times.at(1)
    assert not lim.allow_n(2)  # not enough tokens
    reserve(times, lim, 1, 2, 2)
    assert not lim.allow_n(1)  # negative tokens
    times.at(3)
    assert lim.allow_n(1)


@synctest.test
def test_cancel_invalid():
    times, lim = Times(), Limiter(10, 2)
    reserve(times, lim, 0, 2, 0)
    r = reserve(times, lim, 0, 3, 3, ok=False)
    r.cancel()  # no effect
    assert r.delay() == math.inf
    reserve(times, lim, 0, 2, 2)  # did not get extra tokens


@synctest.test
def test_cancel_last():
    times, lim = Times(), Limiter(10, 2)
    reserve(times, lim, 0, 2, 0)
    r = reserve(times, lim, 0, 2, 2)
    times.at(1)
    r.cancel()  # got 2 tokens back
    reserve(times, lim, 1, 2, 2)


@synctest.test
def test_cancel_too_late():
    times, lim = Times(), Limiter(10, 2)
    reserve(times, lim, 0, 2, 0)
    r = reserve(times, lim, 0, 2, 2)
    times.at(3)
    r.cancel()  # no effect
    reserve(times, lim, 3, 2, 4)


@synctest.test
def test_cancel_0_tokens():
    times, lim = Times(), Limiter(10, 2)
    reserve(times, lim, 0, 2, 0)
    r = reserve(times, lim, 0, 1, 1)
    reserve(times, lim, 0, 1, 2)
    r.cancel()  # got 0 tokens back
    reserve(times, lim, 0, 1, 3)


@synctest.test
def test_cancel_1_token():
    times, lim = Times(), Limiter(10, 2)
    reserve(times, lim, 0, 2, 0)
    r = reserve(times, lim, 0, 2, 2)
    reserve(times, lim, 0, 1, 3)
    times.at(2)
    r.cancel()  # got 1 token back
    reserve(times, lim, 2, 2, 4)


@synctest.test
def test_cancel_multi():
    times, lim = Times(), Limiter(10, 4)
    reserve(times, lim, 0, 4, 0)
    a = reserve(times, lim, 0, 3, 3)
    reserve(times, lim, 0, 1, 4)
    c = reserve(times, lim, 0, 1, 5)
    times.at(1)
    c.cancel()  # get 1 token back
    a.cancel()  # get 2 tokens back, as if c was never reserved
    reserve(times, lim, 1, 3, 5)


@synctest.test
def test_reserve_set_limit():
    times, lim = Times(), Limiter(5, 2)
    reserve(times, lim, 0, 2, 0)
    reserve(times, lim, 0, 2, 4)
    times.at(2)
    lim.set_limit(10)
    reserve(times, lim, 2, 1, 4)  # violates limit and burst


@synctest.test
def test_reserve_set_burst():
    times, lim = Times(), Limiter(5, 2)
    reserve(times, lim, 0, 2, 0)
    reserve(times, lim, 0, 2, 4)
    times.at(3)
    lim.set_burst(4)
    reserve(times, lim, 3, 4, 3 + 9)


@synctest.test
def test_reserve_set_limit_cancel():
    times, lim = Times(), Limiter(5, 2)
    reserve(times, lim, 0, 2, 0)
    r = reserve(times, lim, 0, 2, 4)
    times.at(2)
    lim.set_limit(10)
    r.cancel()  # 2 tokens back
    reserve(times, lim, 2, 2, 3)


@synctest.test
def test_reserve_max():
    times, lim = Times(), Limiter(10, 2)
    reserve(times, lim, 0, 2, 0, most=D)
    reserve(times, lim, 0, 1, 1, most=D)  # for the close future
    reserve(times, lim, 0, 1, 2, ok=False, most=D)  # too far in the future


def wait(limiter, n, delay, error=None, timeout=None):
    times = Times()
    if error is None:
        limiter.wait_n(n, timeout)
    else:
        with pytest.raises(error):
            limiter.wait_n(n, timeout)
    assert times.now() == delay


@synctest.test
def test_wait_simple():
    lim = Limiter(10, 3)
    with pytest.raises(ValueError, match=r"rate: Wait\(n=4\) exceeds limiter's burst 3"):
        lim.wait_n(4)
    wait(lim, 2, 0)
    wait(lim, 3, 2)


@synctest.test
def test_wait_cancel():
    lim = Limiter(10, 3)
    wait(lim, 2, 0)  # after this one token
    g = gort.go(lim.wait_n, 3)
    gort.sleep(D)
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join()
    # got 3 tokens back, has 2
    wait(lim, 2, 0)


@synctest.test
def test_wait_timeout():
    lim = Limiter(10, 3)
    wait(lim, 2, 0, timeout=D)
    wait(lim, 3, 0, error=TimeoutError, timeout=D)


@synctest.test
def test_wait_inf():
    wait(Limiter(Inf, 0), 3, 0)


def test_zero_limit():
    lim = Limiter(0, 1)
    assert lim.allow()
    assert not lim.allow()
