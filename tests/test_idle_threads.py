"""OS threads that have been idle for long end, and what was on them goes on elsewhere."""

from __future__ import annotations

from textwrap import dedent

import pytest
from children import check

HEADER = """
import ctypes, gort, os, threading
libc = ctypes.CDLL(None)
def tasks(): return len(os.listdir("/proc/self/task"))
def burst(n):
    "n goroutines that sit in calls until there are that many threads."
    stop = []
    def block():
        while not stop: libc.usleep(10_000)
    gs = [gort.go(block) for _ in range(n)]
    while tasks() < n: gort.sleep(0.01)
    stop.append(True)
    for g in gs: g.join()
def wait_for_few(limit):
    while tasks() > limit: gort.sleep(0.05)
"""


def test_threads_of_a_burst_end_and_come_back():
    check(
        HEADER
        + dedent("""
        def main():
            few = tasks()
            for _ in range(2):
                burst(100)
                wait_for_few(few + 8)  # one for a P, four spare, sysmon and who is on his way
            stats = gort.stats()
            assert stats["machines"] <= few + 8, stats
        gort.run(main)
        """),
        limit=60,
    )


@pytest.mark.parametrize("boundary", ["1", "0"])
def test_goroutines_that_parked_on_ended_threads_go_on(boundary):
    check(
        HEADER
        + dedent("""
        def main():
            go_on, threads, arrived = gort.Chan(), set(), []
            def body(i):
                libc.usleep(20_000)  # goes on on a thread of its own
                local = threading.local()
                local.i = i
                threads.add(threading.get_native_id())
                arrived.append(i)
                go_on.recv()
                try: os.stat("/none")  # sets errno of the thread it is on now
                except FileNotFoundError: pass
                return local.i
            gs = [gort.go(body, i) for i in range(100)]
            while len(arrived) < 100: gort.sleep(0.01)
            assert len(threads) > 16
            wait_for_few(12)
            for _ in gs: go_on.send(None)
            assert [g.join() for g in gs] == list(range(100))
            burst(40)
        gort.run(main)
        """),
        limit=60,
        GORT_BOUNDARY=boundary,
    )


def test_many_bursts_keep_no_memory():
    check(
        HEADER
        + dedent("""
        from children import rss_kib
        def main():
            parked = [gort.go(gort.Chan().recv) for _ in range(50)]
            def round():
                burst(150)
                wait_for_few(12)
            round()
            base = rss_kib()
            for _ in range(3): round()
            # 450 threads with a state, a scheduler's stack and a signal stack each are more than 10 MB.
            assert rss_kib() - base < 3_000, rss_kib() - base
            for g in parked: g.cancel()
        gort.run(main)
        """),
        limit=100,
    )


def test_main_sleeps_and_forks_with_ended_threads():
    check(
        HEADER
        + dedent("""
        import warnings
        warnings.simplefilter("ignore")
        def main():
            burst(100)
            wait_for_few(12)
            pid = os.fork()
            if pid == 0:
                burst(20)
                os._exit(5)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
            burst(20)
        gort.run(main)
        """),
        limit=60,
    )
