"""gort.net packets: UDP and Unix datagrams, whole or cut off, with senders; errors."""

from __future__ import annotations

import os

import gort
import gort.net
import pytest
from waiting import LIMIT, OnThread, hold, waiter


@pytest.fixture(params=["udp", "udp6", "unixgram"])
def two(request, tmp_path):
    """Two sockets, and the address of each as the other sends to it."""
    network = request.param
    if network == "unixgram":
        places = [str(tmp_path / "a"), str(tmp_path / "b")]
    else:
        places = ["127.0.0.1:0" if network == "udp" else "[::1]:0"] * 2
    with gort.net.listen_packet(network, places[0]) as a:
        with gort.net.listen_packet(network, places[1]) as b:
            yield a, b


def to(conn):
    address = conn.local_addr()
    return os.fsencode(address) if isinstance(address, str) else address


def test_packets_come_whole_with_their_sender(two, anywhere):
    a, b = two

    def body():
        for data in (b"x", b"", b"y" * 5000, bytearray(b"z")):
            a.write_to(data, to(b))
            assert b.read_from(10_000) == (data, a.local_addr())
        a.write_to(b"into", to(b))
        place = bytearray(10)
        assert (b.readinto(place), place) == (4, b"into\0\0\0\0\0\0")

    anywhere(body)


def test_a_reader_waits(two):
    a, b = two
    for start in (waiter, OnThread):
        reader = start(b.read, 10)
        a.write_to(b"hello", to(b))
        assert reader.join(timeout=LIMIT) == b"hello"


def test_what_is_too_long_is_cut_off(two):
    a, b = two
    a.write_to(b"0123456789", to(b))
    a.write_to(b"next", to(b))
    assert b.read(4) == b"0123"
    assert b.read_from(0) == (b"", a.local_addr())
    a.write_to(b"abcdef", to(b))
    place = bytearray(3)
    assert (b.readinto(place), place) == (3, b"abc")


def test_one_other_end(two):
    a, b = two
    if a.network == "unixgram":
        client = gort.net.dial(a.network, a.local_addr(), local=b.local_addr() + "c")
    else:
        client = gort.net.dial(a.network, a.local_addr())
    with client:
        assert client.remote_addr() == a.local_addr()
        client.write(b"ping")
        data, sender = a.read_from(10)
        assert (data, sender) == (b"ping", client.local_addr())
        a.write_to(b"pong", to(client))
        assert client.read_from(10) == (b"pong", a.local_addr())
        b.write_to(b"not from there", to(client)) if a.network != "unixgram" else None
        a.write_to(b"again", to(client))
        assert client.read(100) == b"again"


def test_errors():
    with gort.net.listen_packet("udp", "127.0.0.1:0") as a:
        with gort.net.listen_packet("udp", "127.0.0.1:0") as gone:
            port = gone.local_addr()[1]
        with gort.net.dial("udp", ("127.0.0.1", port)) as client:
            client.write(b"x")
            with pytest.raises(ConnectionRefusedError, match="read udp .*connection refused"):
                client.read(10, timeout=LIMIT)
        with pytest.raises(OSError, match="message too long"):
            a.write_to(bytes(70_000), ("127.0.0.1", 9))
        for address, error in (
            (("localhost", 1), ValueError),
            (("127.0.0.1", 70_000), ValueError),
            (("127.0.0.1",), TypeError),
            ("127.0.0.1:1", TypeError),
            ((1, 1), TypeError),
        ):
            with pytest.raises(error):
                a.write_to(b"x", address)
        with pytest.raises(OSError, match="destination address required"):
            a.write(b"x")
    with pytest.raises(ValueError):
        gort.net.listen_packet("tcp", "127.0.0.1:0")


def test_an_ipv4_sender_at_a_socket_for_both():
    with gort.net.listen_packet("udp", ":0") as both:
        port = both.local_addr()[1]
        with gort.net.dial("udp", ("127.0.0.1", port)) as client:
            client.write(b"x")
            data, sender = both.read_from(10)
            assert (data, sender) == (b"x", client.local_addr())
            both.write_to(b"y", sender)
            assert client.read(10) == b"y"


def test_files_of_unix_sockets_go(tmp_path):
    path = tmp_path / "packets"
    with gort.net.listen_packet("unixgram", path) as conn:
        assert path.is_socket()
        assert "packets" in repr(conn)
    assert not path.exists()


def test_many_senders(two):
    a, b = two

    def send(i):
        a.write_to(b"%d" % i, to(b))

    receiver = gort.go(lambda: {b.read(10, timeout=LIMIT) for _ in range(100)})
    for i in range(100):
        gort.go(send, i).join(timeout=LIMIT)
    assert receiver.join(timeout=LIMIT) == {b"%d" % i for i in range(100)}


def test_who_sends_to_a_full_queue_leaves_the_interpreter_to_who_empties_it(tmp_path):
    """Each packet that is refused has an event of its own: there is always something to try."""
    count = 2000
    with gort.net.listen_packet("unixgram", tmp_path / "a") as a:
        with gort.net.listen_packet("unixgram", tmp_path / "b") as b:

            def reads():
                hold(0.05)  # the queue is full by then: time is the subject
                return [int(b.read(10)) for _ in range(count)]

            reader = OnThread(reads)
            for i in range(count):
                a.write_to(b"%d" % i, to(b))
            assert reader.join() == list(range(count))
