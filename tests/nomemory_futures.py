"""Programs for tests/test_futures_nomemory.py: what an executor does without memory.

Not with standard futures: the Condition of one stays locked when memory lacks at its lock.
"""

from __future__ import annotations

import gort
import nomemory
from gort.futures import Executor
from nomemory import FAILED, LIMIT, add


def is_well(pool):
    """The executor has all its places, does what is asked of it and can be waited for."""
    assert pool.submit(add, 1, 2).result(LIMIT) == 3
    assert list(pool.map(add, [1, 2], [3, 4], timeout=LIMIT)) == [4, 6]
    gort.go(pool.shutdown).join(LIMIT)
    assert pool._running == 0 and not pool._queue
    assert not pool._futures, "a future that nobody ends"


def settles(outcome):
    """Each future has its result, or MemoryError."""
    for future in () if outcome is FAILED else outcome:
        try:
            assert future.result(LIMIT) == 3
        except MemoryError:
            pass


def submits():
    """One place: one task starts, two are queued."""
    pool = Executor(1, lazy=True)

    def act():
        futures = [pool.submit(add, 1, 2) for _ in range(3)]
        gort.gosched()
        return futures

    def verify(outcome):
        settles(outcome)
        is_well(pool)

    return act, verify


def maps():
    """A map whose results are taken without memory."""
    pool = Executor(1)

    def verify(outcome):
        assert outcome in (FAILED, [3, 5, 7])
        is_well(pool)

    return lambda: list(pool.map(add, [1, 2, 3], [2, 3, 4], timeout=LIMIT)), verify


def cancels():
    """Shutting down with tasks in the queue."""
    pool, gate = Executor(1, lazy=True), gort.Chan()
    first = pool.submit(gate.recv_ok)
    futures = [pool.submit(add, 1, 2) for _ in range(2)]

    def verify(outcome):
        if outcome is FAILED:
            pool.shutdown(wait=False, cancel_futures=True)
        gate.close()
        first.result(LIMIT)
        gort.go(pool.shutdown).join(LIMIT)
        assert all(future.done() for future in futures)

    return lambda: pool.shutdown(wait=False, cancel_futures=True), verify


OPERATIONS = {f.__name__: f for f in (submits, maps, cancels)}


def sweep(name):
    """As nomemory.sweep."""
    nomemory.OPERATIONS[name] = OPERATIONS[name]
    nomemory.sweep(name)
