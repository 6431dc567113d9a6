"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of test/chan/nonblock.go.
"""

import gort
import pytest
from gort import Chan, go, recv, select, send
from waiting import LIMIT, eventually


def receiver(ch, want, strobe):
    assert ch.recv() == want
    strobe.send(True)


def sender(ch, value, strobe):
    ch.send(value)
    strobe.send(True)


def try_until(case):
    """The non-blocking select of Go's loops, tried until it is chosen."""
    return eventually(lambda: (r := select(case, default=True))[0] == 0 and (r,), what="partner")[0]


@pytest.mark.parametrize("buffer", [0, 1])
@pytest.mark.parametrize(
    "there, back", [(123, 234), (123456, 234567), (True, True), ("hello", "hello again")]
)
def test_nonblock_send_and_receive_meet_a_goroutine(buffer, there, back):
    ch, strobe = Chan(buffer), Chan()
    assert select(recv(ch), default=True) == (-1, None, False)

    r = go(receiver, ch, there, strobe)
    try_until(send(ch, there))
    strobe.recv(timeout=LIMIT)
    r.join(timeout=LIMIT)

    s = go(sender, ch, back, strobe)
    if buffer > 0:
        strobe.recv(timeout=LIMIT)
    assert try_until(recv(ch)) == (0, back, True)
    if buffer == 0:
        strobe.recv(timeout=LIMIT)
    s.join(timeout=LIMIT)
    gort.gosched()
    assert select(recv(ch), default=True)[0] == -1
