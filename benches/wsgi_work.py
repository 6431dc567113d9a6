"""A WSGI application under gort.wsgi and its peers: kept connections, plain text and JSON.

    python benches/wsgi_work.py [--rounds 3] [--requests 30000] [--connections 100]

Servers that are not installed are left out (pip install gevent gunicorn granian). The load is
load/load.c, on the last CPU; each server has the others. Rounds are interleaved, medians are
printed, with the ratio of requests per second to gevent's pywsgi and to Go's net/http.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import machine
import served

SIZE = 120  # bytes of a body
TEXT = b"x" * SIZE
MESSAGE = "x" * (SIZE - len('{"message":""}'))
KINDS = ("http", "json")


def text_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with the same bytes."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(SIZE))])
    return [TEXT]


def json_app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with a dict, encoded each time."""
    data = json.dumps({"message": MESSAGE}, separators=(",", ":")).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
    start_response("200 OK", headers)
    return [data]


APPS = {"http": text_app, "json": json_app}


def serve_gort(app: Any) -> None:
    import gort.wsgi

    server = gort.wsgi.Server(app)
    print(server.listen("127.0.0.1", 0)[1], flush=True)
    with server:
        server.wait()


def serve_pywsgi(app: Any) -> None:
    from gevent.pywsgi import WSGIServer

    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    print(server.server_port, flush=True)
    server.serve_forever()


def gunicorn(*options: str) -> Callable[[Any], None]:
    """Give what becomes gunicorn with these options, over a socket of ours."""

    def serve(app: Any) -> None:
        sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        sock.set_inheritable(True)
        served.tell(sock)
        os.execv(
            sys.executable,
            [sys.executable, "-m", "gunicorn", "-b", f"fd://{sock.fileno()}", "--log-level",
             "error", "--chdir", str(Path(__file__).parent), *options, f"wsgi_work:{app.__name__}"],
        )  # fmt: skip

    return serve


def serve_granian(app: Any) -> None:
    with socket.socket() as probe:  # it takes a port, not a socket
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port",
         str(port), "--workers", "1", "--no-ws", "--log-level", "error",
         f"wsgi_work:{app.__name__}"],
        cwd=Path(__file__).parent,
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


SERVERS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "gort": ("gort", serve_gort),
    "gunicorn gort": ("gunicorn", gunicorn("-k", "gort.gunicorn.Worker", "--keep-alive", "75")),
    "pywsgi": ("gevent", serve_pywsgi),
    "gunicorn gthread": (
        "gunicorn",
        gunicorn("-k", "gthread", "--threads", "100", "--keep-alive", "75"),
    ),
    "granian": ("granian", serve_granian),
}


def commands() -> dict[str, list[str]]:
    """Give the servers that are here, and how to start them; the kind of body goes behind."""
    found = {
        name: [sys.executable, __file__, "serve", name]
        for name, (module, _) in SERVERS.items()
        if find_spec(module)
    }
    try:
        found["go"] = [machine.build_go(), "serve"]
    except RuntimeError as error:
        print(f"left out: {error}", file=sys.stderr)
    return found


def once(
    command: list[str], name: str, kind: str, options: argparse.Namespace
) -> tuple[float, float]:
    """Measure a server; requests per second, and p99 in ms."""
    of_go = {"http": "http_2000", "json": "json"}
    for_server, for_load = served.cpus()
    server = served.Server([*command, of_go[kind] if name == "go" else kind], for_server)
    try:
        load = served.Load(kind, server.port, SIZE, for_load)
        try:
            load.ask(f"open {options.connections}")
            load.ask(f"trips {options.requests // 10} {options.connections}")
            found = load.ask(f"trips {options.requests} {options.connections}")
            load.end()
        finally:
            load.process.kill()
    finally:
        server.process.terminate()  # gunicorn and granian have children
        try:
            server.process.wait(10)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
    return options.requests / found["ns"] * 1e9, found["p99_ns"] / 1e6


def report(kind: str, found: dict[str, list[tuple[float, float]]]) -> None:
    """Print medians and ratios."""
    rates = {name: statistics.median(r for r, _ in rounds) for name, rounds in found.items()}
    for name, rounds in found.items():
        p99 = statistics.median(p for _, p in rounds)
        ratios = "".join(
            f"  {rates[name] / rates[peer]:6.2f} of {peer}"
            for peer in ("pywsgi", "go")
            if peer in rates and peer != name
        )
        spread = (max(r for r, _ in rounds) - min(r for r, _ in rounds)) / rates[name]
        print(
            f"{kind:5}{name:18}{rates[name]:10,.0f} requests/s (spread {spread:.0%})"
            f"  p99 {p99:7.2f} ms{ratios}",
            flush=True,
        )


def main() -> None:
    """Measure all, or be a server."""
    if sys.argv[1:2] == ["serve"]:
        SERVERS[sys.argv[2]][1](APPS[sys.argv[3]])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--only", nargs="*", help="names of servers")
    options = parser.parse_args()
    chosen = {n: c for n, c in commands().items() if not options.only or n in options.only}
    for kind in KINDS:
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
        for _ in range(options.rounds):
            for name, command in chosen.items():
                found[name].append(once(command, name, kind, options))
        report(kind, found)


if __name__ == "__main__":
    main()
