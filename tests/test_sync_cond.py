"""gort.Cond and gort.Semaphore (weighted, as x/sync has it)."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref

import gort
import pytest
from gort import Chan, Cond, Mutex, RWMutex, Semaphore, go
from waiting import LIMIT, eventually, join_all, parked, raises_text, settle


class PythonLock:
    """A lock written in Python, whose unlock lets others run."""

    def __init__(self):
        self.inner = Mutex()
        self.calls = []

    def lock(self):
        self.inner.lock()
        self.calls.append("lock")

    def unlock(self):
        self.calls.append("unlock")
        self.inner.unlock()
        gort.gosched()

    def try_lock(self):
        return self.inner.try_lock()


@pytest.fixture(params=[Mutex, RWMutex, PythonLock])
def lock(request):
    return request.param()


def sleeper(lock, cond, order, name, timeout=None):
    """Wait once under the lock; note the name while holding it."""
    lock.lock()
    try:
        cond.wait(timeout)
        order.append(name)
    finally:
        lock.unlock()


def in_wait(lock, cond, order, *names):
    """Goroutines parked in cond.wait(), in order."""
    gs = []
    for name in names:
        gs.append(go(sleeper, lock, cond, order, name))
        eventually(lambda: gs[-1].status == "sync.Cond.Wait")
    return gs


def test_cond_signal_wakes_who_waits_longest_and_broadcast_all(lock):
    cond, order = Cond(lock), []
    gs = in_wait(lock, cond, order, *range(6))
    for i in range(3):
        cond.signal()
        gs[i].join()
    settle()
    assert order == [0, 1, 2]
    cond.broadcast()
    join_all(gs)
    assert sorted(order) == list(range(6))
    cond.signal(), cond.broadcast()  # nobody waits: nothing is kept
    with pytest.raises(TimeoutError):
        sleeper(lock, cond, order, "late", timeout=0.001)


def test_cond_between_all_kinds_of_callers(anywhere):
    m = Mutex()
    cond, queue, got = Cond(m), [], []

    def consume():
        for _ in range(10):
            with m:
                while not queue:
                    cond.wait()
                got.append(queue.pop(0))

    def body():
        thread = threading.Thread(target=consume)
        thread.start()
        gs = [go(consume) for _ in range(2)]
        for i in range(30):
            with m:
                queue.append(i)
            cond.signal()
            gort.gosched()
        join_all(gs)
        eventually(lambda: not thread.is_alive())

    anywhere(body)
    assert sorted(got) == list(range(30))


def test_cond_wait_without_the_lock_raises_and_leaves_no_waiter(lock):
    cond = Cond(lock)
    with pytest.raises(RuntimeError):
        cond.wait()
    order = []
    (g,) = in_wait(lock, cond, order, "w")
    cond.signal()
    g.join()


def test_cond_wait_that_times_out_has_the_lock_again(lock, anywhere):
    cond = Cond(lock)

    def body():
        lock.lock()
        with pytest.raises(TimeoutError):
            cond.wait(timeout=0.001)
        assert not lock.try_lock()
        lock.unlock()

    anywhere(body)
    assert lock.try_lock()


def test_cond_wait_that_is_cancelled_takes_the_lock_before_it_raises(lock):
    cond, order = Cond(lock), []
    first, second = in_wait(lock, cond, order, "a", "b")
    lock.lock()
    first.cancel()
    eventually(lambda: first.status in ("sync.Mutex.Lock", "sync.RWMutex.Lock"))
    first.cancel()  # once more, while it waits for the lock
    settle()
    assert not first.done
    lock.unlock()
    with pytest.raises(gort.Cancelled):
        first.join()  # its finally unlocked what it held
    cond.signal()
    second.join()
    assert order == ["b"] and lock.try_lock()


def test_cond_signal_between_unlock_and_park_is_not_lost():
    class Signalling(PythonLock):
        def unlock(self):
            super().unlock()
            cond.signal()

    lock = Signalling()
    cond = Cond(lock)
    lock.lock()
    cond.wait(timeout=LIMIT)
    assert lock.calls == ["lock", "unlock", "lock"]


def test_cond_unlock_that_raises_after_a_signal_hands_the_signal_on():
    class Failing(PythonLock):
        def unlock(self):
            cond.signal()
            raise KeyError

    lock = Failing()
    cond, order = Cond(lock), []
    lock.lock()
    with pytest.raises(KeyError):
        cond.wait()
    other = Mutex()
    cond, order = Cond(other), []
    in_wait(other, cond, order, "w")[0].cancel()


def test_cond_signal_handler_runs_and_the_main_goroutine_waits_on():
    m = Mutex()
    cond, ran = Cond(m), []
    old = signal.signal(signal.SIGUSR1, lambda *_: ran.append(1))
    try:
        go(os.kill, os.getpid(), signal.SIGUSR1)

        def later():
            eventually(lambda: ran)
            with m:
                cond.signal()

        g = go(later)
        with m:
            cond.wait(timeout=LIMIT)
        g.join()
        assert ran == [1]
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_cond_needs_a_lock():
    for bad in (None, 3, threading.Lock()):
        with pytest.raises(TypeError):
            Cond(bad)
    with pytest.raises(TypeError):
        Cond()


def test_cond_in_a_cycle_is_collected():
    lock = PythonLock()
    lock.cond = Cond(lock)
    gone = weakref.ref(lock)
    del lock
    gc.collect()
    assert gone() is None


# Semaphore


def test_semaphore_keeps_the_number_inside(anywhere):
    s, state = Semaphore(3), {"in": 0, "most": 0}

    def body():
        def work():
            for _ in range(10):
                with s as entered:
                    assert entered is s
                    state["in"] += 1
                    state["most"] = max(state["most"], state["in"])
                    gort.sleep(0)
                    state["in"] -= 1

        gs = [go(work) for _ in range(8)]
        work()
        join_all(gs)

    anywhere(body)
    assert state["in"] == 0 and state["most"] <= 3
    s.acquire(3, timeout=0)


def test_semaphore_waiters_are_served_in_order_and_none_overtakes():
    s, order = Semaphore(4), []
    s.acquire(4)

    def take(n):
        s.acquire(n)
        order.append(n)

    gs = []
    for n in (3, 1, 2):
        gs.append(go(take, n))
        parked(gs[-1])
    assert gs[0].status == "semacquire"
    s.release(2)  # enough for the second, but the first comes first
    settle()
    assert not order and not s.try_acquire()
    s.release(2)
    eventually(lambda: len(order) == 2)
    settle()
    assert sorted(order) == [1, 3]
    s.release(3)
    join_all(gs)
    assert order[2] == 2


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_semaphore_front_waiter_that_gives_up_lets_the_next_go(how):
    s = Semaphore(3)
    s.acquire(2)
    big = go(s.acquire, 3, 0.02 if how == "timeout" else None)
    parked(big)
    small = go(s.acquire, 1)
    if how == "cancel":
        parked(small)
        big.cancel()
    with pytest.raises((TimeoutError, gort.Cancelled)):
        big.join()
    small.join()


def test_semaphore_request_for_more_than_the_size_blocks_nobody_else():
    s = Semaphore(2)
    g = go(s.acquire, 3)
    parked(g)
    s.acquire(2, timeout=LIMIT)
    s.release(2)
    settle()
    assert not g.done
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join()


def test_semaphore_with_plain_threads():
    s, ch = Semaphore(0), Chan(1)
    thread = threading.Thread(target=lambda: ch.send(s.release()))
    with pytest.raises(RuntimeError):
        s.release()
    s = Semaphore(1)
    s.acquire()
    thread.start()
    s.acquire(timeout=LIMIT)
    assert ch.recv() is None
    thread.join()


def test_semaphore_misuse_and_wrong_arguments():
    s = Semaphore(2)
    with raises_text(RuntimeError, "semaphore: released more than held"):
        s.release()
    s.acquire()
    with raises_text(RuntimeError, "semaphore: released more than held"):
        s.release(2)
    s.release()
    with raises_text(ValueError, "semaphore: size < 0"):
        Semaphore(-1)
    for call in (
        lambda: s.acquire(-1),
        lambda: s.release(-1),
        lambda: s.try_acquire(-1),
    ):
        with raises_text(ValueError, "semaphore: n < 0"):
            call()
    for call in (Semaphore, lambda: Semaphore("x"), lambda: s.acquire("x")):
        with pytest.raises(TypeError):
            call()
    assert s.try_acquire(0) and s.try_acquire(2) and not s.try_acquire()
