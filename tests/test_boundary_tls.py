"""TLS in goroutines: handshakes that park, many at once, HTTPS, and errors that stay with their own."""

from __future__ import annotations

import collections
import contextlib
import http.client
import http.server
import os
import socket
import ssl
import threading
import time

import certificates
import gort
import gort.boundary
import pytest
import waiting
from waiting import LIMIT, eventually, in_goroutine, join_all, parked, settle

SERVER = certificates.server_context()
CLIENT = certificates.client_context()


def wrapped(a, b, client=CLIENT):
    """TLS over a pair of sockets: the two sides, handshakes not done."""
    options = {"do_handshake_on_connect": False, "suppress_ragged_eofs": False}
    server = SERVER.wrap_socket(a, server_side=True, **options)
    return server, client.wrap_socket(b, server_hostname="localhost", **options)


def echo(server):
    with server:
        server.do_handshake()
        while data := server.recv(1000):
            server.sendall(data.upper())
        server.unwrap()


def ask(client, i):
    with client:
        client.do_handshake()
        got = []
        for k in range(5):
            client.sendall(b"hello %d %d" % (i, k))
            got.append(client.recv(1000))
            gort.gosched()
        client.unwrap().close()
        return got


@pytest.mark.parametrize("place", ["goroutine", "thread"])
def test_many_pairs(place):
    start = gort.go if place == "goroutine" else waiting.OnThread
    servers, clients = [], []
    for i in range(60):
        server, client = wrapped(*socket.socketpair())
        servers.append(start(echo, server))
        clients.append(gort.go(ask, client, i))
    got = join_all(clients)
    assert got == [[b"HELLO %d %d" % (i, k) for k in range(5)] for i in range(60)]
    join_all(servers)


def test_more_than_a_buffer_in_both_directions_at_once():
    server, client = wrapped(*socket.socketpair())
    shakes = [gort.go(server.do_handshake), gort.go(client.do_handshake)]
    join_all(shakes)
    data = os.urandom(1_500_000)

    def take(end):
        got = bytearray()
        while len(got) < len(data):
            got += end.recv(50_000)
        return bytes(got)

    reader = gort.go(take, client)
    in_goroutine(server.sendall, data)
    assert reader.join(timeout=LIMIT) == data
    server.close()
    client.close()


def test_time_out_of_a_handshake(anywhere):
    def body():
        a, b = socket.socketpair()
        b.settimeout(0.02)
        server, client = wrapped(a, b)
        with pytest.raises(TimeoutError):
            client.do_handshake()
        server.close()
        client.close()

    anywhere(body)


def refuse(results):
    """A handshake that fails because the client trusts nobody; what its two sides raise is added."""
    server, client = wrapped(*socket.socketpair(), certificates.client_context(trusts=False))

    def side(end, name):
        try:
            end.do_handshake()
            results[name, "no error"] += 1
        except ssl.SSLError as error:
            results[name, error.reason] += 1
        except OSError as error:
            results[name, type(error).__name__] += 1
        finally:
            end.close()

    join_all([gort.go(side, server, "server"), gort.go(side, client, "client")])


def test_every_failed_handshake_raises_its_own_error():
    results = collections.Counter()
    join_all([gort.go(refuse, results) for _ in range(100)])
    assert results["client", "CERTIFICATE_VERIFY_FAILED"] == 100
    assert results["server", "TLSV1_ALERT_UNKNOWN_CA"] == 100
    assert sum(results.values()) == 200


def alert_into_a_full_socket(results, go_on):
    """The client's alert finds its socket full: write() parks while the error is in OpenSSL's queue."""
    a, b = socket.socketpair()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    fill = socket.socket(fileno=os.dup(b.fileno()))
    to_server, from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = SERVER.wrap_bio(to_server, from_server, server_side=True)
    context = certificates.client_context(trusts=False)
    client = context.wrap_socket(b, server_hostname="localhost", do_handshake_on_connect=False)

    def shake():
        try:
            client.do_handshake()
        except ssl.SSLError as error:
            results[error.reason] += 1
        except OSError as error:
            results[type(error).__name__] += 1
        else:
            results["no error"] += 1

    g = gort.go(shake)
    to_server.write(a.recv(100_000))  # the hello
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    try:
        while True:
            fill.send(b"x" * 512, socket.MSG_DONTWAIT)
    except BlockingIOError:
        fill.close()
    a.sendall(from_server.read())
    parked(g)
    settle(5)
    assert go_on.wait(LIMIT)
    reader = gort.go(drain, a)
    g.join(timeout=LIMIT)
    client.close()
    reader.join(timeout=LIMIT)
    a.close()


def drain(end):
    with contextlib.suppress(ConnectionResetError):  # what the other side has not read
        while end.recv(100_000):
            pass


def test_errors_are_not_mixed_when_an_alert_parks():
    results, others, go_on = collections.Counter(), collections.Counter(), threading.Event()
    stuck = [gort.go(alert_into_a_full_socket, results, go_on) for _ in range(20)]
    parked(*stuck)
    join_all([gort.go(refuse, others) for _ in range(20)])
    go_on.set()
    for g in stuck:
        g.join(timeout=LIMIT)
    assert results == {"CERTIFICATE_VERIFY_FAILED": 20}
    assert others["client", "CERTIFICATE_VERIFY_FAILED"] == 20


class Slow(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(0.01)
        body = self.path.encode() * 100
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.HTTPServer):
    """A server whose requests are goroutines."""

    request_queue_size = 200

    def process_request(self, request, address):
        gort.go(self.serve_one, request, address)

    def serve_one(self, request, address):
        try:
            self.finish_request(request, address)
        finally:
            self.shutdown_request(request)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_hundred_clients_of_a_server_on_few_os_threads(tls):
    server = Server(("127.0.0.1", 0), Slow)
    if tls:
        options = {"server_side": True, "do_handshake_on_connect": False}
        server.socket = SERVER.wrap_socket(server.socket, **options)
    serving = gort.go(server.serve_forever, 0.01)
    before, most = len(os.listdir("/proc/self/task")), [0]

    def get(i):
        port = server.server_address[1]
        if tls:
            mine = http.client.HTTPSConnection("localhost", port, context=CLIENT, timeout=LIMIT)
        else:
            mine = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        sizes = []
        for k in range(3):
            mine.request("GET", f"/{i}/{k}")
            answer = mine.getresponse()
            assert answer.status == 200
            assert answer.read() == f"/{i}/{k}".encode() * 100
            sizes.append(k)
            most[0] = max(most[0], len(os.listdir("/proc/self/task")))
        mine.close()
        return sizes

    assert join_all([gort.go(get, i) for i in range(100)], 50) == [[0, 1, 2]] * 100
    # Name resolution has a pool of 16, and what lasts long on a busy machine is handed off.
    assert most[0] <= before + 50
    gort.go(server.shutdown).join(timeout=LIMIT)
    serving.join(timeout=LIMIT)
    server.server_close()


def test_threads_and_goroutines_use_openssl_at_once():
    results, stop = collections.Counter(), threading.Event()

    def random():
        while not stop.is_set():
            assert len(ssl.RAND_bytes(100)) == 100
            results["thread"] += 1
            time.sleep(0.0001)

    thread = threading.Thread(target=random, daemon=True)
    thread.start()
    join_all([gort.go(ssl.RAND_bytes, 32) for _ in range(500)])
    eventually(lambda: results["thread"] > 3)
    stop.set()
    thread.join(LIMIT)
