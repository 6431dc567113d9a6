"""`gort serve`: workers that serve, are replaced, reloaded without a lost request, and end in order."""

from __future__ import annotations

import http.client
import os
import signal
import socket

import gort
import gort.wsgi
import pytest
from serving import APP, Load, ask, is_alive, serve
from waiting import LIMIT, eventually
from wsgi_tools import PLAIN, answers, hello, receive_all


def slow(one):
    """A request under way; the goroutine that waits for its answer."""
    before = len(inside(one))
    g = gort.go(one.ask, "/slow")
    eventually(lambda: len(inside(one)) > before or g.done)
    return g


def inside(one):
    path = one.folder / "inside"
    return path.read_text() if path.exists() else ""


def test_workers_serve_and_sigterm_lets_requests_finish(tmp_path):
    with serve(tmp_path, "--workers", "2", "--access-log") as one:
        pid, version, kind, scheme, many = one.ask()
        assert (version, kind, scheme, many) == ("one", "goroutine", "http", "True")
        assert pid in one.pids and len(one.pids) == 2
        port, waiting = one.port, slow(one)
        one.send(signal.SIGTERM)
        one.said("SIGTERM: ending")
        eventually(lambda: is_refused(port))
        (tmp_path / "go").touch()
        assert len(waiting.join(LIMIT)) == 5
        assert one.process.wait(LIMIT) == 0
        assert '"GET / HTTP/1.1" 200' in one.log
        assert "ended with status 0" in one.log
        assert not any(map(is_alive, one.pids))


def is_refused(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it was in the listener's queue when that closed
    return False


@pytest.mark.parametrize("is_last", [True, False])
def test_what_waits_in_a_shared_queue_is_served_by_the_last_server_only(is_last):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        socks = [socket.create_connection(listener.getsockname()) for _ in range(5)]
        for sock in socks:
            sock.sendall(PLAIN)
        servers = [gort.wsgi.Server(hello) for _ in range(2)]
        for server in servers:
            server.listen_on(listener.dup(), is_shared=True)
        servers[0].start()
        assert servers[0].shutdown(LIMIT, is_last=is_last) is True
        if not is_last:
            listener.setblocking(False)
            assert listener.accept()[0].recv(1000) == PLAIN  # they wait for whoever goes on
            servers[1].start()
            socks.pop(0).close()
        assert servers[1].shutdown(LIMIT, is_last=True) is True
        for sock in socks:
            assert answers(receive_all(sock))[0].status == 200
            sock.close()


@pytest.mark.parametrize("tls", [False, True])
def test_reload_under_load_loses_no_request(tmp_path, tls):
    options, connect = (), None
    if tls:
        import certificates

        (tmp_path / "pem").write_text(certificates.PEM)
        options = ("--tls-cert", str(tmp_path / "pem"))
        context = certificates.client_context()

        def connect():
            return http.client.HTTPSConnection(
                "localhost", one.port, timeout=LIMIT, context=context
            )

    with serve(tmp_path, "--workers", "2", *options) as one:
        load = Load(one.port, connect=connect)
        waiting = None if tls else slow(one)
        for turn, version in enumerate(("two", "three"), 1):
            eventually(lambda: set(one.pids) <= load.pids or load.dropped)
            old = one.pids
            (tmp_path / "served.py").write_text(APP.replace('"one"', f'"{version}"'))
            one.send(signal.SIGHUP)
            one.said("reloaded, ", turn)
            assert not set(old) & set(one.pids)
            eventually(lambda: version in load.versions or load.dropped)
            if waiting is not None:
                (tmp_path / "go").touch()
                assert waiting.join(LIMIT)[0] in old
                waiting = None
            eventually(lambda: not any(map(is_alive, old)))
        load.end()
        assert load.dropped == []
        assert load.versions == {"one", "two", "three"}
        one.end()
    assert "Traceback" not in one.log


def test_reload_of_a_broken_application_keeps_the_old_workers(tmp_path):
    with serve(tmp_path, "--workers", "2") as one:
        old = one.pids
        load = Load(one.port)
        (tmp_path / "served.py").write_text("raise LookupError('on purpose')")
        one.send(signal.SIGHUP)
        one.said("not reloaded, the old workers go on: importing served raised LookupError: on p")
        assert "Traceback" in one.log
        answers = load.answers
        eventually(lambda: load.answers > answers + 50 or load.dropped)
        assert one.pids == old and all(map(is_alive, old))
        (tmp_path / "served.py").write_text(APP.replace('"one"', '"two"'))
        one.send(signal.SIGHUP)
        one.said("reloaded, ")
        eventually(lambda: "two" in load.versions or load.dropped)
        load.end()
        assert load.dropped == []
        one.end()


def test_reload_while_another_is_under_way_begins_anew(tmp_path):
    with serve(tmp_path, "--workers", "2") as one:
        waits = "import os, time\nopen('inside', 'a').write('x')\n"
        waits += "while not os.path.exists('go'): time.sleep(0.01)\n"
        (tmp_path / "served.py").write_text(waits + APP.replace('"one"', '"two"'))
        one.send(signal.SIGHUP)
        eventually(lambda: len(inside(one)) == 2)
        (tmp_path / "served.py").write_text(APP.replace('"one"', '"three"'))
        one.send(signal.SIGHUP)
        one.said("reloaded, ")
        seen = []  # the old ones may accept until they have heard
        eventually(lambda: seen.append(one.ask()[1]) or seen[-1] != "one")
        assert seen[-1] == "three"
        one.end()


def test_killed_worker_is_replaced(tmp_path):
    with serve(tmp_path, "--workers", "2") as one:
        pids = one.pids
        for turn in (1, 2):
            os.kill(int(one.ask()[0]), signal.SIGKILL)
            one.said("was killed by SIGKILL; another is started in 0.", turn)
            eventually(lambda: len(children(one)) == 2)
        seen = set()
        eventually(lambda: seen.add(one.ask()[0]) or not seen <= set(pids))
        one.end()


def test_worker_that_cannot_be_started_is_tried_again(tmp_path):
    code = """
import os, gort.cli._supervisor as s
popen = s.subprocess.Popen
def refused(*args, **options):
    if os.path.exists("refuse"):
        raise BlockingIOError(11, "no process")
    return popen(*args, **options)
s.subprocess.Popen = refused
"""
    with serve(tmp_path, code=code) as one:
        (pid,) = one.pids
        (tmp_path / "refuse").touch()
        one.send(signal.SIGHUP)
        one.said("not reloaded: the old workers go on")
        assert one.ask()[0] == pid
        os.kill(int(pid), signal.SIGKILL)
        one.said("cannot start a worker: [Errno 11] no process", 3)
        (tmp_path / "refuse").unlink()
        assert one.ask()[0] != pid  # it waited in the queue
        one.end()


def children(one):
    path = f"/proc/{one.process.pid}/task/{one.process.pid}/children"
    with open(path) as file:
        return file.read().split()


def test_worker_that_gets_sigterm_finishes_and_is_replaced(tmp_path):
    with serve(tmp_path) as one:
        (pid,) = one.pids
        waiting = slow(one)
        os.kill(int(pid), signal.SIGTERM)
        eventually(lambda: ends_connections(one.port) or not is_alive(pid))
        (tmp_path / "go").touch()
        assert waiting.join(LIMIT)[0] == pid
        one.said(f"worker {pid} ended with status 0; another is started")
        eventually(lambda: one.ask()[0] != pid)
        one.end()


def ends_connections(port):
    """Whether the only worker takes no more: a connection waits in the queue."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        sock.settimeout(0.2)
        try:
            return not sock.recv(100)
        except TimeoutError:
            return True


@pytest.mark.parametrize("path", ["/", "/stuck"])
def test_workers_do_not_outlive_their_supervisor(tmp_path, path):
    with serve(tmp_path, "--workers", "2") as one:
        pids = one.pids
        g = None
        if path == "/stuck":
            g = gort.go(lambda: pytest.raises(OSError, ask, one.port, path))
            eventually(lambda: inside(one))
        one.process.kill()
        eventually(lambda: not any(map(is_alive, pids)))
        if g is not None:
            g.join(LIMIT)


def test_ctrl_c_at_the_terminal_ends_in_order(tmp_path):
    with serve(tmp_path, "--workers", "2") as one:
        waiting = slow(one)
        os.killpg(one.process.pid, signal.SIGINT)  # all of the group get it, as at a terminal
        one.said("SIGINT: ending")
        (tmp_path / "go").touch()
        assert len(waiting.join(LIMIT)) == 5
        assert one.process.wait(LIMIT) == 0
        assert "Traceback" not in one.log


def test_requests_that_take_too_long_are_cut_and_the_status_says_so(tmp_path):
    with serve(tmp_path, "--drain-timeout", "0.1") as one:
        g = gort.go(
            lambda: pytest.raises((OSError, http.client.HTTPException), ask, one.port, "/slow")
        )
        eventually(lambda: inside(one))
        one.end(status=1)
        g.join(LIMIT)
        assert "cut requests that did not finish in time" in one.log


@pytest.mark.parametrize("patience", [0.1, 1000])
def test_worker_that_is_stuck_is_killed(tmp_path, patience):
    """After a time, or by a second signal."""
    code = f"import gort.cli._supervisor as s; s.KILL_AFTER = {patience}"
    with serve(tmp_path, "--drain-timeout", "0", code=code) as one:
        g = gort.go(lambda: pytest.raises(OSError, ask, one.port, "/stuck"))
        eventually(lambda: inside(one))
        one.send(signal.SIGTERM)
        one.said("SIGTERM: ending")
        if patience > 1:
            one.send(signal.SIGTERM)
        assert one.process.wait(LIMIT) == 1
        expected = "SIGTERM again" if patience > 1 else "does not end in time, and is killed"
        assert expected in one.log
        g.join(LIMIT)


def test_unix_socket_that_a_killed_one_left_is_taken_over(tmp_path):
    path = tmp_path / "sock"
    for end in ("kill", "term"):
        with serve(tmp_path, "--host", f"unix:{path}") as one:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
            if end == "term":
                one.end()
                assert not path.exists()
            else:
                one.process.kill()
                one.process.wait(LIMIT)
                assert path.exists()
                eventually(lambda: not any(map(is_alive, one.pids)))


def test_processes_of_the_application_get_no_socket_and_no_ignored_signal(tmp_path):
    with serve(tmp_path) as one:
        words = one.ask("/child")
        assert not [word for word in words if word.startswith("socket:")]
        ignored = int(words[words.index("SigIgn:") + 1], 16)
        assert not ignored & (1 << signal.SIGINT - 1 | 1 << signal.SIGHUP - 1)
        one.end()


def test_threads_of_the_application_can_be_goroutines(tmp_path):
    app = (
        "import threading, gort\n"
        "found = []\n"
        "def app(environ, start_response):\n"
        "    n = gort.num_goroutine()\n"
        "    t = threading.Thread(target=lambda: found.append(gort.num_goroutine() - n))\n"
        "    t.start(); t.join()\n"
        "    start_response('200 OK', [])\n"
        "    return [str(found).encode()]\n"
    )
    with serve(tmp_path, "--threads", app=app) as one:
        assert one.ask() == ["[1]"]
        one.end()
