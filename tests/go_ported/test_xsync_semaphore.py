"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of golang.org/x/sync v0.24.0, semaphore/semaphore_test.go. A context that is cancelled is here a goroutine that is,
or a time-out.
"""

import random

import gort
import pytest
from gort import Semaphore, WaitGroup, go, gomaxprocs, sleep
from waiting import LIMIT, join_all, parked, raises_text

MAX_SLEEP = 1e-3


def hammer_weighted(sem, n, loops):
    for _ in range(loops):
        sem.acquire(n)
        sleep(random.uniform(0, MAX_SLEEP))
        sem.release(n)


def test_weighted():
    n = max(4, gomaxprocs())
    sem, wg = Semaphore(n), WaitGroup()
    for i in range(n):
        wg.go(hammer_weighted, sem, i, 1000 // n)
    wg.wait(timeout=LIMIT)
    assert sem.try_acquire(n)


def test_weighted_panic():
    w = Semaphore(1)
    with raises_text(RuntimeError, "semaphore: released more than held"):
        w.release(1)


def test_weighted_negative_size_panic():
    with raises_text(ValueError, "semaphore: size < 0"):
        Semaphore(-1)


def test_weighted_zero_size():
    assert Semaphore(0).try_acquire(0)


@pytest.mark.parametrize("method", ["acquire", "try_acquire", "release"])
def test_weighted_negative_weight_panic(method):
    with raises_text(ValueError, "semaphore: n < 0"):
        getattr(Semaphore(1), method)(-1)


def tries(sem, attempt):
    sem.acquire(1)
    yield attempt(1)
    yield attempt(1)
    sem.release(2)
    yield attempt(1)
    sem.acquire(1)
    yield attempt(1)


def test_weighted_try_acquire():
    sem = Semaphore(2)
    assert list(tries(sem, sem.try_acquire)) == [True, False, True, False]


def test_weighted_acquire():
    sem = Semaphore(2)

    def attempt(n):
        try:
            sem.acquire(n, timeout=0.01)
        except TimeoutError:
            return False
        return True

    assert list(tries(sem, attempt)) == [True, False, True, False]


def test_weighted_doesnt_block_if_too_big():
    n = 2
    sem = Semaphore(n)
    doomed = go(sem.acquire, n + 1)
    parked(doomed)

    def use():
        sem.acquire(1)
        sleep(0.001)
        sem.release(1)

    join_all([go(use) for _ in range(n * 3)])
    assert not doomed.done and doomed.cancel()


def test_large_acquire_doesnt_starve():
    n = max(2, gomaxprocs())
    sem, running, wg = Semaphore(n), [True], WaitGroup()

    def use():
        try:
            while running:
                sleep(0.001)
                sem.release(1)
                sem.acquire(1)
        finally:
            sem.release(1)

    for _ in range(n):
        sem.acquire(1)
        wg.go(use)
    sem.acquire(n, timeout=LIMIT)
    running.clear()
    sem.release(n)
    wg.wait(timeout=LIMIT)


def test_alloc_cancel_doesnt_starve():
    sem = Semaphore(10)
    sem.acquire(1)  # a portion is taken, so that all ten can be had later
    large = go(sem.acquire, 10)
    while sem.try_acquire(1):
        sem.release(1)
        gort.gosched()
    go(large.cancel)
    sem.acquire(1, timeout=LIMIT)  # the first waiter gave up: it must let this one pass
    sem.release(1)


def test_weighted_acquire_canceled():  # https://go.dev/issue/63615
    sem, tokens = Semaphore(2), []

    def acquire():
        sem.acquire(2)
        tokens.append(2)

    sem.acquire(1)
    g = go(acquire)
    while sem.try_acquire(1):
        sem.release(1)
        gort.gosched()
    g.cancel()  # before there are enough: it must fail
    sem.release(1)
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    assert tokens == []
    assert sem.try_acquire(2), "try_acquire after cancelled acquire failed"
