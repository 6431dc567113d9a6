"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of time/sleep_test.go: TestAfterFunc, TestAfterTick, TestAfterStop, TestAfterQueuing, TestTimerStopStress,
TestReset, TestTimerModifiedEarlier, TestAdjustTimers, TestStopResult, TestResetResult. Durations are shorter, and
what depends on lateness is tried again with longer ones, as in Go.
"""

import random
import time

import gort
import pytest
from gort import Chan, Timer, WaitGroup, after, after_func, go, recv, select
from waiting import LIMIT, join_all


class TimerFunc:
    """Go's newTimerFunc: a timer made by after_func that looks like one with a channel."""

    def __init__(self, seconds):
        self.c = Chan(1)
        self.timer = after_func(seconds, lambda: self.c.send(time.time()))
        self.stop, self.reset = self.timer.stop, self.timer.reset


BOTH = pytest.mark.parametrize("new_timer", [Timer, TimerFunc], ids=["chan", "func"])


def test_after_func():
    i, c, kept = [10], Chan(), []

    def f():
        i[0] -= 1
        if i[0] >= 0:
            kept.append(after_func(0, f))
            gort.sleep(0.01)
        else:
            c.send(True)

    after_func(0, f)
    c.recv(timeout=LIMIT)


def test_after_tick():
    count, delta = 10, 0.002
    t0 = time.monotonic()
    for _ in range(count):
        after(delta).recv(timeout=LIMIT)
    assert time.monotonic() - t0 >= delta * count * 9 / 10, "ticks too fast"


@BOTH
def test_after_stop(new_timer):
    for attempt in range(5):
        unit = 0.01 * 2**attempt
        after_func(2 * unit, lambda: None)
        t0 = new_timer(unit)
        c1 = Chan(1)
        t1 = after_func(3 * unit, lambda c1=c1: c1.send(True))
        c2 = after(4 * unit)
        if not t0.stop() or not t1.stop():
            continue  # this machine was busy for longer than that
        c2.recv(timeout=LIMIT)
        assert select(recv(t0.c), recv(c1), default=True)[0] == -1, "an event was not stopped"
        assert not t1.stop(), "stop returned True twice"
        return
    pytest.fail("stop came too late five times")


SLOTS = [5, 3, 6, 6, 6, 1, 1, 2, 7, 9, 4, 8, 0]


@pytest.mark.parametrize("make", [after, lambda s: TimerFunc(s).c], ids=["chan", "func"])
def test_after_queuing(make):
    for attempt in range(5):
        delta, result = 0.004 * 3**attempt, Chan(len(SLOTS))
        t0 = time.time()

        def await_(slot, ch, result=result):
            result.send((slot, ch.recv()))

        for slot in SLOTS:
            go(await_, slot, make(slot * delta))
        got = [result.recv(timeout=LIMIT) for _ in SLOTS]
        assert all(t - t0 >= slot * delta - delta / 2 for slot, t in got), "came too early"
        if [slot for slot, _ in got] == sorted(SLOTS):
            return
    pytest.fail(f"after calls returned out of order: {got}")


def test_timer_stop_stress():
    fired = []

    def one(i):
        timer = after_func(10, fired.append, i)
        gort.sleep(0.002)
        assert timer.stop()

    join_all([go(one, i) for i in range(100)])
    assert not fired


def reset_with(d):
    t0 = Timer(2 * d)
    gort.sleep(d)
    if not t0.reset(3 * d):
        return "resetting unfired timer returned False"
    gort.sleep(2 * d)
    if t0.c.try_recv()[2]:
        return "timer fired early"
    gort.sleep(2 * d)
    if not t0.c.try_recv()[2]:
        return "reset timer did not fire"
    if t0.reset(0.05):
        return "resetting expired timer returned True"
    return None


def test_reset():
    d = 0.001
    while (error := reset_with(d)) is not None:
        d *= 2
        assert d < 2, error


@BOTH
def test_timer_modified_earlier(new_timer):
    for _ in range(100):
        timer = new_timer(3600)
        for _ in range(10):
            if not timer.stop():
                timer.c.recv(timeout=LIMIT)
            timer.reset(-time.time())
        timer.c.recv(timeout=LIMIT)


@BOTH
def test_adjust_timers(new_timer):
    rnd = random.Random(1)
    timers, states = [None] * 100, [0] * 100
    indices = list(range(100))
    rnd.shuffle(indices)
    while indices:
        ii = rnd.randrange(len(indices))
        i = indices[ii]
        timer, state = timers[i], states[i]
        states[i] += 1
        if state == 0:
            timers[i] = new_timer(0)
        elif state in (1, 9):
            timer.c.recv(timeout=LIMIT)
        elif state in (2, 4, 6):
            assert not timer.reset(60.0 * (state // 2)), f"shouldn't be active ({state})"
        elif state in (3, 5, 7):
            assert timer.stop()
        elif state == 8:
            assert not timer.reset(0)
        else:
            indices[ii] = indices[-1]
            indices.pop()


@pytest.mark.parametrize(
    "change", [lambda t: t.stop(), lambda t: t.reset(3600)], ids=["stop", "reset"]
)
def test_stop_and_reset_result(change):
    start, wg = Chan(), WaitGroup()

    def race():
        start.recv_ok()
        for _ in range(20):
            timers = Timer(0.001), Timer(0.001)
            first = select(recv(timers[0].c), recv(timers[1].c))[0]
            other = timers[1 - first]
            if not change(other):
                other.c.recv(timeout=LIMIT)

    gs = [wg.go(race) for _ in range(100)]
    start.close()
    wg.wait()
    join_all(gs)
