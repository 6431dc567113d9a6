"""GOMAXPROCS at run time, the line of GORT_SCHEDTRACE, and the counters."""

from __future__ import annotations

import re
import subprocess
import sys

import gort
import pytest
from children import check, child


def test_it_returns_the_previous_number_and_none_or_less_than_one_only_reads():
    code = """
    import gort
    print(*(gort.gomaxprocs(n) for n in (None, 4, 0, -3, 2, None, 1, None)), gort.stats()["processors"])
    """
    check(code, "1 1 4 4 4 2 2 1 1")


@pytest.mark.parametrize("n, error", [(1025, ValueError), (2**70, OverflowError), ("2", TypeError)])
def test_a_number_that_is_none_changes_nothing(n, error):
    before = gort.gomaxprocs()
    with pytest.raises(error):
        gort.gomaxprocs(n)
    assert gort.gomaxprocs() == before


@pytest.mark.parametrize("boundary", ["1", "0"])
def test_work_goes_on_while_the_number_changes(boundary):
    code = """
    import gort, time, threading
    def main():
        ch, done, ticks = gort.Chan(3), gort.Chan(100), []
        def produce():
            for i in range(2000):
                ch.send(i)
                if i % 100 == 0: gort.sleep(0.0001)
            done.send(0)
        def consume():
            done.send(sum(ch.recv() for _ in range(2000)))
        def call():
            for _ in range(20): time.sleep(0.001)
            done.send(0)
        ticker = gort.Ticker(0.001)
        timer = gort.after_func(0.02, ticks.append, True)
        for _ in range(4):
            for body in produce, consume, call: gort.go(body)
        for turn in range(200):
            gort.gomaxprocs((1, 5, 2, 9, 1, 3)[turn % 6])
            if turn % 10 == 0: ticker.c.recv()
            gort.gosched()
        gort.gomaxprocs(1)
        total = sum(done.recv(timeout=20) for _ in range(12))
        while not ticks: ticker.c.recv(timeout=20)  # set on any P, fired by this one
        ticker.stop()
        print(total)
    gort.run(main)
    """
    check(code, str(4 * 2000 * 1999 // 2), GORT_BOUNDARY=boundary)


def test_sleepers_of_a_processor_that_is_gone_wake_beside_one_that_computes():
    code = """
    import gort, time
    def main():
        gort.gomaxprocs(4)
        woken = gort.Chan(50)
        def sleeper():
            gort.sleep(0.02)
            woken.send(True)
        def spread():
            gort.go(sleeper)
            time.sleep(0.002)
        for g in [gort.go(spread) for _ in range(20)]: g.join()
        gort.gomaxprocs(1)
        gort.go(lambda: [gort.gosched() for _ in iter(int, 1)])  # somebody always runs
        print(sum(woken.recv(timeout=20) for _ in range(20)))
    gort.run(main)
    """
    check(code, "20")


def test_a_forked_child_has_as_many():
    code = """
    import gort, os, warnings
    warnings.simplefilter("ignore")
    def main():
        gort.gomaxprocs(5); gort.gomaxprocs(3)
        gort.go(int).join()
        child = os.fork()
        if child == 0:
            right = gort.gomaxprocs(6) == 3 and [gort.go(len, "ab").join() for _ in range(9)] == [2] * 9
            os._exit(not right or gort.gomaxprocs(1) != 6)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    gort.run(main)
    """
    check(code, "0")


LINE = re.compile(
    r"SCHED (\d+)ms: gomaxprocs=(\d+) idleprocs=(\d+) threads=(\d+) spinningthreads=(\d+) needspinning=0 "
    r"idlethreads=(\d+) runqueue=(\d+) \[((?: \d+)+) \] schedticks=\[((?: \d+)+) \]"
)


def test_schedtrace_prints_gos_line():
    code = """
    import gort
    def main():
        gort.go(lambda: [gort.gosched() for _ in iter(int, 1)])
        gort.sleep(0.1)
    gort.run(main)
    """
    done = child(code, GORT_SCHEDTRACE="5", GORT_MAXPROCS="2")
    lines = [LINE.fullmatch(line) for line in done.stderr.splitlines()]
    assert done.returncode == 0 and len(lines) > 3 and all(lines), done.stderr
    times = [int(line[1]) for line in lines if line]
    assert times == sorted(times) and times[0] == 0
    assert all(
        line[2] == "2" and len(line[8].split()) == len(line[9].split()) == 2 for line in lines
    )
    ticks = [sum(map(int, line[9].split())) for line in lines]
    assert ticks[-1] > ticks[0]


def test_counters_count():
    code = """
    import gort
    def main():
        before = gort.stats()
        for g in [gort.go(gort.gosched) for _ in range(100)]: g.join()
        after = gort.stats()
        more = {name: after[name] - before[name] for name in after}
        print(more["local_pops"] >= 100, more["global_pops"] >= 100, more["preemptions"], more["steals"])
    gort.run(main)
    """
    check(code, "True True 0 0")


def test_doctor_tells_the_cpus_by_gos_rule():
    done = subprocess.run(
        [sys.executable, "-m", "gort", "doctor"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert re.search(r"CPUs +\d+, usable \d+$", done.stdout, re.M), done.stdout
