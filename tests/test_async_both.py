"""asyncio and goroutines, beside and inside one another: futures, loops, channels, cancelling."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import importlib.util
import threading
import time

import gort
import pytest
from children import check
from gort import Chan, go
from gort.futures import Executor
from waiting import LIMIT, eventually, hold, in_goroutine, in_thread, join_all, parked, raises_text


def run(main):
    return asyncio.run(asyncio.wait_for(main, LIMIT))


class Loop:
    """An event loop that runs in a goroutine or a thread until the block ends."""

    def __init__(self, place):
        self.loop = asyncio.new_event_loop()
        self.task = go(self.loop.run_forever) if place == "goroutine" else None
        if self.task is None:
            self.task = threading.Thread(target=self.loop.run_forever)
            self.task.start()

    def __enter__(self):
        return self.loop

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.task.join(LIMIT)
        self.loop.close()


@pytest.fixture(params=["goroutine", "thread"])
def loop(request):
    """An event loop that runs elsewhere."""
    with Loop(request.param) as loop:
        yield loop


async def fails():
    raise KeyError("told")


# gort.from_future


def test_coroutine_of_a_loop_elsewhere_from_anywhere(anywhere, loop):
    def body():
        future = asyncio.run_coroutine_threadsafe(asyncio.sleep(0.001, "slept"), loop)
        assert gort.from_future(future, LIMIT) == "slept"
        assert gort.from_future(future) == "slept"
        with pytest.raises(KeyError, match="told"):
            gort.from_future(asyncio.run_coroutine_threadsafe(fails(), loop), LIMIT)

    anywhere(body)


def test_task_of_asyncio_from_goroutines():
    async def main():
        task = asyncio.create_task(asyncio.sleep(0.001, 7))
        gs = [go(gort.from_future, task, LIMIT) for _ in range(20)]
        assert [await gort.wait(g) for g in gs] == [7] * 20
        bad = asyncio.create_task(fails())
        with pytest.raises(KeyError, match="told"):
            await gort.wait(go(gort.from_future, bad, LIMIT))
        future = asyncio.get_running_loop().create_future()
        g = go(gort.from_future, future, LIMIT)
        while not g.status.startswith("chan"):
            await asyncio.sleep(0)
        future.set_result("set")
        return await gort.wait(g)

    assert run(main()) == "set"


@pytest.mark.parametrize("lazy", [False, True])
def test_future_of_an_executor(anywhere, lazy):
    def body():
        with Executor(lazy=lazy) as pool:
            assert gort.from_future(pool.submit(pow, 2, 5), LIMIT) == 32
            with pytest.raises(ZeroDivisionError):
                gort.from_future(pool.submit(divmod, 1, 0))

    anywhere(body)


def test_future_that_was_cancelled_is_gorts_cancelled():
    future = cf.Future()
    g = go(gort.from_future, future, LIMIT)
    parked(g)
    future.cancel()
    for call in (g.join, lambda: gort.from_future(future)):
        with raises_text(gort.Cancelled, "the future was cancelled"):
            call()

    async def main():
        task = asyncio.create_task(asyncio.sleep(60))
        g = go(gort.from_future, task, LIMIT)
        while not g.status.startswith("chan"):
            await asyncio.sleep(0)
        task.cancel()
        while not g.done:
            await asyncio.sleep(0)
        with raises_text(gort.Cancelled, "the future was cancelled"):
            g.join()

    run(main())


def test_future_whose_work_raises_cancelled_error_is_not_cancelled():
    future = cf.Future()
    future.set_exception(cf.CancelledError("its own"))
    with raises_text(cf.CancelledError, "its own"):
        gort.from_future(future)


def test_time_runs_out_and_the_future_goes_on(loop):
    async def later():
        return await event

    event = loop.create_future()
    task = asyncio.run_coroutine_threadsafe(later(), loop)
    for future in (task, event):
        with pytest.raises(TimeoutError):
            gort.from_future(future, 0.001)
        assert not future.done()
    loop.call_soon_threadsafe(event.set_result, 5)
    assert gort.from_future(task, LIMIT) == gort.from_future(event, LIMIT) == 5
    eventually(lambda: not event._callbacks)


def test_goroutine_that_is_cancelled_leaves_the_future_alone(loop):
    event = loop.create_future()
    g = go(gort.from_future, event)
    parked(g)
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(LIMIT)
    loop.call_soon_threadsafe(event.set_result, 5)
    assert gort.from_future(event, LIMIT) == 5


def test_own_loop_is_not_blocked():
    async def main():
        task = asyncio.create_task(asyncio.sleep(0))
        with raises_text(RuntimeError, "await it instead"):
            gort.from_future(task)
        await task
        assert gort.from_future(task) is None

    run(main())


def test_loop_that_is_closed_and_what_is_no_future():
    loop = asyncio.new_event_loop()
    future, over = loop.create_future(), loop.create_future()
    over.set_result(3)
    loop.close()
    assert gort.from_future(over) == 3
    with raises_text(RuntimeError, "closed"):
        gort.from_future(future)
    for wrong in (None, 7, asyncio.sleep, gort.Chan(), cf.Future):
        with raises_text(TypeError, "gort.from_future() needs a future"):
            gort.from_future(wrong)


# cancelling, both ways


def test_cancelled_task_cancels_its_goroutine_when_that_is_asked_for():
    async def main():
        for asked in (False, True):
            g = go(Chan().recv)
            task = asyncio.create_task(gort.wait(g, cancel=asked))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while asked and not g.done:
                await asyncio.sleep(0)
            assert g.done == asked
            g.cancel()

    run(main())


def test_goroutine_that_ended_by_cancel_is_a_cancelled_task():
    async def main():
        g = go(Chan().recv)
        g.cancel()
        while not g.done:
            await asyncio.sleep(0)
        task = asyncio.create_task(gort.wait(g))
        await asyncio.wait([task])
        assert task.cancelled()
        again = await asyncio.gather(gort.wait(g), return_exceptions=True)
        assert type(again[0]) is asyncio.CancelledError
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await gort.wait(go(Chan().recv), cancel=True)

    run(main())


# loops in goroutines, goroutines beside loops


async def echo_once(n):
    """A server and a client of the loop that runs this."""

    async def serve(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"%d\n" % n)
        line = await reader.readline()
        writer.close()
        await asyncio.sleep(0.001)
        return int(line)


def test_loops_in_goroutines_run_at_the_same_time():
    async def meet(n):
        inside.append(n)
        while len(inside) < 8:
            await asyncio.sleep(0.001)
        return await echo_once(n), id(asyncio.get_running_loop())

    inside = []
    results = join_all([go(asyncio.run, meet(n)) for n in range(8)])
    assert [n for n, _ in results] == list(range(8))
    assert len({loop for _, loop in results}) == 8


@pytest.mark.parametrize("place", ["main", "goroutine", "thread"])
def test_goroutines_in_plain_calls_do_not_stall_the_loop(place):
    """Some sleep, some stay in a C call that nobody answers, one computes: the loop ticks on."""

    async def main():
        stop, ticks = [], 0
        gs = [go(time.sleep, 0.15) for _ in range(5)] + [go(hold, 0.15) for _ in range(2)]
        busy = go(lambda: sum(1 for _ in iter(lambda: bool(stop), True)))
        while not all(g.done for g in gs):
            await asyncio.sleep(0.005)
            ticks += 1
        stop.append(1)
        await gort.wait(busy)
        return ticks

    places = {"main": lambda f: f(), "goroutine": in_goroutine, "thread": in_thread}
    assert places[place](lambda: run(main())) >= 3


def test_channels_are_iterated_on_both_sides():
    async def main():
        to_loop, to_goroutine = Chan(), Chan(2)

        def goroutine():
            for n in to_goroutine:
                to_loop.send(n * 10)
            to_loop.close()

        async def feed():
            for n in range(20):
                await to_goroutine.send_async(n)
            to_goroutine.close()

        g = go(goroutine)
        feeding = asyncio.create_task(feed())
        got = [value async for value in to_loop]
        await feeding
        await gort.wait(g)
        return got

    assert run(main()) == [n * 10 for n in range(20)]


def test_goroutine_drives_two_loops_through_run_coroutine_threadsafe():
    with Loop("goroutine") as one, Loop("thread") as two:

        async def hop(n):
            await asyncio.sleep(0)
            return n + 1

        def goroutine():
            n = 0
            for _ in range(50):
                for loop in (one, two):
                    n = gort.from_future(asyncio.run_coroutine_threadsafe(hop(n), loop), LIMIT)
            return n

        assert join_all([go(goroutine) for _ in range(4)]) == [100] * 4


def test_run_of_asyncio_inside_run_of_gort():
    def main():
        other = go(lambda: asyncio.run(echo_once(1)))
        return asyncio.run(echo_once(2)), other.join(LIMIT)

    assert gort.run(main) == (2, 1)


def test_queue_of_asyncio_between_a_goroutine_and_its_loop():
    async def main():
        loop, queue = asyncio.get_running_loop(), asyncio.Queue(3)

        def produce():
            for n in range(30):
                gort.from_future(asyncio.run_coroutine_threadsafe(queue.put(n), loop), LIMIT)

        g = go(produce)
        got = [await queue.get() for _ in range(30)]
        await gort.wait(g)
        return got

    assert run(main()) == list(range(30))


def test_uvloop_runs_in_goroutines_and_beside_them():
    """In a child: that uvloop keeps OS threads is counted for the whole process."""
    if importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    check(
        """
        import asyncio, gort, time, uvloop
        from waiting import hold, join_all

        def run(main):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(main)

        async def meet(n):
            inside.append(n)
            while len(inside) < 5:
                await asyncio.sleep(0.001)
            return n, await gort.wait(gort.go(pow, n, 2))

        async def ticks():
            gs = [gort.go(f, 0.15) for f in (time.sleep, hold, time.sleep)]
            count = 0
            while not all(g.done for g in gs):
                await asyncio.sleep(0.005)
                count += 1
            return count

        inside = []
        assert join_all([gort.go(run, meet(n)) for n in range(5)]) == [(n, n * n) for n in range(5)]
        assert run(ticks()) >= 3 and gort.go(run, ticks()).join() >= 3
        loop = uvloop.new_event_loop()
        driven = gort.go(loop.run_forever)
        future = asyncio.run_coroutine_threadsafe(asyncio.sleep(0.001, "slept"), loop)
        print(gort.from_future(future, 20))
        loop.call_soon_threadsafe(loop.stop)
        driven.join()
        """,
        "slept",
    )
