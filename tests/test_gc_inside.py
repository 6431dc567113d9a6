"""What finalizers and callbacks may do in the middle of a collector pass: all, and it ends as it should."""

from __future__ import annotations

import gc
import sys
import time

import gort
import pytest
from collecting import Loop
from waiting import LIMIT, eventually

THRESHOLDS = gc.get_threshold()


def assert_is_cancelled(body):
    """Start `body`, let it run, and cancel it: it ends by that."""
    g = gort.go(body)
    gort.go(gort.gosched).join(timeout=LIMIT)
    assert g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)


def test_nobody_runs_in_the_middle_of_a_pass():
    """A finalizer that computes for longer than a slice: others had the collector off meanwhile."""

    def main():
        turns, stop, meanwhile = [0], [], []

        def others():
            while not stop:
                turns[0] += 1

        def finalizer():
            before, end = turns[0], time.monotonic() + 0.1
            while time.monotonic() < end:
                pass
            meanwhile.append(turns[0] - before)

        def collects():
            Loop(finalizer)
            gc.collect()

        computing = [gort.go(others) for _ in range(2)]
        for _ in range(5):
            gort.go(collects).join(timeout=LIMIT)
        # Each time others ran. On a busy machine they may still: the thread that has the GIL does
        # not get the CPU, and the P of who waits for the GIL goes to another thread.
        assert 0 in meanwhile, meanwhile
        before = turns[0]
        preempted = gort.stats()["preemptions"]
        gort.go(lambda: [None for _ in range(3_000_000)]).join(timeout=LIMIT)
        eventually(lambda: turns[0] > before)
        assert gort.stats()["preemptions"] > preempted, "afterwards it is as before"
        stop.append(True)
        for g in computing:
            g.join(timeout=LIMIT)

    gc.disable()
    try:
        gort.run(main)
    finally:
        gc.enable()


def test_finalizer_that_waits_holds_up_later_passes_and_nobody_else():
    gate = gort.Chan()
    Loop(gate.recv)
    g = gort.go(gc.collect)
    eventually(lambda: g.status == "chan receive")
    assert gc.collect() == 0, "the collector is held"
    assert gort.gc.stats().running_ns > 0
    before = gort.gc.stats()
    assert gort.go(sum, range(10)).join(timeout=LIMIT) == 45
    gate.send(None)
    assert g.join(timeout=LIMIT) > 0
    ended = []
    Loop(lambda: ended.append(1))
    eventually(lambda: gc.collect() >= 0 and ended)
    assert gort.gc.stats().longest_ns >= before.running_ns


def test_goroutine_started_by_a_finalizer_may_wait():
    """Go's way: finalizers run in a goroutine of their own."""
    gate, out = gort.Chan(), gort.Chan(1)
    Loop(lambda: gort.go(lambda: out.send(gate.recv())))
    gc.collect()
    ended = []
    Loop(lambda: ended.append(1))
    eventually(lambda: gc.collect() >= 0 and ended)
    gate.send("after", timeout=LIMIT)
    assert out.recv(timeout=LIMIT) == "after"


def test_cancelled_in_a_finalizer_of_a_pass_ends_after_the_pass(monkeypatch):
    """CPython swallows what a finalizer raises: the cancellation was lost."""
    raised = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: raised.append(args.exc_type))
    gate = gort.Chan()

    def body():
        Loop(gate.recv)
        gc.collect()
        gort.Chan().recv()

    g = gort.go(body)
    eventually(lambda: gort.gc.stats().running_ns)
    assert g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    assert raised == [gort.GoroutineExit]
    assert gort.gc.stats().running_ns == 0


@pytest.mark.parametrize("place", [0, 100], ids=["first", "last"])
def test_cancelled_in_a_callback_of_the_collector_ends_after_the_pass(place):
    """Most of the time somebody's callback runs: what was raised there, nobody heard of."""

    def compute(phase, info):
        end = time.monotonic() + 0.012
        while time.monotonic() < end:
            pass

    def body():
        while True:
            gc.collect(0)
            [None for _ in range(100)]

    gc.callbacks.insert(place, compute)
    gc.collect(0)  # from the next pass on ours are outside of it
    gc.disable()
    try:
        for _ in range(5):
            assert_is_cancelled(body)
    finally:
        gc.enable()
        gc.callbacks.remove(compute)


def test_cancelled_while_passes_come_all_the_time_ends():
    def body():
        while True:
            Loop(lambda: [None for _ in range(100)])

    gc.set_threshold(20, 1000, 1000)
    try:
        for _ in range(20):
            assert_is_cancelled(body)
    finally:
        gc.set_threshold(*THRESHOLDS)
