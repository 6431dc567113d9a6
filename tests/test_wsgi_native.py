"""What the core reads of a request and writes of a response is what the expressions in Python have.

The core may leave anything to them; what it takes, they have to take, with the same result.
"""

from __future__ import annotations

import pytest
from gort import _core
from gort.wsgi import RequestError, Settings
from gort.wsgi._head import HAS_BODY, IS_HTTP11, KEEPS, SHIFT, parse
from gort.wsgi._response import _looked_at
from hypothesis import given, settings
from hypothesis import strategies as st
from wsgi_corpus import BAD, CUT, GOOD, LAST

NO_LIMITS = Settings()
SMALL = Settings(max_request_line=20, max_header_bytes=90, max_header_count=3)
STREAMS = [entry[1] for entry in (*GOOD, *LAST, *BAD, *CUT) if len(entry[1]) < 20_000]
BROWSER = (
    b"GET /a%20b/c?x=%201&y HTTP/1.1\r\nHost: example.com:8000\r\nUser-Agent: Mozilla/5.0 (X11)\r\n"
    b"Accept: text/html;q=0.9, */*\r\nAccept-Language: en\r\nAccept-Encoding: gzip, br\r\n"
    b"Connection: keep-alive\r\nCookie: a=b; c=\xe9\r\nX-Own-Name: \t one two \t\r\n"
    b"x_under_score: 1\r\nProxy: evil\r\nX-Empty:\r\n\r\n"
)


def native(data, limits=NO_LIMITS):
    """The number and the environ of the core; None: it leaves the head to Python."""
    environ = {}
    most = limits.max_request_line, limits.max_header_bytes, limits.max_header_count
    found = _core._http_request(data, environ, *most)
    return None if found is None else (found, environ)


def in_python(data, limits=NO_LIMITS):
    """The same of Python's; None: it refuses, or the head is not whole."""
    environ = {}
    end = data.find(b"\r\n\r\n")
    try:
        return None if end < 0 else (parse(data, end + 4, environ, limits), environ)
    except RequestError:
        return None


def agree(data, limits=NO_LIMITS):
    """Whether the core takes it; then Python has to."""
    taken = native(data, limits)
    if taken is not None:
        assert taken == in_python(data, limits)
    return taken is not None


@pytest.mark.parametrize("data", STREAMS)
def test_corpus_is_read_alike(data):
    for limits in (NO_LIMITS, SMALL):
        agree(data, limits)


@pytest.mark.parametrize(
    ("data", "bits"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", IS_HTTP11 | KEEPS),
        (b"GET / HTTP/1.1\r\nHost:\r\nConnection: Close\r\n\r\n", IS_HTTP11),
        (b"HEAD /?a HTTP/1.0\r\n\r\n", 0),
        (b"OWN /x? HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n", KEEPS),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0003\r\n\r\nabc",
            IS_HTTP11 | KEEPS | HAS_BODY,
        ),
        (
            b"PUT / HTTP/1.1\r\nhost: a:\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
            IS_HTTP11 | KEEPS | HAS_BODY,
        ),
        (BROWSER + BROWSER, IS_HTTP11 | KEEPS),
    ],
)
def test_common_heads_are_taken(data, bits):
    assert agree(data)
    found, _ = native(data)
    assert (found & (1 << SHIFT) - 1, found >> SHIFT) == (bits, data.find(b"\r\n\r\n") + 4)


def test_environ_has_the_parts():
    _, environ = native(BROWSER)
    assert environ == {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "PATH_INFO": "/a b/c",
        "QUERY_STRING": "x=%201&y",
        "REQUEST_URI": "/a%20b/c?x=%201&y",
        "RAW_URI": "/a%20b/c?x=%201&y",
        "HTTP_HOST": "example.com:8000",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11)",
        "HTTP_ACCEPT": "text/html;q=0.9, */*",
        "HTTP_ACCEPT_LANGUAGE": "en",
        "HTTP_ACCEPT_ENCODING": "gzip, br",
        "HTTP_CONNECTION": "keep-alive",
        "HTTP_COOKIE": "a=b; c=é",
        "HTTP_X_OWN_NAME": "one two",
        "HTTP_X_EMPTY": "",
    }


@pytest.mark.parametrize("end", range(len(BROWSER)))
def test_part_of_a_head_is_left(end):
    assert native(BROWSER[:end]) is None


@pytest.mark.parametrize("at", range(len(BROWSER)))
def test_any_byte_in_any_place_is_read_alike(at):
    for byte in range(256):
        agree(BROWSER[:at] + bytes([byte]) + BROWSER[at + 1 :])


def test_limits_are_those_of_python():
    for size in range(1, 40):
        agree(b"GET /" + b"a" * size + b" HTTP/1.0\r\n\r\n", SMALL)
    assert agree(b"GET /" + b"a" * 6 + b" HTTP/1.0\r\n\r\n", SMALL)
    assert not agree(b"GET /" + b"a" * 7 + b" HTTP/1.0\r\n\r\n", SMALL)
    for size in range(1, 100):
        agree(b"GET / HTTP/1.0\r\na: " + b"b" * size + b"\r\n\r\n", SMALL)
    for count in range(6):
        taken = agree(b"GET / HTTP/1.0\r\n" + b"a_: b\r\n" * count + b"\r\n", SMALL)
        assert taken == (count <= 3)
    assert agree(b"GET /" + b"%41" * 1023 + b" HTTP/1.0\r\n\r\n")
    assert not agree(b"GET /" + b"%41" * 1024 + b" HTTP/1.0\r\n\r\n")
    assert agree(b"GET / HTTP/1.0\r\n" + b"n" * 64 + b": x\r\n\r\n")
    assert not agree(b"GET / HTTP/1.0\r\n" + b"n" * 65 + b": x\r\n\r\n")


LINE = st.sampled_from(
    [b"GET / HTTP/1.1\r\n", b"POST /a?b HTTP/1.0\r\n", b"GET /%4a%zz HTTP/1.1\r\n"]
)
NAMES = st.sampled_from(
    [b"Host", b"HOST", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"Cookie",
     b"X-A", b"x_a", b"Proxy", b"Upgrade", b"Accept", b"Content-Type", b""]
)  # fmt: skip
VALUES = st.sampled_from(
    [b"a", b"", b"chunked", b"gzip, chunked", b"close", b"keep-alive", b"keep-alive, close", b"3",
     b"+3", b"9" * 19, b"100-continue", b"[::1]:80", b"a:80", b"a:b", b"%41", b"a b", b"a,b"]
)  # fmt: skip
FIELD = st.builds(
    lambda name, colon, value, end: name + colon + value + end,
    st.one_of(NAMES, NAMES, st.binary(max_size=3)),
    st.sampled_from([b": ", b": ", b": ", b":", b" :", b"\t: \t"]),
    st.one_of(VALUES, VALUES, st.binary(max_size=4)),
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b" \r\n", b"\n", b"\r"]),
)


@settings(max_examples=2000, deadline=None)
@given(LINE, st.lists(FIELD, max_size=5).map(b"".join), st.sampled_from([NO_LIMITS, SMALL]))
def test_heads_of_any_fields_are_read_alike(line, fields, limits):
    agree(line + b"Host: a\r\n" + fields + b"\r\n", limits)
    agree(line + fields + b"\r\n", limits)


def test_misuse_is_a_type_error():
    for arguments in [(), (b"", {}, 1, 1), (bytearray(), {}, 1, 1, 1), (b"", [], 1, 1, 1),
                      (b"", {}, None, 1, 1)]:  # fmt: skip
        with pytest.raises(TypeError):
            _core._http_request(*arguments)
    with pytest.raises(TypeError):
        _core._http_lines()


# Headers of responses.


def lines_agree(headers):
    """Whether the core takes them; then Python has to."""
    taken = _core._http_lines(headers)
    if taken is not None:
        assert taken == _looked_at(headers)
    return taken is not None


def test_common_headers_are_taken():
    assert lines_agree([])
    assert lines_agree([("Content-Type", "text/plain"), ("Content-Length", "0012"), ("X", "")])
    assert _core._http_lines(
        [("Date", "now"), ("A", "\tb "), ("content-length", "7"), ("SERVER", "s")]
    ) == (b"Date: now\r\nA: \tb \r\nSERVER: s\r\n", 7, 3)


@pytest.mark.parametrize(
    "headers",
    [
        None, (), [("a",)], [["a", "b"]], [("a", "b", "c")], [(b"a", b"b")], [("a", 1)], [("", "b")],
        [("a", "b\r\nc: d")], [("a", "\0")], [("a", "\x7f")], [("a b", "c")], [("a:", "b")],
        [("é", "a")], [("a", "\udc80")], [("a", "€")], [("Content-Length", "-1")],
        [("Content-Length", "")], [("Content-Length", "1" * 19)],
        [("Content-Length", "1"), ("content-length", "1")],
        *([(name, "a")] for name in ("Connection", "keep-ALIVE", "TE", "Trailer", "trailers",
                                     "Transfer-Encoding", "UPGRADE", "Proxy-Connection",
                                     "proxy-authenticate", "Proxy-Authorization")),
    ],
)  # fmt: skip
def test_what_python_refuses_is_left(headers):
    assert _core._http_lines(headers) is None
    with pytest.raises((TypeError, ValueError)):
        _looked_at(headers)


def test_headers_of_latin_1_are_left_to_python():
    assert _core._http_lines([("a", "é")]) is None
    assert _looked_at([("a", "é")]) == (b"a: \xe9\r\n", None, 0)


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from(["A", "Content-Length", "date"]), st.text(max_size=3)),
            st.one_of(st.sampled_from(["a", "12"]), st.text(max_size=5)),
        ),
        max_size=5,
    )
)
def test_any_headers_are_written_alike(headers):
    lines_agree(headers)
