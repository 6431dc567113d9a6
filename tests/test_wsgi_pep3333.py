"""PEP 3333: what an application may do, in every form, under wsgiref's validator and without it."""

from __future__ import annotations

import io
import logging
from wsgiref.validate import validator

import pytest
from waiting import eventually
from wsgi_tools import GET, HEAD, TEXT, answers, as_list, asked, one, serving

OLD = b"GET / HTTP/1.0\r\n\r\n"


class Closing:
    """An iterable that counts its close()."""

    def __init__(self, parts, closed):
        self.parts = parts
        self.closed = closed

    def __iter__(self):
        return iter(self.parts)

    def close(self):
        self.closed.append(1)


def as_generator(environ, start_response):
    start_response("200 OK", list(TEXT))
    yield b"ab"
    yield b""
    yield b"cd"


def as_late_generator(environ, start_response):
    yield b""
    start_response("200 OK", list(TEXT))
    yield b"abcd"


def as_written(environ, start_response):
    write = start_response("200 OK", list(TEXT))
    write(b"ab")
    write(b"")
    return [b"cd"]


def as_sized(environ, start_response):
    start_response("200 OK", [*TEXT, ("Content-Length", "4")])
    return iter([b"ab", b"cd"])


def as_file(environ, start_response):
    start_response("200 OK", list(TEXT))
    return environ["wsgi.file_wrapper"](io.BytesIO(b"abcd"), 3)


FORMS = (as_list, as_generator, as_late_generator, as_written, as_sized, as_file)


@pytest.mark.parametrize("app", FORMS, ids=lambda f: f.__name__)
def test_forms_are_valid_and_give_their_body(app):
    answer = one(app)
    assert (answer.status, answer.body) == (200, b"abcd")
    if app is not as_late_generator:  # the validator has start_response called before the first
        answer = one(validator(app))
        assert (answer.status, answer.body) == (200, b"abcd")


@pytest.mark.parametrize("app", FORMS, ids=lambda f: f.__name__)
def test_forms_in_http_1_0_end_with_length_or_connection(app):
    answer = one(app, OLD)
    assert (answer.status, answer.body) == (200, b"abcd")
    assert "transfer-encoding" not in answer.headers
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("app", FORMS, ids=lambda f: f.__name__)
def test_head_has_no_body_and_the_connection_goes_on(app):
    found = asked(app, HEAD + GET, ["HEAD", "GET"])
    assert [(a.status, a.body) for a in found] == [(200, b""), (200, b"abcd")]


def test_environ_is_what_the_validator_wants_and_pep_3333_says():
    seen = []

    def app(environ, start_response):
        seen.append({k: v for k, v in environ.items() if isinstance(v, str | bool | tuple)})
        start_response("200 OK", list(TEXT))
        return [b"x"]

    data = (
        b"POST /a%20b/c;d?e=%20f HTTP/1.1\r\nHost: h:81\r\nContent-Type: text/x\r\nContent-Length: 1\r\n"
        b"X-A: 1\r\nx-a: 2\r\nCookie: a=b\r\nCookie: c=d\r\nX_Under: 1\r\nProxy: evil\r\n\r\nx"
    )
    with serving(validator(app)) as server:
        assert [a.status for a in answers(server.exchange(data))] == [200]
    (environ,) = seen
    wanted = {
        "REQUEST_METHOD": "POST", "SCRIPT_NAME": "", "PATH_INFO": "/a b/c;d", "QUERY_STRING": "e=%20f",
        "REQUEST_URI": "/a%20b/c;d?e=%20f", "CONTENT_TYPE": "text/x", "CONTENT_LENGTH": "1",
        "SERVER_NAME": "127.0.0.1", "SERVER_PORT": str(server.port), "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "h:81", "HTTP_X_A": "1,2", "HTTP_COOKIE": "a=b; c=d", "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.multithread": True,
        "wsgi.multiprocess": False, "wsgi.run_once": False, "wsgi.input_terminated": True,
    }  # fmt: skip
    assert {key: environ.get(key) for key in wanted} == wanted
    assert not {"HTTP_X_UNDER", "HTTP_PROXY", "HTTP_CONTENT_LENGTH"} & set(environ)


def test_absolute_form_goes_before_host():
    seen = []

    def app(environ, start_response):
        seen.append((environ["HTTP_HOST"], environ["PATH_INFO"], environ["QUERY_STRING"]))
        start_response("204 No Content", [])
        return []

    one(app, b"GET http://b:1/x?y HTTP/1.1\r\nHost: a\r\n\r\n")
    assert seen == [("b:1", "/x", "y")]


def test_lists_have_a_length_and_generators_are_chunked():
    assert one(as_list).headers["content-length"] == "4"
    answer = one(as_generator)
    assert answer.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in answer.headers


def test_own_date_and_server_are_kept_and_missing_ones_made():
    def app(environ, start_response):
        start_response("200 OK", [("date", "then"), ("SERVER", "mine")])
        return [b""]

    answer = one(app)
    assert (answer.headers["date"], answer.headers["server"]) == ("then", "mine")
    answer = one(as_list, server_name="")
    assert "server" not in answer.headers
    assert answer.headers["date"].endswith(" GMT")


@pytest.mark.parametrize(
    ("status", "kept"),
    [("204 No Content", False), ("304 Not Modified", True), ("205 Reset Content", True)],
)
def test_statuses_without_a_body(status, kept):
    def app(environ, start_response):
        start_response(status, [("Content-Length", "0" if status < "3" else "4")])
        return [b""] if status[2] == "5" else [b"abcd"][: status[0] == "3"]

    found = asked(app, GET * 2)
    assert [(a.status, a.body) for a in found] == [(int(status[:3]), b"")] * 2
    assert ("content-length" in found[0].headers) == kept


def test_empty_bodies_have_length_zero():
    for body in ([], [b""], (), iter([])):

        def app(environ, start_response, body=body):
            start_response("200 OK", [])
            return body

        assert one(app).headers["content-length"] == "0"


# What an application must not do.

BAD_STARTS = (
    ("header with CR LF", "200 OK", [("X", "a\r\nY: b")]),
    ("header with LF", "200 OK", [("X", "a\nb")]),
    ("header with CR", "200 OK", [("X", "a\rb")]),
    ("header with NUL", "200 OK", [("X", "a\0b")]),
    ("header not in latin-1", "200 OK", [("X", "\u20ac")]),
    ("name with LF", "200 OK", [("X\nY", "a")]),
    ("name with colon", "200 OK", [("X:", "a")]),
    ("name with space", "200 OK", [("X ", "a")]),
    ("no name", "200 OK", [("", "a")]),
    ("name of bytes", "200 OK", [(b"X", "a")]),
    ("value of bytes", "200 OK", [("X", b"a")]),
    ("value of int", "200 OK", [("Content-Length", 4)]),
    ("header in a list", "200 OK", [["X", "a"]]),
    ("header of three", "200 OK", [("X", "a", "b")]),
    ("header is text", "200 OK", ["Xa"]),
    ("headers in a tuple", "200 OK", (("X", "a"),)),
    ("status with CR LF", "200 OK\r\nX: y", []),
    ("status without words", "200", []),
    ("status of two digits", "20 OK", []),
    ("status 100", "100 Continue", []),
    ("status of bytes", b"200 OK", []),
    ("status is int", 200, []),
    ("Connection", "200 OK", [("Connection", "close")]),
    ("Transfer-Encoding", "200 OK", [("transfer-encoding", "chunked")]),
    ("Keep-Alive", "200 OK", [("Keep-Alive", "1")]),
    ("Upgrade", "200 OK", [("Upgrade", "h2c")]),
    ("length no number", "200 OK", [("Content-Length", "x")]),
    ("length negative", "200 OK", [("Content-Length", "-4")]),
    ("length twice", "200 OK", [("Content-Length", "4"), ("content-length", "4")]),
)


@pytest.mark.parametrize(("name", "status", "headers"), BAD_STARTS, ids=[b[0] for b in BAD_STARTS])
def test_bad_status_or_header_is_an_error_of_the_application(name, status, headers, caplog):
    def app(environ, start_response):
        start_response(status, headers)
        return [b"abcd"]

    answer = one(app)
    assert (answer.status, answer.headers["connection"]) == (500, "close")
    assert "application failed" in caplog.text


def raising_at_once(environ, start_response):
    raise KeyError("at once")


def raising_behind_start(environ, start_response):
    start_response("200 OK", [("X", "y")])
    raise KeyError("at once")


def raising_at_the_first(environ, start_response):
    start_response("200 OK", [])
    yield b""
    raise KeyError("at once")


def never_starting(environ, start_response):
    return [b"KeyError: 'at once'"]


def returning_none(environ, start_response):
    start_response("200 OK", [])


def giving_text(environ, start_response):
    start_response("200 OK", [])
    return ["text"]


def writing_text(environ, start_response):
    start_response("200 OK", [])("text")
    return []


def starting_twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return []


def leaving(environ, start_response):
    raise SystemExit(3)


@pytest.mark.parametrize(
    "app",
    [raising_at_once, raising_behind_start, raising_at_the_first, never_starting, returning_none, giving_text,
     writing_text, starting_twice, leaving],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_application_that_fails_gives_500_and_a_traceback(app, caplog):
    answer = one(app)
    assert (answer.status, answer.headers["connection"]) == (500, "close")
    assert "x" not in answer.headers
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.getMessage().startswith("the application failed in goroutine ")
    assert record.getMessage().endswith(": GET /p?q=1")
    assert record.exc_info


def test_exc_info_replaces_the_head_that_was_not_sent():
    def app(environ, start_response):
        import sys

        start_response("200 OK", [("X", "y")])
        try:
            raise KeyError
        except KeyError:
            start_response("503 Sorry", [("Z", "y")], sys.exc_info())
        return [b"sorry"]

    answer = one(app)
    assert (answer.status, answer.body) == (503, b"sorry")
    assert "x" not in answer.headers
    assert answer.headers["z"] == "y"


def test_exc_info_is_raised_when_the_head_was_sent(caplog):
    def app(environ, start_response):
        import sys

        start_response("200 OK", [])(b"begun")
        try:
            raise KeyError("late")
        except KeyError:
            start_response("500 Sorry", [], sys.exc_info())
        return []

    with serving(app) as server:
        got = server.exchange(GET)
    assert got.endswith(b"5\r\nbegun\r\n")
    assert "KeyError: 'late'" in caplog.text


def failing_late(environ, start_response):
    start_response("200 OK", [])
    yield b"begun"
    raise KeyError("late")


def failing_late_with_length(environ, start_response):
    start_response("200 OK", [("Content-Length", "20")])
    yield b"begun"
    raise KeyError("late")


@pytest.mark.parametrize("app", [failing_late, failing_late_with_length], ids=lambda f: f.__name__)
def test_application_that_fails_in_the_middle_ends_the_connection(app, caplog):
    with serving(app) as server:
        got = server.exchange(GET + GET)
    assert got.count(b"HTTP/1.1") == 1
    assert b"begun" in got
    assert not got.endswith(b"0\r\n\r\n")
    assert "KeyError: 'late'" in caplog.text


def test_application_that_fails_in_the_middle_resets_a_body_that_the_end_would_end(caplog):
    with serving(failing_late) as server, pytest.raises(ConnectionResetError):
        server.exchange(OLD)


def too_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"abc"]


def too_long(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"abc"]


def too_long_in_parts(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    yield b"a"
    yield b"bc"


def too_long_written(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "2")])
    write(b"ab")
    write(b"c")
    return []


@pytest.mark.parametrize(
    "app", [too_short, too_long, too_long_in_parts, too_long_written], ids=lambda f: f.__name__
)
def test_body_that_is_not_as_long_as_it_says_ends_the_connection(app, caplog):
    with serving(app) as server:
        got = server.exchange(GET + GET)
    body = got.partition(b"\r\n\r\n")[2]
    assert body == (b"abc" if app is too_short else b"ab")
    assert "Content-Length" in caplog.text


@pytest.mark.parametrize("fails", ["no", "app", "iteration", "client"])
def test_close_is_called_once_whatever_happens(fails, caplog):
    closed = []

    def parts():
        yield b"x"
        if fails == "iteration":
            raise KeyError
        if fails == "client":
            for _ in range(10_000):
                yield b"x" * 65536
        yield b"y"

    def app(environ, start_response):
        start_response("200 OK" if fails != "app" else "bad", [])
        return Closing(parts(), closed)

    if fails == "app":  # its iterable never was
        assert one(app).status == 500
        assert closed == []
        return
    with serving(app) as server:
        if fails == "client":
            with server.connect() as sock:
                sock.sendall(GET)
                sock.recv(10)
        else:
            server.exchange(GET)
    assert closed == [1]


def test_head_does_not_run_a_body_to_its_end():
    made, closed = [], []

    def endless():
        while True:
            made.append(1)
            yield b"x"

    def app(environ, start_response):
        start_response("200 OK", [])
        return Closing(endless(), closed)

    assert one(app, HEAD, ["HEAD"]).status == 200
    assert (made, closed) == ([1], [1])


def test_application_that_goes_on_when_the_client_is_too_slow_sends_no_more():
    errors = []

    def app(environ, start_response):
        write = start_response("200 OK", [])
        for _ in range(3):
            try:
                while True:
                    write(b"x" * 1_000_000)
            except OSError as error:
                errors.append(type(error))
        return []

    with serving(app, write_timeout=0.05) as server, server.connect() as sock:
        sock.sendall(GET)
        eventually(lambda: len(errors) == 3)
        got = b""
        while part := sock.recv(1 << 20):
            got += part
    assert errors == [TimeoutError, BrokenPipeError, BrokenPipeError]
    assert not got.endswith(b"\r\n0\r\n\r\n")
