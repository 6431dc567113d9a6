"""GETs of /health from a server in the same process: the program that the promise tests run.

    python promised_gets.py COUNT LIMIT [OPEN_FILES]

A goroutine for each of COUNT requests. With a LIMIT they pass a semaphore and take their connection
from a pool, as Go's http.Client does, and each must get its answer. Without (0) each opens a
connection of its own, and with few OPEN_FILES some must fail: with EMFILE, or in vain waiting for
the server, which has no descriptor for them either. Nobody is lost, and afterwards it serves again.
"""

import errno
import http.client
import resource
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import gort

COUNT, LIMIT, *FILES = map(int, sys.argv[1:])
BODY = b"ok"
IMPATIENCE = 2


class Health(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_):
        pass


class Server(HTTPServer):
    request_queue_size = 4096

    def process_request(self, request, client_address):
        gort.go(self.serve, request, client_address)

    def serve(self, request, client_address):
        try:
            self.finish_request(request, client_address)
        except ConnectionError:
            pass  # a client that has given up
        finally:
            self.shutdown_request(request)

    def handle_error(self, request, client_address):
        raise


def get(conn):
    conn.request("GET", "/health")
    answer = conn.getresponse()
    assert (answer.status, answer.read()) == (200, BODY)


class Gets:
    """All the requests, and what became of them."""

    def __init__(self, port):
        self.port = port
        self.room = gort.sync.Semaphore(LIMIT) if LIMIT else None
        self.idle, self.answered, self.refused, self.in_vain = [], 0, 0, 0
        self.active = self.peak = 0

    def limited(self):
        self.room.acquire()
        self.active += 1
        self.peak = max(self.peak, self.active)
        conn = self.idle.pop() if self.idle else self.connection()
        get(conn)
        self.answered += 1
        self.idle.append(conn)
        self.active -= 1
        self.room.release()

    def unlimited(self):
        conn = self.connection(IMPATIENCE)
        try:
            get(conn)
            self.answered += 1
        except TimeoutError:
            self.in_vain += 1
        except OSError as error:
            assert error.errno == errno.EMFILE, error
            self.refused += 1
        finally:
            conn.close()

    def connection(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)


def main():
    server = Server(("127.0.0.1", 0), Health)
    gort.go(server.serve_forever, 0.05)
    gets = Gets(server.server_port)
    wg = gort.WaitGroup()
    start = time.perf_counter()
    for _ in range(COUNT):
        wg.go(gets.limited if LIMIT else gets.unlimited)
    wg.wait()
    rate = COUNT / (time.perf_counter() - start)
    assert gets.answered + gets.refused + gets.in_vain == COUNT, vars(gets)
    if LIMIT:
        assert gets.peak <= LIMIT, gets.peak
        assert gets.answered == COUNT
    else:
        assert gets.refused > 0
        get(gets.connection())
    print(f"{gets.answered} answered of {COUNT}, {gets.refused} refused, {rate:,.0f}/s")


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES[0] if FILES else hard, hard))
    gort.run(main)
