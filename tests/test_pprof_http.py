"""/debug/pprof/ over HTTP: statuses, headers and words are those of Go's net/http/pprof."""

from __future__ import annotations

import io
import socket
import sys
import threading

import gort
import gort.pprof
import gort.trace
import pytest
import traces
from pprofs import ask, go, pprof, read
from waiting import eventually, waiter


@pytest.fixture
def server():
    with gort.pprof.serve("127.0.0.1:0") as server:
        yield server


def test_index_lists_the_profiles(server):
    status, headers, body = ask(server, "/debug/pprof/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    text = body.decode()
    for name in (
        "allocs",
        "cmdline",
        "goroutine",
        "goroutineleak",
        "heap",
        "profile",
        "symbol",
        "threadcreate",
        "trace",
    ):
        assert f"<a href='{name}?debug=1'>{name}</a>" in text


def test_index_escapes_names(server):
    name = "test<script>'&"
    if gort.pprof.lookup(name) is None:
        gort.pprof.new_profile(name)
    text = ask(server, "/debug/pprof/")[2].decode()
    assert "<script>" not in text and "test&lt;script&gt;" in text
    assert ask(server, "/debug/pprof/test%3Cscript%3E'&")[0] == 200


@pytest.mark.parametrize("name", ["allocs", "goroutine", "goroutineleak", "heap", "threadcreate"])
def test_profile_is_a_file(server, name):
    status, headers, body = ask(server, f"/debug/pprof/{name}?gc=1")
    assert status == 200 and headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert read(body).kinds


@pytest.mark.parametrize("debug", ["1", "2", "-1", "99999999999999999999"])
def test_debug_is_text(server, debug):
    status, headers, body = ask(server, f"/debug/pprof/goroutine?debug={debug}")
    assert status == 200 and headers["Content-Type"] == "text/plain; charset=utf-8"
    assert "Content-Disposition" not in headers
    expected = b"\x1f\x8b" if debug == "-1" else b"goroutine "
    assert body.startswith(expected)


@pytest.mark.parametrize("debug", ["", "x", "1_0", " 1", "0x1"])
def test_debug_that_is_no_number_counts_as_none(server, debug):
    headers = ask(server, f"/debug/pprof/goroutine?debug={debug.replace(' ', '%20')}")[1]
    assert headers["Content-Type"] == "application/octet-stream"


def test_unknown_profile(server):
    status, headers, body = ask(server, "/debug/pprof/nothing")
    assert (status, body) == (404, b"Unknown profile\n")
    assert headers["X-Go-Pprof"] == "1" and headers["Content-Type"] == "text/plain; charset=utf-8"


def test_other_paths(server):
    assert ask(server, "/")[::2] == (404, b"404 page not found\n")
    status, headers, _ = ask(server, "/debug/pprof")
    assert (status, headers["Location"]) == (301, "/debug/pprof/")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_only_get_is_allowed(server, method):
    status, headers, body = ask(server, "/debug/pprof/goroutine", method)
    assert (status, headers["Allow"], body) == (405, "GET, HEAD", b"Method Not Allowed\n")


def test_head_has_no_body(server):
    status, headers, body = ask(server, "/debug/pprof/cmdline", "HEAD")
    assert (status, body) == (200, b"") and int(headers["Content-Length"]) > 0


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "1.5", "9" * 30])
def test_seconds_must_be_a_positive_integer(server, seconds):
    status, headers, body = ask(server, f"/debug/pprof/goroutine?seconds={seconds}")
    assert (status, body) == (400, b'invalid value for "seconds" - must be a positive integer\n')
    assert headers["X-Go-Pprof"] == "1" and "Content-Disposition" not in headers


def test_seconds_and_debug_are_incompatible(server):
    body = ask(server, "/debug/pprof/goroutine?seconds=1&debug=1")
    assert body[::2] == (400, b"seconds and debug params are incompatible\n")


def test_seconds_of_a_profile_of_ones_own_are_refused(server):
    if gort.pprof.lookup("test_http.own") is None:
        gort.pprof.new_profile("test_http.own")
    status, _, body = ask(server, "/debug/pprof/test_http.own?seconds=1")
    assert (status, body) == (400, b'"seconds" parameter is not supported for this profile type\n')


def stays(ch):
    ch.recv()


def test_seconds_give_what_came_in_between(server):
    ch = gort.Chan()
    before = waiter(stays, ch)
    asked = gort.go(ask, server, "/debug/pprof/goroutine?seconds=1")
    eventually(
        lambda: "answer" in gort.dump() and "_wait" in gort.dump(), what="a request that waits"
    )
    later = [waiter(stays, ch) for _ in range(3)]
    status, headers, body = asked.join()
    assert status == 200
    assert headers["Content-Disposition"] == 'attachment; filename="goroutine-delta"'
    profile = read(body)
    assert sum(values[0] for _, values, _ in profile.of("stays")) == 3
    assert profile.duration >= 1_000_000_000
    ch.close()
    for g in (before, *later):
        with pytest.raises(gort.ChanClosed):
            g.join()


def test_cmdline_is_separated_by_nul(server):
    assert ask(server, "/debug/pprof/cmdline")[2].decode() == "\0".join(sys.orig_argv)


def test_symbols_of_what_runs(server):
    g = waiter(stays, gort.Chan())
    text = ask(server, "/debug/pprof/goroutine?debug=1")[2].decode()
    [line] = [line for line in text.splitlines() if f"{__name__}.stays+" in line][:1]
    address = line.split()[1]
    expected = f"num_symbols: 1\n{address} {__name__}.stays\n".encode()
    assert ask(server, f"/debug/pprof/symbol?{address}")[2] == expected
    assert ask(server, "/debug/pprof/symbol", "POST", f"0x1+{address}+x")[2] == expected
    assert ask(server, "/debug/pprof/symbol")[2] == b"num_symbols: 1\n"
    g.cancel()


def test_second_cpu_profile_is_refused_and_the_first_goes_on(server):
    file = io.BytesIO()
    gort.pprof.start_cpu_profile(file)
    status, headers, body = ask(server, "/debug/pprof/profile?seconds=1")
    assert (status, body) == (
        500,
        b"Could not enable CPU profiling: cpu profiling already in use\n",
    )
    assert headers["X-Go-Pprof"] == "1" and "Content-Disposition" not in headers
    gort.pprof.stop_cpu_profile()
    assert read(file.getvalue()).kinds[0] == ("samples", "count")


def test_cpu_profile_of_a_client_that_goes_ends(server):
    with socket.create_connection(server.address) as client:
        client.sendall(b"GET /debug/pprof/profile?seconds=3600 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: "_http._cpu_profile" in gort.dump(), what="a profile in progress")
    eventually(lambda: "_http._cpu_profile" not in gort.dump(), what="its end")
    file = io.BytesIO()
    gort.pprof.start_cpu_profile(file)
    gort.pprof.stop_cpu_profile()


def test_wsgi_application_wherever_it_is_mounted():
    seen = []
    request = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/internal",
        "PATH_INFO": "/debug/pprof/goroutine",
        "QUERY_STRING": "debug=1",
    }
    [body] = gort.pprof.app(request, lambda status, headers: seen.append((status, dict(headers))))
    assert body.startswith(b"goroutine profile: total ")
    [(status, headers)] = seen
    assert status == "200 OK" and headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize("address", [":0", "0.0.0.0:0", "[::]:0"])
def test_others_can_not_reach_it_unless_told(address):
    with pytest.raises(ValueError, match="others can reach"):
        gort.pprof.serve(address)


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:", "localhost:x", "localhost:99999"]
)
def test_address_must_be_one(address):
    with pytest.raises(ValueError, match="host:port"):
        gort.pprof.serve(address)


def test_address_that_is_taken(server):
    with pytest.raises(OSError, match="in use"):
        gort.pprof.serve("127.0.0.1:%d" % server.address[1])


def test_token_is_asked_for():
    with gort.pprof.serve("0.0.0.0:0", token="sesame") as server:
        path = "/debug/pprof/cmdline"
        status, headers, body = ask(server, path)
        assert (
            status == 401
            and headers["WWW-Authenticate"].startswith("Basic")
            and b"python" not in body
        )
        assert ask(server, path, Authorization="Bearer wrong")[0] == 401
        assert ask(server, path, Authorization="Basic !!!")[0] == 401
        assert ask(server, path + "?token=sesame")[0] == 200
        assert ask(server, path, Authorization="Bearer sesame")[0] == 200
        assert ask(server, path, Authorization="Basic YW55OnNlc2FtZQ==")[0] == 200
    with pytest.raises(ValueError, match="empty token"):
        gort.pprof.serve("127.0.0.1:0", token="")


def test_names_of_elsewhere_are_refused(server):
    assert ask(server, "/debug/pprof/cmdline", Host="evil.example:80")[0] == 403
    for host in ("localhost:6060", "127.0.0.1", "[::1]:6060"):
        assert ask(server, "/debug/pprof/cmdline", Host=host)[0] == 200


def test_rubbish_is_answered_and_disturbs_nobody(server):
    for request in (
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\xff" * 70_000 + b"\r\n\r\n",
    ):
        with socket.create_connection(server.address) as client:
            client.settimeout(60)
            try:
                client.sendall(request)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass
            except ConnectionError:
                pass
    assert ask(server, "/debug/pprof/cmdline", "POST", b"", Content_Length="x")[0] == 413
    assert ask(server, "/debug/pprof/cmdline")[0] == 200


def test_closed_server_listens_no_more(server):
    server.close()
    server.close()
    with pytest.raises(OSError):
        socket.create_connection(server.address, timeout=5)


@pytest.mark.timeout(300)
def test_go_tool_pprof_asks_a_running_program(server, tmp_path):
    ch = gort.Chan()
    gs = [waiter(stays, ch) for _ in range(3)]

    go()  # skips here, and not in a thread

    def tool(*arguments, **kwargs):
        """In a thread: goroutines answer meanwhile."""
        result = []
        with gort.threads.real():
            t = threading.Thread(
                target=lambda: result.append(pprof(*arguments, tmp_path=tmp_path, **kwargs))
            )
            t.start()
        t.join()
        return result[0] if result else pprof(*arguments, tmp_path=tmp_path, **kwargs)

    url = server.url
    assert f"{__name__}.stays" in tool("-top", "-cum", url + "goroutine")
    saved = tmp_path / "before"
    saved.write_bytes(ask(server, "/debug/pprof/goroutine")[2])
    tool("-top", "-base", saved, url + "goroutine")
    assert "Type: alloc_space" in tool("-top", "-sample_index=alloc_space", url + "heap")
    assert "Type: cpu" in tool("-top", "-seconds", "1", f"http://127.0.0.1:{server.address[1]}")
    assert "Unknown profile" in tool("-top", url + "nothing", check=False)
    ch.close()
    for g in gs:
        with pytest.raises(gort.ChanClosed):
            g.join()


def test_a_trace_of_some_seconds(server):
    status, headers, body = ask(server, "/debug/pprof/trace?seconds=0.05")
    assert status == 200 and headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"] == 'attachment; filename="trace"'
    assert traces.read(body).counts["GoBlock"] > 0
    with gort.trace.to(io.BytesIO()):
        status, headers, body = ask(server, "/debug/pprof/trace")
    assert (status, headers["X-Go-Pprof"]) == (500, "1")
    assert body == b"Could not enable tracing: tracing is already enabled\n"


def test_a_trace_ends_when_its_client_goes(server):
    with socket.create_connection(server.address) as client:
        client.sendall(b"GET /debug/pprof/trace?seconds=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(gort.trace.is_enabled)
    eventually(lambda: not gort.trace.is_enabled())
