"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of test/chan/fifo.go.
"""

from gort import Chan, go
from waiting import LIMIT, join_all

N = 10


def test_fifo_buffered():
    ch = Chan(N)
    for i in range(N):
        ch.send(i)
    assert [ch.recv() for _ in range(N)] == list(range(N))


def chain(ch, val, source, out):
    source.recv()
    assert ch.recv() == val
    out.send(1)


def test_fifo_unbuffered_chain():
    ch, source = Chan(), Chan()
    start, links = source, []
    for i in range(N):
        out = Chan()
        links.append(go(chain, ch, i, source, out))
        source = out
    start.send(0, timeout=LIMIT)
    for i in range(N):
        ch.send(i, timeout=LIMIT)
    source.recv(timeout=LIMIT)
    join_all(links)
