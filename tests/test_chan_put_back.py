"""Values received and put back, which waits inside asyncio do when they are given up."""

from __future__ import annotations

import pytest
from gort import Chan, go
from waiting import LIMIT, eventually, is_parked, join_all, parked


def stamped(ch):
    value, _, stamp = ch._recv_until(Chan())
    return value, stamp


@pytest.mark.parametrize("cap", [0, 1, 3])
def test_put_back_value_comes_first_and_senders_go_on_waiting(cap):
    ch = Chan(cap)
    gs = []
    for i in range(cap + 2):
        gs.append(go(ch.send, i))
        parked_or_done(gs[-1])
    value, stamp = stamped(ch)
    assert value == 0
    ch._unrecv(value, stamp)
    assert [ch.recv(timeout=LIMIT) for _ in range(cap + 2)] == list(range(cap + 2))
    join_all(gs)


def parked_or_done(g):
    eventually(lambda: g.done or is_parked(g))


def test_put_back_values_keep_the_order_of_their_receives():
    ch = Chan(4)
    for i in range(4):
        ch.send(i)
    got = [stamped(ch) for _ in range(3)]
    for value, stamp in (got[1], got[2], got[0]):
        ch._unrecv(value, stamp)
    assert len(ch) == 4
    assert [ch.recv() for _ in range(4)] == [0, 1, 2, 3]


def test_put_back_goes_to_the_receiver_that_waits_longest():
    ch = Chan()
    gs = [go(ch.recv)]
    parked(*gs)
    gs.append(go(ch.recv))
    parked(*gs)
    ch._unrecv("back", 1)
    assert gs[0].join(timeout=LIMIT) == "back"
    assert not gs[1].done


def test_put_back_to_a_closed_channel_is_received():
    ch = Chan()
    ch.close()
    ch._unrecv("back", 1)
    assert ch.recv() == "back"
    assert ch.recv_ok() == (None, False)


def test_recv_until_stops_when_the_other_channel_closes():
    ch, stop = Chan(), Chan()
    g = go(ch._recv_until, stop)
    parked(g)
    stop.close()
    assert g.join(timeout=LIMIT) is None
    assert ch.try_send(1) is False
