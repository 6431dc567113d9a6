"""The standard library in a bubble: clocks, sleeps, locks, queues and threads go by its clock."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import queue
import threading
import time
from textwrap import dedent

import gort
import pytest
from children import check
from gort.testing import synctest

pytestmark = pytest.mark.skipif(
    not gort.boundary.status().parking, reason="the boundary does not serve this interpreter"
)


def passed():
    return time.time() - 946_684_800


def test_every_clock_that_a_program_reads_is_the_bubbles():
    def clocks():
        return [
            time.time(),
            time.monotonic(),
            time.perf_counter(),
            time.clock_gettime(time.CLOCK_BOOTTIME),
        ]

    def main():
        assert datetime.datetime.now(datetime.UTC).isoformat() == "2000-01-01T00:00:00+00:00"
        assert time.gmtime()[:6] == (2000, 1, 1, 0, 0, 0)
        before = clocks()
        time.sleep(0.25)
        assert [b - a for a, b in zip(before, clocks())] == [0.25] * 4
        assert time.time_ns() == 946_684_800_250_000_000
        assert datetime.date.today().year in (1999, 2000)
        assert time.process_time() < 1e6 and time.thread_time() < 1e6
        assert time.clock_gettime(time.CLOCK_PROCESS_CPUTIME_ID) < 1e6

    synctest.run(main)
    assert datetime.date.today().year > 2020


def test_locks_conditions_events_and_queues_time_out_by_it():
    def main():
        lock = threading.Lock()
        lock.acquire()
        assert not lock.acquire(timeout=10) and passed() == 10
        condition = threading.Condition()
        with condition:
            assert not condition.wait(10) and passed() == 20
        assert not threading.Event().wait(10) and passed() == 30
        assert not threading.Semaphore(0).acquire(timeout=10) and passed() == 40
        for kind in (queue.Queue, queue.SimpleQueue):
            with pytest.raises(queue.Empty):
                kind().get(timeout=10)
        full = queue.Queue(1)
        full.put(1)
        with pytest.raises(queue.Full):
            full.put(2, timeout=10)
        with pytest.raises(threading.BrokenBarrierError):
            threading.Barrier(2, timeout=10).wait()
        return passed()

    assert synctest.run(main) == 80


def test_threads_started_in_it_are_its_goroutines():
    def main():
        jobs, done = queue.Queue(), []

        def worker():
            while (job := jobs.get()) is not None:
                time.sleep(job)
                done.append((job, passed()))

        threads = [threading.Thread(target=worker) for _ in range(2)]
        for t in threads:
            t.start()
        for job in (5, 7, 1, None, None):
            jobs.put(job)
        threads[0].join(timeout=2)
        assert (threads[0].is_alive(), passed()) == (True, 2)
        for t in threads:
            t.join()
        timer = threading.Timer(3, done.append, ["timer"])
        timer.start()
        timer.join()
        return done, passed()

    assert not gort.threads.enabled()
    assert synctest.run(main) == ([(5, 5), (1, 6), (7, 7), "timer"], 10)
    assert not gort.threads.enabled()


def test_pool_of_threads():
    def main():
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            assert list(pool.map(lambda n: (time.sleep(n), n)[1], range(6))) == list(range(6))
            future = pool.submit(time.sleep, 100)
            with pytest.raises(concurrent.futures.TimeoutError):
                future.result(timeout=10)
            return passed()

    assert synctest.run(main) == 7 + 10


def test_what_waits_for_a_lock_for_ever_is_a_deadlock():
    check(
        """
        import gort, queue
        from gort.testing import synctest
        def main():
            gort.go(gort.sleep, 5)
            queue.Queue().get()
        try: synctest.run(main)
        except gort.DeadlockError as error: print(str(error).splitlines()[0], "lock" in error.dump)
        """,
        "deadlock: all goroutines in bubble are blocked True",
    )


def test_lock_that_one_outside_holds_for_a_moment_keeps_the_clock():
    """It is the world's turn first: who holds the lock outside and is ready lets go of it."""
    lock = threading.Lock()
    lock.acquire()
    waiting = gort.Chan(1)

    def holder():
        waiting.recv()
        for _ in range(20):
            gort.gosched()
        lock.release()

    def main():
        gort.go(gort.sleep, 100)
        waiting.send(None)
        with lock:
            return passed()

    g = gort.go(holder)
    assert synctest.run(main) in (0, 100)  # documented: it may count as blocked
    g.join()


def test_descriptors_take_their_time():
    """A wait for one is not durable; its time-out is the world's, and the clock goes on by as much."""
    import select
    import socket

    def main():
        a, b = socket.socketpair()
        with a, b:
            sleeper = gort.go(gort.sleep, 3600)
            a.settimeout(0.05)
            with pytest.raises(TimeoutError):
                a.recv(1)
            assert 0.04 < passed() < 20
            begun = time.monotonic()
            assert select.select([a], [], [], 0.05)[0] == []
            assert 0.04 < time.monotonic() - begun < 20
            b.send(b"y")
            a.settimeout(None)
            assert (a.recv(1), sleeper.done) == (b"y", False)
            sleeper.join()

    synctest.run(main)


def test_asyncio_runs_in_it():
    async def main():
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await asyncio.sleep(0.05)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.05)
        return loop.time() - begun

    assert 0.1 <= synctest.run(asyncio.run, main()) < 20


def test_interpreters_lock_is_waited_for_in_the_worlds_time():
    """With the bubble's clock in that wait nobody would be asked to let go of the lock for thousands of years."""
    check(
        """
        import gort, threading, ctypes
        from gort.testing import synctest
        usleep = ctypes.CDLL(None).usleep
        stop, count = [], [0]
        def computes():
            while not stop: count[0] += 1
        def main():
            gort.sleep(10**9)  # far ahead of the world's monotonic clock
            for _ in range(20): usleep(100)
            return count[0]
        thread = threading.Thread(target=computes)
        thread.start()
        while not count[0]: gort.sleep(0.001)
        print(synctest.run(main) > 0)
        stop.append(True)
        thread.join()
        """,
        "True",
    )


def test_child_forked_in_a_bubble_has_the_worlds_clock():
    check(
        dedent(
            """
            import gort, os, time
            from gort.testing import synctest
            def main():
                ch = gort.Chan()
                sleeper = gort.go(gort.sleep, 1000)
                gort.go(ch.recv)
                gort.sleep(10)
                pid = os.fork()
                if pid == 0:
                    try:
                        mine = gort.Chan()
                        gort.go(lambda: (gort.sleep(0.01), mine.send(time.time())))
                        os._exit(7 if mine.recv() > 1.7e9 else 1)
                    finally:
                        os._exit(2)
                ch.send(None)
                now = time.time() - 946684800
                sleeper.join()
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), now
            print(synctest.run(main))
            """
        ),
        "(7, 10.0)",
        PYTHONWARNINGS="ignore::DeprecationWarning",  # of a fork beside threads
    )


def test_ctrl_c_ends_a_run():
    check(
        """
        import gort, os, signal
        from gort.testing import synctest
        cleaned, outside = [], gort.Chan()
        def main():
            gort.go(interrupts)
            try: outside.recv()
            finally: cleaned.append(True)
        def interrupts():
            os.kill(os.getpid(), signal.SIGINT)
        try: synctest.run(main)
        except KeyboardInterrupt: print("interrupted")
        while not cleaned: gort.gosched()
        """,
        "interrupted",
    )


def test_without_the_boundary_gorts_own_times_are_the_bubbles():
    check(
        """
        import gort, time
        from gort.testing import synctest
        def main():
            began = time.time()
            gort.sleep(3600)
            try: gort.Chan().recv(timeout=3600)
            except TimeoutError: pass
            return gort.after(1).recv(), time.time() - began < 20
        print(synctest.run(main))
        """,
        "(946692001.0, True)",
        GORT_BOUNDARY="0",
    )
