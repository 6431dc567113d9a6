"""Goroutines that nothing can wake, of every kind: each function starts some and gives their ids."""

from __future__ import annotations

import gort
from leaking import start, wait_parked


def receiver():
    return start(gort.Chan().recv)


def sender():
    return start(gort.Chan().send, [1])


def producers():
    ch = gort.Chan(2)
    gate = gort.Chan()

    def produce():
        gate.recv_ok()
        for n in range(100):
            ch.send(n)

    idents = [gort.go(produce).id for _ in range(20)]
    gate.close()
    wait_parked(*idents)
    return idents


def select_of_dead_channels():
    return start(lambda: gort.select(gort.recv(gort.Chan()), gort.send(gort.Chan(), 1)))


def select_of_nothing():
    return start(gort.select)


def mutex():
    m = gort.Mutex()
    m.lock()
    return start(m.lock)


def rw_mutex():
    m = gort.RWMutex()
    m.rlock()
    return start(m.lock)


def wait_group():
    wg = gort.WaitGroup()
    wg.add(1)
    return start(wg.wait)


def semaphore():
    return start(gort.Semaphore(1).acquire, 2)


def condition():
    def work():
        m = gort.Mutex()
        with m:
            gort.Cond(m).wait()

    return start(work)


def join():
    def work():
        gort.go(gort.Chan().recv).join()

    return start(work)


def chain():
    """Each waits for what the next would send."""
    idents = []
    behind = gort.Chan()
    for _ in range(10):
        ahead = gort.Chan()

        def work(ahead=ahead, behind=behind):
            ahead.send(behind.recv())

        idents.append(start(work))
        behind = ahead
    return idents


def ring():
    """Each waits for the one before it, all round; each has the next one's object."""
    chans = [gort.Chan() for _ in range(5)]
    gs = []

    def work(n):
        chans[n].recv()
        gs[(n + 1) % 5].join()

    gs += [gort.go(work, n) for n in range(5)]
    idents = [g.id for g in gs]
    wait_parked(*idents)
    return idents


def cycle_through_a_parked_one():
    class Service:
        def __init__(self):
            self.stop = gort.Chan()
            self.runner = gort.go(self.run)

        def run(self):
            self.stop.recv()

    ident = Service().runner.id
    wait_parked(ident)
    return ident


def deep_in_calls():
    def inner(ch, n):
        return ch.recv() if n == 0 else inner(ch, n - 1)

    return start(inner, gort.Chan(), 20)


KINDS = [
    receiver, sender, producers, select_of_dead_channels, select_of_nothing, mutex, rw_mutex,
    wait_group, semaphore, condition, join, chain, ring, cycle_through_a_parked_one, deep_in_calls,
]  # fmt: skip
