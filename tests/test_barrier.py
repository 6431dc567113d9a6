"""Barrier and CountDownLatch."""

from __future__ import annotations

import threading

import gort
import pytest
from gort import Barrier, BrokenBarrierError, CountDownLatch
from gort.testing import synctest
from leaking import found, start
from waiting import LIMIT, OnThread, eventually, join_all, parked, raises_text, settle


def waiting(barrier, n):
    """Start n goroutines that wait at the barrier, and give them once they do."""
    made = [gort.go(barrier.wait) for _ in range(n)]
    parked(*made)
    return made


def broken(*goroutines):
    """Check that each got BrokenBarrierError, ours and threading's."""
    for g in goroutines:
        with pytest.raises(BrokenBarrierError) as caught:
            g.join(timeout=LIMIT)
        assert isinstance(caught.value, threading.BrokenBarrierError)
        assert type(caught.value).__name__ == "BrokenBarrierError"


def test_goroutines_and_threads_meet_time_after_time(anywhere):
    barrier, log = Barrier(4), []

    def work():
        for i in range(20):
            log.append(i)
            barrier.wait(timeout=LIMIT)
        return True

    def meet():
        threads = [OnThread(work)]
        assert all(join_all([gort.go(work) for _ in range(3)]))
        assert threads[0].join()

    anywhere(meet)
    assert log == sorted(log)  # nobody is ahead of another
    assert barrier.n_waiting == 0 and not barrier.broken and barrier.parties == 4


def test_each_gets_a_number_in_order_and_one_calls_the_action():
    calls = []
    barrier = Barrier(3, action=lambda: calls.append(barrier.n_waiting))
    first = waiting(barrier, 1)
    second = waiting(barrier, 1)
    assert barrier.n_waiting == 2
    assert barrier.wait() == 2
    assert [g.join(timeout=LIMIT) for g in first + second] == [0, 1]
    assert calls == [0]


def test_barrier_of_one():
    barrier = Barrier(1)
    assert [barrier.wait(), barrier.wait(timeout=0)] == [0, 0]


def test_action_runs_before_anybody_goes_on():
    gate, log = gort.Chan(), []

    def action():
        gate.recv_ok()
        log.append("action")

    def late():
        barrier.wait()
        log.append("on")

    barrier = Barrier(3, action)
    late_ones = [gort.go(late) for _ in range(3)]
    parked(*late_ones)
    next_ones = [gort.go(barrier.wait) for _ in range(2)]
    settle()
    assert log == []
    gate.close()
    join_all(late_ones)
    assert log == ["action", "on", "on", "on"]
    assert barrier.wait(timeout=LIMIT) in range(3)
    join_all(next_ones)


def test_action_that_fails_breaks_the_barrier():
    barrier = Barrier(3, action=lambda: 1 / 0)
    others = waiting(barrier, 2)
    with pytest.raises(ZeroDivisionError):
        barrier.wait()
    broken(*others)
    assert barrier.broken
    with pytest.raises(BrokenBarrierError):
        barrier.wait()
    barrier.reset()
    assert not barrier.broken and barrier.n_waiting == 0


def test_time_out_breaks_the_barrier():
    for barrier, args in ((Barrier(3), (0.001,)), (Barrier(3, timeout=0.001), ())):
        others = [gort.go(barrier.wait, LIMIT)]
        parked(*others)
        with pytest.raises(BrokenBarrierError):
            barrier.wait(*args)
        broken(*others)
        assert barrier.broken and barrier.n_waiting == 0


def test_time_out_while_the_action_runs_breaks_nothing():
    gate = gort.Chan()
    barrier = Barrier(2, action=gate.recv_ok)
    impatient = gort.go(barrier.wait, 0.001)
    parked(impatient)
    last = gort.go(barrier.wait)
    eventually(lambda: barrier._generation.state.load() == 1 or barrier.broken)
    if not barrier.broken:  # the last one came in time
        gort.sleep(0.01)
        assert not impatient.done
        gate.close()
        assert join_all([impatient, last]) == [0, 1]


def test_one_who_is_cancelled_breaks_the_barrier():
    barrier = Barrier(3)
    one, other = waiting(barrier, 2)
    one.cancel()
    with pytest.raises(gort.Cancelled):
        one.join(timeout=LIMIT)
    broken(other)
    assert barrier.broken


def test_abort_breaks_and_reset_begins_anew():
    barrier = Barrier(3)
    others = waiting(barrier, 2)
    barrier.abort()
    broken(*others)
    assert barrier.broken
    barrier.reset()
    others = waiting(barrier, 2)
    barrier.reset()
    broken(*others)
    assert not barrier.broken
    others = waiting(barrier, 2)
    assert barrier.wait() == 2
    join_all(others)


def test_barrier_wrong_arguments():
    for parties in (0, -1):
        with raises_text(ValueError, "parties must be >= 1"):
            Barrier(parties)
    for args in ((2.0,), ("2",), (), (2, 5)):
        with pytest.raises(TypeError):
            Barrier(*args)
    for timeout, error in ((-1, ValueError), ("x", TypeError)):
        barrier = Barrier(2)
        with pytest.raises(error):
            barrier.wait(timeout)
        assert barrier.broken  # it came, and does not come again


def test_barrier_in_a_bubble():
    barrier = Barrier(2)

    def body():
        g = gort.go(barrier.wait)
        gort.sleep(3600)
        assert barrier.wait() == 1 and g.join() == 0
        with pytest.raises(BrokenBarrierError):
            barrier.wait(timeout=7200)

    synctest.run(body)


def test_waiting_at_a_barrier_is_a_leak_only_if_nobody_can_come():
    barrier = Barrier(2)
    ident = start(barrier.wait)
    assert ident not in found()
    barrier.wait()
    lost = start(Barrier(2).wait)
    assert lost in found()


def test_latch_opens_at_zero_and_stays_open(anywhere):
    latch = CountDownLatch(3)
    waiters = [gort.go(latch.wait) for _ in range(3)]
    thread = OnThread(latch.wait)
    parked(*waiters)
    anywhere(latch.count_down)
    latch.count_down()
    with pytest.raises(TimeoutError):
        latch.wait(timeout=0)
    settle()
    assert latch.count == 1 and not any(g.done for g in waiters)
    latch.count_down()
    join_all(waiters)
    thread.join()
    latch.count_down()
    assert latch.count == 0
    assert anywhere(latch.wait) is None


def test_latch_counted_down_by_many():
    latch = CountDownLatch(1000)

    def count():
        for _ in range(125):
            latch.count_down()
        return True

    threads = [OnThread(count) for _ in range(4)]
    for _ in range(4):
        gort.go(count)
    latch.wait(timeout=LIMIT)
    assert latch.count == 0 and all(thread.join() for thread in threads)


def test_latch_wrong_arguments_and_zero():
    with raises_text(ValueError, "count < 0"):
        CountDownLatch(-1)
    for args in ((1.0,), (), ("1",)):
        with pytest.raises(TypeError):
            CountDownLatch(*args)
    CountDownLatch(0).wait(timeout=0)


def test_waiting_at_a_latch_is_a_leak_only_if_nobody_can_count():
    latch = CountDownLatch(1)
    ident = start(latch.wait)
    assert ident not in found()
    latch.count_down()
    lost = start(CountDownLatch(1).wait)
    assert lost in found()
