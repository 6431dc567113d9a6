"""Connections that open and end in every way, against gort.wsgi and gort.net: does anything stay?

    python churn.py --seconds 600
    python churn.py --connections 2000

Servers and clients are goroutines of this process, so that both ends are counted. Descriptors,
threads and goroutines are counted after a warm-up and at the end, when all connections are over;
ends with code 1 where there are more than before, or an answer was wrong.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable

import certificates
import gort
import gort.net
import gort.wsgi
from waiting import LIMIT, eventually

CLIENTS = 20
WARM = 30  # connections of each kind before the first count
ADDRESSES = 40  # of this machine, so that the ports of ended connections are not needed again
SETTLE = 25.0  # seconds until what has ended must be gone
MORE_THREADS = 2  # blocking calls may be under way at a count
GET = b"GET /some HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /some HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
ANSWER = b"churned"


def app(environ, start_response):
    """Read the body, if there is one, and answer."""
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [ANSWER]


def echo(conn):
    """Give back what comes."""
    try:
        while data := conn.read(4096):
            conn.write(data)
    except ConnectionError:
        pass  # some clients reset


class Servers:
    """What the clients talk to."""

    def __init__(self):
        quiet = logging.getLogger("churn")
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False  # clients that leave in the middle are the subject, not news
        self.wsgi = gort.wsgi.Server(app, logger=quiet)
        self.http = self.wsgi.listen("0.0.0.0", 0)[1]
        self.tls_wsgi = gort.wsgi.Server(
            app, logger=quiet, ssl_context=certificates.server_context()
        )
        self.https = self.tls_wsgi.listen("0.0.0.0", 0)[1]
        self.listener = gort.net.listen("tcp4", "0.0.0.0:0")
        self.echo = self.listener.local_addr()[1]
        self.unix = gort.net.listen("unix", f"@gort-churn-{os.getpid()}")
        self.trust = certificates.client_context()
        self.trust.check_hostname = False
        self.deaf = socket.socket()  # bound, so that the port is nobody else's
        self.deaf.bind(("0.0.0.0", 0))
        self.nobody = self.deaf.getsockname()[1]

    def start(self):
        self.wsgi.start()
        self.tls_wsgi.start()
        self.serving = [gort.go(one.serve, echo) for one in (self.listener, self.unix)]

    def end(self):
        assert self.wsgi.shutdown(LIMIT)
        assert self.tls_wsgi.shutdown(LIMIT)
        for one in (self.listener, self.unix):
            one.close()
        for g in self.serving:
            g.join(LIMIT)
        self.deaf.close()


def dial(port, **options):
    """Connect to one of the addresses of this machine."""
    host = f"127.0.0.{random.randint(1, ADDRESSES)}"
    return gort.net.dial("tcp", (host, port), timeout=LIMIT, **options)


def reset(conn):
    """End a connection at once; the other side sees an error."""
    with socket.socket(fileno=os.dup(conn.fileno())) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        conn.close()


def answered(conn):
    """Read one answer."""
    data = b""
    while not data.endswith(b"\r\n\r\n" + ANSWER):
        part = conn.read(4096)
        assert part, data
        data += part
    assert data.startswith(b"HTTP/1.1 200 "), data


def kept(servers):
    with dial(servers.http) as conn:
        for request in (GET, GET, LAST):
            conn.write(request)
            answered(conn)
        assert conn.read(1) == b""


def kept_and_left(servers):
    with dial(servers.http) as conn:
        conn.write(GET)
        answered(conn)


def half_a_head(servers):
    with dial(servers.http) as conn:
        conn.write(GET[: random.randrange(len(GET))])


def reset_before_the_answer(servers):
    conn = dial(servers.http)
    conn.write(GET)
    reset(conn)


def half_a_body(servers):
    with dial(servers.http) as conn:
        conn.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nabc")


def refused_request(servers):
    with dial(servers.http) as conn:
        conn.write(b"GET / HTTP/1.1\r\n\r\n")
        assert conn.read(4096).startswith(b"HTTP/1.1 400 ")


def silent(servers):
    dial(random.choice((servers.http, servers.https, servers.echo))).close()


def tls(servers):
    with gort.net.TLSConn(dial(servers.https), servers.trust, server_hostname="localhost") as conn:
        conn.write(LAST)
        answered(conn)


def half_a_handshake(servers):
    with dial(servers.https) as conn:
        conn.write(b"\x16\x03\x01\x02\x00\x01")


def echoed(servers):
    with dial(servers.echo) as conn:
        for size in (1, 100, 3000):
            conn.write(b"x" * size)
            assert conn.read_exact(size) == b"x" * size


def echoed_to_the_end(servers):
    with dial(servers.echo) as conn:
        conn.write(b"abc")
        conn.close_write()
        assert conn.read_exact(3) == b"abc"
        assert conn.read(1) == b""


def reset_in_the_middle(servers):
    conn = dial(servers.echo)
    conn.write(b"x" * 4096)
    reset(conn)


def late(servers):
    with dial(servers.echo) as conn:
        try:
            conn.read(1, timeout=0.001)
        except TimeoutError:
            return
        raise AssertionError("nobody had sent anything")


def cancelled(servers):
    ctx, cancel = gort.context.with_cancel(gort.context.background())
    with dial(servers.echo) as conn:
        reading = gort.go(conn.read, 1, ctx=ctx)
        cancel()
        try:
            reading.join(LIMIT)
        except gort.ContextCanceled:
            return
        raise AssertionError("it was cancelled")


def unix(servers):
    with gort.net.dial("unix", servers.unix.local_addr(), timeout=LIMIT) as conn:
        conn.write(b"abc")
        assert conn.read_exact(3) == b"abc"


def nobody(servers):
    try:
        dial(servers.nobody).close()
    except ConnectionRefusedError:
        return
    except OSError as error:
        assert error.errno == errno.EADDRNOTAVAIL, error
    raise AssertionError("nobody listened there")


KINDS: tuple[Callable[[Servers], object], ...] = (
    kept, kept_and_left, half_a_head, reset_before_the_answer, half_a_body, refused_request, silent,
    tls, half_a_handshake, echoed, echoed_to_the_end, reset_in_the_middle, late, cancelled, unix,
    nobody,
)  # fmt: skip


def churn(servers: Servers, goes_on: Callable[[int], bool]) -> Counter[str]:
    """Open and end connections while `goes_on(so many)`; how many of each kind."""
    made: Counter[str] = Counter()
    begun = [0]

    def client():
        while goes_on(begun[0]):
            kind = KINDS[begun[0] % len(KINDS)]
            begun[0] += 1
            kind(servers)
            made[kind.__name__] += 1

    with gort.scope() as scope:
        for _ in range(CLIENTS):
            scope.go(client)
    return made


def counts() -> dict[str, int]:
    """What there is now."""
    with open("/proc/self/status") as lines:
        status = dict(line.split(":", 1) for line in lines if ":" in line)
    return {
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # but for the folder's own
        "threads": int(status["Threads"]),
        "goroutines": gort.num_goroutine(),
        "RSS, KiB": int(status["VmRSS"].split()[0]),
    }


def grown(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """What there is more of. Memory is told and not judged."""
    room = {"descriptors": 0, "threads": MORE_THREADS, "goroutines": 0}
    return [name for name, more in room.items() if after[name] > before[name] + more]


def settled(most: dict[str, int]) -> dict[str, int]:
    """Count once there is no more than `most`, or that has taken too long."""
    try:
        eventually(lambda: not grown(most, counts()), limit=SETTLE)
    except AssertionError:
        pass  # it is the caller's to say
    return counts()


def main(options: argparse.Namespace) -> int:
    """Churn, and print what was there before and after."""
    servers = Servers()
    idle = counts()
    servers.start()
    listening = eventually(lambda: gort.num_goroutine() == idle["goroutines"] + 4 and counts())
    churn(servers, lambda begun: begun < WARM * len(KINDS))
    before = settled({**listening, "descriptors": sys.maxsize, "threads": sys.maxsize})
    started = time.monotonic()
    if options.connections:
        made = churn(servers, lambda begun: begun < options.connections)
    else:
        made = churn(servers, lambda _: time.monotonic() < started + options.seconds)
    seconds = time.monotonic() - started
    after = settled(before)
    print(
        f"{made.total():,} connections in {seconds:,.1f} s, by {CLIENTS} clients, {len(KINDS)} ways"
    )
    for name in before:
        print(f"{name}: {before[name]:,} before, {after[name]:,} after")
    for name, count in sorted(made.items()):
        print(f"  {name}: {count:,}")
    bad = grown(before, after)
    if not bad:
        servers.end()
        idle["threads"] = before["threads"]
        bad = [f"{name} of the servers" for name in grown(idle, settled(idle))]
    if bad:
        print(f"THERE IS MORE OF: {', '.join(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    how_long = parser.add_mutually_exclusive_group(required=True)
    how_long.add_argument("--seconds", type=float, default=0.0)
    how_long.add_argument("--connections", type=int, default=0)
    sys.exit(gort.run(main, parser.parse_args()))
