"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of test/closedchan.go: receive from and send to a closed channel, by method, by select, and
by a select with a channel that is never ready.
"""

import pytest
from gort import Chan, ChanClosed, recv, select, send


class ByMethod:
    """XChan."""

    def __init__(self, ch):
        self.ch = ch

    def send(self, x):
        self.ch.send(x)

    def try_send(self, x):
        return self.ch.try_send(x)

    def recv_ok(self):
        return self.ch.recv_ok()

    def try_recv(self):
        return self.ch.try_recv()


class BySelect(ByMethod):
    """SChan."""

    extra = ()

    def send(self, x):
        assert select(send(self.ch, x), *self.extra)[0] == 0

    def try_send(self, x):
        return select(send(self.ch, x), *self.extra, default=True)[0] == 0

    def recv_ok(self):
        i, v, ok = select(recv(self.ch), *self.extra)
        assert i == 0
        return v, ok

    def try_recv(self):
        i, v, ok = select(recv(self.ch), *self.extra, default=True)
        return v, ok, i == 0


class BySelectWithDummy(BySelect):
    """SSChan."""

    extra = (recv(Chan()),)


def check_closed(c):
    for _ in range(3):
        assert c.recv_ok() == (None, False)
        assert c.try_recv() == (None, False, True)
    with pytest.raises(ChanClosed):
        c.try_send(1)
    assert c.recv_ok() == (None, False), "the value must have been dropped"
    with pytest.raises(ChanClosed):
        c.send(2)
    assert c.recv_ok() == (None, False), "the value must have been dropped"


MAKERS = [ByMethod, BySelect, BySelectWithDummy]


@pytest.mark.parametrize("make", MAKERS)
def test_closedchan_unbuffered(make):
    ch = Chan()
    ch.close()
    check_closed(make(ch))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("last", ["recv_ok", "try_recv"])
def test_closedchan_buffered_gives_its_last_value_first(make, last):
    ch = Chan(2)
    ch.send(1)
    ch.close()
    c = make(ch)
    assert getattr(c, last)() == ((1, True) if last == "recv_ok" else (1, True, True))
    check_closed(c)


def test_closedchan_close_twice():
    ch = Chan()
    ch.close()
    with pytest.raises(ChanClosed, match="close of closed channel"):
        ch.close()


# close(nil) of the original: None has no close(), see test_bad_input.
