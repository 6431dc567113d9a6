"""A small HTTP service on SQLite, as `gort demo` serves it: the same application on four servers.

    python service_program.py gort|threads|gevent|gunicorn DATABASE

It knows nothing of the server it runs on. GET /health; GET and PUT /kv/KEY. The server says its
port on stdout and serves until it is killed.
"""

import ctypes
import queue
import resource
import signal
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any

READERS = 4  # connections to the database that are read from
BACKLOG = 4096
THREADS = 200  # of gunicorn's gthread
App = Callable[..., list[bytes]]
Make = Callable[[], App]
NEEDS = {"gevent": "gevent", "gunicorn": "gunicorn"}


class Store:
    """Keys and values in an SQLite database: one connection writes, some read."""

    def __init__(self, path: str) -> None:
        """Open or make the database."""
        self._writer = self._connect(path)
        self._writing = threading.Lock()
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute(
            "CREATE TABLE IF NOT EXISTS kv (key TEXT PRIMARY KEY, value BLOB NOT NULL)"
        )
        self._readers: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        for _ in range(READERS):
            self._readers.put(self._connect(path))

    @staticmethod
    def _connect(path: str) -> sqlite3.Connection:
        conn = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        conn.execute("PRAGMA synchronous = NORMAL")
        return conn

    def get(self, key: str) -> bytes | None:
        """Read the value of a key; None: there is none."""
        conn = self._readers.get()
        try:
            found = conn.execute("SELECT value FROM kv WHERE key = ?", (key,)).fetchone()
        finally:
            self._readers.put(conn)
        return found[0] if found else None

    def put(self, key: str, value: bytes) -> None:
        """Set the value of a key."""
        with self._writing:
            self._writer.execute("INSERT OR REPLACE INTO kv VALUES (?, ?)", (key, value))


def make_app(path: str) -> App:
    """Give the WSGI application over a database."""
    store = Store(path)

    def answer(environ: dict[str, Any]) -> tuple[str, bytes]:
        target, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if target == "/health":
            return "200 OK", b"ok"
        prefix, _, key = target.partition("/kv/")
        if prefix or not key:
            return "404 Not Found", b""
        if method == "GET":
            value = store.get(key)
            return ("404 Not Found", b"") if value is None else ("200 OK", value)
        if method == "PUT":
            store.put(key, environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            return "200 OK", b""
        return "405 Method Not Allowed", b""

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        status, body = answer(environ)
        start_response(status, [("Content-Length", str(len(body)))])
        return [body]

    return app


def tell(port: int) -> None:
    """Print the port: the load may begin."""
    print(port, flush=True)


def serve_gort(make: Make) -> None:
    """gort.wsgi: a goroutine for each connection."""
    import gort
    import gort.wsgi

    def main() -> None:
        server = gort.wsgi.Server(make())
        tell(server.listen("127.0.0.1", 0)[1])
        with server:
            server.wait()

    gort.run(main)


def serve_threads(make: Make) -> None:
    """The standard library's server: a thread for each connection."""
    app = make()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body go out in one piece
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            """Ask the application."""
            told: list[Any] = []
            environ = {
                "PATH_INFO": self.path,
                "REQUEST_METHOD": self.command,
                "CONTENT_LENGTH": self.headers.get("Content-Length") or "0",
                "wsgi.input": self.rfile,
            }
            body = app(environ, lambda *status_and_headers: told.extend(status_and_headers))
            self.send_response(int(told[0][:3]))
            for name, value in told[1]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.writelines(body)

        do_PUT = do_GET

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = BACKLOG

    server = Server(("127.0.0.1", 0), Handler)
    tell(server.server_port)
    server.serve_forever()


def serve_gevent(make: Make) -> None:
    """Gevent's own WSGI server."""
    from gevent.pywsgi import WSGIServer

    server = WSGIServer(("127.0.0.1", 0), make(), log=None, backlog=BACKLOG)
    server.start()
    tell(server.server_port)
    server.serve_forever()


def serve_gunicorn(make: Make) -> None:
    """Gunicorn with one worker that has threads."""
    from gunicorn.app.base import BaseApplication

    sock = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    wanted = {
        "bind": [f"fd://{sock.fileno()}"],
        "worker_class": "gthread",
        "threads": THREADS,
        "worker_connections": BACKLOG,
        "keepalive": 75,
        "loglevel": "error",
        "control_socket_disable": True,
    }

    class Application(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            for name, value in wanted.items():
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> App:
            return make()  # in the worker: a fork must not share a database connection

    tell(sock.getsockname()[1])
    Application().run()


SERVERS = {
    "gort": serve_gort,
    "threads": serve_threads,
    "gevent": serve_gevent,
    "gunicorn": serve_gunicorn,
}


def is_there(name: str) -> bool:
    """Whether a server can be had here."""
    return name not in NEEDS or find_spec(NEEDS[name]) is not None


def main(name: str, path: str) -> None:
    """Serve, with as many descriptors as may be; end with the process that started this one."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    SERVERS[name](lambda: make_app(path))


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules are gort's
    main(*sys.argv[1:])
