"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of test/chan/sieve2.go: a faster prime sieve, with a heap of channels and a proxy of
unlimited buffer.
"""

import heapq
from collections import deque
from itertools import count

from gort import Chan, go, recv, select, send
from waiting import LIMIT


def numbers(start, step, cap):
    out = Chan(cap)

    def body():
        for n in count(start, step):
            out.send(n)

    go(body)
    return out


def send_proxy(out):
    """A channel whose sends never wait for `out`: an unlimited buffer in between."""
    proxy, kept = Chan(10), deque()

    def body():
        while True:
            i, value, _ = select(recv(proxy), send(out, kept[0]) if kept else send(None, 0))
            if i == 0:
                kept.append(value)
            else:
                kept.popleft()

    go(body)
    return proxy


def merge(primes, composites):
    heap, tie, least = [], count(), 15

    def advance():
        value, _, ch = heap[0]
        heapq.heapreplace(heap, (ch.recv(), next(tie), ch))
        return value

    while True:
        p = primes.recv()
        multiples = numbers(p * p, 2 * p, 10)
        head = multiples.recv()
        while least < head:
            composites.send(least)
            least = advance()
        while least == head:
            least = advance()
        composites.send(head)
        heapq.heappush(heap, (multiples.recv(), next(tie), multiples))


def sift(primes, composites, out):
    proxy, candidates = send_proxy(primes), numbers(5, 2, 50)
    p = candidates.recv()
    for c in composites:
        while p < c:
            proxy.send(p)
            out.send(p)
            p = candidates.recv()
        if p == c:
            p = candidates.recv()


def test_sieve2_first_25_primes():
    out, primes, composites = Chan(10), Chan(10), Chan(50)
    out.send(2)
    out.send(3)
    primes.send(3)
    go(merge, primes, composites)
    go(sift, primes, composites, out)
    got = [out.recv(timeout=LIMIT) for _ in range(25)]
    assert got == [p for p in range(2, 98) if all(p % d for d in range(2, p))]
