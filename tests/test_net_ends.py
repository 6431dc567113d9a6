"""What ends a wait of gort.net: deadlines, time-outs, contexts, cancelling, closing. Nothing is lost."""

from __future__ import annotations

import os
import socket
import struct
import sys
import time

import gort
import gort.net
import pytest
from children import check
from netting import connected
from waiting import LIMIT, OnThread, eventually, in_goroutine, parked, raises_text, waiter

HOUR = 3600.0
MUCH = bytes(20_000_000)  # more than the kernel keeps for a connection


@pytest.fixture
def pair():
    a, b = connected()
    with a, b:
        yield a, b


@pytest.fixture
def listener():
    with gort.net.listen("tcp", "127.0.0.1:0") as listener:
        yield listener


@pytest.fixture(params=["read", "read_exact", "readinto", "write", "writev", "accept", "recv"])
def wait(request, pair, listener):
    """An object, and a call of it that waits for ever."""
    a, _ = pair
    with gort.net.listen_packet("udp", "127.0.0.1:0") as packets:
        yield {
            "read": (a, lambda **k: a.read(10, **k)),
            "read_exact": (a, lambda **k: a.read_exact(10, **k)),
            "readinto": (a, lambda **k: a.readinto(bytearray(10), **k)),
            "write": (a, lambda **k: a.write(MUCH, **k)),
            "writev": (a, lambda **k: a.writev([MUCH[:1000], MUCH], **k)),
            "accept": (listener, lambda **k: listener.accept(**k)),
            "recv": (packets, lambda **k: packets.read_from(10, **k)),
        }[request.param]


def test_a_past_deadline_refuses_at_once(wait, anywhere):
    conn, call = wait

    def body():
        for when in (time.time() - 1, 0, -1e300, time.time()):
            conn.set_deadline(when)
            with raises_text(TimeoutError, "i/o timeout"):
                call()
        conn.set_deadline(None)

    anywhere(body)


def test_a_past_deadline_refuses_what_is_there(pair):
    a, b = pair
    b.write(b"x")
    a.set_read_deadline(time.time() - 1)
    with pytest.raises(TimeoutError, match="read tcp 127.*->127.*: i/o timeout"):
        a.read(1)
    a.write(b"y")
    a.set_read_deadline(None)
    assert (a.read(1), b.read(1)) == (b"x", b"y")


def test_a_deadline_to_come(wait, anywhere):
    conn, call = wait

    def body():
        when = time.time() + 0.02
        conn.set_deadline(when)
        with raises_text(TimeoutError, "i/o timeout"):
            call()
        assert time.time() >= when - 0.001

    anywhere(body)


def test_a_deadline_set_while_one_waits_wakes_it(wait):
    conn, call = wait
    for start in (waiter, OnThread):
        conn.set_deadline(time.time() + HOUR)

        def body():
            with raises_text(TimeoutError, "i/o timeout"):
                call()
            return True

        g = start(body)
        conn.set_deadline(time.time() + HOUR / 2)
        conn.set_deadline(1.0)
        assert g.join(timeout=LIMIT)


def test_a_deadline_put_off_while_one_waits(pair):
    a, b = pair
    a.set_read_deadline(time.time() + 0.05)
    reader = waiter(a.read, 1)
    a.set_read_deadline(time.time() + HOUR)
    with pytest.raises(TimeoutError):
        b.read(1, timeout=0.1)  # longer than the first deadline
    assert not reader.done
    b.write(b"x")
    assert reader.join(timeout=LIMIT) == b"x"


def test_deadlines_are_for_one_side(pair):
    a, b = pair
    a.set_write_deadline(0)
    reader = waiter(a.read, 1)
    with pytest.raises(TimeoutError):
        a.write(b"x")
    b.write(b"x")
    assert reader.join(timeout=LIMIT) == b"x"
    a.set_write_deadline(None)
    a.set_read_deadline(0)
    a.write(b"y")
    assert b.read(1) == b"y"


def test_time_outs(wait, anywhere):
    _, call = wait

    def body():
        with raises_text(TimeoutError, "i/o timeout"):
            call(timeout=0.005)
        with raises_text(TimeoutError, "i/o timeout"):
            call(timeout=0)

    anywhere(body)


def test_the_earlier_of_time_out_and_deadline_counts(pair):
    a, _ = pair
    a.set_deadline(time.time() + HOUR)
    with pytest.raises(TimeoutError):
        a.read(1, timeout=0.005)
    a.set_deadline(time.time() + 0.005)
    with pytest.raises(TimeoutError):
        a.read(1, timeout=HOUR)


def test_a_context_ends_it(wait, anywhere):
    conn, call = wait
    conn.set_deadline(time.time() + HOUR)

    def body():
        ctx, cancel = gort.context.with_cancel(gort.context.background())
        timer = gort.after_func(0.005, cancel)
        with pytest.raises(gort.ContextCanceled):
            call(ctx=ctx)
        with pytest.raises(gort.ContextCanceled):
            call(ctx=ctx)
        timer.stop()
        ctx, cancel = gort.context.with_timeout(gort.context.background(), 0.005)
        with pytest.raises(gort.DeadlineExceeded):
            call(ctx=ctx)
        cancel()

    anywhere(body)


def test_a_deadline_beside_a_context(wait):
    conn, call = wait
    ctx, cancel = gort.context.with_cancel(gort.context.background())
    conn.set_deadline(time.time() + 0.01)
    with raises_text(TimeoutError, "i/o timeout"):
        call(ctx=ctx)
    cancel()


def test_cancelling_the_goroutine(wait):
    _, call = wait
    g = waiter(call)
    assert g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)


def test_closing_while_one_waits(wait):
    conn, call = wait

    def body():
        with raises_text(gort.net.Closed, "use of closed network connection"):
            call()
        return True

    waiting = [waiter(body) for _ in range(3)]
    thread = OnThread(body)
    in_goroutine(conn.close)
    assert all(g.join(timeout=LIMIT) for g in [*waiting, thread])
    assert body()
    conn.close()


def test_closed_refuses_everything(pair):
    a, _ = pair
    a.close()
    for call in (
        lambda: a.read(1),
        lambda: a.read_exact(1),
        lambda: a.readinto(bytearray(1)),
        lambda: a.write(b"x"),
        lambda: a.write(b""),
        lambda: a.writev([b"x"]),
        lambda: a.set_deadline(None),
        lambda: a.close_read(),
        lambda: a.close_write(),
    ):
        with raises_text(gort.net.Closed, "use of closed network connection"):
            call()
    assert issubclass(gort.net.Closed, OSError)


def test_the_next_file_of_a_number_is_not_the_closed_one(pair):
    a, b = pair
    reader = waiter(a.read, 1)
    number = a.fileno()
    a.close()
    c, d = connected()
    with c, d:
        assert number in (c.fileno(), d.fileno())
        d.write(b"not for a")
        with pytest.raises(gort.net.Closed):
            reader.join(timeout=LIMIT)
        assert c.read(100) == b"not for a"
    assert b.read(1) == b""


def test_a_reader_that_is_cancelled_leaves_what_came(pair):
    a, b = pair
    reader = waiter(a.read_exact, 10)
    b.write(b"abc")
    eventually(lambda: gort.gosched() or reader.status == "IO wait")
    parked(reader)
    reader.cancel()
    with pytest.raises(gort.Cancelled):
        reader.join(timeout=LIMIT)
    b.write(b"def")
    assert a.read_exact(6) == b"abcdef"


def test_who_waits_for_its_turn_can_be_ended(pair):
    a, b = pair
    first = waiter(a.read, 1)
    second = waiter(a.read, 1)
    third = waiter(lambda: a.read(1, timeout=HOUR))
    assert second.status == "sync.Mutex.Lock"
    second.cancel()
    with pytest.raises(gort.Cancelled):
        second.join(timeout=LIMIT)
    with raises_text(TimeoutError, "i/o timeout"):
        a.read(1, timeout=0.005)
    b.write(b"xy")
    assert first.join(timeout=LIMIT) + third.join(timeout=LIMIT) == b"xy"
    first, second = waiter(a.read, 1), waiter(a.read, 1)
    a.set_deadline(1)
    for g in (first, second):
        with pytest.raises(TimeoutError):
            g.join(timeout=LIMIT)


def test_main_is_interrupted_and_loses_nothing():
    program = """
import signal, gort, gort.net
from netting import connected
a, b = connected()
seen = []
def handler(*_):
    seen.append(1)
    if len(seen) == 2:
        b.write(b"late")
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
assert a.read_exact(4) == b"late" and len(seen) >= 2
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.setitimer(signal.ITIMER_REAL, 0.05)
b.write(b"ab")
try:
    a.read_exact(4)
except KeyboardInterrupt:
    assert a.read(4) == b"ab"
    print("interrupted")
a.close(), b.close()
"""
    check(program, "interrupted")


@pytest.mark.skipif(sys.platform != "linux", reason="the end goes along on Linux")
@pytest.mark.parametrize("end", ["close", "close_write"])
def test_the_end_goes_along_with_the_last_bytes(end):
    def packets(conn):
        """How many packets have come: tcpi_segs_in of struct tcp_info, linux/tcp.h."""
        with socket.socket(fileno=os.dup(conn.fileno())) as sock:
            return struct.unpack_from(
                "I", sock.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 256), 140
            )[0]

    def taken(send):
        a, b = connected()
        with a, b:
            before = packets(b)
            send(a)
            getattr(a, end)()
            assert (b.read(10), b.read(10)) == (b"last", b"")
            return packets(b) - before

    assert taken(lambda a: a.write(b"last")) == 2
    # What is held back goes by itself when a loaded machine does not come to the end for 200 ms.
    assert 1 in [taken(lambda a: a._write_last(b"last")) for _ in range(20)]
