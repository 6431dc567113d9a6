"""Goroutines, the main thread and plain threads, with every blocking operation between them in
every direction.
"""

from __future__ import annotations

import threading
import time

import gort
import pytest
import waiting
from children import check
from waiting import LIMIT, eventually, in_goroutine, in_thread, join_all, parked

PLACES = ("main", "goroutine", "thread")


class Threads:
    """Plain threads whose exceptions come out of join()."""

    def __init__(self, *bodies):
        self.errors = []
        self.threads = [threading.Thread(target=self.run, args=(b,), daemon=True) for b in bodies]
        for t in self.threads:
            t.start()

    def run(self, body):
        try:
            body()
        except BaseException as error:
            self.errors.append(error)

    def join(self):
        end = time.monotonic() + LIMIT
        for t in self.threads:
            t.join(max(0.0, end - time.monotonic()))
            assert not t.is_alive(), "a plain thread did not end"
        for error in self.errors:
            raise error


def beside(place, body):
    """Start `body` beside the caller, in a goroutine or a thread; a function that waits for it."""
    if place == "thread":
        return Threads(body).join
    g = gort.go(body)
    return lambda: g.join(timeout=LIMIT)


@pytest.fixture(params=[(a, b) for a in PLACES for b in ("goroutine", "thread")], ids="-".join)
def sides(request):
    """The two sides of an exchange: how to call a function, and how to start one beside it."""
    here, there = request.param
    call = getattr(waiting, f"in_{here}")
    return call, lambda body: beside(there, body)


N = 200


def test_send_and_recv_in_order(sides):
    call, start = sides
    for cap in (0, 1, 7):
        ch = gort.Chan(cap)

        def feed(ch=ch):
            for i in range(N):
                ch.send(i)
            ch.close()

        end = start(feed)
        assert call(list, ch) == list(range(N))
        end()


def test_recv_beside_and_send_here(sides):
    call, start = sides
    ch, got = gort.Chan(), []

    def take():
        got.extend(ch)

    end = start(take)
    call(lambda: [ch.send(i) for i in range(N)])
    ch.close()
    end()
    assert got == list(range(N))


def test_select_meets_select(sides):
    call, start = sides
    a, b, stop = gort.Chan(), gort.Chan(), gort.Chan()

    def serve():
        taken = []
        while True:
            index, value, _ = gort.select(
                gort.recv(a), gort.send(b, len(taken)), gort.recv(stop), timeout=LIMIT
            )
            if index == 2:
                return
            assert index in (0, 1)
            if index == 0:
                taken.append(value)

    def ask():
        seen = 0
        for i in range(N):
            index, value, _ = gort.select(gort.send(a, i), gort.recv(b), timeout=LIMIT)
            assert index in (0, 1)
            if index == 0:
                seen += 1
            else:
                assert value == seen
        return seen

    end = start(serve)
    assert 0 < call(ask) <= N
    stop.close()
    end()


def test_mutex_excludes_across_sides(sides):
    call, start = sides
    mutex, count = gort.Mutex(), [0]

    def work():
        for i in range(N):
            with mutex:
                seen = count[0]
                if i % 20 == 0:
                    time.sleep(0.0001)
                count[0] = seen + 1

    ends = [start(work) for _ in range(3)]
    call(work)
    for end in ends:
        end()
    assert count == [4 * N]


def test_mutex_locked_here_is_unlocked_there(sides):
    call, start = sides
    mutex = gort.Mutex()
    mutex.lock()
    end = start(mutex.unlock)
    call(mutex.lock, LIMIT)
    end()
    assert not mutex.try_lock()


def test_rwmutex_readers_share_and_writer_excludes(sides):
    call, start = sides
    rw, log = gort.RWMutex(), []

    def read():
        for _ in range(50):
            with rw.reading():
                assert len(log) % 2 == 0

    def write():
        for i in range(50):
            with rw:
                log.append(i)
                time.sleep(0.00005)
                log.append(i)

    ends = [start(read), start(write), start(read)]
    call(write)
    for end in ends:
        end()
    assert len(log) == 200


def test_waitgroup_waits_for_the_other_side(sides):
    call, start = sides
    wg, out = gort.WaitGroup(), []

    def work():
        gort.sleep(0.001)
        out.append(1)
        wg.done()

    wg.add(5)
    ends = [start(work) for _ in range(5)]
    call(wg.wait, LIMIT)
    assert out == [1] * 5
    for end in ends:
        end()


def test_cond_signal_and_broadcast_reach_the_other_side(sides):
    call, start = sides
    mutex = gort.Mutex()
    cond, state = gort.Cond(mutex), {"turn": 0}

    def play(me, other):
        for _ in range(50):
            with mutex:
                while state["turn"] != me:
                    cond.wait(LIMIT)
                state["turn"] = other
                cond.broadcast()

    end = start(lambda: play(1, 0))
    call(play, 0, 1)
    end()
    assert state == {"turn": 0}


def test_semaphore_bounds_both_sides(sides):
    call, start = sides
    sem, inside, most = gort.Semaphore(2), [], []

    def work():
        for _ in range(30):
            with sem:
                inside.append(1)
                most.append(len(inside))
                gort.sleep(0.0005)
                inside.pop()

    ends = [start(work) for _ in range(4)]
    call(work)
    for end in ends:
        end()
    assert max(most) == 2


def test_join_and_cancel_from_here_of_a_goroutine_started_there(sides):
    call, start = sides
    box = gort.Chan(2)

    def spawn():
        box.send(gort.go(lambda: "result"))
        box.send(gort.go(gort.Chan().recv))

    end = start(spawn)
    done, waits = box.recv(timeout=LIMIT), box.recv(timeout=LIMIT)
    assert call(done.join, LIMIT) == "result"
    parked(waits)
    assert call(waits.cancel) is True
    with pytest.raises(gort.Cancelled):
        call(waits.join, LIMIT)
    end()


def test_timer_started_here_fires_there(sides):
    call, start = sides
    got = gort.Chan(1)
    timer = call(lambda: gort.after_func(0.005, lambda: got.send("fired")))
    end = start(lambda: got.send(got.recv(timeout=LIMIT)))
    end()
    assert call(got.recv, LIMIT) == "fired"
    assert timer.stop() is False


def test_once_runs_once_for_both_sides(sides):
    call, start = sides
    once, ran = gort.Once(), []

    def first():
        gort.sleep(0.005)
        ran.append(1)

    ends = [start(lambda: once.do(first)) for _ in range(4)]
    call(once.do, first)
    assert ran == [1]
    for end in ends:
        end()


# time-outs and errors on plain threads


@pytest.mark.parametrize(
    "wait",
    [
        lambda t: gort.Chan().recv(timeout=t),
        lambda t: gort.Chan().send(1, timeout=t),
        lambda t: held().lock(timeout=t),
        lambda t: counted().wait(timeout=t),
        lambda t: gort.Semaphore(1).acquire(1) or taken().acquire(timeout=t),
        lambda t: gort.go(gort.sleep, 30).join(timeout=t),
    ],
    ids=["recv", "send", "lock", "WaitGroup", "Semaphore", "join"],
)
def test_time_out_on_a_plain_thread_raises_and_leaves_no_waiter(wait):
    start = time.monotonic()
    for t in (0, 0.01):
        with pytest.raises(TimeoutError):
            in_thread(wait, t)
    assert time.monotonic() - start >= 0.01


def held():
    mutex = gort.Mutex()
    mutex.lock()
    return mutex


def counted():
    wg = gort.WaitGroup()
    wg.add(1)
    return wg


def taken():
    sem = gort.Semaphore(1)
    sem.acquire()
    return sem


def test_timed_out_receiver_on_a_thread_takes_no_value():
    ch = gort.Chan()
    with pytest.raises(TimeoutError):
        in_thread(ch.recv, 0.005)
    assert ch.try_send(1) is False


def test_close_wakes_threads_with_chan_closed():
    ch = gort.Chan()

    def wait():
        with pytest.raises(gort.ChanClosed):
            ch.recv()

    threads = Threads(*[wait] * 5)
    gort.sleep(0.01)
    ch.close()
    threads.join()


def test_exception_of_a_goroutine_is_raised_in_the_thread_that_joins():
    def fail():
        raise LookupError("in the goroutine")

    with pytest.raises(LookupError, match="in the goroutine"):
        in_thread(lambda: gort.go(fail).join())


def test_deadlock_is_not_claimed_of_a_blocked_thread():
    ch = gort.Chan()
    threads = Threads(lambda: ch.send(ch.recv(timeout=LIMIT) + 1))
    ch.send(1)
    assert ch.recv(timeout=LIMIT) == 2
    threads.join()


# the GIL, and threads that come and go


def test_blocked_thread_releases_the_gil():
    gate, counts = gort.Chan(), [0, 0]

    def count(i):
        while not stop:
            counts[i] += 1
            if i:
                gort.gosched()

    stop = []
    blocked = Threads(*[gate.recv] * 3)
    other = Threads(lambda: count(0))
    g = gort.go(count, 1)
    eventually(lambda: min(counts) > 1000)
    stop.append(True)
    for _ in range(3):
        gate.send(None)
    blocked.join()
    other.join()
    g.join(timeout=LIMIT)


def test_threads_that_come_and_go_leave_nothing():
    ch = gort.Chan()
    for i in range(100):
        t = threading.Thread(target=ch.send, args=(i,))
        t.start()
        assert ch.recv(timeout=LIMIT) == i
        t.join()
    base = gort.stats()["machines"]
    for i in range(100):
        assert in_thread(lambda i=i: gort.go(lambda: i).join(LIMIT)) == i
    assert gort.stats()["machines"] <= base + 4


def test_goroutines_started_on_a_thread_outlive_it():
    gate = gort.Chan()
    gs = in_thread(lambda: [gort.go(gate.recv) for _ in range(20)])
    parked(*gs)
    for i in range(20):
        gate.send(i)
    assert sorted(join_all(gs)) == list(range(20))


def test_goroutine_starts_and_joins_a_thread():
    def body():
        out = gort.Chan(1)
        t = threading.Thread(target=lambda: out.send(threading.current_thread().name), name="inner")
        t.start()
        t.join()
        return out.recv(timeout=LIMIT)

    assert in_goroutine(body) == "inner"


def test_current_is_none_on_plain_threads_and_sleep_works_there():
    assert in_thread(gort.current) is None
    start = time.monotonic()
    in_thread(gort.sleep, 0.01)
    assert time.monotonic() - start >= 0.01
    in_thread(gort.gosched)


def test_many_to_many_loses_nothing():
    ch, out = gort.Chan(3), gort.Chan(1000)

    def produce(i):
        for k in range(50):
            ch.send((i, k))

    def consume():
        for item in ch:
            out.send(item)

    producers = Threads(*[lambda i=i: produce(i) for i in range(4)])
    others = [gort.go(produce, i) for i in range(4, 8)]
    consumers = Threads(consume, consume)
    more = [gort.go(consume) for _ in range(2)]
    producers.join()
    join_all(others)
    ch.close()
    consumers.join()
    join_all(more)
    got = [out.try_recv()[0] for _ in range(len(out))]
    assert sorted(got) == [(i, k) for i in range(8) for k in range(50)]


# scripts without run()


def test_script_without_run_uses_everything_from_its_main_thread():
    check(
        """
        import threading
        from gort import Chan, Mutex, WaitGroup, go, recv, select, send, sleep
        ch, wg, mutex = Chan(2), WaitGroup(), Mutex()
        def worker(i):
            with mutex:
                ch.send(i)
            wg.done()
        wg.add(10)
        for i in range(5):
            go(worker, i)
            threading.Thread(target=worker, args=(i + 5,)).start()
        print(sorted(ch.recv() for _ in range(10)))
        wg.wait()
        print(select(recv(ch), send(None, 1), timeout=0.01)[0])
        sleep(0.001)
        print(go(lambda: go(lambda: 7).join()).join())
        """,
        "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n-2\n7",
    )


def test_script_that_only_uses_threads_works():
    check(
        """
        import threading, gort
        ch = gort.Chan()
        t = threading.Thread(target=lambda: [ch.send(i) for i in range(3)] and ch.close())
        t.start()
        print(list(ch))
        t.join()
        """,
        "[0, 1, 2]",
    )


def test_script_whose_first_use_is_on_a_thread_works():
    check(
        """
        import threading
        def first():
            import gort
            out.append(gort.go(lambda: 3).join())
        out = []
        t = threading.Thread(target=first)
        t.start()
        t.join()
        import gort
        print(out, gort.go(lambda: 4).join())
        """,
        "[3] 4",
    )
