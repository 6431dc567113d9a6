"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of test/chan/doubleselect.go: one goroutine selects over four sends, four others select the
values together.
"""

from gort import Chan, go, select, send
from waiting import LIMIT, join_all

N = 5_000


def sender(chans):
    for i in range(N):
        select(*[send(c, i) for c in chans])
    for c in chans:
        c.close()


def mux(out, source, done):
    for v in source:
        out.send(v)
    done.send(True)


def test_doubleselect_no_value_twice():
    chans, done, merged = [Chan() for _ in range(4)], Chan(), Chan()
    gs = [go(sender, chans)] + [go(mux, merged, c, done) for c in chans]

    def closer():
        for _ in chans:
            done.recv()
        merged.close()

    gs.append(go(closer))
    got = list(merged)
    assert sorted(got) == list(range(N))
    join_all(gs, LIMIT)
