"""The server around the requests: order, limits, slow clients, logs and room."""

from __future__ import annotations

import errno
import http.client
import os
import select
import socket
import threading

import gort
import gort.wsgi
import pytest
from waiting import LIMIT, eventually, join_all, settle
from wsgi_tools import PLAIN, Gate, Recorder, answers, descriptors, hello, receive_all, serving

# Order and reuse.


def test_pipelined_requests_are_answered_in_their_order():
    with serving(Recorder()) as server:
        data = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(500))
        found = answers(server.exchange(data))
    assert [a.body for a in found] == [b"GET /%d " % n for n in range(500)]


def test_pipelined_bodies_are_kept_apart():
    parts = []
    for n in range(100):
        body = b"%d" % n * (n % 7)
        if n % 2:
            parts.append(
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
        else:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            parts.append(
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                + chunk
                + b"0\r\n\r\n"
            )
    with serving(Recorder()) as server:
        found = answers(server.exchange(b"".join(parts)))
    assert [a.body for a in found] == [b"POST / " + b"%d" % n * (n % 7) for n in range(100)]


def test_connection_is_used_again():
    with serving(hello) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port)
        client.connect()
        sock = client.sock
        for _ in range(10):
            client.request("GET", "/")
            assert client.getresponse().read() == b"hello"
            assert client.sock is sock
        client.close()


def test_five_hundred_clients_at_once_and_no_descriptor_is_left():
    before = descriptors()

    def client(n, port):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for turn in range(3):
            connection.request("POST", f"/{n}", body=b"%d" % turn)
            response = connection.getresponse()
            assert response.read() == b"POST /%d %d" % (n, turn)
        connection.close()

    with serving(Recorder()) as server:
        join_all([gort.go(client, n, server.port) for n in range(500)])
        eventually(lambda: server.server.num_connections == 0)
    eventually(lambda: descriptors() <= before)


def test_connection_is_not_kept_when_it_may_not_idle():
    with serving(hello, idle_timeout=0) as server:
        (answer,) = answers(server.exchange(PLAIN + PLAIN, cut=False))
    assert answer.headers["connection"] == "close"


def test_server_works_from_a_plain_thread():
    box = []

    def body():
        with serving(hello) as server:
            box.append(answers(server.exchange(PLAIN))[0].body)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(LIMIT)
    assert box == [b"hello"]


def test_unix_socket(tmp_path):
    path = str(tmp_path / "s")
    server = gort.wsgi.Server(Recorder())
    assert server.listen(f"unix:{path}") == path
    with server, socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(PLAIN)
        assert answers(sock.recv(1000))[0].body == b"GET / "
    assert not os.path.exists(path)


def test_two_servers_share_a_port_when_they_say_so():
    first = gort.wsgi.Server(hello, reuse_port=True)
    _, port = first.listen("127.0.0.1", 0)
    second = gort.wsgi.Server(hello, reuse_port=True)
    second.listen("127.0.0.1", port)
    third = gort.wsgi.Server(hello)
    with pytest.raises(OSError, match="in use"):
        third.listen("127.0.0.1", port)
    with first, second:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(PLAIN)
                assert answers(sock.recv(1000))[0].status == 200


# Slow clients: the limits are a fraction of a second, the clients do nothing.


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"G", 408),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", 408),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", 408),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 408),
        (b"", None),
        (PLAIN, 200),
        (b"\r\n", 408),
    ],
)
def test_client_that_sends_no_more_is_answered_and_let_go(data, status):
    times = {"header_timeout": 0.05, "body_timeout": 0.05, "idle_timeout": 0.05}
    with serving(Recorder(), **times) as server:
        found = answers(server.exchange(data, cut=False))
    assert [a.status for a in found] == ([] if status is None else [status])
    if status == 408:
        assert found[0].headers["connection"] == "close"


@pytest.mark.parametrize(
    "head",
    [b"GET / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n"],
)
def test_client_that_drips_is_let_go(head):
    with (
        serving(Recorder(), header_timeout=0.2, body_timeout=0.2) as server,
        server.connect() as sock,
    ):
        sock.sendall(head)
        while not select.select([sock], [], [], 0.01)[0]:
            sock.sendall(b"a")
        assert answers(receive_all(sock))[0].status == 408


def test_body_may_take_longer_than_its_time_when_it_keeps_coming():
    size = 8 * 65536
    with serving(Recorder(), body_timeout=1.5) as server, server.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(8):
            gort.sleep(0.2)  # time is the subject: in all it is more than the limit
            sock.sendall(b"x" * 65536)
        head, _, body = receive_until(sock, size).partition(b"\r\n\r\n")
    assert (head[:12], body) == (b"HTTP/1.1 200", b"POST / " + b"x" * size)


def receive_until(sock, size):
    """What comes until it is more than `size` bytes and ends as the body does."""
    got = b""
    while len(got) < size or not got.endswith(b"x"):
        got += sock.recv(65536)
    return got


def test_time_that_the_application_takes_is_not_the_bodys():
    begun = gort.Chan()

    def app(environ, start_response):
        data = environ["wsgi.input"].read(1)
        gort.sleep(1.2)  # time is the subject: longer than the limit
        begun.close()
        data += environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [data]

    with serving(app, body_timeout=1.0) as server, server.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na")
        begun.recv_ok(timeout=LIMIT)
        sock.sendall(b"bc")
        assert answers(sock.recv(1000))[0].body == b"abc"


def test_client_that_does_not_read_is_let_go():
    closed = gort.Chan()

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.close()

    with serving(app, write_timeout=0.05) as server, server.connect() as sock:
        sock.sendall(PLAIN)
        closed.recv_ok(timeout=LIMIT)


@pytest.mark.parametrize("kind", ["list", "chunks", "file"])
def test_client_that_reads_slowly_gets_all_of_it(kind, tmp_path):
    size = 8 << 20
    (tmp_path / "f").write_bytes(bytes(size))

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", str(size))])
        if kind == "file":
            return environ["wsgi.file_wrapper"](open(tmp_path / "f", "rb"))
        return [bytes(size)] if kind == "list" else iter([bytes(size // 2)] * 2)

    with serving(app, write_timeout=1.5) as server, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(PLAIN)
        got = sock.recv(1000)
        got = got[got.index(b"\r\n\r\n") + 4 :]
        count = len(got)
        for _ in range(10):
            gort.sleep(0.2)  # time is the subject: in all it is longer than the limit
            count += len(sock.recv(1 << 16, socket.MSG_WAITALL))
        assert count < size // 2  # so the server has waited for all that time
        while count < size and (part := sock.recv(1 << 20)):
            count += len(part)
    assert count == size


def test_client_that_leaves_is_no_error_of_the_application(caplog):
    with serving(Recorder()) as server:
        with server.connect() as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
        eventually(lambda: server.server.num_connections == 0)
    assert [r for r in caplog.records if r.levelname == "ERROR"] == []


def test_limits_are_exact():
    options = {
        "max_request_line": 30,
        "max_header_bytes": 100,
        "max_header_count": 2,
        "max_body": 3,
    }
    with serving(Recorder(), **options) as server:

        def status(data):
            return [a.status for a in answers(server.exchange(data, cut=False))][-1]

        line = b"GET /" + b"a" * 16 + b" HTTP/1.1"
        close = b"\r\nHost: a\r\nConnection: close\r\n\r\n"
        assert len(line) == 30
        assert status(line + close) == 200
        assert status(b"GET /a" + line[5:] + close) == 414
        assert status(b"GET / HTTP/1.1" + close.replace(b"\r\n\r\n", b"\r\nX: y\r\n\r\n")) == 431
        fill = 100 - len(b"GET / HTTP/1.0\r\nX: \r\n\r\n")
        assert status(b"GET / HTTP/1.0\r\nX: " + b"a" * fill + b"\r\n\r\n") == 200
        assert status(b"GET / HTTP/1.0\r\nX: " + b"a" * (fill + 1) + b"\r\n\r\n") == 431
        post = b"POST / HTTP/1.1\r\nHost: a\r\n"
        assert status(post + b"Content-Length: 4\r\n\r\nabcd") == 413
        assert answers(server.exchange(post + b"Content-Length: 3\r\n\r\nabc"))[0].status == 200


# Logs.


def test_access_log_has_a_record_for_each_response(caplog):
    seen = []
    with serving(Recorder(), access_log=seen.append) as server:
        server.exchange(b'GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: "x\\\r\n\r\n' + b"bad\r\n\r\n")
    first, second = seen
    assert (first.status, first.sent, first.environ["PATH_INFO"]) == ("200 OK", 7, "/a")
    assert first.headers == [("Content-Type", "text/plain")]
    assert first.seconds >= 0
    assert str(first).startswith("127.0.0.1 - - [")
    assert str(first).endswith('] "GET /a HTTP/1.1" 200 7 "-" "\\x22x\\x5c"')
    assert (second.status, str(second).split('"')[1]) == ("400 Bad Request", "- - -")


def test_access_log_goes_to_a_logger(caplog):
    caplog.set_level("INFO", "gort.wsgi.access")
    with serving(hello, access_log=True) as server:
        server.exchange(PLAIN)
    assert '"GET / HTTP/1.1" 200 5 "-" "-"' in caplog.text


# Room.


def test_connections_beyond_the_most_wait_in_the_queue():
    gate = Gate()
    with serving(gate, max_connections=2) as server:
        socks = [server.connect() for _ in range(5)]
        for sock in socks:
            sock.sendall(PLAIN)
        eventually(lambda: gate.inside == 2)
        settle()
        assert gate.inside == server.server.num_connections == 2
        gate.open.close()
        for sock in socks:
            assert answers(sock.recv(1000))[0].status == 200
            sock.close()
    assert gate.inside == 5


def test_connection_without_memory_is_closed_and_the_next_one_is_served(monkeypatch):
    real, refused = gort.go, []

    def go(function, *args, **kwargs):
        if not refused and function.__name__ == "_serve":
            refused.append(1)
            raise MemoryError
        return real(function, *args, **kwargs)

    with serving(hello) as server:
        monkeypatch.setattr(gort, "go", go)
        with server.connect() as sock:
            assert sock.recv(100) == b""
        assert answers(server.exchange(PLAIN))[0].body == b"hello"
    assert refused


def test_accept_without_descriptors_tries_again(caplog):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(hello) as server:
        sock = socket.socket()
        taken = []
        try:
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, hard)
            )
            with pytest.raises(OSError) as raised:
                while True:
                    taken.append(os.dup(0))
            assert raised.value.errno == errno.EMFILE
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(PLAIN)
            eventually(lambda: "trying again" in caplog.text)
        finally:
            for number in taken:
                os.close(number)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        sock.settimeout(LIMIT)
        assert answers(sock.recv(1000))[0].status == 200
        sock.close()
