"""Sockets and pipes in goroutines, as the kernel has it: flags, time-outs, parts, ends, errors."""

from __future__ import annotations

import array
import errno
import itertools
import os
import resource
import socket
import struct
import time

import gort
import pytest
from waiting import LIMIT, OnThread, in_goroutine, join_all, parked, waiter

IS_AGAIN = pytest.raises(BlockingIOError)


def timeval(seconds):
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    with a, b:
        yield a, b


@pytest.fixture(params=["tcp", "unix", "socketpair"])
def connected(request, tmp_path):
    """Two ends of a stream."""
    if request.param == "socketpair":
        a, b = socket.socketpair()
    else:
        family = socket.AF_INET if request.param == "tcp" else socket.AF_UNIX
        address = ("127.0.0.1", 0) if request.param == "tcp" else str(tmp_path / "s")
        with socket.socket(family) as listener:
            listener.bind(address)
            listener.listen()
            accepts = gort.go(listener.accept)
            a = socket.socket(family)
            in_goroutine(a.connect, listener.getsockname())
            b, _ = accepts.join(timeout=LIMIT)
    with a, b:
        yield a, b


def test_everything_sent_arrives_in_parts(connected):
    a, b = connected
    data = os.urandom(3_000_000)

    def take():
        got = bytearray()
        while len(got) < len(data):
            part = b.recv(100_000)
            assert part
            got += part
        return bytes(got)

    for start in (gort.go, OnThread):
        reader = start(take)
        in_goroutine(a.sendall, data)
        assert reader.join(timeout=LIMIT) == data


def test_end_of_a_stream_is_seen(connected):
    a, b = connected
    reader = waiter(b.recv, 10)
    a.shutdown(socket.SHUT_WR)
    assert reader.join(timeout=LIMIT) == b""
    reader = waiter(a.recv, 10)
    b.close()
    assert reader.join(timeout=LIMIT) == b""
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        in_goroutine(a.sendall, b"x" * 10)


def test_shutdown_here_wakes_the_reader_here(connected):
    _, b = connected
    reader = waiter(b.recv, 10)
    b.shutdown(socket.SHUT_RD)
    assert reader.join(timeout=LIMIT) == b""


def test_time_out_of_a_socket_object(anywhere, pair):
    def body():
        _, b = pair
        b.settimeout(0.01)
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            b.recv(1)
        with pytest.raises(TimeoutError):
            while True:
                b.send(b"x" * 100_000)
        return time.monotonic() - start

    assert anywhere(body) >= 0.019


def test_non_blocking_comes_back_at_once(anywhere, pair):
    _, b = pair
    b.setblocking(False)

    def body():
        with IS_AGAIN:
            b.recv(1)
        with IS_AGAIN:
            while True:
                b.send(b"x" * 100_000)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            with IS_AGAIN:
                listener.accept()

    anywhere(body)


def test_dont_wait_comes_back_at_once(anywhere, pair):
    _, b = pair

    def body():
        for flags in (socket.MSG_DONTWAIT, socket.MSG_DONTWAIT | socket.MSG_PEEK):
            with IS_AGAIN:
                b.recv(1, flags)
        with IS_AGAIN:
            b.recvmsg(1, 0, socket.MSG_DONTWAIT)
        with IS_AGAIN:
            while True:
                b.send(b"x" * 100_000, socket.MSG_DONTWAIT)

    anywhere(body)


def test_wait_all_waits_for_all(connected):
    a, b = connected
    reader = waiter(b.recv, 1000, socket.MSG_WAITALL)
    for _ in range(9):
        a.send(b"y" * 100)
        gort.gosched()
        parked(reader)
    a.send(b"y" * 150)
    assert reader.join(timeout=LIMIT) == b"y" * 1000
    assert b.recv(100) == b"y" * 50
    reader = waiter(b.recv, 1000, socket.MSG_WAITALL)
    a.send(b"part")
    a.shutdown(socket.SHUT_WR)
    assert reader.join(timeout=LIMIT) == b"part"


def test_wait_all_with_peek_and_zero_bytes(pair):
    a, b = pair
    a.send(b"abc")
    assert in_goroutine(b.recv, 3, socket.MSG_WAITALL | socket.MSG_PEEK) == b"abc"
    assert in_goroutine(b.recv, 0) == b""
    assert in_goroutine(b.recv, 3) == b"abc"


def test_kernel_time_outs(anywhere, pair):
    _, b = pair
    b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(0.02))
    b.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(0.02))

    def body():
        start = time.monotonic()
        with IS_AGAIN:
            b.recv(1)
        with IS_AGAIN:
            b.recv(10, socket.MSG_WAITALL)
        with IS_AGAIN:
            while True:
                b.send(b"x" * 100_000)
        return time.monotonic() - start

    assert anywhere(body) >= 0.05


def test_kernel_time_out_of_accept(anywhere):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval(0.02))

        def body():
            with IS_AGAIN:
                listener.accept()

        anywhere(body)


def test_datagrams(tmp_path):
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b,
    ):
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        reader = waiter(b.recvfrom, 100)
        in_goroutine(a.sendto, b"one", b.getsockname())
        assert reader.join(timeout=LIMIT) == (b"one", a.getsockname())
        buffer = bytearray(2)
        reader = waiter(b.recvfrom_into, buffer)
        a.sendto(b"truncated", b.getsockname())
        assert reader.join(timeout=LIMIT) == (2, a.getsockname())
        assert buffer == b"tr"
        reader = waiter(b.recvfrom, 10)
        a.sendto(b"", b.getsockname())
        assert reader.join(timeout=LIMIT)[0] == b""
        a.connect(b.getsockname())
        b.close()
        a.send(b"to nobody")
        with pytest.raises(ConnectionRefusedError):
            in_goroutine(a.recv, 1)


def test_unix_datagrams_wait_for_room():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:

        def feed():
            for i in range(500):
                a.send(b"%d" % i)

        writer = waiter(feed)
        assert [int(b.recv(10)) for _ in range(500)] == [*range(500)]
        writer.join(timeout=LIMIT)


def test_sequenced_packets_keep_their_bounds():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        reader = waiter(b.recv, 100, socket.MSG_WAITALL)
        a.send(b"one")
        a.send(b"two")
        assert reader.join(timeout=LIMIT) == b"one"
        assert in_goroutine(b.recv, 100) == b"two"


def test_messages_with_descriptors(pair):
    a, b = pair
    r, w = os.pipe()
    reader = waiter(b.recvmsg, 10, 100)
    a.sendmsg([b"to", b"ge"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [r]))])
    data, control, _, _ = reader.join(timeout=LIMIT)
    assert data == b"toge"
    (fd,) = array.array("i", control[0][2])
    other = waiter(os.read, fd, 5)
    os.write(w, b"x")
    assert other.join(timeout=LIMIT) == b"x"
    for each in (r, w, fd):
        os.close(each)


def test_sendmsg_and_recvmsg_into_of_more_than_fits(pair):
    a, b = pair
    parts = [os.urandom(200_000) for _ in range(5)]
    writer = waiter(a.sendmsg, parts)
    buffers = [bytearray(100_000), bytearray(50_000)]
    got = b""
    while len(got) < 1_000_000:
        n = in_goroutine(b.recvmsg_into, buffers)[0]
        got += b"".join(buffers)[:n]
    assert got == b"".join(parts)
    assert writer.join(timeout=LIMIT) == 1_000_000


def test_sendfile(tmp_path, pair):
    a, b = pair
    path = tmp_path / "file"
    path.write_bytes(os.urandom(2_000_000))
    with path.open("rb") as file:
        writer = gort.go(a.sendfile, file)
        got = b""
        while len(got) < 2_000_000:
            got += b.recv(1 << 20)
        assert writer.join(timeout=LIMIT) == 2_000_000
    assert got == path.read_bytes()


# connections


def test_hundreds_of_connections_at_once():
    with socket.create_server(("127.0.0.1", 0), backlog=400) as listener:

        def serve():
            ends = []
            for _ in range(300):
                connection, _ = listener.accept()
                ends.append(gort.go(echo, connection))
            join_all(ends)

        def echo(connection):
            with connection:
                connection.sendall(connection.recv(100).upper())

        def ask(i):
            with socket.create_connection(listener.getsockname()) as mine:
                mine.sendall(b"ask %d" % i)
                return mine.recv(100)

        server = gort.go(serve)
        assert join_all([gort.go(ask, i) for i in range(300)]) == [
            b"ASK %d" % i for i in range(300)
        ]
        server.join(timeout=LIMIT)


def connects_that_were_accepted_at_once(count):
    """Of `count` connects to a Unix socket, whose calls end at once, those that an accept followed."""
    came, kept = [], []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # the kernel finds a name
        listener.listen(5)

        def accept():
            for _ in range(count):
                kept.append(listener.accept()[0])
                came.append("accepted")

        def ask():
            came.append("asked")
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(listener.getsockname())
            kept.append(connection)

        acceptor = waiter(accept)
        join_all([gort.go(ask) for _ in range(count)])
        acceptor.join(timeout=LIMIT)
    for connection in kept:
        connection.close()
    return sum(pair == ("asked", "accepted") for pair in itertools.pairwise(came))


def test_who_accepts_comes_before_the_next_to_connect():
    """A short queue of connections holds: what does not fit would come again a second later, by TCP.

    Otherwise many connect first: with all else equal an accept follows 18 to 67 of 200. Whose call
    lasts gives its processor away, so that a busy machine may mix them up in one try, not in all.
    """
    tries = (connects_that_were_accepted_at_once(200) for _ in range(5))
    assert any(at_once >= 150 for at_once in tries)


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        return gone.getsockname()


def test_nobody_listens(anywhere, tmp_path):
    def body():
        with socket.socket() as mine, pytest.raises(ConnectionRefusedError):
            mine.connect(closed_port())
        with socket.socket() as mine:
            assert mine.connect_ex(closed_port()) == errno.ECONNREFUSED
        with socket.socket(socket.AF_UNIX) as mine, pytest.raises(FileNotFoundError):
            mine.connect(str(tmp_path / "none"))

    anywhere(body)


def test_a_socket_that_was_refused_can_try_again(anywhere):
    def body():
        with socket.socket() as mine, socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            for _ in range(3):
                assert mine.connect_ex(listener.getsockname()) == errno.ECONNREFUSED
            listener.listen()
            return mine.connect_ex(listener.getsockname())

    assert anywhere(body) == 0


def test_connect_that_nobody_answers_times_out(anywhere, tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "full"))
        listener.listen(0)
        first = socket.socket(socket.AF_UNIX)
        first.connect(str(tmp_path / "full"))

        def body():
            with socket.socket(socket.AF_UNIX) as mine:
                mine.settimeout(0.02)
                with pytest.raises((TimeoutError, BlockingIOError)):
                    mine.connect(str(tmp_path / "full"))

        anywhere(body)
        first.close()


def test_flags_of_a_socket_are_as_before_after_connect():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as mine:
        in_goroutine(mine.connect, listener.getsockname())
        assert os.get_blocking(mine.fileno())
        with pytest.raises(OSError) as caught:
            in_goroutine(mine.connect, listener.getsockname())
        assert caught.value.errno == errno.EISCONN


def test_reset_is_seen_by_a_parked_reader():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        mine = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
        reader = waiter(mine.recv, 10)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
        with pytest.raises(ConnectionResetError):
            reader.join(timeout=LIMIT)
        mine.close()


def test_no_descriptor_left_for_accept():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepts = waiter(listener.accept)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        mine = socket.socket()
        top = os.dup(0)
        os.close(top)
        resource.setrlimit(resource.RLIMIT_NOFILE, (top, before[1]))
        try:
            mine.connect(listener.getsockname())
            with pytest.raises(OSError) as caught:
                accepts.join(timeout=LIMIT)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert caught.value.errno == errno.EMFILE
        other, _ = in_goroutine(listener.accept)
        other.close()
        mine.close()


# descriptors that end


@pytest.mark.parametrize("call", ["recv", "read", "accept"])
@pytest.mark.parametrize("closer", ["main", "goroutine", "thread"])
def test_close_ends_who_waits_there_with_ebadf(call, closer):
    import waiting

    if call == "accept":
        end = socket.create_server(("127.0.0.1", 0))
        waits, others = end.accept, []
    else:
        a, end = socket.socketpair()
        waits, others = (lambda: end.recv(1)) if call == "recv" else (lambda: os.read(fd, 1)), [a]
    fd = end.fileno()
    goroutines = [waiter(waits) for _ in range(5)]
    getattr(waiting, f"in_{closer}")(os.close, fd)
    for g in goroutines:
        with pytest.raises(OSError) as caught:
            g.join(timeout=LIMIT)
        assert caught.value.errno == errno.EBADF
    end.detach()
    for other in others:
        other.close()


def test_number_in_use_again_is_another_file():
    for _ in range(50):
        a, b = socket.socketpair()
        reader = waiter(b.recv, 10)
        number = b.fileno()
        os.close(number)
        b.detach()
        c, d = socket.socketpair()
        assert number in (c.fileno(), d.fileno())
        new = waiter(d.recv, 10)
        with pytest.raises(OSError, match="Bad file descriptor"):
            reader.join(timeout=LIMIT)
        c.send(b"new")
        assert new.join(timeout=LIMIT) == b"new"
        for each in (a, c, d):
            each.close()


def test_dup2_over_a_descriptor_ends_who_waits_there(pair):
    a, b = pair
    r, w = os.pipe()
    reader = waiter(os.read, r, 5)
    os.dup2(b.fileno(), r)
    with pytest.raises(OSError, match="Bad file descriptor"):
        reader.join(timeout=LIMIT)
    reader = waiter(os.read, r, 5)
    a.send(b"new")
    assert reader.join(timeout=LIMIT) == b"new"
    os.close(r)
    os.close(w)
