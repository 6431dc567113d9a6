"""Operations for tests/nomemory.py on gort.net: what was received stays, what was sent is known."""

from __future__ import annotations

import socket

import gort
import gort.net
from gort._core import _net_dial
from nomemory_values import FAILED, LIMIT, use_up_tuples

DATA = bytes(range(256)) * 300  # more than is received into the buffer that is used again
PLACE = bytearray(1000)
LISTENER = gort.net.listen("tcp", "127.0.0.1:0")


def pair():
    """Two ends of a stream."""
    return [gort.net.from_socket(end) for end in socket.socketpair()]


def reading(read, *, waits):
    """Make an operation of `read`, of what is there or of what comes while it waits."""

    def operation():
        a, b = pair()
        gate = gort.Chan(1)

        def late():
            gate.recv()
            a.write(DATA)

        g = None
        if waits:
            g = gort.go(late)
            while g.status != "chan receive":
                gort.gosched()
        else:
            a.write(DATA)

        def act():
            if waits:
                gate.send(None)
            return read(b)

        def verify(outcome):
            if g is not None:
                gate.try_send(None)
                g.join(timeout=LIMIT)
            got = b"" if outcome is FAILED else outcome
            if isinstance(got, int):
                got = bytes(PLACE[:got])
            rest = b.read_exact(len(DATA) - len(got), timeout=LIMIT)
            assert got + rest == DATA
            a.close()
            assert b.read(1) == b""
            b.close()

        return act, verify

    return operation


def read_into(conn):
    """Read into a buffer; how much."""
    return conn.readinto(PLACE)


def read_in_a_context(conn):
    """Read with a context and a time-out."""
    return conn.read(100, LIMIT, gort.context.background())


def reads_too_much():
    """A stream that ends too early keeps what there was."""
    a, b = pair()
    a.write(b"abc")
    a.close()

    def act():
        try:
            b.read_exact(10)
        except gort.net.UnexpectedEOF as error:
            return error.received

    def verify(outcome):
        assert outcome in (FAILED, 3)
        assert b.read(10) == b"abc"
        b.close()

    return act, verify


def reading_more(first, asked):
    """Make an operation that reads more than the last read, `first` bytes, lets expect."""

    def operation():
        a, b = pair()
        a.write(bytes(first))
        left = first
        while left:
            left -= len(b.read(left))
        a.write(DATA)

        def verify(outcome):
            got = b"" if outcome is FAILED else outcome
            assert got + b.read_exact(len(DATA) - len(got), timeout=LIMIT) == DATA
            a.close()
            assert b.read(1) == b""
            b.close()

        return lambda: b.read(asked), verify

    return operation


def writing(write):
    """Make an operation of `write`: all of it arrives, or nothing."""

    def operation():
        a, b = pair()

        def verify(outcome):
            a.close()
            got = b.read(1000)
            assert got == (b"" if outcome is FAILED else b"hello")
            b.close()

        return lambda: write(a), verify

    return operation


def times_out():
    """The exception that says so needs memory."""
    a, b = pair()

    def act():
        try:
            b.read(1, timeout=0)
        except TimeoutError:
            return True

    def verify(outcome):
        assert outcome in (FAILED, True)
        a.write(b"x")
        assert b.read(1) == b"x"
        a.close()
        b.close()

    return act, verify


def accepts():
    """A connection is accepted, or still there."""
    client = gort.net.dial("tcp", LISTENER.local_addr())

    def verify(outcome):
        server = LISTENER.accept(timeout=LIMIT) if outcome is FAILED else outcome
        assert server.remote_addr() == client.local_addr()
        server.close()
        client.close()

    return lambda: LISTENER.accept(timeout=LIMIT), verify


def dials():
    """There is a connection, or what was begun of it is closed."""
    address = LISTENER.local_addr()

    def verify(outcome):
        if outcome is not FAILED:
            outcome.close()
        while True:
            try:
                with LISTENER.accept(timeout=0) as server:
                    assert server.read(1, timeout=LIMIT) == b""
            except TimeoutError:
                return
            except ConnectionResetError:
                pass

    return lambda: gort.net.dial("tcp", address), verify


def refuses():
    """Nobody listens; the text that says so needs memory."""
    with gort.net.listen("tcp", "127.0.0.1:0") as gone:
        address = gone.local_addr()

    def act():
        try:
            # Through no other frame: CPython 3.11 loses an exception where a frame object is refused.
            _net_dial(gort.net.Conn, "tcp", socket.SOCK_STREAM, address, None, None, None)
        except ConnectionRefusedError:
            return True

    return act, lambda outcome: None


def receives_packets():
    """A packet is given out whole, with its sender, once."""
    a = gort.net.listen_packet("udp", "127.0.0.1:0")
    b = gort.net.listen_packet("udp", "127.0.0.1:0")
    a.write_to(b"first", b.local_addr())
    a.write_to(b"second", b.local_addr())
    used_up = use_up_tuples()

    def verify(outcome):
        used_up.clear()
        if outcome is FAILED:
            outcome = b.read_from(100, timeout=LIMIT)
        assert outcome == (b"first", a.local_addr())
        assert b.read(100) == b"second"
        a.close()
        b.close()

    return lambda: b.read_from(100), verify


def closes():
    """Closing needs no memory."""
    a, b = pair()

    def verify(outcome):
        assert outcome is None
        assert b.read(1) == b""
        b.close()

    return a.close, verify


OPERATIONS = {
    f.__name__: f
    for f in (
        reads_too_much, times_out, accepts, dials, refuses, receives_packets, closes,
    )
}  # fmt: skip
for name, read in {
    "read": lambda conn: conn.read(100),
    "read of all": lambda conn: conn.read(1 << 20),
    "read_exact": lambda conn: conn.read_exact(50_000),
    "readinto": read_into,
    "read in a context": read_in_a_context,
}.items():
    OPERATIONS[f"net {name}"] = reading(read, waits=False)
    OPERATIONS[f"net {name} that waits"] = reading(read, waits=True)
OPERATIONS["net read of more than expected"] = reading_more(20_000, 1 << 16)
OPERATIONS["net read of what is expected"] = reading_more(20_000, 20_000)
OPERATIONS["net read of less than expected"] = reading_more(60_000, 5_000)
for name, write in {
    "write": lambda conn: conn.write(b"hello"),
    "write of a view": lambda conn: conn.write(memoryview(b"hello")),
    "writev": lambda conn: conn.writev([b"hel", bytearray(b"lo")]),
    "write with a time-out": lambda conn: conn.write(b"hello", timeout=LIMIT),
}.items():
    OPERATIONS[f"net {name}"] = writing(write)
