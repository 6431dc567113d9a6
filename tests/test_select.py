"""SEMANTICS 1.1, rows S1 to S8: select."""

from __future__ import annotations

import gc
import sys
import weakref

import gort
import pytest
from gort import Chan, ChanClosed, go, recv, select, send
from waiting import LIMIT, eventually, in_goroutine, join_all, parked, raises_text, settle


def chi_square(counts, weights):
    total, w = sum(counts), sum(weights)
    return sum((c - total * x / w) ** 2 / (total * x / w) for c, x in zip(counts, weights))


def test_s1_uniform_among_ready(anywhere):
    def body():
        chans = [Chan(1) for _ in range(4)]
        for c in chans:
            c.send(0)
        counts = [0] * 4
        for _ in range(20_000):
            i, _, ok = select(*[recv(c) for c in chans])
            assert ok
            counts[i] += 1
            chans[i].send(0)
        return counts

    # chi-square with 3 degrees of freedom: 30 is passed with probability 1e-6
    assert chi_square(anywhere(body), [1] * 4) < 30


def test_s1_uniform_for_sends():
    chans = [Chan(1) for _ in range(3)]
    counts = [0] * 3
    for _ in range(15_000):
        i = select(*[send(c, 1) for c in chans])[0]
        counts[i] += 1
        chans[i].recv()
    assert chi_square(counts, [1] * 3) < 30


def test_s1_case_listed_twice_counts_twice():
    a, b = Chan(1), Chan(1)
    a.send(0)
    b.send(0)
    counts = [0, 0]
    for _ in range(15_000):
        i = select(recv(a), recv(b), recv(a))[0]
        which = 1 if i == 1 else 0
        counts[which] += 1
        (a, b)[which].send(0)
    assert chi_square(counts, [2, 1]) < 30


def test_s1_closed_channels_also_chosen_uniformly():
    a, b = Chan(), Chan()
    a.close()
    b.close()
    counts = [0, 0]
    for _ in range(5000):
        counts[select(recv(a), recv(b))[0]] += 1
    assert chi_square(counts, [1, 1]) < 30


def test_s2_select_is_atomic():
    # Go's TestNonblockSelectRace: at every moment one of the two is ready, so default never runs.
    for _ in range(500):
        c1, c2 = Chan(1), Chan(1)
        c1.send(1)
        g = go(lambda c1=c1, c2=c2: select(recv(c1), recv(c2), default=True)[0])
        c2.send(1)
        select(recv(c1), default=True)
        assert g.join(timeout=LIMIT) != -1


def test_s2_default_only_if_none_ready():
    a, b = Chan(1), Chan(1)
    assert select(recv(a), recv(b), default=True) == (-1, None, False)
    b.send(5)
    assert select(recv(a), recv(b), default=True) == (1, 5, True)


def test_s3_nil_cases_are_skipped_and_keep_their_index():
    ch = Chan(1)
    ch.send("x")
    assert select(recv(None), send(None, 0), recv(ch)) == (2, "x", True)


def test_s3_all_nil_blocks_for_ever():
    g = go(select, recv(None), send(None, 1))
    parked(g)
    settle()
    assert not g.done


def test_s3_empty_select_blocks_for_ever():
    g = go(select)
    parked(g)
    settle()
    assert not g.done


def test_s3_reasons_are_gos():
    a, b, c = (
        go(select),
        go(select, recv(None), send(None, 1)),
        go(select, recv(Chan()), recv(Chan())),
    )
    d = go(select, recv(Chan()))
    parked(a, b, c, d)
    assert [g.status for g in (a, b, c, d)] == [
        "select (no cases)",
        "select",
        "select",
        "chan receive",
    ]


def test_s3_empty_select_with_default_or_timeout_returns():
    assert select(default=True)[0] == -1
    assert select(timeout=0.002)[0] == -2


def test_s4_never_receives_its_own_unbuffered_send():
    ch = Chan()
    g = go(select, send(ch, 1), recv(ch))
    parked(g)
    settle()
    assert not g.done
    assert ch.recv(timeout=LIMIT) == 1
    assert g.join(timeout=LIMIT)[0] == 0


def test_s4_self_select_between_two_goroutines():
    ch = Chan()

    def body(me):
        for _ in range(500):
            i, v, _ = select(send(ch, me), recv(ch))
            assert not (i == 1 and v == me), "self receive"

    join_all([go(body, 0), go(body, 1)])


def test_s4_self_select_buffered():
    ch = Chan(10)

    def body(me):
        for _ in range(500):
            select(send(ch, me), recv(ch))

    join_all([go(body, 0), go(body, 1)])


def test_s5_send_on_closed_raises_even_beside_default():
    ch = Chan(1)
    ch.close()
    with raises_text(ChanClosed, "send on closed channel"):
        select(send(ch, 1))
    with raises_text(ChanClosed, "send on closed channel"):
        select(send(ch, 1), default=True)
    with raises_text(ChanClosed, "send on closed channel"):
        select(send(ch, 1), timeout=0.1)


def test_s6_losing_cases_are_dequeued():
    a, b = Chan(), Chan()
    for _ in range(200):
        g = go(select, recv(a), recv(b), recv(a))
        parked(g)
        b.send(7, timeout=LIMIT)
        assert g.join(timeout=LIMIT) == (1, 7, True)
    assert a.try_send(1) is False
    assert b.try_send(1) is False


def test_s6_losing_send_cases_are_dequeued():
    a, b = Chan(), Chan()
    g = go(select, send(a, 1), send(b, 2), send(a, 3))
    parked(g)
    assert b.recv(timeout=LIMIT) == 2
    assert g.join(timeout=LIMIT)[0] == 1
    assert a.try_recv() == (None, False, False)


def test_s6_timeout_and_cancel_leave_no_waiter():
    a, b = Chan(), Chan()
    assert select(recv(a), send(b, 1), timeout=0.003)[0] == -2
    g = go(select, recv(a), send(b, 1))
    parked(g)
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    assert a.try_send(0) is False
    assert b.try_recv()[2] is False


@pytest.mark.parametrize("n", [1, 2, 17, 1000])
def test_s7_many_cases(n):
    chans = [Chan() for _ in range(n)]
    g = go(select, *[recv(c) for c in chans])
    parked(g)
    chans[-1].send("last", timeout=LIMIT)
    assert g.join(timeout=LIMIT) == (n - 1, "last", True)


def test_s7_limit_of_65536_cases():
    with pytest.raises(ValueError):
        select(*([recv(None)] * 65_537), default=True)
    assert select(*([recv(None)] * 65_536), default=True)[0] == -1


# S8: the fast paths are not visible; each shape is exercised here.


def test_s8_one_case_is_a_plain_operation():
    ch = Chan(1)
    assert select(send(ch, 4))[0] == 0
    assert select(recv(ch)) == (0, 4, True)


def test_s8_one_case_and_default_is_a_try():
    ch = Chan(1)
    assert select(recv(ch), default=True)[0] == -1
    assert select(send(ch, 4), default=True)[0] == 0
    assert select(send(ch, 5), default=True)[0] == -1
    assert select(recv(ch), default=True) == (0, 4, True)


# beyond the table


def test_select_result_of_a_send_case():
    i, v, _ = select(send(Chan(1), 9))
    assert (i, v) == (0, None)


def test_select_blocks_until_ready(anywhere):
    def body():
        a, b = Chan(), Chan()

        def later():
            gort.sleep(0.005)
            b.send("late")

        go(later)
        return select(recv(a), recv(b), timeout=LIMIT)

    assert anywhere(body) == (1, "late", True)


def test_select_timeout_zero_polls():
    ch = Chan(1)
    assert select(recv(ch), timeout=0)[0] == -2
    ch.send(3)
    assert select(recv(ch), timeout=0) == (0, 3, True)


def test_select_on_close_while_parked():
    a, b = Chan(), Chan()
    g = go(select, recv(a), recv(b))
    parked(g)
    b.close()
    assert g.join(timeout=LIMIT) == (1, None, False)


def test_select_case_can_be_used_again():
    ch = Chan(1)
    r, s = recv(ch), send(ch, "again")
    for _ in range(3):
        assert select(s)[0] == 0
        assert select(r) == (0, "again", True)


def test_select_two_selects_meet():
    a, b = Chan(), Chan()
    g = go(select, send(a, 1), send(b, 2))
    parked(g)
    i, v, ok = select(recv(b), recv(a), timeout=LIMIT)
    assert ok and v == {1: 1, 0: 2}[i]
    assert g.join(timeout=LIMIT)[0] == v - 1


def test_select_stress_totals():
    chans = [Chan(0), Chan(0), Chan(2), Chan(3)]
    n = 500
    sums = []

    def mover(make):
        todo = [n] * 4
        while any(todo):
            cases = [make(c) if todo[k] else recv(None) for k, c in enumerate(chans)]
            i, _, _ = select(*cases)
            todo[i] -= 1
        sums.append(1)

    gs = [go(mover, lambda c: send(c, 0)), go(mover, recv)]
    for c in chans:
        gs.append(go(lambda c=c: [c.send(0) for _ in range(n)]))
        gs.append(go(lambda c=c: [c.recv() for _ in range(n)]))
    join_all(gs)
    assert sums == [1, 1]


def test_select_fairness_of_two_always_ready():
    a, b = Chan(2001), Chan(2001)
    for _ in range(2001):
        a.send(1)
        b.send(2)

    def body():
        counts = [0, 0]
        for _ in range(2000):
            counts[select(recv(a), recv(b))[0]] += 1
        return counts

    assert chi_square(in_goroutine(body), [1, 1]) < 30


@pytest.mark.parametrize("n", [2, 8, 9, 40])
def test_select_losing_sends_let_their_values_go(n):
    class Thing:
        pass

    chans = [Chan() for _ in range(n)]
    things = [Thing() for _ in range(n)]
    refs = [weakref.ref(t) for t in things]
    cases = [send(c, t) for c, t in zip(chans, things)]
    del things
    g = go(select, *cases)
    parked(g)
    assert chans[n // 2].recv(timeout=LIMIT) is refs[n // 2]()
    assert g.join(timeout=LIMIT)[0] == n // 2
    del cases, g
    eventually(lambda: gc.collect() >= 0 and not any(r() for r in refs))


@pytest.mark.parametrize("n", [1, 2, 8, 9, 40])
def test_select_does_not_leak_references(n):
    value, chans = object(), [Chan(1) for _ in range(n)]
    before = sys.getrefcount(value)
    for _ in range(50):
        select(*[send(c, value) for c in chans])
        select(*[send(c, value) for c in chans], default=True)
        while select(*[recv(c) for c in chans], default=True)[0] >= 0:
            pass
        assert select(*[recv(c) for c in chans], timeout=0)[0] == -2
        with pytest.raises(TypeError):
            select(*[send(c, value) for c in chans], None)
    assert sys.getrefcount(value) == before


def test_select_cancelled_or_served_never_both():
    ch, served = Chan(), 0
    for i in range(300):
        g = go(select, recv(ch), recv(Chan()))
        parked(g)
        if i % 2:
            taken = ch.try_send(i)
            g.cancel()
        else:
            g.cancel()
            taken = ch.try_send(i)
        try:
            assert g.join(timeout=LIMIT) == (0, i, True) and taken
            served += 1
        except gort.Cancelled:
            assert not taken
    assert served == 150


def test_select_timeouts_racing_with_sends_lose_nothing():
    a, b, total = Chan(), Chan(1), 400
    got = []

    def receiver():
        while len(got) < total:
            i, v, _ = select(recv(a), recv(b), timeout=0.0003)
            if i >= 0:
                got.append(v)

    def sender(first):
        for v in range(first, total, 2):
            while select(send(a, v), send(b, v), timeout=0.0003)[0] < 0:
                pass

    join_all([go(receiver), go(sender, 0), go(sender, 1)])
    assert sorted(got) == list(range(total))


def test_select_waits_are_served_for_either_of_two_sends_on_one_channel():
    ch, seen = Chan(), set()
    for _ in range(200):
        g = go(select, send(ch, 0), send(ch, 1))
        parked(g)
        v = ch.recv(timeout=LIMIT)
        assert g.join(timeout=LIMIT)[0] == v
        seen.add(v)
    assert seen == {0, 1}


def test_select_default_wins_over_timeout():
    assert select(recv(Chan()), default=True, timeout=60)[0] == -1
