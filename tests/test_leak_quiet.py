"""gort.leak.find is quiet while goroutines run, sleep, wait for the world or for each other."""

from __future__ import annotations

import gc
import threading

import gort
from gort import leak
from leaking import by_id, found, start, wait_parked
from waiting import eventually


def test_a_join_of_a_live_one_is_no_leak():
    def begin():
        g = gort.go(gort.sleep, 3600)
        start(g.join)
        return start(gort.go(gort.go(gort.sleep, 3600).join).join)

    begin()
    assert not found()


def test_those_that_wait_for_time_or_the_world_are_no_leaks(tmp_path):
    import socket

    a, b = socket.socketpair()
    lock, event = threading.Lock(), threading.Event()
    lock.acquire()
    idents = [
        start(gort.sleep, 3600), start(lambda: gort.Chan().recv(timeout=3600)), start(a.recv, 1),
        start(lambda: gort.select(gort.recv(gort.Chan()), timeout=3600)), start(lock.acquire),
        start(gort.after(3600).recv), start(event.wait),
    ]  # fmt: skip
    leaks = found()
    b.close(), lock.release(), event.set()
    assert not leaks & set(idents)


def test_a_condition_of_threading_is_no_leak():
    condition = threading.Condition()

    def wait():
        with condition:
            condition.wait()

    ident = start(wait)
    leaks = found()
    with condition:
        condition.notify_all()
    assert ident not in leaks


def test_bubbles_are_left_alone():
    from gort.testing import synctest

    def body():
        ch = gort.Chan()
        gort.go(ch.recv)
        gort.go(lambda: gort.select(gort.recv(gort.Chan()), timeout=5))
        synctest.wait()
        assert not leak.find()
        ch.send(1)
        gort.sleep(10)

    synctest.run(body)


def test_pools_and_asyncio_are_quiet():
    import asyncio

    from gort.pool import WorkerPool

    async def main():
        ch = gort.Chan()
        task = asyncio.ensure_future(ch.recv_async())
        await asyncio.sleep(0.01)
        assert not found()
        ch.try_send(1) or await ch.send_async(1)
        assert await task == 1

    with WorkerPool(2, 4) as pool:
        pool.submit(pow, 2, 3).join()
        asyncio.run(main())
        assert not found()


def test_a_crowd_of_live_ones_is_quiet():
    """A pipeline, a pool of workers, a mutex, a cond: looked at again and again as they run."""

    def stage(source, sink):
        for value in source:
            sink.send(value + 1)
        sink.close()

    def lockers(m, wg, rounds):
        for _ in range(rounds):
            with m:
                gort.gosched()
        wg.done()

    def begin():
        first = source = gort.Chan()
        for _ in range(20):
            sink = gort.Chan()
            gort.go(stage, source, sink)
            source = sink
        m, wg = gort.Mutex(), gort.WaitGroup()
        for _ in range(10):
            wg.add(1)
            gort.go(lockers, m, wg, 20)
        return first, source, wg

    first, last, wg = begin()
    gort.go(lambda: ([first.send(i) for i in range(30)], first.close()))
    got = []
    for value in last:
        got.append(value)
        if value % 5 == 0:
            assert not leak.find()
            assert not leak.find(handles=False)
    wg.wait()
    assert got == [i + 20 for i in range(30)]
    assert not leak.find()


def test_goroutines_that_run_while_others_search_are_quiet():
    over = []

    def ping(a, b):
        while not over:
            a.send(None)
            b.recv()
        a.close()

    def pong(a, b):
        for _ in a:
            b.send(None)

    def pair():
        a, b = gort.Chan(), gort.Chan()
        return {gort.go(ping, a, b).id, gort.go(pong, a, b).id}

    idents = set().union(*(pair() for _ in range(10)))
    for _ in range(10):
        assert not leak.find()
        for _ in range(20):
            gort.gosched()
    over.append(True)
    eventually(lambda: not idents & {g.id for g in gort.goroutines()}, what="end of the pairs")


def test_wait_parked_sees_no_ghost():
    ident = start(gort.sleep, 3600)
    wait_parked(ident)
    assert not found()


def test_garbage_that_was_not_collected_yet_may_wake_somebody():
    class Closer:
        def __init__(self, ch):
            self.ch, self.me = ch, self

        def __del__(self):
            self.ch.close()

    def begin():
        ch = gort.Chan()
        Closer(ch)
        return start(ch.recv_ok), start(gort.Chan().recv)

    gc.disable()
    try:
        woken, lost = begin()
        pairs = leak._search(leak._ALL_HANDLES)
        assert {g.id for g, *_ in pairs} == {lost}
    finally:
        gc.enable()
    gc.collect()
    eventually(lambda: by_id(woken) is None, what="end of who was woken")
