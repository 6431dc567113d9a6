"""gort.futures.Executor: tasks are goroutines, futures are those of concurrent.futures, nothing is lost."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import contextvars
import gc
import logging
import threading
import weakref
from concurrent.futures.thread import BrokenThreadPool

import gort
import pytest
from gating import Gate
from gort.futures import Executor, LazyFuture
from gort.testing import no_leaks, synctest
from waiting import LIMIT, eventually, in_thread, parked


@pytest.fixture(params=[False, True], ids=["standard", "lazy"])
def lazy(request):
    return request.param


def test_results_and_exceptions_come_back(anywhere, lazy):
    def body():
        with Executor(2, lazy=lazy) as pool:
            futures = [pool.submit(divmod, 7, n) for n in (2, 3, 0)]
            assert [f.result(LIMIT) for f in futures[:2]] == [(3, 1), (2, 1)]
            with pytest.raises(ZeroDivisionError):
                futures[2].result(LIMIT)
            assert type(futures[2].exception(LIMIT)) is ZeroDivisionError
            assert pool.submit(dict, fn=1, self=2).result(LIMIT) == {"fn": 1, "self": 2}
            assert list(pool.map(pow, [2, 3], [3, 2])) == [8, 9]

    anywhere(body)


def test_futures_are_what_is_said(lazy):
    with Executor(lazy=lazy) as pool:
        future = pool.submit(int)
    assert type(future) is (LazyFuture if lazy else cf.Future)
    assert isinstance(future, cf.Future)
    assert isinstance(pool, cf.Executor)


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_than_max_workers_run_and_the_rest_waits_in_order(workers):
    gate, order = Gate(), []
    with Executor(workers) as pool:
        futures = [pool.submit(lambda n=n: (order.append(n), gate.task(n))[1]) for n in range(9)]
        eventually(lambda: gate.inside == workers)
        assert [f.running() for f in futures] == [n < workers for n in range(9)]
        gate.open()
        assert [f.result(LIMIT) for f in futures] == list(range(9))
    assert gate.peak == workers
    assert sorted(order[:workers]) == list(range(workers))
    assert order[workers:] == list(range(workers, 9))


def test_without_max_workers_all_run_at_once():
    gate = Gate()
    with Executor() as pool:
        futures = [pool.submit(gate.task) for _ in range(500)]
        eventually(lambda: gate.inside == 500)
        gate.open()
        cf.wait(futures, LIMIT)


def test_each_task_is_a_goroutine_with_locals_of_its_own():
    local = threading.local()

    def task():
        assert not hasattr(local, "seen")
        local.seen = True
        return gort.current().id

    with Executor(2) as pool:
        ids = list(pool.map(lambda _: task(), range(20)))
    assert len(set(ids)) == 20


def test_goroutines_are_named_after_the_prefix():
    with Executor(1, "crawler") as pool:
        names = list(pool.map(lambda _: gort.current().name, range(3)))
    assert names == ["crawler_0", "crawler_1", "crawler_2"]


@pytest.mark.parametrize("workers", [1, None])
def test_task_sees_the_context_of_its_submit(workers):
    var = contextvars.ContextVar("var", default="none")

    def task():
        seen = var.get()
        var.set("a task's")
        return seen

    with Executor(workers) as pool:
        futures = []
        for n in range(4):
            token = var.set(n)
            futures.append(pool.submit(task))
            var.reset(token)
        assert [f.result(LIMIT) for f in futures] == [0, 1, 2, 3]
        assert list(pool.map(lambda _: task(), range(3))) == ["none"] * 3


@pytest.mark.parametrize("workers", [1, None])
def test_task_is_its_submitters_whoever_ends_before_it(workers):
    def seen():
        g = gort.current()
        return g.priority, g.group, g.labels, g.parent, g.created.partition(" ")[0]

    def submits():
        futures = []
        for _ in range(3):
            futures.append(pool.submit(seen))
        return futures, gort.current().id

    group, gate = gort.Group("of the submitter"), gort.Chan()
    with Executor(workers) as pool:
        first = pool.submit(gate.recv_ok)
        options = {"priority": -3, "group": group, "labels": {"kind": "batch"}}
        theirs, ident = gort.spawn(submits, **options).join()
        mine = pool.submit(seen)
        last = gort.spawn(pool.submit, (seen,), priority=5).join()
        gate.send(None)
        for future in theirs:
            there = submits.__qualname__
            assert future.result(LIMIT) == (-3, group, {"kind": "batch"}, ident, there)
        here = test_task_is_its_submitters_whoever_ends_before_it.__qualname__
        assert mine.result(LIMIT) == (0, None, {}, 1, here)
        assert last.result(LIMIT)[:3] == (5, None, {})
        assert first.result(LIMIT) == (None, True)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_base_exceptions_are_the_futures(kind, lazy):
    def raises():
        raise kind("told")

    with Executor(1, lazy=lazy) as pool:
        assert type(pool.submit(raises).exception(LIMIT)) is kind
        with pytest.raises(kind, match="told"):
            next(pool.map(lambda _: raises(), [1]))
        assert pool.submit(int, "7").result(LIMIT) == 7


def test_goexit_is_a_return_and_cancel_of_the_goroutine_an_exception(lazy):
    with Executor(1, lazy=lazy) as pool:
        assert pool.submit(gort.goexit).result(LIMIT) is None
        assert list(pool.map(lambda _: gort.goexit(), [1])) == [None]
        seen = gort.Chan(1)
        future = pool.submit(lambda: (seen.send(gort.current()), gort.Chan().recv()))
        g = seen.recv(LIMIT)
        parked(g)
        g.cancel()
        with pytest.raises(gort.Cancelled):
            future.result(LIMIT)
        assert pool.submit(int, "7").result(LIMIT) == 7


@pytest.mark.parametrize("workers", [1, None])
def test_goroutine_cancelled_before_its_turn_settles_its_future_and_gives_its_place_back(
    workers, lazy
):
    def body():
        pool = Executor(workers, lazy=lazy)
        before = {g.id for g in gort.goroutines()}
        future, item = pool.submit(int), pool.map(int, ["7"])
        for g in gort.goroutines():
            if g.id not in before:
                g.cancel()
        with pytest.raises(gort.Cancelled):
            future.result(LIMIT)
        if workers is None:
            with pytest.raises(gort.Cancelled):
                next(item)
        assert pool.submit(int, "7").result(LIMIT) == 7
        pool.shutdown()

    gort.run(body)


def test_goroutine_that_cannot_start_loses_no_task(monkeypatch, lazy):
    gate = Gate()
    pool = Executor(1, lazy=lazy)
    first = pool.submit(gate.task)
    eventually(lambda: gate.inside)
    queued = [pool.submit(int, "1") for _ in range(3)]
    items = pool.map(int, "23")

    def refuse(_):
        raise MemoryError("refused")

    monkeypatch.setattr("gort.futures._start", refuse)
    gate.open()
    first.result(LIMIT)
    for future in queued:
        with pytest.raises(MemoryError, match="refused"):
            future.result(LIMIT)
    with pytest.raises(MemoryError, match="refused"):
        next(items)
    with pytest.raises(MemoryError, match="refused"):
        pool.submit(int)
    monkeypatch.undo()
    assert pool.submit(int, "4").result(LIMIT) == 4
    pool.shutdown()


def test_queued_task_can_be_cancelled_a_running_one_cannot(lazy):
    gate, ran = Gate(), []
    with Executor(1, lazy=lazy) as pool:
        running, queued, other = (
            pool.submit(gate.task, 1),
            pool.submit(ran.append, 1),
            pool.submit(ran.append, 2),
        )
        eventually(lambda: gate.inside)
        assert not running.cancel() and queued.cancel() and queued.cancel()
        gate.open()
        done, late = cf.wait([running, queued, other], LIMIT)
        assert len(done) == 3 and not late
        with pytest.raises(cf.CancelledError):
            queued.result()
    assert ran == [2]


def test_shutdown_waits_and_then_takes_nothing(anywhere, lazy):
    def body():
        gate, done = Gate(), []
        pool = Executor(1, lazy=lazy)
        futures = [pool.submit(lambda: done.append(gate.task())) for _ in range(3)]
        g = gort.go(pool.shutdown)
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            while True:
                pool.submit(gort.gosched)
        assert not g.done
        gate.open()
        g.join(LIMIT)
        pool.shutdown()
        assert len(done) == 3 and all(f.done() for f in futures)
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.map(int, "1")

    anywhere(body)


def test_shutdown_that_cancels_tells_those_that_wait(lazy):
    gate = Gate()
    pool = Executor(1, lazy=lazy)
    futures = [pool.submit(gate.task) for _ in range(5)]
    items = pool.map(int, "12")
    waits = gort.go(cf.wait, futures[1:], LIMIT)
    eventually(lambda: gate.inside)
    parked(waits)
    pool.shutdown(wait=False, cancel_futures=True)
    done, late = waits.join(LIMIT)
    assert not late and all(f.cancelled() for f in done)
    with pytest.raises(cf.CancelledError):
        next(items)
    assert not futures[0].done()
    gate.open()
    pool.shutdown()
    assert futures[0].result() is None


def test_task_does_not_wait_for_itself():
    pool = Executor()
    with pytest.raises(RuntimeError, match="cannot join the current task"):
        pool.submit(pool.shutdown).result(LIMIT)
    pool.shutdown()
    with Executor() as outer, Executor() as inner:
        assert outer.submit(inner.shutdown).result(LIMIT) is None


def test_wait_and_as_completed_take_both_kinds():
    gate = Gate()
    with Executor(lazy=True) as pool, Executor() as other:
        ready = [pool.submit(int, "1"), other.submit(int, "2")]
        cf.wait(ready, LIMIT)
        late = [pool.submit(gate.task, 3), other.submit(gate.task, 4)]
        done, not_done = cf.wait(ready + late, LIMIT, cf.FIRST_COMPLETED)
        assert (done, not_done) == (set(ready), set(late))
        it = cf.as_completed(ready + late, LIMIT)
        assert {next(it), next(it)} == set(ready)
        gate.open()
        assert {f.result() for f in it} == {3, 4}
        failing = [pool.submit(int, "x"), pool.submit(gort.Chan().recv, 0.001)]
        done, _ = cf.wait(failing, LIMIT, cf.FIRST_EXCEPTION)
        assert failing[0] in done or failing[1] in done


def test_threads_submit_and_wait(lazy):
    with Executor(3, lazy=lazy) as pool:

        def submits():
            return [pool.submit(lambda n=n: n).result(LIMIT) for n in range(100)]

        gs = [gort.go(submits) for _ in range(3)]
        assert in_thread(submits) == list(range(100))
        assert in_thread(lambda: list(pool.map(int, "123"))) == [1, 2, 3]
        for g in gs:
            assert g.join(LIMIT) == list(range(100))


def test_initializer_is_called_before_each_task():
    local = threading.local()

    def prepare(value):
        local.value = value

    with Executor(2, initializer=prepare, initargs=(5,)) as pool:
        assert list(pool.map(lambda n: local.value + n, range(4))) == [5, 6, 7, 8]
        assert pool.submit(lambda: local.value).result(LIMIT) == 5


def test_initializer_that_raises_breaks_the_executor(caplog, lazy):
    def fails():
        gort.gosched()
        raise ValueError("told")

    pool = Executor(1, initializer=fails, lazy=lazy)
    with caplog.at_level(logging.CRITICAL, "concurrent.futures"):
        futures, items = [pool.submit(int) for _ in range(3)], pool.map(int, "1")
        for future in futures:
            with pytest.raises(BrokenThreadPool, match="an initializer failed"):
                future.result(LIMIT)
        with pytest.raises(cf.BrokenExecutor):
            next(items)
    assert "told" in caplog.text
    with pytest.raises(cf.BrokenExecutor):
        pool.submit(int)
    pool.shutdown()


def test_executor_that_is_dropped_finishes_its_tasks(lazy):
    gate = Gate()
    pool = Executor(1, lazy=lazy)
    futures = [pool.submit(gate.task, n) for n in range(3)]
    del pool
    gate.open()
    assert [f.result(LIMIT) for f in futures] == [0, 1, 2]


def test_exceptions_make_no_cycle_and_begin_in_the_function(lazy):
    def fails():
        raise KeyError("told")

    gc.collect()
    gc.disable()
    try:
        with Executor(lazy=lazy) as pool:
            future = pool.submit(fails)
            error = future.exception(LIMIT)
            frames = []
            trace = error.__traceback__
            while trace:
                frames.append(trace.tb_frame.f_code.co_name)
                trace = trace.tb_next
            assert frames == ["fails"]
            seen = weakref.ref(future)
            del error, future, trace
            assert eventually(lambda: seen() is None)
            for call in (
                lambda: pool.submit(fails).result(LIMIT),
                lambda: next(pool.map(lambda _: fails(), [1])),
            ):
                with pytest.raises(KeyError):
                    call()
        assert gc.collect() < 50
    finally:
        gc.enable()


def test_asyncio_takes_the_executor(lazy):
    def blocking(n):
        gort.sleep(0.001)
        return n

    async def main():
        loop = asyncio.get_running_loop()
        with Executor(4, lazy=lazy) as pool:
            some = [loop.run_in_executor(pool, blocking, n) for n in range(10)]
            assert await asyncio.gather(*some) == list(range(10))
            with pytest.raises(ValueError):
                await loop.run_in_executor(pool, int, "x")
            assert await asyncio.wrap_future(pool.submit(int, "5")) == 5
        loop.set_default_executor(Executor(2, lazy=lazy))
        inside = await asyncio.gather(*(asyncio.to_thread(gort.current) for _ in range(5)))
        return len({g.id for g in inside})

    assert asyncio.run(asyncio.wait_for(main(), LIMIT)) == 5


def test_cancelled_asyncio_future_takes_its_task_out_of_the_queue(lazy):
    gate, ran = Gate(), []

    async def main():
        loop = asyncio.get_running_loop()
        with Executor(1, lazy=lazy) as pool:
            first = loop.run_in_executor(pool, gate.task)
            second = loop.run_in_executor(pool, ran.append, 1)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            await asyncio.sleep(0)
            gate.open()
            await first

    asyncio.run(asyncio.wait_for(main(), LIMIT))
    assert ran == []


@synctest.test
def test_in_a_bubble_tasks_have_its_clock():
    with no_leaks(), Executor(2, lazy=True) as pool:
        assert list(pool.map(lambda n: (gort.sleep(n), n)[1], [3600, 10, 20])) == [3600, 10, 20]
        assert pool.submit(gort.sleep, 86_400).result() is None


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": -1}, ValueError),
        ({"initializer": 7}, TypeError),
    ],
)
def test_wrong_arguments_are_refused(wrong, kind):
    with pytest.raises(kind):
        Executor(**wrong)
    with Executor() as pool:
        with pytest.raises(TypeError):
            pool.submit(7).result(LIMIT)
        with pytest.raises(TypeError):
            pool.submit()
