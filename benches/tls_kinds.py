"""What a TLS exchange costs a server: SSLSocket over the libc boundary, and gort.net.TLSConn.

    .venv-3.11/bin/python benches/tls_kinds.py

A request of 36 bytes and an answer of 250, over 50 connections to one other process. Prints the
CPU time of the server for each, in microseconds: median and spread of five rounds, interleaved.
"""

from __future__ import annotations

import os
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import certificates
import gort
import gort.net

REQUEST = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"
ANSWER = b"x" * 250
CONNECTIONS, EXCHANGES, ROUNDS = 50, 20_000, 5
IDLE, HANDSHAKE, WRITE = 75.0, 30.0, 60.0  # limits as gort.wsgi has them, in seconds


def client(port: int) -> None:
    """Be the other process."""
    context = certificates.client_context()
    made = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    socks = [context.wrap_socket(sock, server_hostname="localhost") for sock in made]
    for _ in range(EXCHANGES // CONNECTIONS):
        for sock in socks:
            sock.send(REQUEST)
        for sock in socks:
            sock.recv(4096)


def by_sockets(sock: socket.socket, context: ssl.SSLContext) -> None:
    """Serve a connection by the standard library's sockets."""
    tls = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    tls.settimeout(HANDSHAKE)
    tls.do_handshake()
    while True:
        tls.settimeout(IDLE)
        if not tls.recv(4096):
            return
        tls.settimeout(WRITE)
        tls.sendall(ANSWER)


def by_net(sock: socket.socket, context: ssl.SSLContext) -> None:
    """Serve a connection by gort.net."""
    conn = gort.net.from_socket(sock)
    assert isinstance(conn, gort.net.Conn)
    tls = gort.net.TLSConn(conn, context, server_side=True)
    tls.handshake(HANDSHAKE)
    while tls.read(4096, IDLE):
        tls.write(ANSWER, WRITE)


def once(serve: Callable[[socket.socket, ssl.SSLContext], None]) -> float:
    """Measure one kind: microseconds for an exchange."""
    context = certificates.server_context()

    def ended(sock: socket.socket) -> None:
        try:
            serve(sock, context)
        except OSError:
            pass  # the client leaves without a word

    with socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as listener:
        child = os.fork()
        if not child:
            client(listener.getsockname()[1])
            os._exit(0)
        before = time.process_time()
        served = [gort.go(ended, listener.accept()[0]) for _ in range(CONNECTIONS)]
        for g in served:
            g.join()
        spent = time.process_time() - before
        os.waitpid(child, 0)
    return spent / EXCHANGES * 1e6


def main() -> None:
    """Measure and print."""
    kinds = {"SSLSocket": by_sockets, "gort.net.TLSConn": by_net}
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, serve in kinds.items():
            found[name].append(once(serve))
    for name, rounds in found.items():
        middle = statistics.median(rounds)
        print(f"{name:18}{middle:7.1f} us, spread {(max(rounds) - min(rounds)) / middle:.0%}")


if __name__ == "__main__":
    gort.run(main)
