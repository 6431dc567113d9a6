"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of test/chan/goroutines.go.
"""

from gort import Chan, go
from waiting import LIMIT


def link(left, right):
    left.send(right.recv())


def test_goroutines_chain_of_10000():
    leftmost = left = right = Chan()
    for _ in range(10_000):
        right = Chan()
        go(link, left, right)
        left = right
    go(right.send, 1)
    assert leftmost.recv(timeout=LIMIT) == 1
