"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Ports of test/chan/select2.go, select4.go, select5.go (the orders of evaluation that Python has),
select6.go, select7.go and sendstmt.go.
"""

import itertools
import tracemalloc

import gort
import pytest
from gort import Chan, go, recv, select, send
from waiting import LIMIT, join_all, parked


def test_select2_losing_cases_keep_no_memory():
    ch, dummy, n = Chan(), Chan(), 5_000

    def both():
        g = go(lambda: [ch.send(1) for _ in range(n)])
        for _ in range(n):
            assert select(recv(ch), recv(dummy))[0] == 0
        g.join(timeout=LIMIT)

    both()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        both()
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
    assert dummy.try_send(1) is False


def test_select4_only_the_chosen_case_is_received():
    c, c1 = Chan(1), Chan()
    c.send(42)
    assert select(recv(c1), recv(c)) == (1, 42, True)


EXTRAS = [
    subset
    for k in range(5)
    for subset in itertools.combinations(["dummy send", "dummy recv", "nil send", "nil recv"], k)
]


@pytest.mark.parametrize("extras", EXTRAS)
@pytest.mark.parametrize("default", [False, True])
@pytest.mark.parametrize("by_select", ["recv", "send"])
def test_select5_every_mixture_chooses_the_ready_case_and_evaluates_in_order(
    extras, default, by_select
):
    c, dummy, order = Chan(1), Chan(), []

    def note(x, step):
        order.append(step)
        return x

    make = {
        "dummy send": lambda: send(note(dummy, 3), note(1, 4)),
        "dummy recv": lambda: recv(note(dummy, 5)),
        "nil send": lambda: send(note(None, 6), note(1, 7)),
        "nil recv": lambda: recv(note(None, 8)),
    }
    for n in range(3):
        order.clear()
        if by_select == "recv":
            c.send(n)
            got = select(recv(note(c, 1)), *[make[e]() for e in extras], default=default)
            assert got == (0, n, True)
        else:
            got = select(
                send(note(c, 1), note(n, 2)), *[make[e]() for e in extras], default=default
            )
            assert (got[0], c.recv()) == (0, n)
        assert order == sorted(order)
    if default:
        assert select(*[make[e]() for e in extras], default=True) == (-1, None, False)


def test_select6_leaving_the_middle_of_a_queue():
    c1, c2, c3 = Chan(), Chan(), Chan()
    first = go(c1.recv)
    parked(first)

    def middle():
        assert select(recv(c1), recv(c2))[0] == 1
        c3.send(True)
        c1.recv()

    second = go(middle)
    parked(second)
    third = go(c2.send, True)
    c3.recv(timeout=LIMIT)
    c1.send(True, timeout=LIMIT)
    c1.send(True, timeout=LIMIT)
    join_all([first, second, third])


RECEIVES = [
    lambda c: c.recv(),
    lambda c: select(recv(c))[1],
    lambda c: select(recv(c), recv(Chan()))[1],
]
SENDS = [
    lambda c: c.send(1),
    lambda c: select(send(c, 1)),
    lambda c: select(send(c, 1), send(Chan(), 1)),
]


@pytest.mark.parametrize("receive", RECEIVES)
@pytest.mark.parametrize("put", SENDS)
def test_select7_every_kind_of_send_meets_every_kind_of_receive(receive, put):
    c = Chan()
    g = go(receive, c)
    gort.gosched()
    put(c)
    assert g.join(timeout=LIMIT) == 1


def test_sendstmt_channel_of_channels():
    cc, c = Chan(1), Chan(1)
    cc.send(c)
    assert select(send(cc.recv(), 2), default=True)[0] == 0
    assert c.recv() == 2
