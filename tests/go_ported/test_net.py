"""Copyright The Go Authors; BSD-style licence, see LICENSE-GO

Port of tests of net (net_test.go, timeout_test.go, ip_test.go, writev_test.go, sendfile_test.go,
udpsock_test.go, unixsock_test.go, dial_test.go) as far as gort.net has what they test.
"""

import os
import time

import gort
import gort.net
import pytest
from waiting import LIMIT, eventually, join_all, waiter

SPLIT = [
    # Host name
    ("localhost:http", "localhost", "http"),
    ("localhost:80", "localhost", "80"),
    # Go-specific host name with zone identifier
    ("localhost%lo0:http", "localhost%lo0", "http"),
    ("localhost%lo0:80", "localhost%lo0", "80"),
    ("[localhost%lo0]:http", "localhost%lo0", "http"),
    ("[localhost%lo0]:80", "localhost%lo0", "80"),
    # IP literal
    ("127.0.0.1:http", "127.0.0.1", "http"),
    ("127.0.0.1:80", "127.0.0.1", "80"),
    ("[::1]:http", "::1", "http"),
    ("[::1]:80", "::1", "80"),
    # IP literal with zone identifier
    ("[::1%lo0]:http", "::1%lo0", "http"),
    ("[::1%lo0]:80", "::1%lo0", "80"),
    # Go-specific wildcard for host name
    (":http", "", "http"),
    (":80", "", "80"),
    # Go-specific wildcard for service name or transport port number
    ("golang.org:", "golang.org", ""),
    ("127.0.0.1:", "127.0.0.1", ""),
    ("[::1]:", "::1", ""),
    # Opaque service name
    ("golang.org:https%foo", "golang.org", "https%foo"),
]

SPLIT_FAILS = [
    ("golang.org", "missing port in address"),
    ("127.0.0.1", "missing port in address"),
    ("[::1]", "missing port in address"),
    ("[fe80::1%lo0]", "missing port in address"),
    ("[localhost%lo0]", "missing port in address"),
    ("localhost%lo0", "missing port in address"),
    ("::1", "too many colons in address"),
    ("fe80::1%lo0", "too many colons in address"),
    ("fe80::1%lo0:80", "too many colons in address"),
    # Test cases that didn't fail in Go 1
    ("[foo:bar]", "missing port in address"),
    ("[foo:bar]baz", "missing port in address"),
    ("[foo]bar:baz", "missing port in address"),
    ("[foo]:[bar]:baz", "too many colons in address"),
    ("[foo]:[bar]baz", "unexpected '[' in address"),
    ("foo[bar]:baz", "unexpected '[' in address"),
    ("foo]bar:baz", "unexpected ']' in address"),
]


@pytest.mark.parametrize(("address", "host", "port"), SPLIT)
def test_split_host_port(address, host, port):
    assert gort.net.split_host_port(address) == (host, port)


@pytest.mark.parametrize(("address", "text"), SPLIT_FAILS)
def test_split_host_port_fails(address, text):
    with pytest.raises(ValueError) as caught:
        gort.net.split_host_port(address)
    assert str(caught.value) == f"address {address}: {text}"


@pytest.mark.parametrize(
    ("host", "port", "address"),
    [
        ("localhost", "http", "localhost:http"),
        ("localhost", "80", "localhost:80"),
        ("127.0.0.1", "80", "127.0.0.1:80"),
        ("::1", "80", "[::1]:80"),
        ("::1%lo0", "80", "[::1%lo0]:80"),
        ("", "http", ":http"),
        ("golang.org", "", "golang.org:"),
        ("::1", "", "[::1]:"),
        ("golang.org", "https%foo", "golang.org:https%foo"),
    ],
)
def test_join_host_port(host, port, address):
    assert gort.net.join_host_port(host, port) == address


@pytest.fixture(params=["tcp", "unix"])
def local(request, tmp_path):
    """Go's newLocalListener."""
    address = "127.0.0.1:0" if request.param == "tcp" else tmp_path / "socket"
    with gort.net.listen(request.param, address) as listener:
        yield listener


@pytest.fixture
def tcp():
    with gort.net.listen("tcp", "127.0.0.1:0") as listener:
        yield listener


def dial(listener):
    return gort.net.dial(listener.network, listener.local_addr(), timeout=LIMIT)


def copy_all(conn):
    """io.ReadAll."""
    out = bytearray()
    while data := conn.read(65536):
        out += data
    return bytes(out)


def test_close_read(local):
    with dial(local) as c:
        c.close_read()
        assert c.read(1) == b""


def test_close_write(local):
    def handler(c):
        assert c.read(1) == b""
        c.close_write()
        with pytest.raises(OSError):
            c.write(b"\0")
        return True

    def serve():
        with local.accept() as c:
            return handler(c)

    server = gort.go(serve)
    with dial(local) as c:
        c.close_write()
        assert c.read(1) == b""
        with pytest.raises(OSError):
            c.write(b"\0")
    assert server.join(timeout=LIMIT)


def test_conn_close(local):
    with dial(local) as c:
        c.close()
        with pytest.raises(gort.net.Closed):
            c.read(1)


def test_listener_close(local):
    address = local.local_addr()
    local.close()
    with pytest.raises(gort.net.Closed):
        local.accept()
    with pytest.raises(OSError):
        gort.net.dial(local.network, address)


def test_packet_conn_close():
    with gort.net.listen_packet("udp", "127.0.0.1:0") as c:
        c.close()
        with pytest.raises(gort.net.Closed):
            c.read_from(1)


def test_zero_byte_read(local):
    accepted = gort.go(local.accept)
    with dial(local) as client, accepted.join(timeout=LIMIT) as server:
        assert client.read(0) == b""
        assert client.readinto(bytearray()) == 0
        server.write(b"")
        server.write(b"x")
        assert client.read(1) == b"x"


def test_read_timeout_unblocks_read(local):
    accepted = gort.go(local.accept)
    with dial(local) as client, accepted.join(timeout=LIMIT) as server:
        client.set_deadline(time.time() + 3600)
        reader = waiter(client.read, 1)
        client.set_read_deadline(time.time() - 1)
        with pytest.raises(TimeoutError):
            reader.join(timeout=LIMIT)
        assert not server.closed


def test_close_unblocks_read(local):
    accepted = gort.go(local.accept)
    with dial(local) as client, accepted.join(timeout=LIMIT) as server:
        reader = waiter(client.read, 1)
        client.close()
        with pytest.raises(gort.net.Closed):
            reader.join(timeout=LIMIT)
        assert server.read(1) == b""


def test_close_unblocks_read_udp():
    with gort.net.listen_packet("udp", "127.0.0.1:0") as c:
        reader = waiter(c.read_from, 20)
        c.close()
        with pytest.raises(gort.net.Closed):
            reader.join(timeout=LIMIT)


@pytest.mark.parametrize("timeout", [-5.0, -1e-9, 0.0, 1e-9, 0.005])
def test_accept_timeout(tcp, timeout):
    tcp.set_deadline(time.time() + timeout)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            tcp.accept()


def test_accept_timeout_must_not_return(tcp):
    def body():
        tcp.set_deadline(time.time() + 5)
        tcp.set_deadline(None)
        return tcp.accept()

    g = waiter(body)
    with pytest.raises(TimeoutError):
        g.join(timeout=0.1)
    tcp.close()
    with pytest.raises(gort.net.Closed):
        g.join(timeout=LIMIT)


def test_read_timeout(tcp):
    with dial(tcp) as c, tcp.accept() as server:
        server.write(b"READ TIMEOUT TEST")
        c.set_read_deadline(time.time() - 5)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                c.read(1)
        c.set_read_deadline(time.time() + 0.05)
        assert c.read_exact(17) == b"READ TIMEOUT TEST"
        with pytest.raises(TimeoutError):
            c.read(1)


def test_write_timeout(tcp):
    with dial(tcp) as c, tcp.accept():
        for timeout in (-5.0, 0.01):
            c.set_write_deadline(time.time() + timeout)
            with pytest.raises(TimeoutError):
                while True:
                    c.write(bytes(100_000))


def test_read_timeout_fluctuation(tcp):
    with dial(tcp) as c, tcp.accept():
        for _ in range(5):
            deadline = time.time() + 0.001
            c.set_read_deadline(deadline)
            with pytest.raises(TimeoutError):
                c.read(256)
            assert time.time() >= deadline - 0.0005


def test_various_deadlines(tcp):
    def handler(c):
        c.read(1)  # wait for client to close connection

    server = gort.go(tcp.serve, handler)
    for ns in (1, 2, 5, 50, 100, 200, 500, 750, 1000, 5000, 25_000, 250_000, 500_000, 5_000_000):
        with dial(tcp) as c:
            c.set_deadline(time.time() + ns / 1e9)
            with pytest.raises(TimeoutError):
                copy_all(c)
    tcp.close()
    server.join(timeout=LIMIT)


def test_read_write_prolonged_timeout(tcp):
    with dial(tcp) as c, tcp.accept() as server:
        c.write(bytes(1000) * 20)

        def reads():
            for _ in range(1000):
                server.set_read_deadline(time.time() + 3600)
                server.set_write_deadline(time.time() + 3600)
                server.read_exact(1)

        def writes():
            for _ in range(1000):
                server.set_read_deadline(time.time() + 3600)
                server.set_write_deadline(time.time() + 3600)
                server.write(b"\0")

        join_all([gort.go(reads), gort.go(writes)])


def test_read_write_deadline_race(tcp):
    n = 50
    with dial(tcp) as c:

        def deadlines():
            for _ in range(n):
                c.set_read_deadline(time.time() + 2e-6)
                c.set_write_deadline(time.time() + 2e-6)
                gort.sleep(2e-6)

        def calls(call):
            for _ in range(n):
                try:
                    call()
                except TimeoutError:
                    pass

        work = [gort.go(deadlines), gort.go(calls, lambda: c.read(1))]
        work.append(gort.go(calls, lambda: c.write(b"\0")))
        c.set_deadline(1)
        join_all(work[:1])
        c.set_deadline(1)
        join_all(work[1:])


def test_concurrent_set_deadline(tcp):
    conns = [dial(tcp) for _ in range(8)]

    def sets(c):
        for _ in range(1000):
            c.set_read_deadline(time.time() + 3600)
            c.set_deadline(time.time() + 3600)

    join_all([gort.go(sets, c) for c in conns for _ in range(3)])
    for c in conns:
        c.close()


@pytest.mark.parametrize("size", [0, 10, 1023, 1024, 1025])
def test_buffers_write_to(tcp, size):
    want = bytes(i % 256 for i in range(size))
    accepted = gort.go(tcp.accept)
    with dial(tcp) as c:
        c.writev([want[i : i + 1] for i in range(size)])
    with accepted.join(timeout=LIMIT) as other:
        assert copy_all(other) == want


def test_writev_error(tcp):
    with dial(tcp) as c, tcp.accept() as other:
        other.close()
        with pytest.raises(OSError):
            while True:
                c.writev([b"a" * 1000, b"b" * 1000])


def test_endless_write(tcp):
    """A write does not end before its reader has read."""
    with dial(tcp) as c:
        with tcp.accept() as other:
            writer = gort.go(c.write, bytes(20_000_000))
            for _ in range(20):
                other.read_exact(100_000)
            assert not writer.done
        with pytest.raises(OSError):
            writer.join(timeout=LIMIT)


def test_sendfile_parts(tcp, tmp_path):
    (tmp_path / "f").write_bytes(b"Produced by David Widger" * 100)
    accepted = gort.go(tcp.accept)
    with open(tmp_path / "f", "rb") as file, dial(tcp) as c:
        for i in range(3):
            assert c.sendfile(file, i * 3, 3) == 3
    with accepted.join(timeout=LIMIT) as other:
        assert copy_all(other) == b"Produced "


def test_sendfile_on_write_timeout_exceeded(tcp, tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 100)
    with open(tmp_path / "f", "rb") as file, dial(tcp) as c:
        c.set_write_deadline(time.time() - 1)
        with pytest.raises(TimeoutError):
            c.sendfile(file)


def test_tcp_concurrent_accept(tcp):
    accepted = []

    def accepts():
        for conn in tcp:
            accepted.append(conn)
            conn.close()

    gs = [gort.go(accepts) for _ in range(10)]
    for _ in range(100):
        dial(tcp).close()
    eventually(lambda: len(accepted) == 100)
    tcp.close()
    join_all(gs)


def test_tcp_stress(tcp):
    conns, messages = 2, 500

    def send_message(c, sizes):
        for size in sizes:
            c.write(bytes(size))

    def handler(c):
        for i in range(messages):
            size = (i * 7919) % 3000 + 1
            assert c.read_exact(size) == bytes(size)
            c.write(bytes(size // 2 + 1))

    server = gort.go(tcp.serve, handler)

    def client():
        with dial(tcp) as c:
            for i in range(messages):
                size = (i * 7919) % 3000 + 1
                c.write(bytes(size))
                c.read_exact(size // 2 + 1)

    join_all([gort.go(client) for _ in range(conns)])
    tcp.close()
    server.join(timeout=LIMIT)


def test_tcp_listen_after_close(tcp):
    accepted = waiter(tcp.accept)
    tcp.close()
    with pytest.raises(gort.net.Closed):
        accepted.join(timeout=LIMIT)


@pytest.mark.parametrize("network", ["udp", "unixgram"])
def test_zero_byte_payload(network, tmp_path):
    address = "127.0.0.1:0" if network == "udp" else tmp_path / "socket"
    with gort.net.listen_packet(network, address) as c:
        to = c.local_addr() if network == "udp" else os.fsencode(c.local_addr())
        c.write_to(b"", to)
        data, sender = c.read_from(1)
        assert (data, sender) == (b"", c.local_addr())
        c.write_to(b"", to)
        c.set_read_deadline(time.time() + LIMIT)
        assert c.read(0) == b""


def test_udp_read_timeout():
    with gort.net.listen_packet("udp", "127.0.0.1:0") as c:
        c.set_read_deadline(time.time() - 1)
        with pytest.raises(TimeoutError):
            c.read(1)
        with pytest.raises(TimeoutError):
            c.read_from(1)


def test_unix_conn_local_and_remote_names(tmp_path):
    for local in ("", str(tmp_path / "client")):
        address = str(tmp_path / f"server{len(local)}")
        with gort.net.listen("unix", address) as listener:
            with gort.net.dial("unix", address, local=local or None) as c:
                assert (c.local_addr(), c.remote_addr()) == (local, address)
                with listener.accept() as server:
                    assert (server.local_addr(), server.remote_addr()) == (address, local)


def test_unix_unlink(tmp_path):
    path = tmp_path / "socket"
    listener = gort.net.listen("unix", path)
    listener.close()
    assert not path.exists()
    listener.close()
    listener = gort.net.listen("unix", path)
    path.unlink()
    path.write_text("another file")
    listener.close()
    assert not path.exists()  # as Go: whatever has the name goes


def test_dial_cancel(tcp):
    ctx, cancel = gort.context.with_cancel(gort.context.background())
    cancel()
    with pytest.raises(gort.ContextCanceled):
        gort.net.dial("tcp", tcp.local_addr(), ctx=ctx)
