"""Channels as objects: weak references, cycles, nesting, and what becomes of the values they hold."""

from __future__ import annotations

import gc
import weakref

import gort
import pytest
from gort import Chan, go, recv, send
from waiting import LIMIT, eventually, parked


def test_weak_reference_sees_the_end():
    ch, ended = Chan(), []
    r = weakref.ref(ch, ended.append)
    assert r() is ch and weakref.getweakrefcount(ch) == 1
    del ch
    assert r() is None and ended == [r]


def test_weak_dictionary_of_channels():
    kept = Chan()
    table = weakref.WeakKeyDictionary({kept: 1, Chan(): 2})
    gc.collect()
    assert dict(table) == {kept: 1}


def test_weak_reference_keeps_nothing_while_a_goroutine_waits():
    ch = Chan()
    r = weakref.ref(ch)
    g = go(ch.recv)
    parked(g)
    del ch
    assert r() is not None, "the waiting goroutine keeps it"
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    del g
    eventually(lambda: gc.collect() >= 0 and r() is None)


@pytest.mark.parametrize(
    "make", [lambda ch: ch, lambda ch: recv(ch), lambda ch: send(None, ch), lambda ch: [ch]]
)
def test_cycle_through_a_channel_is_collected(make):
    ch = Chan(1)
    r = weakref.ref(ch)
    ch.send(make(ch))
    del ch
    gc.collect()
    assert r() is None


def nested_in_channels(inner):
    ch = Chan(1)
    ch.send(inner)
    return ch


@pytest.mark.parametrize(
    "wrap",
    [
        nested_in_channels,
        lambda inner: send(None, inner),
        lambda inner: nested_in_channels([inner]),
    ],
    ids=["channels", "cases", "channels and lists"],
)
def test_deeply_nested_channels_end_without_recursion(wrap, anywhere):
    def body():
        last = object()
        for _ in range(100_000):
            last = wrap(last)
        del last

    anywhere(body)


def test_values_end_in_a_channel_that_ends():
    ended = []

    class Thing:
        def __del__(self):
            ended.append(self)

    ch = Chan(3)
    for _ in range(3):
        ch.send(Thing())
    del ch
    assert len(ended) == 3


def test_finalizer_of_a_value_may_use_channels():
    log = Chan(10)

    class Thing:
        def __del__(self):
            log.send("ended")
            with pytest.raises(TimeoutError):
                Chan().recv(timeout=0.001)

    def body():
        ch = Chan(2)
        ch.send(Thing())
        ch.send(Thing())

    go(body).join(timeout=LIMIT)
    assert [log.recv(timeout=LIMIT), log.recv(timeout=LIMIT)] == ["ended"] * 2
