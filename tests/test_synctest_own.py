"""gort.testing.synctest: what is a bubble's alone, and what it shares with the outside."""

from __future__ import annotations

import time

import gort
import pytest
from gort.testing import synctest
from waiting import eventually, parked

HOUR = 3600


def passed():
    """What a bubble's clock has gone on by, in seconds."""
    return time.time() - 946_684_800


def test_channels_of_a_bubble_are_its_own():
    ch = synctest.run(lambda: gort.Chan(1))
    uses = {
        "send on": [lambda: ch.send(1), lambda: ch.try_send(1)],
        "receive on": [ch.recv, ch.recv_ok, ch.try_recv, lambda: next(ch)],
        "close of": [ch.close],
        "select on": [
            lambda: gort.select(gort.recv(ch), default=True),
            lambda: gort.select(gort.send(ch, 1)),
        ],
    }
    for what, calls in uses.items():
        for call in calls:
            with pytest.raises(RuntimeError, match=f"{what} synctest channel from outside bubble"):
                call()
            with pytest.raises(RuntimeError, match="from outside bubble"):
                synctest.run(call)
    assert (len(ch), ch.cap, ch.closed) == (0, 1, False)


def test_channels_of_outside_can_be_used():
    ch = gort.Chan(2)
    synctest.run(lambda: ch.send("from within"))
    assert ch.recv() == "from within"
    ch.send(1)
    assert synctest.run(lambda: (ch.recv(), passed())) == (1, 0)


def test_wait_groups_are_counted_inside_or_outside():
    """Go's TestWaitGroupMovedIntoBubble and its like."""
    both, several = "from inside and outside synctest bubble", "from multiple synctest bubbles"
    group = gort.WaitGroup()
    group.add(1)
    for call in (group.done, lambda: group.add(1)):
        with pytest.raises(RuntimeError, match=f"sync: WaitGroup.Add called {both}"):
            synctest.run(call)
    group.done()
    synctest.run(lambda: (group.add(1), group.done(), group.wait()))
    synctest.run(group.add, 1)
    with pytest.raises(RuntimeError, match=both):
        group.done()
    with pytest.raises(RuntimeError, match=several):
        synctest.run(group.add, 1)


def test_cond_is_signalled_from_within():
    mutex, outside, held = gort.Mutex(), gort.Chan(), []
    cond = gort.Cond(mutex)

    def ends():
        outside.recv_ok()  # holds the clock
        cond.broadcast()

    def main():
        with mutex:
            with pytest.raises(TimeoutError):
                cond.wait(timeout=5)
            assert passed() == 5
            gort.go(ends)
            held.append(True)
            cond.wait()

    g = gort.go(synctest.run, main)
    eventually(lambda: held)
    parked(g)
    for wake in (cond.signal, cond.broadcast):
        with pytest.raises(RuntimeError, match="semaphore wake of synctest goroutine from outside"):
            wake()
    outside.close()
    g.join()


def test_bubbles_do_not_nest():
    with pytest.raises(RuntimeError, match="called from within a synctest bubble"):
        synctest.run(synctest.run, list)
    with pytest.raises(TypeError, match="needs a callable, not int"):
        synctest.run(1)


def test_goroutines_of_outside_have_the_worlds_clock():
    def main(ask, answer):
        ask.send(None)
        return answer.recv(), time.time()

    def outside(ask, answer):
        ask.recv()
        answer.send(time.time())

    chans = gort.Chan(), gort.Chan()
    gort.go(outside, *chans)
    theirs, ours = synctest.run(main, *chans)
    assert theirs > 1.7e9 and ours == 946_684_800


def test_decorator_keeps_the_function():
    @synctest.test
    def takes_long(n, *, more=0):
        """Its text."""
        gort.sleep(n + more)
        return passed()

    assert takes_long(HOUR, more=1) == HOUR + 1
    assert (takes_long.__name__, takes_long.__doc__) == ("takes_long", "Its text.")
