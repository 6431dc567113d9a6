"""SEMANTICS 1.1, rows C1 to C13: channels."""

from __future__ import annotations

import gc
import weakref

import gort
import pytest
from gort import Chan, ChanClosed, go, recv, select, send
from waiting import LIMIT, eventually, join_all, parked, raises_text, settle

# C1: Python has no nil channel to call methods on; None stands for it in select only.


def test_c1_nil_channel_in_select_never_ready():
    assert select(recv(None), default=True) == (-1, None, False)
    assert select(send(None, 1), default=True)[0] == -1
    assert select(recv(None), send(None, 1), timeout=0.005)[0] == -2


def test_c1_nil_channel_alone_blocks_for_ever():
    gs = [go(select, recv(None)), go(select, send(None, 1))]
    parked(*gs)
    settle()
    assert not any(g.done for g in gs)


def test_c1_nil_channel_waits_with_gos_words():
    gs = [go(select, recv(None)), go(select, send(None, 1))]
    parked(*gs)
    assert [g.status for g in gs] == ["chan receive (nil chan)", "chan send (nil chan)"]


# C2: close(nil) is TypeError/AttributeError of Python (see test_bad_input).


def test_c2_close_twice():
    ch = Chan()
    ch.close()
    with raises_text(ChanClosed, "close of closed channel"):
        ch.close()


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_c2_send_on_closed(cap, anywhere):
    ch = Chan(cap)
    ch.close()

    def body():
        with raises_text(ChanClosed, "send on closed channel"):
            ch.send(1)
        with raises_text(ChanClosed, "send on closed channel"):
            ch.try_send(1)
        with raises_text(ChanClosed, "send on closed channel"):
            ch.send(1, timeout=0)

    anywhere(body)


def test_c3_blocked_sender_gets_chan_closed_and_its_value_is_dropped():
    ch = Chan(2)
    ch.send(1)
    ch.send(2)
    g = go(ch.send, 3)
    s = go(select, send(ch, 4), recv(None))
    parked(g, s)
    ch.close()
    for x in (g, s):
        with raises_text(ChanClosed, "send on closed channel"):
            x.join(timeout=LIMIT)
    assert [ch.recv(), ch.recv()] == [1, 2]
    assert ch.recv_ok() == (None, False)


def test_c3_unbuffered_blocked_senders_all_get_chan_closed():
    ch = Chan()
    gs = [go(ch.send, i) for i in range(10)]
    parked(*gs)
    ch.close()
    for g in gs:
        with pytest.raises(ChanClosed):
            g.join(timeout=LIMIT)
    assert ch.recv_ok() == (None, False)


def test_c4_closed_drains_in_order_then_reports_for_ever(anywhere):
    ch = Chan(5)
    for i in range(5):
        ch.send(i)
    ch.close()

    def body():
        assert [ch.recv_ok() for _ in range(5)] == [(i, True) for i in range(5)]
        for _ in range(3):
            assert ch.recv_ok() == (None, False)
            assert ch.try_recv() == (None, False, True)
            with pytest.raises(ChanClosed):
                ch.recv()
            with pytest.raises(ChanClosed):
                ch.recv(timeout=0)
            assert select(recv(ch), default=True) == (0, None, False)

    anywhere(body)


def test_c4_close_wakes_blocked_receivers():
    ch = Chan()
    a, b = go(ch.recv_ok), go(select, recv(ch))
    parked(a, b)
    ch.close()
    assert a.join(timeout=LIMIT) == (None, False)
    assert b.join(timeout=LIMIT) == (0, None, False)


# C5: see test_bad_input, impossible sizes.


def test_c6_len_and_cap():
    ch = Chan(3)
    assert (len(ch), ch.cap, ch.closed) == (0, 3, False)
    ch.send(1)
    ch.send(2)
    assert (len(ch), ch.cap) == (2, 3)
    ch.close()
    assert (len(ch), ch.cap, ch.closed) == (2, 3, True)
    assert Chan().cap == 0


def test_c6_blocked_sender_is_not_counted():
    ch, full = Chan(), Chan(1)
    full.send(0)
    gs = [go(ch.send, 1), go(full.send, 1)]
    parked(*gs)
    assert (len(ch), len(full)) == (0, 1)


def test_c6_empty_channel_is_true():
    assert bool(Chan()) and bool(Chan(3))


def test_c7_unbuffered_is_a_rendezvous():
    ch = Chan()
    log = []

    def sender():
        ch.send("v")
        log.append("sent")

    g = go(sender)
    parked(g)
    assert log == []
    assert ch.recv(timeout=LIMIT) == "v"
    g.join(timeout=LIMIT)
    assert log == ["sent"]


def test_c7_value_is_the_same_object():
    ch = Chan()
    thing = object()
    g = go(ch.recv)
    ch.send(thing, timeout=LIMIT)
    assert g.join(timeout=LIMIT) is thing


def test_c8_full_buffer_with_queued_senders_stays_fifo():
    ch = Chan(2)
    ch.send(0)
    ch.send(1)
    gs = []
    for i in (2, 3, 4):
        gs.append(go(ch.send, i))
        parked(gs[-1])
    assert ch.recv() == 0
    assert len(ch) == 2
    assert [ch.recv(timeout=LIMIT) for _ in range(4)] == [1, 2, 3, 4]
    join_all(gs)


@pytest.mark.parametrize("cap", [0, 1])
def test_c9_blocked_senders_are_served_fifo(cap):
    ch = Chan(cap)
    for i in range(cap):
        ch.send(i)
    gs = []
    for i in range(cap, 20):
        gs.append(go(ch.send, i))
        parked(gs[-1])
    assert [ch.recv(timeout=LIMIT) for _ in range(20)] == list(range(20))
    join_all(gs)


def test_c9_blocked_receivers_are_served_fifo():
    ch = Chan()
    gs = []
    for _ in range(20):
        gs.append(go(ch.recv))
        parked(gs[-1])
    for i in range(20):
        ch.send(i, timeout=LIMIT)
    assert join_all(gs) == list(range(20))


def test_c9_timed_out_waiter_leaves_the_queue():
    ch = Chan()
    with pytest.raises(TimeoutError):
        ch.recv(timeout=0.005)
    assert ch.try_send(1) is False
    with pytest.raises(TimeoutError):
        ch.send(1, timeout=0.005)
    assert ch.try_recv() == (None, False, False)


# C10: the order in which close() wakes waiters is promised by neither Go nor gort.


def test_c11_range_ends_at_close(anywhere):
    def body():
        ch = Chan(2)

        def producer():
            for i in range(10):
                ch.send(i)
            ch.close()

        go(producer)
        return list(ch)

    assert anywhere(body) == list(range(10))


def test_c11_range_parks_between_values():
    ch = Chan()
    g = go(list, ch)
    parked(g)
    ch.send(1, timeout=LIMIT)
    parked(g)
    ch.close()
    assert g.join(timeout=LIMIT) == [1]


def test_c11_range_over_a_silent_channel_waits():
    g = go(list, Chan())
    parked(g)
    settle()
    assert not g.done


# C11 over nil: None has no iterator in Python.
# C12: Go's compiler checks directions; here the one-way views refuse when used (see test_views).
# C13: Python evaluates call arguments once, left to right, before select() is entered.


def test_c13_arguments_evaluated_once_in_order():
    log = []

    def note(x):
        log.append(x)
        return x

    a, b = Chan(1), Chan(1)
    names = {id(a): "a", id(b): "b"}

    def ch(c):
        log.append(names[id(c)])
        return c

    select(send(ch(a), note(1)), send(ch(b), note(2)), recv(None), default=True)
    assert log == ["a", 1, "b", 2]


# beyond the table


@pytest.mark.parametrize(
    "value", [None, 0, False, (), [], "x", object(), float("nan"), ValueError("as data"), KeyError]
)
@pytest.mark.parametrize("cap", [0, 1])
def test_any_value_travels_unchanged(value, cap):
    ch = Chan(cap)
    go(ch.send, value)
    assert ch.recv(timeout=LIMIT) is value


def test_try_ops():
    ch = Chan(1)
    assert ch.try_recv() == (None, False, False)
    assert ch.try_send(1) is True
    assert ch.try_send(2) is False
    assert ch.try_recv() == (1, True, True)


def test_try_ops_meet_parked_partners():
    ch = Chan()
    r = go(ch.recv)
    parked(r)
    assert ch.try_send("a") is True
    assert r.join(timeout=LIMIT) == "a"
    s = go(ch.send, "b")
    parked(s)
    assert ch.try_recv() == ("b", True, True)
    s.join(timeout=LIMIT)


@pytest.mark.parametrize("timeout", [0, 0.0, 0.003])
def test_timeouts_raise_timeout_error(timeout, anywhere):
    ch = Chan()

    def body():
        for op in (
            lambda: ch.recv(timeout=timeout),
            lambda: ch.send(1, timeout=timeout),
            lambda: ch.recv_ok(timeout=timeout),
        ):
            with pytest.raises(TimeoutError):
                op()

    anywhere(body)
    assert ch.try_send(0) is False
    assert ch.try_recv()[2] is False


def test_timeout_none_and_positional():
    ch = Chan(1)
    ch.send(1, None)
    assert ch.recv(None) == 1
    with pytest.raises(TimeoutError):
        ch.recv(0.001)


def test_values_are_released():
    class Thing:
        pass

    ch = Chan(2)
    thing = Thing()
    r = weakref.ref(thing)
    ch.send(thing)
    del thing
    assert r() is not None
    ch.recv()
    assert r() is None
    thing = Thing()
    r = weakref.ref(thing)
    ch.send(thing)
    del thing, ch
    gc.collect()
    assert r() is None


def test_value_of_cancelled_sender_is_released():
    class Thing:
        pass

    ch = Chan()
    thing = Thing()
    r = weakref.ref(thing)
    g = go(ch.send, thing)
    del thing
    parked(g)
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    del g
    eventually(lambda: gc.collect() >= 0 and r() is None)


def test_generic_subscription():
    ch = Chan[int](2)
    assert isinstance(ch, Chan) and ch.cap == 2


def test_no_value_lost_or_doubled_many_to_many():
    ch = Chan(7)
    n, each = 20, 500
    senders = [go(lambda k=k: [ch.send(k * each + i) for i in range(each)]) for k in range(n)]
    receivers = [go(lambda: list(ch)) for _ in range(n)]
    join_all(senders)
    ch.close()
    got = [v for part in join_all(receivers) for v in part]
    assert sorted(got) == list(range(n * each))


def test_timeouts_racing_with_sends_lose_nothing():
    ch = Chan()
    total = 500
    got = []

    def receiver():
        while len(got) < total:
            try:
                got.append(ch.recv(timeout=0.0005))
            except TimeoutError:
                pass

    g = go(receiver)
    for i in range(total):
        while True:
            try:
                ch.send(i, timeout=0.0005)
                break
            except TimeoutError:
                pass
    g.join(timeout=LIMIT)
    assert got == list(range(total))
