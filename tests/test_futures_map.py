"""gort.futures.Executor.map: order, reading ahead, time limits, ending early, what it keeps."""

from __future__ import annotations

import gc
import itertools
import weakref

import gort
import pytest
from gating import Gate
from gort.futures import Executor
from waiting import eventually


def test_map_submits_at_once_and_keeps_the_order():
    ran = []

    def task(n):
        gort.sleep(0.001 * (5 - n))
        ran.append(n)
        return n

    with Executor() as pool:
        results = pool.map(task, range(5))
        eventually(lambda: len(ran) == 5)
        assert list(results) == list(range(5))
    assert ran == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("size", [1, 3])
def test_map_with_a_buffersize_reads_as_results_are_taken(size):
    read = []
    source = (read.append(n) or n for n in itertools.count())
    with Executor(2) as pool:
        results = pool.map(lambda n: n * n, source, buffersize=size)
        assert len(read) == size
        for n in range(10):
            assert next(results) == n * n
            assert len(read) == n + 1 + size
        results.close()


@pytest.mark.parametrize(
    ("size", "kind", "text"),
    [(0, ValueError, "None or > 0"), (-1, ValueError, "None or > 0"), (1.5, TypeError, "integer")],
)
def test_map_refuses_a_wrong_buffersize(size, kind, text):
    with Executor() as pool, pytest.raises(kind, match=text):
        pool.map(int, "1", buffersize=size)


@pytest.mark.parametrize("how", ["closed", "dropped", "raises"])
def test_map_that_ends_early_does_not_begin_the_rest(how):
    gate, ran = Gate(), []

    def task(n):
        ran.append(n)
        if n == 1:
            raise ValueError(n)
        if n == 9:
            gate.task()

    with Executor(1) as pool:
        results = pool.map(task, [0, 1, 9, 3, 4] if how == "raises" else [0, 9, 3, 4])
        assert next(results) is None
        eventually(lambda: gate.inside)
        if how == "raises":
            with pytest.raises(ValueError, match="1"):
                next(results)
        elif how == "closed":
            results.close()
        else:
            del results
        gate.open()
    assert ran in ([0, 9], [0, 1, 9])


def test_map_that_times_out_does_not_begin_the_rest():
    gate, ran = Gate(), []
    with Executor(1) as pool:
        pool.submit(gate.task)
        results = pool.map(ran.append, [6, 7], timeout=0)
        with pytest.raises(TimeoutError):
            next(results)
        gate.open()
    assert ran == []


def test_map_keeps_neither_executor_nor_results():
    class Thing:
        pass

    gc.collect()
    gc.disable()
    try:
        pool = Executor(2)
        results = pool.map(lambda _: Thing(), range(5))
        for thing in results:
            seen = weakref.ref(thing)
            del thing
            assert seen() is None
        results = pool.map(int, itertools.count(), buffersize=2)
        assert next(results) == 0
        eventually(lambda pool=pool: not pool._running)
        seen = weakref.ref(pool)
        del pool
        assert eventually(lambda: seen() is None)
        assert list(results) == [1, 2]
    finally:
        gc.enable()
