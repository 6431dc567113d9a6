"""However a stream of requests is cut into segments, the answers are the same; and httptools agrees.

The connection is served over a transport that hands out the segments, so no socket takes part.
"""

from __future__ import annotations

import pytest
from gort.wsgi._serving import Connection, Service, base_environ
from gort.wsgi._settings import Settings
from hypothesis import given, settings
from hypothesis import strategies as st
from wsgi_corpus import BAD, CUT, GOOD, LAST
from wsgi_tools import Recorder, answers

SETTINGS = Settings(max_body=100_000)
# Limits below what is read at once: several are passed, and other faults come, in one segment.
SMALL = Settings(max_body=4, max_request_line=20, max_header_bytes=90, max_header_count=3)
LIMITS = st.sampled_from([SETTINGS, SMALL])
STREAMS = [entry[1] for entry in (*GOOD, *LAST, *BAD, *CUT) if len(entry[1]) < 20_000]


class Segments:
    """A transport that has these segments to give, and keeps what it is given."""

    has_sendfile = False

    def __init__(self, segments):
        self.segments = [s for s in segments if s]
        self.sent = b""
        self.last = 0  # bytes that it was told are the last
        self.ended = ""

    def handshake(self, timeout):
        pass

    def recv(self, size, timeout):
        if not self.segments:
            return b""
        data = self.segments.pop(0)
        if len(data) > size:
            self.segments.insert(0, data[size:])
        return data[:size]

    def send(self, parts):
        assert not self.last
        self.sent += b"".join(parts)

    def send_last(self, data):
        assert not self.last
        self.last = len(data)
        self.sent += data

    def close(self):
        self.ended = self.ended or "close"

    def finish(self):
        self.ended = self.ended or "finish"

    def reset(self):
        self.ended = self.ended or "reset"


def served(segments, app=None, limits=SETTINGS):
    """What the application sees of the segments, what it is answered, and how it ends."""
    recorder = app or Recorder()
    conn = Segments(segments)
    base = base_environ("http", ("localhost", 80), ("127.0.0.1", 1), limits)
    Connection(Service(recorder, limits), conn, base).run()
    found = [(a.status, a.body, a.headers.get("connection")) for a in answers(conn.sent)]
    return found, recorder.seen


@pytest.mark.parametrize(
    ("requests", "last"),
    [
        ([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], 0),
        ([b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"], 1),
        ([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"], 1),
        ([b"GET / HTTP/1.1\r\n\r\n"], 1),  # refused: without Host
    ],
)
def test_the_answer_after_which_it_ends_is_sent_as_the_last(requests, last):
    conn = Segments(requests)
    base = base_environ("http", ("localhost", 80), ("127.0.0.1", 1), SETTINGS)
    Connection(Service(Recorder(), SETTINGS), conn, base).run()
    found = answers(conn.sent)
    assert len(found) == len(requests)
    assert (conn.last > len(found[-1].body)) == bool(last)


def cut(data, places):
    """Cut bytes at these fractions of 1000."""
    at = sorted({0, len(data), *(len(data) * place // 1000 for place in places)})
    return [data[a:b] for a, b in zip(at, at[1:], strict=False)]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(STREAMS), min_size=1, max_size=4),
    st.lists(st.integers(0, 1000), max_size=12),
    LIMITS,
)
def test_segments_make_no_difference(streams, places, limits):
    data = b"".join(streams)
    assert served(cut(data, places), limits=limits) == served([data], limits=limits)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    b"GET / HTTP/1.1\r\n",
                    b"POST / HTTP/1.1\r\n",
                    b"Host: a\r\n",
                    b"\r\n",
                    b"\r\n\r\n",
                    b"\n",
                    b"\r",
                ]
                + [
                    b"Content-Length: 3\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"3\r\nabc\r\n",
                    b"0\r\n",
                    b"abc",
                ]
                + [b"X: ", b" ", b":", b";a=b", b"\0", b"X: " + b"a" * 30 + b"\r\n", b"a" * 9000]
            ),
            st.binary(max_size=6),
        ),
        max_size=25,
    ).map(b"".join),
    st.lists(st.integers(0, 1000), max_size=12),
    LIMITS,
)
def test_segments_of_rubbish_make_no_difference_and_raise_nothing(data, places, limits):
    assert served(cut(data, places), limits=limits) == served([data], limits=limits)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\n" + b"a" * 50, 400),
        (b"GET /" + b"a" * 50 + b"\n", 414),
        (b"GET / HTTP/1.1\r\nX: \n" + b"a" * 100, 400),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 100 + b"\n", 431),
        (b"GET /" + b"a" * 100, 414),
    ],
)
def test_of_two_faults_the_one_that_ends_first_counts(data, status):
    for segments in ([data], [data[n : n + 1] for n in range(len(data))]):
        ((found, _, _),), seen = served(segments, limits=SMALL)
        assert (found, seen) == (status, [])


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(STREAMS), st.data())
def test_one_byte_changed_raises_nothing(data, draw):
    if not data:
        return
    at = draw.draw(st.integers(0, len(data) - 1))
    changed = data[:at] + bytes([draw.draw(st.integers(0, 255))]) + data[at + 1 :]
    assert served([changed]) == served([changed[n : n + 1] for n in range(len(changed))])


class Told:
    """What httptools makes of a stream: requests with target and body, and whether it refused."""

    def __init__(self, httptools, data):
        self.requests = []
        self.refused = False
        parser = httptools.HttpRequestParser(self)
        self.parser = parser
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.refused = True

    def on_message_begin(self):
        self.body = b""
        self.target = b""

    def on_url(self, url):
        self.target += url

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.requests.append((self.parser.get_method(), self.target, self.body))


class Asked:
    """An application that remembers method, target and body as httptools has them."""

    def __init__(self):
        self.seen = []

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read()
        words = environ["REQUEST_METHOD"], environ["REQUEST_URI"]
        self.seen.append((*(word.encode("latin-1") for word in words), body))
        start_response("200 OK", [])
        return [b"x"]


@pytest.mark.parametrize("entry", [*GOOD, *BAD, *CUT], ids=lambda e: e[0])
def test_httptools_sees_the_same_requests(entry):
    """What we take for a request it does too, with the same body, or it refuses: no other reading."""
    httptools = pytest.importorskip("httptools")
    data = entry[1]
    asked = Asked()
    served([data], asked)
    told = Told(httptools, data)
    ours = [r for r in asked.seen]
    theirs = told.requests[: len(ours)]
    assert theirs == ours[: len(theirs)]
    assert len(theirs) == len(ours) or told.refused or entry[0] in ("asterisk-form",)
