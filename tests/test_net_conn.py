"""gort.net.Conn: what is sent arrives, in goroutines and threads; ends, halves, parts, buffers."""

from __future__ import annotations

import gc
import io
import os
import random
import warnings

import gort
import gort.net
import pytest
from children import check
from netting import connected, descriptors_back, open_descriptors, small_buffers
from waiting import LIMIT, OnThread, in_thread, join_all, parked, raises_text, waiter


@pytest.fixture(autouse=True)
def no_descriptor_left():
    base = open_descriptors()
    yield
    descriptors_back(base + 2)  # the poller, if this test began it


@pytest.fixture(params=["tcp", "tcp6", "unix", "abstract"])
def pair(request, tmp_path):
    network, address = {
        "tcp": ("tcp", "127.0.0.1:0"),
        "tcp6": ("tcp6", "[::1]:0"),
        "unix": ("unix", str(tmp_path / "s")),
        "abstract": ("unix", f"@gort-{os.getpid()}-{random.random()}"),
    }[request.param]
    a, b = connected(network, address)
    with a, b:
        yield a, b


@pytest.fixture
def tcp():
    a, b = connected()
    with a, b:
        yield a, b


def test_round_trip(pair, anywhere):
    a, b = pair

    def body():
        a.write(b"hello")
        assert b.read(100) == b"hello"
        b.writev([b"wor", bytearray(b"ld"), b"", memoryview(b"!!")[:1]])
        assert a.read_exact(6) == b"world!"

    anywhere(body)


def test_a_reader_waits_for_a_writer(pair):
    a, b = pair
    for start in (waiter, OnThread):
        reader = start(b.read, 100)
        a.write(b"x")
        assert reader.join(timeout=LIMIT) == b"x"


def test_status_of_a_reader_is_io_wait(tcp):
    reader = waiter(tcp[0].read, 1)
    assert reader.status == "IO wait"
    tcp[1].write(b"x")
    reader.join(timeout=LIMIT)


@pytest.mark.parametrize("size", [1, 100, 32768, 32769, 65536, 65537, 300_000, 3_000_000])
def test_reads_give_at_most_what_was_asked_for(tcp, size):
    a, b = tcp
    data = os.urandom(1_000_000)
    writer = gort.go(a.write, data)
    got = bytearray()
    while len(got) < len(data):
        part = b.read(size)
        assert 1 <= len(part) <= size
        assert part == data[len(got) : len(got) + len(part)]
        got += part
        if size < 100 and len(got) > 1000:
            got += b.read_exact(len(data) - len(got))
    assert bytes(got) == data
    writer.join(timeout=LIMIT)


def test_everything_arrives_through_tiny_buffers(pair):
    a, b = pair
    small_buffers(a, b)
    data = os.urandom(60_000)
    for start in (gort.go, OnThread):
        writer = start(a.write, data)
        assert b.read_exact(len(data)) == data
        writer.join(timeout=LIMIT)
    parts = [data[i : i + 777] for i in range(0, len(data), 777)]
    writer = gort.go(a.writev, parts)
    assert b.read_exact(len(data)) == data
    writer.join(timeout=LIMIT)


def test_what_one_writes_stays_in_one_piece(tcp):
    a, b = tcp
    small_buffers(a, b)
    size = 10_000
    writers = [gort.go(a.write, bytes([i]) * size) for i in range(10)]
    whole = b.read_exact(10 * size)
    assert [whole[i * size : (i + 1) * size] for i in range(10)] == [
        bytes([whole[i * size]]) * size for i in range(10)
    ]
    join_all(writers)


def test_read_exact_and_its_end(pair):
    a, b = pair
    a.write(b"abc")
    a.close_write()
    with raises_text(gort.net.UnexpectedEOF, "unexpected EOF, 3 of 10 bytes") as caught:
        b.read_exact(10)
    assert (caught.value.received, caught.value.wanted) == (3, 10)
    assert b.read_exact(2) == b"ab"
    assert b.read(100) == b"c"
    assert b.read(100) == b""
    with pytest.raises(gort.net.UnexpectedEOF):
        b.read_exact(1)
    assert b.read_exact(0) == b"" == b.read(0)


def test_read_exact_that_runs_out_of_time_takes_nothing(tcp):
    a, b = tcp
    a.write(b"abc")
    for _ in range(2):
        with pytest.raises(TimeoutError):
            b.read_exact(5, timeout=0.01)
    place = bytearray(2)
    assert b.readinto(place) == 2
    a.write(b"def")
    assert (bytes(place), b.read_exact(4)) == (b"ab", b"cdef")


def test_readinto(pair):
    a, b = pair
    a.write(b"abcdef")
    place = bytearray(10)
    assert b.readinto(memoryview(place)[2:5]) == 3
    assert place == b"\0\0abc\0\0\0\0\0"
    assert b.readinto(bytearray()) == 0
    assert b.readinto(place) == 3
    a.close_write()
    assert b.readinto(place) == 0
    with pytest.raises(BufferError):
        b.readinto(b"read-only")


def test_half_close(pair):
    a, b = pair
    a.close_write()
    assert b.read(10) == b""
    b.write(b"still")
    assert a.read(10) == b"still"
    with pytest.raises(BrokenPipeError, match="write (tcp|unix).*: broken pipe"):
        a.write(b"x")
    reader = waiter(a.read, 1)
    a.close_read()
    assert reader.join(timeout=LIMIT) == b""


def test_wrong_arguments(tcp):
    a, _ = tcp
    for call, error in (
        (lambda: a.read(), TypeError),
        (lambda: a.read("1"), TypeError),
        (lambda: a.read(-1), ValueError),
        (lambda: a.read(1 << 70), OverflowError),
        (lambda: a.read_exact(1 << 60), MemoryError),
        (lambda: a.read(1, timeout=-1), ValueError),
        (lambda: a.read(1, bad=1), TypeError),
        (lambda: a.write("text"), TypeError),
        (lambda: a.write(1), TypeError),
        (lambda: a.writev(1), TypeError),
        (lambda: a.writev([b"a", 1]), TypeError),
        (lambda: a.readinto(1), TypeError),
        (lambda: a.set_deadline("now"), TypeError),
        (lambda: a.set_deadline(float("nan")), ValueError),
        (lambda: a.read(1, ctx=1), TypeError),
        (lambda: gort.net.Conn(-1, "tcp"), OSError),
        (lambda: gort.net.Conn("x", "tcp"), TypeError),
    ):
        with pytest.raises(error):
            call()


def test_addresses(tcp):
    a, b = tcp
    assert a.local_addr() == b.remote_addr()
    assert a.remote_addr() == b.local_addr()
    assert a.local_addr()[0] == "127.0.0.1"
    before = a.local_addr(), a.remote_addr()
    a.close()
    assert (a.local_addr(), a.remote_addr()) == before
    assert "closed" in repr(a)
    assert "127.0.0.1" in repr(b)
    assert (a.fileno(), a.closed, b.closed) == (-1, True, False)


def test_errors_say_what_and_between_whom(tcp):
    a, b = tcp
    ends = f"127.0.0.1:{a.local_addr()[1]}->127.0.0.1:{a.remote_addr()[1]}"
    b.write(b"x")
    a.write(b"unread")
    b.close()  # with something unread: a reset
    with pytest.raises(ConnectionResetError, match=f"(read|write) tcp {ends}: "):
        while True:
            a.write(b"x")
            a.read(100)
    a.close()
    with raises_text(gort.net.Closed, f"read tcp {ends}: use of closed network connection"):
        a.read(1)


def test_a_cut_send_says_how_much_was_sent(tcp):
    a, b = tcp
    data = os.urandom(20_000_000)
    with pytest.raises(TimeoutError) as caught:
        a.write(data, timeout=0.3)
    sent = caught.value.sent
    assert 0 < sent < len(data)
    reader = gort.go(b.read_exact, sent)
    with pytest.raises(TimeoutError) as caught:
        a.writev([data[sent : sent + 100], data], timeout=0.3)
    assert reader.join(timeout=LIMIT) == data[:sent]
    again = caught.value.sent
    a.close_write()
    assert b.read_exact(again) == (data[sent : sent + 100] + data)[:again]
    assert b.read(1) == b""


def test_sendfile(tcp, tmp_path):
    a, b = tcp
    data = os.urandom(1_500_000)
    (tmp_path / "f").write_bytes(data)
    with open(tmp_path / "f", "rb") as file:
        for arguments, part in (
            ((), data),
            ((1_000_000,), data[1_000_000:]),
            ((10, 1_000_000), data[10:1_000_010]),
            ((1_499_990, 100), data[-10:]),
            ((2_000_000,), b""),
            ((0, 0), b""),
        ):
            sender = gort.go(a.sendfile, file, *arguments)
            assert b.read_exact(len(part)) == part
            assert sender.join(timeout=LIMIT) == len(part)
        assert file.tell() == 0
    with pytest.raises((OSError, AttributeError)):
        a.sendfile(io.BytesIO(b"x"))


def test_sendfile_cut_short_says_how_much(tcp, tmp_path):
    a, b = tcp
    (tmp_path / "f").write_bytes(bytes(20_000_000))
    with open(tmp_path / "f", "rb") as file, pytest.raises(TimeoutError) as caught:
        a.sendfile(file, timeout=0.2)
    assert 0 < caught.value.sent < 20_000_000
    a.close_write()
    b.read_exact(caught.value.sent)
    assert b.read(1) == b""


def test_a_thousand_connections():
    with gort.net.listen("tcp", "127.0.0.1:0") as listener:

        def echo(conn):
            while data := conn.read(100):
                conn.write(data)

        server = gort.go(listener.serve, echo)
        gate = gort.Chan()

        def client(i):
            with gort.net.dial("tcp", listener.local_addr()) as conn:
                conn.write(b"%d" % i)
                assert conn.read(100) == b"%d" % i
                gate.recv_ok()
                conn.write(b"again")
                return conn.read_exact(5)

        clients = [gort.go(client, i) for i in range(1000)]
        parked(*clients)
        gate.close()
        assert join_all(clients) == [b"again"] * 1000
    server.join(timeout=LIMIT)


def test_a_forgotten_connection_is_closed_with_a_warning():
    a, b = connected()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        del a
        gc.collect()
    assert [w.category for w in seen] == [ResourceWarning]
    assert "unclosed <gort.net.Conn tcp" in str(seen[0].message)
    assert b.read(1) == b""
    b.close()


def test_from_socket():
    import socket

    left, right = socket.socketpair()
    conn = gort.net.from_socket(left)
    with conn, right:
        right.sendall(b"abc")
        assert conn.read(10) == b"abc"
        assert left.fileno() == -1
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = gort.net.from_socket(server)
        assert isinstance(listener, gort.net.Listener)
        with listener, gort.net.dial("tcp", listener.local_addr()):
            listener.accept().close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        packets = gort.net.from_socket(udp)
        assert isinstance(packets, gort.net.PacketConn)
        packets.close()


def test_threads_that_are_no_goroutines_do_all_of_it():
    def body():
        with gort.net.listen("tcp", "127.0.0.1:0") as listener:
            accepted = OnThread(listener.accept)
            with gort.net.dial("tcp", listener.local_addr()) as a, accepted.join() as b:
                reader = OnThread(b.read_exact, 1_000_000)
                a.write(bytes(1_000_000))
                return len(reader.join())

    assert in_thread(body) == 1_000_000


def test_a_forked_child_goes_on():
    check(
        """
        import os, warnings, gort, gort.net
        warnings.filterwarnings("ignore", message=".*multi-threaded", category=DeprecationWarning)
        from netting import connected
        a, b = connected()
        waits = gort.go(b.read, 1)
        while waits.status != "IO wait":
            gort.gosched()
        c, d = connected()
        pid = os.fork()
        if pid == 0:
            d.write(b"child")
            assert d.read_exact(2) == b"ok"
            e, f = connected()
            e.write(b"x")
            assert f.read(1) == b"x"
            os._exit(0)
        assert c.read_exact(5) == b"child"
        c.write(b"ok")
        assert os.waitpid(pid, 0)[1] == 0
        a.write(b"z")
        assert waits.join(timeout=50) == b"z"
        for conn in (a, b, c, d):
            conn.close()
        print("both")
        """,
        "both",
    )


def test_compiled_methods_are_of_the_class_itself_and_its_own_stay():
    """CPython calls a method the short way where the object's class is the one it is of."""
    for cls, name in (
        (gort.net.Conn, "read"),
        (gort.net.Conn, "close"),
        (gort.net.Listener, "accept"),
        (gort.net.PacketConn, "read_from"),
    ):
        assert vars(cls)[name].__objclass__ is cls
        assert getattr(cls, name).__qualname__ == f"{cls.__name__}.{name}"
    assert not hasattr(gort.net.PacketConn.close, "__objclass__")  # in Python, for its file
    for wrong in (int, object(), None):
        with pytest.raises(TypeError, match="a class of gort.net is expected"):
            gort._core._net_own(wrong)


def test_class_below_conn_has_its_own_method_before_the_compiled_one(tcp):
    class Loud(gort.net.Conn):
        __slots__ = ()

        def read(self, n, timeout=None, ctx=None):
            return super().read(n, timeout, ctx).upper()

    a, b = tcp
    with Loud(os.dup(b.fileno()), "tcp") as loud:
        a.write(b"quiet")
        assert loud.read(10) == b"QUIET"
        loud.write(b"answer")
        assert a.read_exact(6) == b"answer"
