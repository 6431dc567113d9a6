"""One-way views of a channel (SEMANTICS C12): what each side can do, and nothing else."""

from __future__ import annotations

import gort
import pytest
from gort import Chan, ChanClosed, RecvChan, SendChan, go, recv, select, send
from waiting import LIMIT, parked, raises_text

RECEIVE_FROM_SEND_ONLY = "receive from send-only channel"
SEND_TO_RECEIVE_ONLY = "send to receive-only channel"


def test_sender_and_receiver_are_views_of_one_channel():
    ch = Chan(2)
    s, r = ch.sender(), ch.receiver()
    assert isinstance(s, SendChan) and isinstance(r, RecvChan)
    s.send(1)
    assert s.try_send(2) is True
    assert s.try_send(3) is False
    assert [len(v) for v in (ch, s, r)] == [2, 2, 2]
    assert [v.cap for v in (ch, s, r)] == [2, 2, 2]
    assert r.recv() == 1
    assert r.recv_ok() == (2, True)
    assert r.try_recv() == (None, False, False)
    s.close()
    assert (s.closed, r.closed) == (True, True)
    assert r.try_recv() == (None, False, True)
    with pytest.raises(ChanClosed):
        s.send(4)


def test_views_wait_like_the_channel():
    ch = Chan()
    g = go(ch.receiver().recv)
    parked(g)
    ch.sender().send("v", timeout=LIMIT)
    assert g.join(timeout=LIMIT) == "v"
    with pytest.raises(TimeoutError):
        ch.sender().send("v", timeout=0)
    with pytest.raises(TimeoutError):
        ch.receiver().recv(0)


def test_receiver_iterates_until_closed():
    ch = Chan()

    def producer(out):
        for i in range(5):
            out.send(i)
        out.close()

    go(producer, ch.sender())
    assert list(ch.receiver()) == list(range(5))


@pytest.mark.parametrize("name", ["recv", "recv_ok", "try_recv", "__iter__"])
def test_sender_does_not_receive(name):
    with raises_text(TypeError, "send-only channel"):
        getattr(Chan(1).sender(), name)()


@pytest.mark.parametrize("name, args", [("send", (1,)), ("try_send", (1,)), ("close", ())])
def test_receiver_neither_sends_nor_closes(name, args):
    ch = Chan(1)
    with raises_text(TypeError, "receive-only channel"):
        getattr(ch.receiver(), name)(*args)
    assert (len(ch), ch.closed) == (0, False)


def test_iterating_a_sender_is_refused():
    with raises_text(TypeError, "range over send-only channel"):
        for _ in Chan().sender():
            pass


def test_select_takes_views_in_their_direction():
    ch = Chan(1)
    assert select(send(ch.sender(), "x"), default=True) == (0, None, True)
    assert select(recv(ch.receiver()), default=True) == (0, "x", True)


def test_select_mixes_views_and_channels_while_waiting():
    a, b = Chan(), Chan()
    g = go(select, recv(a.receiver()), send(b.sender(), 5))
    parked(g)
    assert b.recv(timeout=LIMIT) == 5
    assert g.join(timeout=LIMIT)[0] == 1


def test_select_case_of_the_wrong_direction_is_refused_when_it_is_made():
    ch = Chan(1)
    with raises_text(TypeError, RECEIVE_FROM_SEND_ONLY):
        recv(ch.sender())
    with raises_text(TypeError, SEND_TO_RECEIVE_ONLY):
        send(ch.receiver(), 1)
    assert len(ch) == 0


def test_select_takes_anything_that_gives_a_channel_out():
    class Mine:
        def __init__(self, ch):
            self._recv_chan = ch

    ch = Chan(1)
    ch.send(8)
    assert select(recv(Mine(ch))) == (0, 8, True)
    with raises_text(TypeError, "gort.send() needs a Chan, a SendChan or None, not Mine"):
        send(Mine(ch), 1)
    with raises_text(TypeError, "gort.recv() needs a Chan, a RecvChan or None, not Mine"):
        recv(Mine("no channel"))


def test_select_passes_on_what_a_view_raises():
    class Odd:
        @property
        def _recv_chan(self):
            raise LookupError("mine")

    with raises_text(LookupError, "mine"):
        recv(Odd())


def test_views_compare_by_channel_and_direction():
    a, b = Chan(), Chan()
    assert a.sender() == a.sender() and hash(a.sender()) == hash(a.sender())
    assert a.receiver() == a.receiver()
    assert a.sender() != b.sender()
    assert a.sender() != a.receiver()


def test_views_are_true_and_shown():
    ch = Chan(3)
    assert bool(ch.sender()) and bool(ch.receiver())
    assert repr(ch.sender()) == "<SendChan of <gort.Chan 0/3>>"


@pytest.mark.parametrize("view", [SendChan, RecvChan])
@pytest.mark.parametrize("wrong", [None, 1, "ch"])
def test_view_of_something_else_is_refused(view, wrong):
    with raises_text(TypeError, f"{view.__name__}() needs a Chan"):
        view(wrong)


def test_views_can_be_subscripted():
    ch = Chan[int](1)
    assert SendChan[int] is not None and RecvChan[int] is not None
    assert isinstance(ch.sender(), SendChan)


def test_view_keeps_its_channel_alive():
    receiver = gort.after(0.001).receiver() if isinstance(gort.after(0.001), Chan) else None
    ch = Chan(1)
    ch.send("kept")
    view = ch.receiver()
    del ch
    assert view.recv() == "kept"
    assert receiver is None or receiver.recv(timeout=LIMIT) is not None
