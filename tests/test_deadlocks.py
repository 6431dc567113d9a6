"""gort.deadlock: cycles while others run, locks in both orders, who fights over what."""

from __future__ import annotations

import contextlib
import gc
import warnings

import gort
import gort.deadlock
import pytest
from children import check
from waiting import eventually, parked, waiter


@pytest.fixture(autouse=True)
def tracked():
    """Holders are kept during a test."""
    gort.deadlock.track()
    yield
    gort.deadlock.track(False)


def ids(found: gort.deadlock.Deadlock) -> set[int]:
    """Who is in it."""
    return {link.id for link in found.cycle}


def end(*goroutines) -> None:
    """Cancel them all, and wait."""
    for g in goroutines:
        g.cancel()
    for g in goroutines:
        with contextlib.suppress(gort.Cancelled):
            g.join()


def crossed(a, b):
    """Two goroutines that lock a and b in opposite orders, stuck."""
    ready = gort.WaitGroup()
    ready.add(2)

    def takes(first, second) -> None:
        with first:
            ready.done()
            ready.wait()
            with second:
                pass

    both = gort.go(takes, a, b), gort.go(takes, b, a)
    eventually(lambda: all(g.status == "sync.Mutex.Lock" for g in both))
    return both


@pytest.mark.filterwarnings("ignore::gort.deadlock.LockOrderWarning")
def test_two_mutexes_in_opposite_orders():
    a, b = gort.Mutex(), gort.Mutex()
    both = crossed(a, b)
    [found] = gort.deadlocks()
    first, second = found.cycle
    assert [first.id, second.id] == [g.id for g in both]
    assert (first.goroutine, second.goroutine) == both
    assert first.waits_for is b and second.waits_for is a
    assert first.reason == second.reason == "sync.Mutex.Lock"
    text = str(found)
    assert text.startswith("deadlock of 2 goroutines:\n")
    assert f"waits for {b!r}, which is up to goroutine {second.id}" in text
    assert f"waits for {a!r}, which is up to goroutine {first.id}" in text
    assert "in takes" in text
    end(*both)
    assert gort.deadlocks() == []


def test_a_mutex_twice():
    mutex = gort.Mutex()

    def twice() -> None:
        with mutex, mutex:
            pass

    g = waiter(twice)
    [found] = gort.deadlocks(channels=False)
    [link] = found.cycle
    assert (link.id, link.waits_for) == (g.id, mutex)
    assert str(found).startswith("deadlock of 1 goroutine:\n")
    end(g)


def test_a_lock_and_a_join():
    mutex = gort.Mutex()

    def holds() -> None:
        with mutex:
            gort.go(needs_what_is_held).join()

    def needs_what_is_held() -> None:
        with mutex:
            pass

    g = gort.go(holds)
    eventually(lambda: gort.deadlocks(channels=False))
    [found] = gort.deadlocks(channels=False)
    assert g.id in ids(found) and len(found.cycle) == 2
    assert {link.reason for link in found.cycle} == {"join", "sync.Mutex.Lock"}
    end(*[link.goroutine for link in found.cycle])


def test_joins_in_a_ring():
    ring: list[gort.Goroutine] = []
    begin = gort.Chan()

    def joins(n: int) -> None:
        begin.recv_ok()
        ring[(n + 1) % 50].join()

    ring += [gort.go(joins, n) for n in range(50)]
    begin.close()
    parked(*ring)
    [found] = gort.deadlocks(channels=False)
    assert [link.id for link in found.cycle] == [g.id for g in ring]
    ring[0].cancel()
    for g in ring:
        with contextlib.suppress(gort.Cancelled):
            g.join()


def test_a_reader_that_reads_again_behind_a_writer():
    rw, begin = gort.RWMutex(), gort.Chan()

    def reads() -> None:
        with rw.reading():
            begin.recv_ok()
            with rw.reading():
                pass

    reader = waiter(reads)
    writer = waiter(rw.lock)
    assert gort.deadlocks(channels=False) == []
    begin.close()
    eventually(lambda: reader.status == "sync.RWMutex.RLock")
    [found] = gort.deadlocks(channels=False)
    assert ids(found) <= {reader.id, writer.id} and reader.id in ids(found)
    end(reader, writer)


@pytest.mark.filterwarnings("ignore::gort.deadlock.LockOrderWarning")
def test_a_writer_waits_for_each_reader():
    rw, mutex = gort.RWMutex(), gort.Mutex()
    done = gort.Chan()

    def reads() -> None:
        with rw.reading():
            done.recv_ok()

    def writes() -> None:
        with mutex, contextlib.suppress(gort.GoroutineExit):
            rw.lock()

    def reads_and_locks() -> None:
        with rw.reading(), mutex:
            pass

    free = [waiter(reads) for _ in range(3)]
    writer = waiter(writes)
    assert gort.deadlocks(channels=False) == []
    stuck = gort.go(reads_and_locks)  # waits behind the writer, and has nothing yet
    parked(stuck)
    assert gort.deadlocks(channels=False) == []
    done.close()
    for g in free:
        g.join()
    eventually(lambda: writer.done)
    rw.unlock()
    stuck.join()


@pytest.mark.filterwarnings("ignore::gort.deadlock.LockOrderWarning")
def test_who_will_give_up_is_in_no_deadlock():
    a, b = gort.Mutex(), gort.Mutex()
    ready = gort.WaitGroup()
    ready.add(2)
    ctx, cancel = gort.context.with_cancel(gort.context.background())

    def takes(first, second, **how) -> None:
        with first:
            ready.done()
            ready.wait()
            second.lock(**how)

    for how in ({"timeout": 1000}, {"ctx": ctx}):
        both = gort.go(takes, a, b), gort.go(takes, b, a, **how)
        eventually(lambda both=both: all(g.status == "sync.Mutex.Lock" for g in both))
        assert gort.deadlocks(channels=False) == []
        end(*both)
        ready.add(2)
    cancel()


def test_who_waits_for_one_that_runs_is_in_no_deadlock():
    mutex, gate = gort.Mutex(), gort.Chan()

    def holds() -> None:
        with mutex:
            gate.recv_ok()

    holder = waiter(holds)
    chain = [waiter(mutex.lock)]
    for _ in range(5):
        chain.append(waiter(chain[-1].join))
    assert gort.deadlocks() == []
    gate.close()
    holder.join()
    for g in chain:
        g.join()


def test_channels_that_nobody_else_can_reach():
    def rounds(mine, others) -> None:
        others.send(mine.recv())

    def start() -> tuple[int, int]:
        a, b = gort.Chan(), gort.Chan()
        return gort.go(rounds, a, b).id, gort.go(rounds, b, a).id

    both = start()
    eventually(lambda: [d for d in gort.deadlocks() if ids(d) == set(both)])
    # A report that is kept keeps nobody from being found again.
    for _ in range(3):
        [found] = [d for d in gort.deadlocks() if ids(d) == set(both)]
    assert all(isinstance(link.waits_for, gort.Chan) for link in found.cycle)
    assert [d for d in gort.deadlocks(channels=False) if ids(d) & set(both)] == []
    end(*[link.goroutine for link in found.cycle])


@pytest.mark.filterwarnings("ignore::gort.deadlock.LockOrderWarning")
def test_without_tracking_no_lock_is_known():
    gort.deadlock.track(False)
    both = crossed(gort.Mutex(), gort.Mutex())
    assert gort.deadlocks(channels=False) == [] and gort.deadlock.locks() == []
    end(*both)


def test_track_says_what_was():
    assert gort.deadlock.track() is True
    assert gort.deadlock.track(False) is True
    assert gort.deadlock.track(False) is False


def test_locks_in_both_orders_are_warned_of_once():
    a, b = gort.Mutex(), gort.RWMutex()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            with a, b:
                pass
        assert told == []
        for _ in range(3):
            with b, a:
                pass
    [warning] = told
    assert warning.category is gort.deadlock.LockOrderWarning
    assert warning.filename == __file__
    text = str(warning.message)
    assert text.startswith(f"lock order: {b!r} before {a!r} at {__file__}:{warning.lineno}")
    assert f"but {a!r} before {b!r} at {__file__}:" in text
    assert gort.deadlock.inversions() == [text]


def test_a_ring_of_three_locks_is_warned_of():
    a, b, c = (gort.Mutex() for _ in range(3))
    with a, b:
        pass
    with b, c:
        pass
    with pytest.warns(gort.deadlock.LockOrderWarning), c, a:
        pass
    [text] = gort.deadlock.inversions()
    assert f"but {a!r} before {b!r} before {c!r} at " in text


def test_a_lock_that_is_gone_is_forgotten():
    a = gort.Mutex()
    for _ in range(100):
        b = gort.Mutex()
        with a, b:
            pass
        del b
        gc.collect(0)
        b = gort.Mutex()  # at the same address, as likely as not
        with b:
            pass
        with b, a:
            pass
        del b
    assert gort.deadlock.inversions() == []
    assert [found.lock for found in gort.deadlock.locks()] == [a]


def test_a_warning_that_is_an_error_does_not_lose_the_lock(monkeypatch):
    seen = []
    monkeypatch.setattr("sys.unraisablehook", lambda failure: seen.append(failure.exc_value))
    a, b = gort.Mutex(), gort.Mutex()
    with a, b:
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with b, a:
            assert not a.try_lock()
    assert [type(error) for error in seen] == [gort.deadlock.LockOrderWarning]
    assert a.try_lock() and b.try_lock()


def test_locks_tell_who_has_them_and_who_waits():
    mutex, idle = gort.Mutex(), gort.Mutex()
    with idle:
        pass
    mutex.lock()
    me = [found for found in gort.deadlock.locks() if found.lock is mutex][0].holders
    waiters = [waiter(mutex.lock) for _ in range(3)]
    first, second = gort.deadlock.locks()
    assert first.lock is mutex and second.lock is idle
    assert first.holders == me and len(me) == 1
    assert set(first.waiters) == {g.id for g in waiters}
    assert (second.holders, second.waiters, second.waits, second.waited) == ((), (), 0, 0)
    for g in waiters:
        mutex.unlock()
        g.join()
    first = gort.deadlock.locks()[0]
    assert first.lock is mutex and first.waits == 3 and first.waited > 0
    assert first.holders == (waiters[-1].id,)  # it has ended, and has it still
    mutex.unlock()  # by another than who took it
    assert gort.deadlock.locks()[0].holders == ()


def test_readers_are_holders_each():
    rw = gort.RWMutex()
    gate = gort.Chan()

    def reads() -> None:
        with rw.reading():
            gate.recv_ok()

    readers = [waiter(reads) for _ in range(3)]
    assert rw.try_rlock()
    [found] = gort.deadlock.locks()
    assert len(found.holders) == 4 and {g.id for g in readers} < set(found.holders)
    rw.runlock()
    gate.close()
    for g in readers:
        g.join()
    assert gort.deadlock.locks()[0].holders == ()


def test_who_waits_for_a_condition_has_not_its_lock():
    mutex = gort.Mutex()
    cond = gort.Cond(mutex)

    def waits() -> None:
        with mutex:
            cond.wait()

    g = waiter(waits)
    assert gort.deadlock.locks()[0].holders == ()
    cond.signal()
    g.join()
    assert gort.deadlock.locks()[0].holders == ()


@pytest.mark.filterwarnings("ignore::gort.deadlock.LockOrderWarning")
def test_watch_reports_each_once():
    reported = []
    with gort.deadlock.Watch(0.01, reported.append, channels=False) as watch:
        both = crossed(gort.Mutex(), gort.Mutex())
        eventually(lambda: reported)
        assert watch.look() == []
        assert [ids(one) for one in reported] == [{g.id for g in both}]
        end(*both)
        others = crossed(gort.Mutex(), gort.Mutex())
        eventually(lambda: len(reported) == 2)
        end(*others)
    watch.stop()
    with pytest.raises(ValueError, match="period must be more than 0"):
        gort.deadlock.Watch(0)


def test_the_main_goroutine_may_be_in_it():
    check(
        """
        import os, gort, gort.deadlock
        gort.deadlock.track()
        a, b, begin = gort.Mutex(), gort.Mutex(), gort.Chan()
        def other():
            with b:
                begin.send(None)
                with a:
                    pass
        def report(found):
            print(sorted((g.id, g.name) for g in found.cycle)[0], len(found.cycle), flush=True)
            os._exit(0)
        import warnings
        warnings.simplefilter("ignore")
        watch = gort.deadlock.Watch(0.01, report)
        with a:
            gort.go(other)
            begin.recv()
            with b:
                pass
        """,
        "(1, 'main') 2",
    )


def test_a_forked_child_has_only_its_own():
    check(
        """
        import os, gort, gort.deadlock
        gort.deadlock.track()
        mine, others = gort.Mutex(), gort.Mutex()
        gort.go(others.lock).join()
        mine.lock()
        child = os.fork()
        if not child:
            held = {found.lock: found.holders for found in gort.deadlock.locks()}
            os._exit(held != {mine: (1,), others: ()})
        assert os.waitpid(child, 0)[1] == 0
        """,
        PYTHONWARNINGS="ignore::DeprecationWarning",  # of a fork beside threads
    )
