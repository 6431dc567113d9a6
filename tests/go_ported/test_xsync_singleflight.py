"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of golang.org/x/sync v0.24.0, singleflight/singleflight_test.go. What a function raises is both its error and its
panic. Where Go ends the process, because a panic cannot reach a channel, the channel gets the exception.
"""

import gort
import pytest
from gort import Chan, WaitGroup, go, goexit, sleep
from gort.atomic import Int
from gort.singleflight import Group
from waiting import LIMIT, join_all


@pytest.mark.parametrize("cause", [None, ValueError("error value")])
def test_panic_error_unwrap(cause):
    def fail():
        raise RuntimeError("string value") from cause

    with pytest.raises(RuntimeError) as caught:
        Group().do("key", fail)
    assert caught.value.__cause__ is cause


def test_do():
    assert Group().do("key", lambda: "bar") == ("bar", False)


def test_do_err():
    error = ValueError("Some error")

    def fail():
        raise error

    with pytest.raises(ValueError) as caught:
        Group().do("key", fail)
    assert caught.value is error


def test_do_dup_suppress():
    g, n, c, calls = Group(), 10, Chan(1), Int()
    wg1, wg2 = WaitGroup(), WaitGroup()

    def fn():
        if calls.add(1) == 1:
            wg1.done()  # first invocation
        v = c.recv()
        c.send(v)  # pump; make available for any future calls
        sleep(0.01)  # let more goroutines enter do
        return v

    def ask():
        wg1.done()
        assert g.do("key", fn)[0] == "bar"

    wg1.add(1)
    for _ in range(n):
        wg1.add(1)
        wg2.go(ask)
    wg1.wait(timeout=LIMIT)
    # At least one goroutine is in fn now and all of them have at least reached the line before do.
    c.send("bar")
    wg2.wait(timeout=LIMIT)
    assert 0 < calls.load() < n


def test_forget():  # https://github.com/golang/go/issues/31420
    g = Group()
    first_started, unblock_first, first_finished = Chan(), Chan(), Chan()

    def first():
        first_started.close()
        unblock_first.recv_ok()
        first_finished.close()

    go(g.do, "key", first)
    first_started.recv_ok(timeout=LIMIT)
    g.forget("key")
    unblock_second = Chan()

    def second():
        unblock_second.recv_ok()
        return 2

    second_result = g.do_chan("key", second)
    unblock_first.close()
    first_finished.recv_ok(timeout=LIMIT)
    third_result = g.do_chan("key", lambda: 3)
    unblock_second.close()
    second_result.recv(timeout=LIMIT)
    assert third_result.recv(timeout=LIMIT).value == 2


def test_do_chan():
    value, error, _ = Group().do_chan("key", lambda: "bar").recv(timeout=LIMIT)
    assert value == "bar" and error is None


def test_panic_do():  # https://github.com/golang/go/issues/41133
    g, n = Group(), 5

    def fn():
        gort.gosched()
        raise RuntimeError("invalid memory address or nil pointer dereference")

    def ask():
        with pytest.raises(RuntimeError, match="invalid memory address"):
            g.do("key", fn)

    join_all([go(ask) for _ in range(n)])


def test_goexit_do():
    g, n, ends = Group(), 5, []

    def fn():
        gort.gosched()
        goexit()

    def ask():
        try:
            g.do("key", fn)
            ends.append("returned")
        except BaseException as error:
            ends.append(type(error))
            raise

    assert join_all([go(ask) for _ in range(n)]) == [None] * n
    assert ends == [gort.GoroutineExit] * n


def test_panic_do_chan():
    def fn():
        raise RuntimeError("Panicking in DoChan")

    value, error, shared = Group().do_chan("", fn).recv(timeout=LIMIT)
    assert value is None and str(error) == "Panicking in DoChan" and not shared


def test_panic_do_shared_by_do_chan():
    blocked, unblock, g = Chan(), Chan(), Group()

    def fn():
        blocked.close()
        unblock.recv_ok()
        raise RuntimeError("Panicking in Do")

    def ask():
        with pytest.raises(RuntimeError, match="Panicking in Do"):
            g.do("", fn)

    asking = go(ask)
    blocked.recv_ok(timeout=LIMIT)
    ch = g.do_chan("", lambda: pytest.fail("do_chan unexpectedly executed callback"))
    unblock.close()
    asking.join(timeout=LIMIT)
    _, error, shared = ch.recv(timeout=LIMIT)
    assert str(error) == "Panicking in Do" and shared
