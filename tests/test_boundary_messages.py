"""What sockets promise beyond one try: whole messages, several goroutines at one, ends and limits."""

from __future__ import annotations

import os
import socket
import struct

import gort
import pytest
from children import check
from waiting import LIMIT, join_all, parked, waiter


def timeout_option(seconds):
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))


@pytest.fixture
def pair():
    """Two connected sockets; each test that wants other kinds makes its own."""
    a, b = socket.socketpair()
    with a, b:
        yield a, b


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_waitall_of_messages_is_one_message(kind):
    a, b = socket.socketpair(socket.AF_UNIX, kind)
    with a, b:
        for receive in (
            lambda: a.recv(100, socket.MSG_WAITALL),
            lambda: a.recvmsg(100, 0, socket.MSG_WAITALL)[0],
            lambda: a.recvfrom(100, socket.MSG_WAITALL)[0],
        ):
            g = waiter(receive)
            b.send(b"one")
            b.send(b"two")
            assert g.join(timeout=LIMIT) == b"one"
            assert a.recv(100) == b"two"


def test_waitall_of_a_stream_fills_the_buffer(pair):
    a, b = pair
    g = waiter(a.recv, 6, socket.MSG_WAITALL)
    b.send(b"abc")
    parked(g)
    b.send(b"defg")
    assert g.join(timeout=LIMIT) == b"abcdef"


def test_peek_with_waitall_waits_for_all_and_takes_nothing(pair):
    a, b = pair
    g = gort.go(a.recv, 6, socket.MSG_WAITALL | socket.MSG_PEEK)
    b.send(b"abc")
    gort.go(b.send, b"def").join(timeout=LIMIT)
    assert g.join(timeout=LIMIT) == b"abcdef" == a.recv(6)


def test_option_timeout_ends_a_parked_call(pair):
    a, b = pair
    a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout_option(0.02))
    for call in (lambda: a.recv(1), lambda: a.recv(2, socket.MSG_WAITALL)):
        with pytest.raises(BlockingIOError):
            gort.go(call).join(timeout=LIMIT)
    g = gort.go(a.recv, 2, socket.MSG_WAITALL)
    b.send(b"x")
    assert g.join(timeout=LIMIT) == b"x"  # what came before the time was over


def test_options_set_while_a_call_is_parked_are_for_the_next_one(pair):
    a, b = pair
    g = waiter(a.recv, 10)
    os.set_blocking(a.fileno(), False)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout_option(0.001))
    parked(g)
    b.send(b"x")
    assert g.join(timeout=LIMIT) == b"x"
    with pytest.raises(BlockingIOError):
        gort.go(a.recv, 1).join(timeout=LIMIT)


def test_shutdown_by_another_goroutine_ends_receive_and_accept(pair):
    a, _b = pair
    g = waiter(a.recv, 1)
    gort.go(a.shutdown, socket.SHUT_RD).join(timeout=LIMIT)
    assert g.join(timeout=LIMIT) == b""
    with socket.create_server(("127.0.0.1", 0)) as server:
        g = waiter(server.accept)
        gort.go(server.shutdown, socket.SHUT_RDWR).join(timeout=LIMIT)
        with pytest.raises(OSError, match="Invalid argument"):
            g.join(timeout=LIMIT)


def test_each_of_many_at_one_socket_gets_its_part(pair):
    a, b = pair
    gs = [waiter(a.recv, 1) for _ in range(20)]
    for i in range(20):
        b.send(bytes([i]))
    assert sorted(join_all(gs)) == [bytes([i]) for i in range(20)]


def test_each_of_many_who_accept_gets_a_connection():
    with socket.create_server(("127.0.0.1", 0), backlog=40) as server:
        gs = [waiter(server.accept) for _ in range(20)]
        clients = [socket.create_connection(server.getsockname()) for _ in range(20)]
        accepted = [connection for connection, _ in join_all(gs)]
        ends = {each.getpeername() for each in accepted}
        assert ends == {client.getsockname() for client in clients}
        for each in (*accepted, *clients):
            each.close()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_accept_where_nobody_can_come_is_an_error(kind):
    path = "\0gort-test-accept-%d-%d" % (os.getpid(), kind)
    with socket.socket(socket.AF_UNIX, kind) as lonely:
        lonely.bind(path)
        with pytest.raises(OSError, match="not supported|Invalid argument"):
            gort.go(lonely.accept).join(timeout=LIMIT)


def test_accept_that_another_process_was_faster_for_gives_its_processor_away():
    check(
        """
        import os, socket
        import gort
        from waiting import LIMIT, join_all, waiter

        server = socket.create_server(("127.0.0.1", 0), backlog=100)
        ready, go = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.read(go[0], 1)
            for _ in range(30):
                server.accept()[0].close()
            os._exit(0)
        os.write(go[1], b"x")
        gs = [gort.go(server.accept) for _ in range(30)]
        for _ in range(60):  # one goes to somebody's accept each: nobody may be stuck
            socket.create_connection(server.getsockname()).close()
            gort.gosched()
        join_all(gs)
        os.waitpid(child, 0)
        """
    )


def test_send_to_an_end_that_has_gone_is_an_error(pair):
    a, b = pair
    b.close()
    with pytest.raises(BrokenPipeError):
        gort.go(a.send, b"x").join(timeout=LIMIT)


def test_part_that_was_sent_is_the_answer_and_no_signal():
    check(
        """
        import signal, socket
        import gort
        from waiting import LIMIT, waiter

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # would end the process
        a, b = socket.socketpair()
        g = waiter(a.send, bytes(1 << 24))
        b.close()
        assert 0 < g.join(timeout=LIMIT) < 1 << 24
        """
    )


def test_large_send_is_received_whole(pair):
    a, b = pair
    data = os.urandom(1 << 20) * 4
    g = waiter(a.sendall, data)

    def receive():
        parts = []
        while part := b.recv(100_000):
            parts.append(part)
        return b"".join(parts)

    reader = gort.go(receive)
    assert g.join(timeout=LIMIT) is None
    a.shutdown(socket.SHUT_WR)
    assert reader.join(timeout=LIMIT) == data
