"""HTTP servers under load from another process: `http_work.py SERVER WORKLOAD N`.

The load is load/load.c on the last CPU, the server has the first, and one process that serves. An
application answers with 120 bytes, ready-made or as JSON encoded each time; `churn` is a connection
for each request. All but granian, which takes no socket, listen with TCP_NODELAY: pywsgi and
ThreadingHTTPServer send head and body apart, and would wait 40 ms for the client's delayed
acknowledgement otherwise.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import served
from harness import check

BYTES = 120  # of a body
TEXT = b"x" * BYTES
MESSAGE = "x" * (BYTES - len('{"message":""}'))
KEPT, CHURNING = 100, 50  # connections at a time
#: Workloads: the kind of body, as load.c and the servers have it, and whether connections are kept.
WORKLOADS = {"plaintext": ("http", True), "json": ("json", True), "churn": ("http", False)}
HERE = Path(__file__).resolve().parent


def encoded() -> bytes:
    """Give the JSON, encoded anew."""
    return json.dumps({"message": MESSAGE}, separators=(",", ":")).encode()


def text_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with the same bytes."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(BYTES))])
    return [TEXT]


def json_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with a dict, encoded each time."""
    data = encoded()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
    start_response("200 OK", headers)
    return [data]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the kind of body that ASGI_KIND says."""
    is_json = os.environ["ASGI_KIND"] == "json"
    data = encoded() if is_json else TEXT
    kind = b"application/json" if is_json else b"text/plain"
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(data))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": data})


APPS = {"http": text_app, "json": json_app}


def listening() -> socket.socket:
    """Give a listening socket without delays, its port told."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
    served.tell(sock)
    return sock


def serve_gort(kind: str) -> None:
    import gort.wsgi

    server = gort.wsgi.Server(APPS[kind])
    server.listen_on(listening())
    with server:
        server.wait()


def serve_gevent(kind: str) -> None:
    import gevent.socket
    from gevent.pywsgi import WSGIServer

    sock = listening()
    given = gevent.socket.socket(fileno=sock.detach())
    WSGIServer(given, APPS[kind], log=None).serve_forever()


def serve_threads(kind: str) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            data = encoded() if kind == "json" else TEXT
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 1024

    server = Server(("127.0.0.1", 0), Handler)
    served.tell(server.socket)
    server.serve_forever()


def gunicorn(*options: str) -> Callable[[str], None]:
    """Give what becomes gunicorn with these options, over a socket of ours."""

    def serve(kind: str) -> None:
        sock = listening()
        sock.set_inheritable(True)
        os.execv(
            sys.executable,
            [sys.executable, "-m", "gunicorn", "-b", f"fd://{sock.fileno()}", "--log-level",
             "error", "--no-control-socket", "--keep-alive", "75", "--chdir", str(HERE), *options,
             f"http_work:{APPS[kind].__name__}"],
        )  # fmt: skip

    return serve


def serve_granian(kind: str) -> None:
    with socket.socket() as probe:  # it takes a port, not a socket
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port",
         str(port), "--workers", "1", "--no-ws", "--log-level", "error",
         f"http_work:{APPS[kind].__name__}"],
        cwd=HERE,
    )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            pass
    print(port, flush=True)
    process.wait()


def serve_uvicorn(kind: str) -> None:
    sock = listening()
    sock.set_inheritable(True)
    os.environ["ASGI_KIND"] = kind
    os.execv(
        sys.executable,
        [sys.executable, "-m", "uvicorn", "--fd", str(sock.fileno()), "--log-level", "error",
         "--no-access-log", "--lifespan", "off", "--timeout-keep-alive", "75", "--loop", "uvloop",
         "--http", "httptools", "--app-dir", str(HERE), "http_work:asgi_app"],
    )  # fmt: skip


def serve_aiohttp(kind: str) -> None:
    from aiohttp import web

    async def handler(_: web.Request) -> web.Response:
        if kind == "json":
            return web.Response(body=encoded(), content_type="application/json")
        return web.Response(body=TEXT, content_type="text/plain")

    app = web.Application()
    app.router.add_get("/x", handler)
    web.run_app(app, sock=listening(), access_log=None, print=None)


#: By implementation: the module it needs, and what serves.
SERVERS: dict[str, tuple[str, Callable[[str], None]]] = {
    "gort": ("gort", serve_gort),
    "gevent": ("gevent", serve_gevent),
    "granian": ("granian", serve_granian),
    "gunicorn_gthread": ("gunicorn", gunicorn("-k", "gthread", "--threads", "100")),
    "gunicorn_gort": ("gunicorn", gunicorn("-k", "gort.gunicorn.Worker")),
    "aiohttp": ("aiohttp", serve_aiohttp),
    "uvicorn": ("uvicorn", serve_uvicorn),
    "threads": ("http.server", serve_threads),
}


def cpu_ns(root: int) -> int:
    """Sum up the CPU time of a process and its children."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass  # it has ended
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in family)  # CPUCLOCK_SCHED


def end(server: served.Server) -> None:
    """End a server that may have children; it must have lived until now."""
    code = server.process.poll()
    server.process.terminate()
    try:
        server.process.wait(10)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
    check(code, None)


def measure(command: list[str], workload: str, n: int) -> None:
    """Measure the server that `command` with a kind of body starts; print the workload's line."""
    kind, is_kept = WORKLOADS[workload]
    known = sorted(os.sched_getaffinity(0))
    server = served.Server([*command, kind], {known[0]})
    try:
        load = served.Load(kind, server.port, BYTES, {known[-1]})
        try:
            if is_kept:
                load.ask(f"open {KEPT}")
                load.ask(f"trips {max(n // 10, KEPT)} {KEPT}")
                before = cpu_ns(server.process.pid)
                found = load.ask(f"trips {n} {KEPT}")
            else:
                load.ask(f"churn {max(n // 10, CHURNING)} {CHURNING}")
                before = cpu_ns(server.process.pid)
                found = load.ask(f"churn {n} {CHURNING}")
            spent = cpu_ns(server.process.pid) - before
            load.end()
        finally:
            load.process.kill()
    finally:
        end(server)
    line = {"workload": workload, "n": n, "ns_per_op": found["ns"] / n}
    line["per_second"] = n / found["ns"] * 1e9
    for name in ("p50", "p99", "p999"):
        line[f"{name}_ms"] = found[f"{name}_ns"] / 1e6
    line["cpu_us"] = spent / n / 1e3
    line["errors"] = found["errors"]
    line["load_cpu"] = found["cpu_ns"] / found["ns"]  # near 1: it is the load that is measured
    print(json.dumps(line))


def main() -> None:
    """`SERVER WORKLOAD N`, `SERVER --list`, `SERVER serve KIND`; go:PROGRAM is a server, too."""
    name, *arguments = sys.argv[1:]
    program = name.removeprefix("go:") if name.startswith("go:") else ""
    if not program and find_spec(SERVERS[name][0]) is None:
        sys.exit(f"{SERVERS[name][0]} is not installed")
    if arguments == ["--list"]:
        print(*WORKLOADS)
    elif arguments[0] == "serve":
        SERVERS[name][1](arguments[1])
    else:
        command = [program, "serve"] if program else [sys.executable, __file__, name, "serve"]
        measure(command, arguments[0], int(arguments[1]))


if __name__ == "__main__":
    main()
