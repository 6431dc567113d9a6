"""/debug/pprof/ and /debug/gort/ over HTTP: a server of goroutines, and a WSGI application."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import socket
import time
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote

from gort._core import go
from gort._typing import TYPE_CHECKING
from gort.pprof import _live
from gort.pprof._http import Answer, Gone, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

__all__ = ["Server", "app", "serve"]

#: Bytes that a request may have.
_BODY = 1 << 20
#: Seconds for which a client may take its time with a request.
_PATIENCE = 30.0
_NAMES = {200: "OK", 301: "Moved Permanently", 400: "Bad Request", 401: "Unauthorized"}
_NAMES |= {403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed"}
_NAMES |= {409: "Conflict", 413: "Content Too Large", 500: "Internal Server Error"}


def _answer(
    method: str,
    path: str,
    query: str,
    body: bytes,
    headers: Mapping[str, str],
    wait: Callable[[float], None],
) -> Answer:
    """Answer a request for either of the two."""
    if path.startswith("/debug/gort"):
        return _live.answer(method, path, query, headers, wait)
    return answer(method, path, query, body, wait)


def app(
    environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    r"""Answer as a WSGI application, wherever it is mounted: what matters is from /debug/ on.

    /debug/pprof/ has the profiles, /debug/gort/ the live page. Who may see it is up to who mounts
    it. Profiles and `seconds=` block for as long as they say.

    Args:
        environ: the request, as PEP 3333 has it.
        start_response: called with the status and the headers.

    Example:
        >>> import gort.pprof
        >>> request = {"REQUEST_METHOD": "GET", "PATH_INFO": "/debug/pprof/no_such"}
        >>> list(gort.pprof.app(request, lambda status, headers: print(status)))
        404 Not Found
        [b'Unknown profile\n']
    """
    method = environ.get("REQUEST_METHOD", "GET")
    whole = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    whole = whole.encode("latin-1", "replace").decode("utf-8", "replace")  # PEP 3333
    at = [n for n in (whole.find("/debug/pprof"), whole.find(_live.PREFIX[:-1])) if n >= 0]
    path = whole[min(at) :] if at else whole
    body = b""
    if method == "POST":
        length = environ.get("CONTENT_LENGTH") or "0"
        body = environ["wsgi.input"].read(min(int(length), _BODY)) if length.isdigit() else b""
    asked = {
        name: environ.get(f"HTTP_{name.upper().replace('-', '_')}", "") for name in _live.ASKED
    }
    query = environ.get("QUERY_STRING", "")
    status, headers, data = _answer(method, path, query, body, asked, time.sleep)
    headers = {**headers, "Content-Length": str(len(data))}
    start_response(f"{status} {_NAMES[status]}", list(headers.items()))
    return [] if method == "HEAD" else [data]


class Server:
    """A server that `serve` has started. It ends with `close`, or a `with` block.

    Attributes:
        address: host and port that it listens at.
        url: where its index of profiles is.
        live_url: where its live page is.
    """

    def __init__(self, listener: socket.socket, token: str | None, checks_host: bool) -> None:
        """Serve a socket that listens; use `serve`."""
        self._listener = listener
        self._token = token
        self._checks_host = checks_host
        host, port = listener.getsockname()[:2]
        self.address: tuple[str, int] = (host, port)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}/debug/pprof/"
        self.live_url = f"http://{shown}:{port}{_live.PREFIX}"
        self._goroutine = go(self._accept)

    def __repr__(self) -> str:
        """Say where it is."""
        return f"<gort.pprof.Server {self.url}>"

    def __enter__(self) -> Server:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Stop listening; requests in progress go on. May be called again. Does not park."""
        self._goroutine.cancel()
        self._listener.close()

    def _accept(self) -> None:
        """Start a goroutine for each connection."""
        while True:
            try:
                connection, client = self._listener.accept()
            except OSError:
                if self._listener.fileno() < 0:
                    return
                time.sleep(0.01)  # out of descriptors: some may be given back
                continue
            go(self._serve, connection, client)

    def _serve(self, connection: socket.socket, client: object) -> None:
        """Answer the requests of one connection."""
        with connection:
            try:
                connection.settimeout(_PATIENCE)
                _Handler(connection, client, self)  # type: ignore[arg-type]
            except (OSError, Gone):
                return  # the client has gone

    def _refusal(self, host: str, authorization: str, query: str) -> Answer | None:
        """What a request without the right to it gets; None for one that has it."""
        text = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
        if self._token is not None:
            given = [_secret(authorization), *parse_qs(query).get("token", [])]
            wanted = self._token.encode()
            if not any(hmac.compare_digest(one.encode(), wanted) for one in given):
                head = text | {"WWW-Authenticate": 'Basic realm="gort"'}
                return Answer(401, head, b"gort: a token is needed\n")
        elif self._checks_host and not _is_local(host):
            # A page of somewhere else, whose name was made to lead here, would send its own name.
            return Answer(403, text, b"gort: this server answers to localhost and to addresses\n")
        return None


def _secret(authorization: str) -> str:
    """The token in an Authorization header: Bearer's, or the password of Basic."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return ""


def _is_local(host: str) -> bool:
    """Whether a Host header is an address, localhost or empty."""
    name = host.rsplit("]", 1)[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower() in ("", "localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class _Handler(BaseHTTPRequestHandler):
    """Reads requests and writes answers."""

    protocol_version = "HTTP/1.1"
    server: Server  # type: ignore[assignment]

    def do_GET(self) -> None:
        """Answer."""
        path, _, query = self.path.partition("?")
        self.close_connection = True
        refused = self.server._refusal(
            self.headers.get("Host", ""), self.headers.get("Authorization", ""), query
        )
        length = self.headers.get("Content-Length") or "0"
        if refused is not None:
            self._send(refused)
        elif not length.isdigit() or int(length) > _BODY:
            self._send(Answer(413, {"Content-Type": "text/plain; charset=utf-8"}, b"too large\n"))
        else:
            body = self.rfile.read(int(length))
            asked = {name: self.headers.get(name, "") for name in _live.ASKED}
            path = unquote(path)
            self._send(_answer(self.command, path, query, body, asked, self._wait))

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET

    def _wait(self, seconds: float) -> None:
        """Wait, and see when the client goes."""
        deadline = time.monotonic() + seconds
        try:
            self.connection.settimeout(seconds)
            if not self.connection.recv(1, socket.MSG_PEEK):
                raise Gone
        except TimeoutError:
            pass
        finally:
            self.connection.settimeout(_PATIENCE)
        time.sleep(max(deadline - time.monotonic(), 0.0))  # it has sent its next request already

    def _send(self, reply: Answer) -> None:
        """Write an answer."""
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def version_string(self) -> str:
        """Name the server."""
        return "gort"

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


def serve(
    address: str = "127.0.0.1:6060", *, token: str | None = None, allow_remote: bool = False
) -> Server:
    """Serve /debug/pprof/ and /debug/gort/ from goroutines, until the server is closed.

    The first has profiles for `go tool pprof`, the second a live page for browsers and what
    `gort top` shows (docs/live.md). They show the program's insides, and taking a profile costs
    time: without a token or a clear word it listens for this machine only. It answers in plain
    text; keep the token from networks that are not yours. Never blocks for long.

    Args:
        address: `host:port`; port 0 takes a free one, `[::1]:6060` is IPv6.
        token: what a request must bring: `Authorization: Bearer TOKEN`, the password of Basic
            (`go tool pprof http://any:TOKEN@host:6060/debug/pprof/heap`), or `?token=TOKEN`.
        allow_remote: listen at an address that others can reach, without a token.

    Returns:
        The server.

    Raises:
        ValueError: the address is none, or can be reached by others while there is no token.
        OSError: it is taken, or not this machine's.

    Example:
        >>> import gort.pprof, urllib.request
        >>> with gort.pprof.serve("127.0.0.1:0") as server:
        ...     urllib.request.urlopen(server.url + "goroutine?debug=1").read()[:18]
        b'goroutine profile:'
    """
    host, colon, number = address.rpartition(":")
    if not colon or not number.isascii() or not number.isdigit() or int(number) > 65535:
        raise ValueError(f"serve(): an address is host:port, not {address!r}")
    if token is not None and not token:
        raise ValueError("serve(): an empty token is none")
    host = host.removeprefix("[").removesuffix("]")
    found = socket.getaddrinfo(
        host or None, int(number), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, where = found[0]
    is_local = all(
        ipaddress.ip_address(str(info[4][0]).partition("%")[0]).is_loopback for info in found
    )
    if not is_local and token is None and not allow_remote:
        raise ValueError(
            f"serve(): others can reach {address!r}: give a token, or say allow_remote=True"
        )
    listener = socket.create_server(where[:2], family=family)
    return Server(listener, token, checks_host=is_local)
