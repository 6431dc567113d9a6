"""gort.net.listen and dial: accepting, loops with a limit, too few descriptors, errors, happy eyeballs."""

from __future__ import annotations

import errno
import os
import socket

import gort
import gort.net
import pytest
from children import check
from gort.net import _dial, _dns
from netting import connected, descriptors_back, open_descriptors
from waiting import LIMIT, eventually, join_all, raises_text, settle, waiter


@pytest.fixture
def listener():
    with gort.net.listen("tcp", "127.0.0.1:0") as listener:
        yield listener


def test_forms_of_an_address(anywhere):
    def body():
        for network, address in (
            ("tcp", "127.0.0.1:0"),
            ("tcp4", ("127.0.0.1", 0)),
            ("tcp4", "localhost:0"),
            ("tcp", "[::1]:0"),
            ("tcp6", ("::1", 0)),
            ("tcp", ":0"),
            ("tcp4", ":0"),
            ("tcp6", ":"),
        ):
            with gort.net.listen(network, address) as listener:
                host, port = listener.local_addr()
                assert port > 0
                host = {"::": "::1", "0.0.0.0": "127.0.0.1"}.get(host, host)
                accepted = gort.go(listener.accept)
                with (
                    gort.net.dial(network, (host, port), timeout=LIMIT) as a,
                    accepted.join(timeout=LIMIT) as b,
                ):
                    assert a.remote_addr() == b.local_addr() == (host, port)

    anywhere(body)


def test_an_empty_host_is_reached_by_both_versions():
    with gort.net.listen("tcp", ":0") as listener:
        port = listener.local_addr()[1]
        for host in ("127.0.0.1", "::1", ""):
            with gort.net.dial("tcp", (host, port)) as a, listener.accept() as b:
                assert b.remote_addr() == a.local_addr()


def test_bad_addresses():
    for call, error, text in (
        (lambda: gort.net.dial("tcp", "127.0.0.1"), ValueError, "missing port"),
        (lambda: gort.net.dial("tcp", "::1:80"), ValueError, "too many colons"),
        (lambda: gort.net.dial("tcp", "[::1]80"), ValueError, "missing port"),
        (lambda: gort.net.dial("tcp", "127.0.0.1:65536"), ValueError, "invalid port"),
        (lambda: gort.net.dial("tcp", "127.0.0.1:-1"), ValueError, "invalid port"),
        (lambda: gort.net.dial("tcp", "127.0.0.1:nonesuch"), gort.net.DNSError, "unknown port"),
        (lambda: gort.net.dial("sctp", "127.0.0.1:1"), ValueError, "unknown network"),
        (lambda: gort.net.listen("udp", "127.0.0.1:1"), ValueError, "unknown network"),
        (lambda: gort.net.dial("tcp6", "127.0.0.1:1"), OSError, "no suitable address"),
        (lambda: gort.net.dial("tcp", 5), TypeError, "an address is"),
        (lambda: gort.net.dial("unix", ("a", 1)), TypeError, "is a path"),
        (lambda: gort.net.dial("unix", "x" * 108), ValueError, "1 to 107 bytes"),
        (lambda: gort.net.dial("unix", ""), ValueError, "1 to 107 bytes"),
    ):
        with raises_text(error, text):
            call()


def test_errors_of_dial_and_listen(listener, tmp_path):
    with gort.net.listen("tcp", "127.0.0.1:0") as other:
        port = other.local_addr()[1]
    with raises_text(ConnectionRefusedError, f"dial tcp 127.0.0.1:{port}: connection refused") as e:
        gort.net.dial("tcp", f"127.0.0.1:{port}")
    assert e.value.errno == errno.ECONNREFUSED
    with raises_text(FileNotFoundError, f"dial unix {tmp_path}/none: no such file or directory"):
        gort.net.dial("unix", tmp_path / "none")
    taken = listener.local_addr()[1]
    with raises_text(OSError, f"listen tcp 127.0.0.1:{taken}: address already in use"):
        gort.net.listen("tcp", ("127.0.0.1", taken))
    listener.close()
    with raises_text(gort.net.Closed, f"accept tcp 127.0.0.1:{taken}: use of closed network"):
        listener.accept()


def test_failed_dials_leave_no_descriptor():
    with gort.net.listen("tcp", "127.0.0.1:0") as other:
        port = other.local_addr()[1]
    base = open_descriptors()
    for _ in range(50):
        with pytest.raises(ConnectionRefusedError):
            gort.net.dial("tcp", ("127.0.0.1", port))
        with pytest.raises(OSError):
            gort.net.dial("tcp", ("127.0.0.1", port), local=("192.0.2.1", 0))
    assert open_descriptors() <= base + 2


def test_from_a_local_address(listener):
    with gort.net.dial("tcp", listener.local_addr(), local="127.0.0.1:0") as a:
        with listener.accept() as b:
            assert b.remote_addr() == a.local_addr()


def full(listener):
    """Fill the queue of a listener, so that who connects next waits; the connections."""
    held = []
    while True:
        try:
            held.append(gort.net.dial("tcp", listener.local_addr(), timeout=0.2))
        except TimeoutError:
            return held


@pytest.fixture
def blackhole():
    """An address that never answers."""
    with gort.net.listen("tcp", "127.0.0.1:0", backlog=0) as listener:
        held = full(listener)
        yield listener.local_addr()
        for conn in held:
            conn.close()


def test_what_ends_a_dial(blackhole, anywhere):
    base = open_descriptors()

    def body():
        text = "dial tcp {}:{}: i/o timeout".format(*blackhole)
        with raises_text(TimeoutError, text):
            gort.net.dial("tcp", blackhole, timeout=0.01)
        ctx, cancel = gort.context.with_cancel(gort.context.background())
        timer = gort.after_func(0.01, cancel)
        with pytest.raises(gort.ContextCanceled):
            gort.net.dial("tcp", blackhole, ctx=ctx)
        timer.stop()

    anywhere(body)
    g = waiter(gort.net.dial, "tcp", blackhole)
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    descriptors_back(base + 2)


class Names:
    """A resolver of the tests' own."""

    def __init__(self, monkeypatch, **hosts):
        self.asked = 0

        def ask(host, _timeout=None, _ctx=None):
            self.asked += 1
            return hosts[host.replace(".", "_")]

        monkeypatch.setattr(_dial, "resolve", ask)


def test_happy_eyeballs_pass_over_who_does_not_answer(blackhole, monkeypatch):
    base = open_descriptors()
    port = blackhole[1]
    with gort.net.listen("tcp", ("127.0.0.2", port)) as listener:
        Names(monkeypatch, two=["127.0.0.1", "127.0.0.2"])
        with gort.net.dial("tcp", ("two", port), timeout=LIMIT) as a, listener.accept() as b:
            assert a.remote_addr() == ("127.0.0.2", port)
            a.write(b"x")
            assert b.read(1) == b"x"
    descriptors_back(base)


def test_happy_eyeballs_go_on_at_once_after_a_refusal(listener, monkeypatch):
    port = listener.local_addr()[1]
    monkeypatch.setattr(_dial, "ATTEMPT_DELAY", 1e6)
    Names(monkeypatch, three=["127.0.0.3", "::1", "127.0.0.1"])
    with gort.net.dial("tcp", ("three", port), timeout=LIMIT) as a:
        assert a.remote_addr() == ("127.0.0.1", port)


def test_happy_eyeballs_all_fail(blackhole, monkeypatch):
    port = blackhole[1]
    base = open_descriptors()
    monkeypatch.setattr(_dial, "ATTEMPT_DELAY", 0.001)
    Names(monkeypatch, bad=["127.0.0.3", "127.0.0.4"], hole=["127.0.0.1", "127.0.0.1"])
    with raises_text(ConnectionRefusedError, f"dial tcp 127.0.0.3:{port}"):
        gort.net.dial("tcp", ("bad", port))
    with raises_text(TimeoutError, f"dial tcp hole:{port}: i/o timeout"):
        gort.net.dial("tcp", ("hole", port), timeout=0.05)
    g = waiter(gort.net.dial, "tcp", ("hole", port))
    g.cancel()
    with pytest.raises(gort.Cancelled):
        g.join(timeout=LIMIT)
    descriptors_back(base + 2)


def test_addresses_take_turns():
    order = _dial.interleaved(["::1", "::2", "::3", "1.1.1.1", "2.2.2.2"])
    assert order == ["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"]
    assert _dial.interleaved(["1.1.1.1"]) == ["1.1.1.1"]


def test_iteration_ends_at_the_close(listener):
    got = []

    def accept():
        for conn in listener:
            got.append(conn.read(1))
            conn.close()

    g = gort.go(accept)
    for i in range(5):
        with gort.net.dial("tcp", listener.local_addr()) as conn:
            conn.write(b"%d" % i)
    eventually(lambda: len(got) == 5)
    listener.close()
    g.join(timeout=LIMIT)
    assert got == [b"0", b"1", b"2", b"3", b"4"]


def test_serve_keeps_the_limit(listener):
    active, most, gate = [0], [0], gort.Chan()

    def handler(conn):
        active[0] += 1
        most[0] = max(most[0], active[0])
        conn.write(b"in")
        gate.recv_ok()
        active[0] -= 1

    server = gort.go(listener.serve, handler, limit=3)

    def client():
        with gort.net.dial("tcp", listener.local_addr()) as conn:
            return conn.read(2)

    clients = [gort.go(client) for _ in range(10)]
    eventually(lambda: active[0] == 3)
    settle()
    assert active[0] == 3
    gate.close()
    assert join_all(clients) == [b"in"] * 10
    listener.close()
    server.join(timeout=LIMIT)
    assert (active[0], most[0]) == (0, 3)


def test_serve_outlives_handlers_that_raise(listener, reports):
    def handler(conn):
        raise KeyError(conn.read(1))

    server = gort.go(listener.serve, handler, limit=2)
    for _ in range(5):
        with gort.net.dial("tcp", listener.local_addr()) as conn:
            conn.write(b"x")
            assert conn.read(1) == b""
    eventually(lambda: len(reports) == 5)
    listener.close()
    server.join(timeout=LIMIT)


def test_serve_ends_with_its_context(listener):
    ctx, cancel = gort.context.with_cancel(gort.context.background())
    server = waiter(lambda: listener.serve(print, ctx=ctx))
    cancel()
    with pytest.raises(gort.ContextCanceled):
        server.join(timeout=LIMIT)
    assert not listener.closed
    with pytest.raises(ValueError):
        listener.serve(print, limit=0)


def test_serve_outlives_a_lack_of_descriptors():
    check(
        """
        import gort, gort.net, os, resource
        from waiting import eventually
        listener = gort.net.listen("tcp", "127.0.0.1:0")
        def echo(conn):
            while data := conn.read(10):
                conn.write(data)
        server = gort.go(listener.serve, echo)
        warm = gort.net.dial("tcp", listener.local_addr())
        warm.write(b"x"); warm.read(1)
        held = []
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        client = gort.net.dial("tcp", listener.local_addr())
        last = os.open("/dev/null", os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, hard))
        client.write(b"x")
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        second = None
        try:
            gort.net.dial("tcp", listener.local_addr())
            raise SystemExit("there was a descriptor")
        except OSError as error:
            assert "dial tcp" in str(error) and "too many open files" in str(error), error
        os.close(held.pop()) if held else os.close(last)
        second = gort.net.dial("tcp", listener.local_addr())   # takes the last one: accepting has none
        second.write(b"y")
        eventually(lambda: server.status == "sleep")
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert second.read(1) == b"y" and client.read(1) == b"x"
        for conn in (client, second, warm):
            conn.close()
        listener.close()
        server.join(timeout=50)
        print("served")
        """,
        "served",
    )


def test_several_listen_at_one_port():
    with gort.net.listen("tcp", "127.0.0.1:0", reuse_port=True) as one:
        with gort.net.listen("tcp", one.local_addr(), reuse_port=True) as two:
            assert one.local_addr() == two.local_addr()


def test_unix_sockets_leave_no_file(tmp_path):
    path = tmp_path / "socket"
    with gort.net.listen("unix", path) as listener:
        assert path.is_socket()
        assert listener.local_addr() == str(path)
        with gort.net.dial("unix", str(path)) as a, listener.accept() as b:
            assert (a.remote_addr(), b.remote_addr()) == (str(path), "")
    assert not path.exists()
    with gort.net.listen("unix", os.fsencode(path)) as listener:
        os.unlink(path)
    listener.close()


def test_a_full_unix_listener_is_waited_for(tmp_path):
    path = str(tmp_path / "socket")
    with gort.net.listen("unix", path, backlog=0) as listener:
        held = []
        with pytest.raises(TimeoutError, match=f"dial unix {path}: i/o timeout"):
            while True:
                held.append(gort.net.dial("unix", path, timeout=0.05))
        waits = waiter(gort.net.dial, "unix", path)
        listener.accept().close()
        waits.join(timeout=LIMIT).close()
        for conn in held:
            conn.close()


def test_sockets_have_what_go_gives_them():
    a, b = connected()
    for conn in (a, b):
        with socket.socket(fileno=os.dup(conn.fileno())) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
            assert not sock.get_inheritable()
        conn.close()


def test_names_are_looked_up():
    assert "127.0.0.1" in _dns.DEFAULT.lookup_host("localhost")
    with gort.net.listen("tcp", "127.0.0.1:0") as listener:
        with gort.net.dial("tcp", ("localhost", listener.local_addr()[1]), timeout=LIMIT) as conn:
            assert conn.remote_addr() == listener.local_addr()
