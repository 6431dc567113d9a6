"""lock_os_thread: the same OS thread each time, and nobody else on it (runtime/proc_test.go, TestLockOSThread...)."""

from __future__ import annotations

from textwrap import dedent

import pytest
from children import check

HEADER = """
import ctypes, gort, os, threading, time
libc = ctypes.CDLL(None)
tid = threading.get_native_id
def main_is_moved():
    "Starts somebody who keeps the main thread, until main goes on elsewhere; returns how to let go."
    go_on = []
    def keep():
        while not go_on: libc.usleep(1000)
    g = gort.go(keep)
    while tid() == os.getpid(): gort.sleep(0.001)
    return lambda: (go_on.append(True), g.join())
def wander(n, seen):
    "Parks, yields and blocks n times, and notes its thread after each."
    for i in range(n):
        gort.gosched(); seen.add(tid())
        gort.sleep(0.0002); seen.add(tid())
        libc.usleep(200); seen.add(tid())
"""
BOTH = pytest.mark.parametrize("boundary", ["1", "0"])


@BOTH
def test_a_locked_goroutine_stays_and_nobody_else_comes(boundary):
    code = """
    def main():
        others, mine = [set() for _ in range(6)], set()
        def locked():
            gort.lock_os_thread()
            wander(40, mine)
        gs = [gort.go(wander, 40, seen) for seen in others] + [gort.go(locked)]
        for g in gs: g.join()
        print(len(mine))
    gort.run(main)
    """
    check(HEADER + dedent(code), "1", GORT_BOUNDARY=boundary)


def test_nobody_else_runs_on_the_thread_of_a_locked_goroutine():
    code = """
    def main():
        where, seen, ready, stop = [], set(), gort.Chan(), gort.Chan()
        def locked():
            where.append(tid())
            ready.send(None)
            stop.recv()
            return tid() == where[0]
        g = gort.spawn(locked, locked=True)
        ready.recv()
        for h in [gort.go(wander, 20, seen) for _ in range(6)]: h.join()
        stop.send(None)
        print(g.join(), where[0] in seen, len(seen) > 0)
    gort.run(main)
    """
    check(HEADER + dedent(code), "True False True", GORT_BOUNDARY="0")


def test_locks_nest_and_one_unlock_too_many_is_nothing():
    code = """
    def main():
        def body():
            gort.unlock_os_thread()  # none: nothing, as in Go
            gort.lock_os_thread(); gort.lock_os_thread()
            with gort.locked_os_thread(): pass
            gort.unlock_os_thread()
            still = set()
            wander(20, still)
            gort.unlock_os_thread()
            return len(still)
        gs = [gort.go(body) for _ in range(4)]
        print([g.join() for g in gs])
    gort.run(main)
    """
    check(HEADER + dedent(code), "[1, 1, 1, 1]", GORT_BOUNDARY="0")


def test_an_unlocked_goroutine_moves_again():
    code = """
    def main():
        seen = set()
        def body():
            with gort.locked_os_thread(): pass
            end = time.monotonic() + 20
            while len(seen) < 2 and time.monotonic() < end: wander(1, seen)
        for g in [gort.go(body) for _ in range(4)]: g.join()
        print(len(seen) > 1)
    gort.run(main)
    """
    check(HEADER + dedent(code), "True", GORT_BOUNDARY="0")


def test_main_that_locks_comes_home_to_the_main_thread_and_stays():
    code = """
    def main():
        let_go = main_is_moved()
        gort.after_func(0.02, let_go)
        gort.lock_os_thread()
        seen = {tid()}
        keep_another_thread()
        wander(20, seen)
        print(seen == {os.getpid()})
        gort.unlock_os_thread()
    def keep_another_thread():
        gort.go(libc.usleep, 50_000)  # main keeps its own
    gort.run(main)
    """
    check(HEADER + dedent(code), "True")


def test_the_thread_of_one_that_ended_locked_serves_others():
    code = """
    def main():
        for _ in range(50): gort.spawn(tid, locked=True).join()
        print(gort.stats()["machines"] < 6)
        seen = set()
        for g in [gort.go(wander, 3, seen) for _ in range(3)]: g.join()
        print(len(seen) >= 1)
    gort.run(main)
    """
    check(HEADER + dedent(code), "True\nTrue")


def test_a_deadlock_of_locked_goroutines_is_found():
    code = """
    def main():
        gort.spawn(gort.Chan().recv, locked=True)
        gort.lock_os_thread()
        try: gort.Chan().recv()
        except gort.DeadlockError as e: print(str(e).splitlines()[0])
    gort.run(main)
    """
    check(HEADER + dedent(code), "all goroutines are asleep - deadlock!")


def test_a_locked_goroutine_that_forks_is_locked_in_the_child():
    code = """
    import warnings
    warnings.simplefilter("ignore")
    def body():
        with gort.locked_os_thread():
            child = os.fork()
            if child == 0:
                seen = {tid()}
                wander(5, seen)
                os._exit(len(seen) - 1)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(gort.go(body).join())
    """
    check(HEADER + dedent(code), "0")


def test_affine_library_is_used_from_one_thread():
    code = """
    import sqlite3
    def body():
        with gort.locked_os_thread(), sqlite3.connect(":memory:") as db:
            db.execute("create table t (n)")
            for i in range(20):
                db.execute("insert into t values (?)", (i,))
                gort.sleep(0.0002)
            return db.execute("select sum(n) from t").fetchone()[0]
    print({g.join() for g in [gort.go(body) for _ in range(5)]})
    """
    check(HEADER + dedent(code), "{190}")


def test_it_does_nothing_on_a_plain_thread():
    code = """
    def body():
        gort.lock_os_thread(); gort.sleep(0.001); gort.unlock_os_thread(); gort.unlock_os_thread()
        print("ok")
    t = threading.Thread(target=body); t.start(); t.join()
    """
    check(HEADER + dedent(code), "ok")


@pytest.mark.parametrize(
    "wrong", ["gort.lock_os_thread(1)", "gort.spawn(int, locked=[].append(1).x)"]
)
def test_wrong_arguments_are_errors(wrong):
    with pytest.raises((TypeError, AttributeError)):
        exec(f"import gort\n{wrong}", {})
