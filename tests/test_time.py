"""gort.time: timers and tickers by the rules of Go 1.23, and that they are no goroutines."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import textwrap
import threading
import time

import gort
import pytest
from gort import Chan, Ticker, Timer, after, after_func, go, recv, select, tick
from waiting import LIMIT, eventually, parked, raises_text, settle

MS = 0.001
HOUR = 3600.0


def timers():
    """How many timers are set."""
    return gort.stats()["timers"]


def pass_by(seconds):
    """Let a time-out of this length go by, set after whatever the test set."""
    gort.sleep(seconds)


@pytest.fixture(autouse=True)
def no_timer_left():
    """Whatever a test sets is gone with its objects."""
    gc.collect()
    before = timers()
    yield
    gc.collect()
    assert timers() <= before


# Timer


def test_timer_sends_the_time_once(anywhere):
    def body():
        start = time.time()
        timer = Timer(2 * MS)
        got = timer.c.recv(timeout=LIMIT)
        assert isinstance(got, float) and start + 1 * MS < got < time.time() + 1
        assert timer.c.try_recv() == (None, False, False)
        assert timer.stop() is False

    anywhere(body)


@pytest.mark.parametrize("seconds", [0, -1, -0.5, -math.inf, -(10**400)])
def test_timer_of_zero_or_less_fires_at_once(anywhere, seconds):
    assert anywhere(lambda: Timer(seconds).c.recv(timeout=LIMIT)) > 0
    assert anywhere(lambda: after(seconds).recv(timeout=LIMIT)) > 0


@pytest.mark.parametrize("seconds", [1e300, math.inf, 10**400, HOUR])
def test_timer_of_for_ever_does_not_fire(seconds):
    timer = Timer(seconds)
    pass_by(MS)
    assert len(timer.c) == 0 and timer.stop() is True


def test_timer_channel_looks_unbuffered_and_is_receive_only():
    timer = Timer(0)
    pass_by(MS)
    assert (len(timer.c), timer.c.cap) == (0, 0)
    assert timer.c == timer.c and timer.c != Timer(0).c
    for refused in (lambda: timer.c.send(1.0), lambda: timer.c.try_send(1.0), timer.c.close):
        with pytest.raises(TypeError):
            refused()
    assert timer.c.recv(timeout=LIMIT) > 0


def test_timers_fire_in_order_of_their_deadlines_whatever_the_order_of_their_setting():
    set_ = []
    for ms in (9, 3, 7, 1, 5, 8, 2, 6, 4):
        earliest = time.monotonic() + ms * MS
        timer = Timer(ms * MS)
        set_.append((earliest, time.monotonic() + ms * MS, timer))
    fired = [(*when, timer.c.recv(timeout=LIMIT)) for *when, timer in set_]
    for _, latest, at in fired:
        for earliest, _, later in fired:
            assert at <= later or latest >= earliest


def test_timer_stop_before_and_after_it_fired():
    timer = Timer(HOUR)
    assert timer.stop() is True and timer.stop() is False
    timer = Timer(0)
    pass_by(MS)
    assert timer.stop() is True  # its time was up, but nobody will receive it
    assert timer.stop() is False
    pass_by(MS)
    assert timer.c.try_recv() == (None, False, False)


def test_timer_reset_says_whether_it_was_active_and_leaves_no_stale_value():
    timer = Timer(HOUR)
    assert timer.reset(0) is True
    pass_by(MS)
    mark = time.time()
    assert timer.reset(seconds=2 * MS) is True  # unread
    assert timer.c.recv(timeout=LIMIT) > mark
    assert timer.reset(HOUR) is False  # received
    pass_by(MS)
    assert timer.c.try_recv() == (None, False, False)
    assert timer.reset(HOUR) is True and timer.stop() is True and timer.reset(0) is False
    assert timer.c.recv(timeout=LIMIT) > mark


def test_timer_whose_time_is_up_is_seen_by_a_look_without_waiting():
    timer = Timer(MS)
    end = time.monotonic() + LIMIT
    while not (got := timer.c.try_recv())[2]:  # never parks, so nothing else schedules
        assert time.monotonic() < end
    assert got[0] > 0
    timer.reset(MS)
    while select(recv(timer.c), default=True)[0] == -1:
        assert time.monotonic() < end


def test_timer_reset_to_earlier_and_later_while_somebody_waits(anywhere):
    def body():
        timer = Timer(HOUR)
        g = go(timer.c.recv)
        parked(g)
        assert timer.reset(2 * HOUR) and timer.reset(MS)
        assert g.join(timeout=LIMIT) > 0

    anywhere(body)


def test_timer_is_no_goroutine_and_costs_no_thread():
    before, threads = gort.num_goroutine(), threading.active_count()
    kept = [Timer(HOUR) for _ in range(1000)] + [after_func(HOUR, print) for _ in range(1000)]
    assert gort.num_goroutine() == before and threading.active_count() == threads
    assert timers() >= 2000
    assert all(t.stop() for t in kept) and not any(t.stop() for t in kept)


def test_many_timers_all_fire_once():
    wg, order = gort.WaitGroup(), []
    wg.add(2000)

    def fire(i):
        order.append(i)
        wg.done()

    kept = [after_func((i % 7) * MS, fire, i) for i in range(2000)]
    wg.wait(timeout=LIMIT)
    assert sorted(order) == list(range(2000)) and not any(t.stop() for t in kept)


def test_earlier_timer_of_a_plain_thread_wakes_the_sleeping_scheduler():
    late = Timer(HOUR)
    gate = Chan()

    def thread():
        eventually(lambda: g.status == "chan receive")
        after_func(MS, gate.send, "early")

    g = go(gate.recv)
    t = threading.Thread(target=thread)
    t.start()
    assert g.join(timeout=LIMIT) == "early"
    t.join()
    assert late.stop() is True


def test_timer_fires_while_the_main_thread_sits_in_a_blocking_call():
    fired = threading.Event()
    timer = after_func(2 * MS, fired.set)
    assert fired.wait(LIMIT)
    assert timer.stop() is False


# Durations


@pytest.mark.parametrize(
    "make",
    [
        Timer,
        Ticker,
        after,
        lambda *a: Timer(HOUR).reset(*a),
        lambda *a: Ticker(HOUR).reset(*a),
        lambda s: after_func(s, print),
    ],
)
def test_durations_must_be_numbers(make):
    for bad in ("1", None, [], True, 1j):
        with raises_text(TypeError, "must be a number of seconds"):
            make(bad)
    with raises_text(ValueError, "must not be nan"):
        make(math.nan)
    for count in ((), (1, 2)):
        with pytest.raises(TypeError):
            make(*count)


# Ticker


def test_ticker_ticks_until_stopped_and_does_not_close(anywhere):
    def body():
        ticker = Ticker(MS)
        ticks = [ticker.c.recv(timeout=LIMIT) for _ in range(5)]
        assert ticks == sorted(set(ticks))
        ticker.stop()
        ticker.stop()
        assert ticker.c.try_recv() == (None, False, False) and not ticker.c.closed
        with pytest.raises(TimeoutError):
            ticker.c.recv(timeout=3 * MS)

    anywhere(body)


def test_ticker_of_next_to_nothing_leaves_the_gil_to_a_blocking_call():
    assert (
        child("""
        import gort, time
        ticker = gort.Ticker(1e-9)
        ticker.c.recv()
        time.sleep(0.05)  # the scheduler looks for work meanwhile, and ticks are always due
        ticker.c.recv()
        print("on")
    """)
        == "on\n"
    )


def test_ticker_with_a_slow_reader_keeps_one_tick():
    ticker = Ticker(MS)
    pass_by(10 * MS)
    assert (len(ticker.c), ticker.c.cap) == (0, 0)
    ready = [ticker.c.try_recv()[2]]
    ticker.stop()
    assert ready == [True] and ticker.c.try_recv()[2] is False


def test_ticker_reset_changes_the_period_and_drops_the_unread_tick():
    ticker = Ticker(MS)
    pass_by(3 * MS)
    ticker.reset(HOUR)
    pass_by(3 * MS)
    assert ticker.c.try_recv() == (None, False, False)
    mark = time.time()
    ticker.reset(seconds=MS)
    assert mark < ticker.c.recv(timeout=LIMIT) < ticker.c.recv(timeout=LIMIT)
    ticker.stop()
    ticker.reset(MS)  # starts it again
    assert ticker.c.recv(timeout=LIMIT) > mark


@pytest.mark.parametrize("seconds", [0, -1, -math.inf])
def test_ticker_period_must_be_positive_and_tick_gives_none(seconds):
    with raises_text(ValueError, "non-positive interval for NewTicker"):
        Ticker(seconds)
    with raises_text(ValueError, "non-positive interval for Ticker.Reset"):
        Ticker(HOUR).reset(seconds)
    assert tick(seconds) is None


def test_tick_and_iteration():
    got = []
    for now in tick(MS):
        got.append(now)
        if len(got) == 3:
            break
    assert got == sorted(set(got))


# after, after_func


def test_after_in_select_is_the_time_out(anywhere):
    assert anywhere(lambda: select(recv(Chan()), recv(after(MS)))[::2]) == (1, True)


def test_after_func_runs_in_a_goroutine_of_its_own(anywhere):
    out = Chan(1)

    def fn(a, b=None):
        out.send((a, b, gort.current() is not None))

    def body():
        caller = gort.current()
        timer = after_func(MS, fn, 1, b=2)
        assert timer.c is None
        assert out.recv(timeout=LIMIT) == (1, 2, True) and gort.current() is caller
        assert timer.stop() is False
        assert timer.reset(0) is False  # runs it once more
        assert out.recv(timeout=LIMIT) == (1, 2, True)

    anywhere(body)


def test_after_func_stop_prevents_the_call_and_does_not_wait_for_it():
    calls, gate = [], Chan()
    timer = after_func(HOUR, calls.append, 1)
    assert timer.reset(HOUR) is True and timer.stop() is True and timer.stop() is False
    running = after_func(0, lambda: (calls.append(2), gate.recv()))
    eventually(lambda: calls)
    assert running.stop() is False  # and returns though the function has not
    gate.send(None)
    settle()
    assert calls == [2]
    with pytest.raises(TypeError):
        after_func(0, None)


def test_after_func_fires_although_its_timer_is_dropped():
    out = Chan(1)
    after_func(2 * MS, out.send, "fired")
    gc.collect()
    assert out.recv(timeout=LIMIT) == "fired"


def test_after_func_whose_function_raises_is_reported_once(reports):
    def fail():
        raise ValueError("late")

    timer = after_func(0, fail)
    eventually(lambda: reports)
    settle()
    del timer
    gc.collect()
    assert [str(r.exc_value) for r in reports] == ["late"]


def test_after_func_function_with_a_finalizer_is_let_go_where_python_may_run():
    gone = Chan(3)

    class Fn:
        def __call__(self):
            gone.send("called")

        def __del__(self):
            gort.gosched()
            gone.send("gone")

    after_func(MS, Fn())
    assert [gone.recv(timeout=LIMIT) for _ in range(2)] == ["called", "gone"]
    timer = after_func(HOUR, Fn())
    timer.stop()
    del timer
    gc.collect()
    assert gone.recv(timeout=LIMIT) == "gone"


# Collection and deadlock


@pytest.mark.parametrize(
    "make",
    [
        lambda: Timer(HOUR),
        lambda: Ticker(HOUR),
        lambda: after(HOUR),
        lambda: tick(HOUR),
        lambda: Timer(HOUR).c,
        lambda: Ticker(MS),
    ],
)
def test_unreferenced_timer_is_collected_without_stop(make):
    before = timers()
    kept = [make() for _ in range(10)]
    assert 10 <= timers() <= before + 10  # one of before may have fired meanwhile
    kept.append(kept)  # a cycle
    del kept
    gc.collect()
    assert timers() <= before


def test_timer_lives_as_long_as_somebody_waits_for_it():
    g = go(lambda: after(5 * MS).recv())
    h = go(lambda: select(recv(after(5 * MS)))[2])
    gc.collect()
    assert g.join(timeout=LIMIT) > 0 and h.join(timeout=LIMIT) is True


def child(source):
    """Run a program; its output."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_timer_that_is_set_means_no_deadlock():
    text = child("""
        import gort
        gate = gort.Chan()
        gort.after_func(0.2, gate.send, "in time")  # several looks of the deadlock detector
        print(gate.recv())
        print(gort.after(0.1).recv() > 0)
        t = gort.Timer(0.1)
        print(gort.go(t.c.recv).join() > 0)
    """)
    assert text.split("\n") == ["in time", "True", "True", ""]


def test_timer_that_was_dropped_does_not_hide_a_deadlock():
    text = child("""
        import gort
        ticker, timer = gort.Ticker(0.001), gort.Timer(3600)
        ticker.c.recv()
        stopped = gort.after_func(3600, print)
        stopped.stop()
        del ticker, timer
        try:
            gort.Chan().recv()
        except gort.DeadlockError:
            print("deadlock")
    """)
    assert text == "deadlock\n"


def test_program_ends_with_timers_set():
    assert child("""
        import gort, threading
        keep = [gort.Ticker(0.001), gort.Timer(3600), gort.after_func(3600, print), gort.tick(0.001)]
        keep[0].c.recv()
        gort.after_func(0.001, print)
        threading.Thread(target=lambda: gort.Timer(0.001).c.recv()).start()
        print("end")
    """) in ("end\n", "\nend\n", "end\n\n")
