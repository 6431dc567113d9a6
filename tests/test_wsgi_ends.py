"""How a server ends, what it refuses to be told, and TLS."""

from __future__ import annotations

import http.client
import socket

import gort
import gort.wsgi
import pytest
from waiting import LIMIT, eventually, join_all
from wsgi_tools import PLAIN, Gate, Recorder, answers, descriptors, hello, receive_all, serving


def test_shutdown_lets_requests_finish_and_says_close():
    gate = Gate()
    with serving(gate) as server:
        socks = [server.connect() for _ in range(10)]
        for sock in socks:
            sock.sendall(PLAIN)
        eventually(lambda: gate.inside == 10)
        ending = gort.go(server.server.shutdown, LIMIT)
        eventually(lambda: server.server.addresses == [])
        gate.open.close()
        for sock in socks:
            (answer,) = answers(receive_all(sock))
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            sock.close()
        assert ending.join(LIMIT) is True
        with pytest.raises(OSError, match="refused"):
            server.connect()


def test_shutdown_serves_what_waits_in_the_queue():
    gate = Gate()
    server = gort.wsgi.Server(gate)
    _, port = server.listen("127.0.0.1", 0)
    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
    for sock in socks:
        sock.sendall(PLAIN)
    server.start()
    gate.open.close()
    assert server.shutdown(LIMIT) is True
    for sock in socks:
        assert answers(receive_all(sock))[0].status == 200
        sock.close()


def test_shutdown_lets_idle_connections_go():
    with serving(hello) as server, server.connect() as idle, server.connect() as used:
        used.sendall(PLAIN)
        assert answers(used.recv(1000))[0].status == 200
        eventually(lambda: server.server.num_connections == 2)
        assert server.server.shutdown(LIMIT) is True
        assert idle.recv(100) == used.recv(100) == b""


def test_shutdown_cuts_what_does_not_end_in_time():
    gate = Gate()
    with serving(gate) as server, server.connect() as sock:
        sock.sendall(PLAIN)
        eventually(lambda: gate.inside == 1)
        assert server.server.shutdown(0) is False
        assert sock.recv(100) == b""
        gate.open.close()


@pytest.mark.parametrize("tls", [False, True])
def test_no_request_is_lost_while_a_server_drains_under_load(tls):
    import certificates

    options = {"ssl_context": certificates.server_context()} if tls else {}
    done, stop = [], []

    def client(port):
        connection = None
        while not stop:
            try:
                if connection is None:
                    connection = connected(port, tls)
            except OSError:
                assert stop, "refused before the end"
                break
            connection.request("GET", "/")
            response = connection.getresponse()
            assert response.read() == b"hello"
            done.append(1)
            if response.will_close:
                assert stop
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    with serving(hello, **options) as server:
        clients = [gort.go(client, server.port) for _ in range(30)]
        eventually(lambda: len(done) > 300)
        stop.append(1)
        assert server.server.shutdown(LIMIT) is True
        join_all(clients)


def connected(port, tls):
    import certificates

    if tls:
        connection = http.client.HTTPSConnection(
            "localhost", port, context=certificates.client_context()
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.connect()
    return connection


def test_serve_ends_with_its_context():
    box = gort.Chan(1)

    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"x"]

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ctx, cancel = gort.context.with_cancel(gort.context.background())
    g = gort.go(gort.wsgi.serve, app, "127.0.0.1", port, ctx=ctx)

    def asked():
        try:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(PLAIN)
                return answers(sock.recv(1000))
        except ConnectionRefusedError:
            return None

    assert eventually(asked)[0].body == b"x"
    cancel()
    g.join(LIMIT)
    assert box.cap == 1


def test_server_that_is_not_started_can_be_shut_down():
    before = descriptors()
    server = gort.wsgi.Server(hello)
    server.listen("127.0.0.1", 0)
    assert server.shutdown() is True
    assert server.shutdown() is True
    assert descriptors() == before


def test_misuse_is_said():
    server = gort.wsgi.Server(hello)
    with pytest.raises(RuntimeError, match="listens to nothing"):
        server.start()
    server.listen("127.0.0.1", 0)
    with server:
        with pytest.raises(RuntimeError, match="started before"):
            server.start()
        with pytest.raises(RuntimeError, match="was started"):
            server.listen("127.0.0.1", 0)
    with pytest.raises(TypeError, match="callable"):
        gort.wsgi.Server(None)
    with pytest.raises(TypeError, match="max_conections"):
        gort.wsgi.Server(hello, max_conections=1)
    for name, value in [
        ("max_connections", 0), ("max_body", -1), ("max_header_count", 1.5), ("idle_timeout", -1),
        ("header_timeout", 0),
        ("body_timeout", float("nan")), ("server_name", "a\r\nb"), ("backlog", None),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=name):
            gort.wsgi.Server(hello, **{name: value})


def test_body_may_be_as_long_as_allowed_and_nothing_else_is():
    with serving(Recorder(), max_body=0) as server:
        post = b"POST / HTTP/1.1\r\nHost: a\r\n"
        assert answers(server.exchange(post + b"Content-Length: 0\r\n\r\n"))[0].status == 200
        assert answers(server.exchange(post + b"Content-Length: 1\r\n\r\na"))[0].status == 413


# TLS.


def test_tls_serves_and_says_https():
    import certificates

    seen = []

    def app(environ, start_response):
        seen.append(environ["wsgi.url_scheme"])
        start_response("200 OK", [])
        return (environ["wsgi.input"].read(), b"!")

    with serving(app, ssl_context=certificates.server_context()) as server:
        client = connected(server.port, True)
        for size in (0, 10, 300_000):
            client.request("POST", "/", body=b"x" * size)
            assert client.getresponse().read() == b"x" * size + b"!"
        client.close()
    assert seen == ["https"] * 3


def test_tls_file_and_chunks_and_errors(tmp_path, caplog):
    import certificates

    (tmp_path / "f").write_bytes(b"abc" * 50_000)

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/late":
            start_response("200 OK", [])
            return late()
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](open(tmp_path / "f", "rb"))

    def late():
        yield b"begun"
        raise KeyError

    with serving(app, ssl_context=certificates.server_context()) as server:
        client = connected(server.port, True)
        client.request("GET", "/")
        assert client.getresponse().read() == b"abc" * 50_000
        client.request("GET", "/late")
        with pytest.raises(http.client.IncompleteRead):
            client.getresponse().read()
        client.close()


def test_tls_that_is_none_is_let_go_and_others_are_served():
    import certificates

    with serving(hello, ssl_context=certificates.server_context(), header_timeout=0.1) as server:
        with server.connect() as silent, server.connect() as plain:
            plain.sendall(PLAIN)
            try:
                receive_all(plain)
            except ConnectionResetError:
                pass
            assert silent.recv(100) == b""
        client = connected(server.port, True)
        client.request("GET", "/")
        assert client.getresponse().read() == b"hello"
        client.close()
        eventually(lambda: server.server.num_connections == 0)
