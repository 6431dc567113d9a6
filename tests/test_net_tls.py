"""gort.net TLS: handshakes, both ways at once, ends, deadlines, closing, bad certificates."""

from __future__ import annotations

import os
import ssl
import time

import gort
import gort.net
import pytest
from certificates import client_context, server_context
from netting import connected, descriptors_back, open_descriptors
from waiting import LIMIT, OnThread, eventually, join_all, raises_text, waiter


@pytest.fixture
def pair():
    """Two ends of a TLS connection."""
    base = open_descriptors()
    a, b = connected()
    client = gort.net.TLSConn(a, client_context(), server_hostname="localhost")
    server = gort.net.TLSConn(b, server_context(), server_side=True)
    shakes = gort.go(server.handshake, timeout=LIMIT)
    client.handshake(timeout=LIMIT)
    shakes.join(timeout=LIMIT)
    with client, server:
        yield client, server
    descriptors_back(base + 2)


def test_round_trip(pair, anywhere):
    a, b = pair

    def body():
        a.write(b"hello")
        assert b.read(100) == b"hello"
        b.writev([b"wor", bytearray(b"ld")])
        assert a.read_exact(5) == b"world"
        a.write(memoryview(b"12345"))
        place = bytearray(3)
        assert (b.readinto(place), place, b.read(9)) == (3, b"123", b"45")

    anywhere(body)


def test_both_ways_at_once(pair):
    a, b = pair
    data = os.urandom(3_000_000)
    for start in (gort.go, OnThread):
        work = [start(a.write, data), start(b.write, data)]
        work += [start(a.read_exact, len(data)), start(b.read_exact, len(data))]
        assert [w.join(timeout=LIMIT) for w in work[2:]] == [data, data]
        for w in work[:2]:
            w.join(timeout=LIMIT)


def test_server_and_clients():
    with gort.net.listen_tls("127.0.0.1:0", server_context()) as listener:

        def echo(conn):
            while data := conn.read(1000):
                conn.write(data)

        server = gort.go(listener.serve, echo, limit=20)
        context = client_context()

        def client(i):
            with gort.net.dial_tls(
                listener.local_addr(), context, LIMIT, server_hostname="localhost"
            ) as conn:
                assert conn.ssl_object.version().startswith("TLSv1")
                for j in range(5):
                    conn.write(b"%d-%d" % (i, j))
                    assert conn.read(100) == b"%d-%d" % (i, j)
            return i

        assert join_all([gort.go(client, i) for i in range(50)]) == list(range(50))
    server.join(timeout=LIMIT)


def test_an_end_that_is_said_and_one_that_is_not(pair):
    a, b = pair
    a.write(b"last")
    a.close()
    assert b.read(100) == b"last"
    assert b.read(100) == b"" == b.read(100)
    with raises_text(gort.net.UnexpectedEOF, "0 of 1 bytes"):
        b.read_exact(1)


def test_a_connection_that_breaks_off_is_an_error(pair):
    a, b = pair
    a.conn.close()
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        b.read(100)


def test_half_close(pair):
    a, b = pair
    a.close_write()
    assert b.read(100) == b""
    b.write(b"still")
    assert a.read_exact(5) == b"still"


def test_deadlines_time_outs_contexts_and_cancelling(pair):
    a, b = pair
    with raises_text(TimeoutError, "i/o timeout"):
        a.read(1, timeout=0.01)
    a.set_read_deadline(time.time() - 1)
    with raises_text(TimeoutError, "i/o timeout"):
        a.read(1)
    a.set_read_deadline(None)
    ctx, cancel = gort.context.with_cancel(gort.context.background())
    gort.after_func(0.01, cancel)
    with pytest.raises(gort.ContextCanceled):
        a.read(1, ctx=ctx)
    reader = waiter(a.read, 1)
    reader.cancel()
    with pytest.raises(gort.Cancelled):
        reader.join(timeout=LIMIT)
    b.write(b"abc")
    with pytest.raises(TimeoutError):
        a.read_exact(4, timeout=0.05)
    assert a.read_exact(3) == b"abc"


def test_closing_while_one_reads(pair):
    a, _ = pair
    reader = waiter(a.read, 1)
    a.close()
    with pytest.raises(gort.net.Closed):
        reader.join(timeout=LIMIT)
    with pytest.raises(gort.net.Closed):
        a.write(b"x")
    a.close()
    assert a.closed


def test_a_write_that_was_cut_short_is_the_last(pair):
    a, b = pair
    with pytest.raises(TimeoutError):
        while True:
            a.write(bytes(1_000_000), timeout=0.05)
    with raises_text(OSError, "an earlier write was cut short"):
        a.write(b"x")
    b.write(b"y")
    assert a.read(1) == b"y"


def test_a_certificate_nobody_trusts():
    base = open_descriptors()
    with gort.net.listen_tls("127.0.0.1:0", server_context()) as listener:
        accepted = gort.go(listener.accept)
        server = []

        def shake():
            server.append(accepted.join(timeout=LIMIT))
            try:
                server[0].handshake(timeout=LIMIT)
            except ssl.SSLError as error:
                return error.reason

        g = gort.go(shake)
        with pytest.raises(ssl.SSLCertVerificationError):
            gort.net.dial_tls(listener.local_addr(), client_context(trusts=False), LIMIT)
        assert "UNKNOWN_CA" in g.join(timeout=LIMIT)
        server[0].close()
    descriptors_back(base + 2)


def test_who_makes_no_handshake_keeps_nobody_out():
    with gort.net.listen_tls("127.0.0.1:0", server_context()) as listener:
        silent = gort.net.dial("tcp", listener.local_addr())
        first = listener.accept()
        with pytest.raises(TimeoutError):
            first.handshake(timeout=0.01)
        accepted = gort.go(listener.accept)
        other = gort.go(
            gort.net.dial_tls,
            listener.local_addr(),
            client_context(),
            LIMIT,
            server_hostname="localhost",
        )
        with accepted.join(timeout=LIMIT) as second:
            second.write(b"hi")
            with other.join(timeout=LIMIT) as conn:
                assert conn.read(2) == b"hi"
        silent.close()
        eventually(lambda: not first.closed)
        first.close()


def test_handshake_over_a_deadline_of_the_connection():
    a, b = connected()
    with a, b:
        client = gort.net.TLSConn(a, client_context(), server_hostname="localhost")
        client.set_deadline(time.time() + 0.02)
        with raises_text(TimeoutError, "i/o timeout"):
            client.read(1)
