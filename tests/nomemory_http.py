"""Operations for tests/nomemory.py on the compiled part of gort.wsgi: all of it, or MemoryError."""

from __future__ import annotations

from gort import _core
from nomemory_values import FAILED

HEAD = (
    b"OWN /a%20b?c=1 HTTP/1.1\r\nHost: example.com:8000\r\nX-Own: \xe9 and more\r\nx_left: out\r\n"
    b"Cookie: a=b\r\nContent-Length: 3\r\n\r\n"
)
ENVIRON = {
    "REQUEST_METHOD": "OWN", "SERVER_PROTOCOL": "HTTP/1.1", "PATH_INFO": "/a b",
    "QUERY_STRING": "c=1", "REQUEST_URI": "/a%20b?c=1", "RAW_URI": "/a%20b?c=1",
    "HTTP_HOST": "example.com:8000", "HTTP_X_OWN": "é and more", "HTTP_COOKIE": "a=b",
    "CONTENT_LENGTH": "3",
}  # fmt: skip
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "1234567"), ("X-Own", "a" * 600)]


def reads_a_head():
    """The environ has all of it, unless the call says that it has not."""
    environ = {}

    def verify(outcome):
        if outcome is not FAILED:
            assert (outcome >> 5, environ) == (len(HEAD), ENVIRON)

    return lambda: _core._http_request(HEAD, environ, 8192, 65536, 100), verify


def writes_headers():
    """The lines are all there."""
    lines = b"Content-Type: text/plain\r\nX-Own: %b\r\n" % (b"a" * 600)

    def verify(outcome):
        assert outcome in (FAILED, (lines, 1234567, 0))

    return lambda: _core._http_lines(HEADERS), verify


OPERATIONS = {f.__name__: f for f in (reads_a_head, writes_headers)}
