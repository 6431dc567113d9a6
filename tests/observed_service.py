"""A service that tools look at: gort.wsgi, and gort.pprof.serve beside it; run as a program.

It says where both are, serves its own clients, and ends once its stdin does.
"""

from __future__ import annotations

import http.client
import sys
import tracemalloc

import gort
import gort.labels
import gort.pprof
import gort.trace
import gort.wsgi
from waiting import eventually

kept: list[bytearray] = []
mutex = gort.sync.Mutex()


def computes() -> int:
    return sum(n * n for n in range(2_000))


def allocates() -> None:
    kept.append(bytearray(10_000))
    del kept[:-100]


def contends() -> None:
    """Most clients wait here: one answer is computed in less time."""
    with mutex:
        gort.sleep(0.005)


def application(environ, start_response):
    with gort.trace.Task("request"), gort.labels.do(handler="all"), gort.trace.Region("answer"):
        gort.trace.log("path", environ["PATH_INFO"])
        computes()
        allocates()
        contends()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]


def asks(port: int, stop: list[bool]) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port)
    while not stop:
        client.request("GET", "/")
        assert client.getresponse().read() == b"ok"
    client.close()


def leaks() -> None:
    gort.Chan().recv()


def main() -> None:
    tracemalloc.start(10)
    gort.pprof.set_block_profile_rate(1)
    gort.pprof.set_mutex_profile_fraction(1)
    service = gort.wsgi.Server(application)
    _, port = service.listen("127.0.0.1", 0)
    service.start()
    gort.go(leaks)
    stop: list[bool] = []
    with gort.pprof.serve("127.0.0.1:0") as server:
        clients = [gort.go(asks, port, stop) for _ in range(4)]
        some = [gort.pprof.lookup(name) for name in ("block", "mutex")]
        eventually(lambda: kept and all(profile.count() for profile in some))
        print(port, server.address[1], flush=True)
        sys.stdin.read()
        stop.append(True)
        for client in clients:
            client.join()
    service.shutdown(10)


if __name__ == "__main__":
    main()
