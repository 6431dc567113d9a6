"""Objects of gort as CPython's collector sees them: weak references, cycles, long chains, resurrection."""

from __future__ import annotations

import gc
import weakref

import gort
import pytest
from gort.cache import ConcurrentCache
from waiting import LIMIT, eventually, join_all, parked


class Thing:
    """Something that can be watched and linked."""

    def __init__(self, other=None):
        self.other = other


def ended(fn, *args):
    """A goroutine that has ended."""
    g = gort.go(fn, *args)
    g.join(timeout=LIMIT)
    return g


MAKERS = {
    "goroutine": lambda: ended(int),
    "chan": gort.Chan,
    "sender": lambda: gort.Chan().sender(),
    "receiver": lambda: gort.Chan().receiver(),
    "mutex": gort.Mutex,
    "rwmutex": gort.RWMutex,
    "wait group": gort.WaitGroup,
    "semaphore": lambda: gort.Semaphore(1),
    "cond": lambda: gort.Cond(gort.Mutex()),
    "once": gort.Once,
    "pool": gort.Pool,
    "timer": lambda: gort.Timer(1000),
    "ticker": lambda: gort.Ticker(1000),
    "after_func": lambda: gort.after_func(1000, int),
    "group": lambda: gort.Group("one"),
    "cache": lambda: ConcurrentCache(1),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_weak_reference_sees_the_end_of_every_type(make):
    thing, seen = make(), []
    watch = weakref.ref(thing, seen.append)
    assert watch() is thing
    del thing
    eventually(lambda: watch() is None)
    assert seen == [watch]


def test_weak_reference_to_a_goroutine_lasts_as_long_as_it_runs():
    gate = gort.Chan()
    watch = weakref.ref(gort.go(gate.recv))
    parked(watch())
    gc.collect()
    assert watch() is not None, "the runtime keeps it"
    gate.send(None)
    eventually(lambda: watch() is None)


def finished(box):
    return ended(lambda kept: kept, box)


def never_started(box):
    g = gort.go(lambda kept: kept, box)
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    return g


def failed(box):
    def fails(kept):
        raise ValueError(kept)

    g = gort.go(fails, box)
    with pytest.raises(ValueError):
        g.join(timeout=LIMIT)
    return g


def closed_channel(box):
    ch = gort.Chan(1)
    ch.send(box)
    ch.close()
    return ch


def stopped_timer(box):
    timer = gort.after_func(1000, lambda kept: kept, box)
    assert timer.stop()
    return timer


def condition(box):
    class Lock:
        lock = unlock = None

    lock = Lock()
    lock.box = box
    return gort.Cond(lock)


def attribute_of(kind, *args):
    def make(box):
        thing = type("Own", (kind,), {})(*args)
        thing.box = box
        return thing

    return make


CYCLES = {
    "finished goroutine": finished,
    "goroutine never started": never_started,
    "failed goroutine": failed,
    "closed channel": closed_channel,
    "case": lambda box: gort.send(None, box),
    "stopped timer": stopped_timer,
    "condition": condition,
    "mutex": attribute_of(gort.Mutex),
    "rwmutex": attribute_of(gort.RWMutex),
    "wait group": attribute_of(gort.WaitGroup),
    "semaphore": attribute_of(gort.Semaphore, 1),
    "timer": attribute_of(gort.Timer, 1000),
    "once": attribute_of(gort.Once),
    "group": attribute_of(gort.Group, "one"),
}


@pytest.mark.parametrize("link", CYCLES.values(), ids=CYCLES)
def test_cycle_through_every_type_is_collected(link):
    box = Thing()
    watch = weakref.ref(box)
    box.other = link(box)
    del box
    eventually(lambda: gc.collect() >= 0 and watch() is None)


def test_cycle_through_a_parked_goroutine_is_kept_until_it_ends():
    gate, box = gort.Chan(), Thing()
    watch = weakref.ref(box)
    box.other = gort.go(lambda kept: gate.recv(), box)
    parked(box.other)
    del box
    gc.collect()
    assert watch() is not None
    gate.send(None)
    eventually(lambda: gc.collect() >= 0 and watch() is None)


def test_collector_is_told_exactly_what_a_goroutine_holds():
    result, held = Thing(), Thing()
    g = ended(lambda kept: result, held)
    assert [x for x in gc.get_referents(g) if isinstance(x, Thing)] == [result]
    assert gc.is_tracked(g)
    ch = gort.Chan(3)
    ch.send(held)
    ch.send(held)
    assert [x for x in gc.get_referents(ch) if isinstance(x, Thing)] == [held, held]


@pytest.mark.parametrize("anchor", ["main", "goroutine"])
def test_long_chain_of_goroutines_ends_without_recursion(anchor):
    """Each result is the goroutine before: it used up the stack."""

    def body():
        g = None
        for i in range(50_000):
            g = gort.go(lambda before: before, g)
            if i % 1000 == 0:
                gort.gosched()
        g.join(timeout=LIMIT)
        watch = weakref.ref(g)
        del g
        eventually(lambda: watch() is None)

    body() if anchor == "main" else gort.go(body).join(timeout=LIMIT)


def test_report_hook_may_keep_the_goroutine(reports):
    def fails():
        gort.gosched()
        raise ValueError("kept")

    watch = weakref.ref(gort.go(fails))
    eventually(lambda: reports)
    g = reports.pop().goroutine
    assert g is watch()
    with pytest.raises(ValueError, match="kept"):
        g.join(timeout=LIMIT)
    del g
    eventually(lambda: gc.collect() >= 0 and watch() is None)


def test_goroutine_that_its_finalizer_brings_back_works(reports):
    """Nobody but a dead cycle has it: the collector finalizes it, which reports, which keeps it."""

    def fails(box):
        gort.gosched()
        raise ValueError(box)

    box = Thing()
    box.other = gort.go(fails, box)
    eventually(lambda box=box: box.other.done)
    del box
    eventually(lambda: gc.collect() >= 0 and reports)
    g = reports.pop().goroutine
    with pytest.raises(ValueError) as raised:
        g.join(timeout=LIMIT)
    box = raised.value.args[0]
    assert box.other is g, "brought back with all it holds"
    watch = weakref.ref(box)
    del g, box, raised
    eventually(lambda: gc.collect() >= 0 and watch() is None)


def test_twenty_thousand_goroutines_leave_no_object_behind():
    def body(i):
        local = [i] * 3
        gort.gosched()
        return local

    def crowd(n):
        join_all([gort.go(body, i) for i in range(n)])
        gc.collect()
        return len(gc.get_objects())

    crowd(100)
    base = crowd(100)
    assert crowd(20_000) <= base + 50
    assert gort.num_goroutine() == 1
