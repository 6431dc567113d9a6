"""gort.sync: every rule of Go's sync package, between goroutines, the main thread and plain threads.

Once is in test_sync_once.py, Cond and Semaphore in test_sync_cond.py, Pool in test_sync_pool.py, Map in
test_sync_map.py; gort.atomic, gort.singleflight and the barriers have files of their own.
"""

from __future__ import annotations

import copy
import doctest
import gc
import threading
import time

import gort
import pytest
from children import child
from gort import Chan, Cond, Mutex, RWMutex, Semaphore, WaitGroup, go
from waiting import LIMIT, OnThread, eventually, join_all, parked, raises_text, settle, waiter

UNLOCKED = "sync: unlock of unlocked mutex"
NEGATIVE = "sync: negative WaitGroup counter"
REUSED = "sync: WaitGroup is reused before previous Wait has returned"


@pytest.fixture(params=[go, OnThread], ids=["goroutine", "thread"])
def beside(request):
    """Start a function beside the test's own code: as a goroutine, or on a plain thread."""
    return request.param


# Mutex


def test_mutex_keeps_all_kinds_of_callers_apart(anywhere, beside):
    m, inside, total = Mutex(), [], []

    def work(name):
        for _ in range(20):
            with m:
                inside.append(name)
                gort.sleep(0)
                assert inside.pop() == name
                total.append(1)

    def body():
        others = [beside(work, i) for i in range(4)]
        work("self")
        return join_all(others)

    anywhere(body)
    assert len(total) == 100 and not inside


def test_mutex_context_manager_gives_the_mutex_and_unlocks_after_an_exception():
    m = Mutex()
    with pytest.raises(KeyError), m as entered:
        assert entered is m and not m.try_lock()
        raise KeyError
    assert m.try_lock()


def test_mutex_unlock_of_unlocked_raises_and_changes_nothing(anywhere):
    m = Mutex()
    for _ in range(2):
        with raises_text(RuntimeError, UNLOCKED):
            anywhere(m.unlock)
    assert m.try_lock()


def test_mutex_is_not_owned_and_another_may_unlock_it(anywhere, beside):
    m = Mutex()
    anywhere(m.lock)
    beside(m.unlock).join()
    assert m.try_lock()


def test_mutex_is_not_reentrant_and_a_time_out_leaves_no_waiter(anywhere):
    m = Mutex()

    def body():
        m.lock()
        for timeout in (0, 0.001):
            with pytest.raises(TimeoutError):
                m.lock(timeout=timeout)
        m.unlock()

    anywhere(body)
    assert m.try_lock()


def test_mutex_serves_its_waiters_in_order():
    m, order = Mutex(), []
    m.lock()

    def body(i):
        with m:
            order.append(i)

    gs = [waiter(body, i) for i in range(10)]
    m.unlock()
    join_all(gs)
    assert order == list(range(10))


def test_mutex_unlock_wakes_a_waiter_that_competes():
    m = Mutex()
    m.lock()
    g = waiter(m.lock)
    for _ in range(5):
        m.unlock()
        assert m.try_lock()  # g has not run yet
    parked(g)  # it lost
    m.unlock()
    g.join()
    assert not m.try_lock()
    m.unlock()


def test_mutex_is_handed_over_after_a_loss_that_did_not_pay():
    m = Mutex()
    m.lock()
    g = waiter(m.lock)
    m.unlock()
    assert m.try_lock()
    gort.gosched()
    parked(g)  # it lost to the first that came
    m.unlock()
    assert not m.try_lock()  # g has it, though it has not run yet
    g.join()
    m.unlock()
    assert m.try_lock()


def test_mutex_is_handed_over_to_one_that_waited_too_long():
    """Starvation mode: whoever locks again and again keeps no waiter out for long."""
    m, log = Mutex(), []

    def visit():
        for _ in range(3):
            with m:
                log.append(True)
            gort.gosched()

    m.lock()
    g = waiter(visit)
    end = time.monotonic() + LIMIT
    while len(log) < 3:
        assert time.monotonic() < end
        for _ in range(10_000):
            m.unlock()
            m.lock()
        gort.gosched()  # with the lock held: who competes loses
    m.unlock()
    g.join(timeout=LIMIT)


def test_mutex_whose_waiter_was_woken_before_a_fork_serves_others_in_the_child():
    done = child(
        """
        import os, gort
        from waiting import waiter
        m = gort.Mutex()
        m.lock()
        waiter(m.lock)
        m.unlock()  # it is woken, and has not run yet
        if os.fork() == 0:
            m.lock()
            g = waiter(m.lock)
            m.unlock()
            g.join(timeout=40)
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.wait()[1]))
        """
    )
    assert done.stdout == "7\n", done.stderr


def test_mutex_waiter_that_is_cancelled_does_not_get_it():
    m = Mutex()
    m.lock()
    first, second = waiter(m.lock), waiter(m.lock)
    assert first.status == "sync.Mutex.Lock"
    first.cancel()
    with pytest.raises(gort.Cancelled):
        first.join()
    m.unlock()
    second.join()
    assert not m.try_lock()


def test_mutex_goes_to_a_waiting_thread(anywhere):
    m, started = Mutex(), threading.Event()
    m.lock()

    def body():
        started.set()
        m.lock()

    t = OnThread(body)
    eventually(started.is_set)
    settle()
    assert not t.done
    anywhere(m.unlock)
    t.join()
    assert not m.try_lock()


@pytest.mark.parametrize("kind", [Mutex, RWMutex, WaitGroup])
def test_wrong_arguments_are_type_errors(kind):
    with pytest.raises(TypeError):
        kind(1)
    with pytest.raises(TypeError):
        kind(a=1)
    wait = kind().wait if kind is WaitGroup else kind().lock
    for bad in [("x",), (1, 2)]:
        with pytest.raises(TypeError):
            wait(*bad)
    with pytest.raises(ValueError):
        wait(timeout=-1)


@pytest.mark.parametrize(
    "make", [Mutex, RWMutex, WaitGroup, lambda: Semaphore(1), lambda: Cond(Mutex())]
)
def test_copies_are_refused(make):
    with pytest.raises(TypeError):  # as Go's vet and "sync.Cond is copied"
        copy.copy(make())


@pytest.mark.parametrize("kind", [Mutex, Cond, Semaphore], ids=lambda kind: kind.__name__)
def test_examples_in_the_compiled_docstrings_run(kind):
    parsed = doctest.DocTestParser().get_doctest(kind.__doc__, {}, kind.__name__, None, 0)
    assert parsed.examples and doctest.DocTestRunner().run(parsed).failed == 0


# RWMutex


def test_rwmutex_is_held_by_many_readers_or_one_writer(anywhere, beside):
    rw, state, total = RWMutex(), {"r": 0, "w": 0}, [0]

    def read():
        for _ in range(10):
            with rw.reading():
                state["r"] += 1
                assert not state["w"]
                gort.sleep(0)
                state["r"] -= 1

    def write():
        for _ in range(10):
            with rw:
                assert not state["r"] and not state["w"]
                state["w"] = 1
                gort.sleep(0)
                state["w"] = 0
                total[0] += 1

    def body():
        others = [beside(f) for f in (read, write, read, read, write)]
        read()
        join_all(others)

    anywhere(body)
    assert total == [20]


def test_rwmutex_waiting_writer_keeps_new_readers_out():
    rw = RWMutex()
    rw.rlock()
    assert rw.try_rlock() and not rw.try_lock()
    rw.runlock()
    w = waiter(rw.lock)
    assert w.status == "sync.RWMutex.Lock"
    assert not rw.try_rlock()
    with pytest.raises(TimeoutError):
        rw.rlock(timeout=0.001)  # a recursive read lock would deadlock here
    rw.runlock()
    w.join()
    assert not rw.try_rlock() and not rw.try_lock()
    rw.unlock()
    assert rw.try_lock()


def test_rwmutex_unlock_lets_all_waiting_readers_in_before_the_next_writer():
    rw, order = RWMutex(), []
    rw.lock()

    def write():
        with rw:
            order.append("w")

    def read():
        rw.rlock()
        order.append("r")

    gs = [waiter(f) for f in (write, read, read, write, read)]
    assert gs[1].status == "sync.RWMutex.RLock"
    rw.unlock()
    eventually(lambda: len(order) == 3)
    settle()
    assert order == ["r"] * 3
    for _ in range(3):
        rw.runlock()
    join_all(gs)
    assert order == ["r"] * 3 + ["w"] * 2


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_rwmutex_writer_that_gives_up_lets_the_readers_behind_it_in(how):
    rw = RWMutex()
    rw.rlock()
    w = waiter(lambda: rw.lock(timeout=0.02 if how == "timeout" else None))
    readers = [go(rw.rlock) for _ in range(3)]
    if how == "cancel":
        parked(*readers)
        w.cancel()
    with pytest.raises((TimeoutError, gort.Cancelled)):
        w.join()
    join_all(readers)
    for _ in range(4):
        rw.runlock()
    assert rw.try_lock()


def test_rwmutex_misuse_raises_with_gos_words():
    rw = RWMutex()
    with raises_text(RuntimeError, "sync: Unlock of unlocked RWMutex"):
        rw.unlock()
    with raises_text(RuntimeError, "sync: RUnlock of unlocked RWMutex"):
        rw.runlock()
    rw.rlock()
    with raises_text(RuntimeError, "sync: Unlock of unlocked RWMutex"):
        rw.unlock()
    rw.runlock()
    rw.lock()
    with raises_text(RuntimeError, "sync: RUnlock of unlocked RWMutex"):
        rw.runlock()


# WaitGroup


def test_waitgroup_wakes_every_waiter_at_zero(anywhere, beside):
    wg, out = WaitGroup(), []
    wg.add(3)

    def wait():
        wg.wait()
        out.append(1)

    def body():
        others = [beside(wait) for _ in range(3)]
        go(lambda: [wg.done() for _ in range(3)])
        wait()
        join_all(others)

    anywhere(body)
    assert len(out) == 4
    wg.wait(timeout=0)  # at zero it does not wait


def test_waitgroup_add_may_be_negative_and_default_is_one():
    wg = WaitGroup()
    wg.add()
    wg.add(4)
    wg.add(-2)
    with pytest.raises(TimeoutError):
        wg.wait(timeout=0.001)
    wg.add(-3)
    wg.wait()


def test_waitgroup_below_zero_raises_and_changes_nothing(anywhere):
    wg = WaitGroup()
    with raises_text(RuntimeError, NEGATIVE):
        anywhere(wg.done)
    wg.add(2)
    with raises_text(RuntimeError, NEGATIVE):
        wg.add(-3)
    with raises_text(RuntimeError, NEGATIVE):
        wg.add(2**63 - 1)
    with pytest.raises((TypeError, OverflowError)):
        wg.add(2**70)
    wg.add(-2)
    wg.wait()


def test_waitgroup_used_again_before_a_waiter_came_back_is_told_to_it():
    wg = WaitGroup()
    wg.add(1)
    g = waiter(wg.wait)
    assert g.status == "sync.WaitGroup.Wait"
    wg.done()
    wg.add(1)
    with raises_text(RuntimeError, REUSED):
        g.join()
    wg.done()
    wg.wait()


def test_waitgroup_may_be_used_again_after_wait(anywhere):
    wg = WaitGroup()

    def body():
        for _ in range(20):
            for _ in range(3):
                wg.go(gort.gosched)
            wg.wait()

    anywhere(body)


def test_waitgroup_cancelled_waiter_leaves_the_others():
    wg = WaitGroup()
    wg.add(1)
    first, second = waiter(wg.wait), waiter(wg.wait)
    first.cancel()
    with pytest.raises(gort.Cancelled):
        first.join()
    wg.done()
    second.join()


def test_waitgroup_go_passes_arguments_and_gives_the_goroutine():
    wg = WaitGroup()
    g = wg.go(lambda a, *, b: a + b, 1, b=2)
    wg.wait()
    assert g.join() == 3
    with pytest.raises(TypeError):
        wg.go(None)
    wg.wait(timeout=0)


def test_waitgroup_go_whose_function_raises_is_not_done(reports):
    wg = WaitGroup()

    def fail():
        raise ValueError("x")

    g = wg.go(fail)
    with pytest.raises(ValueError):
        g.join()
    del g
    gc.collect()
    with pytest.raises(TimeoutError):
        wg.wait(timeout=0.001)
    wg.done()
    wg.wait()


def test_waitgroup_go_whose_caller_is_cancelled_right_after_add_counts_nothing():
    class Cut(WaitGroup):
        def add(self, n=1):
            super().add(n)
            raise gort.GoroutineExit

    wg = Cut()
    with pytest.raises(gort.GoroutineExit):
        wg.go(print)
    wg.wait(timeout=LIMIT)


def test_waitgroup_go_that_is_refused_by_add_counts_nothing():
    class Refusing(WaitGroup):
        def add(self, n=1):
            raise RuntimeError("refused")

    wg = Refusing()
    with pytest.raises(RuntimeError, match="refused"):
        wg.go(print)
    wg.wait(timeout=LIMIT)


@pytest.mark.parametrize("when", ["goexit", "parked", "before it ran"])
def test_waitgroup_go_that_is_ended_is_done(when):
    wg = WaitGroup()
    g = wg.go(gort.goexit if when == "goexit" else Chan().recv)
    if when == "parked":
        parked(g)
    if when != "goexit":
        g.cancel()
    wg.wait(timeout=LIMIT)
