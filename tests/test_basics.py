"""Goroutines, channels, select and sync: Go's rules, seen from Python."""

from __future__ import annotations

import contextvars
import ctypes
import gc
import json
import threading
import time

import gort
import pytest
from gort import Chan, ChanClosed, go, recv, select, send


def eventually(predicate) -> None:
    """Lets goroutines run until the predicate holds; fails after 20 seconds."""
    end = time.monotonic() + 20
    while not predicate():
        assert time.monotonic() < end, "the state never came"
        gort.sleep(0.001)


def test_join_returns_the_result():
    assert go(lambda a, b=0: a + b, 1, b=2).join() == 3


def test_join_raises_the_exception_with_its_traceback():
    def fail():
        raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        go(fail).join()
    assert any(entry.name == "fail" for entry in caught.traceback)


def test_join_times_out_and_works_later():
    gate = Chan()
    g = go(gate.recv)
    with pytest.raises(TimeoutError):
        g.join(timeout=0.001)
    gate.send(5)
    assert g.join() == 5


def test_goexit_runs_finally_and_join_gives_none():
    seen = []

    def body():
        try:
            gort.goexit()
        finally:
            seen.append(1)

    assert go(body).join() is None
    assert seen == [1]


def test_cancel_ends_a_parked_goroutine_and_keeps_its_value():
    ch = Chan()
    g = go(ch.send, "v")
    eventually(lambda: g.status == "chan send")
    assert g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join()
    assert ch.try_recv() == (None, False, False)


def test_unjoined_exception_is_reported_once(monkeypatch):
    seen = []
    monkeypatch.setattr(gort, "excepthook", seen.append)

    def fail():
        raise ValueError("unseen")

    go(fail)
    eventually(lambda: seen)
    gort.sleep(0.005)
    assert [type(args.exc_value) for args in seen] == [ValueError]


def test_unbuffered_is_a_rendezvous_in_order():
    ch = Chan()
    got = []

    def receive():
        got.extend(ch)

    g = go(receive)
    for i in range(100):
        ch.send(i)
    ch.close()
    g.join()
    assert got == list(range(100))


@pytest.mark.parametrize("cap", [0, 1, 7])
def test_many_senders_and_receivers_lose_nothing(cap):
    ch, out = Chan(cap), Chan(1000)

    def produce(base):
        for i in range(250):
            ch.send(base + i)

    def consume():
        for v in ch:
            out.send(v)

    producers = [go(produce, b) for b in range(0, 1000, 250)]
    consumers = [go(consume) for _ in range(4)]
    for g in producers:
        g.join()
    ch.close()
    for g in consumers:
        g.join()
    out.close()
    assert sorted(out) == list(range(1000))


def test_closed_channel_rules():
    ch = Chan(2)
    ch.send(1)
    ch.close()
    assert (len(ch), ch.cap, ch.closed) == (1, 2, True)
    assert ch.recv_ok() == (1, True)
    assert ch.recv_ok() == (None, False)
    with pytest.raises(ChanClosed):
        ch.recv()
    with pytest.raises(ChanClosed, match="send on closed channel"):
        ch.send(2)
    with pytest.raises(ChanClosed, match="close of closed channel"):
        ch.close()


def test_close_wakes_a_blocked_sender_and_its_value_is_dropped():
    ch = Chan()
    g = go(ch.send, 1)
    eventually(lambda: g.status == "chan send")
    ch.close()
    with pytest.raises(ChanClosed):
        g.join()
    assert ch.recv_ok() == (None, False)


def test_full_buffer_keeps_order_when_senders_wait():
    ch = Chan(2)
    gs = []
    for i in range(5):
        g = go(ch.send, i)
        gs.append(g)
        eventually(lambda g=g: g.done or g.status == "chan send")
    assert [ch.recv() for _ in range(5)] == [0, 1, 2, 3, 4]
    for g in gs:
        g.join()


def test_timeouts_leave_no_waiter():
    ch = Chan()
    with pytest.raises(TimeoutError):
        ch.recv(timeout=0.001)
    assert not ch.try_send(1)
    with pytest.raises(TimeoutError):
        ch.send(1, timeout=0.001)
    assert ch.try_recv() == (None, False, False)


def test_select_default_timeout_and_nil():
    ch = Chan()
    assert select(recv(ch), default=True) == (-1, None, False)
    assert select(recv(ch), recv(None), timeout=0.001) == (-2, None, False)
    assert select(recv(None), default=True)[0] == -1


def test_select_is_fair_and_a_case_listed_twice_counts_twice():
    a, b = Chan(1), Chan(1)
    a.send(0), b.send(0)
    counts = [0, 0]
    for _ in range(6000):
        i, v, ok = select(recv(a), recv(b), recv(a))
        assert (v, ok) == (0, True)
        (b if i == 1 else a).send(0)
        counts[i == 1] += 1
    assert 1700 < counts[1] < 2300


def test_select_send_on_closed_raises_even_with_default():
    ch = Chan()
    ch.close()
    with pytest.raises(ChanClosed):
        select(send(ch, 1), default=True)


def test_select_never_receives_its_own_send():
    ch = Chan()
    assert select(send(ch, 1), recv(ch), timeout=0.001)[0] == -2


def test_parked_select_leaves_the_losing_queues():
    a, b = Chan(), Chan()
    g = go(lambda: select(recv(a), recv(b), recv(b)))
    eventually(lambda: g.status == "select")
    b.send("x")
    i, v, ok = g.join()
    assert (i in (1, 2), v, ok) == (True, "x", True)
    assert not a.try_send(1) and not b.try_send(1)


def test_prime_sieve():
    def generate(ch):
        i = 2
        while True:
            ch.send(i)
            i += 1

    def filter_(source, sink, prime):
        for i in source:
            if i % prime:
                sink.send(i)

    ch = Chan()
    gs = [go(generate, ch)]
    primes = []
    for _ in range(25):
        prime = ch.recv()
        primes.append(prime)
        following = Chan()
        gs.append(go(filter_, ch, following, prime))
        ch = following
    for g in gs:
        g.cancel()
    assert primes[-1] == 97


def test_chain_of_ten_thousand_goroutines():
    first = left = Chan()
    for _ in range(10_000):
        right = Chan()
        go(lambda left=left, right=right: left.send(right.recv() + 1))
        left = right
    go(left.send, 0)
    assert first.recv() == 10_000


def test_sync_types():
    m, wg, total = gort.Mutex(), gort.WaitGroup(), [0]

    def work():
        for _ in range(200):
            with m:
                value = total[0]
                gort.gosched()
                total[0] = value + 1
        wg.done()

    for _ in range(8):
        wg.add()
        go(work)
    wg.wait()
    assert total == [1600]
    with pytest.raises(RuntimeError, match="sync: unlock of unlocked mutex"):
        m.unlock()
    with pytest.raises(RuntimeError, match="sync: negative WaitGroup counter"):
        wg.done()


def test_rwmutex_writer_keeps_new_readers_out():
    rw = gort.RWMutex()
    rw.rlock()
    g = go(rw.lock)
    eventually(lambda: g.status == "sync.RWMutex.Lock")
    assert not rw.try_rlock()
    rw.runlock()
    g.join()
    rw.unlock()
    assert rw.try_rlock()


def test_semaphore_serves_in_order():
    s = gort.Semaphore(3)
    s.acquire(2)
    big = go(s.acquire, 3)
    eventually(lambda: big.status == "semacquire")
    assert not s.try_acquire(1)
    s.release(2)
    big.join()
    with pytest.raises(RuntimeError, match="released more than held"):
        s.release(4)


def test_cond_signal_wakes_the_first():
    m = gort.Mutex()
    c = gort.Cond(m)
    order = []

    def waiter(i):
        with m:
            c.wait()
            order.append(i)

    gs = []
    for i in range(3):
        g = go(waiter, i)
        gs.append(g)
        eventually(lambda g=g: g.status == "sync.Cond.Wait")
    c.signal()
    gs[0].join()
    assert order == [0]
    c.broadcast()
    for g in gs:
        g.join()
    assert sorted(order) == [0, 1, 2]


def test_plain_threads_and_goroutines_talk_both_ways():
    there, back = Chan(), Chan()

    def thread():
        for v in there:
            back.send(v * 2)

    t = threading.Thread(target=thread)
    t.start()

    def goroutine():
        out = []
        for i in range(200):
            there.send(i)
            out.append(back.recv())
        return out

    assert go(goroutine).join() == [2 * i for i in range(200)]
    there.close()
    t.join()


def test_thread_spawns_and_joins():
    got = []
    t = threading.Thread(target=lambda: got.append(go(lambda: 7).join()))
    t.start()
    t.join()
    assert got == [7]


def test_blocking_calls_overlap():
    gs = [go(time.sleep, 0.1) for _ in range(50)]
    start = time.monotonic()
    for g in gs:
        g.join()
    assert time.monotonic() - start < 1.0  # 5 s one after another


def test_python_state_is_per_goroutine():
    var, local = contextvars.ContextVar("v", default=0), threading.local()

    def body(i):
        var.set(i)
        local.x = i
        try:
            raise ValueError(i)
        except ValueError as e:
            for _ in range(5):
                gort.sleep(0)
                gort.gosched()
            assert e.args == (i,)
        return var.get(), local.x

    gs = [go(body, i) for i in range(50)]
    assert [g.join() for g in gs] == [(i, i) for i in range(50)]
    assert var.get() == 0 and not hasattr(local, "x")


def test_park_inside_c_frames():
    def key(x):
        gort.sleep(0)
        return -x

    def generate():
        for i in range(5):
            gort.sleep(0)
            yield i

    def body():
        return sorted(generate(), key=key)

    gs = [go(body) for _ in range(20)]
    assert all(g.join() == [4, 3, 2, 1, 0] for g in gs)


def test_park_inside_a_ctypes_callback_keeps_the_gilstate():
    api = ctypes.pythonapi
    api.PyGILState_GetThisThreadState.restype = ctypes.c_void_p
    api.PyThreadState_Get.restype = ctypes.c_void_p
    compare_type = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)
    )
    libc = ctypes.CDLL(None)

    def body(n):
        def compare(a, b):
            gort.gosched()
            assert api.PyGILState_GetThisThreadState() == api.PyThreadState_Get()
            return a[0] - b[0]

        array = (ctypes.c_int * n)(*range(n, 0, -1))
        libc.qsort(array, n, ctypes.sizeof(ctypes.c_int), compare_type(compare))
        return list(array)

    gs = [go(body, n) for n in (3, 8, 5)]
    assert [g.join() for g in gs] == [[*range(1, n + 1)] for n in (3, 8, 5)]


def test_asyncio_runs_inside_a_goroutine():
    import asyncio

    async def main(i):
        await asyncio.sleep(0.001)
        return i

    gs = [go(lambda i=i: asyncio.run(main(i))) for i in range(3)]
    assert [g.join() for g in gs] == [0, 1, 2]


def test_python_recursion_limit_holds_in_a_goroutine():
    def down(n):
        return down(n + 1)

    with pytest.raises(RecursionError):
        go(down, 0).join()
    assert go(json.loads, "[" * 50 + "]" * 50).join() == json.loads("[" * 50 + "]" * 50)


def test_objects_survive_collection_while_parked():
    gate = Chan()

    def body():
        data = [object() for _ in range(100)]
        gate.recv()
        return len(data)

    gs = [go(body) for _ in range(100)]
    eventually(lambda: all(g.status == "chan receive" for g in gs))
    gc.collect()
    gate.close()
    for g in gs:
        with pytest.raises(ChanClosed):
            g.join()


@pytest.mark.parametrize(
    "call",
    [
        lambda: go(3),
        lambda: go(),
        lambda: gort.run(None),
        lambda: select(3),
        lambda: recv("x"),
        lambda: Chan("a"),
    ],
)
def test_wrong_types_are_type_errors(call):
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: Chan(-1),
        lambda: Chan(1 << 62),
        lambda: gort.sleep(-1),
        lambda: Chan().recv(timeout=-1),
    ],
)
def test_values_out_of_range_are_value_errors(call):
    with pytest.raises(ValueError):
        call()


def test_run_does_not_nest():
    assert gort.run(lambda: 5) == 5
    with pytest.raises(RuntimeError):
        gort.run(lambda: gort.run(lambda: 1))


def test_a_hundred_thousand_goroutines_end():
    before = gort.num_goroutine()
    ch = Chan()

    def body():
        ch.recv_ok()

    gs = [go(body) for _ in range(100_000)]
    eventually(lambda: gs[-1].status == "chan receive" or gs[0].status == "chan receive")
    ch.close()
    for g in gs:
        g.join()
    eventually(lambda: gort.num_goroutine() == before)
