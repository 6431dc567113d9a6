"""The load of the workloads over TLS: `tls_load.py PORT BYTES`, answered like load.c.

The one command is `churn N A`: N connections, A at a time, each with a whole handshake, one message
of BYTES bytes that comes back, and an end of which both sides are told. A processes make them, one
after another each. Anything wrong ends it with code 1.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import time
from pathlib import Path

PAIR = Path(__file__).resolve().parent / "localhost.pem"
SILENCE = 30.0
NUMBER = 8  # bytes of a time in ns on a pipe


def one(context: ssl.SSLContext, port: int, message: bytes) -> int:
    """Make a connection; how long it took until the answer was there, ns."""
    begun = time.perf_counter_ns()
    with socket.create_connection(("127.0.0.1", port), SILENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(sock, server_hostname="localhost") as secure:
            if secure.session_reused:
                sys.exit("the handshake was not a whole one")
            secure.sendall(message)
            answer = b""
            while len(answer) < len(message):
                part = secure.recv(len(message))
                if not part:
                    sys.exit(f"the connection ended after {len(answer)} bytes")
                answer += part
            took = time.perf_counter_ns() - begun
            if answer != message:
                sys.exit("other bytes")
            try:
                secure.unwrap()
            except OSError:
                pass  # the server has ended it without a word
    return took


def work(port: int, size: int, number: int, count: int, out: int) -> None:
    """Be one of the processes: its times go to `out`."""
    context = ssl.create_default_context(cafile=str(PAIR))
    with os.fdopen(out, "wb") as pipe:
        for i in range(count):
            message = f"{number}:{i}:".encode().ljust(size, b"x")
            pipe.write(one(context, port, message).to_bytes(NUMBER, "little"))


def churn(port: int, size: int, n: int, at_once: int) -> dict[str, int]:
    """Do the command."""
    begun, spent = time.perf_counter_ns(), os.times()
    pipes, children = [], []
    for number in range(at_once):
        count = n // at_once + (number < n % at_once)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            code = 1
            try:
                work(port, size, number, count, writing)
                code = 0
            except (OSError, SystemExit) as error:
                print(f"tls_load: {error!r}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        os.close(writing)
        pipes.append(reading)
        children.append(child)
    parts = []
    for reading in pipes:
        with os.fdopen(reading, "rb") as pipe:
            parts.append(pipe.read())
    ends = [os.waitpid(child, 0)[1] for child in children]
    if any(ends):
        sys.exit(1)
    took = time.perf_counter_ns() - begun
    data = b"".join(parts)
    times = sorted(
        int.from_bytes(data[i : i + NUMBER], "little") for i in range(0, len(data), NUMBER)
    )
    if len(times) != n:
        sys.exit(f"{len(times)} of {n} connections")
    after = os.times()
    cpu = sum(after[:4]) - sum(spent[:4])
    return {
        "trips": n, "ns": took, "p50_ns": times[n // 2], "p99_ns": times[n * 99 // 100],
        "p999_ns": times[n * 999 // 1000], "max_ns": times[-1], "cpu_ns": int(cpu * 1e9),
        "errors": 0,
    }  # fmt: skip


def main() -> None:
    """Answer commands until there are no more."""
    port, size = int(sys.argv[1]), int(sys.argv[2])
    for line in sys.stdin:
        command, n, at_once = line.split()
        if command != "churn":
            sys.exit(f"unknown command: {line}")
        print(json.dumps(churn(port, size, int(n), int(at_once))), flush=True)


if __name__ == "__main__":
    main()
