"""What the system refuses, what memory runs out in, and exceptions from outside: nobody is lost, and who asked is told."""

from __future__ import annotations

from textwrap import dedent, indent

import pytest
from children import check, shared_library

#: Refuses what its word `refuses` names, once it is set.
REFUSES = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
volatile int refuses_threads, refuses_epoll, refuses_stacks, refuses_growth, refused;
extern void *__libc_malloc(size_t), *__libc_realloc(void *, size_t);
static int is_too_much(size_t bytes)
{
    return refuses_growth && bytes >= 20000 ? refused++, errno = ENOMEM, 1 : 0;
}
void *malloc(size_t bytes) { return is_too_much(bytes) ? 0 : __libc_malloc(bytes); }
void *realloc(void *at, size_t bytes) { return is_too_much(bytes) ? 0 : __libc_realloc(at, bytes); }
int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *x)
{
    if (refuses_threads) { refused++; return EAGAIN; }
    return ((int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create"))(t, a, f, x);
}
int epoll_create1(int flags)
{
    if (refuses_epoll) { refused++; errno = EMFILE; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "epoll_create1"))(flags);
}
void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    if (refuses_stacks && bytes >= 1 << 20) { refused++; errno = ENOMEM; return MAP_FAILED; }
    return ((void *(*)(void *, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap"))(at, bytes, protection, flags, fd, offset);
}
"""

HEADER = """
import ctypes, gort, os, socket, sys, threading
libc = ctypes.CDLL(None)
def word(name): return ctypes.c_int.in_dll(ctypes.CDLL(os.environ["LD_PRELOAD"]), name)
"""


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    """Runs code in a child where things can be refused."""
    library = shared_library(tmp_path_factory.mktemp("faults") / "librefuses.so", REFUSES)

    def run(code, **env):
        check(HEADER + dedent(code), LD_PRELOAD=library, **env)

    return run


@pytest.mark.parametrize("from_the_start", [True, False])
def test_refused_threads_cost_time_and_nothing_else(refusing, from_the_start):
    """Nobody can take a blocked goroutine's P, nor watch: each call is waited for, and all goes on."""
    refusing(
        f"""
        def main():
            if {from_the_start}: word("refuses_threads").value = 1
            done = [gort.go(str, i) for i in range(100)]
            word("refuses_threads").value = 1
            def block(i):
                libc.usleep(2000)
                return i
            gs = [gort.go(block, i) for i in range(20)]
            ch = gort.Chan()
            gort.go(lambda: [ch.send(i) for i in range(100)] and ch.close())
            assert list(ch) == list(range(100))
            assert [g.join() for g in gs] == list(range(20))
            assert [g.join() for g in done] == [str(i) for i in range(100)]
            word("refuses_threads").value = 0
            assert [g.join() for g in [gort.go(block, i) for i in range(20)]] == list(range(20))
            assert word("refused").value > 0
        gort.run(main)
        """
    )


def test_without_epoll_calls_block_their_threads(refusing):
    refusing(
        """
        def main():
            word("refuses_epoll").value = 1
            pairs = [socket.socketpair() for _ in range(10)]
            gs = [gort.go(a.recv, 10) for a, _ in pairs]
            gort.sleep(0.01)
            for i, (_, b) in enumerate(pairs): b.sendall(b"%d" % i)
            assert [g.join() for g in gs] == [b"%d" % i for i in range(10)]
            assert word("refused").value > 0
        gort.run(main)
        """
    )


def test_refused_stacks_are_memory_errors_of_those_that_asked(refusing):
    refusing(
        """
        def main():
            gate = gort.Chan()
            word("refuses_stacks").value = 1
            gs = [gort.spawn(gate.recv, stack_size=1 << 24) for _ in range(50)]
            gort.sleep(0.01)
            for _ in range(60): gate.try_send(None)
            ends = []
            for g in gs:
                try: ends.append(g.join(timeout=20))
                except MemoryError as error: ends.append(str(error))
            assert "gort: no memory for a goroutine's stack" in ends, ends
            word("refuses_stacks").value = 0
            assert gort.spawn(lambda: 5, stack_size=1 << 24).join() == 5
        gort.run(main)
        """
    )


#: Many sleep and are queued with growth refused, and as many more as there is memory for. What ends has its own lists.
CROWD = """
COUNT = 6000
def body(i):
    for _ in gate: pass
    for _ in range(3):
        gort.sleep(0.1)
        gort.gosched()
    done[0] += 1
    for _ in last: pass
    return i
def start(i):
    return gort.spawn(body, (i,), priority=i % 5 - 2, group=groups[i % 3])
def until(count):
    while done[0] < count: gort.sleep(0.001)
def main():
    global gate, last, done
    gate, last, done, gs = gort.Chan(), gort.Chan(), [0], [None] * COUNT * 20
    for i in range(COUNT): gs[i] = start(i)
    while any(g.status == "runnable" for g in gs[:COUNT]): gort.gosched()
    word("refuses_growth").value = 1
    gate.close()
    until(COUNT)
    for made in range(COUNT, len(gs)):
        try: gs[made] = start(made)
        except MemoryError: break
    else: raise AssertionError("none refused")
    until(made)
    assert word("refused").value > 0
    word("refuses_growth").value = 0
    last.close()
    for i in range(made): assert gs[i].join() == i
"""


@pytest.mark.parametrize("policy", ["fifo", "mlfq", "fair"])
@pytest.mark.parametrize("grouped", [False, True])
def test_who_was_started_can_sleep_and_be_queued_when_memory_is_refused(refusing, policy, grouped):
    """There is room for each in every list since its start: nobody asks for memory in the middle of things."""
    groups = '[None, gort.Group("a"), gort.Group("b", quota=0.5)]' if grouped else "[None] * 3"
    refusing(f"groups = {groups}{CROWD}gort.run(main)", GORT_POLICY=policy)


def test_who_was_started_in_a_bubble_can_sleep_there_when_memory_is_refused(refusing):
    refusing(
        f"""
        from gort.testing import synctest
        groups = [None] * 3{indent(CROWD, " " * 8)}
        gort.run(synctest.run, main)
        """
    )


def test_goroutine_without_a_stack_that_nobody_joins_is_reported_and_gone(refusing):
    """Neither was it: its arguments stayed for ever, and nobody was told."""
    refusing(
        """
        import weakref
        class Thing: pass
        def main():
            told, things = [], [Thing() for _ in range(50)]
            watches = [weakref.ref(thing) for thing in things]
            gort.excepthook = lambda args: told.append(args.exc_type)
            word("refuses_stacks").value = 1
            while things: gort.spawn(id, [things.pop()], stack_size=1 << 24)
            while gort.num_goroutine() > 1: gort.gosched()
            word("refuses_stacks").value = 0
            assert set(told) == {MemoryError}, told
            assert not any(watch() for watch in watches)
        gort.run(main)
        """
    )


def test_memory_that_runs_out_anywhere_in_a_start_is_a_memory_error():
    pytest.importorskip("_testcapi", reason="this Python came without _testcapi")
    check(
        """
        import _testcapi, gort
        def body(a, b=0): return a + b
        gort.go(body, 1).join()
        outcomes = set()
        for start in (lambda: gort.go(body, 1, b=2), lambda: gort.spawn(body, (1,), {"b": 2}, name="x")):
            for after in range(40):
                g = None
                _testcapi.set_nomemory(after, after + 1)
                try: g = start()
                except MemoryError: outcomes.add("refused")
                finally: _testcapi.remove_mem_hooks()
                if g is not None:
                    try: assert g.join(timeout=20) == 3
                    except MemoryError: outcomes.add("ended")
        assert "refused" in outcomes, outcomes
        assert gort.go(body, 1).join() == 1
        """
    )


@pytest.mark.parametrize("doing", ["computes", "parks"])
def test_an_exception_raised_from_outside_reaches_its_goroutine_and_no_other(doing):
    check(
        f"""
        import ctypes, gort, threading
        def main():
            idents, ch, stop = [], gort.Chan(), []
            def computes():
                idents.append(threading.get_ident())
                while not stop: pass
            def parks():
                idents.append(threading.get_ident())
                while True: ch.recv()
            def other():
                while not stop: gort.sleep(0.001)
                return "well"
            g, well = gort.go({doing}), gort.go(other)
            while not idents: gort.sleep(0.001)
            raised = ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(idents[0]), ctypes.py_object(KeyError))
            assert raised == 1
            if {doing!r} == "parks": ch.send(None)
            try: g.join(timeout=20)
            except KeyError: pass
            else: raise AssertionError("nothing was raised")
            stop.append(True)
            assert well.join() == "well"
        gort.run(main)
        """
    )


PARKS = {
    "send": "ch.send('value')",
    "recv": "ch.recv()",
    "select": "gort.select(gort.recv(ch), gort.send(other, 'value'))",
    "sleep": "gort.sleep(1000)",
    "join": "gort.go(ch.recv).join()",
    "mutex": "mutex.lock()",
    "rwmutex": "rw.rlock()",
    "cond": "cond_wait()",
    "wait group": "group.wait()",
    "semaphore": "semaphore.acquire()",
    "send to a full buffer": "full.send('value')",
    "rwmutex for writing": "rw.lock()",
    "iteration": "for _ in ch: pass",
    "select of nothing": "gort.select()",
    "select with a time-out": "gort.select(gort.recv(ch), gort.send(full, 'value'), timeout=1000)",
    "recv with a time-out": "ch.recv(timeout=1000)",
    "mutex with a time-out": "mutex.lock(timeout=1000)",
    "timer": "gort.after(1000).recv()",
    "once": "once.do(ch.recv)",
    "with": "cm(mutex)",
    "yields": "while True: gort.gosched()",
}


@pytest.mark.parametrize("park", PARKS)
def test_cancelled_at_any_park_a_goroutine_keeps_no_lock_and_takes_no_value(park):
    check(
        f"""
        import gort
        def main():
            ch, other, full, once = gort.Chan(), gort.Chan(), gort.Chan(1), gort.Once()
            full.send("first")
            def cm(lock):
                with lock: raise AssertionError("it was held")
            mutex, rw, group = gort.Mutex(), gort.RWMutex(), gort.WaitGroup()
            semaphore, lock = gort.Semaphore(1), gort.Mutex()
            cond = gort.Cond(lock)
            mutex.lock(); rw.lock(); group.add(1); semaphore.acquire()
            def cond_wait():
                with lock: cond.wait()
            def body():
                {PARKS[park]}
            g = gort.go(body)
            gort.gosched()
            while {park != "yields"} and g.status in ("runnable", "running"): gort.gosched()
            assert g.cancel()
            try: g.join(timeout=20)
            except gort.Cancelled: pass
            else: raise AssertionError("it ended otherwise")
            # Everything is as if it had never come.
            mutex.unlock(); assert mutex.try_lock()
            rw.unlock(); assert rw.try_lock()
            semaphore.release(); assert semaphore.try_acquire()
            group.done(); group.wait(timeout=20)
            assert lock.try_lock()
            assert not ch.try_send(1) or {park!r} == "join"  # the inner one still receives
            assert ch.try_recv()[:1] != ("value",)
            assert not other.try_recv()[2]
            assert full.recv() == "first" and not full.try_recv()[2]
        gort.run(main)
        """
    )
