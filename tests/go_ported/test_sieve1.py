"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of test/chan/sieve1.go.
"""

from gort import Chan, go
from waiting import LIMIT


def generate(ch):
    i = 2
    while True:
        ch.send(i)
        i += 1


def sift(source, out, prime):
    for i in source:
        if i % prime:
            out.send(i)


def sieve(primes):
    ch = Chan()
    go(generate, ch)
    while True:
        prime = ch.recv()
        primes.send(prime)
        out = Chan()
        go(sift, ch, out, prime)
        ch = out


def test_sieve1_first_25_primes():
    primes = Chan()
    go(sieve, primes)
    got = [primes.recv(timeout=LIMIT) for _ in range(25)]
    assert got == [p for p in range(2, 98) if all(p % d for d in range(2, p))]
