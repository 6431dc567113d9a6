"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of test/ken/chan.go: goroutines that send, receive and select over up to eight channels;
every channel carries 76 values, each checked in order.
"""

import gort
import pytest
from gort import Chan, go, recv, select, send
from waiting import join_all

PER_CHANNEL = 76


class Counters:
    def __init__(self):
        self.random = self.value = self.sent = self.received = 0

    def nrand(self, n):
        self.random = (self.random + 10007) % 1_000_000
        return self.random % n


class End:
    """A channel, the next value to send, and the next one expected; None once a side is done."""

    def __init__(self, counters, cap):
        counters.value += 100
        self.counters = counters
        self.sc = self.rc = Chan(cap)
        self.sv = self.rv = counters.value

    @staticmethod
    def following(v, want):
        assert v == want, f"got {v}, expected {want}"
        return None if v % 100 == 75 else v + 1

    def sent(self):
        self.counters.sent += 1
        self.sv = self.following(self.sv, self.sv)
        if self.sv is None:
            self.sc = None
        return self.sc is None

    def received(self, v):
        self.counters.received += 1
        self.rv = self.following(v, self.rv)
        if self.rv is None:
            self.rc = None
        return self.rc is None


def yields(counters, n):
    for _ in range(counters.nrand(n) + 1):
        gort.gosched()


def sender(end):
    while True:
        yields(end.counters, 10)
        end.sc.send(end.sv)
        if end.sent():
            return


def receiver(end):
    while True:
        yields(end.counters, 10)
        if end.received(end.rc.recv()):
            return


def selector(receives, sends):
    alive = len(receives) + len(sends)
    while alive:
        yields((receives or sends)[0].counters, 5)
        cases = [recv(e.rc) for e in receives] + [send(e.sc, e.sv) for e in sends]
        i, v, ok = select(*cases)
        assert ok
        if i < len(receives):
            alive -= receives[i].received(v)
        else:
            alive -= sends[i - len(receives)].sent()


def topology(number, ends):
    """The goroutines of Go's test1 to test6, as (function, arguments)."""
    a, b, c = ends[:4], ends[4:8], ends[8:12]
    return {
        1: [(f, (e,)) for e in a for f in (sender, receiver)],
        2: [(sender, (e,)) for e in a] + [(selector, (a, []))],
        3: [(receiver, (e,)) for e in a] + [(selector, ([], a))],
        4: [(selector, ([], a)), (selector, (a, []))],
        5: [(selector, (b, a)), (selector, (a, b))],
        6: [(sender, (e,)) for e in b]
        + [(receiver, (e,)) for e in c]
        + [(selector, (b, a)), (selector, (a, c))],
    }[number]


@pytest.mark.parametrize("cap", [0, 1, 10, 100])
@pytest.mark.parametrize("number, channels", [(1, 4), (2, 4), (3, 4), (4, 4), (5, 8), (6, 12)])
def test_ken_chan_every_value_arrives_in_order(number, channels, cap):
    counters = Counters()
    ends = [End(counters, cap) for _ in range(channels)]
    join_all([go(f, *args) for f, args in topology(number, ends)])
    assert (counters.sent, counters.received) == (channels * PER_CHANNEL,) * 2
