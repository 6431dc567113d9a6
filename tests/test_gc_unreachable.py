"""gort.gc.collect_unreachable: what can never run again ends, and nothing else does."""

from __future__ import annotations

import gc
import sys
import weakref

import gort
import pytest
from children import check
from collecting import Loop, look
from gort import _unreachable
from leaking import by_id, is_waiting, start, wait_parked
from unreachable import KINDS, receiver
from waiting import LIMIT, eventually, raises_text, settle


@pytest.fixture(autouse=True)
def collecting(monkeypatch):
    """It is on, and looks as often as there are full passes."""
    monkeypatch.setattr(_unreachable, "_SHARE", 1e9)
    gort.gc.collect_unreachable()
    yield
    gort.gc.collect_unreachable(False)


def assert_collected(*idents):
    """They end after some more passes."""
    eventually(lambda: look() or not any(by_id(ident) for ident in idents), what="an end")


def assert_kept(*idents):
    """They wait on, whatever is collected."""
    look(3)
    assert all(map(is_waiting, idents))


# -- what is collected


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_what_nothing_can_wake_ends(make, anywhere):
    def body():
        idents = make()
        assert_collected(*(idents if isinstance(idents, list) else [idents]))

    anywhere(body)


def test_finally_blocks_run_in_the_order_of_goroutines_and_are_counted():
    out = gort.Chan(100)

    def work(n):
        try:
            gort.Chan().recv()
        finally:
            out.send(n)

    before = gort.gc.stats().unreachable
    idents = [gort.go(work, n).id for n in range(100)]
    wait_parked(*idents)
    look()
    assert [out.recv(timeout=LIMIT) for _ in idents] == list(range(100))
    eventually(lambda: gort.gc.stats().unreachable == before + 100)


def test_weak_reference_to_a_goroutine_does_not_hold_it_and_dies():
    def begin():
        g = gort.go(gort.Chan().recv)
        wait_parked(g.id)
        return weakref.ref(g)

    watch = begin()
    eventually(lambda: look() or watch() is None)


def test_objects_of_the_collected_end():
    class Thing:
        pass

    def begin():
        thing = Thing()
        watch = weakref.ref(thing)
        start(lambda kept: gort.Chan().recv(), thing)
        return watch

    watch = begin()
    # A weak reference leads to the thing, but the thing to no channel.
    eventually(lambda: look() or watch() is None)


def test_report_is_told_which():
    told = gort.Chan(10)
    gort.gc.collect_unreachable(report=told.send)
    ident = receiver()
    look()
    leak = told.recv(timeout=LIMIT)
    assert (leak.id, leak.reason) == (ident, "chan receive")
    assert [type(thing) for thing in leak.waits_on] == [gort.Chan]
    eventually(lambda: by_id(ident) is None)


def test_report_that_fails_is_told_of_and_keeps_nobody(monkeypatch):
    told = []
    monkeypatch.setattr(gort, "excepthook", lambda args: told.append(args.exc_type))

    def report(leak):
        raise ZeroDivisionError

    gort.gc.collect_unreachable(report=report)
    idents = [receiver(), receiver()]
    look()
    eventually(lambda: told == [ZeroDivisionError] * 2)
    assert_collected(*idents)


def test_report_has_to_be_callable():
    with raises_text(TypeError, "collect_unreachable(): report must be callable, not int"):
        gort.gc.collect_unreachable(report=3)


def test_switch_tells_how_it_stood():
    assert gort.gc.collect_unreachable(False) is True
    assert gort.gc.collect_unreachable(False) is False
    ident = receiver()
    gc.collect()
    settle()
    assert is_waiting(ident)
    assert gort.gc.collect_unreachable() is False
    assert_collected(ident)


# -- what comes back


KEPT = []


@pytest.fixture
def kept():
    yield KEPT
    KEPT.clear()


def test_finally_block_that_publishes_its_channel(kept):
    def work():
        ch = gort.Chan()
        try:
            ch.recv()
        finally:
            kept.append(ch)
            kept.append(ch.recv())  # waits again, and now somebody can wake it

    ident = start(work)
    eventually(lambda: look() or kept)
    wait_parked(ident)
    assert_kept(ident)
    kept[0].send("value")
    eventually(lambda: by_id(ident) is None)
    assert kept[1] == "value"


def test_finally_block_that_publishes_what_another_waits_for(kept):
    def begin():
        other = gort.Chan()

        def first():
            try:
                gort.Chan().recv()
            finally:
                kept.append(other)

        def second():
            kept.append(other.recv())

        return start(first), start(second)

    first, second = begin()
    assert_collected(first)
    assert_kept(second)
    kept[0].send("value")
    eventually(lambda: by_id(second) is None)
    assert kept[1] == "value"


def test_finally_block_that_wakes_another():
    out = gort.Chan(2)

    def begin():
        other = gort.Chan()

        def first():
            try:
                gort.Chan().recv()
            finally:
                other.send("woken")

        def second():
            out.send(other.recv())

        return start(first), start(second)

    idents = begin()
    assert_collected(*idents)
    assert out.recv(timeout=LIMIT) == "woken"


def test_finalizer_of_what_one_held_wakes_another():
    out = gort.Chan(2)

    def begin():
        other = gort.Chan(1)

        def first(loop):
            gort.Chan().recv()

        def second():
            out.send(other.recv())

        return start(first, Loop(lambda: other.send("finalizer"))), start(second)

    idents = begin()
    assert_collected(idents[0])
    eventually(lambda: look() or by_id(idents[1]) is None)
    assert out.recv(timeout=LIMIT) == "finalizer"


def test_values_in_dead_channels_may_use_channels_as_they_end():
    out = gort.Chan(5)

    def begin():
        ch = gort.Chan(3)
        for n in range(3):
            ch.send(Loop(lambda n=n: out.send(n)))
        return start(ch.send, Loop(lambda: out.send(3)))

    assert_collected(begin())
    eventually(lambda: gc.collect() >= 0 and len(out) == 4)
    assert sorted(out.recv() for _ in range(4)) == [0, 1, 2, 3]


def test_who_catches_it_is_asked_once_a_look():
    asked = []

    def begin():
        def stubborn():
            ch = gort.Chan()
            while len(asked) < 5:
                try:
                    ch.recv()
                except gort.GoroutineExit:
                    asked.append(1)

        return start(stubborn)

    ident = begin()
    for times in (1, 2):
        look()
        settle()
        assert len(asked) == times
    assert_collected(ident)
    assert len(asked) == 5


# -- what is kept


def test_what_somebody_can_wake_goes_on():
    ch, m, wg = gort.Chan(), gort.Mutex(), gort.WaitGroup()
    m.lock()
    wg.add(1)
    idents = [
        start(ch.recv), start(lambda: m.lock() or m.unlock()), start(wg.wait),
        start(gort.sleep, 1000), start(lambda: gort.Chan().recv(timeout=1000)),
        start(gort.after(1000).recv), start(gort.tick(1000).recv),
    ]  # fmt: skip
    held = gort.go(gort.Chan().recv)
    wait_parked(held.id)
    assert_kept(*idents, held.id)
    ch.send(1)
    m.unlock()
    wg.done()
    held.cancel()
    for ident in idents[3:]:
        by_id(ident).cancel()
    eventually(lambda: not any(map(by_id, [*idents, held.id])))


def test_channel_that_is_in_a_weak_dictionary_can_be_found():
    named = weakref.WeakValueDictionary()

    def begin():
        ch = named["ch"] = gort.Chan()
        return start(ch.recv)

    ident = begin()
    assert_kept(ident)
    named["ch"].send(1)
    eventually(lambda: by_id(ident) is None)


def test_locked_ones_and_those_a_debugger_looks_at_are_kept():
    def locked():
        with gort.locked_os_thread():
            gort.Chan().recv()

    def traced():
        sys.settrace(lambda *_: None)
        gort.Chan().recv()

    idents = [start(locked), start(traced)]
    assert_kept(*idents)
    for ident in idents:
        by_id(ident).cancel()
    eventually(lambda: not any(map(by_id, idents)))


def test_main_and_threads_are_kept():
    check(
        """
        import gc, os, threading, gort
        gort.gc.collect_unreachable()
        over = []
        def thread():
            try: gort.Chan().recv()
            except BaseException as e: over.append(e)
        def main():
            threading.Thread(target=thread, daemon=True).start()
            def collect():
                for _ in range(20):
                    gc.collect()
                    gort.sleep(0.01)
                assert not over
                os.write(1, b"nobody ended")
                os._exit(0)
            gort.go(collect)
            gort.Chan().recv()
        gort.run(main)
        """,
        "nobody ended",
        GORT_THREADS="1",
    )


# -- when


def test_looks_take_their_share_of_the_time_and_no_more(monkeypatch):
    now, looks = [0], []
    monkeypatch.setattr(_unreachable, "_clock", lambda: now[0])
    monkeypatch.setattr(_unreachable, "_SHARE", 0.05)

    def search(handles):
        looks.append(handles)
        now[0] += 150_000_000
        return []

    monkeypatch.setattr(_unreachable, "_search", search)
    gort.gc.collect_unreachable()
    look()
    look()
    assert len(looks) == 2  # what may be taken at once is used up
    for step, expected in ((1_600_000_000, 2), (200_000_000, 3), (2_700_000_000, 3)):
        now[0] += step
        gc.collect()
        settle()
        assert len(looks) == expected


def test_crowd_of_new_goroutines_brings_a_look():
    gc.disable()
    try:
        look()
        ident = receiver()
        gc.collect(0)
        settle()
        assert is_waiting(ident)
        gate = gort.Chan()
        crowd = [gort.go(gate.recv_ok) for _ in range(300)]
        gc.collect(0)
        eventually(lambda: by_id(ident) is None)
    finally:
        gc.enable()
    gate.close()
    for g in crowd:
        g.join(timeout=LIMIT)


def test_fork_and_exit_with_it_on():
    check(
        """
        import gc, gort, os, warnings
        warnings.simplefilter("ignore")
        def main():
            gort.gc.collect_unreachable()
            gort.go(gort.Chan().recv)
            gort.gosched()
            pid = os.fork()
            out = gort.Chan(1)
            def forgotten(out):
                try: gort.Chan().recv()
                finally: out.send(1)
            gort.go(forgotten, out)
            gort.gosched()
            gc.collect()
            out.recv()
            if pid == 0:
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            gort.go(gort.Chan().recv)
            gort.gosched()
        gort.run(main)
        """
    )
