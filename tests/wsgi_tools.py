"""Servers for tests, applications they serve, and a client that sees the bytes."""

from __future__ import annotations

import contextlib
import os
import socket

import gort
import gort.wsgi

LIMIT = 30.0  # seconds; far above what anything here takes
PLAIN = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET = b"GET /p?q=1 HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
TEXT = [("Content-Type", "text/plain")]


@contextlib.contextmanager
def serving(app, **options):
    """Serve `app` on a port of its own; the server, whose `port` it is."""
    server = gort.wsgi.Server(app, **options)
    host, port = server.listen("127.0.0.1", 0)
    server.start()
    try:
        yield Serving(server, port)
    finally:
        server.shutdown(LIMIT)


class Serving:
    """A server under test."""

    def __init__(self, server, port):
        self.server = server
        self.port = port

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)

    def exchange(self, data, *, cut=True, pieces=None):
        """Send bytes, say that no more come, and give all that comes back, as bytes."""
        with self.connect() as sock:
            return exchange(sock, data, cut=cut, pieces=pieces)


def exchange(sock, data, *, cut=True, pieces=None):
    """As `Serving.exchange`, over a connected socket."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sender = gort.go(_send, sock, pieces if pieces is not None else [data], cut)
    got = b""
    while part := sock.recv(65536):
        got += part
    sender.join(LIMIT)
    return got


def _send(sock, pieces, cut):
    try:
        for piece in pieces:
            sock.sendall(piece)
            gort.gosched()
        if cut:
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the server has said enough


class Answer:
    """One response, as the bytes have it."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body!r}>"


def answers(data, methods=()):
    """Take a stream of responses apart; `methods` of the requests, GET where there is none."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        assert line.startswith("HTTP/1.1 "), line
        status = int(line.split()[1])
        headers = dict(part.split(": ", 1) for part in lines)
        headers = {name.lower(): value for name, value in headers.items()}
        method = methods[len(found)] if len(found) < len(methods) else "GET"
        if method == "HEAD" or status in (204, 304) or status < 200:
            body = b""
        elif "content-length" in headers:
            length = int(headers["content-length"])
            assert len(data) >= length, "cut off"
            body, data = data[:length], data[length:]
        elif headers.get("transfer-encoding") == "chunked":
            body, data = chunks(data)
        else:
            body, data = data, b""
        if status >= 200:
            found.append(Answer(status, headers, body))
    return found


def chunks(data):
    """Take a chunked body off the front of `data`."""
    body = b""
    while True:
        size, found, data = data.partition(b"\r\n")
        assert found, "cut off"
        count = int(size, 16)
        assert data[count : count + 2] == b"\r\n", "cut off"
        body += data[:count]
        data = data[count + 2 :]
        if not count:
            return body, data


class Recorder:
    """An application that says what it was asked, and remembers it."""

    def __init__(self):
        self.seen = []

    def __call__(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        try:
            body = environ["wsgi.input"].read()
        except OSError:
            self.seen.append(f"{method} {path} !")
            raise
        self.seen.append(f"{method} {path} {body.decode('latin-1')}")
        text = f"{method} {path} ".encode("latin-1") + body
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [text]


def asked(app, data=GET, methods=(), **options):
    """The answers to some bytes from a server of their own."""
    with serving(app, **options) as server:
        return answers(server.exchange(data), methods)


def one(app, data=GET, methods=(), **options):
    """The only one of them."""
    (answer,) = asked(app, data, methods, **options)
    return answer


def as_list(environ, start_response):
    """An application whose body is there at once."""
    start_response("200 OK", list(TEXT))
    return [b"ab", b"", b"cd"]


def hello(environ, start_response):
    """An application."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


class Gate:
    """An application whose requests wait until they are let go."""

    def __init__(self):
        self.inside = 0
        self.open = gort.Chan()

    def __call__(self, environ, start_response):
        self.inside += 1
        self.open.recv_ok()
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]


def descriptors():
    """How many sockets and eventfds there are; the runtime opens other things when it likes."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            pass  # the folder's own
    return sum(link.startswith("socket:") or "eventfd" in link for link in links)


def receive_all(sock):
    """What comes until the other side ends."""
    got = b""
    while part := sock.recv(65536):
        got += part
    return got
