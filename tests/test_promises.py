"""What was promised of goroutines as such: depth, number, cost in system calls, overlap of
blocking calls, requests by the thousand.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import gort
import pytest
from children import HERE, check, child
from waiting import LIMIT, eventually, in_goroutine, join_all, parked


def depth(n):
    """Recurse n deep, parking at the bottom; how deep it was."""
    if n == 0:
        gort.gosched()
        return 0
    return 1 + depth(n - 1)


@pytest.fixture
def recursion_limit():
    """Raise the limit for one test."""
    old = sys.getrecursionlimit()
    yield sys.setrecursionlimit
    sys.setrecursionlimit(old)


@pytest.mark.parametrize("levels", [10, 100, 900, 5000, 10_000])
def test_recursion_in_a_goroutine_goes_as_deep_as_the_limit_says(levels, recursion_limit):
    recursion_limit(levels + 500)
    gs = [gort.go(depth, levels) for _ in range(3)]
    assert join_all(gs) == [levels] * 3


def test_limit_raised_while_goroutines_exist_counts_for_them(recursion_limit):
    gate = gort.Chan()
    g = gort.go(lambda: depth(gate.recv()))
    parked(g)
    recursion_limit(6000)
    gate.send(5000)
    assert g.join(timeout=LIMIT) == 5000


def test_memory_of_deep_recursion_comes_back():
    check(
        """
        import gc, sys, gort
        from children import rss_kib

        def depth(n, gate):
            return gate.recv() if n == 0 else 1 + depth(n - 1, gate)

        def round():
            gate = gort.Chan()
            gs = [gort.go(depth, 9_000, gate) for _ in range(30)]
            while any(g.status != "chan receive" for g in gs):
                gort.gosched()
            high = rss_kib()
            for _ in gs:
                gate.send(0)
            assert [g.join() for g in gs] == [9_000] * 30
            return high

        sys.setrecursionlimit(10_000)
        base = rss_kib()
        for _ in range(4):
            high = round()
            gc.collect()
            kept = rss_kib() - base
            assert high - base > 15_000, high - base
            assert kept < (high - base) / 5 + 4_000, (kept, high - base)
        """
    )


def test_100000_goroutines_parked_and_released_none_lost():
    check(
        """
        import gort
        N = 100_000
        gate, out = gort.Chan(), gort.Chan(N)

        def inner(i):
            out.send((i, gate.recv()))

        def body(i):
            arrived.append(i)
            inner(i)

        arrived = []
        base = gort.num_goroutine()
        for i in range(N):
            gort.go(body, i)
        while len(arrived) < N:
            gort.gosched()
        assert gort.num_goroutine() == base + N
        for i in range(N):
            gate.send(i)
        got = [out.recv() for _ in range(N)]
        assert sorted(i for i, _ in got) == list(range(N))
        assert sorted(v for _, v in got) == list(range(N))
        while gort.num_goroutine() != base:
            gort.gosched()
        """
    )


def test_100000_goroutines_each_recurse_ten_deep():
    def sums(n):
        return 0 if n == 0 else n + sums(n - 1)

    def count():
        return sum(g.join() for g in [gort.go(sums, 10) for _ in range(1000)])

    assert sum(count() for _ in range(100)) == 100_000 * 55


def system_calls(table):
    """All calls in a table of strace -c but futex waits that timed out.

    Those are the watcher's pauses: they count time, not spawns.
    """
    total = 0
    for line in table.splitlines():
        words = line.split()
        if words and words[0][0].isdigit() and words[-1] != "total":
            timed_out = int(words[4]) if words[-1] == "futex" and len(words) == 6 else 0
            total += int(words[3]) - timed_out
    return total


def test_100000_spawns_at_one_processor_make_less_than_1000_system_calls(tmp_path):
    strace = shutil.which("strace")
    assert strace, "this test needs strace: apt-get install strace"
    program = """
        import gort
        assert gort.gomaxprocs() == 1
        def body():
            pass
        def spawn(n):
            for _ in range(n):
                gort.go(body)
            while gort.num_goroutine() > 1:
                gort.gosched()
        spawn(1000)
        %s
        """
    calls = []
    for part in ("", "spawn(100_000)"):
        table = tmp_path / "calls"
        before = (strace, "-f", "-c", "-qq", "-o", str(table))
        done = child(program % part, before=before, GORT_MAXPROCS="1")
        assert done.returncode == 0, done.stderr
        calls.append(system_calls(table.read_text()))
    assert calls[0] > 100  # the start of an interpreter: the table was read
    assert calls[1] - calls[0] < 1000, calls


def test_blocking_calls_of_50_goroutines_overlap_while_another_computes():
    check(
        """
        import time, gort
        from waiting import hold

        def work():
            done = 0
            while not stop:
                sum(range(100))
                gort.gosched()
                done += 1
                seen[len(blocked)] = done
            return done

        def sleeper():
            started.append(1)
            blocked.append(1)
            hold(0.1)
            blocked.pop()

        def main():
            worker = gort.go(work)
            start = time.monotonic()
            gs = [gort.go(sleeper) for _ in range(50)]
            for g in gs:
                g.join()
            took = time.monotonic() - start
            stop.append(True)
            worker.join()
            return took

        stop, started, blocked, seen = [], [], [], {}
        took = gort.go(main).join()
        assert took < 50 * 0.1 / 2, took  # one after the other would be 5 s
        assert len(started) == 50
        assert max(seen) >= 10, seen  # the worker went on beside many that slept
        assert gort.stats()["hand_offs"] >= 10
        """,
        GORT_BOUNDARY="0",
    )


BLOCK_50_MS = """
    import os, time, gort

    def main(n):
        pipes = [os.pipe() for _ in range(n)]
        start = time.monotonic()
        sleepers = [gort.go(time.sleep, 0.05) for _ in range(n)]
        readers = [gort.go(os.read, near, 1) for near, _ in pipes]
        for g in sleepers:
            g.join()
        with open("/proc/self/status") as file:
            threads = next(int(line.split()[1]) for line in file if line.startswith("Threads"))
        for _, far in pipes:
            os.write(far, b"x")
        assert [g.join() for g in readers] == [b"x"] * n
        return time.monotonic() - start, threads
    """


def test_100_sleeps_and_reads_at_two_processors_take_the_time_of_one():
    check(
        BLOCK_50_MS
        + """
    took, threads = gort.go(main, 100).join()
    assert took < 100 * 0.05 / 2, took  # 0.2 s on a quiet machine; one after the other 5 s
    assert gort.stats()["hand_offs"] < 10
    assert threads <= 12, threads
    """,
        GORT_MAXPROCS="2",
    )


def test_without_the_boundary_50_blocking_calls_have_a_thread_each():
    check(
        BLOCK_50_MS
        + """
    took, threads = gort.go(main, 50).join()
    assert took < 50 * 0.05 / 2, took
    assert threads >= 50, threads
    assert gort.stats()["hand_offs"] >= 50
    """,
        GORT_MAXPROCS="2",
        GORT_BOUNDARY="0",
    )


def gets(*arguments):
    """Run promised_gets.py; what it printed."""
    done = subprocess.run(
        [sys.executable, str(HERE / "promised_gets.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout


def test_2000_gets_through_a_semaphore_are_all_answered():
    assert gets(2000, 500).startswith("2000 answered of 2000, 0 refused")


def test_gets_without_limit_fail_cleanly_when_descriptors_run_out():
    assert re.match(r"\d+ answered of 300, [1-9]\d* refused", gets(300, 0, 100))


def test_object_held_over_a_sleep_survives_collection():
    import gc

    def body():
        data = bytearray(1 << 20)
        gort.sleep(0.02)
        return len(data)

    g = gort.go(body)
    eventually(lambda: g.status == "sleep" or g.done)
    gc.collect()
    assert g.join(timeout=LIMIT) == 1 << 20


def test_goroutine_costs_no_thread():
    import threading

    before = threading.active_count()
    gate = gort.Chan()
    gs = [gort.go(gate.recv) for _ in range(1000)]
    parked(*gs)
    assert threading.active_count() == before
    assert in_goroutine(threading.active_count) <= before + 1
    gate.close()
