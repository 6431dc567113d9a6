"""Ten fetches from a local server that takes 84 ms for each: one after another, and in a scope.

    python benches/structured_fetch.py --rounds 5

The server is a process of its own, an ordinary threaded one that sleeps before it answers. Fetching
is http.client as it is; whatever is not a whole answer of 200 counts as failed.
"""

from __future__ import annotations

import argparse
import http.client
import subprocess
import sys
import time
from statistics import median

import gort
from gort import structured

FETCHES, TAKES_S = 10, 0.084
SERVER = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(float(sys.argv[1]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer.request_queue_size = 128
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def fetch(port: int) -> bool:
    """Fetch once; whether it went well."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status == 200 and answer.read() == b"ok"
    except OSError:
        return False
    finally:
        connection.close()


def sequential(port: int) -> list[bool]:
    """One after another."""
    return [fetch(port) for _ in range(FETCHES)]


def in_a_scope(port: int) -> list[bool]:
    """All at once, each in a child."""

    def all_of_them(ctx: gort.context.Context) -> list[bool]:
        children = [structured.spawn(ctx, fetch, port) for _ in range(FETCHES)]
        return [child.join() for child in children]

    return structured.go(gort.context.background(), all_of_them)


def main() -> None:
    """Measure both, taking turns."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(TAKES_S)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        fetch(port)
        for name, way in (("sequential", sequential), ("structured.go", in_a_scope)):
            times, failed, left = [], 0, 0
            for _ in range(rounds):
                before = gort.num_goroutine()
                start = time.perf_counter()
                failed += way(port).count(False)
                times.append((time.perf_counter() - start) * 1000)
                left += gort.num_goroutine() - before
            spread = f"{min(times):.1f} to {max(times):.1f}"
            rate = 100 * failed / (rounds * FETCHES)
            print(f"{name}: {median(times):.1f} ms ({spread}), {rate:.2f} % failed, {left} left")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
