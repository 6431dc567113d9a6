"""What a response and a request are read and written with: files sent by the kernel, and wsgi.input."""

from __future__ import annotations

import gzip
import io
import os
import tempfile

import gort
import pytest
from wsgi_tools import GET, HEAD, TEXT, answers, as_list, asked, one, serving

# Files.


def file_app(file, start=0, length=None, kind=None):
    def app(environ, start_response):
        file.seek(start)
        start_response("200 OK", [] if length is None else [("Content-Length", str(length))])
        return environ["wsgi.file_wrapper"](file if kind is None else kind(file))

    return app


@pytest.mark.parametrize(("start", "length"), [(0, None), (10, None), (10, 1000), (0, 0)])
def test_regular_file_is_sent_from_where_it_stands(start, length):
    data = os.urandom(300_000)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        answer = one(file_app(file, start, length))
        assert file.closed
    wanted = data[start:] if length is None else data[start : start + length]
    assert answer.body == wanted
    assert answer.headers["content-length"] == str(len(wanted))


def test_file_shorter_than_its_length_ends_the_connection(caplog):
    with tempfile.TemporaryFile() as file:
        file.write(b"abc")
        with serving(file_app(file, 0, 5)) as server:
            got = server.exchange(GET + GET)
    assert got.count(b"HTTP/1.1") == 1
    assert "shorter" in caplog.text


def test_head_of_a_file_has_its_length_and_no_body():
    with tempfile.TemporaryFile() as file:
        file.write(b"abc")
        answer = one(file_app(file), HEAD, ["HEAD"])
    assert (answer.headers["content-length"], answer.body) == ("3", b"")


def test_pipe_in_a_file_wrapper_is_read():
    reading, writing = os.pipe()
    os.write(writing, b"abc")
    os.close(writing)

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](open(reading, "rb", 0))

    assert one(app).body == b"abc"


def test_file_that_makes_something_else_of_its_descriptor_is_read(tmp_path):
    with gzip.open(tmp_path / "f", "wb") as file:
        file.write(b"abc" * 1000)

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](gzip.open(tmp_path / "f"))

    assert one(app).body == b"abc" * 1000


# wsgi.input.

READS = (
    ("all", lambda f: [f.read()]),
    ("all by None", lambda f: [f.read(None)]),
    ("three", lambda f: [f.read(3), f.read(3), f.read(100), f.read(1)]),
    ("none", lambda f: [f.read(0), f.read()]),
    ("lines", lambda f: [f.readline(), f.readline(), f.readline(), f.readline()]),
    ("lines of two", lambda f: [f.readline(2), f.readline(2), f.readline(0), f.readline(100)]),
    ("list of lines", lambda f: f.readlines()),
    ("list of lines, hint", lambda f: f.readlines(4)),
    ("iteration", lambda f: list(f)),
    ("line, then rest", lambda f: [f.readline(), f.read(2), f.read()]),
)


@pytest.mark.parametrize("how", ["length", "chunks"])
@pytest.mark.parametrize(("name", "read"), READS, ids=[r[0] for r in READS])
def test_input_reads_as_a_file_does_and_ends_with_the_body(name, read, how):
    data = b"ab\ncdef\ngh"
    seen = []

    def app(environ, start_response):
        seen.append(read(environ["wsgi.input"]))
        start_response("200 OK", list(TEXT))
        return [b"x"]

    if how == "length":
        body = b"Content-Length: 10\r\n\r\n" + data
    else:
        body = (
            b"Transfer-Encoding: chunked\r\n\r\n"
            + b"".join(b"1\r\n%c\r\n" % c for c in data)
            + b"0\r\n\r\n"
        )
    request = b"POST / HTTP/1.1\r\nHost: a\r\n" + body
    assert [a.status for a in asked(app, request + request)] == [200, 200]
    wanted = read(io.BytesIO(data))
    assert seen == [wanted, wanted]


@pytest.mark.parametrize("how", ["length", "chunks"])
@pytest.mark.parametrize("size", [10, 200_000, 400_000])
def test_body_that_is_not_read_is_skipped_or_ends_the_connection(how, size):
    if how == "length":
        body = b"Content-Length: %d\r\n\r\n" % size + b"x" * size
    else:
        body = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n"
    request = b"POST / HTTP/1.1\r\nHost: a\r\n" + body
    found = asked(as_list, request + GET)
    assert len(found) == (1 if size > 256 * 1024 else 2)


def test_continue_is_said_once_and_only_to_who_waits():
    def app(environ, start_response):
        file = environ["wsgi.input"]
        data = file.read(1) + file.read()
        start_response("200 OK", [])
        return [data]

    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with serving(app) as server, server.connect() as sock:
        sock.sendall(head)
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert answers(sock.recv(1000))[0].body == b"abc"
        sock.sendall(head + b"abc")
        assert answers(sock.recv(1000))[0].body == b"abc"


def test_who_has_begun_to_send_is_not_asked_to_continue():
    begun = gort.Chan()

    def app(environ, start_response):
        data = environ["wsgi.input"].read(1)
        begun.close()
        data += environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [data]

    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with serving(app) as server, server.connect() as sock:
        sock.sendall(head + b"a")
        begun.recv_ok()
        sock.sendall(b"bc")
        got = sock.recv(1000)
    assert got.startswith(b"HTTP/1.1 200 ")
    assert answers(got)[0].body == b"abc"


def test_who_is_not_asked_to_continue_gets_the_answer_and_the_end():
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with serving(as_list) as server:
        got = server.exchange(head + b"", cut=False)
    assert got.startswith(b"HTTP/1.1 200 ")
    assert got.endswith(b"abcd")
