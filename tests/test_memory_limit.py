"""gort.memory.set_limit: whoever would start one goroutine too many is refused or waits, and nothing is lost."""

from __future__ import annotations

import threading

import gort
import pytest
from children import check
from waiting import LIMIT, eventually, join_all, waiter

MIB = 1 << 20
#: The heap grows by so much at a time, and may pass a limit by it.
BATCH = MIB // 4


@pytest.fixture(autouse=True)
def no_limit_afterwards():
    before = gort.num_goroutine()
    gort.memory.set_limit(0)
    with pytest.raises(MemoryError):  # takes back what idle goroutines of other tests have
        gort.go(int)
    gort.memory.set_limit(None)
    yield
    gort.memory.set_limit(None)
    eventually(lambda: gort.num_goroutine() <= before)


def used():
    return gort.memory.stats()["goroutine_bytes"]


def fill(ch, most=100_000):
    """Start goroutines that wait for `ch` until one is refused."""
    gs = []
    while len(gs) < most:
        try:
            gs.append(gort.go(ch.recv))
        except MemoryError:
            return gs
    raise AssertionError("nobody was refused")


def test_returns_the_limit_before():
    assert gort.memory.set_limit(100 * MIB) is None
    assert gort.memory.set_limit(50 * MIB, block=True) == 100 * MIB
    assert gort.memory.set_limit(10**30) == 50 * MIB
    assert gort.memory.set_limit(None) == (1 << 62) - 1
    assert gort.memory.set_limit(None) is None


@pytest.mark.parametrize("bad, error", [(-1, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_bad_limits_are_refused(bad, error):
    with pytest.raises(error):
        gort.memory.set_limit(bad)
    assert gort.memory.set_limit(None) is None


def test_past_the_limit_a_start_is_a_memory_error_and_nothing_is_lost():
    ch = gort.Chan()
    gort.memory.set_limit(used() + 4 * MIB)
    gs = fill(ch)
    assert used() <= gort.memory.set_limit(None) + BATCH
    gort.memory.set_limit(0)
    with pytest.raises(MemoryError, match=r"goroutines have \d+ bytes.*limit of 0.*block=True"):
        gort.spawn(ch.recv)
    with pytest.raises(MemoryError):
        gort.WaitGroup().go(ch.recv)
    gort.memory.set_limit(None)
    for i in range(len(gs)):
        ch.send(i)
    assert sorted(join_all(gs)) == list(range(len(gs)))


def test_who_was_refused_starts_once_others_have_ended():
    ch = gort.Chan()
    gort.memory.set_limit(used() + 2 * MIB)
    gs = fill(ch)
    for _ in range(100):
        ch.send("one")
    eventually(lambda: sum(g.done for g in gs) == 100)
    again = gort.go(ch.recv)
    ch.close()
    for g in [*gs, again]:
        try:
            assert g.join(timeout=LIMIT) == "one"
        except gort.ChanClosed:
            pass


def test_parked_goroutines_give_their_stacks_back_before_anybody_is_refused():
    ch = gort.Chan()
    saves = gort.memory.stats()["stack_saves"]
    gort.memory.set_limit(used() + 4 * MIB)
    gs = []
    for _ in range(1500):  # 5.5 MiB with their stacks
        gs.append(gort.go(ch.recv))
        gort.gosched()
    assert gort.memory.stats()["stack_saves"] > saves
    assert used() <= gort.memory.set_limit(None) + BATCH
    ch.close()
    for g in gs:
        with pytest.raises(gort.ChanClosed):
            g.join(timeout=LIMIT)


def test_who_waits_for_memory_starts_in_order_as_others_end():
    ch, asked, started = gort.Chan(), [], []

    def starts(n):
        asked.append(n)
        g = gort.go(ch.recv)
        started.append(n)
        return g.join(timeout=LIMIT)

    gs = [gort.go(ch.recv) for _ in range(200)]
    late = [gort.go(starts, n) for n in range(5)]
    gort.memory.set_limit(0, block=True)
    for g in late:
        eventually(lambda g=g: g.status == "goroutine memory")
    assert started == []
    gort.memory.set_limit(used())
    for _ in gs:
        ch.send(None)
    join_all(gs)
    eventually(lambda: len(started) == 5)
    assert started == asked
    for _ in late:
        ch.send("late")
    assert join_all(late) == ["late"] * 5


def test_more_room_lets_all_go_on():
    gort.memory.set_limit(0, block=True)
    before = gort.memory.set_limit(None)
    assert before == 0
    starters = [gort.go(gort.go, pow, 2, n) for n in range(3)]
    gort.memory.set_limit(0, block=True)
    for g in starters:
        eventually(lambda g=g: g.status == "goroutine memory")
    gort.memory.set_limit(1 << 40)
    assert [g.join(timeout=LIMIT) for g in join_all(starters)] == [1, 2, 4]


def test_who_waits_for_memory_can_be_cancelled():
    ch = gort.Chan()
    first, second = gort.go(gort.go, ch.recv), gort.go(gort.go, pow, 2, 3)
    gort.memory.set_limit(0, block=True)
    for g in (first, second):
        eventually(lambda g=g: g.status == "goroutine memory")
    first.cancel()
    with pytest.raises(gort.Cancelled):
        first.join(timeout=LIMIT)
    gort.memory.set_limit(None)
    assert second.join(timeout=LIMIT).join(timeout=LIMIT) == 8


def test_plain_thread_blocks_and_lets_others_run():
    got = []
    thread = threading.Thread(target=lambda: got.append(gort.go(pow, 3, 2)))
    gort.memory.set_limit(0, block=True)
    thread.start()
    for _ in range(100):
        gort.gosched()
    assert got == []
    gort.memory.set_limit(None)
    eventually(lambda: got)
    thread.join()
    assert got[0].join(timeout=LIMIT) == 9


def test_waiting_with_nobody_else_is_a_deadlock():
    code = """
import gort
gort.go(print, "before").join()
gort.memory.set_limit(1, block=True)
try:
    gort.go(print, "never")
except gort.DeadlockError as e:
    print("deadlock" in str(e))
gort.memory.set_limit(None)
gort.go(print, "after").join()
"""
    check(code, "before\nTrue\nafter")


def test_timers_call_their_functions_all_the_same():
    ch = gort.Chan(1)
    timer = gort.after_func(0.001, ch.send, "called")
    gort.memory.set_limit(0)
    assert ch.recv(timeout=LIMIT) == "called"
    assert timer.stop() is False


def test_thread_that_would_be_a_goroutine_is_refused_as_by_the_system():
    code = """
import threading, gort
gort.threads.enable()
gort.memory.set_limit(0)
try:
    threading.Thread(target=print).start()
except RuntimeError as e:
    print(e)
gort.memory.set_limit(None)
thread = threading.Thread(target=print, args=("ran",))
thread.start(); thread.join()
"""
    check(code, "can't start new thread\nran")


def test_child_of_a_fork_does_not_count_what_the_parent_has():
    code = """
import os, warnings, gort
warnings.simplefilter("ignore")  # fork beside threads
from waiting import parked
ch = gort.Chan()
gs = [gort.go(ch.recv) for _ in range(2000)]
parked(*gs)
gort.memory.set_limit(2 << 20, block=True)
pid = os.fork()
if pid == 0:
    own = [gort.go(pow, 2, n) for n in range(50)]
    assert [g.join() for g in own] == [2 ** n for n in range(50)]
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
gort.memory.set_limit(None)
gort.excepthook = lambda _: None  # of those that run once more before the end
ch.close()
"""
    check(code, "7")


def test_limit_holds_under_a_crowd_that_comes_and_goes():
    done, most = gort.Chan(), []

    def short(n):
        gort.gosched()
        if n % 100 == 0:
            most.append(used())
        done.send(n)

    def starts():
        for n in range(3000):
            gort.go(short, n)

    limit = used() + 2 * MIB
    gort.memory.set_limit(limit, block=True)
    starter = gort.go(starts)
    assert sorted(done.recv(timeout=LIMIT) for _ in range(3000)) == list(range(3000))
    starter.join(timeout=LIMIT)
    assert max(most) <= limit + BATCH


def test_stats_count_goroutines_and_let_go_of_them():
    code = """
import gort
from waiting import parked
def used(): return gort.memory.stats()["goroutine_bytes"]
ch, n = gort.Chan(), 2000
before = used()
gs = [gort.go(ch.recv) for _ in range(n)]
queued = used() - before
parked(*gs)
running = used() - before
assert n * 4096 <= queued <= n * 8192, queued
assert abs(running - queued) < 0.1 * queued, (running, queued)
assert gort.memory.trim() == n
assert used() - before < 0.5 * running, (used() - before, running)
for i in range(n): ch.send(i)
print(sorted(g.join(timeout=20) for g in gs) == list(range(n)))
"""
    check(code, "True", GORT_SHRINK="0")  # by itself: nobody is saved but by the trim


def test_plain_waiter_is_not_touched_by_a_limit():
    g = waiter(gort.Chan(1).recv)
    gort.memory.set_limit(0)
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
