"""gort.net.Conn.read where much is expected: room of its own, more than that, less, none, an end."""

from __future__ import annotations

import os
import socket
import struct
import sys

import gort
import pytest
from netting import connected
from waiting import LIMIT, OnThread, waiter

LARGE = 20_000


@pytest.fixture(params=["tcp", "unix"])
def pair(request, tmp_path):
    address = {"tcp": "127.0.0.1:0", "unix": str(tmp_path / "s")}[request.param]
    a, b = connected(request.param, address)
    with a, b:
        yield a, b


def expect_much(a, b, size=LARGE, asked=1 << 16):
    """Have `b` read `size` bytes, so that as much is expected of the next read."""
    data = os.urandom(size)
    a.write(data)
    assert read_all(b, size, asked) == data


def read_all(conn, size, asked):
    """Read until there are `size` bytes, at most `asked` at a time."""
    got = b""
    while len(got) < size:
        part = conn.read(min(asked, size - len(got)))
        assert part
        got += part
    return got


@pytest.mark.parametrize("asked", [LARGE, LARGE + 1, 25_000, 65_536, 80_000, 300_000])
@pytest.mark.parametrize("size", [1, 4_095, 4_096, 18_000, LARGE, 23_000, 60_000])
def test_whatever_comes_after_much_arrives(pair, asked, size, anywhere):
    a, b = pair

    def body():
        for _ in range(3):
            expect_much(a, b)
            data = os.urandom(size)
            a.write(data)
            part = b.read(asked)
            assert type(part) is bytes
            assert len(part) <= asked
            assert part + read_all(b, size - len(part), asked) == data

    anywhere(body)


@pytest.mark.parametrize("size", [LARGE, 23_000, 60_000, 65_536])
def test_one_read_gives_all_that_is_there(size):
    a, b = connected()
    with a, b:
        expect_much(a, b)
        data = os.urandom(size)
        a.write(data)  # over the loopback it is there when the call returns
        assert b.read(65_536) == data


@pytest.mark.parametrize("size", [LARGE, LARGE + LARGE // 8, LARGE + LARGE // 8 + 1, 60_000])
def test_a_reset_after_much_is_told_by_the_read_that_follows(size):
    a, b = connected()
    with a, b:
        expect_much(a, b)
        data = os.urandom(size)
        a.write(data)
        with socket.socket(fileno=os.dup(a.fileno())) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            a.close()  # the other descriptor is the last one
        assert b.read(65_536) == data
        with pytest.raises(ConnectionResetError):
            b.read(65_536)
        assert b.read(65_536) == b""


def test_results_are_bytes_like_any_other(pair):
    a, b = pair
    seen = set()
    for size in [LARGE, LARGE - 100, LARGE + 100, 5_000, 100, LARGE, 8_000]:
        data = os.urandom(size)
        a.write(data)
        part = b.read(65_536)
        part += read_all(b, size - len(part), 65_536)
        assert len(part) == size
        assert hash(part) == hash(data)
        assert part + b"x" == data + b"x"
        assert part.find(data[-5:]) >= 0
        seen.add(part)
    assert len(seen) == 7


def test_little_keeps_little_memory(pair):
    a, b = pair
    expect_much(a, b)
    a.write(b"x" * 300)
    part = b.read(65_536)
    assert part == b"x" * 300
    assert sys.getsizeof(part) == sys.getsizeof(bytes(300))


def test_the_end_after_much(pair):
    a, b = pair
    expect_much(a, b)
    a.write(b"last")
    a.close_write()
    assert b.read(65_536) == b"last"
    assert b.read(65_536) == b"" == b.read(LARGE)
    b.write(b"the other direction")
    assert a.read(100) == b"the other direction"


def test_exchanges_of_exactly_what_is_asked_for(pair):
    a, b = pair

    def echo():
        while data := b.read(LARGE):
            b.write(data)

    g = gort.go(echo)
    for _ in range(50):
        data = os.urandom(LARGE)
        a.write(data)
        assert a.read_exact(LARGE) == data
    a.write(b"small")
    assert a.read_exact(5) == b"small"
    a.close_write()
    g.join(timeout=LIMIT)


def test_a_cancelled_reader_of_much_takes_nothing(pair):
    a, b = pair
    for _ in range(3):
        expect_much(a, b, asked=LARGE)
        reader = waiter(b.read, LARGE)
        reader.cancel()
        with pytest.raises(gort.Cancelled):
            reader.join(timeout=LIMIT)
        with pytest.raises(TimeoutError):
            b.read(LARGE, timeout=0.001)
        data = os.urandom(LARGE)
        a.write(data)
        assert read_all(b, LARGE, LARGE) == data


def test_readers_of_many_connections_take_turns_with_the_spare_buffer():
    pairs = [connected() for _ in range(20)]

    def echo(conn):
        while data := conn.read(65_536):
            conn.write(data)

    def talk(conn, number):
        for i in range(30):
            data = bytes([number, i]) * (5_000 + 7_919 * i % 25_000)
            conn.write(data)
            assert conn.read_exact(len(data)) == data
        conn.close_write()

    echoes = [gort.go(echo, b) for _, b in pairs]
    clients = [gort.go(talk, a, i) for i, (a, _) in enumerate(pairs)]
    for g in clients + echoes:
        g.join(timeout=LIMIT)
    for a, b in pairs:
        a.close()
        b.close()


def test_a_plain_thread_reads_much():
    a, b = connected()
    with a, b:
        expect_much(a, b)
        data = os.urandom(50_000)
        reader = OnThread(read_all, b, len(data), 65_536)
        a.write(data)
        assert reader.join(timeout=LIMIT) == data
