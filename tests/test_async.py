"""Channels and goroutines inside asyncio: values, closing, cancellation, places of the loop."""

from __future__ import annotations

import asyncio
import threading

import gort
import pytest
from gort import Chan, ChanClosed, go
from waiting import LIMIT, eventually, in_goroutine, in_thread, join_all, parked, raises_text


def run(main):
    return asyncio.run(asyncio.wait_for(main, LIMIT))


@pytest.fixture(params=["main", "goroutine", "thread"])
def loop_place(request):
    """Run a coroutine in an event loop on the main thread, in a goroutine, in a plain thread."""
    if request.param == "main":
        return run
    place = in_goroutine if request.param == "goroutine" else in_thread
    return lambda main: place(run, main)


async def waits_for(ch, n):
    """Let the loop run until `n` goroutines of asyncio waits are parked on a channel."""
    names = ("gort.recv_async", "gort.send_async")
    while sum(g.name in names and g.status == "select" for g in gort.goroutines()) < n:
        await asyncio.sleep(0.001)


def test_async_receive_of_a_value_that_is_there(loop_place):
    ch = Chan(1)
    ch.send(7)
    assert loop_place(ch.recv_async()) == 7


def test_async_receive_waits_for_a_goroutine(loop_place):
    ch = Chan()

    async def main():
        task = asyncio.create_task(ch.recv_async())
        await waits_for(ch, 1)
        go(ch.send, "late")
        return await task

    assert loop_place(main()) == "late"


def test_async_send_waits_for_a_goroutine(loop_place):
    ch = Chan()

    async def main():
        task = asyncio.create_task(ch.send_async("v"))
        await waits_for(ch, 1)
        g = go(ch.recv)
        await task
        return await gort.wait(g)

    assert loop_place(main()) == "v"


def test_async_for_ends_at_close(loop_place):
    ch = Chan()

    def producer():
        for i in range(100):
            ch.send(i)
        ch.close()

    async def main():
        go(producer)
        return [v async for v in ch]

    assert loop_place(main()) == list(range(100))


def test_async_forms_of_the_views():
    ch = Chan()

    async def main():
        sends = asyncio.create_task(ch.sender().send_async(1))
        got = await ch.receiver().recv_async()
        await sends
        go(lambda: (ch.send(2), ch.close()))
        return [got] + [v async for v in ch.receiver()]

    assert run(main()) == [1, 2]


def test_async_receive_from_closed_raises():
    ch = Chan()
    ch.close()
    with raises_text(ChanClosed, "receive"):
        run(ch.recv_async())
    with raises_text(ChanClosed, "send on closed channel"):
        run(ch.send_async(1))


def test_close_ends_async_waits():
    ch = Chan()

    async def main(wait):
        task = asyncio.create_task(wait)
        await waits_for(ch, 1)
        ch.close()
        await task

    with raises_text(ChanClosed, "receive"):
        run(main(ch.recv_async()))
    ch = Chan()
    with raises_text(ChanClosed, "send on closed channel"):
        run(main(ch.send_async(1)))


def test_loop_goes_on_while_a_task_waits():
    ch, ticks = Chan(), []

    async def ticker():
        while len(ticks) < 5:
            ticks.append(1)
            await asyncio.sleep(0)
        ch.try_send("done") or go(ch.send, "done")

    async def main():
        value, _ = await asyncio.gather(ch.recv_async(), ticker())
        return value

    assert (run(main()), len(ticks)) == ("done", 5)


@pytest.mark.parametrize("order", [1, -1])
def test_cancelled_receives_put_values_back_in_order(order):
    """All values are with goroutines whose tasks are cancelled at that moment."""
    n = 20

    async def main():
        ch = Chan()
        tasks = [asyncio.create_task(ch.recv_async()) for _ in range(n)]
        await waits_for(ch, n)
        for i in range(n):
            ch.send(i)  # handed over; no task has seen it
        for task in tasks[::order]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(t.cancelled() for t in tasks)
        return [ch.try_recv() for _ in range(n)] + [ch.try_recv()]

    assert run(main()) == [(i, True, True) for i in range(n)] + [(None, False, False)]


def test_cancelled_receive_leaves_no_waiter():
    ch = Chan()

    async def main():
        task = asyncio.create_task(ch.recv_async())
        await waits_for(ch, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert ch.try_send(1) is False


def test_value_put_back_goes_to_who_waits():
    ch = Chan()

    async def main():
        task = asyncio.create_task(ch.recv_async())
        await waits_for(ch, 1)
        ch.send("v")
        g = go(ch.recv)
        parked(g)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await gort.wait(g)

    assert run(main()) == "v"


def test_timed_out_send_is_not_sent():
    ch = Chan()

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ch.send_async(1), 0.01)

    run(main())
    assert ch.try_recv() == (None, False, False)


def test_timeouts_racing_with_sends_lose_nothing_and_keep_the_order():
    ch, n = Chan(), 200

    async def main():
        g, got = go(lambda: [ch.send(i) for i in range(n)]), []
        while len(got) < n:
            try:
                got.append(await asyncio.wait_for(ch.recv_async(), 0.0001))
            except TimeoutError:
                await asyncio.sleep(0)
        await gort.wait(g)
        return got

    assert run(main()) == list(range(n))


def test_coroutine_that_is_closed_gives_its_value_back():
    ch = Chan()

    async def main():
        wait = ch.recv_async()
        wait.send(None)  # runs to its first suspension, outside any task
        await waits_for(ch, 1)
        ch.send("kept")
        wait.close()
        while True:
            value, _, ready = ch.try_recv()
            if ready:
                return value
            await asyncio.sleep(0)

    assert run(main()) == "kept"


def test_loop_that_ends_first_loses_no_value():
    ch = Chan()

    async def main():
        asyncio.get_running_loop().create_task(ch.recv_async())
        await waits_for(ch, 1)

    asyncio.run(main())  # cancels the task at its end
    g = go(ch.send, "still there")
    assert ch.recv(timeout=LIMIT) == "still there"
    g.join(timeout=LIMIT)


def test_many_tasks_and_goroutines_pass_every_value_once():
    ch, n, each = Chan(), 30, 50

    async def main():
        receivers = [asyncio.create_task(take()) for _ in range(n)]
        senders = [go(lambda k=k: [ch.send(k * each + i) for i in range(each)]) for k in range(n)]
        for g in senders:
            await gort.wait(g)
        ch.close()
        return [v for part in await asyncio.gather(*receivers) for v in part]

    async def take():
        return [v async for v in ch]

    assert sorted(run(main())) == list(range(n * each))


def test_two_loops_in_threads_share_a_channel():
    ch, got = Chan(), Chan(100)

    async def take():
        async for v in ch:
            got.send(v)

    threads = [threading.Thread(target=run, args=(take(),)) for _ in range(2)]
    for t in threads:
        t.start()
    for i in range(100):
        ch.send(i, timeout=LIMIT)
    ch.close()
    for t in threads:
        t.join(LIMIT)
    assert sorted(got.recv() for _ in range(100)) == list(range(100))


def test_loops_in_many_goroutines_at_once():
    ch = Chan(4)

    async def pass_on(i):
        await ch.send_async(i)
        await asyncio.sleep(0.001)
        return i

    # Not received by the main goroutine: a loop that runs on its thread keeps it waiting.
    got = go(lambda: sorted(ch.recv(timeout=LIMIT) for _ in range(10)))
    gs = [go(run, pass_on(i)) for i in range(10)]
    assert join_all([got, *gs]) == [list(range(10)), *range(10)]


def test_wait_gives_the_result_or_the_exception(loop_place):
    async def main():
        value = await gort.wait(go(pow, 2, 5))
        with pytest.raises(ZeroDivisionError):
            await gort.wait(go(lambda: 1 / 0))
        return value

    assert loop_place(main()) == 32


def test_wait_of_a_parked_goroutine():
    ch = Chan()

    async def main():
        g = go(ch.recv)
        task = asyncio.create_task(gort.wait(g))
        await asyncio.sleep(0.001)
        assert not task.done()
        ch.send("v")
        return await task

    assert run(main()) == "v"


def test_wait_of_a_cancelled_goroutine():
    async def main():
        g = go(Chan().recv)
        task = asyncio.create_task(gort.wait(g))
        await asyncio.sleep(0.001)
        g.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(main())


def test_cancelling_a_wait_leaves_the_goroutine_running():
    ch = Chan()
    g = go(ch.recv)

    async def main():
        task = asyncio.create_task(gort.wait(g))
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert not g.done
    ch.send(3, timeout=LIMIT)
    assert g.join(timeout=LIMIT) == 3
    eventually(lambda: not any(x.name == "gort.wait" for x in gort.goroutines()))


@pytest.mark.parametrize("wrong", [None, 1, asyncio.sleep])
def test_wait_of_something_else_is_refused(wrong):
    with raises_text(TypeError, "gort.wait() needs a Goroutine"):
        run(gort.wait(wrong))
