"""Block and mutex profiles: what goroutines wait for, and who holds locks that others wait for."""

from __future__ import annotations

import re
import threading
from time import monotonic

import gort
import gort.pprof
import pytest
from children import check
from pprofs import pprof, read, written
from waiting import hold, in_thread, parked, waiter

KINDS = [("contentions", "count"), ("delay", "nanoseconds")]
#: How long is waited where that is the subject, seconds.
LONG = 0.05
#: What the core may round a wait up by, seconds.
ROUND = 1e-5


@pytest.fixture
def all_blocks():
    """Every wait is noted."""
    gort.pprof.set_block_profile_rate(1)
    yield
    gort.pprof.set_block_profile_rate(0)


@pytest.fixture
def all_unlocks():
    """Every unlock that others waited for is noted."""
    assert gort.pprof.set_mutex_profile_fraction(1) == 0
    yield
    assert gort.pprof.set_mutex_profile_fraction(0) == 1


def profile(name):
    found = gort.pprof.lookup(name)
    assert found is not None
    return found


def of(name, function, leaf=None):
    """Events and seconds of the stacks with this function, and with this one at their inner end."""
    found = [
        values
        for stack, values, _ in read(written(profile(name))).of(function)
        if leaf is None or stack[0] == leaf
    ]
    return sum(v[0] for v in found), sum(v[1] for v in found) / 1e9


def held():
    m = gort.Mutex()
    m.lock()
    return m, m.unlock


def held_for_writing():
    m = gort.RWMutex()
    m.lock()
    return m, m.unlock


def group():
    w = gort.WaitGroup()
    w.add(1)
    return w, w.done


def taken():
    s = gort.Semaphore(1)
    s.acquire()
    return s, s.release


def goroutine():
    ch = gort.Chan()
    g = gort.go(ch.recv)

    def ends():
        ch.send(1)
        g.join()

    return g, ends


def chan():
    ch = gort.Chan()
    return ch, lambda: ch.close()


def sent():
    ch = gort.Chan()
    return ch, ch.recv


def lock_of_c():
    lock = threading.Lock()
    lock.acquire()
    return lock, lock.release


WAITS = {
    "gort.Chan.recv": (chan, lambda ch: ch.recv_ok()),
    "gort.Chan.send": (sent, lambda ch: ch.send(1)),
    "gort.select": (chan, lambda ch: gort.select(gort.recv(ch), gort.recv(gort.Chan()))),
    "gort.Mutex.lock": (held, lambda m: m.lock()),
    "gort.RWMutex.lock": (held_for_writing, lambda m: m.lock()),
    "gort.RWMutex.rlock": (held_for_writing, lambda m: m.rlock()),
    "gort.WaitGroup.wait": (group, lambda w: w.wait()),
    "gort.Semaphore.acquire": (taken, lambda s: s.acquire()),
    "gort.Goroutine.join": (goroutine, lambda g: g.join()),
    "gort.boundary.lock": (lock_of_c, lambda lock: lock.acquire()),
}


@pytest.mark.parametrize("leaf", WAITS)
def test_who_waits_is_charged_from_the_park_to_the_wake_up(leaf, all_blocks):
    make, wait = WAITS[leaf]
    thing, wake = make()
    before = of("block", "waits_for_it", leaf)

    def waits_for_it():
        wait(thing)

    begun = monotonic()
    g = waiter(waits_for_it)
    hold(LONG)  # time is the subject
    wake()
    woken = monotonic()
    hold(LONG)  # awake since, and no processor: that is not its waiting
    g.join()
    count, seconds = of("block", "waits_for_it", leaf)
    assert count - before[0] == 1
    assert LONG <= seconds - before[1] <= woken - begun + ROUND
    [(file, line)] = read(written(profile("block"))).lines[
        f"{__name__}.test_who_waits_is_charged_from_the_park_to_the_wake_up.<locals>.waits_for_it"
    ]
    assert file == __file__ and line > 0


def test_cond_and_waits_with_a_time_limit_are_in_it(all_blocks):
    m = gort.Mutex()
    c = gort.Cond(m)

    def waits_for_cond():
        with m:
            c.wait()

    def waits_in_vain():
        with pytest.raises(TimeoutError):
            gort.Chan().recv(timeout=LONG)

    g = waiter(waits_for_cond)
    hold(LONG)
    c.signal()
    g.join()
    gort.go(waits_in_vain).join()
    count, seconds = of("block", "waits_for_cond", "gort.Cond.wait")
    assert count == 1 and seconds >= LONG
    count, seconds = of("block", "waits_in_vain", "gort.Chan.recv")
    assert count == 1 and seconds >= LONG


def test_threads_that_are_no_goroutines_are_in_it(all_blocks):
    ch = gort.Chan()

    def thread_waits():
        return ch.recv()

    gort.go(lambda: (gort.sleep(LONG), ch.send(7)))
    with gort.threads.real():
        assert in_thread(thread_waits) == 7
    assert of("block", "thread_waits", "gort.Chan.recv")[0] == 1


def test_sleeps_are_not_in_it_nor_anything_while_it_is_off(all_blocks):
    def sleeps_only():
        gort.sleep(0.001)

    def waits_unseen(ch):
        ch.recv()

    gort.go(sleeps_only).join()
    gort.pprof.set_block_profile_rate(0)
    ch = gort.Chan()
    g = waiter(waits_unseen, ch)
    ch.send(1)
    g.join()
    assert of("block", "sleeps_only") == of("block", "waits_unseen") == (0, 0)
    gort.pprof.set_block_profile_rate(-5)
    assert gort._core._contention_rates(-1, -1)[0] == 0


def test_short_waits_are_chosen_by_their_length(all_blocks):
    """At a rate of an hour none of some that take a moment; by what weight others count the core tests."""

    def rarely_seen(ch):
        ch.recv()

    gort.pprof.set_block_profile_rate(3_600_000_000_000)
    ch = gort.Chan()
    for _ in range(100):
        g = waiter(rarely_seen, ch)
        ch.send(1)
        g.join()
    assert of("block", "rarely_seen") == (0, 0)


def unlocks_late(m, seconds):
    """Unlock after a while; when that began and was over."""
    hold(seconds)
    begun = monotonic()
    m.unlock()
    return begun, monotonic()


def test_who_unlocks_is_charged_with_all_who_waited(all_unlocks):
    m = gort.Mutex()
    m.lock()

    def locks_and_unlocks():
        with m:
            pass

    begun = monotonic()
    gs = [waiter(locks_and_unlocks) for _ in range(3)]
    unlocks, unlocked = unlocks_late(m, LONG)
    for g in gs:
        g.join()
    ended = monotonic()
    count, seconds = of("mutex", "unlocks_late", "gort.Mutex.unlock")
    assert count == 1
    assert 3 * LONG <= seconds <= 3 * (unlocked - begun) + ROUND
    # Those had it for a moment each, two waiting for the first and one for the second, and are charged with no more than that.
    assert of("mutex", "locks_and_unlocks")[1] <= 2 * (ended - unlocks) + ROUND
    assert of("mutex", "held") == (0, 0)


@pytest.mark.parametrize(
    ("lock", "unlock", "wait", "leaf"),
    [
        ("lock", "unlock", "lock", "gort.RWMutex.unlock"),
        ("lock", "unlock", "rlock", "gort.RWMutex.unlock"),
        ("rlock", "runlock", "lock", "gort.RWMutex.runlock"),
    ],
)
def test_readers_and_writers_are_charged(lock, unlock, wait, leaf, all_unlocks):
    before = of("mutex", "gives_back", leaf)
    m = gort.RWMutex()
    getattr(m, lock)()
    begun = monotonic()
    g = waiter(getattr(m, wait))

    def gives_back():
        hold(LONG)
        getattr(m, unlock)()
        return monotonic()

    unlocked = gort.go(gives_back).join()
    g.join()
    count, seconds = of("mutex", "gives_back", leaf)
    assert count - before[0] == 1
    assert LONG <= seconds - before[1] <= unlocked - begun + ROUND


def test_those_who_give_up_leave_nothing_behind(all_unlocks):
    m, r = gort.Mutex(), gort.RWMutex()
    m.lock()
    r.rlock()

    def unlocks_for_nobody():
        m.unlock()
        r.runlock()

    for wait in (m.lock, r.lock):
        with pytest.raises(TimeoutError):
            wait(timeout=0.001)
    unlocks_for_nobody()
    assert of("mutex", "unlocks_for_nobody") == (0, 0)
    r.rlock()
    writer = gort.go(lambda: pytest.raises(TimeoutError, r.lock, timeout=0.01))
    parked(writer)
    reader = waiter(r.rlock)  # behind the writer, who lets it go by giving up
    writer.join()
    reader.join()
    m.lock()
    begun = monotonic()
    g = waiter(m.lock)
    unlocks_for_nobody()
    unlocked = monotonic()
    g.join()
    assert of("mutex", "unlocks_for_nobody", "gort.Mutex.unlock")[0] == 1
    assert of("mutex", "unlocks_for_nobody")[1] <= unlocked - begun + ROUND


def test_a_fraction_stands_for_all():
    def unlocks_often(m, n):
        for _ in range(n):
            m.lock()
            g = waiter(m.lock)
            m.unlock()
            g.join()
            m.unlock()

    gort.pprof.set_mutex_profile_fraction(7)
    try:
        unlocks_often(gort.Mutex(), 400)
    finally:
        assert gort.pprof.set_mutex_profile_fraction(0) == 7
    count, _ = of("mutex", "unlocks_often", "gort.Mutex.unlock")
    assert count % 7 == 0 and 100 < count < 1600


def test_profile_that_begins_or_ends_while_somebody_waits():
    m = gort.Mutex()

    def unlocks_it():
        m.unlock()

    for first, then in ((0, 1), (1, 0)):
        gort.pprof.set_mutex_profile_fraction(first)
        m.lock()
        g = waiter(m.lock)
        gort.pprof.set_mutex_profile_fraction(then)
        unlocks_it()
        g.join()
        m.unlock()
    gort.pprof.set_mutex_profile_fraction(0)
    assert of("mutex", "unlocks_it") == (0, 0)


def test_kinds_and_texts_are_gos(all_blocks, all_unlocks):
    m = gort.Mutex()
    m.lock()
    g = waiter(m.lock)
    unlocks_late(m, 0.001)
    g.join()
    for name, head in (
        ("block", "--- contention:\ncycles/second=1000000000\n"),
        ("mutex", "--- mutex:\ncycles/second=1000000000\nsampling period=1\n"),
    ):
        found = read(written(profile(name)))
        assert found.kinds == KINDS and found.period == (("contentions", "count"), 1)
        assert found.default == "" and profile(name).count() == len(found.samples)
        text = written(profile(name), debug=1).decode()
        assert text.startswith(head)
        ordered = [int(ns) for ns in re.findall(r"^(\d+) \d+ @(?: 0x[0-9a-f]+)+$", text, re.M)]
        assert len(ordered) == len(found.samples) and ordered == sorted(ordered, reverse=True)
    assert re.search(
        r"#\t0x1000\t+gort\.Mutex\.unlock\+0x0\t+gort:0\n"
        rf"#\t0x[0-9a-f]+\t+{__name__}\.unlocks_late\+0x",
        text,
    )


def test_bad_rates_are_told():
    for function in (gort.pprof.set_block_profile_rate, gort.pprof.set_mutex_profile_fraction):
        with pytest.raises(TypeError, match=rf"{function.__name__}\(\) needs an int, not str"):
            function("1")
    gort.pprof.set_block_profile_rate(1 << 70)
    assert gort._core._contention_rates(0, -1)[0] == (1 << 63) - 1


def test_an_exception_that_is_being_handled_stays(all_blocks):
    """A wait inside of a destructor or an except block."""
    ch = gort.Chan()
    gort.go(ch.send, 1)
    try:
        raise KeyError("mine")
    except KeyError as error:
        assert ch.recv() == 1
        assert error.args == ("mine",)


def test_forked_child_goes_on():
    check(
        """
        import gort, gort.pprof, os
        from test_pprof_contention import of, waiter
        gort.pprof.set_mutex_profile_fraction(1)
        gort.pprof.set_block_profile_rate(1)
        m = gort.Mutex()
        def main():
            m.lock()
            g = waiter(m.lock)  # not in the child
            pid = os.fork()
            if pid == 0:
                def unlocks_in_child(): m.unlock()
                unlocks_in_child()
                assert of("mutex", "unlocks_in_child")[0] == 0
                m.lock()
                g = waiter(m.lock)
                unlocks_in_child()
                g.join()
                assert of("mutex", "unlocks_in_child")[0] == 1
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            m.unlock()
            g.join()
            print("ok")
        gort.run(main)
        """,
        "ok",
        PYTHONWARNINGS="ignore::DeprecationWarning",  # 3.12 and later on fork beside threads
    )


@pytest.mark.timeout(300)
def test_go_tool_pprof_reads_them(all_blocks, all_unlocks, tmp_path):
    m = gort.Mutex()
    m.lock()
    g = waiter(m.lock)
    unlocks_late(m, 0.01)
    g.join()
    for name, function in (("block", "gort.Mutex.lock"), ("mutex", "unlocks_late")):
        file = tmp_path / name
        file.write_bytes(written(profile(name)))
        text = pprof("-top", "-cum", file, tmp_path=tmp_path)
        assert "Type: delay" in text and function in text
        raw = pprof("-raw", file, tmp_path=tmp_path)
        assert "contentions/count delay/nanoseconds" in raw
        assert function in pprof("-traces", "-sample_index=contentions", file, tmp_path=tmp_path)
        copy = tmp_path / "copy"
        pprof("-proto", f"-output={copy}", file, tmp_path=tmp_path)
        assert sorted(read(copy.read_bytes()).samples) == sorted(read(file.read_bytes()).samples)
