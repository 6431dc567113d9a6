"""What reading the head of a request costs: gort.wsgi, compiled and not, httptools and h11.

httptools stands behind a layer that is as strict about lines as gort.wsgi.

    .venv-3.11/bin/python -m pip install httptools h11
    .venv-3.11/bin/python benches/wsgi_parsers.py

Prints microseconds per head, the least of several rounds.
"""

from __future__ import annotations

import re
import timeit

import h11
import httptools
from gort import _core
from gort.wsgi._head import parse
from gort.wsgi._settings import Settings

HEADS = {
    "small": b"GET /plaintext HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n",
    "of a browser": (
        b"GET /a/b?x=1 HTTP/1.1\r\nHost: example.com\r\n"
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0\r\n"
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n"
        b"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n"
        b"Connection: keep-alive\r\nCookie: a=b; c=d; session=0123456789abcdef\r\n"
        b"Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\n"
        b"Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\nSec-Fetch-User: ?1\r\n\r\n"
    ),
}
SETTINGS = Settings()
LINES = re.compile(rb"[^\r\n\0]*+(?:\r\n[^\s\0][^\r\n\0]*+)*+\r\n\r\n")
KEYS: dict[bytes, str] = {}


def compiled(data: bytes) -> dict[str, str]:
    """Read it as the server does first."""
    environ: dict[str, str] = {}
    if _core._http_request(data, environ, 8192, 65536, 100) is None:
        raise ValueError
    return environ


def expressions(data: bytes) -> dict[str, str]:
    """Read it as the server does where that is not enough."""
    environ: dict[str, str] = {}
    parse(data, data.find(b"\r\n\r\n") + 4, environ, SETTINGS)
    return environ


class Called:
    """What httptools calls."""

    def on_message_begin(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


CALLED = Called()
PARSER = httptools.HttpRequestParser(CALLED)


def with_httptools(data: bytes) -> dict[str, str]:
    """Look at the lines, and have httptools take them apart."""
    end = data.find(b"\r\n\r\n") + 4
    if not LINES.fullmatch(data[:end]):
        raise ValueError
    PARSER.feed_data(data[:end])
    environ = {
        "REQUEST_METHOD": PARSER.get_method().decode(),
        "SERVER_PROTOCOL": PARSER.get_http_version(),
    }
    for name, value in CALLED.fields:
        key = KEYS.get(name)
        if key is None:
            key = KEYS[name] = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
        environ[key] = value.decode("latin-1")
    return environ


def with_h11(data: bytes) -> object:
    """Have h11 read it."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    return connection.next_event()


def main() -> None:
    """Measure and print."""
    count = 10_000
    for what, data in HEADS.items():
        for read in (compiled, expressions, with_httptools, with_h11):
            rounds = timeit.repeat(lambda read=read, data=data: read(data), number=count, repeat=7)
            print(f"{what:14}{read.__name__:16}{min(rounds) / count * 1e6:7.1f} us")


if __name__ == "__main__":
    main()
