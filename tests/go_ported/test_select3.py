"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of test/chan/select3.go: what blocks, and what raises. A Python nil channel is None in a
select.
"""

import pytest
from gort import Chan, ChanClosed, go, recv, select, send
from waiting import LIMIT, parked, settle


def closed():
    ch = Chan()
    ch.close()
    return ch


def full_of(value, cap=1):
    ch = Chan(cap)
    ch.send(value)
    return ch


def drain_closed():
    ch = closed()
    for _ in range(10):
        assert ch.recv_ok() == (None, False)


def itself():
    ch = Chan()
    select(send(ch, 1), recv(ch))


ALWAYS_BLOCKS = {
    "receive from a non-ready channel": lambda: Chan().recv(),
    "empty select": select,
    "nil receive": lambda: select(recv(None)),
    "nil send": lambda: select(send(None, 7)),
    "nil receive and send": lambda: select(recv(None), send(None, 7)),
    "non-ready receive": lambda: select(recv(Chan())),
    "select that sees itself": itself,
}

NEVER_BLOCKS = {
    "send with free buffer": lambda: Chan(1).send(7),
    "receive from closed": drain_closed,
    "only default": lambda: select(default=True),
    "nil receive, default": lambda: select(recv(None), default=True),
    "nil send, default": lambda: select(send(None, 7), default=True),
    "ready send, default": lambda: select(send(Chan(1), 7), default=True),
    "ready receive, default": lambda: select(recv(full_of(7)), default=True),
    "closed receive": lambda: select(recv(closed())),
    "closed receive among nil": lambda: select(recv(None), recv(closed())),
}


@pytest.mark.parametrize("what", ALWAYS_BLOCKS)
def test_select3_always_blocks(what):
    g = go(ALWAYS_BLOCKS[what])
    parked(g)
    settle()
    assert not g.done


@pytest.mark.parametrize("what", NEVER_BLOCKS)
def test_select3_never_blocks(what):
    go(NEVER_BLOCKS[what]).join(timeout=LIMIT)


def test_select3_nil_is_never_selected():
    assert select(send(None, 7), default=True)[0] == -1
    assert select(recv(None), default=True)[0] == -1


def test_select3_ready_cases_are_chosen_before_default():
    assert select(send(Chan(1), 7), default=True)[0] == 0
    assert select(recv(full_of(7)), default=True) == (0, 7, True)


@pytest.mark.parametrize("op", [lambda ch: ch.send(7), lambda ch: select(send(ch, 7))])
def test_select3_send_to_closed_always_raises(op):
    with pytest.raises(ChanClosed, match="send on closed channel"):
        op(closed())
