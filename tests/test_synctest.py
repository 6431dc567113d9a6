"""gort.testing.synctest: a bubble's clock, who holds it, waiting for the others, deadlocks."""

from __future__ import annotations

import time

import gort
import pytest
from gort.testing import synctest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import eventually, hold, parked

HOUR = 3600


def in_bubble(fn, *args, **kwargs):
    """What `synctest.run` gives; it has to come soon in the world's time."""
    begun = time.monotonic()
    result = synctest.run(fn, *args, **kwargs)
    assert time.monotonic() - begun < 20
    return result


def passed():
    """What a bubble's clock has gone on by, in seconds."""
    return time.time() - 946_684_800


# The clock


def test_clock_begins_with_the_year_2000_and_shows_what_was_slept():
    def main():
        assert passed() == 0
        gort.sleep(HOUR)
        assert passed() == HOUR
        sum(range(100_000))
        gort.gosched()
        assert passed() == HOUR
        return "done"

    assert in_bubble(main) == "done"
    assert time.time() > 1.7e9


@given(st.lists(st.lists(st.integers(0, 1000), max_size=4), max_size=8))
@settings(deadline=None, max_examples=60)
def test_sleepers_wake_in_the_order_of_their_times(plans):
    def main():
        woken = []

        def sleeper(plan):
            at = 0
            for ms in plan:
                gort.sleep(ms / 1000)
                at += ms
                assert round(passed() * 1000) == at
                woken.append(at)

        for g in [gort.go(sleeper, plan) for plan in plans]:
            g.join()
        assert woken == sorted(woken)
        assert round(passed() * 1000) == max(map(sum, plans), default=0)

    in_bubble(main)


def test_time_outs_go_by_it():
    def main():
        ch = gort.Chan()
        with pytest.raises(TimeoutError):
            ch.recv(timeout=10)
        with pytest.raises(TimeoutError):
            ch.send(1, timeout=10)
        assert gort.select(gort.recv(ch), timeout=10) == (-2, None, False)
        with pytest.raises(TimeoutError):
            gort.go(ch.recv_ok).join(timeout=10)
        semaphore = gort.Semaphore(1)
        semaphore.acquire()
        with pytest.raises(TimeoutError):
            semaphore.acquire(timeout=10)
        group = gort.WaitGroup()
        group.add(1)
        with pytest.raises(TimeoutError):
            group.wait(timeout=10)
        ch.close()
        return passed()

    assert in_bubble(main) == 60


def test_timers_fire_at_their_times():
    def main():
        seen = []
        gort.after_func(3, lambda: seen.append(("call", passed())))
        timer, ticker = gort.Timer(2), gort.Ticker(2)
        stopped, late = gort.Timer(1), gort.after(50)
        assert stopped.stop()
        assert timer.c.recv() == time.time() == 946_684_802
        assert [ticker.c.recv() - 946_684_800 for _ in range(3)] == [2, 4, 6]
        ticker.stop()
        assert not timer.reset(10)
        timer.c.recv()
        assert passed() == 16
        assert late.try_recv() == (None, False, False)
        assert gort.after(0).try_recv()[1]
        synctest.wait()
        return seen

    assert in_bubble(main) == [("call", 3)]


def test_timers_that_are_left_do_not_fire():
    fired = []

    def main():
        gort.after_func(10, fired.append, 1)
        timer = gort.after_func(10, fired.append, 2)
        gort.Ticker(1)
        gort.sleep(5)
        return timer

    timer = in_bubble(main)
    with pytest.raises(RuntimeError, match="stop of synctest timer from outside bubble"):
        timer.stop()
    with pytest.raises(RuntimeError, match="reset of synctest timer from outside bubble"):
        timer.reset(1)
    del timer
    gort.sleep(0.01)
    assert fired == []


def test_it_stands_while_one_computes_or_is_in_a_call():
    def main():
        stop, count = [], [0]

        def computes():
            while not stop:
                count[0] += 1

        g = gort.go(computes)
        other = gort.go(gort.sleep, 1)
        calls = gort.go(hold, 0.05)
        while count[0] < 100_000 or not calls.done:
            gort.gosched()
            assert passed() == 0 and not other.done
        stop.append(True)
        g.join()
        other.join()
        return passed()

    assert in_bubble(main) == 1


@pytest.mark.parametrize("what", ["chan", "mutex", "rwmutex", "wait group", "pipe"])
def test_it_stands_while_one_waits_for_the_outside(what):
    import os

    ch, mutex, rw, group, (r, w) = (
        gort.Chan(),
        gort.Mutex(),
        gort.RWMutex(),
        gort.WaitGroup(),
        os.pipe(),
    )
    mutex.lock()
    rw.lock()
    group.add(1)
    waits, ends = {
        "chan": (ch.recv, lambda: ch.send(None)),
        "mutex": (mutex.lock, mutex.unlock),
        "rwmutex": (rw.rlock, rw.unlock),
        "wait group": (group.wait, group.done),
        "pipe": (lambda: os.read(r, 1), lambda: os.write(w, b"x")),
    }[what]
    inner = []

    def main():
        def waiter():
            inner.append(gort.current())
            waits()
            assert passed() == 0

        g = gort.go(waiter)
        gort.sleep(1)
        assert g.done
        return passed()

    run = gort.go(synctest.run, main)
    parked(*eventually(lambda: inner))
    for _ in range(50):
        gort.gosched()
    assert not run.done
    ends()
    assert run.join() == 1
    os.close(r)
    os.close(w)


def test_bubbles_side_by_side_have_clocks_of_their_own():
    def main(n):
        ch = gort.Chan(n % 3)
        gort.go(lambda: [(gort.sleep(n), ch.send(i)) for i in range(20)])
        for i in range(20):
            assert (ch.recv(), passed()) == (i, n * (i + 1))
        return passed()

    gs = [gort.go(synctest.run, main, n) for n in range(1, 30)]
    assert [g.join() for g in gs] == [20 * n for n in range(1, 30)]


# Waiting for the others


def test_wait_is_until_all_others_are_blocked():
    def main():
        ch, steps = gort.Chan(), []

        def other():
            for i in range(10):
                gort.gosched()
                steps.append(i)
            ch.recv()
            steps.append("received")
            gort.sleep(1)
            steps.append("slept")

        gort.go(other)
        synctest.wait()
        assert len(steps) == 10
        ch.send(None)
        synctest.wait()
        assert steps[-1] == "received"
        gort.sleep(1)
        synctest.wait()
        assert (steps[-1], passed()) == ("slept", 1)
        synctest.wait()

    in_bubble(main)


def test_one_waits_at_a_time_and_in_a_bubble_only():
    def main():
        ch, errors = gort.Chan(), []

        def second():
            try:
                synctest.wait()
            except RuntimeError as error:
                errors.append(str(error))
            ch.recv_ok()

        gort.go(second)
        synctest.wait()
        ch.close()
        return errors

    assert in_bubble(main) == ["wait already in progress"]
    with pytest.raises(RuntimeError, match="goroutine is not in a bubble"):
        synctest.wait()


# Ends


def test_result_is_there_when_all_have_ended():
    ended = []

    def main():
        ch = gort.Chan()
        gort.go(
            lambda: (
                gort.sleep(HOUR),
                ch.send(1),
                [gort.gosched() for _ in range(9)],
                ended.append(passed()),
            )
        )
        ch.recv()
        return "result"

    assert in_bubble(main) == "result"
    assert ended == [HOUR]


def test_clock_stands_when_main_has_ended():
    """Go's TestDeadlockTicker."""
    ran = []

    def ticks():
        for _ in gort.tick(1):
            ran.append(True)

    with pytest.raises(gort.DeadlockError, match="main bubble goroutine has exited") as error:
        in_bubble(lambda: gort.go(ticks) and None)
    assert ran == [] and "chan receive (durable)" in error.value.dump
    with pytest.raises(gort.DeadlockError, match="main bubble goroutine has exited") as error:
        in_bubble(lambda: gort.go(gort.sleep, 1) and None)
    assert "sleep (durable)" in error.value.dump


def test_exceptions_come_out():
    def fails(error):
        raise error

    with pytest.raises(KeyError, match="of main"):
        in_bubble(fails, KeyError("of main"))

    def main(*errors):
        for error in errors:
            gort.go(fails, error)
        gort.sleep(1)

    with pytest.raises(KeyError, match="of another"):
        in_bubble(main, KeyError("of another"))
    with pytest.raises(ExceptionGroup) as several:
        in_bubble(main, KeyError(1), ValueError(2))
    assert several.group_contains(KeyError) and several.group_contains(ValueError)

    def joins():
        with pytest.raises(KeyError):
            gort.go(fails, KeyError()).join()
        return "joined"

    assert in_bubble(joins) == "joined"


def test_main_that_can_never_go_on_is_a_deadlock():
    cleaned = []

    def main():
        try:
            gort.Chan().recv()
        finally:
            cleaned.append(True)

    with pytest.raises(gort.DeadlockError, match="all goroutines in bubble are blocked") as error:
        in_bubble(main)
    assert "chan receive (durable), synctest bubble" in error.value.dump
    assert cleaned == [True]


def test_goroutines_left_behind_are_a_deadlock():
    cleaned = []

    def left():
        try:
            gort.Chan().recv()
        finally:
            cleaned.append(True)

    with pytest.raises(
        gort.DeadlockError, match="main bubble goroutine has exited but blocked"
    ) as error:
        in_bubble(lambda: gort.go(left) and None)
    assert error.value.dump.count("goroutine ") == 1
    assert cleaned == [True]
    # What main raised says more.
    with pytest.raises(ZeroDivisionError):
        in_bubble(lambda: gort.go(left) and 1 / 0)
    assert cleaned == [True, True]


def test_exit_and_cancel_of_main():
    assert in_bubble(gort.goexit) is None

    def main():
        gort.current().cancel()
        gort.sleep(1)

    with pytest.raises(gort.Cancelled):
        in_bubble(main)


def test_run_that_is_cancelled_cancels_those_inside():
    cleaned, inner = [], []

    def main():
        inner.append(gort.current())
        ch = outside
        try:
            ch.recv()
        finally:
            cleaned.append(True)

    outside = gort.Chan()
    run = gort.go(synctest.run, main)
    parked(*eventually(lambda: inner))
    run.cancel()
    with pytest.raises(gort.Cancelled):
        run.join()
    eventually(lambda: cleaned == [True])
