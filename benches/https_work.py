"""GET over HTTPS, client and server in one process: http.server, http.client and ssl as they are.

The same code for threads and for goroutines: `start(function, *arguments)` is the only difference.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue
from threading import Event
from time import perf_counter_ns as now
from typing import Any

import harness
import served

PAUSE = 0.02
BACKLOG = 4096
TIMEOUT = 60  # a request that takes this long is lost

Start = Callable[..., Any]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(PAUSE)
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


class _Server(HTTPServer):
    """HTTPServer with TLS, and each connection started as a task of its own."""

    request_queue_size = BACKLOG

    def __init__(self, start: Start, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.start, self.context = start, context

    def process_request(self, request: Any, client_address: Any) -> None:
        self.start(self._serve, request, client_address)

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        # The handshake is here, so that it does not hold up the loop that accepts.
        with self.context.wrap_socket(request, server_side=True) as secure:
            self.finish_request(secure, client_address)


def os_threads() -> int:
    """OS threads of this process."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Threads"))


def run(start: Start, at_once: int, n: int) -> harness.Figures:
    """Do n requests, by `at_once` clients that connect first and then all begin at one moment.

    The time is that of the requests; the handshakes have a figure of their own.
    """
    served.more_files(2 * at_once + served.SPARE_FILES)
    context = served.secured()
    trusting = ssl.create_default_context(cafile=served.PAIR)
    server = _Server(start, context)
    loop = start(server.serve_forever, 0.05)
    each, threads = n // at_once, 0
    answers: list[str] = []
    connected: Queue[int] = Queue()
    released = Event()

    def client(number: int) -> None:
        nonlocal threads
        conn = HTTPSConnection("localhost", server.server_port, timeout=TIMEOUT, context=trusting)
        # create_connection asks the resolver, whose time is not the matter here.
        conn._create_connection = lambda _, *more: socket.create_connection(  # type: ignore[attr-defined]
            server.server_address, *more
        )
        conn.connect()
        connected.put(number)
        released.wait()
        for i in range(each):
            conn.request("GET", f"/{number}/{i}")
            response = conn.getresponse()
            harness.check(response.status, 200)
            answers.append(response.read().decode())
            if number % 10 == 0:
                threads = max(threads, os_threads())
        conn.close()

    begun = now()
    tasks = [start(client, number) for number in range(at_once)]
    for _ in tasks:
        connected.get(timeout=TIMEOUT)
    ready = now()
    released.set()
    for task in tasks:
        task.join()
    elapsed = now() - ready
    harness.check(sorted(answers), sorted(f"/{k}/{i}" for k in range(at_once) for i in range(each)))
    server.shutdown()
    loop.join()
    server.server_close()
    figures = {"per_second": at_once * each / elapsed * 1e9, "os_threads": threads}
    return elapsed, {**figures, "connect_ns": (ready - begun) / at_once}
