"""Goroutines that move between OS threads with C code of the interpreter on their stacks.

A goroutine moves when its thread sits in a blocking call: the P is handed to another thread, and
at its next pause the goroutine goes on there. nested_c.Pauses mixes such calls (time.sleep) with
parks, and checks the thread state after each.

Left to later steps, as the runtime does not answer them yet: identity (an RLock held over a park
by two goroutines of one thread, sqlite3's check_same_thread, an import that parks), fork, and
free-threaded builds.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref

import gort
import nested_c
import pytest
import waiting
from children import check
from waiting import LIMIT, eventually, hold, in_goroutine, join_all, parked

# stale thread states in C frames, and the GIL's idea of the state


@pytest.mark.parametrize("name", nested_c.CONSTRUCTS)
def test_callback_from_c_that_pauses_keeps_its_thread_state(name):
    pauses, _ = nested_c.crowd([nested_c.CONSTRUCTS[name]], goroutines=6, rounds=3)
    assert pauses > 18


@pytest.mark.parametrize("name", nested_c.CONSTRUCTS)
def test_callback_from_c_on_main_and_plain_threads_keeps_its_thread_state(name, anywhere):
    pauses = nested_c.Pauses(seed=3)
    anywhere(lambda: nested_c.CONSTRUCTS[name](pauses))
    assert pauses.count


def test_all_constructs_at_once_while_goroutines_move_between_threads():
    before = gort.stats()["hand_offs"]
    pauses, moves = nested_c.crowd(list(nested_c.CONSTRUCTS.values()), goroutines=10, rounds=1)
    assert gort.stats()["hand_offs"] > before
    assert 0 < moves < pauses


@pytest.mark.parametrize("processors", ["2", "4"])
def test_all_constructs_at_once_on_several_processors(processors):
    check(
        """
        import gort, nested_c
        assert gort.gomaxprocs() > 1
        pauses, moves = gort.go(nested_c.crowd, list(nested_c.CONSTRUCTS.values()), goroutines=12, rounds=2).join()
        assert 0 < moves < pauses, (moves, pauses)
        assert gort.stats()["hand_offs"] > 0
        """,
        GORT_MAXPROCS=processors,
    )


def test_exception_out_of_a_callback_after_moves_is_the_one_raised():
    def key(n):
        pauses()
        if n == 5:
            raise LookupError(n)
        return n

    def body(n):
        hold(0.001)
        with pytest.raises(LookupError, match="5") as info:
            sorted(range(n), key=key)
        pauses()
        assert sys.exc_info() == (None, None, None)
        return info.value

    pauses = nested_c.Pauses(seed=1)
    errors = join_all([gort.go(body, 10) for _ in range(20)])
    assert len({id(e) for e in errors}) == 20


# published too early: a goroutine made runnable while it is still leaving its thread


@pytest.mark.parametrize("where", ["main", "goroutine"])
@pytest.mark.parametrize("processors", ["1", "2", "4"])
def test_parking_goroutine_readied_at_once_from_another_thread_is_never_lost(processors, where):
    check(
        """
        import threading, gort
        from waiting import hold

        def echo(there, back):
            for value in there:
                if value % 64 == 0:
                    hold(0.001)  # hands the P off: the other side is now on another thread
                back.send(value + 1)

        def ask(there, back, n):
            for value in range(n):
                there.send(value)
                assert back.recv() == value + 1
            there.close()

        def pair(n):
            there, back = gort.Chan(), gort.Chan()
            return [gort.go(echo, there, back), gort.go(ask, there, back, n)]

        def main():
            gs = [g for _ in range(4) for g in pair(1500)]
            there, back = gort.Chan(), gort.Chan()
            gs.append(gort.go(echo, there, back))
            thread = threading.Thread(target=ask, args=(there, back, 500))
            thread.start()
            there2, back2 = gort.Chan(), gort.Chan()
            gs.append(gort.go(echo, there2, back2))
            ask(there2, back2, 500)  # the caller, too, is a party
            for g in gs:
                g.join(timeout=20)
            thread.join(20)
            assert not thread.is_alive()
            assert gort.stats()["hand_offs"] > 0

        if "WHERE" == "main":
            main()
        else:
            gort.go(main).join()
        """.replace("WHERE", where),
        GORT_MAXPROCS=processors,
    )


# stranded by a C call that blocks


@pytest.mark.parametrize("waker", ["goroutine", "main"])
def test_blocking_c_call_strands_nobody(waker):
    leave = []
    ticks = [0] * 1000
    started, stop = gort.WaitGroup(), []

    def tick(i):
        started.done()
        while not stop:
            gort.sleep(0.002)
            ticks[i] += 1

    def block():
        count = 0
        while not leave:
            hold(0.2)
            count += 1
        return count

    def wait_and_release(blocked):
        eventually(lambda: gort.stats()["hand_offs"] > before, what="a hand-off")
        marks = list(ticks)
        eventually(
            lambda: all(t >= m + 3 for t, m in zip(ticks, marks, strict=True)),
            what="3 ticks of everyone",
        )
        assert not blocked.done
        leave.append(True)

    started.add(len(ticks))
    tickers = [gort.go(tick, i) for i in range(len(ticks))]
    started.wait()
    before = gort.stats()["hand_offs"]
    blocked = gort.go(block)  # holds an OS thread, on which all the others have started
    if waker == "main":
        wait_and_release(blocked)
    else:
        gort.go(wait_and_release, blocked).join(timeout=LIMIT)
    assert blocked.join(timeout=LIMIT) > 0
    stop.append(True)
    join_all(tickers)


@pytest.mark.parametrize("place", ["main", "goroutine"])
def test_blocking_c_calls_of_many_goroutines_overlap(place):
    def body():
        pipes = [os.pipe() for _ in range(20)]
        gs = [gort.go(os.read, read, 1) for read, _ in pipes]
        for (_, write), g in reversed(list(zip(pipes, gs, strict=True))):
            assert not g.done
            os.write(write, b"x")
            assert g.join(timeout=LIMIT) == b"x"
        for pair in pipes:
            for fd in pair:
                os.close(fd)

    getattr(waiting, f"in_{place}")(body)


# stack limits of 3.14 and later: with wrong ones nothing dropped on a goroutine's stack is freed


class Thing:
    """Something that can be watched."""

    __slots__ = ("__weakref__", "next")

    def __init__(self, following=None):
        self.next = following


def test_objects_dropped_on_a_goroutine_are_freed_at_once():
    def body():
        for _ in range(2):
            things = [Thing() for _ in range(2000)]
            watches = [weakref.ref(t) for t in things]
            things.clear()
            assert not any(w() for w in watches)
            gort.gosched()

    join_all([gort.go(body) for _ in range(3)])


def test_long_chain_dropped_on_a_goroutine_is_freed():
    def body():
        last = Thing()
        watch = weakref.ref(last)
        chain = last
        del last
        for i in range(50_000):
            chain = [{"x": (chain,)}, Thing(chain)][i % 2]
        gort.gosched()
        del chain
        return watch

    assert in_goroutine(body)() is None


def test_memory_stays_flat_over_rounds_of_dropped_objects():
    check(
        """
        import gort
        from children import rss_kib

        def body():
            for _ in range(3):
                with gort.no_preempt():  # one chain at a time, or a later round could hold more
                    chain = None
                    for i in range(30_000):
                        chain = {"x": [chain]}
                    del chain
                gort.gosched()

        def round():
            for g in [gort.go(body) for _ in range(3)]:
                g.join()

        round()
        base = rss_kib()
        for _ in range(6):
            round()
        grown = rss_kib() - base
        assert grown < 8_000, grown  # a single kept chain is more than 15 MB
        """
    )


# life of stacks, thread states and data-stack chunks


def test_200000_spawns_and_exits_leave_memory_and_mappings_flat():
    check(
        """
        import gort
        from children import mappings, rss_kib

        def deep(n):
            return n and deep(n - 1)

        def body(i):
            if i % 50 == 0:
                deep(60)  # more than the first chunk of the data stack holds
            elif i % 50 == 1:
                gort.gosched()

        def round(n):
            for _ in range(n // 1000):
                for g in [gort.go(body, i) for i in range(1000)]:
                    g.join()

        round(10_000)
        memory, maps = rss_kib(), mappings()
        round(190_000)
        assert gort.stats()["created"] >= 200_000
        assert gort.num_goroutine() == 1
        assert rss_kib() - memory < 4_000, rss_kib() - memory
        assert mappings() - maps < 50, mappings() - maps
        """
    )


def test_goroutine_object_dropped_unstarted_runs_and_lets_its_call_go():
    things = [Thing() for _ in range(100)]
    watches = [weakref.ref(t) for t in things]
    base = gort.num_goroutine()
    for t in things:
        gort.go(id, t)
    del t
    things.clear()
    eventually(lambda: gort.num_goroutine() == base)
    assert not any(w() for w in watches)


def test_goroutine_object_dropped_mid_run_goes_on_and_lets_its_call_go():
    gate, out = gort.Chan(), gort.Chan(100)

    def body(thing):
        gate.recv()
        out.send(type(thing))

    things = [Thing() for _ in range(100)]
    watches = [weakref.ref(t) for t in things]
    base = gort.num_goroutine()
    for t in things:
        gort.go(body, t)
    del t
    things.clear()
    eventually(lambda: gort.num_goroutine() == base + 100)
    parked(*gort.goroutines())
    gc.collect()
    assert all(w() for w in watches)
    for _ in range(100):
        gate.send(None)
    assert [out.recv(timeout=LIMIT) for _ in range(100)] == [Thing] * 100
    eventually(lambda: gort.num_goroutine() == base)
    assert not any(w() for w in watches)


def test_goroutine_result_is_let_go_with_the_object():
    g = gort.go(Thing)
    watch = weakref.ref(g.join(timeout=LIMIT))
    assert watch() is not None
    del g
    eventually(lambda: watch() is None)


# what a thread state carries must not pass from one goroutine to the next


def test_thread_state_of_an_ended_goroutine_passes_nothing_on():
    local = threading.local()
    marks = []

    def dirty():
        local.value = 1
        sys.setprofile(lambda *_: None)
        sys.settrace(lambda *_: None)
        nested_c.contexts(lambda: None)
        raise KeyError

    def clean():
        marks.append((hasattr(local, "value"), sys.getprofile(), sys.gettrace(), sys.exc_info()[0]))

    for _ in range(50):
        g = gort.go(dirty)
        with pytest.raises(KeyError):
            g.join(timeout=LIMIT)
        gort.go(clean).join(timeout=LIMIT)
    assert marks == [(False, None, None, None)] * 50


# what belongs to an OS thread


def test_goroutines_that_block_signals_let_others_run_without_that():
    def mask():
        return signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def body(inherited):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        seen = []
        g = gort.go(lambda: seen.append(mask()))
        eventually(lambda: seen)
        assert seen == [before | inherited]
        assert signal.pthread_sigmask(signal.SIG_SETMASK, before) == before | {signal.SIGUSR1}
        g.join()

    gort.go(body, set()).join(timeout=LIMIT)
    body({signal.SIGUSR1})  # main's is everybody's to begin with
    gort.go(body, set()).join(timeout=LIMIT)


def test_starting_a_process_leaves_its_goroutine_free_to_move():
    for _ in range(3):
        subprocess.run([sys.executable, "-c", ""], check=True)
        thread, others = threading.get_native_id(), []
        g = gort.go(lambda others=others: others.append(threading.get_native_id()))
        eventually(lambda others=others: others)
        g.join()
        assert others == [thread]
