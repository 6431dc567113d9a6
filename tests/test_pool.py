"""gort.pool.WorkerPool: where jobs go, growth by backlog and by waiting, keep-alive, being full, closing."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import gort
import pytest
from gort.pool import PoolFull, WorkerPool
from gort.testing import no_leaks, synctest
from hypothesis import given, settings
from hypothesis import strategies as st


def workers(pool):
    return pool.stats()["workers"]


class Gate:
    """Jobs that stay until it opens."""

    def __init__(self):
        self.ch = gort.Chan()
        self.inside = 0

    def job(self, result=None):
        self.inside += 1
        self.ch.recv_ok()
        self.inside -= 1
        return result

    def open(self):
        self.ch.close()


def test_results_and_exceptions_come_back(anywhere):
    def body():
        with WorkerPool(2, 4) as pool:
            jobs = [pool.submit(divmod, 7, n) for n in (2, 3, 0)]
            assert [job.join() for job in jobs[:2]] == [(3, 1), (2, 1)]
            for _ in range(3):
                with pytest.raises(ZeroDivisionError) as error:
                    jobs[2].join()
                assert len(error.traceback) < 6
            assert pool.submit(dict, a=1).join() == {"a": 1}
        assert workers(pool) == 0

    anywhere(body)


@synctest.test
def test_jobs_go_where_the_rules_send_them():
    """Core workers, then the queue, then workers up to max, then no more."""
    gate, order = Gate(), []
    pool = WorkerPool(2, 4, queue=3, latency=None, when_full="reject")
    for expected in [(1, 0), (2, 0), (2, 1), (2, 2), (2, 3), (3, 3), (4, 3)]:
        pool.submit(lambda n=expected: (gate.job(), order.append(n)))
        assert (workers(pool), pool.stats()["queued"]) == expected
    with pytest.raises(PoolFull, match="4 workers are busy, 3 jobs wait"):
        pool.submit(print)
    synctest.wait()
    # The two that came when the queue was full let those who waited longest go first.
    assert gate.inside == 4
    gate.open()
    pool.close()
    stats = pool.stats()
    assert (stats["submitted"], stats["rejected"], stats["done"], stats["peak"]) == (7, 1, 7, 4)


@synctest.test
def test_workers_beyond_core_end_after_their_keepalive():
    gate = Gate()
    pool = WorkerPool(1, 5, queue=0, keepalive=60)
    for _ in range(5):
        pool.submit(gate.job)
    gort.sleep(1000)
    assert workers(pool) == 5
    gate.open()
    gort.sleep(59.999)
    assert (workers(pool), pool.stats()["idle"]) == (5, 5)
    gort.sleep(0.002)
    synctest.wait()
    assert (workers(pool), pool.stats()["idle"]) == (1, 1)
    gort.sleep(10_000)
    assert workers(pool) == 1
    assert pool.submit(pow, 2, 3).join() == 8
    pool.close()
    assert workers(pool) == 0


@synctest.test
def test_worker_that_gets_a_job_lives_on():
    pool = WorkerPool(0, 1, keepalive=10)
    for _ in range(5):
        pool.submit(gort.sleep, 1)
        gort.sleep(9)
        assert workers(pool) == 1
    gort.sleep(20)
    assert (workers(pool), pool.stats()["started"]) == (0, 1)
    pool.close()


@synctest.test
def test_pool_grows_when_its_jobs_wait_too_long():
    gate, begun = Gate(), []
    pool = WorkerPool(1, 3, latency=0.5)
    pool.submit(gate.job)
    for n in range(4):
        gort.sleep(0.1)
        pool.submit(lambda n=n: (begun.append((n, round(time.monotonic() - start, 6))), gate.job()))
    start = time.monotonic() - 0.4
    gort.sleep(0.1999)
    assert workers(pool) == 1
    gort.sleep(1)
    synctest.wait()
    assert (workers(pool), pool.stats()["queued"]) == (3, 2)
    assert begun == [(0, 0.6), (1, 0.725)]
    gate.open()
    pool.close()
    assert [n for n, _ in begun] == [0, 1, 2, 3]


@synctest.test
def test_who_submits_to_a_full_pool_waits():
    gate, taken = Gate(), []
    pool = WorkerPool(1, 1, queue=1, latency=None)

    def submits():
        for n in range(4):
            pool.submit(gate.job)
            taken.append(n)

    g = gort.go(submits)
    synctest.wait()
    assert taken == [0, 1] and not g.done
    gate.open()
    g.join()
    pool.close()
    assert taken == [0, 1, 2, 3] and pool.stats()["done"] == 4


@synctest.test
def test_close_ends_those_that_wait_and_drains():
    gate, done, errors = Gate(), [], []
    pool = WorkerPool(1, 1, queue=2, latency=None)
    for n in range(3):
        pool.submit(lambda n=n: (gate.job(), done.append(n)))

    def submits():
        try:
            pool.submit(print)
        except RuntimeError as error:
            errors.append(str(error))

    gort.go(submits)
    synctest.wait()
    with pytest.raises(TimeoutError):
        pool.close(timeout=5)
    assert errors == ["the WorkerPool is closed"]
    with pytest.raises(RuntimeError, match="the WorkerPool is closed"):
        pool.submit(print)
    gate.open()
    pool.close()
    assert done == [0, 1, 2] and workers(pool) == 0
    pool.close()


@synctest.test
def test_job_can_be_cancelled_while_it_is_queued():
    gate, ran = Gate(), []
    pool = WorkerPool(1, 1, latency=None)
    running, queued, other = (
        pool.submit(gate.job),
        pool.submit(ran.append, 1),
        pool.submit(ran.append, 2),
    )
    assert queued.cancel() and not queued.cancel() and not running.cancel()
    assert queued.done and not running.done
    with pytest.raises(gort.Cancelled):
        queued.join()
    gate.open()
    other.join()
    pool.close()
    assert ran == [2]


def test_what_ends_a_job_does_not_end_its_worker():
    def interrupts():
        raise KeyboardInterrupt

    with WorkerPool(1, 1) as pool:
        assert pool.submit(gort.goexit).join() is None
        with pytest.raises(KeyboardInterrupt):
            pool.submit(interrupts).join()
        assert pool.submit(int, "7").join() == 7
        assert pool.stats()["started"] == 1


def test_exception_that_nobody_joins_is_reported(reports):
    with WorkerPool(1, 1) as pool:
        pool.submit(int, "x")
        pool.submit(int, "1").join()
    gc.collect()
    assert [type(args.exc_value) for args in reports] == [ValueError]


def test_idle_worker_keeps_nothing_of_its_last_job():
    class Thing:
        pass

    with WorkerPool(1, 1) as pool:
        thing = Thing()
        seen = weakref.ref(thing)
        pool.submit(id, thing).join()
        del thing
        while not pool.stats()["idle"]:
            gort.gosched()
        assert seen() is None


def test_threads_and_goroutines_submit_and_join():
    total, lock = [], threading.Lock()

    def add(n):
        with lock:
            total.append(n)
        return n

    with no_leaks(), WorkerPool(3, 9, queue=5, latency=0.001) as pool:

        def submits():
            assert [pool.submit(add, n).join(timeout=20) for n in range(50)] == list(range(50))

        threads = [threading.Thread(target=submits) for _ in range(3)]
        gs = [gort.go(submits) for _ in range(3)]
        for t in threads:
            t.start()
        for g in gs:
            g.join()
        for t in threads:
            t.join()
    assert sorted(total) == sorted(list(range(50)) * 6)


@given(
    core=st.integers(0, 3),
    more=st.integers(0, 3),
    queue=st.integers(0, 3),
    latency=st.sampled_from([None, 0.0, 0.5]),
    jobs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=20),
)
@settings(deadline=None, max_examples=60)
def test_every_job_is_done_once_within_the_bounds(core, more, queue, latency, jobs):
    """(pause before it is submitted, how long it takes): whatever the shape of the load."""
    most = max(core + more, 1)

    def main():
        running, done = [0, 0], []
        pool = WorkerPool(core, most, keepalive=2, queue=queue, latency=latency)

        def job(n, takes):
            running[0] += 1
            running[1] = max(running)
            gort.sleep(takes)
            running[0] -= 1
            done.append(n)

        for n, (pause, takes) in enumerate(jobs):
            gort.sleep(pause)
            pool.submit(job, n, takes)
            stats = pool.stats()
            assert stats["workers"] <= most and stats["queued"] <= queue
        pool.close()
        assert sorted(done) == list(range(len(jobs))) and running[1] <= most
        assert pool.stats()["done"] == len(jobs)
        idle = WorkerPool(core, most, keepalive=2, queue=queue)
        for _ in jobs:
            idle.submit(gort.sleep, 1)
        gort.sleep(100)
        synctest.wait()
        assert workers(idle) == min(core, len(jobs))
        idle.close()

    synctest.run(main)


@pytest.mark.parametrize(
    "wrong",
    [
        {"core": -1}, {"max": 0}, {"core": 3, "max": 2}, {"queue": -1}, {"keepalive": -1},
        {"keepalive": float("nan")}, {"latency": -0.1}, {"when_full": "panic"},
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError):
        WorkerPool(**{"core": 1, "max": 1} | wrong)
    with WorkerPool(1, 1) as pool, pytest.raises(TypeError, match="needs a callable, not int"):
        pool.submit(7)


def test_defaults_are_the_documents():
    import inspect

    parameters = inspect.signature(WorkerPool).parameters
    assert (parameters["keepalive"].default, parameters["queue"].default) == (60.0, 1000)
