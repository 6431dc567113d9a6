"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of runtime/chan_test.go: TestChan, TestNonblockRecvRace, TestNonblockSelectRace(2),
TestSelfSelect, TestSelectStress, TestSelectFairness, TestPseudoRandomSend, TestMultiConsumer,
TestSelectDuplicateChannel. The stack shrinking tests have no meaning here: gort's stacks do not
move.
"""

from collections import Counter
from math import sqrt

import gort
import pytest
from gort import Chan, Mutex, WaitGroup, go, recv, select, send
from waiting import LIMIT, join_all, parked, settle

CAPS = [*range(12), 37, 100, 199]


@pytest.mark.parametrize("cap", CAPS)
def test_chan_receive_from_empty_blocks(cap):
    c = Chan(cap)
    a, b = go(c.recv), go(c.recv_ok)
    parked(a, b)
    settle()
    assert not a.done and not b.done
    assert select(recv(c), default=True)[0] == -1
    c.send(0)
    c.send(0)
    assert join_all([a, b]) == [0, (0, True)]


@pytest.mark.parametrize("cap", CAPS)
def test_chan_send_to_full_blocks(cap):
    c = Chan(cap)
    for i in range(cap):
        c.send(i)
    g = go(c.send, 0)
    parked(g)
    settle()
    assert not g.done
    assert select(send(c, 0), default=True)[0] == -1
    c.recv()
    g.join(timeout=LIMIT)


@pytest.mark.parametrize("cap", CAPS)
def test_chan_closed_gives_what_it_holds_then_nothing(cap):
    c = Chan(cap)
    for i in range(cap):
        c.send(i)
    c.close()
    assert [c.recv() for _ in range(cap)] == list(range(cap))
    assert c.recv_ok() == (None, False)


@pytest.mark.parametrize("cap", CAPS)
def test_chan_close_unblocks_receive(cap):
    c = Chan(cap)
    g = go(c.recv_ok)
    parked(g)
    c.close()
    assert g.join(timeout=LIMIT) == (None, False)


@pytest.mark.parametrize("cap", CAPS)
def test_chan_is_fifo(cap):
    c = Chan(cap)
    for receive in (c.recv, lambda: c.recv_ok()[0]):
        g = go(lambda: [c.send(i) for i in range(100)])
        assert [receive() for _ in range(100)] == list(range(100))
        g.join(timeout=LIMIT)


@pytest.mark.parametrize("cap", [0, 1, 7, 100])
def test_chan_four_senders_four_receivers(cap):
    c, n, each = Chan(cap), 4, 1000
    senders = [go(lambda: [c.send(i) for i in range(each)]) for _ in range(n)]
    receivers = [go(lambda: Counter(c.recv() for _ in range(each))) for _ in range(n)]
    got = sum(join_all(receivers), Counter())
    join_all(senders)
    assert got == Counter({i: n for i in range(each)})


@pytest.mark.parametrize("cap", CAPS)
def test_chan_len_and_cap(cap):
    c = Chan(cap)
    assert (len(c), c.cap) == (0, cap)
    for i in range(cap):
        c.send(i)
    assert (len(c), c.cap) == (cap, cap)


def test_nonblock_recv_race():
    for _ in range(1000):
        c = Chan(1)
        c.send(1)
        g = go(select, recv(c), default=True)
        c.close()
        c.recv_ok()
        assert g.join(timeout=LIMIT)[0] == 0, "chan is not ready"


@pytest.mark.parametrize("by_close", [False, True])
def test_nonblock_select_race(by_close):
    for _ in range(1000):
        c1, c2 = Chan(1), Chan(0 if by_close else 1)
        c1.send(1)
        g = go(select, recv(c1), recv(c2), default=True)
        if by_close:
            c2.close()
        else:
            c2.send(1)
        select(recv(c1), default=True)
        assert g.join(timeout=LIMIT)[0] != -1, "no chan is ready"


@pytest.mark.parametrize("cap", [0, 10])
def test_self_select(cap):
    c = Chan(cap)

    def body(p):
        for i in range(1000):
            if p == 0 or i % 2 == 0:
                k, v, _ = select(send(c, p), recv(c))
                received = k == 1
            else:
                k, v, _ = select(recv(c), send(c, p))
                received = k == 0
            assert not (cap == 0 and received and v == p), "self receive"

    join_all([go(body, 0), go(body, 1)])


def test_select_stress():
    chans, n = [Chan(), Chan(), Chan(2), Chan(3)], 1000

    def selector(case, order):
        todo = {k: n for k in order}
        while todo:
            keys = list(todo)
            k = keys[select(*[case(chans[k]) for k in keys])[0]]
            todo[k] -= 1
            if not todo[k]:
                del todo[k]

    gs = [go(lambda c=c: [c.send(0) for _ in range(n)]) for c in chans]
    gs += [go(lambda c=c: [c.recv() for _ in range(n)]) for c in chans]
    gs.append(go(selector, lambda c: send(c, 0), [3, 2, 0, 1]))
    gs.append(go(selector, recv, [0, 1, 2, 3]))
    join_all(gs)
    assert [len(c) for c in chans] == [0] * 4


def test_select_fairness():
    trials = 10_000
    c1, c2, c3, c4, out, done = Chan(trials + 1), Chan(trials + 1), Chan(), Chan(), Chan(), Chan()
    for _ in range(trials + 1):
        c1.send(1)
        c2.send(2)

    def body():
        while True:
            _, b, _ = select(recv(c3), recv(c4), recv(c1), recv(c2))
            if select(send(out, b), recv(done))[0] == 1:
                return

    g = go(body)
    counts = Counter(out.recv() for _ in range(trials))
    done.close()
    g.join(timeout=LIMIT)
    assert set(counts) == {1, 2}
    assert abs(counts[1] - trials / 2) <= 10 * sqrt(trials / 4)


@pytest.mark.parametrize("cap", [0, 100])
def test_pseudo_random_send(cap):
    n, c, got, m = 100, Chan(cap), [], Mutex()
    m.lock()

    def body():
        for _ in range(n):
            gort.gosched()
            got.append(c.recv())
        m.unlock()

    go(body)
    for _ in range(n):
        select(send(c, 1), send(c, 0))
    m.lock(timeout=LIMIT)
    assert min(got.count(0), got.count(1)) > n // 10


def test_multi_consumer():
    workers, items = 23, 20_000
    primes = [2, 3, 7, 11, 13, 17, 19, 23, 27, 31]
    q, r, wg = Chan(workers * 3), Chan(workers * 3), WaitGroup()

    def worker(w):
        for v in q:
            if primes[w % len(primes)] == v:
                gort.gosched()
            r.send(v)
        wg.done()

    def feeder():
        for i in range(items):
            q.send(primes[i % len(primes)])
        q.close()
        wg.wait()
        r.close()

    for w in range(workers):
        wg.add(1)
        go(worker, w)
    go(feeder)
    got = list(r)
    assert (len(got), sum(got)) == (items, sum(primes[i % len(primes)] for i in range(items)))


def test_select_duplicate_channel():
    c, d, e = Chan(), Chan(), Chan()

    def a():
        select(recv(c), recv(c), recv(d))
        e.send(9)

    first = go(a)
    parked(first)
    second = go(c.recv)
    parked(second)
    d.send(7, timeout=LIMIT)  # wakes the first, which leaves the queue of c twice
    assert e.recv(timeout=LIMIT) == 9
    c.send(8, timeout=LIMIT)
    assert second.join(timeout=LIMIT) == 8
    first.join(timeout=LIMIT)
