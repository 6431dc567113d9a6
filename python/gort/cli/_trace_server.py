"""The page of `gort trace`: a server for this machine alone.

It answers GET on a loopback address, if the request is meant for that (a page elsewhere whose name
leads here gets nothing), with what is in this package: nothing is loaded from anywhere else, and
the page's policy forbids it. Texts of the trace go to the page as JSON, and into it as text.
"""

from __future__ import annotations

import ipaddress
import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from urllib.parse import parse_qs, urlsplit

from gort.cli._trace_store import Store

__all__ = ["address", "server"]

_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
#: Lanes of goroutines that one picture may have.
_MOST_LANES = 50


def address(text: str) -> tuple[str, int]:
    """Read HOST:PORT, :PORT or PORT; the host must be one of this machine's own, 127.0.0.1 if none.

    Raises:
        ValueError: it is no address, or one that others can reach.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{text!r} is no address: HOST:PORT is expected")
    name = "127.0.0.1" if host == "localhost" else host
    try:
        is_own = ipaddress.ip_address(name).is_loopback
    except ValueError:
        is_own = False
    if not is_own:
        raise ValueError(f"{host} is not this machine alone: a loopback address is expected")
    return name, int(port)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: _Server
    server_version = "gort"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host not in ("localhost", self.server.host):
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"not for this server\n")
            return
        asked = urlsplit(self.path)
        found = _FILES.get(asked.path)
        if found is not None:
            name, kind = found
            data = resources.files("gort.cli").joinpath("trace_page", name).read_bytes()
            self._answer(HTTPStatus.OK, kind, data)
            return
        try:
            answer = self._data(asked.path, parse_qs(asked.query))
        except (IndexError, KeyError, ValueError):
            self._answer(HTTPStatus.BAD_REQUEST, "text/plain", b"bad request\n")
            return
        if answer is None:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")
        else:
            data = json.dumps(answer, separators=(",", ":")).encode()
            self._answer(HTTPStatus.OK, "application/json", data)

    def _data(self, path: str, query: dict[str, list[str]]) -> object:
        """Give the data of a path; None if there is none."""
        store = self.server.store
        if path == "/summary":
            return store.summary()
        if path == "/group":
            return store.members(int(query["index"][0]))
        if path == "/picture":
            begin, end, columns = (int(query[key][0]) for key in ("from", "to", "columns"))
            gs = [int(g) for g in query.get("g", [])[:_MOST_LANES]]
            return store.picture(begin, end, columns, gs)
        return None

    def _answer(self, status: HTTPStatus, kind: str, data: bytes) -> None:
        """Write a whole answer."""
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing: the terminal is the command's."""


class _Server(ThreadingHTTPServer):
    """Listens on an address of this machine."""

    daemon_threads = True

    def __init__(self, store: Store, host: str, port: int) -> None:
        if ":" in host:
            import socket

            self.address_family = socket.AF_INET6
        self.store = store
        super().__init__((host, port), _Handler)
        self.host = f"[{host}]" if ":" in host else host
        self.url = f"http://{self.host}:{self.server_address[1]}/"


def server(store: Store, host: str = "127.0.0.1", port: int = 0) -> _Server:
    """Begin to listen; `serve_forever` answers, `url` is where.

    Raises:
        OSError: the address is in use, or not this machine's.
    """
    return _Server(store, host, port)
