"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of time/tick_test.go: TestTicker (counts and order, not lateness), TestTeardown, TestTick,
TestNewTickerLtZeroDuration, TestTickerResetLtZeroDuration, TestTimerGC; and of time/sleep_test.go:
TestTickerStress, TestTickerConcurrentStress, TestMultiWakeupTicker.
"""

import gc
import time

import gort
import pytest
from gort import Ticker, Timer, WaitGroup, after, go, tick
from waiting import LIMIT, join_all


def test_ticker():
    count, delta = 10, 0.002
    ticker = Ticker(delta)
    t0 = time.monotonic()
    for _ in range(count // 2):
        ticker.c.recv(timeout=LIMIT)
    ticker.reset(delta * 2)
    for _ in range(count - count // 2):
        ticker.c.recv(timeout=LIMIT)
    ticker.stop()
    # A late tick may be followed by one on time, so that the first of each half says nothing.
    assert time.monotonic() - t0 > delta * (count // 2 - 1) + 2 * delta * (count // 2 - 1)
    gort.sleep(2 * delta)
    assert not ticker.c.try_recv()[2], "Ticker did not shut down"


def test_teardown():
    for _ in range(3):
        ticker = Ticker(0.002)
        ticker.c.recv(timeout=LIMIT)
        ticker.stop()


def test_tick():
    assert tick(-1) is None


def test_new_ticker_lt_zero_duration():
    with pytest.raises(ValueError, match="non-positive interval for NewTicker"):
        Ticker(-1)


def test_ticker_reset_lt_zero_duration():
    with pytest.raises(ValueError, match="non-positive interval for Ticker.Reset"):
        Ticker(1).reset(0)


def test_ticker_stress():
    stop = []

    def collector():
        while not stop:
            gc.collect(0)  # a full one takes a millisecond under a test runner
            gort.sleep(1e-9)

    g = go(collector)
    ticker = Ticker(1e-9)
    for _ in range(100):
        ticker.c.recv(timeout=LIMIT)
    ticker.stop()
    stop.append(1)
    g.join(timeout=LIMIT)


def test_ticker_concurrent_stress():
    ticker, wg = Ticker(1e-9), WaitGroup()

    def reader():
        for _ in range(100):
            ticker.c.recv(timeout=LIMIT)

    gs = [wg.go(reader) for _ in range(10)]
    wg.wait()
    ticker.stop()
    join_all(gs)


def test_multi_wakeup_ticker():
    ticker, seen = Ticker(50e-6), []
    gs = [go(lambda: seen.append(ticker.c.recv(timeout=LIMIT))) for _ in range(300)]
    join_all(gs)
    ticker.stop()
    assert len(set(seen)) == 300


@pytest.mark.parametrize(
    "make",
    [
        lambda: after(3600),
        lambda: tick(3600),
        lambda: Timer(3600),
        lambda: Ticker(3600),
        lambda: Timer(3600).stop(),
        lambda: Ticker(3600).stop(),
    ],
)
def test_timer_gc(make):
    gc.collect()
    before = gort.stats()["timers"]
    for _ in range(1000):
        make()
    gc.collect()
    assert gort.stats()["timers"] == before
