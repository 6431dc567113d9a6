"""Finalizers, the garbage collector, and tools that look at every frame, while goroutines are
parked.
"""

from __future__ import annotations

import gc
import sys
import traceback
import tracemalloc
import weakref

import gort
import pytest
from children import child
from waiting import LIMIT, eventually, in_goroutine, join_all, parked


class Thing:
    """Something that can be watched and linked."""

    def __init__(self, other=None):
        self.other = other


def test_weakref_callback_that_sends_delivers():
    ch = gort.Chan(10)

    def body():
        things = [Thing() for _ in range(10)]
        watches = [weakref.ref(t, lambda _, i=i: ch.send(i)) for i, t in enumerate(things)]
        del things
        return watches

    g = gort.go(body)
    g.join(timeout=LIMIT)
    assert sorted(ch.recv(timeout=LIMIT) for _ in range(10)) == list(range(10))


def test_del_that_sends_on_a_buffered_channel_delivers(anywhere):
    ch = gort.Chan(100)

    class Finalized(Thing):
        def __del__(self):
            ch.send(1)

    def body():
        for _ in range(50):
            Finalized()
        for _ in range(50):
            loop = Finalized()
            loop.other = loop
        del loop
        gc.collect()

    anywhere(body)
    assert sum(ch.recv(timeout=LIMIT) for _ in range(100)) == 100


def test_del_that_parks_in_a_goroutine_finishes():
    gate, out = gort.Chan(), gort.Chan(1)

    class Finalized:
        def __del__(self):
            out.send(gate.recv())

    def body():
        thing = Finalized()
        del thing
        return "after"

    g = gort.go(body)
    parked(g)
    gate.send("through")
    assert out.recv(timeout=LIMIT) == "through"
    assert g.join(timeout=LIMIT) == "after"


def test_del_that_starts_goroutines_does():
    out = gort.Chan(20)

    class Finalized:
        def __del__(self):
            gort.go(out.send, 1)

    def body():
        for _ in range(20):
            Finalized()

    in_goroutine(body)
    assert sum(out.recv(timeout=LIMIT) for _ in range(20)) == 20


def test_gc_while_thousands_are_parked_keeps_what_their_frames_hold():
    gate = gort.Chan()

    def body(i):
        loop = Thing()
        loop.other = [loop, i]
        gate.recv()
        return loop.other[1]

    gs = [gort.go(body, i) for i in range(3000)]
    parked(*gs)
    for _ in range(3):
        gc.collect()
    for _ in gs:
        gate.send(None)
    assert join_all(gs) == list(range(3000))


def test_gc_in_every_goroutine_at_once():
    def body(i):
        for _ in range(2):  # each looks at all objects of the process
            loop = Thing()
            loop.other = loop
            watch = weakref.ref(loop)
            del loop
            gort.gosched()
            # A pass that another goroutine is in the middle of makes this one return at once.
            eventually(lambda watch=watch: gc.collect() >= 0 and watch() is None)
        return i

    assert join_all([gort.go(body, i) for i in range(10)]) == list(range(10))


def test_cycle_through_an_ended_goroutine_is_collected():
    box = Thing()
    watch = weakref.ref(box)
    box.other = gort.go(lambda b: b, box)
    box.other.join(timeout=LIMIT)
    del box
    gc.collect()
    eventually(lambda: gc.collect() >= 0 and watch() is None)


def test_cycle_through_an_exception_and_its_goroutine_is_collected(reports):
    def body(box):
        box.other = gort.current()
        raise ValueError(box)

    box = Thing()
    watch = weakref.ref(box)
    g = gort.go(body, box)
    with pytest.raises(ValueError):
        g.join(timeout=LIMIT)
    del g, box
    eventually(lambda: gc.collect() >= 0 and watch() is None)
    assert reports == []


def test_objects_held_over_a_park_survive_and_go_with_the_goroutine():
    gate = gort.Chan()
    watches = []

    def body():
        thing = Thing()
        watches.append(weakref.ref(thing))
        gate.recv()
        return thing is watches[0]()

    g = gort.go(body)
    parked(g)
    gc.collect()
    assert watches[0]() is not None
    gate.send(None)
    assert g.join(timeout=LIMIT) is True
    assert watches[0]() is None


def test_ended_goroutines_leave_no_objects_behind():
    def body(i):
        local = [i] * 10
        gort.gosched()
        return local

    def round():
        join_all([gort.go(body, i) for i in range(500)])
        gc.collect()
        return len(gc.get_objects())

    round()
    base = round()
    for _ in range(5):
        assert round() <= base + 50


def test_current_frames_shows_every_parked_goroutine():
    gate = gort.Chan()

    def waits_in_here(i):
        mark = f"mine is {i}"
        gate.recv()
        return mark

    gs = [gort.go(waits_in_here, i) for i in range(200)]
    parked(*gs)
    marks = set()
    for frame in sys._current_frames().values():
        while frame is not None:
            if frame.f_code is waits_in_here.__code__:
                marks.add(frame.f_locals["mark"])
            frame = frame.f_back
    assert marks == {f"mine is {i}" for i in range(200)}
    for _ in gs:
        gate.send(None)
    join_all(gs)


def test_frames_of_goroutines_can_be_kept_and_read_after_their_end():
    gate = gort.Chan()

    def body(i):
        gate.recv()
        return sys._getframe()

    gs = [gort.go(body, i) for i in range(50)]
    parked(*gs)
    seen = [f for f in sys._current_frames().values() if f.f_code is body.__code__]
    for _ in gs:
        gate.send(None)
    frames = join_all(gs)
    del gs
    assert sorted(f.f_locals["i"] for f in frames) == list(range(50))
    assert sorted(f.f_locals["i"] for f in seen) == list(range(50))
    assert all(f.f_lineno for f in seen)


def test_faulthandler_dumps_parked_goroutines():
    # In a child: it writes 100 thread states at most, and the ones kept for reuse count.
    done = child(
        """
        import faulthandler, gort

        def waits_in_here():
            gort.Chan().recv()

        gs = [gort.go(waits_in_here) for _ in range(20)]
        while any(g.status != "chan receive" for g in gs):
            gort.gosched()
        faulthandler.dump_traceback(all_threads=True)
        gort.go(faulthandler.dump_traceback, all_threads=True).join()
        """
    )
    assert done.returncode == 0
    assert done.stderr.count("in waits_in_here") == 40


def test_faulthandler_of_a_crash_in_a_goroutine_names_its_function():
    done = child(
        """
        import ctypes, gort
        def crashes_here():
            gort.gosched()
            ctypes.string_at(0)
        gort.go(crashes_here).join()
        """
    )
    assert done.returncode == -11
    assert "in crashes_here" in done.stderr


def test_tracemalloc_counts_allocations_made_in_goroutines():
    def body():
        gort.gosched()
        return bytearray(1_000_000)

    tracemalloc.start()
    try:
        kept = join_all([gort.go(body) for _ in range(5)])
        by_line = tracemalloc.take_snapshot().statistics("traceback")
        assert sum(s.size for s in by_line if s.traceback[0].filename == __file__) >= 5_000_000
        del kept
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()


def test_stack_summary_of_a_running_goroutine_ends_at_its_caller():
    def inner():
        return traceback.extract_stack()

    def outer():
        gort.gosched()
        return inner()

    assert [frame.name for frame in in_goroutine(outer)] == ["outer", "inner"]
